//! Where somebody listens on this machine, as the kernel tells: so a port is known to be taken without trying it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's number for a socket that listens.
const LISTENS: &str = "0A";
/// No line of the kernel's is longer, in bytes.
const LONGEST_LINE: usize = 1 << 10;

/// The places where connections are accepted, in our network namespace.
#[derive(Debug, Default)]
pub struct Listeners(BTreeSet<SocketAddr>);

impl Listeners {
    /// As things are now. Where the kernel does not tell, nobody is known to listen.
    pub fn read() -> Self {
        let mut found = Self::default();
        for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
            let Ok(file) = File::open(path) else { continue };
            // A line per connection: there may be very many.
            let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
            let lines = lines.filter(|line| line.len() < LONGEST_LINE);
            found.0.extend(lines.filter_map(|line| listener(std::str::from_utf8(&line).ok()?)));
        }
        found
    }

    /// Whether whoever wants to listen at `place` would find it taken.
    pub fn has(&self, place: SocketAddr) -> bool {
        self.0.iter().any(|other| other.port() == place.port() && meet(other.ip(), place.ip()))
    }

    /// Whether whoever wants to listen at this port would, at one of the places where nodes mostly do: on this machine alone,
    /// everywhere, or at its address if that is known.
    pub fn have(&self, port: u16, host: Option<IpAddr>) -> bool {
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        here.into_iter().chain(host).any(|ip| self.has(SocketAddr::new(ip, port)))
    }
}

/// Whether two cannot both listen at one port.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    let everywhere = |ip: IpAddr, than: IpAddr| match ip {
        // One that listens everywhere mostly does so for both.
        IpAddr::V6(ip) => ip.is_unspecified(),
        IpAddr::V4(ip) => ip.is_unspecified() && (than.is_ipv4() || than.is_unspecified()),
    };
    let [one, other] = [one, other].map(|ip| ip.to_canonical());
    one == other || everywhere(one, other) || everywhere(other, one)
}

/// The place of a line that tells of somebody who listens.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let (address, port) = local.split_once(':').filter(|_| state == LISTENS)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes, each as this machine has it in memory.
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(words.as_flattened()).for_each(|(byte, from)| *byte = *from);
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        // As a machine with the low byte first writes them.
        let [v4, v6] = match cfg!(target_endian = "little") {
            true => ["0100007F", "00000000000000000000000001000000"],
            false => ["7F000001", "00000000000000000000000000000001"],
        };
        let line =
            |address: &str, state: &str| format!("  12: {address}:1F90 00000000:0000 {state} 00000000:00000000 00");
        assert_eq!(listener(&line(v4, "0A")), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(listener(&line(v6, "0A")), Some("[::1]:8080".parse().unwrap()));
        for other in [
            line(v4, "01"),
            line("0100", "0A"),
            line("ü", "0A"),
            "  sl  local_address rem_address st".into(),
            "".into(),
        ] {
            assert_eq!(listener(&other), None, "{other}");
        }
    }

    #[test]
    fn whoever_listens_is_found_and_nobody_else() {
        let (v4, everywhere) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap());
        let [taken, wide] = [&v4, &everywhere].map(|listener| listener.local_addr().unwrap().port());
        let found = Listeners::read();
        let place = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        assert!(found.has(place([127, 0, 0, 1], taken)) && found.has(place([0, 0, 0, 0], taken)));
        assert!(!found.has(place([127, 0, 0, 2], taken)), "that is another place");
        assert!(found.have(taken, None) && found.have(wide, None));
        assert!(found.has(place([127, 0, 0, 2], wide)));
        drop(v4);
        assert!(!Listeners::read().has(place([127, 0, 0, 1], taken)));
    }

    #[test]
    fn places_meet_where_the_kernel_refuses_the_second() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (one, other, wanted) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("::", "10.0.0.1", true),
            ("::", "0.0.0.0", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!((meet(ip(one), ip(other)), meet(ip(other), ip(one))), (wanted, wanted), "{one} {other}");
        }
    }
}

//! Where somebody listens, as people write it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The longest host name, in bytes.
const LONGEST_HOST: usize = 253;

/// A host and a port. A name is looked up by whoever dials, whenever it dials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// A text that is no [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write HOST:PORT, such as 192.0.2.10:2150, [2001:db8::1]:2150 or control.example:2150")]
pub struct NoEndpoint;

impl Endpoint {
    /// The address, unless there is a name to be looked up.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(NoEndpoint)?;
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| is_port && port != 0).ok_or(NoEndpoint)?;
        let is_label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(is_inner) && !label.starts_with('-')
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        // An address that is nearly one, such as 10.0.0.300, is no name either.
        let is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        match name.len() <= LONGEST_HOST && name.split('.').all(is_label) && !is_number {
            true => Ok(Self { host: Host::Name(host.to_owned()), port }),
            false => Err(NoEndpoint),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_read_back_as_they_were_written() {
        for text in ["127.0.0.1:2150", "[::1]:1", "localhost:2150", "control.site.example:65535", "a_b.c-d.:7"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]:7".parse::<Endpoint>().unwrap().address(), "[::1]:7".parse().ok());
        assert_eq!("localhost:7".parse::<Endpoint>().unwrap().address(), None);
    }

    #[test]
    fn what_is_neither_is_refused() {
        let long = format!("{}:1", "a".repeat(64));
        for text in
            ["", ":1", "localhost", "localhost:", "localhost:0", "localhost:70000", "localhost:+1", "a b:1", "::1:7"]
        {
            assert_eq!(text.parse::<Endpoint>(), Err(NoEndpoint), "{text}");
        }
        for text in ["10.0.0.300:1", "10.0.0:1", "-a:1", "a..b:1", "http://a:1", &long] {
            assert_eq!(text.parse::<Endpoint>(), Err(NoEndpoint), "{text}");
        }
    }
}

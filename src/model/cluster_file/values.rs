//! What stands behind a key, as text, becomes what it means. An error says what would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::words;
use crate::hint::{instead, shown};
use crate::model::{Capability, Limit, ProbeBy, ReadyBy, Resource};

pub(super) fn within<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    let wrong = || format!("{} is not a number from {least} to {most}", shown(text));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
}

pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{} is no {what}: {error}", shown(text)))
}

pub(super) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= 100).ok_or_else(|| format!("{} is not from 0% to 100%", shown(text)))
}

pub(super) fn umask(text: &str) -> Result<u32, String> {
    let wrong = || format!("{} is no umask: write octal digits such as 027", shown(text));
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(wrong)
}

pub(super) fn nice(text: &str) -> Result<i32, String> {
    let wrong = || format!("{} is no niceness: write a number from -20 to 19", shown(text));
    text.parse().ok().filter(|nice| (-20..=19).contains(nice)).ok_or_else(wrong)
}

pub(super) fn limits(text: &str) -> Result<BTreeMap<Resource, Limit>, String> {
    let limit = |(name, value): (String, String)| {
        let resource = Resource::ALL.iter().find(|resource| resource.as_str() == name);
        let names = Resource::ALL.iter().map(|resource| resource.as_str());
        let wrong = || format!("{} is no resource: {}", shown(&name), instead(&name, names));
        let limit: Limit = value.parse().map_err(|error| format!("{} is no limit: {error}", shown(&value)))?;
        Ok((*resource.ok_or_else(wrong)?, limit))
    };
    assignments(text)?.into_iter().map(limit).collect()
}

pub(super) fn capabilities(text: &str) -> Result<BTreeSet<Capability>, String> {
    let capability = |name: String| {
        let names = Capability::all().map(Capability::as_str);
        Capability::named(&name).ok_or_else(|| format!("{} is no capability: {}", shown(&name), instead(&name, names)))
    };
    words(text)?.into_iter().map(capability).collect()
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{} is neither: write yes or no", shown(text))),
    }
}

pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    words::split(text).map_err(|error| error.to_string())
}

pub(super) fn assignments(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for word in words(text)? {
        let wrong = || format!("{} is not of the form NAME=VALUE", shown(&word));
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{} is set twice: remove one", shown(name)));
        }
    }
    Ok(pairs)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{} is not a port: write a number from 1 to 65535", shown(text))),
    }
}

/// `HOST:PORT`, parted at the last colon.
pub(super) fn address(text: &str) -> Result<(IpAddr, u16), String> {
    let form = "write IP:PORT such as 10.0.0.5:2151 or [fd00::5]:2151, or nothing if its agent dials";
    let wrong = || format!("{} is not the address of an agent: {form}", shown(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    match host {
        Some(host) if !host.is_unspecified() => Ok((host, self::port(port)?)),
        _ => Err(wrong()),
    }
}

pub(super) fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{} is not a number from 0 to {}", shown(text), u32::MAX))
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{} is not a time ({error}): write one such as 500ms, 10s or 1m 30s", shown(text)))
}

pub(super) fn sign(text: &str) -> Result<ReadyBy, String> {
    match kind(text) {
        ("notify", "") => Ok(ReadyBy::Notify),
        ("zeek", "") => Ok(ReadyBy::Zeek),
        ("settle", rest) if !rest.is_empty() => time(rest).map(ReadyBy::Settle),
        ("tcp" | "port", rest) if !rest.is_empty() => Ok(match place(rest)? {
            Place::Port(port) => ReadyBy::Port(port),
            Place::Address(address) => ReadyBy::Tcp(address),
        }),
        _ => {
            let signs = "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`";
            Err(format!("{} is no sign of readiness: {signs}", shown(text)))
        }
    }
}

pub(super) fn question(text: &str) -> Result<ProbeBy, String> {
    match kind(text) {
        ("tcp" | "port", rest) if !rest.is_empty() => Ok(match place(rest)? {
            Place::Port(port) => ProbeBy::Port(port),
            Place::Address(address) => ProbeBy::Tcp(address),
        }),
        ("exec", rest) if !rest.is_empty() => words(rest).map(ProbeBy::Exec),
        _ => Err(format!("{} is no probe: write `tcp 8080`, or `exec` and a command", shown(text))),
    }
}

/// The first word, and what is behind it and the space or colon that ends it.
fn kind(text: &str) -> (&str, &str) {
    let (kind, rest) = text.split_once(|c: char| c.is_whitespace() || c == ':').unwrap_or((text, ""));
    (kind, rest.trim_start())
}

enum Place {
    Port(u16),
    Address(SocketAddr),
}

/// A port of the machine itself, or one of an address.
fn place(text: &str) -> Result<Place, String> {
    if text.chars().all(|c| c.is_ascii_digit()) {
        return port(text).map(Place::Port);
    }
    let wrong = || format!("{} is no place to connect to: write a port, or IP:PORT such as [::1]:8080", shown(text));
    text.parse().map(Place::Address).map_err(|_| wrong())
}

/// The value whose `name` the text is, in any case.
pub(super) fn one_of<T: Copy, const N: usize>(
    text: &str,
    what: &str,
    values: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = values.into_iter().find(|&value| name(value).eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{} is not a {what}: {}", shown(text), instead(text, values.map(name))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, read};
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused_with_the_way_out() {
        for (line, want) in [
            ("cpu_affinity = -1", "`-1` is no list of CPUs: write numbers and ranges such as 0-3,8"),
            ("cpu_affinity = 0-1024", "`0-1024` is no list of CPUs: CPU 1024 is beyond the last there can be, 1023"),
            ("memory_max = 2GB", "`2GB` is no amount of memory: write bytes, such as 2G, 512M or 1048576"),
            ("cpu_max = 2", "`2` is no share of a CPU: write hundredths of one CPU's time, such as 50% or 150%"),
            ("pids_max = many", "`many` is not a number from 0 to 4294967295"),
            ("restart_factor = 0.5", "`0.5` is no factor: write a number from 1 to 100"),
            ("restart_jitter = 101%%", "`101%` is not from 0% to 100%"),
            ("stop_grace = 10", "write one such as 500ms, 10s or 1m 30s"),
            ("ready = soon", "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`"),
            ("ready = tcp 0", "write a number from 1 to 65535"),
            ("ready = notify me", "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`"),
            ("ready = tcp host:80", "`host:80` is no place to connect to: write a port, or IP:PORT"),
            ("probe = http://x", "`http://x` is no probe: write `tcp 8080`, or `exec` and a command"),
            ("probe = exec", "`exec` is no probe"),
            ("restart = alwys", "`alwys` is not a restart mode: did you mean `always`?"),
            ("env = A=1 A=2", "`A` is set twice: remove one"),
            ("env = =2", "`=2` is not of the form NAME=VALUE"),
            ("command = 'sh", "the quote ' is never closed"),
            ("umask = 0888", "write octal digits such as 027"),
            ("nice = 20", "write a number from -20 to 19"),
            ("limits = nofiles=1", "`nofiles` is no resource: did you mean `nofile`?"),
            ("limits = nofile=many", "`many` is no limit: write a number or `unlimited`"),
            ("capabilities = net_rw", "`net_rw` is no capability: did you mean `net_raw`?"),
            ("no_new_privs = maybe", "`maybe` is neither: write yes or no"),
            ("instance = a/b", "instance name `a/b` may hold only letters"),
            ("port 5000", "is not a key of a node: did you mean `port`?"),
            ("interface = %", "holds a single `%`: write `%%` for a percent sign"),
        ] {
            let got = complaints(&format!("[a]\nrole = none\n{line}"));
            assert!(got.len() == 1 && got[0].starts_with("c.cfg:3: [a] ") && got[0].contains(want), "{line}: {got:?}");
        }
    }

    #[test]
    fn signs_and_probes_are_written_with_a_space_or_a_colon() {
        let got = |line: &str| {
            let configuration = read(&format!("[a]\nrole = none\n{line}")).unwrap();
            let node = &configuration.nodes[0];
            let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.clone());
            (node.ready.by.clone(), probe.map(|probe| probe.by))
        };
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        for line in ["ready = tcp 80", "ready = tcp:80", "ready = tcp: 80", "ready = port 80"] {
            assert_eq!(got(line).0, ReadyBy::Port(80), "{line}");
        }
        assert_eq!(got("ready = notify").0, ReadyBy::Notify);
        assert_eq!(got("ready = tcp [::1]:80").0, ReadyBy::Tcp(address));
        assert_eq!(got("probe = tcp:[::1]:80").1, Some(ProbeBy::Tcp(address)));
        assert_eq!(got("probe = tcp 80").1, Some(ProbeBy::Port(80)));
        assert_eq!(got("probe = exec: a 'b c'").1, Some(ProbeBy::Exec(vec!["a".into(), "b c".into()])));
    }
}

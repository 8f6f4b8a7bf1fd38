//! The section `[zeek]`: what all Zeek nodes share. This file knows its keys.

use std::collections::BTreeMap;
use std::net::IpAddr;

use humantime::format_duration;

use super::archive;
use super::lines::Section;
use super::node;
use super::render::{self, list};
use super::values::{assignments, number, one_of, port, time, words};
use super::words::join;
use super::{Complaint, Complaints};
use crate::hint::{instead, shown};
use crate::model::{Backend, Encrypt, InstanceName, Loss, Network, Zeek};

/// The section's name. A section that says which role, instance or command it has is a node of that name.
pub(crate) const ZEEK: &str = "zeek";

/// Every key of the section.
pub(super) const KEYS: [&str; 33] = [
    "backend",
    "scripts",
    "args",
    "options",
    "env",
    "prefixes",
    "path",
    "zeekpath",
    "networks",
    "networks_file",
    "rotation_interval",
    "archive",
    "archive_compress",
    "archive_compressor",
    "archive_extension",
    "archive_command",
    "archive_keep",
    "archive_keep_age",
    "archive_keep_bytes",
    "archive_min_free",
    "metrics_address",
    "port",
    "metrics_port",
    "zeromq_ports",
    "encrypt",
    "zeromq_keys",
    "hash_seed",
    "addresses",
    "pcap_snaplen",
    "pcap_bufsize",
    "heartbeat",
    "loss_above",
    "loss_for",
];

/// Whether a section is that of all Zeek nodes.
pub(super) fn is_settings(section: &Section) -> bool {
    let of_a_node = |key: &str| ["role", "type", "instance", "command"].contains(&key);
    section.name == ZEEK && !section.entries.iter().any(|entry| of_a_node(&entry.key))
}

/// What the section says, as far as it can be understood; `None` if that is every default.
pub(super) fn settings(section: &Section, complaints: &mut Complaints) -> Option<Box<Zeek>> {
    let mut zeek = Zeek::default();
    for entry in &section.entries {
        if complaints.is_full() {
            break;
        }
        if let Err(what) = take(&mut zeek, &entry.key, entry.value.as_deref()) {
            complaints.add(Complaint { ..section.complaint(Some(entry), what) });
        }
    }
    (zeek != Zeek::default()).then(|| Box::new(zeek))
}

fn take(zeek: &mut Zeek, key: &str, value: Option<&str>) -> Result<(), String> {
    let value = match value {
        Some(value) => value,
        None if KEYS.contains(&key) => return Ok(()),
        None => "",
    };
    match key {
        "backend" => zeek.backend = one_of(value, "backend", Backend::ALL, Backend::as_str)?,
        "scripts" => zeek.scripts = words(value)?,
        "args" => zeek.args = words(value)?,
        "options" => zeek.options = assignments(value)?,
        "env" => zeek.env = assignments(value)?,
        "prefixes" => zeek.prefixes = words(value)?,
        "path" => zeek.path = words(value)?,
        "zeekpath" => zeek.script_path = words(value)?,
        "networks" => zeek.networks = networks(value)?,
        "networks_file" => zeek.networks_file = Some(value.to_owned()),
        "rotation_interval" => zeek.rotation_interval = Some(time(value)?),
        "metrics_address" => zeek.metrics_address = Some(address(value)?),
        "port" => zeek.port = Some(port(value)?),
        "metrics_port" => {
            let wrong = || format!("{} is not a port: write a number from 0 to 65535, 0 for none", shown(value));
            zeek.metrics_port = Some(value.parse().map_err(|_| wrong())?);
        }
        "zeromq_ports" => zeek.zeromq_ports = Some(two_ports(value)?),
        "encrypt" => zeek.encrypt = one_of(value, "choice", Encrypt::ALL, Encrypt::as_str)?,
        "zeromq_keys" => zeek.zeromq_keys = number(value)?,
        "hash_seed" => zeek.hash_seed = Some(seed(value)?),
        "addresses" => zeek.addresses = addresses(value)?,
        "pcap_snaplen" => zeek.pcap_snaplen = Some(number(value)?),
        "pcap_bufsize" => zeek.pcap_bufsize = Some(number(value)?),
        _ if archive::KEYS.contains(&key) => archive::take(&mut zeek.archive, key, value)?,
        "heartbeat" => zeek.health.heartbeat = Some(time(value)?),
        "loss_above" => zeek.health.loss_above = Some(loss(value)?),
        "loss_for" => zeek.health.loss_for = Some(time(value)?),
        _ if node::KEYS.contains(&key) => {
            let way_out = "write it into each of them, or add a `role` if this is to be a node";
            return Err(format!("is a key of a node, and [zeek] is what all Zeek nodes share: {way_out}"));
        }
        _ => return Err(format!("is not a key of [zeek]: {}", instead(key, KEYS))),
    }
    Ok(())
}

fn networks(text: &str) -> Result<Vec<Network>, String> {
    let network = |word: String| word.parse().map_err(|error| format!("{} is no network: {error}", shown(&word)));
    words(text)?.into_iter().map(network).collect()
}

/// An address, with or without the brackets around one of IPv6.
fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inner.parse().map_err(|_| format!("{} is no address: write one such as 10.0.0.5 or fd00::5", shown(text)))
}

fn addresses(text: &str) -> Result<BTreeMap<InstanceName, IpAddr>, String> {
    let pair = |(name, value): (String, String)| {
        let name = InstanceName::new(&name).map_err(|error| error.to_string())?;
        Ok((name, address(&value)?))
    };
    assignments(text)?.into_iter().map(pair).collect()
}

fn loss(text: &str) -> Result<Loss, String> {
    text.parse().map_err(|error| format!("{} is no loss: {error}", shown(text)))
}

fn two_ports(text: &str) -> Result<[u16; 2], String> {
    let ports = words(text)?.iter().map(|word| port(word)).collect::<Result<Vec<_>, _>>()?;
    ports.try_into().map_err(|_| format!("{} are not two ports: write such as `5555 5556`", shown(text)))
}

fn seed(text: &str) -> Result<u32, String> {
    let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let seed = u32::from_str_radix(text, 16).ok().filter(|_| is_hex);
    seed.ok_or_else(|| format!("{} is no seed: write eight hexadecimal digits", shown(text)))
}

/// The keys that are not at their default.
pub(super) fn entries(zeek: &Zeek) -> Vec<(&'static str, String)> {
    let default = Zeek::default();
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let addresses = zeek.addresses.iter().map(|(name, address)| format!("{name}={address}"));
    let zeromq_ports = zeek.zeromq_ports.map(|[xpub, xsub]| format!("{xpub} {xsub}"));
    let before = [
        ("backend", (zeek.backend != default.backend).then(|| zeek.backend.as_str().to_owned())),
        // An empty list is none of the scripts, and not those of the default.
        ("scripts", (zeek.scripts != default.scripts).then(|| join(&zeek.scripts))),
        ("args", list(join(&zeek.args))),
        ("options", list(render::assignments(&zeek.options))),
        ("env", list(render::assignments(&zeek.env))),
        ("prefixes", list(join(&zeek.prefixes))),
        ("path", list(join(&zeek.path))),
        ("zeekpath", list(join(&zeek.script_path))),
        ("networks", list(join(zeek.networks.iter().map(Network::to_string)))),
        ("networks_file", zeek.networks_file.clone()),
        ("rotation_interval", zeek.rotation_interval.map(|time| format_duration(time).to_string())),
    ];
    let behind = [
        ("metrics_address", zeek.metrics_address.map(|address| address.to_string())),
        ("port", number(zeek.port.map(u32::from))),
        ("metrics_port", number(zeek.metrics_port.map(u32::from))),
        ("zeromq_ports", zeromq_ports),
        ("encrypt", (zeek.encrypt != default.encrypt).then(|| zeek.encrypt.as_str().to_owned())),
        ("zeromq_keys", (zeek.zeromq_keys != default.zeromq_keys).then(|| zeek.zeromq_keys.to_string())),
        ("hash_seed", zeek.hash_seed.map(|seed| format!("{seed:08x}"))),
        ("addresses", list(join(addresses))),
        ("pcap_snaplen", number(zeek.pcap_snaplen)),
        ("pcap_bufsize", number(zeek.pcap_bufsize)),
        ("heartbeat", zeek.health.heartbeat.map(|time| format_duration(time).to_string())),
        ("loss_above", zeek.health.loss_above.map(|loss| loss.to_string())),
        ("loss_for", zeek.health.loss_for.map(|time| format_duration(time).to_string())),
    ];
    let all = before.into_iter().chain(archive::entries(&zeek.archive)).chain(behind);
    all.filter_map(|(key, value)| Some((key, value?))).collect()
}

/// The keys in which two of them differ, in the order of [`KEYS`].
pub(crate) fn differing_keys(one: &Zeek, other: &Zeek) -> Vec<&'static str> {
    let [one, other] = [one, other].map(|zeek| entries(zeek).into_iter().collect::<BTreeMap<_, _>>());
    KEYS.into_iter().filter(|key| one.get(key) != other.get(key)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, read};
    use super::*;
    use crate::model::{ArchivePlace, ArchiveRules, ZeekHealth};

    #[test]
    fn every_key_finds_its_field_and_its_way_back() {
        let text = "[zeek]\nbackend = ZeroMQ\nscripts = local 'my site'\nargs = -C b=T\noptions = A::x=T\nenv = A=1\n\
                    prefixes = local site\npath = /opt/bin\nzeekpath = /opt/scripts\nnetworks = 10.0.0.0/8 [fd00::]/8\n\
                    networks_file = /etc/networks.cfg\nrotation_interval = 1h\narchive = /srv/logs\n\
                    archive_compress = no\narchive_compressor = xz -T1\narchive_extension = .xz\n\
                    archive_command = ship --to 'a b'\narchive_keep = conn.* '*a b*'\narchive_keep_age = 30days\n\
                    archive_keep_bytes = 2T\narchive_min_free = 5\nmetrics_address = [::1]\nport = 27760\n\
                    metrics_port = 0\nzeromq_ports = 5555 5556\nencrypt = no\nzeromq_keys = 2\nhash_seed = 00c0FFEE\naddresses = a=10.0.0.1 b=[fd00::2]\n\
                    pcap_snaplen = 9216\npcap_bufsize = 128\nheartbeat = 2s\nloss_above = 0.5%%\nloss_for = 3m\n[w]\nrole = worker\n";
        let got = read(text).unwrap();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let want = Zeek {
            backend: Backend::ZeroMq,
            scripts: words(&["local", "my site"]),
            args: words(&["-C", "b=T"]),
            options: pair("A::x", "T"),
            env: pair("A", "1"),
            prefixes: words(&["local", "site"]),
            path: words(&["/opt/bin"]),
            script_path: words(&["/opt/scripts"]),
            networks: ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into(),
            networks_file: Some("/etc/networks.cfg".into()),
            rotation_interval: Some(Duration::from_secs(3600)),
            archive: ArchiveRules {
                place: ArchivePlace::At("/srv/logs".into()),
                compress: false,
                compressor: words(&["xz", "-T1"]),
                extension: "xz".into(),
                keep: words(&["conn.*", "*a b*"]),
                command: words(&["ship", "--to", "a b"]),
                keep_age: Some(Duration::from_secs(30 * 24 * 3600)),
                keep_bytes: Some(2 << 40),
                min_free: 5,
            },
            metrics_address: Some("::1".parse().unwrap()),
            port: Some(27_760),
            metrics_port: Some(0),
            zeromq_ports: Some([5555, 5556]),
            encrypt: Encrypt::No,
            zeromq_keys: 2,
            hash_seed: Some(0xc0_ffee),
            addresses: [("a", "10.0.0.1"), ("b", "fd00::2")]
                .map(|(name, address)| (InstanceName::new(name).unwrap(), address.parse().unwrap()))
                .into(),
            pcap_snaplen: Some(9216),
            pcap_bufsize: Some(128),
            health: ZeekHealth {
                heartbeat: Some(Duration::from_secs(2)),
                loss_above: Some(Loss::new(50)),
                loss_for: Some(Duration::from_secs(180)),
            },
        };
        assert_eq!(entries(&want).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), KEYS);
        assert_eq!(got.zeek.as_deref(), Some(&want));
        assert_eq!(read(&super::super::render(&got)).unwrap(), got);
    }

    #[test]
    fn no_scripts_and_the_default_ones_are_two_things() {
        let none = read("[zeek]\nscripts =\n").unwrap();
        assert_eq!(none.zeek.as_ref().unwrap().scripts, [""; 0]);
        assert_eq!(read(&super::super::render(&none)).unwrap(), none);
        for default in ["", "[zeek]\n", "[zeek]\nscripts\n", "[zeek]\nscripts = local\nbackend = auto\n"] {
            assert_eq!(read(default).unwrap().zeek, None, "{default}");
        }
    }

    #[test]
    fn a_section_with_a_role_an_instance_or_a_command_is_a_node_called_zeek() {
        for line in ["role = worker", "TYPE = worker", "command = zeek -i eth0", "instance = i\nrole = worker"] {
            let got = read(&format!("[zeek]\n{line}\n")).unwrap();
            assert_eq!((got.nodes.len(), got.zeek), (1, None), "{line}");
        }
        assert_eq!(
            complaints("[zeek]\nrole = worker\nbackend = broker\n"),
            [
                "c.cfg:3: [zeek] backend: is a key of the section that all Zeek nodes share, and this is a node, since it \
              says role, instance or command: give the node another name"
            ]
        );
        assert_eq!(
            complaints("[zeek]\ninterface = eth0\n"),
            ["c.cfg:2: [zeek] interface: is a key of a node, and [zeek] is what all Zeek nodes share: write it into \
              each of them, or add a `role` if this is to be a node"]
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_the_way_out() {
        for (line, want) in [
            ("backend = zeromqq", "`zeromqq` is not a backend: did you mean `zeromq`?"),
            ("networks = 10.0.0.0", "`10.0.0.0` is no network: write ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8"),
            ("networks = 10.0.0.0/40", "`10.0.0.0/40` is no network"),
            ("metrics_address = localhost", "`localhost` is no address: write one such as 10.0.0.5 or fd00::5"),
            ("port = 0", "`0` is not a port: write a number from 1 to 65535"),
            ("metrics_port = off", "write a number from 0 to 65535, 0 for none"),
            ("zeromq_ports = 5555", "`5555` are not two ports: write such as `5555 5556`"),
            ("zeromq_ports = 5555 0", "`0` is not a port"),
            ("encrypt = on", "`on` is not a choice: known are auto, yes, no"),
            ("zeromq_keys = -1", "`-1` is not a number"),
            ("hash_seed = 12", "`12` is no seed: write eight hexadecimal digits"),
            ("addresses = a=b", "`b` is no address"),
            ("addresses = a/b=10.0.0.1", "instance name `a/b` may hold only"),
            ("loss_above = 5", "`5` is no loss: write a part of all packets such as 5% or 0.25%"),
            ("rotation_interval = 3600", "write one such as 500ms, 10s or 1m 30s"),
            ("archive = logs", "`logs` is no absolute directory: write such as /srv/logs, or none"),
            ("archive_compress = gzip", "`gzip` is neither: write yes or no"),
            ("archive_extension = a/b", "`a/b` is no extension: write letters and digits such as zst"),
            ("archive_keep_bytes = 5 GB", "`5 GB` is no amount"),
            ("archive_min_free = 41", "`41` is not a number of percent from 0 to 40"),
            ("archive_min_free = much", "`much` is not a number of percent from 0 to 40"),
            ("backnd = broker", "is not a key of [zeek]: did you mean `backend`?"),
        ] {
            let got = complaints(&format!("[zeek]\n{line}"));
            assert!(
                got.len() == 1 && got[0].starts_with("c.cfg:2: [zeek] ") && got[0].contains(want),
                "{line}: {got:?}"
            );
        }
    }
}

//! The environment: a variable for every key, and those of Zeek's Management framework.
//!
//! `ZEEK_CONTROLLER_NAME` and `ZEEK_AGENT_NAME` set the names. `ZEEK_CONTROLLER_ADDR` and `_PORT`, and those of the
//! agent, set where each listens for the other; one of the two leaves the other as it was, and port 0 means, as it does
//! there, that nothing is opened. An empty `ZEEK_*` variable counts as absent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::keys::KEYS;
use super::value::Value;
use super::{Complaint, Draft, Settings};
use crate::hint::{instead, shown};

/// Variables of ours that are no settings: those of the command line, and the mark that nodes carry.
const NOT_SETTINGS: [&str; 8] = [
    "WATCHPOST_CONTROLLER",
    "WATCHPOST_TOKEN_FILE",
    "WATCHPOST_CERTIFICATE",
    "WATCHPOST_CA",
    "WATCHPOST_CONFIG",
    "WATCHPOST_NODE",
    "WATCHPOST_PLACE",
    "WATCHPOST_JOIN_TOKEN",
];

/// The names of Zeek's that stand for a key.
const ZEEK_NAMES: [(&str, &str, &str); 2] =
    [("ZEEK_CONTROLLER_NAME", "controller", "name"), ("ZEEK_AGENT_NAME", "agent", "name")];

pub(super) type Variables = BTreeMap<String, String>;

/// The variables that may concern us, by name.
pub(super) fn collect(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    complaints: &mut Vec<Complaint>,
) -> Variables {
    let concerns_us = |name: &str| {
        name.starts_with("WATCHPOST_") && !NOT_SETTINGS.contains(&name)
            || name.starts_with("ZEEK_")
            || ["HOME", "XDG_STATE_HOME"].contains(&name)
    };
    let mut variables = Variables::new();
    for (name, value) in environment {
        // A name that is not UTF-8 is none of ours.
        let Some(name) = name.into_string().ok().filter(|name| concerns_us(name)) else { continue };
        match value.into_string() {
            Ok(value) => {
                variables.insert(name, value);
            }
            Err(_) => complaints.push(Complaint::new(name, "is not UTF-8: set it to text, or unset it")),
        }
    }
    variables
}

/// Where state is kept unless somebody says otherwise; empty if there is no such place.
pub(super) fn state_dir(root: bool, variables: &Variables) -> PathBuf {
    // A relative path there is to be ignored, says the XDG specification.
    let absolute = |name| variables.get(name).map(Path::new).filter(|path: &&Path| path.is_absolute());
    if root {
        return "/var/lib/watchpost".into();
    }
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("watchpost"),
        (None, Some(home)) => home.join(".local/state/watchpost"),
        (None, None) => PathBuf::new(),
    }
}

/// Reads Zeek's variables, then ours.
pub(super) fn apply(draft: &mut Draft, variables: &Variables) {
    for (variable, section, name) in ZEEK_NAMES {
        let key = KEYS.iter().find(|key| key.section == section && key.name == name);
        if let (Some(key), Some(value)) = (key, variables.get(variable)) {
            draft.take(key, &Value::Variable(value), variable.to_owned());
        }
    }
    ZEEK_DOORS.iter().for_each(|door| door.apply(draft, variables));
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("WATCHPOST_")) {
        match KEYS.iter().find(|key| key.variable() == *name) {
            Some(key) => draft.take(key, &Value::Variable(value), name.clone()),
            None => {
                let known: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
                let what = format!("is not a setting: {}", instead(name, known.iter().map(String::as_str)));
                draft.complaints.push(Complaint::new(name, what));
            }
        }
    }
}

/// Where Zeek's Management framework listens, which it says in two halves.
struct ZeekDoor {
    key: &'static str,
    of: fn(&mut Settings) -> &mut Option<SocketAddr>,
    default_port: u16,
    address: &'static str,
    port: &'static str,
}

const ZEEK_DOORS: [ZeekDoor; 3] = [
    ZeekDoor {
        key: "controller.listen",
        of: |settings| &mut settings.controller.listen,
        default_port: 2150,
        address: "ZEEK_CONTROLLER_ADDR",
        port: "ZEEK_CONTROLLER_PORT",
    },
    ZeekDoor {
        key: "controller.websocket",
        of: |settings| &mut settings.controller.websocket,
        default_port: 2149,
        address: "ZEEK_CONTROLLER_WEBSOCKET_ADDR",
        port: "ZEEK_CONTROLLER_WEBSOCKET_PORT",
    },
    ZeekDoor {
        key: "agent.listen",
        of: |settings| &mut settings.agent.listen,
        default_port: 2151,
        address: "ZEEK_AGENT_ADDR",
        port: "ZEEK_AGENT_PORT",
    },
];

impl ZeekDoor {
    /// Puts together what Zeek keeps apart.
    fn apply(&self, draft: &mut Draft, variables: &Variables) {
        let given = |name| variables.get(name).filter(|text| !text.is_empty());
        let (address, port) = (given(self.address), given(self.port));
        if address.is_none() && port.is_none() {
            return;
        }
        let listen = (self.of)(&mut draft.settings);
        let before = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, self.default_port)));
        let no_host =
            |text| Complaint::new(self.address, format!("{} is not an IP address such as 127.0.0.1", shown(text)));
        let host = address.map_or(Ok(before.ip()), |text| text.parse::<IpAddr>().map_err(|_| no_host(text)));
        let no_port = |text| Complaint::new(self.port, format!("{} is not a port from 0 to 65535", shown(text)));
        let number = port.map_or(Ok(before.port()), |text| {
            text.strip_suffix("/tcp").unwrap_or(text).parse().map_err(|_| no_port(text))
        });
        match (host, number) {
            (Ok(host), Ok(number)) => {
                *listen = (number != 0).then_some(SocketAddr::new(host, number));
                // A port leaves the host to whoever has named one.
                match address {
                    Some(_) => draft.is_given(self.key.to_owned(), self.address.to_owned()),
                    None if draft.places.has(self.key) => {}
                    None => draft.is_given(self.key.to_owned(), self.port.to_owned()),
                }
            }
            (host, number) => {
                draft.doubt(self.key.to_owned());
                draft.complaints.extend([host.err(), number.err()].into_iter().flatten());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assemble, complaints};

    #[test]
    fn variables_win_over_the_file_and_ours_over_those_of_zeek() {
        let text = "cluster = 'file'\n[controller]\nname = 'file'\nlisten = '127.0.0.1:1'\n[agent]\nname = 'file'";
        let settings = assemble(
            text,
            &[
                ("WATCHPOST_CLUSTER", "env"),
                ("ZEEK_CONTROLLER_NAME", "zeek"),
                ("ZEEK_CONTROLLER_PORT", "2"),
                ("ZEEK_AGENT_NAME", "zeek"),
                ("WATCHPOST_AGENT_NAME", "env"),
                ("WATCHPOST_CONTROLLER_HOSTS", "a, b"),
                ("WATCHPOST_CONTROLLER_OPEN", "true"),
                ("WATCHPOST_LINK_WINDOW_BYTES", "5000"),
            ],
        )
        .unwrap();
        assert_eq!((settings.cluster.as_str(), settings.controller.name.as_str()), ("env", "zeek"));
        assert_eq!((settings.agent.name.as_str(), settings.controller.listen), ("env", "127.0.0.1:2".parse().ok()));
        assert_eq!((settings.controller.hosts.join(" "), settings.controller.open), ("a b".into(), true));
        assert_eq!(settings.link.window_bytes, 5000);
    }

    #[test]
    fn zeek_says_where_to_listen_in_two_halves() {
        let listen = |variables| assemble("", variables).unwrap().agent.listen.map(|address| address.to_string());
        assert_eq!(listen(&[("ZEEK_AGENT_ADDR", ""), ("ZEEK_AGENT_PORT", "")]), None);
        assert_eq!(listen(&[("ZEEK_AGENT_ADDR", "::1")]).as_deref(), Some("[::1]:2151"));
        assert_eq!(listen(&[("ZEEK_AGENT_PORT", "9/tcp")]).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(listen(&[("ZEEK_AGENT_ADDR", "10.0.0.1"), ("ZEEK_AGENT_PORT", "0")]), None);
        let websocket = |variables: &[(&str, &str)]| {
            let settings = assemble("", variables).unwrap();
            settings.controller.websocket.map(|address| address.to_string())
        };
        assert_eq!(websocket(&[("ZEEK_CONTROLLER_WEBSOCKET_PORT", "9/tcp")]).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(websocket(&[("ZEEK_CONTROLLER_WEBSOCKET_ADDR", "0.0.0.0")]).as_deref(), Some("0.0.0.0:2149"));
        assert_eq!(websocket(&[("ZEEK_CONTROLLER_WEBSOCKET_PORT", "0")]), None);
        let closed = assemble("", &[("ZEEK_CONTROLLER_PORT", "0")]).unwrap();
        assert_eq!(closed.controller.listen, None);
    }

    #[test]
    fn every_wrong_variable_is_named_at_once() {
        let variables = [
            ("WATCHPOST_CONTROLER_LISTEN", "127.0.0.1:1"),
            ("WATCHPOST_LOG", "1"),
            ("WATCHPOST_CONTROLLER_HOSTS", "a,,b"),
            ("ZEEK_AGENT_ADDR", "here"),
            ("ZEEK_AGENT_PORT", "x"),
            ("ZEEK_CONTROLLER_ADDR", "0.0.0"),
            ("ZEEK_AGENT_NAME", "a b"),
        ];
        let got = complaints("", &variables);
        for (got, want) in got.iter().zip([
            "ZEEK_AGENT_NAME: `a b` may hold only",
            "ZEEK_CONTROLLER_ADDR: `0.0.0` is not an IP address",
            "ZEEK_AGENT_ADDR: `here` is not an IP address",
            "ZEEK_AGENT_PORT: `x` is not a port",
            "WATCHPOST_CONTROLER_LISTEN: is not a setting: did you mean `WATCHPOST_CONTROLLER_LISTEN`?",
            "WATCHPOST_CONTROLLER_HOSTS: `a,,b` does not fit: write a list of names",
            "WATCHPOST_LOG: `1` is not a level: known are off,",
        ]) {
            assert!(got.starts_with(want), "{got}");
        }
        assert_eq!(got.len(), variables.len());
    }

    #[test]
    fn variables_of_the_command_line_and_of_nodes_are_left_alone() {
        let variables = super::NOT_SETTINGS.map(|name| (name, "whatever"));
        assert_eq!(assemble("", &variables).unwrap(), assemble("", &[]).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let variable = ("WATCHPOST_LOG".into(), std::ffi::OsString::from_vec(vec![0xff]));
        let machine = super::super::Machine::new("h", true);
        let error = super::Settings::assemble(None, &machine, [variable]).unwrap_err();
        assert_eq!(error.to_string(), "WATCHPOST_LOG: is not UTF-8: set it to text, or unset it");
    }
}

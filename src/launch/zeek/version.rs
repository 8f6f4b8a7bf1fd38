//! Versions of Zeek, and what differs between them for whoever launches nodes.

use std::fmt;

use crate::model::{Backend, Encrypt};

/// A release of Zeek, as far as releases differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// The oldest that can be launched.
pub const OLDEST: Version = Version { major: 5, minor: 0 };

impl Version {
    /// The version that `zeek --version` tells: the first word that is one, whatever follows the two numbers.
    pub fn told_in(text: &str) -> Option<Self> {
        let version = |word: &str| {
            let mut numbers = word.split(|c: char| !c.is_ascii_digit());
            let number = |part: Option<&str>| part.and_then(|digits| digits.parse().ok());
            let (major, minor) = (number(numbers.next())?, number(numbers.next())?);
            word.contains('.').then_some(Self { major, minor })
        };
        text.split_whitespace().find_map(version)
    }

    fn is_at_least(self, major: u32, minor: u32) -> bool {
        self >= Self { major, minor }
    }

    /// Whether entries of a layout say where a node serves its metrics. Before, they must not.
    pub fn has_metrics_ports(self) -> bool {
        self.is_at_least(7, 0)
    }

    /// The backend that is meant by `wanted` here.
    pub fn backend(self, wanted: Backend) -> Result<Backend, NoBackend> {
        match wanted {
            Backend::ZeroMq if !self.is_at_least(7, 1) => Err(NoBackend::ZeroMq(self)),
            Backend::Auto if self.is_at_least(8, 1) => Ok(Backend::ZeroMq),
            Backend::Auto => Ok(Backend::Broker),
            given => Ok(given),
        }
    }

    /// Whether nodes can be told keys for what they say by `backend`; an error only where they have to.
    pub fn encrypts(self, backend: Backend, wanted: Encrypt) -> Result<(), NoBackend> {
        match (wanted, backend) {
            (Encrypt::Auto | Encrypt::No, _) => Ok(()),
            (Encrypt::Yes, Backend::ZeroMq) if self.is_at_least(8, 2) => Ok(()),
            (Encrypt::Yes, _) => Err(NoBackend::Encrypted(self)),
        }
    }

    /// The script that comes before all others and chooses the backend, where one has to be chosen.
    pub fn backend_script(self, backend: Backend) -> Option<&'static str> {
        match (backend, self.is_at_least(8, 1)) {
            (Backend::ZeroMq, true) => Some("frameworks/cluster/backend/zeromq"),
            (Backend::ZeroMq, false) => Some("frameworks/cluster/backend/zeromq/connect"),
            (Backend::Broker | Backend::Auto, true) => Some("frameworks/cluster/backend/broker"),
            (Backend::Broker | Backend::Auto, false) => None, // built in
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a cluster cannot have the backend that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    #[error("Zeek {0} knows no ZeroMQ, which came with 7.1: choose `backend = broker`, or a later Zeek")]
    ZeroMq(Version),
    #[error(
        "Zeek {0} cannot encrypt what nodes say by this backend: choose `encrypt = auto`, or ZeroMQ and Zeek 8.2 or later"
    )]
    Encrypted(Version),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_zeek_says() {
        let version = |major, minor| Some(Version { major, minor });
        for (text, want) in [
            ("zeek version 8.0.10", version(8, 0)),
            ("zeek version 9.0.0-rc1", version(9, 0)),
            ("/opt/zeek/bin/zeek version 8.1.0-dev.5-debug\n", version(8, 1)),
            ("zeek version 5.0", version(5, 0)),
            ("zeek version unknown", None),
            ("zeek version 8", None),
            ("", None),
        ] {
            assert_eq!(Version::told_in(text), want, "{text}");
        }
        assert!(Version { major: 4, minor: 2 } < OLDEST && Version { major: 10, minor: 0 } > OLDEST);
    }

    #[test]
    fn the_backend_and_its_script_follow_the_version() {
        for (version, wanted, want) in [
            ((5, 0), Backend::Auto, Ok((Backend::Broker, None))),
            ((8, 0), Backend::Auto, Ok((Backend::Broker, None))),
            ((8, 0), Backend::ZeroMq, Ok((Backend::ZeroMq, Some("frameworks/cluster/backend/zeromq/connect")))),
            ((7, 1), Backend::ZeroMq, Ok((Backend::ZeroMq, Some("frameworks/cluster/backend/zeromq/connect")))),
            ((8, 1), Backend::Auto, Ok((Backend::ZeroMq, Some("frameworks/cluster/backend/zeromq")))),
            ((9, 0), Backend::Broker, Ok((Backend::Broker, Some("frameworks/cluster/backend/broker")))),
            ((7, 0), Backend::ZeroMq, Err(NoBackend::ZeroMq(Version { major: 7, minor: 0 }))),
        ] {
            let version = Version { major: version.0, minor: version.1 };
            let got = version.backend(wanted).map(|backend| (backend, version.backend_script(backend)));
            assert_eq!(got, want, "{version} {wanted:?}");
        }
    }
}

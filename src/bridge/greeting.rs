//! Who may talk to whom: the first bytes each way, and the few frames that belong to the link itself.
//!
//! Both ends send [`MAGIC`] and a [`Greeting`] at once, without waiting for the other. Whoever cannot accept the other's
//! greeting answers [`Refused`] with the reason and closes. Since neither waits, an end that found nothing wrong may
//! see its link stand for a moment before the refusal arrives.
//!
//! These frames can never change: a peer of any version must be able to read them. What a later release has to say beyond
//! them has a kind of its own; an older end answers that it does not understand it, and goes on.

use serde::{Deserialize, Serialize};

use super::LinkSettings;
use crate::message::frame::{OLDEST, PROTOCOL, wire_enum};
use crate::model::{InstanceName, NameError};

/// The first bytes of every connection, before any frame: what is not a watchpost is known by its first four bytes.
pub const MAGIC: [u8; 4] = *b"WPST";
/// Kinds below this belong to the link; everything from here on is mail.
pub const FIRST_MAIL_KIND: u16 = 0x0100;

wire_enum! {
    /// The frames of the link itself.
    pub enum Control {
        0x0001 => Greeting,
        0x0002 => Refused,
        0x0003 => Heartbeat,
        0x0004 => NotUnderstood,
    }
}

/// Which of the two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkRole {
    Controller,
    Agent,
}

impl std::fmt::Display for LinkRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
        })
    }
}

/// First each way: who I am.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The highest version of the frames that the sender speaks; the lower of both greetings is spoken.
    pub protocol: u16,
    /// The lowest version that it speaks.
    pub oldest: u16,
    pub role: LinkRole,
    /// The instance's or the controller's name.
    pub name: String,
    /// The cluster that the sender belongs to.
    pub cluster: String,
    /// What the sender can do.
    pub features: Features,
}

/// What an end can do beyond what its version of the frames says: a bit each. Bits that are not known here mean nothing.
///
/// | bit | name | said by | meaning |
/// |---|---|---|---|
/// | 0 | [`Features::REPEATS`] | agents | what is asked again under its `reqid` is not done again, but answered as at first |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// Nothing beyond the version.
    pub const NONE: Self = Self(0);
    /// Bit 0 of the table.
    pub const REPEATS: Self = Self(1);

    /// What an end of this release can do.
    pub fn of(role: LinkRole) -> Self {
        match role {
            LinkRole::Controller => Self::NONE,
            LinkRole::Agent => Self::REPEATS,
        }
    }

    /// Whether all of `others` are among these.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// The last frame of an end that will not go on, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: String,
}

/// Nothing to say, and still here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {}

/// Frames of this kind arrived and were skipped. Said whenever some did, so that whoever waits for an answer waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotUnderstood {
    pub kind: u16,
}

/// Why a greeting is not accepted. The text is read at both ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("protocol version 0 does not exist: the greeting is damaged")]
    NoProtocol,
    #[error(
        "{older} speaks versions up to {highest} of the protocol, and {newer} none below {lowest}: upgrade the older end, \
         by way of a release that speaks both if need be"
    )]
    NoneInCommon { older: LinkRole, highest: u16, newer: LinkRole, lowest: u16 },
    #[error("both ends are {0}s; a controller and an agent make a link")]
    SameRole(LinkRole),
    #[error("the greeting is not usable: {0}")]
    Name(#[from] NameError),
    #[error("cluster `{theirs}` was greeted by cluster `{ours}`; give both ends the same cluster name")]
    OtherCluster { theirs: String, ours: String },
    #[error("its certificate is for {certified}, which cannot speak for {role} `{name}` of cluster `{cluster}`")]
    NotVouchedFor { certified: String, role: LinkRole, name: String, cluster: String },
    #[error("`{got}` answered where `{expected}` was expected; correct the address or the name")]
    Unexpected { got: String, expected: String },
}

/// A peer whose greeting was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub name: String,
    /// The version of the frames that both ends speak.
    pub protocol: u16,
    pub features: Features,
}

impl Greeting {
    /// What this end says of itself.
    pub fn of(settings: &LinkSettings) -> Self {
        let (name, cluster) = (settings.name.clone(), settings.cluster.clone());
        let features = Features::of(settings.role);
        Self { protocol: PROTOCOL, oldest: OLDEST, role: settings.role, name, cluster, features }
    }

    /// Whether this greeting of a peer is acceptable to an end with these settings that expects that name, if any.
    pub fn admit(self, ours: &LinkSettings, expect: Option<&str>) -> Result<Admitted, Refusal> {
        if self.protocol == 0 {
            return Err(Refusal::NoProtocol);
        }
        // Both are held to the alphabet of names, so that they are fit for logs and errors from here on.
        InstanceName::new(&self.name)?;
        InstanceName::new(&self.cluster)?;
        if self.cluster != ours.cluster {
            return Err(Refusal::OtherCluster { theirs: self.cluster, ours: ours.cluster.clone() });
        }
        if self.role == ours.role {
            return Err(Refusal::SameRole(self.role));
        }
        let (newer, older) = (self.role, ours.role);
        if self.oldest > PROTOCOL {
            return Err(Refusal::NoneInCommon { older, highest: PROTOCOL, newer, lowest: self.oldest });
        }
        if self.protocol < OLDEST {
            let (newer, older) = (older, newer);
            return Err(Refusal::NoneInCommon { older, highest: self.protocol, newer, lowest: OLDEST });
        }
        match expect {
            Some(expected) if expected != self.name => {
                Err(Refusal::Unexpected { got: self.name, expected: expected.to_owned() })
            }
            _ => {
                let protocol = self.protocol.min(PROTOCOL);
                Ok(Admitted { name: self.name, protocol, features: self.features })
            }
        }
    }
}

/// A text from a peer, fit for a log: at most 300 characters, none of which controls a terminal.
pub fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> LinkSettings {
        LinkSettings::new(LinkRole::Controller, "control", "lab")
    }

    fn agent() -> Greeting {
        Greeting::of(&LinkSettings::new(LinkRole::Agent, "sensor-1", "lab"))
    }

    #[test]
    fn an_agent_of_the_same_cluster_is_admitted() {
        let admitted = Admitted { name: "sensor-1".into(), protocol: 1, features: Features::REPEATS };
        assert_eq!(agent().admit(&controller(), None), Ok(admitted.clone()));
        assert_eq!(agent().admit(&controller(), Some("sensor-1")), Ok(admitted));
    }

    #[test]
    fn the_lower_protocol_of_both_is_spoken() {
        let from_the_future = Greeting { protocol: 900, features: Features(u64::MAX), ..agent() };
        let admitted = from_the_future.admit(&controller(), None).unwrap();
        assert_eq!((admitted.protocol, admitted.features.has(Features::REPEATS)), (PROTOCOL, true));
    }

    #[test]
    fn whoever_does_not_fit_is_refused_with_the_way_out() {
        for (greeting, expect, words) in [
            (Greeting { protocol: 0, ..agent() }, None, "version 0"),
            (
                Greeting { role: LinkRole::Controller, ..agent() },
                None,
                "both ends are controllers; a controller and an agent",
            ),
            (Greeting { cluster: "prod".into(), ..agent() }, None, "cluster `prod` was greeted by cluster `lab`"),
            (Greeting { name: "a/b".into(), ..agent() }, None, "may hold only letters"),
            (Greeting { cluster: "".into(), ..agent() }, None, "is empty"),
            (
                Greeting { protocol: 9, oldest: 8, ..agent() },
                None,
                "controller speaks versions up to 1 of the protocol, and agent none below 8",
            ),
            (agent(), Some("sensor-2"), "`sensor-1` answered where `sensor-2` was expected"),
        ] {
            let refusal = greeting.clone().admit(&controller(), expect).unwrap_err().to_string();
            assert!(refusal.contains(words), "{greeting:?}: {refusal}");
        }
    }

    #[test]
    fn a_text_of_a_peer_cannot_move_the_cursor_or_fill_the_log() {
        assert_eq!(printable("a\x1b[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(printable(&"x".repeat(5000)).len(), 300);
    }
}

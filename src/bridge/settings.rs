//! What a link is told about itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Desk;
use super::greeting::LinkRole;
use crate::settings::{NotLoopback, loopback_only};
use crate::trust::Trust;

/// How this end of a link introduces itself, and how long it waits for what. Both ends use the same `heartbeat`: one
/// that beats less often than every third interval of its peer is taken for dead.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// Which of the two this end is; the other must be the other one.
    pub role: LinkRole,
    /// The name of this instance, or of this controller.
    pub name: String,
    /// Names the cluster; both ends must belong to the same one.
    pub cluster: String,
    /// The certificates to use; without them a link is plain TCP, and anybody may greet by any name.
    pub trust: Option<Arc<Trust>>,
    /// Who answers those that want to join; without, nobody can.
    pub desk: Option<Arc<Desk>>,
    /// Whether links without certificates may leave this machine.
    pub insecure: bool,
    /// After this long without a word, one is sent. A peer that is silent for three of these is lost. At least 10 ms.
    pub heartbeat: Duration,
    /// How long a connection may take to be made, and then again how long the peer may take to greet.
    pub greeting_within: Duration,
    /// How many bytes may wait for a peer that does not read, before its link ends.
    pub unsent_cap: usize,
    /// How many accepted connections may be without a greeting at a time; beyond that the oldest is dropped.
    pub ungreeted: usize,
    /// The shortest pause between two attempts to dial.
    pub backoff_min: Duration,
    /// The longest pause between two attempts to dial. A link that stood this long, or for longer than the next pause would
    /// be and ten of the shortest, makes it short again.
    pub backoff_max: Duration,
}

impl LinkSettings {
    /// This end's identity, and the default of everything else.
    pub fn new(role: LinkRole, name: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            role,
            name: name.into(),
            cluster: cluster.into(),
            trust: None,
            desk: None,
            insecure: false,
            heartbeat: Duration::from_secs(2),
            greeting_within: Duration::from_secs(5),
            unsent_cap: 64 << 20,
            ungreeted: 256,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }

    /// Whether links may be made at or to this address: anywhere with certificates, and else on this machine.
    pub fn permit(&self, address: SocketAddr) -> Result<SocketAddr, NotLoopback> {
        if self.trust.is_some() || self.insecure { Ok(address) } else { loopback_only(address) }
    }
}

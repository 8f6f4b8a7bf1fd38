//! Why a link ends, or never came to be.

use std::io;

use super::greeting::{Refusal, printable};
use super::state::Overdue;
use crate::message::frame::FrameError;

/// Why a link ends. The text becomes the reason in [`super::LinkDown`].
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the peer does not speak this protocol: it began with the bytes {0:02x?}; check the address and the port")]
    NotWatchpost([u8; 4]),
    #[error(
        "the peer speaks TLS, and this end has no certificates: put those that `watchpost pki issue` made for it into \
         the directory `trust` of its state directory"
    )]
    SpeaksTls,
    #[error("the peer is turned away: {}", printable(.0))]
    Tls(String),
    /// No mistake: the connection goes on elsewhere.
    #[error("the peer wants to join, and is no link")]
    Joins,
    #[error("the peer began with a frame of kind {0:#06x} instead of a greeting")]
    NotAGreeting(u16),
    #[error("the peer greeted twice")]
    GreetedTwice,
    #[error("the peer is refused: {}", printable(&.0.to_string()))]
    Refused(#[from] Refusal),
    #[error("the peer refuses this end: {}", printable(.0))]
    RefusedByPeer(String),
    #[error("the peer sent {0} different kinds of frames that are not understood here; upgrade the older end")]
    Babble(usize),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Overdue(#[from] Overdue),
    #[error("the peer does not read: {unsent} bytes wait for it, and the limit is {cap}")]
    NotReading { unsent: usize, cap: usize },
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer closed the connection in the middle of a frame")]
    Truncated,
    #[error("cannot read from the peer: {0}")]
    Read(io::Error),
    #[error("cannot write to the peer: {0}")]
    Write(io::Error),
    #[error("whoever owned the link is gone")]
    OwnerGone,
    #[error("{0}")]
    Asked(String),
}

impl LinkError {
    /// Whether the peer did something wrong that it should be told of, in a last frame.
    pub fn is_the_peers_mistake(&self) -> bool {
        match self {
            Self::NotWatchpost(_)
            | Self::NotAGreeting(_)
            | Self::GreetedTwice
            | Self::Refused(_)
            | Self::Babble(_)
            | Self::Frame(_) => true,
            Self::RefusedByPeer(_)
            | Self::SpeaksTls
            | Self::Joins
            | Self::Tls(_)
            | Self::Overdue(_)
            | Self::NotReading { .. }
            | Self::Closed
            | Self::Truncated
            | Self::Read(_)
            | Self::Write(_)
            | Self::OwnerGone
            | Self::Asked(_) => false,
        }
    }
}

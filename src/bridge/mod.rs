//! One TCP peer: frames ⇄ mail, greeting, heartbeats, and the way back after a loss.
//!
//! A link joins a controller and an agent. Both ends see the same three messages, whether a bridge carries them or
//! the other end lives in the same process: [`LinkUp`] once, [`Mail`] in order, [`LinkDown`] once. So lab mode is
//! two actors that hold each other's recipient, and neither can tell.

use std::net::IpAddr;

use actix::{Message, Recipient};

/// One life of one link, numbered by this process. Mail of an older link of the same peer is told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A link to a peer stands; mail for it goes to `out`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LinkUp<Out: Send + 'static> {
    pub link: LinkId,
    pub peer: Peer,
    pub out: Recipient<Mail<Out>>,
    /// Ask the link to end; [`LinkDown`] follows.
    pub end: Recipient<EndLink>,
}

/// Who is at the other end, as far as the link itself knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name it gave: an instance, or a controller's name.
    pub name: String,
    /// Its address; `None` in the same process.
    pub host: Option<IpAddr>,
    /// The port that this side dialled; `None` if the peer dialled, or in the same process.
    pub dialled: Option<u16>,
}

/// Messages over one link, in order. Handling a batch is the permission to send the next.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Mail<T: Send + 'static> {
    pub link: LinkId,
    pub messages: Vec<T>,
}

/// The link is gone, with everything that was under way on it. Nothing more comes from it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct LinkDown {
    pub link: LinkId,
    /// Why, in words for people.
    pub reason: String,
}

/// End this link, telling the log why.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct EndLink {
    pub link: LinkId,
    pub reason: String,
}

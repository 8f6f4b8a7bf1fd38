//! One TCP peer: frames ⇄ mail, greeting, heartbeats, and the way back after a loss.
//!
//! A link joins a controller and an agent. Both ends see the same three messages, whether a bridge carries them or
//! the other end lives in the same process: [`LinkUp`] once, [`Mail`] in order, [`LinkDown`] once. So lab mode is
//! two actors that hold each other's recipient, and neither can tell.
//!
//! [`listen`] and [`dial`] make connections; each becomes one [`Bridge`], an actor that lives as long as its
//! connection. What it says and when is decided in [`state`]; who may talk to whom in [`greeting`], and by
//! certificate where there are any: see [`crate::trust`].

mod actor;
mod backoff;
mod connect;
mod desk;
mod dialer;
mod error;
mod guard;
mod inbox;
mod intake;
mod listener;
mod outbox;
mod secure;
mod settings;

pub mod greeting;
pub mod state;

use std::net::IpAddr;
use std::sync::Arc;

use actix::{Message, Recipient};

use crate::trust::Certificate;

pub use crate::stream::Stream;
pub use actor::{Bridge, Connection};
pub use backoff::Backoff;
pub(crate) use connect::connect_to;
pub use desk::Desk;
pub use dialer::{Dialer, dial, dial_unless};
pub use error::LinkError;
pub use greeting::{Features, LinkRole};
pub use guard::Ended;
pub use listener::{Listener, listen};
pub use secure::Certified;
pub use settings::LinkSettings;

/// Whom a link tells of its life. All four usually lead to one actor, which then hears of each link in order:
/// up, mail, down.
pub struct Owner<In: Send + 'static, Out: Send + 'static> {
    pub up: Recipient<LinkUp<Out>>,
    pub mail: Recipient<Mail<In>>,
    pub not_known: Recipient<NotKnown>,
    pub down: Recipient<LinkDown>,
}

impl<In: Send + 'static, Out: Send + 'static> Clone for Owner<In, Out> {
    fn clone(&self) -> Self {
        let Self { up, mail, not_known, down } = self;
        Self { up: up.clone(), mail: mail.clone(), not_known: not_known.clone(), down: down.clone() }
    }
}

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
    /// The certificate that it showed, where there are any.
    pub certificate: Option<Arc<Certificate>>,
    /// What it can do.
    pub features: Features,
}

/// Messages over one link, in order. Handling a batch is the permission to send the next.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Mail<T: Send + 'static> {
    pub link: LinkId,
    pub messages: Vec<T>,
}

/// The peer does not know messages of this kind, of which it got some: whoever waits for an answer to one waits in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NotKnown {
    pub link: LinkId,
    pub kind: u16,
}

/// The link is gone, with everything that was under way on it. Nothing more comes from it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct LinkDown {
    pub link: LinkId,
    /// Why, in words for people.
    pub reason: String,
}

/// Host → controller or agent: end every link in order, since the process is about to end. The result comes when they
/// are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Farewell;

/// End this link, telling the log why.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct EndLink {
    pub link: LinkId,
    pub reason: String,
}

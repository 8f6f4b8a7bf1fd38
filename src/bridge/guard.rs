//! The promise that whoever heard of a link also hears of its end.

use std::mem::{Discriminant, discriminant};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::error::LinkError;
use super::greeting::Refusal;
use super::{LinkDown, LinkId};
use crate::seldom::SeldomEach;

/// How one link ended, for whoever made its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How long it stood; `None` if the greeting was never done.
    pub stood: Option<Duration>,
    /// Why it ended, in words.
    pub reason: String,
}

/// Strangers can be turned away as often as they like.
static TURNED_AWAY: SeldomEach<Kind> = SeldomEach::new();

/// What makes reasons the same to whoever reads of them. What a peer says of itself does not count.
#[derive(PartialEq)]
enum Kind {
    Refused(Discriminant<Refusal>),
    Tls(String),
    Other(Discriminant<LinkError>),
    Unasked,
}

impl Kind {
    fn of(reason: Option<&LinkError>) -> Self {
        match reason {
            Some(LinkError::Refused(refusal)) => Self::Refused(discriminant(refusal)),
            Some(LinkError::Tls(why)) => Self::Tls(why.clone()),
            Some(other) => Self::Other(discriminant(other)),
            None => Self::Unasked,
        }
    }
}

/// Lives inside a link's actor and tells of the end when it is dropped, which happens however the actor ends.
pub(super) struct LinkGuard {
    pub link: LinkId,
    host: IpAddr,
    down: Recipient<LinkDown>,
    ended: Option<oneshot::Sender<Ended>>,
    up: Option<Instant>,
    reason: Option<LinkError>,
}

impl LinkGuard {
    /// A link with a number of its own. `ended` also hears of a link that never came up.
    pub fn new(host: IpAddr, down: Recipient<LinkDown>, ended: Option<oneshot::Sender<Ended>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let link = LinkId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { link, host, down, ended, up: None, reason: None }
    }

    /// From here on, the owner is told of the end.
    pub fn is_up(&mut self, now: Instant) {
        self.up = Some(now);
    }

    /// Notes why the link ends. The first reason stays: what follows is usually its consequence.
    pub fn because(&mut self, reason: LinkError) {
        self.reason.get_or_insert(reason);
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        let reason = match &self.reason {
            Some(reason) => reason.to_string(),
            None => "the link's actor ended unasked; its panic is in the log".to_owned(),
        };
        let (link, host) = (self.link.0, self.host);
        match (self.up, &self.ended) {
            (None, _) if matches!(self.reason, Some(LinkError::Joins)) => {} // whoever has it now says what becomes of it
            (Some(_), _) => info!(link, %host, "link down: {reason}"),
            (None, None) => match TURNED_AWAY.say(Kind::of(self.reason.as_ref()), Instant::now()) {
                Some(0) => warn!(link, %host, "connection turned away: {reason}"),
                Some(unsaid) => warn!(link, %host, "connection turned away, and {unsaid} like it before: {reason}"),
                None => {}
            },
            (None, Some(_)) => {} // the dialler says so, once and not at every attempt
        }
        if let Some(ended) = self.ended.take() {
            // A dialler that was stopped no longer listens.
            let _ = ended.send(Ended { stood: self.up.map(|up| up.elapsed()), reason: reason.clone() });
        }
        if self.up.is_some() {
            self.down.do_send(LinkDown { link: self.link, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_of_itself_makes_no_reason_a_new_one() {
        let greeted = |theirs: &str| Refusal::OtherCluster { theirs: theirs.into(), ours: "ours".into() }.into();
        let same = |a: LinkError, b: LinkError| Kind::of(Some(&a)) == Kind::of(Some(&b));
        assert!(same(greeted("a"), greeted("b")));
        assert!(same(LinkError::NotWatchpost([1; 4]), LinkError::NotWatchpost([2; 4])));
        assert!(!same(greeted("a"), Refusal::NoProtocol.into()));
        assert!(!same(LinkError::Tls("it does not speak TLS".into()), LinkError::Tls("it has expired".into())));
        assert!(!same(LinkError::Closed, LinkError::SpeaksTls));
    }
}

//! The promise that whoever heard of a link also hears of its end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::error::LinkError;
use super::{LinkDown, LinkId};

/// How one link ended, for whoever made its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How long it stood; `None` if the greeting was never done.
    pub stood: Option<Duration>,
    /// Why it ended, in words.
    pub reason: String,
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
            (Some(_), _) => info!(link, %host, "link down: {reason}"),
            (None, None) => warn!(link, %host, "connection turned away: {reason}"),
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

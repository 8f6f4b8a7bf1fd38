//! Who listens to the log.
//!
//! Every observer has a place in the log and at most one batch under way. The next batch is what has come together
//! since, so a slow observer gets larger batches and delays nobody; one that falls behind the log's end is told
//! which entries it missed.

use std::collections::BTreeMap;

use actix::Recipient;

use super::log::Log;
use crate::message::client::NewsBatch;

/// One observer of this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObserverId(u64);

/// Everybody who listens.
#[derive(Default)]
pub struct Observers {
    next: u64,
    listening: BTreeMap<ObserverId, Observer>,
}

struct Observer {
    to: Recipient<NewsBatch>,
    /// The number of the last entry that it was sent.
    sent: u64,
    /// It has not handled its last batch yet.
    busy: bool,
}

impl Observers {
    /// Somebody listens from behind entry number `since` on.
    pub fn join(&mut self, since: u64, to: Recipient<NewsBatch>) {
        self.next += 1;
        self.listening.insert(ObserverId(self.next), Observer { to, sent: since, busy: false });
    }

    /// A batch for everybody who is ready for one. Each is to be reported back by [`Observers::handled`].
    pub fn batches(&mut self, log: &Log) -> Vec<(ObserverId, Recipient<NewsBatch>, NewsBatch)> {
        let mut batches = Vec::new();
        for (id, observer) in self.listening.iter_mut().filter(|(_, observer)| !observer.busy) {
            let Some(batch) = log.batch_behind(observer.sent) else { continue };
            let last = batch.entries.last().map(|entry| entry.cursor.number);
            observer.sent = last.or(batch.gap.map(|gap| gap.last.number)).unwrap_or(observer.sent);
            observer.busy = true;
            batches.push((*id, observer.to.clone(), batch));
        }
        batches
    }

    /// An observer has handled its batch, or is gone.
    pub fn handled(&mut self, id: ObserverId, is_there: bool) {
        match is_there {
            true => drop(self.listening.get_mut(&id).map(|observer| observer.busy = false)),
            false => drop(self.listening.remove(&id)),
        }
    }
}

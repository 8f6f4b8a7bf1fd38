//! Who listens to the log.
//!
//! Every observer has a place in the log and at most one batch under way. The next batch is what has come together
//! since, so a slow observer gets larger batches and delays nobody; one that falls behind what memory holds is served
//! from disk; and one that falls behind the log's end is told which entries it missed.

use std::collections::BTreeMap;

use actix::Recipient;

use super::log::Log;
use super::log::recent::Behind;
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
    /// It has not handled its last batch yet, or that has yet to be read.
    busy: bool,
}

/// What an observer that is ready gets.
pub enum Next {
    Batch(Recipient<NewsBatch>, NewsBatch),
    /// Read what comes behind this number from disk, and report it to [`Observers::was_read`].
    Read(u64),
}

impl Observers {
    /// Somebody listens from behind entry number `since` on.
    pub fn join(&mut self, since: u64, to: Recipient<NewsBatch>) {
        self.next += 1;
        self.listening.insert(ObserverId(self.next), Observer { to, sent: since, busy: false });
    }

    /// What is next for everybody who is ready. Each is to be reported back by [`Observers::handled`].
    pub fn next(&mut self, log: &Log) -> Vec<(ObserverId, Next)> {
        let mut all = Vec::new();
        for (id, observer) in self.listening.iter_mut().filter(|(_, observer)| !observer.busy) {
            let next = match log.behind(observer.sent) {
                Behind::Nothing => continue,
                Behind::Batch(batch) => observer.take(batch),
                Behind::OnDisk => Next::Read(observer.sent),
            };
            observer.busy = true;
            all.push((*id, next));
        }
        all
    }

    /// What was read for an observer; `None` if it is gone. What is neither there nor in memory is a gap.
    pub fn was_read(&mut self, id: ObserverId, read: Option<NewsBatch>, log: &Log) -> Option<Next> {
        let observer = self.listening.get_mut(&id)?;
        let batch = read.filter(|batch| batch.gap.is_some() || !batch.entries.is_empty());
        let batch = batch.or_else(|| log.batch_behind(observer.sent))?;
        Some(observer.take(batch))
    }

    /// An observer has handled its batch, or is gone.
    pub fn handled(&mut self, id: ObserverId, is_there: bool) {
        match is_there {
            true => drop(self.listening.get_mut(&id).map(|observer| observer.busy = false)),
            false => drop(self.listening.remove(&id)),
        }
    }
}

impl Observer {
    fn take(&mut self, batch: NewsBatch) -> Next {
        let last = batch.entries.last().map(|entry| entry.cursor.number);
        self.sent = last.or(batch.gap.map(|gap| gap.last.number)).unwrap_or(self.sent);
        Next::Batch(self.to.clone(), batch)
    }
}

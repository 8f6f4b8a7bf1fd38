//! Who listens, and the log they listen to.
//!
//! Every observer has a place in the log and at most one batch under way. The next batch is what has come together
//! since, so a slow observer gets larger batches and delays nobody; one that falls behind the log's end is told
//! which entries it missed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use actix::Recipient;

use crate::message::client::{Cursor, Entry, Gap, News, NewsBatch};
use crate::model::Timestamp;

/// How many entries one batch carries at most.
const BATCH: usize = 1024;

/// The last entries of the controller's log, in memory.
#[derive(Debug)]
pub struct Log {
    epoch: u64,
    /// The number of the last entry.
    last: u64,
    capacity: usize,
    entries: VecDeque<Arc<Entry>>,
}

impl Log {
    /// An empty log that keeps the last `capacity` entries. `epoch` is never the same for two logs.
    pub fn new(epoch: u64, capacity: usize) -> Self {
        Self { epoch, last: 0, capacity: capacity.max(1), entries: VecDeque::new() }
    }

    /// The place behind the last entry.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, number: self.last }
    }

    /// Numbers an entry and keeps it.
    pub fn append(&mut self, news: News, time: Timestamp, origin: Option<(u64, u64)>) {
        self.last += 1;
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(Arc::new(Entry { cursor: self.cursor(), time, origin, news }));
    }

    /// Whether that is a place in this log. What came behind it may be dropped already, which an observer is told.
    pub fn knows(&self, place: Cursor) -> bool {
        place.epoch == self.epoch && place.number <= self.last
    }

    /// The next batch behind number `since`; `None` if there is nothing yet.
    fn batch_behind(&self, since: u64) -> Option<NewsBatch> {
        let cursor = |number| Cursor { epoch: self.epoch, number };
        let dropped = self.dropped();
        let gap = (since < dropped).then(|| Gap { first: cursor(since + 1), last: cursor(dropped) });
        let skip = usize::try_from(since.saturating_sub(dropped)).unwrap_or(usize::MAX);
        let entries: Vec<_> = self.entries.iter().skip(skip).take(BATCH).cloned().collect();
        (gap.is_some() || !entries.is_empty()).then_some(NewsBatch { gap, entries })
    }

    /// How many entries are gone from the front.
    fn dropped(&self) -> u64 {
        self.last - self.entries.len() as u64
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::client::NotifyAgentsReady;

    fn log(entries: u64, capacity: usize) -> Log {
        let mut log = Log::new(7, capacity);
        for _ in 0..entries {
            let news = News::AgentsReady(NotifyAgentsReady { instances: Default::default() });
            log.append(news, Timestamp(0), None);
        }
        log
    }

    fn numbers(batch: &NewsBatch) -> Vec<u64> {
        batch.entries.iter().map(|entry| entry.cursor.number).collect()
    }

    #[test]
    fn a_batch_is_what_came_behind_the_observers_place() {
        let log = log(5, 10);
        assert_eq!(numbers(&log.batch_behind(2).unwrap()), [3, 4, 5]);
        assert!(log.batch_behind(5).is_none());
    }

    #[test]
    fn what_the_bounds_dropped_is_said() {
        let log = log(10, 3);
        let batch = log.batch_behind(2).unwrap();
        assert_eq!(numbers(&batch), [8, 9, 10]);
        let cursor = |number| Cursor { epoch: 7, number };
        assert_eq!(batch.gap, Some(Gap { first: cursor(3), last: cursor(7) }));
        assert!(log.batch_behind(7).unwrap().gap.is_none(), "entry 8 is the next and is there");
    }

    #[test]
    fn only_a_place_in_this_log_can_be_resumed_from() {
        let log = log(10, 3);
        let knows = |epoch, number| log.knows(Cursor { epoch, number });
        assert!(knows(7, 0) && knows(7, 7) && knows(7, 10));
        assert!(!knows(7, 11) && !knows(7, u64::MAX) && !knows(8, 8));
    }

    #[test]
    fn a_long_way_is_gone_in_steps() {
        let log = log(3000, 5000);
        assert_eq!(log.batch_behind(0).unwrap().entries.len(), BATCH);
    }
}

//! The last entries of the controller's log, in memory.
//!
//! What is new is there for observers that follow live, as it is. What has been there for a while is encoded, block by
//! block: that takes a third of the room, and hardly anybody asks for it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::message::client::{Cursor, Entry, Gap, News, NewsBatch};
use crate::message::frame;
use crate::model::Timestamp;

/// How many entries one batch carries at most.
const BATCH: usize = 1024;
/// How many entries are encoded together.
const BLOCK: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Log {
    epoch: u64,
    /// The number of the last entry.
    last: u64,
    capacity: usize,
    /// How many entries are kept.
    kept: usize,
    /// [`BLOCK`] entries each, encoded; those of the first that are over the capacity are kept by it no more.
    old: VecDeque<Box<[u8]>>,
    /// Everything behind them.
    new: VecDeque<Arc<Entry>>,
}

impl Log {
    /// An empty log that keeps the last `capacity` entries. `epoch` is never the same for two logs.
    pub fn new(epoch: u64, capacity: usize) -> Self {
        let (old, new) = (VecDeque::new(), VecDeque::new());
        Self { epoch, last: 0, capacity: capacity.max(1), kept: 0, old, new }
    }

    /// The place behind the last entry.
    pub fn cursor(&self) -> Cursor {
        self.place(self.last)
    }

    /// Numbers an entry and keeps it.
    pub fn append(&mut self, news: News, time: Timestamp, origin: Option<(u64, u64)>) {
        self.last += 1;
        self.new.push_back(Arc::new(Entry { cursor: self.cursor(), time, origin, news }));
        if self.kept < self.capacity {
            self.kept += 1;
        } else if self.old.is_empty() {
            self.new.pop_front();
        } else if self.kept + BLOCK <= self.old.len() * BLOCK + self.new.len() {
            self.old.pop_front();
        }
    }

    /// Whether [`Log::pack`] would do anything.
    pub fn can_pack(&self) -> bool {
        self.new.len() >= BLOCK
    }

    /// Encodes what came since it was last called, but for what makes no whole block.
    pub fn pack(&mut self) {
        while self.can_pack() {
            let mut bytes = Vec::new();
            for entry in self.new.drain(..BLOCK) {
                let packed = (entry.time, entry.origin, &entry.news);
                // Writing to memory does not fail, and serde has a form for everything in news.
                frame::encode_body(&mut bytes, &packed).expect("an entry can be encoded");
            }
            self.old.push_back(bytes.into());
        }
        self.new.shrink_to_fit();
    }

    /// Whether that is a place in this log. What came behind it may be dropped already, which an observer is told.
    pub fn knows(&self, place: Cursor) -> bool {
        place.epoch == self.epoch && place.number <= self.last
    }

    /// The next batch behind number `since`; `None` if there is nothing yet.
    pub fn batch_behind(&self, since: u64) -> Option<NewsBatch> {
        let dropped = self.last - self.kept as u64;
        let gap = (since < dropped).then(|| Gap { first: self.place(since + 1), last: self.place(dropped) });
        let since = since.max(dropped);
        // The number of the entry before the first new one.
        let packed = self.last - self.new.len() as u64;
        let mut entries = Vec::new();
        if since < packed {
            let before = packed - (self.old.len() * BLOCK) as u64;
            // Fewer than BLOCK entries of the first block are dropped, so `since` is behind where that begins.
            let at = ((since - before) / BLOCK as u64) as usize;
            for (index, block) in self.old.iter().enumerate().skip(at) {
                let entries_of = self.unpack(block, before + (index * BLOCK) as u64);
                entries.extend(entries_of.filter(|entry| entry.cursor.number > since).map(Arc::new));
                if entries.len() >= BATCH {
                    break;
                }
            }
        }
        let next = since + entries.len() as u64;
        if let Some(skip) = next.checked_sub(packed) {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            entries.extend(self.new.iter().skip(skip).take(BATCH.saturating_sub(entries.len())).cloned());
        }
        entries.truncate(BATCH);
        (gap.is_some() || !entries.is_empty()).then_some(NewsBatch { gap, entries })
    }

    /// The entries of a block that comes behind number `before`.
    fn unpack(&self, mut block: &[u8], before: u64) -> impl Iterator<Item = Entry> {
        (before + 1..=before + BLOCK as u64).map(move |number| {
            let (time, origin, news) = frame::take_front(&mut block, "entry").expect("an entry that was encoded here");
            Entry { cursor: self.place(number), time, origin, news }
        })
    }

    fn place(&self, number: u64) -> Cursor {
        Cursor { epoch: self.epoch, number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::model::InstanceName;

    /// Entries that say their own number, packed after every `pack` of them.
    fn packed_log(entries: u64, capacity: usize, pack: u64) -> Log {
        let mut log = Log::new(7, capacity);
        for seq in 1..=entries {
            let instance = InstanceName::new("a").unwrap();
            let news = News::Log(NotifyLog { seq, time: Timestamp(seq), instance, node: None, msg: seq.to_string() });
            log.append(news, Timestamp(seq), (seq % 2 == 0).then_some((9, seq)));
            if seq % pack == 0 {
                log.pack();
            }
        }
        log
    }

    fn log(entries: u64, capacity: usize) -> Log {
        packed_log(entries, capacity, u64::MAX)
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

    #[test]
    fn what_is_packed_reads_as_it_did_before() {
        for (entries, capacity) in [(1, 1), (63, 500), (64, 500), (200, 500), (1500, 100), (2000, 1999), (5000, 3000)] {
            for pack in [1, 7, 64, 100, 1000] {
                let (plain, packed) = (log(entries, capacity), packed_log(entries, capacity, pack));
                assert!(pack > 64 || packed.new.len() < BLOCK + pack as usize);
                for since in (0..=entries).step_by(13).chain(entries.saturating_sub(3)..=entries) {
                    let (want, got) = (plain.batch_behind(since), packed.batch_behind(since));
                    let parts = |batch: Option<NewsBatch>| batch.map(|batch| (batch.gap, batch.entries));
                    assert_eq!(parts(got), parts(want), "{entries} of {capacity}, packed by {pack}, behind {since}");
                }
            }
        }
    }
}

//! The last entries of the controller's log, in memory.
//!
//! What is new is there for observers that follow live, as it is. What has been there for a while is encoded, block by
//! block: that takes a third of the room, and hardly anybody asks for it. What is not on disk yet stays, however much
//! that is; with all of it on disk little is needed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::reader::place;
use crate::message::client::{Cursor, Entry, Gap, News, NewsBatch};
use crate::message::frame;
use crate::model::Timestamp;

/// How many entries one batch carries at most.
const BATCH: usize = 1024;
/// How many entries are encoded together.
const BLOCK: usize = 64;

/// How much is kept in memory, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of those that have been there for a while.
    pub lasting: usize,
    /// Of all, for as long as they are new.
    pub at_most: usize,
    /// Whether the others are elsewhere: then what nobody has written yet stays, too.
    pub is_kept: bool,
}

impl Room {
    /// For a log that is nowhere else.
    pub fn alone(entries: usize) -> Self {
        Self { lasting: entries.max(1), at_most: entries.max(1), is_kept: false }
    }

    /// For a log that is on disk: who follows live finds everything here, who is far behind finds it there.
    pub const BESIDE_DISK: Self = Self { lasting: 256, at_most: 16 << 10, is_kept: true };
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    /// Each epoch with its first number, in order; never empty. The last is the present one.
    epochs: Vec<(u64, u64)>,
    /// The number of the last entry.
    last: u64,
    /// The number of the last entry that is kept elsewhere, too, or given up there.
    durable: u64,
    room: Room,
    /// How many entries are here.
    held: usize,
    /// Those of the first that are over the room count no more.
    old: VecDeque<Block>,
    /// How many entries these hold.
    packed: usize,
    /// Everything behind them.
    new: VecDeque<Arc<Entry>>,
}

/// Some entries in a row, encoded: [`BLOCK`] of them, or what was left.
#[derive(Debug)]
struct Block {
    count: usize,
    bytes: Box<[u8]>,
}

/// What a place comes to that somebody wants to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// It is one of this log. What came behind it may be dropped already, which the observer is told.
    There,
    /// More of that epoch was seen than is kept: it goes on from the end of that.
    Back(Cursor),
    /// It is of another log.
    Unknown,
}

/// What there is behind a number.
#[derive(Debug)]
pub enum Behind {
    Nothing,
    Batch(NewsBatch),
    /// It is not here any more, but on disk.
    OnDisk,
}

impl Log {
    /// A log that goes on behind number `last`. No two have the same last epoch.
    pub fn new(epochs: Vec<(u64, u64)>, last: u64, room: Room) -> Self {
        let (old, new) = (VecDeque::new(), VecDeque::new());
        Self { epochs, last, durable: last, room, held: 0, old, packed: 0, new }
    }

    /// The place behind the last entry.
    pub fn cursor(&self) -> Cursor {
        let epoch = self.epochs.last().map_or(0, |(epoch, _)| *epoch);
        Cursor { epoch, number: self.last }
    }

    /// Numbers an entry and keeps it.
    pub fn append(&mut self, news: News, time: Timestamp, origin: Option<(u64, u64)>) -> &Entry {
        self.last += 1;
        let entry = Arc::new(Entry { cursor: self.cursor(), time, origin, news });
        self.new.push_back(entry);
        self.held += 1;
        self.shrink_to(self.room.at_most);
        // What was pushed stays: there is room for one.
        self.new.back().expect("the newest entry")
    }

    /// Everything up to that number is on disk, or given up.
    pub fn is_durable(&mut self, number: u64) {
        self.durable = self.durable.max(number);
        self.shrink_to(self.room.at_most);
    }

    /// Drops the first entries as far as it may.
    fn shrink_to(&mut self, entries: usize) {
        let unkept = if self.room.is_kept { (self.last - self.durable) as usize } else { 0 };
        self.held = self.held.min(entries.max(unkept).max(1));
        let over = self.packed + self.new.len() - self.held;
        let mut gone = 0;
        while let Some(first) = self.old.front().filter(|first| gone + first.count <= over) {
            gone += first.count;
            self.old.pop_front();
        }
        self.packed -= gone;
        if self.old.is_empty() {
            let over = self.new.len().saturating_sub(self.held);
            self.new.drain(..over);
        }
    }

    /// Whether [`Log::pack`] would do anything.
    pub fn can_pack(&self) -> bool {
        self.new.len() >= BLOCK
    }

    /// Encodes what came since it was last called, if that is much, and drops what need not last.
    pub fn pack(&mut self) {
        self.shrink_to(self.room.lasting);
        if !self.can_pack() {
            return;
        }
        // Also what makes no whole block: a few entries that came among many others keep a page each.
        while !self.new.is_empty() {
            let (mut bytes, count) = (Vec::new(), self.new.len().min(BLOCK));
            for entry in self.new.drain(..count) {
                let packed = (entry.time, entry.origin, &entry.news);
                // Writing to memory does not fail, and serde has a form for everything in news.
                frame::encode_body(&mut bytes, &packed).expect("an entry can be encoded");
            }
            self.packed += count;
            self.old.push_back(Block { count, bytes: bytes.into() });
        }
        self.new.shrink_to_fit();
    }

    /// What becomes of whoever has seen everything up to there.
    pub fn resume(&self, since: Cursor) -> Resumed {
        let Some(at) = self.epochs.iter().position(|(epoch, _)| *epoch == since.epoch) else { return Resumed::Unknown };
        match self.epochs.get(at + 1) {
            Some((_, next)) if since.number >= *next => Resumed::Back(Cursor { number: next - 1, ..since }),
            // Of the present epoch nobody has seen more than there is.
            None if since.number > self.last => Resumed::Unknown,
            _ => Resumed::There,
        }
    }

    /// The number before that of the first entry that is here.
    pub fn dropped(&self) -> u64 {
        self.last - self.held as u64
    }

    /// The next batch behind number `since`.
    pub fn behind(&self, since: u64) -> Behind {
        if since < self.dropped() && self.room.is_kept {
            return Behind::OnDisk;
        }
        self.batch_behind(since).map_or(Behind::Nothing, Behind::Batch)
    }

    /// The same from memory alone: what is not here is a gap.
    pub fn batch_behind(&self, since: u64) -> Option<NewsBatch> {
        let dropped = self.dropped();
        let gap = (since < dropped).then(|| Gap { first: self.place(since + 1), last: self.place(dropped) });
        let since = since.max(dropped);
        // The number of the entry before the first new one.
        let packed = self.last - self.new.len() as u64;
        let mut entries = Vec::new();
        if since < packed {
            let mut before = packed - self.packed as u64;
            for block in &self.old {
                let last = before + block.count as u64;
                if since < last {
                    let entries_of = self.unpack(block, before);
                    entries.extend(entries_of.filter(|entry| entry.cursor.number > since).map(Arc::new));
                }
                if entries.len() >= BATCH {
                    break;
                }
                before = last;
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
    fn unpack(&self, block: &Block, before: u64) -> impl Iterator<Item = Entry> {
        let mut bytes = &*block.bytes;
        (before + 1..=before + block.count as u64).map(move |number| {
            let (time, origin, news) = frame::take_front(&mut bytes, "entry").expect("an entry that was encoded here");
            Entry { cursor: self.place(number), time, origin, news }
        })
    }

    fn place(&self, number: u64) -> Cursor {
        place(&self.epochs, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::model::InstanceName;

    /// Entries that say their own number, packed after every `pack` of them.
    fn packed_log(entries: u64, capacity: usize, pack: u64) -> Log {
        let mut log = Log::new(vec![(7, 1)], 0, Room::alone(capacity));
        for seq in 1..=entries {
            log.append(log_entry(seq), Timestamp(seq), (seq % 2 == 0).then_some((9, seq)));
            if seq % pack == 0 {
                log.pack();
            }
        }
        log
    }

    fn log_entry(seq: u64) -> News {
        let instance = InstanceName::new("a").unwrap();
        News::Log(NotifyLog { seq, time: Timestamp(seq), instance, node: None, msg: seq.to_string() })
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
        let resume = |epoch, number| log.resume(Cursor { epoch, number });
        assert!([0, 7, 10].iter().all(|number| resume(7, *number) == Resumed::There));
        assert!(
            [(7, 11), (7, u64::MAX), (8, 8)].iter().all(|(epoch, number)| resume(*epoch, *number) == Resumed::Unknown)
        );
    }

    #[test]
    fn who_has_seen_more_of_an_epoch_than_is_kept_goes_on_from_its_end() {
        let log = Log::new(vec![(7, 1), (6, 5), (8, 5)], 9, Room::BESIDE_DISK);
        let resume = |epoch, number| log.resume(Cursor { epoch, number });
        assert_eq!(resume(6, 7), Resumed::Back(Cursor { epoch: 6, number: 4 }), "nothing of that is kept");
        assert!(
            [(7, 0), (7, 4), (8, 4), (8, 9)].iter().all(|(epoch, number)| resume(*epoch, *number) == Resumed::There)
        );
        for ahead in [5, 9, 100] {
            assert_eq!(resume(7, ahead), Resumed::Back(Cursor { epoch: 7, number: 4 }));
        }
        assert_eq!(resume(8, 10), Resumed::Unknown);
    }

    #[test]
    fn numbers_are_of_the_epoch_that_they_were_told_in() {
        let mut log = Log::new(vec![(7, 1), (8, 5)], 4, Room::alone(10));
        assert_eq!(log.cursor(), Cursor { epoch: 8, number: 4 });
        let first = log.append(log_entry(1), Timestamp(0), None).cursor;
        assert_eq!(first, Cursor { epoch: 8, number: 5 });
        let batch = log.batch_behind(2).unwrap();
        let cursor = |number| Cursor { epoch: 7, number };
        assert_eq!((batch.gap, numbers(&batch)), (Some(Gap { first: cursor(3), last: cursor(4) }), vec![5]));
    }

    #[test]
    fn beside_a_disk_memory_holds_what_is_not_written_and_what_is_new() {
        let room = Room { lasting: 100, at_most: 300, is_kept: true };
        let mut log = Log::new(vec![(7, 1)], 0, room);
        for seq in 1..=1000 {
            log.append(log_entry(seq), Timestamp(seq), None);
        }
        log.pack();
        assert_eq!(log.dropped(), 0, "nothing is written yet");
        log.is_durable(500);
        assert_eq!(log.dropped(), 500);
        assert!(matches!(log.behind(499), Behind::OnDisk));
        log.is_durable(1000);
        assert_eq!(log.dropped(), 700, "it is new");
        log.pack();
        assert_eq!(log.dropped(), 900);
        assert!(log.packed + log.new.len() < 100 + 2 * BLOCK);
        let Behind::Batch(batch) = log.behind(900) else { panic!("nothing behind 900") };
        assert_eq!((batch.gap, numbers(&batch)), (None, (901..=1000).collect()));
        assert!(matches!(log.behind(1000), Behind::Nothing));
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
                assert!(packed.new.len() < BLOCK + pack as usize);
                assert_eq!(packed.packed, packed.old.iter().map(|block| block.count).sum::<usize>());
                for since in (0..=entries).step_by(13).chain(entries.saturating_sub(3)..=entries) {
                    let (want, got) = (plain.batch_behind(since), packed.batch_behind(since));
                    let parts = |batch: Option<NewsBatch>| batch.map(|batch| (batch.gap, batch.entries));
                    assert_eq!(parts(got), parts(want), "{entries} of {capacity}, packed by {pack}, behind {since}");
                }
            }
        }
    }
}

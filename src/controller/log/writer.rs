//! Writes the log: groups of batches into the present segment, a new segment when that is long, the oldest ones away.
//!
//! A group that could not be written leaves nothing behind that counts. The disk may have kept a part of it, or lose later
//! what it said it has; so the next attempt is made in a new segment, which begins where the last one is known to be good.
//! So it is when somebody removes the log while it is written: what comes then has a place again, and what was there before
//! is told as gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Bounds;
use super::opening::recall_all;
use super::recall::Checkpoint;
use super::record::{self, Borrowed};
use super::volume::Volume;
use crate::model::{InstanceName, Timestamp};

/// What is handed over to be written in one piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The number of the first entry, or of the next if there is none.
    pub first: u64,
    /// The number of the last entry.
    pub last: u64,
    /// Encoded: see [`record`].
    pub items: Vec<u8>,
    /// How far whose news is kept once this is durable: instance, epoch and number.
    pub arrived: Vec<(InstanceName, u64, u64)>,
}

/// What readers have to know of the segments.
#[derive(Debug, Default)]
pub struct Index {
    /// Each by the number of its first entry.
    pub segments: BTreeMap<u64, Extent>,
    /// The number of the last entry that is durable.
    pub durable: u64,
    /// Each epoch with its first number, in order.
    pub epochs: Vec<(u64, u64)>,
}

/// How much of a segment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub length: u64,
    /// When it was written to last.
    pub written: Timestamp,
}

/// The same for the thread that writes and the one that reads.
#[derive(Debug, Clone, Default)]
pub struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    pub fn lock(&self) -> MutexGuard<'_, Index> {
        // Each change of it is made in one step, so whoever panicked left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Writer<V> {
    volume: V,
    bounds: Bounds,
    index: SharedIndex,
    /// The segment that is appended to.
    present: u64,
    /// Nothing is to be appended to that any more.
    is_suspect: bool,
    /// Entries that were kept and are not there any more, first and last, of which nobody was told.
    gone: Option<(u64, u64)>,
}

impl<V: Volume> Writer<V> {
    pub(super) fn new(
        volume: V,
        bounds: Bounds,
        segments: BTreeMap<u64, Extent>,
        checkpoint: &Checkpoint,
        is_suspect: bool,
    ) -> Self {
        let present = segments.last_key_value().map_or(1, |(segment, _)| *segment);
        let index = SharedIndex::default();
        *index.lock() = Index { segments, durable: checkpoint.last, epochs: checkpoint.epochs.clone() };
        Self { volume, bounds, index, present, is_suspect, gone: None }
    }

    /// What readers share with it.
    pub fn index(&self) -> &SharedIndex {
        &self.index
    }

    /// Whether what is written next is appended to the present segment.
    pub fn is_sound(&self) -> bool {
        !self.is_suspect
    }

    /// Where it writes.
    pub fn volume(&self) -> &V {
        &self.volume
    }

    /// Writes these batches, all or none; on return they are durable.
    ///
    /// They follow one another and what was written before. Where numbers are missing in between, readers are told so.
    pub fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        let Some(last) = batches.last() else { return Ok(()) };
        let (durable, extent) = {
            let index = self.index.lock();
            (index.durable, index.segments.get(&self.present).copied())
        };
        if self.is_suspect || extent.is_none_or(|extent| extent.length >= self.bounds.segment) {
            self.roll(durable)?;
        }
        let mut bytes = Vec::new();
        batches.iter().for_each(|batch| record::append(&mut bytes, batch.first, durable, &batch.items));
        if let Err(error) = self.volume.append(self.present, &bytes) {
            self.is_suspect = true;
            let length = self.index.lock().segments.get(&self.present).map_or(0, |extent| extent.length);
            // Only tidier: what is behind that is no part of the log, whether it is there or not.
            let _ = self.volume.cut(self.present, length);
            return Err(error);
        }
        let mut index = self.index.lock();
        index.durable = last.last;
        if let Some(extent) = index.segments.get_mut(&self.present) {
            *extent = Extent { length: extent.length + bytes.len() as u64, written: Timestamp::now() };
        }
        Ok(())
    }

    /// Begins a new segment behind what is durable.
    fn roll(&mut self, durable: u64) -> io::Result<()> {
        let segments = self.index.lock().segments.clone();
        let reading = recall_all(&self.volume, &segments)?;
        let reading = reading.ok_or_else(|| io::Error::other("what was written before cannot be read back"))?;
        let mut checkpoint = reading.checkpoint;
        checkpoint.bound();
        let bytes = beginning(&checkpoint);
        self.volume.create(durable + 1, &bytes)?;
        let extent = Extent { length: bytes.len() as u64, written: Timestamp::now() };
        self.index.lock().segments.insert(durable + 1, extent);
        (self.present, self.is_suspect) = (durable + 1, false);
        self.forget_what_is_gone(durable)?;
        self.drop_old(Timestamp::now());
        Ok(())
    }

    /// Takes note of segments that somebody removed: a directory that was made anew has none of the old ones.
    fn forget_what_is_gone(&mut self, durable: u64) -> io::Result<()> {
        let there: BTreeSet<_> = self.volume.list()?.iter().map(|held| held.segment).collect();
        let mut index = self.index.lock();
        let before: Vec<_> = index.segments.keys().copied().chain([durable + 1]).collect();
        let gone = before.windows(2).filter(|pair| !there.contains(&pair[0]));
        let gone = gone.map(|pair| (pair[0], pair[1] - 1)).filter(|(first, last)| first <= last);
        self.gone = gone.chain(self.gone).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        index.segments.retain(|segment, _| there.contains(segment));
        Ok(())
    }

    /// First and last of the entries that were kept and are not there any more, since this was asked last.
    pub fn take_gone(&mut self) -> Option<(u64, u64)> {
        self.gone.take()
    }

    /// Drops what exceeds the bounds. Returns how long from now on nothing more will, unless something is written.
    pub fn drop_old(&mut self, now: Timestamp) -> Option<Duration> {
        loop {
            let (segment, extent, total) = {
                let index = self.index.lock();
                let (segment, extent) = index.segments.first_key_value()?;
                if *segment == self.present {
                    return None;
                }
                (*segment, *extent, index.segments.values().map(|extent| extent.length).sum::<u64>())
            };
            let age = Duration::from_micros(now.0.saturating_sub(extent.written.0));
            if age < self.bounds.age && total <= self.bounds.size {
                return Some(self.bounds.age - age);
            }
            // Readers are told before the file goes.
            self.index.lock().segments.remove(&segment);
            if let Err(error) = self.volume.remove(segment) {
                tracing::warn!("cannot drop the oldest part of the log in {}: {error}", self.volume.name());
            }
        }
    }

    /// Ends the log in order: everything that anybody has seen of it is written.
    pub fn close(&mut self) -> io::Result<()> {
        let last = self.index.lock().durable;
        let mut items = Vec::new();
        Borrowed::Closed.append_to(&mut items);
        self.write(&[Batch { first: last + 1, last, items, arrived: Vec::new() }])
    }
}

/// A new segment behind a checkpoint.
pub(super) fn beginning(checkpoint: &Checkpoint) -> Vec<u8> {
    let (mut bytes, mut items) = (record::head(), Vec::new());
    Borrowed::Checkpoint(checkpoint).append_to(&mut items);
    record::append(&mut bytes, checkpoint.last + 1, checkpoint.last, &items);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::LogError;
    use super::super::memory_volume::{Failure, MemoryVolume};
    use super::super::opening::Opened;
    use super::super::reader::Reader;
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::message::client::{Cursor, Gap, News};

    /// Entries that say their own number, `count` of them behind number `last`.
    pub fn batch(last: u64, count: u64) -> Batch {
        let mut batch = Batch { first: last + 1, last: last + count, ..Batch::default() };
        for seq in last + 1..=last + count {
            let news = NotifyLog { seq, time: Timestamp(seq), instance: name(), node: None, msg: seq.to_string() };
            Borrowed::Entry(Timestamp(seq), Some((9, seq)), &News::Log(news)).append_to(&mut batch.items);
        }
        batch.arrived.push((name(), 9, last + count));
        batch
    }

    pub fn name() -> InstanceName {
        InstanceName::new("a").unwrap()
    }

    pub fn bounds(segment: u64) -> Bounds {
        Bounds { segment, ..Bounds::default() }
    }

    pub fn open(volume: &MemoryVolume, bounds: Bounds, fresh: u64) -> Opened<MemoryVolume> {
        Writer::open(volume.clone(), bounds, fresh, Timestamp::now()).unwrap()
    }

    /// A log of so many entries, in records of three, all of it on disk.
    fn written(entries: u64, segment: u64) -> (MemoryVolume, Writer<MemoryVolume>) {
        let volume = MemoryVolume::default();
        let mut writer = open(&volume, bounds(segment), 7).writer;
        let mut last = 0;
        while last < entries {
            let count = 3.min(entries - last);
            writer.write(&[batch(last, count)]).unwrap();
            last += count;
        }
        (volume, writer)
    }

    /// Everything that a reader gets from the beginning on: numbers, and gaps.
    fn read_all(writer: &Writer<MemoryVolume>) -> (Vec<u64>, Vec<Gap>) {
        let mut reader = Reader::new(writer.volume().for_reading(), writer.index().clone());
        let (mut numbers, mut gaps, mut at) = (Vec::new(), Vec::new(), 0);
        loop {
            let batch = reader.read(at);
            if let Some(gap) = batch.gap {
                assert_eq!(gap.first.number, at + 1);
                at = gap.last.number;
                gaps.push(gap);
            }
            for entry in &batch.entries {
                assert_eq!(entry.cursor.number, at + 1, "in order, and once");
                let News::Log(log) = &entry.news else { panic!("{entry:?}") };
                assert_eq!(log.msg, entry.cursor.number.to_string());
                at = entry.cursor.number;
                numbers.push(at);
            }
            if batch.gap.is_none() && batch.entries.is_empty() {
                assert_eq!(at, writer.index().lock().durable, "the end is where the log ends");
                return (numbers, gaps);
            }
        }
    }

    fn whole(numbers: u64) -> (Vec<u64>, Vec<Gap>) {
        ((1..=numbers).collect(), Vec::new())
    }

    #[test]
    fn a_log_that_ended_in_order_goes_on_under_its_epoch() {
        let (volume, mut writer) = written(10, 1 << 20);
        writer.close().unwrap();
        let mut opened = open(&volume, bounds(1 << 20), 8);
        assert_eq!((opened.epochs, opened.last, opened.pending), (vec![(7, 1)], 10, vec![]));
        assert_eq!(opened.recalled.arrived, [(name(), (9, 10))].into());
        assert_eq!(opened.recalled.notes, [] as [&str; 0]);
        opened.writer.write(&[batch(10, 2)]).unwrap();
        assert_eq!(read_all(&opened.writer), whole(12));
    }

    #[test]
    fn a_log_that_did_not_end_in_order_begins_an_epoch_and_says_up_to_where_the_last_one_is_kept() {
        let (volume, writer) = written(10, 1 << 20);
        drop(writer);
        let opened = open(&volume, bounds(1 << 20), 8);
        assert_eq!((opened.epochs, opened.last), (vec![(7, 1), (8, 11)], 10));
        assert!(opened.recalled.notes[0].contains("is kept up to 7-10"), "{:?}", opened.recalled.notes);
    }

    #[test]
    fn a_log_that_went_on_does_not_look_as_if_it_had_ended_in_order() {
        let (volume, mut writer) = written(10, 1 << 20);
        writer.close().unwrap();
        drop(open(&volume, bounds(1 << 20), 8)); // and is killed before it writes anything
        assert_eq!(open(&volume, bounds(1 << 20), 9).epochs, [(7, 1), (9, 11)]);
    }

    #[test]
    fn where_it_cannot_be_said_that_a_log_goes_on_nobody_sees_its_epoch_again() {
        let (volume, mut writer) = written(10, 1 << 20);
        writer.close().unwrap();
        volume.fail(Some(Failure::Full(0)));
        let opened = open(&volume, bounds(1 << 20), 8);
        assert_eq!((&opened.epochs[..], opened.pending.len()), (&[(7, 1), (8, 11)][..], 1));
        drop(opened);
        volume.fail(None);
        let mut opened = open(&volume, bounds(1 << 20), 9);
        assert_eq!(opened.epochs, [(7, 1)], "nothing of epoch 8 is kept, and nothing more of 7 was seen");
        opened.writer.write(&[batch(10, 1)]).unwrap();
        assert_eq!(read_all(&opened.writer), whole(11));
    }

    #[test]
    fn a_log_that_is_cut_off_at_any_byte_goes_on_and_uses_no_number_twice() {
        let (volume, _) = written(30, 250);
        let segments = volume.segments();
        assert!(segments.len() > 2, "{segments:?}");
        let (last, bytes) = segments.last_key_value().unwrap();
        let least = beginning(&Checkpoint::default()).len();
        for cut in least..=bytes.len() {
            let torn = MemoryVolume::default();
            segments.iter().for_each(|(segment, bytes)| torn.put(*segment, bytes.clone()));
            torn.put(*last, bytes[..cut].to_vec());
            let mut opened = open(&torn, bounds(250), 8);
            let kept = opened.last;
            // A checkpoint is made whole or not at all; were it not, only that segment would be missing.
            assert!((last - 1..=30).contains(&kept), "{kept} of a log cut at {cut}");
            opened.writer.write(&[batch(kept, 4)]).unwrap();
            assert_eq!(read_all(&opened.writer), whole(kept + 4), "cut at {cut}");
            let again = open(&torn, bounds(250), 9);
            assert_eq!((again.last, read_all(&again.writer)), (kept + 4, whole(kept + 4)), "cut at {cut}");
        }
    }

    #[test]
    fn any_byte_may_be_damaged_and_whatever_that_costs_is_told() {
        let (volume, _) = written(30, 250);
        let segments = volume.segments();
        for (segment, bytes) in &segments {
            for at in 0..bytes.len() {
                let damaged = MemoryVolume::default();
                segments.iter().for_each(|(segment, bytes)| damaged.put(*segment, bytes.clone()));
                let mut other = bytes.clone();
                other[at] ^= 0x21;
                damaged.put(*segment, other);
                let mut opened = match Writer::open(damaged.clone(), bounds(250), 8, Timestamp(0)) {
                    Ok(opened) => opened,
                    // The number of the format is all that can look like something else.
                    Err(error) => {
                        assert!(matches!(error, LogError::FutureFormat { .. }) && (8..12).contains(&at), "{error}");
                        continue;
                    }
                };
                let kept = opened.last;
                opened.writer.write(&[batch(kept, 2)]).unwrap();
                let (numbers, gaps) = read_all(&opened.writer);
                let missing: u64 = gaps.iter().map(|gap| gap.last.number - gap.first.number + 1).sum();
                assert_eq!(numbers.len() as u64 + missing, kept + 2, "byte {at} of segment {segment}");
                assert!(missing <= 6 && kept + 3 >= 30, "byte {at} of segment {segment}: {missing} of {kept}");
            }
        }
    }

    #[test]
    fn a_log_of_a_later_release_is_refused_and_not_touched() {
        let (volume, _) = written(30, 250);
        let mut last = volume.segments().last_key_value().map(|(segment, bytes)| (*segment, bytes.clone())).unwrap();
        last.1[11] = 9;
        volume.put(last.0, last.1);
        let before = volume.segments();
        let error = Writer::open(volume.clone(), bounds(250), 8, Timestamp(0)).unwrap_err();
        assert!(error.to_string().contains("format 9, and this one knows up to 1"), "{error}");
        assert_eq!(volume.segments(), before);
    }

    #[test]
    fn what_is_no_log_at_all_is_set_aside_with_words() {
        let volume = MemoryVolume::default();
        volume.put(1, b"once upon a time".to_vec());
        let opened = open(&volume, bounds(250), 8);
        assert_eq!((volume.aside(), &opened.epochs[..]), (vec![1], &[(8, 1)][..]));
        assert!(opened.recalled.notes[0].contains("set aside"), "{:?}", opened.recalled.notes);
    }

    #[test]
    fn a_disk_that_fails_leaves_no_hole_and_nothing_twice() {
        for failure in [Failure::Full(0), Failure::Full(20), Failure::Full(usize::MAX), Failure::Unsure] {
            for crash in [false, true] {
                let (volume, mut writer) = written(6, 1 << 20);
                volume.fail(Some(failure));
                assert!(writer.write(&[batch(6, 3)]).is_err());
                assert!(writer.write(&[batch(6, 3), batch(9, 1)]).is_err());
                volume.fail(None);
                let mut last = 6;
                if crash {
                    let opened = open(&volume, bounds(1 << 20), 8);
                    // What is whole may count, promised or not.
                    (writer, last) = (opened.writer, opened.last);
                    assert!(last == 6 || last == 9, "{failure:?}: {last}");
                }
                writer.write(&[batch(last, 5)]).unwrap();
                writer.write(&[batch(last + 5, 1)]).unwrap();
                assert_eq!(read_all(&writer), whole(last + 6), "{failure:?}");
                let again = open(&volume, bounds(1 << 20), 9);
                assert_eq!((again.last, read_all(&again.writer)), (last + 6, whole(last + 6)), "{failure:?}");
            }
        }
    }

    #[test]
    fn the_oldest_segments_go_when_there_is_too_much_and_readers_are_told() {
        let volume = MemoryVolume::default();
        let bounds = Bounds { size: 1500, segment: 250, ..Bounds::default() };
        let mut writer = open(&volume, bounds, 7).writer;
        (0..50).for_each(|number| writer.write(&[batch(3 * number, 3)]).unwrap());
        let total: usize = volume.segments().values().map(Vec::len).sum();
        assert!((1000..2000).contains(&total), "{total} bytes");
        let first = *volume.segments().first_key_value().unwrap().0;
        let (numbers, gaps) = read_all(&writer);
        assert_eq!(numbers, (first..=150).collect::<Vec<_>>());
        let place = |number| Cursor { epoch: 7, number };
        assert_eq!(gaps, [Gap { first: place(1), last: place(first - 1) }]);
    }

    #[test]
    fn segments_that_are_too_old_go_and_the_present_one_stays() {
        let (volume, mut writer) = written(30, 250);
        let count = volume.segments().len();
        let now = Timestamp::now();
        let after = |days: u64| Timestamp(now.0 + days * 24 * 3600 * 1_000_000);
        let wait = writer.drop_old(now).unwrap();
        assert!(wait > Duration::from_secs(29 * 24 * 3600), "{wait:?}");
        assert_eq!(volume.segments().len(), count);
        assert_eq!(writer.drop_old(after(31)), None, "there is nothing left to drop");
        let left: Vec<_> = volume.segments().into_keys().collect();
        assert_eq!(left, [writer.present]);
        assert_eq!(open(&volume, bounds(250), 8).recalled.arrived, [(name(), (9, 30))].into(), "nothing is forgotten");
    }

    #[test]
    fn a_hole_in_what_is_written_is_a_gap_for_readers_also_at_the_next_start() {
        let (volume, mut writer) = written(6, 1 << 20);
        writer.write(&[batch(8, 2)]).unwrap();
        let place = |number| Cursor { epoch: 7, number };
        let want = (vec![1, 2, 3, 4, 5, 6, 9, 10], vec![Gap { first: place(7), last: place(8) }]);
        assert_eq!(read_all(&writer), want);
        assert_eq!(read_all(&open(&volume, bounds(1 << 20), 8).writer), want);
    }

    #[test]
    fn far_more_than_a_chunk_is_read_chunk_by_chunk() {
        for (segment, each) in [(1 << 20, 3), (64 << 10, 700), (1 << 20, 4000)] {
            let volume = MemoryVolume::default();
            let mut writer = open(&volume, bounds(segment), 7).writer;
            let mut last = 0;
            while last < 9000 {
                writer.write(&[batch(last, each)]).unwrap();
                last += each;
            }
            assert_eq!(read_all(&writer), whole(last));
        }
    }
}

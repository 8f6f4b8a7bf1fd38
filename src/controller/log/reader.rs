//! Reads the log for whoever is behind what memory holds, a chunk at a time.
//!
//! What is not there any more, or cannot be read, is a gap: nobody is left to guess.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::record::{self, HEAD, Item, Split};
use super::volume::Volume;
use super::writer::SharedIndex;
use crate::message::client::{Cursor, Entry, Gap, NewsBatch};

/// How many entries one chunk has at most.
const ENTRIES: usize = 1024;
/// How much of a segment is read at once where the place is known, in bytes.
const WINDOW: u64 = 256 << 10;
/// How many places are remembered: of so many readers each goes on without a search.
const PLACES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Reader<V> {
    volume: V,
    index: SharedIndex,
    /// Where records begin that hold, or come before, the entry of a number: number, segment, offset.
    places: VecDeque<(u64, u64, u64)>,
    /// Segments that could not be read when that was tried last, which was told.
    unreadable: BTreeSet<u64>,
}

/// A segment with what bounds it.
struct Range {
    segment: u64,
    length: u64,
    /// The number behind its last one.
    end: u64,
}

/// What a part of a segment had for a reader.
#[derive(Default)]
struct Taken {
    entries: Vec<Arc<Entry>>,
    /// The first number that was found, where earlier ones were asked for.
    resumes_at: Option<u64>,
    /// Where to go on: the offset of the record that holds, or comes before, what follows.
    next: u64,
    /// So many bytes from `next` on are needed to go on.
    needs: Option<u64>,
}

impl<V: Volume> Reader<V> {
    /// A reader of what is written under that index.
    pub fn new(volume: V, index: SharedIndex) -> Self {
        Self { volume, index, places: VecDeque::new(), unreadable: BTreeSet::new() }
    }

    /// What comes behind number `since` and is durable, or the first part of it; empty if there is nothing.
    pub fn read(&mut self, since: u64) -> NewsBatch {
        let wanted = since + 1;
        let mut from = wanted;
        loop {
            let Some(range) = self.range(from) else {
                let end = self.index.lock().durable;
                return self.batch(wanted, end + 1, Vec::new());
            };
            // What was there before its first entry is dropped.
            from = from.max(range.segment);
            let taken = self.take(&range, from);
            from = taken.resumes_at.unwrap_or(from);
            if !taken.entries.is_empty() {
                return self.batch(wanted, from, taken.entries);
            }
            from = range.end;
        }
    }

    /// The entries that were found, the first of them number `from`, behind a gap if that is not what was wanted.
    fn batch(&self, wanted: u64, from: u64, entries: Vec<Arc<Entry>>) -> NewsBatch {
        let epochs = &self.index.lock().epochs;
        let gap = (from > wanted).then(|| Gap { first: place(epochs, wanted), last: place(epochs, from - 1) });
        NewsBatch { gap, entries }
    }

    /// The segment that holds that entry, or else the first one behind it; `None` if it is not durable yet.
    fn range(&self, from: u64) -> Option<Range> {
        let index = self.index.lock();
        if from > index.durable {
            return None;
        }
        let holds = index.segments.range(..=from).next_back().or_else(|| index.segments.first_key_value());
        let (segment, extent) = holds?;
        let end = index.segments.range(segment + 1..).next().map_or(index.durable + 1, |(next, _)| *next);
        Some(Range { segment: *segment, length: extent.length, end })
    }

    fn take(&mut self, range: &Range, from: u64) -> Taken {
        let known = self.places.iter().position(|(number, segment, _)| (*number, *segment) == (from, range.segment));
        let (mut at, mut most) = match known.and_then(|at| self.places.remove(at)) {
            Some((_, _, offset)) => (offset, WINDOW),
            None => (HEAD as u64, range.length),
        };
        let mut taken = Taken::default();
        while at < range.length && taken.entries.is_empty() {
            let bytes = match self.volume.read(range.segment, at, most.min(range.length - at)) {
                Ok(bytes) if !bytes.is_empty() => bytes,
                Ok(_) => break,
                Err(error) => {
                    self.unreadable.retain(|segment| self.index.lock().segments.contains_key(segment));
                    if self.unreadable.insert(range.segment) {
                        let (place, first, last) = (self.volume.name(), range.segment, range.end - 1);
                        tracing::error!("cannot read entries {first} to {last} of the log in {place}: {error}");
                    }
                    break;
                }
            };
            self.unreadable.remove(&range.segment);
            let is_end = at + bytes.len() as u64 >= range.length;
            let epochs = self.index.lock().epochs.clone();
            taken = take_from(&bytes, from, range.end, is_end, &epochs);
            if (taken.next, taken.needs) == (0, None) && taken.entries.is_empty() {
                break; // the rest is not its own any more
            }
            at += taken.next;
            most = taken.needs.unwrap_or(WINDOW);
        }
        if let Some(last) = taken.entries.last() {
            self.places.push_back((last.cursor.number + 1, range.segment, at));
            if self.places.len() > PLACES {
                self.places.pop_front();
            }
        }
        taken
    }
}

/// The entries from number `from` on and below `end`, as far as these bytes of a segment have them.
fn take_from(bytes: &[u8], from: u64, end: u64, is_end: bool, epochs: &[(u64, u64)]) -> Taken {
    let mut taken = Taken::default();
    let mut at = skip_to(bytes, from);
    loop {
        match record::split(&bytes[at..]) {
            _ if at >= bytes.len() => break,
            Split::Record(record) => {
                let mut number = record.first;
                let expected = taken.entries.last().map_or(from, |last| last.cursor.number + 1);
                // A hole: what was found before it goes out first.
                if number > expected && !taken.entries.is_empty() || taken.entries.len() >= ENTRIES || number >= end {
                    break;
                }
                for item in record::items(record.items) {
                    let Ok(Item::Entry(time, origin, news)) = item else { continue };
                    if number >= from && number < end && taken.entries.len() < ENTRIES {
                        if taken.entries.is_empty() && number > from {
                            taken.resumes_at = Some(number);
                        }
                        taken.entries.push(Arc::new(Entry { cursor: place(epochs, number), time, origin, news }));
                    }
                    number += 1;
                }
                if taken.entries.len() >= ENTRIES {
                    break; // there may be more in this record
                }
                at += record.size;
            }
            Split::Short(needs) if !is_end => {
                taken.needs = Some((needs as u64).max(WINDOW));
                break;
            }
            // Damage: on behind the next mark, if there is one.
            Split::Short(_) | Split::Damaged => match record::next_mark(&bytes[at..]) {
                Some(skip) => at += skip,
                None => {
                    // A mark may begin in these bytes and end in the next.
                    at = if is_end { bytes.len() } else { (at + 1).max(bytes.len().saturating_sub(3)) };
                    break;
                }
            },
        }
    }
    taken.next = at as u64;
    taken
}

/// The offset of the last record that begins with number `from` or before; nothing is decoded on the way.
fn skip_to(bytes: &[u8], from: u64) -> usize {
    let (mut at, mut best) = (0, 0);
    while at < bytes.len() {
        match record::split(&bytes[at..]) {
            Split::Record(record) if record.first > from => break,
            Split::Record(record) => {
                best = at;
                at += record.size;
            }
            _ => match record::next_mark(&bytes[at..]) {
                Some(skip) => at += skip,
                None => break,
            },
        }
    }
    best
}

/// The place of that number, by the epoch that it is of.
pub fn place(epochs: &[(u64, u64)], number: u64) -> Cursor {
    let behind = epochs.partition_point(|(_, first)| *first <= number);
    let epoch = epochs.get(behind.saturating_sub(1)).map_or(0, |(epoch, _)| *epoch);
    Cursor { epoch, number }
}

//! What the log comes to: how far the news of each agent has come, what each node was told to be last, and which numbers
//! are of which epoch.
//!
//! Each segment begins with that much, so only the last one has to be read when a controller starts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::record::{self, HEAD, Head, Record, Seen, SeenNews, Split};
use crate::message::agent::BorrowedChange;
use crate::model::{InstanceName, NodeName, NodeState, Role};

/// Of how many instances it is kept how far their news has come; the last ones to tell any.
const INSTANCES: usize = 4096;
/// How many epochs are known by name, the last ones: one begins whenever a controller did not end in order.
const EPOCHS: usize = 1024;

/// Everything up to an entry of the log, in short.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number of that entry.
    pub last: u64,
    /// Each epoch with its first number, in order.
    pub epochs: Vec<(u64, u64)>,
    /// How far the news of each instance has come.
    pub arrived: BTreeMap<InstanceName, Arrived>,
    /// What each node was told to be last, unless it was removed.
    pub nodes: BTreeMap<NodeName, Told>,
}

/// How far the news of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    pub epoch: u64,
    pub seq: u64,
    /// The number of the log's entry that was the last when it came.
    at: u64,
}

/// What a node was told to be last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub instance: InstanceName,
    pub role: Role,
    pub state: NodeState,
    pub restarts: u32,
}

/// What a log says to the controller that goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recalled {
    pub nodes: BTreeMap<NodeName, Told>,
    /// How far the news of each instance has come: epoch and number.
    pub arrived: BTreeMap<InstanceName, (u64, u64)>,
    /// What observers have to know first, in words.
    pub notes: Vec<String>,
}

impl Checkpoint {
    fn apply(&mut self, item: Seen<'_>) {
        match item {
            Seen::Entry(_, origin, news) => {
                self.last += 1;
                if let (Some((epoch, seq)), Some(instance)) = (origin, instance_of(&news)) {
                    self.note_arrival(instance, epoch, seq);
                }
                if let SeenNews::Change(change) = news {
                    self.note_change(&change);
                }
            }
            Seen::Arrived(instance, epoch, seq) => self.note_arrival(instance, epoch, seq),
            Seen::Began(epoch) => self.begin(epoch),
            Seen::Closed | Seen::Reopened => {}
            Seen::Checkpoint(checkpoint) => *self = checkpoint,
        }
    }

    fn note_arrival(&mut self, instance: &str, epoch: u64, seq: u64) {
        let arrived = Arrived { epoch, seq, at: self.last };
        if let Some(known) = self.arrived.get_mut(instance) {
            *known = arrived;
        } else if let Ok(name) = InstanceName::new(instance) {
            self.arrived.insert(name, arrived);
        }
    }

    fn note_change(&mut self, change: &BorrowedChange<'_>) {
        let BorrowedChange { instance, node, role, new: state, restarts, removed, .. } = *change;
        if removed {
            self.nodes.remove(node);
        } else if let Some(known) = self.nodes.get_mut(node).filter(|known| known.instance.as_str() == instance) {
            (known.role, known.state, known.restarts) = (role, state, restarts);
        } else if let (Ok(node), Ok(instance)) = (NodeName::new(node), InstanceName::new(instance)) {
            self.nodes.insert(node, Told { instance, role, state, restarts });
        }
    }

    /// From the next entry on numbers are of this epoch.
    pub fn begin(&mut self, epoch: u64) {
        self.epochs.push((epoch, self.last + 1));
        let over = self.epochs.len().saturating_sub(EPOCHS);
        self.epochs.drain(..over);
    }

    /// Forgets who has told nothing for the longest, if there are too many.
    pub fn bound(&mut self) {
        let over = self.arrived.len().saturating_sub(INSTANCES);
        let mut by_age: BTreeSet<_> = self.arrived.iter().map(|(name, arrived)| (arrived.at, name.clone())).collect();
        for _ in 0..over {
            if let Some((_, name)) = by_age.pop_first() {
                self.arrived.remove(&name);
            }
        }
    }
}

/// Whose news that is, if an instance's.
fn instance_of<'a>(news: &SeenNews<'a>) -> Option<&'a str> {
    match news {
        SeenNews::Change(change) => Some(change.instance),
        SeenNews::Error(text) | SeenNews::Log(text) => Some(text.instance),
        SeenNews::AgentsReady(_) => None,
    }
}

/// What a segment comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub checkpoint: Checkpoint,
    /// Its last word is that the controller ended in order.
    pub closed: bool,
    /// How many of its bytes count: what a crash tore off behind them does not.
    pub used: usize,
    /// Numbers of entries that were damaged: first and last of each row.
    pub lost: Vec<(u64, u64)>,
    /// Whether anything in it was damaged.
    pub damaged: bool,
}

/// Reads a segment. `before` is what the segments before it come to, for one whose own word for that is damaged; without
/// either there is nothing to be made of it.
///
/// Only entries below `end` count: from there on the next segment has them.
pub fn read(bytes: &[u8], before: Option<Checkpoint>, end: u64) -> Option<Reading> {
    let mut reading =
        Reading { checkpoint: Checkpoint::default(), closed: false, used: 0, lost: vec![], damaged: false };
    let mut started = false;
    if let Some(before) = before {
        (reading.checkpoint, started) = (before, true);
    }
    let mut at = match record::look_at(bytes) {
        Head::Ours => HEAD,
        _ => {
            reading.damaged = true;
            0
        }
    };
    reading.used = at;
    while at < bytes.len() {
        match record::split(&bytes[at..]) {
            Split::Record(record) if record.first >= end && started => break,
            Split::Record(record) => {
                let is_checkpoint = record::is_checkpoint(record.items);
                if !started && !is_checkpoint {
                    return None;
                }
                started = true;
                reading.take(&record, is_checkpoint);
                at += record.size;
                reading.used = at;
            }
            Split::Short(_) | Split::Damaged => match behind_damage(&bytes[at..], reading.checkpoint.last) {
                Some(skip) => {
                    reading.damaged = true;
                    at += skip;
                }
                None => break,
            },
        }
    }
    started.then_some(reading)
}

impl Reading {
    fn take(&mut self, record: &Record<'_>, is_checkpoint: bool) {
        let next = self.checkpoint.last + 1;
        if record.first > next && !is_checkpoint {
            self.lost.push((next, record.first - 1));
            self.checkpoint.last = record.first - 1;
        }
        for item in record::items(record.items) {
            match item {
                Ok(item) => {
                    self.closed = matches!(item, Seen::Closed);
                    self.checkpoint.apply(item);
                }
                // Its checksum fits, so this is what was written; the next record tells how much of it is missing.
                Err(_) => self.damaged = true,
            }
        }
    }
}

/// Where records go on behind damage; `None` where a crash tore off what nobody was promised.
///
/// It is damage if a later record knows that this was durable, or if no entry is missing in between.
fn behind_damage(bytes: &[u8], last: u64) -> Option<usize> {
    let (mut at, mut first) = (0, None);
    while let Some(skip) = record::next_mark(&bytes[at..]) {
        at += skip;
        let Split::Record(record) = record::split(&bytes[at..]) else { continue };
        let first = *first.get_or_insert((at, record.first));
        if record.durable > last || first.1 == last + 1 {
            return Some(first.0);
        }
        at += record.size - 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::record::Borrowed;
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::message::client::News;
    use crate::model::Timestamp;

    /// A segment of records that hold so many entries each, and where each record ends.
    fn segment(records: &[(u64, u64)]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut next, mut durable) = (record::head(), vec![HEAD], 1, 0);
        let mut items = Vec::new();
        Borrowed::Checkpoint(&Checkpoint { epochs: vec![(7, 1)], ..Checkpoint::default() }).append_to(&mut items);
        record::append(&mut bytes, 1, 0, &items);
        ends.push(bytes.len());
        // (entries, how many of the records before are durable is told by a new group)
        for (entries, begins_group) in records {
            if *begins_group == 1 {
                durable = next - 1;
            }
            let mut items = Vec::new();
            (next..next + entries)
                .for_each(|seq| Borrowed::Entry(Timestamp(seq), Some((9, seq)), &log(seq)).append_to(&mut items));
            record::append(&mut bytes, next, durable, &items);
            next += entries;
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn log(seq: u64) -> News {
        News::Log(NotifyLog { seq, time: Timestamp(seq), instance: name(), node: None, msg: seq.to_string() })
    }

    fn name() -> InstanceName {
        InstanceName::new("a").unwrap()
    }

    fn whole(bytes: &[u8]) -> Reading {
        read(bytes, None, u64::MAX).unwrap()
    }

    #[test]
    fn a_segment_that_is_cut_off_at_any_byte_counts_up_to_the_last_whole_record() {
        let (bytes, ends) = segment(&[(1, 1), (3, 1), (2, 0), (1, 1)]);
        for cut in 0..=bytes.len() {
            let want = ends.iter().rposition(|end| *end <= cut);
            match read(&bytes[..cut], None, u64::MAX) {
                None => assert!(want.is_none_or(|records| records == 0), "cut at {cut}"),
                Some(reading) => {
                    let records = want.unwrap();
                    let last = [0, 0, 1, 4, 6, 7][records];
                    assert_eq!((reading.used, reading.checkpoint.last), (ends[records], last), "cut at {cut}");
                    assert!(!reading.damaged && reading.lost.is_empty(), "cut at {cut}: a tear is no damage");
                    let seq = reading.checkpoint.arrived.get(&name()).map_or(0, |arrived| arrived.seq);
                    assert_eq!(seq, last);
                }
            }
        }
    }

    #[test]
    fn damage_to_what_was_durable_is_told_and_what_comes_behind_it_counts() {
        let (bytes, ends) = segment(&[(1, 1), (3, 1), (1, 1), (1, 1)]);
        for at in ends[2]..ends[3] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            let reading = whole(&damaged);
            assert_eq!((reading.damaged, &reading.lost[..]), (true, &[(2, 4)][..]), "byte {at}");
            assert_eq!((reading.checkpoint.last, reading.used), (6, bytes.len()), "byte {at}");
        }
    }

    #[test]
    fn what_a_crash_tore_within_its_last_group_does_not_count_nor_what_stands_behind_it() {
        // The last group has two records, and the first of them did not reach the disk.
        let (mut bytes, ends) = segment(&[(1, 1), (3, 1), (2, 0)]);
        bytes[ends[2] + 40] ^= 0x55;
        let reading = whole(&bytes);
        assert_eq!((reading.checkpoint.last, reading.used, reading.damaged), (1, ends[2], false));
    }

    #[test]
    fn a_damaged_checkpoint_is_made_good_by_the_segment_before() {
        let (mut bytes, _) = segment(&[(2, 1), (1, 1)]);
        bytes[HEAD + 3] ^= 0x55;
        assert_eq!(read(&bytes, None, u64::MAX), None);
        let before = Checkpoint { epochs: vec![(7, 1)], ..Checkpoint::default() };
        let reading = read(&bytes, Some(before), u64::MAX).unwrap();
        assert_eq!((reading.checkpoint.last, reading.damaged), (3, true));
    }

    #[test]
    fn an_epoch_begins_behind_what_is_kept_and_is_known_for_long() {
        let mut checkpoint = Checkpoint { epochs: vec![(7, 1)], last: 4, ..Checkpoint::default() };
        checkpoint.begin(8);
        checkpoint.begin(9);
        assert_eq!(checkpoint.epochs, [(7, 1), (8, 5), (9, 5)], "somebody may have seen what is kept of none");
        (0..2 * EPOCHS as u64).for_each(|epoch| {
            checkpoint.last += 1;
            checkpoint.begin(100 + epoch);
        });
        assert_eq!(checkpoint.epochs.len(), EPOCHS);
    }

    #[test]
    fn of_strangers_those_are_forgotten_that_told_nothing_for_the_longest() {
        let mut checkpoint = Checkpoint::default();
        for number in 0..INSTANCES as u64 + 5 {
            checkpoint.last = number;
            checkpoint.note_arrival(&format!("i{number}"), 1, 1);
        }
        checkpoint.bound();
        assert_eq!(checkpoint.arrived.len(), INSTANCES);
        assert!(!checkpoint.arrived.contains_key(&InstanceName::new("i4").unwrap()));
        assert!(checkpoint.arrived.contains_key(&InstanceName::new("i5").unwrap()));
    }
}

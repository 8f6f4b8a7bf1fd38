//! The bytes of the log on disk ⇄ what they say.
//!
//! A segment is a head and records. The head is a magic text and the number of the format. A record is one piece of what
//! was handed over together: a mark, the length of its items, a checksum of all that follows that, the number of its
//! first entry, the number up to which everything was durable when it was written, and its items. The first record of a
//! segment is a checkpoint. Integers are big-endian; items are encoded as bodies of frames are.
//!
//! What was durable tells a record that a crash tore from one that was damaged: nobody writes on before the last
//! group is on the disk, so behind a tear there is nothing that knows of it.

use serde::{Deserialize, Serialize};

use super::recall::Checkpoint;
use crate::message::agent::BorrowedChange;
use crate::message::client::{News, NotifyAgentsReady};
use crate::message::frame::{self, FrameError};
use crate::model::{InstanceName, Timestamp};

/// The format that is written, and the last one that is read.
pub const FORMAT: u32 = 1;
/// What a segment begins with.
const MAGIC: [u8; 8] = *b"wp-log\r\n";
/// Bytes of a segment's head.
pub const HEAD: usize = MAGIC.len() + 4;
/// What a record begins with, so that one can be found again behind damage.
const MARK: [u8; 4] = [0x9d, b'w', b'p', b'r'];
/// Bytes of a record before its items: mark, length, checksum, first number, durable number.
pub const PREFIX: usize = 4 + 4 + 4 + 8 + 8;
/// The longest items of one record, in bytes: some of the longest news there can be, or a checkpoint of many nodes.
const LONGEST: usize = 256 << 20;

/// One thing that a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// The next entry: when it happened, which epoch and number of its agent it has, and the news.
    Entry(Timestamp, Option<(u64, u64)>, News),
    /// That much of an instance's news has arrived, by epoch and number, without becoming an entry.
    Arrived(InstanceName, u64, u64),
    /// From the next entry on numbers are of this epoch.
    Began(u64),
    /// The controller ended in order, and everything that anybody has seen stands before this.
    Closed,
    /// A controller goes on behind [`Item::Closed`], under the same epoch.
    Reopened,
    /// Everything that came before the segment comes to this.
    Checkpoint(Checkpoint),
}

/// The same for whoever writes, who need not give it away. In the order of [`Item`].
#[derive(Debug, Serialize)]
pub enum Borrowed<'a> {
    Entry(Timestamp, Option<(u64, u64)>, &'a News),
    Arrived(&'a InstanceName, u64, u64),
    Began(u64),
    Closed,
    Reopened,
    Checkpoint(&'a Checkpoint),
}

impl Borrowed<'_> {
    /// Appends it to the items of a record.
    pub fn append_to(&self, items: &mut Vec<u8>) {
        // Writing to memory does not fail, and serde has a form for everything in an item.
        frame::encode_body(items, self).expect("an item can be encoded");
    }
}

/// The same for whoever only looks at it, without a copy of any text. In the order of [`Item`].
#[derive(Debug, Deserialize)]
pub enum Seen<'a> {
    Entry(Timestamp, Option<(u64, u64)>, #[serde(borrow)] SeenNews<'a>),
    Arrived(&'a str, u64, u64),
    Began(u64),
    Closed,
    Reopened,
    Checkpoint(Checkpoint),
}

/// [`News`] as it is seen, in its order.
#[derive(Debug, Deserialize)]
pub enum SeenNews<'a> {
    Change(#[serde(borrow)] BorrowedChange<'a>),
    Error(#[serde(borrow)] SeenText<'a>),
    Log(#[serde(borrow)] SeenText<'a>),
    AgentsReady(NotifyAgentsReady),
}

/// An error or a line of a log as it is seen, in their order.
#[derive(Debug, Deserialize)]
pub struct SeenText<'a> {
    _seq: u64,
    _time: Timestamp,
    pub instance: &'a str,
    _node: Option<&'a str>,
    _msg: &'a str,
}

/// Reads items back, one by one, as [`Item`] or [`Seen`]; an error ends them.
pub fn items<'a, T: Deserialize<'a>>(mut bytes: &'a [u8]) -> impl Iterator<Item = Result<T, FrameError>> {
    std::iter::from_fn(move || {
        let item = (!bytes.is_empty()).then(|| frame::take_front(&mut bytes, "item of the log"))?;
        if item.is_err() {
            bytes = &[];
        }
        Some(item)
    })
}

/// Whether the first of these items is a checkpoint. Nothing is decoded for that: its number in [`Item`] comes first.
pub fn is_checkpoint(items: &[u8]) -> bool {
    items.first() == Some(&5)
}

/// What a segment begins with.
pub fn head() -> Vec<u8> {
    [&MAGIC[..], &FORMAT.to_be_bytes()].concat()
}

/// What the beginning of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    Ours,
    /// A later release wrote it.
    Later(u32),
    /// It is no segment, or is damaged.
    Unknown,
}

/// Looks at the beginning of a file.
pub fn look_at(bytes: &[u8]) -> Head {
    let Some((magic, rest)) = bytes.split_first_chunk::<{ MAGIC.len() }>() else { return Head::Unknown };
    match rest.first_chunk::<4>().map(|format| u32::from_be_bytes(*format)) {
        Some(FORMAT) if *magic == MAGIC => Head::Ours,
        Some(found) if *magic == MAGIC && found > FORMAT => Head::Later(found),
        _ => Head::Unknown,
    }
}

/// A record in a buffer, its items still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The number of its first entry, or of the next one if it has none.
    pub first: u64,
    /// Everything up to this number was on the disk when it was written.
    pub durable: u64,
    pub items: &'a [u8],
    /// How many bytes of the buffer it takes up.
    pub size: usize,
}

/// What bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split<'a> {
    Record(Record<'a>),
    /// This many bytes are needed to tell.
    Short(usize),
    Damaged,
}

/// Looks for a whole record at the beginning of `bytes`.
pub fn split(bytes: &[u8]) -> Split<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        let is_one = bytes.iter().zip(&MARK).all(|(byte, mark)| byte == mark);
        return if is_one { Split::Short(PREFIX) } else { Split::Damaged };
    };
    let length = number(prefix, 4) as usize;
    if prefix[..4] != MARK || length > LONGEST {
        return Split::Damaged;
    }
    let Some(items) = rest.get(..length) else { return Split::Short(PREFIX + length) };
    if checksum(&prefix[12..], items) != number(prefix, 8) {
        return Split::Damaged;
    }
    let long = |at| u64::from(number(prefix, at)) << 32 | u64::from(number(prefix, at + 4));
    Split::Record(Record { first: long(12), durable: long(20), items, size: PREFIX + length })
}

/// The place of the next mark behind the beginning of `bytes`.
pub fn next_mark(bytes: &[u8]) -> Option<usize> {
    bytes.get(1..)?.windows(MARK.len()).position(|window| window == MARK).map(|at| at + 1)
}

/// Appends a record to `out`.
pub fn append(out: &mut Vec<u8>, first: u64, durable: u64, items: &[u8]) {
    let start = out.len();
    let length = u32::try_from(items.len()).expect("a record holds some frames of 16 MiB at most");
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&durable.to_be_bytes());
    let checksum = checksum(&out[start + 12..], items);
    out[start + 8..start + 12].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(items);
}

fn number(prefix: &[u8; PREFIX], at: usize) -> u32 {
    u32::from_be_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
}

fn checksum(numbers: &[u8], items: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(numbers);
    hasher.update(items);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::{NotifyChange, NotifyError, NotifyLog};
    use crate::model::{Exit, NodeName, NodeState, Role};

    #[test]
    fn a_record_reads_back_and_any_other_byte_is_noticed() {
        let mut items_of_it = Vec::new();
        Borrowed::Began(7).append_to(&mut items_of_it);
        Borrowed::Closed.append_to(&mut items_of_it);
        let mut bytes = Vec::new();
        append(&mut bytes, 0x1_0000_0005, 0x2_0000_0004, &items_of_it);
        let Split::Record(record) = split(&bytes) else { panic!("{bytes:?}") };
        assert_eq!((record.first, record.durable, record.size), (0x1_0000_0005, 0x2_0000_0004, bytes.len()));
        let read: Vec<Item> = items(record.items).map(Result::unwrap).collect();
        assert_eq!(read, [Item::Began(7), Item::Closed]);
        let mut checkpoint = Vec::new();
        Borrowed::Checkpoint(&Checkpoint::default()).append_to(&mut checkpoint);
        assert!(is_checkpoint(&checkpoint) && !is_checkpoint(record.items));
        for at in 0..bytes.len() {
            assert!(matches!(split(&bytes[..at]), Split::Short(_)), "cut at {at}");
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert!(!matches!(split(&other), Split::Record(_)), "changed at {at}");
        }
    }

    #[test]
    fn whoever_only_looks_sees_the_same() {
        let (instance, node) = (InstanceName::new("a").unwrap(), NodeName::new("n").unwrap());
        let (seq, time) = (300, Timestamp(1 << 50));
        let change = NotifyChange {
            seq,
            time,
            instance: instance.clone(),
            node: node.clone(),
            role: Role::Proxy,
            old: NodeState::Running,
            new: NodeState::Failed,
            pid: Some(70_000),
            exit: Some(Exit::Signal { number: 9, core_dumped: true }),
            attempt: 3,
            restarts: 400,
            reason: "why".into(),
            removed: true,
        };
        let error = NotifyError { seq, time, instance: instance.clone(), node: Some(node), msg: "m".into() };
        let log = NotifyLog { seq, time, instance: instance.clone(), node: None, msg: "m".into() };
        let ready = NotifyAgentsReady { instances: [instance.clone()].into() };
        let mut bytes = Vec::new();
        for news in [News::Change(change), News::Error(error), News::Log(log), News::AgentsReady(ready)] {
            Borrowed::Entry(time, Some((9, seq)), &news).append_to(&mut bytes);
        }
        Borrowed::Arrived(&instance, 9, seq).append_to(&mut bytes);
        Borrowed::Began(7).append_to(&mut bytes);
        let seen: Vec<Seen> = items(&bytes).map(Result::unwrap).collect();
        let [Seen::Entry(at, Some((9, 300)), SeenNews::Change(change)), rest @ ..] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((*at, change.instance, change.node, change.role), (time, "a", "n", Role::Proxy));
        assert_eq!((change.new, change.restarts, change.removed), (NodeState::Failed, 400, true));
        let [Seen::Entry(.., SeenNews::Error(error)), Seen::Entry(.., SeenNews::Log(log)), rest @ ..] = rest else {
            panic!("{rest:?}")
        };
        assert_eq!((error.instance, log.instance), ("a", "a"));
        let [Seen::Entry(.., SeenNews::AgentsReady(_)), Seen::Arrived("a", 9, 300), Seen::Began(7)] = rest else {
            panic!("{rest:?}")
        };
    }

    #[test]
    fn a_length_that_nothing_has_is_refused_before_it_is_believed() {
        let bytes = [&MARK[..], &u32::MAX.to_be_bytes(), &[0; 40]].concat();
        assert_eq!(split(&bytes), Split::Damaged);
    }

    #[test]
    fn a_head_says_whose_it_is() {
        assert_eq!(look_at(&head()), Head::Ours);
        assert_eq!(look_at(&[&MAGIC[..], &7u32.to_be_bytes()].concat()), Head::Later(7));
        for other in [&b""[..], b"wp-log\r\n", b"once upon a time", b"wp-log\r\n\0\0\0\0"] {
            assert_eq!(look_at(other), Head::Unknown, "{other:?}");
        }
    }
}

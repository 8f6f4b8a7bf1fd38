//! News that is not yet acknowledged: numbered once, kept until the controller keeps it, sent again on a new link.
//!
//! What is under way on a link is bounded by a window in bytes, which opens again as it arrives. What waits is
//! bounded too: over the limit everything that waits is dropped, which the numbers show, and a snapshot makes it good.

use std::collections::VecDeque;

use crate::message::agent::{NotifyChange, NotifyError, NotifyLog, ToController};

/// How many items make one batch at most. A longer one is more than what the allocator gives back without a look at
/// everything that was freed before it.
const MOST: usize = 256;
/// For how many items room is kept when there are none.
const ROOM: usize = 64;
/// How much a piece of news takes, in bytes, besides its texts.
const OVERHEAD: usize = 96;

/// The bounds of an outbox, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Sent on the present link and not yet acknowledged.
    pub window: usize,
    /// Kept, sent or not.
    pub kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window: 256 << 10, kept: 64 << 20 }
    }
}

/// One piece of news before it has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Change(NotifyChange),
    Error(NotifyError),
    Log(NotifyLog),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Outbox {
    bounds: Bounds,
    /// The number of the last item that was made.
    last: u64,
    /// The number of the last item that an earlier run made, as far as it is known.
    restored: u64,
    /// In order, without gaps, ending with number `last`.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The first `arrived` of `kept` have arrived, though the controller would not have them after a crash.
    arrived: usize,
    /// Those behind them, up to the first `sent` of `kept`, are under way on the present link, and take `sent_bytes`.
    sent: usize,
    sent_bytes: usize,
    /// The present link, if the controller has said on it what it knows.
    open: bool,
    snapshot_due: bool,
}

#[derive(Debug, Clone)]
struct Kept {
    item: Item,
    bytes: usize,
}

/// What is to be sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub news: Vec<ToController>,
    /// Behind the news goes a snapshot as of this number.
    pub snapshot: Option<u64>,
}

impl Outbox {
    /// An empty outbox whose first item will have number 1.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last: 0,
            restored: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            arrived: 0,
            sent: 0,
            sent_bytes: 0,
            open: false,
            snapshot_due: false,
        }
    }

    /// An outbox as it was: these items are kept, and the last of them has number `last`.
    pub fn restore(bounds: Bounds, last: u64, items: Vec<Item>) -> Self {
        let mut outbox = Self { last: last - items.len() as u64, restored: last, ..Self::new(bounds) };
        items.into_iter().for_each(|item| outbox.push(item));
        outbox
    }

    /// The number of the last item that was made.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number before that of the first item that is kept.
    pub fn base(&self) -> u64 {
        self.last - self.kept.len() as u64
    }

    /// What is kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Item> {
        self.kept.iter().map(|kept| &kept.item)
    }

    /// How much is kept.
    pub fn bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Numbers an item and keeps it.
    pub fn push(&mut self, mut item: Item) {
        self.last += 1;
        *item.seq() = self.last;
        let bytes = item.bytes();
        self.kept.push_back(Kept { item, bytes });
        self.kept_bytes += bytes;
        if self.kept_bytes > self.bounds.kept {
            self.collapse();
        }
    }

    /// A new link: nothing is under way on it, and nothing goes out before the controller says what it has.
    pub fn link_up(&mut self) {
        self.open = false;
        (self.arrived, self.sent, self.sent_bytes) = (0, 0, 0);
    }

    /// There is no link.
    pub fn link_down(&mut self) {
        self.link_up();
    }

    /// Everything up to `seq` has arrived, and up to `kept` it need not be kept here any more. The first word of this
    /// kind on a link opens it. False, and nothing happens, if more arrived on a link than was told on it.
    pub fn received(&mut self, seq: u64, kept: u64) -> bool {
        if self.open && seq > self.last {
            return false;
        }
        // No agent has told as much as that: numbers that leave no room for others are nobody's.
        if seq > self.last && seq < u64::MAX / 2 {
            self.resume_behind(seq);
        }
        while let Some(next) = self.kept.get(self.arrived).filter(|next| next.item.number() <= seq) {
            self.arrived += 1;
            match self.sent < self.arrived {
                true => self.sent = self.arrived, // on an earlier link
                false => self.sent_bytes -= next.bytes,
            }
        }
        // Nothing can be kept there that has not arrived.
        while self.arrived > 0 && self.kept.front().is_some_and(|first| first.item.number() <= kept) {
            let Some(first) = self.kept.pop_front() else { break };
            self.kept_bytes -= first.bytes;
            (self.arrived, self.sent) = (self.arrived - 1, self.sent - 1);
        }
        if self.kept.is_empty() {
            self.kept.shrink_to(ROOM);
        }
        if !self.open {
            (self.open, self.snapshot_due) = (true, true);
        }
        true
    }

    /// The controller has heard more than is known here: an earlier run said what it could not keep. What was made since
    /// then comes behind that, under numbers that are still free; what lies between was told, and is not here to tell again.
    fn resume_behind(&mut self, seq: u64) {
        let kept = std::mem::take(&mut self.kept);
        self.kept_bytes = 0;
        (self.arrived, self.sent, self.sent_bytes) = (0, 0, 0);
        self.last = seq;
        let made_since = kept.into_iter().map(|kept| kept.item).filter(|item| item.number() > self.restored);
        made_since.collect::<Vec<_>>().into_iter().for_each(|item| self.push(item));
        self.restored = seq;
    }

    /// What may go out now, or the first part of it; empty if there is nothing or the window is closed.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch { news: Vec::new(), snapshot: None };
        if !self.open {
            return batch;
        }
        let waiting = self.kept.len() - self.sent;
        batch.news.reserve(waiting.min(MOST));
        while let Some(kept) = self.kept.get(self.sent) {
            if batch.news.len() == MOST {
                return batch;
            }
            // One item always fits an empty window, however large it is.
            if self.sent_bytes > 0 && self.sent_bytes + kept.bytes > self.bounds.window {
                return batch;
            }
            self.sent += 1;
            self.sent_bytes += kept.bytes;
            batch.news.push(kept.item.clone().into());
        }
        if std::mem::take(&mut self.snapshot_due) {
            batch.snapshot = Some(self.last);
        }
        batch
    }

    /// Whether nothing waits for the window.
    pub fn all_is_sent(&self) -> bool {
        self.open && self.sent == self.kept.len()
    }

    /// Too much waits: what counts in the end is the latest state of each node, which a snapshot tells.
    fn collapse(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
        (self.arrived, self.sent, self.sent_bytes) = (0, 0, 0);
        self.snapshot_due = true;
    }
}

impl Item {
    fn number(&self) -> u64 {
        match self {
            Self::Change(NotifyChange { seq, .. })
            | Self::Error(NotifyError { seq, .. })
            | Self::Log(NotifyLog { seq, .. }) => *seq,
        }
    }

    fn seq(&mut self) -> &mut u64 {
        match self {
            Self::Change(NotifyChange { seq, .. })
            | Self::Error(NotifyError { seq, .. })
            | Self::Log(NotifyLog { seq, .. }) => seq,
        }
    }

    fn bytes(&self) -> usize {
        let texts = match self {
            Self::Change(NotifyChange { instance, node, reason, .. }) => {
                instance.as_str().len() + node.as_str().len() + reason.len()
            }
            Self::Error(NotifyError { instance, node, msg, .. }) | Self::Log(NotifyLog { instance, node, msg, .. }) => {
                instance.as_str().len() + node.as_ref().map_or(0, |node| node.as_str().len()) + msg.len()
            }
        };
        OVERHEAD + texts
    }
}

impl From<Item> for ToController {
    fn from(item: Item) -> Self {
        match item {
            Item::Change(change) => change.into(),
            Item::Error(error) => error.into(),
            Item::Log(log) => log.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceName, Timestamp};

    fn log(msg: &str) -> Item {
        let instance = InstanceName::new("i").unwrap();
        Item::Log(NotifyLog { seq: 0, time: Timestamp(0), instance, node: None, msg: msg.into() })
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let number = |news: &ToController| match news {
            ToController::NotifyLog(log) => log.seq,
            other => panic!("{other:?}"),
        };
        batch.news.iter().map(number).collect()
    }

    fn filled(count: usize, bounds: Bounds) -> Outbox {
        let mut outbox = Outbox::new(bounds);
        (0..count).for_each(|_| outbox.push(log("x")));
        outbox.link_up();
        outbox
    }

    #[test]
    fn nothing_goes_out_before_the_controller_said_what_it_has() {
        let mut outbox = filled(3, Bounds::default());
        assert!(numbers(&outbox.next_batch()).is_empty());
        outbox.received(1, 1);
        let batch = outbox.next_batch();
        assert_eq!(numbers(&batch), [2, 3]);
        assert_eq!(batch.snapshot, Some(3));
        assert_eq!(outbox.next_batch(), Batch { news: vec![], snapshot: None });
    }

    #[test]
    fn what_an_earlier_run_told_and_could_not_keep_takes_no_number_twice() {
        // Up to 10 it was kept, and up to 20 it was told.
        let mut earlier = filled(10, Bounds::default());
        earlier.received(8, 8);
        let mut outbox = Outbox::restore(Bounds::default(), earlier.last(), earlier.kept().cloned().collect());
        outbox.push(log("since"));
        outbox.link_up();
        outbox.received(20, 20);
        let batch = outbox.next_batch();
        assert_eq!((numbers(&batch), batch.snapshot), (vec![21], Some(21)));
        outbox.received(21, 21);
        outbox.push(log("more"));
        assert_eq!(numbers(&outbox.next_batch()), [22]);
        outbox.received(u64::MAX, u64::MAX);
        outbox.push(log("still"));
        assert_eq!(numbers(&outbox.next_batch()), [23], "nonsense is not believed");
    }

    #[test]
    fn no_more_can_arrive_on_a_link_than_was_told_on_it() {
        let mut outbox = filled(3, Bounds::default());
        assert!(outbox.received(0, 0));
        outbox.next_batch();
        let before = outbox.clone();
        assert!(!outbox.received(4, 4));
        assert_eq!((outbox.last(), outbox.kept().count()), (before.last(), 3), "nothing of it is believed");
        assert!(outbox.received(3, 3));
        outbox.push(log("more"));
        assert_eq!(numbers(&outbox.next_batch()), [4], "and nothing is told under another number");
    }

    #[test]
    fn the_window_closes_and_an_acknowledgement_opens_it() {
        let each = log("x").bytes();
        let mut outbox = filled(5, Bounds { window: 2 * each, kept: 1 << 20 });
        outbox.received(0, 0);
        let first = outbox.next_batch();
        assert_eq!(numbers(&first), [1, 2]);
        assert_eq!(first.snapshot, None, "the snapshot waits for the news before it");
        assert!(numbers(&outbox.next_batch()).is_empty());
        outbox.received(1, 1);
        assert_eq!(numbers(&outbox.next_batch()), [3]);
        outbox.received(3, 3);
        let last = outbox.next_batch();
        assert_eq!(numbers(&last), [4, 5]);
        assert_eq!(last.snapshot, Some(5));
    }

    #[test]
    fn what_has_arrived_opens_the_window_and_stays_until_it_is_kept_there() {
        let each = log("x").bytes();
        let mut outbox = filled(6, Bounds { window: 2 * each, kept: 1 << 20 });
        outbox.received(0, 0);
        assert_eq!(numbers(&outbox.next_batch()), [1, 2]);
        outbox.received(2, 0);
        assert_eq!(numbers(&outbox.next_batch()), [3, 4]);
        outbox.received(2, 1);
        assert_eq!((outbox.base(), outbox.kept().count()), (1, 5));
        assert!(numbers(&outbox.next_batch()).is_empty(), "what is kept opens no window");
        outbox.link_up();
        outbox.received(3, 1);
        assert_eq!(numbers(&outbox.next_batch()), [4, 5], "what has arrived is not sent again");
        // A controller that crashed has less than it had.
        outbox.link_up();
        outbox.received(1, 1);
        assert_eq!(numbers(&outbox.next_batch()), [2, 3], "and gets it again");
        outbox.received(3, 3);
        assert_eq!((outbox.base(), numbers(&outbox.next_batch())), (3, vec![4, 5]));
        outbox.received(5, 5);
        assert_eq!(numbers(&outbox.next_batch()), [6]);
    }

    #[test]
    fn much_that_waits_goes_out_in_batches_and_the_snapshot_with_the_last() {
        let mut outbox = filled(2 * MOST + 1, Bounds::default());
        outbox.received(0, 0);
        let batches = [(); 3].map(|()| outbox.next_batch());
        let sent: Vec<_> = batches.iter().flat_map(numbers).collect();
        assert_eq!(sent, (1..=2 * MOST as u64 + 1).collect::<Vec<_>>());
        assert_eq!(
            batches.map(|batch| (batch.news.len(), batch.snapshot.is_some())),
            [(MOST, false), (MOST, false), (1, true)]
        );
        assert_eq!(outbox.next_batch(), Batch { news: vec![], snapshot: None });
    }

    #[test]
    fn a_new_link_gets_everything_again_that_was_not_acknowledged() {
        let mut outbox = filled(4, Bounds::default());
        outbox.received(0, 0);
        outbox.next_batch();
        outbox.link_down();
        outbox.link_up();
        outbox.received(2, 2);
        assert_eq!(numbers(&outbox.next_batch()), [3, 4]);
    }

    #[test]
    fn an_outbox_that_overflows_goes_on_with_the_next_number_behind_a_snapshot() {
        let each = log("x").bytes();
        let mut outbox = filled(11, Bounds { window: 1 << 20, kept: 10 * each });
        outbox.received(0, 0);
        let batch = outbox.next_batch();
        assert_eq!(batch, Batch { news: vec![], snapshot: Some(11) });
        outbox.push(log("y"));
        assert_eq!(numbers(&outbox.next_batch()), [12]);
    }
}

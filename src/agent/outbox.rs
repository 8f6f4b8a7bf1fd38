//! News that is not yet acknowledged: numbered once, kept until the controller keeps it, sent again on a new link.
//!
//! News is encoded when it gets its number, once for the file and for every link. What is under way on a link is bounded
//! by a window in bytes, which opens again as it arrives. What waits is bounded too: over the limit everything that waits
//! is dropped, which the numbers show, and a snapshot makes it good.

use std::collections::VecDeque;

use crate::message::agent::{BorrowedChange, NotifyChange, NotifyError, NotifyLog, ToController};
use crate::message::frame::{Body, FrameError, Wire, append};
use crate::message::frames::{self, Frames};

/// How long a sheet gets, in bytes: small enough for the cache and for what the allocator gives out and takes back at once.
const SHEET: usize = 16 << 10;
/// How many are used again at the most: as many as arrive together, about.
const BLANK: usize = 4;

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

/// A place between two pieces of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Mark {
    /// The number of the piece before it.
    number: u64,
    /// How many bytes of news come before it.
    at: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Outbox {
    bounds: Bounds,
    /// The number of the last item that an earlier run made, as far as it is known.
    restored: u64,
    /// Everything from `base` to `end`, and what came before it on the first sheet.
    sheets: VecDeque<Sheet>,
    /// Empty sheets for what comes next, while there are others. To have each made anew is to have the allocator look
    /// through all small pieces that were freed meanwhile.
    blank: Vec<Vec<u8>>,
    /// What comes before this need not be kept.
    base: Mark,
    /// What comes before this has arrived, though the controller would not have it after a crash.
    arrived: Mark,
    /// What comes between that and this is under way on the present link.
    sent: Mark,
    /// Behind the last item that was made.
    end: Mark,
    /// The present link, if the controller has said on it what it knows.
    open: bool,
    snapshot_due: bool,
}

/// Some news in a row, encoded.
#[derive(Debug, Clone)]
struct Sheet {
    begin: Mark,
    bytes: Vec<u8>,
}

/// What is to be sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub news: Frames,
    /// Behind the news goes a snapshot as of this number.
    pub snapshot: Option<u64>,
}

impl Outbox {
    /// An empty outbox whose first item will have number 1.
    pub fn new(bounds: Bounds) -> Self {
        Self::behind(bounds, 0)
    }

    fn behind(bounds: Bounds, number: u64) -> Self {
        let end = Mark { number, at: 0 };
        let sheets = VecDeque::new();
        Self {
            bounds,
            restored: number,
            sheets,
            blank: Vec::new(),
            base: end,
            arrived: end,
            sent: end,
            end,
            open: false,
            snapshot_due: false,
        }
    }

    /// An outbox as it was: this news is kept, and the last of it has number `last`.
    pub fn restore(bounds: Bounds, last: u64, news: &Frames) -> Self {
        let mut outbox =
            Self { restored: last, ..Self::behind(bounds, last - frames::pieces(news.bytes()).count() as u64) };
        frames::pieces(news.bytes()).for_each(|piece| outbox.add(|out| out.extend_from_slice(piece)));
        outbox
    }

    /// The number of the last item that was made.
    pub fn last(&self) -> u64 {
        self.end.number
    }

    /// The number before that of the first item that is kept.
    pub fn base(&self) -> u64 {
        self.base.number
    }

    /// What is kept of what comes behind that number, in order and in pieces.
    pub fn kept_behind(&self, number: u64) -> impl Iterator<Item = &[u8]> {
        let from = self.mark(number).max(self.base);
        let first = self.sheets.partition_point(|sheet| sheet.end_at() <= from.at);
        self.sheets.range(first..).map(move |sheet| &sheet.bytes[from.at.saturating_sub(sheet.begin.at) as usize..])
    }

    /// Everything that is kept.
    pub fn kept(&self) -> Frames {
        self.kept_behind(0).collect()
    }

    /// How much is kept.
    pub fn bytes(&self) -> usize {
        (self.end.at - self.base.at) as usize
    }

    /// Numbers an item and keeps it.
    pub fn push(&mut self, mut item: Item) {
        *item.seq() = self.end.number + 1;
        self.add(|out| {
            if item.append_to(out).is_err() {
                // It cannot be sent. Its number must not be missing, or nothing behind it would count.
                let _ = Item::Error(item.in_its_place()).append_to(out); // short, so it fits
            }
        });
        if self.bytes() > self.bounds.kept {
            self.collapse();
        }
    }

    /// Numbers a change of a node and keeps it.
    pub fn push_change(&mut self, change: BorrowedChange<'_>) {
        let change = BorrowedChange { seq: self.end.number + 1, ..change };
        self.add(|out| {
            if append_one(out, &change).is_err() {
                let reason = "the reason is too long to be told";
                let _ = append_one(out, &BorrowedChange { reason, ..change }); // names are short, so it fits
            }
        });
        if self.bytes() > self.bounds.kept {
            self.collapse();
        }
    }

    /// Keeps one more frame, which `append` writes.
    fn add(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let sheet = match self.sheets.back_mut() {
            Some(sheet) if sheet.bytes.len() < SHEET => sheet,
            last => {
                // Who has filled one is likely to fill the next.
                let room = if last.is_some() { SHEET + SHEET / 16 } else { 0 };
                let bytes = self.blank.pop().unwrap_or_else(|| Vec::with_capacity(room));
                self.sheets.push_back(Sheet { begin: self.end, bytes });
                self.sheets.back_mut().expect("the sheet that was just begun")
            }
        };
        append(&mut sheet.bytes);
        self.end = Mark { number: self.end.number + 1, at: sheet.end_at() };
    }

    /// A new link: nothing is under way on it, and nothing goes out before the controller says what it has.
    pub fn link_up(&mut self) {
        self.open = false;
        (self.arrived, self.sent) = (self.base, self.base);
    }

    /// There is no link.
    pub fn link_down(&mut self) {
        self.link_up();
    }

    /// Everything up to `seq` has arrived, and up to `kept` it need not be kept here any more. The first word of this
    /// kind on a link opens it. False, and nothing happens, if more arrived on a link than was told on it.
    pub fn received(&mut self, seq: u64, kept: u64) -> bool {
        // No agent has told as much as the largest numbers: those that leave no room for others are nobody's.
        if seq > self.last() && (self.open || seq >= u64::MAX / 2) {
            return false;
        }
        if seq > self.last() {
            self.resume_behind(seq);
        }
        self.arrived = self.mark(seq).max(self.arrived);
        self.sent = self.sent.max(self.arrived); // on an earlier link
        // Nothing can be kept there that has not arrived.
        self.base = self.mark(kept).min(self.arrived).max(self.base);
        self.let_go();
        if !self.open {
            (self.open, self.snapshot_due) = (true, true);
        }
        true
    }

    /// The controller has heard more than is known here: an earlier run said what it could not keep. What was made since
    /// then comes behind that, under numbers that are still free; what lies between was told, and is not here to tell again.
    fn resume_behind(&mut self, seq: u64) {
        let made_since: Frames = self.kept_behind(self.restored).collect();
        *self = Self { open: self.open, snapshot_due: self.snapshot_due, ..Self::behind(self.bounds, seq) };
        made_since.iter().filter_map(|frame| Item::read(frame.kind, frame.body)).for_each(|item| self.push(item));
    }

    /// What may go out now, or the first part of it; empty if there is nothing or the window is closed.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch { news: Frames::default(), snapshot: None };
        if !self.open {
            return batch;
        }
        let at = self.sheets.partition_point(|sheet| sheet.end_at() <= self.sent.at);
        if let Some(sheet) = self.sheets.get(at) {
            let limit = self.arrived.at.saturating_add(self.bounds.window as u64);
            let next = match sheet.end_at() <= limit {
                true => self.sheets.get(at + 1).map_or(self.end, |next| next.begin),
                // One item always fits an empty window, however large it is.
                false => sheet.walk(self.sent, |next| {
                    next.at <= limit || self.sent == self.arrived && next.number == self.sent.number + 1
                }),
            };
            batch.news = sheet.between(self.sent, next).into();
            self.sent = next;
        }
        if self.sent == self.end && std::mem::take(&mut self.snapshot_due) {
            batch.snapshot = Some(self.last());
        }
        batch
    }

    /// Whether nothing waits for the window.
    pub fn all_is_sent(&self) -> bool {
        self.open && self.sent == self.end
    }

    /// Lets the sheets go that nobody needs, or uses them again.
    fn let_go(&mut self) {
        let done = self.sheets.partition_point(|sheet| sheet.end_at() <= self.base.at);
        for Sheet { mut bytes, .. } in self.sheets.drain(..done) {
            // A longer one held something that is hardly ever said.
            if self.blank.len() < BLANK && (SHEET..2 * SHEET).contains(&bytes.capacity()) {
                bytes.clear();
                self.blank.push(bytes);
            }
        }
        if self.sheets.is_empty() {
            self.blank = Vec::new();
        }
    }

    /// The place behind that number; the nearest one that is known.
    fn mark(&self, number: u64) -> Mark {
        if number >= self.end.number {
            return self.end;
        }
        let before = self.sheets.partition_point(|sheet| sheet.begin.number <= number);
        let sheet = before.checked_sub(1).and_then(|at| self.sheets.get(at));
        sheet.map_or(self.base, |sheet| sheet.walk(sheet.begin, |next| next.number <= number))
    }

    /// Too much waits: what counts in the end is the latest state of each node, which a snapshot tells.
    fn collapse(&mut self) {
        self.sheets.clear();
        (self.base, self.arrived, self.sent) = (self.end, self.end, self.end);
        self.snapshot_due = true;
    }
}

impl Sheet {
    fn end_at(&self) -> u64 {
        self.begin.at + self.bytes.len() as u64
    }

    /// From that place on this sheet to the last one behind it that may be passed.
    fn walk(&self, from: Mark, may_pass: impl Fn(Mark) -> bool) -> Mark {
        let behind = frames::pieces(&self.bytes[(from.at - self.begin.at) as usize..]);
        let marks = behind.scan(from, |mark, piece| {
            *mark = Mark { number: mark.number + 1, at: mark.at + piece.len() as u64 };
            Some(*mark)
        });
        marks.take_while(|mark| may_pass(*mark)).last().unwrap_or(from)
    }

    fn between(&self, from: Mark, to: Mark) -> &[u8] {
        let place = |mark: Mark| (mark.at - self.begin.at) as usize;
        &self.bytes[place(from)..place(to)]
    }
}

impl Item {
    /// Reads a piece of news back; `None` if it is none.
    pub fn read(kind: u16, body: &[u8]) -> Option<Self> {
        match ToController::decode(kind, body).ok()? {
            ToController::NotifyChange(change) => Some(Self::Change(change)),
            ToController::NotifyError(error) => Some(Self::Error(error)),
            ToController::NotifyLog(log) => Some(Self::Log(log)),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
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

    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Self::Change(change) => append_one(out, change),
            Self::Error(error) => append_one(out, error),
            Self::Log(log) => append_one(out, log),
        }
    }

    /// What is said instead of an item that is too long.
    fn in_its_place(&self) -> NotifyError {
        let (seq, time, instance) = match self {
            Self::Change(NotifyChange { seq, time, instance, .. })
            | Self::Error(NotifyError { seq, time, instance, .. })
            | Self::Log(NotifyLog { seq, time, instance, .. }) => (*seq, *time, instance.clone()),
        };
        NotifyError { seq, time, instance, node: None, msg: "a piece of news was too long to be kept".into() }
    }
}

fn append_one<T: Body>(out: &mut Vec<u8>, body: &T) -> Result<(), FrameError> {
    append(out, T::KIND, T::NAME, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::frame::MAX_FRAME;
    use crate::model::{InstanceName, Timestamp};

    fn log(msg: &str) -> Item {
        let instance = InstanceName::new("i").unwrap();
        Item::Log(NotifyLog { seq: 0, time: Timestamp(0), instance, node: None, msg: msg.into() })
    }

    /// How long one of those is.
    fn length(msg: &str) -> usize {
        let mut bytes = Vec::new();
        log(msg).append_to(&mut bytes).unwrap();
        bytes.len()
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.news.iter().map(|frame| Item::read(frame.kind, frame.body).unwrap().number()).collect()
    }

    fn filled(count: usize, bounds: Bounds) -> Outbox {
        let mut outbox = Outbox::new(bounds);
        (0..count).for_each(|_| outbox.push(log("x")));
        outbox.link_up();
        outbox
    }

    fn nothing() -> Batch {
        Batch { news: Frames::default(), snapshot: None }
    }

    #[test]
    fn nothing_goes_out_before_the_controller_said_what_it_has() {
        let mut outbox = filled(3, Bounds::default());
        assert!(numbers(&outbox.next_batch()).is_empty());
        outbox.received(1, 1);
        let batch = outbox.next_batch();
        assert_eq!(numbers(&batch), [2, 3]);
        assert_eq!(batch.snapshot, Some(3));
        assert_eq!(outbox.next_batch(), nothing());
    }

    #[test]
    fn sheets_are_used_again_while_there_is_news_and_go_with_the_last_of_it() {
        let text = "x".repeat(1000);
        let count = 10 * SHEET / length(&text);
        let mut outbox = Outbox::new(Bounds::default());
        (0..count).for_each(|_| outbox.push(log(&text)));
        let some = count as u64 * 8 / 10;
        outbox.received(some, some);
        assert_eq!(outbox.blank.len(), BLANK, "more of them would hold memory for nobody");
        (0..count).for_each(|_| outbox.push(log(&text)));
        let kept: Vec<_> =
            outbox.kept().iter().map(|frame| Item::read(frame.kind, frame.body).unwrap().number()).collect();
        assert_eq!(kept, (some + 1..=2 * count as u64).collect::<Vec<_>>());
        outbox.received(outbox.last(), outbox.last());
        assert!(outbox.sheets.is_empty() && outbox.blank.capacity() == 0);
    }

    #[test]
    fn what_an_earlier_run_told_and_could_not_keep_takes_no_number_twice() {
        // Up to 10 it was kept, and up to 20 it was told.
        let mut earlier = filled(10, Bounds::default());
        earlier.received(8, 8);
        let mut outbox = Outbox::restore(Bounds::default(), earlier.last(), &earlier.kept());
        outbox.push(log("since"));
        outbox.link_up();
        outbox.received(20, 20);
        let batch = outbox.next_batch();
        assert_eq!((numbers(&batch), batch.snapshot), (vec![21], Some(21)));
        outbox.received(21, 21);
        outbox.push(log("more"));
        assert_eq!(numbers(&outbox.next_batch()), [22]);
        outbox.link_up();
        let kept = outbox.kept();
        assert!(!outbox.received(u64::MAX, u64::MAX));
        assert_eq!(outbox.kept(), kept, "nonsense is not believed, on a new link either");
        outbox.received(21, 21);
        outbox.push(log("still"));
        assert_eq!(numbers(&outbox.next_batch()), [22, 23]);
    }

    #[test]
    fn no_more_can_arrive_on_a_link_than_was_told_on_it() {
        let mut outbox = filled(3, Bounds::default());
        assert!(outbox.received(0, 0));
        outbox.next_batch();
        let before = outbox.clone();
        assert!(!outbox.received(4, 4));
        assert_eq!((outbox.last(), outbox.kept()), (before.last(), before.kept()), "nothing of it is believed");
        assert!(outbox.received(3, 3));
        outbox.push(log("more"));
        assert_eq!(numbers(&outbox.next_batch()), [4], "and nothing is told under another number");
    }

    #[test]
    fn the_window_closes_and_an_acknowledgement_opens_it() {
        let mut outbox = filled(5, Bounds { window: 2 * length("x"), kept: 1 << 20 });
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
    fn one_that_is_longer_than_the_window_goes_out_by_itself() {
        let mut outbox = filled(3, Bounds { window: length("x") - 1, kept: 1 << 20 });
        outbox.received(0, 0);
        assert_eq!(numbers(&outbox.next_batch()), [1]);
        assert_eq!(outbox.next_batch(), nothing());
        outbox.received(1, 0);
        assert_eq!(numbers(&outbox.next_batch()), [2]);
    }

    #[test]
    fn a_window_that_never_closes_lets_all_of_a_sheet_go_at_once() {
        let mut outbox = filled(3, Bounds { window: usize::MAX, kept: usize::MAX });
        outbox.received(1, 1);
        assert_eq!(numbers(&outbox.next_batch()), [2, 3]);
    }

    #[test]
    fn what_has_arrived_opens_the_window_and_stays_until_it_is_kept_there() {
        let mut outbox = filled(6, Bounds { window: 2 * length("x"), kept: 1 << 20 });
        outbox.received(0, 0);
        assert_eq!(numbers(&outbox.next_batch()), [1, 2]);
        outbox.received(2, 0);
        assert_eq!(numbers(&outbox.next_batch()), [3, 4]);
        outbox.received(2, 1);
        assert_eq!((outbox.base(), outbox.kept().iter().count()), (1, 5));
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
    fn much_that_waits_goes_out_sheet_by_sheet_and_the_snapshot_with_the_last() {
        let count = 3 * SHEET / length("x");
        let mut outbox = filled(count, Bounds::default());
        outbox.received(0, 0);
        let mut sent = Vec::new();
        let snapshot = loop {
            let batch = outbox.next_batch();
            assert!(!batch.news.is_empty() && batch.news.bytes().len() < SHEET + length("x"));
            sent.extend(numbers(&batch));
            if let Some(snapshot) = batch.snapshot {
                break snapshot;
            }
        };
        assert_eq!((sent, snapshot), ((1..=count as u64).collect(), count as u64));
        assert_eq!(outbox.next_batch(), nothing());
    }

    #[test]
    fn what_is_acknowledged_at_any_place_is_let_go_and_the_rest_is_whole() {
        let count = 5 * SHEET / length("x") / 2;
        for step in [1, 7, 100, count as u64] {
            let mut outbox = filled(count, Bounds { window: 1000, kept: 1 << 20 });
            let mut expected = 1;
            for kept in (0..=count as u64).step_by(step as usize) {
                outbox.received(kept, kept);
                assert_eq!(outbox.base(), kept);
                let rest: Vec<_> =
                    outbox.kept().iter().map(|frame| Item::read(frame.kind, frame.body).unwrap()).collect();
                assert!(rest.iter().map(Item::number).eq(kept + 1..=count as u64));
                assert_eq!(outbox.bytes(), outbox.kept().bytes().len());
                expected = expected.max(kept + 1);
                for number in numbers(&outbox.next_batch()) {
                    assert_eq!(number, expected, "each once, and in order");
                    expected += 1;
                }
            }
        }
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
        let mut outbox = filled(11, Bounds { window: 1 << 20, kept: 10 * length("x") });
        outbox.received(0, 0);
        let batch = outbox.next_batch();
        assert_eq!(batch, Batch { snapshot: Some(11), ..nothing() });
        outbox.push(log("y"));
        assert_eq!(numbers(&outbox.next_batch()), [12]);
    }

    #[test]
    fn a_piece_of_news_that_is_too_long_is_said_to_be() {
        let mut outbox = filled(1, Bounds::default());
        outbox.push(log(&"x".repeat(MAX_FRAME)));
        outbox.push(log("y"));
        let kept = outbox.kept();
        let kept: Vec<_> = kept.iter().map(|frame| Item::read(frame.kind, frame.body).unwrap()).collect();
        assert!(matches!(&kept[..], [Item::Log(_), Item::Error(_), Item::Log(behind)] if behind.seq == 3));
    }
}

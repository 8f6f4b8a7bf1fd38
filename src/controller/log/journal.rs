//! The controller's hand in the log on disk: gathers what one turn brings, and knows how much is not written yet.

use tokio::sync::oneshot;

use super::record::Borrowed;
use super::thread::{LogThread, Report};
use super::writer::Batch;
use crate::message::client::{Entry, NewsBatch};
use crate::model::InstanceName;

/// How much may wait to be written before agents are asked to wait, too, in bytes.
const FULL: usize = 16 << 20;

/// What comes together until it is handed over.
#[derive(Debug)]
pub struct Gathering {
    batch: Batch,
    /// Whose news the last entry is, by origin.
    last_arrival: Option<(u64, u64)>,
}

impl Gathering {
    /// Begins behind entry `last`.
    pub fn new(last: u64) -> Self {
        Self { batch: Batch { first: last + 1, last, ..Batch::default() }, last_arrival: None }
    }

    /// Notes the next entry.
    pub fn add(&mut self, entry: &Entry) {
        Borrowed::Entry(entry.time, entry.origin, &entry.news).append_to(&mut self.batch.items);
        self.batch.last = entry.cursor.number;
        self.last_arrival = entry.origin;
    }

    /// That much of an instance's news has arrived, and is kept once this is durable.
    pub fn arrived(&mut self, instance: InstanceName, epoch: u64, seq: u64) {
        // Mostly that was the last entry, which says so itself.
        if self.last_arrival != Some((epoch, seq)) {
            Borrowed::Arrived(&instance, epoch, seq).append_to(&mut self.batch.items);
        }
        self.last_arrival = None;
        self.batch.arrived.push((instance, epoch, seq));
    }

    /// What has come together, if anything has.
    pub fn take(&mut self) -> Option<Batch> {
        self.last_arrival = None;
        if self.batch.items.is_empty() {
            return None;
        }
        let next = Batch { first: self.batch.last + 1, last: self.batch.last, ..Batch::default() };
        Some(std::mem::replace(&mut self.batch, next))
    }
}

/// See the module.
pub struct Journal {
    thread: LogThread,
    gathering: Gathering,
    /// Handed over and not written, in bytes.
    waiting: usize,
}

impl Journal {
    /// A hand that goes on behind entry `last`.
    pub fn new(thread: LogThread, last: u64) -> Self {
        Self { thread, gathering: Gathering::new(last), waiting: 0 }
    }

    /// Notes the next entry.
    pub fn add(&mut self, entry: &Entry) {
        self.gathering.add(entry);
    }

    /// That much of an instance's news has arrived: a report tells when it is kept.
    pub fn arrived(&mut self, instance: InstanceName, epoch: u64, seq: u64) {
        self.gathering.arrived(instance, epoch, seq);
    }

    /// Whether anything has come together.
    pub fn has_gathered(&self) -> bool {
        !self.gathering.batch.items.is_empty()
    }

    /// Hands over what has come together.
    pub fn hand_over(&mut self) {
        if let Some(batch) = self.gathering.take() {
            self.waiting += batch.items.len();
            self.thread.keep(batch);
        }
    }

    /// Takes note of what waits no more.
    pub fn heard(&mut self, report: &Report) {
        if let Report::Kept { bytes, .. } | Report::Dropped { bytes, .. } = report {
            self.waiting = self.waiting.saturating_sub(*bytes);
        }
    }

    /// Whether so much waits that agents have to wait, too.
    pub fn is_full(&self) -> bool {
        self.waiting > FULL
    }

    /// What is durable behind number `since`, or the first part of it.
    pub fn read(&self, since: u64) -> oneshot::Receiver<NewsBatch> {
        self.thread.read(since)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.hand_over();
        // After a panic nobody knows whether everything that was told has been handed over.
        if !std::thread::panicking() {
            self.thread.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recall::{self, Checkpoint};
    use super::super::record;
    use super::super::writer::tests::name;
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::message::client::{Cursor, News};
    use crate::model::Timestamp;

    #[test]
    fn news_that_became_no_entry_is_known_to_have_arrived_all_the_same() {
        let mut gathering = Gathering::new(4);
        assert_eq!(gathering.take(), None);
        gathering.add(&entry(5, 7));
        gathering.arrived(name(), 9, 7);
        gathering.arrived(name(), 9, 8);
        let batch = gathering.take().unwrap();
        assert_eq!((batch.first, batch.last), (5, 5));
        assert_eq!(batch.arrived, [(name(), 9, 7), (name(), 9, 8)]);
        assert_eq!(record::items::<record::Item>(&batch.items).count(), 2, "the entry says its own number");
        gathering.add(&entry(6, 9));
        let next = gathering.take().unwrap();
        assert_eq!((next.first, next.last), (6, 6));

        let mut bytes = record::head();
        record::append(&mut bytes, 5, 4, &batch.items);
        let before = Checkpoint { last: 4, ..Checkpoint::default() };
        let reading = recall::read(&bytes, Some(before), u64::MAX).unwrap();
        assert_eq!((reading.checkpoint.last, reading.checkpoint.arrived[&name()].seq), (5, 8));
    }

    fn entry(number: u64, seq: u64) -> Entry {
        let news = NotifyLog { seq, time: Timestamp(0), instance: name(), node: None, msg: String::new() };
        let (cursor, origin) = (Cursor { epoch: 1, number }, Some((9, seq)));
        Entry { cursor, time: Timestamp(0), origin, news: News::Log(news) }
    }
}

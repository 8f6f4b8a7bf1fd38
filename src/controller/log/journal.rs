//! The controller's hand in the log on disk: gathers what one turn brings, and knows how much is not written yet.

use tokio::sync::oneshot;

use super::record::Borrowed;
use super::thread::{LogThread, Report};
use super::writer::Batch;
use crate::message::client::{Entry, News, NewsBatch};
use crate::model::InstanceName;

/// How much may wait to be written before agents are asked to wait, too, in bytes.
const FULL: usize = 16 << 20;

/// See the module.
pub struct Journal {
    thread: LogThread,
    /// What comes next, and is not handed over yet.
    batch: Batch,
    /// Whose news the last entry is, by origin.
    last_arrival: Option<(u64, u64)>,
    /// Handed over and not written, in bytes.
    waiting: usize,
}

impl Journal {
    /// A hand that goes on behind entry `last`.
    pub fn new(thread: LogThread, last: u64) -> Self {
        let batch = Batch { first: last + 1, last, ..Batch::default() };
        Self { thread, batch, last_arrival: None, waiting: 0 }
    }

    /// Notes the next entry.
    pub fn add(&mut self, entry: &Entry) {
        Borrowed::Entry(entry.time, entry.origin, &entry.news).append_to(&mut self.batch.items);
        self.batch.last = entry.cursor.number;
        self.last_arrival = entry.origin.filter(|_| !matches!(entry.news, News::AgentsReady(_)));
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

    /// Hands over what has come together.
    pub fn hand_over(&mut self) {
        self.last_arrival = None;
        if self.batch.items.is_empty() && self.batch.arrived.is_empty() {
            return;
        }
        let next = Batch { first: self.batch.last + 1, last: self.batch.last, ..Batch::default() };
        let batch = std::mem::replace(&mut self.batch, next);
        self.waiting += batch.items.len();
        self.thread.keep(batch);
    }

    /// Takes note of what was written.
    pub fn heard(&mut self, report: &Report) {
        if let Report::Kept { bytes, .. } = report {
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

//! The threads that wait for the disk, so that no actor does: one writes, one reads.
//!
//! Whatever was handed over during one write goes into the next, in one piece. What cannot be written is kept and tried
//! again after a pause, and nobody is told that it is durable meanwhile.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::reader::Reader;
use super::volume::Volume;
use super::writer::{Batch, Writer};
use crate::message::client::NewsBatch;
use crate::model::{InstanceName, Timestamp};
use crate::supervisor::process::memory;

/// How long not to try again what failed.
const AGAIN: Duration = Duration::from_secs(2);
/// What is written at once at most, in bytes, so that a segment is not much longer than it should be.
const AT_ONCE: usize = 1 << 20;
/// How much may wait to be written, in bytes. More comes only where the disk has failed for long. Then the oldest news of
/// the controller's own is dropped: it is missing in the log, which readers are told.
const WAITING: usize = 128 << 20;
/// Memory is given back after more than this was written, in bytes, once nothing has come for a while. While much comes it
/// is needed again at once, and giving it back holds up everybody else.
const MUCH: usize = 256 << 10;
const WHILE: Duration = Duration::from_secs(1);

/// What became of what was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Everything up to entry `last` is durable, unless it was dropped; that took `bytes` of items.
    Kept { last: u64, bytes: usize, arrived: Vec<(InstanceName, u64, u64)> },
    /// Some entries, of which number `last` is the last, will never be written; they took `bytes` of items.
    Dropped { last: u64, bytes: usize },
    /// Nothing can be written, for this reason. It is tried again, and told once.
    Failed(String),
    /// Everything that waited is written, but for so many entries that were dropped.
    Works { dropped: u64 },
    /// These entries, first and last, were kept, and somebody removed them.
    Gone { first: u64, last: u64 },
}

enum Order {
    Keep(Batch),
    /// Write that the log ends in order, if all of it is written.
    Close,
}

struct Request {
    since: u64,
    answer: oneshot::Sender<NewsBatch>,
}

/// Both threads; dropping it waits until everything handed over is written, or cannot be.
pub struct LogThread {
    /// `None` only while it is dropped.
    orders: Option<Sender<Order>>,
    requests: Option<Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
}

impl LogThread {
    /// Starts both; `pending` is written before anything else. Fails where the system has no thread left.
    pub fn start<V: Volume>(writer: Writer<V>, pending: Vec<Batch>) -> io::Result<(Self, UnboundedReceiver<Report>)> {
        let (orders, inbox) = mpsc::channel();
        let (requests, asked) = mpsc::channel();
        let (tell, told) = unbounded_channel();
        let mut reader = Reader::new(writer.volume().for_reading(), writer.index().clone());
        let writes = move || Desk::new(writer, pending, tell).work(&inbox);
        let reads = move || {
            for Request { since, answer } in asked {
                let _ = answer.send(reader.read(since)); // whoever asked may have gone
            }
        };
        let threads = vec![
            thread::Builder::new().name("log".into()).spawn(writes)?,
            thread::Builder::new().name("log-reader".into()).spawn(reads)?,
        ];
        Ok((Self { orders: Some(orders), requests: Some(requests), threads }, told))
    }

    /// Hands a batch over. Never blocks; a [`Report`] tells when it is durable.
    pub fn keep(&self, batch: Batch) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order::Keep(batch)); // a thread that panicked reports nothing as kept any more
        }
    }

    /// What is durable behind number `since`, or the first part of it. Ends without an answer if the thread is gone.
    pub fn read(&self, since: u64) -> oneshot::Receiver<NewsBatch> {
        let (answer, answered) = oneshot::channel();
        if let Some(requests) = &self.requests {
            let _ = requests.send(Request { since, answer }); // the end of the answer says so
        }
        answered
    }

    /// Ends the log in order.
    pub fn close(&self) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order::Close); // as above
        }
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        drop((self.orders.take(), self.requests.take()));
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there was printed there
        }
    }
}

/// What the writing thread has before it.
struct Desk<V> {
    writer: Writer<V>,
    waiting: VecDeque<Batch>,
    /// Of what waits, in bytes.
    bytes: usize,
    tell: UnboundedSender<Report>,
    /// When writing failed last, of which the controller was told.
    failed: Option<Instant>,
    /// How many entries were dropped since everything was written.
    dropped: u64,
    /// When the oldest segment is too old.
    stale: Option<Instant>,
    /// Written since memory was given back last, in bytes.
    untidy: usize,
}

impl<V: Volume> Desk<V> {
    fn new(writer: Writer<V>, pending: Vec<Batch>, tell: UnboundedSender<Report>) -> Self {
        let bytes = pending.iter().map(|batch| batch.items.len()).sum();
        Self { writer, waiting: pending.into(), bytes, tell, failed: None, dropped: 0, stale: None, untidy: 0 }
    }

    fn work(mut self, inbox: &Receiver<Order>) {
        self.write();
        self.drop_old();
        loop {
            let is_open = match self.next(inbox) {
                Ok(Some(first)) => {
                    self.take(first);
                    inbox.try_iter().for_each(|order| self.take(order));
                    true
                }
                Ok(None) => {
                    if std::mem::take(&mut self.untidy) > MUCH {
                        memory::give_back();
                    }
                    true
                }
                Err(()) => false,
            };
            if self.failed.is_none_or(|at| at.elapsed() >= AGAIN) || !is_open {
                self.write();
            }
            if self.stale.is_some_and(|at| at <= Instant::now()) {
                self.drop_old();
            }
            if !is_open {
                return;
            }
        }
    }

    /// Waits for an order, or until something else is to be done.
    fn next(&self, inbox: &Receiver<Order>) -> Result<Option<Order>, ()> {
        let again = self.failed.map(|at| at + AGAIN);
        let tidy = (self.untidy > MUCH).then(|| Instant::now() + WHILE);
        let until = again.into_iter().chain(self.stale).chain(tidy).min();
        let Some(until) = until else { return inbox.recv().map(Some).map_err(drop) };
        match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(order) => Ok(Some(order)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Keep(batch) => {
                self.bytes += batch.items.len();
                self.waiting.push_back(batch);
                self.drop_what_cannot_wait();
            }
            Order::Close => {
                self.write();
                if self.waiting.is_empty()
                    && let Err(error) = self.writer.close()
                {
                    tracing::warn!(
                        "the log cannot be closed in order, and begins a new epoch at the next start: {error}"
                    );
                }
            }
        }
    }

    /// A disk that fails for long must not cost more and more memory.
    ///
    /// What agents told stays: they could not tell it again behind what they told later. How much it is their windows bound.
    fn drop_what_cannot_wait(&mut self) {
        while self.bytes > WAITING {
            let Some(at) = self.waiting.iter().position(can_be_dropped) else { return };
            let Some(Batch { first, last, items, .. }) = self.waiting.remove(at) else { return };
            if self.dropped == 0 {
                tracing::error!("too much waits to be written to the log: from entry {first} on some are dropped");
            }
            self.dropped += last - first + 1;
            self.bytes -= items.len();
            self.tell(Report::Dropped { last, bytes: items.len() });
        }
    }

    /// Writes what waits, a group at a time, as far as that goes.
    fn write(&mut self) {
        self.untidy += self.bytes;
        while !self.waiting.is_empty() {
            let mut bytes = 0;
            let group = self.waiting.iter().take_while(|batch| {
                let fits = bytes == 0 || bytes + batch.items.len() <= AT_ONCE;
                bytes += batch.items.len().max(1);
                fits
            });
            let count = group.count();
            let group: Vec<_> = self.waiting.drain(..count).collect();
            if let Err(error) = self.writer.write(&group) {
                group.into_iter().rev().for_each(|batch| self.waiting.push_front(batch));
                if self.failed.replace(Instant::now()).is_none() {
                    self.tell(Report::Failed(format!("{error}, in {}", self.writer.volume().name())));
                }
                return;
            }
            self.done(group);
        }
        if let Some((first, last)) = self.writer.take_gone() {
            self.tell(Report::Gone { first, last });
        }
        let dropped = std::mem::take(&mut self.dropped);
        if self.failed.take().is_some() || dropped > 0 {
            self.tell(Report::Works { dropped });
        }
    }

    fn done(&mut self, group: Vec<Batch>) {
        let last = group.last().map_or(0, |batch| batch.last);
        let bytes = group.iter().map(|batch| batch.items.len()).sum();
        self.bytes -= bytes;
        let arrived = group.into_iter().flat_map(|batch| batch.arrived).collect();
        self.tell(Report::Kept { last, bytes, arrived });
    }

    fn drop_old(&mut self) {
        let due = self.writer.drop_old(Timestamp::now());
        // A clock that has been set must not make this a busy wait, and what never gets too old has no such moment.
        self.stale = due.and_then(|due| Instant::now().checked_add(due.max(Duration::from_secs(1))));
    }

    fn tell(&self, report: Report) {
        let _ = self.tell.send(report); // a controller that is gone need not know
    }
}

/// Whether nothing but entries of the controller's own is in it: who begins an epoch or tells what arrived, has to be heard.
fn can_be_dropped(batch: &Batch) -> bool {
    batch.arrived.is_empty() && batch.first <= batch.last
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tempfile::TempDir;

    use super::super::Bounds;
    use super::super::memory_volume::{Failure, MemoryVolume};
    use super::super::record::Borrowed;
    use super::super::volume::{Directory, Held};
    use super::super::writer::tests::{batch, bounds, name, open};
    use super::*;

    /// A volume that says when it is asked to append, and does so when it is told to.
    struct Slow {
        volume: MemoryVolume,
        begun: Sender<()>,
        go_on: Arc<Mutex<Receiver<()>>>,
    }

    impl Volume for Slow {
        fn list(&self) -> io::Result<Vec<Held>> {
            self.volume.list()
        }
        fn read(&self, segment: u64, from: u64, most: u64) -> io::Result<Vec<u8>> {
            self.volume.read(segment, from, most)
        }
        fn create(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
            self.volume.create(segment, bytes)
        }
        fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
            self.begun.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
            self.volume.append(segment, bytes)
        }
        fn cut(&mut self, segment: u64, length: u64) -> io::Result<()> {
            self.volume.cut(segment, length)
        }
        fn remove(&mut self, segment: u64) -> io::Result<()> {
            self.volume.remove(segment)
        }
        fn set_aside(&mut self, segment: u64) -> io::Result<()> {
            self.volume.set_aside(segment)
        }
        fn for_reading(&self) -> Self {
            Self { volume: self.volume.clone(), begun: self.begun.clone(), go_on: Arc::clone(&self.go_on) }
        }
        fn name(&self) -> String {
            self.volume.name()
        }
    }

    fn next(told: &mut UnboundedReceiver<Report>) -> Report {
        told.blocking_recv().expect("a thread that lives")
    }

    fn kept(last: u64, bytes: usize, each: &[u64]) -> Report {
        Report::Kept { last, bytes, arrived: each.iter().map(|seq| (name(), 9, *seq)).collect() }
    }

    #[test]
    fn what_comes_while_the_disk_is_busy_is_made_durable_at_once_and_reading_goes_on_meanwhile() {
        let ((begun, writes), (finish, go_on)) = (mpsc::channel(), mpsc::channel());
        let volume = MemoryVolume::default();
        let slow = Slow { volume: volume.clone(), begun, go_on: Arc::new(Mutex::new(go_on)) };
        let writer = Writer::open(slow, bounds(1 << 20), 7, Timestamp(0)).unwrap().writer;
        let before = volume.writes();
        let (thread, mut told) = LogThread::start(writer, Vec::new()).unwrap();
        let batches = [batch(0, 1), batch(1, 1), batch(2, 1)];
        let sizes = batches.each_ref().map(|batch| batch.items.len());
        let [first, second, third] = batches;
        thread.keep(first);
        writes.recv().unwrap();
        thread.keep(second);
        thread.keep(third);
        assert_eq!(thread.read(0).blocking_recv().unwrap().entries.len(), 0, "nobody waits, and nothing is durable");
        finish.send(()).unwrap();
        assert_eq!(next(&mut told), kept(1, sizes[0], &[1]));
        writes.recv().unwrap();
        finish.send(()).unwrap();
        assert_eq!(next(&mut told), kept(3, sizes[1] + sizes[2], &[2, 3]));
        assert_eq!(volume.writes() - before, 2);
        assert_eq!(thread.read(0).blocking_recv().unwrap().entries.len(), 3);
    }

    #[test]
    fn a_disk_that_fails_is_told_once_and_nothing_is_kept_before_it_works_again() {
        let volume = MemoryVolume::default();
        let (thread, mut told) = LogThread::start(open(&volume, bounds(1 << 20), 7).writer, Vec::new()).unwrap();
        volume.fail(Some(Failure::Full(10)));
        let batches = [batch(0, 1), batch(1, 1)];
        let bytes = batches.iter().map(|batch| batch.items.len()).sum();
        let [first, second] = batches;
        thread.keep(first);
        let Report::Failed(why) = next(&mut told) else { panic!("it failed") };
        assert!(why.ends_with(&format!(", in {}", volume.name())), "{why}");
        thread.keep(second);
        volume.fail(None);
        assert_eq!(next(&mut told), kept(2, bytes, &[1, 2]), "all in one piece, as soon as it works");
        assert_eq!(next(&mut told), Report::Works { dropped: 0 });
        thread.close();
        drop(thread);
        let opened = open(&volume, bounds(1 << 20), 8);
        assert_eq!((opened.epochs, opened.last), (vec![(7, 1)], 2));
    }

    #[test]
    fn of_what_waits_for_too_long_the_oldest_of_the_controllers_own_is_dropped_and_told() {
        let volume = MemoryVolume::default();
        let (tell, mut told) = unbounded_channel();
        let mut items = Vec::new();
        Borrowed::Began(8).append_to(&mut items);
        let begins = Batch { first: 1, last: 0, items, arrived: Vec::new() };
        let writer = open(&volume, bounds(1 << 20), 7).writer;
        let mut desk = Desk::new(writer, vec![begins.clone()], tell);
        let agents = batch(0, 1);
        let own = |last: u64| Batch { items: vec![0; WAITING / 4], arrived: Vec::new(), ..batch(last, 1) };
        desk.take(Order::Keep(agents.clone()));
        (1..5).for_each(|last| desk.take(Order::Keep(own(last))));
        assert_eq!(told.try_recv().unwrap(), Report::Dropped { last: 2, bytes: WAITING / 4 });
        assert!(told.try_recv().is_err() && desk.bytes <= WAITING);
        let waiting: Vec<_> = desk.waiting.iter().map(|batch| (batch.first, batch.last)).collect();
        assert_eq!(waiting, [(1, 0), (1, 1), (3, 3), (4, 4), (5, 5)]);

        let small = desk
            .waiting
            .split_off(2)
            .into_iter()
            .map(|large| Batch { arrived: Vec::new(), ..batch(large.last - 1, 1) });
        desk.waiting.extend(small.collect::<Vec<_>>());
        desk.bytes = desk.waiting.iter().map(|batch| batch.items.len()).sum();
        let bytes = desk.bytes;
        desk.write();
        assert_eq!(told.try_recv().unwrap(), kept(5, bytes, &[1]));
        assert_eq!(told.try_recv().unwrap(), Report::Works { dropped: 1 });
        let read = Reader::new(volume.clone(), desk.writer.index().clone()).read(1);
        assert_eq!(read.gap.map(|gap| (gap.first.number, gap.last.number)), Some((2, 2)));
        let opened = open(&volume, bounds(1 << 20), 9);
        assert_eq!(opened.epochs, [(7, 1), (8, 1), (9, 6)], "the epoch is not lost");
        let notes = opened.recalled.notes;
        assert!(notes.iter().all(|note| !note.contains("damaged")), "what was dropped is no damage: {notes:?}");
    }

    #[test]
    fn a_log_that_is_removed_while_it_is_written_goes_on_in_its_place_and_forgets_nothing_of_what_it_came_to() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("log");
        let writer = |fresh| Writer::open(Directory::open(&path).unwrap(), bounds(1 << 20), fresh, Timestamp(0));
        let index = {
            let opened = writer(7).unwrap();
            let index = opened.writer.index().clone();
            let (thread, mut told) = LogThread::start(opened.writer, Vec::new()).unwrap();
            thread.keep(batch(0, 3));
            assert!(matches!(next(&mut told), Report::Kept { last: 3, .. }));
            std::fs::remove_dir_all(&path).unwrap();
            thread.keep(Batch { arrived: Vec::new(), ..batch(3, 2) });
            let Report::Failed(why) = next(&mut told) else { panic!("it is not there") };
            assert!(why.contains("somebody removed or moved it"), "{why}");
            assert!(matches!(next(&mut told), Report::Kept { last: 5, .. }), "as soon as it is tried again");
            assert_eq!(next(&mut told), Report::Gone { first: 1, last: 3 });
            assert_eq!(next(&mut told), Report::Works { dropped: 0 });
            let read = thread.read(0).blocking_recv().unwrap();
            assert_eq!(read.gap.map(|gap| (gap.first.number, gap.last.number)), Some((1, 3)));
            assert_eq!(read.entries.len(), 2);
            thread.close();
            index
        };
        assert_eq!(index.lock().segments.keys().copied().collect::<Vec<_>>(), [4]);
        let again = writer(8).unwrap();
        assert_eq!((again.epochs, again.last), (vec![(7, 1)], 5), "it ended in order");
        assert_eq!(again.recalled.arrived, [(name(), (9, 5))].into());
    }

    #[test]
    fn a_log_may_be_kept_for_ever() {
        let volume = MemoryVolume::default();
        let bounds = Bounds { age: Duration::MAX, ..bounds(100) };
        let (tell, _told) = unbounded_channel();
        let mut desk = Desk::new(open(&volume, bounds, 7).writer, Vec::new(), tell);
        for last in 0..20 {
            desk.take(Order::Keep(batch(last, 1)));
            desk.write();
        }
        assert!(volume.list().unwrap().len() > 1);
        desk.drop_old();
        assert_eq!(desk.stale, None);
    }

    #[test]
    fn a_log_that_could_not_be_written_at_its_end_begins_an_epoch_at_the_next_start() {
        let volume = MemoryVolume::default();
        let (thread, mut told) = LogThread::start(open(&volume, bounds(1 << 20), 7).writer, Vec::new()).unwrap();
        volume.fail(Some(Failure::Unsure));
        thread.keep(batch(0, 1));
        assert!(matches!(next(&mut told), Report::Failed(_)));
        thread.close();
        drop(thread);
        volume.fail(None);
        let opened = open(&volume, bounds(1 << 20), 8);
        assert_eq!(opened.epochs.last().unwrap().0, 8);
    }
}

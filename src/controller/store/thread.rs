//! The thread that waits for the disk, so that no actor does.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Save, Store, StoreError};
use crate::supervisor::process::memory;

/// How many orders may wait. A deployment saves a handful of times, so more means that the disk does not answer.
const QUEUE: usize = 256;

/// Memory is given back once nothing has come for this long: it holds up everybody who needs some meanwhile.
const WHILE: Duration = Duration::from_secs(1);

/// Looks something up, and hands it on.
type Reading = Box<dyn FnOnce(&dyn Store) + Send>;

/// What the thread is asked for.
enum Order {
    Save(Changes),
    Read(Reading),
}

/// Changes that belong together, and who wants to know what came of them.
struct Changes {
    changes: Vec<Save>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Writes to a store from a thread of its own; dropping it waits until everything handed over is written.
///
/// Everything that arrives during one commit goes into the next, in order.
pub struct StoreThread {
    /// `None` only while it is dropped.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl StoreThread {
    /// Starts the thread, which owns `store` from here on. Fails where the system has no thread left.
    pub fn start(store: impl Store + 'static) -> io::Result<Self> {
        let (orders, inbox) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name("store".into()).spawn(move || write_all(store, &inbox))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Saves `changes`, all or none; the answer comes when they are durable. Never blocks.
    ///
    /// A receiver that ends without an answer means that the thread is gone, as [`StoreError::Stopped`] does.
    pub fn save(&self, changes: Vec<Save>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        let refused = match self.give(Order::Save(Changes { changes, done })) {
            Ok(()) => return answer,
            Err(refused) => refused,
        };
        if let (Order::Save(Changes { done, .. }), error) = refused {
            answer_one(done, Err(error));
        }
        answer
    }

    /// Looks something up behind everything that was to be saved before. Never blocks; the answer may take a while.
    pub fn read<T: Send + 'static>(
        &self,
        look_up: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (done, mut answer) = oneshot::channel();
        let read = Order::Read(Box::new(move |store| {
            let _ = done.send(look_up(store)); // whoever asked may have gone
        }));
        if let Err((_, error)) = self.give(read) {
            let (done, refused) = oneshot::channel();
            let _ = done.send(Err(error)); // it is heard below
            answer = refused;
        }
        answer
    }

    fn give(&self, order: Order) -> Result<(), (Order, StoreError)> {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) | None => Ok(()), // dropped as it is, it answers nobody
            Some(Err(TrySendError::Full(order))) => Err((order, StoreError::Busy { waiting: QUEUE })),
            Some(Err(TrySendError::Disconnected(order))) => Err((order, StoreError::Stopped)),
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        drop(self.orders.take());
        // A panic there was printed there, and whoever waited for an answer was told by its end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Commits what waits, group after group, until nobody can send more.
fn write_all(mut store: impl Store, inbox: &Receiver<Order>) {
    let mut untidy = false;
    loop {
        let first = match untidy {
            true => inbox.recv_timeout(WHILE),
            false => inbox.recv().map_err(RecvTimeoutError::from),
        };
        let first = match first {
            Ok(first) => first,
            // What was decoded, checked, planned and encoded by now is many times what is kept of it.
            Err(RecvTimeoutError::Timeout) => {
                memory::give_back();
                untidy = false;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (mut changes, mut waiting, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for order in std::iter::once(first).chain(inbox.try_iter().take(QUEUE)) {
            match order {
                Order::Save(order) => {
                    changes.extend(order.changes);
                    waiting.push(order.done);
                }
                Order::Read(read) => reads.push(read),
            }
        }
        untidy = true;
        if !waiting.is_empty() {
            let result = store.save(&changes);
            drop(changes);
            waiting.into_iter().for_each(|done| answer_one(done, result.clone()));
        }
        reads.into_iter().for_each(|read| read(&store));
    }
}

/// Whoever asked may have stopped listening; what was saved stays saved.
fn answer_one(done: oneshot::Sender<Result<(), StoreError>>, result: Result<(), StoreError>) {
    let _ = done.send(result);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};
    use std::sync::{Arc, Mutex};

    use super::super::tests::{change, configuration, deployment};
    use super::super::{MemoryStore, Slot, Stored};
    use super::*;
    use crate::controller::kept::Kept;
    use crate::model::Record;

    /// Tells when a commit begins, and ends it when told to.
    struct SlowStore {
        begun: Sender<()>,
        go_on: Receiver<Result<(), StoreError>>,
        groups: Arc<Mutex<Vec<usize>>>,
    }

    impl Store for SlowStore {
        fn load(&self) -> Result<Stored, StoreError> {
            Ok(Stored::default())
        }
        fn save(&mut self, changes: &[Save]) -> Result<(), StoreError> {
            self.groups.lock().unwrap().push(changes.len());
            self.begun.send(()).unwrap();
            self.go_on.recv().unwrap()
        }
        fn history(&self) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }
        fn tried(&self, _: u64) -> Result<Option<Kept>, StoreError> {
            Ok(None)
        }
    }

    #[test]
    fn dropping_it_waits_until_everything_is_written() {
        let store = MemoryStore::default();
        let thread = StoreThread::start(store.clone()).unwrap();
        for id in 0..100 {
            drop(thread.save(vec![change(Slot::Deployed, &id.to_string())]));
        }
        drop(thread);
        assert_eq!(store.load().unwrap().deployed, Some(configuration(&change(Slot::Deployed, "99"))));
    }

    #[test]
    fn what_arrives_during_a_commit_goes_into_the_next_one() {
        let ((begun, commits), (finish, go_on)) = (mpsc::channel(), mpsc::channel());
        let groups = Arc::new(Mutex::new(Vec::new()));
        let thread = StoreThread::start(SlowStore { begun, go_on, groups: groups.clone() }).unwrap();
        let first = thread.save(vec![change(Slot::Staged, "1")]);
        commits.recv().unwrap();
        let rest: Vec<_> = (0..3).map(|_| thread.save(vec![change(Slot::Staged, "2")])).collect();
        finish.send(Ok(())).unwrap();
        assert!(first.blocking_recv().unwrap().is_ok());
        commits.recv().unwrap();
        finish.send(Err(StoreError::Stopped)).unwrap();
        for answer in rest {
            assert!(matches!(answer.blocking_recv().unwrap(), Err(StoreError::Stopped)));
        }
        assert_eq!(*groups.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn what_is_looked_up_is_as_it_was_saved_before() {
        let thread = StoreThread::start(MemoryStore::default()).unwrap();
        (1..=3).for_each(|number| drop(thread.save(vec![deployment(number)])));
        let history = thread.read(|store| store.history()).blocking_recv().unwrap().unwrap();
        assert_eq!(history.len(), 3);
    }

    #[test]
    fn a_full_queue_is_refused_at_once() {
        let ((begun, commits), (finish, go_on)) = (mpsc::channel(), mpsc::channel());
        let thread = StoreThread::start(SlowStore { begun, go_on, groups: Arc::default() }).unwrap();
        let first = thread.save(Vec::new());
        commits.recv().unwrap();
        let waiting: Vec<_> = (0..QUEUE).map(|_| thread.save(Vec::new())).collect();
        let refused = thread.save(Vec::new()).blocking_recv().unwrap();
        assert!(matches!(refused, Err(StoreError::Busy { waiting: QUEUE })), "{refused:?}");
        finish.send(Ok(())).unwrap();
        finish.send(Ok(())).unwrap();
        for answer in [first].into_iter().chain(waiting) {
            assert!(answer.blocking_recv().unwrap().is_ok());
        }
    }

    #[test]
    fn a_store_that_panics_ends_the_answers_and_not_the_caller() {
        struct Panics;
        impl Store for Panics {
            fn load(&self) -> Result<Stored, StoreError> {
                Ok(Stored::default())
            }
            fn save(&mut self, _: &[Save]) -> Result<(), StoreError> {
                panic!("as the test wants it")
            }
            fn history(&self) -> Result<Vec<Record>, StoreError> {
                Ok(Vec::new())
            }
            fn tried(&self, _: u64) -> Result<Option<Kept>, StoreError> {
                Ok(None)
            }
        }
        let thread = StoreThread::start(Panics).unwrap();
        assert!(thread.save(Vec::new()).blocking_recv().is_err());
    }
}

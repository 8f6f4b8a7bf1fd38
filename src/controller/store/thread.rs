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

/// Changes that belong together, and who wants to know what came of them.
struct Order {
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
        let order = Order { changes, done };
        let refused = match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => return answer,
            Some(Err(TrySendError::Full(order))) => Some((order, StoreError::Busy { waiting: QUEUE })),
            Some(Err(TrySendError::Disconnected(order))) => Some((order, StoreError::Stopped)),
            None => None,
        };
        if let Some((order, error)) = refused {
            answer_one(order.done, Err(error));
        }
        answer
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
        let (mut changes, mut waiting) = (first.changes, vec![first.done]);
        for order in inbox.try_iter().take(QUEUE) {
            changes.extend(order.changes);
            waiting.push(order.done);
        }
        let result = store.save(&changes);
        drop(changes);
        untidy = true;
        waiting.into_iter().for_each(|done| answer_one(done, result.clone()));
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

    use super::super::tests::change;
    use super::super::{MemoryStore, Slot, Stored};
    use super::*;

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
    }

    #[test]
    fn dropping_it_waits_until_everything_is_written() {
        let store = MemoryStore::default();
        let thread = StoreThread::start(store.clone()).unwrap();
        for id in 0..100 {
            drop(thread.save(vec![change(Slot::Deployed, &id.to_string())]));
        }
        drop(thread);
        assert_eq!(store.load().unwrap().deployed, Some(change(Slot::Deployed, "99").configuration));
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
        }
        let thread = StoreThread::start(Panics).unwrap();
        assert!(thread.save(Vec::new()).blocking_recv().is_err());
    }
}

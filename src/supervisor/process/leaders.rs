//! Which children of ours are nodes' leaders that nobody reaped yet.
//!
//! [`Exits`](super::Exits) reaps leaders, [`tree`](super::tree) reaps strays. Both are children of this process, and a
//! status can be fetched only once; this is how the latter keeps its hands off the former, from before a leader's pid
//! is known until its status was fetched.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Shared by those who bear and bury leaders, exclusive for those who reap strays.
static LEADERS: RwLock<Mutex<BTreeSet<i32>>> = RwLock::new(Mutex::new(BTreeSet::new()));

/// While one exists, no stray is reaped: a child may be born before its pid is known here.
pub(super) struct Cradle(RwLockReadGuard<'static, Mutex<BTreeSet<i32>>>);

impl Cradle {
    pub fn open() -> Self {
        Self(LEADERS.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts the child as a leader from now on.
    pub fn enter(self, pid: Pid) -> Leader {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid.as_raw_pid());
        Leader { pid }
    }

    fn leave(&self, pid: Pid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid.as_raw_pid());
    }
}

/// A child of ours that was not reaped: the kernel gives its number to nobody else.
///
/// Dropped, it becomes a stray like any other.
#[derive(Debug)]
pub(super) struct Leader {
    pid: Pid,
}

impl Leader {
    /// Reaps it by `reap`; gives it back if that fetched nothing.
    pub fn reap<T>(self, reap: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        // The mark goes before the zombie, since afterwards the number may belong to another leader; the cradle keeps
        // strays' reapers out in between.
        let cradle = Cradle::open();
        cradle.leave(self.pid);
        match reap() {
            Some(fetched) => {
                std::mem::forget(self);
                Ok(fetched)
            }
            None => {
                let pid = self.pid;
                std::mem::forget(self);
                Err(cradle.enter(pid))
            }
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        Cradle::open().leave(self.pid);
    }
}

/// While one exists, no leader is born and none reaped: who is one now stays one.
pub(super) struct Census(RwLockWriteGuard<'static, Mutex<BTreeSet<i32>>>);

impl Census {
    /// How long births may go on meanwhile: one of them takes a fraction of a millisecond.
    const PATIENCE: Duration = Duration::from_millis(100);

    /// Blocks until no birth is under way; `None` if that does not come.
    ///
    /// It asks again and again rather than queue for the lock: a writer in the queue would hold up every reader, and one
    /// birth that hangs (a program on a file server that is gone) would then keep all other nodes from being reaped.
    pub fn open() -> Option<Self> {
        let deadline = Instant::now() + Self::PATIENCE;
        loop {
            match LEADERS.try_write() {
                Ok(leaders) => return Some(Self(leaders)),
                Err(TryLockError::Poisoned(leaders)) => return Some(Self(leaders.into_inner())),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        }
    }

    pub fn is_leader(&mut self, pid: Pid) -> bool {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).contains(&pid.as_raw_pid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_that_hangs_keeps_nobody_else_from_being_born() {
        let hanging = Cradle::open();
        let census = std::thread::spawn(|| Census::open().is_none());
        while !census.is_finished() {
            drop(Cradle::open().enter(Pid::INIT));
        }
        assert!(census.join().unwrap(), "no census while one is being born");
        drop(hanging);
    }
}

//! How a thread sleeps to which the kernel tells what becomes of files, and others give orders.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes the one thread that waits by it. A ring that comes before the wait is not lost.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// Makes one that nobody has rung.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes whoever waits, or will.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes()); // one that is full wakes as well
    }

    /// Waits until it rings, `files` has something to tell, or it is so late; or for no reason.
    pub fn wait(&self, files: &OwnedFd, until: Option<Instant>) {
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        doze(&mut [PollFd::new(files, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)], wait);
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// Rests so long, whatever becomes of files, or until it rings. The ring also ends the next wait.
    pub fn rest(&self, time: Duration) {
        doze(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(time));
    }
}

fn doze(ready: &mut [PollFd<'_>], wait: Option<Duration>) {
    // Rounded up, or it would wake a moment too early, again and again.
    let wait = wait.map(|wait| Timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: i64::from((wait.subsec_nanos() + 1).min(999_999_999)),
    });
    let _ = poll(ready, wait.as_ref()); // interrupted: the caller looks around and waits again
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify::{self, CreateFlags};

    use super::*;

    #[test]
    fn a_ring_ahead_of_the_wait_ends_it_and_only_that_one() {
        let (bell, files) =
            (Bell::new().unwrap(), inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap());
        bell.ring();
        bell.ring();
        bell.wait(&files, None);
        let until = Instant::now() + Duration::from_millis(5);
        while Instant::now() < until {
            bell.wait(&files, Some(until));
        }
        bell.ring();
        let began = Instant::now();
        bell.rest(Duration::from_secs(60));
        bell.wait(&files, None);
        assert!(began.elapsed() < Duration::from_secs(30));
        bell.rest(Duration::from_millis(5));
        assert!(began.elapsed() >= Duration::from_millis(5));
    }
}

//! How a thread sleeps to which the kernel tells what becomes of files, and others give orders.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

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
        // Rounded up, or it would wake a moment too early, again and again.
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from((wait.subsec_nanos() + 1).min(999_999_999)),
        });
        let mut ready = [PollFd::new(files, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        let _ = poll(&mut ready, wait.as_ref()); // interrupted: the caller looks around and waits again
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
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
        let until = Instant::now() + std::time::Duration::from_millis(5);
        while Instant::now() < until {
            bell.wait(&files, Some(until));
        }
    }
}

//! Tells that some child of this process ended, be it a node or a stray, and nothing more.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys::signals;

/// Hears of ends for the whole program.
#[derive(Debug)]
pub struct EndedChildren(AsyncFd<OwnedFd>);

impl EndedChildren {
    /// Listens from now on. Must be called within a tokio runtime whose I/O driver is enabled, and ahead of all threads:
    /// one that was there before would swallow the signal. What is started by [`Command`](std::process::Command) afterwards
    /// begins with it held back, unless `let_sigchld_through` is asked for.
    pub fn listen() -> io::Result<Self> {
        #[allow(deprecated, reason = "it is unsound for descriptors that change under it; an OwnedFd never does")]
        let descriptor = AsyncFd::with_interest(signals::open()?, Interest::READABLE)?;
        Ok(Self(descriptor))
    }

    /// Resolves when some have ended since the last time.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut entry = [MaybeUninit::uninit(); signals::ENTRY];
        loop {
            match rustix::io::read(&self.0, &mut entry) {
                Ok((news, _)) if !news.is_empty() => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => break, // that was all
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::let_sigchld_through;
    use super::*;

    #[tokio::test]
    async fn what_is_started_begins_with_the_signal_held_back_unless_it_is_let_through() {
        let _children = EndedChildren::listen().unwrap();
        let mut grep = Command::new("grep");
        grep.args(["SigBlk", "/proc/self/status"]);
        assert!(is_held_back(&said_by(&mut grep)));
        assert!(!is_held_back(&said_by(let_sigchld_through(&mut grep))));
    }

    fn said_by(command: &mut Command) -> String {
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    fn is_held_back(line: &str) -> bool {
        let blocked = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        blocked >> (libc::SIGCHLD - 1) & 1 == 1
    }
}

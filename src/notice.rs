//! Sleeps until something changes in a directory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use rustix::fs::inotify::WatchFlags;

/// Changes of one directory, from the moment it was made on.
pub(crate) struct Notice {
    watch: AsyncFd<OwnedFd>,
}

impl Notice {
    /// Notices these changes of `directory`. Call it in a tokio runtime.
    pub fn of(directory: &Path, changes: WatchFlags) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, directory, changes)?;
        #[allow(deprecated, reason = "it is unsound for descriptors that change under it; an OwnedFd never does")]
        let watch = AsyncFd::with_interest(watch, Interest::READABLE)?;
        Ok(Self { watch })
    }

    /// Resolves when there was a change since the last time. What it was matters less than what is there now, so all that
    /// has come together is one change.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.watch.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while rustix::io::read(&self.watch, &mut buffer).is_ok_and(|(news, _)| !news.is_empty()) {}
        ready.clear_ready();
        Ok(())
    }
}

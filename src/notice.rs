//! Sleeps until something changes in a directory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::warn;

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

/// Where nobody says that something changed, it is looked at this often.
const WITHOUT_NOTICE: Duration = Duration::from_secs(1);

/// Calls `look` now, and whenever a file in the directory was written or replaced, or the directory itself, for as long
/// as the future is polled.
pub(crate) async fn heed(directory: impl Fn() -> PathBuf, look: impl Fn()) {
    let mut is_blind = false;
    loop {
        // Each time anew: the directory itself may be another by now.
        let directory = directory();
        let notice = Notice::of(&directory, replaced());
        look();
        let noticed = match notice {
            Ok(mut notice) => notice.changed().await,
            Err(error) => Err(error),
        };
        match noticed {
            Ok(()) => is_blind = false,
            Err(error) => {
                // A directory that is being replaced is away for a moment, and who looks says that its files are.
                if !is_blind && error.kind() != io::ErrorKind::NotFound {
                    let directory = directory.display();
                    warn!("nobody notices at once if {directory} changes, it is looked at every second: {error}");
                    is_blind = true;
                }
                sleep(WITHOUT_NOTICE).await;
            }
        }
    }
}

/// Files that are written or replaced, and a directory that is.
fn replaced() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::MOVE_SELF
        | WatchFlags::DELETE_SELF
}

//! Notices that a state directory was taken away from under its daemon.
//!
//! The daemon lives on, for the sake of what it minds: an agent without its records would not know its own nodes after a
//! restart. But it says so, once and at once, since what can be lost is lost only when it ends.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use tracing::{debug, error};

use super::StateDir;
use crate::notice::{Notice, WatchFlags};

impl StateDir {
    /// Logs an error once the directory is gone, or another one stands in its place. Sleeps until then.
    pub fn watch(&self) {
        let path = self.path.clone();
        let gone = self.gone();
        actix_rt::spawn(async move {
            match gone.await {
                Ok(()) => error!(
                    "the state directory {} is gone: what is to survive this process does not any more; make it possible \
                     to keep state there again, and then restart this process",
                    path.display()
                ),
                Err(error) => debug!("nobody notices if the state directory goes: {error}"),
            }
        });
    }

    fn gone(&self) -> impl Future<Output = io::Result<()>> + use<> {
        let (path, lock) = (self.path.clone(), self.path.join("lock"));
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let ours = self.lock.metadata().map(identity);
        async move {
            let ours = ours?;
            // The directory itself may live on for as long as a node stands in it; the lock goes with the others.
            let changes = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
            let mut notice = Notice::of(&path, changes)?;
            while fs::metadata(&lock).is_ok_and(|found| identity(found) == ours) {
                notice.changed().await?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_directory_that_goes_is_missed_however_it_goes() {
        type Way = fn(&std::path::Path) -> io::Result<()>;
        let ways: [Way; 3] = [
            |path| fs::remove_dir_all(path),
            |path| fs::rename(path, path.with_extension("old")),
            |path| fs::remove_dir_all(path).and_then(|()| fs::create_dir(path)),
        ];
        for way in ways {
            let directory = tempfile::tempdir().unwrap();
            let state = StateDir::take(&directory.path().join("state")).unwrap();
            let mut gone = std::pin::pin!(state.gone());
            state.write_atomically("other", b"", 0o600).unwrap();
            fs::remove_file(state.path().join("other")).unwrap();
            let early = futures_util::future::select(&mut gone, Box::pin(tokio::task::yield_now())).await;
            assert!(matches!(early, futures_util::future::Either::Right(_)), "it is there");
            way(state.path()).unwrap();
            tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("it is missed").unwrap();
        }
    }
}

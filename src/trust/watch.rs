//! Waits for certificates to change on disk.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::Trust;
use crate::notice::{Notice, WatchFlags};

impl Trust {
    /// Heeds what changes in the directory of the files at once, for as long as the future is polled; whatever links
    /// come and go looks at the files by itself.
    pub async fn watch(self: Arc<Self>) {
        let directory = self.files().certificate.parent().map_or_else(|| Path::new(".").to_owned(), Path::to_owned);
        let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        let watched = async {
            let mut notice = Notice::of(&directory, changes)?;
            loop {
                self.recheck();
                notice.changed().await?;
            }
        };
        let ended: Result<(), std::io::Error> = watched.await;
        if let Err(error) = ended {
            let directory = directory.display();
            warn!("nobody notices at once if {directory} changes, only links that begin later will: {error}");
        }
    }
}

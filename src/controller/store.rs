//! What the controller keeps on disk: the staged, the ready and the deployed configuration.
//!
//! It sits behind [`Store`], so that another keeper can take its place. Writers never wait for the disk: they hand
//! their changes to the [`StoreThread`].

mod embedded;
mod thread;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use embedded::RedbStore;
pub use thread::StoreThread;

use super::kept::Kept;

/// Keeps the controller's configurations.
pub trait Store: Send {
    /// Everything that was saved.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Saves all of `changes` or none of them; of several for one slot the last counts. On return they are durable.
    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError>;
}

/// What a store holds; `None` where nothing was saved yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    pub staged: Option<Kept>,
    pub ready: Option<Kept>,
    pub deployed: Option<Kept>,
}

impl Stored {
    /// The place of `slot`.
    pub fn slot_mut(&mut self, slot: Slot) -> &mut Option<Kept> {
        match slot {
            Slot::Staged => &mut self.staged,
            Slot::Ready => &mut self.ready,
            Slot::Deployed => &mut self.deployed,
        }
    }
}

/// Which of the configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The last valid upload, as it was received.
    Staged,
    /// The same with hosts and ports filled in: the next to deploy.
    Ready,
    /// The last that agents were told to run.
    Deployed,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Self; 3] = [Self::Staged, Self::Ready, Self::Deployed];

    /// The slot in lower case, as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Ready => "ready",
            Self::Deployed => "deployed",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One change: this configuration takes that slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    pub slot: Slot,
    pub configuration: Kept,
}

/// Why something could not be kept or read back. Everybody whose change shared the commit is told the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file is not ours, is damaged, or cannot be reached.
    #[error(
        "cannot open the store {}: if another program or a disk fault damaged it, move it away and deploy again",
        path.display()
    )]
    Open { path: PathBuf, source: Arc<redb::Error> },
    /// It could be opened, but not read.
    #[error("cannot read the store {}", path.display())]
    Read { path: PathBuf, source: Arc<redb::Error> },
    /// What it held before is still there.
    #[error("cannot write the store {}: is the disk full?", path.display())]
    Write { path: PathBuf, source: Arc<redb::Error> },
    /// A later release wrote it; nothing was touched.
    #[error(
        "the {slot} configuration in {} has format {found}, and this release reads up to {known}: use the \
         release that wrote it, or a later one",
        path.display()
    )]
    FutureFormat { path: PathBuf, slot: Slot, found: u32, known: u32 },
    /// The bytes are no configuration; nothing was touched.
    #[error("the {slot} configuration in {} is damaged ({why}): move the file away and deploy again", path.display())]
    Damaged { path: PathBuf, slot: Slot, why: String },
    /// Nothing was saved; asking again later may work.
    #[error("the store is {waiting} changes behind: the disk is too slow, try again later")]
    Busy { waiting: usize },
    /// The thread that writes is gone; nothing was saved.
    #[error("the store has stopped: restart the controller")]
    Stopped,
}

/// Keeps everything in memory, for tests and simulations; clones share what they hold.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    stored: Arc<Mutex<Stored>>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        for Save { slot, configuration } in changes {
            *stored.slot_mut(*slot) = Some(configuration.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Configuration, ConfigurationId};

    /// A change that puts an empty configuration of this id into `slot`.
    pub fn change(slot: Slot, id: &str) -> Save {
        Save { slot, configuration: Kept::new(&Configuration::empty(ConfigurationId::new(id).unwrap())) }
    }

    #[test]
    fn of_several_changes_to_a_slot_the_last_counts() {
        let mut store = MemoryStore::default();
        let changes = [change(Slot::Staged, "1"), change(Slot::Ready, "2"), change(Slot::Staged, "3")];
        store.save(&changes).unwrap();
        let stored = store.clone().load().unwrap();
        assert_eq!(stored.staged, Some(changes[2].configuration.clone()));
        assert_eq!(stored.ready, Some(changes[1].configuration.clone()));
        assert_eq!(stored.deployed, None);
    }
}

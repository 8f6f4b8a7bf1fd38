//! What the controller keeps on disk: the staged, the ready and the deployed configuration, and the journal of deployments.
//!
//! It sits behind [`Store`], so that another keeper can take its place. Writers never wait for the disk: they hand
//! their changes to the [`StoreThread`].

mod embedded;
mod thread;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use embedded::RedbStore;
pub use thread::StoreThread;

use super::kept::Kept;
use crate::model::{Record, Verdict};

/// How many deployments are remembered, and of how many of them what they deployed.
const MOST: u64 = 100;
const MOST_CONFIGURATIONS: u64 = 20;

/// Keeps the controller's configurations.
pub trait Store: Send {
    /// Everything that was saved.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Saves all of `changes` or none of them; of several for one slot the last counts. On return they are durable.
    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError>;

    /// Every deployment that is remembered, the first one first.
    fn history(&self) -> Result<Vec<Record>, StoreError>;

    /// What the deployment of that number was to put in force, if it is remembered.
    fn tried(&self, number: u64) -> Result<Option<Kept>, StoreError>;
}

/// What a store holds; `None` where nothing was saved yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    pub staged: Option<Kept>,
    pub ready: Option<Kept>,
    pub deployed: Option<Kept>,
    /// The last deployment.
    pub last: Option<Record>,
    /// The last one that was not refused: instances may have yet to follow what came of it.
    pub standing: Option<Record>,
}

impl Stored {
    /// The same with this saved.
    pub fn apply(&mut self, change: Save) {
        match change {
            Save::Configuration(slot, configuration) => *self.slot_mut(slot) = Some(configuration),
            Save::Deployment(record, _) => {
                let is_latest = |known: &Option<Record>| known.as_ref().is_none_or(|it| it.number <= record.number);
                if record.verdict != Verdict::Refused && is_latest(&self.standing) {
                    self.standing = Some(Record::clone(&record));
                }
                if is_latest(&self.last) {
                    self.last = Some(*record);
                }
            }
            Save::Tried(..) => {} // nothing of it is in force
        }
    }

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

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Save {
    /// This configuration takes that slot.
    Configuration(Slot, Kept),
    /// That deployment is to put this in force, if it comes that far. The same again with its first word takes no time.
    Tried(u64, Kept),
    /// So it stands with that deployment, which is to put this in force; without one, that was saved before.
    Deployment(Box<Record>, Option<Kept>),
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
    /// The bytes are none of the journal, or none of this release's; nothing was touched.
    #[error(
        "deployment {number} in {} cannot be read ({why}): use the release that wrote it, or move the file away and deploy \
         again",
        path.display()
    )]
    Journal { path: PathBuf, number: u64, why: String },
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
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    stored: Stored,
    history: BTreeMap<u64, Record>,
    tried: BTreeMap<u64, Kept>,
}

impl MemoryStore {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.held().stored.clone())
    }

    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError> {
        let mut held = self.held();
        for change in changes {
            let (number, tried) = match change {
                Save::Configuration(..) => (0, None),
                Save::Tried(number, tried) => (*number, Some(tried)),
                Save::Deployment(record, tried) => {
                    held.history.insert(record.number, Record::clone(record));
                    (record.number, tried.as_ref())
                }
            };
            held.tried.extend(tried.map(|tried| (number, tried.clone())));
            held.history.retain(|old, _| old + MOST > number);
            held.tried.retain(|old, _| old + MOST_CONFIGURATIONS > number);
            held.stored.apply(change.clone());
        }
        Ok(())
    }

    fn history(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.held().history.values().cloned().collect())
    }

    fn tried(&self, number: u64) -> Result<Option<Kept>, StoreError> {
        Ok(self.held().tried.get(&number).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Author, Configuration, ConfigurationId, NodeName, Timestamp};

    /// A change that puts an empty configuration of this id into `slot`.
    pub fn change(slot: Slot, id: &str) -> Save {
        Save::Configuration(slot, Kept::new(&Configuration::empty(ConfigurationId::new(id).unwrap())))
    }

    /// What such a change saves.
    pub fn configuration(change: &Save) -> Kept {
        match change {
            Save::Configuration(_, configuration) => configuration.clone(),
            Save::Tried(..) | Save::Deployment(..) => panic!("{change:?}"),
        }
    }

    /// A change that remembers the deployment of this number.
    pub fn deployment(number: u64) -> Save {
        let id = |text: String| ConfigurationId::new(&text).unwrap();
        let record = Record {
            number,
            reqid: crate::model::RequestId::new("r").unwrap(),
            author: Author::default(),
            configuration: id(number.to_string()),
            former: None,
            back_to: None,
            began: Timestamp(number),
            ended: None,
            verdict: Verdict::Open,
            up: [NodeName::new("w").unwrap()].into(),
            at_once: false,
            patience: Default::default(),
            rests: Default::default(),
            moves: BTreeMap::new(),
            owing: BTreeSet::new(),
            results: Vec::new(),
            left_out: 0,
            left_out_of: Default::default(),
        };
        let tried = Kept::new(&Configuration::empty(record.configuration.clone()));
        Save::Deployment(Box::new(record), Some(tried))
    }

    /// What every store remembers: so many deployments, of fewer what they deployed, and none twice.
    pub fn remembers_the_last_deployments(store: &mut impl Store) {
        (1..=MOST + 30).for_each(|number| store.save(&[deployment(number), deployment(number)]).unwrap());
        let history = store.history().unwrap();
        let numbers: Vec<_> = history.iter().map(|record| record.number).collect();
        assert_eq!(numbers, (31..=MOST + 30).collect::<Vec<_>>());
        assert_eq!(store.load().unwrap().last.as_ref(), history.last());
        let tried = |number| store.tried(number).unwrap().map(|tried| tried.id.to_string());
        let first = MOST + 31 - MOST_CONFIGURATIONS;
        assert_eq!(
            [first - 1, first, MOST + 30, MOST + 31].map(tried),
            [None, Some(first.to_string()), Some((MOST + 30).to_string()), None]
        );
    }

    #[test]
    fn the_last_deployments_are_remembered() {
        remembers_the_last_deployments(&mut MemoryStore::default());
    }

    #[test]
    fn of_several_changes_to_a_slot_the_last_counts() {
        let mut store = MemoryStore::default();
        let changes = [change(Slot::Staged, "1"), change(Slot::Ready, "2"), change(Slot::Staged, "3")];
        store.save(&changes).unwrap();
        let stored = store.clone().load().unwrap();
        assert_eq!(stored.staged, Some(configuration(&changes[2])));
        assert_eq!(stored.ready, Some(configuration(&changes[1])));
        assert_eq!(stored.deployed, None);
    }
}

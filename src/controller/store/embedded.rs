//! The store in one file: redb, transactional and crash-safe.

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::{Save, Slot, Store, StoreError, Stored};
use crate::controller::kept::Kept;

/// One value per slot: the format's number (u32, little endian), then the configuration in that format.
const CONFIGURATIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("configurations");

/// Format 2 is the encoding of messages, and so as it is kept; format 1 was JSON.
const FORMAT: u32 = 2;

/// What redb may keep in memory, in bytes: nothing is read twice, and it is written seldom.
const CACHE: usize = 64 << 10;

/// Keeps the configurations in `controller.redb`.
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure, until the next write opens it anew: redb itself refuses everything from then on.
    database: Option<Database>,
    /// What was written here last: the same again need not be.
    written: BTreeMap<Slot, Kept>,
}

impl RedbStore {
    /// The file's name in the controller's state directory.
    pub const FILE: &str = "controller.redb";

    /// Opens the store in `directory`, and makes an empty one if there is none.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(Self::FILE);
        match guarded(|| database(&path)) {
            Ok(database) => Ok(Self { path, database: Some(database), written: BTreeMap::new() }),
            Err(error) => Err(StoreError::Open { path, source: Arc::new(error) }),
        }
    }

    fn opened(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::PreviousIo)
    }

    fn read(&self) -> Result<Vec<(Slot, Vec<u8>)>, redb::Error> {
        let transaction = self.opened()?.begin_read()?;
        let table = match transaction.open_table(CONFIGURATIONS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()), // nothing was ever saved
            table => table?,
        };
        let mut found = Vec::new();
        for slot in Slot::ALL {
            found.extend(table.get(slot.as_str())?.map(|value| (slot, value.value().to_vec())));
        }
        Ok(found)
    }

    /// Writes, to the file opened anew if the last write failed.
    fn write(&mut self, values: &[(Slot, Vec<u8>)]) -> Result<(), redb::Error> {
        if self.database.is_none() {
            self.database = Some(guarded(|| database(&self.path))?);
        }
        guarded(|| self.commit(values)).inspect_err(|_| self.database = None)
    }

    fn commit(&self, values: &[(Slot, Vec<u8>)]) -> Result<(), redb::Error> {
        let mut transaction = self.opened()?.begin_write()?;
        // A start after a crash then takes the same time however large the file is.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(CONFIGURATIONS)?;
            for (slot, value) in values {
                table.insert(slot.as_str(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn decode(&self, slot: Slot, value: &[u8]) -> Result<Kept, StoreError> {
        let damaged = |why: String| StoreError::Damaged { path: self.path.clone(), slot, why };
        let (format, body) = value.split_first_chunk().ok_or_else(|| damaged("it is cut short".into()))?;
        match u32::from_le_bytes(*format) {
            0 => Err(damaged("format 0 never was".into())),
            1 => Err(damaged("it is of a build from before the first release".into())),
            FORMAT => Kept::decode(body).map_err(|error| damaged(error.to_string())),
            found => Err(StoreError::FutureFormat { path: self.path.clone(), slot, found, known: FORMAT }),
        }
    }
}

/// Bytes that are damaged in the right way make redb panic: here that is an error like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("it cannot be made sense of".into())))
}

/// Opens the file, or makes it: for its owner alone, since nodes' environments stand in it.
fn database(path: &Path) -> Result<Database, redb::Error> {
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?; // an earlier release made it by the umask
    drop(file); // redb opens it by itself, and makes a store of an empty one
    Ok(Database::builder().set_cache_size(CACHE).create(path)?)
}

impl Store for RedbStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let values = guarded(|| self.read())
            .map_err(|error| StoreError::Read { path: self.path.clone(), source: Arc::new(error) })?;
        let mut stored = Stored::default();
        for (slot, value) in values {
            *stored.slot_mut(slot) = Some(self.decode(slot, &value)?);
        }
        Ok(stored)
    }

    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError> {
        let encode = |save: &Save| (save.slot, [&FORMAT.to_le_bytes()[..], &save.configuration.encode()].concat());
        // Of several for one slot the last counts, so that no other need be written.
        let mut last: BTreeMap<_, _> = changes.iter().map(|save| (save.slot, save)).collect();
        last.retain(|slot, save| self.written.get(slot) != Some(&save.configuration));
        if last.is_empty() {
            return Ok(());
        }
        // Until it is known what became of it.
        last.keys().for_each(|slot| drop(self.written.remove(slot)));
        let values: Vec<_> = last.values().copied().map(encode).collect();
        self.write(&values).map_err(|error| StoreError::Write { path: self.path.clone(), source: Arc::new(error) })?;
        self.written.extend(last.into_iter().map(|(slot, save)| (slot, save.configuration.clone())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::change;
    use super::*;
    use crate::model::{InstanceName, Node, NodeName, Role};

    #[test]
    fn what_was_saved_survives_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let (name, instance) = (NodeName::new("w").unwrap(), InstanceName::new("i").unwrap());
        let mut configuration = change(Slot::Deployed, "1").configuration.open();
        configuration.nodes.push(Node::new(name, instance, Role::Worker).into());
        let deployed = Save { slot: Slot::Deployed, configuration: Kept::new(&configuration) };

        let mut store = RedbStore::open(directory.path()).unwrap();
        let mode = fs::metadata(directory.path().join(RedbStore::FILE)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "definitions hold secrets");
        assert_eq!(store.load().unwrap(), Stored::default());
        store.save(&[change(Slot::Staged, "0"), deployed.clone()]).unwrap();
        store.save(&[change(Slot::Staged, "2")]).unwrap();
        let before = store.load().unwrap();
        drop(store);

        let after = RedbStore::open(directory.path()).unwrap().load().unwrap();
        assert_eq!(after, before);
        assert_eq!(after.deployed, Some(deployed.configuration));
        assert_eq!(after.staged, Some(change(Slot::Staged, "2").configuration));
        assert_eq!(after.ready, None);
    }

    #[test]
    fn a_store_with_damaged_pages_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RedbStore::FILE);
        RedbStore::open(directory.path()).unwrap().save(&[change(Slot::Staged, "0")]).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in (4096..whole.len()).step_by(4096) {
            let mut damaged = whole.clone();
            damaged[at..(at + 2000).min(whole.len())].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x5a);
            fs::write(&path, &damaged).unwrap();
            if let Ok(store) = RedbStore::open(directory.path()) {
                let _ = store.load(); // whatever it is, it comes back
            }
        }
    }

    #[test]
    fn a_file_that_is_no_store_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RedbStore::FILE);
        fs::write(&path, "once upon a time".repeat(1000)).unwrap();
        let error = RedbStore::open(directory.path()).err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "once upon a time".repeat(1000));
    }

    #[test]
    fn a_file_that_was_cut_short_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RedbStore::FILE);
        RedbStore::open(directory.path()).unwrap().save(&[change(Slot::Staged, "0")]).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in [1, 100, 4096, whole.len() / 2, whole.len() - 4096] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = RedbStore::open(directory.path()).and_then(|store| store.load()).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{length} bytes: {error}");
        }
    }

    #[test]
    fn a_value_of_a_later_format_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        let value = [&7u32.to_le_bytes()[..], b"whatever comes"].concat();
        store.write(&[(Slot::Ready, value.clone())]).unwrap();
        let error = store.load().unwrap_err();
        assert!(error.to_string().contains("has format 7, and this release reads up to 2"), "{error}");
        assert_eq!(store.read().unwrap(), [(Slot::Ready, value)]);
    }

    #[test]
    fn what_is_there_is_not_written_again_unless_that_failed() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        let (first, second) = (change(Slot::Deployed, "1"), change(Slot::Deployed, "2"));
        store.save(&[second.clone(), first.clone()]).unwrap();
        let file = fs::read(directory.path().join(RedbStore::FILE)).unwrap();
        store.save(&[second.clone(), first.clone()]).unwrap();
        assert!(fs::read(directory.path().join(RedbStore::FILE)).unwrap() == file, "nothing was written");
        store.save(std::slice::from_ref(&second)).unwrap();
        store.save(std::slice::from_ref(&first)).unwrap();
        assert_eq!(store.load().unwrap().deployed, Some(first.configuration.clone()));
        // A write that fails leaves it open what is there.
        store.path = directory.path().join("nowhere/controller.redb");
        store.database = None;
        assert!(store.save(std::slice::from_ref(&second)).is_err());
        assert!(store.save(std::slice::from_ref(&first)).is_err(), "though it is what was there before");
    }

    #[test]
    fn what_was_saved_before_the_first_release_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        store.write(&[(Slot::Ready, b"\x01\0\0\0{\"id\":\"1\"}".to_vec())]).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.ends_with("before the first release): move the file away and deploy again"), "{error}");
    }

    #[test]
    fn a_damaged_value_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        for value in [&b""[..], b"\x01\0", b"\0\0\0\0{}", b"\x01\0\0\0{\"id\":", b"\x02\0\0\0\x02a"] {
            store.write(&[(Slot::Ready, value.to_vec())]).unwrap();
            let error = store.load().unwrap_err();
            assert!(matches!(error, StoreError::Damaged { slot: Slot::Ready, .. }), "{value:?}: {error}");
        }
    }
}

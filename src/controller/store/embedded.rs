//! The store in one file: redb, transactional and crash-safe.

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::ops::RangeBounds;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::{MOST, MOST_CONFIGURATIONS, Save, Slot, Store, StoreError, Stored};
use crate::controller::kept::Kept;
use crate::message::frame;
use crate::model::Record;

/// One value per slot: the format's number (u32, little endian), then the configuration in that format.
const CONFIGURATIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("configurations");

/// What is known of each deployment, by its number, and what it was to put in force: the same way.
const DEPLOYMENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("deployments");
const TRIED: TableDefinition<u64, &[u8]> = TableDefinition::new("tried");

/// Format 2 is the encoding of messages, and so as it is kept; format 1 was JSON.
const FORMAT: u32 = 2;

/// Of the journal this is the first format.
const JOURNAL_FORMAT: u32 = 1;

/// What redb may keep in memory, in bytes: nothing is read twice, and it is written seldom.
const CACHE: usize = 64 << 10;

/// Keeps the configurations in `controller.redb`.
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure, until the next write opens it anew: redb itself refuses everything from then on.
    database: Option<Database>,
    /// What was written here last: the same again need not be.
    written: BTreeMap<Slot, Kept>,
    tried: Option<(u64, Kept)>,
}

impl RedbStore {
    /// The file's name in the controller's state directory.
    pub const FILE: &str = "controller.redb";

    /// Opens the store in `directory`, and makes an empty one if there is none.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(Self::FILE);
        match guarded(|| database(&path)) {
            Ok(database) => Ok(Self { path, database: Some(database), written: BTreeMap::new(), tried: None }),
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
    fn write(&mut self, values: &[(Slot, Vec<u8>)], journal: &Journal) -> Result<(), redb::Error> {
        if self.database.is_none() {
            self.database = Some(guarded(|| database(&self.path))?);
        }
        guarded(|| self.commit(values, journal)).inspect_err(|_| self.database = None)
    }

    fn commit(&self, values: &[(Slot, Vec<u8>)], journal: &Journal) -> Result<(), redb::Error> {
        let mut transaction = self.opened()?.begin_write()?;
        // A start after a crash then takes the same time however large the file is.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(CONFIGURATIONS)?;
            for (slot, value) in values {
                table.insert(slot.as_str(), value.as_slice())?;
            }
        }
        for (table, values, most) in
            [(DEPLOYMENTS, &journal.records, MOST), (TRIED, &journal.tried, MOST_CONFIGURATIONS)]
        {
            if let Some((last, _)) = values.last_key_value() {
                let mut table = transaction.open_table(table)?;
                for (number, value) in values {
                    table.insert(number, value.as_slice())?;
                }
                table.retain_in(..=last.saturating_sub(most), |_, _| false)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Every value of a table of the journal that has such a number.
    fn read_journal(
        &self,
        table: TableDefinition<u64, &[u8]>,
        numbers: impl RangeBounds<u64> + 'static,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.opened()?.begin_read()?;
            let table = match transaction.open_table(table) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()), // nothing was ever deployed
                table => table?,
            };
            let mut found = Vec::new();
            for entry in table.range(numbers)? {
                let (number, value) = entry?;
                found.push((number.value(), value.value().to_vec()));
            }
            Ok(found)
        };
        guarded(read).map_err(|error| StoreError::Read { path: self.path.clone(), source: Arc::new(error) })
    }

    fn decode_record(&self, number: u64, value: &[u8]) -> Result<Record, StoreError> {
        let unreadable = |why: String| StoreError::Journal { path: self.path.clone(), number, why };
        match value.split_first_chunk() {
            Some((format, body)) if u32::from_le_bytes(*format) == JOURNAL_FORMAT => {
                frame::decode_body(body, "Record").map_err(|error| unreadable(error.to_string()))
            }
            Some((format, _)) => Err(unreadable(format!("it has format {}", u32::from_le_bytes(*format)))),
            None => Err(unreadable("it is cut short".into())),
        }
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
        // The journal is short, and read once.
        self.history()?.into_iter().for_each(|record| stored.apply(Save::Deployment(Box::new(record), None)));
        Ok(stored)
    }

    fn save(&mut self, changes: &[Save]) -> Result<(), StoreError> {
        let encode = |(slot, kept): (&Slot, &&Kept)| (*slot, encoded(kept));
        // Of several for one slot the last counts, so that no other need be written.
        let (mut last, mut journal, mut tried) = (BTreeMap::<Slot, &Kept>::new(), Journal::default(), BTreeMap::new());
        for change in changes {
            match change {
                Save::Configuration(slot, kept) => drop(last.insert(*slot, kept)),
                Save::Tried(number, kept) => drop(tried.insert(*number, kept)),
                Save::Deployment(record, kept) => {
                    journal.add(record);
                    tried.extend(kept.iter().map(|kept| (record.number, kept)));
                }
            }
        }
        last.retain(|slot, kept| self.written.get(slot) != Some(kept));
        tried.retain(|number, kept| self.tried.as_ref().is_none_or(|known| (&known.0, &known.1) != (number, *kept)));
        if last.is_empty() && tried.is_empty() && journal.records.is_empty() {
            return Ok(());
        }
        // Until it is known what became of it.
        last.keys().for_each(|slot| drop(self.written.remove(slot)));
        let known = self.tried.take();
        let values: Vec<_> = last.iter().map(encode).collect();
        journal.tried = tried.iter().map(|(number, kept)| (*number, encoded(kept))).collect();
        self.write(&values, &journal)
            .map_err(|error| StoreError::Write { path: self.path.clone(), source: Arc::new(error) })?;
        self.written.extend(last.into_iter().map(|(slot, kept)| (slot, kept.clone())));
        self.tried = tried.pop_last().map(|(number, kept)| (number, kept.clone())).or(known);
        Ok(())
    }

    fn history(&self) -> Result<Vec<Record>, StoreError> {
        let values = self.read_journal(DEPLOYMENTS, ..)?;
        values.into_iter().map(|(number, value)| self.decode_record(number, &value)).collect()
    }

    fn tried(&self, number: u64) -> Result<Option<Kept>, StoreError> {
        let found = self.read_journal(TRIED, number..=number)?.pop();
        // It is kept as a configuration that is to be deployed.
        found.map(|(_, value)| self.decode(Slot::Ready, &value)).transpose()
    }
}

/// Deployments as they are written, by number.
#[derive(Default)]
struct Journal {
    records: BTreeMap<u64, Vec<u8>>,
    tried: BTreeMap<u64, Vec<u8>>,
}

impl Journal {
    fn add(&mut self, record: &Record) {
        let mut bytes = JOURNAL_FORMAT.to_le_bytes().to_vec();
        // Writing to memory does not fail, and serde has a form for everything in a record.
        frame::encode_body(&mut bytes, record).expect("a record can be encoded");
        self.records.insert(record.number, bytes);
    }
}

fn encoded(kept: &Kept) -> Vec<u8> {
    kept.encode_behind(&FORMAT.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{change, configuration, deployment, remembers_the_last_deployments};
    use super::*;
    use crate::model::{InstanceName, Node, NodeName, Role};

    #[test]
    fn what_was_saved_survives_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let (name, instance) = (NodeName::new("w").unwrap(), InstanceName::new("i").unwrap());
        let mut whole = configuration(&change(Slot::Deployed, "1")).open();
        whole.nodes.push(Node::new(name, instance, Role::Worker).into());
        let deployed = Save::Configuration(Slot::Deployed, Kept::new(&whole));

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
        assert_eq!(after.deployed, Some(configuration(&deployed)));
        assert_eq!(after.staged, Some(configuration(&change(Slot::Staged, "2"))));
        assert_eq!(after.ready, None);
    }

    #[test]
    fn the_last_deployments_are_remembered_also_by_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        assert_eq!((store.history().unwrap(), store.tried(1).unwrap()), (vec![], None));
        remembers_the_last_deployments(&mut store);
        let history = store.history().unwrap();
        drop(store);
        let mut store = RedbStore::open(directory.path()).unwrap();
        assert_eq!(store.history().unwrap(), history);
        for value in [&b""[..], b"\x01\0\0\0\x07", b"\x02\0\0\0"] {
            let records = BTreeMap::from([(500, value.to_vec())]);
            store.write(&[], &Journal { records, ..Journal::default() }).unwrap();
            let error = store.load().unwrap_err();
            assert!(matches!(error, StoreError::Journal { number: 500, .. }), "{value:?}: {error}");
        }
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
        store.write(&[(Slot::Ready, value.clone())], &Journal::default()).unwrap();
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
        assert_eq!(store.load().unwrap().deployed, Some(configuration(&first)));
        // A write that fails leaves it open what is there.
        store.path = directory.path().join("nowhere/controller.redb");
        store.database = None;
        assert!(store.save(std::slice::from_ref(&second)).is_err());
        assert!(store.save(std::slice::from_ref(&first)).is_err(), "though it is what was there before");
    }

    #[test]
    fn what_a_deployment_is_to_put_in_force_is_written_before_its_first_word_and_not_again_with_that() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        let Save::Deployment(record, Some(kept)) = deployment(7) else { panic!() };
        let tried = Save::Tried(7, kept.clone());
        store.save(std::slice::from_ref(&tried)).unwrap();
        assert_eq!((store.tried(7).unwrap(), store.history().unwrap()), (Some(kept.clone()), vec![]));
        let file = fs::read(directory.path().join(RedbStore::FILE)).unwrap();
        store.save(&[tried]).unwrap();
        assert!(fs::read(directory.path().join(RedbStore::FILE)).unwrap() == file, "nothing was written");
        store.save(&[Save::Deployment(record.clone(), Some(kept.clone()))]).unwrap();
        assert_eq!((store.tried(7).unwrap(), store.history().unwrap()), (Some(kept), vec![*record]));
    }

    #[test]
    fn what_was_saved_before_the_first_release_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        store.write(&[(Slot::Ready, b"\x01\0\0\0{\"id\":\"1\"}".to_vec())], &Journal::default()).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.ends_with("before the first release): move the file away and deploy again"), "{error}");
    }

    #[test]
    fn a_damaged_value_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(directory.path()).unwrap();
        for value in [&b""[..], b"\x01\0", b"\0\0\0\0{}", b"\x01\0\0\0{\"id\":", b"\x02\0\0\0\x02a"] {
            store.write(&[(Slot::Ready, value.to_vec())], &Journal::default()).unwrap();
            let error = store.load().unwrap_err();
            assert!(matches!(error, StoreError::Damaged { slot: Slot::Ready, .. }), "{value:?}: {error}");
        }
    }
}

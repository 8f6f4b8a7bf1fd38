//! Blobs on disk, at either end: one file for each, called by its digest, and beside it what has come of it so far.
//!
//! A blob counts once it is whole and its digest is the one that it is called by. Nothing here is ever run, nor read by
//! anybody else: files are their owner's alone, and not executable.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk;
use super::{BundleId, Digest, Digester, LONGEST_FILE, LONGEST_MANIFEST, Manifest, ManifestError};

/// Who may do what with a blob: its owner may read it.
const OURS: u32 = 0o400;

/// See the module.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// Why a blob cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is not here")]
    Absent(Digest),
    #[error("{digest} has {size} bytes, and a file of a bundle at most {LONGEST_FILE}")]
    TooLong { digest: Digest, size: u64 },
    #[error("{digest} goes on at byte {at}, and not at {given}")]
    Misplaced { digest: Digest, at: u64, given: u64 },
    #[error("more came of {digest} than the {size} bytes that it has")]
    TooMuch { digest: Digest, size: u64 },
    #[error("what came as {digest} is something else: its digest is {found}")]
    Wrong { digest: Digest, found: Digest },
    #[error("the bundle {id} is none: {source}")]
    NoManifest { id: BundleId, source: ManifestError },
    #[error("cannot keep {what} in {}: {source}", directory.display())]
    Disk { what: String, directory: PathBuf, source: io::Error },
}

impl Store {
    /// The store in that directory, which is made if it is not there.
    pub fn open(directory: PathBuf) -> Result<Self, StoreError> {
        let store = Self { directory };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&store.directory);
        made.map_err(|source| store.failed("blobs", source))?;
        Ok(store)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether it is here, as long as it is to be. What is in it is checked when it is used.
    pub fn has(&self, digest: Digest, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// How many bytes have come of one that is not whole.
    pub fn come(&self, digest: Digest) -> u64 {
        fs::metadata(self.part(digest)).map(|part| part.len()).unwrap_or_default()
    }

    /// How many bytes may be written here.
    pub fn free(&self) -> Result<u64, StoreError> {
        disk::free(&self.directory).map_err(|source| self.failed("blobs", source))
    }

    /// Goes on with a blob of `size` bytes where it was left off.
    pub fn begin(&self, digest: Digest, size: u64) -> Result<Incoming, StoreError> {
        if size > LONGEST_FILE {
            return Err(StoreError::TooLong { digest, size });
        }
        let what = || format!("{size} bytes of {digest}");
        let mut file = disk::open_part(&self.part(digest)).map_err(|source| self.failed(what(), source))?;
        let (mut digester, mut at) = (Digester::new(), 0);
        let length = disk::pieces(&mut file, |piece| {
            digester.update(piece);
            at += piece.len() as u64;
        });
        length.map_err(|source| self.failed(what(), source))?;
        if at > size {
            // It was begun as another size, by somebody who was wrong about it.
            let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
            emptied.map_err(|source| self.failed(what(), source))?;
            (digester, at) = (Digester::new(), 0);
        }
        Ok(Incoming { store: self.clone(), digest, size, file, digester, at })
    }

    /// Keeps a blob that is at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.keep(digest, bytes).map(|()| digest)
    }

    /// Keeps a blob that came in one piece, if it is what it is called. It gets its name at once: one whose writing was cut off
    /// is shorter than it is to be, or is found out when it is used.
    pub fn take(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        match Digest::of(bytes) {
            found if found == digest => self.keep(digest, bytes),
            found => Err(StoreError::Wrong { digest, found }),
        }
    }

    fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(digest);
        let create = || File::options().write(true).create_new(true).mode(OURS).open(&path);
        let created = create().or_else(|error| match error.kind() {
            // Whatever was there may be less.
            io::ErrorKind::AlreadyExists => fs::remove_file(&path).and_then(|()| create()),
            _ => Err(error),
        });
        created.and_then(|mut file| file.write_all(bytes)).map_err(|source| {
            let _ = fs::remove_file(&path); // if it stays it is found out
            self.failed(digest, source)
        })
    }

    /// How many bytes it has, and `most` of them from `at` on. They are as they were found: whoever needs all of them checks
    /// the digest.
    pub fn read(&self, digest: Digest, at: u64, most: usize) -> Result<(u64, Vec<u8>), StoreError> {
        let file = self.open_blob(digest)?;
        disk::read(&file, at, most).map_err(|source| self.failed(digest, source))
    }

    /// Writes a blob to `out`, and checks it meanwhile. One that is damaged is thrown away: it has to be fetched again.
    pub fn copy(&self, digest: Digest, mut out: impl Write) -> Result<u64, StoreError> {
        let mut file = self.open_blob(digest)?;
        let (mut digester, mut size, mut written) = (Digester::new(), 0, Ok(()));
        let read = disk::pieces(&mut file, |piece| {
            digester.update(piece);
            size += piece.len() as u64;
            if written.is_ok() {
                written = out.write_all(piece);
            }
        });
        read.and(written).map_err(|source| self.failed(digest, source))?;
        self.check(digest, digester.finish()).map(|()| size)
    }

    /// The manifest of a bundle. One that is damaged is thrown away: it has to be fetched again.
    pub fn manifest(&self, id: BundleId) -> Result<Manifest, StoreError> {
        let digest = id.digest();
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        let read = file.take(LONGEST_MANIFEST as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| self.failed(digest, source))?;
        self.check(digest, Digest::of(&bytes))?;
        Manifest::decode(&bytes).map_err(|source| StoreError::NoManifest { id, source })
    }

    /// Lets go of everything else that is older than that. Returns how many blobs went.
    pub fn retain(&self, keep: &BTreeSet<Digest>, age: Duration) -> Result<usize, StoreError> {
        let failed = |source| self.failed("blobs", source);
        let mut gone = 0;
        for file in fs::read_dir(&self.directory).map_err(failed)? {
            let file = file.map_err(failed)?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            // What is called otherwise is none of ours.
            let Some((digest, _)) = disk::blob_of(name) else { continue };
            let is_old = file.metadata().and_then(|file| file.modified()).is_ok_and(|at| is_older(at, age));
            if !keep.contains(&digest) && is_old {
                fs::remove_file(file.path()).map_err(failed)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    fn check(&self, digest: Digest, found: Digest) -> Result<(), StoreError> {
        if digest == found {
            return Ok(());
        }
        let _ = fs::remove_file(self.path(digest)); // if it stays it is found out again
        Err(StoreError::Wrong { digest, found })
    }

    fn open_blob(&self, digest: Digest) -> Result<File, StoreError> {
        File::open(self.path(digest)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Absent(digest),
            _ => self.failed(digest, source),
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        disk::whole(&self.directory, digest)
    }

    fn part(&self, digest: Digest) -> PathBuf {
        disk::part(&self.directory, digest)
    }

    fn failed(&self, what: impl ToString, source: io::Error) -> StoreError {
        StoreError::Disk { what: what.to_string(), directory: self.directory.clone(), source }
    }
}

/// A blob that is on its way. Dropped, it can be gone on with.
pub struct Incoming {
    store: Store,
    digest: Digest,
    size: u64,
    file: File,
    /// Of what has come.
    digester: Digester,
    at: u64,
}

impl Incoming {
    /// How many bytes have come: the next one is this.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether all of them have.
    pub fn is_whole(&self) -> bool {
        self.at == self.size
    }

    /// Takes what comes next.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { digest, size, .. } = *self;
        if bytes.len() as u64 > size - self.at {
            return Err(StoreError::TooMuch { digest, size });
        }
        self.file.write_all(bytes).map_err(|source| self.store.failed(digest, source))?;
        self.digester.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Checks what has come, and keeps it under its name. Throws it away if it is something else.
    pub fn finish(self) -> Result<(), StoreError> {
        let Self { store, digest, size, file, digester, at } = self;
        if at != size {
            return Err(StoreError::Misplaced { digest, at, given: size });
        }
        let part = store.part(digest);
        let found = digester.finish();
        if found != digest {
            let _ = fs::remove_file(part); // if it stays it is found out again
            return Err(StoreError::Wrong { digest, found });
        }
        let kept = file.set_permissions(Permissions::from_mode(OURS));
        let kept = kept.and_then(|()| fs::rename(part, store.path(digest)));
        kept.map_err(|source| store.failed(digest, source))
    }
}

/// A clock that was set back makes nothing old.
fn is_older(at: SystemTime, age: Duration) -> bool {
    SystemTime::now().duration_since(at).is_ok_and(|passed| passed >= age)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::bundle::{Entry, Kind};

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path().join("blobs")).unwrap();
        (home, store)
    }

    #[test]
    fn a_blob_that_comes_in_pieces_and_is_left_off_is_gone_on_with() {
        let (_home, store) = store();
        let digest = Digest::of(b"abcdef");
        let mut incoming = store.begin(digest, 6).unwrap();
        incoming.write(b"abc").unwrap();
        assert!(!incoming.is_whole() && !store.has(digest, 6));
        drop(incoming);
        assert_eq!(store.come(digest), 3);
        let mut incoming = store.begin(digest, 6).unwrap();
        assert_eq!(incoming.at(), 3);
        incoming.write(b"def").unwrap();
        incoming.finish().unwrap();
        assert!(store.has(digest, 6) && !store.has(digest, 5));
        assert_eq!(store.read(digest, 2, 3).unwrap(), (6, b"cde".to_vec()));
        assert_eq!(store.read(digest, 7, 3).unwrap(), (6, vec![]));
        let mode = fs::metadata(store.path(digest)).unwrap().mode();
        assert_eq!((mode & 0o7777, store.come(digest)), (0o400, 0));
        let mut out = Vec::new();
        assert_eq!((store.copy(digest, &mut out).unwrap(), out), (6, b"abcdef".to_vec()));
    }

    #[test]
    fn what_is_something_else_is_thrown_away() {
        let (_home, store) = store();
        let digest = Digest::of(b"abc");
        let mut incoming = store.begin(digest, 3).unwrap();
        assert!(matches!(incoming.write(b"abcd"), Err(StoreError::TooMuch { size: 3, .. })));
        incoming.write(b"abd").unwrap();
        assert!(matches!(incoming.finish(), Err(StoreError::Wrong { .. })));
        assert_eq!((store.has(digest, 3), store.come(digest)), (false, 0), "it begins from nothing");
        assert!(matches!(store.take(digest, b"abd"), Err(StoreError::Wrong { .. })));
        assert!(!store.has(digest, 3));
        drop(store.begin(digest, 9).unwrap().write(b"something"));
        assert_eq!(store.begin(digest, 3).unwrap().at(), 0, "what is longer than it can be is not the beginning of it");
        assert!(matches!(store.begin(digest, LONGEST_FILE + 1), Err(StoreError::TooLong { .. })));
        assert!(matches!(store.read(digest, 0, 9), Err(StoreError::Absent(_))));
    }

    #[test]
    fn what_was_damaged_on_disk_is_found_out_and_is_to_come_again() {
        let (_home, store) = store();
        let entry = Entry { path: "a".parse().unwrap(), mode: 0o644, modified: 0, kind: Kind::Directory };
        let manifest = Manifest::new(vec![entry]).unwrap();
        let digest = store.put(&manifest.encode()).unwrap();
        assert_eq!(store.manifest(manifest.id()).unwrap(), manifest);
        for read in [
            |store: &Store, id: BundleId| store.manifest(id).map(drop),
            |store: &Store, id: BundleId| store.copy(id.digest(), io::sink()).map(drop),
        ] {
            fs::remove_file(store.path(digest)).unwrap();
            fs::write(store.path(digest), b"rubbish").unwrap();
            assert!(matches!(read(&store, manifest.id()), Err(StoreError::Wrong { .. })));
            assert!(!store.path(digest).exists());
            store.put(&manifest.encode()).unwrap();
        }
        let no_manifest = BundleId::new(store.put(b"rubbish").unwrap());
        assert!(matches!(store.manifest(no_manifest), Err(StoreError::NoManifest { .. })));
    }

    #[test]
    fn one_whose_writing_was_cut_off_is_not_there_and_takes_its_place_once_it_comes() {
        let (_home, store) = store();
        let digest = store.put(b"content").unwrap();
        fs::remove_file(store.path(digest)).unwrap();
        fs::write(store.path(digest), b"cont").unwrap();
        assert!(!store.has(digest, 7));
        store.take(digest, b"content").unwrap();
        assert_eq!(store.read(digest, 0, 9).unwrap(), (7, b"content".to_vec()));
        assert_eq!(fs::metadata(store.path(digest)).unwrap().mode() & 0o7777, OURS);
    }

    #[test]
    fn what_nobody_needs_goes_once_it_is_old_and_strangers_stay() {
        let (_home, store) = store();
        let [kept, young, old] = [b"kept", b"yung", b"old."].map(|bytes| store.put(bytes).unwrap());
        drop(store.begin(Digest::of(b"part"), 4).unwrap().write(b"p"));
        let stranger = store.directory.join("README");
        fs::write(&stranger, "").unwrap();
        let ages = SystemTime::now() - Duration::from_secs(7200);
        for path in [store.path(old), store.path(kept), store.part(Digest::of(b"part")), stranger.clone()] {
            File::open(path).unwrap().set_modified(ages).unwrap();
        }
        assert_eq!(store.retain(&[kept].into(), Duration::from_secs(3600)).unwrap(), 2);
        assert_eq!([kept, young, old].map(|digest| store.has(digest, 4)), [true, true, false]);
        assert!(stranger.exists() && store.come(Digest::of(b"part")) == 0);
    }

    #[test]
    fn where_there_is_no_place_it_says_where() {
        let error = Store::open("/proc/nowhere".into()).unwrap_err().to_string();
        assert!(error.starts_with("cannot keep blobs in /proc/nowhere: "), "{error}");
    }
}

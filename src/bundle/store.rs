//! Blobs on disk, at either end: one file for each, called by its digest, and beside it what has come of it so far.
//!
//! A blob counts once it is whole and its digest is the one that it is called by. Nothing here is ever run, nor read by
//! anybody else: files are their owner's alone, and not executable.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{BundleId, Digest, Digester, LONGEST_FILE, LONGEST_MANIFEST, Manifest, ManifestError};

/// What the name of a file ends with that is not whole yet.
const PART: &str = ".part";
/// How much is read at a time, in bytes.
const CHUNK: usize = 128 << 10;

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

    /// Whether it is here, whole. What is in it is checked when it is used.
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// How many bytes of it have come.
    pub fn come(&self, digest: Digest) -> u64 {
        let length = |path: &Path| fs::metadata(path).ok().map(|file| file.len());
        length(&self.path(digest)).or_else(|| length(&self.part(digest))).unwrap_or_default()
    }

    /// Goes on with a blob of `size` bytes where it was left off. Room for it is looked for first.
    pub fn begin(&self, digest: Digest, size: u64) -> Result<Incoming, StoreError> {
        if size > LONGEST_FILE {
            return Err(StoreError::TooLong { digest, size });
        }
        let what = || format!("{size} bytes of {digest}");
        let mut options = File::options();
        let part = self.part(digest);
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&part);
        let mut file = opened.map_err(|source| self.failed(what(), source))?;
        let (mut digester, mut at) = (Digester::new(), 0);
        let length = pieces(&mut file, |piece| {
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
        if size > at {
            match fallocate(&file, FallocateFlags::KEEP_SIZE, at, size - at) {
                // A file system that promises nothing.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(source) => return Err(self.failed(what(), source.into())),
            }
        }
        Ok(Incoming { store: self.clone(), digest, size, file, digester, at })
    }

    /// Keeps a blob that is at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.has(digest) {
            // Whatever was begun of it is as good as what is at hand.
            let mut incoming = self.begin(digest, bytes.len() as u64)?;
            let at = incoming.at() as usize;
            incoming.write(&bytes[at..])?;
            incoming.finish()?;
        }
        Ok(digest)
    }

    /// How many bytes it has, and `most` of them from `at` on. They are as they were found: whoever needs all of them checks
    /// the digest.
    pub fn read(&self, digest: Digest, at: u64, most: usize) -> Result<(u64, Vec<u8>), StoreError> {
        let file = self.open_blob(digest)?;
        let failed = |source| self.failed(digest, source);
        let size = file.metadata().map_err(failed)?.len();
        let length = size.saturating_sub(at).min(most as u64);
        // Not longer than `most`, which fits.
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, at).map_err(failed)?;
        Ok((size, bytes))
    }

    /// Writes a blob to `out`, and checks it meanwhile. One that is damaged is thrown away: it has to be fetched again.
    pub fn copy(&self, digest: Digest, mut out: impl Write) -> Result<u64, StoreError> {
        let mut file = self.open_blob(digest)?;
        let (mut digester, mut size, mut written) = (Digester::new(), 0, Ok(()));
        let read = pieces(&mut file, |piece| {
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
            let Ok(digest) = name.strip_suffix(PART).unwrap_or(name).parse::<Digest>() else { continue };
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
        self.directory.join(digest.to_string())
    }

    fn part(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{digest}{PART}"))
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
        let kept = file.set_permissions(Permissions::from_mode(0o400));
        let kept = kept.and_then(|()| fs::rename(part, store.path(digest)));
        kept.map_err(|source| store.failed(digest, source))
    }
}

/// Reads a file to its end. A signal does not end it.
fn pieces(file: &mut File, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
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
        assert!(!incoming.is_whole() && !store.has(digest));
        drop(incoming);
        assert_eq!(store.come(digest), 3);
        let mut incoming = store.begin(digest, 6).unwrap();
        assert_eq!(incoming.at(), 3);
        incoming.write(b"def").unwrap();
        incoming.finish().unwrap();
        assert!(store.has(digest));
        assert_eq!(store.read(digest, 2, 3).unwrap(), (6, b"cde".to_vec()));
        assert_eq!(store.read(digest, 7, 3).unwrap(), (6, vec![]));
        let mode = fs::metadata(store.path(digest)).unwrap().mode();
        assert_eq!((mode & 0o7777, store.come(digest)), (0o400, 6));
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
        assert_eq!((store.has(digest), store.come(digest)), (false, 0), "it begins from nothing");
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
            assert!(!store.has(digest));
            store.put(&manifest.encode()).unwrap();
        }
        let no_manifest = BundleId::new(store.put(b"rubbish").unwrap());
        assert!(matches!(store.manifest(no_manifest), Err(StoreError::NoManifest { .. })));
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
        assert_eq!([kept, young, old].map(|digest| store.has(digest)), [true, true, false]);
        assert!(stranger.exists() && store.come(Digest::of(b"part")) == 0);
    }

    #[test]
    fn where_there_is_no_place_it_says_where() {
        let error = Store::open("/proc/nowhere".into()).unwrap_err().to_string();
        assert!(error.starts_with("cannot keep blobs in /proc/nowhere: "), "{error}");
    }
}

//! The contents of bundles on the controller's disk: from whoever deploys, for agents.
//!
//! One file for each digest, and beside it what has come so far of one that is under way. A file counts once its bytes were
//! found to have the digest that it is called by, and no longer than it stays untouched. Everything here that is not `async`
//! waits for the disk; actors and edges use what is.

mod collect;
mod disk;
mod incoming;
mod need;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_rt::task::spawn_blocking;

pub use collect::STAYS;
pub use incoming::Incoming;
pub use need::{Missing, Wanted};

use self::disk::Stamp;
use crate::bundle::disk as files;
use crate::bundle::{BundleId, Digest, LONGEST_FILE, LONGEST_MANIFEST, Manifest, ManifestError, Scan};

/// Why a blob cannot be taken or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("the blob {0} is not here")]
    Absent(Digest),
    #[error("the blob {0} was damaged on the controller's disk: deploy its files again")]
    Damaged(Digest),
    #[error("what came is not what its name {0} says: it was thrown away")]
    Other(Digest),
    #[error("it goes on at byte {at}, and not at {offset}")]
    Elsewhere { at: u64, offset: u64 },
    #[error("it has {0} bytes, and a file of a bundle at most {LONGEST_FILE}")]
    TooLong(u64),
    #[error("more bytes came than its {0}")]
    TooMuch(u64),
    #[error("somebody else sends the same now")]
    Overtaken,
    #[error(
        "there is no room for {needed} bytes of files on the controller's disk, in {}: {free} bytes are free, and \
         {} stay free for its log",
        directory.display(), disk::SPARED
    )]
    NoRoom { directory: PathBuf, needed: u64, free: u64 },
    #[error("the list of files of {bundle} cannot be used: {source}")]
    Manifest { bundle: BundleId, source: ManifestError },
    #[error("cannot use {}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("the controller could not look: {0}")]
    Panicked(String),
}

/// See the module. Cheap to copy; copies share what they know.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    directory: PathBuf,
    known: Mutex<Known>,
    /// Held by whoever has the disk make sure: others who need that wait for it.
    makes_sure: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// Files that were found to be what they are called, and what they looked like then.
    whole: BTreeMap<Digest, Stamp>,
    /// Who sends what: the last that began to counts.
    senders: BTreeMap<Digest, u64>,
    senders_so_far: u64,
    /// Something came that may not be on the disk itself yet.
    is_unsure: bool,
}

impl Blobs {
    /// Those in this directory, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Self, BlobError> {
        disk::make(directory)?;
        Ok(Self(Arc::new(Shelf {
            directory: directory.to_owned(),
            known: Mutex::default(),
            makes_sure: Mutex::default(),
        })))
    }

    /// How long a blob is, and `most` bytes of it at most from a byte on.
    pub fn read(&self, digest: Digest, offset: u64, most: usize) -> Result<(u64, Vec<u8>), BlobError> {
        let read = File::open(self.path(digest)).and_then(|file| files::read(&file, offset, most));
        read.map_err(|source| self.failed(digest, source))
    }

    /// The manifest of a bundle.
    pub async fn manifest(&self, bundle: BundleId) -> Result<Manifest, BlobError> {
        self.apart(move |blobs| blobs.list(bundle)).await
    }

    /// Does that where waiting for the disk holds up nobody.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let blobs = self.clone();
        let done = spawn_blocking(move || work(&blobs)).await;
        done.unwrap_or_else(|error| Err(BlobError::Panicked(error.to_string())))
    }

    fn list(&self, bundle: BundleId) -> Result<Manifest, BlobError> {
        let digest = bundle.digest();
        // One byte more than there may be is enough to be told so.
        let (_, bytes) = self.read(digest, 0, LONGEST_MANIFEST + 1)?;
        if Digest::of(&bytes) != digest {
            return Err(BlobError::Damaged(digest));
        }
        Manifest::decode(&bytes).map_err(|source| BlobError::Manifest { bundle, source })
    }

    /// Looks whether these bundles are here, whole, and where a power cut leaves them. They stay for a while from now on,
    /// whether or not anybody deploys them.
    pub fn vouch(&self, bundles: &BTreeSet<BundleId>) -> BTreeMap<BundleId, BlobError> {
        let mut wrong: BTreeMap<_, _> =
            bundles.iter().filter_map(|bundle| Some((*bundle, self.look_through(*bundle).err()?))).collect();
        if let Err(error) = self.make_sure() {
            let bundle = bundles.iter().find(|bundle| !wrong.contains_key(bundle));
            wrong.extend(bundle.map(|bundle| (*bundle, self.wrong_with(&self.0.directory, error))));
        }
        wrong
    }

    /// Whatever came before is on the disk itself afterwards.
    fn make_sure(&self) -> io::Result<()> {
        // Nothing is in it that a panic could leave behind.
        let _alone = self.0.makes_sure.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut self.known().is_unsure) {
            return Ok(());
        }
        let made = disk::make_sure(&self.0.directory);
        if made.is_err() {
            self.known().is_unsure = true;
        }
        made
    }

    fn look_through(&self, bundle: BundleId) -> Result<(), BlobError> {
        if !self.is_whole(bundle.digest())? {
            return Err(BlobError::Absent(bundle.digest()));
        }
        for (_, size, digest) in self.list(bundle)?.files() {
            if !self.has(digest, size)? {
                return Err(BlobError::Absent(digest));
            }
        }
        Ok(())
    }

    /// Takes what was found on this very machine.
    pub fn take(&self, scan: &Scan) -> Result<(), BlobError> {
        let manifest = scan.manifest.encode();
        let digest = Digest::of(&manifest);
        let wanted = scan.sources.iter().map(|(digest, found)| Wanted { digest: *digest, size: found.size });
        let wanted = wanted.chain([Wanted { digest, size: manifest.len() as u64 }]).collect::<Vec<_>>();
        for Missing { digest: missing, size, offset } in self.missing(&wanted)? {
            let incoming = self.receive(missing, size, offset)?;
            match scan.sources.get(&missing) {
                Some(found) => {
                    let failed = |source| self.wrong_with(&found.path, source);
                    incoming.copy(found.open().map_err(failed)?, &found.path)?;
                }
                None => incoming.copy(&manifest[..], Path::new("memory"))?,
            }
        }
        Ok(())
    }

    /// Whether that is here in full.
    fn has(&self, digest: Digest, size: u64) -> Result<bool, BlobError> {
        let path = self.path(digest);
        Ok(self.is_whole(digest)? && disk::size(&path).map_err(|source| self.wrong_with(&path, source))? == Some(size))
    }

    /// Whether a file is here that is what it is called. One that is not is removed, so that it comes again.
    fn is_whole(&self, digest: Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        let Some(stamp) = disk::touch(&path).map_err(|source| self.wrong_with(&path, source))? else {
            self.known().whole.remove(&digest);
            return Ok(false);
        };
        if self.known().whole.get(&digest) == Some(&stamp) {
            return Ok(true);
        }
        if disk::digest(&path).map_err(|source| self.wrong_with(&path, source))? == digest {
            self.known().whole.insert(digest, stamp);
            return Ok(true);
        }
        // Nobody gives one that came meanwhile its name at this moment.
        let mut known = self.known();
        let now = disk::touch(&path).map_err(|source| self.wrong_with(&path, source))?;
        if now != Some(stamp) {
            return Ok(now.is_some_and(|now| known.whole.get(&digest) == Some(&now)));
        }
        tracing::warn!("{} is not what it is called: it is removed, and has to come again", path.display());
        disk::remove(&path).map_err(|source| self.wrong_with(&path, source))?;
        known.whole.remove(&digest);
        Ok(false)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        files::whole(&self.0.directory, digest)
    }

    fn part(&self, digest: Digest) -> PathBuf {
        files::part(&self.0.directory, digest)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is in it is true after a panic as well.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, digest: Digest, source: io::Error) -> BlobError {
        match source.kind() {
            io::ErrorKind::NotFound => BlobError::Absent(digest),
            _ => self.wrong_with(&self.path(digest), source),
        }
    }

    fn wrong_with(&self, path: &Path, source: io::Error) -> BlobError {
        BlobError::Disk { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;

//! A blob on its way in: written as it comes, and taken for what it is once it is there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk;
use super::{BlobError, Blobs};
use crate::bundle::{Digest, Digester, LONGEST_FILE};

/// How much is copied at once, in bytes.
const PIECE: usize = 256 << 10;

/// See the module. Dropping it leaves what came, for whoever goes on.
pub struct Incoming {
    blobs: Blobs,
    digest: Digest,
    size: u64,
    file: File,
    at: u64,
    digester: Digester,
    /// Which sender of this blob it is.
    sender: u64,
}

impl Blobs {
    /// Begins to take a blob of that size, or goes on where its bytes ended: that is at `offset`, or an error says where.
    /// Whoever has sent the same until now has to stop.
    pub fn receive(&self, digest: Digest, size: u64, offset: u64) -> Result<Incoming, BlobError> {
        if size > LONGEST_FILE {
            return Err(BlobError::TooLong(size));
        }
        let path = self.part(digest);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_room(size),
            _ => BlobError::Disk { path: path.clone(), source },
        };
        self.spare(size - offset.min(size))?;
        let (file, sender) = {
            // Nobody writes meanwhile, nor gives what came its name.
            let mut known = self.known();
            let file = disk::open_part(&path, size).map_err(failed)?;
            let at = disk::size(&path).map_err(failed)?.unwrap_or_default();
            if at != offset {
                return Err(BlobError::Elsewhere { at, offset });
            }
            known.senders_so_far += 1;
            let sender = known.senders_so_far;
            known.senders.insert(digest, sender);
            (file, sender)
        };
        let digester = Digester::new();
        let mut incoming = Incoming { blobs: self.clone(), digest, size, file, at: offset, digester, sender };
        if offset > 0 {
            incoming.digester = disk::digest_of(&mut incoming.file).map_err(failed)?;
        }
        Ok(incoming)
    }
}

impl Incoming {
    /// Writes what came next, and hands itself back for what comes after that.
    pub fn with(mut self, bytes: &[u8]) -> Result<Self, BlobError> {
        let end = self.at.saturating_add(bytes.len() as u64);
        if end > self.size {
            return Err(BlobError::TooMuch(self.size));
        }
        // Who sends the same holds this lock neither for long nor while it waits for its peer.
        let blobs = self.blobs.clone();
        let known = blobs.known();
        if known.senders.get(&self.digest) != Some(&self.sender) {
            return Err(BlobError::Overtaken);
        }
        let written = self.file.write_all_at(bytes, self.at);
        drop(known);
        written.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.blobs.no_room(self.size - self.at),
            _ => BlobError::Disk { path: self.blobs.part(self.digest), source },
        })?;
        self.digester.update(bytes);
        self.at = end;
        Ok(self)
    }

    /// How many bytes are there.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes it for what it is called, if it is that; one that is not is thrown away. What is not whole yet stays as it is, and
    /// the answer is no.
    pub fn finish(self) -> Result<bool, BlobError> {
        if self.at < self.size {
            return Ok(false);
        }
        let (part, path) = (self.blobs.part(self.digest), self.blobs.path(self.digest));
        let blobs = self.blobs.clone();
        let mut known = blobs.known();
        if known.senders.get(&self.digest) != Some(&self.sender) {
            return Err(BlobError::Overtaken);
        }
        known.senders.remove(&self.digest);
        if self.digester.clone().finish() != self.digest {
            disk::remove(&part).map_err(|source| BlobError::Disk { path: part, source })?;
            return Err(BlobError::Other(self.digest));
        }
        fs::rename(&part, &path).map_err(|source| BlobError::Disk { path: path.clone(), source })?;
        if let Ok(Some(stamp)) = disk::touch(&path) {
            known.whole.insert(self.digest, stamp);
        }
        known.is_unsure = true;
        Ok(true)
    }

    /// Takes the rest of it from there.
    pub(super) fn copy(self, mut from: impl Read, place: &Path) -> Result<(), BlobError> {
        let failed = |source| BlobError::Disk { path: place.to_owned(), source };
        let mut piece = vec![0; PIECE];
        io::copy(&mut from.by_ref().take(self.at), &mut io::sink()).map_err(failed)?;
        let mut incoming = self;
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => incoming = incoming.with(&piece[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let digest = incoming.digest;
        if incoming.finish()? { Ok(()) } else { Err(BlobError::Other(digest)) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut known = self.blobs.known();
        if known.senders.get(&self.digest) == Some(&self.sender) {
            known.senders.remove(&self.digest);
        }
    }
}

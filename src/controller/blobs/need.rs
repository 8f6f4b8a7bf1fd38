//! What of a bundle is not here yet, and whether there is room for it.

use super::disk;
use super::{BlobError, Blobs};
use crate::bundle::disk as files;
use crate::bundle::{Digest, LONGEST_FILE};

/// A blob that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A blob that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub digest: Digest,
    pub size: u64,
    /// From this byte on: what is before it came already.
    pub offset: u64,
}

impl Blobs {
    /// Which of these are to be sent, each once, in the order in which they were named; an error if there is no room for all.
    pub fn missing(&self, wanted: &[Wanted]) -> Result<Vec<Missing>, BlobError> {
        let (mut missing, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        for Wanted { digest, size } in wanted.iter().copied().filter(|wanted| seen.insert(wanted.digest)) {
            if size > LONGEST_FILE {
                return Err(BlobError::TooLong(size));
            }
            if self.has(digest, size)? {
                continue;
            }
            let part = self.part(digest);
            let came = disk::size(&part).map_err(|source| self.wrong_with(&part, source))?.unwrap_or_default();
            let offset = match came <= size {
                true => came,
                // Somebody called it longer than it is, and is not to go on with that.
                false => {
                    let mut known = self.known();
                    disk::remove(&part).map_err(|source| self.wrong_with(&part, source))?;
                    known.senders.remove(&digest);
                    0
                }
            };
            missing.push(Missing { digest, size, offset });
        }
        let needed = missing.iter().map(|missing| missing.size - missing.offset).fold(0, u64::saturating_add);
        self.spare(needed)?;
        Ok(missing)
    }

    /// Whether there is room for so many bytes, and some more.
    pub(super) fn spare(&self, needed: u64) -> Result<(), BlobError> {
        let free = files::free(&self.0.directory).map_err(|source| self.wrong_with(&self.0.directory, source))?;
        match needed > 0 && needed.saturating_add(disk::SPARED) > free {
            true => Err(self.no_room_of(needed, free)),
            false => Ok(()),
        }
    }

    /// There is none, as the disk itself says.
    pub(super) fn no_room(&self, needed: u64) -> BlobError {
        self.no_room_of(needed, files::free(&self.0.directory).unwrap_or_default())
    }

    fn no_room_of(&self, needed: u64, free: u64) -> BlobError {
        BlobError::NoRoom { directory: self.0.directory.clone(), needed, free }
    }
}

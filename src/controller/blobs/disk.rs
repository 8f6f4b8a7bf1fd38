//! The files themselves, as far as only this end looks at them so.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, fallocate, syncfs};
use rustix::io::Errno;

use super::BlobError;
use crate::bundle::{Digest, Digester, disk};

/// How much stays free, in bytes: the log and the journal are on the same disk.
pub const SPARED: u64 = 16 << 20;

/// What is another after somebody has written to a file, and is the same after somebody has used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    place: (u64, u64),
    size: u64,
    written: (i64, i64),
}

/// Makes the directory, for its owner alone.
pub fn make(directory: &Path) -> Result<(), BlobError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(BlobError::Disk { path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// How many bytes are there; none if there is no such file.
pub fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Notes that a file was used just now, and says what it looks like; `None` if it is not there.
pub fn touch(path: &Path) -> io::Result<Option<Stamp>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One that may not say so any more is not worse for it.
    let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
    let found = file.metadata()?;
    let written = (found.mtime(), found.mtime_nsec());
    Ok(Some(Stamp { place: (found.dev(), found.ino()), size: found.len(), written }))
}

/// When a file was written or used last.
pub fn used(path: &Path) -> io::Result<SystemTime> {
    let found = fs::metadata(path)?;
    Ok(found.accessed()?.max(found.modified()?))
}

/// The digest of all of it.
pub fn digest(path: &Path) -> io::Result<Digest> {
    digest_of(&mut File::open(path)?).map(Digester::finish)
}

/// A digest to which all that is left in this file was added.
pub fn digest_of(file: &mut File) -> io::Result<Digester> {
    let mut digester = Digester::new();
    disk::pieces(file, |piece| digester.update(piece)).map(|()| digester)
}

/// Opens a file that is to become `size` bytes long, and sees to it that there is room for them.
pub fn open_part(path: &Path, size: u64) -> io::Result<File> {
    let file = disk::open_part(path)?;
    if size > 0 {
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, size) {
            // A file system that promises nothing.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
}

/// Removes a file; one that is not there is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whatever was written is on the disk itself afterwards.
pub fn make_sure(directory: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(directory)?)?)
}

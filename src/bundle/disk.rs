//! Files of blobs, as both ends have them: called by digest, and `.part` behind it as long as they are not whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::statvfs;
use rustix::io::{Errno, pread};

use super::Digest;

/// What the name of a file ends with that is not whole yet.
const PART: &str = ".part";
/// How much is read at a time, in bytes.
const CHUNK: usize = 128 << 10;

/// Where a blob is, once it is whole.
pub fn whole(directory: &Path, digest: Digest) -> PathBuf {
    directory.join(digest.to_string())
}

/// Where it is before.
pub fn part(directory: &Path, digest: Digest) -> PathBuf {
    directory.join(format!("{digest}{PART}"))
}

/// Of which blob a file of that name is, and whether it is a part of it; `None` for what is none of ours.
pub fn blob_of(name: &str) -> Option<(Digest, bool)> {
    let beginning = name.strip_suffix(PART);
    Some((beginning.unwrap_or(name).parse().ok()?, beginning.is_some()))
}

/// Opens a file that goes on with what is in it; nobody else may read it.
pub fn open_part(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Up to `most` bytes from there on, and how many there are in all.
pub fn read(file: &File, at: u64, most: usize) -> io::Result<(u64, Vec<u8>)> {
    let total = file.metadata()?.len();
    // No more than there are.
    let length = total.saturating_sub(at).min(most as u64) as usize;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let next = at + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), next) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok((total, bytes))
}

/// Reads a file to its end. A signal does not end it.
pub fn pieces(file: &mut File, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    // Most files are short.
    let length = file.metadata()?.len();
    let mut buffer = vec![0; length.clamp(1, CHUNK as u64) as usize];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How many bytes may be written where `directory` is.
pub fn free(directory: &Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_and_strangers_are_none_of_ours() {
        let (digest, here) = (Digest::of(b"x"), Path::new("/blobs"));
        for (path, is_part) in [(whole(here, digest), false), (part(here, digest), true)] {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(blob_of(&name), Some((digest, is_part)));
            assert_eq!(blob_of(&format!("{name}.part.part")), None);
        }
        assert_eq!([".part", "", "README"].map(blob_of), [None; 3]);
    }
}

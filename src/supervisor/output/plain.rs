//! Opens files that the node may have put something else in the place of.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Opens a file for reading; `None` if there is no plain file.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    open_with(path, OFlags::RDONLY)
}

/// Opens a file so that a part of it can be freed; `None` if there is no plain file.
pub(super) fn open_to_free(path: &Path) -> io::Result<Option<File>> {
    open_with(path, OFlags::RDWR)
}

fn open_with(path: &Path, access: OFlags) -> io::Result<Option<File>> {
    // A link could lead to what is not the node's, and a pipe would make us wait.
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() => Ok(Some(file.into())),
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

//! Where the two files of a node's life are, and the third, which says how far the first was read.
//!
//! Their directory is the agent's own, so that whoever runs as the node may write into its files and cannot put others there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::model::Life;
use crate::supervisor::process::user_of;

/// The directory below a node's own.
const DIRECTORY: &str = ".channel";
/// May be entered by whoever runs as a node, and no more.
const MODE: u32 = 0o711;
const NEWS: &str = "news";
const QUESTIONS: &str = "questions";
const READ: &str = "read";
/// What file systems free at once, in bytes.
const BLOCK: u64 = 4096;

/// Where the channel of a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// That of the node whose record and output are in this directory.
    pub fn of(node: &Path) -> Self {
        Self(node.join(DIRECTORY))
    }

    /// Makes the files of a life that is about to begin, for whoever it runs as.
    pub fn lay(&self, life: Life, user: Option<&str>) -> io::Result<()> {
        match DirBuilder::new().mode(MODE).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Whatever our umask is.
            _ => fs::set_permissions(&self.0, Permissions::from_mode(MODE))?,
        }
        let user = user.filter(|_| rustix::process::geteuid().is_root()).and_then(user_of);
        for kind in [NEWS, QUESTIONS] {
            let path = self.path(life, kind);
            let _ = fs::remove_file(&path); // of a launch that came to nothing
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            if let Some((uid, gid)) = user {
                fchown(&file, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }

    /// Where that life tells its news.
    pub fn news(&self, life: Life) -> PathBuf {
        self.path(life, NEWS)
    }

    /// Where it is asked.
    pub fn questions(&self, life: Life) -> PathBuf {
        self.path(life, QUESTIONS)
    }

    fn path(&self, life: Life, kind: &str) -> PathBuf {
        self.0.join(format!("{life}.{kind}"))
    }

    /// Opens the news, and says up to where they were read; `None` if that life has none.
    pub(super) fn open(&self, life: Life) -> io::Result<Option<(File, u64)>> {
        // What is no file is not waited for, and then refused.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.news(life)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut noted = String::new();
        let note = File::open(self.path(life, READ)).and_then(|file| file.take(64).read_to_string(&mut noted));
        let noted = note.ok().and_then(|_| noted.trim().parse().ok());
        Ok(Some((file, noted.unwrap_or(0))))
    }

    /// Opens what the life is asked by.
    pub(super) fn open_questions(&self, life: Life) -> io::Result<File> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().append(true).custom_flags(flags).open(self.questions(life))?;
        file.metadata()?.is_file().then_some(file).ok_or_else(|| io::Error::other("it is no file"))
    }

    /// Notes that the news were read up to there: in one write, always of the same length.
    pub(super) fn note(&self, life: Life, read: u64) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path(life, READ))?;
        file.write_all_at(format!("{read:020}\n").as_bytes(), 0)
    }

    /// The lives that there are files of.
    pub(super) fn lives(&self) -> io::Result<Vec<Life>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let life = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.split_once('.')?.0.parse().ok();
        let mut lives: Vec<_> = entries.filter_map(life).map(Life).collect();
        lives.sort();
        lives.dedup();
        Ok(lives)
    }

    /// Removes the files of a life.
    pub(super) fn remove(&self, life: Life) {
        for kind in [NEWS, QUESTIONS, READ] {
            let _ = fs::remove_file(self.path(life, kind)); // it may not be there
        }
    }

    /// Removes what is left of the directory.
    pub(super) fn clear(&self) {
        for life in self.lives().unwrap_or_default() {
            self.remove(life);
        }
        let _ = fs::remove_dir(&self.0); // it may not be there
    }
}

/// Frees the whole blocks from one place of the file to another, and says up to where; a file system that cannot keeps them.
pub(super) fn free(file: &File, from: u64, up_to: u64) -> io::Result<u64> {
    let up_to = up_to / BLOCK * BLOCK;
    if up_to <= from {
        return Ok(from);
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, from, up_to - from) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Ok(up_to),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_read_is_freed_and_known_afterwards() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::of(home.path());
        assert_eq!(place.lives().unwrap(), []);
        place.lay(Life(7), None).unwrap();
        let mut writer = OpenOptions::new().append(true).open(place.news(Life(7))).unwrap();
        writer.write_all(&[b'x'; 40_000]).unwrap();
        writer.sync_all().unwrap();
        let (file, read) = place.open(Life(7)).unwrap().unwrap();
        assert_eq!((read, free(&file, 0, 4095).unwrap(), free(&file, 0, 39_000).unwrap()), (0, 0, 36_864));
        place.note(Life(7), 39_000).unwrap();
        writer.write_all(b"more").unwrap();
        let (file, read) = place.open(Life(7)).unwrap().unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((read, found.len()), (39_000, 40_004));
        assert!(found.blocks() * 512 <= 16 << 10, "{} blocks are left", found.blocks());
        assert_eq!(place.open(Life(8)).unwrap().map(|(_, read)| read), None);
        place.lay(Life(8), None).unwrap();
        assert_eq!(place.lives().unwrap(), [Life(7), Life(8)]);
        place.clear();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_file_is_refused_and_waited_for_by_nobody() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::of(home.path());
        place.lay(Life(1), None).unwrap();
        for path in [place.news(Life(1)), place.questions(Life(1))] {
            fs::remove_file(&path).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        }
        assert!(place.open(Life(1)).is_err() && place.open_questions(Life(1)).is_err());
        fs::remove_file(place.news(Life(1))).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", place.news(Life(1))).unwrap();
        assert!(place.open(Life(1)).is_err());
    }
}

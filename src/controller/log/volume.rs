//! The directory that holds the log's segments. Each is a file named after the number of its first entry.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::LogError;
use crate::model::Timestamp;

/// Where segments are kept. What was written is durable when a call returns without an error.
pub trait Volume: Send + 'static {
    /// Every segment, in order.
    fn list(&self) -> io::Result<Vec<Held>>;
    /// At most `most` bytes of a segment, from there on; fewer where it ends.
    fn read(&self, segment: u64, from: u64, most: u64) -> io::Result<Vec<u8>>;
    /// Makes a segment, whole or not at all; one that is there already gives way.
    fn create(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()>;
    /// Appends to the segment that was made last, or to the last of all. How much of it was written after an error is unknown.
    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a segment off behind that many bytes.
    fn cut(&mut self, segment: u64, length: u64) -> io::Result<()>;
    fn remove(&mut self, segment: u64) -> io::Result<()>;
    /// Moves a segment out of the way, for a person to look at.
    fn set_aside(&mut self, segment: u64) -> io::Result<()>;
    /// The same place for another thread, to read there.
    fn for_reading(&self) -> Self;
    /// What people call it.
    fn name(&self) -> String;
}

/// A segment as it lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its name: the number of its first entry.
    pub segment: u64,
    /// In bytes.
    pub length: u64,
    /// When it was written to last.
    pub written: Timestamp,
}

/// A directory of the file system.
///
/// It is made anew, and what comes next is written there, if somebody removes or moves it: what was appended to last is
/// read on from the file that is held open, so what the log came to up to there is not forgotten.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as this is the log of a live process.
    lock: Option<File>,
    /// What is appended to.
    open: Option<(u64, File)>,
}

const ENDING: &str = ".log";

impl Directory {
    /// Makes the directory if it is not there, and keeps other processes out of it.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let lock = take(path).map_err(|source| LogError::Make { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), lock: Some(lock), open: None })
    }

    /// Whether the directory is another than the one that was locked, or none.
    fn is_gone(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| !is_at(lock, &self.path))
    }

    fn file(&self, segment: u64) -> PathBuf {
        self.path.join(file_name(segment))
    }

    /// Makes names durable, too.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Makes the directory if it is not there, and keeps other processes out of it.
fn take(path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let lock = File::open(path)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another controller has its log there")),
        // Where the file system knows no locks the owner of the directory has to know what is done with it.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(lock),
    }
}

fn file_name(segment: u64) -> String {
    format!("{segment:020}{ENDING}")
}

fn read(file: &File, from: u64, most: u64) -> io::Result<Vec<u8>> {
    // What is there bounds what is made room for.
    let there = file.metadata()?.len().saturating_sub(from).min(most);
    let mut bytes = vec![0; usize::try_from(there).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Whether that is what lies there.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |about: io::Result<Metadata>| about.ok().map(|about| (about.dev(), about.ino()));
    place(file.metadata()).is_some_and(|held| place(fs::metadata(path)) == Some(held))
}

impl Volume for Directory {
    fn list(&self) -> io::Result<Vec<Held>> {
        let mut held = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(ENDING)).filter(|number| number.len() == 20);
            let Some(segment) = number.and_then(|number| number.parse().ok()) else { continue };
            let about = entry.metadata()?;
            let since = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let written = Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
            held.push(Held { segment, length: about.len(), written });
        }
        held.sort_by_key(|held| held.segment);
        Ok(held)
    }

    fn read(&self, segment: u64, from: u64, most: u64) -> io::Result<Vec<u8>> {
        match &self.open {
            Some((open, file)) if *open == segment => read(file, from, most),
            _ => read(&File::open(self.file(segment))?, from, most),
        }
    }

    fn create(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_gone() {
            self.lock = Some(take(&self.path)?);
        }
        let (path, fresh) = (self.file(segment), self.path.join("new"));
        let _ = fs::remove_file(&fresh); // half of one that a crash left is in the way
        let mut file = OpenOptions::new().create_new(true).read(true).append(true).mode(0o600).open(&fresh)?;
        let made = file.write_all(bytes).and_then(|()| file.sync_all());
        let made = made.and_then(|()| fs::rename(&fresh, &path)).and_then(|()| self.sync());
        match made {
            // Only now: what was appended to before may be nowhere else.
            Ok(()) => self.open = Some((segment, file)),
            Err(_) => drop(fs::remove_file(&fresh)), // on a full disk half a file is in the way
        }
        made
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let file = OpenOptions::new().read(true).append(true).open(self.file(segment))?;
            self.open = Some((segment, file));
        }
        let Some((_, file)) = &mut self.open else { return Ok(()) };
        file.write_all(bytes)?;
        file.sync_data()?;
        // It can be written as well as ever, and be gone with this process.
        match is_at(file, &self.path.join(file_name(segment))) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::NotFound, "somebody removed or moved it")),
        }
    }

    fn cut(&mut self, segment: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        match fs::remove_file(self.file(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn set_aside(&mut self, segment: u64) -> io::Result<()> {
        fs::rename(self.file(segment), self.path.join(format!("{segment:020}.damaged")))?;
        self.sync()
    }

    fn for_reading(&self) -> Self {
        Self { path: self.path.clone(), lock: None, open: None }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_its_owner_reads_the_log() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("log");
        let mut directory = Directory::open(&path).unwrap();
        directory.create(7, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&directory.file(7))), (0o700, 0o600));
    }

    #[test]
    fn a_log_belongs_to_one_controller() {
        let home = TempDir::new().unwrap();
        let first = Directory::open(home.path()).unwrap();
        let error = Directory::open(home.path()).unwrap_err();
        assert!(error.to_string().contains(home.path().to_str().unwrap()), "{error}");
        drop(first);
        Directory::open(home.path()).unwrap();
    }

    #[test]
    fn what_is_written_into_a_file_that_was_removed_is_not_kept() {
        let home = TempDir::new().unwrap();
        let mut directory = Directory::open(home.path()).unwrap();
        directory.create(1, b"head").unwrap();
        directory.append(1, b" and more").unwrap();
        fs::remove_file(directory.file(1)).unwrap();
        let error = directory.append(1, b" and more").unwrap_err();
        assert!(error.to_string().contains("somebody removed or moved it"), "{error}");
    }

    #[test]
    fn a_directory_that_was_moved_is_made_anew_and_what_was_written_last_is_read_where_it_is() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("log");
        let mut directory = Directory::open(&path).unwrap();
        directory.create(1, b"head").unwrap();
        fs::rename(&path, home.path().join("elsewhere")).unwrap();
        directory.append(1, b" and more").unwrap_err();
        assert_eq!(directory.read(1, 0, 4).unwrap(), b"head");
        directory.create(7, b"head").unwrap();
        directory.append(7, b" and more").unwrap();
        assert_eq!(directory.read(7, 0, 99).unwrap(), b"head and more");
        Directory::open(&path).expect_err("it is kept from others");
    }

    #[test]
    fn segments_are_listed_by_number_and_other_files_left_alone() {
        let home = TempDir::new().unwrap();
        let mut directory = Directory::open(home.path()).unwrap();
        for segment in [30, 4, 200] {
            directory.create(segment, b"head").unwrap();
        }
        for other in ["notes.txt", "7.log", "00000000000000000009.damaged"] {
            fs::write(home.path().join(other), "x").unwrap();
        }
        directory.append(200, b" and more").unwrap();
        directory.cut(30, 2).unwrap();
        let list = |directory: &Directory| -> Vec<_> {
            directory.list().unwrap().into_iter().map(|held| (held.segment, held.length)).collect()
        };
        assert_eq!(list(&directory), [(4, 4), (30, 2), (200, 13)]);
        assert_eq!(directory.for_reading().read(200, 5, 3).unwrap(), b"and");
        directory.remove(4).unwrap();
        directory.set_aside(30).unwrap();
        assert_eq!(list(&directory), [(200, 13)]);
        assert!(home.path().join("00000000000000000030.damaged").exists());
    }
}

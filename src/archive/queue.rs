//! The working directory of a node, and its queue: read with suspicion, since both may be another user's.
//!
//! What a link leads to, what is no plain file, and what is not of the user whose the queue is, is left alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::QUEUE;
use super::name::{Moment, Rotated, left_open};
use crate::supervisor::process::local_time;

/// What Zeek writes beside a log that is open, before its name.
const MARK: &str = ".shadow.";
/// In so many bytes a log says when it was opened.
const HEAD: u64 = 4096;
/// So many logs of one second find a name.
const MOST_OF_A_SECOND: i64 = 60;
/// The most files that are looked at in one go.
const MOST: usize = 10_000;

/// An open queue.
#[derive(Debug)]
pub struct Queue {
    directory: OwnedFd,
    owner: u32,
}

/// What is in a queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Logs, those that were closed first before the others.
    pub logs: Vec<(String, Rotated)>,
    /// Plain files whose names do not tell what they are.
    pub others: Vec<String>,
}

impl Queue {
    /// The queue in that working directory; `None` if there is none.
    pub fn open(home: &Path) -> io::Result<Option<Self>> {
        let Some(home) = working_directory(home)? else { return Ok(None) };
        Self::below(&home)
    }

    /// The same, made if it is missing, for the user whose the working directory is; `None` if there is no such directory.
    pub fn make(home: &Path) -> io::Result<Option<Self>> {
        let Some(home) = working_directory(home)? else { return Ok(None) };
        let owner = rustix::fs::fstat(&home)?;
        make(&home, &owner)?;
        Self::below(&home)
    }

    fn below(home: &OwnedFd) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(home, QUEUE, flags, Mode::empty()) {
            Ok(directory) => {
                let owner = rustix::fs::fstat(&directory)?.st_uid;
                Ok(Some(Self { directory, owner }))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Everything in it, at most some thousand files.
    pub fn list(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in Dir::read_from(&self.directory)?.take(MOST) {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') || !self.is_ours(name)? {
                continue;
            }
            match Rotated::read(name) {
                Some(rotated) => found.logs.push((name.to_owned(), rotated)),
                None => found.others.push(name.to_owned()),
            }
        }
        found.logs.sort_by(|(a, one), (b, other)| (one.closed, a).cmp(&(other.closed, b)));
        found.others.sort();
        Ok(found)
    }

    /// A file of it for reading; `None` if it is not there, or none to be read.
    pub fn file(&self, name: &str) -> io::Result<Option<File>> {
        let file = plain(&self.directory, name)?;
        let is_ours = |file: &File| file.metadata().is_ok_and(|found| self.owns(found.uid()));
        Ok(file.filter(is_ours))
    }

    /// Removes a file that is in the archive.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn is_ours(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(is_plain(&stat) && self.owns(stat.st_uid)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whoever could put a hard link there could put one there to somebody else's file.
    fn owns(&self, uid: u32) -> bool {
        uid == self.owner || self.owner == rustix::process::geteuid().as_raw()
    }
}

/// Moves the logs that a life has left open into the queue, and returns how many. Nobody writes to them any more: the next
/// life would begin by emptying them. In a directory that is not the agent's only those
/// that Zeek has marked, or that begin as its logs do, are logs.
pub fn rescue(home: &Path, is_own: bool) -> io::Result<usize> {
    let Some(home) = working_directory(home)? else { return Ok(0) };
    let mut left = Vec::new();
    for entry in Dir::read_from(&home)?.take(MOST) {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if left_open(name).is_some() && (is_own || mark(&home, name).is_some() || begins_as_a_log(&home, name)?) {
            left.push(name.to_owned());
        }
    }
    if left.is_empty() {
        return Ok(0);
    }
    left.sort();
    make(&home, &rustix::fs::fstat(&home)?)?;
    let Some(queue) = Queue::below(&home)? else { return Err(io::Error::other("its queue is no directory")) };
    let mut moved = 0;
    for name in left {
        if let Some(file) = plain(&home, &name)? {
            shift(&home, &queue.directory, &name, &file)?;
            moved += 1;
        }
    }
    Ok(moved)
}

fn shift(home: &OwnedFd, queue: &OwnedFd, name: &str, file: &File) -> io::Result<()> {
    let Some((stem, extension)) = left_open(name) else { return Ok(()) };
    let metadata = file.metadata()?;
    let closed = metadata.mtime();
    let began = mark(home, name).or_else(|| metadata.created().ok().and_then(seconds)).unwrap_or(closed);
    let opened = opening(file).or_else(|| moment(began.min(closed)));
    for late in 0..MOST_OF_A_SECOND {
        let (Some(opened), Some(closed)) = (opened, moment(closed + late)) else {
            return Err(io::Error::other(format!("{name} is of no time that there is")));
        };
        let rotated = Rotated { stem: stem.into(), opened, closed, logger: None, extension: extension.into() };
        match rename_new(home, name, queue, &rotated.queued()) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
            Ok(()) => {
                // Zeek would make nothing of the mark of a log that is gone but remove it.
                let _ = rustix::fs::unlinkat(home, format!("{MARK}{name}"), AtFlags::empty());
                return Ok(());
            }
        }
    }
    Err(Errno::EXIST.into())
}

/// Renames to a name that nothing has.
pub(super) fn rename_new(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // Not every file system can do it in one step; nobody else makes such names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            match rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(from, old, to, new),
                Err(errno) => Err(errno),
            }
        }
        renamed => renamed,
    }
}

/// When a log says that it was opened, in a line of its own.
fn opening(file: &File) -> Option<Moment> {
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).ok()?;
    let line = head.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"#open"))?;
    Moment::read(std::str::from_utf8(line).ok()?.trim())
}

/// When Zeek marked a log as open, in seconds; `None` if it did not.
fn mark(home: &OwnedFd, name: &str) -> Option<i64> {
    let stat = rustix::fs::statat(home, format!("{MARK}{name}"), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    is_plain(&stat).then_some(stat.st_mtime)
}

/// Whether a file begins as logs of Zeek do, which never closes some of them and so marks none: with its header, or with the time
/// that stands first in JSON.
fn begins_as_a_log(home: &OwnedFd, name: &str) -> io::Result<bool> {
    const HEADS: [&[u8]; 2] = [b"#separator ", b"{\"ts\":"];
    let Some(file) = plain(home, name)? else { return Ok(false) };
    let mut head = Vec::new();
    file.take(16).read_to_end(&mut head)?;
    Ok(HEADS.iter().any(|begin| head.starts_with(begin)))
}

/// A time of the system as local time.
fn moment(seconds: i64) -> Option<Moment> {
    let [year, month, day, hour, minute, second] = local_time(seconds)?;
    let small = |number: i32| u8::try_from(number).ok();
    Some(Moment {
        year: u16::try_from(year).ok().filter(|year| *year <= 9999)?,
        month: small(month)?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
    })
}

fn seconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn make(home: &OwnedFd, owner: &Stat) -> io::Result<()> {
    match rustix::fs::mkdirat(home, QUEUE, Mode::from_raw_mode(0o750)) {
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    if owner.st_uid != rustix::process::geteuid().as_raw() {
        // Not through a link that somebody may have put there meanwhile.
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.st_uid), rustix::fs::Gid::from_raw(owner.st_gid));
        rustix::fs::chownat(home, QUEUE, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn working_directory(path: &Path) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A plain file for reading; `None` if there is none.
fn plain(directory: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    // A link could lead to what is not the node's, and a pipe would make us wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) if is_plain(&rustix::fs::fstat(&file)?) => Ok(Some(file.into())),
        Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONN: &str = "conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log";

    #[test]
    fn a_queue_lists_its_logs_in_the_order_in_which_they_were_closed() {
        let home = tempfile::tempdir().unwrap();
        assert!(Queue::open(home.path()).unwrap().is_none());
        assert!(Queue::make(&home.path().join("nowhere")).unwrap().is_none());
        let queue = Queue::make(home.path()).unwrap().unwrap();
        let path = home.path().join(QUEUE);
        let earlier = "dns__2026-01-31-09-00-00__2026-01-31-10-00-00__.log";
        for name in [CONN, earlier, "notes", ".hidden"] {
            fs::write(path.join(name), name).unwrap();
        }
        fs::create_dir(path.join("http__2026-01-31-09-00-00__2026-01-31-10-00-00__.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path.join(format!("x{CONN}"))).unwrap();
        let found = queue.list().unwrap();
        assert_eq!(found.logs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [earlier, CONN]);
        assert_eq!(found.others, ["notes"]);
        assert!(queue.file(&format!("x{CONN}")).unwrap().is_none(), "not through a link");
        queue.remove(CONN).unwrap();
        queue.remove(CONN).unwrap();
        assert!(queue.file(CONN).unwrap().is_none() && queue.file(earlier).unwrap().is_some());
    }

    #[test]
    fn a_queue_that_is_a_link_is_none() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("other")).unwrap();
        std::os::unix::fs::symlink("other", home.path().join(QUEUE)).unwrap();
        assert!(Queue::make(home.path()).unwrap().is_none());
        fs::write(home.path().join("conn.log"), "").unwrap();
        assert_eq!(rescue(home.path(), true).unwrap_err().to_string(), "its queue is no directory");
        assert!(home.path().join("conn.log").exists());
    }

    #[test]
    fn logs_that_were_left_open_go_into_the_queue_with_the_times_that_they_tell() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        write("conn.log", "#separator \\x09\n#open\t2026-01-31-10-00-00\n1\t2\n");
        write(".shadow.conn.log", ".log\n\n");
        write("json.log", "{}\n");
        write("stdout", "no log\n");
        assert_eq!(rescue(home.path(), true).unwrap(), 2);
        let found = Queue::open(home.path()).unwrap().unwrap().list().unwrap();
        let names: Vec<_> = found.logs.iter().map(|(_, log)| (log.stem.as_str(), log.extension.as_str())).collect();
        assert_eq!((names, found.others), (vec![("conn", ".log"), ("json", ".log")], vec![]));
        assert_eq!(found.logs[0].1.opened.to_string(), "2026-01-31-10-00-00");
        let mut left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [QUEUE, "stdout"]);
        // The next one of the same moment finds a name of its own.
        write("conn.log", "#open\t2026-01-31-10-00-00\n3\n");
        let queued = home.path().join(QUEUE).join(&found.logs[0].0);
        let modified = fs::metadata(&queued).unwrap().modified().unwrap();
        File::options().write(true).open(home.path().join("conn.log")).unwrap().set_modified(modified).unwrap();
        assert_eq!(rescue(home.path(), true).unwrap(), 1);
        assert_eq!(Queue::open(home.path()).unwrap().unwrap().list().unwrap().logs.len(), 3);
    }

    #[test]
    fn in_a_directory_of_somebody_elses_choice_only_what_zeek_has_marked_or_begun_is_a_log() {
        let home = tempfile::tempdir().unwrap();
        for name in ["conn.log", "dns.log", ".shadow.dns.log"] {
            fs::write(home.path().join(name), name).unwrap();
        }
        // Those of a rotation interval of 0 have no mark.
        fs::write(home.path().join("http.log"), "#separator \\x09\n#open\t2026-01-31-10-00-00\n").unwrap();
        fs::write(home.path().join("ssl.log"), "{\"ts\":1.5}\n").unwrap();
        std::os::unix::fs::symlink("http.log", home.path().join("link.log")).unwrap();
        assert_eq!(rescue(home.path(), false).unwrap(), 3);
        let mut left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["conn.log", "link.log", QUEUE]);
        assert_eq!(rescue(&home.path().join("nowhere"), true).unwrap(), 0);
    }
}

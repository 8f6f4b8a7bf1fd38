//! The lock of a state directory, and who has it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{LOCK, StateDirError, write_error};

/// Who has the directory already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Who took it; the pid is unknown between the lock and the word about it, and where that word cannot be read.
    Daemon(Option<u32>),
    /// A process that is just starting, or that the daemon before was about to launch when it ended: that one has what its
    /// daemon had until it runs its program.
    Starting { pid: u32, before: u32 },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Daemon(None) => f.write_str("another process: stop that process"),
            Self::Daemon(Some(pid)) => write!(f, "process {pid}: stop that process"),
            Self::Starting { pid, before } => write!(
                f,
                "process {pid}, which is just starting, or which process {before} was about to launch when it ended: try \
                 again in a moment, and end {pid} if that does not help"
            ),
        }
    }
}

/// Locks the directory. Our pid is still to be left in the lock file, for whoever comes second.
pub(super) fn lock(directory: &Path) -> Result<File, StateDirError> {
    let path = directory.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(write_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateDirError::Taken { path: directory.to_owned(), by: holder(&file) }),
        Err(TryLockError::Error(source)) => Err(StateDirError::Write { path, source }),
    }
}

fn holder(lock: &File) -> Holder {
    let mut text = String::new();
    let daemon = lock.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    let (Some(before), Ok(metadata)) = (daemon, lock.metadata()) else { return Holder::Daemon(daemon) };
    let file = (metadata.dev(), metadata.ino());
    match has_locked(before, file) {
        Ok(false) => {}
        // Also where it is another user's, or in a pid namespace that cannot be looked into: then its word has to do.
        Ok(true) => return Holder::Daemon(daemon),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Holder::Daemon(daemon),
        Err(_) => {}
    }
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let mut pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let starting = pids.find(|pid| has_locked(*pid, file).unwrap_or(false));
    starting.map_or(Holder::Daemon(daemon), |pid| Holder::Starting { pid, before })
}

/// Whether that process has this file not only open, but locked.
fn has_locked(pid: u32, file: (u64, u64)) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // Whatever is closed meanwhile is not what is looked for.
        let is_it = fs::metadata(entry.path()).is_ok_and(|found| (found.dev(), found.ino()) == file);
        let info = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
        if is_it && fs::read_to_string(info).is_ok_and(|info| info.contains("FLOCK")) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn whoever_still_has_what_its_daemon_had_is_named_and_who_only_reads_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        // No process has this number: it is above the highest that the kernel gives out.
        fs::write(directory.path().join(LOCK), "4194305\n").unwrap();
        let cat = |output: Stdio| Command::new("cat").stdin(Stdio::piped()).stdout(output).spawn().unwrap();
        let _reader = End(cat(Stdio::from(File::open(directory.path().join(LOCK)).unwrap())));
        let newborn = End(cat(Stdio::from(held.try_clone().unwrap())));
        drop(held);
        let pid = newborn.0.id();
        let named =
            format!("is in use by process {pid}, which is just starting, or which process 4194305 was about to");
        // What other tests start has our descriptors, too, until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !lock(directory.path()).unwrap_err().to_string().contains(&named) {
            assert!(Instant::now() < deadline, "{}", lock(directory.path()).unwrap_err());
        }
        drop(newborn);
        while let Err(error) = lock(directory.path()) {
            assert!(Instant::now() < deadline, "{error}");
        }
    }

    /// Ends it, also where the test fails.
    struct End(Child);

    impl Drop for End {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

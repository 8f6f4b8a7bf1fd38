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
    /// A process that a daemon, which is gone, was about to launch: it has what its daemon had until it is its program.
    Newborn { pid: u32, daemon: u32 },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Daemon(None) => f.write_str("another process: stop that process"),
            Self::Daemon(Some(pid)) => write!(f, "process {pid}: stop that process"),
            Self::Newborn { pid, daemon } => write!(
                f,
                "process {pid}, which process {daemon} was about to launch when it ended: try again once {pid} runs its \
                 program or has ended; kill it if it does neither"
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
    let Some(daemon) = daemon else { return Holder::Daemon(None) };
    if Path::new(&format!("/proc/{daemon}")).exists() {
        return Holder::Daemon(Some(daemon));
    }
    // Nobody who can be seen has it where it was taken in another pid namespace.
    let newborn = who_has(lock).ok().flatten();
    newborn.map_or(Holder::Daemon(Some(daemon)), |pid| Holder::Newborn { pid, daemon })
}

/// A process other than ours that has this file open.
fn who_has(file: &File) -> io::Result<Option<u32>> {
    let wanted = file.metadata().map(|found| (found.dev(), found.ino()))?;
    let has_it = |pid: &u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let found = open.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
        found.map(|found| (found.dev(), found.ino())).any(|found| found == wanted)
    };
    let all = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(all.filter(|pid| *pid != std::process::id()).find(has_it))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn whoever_still_has_what_its_daemon_had_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        // No process has this number: it is above the highest that the kernel gives out.
        fs::write(directory.path().join(LOCK), "4194305\n").unwrap();
        let mut newborn =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::from(held.try_clone().unwrap())).spawn().unwrap();
        drop(held);
        let refusal = lock(directory.path()).unwrap_err().to_string();
        let pid = newborn.id();
        let named = format!("is in use by process {pid}, which process 4194305 was about to launch when it ended");
        assert!(refusal.contains(&named) && refusal.contains(&format!("once {pid} runs its program")), "{refusal}");
        drop(newborn.stdin.take());
        newborn.wait().unwrap();
        lock(directory.path()).unwrap();
    }
}

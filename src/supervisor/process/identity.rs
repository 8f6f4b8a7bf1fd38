//! What makes a pid a name: the boot and the pid namespace that it belongs to, its start time, and the number of its pidfd.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::stat::Stat;

/// A process, within a boot and a pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// In clock ticks since boot, as in `/proc/PID/stat`. Where processes come and go fast enough, two may have the same pid
    /// within one.
    pub start_time: u64,
    /// The inode number of its pidfd, which no two have in one boot; `None` if the kernel gave none, or nobody asked.
    pub number: Option<u64>,
}

impl Identity {
    /// By pid and start time alone.
    pub fn new(pid: u32, start_time: u64) -> Self {
        Self { pid, start_time, number: None }
    }
}

/// The kernel's name for this boot: another one after every reboot.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The number of our pid namespace: a container has another one than its host.
pub fn pid_namespace() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Names a directory for as long as it is there: no other has the same name meanwhile, and it keeps it when it is moved.
pub fn place(directory: &Path) -> io::Result<String> {
    let directory = std::fs::metadata(directory)?;
    Ok(format!("{:x}-{:x}", directory.dev(), directory.ino()))
}

/// When this process started, in clock ticks since boot; `None` if there is none under this number.
pub fn start_time(pid: u32) -> io::Result<Option<u64>> {
    Ok(Stat::of(pid)?.map(|stat| stat.start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_one_name() {
        let id = boot_id().unwrap();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(id, boot_id().unwrap());
    }

    #[test]
    fn the_pid_namespace_is_the_one_that_proc_shows() {
        let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(link.to_str().unwrap(), format!("pid:[{}]", pid_namespace().unwrap()));
    }

    #[test]
    fn a_number_that_nobody_has_started_never() {
        assert_eq!(start_time(u32::MAX).unwrap(), None);
        assert!(start_time(std::process::id()).unwrap().is_some());
    }
}

//! What there is to know of a machine, each looked up or tried out once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit};

use super::service::Unit;
use crate::model::Abilities;
use crate::supervisor::process::groups::{Groups, Place, abilities};
use crate::supervisor::process::oom::KernelLog;
use crate::supervisor::process::tells_how_the_reaped_ended;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Where {
    pub state_dir: PathBuf,
    pub cluster: String,
    /// Where nodes are to have control groups.
    pub cgroup: Place,
    /// The agent's unit.
    pub unit: String,
}

/// What is so.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `None`: systemd has no such unit.
    pub unit: Option<Unit>,
    pub abilities: Abilities,
    /// Whether nodes have control groups outside of that of the agent.
    pub apart: bool,
    pub pidfd: bool,
    /// Whether the kernel tells how a process ended that somebody else reaped.
    pub tells_reaped: bool,
    pub kernel_log: bool,
    pub core_pattern: Option<String>,
    /// How many files may be open, at the most; `None` is without end.
    pub descriptors: Option<u64>,
    pub state_dir: StateDir,
    /// By the clock of the machine.
    pub now: SystemTime,
    /// When something in the state directory was changed last.
    pub last_change: Option<SystemTime>,
    pub root: bool,
    /// A bit for each capability.
    pub capabilities: u64,
    /// What Yama lets processes do to each other; `None`: it is not there.
    pub ptrace_scope: Option<u8>,
}

/// The state directory, or the nearest directory above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    pub path: PathBuf,
    pub is_there: bool,
    pub writable: bool,
    /// Bytes that are free there for us, and all of them.
    pub room: Option<(u64, u64)>,
}

/// Finds out. Which limits there can be is tried as an agent tries it: the group that is made for it is gone afterwards, but
/// those above stay and go on handing their controllers down, as they do where an agent was.
pub fn gather(place: &Where) -> Facts {
    let nodes = nearest(&place.state_dir.join("nodes"));
    let groups = Groups::open(&place.cgroup, &place.cluster, &nodes);
    Facts {
        unit: Unit::ask(&place.unit),
        apart: groups.as_ref().is_ok_and(Groups::is_outside_ours),
        abilities: abilities(&groups),
        pidfd: rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).is_ok(),
        tells_reaped: tells_reaped().unwrap_or(false),
        kernel_log: KernelLog::open().is_readable(),
        core_pattern: line("/proc/sys/kernel/core_pattern"),
        descriptors: getrlimit(Resource::Nofile).maximum,
        state_dir: state_dir(&place.state_dir),
        now: SystemTime::now(),
        last_change: last_change(&place.state_dir),
        root: rustix::process::geteuid().is_root(),
        capabilities: fs::read_to_string("/proc/self/status").map_or(0, |status| effective(&status)),
        ptrace_scope: line("/proc/sys/kernel/yama/ptrace_scope").and_then(|scope| scope.parse().ok()),
    }
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Has a process end and be reaped, and asks.
fn tells_reaped() -> Option<bool> {
    let mut child =
        Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    child.wait().ok()?;
    Some(tells_how_the_reaped_ended(pidfd?))
}

fn state_dir(path: &Path) -> StateDir {
    let nearest = nearest(path);
    let room = rustix::fs::statvfs(&nearest).ok();
    StateDir {
        is_there: nearest == path,
        writable: rustix::fs::accessat(CWD, &nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok(),
        room: room
            .map(|room| (room.f_bavail.saturating_mul(room.f_frsize), room.f_blocks.saturating_mul(room.f_frsize))),
        path: nearest,
    }
}

/// The path, or what there is of it.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn last_change(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// The capabilities in force, by `/proc/PID/status`.
fn effective(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// The least that may be after a change without a clock being wrong.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_looked_at() {
        let home = tempfile::tempdir().unwrap();
        let (cluster, unit) = ("doctor-test".into(), "no-such-unit.service".into());
        let state_dir = home.path().join("not/there");
        let facts = gather(&Where { state_dir, cluster, cgroup: Place::Nowhere, unit });
        assert_eq!(facts.unit, None);
        assert!(facts.pidfd && !facts.apart);
        assert_eq!(facts.abilities.killing, Err("the settings want none".into()));
        let StateDir { path, is_there, writable, room } = facts.state_dir;
        assert_eq!((path.as_path(), is_there, writable), (home.path(), false, true));
        assert!(room.is_some_and(|(free, all)| free <= all && all > 0));
        assert!(!home.path().join("not").exists(), "nothing was made");
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000000000c0\nCapBnd:\tff\n"), 0xc0);
        for text in ["", "CapEff:\tx\n", "CapEff:\n"] {
            assert_eq!(effective(text), 0, "{text}");
        }
    }
}

//! What really runs, as the kernel tells it.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The pids whose `WATCHPOST_NODE` begins like this, sorted.
pub fn marked(prefix: &str) -> Vec<u32> {
    let marker = format!("WATCHPOST_NODE={prefix}");
    let is_marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(marker.as_bytes()))
    };
    all().filter(is_marked).collect()
}

/// The pids whose working directory is in `directory`, or was when it was there.
pub fn working_in(directory: &Path) -> Vec<u32> {
    let is_there = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    all().filter(is_there).collect()
}

/// Whether the process is there, and no zombie.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).first().is_some_and(|state| !["Z", "X"].contains(&&**state))
}

/// When it was started, in clock ticks since the machine was.
pub fn started(pid: u32) -> u64 {
    stat(pid)[19].parse().unwrap()
}

/// The same; `None` if there is no such process.
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub fn born(pid: u32) -> Option<u64> {
    stat(pid).get(19)?.parse().ok()
}

/// The processes whose parent that is, dead or alive.
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    all().filter(|pid| stat(*pid).get(1) == Some(&parent)).collect()
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot send {signal:?} to {pid:?}: {error}"));
}

/// Kills what `look` finds until it twice finds nothing: what is in the middle of exec is seen by neither of its marks.
pub fn kill_all(look: impl Fn() -> Vec<u32>) {
    let mut clean = 0;
    while clean < 2 {
        let found: Vec<_> = look().into_iter().filter(|pid| is_alive(*pid)).collect();
        clean = if found.is_empty() { clean + 1 } else { 0 };
        for pid in found {
            // Gone already, or it will be found again.
            let _ = kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL);
        }
    }
}

/// Removes the control groups of agents whose name begins like this, and which nobody is in any more.
pub fn forget_groups(prefix: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let tops = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let tops = tops.filter_map(|line| line.split(' ').nth(1));
    let directories = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    for agent in tops.flat_map(|top| directories(&Path::new(top).join("watchpost"))) {
        if agent.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            directories(&agent).iter().chain([&agent]).for_each(|group| drop(fs::remove_dir(group)));
        }
    }
}

/// The signals that each of a process's threads holds back, a bit for each.
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub fn blocked(pid: u32) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok());
    let blocked = status.map(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        u64::from_str_radix(line, 16).unwrap()
    });
    blocked.collect()
}

/// The resident memory of a process, in KiB.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many files, sockets and the like a process has open.
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What `/proc/PID/stat` says behind the name, beginning with the state; empty if there is no such process.
fn stat(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, also parentheses.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').map(str::to_owned).collect());
    rest.unwrap_or_default()
}

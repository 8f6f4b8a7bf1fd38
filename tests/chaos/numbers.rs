//! Pids: few, soon used again, and given to bystanders who write down every signal that they get.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::common::processes;

/// The kernel gives out no number below again once it has come to the end.
const RESERVED: u32 = 300;
/// So many numbers are in use over and over.
const FEW: u32 = 260;

/// Leaves only a few numbers, where the kernel can (Linux 6.14); else they are made to begin again: see [`churn`].
pub fn leave_few() -> bool {
    let few = (RESERVED + FEW).to_string();
    // Older kernels have one limit for the whole machine: that is left alone.
    let is_own = fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| {
        let mut parts = release.split('.').filter_map(|part| part.parse::<u32>().ok());
        (parts.next(), parts.next()) >= (Some(6), Some(14))
    });
    is_own && fs::write("/proc/sys/kernel/pid_max", few).is_ok()
}

/// Has so many short-lived processes take the next numbers: after the last of the few, or of so many, the first again.
pub fn churn(count: usize) {
    for _ in 0..count {
        begin_again_beyond(RESERVED + FEW);
        // Where no number is left for the moment there is churn enough.
        let _ = Command::new("true").stdin(Stdio::null()).status();
    }
}

/// Has the kernel go on with the first number once it has given out this one, should it have more than that.
fn begin_again_beyond(last: u32) {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let given_out = fs::read_to_string(LAST).ok().and_then(|number| number.trim().parse::<u32>().ok());
    if given_out.is_some_and(|number| number > last) {
        // Where it cannot be told, numbers come back later, or not at all.
        let _ = fs::write(LAST, RESERVED.to_string());
    }
}

/// Reaps the orphans that this process was given, as a lazy init does. Those in `ours`, and those in our session, have
/// somebody who waits for them.
pub fn reap_orphans(ours: &[u32]) {
    let session = session_of(std::process::id());
    for pid in processes::children_of(std::process::id()).into_iter().filter(|pid| !ours.contains(pid)) {
        if let Some(number) = Pid::from_raw(pid as i32).filter(|_| session_of(pid) != session) {
            let _ = waitid(WaitId::Pid(number), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// The session of a process, dead or alive; 0 where it began outside our pid namespace.
fn session_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

/// A process that is none of ours and has a number that was a node's.
pub struct Bystander {
    child: Child,
    heard: PathBuf,
}

impl Bystander {
    /// Has one take that very number, if it is free.
    pub fn take(number: u32, directory: &Path) -> Option<Self> {
        let heard = directory.join(format!("heard-by-{number}"));
        let _ = fs::remove_file(&heard);
        let all = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP TTIN TTOU WINCH";
        let script = format!(
            "for s in {all}; do trap \"echo $s >> {heard}\" $s; done; mkfifo {heard}.fifo; exec 3<> {heard}.fifo; \
             echo ready > {heard}.ready; while :; do read line <&3; done",
            heard = heard.display()
        );
        let ready = PathBuf::from(format!("{}.ready", heard.display()));
        let _ = fs::remove_file(&ready);
        let _ = fs::remove_file(format!("{}.fifo", heard.display()));
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).ok()?;
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env_remove("WATCHPOST_NODE").stdin(Stdio::null());
        let child = command.process_group(0).spawn().ok()?;
        let bystander = Self { child, heard };
        if bystander.child.id() != number {
            return None; // somebody was faster, and it goes
        }
        crate::common::eventually("the bystander listens", || ready.exists().then_some(()));
        Some(bystander)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Panics if anybody signalled it.
    pub fn is_unhurt(&self) {
        assert!(processes::is_alive(self.pid()), "bystander {} was killed", self.pid());
        let heard = fs::read_to_string(&self.heard).unwrap_or_default();
        assert!(heard.is_empty(), "bystander {} was signalled: {heard}", self.pid());
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

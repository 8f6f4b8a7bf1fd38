//! One process, named so that no other can be meant.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::identity::Identity;
use super::leaders::Leader;
use super::pidfs;
use super::stat::Stat;
use super::sys::usage::{self, End};
use super::sys::{group, info};
use crate::model::Exit;

/// A process that we started or adopted, alive or not. Whatever is done to it is done to it and never to a later
/// process of the same number.
///
/// Signals to a process that is gone are no error: there is nothing left to do. What remains is the kernel's refusal
/// (`EPERM`, where the process became another user).
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    start_time: u64,
    pidfd: OwnedFd,
    /// Set until we reaped our child: so long its number, and that of its group, are its own.
    unreaped: Mutex<Option<Leader>>,
}

impl Process {
    pub(super) fn born(pid: Pid, start_time: u64, pidfd: OwnedFd, leader: Leader) -> Self {
        Self { pid, start_time, pidfd, unreaped: Mutex::new(Some(leader)) }
    }

    /// Takes up a process that somebody else started (an earlier run of ours, mostly); `None` if it is gone, ended, or
    /// if the number is another process's by now.
    ///
    /// How it ends is known only if the kernel tells those who are not its parent: while it is a zombie that we may look
    /// into, or on Linux 6.15 and later.
    pub fn adopt(who: Identity) -> io::Result<Option<Self>> {
        let Some(number) = number(who.pid) else {
            return Ok(None);
        };
        // First hold on to whoever has the number, then ask who that is: the other way round it could change between.
        let pidfd = match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // INVAL: a thread of that number, no process.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let alive = Stat::of(who.pid)?.is_some_and(|stat| stat.start_time == who.start_time && !stat.is_dead());
        let is_meant = alive && is_of(&pidfd, who);
        Ok(is_meant.then(|| Self { pid: number, start_time: who.start_time, pidfd, unreaped: Mutex::new(None) }))
    }

    /// How a process that somebody else started has ended, as far as the kernel tells.
    pub fn end_of(who: Identity) -> Exit {
        let zombie = opened(who.pid).filter(|(_, pidfd)| is_of(pidfd, who));
        let zombie = zombie.map(|(pid, pidfd)| {
            let start_time = who.start_time;
            Self { pid, start_time, pidfd, unreaped: Mutex::new(None) }
        });
        zombie.and_then(|zombie| zombie.ended_in_proc()).map_or(Exit::Unknown, decoded)
    }

    /// Whether the number of a process that is no more belongs to another by now, which is nobody's to touch.
    pub fn is_given_away(who: Identity) -> bool {
        let began_later = |stat: Stat| stat.start_time != who.start_time;
        Stat::of(who.pid).is_ok_and(|stat| stat.is_some_and(began_later))
            || opened(who.pid).is_some_and(|(_, pidfd)| !is_of(&pidfd, who))
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// By what a later run of ours knows that it is this one.
    pub fn identity(&self) -> Identity {
        Identity { number: pidfs::number(&self.pidfd), ..Identity::new(self.pid(), self.start_time) }
    }

    /// In clock ticks since boot, as in `/proc/PID/stat`.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        sent(rustix::process::pidfd_send_signal(&self.pidfd, signal))
    }

    /// Asks the process and its group to end: SIGTERM, and SIGCONT so that one that was stopped can obey.
    pub fn stop(&self) -> io::Result<()> {
        self.signal_group(Signal::TERM)?;
        self.signal_group(Signal::CONT)
    }

    /// Ends the process and its group: SIGKILL.
    pub fn kill(&self) -> io::Result<()> {
        self.signal_group(Signal::KILL)
    }

    /// Signals the group; where that cannot be done safely (an adopted process, Linux before 6.9), or where the process
    /// leads none, the process alone.
    pub(super) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let mut result = group::signal(&self.pidfd, signal);
        if result == Err(Errno::INVAL) {
            let unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
            result = match *unreaped {
                Some(_) => rustix::process::kill_process_group(self.pid, signal),
                None => Err(Errno::SRCH),
            };
        }
        if result == Err(Errno::SRCH) { self.signal(signal) } else { sent(result) }
    }

    /// Fetches how it ended, once its pidfd says that it did, and leaves it as it is: our child stays a zombie, which
    /// keeps its number, and that of its group, from being given to others.
    pub(super) fn end(&self) -> End {
        let is_ours = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        is_ours.then(|| usage::end(&self.pidfd).ok().flatten()).flatten().unwrap_or_else(|| {
            // Not our child, or its debugger has not let go of it, or somebody else in this program reaped it. The kernel
            // is asked first, since that takes least, and again, since whoever reaps it may have done so meanwhile.
            let kept = || info::wait_status(&self.pidfd);
            let status = kept().or_else(|| self.ended_in_proc()).or_else(kept);
            End { exit: status.map_or(Exit::Unknown, decoded), largest_resident: None }
        })
    }

    /// Reaps it, if it has ended and is our child. From then on its number may be given to another.
    pub(super) fn reap(&self) {
        let mut unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = unreaped.take()
            && let Err(leader) = leader.reap(|| reap(self.pidfd.as_fd(), WaitIdOptions::NOHANG))
        {
            // Its debugger has not let go of it. It stays a zombie, and ours, until it is dropped.
            *unreaped = Some(leader);
        }
    }

    /// The status of a zombie, if the kernel lets us see it.
    fn ended_in_proc(&self) -> Option<i32> {
        let status = self.zombie()?.wait_status;
        if status != 0 {
            return Some(status);
        }
        // 0 also stands for a status that is not for us, so look at something that is kept from the same eyes: a zombie
        // has no directory, and that much is told only to those who may know its status.
        let looked = std::fs::read_link(format!("/proc/{}/cwd", self.pid()));
        let hidden = looked.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        // Nor has one who is gone.
        (!hidden && self.zombie().is_some()).then_some(status)
    }

    fn zombie(&self) -> Option<Stat> {
        Stat::of(self.pid()).ok()?.filter(|stat| stat.start_time == self.start_time && stat.is_dead())
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whoever has that pid now, if anybody.
fn opened(pid: u32) -> Option<(Pid, OwnedFd)> {
    let pid = number(pid)?;
    Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?))
}

/// Whether that pidfd is of this process, as far as its number tells.
fn is_of(pidfd: &OwnedFd, who: Identity) -> bool {
    who.number.is_none_or(|number| pidfs::number(pidfd).is_none_or(|found| found == number))
}

/// `None` for 0 and for what is too large to be a pid.
pub(super) fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Waits for a child of ours that is about to end by itself, and forgets how.
pub(super) fn bury(child: BorrowedFd<'_>) {
    reap(child, WaitIdOptions::empty());
}

/// `None` if it is not over yet.
pub(super) fn reap(child: BorrowedFd<'_>, options: WaitIdOptions) -> Option<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(child), options | WaitIdOptions::EXITED) {
            Ok(status) => return status.map(|status| exit(&status)),
            Err(Errno::INTR) => {}
            // Not our child, or somebody else in this program reaped it.
            Err(_) => return Some(Exit::Unknown),
        }
    }
}

/// Takes a status apart as the macros of `wait` do.
fn decoded(wait_status: i32) -> Exit {
    match wait_status & 0x7f {
        0 => Exit::Status((wait_status >> 8) & 0xff),
        number => Exit::Signal { number, core_dumped: wait_status & 0x80 != 0 },
    }
}

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Exit::Status(status),
        (None, Some(number)) => Exit::Signal { number, core_dumped: status.dumped() },
        (None, None) => Exit::Unknown, // EXITED asks for these two alone
    }
}

fn sent(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spawn;
    use super::super::testing::{finish, has_ended, number_in, script, wait_until};
    use super::*;

    #[test]
    fn a_stopped_process_obeys_a_stop() {
        let home = tempfile::tempdir().unwrap();
        let process =
            spawn(&script(home.path(), "trap 'exit 5' TERM; echo 1 > ready; while :; do sleep 0.01; done"), None);
        let process = process.unwrap();
        number_in(&home.path().join("ready"));
        process.signal(Signal::STOP).unwrap();
        wait_until("it has stopped", || Stat::of(process.pid()).unwrap().unwrap().state == b'T');
        process.stop().unwrap();
        assert_eq!(finish(&process), Exit::Status(5));
    }

    #[test]
    fn a_stop_reaches_the_whole_group() {
        let home = tempfile::tempdir().unwrap();
        let process = spawn(&script(home.path(), "sleep 1000 & echo $! > child; wait"), None).unwrap();
        let child = number_in(&home.path().join("child"));
        process.stop().unwrap();
        assert_eq!(finish(&process), Exit::Signal { number: 15, core_dumped: false });
        wait_until("its child has ended", || Stat::of(child).unwrap().is_none_or(|stat| stat.is_dead()));
    }

    #[test]
    fn what_is_gone_may_be_signalled_in_vain() {
        let home = tempfile::tempdir().unwrap();
        let process = spawn(&script(home.path(), "exit 0"), None).unwrap();
        assert_eq!(finish(&process), Exit::Status(0));
        process.stop().unwrap();
        process.kill().unwrap();
        process.signal(Signal::HUP).unwrap();
    }

    #[test]
    fn a_raw_status_is_taken_apart() {
        for (raw, want) in [
            (0x0000, Exit::Status(0)),
            (0x0600, Exit::Status(6)),
            (0xff00, Exit::Status(255)),
            (0x0009, Exit::Signal { number: 9, core_dumped: false }),
            (0x008b, Exit::Signal { number: 11, core_dumped: true }),
        ] {
            assert_eq!(decoded(raw), want, "{raw:#x}");
        }
    }

    #[test]
    fn systemd_13101_adoption_takes_the_very_same_process_only() {
        let home = tempfile::tempdir().unwrap();
        let process = spawn(&script(home.path(), "exec sleep 1000"), None).unwrap();
        let (pid, start_time) = (process.pid(), process.start_time());
        let who = process.identity();
        let later = Identity { start_time: start_time + 1, ..who };
        // One that got its pid in the same tick.
        let other = Identity { number: who.number.map(|number| number + 1), ..who };
        assert!(Process::adopt(later).unwrap().is_none(), "another start time");
        assert_eq!(Process::adopt(other).unwrap().is_none(), pidfs::is_there(), "another number");
        assert_eq!([later, other, who].map(Process::is_given_away), [true, pidfs::is_there(), false]);
        assert!(Process::adopt(Identity::new(pid, start_time)).unwrap().is_some(), "whose number nobody has noted");
        let adopted = Process::adopt(who).unwrap().unwrap();
        assert_eq!((adopted.identity(), adopted.pid(), adopted.start_time()), (who, pid, start_time));
        adopted.kill().unwrap();
        wait_until("it ends", || has_ended(&process));
        let killed = Exit::Signal { number: 9, core_dumped: false };
        let of_another = if pidfs::is_there() { Exit::Unknown } else { killed };
        assert_eq!([who, later, other].map(Process::end_of), [killed, Exit::Unknown, of_another]);
        assert!(Process::adopt(who).unwrap().is_none(), "a zombie");
        assert_eq!(finish(&process), Exit::Signal { number: 9, core_dumped: false });
        assert!(Process::adopt(who).unwrap().is_none(), "gone");
        for nobody in [0, u32::MAX, i32::MAX as u32] {
            assert!(Process::adopt(Identity::new(nobody, start_time)).unwrap().is_none(), "{nobody}");
        }
    }
}

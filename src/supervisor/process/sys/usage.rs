//! How a child of ours ended, and what it had used by then.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::model::Exit;

/// What the kernel says of a child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub exit: Exit,
    /// The most memory that it had at once, or a child that it waited for, in bytes.
    pub largest_resident: Option<u64>,
}

/// How that child of ours has ended, which stays a zombie; `None` if it has not. An error if it is not our child, or
/// somebody else in this program has reaped it.
pub fn end(pidfd: impl AsFd) -> io::Result<Option<End>> {
    // SAFETY: both are plain numbers, for which zero is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the call writes one of each, and both are ours. Unlike the library's function it has the fifth argument.
    let result = unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, options, &raw mut usage) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: what waitid wrote is about a child, or it is zero, as it was.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Status(status),
        libc::CLD_KILLED => Exit::Signal { number: status, core_dumped: false },
        libc::CLD_DUMPED => Exit::Signal { number: status, core_dumped: true },
        _ => Exit::Unknown, // WEXITED asks for these alone
    };
    let kibibytes = u64::try_from(usage.ru_maxrss).ok().filter(|most| *most > 0);
    Ok(Some(End { exit, largest_resident: kibibytes.map(|kibibytes| kibibytes * 1024) }))
}

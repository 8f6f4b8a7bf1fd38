//! What a child of ours had used when it ended.

use std::os::fd::{AsFd, AsRawFd};

/// The most memory that a child of ours which has ended had at once, or a child that it waited for, in bytes. It stays a
/// zombie. `None` if it has not ended, or is not our child.
pub fn largest_resident(pidfd: impl AsFd) -> Option<u64> {
    // SAFETY: both are plain numbers, for which zero is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the call writes one of each, and both are ours. Unlike the library's function it has the fifth argument.
    let result = unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, options, &raw mut usage) };
    let kibibytes = u64::try_from(usage.ru_maxrss).ok().filter(|most| result == 0 && *most > 0)?;
    Some(kibibytes * 1024)
}

//! Signals a whole process group through the pidfd of its leader.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::process::Signal;

/// `PIDFD_SIGNAL_PROCESS_GROUP`, since Linux 6.9.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Sends `signal` to the group that the pidfd's process leads, or led: the descriptor holds on to the group as the
/// kernel knows it, not to its number, so this is safe even after the leader was reaped.
///
/// `EINVAL` means a kernel before 6.9, `ESRCH` that nobody is left.
pub fn signal(leader: impl AsFd, signal: Signal) -> Result<(), Errno> {
    let leader = leader.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no pointer but the null one for which the call makes up the information itself.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, leader, signal.as_raw(), no_info, PROCESS_GROUP) };
    if result == 0 { Ok(()) } else { Err(super::child::last_error()) }
}

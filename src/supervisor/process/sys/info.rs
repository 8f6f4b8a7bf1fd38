//! What the kernel keeps of a process that is gone, for whoever holds its pidfd.

use std::os::fd::{AsFd, AsRawFd};

/// `struct pidfd_info` in its first form; later ones only grow.
#[derive(Default)]
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    wait_status: i32,
}

/// `PIDFD_INFO_EXIT`, since Linux 6.15: asked for in the mask, and left there if it is known.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: reads and writes an [`Info`], magic 0xff, number 11.
const GET_INFO: libc::Ioctl = ((3 << 30) | ((size_of::<Info>() as u64) << 16) | (0xff << 8) | 11) as libc::Ioctl;

/// The status, as `wait` has it, of a process that its parent has reaped; `None` before that, and before Linux 6.15.
pub fn wait_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request carries the size of what it may read and write there.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO, &raw mut info) };
    (result == 0 && info.mask & EXIT != 0).then_some(info.wait_status)
}

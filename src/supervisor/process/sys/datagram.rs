//! Datagrams with the pid of their sender, as the kernel vouches for it.
//!
//! `rustix` reads a sender as a pid that is never 0; but 0 is what the kernel says of one outside our pid namespace.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use rustix::io::Errno;

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// How much of the buffer it takes.
    pub length: usize,
    /// The buffer was too short for it.
    pub is_cut: bool,
    /// `None` for one that we could not name: it is outside our pid namespace.
    pub sender: Option<u32>,
}

/// Room for the sender's credentials and nothing else: descriptors that are sent along find none, and the kernel closes
/// them before they are ours.
type Control = [MaybeUninit<libc::cmsghdr>; 2];
const CONTROL: usize = {
    // SAFETY: it only computes.
    let length = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;
    assert!(length <= size_of::<Control>());
    length
};

/// Takes the next datagram of a socket that passes credentials; `AGAIN` if there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    let mut control: Control = [const { MaybeUninit::uninit() }; 2];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid header, one without anything.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut piece, 1);
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL as _);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to memory of ours that is as long as it says, and that outlives the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let Ok(length) = usize::try_from(length) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    // SAFETY: the kernel has filled the header and the control messages that it counts.
    Ok(Datagram { length, is_cut: header.msg_flags & libc::MSG_TRUNC != 0, sender: unsafe { sender(&header) } })
}

/// # Safety
/// The header is one that the kernel has filled, and its control messages are there.
unsafe fn sender(header: &libc::msghdr) -> Option<u32> {
    // SAFETY: as the caller says, the pointers lead from one message that is there to the next.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            if (head.cmsg_level, head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
                let credentials: libc::ucred = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                return u32::try_from(credentials.pid).ok().filter(|pid| *pid != 0);
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

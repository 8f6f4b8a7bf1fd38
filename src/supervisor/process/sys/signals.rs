//! Which signals threads let through; and news that a child ended, by a descriptor instead of a handler.
//!
//! A handler interrupts whatever thread started the child, just when that may have the next one to start, and the usual
//! handlers go on to wake every event loop of the program.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use rustix::io::Errno;

/// Lets these signals through to this thread, and to those that it starts from now on, whatever whoever started us held back.
pub fn heed(signals: &[libc::c_int]) -> Result<(), Errno> {
    change(libc::SIG_UNBLOCK, &set_of(signals))
}

/// Keeps SIGCHLD back from this thread, and from those that it starts from now on, and returns the descriptor that is
/// ready when there is one. The kernel drops the signal if a thread is left that would take it.
pub fn open() -> Result<OwnedFd, Errno> {
    let set = set_of(&[libc::SIGCHLD]);
    change(libc::SIG_BLOCK, &set)?;
    // SAFETY: the set is one; -1 asks for a descriptor of its own.
    let descriptor = unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(super::child::last_error());
    }
    // SAFETY: the call made this descriptor and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// How long an entry is that such a descriptor gives out.
pub const ENTRY: usize = size_of::<libc::signalfd_siginfo>();

/// Has a program that is no node, and so is started by the standard library, begin with SIGCHLD let through.
pub fn let_through(command: &mut Command) -> &mut Command {
    let set = set_of(&[libc::SIGCHLD]);
    let unblock = move || Ok(change(libc::SIG_UNBLOCK, &set)?);
    // SAFETY: it is one system call on a set that came along, allocates nothing and takes no lock.
    unsafe { command.pre_exec(unblock) }
}

fn change(how: libc::c_int, set: &libc::sigset_t) -> Result<(), Errno> {
    // SAFETY: the set is one, and nobody asks for the former mask.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error)),
    }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call initialises the set, and the others add to it or, where there is no such signal, fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

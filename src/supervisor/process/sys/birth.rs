//! `clone3`, which can have a child born into a control group.
//!
//! To be moved there after its birth would cost the child, and every fork of the machine meanwhile, some milliseconds.
//! The C library has no wrapper for it, and a child that runs on memory of ours needs a stack of its own from its first
//! instruction on, so the call and what follows it are written in assembly: for x86-64, where that could be tried.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::{c_int, c_void};
use rustix::io::Errno;

/// As the kernel wants it: `struct clone_args` of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Memory for a child to run on: its lower end, and how much there is, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub base: *mut c_void,
    pub size: usize,
}

/// Has a child born into `group` that runs `run(data)` in `room`, on our memory and with our descriptors; comes back when it has execed or ended.
/// The child's pid; its pidfd is in `pidfd`, also for the child.
///
/// # Safety
/// Nobody else uses `room` meanwhile, `pidfd` may be written to, `data` is what `run` expects, and `run` never returns.
pub unsafe fn born_into(
    group: BorrowedFd<'_>,
    room: Room,
    pidfd: *mut RawFd,
    run: extern "C" fn(*mut c_void) -> c_int,
    data: *mut c_void,
) -> Result<i32, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_PIDFD;
    let args = CloneArgs {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        pidfd: pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: room.base as u64,
        stack_size: room.size as u64,
        cgroup: group.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the caller answers for the stack and for what runs on it; `args` outlives the call.
    let result = unsafe { clone3(&args, run, data) };
    // A pid is no more than 2^22; what is negative is an error's number.
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(Errno::from_raw_os_error(errno.wrapping_neg())),
        Err(_) => Err(Errno::INVAL),
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, run: extern "C" fn(*mut c_void) -> c_int, data: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: in the parent this is one system call. The child has the parent's registers and an empty stack, whose
    // upper end is aligned as a call wants it, and goes no further than the call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {data}",
            "call {run}",
            "ud2",
            "2:",
            data = in(reg) data,
            run = in(reg) run,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone3(_: &CloneArgs, _: extern "C" fn(*mut c_void) -> c_int, _: *mut c_void) -> isize {
    -(libc::ENOSYS as isize)
}

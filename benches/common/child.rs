//! The process that every measured node is, as small as a process can be: it says when it began to run and waits.
//!
//! Built by the benchmarks themselves, with `rustc` and without a dynamic loader, so that its own start costs little.
//! It ends when whoever reads the pipe is gone: no child outlives its benchmark.
//!
//! Arguments: the pipe and its number. Where its supervisor chooses the arguments, its environment names the pipe, and its
//! directory has its number for a name.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

const O_NONBLOCK: i32 = 0o4000;

#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    fn poll(fds: *mut PollFd, count: u64, timeout: i32) -> i32;
}

fn main() {
    let mut time = [0; 2];
    // SAFETY: 1 is CLOCK_MONOTONIC, and the two numbers have room for a timespec of a 64-bit machine.
    unsafe { clock_gettime(1, &mut time) };
    let mut arguments = std::env::args_os().skip(1);
    let (pipe, number) = match std::env::var_os("CHILD_PIPE") {
        Some(pipe) => (pipe, own_directory()),
        None => (arguments.next().unwrap(), arguments.next().unwrap()),
    };
    // Nobody reads any more: then this fails rather than waits.
    let mut pipe = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(pipe).unwrap();
    let mut stamp = [0; 16];
    stamp[..4].copy_from_slice(&number.to_str().unwrap().parse::<u32>().unwrap().to_ne_bytes());
    stamp[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
    stamp[8..].copy_from_slice(&(time[0] * 1_000_000_000 + time[1]).to_ne_bytes());
    pipe.write_all(&stamp).unwrap();
    let mut hangup = PollFd { fd: pipe.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    while unsafe { poll(&mut hangup, 1, -1) } < 0 {}
}

fn own_directory() -> OsString {
    std::env::current_dir().unwrap().file_name().unwrap().to_owned()
}

//! What runs between clone and exec.
//!
//! The child shares our memory and our thread's stack pointer stands still until it execs (`CLONE_VM | CLONE_VFORK`), so
//! nothing is copied, however large this process is; our descriptors it shares for a moment (`CLONE_FILES`), and leaves
//! with a copy of the lowest. In return the child may do nothing but bare system calls on what
//! was prepared for it: no allocation, no lock, no panic, and none of the C library's wrappers that tell its threads of a
//! change (`setuid`). `syscall` itself only sets `errno`, which is our thread's own and waits with it.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};
use rustix::io::Errno;
use rustix::process::Pid;

use super::super::stat::Stat;
use super::birth::{Room, born_into};
use super::user::User;

/// The step at which a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Stack,
    Clone,
    Group,
    Session,
    Output,
    /// A limit, by the kernel's number of its resource.
    Limit(u32),
    Nice,
    Umask,
    Cpu,
    Directory,
    User,
    Capabilities,
    NoNewPrivs,
    StartTime,
    Descriptors,
    Signals,
    Record,
    Exec,
}

/// Where a start ended, and the kernel's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub errno: Errno,
}

/// Strings as exec wants them: pointers with a null behind the last.
pub struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>, // what `pointers` points at; a CString's bytes do not move with it
}

impl Strings {
    pub fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}

/// Room for a CPU mask of 8192 CPUs, the most that Linux can be built for on common machines.
pub type CpuMask = [u64; 128];

/// Everything the child needs, made ready before it exists. Descriptors 0, 1 and 2 must not be among those named.
pub struct Plan<'a> {
    /// The files to try to execute, in this order.
    pub candidates: &'a [CString],
    pub argv: &'a Strings,
    pub env: &'a Strings,
    /// stdin, stdout, stderr.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Where the child writes its `pid` line before it execs, and of which life; closes at exec.
    pub record: Option<(BorrowedFd<'a>, u64)>,
    /// Whether the number of its pidfd tells it from every other process, and goes into that line.
    pub has_number: bool,
    /// A number above all of these descriptors: the child is to have no copy of what is there.
    pub beyond: u32,
    pub directory: &'a CStr,
    /// Of each resource, by its number: soft and hard.
    pub limits: &'a [(u32, [u64; 2])],
    pub nice: Option<i32>,
    pub umask: Option<u32>,
    pub cpus: Option<&'a CpuMask>,
    pub user: Option<&'a User>,
    /// What the user keeps of what root may do: a bit for each.
    pub capabilities: u64,
    pub no_new_privs: bool,
    /// The control group that the child is born into: a directory of a cgroup2 tree.
    pub group: Option<BorrowedFd<'a>>,
}

/// A child that reached exec.
pub struct Born {
    pub pid: Pid,
    pub start_time: u64,
    pub pidfd: OwnedFd,
}

/// A clock tick, counted as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tick {
    since_boot: u64,
    per_second: u64,
}

impl Tick {
    fn now(per_second: u64) -> Result<Self, Failure> {
        let step = Step::StartTime;
        let mut time = [0u64; 2]; // struct timespec: seconds, nanoseconds
        // The bare call and not the vDSO's copy: it reads the very clock that a birth is noted by.
        let time_at = time.as_mut_ptr() as usize;
        call(step, libc::SYS_clock_gettime, [libc::CLOCK_BOOTTIME as usize, time_at, 0, 0, 0])?;
        let [seconds, nanoseconds] = time;
        let nanoseconds = seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
        let length = 1_000_000_000u64.checked_div(per_second);
        let since_boot = length.and_then(|length| nanoseconds.checked_div(length));
        Ok(Self { since_boot: since_boot.ok_or(Failure { step, errno: Errno::INVAL })?, per_second })
    }
}

/// Memory that parent and child have in common while the child runs on it.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    before_birth: Tick,
    /// The kernel has put it there before the child takes its first step.
    pidfd: RawFd,
    start_time: u64,
    failure: Option<Failure>,
}

/// Starts the child and returns once it execs or ends.
///
/// With the failure of a child that existed comes its pidfd: it has ended or is about to, and wants to be reaped.
pub fn start(plan: &Plan<'_>) -> Result<Born, (Failure, Option<OwnedFd>)> {
    let room = stack_of_this_thread().map_err(|errno| (Failure { step: Step::Stack, errno }, None))?;
    // SAFETY: asks for a constant of the machine; a failure is no tick length and refused as such.
    let ticks_per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(0);
    let before_birth = Tick::now(ticks_per_second).map_err(|failure| (failure, None))?;
    let mut shared = Shared { plan, before_birth, pidfd: -1, start_time: 0, failure: None };
    let data = &raw mut shared;

    // A handler of ours must not run in the child, on our memory: every signal waits until the child has none left.
    let before = set_signal_mask(!0);
    // SAFETY: the stack is the child's alone as long as this thread waits for it, `shared` and what it refers to outlive
    // the call, and this thread does not go on before the child has stopped using either (CLONE_VFORK). The child calls
    // only what may be called there, and `run` ends it.
    let pid = unsafe {
        let pidfd = &raw mut (*data).pidfd;
        match plan.group {
            Some(group) => born_into(group, room, pidfd, run, data.cast()),
            None => born_beside(room, pidfd, data.cast()),
        }
    };
    set_signal_mask(before);

    let step = if plan.group.is_some() { Step::Group } else { Step::Clone };
    let pid = pid.map_err(|errno| (Failure { step, errno }, None))?;
    let Some(pid) = Pid::from_raw(pid) else {
        return Err((Failure { step, errno: Errno::INVAL }, None)); // no child has the number 0
    };
    // SAFETY: clone succeeded, so it made this descriptor and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(shared.pidfd) };
    match shared.failure {
        Some(failure) => Err((failure, Some(pidfd))),
        None => Ok(Born { pid, start_time: shared.start_time, pidfd }),
    }
}

/// The `errno` of the last system call of this thread.
pub fn last_error() -> Errno {
    // SAFETY: the C library keeps it at this address for as long as the thread lives.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Has a child born into whatever control group we are in; else as [`born_into`].
unsafe fn born_beside(room: Room, pidfd: *mut RawFd, data: *mut c_void) -> Result<i32, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the caller answers for the room and the data; its upper end is where a stack that grows down begins.
    let pid = unsafe { libc::clone(run, room.base.byte_add(room.size), flags, data, pidfd) };
    if pid > 0 { Ok(pid) } else { Err(last_error()) }
}

/// Whether a child can be born into that control group: one is, and ends at once.
pub fn try_group(group: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let room = stack_of_this_thread()?;
    let mut pidfd: RawFd = -1;
    let before = set_signal_mask(!0);
    // SAFETY: as in `start`; what runs is one system call.
    let born = unsafe { born_into(group, room, &raw mut pidfd, end, ptr::null_mut()) };
    set_signal_mask(before);
    // SAFETY: clone succeeded, so it made this descriptor and nobody else knows of it.
    born.map(|_| unsafe { OwnedFd::from_raw_fd(pidfd) })
}

extern "C" fn end(_: *mut c_void) -> c_int {
    // SAFETY: ends this process alone, and runs nothing of ours on the way.
    unsafe {
        libc::syscall(libc::SYS_exit_group, 0);
        libc::_exit(0)
    }
}

extern "C" fn run(shared: *mut c_void) -> c_int {
    // SAFETY: `start` passes its own `Shared` and does not touch it until this process has left its memory.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    let Err(failure) = attempt(shared.plan, shared.before_birth, shared.pidfd, &mut shared.start_time);
    shared.failure = Some(failure);
    // SAFETY: ends this process alone, and runs nothing of ours on the way.
    unsafe {
        libc::syscall(libc::SYS_exit_group, 127);
        libc::_exit(127)
    }
}

/// Becomes the program; comes back only if that failed.
fn attempt(plan: &Plan<'_>, before_birth: Tick, pidfd: RawFd, start_time: &mut u64) -> Result<Infallible, Failure> {
    // As long as it shares our descriptors its own pidfd is among them.
    let number = if plan.has_number { stat(Step::Record, pidfd as usize)?.st_ino } else { 0 };
    leave_our_descriptors(plan.beyond as usize)?;
    call(Step::Session, libc::SYS_setsid, [0; 5])?;
    reset_signal_actions();
    for (target, source) in plan.stdio.iter().enumerate() {
        call(Step::Output, libc::SYS_dup3, [source.as_raw_fd() as usize, target, 0, 0, 0])?;
    }
    *start_time = own_start_time(before_birth)?; // may open a file, so it comes before a lower limit
    // How large a file may be is for the program: the record is written yet.
    set_limits(plan, |resource| resource != libc::RLIMIT_FSIZE)?;
    if let Some(nice) = plan.nice {
        call(Step::Nice, libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, nice as usize, 0, 0])?;
    }
    if let Some(umask) = plan.umask {
        call(Step::Umask, libc::SYS_umask, [umask as usize, 0, 0, 0, 0])?;
    }
    if let Some(mask) = plan.cpus {
        set_cpus(mask)?;
    }
    call(Step::Directory, libc::SYS_chdir, [plan.directory.as_ptr() as usize, 0, 0, 0, 0])?;
    if let Some(user) = plan.user {
        become_user(user, plan.capabilities)?;
    }
    if plan.no_new_privs {
        call(Step::NoNewPrivs, libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0])?;
    }
    let record = plan.record.map(|(record, life)| (record.as_raw_fd() as usize, life));
    drop_descriptors(record.map(|(record, _)| record))?;
    let none = 0u64;
    call(
        Step::Signals,
        libc::SYS_rt_sigprocmask,
        [libc::SIG_SETMASK as usize, address(&none), 0, size_of_val(&none), 0],
    )?;
    if let Some((record, life)) = record {
        write_record(record, life, *start_time, number)?;
        is_in_force(record)?;
    }
    set_limits(plan, |resource| resource == libc::RLIMIT_FSIZE)?;
    Err(Failure { step: Step::Exec, errno: execute(plan) })
}

fn set_limits(plan: &Plan<'_>, which: impl Fn(u32) -> bool) -> Result<(), Failure> {
    for (resource, limit) in plan.limits {
        if which(*resource) {
            // struct rlimit64
            call(Step::Limit(*resource), libc::SYS_prlimit64, [0, *resource as usize, address(limit), 0, 0])?;
        }
    }
    Ok(())
}

/// Becomes the user; what is to be kept of root's rights survives the change, and then exec.
fn become_user(User { uid, gid, groups, .. }: &User, capabilities: u64) -> Result<(), Failure> {
    let (uid, gid) = (*uid as usize, *gid as usize);
    if capabilities != 0 {
        call(Step::Capabilities, libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0, 0, 0])?;
    }
    call(Step::User, libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0])?;
    call(Step::User, libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
    call(Step::User, libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    if capabilities == 0 {
        return Ok(());
    }
    let halves = [capabilities as u32, (capabilities >> 32) as u32];
    let header = [0x2008_0522u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this process
    // Effective, permitted, inheritable; the lower half first.
    let sets = [halves[0], halves[0], halves[0], halves[1], halves[1], halves[1]];
    call(Step::Capabilities, libc::SYS_capset, [address(&header), address(&sets), 0, 0, 0])?;
    for number in (0..64usize).filter(|number| capabilities >> number & 1 == 1) {
        let ambient = [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_RAISE as usize, number, 0, 0];
        call(Step::Capabilities, libc::SYS_prctl, ambient)?;
    }
    Ok(())
}

/// Exec keeps what is ignored (as Rust does with SIGPIPE) and resets the rest; here all of it goes back to default.
fn reset_signal_actions() {
    let default = [0u64; 4]; // SIG_DFL, no flags, no mask, whatever order the machine has them in
    for signal in 1..=64 {
        // Refused for SIGKILL and SIGSTOP alone, which have no other action anyway.
        let _ = call(Step::Signals, libc::SYS_rt_sigaction, [signal, address(&default), 0, size_of::<u64>(), 0]);
    }
}

/// The start time of this process as `/proc/self/stat` tells it.
///
/// That file costs a tenth of a whole start. But the kernel notes the time of birth to the nanosecond and shows it in
/// ticks, so a tick that began before the birth and still lasts is the one.
fn own_start_time(before_birth: Tick) -> Result<u64, Failure> {
    match Tick::now(before_birth.per_second)? {
        now if now == before_birth => Ok(now.since_boot),
        _ => start_time_in_proc(),
    }
}

fn start_time_in_proc() -> Result<u64, Failure> {
    let step = Step::StartTime;
    let path = c"/proc/self/stat".as_ptr() as usize;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let file = call(step, libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0, 0])?;
    let mut line = [0u8; 1024];
    let length = call(step, libc::SYS_read, [file, line.as_mut_ptr() as usize, line.len(), 0, 0])?;
    call(step, libc::SYS_close, [file, 0, 0, 0, 0])?;
    let stat = line.get(..length).and_then(Stat::parse).ok_or(Failure { step, errno: Errno::INVAL })?;
    Ok(stat.start_time)
}

/// Leaves the descriptors that it has shared with us so far, with a copy of those below that number.
///
/// It comes before anything that opens or closes one, which would open or close it for us.
fn leave_our_descriptors(beyond: usize) -> Result<(), Failure> {
    let (step, last) = (Step::Descriptors, u32::MAX as usize);
    match call(step, libc::SYS_close_range, [beyond, last, libc::CLOSE_RANGE_UNSHARE as usize, 0, 0]) {
        Ok(_) => Ok(()),
        // Linux before 5.9, or a filter that does not know the call: all of them are copied.
        Err(_) => call(step, libc::SYS_unshare, [libc::CLONE_FILES as usize, 0, 0, 0, 0]).map(drop),
    }
}

/// Sees to it that no descriptor from 3 on reaches the program.
///
/// Marking is better than closing: the kernel then closes them while our thread already goes on.
fn drop_descriptors(record: Option<usize>) -> Result<(), Failure> {
    let last = u32::MAX as usize;
    match call(Step::Descriptors, libc::SYS_close_range, [3, last, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0]) {
        Err(Failure { errno: Errno::INVAL, .. }) => {} // Linux before 5.11
        result => return result.map(drop),
    }
    let close = |from: usize, to: usize| match from <= to {
        true => call(Step::Descriptors, libc::SYS_close_range, [from, to, 0, 0, 0]).map(drop),
        false => Ok(()),
    };
    match record {
        // It closes itself at exec, as `Plan` asks.
        Some(record) => close(3, record.wrapping_sub(1)).and_then(|()| close(record.wrapping_add(1), last)),
        None => close(3, last),
    }
}

/// A `number` of 0 is none.
fn write_record(file: usize, life: u64, start_time: u64, number: u64) -> Result<(), Failure> {
    let pid = call(Step::Record, libc::SYS_getpid, [0; 5])?;
    let mut line = [0u8; 112]; // "pid ", four numbers of at most 20 digits each, and the checksum of that
    let mut rest = &mut line[..];
    // Formatting integers into a buffer allocates nothing and locks nothing, nor does the checksum.
    let fits = write!(rest, "pid {life} {pid} {start_time}").is_ok();
    let fits = (number == 0 || write!(rest, " {number}").is_ok()) && fits;
    let left = rest.len();
    let length = line.len().wrapping_sub(left);
    let sum = crc32fast::hash(line.get(..length).unwrap_or_default());
    let mut rest = line.get_mut(length..).unwrap_or_default();
    let fits = writeln!(rest, " #{sum:08x}").is_ok() && fits;
    let left = rest.len();
    let length = line.len().wrapping_sub(left);
    let written = call(Step::Record, libc::SYS_write, [file, line.as_ptr() as usize, length, 0, 0])?;
    // Half a record is none: what reads it could not tell whose process this is.
    if fits && written == length { Ok(()) } else { Err(Failure { step: Step::Record, errno: Errno::IO }) }
}

/// Refuses to go on for a record that was replaced meanwhile: the next agent took it for an intent that came to nothing, and
/// launches a process of its own. It looks into the former record once more when it has replaced it, so one of both notices.
fn is_in_force(file: usize) -> Result<(), Failure> {
    let stat = stat(Step::Record, file)?;
    if stat.st_nlink > 0 { Ok(()) } else { Err(Failure { step: Step::Record, errno: Errno::STALE }) }
}

fn stat(step: Step, file: usize) -> Result<libc::stat, Failure> {
    // SAFETY: it is made of numbers alone, which may all be zero.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call(step, libc::SYS_fstat, [file, ptr::from_mut(&mut stat) as usize, 0, 0, 0])?;
    Ok(stat)
}

/// Tries the candidates as `execvp` does: what is not there is passed over, what may not be run is remembered.
fn execute(plan: &Plan<'_>) -> Errno {
    let mut forbidden = None;
    let mut last = Errno::NOENT;
    for candidate in plan.candidates {
        let [path, argv, env] =
            [candidate.as_ptr() as usize, plan.argv.pointers.as_ptr() as usize, plan.env.pointers.as_ptr() as usize];
        match call(Step::Exec, libc::SYS_execve, [path, argv, env, 0, 0]) {
            Err(Failure { errno: Errno::ACCESS, .. }) => forbidden = Some(Errno::ACCESS),
            Err(Failure { errno: errno @ (Errno::NOENT | Errno::NOTDIR), .. }) => last = errno,
            Err(Failure { errno, .. }) => return errno,
            Ok(_) => {} // a successful exec does not come back
        }
    }
    forbidden.unwrap_or(last)
}

fn address<T: ?Sized>(value: &T) -> usize {
    ptr::from_ref(value).cast::<c_void>() as usize
}

/// One bare system call; a negative result is the step's failure.
fn call(step: Step, number: c_long, [a, b, c, d, e]: [usize; 5]) -> Result<usize, Failure> {
    // SAFETY: the callers above pass descriptors, numbers, and addresses of values that outlive the call and are as long
    // as they say. None of the calls touches memory beyond those.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    usize::try_from(result).map_err(|_| Failure { step, errno: last_error() })
}

/// Sets the calling thread's mask and returns the one before. The bare call also reaches the two signals that the C
/// library keeps for itself and leaves out of its own.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = (address(&mask), ptr::from_mut(&mut before) as usize);
    // SAFETY: both point at eight bytes, as the last argument says. It fails only for addresses or sizes that are wrong.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<u64>()) };
    before
}

/// The kernel passes over CPUs that there are not, as long as one of the others will do: what it made of it tells.
fn set_cpus(mask: &CpuMask) -> Result<(), Failure> {
    call(Step::Cpu, libc::SYS_sched_setaffinity, [0, size_of_val(mask), address(mask), 0, 0])?;
    let mut got: CpuMask = [0; _];
    let place = ptr::from_mut(&mut got) as usize;
    call(Step::Cpu, libc::SYS_sched_getaffinity, [0, size_of_val(mask), place, 0, 0])?;
    if got == *mask { Ok(()) } else { Err(Failure { step: Step::Cpu, errno: Errno::INVAL }) }
}

thread_local! {
    /// Kept from one start to the next: to unmap memory interrupts every processor that we run on.
    static STACK: OnceCell<Stack> = const { OnceCell::new() };
}

/// The stack for the children that this thread starts, one after the other.
fn stack_of_this_thread() -> Result<Room, Errno> {
    STACK.with(|stack| match stack.get() {
        Some(stack) => Ok(stack.room()),
        None => {
            let made = Stack::new()?;
            Ok(stack.get_or_init(|| made).room())
        }
    })
}

/// Memory for the child to run on, with a page below it that catches an overflow.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    const GUARD: usize = 64 << 10; // a page, wherever pages are no larger than on today's machines
    const SIZE: usize = Self::GUARD + (64 << 10);

    fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a new mapping, wherever the kernel has room.
        let base = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(last_error());
        }
        let stack = Self { base };
        // SAFETY: the upper part of the mapping just made.
        let open = unsafe {
            libc::mprotect(base.byte_add(Self::GUARD), Self::SIZE - Self::GUARD, libc::PROT_READ | libc::PROT_WRITE)
        };
        if open == 0 { Ok(stack) } else { Err(last_error()) }
    }

    /// What is above the page that catches an overflow.
    fn room(&self) -> Room {
        // SAFETY: within the mapping.
        let base = unsafe { self.base.byte_add(Self::GUARD) };
        Room { base, size: Self::SIZE - Self::GUARD }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every child left it by exec or exit.
        unsafe { libc::munmap(self.base, Self::SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_that_the_clock_cannot_tell_is_read_from_proc() {
        let real = Stat::of(std::process::id()).unwrap().unwrap().start_time;
        let long_ago = Tick { since_boot: 0, per_second: 100 };
        assert_eq!(own_start_time(long_ago), Ok(real));
    }

    #[test]
    fn a_tick_of_no_length_is_refused() {
        for per_second in [0, u64::MAX] {
            assert_eq!(Tick::now(per_second), Err(Failure { step: Step::StartTime, errno: Errno::INVAL }));
        }
    }
}

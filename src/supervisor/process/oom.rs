//! Whether it was the kernel, out of memory, that killed a process. Nobody else can tell that from `kill -9`.
//!
//! The kernel's log names each process that it killed so. Where that cannot be read, a node's control group says how many
//! of it were.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::groups::{Groups, NoGroups};
use super::identity;
use crate::model::{Exit, NodeName};

const SIGKILL: i32 = 9;
/// The longest entry of the kernel's log, in bytes.
const LONGEST: usize = 8192;
/// How much of a line is kept, in characters.
const LONGEST_LINE: usize = 512;
/// How many entries are read at the most when an agent begins: more than the log holds, where it is not flooded.
const MOST_ENTRIES: usize = 20_000;
/// How many are read at a death at the most, while nodes wait to be minded: a millisecond or two. The rest is read at
/// the next ones.
const MOST_AT_A_DEATH: usize = 800;
/// How many victims are remembered.
const MOST_VICTIMS: usize = 1024;
/// The inode of the first pid namespace, the one whose numbers are in the log (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// Clocks that are read one after the other differ by less, in microseconds.
const SLACK: u64 = 1_000_000;

/// A process that the kernel killed because memory ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    pid: u32,
    /// Microseconds since boot.
    at: u64,
    /// What the kernel said of it, cut to [`LONGEST_LINE`].
    line: Arc<str>,
}

/// What the kernel has said since this was last asked. Nobody waits for it: it is read when there is a death to explain.
pub struct KernelLog {
    /// `None` where it may not be read, or speaks of pids of another namespace.
    file: Option<File>,
    victims: VecDeque<Victim>,
    /// How many entries are read at a time at the most.
    most: usize,
}

impl KernelLog {
    /// Opens it at its oldest entry.
    pub fn open() -> Self {
        let is_ours = identity::pid_namespace().is_ok_and(|namespace| namespace == FIRST_PID_NAMESPACE);
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(nonblocking).open("/dev/kmsg").ok();
        Self { file: file.filter(|_| is_ours), victims: VecDeque::new(), most: MOST_ENTRIES }
    }

    /// Whether it can be read.
    pub fn is_readable(&self) -> bool {
        self.file.is_some()
    }

    /// Passes over what is there.
    pub fn skip(&mut self) {
        if let Some(file) = &mut self.file {
            // Where that fails it is read when it is needed.
            let _ = file.seek(SeekFrom::End(0));
        }
    }

    /// Whether the kernel killed that process, which started so many ticks after boot, because memory ran out; `None` if
    /// nobody can say.
    fn names(&mut self, pid: u32, start_time: u64) -> Option<bool> {
        let is_at_its_end = self.catch_up()?;
        let is_named = self.said_of(pid, start_time).is_some();
        (is_named || is_at_its_end).then_some(is_named)
    }

    /// What the kernel said when it killed that process, as far as its log was read.
    fn said_of(&self, pid: u32, start_time: u64) -> Option<Arc<str>> {
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let born = start_time.saturating_mul(1_000_000).checked_div(ticks_per_second)?;
        let is_it = |victim: &&Victim| victim.pid == pid && victim.at.saturating_add(SLACK) >= born;
        self.victims.iter().find(is_it).map(|victim| Arc::clone(&victim.line))
    }

    /// Reads on, and whether it came to the end; `None` if it cannot be read.
    fn catch_up(&mut self) -> Option<bool> {
        let file = self.file.as_mut()?;
        // Mostly there is nothing to read: to clear so much first would take longer than to ask.
        let mut entry = [MaybeUninit::uninit(); LONGEST];
        for _ in 0..self.most {
            match rustix::io::read(&*file, &mut entry) {
                Ok(([], _)) => return Some(true),
                Ok((entry, _)) => {
                    if let Some(victim) = victim(entry) {
                        self.victims.truncate(MOST_VICTIMS - 1);
                        self.victims.push_front(victim);
                    }
                }
                Err(Errno::AGAIN) => return Some(true),
                // Entries were overwritten before they were read: it goes on with the oldest there is.
                Err(Errno::INTR | Errno::PIPE) => {}
                Err(_) => {
                    self.file = None;
                    return None;
                }
            }
        }
        Some(false)
    }
}

/// The process that an entry of the log says was killed: `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`.
fn victim(entry: &[u8]) -> Option<Victim> {
    let entry = std::str::from_utf8(entry).ok()?;
    let (head, text) = entry.split_once(';')?;
    let mut head = head.split(',');
    let (priority, at) = (head.next()?.parse::<u32>().ok()?, head.nth(1)?.parse().ok()?);
    // The kernel's own are of facility 0: what others write there it marks.
    if priority >> 3 != 0 {
        return None;
    }
    let line = text.lines().next()?;
    let (why, rest) = line.split_once("Killed process ").or_else(|| line.split_once("Kill process "))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let pid = digits.parse().ok()?;
    // `Out of memory: `, `Memory cgroup out of memory: `.
    let kept: String = line.chars().take(LONGEST_LINE).collect();
    why.contains("ut of memory").then(|| Victim { pid, at, line: kept.into() })
}

/// How many processes of a group the kernel killed because memory ran out, by its `memory.events`.
pub(super) fn kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Finds out what a signal alone does not tell.
pub struct Autopsy {
    log: KernelLog,
    groups: Arc<Result<Groups, NoGroups>>,
}

impl Autopsy {
    /// For nodes with these groups.
    pub fn new(log: KernelLog, groups: Arc<Result<Groups, NoGroups>>) -> Self {
        Self { log: KernelLog { most: MOST_AT_A_DEATH, ..log }, groups }
    }

    /// What the kernel said of a process that it killed for want of memory, once that was [examined](Self::examine).
    pub fn said_of(&self, pid: u32, start_time: u64) -> Option<Arc<str>> {
        self.log.said_of(pid, start_time)
    }

    /// How a process ended, told apart from other ends by the same signal.
    pub fn examine(&mut self, exit: Exit, pid: u32, start_time: u64, node: &NodeName) -> Exit {
        // Whatever it died of: what is read now is not left for the death that the log is to explain.
        if !matches!(exit, Exit::Signal { number: SIGKILL, .. }) {
            let _ = self.log.catch_up(); // where it cannot be read nobody asks it
        }
        explain(exit, &mut self.log, pid, start_time, || self.groups.as_ref().as_ref().ok()?.oom_kills(node))
    }
}

/// The same for a node that died while nobody minded it.
pub fn explain(
    exit: Exit,
    log: &mut KernelLog,
    pid: u32,
    start_time: u64,
    count: impl FnOnce() -> Option<u64>,
) -> Exit {
    if !matches!(exit, Exit::Signal { number: SIGKILL, .. }) {
        return exit;
    }
    // The log names who it was. A count may be of one that the node had started, and is asked where nothing better is.
    let by_the_kernel = log.names(pid, start_time).unwrap_or_else(|| count().is_some_and(|count| count > 0));
    if by_the_kernel { Exit::OutOfMemory } else { exit }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const KILLED: Exit = Exit::Signal { number: SIGKILL, core_dumped: false };

    #[test]
    fn the_kernel_names_its_victims_and_nobody_else_can() {
        let victim = |text: &str| victim(text.as_bytes()).map(|victim| (victim.pid, victim.at));
        for (entry, want) in [
            (
                "3,1242,98765432,-;Out of memory: Killed process 4711 (zeek) total-vm:1kB, anon-rss:2kB, UID:0\n",
                Some((4711, 98_765_432)),
            ),
            (
                "3,9,5,-;Memory cgroup out of memory: Killed process 7 (a (b)) total-vm:1kB\n SUBSYSTEM=x\n",
                Some((7, 5)),
            ),
            ("3,9,5,c,caller=T1;Memory cgroup out of memory: Killed process 7 (sh)\n", Some((7, 5))),
            ("3,9,5,-;Out of memory: Kill process 8 (sh) score 900 or sacrifice child\n", Some((8, 5))),
            ("12,9,5,-;Out of memory: Killed process 4711 (forged)\n", None), // a user wrote that
            ("3,9,5,-;oom_reaper: reaped process 4711 (zeek)\n", None),
            ("3,9,5,-;usb 1-1: Killed process 4711\n", None),
            ("3,9,5,-;Out of memory: Killed process x\n", None),
            ("3,9,5,-;Out of memory: Killed process 99999999999 (x)\n", None),
            ("3,9,x,-;Out of memory: Killed process 1 (x)\n", None),
            ("", None),
            (";", None),
            ("3,9,5", None),
        ] {
            assert_eq!(victim(entry), want, "{entry}");
        }
        assert_eq!(super::victim(b"3,9,5,-;Out of memory: Killed process 1 (\xff)"), None);
    }

    #[test]
    fn a_group_counts_its_own() {
        assert_eq!(kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        for text in ["", "oom 3\n", "oom_kill x\n", "oom_kill\n"] {
            assert_eq!(kills(text), None, "{text}");
        }
    }

    #[test]
    fn a_death_by_sigkill_is_told_apart_by_the_log_or_else_by_the_count() {
        let silent = || KernelLog { file: None, victims: VecDeque::new(), most: 9 };
        let examine = |exit, count: Option<u64>| explain(exit, &mut silent(), 7, 100, || count);
        assert_eq!(examine(KILLED, Some(1)), Exit::OutOfMemory);
        assert_eq!(examine(KILLED, Some(0)), KILLED);
        assert_eq!(examine(KILLED, None), KILLED);
        let other = Exit::Signal { number: 11, core_dumped: false };
        assert_eq!(examine(other, Some(1)), other);
        assert_eq!(examine(Exit::Status(137), Some(1)), Exit::Status(137));
    }

    #[test]
    fn a_victim_of_the_same_number_from_before_its_birth_was_another() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kmsg");
        File::create(&path).unwrap().write_all(b"").unwrap();
        let line = Arc::from("Out of memory: Killed process 7 (sh)");
        let victims = VecDeque::from([Victim { pid: 7, at: 50_000_000, line }]);
        let mut log = KernelLog { file: Some(File::open(&path).unwrap()), victims, most: 9 };
        let ticks = rustix::param::clock_ticks_per_second();
        let mut examine = |born: u64| explain(KILLED, &mut log, 7, born * ticks, || Some(9));
        assert_eq!(examine(40), Exit::OutOfMemory);
        assert_eq!(examine(60), KILLED, "the log can be read, so it is believed");
        assert_eq!(log.said_of(7, 40 * ticks).as_deref(), Some("Out of memory: Killed process 7 (sh)"));
        assert_eq!(log.said_of(7, 60 * ticks), None);
    }

    #[test]
    fn a_log_that_is_long_is_read_in_turns_and_the_count_is_asked_until_it_is_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kmsg");
        // A read takes so much of a file, where the kernel's log gives an entry.
        let entry = |text: &str| format!("{text:LONGEST$}");
        let named = "3,9,50000000,-;Out of memory: Killed process 7 (sh)\n";
        fs::write(&path, [entry("6,1,1,-;chatter\n").repeat(20), entry(named)].concat()).unwrap();
        let mut log = KernelLog { file: Some(File::open(&path).unwrap()), victims: VecDeque::new(), most: 10 };
        let mut examine = |count: u64| explain(KILLED, &mut log, 7, 0, || Some(count));
        assert_eq!(examine(0), KILLED, "ten of them say nothing of it");
        assert_eq!(examine(1), Exit::OutOfMemory, "and nor do the next, so the count is believed");
        assert_eq!(examine(0), Exit::OutOfMemory, "the last names it");
        let mut other = || explain(KILLED, &mut log, 8, 0, || Some(1));
        assert_eq!(other(), KILLED, "the log was read to its end");
    }

    #[test]
    fn the_log_of_this_machine_is_read_to_its_end_without_a_wait() {
        let mut log = KernelLog::open();
        if log.is_readable() {
            assert_eq!(log.names(u32::MAX, 0), Some(false));
            log.skip();
            assert_eq!(log.names(u32::MAX, 0), Some(false));
        }
    }
}

//! `/proc/PID/stat`: the few of its fields that matter here.

use std::fs::File;
use std::io::{self, Read};

/// A line is never longer, in bytes: fifty numbers and a short name.
pub(super) const LONGEST: usize = 2048;

/// What the kernel says of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `Z` is a zombie; `X` is hardly ever seen.
    pub state: u8,
    pub parent: u32,
    pub session: u32,
    /// Clock ticks since boot; with the pid it names a process for good, within one boot.
    pub start_time: u64,
    /// It has memory of its own, and so may have an environment: not the dead, nor threads of the kernel.
    pub has_memory: bool,
    /// It has memory, and nothing in it that could be its environment: in the middle of exec. Also so of a process that
    /// we may not look into.
    pub is_half_made: bool,
    /// How it ended, as `wait` has it, once it did; 0 as well if we may not know.
    pub wait_status: i32,
}

impl Stat {
    /// Reads the line of a process; `None` if there is none under this number.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let mut line = [0; LONGEST];
        // One call brings all of it, and is not interrupted. To look for more would take as long as the rest.
        match File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut line)) {
            Ok(length) => Self::parse(&line[..length]).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has another form than expected"))
            }),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the line apart without allocating, so that a child between clone and exec may use it as well.
    pub fn parse(line: &[u8]) -> Option<Self> {
        // Field 2 is the program's name in parentheses and may hold anything, so the last one ends it.
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = line.get(name_end + 2..)?.split(|byte| *byte == b' ');
        let state = *fields.next()?.first()?; // field 3
        let parent = u32::try_from(number(fields.next()?)?).ok()?; // field 4
        // Field 6. The kernel has -1 for whoever is being reaped at this moment: it is in none any more.
        let session = match fields.nth(1)? {
            b"-1" => 0,
            session => u32::try_from(number(session)?).ok()?,
        };
        let start_time = number(fields.nth(15)?)?; // field 22
        let has_memory = number(fields.next()?)? != 0; // field 23
        let environment_end = number(fields.nth(27)?)?; // field 51
        let wait_status = i32::try_from(number(fields.next()?)?).ok()?; // field 52
        let is_half_made = has_memory && environment_end == 0;
        Some(Self { state, parent, session, start_time, has_memory, is_half_made, wait_status })
    }

    /// Whether it is over: nothing runs any more, only its status may still be there.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Whether reading under `/proc/PID` failed because the process is no more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.trim_ascii_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_misleads_nobody() {
        let line = line("(a) S 9 (b)", 100, 5);
        let want = Stat {
            state: b'Z',
            parent: 3,
            session: 6,
            start_time: 4711,
            has_memory: true,
            is_half_made: false,
            wait_status: 15,
        };
        assert_eq!(Stat::parse(line.as_bytes()), Some(want));
    }

    #[test]
    fn memory_without_an_environment_is_half_made() {
        let half_made = |memory, environment_end| {
            Stat::parse(line("(sh)", memory, environment_end).as_bytes()).unwrap().is_half_made
        };
        assert!(half_made(100, 0));
        assert!(!half_made(100, 5));
        assert!(!half_made(0, 0), "a zombie");
    }

    #[test]
    fn whoever_is_being_reaped_is_in_no_session() {
        let line = line("(sh)", 100, 5).replace(" 3 7 6 ", " 0 -1 -1 ");
        assert_eq!(Stat::parse(line.as_bytes()).unwrap().session, 0, "{line}");
    }

    #[test]
    fn a_line_that_breaks_off_is_refused() {
        let line = line("(sh)", 100, 5);
        let needed = line.trim_end().len() - "5".len();
        for end in 0..needed {
            assert_eq!(Stat::parse(&line.as_bytes()[..end]), None, "the first {end} bytes");
        }
        assert!(Stat::parse(&line.as_bytes()[..needed]).is_some());
    }

    #[test]
    fn our_own_line_names_our_parent() {
        let stat = Stat::of(std::process::id()).unwrap().unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(!stat.is_dead());
    }

    fn line(name: &str, memory: u64, environment_end: u64) -> String {
        let [counters, places] = ["1 2 3 4 5 6 7 8 20 0 1 0", &["9"; 27].join(" ")].map(String::from);
        format!("7 {name} Z 3 7 6 0 -1 4194304 {counters} 4711 {memory} {places} {environment_end} 15\n")
    }
}

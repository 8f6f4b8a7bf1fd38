//! `/proc/PID/stat`: the few of its fields that matter here.

use std::io;

/// What the kernel says of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `Z` is a zombie; `X` is hardly ever seen.
    pub state: u8,
    pub parent: u32,
    pub session: u32,
    /// Clock ticks since boot; with the pid it names a process for good, within one boot.
    pub start_time: u64,
}

impl Stat {
    /// Reads the line of a process; `None` if there is none under this number.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        match std::fs::read(format!("/proc/{pid}/stat")) {
            Ok(line) => Self::parse(&line).map(Some).ok_or_else(|| {
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
        let session = u32::try_from(number(fields.nth(1)?)?).ok()?; // field 6
        let start_time = number(fields.nth(15)?)?; // field 22
        Some(Self { state, parent, session, start_time })
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
        let line = b"7 (a) S 9 (b) Z 3 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200 18446744073709551615\n";
        assert_eq!(Stat::parse(line), Some(Stat { state: b'Z', parent: 3, session: 6, start_time: 4711 }));
    }

    #[test]
    fn a_line_that_breaks_off_is_refused() {
        let line = b"7 (sh) S 3 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 100";
        let start_time_ends = line.len() - " 100".len();
        for end in 0..start_time_ends - "4711".len() {
            assert_eq!(Stat::parse(&line[..end]), None, "the first {end} bytes");
        }
        assert_eq!(Stat::parse(line).map(|stat| stat.start_time), Some(4711));
    }

    #[test]
    fn our_own_line_names_our_parent() {
        let stat = Stat::of(std::process::id()).unwrap().unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(!stat.is_dead());
    }
}

//! Names: those under which Zeek puts a log into the queue, and those that logs have in the archive.
//!
//! In the queue a log is `conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log`: what it is, when it was opened and closed,
//! and its extension. Zeek's own scripts put `log_suffix=logger-1__` before the extension where there are several loggers.
//! In the archive it is `2026-01-31/conn.10:00:00-11:00:00.log.gz`, as zeekctl and zeek-archiver have it, and before the
//! extension `-logger-1` where there are several loggers. All times are local, and are taken as they are written.

use std::fmt;

/// What parts a name in the queue.
const PART: &str = "__";
/// What Zeek's own scripts write before the name of a logger.
const SUFFIX: &str = "log_suffix=";
/// Extensions of what is compressed already.
const PACKED: [&str; 6] = ["gz", "bz2", "lz", "lz4", "xz", "zst"];
/// The longest extension, in bytes.
const LONGEST_EXTENSION: usize = 32;

/// A moment in local time, as a name tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Moment {
    /// Reads `2026-01-31-10-00-00`; `None` if it is not of that form, or no time there can be.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split('-');
        let mut number = |digits: usize, least: u16, most: u16| {
            let word = numbers.next().filter(|word| word.len() == digits)?;
            let number = word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten()?;
            (least..=most).contains(&number).then_some(number)
        };
        let year = number(4, 0, 9999)?;
        // A second may be a leap second.
        let bounds = [(1, 12), (1, 31), (0, 23), (0, 59), (0, 60)];
        let mut small = [0; 5];
        for (place, (least, most)) in small.iter_mut().zip(bounds) {
            *place = u8::try_from(number(2, least, most)?).ok()?;
        }
        let [month, day, hour, minute, second] = small;
        numbers.next().is_none().then_some(Self { year, month, day, hour, minute, second })
    }

    /// The directory of its day: `2026-01-31`.
    pub fn date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn time(self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02}-{:02}-{:02}", self.date(), self.hour, self.minute, self.second)
    }
}

/// A log in the queue, as its name tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// What it is: `conn`.
    pub stem: String,
    pub opened: Moment,
    pub closed: Moment,
    /// The logger that its name tells.
    pub logger: Option<String>,
    /// With its dot: `.log`.
    pub extension: String,
}

impl Rotated {
    /// Reads a name in the queue; `None` if it says not when the log was opened and closed.
    pub fn read(name: &str) -> Option<Self> {
        if name.starts_with('.') || name.contains(|c: char| c == '/' || c.is_control()) {
            return None;
        }
        let parts: Vec<&str> = name.split(PART).collect();
        let (extension, before) = parts.split_last()?;
        let is_extension = |text: &str| {
            let allowed = |byte: u8| byte == b'.' || byte.is_ascii_alphanumeric();
            text.len() <= LONGEST_EXTENSION && text.bytes().all(allowed) && (text.is_empty() || text.starts_with('.'))
        };
        if !is_extension(extension) {
            return None;
        }
        let (rest, opened, closed, told) = match before {
            [rest @ .., opened, closed] if Moment::read(closed).is_some() => (rest, opened, closed, None),
            [rest @ .., opened, closed, told] => (rest, opened, closed, Some(*told)),
            _ => return None,
        };
        let logger = told.and_then(|told| told.split(',').find_map(|pair| pair.trim().strip_prefix(SUFFIX)));
        let stem = rest.join(PART);
        Some(Self {
            opened: Moment::read(opened)?,
            closed: Moment::read(closed)?,
            logger: logger.map(|logger| logger.trim().to_owned()).filter(|logger| !logger.is_empty()),
            extension: (*extension).to_owned(),
            stem: Some(stem).filter(|stem| !stem.is_empty())?,
        })
    }

    /// Its name in the queue. One that was read has the same name again, but for what else was said before its extension.
    pub fn queued(&self) -> String {
        let Self { stem, opened, closed, logger, extension } = self;
        let logger = logger.as_ref().map(|logger| format!("{SUFFIX}{logger}{PART}")).unwrap_or_default();
        format!("{stem}{PART}{opened}{PART}{closed}{PART}{logger}{extension}")
    }

    /// Whether it was compressed when it was written.
    pub fn is_packed(&self) -> bool {
        self.extension.rsplit_once('.').is_some_and(|(_, last)| PACKED.contains(&last))
    }

    /// Where it goes: of which logger it is counts where there are several, and `copy` from the second log of one name on. What
    /// is compressed on its way ends in that.
    pub fn destination(&self, logger: Option<&str>, compressed: Option<&str>, copy: u32) -> Destination {
        let mut file = format!("{}.{}-{}", self.stem, self.opened.time(), self.closed.time());
        if let Some(logger) = self.logger.as_deref().or(logger) {
            file.push('-');
            file.push_str(logger);
        }
        if copy > 1 {
            file.push_str(&format!("-{copy}"));
        }
        file.push_str(&self.extension);
        let pack = compressed.filter(|_| !self.is_packed());
        if let Some(extension) = pack {
            file.push('.');
            file.push_str(extension);
        }
        Destination { day: self.opened.date(), file, pack: pack.is_some() }
    }
}

/// A place in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The directory: `2026-01-31`.
    pub day: String,
    pub file: String,
    /// Whether the log is to be compressed on its way.
    pub pack: bool,
}

/// Whether that is the directory of a day in an archive.
pub fn is_day(name: &str) -> bool {
    name.len() == "2026-01-31".len() && Moment::read(&format!("{name}-00-00-00")).is_some()
}

/// Whether that is a log in such a directory, of whichever tool: `conn.10:00:00-11:00:00.log.gz` and what is like it.
pub fn is_archived(name: &str) -> bool {
    const TIMES: usize = "10:00:00-11:00:00".len();
    let is_time = |text: &str| {
        let mut words = text.split(':');
        let mut two = || words.next().is_some_and(|word| word.len() == 2 && word.bytes().all(|b| b.is_ascii_digit()));
        let all = two() && two() && two();
        all && words.next().is_none()
    };
    let are_times = |(at, _): (usize, &str)| {
        let behind = name.get(at + 1..)?;
        let (times, rest) = (behind.get(..TIMES)?, behind.get(TIMES..)?);
        let (from, to) = times.split_once('-')?;
        (is_time(from) && is_time(to) && (rest.is_empty() || rest.starts_with(['.', '-']))).then_some(())
    };
    let stem_ends = |at: &(usize, &str)| at.0 > 0;
    !name.starts_with('.') && name.match_indices('.').filter(stem_ends).any(|at| are_times(at).is_some())
}

/// A log that its node has left open: what it is, and its extension. `None` for any other file.
pub fn left_open(name: &str) -> Option<(&str, &str)> {
    let (stem, extension) = ["", ".gz"].into_iter().find_map(|packed| {
        let stem = name.strip_suffix(packed)?.strip_suffix(".log")?;
        Some((stem, &name[stem.len()..]))
    })?;
    let is_plain = !stem.is_empty() && !stem.starts_with('.') && !stem.contains(|c: char| c == '/' || c.is_control());
    is_plain.then_some((stem, extension))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str) -> Rotated {
        Rotated::read(name).unwrap_or_else(|| panic!("{name} is not read"))
    }

    fn path(name: &str, logger: Option<&str>, compress: bool) -> String {
        let Destination { day, file, .. } = read(name).destination(logger, compress.then_some("gz"), 1);
        format!("{day}/{file}")
    }

    #[test]
    fn names_become_those_that_other_tools_make() {
        let conn = "conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log";
        assert_eq!(path(conn, None, true), "2026-01-31/conn.10:00:00-11:00:00.log.gz");
        assert_eq!(path(conn, None, false), "2026-01-31/conn.10:00:00-11:00:00.log");
        assert_eq!(path(conn, Some("logger-1"), true), "2026-01-31/conn.10:00:00-11:00:00-logger-1.log.gz");
        let night = "dns__2026-01-31-23-30-00__2026-02-01-00-30-00__.log.gz";
        assert_eq!(path(night, None, true), "2026-01-31/dns.23:30:00-00:30:00.log.gz");
        let told = "http__2026-01-31-10-00-00__2026-01-31-11-00-00__log_suffix=logger-2__.log";
        assert_eq!(path(told, Some("other"), false), "2026-01-31/http.10:00:00-11:00:00-logger-2.log");
        let second = read(conn).destination(None, Some("gz"), 2);
        assert_eq!(second.file, "conn.10:00:00-11:00:00-2.log.gz");
        assert_eq!(path("my__own__2026-01-31-10-00-00__2026-01-31-11-00-00__.log", None, false), {
            "2026-01-31/my__own.10:00:00-11:00:00.log"
        });
    }

    #[test]
    fn what_says_not_when_it_was_is_no_log_of_the_queue() {
        for name in [
            "conn.log",
            "conn-26-01-31_10.00.00.log",
            "__2026-01-31-10-00-00__2026-01-31-11-00-00__.log",
            "conn__2026-01-31-10-00-00__.log",
            "conn__2026-13-31-10-00-00__2026-01-31-11-00-00__.log",
            "conn__2026-01-31-10-00-0__2026-01-31-11-00-00__.log",
            "conn__2026-01-31-10-00-00__2026-01-31-24-00-00__.log",
            "conn__2026-01-31-10-00-00__2026-01-31-11-00-00__log",
            "conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.l g",
            ".tmp.conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log",
            "a/b__2026-01-31-10-00-00__2026-01-31-11-00-00__.log",
            "",
        ] {
            assert_eq!(Rotated::read(name), None, "{name}");
        }
    }

    #[test]
    fn logs_of_an_archive_are_told_from_whatever_else_is_there() {
        for name in [
            "conn.10:00:00-11:00:00.log.gz",
            "conn.10:00:00-11:00:00.log",
            "conn.10:00:00-11:00:00-logger-1.log.gz",
            "my.own.10:00:00-11:00:00.log",
            "conn-summary.10:00:00-11:00:00.log.gz",
        ] {
            assert!(is_archived(name), "{name}");
        }
        for name in [
            "conn.log",
            ".tmp.conn.10:00:00-11:00:00.log.gz",
            "conn.10:00:00-current.log",
            "conn.10:00:0-11:00:00.log",
            "conn.10:00:00-11:00:00x",
            ".10:00:00-11:00:00.log",
            "10:00:00-11:00:00.log",
            "ü.10:00:00-11:00:0ü",
        ] {
            assert!(!is_archived(name), "{name}");
        }
        assert!(is_day("2026-01-31") && !is_day("2026-01-32") && !is_day("stats") && !is_day("2026-01-31-00"));
    }

    #[test]
    fn logs_that_were_left_open_are_known_by_their_extension() {
        for (name, want) in [
            ("conn.log", Some(("conn", ".log"))),
            ("my.own.log.gz", Some(("my.own", ".log.gz"))),
            (".shadow.conn.log", None),
            (".log", None),
            ("stdout", None),
            ("conn.log.1", None),
        ] {
            assert_eq!(left_open(name), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_name_reads_back_and_its_place_is_one_of_an_archive(
            stem in "[a-z_-]{1,20}",
            (year, month, day) in (1970_u16..2100, 1_u8..=12, 1_u8..=31),
            times in prop::array::uniform2((0_u8..24, 0_u8..60, 0_u8..60)),
            logger in prop::option::of("[a-z][a-z0-9-]{0,10}"),
            extension in prop::sample::select(vec![".log", ".log.gz", ".json", ""]),
        ) {
            let [opened, closed] =
                times.map(|(hour, minute, second)| Moment { year, month, day, hour, minute, second });
            let rotated = Rotated { stem, opened, closed, logger, extension: extension.into() };
            // Two such lines in a row would part the name elsewhere.
            prop_assume!(!rotated.stem.contains(PART) && !rotated.stem.ends_with('_'));
            let read = Rotated::read(&rotated.queued());
            prop_assert_eq!(read.as_ref(), Some(&rotated));
            let Destination { day, file, .. } = rotated.destination(None, Some("gz"), 1);
            prop_assert!(is_day(&day) && is_archived(&file), "{}/{}", day, file);
        }

        #[test]
        fn no_name_leads_out_of_its_directory(name in "[a-z_./0-9-]{0,60}") {
            if let Some(rotated) = Rotated::read(&name) {
                let Destination { day, file, .. } = rotated.destination(None, Some("gz"), 1);
                prop_assert!(is_day(&day) && !file.contains('/') && !file.starts_with('.'));
            }
        }
    }
}

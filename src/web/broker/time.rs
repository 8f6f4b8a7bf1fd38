//! Broker's two notions of time, as their texts on the wire have them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::data::{NotA, digits};

/// A length of time in nanoseconds. The unmodified client takes no negative one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timespan(pub i64);

/// Units by the texts that are read, in nanoseconds.
const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl fmt::Display for Timespan {
    /// In the coarsest of `s`, `ms` and `ns` that is exact. Broker also writes `us`, which its own client cannot read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ns if ns % 1_000_000_000 == 0 => write!(f, "{}s", ns / 1_000_000_000),
            ns if ns % 1_000_000 == 0 => write!(f, "{}ms", ns / 1_000_000),
            ns => write!(f, "{ns}ns"),
        }
    }
}

impl FromStr for Timespan {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let parse = || {
            let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
            digits(number.strip_prefix('-').unwrap_or(number))?;
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self(number.parse::<i64>().ok()?.checked_mul(*length)?))
        };
        parse().ok_or_else(|| NotA::new(text, "a timespan such as 1500ms"))
    }
}

impl From<Duration> for Timespan {
    /// What is longer than 292 years becomes that.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// A moment in milliseconds since 1970-01-01 UTC, between the years 0 and 9999: as much as the wire can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

const DAY: i64 = 86_400_000;
/// 0000-01-01T00:00:00.000 and 9999-12-31T23:59:59.999.
const RANGE: (i64, i64) = (-62_167_219_200_000, 253_402_300_799_999);

impl Timestamp {
    /// `None` outside of the years 0 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        (RANGE.0 <= millis && millis <= RANGE.1).then_some(Self(millis))
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn millis(self) -> i64 {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    /// Moments before 1970 become its beginning, those after the year 9999 its end.
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(i64::try_from(millis).unwrap_or(i64::MAX).min(RANGE.1))
    }
}

impl fmt::Display for Timestamp {
    /// `2026-01-02T03:04:05.678`, in UTC and without saying so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0.div_euclid(DAY));
        let millis = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}", millis % 1000)
    }
}

impl FromStr for Timestamp {
    type Err = NotA;

    /// Reads ISO 8601; a text without a zone is in UTC. What is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self, NotA> {
        parse(text).ok_or_else(|| NotA::new(text, "a timestamp such as 2026-01-02T03:04:05.678"))
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (time, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (time, fraction) = time.split_once('.').map_or((time, "0"), |(time, fraction)| (time, fraction));
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    let valid = (1..=12).contains(&month) && day >= 1 && hour < 24 && minute < 60 && second < 60;
    let days = days_of(year, month, day);
    if !valid || date_of(days) != (year, month, day) {
        return None;
    }
    let millis: String = digits(fraction)?.chars().chain("00".chars()).take(3).collect();
    let moment = days * DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + millis.parse::<i64>().ok()?;
    Timestamp::from_millis(moment - offset(zone)?)
}

/// How far a zone is ahead of UTC, in milliseconds.
fn offset(zone: &str) -> Option<i64> {
    let (sign, text) = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => return Some(0),
        Some(("+", text)) => (1, text),
        Some(("-", text)) => (-1, text),
        Some(_) => return None,
    };
    let [hours, minutes] = fields(text, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600_000 + minutes * 60_000))
}

/// Numbers of so many digits each, with this between them.
fn fields<const N: usize>(text: &str, between: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        *number = digits(part).filter(|part| part.len() == width)?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Years of the reckoning below begin with March, so that the leap day is the last; 400 of them have as many days as
/// any other 400.
const DAYS_OF_400_YEARS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

/// Days from 1970-01-01 to this date of the Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (centuries, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    centuries * DAYS_OF_400_YEARS + year * 365 + year / 4 - year / 100 + day_of_year - DAYS_BEFORE_1970
}

/// The year, month and day that are so many days after 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_1970;
    let (centuries, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (centuries * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timespan_is_written_in_a_unit_that_its_client_reads() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_000, "1000ns"),
            (1_500_000, "1500000ns"),
            (2_000_000, "2ms"),
            (1_500_000_000, "1500ms"),
            (90_000_000_000, "90s"),
            (-5_000_000_000, "-5s"),
            (i64::MIN, "-9223372036854775808ns"),
        ] {
            assert_eq!(Timespan(ns).to_string(), text);
            assert_eq!(text.parse(), Ok(Timespan(ns)));
        }
    }

    #[test]
    fn a_timespan_is_read_in_every_unit() {
        for (text, ns) in
            [("7us", 7_000), ("2min", 120_000_000_000), ("1h", 3_600_000_000_000), ("1d", 86_400_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Timespan(ns)), "{text}");
        }
        for text in
            ["", "1", "s", "1 s", "+1s", "1.5s", "--1s", "1S", "1y", "1ss", "9223372037s", "99999999999999999999ns"]
        {
            assert!(text.parse::<Timespan>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_timestamp_has_three_digits_after_the_second_and_no_zone() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000"),
            (1_767_323_045_678, "2026-01-02T03:04:05.678"),
            (951_782_400_000, "2000-02-29T00:00:00.000"),
            (-1, "1969-12-31T23:59:59.999"),
            (RANGE.0, "0000-01-01T00:00:00.000"),
            (RANGE.1, "9999-12-31T23:59:59.999"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(millis)));
        }
    }

    #[test]
    fn a_timestamp_is_read_with_and_without_zone_and_fraction() {
        let moment = Timestamp(1_767_323_045_000);
        for text in [
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05.0",
            "2026-01-02T03:04:05.000999Z",
            "2026-01-02T05:04:05+02:00",
            "2026-01-01T21:34:05-05:30",
        ] {
            assert_eq!(text.parse(), Ok(moment), "{text}");
        }
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T",
            "2026-01-02T03:04",
            "2026-02-29T00:00:00",
            "2026-13-01T00:00:00",
            "2026-00-01T00:00:00",
            "2026-01-00T00:00:00",
            "2026-01-02T24:00:00",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05.-1",
            "2026-01-02T03:04:05+2",
            "2026-01-02T03:04:05Zulu",
            "0000-01-01T00:00:00+01:00",
            "12026-01-02T03:04:05",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_found_again() {
        for days in RANGE.0 / DAY..=RANGE.1.div_euclid(DAY) {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }
}

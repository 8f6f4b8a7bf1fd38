//! When people are told that a disk fills: long before it is full, once for each step, and once when there is room again.

use std::fmt;
use std::time::Duration;

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Roomy,
    /// Less is free than twice what is to stay free.
    Low,
    /// Less is free than is to stay free.
    Scarce,
}

/// What a file system says of itself, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub total: u64,
    /// What may still be written by whoever is not root.
    pub free: u64,
}

impl Room {
    fn percent(self) -> u64 {
        percent_of(self.free, self.total)
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}% of it is free, {} of {}", self.percent(), Amount(self.free), Amount(self.total))
    }
}

/// Bytes, as people read them.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
            .into_iter()
            .find(|(unit, _)| self.0 >= *unit)
            .unwrap_or((1, "bytes"));
        match unit {
            1 => write!(f, "{} {name}", self.0),
            _ => write!(f, "{:.1} {name}", self.0 as f64 / unit as f64),
        }
    }
}

fn percent_of(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// A step that a disk has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    pub from: Level,
    pub to: Level,
    /// Less than so much of it was free, or is not any more, in percent.
    pub percent: u64,
}

/// Watches one disk.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    level: Level,
}

impl Guard {
    /// What there is to say of a disk with that room, of which `min_free` percent are to stay free; 0: never anything.
    pub fn look(&mut self, room: Room, min_free: u8) -> Option<Crossing> {
        let from = self.level;
        self.level = if min_free == 0 || room.total == 0 { Level::Roomy } else { next(from, room, min_free) };
        let percent = |level| u64::from(min_free) * if level == Level::Scarce { 1 } else { 2 };
        (self.level != from).then(|| Crossing { from, to: self.level, percent: percent(from.max(self.level)) })
    }
}

/// A disk that was found to be full is roomy again only when it has a quarter more than was too little: else a figure that
/// goes up and down would be told again and again.
fn next(from: Level, room: Room, min_free: u8) -> Level {
    let has = |quarters: u128| u128::from(room.free) * 400 >= u128::from(room.total) * u128::from(min_free) * quarters;
    let (scarce, low) = (!has(4), !has(8));
    let (still_scarce, still_low) = (!has(5), !has(10));
    match from {
        _ if scarce => Level::Scarce,
        Level::Scarce if still_scarce => Level::Scarce,
        Level::Roomy if low => Level::Low,
        Level::Low | Level::Scarce if still_low => Level::Low,
        _ => Level::Roomy,
    }
}

/// The soonest and the latest that a disk is looked at again.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(300);

/// When to look again at a disk that was found so, `passed` after it was found as `before`: by half of the time in which it
/// would be at the next step, if it went on filling as it did.
pub fn next_look(before: Option<(Room, Duration)>, room: Room, min_free: u8) -> Duration {
    let Some((before, passed)) = before else { return SOONEST };
    let filled = before.free.saturating_sub(room.free);
    if filled == 0 || passed.is_zero() {
        return LATEST;
    }
    let steps = [2, 1].map(|times| u128::from(room.total) * u128::from(min_free) * times / 100);
    let free = u128::from(room.free);
    // Below the last step, what is left of it is what counts.
    let step = steps.into_iter().find(|step| *step < free).unwrap_or(0);
    let until = (free - step) as f64 * passed.as_secs_f64() / filled as f64 / 2.0;
    Duration::try_from_secs_f64(until).unwrap_or(LATEST).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(percent: u64) -> Room {
        Room { total: 1000 << 30, free: percent * (10 << 30) }
    }

    /// What is told of a disk with so many percent free, one after the other.
    fn told(percents: &[u64]) -> Vec<(u64, Level)> {
        let mut guard = Guard::default();
        let look = |percent: &u64| Some((*percent, guard.look(room(*percent), 10)?.to));
        percents.iter().filter_map(look).collect()
    }

    #[test]
    fn every_step_is_told_once() {
        use Level::{Low, Roomy, Scarce};
        assert_eq!(told(&[50, 20, 19, 15, 10, 9, 5, 0]), [(19, Low), (9, Scarce)]);
        assert_eq!(told(&[50, 5, 4]), [(5, Scarce)]);
        assert_eq!(told(&[9, 13, 30]), [(9, Scarce), (13, Low), (30, Roomy)]);
        assert_eq!(told(&[9, 50]), [(9, Scarce), (50, Roomy)]);
    }

    #[test]
    fn a_figure_that_goes_up_and_down_is_not_told_again_and_again() {
        assert_eq!(told(&[19, 20, 19, 22, 19, 24, 19]), [(19, Level::Low)]);
        assert_eq!(told(&[9, 10, 9, 12, 9]), [(9, Level::Scarce)]);
        assert_eq!(told(&[19, 25, 19]), [(19, Level::Low), (25, Level::Roomy), (19, Level::Low)]);
    }

    #[test]
    fn a_disk_that_nobody_asked_about_or_that_has_no_size_is_not_told_of() {
        let mut guard = Guard::default();
        assert_eq!(guard.look(room(0), 0), None);
        assert_eq!(guard.look(Room { total: 0, free: 0 }, 10), None);
        guard.look(room(1), 10).unwrap();
        assert_eq!(guard.look(room(1), 0).unwrap().to, Level::Roomy, "nobody asks any more");
    }

    #[test]
    fn words_name_the_percent_and_the_bytes() {
        assert_eq!(room(12).to_string(), "12% of it is free, 120.0 GiB of 1000.0 GiB");
        assert_eq!(Room { total: 2048, free: 1000 }.to_string(), "48% of it is free, 1000 bytes of 2.0 KiB");
        let mut guard = Guard::default();
        assert_eq!(guard.look(room(12), 10).unwrap().percent, 20);
        assert_eq!(guard.look(room(2), 10).unwrap().percent, 10);
        assert_eq!(guard.look(room(90), 10).unwrap().percent, 10);
    }

    #[test]
    fn a_disk_that_fills_fast_is_looked_at_soon() {
        let minute = Duration::from_secs(60);
        assert_eq!(next_look(None, room(50), 10), SOONEST);
        assert_eq!(next_look(Some((room(50), minute)), room(50), 10), LATEST);
        assert_eq!(next_look(Some((room(49), minute)), room(50), 10), LATEST, "it empties");
        // A percent a minute, and two to go.
        assert_eq!(next_look(Some((room(23), minute)), room(22), 10), minute);
        assert_eq!(next_look(Some((room(50), minute)), room(21), 10), SOONEST);
    }

    proptest! {
        #[test]
        fn nothing_is_told_twice_and_whatever_is_scarce_was_told(
            percents in prop::collection::vec(0_u64..=100, 0..60),
            min_free in 1_u8..=40,
        ) {
            let mut guard = Guard::default();
            let mut last = Level::Roomy;
            for percent in percents {
                if let Some(Crossing { from, to, .. }) = guard.look(room(percent), min_free) {
                    prop_assert_eq!(from, last);
                    prop_assert_ne!(to, last);
                    last = to;
                }
                prop_assert_eq!(percent < u64::from(min_free) && last != Level::Scarce, false);
                prop_assert_eq!(percent < 2 * u64::from(min_free) && last == Level::Roomy, false);
                prop_assert_eq!(percent >= 3 * u64::from(min_free) && last != Level::Roomy, false);
            }
        }
    }
}

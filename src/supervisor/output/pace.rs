//! When a file that grows is to be looked at next. Whoever is silent costs nothing: then the kernel says when it speaks.

use std::time::Duration;

/// Between two looks at a file that grows, at least: so much more than its bound it may hold for a moment.
pub(super) const SOONEST: Duration = Duration::from_secs(1);
/// And at most: what grows slowly may soon grow fast.
pub(super) const LATEST: Duration = Duration::from_secs(60);

/// How long after a look the next one is due at a file that has grown by so many bytes in this time, and has room for so
/// many more; `None` if it has not grown, and the first byte will tell.
pub(super) fn next_look(grown: u64, within: Duration, room: u64) -> Option<Duration> {
    if grown == 0 {
        return None;
    }
    let until_full = within.as_secs_f64() * room as f64 / grown as f64;
    Some(Duration::try_from_secs_f64(until_full).unwrap_or(LATEST).clamp(SOONEST, LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_when_it_will_be_full_and_one_that_is_silent_never() {
        let second = Duration::from_secs(1);
        for (grown, within, room, want) in [
            (0, second, 100, None),
            (10, second, 100, Some(10)),
            (10, 2 * second, 50, Some(10)),
            (1, second, 1 << 40, Some(60)),
            (1 << 40, second, 5, Some(1)),
            (5, second, 0, Some(1)),
            (5, Duration::ZERO, 5, Some(1)),
        ] {
            let got = next_look(grown, within, room);
            assert_eq!(got, want.map(Duration::from_secs), "{grown} in {within:?}, room for {room}");
        }
    }
}

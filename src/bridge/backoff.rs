//! How long to wait before dialling again.

use std::time::Duration;

/// How many of the shortest pauses a link has to stand to be a good one.
const GOOD: u32 = 10;

/// Doubles from `min` to `max`, and begins anew after a good link: one that stood for longer than the next pause would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// A back-off that has not had to wait yet. `max` is raised to `min` if it is below.
    pub fn new(min: Duration, max: Duration) -> Self {
        // A pause of nothing would stay nothing however often it is doubled.
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), next: min }
    }

    /// The pause after an attempt whose link stood for `stood` (zero if it came to nothing).
    ///
    /// `random` picks the place between half of the pause and all of it, so that many ends which lost the same peer
    /// do not come back at the same moment.
    pub fn pause(&mut self, stood: Duration, random: u32) -> Duration {
        // Whoever is let in and sent away at once is no better off than one that is not let in.
        if stood >= self.next.max(self.min.saturating_mul(GOOD)).min(self.max) {
            self.next = self.min;
        }
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(100 * MS, 1000 * MS);
        let pauses: Vec<_> = (0..6).map(|_| backoff.pause(Duration::ZERO, u32::MAX).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_link_that_stood_makes_the_next_pause_short_and_one_that_flapped_does_not() {
        let mut backoff = Backoff::new(100 * MS, 10_000 * MS);
        backoff.pause(Duration::ZERO, 0);
        assert_eq!(backoff.pause(999 * MS, u32::MAX), 200 * MS);
        assert_eq!(backoff.pause(1000 * MS, u32::MAX), 100 * MS, "it was good, if not for long");
        for _ in 0..5 {
            backoff.pause(Duration::ZERO, 0);
        }
        assert_eq!(backoff.pause(3000 * MS, u32::MAX), 6400 * MS, "by then a good one stands for longer");
        assert_eq!(backoff.pause(10_000 * MS, u32::MAX), 100 * MS);
        let mut short = Backoff::new(100 * MS, 200 * MS);
        for _ in 0..3 {
            short.pause(Duration::ZERO, 0);
        }
        assert_eq!(short.pause(200 * MS, u32::MAX), 100 * MS, "never for longer than the longest pause");
    }

    #[test]
    fn chance_spreads_a_pause_over_its_second_half() {
        let pause = |random| Backoff::new(100 * MS, 1000 * MS).pause(Duration::ZERO, random);
        assert_eq!(pause(0), 50 * MS);
        assert!((74 * MS..76 * MS).contains(&pause(u32::MAX / 2)));
    }

    #[test]
    fn settings_that_make_no_sense_still_make_a_pause() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(backoff.pause(Duration::MAX, u32::MAX), MS);
    }
}

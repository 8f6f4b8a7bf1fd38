//! Chance that can be repeated, and the clocks that go with it.

use std::ops::Range;
use std::time::{Duration, Instant};

use watchpost::model::{Now, Timestamp};

/// Numbers that look random and follow from their seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Chance of its own for a part of the run.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A delay of that many milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// Time that passes only when it is told to; the wall clock is somebody else's to set.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub now: Now,
}

impl Clock {
    pub fn new() -> Self {
        Self { now: Now { mono: Instant::now(), wall: Timestamp(1_700_000_000_000_000) } }
    }

    /// Time never goes back; the wall clock goes along.
    pub fn advance_to(&mut self, at: Instant) {
        let passed = at.saturating_duration_since(self.now.mono);
        self.now.mono += passed;
        self.now.wall.0 += passed.as_micros() as u64;
    }

    /// Somebody sets the wall clock an hour forth or back.
    pub fn set_wall(&mut self, forth: bool) {
        const HOUR: u64 = 3_600_000_000;
        self.now.wall.0 = if forth { self.now.wall.0 + HOUR } else { self.now.wall.0 - HOUR };
    }
}

/// Runs `test` with seeds from `first` on, and names the seed if it fails.
pub fn with_seeds(first: u64, count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was WATCHPOST_SEED={}", self.0);
            }
        }
    }
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) = match number("WATCHPOST_SEED") {
        Some(seed) => (seed, 1),
        None => (first, number("WATCHPOST_SEEDS").unwrap_or(count)),
    };
    for seed in first..first + count {
        let named = Named(seed);
        test(seed);
        drop(named);
    }
}

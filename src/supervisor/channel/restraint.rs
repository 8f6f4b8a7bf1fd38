//! How much of what a node reports is told: some at once, then a few a minute; of the others how many there were.

use std::fmt;
use std::time::{Duration, Instant};

use super::decode::Held;

/// So many are told at once.
const MOST: u32 = 20;
/// One more may be told after each of these.
const REFILL: Duration = Duration::from_secs(3);

/// Of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restraint {
    room: u32,
    refilled: Instant,
    held: Held,
}

impl Restraint {
    pub fn new(now: Instant) -> Self {
        Self { room: MOST, refilled: now, held: Held::default() }
    }

    /// Whether a report may be told. One that may not is counted.
    pub fn admits(&mut self, is_error: bool, now: Instant) -> bool {
        while self.room < MOST && now.saturating_duration_since(self.refilled) >= REFILL {
            (self.room, self.refilled) = (self.room + 1, self.refilled + REFILL);
        }
        if self.room == MOST {
            self.refilled = now;
        }
        if self.room == 0 {
            self.hold(Held { errors: is_error.into(), warnings: (!is_error).into() });
            return false;
        }
        self.room -= 1;
        true
    }

    /// Counts what the node held back itself.
    pub fn hold(&mut self, held: Held) {
        self.held.errors = self.held.errors.saturating_add(held.errors);
        self.held.warnings = self.held.warnings.saturating_add(held.warnings);
    }

    /// Whether there is a number to be told.
    pub fn has_held(&self) -> bool {
        self.held != Held::default()
    }

    /// How many were held back since the last time.
    pub fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { errors, warnings } = self;
        write!(f, "held back {errors} more errors and {warnings} more warnings of Zeek: see its stderr")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_by_its_number() {
        let noon = Instant::now();
        let mut restraint = Restraint::new(noon);
        let told = (0..1000).filter(|number| restraint.admits(number % 2 == 0, noon)).count();
        assert_eq!((told, restraint.has_held()), (20, true));
        restraint.hold(Held { errors: 10, warnings: 5 });
        assert_eq!(restraint.take_held(), Held { errors: 500, warnings: 495 });
        assert!(!restraint.has_held() && !restraint.admits(true, noon + REFILL - Duration::from_millis(1)));
        assert!(restraint.admits(true, noon + REFILL) && !restraint.admits(true, noon + REFILL));
        let later = noon + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| restraint.admits(true, later)).count(), 20, "never more than at first");
    }
}

//! What a stranger can cause a thousand times is said once, with the number of the others.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The least time between two lines.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Decides which occurrences of one thing are worth a line in the log.
#[derive(Default)]
pub(super) struct Seldom {
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// How many went unsaid before this one; `None` if this one does so too.
    pub fn say(&self, now: Instant) -> Option<u64> {
        if self.said.get().is_some_and(|said| now < said + SAY_EVERY) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.said.set(Some(now));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_too_often_is_counted_instead_of_said() {
        let (seldom, noon) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.say(noon), Some(0));
        assert_eq!(seldom.say(noon), None);
        assert_eq!(seldom.say(noon + SAY_EVERY / 2), None);
        assert_eq!(seldom.say(noon + SAY_EVERY), Some(2));
        assert_eq!(seldom.say(noon + 3 * SAY_EVERY), Some(0));
    }
}

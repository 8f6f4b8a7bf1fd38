//! What a stranger can cause a thousand times is said once, with the number of the others.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How many kinds are told apart at a time.
const MOST_KINDS: usize = 64;

/// Decides which occurrences of one thing are worth a line in the log.
#[derive(Default)]
pub(crate) struct Seldom {
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

/// The same for things of several kinds: none of them hides the first of another.
pub(crate) struct SeldomEach<K>(Mutex<Vec<(K, Seldom)>>);

impl<K: PartialEq> SeldomEach<K> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// How many of this kind went unsaid before this one; `None` if this one does so too.
    pub fn say(&self, kind: K, now: Instant) -> Option<u64> {
        // Nothing panics in the middle of a change.
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seldom)) = kinds.iter().find(|(known, _)| *known == kind) {
            return seldom.say(now);
        }
        if kinds.len() < MOST_KINDS {
            kinds.push((kind, Seldom::default()));
            return kinds.last()?.1.say(now);
        }
        // It takes the place, and the number, of the kind that was said the longest ago, once that may be said again.
        let (oldest, seldom) = kinds.iter_mut().min_by_key(|(_, seldom)| seldom.said.get())?;
        let unsaid = seldom.say(now)?;
        *oldest = kind;
        Some(unsaid)
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

    #[test]
    fn the_first_of_a_kind_is_said_at_once_whatever_others_do() {
        let (each, noon) = (SeldomEach::new(), Instant::now());
        assert_eq!([1, 1, 2, 1, 2, 3].map(|kind| each.say(kind, noon)), [Some(0), None, Some(0), None, None, Some(0)]);
        assert_eq!([1, 2, 3].map(|kind| each.say(kind, noon + SAY_EVERY)), [Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn whoever_invents_kinds_gets_so_many_lines_and_no_more() {
        let (each, noon) = (SeldomEach::new(), Instant::now());
        let said = |from: usize, at| (from..from + 1000).filter(|kind| each.say(*kind, at).is_some()).count();
        assert_eq!(said(0, noon), MOST_KINDS);
        assert_eq!(said(1000, noon + SAY_EVERY), MOST_KINDS);
        assert_eq!(each.0.lock().unwrap().len(), MOST_KINDS);
    }
}

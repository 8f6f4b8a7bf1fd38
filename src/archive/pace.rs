//! When something that failed is tried again.

use std::time::Duration;

/// The wait after the first failure, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, and what is to be said of them: the first, and that they are over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    in_a_row: u32,
}

impl Trouble {
    /// It failed: how long to wait, and whether that is news.
    pub fn failed(&mut self) -> (Duration, bool) {
        let wait = FIRST.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST);
        self.in_a_row = self.in_a_row.saturating_add(1);
        (wait, self.in_a_row == 1)
    }

    /// It worked: whether that is news.
    pub fn worked(&mut self) -> bool {
        std::mem::take(&mut self.in_a_row) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_once_it_worked() {
        let mut trouble = Trouble::default();
        assert!(!trouble.worked());
        let waits: Vec<_> = (0..12).map(|_| trouble.failed()).collect();
        assert_eq!(waits.iter().map(|(wait, _)| wait.as_secs()).take(4).collect::<Vec<_>>(), [1, 2, 4, 8]);
        assert_eq!(waits[11].0, LONGEST);
        assert_eq!(waits.iter().filter(|(_, is_news)| *is_news).count(), 1);
        assert!(trouble.worked());
        assert_eq!(trouble.failed(), (FIRST, true));
    }
}

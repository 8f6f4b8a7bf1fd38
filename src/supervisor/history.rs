//! What earlier crashes of a node mean for the next one: when it is started again, and when it is given up.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::RestartPolicy;

/// Of so many restarts it is kept on disk when they were.
const MOST_KEPT: usize = 1024;

/// The restarts of a node so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Restarts in a row, without a stable time between them.
    attempt: u32,
    /// Restarts that nobody asked for, ever.
    restarts: u32,
    /// When the restarts of the last window were decided, oldest first; empty without a limit.
    recent: Vec<Instant>,
    /// Where the chance that spreads restarts has come to.
    chance: u64,
}

/// The part of a history that outlives its agent: a node that keeps dying is no fresh one to the next agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Past {
    /// Restarts in a row.
    pub attempt: u32,
    /// How long ago the restarts of the last window were, in milliseconds, oldest first.
    pub ago: Vec<u64>,
}

impl Past {
    /// The same, so much later.
    pub fn aged(mut self, by: Duration) -> Self {
        let by = milliseconds(by);
        self.ago.iter_mut().for_each(|ago| *ago = ago.saturating_add(by));
        self
    }
}

impl History {
    /// One whose waits are spread by chance that begins with `seed`.
    pub fn seeded(self, seed: u64) -> Self {
        Self { chance: seed, ..self }
    }

    /// Goes on from what an earlier agent knew.
    pub fn recall(&mut self, past: &Past, now: Instant) {
        self.attempt = past.attempt;
        self.recent = past.ago.iter().filter_map(|ago| now.checked_sub(Duration::from_millis(*ago))).collect();
    }

    /// What the next agent is to know.
    pub fn past(&self, now: Instant) -> Past {
        let kept = self.recent.iter().skip(self.recent.len().saturating_sub(MOST_KEPT));
        let ago = kept.map(|then| milliseconds(now.saturating_duration_since(*then))).collect();
        Past { attempt: self.attempt, ago }
    }

    /// Restarts in a row.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Restarts that nobody asked for.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether there is nothing to forgive.
    pub fn is_blank(&self) -> bool {
        self.attempt == 0 && self.recent.is_empty()
    }

    /// Starts counting anew, after a stable time or when a person asked.
    pub fn forgive(&mut self) {
        self.attempt = 0;
        self.recent.clear();
    }

    /// How long to wait before the next restart; `None` if the limit is reached.
    pub fn next_delay(&mut self, now: Instant, policy: &RestartPolicy) -> Option<Duration> {
        if policy.limit > 0 {
            self.recent.retain(|then| now.saturating_duration_since(*then) < policy.window);
            if self.recent.len() >= policy.limit as usize {
                return None;
            }
            self.recent.push(now);
        }
        let delay = self.wait(policy);
        self.attempt = self.attempt.saturating_add(1);
        self.restarts = self.restarts.saturating_add(1);
        Some(delay)
    }

    /// The wait that the policy has for this attempt, less what chance takes off.
    fn wait(&mut self, policy: &RestartPolicy) -> Duration {
        if self.attempt == 0 {
            return Duration::ZERO;
        }
        let mut wait = policy.delay;
        for _ in 1..self.attempt {
            let longer = policy.factor.times(wait);
            if wait >= policy.max_delay || longer == wait {
                break;
            }
            wait = longer;
        }
        let wait = wait.min(policy.max_delay);
        match policy.jitter.min(100) {
            0 => wait,
            jitter => {
                let most = wait / 100 * u32::from(jitter);
                wait - most.mul_f64(self.draw())
            }
        }
    }

    /// A number from 0 up to 1 (splitmix64): the same for the same seed.
    fn draw(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // As many bits as the fraction of such a number holds.
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waits(policy: &RestartPolicy, seed: u64, count: usize) -> Vec<Duration> {
        let (mut history, now) = (History::default().seeded(seed), Instant::now());
        (0..count).map(|_| history.next_delay(now, policy).unwrap()).collect()
    }

    #[test]
    fn waits_grow_by_the_factor_up_to_the_longest() {
        let policy = RestartPolicy {
            delay: 100 * MS,
            factor: "1.5".parse().unwrap(),
            max_delay: 400 * MS,
            jitter: 0,
            ..RestartPolicy::default()
        };
        assert_eq!(
            waits(&policy, 0, 7).iter().map(Duration::as_millis).collect::<Vec<_>>(),
            [0, 100, 150, 225, 337, 400, 400]
        );
        let steady = RestartPolicy { factor: "1".parse().unwrap(), limit: 0, ..policy };
        assert!(waits(&steady, 0, 1000)[1..].iter().all(|wait| *wait == 100 * MS));
    }

    #[test]
    fn chance_takes_off_no_more_than_the_jitter_and_follows_from_its_seed() {
        let policy = RestartPolicy { delay: 1000 * MS, max_delay: 1000 * MS, jitter: 40, ..RestartPolicy::default() };
        let all: Vec<_> = (0..200).map(|seed| waits(&policy, seed, 2)[1]).collect();
        assert!(all.iter().all(|wait| (600 * MS..=1000 * MS).contains(wait)), "{all:?}");
        let low = all.iter().filter(|wait| **wait < 800 * MS).count();
        assert!((60..140).contains(&low), "they are spread: {low} of 200 in the lower half");
        assert_eq!(waits(&policy, 7, 9), waits(&policy, 7, 9));
        assert_ne!(waits(&policy, 7, 9), waits(&policy, 8, 9));
        assert_eq!(waits(&policy, 7, 1), [Duration::ZERO], "the first restart is immediate");
    }

    #[test]
    fn the_next_agent_counts_on_from_where_the_last_one_was() {
        let policy = RestartPolicy { limit: 3, jitter: 0, ..RestartPolicy::default() };
        let (mut history, now) = (History::default(), Instant::now());
        let first = [(); 2].map(|()| history.next_delay(now, &policy).unwrap());
        let past = history.past(now + 5 * MS);
        assert_eq!(past, Past { attempt: 2, ago: vec![5, 5] });
        let mut next = History::default();
        next.recall(&past.clone().aged(10 * MS), now + 15 * MS);
        assert_eq!((first[1], next.next_delay(now + 15 * MS, &policy)), (policy.delay, Some(2 * policy.delay)));
        assert_eq!(next.next_delay(now + 15 * MS, &policy), None, "three within the window");
        next.recall(&past.aged(policy.window), now + policy.window);
        assert!(next.next_delay(now + policy.window, &policy).is_some(), "the window has passed");
    }
}

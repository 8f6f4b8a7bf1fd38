//! When a Zeek node loses too many packets for too long, and when it has ceased to.

use std::time::Instant;

use crate::model::{NetStats, ZeekHealth};

/// What one node lost of late.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LossWatch {
    /// Since when it is otherwise than it was told.
    since: Option<Instant>,
    /// It was told that it loses too many.
    is_told: bool,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Loses(String),
    Recovered(String),
}

impl LossWatch {
    /// Takes in what a node counted. A time without packets is one without loss.
    pub fn hear(&mut self, counted: &NetStats, rules: &ZeekHealth, now: Instant) -> Option<Finding> {
        if counted.over.is_zero() {
            return None; // nobody knows what it lost since when
        }
        let (loss, limit) = (counted.lately.loss(), rules.loss_above());
        let is_above = loss.is_some_and(|loss| loss > limit);
        if is_above == self.is_told {
            self.since = None;
            return None;
        }
        // It has been so since the heartbeat before this one.
        let began = now.checked_sub(counted.over).unwrap_or(now);
        let since = *self.since.get_or_insert(began);
        if now.saturating_duration_since(since) < rules.loss_for() {
            return None;
        }
        (self.since, self.is_told) = (None, is_above);
        let time = humantime::format_duration(rules.loss_for());
        Some(match (is_above, loss) {
            (true, Some(loss)) => {
                Finding::Loses(format!("loses packets: {loss} lately, and more than {limit} for {time}"))
            }
            _ => Finding::Recovered(format!("no longer loses packets: not more than {limit} for {time}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Packets, Timestamp};

    #[test]
    fn loss_is_told_once_it_lasts_and_once_it_is_over() {
        let noon = Instant::now();
        let over = Duration::from_secs(10);
        let counted = |dropped, over| NetStats {
            time: Timestamp(0),
            total: Packets::default(),
            lately: Packets { received: 100 - dropped, dropped },
            over,
            link: 0,
            bytes: 0,
            memory: 0,
            events: 0,
        };
        let (rules, mut watch, mut now) = (ZeekHealth::default(), LossWatch::default(), noon);
        let mut hear = |dropped| {
            now += over;
            watch.hear(&counted(dropped, over), &rules, now)
        };
        assert_eq!((0..5).filter_map(|_| hear(6)).next(), None, "not for a minute yet");
        assert_eq!(hear(5), None, "and it begins anew");
        assert_eq!((0..5).filter_map(|_| hear(7)).next(), None);
        assert_eq!(hear(7), Some(Finding::Loses("loses packets: 7% lately, and more than 5% for 1m".into())));
        assert_eq!((0..9).filter_map(|_| hear(50)).next(), None, "once");
        assert_eq!((0..5).filter_map(|_| hear(0)).next(), None);
        let over = "no longer loses packets: not more than 5% for 1m";
        assert_eq!(hear(0), Some(Finding::Recovered(over.into())));
        let off = ZeekHealth { loss_above: Some(crate::model::Loss::ALL), ..ZeekHealth::default() };
        let mut watch = LossWatch::default();
        let all =
            (0..99).map(|number| watch.hear(&counted(100, Duration::from_secs(10)), &off, noon + over_of(number)));
        assert_eq!(all.flatten().next(), None, "who wants to know of no loss hears of none");
        assert_eq!(LossWatch::default().hear(&counted(100, Duration::ZERO), &rules, noon), None, "the first one");
    }

    fn over_of(number: u32) -> Duration {
        Duration::from_secs(10) * number
    }
}

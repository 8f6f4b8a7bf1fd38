//! Figures of heartbeats: how many packets since the start of a life, and how many lately.

use std::time::{Duration, Instant};

use super::Beat;
use crate::model::{NetStats, Packets, Timestamp};

/// From one heartbeat that is told to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// What one life counted when it was told of last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    told: Option<(Instant, Packets)>,
}

impl Counts {
    /// What is to be told of this heartbeat; `None` if the last one was a moment ago.
    pub fn hear(&mut self, beat: &Beat, now: Instant, time: Timestamp) -> Option<NetStats> {
        let total = Packets { received: beat.received, dropped: beat.dropped };
        let (lately, over) = match self.told {
            Some((at, _)) if now.saturating_duration_since(at) < PAUSE => return None,
            Some((at, before)) => (total.since(before), now.saturating_duration_since(at)),
            None => (Packets::default(), Duration::ZERO),
        };
        self.told = Some((now, total));
        let Beat { link, bytes, memory, waiting: events, .. } = *beat;
        Some(NetStats { time, total, lately, over, link, bytes, memory, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_from_one_heartbeat_that_was_told_to_the_next() {
        let (mut counts, noon) = (Counts::default(), Instant::now());
        let beat = |received, dropped| Beat { received, dropped, link: 7, ..Beat::default() };
        let mut hear = |received, dropped, millis| {
            let told = counts.hear(&beat(received, dropped), noon + Duration::from_millis(millis), Timestamp(9));
            told.map(|told| (told.total.dropped, told.lately.received, told.lately.dropped, told.over.as_millis()))
        };
        assert_eq!(hear(100, 10, 0), Some((10, 0, 0, 0)), "nobody knows since when");
        assert_eq!(hear(150, 10, 999), None);
        assert_eq!(hear(200, 30, 5000), Some((30, 100, 20, 5000)));
        assert_eq!(hear(5, 1, 10_000), Some((1, 5, 1, 5000)), "it began anew");
    }
}

//! One link's life: greeting, up, ending, down. Decides by the clock that it is handed when to beat, and when a peer is lost.
//!
//! To hear and to speak in one wake-up is cheaper than to wake up for each. So an end that hears something answers with
//! its own beat if that is due soon, and one that was the first to beat waits a little longer the next time, which makes
//! the ends take turns. The end that dialled waits less long: two that beat at once would else do so for ever.

use std::time::{Duration, Instant};

/// How long an end that closes in order waits for what it queued to be taken.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// A peer that was silent for this many intervals is lost.
const SILENT_INTERVALS: u32 = 3;

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Connected; the peer may take until then to say who it is.
    Greeting { until: Instant },
    /// Both said who they are.
    Up {
        /// When this end is to beat, unless something is queued for the peer before.
        beat: Instant,
        /// When bytes last came. `None` while their owner works on them and nobody listens: silence then means nothing.
        heard: Option<Instant>,
    },
    /// What was queued is still flushed, until then; what comes is thrown away.
    Ending { until: Instant },
    /// The connection is closed.
    Down,
}

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The peer's greeting was accepted.
    Greeted,
    /// Something was queued for the peer.
    Sent,
    /// Bytes came.
    Heard,
    /// Mail went to the owner, who has yet to finish with it; nothing is read until then.
    Handed,
    /// The owner is ready for more.
    Handled,
    /// This end wants to end the link.
    End,
    /// This end has a last word for the peer, and then ends the link.
    Refuse,
    /// The connection broke, or was closed, or must not be used any longer.
    Lost,
    /// The time that [`State::due`] named has come; it may have moved since.
    Due,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tell the owner that the link stands.
    TellUp,
    /// Send a heartbeat.
    Beat,
    /// Close the connection, because of this if it was the clock that decided.
    Close(Option<Overdue>),
}

/// What did not happen in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    #[error("the peer did not greet within {}", humantime::format_duration(*.0))]
    Greeting(Duration),
    #[error("nothing was heard from the peer for {}", humantime::format_duration(*.0))]
    Silence(Duration),
}

/// How long what may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    heartbeat: Duration,
    /// The wait after having been the first to beat.
    patience: Duration,
    greeting_within: Duration,
}

impl Timing {
    /// A heartbeat of nothing at all would never let the clock rest, so it is at least 10 ms; and no wait is longer
    /// than a day, which keeps sums of times within what a clock can say.
    pub fn new(heartbeat: Duration, greeting_within: Duration) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        let heartbeat = heartbeat.clamp(Duration::from_millis(10), DAY);
        Self { heartbeat, patience: heartbeat * 3 / 2, greeting_within: greeting_within.min(DAY) }
    }

    /// The same for the end that dialled.
    pub fn of_dialler(self) -> Self {
        Self { patience: self.heartbeat * 5 / 4, ..self }
    }

    fn silence(&self) -> Duration {
        self.heartbeat * SILENT_INTERVALS
    }
}

impl State {
    /// A connection that was just made.
    pub fn connected(now: Instant, timing: &Timing) -> Self {
        Self::Greeting { until: now + timing.greeting_within }
    }

    /// When [`Event::Due`] is next to be handed in; `None` once the link is down.
    pub fn due(&self, timing: &Timing) -> Option<Instant> {
        match *self {
            Self::Greeting { until } | Self::Ending { until } => Some(until),
            Self::Up { beat, heard } => Some(heard.map_or(beat, |heard| beat.min(heard + timing.silence()))),
            Self::Down => None,
        }
    }
}

/// Takes one step of a link's life.
pub fn step(state: State, event: Event, now: Instant, timing: &Timing) -> (State, Option<Effect>) {
    use {Effect as F, Event as E, State as S};
    match (state, event) {
        (S::Greeting { .. }, E::Greeted) => (S::Up { beat: now + timing.heartbeat, heard: Some(now) }, Some(F::TellUp)),
        (S::Up { heard, .. }, E::Sent) => (S::Up { beat: now + timing.heartbeat, heard }, None),
        (S::Up { beat, heard: Some(_) }, E::Heard) if beat <= now + timing.heartbeat / 2 => {
            (S::Up { beat: now + timing.heartbeat, heard: Some(now) }, Some(F::Beat))
        }
        (S::Up { beat, heard: Some(_) }, E::Heard) | (S::Up { beat, heard: None }, E::Handled) => {
            (S::Up { beat, heard: Some(now) }, None)
        }
        (S::Up { beat, .. }, E::Handed) => (S::Up { beat, heard: None }, None),
        (S::Greeting { .. } | S::Up { .. }, E::Refuse) | (S::Up { .. }, E::End) => {
            (S::Ending { until: now + FLUSH_WITHIN }, None)
        }
        // Nothing but the greeting was queued, and nobody waits for that.
        (S::Greeting { .. }, E::End) => (S::Down, Some(F::Close(None))),
        (S::Greeting { .. } | S::Up { .. } | S::Ending { .. }, E::Lost) => (S::Down, Some(F::Close(None))),
        (S::Greeting { until }, E::Due) if until <= now => {
            (S::Down, Some(F::Close(Some(Overdue::Greeting(timing.greeting_within)))))
        }
        (S::Up { heard: Some(heard), .. }, E::Due) if heard + timing.silence() <= now => {
            match state.due(timing).is_some_and(|due| due + timing.heartbeat <= now) {
                // This end slept through its own beat: what the peer said meanwhile may not have got here, and a peer on
                // the same machine slept as well. It has one interval to speak.
                true => {
                    let beat = now + timing.heartbeat;
                    (S::Up { beat, heard: Some(beat - timing.silence()) }, Some(F::Beat))
                }
                false => (S::Down, Some(F::Close(Some(Overdue::Silence(timing.silence()))))),
            }
        }
        (S::Up { beat, heard }, E::Due) if beat <= now => (S::Up { beat: now + timing.patience, heard }, Some(F::Beat)),
        (S::Ending { until }, E::Due) if until <= now => (S::Down, Some(F::Close(None))),
        // The greeting itself is sent and heard before the link is up; an ending link no longer cares.
        (S::Greeting { .. } | S::Ending { .. }, E::Sent | E::Heard | E::Handed | E::Handled) => (state, None),
        (S::Up { .. }, E::Greeted | E::Heard | E::Handled) => (state, None),
        (S::Ending { .. }, E::Greeted | E::End | E::Refuse) => (state, None),
        (S::Greeting { .. } | S::Up { .. } | S::Ending { .. }, E::Due) => (state, None), // it has moved
        (S::Down, _) => (S::Down, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect as F, Event as E, State as S, *};

    const TIMING: Timing = Timing {
        heartbeat: Duration::from_secs(2),
        patience: Duration::from_secs(3),
        greeting_within: Duration::from_secs(5),
    };

    /// The moments of a test: `at(noon, 1500)` is one and a half seconds later.
    fn at(noon: Instant, ms: u64) -> Instant {
        noon + Duration::from_millis(ms)
    }

    #[test]
    fn a_link_moves_only_along_these_arrows() {
        let noon = Instant::now();
        let later = at(noon, 100);
        let greeting = S::connected(noon, &TIMING);
        let (due, moved) = (at(noon, 2000), at(later, 2000));
        let up = S::Up { beat: due, heard: Some(noon) };
        let busy = S::Up { beat: due, heard: None };
        let ending = S::Ending { until: at(later, 1000) };
        for (from, event, want) in [
            (greeting, E::Greeted, (S::Up { beat: moved, heard: Some(later) }, Some(F::TellUp))),
            (greeting, E::Refuse, (ending, None)),
            (greeting, E::End, (S::Down, Some(F::Close(None)))),
            (greeting, E::Due, (greeting, None)),
            (up, E::Sent, (S::Up { beat: moved, heard: Some(noon) }, None)),
            (up, E::Heard, (S::Up { beat: due, heard: Some(later) }, None)),
            (up, E::Handed, (busy, None)),
            (busy, E::Heard, (busy, None)), // the rest of what was read with the mail
            (busy, E::Handled, (S::Up { beat: due, heard: Some(later) }, None)),
            (up, E::End, (ending, None)),
            (up, E::Lost, (S::Down, Some(F::Close(None)))),
            (ending, E::Greeted, (ending, None)), // no link comes up that was given up
            (ending, E::End, (ending, None)),     // nor does a second wish give it more time
            (ending, E::Lost, (S::Down, Some(F::Close(None)))),
            (S::Down, E::Lost, (S::Down, None)), // closed once
            (S::Down, E::Greeted, (S::Down, None)),
        ] {
            assert_eq!(step(from, event, later, &TIMING), want, "{from:?} on {event:?}");
        }
    }

    #[test]
    fn a_heartbeat_is_sent_only_when_nothing_else_was() {
        let noon = Instant::now();
        let (up, _) = step(S::connected(noon, &TIMING), E::Greeted, noon, &TIMING);
        let (up, _) = step(up, E::Sent, at(noon, 1500), &TIMING);
        let (up, _) = step(up, E::Heard, at(noon, 1500), &TIMING);
        assert_eq!(step(up, E::Due, at(noon, 2000), &TIMING), (up, None));
        assert_eq!(up.due(&TIMING), Some(at(noon, 3500)));
        let (up, effect) = step(up, E::Due, at(noon, 3500), &TIMING);
        assert_eq!(effect, Some(F::Beat));
        assert_eq!(up.due(&TIMING), Some(at(noon, 6500)), "it is the peer's turn");
    }

    #[test]
    fn two_quiet_ends_take_turns_and_answer_each_other_at_once() {
        let mut now = Instant::now();
        let dialler = TIMING.of_dialler();
        let up = |timing: &Timing| step(S::connected(now, timing), E::Greeted, now, timing).0;
        let mut ends = [(up(&dialler), dialler), (up(&TIMING), TIMING)];
        let mut beats = Vec::new();
        for _ in 0..20 {
            now = ends.iter().filter_map(|(state, timing)| state.due(timing)).min().unwrap();
            // Both may be due, and then neither has heard the other yet.
            let due: Vec<usize> = (0..2).filter(|&end| ends[end].0.due(&ends[end].1) == Some(now)).collect();
            for (event, to) in due.iter().map(|&end| (E::Due, end)).chain(due.iter().map(|&end| (E::Heard, 1 - end))) {
                let (state, timing) = ends[to];
                let (next, effect) = step(state, event, now, &timing);
                ends[to].0 = next;
                if effect == Some(F::Beat) {
                    beats.push((event, to));
                    if event == E::Heard {
                        ends[1 - to].0 = step(ends[1 - to].0, E::Heard, now, &ends[1 - to].1).0;
                    }
                }
            }
        }
        let settled: Vec<_> = beats.into_iter().skip(4).collect();
        for four in settled.chunks_exact(4) {
            assert_eq!(four, &settled[..4], "each in turn, with an answer: {settled:?}");
        }
        assert_eq!(settled[..4].iter().filter(|(event, _)| *event == E::Heard).count(), 2, "{settled:?}");
        assert!(settled[0].1 != settled[2].1, "{settled:?}");
    }

    #[test]
    fn a_beat_that_is_due_soon_is_the_answer_to_whatever_comes() {
        let noon = Instant::now();
        let up = S::Up { beat: at(noon, 2000), heard: Some(noon) };
        let heard = S::Up { beat: at(noon, 2000), heard: Some(at(noon, 999)) };
        assert_eq!(step(up, E::Heard, at(noon, 999), &TIMING), (heard, None));
        let answered = S::Up { beat: at(noon, 3000), heard: Some(at(noon, 1000)) };
        assert_eq!(step(up, E::Heard, at(noon, 1000), &TIMING), (answered, Some(F::Beat)));
    }

    #[test]
    fn a_silent_peer_is_lost_after_three_intervals_and_not_before() {
        let noon = Instant::now();
        let up = S::Up { beat: at(noon, 7999), heard: Some(noon) };
        assert_eq!(up.due(&TIMING), Some(at(noon, 6000)));
        assert_eq!(step(up, E::Due, at(noon, 5999), &TIMING), (up, None));
        let silence = Overdue::Silence(Duration::from_secs(6));
        assert_eq!(step(up, E::Due, at(noon, 6000), &TIMING), (S::Down, Some(F::Close(Some(silence)))));
    }

    #[test]
    fn no_setting_is_more_than_the_clock_can_say() {
        let noon = Instant::now();
        for length in [Duration::ZERO, Duration::MAX] {
            let timing = Timing::new(length, length);
            let (up, _) = step(S::connected(noon, &timing), E::Greeted, noon, &timing);
            assert!(up.due(&timing) > Some(noon), "{length:?}");
        }
    }

    #[test]
    fn an_end_that_slept_itself_does_not_blame_its_peer() {
        let noon = Instant::now();
        let up = S::Up { beat: at(noon, 2000), heard: Some(noon) };
        let (awake, effect) = step(up, E::Due, at(noon, 60_000), &TIMING);
        assert_eq!(effect, Some(F::Beat));
        assert_eq!(awake.due(&TIMING), Some(at(noon, 62_000)), "the peer has one interval to speak");
        let (_, effect) = step(awake, E::Due, at(noon, 62_000), &TIMING);
        assert!(matches!(effect, Some(F::Close(Some(Overdue::Silence(_))))));
    }

    #[test]
    fn a_peer_is_not_called_silent_while_nobody_listens() {
        let noon = Instant::now();
        let (busy, _) = step(S::Up { beat: at(noon, 2000), heard: Some(noon) }, E::Handed, noon, &TIMING);
        let (busy, effect) = step(busy, E::Due, at(noon, 60_000), &TIMING);
        assert_eq!(effect, Some(F::Beat), "the peer still hears from us");
        let (up, _) = step(busy, E::Handled, at(noon, 60_000), &TIMING);
        assert_eq!(step(up, E::Due, at(noon, 61_000), &TIMING), (up, None), "and gets its three intervals anew");
    }

    #[test]
    fn whoever_does_not_greet_or_does_not_let_us_flush_is_left() {
        let noon = Instant::now();
        let overdue = Overdue::Greeting(Duration::from_secs(5));
        let greeting = S::connected(noon, &TIMING);
        assert_eq!(step(greeting, E::Due, at(noon, 5000), &TIMING), (S::Down, Some(F::Close(Some(overdue)))));
        let ending = S::Ending { until: at(noon, 1000) };
        assert_eq!(step(ending, E::Due, at(noon, 1000), &TIMING), (S::Down, Some(F::Close(None))));
    }
}

//! Whether a process that is there does its work: a deadline for becoming ready, and then signs of life; as decisions
//! only, like [`super::state`].
//!
//! Nothing is counted from before a [`Vigil`] began: what was silent while nobody listened is not held against it.

use std::time::{Duration, Instant};

use crate::model::{Life, Liveness, Node, Probe};

/// The longest time that a node may ask for at once to become ready.
const LONGEST_EXTENSION: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is decided about one life's signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vigil {
    life: Life,
    /// It began when the life was ready.
    is_ready: bool,
    watch: Watch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Watch {
    /// It is to become ready until then; and whether what it said is being read, since that time is over.
    Unready { until: Instant, is_read: bool },
    /// It runs, and is to give these signs.
    Running { watchdog: Option<Box<Watchdog>>, prober: Option<Box<Prober>> },
    /// It said that it is about to end.
    Ending,
    /// Nothing more is expected of it.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Watchdog {
    within: Duration,
    /// Its signs are the heartbeats of a Zeek node.
    by_channel: bool,
    /// When it gave a sign last, or was first expected to.
    last: Instant,
    /// What it said is being read, since that was too long ago.
    is_read: bool,
    /// It was told that it cannot be heard.
    is_told: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Prober {
    terms: Probe,
    /// In a row.
    failures: u32,
    /// Counts the questions.
    round: u64,
    /// The question whose answer is still to come, also if nobody waits for it any more.
    open: Option<u64>,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time to become ready may be over.
    ReadyDue,
    /// It asks for this time to become ready, from now.
    Extend(Duration),
    /// `WATCHDOG=1`, or the heartbeat of a Zeek node.
    Lives,
    /// `WATCHDOG=trigger`.
    Hangs,
    /// `STOPPING=1`.
    Stopping,
    /// Nothing may have been heard of it for too long.
    WatchdogDue,
    /// All was read that it had said when [`Effect::Listen`] asked.
    Listened,
    /// The same answer, where what it says reaches nobody.
    Unheard,
    ProbeDue(u64),
    /// The answer: `Err` says why it is none.
    Probed(u64, Result<(), String>),
    /// The time of this question is up.
    ProbeOverdue(u64),
    /// It had the time that it has to end.
    EndDue,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Come back with this event after this time.
    After(Duration, Event),
    /// Read what it said and nobody read yet; answered by [`Event::Listened`] or [`Event::Unheard`], behind that.
    Listen,
    /// Ask this question; answered by [`Event::Probed`].
    Ask(u64),
    /// It is to give signs and cannot be heard, so it is not judged by them.
    Unheard,
    /// Nobody waits for this answer any more: end whoever is to find it, so that it comes.
    GiveUp(u64),
    /// It did not become ready in time.
    Unready,
    /// It hangs, for this reason.
    Hung(String),
}

impl Vigil {
    /// Waits for a life to become ready.
    pub fn unready(life: Life, node: &Node, now: Instant) -> (Self, Vec<Effect>) {
        let vigil =
            Self { life, is_ready: false, watch: Watch::Unready { until: now + node.ready_within(), is_read: false } };
        // What is not to give a sign cannot miss it.
        let waits = node.ready_by().missed().is_some();
        (vigil, waits.then_some(Effect::After(node.ready_within(), Event::ReadyDue)).into_iter().collect())
    }

    /// Watches a life that is ready, from now on.
    pub fn running(life: Life, node: &Node, now: Instant) -> (Self, Vec<Effect>) {
        let Liveness { probe, .. } = node.liveness.as_deref().cloned().unwrap_or_default();
        let (watchdog, by_channel) = (node.watchdog(), node.speaks_by_channel());
        let mut effects = Vec::new();
        effects.extend(watchdog.map(|within| Effect::After(within, Event::WatchdogDue)));
        effects.extend(probe.as_ref().map(|probe| Effect::After(probe.interval, Event::ProbeDue(1))));
        let watchdog =
            watchdog.map(|within| Box::new(Watchdog { within, by_channel, last: now, is_read: false, is_told: false }));
        let prober = probe.map(|terms| Box::new(Prober { terms, failures: 0, round: 1, open: None }));
        (Self { life, is_ready: true, watch: Watch::Running { watchdog, prober } }, effects)
    }

    /// Whom it watches.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether it is the vigil of this life after it was ready.
    pub fn is_of_ready(&self, life: Life) -> bool {
        self.is_ready && self.life == life
    }

    /// The question whose answer is still to come.
    pub fn open_question(&self) -> Option<u64> {
        match &self.watch {
            Watch::Running { prober, .. } => prober.as_ref().and_then(|prober| prober.open),
            _ => None,
        }
    }

    /// Decides. `grace` is what it has to end.
    pub fn step(&mut self, event: Event, now: Instant, grace: Duration) -> Vec<Effect> {
        let mut effects = self.arrow(event, now, grace);
        if effects.iter().any(|effect| matches!(effect, Effect::Unready | Effect::Hung(_))) {
            // Whoever still looks for an answer goes with it: nobody comes back for that question.
            let open = self.open_question().map(Effect::GiveUp).filter(|open| !effects.contains(open));
            self.watch = Watch::Over;
            effects.splice(0..0, open);
        }
        effects
    }

    fn arrow(&mut self, event: Event, now: Instant, grace: Duration) -> Vec<Effect> {
        use {Effect as F, Event as E, Watch as W};
        match (&mut self.watch, event) {
            (W::Unready { until, .. }, E::Extend(time)) => {
                *until = (*until).max(now + time.min(LONGEST_EXTENSION));
                vec![]
            }
            (W::Unready { until, is_read }, event @ (E::ReadyDue | E::Listened | E::Unheard)) => {
                match overdue(*until, is_read, event != E::ReadyDue, now) {
                    Overdue::No => vec![],
                    Overdue::In(left) => vec![F::After(left, E::ReadyDue)],
                    Overdue::Perhaps => vec![F::Listen],
                    Overdue::Yes => vec![F::Unready],
                }
            }

            (W::Running { watchdog: Some(watchdog), .. }, E::Lives) => {
                watchdog.last = now;
                vec![]
            }
            (W::Running { watchdog: Some(watchdog), .. }, event @ (E::WatchdogDue | E::Listened)) => {
                let until = watchdog.last + watchdog.within;
                match overdue(until, &mut watchdog.is_read, event == E::Listened, now) {
                    Overdue::No => vec![],
                    Overdue::In(left) => vec![F::After(left, E::WatchdogDue)],
                    Overdue::Perhaps => vec![F::Listen],
                    Overdue::Yes => {
                        let within = humantime::format_duration(watchdog.within);
                        vec![F::Hung(match watchdog.by_channel {
                            true => format!("no heartbeat came for {within}"),
                            false => format!("it did not say WATCHDOG=1 for {within}"),
                        })]
                    }
                }
            }
            (W::Running { watchdog: Some(watchdog), .. }, E::Unheard) => watchdog.unheard(now),
            (W::Running { watchdog: Some(_), .. } | W::Ending, E::Hangs) => {
                vec![F::Hung("it said WATCHDOG=trigger".into())]
            }

            (W::Running { prober: Some(prober), .. }, E::ProbeDue(round)) => prober.due(round),
            (W::Running { prober: Some(prober), .. }, E::ProbeOverdue(round)) => prober.overdue(round),
            (W::Running { prober: Some(prober), .. }, E::Probed(round, answer)) => prober.answered(round, answer),

            (W::Unready { .. } | W::Running { .. }, E::Stopping) => {
                let open = self.open_question().map(F::GiveUp);
                self.watch = W::Ending;
                open.into_iter().chain([F::After(grace, E::EndDue)]).collect()
            }
            (W::Ending, E::EndDue) => {
                let grace = humantime::format_duration(grace);
                vec![F::Hung(format!("it said STOPPING=1, and did not end within {grace}"))]
            }

            // Late, or not for it to say.
            (
                _,
                E::ReadyDue
                | E::Extend(_)
                | E::Lives
                | E::Hangs
                | E::Stopping
                | E::WatchdogDue
                | E::Listened
                | E::Unheard
                | E::ProbeDue(_)
                | E::Probed(..)
                | E::ProbeOverdue(_)
                | E::EndDue,
            ) => vec![],
        }
    }
}

/// Whether a sign is overdue.
enum Overdue {
    /// Somebody else comes back for it.
    No,
    In(Duration),
    /// It may have been given, and nobody read it yet: others were busy here, or all of us stood still.
    Perhaps,
    Yes,
}

/// Decides when the time comes at which a sign is due, or when everything `was_read` that had been said by then.
fn overdue(until: Instant, is_read: &mut bool, was_read: bool, now: Instant) -> Overdue {
    if was_read && !std::mem::take(is_read) {
        return Overdue::No;
    }
    match until.saturating_duration_since(now) {
        Duration::ZERO if was_read => Overdue::Yes,
        Duration::ZERO => {
            *is_read = true;
            Overdue::Perhaps
        }
        left => Overdue::In(left),
    }
}

impl Watchdog {
    /// Nobody knows whether it gave a sign: it has its time anew.
    fn unheard(&mut self, now: Instant) -> Vec<Effect> {
        if !std::mem::take(&mut self.is_read) {
            return vec![];
        }
        self.last = now;
        let is_first = !std::mem::replace(&mut self.is_told, true);
        let again = Effect::After(self.within, Event::WatchdogDue);
        is_first.then_some(Effect::Unheard).into_iter().chain([again]).collect()
    }
}

impl Prober {
    fn due(&mut self, round: u64) -> Vec<Effect> {
        if round != self.round {
            return vec![];
        }
        match self.open {
            // Never two at once: whoever cannot be ended is not given company.
            Some(_) => self.failed("whoever asked before cannot be ended"),
            None => {
                self.open = Some(round);
                vec![Effect::Ask(round), Effect::After(self.terms.timeout, Event::ProbeOverdue(round))]
            }
        }
    }

    fn overdue(&mut self, round: u64) -> Vec<Effect> {
        if self.open != Some(round) || round != self.round {
            return vec![];
        }
        let timeout = humantime::format_duration(self.terms.timeout);
        let failed = self.failed(&format!("no answer within {timeout}"));
        std::iter::once(Effect::GiveUp(round)).chain(failed).collect()
    }

    fn answered(&mut self, round: u64, answer: Result<(), String>) -> Vec<Effect> {
        if self.open != Some(round) {
            return vec![];
        }
        self.open = None;
        match answer {
            _ if round != self.round => vec![], // it was too late, and was counted
            Ok(()) => {
                self.failures = 0;
                self.next()
            }
            Err(why) => self.failed(&why),
        }
    }

    fn failed(&mut self, why: &str) -> Vec<Effect> {
        self.failures += 1;
        if self.failures < self.terms.failures {
            return self.next();
        }
        let hung = match self.failures {
            1 => format!("its probe failed: {why}"),
            times => format!("its probe failed {times} times in a row; last: {why}"),
        };
        vec![Effect::Hung(hung)]
    }

    fn next(&mut self) -> Vec<Effect> {
        self.round += 1;
        vec![Effect::After(self.terms.interval, Event::ProbeDue(self.round))]
    }
}

#[cfg(test)]
mod tests {
    use Effect as F;
    use Event as E;

    use super::*;
    use crate::model::{InstanceName, NodeName, ProbeBy, Ready, ReadyBy, Role};

    const L: Life = Life(7);
    const GRACE: Duration = Duration::from_secs(3);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn node(change: impl FnOnce(&mut Node)) -> Node {
        let mut node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), Role::None);
        node.command = vec!["sleep".into()];
        change(&mut node);
        node
    }

    fn watched(watchdog: Option<u64>, probe: Option<u32>) -> Node {
        let by = ProbeBy::Port(80);
        let probe = probe.map(|failures| Probe { by, interval: seconds(10), timeout: seconds(2), failures });
        node(|node| node.liveness = Some(Box::new(Liveness { watchdog: watchdog.map(seconds), probe })))
    }

    #[test]
    fn who_is_to_give_a_sign_and_does_not_is_unready_once_its_time_is_up() {
        let by_notice = node(|node| node.ready = Ready { by: ReadyBy::Notify, within: Some(seconds(5)) });
        let noon = Instant::now();
        let (mut vigil, effects) = Vigil::unready(L, &by_notice, noon);
        assert_eq!(effects, [F::After(seconds(5), E::ReadyDue)]);
        assert_eq!(vigil.step(E::Extend(seconds(9)), noon + seconds(1), GRACE), []);
        assert_eq!(vigil.step(E::ReadyDue, noon + seconds(5), GRACE), [F::After(seconds(5), E::ReadyDue)]);
        assert_eq!(vigil.step(E::Extend(seconds(1)), noon + seconds(6), GRACE), [], "it never has less than before");
        assert_eq!(vigil.step(E::Listened, noon + seconds(9), GRACE), [], "nobody asked");
        assert_eq!(vigil.step(E::ReadyDue, noon + seconds(10), GRACE), [F::Listen]);
        assert_eq!(vigil.step(E::Listened, noon + seconds(10), GRACE), [F::Unready]);
        assert_eq!(vigil.step(E::ReadyDue, noon + seconds(11), GRACE), []);
        let settles = Vigil::unready(L, &node(|_| ()), noon).1;
        assert_eq!(settles, [], "who is to give none cannot miss it");
    }

    #[test]
    fn a_zeek_node_is_ready_by_its_hello_and_hangs_without_heartbeats() {
        let zeek = node(|node| node.command = vec![]);
        let noon = Instant::now();
        assert_eq!(Vigil::unready(L, &zeek, noon).1, [F::After(seconds(60), E::ReadyDue)]);
        let (mut vigil, effects) = Vigil::running(L, &zeek, noon);
        assert_eq!(effects, [F::After(seconds(60), E::WatchdogDue)]);
        assert_eq!(vigil.step(E::WatchdogDue, noon + seconds(60), GRACE), [F::Listen]);
        let hung = F::Hung("no heartbeat came for 1m".into());
        assert_eq!(vigil.step(E::Listened, noon + seconds(60), GRACE), [hung]);
        let off = node(|node| {
            node.command = vec![];
            node.liveness = Some(Box::new(Liveness { watchdog: Some(Duration::ZERO), probe: None }));
        });
        assert_eq!(Vigil::running(L, &off, noon).1, []);
    }

    #[test]
    fn a_watchdog_is_missed_only_after_everything_that_was_said_is_read() {
        let noon = Instant::now();
        let (mut vigil, effects) = Vigil::running(L, &watched(Some(30), None), noon);
        assert_eq!(effects, [F::After(seconds(30), E::WatchdogDue)]);
        assert_eq!(vigil.step(E::Lives, noon + seconds(20), GRACE), []);
        let again = F::After(seconds(20), E::WatchdogDue);
        assert_eq!(vigil.step(E::WatchdogDue, noon + seconds(30), GRACE), [again], "no timer for each sign");
        // All of us stood still for an hour, and its signs wait in the socket.
        let later = noon + seconds(3600);
        assert_eq!(vigil.step(E::WatchdogDue, later, GRACE), [F::Listen]);
        vigil.step(E::Lives, later, GRACE);
        assert_eq!(vigil.step(E::Listened, later, GRACE), [F::After(seconds(30), E::WatchdogDue)]);
        assert_eq!(vigil.step(E::WatchdogDue, later + seconds(30), GRACE), [F::Listen]);
        let hung = F::Hung("it did not say WATCHDOG=1 for 30s".into());
        assert_eq!(vigil.step(E::Listened, later + seconds(30), GRACE), [hung]);
        assert_eq!(vigil.step(E::WatchdogDue, later + seconds(90), GRACE), [], "once");
    }

    #[test]
    fn who_cannot_be_heard_is_not_judged_by_its_watchdog_and_that_is_told_once() {
        let noon = Instant::now();
        let (mut vigil, _) = Vigil::running(L, &watched(Some(30), None), noon);
        assert_eq!(vigil.step(E::Unheard, noon, GRACE), [], "nobody asked");
        let again = F::After(seconds(30), E::WatchdogDue);
        for (after, told) in [(30, vec![F::Unheard, again.clone()]), (60, vec![again])] {
            assert_eq!(vigil.step(E::WatchdogDue, noon + seconds(after), GRACE), [F::Listen]);
            assert_eq!(vigil.step(E::Unheard, noon + seconds(after), GRACE), told);
        }
        // It is heard again, and silent.
        assert_eq!(vigil.step(E::WatchdogDue, noon + seconds(90), GRACE), [F::Listen]);
        let hung = F::Hung("it did not say WATCHDOG=1 for 30s".into());
        assert_eq!(vigil.step(E::Listened, noon + seconds(90), GRACE), [hung]);
    }

    #[test]
    fn a_probe_that_fails_so_many_times_in_a_row_tells_that_it_hangs() {
        let now = Instant::now();
        let (mut vigil, effects) = Vigil::running(L, &watched(None, Some(2)), now);
        assert_eq!(effects, [F::After(seconds(10), E::ProbeDue(1))]);
        let next = |round| F::After(seconds(10), E::ProbeDue(round));
        let mut step = |event| vigil.step(event, now, GRACE);
        assert_eq!(step(E::ProbeDue(1)), [F::Ask(1), F::After(seconds(2), E::ProbeOverdue(1))]);
        assert_eq!(step(E::Probed(1, Err("no".into()))), [next(2)]);
        assert_eq!(step(E::ProbeOverdue(1)), [], "it was answered");
        step(E::ProbeDue(2));
        assert_eq!(step(E::Probed(2, Ok(()))), [next(3)], "they count in a row");
        step(E::ProbeDue(3));
        assert_eq!(step(E::ProbeOverdue(3)), [F::GiveUp(3), next(4)]);
        assert_eq!(step(E::Probed(3, Ok(()))), [], "it came too late");
        step(E::ProbeDue(4));
        let hung = "its probe failed 2 times in a row; last: refused";
        assert_eq!(step(E::Probed(4, Err("refused".into()))), [F::Hung(hung.into())]);
    }

    #[test]
    fn whoever_asks_and_cannot_be_ended_is_not_given_company() {
        let now = Instant::now();
        let (mut vigil, _) = Vigil::running(L, &watched(None, Some(3)), now);
        let mut step = |event| vigil.step(event, now, GRACE);
        step(E::ProbeDue(1));
        step(E::ProbeOverdue(1));
        assert_eq!(step(E::ProbeDue(2)), [F::After(seconds(10), E::ProbeDue(3))]);
        let hung = "its probe failed 3 times in a row; last: whoever asked before cannot be ended";
        assert_eq!(step(E::ProbeDue(3)), [F::GiveUp(1), F::Hung(hung.into())]);
    }

    #[test]
    fn whatever_tells_that_it_hangs_the_question_that_is_open_is_given_up_once() {
        let now = Instant::now();
        let asked = || {
            let (mut vigil, _) = Vigil::running(L, &watched(Some(30), Some(1)), now);
            vigil.step(E::ProbeDue(1), now, GRACE);
            vigil
        };
        let hung = |why: &str| [F::GiveUp(1), F::Hung(why.into())];
        assert_eq!(asked().step(E::Hangs, now, GRACE), hung("it said WATCHDOG=trigger"));
        let late = hung("its probe failed: no answer within 2s");
        assert_eq!(asked().step(E::ProbeOverdue(1), now, GRACE), late);
        let (mut vigil, silent) = (asked(), now + seconds(30));
        assert_eq!(vigil.step(E::WatchdogDue, silent, GRACE), [F::Listen]);
        assert_eq!(vigil.step(E::Listened, silent, GRACE), hung("it did not say WATCHDOG=1 for 30s"));
        assert_eq!(vigil.open_question(), None);
    }

    #[test]
    fn who_says_that_it_ends_is_asked_nothing_more_and_has_its_grace() {
        let now = Instant::now();
        let (mut vigil, _) = Vigil::running(L, &watched(Some(1), Some(1)), now);
        vigil.step(E::ProbeDue(1), now, GRACE);
        assert_eq!(vigil.step(E::Stopping, now, GRACE), [F::GiveUp(1), F::After(GRACE, E::EndDue)]);
        for late in [E::WatchdogDue, E::Listened, E::ProbeOverdue(1), E::Probed(1, Ok(())), E::Stopping] {
            assert_eq!(vigil.step(late.clone(), now + seconds(60), GRACE), [], "{late:?}");
        }
        let hung = F::Hung("it said STOPPING=1, and did not end within 3s".into());
        assert_eq!(vigil.step(E::EndDue, now + seconds(3), GRACE), [hung]);
    }

    #[test]
    fn who_says_that_it_hangs_is_believed_where_it_is_to_give_signs() {
        let now = Instant::now();
        let hangs = |node: &Node| Vigil::running(L, node, now).0.step(E::Hangs, now, GRACE);
        assert_eq!(hangs(&watched(Some(1), None)), [F::Hung("it said WATCHDOG=trigger".into())]);
        assert_eq!(hangs(&watched(None, None)), []);
    }
}

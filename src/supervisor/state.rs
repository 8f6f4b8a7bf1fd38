//! One node's life, as decisions only: [`State::step`] takes an event and the time, and says what to do.
//!
//! The rules it keeps, whatever happens in whatever order: at most one process per node (a launch is asked for only
//! where none is out and none runs), a stop beats every restart that is pending, and no birth is lost (a launch that
//! is no longer wanted is awaited and ended).

use std::time::{Duration, Instant};

use super::history::{History, Past};
use crate::model::{Exit, Life, NodeState, Output, RestartMode, RestartPolicy, Text};

/// Everything that is decided about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    phase: Phase,
    /// The last life that a launch was asked for. Events of another life are late and change nothing.
    life: Life,
    history: History,
    /// What the world was last told.
    told: NodeState,
}

/// Where the node is in its life. A pid exists only where something runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Stopped,
    Failed,
    /// Waits for its retry.
    Crashed,
    /// A launch is out.
    Launching,
    /// A launch is out that is no longer wanted; `again` if another is wanted after it.
    Withdrawn {
        again: bool,
    },
    /// The process exists and is not ready yet.
    Pending {
        pid: u32,
    },
    Running {
        pid: u32,
        since: Instant,
    },
    /// The process is there and does not do its work, for this reason: it was told to end, and ends as a failure.
    Hanging {
        pid: u32,
        why: Text,
    },
    /// The process was told to end; `again` if another is wanted after it.
    Stopping {
        pid: u32,
        again: bool,
    },
    /// The process is gone, in this way, and what it left behind is being ended.
    Sweeping {
        again: bool,
        ended: Option<(u32, Exit)>,
    },
    /// Its process ended in this way, or it has waited for its retry; what comes next only the node's definition says, which
    /// is not known yet.
    Undecided {
        ended: Option<(u32, Exit)>,
    },
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Start,
    Stop,
    /// Do not wait out the grace.
    Hurry,
    Launched(Life, u32),
    LaunchFailed(Life, LaunchFailure),
    Ready(Life),
    /// It did not become ready in time, or gives no sign of life any more: why, in words.
    Hangs(Life, Text),
    Exited(Life, Exit, Option<Output>),
    /// What the life left behind is gone.
    Swept(Life),
    KillDue(Life),
    RetryDue(Life),
    /// What the node is was not known, and is from now on.
    Defined,
}

/// Why no process came of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFailure {
    /// In words.
    pub reason: String,
    /// Trying again cannot help until a person mends something.
    pub permanent: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// End what earlier lives left behind, then launch this one.
    Launch(Life),
    /// Ask the process and its group to end.
    Terminate(Life),
    /// End the process and its group.
    Kill(Life),
    /// End what this life left behind; answered by [`Event::Swept`].
    Sweep(Life),
    /// Watch for the sign that this life is ready; answered by [`Event::Ready`], or [`Event::Hangs`] where it has to come.
    AwaitReady(Life),
    /// Come back with this event after this time; a zero means before anything else.
    After(Duration, Event),
    Report(Report),
    /// Tell what a person may have to mend, in words.
    Complain(String),
}

/// A change of state, as the world is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub old: NodeState,
    pub new: NodeState,
    pub pid: Option<u32>,
    pub exit: Option<Exit>,
    pub attempt: u32,
    pub restarts: u32,
    pub reason: Text,
    pub output: Option<Output>,
}

/// The part of a node's definition that its decisions depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether that is its definition. Without one nothing is launched, and nothing is made of an end.
    pub known: bool,
    pub restart: RestartPolicy,
    /// From the request to end to SIGKILL.
    pub grace: Duration,
}

/// The next phase, what to do, and how to explain it.
struct Arrow {
    phase: Phase,
    effects: Vec<Effect>,
    reason: Text,
    pid: Option<u32>,
    exit: Option<Exit>,
    output: Option<Output>,
    /// Tell the world even if the state it sees is the same.
    announce: bool,
    /// What the world should see of it, where the phase does not say that.
    shows: Option<NodeState>,
}

impl Arrow {
    fn to(phase: Phase) -> Self {
        let pid = phase.pid();
        Self {
            phase,
            effects: Vec::new(),
            reason: Text::default(),
            pid,
            exit: None,
            output: None,
            announce: false,
            shows: None,
        }
    }

    /// Down because somebody asked. Whoever asked waits to hear it, also if it was so before.
    fn stopped() -> Self {
        Self::to(Phase::Stopped).announced().because(ON_REQUEST)
    }

    /// Is told even if the world sees the same state as before: a new process, or another failure to make one.
    fn announced(mut self) -> Self {
        self.announce = true;
        self
    }

    fn doing(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    fn because(mut self, reason: impl Into<Text>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Explains an end nobody asked for; `pid` is the process that ended.
    fn after(mut self, pid: u32, exit: Exit, output: Option<Output>) -> Self {
        (self.pid, self.exit, self.output) = (Some(pid), Some(exit), output);
        self
    }
}

impl Phase {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Pending { pid }
            | Self::Running { pid, .. }
            | Self::Hanging { pid, .. }
            | Self::Stopping { pid, .. } => Some(*pid),
            _ => None,
        }
    }
}

impl State {
    /// A node that does not run and whose last life was `life` ([`Life::default`] if it never had one).
    pub fn stopped(life: Life) -> Self {
        Self { phase: Phase::Stopped, life, history: History::default(), told: NodeState::Stopped }
    }

    /// A node whose process `pid` was found, ready, and has run since then.
    pub fn adopted(life: Life, pid: u32, since: Instant) -> Self {
        Self { phase: Phase::Running { pid, since }, told: NodeState::Running, ..Self::stopped(life) }
    }

    /// A node whose process `pid` was found and has yet to become ready.
    pub fn pending(life: Life, pid: u32) -> Self {
        Self { phase: Phase::Pending { pid }, told: NodeState::Pending, ..Self::stopped(life) }
    }

    /// A node that has crashed and waits for its retry.
    pub fn crashed(life: Life) -> Self {
        Self { phase: Phase::Crashed, told: NodeState::Crashed, ..Self::stopped(life) }
    }

    /// A node that was given up and waits for a person.
    pub fn given_up(life: Life) -> Self {
        Self { phase: Phase::Failed, told: NodeState::Failed, ..Self::stopped(life) }
    }

    /// A node whose launch is out.
    pub fn launching(life: Life) -> Self {
        Self { phase: Phase::Launching, ..Self::stopped(life) }
    }

    /// The same node, whose earlier crashes count, and whose waits are spread by chance that begins with `seed`.
    pub fn with_past(mut self, past: &Past, seed: u64, now: Instant) -> Self {
        self.history = std::mem::take(&mut self.history).seeded(seed);
        self.history.recall(past, now);
        self
    }

    /// What the next agent is to know of its crashes.
    pub fn past(&self, now: Instant) -> Past {
        self.history.past(now)
    }

    /// In which time its crashes so far are forgotten, if there were any, and it runs on; `None` where there is nothing to
    /// forget.
    pub fn stable_in(&self, now: Instant, terms: &Terms) -> Option<Duration> {
        match self.phase {
            Phase::Running { since, .. } if !self.history.is_blank() => {
                Some(terms.restart.stable.saturating_sub(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }

    /// Whether its process was told to end.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Hanging { .. })
    }

    /// Whether it is down for good once what is left of it is gone, as far as is known now.
    pub fn is_last_sweep(&self) -> bool {
        matches!(self.phase, Phase::Sweeping { again: false, ended: None })
    }

    /// Whether its process ended and what comes of that is not known before its definition is.
    pub fn is_undecided(&self) -> bool {
        matches!(self.phase, Phase::Undecided { ended: Some(_) })
    }

    /// Whether its process is there and is to be.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Pending { .. } | Phase::Running { .. })
    }

    /// What the world was last told.
    pub fn told(&self) -> NodeState {
        self.told
    }

    /// The last life that a launch was asked for.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The process, if there is one.
    pub fn pid(&self) -> Option<u32> {
        self.phase.pid()
    }

    /// Decides. Reports are derived here from what was told before, so no arrow can forget one.
    pub fn step(&mut self, event: Event, now: Instant, terms: &Terms) -> Vec<Effect> {
        let arrow = self.arrow(event, now, terms);
        self.phase = arrow.phase;
        let mut effects = arrow.effects;
        let new = arrow.shows.unwrap_or_else(|| self.visible());
        if new != self.told || arrow.announce {
            let report = Report {
                old: self.told,
                new,
                pid: arrow.pid,
                exit: arrow.exit,
                attempt: self.history.attempt(),
                restarts: self.history.restarts(),
                reason: arrow.reason,
                output: arrow.output,
            };
            self.told = new;
            effects.insert(0, Effect::Report(report));
        }
        effects
    }

    /// The state that the world should see. What is under way shows as what it came from, until it is done.
    fn visible(&self) -> NodeState {
        match self.phase {
            Phase::Stopped => NodeState::Stopped,
            Phase::Failed => NodeState::Failed,
            Phase::Crashed | Phase::Undecided { .. } => NodeState::Crashed,
            Phase::Pending { .. } => NodeState::Pending,
            Phase::Running { .. } => NodeState::Running,
            Phase::Launching
            | Phase::Withdrawn { .. }
            | Phase::Hanging { .. }
            | Phase::Stopping { .. }
            | Phase::Sweeping { .. } => self.told,
        }
    }

    /// What a node does next. Whoever acts has an arm: a person, the launch, the process, the sweep, a timer.
    fn arrow(&mut self, event: Event, now: Instant, terms: &Terms) -> Arrow {
        let phase = self.phase.clone();
        if event.life().is_some_and(|of| of != self.life) {
            return Arrow::to(phase); // late: it speaks of an earlier life
        }
        match event {
            Event::Start if !terms.known => Arrow::to(phase), // by what?
            Event::Start => self.on_start(phase),
            Event::Defined => self.on_definition(phase, now, terms),
            Event::Stop => self.on_stop(phase, terms),
            Event::Hurry | Event::KillDue(_) => self.on_impatience(phase),
            Event::RetryDue(_) if phase == Phase::Crashed && !terms.known => {
                Arrow::to(Phase::Undecided { ended: None })
            }
            Event::RetryDue(_) if phase == Phase::Crashed => self.launch(),
            Event::Launched(_, pid) => self.on_birth(phase, pid, terms),
            Event::LaunchFailed(_, failure) => self.on_stillbirth(phase, failure, now, terms),
            Event::Exited(_, exit, output) => self.on_exit(phase, exit, output, now, terms),
            Event::Swept(_) => self.on_swept(phase),
            Event::Ready(_) => match phase {
                Phase::Pending { pid } => Arrow::to(Phase::Running { pid, since: now }).because("ready"),
                late => Arrow::to(late),
            },
            Event::Hangs(_, why) => self.on_silence(phase, why, now, terms),
            Event::RetryDue(_) => Arrow::to(phase), // late
        }
    }

    /// Somebody wants it to run: in every phase that means something.
    fn on_start(&mut self, phase: Phase) -> Arrow {
        use Phase as P;
        match phase {
            P::Stopped | P::Failed | P::Crashed | P::Undecided { .. } => self.launch_on_request(),
            P::Withdrawn { .. } => Arrow::to(P::Withdrawn { again: true }),
            P::Stopping { pid, .. } => Arrow::to(P::Stopping { pid, again: true }),
            P::Sweeping { ended, .. } => Arrow::to(P::Sweeping { again: true, ended }),
            // Asked for what is so already.
            phase @ (P::Launching | P::Pending { .. } | P::Running { .. } | P::Hanging { .. }) => Arrow::to(phase),
        }
    }

    /// Somebody wants it down: in every phase that means something.
    fn on_stop(&self, phase: Phase, terms: &Terms) -> Arrow {
        use Phase as P;
        match phase {
            // Also where nothing runs: what a life left behind may be there yet.
            P::Stopped | P::Failed | P::Crashed | P::Undecided { .. } => {
                Arrow::to(P::Sweeping { again: false, ended: None }).doing(Effect::Sweep(self.life))
            }
            P::Launching | P::Withdrawn { .. } => Arrow::to(P::Withdrawn { again: false }),
            P::Pending { pid } | P::Running { pid, .. } => self.stop(pid, false, terms),
            // One that hangs was told already, and has no more time than before.
            P::Stopping { pid, .. } | P::Hanging { pid, .. } => Arrow::to(P::Stopping { pid, again: false }),
            P::Sweeping { ended, .. } => Arrow::to(P::Sweeping { again: false, ended }),
        }
    }

    /// Its grace is over, or nobody waits for that.
    fn on_impatience(&self, phase: Phase) -> Arrow {
        match phase {
            ending @ (Phase::Stopping { .. } | Phase::Hanging { .. }) => {
                Arrow::to(ending).doing(Effect::Kill(self.life))
            }
            phase => Arrow::to(phase), // nothing is to be hurried
        }
    }

    /// A process came of the launch: in every phase it has to be dealt with, though only two wait for one.
    fn on_birth(&self, phase: Phase, pid: u32, terms: &Terms) -> Arrow {
        use Phase as P;
        match phase {
            P::Launching => {
                Arrow::to(P::Pending { pid }).announced().because("launched").doing(Effect::AwaitReady(self.life))
            }
            // It has a life, if a short one, and no life goes untold.
            P::Withdrawn { again } => {
                let arrow = self.stop(pid, again, terms).announced().because("launched, and no longer wanted");
                Arrow { shows: Some(NodeState::Pending), ..arrow }
            }
            // Told twice.
            phase @ (P::Stopped
            | P::Failed
            | P::Crashed
            | P::Pending { .. }
            | P::Running { .. }
            | P::Hanging { .. }
            | P::Stopping { .. }
            | P::Sweeping { .. }
            | P::Undecided { .. }) => Arrow::to(phase),
        }
    }

    fn on_stillbirth(&mut self, phase: Phase, failure: LaunchFailure, now: Instant, terms: &Terms) -> Arrow {
        use Phase as P;
        match phase {
            P::Launching if failure.permanent || terms.restart.mode == RestartMode::Never => {
                Arrow::to(P::Failed).announced().because(failure.reason)
            }
            P::Launching => self.crash(failure.reason, now, terms).announced(),
            P::Withdrawn { again: true } => self.launch_on_request(),
            P::Withdrawn { again: false } => Arrow::stopped(),
            late => Arrow::to(late),
        }
    }

    fn on_exit(&mut self, phase: Phase, exit: Exit, output: Option<Output>, now: Instant, terms: &Terms) -> Arrow {
        use Phase as P;
        match phase {
            P::Pending { pid } | P::Running { pid, .. } if !terms.known => {
                let reason = format!("{}; {UNDECIDED}", explain(exit, output.as_ref()));
                let undecided = Arrow::to(P::Undecided { ended: Some((pid, exit)) })
                    .because(reason)
                    .doing(Effect::Sweep(self.life));
                undecided.after(pid, exit, output)
            }
            P::Pending { pid } => self.exited(pid, exit, output, now, terms),
            P::Running { pid, since } => {
                self.forgive_after(now.saturating_duration_since(since), terms);
                self.exited(pid, exit, output, now, terms)
            }
            P::Hanging { pid, why } => {
                let reason = format!("{why}; {}", explain(exit, output.as_ref()));
                self.failed(reason, now, terms).after(pid, exit, output)
            }
            P::Stopping { pid, again } => {
                Arrow::to(P::Sweeping { again, ended: Some((pid, exit)) }).doing(Effect::Sweep(self.life))
            }
            late => Arrow::to(late),
        }
    }

    /// What it is has become known: so is what its end meant, which the world was told of.
    fn on_definition(&mut self, phase: Phase, now: Instant, terms: &Terms) -> Arrow {
        match phase {
            Phase::Undecided { ended: Some((pid, exit)) } => {
                let decided = self.exited(pid, exit, None, now, terms);
                Arrow { pid: None, exit: None, ..decided }
            }
            Phase::Undecided { ended: None } => self.launch(),
            phase => Arrow::to(phase),
        }
    }

    /// It does not do its work: it is told to end, and whoever has to mend something hears of it at once.
    fn on_silence(&mut self, phase: Phase, why: Text, now: Instant, terms: &Terms) -> Arrow {
        let pid = match phase {
            Phase::Pending { pid } => pid,
            Phase::Running { pid, since } => {
                self.forgive_after(now.saturating_duration_since(since), terms);
                pid
            }
            late => return Arrow::to(late),
        };
        let complaint = format!("process {pid} is ended: {why}");
        Arrow::to(Phase::Hanging { pid, why })
            .doing(Effect::Complain(complaint))
            .doing(Effect::Terminate(self.life))
            .doing(Effect::After(terms.grace, Event::KillDue(self.life)))
    }

    /// Forgets earlier crashes if it was RUNNING for long enough.
    fn forgive_after(&mut self, ran: Duration, terms: &Terms) {
        if ran >= terms.restart.stable {
            self.history.forgive();
        }
    }

    fn on_swept(&mut self, phase: Phase) -> Arrow {
        use Phase as P;
        match phase {
            P::Sweeping { again: true, .. } => self.launch_on_request(),
            P::Sweeping { again: false, ended: None } => Arrow::stopped(),
            P::Sweeping { again: false, ended: Some((pid, exit)) } => {
                Arrow::stopped().because(explain_stop(exit)).after(pid, exit, None)
            }
            late => Arrow::to(late),
        }
    }

    fn launch(&mut self) -> Arrow {
        self.life = self.life.next();
        Arrow::to(Phase::Launching).doing(Effect::Launch(self.life))
    }

    fn launch_on_request(&mut self) -> Arrow {
        self.history.forgive();
        self.launch()
    }

    fn stop(&self, pid: u32, again: bool, terms: &Terms) -> Arrow {
        Arrow::to(Phase::Stopping { pid, again })
            .doing(Effect::Terminate(self.life))
            .doing(Effect::After(terms.grace, Event::KillDue(self.life)))
    }

    /// The process ended unasked.
    fn exited(&mut self, pid: u32, exit: Exit, output: Option<Output>, now: Instant, terms: &Terms) -> Arrow {
        let reason = explain(exit, output.as_ref());
        let arrow = match terms.restart.mode {
            RestartMode::OnFailure | RestartMode::Never if !exit.is_failure() => {
                Arrow::to(Phase::Stopped).because(reason).doing(Effect::Sweep(self.life))
            }
            // Also a clean exit, where it is to run always.
            _ => self.failed(reason, now, terms),
        };
        arrow.after(pid, exit, output)
    }

    /// It ended, and that counts as a failure.
    fn failed(&mut self, reason: String, now: Instant, terms: &Terms) -> Arrow {
        match terms.restart.mode {
            RestartMode::Always | RestartMode::OnFailure => self.crash(reason, now, terms),
            RestartMode::Never => Arrow::to(Phase::Failed).because(reason).doing(Effect::Sweep(self.life)),
        }
    }

    /// Decides between another try, now or later, and giving up.
    fn crash(&mut self, reason: String, now: Instant, terms: &Terms) -> Arrow {
        match self.history.next_delay(now, &terms.restart) {
            Some(Duration::ZERO) => {
                // The launch sweeps first, and nothing comes before it.
                Arrow::to(Phase::Crashed)
                    .because(reason)
                    .doing(Effect::After(Duration::ZERO, Event::RetryDue(self.life)))
            }
            Some(delay) => Arrow::to(Phase::Crashed)
                .because(reason)
                .doing(Effect::Sweep(self.life))
                .doing(Effect::After(delay, Event::RetryDue(self.life))),
            None => {
                let RestartPolicy { limit, window, .. } = &terms.restart;
                let window = humantime::format_duration(*window);
                Arrow::to(Phase::Failed)
                    .because(format!("given up after {limit} restarts within {window}; last: {reason}"))
                    .doing(Effect::Sweep(self.life))
            }
        }
    }
}

/// How a process that was asked to end did so, if that was in any way but the usual ones.
fn explain_stop(exit: Exit) -> String {
    const SIGTERM: i32 = 15;
    match exit {
        Exit::Status(0) | Exit::Signal { number: SIGTERM, .. } => ON_REQUEST.into(),
        exit => format!("{ON_REQUEST}; {exit}"),
    }
}

/// How a process ended, with the last thing it said.
fn explain(exit: Exit, output: Option<&Output>) -> String {
    let last = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(shortened);
    match output.and_then(|output| last(&output.stderr).or_else(|| last(&output.stdout))) {
        Some(line) => format!("{exit}: {line}"),
        None => exit.to_string(),
    }
}

/// A line as a reason shows it, which travels with every change: the whole of it is in the output.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 240;
    let mut short: String = line.chars().take(LONGEST).collect();
    if line.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}

/// What becomes of a node that ended before anybody knew what it is.
const UNDECIDED: &str = "its record was lost, so a configuration has to say what it is before it is started again";

/// The reason of a stop that somebody asked for.
const ON_REQUEST: &str = "stopped on request";

impl Event {
    /// The life that the event speaks of; `None` for what a person asks.
    fn life(&self) -> Option<Life> {
        match self {
            Self::Start | Self::Stop | Self::Hurry | Self::Defined => None,
            Self::Launched(life, _)
            | Self::LaunchFailed(life, _)
            | Self::Ready(life)
            | Self::Hangs(life, _)
            | Self::Exited(life, ..)
            | Self::Swept(life)
            | Self::KillDue(life)
            | Self::RetryDue(life) => Some(*life),
        }
    }
}

#[cfg(test)]
impl State {
    /// What its decisions depend on, but for the number of its life: for whoever compares histories.
    pub(crate) fn essence(&self, now: Instant) -> String {
        let Past { attempt, ago } = self.past(now);
        // Beyond the first restart the delays differ, and what comes of them does not.
        format!("{:?} {:?} {} {}", self.phase, self.told, attempt.min(1), ago.len())
    }
}

#[cfg(test)]
mod tests {
    use Effect as F;
    use Event as E;
    use Phase as P;

    use super::*;

    #[test]
    fn a_node_moves_only_along_these_arrows() {
        let pid = 70;
        let running = P::Running { pid, since: noon() };
        let gone = Exit::Status(1);
        let kill = F::After(terms().grace, E::KillDue(L));
        for (from, event, to, effects) in [
            (P::Stopped, E::Start, P::Launching, vec![F::Launch(NEXT)]),
            (P::Failed, E::Start, P::Launching, vec![F::Launch(NEXT)]),
            (P::Crashed, E::Start, P::Launching, vec![F::Launch(NEXT)]),
            (P::Crashed, E::RetryDue(L), P::Launching, vec![F::Launch(NEXT)]),
            (P::Stopped, E::Stop, P::Sweeping { again: false, ended: None }, vec![F::Sweep(L)]), // nothing is left of it
            (P::Failed, E::Stop, P::Sweeping { again: false, ended: None }, vec![F::Sweep(L)]),
            (P::Crashed, E::Stop, P::Sweeping { again: false, ended: None }, vec![F::Sweep(L)]), // a stop beats the retry
            (P::Launching, E::Start, P::Launching, vec![]),
            (P::Launching, E::Stop, P::Withdrawn { again: false }, vec![]),
            (P::Launching, E::Launched(L, pid), P::Pending { pid }, vec![F::AwaitReady(L)]),
            (P::Launching, E::LaunchFailed(L, hopeless()), P::Failed, vec![]),
            (P::Launching, E::RetryDue(L), P::Launching, vec![]),
            (P::Withdrawn { again: false }, E::Start, P::Withdrawn { again: true }, vec![]),
            (P::Withdrawn { again: true }, E::Stop, P::Withdrawn { again: false }, vec![]),
            (
                P::Withdrawn { again: false },
                E::Launched(L, pid), // no birth is lost
                P::Stopping { pid, again: false },
                vec![F::Terminate(L), kill.clone()],
            ),
            (P::Withdrawn { again: false }, E::LaunchFailed(L, hopeless()), P::Stopped, vec![]),
            (P::Withdrawn { again: true }, E::LaunchFailed(L, hopeless()), P::Launching, vec![F::Launch(NEXT)]),
            (P::Pending { pid }, E::Start, P::Pending { pid }, vec![]),
            (P::Pending { pid }, E::Ready(L), running.clone(), vec![]),
            (running.clone(), E::Start, running.clone(), vec![]),
            (running.clone(), E::Ready(L), running.clone(), vec![]),
            (running.clone(), E::Hurry, running.clone(), vec![]), // nothing is to be hurried
            (running.clone(), E::Stop, P::Stopping { pid, again: false }, vec![F::Terminate(L), kill]),
            (
                running.clone(),
                E::Exited(L, gone, None),
                P::Crashed,
                vec![F::After(Duration::ZERO, E::RetryDue(L))], // first restart at once
            ),
            (running.clone(), E::Exited(Life(6), gone, None), running, vec![]), // an old life
            (P::Stopping { pid, again: false }, E::Start, P::Stopping { pid, again: true }, vec![]),
            (P::Stopping { pid, again: true }, E::Stop, P::Stopping { pid, again: false }, vec![]),
            (P::Stopping { pid, again: true }, E::KillDue(L), P::Stopping { pid, again: true }, vec![F::Kill(L)]),
            (P::Stopping { pid, again: false }, E::Hurry, P::Stopping { pid, again: false }, vec![F::Kill(L)]),
            (
                P::Stopping { pid, again: true },
                E::Exited(L, gone, None),
                P::Sweeping { again: true, ended: Some((pid, gone)) },
                vec![F::Sweep(L)],
            ),
            (P::Sweeping { again: false, ended: None }, E::Start, P::Sweeping { again: true, ended: None }, vec![]),
            (P::Sweeping { again: true, ended: None }, E::Stop, P::Sweeping { again: false, ended: None }, vec![]),
            (P::Sweeping { again: true, ended: None }, E::Swept(L), P::Launching, vec![F::Launch(NEXT)]),
            (P::Sweeping { again: false, ended: None }, E::Swept(L), P::Stopped, vec![]),
            (
                P::Sweeping { again: false, ended: None },
                E::KillDue(L),
                P::Sweeping { again: false, ended: None },
                vec![],
            ), // nobody is left
        ] {
            let mut state = in_phase(from.clone());
            let mut got = state.step(event.clone(), noon(), &terms());
            got.retain(|effect| !matches!(effect, F::Report(_)));
            assert_eq!((state.phase, got), (to, effects), "{from:?} on {event:?}");
        }
    }

    #[test]
    fn the_mode_decides_what_an_end_means() {
        use RestartMode::*;
        let (clean, failed) = (Exit::Status(0), Exit::Unknown);
        for (mode, exit, want) in [
            (Always, clean, NodeState::Crashed),
            (Always, failed, NodeState::Crashed),
            (OnFailure, clean, NodeState::Stopped),
            (OnFailure, failed, NodeState::Crashed),
            (Never, clean, NodeState::Stopped),
            (Never, failed, NodeState::Failed),
        ] {
            let mut state = in_phase(P::Running { pid: 70, since: noon() });
            let mut terms = terms();
            terms.restart.mode = mode;
            state.step(E::Exited(L, exit, None), noon(), &terms);
            assert_eq!(state.told(), want, "{mode:?} on {exit:?}");
        }
    }

    #[test]
    fn what_the_end_of_an_unknown_node_means_is_decided_once_it_is_known() {
        use RestartMode::*;
        let clean = Exit::Status(0);
        for (mode, want, launches) in [(Always, NodeState::Crashed, true), (OnFailure, NodeState::Stopped, false)] {
            let unknown = Terms { known: false, ..terms() };
            let mut state = in_phase(P::Running { pid: 70, since: noon() });
            let mut told = state.step(E::Exited(L, clean, None), noon(), &unknown);
            let F::Report(report) = told.remove(0) else { panic!("{told:?}") };
            assert_eq!((report.new, report.pid, report.exit), (NodeState::Crashed, Some(70), Some(clean)));
            assert!(report.reason.ends_with(UNDECIDED), "{}", report.reason);
            assert_eq!(told, [F::Sweep(L)]);
            assert_eq!(state.step(E::Start, noon(), &unknown), [], "by a definition that is not its own");

            let known = Terms { restart: RestartPolicy { mode, ..terms().restart }, ..terms() };
            let decided = state.step(E::Defined, noon(), &known);
            assert_eq!(state.told(), want, "{decided:?}");
            assert_eq!(decided.contains(&F::After(Duration::ZERO, E::RetryDue(L))), launches, "{decided:?}");
            let deaths = decided.iter().filter(|effect| matches!(effect, F::Report(report) if report.exit.is_some()));
            assert_eq!(deaths.count(), 0, "it was told of: {decided:?}");
        }
        let mut state = in_phase(P::Undecided { ended: Some((70, clean)) });
        assert_eq!(state.step(E::Stop, noon(), &terms()), [F::Sweep(L)], "a stop is a stop");
        assert_eq!(state.step(E::Defined, noon(), &terms()), []);

        let mut state = in_phase(P::Crashed);
        assert_eq!(state.step(E::RetryDue(L), noon(), &Terms { known: false, ..terms() }), []);
        assert_eq!(state.step(E::Defined, noon(), &terms()), [F::Launch(NEXT)]);
    }

    #[test]
    fn who_was_stable_when_it_was_found_is_started_again_at_once_and_who_was_not_waits_as_before() {
        let (policy, past) = (terms().restart, Past { attempt: 3, ago: vec![1, 1, 1] });
        let first = |ran: Duration| {
            let since = noon().checked_sub(ran).unwrap();
            let mut state = State::adopted(L, 70, since).with_past(&past, 0, noon());
            let effects = state.step(E::Exited(L, Exit::Status(1), None), noon(), &terms());
            let retry = effects.iter().find_map(|effect| match effect {
                F::After(delay, E::RetryDue(_)) => Some(*delay),
                _ => None,
            });
            (retry.unwrap(), state.past(noon()).attempt)
        };
        assert_eq!(first(policy.stable), (Duration::ZERO, 1));
        let (delay, attempt) = first(policy.stable - Duration::from_millis(1));
        assert!(delay > policy.delay && attempt == 4, "{delay:?}");
    }

    #[test]
    fn who_is_found_waiting_counts_on_and_is_forgiven_only_by_whoever_asks() {
        let past = Past { attempt: 3, ago: vec![1, 1, 1] };
        for (event, kept) in [(E::RetryDue(L), past.clone()), (E::Start, Past::default())] {
            let mut state = State::crashed(L).with_past(&past, 0, noon());
            assert_eq!(state.step(event.clone(), noon(), &terms()), [F::Launch(NEXT)]);
            assert_eq!(state.past(noon()), kept, "{event:?}");
        }
    }

    #[test]
    fn when_it_will_have_been_stable_is_known_of_whoever_runs_and_has_crashed_before() {
        let (stable, second) = (terms().restart.stable, Duration::from_secs(1));
        let since = noon().checked_sub(second).unwrap();
        let crashed = Past { attempt: 1, ago: vec![] };
        let state = State::adopted(L, 70, since).with_past(&crashed, 0, noon());
        assert_eq!(state.stable_in(noon(), &terms()), Some(stable - second));
        assert_eq!(state.stable_in(noon() + stable, &terms()), Some(Duration::ZERO));
        assert_eq!(State::adopted(L, 70, since).stable_in(noon(), &terms()), None, "nothing is to be forgotten");
        assert_eq!(State::pending(L, 70).with_past(&crashed, 0, noon()).stable_in(noon(), &terms()), None);
    }

    #[test]
    fn who_is_found_before_it_was_ready_becomes_so_and_has_not_been_stable() {
        let mut state = State::pending(L, 70).with_past(&Past { attempt: 3, ago: vec![] }, 0, noon());
        let effects = state.clone().step(E::Exited(L, Exit::Status(1), None), noon(), &terms());
        let Some(F::Report(report)) = effects.first() else { panic!("{effects:?}") };
        assert_eq!((report.old, report.attempt), (NodeState::Pending, 4));
        state.step(E::Ready(L), noon(), &terms());
        assert_eq!(state.told(), NodeState::Running);
    }

    #[test]
    fn the_report_of_an_end_names_the_process_its_end_and_its_last_words() {
        let mut state = in_phase(P::Running { pid: 70, since: noon() });
        let output = Output { stdout: "all fine\n".into(), stderr: "warming up\nno such interface: eth9\n\n".into() };
        let exit = Exit::Status(1);
        let effects = state.step(E::Exited(L, exit, Some(output.clone())), noon(), &terms());
        let Some(F::Report(report)) = effects.first() else { panic!("told before anything is done: {effects:?}") };
        assert_eq!((report.old, report.new, report.pid), (NodeState::Running, NodeState::Crashed, Some(70)));
        assert_eq!((report.exit, &report.output, report.attempt), (Some(exit), &Some(output), 1));
        assert_eq!(report.reason, "exited with status 1: no such interface: eth9");
    }

    #[test]
    fn a_process_that_was_no_longer_wanted_when_it_was_born_is_told_of_all_the_same() {
        for again in [true, false] {
            let mut state = in_phase(P::Withdrawn { again });
            let effects = state.step(E::Launched(L, 70), noon(), &terms());
            let Some(F::Report(report)) = effects.first() else { panic!("told before it is ended: {effects:?}") };
            assert_eq!((report.old, report.new, report.pid), (NodeState::Stopped, NodeState::Pending, Some(70)));
        }
        let effects = in_phase(P::Stopping { pid: 70, again: false }).step(E::Launched(L, 70), noon(), &terms());
        assert!(effects.is_empty(), "once is enough: {effects:?}");
    }

    const L: Life = Life(7);
    const NEXT: Life = Life(8);

    fn in_phase(phase: Phase) -> State {
        let mut state = State { phase, ..State::stopped(L) };
        state.told = match state.phase {
            P::Stopping { .. } | P::Sweeping { .. } => NodeState::Running,
            _ => state.visible(),
        };
        state
    }

    fn noon() -> Instant {
        static NOON: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOON.get_or_init(Instant::now)
    }

    fn terms() -> Terms {
        Terms { known: true, restart: RestartPolicy::default(), grace: Duration::from_secs(3) }
    }

    fn hopeless() -> LaunchFailure {
        LaunchFailure { reason: "no such file".into(), permanent: true }
    }
}

//! Supervisors: every history of a node up to a depth, told by a small world; and the arithmetic of restarts.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use watchpost::model::{Exit, Factor, Life, NodeState, RestartMode, RestartPolicy};
use watchpost::supervisor::state::{Effect, Event, LaunchFailure, Report, State, Terms};

/// Every sequence of this many things that can happen to a node is gone through, states met before only once.
const DEPTH: usize = 11;
/// And of one that nobody knows what it is: from when that is known its histories are those of any other.
const UNKNOWN_DEPTH: usize = 9;
/// No node needs more deliveries than this to come to rest.
const REST_WITHIN: usize = 40;

#[test]
fn no_history_of_a_node_breaks_its_promises() {
    for terms in every_kind_of_terms() {
        go_through(DEPTH, vec![World::new(&terms, Instant::now())]);
    }
}

#[test]
fn no_history_of_a_node_that_nobody_knows_what_it_is_breaks_its_promises() {
    for terms in every_kind_of_terms() {
        let noon = Instant::now();
        go_through(UNKNOWN_DEPTH, vec![World::found_running(&terms, noon), World::found_waiting(&terms, noon)]);
    }
}

#[test]
fn the_end_of_a_node_is_decided_by_its_definition_once_that_is_known() {
    for (mode, status, want) in [
        (RestartMode::Always, 0, NodeState::Running),
        (RestartMode::OnFailure, 0, NodeState::Stopped),
        (RestartMode::OnFailure, 1, NodeState::Running),
        (RestartMode::Never, 0, NodeState::Stopped),
        (RestartMode::Never, 1, NodeState::Failed),
    ] {
        let restart = RestartPolicy { mode, ..RestartPolicy::default() };
        let terms = Terms { known: true, restart, grace: Duration::from_secs(1) };
        let world = World::found_running(&terms, Instant::now());
        let life = world.state.life();
        let ended = world.after(Happening::Exited(life, status)).after(Happening::Start);
        assert_eq!((ended.state.told(), ended.state.life()), (NodeState::Crashed, life), "{:#?}", ended.history);
        assert_eq!(ended.at_rest().state.told(), want, "{mode:?} {status}");
    }
}

/// Goes through every history of that length that begins in one of these worlds.
fn go_through(depth: usize, worlds: Vec<World>) {
    let mut met = HashSet::new();
    let mut front = worlds;
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in front {
            for happening in world.what_may_happen() {
                let after = world.after(happening);
                if met.insert(format!("{:?}", after.essence())) {
                    after.ignores_what_is_late();
                    after.comes_to_rest();
                    next.push(after);
                }
            }
        }
        front = next;
    }
    assert!(met.len() > 1000, "only {} different worlds were met", met.len());
}

#[test]
fn a_stop_is_answered_also_when_it_overtakes_the_launch() {
    let terms = &every_kind_of_terms()[0];
    for outcome in [Happening::Launched(Life(1)), Happening::LaunchFailed(Life(1), true)] {
        let mut world = World::new(terms, Instant::now());
        for happening in [Happening::Start, Happening::Stop, outcome] {
            world = world.after(happening);
        }
        let world = world.at_rest();
        assert_eq!(world.reports.last().map(|report| report.new), Some(NodeState::Stopped), "{:#?}", world.history);
    }
}

#[test]
fn a_node_that_is_never_restarted_is_not_launched_again_after_a_launch_that_failed() {
    let policy = RestartPolicy { mode: RestartMode::Never, limit: 0, ..RestartPolicy::default() };
    let terms = Terms { known: true, restart: policy, grace: Duration::from_secs(1) };
    let world = World::new(&terms, Instant::now());
    let world = world.after(Happening::Start).after(Happening::LaunchFailed(Life(1), false)).at_rest();
    assert_eq!(world.state.told(), NodeState::Failed, "{:#?}", world.history);
}

/// One try at running: how long it was RUNNING before it crashed (`None`: its launch failed), and the time before
/// that, beside the back-off, in seconds.
type Try = (Option<u64>, u64);

prop_compose! {
    fn policy()(delay in 0..20u64, max_delay in 0..60u64, stable in 1..40u64, limit in 0..5u32, window in 1..200u64)
        -> RestartPolicy
    {
        let seconds = Duration::from_secs;
        RestartPolicy {
            mode: RestartMode::Always,
            delay: seconds(delay),
            factor: Factor::TWO,
            max_delay: seconds(max_delay),
            jitter: 0,
            stable: seconds(stable),
            limit,
            window: seconds(window),
        }
    }
}

#[test]
fn who_hangs_is_ended_and_counts_as_failed_however_politely_it_goes() {
    for (mode, want) in [
        (RestartMode::Always, NodeState::Crashed),
        (RestartMode::OnFailure, NodeState::Crashed),
        (RestartMode::Never, NodeState::Failed),
    ] {
        let policy = RestartPolicy { mode, limit: 2, ..RestartPolicy::default() };
        let terms = Terms { known: true, restart: policy, grace: Duration::from_secs(1) };
        for is_ready in [false, true] {
            let mut world = World::new(&terms, Instant::now());
            let life = Life(1);
            for happening in [Happening::Start, Happening::Launched(life)] {
                world = world.after(happening);
            }
            if is_ready {
                world = world.after(Happening::Ready(life));
            }
            let told = world.reports.len();
            world = world.after(Happening::Hangs(life));
            assert!(world.terminated.contains(&life) && world.kills.contains(&life), "{:#?}", world.history);
            assert_eq!(world.reports.len(), told, "it is what it was until it has ended");
            world = world.after(Happening::Exited(life, 0));
            let report = world.reports[told].clone();
            assert_eq!((report.new, report.pid, report.exit), (want, Some(pid_of(life)), Some(Exit::Status(0))));
            assert_eq!(report.reason.as_str(), "no sign of life; exited with status 0");
        }
    }
}

proptest! {
    #[test]
    fn restarts_are_spaced_and_counted_as_the_policy_says(
        policy in policy(),
        tries in prop::collection::vec((prop::option::of(0..60u64), 0..5u64), 1..40),
    ) {
        check_restarts(&policy, &tries)?;
    }
}

fn check_restarts(policy: &RestartPolicy, tries: &[Try]) -> Result<(), TestCaseError> {
    let terms = Terms { known: true, restart: policy.clone(), grace: Duration::ZERO };
    let mut now = Instant::now();
    let mut state = State::stopped(Life::default());
    state.step(Event::Start, now, &terms);
    // Since the last time that was stable: when restarts were decided, and the last delay.
    let (mut decided, mut last) = (Vec::<Instant>::new(), None::<Duration>);
    for (ran, before) in tries {
        let life = state.life();
        now += Duration::from_secs(*before);
        let effects = match ran {
            None => state.step(Event::LaunchFailed(life, failure(false)), now, &terms),
            Some(seconds) => {
                state.step(Event::Launched(life, 7), now, &terms);
                state.step(Event::Ready(life), now, &terms);
                now += Duration::from_secs(*seconds);
                state.step(Event::Exited(life, Exit::Status(1), None), now, &terms)
            }
        };
        if ran.is_some_and(|seconds| Duration::from_secs(seconds) >= policy.stable) {
            (decided, last) = (Vec::new(), None);
        }
        let recent = decided.iter().filter(|then| now - **then < policy.window).count();
        let may_try_again = policy.limit == 0 || recent < policy.limit as usize;
        prop_assert_eq!(state.told(), if may_try_again { NodeState::Crashed } else { NodeState::Failed });
        if !may_try_again {
            prop_assert!(!effects.iter().any(|effect| matches!(effect, Effect::After(..) | Effect::Launch(_))));
            return Ok(());
        }
        let delays: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::After(delay, Event::RetryDue(of)) if *of == life => Some(*delay),
                _ => None,
            })
            .collect();
        let [delay] = delays[..] else { return Err(TestCaseError::fail(format!("{effects:?}"))) };
        prop_assert!(delay <= policy.max_delay);
        match (last, decided.len()) {
            (None, _) => prop_assert_eq!(delay, Duration::ZERO, "the first restart is immediate"),
            (Some(_), 1) => prop_assert_eq!(delay, policy.delay.min(policy.max_delay)),
            (Some(last), _) => prop_assert_eq!(delay, (2 * last).min(policy.max_delay)),
        }
        (last, now) = (Some(delay), now + delay);
        // Decided when it crashed, not when it was carried out.
        decided.push(now - delay);
        let effects = state.step(Event::RetryDue(life), now, &terms);
        prop_assert_eq!(effects, [Effect::Launch(life.next())]);
    }
    Ok(())
}

/// What can happen next to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Start,
    Stop,
    Hurry,
    Launched(Life),
    LaunchFailed(Life, bool),
    Ready(Life),
    Hangs(Life),
    Exited(Life, i32),
    Swept(Life),
    KillDue(Life),
    RetryDue(Life),
    /// What it is becomes known.
    Defined,
}

/// One node with everything around it that its supervisor can only ask for.
#[derive(Debug, Clone)]
struct World {
    terms: Terms,
    noon: Instant,
    state: State,
    launches: BTreeSet<Life>,
    live: BTreeSet<Life>,
    /// Told to end.
    terminated: BTreeSet<Life>,
    sweeps: BTreeSet<Life>,
    probes: BTreeSet<Life>,
    kills: BTreeSet<Life>,
    retries: BTreeSet<Life>,
    /// What the person asked for last.
    wanted: bool,
    /// A Stopped was told since the person last asked for anything.
    told_down: bool,
    /// What was told of it before all this.
    before: NodeState,
    reports: Vec<Report>,
    history: Vec<Happening>,
}

impl World {
    fn new(terms: &Terms, noon: Instant) -> Self {
        Self {
            terms: terms.clone(),
            noon,
            state: State::stopped(Life::default()),
            launches: BTreeSet::new(),
            live: BTreeSet::new(),
            terminated: BTreeSet::new(),
            sweeps: BTreeSet::new(),
            probes: BTreeSet::new(),
            kills: BTreeSet::new(),
            retries: BTreeSet::new(),
            wanted: false,
            told_down: true,
            before: NodeState::Stopped,
            reports: Vec::new(),
            history: Vec::new(),
        }
    }

    /// A node that runs, and nobody knows what it is.
    fn found_running(terms: &Terms, noon: Instant) -> Self {
        let life = Life(1);
        let state = State::adopted(life, pid_of(life), noon);
        Self { live: BTreeSet::from([life]), ..Self::found(state, terms, noon) }
    }

    /// One that had died by then, and is due to be started again.
    fn found_waiting(terms: &Terms, noon: Instant) -> Self {
        let life = Life(1);
        Self { retries: BTreeSet::from([life]), ..Self::found(State::crashed(life), terms, noon) }
    }

    fn found(state: State, terms: &Terms, noon: Instant) -> Self {
        let terms = Terms { known: false, ..terms.clone() };
        Self { before: state.told(), state, wanted: true, ..Self::new(&terms, noon) }
    }

    /// What tells this world from others; how it came about does not.
    fn essence(&self) -> impl std::fmt::Debug {
        let timers = (self.kills.clone(), self.retries.clone());
        let asked = (self.launches.clone(), self.sweeps.clone(), self.probes.clone(), timers);
        let known = self.terms.known;
        (self.state.clone(), self.live.clone(), self.terminated.clone(), asked, self.wanted, self.told_down, known)
    }

    fn what_may_happen(&self) -> Vec<Happening> {
        use Happening as H;
        let asked = [H::Start, H::Stop, H::Hurry];
        let launched = self
            .launches
            .iter()
            .flat_map(|life| [H::Launched(*life), H::LaunchFailed(*life, false), H::LaunchFailed(*life, true)]);
        let exited = self.live.iter().flat_map(|life| [H::Exited(*life, 0), H::Exited(*life, 1)]);
        let each =
            |lives: &BTreeSet<Life>, happening: fn(Life) -> H| lives.iter().copied().map(happening).collect::<Vec<_>>();
        let mut all: Vec<_> = asked.into_iter().chain(launched).chain(exited).collect();
        all.extend(each(&self.probes, H::Ready));
        if self.terms.known {
            all.extend(each(&self.live, H::Hangs));
        } else {
            all.push(H::Defined); // by what nobody knows it is not watched
        }
        all.extend(each(&self.sweeps, H::Swept));
        all.extend(each(&self.kills, H::KillDue));
        all.extend(each(&self.retries, H::RetryDue));
        all
    }

    /// The world after something happened; panics where a promise is broken.
    fn after(&self, happening: Happening) -> Self {
        use Happening as H;
        let mut world = self.clone();
        world.history.push(happening);
        let event = match happening {
            H::Start => {
                // What nobody knows cannot be started.
                if world.terms.known {
                    (world.wanted, world.told_down) = (true, false);
                }
                Event::Start
            }
            H::Stop => {
                (world.wanted, world.told_down) = (false, false);
                Event::Stop
            }
            H::Hurry => Event::Hurry,
            H::Launched(life) => {
                world.launches.remove(&life);
                world.live.insert(life);
                Event::Launched(life, pid_of(life))
            }
            H::LaunchFailed(life, permanent) => {
                world.launches.remove(&life);
                Event::LaunchFailed(life, failure(permanent))
            }
            H::Ready(life) => {
                world.probes.remove(&life);
                Event::Ready(life)
            }
            H::Hangs(life) => Event::Hangs(life, "no sign of life".into()),
            H::Exited(life, status) => {
                world.live.remove(&life);
                world.terminated.remove(&life);
                Event::Exited(life, Exit::Status(status), None)
            }
            H::Swept(life) => {
                world.sweeps.remove(&life);
                Event::Swept(life)
            }
            H::KillDue(life) => {
                world.kills.remove(&life);
                Event::KillDue(life)
            }
            H::RetryDue(life) => {
                world.retries.remove(&life);
                Event::RetryDue(life)
            }
            H::Defined => {
                world.terms.known = true;
                Event::Defined
            }
        };
        world.step(event);
        world
    }

    fn step(&mut self, event: Event) {
        let before = self.state.life();
        for effect in self.state.step(event, self.noon, &self.terms) {
            match effect {
                Effect::Launch(life) => {
                    assert!(self.terms.known, "nothing is launched by a guess: {:#?}", self.history);
                    assert!(self.wanted, "a stop beats every restart: {:#?}", self.history);
                    assert!(self.launches.is_empty() && self.live.is_empty(), "never two lives: {:#?}", self.history);
                    assert!(life > before, "a life of its own: {:#?}", self.history);
                    self.launches.insert(life);
                }
                Effect::Terminate(life) => {
                    assert!(self.live.contains(&life), "only what lives is told to end: {:#?}", self.history);
                    self.terminated.insert(life);
                }
                Effect::Kill(life) => {
                    assert!(self.terminated.contains(&life), "asked to end before it is killed: {:#?}", self.history);
                }
                Effect::Sweep(life) => drop(self.sweeps.insert(life)),
                Effect::AwaitReady(life) => drop(self.probes.insert(life)),
                Effect::After(Duration::ZERO, event) => self.step(event),
                Effect::After(_, Event::KillDue(life)) => drop(self.kills.insert(life)),
                Effect::After(_, Event::RetryDue(life)) => drop(self.retries.insert(life)),
                Effect::After(_, other) => panic!("no timer is for {other:?}: {:#?}", self.history),
                Effect::Complain(_) => {
                    let hung = matches!(self.history.last(), Some(Happening::Hangs(_)));
                    assert!(hung, "nothing else is complained of: {:#?}", self.history);
                }
                Effect::Report(report) => self.told(report),
            }
        }
        let pids: Vec<_> = self.live.iter().copied().map(pid_of).collect();
        assert_eq!(self.state.pid().into_iter().collect::<Vec<_>>(), pids, "no birth is lost: {:#?}", self.history);
    }

    fn told(&mut self, report: Report) {
        let former = self.reports.last().map_or(self.before, |former| former.new);
        assert_eq!(report.old, former, "a report begins where the last one ended: {:#?}", self.history);
        match report.new {
            NodeState::Pending | NodeState::Running => assert_eq!(report.pid, self.state.pid(), "{:#?}", self.history),
            NodeState::Stopped | NodeState::Crashed | NodeState::Failed => {
                assert!(self.live.is_empty() && self.launches.is_empty(), "down is down: {:#?}", self.history);
            }
            NodeState::Unknown => panic!("a supervisor always knows: {:#?}", self.history),
        }
        self.told_down |= report.new == NodeState::Stopped;
        self.reports.push(report);
    }

    /// Whatever an earlier life still has to say changes nothing.
    fn ignores_what_is_late(&self) {
        for life in (0..self.state.life().0).map(Life) {
            let exit = Exit::Status(1);
            for event in [
                Event::Launched(life, 3),
                Event::LaunchFailed(life, failure(true)),
                Event::LaunchFailed(life, failure(false)),
                Event::Ready(life),
                Event::Hangs(life, "no sign of life".into()),
                Event::Exited(life, exit, None),
                Event::Swept(life),
                Event::KillDue(life),
                Event::RetryDue(life),
            ] {
                let mut state = self.state.clone();
                let effects = state.step(event.clone(), self.noon, &self.terms);
                assert_eq!((&state, effects), (&self.state, vec![]), "{event:?} after {:#?}", self.history);
            }
        }
    }

    /// If nobody asks for anything more, and whoever owes something delivers it, it ends as was asked last.
    fn comes_to_rest(&self) {
        let end = self.at_rest();
        match end.wanted {
            false => {
                assert!(end.live.is_empty(), "nothing runs after a stop: {:#?}", end.history);
                assert_eq!(end.state.told(), NodeState::Stopped, "a stop ends in STOPPED: {:#?}", end.history);
                assert!(end.told_down, "every stop is answered: {:#?}", end.history);
            }
            true => {
                let runs = end.state.told() == NodeState::Running;
                let gave_up = matches!(end.state.told(), NodeState::Failed | NodeState::Stopped);
                assert!(runs || gave_up && end.state.life() > Life::default(), "{:#?}", end.history);
                assert_eq!(runs, !end.live.is_empty(), "{:#?}", end.history);
            }
        }
    }

    /// Delivers what is owed, one by one: launches succeed, and processes end only when they are told to.
    fn at_rest(&self) -> Self {
        use Happening as H;
        let mut world = self.clone();
        for _ in 0..REST_WITHIN {
            let first = |lives: &BTreeSet<Life>, happening: fn(Life) -> H| lives.first().copied().map(happening);
            let next = first(&world.launches, H::Launched)
                .or_else(|| first(&world.probes, H::Ready))
                .or_else(|| world.terminated.first().map(|life| H::Exited(*life, 0)))
                .or_else(|| first(&world.sweeps, H::Swept))
                .or_else(|| first(&world.retries, H::RetryDue))
                .or_else(|| first(&world.kills, H::KillDue))
                .or_else(|| (!world.terms.known).then_some(H::Defined));
            match next {
                Some(next) => world = world.after(next),
                None => return world,
            }
        }
        panic!("it never comes to rest: {:#?}", world.history);
    }
}

fn every_kind_of_terms() -> Vec<Terms> {
    let second = Duration::from_secs(1);
    let mut all = Vec::new();
    for mode in [RestartMode::Always, RestartMode::OnFailure, RestartMode::Never] {
        for limit in [0, 2] {
            let restart = RestartPolicy { mode, limit, ..RestartPolicy::default() };
            all.push(Terms { known: true, restart, grace: second });
        }
    }
    all
}

fn pid_of(life: Life) -> u32 {
    100 + u32::try_from(life.0).unwrap()
}

fn failure(permanent: bool) -> LaunchFailure {
    LaunchFailure { reason: "no luck".into(), permanent }
}

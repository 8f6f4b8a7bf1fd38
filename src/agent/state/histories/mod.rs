//! Every history of one node on one machine, told by the real decisions of its agent and its supervisor.
//!
//! What comes from outside is an order, a death or a piece of bad luck. Up to [`DEPTH`] of those are gone through, each at
//! every place where it may come: between any two steps of the mail, the hands and the kernel, in every order of
//! these. What was met before is not gone through again. The kernel and the register are small models.

mod kernel;
mod machine;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kernel::{Being, Found, Name, Version, Who};
use machine::{Lasting, Run, Terms, configuration, name, version};

use super::{Event, Goal};
use crate::message::agent::*;
use crate::model::*;
use crate::supervisor::state as supervisor;

/// So many things come from outside in one history of a node that is always restarted.
const DEPTH: usize = 4;
/// And of another one: the modes differ only in what an end means.
const LESS_DEPTH: usize = 3;

#[test]
fn no_history_of_a_node_and_its_agent_loses_doubles_or_hurts_anybody() {
    let all = [(RestartMode::Always, DEPTH), (RestartMode::OnFailure, LESS_DEPTH), (RestartMode::Never, LESS_DEPTH)];
    let met = all.map(|(mode, depth)| {
        std::thread::spawn(move || {
            let restart = RestartPolicy { mode, limit: 2, ..RestartPolicy::default() };
            explore(&Terms { known: true, restart, grace: Duration::from_secs(1) }, depth)
        })
    });
    let met = met.map(|thread| thread.join().expect("every history ends well"));
    println!("so many different situations were met: {met:?}");
    assert!(met.iter().all(|met| *met > 10_000), "{met:?}");
}

#[test]
fn the_document_says_how_far_histories_are_gone_through() {
    let document = include_str!("../../../../docs/survival.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let want = format!(
        "with up to {DEPTH} things that come from outside where it is always restarted, and up to {LESS_DEPTH} where that is \
         on failure or never"
    );
    assert!(document.contains(&want), "docs/survival.md does not say: {want}");
}

/// Goes through all histories of that depth, and returns how many situations there were.
fn explore(terms: &Terms, depth: usize) -> usize {
    let mut met = HashSet::new();
    let mut front = vec![World::new(terms)];
    front[0].is_new(&mut met);
    for used in 0..=depth {
        let mut next = Vec::new();
        while let Some(world) = front.pop() {
            let inside = world.what_comes_by_itself();
            if inside.is_empty() {
                world.is_as_wished();
            }
            for happening in inside {
                let mut after = world.after(happening, terms);
                if after.is_new(&mut met) {
                    front.push(after);
                }
            }
            if used < depth {
                for happening in world.what_comes_from_outside() {
                    let mut after = world.after(happening, terms);
                    if after.is_new(&mut met) {
                        next.push(after);
                    }
                }
            }
        }
        front = next;
    }
    met.len()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Deploy(Version),
    Standby,
    Start,
    Stop,
    Restart,
    AgentIsKilled,
    AgentIsToEnd,
    SupervisorPanics,
    /// Unasked, with this status; a stray may stay.
    Ends {
        status: i32,
        leaves: bool,
    },
    LaunchFails {
        permanent: bool,
    },
    /// A zombie that nobody of ours waits for is reaped, and its number is given to a stranger.
    NumberIsGivenAway,
    /// It was sent SIGKILL, and does not go for longer than anybody waits.
    OutlivesKill,

    AgentStarts,
    AgentLeaves,
    SupervisorReads,
    AgentReads,
    HandsWork,
    HandsAreHeard,
    EndIsHeard,
    AskedEnds,
    Ready,
    KillDue,
    RetryDue,
    Tick,
}

/// What is to become of the node, by what was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Gone,
    Rest,
    /// `afresh` if it was to rest before.
    Run {
        version: Version,
        afresh: bool,
    },
}

#[derive(Debug, Clone)]
struct World {
    noon: Instant,
    mode: RestartMode,
    disk: Lasting,
    agent: Option<Run>,
    wish: Wish,
    history: Option<Rc<Past>>,
    /// Something outlived SIGKILL.
    is_stuck: bool,
}

/// What happened last, and before that.
#[derive(Debug)]
struct Past {
    last: Happening,
    before: Option<Rc<Past>>,
}

impl World {
    fn new(terms: &Terms) -> Self {
        let (noon, disk) = (Instant::now(), Lasting::default());
        Self { noon, mode: terms.restart.mode, disk, agent: None, wish: Wish::Gone, history: None, is_stuck: false }
    }

    fn what_comes_from_outside(&self) -> Vec<Happening> {
        use Happening as H;
        let mut all = Vec::new();
        if let Some(run) = &self.agent {
            // Of two that nobody has met before the second is as good as the first.
            all.extend(self.disk.in_force.map(|_| H::Deploy(2)));
            all.extend([H::Deploy(1), H::Standby, H::Start, H::Stop, H::Restart, H::AgentIsKilled]);
            all.extend((!run.state.stopping_all).then_some(H::AgentIsToEnd));
            all.extend(run.ward.as_ref().and_then(|ward| ward.minder.as_ref()).map(|_| H::SupervisorPanics));
            if let Some(machine::Job::Birth { .. }) = run.jobs.front() {
                all.extend([false, true].map(|permanent| H::LaunchFails { permanent }));
            }
        }
        if !self.disk.kernel.nodes().is_empty() {
            for (status, leaves) in [(0, false), (1, false), (1, true)] {
                all.push(H::Ends { status, leaves });
            }
        }
        all.extend(self.given_away().map(|_| H::NumberIsGivenAway));
        let outlives = self.agent.as_ref().is_some_and(|run| run.last_alarm_is_next() && run.is_idle());
        all.extend((outlives && self.asked().is_some()).then_some(H::OutlivesKill));
        all
    }

    fn what_comes_by_itself(&self) -> Vec<Happening> {
        use Happening as H;
        let Some(run) = &self.agent else { return vec![H::AgentStarts] };
        let mut all = Vec::new();
        let minder = run.ward.as_ref().and_then(|ward| ward.minder.as_ref());
        if let Some(minder) = minder {
            all.extend((!minder.mail.is_empty()).then_some(H::SupervisorReads));
            all.extend(minder.probe.map(|_| H::Ready));
            all.extend(minder.kill.map(|_| H::KillDue));
            all.extend(minder.retry.map(|_| H::RetryDue));
        }
        all.extend((!run.post.is_empty()).then_some(H::AgentReads));
        all.extend((!run.jobs.is_empty()).then_some(H::HandsWork));
        all.extend((!run.dones.is_empty()).then_some(H::HandsAreHeard));
        all.extend(run.unheard_end(&self.disk).map(|_| H::EndIsHeard));
        all.extend(self.asked().map(|_| H::AskedEnds));
        all.extend(run.state.next_alarm().filter(|_| !run.last_alarm_is_next()).map(|_| H::Tick));
        all.extend((run.at_rest && run.jobs.is_empty()).then_some(H::AgentLeaves));
        all
    }

    /// The process that was told to end and lives.
    fn asked(&self) -> Option<Name> {
        let nodes = self.disk.kernel.nodes();
        nodes.into_iter().find(|it| matches!(it.being, Being::Alive { asked: true, .. })).map(|it| it.name)
    }

    /// A process of the register that has ended, and whose number is free or could be.
    fn given_away(&self) -> Option<Name> {
        let Some(Found::Launched(name)) = self.disk.record.map(|record| record.found) else { return None };
        let waits = self.agent.as_ref().is_some_and(|run| run.unheard_end(&self.disk).is_some());
        let is_free = match self.disk.kernel.holder(name.pid) {
            None => true,
            Some(process) => process.name == name && matches!(process.being, Being::Zombie(_)) && !waits,
        };
        is_free.then_some(name)
    }

    /// The world after that; panics where a promise is broken, and then prints how it came.
    fn after(&self, happening: Happening, terms: &Terms) -> Self {
        let mut world = self.clone();
        world.history = Some(Rc::new(Past { last: happening, before: world.history.take() }));
        world.is_stuck |= happening == Happening::OutlivesKill;
        let told = Told(world.history.clone());
        world.happen(happening, terms);
        world.is_sound();
        told.all_is_well();
        world
    }

    fn happen(&mut self, happening: Happening, terms: &Terms) {
        use Happening as H;
        let (noon, disk) = (self.noon, &mut self.disk);
        let id = |text: &str| RequestId::new(text).unwrap();
        let nodes = || [name()].into();
        match happening {
            H::AgentStarts => {
                let waits = disk.record.as_ref().is_some_and(machine::is_due);
                let run = Run::start(disk, noon, terms);
                assert!(!waits || !run.is_told_to_start(), "whoever waits is started, and forgiven, by nobody's wish");
                self.agent = Some(run);
            }
            H::AgentIsKilled => self.agent_ends(),
            H::AgentLeaves => {
                let is_left = !disk.kernel.nodes().is_empty() || !disk.kernel.strays.is_empty();
                assert!(!is_left || self.is_stuck, "it said that all is stopped");
                self.agent_ends();
            }
            H::Deploy(version) => {
                let configuration = configuration(version, terms).into();
                self.order(
                    happening,
                    SetConfigurationRequest { reqid: id("deploy"), configuration, rest: [].into() }.into(),
                    terms,
                );
            }
            H::Standby => self.order(happening, AgentStandbyRequest { reqid: id("standby") }.into(), terms),
            H::Start => self.order(happening, StartRequest { reqid: id("start"), nodes: nodes() }.into(), terms),
            H::Stop => self.order(happening, StopRequest { reqid: id("stop"), nodes: nodes() }.into(), terms),
            H::Restart => self.order(happening, RestartRequest { reqid: id("restart"), nodes: nodes() }.into(), terms),
            H::Ends { status, leaves } => {
                let process = disk.kernel.nodes()[0];
                disk.kernel.end(process.name, Exit::Status(status));
                if let (Who::Node(life, _), true) = (process.who, leaves) {
                    disk.kernel.strays.insert(life);
                }
            }
            H::AskedEnds => {
                if let Some(asked) = self.asked() {
                    self.disk.kernel.end(asked, Exit::Signal { number: 15, core_dumped: false });
                }
            }
            H::NumberIsGivenAway => {
                if let Some(name) = self.given_away() {
                    self.disk.kernel.reap(name);
                    let stranger = self.disk.kernel.put(Who::Stranger);
                    assert_eq!(stranger.pid, name.pid);
                }
            }
            H::AgentIsToEnd
            | H::SupervisorPanics
            | H::LaunchFails { .. }
            | H::SupervisorReads
            | H::AgentReads
            | H::HandsWork
            | H::HandsAreHeard
            | H::EndIsHeard
            | H::Ready
            | H::KillDue
            | H::RetryDue
            | H::OutlivesKill
            | H::Tick => self.go_on(happening, terms),
        }
    }

    /// Something happens within the agent.
    fn go_on(&mut self, happening: Happening, terms: &Terms) {
        use Happening as H;
        let disk = &mut self.disk;
        let Some(run) = &mut self.agent else { return };
        let due = |run: &mut Run, which: fn(&mut machine::Minder) -> &mut Option<Life>| {
            run.minder().and_then(|minder| which(minder).take())
        };
        match happening {
            H::AgentIsToEnd => run.step(Event::StopAll { for_now: true }, disk, terms),
            H::SupervisorPanics => run.panic(),
            H::LaunchFails { permanent } => run.work(Err(permanent), disk),
            H::SupervisorReads => run.read_mail(disk, terms),
            H::AgentReads => run.read_post(disk, terms),
            H::HandsWork => run.work(Ok(()), disk),
            H::HandsAreHeard => run.hear_done(),
            H::EndIsHeard => run.hear_end(disk),
            H::Ready => {
                let life = due(run, |minder| &mut minder.probe);
                life.into_iter().for_each(|life| run.drive(supervisor::Event::Ready(life), disk, terms));
            }
            H::KillDue => {
                let life = due(run, |minder| &mut minder.kill);
                life.into_iter().for_each(|life| run.drive(supervisor::Event::KillDue(life), disk, terms));
            }
            H::RetryDue => {
                let life = due(run, |minder| &mut minder.retry);
                life.into_iter().for_each(|life| run.drive(supervisor::Event::RetryDue(life), disk, terms));
            }
            H::OutlivesKill | H::Tick => run.step(Event::Tick, disk, terms),
            other => panic!("{other:?} does not happen within the agent"),
        }
    }

    /// The controller asks for something, and what is wished changes with it if the agent may heed it.
    fn order(&mut self, happening: Happening, order: ToAgent, terms: &Terms) {
        use Happening as H;
        let Some(run) = &mut self.agent else { return };
        let state = &run.state;
        let entry = state.nodes.get(&name());
        let (is_ending, goal) = (state.stopping_all, entry.map(|entry| entry.goal));
        let afresh = !matches!(self.wish, Wish::Run { .. });
        let defined = entry.map(|entry| version(entry.definition()));
        match happening {
            H::Deploy(version) if !is_ending => {
                let id = configuration(version, terms).id;
                let in_force = state.configuration.as_ref().map(|it| &it.id) == Some(&id);
                // Told again to the next run of an agent, it starts nothing that was stopped or given up.
                let again = state.configuration.is_none() && state.was_in_force.as_ref() == Some(&id);
                let is_down = entry.is_some_and(|it| it.goal == Goal::Rest || it.status.state == NodeState::Failed);
                let waits = again && is_down || entry.is_some_and(|it| it.waits());
                if !(in_force || waits && defined == Some(version)) {
                    self.wish = Wish::Run { version, afresh };
                } else if !run.is_told_to_start() {
                    run.step(Event::Order(order), &mut self.disk, terms);
                    let is_told = run.is_told_to_start();
                    return assert!(!is_told, "what is told again starts, and forgives, nobody");
                }
            }
            H::Start | H::Restart if !is_ending && goal.is_some_and(|goal| goal != Goal::Leave) => {
                self.wish = Wish::Run { version: defined.expect("it has a definition"), afresh };
            }
            H::Stop if goal.is_some_and(|goal| goal != Goal::Leave) => self.wish = Wish::Rest,
            H::Standby => self.wish = Wish::Gone,
            _ => {}
        }
        run.step(Event::Order(order), &mut self.disk, terms);
    }

    /// The agent is gone, and what it had not finished with it: from now on the register says what is wished.
    fn agent_ends(&mut self) {
        let Some(run) = self.agent.take() else { return };
        let kept = self.kept();
        match self.wish {
            Wish::Rest | Wish::Gone => {
                let comes_up = matches!(kept, Wish::Run { .. }) && run.is_answered_down();
                assert!(!comes_up, "it was told that it is stopped, and would be started again");
            }
            Wish::Run { afresh, .. } => {
                let ends_by_itself = self.mode != RestartMode::Always;
                assert!(
                    afresh || ends_by_itself || kept != Wish::Rest,
                    "it was to run, and would not be started again"
                );
            }
        }
        self.wish = kept;
    }

    /// What the next agent would take to be wished.
    fn kept(&self) -> Wish {
        match self.disk.record {
            None => Wish::Gone,
            Some(record) if record.found == Found::Stopped => Wish::Rest,
            Some(record) => Wish::Run { version: record.version, afresh: false },
        }
    }

    /// What holds at any moment.
    fn is_sound(&self) {
        let Some(run) = &self.agent else { return };
        if self.wish == Wish::Rest && run.is_answered_down() {
            assert!(!matches!(self.kept(), Wish::Run { .. }), "the next agent would start it");
        }
        if !matches!(self.wish, Wish::Run { .. }) && run.is_answered_down() {
            assert!(self.disk.kernel.nodes().is_empty(), "it runs, and whoever stopped it was told that it does not");
            let is_born =
                run.jobs.iter().any(|job| matches!(job, machine::Job::Launch { .. } | machine::Job::Birth { .. }));
            assert!(!is_born, "it is launched, and whoever stopped it was told that it is down");
        }
    }

    /// Nothing more comes by itself: it has come to what was wished.
    fn is_as_wished(&self) {
        let told = Told(self.history.clone());
        let run = self.agent.as_ref().expect("an agent that is gone comes back");
        let entry = run.state.nodes.get(&name());
        let living = self.disk.kernel.nodes();
        let state = entry.map(|entry| entry.status.state);
        let pid = entry.and_then(|entry| entry.status.pid);
        assert_eq!(pid, living.first().map(|process| process.name.pid), "status says what runs");
        assert!(self.disk.kernel.strays.is_empty() || state != Some(NodeState::Stopped), "no orphan is left");
        match self.wish {
            Wish::Gone => assert_eq!((state, living.len(), self.disk.record), (None, 0, None)),
            Wish::Rest => assert_eq!((state, living.len()), (Some(NodeState::Stopped), 0)),
            Wish::Run { version, .. } => match state {
                Some(NodeState::Running) => {
                    let process = living.first().expect("a process that runs");
                    assert!(matches!(process.who, Who::Node(_, of) if of == version), "by the definition wished last");
                    assert_eq!(self.disk.record.map(|it| it.found), Some(Found::Launched(process.name)));
                }
                Some(NodeState::Failed) => assert!(living.is_empty(), "given up"),
                Some(NodeState::Stopped) if self.mode != RestartMode::Always => assert!(living.is_empty()),
                other => panic!("it is to run, and is {other:?}"),
            },
        }
        told.all_is_well();
    }

    /// Whether nothing like it was met before; from now on it was.
    fn is_new(&mut self, met: &mut HashSet<(u64, u64)>) -> bool {
        let essence = self.essence();
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &essence).hash(&mut hasher);
            hasher.finish()
        };
        met.insert((hash(0), hash(1)))
    }

    /// What tells it from others: lives, births and tickets are counted from the last of each.
    fn essence(&mut self) -> String {
        let mut names: Vec<&mut Name> = self.agent.as_mut().map(Run::names).unwrap_or_default();
        if let Some(Found::Launched(name)) = self.disk.record.as_mut().map(|record| &mut record.found) {
            names.push(name);
        }
        self.disk.kernel.count_anew(&mut names);
        let mut base = self.disk.record.map_or(Life(0), |record| record.life);
        if let Some(minder) = self.agent.as_mut().and_then(Run::minder) {
            base = base.max(minder.state.life());
        }
        let record = self
            .disk
            .record
            .map(|it| (it.version, base.0.wrapping_sub(it.life.0), it.found, machine::few(it.counted), it.ready));
        let told = (self.disk.death_told.0, self.disk.death_told.1.map(|life| base.0.wrapping_sub(life.0)));
        let kernel = self.disk.kernel.told_from(base);
        let run = self.agent.as_ref().map(|run| run.essence(base));
        format!("{run:?} {record:?} {kernel:?} {told:?} {:?} {:?}", self.disk.in_force, self.wish)
    }
}

/// Prints the history if a check panics.
struct Told(Option<Rc<Past>>);

impl Told {
    fn all_is_well(mut self) {
        self.0 = None;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut all = Vec::new();
        let mut past = self.0.as_deref();
        while let Some(Past { last, before }) = past {
            all.push(last);
            past = before.as_deref();
        }
        if !all.is_empty() {
            all.reverse();
            eprintln!("so it came: {all:?}");
        }
    }
}

//! One run of the agent with the supervisor of its one node: the real decisions of both, and everything between them and
//! the kernel in steps that may be interrupted at any place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::super::{Effect, Event, FoundNode, Goal, State};
use super::kernel::{Being, Found, Kernel, Name, Record, Version};
use crate::agent::jobs::Jobs;
use crate::agent::order::Step;
use crate::agent::outbox::{Bounds, Outbox};
use crate::agent::repeats::Repeats;
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::*;
use crate::supervisor::history::Past;
use crate::supervisor::state as supervisor;
use crate::supervisor::workshop::WardId;

/// What of the machine outlives the agent.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    pub kernel: Kernel,
    pub record: Option<Record>,
    pub in_force: Option<Version>,
    /// The number of the process that was told last to have ended, if no other was told of since; and the last life of
    /// which that was told.
    pub death_told: (Option<u32>, Option<Life>),
}

/// Mail to the supervisor, in order.
#[derive(Debug, Clone)]
pub enum Mail {
    Order(NodeOrder),
    Word(supervisor::Event),
    Noted,
}

/// Mail to the agent, in order.
#[derive(Debug, Clone)]
pub enum Post {
    Report(NodeReport, Life),
    Launch(WardId, Life, Version, (u32, usize)),
    Waits(Life, (u32, usize)),
    Gone(WardId),
}

/// What the hands do for the node, one after the other.
#[derive(Debug, Clone)]
pub enum Job {
    Launch {
        ward: WardId,
        life: Life,
        version: Version,
        before: Option<Life>,
        counted: (u32, usize),
    },
    /// The same behind its intent.
    Birth {
        ward: WardId,
        life: Life,
        version: Version,
        counted: (u32, usize),
    },
    Sweep {
        ward: WardId,
        life: Life,
        leader: Life,
    },
    Note {
        answer: Option<WardId>,
        life: Life,
        found: Found,
        counted: Option<(u32, usize)>,
    },
    Forget,
}

/// What they say when it is done, in order.
#[derive(Debug, Clone)]
pub enum Done {
    Born(WardId, Life, Name),
    Tell(WardId, Mail),
    Failed(WardId, Life, bool),
}

#[derive(Debug, Clone)]
pub enum Fact {
    Down(Life),
    GivenUp(Life),
    Launching(Life),
    Alive(Life, Name),
    Died(Life, Name, Exit, bool),
    Crashed(Life),
}

#[derive(Debug, Clone)]
pub struct Ward {
    pub id: WardId,
    pub fact: Fact,
    leader: Option<Life>,
    is_ready: bool,
    pub counted: (u32, usize),
    /// `None` between its panic and its successor.
    pub minder: Option<Minder>,
}

/// A supervisor, with what it waits for.
#[derive(Debug, Clone)]
pub struct Minder {
    pub state: supervisor::State,
    version: Version,
    ticket: Option<u64>,
    for_now: bool,
    held: VecDeque<(NodeReport, Life)>,
    pub mail: VecDeque<Mail>,
    pub probe: Option<Life>,
    pub kill: Option<Life>,
    pub retry: Option<Life>,
}

/// A record, and the process that it is of: one that runs, or one that has ended in this way.
type Adoptable = (Record, Option<Name>, Option<(Name, Exit)>);

/// An agent that runs.
#[derive(Debug, Clone)]
pub struct Run {
    pub state: State,
    pub ward: Option<Ward>,
    pub post: VecDeque<Post>,
    pub jobs: VecDeque<Job>,
    pub dones: VecDeque<Done>,
    /// Everything is stopped, and it ends when its hands are done.
    pub at_rest: bool,
    /// What was found, until its ward is there.
    adoptable: Option<Adoptable>,
    noon: Instant,
}

impl Run {
    /// Takes up what is there.
    pub fn start(disk: &mut Lasting, noon: Instant, terms: &Terms) -> Self {
        let state = State::new(InstanceName::new("i").unwrap(), 1, Outbox::new(Bounds::default()));
        let queues = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (post, jobs, dones) = queues;
        let mut run = Self { state, ward: None, post, jobs, dones, at_rest: false, adoptable: None, noon };
        if let Some(version) = disk.in_force {
            run.step(Event::WasInForce(configuration(version, terms).id), disk, terms);
        }
        let mut found = Vec::new();
        if let Some(record) = disk.record {
            let (process, died) = match record.found {
                Found::Launched(name) if disk.kernel.is_alive(name) => (Some(name), None),
                Found::Launched(name) => {
                    let exit = match disk.kernel.find(name).map(|process| process.being) {
                        Some(Being::Zombie(exit)) => exit,
                        _ => Exit::Unknown,
                    };
                    (None, Some((name, exit)))
                }
                _ => (None, None),
            };
            run.adoptable = Some((record, process, died));
            let up = if record.ready { NodeState::Running } else { NodeState::Pending };
            let (state, pid) = match (process.or(died.map(|(name, _)| name)), record.found) {
                (Some(name), _) if died.is_some() && disk.death_told.0 == Some(name.pid) => (NodeState::Crashed, None),
                (Some(name), _) => (up, Some(name.pid)),
                (None, Found::GivenUp) => (NodeState::Failed, None),
                (None, _) if is_due(&record) => (NodeState::Crashed, None),
                (None, _) => (NodeState::Stopped, None),
            };
            let (node, reason) = (node(record.version, terms), Text::default());
            let wanted = record.found != Found::Stopped;
            found.push(FoundNode { node, state, pid, reason, wanted, guessed: false });
        }
        run.step(Event::Found(found), disk, terms);
        run
    }

    /// The one door to the agent's decisions.
    pub fn step(&mut self, event: Event, disk: &mut Lasting, terms: &Terms) {
        // Alarms are rung one by one and not by the clock, so the clock stands still.
        let at = match event {
            Event::Tick => self.state.next_alarm().unwrap_or(self.noon),
            _ => self.noon,
        };
        let effects = self.state.step(event, Now { mono: at, wall: Timestamp(0) });
        // What was said, asked and answered has no part in what comes of the node.
        self.state.outbox = Outbox::new(Bounds::default());
        self.state.jobs = Jobs::new(self.state.instance.clone());
        self.state.repeats = Repeats::default();
        for effect in effects {
            self.perform(effect, disk, terms);
        }
    }

    fn perform(&mut self, effect: Effect, disk: &mut Lasting, terms: &Terms) {
        match effect {
            Effect::Supervise(id, node) => {
                let (fact, counted) = (Fact::Down(Life(0)), (0, 0));
                let mut ward = Ward { id, fact, leader: None, is_ready: false, counted, minder: None };
                if let Some((record, process, died)) = self.adoptable.take() {
                    (ward.leader, ward.is_ready, ward.counted) = (Some(record.life), record.ready, record.counted);
                    ward.fact = match (process, died) {
                        (Some(name), _) => Fact::Alive(record.life, name),
                        (None, Some((name, exit))) => {
                            Fact::Died(record.life, name, exit, disk.death_told.0 == Some(name.pid))
                        }
                        (None, None) if is_due(&record) => Fact::Crashed(record.life),
                        (None, None) if record.found == Found::GivenUp => Fact::GivenUp(record.life),
                        (None, None) => Fact::Down(record.life),
                    };
                }
                assert!(self.ward.is_none(), "one ward for one node");
                self.ward = Some(ward);
                self.start_minder(version(&node), disk, terms);
            }
            Effect::Tell(id, order) => {
                let ward = self.ward.as_mut().filter(|ward| ward.id == id).expect("whom the agent tells is there");
                // To one that has just panicked it is lost.
                ward.minder.iter_mut().for_each(|minder| minder.mail.push_back(Mail::Order(order.clone())));
            }
            Effect::Dismiss(id, _) => {
                let gone = self.ward.take().filter(|ward| ward.id == id).expect("its ward");
                assert!(
                    matches!(gone.fact, Fact::Down(_) | Fact::GivenUp(_) | Fact::Crashed(_)),
                    "nothing runs where nobody minds it: {gone:?}"
                );
                self.jobs.push_back(Job::Forget);
            }
            Effect::Remember(id) => disk.in_force = Some(if id.as_str() == "c1" { 1 } else { 2 }),
            Effect::AllStopped => self.at_rest = true,
            Effect::Inquire(_)
            | Effect::ReadOutput(_)
            | Effect::ReadPiece(_)
            | Effect::ReadCrashes(_)
            | Effect::Refused(_)
            | Effect::EndLink(_)
            | Effect::Define(..) => {}
            Effect::Prepare(..)
            | Effect::TryFiles(..)
            | Effect::UseFiles(_)
            | Effect::Archive(_)
            | Effect::MindLogs { .. }
            | Effect::Stage(_)
            | Effect::KeepFiles { .. } => {
                unreachable!("the node has a command")
            }
            Effect::Inspect(..) => unreachable!("nobody asks for a plan"),
        }
    }

    /// Gives the ward a supervisor that takes up what is so.
    fn start_minder(&mut self, version: Version, disk: &mut Lasting, terms: &Terms) {
        let Some(ward) = &mut self.ward else { return };
        let (mut first, mut was_told) = (Vec::new(), false);
        let (noon, counted, is_ready) = (self.noon, ward.counted, ward.is_ready);
        let with_past = |state: supervisor::State| state.with_past(&past_of(counted), 0, noon);
        let found_up = |life, pid| match is_ready {
            true => supervisor::State::adopted(life, pid, noon),
            false => supervisor::State::pending(life, pid),
        };
        let state = match ward.fact {
            Fact::Down(life) => with_past(supervisor::State::stopped(life)),
            Fact::GivenUp(life) => with_past(supervisor::State::given_up(life)),
            Fact::Launching(life) => with_past(supervisor::State::launching(life)),
            Fact::Alive(life, name) => {
                first.extend((!is_ready).then_some(supervisor::Effect::AwaitReady(life)));
                with_past(found_up(life, name.pid))
            }
            Fact::Crashed(life) => {
                let retry = supervisor::Event::RetryDue(life);
                first =
                    vec![supervisor::Effect::Sweep(life), supervisor::Effect::After(terms.restart.max_delay, retry)];
                with_past(supervisor::State::crashed(life))
            }
            Fact::Died(life, name, exit, told) => {
                was_told = told;
                let mut state = with_past(found_up(life, name.pid));
                first = state.step(supervisor::Event::Exited(life, exit, None), self.noon, terms);
                ward.fact = Fact::Down(life);
                if state.told() == NodeState::Failed {
                    ward.fact = Fact::GivenUp(life);
                    self.jobs.push_back(Job::Note { answer: None, life, found: Found::GivenUp, counted: None });
                }
                if state.told() == NodeState::Stopped {
                    self.jobs.push_back(Job::Note { answer: None, life, found: Found::Stopped, counted: None });
                }
                state
            }
        };
        let life = state.life();
        ward.minder = Some(Minder {
            state,
            version,
            ticket: None,
            for_now: false,
            held: VecDeque::new(),
            mail: VecDeque::new(),
            probe: None,
            kill: None,
            retry: None,
        });
        let at = first.iter().position(|effect| matches!(effect, supervisor::Effect::Report(_)));
        let told = at.map(|at| first.remove(at));
        let is_new = |report: &supervisor::Report| !(was_told && report.new == NodeState::Crashed);
        for effect in first {
            self.carry_out(effect, disk, terms);
        }
        if let Some(supervisor::Effect::Report(report)) = told
            && is_new(&report)
        {
            self.hear_report(told_of(report, None), life, disk, terms);
        }
    }

    // --- the supervisor's side ---

    /// The supervisor takes its next mail.
    pub fn read_mail(&mut self, disk: &mut Lasting, terms: &Terms) {
        let Some(minder) = self.minder() else { return };
        let event = match minder.mail.pop_front() {
            None => return,
            Some(Mail::Word(event)) => event,
            Some(Mail::Noted) => {
                let told = minder.held.pop_front();
                return self.post.extend(told.map(|(report, life)| Post::Report(report, life)));
            }
            Some(Mail::Order(NodeOrder::Start)) => {
                minder.for_now = false;
                supervisor::Event::Start
            }
            Some(Mail::Order(NodeOrder::Stop { ticket, for_now })) => {
                (minder.ticket, minder.for_now) = (Some(ticket), for_now);
                supervisor::Event::Stop
            }
            Some(Mail::Order(NodeOrder::Hurry)) => supervisor::Event::Hurry,
            Some(Mail::Order(NodeOrder::Redefine(node))) => {
                minder.version = version(&node);
                return;
            }
        };
        self.drive(event, disk, terms);
    }

    pub fn drive(&mut self, event: supervisor::Event, disk: &mut Lasting, terms: &Terms) {
        let noon = self.noon;
        let Some(minder) = self.minder() else { return };
        for effect in minder.state.step(event, noon, terms) {
            self.carry_out(effect, disk, terms);
        }
    }

    fn carry_out(&mut self, effect: supervisor::Effect, disk: &mut Lasting, terms: &Terms) {
        use supervisor::{Effect as F, Event as E};
        let Some(ward) = &mut self.ward else { return };
        let Some(minder) = &mut ward.minder else { return };
        let running = match ward.fact {
            Fact::Alive(_, name) => Some(name),
            _ => None,
        };
        match effect {
            F::Launch(life) => {
                let counted = counted(&minder.state, self.noon);
                self.post.push_back(Post::Launch(ward.id, life, minder.version, counted));
            }
            F::Terminate(life) => running.into_iter().for_each(|name| disk.kernel.signal(name, life, false)),
            F::Kill(life) => running.into_iter().for_each(|name| disk.kernel.signal(name, life, true)),
            F::Sweep(life) => match ward.leader.filter(|leader| *leader <= life) {
                Some(leader) => self.jobs.push_back(Job::Sweep { ward: ward.id, life, leader }),
                None => minder.mail.push_back(Mail::Word(E::Swept(life))),
            },
            F::AwaitReady(life) => minder.probe = Some(life),
            F::Complain(_) => {} // for people
            F::After(delay, event) if delay.is_zero() => self.drive(event, disk, terms),
            F::After(_, E::KillDue(life)) => minder.kill = Some(life),
            F::After(_, E::RetryDue(life)) => {
                minder.retry = Some(life);
                if matches!(ward.fact, Fact::Down(of) if of == life) {
                    (ward.fact, ward.counted) = (Fact::Crashed(life), counted(&minder.state, self.noon));
                    self.post.push_back(Post::Waits(life, ward.counted));
                }
            }
            F::After(_, other) => panic!("no timer is for {other:?}"),
            F::Report(report) => {
                minder.probe.take_if(|_| report.new != NodeState::Pending);
                let life = minder.state.life();
                if report.new == NodeState::Running {
                    ward.is_ready = true;
                    let record = disk.record.iter_mut().find(|record| record.life == life);
                    record.into_iter().for_each(|record| record.ready = true);
                }
                let ticket = minder.ticket.take_if(|_| report.new == NodeState::Stopped);
                let found = match report.new {
                    NodeState::Stopped if minder.for_now => Some(Found::Rested),
                    NodeState::Stopped => Some(Found::Stopped),
                    NodeState::Failed => Some(Found::GivenUp),
                    _ => None,
                };
                let report = told_of(report, ticket);
                if let Some(found) = found {
                    // It is told once it is on disk.
                    if let Fact::Down(last) | Fact::GivenUp(last) | Fact::Crashed(last) = ward.fact {
                        let is_given_up = found == Found::GivenUp;
                        ward.fact = if is_given_up { Fact::GivenUp(last) } else { Fact::Down(last) };
                    }
                    minder.held.push_back((report, life));
                    self.jobs.push_back(Job::Note { answer: Some(ward.id), life, found, counted: None });
                } else {
                    assert!(minder.held.is_empty(), "what is told later comes later");
                    self.post.push_back(Post::Report(report, life));
                }
            }
        }
    }

    /// The supervisor panics: what it knew, its mail and its timers go with it.
    pub fn panic(&mut self) {
        if let Some(ward) = &mut self.ward
            && ward.minder.take().is_some()
        {
            self.post.push_back(Post::Gone(ward.id));
        }
    }

    // --- the agent's side ---

    /// The agent takes its next mail.
    pub fn read_post(&mut self, disk: &mut Lasting, terms: &Terms) {
        match self.post.pop_front() {
            None => {}
            Some(Post::Report(report, life)) => self.hear_report(report, life, disk, terms),
            Some(Post::Launch(id, life, version, counted)) => {
                let Some(ward) = self.ward.as_mut().filter(|ward| ward.id == id) else { return };
                (ward.fact, ward.is_ready, ward.counted) = (Fact::Launching(life), false, counted);
                self.jobs.push_back(Job::Launch { ward: id, life, version, before: ward.leader, counted });
            }
            Some(Post::Waits(life, counted)) => {
                let (found, counted) = (Found::Crashed, Some(counted));
                self.jobs.push_back(Job::Note { answer: None, life, found, counted });
            }
            Some(Post::Gone(id)) => self.replace(id, disk, terms),
        }
    }

    /// A report is on disk as soon as the agent has it.
    fn hear_report(&mut self, report: NodeReport, life: Life, disk: &mut Lasting, terms: &Terms) {
        match (report.pid, report.exit) {
            (Some(pid), Some(_)) => {
                assert!(disk.death_told.1.is_none_or(|last| last < life), "the end of one life is told twice");
                disk.death_told = (Some(pid), Some(life));
            }
            (Some(_), None) => disk.death_told.0 = None,
            (None, _) => {}
        }
        self.step(Event::Report(report), disk, terms);
    }

    fn replace(&mut self, id: WardId, disk: &mut Lasting, terms: &Terms) {
        let Some(definition) = self.state.node_in(id, &name()).cloned() else { return };
        let Some(ward) = self.ward.as_ref().filter(|ward| ward.id == id && ward.minder.is_none()) else { return };
        let (state, pid) = match ward.fact {
            Fact::Alive(_, name) | Fact::Died(_, name, ..) if ward.is_ready => (NodeState::Running, Some(name.pid)),
            Fact::Alive(_, name) | Fact::Died(_, name, ..) => (NodeState::Pending, Some(name.pid)),
            Fact::Crashed(_) => (NodeState::Crashed, None),
            Fact::Launching(_) => (NodeState::Pending, None),
            Fact::Down(_) => (NodeState::Stopped, None),
            Fact::GivenUp(_) => (NodeState::Failed, None),
        };
        self.start_minder(version(&definition), disk, terms);
        self.step(Event::Revived { node: name(), state, pid }, disk, terms);
    }

    // --- the workshop ---

    /// The hands do the next thing; `luck` decides about a birth.
    pub fn work(&mut self, luck: Result<(), bool>, disk: &mut Lasting) {
        match self.jobs.pop_front() {
            None => {}
            Some(Job::Launch { ward, life, version, before, counted }) => {
                before.into_iter().for_each(|before| {
                    disk.kernel.strays.remove(&before);
                });
                disk.record = Some(Record { version, life, found: Found::Intended, counted, ready: false });
                self.jobs.push_front(Job::Birth { ward, life, version, counted });
            }
            Some(Job::Birth { ward, life, version, counted }) => match luck {
                Ok(()) => {
                    let name = disk.kernel.bear(life, version);
                    disk.record = Some(Record { version, life, found: Found::Launched(name), counted, ready: false });
                    self.dones.push_back(Done::Born(ward, life, name));
                }
                Err(permanent) => self.dones.push_back(Done::Failed(ward, life, permanent)),
            },
            Some(Job::Sweep { ward, life, leader }) => {
                disk.kernel.strays.remove(&leader);
                self.dones.push_back(Done::Tell(ward, Mail::Word(supervisor::Event::Swept(life))));
            }
            Some(Job::Note { answer, life, found, counted }) => {
                disk.record.iter_mut().for_each(|record| record.note(life, found, counted));
                self.dones.extend(answer.map(|ward| Done::Tell(ward, Mail::Noted)));
            }
            Some(Job::Forget) => disk.record = None,
        }
    }

    /// The workshop hears what its hands have done.
    pub fn hear_done(&mut self) {
        let Some(done) = self.dones.pop_front() else { return };
        let (id, mail) = match done {
            Done::Tell(id, mail) => {
                if let Mail::Word(supervisor::Event::Swept(life)) = mail
                    && let Some(ward) = self.ward.as_mut().filter(|ward| ward.id == id)
                {
                    ward.leader.take_if(|leader| *leader <= life);
                }
                (id, mail)
            }
            Done::Born(id, life, name) => {
                let ward = self.ward.as_mut().filter(|ward| ward.id == id).expect("nothing is born unminded");
                (ward.fact, ward.leader) = (Fact::Alive(life, name), Some(life));
                (id, Mail::Word(supervisor::Event::Launched(life, name.pid)))
            }
            Done::Failed(id, life, permanent) => {
                if let Some(ward) = self.ward.as_mut().filter(|ward| ward.id == id) {
                    ward.fact = Fact::Down(life);
                }
                let failure = supervisor::LaunchFailure { reason: String::new(), permanent };
                (id, Mail::Word(supervisor::Event::LaunchFailed(life, failure)))
            }
        };
        self.tell(id, mail);
    }

    /// The process that is watched, if it has ended.
    pub fn unheard_end(&self, disk: &Lasting) -> Option<Name> {
        match self.ward.as_ref()?.fact {
            Fact::Alive(_, name) if !disk.kernel.is_alive(name) => Some(name),
            _ => None,
        }
    }

    /// The workshop hears of that end.
    pub fn hear_end(&mut self, disk: &mut Lasting) {
        let Some(ward) = &mut self.ward else { return };
        let Fact::Alive(life, name) = ward.fact else { return };
        let exit = match disk.kernel.find(name).map(|process| process.being) {
            Some(Being::Zombie(exit)) => exit,
            _ => Exit::Unknown,
        };
        disk.kernel.reap(name);
        ward.fact = Fact::Down(life);
        let id = ward.id;
        self.tell(id, Mail::Word(supervisor::Event::Exited(life, exit, None)));
    }

    fn tell(&mut self, id: WardId, mail: Mail) {
        if let Some(ward) = self.ward.as_mut().filter(|ward| ward.id == id)
            && let Some(minder) = &mut ward.minder
        {
            minder.mail.push_back(mail);
        }
    }

    /// Whether its supervisor is to read that it is to start.
    pub fn is_told_to_start(&self) -> bool {
        let minder = self.ward.as_ref().and_then(|ward| ward.minder.as_ref());
        let is_start = |mail: &Mail| matches!(mail, Mail::Order(NodeOrder::Start));
        minder.is_some_and(|minder| minder.mail.iter().any(is_start))
    }

    pub fn minder(&mut self) -> Option<&mut Minder> {
        self.ward.as_mut()?.minder.as_mut()
    }

    /// Whether the next alarm says that nothing more can be done: that comes long after SIGKILL.
    pub fn last_alarm_is_next(&self) -> bool {
        let entry = self.state.nodes.get(&name());
        entry.is_some_and(|entry| matches!(entry.place.step, Step::Stopping { holds: false, .. }))
    }

    /// Nothing is under way in it.
    pub fn is_idle(&self) -> bool {
        let minder = self.ward.as_ref().and_then(|ward| ward.minder.as_ref());
        let waits = minder.is_none_or(|minder| !minder.mail.is_empty() || minder.kill.is_some());
        !waits && self.post.is_empty() && self.jobs.is_empty() && self.dones.is_empty()
    }

    /// Whether whoever asked last for the node to be down was told that it is.
    pub fn is_answered_down(&self) -> bool {
        match self.state.nodes.get(&name()) {
            None => true,
            Some(entry) => {
                entry.goal != Goal::Run
                    && matches!(entry.place.step, Step::Idle)
                    && entry.status.state == NodeState::Stopped
            }
        }
    }

    /// Everything that its future depends on, in words that are the same whenever it is the same.
    pub fn essence(&self, base: Life) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let state = &self.state;
        let _ = write!(
            text,
            "{:?} {:?} {} {} {} ",
            state.configuration.as_ref().map(|it| &it.id),
            state.was_in_force,
            state.stopping_all,
            state.hurried,
            self.at_rest
        );
        let ticket = state.next_ticket;
        let back = |life: Life| base.0.wrapping_sub(life.0);
        if let Some(entry) = state.nodes.get(&name()) {
            let _ = write!(
                text,
                "{} {} {} {:?} {:?} {:?} {:?} {:?} {} {:?} ",
                version(&entry.node),
                entry.told_for_now,
                entry.start_unheard,
                entry.status.state,
                entry.status.pid,
                entry.goal,
                entry.place.step,
                entry.place.alarm().is_some(),
                ticket.wrapping_sub(entry.ticket),
                entry.next.as_ref().map(|node| version(node))
            );
        }
        let in_ward = |id: WardId| self.ward.as_ref().is_some_and(|ward| ward.id == id);
        if let Some(ward) = &self.ward {
            let fact = match &ward.fact {
                Fact::Down(life) => (0, back(*life), None, None),
                Fact::GivenUp(life) => (4, back(*life), None, None),
                Fact::Launching(life) => (1, back(*life), None, None),
                Fact::Alive(life, name) => (2, back(*life), Some(*name), None),
                Fact::Died(life, name, exit, _) => (3, back(*life), Some(*name), Some(*exit)),
                Fact::Crashed(life) => (5, back(*life), None, None),
            };
            let _ = write!(text, "{fact:?} {:?} {} {:?} ", ward.leader.map(back), ward.is_ready, few(ward.counted));
            if let Some(minder) = &ward.minder {
                let timers = [minder.probe, minder.kill, minder.retry].map(|life| life.map(back));
                let _ = write!(
                    text,
                    "{} {} {:?} {} {timers:?} ",
                    minder.state.essence(self.noon),
                    minder.version,
                    minder.ticket.map(|it| ticket.wrapping_sub(it)),
                    minder.for_now
                );
                minder.held.iter().for_each(|(report, _)| text += &written(report, ticket));
                minder.mail.iter().for_each(|mail| text += &mailed(mail, ticket, base));
            }
        }
        for post in &self.post {
            text += &match post {
                Post::Report(report, _) => written(report, ticket),
                Post::Launch(id, life, version, counted) => {
                    format!("L{} {} {version} {:?} ", in_ward(*id), back(*life), few(*counted))
                }
                Post::Waits(life, counted) => format!("W{} {:?} ", back(*life), few(*counted)),
                Post::Gone(id) => format!("G{} ", in_ward(*id)),
            };
        }
        for job in &self.jobs {
            text += &match job {
                Job::Launch { ward, life, version, before, counted } => {
                    let (before, counted) = (before.map(back), few(*counted));
                    format!("l{} {} {version} {before:?} {counted:?} ", in_ward(*ward), back(*life))
                }
                Job::Birth { ward, life, version, counted } => {
                    format!("b{} {} {version} {:?} ", in_ward(*ward), back(*life), few(*counted))
                }
                Job::Sweep { ward, life, leader } => format!("s{} {} {} ", in_ward(*ward), back(*life), back(*leader)),
                Job::Note { answer, life, found, counted } => {
                    let (answer, counted) = (answer.map(in_ward), counted.map(few));
                    format!("n{answer:?} {} {found:?} {counted:?} ", back(*life))
                }
                Job::Forget => "f ".to_owned(),
            };
        }
        for done in &self.dones {
            text += &match done {
                Done::Born(id, life, name) => format!("B{} {} {} ", in_ward(*id), back(*life), name.pid),
                Done::Failed(id, life, permanent) => format!("F{} {} {permanent} ", in_ward(*id), back(*life)),
                Done::Tell(id, mail) => format!("T{} {}", in_ward(*id), mailed(mail, ticket, base)),
            };
        }
        text
    }

    /// The names of processes that it holds on to.
    pub fn names(&mut self) -> Vec<&mut Name> {
        let fact = self.ward.as_mut().map(|ward| &mut ward.fact);
        let held = match fact {
            Some(Fact::Alive(_, name) | Fact::Died(_, name, ..)) => Some(name),
            _ => None,
        };
        let born = self.dones.iter_mut().filter_map(|done| match done {
            Done::Born(_, _, name) => Some(name),
            _ => None,
        });
        held.into_iter().chain(born).collect()
    }
}

/// How many restarts that supervisor counts.
pub fn counted(state: &supervisor::State, now: Instant) -> (u32, usize) {
    let Past { attempt, ago } = state.past(now);
    (attempt, ago.len())
}

fn past_of((attempt, recent): (u32, usize)) -> Past {
    Past { attempt, ago: vec![0; recent] }
}

/// Beyond the first restart the delays differ, and what comes of them does not.
pub fn few((attempt, recent): (u32, usize)) -> (u32, usize) {
    (attempt.min(1), recent)
}

/// Whether its next life is due some time, or was when it came to nothing.
pub fn is_due(record: &Record) -> bool {
    record.found == Found::Crashed || record.found == Found::Intended && record.counted.0 > 0
}

fn written(report: &NodeReport, ticket: u64) -> String {
    let asked = report.ticket.map(|it| ticket.wrapping_sub(it));
    format!("R{:?} {:?} {asked:?} ", report.new, report.pid)
}

fn mailed(mail: &Mail, ticket: u64, base: Life) -> String {
    use supervisor::Event as E;
    let back = |life: &Life| base.0.wrapping_sub(life.0);
    match mail {
        Mail::Order(NodeOrder::Stop { ticket: it, for_now }) => format!("o{} {for_now} ", ticket.wrapping_sub(*it)),
        Mail::Order(NodeOrder::Redefine(node)) => format!("r{} ", version(node)),
        Mail::Order(NodeOrder::Start) => "S ".to_owned(),
        Mail::Order(NodeOrder::Hurry) => "H ".to_owned(),
        Mail::Noted => "N ".to_owned(),
        Mail::Word(E::Launched(life, pid)) => format!("w{} {pid} ", back(life)),
        Mail::Word(E::LaunchFailed(life, failure)) => format!("x{} {} ", back(life), failure.permanent),
        Mail::Word(E::Exited(life, exit, _)) => format!("e{} {} ", back(life), exit.is_failure()),
        Mail::Word(E::Swept(life)) => format!("v{} ", back(life)),
        Mail::Word(other) => panic!("nobody mails {other:?}"),
    }
}

fn told_of(report: supervisor::Report, ticket: Option<u64>) -> NodeReport {
    let supervisor::Report { new, pid, exit, attempt, restarts, reason, output, .. } = report;
    let output = output.map(Box::new);
    NodeReport { node: name(), new, pid, exit, attempt, restarts, reason, output, ticket }
}

/// The terms under which the node runs.
pub type Terms = supervisor::Terms;

pub fn name() -> NodeName {
    NodeName::new("n").unwrap()
}

/// The node as that version defines it.
pub fn node(version: Version, terms: &Terms) -> Arc<Node> {
    let mut node = Node::new(name(), InstanceName::new("i").unwrap(), Role::Worker);
    node.command = vec!["program".into(), version.to_string()];
    (node.restart, node.stop_grace) = (terms.restart.clone(), terms.grace);
    Arc::new(node)
}

pub fn version(node: &Node) -> Version {
    if node.command[1] == "1" { 1 } else { 2 }
}

/// The configuration that has that version of the node.
pub fn configuration(version: Version, terms: &Terms) -> Configuration {
    let mut configuration = Configuration::empty(ConfigurationId::new(&format!("c{version}")).unwrap());
    configuration.instances = vec![Instance { name: InstanceName::new("i").unwrap(), host: None, port: None }];
    configuration.nodes = vec![node(version, terms)];
    configuration
}

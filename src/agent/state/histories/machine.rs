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
use crate::supervisor::state as supervisor;
use crate::supervisor::workshop::WardId;

/// What of the machine outlives the agent.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    pub kernel: Kernel,
    pub record: Option<Record>,
    pub in_force: Option<Version>,
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
    Report(NodeReport),
    Launch(WardId, Life, Version),
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
    },
    /// The same behind its intent.
    Birth {
        ward: WardId,
        life: Life,
        version: Version,
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
    Died(Life, Name, Exit),
}

#[derive(Debug, Clone)]
pub struct Ward {
    pub id: WardId,
    pub fact: Fact,
    leader: Option<Life>,
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
    held: VecDeque<NodeReport>,
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
            found.push(FoundNode {
                node: node(record.version, terms),
                pid: process.map(|name| name.pid),
                died: died.map(|(name, _)| name.pid),
                wanted: record.found != Found::Stopped,
                guessed: false,
                given_up: (record.found == Found::GivenUp).then(Text::default),
            });
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
                let mut ward = Ward { id, fact: Fact::Down(Life(0)), leader: None, minder: None };
                if let Some((record, process, died)) = self.adoptable.take() {
                    ward.leader = Some(record.life);
                    ward.fact = match (process, died) {
                        (Some(name), _) => Fact::Alive(record.life, name),
                        (None, Some((name, exit))) => Fact::Died(record.life, name, exit),
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
                    matches!(gone.fact, Fact::Down(_) | Fact::GivenUp(_)),
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
        let mut first = Vec::new();
        let state = match ward.fact {
            Fact::Down(life) => supervisor::State::stopped(life),
            Fact::GivenUp(life) => supervisor::State::given_up(life),
            Fact::Launching(life) => supervisor::State::launching(life),
            Fact::Alive(life, name) => supervisor::State::adopted(life, name.pid, self.noon),
            Fact::Died(life, name, exit) => {
                let mut state = supervisor::State::adopted(life, name.pid, self.noon);
                first = state.step(supervisor::Event::Exited(life, exit, None), self.noon, terms);
                ward.fact = Fact::Down(life);
                if state.told() == NodeState::Failed {
                    ward.fact = Fact::GivenUp(life);
                    self.jobs.push_back(Job::Note { answer: None, life, found: Found::GivenUp });
                }
                if state.told() == NodeState::Stopped {
                    self.jobs.push_back(Job::Note { answer: None, life, found: Found::Stopped });
                }
                state
            }
        };
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
        for effect in first {
            self.carry_out(effect, disk, terms);
        }
        if let Some(supervisor::Effect::Report(report)) = told {
            self.step(Event::Report(told_of(report, None)), disk, terms);
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
                return self.post.extend(told.map(Post::Report));
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
            F::Launch(life) => self.post.push_back(Post::Launch(ward.id, life, minder.version)),
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
            F::After(_, E::RetryDue(life)) => minder.retry = Some(life),
            F::After(_, other) => panic!("no timer is for {other:?}"),
            F::Report(report) => {
                minder.probe.take_if(|_| report.new != NodeState::Pending);
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
                    if let Fact::Down(last) | Fact::GivenUp(last) = ward.fact {
                        let is_given_up = found == Found::GivenUp;
                        ward.fact = if is_given_up { Fact::GivenUp(last) } else { Fact::Down(last) };
                    }
                    let life = minder.state.life();
                    minder.held.push_back(report);
                    self.jobs.push_back(Job::Note { answer: Some(ward.id), life, found });
                } else {
                    assert!(minder.held.is_empty(), "what is told later comes later");
                    self.post.push_back(Post::Report(report));
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
            Some(Post::Report(report)) => self.step(Event::Report(report), disk, terms),
            Some(Post::Launch(id, life, version)) => {
                let Some(ward) = self.ward.as_mut().filter(|ward| ward.id == id) else { return };
                ward.fact = Fact::Launching(life);
                self.jobs.push_back(Job::Launch { ward: id, life, version, before: ward.leader });
            }
            Some(Post::Gone(id)) => self.replace(id, disk, terms),
        }
    }

    fn replace(&mut self, id: WardId, disk: &mut Lasting, terms: &Terms) {
        let Some(definition) = self.state.node_in(id, &name()).cloned() else { return };
        let Some(ward) = self.ward.as_ref().filter(|ward| ward.id == id && ward.minder.is_none()) else { return };
        let (state, pid) = match ward.fact {
            Fact::Alive(_, name) | Fact::Died(_, name, _) => (NodeState::Running, Some(name.pid)),
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
            Some(Job::Launch { ward, life, version, before }) => {
                before.into_iter().for_each(|before| {
                    disk.kernel.strays.remove(&before);
                });
                disk.record = Some(Record { version, life, found: Found::Intended });
                self.jobs.push_front(Job::Birth { ward, life, version });
            }
            Some(Job::Birth { ward, life, version }) => match luck {
                Ok(()) => {
                    let name = disk.kernel.bear(life, version);
                    disk.record = Some(Record { version, life, found: Found::Launched(name) });
                    self.dones.push_back(Done::Born(ward, life, name));
                }
                Err(permanent) => self.dones.push_back(Done::Failed(ward, life, permanent)),
            },
            Some(Job::Sweep { ward, life, leader }) => {
                disk.kernel.strays.remove(&leader);
                self.dones.push_back(Done::Tell(ward, Mail::Word(supervisor::Event::Swept(life))));
            }
            Some(Job::Note { answer, life, found }) => {
                disk.record.iter_mut().for_each(|record| record.note(life, found));
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
                Fact::Died(life, name, exit) => (3, back(*life), Some(*name), Some(*exit)),
            };
            let _ = write!(text, "{fact:?} {:?} ", ward.leader.map(back));
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
                minder.held.iter().for_each(|report| text += &written(report, ticket));
                minder.mail.iter().for_each(|mail| text += &mailed(mail, ticket, base));
            }
        }
        for post in &self.post {
            text += &match post {
                Post::Report(report) => written(report, ticket),
                Post::Launch(id, life, version) => format!("L{} {} {version} ", in_ward(*id), back(*life)),
                Post::Gone(id) => format!("G{} ", in_ward(*id)),
            };
        }
        for job in &self.jobs {
            text += &match job {
                Job::Launch { ward, life, version, before } => {
                    format!("l{} {} {version} {:?} ", in_ward(*ward), back(*life), before.map(back))
                }
                Job::Birth { ward, life, version } => format!("b{} {} {version} ", in_ward(*ward), back(*life)),
                Job::Sweep { ward, life, leader } => format!("s{} {} {} ", in_ward(*ward), back(*life), back(*leader)),
                Job::Note { answer, life, found } => format!("n{:?} {} {found:?} ", answer.map(in_ward), back(*life)),
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
            Some(Fact::Alive(_, name) | Fact::Died(_, name, _)) => Some(name),
            _ => None,
        };
        let born = self.dones.iter_mut().filter_map(|done| match done {
            Done::Born(_, _, name) => Some(name),
            _ => None,
        });
        held.into_iter().chain(born).collect()
    }
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

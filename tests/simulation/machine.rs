//! One machine: an agent and its supervisors, decided by their real states, over processes made up by chance.
//!
//! Mail between the agent and its supervisors takes a moment and keeps its order. The agent may be killed, and a
//! supervisor may panic; processes and records stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use watchpost::agent::outbox::{Bounds, Outbox};
use watchpost::agent::state::{Effect, Event, FoundNode, State};
use watchpost::launch::zeek::Objection;
use watchpost::message::agent::{ReadBlobsRequest, StageBundlesRequest, ToAgent, ToController};
use watchpost::message::node::{NodeOrder, NodeReport};
use watchpost::model::{
    Configuration, ConfigurationId, Exit, InstanceName, Life, Node, NodeName, NodeState, NodeStatus, Now, Text,
};
use watchpost::plan::order::{STOP_PATIENCE, rank};
use watchpost::supervisor::history::Past;
use watchpost::supervisor::state as supervisor;
use watchpost::supervisor::workshop::WardId;

use crate::chance::Chance;
use crate::files::{Files, For};

pub struct Machine {
    pub name: InstanceName,
    pub all_stopped: bool,
    /// Whether processes misbehave.
    rough: bool,
    chance: Chance,
    bounds: Bounds,
    epoch: u64,
    /// How many agents there were.
    runs: u64,
    /// The agent's news on disk: what it had before it sent anything.
    spool: Outbox,
    agent: Option<State>,
    wards: BTreeMap<WardId, Ward>,
    records: BTreeMap<NodeName, Record>,
    files: Files,
    /// The configuration that the agent wrote down last.
    in_force: Option<ConfigurationId>,
    processes: BTreeMap<NodeName, Process>,
    due: BTreeMap<(Instant, u64), Due>,
    count: u64,
    /// When the last mail within the machine arrives: later mail comes later.
    mail_until: Option<Instant>,
    out: Vec<ToController>,
    /// Every order to a supervisor, with the node: what tests look at.
    pub told: Vec<(NodeName, NodeOrder)>,
}

struct Ward {
    node: Arc<Node>,
    state: supervisor::State,
    ticket: Option<u64>,
    launching: Option<Life>,
    /// Its supervisor has just taken the place of one that panicked.
    is_successor: bool,
    /// Until when others have to wait for it on its way up, or down.
    rises_until: Option<Instant>,
    falls_until: Option<Instant>,
}

struct Record {
    node: Arc<Node>,
    life: Life,
    pid: Option<u32>,
    stopped: bool,
    given_up: Option<Text>,
    /// Its crashes so far.
    past: Past,
    /// When it is to be started again, if it waits for that.
    waits: Option<Instant>,
    ready: bool,
}

impl Record {
    /// What an agent that returns makes of it.
    fn found(&self, runs: bool) -> NodeState {
        match self {
            Self { ready: true, .. } if runs => NodeState::Running,
            _ if runs => NodeState::Pending,
            Self { stopped: true, .. } => NodeState::Stopped,
            Self { given_up: Some(_), .. } => NodeState::Failed,
            Self { waits: Some(_), .. } => NodeState::Crashed,
            _ => NodeState::Stopped,
        }
    }
}

struct Process {
    pid: u32,
    life: Life,
    /// Ends when it is asked to.
    polite: bool,
    /// How long after SIGKILL it is gone.
    dies_within: Duration,
}

#[derive(Debug)]
enum Due {
    Order(WardId, NodeOrder),
    Report(NodeReport),
    Prepared(u64),
    Supervisor(WardId, supervisor::Event),
    Born(WardId, Life),
    Exit(NodeName, u32, Exit),
}

/// A node with this variable is never ready.
pub const FAILS: &str = "FAILS";

/// What each agent of a machine has locked in its turn.
const PLACE: u64 = 1;

impl Machine {
    pub fn new(name: &str, chance: Chance, bounds: Bounds) -> Self {
        let name = InstanceName::new(name).unwrap();
        let outbox = Outbox::new(bounds);
        let agent = Some(State::new(name.clone(), 1, outbox.clone()).run_by(1, 1, PLACE));
        Self {
            name,
            rough: true,
            all_stopped: false,
            chance,
            bounds,
            epoch: 1,
            runs: 1,
            spool: outbox,
            agent,
            wards: BTreeMap::new(),
            records: BTreeMap::new(),
            files: Files::default(),
            in_force: None,
            processes: BTreeMap::new(),
            due: BTreeMap::new(),
            count: 0,
            mail_until: None,
            out: Vec::new(),
            told: Vec::new(),
        }
    }

    // --- what others do to it ---

    pub fn obey(&mut self, order: ToAgent, now: Now) {
        if let ToAgent::ReadBlobsResponse(response) = order {
            let asks = self.files.pieces(response);
            self.ask_for_files(asks, now);
            return self.speak();
        }
        if !matches!(order, ToAgent::NewsReceived(_)) {
            // Whom it sends down again nobody has to wait for.
            self.wards.values_mut().for_each(|ward| ward.rises_until = None);
        }
        self.agent_step(Event::Order(order), now);
    }

    pub fn agent_step(&mut self, event: Event, now: Now) {
        let Some(agent) = &mut self.agent else { return };
        let is_up = event == Event::LinkUp;
        if event == Event::LinkDown {
            self.files.link_down();
        }
        let effects = agent.step(event, now);
        effects.into_iter().for_each(|effect| self.perform(effect, now));
        if is_up {
            let asks = self.files.link_up();
            self.ask_for_files(asks, now);
        }
        self.speak();
    }

    /// Asks for files, and goes on with whoever waits for none any more.
    fn ask_for_files(&mut self, asks: Vec<ReadBlobsRequest>, now: Now) {
        let Some(agent) = &mut self.agent else { return };
        asks.into_iter().for_each(|request| agent.ask(request));
        for who in self.files.take_done() {
            match who {
                For::Staging(reqid) => agent.answer_staged(reqid, Ok(())),
                For::Preparation(number) => {
                    let after = self.chance.millis(0..200);
                    self.count += 1;
                    self.due.insert((now.mono + after, self.count), Due::Prepared(number));
                }
            }
        }
    }

    fn speak(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        // A disk that is full now and then: what is said is then known to the controller alone.
        if !self.chance.percent(10) {
            self.spool = agent.outbox().clone();
        }
        while let Some(mail) = agent.outgoing() {
            self.out.extend(mail);
        }
    }

    /// The mail for the controller since it was last asked for.
    pub fn take_mail(&mut self) -> Vec<ToController> {
        std::mem::take(&mut self.out)
    }

    /// The agent's process ends at once, with everything it had in memory.
    pub fn kill_agent(&mut self) {
        self.agent = None;
        self.files.killed();
        self.wards.clear();
        self.out.clear();
        self.due.retain(|_, due| matches!(due, Due::Exit(..)));
    }

    /// The configuration that its agent says is in force.
    pub fn in_force(&self) -> Option<&ConfigurationId> {
        self.in_force.as_ref()
    }

    pub fn agent_is_up(&self) -> bool {
        self.agent.is_some()
    }

    /// A new agent takes up what the records tell of, and its news if that is still there.
    pub fn start_agent(&mut self, now: Now) {
        let outbox = match self.chance.percent(20) {
            true => {
                self.epoch += 1;
                Outbox::new(self.bounds)
            }
            false => Outbox::restore(self.bounds, self.spool.last(), &self.spool.kept()),
        };
        self.runs += 1;
        self.agent = Some(State::new(self.name.clone(), self.epoch, outbox).run_by(1, self.runs, PLACE));
        if let Some(id) = self.in_force.clone() {
            self.agent_step(Event::WasInForce(id), now);
        }
        let found = self.records.iter().map(|(name, record)| {
            let process = self.processes.get(name).filter(|process| Some(process.pid) == record.pid);
            let pid = process.map(|process| process.pid);
            let (node, state) = (Arc::clone(&record.node), record.found(pid.is_some()));
            let reason = record.given_up.clone().filter(|_| state == NodeState::Failed).unwrap_or_default();
            FoundNode { node, state, pid, reason, wanted: !record.stopped, guessed: false }
        });
        self.agent_step(Event::Found(found.collect()), now);
    }

    /// One of the supervisors panics, and its successor knows only the facts.
    pub fn panic_a_supervisor(&mut self, now: Now) {
        let wards: Vec<_> = self.wards.keys().copied().collect();
        if wards.is_empty() {
            return;
        }
        let id = *self.chance.pick(&wards);
        // What it said before arrives before the news of its end; orders and timers go with it.
        let said: Vec<_> =
            self.due.iter().filter(|(_, due)| matches!(due, Due::Report(_))).map(|(at, _)| *at).collect();
        for at in said {
            if let Some(Due::Report(report)) = self.due.remove(&at) {
                self.hear(report, now);
            }
        }
        self.due.retain(|_, due| !matches!(due, Due::Order(of, _) | Due::Supervisor(of, _) if *of == id));
        let Some(ward) = self.wards.get_mut(&id) else { return };
        let name = ward.node.name.clone();
        let process = self.processes.get(&name);
        ward.rises_until = None;
        let told = ward.state.told();
        let past = ward.state.past(now.mono);
        let (state, found, pid) = match (process, ward.launching) {
            (Some(Process { life, pid, .. }), _) if self.records.get(&name).is_some_and(|record| !record.ready) => {
                (supervisor::State::pending(*life, *pid), NodeState::Pending, Some(*pid))
            }
            (Some(Process { life, pid, .. }), _) => {
                (supervisor::State::adopted(*life, *pid, now.mono), NodeState::Running, Some(*pid))
            }
            (None, Some(life)) => (supervisor::State::launching(life), NodeState::Pending, None),
            (None, None) if told == NodeState::Crashed => {
                (supervisor::State::crashed(ward.state.life()), NodeState::Crashed, None)
            }
            (None, None) if told == NodeState::Failed => {
                (supervisor::State::given_up(ward.state.life()), NodeState::Failed, None)
            }
            (None, None) => (supervisor::State::stopped(ward.state.life()), NodeState::Stopped, None),
        };
        let life = state.life();
        (ward.state, ward.ticket, ward.is_successor) = (state.with_past(&past, 0, now.mono), None, true);
        self.take_up(id, &name, life, found, now);
        self.agent_step(Event::Revived { node: name, state: found, pid }, now);
        if let Some(ward) = self.wards.get_mut(&id) {
            // What was found counts as up, or as failed.
            (ward.is_successor, ward.rises_until) = (false, None);
        }
    }

    /// One of the processes dies at once, if there is any.
    pub fn kill_a_process(&mut self, now: Now) {
        let names: Vec<_> = self.processes.keys().cloned().collect();
        if !names.is_empty() {
            let name = self.chance.pick(&names).clone();
            let pid = self.processes[&name].pid;
            self.at(now.mono, Due::Exit(name, pid, Exit::Signal { number: 9, core_dumped: false }));
        }
    }

    /// From now on every process behaves, also those that run already.
    pub fn calm_down(&mut self) {
        self.rough = false;
        for process in self.processes.values_mut() {
            (process.polite, process.dies_within) = (true, Duration::ZERO);
        }
    }

    // --- what happens by itself ---

    pub fn next_due(&self) -> Option<Instant> {
        let alarm = self.agent.as_ref().and_then(State::next_alarm);
        self.due.keys().next().map(|(at, _)| *at).into_iter().chain(alarm).min()
    }

    /// Lets the next thing happen that is due by now; `false` if there is none.
    pub fn happen(&mut self, now: Now) -> bool {
        if let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now.mono) {
            match entry.remove() {
                Due::Order(ward, order) => self.take_order(ward, order, now),
                Due::Report(report) => self.hear(report, now),
                Due::Prepared(number) => self.prepared(number, now),
                Due::Supervisor(ward, event) => self.drive(ward, event, now),
                Due::Born(ward, life) => self.born(ward, life, now),
                Due::Exit(name, pid, exit) => self.exited(&name, pid, exit, now),
            }
            return true;
        }
        if self.agent.as_ref().and_then(State::next_alarm).is_some_and(|at| at <= now.mono) {
            self.agent_step(Event::Tick, now);
            return true;
        }
        false
    }

    // --- what is true ---

    /// The processes that run, by node.
    pub fn running(&self) -> BTreeMap<&NodeName, u32> {
        self.processes.iter().map(|(name, process)| (name, process.pid)).collect()
    }

    /// What the agent says of its nodes; empty while it is down.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        self.agent.as_ref().map_or_else(Vec::new, State::statuses)
    }

    /// Panics unless those of its nodes that run run as they are defined here.
    pub fn assert_runs(&self, share: &Configuration) {
        for name in self.processes.keys() {
            let defined = share.nodes.iter().find(|node| node.name == *name);
            assert_eq!(defined, self.records.get(name).map(|record| &record.node), "on {}", self.name);
        }
    }

    /// Panics unless the agent says exactly what its supervisors told it, and they what is so.
    pub fn assert_truthful(&self) {
        let told: BTreeMap<_, _> =
            self.wards.values().map(|ward| (ward.node.name.clone(), (ward.state.told(), ward.state.pid()))).collect();
        let said: BTreeMap<_, _> =
            self.statuses().into_iter().map(|status| (status.node, (status.state, status.pid))).collect();
        assert_eq!(said, told, "the agent of {} says what its supervisors told", self.name);
        let pids = |all: &BTreeMap<NodeName, (NodeState, Option<u32>)>| -> BTreeSet<_> {
            all.values().filter_map(|(_, pid)| *pid).collect()
        };
        let running: BTreeSet<_> = self.running().into_values().collect();
        assert_eq!(pids(&told), running, "what runs on {} is minded", self.name);
    }

    // --- the agent's hands ---

    fn perform(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Supervise(ward, node) => self.supervise(ward, node, now),
            Effect::Tell(ward, order) => {
                self.note_order(ward, &order, now.mono);
                let at = self.next_mail(now.mono);
                self.at(at, Due::Order(ward, order));
            }
            Effect::Dismiss(ward, name) => {
                assert!(!self.processes.contains_key(&name), "no orphan is left of {name}");
                let gone = self.wards.remove(&ward);
                assert!(gone.is_none_or(|ward| ward.launching.is_none()), "nothing is being born in {name}");
                self.records.remove(&name);
            }
            Effect::ReadOutput(request) => {
                if let Some(agent) = &mut self.agent {
                    agent.answer_output(&request, Ok(Default::default()));
                }
            }
            Effect::ReadPiece(request) => {
                if let Some(agent) = &mut self.agent {
                    agent.answer_piece(request.reqid, Ok(Default::default()));
                }
            }
            Effect::Inquire(inquiry) => {
                if let Some(agent) = &mut self.agent {
                    agent.answer_inquiry(inquiry.reqid, inquiry.known);
                }
            }
            Effect::ReadCrashes(request) => {
                if let Some(agent) = &mut self.agent {
                    agent.answer_crashes(request.reqid, Ok(Vec::new()), None);
                }
            }
            Effect::Define(..) => {}
            Effect::Remember(id) => self.in_force = Some(id),
            Effect::Refused(_) => {}
            Effect::Prepare(number, preparation) => {
                let asks = self.files.have(For::Preparation(number), BTreeSet::new(), &preparation.with_files);
                self.ask_for_files(asks, now);
            }
            Effect::TryFiles(..) | Effect::UseFiles(_) | Effect::Archive(_) | Effect::MindLogs { .. } => {
                unreachable!("every node here has a command")
            }
            Effect::Stage(StageBundlesRequest { reqid, bundles }) => {
                let asks = self.files.have(For::Staging(reqid), bundles, &[]);
                self.ask_for_files(asks, now);
            }
            Effect::KeepFiles { nodes, gone } => {
                self.files.keep(&nodes, &gone);
                let runs = self.records.iter().filter(|(name, _)| self.processes.contains_key(*name));
                runs.for_each(|(_, record)| self.files.assert_there(&record.node, "as long as it runs"));
            }
            Effect::Inspect(..) => unreachable!("nobody asks for a plan here"),
            Effect::EndLink(why) => panic!("{why}"),
            Effect::AllStopped => {
                assert!(self.processes.is_empty() || self.rough, "all is stopped on {}", self.name);
                self.all_stopped = true;
            }
        }
    }

    fn prepared(&mut self, number: u64, now: Now) {
        let objections = match self.rough && self.chance.percent(10) {
            true => vec![Objection::of_all("no luck")],
            false => Vec::new(),
        };
        self.agent_step(Event::Prepared(number, objections), now);
    }

    fn supervise(&mut self, id: WardId, node: Arc<Node>, now: Now) {
        let (record, process) = (self.records.get(&node.name), self.processes.get(&node.name));
        let life = record.map_or_else(Life::default, |record| record.life);
        let found = record.map_or(NodeState::Stopped, |record| record.found(process.is_some()));
        let state = match (found, process) {
            (NodeState::Running, Some(process)) => supervisor::State::adopted(process.life, process.pid, now.mono),
            (_, Some(process)) => supervisor::State::pending(process.life, process.pid),
            (NodeState::Failed, None) => supervisor::State::given_up(life),
            (NodeState::Crashed, None) => supervisor::State::crashed(life),
            (_, None) => supervisor::State::stopped(life),
        };
        let past = record.map_or_else(Past::default, |record| record.past.clone());
        let (name, life) = (node.name.clone(), state.life());
        let state = state.with_past(&past, 0, now.mono);
        let ward = Ward {
            node,
            state,
            ticket: None,
            launching: None,
            is_successor: false,
            rises_until: None,
            falls_until: None,
        };
        self.wards.insert(id, ward);
        self.take_up(id, &name, life, found, now);
    }

    /// A supervisor goes on with what it found: waits for the sign of who is not ready, or for the next life.
    fn take_up(&mut self, id: WardId, name: &NodeName, life: Life, found: NodeState, now: Now) {
        let waits = self.records.get(name).and_then(|record| record.waits);
        match found {
            NodeState::Pending if self.processes.contains_key(name) => {
                self.carry_out(id, supervisor::Effect::AwaitReady(life), now);
            }
            NodeState::Crashed => {
                let at = waits.unwrap_or(now.mono).max(now.mono);
                self.at(at, Due::Supervisor(id, supervisor::Event::RetryDue(life)));
            }
            _ => {}
        }
    }

    /// Checks that the order keeps the order of roles.
    fn note_order(&mut self, id: WardId, order: &NodeOrder, now: Instant) {
        let Some(ward) = self.wards.get(&id) else { return };
        let (name, role) = (ward.node.name.clone(), rank(ward.node.role));
        let waits_for = |is_before: fn(&usize, &usize) -> bool, until: fn(&Ward) -> Option<Instant>| {
            let mut others = self.wards.values().filter(|other| is_before(&rank(other.node.role), &role));
            others.find(|other| until(other).is_some_and(|until| until > now)).map(|other| other.node.name.clone())
        };
        match order {
            NodeOrder::Start if ward.is_successor => {} // said again, whatever it runs
            NodeOrder::Start => {
                let before = waits_for(usize::lt, |ward| ward.rises_until);
                assert_eq!(before, None, "{name} starts when those before it are up or overdue");
            }
            NodeOrder::Stop { .. } if ward.is_successor => {}
            // Told again, since what is to become of it has changed: its turn had come before.
            NodeOrder::Stop { .. } if ward.falls_until.is_some() => {}
            NodeOrder::Stop { .. } => {
                let before = waits_for(usize::gt, |ward| ward.falls_until);
                assert_eq!(before, None, "{name} stops when those after it are down or overdue");
            }
            NodeOrder::Hurry | NodeOrder::Redefine(_) => {}
        }
        if let Some(ward) = self.wards.get_mut(&id) {
            match order {
                NodeOrder::Start if ward.is_successor => {}
                NodeOrder::Start => ward.rises_until = Some(now + ward.node.ready_within()),
                NodeOrder::Stop { .. } => {
                    ward.rises_until = None;
                    // Told again, it has no more time than before.
                    ward.falls_until.get_or_insert(now + STOP_PATIENCE.min(ward.node.stop_grace));
                }
                NodeOrder::Redefine(node) => ward.node = Arc::clone(node),
                NodeOrder::Hurry => {}
            }
        }
        self.told.push((name, order.clone()));
    }

    fn hear(&mut self, report: NodeReport, now: Now) {
        if let Some(ward) = self.wards.values_mut().find(|ward| ward.node.name == report.node) {
            match report.new {
                NodeState::Pending => {
                    let is_awaited = ward.rises_until.is_some_and(|until| until > now.mono);
                    ward.rises_until = is_awaited.then(|| now.mono + ward.node.ready_within());
                }
                NodeState::Stopped => (ward.rises_until, ward.falls_until) = (None, None),
                _ => ward.rises_until = None,
            }
        }
        self.agent_step(Event::Report(report), now);
    }

    // --- supervisors ---

    fn take_order(&mut self, id: WardId, order: NodeOrder, now: Now) {
        let event = match order {
            NodeOrder::Start => supervisor::Event::Start,
            NodeOrder::Stop { ticket, .. } => {
                if let Some(ward) = self.wards.get_mut(&id) {
                    ward.ticket = Some(ticket);
                }
                supervisor::Event::Stop
            }
            NodeOrder::Hurry => supervisor::Event::Hurry,
            NodeOrder::Redefine(_) => return,
        };
        self.drive(id, event, now);
    }

    fn drive(&mut self, id: WardId, event: supervisor::Event, now: Now) {
        let Some(ward) = self.wards.get_mut(&id) else { return };
        let terms = supervisor::Terms { known: true, restart: ward.node.restart.clone(), grace: ward.node.stop_grace };
        let effects = ward.state.step(event, now.mono, &terms);
        effects.into_iter().for_each(|effect| self.carry_out(id, effect, now));
    }

    fn carry_out(&mut self, id: WardId, effect: supervisor::Effect, now: Now) {
        use supervisor::{Effect as F, Event as E};
        let Some(ward) = self.wards.get_mut(&id) else { return };
        let name = ward.node.name.clone();
        match effect {
            F::Launch(life) => {
                assert!(!self.processes.contains_key(&name), "{name} never has two processes");
                assert_eq!(ward.launching.replace(life), None, "{name} never has two launches");
                let node = Arc::clone(&ward.node);
                self.files.assert_there(&node, "when it is launched");
                let past = ward.state.past(now.mono);
                let (pid, stopped, given_up, waits, ready) = (None, false, None, None, false);
                let record = Record { node, life, pid, stopped, given_up, past, waits, ready };
                self.records.insert(name, record);
                let hangs = self.rough && self.chance.percent(3);
                let after = self.chance.millis(if hangs { 1000..20_000 } else { 1..30 });
                self.at(now.mono + after, Due::Born(id, life));
            }
            F::Terminate(_) => {
                if let Some(Process { pid, polite: true, .. }) = self.processes.get(&name) {
                    let (pid, after) = (*pid, self.chance.millis(0..200));
                    self.at(now.mono + after, Due::Exit(name, pid, Exit::Status(0)));
                }
            }
            F::Kill(_) => {
                if let Some(Process { pid, dies_within, .. }) = self.processes.get(&name) {
                    let exit = Exit::Signal { number: 9, core_dumped: false };
                    let due = Due::Exit(name, *pid, exit);
                    self.at(now.mono + *dies_within, due);
                }
            }
            F::Sweep(life) => {
                let after = self.chance.millis(0..30);
                self.at(now.mono + after, Due::Supervisor(id, E::Swept(life)));
            }
            F::AwaitReady(life) => {
                let slow = self.rough && self.chance.percent(10);
                let after = self.chance.millis(if slow { 1000..20_000 } else { 10..300 });
                let never = ward.node.env.contains_key(FAILS) || slow && self.chance.percent(30);
                if !never {
                    self.at(now.mono + after, Due::Supervisor(id, E::Ready(life)));
                }
                if never || self.rough && self.chance.percent(5) {
                    let after = self.chance.millis(1000..20_000);
                    self.at(now.mono + after, Due::Supervisor(id, E::Hangs(life, "no sign of life".into())));
                }
            }
            F::After(Duration::ZERO, event) => self.drive(id, event, now),
            F::After(delay, event) => {
                if let (E::RetryDue(life), Some(record)) = (&event, self.records.get_mut(&name)) {
                    (record.life, record.past, record.pid) = (*life, ward.state.past(now.mono), None);
                    record.waits = Some(now.mono + delay);
                }
                self.at(now.mono + delay, Due::Supervisor(id, event));
            }
            F::Complain(_) => {}
            F::Report(report) => {
                let ticket = ward.ticket.take_if(|_| report.new == NodeState::Stopped);
                if let Some(record) = self.records.get_mut(&name).filter(|_| report.new == NodeState::Stopped) {
                    record.stopped = true;
                }
                if let Some(record) = self.records.get_mut(&name).filter(|_| report.new == NodeState::Failed) {
                    record.given_up = Some(report.reason.clone());
                }
                if let Some(record) = self.records.get_mut(&name) {
                    record.ready |= report.new == NodeState::Running;
                    record.waits = record.waits.filter(|_| report.new == NodeState::Crashed);
                }
                let supervisor::Report { new, pid, exit, attempt, restarts, reason, output, .. } = report;
                let report = NodeReport {
                    node: name,
                    new,
                    pid,
                    exit,
                    attempt,
                    restarts,
                    reason,
                    output: output.map(Box::new),
                    ticket,
                };
                let at = self.next_mail(now.mono);
                self.at(at, Due::Report(report));
            }
        }
    }

    // --- processes ---

    fn born(&mut self, id: WardId, life: Life, now: Now) {
        let Some(ward) = self.wards.get_mut(&id) else { return };
        assert_eq!(ward.launching.take(), Some(life));
        let name = ward.node.name.clone();
        if self.rough && self.chance.percent(8) {
            let permanent = self.chance.percent(30);
            let failure = supervisor::LaunchFailure { reason: "no luck".into(), permanent };
            return self.drive(id, supervisor::Event::LaunchFailed(life, failure), now);
        }
        self.count += 1;
        let pid = 1000 + u32::try_from(self.count).unwrap();
        let polite = !self.rough || self.chance.percent(85);
        let lingers = self.rough && self.chance.percent(10);
        let dies_within = self.chance.millis(if lingers { 1000..15_000 } else { 0..50 });
        self.processes.insert(name.clone(), Process { pid, life, polite, dies_within });
        if let Some(record) = self.records.get_mut(&name) {
            record.pid = Some(pid);
        }
        if self.rough && self.chance.percent(20) {
            let (after, status) = (self.chance.millis(0..20_000), self.chance.below(2) as i32);
            self.at(now.mono + after, Due::Exit(name, pid, Exit::Status(status)));
        }
        self.drive(id, supervisor::Event::Launched(life, pid), now);
    }

    fn exited(&mut self, name: &NodeName, pid: u32, exit: Exit, now: Now) {
        let Some(process) = self.processes.get(name).filter(|process| process.pid == pid) else { return };
        let life = process.life;
        self.processes.remove(name);
        let minder = self.wards.iter().find(|(_, ward)| ward.node.name == *name).map(|(id, _)| *id);
        if let Some(id) = minder {
            self.drive(id, supervisor::Event::Exited(life, exit, None), now);
        }
    }

    // --- helpers ---

    fn at(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    fn next_mail(&mut self, now: Instant) -> Instant {
        let at = now + self.chance.millis(0..4);
        let at = self.mail_until.map_or(at, |until| until.max(at));
        self.mail_until = Some(at);
        at
    }
}

//! What one agent decides: which nodes should run, in which order they are started and stopped, and what it answers.
//!
//! Every order is a wish about nodes, kept until each node has come to what was wished or cannot. Nodes move one by
//! one through [`Step`]: the order of roles only decides when a step may begin, and a node that does not move on in
//! time stops holding up the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::jobs::{Jobs, Kind, Wish};
use super::order::{Order, Place, Step};
use super::outbox::{Bounds, Item, Outbox};
use crate::message::agent::*;
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::{
    Configuration, ConfigurationId, InstanceName, Node, NodeName, NodeState, NodeStatus, Now, Outcome, Output,
    RequestId, Timestamp,
};
use crate::plan::order::{KILL_MARGIN, STOP_PATIENCE};
use crate::plan::{self, NodeChange};
use crate::supervisor::workshop::WardId;

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    instance: InstanceName,
    epoch: u64,
    /// In force. Kept in memory only: the nodes' records tell a later agent what runs.
    configuration: Option<Configuration>,
    /// In force when an earlier run of the agent ended.
    was_in_force: Option<ConfigurationId>,
    nodes: BTreeMap<NodeName, Entry>,
    wards: BTreeMap<WardId, NodeName>,
    next_ward: u64,
    next_ticket: u64,
    jobs: Jobs,
    order: Order,
    outbox: Outbox,
    /// The first word on a new link.
    hello: Option<ToController>,
    /// Not numbered, and lost with the link. Sent behind the news, so that whoever has an answer has what led to it.
    answers: Vec<ToController>,
    linked: bool,
    stopping_all: bool,
    /// Somebody waits for [`Effect::AllStopped`].
    asked_for_rest: bool,
    /// Nobody waits for a grace any more until all is stopped.
    hurried: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    node: Arc<Node>,
    ward: WardId,
    status: NodeStatus,
    goal: Goal,
    place: Place,
    /// The definition it gets once it is down.
    next: Option<Arc<Node>>,
    /// What it wrote last before it failed.
    output: Option<Output>,
    /// The last order to stop it. Only the report that names it says that nothing runs and nothing is being born.
    ticket: u64,
}

/// What a node is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    /// Down, until somebody asks.
    Rest,
    /// Down, and out of the configuration.
    Leave,
}

/// What happens to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Order(ToAgent),
    Report(NodeReport),
    /// Something that a person may have to mend.
    Trouble(Option<NodeName>, String),
    /// The supervisor of this node panicked; its successor found this.
    Revived {
        node: NodeName,
        state: NodeState,
        pid: Option<u32>,
    },
    /// Everything that was found on disk at start.
    Found(Vec<FoundNode>),
    /// Found on disk at start: the configuration that was in force.
    WasInForce(ConfigurationId),
    LinkUp,
    LinkDown,
    /// Stop everything; [`Effect::AllStopped`] tells when it is done.
    StopAll,
    /// Wait for no grace any more.
    Hurry,
    /// The time of [`State::next_alarm`] has come.
    Tick,
}

/// A node that an earlier agent had.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundNode {
    pub node: Arc<Node>,
    /// Set if it runs.
    pub pid: Option<u32>,
    /// Whether it was to run.
    pub wanted: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give this ward a supervisor.
    Supervise(WardId, Arc<Node>),
    Tell(WardId, NodeOrder),
    /// The node is gone for good: let go of its supervisor.
    Dismiss(WardId, NodeName),
    /// Keep this for the next run of the agent: the configuration in force.
    Remember(ConfigurationId),
    /// Read the last lines, and answer by [`State::answer_output`].
    ReadOutput(GetOutputRequest),
    /// The controller will have nothing to do with this agent, for this reason.
    Refused(String),
    AllStopped,
}

impl State {
    /// An agent without nodes. `epoch` names this run of it.
    pub fn new(instance: InstanceName, epoch: u64, bounds: Bounds) -> Self {
        Self {
            jobs: Jobs::new(instance.clone()),
            instance,
            epoch,
            configuration: None,
            was_in_force: None,
            nodes: BTreeMap::new(),
            wards: BTreeMap::new(),
            next_ward: 0,
            next_ticket: 0,
            order: Order::default(),
            outbox: Outbox::new(bounds),
            hello: None,
            answers: Vec::new(),
            linked: false,
            stopping_all: false,
            asked_for_rest: false,
            hurried: false,
        }
    }

    /// Decides. What is to be said comes out of [`State::outgoing`].
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let fx = &mut effects;
        match event {
            Event::Order(order) => self.obey(order, now, fx),
            Event::Report(report) => self.report(report, now, fx),
            Event::Trouble(node, msg) => self.notify_error(node, msg, now.wall),
            Event::Revived { node, state, pid } => self.revived(node, state, pid, now, fx),
            // All at once, so that the order of roles is kept among them.
            Event::Found(nodes) => nodes.into_iter().for_each(|node| self.found(node, now.wall, fx)),
            Event::WasInForce(id) => self.was_in_force = Some(id),
            Event::LinkUp => self.link_up(),
            Event::LinkDown => self.link_down(),
            Event::StopAll => {
                (self.stopping_all, self.asked_for_rest) = (true, true);
                self.each(|me, name| me.want_to_rest(name));
            }
            Event::Hurry => {
                self.hurried = self.stopping_all;
                fx.extend(self.nodes.values().filter(|entry| entry.is_stopping()).map(Entry::hurry));
            }
            Event::Tick => self.tick(now),
        }
        self.advance(now, &mut effects);
        let done = self.jobs.take_done();
        done.into_iter().for_each(|answer| self.answer(answer));
        if self.asked_for_rest && self.nodes.values().all(Entry::is_at_rest) {
            self.asked_for_rest = false;
            effects.push(Effect::AllStopped);
        }
        effects
    }

    /// When [`Event::Tick`] is due, if at all.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.order.first_alarm().map(|(at, _)| at)
    }

    /// What may go to the controller now, in order. Answers wait for the news that led to them.
    pub fn outgoing(&mut self) -> Vec<ToController> {
        if !self.linked {
            return Vec::new();
        }
        let batch = self.outbox.next_batch();
        let mut mail = batch.news;
        mail.splice(..0, self.hello.take());
        if let Some(seq) = batch.snapshot {
            let configuration = self.configuration.as_ref().map(|configuration| configuration.id.clone());
            mail.push(NotifySnapshot { epoch: self.epoch, seq, configuration, nodes: self.statuses() }.into());
        }
        if self.outbox.all_is_sent() {
            mail.append(&mut self.answers);
        }
        mail
    }

    /// Answers a [`GetOutputRequest`] with what was read.
    pub fn answer_output(&mut self, request: &GetOutputRequest, read: Result<Output, String>) {
        let mut outcome = Outcome::node_done(&self.instance, &request.node);
        match read {
            Ok(output) => outcome.output = Some(output),
            Err(error) => outcome.error = Some(error),
        }
        self.answer(GetOutputResponse { reqid: request.reqid.clone(), outcome });
    }

    /// Whose agent this is.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// Every node, sorted by name.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        self.nodes.values().map(|entry| entry.status.clone()).collect()
    }

    /// The node in that ward, as it is defined now.
    pub fn node_in(&self, ward: WardId) -> Option<&Arc<Node>> {
        self.wards.get(&ward).and_then(|name| self.nodes.get(name)).map(|entry| &entry.node)
    }

    // --- what the controller asks ---

    fn obey(&mut self, order: ToAgent, now: Now, fx: &mut Vec<Effect>) {
        if let Some(refusal) = self.refusal(&order) {
            return self.answer(refusal);
        }
        match order {
            ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => {
                let outcome = Outcome::instance_done(&self.instance);
                self.answer(AgentWelcomeResponse { reqid, outcome });
            }
            ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => {
                self.configuration = None;
                self.jobs.open(Kind::Standby, reqid, self.nodes.keys().map(|name| (name.clone(), Wish::Down)));
                self.each(|me, name| me.want_down(name, Goal::Leave));
            }
            ToAgent::SetConfigurationRequest(request) => self.configure(request, now.wall, fx),
            ToAgent::GetNodesRequest(GetNodesRequest { reqid }) => {
                let nodes = self.statuses();
                self.answer(GetNodesResponse { reqid, nodes });
            }
            ToAgent::StartRequest(StartRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Start, reqid, nodes, Wish::Up);
                named.iter().for_each(|name| self.want_up(name));
            }
            ToAgent::StopRequest(StopRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Stop, reqid, nodes, Wish::Down);
                named.iter().for_each(|name| self.want_to_rest(name));
            }
            ToAgent::RestartRequest(RestartRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Restart, reqid, nodes, Wish::Up);
                named.iter().for_each(|name| self.want_afresh(name));
            }
            ToAgent::GetOutputRequest(request) => match self.nodes.contains_key(&request.node) {
                true => fx.push(Effect::ReadOutput(request)),
                false => {
                    let outcome = Outcome::unknown_node(&request.node);
                    self.answer(GetOutputResponse { reqid: request.reqid, outcome });
                }
            },
            // What was received of another epoch says nothing about this one's numbers.
            ToAgent::NewsReceived(NewsReceived { epoch, seq }) => {
                self.outbox.received(if epoch == self.epoch { seq } else { 0 });
            }
            ToAgent::AgentRefused(AgentRefused { reason }) => fx.push(Effect::Refused(reason)),
        }
    }

    /// Once everything was to be stopped, nothing is started any more: the host is about to end.
    fn refusal(&self, order: &ToAgent) -> Option<ToController> {
        if !self.stopping_all {
            return None;
        }
        let outcomes = vec![Outcome::instance_failed(&self.instance, "its agent is stopping all nodes")];
        match order {
            ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, .. }) => {
                Some(SetConfigurationResponse { reqid: reqid.clone(), outcomes }.into())
            }
            ToAgent::StartRequest(StartRequest { reqid, .. }) => {
                Some(StartResponse { reqid: reqid.clone(), outcomes }.into())
            }
            ToAgent::RestartRequest(RestartRequest { reqid, .. }) => {
                Some(RestartResponse { reqid: reqid.clone(), outcomes }.into())
            }
            _ => None,
        }
    }

    fn configure(&mut self, request: SetConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let SetConfigurationRequest { reqid, configuration } = request;
        if self.jobs.is_open(&reqid) {
            return; // asked again over a new link: its one answer is still to come
        }
        if let Some(present) = self.configuration.as_ref().filter(|present| present.id == configuration.id) {
            let outcome = match *present == configuration {
                true => Outcome::instance_done(&self.instance),
                false => Outcome::instance_failed(
                    &self.instance,
                    format!("configuration {} is in force with other contents: deploy under a new id", present.id),
                ),
            };
            return self.answer(SetConfigurationResponse { reqid, outcomes: vec![outcome] });
        }
        let have: Vec<Arc<Node>> = self.nodes.values().map(|entry| Arc::clone(entry.definition())).collect();
        let mut changes = plan::diff::nodes(have.iter().map(Arc::as_ref), &configuration.nodes);
        // The same configuration told again, to the next run of the agent, starts nothing that was stopped since.
        if self.configuration.is_none() && self.was_in_force.as_ref() == Some(&configuration.id) {
            let rests = |name| self.nodes.get(name).is_some_and(|entry| entry.goal == Goal::Rest);
            changes.retain(|change| !matches!(change, NodeChange::Keep(node) if rests(&node.name)));
        }
        let waits = changes.iter().map(|change| match change {
            NodeChange::Remove(_) => (change.name().clone(), Wish::Down),
            _ => (change.name().clone(), Wish::Up),
        });
        self.jobs.open(Kind::Configure, reqid, waits);
        for change in changes {
            match change {
                NodeChange::Keep(node) => self.want_up(&node.name),
                NodeChange::Remove(node) => self.want_down(&node.name, Goal::Leave),
                NodeChange::Start(node) => {
                    self.take_in(Arc::new(node.clone()), NodeState::Stopped, None, wall, fx);
                    self.want_up(&node.name);
                }
                NodeChange::Replace { want, keys, .. } => {
                    let msg = format!("started afresh, because of its {}", keys.join(", "));
                    self.notify_log(Some(want.name.clone()), msg, wall);
                    if let Some(entry) = self.nodes.get_mut(&want.name) {
                        entry.next = Some(Arc::new(want.clone()));
                    }
                    self.want_afresh(&want.name);
                }
            }
        }
        fx.push(Effect::Remember(configuration.id.clone()));
        self.configuration = Some(configuration);
    }

    /// Opens an order about our nodes among `nodes`, or about all of ours if that is empty.
    fn open_for(&mut self, kind: Kind, reqid: RequestId, nodes: BTreeSet<NodeName>, wish: Wish) -> BTreeSet<NodeName> {
        // What leaves is nobody's to start. But it runs until it is gone: whoever stops it waits for that.
        let is_ours = |entry: &Entry| entry.goal != Goal::Leave || wish == Wish::Down;
        let is_meant =
            |(name, entry): &(&NodeName, &Entry)| is_ours(entry) && (nodes.is_empty() || nodes.contains(*name));
        let named: BTreeSet<_> = self.nodes.iter().filter(is_meant).map(|(name, _)| name.clone()).collect();
        let strangers = nodes.iter().filter(|name| !named.contains(*name)).cloned();
        self.jobs.open_beside(kind, reqid, named.iter().map(|name| (name.clone(), wish)), strangers);
        named
    }

    // --- what nodes are to come to ---

    fn take_in(&mut self, node: Arc<Node>, state: NodeState, pid: Option<u32>, since: Timestamp, fx: &mut Vec<Effect>) {
        let (name, ward) = (node.name.clone(), WardId::new(self.next_ward));
        self.next_ward += 1;
        let status = NodeStatus {
            node: name.clone(),
            instance: self.instance.clone(),
            role: node.role,
            state,
            pid,
            port: node.port,
            metrics_port: node.metrics_port,
            restarts: 0,
            since,
            reason: String::new(),
        };
        fx.push(Effect::Supervise(ward, Arc::clone(&node)));
        self.wards.insert(ward, name.clone());
        let place = Place::idle();
        let goal = Goal::Run;
        self.nodes.insert(name, Entry { node, ward, status, goal, place, next: None, output: None, ticket: 0 });
    }

    fn found(&mut self, found: FoundNode, wall: Timestamp, fx: &mut Vec<Effect>) {
        let FoundNode { node, pid, wanted } = found;
        let name = node.name.clone();
        let state = if pid.is_some() { NodeState::Running } else { NodeState::Stopped };
        self.take_in(node, state, pid, wall, fx);
        match wanted {
            true => self.want_up(&name),
            false => self.want_down(&name, Goal::Rest),
        }
    }

    fn want_up(&mut self, name: &NodeName) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.goal = Goal::Run;
        let runs = entry.status.state == NodeState::Running;
        match entry.place.step {
            // It comes up again by itself, and whoever asked for it to go down first waits for that.
            Step::StopQueued { then: true } => {}
            Step::Idle | Step::StopQueued { then: false } if runs => self.settle_up(name, Ok(())),
            Step::Idle | Step::StopQueued { then: false } => self.set_step(name, Step::StartQueued),
            Step::Stopping { .. } => self.redirect(name, true),
            Step::StartQueued | Step::Starting => {}
        }
        self.jobs.settle(name, Wish::Down, Err("somebody asked meanwhile for it to run"), None);
    }

    /// Down and up again, whatever it is now.
    fn want_afresh(&mut self, name: &NodeName) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.goal = Goal::Run;
        match entry.place.step {
            Step::Stopping { .. } => self.redirect(name, true),
            _ => self.set_step(name, Step::StopQueued { then: true }),
        }
        self.jobs.settle(name, Wish::Down, Err("somebody asked meanwhile for it to run"), None);
    }

    fn want_down(&mut self, name: &NodeName, goal: Goal) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        (entry.goal, entry.next) = (goal, None);
        self.jobs.settle(name, Wish::Up, Err("somebody asked meanwhile for it to stop"), None);
        // Also where it is STOPPED: a launch may be out, and only its supervisor knows.
        match entry.place.step {
            Step::Stopping { .. } => self.redirect(name, false),
            _ => self.set_step(name, Step::StopQueued { then: false }),
        }
    }

    /// Down, and in the configuration if it is in it now.
    fn want_to_rest(&mut self, name: &NodeName) {
        let leaves = self.nodes.get(name).is_some_and(|entry| entry.goal == Goal::Leave);
        self.want_down(name, if leaves { Goal::Leave } else { Goal::Rest });
    }

    /// What is to become of a node on its way down changes; the time that it has does not.
    fn redirect(&mut self, name: &NodeName, then: bool) {
        let Some(entry) = self.nodes.get(name) else { return };
        let (holds, alarm) = (matches!(entry.place.step, Step::Stopping { holds: true, .. }), entry.place.alarm());
        self.set_step_until(name, Step::Stopping { then, holds }, alarm);
        if alarm.is_none() {
            // Its time was up before: whoever asks now is told at once, and not left waiting for its end.
            self.settle_stuck(name);
        }
    }

    /// Whoever waits for a node that does not end waits in vain.
    fn settle_stuck(&mut self, name: &NodeName) -> String {
        let pid = self.nodes.get(name).and_then(|entry| entry.status.pid);
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let error = format!("did not end, not even by SIGKILL{pid}");
        self.jobs.settle(name, Wish::Down, Err(&error), None);
        self.jobs.settle(name, Wish::Up, Err(&error), None);
        error
    }

    /// The node is down and is to run: under its new definition, if it has one.
    fn rise_again(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        // Out of the order while its role may change.
        self.set_step(name, Step::Idle);
        let Some(entry) = self.nodes.get_mut(name) else { return };
        if let Some(node) = entry.next.take() {
            entry.status.role = node.role;
            (entry.status.port, entry.status.metrics_port) = (node.port, node.metrics_port);
            entry.node = Arc::clone(&node);
            fx.push(Effect::Tell(entry.ward, NodeOrder::Redefine(node)));
        }
        self.set_step(name, Step::StartQueued);
    }

    /// The node is down and is to stay so.
    fn rest(&mut self, name: &NodeName, wall: Timestamp, fx: &mut Vec<Effect>) {
        self.set_step(name, Step::Idle);
        if self.nodes.get(name).is_some_and(|entry| entry.goal == Goal::Leave) {
            self.notify_change(NodeReport::removal(name.clone()), true, wall);
            if let Some(entry) = self.nodes.remove(name) {
                self.wards.remove(&entry.ward);
                fx.push(Effect::Dismiss(entry.ward, name.clone()));
            }
        }
        self.jobs.settle(name, Wish::Down, Ok(()), None);
    }

    fn settle_up(&mut self, name: &NodeName, result: Result<(), &str>) {
        self.set_step(name, Step::Idle);
        let output = self.nodes.get(name).and_then(|entry| entry.output.as_ref());
        self.jobs.settle(name, Wish::Up, result, output);
    }

    // --- the order of steps ---

    fn set_step(&mut self, name: &NodeName, step: Step) {
        self.set_step_until(name, step, None);
    }

    fn set_step_until(&mut self, name: &NodeName, step: Step, alarm: Option<Instant>) {
        if let Some(entry) = self.nodes.get_mut(name) {
            self.order.set(name, entry.node.role, &mut entry.place, step, alarm);
        }
    }

    /// Begins every step whose turn has come.
    fn advance(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if !self.order.anybody_queues() {
            return;
        }
        let is_queued = |entry: &Entry| matches!(entry.place.step, Step::StopQueued { .. } | Step::StartQueued);
        let queued: Vec<_> =
            self.nodes.iter().filter(|(_, entry)| is_queued(entry)).map(|(name, _)| name.clone()).collect();
        for name in queued {
            let entry = &self.nodes[&name];
            let (ward, role) = (entry.ward, entry.node.role);
            match entry.place.step {
                Step::StopQueued { then } if self.order.may_stop(role) => {
                    let patience = now.mono + STOP_PATIENCE.min(entry.node.stop_grace);
                    self.tell_to_stop(&name, fx);
                    self.set_step_until(&name, Step::Stopping { then, holds: true }, Some(patience));
                }
                Step::StartQueued if self.order.may_start(role) && !self.waits_for_a_port(entry) => {
                    fx.push(Effect::Tell(ward, NodeOrder::Start));
                    let overdue = now.mono + entry.node.ready.within;
                    self.set_step_until(&name, Step::Starting, Some(overdue));
                }
                _ => {}
            }
        }
    }

    fn tell_to_stop(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        self.next_ticket += 1;
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.ticket = self.next_ticket;
            fx.push(Effect::Tell(entry.ward, NodeOrder::Stop { ticket: entry.ticket }));
            fx.extend(self.hurried.then(|| entry.hurry()));
        }
    }

    /// Whether a node on its way down still has a port that this one will listen on.
    fn waits_for_a_port(&self, entry: &Entry) -> bool {
        let ports = |node: &Node| [node.port, node.metrics_port].into_iter().flatten();
        let has = |node: &Node, port| ports(node).any(|other| other == port);
        let is_falling =
            |other: &&Entry| matches!(other.place.step, Step::StopQueued { .. } | Step::Stopping { holds: true, .. });
        ports(&entry.node).any(|port| self.nodes.values().filter(is_falling).any(|other| has(&other.node, port)))
    }

    fn tick(&mut self, now: Now) {
        while let Some((_, name)) = self.order.first_alarm().filter(|(at, _)| *at <= now.mono) {
            let name = name.clone();
            let Some(entry) = self.nodes.get(&name) else { return };
            match entry.place.step {
                Step::Starting => {
                    let within = humantime::format_duration(entry.node.ready.within);
                    self.settle_up(&name, Err(&format!("not ready within {within}")));
                }
                Step::Stopping { then, holds: true } => {
                    // It holds up nobody any more; it is still to end, by SIGKILL after its grace.
                    let left = entry.node.stop_grace.saturating_sub(STOP_PATIENCE) + KILL_MARGIN;
                    self.set_step_until(&name, Step::Stopping { then, holds: false }, Some(now.mono + left));
                }
                step @ Step::Stopping { holds: false, .. } => {
                    self.set_step(&name, step);
                    let error = self.settle_stuck(&name);
                    self.notify_error(Some(name), error, now.wall);
                }
                step @ (Step::Idle | Step::StopQueued { .. } | Step::StartQueued) => self.set_step(&name, step),
            }
        }
    }

    // --- what supervisors tell ---

    fn report(&mut self, report: NodeReport, now: Now, fx: &mut Vec<Effect>) {
        let (name, new, reason) = (report.node.clone(), report.new, report.reason.clone());
        let Some(entry) = self.nodes.get_mut(&name) else { return };
        let is_down = report.ticket == Some(entry.ticket);
        let is_change = (entry.status.state, new) != (NodeState::Stopped, NodeState::Stopped);
        entry.output.clone_from(&report.output);
        // The last change of a node that leaves says so: see `rest`.
        if is_change && (entry.goal != Goal::Leave || new != NodeState::Stopped) {
            self.notify_change(report, false, now.wall);
        }
        let Some(entry) = self.nodes.get(&name) else { return };
        match (entry.place.step, new) {
            // Its own deadline counts from its launch, not from the time it waited for its turn.
            (Step::Starting, NodeState::Pending) => {
                let overdue = now.mono + entry.node.ready.within;
                self.set_step_until(&name, Step::Starting, Some(overdue));
            }
            (Step::Starting | Step::StartQueued, NodeState::Running) => self.settle_up(&name, Ok(())),
            (Step::Starting, NodeState::Crashed | NodeState::Failed | NodeState::Stopped) if is_change => {
                self.settle_up(&name, Err(&reason));
            }
            (Step::Stopping { then: true, .. }, NodeState::Stopped) if is_down => self.rise_again(&name, fx),
            (Step::Stopping { then: false, .. }, NodeState::Stopped) if is_down => self.rest(&name, now.wall, fx),
            _ => {}
        }
    }

    fn revived(&mut self, name: NodeName, state: NodeState, pid: Option<u32>, now: Now, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get(&name) else { return };
        let (ward, old, old_pid) = (entry.ward, entry.status.state, entry.status.pid);
        let was_down = matches!(old, NodeState::Stopped | NodeState::Failed);
        self.notify_error(Some(name.clone()), "its supervisor panicked and was replaced".into(), now.wall);
        if (old, old_pid) != (state, pid) {
            self.report(NodeReport::found(name.clone(), state, pid), now, fx);
        }
        match self.nodes.get(&name).map(|entry| entry.place.step) {
            Some(Step::Stopping { .. }) => self.tell_to_stop(&name, fx),
            Some(Step::Starting) => fx.push(Effect::Tell(ward, NodeOrder::Start)),
            Some(Step::Idle) if !was_down => fx.push(Effect::Tell(ward, NodeOrder::Start)),
            _ => {}
        }
    }

    // --- what is said ---

    fn link_up(&mut self) {
        self.linked = true;
        self.outbox.link_up();
        self.answers.clear();
        let hello = NotifyAgentHello {
            instance: self.instance.clone(),
            host: None,
            api_version: API_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            epoch: self.epoch,
        };
        self.hello = Some(hello.into());
    }

    fn link_down(&mut self) {
        self.linked = false;
        self.answers.clear();
        self.outbox.link_down();
    }

    fn answer(&mut self, answer: impl Into<ToController>) {
        if self.linked {
            self.answers.push(answer.into());
        }
    }

    /// Makes a report the node's status, and news.
    fn notify_change(&mut self, report: NodeReport, removed: bool, time: Timestamp) {
        let NodeReport { node, new, pid, exit, attempt, restarts, reason, .. } = report;
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let status = &mut entry.status;
        let old = std::mem::replace(&mut status.state, new);
        status.pid = pid.filter(|_| matches!(new, NodeState::Pending | NodeState::Running));
        (status.restarts, status.since) = (restarts.max(status.restarts), time);
        status.reason.clone_from(&reason);
        let (instance, role, restarts) = (self.instance.clone(), status.role, status.restarts);
        self.outbox.push(Item::Change(NotifyChange {
            seq: 0,
            time,
            instance,
            node,
            role,
            old,
            new,
            pid,
            exit,
            attempt,
            restarts,
            reason,
            removed,
        }));
    }

    fn notify_error(&mut self, node: Option<NodeName>, msg: String, time: Timestamp) {
        self.outbox.push(Item::Error(NotifyError { seq: 0, time, instance: self.instance.clone(), node, msg }));
    }

    fn notify_log(&mut self, node: Option<NodeName>, msg: String, time: Timestamp) {
        self.outbox.push(Item::Log(NotifyLog { seq: 0, time, instance: self.instance.clone(), node, msg }));
    }

    fn each(&mut self, mut act: impl FnMut(&mut Self, &NodeName)) {
        let all: Vec<_> = self.nodes.keys().cloned().collect();
        all.iter().for_each(|name| act(self, name));
    }
}

impl Entry {
    /// What it is to be: by what it runs under, or gets once it is down.
    fn definition(&self) -> &Arc<Node> {
        self.next.as_ref().unwrap_or(&self.node)
    }

    fn is_stopping(&self) -> bool {
        matches!(self.place.step, Step::Stopping { .. })
    }

    fn hurry(&self) -> Effect {
        Effect::Tell(self.ward, NodeOrder::Hurry)
    }

    /// Nothing runs, and nothing is under way.
    fn is_at_rest(&self) -> bool {
        match self.place.step {
            Step::Idle => self.status.state == NodeState::Stopped,
            // Not even SIGKILL ended it, and nothing more can be done.
            Step::Stopping { holds: false, .. } => self.place.alarm().is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;

//! What one agent decides: which nodes should run, in which order they are started and stopped, and what it answers.
//!
//! Every order is a wish about nodes, kept until each node has come to what was wished or cannot. Nodes move one by
//! one through [`Step`]: the order of roles only decides when a step may begin, and a node that does not move on in
//! time stops holding up the others.

mod inspecting;
pub mod loss;
mod moves;
mod orders;
mod preparing;
mod switching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use self::inspecting::Inspecting;
use self::loss::{Finding, LossWatch};
use self::preparing::{Preparing, Staged};
use super::jobs::Jobs;
use super::order::{Order, Place, Step};
use super::outbox::{Item, Outbox};
use super::repeats::Repeats;
use crate::archive::Wish;
use crate::launch::Survey;
use crate::launch::zeek::{Objection, Preparation};
use crate::message::agent::*;
use crate::message::frame::Body;
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::{
    Abilities, Configuration, ConfigurationId, CrashSummary, Instance, InstanceName, NetStats, Node, NodeName,
    NodeState, NodeStatus, Now, Outcome, Output, OutputPiece, Peer, RequestId, Text, Timestamp, Zeek,
};
use crate::supervisor::workshop::WardId;

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    instance: InstanceName,
    epoch: u64,
    pid: Option<u32>,
    run: u64,
    place: u64,
    abilities: Abilities,
    /// In force. Kept in memory only: the nodes' records tell a later agent what runs.
    configuration: Option<InForce>,
    /// Looked at, and not in force yet.
    staged: Option<Box<Staged>>,
    /// Of whom there may be files on disk.
    with_files: BTreeSet<NodeName>,
    /// Nodes are not as they are in `configuration` any more: some are as in what was staged.
    strays: bool,
    /// Some nodes are launched by files that are not in force.
    tries_files: bool,
    /// In force when an earlier run of the agent ended.
    was_in_force: Option<ConfigurationId>,
    /// Boxed: the room that a tree keeps for more is about as much as it holds.
    nodes: BTreeMap<NodeName, Box<Entry>>,
    next_ward: u64,
    next_ticket: u64,
    jobs: Jobs,
    repeats: Repeats,
    order: Order,
    outbox: Outbox,
    /// The first word on a new link.
    hello: Option<ToController>,
    /// Not numbered, and lost with the link. Sent behind the news, so that whoever has an answer has what led to it.
    answers: Vec<ToController>,
    /// Whose status is to be told behind the news.
    saying: BTreeSet<NodeName>,
    /// The same of what Zeek nodes count.
    counting: BTreeSet<NodeName>,
    linked: bool,
    stopping_all: bool,
    /// Somebody waits for [`Effect::AllStopped`].
    asked_for_rest: bool,
    /// Nobody waits for a grace any more until all is stopped.
    hurried: bool,
    /// Not in force yet: it is being looked at.
    preparing: Option<Box<Preparing>>,
    /// For whoever asks what would become of it.
    inspecting: Vec<Inspecting>,
    next_preparation: u64,
}

/// A configuration as it is kept: entries share its nodes.
#[derive(Debug, Clone)]
struct InForce {
    id: ConfigurationId,
    instances: Vec<Instance>,
    /// Not a vector, which would keep room to grow.
    nodes: Arc<[Arc<Node>]>,
    zeek: Option<Box<Zeek>>,
    peers: Box<[Peer]>,
    /// By which preparation there are files for it, if it needs any.
    files: Option<u64>,
    /// What it wants of the archive, until it is in force.
    archive: Option<Box<Wish>>,
}

#[derive(Debug, Clone)]
struct Entry {
    node: Arc<Node>,
    ward: WardId,
    status: NodeStatus,
    goal: Goal,
    place: Place,
    /// Its definition is not known: until a configuration tells it, it is minded as long as it runs, and not started.
    guessed: bool,
    /// The definition it gets once it is down.
    next: Option<Arc<Node>>,
    /// What it wrote last before it failed.
    output: Option<Box<Output>>,
    /// The last order to stop it. Only the report that names it says that nothing runs and nothing is being born.
    ticket: u64,
    /// Whether that order was one after which the next run of the agent starts it.
    told_for_now: bool,
    /// It was told to start, and nothing was heard of it since: its order may have gone with its supervisor.
    start_unheard: bool,
    /// Of a Zeek node that counts packets.
    loss: Option<Box<LossWatch>>,
}

/// What a node is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    /// Down, until the next run of the agent.
    Pause,
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
    /// Something that a person may want to know.
    Remark(Option<NodeName>, String),
    /// What the process of this node says of itself.
    Says(NodeName, Text),
    /// What the process of this Zeek node counts.
    Counts(NodeName, Box<NetStats>),
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
    /// The controller does not know messages of this kind.
    NotKnown(u16),
    /// Stop everything; [`Effect::AllStopped`] tells when it is done.
    StopAll {
        /// Whether the next run of the agent is to start what is stopped by this.
        for_now: bool,
    },
    /// What [`Effect::Prepare`] asked for under this number is done, and this is to be objected.
    Prepared(u64, Vec<Objection>),
    /// The same for [`Effect::Inspect`].
    Inspected(u64, Vec<Objection>),
    /// Wait for no grace any more.
    Hurry,
    /// The time of [`State::next_alarm`] has come.
    Tick,
}

/// A node that an earlier agent had.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundNode {
    pub node: Arc<Node>,
    /// What was told of it last, as far as is known: also RUNNING or PENDING where its process is not there any more. Its
    /// supervisor tells how that ended, and decides what comes of it.
    pub state: NodeState,
    pub pid: Option<u32>,
    /// Why it was given up, or waits to be started again.
    pub reason: Text,
    /// Whether it was to run.
    pub wanted: bool,
    /// Its definition is not known, since its record was lost: the next configuration tells it.
    pub guessed: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give this ward a supervisor.
    Supervise(WardId, Arc<Node>),
    Tell(WardId, NodeOrder),
    /// The node is gone for good: let go of its supervisor.
    Dismiss(WardId, NodeName),
    /// What runs there is this node, as is known now: write its record anew, and hear it.
    Define(WardId, Arc<Node>),
    /// Keep this for the next run of the agent: the configuration in force.
    Remember(ConfigurationId),
    /// This becomes of the logs of its Zeek nodes from now on.
    Archive(Box<Wish>),
    /// Render, and look whether it could run; answered by [`Event::Prepared`] with the same number.
    Prepare(u64, Box<Preparation>),
    /// Launch these Zeek nodes by the files that were rendered under this number, and others as before.
    TryFiles(u64, BTreeSet<NodeName>),
    /// Launch Zeek nodes by the files that were rendered under this number from now on; without one, all of them as before
    /// something was tried.
    UseFiles(Option<u64>),
    /// Only look what would keep it from running; answered by [`Event::Inspected`] with the same number.
    Inspect(u64, Box<Survey>),
    /// Read the last lines, and answer by [`State::answer_output`].
    ReadOutput(GetOutputRequest),
    /// Read a piece, wait for it if need be, and answer by [`State::answer_piece`].
    ReadPiece(ReadOutputRequest),
    /// This Zeek node writes its logs from now on, or does not any more: what it left open of them may be moved.
    MindLogs {
        node: NodeName,
        is_up: bool,
    },
    /// Have these bundles at hand, and answer by [`State::answer_staged`].
    Stage(StageBundlesRequest),
    /// Of the files of nodes those of these definitions are needed from here on, and no others of these nodes.
    KeepFiles {
        nodes: Vec<Arc<Node>>,
        /// Of these nodes none is needed.
        gone: BTreeSet<NodeName>,
    },
    /// Ask these Zeek nodes, and answer by [`State::answer_inquiry`], together with what is known already.
    Inquire(Inquiry),
    /// Read what is filed of nodes that died, and answer by [`State::answer_crashes`].
    ReadCrashes(GetCrashesRequest),
    /// The controller will have nothing to do with this agent, for this reason.
    Refused(String),
    /// End the link, for this reason.
    EndLink(String),
    AllStopped,
}

/// A question to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    pub reqid: RequestId,
    /// A verb and its argument, as a node's channel has them: one line.
    pub question: String,
    pub asked: Vec<(WardId, NodeName)>,
    /// What others would say who cannot be asked.
    pub known: Vec<NodeAnswer>,
}

impl State {
    /// An agent without nodes, and with this to say. `epoch` names the numbering of its news.
    pub fn new(instance: InstanceName, epoch: u64, outbox: Outbox) -> Self {
        Self {
            jobs: Jobs::new(instance.clone()),
            instance,
            epoch,
            pid: None,
            run: 0,
            place: 0,
            abilities: Abilities::untried(),
            configuration: None,
            staged: None,
            with_files: BTreeSet::new(),
            strays: false,
            tries_files: false,
            was_in_force: None,
            nodes: BTreeMap::new(),
            next_ward: 0,
            next_ticket: 0,
            repeats: Repeats::default(),
            order: Order::default(),
            outbox,
            hello: None,
            answers: Vec::new(),
            saying: BTreeSet::new(),
            counting: BTreeSet::new(),
            linked: false,
            stopping_all: false,
            asked_for_rest: false,
            hurried: false,
            preparing: None,
            inspecting: Vec::new(),
            next_preparation: 0,
        }
    }

    /// The same, run by this process: for this `run`, and from a `place` that it has locked.
    pub fn run_by(self, pid: u32, run: u64, place: u64) -> Self {
        Self { pid: Some(pid), run, place, ..self }
    }

    /// The same, which can do this for its nodes.
    pub fn able_to(self, abilities: Abilities) -> Self {
        Self { abilities, ..self }
    }

    /// Decides. What is to be said comes out of [`State::outgoing`].
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let fx = &mut effects;
        match event {
            Event::Order(order) => self.obey(order, now, fx),
            Event::Report(report) => self.report(report, now, fx),
            Event::Says(node, says) => self.says(node, says),
            Event::Counts(node, counted) => self.counts(node, counted, now),
            Event::Trouble(node, msg) => self.notify_error(node, msg, now.wall),
            Event::Remark(node, msg) => self.notify_log(node, msg, now.wall),
            Event::Revived { node, state, pid } => self.revived(node, state, pid, now, fx),
            // All at once, so that the order of roles is kept among them.
            Event::Found(nodes) => nodes.into_iter().for_each(|node| self.found(node, now.wall, fx)),
            Event::WasInForce(id) => self.was_in_force = Some(id),
            Event::LinkUp => self.link_up(),
            Event::LinkDown => self.link_down(),
            Event::NotKnown(kind) => fx.extend(not_known(kind)),
            Event::StopAll { for_now } => {
                self.give_up_preparing("its agent is stopping all nodes");
                (self.stopping_all, self.asked_for_rest) = (true, true);
                self.each(|me, name| match for_now {
                    true => me.want_to_pause(name, fx),
                    false => me.want_to_rest(name, fx),
                });
            }
            Event::Prepared(number, objections) => self.prepared(number, objections, now, fx),
            Event::Inspected(number, objections) => self.inspected(number, objections),
            Event::Hurry => {
                self.hurried = self.stopping_all;
                fx.extend(self.nodes.values().filter(|entry| entry.is_stopping()).map(|entry| entry.hurry()));
            }
            Event::Tick => self.tick(now),
        }
        self.advance(now, &mut effects);
        let done = self.jobs.take_done();
        done.into_iter().for_each(|answer| self.answer(answer));
        if self.asked_for_rest && self.nodes.values().all(|entry| entry.is_at_rest()) {
            self.asked_for_rest = false;
            effects.push(Effect::AllStopped);
        }
        effects
    }

    /// When [`Event::Tick`] is due, if at all.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.order.first_alarm().map(|(at, _)| at)
    }

    /// What may go to the controller now, in order, a piece at a time; `None` when there is no more. Answers wait for the
    /// news that led to them.
    pub fn outgoing(&mut self) -> Option<Vec<ToController>> {
        if !self.linked {
            return None;
        }
        let batch = self.outbox.next_batch();
        let mut mail: Vec<ToController> = self.hello.take().into_iter().collect();
        if !batch.news.is_empty() {
            mail.push(ToController::News(batch.news));
        }
        if let Some(seq) = batch.snapshot {
            let configuration = self.configuration.as_ref().map(|configuration| configuration.id.clone());
            mail.push(NotifySnapshot { epoch: self.epoch, seq, configuration, nodes: self.statuses() }.into());
        }
        if self.outbox.all_is_sent() {
            let saying = std::mem::take(&mut self.saying);
            mail.extend(saying.iter().filter_map(|name| self.status_of(name)).map(ToController::from));
            let counting = std::mem::take(&mut self.counting);
            mail.extend(counting.iter().filter_map(|name| self.counts_of(name)).map(ToController::from));
            mail.append(&mut self.answers);
        }
        (!mail.is_empty()).then_some(mail)
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

    /// Answers a [`ReadOutputRequest`] with what was read.
    pub fn answer_piece(&mut self, reqid: RequestId, piece: Result<OutputPiece, String>) {
        self.answer(ReadOutputResponse { reqid, piece });
    }

    /// Answers a [`StageBundlesRequest`] with what came of it.
    pub fn answer_staged(&mut self, reqid: RequestId, had: Result<(), String>) {
        let outcome = match had {
            Ok(()) => Outcome::instance_done(&self.instance),
            Err(why) => Outcome::instance_failed(&self.instance, why),
        };
        self.answer(StageBundlesResponse { reqid, outcome });
    }

    /// Asks for parts of what nodes are to have. That gets lost with the link.
    pub fn ask(&mut self, request: ReadBlobsRequest) {
        self.say(request.into());
    }

    /// Says that files are being laid out.
    pub fn lays_out(&mut self) {
        self.say(NotifyLayingOut {}.into());
    }

    /// Answers a [`NodeDispatchRequest`] with what was known and what its nodes said.
    pub fn answer_inquiry(&mut self, reqid: RequestId, mut answers: Vec<NodeAnswer>) {
        answers.sort_by(|a, b| a.node.cmp(&b.node));
        self.answer(NodeDispatchResponse { reqid, answers });
    }

    /// Answers a [`GetCrashesRequest`] with what is filed.
    pub fn answer_crashes(
        &mut self,
        reqid: RequestId,
        read: Result<Vec<CrashSummary>, String>,
        dossier: Option<String>,
    ) {
        self.answer(GetCrashesResponse { reqid, crashes: read, dossier });
    }

    /// What has not arrived yet.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whose agent this is.
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// Every node, sorted by name.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        self.nodes.values().map(|entry| entry.status.clone()).collect()
    }

    /// The node of that name, as it is defined now, if it is in that ward.
    pub fn node_in(&self, ward: WardId, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name).filter(|entry| entry.ward == ward).map(|entry| &entry.node)
    }

    /// Whether what that node is was guessed, since its record was lost.
    pub fn is_guessed(&self, name: &NodeName) -> bool {
        self.nodes.get(name).is_some_and(|entry| entry.guessed)
    }

    /// Why that node is as it is.
    pub fn reason(&self, name: &NodeName) -> Text {
        self.nodes.get(name).map(|entry| entry.status.reason.clone()).unwrap_or_default()
    }

    // --- what supervisors tell ---

    fn report(&mut self, mut report: NodeReport, now: Now, fx: &mut Vec<Effect>) {
        let (name, new) = (report.node.clone(), report.new);
        let Some(entry) = self.nodes.get_mut(&name) else { return };
        let is_down = report.ticket == Some(entry.ticket);
        let is_change = (entry.status.state, new) != (NodeState::Stopped, NodeState::Stopped);
        (entry.output, entry.start_unheard) = (report.output.take(), false);
        if entry.node.is_zeek() {
            fx.extend(logs_of(&report));
        }
        // The last change of a node that leaves says so, and which process ended with it: see `rest`.
        let (pid, exit) = (report.pid, report.exit);
        if is_change && (entry.goal != Goal::Leave || new != NodeState::Stopped) {
            self.outbox.push_change(entry.change(report, false, now.wall));
        }
        match (entry.place.step, new) {
            // Its own deadline counts from its launch, not from the time it waited for its turn.
            (Step::Starting, NodeState::Pending) => {
                let overdue = now.mono + entry.node.ready_within();
                self.set_step_until(&name, Step::Starting, Some(overdue));
            }
            (Step::Starting | Step::StartQueued, NodeState::Running) => self.settle_up(&name, Ok(())),
            (Step::Starting, NodeState::Crashed | NodeState::Failed | NodeState::Stopped) if is_change => {
                let reason = entry.status.reason.clone();
                self.settle_up(&name, Err(&reason));
            }
            (Step::Stopping { then: true, .. }, NodeState::Stopped) if is_down => self.rise_again(&name, fx),
            (Step::Stopping { then: false, .. }, NodeState::Stopped) if is_down => {
                let removal = NodeReport { pid, exit, ..NodeReport::removal(name) };
                self.rest(removal, now.wall, fx);
            }
            _ => {}
        }
    }

    fn revived(&mut self, name: NodeName, state: NodeState, pid: Option<u32>, now: Now, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get(&name) else { return };
        let (old, old_pid) = (entry.status.state, entry.status.pid);
        // Who waits for its next life has it from its new supervisor, when its time has come.
        let is_down = |state| matches!(state, NodeState::Stopped | NodeState::Failed);
        let was_down = (is_down(old) || state == NodeState::Crashed) && !entry.start_unheard;
        self.notify_error(Some(name.clone()), "its supervisor panicked and was replaced".into(), now.wall);
        if (old, old_pid) != (state, pid) {
            self.report(NodeReport::found(name.clone(), state, pid), now, fx);
        }
        match self.nodes.get(&name).map(|entry| entry.place.step) {
            Some(Step::Stopping { .. }) => self.tell_to_stop(&name, fx),
            Some(Step::Starting) => self.tell_to_start(&name, fx),
            Some(Step::Idle) if !was_down => self.tell_to_start(&name, fx),
            _ => {}
        }
    }

    /// Every status goes with its process; a new one tells its own.
    fn says(&mut self, name: NodeName, says: Text) {
        if let Some(entry) = self.nodes.get_mut(&name).filter(|entry| entry.status.pid.is_some()) {
            entry.status.says = says;
            // Whoever is not linked gets it by the snapshot.
            if self.linked {
                self.saying.insert(name);
            }
        }
    }

    fn status_of(&self, name: &NodeName) -> Option<NotifyStatus> {
        let NodeStatus { pid, says, .. } = &self.nodes.get(name)?.status;
        Some(NotifyStatus { instance: self.instance.clone(), node: name.clone(), pid: (*pid)?, says: says.clone() })
    }

    /// The last figures count; they go with their process. What is too little is told as news.
    fn counts(&mut self, name: NodeName, counted: Box<NetStats>, now: Now) {
        let rules = self
            .configuration
            .as_ref()
            .map(|configuration| configuration.zeek.as_ref().map(|zeek| zeek.health.clone()).unwrap_or_default());
        let Some(entry) = self.nodes.get_mut(&name).filter(|entry| entry.status.pid.is_some()) else { return };
        // An agent that has just returned does not know yet what is too little.
        let finding = rules.and_then(|rules| entry.loss.get_or_insert_default().hear(&counted, &rules, now.mono));
        entry.status.netstats = Some(counted);
        if self.linked {
            self.counting.insert(name.clone());
        }
        match finding {
            Some(Finding::Loses(msg)) => self.notify_error(Some(name), msg, now.wall),
            Some(Finding::Recovered(msg)) => self.notify_log(Some(name), msg, now.wall),
            None => {}
        }
    }

    fn counts_of(&self, name: &NodeName) -> Option<NotifyNetStats> {
        let NodeStatus { pid, netstats, .. } = &self.nodes.get(name)?.status;
        let (instance, node) = (self.instance.clone(), name.clone());
        Some(NotifyNetStats { instance, node, pid: (*pid)?, netstats: (**netstats.as_ref()?).clone() })
    }

    // --- what is said ---

    fn link_up(&mut self) {
        self.linked = true;
        self.outbox.link_up();
        self.answers.clear();
        self.saying.clear();
        self.counting.clear();
        let hello = NotifyAgentHello {
            instance: self.instance.clone(),
            host: None,
            api_version: API_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            epoch: self.epoch,
            run: self.run,
            place: self.place,
            abilities: self.abilities.clone(),
        };
        self.hello = Some(hello.into());
    }

    fn link_down(&mut self) {
        self.linked = false;
        self.answers.clear();
        self.outbox.link_down();
    }

    fn answer(&mut self, answer: impl Into<ToController>) {
        let answer = answer.into();
        self.repeats.keep(&answer);
        self.say(answer);
    }

    fn say(&mut self, answer: ToController) {
        if self.linked {
            self.answers.push(answer);
        }
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

/// Whether what is left open of a node's logs may be moved, if the report tells.
fn logs_of(report: &NodeReport) -> Option<Effect> {
    let is_up = match (report.new, report.pid) {
        (NodeState::Pending | NodeState::Running, Some(_)) => true,
        (NodeState::Stopped | NodeState::Crashed | NodeState::Failed, _) => false,
        _ => return None,
    };
    Some(Effect::MindLogs { node: report.node.clone(), is_up })
}

/// What follows from the controller's not knowing such messages. Of all that an agent says it waits only for the answer to
/// its hello; news that is not known is acknowledged with what comes behind it.
fn not_known(kind: u16) -> Option<Effect> {
    (kind == NotifyAgentHello::KIND).then(|| {
        let ours = env!("CARGO_PKG_VERSION");
        Effect::Refused(format!(
            "it does not know `notify_agent_hello` as watchpost {ours} says it: run the same release of watchpost on both"
        ))
    })
}

impl From<Configuration> for InForce {
    /// Without keys, which nobody needs twice.
    fn from(Configuration { id, instances, nodes, zeek, peers, keys: _ }: Configuration) -> Self {
        Self { id, instances, nodes: nodes.into(), zeek, peers: peers.into(), files: None, archive: None }
    }
}

impl InForce {
    /// Whether it is the same as `other`, in contents as well as by name.
    fn is(&self, other: &Self) -> bool {
        // By which files it runs is no part of it, and what the archive is to do follows from the rest.
        let Self { id, instances, nodes, zeek, peers, files: _, archive: _ } = other;
        let is_same = self.id == *id && self.instances == *instances && self.nodes == *nodes;
        is_same && self.zeek == *zeek && self.peers == *peers
    }
}

impl Entry {
    /// What it is to be: by what it runs under, or gets once it is down.
    fn definition(&self) -> &Arc<Node> {
        self.next.as_ref().unwrap_or(&self.node)
    }

    /// Makes a report the node's status, and news that has no number yet.
    fn change(&mut self, report: NodeReport, removed: bool, time: Timestamp) -> BorrowedChange<'_> {
        let NodeReport { new, pid, exit, attempt, reason, .. } = report;
        let status = &mut self.status;
        let old = std::mem::replace(&mut status.state, new);
        status.enter(pid.filter(|_| matches!(new, NodeState::Pending | NodeState::Running)));
        (status.restarts, status.since) = (report.restarts.max(status.restarts), time);
        status.reason = reason;
        BorrowedChange {
            seq: 0,
            time,
            instance: status.instance.as_str(),
            node: status.node.as_str(),
            role: status.role,
            old,
            new,
            pid,
            exit,
            attempt,
            restarts: status.restarts,
            reason: &status.reason,
            removed,
        }
    }

    /// It has crashed, and its supervisor starts it again when its time has come.
    fn waits(&self) -> bool {
        self.place.step == Step::Idle && self.goal == Goal::Run && self.status.state == NodeState::Crashed
    }

    fn is_stopping(&self) -> bool {
        matches!(self.place.step, Step::Stopping { .. })
    }

    /// Whether the next run of the agent is to start it, should this one not come to it: a restart is no stop.
    fn is_down_for_now(&self) -> bool {
        matches!(self.goal, Goal::Run | Goal::Pause)
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
mod histories;
#[cfg(test)]
mod tests;

//! What the controller decides: who belongs to the cluster, what is deployed, who is asked and who is answered.
//!
//! An agent's way is hello → welcome → ready → configuration. A deployment gathers all the instances that it needs and
//! ends the nodes that move to another instance. Up to here it can be given up, and everything is as it was. Then it
//! is decided: its configuration is the deployed one, every instance is told its share at once, and one that cannot
//! be reached gets it when it comes back. Telling it again changes nothing where it is in force already.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::nodes::Nodes;
use super::roster::{Arrival, Hello, Roster};
use super::store::{Save, Slot, Stored};
use crate::bridge::{LinkId, Peer};
use crate::message::agent::{self, *};
use crate::message::client::{self, ClientRequest, ClientResponse, Cursor, News, NotifyAgentsReady};
use crate::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, NodeState, NodeStatus, Now, Outcome,
    RequestId, Timestamp,
};
use crate::plan::{self, InstanceChange, PortRules};
use crate::request::{Answered, Open, Requests};

/// The error of everything that was not answered in time.
pub const TIMED_OUT: &str = "request timed out";

/// How many refusals are remembered, so that they are told once: those who are refused may go by any name.
const REFUSALS: usize = 256;

/// The rules the controller decides by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The controller's own name, under which it tells news of its own.
    pub name: InstanceName,
    pub ports: PortRules,
    /// Whether there is anybody to dial instances that wait to be dialled.
    pub dials: bool,
    /// How long a client waits for a plain answer, and a deployment for its instances to appear.
    pub request_timeout: Duration,
    /// Names this run of the controller in the ids of its requests to agents.
    pub epoch: u64,
}

/// Ties the answer to a client's request to whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    rules: Rules,
    stored: Stored,
    roster: Roster,
    nodes: Nodes,
    requests: Requests<Parent>,
    deployment: Option<Deployment>,
    /// Why agents that gave this name were refused last, since anything else happened to it.
    refusals: BTreeMap<InstanceName, String>,
    next_request: u64,
}

/// What a request to agents is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parent {
    /// The hello on a link that just came up; only the deadline counts.
    Hello(LinkId),
    Welcome,
    Standby,
    /// Ends the nodes that the deployment in progress moves.
    Move,
    Deploy,
    /// An instance came back.
    Redeploy,
    /// The deployment in progress waits for instances to appear; nobody owes an answer, only the deadline counts.
    Gather,
    Nodes(Ticket, RequestId, Vec<NodeStatus>, Vec<Outcome>),
    Verb(Ticket, RequestId, Verb, Vec<Outcome>),
    Output(Ticket, RequestId),
    TestTimeout(Ticket, RequestId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Restart,
}

/// A deployment in progress.
#[derive(Debug, Clone)]
struct Deployment {
    ticket: Ticket,
    reqid: RequestId,
    /// Whether it was asked for by `set_configuration`.
    in_one_step: bool,
    configuration: Configuration,
    /// The request to agents that is under way.
    inner: RequestId,
    phase: Phase,
    /// What is ended where it was, to be started elsewhere.
    moving: BTreeMap<InstanceName, BTreeSet<NodeName>>,
    /// What of that was not meant to run, or had been given up there.
    resting: BTreeSet<NodeName>,
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    Moving,
    Telling,
}

/// What happens to a controller.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Ask(Ticket, ClientRequest),
    LinkUp(LinkId, Peer),
    LinkDown(LinkId, String),
    Mail(LinkId, Vec<ToController>),
    /// The time of [`State::next_deadline`] has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Send(LinkId, ToAgent),
    EndLink(LinkId, String),
    /// Keep dialling that instance.
    Dial(InstanceName, SocketAddr),
    /// Stop dialling it, and end the link if there is one.
    HangUp(InstanceName),
    /// Make this durable, then answer, if anybody is to be answered.
    Save(Vec<Save>, Option<(Ticket, ClientResponse)>),
    Answer(Ticket, ClientResponse),
    /// There will be no answer.
    Silence(Ticket),
    /// Log it and tell observers; `origin` is the agent's epoch and number.
    Publish {
        news: News,
        time: Timestamp,
        origin: Option<(u64, u64)>,
    },
}

impl State {
    /// A controller that finds `stored` at its start, and what it has to do first.
    pub fn new(rules: Rules, stored: Stored, now: Now) -> (Self, Vec<Effect>) {
        let mut state = Self {
            rules,
            stored,
            roster: Roster::default(),
            nodes: Nodes::default(),
            requests: Requests::default(),
            deployment: None,
            refusals: BTreeMap::new(),
            next_request: 0,
        };
        let mut fx = Vec::new();
        if let Some(deployed) = state.stored.deployed.clone() {
            state.nodes.expect(&deployed, NodeState::Unknown, now.wall);
            for instance in &deployed.instances {
                state.roster.need(instance);
                fx.extend(dial(instance));
            }
        }
        (state, fx)
    }

    /// Decides.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut fx = Vec::new();
        match event {
            Event::Ask(ticket, request) => self.ask(ticket, request, now, &mut fx),
            Event::LinkUp(link, peer) => {
                self.roster.link_up(link, peer);
                self.open(Parent::Hello(link), BTreeSet::new(), now.mono + self.rules.request_timeout);
            }
            Event::LinkDown(link, reason) => self.link_down(link, &reason, now, &mut fx),
            Event::Mail(link, messages) => self.mail(link, messages, now, &mut fx),
            Event::Tick => {
                while let Some((reqid, open)) = self.requests.expire(now.mono) {
                    self.expired(reqid, open, now, &mut fx);
                }
            }
        }
        fx
    }

    /// When [`Event::Tick`] is due, if at all.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.requests.next_deadline()
    }

    /// Everything as of `cursor`.
    pub fn status(&self, cursor: Cursor) -> client::GetStatusResponse {
        client::GetStatusResponse {
            cursor,
            instances: self.roster.statuses(),
            nodes: self.nodes.iter().cloned().collect(),
            configuration: self.stored.deployed.as_ref().map(|deployed| deployed.id.clone()),
            deploying: self.deployment.as_ref().map(|deployment| deployment.reqid.clone()),
        }
    }

    // --- what clients ask ---

    fn ask(&mut self, ticket: Ticket, request: ClientRequest, now: Now, fx: &mut Vec<Effect>) {
        use ClientRequest as R;
        match request {
            R::GetInstancesRequest(client::GetInstancesRequest { reqid }) => {
                let mut instances = self.roster.statuses();
                instances.retain(|instance| instance.link == client::LinkState::Up);
                fx.push(Effect::Answer(ticket, client::GetInstancesResponse { reqid, instances }.into()));
            }
            R::StageConfigurationRequest(client::StageConfigurationRequest { reqid, configuration }) => {
                let answer = match self.stage(configuration) {
                    Ok((saves, id)) => {
                        let outcomes = Vec::new();
                        let answer =
                            client::StageConfigurationResponse { reqid, configuration: Some(id), outcomes }.into();
                        Effect::Save(saves, Some((ticket, answer)))
                    }
                    Err(outcomes) => {
                        let configuration = None;
                        let answer = client::StageConfigurationResponse { reqid, configuration, outcomes };
                        Effect::Answer(ticket, answer.into())
                    }
                };
                fx.push(answer);
            }
            R::DeployRequest(client::DeployRequest { reqid }) => self.deploy(ticket, reqid, false, now, fx),
            R::SetConfigurationRequest(client::SetConfigurationRequest { reqid, configuration }) => {
                match self.refusal().map_or_else(|| self.stage(configuration), |refusal| Err(vec![refusal])) {
                    Ok((saves, _)) => {
                        fx.push(Effect::Save(saves, None));
                        self.deploy(ticket, reqid, true, now, fx);
                    }
                    Err(outcomes) => {
                        let answer = client::SetConfigurationResponse { reqid, configuration: None, outcomes };
                        fx.push(Effect::Answer(ticket, answer.into()));
                    }
                }
            }
            R::GetConfigurationRequest(client::GetConfigurationRequest { reqid, deployed }) => {
                let (slot, name) = match deployed {
                    true => (&self.stored.deployed, "deployed"),
                    false => (&self.stored.staged, "staged"),
                };
                let configuration = slot.clone().ok_or_else(|| format!("no {name} configuration available"));
                fx.push(Effect::Answer(ticket, client::GetConfigurationResponse { reqid, configuration }.into()));
            }
            // Answered by the actor, which knows the log; asked of the state alone there is no entry yet.
            R::GetStatusRequest(client::GetStatusRequest) => {
                fx.push(Effect::Answer(ticket, self.status(Cursor { epoch: 0, number: 0 }).into()));
            }
            R::GetNodesRequest(client::GetNodesRequest { reqid }) => self.get_nodes(ticket, reqid, now, fx),
            R::StartRequest(client::StartRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Start, nodes, now, fx);
            }
            R::StopRequest(client::StopRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Stop, nodes, now, fx);
            }
            R::RestartRequest(client::RestartRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Restart, nodes, now, fx);
            }
            R::GetOutputRequest(request) => self.get_output(ticket, request, now, fx),
            R::TestTimeoutRequest(client::TestTimeoutRequest { with_state: false, .. }) => {
                fx.push(Effect::Silence(ticket));
            }
            R::TestTimeoutRequest(client::TestTimeoutRequest { reqid, .. }) => {
                let deadline = now.mono + self.rules.request_timeout;
                self.open(Parent::TestTimeout(ticket, reqid), BTreeSet::new(), deadline);
            }
        }
    }

    /// Checks a configuration and makes it the next to deploy; every complaint is an outcome, sorted by text.
    fn stage(&mut self, staged: Configuration) -> Result<(Vec<Save>, ConfigurationId), Vec<Outcome>> {
        let complaints = plan::validate(&staged, &self.rules.ports);
        if !complaints.is_empty() {
            return Err(complaints.into_iter().map(Outcome::failed).collect());
        }
        let dialled = staged.instances.iter().filter(|instance| dial(instance).is_some() && !self.rules.dials);
        let dialled: Vec<_> = dialled.map(|instance| format!("`{}`", instance.name)).collect();
        if !dialled.is_empty() {
            let names = dialled.join(", ");
            let error =
                format!("this controller cannot dial {names}: name instances without an address, as a lab does");
            return Err(vec![Outcome::failed(error)]);
        }
        let mut ready = staged.clone();
        let hosts = self.hosts(&ready.id);
        plan::resolve_hosts(&mut ready, &hosts);
        if let Some(deployed) = &self.stored.deployed {
            plan::keep_ports(&mut ready, deployed);
        }
        plan::assign_ports(&mut ready, &self.rules.ports).map_err(|error| vec![Outcome::failed(error.to_string())])?;
        let id = staged.id.clone();
        (self.stored.staged, self.stored.ready) = (Some(staged.clone()), Some(ready.clone()));
        let save = |slot, configuration| Save { slot, configuration };
        Ok((vec![save(Slot::Staged, staged), save(Slot::Ready, ready)], id))
    }

    /// Where instances are that do not say so themselves: where their agents were seen, unless that was decided before.
    ///
    /// What agents have under an id never changes, so it can be deployed again.
    fn hosts(&self, id: &ConfigurationId) -> BTreeMap<InstanceName, IpAddr> {
        match self.stored.deployed.as_ref().filter(|deployed| deployed.id == *id) {
            Some(Configuration { instances, .. }) => {
                instances.iter().filter_map(|instance| Some((instance.name.clone(), instance.host?))).collect()
            }
            None => self.roster.seen_hosts(),
        }
    }

    /// Why no deployment can begin now, if none can.
    fn refusal(&self) -> Option<Outcome> {
        let pending = &self.deployment.as_ref()?.reqid;
        Some(Outcome::failed(format!("earlier deployment {pending} still pending")))
    }

    fn deploy(&mut self, ticket: Ticket, reqid: RequestId, in_one_step: bool, now: Now, fx: &mut Vec<Effect>) {
        let refuse = |outcome| Effect::Answer(ticket, deployed(in_one_step, reqid.clone(), None, vec![outcome]));
        if let Some(refusal) = self.refusal() {
            return fx.push(refuse(refusal));
        }
        let Some(configuration) = self.stored.ready.clone() else {
            return fx.push(refuse(Outcome::failed("no configuration available to deploy")));
        };
        self.admit(&configuration.instances, now, fx);
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Gather, BTreeSet::new(), deadline);
        let phase = Phase::Gathering;
        let (moving, resting, outcomes) = Default::default();
        let deployment =
            Deployment { ticket, reqid, in_one_step, configuration, inner, phase, moving, resting, outcomes };
        self.deployment = Some(deployment);
        self.go_on(now, fx);
    }

    /// Makes these instances needed ones. Those that are no longer needed are left alone for now.
    fn admit(&mut self, instances: &[Instance], now: Now, fx: &mut Vec<Effect>) {
        let have: Vec<Instance> = self.roster.needed().cloned().collect();
        for change in plan::diff::instances(&have, instances) {
            match change {
                InstanceChange::Kept(want) => self.roster.need(want),
                InstanceChange::Added(want) => {
                    self.roster.need(want);
                    fx.extend(dial(want));
                    self.welcome(&want.name, now, fx);
                }
                InstanceChange::Reconnected { have, want } => {
                    self.roster.need(want);
                    if let Some(seat) = self.roster.get_mut(&want.name) {
                        seat.ready = false;
                    }
                    fx.push(Effect::HangUp(have.name.clone()));
                    fx.extend(self.roster.link(&want.name).map(|link| {
                        Effect::EndLink(link, "the configuration reaches this instance in another way now".into())
                    }));
                    fx.extend(dial(want));
                }
                InstanceChange::Removed(_) => {}
            }
        }
    }

    /// Sends away the instances that are none of these.
    fn release(&mut self, instances: &[Instance], now: Now, fx: &mut Vec<Effect>) {
        let is_gone = |have: &&Instance| instances.iter().all(|kept| kept.name != have.name);
        let gone: Vec<_> = self.roster.needed().filter(is_gone).map(|have| have.name.clone()).collect();
        for name in gone {
            match self.roster.link(&name).filter(|_| self.stored.deployed.is_some()) {
                // The link stays until it has answered: it could not hear of it otherwise.
                Some(_) => self.stand_by(&name, now, fx),
                None => fx.push(Effect::HangUp(name.clone())),
            }
            self.roster.dispense_with(&name);
        }
    }

    /// Takes the deployment as far as it goes now.
    fn go_on(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        match deployment.phase {
            Phase::Gathering if self.roster.are_ready(&deployment.configuration.instances) => {
                self.requests.close(&deployment.inner.clone());
                self.end_what_moves(now, fx);
            }
            Phase::Gathering | Phase::Moving | Phase::Telling => {}
        }
    }

    /// A node never runs on two instances: what moves is ended where it was before it is started where it will be.
    fn end_what_moves(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let mut moving: BTreeMap<InstanceName, BTreeSet<NodeName>> = BTreeMap::new();
        let mut resting = BTreeSet::new();
        for node in &deployment.configuration.nodes {
            let known = self.nodes.get(&node.name);
            let places = known.map(|known| &known.instance).into_iter().chain(self.nodes.elsewhere(&node.name));
            let is_left = |place: &&InstanceName| {
                // An instance that is out of reach and no longer needed was given up by whoever deploys. One that comes
                // back while others end their nodes is asked, too, before anything is started.
                **place != node.instance
                    && self.roster.link(place).is_some()
                    && !deployment.has_ended(place, &node.name)
            };
            for place in places.filter(is_left) {
                moving.entry(place.clone()).or_default().insert(node.name.clone());
                if known.is_some_and(|known| matches!(known.state, NodeState::Stopped | NodeState::Failed)) {
                    resting.insert(node.name.clone());
                }
            }
        }
        if moving.is_empty() {
            return self.tell_shares(now, fx);
        }
        let deadline = now.mono + self.patience(&deployment.configuration);
        let inner = self.open(Parent::Move, moving.keys().cloned().collect(), deadline);
        for (instance, nodes) in &moving {
            self.send(instance, agent::StopRequest { reqid: inner.clone(), nodes: nodes.clone() }, fx);
        }
        self.enter(Phase::Moving, inner);
        if let Some(deployment) = &mut self.deployment {
            deployment.resting.append(&mut resting);
            for (instance, mut nodes) in moving {
                deployment.moving.entry(instance).or_default().append(&mut nodes);
            }
        }
    }

    /// The point of no return. Whatever becomes of the controller or of a link from now on, no agent is told again to
    /// run what another one may have started already.
    fn tell_shares(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let mut configuration = deployment.configuration.clone();
        let hosts = self.hosts(&configuration.id);
        plan::resolve_hosts(&mut configuration, &hosts);
        let deadline = now.mono + self.patience(&configuration);
        self.release(&configuration.instances, now, fx);
        self.tell_given_up(&configuration, now.wall, fx);
        self.stored.deployed = Some(configuration.clone());
        if configuration.instances.is_empty() {
            return self.complete(now, fx);
        }
        fx.push(Effect::Save(vec![Save { slot: Slot::Deployed, configuration: configuration.clone() }], None));
        publish_own(self.nodes.expect(&configuration, NodeState::Stopped, now.wall), fx);
        let owes = configuration.instances.iter().map(|instance| instance.name.clone()).collect();
        let inner = self.open(Parent::Deploy, owes, deadline);
        for instance in &configuration.instances {
            self.send_share(&instance.name, &configuration, inner.clone(), fx);
        }
        self.enter(Phase::Telling, inner);
    }

    /// Says which nodes are started although they may still run where nobody can reach them.
    fn tell_given_up(&self, configuration: &Configuration, now: Timestamp, fx: &mut Vec<Effect>) {
        let ended = |place: &InstanceName, node: &Node| {
            self.deployment.as_ref().is_some_and(|deployment| deployment.has_ended(place, &node.name))
        };
        for node in &configuration.nodes {
            let Some(NodeStatus { instance: former, .. }) = self.nodes.get(&node.name) else { continue };
            if *former != node.instance && self.roster.link(former).is_none() && !ended(former, node) {
                let msg = format!(
                    "given up with its instance, which is out of reach and no longer needed: it is started on `{}`, \
                     and may run twice until `{former}` comes back or is stopped",
                    node.instance
                );
                let (instance, node) = (former.clone(), Some(node.name.clone()));
                let news = News::Error(NotifyError { seq: 0, time: now, instance, node, msg });
                fx.push(Effect::Publish { news, time: now, origin: None });
            }
        }
    }

    fn enter(&mut self, phase: Phase, inner: RequestId) {
        if let Some(deployment) = &mut self.deployment {
            (deployment.phase, deployment.inner) = (phase, inner);
        }
    }

    /// Every instance has answered.
    fn complete(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(Deployment { ticket, reqid, in_one_step, configuration, outcomes, .. }) = self.deployment.take()
        else {
            return;
        };
        let answer = deployed(in_one_step, reqid, Some(configuration.id.clone()), sorted(outcomes));
        self.forget_lost(now.wall, fx);
        fx.push(Effect::Save(vec![Save { slot: Slot::Deployed, configuration }], Some((ticket, answer))));
    }

    /// The deployment was not completed in time.
    fn time_out(&mut self, owing: BTreeSet<InstanceName>, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &mut self.deployment else { return };
        let missing = self.roster.missing(&deployment.configuration.instances);
        let causes = missing.iter().map(|(name, cause)| Outcome::instance_failed(name, cause.clone()));
        let silent = owing.iter().filter(|name| !missing.contains_key(*name));
        let silent = silent.map(|name| Outcome::instance_failed(name, "did not answer in time"));
        deployment.outcomes.extend(causes.chain(silent).chain([Outcome::failed(TIMED_OUT)]));
        self.abandon(now, fx);
    }

    /// The deployment cannot be completed, as its outcomes say.
    fn abandon(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = self.deployment.take() else { return };
        let Deployment { ticket, reqid, in_one_step, phase, mut moving, resting, outcomes, .. } = deployment;
        fx.push(Effect::Answer(ticket, deployed(in_one_step, reqid, None, sorted(outcomes))));
        if phase != Phase::Telling {
            moving.values_mut().for_each(|nodes| nodes.retain(|node| !resting.contains(node)));
            self.restore(moving, now, fx);
        }
    }

    /// Back to what was deployed: for the instances that it needs, for agents that came back meanwhile, and for nodes
    /// that were to move.
    fn restore(&mut self, moving: BTreeMap<InstanceName, BTreeSet<NodeName>>, now: Now, fx: &mut Vec<Effect>) {
        let instances = self.stored.deployed.as_ref().map_or_else(Vec::new, |deployed| deployed.instances.clone());
        self.release(&instances, now, fx);
        self.admit(&instances, now, fx);
        let Some(deployed) = self.stored.deployed.clone() else { return };
        for instance in &deployed.instances {
            if self.roster.are_ready([instance]) {
                self.redeploy(&instance.name, now, fx);
            }
        }
        let deadline = now.mono + self.patience(&deployed);
        for (instance, mut nodes) in moving {
            nodes.retain(|name| deployed.nodes.iter().any(|node| node.name == *name && node.instance == instance));
            if !nodes.is_empty() && self.roster.link(&instance).is_some() {
                let inner = self.open(Parent::Redeploy, BTreeSet::from([instance.clone()]), deadline);
                self.send(&instance, agent::StartRequest { reqid: inner, nodes }, fx);
            }
        }
    }

    fn get_nodes(&mut self, ticket: Ticket, reqid: RequestId, now: Now, fx: &mut Vec<Effect>) {
        let connected = self.roster.connected();
        if connected.is_empty() {
            let outcomes = vec![Outcome::failed("no instances connected")];
            let answer = client::GetNodesResponse { reqid, nodes: Vec::new(), outcomes };
            return fx.push(Effect::Answer(ticket, answer.into()));
        }
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Nodes(ticket, reqid, Vec::new(), Vec::new()), connected.clone(), deadline);
        for instance in &connected {
            self.send(instance, agent::GetNodesRequest { reqid: inner.clone() }, fx);
        }
    }

    fn verb(
        &mut self,
        ticket: Ticket,
        reqid: RequestId,
        verb: Verb,
        nodes: BTreeSet<NodeName>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let answer = |outcomes| Effect::Answer(ticket, verb.answer(reqid.clone(), outcomes));
        let Some(deployed) = &self.stored.deployed else {
            let error = match self.roster.connected().is_empty() {
                true => "no instances connected",
                false => "no active cluster deployment",
            };
            return fx.push(answer(vec![Outcome::failed(error)]));
        };
        let is_known = |name: &&NodeName| deployed.nodes.iter().any(|node| node.name == **name);
        let mut outcomes: Vec<_> = nodes.iter().filter(|name| !is_known(name)).map(Outcome::unknown_node).collect();
        let mut shares: BTreeMap<InstanceName, BTreeSet<NodeName>> = BTreeMap::new();
        for node in deployed.nodes.iter().filter(|node| nodes.is_empty() || nodes.contains(&node.name)) {
            if let Some(mover) = self.mover_of(node).filter(|_| verb != Verb::Stop) {
                // It would run where it was, and soon where it will be, too.
                let error = format!("it is moving to another instance: deployment {mover} still pending");
                outcomes.push(Outcome::node_failed(&node.instance, &node.name, error, None));
                continue;
            }
            shares.entry(node.instance.clone()).or_default().insert(node.name.clone());
        }
        let deadline = now.mono + plan::patience(&deployed.nodes);
        if self.roster.connected().is_empty() && !shares.is_empty() {
            return fx.push(answer(vec![Outcome::failed("no instances connected")]));
        }
        let (reached, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
            shares.into_iter().partition(|(instance, _)| self.roster.link(instance).is_some());
        for (instance, nodes) in lost {
            let failed = |node| Outcome::node_failed(&instance, node, "its instance is not connected".into(), None);
            outcomes.extend(nodes.iter().map(failed));
        }
        if reached.is_empty() {
            return fx.push(answer(sorted(outcomes)));
        }
        let owes = reached.keys().cloned().collect();
        let inner = self.open(Parent::Verb(ticket, reqid, verb, outcomes), owes, deadline);
        for (instance, nodes) in reached {
            self.send(&instance, verb.order(inner.clone(), nodes), fx);
        }
    }

    fn get_output(&mut self, ticket: Ticket, request: client::GetOutputRequest, now: Now, fx: &mut Vec<Effect>) {
        let client::GetOutputRequest { reqid, node, lines } = request;
        let instance = self.nodes.get(&node).map(|status| status.instance.clone());
        let refusal = match &instance {
            None => Some(Outcome::unknown_node(&node)),
            Some(instance) if self.roster.link(instance).is_none() => {
                Some(Outcome::node_failed(instance, &node, "its instance is not connected".into(), None))
            }
            Some(_) => None,
        };
        let (None, Some(instance)) = (&refusal, instance) else {
            let outcome = refusal.unwrap_or_else(|| Outcome::unknown_node(&node));
            return fx.push(Effect::Answer(ticket, client::GetOutputResponse { reqid, outcome }.into()));
        };
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Output(ticket, reqid), BTreeSet::from([instance.clone()]), deadline);
        self.send(&instance, agent::GetOutputRequest { reqid: inner, node, lines }, fx);
    }

    // --- what agents say ---

    fn mail(&mut self, link: LinkId, messages: Vec<ToController>, now: Now, fx: &mut Vec<Effect>) {
        // Nobody speaks before a hello, nor on a former link of an agent that has a newer one.
        let mut from = self.roster.speaker(link).cloned();
        let before = from.as_ref().and_then(|name| self.roster.news(name));
        for message in messages {
            match (message, &from) {
                (ToController::NotifyAgentHello(hello), _) => {
                    self.hello(link, &hello, now, fx);
                    from = self.roster.speaker(link).cloned();
                }
                (message, Some(from)) => self.heard(from, message, now, fx),
                (_, None) => {}
            }
        }
        let after = from.as_ref().and_then(|name| self.roster.news(name));
        if let Some((epoch, seq)) = after.filter(|_| before.is_some() && before != after) {
            fx.push(Effect::Send(link, NewsReceived { epoch, seq }.into()));
        }
    }

    fn hello(&mut self, link: LinkId, hello: &NotifyAgentHello, now: Now, fx: &mut Vec<Effect>) {
        let accepted = match hello.api_version {
            API_VERSION => self.roster.hello(link, hello, now.wall),
            other => Hello::Refused(format!(
                "agent `{}` speaks version {other} of the agent API, this controller speaks {API_VERSION}: \
                 run the same release of watchpost on both",
                hello.instance
            )),
        };
        let (seen, former) = match accepted {
            Hello::Accepted { seen, former } => (seen, former),
            Hello::Refused(reason) => {
                self.tell_refusal(&hello.instance, &reason, now.wall, fx);
                fx.push(Effect::Send(link, AgentRefused { reason: reason.clone() }.into()));
                return fx.push(Effect::EndLink(link, reason));
            }
        };
        self.refusals.remove(&hello.instance);
        let was_to_stand_by = self.is_to_stand_by(&hello.instance);
        if let Some(former) = former {
            fx.push(Effect::EndLink(former, "the agent has a newer link".into()));
            self.give_up_on(&hello.instance, fx);
        }
        fx.push(Effect::Send(link, NewsReceived { epoch: hello.epoch, seq: seen }.into()));
        if was_to_stand_by {
            self.stand_by(&hello.instance, now, fx);
        }
        self.tell_log(&hello.instance, format!("connected, running watchpost {}", hello.version), now.wall, fx);
        self.welcome(&hello.instance, now, fx);
    }

    /// An agent that is refused tries on and on: each cause is told once.
    fn tell_refusal(&mut self, name: &InstanceName, reason: &str, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.refusals.get(name).is_some_and(|known| known == reason) {
            return;
        }
        if self.refusals.len() >= REFUSALS {
            self.refusals.clear();
        }
        self.refusals.insert(name.clone(), reason.to_owned());
        self.tell_error(name, format!("refused: {reason}"), now, fx);
    }

    fn heard(&mut self, from: &InstanceName, message: ToController, now: Now, fx: &mut Vec<Effect>) {
        use ToController as M;
        match message {
            M::NotifyAgentHello(_) => {} // taken before
            M::NotifyChange(change) => {
                if let Some(origin) = self.arrived(from, change.seq, now.wall, fx) {
                    let change = NotifyChange { instance: from.clone(), ..change };
                    let time = change.time;
                    if let Some(change) = self.nodes.told(change) {
                        fx.push(Effect::Publish { news: News::Change(change), time, origin: Some(origin) });
                    }
                }
            }
            M::NotifyError(error) => {
                if let Some(origin) = self.arrived(from, error.seq, now.wall, fx) {
                    let error = NotifyError { instance: from.clone(), ..error };
                    let time = error.time;
                    fx.push(Effect::Publish { news: News::Error(error), time, origin: Some(origin) });
                }
            }
            M::NotifyLog(log) => {
                if let Some(origin) = self.arrived(from, log.seq, now.wall, fx) {
                    let log = NotifyLog { instance: from.clone(), ..log };
                    let time = log.time;
                    fx.push(Effect::Publish { news: News::Log(log), time, origin: Some(origin) });
                }
            }
            M::NotifySnapshot(snapshot) => self.snapshot(from, snapshot, now, fx),
            M::AgentWelcomeResponse(AgentWelcomeResponse { reqid, outcome }) => {
                if let Answered::Complete(_) = self.requests.answer(&reqid, from, |_| {}) {
                    self.welcomed(from, &outcome, now, fx);
                }
            }
            M::AgentStandbyResponse(AgentStandbyResponse { reqid, .. }) => {
                if let Answered::Complete(Parent::Standby) = self.requests.answer(&reqid, from, |_| {}) {
                    self.let_go(from, fx);
                }
            }
            M::SetConfigurationResponse(SetConfigurationResponse { reqid, outcomes }) => {
                self.shares_answered(from, &reqid, outcomes, now, fx);
            }
            M::GetNodesResponse(GetNodesResponse { reqid, nodes }) => {
                let note = |parent: &mut Parent| {
                    if let Parent::Nodes(_, _, all, outcomes) = parent {
                        all.extend(nodes);
                        outcomes.push(Outcome::instance_done(from));
                    }
                };
                if let Answered::Complete(parent) = self.requests.answer(&reqid, from, note) {
                    fx.extend(parent.answer(Vec::new()));
                }
            }
            M::StartResponse(StartResponse { reqid, outcomes })
            | M::RestartResponse(RestartResponse { reqid, outcomes }) => self.verb_answered(from, &reqid, outcomes, fx),
            M::StopResponse(StopResponse { reqid, outcomes }) => self.stop_answered(from, &reqid, outcomes, now, fx),
            M::GetOutputResponse(GetOutputResponse { reqid, outcome }) => {
                if let Answered::Complete(parent) = self.requests.answer(&reqid, from, |_| {}) {
                    fx.extend(parent.answer(vec![outcome]));
                }
            }
        }
    }

    /// Whether a piece of news is new, and where it comes from if so. Numbers that were left out are told first.
    fn arrived(&mut self, from: &InstanceName, seq: u64, now: Timestamp, fx: &mut Vec<Effect>) -> Option<(u64, u64)> {
        match self.roster.arrived(from, seq) {
            Arrival::Known => None,
            Arrival::New { epoch, missed } => {
                if missed > 0 {
                    self.tell_missed(from, seq - missed, seq - 1, now, fx);
                }
                Some((epoch, seq))
            }
        }
    }

    fn tell_missed(&self, from: &InstanceName, first: u64, last: u64, now: Timestamp, fx: &mut Vec<Effect>) {
        let msg = format!("news {first} to {last} of this agent is lost: too much of it waited for the link");
        self.tell_error(from, msg, now, fx);
    }

    fn snapshot(&mut self, from: &InstanceName, snapshot: NotifySnapshot, now: Now, fx: &mut Vec<Effect>) {
        let NotifySnapshot { seq, nodes, configuration, .. } = snapshot;
        let before = self.roster.news(from).map_or(0, |(_, before)| before);
        if let (Arrival::New { .. }, true) = (self.roster.arrived(from, seq), before > 0) {
            self.tell_missed(from, before + 1, seq, now.wall, fx);
        }
        if let Some(Deployment { phase: Phase::Moving, moving, inner, .. }) = &self.deployment
            && let Some(nodes) = moving.get(from).filter(|_| self.owes(from, inner))
        {
            // It came back in the middle: what it was asked may have been lost with the link.
            self.send(from, agent::StopRequest { reqid: inner.clone(), nodes: nodes.clone() }, fx);
        }
        let has_work = configuration.is_some() || !nodes.is_empty();
        let meant: BTreeSet<NodeName> = self.meant().map_or_else(BTreeSet::new, |meant| {
            meant.nodes.iter().filter(|node| node.instance == *from).map(|node| node.name.clone()).collect()
        });
        publish_own(self.nodes.reconcile(from, nodes, |name| meant.contains(name), now.wall), fx);
        // It left the cluster while it was out of reach. A controller that knows of no cluster stops nobody.
        let is_needed = self.roster.get(from).is_some_and(|seat| seat.needed.is_some());
        if has_work && !is_needed && self.stored.deployed.is_some() {
            self.stand_by(from, now, fx);
        }
    }

    fn welcome(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let is_waiting = |seat: &&super::roster::Seat| seat.needed.is_some() && !seat.ready && seat.link.is_some();
        if self.roster.get(name).filter(is_waiting).is_some() {
            let deadline = now.mono + self.rules.request_timeout;
            let reqid = self.open(Parent::Welcome, BTreeSet::from([name.clone()]), deadline);
            self.send(name, AgentWelcomeRequest { reqid }, fx);
        }
    }

    fn stand_by(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        if self.roster.link(name).is_some() {
            let has = self.stored.deployed.iter().flat_map(|deployed| &deployed.nodes);
            let deadline = now.mono + plan::patience(has);
            let reqid = self.open(Parent::Standby, BTreeSet::from([name.clone()]), deadline);
            self.send(name, AgentStandbyRequest { reqid }, fx);
        }
    }

    fn is_to_stand_by(&self, name: &InstanceName) -> bool {
        let owed = self.requests.owed_by(name);
        owed.iter().any(|reqid| self.requests.get(reqid).is_some_and(|open| open.parent == Parent::Standby))
    }

    /// The instance has stood by, or will not say so: nobody dials it any more.
    fn let_go(&self, name: &InstanceName, fx: &mut Vec<Effect>) {
        if self.roster.get(name).is_none_or(|seat| seat.needed.is_none()) {
            fx.push(Effect::HangUp(name.clone()));
        }
    }

    fn welcomed(&mut self, from: &InstanceName, outcome: &Outcome, now: Now, fx: &mut Vec<Effect>) {
        if let Some(error) = &outcome.error {
            return self.tell_error(from, format!("refused the welcome: {error}"), now.wall, fx);
        }
        match self.roster.get_mut(from) {
            Some(seat) if seat.needed.is_some() => seat.ready = true,
            // No longer wanted since it was asked.
            _ => return self.stand_by(from, now, fx),
        }
        let needed: Vec<Instance> = match &self.deployment {
            Some(deployment) => deployment.configuration.instances.clone(),
            None => self.roster.needed().cloned().collect(),
        };
        if self.roster.are_ready(&needed) {
            let instances = needed.into_iter().map(|instance| instance.name).collect();
            let news = News::AgentsReady(NotifyAgentsReady { instances });
            fx.push(Effect::Publish { news, time: now.wall, origin: None });
        }
        match &self.deployment {
            // It came back in the middle: what it was asked may have been lost with the link.
            Some(Deployment { phase: Phase::Telling, configuration, inner, .. }) if self.owes(from, inner) => {
                self.send_share(from, configuration, inner.clone(), fx);
            }
            Some(Deployment { phase: Phase::Gathering | Phase::Moving, .. }) => self.go_on(now, fx),
            _ => self.redeploy(from, now, fx),
        }
    }

    fn owes(&self, name: &InstanceName, reqid: &RequestId) -> bool {
        self.requests.get(reqid).is_some_and(|open| open.owes.contains(name))
    }

    /// Gives an instance that is new here what is deployed; what it runs already keeps running.
    fn redeploy(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployed) = self.stored.deployed.clone().filter(|deployed| deployed.instance(name).is_some()) else {
            return;
        };
        let deadline = now.mono + self.patience(&deployed);
        let inner = self.open(Parent::Redeploy, BTreeSet::from([name.clone()]), deadline);
        self.send_share(name, &deployed, inner, fx);
    }

    fn shares_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let answered = self.requests.answer(reqid, from, |_| {});
        let (is_deployment, is_complete) = match &answered {
            Answered::Late => return,
            Answered::Waiting(parent) => (**parent == Parent::Deploy, false),
            Answered::Complete(parent) => (*parent == Parent::Deploy, true),
        };
        if !is_deployment {
            for outcome in outcomes.iter().filter(|outcome| !outcome.is_success()) {
                let error = outcome.error.as_deref().unwrap_or_default();
                let node = outcome.node.as_ref().map_or_else(String::new, |node| format!("node {node}: "));
                self.tell_error(from, format!("not as deployed: {node}{error}"), now.wall, fx);
            }
            return;
        }
        if let Some(deployment) = &mut self.deployment {
            deployment.outcomes.extend(outcomes);
        }
        if is_complete {
            self.complete(now, fx);
        }
    }

    fn verb_answered(&mut self, from: &InstanceName, reqid: &RequestId, outcomes: Vec<Outcome>, fx: &mut Vec<Effect>) {
        let note = |parent: &mut Parent| {
            if let Parent::Verb(_, _, _, all) = parent {
                all.extend(outcomes);
            }
        };
        if let Answered::Complete(parent) = self.requests.answer(reqid, from, note) {
            fx.extend(parent.answer(Vec::new()));
        }
    }

    fn stop_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let is_move = self.requests.get_mut(reqid).is_some_and(|open| open.parent == Parent::Move);
        if !is_move {
            return self.verb_answered(from, reqid, outcomes, fx);
        }
        if let Some(deployment) = &mut self.deployment {
            deployment.outcomes.extend(outcomes.into_iter().filter(|outcome| !outcome.is_success()));
        }
        if let Answered::Complete(_) = self.requests.answer(reqid, from, |_| {}) {
            // What would not end must not be started a second time.
            let stuck = self.deployment.as_ref().is_some_and(|deployment| !deployment.outcomes.is_empty());
            match stuck {
                true => self.abandon(now, fx),
                false => self.end_what_moves(now, fx),
            }
        }
    }

    // --- what ends unanswered ---

    fn link_down(&mut self, link: LinkId, reason: &str, now: Now, fx: &mut Vec<Effect>) {
        let Some(name) = self.roster.link_down(link, reason, now.wall) else { return };
        self.refusals.remove(&name);
        self.tell_error(&name, format!("out of reach: {reason}"), now.wall, fx);
        publish_own(self.nodes.lose(&name, &format!("its agent is out of reach: {reason}"), now.wall), fx);
        self.give_up_on(&name, fx);
        if self.roster.get(&name).is_some_and(|seat| seat.needed.is_none()) {
            self.roster.dispense_with(&name);
            fx.push(Effect::HangUp(name));
            // It was on its way out, and nobody will tell the rest.
            self.forget_lost(now.wall, fx);
        }
    }

    /// The link to an instance is gone, with whatever it was asked on it, or answered.
    fn give_up_on(&mut self, name: &InstanceName, fx: &mut Vec<Effect>) {
        for reqid in self.requests.owed_by(name) {
            self.give_up(name, &reqid, fx);
        }
    }

    fn give_up(&mut self, name: &InstanceName, reqid: &RequestId, fx: &mut Vec<Effect>) {
        let Some(open) = self.requests.get_mut(reqid) else { return };
        let lost = Outcome::instance_failed(name, "the link was lost before it answered");
        match &mut open.parent {
            // It is asked again when it comes back, until the deadline.
            Parent::Deploy | Parent::Move => {}
            // The next link begins with a welcome of its own.
            Parent::Welcome | Parent::Standby | Parent::Redeploy => drop(self.requests.close(reqid)),
            Parent::Hello(_) | Parent::Gather | Parent::TestTimeout(..) => {}
            Parent::Output(..) => {
                if let Answered::Complete(parent) = self.requests.answer(reqid, name, |_| {}) {
                    fx.extend(parent.answer(vec![lost]));
                }
            }
            Parent::Nodes(_, _, _, outcomes) | Parent::Verb(_, _, _, outcomes) => {
                outcomes.push(lost);
                if let Answered::Complete(parent) = self.requests.answer(reqid, name, |_| {}) {
                    fx.extend(parent.answer(Vec::new()));
                }
            }
        }
    }

    fn expired(&mut self, reqid: RequestId, open: Open<Parent>, now: Now, fx: &mut Vec<Effect>) {
        let Open { parent, owes, .. } = open;
        match parent {
            Parent::Gather | Parent::Move | Parent::Deploy => {
                if self.deployment.as_ref().is_some_and(|deployment| deployment.inner == reqid) {
                    self.time_out(owes, now, fx);
                }
            }
            Parent::Hello(link) => {
                if self.roster.is_silent(link) {
                    let reason = format!("no agent said hello on it within {:?}", self.rules.request_timeout);
                    fx.push(Effect::EndLink(link, reason));
                }
            }
            Parent::Welcome => {
                for name in owes {
                    self.tell_error(&name, "did not answer the welcome in time".into(), now.wall, fx);
                    self.welcome(&name, now, fx);
                }
            }
            parent @ (Parent::Standby | Parent::Redeploy) => {
                for name in owes {
                    self.tell_error(&name, "did not answer in time".into(), now.wall, fx);
                    if parent == Parent::Standby {
                        self.let_go(&name, fx);
                    }
                }
            }
            parent @ (Parent::Nodes(..) | Parent::Verb(..) | Parent::Output(..) | Parent::TestTimeout(..)) => {
                let silent = owes.iter().map(|name| Outcome::instance_failed(name, "did not answer in time"));
                fx.extend(parent.answer(silent.chain([Outcome::failed(TIMED_OUT)]).collect()));
            }
        }
    }

    // --- helpers ---

    fn open(&mut self, parent: Parent, owes: BTreeSet<InstanceName>, deadline: Instant) -> RequestId {
        self.next_request += 1;
        let text = format!("c{:x}-{}", self.rules.epoch, self.next_request);
        // Twenty letters, digits and a dash at most.
        let reqid = RequestId::new(&text).expect("a short printable id");
        self.requests.open(reqid.clone(), Open { parent, owes, deadline });
        reqid
    }

    /// How long agents may take to go from what is deployed to `configuration`.
    fn patience(&self, configuration: &Configuration) -> Duration {
        let deployed = self.stored.deployed.iter().flat_map(|deployed| &deployed.nodes);
        plan::patience(deployed.chain(&configuration.nodes))
    }

    fn send(&self, to: &InstanceName, message: impl Into<ToAgent>, fx: &mut Vec<Effect>) {
        fx.extend(self.roster.link(to).map(|link| Effect::Send(link, message.into())));
    }

    fn send_share(&self, to: &InstanceName, whole: &Configuration, reqid: RequestId, fx: &mut Vec<Effect>) {
        self.send(to, agent::SetConfigurationRequest { reqid, configuration: whole.share_of(to) }, fx);
    }

    /// The deployment that is ending that node where it is.
    fn mover_of(&self, node: &Node) -> Option<&RequestId> {
        let deployment = self.deployment.as_ref().filter(|deployment| deployment.phase == Phase::Moving)?;
        deployment.has_ended(&node.instance, &node.name).then_some(&deployment.reqid)
    }

    /// What is, or is about to be, deployed.
    fn meant(&self) -> Option<&Configuration> {
        let deploying = self.deployment.as_ref().map(|deployment| &deployment.configuration);
        deploying.or(self.stored.deployed.as_ref())
    }

    /// Forgets nodes that are out of reach and not meant to be. A controller that means nothing forgets nothing.
    fn forget_lost(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let Some(meant) = self.meant() else { return };
        let meant: BTreeSet<NodeName> = meant.nodes.iter().map(|node| node.name.clone()).collect();
        publish_own(self.nodes.forget_lost(|name| meant.contains(name), now), fx);
    }

    fn tell_error(&self, instance: &InstanceName, msg: String, time: Timestamp, fx: &mut Vec<Effect>) {
        let news = News::Error(NotifyError { seq: 0, time, instance: instance.clone(), node: None, msg });
        fx.push(Effect::Publish { news, time, origin: None });
    }

    fn tell_log(&self, instance: &InstanceName, msg: String, time: Timestamp, fx: &mut Vec<Effect>) {
        let news = News::Log(NotifyLog { seq: 0, time, instance: instance.clone(), node: None, msg });
        fx.push(Effect::Publish { news, time, origin: None });
    }
}

impl Deployment {
    /// Whether that node has been, or is being, ended there.
    fn has_ended(&self, place: &InstanceName, node: &NodeName) -> bool {
        self.moving.get(place).is_some_and(|nodes| nodes.contains(node))
    }
}

impl Parent {
    /// The answer to the client that asked, with `more` besides what has come together; `None` if no client did.
    fn answer(self, more: Vec<Outcome>) -> Option<Effect> {
        let joined = |mut outcomes: Vec<Outcome>| {
            outcomes.extend(more.clone());
            sorted(outcomes)
        };
        let first = || more.first().cloned().unwrap_or_else(|| Outcome::failed(TIMED_OUT));
        let (ticket, response) = match self {
            Self::Hello(_)
            | Self::Welcome
            | Self::Standby
            | Self::Move
            | Self::Deploy
            | Self::Redeploy
            | Self::Gather => {
                return None;
            }
            Self::Nodes(ticket, reqid, mut nodes, outcomes) => {
                nodes.sort_by(|a, b| a.node.cmp(&b.node));
                (ticket, client::GetNodesResponse { reqid, nodes, outcomes: joined(outcomes) }.into())
            }
            Self::Verb(ticket, reqid, verb, outcomes) => (ticket, verb.answer(reqid, joined(outcomes))),
            Self::Output(ticket, reqid) => (ticket, client::GetOutputResponse { reqid, outcome: first() }.into()),
            Self::TestTimeout(ticket, reqid) => {
                (ticket, client::TestTimeoutResponse { reqid, outcome: Outcome::failed(TIMED_OUT) }.into())
            }
        };
        Some(Effect::Answer(ticket, response))
    }
}

impl Verb {
    fn order(self, reqid: RequestId, nodes: BTreeSet<NodeName>) -> ToAgent {
        match self {
            Self::Start => agent::StartRequest { reqid, nodes }.into(),
            Self::Stop => agent::StopRequest { reqid, nodes }.into(),
            Self::Restart => agent::RestartRequest { reqid, nodes }.into(),
        }
    }

    fn answer(self, reqid: RequestId, outcomes: Vec<Outcome>) -> ClientResponse {
        match self {
            Self::Start => client::StartResponse { reqid, outcomes }.into(),
            Self::Stop => client::StopResponse { reqid, outcomes }.into(),
            Self::Restart => client::RestartResponse { reqid, outcomes }.into(),
        }
    }
}

/// The answer to a deployment, in the shape that it was asked for.
fn deployed(
    in_one_step: bool,
    reqid: RequestId,
    configuration: Option<ConfigurationId>,
    outcomes: Vec<Outcome>,
) -> ClientResponse {
    match in_one_step {
        true => client::SetConfigurationResponse { reqid, configuration, outcomes }.into(),
        false => client::DeployResponse { reqid, configuration, outcomes }.into(),
    }
}

/// By node, then what speaks for an instance, then what speaks for the whole.
fn sorted(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let key = |outcome: &Outcome| {
        (outcome.node.is_none(), outcome.node.clone(), outcome.instance.is_none(), outcome.instance.clone())
    };
    outcomes.sort_by_cached_key(key);
    outcomes
}

fn publish_own(changes: Vec<NotifyChange>, fx: &mut Vec<Effect>) {
    fx.extend(changes.into_iter().map(|change| {
        let time = change.time;
        Effect::Publish { news: News::Change(change), time, origin: None }
    }));
}

/// The order to dial an instance, if it is the controller that dials it.
fn dial(instance: &Instance) -> Option<Effect> {
    let address = SocketAddr::new(instance.host?, instance.port?);
    Some(Effect::Dial(instance.name.clone(), address))
}

#[cfg(test)]
mod tests;

//! One deployment: gathering, moving, telling.
//!
//! Until it tells agents their shares it can be given up, and then everything is as it was. From there on it is what is
//! deployed, whatever becomes of links and agents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Effect, Parent, State, TIMED_OUT, Ticket, publish_own, sorted};
use crate::controller::kept::{Head, Kept};
use crate::controller::store::{Save, Slot};
use crate::message::agent::{self, NotifyError};
use crate::message::client::{self, ClientResponse, News};
use crate::model::{
    ConfigurationId, Instance, InstanceName, NodeName, NodeState, NodeStatus, Now, Outcome, RequestId, Timestamp,
};
use crate::plan::{self, InstanceChange};
use crate::request::Answered;

/// A deployment in progress.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    /// Who waits for the answer, until it was answered.
    ticket: Option<Ticket>,
    pub reqid: RequestId,
    /// Whether it was asked for by `set_configuration`.
    in_one_step: bool,
    configuration: Kept,
    /// The request to agents that is under way.
    inner: RequestId,
    phase: Phase,
    /// What is ended where it was, to be started elsewhere.
    moving: BTreeMap<InstanceName, BTreeSet<NodeName>>,
    /// What of that was not meant to run, or had been given up there.
    resting: BTreeSet<NodeName>,
    /// Since when nodes that have to change were in the state that they had when agents were told.
    before: BTreeMap<NodeName, Timestamp>,
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    Moving,
    Telling,
}

impl State {
    /// Why no deployment can begin now, if none can.
    pub(super) fn refusal(&self) -> Option<Outcome> {
        let pending = &self.deployment.as_ref()?.reqid;
        Some(Outcome::failed(format!("earlier deployment {pending} still pending")))
    }

    pub(super) fn deploy(
        &mut self,
        ticket: Ticket,
        reqid: RequestId,
        in_one_step: bool,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let refuse = |outcome| Effect::Answer(ticket, deployed(in_one_step, reqid.clone(), None, vec![outcome]));
        if let Some(refusal) = self.refusal() {
            return fx.push(refuse(refusal));
        }
        let Some(configuration) = self.shelf.get(Slot::Ready).cloned() else {
            return fx.push(refuse(Outcome::failed("no configuration available to deploy")));
        };
        self.admit(&configuration.instances, now, fx);
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Gather, BTreeSet::new(), deadline);
        let phase = Phase::Gathering;
        let (moving, resting, before, outcomes) = Default::default();
        let deployment = Deployment {
            ticket: Some(ticket),
            reqid,
            in_one_step,
            configuration,
            inner,
            phase,
            moving,
            resting,
            before,
            outcomes,
        };
        self.deployment = Some(deployment);
        self.go_on(now, fx);
    }

    /// Where instances are that do not say so themselves: where their agents were seen, unless that was decided before.
    ///
    /// What agents have under an id never changes, so it can be deployed again.
    pub(super) fn hosts(&self, id: &ConfigurationId) -> BTreeMap<InstanceName, IpAddr> {
        match self.shelf.deployed().filter(|deployed| deployed.id == *id) {
            Some(Kept { instances, .. }) => {
                instances.iter().filter_map(|instance| Some((instance.name.clone(), instance.host?))).collect()
            }
            None => self.roster.seen_hosts(),
        }
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

    /// An instance will be no part of it: whoever deploys need not wait for the others to appear.
    pub(super) fn cannot_gather(&mut self, name: &InstanceName, why: &Outcome, now: Now, fx: &mut Vec<Effect>) {
        let is_meant =
            |deployment: &&mut Deployment| deployment.phase == Phase::Gathering && deployment.configuration.has(name);
        let Some(deployment) = self.deployment.as_mut().filter(is_meant) else { return };
        deployment.outcomes.push(why.clone());
        self.requests.close(&deployment.inner.clone());
        self.abandon(now, fx);
    }

    /// A node never runs on two instances: what moves is ended where it was before it is started where it will be.
    fn end_what_moves(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let mut moving: BTreeMap<InstanceName, BTreeSet<NodeName>> = BTreeMap::new();
        let mut resting = BTreeSet::new();
        for node in deployment.configuration.heads() {
            let known = self.nodes.get(node.name);
            // Where it certainly is not there is nothing to end.
            let present = known.filter(|_| !self.nodes.is_absent(node.name));
            let places = present.map(|known| &known.instance).into_iter().chain(self.nodes.elsewhere(node.name));
            let is_left = |place: &&InstanceName| {
                // An instance that is out of reach and no longer needed was given up by whoever deploys. One that comes
                // back while others end their nodes is asked, too, before anything is started.
                place.as_str() != node.instance
                    && self.roster.link(place).is_some()
                    && !deployment.has_ended(place, node.name)
            };
            for place in places.filter(is_left) {
                moving.entry(place.clone()).or_default().insert(node.name());
                if known.is_some_and(|known| matches!(known.state, NodeState::Stopped | NodeState::Failed)) {
                    resting.insert(node.name());
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

    /// It came back in the middle: what it was asked may have been lost with the link.
    pub(super) fn ask_again_what_moves(&self, from: &InstanceName, fx: &mut Vec<Effect>) {
        if let Some(Deployment { phase: Phase::Moving, moving, inner, .. }) = &self.deployment
            && let Some(nodes) = moving.get(from).filter(|_| self.owes(from, inner))
        {
            self.send(from, agent::StopRequest { reqid: inner.clone(), nodes: nodes.clone() }, fx);
        }
    }

    pub(super) fn move_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
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

    /// The point of no return. Whatever becomes of the controller or of a link from now on, no agent is told again to
    /// run what another one may have started already.
    fn tell_shares(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(staged) = self.deployment.as_ref().map(|deployment| &deployment.configuration) else { return };
        let configuration = staged.with_hosts(&self.hosts(&staged.id));
        let deadline = now.mono + self.patience(&configuration);
        self.release(&configuration.instances, now, fx);
        self.tell_given_up(&configuration, now.wall, fx);
        self.note_what_changes(&configuration);
        let configuration = self.shelf.put(Slot::Deployed, configuration).clone();
        if let Some(deployment) = &mut self.deployment {
            deployment.configuration = configuration.clone();
        }
        if configuration.instances.is_empty() {
            return self.complete(now, fx);
        }
        self.forget_lost(now.wall, fx);
        publish_own(self.nodes.expect(&configuration, NodeState::Stopped, now.wall), fx);
        let owes = configuration.instances.iter().map(|instance| instance.name.clone()).collect();
        let inner = self.open(Parent::Deploy, owes, deadline);
        for instance in &configuration.instances {
            self.send_share(&instance.name, &configuration, inner.clone(), fx);
        }
        fx.push(Effect::Save(vec![Save { slot: Slot::Deployed, configuration }], None));
        self.enter(Phase::Telling, inner);
    }

    fn note_what_changes(&mut self, configuration: &Kept) {
        let since = |node: Head<'_>| self.nodes.get(node.name).map(|known| (known.node.clone(), known.since));
        let before = match self.shelf.deployed() {
            Some(former) => configuration.changed_since(former).filter_map(since).collect(),
            None => configuration.heads().filter_map(since).collect(),
        };
        if let Some(deployment) = &mut self.deployment {
            deployment.before = before;
        }
    }

    /// Answers whoever deploys, with what is known by now. The deployment itself goes on.
    pub(super) fn answer_deployer(&mut self, ticket: Ticket, fx: &mut Vec<Effect>) {
        let Some(deployment) = self.deployment.as_mut().filter(|deployment| deployment.ticket == Some(ticket)) else {
            return;
        };
        deployment.ticket = None;
        let Deployment { reqid, in_one_step, configuration, inner, phase, before, outcomes, .. } = &*deployment;
        let mut outcomes = outcomes.clone();
        let owing = self.requests.get(inner).map(|open| &open.owes);
        let is_open =
            |node: &Head<'_>| *phase == Phase::Telling && owing.is_some_and(|owing| owing.contains(node.instance));
        for node in configuration.heads().filter(is_open) {
            let status = self.nodes.get(node.name);
            let is_up = |status: &&NodeStatus| {
                status.state == NodeState::Running && before.get(node.name) != Some(&status.since)
            };
            let (instance, name) = (node.instance(), node.name());
            outcomes.push(match status.filter(is_up) {
                Some(_) => Outcome::node_done(&instance, &name),
                None => Outcome::node_failed(&instance, &name, TIMED_OUT.into(), None),
            });
        }
        outcomes.push(Outcome::failed(TIMED_OUT));
        // From telling on it is what is deployed, whatever becomes of the nodes that are not up yet.
        let decided = (*phase == Phase::Telling).then(|| configuration.id.clone());
        fx.push(Effect::Answer(ticket, deployed(*in_one_step, reqid.clone(), decided, sorted(outcomes))));
    }

    /// Says which nodes are started although they may still run where nobody can reach them.
    fn tell_given_up(&self, configuration: &Kept, now: Timestamp, fx: &mut Vec<Effect>) {
        let ended = |place: &InstanceName, node: &str| {
            self.deployment.as_ref().is_some_and(|deployment| deployment.has_ended(place, node))
        };
        for node in configuration.heads() {
            let Some(NodeStatus { instance: former, .. }) = self.nodes.get(node.name) else { continue };
            if former.as_str() != node.instance && self.roster.link(former).is_none() && !ended(former, node.name) {
                let msg = format!(
                    "given up with its instance, which is out of reach and no longer needed: it is started on `{}`, \
                     and may run twice until `{former}` comes back or is stopped",
                    node.instance
                );
                let (instance, node) = (former.clone(), Some(node.name()));
                let news = News::Error(NotifyError { seq: 0, time: now, instance, node, msg });
                fx.push(Effect::Publish { news, time: now, origin: None });
            }
        }
    }

    /// Sends away the instances that are none of these.
    fn release(&mut self, instances: &[Instance], now: Now, fx: &mut Vec<Effect>) {
        let is_gone = |have: &&Instance| instances.iter().all(|kept| kept.name != have.name);
        let gone: Vec<_> = self.roster.needed().filter(is_gone).map(|have| have.name.clone()).collect();
        for name in gone {
            match self.roster.link(&name).filter(|_| self.shelf.deployed().is_some()) {
                // The link stays until it has answered: it could not hear of it otherwise.
                Some(_) => self.stand_by(&name, now, fx),
                None => fx.push(Effect::HangUp(name.clone())),
            }
            self.roster.dispense_with(&name);
        }
    }

    /// An instance is ready: it is given what it is to run, as soon as that is known.
    pub(super) fn take_up(&mut self, from: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        match &self.deployment {
            // It came back in the middle: what it was asked may have been lost with the link.
            Some(Deployment { phase: Phase::Telling, configuration, inner, .. }) if self.owes(from, inner) => {
                let (configuration, inner) = (configuration.clone(), inner.clone());
                self.send_share(from, &configuration, inner, fx);
            }
            Some(Deployment { phase: Phase::Gathering | Phase::Moving, .. }) => self.go_on(now, fx),
            _ => self.redeploy(from, now, fx),
        }
    }

    /// Gives an instance that is new here what is deployed; what it runs already keeps running.
    fn redeploy(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployed) = self.shelf.deployed().filter(|deployed| deployed.has(name)).cloned() else {
            return;
        };
        let deadline = now.mono + self.patience(&deployed);
        let inner = self.open(Parent::Redeploy, BTreeSet::from([name.clone()]), deadline);
        self.send_share(name, &deployed, inner, fx);
    }

    pub(super) fn shares_answered(
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

    /// Every instance has answered.
    fn complete(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(Deployment { ticket, reqid, in_one_step, configuration, outcomes, .. }) = self.deployment.take()
        else {
            return;
        };
        let answer = deployed(in_one_step, reqid, Some(configuration.id.clone()), sorted(outcomes));
        self.forget_lost(now.wall, fx);
        let then = ticket.map(|ticket| (ticket, answer));
        fx.push(Effect::Save(vec![Save { slot: Slot::Deployed, configuration }], then));
    }

    /// The deployment was not completed in time.
    pub(super) fn time_out(
        &mut self,
        inner: &RequestId,
        owing: &BTreeSet<InstanceName>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(deployment) = self.deployment.as_mut().filter(|deployment| deployment.inner == *inner) else { return };
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
        let answer = |ticket| Effect::Answer(ticket, deployed(in_one_step, reqid, None, sorted(outcomes)));
        fx.extend(ticket.map(answer));
        if phase != Phase::Telling {
            moving.values_mut().for_each(|nodes| nodes.retain(|node| !resting.contains(node)));
            self.restore(moving, now, fx);
        }
    }

    /// Back to what was deployed: for the instances that it needs, for agents that came back meanwhile, and for nodes
    /// that were to move.
    fn restore(&mut self, moving: BTreeMap<InstanceName, BTreeSet<NodeName>>, now: Now, fx: &mut Vec<Effect>) {
        let instances = self.shelf.deployed().map_or_else(Vec::new, |deployed| deployed.instances.clone());
        self.release(&instances, now, fx);
        self.admit(&instances, now, fx);
        let Some(deployed) = self.shelf.deployed().cloned() else { return };
        for instance in &deployed.instances {
            if self.roster.is_ready(&instance.name) {
                self.redeploy(&instance.name, now, fx);
            }
        }
        let deadline = now.mono + self.patience(&deployed);
        for (instance, mut nodes) in moving {
            nodes.retain(|name| deployed.names_on(&instance).any(|node| node == *name));
            if !nodes.is_empty() && self.roster.link(&instance).is_some() {
                let inner = self.open(Parent::Redeploy, BTreeSet::from([instance.clone()]), deadline);
                self.send(&instance, agent::StartRequest { reqid: inner, nodes }, fx);
            }
        }
    }

    fn enter(&mut self, phase: Phase, inner: RequestId) {
        if let Some(deployment) = &mut self.deployment {
            (deployment.phase, deployment.inner) = (phase, inner);
        }
    }

    /// The deployment that is ending that node where it is.
    pub(super) fn mover_of(&self, instance: &InstanceName, node: &NodeName) -> Option<&RequestId> {
        let deployment = self.deployment.as_ref().filter(|deployment| deployment.phase == Phase::Moving)?;
        deployment.has_ended(instance, node.as_str()).then_some(&deployment.reqid)
    }

    /// What is, or is about to be, deployed.
    pub(super) fn meant(&self) -> Option<&Kept> {
        let deploying = self.deployment.as_ref().map(|deployment| &deployment.configuration);
        deploying.or(self.shelf.deployed())
    }
}

impl Deployment {
    /// Whether that node has been, or is being, ended there.
    fn has_ended(&self, place: &InstanceName, node: &str) -> bool {
        self.moving.get(place).is_some_and(|nodes| nodes.contains(node))
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

/// The order to dial an instance, if it is the controller that dials it.
pub(super) fn dial(instance: &Instance) -> Option<Effect> {
    let address = SocketAddr::new(instance.host?, instance.port?);
    Some(Effect::Dial(instance.name.clone(), address))
}

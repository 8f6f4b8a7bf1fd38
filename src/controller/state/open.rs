//! What was asked of agents and is not answered: for a client, for a deployment, or for the controller itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::crashes::Crashes;
use super::dispatch::Inquiry;
use super::planning::Planning;
use super::reading::Reading;
use super::{Effect, State, TIMED_OUT, Ticket};
use crate::bridge::{Features, LinkId};
use crate::controller::kept::Kept;
use crate::controller::nodes::Nodes;
use crate::message::agent::{self, ToAgent};
use crate::message::client::{self, AgentStatus, ClientResponse};
use crate::message::silence;
use crate::model::{InstanceName, NodeName, NodeState, NodeStatus, Now, Outcome, RequestId, Timestamp};
use crate::request::{Answered, Open};

/// What a request to agents is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parent {
    /// The hello on a link that just came up; only the deadline counts.
    Hello(LinkId),
    Welcome,
    Standby,
    /// Ends the nodes that the deployment in progress moves.
    Move,
    /// An agent fetches the files of its nodes.
    Stage,
    /// An agent looks at what is to be deployed.
    Check,
    /// Some nodes are switched.
    Switch,
    Deploy,
    /// The deployment in progress is gone back from.
    Restore,
    /// An instance came back.
    Redeploy,
    /// Some nodes go back, since their turn has come.
    Back,
    /// Those who have to go back are given time to appear; nobody owes an answer, only the deadline counts.
    Regather,
    /// An instance was lost in the middle of the deployment of this number, which waits until then.
    Away(u64),
    /// The deployment in progress waits for instances to appear; nobody owes an answer, only the deadline counts.
    Gather,
    Nodes(Ticket, RequestId, Told),
    Verb(Order),
    Dispatch(Inquiry),
    Output(Ticket, RequestId),
    Read(Reading),
    Crashes(Crashes),
    Plan(Box<Planning>),
    TestTimeout(Ticket, RequestId),
    /// Whoever holds this ticket is answered now; only the deadline counts.
    Limit(Ticket),
}

/// What agents said of their nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub nodes: Vec<NodeStatus>,
    pub agents: Vec<AgentStatus>,
    pub outcomes: Vec<Outcome>,
}

/// What a client ordered, and what has come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub ticket: Ticket,
    reqid: RequestId,
    pub verb: Verb,
    /// When waiting ends, unless links are lost before.
    until: Instant,
    /// Who was asked for which nodes, and since when each was in the state that it had then.
    asked: BTreeMap<InstanceName, BTreeMap<NodeName, Option<Timestamp>>>,
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl State {
    pub(super) fn get_nodes(&mut self, ticket: Ticket, reqid: RequestId, now: Now, fx: &mut Vec<Effect>) {
        let connected = self.roster.connected();
        if connected.is_empty() {
            let outcomes = vec![Outcome::failed(silence::NOBODY)];
            let answer = client::GetNodesResponse { reqid, nodes: Vec::new(), agents: Vec::new(), outcomes };
            return fx.push(Effect::Answer(ticket, answer.into()));
        }
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Nodes(ticket, reqid, Told::default()), connected.clone(), deadline);
        for instance in &connected {
            self.send(instance, agent::GetNodesRequest { reqid: inner.clone() }, fx);
        }
    }

    pub(super) fn verb(
        &mut self,
        ticket: Ticket,
        reqid: RequestId,
        verb: Verb,
        nodes: BTreeSet<NodeName>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let answer = |outcomes| Effect::Answer(ticket, verb.answer(reqid.clone(), outcomes));
        let deployed = match self.shelf.deployed() {
            _ if self.roster.connected().is_empty() => Err("no instances connected"),
            None => Err("no active cluster deployment"),
            Some(deployed) => Ok(deployed),
        };
        let deployed = match deployed {
            Ok(deployed) => deployed,
            Err(error) => return fx.push(answer(vec![Outcome::failed(error)])),
        };
        let moving = |instance: &InstanceName, node: &NodeName| {
            // It would run where it was, and soon where it will be, too.
            let mover = self.mover_of(instance, node).filter(|_| verb != Verb::Stop)?;
            Some(format!("it is moving to another instance: deployment {mover} is still pending"))
        };
        let (reached, outcomes) = self.whom_to_ask(deployed, &nodes, moving);
        let until = now.mono + deployed.patience(None);
        if reached.is_empty() {
            return fx.push(answer(sorted(outcomes)));
        }
        self.note_order(verb, &reached, now, fx);
        let owes = reached.keys().cloned().collect();
        let since = |name: &NodeName| (name.clone(), self.nodes.get(name.as_str()).map(|status| status.since));
        let asked =
            reached.iter().map(|(instance, nodes)| (instance.clone(), nodes.iter().map(since).collect())).collect();
        let inner = self.open(Parent::Verb(Order { ticket, reqid, verb, until, asked, outcomes }), owes, until);
        for (instance, nodes) in reached {
            self.send(&instance, verb.order(inner.clone(), nodes), fx);
        }
    }

    /// The nodes of `deployed` to ask when a client names these, all of them if it names none, and where they are; and the
    /// outcome of each that cannot be asked, because there is no such node, because of `refusal`, or because nobody reaches
    /// it.
    pub(super) fn whom_to_ask(
        &self,
        deployed: &Kept,
        names: &BTreeSet<NodeName>,
        refusal: impl Fn(&InstanceName, &NodeName) -> Option<String>,
    ) -> (BTreeMap<InstanceName, BTreeSet<NodeName>>, Vec<Outcome>) {
        let named: BTreeSet<&str> = names.iter().map(NodeName::as_str).collect();
        let (mut asked, mut outcomes) = (BTreeMap::<_, BTreeSet<_>>::new(), Vec::new());
        let mut known = BTreeSet::new();
        for head in deployed.heads().filter(|head| named.is_empty() || named.contains(head.name)) {
            known.insert(head.name);
            let (former, node) = (head.instance(), head.name());
            let refusal = refusal(&former, &node);
            let instance = self.place_of_what_arrives(&node).cloned().unwrap_or(former);
            let lost = || self.roster.link(&instance).is_none().then(|| silence::UNCONNECTED.to_owned());
            match refusal.or_else(lost) {
                Some(error) => outcomes.push(Outcome::node_failed(&instance, &node, error, None)),
                None => drop(asked.entry(instance).or_default().insert(node)),
            }
        }
        outcomes.extend(names.iter().filter(|name| !known.contains(name.as_str())).map(Outcome::unknown_node));
        (asked, outcomes)
    }

    pub(super) fn get_output(
        &mut self,
        ticket: Ticket,
        request: client::GetOutputRequest,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let client::GetOutputRequest { reqid, node, lines } = request;
        let instance = self.nodes.get(node.as_str()).map(|status| status.instance.clone());
        let refusal = match &instance {
            None => Some(Outcome::unknown_node(&node)),
            Some(instance) if self.roster.link(instance).is_none() => {
                Some(Outcome::node_failed(instance, &node, silence::UNCONNECTED.into(), None))
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

    pub(super) fn verb_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        fx: &mut Vec<Effect>,
    ) {
        let note = |parent: &mut Parent| {
            if let Parent::Verb(order) = parent {
                order.outcomes.extend(outcomes);
            }
        };
        self.note_answer(from, reqid, note, fx);
    }

    /// Takes in what an agent answered, and answers the client if nobody else owes anything.
    pub(super) fn note_answer(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        note: impl FnOnce(&mut Parent),
        fx: &mut Vec<Effect>,
    ) {
        if let Answered::Complete(parent) = self.requests.answer(reqid, from, note) {
            fx.extend(parent.answer(Vec::new()));
        }
    }

    /// The link to an instance is gone, with whatever it was asked on it, or answered. An agent that does nothing twice is
    /// given some time to come back: see [`Self::ask_again`].
    pub(super) fn give_up_on(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        self.loses_its_early_answer(name, now);
        self.is_early_no_more(name, now, fx);
        self.loses_its_turn(name, now, fx);
        let lost = Outcome::instance_failed(name, silence::LOST);
        let comes_back_by = now.mono + self.rules.request_timeout;
        for reqid in self.requests.owed_by(name) {
            match self.requests.get(&reqid) {
                Some(Open { parent: Parent::Verb(_) | Parent::Dispatch(_), deadline, .. })
                    if self.roster.can(name, Features::REPEATS) =>
                {
                    self.requests.set_deadline(&reqid, comes_back_by.min(*deadline));
                }
                Some(Open { parent: Parent::Read(reading), .. }) if reading.follows() => {}
                _ => self.give_up(name, &reqid, &lost, fx),
            }
        }
    }

    /// An agent has a new link. What it was asked on a former one it is asked again, if it is the same run of the agent: it
    /// answers as it did, or when it is done. Another run may have done it, or not, and does not know.
    pub(super) fn ask_again(&mut self, name: &InstanceName, same_run: bool, fx: &mut Vec<Effect>) {
        let lost = Outcome::instance_failed(name, silence::LOST);
        for reqid in self.requests.owed_by(name) {
            let Some(open) = self.requests.get(&reqid) else { continue };
            let (message, until) = match &open.parent {
                Parent::Verb(order) => (order.message(name, &reqid), order.until),
                Parent::Dispatch(inquiry) => (inquiry.message(name, &reqid), inquiry.until),
                // Any run reads the same.
                Parent::Read(reading) => {
                    let message = reading.message(&reqid);
                    self.send(name, message, fx);
                    continue;
                }
                _ => continue,
            };
            match same_run {
                true => {
                    self.requests.set_deadline(&reqid, until);
                    self.send(name, message, fx);
                }
                false => self.give_up(name, &reqid, &lost, fx),
            }
        }
    }

    /// That instance will not answer this.
    pub(super) fn give_up(&mut self, name: &InstanceName, reqid: &RequestId, lost: &Outcome, fx: &mut Vec<Effect>) {
        let Some(open) = self.requests.get_mut(reqid) else { return };
        match &mut open.parent {
            // It is asked again when it comes back, until the deadline.
            Parent::Deploy | Parent::Move | Parent::Stage | Parent::Check | Parent::Switch | Parent::Restore => {}
            // The next link begins with a welcome of its own.
            Parent::Welcome | Parent::Standby | Parent::Redeploy | Parent::Back => drop(self.requests.close(reqid)),
            Parent::Regather
            | Parent::Hello(_)
            | Parent::Gather
            | Parent::TestTimeout(..)
            | Parent::Limit(_)
            | Parent::Away(_) => {}
            Parent::Read(reading) => {
                let error = lost.error.clone().unwrap_or_default();
                fx.push(reading.answer(Err(client::Unread::OutOfReach(error))));
                drop(self.requests.close(reqid));
            }
            Parent::Output(..) => {
                if let Answered::Complete(parent) = self.requests.answer(reqid, name, |_| {}) {
                    fx.extend(parent.answer(vec![lost.clone()]));
                }
            }
            Parent::Nodes(..) | Parent::Verb(_) | Parent::Dispatch(_) | Parent::Crashes(_) | Parent::Plan(_) => {
                match &mut open.parent {
                    Parent::Verb(order) => order.lose(name, lost),
                    Parent::Dispatch(inquiry) => inquiry.lose(name, lost),
                    Parent::Nodes(_, _, told) => told.outcomes.push(lost.clone()),
                    Parent::Crashes(crashes) => crashes.lose(lost.clone()),
                    Parent::Plan(planning) => planning.lose(name, lost),
                    _ => {}
                }
                if let Answered::Complete(parent) = self.requests.answer(reqid, name, |_| {}) {
                    fx.extend(parent.answer(Vec::new()));
                }
            }
        }
    }

    pub(super) fn expired(&mut self, reqid: RequestId, open: Open<Parent>, now: Now, fx: &mut Vec<Effect>) {
        let Open { parent, owes, .. } = open;
        match parent {
            Parent::Gather
            | Parent::Move
            | Parent::Stage
            | Parent::Check
            | Parent::Switch
            | Parent::Deploy
            | Parent::Restore => self.time_out(&reqid, &owes, now, fx),
            Parent::Hello(link) => {
                if self.roster.is_silent(link) {
                    let reason = format!("no agent said hello on it within {:?}", self.rules.request_timeout);
                    fx.push(Effect::EndLink(link, reason));
                }
            }
            Parent::Welcome => {
                for name in owes {
                    self.tell_error(&name, "did not answer the welcome in time".into(), now.wall, fx);
                    if self.was_asked_early(&name) {
                        let late = Outcome::instance_failed(&name, self.roster.why_away(&name));
                        self.cannot_gather(&name, &late, now, fx);
                    }
                    self.welcome(&name, now, fx);
                }
            }
            parent @ (Parent::Standby | Parent::Redeploy) => {
                for name in owes {
                    self.tell_error(&name, silence::SILENT.into(), now.wall, fx);
                    if parent == Parent::Standby {
                        self.let_go(&name, fx);
                    }
                }
                self.turn_back_on(now, fx);
            }
            Parent::Back => self.turn_is_late(&reqid, now, fx),
            Parent::Regather => self.turn_back_on(now, fx),
            Parent::Limit(ticket) => self.over_limit(ticket, fx),
            Parent::Away(number) => owes.iter().for_each(|name| self.stays_away(name, number, now, fx)),
            parent => fx.extend(self.answer_late(parent, &owes)),
        }
    }

    pub(super) fn open(&mut self, parent: Parent, owes: BTreeSet<InstanceName>, deadline: Instant) -> RequestId {
        self.next_request += 1;
        let text = format!("c{:x}-{}", self.rules.epoch, self.next_request);
        // Twenty letters, digits and a dash at most.
        let reqid = RequestId::new(&text).expect("a short printable id");
        self.requests.open(reqid.clone(), Open { parent, owes, deadline });
        reqid
    }

    pub(super) fn owes(&self, name: &InstanceName, reqid: &RequestId) -> bool {
        self.requests.get(reqid).is_some_and(|open| open.owes.contains(name))
    }
}

impl Parent {
    /// Who waits for the answer, if a client does.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Nodes(ticket, ..) | Self::Output(ticket, _) | Self::TestTimeout(ticket, _) => Some(*ticket),
            Self::Verb(order) => Some(order.ticket),
            Self::Dispatch(inquiry) => Some(inquiry.ticket),
            Self::Read(reading) => Some(reading.ticket),
            Self::Crashes(crashes) => Some(crashes.ticket),
            Self::Plan(planning) => Some(planning.ticket),
            Self::Hello(_) | Self::Welcome | Self::Standby | Self::Move | Self::Deploy | Self::Redeploy => None,
            Self::Gather | Self::Stage | Self::Check | Self::Switch | Self::Restore | Self::Back => None,
            Self::Limit(_) | Self::Away(_) | Self::Regather => None,
        }
    }

    /// The answer to the client that asked, with `more` besides what has come together; `None` if no client did.
    pub fn answer(self, more: Vec<Outcome>) -> Option<Effect> {
        let joined = |mut outcomes: Vec<Outcome>| {
            outcomes.extend(more.clone());
            sorted(outcomes)
        };
        let first = || more.first().cloned().unwrap_or_else(|| Outcome::failed(TIMED_OUT));
        let (ticket, response) = match self {
            Self::Hello(_)
            | Self::Limit(_)
            | Self::Away(_)
            | Self::Welcome
            | Self::Standby
            | Self::Move
            | Self::Deploy
            | Self::Redeploy
            | Self::Gather
            | Self::Stage
            | Self::Check
            | Self::Switch
            | Self::Restore
            | Self::Back
            | Self::Regather => {
                return None;
            }
            Self::Nodes(ticket, reqid, Told { mut nodes, mut agents, outcomes }) => {
                nodes.sort_by(|a, b| a.node.cmp(&b.node));
                agents.sort_by(|a, b| a.instance.cmp(&b.instance));
                (ticket, client::GetNodesResponse { reqid, nodes, agents, outcomes: joined(outcomes) }.into())
            }
            Self::Verb(Order { ticket, reqid, verb, outcomes, .. }) => (ticket, verb.answer(reqid, joined(outcomes))),
            Self::Dispatch(inquiry) => (inquiry.ticket, inquiry.answer(&more)),
            Self::Read(reading) => return Some(reading.late(true)),
            Self::Crashes(crashes) => (crashes.ticket, crashes.answer(more)),
            Self::Plan(planning) => (planning.ticket, planning.answer()),
            Self::Output(ticket, reqid) => (ticket, client::GetOutputResponse { reqid, outcome: first() }.into()),
            Self::TestTimeout(ticket, reqid) => {
                (ticket, client::TestTimeoutResponse { reqid, outcome: Outcome::failed(TIMED_OUT) }.into())
            }
        };
        Some(Effect::Answer(ticket, response))
    }
}

impl Order {
    /// What that instance was asked.
    fn message(&self, name: &InstanceName, reqid: &RequestId) -> ToAgent {
        let nodes = self.asked.get(name).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        self.verb.order(reqid.clone(), nodes)
    }

    /// An instance will not answer: the outcome of each node that it was asked for, and of the whole of it.
    pub(super) fn lose(&mut self, name: &InstanceName, lost: &Outcome) {
        let asked = self.asked.get(name).into_iter().flat_map(BTreeMap::keys);
        self.outcomes.extend(asked.map(|node| Outcome { node: Some(node.clone()), ..lost.clone() }));
        self.outcomes.push(lost.clone());
    }

    /// The same when time is up: what is seen of a node since then counts as its answer.
    pub(super) fn time_out(&mut self, name: &InstanceName, nodes: &Nodes) {
        let silent = Outcome::instance_failed(name, silence::SILENT);
        for (node, since) in self.asked.get(name).into_iter().flatten() {
            // Of a node that moves nothing else is known until that is decided than how it is where it was.
            let status = nodes.get(node.as_str()).filter(|status| status.instance == *name);
            let done = status.is_some_and(|status| self.verb.is_done(status, *since));
            self.outcomes.push(match done {
                true => Outcome::node_done(name, node),
                false => Outcome::node_failed(name, node, TIMED_OUT.into(), None),
            });
        }
        self.outcomes.push(silent);
    }
}

impl Verb {
    /// Whether a node, which was as it was before since `before`, has come to what was asked.
    fn is_done(self, status: &NodeStatus, before: Option<Timestamp>) -> bool {
        match self {
            Self::Start => status.state == NodeState::Running,
            Self::Stop => status.state == NodeState::Stopped,
            Self::Restart => status.state == NodeState::Running && before != Some(status.since),
        }
    }

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

/// By node, then what speaks for an instance, then what speaks for the whole.
pub(super) fn sorted(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    fn key(outcome: &Outcome) -> impl Ord + use<'_> {
        let Outcome { instance, node, .. } = outcome;
        (node.is_none(), node, instance.is_none(), instance)
    }
    // Agents answer sorted, and what stands together already is not moved about.
    outcomes.sort_by(|one, other| key(one).cmp(&key(other)));
    outcomes
}

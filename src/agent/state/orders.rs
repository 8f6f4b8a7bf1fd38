//! What the controller asks of the agent: each order becomes a wish about nodes, and a job that waits for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Entry, Goal, InForce, State};
use crate::agent::jobs::{Kind, Wish};
use crate::launch;
use crate::message::agent::*;
use crate::model::{Node, NodeName, NodeState, Now, Outcome, RequestId, Timestamp};
use crate::plan::{self, NodeChange};

impl State {
    pub(super) fn obey(&mut self, order: ToAgent, now: Now, fx: &mut Vec<Effect>) {
        if self.is_repeated(&order) {
            return;
        }
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
                self.answer(GetNodesResponse { reqid, pid: self.pid, nodes });
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
            ToAgent::GetCrashesRequest(request) => fx.push(Effect::ReadCrashes(request)),
            ToAgent::ReadOutputRequest(request) => match self.nodes.contains_key(&request.node) {
                true => fx.push(Effect::ReadPiece(request)),
                false => self.answer_piece(request.reqid, Err("unknown cluster node".into())),
            },
            ToAgent::NodeDispatchRequest(request) => self.dispatch(request),
            // What was received of another epoch says nothing about this one's numbers.
            ToAgent::NewsReceived(NewsReceived { epoch, seq, kept }) => {
                let (seq, kept) = if epoch == self.epoch { (seq, kept) } else { (0, 0) };
                if !self.outbox.received(seq, kept) {
                    let last = self.outbox.last();
                    let why = format!("the controller acknowledges news {seq} of this agent, which has told {last}");
                    fx.push(Effect::EndLink(why));
                }
            }
            ToAgent::AgentRefused(AgentRefused { reason }) => fx.push(Effect::Refused(reason)),
            // Taken before, by whoever carries: no node depends on it.
            ToAgent::RenewCertificateResponse(_) => {}
        }
    }

    /// Whether this was asked before, on a former link. It gets the answer that the first got, or waits for that.
    fn is_repeated(&mut self, order: &ToAgent) -> bool {
        if let Some(answer) = self.repeats.answer_to(order).cloned() {
            self.say(answer);
            return true;
        }
        match order {
            ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => self.jobs.is_open(Kind::Standby, reqid),
            ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, .. }) => {
                self.jobs.is_open(Kind::Configure, reqid)
            }
            ToAgent::StartRequest(StartRequest { reqid, .. }) => self.jobs.is_open(Kind::Start, reqid),
            ToAgent::StopRequest(StopRequest { reqid, .. }) => self.jobs.is_open(Kind::Stop, reqid),
            ToAgent::RestartRequest(RestartRequest { reqid, .. }) => self.jobs.is_open(Kind::Restart, reqid),
            _ => false,
        }
    }

    /// Once everything was to be stopped, nothing is started any more: the host is about to end.
    pub(super) fn refusal(&self, order: &ToAgent) -> Option<ToController> {
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

    pub(super) fn configure(&mut self, request: SetConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let SetConfigurationRequest { reqid, configuration } = request;
        let configuration = configuration.open();
        if let Some(present) = self.configuration.as_ref().filter(|present| present.id == configuration.id) {
            let outcome = match present.is(&configuration) {
                true => Outcome::instance_done(&self.instance),
                false => Outcome::instance_failed(
                    &self.instance,
                    format!("configuration {} is in force with other contents: deploy under a new id", present.id),
                ),
            };
            return self.answer(SetConfigurationResponse { reqid, outcomes: vec![outcome] });
        }
        let mine = configuration.nodes.iter().filter(|node| node.instance == self.instance).cloned();
        mine.collect::<Vec<_>>().iter().for_each(|node| self.define(node, wall, fx));
        let have: Vec<Arc<Node>> = self.nodes.values().map(|entry| Arc::clone(entry.definition())).collect();
        let wished = InForce::from(configuration);
        let mut changes = plan::diff::nodes(&have, &wished.nodes);
        // The same configuration told again, to the next run of the agent, starts nothing that was stopped since, nor
        // what was given up.
        if self.configuration.is_none() && self.was_in_force.as_ref() == Some(&wished.id) {
            let waits_for_a_person =
                |entry: &Entry| entry.goal == Goal::Rest || entry.status.state == NodeState::Failed;
            let rests = |name| self.nodes.get(name).is_some_and(|entry| waits_for_a_person(entry));
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
                    self.take_in(Arc::clone(node), NodeState::Stopped, None, wall, fx);
                    self.want_up(&node.name);
                }
                NodeChange::Replace { want, keys, .. } => {
                    let msg = format!("started afresh, because of its {}", keys.join(", "));
                    self.notify_log(Some(want.name.clone()), msg, wall);
                    if let Some(entry) = self.nodes.get_mut(&want.name) {
                        entry.next = Some(Arc::clone(want));
                    }
                    self.want_afresh(&want.name);
                }
            }
        }
        fx.push(Effect::Remember(wished.id.clone()));
        self.configuration = Some(wished);
    }

    /// Puts a question to nodes.
    fn dispatch(&mut self, NodeDispatchRequest { reqid, action, nodes }: NodeDispatchRequest) {
        let misread = misread(&action);
        let is_meant = |name: &NodeName| nodes.is_empty() || nodes.contains(name);
        let answers = self.nodes.iter().filter(|(name, _)| is_meant(name)).map(|(name, entry)| {
            let refusal = match (misread.clone(), entry.status.state) {
                (Some(misread), _) => misread,
                (None, NodeState::Running) => launch::unasked(&entry.node).to_owned(),
                (None, _) => format!("cluster node {name} not in running state"),
            };
            NodeAnswer { node: name.clone(), value: Err(refusal) }
        });
        let answers = answers.collect();
        self.answer(NodeDispatchResponse { reqid, answers });
    }

    /// Opens an order about our nodes among `nodes`, or about all of ours if that is empty.
    pub(super) fn open_for(
        &mut self,
        kind: Kind,
        reqid: RequestId,
        nodes: BTreeSet<NodeName>,
        wish: Wish,
    ) -> BTreeSet<NodeName> {
        // What leaves is nobody's to start. But it runs until it is gone: whoever stops it waits for that.
        let is_ours = |entry: &Entry| entry.goal != Goal::Leave || wish == Wish::Down;
        let is_meant =
            |(name, entry): &(&NodeName, &Entry)| is_ours(entry) && (nodes.is_empty() || nodes.contains(*name));
        let ours = self.nodes.iter().map(|(name, entry)| (name, entry.as_ref()));
        let named: BTreeSet<_> = ours.filter(is_meant).map(|(name, _)| name.clone()).collect();
        let strangers = nodes.iter().filter(|name| !named.contains(*name)).cloned();
        self.jobs.open_beside(kind, reqid, named.iter().map(|name| (name.clone(), wish)), strangers);
        named
    }
}

/// Why nodes cannot be asked this, in the words that Zeek's own have for it; `None` if they can.
fn misread(action: &[String]) -> Option<String> {
    match action {
        [] => Some("no dispatch arguments provided".into()),
        [verb, _] if verb == "get_id_value" => None,
        [verb, ..] if verb == "get_id_value" => Some("get_id_value expects name of global identifier".into()),
        [verb, ..] => Some(format!("dispatch {verb} unknown")),
    }
}

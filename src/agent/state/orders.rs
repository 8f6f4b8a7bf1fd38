//! What the controller asks of the agent: each order becomes a wish about nodes, and a job that waits for them.

use std::collections::BTreeSet;

use super::{Effect, Entry, Goal, Inquiry, State};
use crate::agent::jobs::{Kind, Wish};
use crate::launch;
use crate::message::agent::*;
use crate::model::{NodeName, NodeState, Now, Outcome, RequestId};

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
                self.give_up_preparing("the instance is not needed any more");
                (self.configuration, self.staged, self.strays) = (None, None, false);
                self.jobs.open(Kind::Standby, reqid, self.nodes.keys().map(|name| (name.clone(), Wish::Down)));
                self.each(|me, name| me.want_down(name, Goal::Leave, fx));
            }
            ToAgent::SetConfigurationRequest(request) => self.configure(request, now.wall, fx),
            ToAgent::CheckConfigurationRequest(request) => self.check(request, fx),
            ToAgent::SwitchNodesRequest(request) => self.switch(request, now.wall, fx),
            ToAgent::CommitConfigurationRequest(request) => self.commit(request, now.wall, fx),
            ToAgent::RestoreConfigurationRequest(request) => self.restore(request, now.wall, fx),
            ToAgent::InspectConfigurationRequest(request) => self.inspect(request, fx),
            ToAgent::GetNodesRequest(GetNodesRequest { reqid }) => {
                let nodes = self.statuses();
                self.answer(GetNodesResponse { reqid, pid: self.pid, nodes });
            }
            ToAgent::StartRequest(StartRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Start, reqid, nodes, Wish::Up);
                named.iter().for_each(|name| self.want_up(name, fx));
            }
            ToAgent::StopRequest(StopRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Stop, reqid, nodes, Wish::Down);
                named.iter().for_each(|name| self.want_to_rest(name, fx));
            }
            ToAgent::RestartRequest(RestartRequest { reqid, nodes }) => {
                let named = self.open_for(Kind::Restart, reqid, nodes, Wish::Up);
                named.iter().for_each(|name| self.want_afresh(name, fx));
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
            ToAgent::NodeDispatchRequest(request) => self.dispatch(request, fx),
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
            ToAgent::StageBundlesRequest(request) => fx.push(Effect::Stage(request)),
            // Taken before, by whoever carries: no decision depends on it.
            ToAgent::RenewCertificateResponse(_) | ToAgent::ReadBlobsResponse(_) => {}
        }
    }

    /// Whether this was asked before, on a former link. It gets the answer that the first got, or waits for that.
    fn is_repeated(&mut self, order: &ToAgent) -> bool {
        if let Some(answer) = self.repeats.answer_to(order) {
            self.say(answer);
            return true;
        }
        match order {
            ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => self.jobs.is_open(Kind::Standby, reqid),
            ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, .. })
            | ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. }) => {
                self.jobs.is_open(Kind::Configure, reqid) || self.is_preparing(reqid)
            }
            ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, .. }) => self.is_preparing(reqid),
            ToAgent::SwitchNodesRequest(SwitchNodesRequest { reqid, .. }) => self.jobs.is_open(Kind::Switch, reqid),
            ToAgent::RestoreConfigurationRequest(RestoreConfigurationRequest { reqid, .. }) => {
                self.jobs.is_open(Kind::Restore, reqid) || self.is_preparing(reqid)
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
            ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, .. })
            | ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. }) => {
                Some(SetConfigurationResponse { reqid: reqid.clone(), outcomes }.into())
            }
            ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, .. }) => {
                Some(CheckConfigurationResponse { reqid: reqid.clone(), outcomes, changes: Vec::new() }.into())
            }
            ToAgent::SwitchNodesRequest(SwitchNodesRequest { reqid, .. }) => {
                Some(SwitchNodesResponse { reqid: reqid.clone(), outcomes }.into())
            }
            ToAgent::RestoreConfigurationRequest(RestoreConfigurationRequest { reqid, .. }) => {
                let waiting = Vec::new();
                Some(RestoreConfigurationResponse { reqid: reqid.clone(), outcomes, waiting }.into())
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

    /// Puts a question to nodes.
    fn dispatch(&mut self, NodeDispatchRequest { reqid, action, nodes }: NodeDispatchRequest, fx: &mut Vec<Effect>) {
        let question = question(&action);
        let is_meant = |name: &NodeName| nodes.is_empty() || nodes.contains(name);
        let (mut asked, mut known) = (Vec::new(), Vec::new());
        for (name, entry) in self.nodes.iter().filter(|(name, _)| is_meant(name)) {
            let refusal = match (&question, entry.status.state) {
                (Err(misread), _) => misread.clone(),
                (Ok(_), NodeState::Running) if entry.node.is_zeek() => {
                    asked.push((entry.ward, name.clone()));
                    continue;
                }
                (Ok(_), NodeState::Running) => launch::UNASKED.to_owned(),
                (Ok(_), _) => format!("cluster node {name} not in running state"),
            };
            known.push(NodeAnswer { node: name.clone(), value: Err(refusal) });
        }
        match question {
            Ok(question) if !asked.is_empty() => fx.push(Effect::Inquire(Inquiry { reqid, question, asked, known })),
            _ => self.answer_inquiry(reqid, known),
        }
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

/// The question that this is, or why nodes cannot be asked it, in the words that Zeek's own have for it.
fn question(action: &[String]) -> Result<String, String> {
    match action {
        [] => Err("no dispatch arguments provided".into()),
        // Nothing is called so: it would be another question, or none.
        [verb, name]
            if verb == "get_id_value" && (name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic())) =>
        {
            Err("unknown id".into())
        }
        [verb, name] if verb == "get_id_value" => Ok(format!("{verb} {name}")),
        [verb, ..] if verb == "get_id_value" => Err("get_id_value expects name of global identifier".into()),
        [verb, ..] => Err(format!("dispatch {verb} unknown")),
    }
}

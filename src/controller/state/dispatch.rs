//! What nodes are asked through their agents: the value of an identifier.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::open::{Parent, sorted};
use super::{Effect, State, TIMED_OUT, Ticket};
use crate::message::agent::{NodeAnswer, NodeDispatchRequest, ToAgent};
use crate::message::client::{self, ClientResponse, IdValue};
use crate::model::{InstanceName, NodeName, Now, Outcome, RequestId};

/// The longest name of an identifier, in bytes: it goes to every instance.
const LONGEST_ID: usize = 1024;

/// A question to nodes, and what has come together of its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inquiry {
    pub ticket: Ticket,
    reqid: RequestId,
    id: String,
    /// When waiting ends, unless links are lost before.
    pub until: Instant,
    asked: BTreeMap<InstanceName, BTreeSet<NodeName>>,
    values: Vec<IdValue>,
    outcomes: Vec<Outcome>,
}

impl State {
    pub(super) fn get_id_value(
        &mut self,
        ticket: Ticket,
        request: client::GetIdValueRequest,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let client::GetIdValueRequest { reqid, id, nodes } = request;
        let deployed = match self.shelf.deployed().filter(|deployed| !deployed.instances.is_empty()) {
            _ if id.len() > LONGEST_ID => Err(format!("name of global identifier is longer than {LONGEST_ID} bytes")),
            None => Err("no cluster deployed".to_owned()),
            Some(deployed) => Ok(deployed),
        };
        let (asked, outcomes) = match deployed {
            Ok(deployed) => self.whom_to_ask(deployed, &nodes, |_, _| None),
            Err(error) => {
                let outcomes = vec![Outcome::failed(error)];
                let answer = client::GetIdValueResponse { reqid, values: Vec::new(), outcomes };
                return fx.push(Effect::Answer(ticket, answer.into()));
            }
        };
        let until = now.mono + self.rules.request_timeout;
        let inquiry = Inquiry { ticket, reqid, id, until, asked: asked.clone(), values: Vec::new(), outcomes };
        if asked.is_empty() {
            return fx.push(Effect::Answer(ticket, inquiry.answer(&[])));
        }
        let inner = self.open(Parent::Dispatch(inquiry.clone()), asked.keys().cloned().collect(), until);
        for instance in asked.keys() {
            self.send(instance, inquiry.message(instance, &inner), fx);
        }
    }

    pub(super) fn dispatch_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        answers: Vec<NodeAnswer>,
        fx: &mut Vec<Effect>,
    ) {
        let note = |parent: &mut Parent| {
            if let Parent::Dispatch(inquiry) = parent {
                inquiry.note(from, answers);
            }
        };
        self.note_answer(from, reqid, note, fx);
    }
}

impl Inquiry {
    /// What that instance is asked.
    pub(super) fn message(&self, name: &InstanceName, reqid: &RequestId) -> ToAgent {
        let action = vec!["get_id_value".into(), self.id.clone()];
        let nodes = self.asked.get(name).cloned().unwrap_or_default();
        NodeDispatchRequest { reqid: reqid.clone(), action, nodes }.into()
    }

    /// Takes in what an agent says its nodes said; of nodes that it was asked for, and once of each.
    fn note(&mut self, from: &InstanceName, answers: Vec<NodeAnswer>) {
        let mut owed = self.asked.get(from).cloned().unwrap_or_default();
        for NodeAnswer { node, value } in answers.into_iter().filter(|answer| owed.remove(&answer.node)) {
            match value {
                Ok(value) => self.values.push(IdValue { instance: from.clone(), node, value }),
                Err(error) => self.outcomes.push(Outcome::node_failed(from, &node, error, None)),
            }
        }
        // Its configuration is another by now.
        let missing =
            owed.iter().map(|node| Outcome::node_failed(from, node, "its agent does not have it".into(), None));
        self.outcomes.extend(missing);
    }

    /// An instance will not answer: the outcome of each node that it was asked for.
    pub(super) fn lose(&mut self, name: &InstanceName, lost: &Outcome) {
        let asked = self.asked.get(name).into_iter().flatten();
        self.outcomes.extend(asked.map(|node| Outcome { node: Some(node.clone()), ..lost.clone() }));
    }

    pub(super) fn time_out(&mut self, name: &InstanceName) {
        self.lose(name, &Outcome::instance_failed(name, TIMED_OUT));
    }

    pub(super) fn answer(mut self, more: &[Outcome]) -> ClientResponse {
        self.values.sort_by(|a, b| a.node.cmp(&b.node));
        self.outcomes.extend_from_slice(more);
        let (reqid, values, outcomes) = (self.reqid, self.values, sorted(self.outcomes));
        client::GetIdValueResponse { reqid, values, outcomes }.into()
    }
}

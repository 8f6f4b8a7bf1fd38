//! What a configuration would do, for whoever asks before it is deployed: nothing of it is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::preparing::ports;
use super::{Effect, Entry, State};
use crate::agent::jobs::{MOST_OUTPUT, leave_out_output_beyond};
use crate::agent::order::Step as Place;
use crate::launch::Survey;
use crate::launch::zeek::Objection;
use crate::message::agent::*;
use crate::model::{Configuration, Inspection, Node, NodeName, NodeState, Outcome, RequestId, Step};
use crate::plan;

/// How many may be looked at side by side: each is held whole.
const MOST: usize = 4;

/// A configuration that is being looked at.
#[derive(Debug, Clone)]
pub(super) struct Inspecting {
    number: u64,
    reqid: RequestId,
    inspection: Inspection,
}

impl State {
    pub(super) fn inspect(&mut self, request: InspectConfigurationRequest, fx: &mut Vec<Effect>) {
        let InspectConfigurationRequest { reqid, configuration } = request;
        if self.inspecting.iter().any(|present| present.reqid == reqid) {
            return; // it will be answered
        }
        if self.inspecting.len() >= MOST {
            let why = format!("it looks at {MOST} other plans already: ask again in a while");
            return self.answer(InspectConfigurationResponse { reqid, inspection: Err(why) });
        }
        let mut share = configuration.open();
        let placed = plan::zeek::equip(&mut share);
        let steps = self.steps(&share, placed.is_ok());
        let launched: BTreeSet<&NodeName> =
            steps.iter().filter(|step| step.action.launches()).map(|step| &step.node).collect();
        let nodes: Vec<Arc<Node>> =
            share.nodes.iter().filter(|node| launched.contains(&node.name)).map(Arc::clone).collect();
        let mut complaints: Vec<Outcome> = nodes.iter().flat_map(|node| self.lacking(node)).collect();
        if let Err(error) = &placed {
            complaints.push(Outcome::instance_failed(&self.instance, error.to_string()));
        }
        let inspection = Inspection { steps, complaints };
        if nodes.is_empty() {
            return self.answer(InspectConfigurationResponse { reqid, inspection: Ok(inspection) });
        }
        self.next_preparation += 1;
        let number = self.next_preparation;
        let host = share.instance(&self.instance).and_then(|instance| instance.host);
        self.note_files(&nodes);
        let runs = self.nodes.values().filter(|entry| entry.status.pid.is_some());
        let ours = runs.flat_map(|entry| ports(&entry.node)).collect();
        let zeek = share.zeek.as_deref().cloned().unwrap_or_default();
        let survey = Survey { zeek, layout: placed.unwrap_or_default(), nodes, ours, host };
        fx.push(Effect::Inspect(number, Box::new(survey)));
        self.inspecting.push(Inspecting { number, reqid, inspection });
    }

    /// Everything was looked at.
    pub(super) fn inspected(&mut self, number: u64, objections: Vec<Objection>) {
        let Some(at) = self.inspecting.iter().position(|present| present.number == number) else { return };
        let Inspecting { reqid, mut inspection, .. } = self.inspecting.remove(at);
        let complaint = |Objection { node, what, output }| match node {
            Some(node) => Outcome::node_failed(&self.instance, &node, what, output),
            None => Outcome::instance_failed(&self.instance, what),
        };
        inspection.complaints.extend(objections.into_iter().map(complaint));
        leave_out_output_beyond(MOST_OUTPUT, &mut inspection.complaints);
        self.answer(InspectConfigurationResponse { reqid, inspection: Ok(inspection) });
    }

    /// What would become of each node, by the difference that is acted by once it is in force.
    fn steps(&self, share: &Configuration, is_placed: bool) -> Vec<Step> {
        let wanted = |entry: &Entry| share.nodes.iter().find(|node| node.name == entry.node.name);
        let definition = |entry: &Entry| match entry.takes_definition().then(|| wanted(entry)).flatten() {
            Some(want) => Arc::clone(want),
            None => Arc::clone(entry.definition()),
        };
        let mut have: Vec<Arc<Node>> = self.nodes.values().map(|entry| definition(entry)).collect();
        if !is_placed {
            have.iter_mut().for_each(plan::steps::forget_surroundings);
        }
        let down = |name: &NodeName| self.nodes.get(name).and_then(|entry| entry.down());
        plan::steps::of_instance(&have, &share.nodes, down)
    }

    /// The limits of a node that it cannot have here.
    fn lacking(&self, node: &Node) -> Vec<Outcome> {
        let quotas = node.run_as.as_ref().map(|run_as| run_as.quotas).unwrap_or_default();
        let lacking = quotas.wanted().filter_map(|(quota, _, value)| {
            let why = self.abilities.lacking.get(&quota)?;
            let what = format!("it cannot have {} = {value}: {why}", quota.key());
            Some(Outcome::node_failed(&self.instance, &node.name, what, None))
        });
        lacking.collect()
    }
}

impl Entry {
    /// Whether the next configuration says what it is: see [`State::define`].
    fn takes_definition(&self) -> bool {
        self.guessed
    }

    /// How it is, if it has no process and is not about to get one; one that is being stopped counts as STOPPED.
    fn down(&self) -> Option<NodeState> {
        match (self.place.step, self.status.state) {
            (Place::StartQueued | Place::Starting, _) => None,
            (Place::StopQueued { then: true } | Place::Stopping { then: true, .. }, _) => None,
            (Place::Stopping { then: false, .. }, _) => Some(NodeState::Stopped),
            (Place::Idle | Place::StopQueued { then: false }, NodeState::Running | NodeState::Pending) => None,
            (Place::Idle | Place::StopQueued { then: false }, state) => Some(state),
        }
    }
}

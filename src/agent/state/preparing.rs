//! Before a configuration with Zeek nodes comes into force: everything is looked at, and as long as there is something to
//! object nothing is started, changed or stopped.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Entry, Goal, InForce, State};
use crate::agent::jobs::{self, Kind};
use crate::archive::Wish;
use crate::launch::zeek::{Objection, Preparation};
use crate::message::agent::*;
use crate::model::{Configuration, LayoutEntry, Node, NodeState, Now, Outcome, RequestId, Timestamp};
use crate::plan::{self, NodeChange};

/// A configuration that is being looked at.
#[derive(Debug, Clone)]
pub(super) struct Preparing {
    /// Late findings about another one say nothing about this one.
    number: u64,
    reqid: RequestId,
    configuration: Configuration,
    /// Whether something would be started or changed, so that objections count.
    counts: bool,
}

impl State {
    pub(super) fn configure(&mut self, request: SetConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let SetConfigurationRequest { reqid, configuration } = request;
        let mut configuration = configuration.open();
        let layout = match plan::zeek::equip(&mut configuration) {
            Ok(layout) => layout,
            Err(error) => return self.refuse(reqid, error.to_string()),
        };
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
        self.give_up_preparing("a newer configuration came before it was looked at");
        let mine = configuration.nodes.iter().filter(|node| node.instance == self.instance).cloned();
        mine.collect::<Vec<_>>().iter().for_each(|node| self.define(node, wall, fx));
        match configuration.nodes.iter().any(|node| node.is_zeek()) {
            true => self.prepare(reqid, configuration, layout, fx),
            false => self.adopt(reqid, configuration, wall, fx),
        }
    }

    fn prepare(
        &mut self,
        reqid: RequestId,
        configuration: Configuration,
        layout: Vec<LayoutEntry>,
        fx: &mut Vec<Effect>,
    ) {
        let have: Vec<Arc<Node>> = self.nodes.values().map(|entry| Arc::clone(entry.definition())).collect();
        let changes = plan::diff::nodes(&have, &configuration.nodes);
        let nodes: Vec<Arc<Node>> = changes.into_iter().filter_map(to_launch).filter(|node| node.is_zeek()).collect();
        let zeek = configuration.zeek.as_deref().cloned().unwrap_or_default();
        self.next_preparation += 1;
        let (number, counts) = (self.next_preparation, !nodes.is_empty());
        let ours = self.nodes.values().flat_map(|entry| ports(&entry.node)).collect();
        fx.push(Effect::Prepare(number, Box::new(Preparation { zeek, layout, nodes, ours })));
        self.preparing = Some(Box::new(Preparing { number, reqid, configuration, counts }));
    }

    /// Everything was looked at.
    pub(super) fn prepared(&mut self, number: u64, objections: Vec<Objection>, now: Now, fx: &mut Vec<Effect>) {
        let Some(preparing) = self.preparing.take_if(|preparing| preparing.number == number) else { return };
        let Preparing { reqid, configuration, counts, .. } = *preparing;
        if !counts {
            // What runs goes on as it is, and what it would be launched by is as it was.
            for Objection { node, what, .. } in objections {
                self.notify_error(node, what, now.wall);
            }
            return self.adopt(reqid, configuration, now.wall, fx);
        }
        if objections.is_empty() {
            return self.adopt(reqid, configuration, now.wall, fx);
        }
        let outcome = |Objection { node, what, output }| match node {
            Some(node) => Outcome::node_failed(&self.instance, &node, what, output),
            None => Outcome::instance_failed(&self.instance, what),
        };
        let outcomes = objections.into_iter().map(outcome).collect();
        self.answer(SetConfigurationResponse { reqid, outcomes });
    }

    /// Makes a configuration the one in force.
    fn adopt(&mut self, reqid: RequestId, configuration: Configuration, wall: Timestamp, fx: &mut Vec<Effect>) {
        let have: Vec<Arc<Node>> = self.nodes.values().map(|entry| Arc::clone(entry.definition())).collect();
        fx.extend(Wish::of(&configuration, &self.instance).map(|wish| Effect::Archive(Box::new(wish))));
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
            NodeChange::Remove(_) => (change.name().clone(), jobs::Wish::Down),
            _ => (change.name().clone(), jobs::Wish::Up),
        });
        self.jobs.open(Kind::Configure, reqid, waits);
        for change in changes {
            match change {
                NodeChange::Keep(node) => self.want_up(&node.name, fx),
                NodeChange::Remove(node) => self.want_down(&node.name, Goal::Leave, fx),
                NodeChange::Start(node) => {
                    self.take_in(Arc::clone(node), NodeState::Stopped, None, wall, fx);
                    self.want_up(&node.name, fx);
                }
                NodeChange::Replace { have, want, keys } => {
                    let msg = format!("started afresh, because {}", plan::steps::because(have, want, &keys));
                    self.notify_log(Some(want.name.clone()), msg, wall);
                    if let Some(entry) = self.nodes.get_mut(&want.name) {
                        entry.next = Some(Arc::clone(want));
                    }
                    self.want_afresh(&want.name, fx);
                }
            }
        }
        fx.push(Effect::Remember(wished.id.clone()));
        self.configuration = Some(wished);
    }

    /// Whether that request waits for what is being looked at.
    pub(super) fn is_preparing(&self, reqid: &RequestId) -> bool {
        self.preparing.as_ref().is_some_and(|preparing| preparing.reqid == *reqid)
    }

    /// Whoever waits for what is being looked at waits in vain.
    pub(super) fn give_up_preparing(&mut self, why: &str) {
        if let Some(preparing) = self.preparing.take() {
            self.refuse(preparing.reqid, why.to_owned());
        }
    }

    fn refuse(&mut self, reqid: RequestId, why: String) {
        let outcomes = vec![Outcome::instance_failed(&self.instance, why)];
        self.answer(SetConfigurationResponse { reqid, outcomes });
    }
}

/// Whether a change launches the node: as it is then.
fn to_launch(change: NodeChange) -> Option<Arc<Node>> {
    match change {
        NodeChange::Start(node) | NodeChange::Replace { want: node, .. } => Some(Arc::clone(node)),
        NodeChange::Keep(_) | NodeChange::Remove(_) => None,
    }
}

/// Every port that a node listens on while it runs.
pub(super) fn ports(node: &Node) -> BTreeSet<u16> {
    let hub = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_ref()?.settings.zeromq_ports);
    [node.port, node.metrics_port].into_iter().flatten().chain(hub.into_iter().flatten()).collect()
}

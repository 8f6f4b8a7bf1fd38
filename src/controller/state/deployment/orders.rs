//! What clients order while a deployment is under way, or followed, holds: who is stopped is started neither by it nor by
//! its coming to nothing, and who is started is not stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deployment, Phase};
use crate::controller::state::open::Verb;
use crate::controller::state::{Effect, State};
use crate::controller::store::Save;
use crate::model::{InstanceName, NodeName, Now, Outcome, Record, Verdict};

impl State {
    /// Those nodes are told to start or to stop.
    pub(in crate::controller::state) fn note_order(
        &mut self,
        verb: Verb,
        told: &BTreeMap<InstanceName, BTreeSet<NodeName>>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if self.deployment.is_none() && self.following.is_none() {
            return;
        }
        // An agent that does not have a node yet refuses the order.
        let has = |instance: &InstanceName, node: &NodeName| {
            if self.place_of_what_arrives(node) == Some(instance) {
                return true; // it was told to start it, on the same link
            }
            let is_there = self.nodes.get(node.as_str()).is_some_and(|status| status.instance == *instance);
            is_there && !self.nodes.is_absent(node.as_str())
        };
        let had = told.iter().flat_map(|(instance, nodes)| nodes.iter().filter(|node| has(instance, node)));
        let nodes: BTreeSet<NodeName> = had.cloned().collect();
        let mut to_save = None;
        if let Some(following) = &mut self.following {
            let owing = told.iter().filter(|(instance, _)| following.owing.contains(*instance));
            let owing: BTreeSet<NodeName> = owing.flat_map(|(_, told)| told & &nodes).collect();
            let may_go_back = following.record.verdict != Verdict::New;
            if following.record.note_order(verb, &owing, may_go_back) {
                to_save = Some(following.record.clone());
            }
        }
        if let Some(deployment) = &mut self.deployment {
            // What waits to be written is not decided: all may go back yet.
            let is_deciding = deployment.phase == Phase::Deciding;
            let may_go_back = is_deciding || deployment.record.verdict != Verdict::New;
            let has_changed = deployment.record.note_order(verb, &nodes, may_go_back);
            deployment.has_changed |= has_changed && is_deciding;
            if verb == Verb::Stop {
                deployment.rollout.pass_over(&nodes);
            }
            // While it is being decided nothing else is written of it: see `decided`.
            let is_written = deployment.is_written && !is_deciding;
            to_save = (has_changed && is_written).then(|| deployment.record.clone()).or(to_save);
            if has_changed && verb == Verb::Stop {
                let names: Vec<_> = nodes.iter().take(5).map(NodeName::as_str).collect();
                let more = if nodes.len() > names.len() { ", ..." } else { "" };
                self.tell_progress(
                    &format!("leaves down what is stopped meanwhile: {}{more}", names.join(", ")),
                    now,
                    fx,
                );
            }
        }
        fx.extend(to_save.map(|record| Effect::Save(vec![Save::Deployment(Box::new(record), None)], None)));
    }

    /// Where a node that moves is, or is being, started before that is decided: it is down where it was.
    pub(in crate::controller::state) fn place_of_what_arrives(&self, node: &NodeName) -> Option<&InstanceName> {
        let is_open = |it: &&Deployment| matches!(it.phase, Phase::Switching | Phase::Deciding);
        let deployment = self.deployment.as_ref().filter(is_open)?;
        deployment.record.moves.get(node).filter(|_| deployment.arrives.contains(node))
    }

    /// What of the nodes there was stopped since what is deployed, which it has yet to follow, began to be deployed.
    pub(in crate::controller::state) fn rests_of(&self, instance: &InstanceName) -> BTreeSet<NodeName> {
        let following = self.following.as_ref().filter(|it| !it.is_back && it.owing.contains(instance));
        let (Some(following), Some(deployed)) = (following, self.shelf.deployed()) else { return BTreeSet::new() };
        following.record.rests_among(|| deployed.names_on(instance))
    }
}

impl Deployment {
    /// Takes in what became of nodes. That somebody has stopped one is no failure.
    pub(super) fn note(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        let rests = |outcome: &Outcome| outcome.node.as_ref().is_some_and(|node| self.record.rests.contains(node));
        self.outcomes.extend(outcomes.into_iter().filter(|outcome| outcome.is_success() || !rests(outcome)));
    }
}

impl Record {
    /// Those of these nodes that somebody has stopped. Mostly nobody has, and nobody asks which there are.
    pub(super) fn rests_among<T: Iterator<Item = NodeName>>(&self, names: impl FnOnce() -> T) -> BTreeSet<NodeName> {
        match self.rests.is_empty() {
            true => BTreeSet::new(),
            false => names().filter(|name| self.rests.contains(name)).collect(),
        }
    }

    /// Whether anything is otherwise by that.
    fn note_order(&mut self, verb: Verb, nodes: &BTreeSet<NodeName>, may_go_back: bool) -> bool {
        let before = (self.rests.len(), self.up.len());
        for node in nodes {
            match verb {
                Verb::Stop => {
                    self.rests.insert(node.clone());
                    self.up.remove(node);
                }
                Verb::Start | Verb::Restart => {
                    self.rests.remove(node);
                    if may_go_back {
                        self.up.insert(node.clone());
                    }
                }
            }
        }
        before != (self.rests.len(), self.up.len())
    }
}

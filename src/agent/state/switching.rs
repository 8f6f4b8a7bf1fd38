//! One node after another becomes what it is in the configuration that was looked at last, and then that is in force; or, if
//! a deployment comes to nothing, what was before.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::preparing::{Back, OVERTAKEN, Staged, checked_change, ports};
use super::{Effect, Goal, InForce, State};
use crate::agent::jobs::{Kind, Wish};
use crate::agent::order::Step;
use crate::message::agent::*;
use crate::model::{Node, NodeName, NodeState, Outcome, RequestId, Timestamp};
use crate::plan::NodeChange;

impl State {
    pub(super) fn switch(&mut self, request: SwitchNodesRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let SwitchNodesRequest { reqid, configuration: id, nodes, rest } = request;
        let Some(mut staged) = self.staged.take_if(|staged| staged.configuration.id == id) else {
            if let Some(in_force) = self.configuration.clone().filter(|in_force| in_force.id == id) {
                return self.switch_back(reqid, &in_force, (&nodes, &rest), wall, fx);
            }
            let why = format!("it does not have configuration {id} at hand any more: was its agent started again?");
            let outcomes = vec![Outcome::instance_failed(&self.instance, why)];
            return self.answer(SwitchNodesResponse { reqid, outcomes });
        };
        let wished = Arc::clone(&staged.configuration.nodes);
        let named = wished.iter().filter(|node| nodes.contains(&node.name));
        named.for_each(|node| self.define(node, wall, fx));
        let have = self.definitions();
        let changes = self.changes_to(&have, &staged.configuration);
        let with_room = with_those_in_the_way(&changes, &nodes);
        self.jobs.open_beside(
            Kind::Switch,
            reqid,
            changes
                .iter()
                .filter(|change| nodes.contains(change.name()) && !rest.contains(change.name()))
                .map(|change| (change.name().clone(), Wish::Up)),
            nodes.iter().filter(|name| !wished.iter().any(|node| node.name == **name)).cloned(),
        );
        self.strays = true;
        let begun = changes.into_iter().filter(|change| with_room.contains(change.name()));
        let begun: Vec<_> = begun.collect();
        staged.switched.extend(begun.iter().map(|change| change.name().clone()));
        // Whatever dies before its turn comes is launched as it was.
        if let Some(number) = staged.configuration.files {
            self.tries_files = true;
            fx.push(Effect::TryFiles(number, staged.switched.clone()));
        }
        for change in begun {
            match rest.contains(change.name()) {
                true => self.begin_at_rest(change, wall, fx),
                false => self.begin(change, wall, fx),
            }
        }
        self.staged = Some(staged);
    }

    /// What was looked at by that request comes into force: nothing else may under its id.
    pub(super) fn commit(&mut self, request: CommitConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let CommitConfigurationRequest { reqid, configuration: id, checked, rest } = request;
        let is_meant =
            |staged: &mut Box<Staged>| staged.checked.as_ref() == Some(&checked) && staged.configuration.id == id;
        let Some(staged) = self.staged.take_if(is_meant) else { return self.answer(NotAtHand { reqid }) };
        // While something is at hand nothing else came into force: under this id it is this, if it is in force already.
        if self.is_in_force(&staged.configuration) {
            let outcomes = vec![Outcome::instance_done(&self.instance)];
            return self.answer(SetConfigurationResponse { reqid, outcomes });
        }
        self.give_up_preparing(OVERTAKEN);
        staged.configuration.nodes.iter().for_each(|node| self.define(node, wall, fx));
        self.adopt(reqid, *staged, &rest, wall, fx);
    }

    /// What was in force before is in force again. What did not change is left alone, also where it rests; and what serves
    /// goes on until its turn comes, unless all go back at once.
    pub(super) fn go_back(
        &mut self,
        reqid: RequestId,
        wished: InForce,
        back: &Back,
        wall: Timestamp,
        fx: &mut Vec<Effect>,
    ) {
        let Back { up, at_once } = back;
        wished.nodes.iter().for_each(|node| self.define(node, wall, fx));
        let have = self.definitions();
        let mut changes = self.changes_to(&have, &wished);
        let waits = |node: &Node| self.nodes.get(&node.name).is_some_and(|entry| entry.waits());
        let stays = |node: &Node| (!up.contains(&node.name) || waits(node)) && !self.leaves(&node.name);
        changes.retain(|change| !matches!(change, NodeChange::Keep(node) if stays(node)));
        let serves = |change: &NodeChange<'_>| !at_once && up.contains(change.name()) && self.serves(change);
        let first = changes.iter().filter(|change| up.contains(change.name()) && !serves(change));
        let first: BTreeSet<NodeName> = first.map(|change| change.name().clone()).collect();
        let first = with_those_in_the_way(&changes, &first);
        let (waiting, changes): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| serves(change) && !first.contains(change.name()));
        let waits = changes.iter().filter_map(|change| match change {
            NodeChange::Remove(node) => Some((node.name.clone(), Wish::Down)),
            change => up.contains(change.name()).then(|| (change.name().clone(), Wish::Up)),
        });
        let waiting: Vec<_> = waiting.iter().filter_map(checked_change).collect();
        let strays = !waiting.is_empty();
        self.jobs.open_beside_waiting(reqid, waits, waiting);
        self.use_files(&wished, fx);
        for change in changes {
            match up.contains(change.name()) {
                true => self.begin(change, wall, fx),
                false => self.begin_at_rest(change, wall, fx),
            }
        }
        self.is_now(wished, fx);
        self.strays = strays;
    }

    /// The turn of these nodes has come to go back to what is in force again.
    fn switch_back(
        &mut self,
        reqid: RequestId,
        in_force: &InForce,
        (nodes, rest): (&BTreeSet<NodeName>, &BTreeSet<NodeName>),
        wall: Timestamp,
        fx: &mut Vec<Effect>,
    ) {
        let have = self.definitions();
        let changes = self.changes_to(&have, in_force);
        let with_room = with_those_in_the_way(&changes, nodes);
        let rests =
            |name: &NodeName| self.nodes.get(name).is_some_and(|entry| matches!(entry.goal, Goal::Rest | Goal::Pause));
        // Whom somebody has stopped meanwhile nobody starts.
        let at_rest = with_room.iter().filter(|name| rest.contains(*name) || rests(name));
        let at_rest: BTreeSet<NodeName> = at_rest.cloned().collect();
        let is_awaited = |name: &NodeName| nodes.contains(name) && !at_rest.contains(name);
        let awaited = changes.iter().map(NodeChange::name).filter(|name| is_awaited(name));
        let strangers = nodes.iter().filter(|name| !in_force.nodes.iter().any(|node| node.name == **name));
        self.jobs.open_beside(Kind::Switch, reqid, awaited.map(|name| (name.clone(), Wish::Up)), strangers.cloned());
        let (begun, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| with_room.contains(change.name()));
        for change in begun {
            match at_rest.contains(change.name()) {
                true => self.begin_at_rest(change, wall, fx),
                false => self.begin(change, wall, fx),
            }
        }
        self.strays = others.iter().any(|change| matches!(change, NodeChange::Replace { .. }));
    }

    /// Has a node become what it is to be, and rest.
    pub(super) fn begin_at_rest(&mut self, change: NodeChange<'_>, wall: Timestamp, fx: &mut Vec<Effect>) {
        match change {
            NodeChange::Start(node) => {
                self.take_in(Arc::clone(node), NodeState::Stopped, None, wall, fx);
                self.want_down(&node.name, Goal::Rest, fx);
            }
            NodeChange::Replace { want, .. } => {
                self.want_down(&want.name, Goal::Rest, fx);
                if let Some(entry) = self.nodes.get_mut(&want.name) {
                    entry.next = Some(Arc::clone(want));
                }
            }
            change @ NodeChange::Remove(_) => self.begin(change, wall, fx),
            // It was on its way out, and has a place here again.
            NodeChange::Keep(node) if self.leaves(&node.name) => self.want_down(&node.name, Goal::Rest, fx),
            NodeChange::Keep(_) => {} // as it is
        }
    }

    pub(super) fn leaves(&self, name: &NodeName) -> bool {
        self.nodes.get(name).is_some_and(|entry| entry.goal == Goal::Leave)
    }

    /// Whether a node that is to be another is ready as what it is, and nothing else is wished of it.
    fn serves(&self, change: &NodeChange<'_>) -> bool {
        let NodeChange::Replace { want, .. } = change else { return false };
        self.nodes.get(&want.name).is_some_and(|entry| {
            let is_ready = entry.status.state == NodeState::Running && entry.place.step == Step::Idle;
            is_ready && entry.goal == Goal::Run
        })
    }
}

/// Those nodes, and every other one that changes and has a port that one of them will have: both at once, or the first
/// would find its port taken.
fn with_those_in_the_way(changes: &[NodeChange<'_>], nodes: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
    let mut with = nodes.clone();
    loop {
        let wanted: BTreeSet<u16> = changes
            .iter()
            .filter(|change| with.contains(change.name()))
            .filter_map(|change| match change {
                NodeChange::Start(want) | NodeChange::Replace { want, .. } => Some(ports(want)),
                NodeChange::Keep(_) | NodeChange::Remove(_) => None,
            })
            .flatten()
            .collect();
        let is_in_the_way = |change: &&NodeChange<'_>| match change {
            NodeChange::Remove(have) | NodeChange::Replace { have, .. } => {
                !with.contains(&have.name) && !ports(have).is_disjoint(&wanted)
            }
            NodeChange::Keep(_) | NodeChange::Start(_) => false,
        };
        let more: Vec<NodeName> = changes.iter().filter(is_in_the_way).map(|change| change.name().clone()).collect();
        if more.is_empty() {
            return with;
        }
        with.extend(more);
    }
}

//! The controller's copy of what agents told of their nodes.
//!
//! Whatever a change said of the state before it, it is published with the state that was published last: so the
//! `old` of a change of a node is the `new` of the change before it, also across lost links and restarts.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::agent::NotifyChange;
use crate::model::{Configuration, InstanceName, Node, NodeName, NodeState, NodeStatus, Timestamp};

/// Every node that is known, by name.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    known: BTreeMap<NodeName, NodeStatus>,
}

impl Nodes {
    /// Every node, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &NodeStatus> {
        self.known.values()
    }

    /// The node of that name.
    pub fn get(&self, name: &NodeName) -> Option<&NodeStatus> {
        self.known.get(name)
    }

    /// Takes in the nodes of a configuration: those that are new here are in `state` until somebody tells otherwise.
    pub fn expect(&mut self, configuration: &Configuration, state: NodeState, now: Timestamp) {
        for node in &configuration.nodes {
            match self.known.get_mut(&node.name) {
                Some(status) => (status.port, status.metrics_port) = (node.port, node.metrics_port),
                None => drop(self.known.insert(node.name.clone(), unheard(node, state, now))),
            }
        }
    }

    /// Takes in what an agent told, and returns the change as it is published.
    ///
    /// `None` if another instance has the node now: what is told of it no longer concerns anybody.
    pub fn told(&mut self, mut change: NotifyChange) -> Option<NotifyChange> {
        let status = self.known.entry(change.node.clone()).or_insert_with(|| first_heard(&change));
        if status.instance != change.instance {
            if change.removed {
                return None;
            }
            status.instance = change.instance.clone();
        }
        change.old = status.state;
        status.state = change.new;
        status.role = change.role;
        status.pid = change.pid.filter(|_| matches!(change.new, NodeState::Pending | NodeState::Running));
        (status.restarts, status.since) = (change.restarts, change.time);
        status.reason.clone_from(&change.reason);
        if change.removed {
            self.known.remove(&change.node);
        }
        Some(change)
    }

    /// The agent of `instance` is out of reach: what is known of its nodes may be true no more.
    pub fn lose(&mut self, instance: &InstanceName, reason: &str, now: Timestamp) -> Vec<NotifyChange> {
        let of_it = self.known.values().filter(|status| status.instance == *instance);
        let lost = of_it.filter(|status| status.state != NodeState::Unknown);
        let changes: Vec<_> = lost.map(|status| own_change(status, NodeState::Unknown, reason, now)).collect();
        changes.into_iter().filter_map(|change| self.told(change)).collect()
    }

    /// Corrects the copy by what an agent says it runs; returns what its news did not explain.
    ///
    /// A node that it should have, because `is_meant` says so, and does not have is STOPPED; any other is gone.
    pub fn reconcile(
        &mut self,
        instance: &InstanceName,
        snapshot: Vec<NodeStatus>,
        is_meant: impl Fn(&NodeName) -> bool,
        now: Timestamp,
    ) -> Vec<NotifyChange> {
        let told: BTreeSet<&NodeName> = snapshot.iter().map(|status| &status.node).collect();
        let of_it = self.known.values().filter(|status| status.instance == *instance);
        let missing = of_it.filter(|status| !told.contains(&status.node)).filter(|status| {
            // Known to be down is what its agent says, too, by not having it.
            status.state != NodeState::Stopped || !is_meant(&status.node)
        });
        let missing: Vec<_> = missing
            .map(|status| NotifyChange {
                removed: !is_meant(&status.node),
                ..own_change(status, NodeState::Stopped, "reconciled: its agent does not have it", now)
            })
            .collect();
        let mut changes: Vec<_> = missing.into_iter().filter_map(|change| self.told(change)).collect();
        for told in snapshot {
            changes.extend(self.correct(instance, told, now));
        }
        changes
    }

    fn correct(&mut self, instance: &InstanceName, told: NodeStatus, now: Timestamp) -> Option<NotifyChange> {
        let known = self.known.get(&told.node);
        let is_explained = known
            .is_some_and(|known| known.state == told.state && known.pid == told.pid && known.instance == *instance);
        let change = (!is_explained).then(|| {
            let reason = match told.reason.is_empty() {
                true => "reconciled".to_owned(),
                false => format!("reconciled: {}", told.reason),
            };
            let status = NodeStatus { instance: instance.clone(), ..told.clone() };
            NotifyChange { pid: told.pid, ..own_change(&status, told.state, &reason, now) }
        });
        let change = change.and_then(|change| self.told(change));
        if let Some(known) = self.known.get_mut(&told.node) {
            (known.port, known.metrics_port) = (told.port, told.metrics_port);
            (known.restarts, known.since) = (told.restarts, told.since);
            known.reason = told.reason;
        }
        change
    }

    /// Forgets what is UNKNOWN and no longer meant to be: nobody will tell of it again.
    pub fn forget_lost(&mut self, is_meant: impl Fn(&NodeName) -> bool, now: Timestamp) -> Vec<NotifyChange> {
        let lost = self.known.values().filter(|status| status.state == NodeState::Unknown && !is_meant(&status.node));
        let lost: Vec<_> = lost
            .map(|status| NotifyChange {
                removed: true,
                ..own_change(status, NodeState::Stopped, "removed from the configuration while out of reach", now)
            })
            .collect();
        lost.into_iter().filter_map(|change| self.told(change)).collect()
    }
}

fn unheard(node: &Node, state: NodeState, now: Timestamp) -> NodeStatus {
    NodeStatus {
        node: node.name.clone(),
        instance: node.instance.clone(),
        role: node.role,
        state,
        pid: None,
        port: node.port,
        metrics_port: node.metrics_port,
        restarts: 0,
        since: now,
        reason: "its agent has not told of it yet".into(),
    }
}

/// Whoever is new here, or was removed before, comes from STOPPED, whatever its agent saw while nobody listened.
fn first_heard(change: &NotifyChange) -> NodeStatus {
    NodeStatus {
        node: change.node.clone(),
        instance: change.instance.clone(),
        role: change.role,
        state: NodeState::Stopped,
        pid: None,
        port: None,
        metrics_port: None,
        restarts: 0,
        since: change.time,
        reason: String::new(),
    }
}

/// A change that the controller itself tells; it has no number of an agent's.
fn own_change(status: &NodeStatus, new: NodeState, reason: &str, time: Timestamp) -> NotifyChange {
    NotifyChange {
        seq: 0,
        time,
        instance: status.instance.clone(),
        node: status.node.clone(),
        role: status.role,
        old: status.state,
        new,
        pid: None,
        exit: None,
        attempt: 0,
        restarts: status.restarts,
        reason: reason.into(),
        removed: false,
    }
}

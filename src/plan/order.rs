//! Which roles start before which, and how long the order may make others wait. Stopping is the reverse.

use std::time::Duration;

use crate::model::{Node, Role};

/// The number of ranks.
pub const RANKS: usize = Role::ALL.len();
/// How long a node that was asked to stop may hold up those that stop after it.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long after SIGKILL a process may take to be gone before its order counts as failed.
pub const KILL_MARGIN: Duration = Duration::from_secs(2);
/// How long Zeek may take to look at the nodes of a new configuration before any of them is stopped.
pub const CHECK_PATIENCE: Duration = Duration::from_secs(30);
/// What an order may take beside the waiting for its nodes: launching them, and the way there and back.
const MARGIN: Duration = Duration::from_secs(5);

/// The place of a role in the order of starting, from 0. Nodes of one rank start together.
pub fn rank(role: Role) -> usize {
    match role {
        Role::Logger => 0,
        Role::Manager => 1,
        Role::Proxy => 2,
        Role::Worker => 3,
        Role::None => 4,
    }
}

/// How long the slowest of some nodes take: what the patience with all of them comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slowest {
    grace: Duration,
    within: [Duration; RANKS],
    /// Whether Zeek is to look at some of them first.
    looked_at: bool,
}

impl Slowest {
    /// The slowest of these nodes.
    pub fn of(nodes: impl IntoIterator<Item = impl AsRef<Node>>) -> Self {
        let mut slowest = Self::default();
        for node in nodes {
            let node = node.as_ref();
            let within = &mut slowest.within[rank(node.role)];
            *within = node.ready_within().max(*within);
            slowest.grace = node.stop_grace.max(slowest.grace);
            slowest.looked_at |= node.is_zeek();
        }
        slowest
    }

    /// Whether Zeek is to look at some of them before they are launched.
    pub fn is_looked_at(&self) -> bool {
        self.looked_at
    }

    /// The slowest of both.
    pub fn or(mut self, other: &Self) -> Self {
        self.grace = self.grace.max(other.grace);
        self.looked_at |= other.looked_at;
        for (within, other) in self.within.iter_mut().zip(&other.within) {
            *within = (*within).max(*other);
        }
        self
    }

    /// The longest that an order about the nodes may honestly take at the agents: to stop them all, and to start them.
    ///
    /// Whoever waits no shorter leaves the agents the time to name the node that is late.
    pub fn patience(&self) -> Duration {
        // Each rank but the last may hold up the next one; the last has its whole grace, and SIGKILL.
        let stopping = (STOP_PATIENCE * (RANKS as u32 - 1)).saturating_add(self.grace).saturating_add(KILL_MARGIN);
        let looking = if self.looked_at { CHECK_PATIENCE } else { Duration::ZERO };
        self.within.into_iter().fold(stopping, Duration::saturating_add).saturating_add(looking).saturating_add(MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{InstanceName, NodeName};

    fn node(role: Role, within: u64, grace: u64) -> Arc<Node> {
        let mut node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("one").unwrap(), role);
        node.command = vec!["program".into()];
        (node.ready.within, node.stop_grace) = (Some(Duration::from_secs(within)), Duration::from_secs(grace));
        Arc::new(node)
    }

    #[test]
    fn ranks_follow_the_declared_order_of_roles() {
        assert_eq!(Role::ALL.map(rank), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn patience_adds_the_slowest_of_each_rank_and_the_longest_grace() {
        let none = Slowest::default().patience();
        let mut nodes = [node(Role::Manager, 20, 1), node(Role::Worker, 7, 30), node(Role::Worker, 9, 2)];
        let (first, rest) = nodes.split_at(1);
        for slowest in
            [Slowest::of(&nodes), Slowest::of(first).or(&Slowest::of(rest)), Slowest::of(rest).or(&Slowest::of(first))]
        {
            assert_eq!(slowest.patience(), none + Duration::from_secs(20 + 9 + 30));
        }
        Arc::make_mut(&mut nodes[0]).command.clear();
        let looked_at = none + Duration::from_secs(20 + 9 + 30) + CHECK_PATIENCE;
        assert_eq!(Slowest::of(&nodes).patience(), looked_at);
        Arc::make_mut(&mut nodes[0]).ready.within = Some(Duration::MAX);
        assert_eq!(Slowest::of(&nodes).patience(), Duration::MAX);
    }
}

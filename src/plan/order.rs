//! Which roles start before which, and how long a deployment may take because of it. Stopping is the reverse.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Configuration, Node, Role};

/// What a deployment may take beside the waiting for its nodes: launching them, and the way there and back.
const MARGIN: Duration = Duration::from_secs(5);

/// The place of a role in the order of starting, from 0. Nodes of one rank start together.
pub fn rank(role: Role) -> u8 {
    match role {
        Role::Logger => 0,
        Role::Manager => 1,
        Role::Proxy => 2,
        Role::Worker => 3,
        Role::None => 4,
    }
}

/// The nodes in groups that start one after the other, each sorted by name. No group is empty.
pub fn start_groups<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<Vec<&'a Node>> {
    let mut groups = BTreeMap::<u8, Vec<&Node>>::new();
    for node in nodes {
        groups.entry(rank(node.role)).or_default().push(node);
    }
    for group in groups.values_mut() {
        group.sort_by(|a, b| a.name.cmp(&b.name));
    }
    groups.into_values().collect()
}

/// The nodes in groups that stop one after the other, each sorted by name: [`start_groups`] in reverse.
pub fn stop_groups<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<Vec<&'a Node>> {
    let mut groups = start_groups(nodes);
    groups.reverse();
    groups
}

/// The longest that a deployment of `configuration` may honestly take at the agents.
///
/// Groups wait for each other, so the largest `ready_within` of each counts; what runs is told to stop once. An outer
/// deadline that is no shorter leaves the agents the time to name the node that is late.
pub fn patience(configuration: &Configuration) -> Duration {
    let nodes = &configuration.nodes;
    let starting = start_groups(nodes)
        .iter()
        .filter_map(|group| group.iter().map(|node| node.ready.within).max())
        .fold(Duration::ZERO, Duration::saturating_add);
    let stopping = nodes.iter().map(|node| node.stop_grace).max().unwrap_or_default();
    starting.saturating_add(stopping).saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigurationId, InstanceName, NodeName};

    fn node(name: &str, role: Role) -> Node {
        Node::new(NodeName::new(name).unwrap(), InstanceName::new("one").unwrap(), role)
    }

    fn names(groups: &[Vec<&Node>]) -> Vec<Vec<String>> {
        groups.iter().map(|group| group.iter().map(|node| node.name.to_string()).collect()).collect()
    }

    #[test]
    fn loggers_start_first_and_stop_last() {
        let nodes =
            [node("w2", Role::Worker), node("m", Role::Manager), node("w1", Role::Worker), node("l", Role::Logger)];
        assert_eq!(names(&start_groups(&nodes)), [vec!["l"], vec!["m"], vec!["w1", "w2"]]);
        assert_eq!(names(&stop_groups(&nodes)), [vec!["w1", "w2"], vec!["m"], vec!["l"]]);
    }

    #[test]
    fn ranks_follow_the_declared_order_of_roles() {
        assert_eq!(Role::ALL.map(rank), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn patience_adds_the_slowest_of_each_group_and_the_longest_grace() {
        let seconds = Duration::from_secs;
        let mut configuration = Configuration::empty(ConfigurationId::new("c").unwrap());
        assert_eq!(patience(&configuration), MARGIN);
        for (name, role, within, grace) in
            [("m", Role::Manager, 20, 1), ("w1", Role::Worker, 7, 30), ("w2", Role::Worker, 9, 2)]
        {
            let mut node = node(name, role);
            (node.ready.within, node.stop_grace) = (seconds(within), seconds(grace));
            configuration.nodes.push(node);
        }
        assert_eq!(patience(&configuration), seconds(20 + 9 + 30) + MARGIN);
        configuration.nodes[0].ready.within = Duration::MAX;
        assert_eq!(patience(&configuration), Duration::MAX);
    }
}

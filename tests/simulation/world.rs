//! Configurations by chance.

use std::time::Duration;

use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, Ready, ReadyBy, RestartMode, Role,
};

use crate::chance::Chance;

/// Every node there may be, in alphabetical order; what each is for does not follow it.
const NODES: [(&str, Role); 6] = [
    ("a-worker", Role::Worker),
    ("b-manager", Role::Manager),
    ("c-logger", Role::Logger),
    ("d-worker", Role::Worker),
    ("e-proxy", Role::Proxy),
    ("f-none", Role::None),
];

pub fn node_names() -> Vec<NodeName> {
    NODES.iter().map(|(name, _)| NodeName::new(name).unwrap()).collect()
}

/// Most of the nodes, each in one of three versions, on any of these instances; all of these are in it.
pub fn configuration(chance: &mut Chance, id: u64, instances: &[&str]) -> Configuration {
    let name = |name: &str| InstanceName::new(name).unwrap();
    let mut configuration = Configuration::empty(ConfigurationId::new(&format!("c{id}")).unwrap());
    configuration.instances =
        instances.iter().map(|instance| Instance { name: name(instance), host: None, port: None }).collect();
    let is_swapped = chance.percent(20);
    for (node, role) in NODES {
        if chance.percent(25) || instances.is_empty() {
            continue;
        }
        let mut node = Node::new(NodeName::new(node).unwrap(), name(chance.pick::<&str>(instances)), role);
        node.command = vec!["program".into()];
        node.ready = Ready { by: ReadyBy::Settle(Duration::from_millis(100)), within: Some(Duration::from_secs(5)) };
        node.restart.limit = 4;
        // A node is one of a few versions of itself, so that some stay the same from one configuration to the next.
        match chance.below(6) {
            0 => node.stop_grace = Duration::from_secs(1),
            1 => node.restart.mode = RestartMode::OnFailure,
            _ => node.stop_grace = Duration::from_secs(4),
        }
        // Two ports that change places between configurations, so that a node has to wait for another's.
        if matches!(role, Role::Manager | Role::Logger) {
            node.port = Some(if (role == Role::Manager) == is_swapped { 4001 } else { 4002 });
        }
        configuration.nodes.push(node.into());
    }
    configuration
}

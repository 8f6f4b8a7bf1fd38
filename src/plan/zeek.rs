//! Decisions about Zeek clusters: what is wrong with one, what is filled in, and what each node must know of the others.

mod check;
mod surroundings;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) use check::examine;
pub use surroundings::{NoPlace, equip, why};

use super::ports::PortRules;
use crate::model::{Backend, Configuration, Node, Role, Zeek};

impl PortRules {
    /// The rules as `[zeek]` changes them.
    pub(super) fn within(&self, configuration: &Configuration) -> Self {
        let Some(zeek) = &configuration.zeek else { return *self };
        let first_metrics_port = zeek.metrics_port.or(self.first_metrics_port).filter(|&port| port != 0);
        Self { first_port: zeek.port.or(self.first_port), first_metrics_port, ..*self }
    }
}

/// The node that runs ZeroMQ's hub, if the cluster may be one that talks by ZeroMQ.
pub(super) fn hub(configuration: &Configuration) -> Option<&Arc<Node>> {
    let backend = configuration.zeek.as_ref().map_or(Backend::default(), |zeek| zeek.backend);
    let is_manager = |node: &&Arc<Node>| node.is_zeek() && node.role == Role::Manager;
    configuration.nodes.iter().find(is_manager).filter(|_| backend != Backend::Broker)
}

/// Makes up what a Zeek cluster needs and nobody gave: what its hashes begin with. Configurations that follow one another
/// have it in common: see [`super::keep_ports`].
pub fn complete(configuration: &mut Configuration) {
    if configuration.nodes.iter().any(|node| node.is_zeek()) {
        let seed = hash(configuration.id.as_str());
        configuration.zeek.get_or_insert_default().hash_seed.get_or_insert(seed);
    }
}

/// What was made up for the cluster before, unless it is given now, or a port is somebody else's by now.
pub(super) fn keep(configuration: &mut Configuration, before: &Configuration, is_free: impl Fn(u16) -> bool) {
    let Some(before) = before.zeek.as_deref() else { return };
    if !configuration.nodes.iter().any(|node| node.is_zeek()) {
        return;
    }
    let ports = before.zeromq_ports.filter(|ports| ports.iter().all(|&port| is_free(port)));
    let ports = ports.filter(|_| hub(configuration).is_some());
    let mut zeek: Zeek = configuration.zeek.as_deref().cloned().unwrap_or_default();
    zeek.zeromq_ports = zeek.zeromq_ports.or(ports);
    zeek.hash_seed = zeek.hash_seed.or(before.hash_seed);
    configuration.zeek = (zeek != Zeek::default()).then(|| Box::new(zeek));
}

/// A number for a text, the same in every release (FNV-1a).
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A number below `count` for each of some texts: its own, and the same whatever the others are, as long as no two of them
/// meet.
fn numbers<'a>(texts: impl IntoIterator<Item = &'a str>, count: u32) -> BTreeMap<&'a str, u32> {
    let mut taken = std::collections::BTreeSet::new();
    let sorted: std::collections::BTreeSet<_> = texts.into_iter().collect();
    let mut numbers = BTreeMap::new();
    for text in sorted.into_iter().take(count as usize) {
        let mut number = hash(text) % count;
        while !taken.insert(number) {
            number = (number + 1) % count;
        }
        numbers.insert(text, number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigurationId, Instance, InstanceName, NodeName};
    use crate::plan::{assign_ports, keep_ports};

    /// Nodes as `name instance role`.
    pub fn cluster(id: &str, nodes: &[&str]) -> Configuration {
        let node = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let role = Role::ALL.into_iter().find(|role| role.as_str() == words[2]).unwrap();
            Arc::new(Node::new(NodeName::new(words[0]).unwrap(), InstanceName::new(words[1]).unwrap(), role))
        };
        let nodes: Vec<Arc<Node>> = nodes.iter().map(node).collect();
        let names: std::collections::BTreeSet<_> = nodes.iter().map(|node| node.instance.clone()).collect();
        let instances = names.into_iter().map(|name| Instance { name, host: None, port: None }).collect();
        Configuration {
            id: ConfigurationId::new(id).unwrap(),
            instances,
            nodes,
            ..Configuration::empty(ConfigurationId::new(id).unwrap())
        }
    }

    #[test]
    fn the_hub_gets_two_ports_behind_those_of_the_nodes_and_keeps_them() {
        let mut first = cluster("1", &["m a manager", "l a logger", "w a worker"]);
        let rules = PortRules::default();
        assign_ports(&mut first, &rules).unwrap();
        assert_eq!(first.zeek.as_ref().unwrap().zeromq_ports, Some([2202, 2203]));
        let mut second = cluster("2", &["m a manager", "l a logger", "p a proxy", "w a worker"]);
        keep_ports(&mut second, &first);
        assign_ports(&mut second, &rules).unwrap();
        assert_eq!(second.zeek.as_ref().unwrap().zeromq_ports, Some([2202, 2203]));
        assert_eq!(second.nodes[2].port, Some(2204));
        let mut broker = cluster("3", &["m a manager"]);
        broker.zeek = Some(Box::new(Zeek { backend: Backend::Broker, ..Zeek::default() }));
        assign_ports(&mut broker, &rules).unwrap();
        assert_eq!(broker.zeek.as_ref().unwrap().zeromq_ports, None);
    }

    #[test]
    fn the_cluster_says_where_its_ports_begin() {
        let mut subject = cluster("1", &["m a manager", "w a worker"]);
        subject.zeek = Some(Box::new(Zeek { port: Some(27_760), metrics_port: Some(0), ..Zeek::default() }));
        assign_ports(&mut subject, &PortRules { first_port: None, ..PortRules::default() }).unwrap();
        let ports: Vec<_> = subject.nodes.iter().map(|node| (node.port, node.metrics_port)).collect();
        assert_eq!(ports, [(Some(27_760), None), (None, None)]);
        assert_eq!(subject.zeek.as_ref().unwrap().zeromq_ports, Some([27_761, 27_762]));
        let mut elsewhere = cluster("2", &["m a manager", "w a worker"]);
        elsewhere.zeek = Some(Box::new(Zeek { port: Some(5000), ..Zeek::default() }));
        keep_ports(&mut elsewhere, &subject);
        assign_ports(&mut elsewhere, &PortRules::default()).unwrap();
        assert_eq!(elsewhere.nodes[0].port, Some(5000), "nobody asked for the former place any more");
        assert_eq!(elsewhere.zeek.unwrap().zeromq_ports, Some([5001, 5002]));
    }

    #[test]
    fn the_seed_is_made_up_once() {
        let mut first = cluster("1", &["w a worker"]);
        complete(&mut first);
        let mut second = cluster("2", &["w a worker"]);
        let alone = {
            let mut alone = second.clone();
            complete(&mut alone);
            alone
        };
        keep_ports(&mut second, &first);
        complete(&mut second);
        assert_eq!(second.zeek, first.zeek);
        assert_ne!(alone.zeek, first.zeek);
    }

    #[test]
    fn numbers_are_distinct_and_stay() {
        let few = numbers(["b", "a"], 65_535);
        let more = numbers(["c", "a", "b"], 65_535);
        assert!(few.iter().all(|(text, number)| more[text] == *number));
        let crowded = numbers(["a", "b", "c", "d"], 4);
        assert_eq!(crowded.values().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}

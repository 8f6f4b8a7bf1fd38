//! Fills in the ports that a configuration leaves open, and never moves a given one.
//!
//! The order of assignment is that of Zeek's Management framework, so that the same file gets the same ports: nodes
//! by instance, then manager before logger before proxy before worker, then by name. Unlike there, no port is given
//! out that anything else in the configuration uses on the same host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::zeek;
use crate::model::{Configuration, Instance, InstanceName, Node, ReadyBy, Role};

/// Which ports are given out, and which are taken by the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRules {
    /// Where the controller listens for agents, if it does; no node may use it.
    pub controller: Option<u16>,
    /// Managers, loggers and proxies without a port get the next free one of the cluster from here on; `None`: off.
    pub first_port: Option<u16>,
    /// Nodes without a metrics port get the next free one of their host from here on; `None`: off.
    pub first_metrics_port: Option<u16>,
}

impl Default for PortRules {
    fn default() -> Self {
        Self { controller: Some(2150), first_port: Some(2200), first_metrics_port: Some(9000) }
    }
}

/// More ports are needed than there are above the first one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no free {what} from {first} on is left for node '{node}': start at a lower one")]
pub struct PortsExhausted {
    /// `port` or `metrics port`.
    pub what: &'static str,
    pub first: u16,
    pub node: String,
}

/// Fills in the address of each instance that has none from where its agent was seen.
///
/// Goes before [`assign_ports`], which counts metrics ports per address, and again when a deployment is decided: agents
/// that connected after staging are then known.
pub fn resolve_hosts(instances: &mut [Instance], seen: &BTreeMap<InstanceName, IpAddr>) {
    for instance in instances {
        instance.host = instance.host.or_else(|| seen.get(&instance.name).copied());
    }
}

/// Gives nodes that have no port of their own the one that they were given out before, so that a node which did not
/// change is not restarted because others came or went. A port that is somebody else's by now is not kept.
pub fn keep_ports(configuration: &mut Configuration, before: &Configuration) {
    let given: BTreeSet<u16> =
        configuration.nodes.iter().flat_map(|node| [node.port, node.metrics_port]).flatten().collect();
    let (whole, before) = (before, &before.nodes);
    let before: BTreeMap<_, _> = before.iter().map(|node| ((&node.name, &node.instance), node)).collect();
    // Where somebody says that ports begin elsewhere, they do.
    let begins = |of: &Configuration| of.zeek.as_ref().map_or((None, None), |zeek| (zeek.port, zeek.metrics_port));
    let ((port, metrics_port), before_that) = (begins(configuration), begins(whole));
    let (same_port, same_metrics_port) = (port == before_that.0, metrics_port == before_that.1);
    zeek::keep(configuration, whole, |port| same_port && !given.contains(&port));
    for node in &mut configuration.nodes {
        let Some(before) = before.get(&(&node.name, &node.instance)).filter(|before| before.role == node.role) else {
            continue;
        };
        let free = |port: Option<u16>| port.filter(|port| !given.contains(port));
        let port = node.port.or_else(|| free(before.port).filter(|_| same_port));
        let metrics_port = node.metrics_port.or_else(|| free(before.metrics_port).filter(|_| same_metrics_port));
        if (port, metrics_port) != (node.port, node.metrics_port) {
            let node = Arc::make_mut(node);
            (node.port, node.metrics_port) = (port, metrics_port);
        }
    }
}

/// Gives a port to every node that needs one and has none. Nothing is changed if ports run out.
pub fn assign_ports(configuration: &mut Configuration, rules: &PortRules) -> Result<(), PortsExhausted> {
    let rules = &rules.within(configuration);
    let mut nodes = configuration.nodes.clone();
    let mut zeromq = None;
    if let Some(first) = rules.first_port {
        zeromq = assign_listening(configuration, &mut nodes, rules, first)?;
    }
    if let Some(first) = rules.first_metrics_port {
        assign_metrics(configuration, &mut nodes, zeromq, rules, first)?;
    }
    configuration.nodes = nodes;
    if zeromq.is_some() {
        configuration.zeek.get_or_insert_default().zeromq_ports = zeromq;
    }
    Ok(())
}

/// One counter for the whole cluster; returns the ports of ZeroMQ's hub, if it has one.
fn assign_listening(
    configuration: &Configuration,
    nodes: &mut [Arc<Node>],
    rules: &PortRules,
    first: u16,
) -> Result<Option<[u16; 2]>, PortsExhausted> {
    let given_to_hub = hub_ports(configuration);
    let in_order = in_order(nodes, needs_port);
    if in_order.is_empty() && zeek::hub(configuration).is_none() {
        return Ok(given_to_hub);
    }
    let taken = rules.controller.into_iter().chain(configuration.instances.iter().filter_map(|i| i.port));
    let taken = taken.chain(nodes.iter().flat_map(|node| given(node))).chain(given_to_hub.into_iter().flatten());
    let taken = taken.collect();
    let mut counter = Counter { what: "port", first, next: Some(first), taken };
    for index in in_order {
        let port = counter.next_free(&nodes[index])?;
        Arc::make_mut(&mut nodes[index]).port = Some(port);
    }
    Ok(match (zeek::hub(configuration), given_to_hub) {
        (Some(manager), None) => Some([counter.next_free(manager)?, counter.next_free(manager)?]),
        (_, given) => given,
    })
}

/// The ports that ZeroMQ's hub was given.
fn hub_ports(configuration: &Configuration) -> Option<[u16; 2]> {
    configuration.zeek.as_ref().and_then(|zeek| zeek.zeromq_ports)
}

/// One counter per address; instances whose address nobody knows share one.
fn assign_metrics(
    configuration: &Configuration,
    nodes: &mut [Arc<Node>],
    zeromq: Option<[u16; 2]>,
    rules: &PortRules,
    first: u16,
) -> Result<(), PortsExhausted> {
    let in_order = in_order(nodes, |node| node.role != Role::None && node.metrics_port.is_none());
    if in_order.is_empty() {
        return Ok(());
    }
    let hosts: BTreeMap<&InstanceName, Option<IpAddr>> =
        configuration.instances.iter().map(|instance| (&instance.name, instance.host)).collect();
    let host_of = |instance: &InstanceName| hosts.get(instance).copied().flatten();

    let mut taken = BTreeMap::<Option<IpAddr>, BTreeSet<u16>>::new();
    for instance in &configuration.instances {
        taken.entry(instance.host).or_default().extend(instance.port);
    }
    for node in nodes.iter() {
        taken.entry(host_of(&node.instance)).or_default().extend(given(node));
    }
    if let Some(manager) = zeek::hub(configuration) {
        let ports = zeromq.or_else(|| hub_ports(configuration)).into_iter().flatten();
        taken.entry(host_of(&manager.instance)).or_default().extend(ports);
    }
    let counter = |mut taken: BTreeSet<u16>| {
        taken.extend(rules.controller);
        Counter { what: "metrics port", first, next: Some(first), taken }
    };
    let mut counters: BTreeMap<_, _> = taken.into_iter().map(|(host, taken)| (host, counter(taken))).collect();

    for index in in_order {
        let host = host_of(&nodes[index].instance);
        let counter = counters.entry(host).or_insert_with(|| counter(BTreeSet::new()));
        let port = counter.next_free(&nodes[index])?;
        Arc::make_mut(&mut nodes[index]).metrics_port = Some(port);
    }
    Ok(())
}

/// Whether a node must listen for others and was not told where.
pub(super) fn needs_port(node: &Node) -> bool {
    matches!(node.role, Role::Manager | Role::Logger | Role::Proxy) && node.port.is_none()
}

/// Every port that a node names.
fn given(node: &Node) -> impl Iterator<Item = u16> + use<> {
    let ready = match node.ready.by {
        ReadyBy::Port(port) => Some(port),
        ReadyBy::Tcp(address) if address.ip().is_loopback() => Some(address.port()),
        ReadyBy::Tcp(_) | ReadyBy::Settle(_) | ReadyBy::Notify | ReadyBy::Zeek | ReadyBy::Usual => None,
    };
    let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.as_ref());
    let probe = probe.and_then(|probe| probe.by.address()).filter(|address| address.ip().is_loopback());
    [node.port, node.metrics_port, ready, probe.map(|address| address.port())].into_iter().flatten()
}

/// The indices of the nodes that `wants` one, in the order of assignment.
fn in_order(nodes: &[Arc<Node>], wants: impl Fn(&Node) -> bool) -> Vec<usize> {
    let place = |role| match role {
        Role::Manager => 0,
        Role::Logger => 1,
        Role::Proxy => 2,
        Role::Worker => 3,
        Role::None => 4,
    };
    let mut indices: Vec<usize> = (0..nodes.len()).filter(|&index| wants(&nodes[index])).collect();
    indices.sort_by_key(|&index| (&nodes[index].instance, place(nodes[index].role), &nodes[index].name));
    indices
}

/// Counts up past what is taken.
struct Counter {
    what: &'static str,
    first: u16,
    /// `None` behind the last port there is.
    next: Option<u16>,
    taken: BTreeSet<u16>,
}

impl Counter {
    fn next_free(&mut self, node: &Node) -> Result<u16, PortsExhausted> {
        while let Some(port) = self.next {
            self.next = port.checked_add(1);
            // Port 0 would mean "any", which nobody could be told.
            if port != 0 && self.taken.insert(port) {
                return Ok(port);
            }
        }
        Err(PortsExhausted { what: self.what, first: self.first, node: node.name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigurationId, Instance, NodeName, Ready};

    /// An instance: its name, address and port.
    type Place<'a> = (&'a str, Option<[u8; 4]>, Option<u16>);

    /// Nodes as `name instance role port metrics`, `-` for a port that is not given.
    fn configuration(hosts: &[Place], nodes: &[&str]) -> Configuration {
        let name = |text: &str| InstanceName::new(text).unwrap();
        let instance = |&(text, host, port): &Place| Instance { name: name(text), host: host.map(Into::into), port };
        let node = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let role = Role::ALL.into_iter().find(|role| role.as_str() == words[2]).unwrap();
            let mut node = Node::new(NodeName::new(words[0]).unwrap(), name(words[1]), role);
            (node.port, node.metrics_port) = (words[3].parse().ok(), words[4].parse().ok());
            Arc::new(node)
        };
        Configuration {
            instances: hosts.iter().map(instance).collect(),
            nodes: nodes.iter().map(node).collect(),
            ..Configuration::empty(ConfigurationId::new("c").unwrap())
        }
    }

    fn ports(configuration: &Configuration) -> Vec<String> {
        let show = |port: Option<u16>| port.map_or("-".to_owned(), |port| port.to_string());
        let line = |node: &Arc<Node>| format!("{} {} {}", node.name, show(node.port), show(node.metrics_port));
        configuration.nodes.iter().map(line).collect()
    }

    fn without_metrics() -> PortRules {
        PortRules { first_metrics_port: None, ..PortRules::default() }
    }

    #[test]
    fn listening_ports_count_by_instance_then_role_then_name() {
        let mut subject = configuration(
            &[("instance-1", None, None), ("instance-2", None, None)],
            &[
                "proxy-04 instance-2 proxy - -",
                "logger-02 instance-2 logger - -",
                "proxy-03 instance-2 proxy - -",
                "proxy-02 instance-1 proxy - -",
                "worker-01 instance-1 worker - -",
                "proxy-01 instance-1 proxy - -",
                "logger-01 instance-1 logger - -",
                "manager instance-1 manager - -",
            ],
        );
        assign_ports(&mut subject, &without_metrics()).unwrap();
        assert_eq!(
            ports(&subject),
            [
                "proxy-04 2206 -",
                "logger-02 2204 -",
                "proxy-03 2205 -",
                "proxy-02 2203 -",
                "worker-01 - -",
                "proxy-01 2202 -",
                "logger-01 2201 -",
                "manager 2200 -",
            ]
        );
    }

    #[test]
    fn taken_ports_are_skipped_wherever_they_are_named() {
        let mut subject = configuration(
            &[("a", None, Some(2200)), ("b", None, None)],
            &["m a manager - 2201", "w b worker 2202 -", "l a logger - -"],
        );
        Arc::make_mut(&mut subject.nodes[1]).ready = Ready { by: ReadyBy::Port(2204), ..Ready::default() };
        let rules = PortRules { controller: Some(2203), ..without_metrics() };
        assign_ports(&mut subject, &rules).unwrap();
        assert_eq!(ports(&subject), ["m 2205 2201", "w 2202 -", "l 2206 -"]);
    }

    #[test]
    fn metrics_ports_count_per_address() {
        let (one, two) = (Some([10, 0, 0, 1]), Some([10, 0, 0, 2]));
        let nodes = ["m a manager 1 -", "l a logger 2 -", "w a worker - -", "v b worker - -", "n a none - -"];
        let mut apart = configuration(&[("a", one, None), ("b", two, None)], &nodes);
        assign_ports(&mut apart, &PortRules::default()).unwrap();
        assert_eq!(ports(&apart), ["m 1 9000", "l 2 9001", "w - 9002", "v - 9000", "n - -"]);

        let mut together = configuration(&[("a", one, Some(9000)), ("b", one, Some(9002))], &nodes);
        assign_ports(&mut together, &PortRules::default()).unwrap();
        assert_eq!(ports(&together), ["m 1 9001", "l 2 9003", "w - 9004", "v - 9005", "n - -"]);
    }

    #[test]
    fn hosts_come_from_where_agents_were_seen_unless_they_are_given() {
        let mut subject = configuration(&[("a", Some([10, 0, 0, 1]), None), ("b", None, None), ("c", None, None)], &[]);
        let seen = [("a", [10, 9, 9, 9]), ("b", [10, 0, 0, 2])]
            .map(|(name, host)| (InstanceName::new(name).unwrap(), IpAddr::from(host)));
        resolve_hosts(&mut subject.instances, &seen.into());
        let hosts: Vec<_> = subject.instances.iter().map(|instance| instance.host).collect();
        assert_eq!(hosts, [Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()), None]);
    }

    #[test]
    fn running_out_of_ports_is_said_and_changes_nothing() {
        let mut subject = configuration(&[("a", None, None)], &["m a manager - -", "p a proxy - -"]);
        let before = subject.clone();
        let rules = PortRules { first_port: Some(65_535), ..without_metrics() };
        let error = assign_ports(&mut subject, &rules).unwrap_err();
        assert_eq!(error.to_string(), "no free port from 65535 on is left for node 'p': start at a lower one");
        assert_eq!(subject, before);
    }

    #[test]
    fn nothing_is_given_out_where_assignment_is_off() {
        let mut subject = configuration(&[("a", None, None)], &["m a manager - -"]);
        let before = subject.clone();
        assign_ports(&mut subject, &PortRules { first_port: None, ..without_metrics() }).unwrap();
        assert_eq!(subject, before);
    }
}

//! Every reason why a configuration cannot be deployed, at once.
//!
//! The rules and words that zeek-client knows come first, to the letter. The others refuse what an agent could only
//! fail at later, or what could not be written into a cluster file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::ports::{PortRules, needs_port};
use crate::model::{Configuration, InstanceName, Node, ReadyBy};

/// The longest wait that a node may ask for. Sums of it stay far from where clocks overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// CPUs are counted below this: the size of the set that the kernel's interface knows.
const CPUS: u32 = 1024;

/// Checks a configuration as it was received, before ports are given out.
///
/// Returns the complaints, sorted by their bytes, each once; empty if there is nothing to complain of.
pub fn validate(configuration: &Configuration, rules: &PortRules) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    names(configuration, &mut complaints);
    ports(configuration, rules, &mut complaints);
    metrics_ports(configuration, &mut complaints);
    for instance in &configuration.instances {
        let name = &instance.name;
        if instance.port == Some(0) {
            complaints.insert(format!("instance '{name}' port 0/tcp cannot be dialled: name the agent's port"));
        }
        if instance.port.is_some() && instance.host.is_none() {
            complaints.insert(format!("instance '{name}' has a port but no host: give both, or neither"));
        }
    }
    for node in &configuration.nodes {
        let about = |complaint| format!("node '{}' {complaint}", node.name);
        complaints.extend(numbers(node).into_iter().chain(texts(node)).map(about));
    }
    complaints.into_iter().collect()
}

fn names(configuration: &Configuration, complaints: &mut BTreeSet<String>) {
    let Configuration { instances, nodes, .. } = configuration;
    let repeated = repeated(instances.iter().map(|instance| instance.name.as_str()));
    complaints.extend(repeated.map(|name| format!("multiple instances named '{name}'")));
    let repeated = self::repeated(nodes.iter().map(|node| node.name.as_str()));
    complaints.extend(repeated.map(|name| format!("multiple nodes named '{name}'")));

    let declared: BTreeSet<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
    let shared: BTreeSet<&str> =
        nodes.iter().map(|node| node.name.as_str()).filter(|&name| declared.contains(name)).collect();
    if !shared.is_empty() {
        complaints.insert(format!("node and instance names collide: {}", join(shared)));
    }
    for Node { name, instance, .. } in nodes {
        if !declared.contains(instance.as_str()) {
            complaints.insert(format!("node '{name}' has undeclared instance name '{instance}'"));
        }
        if ["instances", "DEFAULT"].contains(&name.as_str()) {
            complaints.insert(format!("node '{name}' has a name that cluster files reserve: choose another"));
        }
    }
}

fn ports(configuration: &Configuration, rules: &PortRules, complaints: &mut BTreeSet<String>) {
    let agents = agent_ports(configuration);
    let given = || configuration.nodes.iter().filter_map(|node| Some((node, node.port?)));
    for (Node { name, instance, .. }, port) in given() {
        if agents.contains(&(instance, port)) {
            complaints
                .insert(format!("node '{name}' port {port}/tcp conflicts with agent port on instance '{instance}'"));
        }
        if rules.controller == Some(port) {
            complaints.insert(format!("node '{name}' port {port}/tcp conflicts with controller port"));
        }
    }
    for (instance, port) in repeated(given().map(|(node, port)| (&node.instance, port))) {
        complaints.insert(format!("multiple nodes on instance '{instance}' using port {port}/tcp"));
    }
    let lacking: BTreeSet<&str> =
        configuration.nodes.iter().filter(|node| needs_port(node)).map(|node| node.name.as_str()).collect();
    if rules.first_port.is_none() && !lacking.is_empty() {
        complaints.insert(format!("Broker port auto-assignment disabled but nodes {} lack ports", join(lacking)));
    }
}

fn metrics_ports(configuration: &Configuration, complaints: &mut BTreeSet<String>) {
    let mut listening = BTreeMap::<(&InstanceName, u16), &Node>::new();
    for node in &configuration.nodes {
        if let Some(port) = node.port {
            listening.entry((&node.instance, port)).or_insert(node);
        }
    }
    let agents = agent_ports(configuration);
    let given = || configuration.nodes.iter().filter_map(|node| Some((node, node.metrics_port?)));
    for (Node { name, instance, .. }, port) in given() {
        if let Some(other) = listening.get(&(instance, port)) {
            let other = &other.name;
            complaints.insert(format!("node '{name}' metrics port {port}/tcp conflicts with port of node '{other}'"));
        }
        if agents.contains(&(instance, port)) {
            complaints.insert(format!(
                "node '{name}' metrics port {port}/tcp conflicts with agent port on instance '{instance}'"
            ));
        }
    }
    for (instance, port) in repeated(given().map(|(node, port)| (&node.instance, port))) {
        complaints.insert(format!("multiple nodes on instance '{instance}' using metrics port {port}/tcp"));
    }
}

/// Where agents listen for the controller.
fn agent_ports(configuration: &Configuration) -> BTreeSet<(&InstanceName, u16)> {
    configuration.instances.iter().filter_map(|instance| Some((&instance.name, instance.port?))).collect()
}

/// What is wrong with the numbers and times of one node.
fn numbers(node: &Node) -> Vec<String> {
    let mut complaints = Vec::new();
    let ready_port = match node.ready.by {
        ReadyBy::Port(port) => Some(port),
        ReadyBy::Settle(_) => None,
    };
    for (what, port) in [("port", node.port), ("metrics_port", node.metrics_port), ("ready port", ready_port)] {
        if port == Some(0) {
            complaints.push(format!("{what} 0/tcp is no place to be found at: choose one from 1 to 65535"));
        }
    }
    if let Some(cpu) = node.cpu_affinity.filter(|&cpu| cpu >= CPUS) {
        complaints.push(format!("cpu_affinity {cpu} is beyond the last CPU there can be, {}", CPUS - 1));
    }
    let settle = match node.ready.by {
        ReadyBy::Settle(settle) => settle,
        ReadyBy::Port(_) => Duration::ZERO,
    };
    if settle >= node.ready.within {
        let [settle, within] = [settle, node.ready.within].map(humantime::format_duration);
        complaints.push(format!("cannot be ready in time: it settles in {settle}, and ready_within is {within}"));
    }
    for (key, wait) in [
        ("restart_delay", node.restart.delay),
        ("restart_max_delay", node.restart.max_delay),
        ("restart_stable", node.restart.stable),
        ("restart_window", node.restart.window),
        ("ready", settle),
        ("ready_within", node.ready.within),
        ("stop_grace", node.stop_grace),
    ] {
        if wait > LONGEST_WAIT {
            complaints.push(format!("{key} is longer than a year: choose a shorter one"));
        }
    }
    complaints
}

/// What is wrong with the texts of one node: a program could not be handed them.
fn texts(node: &Node) -> Vec<String> {
    let mut complaints = Vec::new();
    if node.command.first().is_some_and(String::is_empty) {
        complaints.push("command names no program: its first word is empty".to_owned());
    }
    if let Some(directory) = node.directory.as_ref().filter(|directory| !directory.starts_with('/')) {
        complaints.push(format!("directory '{}' is not absolute: begin it with '/'", directory.escape_debug()));
    }
    for (key, text) in [("directory", &node.directory), ("user", &node.user), ("interface", &node.interface)] {
        if let Some(text) = text
            && (text.is_empty() || text.trim() != text || text.contains(char::is_control))
        {
            complaints.push(format!("{key} is empty, has spaces around it or holds a control character"));
        }
    }
    for script in &node.scripts {
        if script.is_empty() || script.starts_with('-') {
            complaints.push(format!("script '{}' would not be read as a file name", script.escape_debug()));
        }
    }
    for (key, names) in [("env", node.env.keys()), ("options", node.options.keys())] {
        for name in names.filter(|name| name.is_empty() || name.starts_with('-') || name.contains('=')) {
            let name = name.escape_debug();
            complaints.push(format!("{key} name '{name}' is empty, begins with '-' or holds '='"));
        }
    }
    let pairs = node.env.iter().chain(&node.options).flat_map(|(name, value)| [name, value]);
    if node.command.iter().chain(&node.scripts).chain(pairs).any(|text| text.contains('\0')) {
        complaints
            .push("has a null character in command, scripts, env or options, which no program can be given".into());
    }
    complaints
}

/// What occurs more than once, each once, sorted.
fn repeated<T: Ord + Copy>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<T> = all.filter(|&one| !seen.insert(one)).collect();
    repeated.into_iter()
}

fn join<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigurationId, Instance, NodeName, Role};

    fn instance(name: &str, port: Option<u16>) -> Instance {
        Instance { name: InstanceName::new(name).unwrap(), host: port.map(|_| [127, 0, 0, 1].into()), port }
    }

    fn node(name: &str, instance: &str, role: Role, port: Option<u16>) -> Node {
        Node { port, ..Node::new(NodeName::new(name).unwrap(), InstanceName::new(instance).unwrap(), role) }
    }

    fn configuration(instances: Vec<Instance>, nodes: Vec<Node>) -> Configuration {
        Configuration { id: ConfigurationId::new("c").unwrap(), instances, nodes }
    }

    fn complaints(instances: Vec<Instance>, nodes: Vec<Node>) -> Vec<String> {
        validate(&configuration(instances, nodes), &PortRules::default())
    }

    /// The complaints about a worker on an instance of its own, after `change` was made to it.
    fn complaints_after(change: impl FnOnce(&mut Node)) -> Vec<String> {
        let mut node = node("w", "i", Role::Worker, None);
        change(&mut node);
        complaints(vec![instance("i", None)], vec![node])
    }

    #[test]
    fn a_sound_configuration_has_no_complaints() {
        let nodes = vec![node("m", "i", Role::Manager, Some(5000)), node("w", "j", Role::Worker, Some(5000))];
        let none: [&str; 0] = [];
        assert_eq!(
            complaints(vec![instance("i", Some(2151)), instance("j", None), instance("idle", None)], nodes),
            none
        );
        assert_eq!(complaints(vec![], vec![]), none);
    }

    #[test]
    fn names_are_unique_and_declared() {
        let instances = vec![instance("i", None), instance("i", None), instance("i", None), instance("x", None)];
        let nodes = vec![
            node("x", "i", Role::Worker, None),
            node("m", "j", Role::Worker, None),
            node("m", "i", Role::Worker, None),
            node("i", "i", Role::Worker, None),
            node("DEFAULT", "i", Role::Worker, None),
        ];
        assert_eq!(
            complaints(instances, nodes),
            [
                "multiple instances named 'i'",
                "multiple nodes named 'm'",
                "node 'DEFAULT' has a name that cluster files reserve: choose another",
                "node 'm' has undeclared instance name 'j'",
                "node and instance names collide: i, x",
            ]
        );
    }

    #[test]
    fn ports_that_clash_are_named_once() {
        let nodes = vec![
            node("manager", "i", Role::Manager, Some(5000)),
            node("w1", "i", Role::Worker, Some(5000)),
            node("w2", "i", Role::Worker, Some(5000)),
            node("w3", "j", Role::Worker, Some(5000)),
            node("w4", "j", Role::Worker, Some(2150)),
            node("w5", "i", Role::Worker, Some(3000)),
        ];
        assert_eq!(
            complaints(vec![instance("i", Some(3000)), instance("j", None)], nodes),
            [
                "multiple nodes on instance 'i' using port 5000/tcp",
                "node 'w4' port 2150/tcp conflicts with controller port",
                "node 'w5' port 3000/tcp conflicts with agent port on instance 'i'",
            ]
        );
    }

    #[test]
    fn nodes_that_others_connect_to_need_a_port_if_none_is_given_out() {
        let nodes = vec![
            node("proxy-01", "i", Role::Proxy, None),
            node("worker-01", "i", Role::Worker, None),
            node("manager", "i", Role::Manager, None),
            node("logger-01", "i", Role::Logger, None),
        ];
        let rules = PortRules { first_port: None, ..PortRules::default() };
        assert_eq!(
            validate(&configuration(vec![instance("i", None)], nodes), &rules),
            ["Broker port auto-assignment disabled but nodes logger-01, manager, proxy-01 lack ports"]
        );
    }

    #[test]
    fn metrics_ports_clash_with_nothing_on_their_instance() {
        let metrics = |node, port| Node { metrics_port: Some(port), ..node };
        let nodes = vec![
            metrics(node("a", "i", Role::Worker, Some(1)), 9000),
            metrics(node("b", "i", Role::Worker, None), 9000),
            metrics(node("c", "i", Role::Worker, None), 1),
            metrics(node("d", "i", Role::Worker, None), 7),
            metrics(node("e", "j", Role::Worker, None), 9000),
        ];
        assert_eq!(
            complaints(vec![instance("i", Some(7)), instance("j", None)], nodes),
            [
                "multiple nodes on instance 'i' using metrics port 9000/tcp",
                "node 'c' metrics port 1/tcp conflicts with port of node 'a'",
                "node 'd' metrics port 7/tcp conflicts with agent port on instance 'i'",
            ]
        );
    }

    #[test]
    fn an_instance_that_cannot_be_dialled_is_refused() {
        let instances = vec![
            Instance { port: Some(0), ..instance("a", Some(1)) },
            Instance { host: None, ..instance("b", Some(1)) },
        ];
        assert_eq!(
            complaints(instances, vec![]),
            [
                "instance 'a' port 0/tcp cannot be dialled: name the agent's port",
                "instance 'b' has a port but no host: give both, or neither",
            ]
        );
    }

    #[test]
    fn a_node_that_could_never_run_is_refused() {
        let text = |text: &str| Some(text.to_owned());
        for (got, want) in [
            (complaints_after(|n| n.ready.by = ReadyBy::Port(0)), "ready port 0/tcp is no place"),
            (complaints_after(|n| n.metrics_port = Some(0)), "metrics_port 0/tcp is no place"),
            (complaints_after(|n| n.cpu_affinity = Some(1024)), "cpu_affinity 1024 is beyond the last CPU"),
            (complaints_after(|n| n.ready.within = Duration::from_millis(500)), "cannot be ready in time"),
            (complaints_after(|n| n.stop_grace = Duration::MAX), "stop_grace is longer than a year"),
            (complaints_after(|n| n.command = vec!["".into()]), "command names no program"),
            (complaints_after(|n| n.directory = text("var")), "directory 'var' is not absolute"),
            (complaints_after(|n| n.user = text("")), "user is empty"),
            (complaints_after(|n| n.interface = text(" eth0")), "interface is empty, has spaces"),
            (complaints_after(|n| n.scripts = vec!["-e".into()]), "script '-e' would not be read"),
            (complaints_after(|n| n.env = [("A=B".into(), "".into())].into()), "env name 'A=B'"),
            (complaints_after(|n| n.options = [("".into(), "".into())].into()), "options name ''"),
            (complaints_after(|n| n.command = vec!["a".into(), "\0".into()]), "has a null character"),
        ] {
            assert_eq!(got.len(), 1, "{want}: {got:?}");
            assert!(got[0].starts_with(&format!("node 'w' {want}")), "{want}: {got:?}");
        }
    }

    #[test]
    fn empty_arguments_are_arguments() {
        let none: [&str; 0] = [];
        assert_eq!(complaints_after(|node| node.command = vec!["echo".into(), "".into()]), none);
    }
}

//! Every reason why a configuration cannot be deployed, at once.
//!
//! The rules and words that zeek-client knows come first, to the letter. The others refuse what an agent could only
//! fail at later, or what could not be written into a cluster file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::ports::{PortRules, needs_port};
use super::zeek;
use crate::model::cpus::MOST_CPUS;
use crate::model::output::{LEAST_OUTPUT, MOST_OUTPUT_FILES};
use crate::model::{
    Bytes, Configuration, CpuShare, Instance, InstanceName, Liveness, Node, NodeName, Probe, ProbeBy, Quotas, ReadyBy,
    RestartMode, RestartPolicy,
};

/// The longest wait that a node may ask for. Sums of it stay far from where clocks overflow.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Whoever is watched more often than this does little else.
const SHORTEST_WATCH: Duration = Duration::from_millis(100);
/// A program that may have less memory than this does not get as far as its first line.
const LEAST_MEMORY: Bytes = Bytes(1 << 20);

/// One reason why a configuration cannot be deployed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// What is wrong, with the names of all concerned.
    pub what: String,
    /// Where to mend it, or where it can be mended as well as elsewhere.
    pub about: About,
}

/// What a complaint is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Instance(InstanceName),
    Node(NodeName),
    /// One key of what all Zeek nodes share.
    Zeek(&'static str),
    /// One key of a node, by its name in cluster files.
    Key(NodeName, &'static str),
}

/// Checks a configuration as it was received, before ports are given out.
///
/// Returns the complaints, sorted by their bytes, each once; empty if there is nothing to complain of.
pub fn validate(configuration: &Configuration, rules: &PortRules) -> Vec<String> {
    examine(configuration, rules).into_iter().map(|complaint| complaint.what).collect()
}

/// The same complaints in the same order, each with what it is about.
pub fn examine(configuration: &Configuration, rules: &PortRules) -> Vec<Complaint> {
    examine_as(configuration, rules, true)
}

/// The same of what may be only a part, unless it `is_whole`: then nothing is missed.
pub fn examine_as(configuration: &Configuration, rules: &PortRules, is_whole: bool) -> Vec<Complaint> {
    let rules = &rules.within(configuration);
    let mut complaints = Complaints::default();
    names(configuration, &mut complaints);
    ports(configuration, rules, &mut complaints);
    metrics_ports(configuration, &mut complaints);
    for Instance { name, host, port } in &configuration.instances {
        let about = || About::Instance(name.clone());
        if *port == Some(0) {
            complaints.add(about(), format!("instance '{name}' port 0/tcp cannot be dialled: name the agent's port"));
        }
        if port.is_some() && host.is_none() {
            complaints.add(about(), format!("instance '{name}' has a port but no host: give both, or neither"));
        }
    }
    for node in &configuration.nodes {
        for (key, what) in examine_alone(node) {
            complaints.add_key(node, key, what);
        }
        if has_null(node) {
            let what = "has a null character in command, scripts, args, env or options, which no program can be given";
            complaints.add(About::Node(node.name.clone()), format!("node '{}' {what}", node.name));
        }
    }
    zeek::examine(configuration, rules, is_whole, &mut |about, what| complaints.add(about, what));
    complaints.0.into_iter().map(|(what, about)| Complaint { what, about }).collect()
}

/// What is wrong with a node that shows in it alone, by key.
pub fn examine_alone(node: &Node) -> Vec<(&'static str, String)> {
    let complaints = numbers(node).into_iter().chain(storm(node)).chain(texts(node));
    complaints.map(|(key, what)| (key, format!("node '{}' {what}", node.name))).collect()
}

/// Complaints as they are found: each text once, about whatever it was first said of.
#[derive(Default)]
struct Complaints(BTreeMap<String, About>);

impl Complaints {
    fn add(&mut self, about: About, what: String) {
        self.0.entry(what).or_insert(about);
    }

    fn add_key(&mut self, node: &Node, key: &'static str, what: String) {
        self.add(About::Key(node.name.clone(), key), what);
    }
}

fn names(configuration: &Configuration, complaints: &mut Complaints) {
    let Configuration { instances, nodes, .. } = configuration;
    for Instance { name, .. } in repeated(instances, |instance| Some(&instance.name)) {
        complaints.add(About::Instance(name.clone()), format!("multiple instances named '{name}'"));
    }
    for name in repeated(nodes, |node| Some(&node.name)).into_iter().map(|node| &node.name) {
        complaints.add(About::Node(name.clone()), format!("multiple nodes named '{name}'"));
    }

    let declared: BTreeSet<&InstanceName> = instances.iter().map(|instance| &instance.name).collect();
    let mut names: Vec<&NodeName> = nodes.iter().map(|node| &node.name).collect();
    names.sort();
    let of_instance = |name: &&InstanceName| names.binary_search_by(|node| node.as_str().cmp(name.as_str())).ok();
    let shared: Vec<&NodeName> = declared.iter().filter_map(of_instance).map(|at| names[at]).collect();
    if let Some(&first) = shared.first() {
        complaints.add(About::Node(first.clone()), format!("node and instance names collide: {}", join(&shared)));
    }
    // Mostly the node before is of the same instance.
    let mut last = None;
    for node in nodes {
        let Node { name, instance, .. } = &**node;
        if last != Some(instance) && declared.contains(instance) {
            last = Some(instance);
        }
        if last != Some(instance) {
            let what = format!("node '{name}' has undeclared instance name '{instance}'");
            complaints.add_key(node, "instance", what);
        }
        if ["instances", "DEFAULT"].contains(&name.as_str()) {
            let what = format!("node '{name}' has a name that cluster files reserve: choose another");
            complaints.add(About::Node(name.clone()), what);
        }
    }
}

fn ports(configuration: &Configuration, rules: &PortRules, complaints: &mut Complaints) {
    let agents = agent_ports(configuration);
    let nodes = &configuration.nodes;
    for (node, port) in nodes.iter().filter_map(|node| Some((node, node.port?))) {
        let Node { name, instance, .. } = &**node;
        if agents.contains(&(instance, port)) {
            let what = format!("node '{name}' port {port}/tcp conflicts with agent port on instance '{instance}'");
            complaints.add_key(node, "port", what);
        }
        if rules.controller == Some(port) {
            complaints.add_key(node, "port", format!("node '{name}' port {port}/tcp conflicts with controller port"));
        }
    }
    for node in repeated(nodes, |node| Some((&node.instance, node.port?))) {
        let (instance, port) = (&node.instance, node.port.unwrap_or_default());
        complaints.add_key(node, "port", format!("multiple nodes on instance '{instance}' using port {port}/tcp"));
    }
    let lacking: BTreeSet<&NodeName> = nodes.iter().filter(|node| needs_port(node)).map(|node| &node.name).collect();
    if let Some(&first) = lacking.first().filter(|_| rules.first_port.is_none()) {
        let what = format!("Broker port auto-assignment disabled but nodes {} lack ports", join(&lacking));
        complaints.add(About::Node(first.clone()), what);
    }
}

fn metrics_ports(configuration: &Configuration, complaints: &mut Complaints) {
    let nodes = &configuration.nodes;
    let mut listening = BTreeMap::<(&InstanceName, u16), &Node>::new();
    for node in nodes {
        if let Some(port) = node.port {
            listening.entry((&node.instance, port)).or_insert(node);
        }
    }
    let agents = agent_ports(configuration);
    for (node, port) in nodes.iter().filter_map(|node| Some((node, node.metrics_port?))) {
        let Node { name, instance, .. } = &**node;
        let about = format!("node '{name}' metrics port {port}/tcp conflicts with");
        if let Some(other) = listening.get(&(instance, port)) {
            complaints.add_key(node, "metrics_port", format!("{about} port of node '{}'", other.name));
        }
        if agents.contains(&(instance, port)) {
            complaints.add_key(node, "metrics_port", format!("{about} agent port on instance '{instance}'"));
        }
    }
    for node in repeated(nodes, |node| Some((&node.instance, node.metrics_port?))) {
        let (instance, port) = (&node.instance, node.metrics_port.unwrap_or_default());
        let what = format!("multiple nodes on instance '{instance}' using metrics port {port}/tcp");
        complaints.add_key(node, "metrics_port", what);
    }
}

/// Where agents listen for the controller.
fn agent_ports(configuration: &Configuration) -> BTreeSet<(&InstanceName, u16)> {
    configuration.instances.iter().filter_map(|instance| Some((&instance.name, instance.port?))).collect()
}

/// What is wrong with the numbers and times of one node.
fn numbers(node: &Node) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    let ready_port = node.ready.by.address().map(|address| address.port());
    let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.as_ref());
    let probe_port = probe.and_then(|probe| probe.by.address()).map(|address| address.port());
    for (key, what, port) in [
        ("port", "port", node.port),
        ("metrics_port", "metrics_port", node.metrics_port),
        ("ready", "ready port", ready_port),
        ("probe", "probe port", probe_port),
    ] {
        if port == Some(0) {
            complaints.push((key, format!("{what} 0/tcp is no place to be found at: choose one from 1 to 65535")));
        }
    }
    if let Some(cpus) = &node.cpu_affinity {
        match cpus.0.last() {
            None => complaints.push(("cpu_affinity", "cpu_affinity names no CPU: leave it out for all".into())),
            Some(&cpu) if cpu >= MOST_CPUS => {
                let what = format!("cpu_affinity {cpu} is beyond the last CPU there can be, {}", MOST_CPUS - 1);
                complaints.push(("cpu_affinity", what));
            }
            Some(_) => {}
        }
    }
    if !node.restart.factor.is_sound() {
        complaints.push(("restart_factor", "restart_factor is not from 1 to 100".into()));
    }
    if node.restart.jitter > 100 {
        complaints.push(("restart_jitter", "restart_jitter is not from 0% to 100%".into()));
    }
    complaints.extend(rights(node));
    complaints.extend(liveness(node));
    if let Some(output) = &node.output {
        if output.max_bytes.is_some_and(|bytes| bytes < LEAST_OUTPUT) {
            complaints.push(("output_max_bytes", format!("output_max_bytes is less than {LEAST_OUTPUT}: choose more")));
        }
        if output.keep_files.is_some_and(|files| !(1..=MOST_OUTPUT_FILES).contains(&u64::from(files))) {
            let what = format!("output_keep_files is not from 1 to {MOST_OUTPUT_FILES}");
            complaints.push(("output_keep_files", what));
        }
    }
    let settle = match node.ready_by() {
        ReadyBy::Settle(settle) => settle,
        ReadyBy::Port(_) | ReadyBy::Tcp(_) | ReadyBy::Notify | ReadyBy::Zeek | ReadyBy::Usual => Duration::ZERO,
    };
    if node.ready.by == ReadyBy::Zeek && !node.is_zeek() {
        let what = "ready is `zeek`, which is for Zeek nodes: it has a command of its own, and no Zeek to say hello";
        complaints.push(("ready", what.into()));
    }
    if settle >= node.ready_within() {
        let [settle, within] = [settle, node.ready_within()].map(humantime::format_duration);
        let what = format!("cannot be ready in time: it settles in {settle}, and ready_within is {within}");
        complaints.push(("ready_within", what));
    }
    for (key, wait) in [
        ("restart_delay", node.restart.delay),
        ("restart_max_delay", node.restart.max_delay),
        ("restart_stable", node.restart.stable),
        ("restart_window", node.restart.window),
        ("ready", settle),
        ("ready_within", node.ready_within()),
        ("stop_grace", node.stop_grace),
        ("output_max_age", node.output.as_ref().and_then(|output| output.max_age).unwrap_or_default()),
    ] {
        if wait > LONGEST_WAIT {
            complaints.push((key, format!("{key} is longer than a year: choose a shorter one")));
        }
    }
    complaints
}

/// What is wrong with how it is watched once it runs.
fn liveness(node: &Node) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    let Some(Liveness { watchdog, probe }) = node.liveness.as_deref() else { return complaints };
    let times = probe.as_ref().map(|probe| [("probe_interval", probe.interval), ("probe_timeout", probe.timeout)]);
    for (key, time) in watchdog.map(|watchdog| ("watchdog", watchdog)).into_iter().chain(times.into_iter().flatten()) {
        let is_off = key == "watchdog" && time.is_zero() && node.is_zeek();
        if time < SHORTEST_WATCH && !is_off {
            let shortest = humantime::format_duration(SHORTEST_WATCH);
            complaints.push((key, format!("{key} is shorter than {shortest}: choose a longer one")));
        }
        if time > LONGEST_WAIT {
            complaints.push((key, format!("{key} is longer than a year: choose a shorter one")));
        }
    }
    let Some(Probe { by, failures, .. }) = probe else { return complaints };
    if *failures == 0 {
        complaints
            .push(("probe_failures", "probe_failures is 0, and nothing fails less often: choose 1 or more".into()));
    }
    if let ProbeBy::Exec(command) = by
        && (command.first().is_none_or(String::is_empty) || command.iter().any(|word| word.contains('\0')))
    {
        complaints.push(("probe", "probe names no program, or holds a null byte: write `exec` and a command".into()));
    }
    complaints
}

/// What is wrong with what its process is given and denied.
fn rights(node: &Node) -> Vec<(&'static str, String)> {
    let Some(run_as) = &node.run_as else { return Vec::new() };
    let mut complaints = Vec::new();
    let mut complain = |key, what: String| complaints.push((key, what));
    if run_as.umask.is_some_and(|mask| mask > 0o777) {
        complain("umask", "umask has more than three octal digits".into());
    }
    if run_as.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        complain("nice", "nice is not from -20 to 19".into());
    }
    for (resource, limit) in run_as.limits.iter().filter(|(_, limit)| !limit.is_in_order()) {
        let name = resource.as_str();
        complain("limits", format!("limits {name}={limit} has a soft limit above the hard one: swap the two"));
    }
    if run_as.capabilities.iter().any(|capability| !capability.is_known()) {
        complain("capabilities", "capabilities has one that this release does not know".into());
    }
    if !run_as.capabilities.is_empty() && node.user.is_none() {
        let what =
            "capabilities are for nodes with a `user`: without one it has those of the agent, and all if that is root";
        complain("capabilities", what.into());
    }
    if run_as.groups.iter().any(|group| group.is_empty() || group.contains(char::is_control)) {
        complain("groups", "groups has one that is empty or holds a control character".into());
    }
    if !run_as.groups.is_empty() && node.user.is_none() {
        complain("groups", "groups are for nodes with a `user`: without one it has those of the agent".into());
    }
    let Quotas { memory_max, cpu_max, pids_max } = run_as.quotas;
    if let Some(memory) = memory_max.filter(|memory| *memory < LEAST_MEMORY) {
        complain(
            "memory_max",
            format!("memory_max {memory} is too little for any program: give it {LEAST_MEMORY} at least"),
        );
    }
    if cpu_max == Some(CpuShare(0)) {
        complain("cpu_max", "cpu_max 0% is no time at all: give it 1% at least".into());
    }
    if pids_max == Some(0) {
        complain("pids_max", "pids_max 0 leaves no room for the node itself: give it 1 at least".into());
    }
    if let Some(file) =
        run_as.env_file.as_ref().filter(|file| !file.starts_with('/') || file.contains(char::is_control))
    {
        let file = file.escape_debug();
        complain(
            "env_file",
            format!("env_file '{file}' is not absolute or holds a control character: begin it with '/'"),
        );
    }
    complaints
}

/// Why a node that ends as soon as it starts would be started again without a pause and without an end, if it would.
fn storm(node: &Node) -> Option<(&'static str, String)> {
    let RestartPolicy { mode, delay, max_delay, stable, limit, window, jitter, .. } = &node.restart;
    let is_ready_at_once = matches!(node.ready.by, ReadyBy::Settle(settle) if settle.is_zero());
    let (key, what) = if stable.is_zero() && is_ready_at_once {
        ("restart_stable", "restart_stable is 0 and it is ready at once, so that no failure ever counts")
    } else if (*limit == 0 || window.is_zero()) && delay.is_zero() {
        ("restart_delay", "restart_delay is 0 and no restart_limit counts")
    } else if (*limit == 0 || window.is_zero()) && max_delay.is_zero() {
        ("restart_max_delay", "restart_max_delay is 0 and no restart_limit counts")
    } else if (*limit == 0 || window.is_zero()) && *jitter >= 100 {
        ("restart_jitter", "restart_jitter may take all of a wait off, and no restart_limit counts")
    } else {
        return None;
    };
    let why = "a program that ends at once would be started again and again without a pause: give it one";
    (*mode != RestartMode::Never).then(|| (key, format!("{what}: {why}")))
}

/// What is wrong with the texts of one node: a program could not be handed them.
fn texts(node: &Node) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    if node.command.first().is_some_and(String::is_empty) {
        complaints.push(("command", "command names no program: its first word is empty".to_owned()));
    }
    if let Some(directory) = node.directory.as_ref().filter(|directory| !directory.starts_with('/')) {
        let what = format!("directory '{}' is not absolute: begin it with '/'", directory.escape_debug());
        complaints.push(("directory", what));
    }
    for (key, text) in [("directory", &node.directory), ("user", &node.user), ("interface", &node.interface)] {
        if let Some(text) = text
            && (text.is_empty() || text.trim() != text || text.contains(char::is_control))
        {
            complaints.push((key, format!("{key} is empty, has spaces around it or holds a control character")));
        }
    }
    for script in &node.scripts {
        if script.is_empty() || script.starts_with('-') {
            let what = format!("script '{}' would not be read as a file name", script.escape_debug());
            complaints.push(("scripts", what));
        }
    }
    for (key, names) in [("env", node.env.keys()), ("options", node.options.keys())] {
        for name in names.filter(|name| name.is_empty() || name.starts_with('-') || name.contains('=')) {
            let name = name.escape_debug();
            complaints.push((key, format!("{key} name '{name}' is empty, begins with '-' or holds '='")));
        }
    }
    complaints
}

fn has_null(node: &Node) -> bool {
    let pairs = node.env.iter().chain(&node.options).flat_map(|(name, value)| [name, value]);
    node.command.iter().chain(&node.scripts).chain(node.zeek_args()).chain(pairs).any(|text| text.contains('\0'))
}

/// Those whose key, if they have one, was met before; sorted by it.
fn repeated<'a, T, K: Ord>(all: &'a [T], key: impl Fn(&'a T) -> Option<K>) -> Vec<&'a T> {
    // What is sorted already, as most files are, is only looked through once.
    let mut keyed: Vec<_> = all.iter().filter_map(|one| Some((key(one)?, one))).collect();
    keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
    keyed.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1).collect()
}

fn join<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Capability, ConfigurationId, Cpus, Limit, Resource, Role, RunAs, Zeek};

    fn instance(name: &str, port: Option<u16>) -> Instance {
        Instance { name: InstanceName::new(name).unwrap(), host: port.map(|_| [127, 0, 0, 1].into()), port }
    }

    fn node(name: &str, instance: &str, role: Role, port: Option<u16>) -> Node {
        Node { port, ..Node::new(NodeName::new(name).unwrap(), InstanceName::new(instance).unwrap(), role) }
    }

    fn configuration(instances: Vec<Instance>, nodes: Vec<Node>) -> Configuration {
        let nodes = nodes.into_iter().map(Arc::new).collect();
        Configuration { instances, nodes, ..Configuration::empty(ConfigurationId::new("c").unwrap()) }
    }

    #[test]
    fn what_nobody_could_watch_is_refused() {
        let with = |liveness| {
            let command = vec!["sleep".into()];
            let node = Node { liveness: Some(Box::new(liveness)), command, ..node("n", "i", Role::None, None) };
            complaints(vec![instance("i", None)], vec![node])
        };
        let probe = |by, change: fn(&mut Probe)| {
            let mut probe = Probe::new(by);
            change(&mut probe);
            with(Liveness { watchdog: None, probe: Some(probe) })
        };
        let none: [&str; 0] = [];
        assert_eq!(with(Liveness { watchdog: Some(SHORTEST_WATCH), probe: Some(Probe::new(ProbeBy::Port(1))) }), none);
        for (got, want) in [
            (with(Liveness { watchdog: Some(Duration::ZERO), probe: None }), "watchdog is shorter than 100ms"),
            (with(Liveness { watchdog: Some(Duration::MAX), probe: None }), "watchdog is longer than a year"),
            (probe(ProbeBy::Port(0), |_| ()), "probe port 0/tcp is no place to be found at"),
            (probe(ProbeBy::Port(1), |probe| probe.interval = Duration::ZERO), "probe_interval is shorter than 100ms"),
            (probe(ProbeBy::Port(1), |probe| probe.timeout = Duration::MAX), "probe_timeout is longer than a year"),
            (probe(ProbeBy::Port(1), |probe| probe.failures = 0), "probe_failures is 0"),
            (probe(ProbeBy::Exec(vec![]), |_| ()), "probe names no program"),
            (probe(ProbeBy::Exec(vec!["a\0".into()]), |_| ()), "probe names no program"),
        ] {
            assert!(got.len() == 1 && got[0].contains(want), "{want}: {got:?}");
        }
    }

    fn rights(change: impl FnOnce(&mut RunAs)) -> Option<Box<RunAs>> {
        let mut run_as = RunAs::default();
        change(&mut run_as);
        Some(Box::new(run_as))
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
            (complaints_after(|n| n.run_as = rights(|r| r.umask = Some(0o1000))), "umask has more than three octal"),
            (complaints_after(|n| n.run_as = rights(|r| r.nice = Some(-21))), "nice is not from -20 to 19"),
            (
                complaints_after(|n| n.run_as = rights(|r| r.groups = vec!["g".into()])),
                "groups are for nodes with a `user`",
            ),
            (
                complaints_after(|n| {
                    n.user = Some("u".into());
                    n.run_as = rights(|r| r.groups = vec![String::new()]);
                }),
                "groups has one that is empty",
            ),
            (
                complaints_after(|n| {
                    n.run_as = rights(|r| r.capabilities = Capability::named("kill").into_iter().collect())
                }),
                "capabilities are for nodes with a `user`",
            ),
            (
                complaints_after(|n| {
                    let limit = Limit { soft: None, hard: Some(1) };
                    n.run_as = rights(|r| r.limits = [(Resource::Core, limit)].into());
                }),
                "limits core=unlimited:1 has a soft limit above the hard one",
            ),
            (
                complaints_after(|n| n.run_as = rights(|r| r.env_file = Some("e".into()))),
                "env_file 'e' is not absolute",
            ),
            (complaints_after(|n| n.cpu_affinity = Some(Cpus::one(1024))), "cpu_affinity 1024 is beyond the last CPU"),
            (complaints_after(|n| n.cpu_affinity = Some(Cpus::default())), "cpu_affinity names no CPU"),
            (complaints_after(|n| n.restart.jitter = 101), "restart_jitter is not from 0% to 100%"),
            (
                complaints_after(|n| n.run_as = rights(|r| r.quotas.memory_max = Some(Bytes(4096)))),
                "memory_max 4K is too little for any program: give it 1M at least",
            ),
            (
                complaints_after(|n| n.run_as = rights(|r| r.quotas.cpu_max = Some(CpuShare(0)))),
                "cpu_max 0% is no time at all",
            ),
            (complaints_after(|n| n.run_as = rights(|r| r.quotas.pids_max = Some(0))), "pids_max 0 leaves no room"),
            (complaints_after(|n| n.ready.within = Some(Duration::ZERO)), "cannot be ready in time"),
            (complaints_after(|n| n.stop_grace = Duration::MAX), "stop_grace is longer than a year"),
            (complaints_after(|n| n.command = vec!["".into()]), "command names no program"),
            (complaints_after(|n| n.directory = text("var")), "directory 'var' is not absolute"),
            (complaints_after(|n| n.user = text("")), "user is empty"),
            (complaints_after(|n| n.interface = text(" eth0")), "interface is empty, has spaces"),
            (complaints_after(|n| n.scripts = vec!["-e".into()]), "script '-e' would not be read"),
            (complaints_after(|n| n.env = [("A=B".into(), "".into())].into()), "env name 'A=B'"),
            (complaints_after(|n| n.options = [("".into(), "".into())].into()), "options name ''"),
            (complaints_after(|n| n.command = vec!["a".into(), "\0".into()]), "has a null character"),
            (
                complaints_after(|n| (n.ready.by, n.command) = (ReadyBy::Zeek, vec!["a".into()])),
                "ready is `zeek`, which is for Zeek nodes",
            ),
        ] {
            assert_eq!(got.len(), 1, "{want}: {got:?}");
            assert!(got[0].starts_with(&format!("node 'w' {want}")), "{want}: {got:?}");
        }
    }

    #[test]
    fn a_storm_of_restarts_without_a_bound_is_refused() {
        fn changed(change: impl Fn(&mut RestartPolicy)) -> Vec<String> {
            complaints_after(|node| change(&mut node.restart))
        }
        let none: [&str; 0] = [];
        let zero = Duration::ZERO;
        for got in [
            changed(|policy| (policy.delay, policy.limit) = (zero, 0)),
            changed(|policy| (policy.delay, policy.window) = (zero, zero)),
            changed(|policy| (policy.max_delay, policy.limit) = (zero, 0)),
            changed(|policy| (policy.jitter, policy.limit) = (100, 0)),
            complaints_after(|node| {
                (node.ready.by, node.restart.stable) = (ReadyBy::Settle(zero), zero);
            }),
        ] {
            assert_eq!(got.len(), 1, "{got:?}");
            assert!(got[0].ends_with("without a pause: give it one"), "{got:?}");
        }
        assert_eq!(changed(|policy| policy.delay = zero), none, "the limit bounds it");
        assert_eq!(changed(|policy| policy.limit = 0), none, "the delay bounds it");
        assert_eq!(changed(|policy| policy.stable = zero), none, "the time to settle bounds it");
        let never = |policy: &mut RestartPolicy| {
            (policy.mode, policy.delay, policy.limit) = (RestartMode::Never, zero, 0);
        };
        assert_eq!(changed(never), none);
    }

    #[test]
    fn a_complaint_says_where_it_can_be_mended() {
        let nodes = vec![
            node("a", "i", Role::Manager, Some(5000)),
            Node { cpu_affinity: Some(Cpus::one(5000)), metrics_port: Some(9), ..node("b", "j", Role::Worker, None) },
            Node { metrics_port: Some(9), ..node("c", "i", Role::Worker, Some(5000)) },
            Node { metrics_port: Some(9), ..node("i", "i", Role::Worker, None) },
        ];
        let instances = vec![instance("i", None), Instance { port: Some(0), ..instance("k", Some(1)) }];
        let mut subject = configuration(instances, nodes);
        subject.zeek = Some(Box::new(Zeek { pcap_bufsize: Some(0), ..Zeek::default() }));
        let found = examine(&subject, &PortRules::default());
        let found = found.into_iter().map(|complaint| match complaint.about {
            About::Instance(name) => format!("[instances] {name}"),
            About::Node(name) => format!("[{name}]"),
            About::Key(name, key) => format!("[{name}] {key}"),
            About::Zeek(key) => format!("[zeek] {key}"),
        });
        let want = [
            "[zeek] pcap_bufsize",
            "[instances] k",
            "[i] metrics_port",
            "[c] port",
            "[b] cpu_affinity",
            "[b] instance",
            "[i]",
        ];
        assert_eq!(found.collect::<Vec<_>>(), want);
    }

    #[test]
    fn empty_arguments_are_arguments() {
        let none: [&str; 0] = [];
        assert_eq!(complaints_after(|node| node.command = vec!["echo".into(), "".into()]), none);
    }
}

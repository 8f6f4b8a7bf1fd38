//! Every reason why a Zeek cluster cannot be deployed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::template::{Indices, variables};
use crate::model::archive::MOST_FREE;
use crate::model::{
    ArchivePlace, ArchiveRules, Backend, Configuration, Encrypt, InstanceName, Node, NodeName, Role, Zeek, ZeekHealth,
};
use crate::plan::ports::PortRules;
use crate::plan::validate::{About, LONGEST_WAIT};

/// The least from one heartbeat to the next.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// Adds what is wrong with what the Zeek nodes share, and with them as a cluster. Nodes and instances that are not there are
/// missed only if it `is_whole`.
pub(in crate::plan) fn examine(
    configuration: &Configuration,
    rules: &PortRules,
    is_whole: bool,
    add: &mut dyn FnMut(About, String),
) {
    let default = Zeek::default();
    let zeek = configuration.zeek.as_deref().unwrap_or(&default);
    for (key, what) in settings(zeek).into_iter().chain(hub_ports(configuration, zeek, rules)) {
        add(About::Zeek(key), what);
    }
    let declared: BTreeSet<&InstanceName> = configuration.instances.iter().map(|instance| &instance.name).collect();
    for name in zeek.addresses.keys().filter(|name| is_whole && !declared.contains(name)) {
        add(About::Zeek("addresses"), format!("[zeek] addresses has undeclared instance name '{name}'"));
    }
    cluster(configuration, zeek, is_whole, add);
    let indices = Indices::of(configuration);
    for node in configuration.nodes.iter().filter(|node| node.is_zeek()) {
        if let Err((key, what)) = variables(configuration, &indices, node) {
            add(About::Key(node.name.clone(), key), format!("node '{}' {key} {what}", node.name));
        }
    }
    let heartbeat = zeek.health.heartbeat();
    for node in configuration.nodes.iter().filter(|node| node.speaks_by_channel()) {
        if let Some(watchdog) = node.watchdog().filter(|watchdog| *watchdog < heartbeat.saturating_mul(2)) {
            let [watchdog, heartbeat] = [watchdog, heartbeat].map(humantime::format_duration);
            let what = format!(
                "node '{}' hangs after {watchdog} without a heartbeat, and gives one every {heartbeat}: choose a watchdog of \
                 two of them at least, or `off`",
                node.name
            );
            add(About::Key(node.name.clone(), "watchdog"), what);
        }
    }
    for node in &configuration.nodes {
        if !node.zeek_args().is_empty() && !node.is_zeek() {
            let what = format!("node '{}' has args, which are for Zeek nodes: it has a command of its own", node.name);
            add(About::Key(node.name.clone(), "args"), what);
        }
    }
}

/// What is wrong with the nodes together.
fn cluster(configuration: &Configuration, zeek: &Zeek, is_whole: bool, add: &mut dyn FnMut(About, String)) {
    let members: Vec<&Node> =
        configuration.nodes.iter().map(|node| &**node).filter(|node| node.is_in_zeek_cluster()).collect();
    let managers: Vec<&Node> = members.iter().copied().filter(|node| node.role == Role::Manager).collect();
    if let [first, second, ..] = managers.as_slice() {
        let what = format!("a Zeek cluster has one manager, and these are two: {}, {}", first.name, second.name);
        add(About::Key(second.name.clone(), "role"), what);
    }
    if let (Backend::ZeroMq, [], [first, ..], true) = (zeek.backend, managers.as_slice(), members.as_slice(), is_whole)
    {
        let what = "there is no manager, through which all Zeek nodes talk with the ZeroMQ backend: add one";
        add(About::Node(first.name.clone()), what.into());
    }
    let is_zeek_at_all = configuration.zeek.is_some() || configuration.nodes.iter().any(|node| node.is_zeek());
    if let Some(node) = configuration.nodes.iter().find(|node| node.name.as_str() == "zeek").filter(|_| is_zeek_at_all)
    {
        let what = "node 'zeek' has the name of the section that all Zeek nodes share: choose another";
        add(About::Node(node.name.clone()), what.into());
    }
    if zeek.backend != Backend::Broker {
        for (short, long) in overheard(&members) {
            let what = format!(
                "Zeek cannot use the node name '{long}' beside '{short}': with ZeroMQ, '{short}' would hear what is meant \
                 for '{long}'"
            );
            add(About::Node(long.clone()), what);
        }
    }
}

/// Pairs of nodes of which the second one's topic begins with that of the first: topics are parted by dots.
fn overheard<'a>(members: &[&'a Node]) -> Vec<(&'a NodeName, &'a NodeName)> {
    let names: BTreeSet<&NodeName> = members.iter().map(|node| &node.name).collect();
    let heard_by = |long: &'a NodeName| {
        let dots = long.as_str().match_indices('.').map(|(at, _)| &long.as_str()[..at]);
        let first = dots.filter_map(|short| names.iter().copied().find(|name| name.as_str() == short)).next();
        first.map(|short| (short, long))
    };
    members.iter().filter_map(|node| heard_by(&node.name)).collect()
}

/// What is wrong with what they share, by key.
fn settings(zeek: &Zeek) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    let mut complain = |key: &'static str, what: String| complaints.push((key, format!("[zeek] {key} {what}")));
    for network in zeek.networks.iter().filter(|network| !network.is_sound()) {
        complain("networks", format!("has {network}, whose bits are more than its address has"));
    }
    for script in zeek.scripts.iter().filter(|script| script.is_empty() || script.starts_with('-')) {
        complain("scripts", format!("has '{}', which would not be read as a file name", script.escape_debug()));
    }
    for prefix in zeek.prefixes.iter().filter(|prefix| prefix.is_empty() || prefix.starts_with('-')) {
        complain("prefixes", format!("has '{}', which would not be read as a prefix", prefix.escape_debug()));
    }
    for (key, directories) in [("path", &zeek.path), ("zeekpath", &zeek.script_path)] {
        for directory in directories.iter().filter(|directory| !directory.starts_with('/') || directory.contains(':')) {
            let what = "which is not absolute, or holds the ':' that parts directories";
            complain(key, format!("has '{}', {what}", directory.escape_debug()));
        }
    }
    for (key, names) in [("env", zeek.env.keys()), ("options", zeek.options.keys())] {
        for name in names.filter(|name| name.is_empty() || name.starts_with('-') || name.contains('=')) {
            complain(key, format!("name '{}' is empty, begins with '-' or holds '='", name.escape_debug()));
        }
    }
    if let Some(file) = zeek.networks_file.as_ref()
        && (!file.starts_with('/') || file.trim() != file || file.contains(char::is_control))
    {
        complain("networks_file", "is not absolute, ends in a space or holds a control character".into());
    }
    if zeek.rotation_interval.is_some_and(|interval| interval > LONGEST_WAIT) {
        complain("rotation_interval", "is longer than a year: choose a shorter one".into());
    }
    if zeek.rotation_interval.is_some_and(|interval| interval.subsec_nanos() != 0) {
        complain("rotation_interval", "is not in whole seconds".into());
    }
    if let ArchivePlace::At(path) = &zeek.archive.place
        && (!path.starts_with('/') || path.trim() != path || path.contains(char::is_control))
    {
        complain("archive", "is not absolute, ends in a space or holds a control character".into());
    }
    if zeek.archive.command.first().is_some_and(String::is_empty) {
        complain("archive_command", "has no program: its first word is empty".into());
    }
    if zeek.archive.compressor.first().is_some_and(String::is_empty) {
        complain("archive_compressor", "has no program: its first word is empty".into());
    }
    if !ArchiveRules::is_extension(&zeek.archive.extension) {
        complain("archive_extension", "is not of letters and digits, such as zst".into());
    }
    if zeek.archive.min_free > MOST_FREE {
        complain("archive_min_free", format!("is more than {MOST_FREE}%"));
    }
    if zeek.encrypt == Encrypt::Yes && zeek.backend == Backend::Broker {
        complain(
            "encrypt",
            "is for ZeroMQ, and the backend is Broker: choose `backend = zeromq`, or `encrypt = auto`".into(),
        );
    }
    for (key, number) in [("pcap_snaplen", zeek.pcap_snaplen), ("pcap_bufsize", zeek.pcap_bufsize)] {
        if number == Some(0) {
            complain(key, "is 0: leave it out for Zeek's own".into());
        }
    }
    let ZeekHealth { heartbeat, loss_above, loss_for } = zeek.health;
    if heartbeat.is_some_and(|heartbeat| heartbeat < SHORTEST_HEARTBEAT) {
        complain("heartbeat", "is shorter than 100ms: choose a longer one".into());
    }
    for (key, time) in [("heartbeat", heartbeat), ("loss_for", loss_for)] {
        if time.is_some_and(|time| time > LONGEST_WAIT) {
            complain(key, "is longer than a year: choose a shorter one".into());
        }
    }
    if loss_above.is_some_and(|loss| !loss.is_sound()) {
        complain("loss_above", "is not from 0% to 100%".into());
    }
    let pairs = zeek.env.iter().chain(&zeek.options).flat_map(|(name, value)| [name, value]);
    let lists = [&zeek.scripts, &zeek.args, &zeek.prefixes, &zeek.path, &zeek.script_path, &zeek.archive.command];
    let lists = lists.into_iter().chain([&zeek.archive.compressor, &zeek.archive.keep]);
    let lists = lists.flatten();
    if pairs.chain(lists).any(|text| text.contains('\0')) {
        complain("args", "or another key has a null character, which no program can be given".into());
    }
    complaints
}

/// What is wrong with where the manager binds for ZeroMQ.
fn hub_ports(configuration: &Configuration, zeek: &Zeek, rules: &PortRules) -> Vec<(&'static str, String)> {
    const KEY: &str = "zeromq_ports";
    let Some([xpub, xsub]) = zeek.zeromq_ports else { return Vec::new() };
    let mut complaints = Vec::new();
    if xpub == 0 || xsub == 0 || xpub == xsub {
        complaints.push((KEY, format!("[zeek] {KEY} are two different ports from 1 to 65535")));
    }
    let Some(manager) = super::hub(configuration) else { return complaints };
    for port in [xpub, xsub] {
        let neighbours = configuration.nodes.iter().filter(|node| node.instance == manager.instance);
        let mut users = neighbours.filter(|node| [node.port, node.metrics_port].contains(&Some(port)));
        if let Some(user) = users.next() {
            complaints.push((KEY, format!("[zeek] {KEY} has {port}/tcp, which node '{}' uses", user.name)));
        }
        let agent = configuration.instance(&manager.instance).and_then(|instance| instance.port);
        for (other, whose) in [(agent, "agent"), (rules.controller, "controller")] {
            if other == Some(port) {
                complaints.push((KEY, format!("[zeek] {KEY} has {port}/tcp, which the {whose} uses")));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;
    use crate::model::Network;
    use crate::plan::validate;

    fn complaints(nodes: &[&str], change: impl FnOnce(&mut Zeek)) -> Vec<String> {
        let mut subject = cluster("1", nodes);
        let mut zeek = Zeek::default();
        change(&mut zeek);
        subject.zeek = Some(Box::new(zeek));
        validate(&subject, &PortRules::default())
    }

    #[test]
    fn a_cluster_that_cannot_be_one_is_refused() {
        let two = ["m a manager", "n b manager", "w a worker"];
        assert_eq!(complaints(&two, |_| {}), ["a Zeek cluster has one manager, and these are two: m, n"]);
        let zeromq = |zeek: &mut Zeek| zeek.backend = Backend::ZeroMq;
        let got = complaints(&["l a logger", "w a worker"], zeromq);
        assert!(got.len() == 1 && got[0].starts_with("there is no manager"), "{got:?}");
        assert_eq!(complaints(&["m a manager", "w a worker"], zeromq), [""; 0], "the manager writes the logs");
        let got = complaints(&["m a manager", "zeek a worker"], |_| {});
        assert_eq!(got, ["node 'zeek' has the name of the section that all Zeek nodes share: choose another"]);
    }

    #[test]
    fn a_name_that_begins_with_that_of_another_and_a_dot_is_refused_with_zeromq() {
        let nodes = ["m a manager", "w a worker", "w.1 a worker", "w1.1 a worker"];
        let want =
            "Zeek cannot use the node name 'w.1' beside 'w': with ZeroMQ, 'w' would hear what is meant for 'w.1'";
        assert_eq!(complaints(&nodes, |_| {}), [want]);
        assert_eq!(complaints(&nodes, |zeek| zeek.backend = Backend::Broker), [""; 0]);
    }

    #[test]
    fn a_variable_that_is_none_is_refused() {
        let got = complaints(&["m a manager"], |zeek| zeek.env = [("A".into(), "${worker_index}".into())].into());
        assert!(got[0].starts_with("node 'm' env has the variable `worker_index`, which is nothing here"), "{got:?}");
    }

    #[test]
    fn a_watchdog_that_heartbeats_could_not_keep_up_with_is_refused() {
        let seconds = |number| Some(Duration::from_secs(number));
        let got = complaints(&["m a manager"], |zeek| zeek.health.heartbeat = seconds(31));
        let want = "node 'm' hangs after 1m without a heartbeat, and gives one every 31s: choose a watchdog of two of them at \
                    least, or `off`";
        assert_eq!(got, [want]);
        assert_eq!(complaints(&["m a manager"], |zeek| zeek.health.heartbeat = seconds(30)), [""; 0]);
        for (change, want) in [
            (
                (|zeek| zeek.health.heartbeat = Some(Duration::ZERO)) as fn(&mut Zeek),
                "[zeek] heartbeat is shorter than 100ms",
            ),
            (|zeek| zeek.health.loss_for = Some(Duration::MAX), "[zeek] loss_for is longer than a year"),
        ] {
            let got = complaints(&["m a manager"], change);
            assert!(got.len() == 1 && got[0].starts_with(want), "{got:?}");
        }
    }

    #[test]
    fn settings_that_no_node_could_be_given_are_refused() {
        let nodes = ["m a manager"];
        for (got, want) in [
            (
                complaints(&nodes, |z| z.networks = vec![Network { address: [10, 0, 0, 0].into(), bits: 33 }]),
                "networks",
            ),
            (complaints(&nodes, |z| z.scripts = vec!["-e".into()]), "scripts has '-e'"),
            (complaints(&nodes, |z| z.prefixes = vec!["".into()]), "prefixes has ''"),
            (complaints(&nodes, |z| z.path = vec!["bin".into()]), "path has 'bin'"),
            (complaints(&nodes, |z| z.script_path = vec!["/a:b".into()]), "zeekpath has '/a:b'"),
            (complaints(&nodes, |z| z.env = [("A=".into(), "".into())].into()), "env name 'A='"),
            (complaints(&nodes, |z| z.options = [("-A".into(), "".into())].into()), "options name '-A'"),
            (complaints(&nodes, |z| z.networks_file = Some("n".into())), "networks_file is not absolute"),
            (complaints(&nodes, |z| z.rotation_interval = Some(std::time::Duration::MAX)), "rotation_interval is"),
            (complaints(&nodes, |z| (z.backend, z.encrypt) = (Backend::Broker, Encrypt::Yes)), "encrypt is for ZeroMQ"),
            (complaints(&nodes, |z| z.pcap_snaplen = Some(0)), "pcap_snaplen is 0"),
            (complaints(&nodes, |z| z.args = vec!["\0".into()]), "args or another key has a null"),
            (complaints(&nodes, |z| z.zeromq_ports = Some([5, 5])), "zeromq_ports are two different"),
            (
                complaints(&nodes, |z| z.zeromq_ports = Some([5, 2150])),
                "zeromq_ports has 2150/tcp, which the controller",
            ),
            (
                complaints(&nodes, |z| z.addresses = [(InstanceName::new("b").unwrap(), [10, 0, 0, 1].into())].into()),
                "addresses has undeclared instance name 'b'",
            ),
        ] {
            assert!(!got.is_empty() && got[0].starts_with(&format!("[zeek] {want}")), "{want}: {got:?}");
        }
    }
}

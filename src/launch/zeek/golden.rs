//! What is rendered for each version of Zeek, in `tests/golden/zeek/<version>/`. To write these files anew:
//!
//! ```text
//! WATCHPOST_WRITE_GOLDEN=1 cargo test --lib launch::zeek::golden
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::version::Version;
use super::{Installation, command, rendered, script};
use crate::model::{
    Backend, Configuration, ConfigurationId, Instance, InstanceName, LayoutEntry, Node, NodeName, Role, Zeek,
};
use crate::plan::{self, PortRules};
use crate::trust::CurveRoot;

const VERSIONS: [(u32, u32); 9] = [(5, 0), (6, 0), (7, 0), (7, 1), (7, 2), (8, 0), (8, 1), (8, 2), (9, 0)];

/// One manager; three nodes; twelve, on one machine and on two, one of which has an address of IPv6.
const CLUSTERS: [(&str, &[&str]); 5] = [
    ("1", &["manager one"]),
    ("3", &["manager one", "logger one", "worker-1 one"]),
    ("12", &TWELVE),
    ("12-on-two", &TWELVE_ON_TWO),
    ("12-on-two-ipv6", &TWELVE_ON_TWO),
];
const TWELVE: [&str; 12] = [
    "manager one",
    "logger-1 one",
    "logger-2 one",
    "proxy-1 one",
    "proxy-2 one",
    "worker-1 one",
    "worker-2 one",
    "worker-3 one",
    "worker-4 one",
    "worker-5 one",
    "worker-6 one",
    "worker-7 one",
];
const TWELVE_ON_TWO: [&str; 12] = [
    "manager one",
    "logger-1 one",
    "logger-2 two",
    "proxy-1 one",
    "proxy-2 two",
    "worker-1 one",
    "worker-2 one",
    "worker-3 one",
    "worker-4 two",
    "worker-5 two",
    "worker-6 two",
    "worker-7 two",
];

/// A cluster as it comes to its agents, and its layout.
fn cluster(name: &str, nodes: &[&str], backend: Backend) -> (Configuration, Vec<LayoutEntry>) {
    let mut configuration = Configuration::empty(ConfigurationId::new("c").unwrap());
    let instance = |name: &str, host: &str| Instance {
        name: InstanceName::new(name).unwrap(),
        host: Some(host.parse().unwrap()),
        port: None,
    };
    let second = if name.ends_with("ipv6") { "fd00::2" } else { "10.0.0.2" };
    configuration.instances = vec![instance("one", "10.0.0.1"), instance("two", second)];
    let node = |line: &&str| {
        let (name, instance) = line.split_once(' ').unwrap();
        let role = name.split('-').next().unwrap();
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role).unwrap();
        let mut node = Node::new(NodeName::new(name).unwrap(), InstanceName::new(instance).unwrap(), role);
        if role == Role::Worker {
            node.interface = Some("af_packet::eth${worker_index0}".into());
            node.env.insert("WORKER".into(), "${host_worker_index}".into());
            node.options.insert("AF_Packet::buffer_size".into(), "134217728".into());
            node.scripts = vec!["site/worker".into()];
        }
        Arc::new(node)
    };
    configuration.nodes = nodes.iter().map(node).collect();
    configuration.zeek = Some(Box::new(Zeek {
        backend,
        port: Some(27_760),
        metrics_port: Some(9991),
        args: vec!["-C".into()],
        options: [("Notice::mail_dest".into(), "soc@example.com".into())].into(),
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        rotation_interval: Some(std::time::Duration::from_secs(3600)),
        prefixes: vec!["local".into()],
        hash_seed: Some(0x8f2c_11d0),
        pcap_snaplen: Some(9216),
        pcap_bufsize: Some(128),
        ..Zeek::default()
    }));
    assert_eq!(plan::validate(&configuration, &PortRules::default()), [""; 0]);
    plan::assign_ports(&mut configuration, &PortRules::default()).unwrap();
    let layout = plan::zeek::equip(&mut configuration).unwrap();
    (configuration, layout)
}

/// Every file of one version, by name.
fn files(version: Version) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut calls = String::new();
    for (name, nodes) in CLUSTERS {
        for backend in [Backend::Broker, Backend::ZeroMq] {
            if version.backend(backend).is_err() {
                continue;
            }
            let (configuration, layout) = cluster(name, nodes, backend);
            let zeek = configuration.zeek.as_deref().unwrap();
            files.insert(format!("layout-{name}.zeek"), script::layout(&layout, version));
            let settings = script::settings(zeek, &zeek.networks, &layout, backend, version);
            files.insert(format!("settings-{name}-{}.zeek", backend.as_str()), settings);
            files.insert("last.zeek".into(), script::last(zeek, version));
            if name == "12-on-two" {
                calls.push_str(&self::calls(&configuration, version));
            }
        }
    }
    files.insert("calls.txt".into(), calls);
    files
}

/// One node of each role: its variables and its command line.
fn calls(configuration: &Configuration, version: Version) -> String {
    let zeek = Installation { program: "/opt/zeek/bin/zeek".into(), prefix: "/opt/zeek".into(), version };
    let rendered = rendered::Rendered::at("/state/.zeek/1");
    let mut text = String::new();
    for name in ["manager", "logger-1", "proxy-1", "worker-2"] {
        let node = configuration.nodes.iter().find(|node| node.name.as_str() == name).unwrap();
        let (keys, path) = (CurveRoot::from([7; 32]).keys(1), Some("/usr/bin:/bin"));
        let launched = command::call(node, &zeek, &rendered, None, Some(&keys), path);
        for call in [launched, command::check(node, &zeek, &rendered, None, path)] {
            let call = call.unwrap();
            for (name, value) in call.env {
                writeln!(text, "{name}={value}").unwrap();
            }
            writeln!(text, "{}\n", call.argv.join(" ")).unwrap();
        }
    }
    text
}

fn directory(version: Version) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/zeek").join(version.to_string())
}

#[test]
fn what_is_rendered_for_each_version_is_what_its_golden_files_say() {
    for (major, minor) in VERSIONS {
        let version = Version { major, minor };
        let (directory, files) = (directory(version), files(version));
        if std::env::var_os("WATCHPOST_WRITE_GOLDEN").is_some() {
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir_all(&directory).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(directory.join(name), text).unwrap());
        }
        for (name, text) in &files {
            let path = directory.join(name);
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(golden, *text, "{}: see the top of this file", path.display());
        }
        let there = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(there, files.len(), "there are golden files of nothing in {}", directory.display());
    }
}

#[test]
fn nodes_of_two_clusters_on_one_machine_meet_nowhere() {
    let places = |first: u16| {
        let mut configuration = cluster("3", CLUSTERS[1].1, Backend::ZeroMq).0;
        configuration.nodes.iter_mut().for_each(|node| {
            let node = Arc::make_mut(node);
            (node.port, node.metrics_port) = (None, None);
        });
        let zeek = configuration.zeek.as_deref_mut().unwrap();
        (zeek.port, zeek.zeromq_ports, zeek.metrics_port) = (Some(first), None, Some(first + 100));
        plan::assign_ports(&mut configuration, &PortRules::default()).unwrap();
        let zeek = configuration.zeek.as_deref().unwrap();
        let ports = configuration.nodes.iter().flat_map(|node| [node.port, node.metrics_port]).flatten();
        ports.chain(zeek.zeromq_ports.unwrap()).collect::<std::collections::BTreeSet<u16>>()
    };
    assert!(places(27_760).is_disjoint(&places(37_760)));
}

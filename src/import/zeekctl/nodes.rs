//! `node.cfg`: a section a node, or as many nodes as a worker has processes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::balance::{Dealt, Method};
use super::options::Options;
use super::python::Values;
use crate::hint::{instead, shown};
use crate::import::{Findings, Source};
use crate::model::cluster_file::lines::{self, DEFAULT, Dialect, Section};
use crate::model::cluster_file::{Complaint, Complaints, ZEEK, readable, word_list};
use crate::model::{Cpus, InstanceName, Node, NodeName, Role};
use crate::plan::zeek::template::escape;

/// The most processes that one worker may have: more are a slip of the finger.
const MOST_PROCESSES: usize = 1024;
/// The most nodes of one file.
const MOST_NODES: usize = 100_000;

/// Keys that zeekctl knows, but for those of AF_PACKET.
const KEYS: [&str; 9] =
    ["type", "host", "interface", "lb_method", "lb_procs", "lb_interfaces", "pin_cpus", "env_vars", "aux_scripts"];
/// Keys that zeekctl takes and makes nothing of, or overwrites.
const IDLE: [&str; 4] = ["zeekbase", "brobase", "ether", "count"];
const OF_AF_PACKET: [&str; 10] = [
    "block_size",
    "block_timeout",
    "buffer_size",
    "checksum_validation_mode",
    "enable_defrag",
    "enable_fanout",
    "enable_hw_timestamping",
    "fanout_id",
    "fanout_mode",
    "link_type",
];

/// A machine, as node.cfg names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// This one, by an address that only it has.
    Here,
    Address(IpAddr),
    Name(String),
}

impl Host {
    fn read(text: &str) -> Self {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let bare = inner.split_once('%').map_or(inner, |(address, _zone)| address);
        match bare.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => Self::Here,
            Ok(address) => Self::Address(address),
            Err(_) if text.eq_ignore_ascii_case("localhost") => Self::Here,
            Err(_) => Self::Name(text.to_owned()),
        }
    }

    /// The instance that stands for the machine.
    fn instance(&self, hostname: &str) -> Result<InstanceName, String> {
        let name = match self {
            Self::Here => format!("agent-{hostname}"),
            Self::Address(address) => format!("agent-{address}"),
            Self::Name(name) => format!("agent-{name}"),
        };
        InstanceName::new(&name).map_err(|error| error.to_string())
    }
}

/// What the file describes.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) instances: BTreeMap<Host, InstanceName>,
}

pub(super) fn read(source: &Source, options: &Options, hostname: &str, findings: &mut Findings) -> Cluster {
    let text = match readable(&source.bytes) {
        Ok(text) => text,
        Err(complaint) => {
            findings.wrong(complaint);
            return Cluster::default();
        }
    };
    let mut complaints = Complaints::default();
    let sections = lines::sections(text, Dialect::Python, &mut complaints);
    complaints.kept.into_iter().for_each(|complaint| findings.wrong(complaint));
    let defaults = sections.iter().find(|section| section.name == DEFAULT);
    let mut reader = Reader {
        options,
        hostname,
        cluster: Cluster::default(),
        dealt: Dealt::default(),
        lines: Vec::new(),
        names: BTreeSet::new(),
    };
    for section in sections.iter().filter(|section| section.name != DEFAULT) {
        reader.section(&mut Ask { section, values: &Values::of(section, defaults), findings });
    }
    if findings.is_fine() {
        reader.whole(findings);
    }
    reader.cluster
}

/// Reads the keys of one section, and complains of them.
struct Ask<'a, 'f> {
    section: &'a Section<'a>,
    values: &'a Values<'a>,
    findings: &'f mut Findings,
}

impl Ask<'_, '_> {
    fn complaint(&self, key: &str, what: impl Into<String>) -> Complaint {
        let mut complaint = self.section.complaint(None, what);
        if let Some(line) = self.values.line(key) {
            (complaint.line, complaint.key) = (line, Some(key.chars().take(64).collect()));
        }
        complaint
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        let complaint = self.complaint(key, what);
        self.findings.wrong(complaint);
    }

    fn remark(&mut self, key: &str, what: impl Into<String>) {
        let complaint = self.complaint(key, what);
        self.findings.remark(complaint);
    }

    /// What a key says; `None` if it is not there, or was complained of.
    fn get<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.values.get(key).and_then(|value| value.as_deref().map(read).transpose()) {
            Ok(value) => value,
            Err(what) => {
                self.wrong(key, what);
                None
            }
        }
    }

    fn has(&self, key: &str) -> bool {
        matches!(self.values.get(key), Ok(Some(_)))
    }

    /// What a key says that has to be there.
    fn need<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if matches!(self.values.get(key), Ok(None)) {
            self.wrong(key, format!("has no `{key}`, which every such node needs"));
        }
        self.get(key, read)
    }
}

struct Reader<'r> {
    options: &'r Options,
    hostname: &'r str,
    cluster: Cluster,
    dealt: Dealt,
    /// Of each node the section that it came of.
    lines: Vec<usize>,
    /// Of all nodes, in small letters: zeekctl does not tell them apart.
    names: BTreeSet<String>,
}

impl Reader<'_> {
    fn section(&mut self, ask: &mut Ask) {
        for key in ask.values.keys() {
            if let Some(what) = left_out(key) {
                ask.remark(key, what);
            }
        }
        let kind = ask.need("type", Kind::named);
        let host = ask.need("host", |text| Ok(Host::read(text)));
        let (Some(kind), Some(host)) = (kind, host) else { return };
        let instance = match self.cluster.instances.get(&host) {
            Some(instance) => instance.clone(),
            None => match host.instance(self.hostname) {
                Ok(name) => self.cluster.instances.entry(host.clone()).or_insert(name).clone(),
                Err(what) => return ask.wrong("host", what),
            },
        };
        let Some(name) = name(ask) else { return };
        let mut node = Node::new(name, instance, kind.role());
        self.options.apply(&mut node);
        node.interface = match kind {
            Kind::Worker => ask.need("interface", |text| Ok(text.to_owned())),
            _ => ask.get("interface", |text| Ok(text.to_owned())),
        };
        if let Some(env) = ask.get("env_vars", variables) {
            node.env = env;
        }
        if let Some(mut scripts) = ask.get("aux_scripts", word_list) {
            node.zeek.get_or_insert_default().args.append(&mut scripts);
        }
        self.processes(ask, kind, host, node);
    }

    /// Adds the node, or one for each of its processes.
    fn processes(&mut self, ask: &mut Ask, kind: Kind, host: Host, mut node: Node) {
        let cpus = ask.get("pin_cpus", cpus).unwrap_or_default();
        let shared = share(ask, kind);
        say_what_is_idle(ask, node.interface.as_deref(), shared.as_ref(), cpus.len());
        let Some((method, count)) = shared else {
            node.cpu_affinity = cpus.first().copied().map(Cpus::one);
            return self.add(ask, node);
        };
        if node.interface.as_ref().is_some_and(|interface| reads_af_packet(interface, &method)) {
            for key in OF_AF_PACKET {
                if let Some(value) = ask.get(&format!("af_packet_{key}"), |text| Ok(text.to_owned())) {
                    node.options.insert(format!("AF_Packet::{key}"), value);
                }
            }
        }
        for index in 0..count {
            let mut process = node.clone();
            match NodeName::new(&format!("{}-{}", node.name, index + 1)) {
                Ok(name) => process.name = name,
                Err(error) => return ask.wrong("lb_procs", error.to_string()),
            }
            process.cpu_affinity = cpus.get(index % cpus.len().max(1)).copied().map(Cpus::one);
            if let Err(what) = self.dealt.give(&mut process, &host, &method, (index, count), self.options) {
                return ask.wrong("interface", what);
            }
            self.add(ask, process);
        }
    }

    fn add(&mut self, ask: &mut Ask, node: Node) {
        if !self.names.insert(node.name.as_str().to_ascii_lowercase()) {
            return ask.wrong("type", format!("makes a second node of the name `{}`", node.name));
        }
        if self.cluster.nodes.len() >= MOST_NODES {
            return ask.wrong("type", format!("makes more than {MOST_NODES} nodes of this file"));
        }
        self.cluster.nodes.push(Arc::new(node));
        self.lines.push(ask.section.line);
    }

    /// What zeekctl asks of all nodes together.
    fn whole(&self, findings: &mut Findings) {
        let nodes = &self.cluster.nodes;
        let count = |role| nodes.iter().filter(|node| node.role == role).count();
        let mut wrong = |what: &str| findings.wrong(Complaint::at(1, what));
        match (count(Role::None), count(Role::Manager), count(Role::Proxy)) {
            _ if nodes.is_empty() => wrong("there is no node"),
            (0, 0, _) => wrong("there is no manager: a cluster has one"),
            (0, 1, 0) => wrong("there is no proxy: a cluster has at least one"),
            (0, 1, _) => {}
            (0, _, _) => wrong("there are several managers: a cluster has one"),
            (1, _, _) if nodes.len() == 1 => {}
            (_, _, _) => wrong("a standalone node is the only one there is"),
        }
        let here = self.cluster.instances.get(&Host::Here);
        let manager = nodes.iter().zip(&self.lines).find(|(node, _)| node.role == Role::Manager);
        if let Some((manager, &line)) = manager
            && here == Some(&manager.instance)
            && self.cluster.instances.len() > 1
        {
            let what = "the manager is on a loopback address, and other nodes are not: give it one that they reach";
            findings.wrong(Complaint::at(line, what));
        }
    }
}

/// What a node is for, as zeekctl has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standalone,
    Logger,
    Manager,
    Proxy,
    Worker,
}

impl Kind {
    fn named(text: &str) -> Result<Self, String> {
        const KNOWN: [(&str, Kind); 5] = [
            ("standalone", Kind::Standalone),
            ("logger", Kind::Logger),
            ("manager", Kind::Manager),
            ("proxy", Kind::Proxy),
            ("worker", Kind::Worker),
        ];
        let found = KNOWN.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        found.ok_or_else(|| format!("{} is no type: {}", shown(text), instead(text, KNOWN.map(|(name, _)| name))))
    }

    fn role(self) -> Role {
        match self {
            Self::Standalone => Role::None,
            Self::Logger => Role::Logger,
            Self::Manager => Role::Manager,
            Self::Proxy => Role::Proxy,
            Self::Worker => Role::Worker,
        }
    }
}

/// The node's name: that of its section, where a cluster file can have it.
fn name(ask: &mut Ask) -> Option<NodeName> {
    let name = ask.section.name;
    if name.eq_ignore_ascii_case(ZEEK) {
        ask.remark("", "is called zeek-node here: a section [zeek] is what all Zeek nodes share");
        return NodeName::new("zeek-node").ok();
    }
    match NodeName::new(name) {
        Ok(name) => Some(name),
        Err(error) => {
            ask.wrong("", error.to_string());
            None
        }
    }
}

/// How the packets of a worker are shared out, and among how many; `None` if it is one process.
fn share(ask: &mut Ask, kind: Kind) -> Option<(Method, usize)> {
    let count = ask.get("lb_procs", |text| match text.parse() {
        Ok(count @ 1..=MOST_PROCESSES) => Ok(count),
        _ => Err(format!("{} is no number from 1 to {MOST_PROCESSES}", shown(text))),
    });
    let method = ask.get("lb_method", Method::named);
    let interfaces = ask.get("lb_interfaces", |text| Ok(text.split(',').map(|one| one.trim().to_owned()).collect()));
    let interfaces: Vec<String> = interfaces.unwrap_or_default();
    let given = [ask.has("lb_procs"), ask.has("lb_method")];
    match (kind, given) {
        (_, [false, false]) => return None,
        (Kind::Worker, [true, true]) => {}
        (Kind::Worker, [true, false]) => {
            ask.wrong("lb_procs", "needs an `lb_method`, which says how packets are shared")
        }
        (Kind::Worker, [false, true]) => ask.wrong("lb_method", "needs `lb_procs`, the number of processes"),
        _ => ask.wrong("type", "cannot have lb_procs or lb_method: only workers can"),
    }
    let (method, count) = (method?, count?);
    if let Method::Interfaces(_) = method {
        if interfaces.len() != count {
            let what = format!("has {} interfaces for {count} processes: name one for each", interfaces.len());
            ask.wrong("lb_interfaces", what);
            return None;
        }
        return Some((Method::Interfaces(interfaces), count));
    }
    Some((method, count))
}

/// Keys that zeekctl takes and, where they stand, makes nothing of.
fn say_what_is_idle(ask: &mut Ask, interface: Option<&str>, shared: Option<&(Method, usize)>, cpus: usize) {
    let is_af_packet =
        shared.is_some_and(|(method, _)| interface.is_some_and(|interface| reads_af_packet(interface, method)));
    if !is_af_packet {
        let of_af_packet = OF_AF_PACKET.map(|key| format!("af_packet_{key}"));
        for key in of_af_packet.into_iter().filter(|key| ask.has(key)).collect::<Vec<_>>() {
            let what = "is left out: zeekctl heeds it only where lb_procs shares out an interface of AF_PACKET";
            ask.remark(&key, what);
        }
    }
    let of_interfaces = matches!(shared, Some((Method::Interfaces(_), _)));
    if ask.has("lb_interfaces") && !of_interfaces && (shared.is_some() || !ask.has("lb_method")) {
        ask.remark("lb_interfaces", "is left out: zeekctl heeds it only where lb_method is interfaces");
    }
    if shared.is_none() && cpus > 1 && !ask.has("lb_procs") && !ask.has("lb_method") {
        ask.remark("pin_cpus", "is left out but for its first processor: the node is one process, without lb_procs");
    }
}

fn reads_af_packet(interface: &str, method: &Method) -> bool {
    *method == Method::AfPacket || interface.starts_with("af_packet::")
}

/// Why a key means nothing here.
fn left_out(key: &str) -> Option<String> {
    let of_af_packet = key.strip_prefix("af_packet_").is_some_and(|rest| OF_AF_PACKET.contains(&rest));
    match key {
        _ if KEYS.contains(&key) || of_af_packet => None,
        "zone_id" => Some("is left out: it is the zone of an IPv6 address, and nodes are found without one".into()),
        _ if IDLE.contains(&key) => Some("is left out: zeekctl itself makes nothing of it, or overwrites it".into()),
        _ => Some(format!("is no key of zeekctl, or one of a plugin: it is left out ({})", instead(key, KEYS))),
    }
}

/// `A=1,B=2`.
pub(super) fn variables(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |pair: &str| match pair.trim().split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), escape(value.trim()))),
        _ => Err(format!("{} is not of the form NAME=VALUE", shown(pair))),
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn cpus(text: &str) -> Result<Vec<u32>, String> {
    let cpu = |text: &str| match text.trim().parse() {
        Ok(cpu) => Ok(cpu),
        Err(_) => Err(format!("{} is no processor: write numbers from 0 on with commas between them", shown(text))),
    };
    text.split(',').map(cpu).collect()
}

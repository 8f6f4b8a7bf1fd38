//! What is done before a configuration comes into force: the files of Zeek nodes are rendered, and everything is looked at
//! that would keep a node from running. As long as something does, nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::rendered::{Cluster, Rendered, Store};
use super::{Call, Installation, Launcher, command};
use crate::launch::inspect::taken_by_a_stranger;
use crate::launch::{Site, command as any, room};
use crate::model::{CurveKeys, Exit, LayoutEntry, Network, Node, NodeName, Output, Role, Zeek};
use crate::plan::order::CHECK_PATIENCE;
use crate::supervisor::process;
use crate::supervisor::process::errand::{self, Errand};

/// How many nodes are looked at side by side.
const SIDE_BY_SIDE: usize = 2;
/// The longest file with networks that is read, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// How much of what Zeek says goes into an answer, and how much of a line into its sentence, in bytes.
const MOST_OUTPUT: usize = 8 << 10;
const MOST_OF_A_LINE: usize = 500;
/// Interfaces that are none of the machine's own.
const PSEUDO: [&str; 1] = ["any"];

/// What is to come into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparation {
    /// By this its files are known from here on: see [`Launcher::use_files`].
    pub number: u64,
    pub zeek: Zeek,
    /// All members of the cluster, sorted by name.
    pub layout: Vec<LayoutEntry>,
    /// By what they encrypt what they say to one another, if they may.
    pub keys: Option<Box<CurveKeys>>,
    /// The Zeek nodes that would be started or changed.
    pub nodes: Vec<Arc<Node>>,
    /// All nodes that are to find files, which are laid out before anything is looked at.
    pub with_files: Vec<Arc<Node>>,
    /// Ports that nodes have which run now: it is not said of them that they are taken.
    pub ours: BTreeSet<u16>,
    /// Whether there are Zeek nodes, which need files.
    pub renders: bool,
    /// How many nodes would be started or changed, of any kind.
    pub launches: usize,
}

/// Why something cannot come into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// `None` if it is about all of them.
    pub node: Option<NodeName>,
    pub what: String,
    /// What Zeek said, if it was asked.
    pub output: Option<Output>,
}

impl Objection {
    /// About one node.
    pub fn of(node: &Node, what: impl Into<String>) -> Self {
        Self { node: Some(node.name.clone()), what: what.into(), output: None }
    }

    /// About the configuration as a whole.
    pub fn of_all(what: impl ToString) -> Self {
        Self { node: None, what: what.to_string(), output: None }
    }
}

impl Launcher {
    /// Looks at everything, and renders the files; nodes are not launched by them yet. Blocks for as long as Zeek takes to
    /// parse, which may be seconds.
    pub fn prepare(&self, site: &Site, preparation: Preparation) -> Vec<Objection> {
        let Preparation { number, zeek: settings, layout, keys, nodes, with_files: _, ours, renders, launches } =
            preparation;
        if let Err(error) = room::for_nodes(&site.nodes, launches) {
            return vec![Objection::of_all(error)];
        }
        if !renders {
            return Vec::new();
        }
        let networks = match networks(&settings) {
            Ok(networks) => networks,
            Err(what) => return vec![Objection::of_all(what)],
        };
        let generation = match self.store.begin(&Cluster::new(&settings, networks, layout), keys.as_deref()) {
            Ok(generation) => generation,
            Err(error) => return vec![Objection::of_all(error)],
        };
        let mut objections = Vec::new();
        if !nodes.is_empty() {
            match self.finder.find().map_err(Objection::of_all).and_then(|zeek| {
                let files = generation.files(zeek.version).map_err(Objection::of_all)?;
                Ok((zeek, files))
            }) {
                Ok((zeek, files)) => {
                    let look = Look { ours: &ours, is_taken: &is_taken, store: &self.store, only_asks: false };
                    objections = self.look_at(site, &nodes, look, &zeek, &files);
                }
                Err(objection) => objections.push(objection),
            }
        }
        match objections.is_empty() {
            true => self.store.keep(number, &generation),
            false => generation.discard(),
        }
        objections
    }

    pub(super) fn look_at(
        &self,
        site: &Site,
        nodes: &[Arc<Node>],
        look: Look<'_>,
        zeek: &Installation,
        files: &Rendered,
    ) -> Vec<Objection> {
        let mut objections: Vec<Objection> = nodes.iter().flat_map(|node| before_zeek(node, &look)).collect();
        // Nodes of which Zeek would say the same are looked at once: workers, mostly.
        let mut alike: BTreeMap<_, Vec<&Arc<Node>>> = BTreeMap::new();
        for node in nodes {
            let call = any::inherited(site, node).map_err(|error| error.to_string()).and_then(|mut env| {
                let path = env.get("PATH").cloned();
                let Call { argv, env: own } =
                    command::check(node, zeek, files, site.tree_of(node).as_deref(), path.as_deref())
                        .map_err(|error| error.to_string())?;
                env.extend(own);
                Ok((argv, env))
            });
            match call {
                Ok((argv, mut env)) => {
                    let program = any::with(site, node, Default::default(), argv.clone(), env.clone());
                    let obstacles = if look.only_asks { process::obstacles(&program) } else { Vec::new() };
                    objections.extend(obstacles.iter().map(|error| Objection::of(node, error.to_string())));
                    env.remove("CLUSTER_NODE");
                    // What scripts hold does not depend on a user who is not there.
                    let user = node.user.clone().filter(|_| obstacles.is_empty());
                    alike.entry((node.role, user, argv, env)).or_default().push(node);
                }
                Err(what) => objections.push(Objection::of(node, what)),
            }
        }
        let deadline = Instant::now() + CHECK_PATIENCE;
        let (work, found) = (Mutex::new(alike.into_iter().enumerate()), Mutex::new(Vec::new()));
        let (store, only_asks) = (look.store, look.only_asks);
        let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE {
                scope.spawn(|| {
                    while let Some((number, ((_, user, argv, env), nodes))) = next() {
                        let home = store.scratch(number);
                        let left = deadline.saturating_duration_since(Instant::now());
                        let errand = Errand { argv, env, home, user, ..Errand::default() };
                        let objections = ask(site, nodes, errand, only_asks, left);
                        found.lock().unwrap_or_else(PoisonError::into_inner).extend(objections);
                    }
                });
            }
        });
        objections.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
        objections.sort_by(|a, b| (&a.node, &a.what).cmp(&(&b.node, &b.what)));
        objections
    }
}

/// How to look.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// Ports of which it is not said that they are taken.
    pub ours: &'a BTreeSet<u16>,
    pub is_taken: &'a dyn Fn(SocketAddr) -> bool,
    /// Where errands have their place.
    pub store: &'a Store,
    /// Nothing is about to come into force.
    pub only_asks: bool,
}

/// What can be seen without Zeek: an interface that is not there, a port that somebody else has.
fn before_zeek(node: &Node, look: &Look<'_>) -> Vec<Objection> {
    let objection = |what| Objection::of(node, what);
    let port = ports(node).into_iter().filter(|(_, place)| !look.ours.contains(&place.port()));
    let taken = port.filter(|(_, place)| (look.is_taken)(*place));
    let taken = taken.map(|(what, place)| objection(taken_by_a_stranger(what, place.port())));
    missing_interface(node).map(objection).into_iter().chain(taken).collect()
}

/// Where a node will listen.
fn ports(node: &Node) -> Vec<(&'static str, SocketAddr)> {
    let Some(knows) = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_deref()) else { return Vec::new() };
    let Some(own) = knows.entries.iter().find(|entry| entry.name == node.name) else { return Vec::new() };
    let metrics = knows.settings.metrics_address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let hub = knows.settings.zeromq_ports.filter(|_| node.role == Role::Manager);
    let own_port = own.port.map(|port| ("port", SocketAddr::new(own.host, port)));
    let metrics_port = own.metrics_port.map(|port| ("metrics_port", SocketAddr::new(metrics, port)));
    let hub = hub.into_iter().flatten().map(|port| ("its port for ZeroMQ", SocketAddr::new(own.host, port)));
    own_port.into_iter().chain(metrics_port).chain(hub).collect()
}

fn is_taken(place: SocketAddr) -> bool {
    // An address that is none of this machine's tells nothing.
    TcpListener::bind(place).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// An interface that is plain, or read by AF_PACKET, is one of the machine's.
fn missing_interface(node: &Node) -> Option<String> {
    let variables = node.zeek.as_ref()?.knows.as_ref().map(|knows| &knows.variables)?;
    let name = |name: &str| variables.get(name).cloned();
    let interface = crate::plan::zeek::template::expand(node.interface.as_deref()?, name).ok()?;
    let plain = interface.strip_prefix("af_packet::").unwrap_or(&interface);
    if plain.contains("::") || PSEUDO.contains(&plain) {
        return None; // a source of another plugin
    }
    let all = Path::new("/sys/class/net");
    if !all.is_dir() || (!plain.contains('/') && all.join(plain).exists()) {
        return None;
    }
    let there = std::fs::read_dir(all).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let there: BTreeSet<String> = there.collect();
    let there = there.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("interface `{}` is not there: this machine has {there}", plain.escape_debug()))
}

/// What Zeek objects to in nodes that it would say the same of.
fn ask(site: &Site, nodes: Vec<&Arc<Node>>, mut errand: Errand, only_asks: bool, patience: Duration) -> Vec<Objection> {
    let Some(first) = nodes.first() else { return Vec::new() };
    if first.is_in_zeek_cluster() {
        errand.env.insert("CLUSTER_NODE".into(), first.name.to_string());
    }
    let directory = any::with(site, first, Default::default(), Vec::new(), BTreeMap::new()).directory;
    // It would be made, and be the node's user's.
    errand.directory = Some(directory).filter(|directory| !only_asks || directory.is_dir());
    if first.user.is_none() || errand.user.is_some() {
        errand.run_as = first.run_as.as_deref().cloned().unwrap_or_default();
    }
    let (what, output) = match errand::run(errand, patience) {
        Ok(told) if told.exit == Exit::Status(0) => return Vec::new(),
        Ok(told) => {
            let said = worst(&told.output).map_or_else(|| told.exit.to_string(), str::to_owned);
            let stderr = beginning(&told.output, MOST_OUTPUT).to_owned();
            (format!("Zeek does not accept it: {said}"), Some(Output { stderr, stdout: String::new() }))
        }
        Err(error) => (format!("cannot have Zeek look at it: {error}"), None),
    };
    let objection = |(at, node): (usize, &&Arc<Node>)| {
        // Once is enough.
        let output = output.clone().filter(|_| at == 0);
        Objection { output, ..Objection::of(node, what.clone()) }
    };
    nodes.iter().enumerate().map(objection).collect()
}

/// The line that says what is wrong: the first with an error in it.
fn worst(output: &str) -> Option<&str> {
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.contains("error"));
    error.or_else(|| lines.next()).map(|line| beginning(line, MOST_OF_A_LINE))
}

/// At most so many bytes of a text.
fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// All networks that count as local: those that the configuration names, and those of its file.
pub(super) fn networks(settings: &Zeek) -> Result<Vec<Network>, String> {
    let mut networks = settings.networks.clone();
    if let Some(path) = &settings.networks_file {
        let mut text = String::new();
        let read = any::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text));
        read.map_err(|error| format!("cannot read the networks in {path}: {error}"))?;
        for (line, network) in crate::model::network::listed(&text) {
            networks.push(network.map_err(|what| format!("{path}:{line}: {what}"))?);
        }
    }
    Ok(networks)
}

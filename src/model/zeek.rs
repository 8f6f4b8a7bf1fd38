//! What Zeek nodes have beside what every node has: what they share in a cluster, and what one of them knows of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::curve::PublicKey;
use super::{ArchiveRules, Configuration, InstanceName, Network, Node, NodeName, ReadyBy, Role, ZeekHealth};

/// What all Zeek nodes of a cluster share. A Zeek node is one without a `command`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zeek {
    /// How nodes talk to one another.
    pub backend: Backend,
    /// Scripts that every node loads, in this order, before its own.
    pub scripts: Vec<String>,
    /// More words for the command line of every node, behind all scripts.
    pub args: Vec<String>,
    /// Zeek options of every node, by name; a node's own win.
    pub options: BTreeMap<String, String>,
    /// Variables of every node; a node's own win.
    pub env: BTreeMap<String, String>,
    /// Prefixes for scripts that are loaded where they exist, as with `-p`.
    pub prefixes: Vec<String>,
    /// Directories that come first in PATH.
    pub path: Vec<String>,
    /// Directories that come first in ZEEKPATH, behind what is rendered.
    pub script_path: Vec<String>,
    /// The networks that count as local.
    pub networks: Vec<Network>,
    /// A file with more of them on each agent's machine, absolute.
    pub networks_file: Option<String>,
    /// How often logs are rotated; zero: never; `None`: as Zeek does by itself.
    pub rotation_interval: Option<Duration>,
    /// What becomes of logs that were rotated.
    pub archive: ArchiveRules,
    /// Where metrics are served; `None`: on 127.0.0.1.
    pub metrics_address: Option<IpAddr>,
    /// The first port that nodes without one get; `None`: as the controller is set.
    pub port: Option<u16>,
    /// The first metrics port; 0: nodes without one serve none; `None`: as the controller is set.
    pub metrics_port: Option<u16>,
    /// Where the manager binds for ZeroMQ: XPUB, then XSUB. Given out like the ports of nodes.
    pub zeromq_ports: Option<[u16; 2]>,
    /// Whether ZeroMQ is encrypted.
    pub encrypt: Encrypt,
    /// The number of the keys for that: another number is other keys.
    pub zeromq_keys: u32,
    /// What all hashes begin with, so that nodes agree on them. Made up where it is not given.
    pub hash_seed: Option<u32>,
    /// Where the nodes of an instance are found by others, if not where its agent is.
    pub addresses: BTreeMap<InstanceName, IpAddr>,
    /// How many bytes of a packet are read.
    pub pcap_snaplen: Option<u32>,
    /// The buffer for packets, in MiB.
    pub pcap_bufsize: Option<u32>,
    /// How they are to be.
    pub health: ZeekHealth,
}

impl Zeek {
    /// The site script, which is loaded unless others are named.
    pub const SCRIPTS: [&str; 1] = ["local"];
    /// The number of the keys that nodes have as long as nobody names others.
    pub const KEYS: u32 = 1;

    /// Whether its nodes may need keys, which is for their versions to say.
    pub fn wants_keys(&self) -> bool {
        self.backend != Backend::Broker && self.encrypt != Encrypt::No
    }
}

impl Default for Zeek {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            scripts: Self::SCRIPTS.map(str::to_owned).into(),
            args: Vec::new(),
            options: BTreeMap::new(),
            env: BTreeMap::new(),
            prefixes: Vec::new(),
            path: Vec::new(),
            script_path: Vec::new(),
            networks: Vec::new(),
            networks_file: None,
            rotation_interval: None,
            archive: ArchiveRules::default(),
            metrics_address: None,
            port: None,
            metrics_port: None,
            zeromq_ports: None,
            encrypt: Encrypt::default(),
            zeromq_keys: Self::KEYS,
            hash_seed: None,
            addresses: BTreeMap::new(),
            pcap_snaplen: None,
            pcap_bufsize: None,
            health: ZeekHealth::default(),
        }
    }
}

/// How Zeek nodes talk to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Backend {
    /// As the version of Zeek does by itself, or recommends: Broker before 8.1, ZeroMQ from then on.
    #[default]
    Auto,
    Broker,
    ZeroMq,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Broker, Self::ZeroMq];

    /// As cluster files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Broker => "broker",
            Self::ZeroMq => "zeromq",
        }
    }
}

/// Whether ZeroMQ encrypts what Zeek nodes say to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encrypt {
    /// Where Zeek can: from 8.2 on.
    #[default]
    Auto,
    /// Nodes that cannot are not started.
    Yes,
    No,
}

impl Encrypt {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Yes, Self::No];

    /// As cluster files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

/// What only a Zeek node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZeekNode {
    /// More words for its command line, behind those of the cluster.
    pub args: Vec<String>,
    /// Its surroundings, as its agent found them in the configuration. No file tells them.
    pub knows: Option<Arc<Surroundings>>,
}

/// What a Zeek node must know of its cluster. Once it differs the node has to be started afresh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// What it shares with all others, as far as it concerns this one.
    pub settings: Arc<Zeek>,
    /// The layout's entries that concern it, its own among them, sorted by name.
    pub entries: Vec<LayoutEntry>,
    /// The number that keeps the packets of its interface together, where it shares one by AF_PACKET.
    pub fanout: Option<u16>,
    /// By which keys it talks, if it does by some: the server's, which differs wherever any of them does.
    pub keys: Option<PublicKey>,
    /// What the variables stand for that its interface and environment name.
    pub variables: BTreeMap<String, String>,
}

/// One node in a cluster's layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutEntry {
    pub name: NodeName,
    pub role: Role,
    pub host: IpAddr,
    pub port: Option<u16>,
    pub metrics_port: Option<u16>,
}

/// A Zeek node of another instance, as far as others must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub name: NodeName,
    pub instance: InstanceName,
    pub role: Role,
    pub port: Option<u16>,
    pub metrics_port: Option<u16>,
}

impl Peer {
    /// How others know `node`; `None` if it is no member of a Zeek cluster.
    pub fn of(node: &Node) -> Option<Self> {
        let Node { name, instance, role, port, metrics_port, .. } = node;
        let (name, instance) = (name.clone(), instance.clone());
        let peer = Self { name, instance, role: *role, port: *port, metrics_port: *metrics_port };
        node.is_in_zeek_cluster().then_some(peer)
    }
}

impl Node {
    /// Whether its agent makes its command line. One whose role is none stands alone.
    pub fn is_zeek(&self) -> bool {
        self.command.is_empty()
    }

    /// Whether it is by the channel of a Zeek node that it is to say how it is.
    pub fn speaks_by_channel(&self) -> bool {
        self.is_zeek() && self.ready.by != ReadyBy::Notify
    }

    /// How often it is to give a sign of life, if it is to.
    pub fn watchdog(&self) -> Option<Duration> {
        let given = self.liveness.as_ref().and_then(|liveness| liveness.watchdog);
        given.or(self.speaks_by_channel().then_some(Self::HUNG_AFTER)).filter(|watchdog| !watchdog.is_zero())
    }

    /// After this much silence a Zeek node hangs, unless its definition says otherwise.
    pub const HUNG_AFTER: Duration = Duration::from_secs(60);

    /// Whether it is one of the nodes that Zeek's cluster framework knows.
    pub fn is_in_zeek_cluster(&self) -> bool {
        self.is_zeek() && self.role != Role::None
    }

    /// More words for the command line of a Zeek node.
    pub fn zeek_args(&self) -> &[String] {
        self.zeek.as_ref().map_or(&[], |zeek| &zeek.args)
    }
}

impl Configuration {
    /// The members of the Zeek cluster: of a share, also those of other instances.
    pub fn zeek_cluster(&self) -> impl Iterator<Item = Peer> {
        self.nodes.iter().filter_map(|node| Peer::of(node)).chain(self.peers.iter().cloned())
    }

    /// The number of the keys by which its Zeek nodes talk, if they may need any.
    pub fn number_of_keys(&self) -> Option<u32> {
        let has_members = self.nodes.iter().any(|node| node.is_in_zeek_cluster());
        let (wants, number) =
            self.zeek.as_ref().map_or((true, Zeek::KEYS), |zeek| (zeek.wants_keys(), zeek.zeromq_keys));
        (has_members && wants).then_some(number)
    }
}

//! The instances and nodes that should exist.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ConfigurationId, Cpus, CurveKeys, InstanceName, NodeFiles, NodeName, NodeState, OutputWish, Peer, RunAs, Zeek,
    ZeekNode,
};

/// The instances and nodes that should exist. Not yet checked: see [`crate::plan::validate()`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Names this version; equal ids promise equal contents.
    pub id: ConfigurationId,
    /// In the order they were written.
    pub instances: Vec<Instance>,
    /// In the order they were written. Configurations that come of one another share what is the same in both.
    pub nodes: Vec<Arc<Node>>,
    /// What its Zeek nodes share; `None` for every default.
    pub zeek: Option<Box<Zeek>>,
    /// Only in a share: the Zeek nodes of other instances, if there are some that are to know them.
    pub peers: Vec<Peer>,
    /// Only in a share: by what its Zeek nodes encrypt what they say, if they may.
    pub keys: Option<Box<CurveKeys>>,
}

impl Configuration {
    /// A configuration in which nothing exists.
    pub fn empty(id: ConfigurationId) -> Self {
        Self { id, instances: Vec::new(), nodes: Vec::new(), zeek: None, peers: Vec::new(), keys: None }
    }

    /// What the agent of `instance` needs to know: every instance, the nodes that are its own, and of the others what its
    /// Zeek nodes must know: but for their keys, which no configuration has before it is told.
    pub fn share_of(&self, instance: &InstanceName) -> Self {
        let nodes: Vec<_> = self.nodes.iter().filter(|node| node.instance == *instance).cloned().collect();
        let elsewhere = |peer: &Peer| peer.instance != *instance;
        let peers = match nodes.iter().any(|node| node.is_in_zeek_cluster()) {
            true => self.zeek_cluster().filter(elsewhere).collect(),
            false => Vec::new(),
        };
        let (id, instances, zeek) = (self.id.clone(), self.instances.clone(), self.zeek.clone());
        Self { id, instances, nodes, zeek, peers, keys: None }
    }

    /// The declared instance of that name.
    pub fn instance(&self, name: &InstanceName) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == *name)
    }
}

/// One machine, run by one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: InstanceName,
    /// Its address; `None` until its agent has connected, if the configuration does not say.
    pub host: Option<IpAddr>,
    /// Where its agent listens for the controller. Set: the controller dials. `None`: the agent dials.
    pub port: Option<u16>,
}

/// What a node is for. The order of the variants is the order of starting; stopping is the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    Logger,
    Manager,
    Proxy,
    Worker,
    /// No role in a Zeek cluster: any other program.
    None,
}

impl Role {
    /// Every role, in the order of starting.
    pub const ALL: [Self; 5] = [Self::Logger, Self::Manager, Self::Proxy, Self::Worker, Self::None];

    /// The role in lower case, as cluster files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logger => "logger",
            Self::Manager => "manager",
            Self::Proxy => "proxy",
            Self::Worker => "worker",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One process that should exist: its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    /// The instance that runs it.
    pub instance: InstanceName,
    pub role: Role,
    /// The state it should be in. Clients always send RUNNING, and nothing else has an effect.
    pub state: NodeState,
    /// Where it listens for other nodes.
    pub port: Option<u16>,
    /// Where it serves its metrics.
    pub metrics_port: Option<u16>,
    /// Zeek scripts to load.
    pub scripts: Vec<String>,
    /// Zeek options, by name.
    pub options: BTreeMap<String, String>,
    /// The network interface to read.
    pub interface: Option<String>,
    /// The CPUs it may run on; `None` is those of its agent.
    pub cpu_affinity: Option<Cpus>,
    /// Added to its environment; wins over what is inherited.
    pub env: BTreeMap<String, String>,
    /// Program and arguments; empty for a Zeek node, whose command line its agent makes.
    pub command: Vec<String>,
    /// Working directory, absolute; `None` for a directory of the node's own under the agent's state directory.
    pub directory: Option<String>,
    /// The user it runs as; `None` for the agent's own.
    pub user: Option<String>,
    /// What else its process is given and denied; `None` if that is nothing.
    pub run_as: Option<Box<RunAs>>,
    /// Files that travel with it; `None` if there are none.
    pub files: Option<Box<NodeFiles>>,
    /// What only a Zeek node has; `None` if that is nothing.
    pub zeek: Option<Box<ZeekNode>>,
    pub restart: RestartPolicy,
    pub ready: Ready,
    /// How it shows that it does not hang; `None` if nobody watches.
    pub liveness: Option<Box<Liveness>>,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// How much of its output is kept; `None` if it follows its agent in everything.
    pub output: Option<Box<OutputWish>>,
}

impl Node {
    /// A node with every optional thing left out and every default taken.
    pub fn new(name: NodeName, instance: InstanceName, role: Role) -> Self {
        Self {
            name,
            instance,
            role,
            state: NodeState::Running,
            port: None,
            metrics_port: None,
            scripts: Vec::new(),
            options: BTreeMap::new(),
            interface: None,
            cpu_affinity: None,
            env: BTreeMap::new(),
            command: Vec::new(),
            directory: None,
            user: None,
            run_as: None,
            files: None,
            zeek: None,
            restart: RestartPolicy::default(),
            ready: Ready::default(),
            liveness: None,
            stop_grace: Duration::from_secs(10),
            output: None,
        }
    }
}

/// When and how often a node that exited unasked is started again.
///
/// The first restart is immediate; the n-th after that waits `delay * factor^(n-1)`, at most `max_delay`, and by chance up
/// to `jitter` of that less. A node that was RUNNING for `stable` starts counting anew. More than `limit` restarts within
/// `window` end in FAILED.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub mode: RestartMode,
    /// Before the second restart in a row.
    pub delay: Duration,
    /// By how much each wait is longer than the one before.
    pub factor: Factor,
    /// The longest wait between restarts.
    pub max_delay: Duration,
    /// How much of a wait chance may take off, in hundredths: nodes that died together do not come back together.
    pub jitter: u8,
    /// How long a node must be RUNNING for its earlier crashes to be forgotten.
    pub stable: Duration,
    /// How many restarts `window` may hold; 0 means no limit.
    pub limit: u32,
    /// The time over which `limit` counts.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            mode: RestartMode::Always,
            delay: Duration::from_millis(500),
            factor: Factor::TWO,
            max_delay: Duration::from_secs(60),
            jitter: 10,
            stable: Duration::from_secs(30),
            limit: 10,
            window: Duration::from_secs(600),
        }
    }
}

/// A number from 1 to 100, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Factor(u32);

impl Factor {
    pub const TWO: Self = Self(200);

    /// Whether it is within its bounds: what comes over a link may not be.
    pub fn is_sound(self) -> bool {
        (100..=10_000).contains(&self.0)
    }

    /// `time` that many times longer; the longest there is rather than none.
    pub fn times(self, time: Duration) -> Duration {
        time.checked_mul(self.0).map_or(Duration::MAX, |time| time / 100)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match (hundredths, hundredths % 10) {
            (0, _) => write!(f, "{whole}"),
            (_, 0) => write!(f, "{whole}.{}", hundredths / 10),
            _ => write!(f, "{whole}.{hundredths:02}"),
        }
    }
}

impl FromStr for Factor {
    type Err = NoFactor;

    fn from_str(text: &str) -> Result<Self, NoFactor> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| digits(text));
        let hundredths = match rest.len() {
            1 => number(rest).map(|tenths| tenths * 10),
            2 => number(rest),
            _ => None,
        };
        let factor = number(whole).zip(hundredths).map(|(whole, hundredths)| Self(whole * 100 + hundredths));
        factor.filter(|factor| factor.is_sound()).ok_or(NoFactor)
    }
}

/// Why a text is no [`Factor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a number from 1 to 100 with at most two decimals, such as 2 or 1.5")]
pub struct NoFactor;

/// Which ends of a process ask for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartMode {
    /// Every end that nobody asked for.
    Always,
    /// An exit status other than 0, a signal, or an unknown end. A clean exit leaves the node STOPPED.
    OnFailure,
    /// None. A failure leaves the node FAILED, a clean exit leaves it STOPPED.
    Never,
}

/// When a node that was launched counts as ready, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub by: ReadyBy,
    /// The node's own deadline, counted from its launch; `None` for the usual one. Missing it fails the order; a node that
    /// is to give a sign and did not is CRASHED, and started again as its restart policy says.
    pub within: Option<Duration>,
}

impl Node {
    /// The sign by which it is known to be ready; never [`ReadyBy::Usual`].
    pub fn ready_by(&self) -> ReadyBy {
        match (&self.ready.by, self.is_zeek()) {
            (ReadyBy::Usual, true) => ReadyBy::Zeek,
            (ReadyBy::Usual, false) => ReadyBy::Settle(Ready::SETTLE),
            (given, _) => given.clone(),
        }
    }

    /// How long that may take, from its launch.
    pub fn ready_within(&self) -> Duration {
        let usual = || if self.ready_by() == ReadyBy::Zeek { Ready::ZEEK_WITHIN } else { Ready::WITHIN };
        self.ready.within.unwrap_or_else(usual)
    }
}

impl Ready {
    /// How long a node settles.
    pub const SETTLE: Duration = Duration::from_millis(500);
    /// How long most nodes may take, and how long Zeek may, which reads its scripts first.
    pub const WITHIN: Duration = Duration::from_secs(10);
    pub const ZEEK_WITHIN: Duration = Duration::from_secs(60);
}

impl Default for Ready {
    fn default() -> Self {
        Self { by: ReadyBy::Usual, within: None }
    }
}

/// The sign by which a node is known to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadyBy {
    /// It stayed up this long.
    Settle(Duration),
    /// A connection to this TCP port on 127.0.0.1 was accepted.
    Port(u16),
    /// A connection to this address was accepted.
    Tcp(SocketAddr),
    /// It said so: `READY=1` on the socket that `NOTIFY_SOCKET` in its environment names.
    Notify,
    /// Zeek said hello by the channel of its node.
    Zeek,
    /// What is usual: for a Zeek node its hello, and for any other that it stayed up for half a second.
    Usual,
}

impl ReadyBy {
    /// Where a connection is to be accepted, if that is the sign.
    pub fn address(&self) -> Option<SocketAddr> {
        match *self {
            Self::Port(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
            Self::Tcp(address) => Some(address),
            Self::Settle(_) | Self::Notify | Self::Zeek | Self::Usual => None,
        }
    }

    /// What did not happen while the sign was missed, in words.
    pub fn missed(&self) -> Option<String> {
        match self {
            Self::Settle(_) | Self::Usual => None,
            Self::Zeek => Some("Zeek did not say hello".into()),
            Self::Notify => Some("it did not say READY=1".into()),
            Self::Port(_) | Self::Tcp(_) => self.address().map(|address| format!("nothing accepts at {address}")),
        }
    }
}

/// How a node that is RUNNING shows that it does not hang. One that hangs is ended, CRASHED, and started again as its
/// restart policy says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Liveness {
    /// It says `WATCHDOG=1` on its socket, or gives a heartbeat if it is a Zeek node, never this long apart. Zero: it need
    /// not, also if it is a Zeek node.
    pub watchdog: Option<Duration>,
    pub probe: Option<Probe>,
}

/// A question that is put to a node again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub by: ProbeBy,
    /// From one answer to the next question, and before the first.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After so many failures in a row it hangs.
    pub failures: u32,
}

impl Probe {
    /// The question with the default of everything else.
    pub fn new(by: ProbeBy) -> Self {
        Self { by, interval: Duration::from_secs(10), timeout: Duration::from_secs(5), failures: 3 }
    }
}

/// What is asked of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeBy {
    /// To accept a connection to this TCP port on 127.0.0.1.
    Port(u16),
    /// To accept a connection to this address.
    Tcp(SocketAddr),
    /// That this program, run as the node is, exits with status 0.
    Exec(Vec<String>),
}

impl ProbeBy {
    /// Where a connection is to be accepted, if that is the question.
    pub fn address(&self) -> Option<SocketAddr> {
        match *self {
            Self::Port(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
            Self::Tcp(address) => Some(address),
            Self::Exec(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_read_back_as_they_were_written() {
        for text in ["1", "2", "1.5", "1.05", "99.99", "100"] {
            assert_eq!(text.parse::<Factor>().unwrap().to_string(), text);
        }
        assert_eq!("1.50".parse::<Factor>().unwrap().to_string(), "1.5");
        for text in ["", "0", "0.99", "100.01", "1.", ".5", "1.234", "-1", "+2", "x", "1e2", "1000"] {
            assert_eq!(text.parse::<Factor>(), Err(NoFactor), "{text}");
        }
    }

    #[test]
    fn a_wait_that_grows_beyond_all_time_is_the_longest() {
        let factor: Factor = "1.5".parse().unwrap();
        assert_eq!(factor.times(Duration::from_secs(2)), Duration::from_secs(3));
        assert_eq!(Factor::TWO.times(Duration::MAX), Duration::MAX);
    }
}

//! What is true of a node, and what came of an order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InstanceName, NetStats, NodeName, Role, Text, Timestamp};

/// The state of a node as the world sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Its launch was asked for, and it is not ready yet; it has a pid once the process exists.
    Pending,
    /// Ready.
    Running,
    /// Not running, on request.
    Stopped,
    /// Exited unasked; will be retried.
    Crashed,
    /// Given up; waits for a person.
    Failed,
    /// Its agent is out of reach. Never a guess at anything else.
    Unknown,
}

impl NodeState {
    /// Every state, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Stopped, Self::Crashed, Self::Failed, Self::Unknown];

    /// The state in upper case, as it is printed and sent everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::Crashed => "CRASHED",
            Self::Failed => "FAILED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A node's incarnation: counted up at every launch and kept on disk. Pids come back, lives do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Life(pub u64);

impl Life {
    /// The life after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this status, 0 to 255.
    Status(i32),
    /// This signal ended it.
    Signal { number: i32, core_dumped: bool },
    /// It is gone, and nobody can say how (it was not our child).
    Unknown,
    /// The kernel killed it, by SIGKILL, because its group or the machine ran out of memory.
    OutOfMemory,
}

impl Exit {
    /// Whether a restart policy of `on-failure` counts this as a failure. An unknown end counts as one.
    pub fn is_failure(self) -> bool {
        self != Self::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal { number, core_dumped } => {
                write!(f, "killed by signal {number}")?;
                if let Some(name) = signal_name(*number) {
                    write!(f, " ({name})")?;
                }
                if *core_dumped { f.write_str(", core dumped") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("ended, nobody knows how"),
            Self::OutOfMemory => f.write_str("killed by the kernel: out of memory"),
        }
    }
}

/// The usual name of a Linux signal number, of those that end processes in practice.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// The last lines that a node wrote: at most 100 of each stream, 16 KiB together, the oldest dropped first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

/// One node as its agent, or the controller's copy, knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: NodeName,
    pub instance: InstanceName,
    pub role: Role,
    pub state: NodeState,
    /// Set while a process exists.
    pub pid: Option<u32>,
    pub port: Option<u16>,
    pub metrics_port: Option<u16>,
    /// How often the node was started again without being asked, since its agent took it up.
    pub restarts: u32,
    /// When `state` was entered.
    pub since: Timestamp,
    /// Why it is in this state, in words; may be empty.
    pub reason: Text,
    /// What its present process says of itself (`STATUS=` of `sd_notify`); may be empty.
    pub says: Text,
    /// What its present process counts, if it is Zeek.
    pub netstats: Option<Box<NetStats>>,
}

impl NodeStatus {
    /// The reason of a node that is STOPPED though nobody stopped it: its agent has not started it.
    pub const NOT_STARTED: &str = "not started yet";

    /// This is its process now, if any; what another one said of itself ends with that.
    pub fn enter(&mut self, pid: Option<u32>) {
        if pid.is_none() || pid != self.pid {
            (self.says, self.netstats) = (Text::default(), None);
        }
        self.pid = pid;
    }
}

/// What came of an order, for one node, one instance, or the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The instance concerned; `None` speaks for the controller.
    pub instance: Option<InstanceName>,
    /// The node concerned; `None` speaks for the whole instance.
    pub node: Option<NodeName>,
    /// `None` is success; else what went wrong, in words.
    pub error: Option<String>,
    /// The last output of a node that failed, if it wrote any.
    pub output: Option<Output>,
}

impl Outcome {
    /// Whether it went well.
    pub fn is_success(&self) -> bool {
        self.error.is_none()
    }

    /// A node of `instance` did what was asked.
    pub fn node_done(instance: &InstanceName, node: &NodeName) -> Self {
        Self { instance: Some(instance.clone()), node: Some(node.clone()), error: None, output: None }
    }

    /// A node of `instance` did not.
    pub fn node_failed(instance: &InstanceName, node: &NodeName, error: String, output: Option<Output>) -> Self {
        Self { instance: Some(instance.clone()), node: Some(node.clone()), error: Some(error), output }
    }

    /// The instance as a whole did what was asked.
    pub fn instance_done(instance: &InstanceName) -> Self {
        Self { instance: Some(instance.clone()), node: None, error: None, output: None }
    }

    /// The instance as a whole did not.
    pub fn instance_failed(instance: &InstanceName, error: impl Into<String>) -> Self {
        Self { instance: Some(instance.clone()), node: None, error: Some(error.into()), output: None }
    }

    /// A complaint of the controller's own, about no instance in particular.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { instance: None, node: None, error: Some(error.into()), output: None }
    }

    /// A node that no instance has.
    pub fn unknown_node(node: &NodeName) -> Self {
        Self { instance: None, node: Some(node.clone()), error: Some("unknown cluster node".into()), output: None }
    }
}

//! What is kept of a node that died unasked: one JSON file each, with the number of its format in front.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::core_file::CoreReport;
use crate::model::{
    Configuration, ConfigurationId, CrashSummary, Exit, InstanceName, Life, Node, NodeName, NodeState, Output,
    Timestamp, cluster_file,
};

/// The only format there is.
pub const FORMAT: u32 = 1;
/// The longest of its texts, in bytes.
const LONGEST: usize = 16 << 10;
/// The most names of variables.
const MOST_NAMES: usize = 500;

/// See the module. What is not known is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dossier {
    pub format: u32,
    pub id: String,
    /// When the agent heard of it, in RFC 3339.
    pub time: String,
    /// The same in microseconds since 1970.
    pub at: u64,
    pub instance: InstanceName,
    pub node: NodeName,
    pub life: u64,
    pub pid: u32,
    /// CRASHED or FAILED.
    pub state: String,
    pub reason: String,
    pub exit: Ending,
    /// It ended while no agent was there: when and how long it ran is not known.
    pub unwatched: bool,
    pub uptime_milliseconds: Option<u64>,
    /// The most memory that it, or a child that it waited for, had at once (`ru_maxrss`): at least what the agent had when
    /// it launched it. Of one that another agent launched, what Zeek said of that last.
    pub largest_resident_bytes: Option<u64>,
    /// The most that its control group had at once since it was made (`memory.peak`): all that was in it, also in former
    /// lives.
    pub group_peak_bytes: Option<u64>,
    /// What the kernel said of the memory that it lacked.
    pub out_of_memory: Option<String>,
    pub core: Option<CoreReport>,
    pub backtrace: Option<String>,
    /// Why there is no backtrace.
    pub no_backtrace: Option<String>,
    pub stdout: String,
    pub stderr: String,
    pub command: Vec<String>,
    pub directory: PathBuf,
    pub user: Option<String>,
    /// The names of its variables: their values may be secret.
    pub environment: Vec<String>,
    /// What the definition limits.
    pub limits: BTreeMap<String, String>,
    /// As a cluster file has it, without the values of variables.
    pub definition: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub text: String,
    pub status: Option<i32>,
    pub signal: Option<i32>,
    pub core_dumped: bool,
    /// The kernel killed it because memory ran out.
    pub out_of_memory: bool,
}

impl From<Exit> for Ending {
    fn from(exit: Exit) -> Self {
        let plain =
            Self { text: exit.to_string(), status: None, signal: None, core_dumped: false, out_of_memory: false };
        match exit {
            Exit::Status(status) => Self { status: Some(status), ..plain },
            Exit::Signal { number, core_dumped } => Self { signal: Some(number), core_dumped, ..plain },
            Exit::OutOfMemory => Self { signal: Some(SIGKILL), out_of_memory: true, ..plain },
            Exit::Unknown => plain,
        }
    }
}

/// By which the kernel kills for want of memory.
const SIGKILL: i32 = 9;

impl From<&Ending> for Exit {
    fn from(ending: &Ending) -> Self {
        match (ending.status, ending.signal) {
            _ if ending.out_of_memory => Self::OutOfMemory,
            (Some(status), _) => Self::Status(status),
            (None, Some(number)) => Self::Signal { number, core_dumped: ending.core_dumped },
            (None, None) => Self::Unknown,
        }
    }
}

/// What the dossier of this life is called.
pub fn id_of(node: &NodeName, life: Life) -> String {
    [node.as_str(), ".", &life.0.to_string()].concat()
}

/// What a process was given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub command: Vec<String>,
    pub directory: PathBuf,
    pub environment: Vec<String>,
}

impl Dossier {
    /// What there is to say of it before anybody looked any further.
    pub fn new(instance: &InstanceName, node: &Node, life: Life, pid: u32, exit: Exit, time: Timestamp) -> Self {
        Self {
            format: FORMAT,
            id: id_of(&node.name, life),
            time: time.to_string(),
            at: time.0,
            instance: instance.clone(),
            node: node.name.clone(),
            life: life.0,
            pid,
            state: NodeState::Crashed.to_string(),
            reason: String::new(),
            exit: exit.into(),
            unwatched: false,
            uptime_milliseconds: None,
            largest_resident_bytes: None,
            group_peak_bytes: None,
            out_of_memory: None,
            core: None,
            backtrace: None,
            no_backtrace: None,
            stdout: String::new(),
            stderr: String::new(),
            command: Vec::new(),
            directory: PathBuf::new(),
            user: node.user.clone(),
            environment: Vec::new(),
            limits: limits(node),
            definition: definition(node),
        }
    }

    pub fn with_output(self, Output { stdout, stderr }: Output) -> Self {
        Self { stdout, stderr, ..self }
    }

    pub fn with_given(self, Given { command, directory, mut environment }: Given) -> Self {
        environment.truncate(MOST_NAMES);
        let mut left = LONGEST;
        let short = |word: String| {
            let word = cut(word, left);
            left -= word.len();
            word
        };
        Self { command: command.into_iter().map(short).collect(), directory, environment, ..self }
    }

    /// What a list says of it.
    pub fn summary(&self) -> CrashSummary {
        let state = NodeState::ALL.into_iter().find(|state| state.as_str() == self.state);
        CrashSummary {
            id: self.id.clone(),
            instance: self.instance.clone(),
            node: self.node.clone(),
            time: Timestamp(self.at),
            pid: self.pid,
            exit: (&self.exit).into(),
            state: state.unwrap_or(NodeState::Crashed),
            reason: self.reason.as_str().into(),
            core: self.core.as_ref().is_some_and(|core| core.found.is_some()),
            backtrace: self.backtrace.is_some(),
        }
    }
}

/// The beginning of a text, of so many bytes at most.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn limits(node: &Node) -> BTreeMap<String, String> {
    let limits = node.run_as.iter().flat_map(|run_as| &run_as.limits);
    limits.map(|(resource, limit)| (resource.as_str().to_owned(), limit.to_string())).collect()
}

fn definition(node: &Node) -> String {
    let mut node = node.clone();
    node.env.values_mut().for_each(String::clear);
    // A short printable text.
    let Ok(id) = ConfigurationId::new("dossier") else { return String::new() };
    let configuration = Configuration { nodes: vec![node.into()], ..Configuration::empty(id) };
    cut(cluster_file::render(&configuration), LONGEST)
}

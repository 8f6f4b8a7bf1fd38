//! What is kept of nodes that died unasked.

use serde::{Deserialize, Serialize};

use super::{Exit, InstanceName, NodeName, NodeState, Text, Timestamp};

/// One such death, as a list has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashSummary {
    /// Names its dossier.
    pub id: String,
    pub instance: InstanceName,
    pub node: NodeName,
    /// When its agent heard of it.
    pub time: Timestamp,
    pub pid: u32,
    pub exit: Exit,
    /// CRASHED, or FAILED where it was given up.
    pub state: NodeState,
    pub reason: Text,
    /// Whether a core file was found.
    pub core: bool,
    /// Whether the dossier says where it died.
    pub backtrace: bool,
}

/// How much is kept of nodes that died unasked, and how it is looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashRules {
    /// How many dossiers are kept of each node; 0: none are made.
    pub keep: u32,
    /// How many bytes all dossiers of an agent may take.
    pub keep_bytes: u64,
    /// Whether a debugger is asked where it died, if there is one and a core file.
    pub backtrace: bool,
}

impl Default for CrashRules {
    fn default() -> Self {
        Self { keep: 20, keep_bytes: 16 << 20, backtrace: true }
    }
}

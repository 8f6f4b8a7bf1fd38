//! What a deployment would do to each node, before it does it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{InstanceName, NodeName, NodeState, Outcome};

/// What a deployment would do side by side, behind all that is named before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    pub phase: PlannedPhase,
    /// Sorted by name.
    pub nodes: Vec<NodeName>,
}

/// The part of a deployment in which nodes are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedPhase {
    /// They end where they are, to be started elsewhere.
    Moving,
    /// They become what they are to be.
    Switching,
    /// It has come into force: what is not wanted any more ends, and what rested is started.
    Committing,
}

impl fmt::Display for PlannedPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Moving => "moving",
            Self::Switching => "switching",
            Self::Committing => "committing",
        })
    }
}

/// What would become of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Its process stays.
    Keep,
    /// It has no process, and gets one. `was` is what it is now, if it is not new there but is to be another.
    Start { was: Option<NodeState> },
    /// Its process ends, and another one takes its place.
    Restart(Because),
    /// It ends where it is, and is started where it is to be. Only who knows all instances says so.
    Move { from: InstanceName },
    /// It is no longer wanted there.
    Stop,
    /// It rests as it is to be, and gets a process once all is in force.
    Revive { was: NodeState },
}

impl Action {
    /// Whether a process is launched.
    pub fn launches(&self) -> bool {
        !matches!(self, Self::Keep | Self::Stop)
    }
}

/// Why a node is started afresh. Printed as what follows "because ".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Because {
    /// The keys in which its own definition differs, as cluster files order them.
    pub keys: Vec<String>,
    /// What differs in the Zeek cluster that it must know, in words, such as `worker-8 joined the cluster`.
    pub cluster: Option<String>,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = (!self.keys.is_empty()).then(|| format!("of its {}", self.keys.join(", ")));
        let parts: Vec<String> = own.into_iter().chain(self.cluster.clone()).collect();
        f.write_str(&parts.join(", and because "))
    }
}

/// What would become of a node of an instance that speaks for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub node: NodeName,
    pub action: Action,
}

/// What an agent found when it looked at a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inspection {
    /// One for each node that it has or would have, sorted by name.
    pub steps: Vec<Step>,
    /// Why some of them cannot run there; empty if nothing stands in the way.
    pub complaints: Vec<Outcome>,
}

/// What would become of a node, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub instance: InstanceName,
    pub node: NodeName,
    pub action: Action,
}

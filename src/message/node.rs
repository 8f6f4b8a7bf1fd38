//! Agent ⇄ supervisor: one node's orders, and what its supervisor tells of it. Never leaves the agent's process.

use std::sync::Arc;

use actix::Message;

use crate::model::{Exit, Node, NodeName, NodeState, Output, Text};

/// Agent → supervisor: an order. Obeyed in the order of arrival; what comes of it is told by [`NodeReport`].
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum NodeOrder {
    /// Run, from now on. Also revives a node that was given up.
    Start,
    /// Do not run, from now on: SIGTERM, the node's grace, SIGKILL to the whole tree. Beats any pending restart.
    ///
    /// Answered by a report that the node is STOPPED and that names this ticket, also if it was so before.
    Stop {
        ticket: u64,
        /// Only until the next run of the agent, which is not to find that somebody asked.
        for_now: bool,
    },
    /// Do not wait out the grace of a stop under way: SIGKILL now.
    Hurry,
    /// This is the node's definition from its next launch on; where it was not known before, from now on.
    Redefine(Arc<Node>),
}

/// Supervisor → agent: the node's state or its process changed, or an order to stop was carried out. In order.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NodeReport {
    pub node: NodeName,
    pub new: NodeState,
    /// The process that runs, or that just ended.
    pub pid: Option<u32>,
    /// How it ended, if the change is its end.
    pub exit: Option<Exit>,
    /// Which restart in a row; 0 for a launch that was asked for.
    pub attempt: u32,
    /// Unasked restarts in this supervisor's life.
    pub restarts: u32,
    /// Why, in words.
    pub reason: Text,
    /// The last lines it wrote, if it failed and wrote any.
    pub output: Option<Box<Output>>,
    /// The order to stop that this answers.
    pub ticket: Option<u64>,
}

impl NodeReport {
    fn plain(node: NodeName, new: NodeState, pid: Option<u32>, reason: &str) -> Self {
        let reason = reason.into();
        Self { node, new, pid, exit: None, attempt: 0, restarts: 0, reason, output: None, ticket: None }
    }

    /// The last of a node that leaves the configuration.
    pub fn removal(node: NodeName) -> Self {
        Self::plain(node, NodeState::Stopped, None, "removed from the configuration")
    }

    /// A node whose definition was not known has got one.
    pub fn defined(node: NodeName, state: NodeState, pid: Option<u32>) -> Self {
        Self::plain(node, state, pid, "found by its marker, and defined again")
    }

    /// What a new supervisor found of a node whose former one panicked.
    pub fn found(node: NodeName, state: NodeState, pid: Option<u32>) -> Self {
        Self::plain(node, state, pid, "found so by its new supervisor")
    }
}

//! Agent ⇄ supervisor: one node's orders, and what its supervisor tells of it. Never leaves the agent's process.

use actix::Message;

use crate::model::{Exit, NodeName, NodeState, Output};

/// Agent → supervisor: an order. Obeyed in the order of arrival; what comes of it is told by [`NodeReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum NodeOrder {
    /// Run, from now on. Also revives a node that was given up.
    Start,
    /// Do not run, from now on: SIGTERM, the node's grace, SIGKILL to the whole tree. Beats any pending restart.
    Stop,
    /// End what runs, if anything does, and start afresh.
    Restart,
    /// Do not wait out the grace of a stop under way: SIGKILL now.
    Hurry,
}

/// Supervisor → agent: the node's state changed. Sent once per change, in order.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NodeReport {
    pub node: NodeName,
    pub old: NodeState,
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
    pub reason: String,
    /// The last lines it wrote, if it failed and wrote any.
    pub output: Option<Output>,
}

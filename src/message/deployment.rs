//! Controller ⇄ agent: the steps of a deployment. First every agent looks at what is to come, and touches nothing; then nodes
//! are switched, some at a time; in the end the configuration comes into force by a [`CommitConfigurationRequest`], or, where
//! it is not at hand, by a [`SetConfigurationRequest`](super::agent::SetConfigurationRequest); or what was in force before
//! comes back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::agent::Share;
use crate::model::{ConfigurationId, NodeName, Outcome, RequestId, Role};

/// Controller → agent: could this come into force? The agent looks at everything, lays down what its nodes will need, and
/// keeps the configuration at hand. Nothing that runs is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: Share,
}

/// Agent → controller: everything there is to object, or one outcome for the instance if there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfigurationResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
    /// The nodes that would be started, or stopped and started afresh, sorted by name.
    pub changes: Vec<CheckedChange>,
}

/// A node that would be started by a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckedChange {
    pub node: NodeName,
    pub role: Role,
    /// It is there already, and would be stopped first.
    pub runs: bool,
    /// What it shares with other nodes of the instance, such as an interface: one of them is to go on meanwhile.
    pub shares: Option<String>,
}

/// Controller → agent: these nodes are to be as they are in the configuration that was checked last, or, where that came to
/// nothing, in the one that is in force again. Others go on.
///
/// Answered by [`SwitchNodesResponse`] when each is ready, or will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchNodesRequest {
    pub reqid: RequestId,
    pub configuration: ConfigurationId,
    pub nodes: BTreeSet<NodeName>,
    /// Nodes that somebody has stopped meanwhile: they stay down, also where they have to change together with one of those.
    pub rest: BTreeSet<NodeName>,
}

/// Agent → controller: what became of each of the nodes, sorted by name; a failed one brings its last output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchNodesResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Controller → agent: what you looked at comes into force, as by a
/// [`SetConfigurationRequest`](super::agent::SetConfigurationRequest) that brings it.
///
/// An id may be looked at twice with different contents: so it names the request that brought them, too, and each request
/// brings one agent the same ones whenever it comes. Answered by
/// [`SetConfigurationResponse`](super::agent::SetConfigurationResponse), or by [`NotAtHand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: ConfigurationId,
    /// Of the [`CheckConfigurationRequest`].
    pub checked: RequestId,
    /// Nodes that somebody has stopped meanwhile: they stay down.
    pub rest: BTreeSet<NodeName>,
}

/// Agent → controller: what is to come into force by that request is not at hand, or not any more, and nothing was done. Send
/// it whole, under the same `reqid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotAtHand {
    pub reqid: RequestId,
}

/// Controller → agent: the deployment came to nothing, and this is in force as it was before. What did not change goes on.
///
/// What serves goes on, too, until its turn comes by a [`SwitchNodesRequest`]: what is down, or not ready, goes back at once.
/// Nobody objects to it any more. Answered by [`RestoreConfigurationResponse`] when that is as it was, or will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: Share,
    /// Of the nodes that the deployment touched, those that were to run before.
    pub up: BTreeSet<NodeName>,
    /// Nobody has a turn of its own: all go back now.
    pub at_once: bool,
}

/// Agent → controller: what became of each node that had to go back, sorted by name; or one outcome for the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreConfigurationResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
    /// The nodes that serve, and wait for their turn to go back; sorted by name.
    pub waiting: Vec<CheckedChange>,
}

//! Client ⇄ controller: what a deployment would do. Part of [`super::client`].

use std::collections::BTreeSet;

use crate::model::{Configuration, ConfigurationId, InstanceName, Outcome, Planned, PlannedStep, RequestId};

/// What would a deployment of this configuration do, and what stands in its way? Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRequest {
    pub reqid: RequestId,
    /// What could be understood of it, if something is wrong with it.
    pub configuration: Configuration,
    /// What whoever read it complains of. If that is nothing, the controller looks for itself.
    pub complaints: Vec<String>,
    /// Whether it would be told to all agents at once, in place of so many nodes at a time.
    pub all_at_once: bool,
    /// Instances that nobody would wait for: their agents are not asked.
    pub without: BTreeSet<InstanceName>,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanResponse {
    pub reqid: RequestId,
    pub plan: Box<ClusterPlan>,
}

/// What a deployment would do, as far as is known, and everything that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// What is deployed now.
    pub deployed: Deployed,
    /// Those that are needed now or would be, sorted by name.
    pub instances: Vec<PlannedInstance>,
    /// Every node that there is or would be, sorted by instance and name; none where there are complaints.
    pub nodes: Vec<Planned>,
    /// In which order their processes would be touched, at the pace of the controller's settings.
    pub steps: Vec<PlannedStep>,
    /// What is wrong with the configuration itself: no deployment of it is begun.
    pub complaints: Vec<String>,
    /// What would not work, sorted as all outcomes are; empty if nothing is known to.
    pub outcomes: Vec<Outcome>,
}

/// What a client takes to be deployed; `None`: nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deployed(pub Option<ConfigurationId>);

/// What would become of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedInstance {
    pub name: InstanceName,
    pub change: PlannedLink,
    /// Why its agent did not look, and what is said of its nodes follows from what is deployed; `None`: it did.
    pub unchecked: Option<String>,
}

/// What would become of an instance's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedLink {
    Added,
    Kept,
    /// Kept, and the controller reaches it in another way.
    Reconnected,
    Removed,
}

//! Deployments as the API shows them: the one in progress, and those before.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::json::{Outcome, Verdict as Answered};
use crate::message::client::DeploymentStatus;
use crate::model::{self, Configuration, InstanceName, NodeName, Record};
use crate::plan::{self, NodeChange};

/// A deployment in progress, or one that instances have yet to follow; part of `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Deployment {
    pub number: u64,
    pub reqid: String,
    /// Who deploys, such as ``token `ops` ``, and the address that it came from.
    pub who: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub since: String,
    pub configuration: String,
    /// `gathering`, `checking`, `moving`, `switching`, `deciding`, `committing`, `going back` or `following`.
    pub phase: String,
    /// `open` until it is decided; then `deployed` or `rolled-back`.
    pub verdict: String,
    /// How many nodes are switched, of how many.
    pub switched: usize,
    pub to_switch: usize,
    /// Nodes that are being switched, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<String>,
    /// Instances that are waited for, or that have yet to follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owing: Vec<String>,
}

impl From<DeploymentStatus> for Deployment {
    fn from(status: DeploymentStatus) -> Self {
        Self {
            number: status.number,
            reqid: status.reqid.to_string(),
            who: status.author.who,
            from: status.author.from.map(|from| from.to_string()),
            since: status.began.to_string(),
            configuration: status.configuration.to_string(),
            phase: status.phase.to_string(),
            verdict: status.verdict.to_string(),
            switched: status.switched,
            to_switch: status.to_switch,
            under_way: status.under_way.iter().map(NodeName::to_string).collect(),
            owing: status.owing.iter().map(InstanceName::to_string).collect(),
        }
    }
}

/// `GET /api/v1/history`: the deployments that are remembered, the first one first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    pub deployments: Vec<Past>,
}

/// `GET /api/v1/history/{number}`: one deployment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Past {
    pub number: u64,
    /// By what whoever deployed may know it.
    #[serde(default)]
    pub reqid: String,
    pub who: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub began: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How long it took, by the controller's wall clock; absent as long as it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    pub configuration: String,
    /// What was in force before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// The deployment whose configuration it was to bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
    /// `open`, `deployed`, `rolled-back` or `refused`.
    pub verdict: String,
    /// Instances that had yet to follow when it was over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owing: Vec<String>,
    /// Of how many nodes and instances something failed, of how many that there are results of.
    pub failed: u64,
    pub results_in_all: u64,
    /// What became of its nodes, and what was objected; at most 1000, failures first. What names neither node nor instance
    /// is the controller's own line. Only of one that was asked for alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Told>,
}

/// One result of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Absent is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Record> for Past {
    fn from(record: Record) -> Self {
        let micros = record.ended.map(|ended| ended.0.saturating_sub(record.began.0));
        // The controller's own line is no result of anybody.
        let is_of_somebody = |outcome: &&model::Outcome| outcome.node.is_some() || outcome.instance.is_some();
        // Of one that failed it may stand beside that it is as before.
        let place = |outcome: &'_ model::Outcome| (outcome.node.clone(), outcome.instance.clone());
        let results = record.results.iter().filter(is_of_somebody);
        let failed = results.clone().filter(|outcome| !outcome.is_success()).map(place);
        let failed = failed.collect::<BTreeSet<_>>().len() as u64;
        let results_in_all = results.map(place).collect::<BTreeSet<_>>().len() as u64 + record.left_out;
        let told = |outcome: model::Outcome| Told {
            instance: outcome.instance.map(|name| name.to_string()),
            node: outcome.node.map(|name| name.to_string()),
            error: outcome.error,
        };
        Self {
            number: record.number,
            reqid: record.reqid.to_string(),
            who: record.author.who,
            from: record.author.from.map(|from| from.to_string()),
            began: record.began.to_string(),
            ended: record.ended.map(|ended| ended.to_string()),
            seconds: micros.map(|micros| micros as f64 / 1e6),
            configuration: record.configuration.to_string(),
            former: record.former.map(|former| former.to_string()),
            back_to: record.back_to,
            verdict: record.verdict.to_string(),
            owing: record.owing.iter().map(InstanceName::to_string).collect(),
            failed,
            results_in_all,
            results: record.results.into_iter().map(told).collect(),
        }
    }
}

/// `GET /api/v1/history/{number}/diff/{other}`: what changes from what one deployed to what the other deployed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difference {
    pub from: u64,
    pub to: u64,
    pub instances_added: Vec<String>,
    pub instances_removed: Vec<String>,
    /// Sorted by name.
    pub nodes: Vec<Differing>,
}

/// A node that differs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Differing {
    pub node: String,
    /// `added`, `removed` or `changed`.
    pub how: String,
    /// In which keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Which of its files, each behind `+`, `-` or `~`; or why that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

impl Difference {
    /// What leads from the one to the other.
    pub fn between((from, have): (u64, &Configuration), (to, want): (u64, &Configuration)) -> Self {
        let names = |configuration: &Configuration, other: &Configuration| {
            let instances = configuration.instances.iter().filter(|it| other.instance(&it.name).is_none());
            instances.map(|instance| instance.name.to_string()).collect()
        };
        let differing = |change: NodeChange<'_>| {
            let (how, keys) = match &change {
                NodeChange::Keep(_) => return None,
                NodeChange::Start(_) => ("added", Vec::new()),
                NodeChange::Remove(_) => ("removed", Vec::new()),
                NodeChange::Replace { keys, .. } => ("changed", keys.iter().map(|key| (*key).to_owned()).collect()),
            };
            Some(Differing { node: change.name().to_string(), how: how.into(), keys, files: Vec::new() })
        };
        Self {
            from,
            to,
            instances_added: names(want, have),
            instances_removed: names(have, want),
            nodes: plan::diff::nodes(&have.nodes, &want.nodes).into_iter().filter_map(differing).collect(),
        }
    }
}

/// The answer to whoever deploys: its verdict, and the number that the deployment has in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    #[serde(flatten)]
    pub verdict: Answered,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
}

impl Deployed {
    /// That it has begun, and nobody waits for it.
    pub fn begun(number: u64) -> Self {
        let verdict = Answered { ok: true, configuration: None, outcomes: Vec::new() };
        Self { verdict, deployment: Some(number) }
    }
}

/// The answer once more, as far as it is kept: without what nodes wrote.
impl From<&Past> for Deployed {
    fn from(past: &Past) -> Self {
        let is_in_force = past.verdict == "deployed";
        let outcome = |told: &Told| {
            let Told { instance, node, error } = told.clone();
            Outcome { instance, node, error, unreachable: false, output: None }
        };
        let verdict = Answered {
            ok: is_in_force && past.failed == 0,
            configuration: is_in_force.then(|| past.configuration.clone()),
            outcomes: past.results.iter().map(outcome).collect(),
        };
        Self { verdict, deployment: Some(past.number) }
    }
}

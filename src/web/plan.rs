//! `POST /api/v1/plan`: what a deployment would do, and everything that stands in its way.

use std::collections::BTreeSet;

use actix_web::web::{Data, Json, Query};
use serde::{Deserialize, Serialize};

use super::Reader;
use super::changed::{Bundles, ChangedFiles};
use super::configuration::{self, Checked};
use super::deployments::named;
use super::desk::{Desk, new_reqid, random_hex};
use super::json::{ConfigurationText, Outcome};
use super::problem::Problem;
use crate::message::client::{
    ClusterPlan, Deployed, GetConfigurationRequest, PlanRequest, PlannedInstance, PlannedLink,
};
use crate::model::{self, Action, Because, ConfigurationId, InstanceName, Planned, PlannedStep};

/// How many files of a node are named: all of ten thousand nodes would be too many.
const MOST_FILES: usize = 5;

/// What a deployment would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Whether nothing is known to stand in its way.
    pub ok: bool,
    /// The id of the deployed configuration, with which it was compared; null if there was none.
    pub deployed: Option<String>,
    /// Sorted by name.
    pub instances: Vec<Instance>,
    /// Sorted by instance and name.
    pub nodes: Vec<Node>,
    /// In which order they would be touched, one step behind the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What is wrong with the file itself, each with its line; no deployment of it is begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
    /// What would not work on the machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
}

/// Nodes that would be touched side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `moving`, `switching` or `committing`.
    pub phase: String,
    /// Sorted.
    pub nodes: Vec<String>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: String,
    /// `added`, `kept`, `reconnected` or `removed`.
    pub change: String,
    /// Why its agent did not look: what is said of its nodes follows from what is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub instance: String,
    /// `keep`, `start`, `restart`, `move` or `stop`.
    pub action: String,
    /// The state of one to be started that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Where it moves from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The keys for which it is restarted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What in its Zeek cluster it is restarted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The first of its files that are others, each behind `+`, `-` or `~`; or why that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_files: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a client takes to be deployed: beside a configuration that is to be deployed upon nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upon {
    /// The id of a configuration; null: that there is none.
    pub deployed: Option<String>,
}

impl Upon {
    pub(super) fn read(&self) -> Result<Deployed, Problem> {
        Ok(Deployed(self.deployed.as_deref().map(ConfigurationId::new).transpose()?))
    }
}

/// How it would be deployed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Everything at once, in place of so many nodes at a time.
    #[serde(default)]
    all_at_once: bool,
    /// Instances that nobody would wait for, with commas between them.
    without: Option<String>,
}

pub(super) async fn plan(
    desk: Data<Desk>,
    reader: Data<Reader>,
    wish: Query<Wish>,
    body: Json<ConfigurationText>,
) -> Result<Json<Plan>, Problem> {
    let without = named(wish.without.as_deref())?;
    let found = configuration::found(&body)?;
    let ConfigurationText { file, text, upon, .. } = body.into_inner();
    if upon.is_some() {
        return Err(Problem::Malformed(
            "`upon` is for what is deployed at once: a plan says upon what it was made".into(),
        ));
    }
    let id = ConfigurationId::new(&random_hex()?)?;
    let Checked { configuration, complaints } =
        configuration::check_with(&text, &file, &reader.hostname, id, &reader.ports, found);
    let wanted = Bundles::of(&configuration);
    let all_at_once = wish.all_at_once;
    let reqid = new_reqid()?;
    let answer = desk.ask(PlanRequest { reqid, configuration, complaints, all_at_once, without }).await?;
    let mut plan = Plan::from(*answer.plan);
    name_files(&desk, wanted, &mut plan).await?;
    Ok(Json(plan))
}

/// Says of nodes that are restarted for their files which of these are others.
async fn name_files(desk: &Desk, wanted: Bundles, plan: &mut Plan) -> Result<(), Problem> {
    let is_meant = |node: &Node| node.keys.iter().any(|key| key == "files");
    if !plan.nodes.iter().any(is_meant) {
        return Ok(()); // mostly, and then nobody is asked
    }
    let request = GetConfigurationRequest { reqid: new_reqid()?, deployed: true };
    // Where something else was deployed meanwhile, what it was compared with is not known any more.
    let Ok(have) = desk.ask(request).await?.configuration else { return Ok(()) };
    if plan.deployed.as_deref() != Some(have.id.as_str()) {
        return Ok(());
    }
    let mut files = ChangedFiles::between(desk, Bundles::of(&have), wanted);
    for node in plan.nodes.iter_mut().filter(|node| is_meant(node)) {
        let all = files.of(&node.name).await?;
        node.files = all.iter().take(MOST_FILES).cloned().collect();
        node.more_files = all.len().saturating_sub(MOST_FILES) as u64;
    }
    Ok(())
}

impl From<ClusterPlan> for Plan {
    fn from(plan: ClusterPlan) -> Self {
        let ClusterPlan { deployed: Deployed(deployed), instances, nodes, steps, complaints, outcomes } = plan;
        let silent = instances.iter().filter(|instance| instance.unchecked.is_some());
        let silent: BTreeSet<InstanceName> = silent.map(|instance| instance.name.clone()).collect();
        let outcome = |outcome: model::Outcome| {
            let unreachable =
                outcome.node.is_none() && outcome.instance.as_ref().is_some_and(|name| silent.contains(name));
            Outcome::of(outcome, unreachable)
        };
        Self {
            ok: complaints.is_empty() && outcomes.is_empty(),
            deployed: deployed.map(|id| id.to_string()),
            instances: instances.into_iter().map(Instance::from).collect(),
            nodes: nodes.into_iter().map(Node::from).collect(),
            steps: steps.into_iter().map(Step::from).collect(),
            complaints,
            outcomes: outcomes.into_iter().map(outcome).collect(),
        }
    }
}

impl Plan {
    /// Whether a deployment would leave everything as it is.
    pub fn changes_nothing(&self) -> bool {
        let kept = self.instances.iter().all(|instance| instance.change == "kept");
        kept && self.nodes.iter().all(|node| node.action == "keep")
    }
}

impl From<PlannedInstance> for Instance {
    fn from(PlannedInstance { name, change, unchecked }: PlannedInstance) -> Self {
        let change = match change {
            PlannedLink::Added => "added",
            PlannedLink::Kept => "kept",
            PlannedLink::Reconnected => "reconnected",
            PlannedLink::Removed => "removed",
        };
        Self { name: name.to_string(), change: change.into(), unchecked }
    }
}

impl From<PlannedStep> for Step {
    fn from(PlannedStep { phase, nodes }: PlannedStep) -> Self {
        Self { phase: phase.to_string(), nodes: nodes.iter().map(model::NodeName::to_string).collect() }
    }
}

impl From<Planned> for Node {
    fn from(Planned { instance, node, action }: Planned) -> Self {
        let (word, was, from, because) = match action {
            Action::Keep => ("keep", None, None, Because::default()),
            Action::Start { was } => ("start", was.map(|was| was.to_string()), None, Because::default()),
            Action::Revive { was } => ("start", Some(was.to_string()), None, Because::default()),
            Action::Restart(because) => ("restart", None, None, because),
            Action::Move { from } => ("move", None, Some(from.to_string()), Because::default()),
            Action::Stop => ("stop", None, None, Because::default()),
        };
        let Because { keys, cluster } = because;
        let (name, instance) = (node.to_string(), instance.to_string());
        let (files, more_files) = (Vec::new(), 0);
        Self { name, instance, action: word.into(), was, from, keys, cluster, files, more_files }
    }
}

//! The JSON that people and programs read: types of their own, apart from those that cross the bridge.
//!
//! Additive: a field once there keeps its name and meaning, new ones may appear, and readers skip what they do not
//! know. What is absent is left out. Times are RFC 3339 in UTC, states are in upper case, `seq` is a
//! [`Cursor`] in text form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::Deployment;
pub use super::plan::{Plan, Upon};
use super::reach::Reach;
use crate::message::client::{Cursor, Entry, Gap, GetStatusResponse, InstanceStatus, LinkState, News};
use crate::model::{self, NodeStatus, Timestamp};

/// `GET /api/v1/version`, and `watchpost --version --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The release, such as `0.1.0`.
    pub version: String,
    /// The highest version of the bridge's frames that it speaks.
    pub protocol: u64,
    /// The version of the messages between controller and agent.
    pub api_version: u64,
    /// What this build has and another may lack, sorted: docs/http.md says what each word means.
    pub features: Vec<String>,
}

/// See [`Version::features`].
const FEATURES: [&str; 12] = [
    "bundles",
    "crashes",
    "events",
    "history",
    "http",
    "lab",
    "metrics",
    "output",
    "plan",
    "print",
    "tls",
    "zeek-client",
];

impl Version {
    /// What this build is.
    pub fn ours() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: crate::message::frame::PROTOCOL.into(),
            api_version: crate::message::agent::API_VERSION,
            features: FEATURES.map(String::from).into(),
        }
    }
}

/// `GET /api/v1/status`: everything, as the controller's copy has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Sorted by name.
    pub instances: Vec<Instance>,
    /// Sorted by name.
    pub nodes: Vec<Node>,
    /// The id of the deployed configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// The request that is being deployed right now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploying: Option<String>,
    /// The same in full; or the last deployment, as long as instances have yet to follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// Ports that are open beyond the controller's machine without protection, as its settings want it; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insecure: Vec<OpenPort>,
    /// The controller's own certificate, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// As of this event.
    pub seq: String,
}

/// A port that whoever can reach it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// What it is for: `agents`, `http` or `zeek-client`.
    pub port: String,
    pub address: String,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub expires: String,
    /// Whether less than a third of its time is left.
    pub due: bool,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Where the controller dials its agent, if the controller dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the configuration names it.
    pub needed: bool,
    /// `UP` or `LOST`.
    pub link: String,
    /// When the link became what it is; null if there never was one.
    #[serde(default)]
    pub since: Option<String>,
    /// The release that its agent runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its agent's, as last shown, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What its agent can do for its nodes, as it found out by trying: `cgroup_kill`, each of the limits `memory_max`,
    /// `cpu_max` and `pids_max`, and `outlive_agent`. Empty until it has said so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub abilities: BTreeMap<String, Ability>,
}

/// One thing that an agent can do, or cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    pub able: bool,
    /// Where, or why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Instance {
    /// Whether the cluster needs this instance and its agent is out of reach.
    pub fn is_missing(&self) -> bool {
        self.needed && self.link != "UP"
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub instance: String,
    pub role: String,
    /// `PENDING`, `RUNNING`, `STOPPED`, `CRASHED`, `FAILED` or `UNKNOWN`.
    pub state: String,
    /// Null where nothing runs.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Restarts that nobody asked for.
    pub restarts: u32,
    pub since: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What its process says of itself, if it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    /// What a Zeek node counts, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netstats: Option<NetStats>,
}

/// What a Zeek node counts. Parts are from 0 to 1, and null where there were no packets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetStats {
    /// When its agent heard of it.
    pub time: String,
    /// Since its start.
    pub received: u64,
    pub dropped: u64,
    #[serde(default)]
    pub loss: Option<f64>,
    /// Over so many seconds before `time`.
    pub interval_seconds: f64,
    pub interval_received: u64,
    pub interval_dropped: u64,
    #[serde(default)]
    pub interval_loss: Option<f64>,
    /// Packets on the link since its start, where that is known; else 0.
    pub link: u64,
    pub bytes: u64,
    pub memory_bytes: u64,
    /// Events that wait in its queue.
    pub events_waiting: u64,
}

/// Its numbers are never not a number.
impl Eq for NetStats {}

impl From<model::NetStats> for NetStats {
    fn from(counted: model::NetStats) -> Self {
        let model::NetStats { time, total, lately, over, link, bytes, memory, events } = counted;
        Self {
            time: time.to_string(),
            received: total.received,
            dropped: total.dropped,
            loss: total.loss().map(model::Loss::fraction),
            interval_seconds: over.as_secs_f64(),
            interval_received: lately.received,
            interval_dropped: lately.dropped,
            interval_loss: lately.loss().map(model::Loss::fraction),
            link,
            bytes,
            memory_bytes: memory,
            events_waiting: events,
        }
    }
}

/// POST `/api/v1/nodes/print`: what nodes are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrintOrder {
    /// The name of a global identifier, such as `Site::local_nets`.
    pub id: String,
    /// None: every node.
    #[serde(default)]
    pub nodes: Vec<String>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Whether every node that was asked gave one.
    pub ok: bool,
    /// Sorted by node.
    pub values: Vec<IdValue>,
    /// Who gave none, and why.
    pub outcomes: Vec<Outcome>,
}

/// The value that one node gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdValue {
    pub node: String,
    pub instance: String,
    pub value: serde_json::Value,
}

/// `GET /api/v1/instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Sorted by name.
    pub instances: Vec<Instance>,
}

/// `GET /api/v1/nodes`: what the agents themselves say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Whether every agent answered.
    pub ok: bool,
    pub nodes: Vec<Node>,
    /// One per agent, sorted by instance.
    pub outcomes: Vec<Outcome>,
}

/// The answer to every order: the request was understood and this came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every outcome is a success.
    pub ok: bool,
    /// The configuration that was staged or deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    pub outcomes: Vec<Outcome>,
}

impl Verdict {
    /// The verdict over `outcomes`, of an order that speaks of no configuration.
    pub fn over(outcomes: Vec<model::Outcome>, reach: &Reach) -> Self {
        let ok = outcomes.iter().all(model::Outcome::is_success);
        Self { ok, configuration: None, outcomes: Outcome::all(outcomes, reach) }
    }

    /// The verdict over staging or deploying: it failed if no configuration came of it, whatever the outcomes say.
    pub fn of_configuration(id: Option<model::ConfigurationId>, outcomes: Vec<model::Outcome>, reach: &Reach) -> Self {
        let verdict = Self::over(outcomes, reach);
        Self { ok: verdict.ok && id.is_some(), configuration: id.map(|id| id.to_string()), ..verdict }
    }
}

/// What came of an order for one node, one instance (no `node`), or the whole (neither).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Absent is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It failed since an agent could not be reached or did not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
    /// The last lines of a node that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

impl Outcome {
    /// These outcomes, with what `reach` knows of them.
    pub fn all(outcomes: Vec<model::Outcome>, reach: &Reach) -> Vec<Self> {
        outcomes
            .into_iter()
            .map(|outcome| (reach.lacks(&outcome), outcome))
            .map(|(lacks, of)| Self::of(of, lacks))
            .collect()
    }

    /// One outcome, of whose agent it is known whether it could be reached.
    pub fn of(outcome: model::Outcome, unreachable: bool) -> Self {
        Self {
            unreachable,
            instance: outcome.instance.map(|instance| instance.to_string()),
            node: outcome.node.map(|node| node.to_string()),
            error: outcome.error,
            output: outcome.output.map(Output::from),
        }
    }
}

/// `GET /api/v1/nodes/{name}/output`: the last lines that a node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

/// `GET /api/v1/nodes/{name}/output/stream`: a piece of what a node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputText {
    /// Where whoever comes again goes on, in both streams.
    pub since: String,
    pub node: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whole lines, but for one that was not whole, or too long.
    pub text: String,
    /// What stood before it is not kept any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// `GET /api/v1/crashes`: what is kept of nodes that died unasked, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Crashes {
    /// Whether every agent answered.
    pub ok: bool,
    pub crashes: Vec<Crash>,
    /// Of agents that did not.
    pub outcomes: Vec<Outcome>,
}

/// One such death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    pub id: String,
    pub time: String,
    pub instance: String,
    pub node: String,
    pub pid: u32,
    pub exit: Exit,
    pub state: String,
    pub reason: String,
    /// Whether a core file was found.
    pub core: bool,
    /// Whether the dossier says where it died.
    pub backtrace: bool,
}

impl From<model::CrashSummary> for Crash {
    fn from(crash: model::CrashSummary) -> Self {
        Self {
            id: crash.id,
            time: crash.time.to_string(),
            instance: crash.instance.to_string(),
            node: crash.node.to_string(),
            pid: crash.pid,
            exit: crash.exit.into(),
            state: crash.state.to_string(),
            reason: crash.reason.to_string(),
            core: crash.core,
            backtrace: crash.backtrace,
        }
    }
}

/// `GET /api/v1/crashes/{id}`: all that is known of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CrashDossier {
    /// Absent if no agent that answered has it.
    pub dossier: Option<serde_json::Value>,
    /// Of agents that did not answer.
    pub outcomes: Vec<Outcome>,
}

/// The body of an order about nodes; an empty list means every node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesOrder {
    pub nodes: Vec<String>,
}

/// The body that stages a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationText {
    /// What complaints call it, such as `cluster.cfg`.
    pub file: String,
    /// The cluster file itself.
    pub text: String,
    /// To deploy it only if nothing else is deployed than this; absent: whatever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upon: Option<Upon>,
    /// What was found of the files that it names, where it does not say so itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<FoundFiles>,
}

/// What was found where the files of nodes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundFiles {
    /// As `files` in the cluster file names them.
    pub paths: Vec<String>,
    /// Absent if they cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What is wrong with them, each with its path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

/// `GET /api/v1/configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub id: String,
    /// The cluster file.
    pub configuration: String,
}

/// Every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong and what to do, in one line.
    pub error: String,
    /// One line per complaint, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// One event of `GET /api/v1/events`. `kind` says which of the other fields may be there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Event {
    /// Resume behind this event by giving it back as `since` or `Last-Event-ID`.
    pub seq: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// `change`, `error`, `log`, `agents_ready`, `gap` (what is missing is gone) or `snapshot` (how everything is).
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// The process that runs, or the one that just ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How the process ended, if the change is its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Which restart in a row; 0 for a launch that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node left the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    /// Who is ready, of `agents_ready`; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
    /// The first event that is missing, of `gap`; `seq` is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The agent's own number for it, `<epoch in hex>-<number>`; absent if the controller made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Everything as of `seq`, of `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl Event {
    /// How everything is, at the beginning of a stream.
    pub fn snapshot(status: Status) -> Self {
        Self { seq: status.seq.clone(), kind: "snapshot".into(), status: Some(status), ..Self::default() }
    }

    /// A gap between a place in another log and the beginning of this one.
    pub fn anew(since: Cursor, beginning: Cursor) -> Self {
        let first = Cursor { number: since.number.saturating_add(1), ..since };
        Self {
            msg: Some(format!("the log began anew since {since}: what came behind that in the former one is not kept")),
            ..Self::gap(&Gap { first, last: beginning })
        }
    }

    /// Who has seen everything up to `since` goes on from an earlier place: what came behind that is not kept.
    pub fn back(since: Cursor, kept: Cursor) -> Self {
        let first = Cursor { number: kept.number.saturating_add(1), ..kept };
        let msg = format!(
            "the events from {first} to {since} were not kept when the controller ended: what agents told in them comes again"
        );
        Self { msg: Some(msg), ..Self::gap(&Gap { first, last: since }) }
    }

    /// Who asks for what comes behind `since` goes on from the end of the log: there is no such event.
    pub fn beyond(since: Cursor, end: Cursor) -> Self {
        let msg = Some(format!("there is no event {since} in this log, which ends with {end}"));
        Self { msg, first: None, ..Self::gap(&Gap { first: end, last: end }) }
    }

    /// Events that are gone for good.
    pub fn gap(gap: &Gap) -> Self {
        Self {
            seq: gap.last.to_string(),
            kind: "gap".into(),
            first: Some(gap.first.to_string()),
            msg: Some(format!("the events from {} to {} are no longer kept", gap.first, gap.last)),
            ..Self::default()
        }
    }
}

/// How a process ended: one of `status` and `signal`, or neither if nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub core_dumped: bool,
    /// The kernel killed it because memory ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// The same in words.
    pub text: String,
}

impl From<GetStatusResponse> for Status {
    fn from(status: GetStatusResponse) -> Self {
        Self {
            instances: status.instances.into_iter().map(Instance::from).collect(),
            nodes: status.nodes.into_iter().map(Node::from).collect(),
            configuration: status.configuration.map(|id| id.to_string()),
            deploying: status.deploying.map(|reqid| reqid.to_string()),
            deployment: status.deployment.map(|deployment| Deployment::from(*deployment)),
            insecure: Vec::new(),
            certificate: None,
            seq: status.cursor.to_string(),
        }
    }
}

impl From<InstanceStatus> for Instance {
    fn from(instance: InstanceStatus) -> Self {
        let link = match instance.link {
            LinkState::Up => "UP",
            LinkState::Lost => "LOST",
        };
        Self {
            name: instance.name.to_string(),
            host: instance.host.map(|host| host.to_string()),
            port: instance.port,
            needed: instance.needed,
            link: link.into(),
            since: instance.since.map(|since| since.to_string()),
            version: instance.version,
            reason: instance.reason,
            certificate: instance
                .certificate
                .map(|term| Certificate { expires: term.until.to_string(), due: Timestamp::now() > term.due_at }),
            abilities: instance.abilities.map(abilities).unwrap_or_default(),
        }
    }
}

fn abilities(abilities: model::Abilities) -> BTreeMap<String, Ability> {
    let model::Abilities { killing, lacking, outliving } = abilities;
    let able = killing.is_ok();
    let kill = ("cgroup_kill".to_owned(), Ability { able, detail: killing.unwrap_or_else(|why| why) });
    let able = outliving.is_ok();
    let outlive = ("outlive_agent".to_owned(), Ability { able, detail: outliving.err().unwrap_or_default() });
    let limits = model::Quota::ALL.into_iter().map(|quota| {
        let why = lacking.get(&quota);
        (quota.key().to_owned(), Ability { able: why.is_none(), detail: why.cloned().unwrap_or_default() })
    });
    [kill, outlive].into_iter().chain(limits).collect()
}

impl From<NodeStatus> for Node {
    fn from(node: NodeStatus) -> Self {
        Self {
            name: node.node.to_string(),
            instance: node.instance.to_string(),
            role: node.role.to_string(),
            state: node.state.to_string(),
            pid: node.pid,
            restarts: node.restarts,
            since: node.since.to_string(),
            reason: node.reason.into(),
            says: node.says.into(),
            port: node.port,
            metrics_port: node.metrics_port,
            netstats: node.netstats.map(|counted| NetStats::from(*counted)),
        }
    }
}

impl From<model::Output> for Output {
    fn from(output: model::Output) -> Self {
        Self { stdout: output.stdout, stderr: output.stderr }
    }
}

impl From<model::Exit> for Exit {
    fn from(exit: model::Exit) -> Self {
        let text = exit.to_string();
        let (status, signal, core_dumped) = match exit {
            model::Exit::Status(status) => (Some(status), None, false),
            model::Exit::Signal { number, core_dumped } => (None, Some(number), core_dumped),
            model::Exit::OutOfMemory => (None, Some(9), false),
            model::Exit::Unknown => (None, None, false),
        };
        Self { status, signal, core_dumped, out_of_memory: exit == model::Exit::OutOfMemory, text }
    }
}

impl From<&Entry> for Event {
    fn from(entry: &Entry) -> Self {
        let frame = Self {
            seq: entry.cursor.to_string(),
            time: Some(entry.time.to_string()),
            origin: entry.origin.map(|(epoch, number)| format!("{epoch:x}-{number}")),
            ..Self::default()
        };
        match &entry.news {
            News::Change(change) => Self {
                kind: "change".into(),
                instance: Some(change.instance.to_string()),
                node: Some(change.node.to_string()),
                role: Some(change.role.to_string()),
                old: Some(change.old.to_string()),
                new: Some(change.new.to_string()),
                pid: change.pid,
                exit: change.exit.map(Exit::from),
                attempt: Some(change.attempt),
                restarts: Some(change.restarts),
                reason: Some(change.reason.to_string()).filter(|reason| !reason.is_empty()),
                removed: change.removed,
                ..frame
            },
            News::Error(error) => Self {
                kind: "error".into(),
                instance: Some(error.instance.to_string()),
                node: error.node.as_ref().map(ToString::to_string),
                msg: Some(error.msg.clone()),
                ..frame
            },
            News::Log(log) => Self {
                kind: "log".into(),
                instance: Some(log.instance.to_string()),
                node: log.node.as_ref().map(ToString::to_string),
                msg: Some(log.msg.clone()),
                ..frame
            },
            News::AgentsReady(ready) => Self {
                kind: "agents_ready".into(),
                instances: ready.instances.iter().map(ToString::to_string).collect(),
                ..frame
            },
        }
    }
}

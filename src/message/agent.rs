//! Controller ⇄ agent: the messages that cross the bridge, or a single mailbox where both live in one process.
//!
//! Requests carry a `reqid` that their response repeats. A request that timed out may still be carried out: its late
//! answer is harmless, and asking again under the same `reqid` is safe. News (`notify_*`) is numbered by the agent,
//! kept by it until [`NewsReceived`] says that the controller keeps it, and sent again after a reconnect.
//!
//! A type in this file is frozen once released: a change is a new kind, never a new field (see [`super::frame`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

pub use super::bundle::*;
pub use super::deployment::*;
use super::frame::{self, Body, wire_enum};
pub use super::inspect::{InspectConfigurationRequest, InspectConfigurationResponse};
use crate::model::{
    Abilities, Configuration, ConfigurationId, CrashSummary, Exit, InstanceName, NameError, NetStats, NodeName,
    NodeState, NodeStatus, Outcome, OutputFrom, OutputPiece, OutputStream, RequestId, Role, Text, Timestamp,
};

/// The version of this API. An agent that says another in its hello is refused with a reason.
pub const API_VERSION: u64 = 1;

wire_enum! {
    /// What the controller says to an agent.
    pub enum ToAgent {
        0x0101 => AgentWelcomeRequest,
        0x0102 => AgentStandbyRequest,
        0x0103 => SetConfigurationRequest,
        0x0104 => GetNodesRequest,
        0x0105 => StartRequest,
        0x0106 => StopRequest,
        0x0107 => RestartRequest,
        0x0108 => GetOutputRequest,
        0x0109 => NewsReceived,
        0x010a => AgentRefused,
        0x010b => NodeDispatchRequest,
        0x010c => RenewCertificateResponse,
        0x0120 => ReadOutputRequest,
        0x0121 => GetCrashesRequest,
        0x0122 => InspectConfigurationRequest,
        0x0130 => CheckConfigurationRequest,
        0x0131 => SwitchNodesRequest,
        0x0132 => RestoreConfigurationRequest,
        0x0133 => CommitConfigurationRequest,
        0x0140 => StageBundlesRequest,
        0x0141 => ReadBlobsResponse,
    }
}

wire_enum! {
    /// What an agent says to the controller.
    pub enum ToController {
        0x0201 => AgentWelcomeResponse,
        0x0202 => AgentStandbyResponse,
        0x0203 => SetConfigurationResponse,
        0x0204 => GetNodesResponse,
        0x0205 => StartResponse,
        0x0206 => StopResponse,
        0x0207 => RestartResponse,
        0x0208 => GetOutputResponse,
        0x0209 => NodeDispatchResponse,
        0x020a => RenewCertificateRequest,
        0x0211 => NotifyAgentHello,
        0x0212 => NotifyChange,
        0x0213 => NotifyError,
        0x0214 => NotifyLog,
        0x0215 => NotifySnapshot,
        0x0216 => NotifyStatus,
        0x0217 => NotifyNetStats,
        0x0220 => ReadOutputResponse,
        0x0221 => GetCrashesResponse,
        0x0222 => InspectConfigurationResponse,
        0x0230 => CheckConfigurationResponse,
        0x0231 => SwitchNodesResponse,
        0x0232 => RestoreConfigurationResponse,
        0x0233 => NotAtHand,
        0x0240 => StageBundlesResponse,
        0x0241 => ReadBlobsRequest,
        0x0242 => NotifyLayingOut,
        + /// News as it is kept: changes, errors and lines of a log, each in its frame. Changes that came are left so.
        News of NotifyChange
    }
}

/// Controller → agent: you are part of the cluster. Answered by [`AgentWelcomeResponse`]; nothing else changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentWelcomeRequest {
    pub reqid: RequestId,
}

/// Agent → controller: the answer to [`AgentWelcomeRequest`]. The controller counts the agent as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentWelcomeResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// Controller → agent: you are not needed now. The agent stops and forgets all its nodes and stays connected.
///
/// Answered by [`AgentStandbyResponse`] once the last node is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStandbyRequest {
    pub reqid: RequestId,
}

/// Agent → controller: the answer to [`AgentStandbyRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStandbyResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// Controller → agent: the configuration, all instances and the agent's own nodes.
///
/// The agent applies the difference: nodes whose definition did not change keep their process. It starts in role
/// order and stops in reverse. Answered by [`SetConfigurationResponse`]. The id that is already in force changes
/// nothing and is answered at once; that id with other contents is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: Share,
    /// Nodes that somebody has stopped since it is being deployed: they stay down.
    pub rest: BTreeSet<NodeName>,
}

/// A configuration on its way to an agent. On the wire it is a [`Configuration`] behind its length in bytes: who keeps it
/// encoded sends it as it is.
#[derive(Clone)]
pub struct Share(Form);

#[derive(Clone)]
enum Form {
    Open(Configuration),
    /// By this process.
    Encoded(Vec<u8>),
}

impl Share {
    /// One that was encoded in this process.
    pub(crate) fn encoded(bytes: Vec<u8>) -> Self {
        Self(Form::Encoded(bytes))
    }

    /// The configuration itself.
    pub fn open(self) -> Configuration {
        match self.0 {
            Form::Open(configuration) => configuration,
            Form::Encoded(bytes) => {
                frame::decode_body(&bytes, "Configuration").expect("a configuration that was encoded in this process")
            }
        }
    }
}

impl fmt::Debug for Share {
    /// Not the bytes, in which the keys of a cluster would show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Open(configuration) => configuration.fmt(f),
            Form::Encoded(bytes) => write!(f, "a configuration in {} bytes", bytes.len()),
        }
    }
}

impl From<Configuration> for Share {
    fn from(configuration: Configuration) -> Self {
        Self(Form::Open(configuration))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.clone().open() == other.clone().open()
    }
}

impl Eq for Share {}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Encoded(bytes) => serializer.serialize_bytes(bytes),
            Form::Open(configuration) => {
                let mut bytes = Vec::new();
                frame::encode_body(&mut bytes, configuration).map_err(ser::Error::custom)?;
                serializer.serialize_bytes(&bytes)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        frame::decode_body(bytes, "Configuration").map(|open| Self(Form::Open(open))).map_err(de::Error::custom)
    }
}

/// Agent → controller: what became of each node of the instance, sorted by name; a failed one brings its last output.
///
/// One outcome for the instance alone if there was nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetConfigurationResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Controller → agent: what do you run? Answered by [`GetNodesResponse`] from memory, at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetNodesRequest {
    pub reqid: RequestId,
}

/// Agent → controller: every node of the instance, sorted by name; empty if it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetNodesResponse {
    pub reqid: RequestId,
    /// The agent's own process, if it says.
    pub pid: Option<u32>,
    pub nodes: Vec<NodeStatus>,
}

/// Controller → agent: start these nodes, all of the instance if the set is empty, in role order.
///
/// One that runs already is left alone and counts as done. Answered by [`StartResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// Agent → controller: one outcome per named node of the instance, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Controller → agent: stop these nodes, all of the instance if the set is empty, in reverse role order.
///
/// They stay stopped until somebody starts them, whatever restart was pending. Answered by [`StopResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// Agent → controller: one outcome per named node of the instance, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Controller → agent: stop and start these nodes, all of the instance if the set is empty.
///
/// Also the way to revive a node that is FAILED or STOPPED. Answered by [`RestartResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// Agent → controller: one outcome per named node of the instance, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Controller → agent: the last lines that this node wrote. Answered by [`GetOutputResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetOutputRequest {
    pub reqid: RequestId,
    pub node: NodeName,
    /// How many lines of each stream at most.
    pub lines: u32,
}

/// Agent → controller: the answer to [`GetOutputRequest`]; `outcome` fails if the node is unknown or unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetOutputResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// Controller → agent: a piece of what this node wrote, through everything that is kept of it.
///
/// Answered by [`ReadOutputResponse`]: at once if there is something to read, else when there is, or after `wait`. Whoever
/// wants more asks for the next piece: so nobody is sent more than there is room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOutputRequest {
    pub reqid: RequestId,
    pub node: NodeName,
    pub stream: OutputStream,
    pub from: OutputFrom,
    /// How many bytes at most.
    pub most: u32,
    /// How long to wait for more; until then only whole lines count, unless they are too long. Zero: not at all.
    pub wait: Duration,
}

/// Agent → controller: the piece, or why there is none; empty if nothing came within the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOutputResponse {
    pub reqid: RequestId,
    pub piece: Result<OutputPiece, String>,
}

/// Controller → agent: what is kept of nodes that died unasked? Answered by [`GetCrashesResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCrashesRequest {
    pub reqid: RequestId,
    /// Of this node alone.
    pub node: Option<NodeName>,
    /// This dossier, and no list.
    pub id: Option<String>,
}

/// Agent → controller: the newest first, at most 1000; or the dossier, if there is one of that id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCrashesResponse {
    pub reqid: RequestId,
    pub crashes: Result<Vec<CrashSummary>, String>,
    /// JSON text.
    pub dossier: Option<String>,
}

/// Controller → agent: ask these nodes, all of the instance if the set is empty.
///
/// The only `action` there is: `get_id_value` and the name of a global identifier. Answered by
/// [`NodeDispatchResponse`]; a node that nobody can ask is an error for that node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDispatchRequest {
    pub reqid: RequestId,
    pub action: Vec<String>,
    pub nodes: BTreeSet<NodeName>,
}

/// Agent → controller: what each node of the instance that was named said, sorted by name; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDispatchResponse {
    pub reqid: RequestId,
    pub answers: Vec<NodeAnswer>,
}

/// What one node said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    pub node: NodeName,
    /// JSON text, or why there is none.
    pub value: Result<String, String>,
}

/// Agent → controller: my certificate is due, and this asks for the next one. Only the bearer of the certificate that the
/// link began with gets one, and only for itself. Answered by [`RenewCertificateResponse`], which may take days where
/// somebody has to sign; of several requests over a link the last is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewCertificateRequest {
    pub reqid: RequestId,
    /// A request for a certificate (PKCS #10, DER).
    pub request: Vec<u8>,
}

/// Controller → agent: the certificate (DER), or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewCertificateResponse {
    pub reqid: RequestId,
    pub certificate: Result<Vec<u8>, String>,
}

/// Controller → agent: your news up to and including `seq` of `epoch` has arrived, and opens the window for more.
///
/// Also the controller's answer to a hello, where it says what arrived over earlier links (0 if nothing): the agent
/// then sends all later news again, and a [`NotifySnapshot`] behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewsReceived {
    pub epoch: u64,
    pub seq: u64,
    /// Up to here the controller would still have it after a crash, and the agent need not keep it; never above `seq`.
    pub kept: u64,
}

/// Controller → agent: you cannot be part of this cluster, for this reason. The controller then closes the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRefused {
    pub reason: String,
}

/// Agent → controller, first on every link: who I am. Answered by [`NewsReceived`], or by [`AgentRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyAgentHello {
    pub instance: InstanceName,
    /// The agent's own idea of its address, if it was told one; the controller sees the real one on the link.
    pub host: Option<IpAddr>,
    /// [`API_VERSION`] of the agent.
    pub api_version: u64,
    /// The agent's release, such as `0.1.0`.
    pub version: String,
    /// Names the numbering of its news, which outlives the agent's process for as long as the machine runs.
    pub epoch: u64,
    /// Drawn by chance when the agent's process began: the same on each of its links, and no other agent's.
    pub run: u64,
    /// Names what the agent has locked for itself: of two that say the same one is gone. 0 if it has locked nothing.
    pub place: u64,
    /// What it can do for its nodes.
    pub abilities: Abilities,
}

/// Agent → controller → observers: a node changed its state, or its process did.
///
/// The `old` of a change is the `new` of the change before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyChange {
    /// The agent's number for it: counted from 1, without gaps.
    pub seq: u64,
    /// When it happened, by the agent's wall clock.
    pub time: Timestamp,
    pub instance: InstanceName,
    pub node: NodeName,
    pub role: Role,
    pub old: NodeState,
    pub new: NodeState,
    /// The process concerned: the one that runs, or the one that just ended.
    pub pid: Option<u32>,
    /// How the process ended, if the change is its end.
    pub exit: Option<Exit>,
    /// Which restart in a row this belongs to; 0 for a launch that was asked for.
    pub attempt: u32,
    /// Unasked restarts since the agent took the node up.
    pub restarts: u32,
    /// Why, in words for people.
    pub reason: Text,
    /// The node left the configuration: this is its last change.
    pub removed: bool,
}

/// A [`NotifyChange`] whose texts are somebody else's: for whoever tells one, or looks at one and keeps no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BorrowedChange<'a> {
    pub seq: u64,
    pub time: Timestamp,
    pub instance: &'a str,
    pub node: &'a str,
    pub role: Role,
    pub old: NodeState,
    pub new: NodeState,
    pub pid: Option<u32>,
    pub exit: Option<Exit>,
    pub attempt: u32,
    pub restarts: u32,
    pub reason: &'a str,
    pub removed: bool,
}

impl Body for BorrowedChange<'_> {
    const KIND: u16 = NotifyChange::KIND;
    const NAME: &'static str = NotifyChange::NAME;
}

impl<'a> From<&'a NotifyChange> for BorrowedChange<'a> {
    fn from(change: &'a NotifyChange) -> Self {
        let NotifyChange { instance, node, reason, .. } = change;
        let NotifyChange { seq, time, role, old, new, pid, exit, attempt, restarts, removed, .. } = *change;
        let (instance, node) = (instance.as_str(), node.as_str());
        Self { seq, time, instance, node, role, old, new, pid, exit, attempt, restarts, reason, removed }
    }
}

impl BorrowedChange<'_> {
    /// The same with texts of its own. Fails where what should be a name is none.
    pub fn keep(&self) -> Result<NotifyChange, NameError> {
        let (instance, node) = (InstanceName::new(self.instance)?, NodeName::new(self.node)?);
        let Self { seq, time, role, old, new, pid, exit, attempt, restarts, removed, .. } = *self;
        let reason = self.reason.into();
        Ok(NotifyChange { seq, time, instance, node, role, old, new, pid, exit, attempt, restarts, reason, removed })
    }
}

/// Agent → controller → observers: something went wrong that a person may have to mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyError {
    /// The agent's number for it, from the same count as those of changes.
    pub seq: u64,
    pub time: Timestamp,
    pub instance: InstanceName,
    pub node: Option<NodeName>,
    pub msg: String,
}

/// Agent → controller → observers: something worth a line in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyLog {
    /// The agent's number for it, from the same count as those of changes.
    pub seq: u64,
    pub time: Timestamp,
    pub instance: InstanceName,
    pub node: Option<NodeName>,
    pub msg: String,
}

/// Agent → controller: what the present process of a node says of itself, `STATUS=` of `sd_notify`.
///
/// Not numbered, not logged and not sent again: the last one counts, and a snapshot brings it, too. At most one a second for
/// each node. It ends with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyStatus {
    pub instance: InstanceName,
    pub node: NodeName,
    /// Whose word it is.
    pub pid: u32,
    /// One line; empty if it takes back what it said before.
    pub says: Text,
}

/// Agent → controller: what the present process of a Zeek node counts.
///
/// Not numbered, not logged and not sent again: the last one counts, and a snapshot brings it, too. At most one a second for
/// each node. It ends with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyNetStats {
    pub instance: InstanceName,
    pub node: NodeName,
    /// Who counts.
    pub pid: u32,
    pub netstats: NetStats,
}

/// Agent → controller: every node as of news number `seq`. Sent once per link, behind the news that it covers.
///
/// The controller corrects its copy: what the news did not explain becomes a change of its own with the reason
/// `reconciled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifySnapshot {
    pub epoch: u64,
    pub seq: u64,
    /// The configuration in force, if any.
    pub configuration: Option<ConfigurationId>,
    /// Sorted by name.
    pub nodes: Vec<NodeStatus>,
}

//! Client ⇄ controller: what a person, a web edge or an embedding program asks, and the news they listen to.
//!
//! These never cross the bridge. Every request is an actix message for [`crate::controller::Controller`] and resolves
//! to its response, or to [`Unanswered`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::agent::{NotifyChange, NotifyError, NotifyLog};
pub use super::planning::{ClusterPlan, Deployed, PlanRequest, PlanResponse, PlannedInstance, PlannedLink};
use crate::model::{
    Abilities, Author, Configuration, ConfigurationId, CrashSummary, InstanceName, NodeName, NodeStatus, OnFailure,
    Outcome, OutputFrom, OutputPiece, OutputStream, Record, RequestId, Timestamp, Verdict,
};

/// The controller will not answer this request: it is stopping, or the request asked for silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller gave no answer")]
pub struct Unanswered;

/// Declares requests with their responses: the actix result type, and one enum of each for the deciding code.
macro_rules! conversations {
    ($($request:ident => $response:ident),* $(,)?) => {
        $(impl Message for $request {
            type Result = Result<$response, Unanswered>;
        })*

        /// Any request of a client.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ClientRequest { $($request($request)),* }

        /// Any response to a client.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ClientResponse { $($response($response)),* }

        $(impl From<$request> for ClientRequest {
            fn from(request: $request) -> Self {
                Self::$request(request)
            }
        })*

        $(impl From<$response> for ClientResponse {
            fn from(response: $response) -> Self {
                Self::$response(response)
            }
        }

        impl TryFrom<ClientResponse> for $response {
            type Error = Unanswered;
            fn try_from(response: ClientResponse) -> Result<Self, Unanswered> {
                match response {
                    ClientResponse::$response(response) => Ok(response),
                    _ => Err(Unanswered),
                }
            }
        })*
    };
}

conversations! {
    GetInstancesRequest => GetInstancesResponse,
    StageConfigurationRequest => StageConfigurationResponse,
    DeployRequest => DeployResponse,
    SetConfigurationRequest => SetConfigurationResponse,
    GetConfigurationRequest => GetConfigurationResponse,
    GetDeployedRequest => GetDeployedResponse,
    GetStatusRequest => GetStatusResponse,
    GetNodesRequest => GetNodesResponse,
    StartRequest => StartResponse,
    StopRequest => StopResponse,
    RestartRequest => RestartResponse,
    GetIdValueRequest => GetIdValueResponse,
    GetOutputRequest => GetOutputResponse,
    ReadOutputRequest => ReadOutputResponse,
    GetCrashesRequest => GetCrashesResponse,
    PlanRequest => PlanResponse,
    TestTimeoutRequest => TestTimeoutResponse,
}

/// Which agents are connected? Answered from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetInstancesRequest {
    pub reqid: RequestId,
}

/// The connected agents, sorted by name, part of the cluster or not; empty if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetInstancesResponse {
    pub reqid: RequestId,
    pub instances: Vec<InstanceStatus>,
}

/// Who is connected, now and whenever it changes? For an edge on a thread of its own that is asked often: what it looks
/// up costs no turn of the controller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "Connected")]
pub struct WatchConnected;

/// What [`GetInstancesResponse`] would tell at any moment, from the same turn on. Closed once the controller is gone.
pub type Connected = watch::Receiver<Arc<[InstanceStatus]>>;

/// One instance as the controller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    pub name: InstanceName,
    /// The address its agent was seen at, or the configured one; `None` in the same process.
    pub host: Option<IpAddr>,
    /// Where the controller dials it, if the controller dials.
    pub port: Option<u16>,
    /// Whether the deployed (or deploying) configuration names it.
    pub needed: bool,
    pub link: LinkState,
    /// When `link` became what it is; `None` if there never was a link.
    pub since: Option<Timestamp>,
    /// The release its agent runs, as last heard.
    pub version: Option<String>,
    /// Why the link was lost or refused, in words; may be empty.
    pub reason: String,
    /// How long the certificate of its agent counts, as last shown; `None` without one.
    pub certificate: Option<CertificateTerm>,
    /// What its agent can do for its nodes, as last heard.
    pub abilities: Option<Abilities>,
}

/// How long a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateTerm {
    pub until: Timestamp,
    /// From here on the next one is due.
    pub due_at: Timestamp,
}

/// Whether an instance's agent can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It said hello and is connected.
    Up,
    /// It was connected, or is needed, and is not connected now.
    Lost,
}

/// Check this configuration and make it the next to deploy; touch nothing that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: Configuration,
}

/// `configuration` is set on success. Else every complaint is an outcome, sorted by text, and nothing was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageConfigurationResponse {
    pub reqid: RequestId,
    pub configuration: Option<ConfigurationId>,
    pub outcomes: Vec<Outcome>,
}

/// Make what was staged true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployRequest {
    pub reqid: RequestId,
    pub terms: Terms,
}

/// How something is to be deployed. By default as the settings say, and by nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    pub author: Author,
    pub on_failure: Option<OnFailure>,
    /// Told to all agents at once, in place of so many nodes at a time.
    pub all_at_once: bool,
    /// Instances that nobody waits for: they follow when they can be reached.
    pub without: BTreeSet<InstanceName>,
    /// Answer once it has begun.
    pub detach: bool,
}

/// What came of a deployment: one outcome per node, and complaints without a node for what could not be reached.
///
/// `configuration` is set when it is in force and every agent has answered, even if nodes failed where it was to stand. Where
/// something was objected nothing was changed; where nodes failed all went back to what was in force before, and an outcome
/// says so. Where agents did not answer in time after it was decided it is deployed all the same, and they follow as soon as
/// they can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployResponse {
    pub reqid: RequestId,
    pub configuration: Option<ConfigurationId>,
    pub outcomes: Vec<Outcome>,
    /// By this number it stands in the history; `None` if it did not begin.
    pub deployment: Option<u64>,
}

/// Stage and deploy in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetConfigurationRequest {
    pub reqid: RequestId,
    pub configuration: Configuration,
    /// Refused, in the same step, if anything else is deployed by then; `None`: whatever is.
    pub upon: Option<Deployed>,
    pub terms: Terms,
}

/// As [`StageConfigurationResponse`] if staging failed, else as [`DeployResponse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetConfigurationResponse {
    pub reqid: RequestId,
    pub configuration: Option<ConfigurationId>,
    pub outcomes: Vec<Outcome>,
    pub deployment: Option<u64>,
}

/// Deploy again what an earlier deployment deployed. Answered as a deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<DeployResponse, Unanswered>")]
pub struct RollbackRequest {
    pub reqid: RequestId,
    /// Which one; `None`: the last one that was decided for something else than what is in force.
    pub to: Option<u64>,
    pub terms: Terms,
}

/// Which deployments were there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "Result<GetHistoryResponse, Unanswered>")]
pub struct GetHistoryRequest;

/// Those that are remembered, the first one first; or why that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetHistoryResponse {
    pub deployments: Result<Vec<Record>, String>,
}

/// What was that deployment to put in force?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "Result<GetTriedResponse, Unanswered>")]
pub struct GetTriedRequest {
    pub number: u64,
}

/// `None` if it is not remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetTriedResponse {
    pub configuration: Result<Option<Configuration>, String>,
}

/// The deployed configuration, or else the staged one as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetConfigurationRequest {
    pub reqid: RequestId,
    pub deployed: bool,
}

/// The error says which of the two does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetConfigurationResponse {
    pub reqid: RequestId,
    pub configuration: Result<Configuration, String>,
}

/// Which configuration is deployed? Answered from memory, whatever its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetDeployedRequest;

/// Its id, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetDeployedResponse {
    pub configuration: Option<ConfigurationId>,
}

/// How is everything? Answered at once from the controller's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetStatusRequest;

/// Everything that is known or needed, sorted by name. Nodes of an agent out of reach are UNKNOWN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetStatusResponse {
    /// As of this entry of the log.
    pub cursor: Cursor,
    pub instances: Vec<InstanceStatus>,
    pub nodes: Vec<NodeStatus>,
    /// The deployed configuration, if any.
    pub configuration: Option<ConfigurationId>,
    /// The deployment in progress, if any.
    pub deploying: Option<RequestId>,
    /// The same in full; or the last one, as long as instances have yet to follow it.
    pub deployment: Option<Box<DeploymentStatus>>,
}

/// How far a deployment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentStatus {
    pub number: u64,
    pub reqid: RequestId,
    pub author: Author,
    pub began: Timestamp,
    pub configuration: ConfigurationId,
    pub phase: DeploymentPhase,
    /// Whether it was decided, and how.
    pub verdict: Verdict,
    /// How many nodes are switched, of how many.
    pub switched: usize,
    pub to_switch: usize,
    /// Those that are being switched, at most 100, sorted by name.
    pub under_way: Vec<NodeName>,
    /// Instances that are waited for, or that have yet to follow, sorted by name.
    pub owing: Vec<InstanceName>,
}

/// The phases of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentPhase {
    /// It waits for its instances to appear.
    Gathering,
    /// Agents fetch the files of their nodes.
    Staging,
    /// Every agent looks at it.
    Checking,
    /// Nodes that move to another instance are ended where they are.
    Moving,
    /// Nodes are switched, some at a time.
    Switching,
    /// It is written down how it was decided.
    Deciding,
    /// It is decided for the new configuration, and comes into force everywhere.
    Committing,
    /// It is decided for the former configuration, and all go back.
    Returning,
    /// It is over, and instances that were out of reach have yet to follow.
    Following,
}

impl DeploymentPhase {
    /// In one word, as it is printed and sent everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Staging => "staging",
            Self::Checking => "checking",
            Self::Moving => "moving",
            Self::Switching => "switching",
            Self::Deciding => "deciding",
            Self::Committing => "committing",
            Self::Returning => "going back",
            Self::Following => "following",
        }
    }
}

impl fmt::Display for DeploymentPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How is everything, from the agents' own mouths?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetNodesRequest {
    pub reqid: RequestId,
}

/// The nodes of every agent that answered, the agents themselves, and an outcome per agent, sorted by instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetNodesResponse {
    pub reqid: RequestId,
    pub nodes: Vec<NodeStatus>,
    pub agents: Vec<AgentStatus>,
    pub outcomes: Vec<Outcome>,
}

/// An agent that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    pub instance: InstanceName,
    /// Its process, if it says.
    pub pid: Option<u32>,
    /// Where the controller dials it, if the controller dials.
    pub port: Option<u16>,
    /// It lives in the controller's own process.
    pub beside: bool,
}

/// Start these nodes, every node if the set is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// One outcome per node, sorted by name; complaints without a node for instances that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Stop these nodes, every node if the set is empty. They stay stopped until somebody starts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// One outcome per node, sorted by name; complaints without a node for instances that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// Stop and start these nodes, every node if the set is empty; also revives what is FAILED or STOPPED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartRequest {
    pub reqid: RequestId,
    pub nodes: BTreeSet<NodeName>,
}

/// One outcome per node, sorted by name; complaints without a node for instances that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartResponse {
    pub reqid: RequestId,
    pub outcomes: Vec<Outcome>,
}

/// The last lines that this node wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetOutputRequest {
    pub reqid: RequestId,
    pub node: NodeName,
    /// How many lines of each stream at most.
    pub lines: u32,
}

/// The lines are the outcome's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetOutputResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// A piece of what this node wrote. Whoever follows asks for the next one, and has it wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutputRequest {
    pub reqid: RequestId,
    pub node: NodeName,
    pub stream: OutputStream,
    pub from: OutputFrom,
    /// How many bytes at most.
    pub most: u32,
    /// How long to wait for more, and for an agent that is out of reach. Zero: not at all.
    pub wait: Duration,
}

/// The piece, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutputResponse {
    pub reqid: RequestId,
    pub piece: Result<OutputPiece, Unread>,
}

/// Why there is no piece of a node's output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("unknown cluster node")]
    UnknownNode,
    /// It may be there later.
    #[error("{0}")]
    OutOfReach(String),
    #[error("{0}")]
    Failed(String),
}

/// What is kept of nodes that died unasked?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetCrashesRequest {
    pub reqid: RequestId,
    /// Of this node alone.
    pub node: Option<NodeName>,
    /// This dossier, and no list.
    pub id: Option<String>,
}

/// What every agent that answered has, oldest first; and an outcome for each that did not, sorted by instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetCrashesResponse {
    pub reqid: RequestId,
    pub crashes: Vec<CrashSummary>,
    /// The dossier that was asked for, as JSON text, if an agent has it.
    pub dossier: Option<String>,
    pub outcomes: Vec<Outcome>,
}

/// What value has this identifier in these nodes, in every node if the set is empty?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetIdValueRequest {
    pub reqid: RequestId,
    pub id: String,
    pub nodes: BTreeSet<NodeName>,
}

/// A value of each node that has one, sorted by name, and an outcome for each that has none or did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetIdValueResponse {
    pub reqid: RequestId,
    pub values: Vec<IdValue>,
    pub outcomes: Vec<Outcome>,
}

/// The value of an identifier in one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdValue {
    pub instance: InstanceName,
    pub node: NodeName,
    /// JSON text, as the node wrote it.
    pub value: String,
}

/// The request table's own test: with state, the answer is the table's timeout; without, there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestTimeoutRequest {
    pub reqid: RequestId,
    pub with_state: bool,
}

/// Always the failure `request timed out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestTimeoutResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// Any request, for a client that waits no longer than this: at the deadline the answer says what is known by then.
///
/// What was asked for goes on: a deployment is decided as if its client had waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within<Q> {
    pub within: Duration,
    pub request: Q,
}

impl<Q: Message<Result: 'static>> Message for Within<Q> {
    type Result = Q::Result;
}

/// All instances that the configuration needs have answered the welcome. Controller-internal; observers hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyAgentsReady {
    pub instances: BTreeSet<InstanceName>,
}

/// A place in the controller's log: which log, and the number of an entry in it.
///
/// Printed as `<epoch in hex>-<number>`; numbers count from 1 without gaps, also from one epoch to the next. The epoch
/// changes whenever numbers might come to mean something else: when a controller did not end in order, and what some
/// have seen of its log is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    pub epoch: u64,
    pub number: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.number)
    }
}

/// Why a text is not a [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the number of an event: take the `seq` of one, such as `5f3a9c01-42`")]
pub struct CursorError(String);

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parse = || {
            let (epoch, number) = text.split_once('-')?;
            Some(Self { epoch: u64::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? })
        };
        parse().ok_or_else(|| CursorError(text.chars().take(64).collect()))
    }
}

/// One entry of the controller's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub cursor: Cursor,
    pub time: Timestamp,
    /// The agent's epoch and number, if the news is an agent's; `None` if the controller made it.
    pub origin: Option<(u64, u64)>,
    pub news: News,
}

/// What the log tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// The `old` of each change of a node is the `new` of the one before it.
    Change(NotifyChange),
    Error(NotifyError),
    Log(NotifyLog),
    AgentsReady(NotifyAgentsReady),
}

/// Listen to the log from `since` on, from now on if `None`.
///
/// Batches arrive in order, each entry once; the next one is sent when the last was handled, so a slow observer
/// delays nobody. It is forgotten when its mailbox closes.
#[derive(Message)]
#[rtype(result = "Result<Subscribed, Unanswered>")]
pub struct Subscribe {
    /// The last entry already seen.
    pub since: Option<Cursor>,
    pub to: Recipient<NewsBatch>,
}

/// The answer to [`Subscribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// News follows behind this place: `since` if it is a place in this log, however far back.
    ///
    /// An earlier place of the same epoch where not so much of that is kept: whoever takes back what they saw behind it,
    /// and goes on with what follows, has seen each piece of news once. What agents told comes again with its origin.
    pub cursor: Cursor,
    /// Everything as of `cursor`; `None` if `since` is known here: all that is kept follows, behind a gap if not all is.
    pub snapshot: Option<GetStatusResponse>,
}

/// News for one observer. The result comes when the observer is ready for more.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct NewsBatch {
    /// Entries that this observer missed because the log no longer holds them; everything after is in `entries`.
    pub gap: Option<Gap>,
    /// In order; may be empty behind a gap.
    pub entries: Vec<Arc<Entry>>,
}

/// Entries that are gone for good, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub first: Cursor,
    pub last: Cursor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_what_it_prints() {
        let cursor = Cursor { epoch: 0x5f3a_9c01, number: 42 };
        assert_eq!(cursor.to_string(), "5f3a9c01-42");
        assert_eq!("5f3a9c01-42".parse(), Ok(cursor));
        for text in ["", "42", "-", "x-1", "1-x", "1-2-3"] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}

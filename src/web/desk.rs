//! The desk at which every request is put to the controller: one recipient per message.
//!
//! Recipients rather than an address, so that whatever answers these messages may stand behind it.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, MailboxError, Message, Recipient};

use super::problem::Problem;
use crate::controller::files::{GetBlobs, KeptBlobs};
use crate::message::client::*;
use crate::model::RequestId;
use crate::settings::LONGEST_REQUEST;

/// A message that the controller answers.
pub trait Question: Message<Result = Result<Self::Answer, Unanswered>> + Send + Sized + 'static {
    type Answer: Send + 'static;
    /// How long the edge waits; `None` leaves it to the controller, whose own deadline follows from the configuration.
    const PATIENCE: Option<Duration>;
    /// Whom to ask.
    fn recipient(desk: &Desk) -> &Recipient<Self>;
}

macro_rules! desk {
    ($($field:ident: $question:ident => $answer:ident within $patience:expr),* $(,)?) => {
        /// Where requests and subscriptions go; cheap to copy.
        #[derive(Clone)]
        pub struct Desk { $($field: Recipient<$question>),* }

        impl<A> From<Addr<A>> for Desk
        where
            A: Actor $(+ Handler<$question>)*,
            A::Context: Sized $(+ ToEnvelope<A, $question>)*,
        {
            fn from(controller: Addr<A>) -> Self {
                Self { $($field: controller.clone().recipient()),* }
            }
        }

        $(impl Question for $question {
            type Answer = $answer;
            const PATIENCE: Option<Duration> = $patience;
            fn recipient(desk: &Desk) -> &Recipient<Self> {
                &desk.$field
            }
        })*
    };
}

/// What the controller answers from memory.
const AT_ONCE: Option<Duration> = Some(Duration::from_secs(10));
/// What it asks its agents: longer than its own deadline for them, so that the nearer error arrives first.
pub const ASKED_AROUND: Duration = LONGEST_REQUEST.saturating_add(Duration::from_secs(15));
const ROUND_TRIP: Option<Duration> = Some(ASKED_AROUND);

desk! {
    get_instances: GetInstancesRequest => GetInstancesResponse within AT_ONCE,
    get_status: GetStatusRequest => GetStatusResponse within AT_ONCE,
    get_configuration: GetConfigurationRequest => GetConfigurationResponse within AT_ONCE,
    get_nodes: GetNodesRequest => GetNodesResponse within ROUND_TRIP,
    get_output: GetOutputRequest => GetOutputResponse within ROUND_TRIP,
    read_output: ReadOutputRequest => ReadOutputResponse within ROUND_TRIP,
    get_id_value: GetIdValueRequest => GetIdValueResponse within ROUND_TRIP,
    get_crashes: GetCrashesRequest => GetCrashesResponse within ROUND_TRIP,
    stage_configuration: StageConfigurationRequest => StageConfigurationResponse within ROUND_TRIP,
    plan: PlanRequest => PlanResponse within None,
    deploy: DeployRequest => DeployResponse within None,
    set_configuration: SetConfigurationRequest => SetConfigurationResponse within None,
    rollback: RollbackRequest => DeployResponse within None,
    get_history: GetHistoryRequest => GetHistoryResponse within AT_ONCE,
    get_tried: GetTriedRequest => GetTriedResponse within AT_ONCE,
    start: StartRequest => StartResponse within None,
    stop: StopRequest => StopResponse within None,
    restart: RestartRequest => RestartResponse within None,
    get_blobs: GetBlobs => KeptBlobs within AT_ONCE,
    subscribe: Subscribe => Subscribed within AT_ONCE,
}

impl Desk {
    /// Puts a question to the controller and waits for its answer.
    pub async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, Problem> {
        let answer = Q::recipient(self).send(question);
        let answer = match Q::PATIENCE {
            Some(patience) => answer.timeout(patience).await,
            None => answer.await,
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unanswered)) => Err(Problem::Unanswered),
            Err(MailboxError::Closed) => Err(Problem::NoController),
            Err(MailboxError::Timeout) => Err(Problem::Late),
        }
    }

    /// Whether there is still a controller to ask.
    pub fn is_open(&self) -> bool {
        self.get_status.connected()
    }
}

/// A request id that no earlier run of the controller has used: agents take a known id for a repetition.
pub fn new_reqid() -> Result<RequestId, Problem> {
    Ok(RequestId::new(&format!("http-{}", random_hex()?))?)
}

/// 64 random bits in hex.
pub fn random_hex() -> Result<String, Problem> {
    getrandom::u64().map(|bits| format!("{bits:016x}")).map_err(|error| Problem::Internal(error.to_string()))
}

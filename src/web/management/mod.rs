//! Zeek's Management framework as `zeek-client` speaks it: its events ⇄ [`crate::message::client`].
//!
//! [`schema`] knows the events, [`record`] the records in them, and [`reply`] puts the controller's answers into
//! results; [`news`] puts what agents tell into events, and [`serve`] lets clients in. The events come and go through [`super::broker`], which knows nothing
//! of what they mean.
//!
//! Only a request on the controller's own topic is one. Whatever else clients publish goes to other clients at most,
//! also on the topic of an agent: controller and agents have each other's mail from the bridge, never from here.

pub mod news;
pub mod record;
pub mod reply;
pub mod schema;
mod server;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Handler, MailboxError, Message};
use tokio::sync::OnceCell;

use self::record::{Age, Report};
use self::server::Presence;
use crate::controller::Controller;
use crate::message::client::*;
use crate::model::{Configuration, NodeName, RequestId};
use crate::plan::{self, PortRules};
use crate::web::broker::{Answers, ErrorMessage, Event, Host, Hub, Publication, Value};

pub use server::{Port, serve};

/// Where clients ask, and are answered.
const TOPIC: &str = "zeek/management/controller";
const MODULE: &str = "Management::Controller::API::";
/// The same in 2021.
const SEED_TOPIC: &str = "zeek/cluster-control/controller";
const SEED_MODULE: &str = "ClusterController::API::";

/// How the controller is presented to the framework's clients.
#[derive(Debug, Clone)]
pub struct ManagementSettings {
    /// The controller's name, as it is listed among the nodes of a lab.
    pub name: String,
    /// By when every request is answered with what is known: before its client gives up.
    pub answer_within: Duration,
    /// The controller's own rules, for complaints about what cannot even be put to it.
    pub ports: PortRules,
}

/// Answers the framework's requests. Cheap to copy.
#[derive(Clone)]
pub struct Management {
    controller: Addr<Controller>,
    hub: Hub,
    settings: Arc<ManagementSettings>,
    /// Asked for once.
    connected: Arc<OnceCell<Connected>>,
}

impl Host for Management {
    fn admit(&self, publication: &Publication) -> Result<(), ErrorMessage> {
        let event = &publication.event;
        schema::check(&event.name, &event.args).map_err(|misfit| {
            // Who sent it is in the log already, and may send a great many.
            tracing::debug!("refused an event: {misfit}");
            ErrorMessage::no_event()
        })
    }

    fn answer(&self, publication: Publication) -> Answers {
        let me = self.clone();
        Box::pin(async move {
            let Publication { topic, event } = publication;
            let answer = match topic.as_str() {
                TOPIC => me.answer_present(event).await,
                SEED_TOPIC => me.answer_seed(event).await,
                _ => None,
            };
            answer.map(|event| Publication::new(topic, event)).into_iter().collect()
        })
    }

    /// Nobody has to be told what happens while nobody is here.
    fn attend(&self) -> Box<dyn Any> {
        Box::new(Presence::begin(self.controller.clone(), self.hub.clone(), self.settings.name.clone()))
    }
}

/// What comes of a question: results, or no answer at all.
type Reports = Result<Vec<Report>, NoAnswer>;

/// Why there are no results.
enum NoAnswer {
    /// The request asks for silence, or is none.
    Silence,
    NoController,
}

/// How many results a response has.
#[derive(Clone, Copy)]
enum Shape {
    One,
    Many,
}

impl Management {
    /// `hub` is where news goes.
    pub fn new(controller: Addr<Controller>, hub: Hub, settings: ManagementSettings) -> Self {
        Self { controller, hub, settings: Arc::new(settings), connected: Arc::default() }
    }

    async fn answer_present(&self, event: Event) -> Option<Event> {
        let short = event.name.strip_prefix(MODULE)?.strip_suffix("_request")?.to_owned();
        let reqid = event.args.first()?.as_str()?.to_owned();
        let (shape, reports) = self.ask(&short, &reqid, &event.args).await?;
        respond(MODULE, &short, &reqid, Age::Present, shape, reports)
    }

    async fn ask(&self, short: &str, reqid: &str, args: &[Value]) -> Option<(Shape, Reports)> {
        use Shape::{Many, One};
        let id = request_id(reqid);
        Some(match (short, args) {
            ("get_instances", _) => {
                let connected = self.connected().await;
                (One, connected.map(|instances| reply::instances(&instances)))
            }
            ("stage_configuration", [_, configuration]) => (Many, self.stage(id, configuration).await),
            ("get_configuration", [_, deployed]) => {
                let deployed = deployed.as_bool()?;
                (One, self.put(GetConfigurationRequest { reqid: id, deployed }).await.map(reply::configuration))
            }
            ("deploy", _) => {
                (Many, self.put(DeployRequest { reqid: id, terms: Terms::default() }).await.map(reply::deployed))
            }
            ("get_nodes", _) => {
                let answer = self.put(GetNodesRequest { reqid: id }).await;
                (Many, answer.map(|answer| reply::nodes(&answer, &self.settings.name)))
            }
            ("get_id_value", [_, name, nodes]) => (Many, self.get_id_value(id, name.as_str()?, nodes).await),
            ("restart", [_, nodes]) => (Many, self.restart(id, nodes).await),
            ("test_timeout", [_, with_state]) => (One, self.test_timeout(id, with_state.as_bool()?).await),
            // `test_noop` is heard, and that is all.
            _ => return None,
        })
    }

    async fn answer_seed(&self, event: Event) -> Option<Event> {
        let short = event.name.strip_prefix(SEED_MODULE)?.strip_suffix("_request")?.to_owned();
        let reqid = event.args.first()?.as_str()?.to_owned();
        let id = request_id(&reqid);
        let (shape, reports) = match (short.as_str(), event.args.as_slice()) {
            // In 2021 these were the instances of the configuration in force, connected or not.
            ("get_instances", _) => {
                let answer = self.put(GetConfigurationRequest { reqid: id, deployed: true }).await;
                let instances =
                    |answer: GetConfigurationResponse| answer.configuration.map_or_else(|_| vec![], |it| it.instances);
                let list = |answer| vec![Report::of(Value::vector(instances(answer).iter().map(record::instance)))];
                (Shape::One, answer.map(list))
            }
            ("set_configuration", [_, configuration]) => (Shape::Many, self.set(id, configuration).await),
            ("test_timeout", [_, with_state]) => (Shape::One, self.test_timeout(id, with_state.as_bool()?).await),
            _ => return None,
        };
        respond(SEED_MODULE, &short, &reqid, Age::Seed, shape, reports)
    }

    /// Looked up here: it is asked for often, and needs no turn of the controller's.
    async fn connected(&self) -> Result<Arc<[InstanceStatus]>, NoAnswer> {
        let watch = || async { self.controller.send(WatchConnected).await };
        let connected = self.connected.get_or_try_init(watch).await.map_err(|_| NoAnswer::NoController)?;
        // A controller that is gone no longer knows.
        connected.has_changed().map_err(|_| NoAnswer::NoController)?;
        Ok(Arc::clone(&connected.borrow()))
    }

    async fn stage(&self, reqid: RequestId, configuration: &Value) -> Reports {
        match self.read(configuration, Age::Present) {
            Ok(configuration) => self.put(StageConfigurationRequest { reqid, configuration }).await.map(reply::staged),
            Err(complaints) => Ok(complaints.into_iter().map(Report::failed).collect()),
        }
    }

    async fn set(&self, reqid: RequestId, configuration: &Value) -> Reports {
        match self.read(configuration, Age::Seed) {
            Ok(configuration) => self
                .put(SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() })
                .await
                .map(reply::set),
            Err(complaints) => Ok(vec![Report::failed(complaints.join(", "))]),
        }
    }

    /// A configuration, or every complaint about it, sorted: also those that the controller would have.
    fn read(&self, value: &Value, age: Age) -> Result<Configuration, Vec<String>> {
        let (configuration, mut complaints) = record::read_configuration(value, age);
        if complaints.is_empty() {
            return Ok(configuration);
        }
        complaints.extend(plan::validate(&configuration, &self.settings.ports));
        Err(complaints.into_iter().collect())
    }

    async fn get_id_value(&self, reqid: RequestId, id: &str, names: &Value) -> Reports {
        let names = Names::read(names);
        let nodes = names.asked.clone();
        let answer = self.put(GetIdValueRequest { reqid, id: id.to_owned(), nodes }).await;
        answer.map(|answer| names.with_the_unknown(reply::values(answer)))
    }

    async fn restart(&self, reqid: RequestId, names: &Value) -> Reports {
        let names = Names::read(names);
        let answer = self.put(RestartRequest { reqid, nodes: names.asked.clone() }).await;
        answer.map(|answer| names.with_the_unknown(reply::restarted(&answer)))
    }

    async fn test_timeout(&self, reqid: RequestId, with_state: bool) -> Reports {
        self.put(TestTimeoutRequest { reqid, with_state }).await.map(|answer| reply::timed_out(&answer))
    }

    /// Puts a question to the controller, which answers it in time.
    async fn put<Q, A>(&self, request: Q) -> Result<A, NoAnswer>
    where
        Q: Message<Result = Result<A, Unanswered>> + Send + 'static,
        A: Send + 'static,
        Controller: Handler<Within<Q>>,
    {
        let within = self.settings.answer_within;
        match self.controller.send(Within { within, request }).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unanswered)) => Err(NoAnswer::Silence),
            Err(MailboxError::Closed | MailboxError::Timeout) => Err(NoAnswer::NoController),
        }
    }
}

/// Nodes as a client named them.
struct Names {
    asked: BTreeSet<NodeName>,
    /// What no node can be called.
    unknown: Vec<String>,
}

impl Names {
    /// No node has this name, which cluster files reserve.
    const NOBODY: &str = "DEFAULT";

    fn read(value: &Value) -> Self {
        let (mut asked, unknown) = record::read_names(value);
        if asked.is_empty() && !unknown.is_empty() {
            // None at all would mean every node, and the controller has the first word in any case.
            asked.extend(NodeName::new(Self::NOBODY));
        }
        Self { asked, unknown }
    }

    /// The results, with those of the names that the controller was not asked for, unless it refused all.
    fn with_the_unknown(self, mut reports: Vec<Report>) -> Vec<Report> {
        if let [Report { node: None, instance: None, error: Some(_), .. }] = reports[..] {
            return reports;
        }
        if !self.unknown.is_empty() {
            reports.retain(|report| report.node.as_deref() != Some(Self::NOBODY));
        }
        let unknown = |node| Report { node: Some(node), ..Report::failed("unknown cluster node") };
        reports.extend(self.unknown.into_iter().map(unknown));
        reports
    }
}

/// The id of a request as the controller may have it. Clients choose what they like, also what others have chosen: it
/// only comes up where people read of it.
fn request_id(text: &str) -> RequestId {
    // A short printable text.
    RequestId::new(text).unwrap_or_else(|_| RequestId::new("unreadable").expect("a valid id"))
}

fn respond(module: &str, short: &str, reqid: &str, age: Age, shape: Shape, reports: Reports) -> Option<Event> {
    let reports = match reports {
        Ok(reports) => reports,
        Err(NoAnswer::Silence) => return None,
        Err(NoAnswer::NoController) => vec![Report::failed("the controller is stopping")],
    };
    let mut results = reports.into_iter().map(|report| report.into_value(reqid, age));
    let result = match shape {
        Shape::One => results.next()?,
        Shape::Many => Value::Vector(results.collect()),
    };
    Some(Event::new(format!("{module}{short}_response"), vec![Value::string(reqid), result]))
}

#[cfg(test)]
mod tests;

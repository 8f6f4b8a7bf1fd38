//! What agents tell, as the framework's events: `notify_change`, `notify_error`, `notify_log`.
//!
//! They go out on the topic of the agent, as the framework declares them, and never on the controller's: the client
//! takes every message there for a sign that its own answer may still come.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record;
use crate::message::agent::{NotifyChange, NotifyError, NotifyLog};
use crate::message::client::{Entry, Gap, News};
use crate::model::{Configuration, ConfigurationId, InstanceName, Node, NodeName, NodeState};
use crate::web::broker::Value;
use crate::web::broker::data::Timestamp;
use crate::web::broker::{Event, Publication};

const TOPIC: &str = "zeek/management/agent";
const MODULE: &str = "Management::Agent::API::";
/// The number of the metadata that says when something happened.
const NETWORK_TIME: u64 = 1;

/// Puts news into events. It knows how nodes are defined, which the news does not say.
#[derive(Debug, Default)]
pub struct Teller {
    id: Option<ConfigurationId>,
    nodes: BTreeMap<NodeName, Arc<Node>>,
}

impl Teller {
    /// Whether the definition of a node that this tells of may have changed since the last [`Teller::learn`].
    pub fn needs_to_learn(&self, entry: &Entry) -> bool {
        match &entry.news {
            // Nothing comes to run under another definition without a launch.
            News::Change(change) => change.new == NodeState::Pending || !self.nodes.contains_key(&change.node),
            _ => false,
        }
    }

    /// The configuration that was learnt last.
    pub fn knows(&self) -> Option<&ConfigurationId> {
        self.id.as_ref()
    }

    /// Takes in what is deployed.
    pub fn learn(&mut self, deployed: Configuration) {
        self.id = Some(deployed.id);
        self.nodes = deployed.nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
    }

    /// The event, if it is one that the framework has.
    pub fn tell(&self, entry: &Entry) -> Option<Publication> {
        let (instance, name, rest) = match &entry.news {
            News::Change(change) => (&change.instance, "notify_change", self.change(change).to_vec()),
            News::Error(NotifyError { instance, node, msg, .. }) => {
                (instance, "notify_error", words(msg, node.as_ref()))
            }
            News::Log(NotifyLog { instance, node, msg, .. }) => (instance, "notify_log", words(msg, node.as_ref())),
            News::AgentsReady(_) => return None,
        };
        let args = [Value::from(instance.as_str())].into_iter().chain(rest).collect();
        let mut event = Event::new(format!("{MODULE}{name}"), args);
        let time = i64::try_from(entry.time.0 / 1000).ok().and_then(Timestamp::from_millis);
        event.metadata = time.map(|time| (NETWORK_TIME, time.into())).into_iter().collect();
        Some(Publication::new(topic(instance), event))
    }

    /// What the log no longer held for us, as an error that the controller itself tells.
    pub fn tell_gap(controller: &str, gap: &Gap) -> Publication {
        let msg = format!("events {} to {} of the log are not told here: they came too fast", gap.first, gap.last);
        let args = vec![controller.into(), msg.into(), "".into()];
        Publication::new(format!("{TOPIC}/{controller}"), Event::new(format!("{MODULE}notify_error"), args))
    }

    fn change(&self, change: &NotifyChange) -> [Value; 3] {
        let NotifyChange { instance, node, role, old, new, .. } = change;
        let known = self.nodes.get(node).filter(|known| known.instance == *instance);
        let node = match known {
            Some(known) => record::node(known, *new),
            None => record::node(&Node::new(node.clone(), instance.clone(), *role), *new),
        };
        [node, record::state(*old), record::state(*new)]
    }
}

fn words(msg: &str, node: Option<&NodeName>) -> Vec<Value> {
    vec![msg.into(), node.map_or("", NodeName::as_str).into()]
}

fn topic(instance: &InstanceName) -> String {
    format!("{TOPIC}/{instance}")
}

//! Orders that wait for nodes: each is answered once every node it names has come to what was wished, or cannot.

use std::collections::BTreeMap;

use crate::message::agent::{
    AgentStandbyResponse, CheckedChange, RestartResponse, RestoreConfigurationResponse, SetConfigurationResponse,
    StartResponse, StopResponse, SwitchNodesResponse, ToController,
};
use crate::model::{InstanceName, NodeName, Outcome, Output, RequestId};

/// Which order it was, and so which answer it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Configure,
    Switch,
    Restore,
    Standby,
    Start,
    Stop,
    Restart,
}

/// What an order wishes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Up,
    Down,
}

/// The open orders of one agent, oldest first.
#[derive(Debug, Clone)]
pub struct Jobs {
    instance: InstanceName,
    open: Vec<Job>,
}

#[derive(Debug, Clone)]
struct Job {
    kind: Kind,
    reqid: RequestId,
    waits: BTreeMap<NodeName, Wish>,
    outcomes: BTreeMap<NodeName, Outcome>,
    /// What its answer says besides: the nodes that it leaves alone for now.
    waiting: Vec<CheckedChange>,
}

impl Jobs {
    /// No orders; answers will speak for `instance`.
    pub fn new(instance: InstanceName) -> Self {
        Self { instance, open: Vec::new() }
    }

    /// An order has come. One that waits for nothing is answered by the next [`Jobs::take_done`].
    pub fn open(&mut self, kind: Kind, reqid: RequestId, waits: impl IntoIterator<Item = (NodeName, Wish)>) {
        self.open_beside(kind, reqid, waits, []);
    }

    /// An order has come that also names `strangers`, which are no nodes of this instance: their outcome is said so.
    pub fn open_beside(
        &mut self,
        kind: Kind,
        reqid: RequestId,
        waits: impl IntoIterator<Item = (NodeName, Wish)>,
        strangers: impl IntoIterator<Item = NodeName>,
    ) {
        let unknown = |name: NodeName| {
            let error = "its instance does not have it".to_owned();
            (name.clone(), Outcome::node_failed(&self.instance, &name, error, None))
        };
        let outcomes = strangers.into_iter().map(unknown).collect();
        self.open.push(Job { kind, reqid, waits: waits.into_iter().collect(), outcomes, waiting: Vec::new() });
    }

    /// An order has come to go back, which leaves these nodes alone until they have their turn.
    pub fn open_beside_waiting(
        &mut self,
        reqid: RequestId,
        waits: impl IntoIterator<Item = (NodeName, Wish)>,
        waiting: Vec<CheckedChange>,
    ) {
        self.open(Kind::Restore, reqid, waits);
        if let Some(job) = self.open.last_mut() {
            job.waiting = waiting;
        }
    }

    /// Whether that order still waits for a node.
    pub fn is_open(&self, kind: Kind, reqid: &RequestId) -> bool {
        self.open.iter().any(|job| job.kind == kind && job.reqid == *reqid)
    }

    /// A node came to `wish`, or cannot: every order that waits for it has its outcome.
    pub fn settle(&mut self, node: &NodeName, wish: Wish, result: Result<(), &str>, output: Option<&Output>) {
        for job in self.open.iter_mut().filter(|job| job.waits.get(node) == Some(&wish)) {
            job.waits.remove(node);
            let outcome = match result {
                Ok(()) => Outcome::node_done(&self.instance, node),
                Err(error) => Outcome::node_failed(&self.instance, node, error.into(), output.cloned()),
            };
            // What left a configuration as it should is no longer worth a word in its answer.
            let is_news = result.is_err() || wish == Wish::Up || job.kind == Kind::Stop;
            if is_news {
                job.outcomes.insert(node.clone(), outcome);
            }
        }
    }

    /// The answers to all orders that wait for nothing more, oldest first.
    pub fn take_done(&mut self) -> Vec<ToController> {
        if self.open.iter().all(|job| !job.waits.is_empty()) {
            return Vec::new(); // asked after every event, and mostly so
        }
        let (done, open) = std::mem::take(&mut self.open).into_iter().partition(|job| job.waits.is_empty());
        self.open = open;
        let done: Vec<Job> = done;
        done.into_iter().map(|job| job.answer(&self.instance)).collect()
    }
}

/// How much output one answer carries, in bytes: far below the longest frame, far above what anybody reads.
pub(super) const MOST_OUTPUT: usize = 4 << 20;

/// A thousand nodes that fail in the same way need not all show their output.
pub(super) fn leave_out_output_beyond(most: usize, outcomes: &mut [Outcome]) {
    let mut bytes = 0;
    for outcome in outcomes {
        bytes += outcome.output.as_ref().map_or(0, |output| output.stdout.len() + output.stderr.len());
        if bytes > most {
            outcome.output = None;
        }
    }
}

impl Job {
    fn answer(self, instance: &InstanceName) -> ToController {
        let Self { kind, reqid, outcomes, waiting, .. } = self;
        let mut outcomes: Vec<Outcome> = outcomes.into_values().collect();
        leave_out_output_beyond(MOST_OUTPUT, &mut outcomes);
        match kind {
            Kind::Standby => {
                let failed = outcomes.into_iter().find(|outcome| !outcome.is_success());
                let outcome = failed.unwrap_or_else(|| Outcome::instance_done(instance));
                AgentStandbyResponse { reqid, outcome }.into()
            }
            Kind::Configure | Kind::Switch | Kind::Restore => {
                if outcomes.is_empty() {
                    outcomes.push(Outcome::instance_done(instance));
                }
                match kind {
                    Kind::Switch => SwitchNodesResponse { reqid, outcomes }.into(),
                    Kind::Restore => RestoreConfigurationResponse { reqid, outcomes, waiting }.into(),
                    _ => SetConfigurationResponse { reqid, outcomes }.into(),
                }
            }
            Kind::Start => StartResponse { reqid, outcomes }.into(),
            Kind::Stop => StopResponse { reqid, outcomes }.into(),
            Kind::Restart => RestartResponse { reqid, outcomes }.into(),
        }
    }
}

//! Before a configuration comes into force: everything is looked at, and as long as there is something to object nothing is
//! started, changed or stopped.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Effect, Goal, InForce, State};
use crate::agent::jobs::{self, Kind};
use crate::archive::Wish;
use crate::launch::zeek::{Objection, Preparation};
use crate::message::agent::*;
use crate::model::{
    Configuration, CurveKeys, LayoutEntry, Node, NodeName, NodeState, Now, Outcome, RequestId, Role, Timestamp,
};
use crate::plan::{self, NodeChange};

/// Why nothing comes of what is being looked at when there is something else to look at.
pub(super) const OVERTAKEN: &str = "a newer configuration came before it was looked at";

/// A configuration that is being looked at.
#[derive(Debug, Clone)]
pub(super) struct Preparing {
    /// Late findings about another one say nothing about this one.
    number: u64,
    purpose: Purpose,
    configuration: InForce,
    /// Whether something would be started or changed, so that objections count.
    counts: bool,
}

/// What is to become of what is looked at.
#[derive(Debug, Clone)]
enum Purpose {
    /// It is kept at hand.
    Check(RequestId),
    /// It comes into force; those nodes rest.
    Configure(RequestId, BTreeSet<NodeName>),
    /// It was in force before, and is again.
    Restore(RequestId, Back),
}

/// How all goes back to what was in force before.
#[derive(Debug, Clone)]
pub(super) struct Back {
    /// Those nodes are to run.
    pub up: BTreeSet<NodeName>,
    pub at_once: bool,
}

/// What of a cluster is not in what its nodes know.
#[derive(Debug)]
struct Rendering {
    layout: Vec<LayoutEntry>,
    keys: Option<Box<CurveKeys>>,
}

/// A configuration to which nobody objects.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub configuration: InForce,
    /// The request by which it was looked at, if it was before it is to come into force.
    pub checked: Option<RequestId>,
    /// Nodes that are as they are in it, or were to be.
    pub switched: BTreeSet<NodeName>,
}

impl Purpose {
    fn reqid(&self) -> &RequestId {
        let (Self::Check(reqid) | Self::Configure(reqid, _) | Self::Restore(reqid, _)) = self;
        reqid
    }

    /// The answer to whoever asked, where nothing comes of it.
    fn refusal(self, outcomes: Vec<Outcome>) -> ToController {
        match self {
            Self::Check(reqid) => CheckConfigurationResponse { reqid, outcomes, changes: Vec::new() }.into(),
            Self::Configure(reqid, _) => SetConfigurationResponse { reqid, outcomes }.into(),
            Self::Restore(reqid, _) => RestoreConfigurationResponse { reqid, outcomes, waiting: Vec::new() }.into(),
        }
    }
}

impl State {
    /// Looks whether a configuration could come into force.
    pub(super) fn check(&mut self, request: CheckConfigurationRequest, fx: &mut Vec<Effect>) {
        let CheckConfigurationRequest { reqid, configuration } = request;
        let purpose = Purpose::Check(reqid);
        match self.understood(configuration.open()) {
            Err(why) => self.refuse(purpose, why),
            Ok((configuration, rendering)) => {
                self.give_up_preparing(OVERTAKEN);
                self.staged = None;
                self.prepare(purpose, configuration, rendering, fx);
            }
        }
    }

    pub(super) fn configure(&mut self, request: SetConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let SetConfigurationRequest { reqid, configuration, rest } = request;
        let (configuration, rendering) = match self.understood(configuration.open()) {
            Ok(understood) => understood,
            Err(why) => return self.refuse(Purpose::Configure(reqid, rest), why),
        };
        if self.is_in_force(&configuration) {
            let outcomes = vec![Outcome::instance_done(&self.instance)];
            return self.answer(SetConfigurationResponse { reqid, outcomes });
        }
        self.give_up_preparing(OVERTAKEN);
        configuration.nodes.iter().for_each(|node| self.define(node, wall, fx));
        match self.staged.take_if(|staged| staged.configuration.is(&configuration)) {
            Some(staged) => self.adopt(reqid, *staged, &rest, wall, fx),
            None if configuration.is_prepared() => {
                self.prepare(Purpose::Configure(reqid, rest), configuration, rendering, fx)
            }
            None => self.adopt(reqid, Staged::new(configuration), &rest, wall, fx),
        }
    }

    pub(super) fn restore(&mut self, request: RestoreConfigurationRequest, wall: Timestamp, fx: &mut Vec<Effect>) {
        let RestoreConfigurationRequest { reqid, configuration, up, at_once } = request;
        let back = Back { up, at_once };
        let (configuration, rendering) = match self.understood(configuration.open()) {
            Ok(understood) => understood,
            Err(why) => return self.refuse(Purpose::Restore(reqid, back), why),
        };
        self.give_up_preparing("what was in force before is in force again");
        self.staged = None;
        let known = self.configuration.as_ref().filter(|present| present.is(&configuration));
        match known.and_then(|known| known.files) {
            None if configuration.is_prepared() => {
                self.prepare(Purpose::Restore(reqid, back), configuration, rendering, fx)
            }
            files => self.go_back(reqid, InForce { files, ..configuration }, &back, wall, fx),
        }
    }

    /// A configuration as this agent would have it, and what its cluster is rendered from; or why it cannot have it.
    fn understood(&self, mut configuration: Configuration) -> Result<(InForce, Rendering), String> {
        let layout = plan::zeek::equip(&mut configuration).map_err(|error| error.to_string())?;
        let rendering = Rendering { layout, keys: configuration.keys.take() };
        let archive = Wish::of(&configuration, &self.instance).map(Box::new);
        configuration.nodes.retain(|node| node.instance == self.instance);
        let configuration = InForce { archive, ..configuration.into() };
        match &self.configuration {
            Some(present) if present.id == configuration.id && !present.is(&configuration) => {
                Err(format!("configuration {} is in force with other contents: deploy under a new id", present.id))
            }
            _ => Ok((configuration, rendering)),
        }
    }

    pub(super) fn is_in_force(&self, configuration: &InForce) -> bool {
        !self.strays && self.configuration.as_ref().is_some_and(|present| present.id == configuration.id)
    }

    /// What leads from how nodes are to how they are in `configuration`. Of a node whose record was lost nobody knows that
    /// it is another.
    pub(super) fn changes_to<'a>(&self, have: &'a [Arc<Node>], configuration: &'a InForce) -> Vec<NodeChange<'a>> {
        let mut changes = plan::diff::nodes(have, configuration.nodes.iter());
        for change in &mut changes {
            if let NodeChange::Replace { want, .. } = change
                && self.nodes.get(&want.name).is_some_and(|entry| entry.guessed)
            {
                *change = NodeChange::Keep(want);
            }
        }
        changes
    }

    pub(super) fn definitions(&self) -> Vec<Arc<Node>> {
        self.nodes.values().map(|entry| Arc::clone(entry.definition())).collect()
    }

    fn prepare(&mut self, purpose: Purpose, configuration: InForce, rendering: Rendering, fx: &mut Vec<Effect>) {
        let Rendering { layout, keys } = rendering;
        let have = self.definitions();
        // Nobody is asked about what ran before: it comes back as it was.
        let changes = match purpose {
            Purpose::Restore(..) => Vec::new(),
            Purpose::Check(_) | Purpose::Configure(..) => self.changes_to(&have, &configuration),
        };
        let launches: Vec<Arc<Node>> = changes.iter().filter_map(to_launch).map(Arc::clone).collect();
        let count = launches.len();
        let nodes: Vec<Arc<Node>> = launches.into_iter().filter(|node| node.is_zeek()).collect();
        let counts = match purpose {
            Purpose::Check(_) => count > 0,
            Purpose::Configure(..) | Purpose::Restore(..) => !nodes.is_empty(),
        };
        let with_files: Vec<_> = configuration.nodes.iter().filter(|node| node.files.is_some()).cloned().collect();
        self.note_files(&with_files);
        let zeek = configuration.zeek.as_deref().cloned().unwrap_or_default();
        self.next_preparation += 1;
        let number = self.next_preparation;
        let ours = self.nodes.values().flat_map(|entry| ports(&entry.node)).collect();
        let renders = configuration.has_zeek();
        fx.push(Effect::Prepare(
            number,
            Box::new(Preparation { number, zeek, layout, keys, nodes, with_files, ours, renders, launches: count }),
        ));
        self.preparing = Some(Box::new(Preparing { number, purpose, configuration, counts }));
    }

    /// Everything was looked at.
    pub(super) fn prepared(&mut self, number: u64, objections: Vec<Objection>, now: Now, fx: &mut Vec<Effect>) {
        let Some(preparing) = self.preparing.take_if(|preparing| preparing.number == number) else { return };
        let Preparing { purpose, mut configuration, counts, .. } = *preparing;
        if counts && !objections.is_empty() {
            let outcome = |Objection { node, what, output }| match node {
                Some(node) => Outcome::node_failed(&self.instance, &node, what, output),
                None => Outcome::instance_failed(&self.instance, what),
            };
            return self.answer(purpose.refusal(objections.into_iter().map(outcome).collect()));
        }
        configuration.files = Some(number).filter(|_| objections.is_empty() && configuration.has_zeek());
        // What runs goes on as it is, and what it would be launched by is as it was.
        for Objection { node, what, .. } in objections {
            self.notify_error(node, what, now.wall);
        }
        match purpose {
            Purpose::Configure(reqid, rest) => self.adopt(reqid, Staged::new(configuration), &rest, now.wall, fx),
            Purpose::Restore(reqid, back) => self.go_back(reqid, configuration, &back, now.wall, fx),
            Purpose::Check(reqid) => {
                let have = self.definitions();
                let changes = self.changes_to(&have, &configuration);
                let changes = changes.iter().filter_map(checked_change).collect();
                let outcomes = vec![Outcome::instance_done(&self.instance)];
                let checked = Some(reqid.clone());
                self.staged = Some(Box::new(Staged { checked, ..Staged::new(configuration) }));
                self.answer(CheckConfigurationResponse { reqid, outcomes, changes });
            }
        }
    }

    /// Makes a configuration the one in force. Of these nodes, which somebody has stopped, none is started.
    pub(super) fn adopt(
        &mut self,
        reqid: RequestId,
        staged: Staged,
        rest: &BTreeSet<NodeName>,
        wall: Timestamp,
        fx: &mut Vec<Effect>,
    ) {
        let Staged { configuration: wished, switched, .. } = staged;
        let have = self.definitions();
        let mut changes = self.changes_to(&have, &wished);
        // The same configuration told again, to the next run of the agent, starts nothing that was stopped since, nor
        // what was given up.
        let is_told_again = self.configuration.is_none() && self.was_in_force.as_ref() == Some(&wished.id);
        let entry = |name: &NodeName| self.nodes.get(name).filter(|_| is_told_again);
        let is_given_up = |name: &NodeName| entry(name).is_some_and(|entry| entry.status.state == NodeState::Failed);
        // Who waits for its next life, and is defined as before, goes on waiting, and is forgiven nothing.
        let waits = |name: &NodeName| self.nodes.get(name).is_some_and(|entry| entry.waits());
        let rests = |name: &NodeName| rest.contains(name) || entry(name).is_some_and(|entry| entry.goal == Goal::Rest);
        let rests: BTreeSet<NodeName> =
            changes.iter().map(NodeChange::name).filter(|name| rests(name)).cloned().collect();
        // What was switched is as it is wanted, and whoever waits for that has heard of it.
        let is_left_alone = |name: &NodeName| {
            (rests.contains(name) || is_given_up(name) || waits(name) || switched.contains(name)) && !self.leaves(name)
        };
        changes.retain(|change| !matches!(change, NodeChange::Keep(node) if is_left_alone(&node.name)));
        let waits = changes.iter().filter_map(|change| match change {
            NodeChange::Remove(_) => Some((change.name().clone(), jobs::Wish::Down)),
            _ => (!rests.contains(change.name())).then(|| (change.name().clone(), jobs::Wish::Up)),
        });
        self.jobs.open(Kind::Configure, reqid, waits);
        self.use_files(&wished, fx);
        for change in changes {
            match rests.contains(change.name()) {
                true => self.begin_at_rest(change, wall, fx),
                false => self.begin(change, wall, fx),
            }
        }
        self.is_now(wished, fx);
    }

    /// Has a node become what it is to be.
    pub(super) fn begin(&mut self, change: NodeChange<'_>, wall: Timestamp, fx: &mut Vec<Effect>) {
        match change {
            NodeChange::Keep(node) => self.want_up(&node.name, fx),
            NodeChange::Remove(node) => self.want_down(&node.name, Goal::Leave, fx),
            NodeChange::Start(node) => {
                self.take_in(Arc::clone(node), NodeState::Stopped, None, wall, fx);
                self.want_up(&node.name, fx);
            }
            NodeChange::Replace { have, want, keys } => {
                let msg = format!("started afresh, because {}", plan::steps::because(have, want, &keys));
                self.notify_log(Some(want.name.clone()), msg, wall);
                if let Some(entry) = self.nodes.get_mut(&want.name) {
                    entry.next = Some(Arc::clone(want));
                }
                self.want_afresh(&want.name, fx);
            }
        }
    }

    /// Nodes are on their way to what this says.
    pub(super) fn is_now(&mut self, mut configuration: InForce, fx: &mut Vec<Effect>) {
        fx.push(Effect::Remember(configuration.id.clone()));
        fx.extend(configuration.archive.take().map(Effect::Archive));
        (self.staged, self.strays) = (None, false);
        if let Some(former) = self.configuration.replace(configuration) {
            self.keep_files(&former, fx);
        }
    }

    /// What was in force before can be gone back to without fetching anything; and who has not ended yet still reads its
    /// files. Of what was before that nothing is needed.
    fn keep_files(&mut self, former: &InForce, fx: &mut Vec<Effect>) {
        let present = self.configuration.iter().flat_map(|present| present.nodes.iter());
        let running = self.nodes.values().map(|entry| &entry.node);
        let with_files = former.nodes.iter().chain(present).chain(running).filter(|node| node.files.is_some());
        let nodes: Vec<Arc<Node>> = with_files.cloned().collect();
        let names: BTreeSet<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
        // Also of nodes that were only looked at, and of those that left.
        let gone: BTreeSet<NodeName> = self.with_files.difference(&names).cloned().collect();
        if !names.is_empty() || !gone.is_empty() {
            fx.push(Effect::KeepFiles { nodes, gone });
        }
        self.with_files = names;
    }

    /// Files of these nodes will be on disk, for those that are to have some.
    pub(super) fn note_files<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Arc<Node>>) {
        let with_files = nodes.into_iter().filter(|node| node.files.is_some());
        self.with_files.extend(with_files.map(|node| node.name.clone()));
    }

    pub(super) fn use_files(&mut self, configuration: &InForce, fx: &mut Vec<Effect>) {
        if std::mem::take(&mut self.tries_files) || configuration.files.is_some() {
            fx.push(Effect::UseFiles(configuration.files));
        }
    }

    /// Whether what came under that number is still to be looked at.
    pub fn looks_at(&self, number: u64) -> bool {
        self.preparing.as_ref().is_some_and(|preparing| preparing.number == number)
    }

    /// Whether that request waits for what is being looked at.
    pub(super) fn is_preparing(&self, reqid: &RequestId) -> bool {
        self.preparing.as_ref().is_some_and(|preparing| preparing.purpose.reqid() == reqid)
    }

    /// Whoever waits for what is being looked at waits in vain.
    pub(super) fn give_up_preparing(&mut self, why: &str) {
        if let Some(preparing) = self.preparing.take() {
            self.refuse(preparing.purpose, why.to_owned());
        }
    }

    fn refuse(&mut self, purpose: Purpose, why: String) {
        let outcomes = vec![Outcome::instance_failed(&self.instance, why)];
        self.answer(purpose.refusal(outcomes));
    }
}

impl Staged {
    fn new(configuration: InForce) -> Self {
        Self { configuration, checked: None, switched: BTreeSet::new() }
    }
}

impl InForce {
    fn has_zeek(&self) -> bool {
        self.nodes.iter().any(|node| node.is_zeek())
    }

    /// Whether something has to be laid down before nodes can be launched.
    fn is_prepared(&self) -> bool {
        self.nodes.iter().any(|node| node.is_zeek() || node.files.is_some())
    }
}

/// Whether a change launches the node: as it is then.
fn to_launch<'a>(change: &NodeChange<'a>) -> Option<&'a Arc<Node>> {
    match change {
        NodeChange::Start(node) | NodeChange::Replace { want: node, .. } => Some(node),
        NodeChange::Keep(_) | NodeChange::Remove(_) => None,
    }
}

/// What a controller has to know of a change that launches the node.
pub(super) fn checked_change(change: &NodeChange<'_>) -> Option<CheckedChange> {
    let runs = matches!(change, NodeChange::Replace { .. });
    let node = to_launch(change)?;
    Some(CheckedChange { node: node.name.clone(), role: node.role, runs, shares: node.interface.clone() })
}

/// Every port that a node listens on while it runs.
pub(super) fn ports(node: &Node) -> BTreeSet<u16> {
    // All know them, and the manager listens there.
    let hub = node.zeek.as_ref().filter(|_| node.role == Role::Manager);
    let hub = hub.and_then(|zeek| zeek.knows.as_ref()?.settings.zeromq_ports);
    [node.port, node.metrics_port].into_iter().flatten().chain(hub.into_iter().flatten()).collect()
}

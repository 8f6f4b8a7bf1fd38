//! Instances that what is deployed does not have any more: they are told to stand by when it is decided, and what they run
//! ends. So they have to be reached like all the others, unless whoever deploys gives them up by name.

use std::collections::BTreeSet;

use super::{Deployment, Phase};
use crate::controller::kept::Kept;
use crate::controller::state::{Effect, State};
use crate::model::{InstanceName, NodeName, Now, Outcome};
use crate::request::Answered;

impl State {
    /// The instances of what is in force that this one does not have, and that may run something.
    pub(in crate::controller::state) fn leaving(&self, configuration: &Kept) -> BTreeSet<InstanceName> {
        let Some(former) = self.shelf.deployed() else { return BTreeSet::new() };
        let stay: BTreeSet<&InstanceName> = configuration.instances.iter().map(|instance| &instance.name).collect();
        let gone = former.instances.iter().map(|instance| &instance.name).filter(|name| !stay.contains(name));
        let runs = |name: &&InstanceName| {
            former.names_on(name).next().is_some()
                || self.has_yet_to_follow(name)
                || self.nodes.iter().any(|status| status.instance == **name)
        };
        gone.filter(runs).cloned().collect()
    }

    /// What is said of instances that nobody is to wait for, and that are neither in it nor in what is in force.
    pub(in crate::controller::state) fn strangers(
        &self,
        without: &BTreeSet<InstanceName>,
        configuration: &Kept,
    ) -> Vec<Outcome> {
        let former = self.shelf.deployed();
        let is_known = |name: &InstanceName| configuration.has(name) || former.is_some_and(|former| former.has(name));
        let strangers = without.iter().filter(|name| !is_known(name));
        strangers.map(|name| Outcome::failed(format!("`{name}` is no instance of the configuration"))).collect()
    }

    /// Those of the leaving ones that are waited for and out of reach, and what is known of the cause.
    pub(super) fn missing_leavers(&self, deployment: &Deployment) -> Vec<Outcome> {
        let missing = deployment.awaited_leavers().filter(|name| self.roster.link(name).is_none());
        missing.map(|name| Outcome::instance_failed(name, self.why_it_cannot_leave(name))).collect()
    }

    /// Why what an instance runs that leaves cannot be ended, and what to do.
    pub(in crate::controller::state) fn why_it_cannot_leave(&self, name: &InstanceName) -> String {
        let why = self.roster.why_away(name);
        format!(
            "{why}. It is to leave, and what it runs would run on: wait for it, or give it up with `--without {name}`"
        )
    }

    /// The nodes that leave such an instance for another one.
    pub(in crate::controller::state) fn nodes_that_leave(&self, name: &InstanceName, wanted: &Kept) -> Vec<NodeName> {
        let former = self.shelf.deployed();
        let its: BTreeSet<NodeName> = former.into_iter().flat_map(|former| former.names_on(name)).collect();
        match its.is_empty() {
            true => Vec::new(),
            false => wanted.heads().map(|head| head.name()).filter(|node| its.contains(node)).collect(),
        }
    }

    /// It stands by, or says why not: whoever deploys need not wait for it any longer.
    pub(in crate::controller::state) fn has_left(
        &mut self,
        name: &InstanceName,
        outcome: Outcome,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(deployment) = self
            .deployment
            .as_ref()
            .filter(|deployment| deployment.phase == Phase::Telling && deployment.leaving.contains(name))
        else {
            return;
        };
        let is_complete = match self.requests.answer(&deployment.inner.clone(), name, |_| {}) {
            Answered::Late => return,
            Answered::Waiting(_) => false,
            Answered::Complete(_) => true,
        };
        self.change(|deployment| deployment.note([Outcome { instance: Some(name.clone()), ..outcome }]));
        if is_complete {
            self.complete(now, fx);
        }
    }
}

impl Deployment {
    /// Those who leave, and are waited for.
    pub(super) fn awaited_leavers(&self) -> impl Iterator<Item = &InstanceName> {
        self.leaving.iter().filter(|name| !self.without.contains(*name))
    }
}

/// What is to be known of nodes that are started elsewhere although nobody can end them where they are.
pub(in crate::controller::state) fn may_run_twice(nodes: &[String]) -> String {
    let (named, is) = (nodes.join(", "), if nodes.len() == 1 { "is" } else { "are" });
    format!("{named} {is} started elsewhere, and may run twice until it is back or stopped")
}

//! What a deployment would do: every agent that would be part of it is asked, and nothing is changed anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::deployment::{dial, may_run_twice};
use super::open::{Parent, sorted};
use super::{Effect, State, TIMED_OUT, Ticket};
use crate::controller::kept::Kept;
use crate::controller::store::Slot;
use crate::message::agent::InspectConfigurationRequest;
use crate::message::client::{
    ClientResponse, ClusterPlan, Deployed, PlanRequest, PlanResponse, PlannedInstance, PlannedLink,
    SetConfigurationRequest,
};
use crate::message::pending::OVERTAKEN;
use crate::model::{
    Action, ConfigurationId, Inspection, InstanceName, Now, Outcome, Planned, PlannedStep, RequestId, Step,
};
use crate::plan::order::CHECK_PATIENCE;
use crate::plan::{self, InstanceChange, Pace};

/// How many may be made side by side: each is held whole until its agents have answered.
const MOST: usize = 8;

/// A question about a configuration, and what has come together of the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planning {
    pub ticket: Ticket,
    reqid: RequestId,
    deployed: Option<Kept>,
    /// As it would be deployed.
    wanted: Kept,
    /// Instances that nobody would wait for.
    without: BTreeSet<InstanceName>,
    /// `None`: all would be told at once.
    pace: Option<Pace>,
    instances: BTreeMap<InstanceName, PlannedLink>,
    told: BTreeMap<InstanceName, Vec<Step>>,
    /// Why the agents of some did not look.
    unchecked: BTreeMap<InstanceName, String>,
    complaints: Vec<String>,
    outcomes: Vec<Outcome>,
}

impl State {
    pub(super) fn plan(&mut self, ticket: Ticket, request: PlanRequest, now: Now, fx: &mut Vec<Effect>) {
        let PlanRequest { reqid, configuration, mut complaints, all_at_once, without } = request;
        if complaints.is_empty() {
            complaints = plan::validate(&configuration, &self.rules.ports);
        }
        complaints.extend(self.undialled(&configuration.instances, &without));
        let wanted = match self.made_ready(&configuration) {
            Ok(ready) => Kept::new(&ready),
            Err(error) => {
                // Else the same is said already, of what it comes from.
                complaints.extend(complaints.is_empty().then(|| error.to_string()));
                Kept::new(&configuration)
            }
        };
        let deployed = self.shelf.deployed().cloned();
        let have = deployed.as_ref().map_or(&[][..], |deployed| &deployed.instances);
        let changes = plan::diff::instances(have, &wanted.instances).into_iter().map(|change| {
            let link = match change {
                InstanceChange::Added(_) => PlannedLink::Added,
                InstanceChange::Kept(_) => PlannedLink::Kept,
                InstanceChange::Reconnected { .. } => PlannedLink::Reconnected,
                InstanceChange::Removed(_) => PlannedLink::Removed,
            };
            (change.name().clone(), link)
        });
        let instances = changes.collect();
        let (told, unchecked) = Default::default();
        // No other deployment is begun before that one is over, and what it leaves behind nobody knows.
        // One sentence is enough: the last one says who it is.
        let mut outcomes = Vec::from_iter(self.refusal().and_then(|mut refusal| refusal.pop()));
        outcomes.extend(self.strangers(&without, &wanted));
        let mut planning = Planning {
            ticket,
            reqid,
            deployed,
            wanted,
            without,
            pace: (!all_at_once).then_some(self.rules.pace),
            instances,
            told,
            unchecked,
            complaints,
            outcomes,
        };
        let asked = self.whom_to_ask_for_a_plan(&mut planning);
        if self.requests.count(|parent| matches!(parent, Parent::Plan(_))) >= MOST {
            for name in asked {
                planning
                    .lose(&name, &Outcome::failed(format!("{MOST} other plans are being made: ask again in a while")));
            }
            return fx.push(Effect::Answer(ticket, planning.answer()));
        }
        if asked.is_empty() {
            return fx.push(Effect::Answer(ticket, planning.answer()));
        }
        let patience = if planning.wanted.has_zeek() { CHECK_PATIENCE } else { Default::default() };
        let shares: Vec<_> = asked.iter().map(|name| (name.clone(), self.share_of(&planning.wanted, name))).collect();
        let until = now.mono + self.rules.request_timeout + patience;
        let inner = self.open(Parent::Plan(Box::new(planning)), asked, until);
        for (name, configuration) in shares {
            self.send(&name, InspectConfigurationRequest { reqid: inner.clone(), configuration }, fx);
        }
    }

    /// Sorts instances by who can speak for them, and notes what is known of the others.
    fn whom_to_ask_for_a_plan(&self, planning: &mut Planning) -> BTreeSet<InstanceName> {
        let mut asked = BTreeSet::new();
        for instance in &*planning.wanted.instances.clone() {
            let name = instance.name.clone();
            if planning.without.contains(&name) {
                planning.unchecked.insert(name, "nobody waits for it: it follows when it can be reached".into());
                continue;
            }
            if self.roster.link(&name).is_some() {
                asked.insert(name);
                continue;
            }
            let ever = self.roster.get(&name).is_some_and(|seat| seat.since.is_some());
            let why = match self.roster.missing([instance]).remove(&name) {
                // Nobody reaches it before.
                _ if !ever && dial(instance).is_some() => {
                    // Why it does not is complained of.
                    let why = match self.why_undialled(instance) {
                        Some(_) => "this controller cannot dial it",
                        None => "the controller dials it once it is deployed",
                    };
                    planning.unchecked.insert(name, why.into());
                    continue;
                }
                Some(why) if ever => why,
                _ => "no agent of that name is connected: start one, or mend the name".to_owned(),
            };
            planning.outcomes.push(Outcome::instance_failed(&name, why.clone()));
            planning.unchecked.insert(name, why);
        }
        // What is left behind is known here: its agent stands by and ends all of it.
        let mut left: BTreeMap<InstanceName, Vec<Step>> = BTreeMap::new();
        for status in self.nodes.iter().filter(|status| !planning.wanted.has(&status.instance)) {
            let step = Step { node: status.node.clone(), action: Action::Stop };
            left.entry(status.instance.clone()).or_default().push(step);
        }
        planning.told.append(&mut left);
        let left = planning.instances.iter().filter(|(_, change)| **change == PlannedLink::Removed);
        let lost = left.filter(|(name, _)| self.roster.link(name).is_none()).map(|(name, _)| name.clone());
        let leaving = self.leaving(&planning.wanted);
        for name in lost.collect::<Vec<_>>() {
            let mut why = "it is out of reach: what it runs ends when it comes back".to_owned();
            let moved = self.nodes_that_leave(&name, &planning.wanted);
            match planning.without.contains(&name) {
                false if leaving.contains(&name) => {
                    planning.outcomes.push(Outcome::instance_failed(&name, self.why_it_cannot_leave(&name)));
                }
                true if !moved.is_empty() => {
                    let moved: Vec<_> = moved.iter().map(|node| format!("`{node}`")).collect();
                    why = format!("{why}; {}", may_run_twice(&moved));
                }
                _ => {}
            }
            planning.unchecked.insert(name, why);
        }
        asked
    }

    pub(super) fn inspected(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        inspection: Result<Inspection, String>,
        fx: &mut Vec<Effect>,
    ) {
        let note = |parent: &mut Parent| {
            if let Parent::Plan(planning) = parent {
                planning.note(from, inspection);
            }
        };
        self.note_answer(from, reqid, note, fx);
    }

    /// An agent does not know the question. It carries out the deployment all the same.
    pub(super) fn cannot_inspect(&mut self, from: &InstanceName, reqid: &RequestId, why: String, fx: &mut Vec<Effect>) {
        let note = |parent: &mut Parent| {
            if let Parent::Plan(planning) = parent {
                planning.unchecked.insert(from.clone(), why);
            }
        };
        self.note_answer(from, reqid, note, fx);
    }

    /// Why a deployment that is meant for another state of the cluster cannot begin.
    pub(super) fn is_overtaken(&self, request: &SetConfigurationRequest) -> Option<Outcome> {
        let Deployed(meant) = request.upon.as_ref()?;
        let deployed = self.shelf.get(Slot::Deployed).map(|deployed| &deployed.id);
        let called = |id: Option<&ConfigurationId>| id.map_or("none".to_owned(), |id| format!("configuration {id}"));
        (deployed != meant.as_ref()).then(|| {
            let (now, then) = (called(deployed), called(meant.as_ref()));
            Outcome::failed(format!("{OVERTAKEN}: {now} is deployed now, {then} was then"))
        })
    }
}

impl Planning {
    /// An agent has looked, or says why not. It speaks for its own instance alone.
    fn note(&mut self, from: &InstanceName, inspection: Result<Inspection, String>) {
        match inspection {
            Ok(Inspection { steps, complaints }) => {
                self.told.insert(from.clone(), steps);
                let own = |outcome| Outcome { instance: Some(from.clone()), ..outcome };
                self.outcomes.extend(complaints.into_iter().filter(|outcome| !outcome.is_success()).map(own));
            }
            Err(why) => self.lose(from, &Outcome::failed(why)),
        }
    }

    /// An instance will not answer.
    pub fn lose(&mut self, name: &InstanceName, lost: &Outcome) {
        let why = lost.error.clone().unwrap_or_default();
        self.outcomes.push(Outcome::instance_failed(name, why.clone()));
        self.unchecked.insert(name.clone(), why);
    }

    pub fn time_out(&mut self, owes: &BTreeSet<InstanceName>) {
        owes.iter().for_each(|name| self.lose(name, &Outcome::failed(TIMED_OUT)));
    }

    pub fn answer(mut self) -> ClientResponse {
        for name in self.unchecked.keys() {
            let have = self.deployed.as_ref().filter(|deployed| deployed.has(name));
            let have = have.map(|deployed| deployed.share_of(name).open());
            let steps = plan::steps::foreseen(have, self.wanted.share_of(name).open());
            self.told.insert(name.clone(), steps);
        }
        let instance = |(name, change): (InstanceName, PlannedLink)| {
            let unchecked = self.unchecked.remove(&name);
            PlannedInstance { name, change, unchecked }
        };
        let instances = std::mem::take(&mut self.instances).into_iter().map(instance).collect();
        // What was not understood would seem to be stopped.
        let nodes = if self.complaints.is_empty() {
            plan::steps::of_cluster(std::mem::take(&mut self.told))
        } else {
            Vec::new()
        };
        let steps = self.steps_of(&nodes);
        let deployed = Deployed(self.deployed.map(|deployed| deployed.id));
        let (reqid, complaints, outcomes) = (self.reqid, self.complaints, sorted(self.outcomes));
        let plan = Box::new(ClusterPlan { deployed, instances, nodes, steps, complaints, outcomes });
        PlanResponse { reqid, plan }.into()
    }

    /// In which order that would be done.
    fn steps_of(&self, nodes: &[Planned]) -> Vec<PlannedStep> {
        let mut counts = [0; plan::order::RANKS];
        self.wanted.heads().for_each(|head| counts[plan::order::rank(head.role)] += 1);
        plan::preview::steps(nodes, self.wanted.nodes(), counts, self.pace.as_ref(), &self.without)
    }
}

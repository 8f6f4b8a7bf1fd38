//! What was decided reaches every instance, also one that was out of reach: as soon as that is back.

use std::collections::{BTreeMap, BTreeSet};

use super::returning::not_as_before;
use super::{Deployment, MOST_NAMED, Phase};
use crate::controller::kept::Kept;
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State, sorted};
use crate::controller::store::{Save, Stored};
use crate::message::agent;
use crate::message::client::{DeploymentPhase, DeploymentStatus};
use crate::model::{Instance, InstanceName, NodeName, Now, Outcome, Record, RequestId, Timestamp, Verdict};
use crate::plan::{Pace, Rollout};

/// A decision that not all instances have followed.
#[derive(Debug, Clone)]
pub(in crate::controller::state) struct Following {
    pub record: Record,
    /// Whether it is the former configuration that they go back to.
    pub is_back: bool,
    pub owing: BTreeSet<InstanceName>,
    /// Those of them that run nothing any more that has to go back to another instance.
    cleared: BTreeSet<InstanceName>,
    /// Nodes that have to go back from an instance, and do not end there.
    stuck: BTreeMap<InstanceName, BTreeSet<NodeName>>,
    /// What each instance was asked for it last. An answer to anything else, also to what it was asked before, says nothing
    /// about it: since then more may have to come back.
    pub asked: BTreeMap<InstanceName, RequestId>,
    /// Who has said which of its nodes wait for their turn to go back.
    pub said: BTreeSet<InstanceName>,
    /// Who does not go back, by its own word: it is asked again when it is back.
    refused: BTreeSet<InstanceName>,
    /// Those nodes.
    pub rollout: Rollout,
    /// Who was told to have which of them go back, and has not answered.
    pub steps: BTreeMap<RequestId, (InstanceName, BTreeSet<NodeName>)>,
    /// As long as it is open all are given time to come back.
    pub gathering: Option<RequestId>,
}

impl Following {
    pub fn to_the_new(record: Record, configuration: &Kept, leaving: BTreeSet<InstanceName>) -> Self {
        let of_it = configuration.instances.iter().map(|instance| instance.name.clone());
        let owing = of_it.chain(leaving).collect();
        Self::new(record, false, owing, Rollout::new([], Default::default(), &Pace::default()))
    }

    pub fn to_the_former(record: Record, former: &Kept, strangers: BTreeSet<InstanceName>, pace: &Pace) -> Self {
        let of_it = former.instances.iter().map(|instance| instance.name.clone());
        let owing = of_it.chain(strangers).collect();
        Self::new(record, true, owing, Rollout::new([], former.ranks, pace))
    }

    fn new(record: Record, is_back: bool, owing: BTreeSet<InstanceName>, rollout: Rollout) -> Self {
        let (cleared, stuck, asked, said, refused, steps) = Default::default();
        Self { record, is_back, owing, cleared, stuck, asked, said, refused, rollout, steps, gathering: None }
    }

    pub fn has_said_who_waits(&mut self, name: &InstanceName) {
        self.said.insert(name.clone());
    }

    /// It has not gone back, and none of its nodes has a turn before it was asked again.
    pub fn refuses(&mut self, name: &InstanceName) {
        self.refused.insert(name.clone());
        self.rollout.leave_out(name);
    }

    /// What it said before does not count any more.
    pub fn forget_what_was_said_by(&mut self, name: &InstanceName) {
        self.said.remove(name);
        self.refused.remove(name);
        self.rollout.forget(name);
    }

    /// Whether nodes there have yet to go back, for all that is known.
    fn waits_for_turns(&self, of: &InstanceName) -> bool {
        let has_said = self.said.contains(of) && !self.refused.contains(of);
        !has_said || self.rollout.has(of) || self.steps.values().any(|(instance, _)| instance == of)
    }

    /// Whether an instance has gone back but for nodes that may still run where these are, who are away.
    pub fn waits_only_for(&self, of: &InstanceName, former: &Kept, is_away: impl Fn(&InstanceName) -> bool) -> bool {
        let runs_there = |node: &NodeName| self.record.moves.get(node).is_some_and(&is_away);
        let mut waiting = former.names_on(of).filter(|node| self.may_run_elsewhere(node)).peekable();
        let is_through = !self.stuck.contains_key(of) && !self.waits_for_turns(of);
        is_through && waiting.peek().is_some() && waiting.all(|node| runs_there(&node))
    }

    /// Whether an instance that is new was told to stand by, and something that nobody waits for does not end there.
    pub fn cannot_stand_by(&self, name: &InstanceName) -> bool {
        self.said.contains(name) && !self.stuck.contains_key(name)
    }

    /// The nodes that were to move there.
    fn moved_to<'a>(&'a self, place: &'a InstanceName) -> impl Iterator<Item = &'a NodeName> {
        self.record.moves.iter().filter(move |(_, there)| *there == place).map(|(node, _)| node)
    }

    pub fn has_asked(&self, of: &InstanceName, reqid: &RequestId) -> bool {
        self.asked.get(of) == Some(reqid)
    }

    /// Whether that node is to run where it was, and waits until it runs nowhere else. One that rests is where it is to be.
    fn has_to_come_back(&self, node: &NodeName) -> bool {
        self.may_run_elsewhere(node) && self.record.up.contains(node)
    }

    /// Whether that node may still run where it was to be from now on, so that it must not be started where it was.
    pub fn may_run_elsewhere(&self, node: &NodeName) -> bool {
        let is_there = |place: &InstanceName| self.owing.contains(place) && !self.cleared.contains(place);
        self.is_back && self.record.moves.get(node).is_some_and(is_there)
    }
}

impl State {
    /// What is to be done about the last deployment when a controller starts: one that is undecided came to nothing.
    pub(in crate::controller::state) fn take_up_last(&mut self, stored: &Stored, now: Timestamp) -> Vec<Save> {
        self.last_number = stored.last.as_ref().map_or(0, |last| last.number);
        // What was refused since has touched nothing, and others have yet to follow what came before it.
        let Some(mut record) = stored.standing.clone() else { return Vec::new() };
        let was_interrupted = record.ended.is_none();
        if was_interrupted {
            let why = decide_interrupted(&mut record);
            // What had failed by then says more.
            let left_out = record.left_out;
            let outcomes = record.results.iter().cloned().chain([Outcome::failed(why)]).collect();
            record.end(record.verdict, &sorted(outcomes), now);
            record.left_out += left_out;
        }
        let deployed = self.shelf.deployed().cloned();
        let mut following = match (record.verdict, deployed) {
            (Verdict::New, Some(deployed)) => {
                let leaving = record.owing.clone();
                Following::to_the_new(record, &deployed, leaving)
            }
            (Verdict::Old, Some(deployed)) => {
                // What was to move to an instance that is new may run there.
                let strangers = record.owing.iter().chain(record.moves.values()).filter(|name| !deployed.has(name));
                let strangers = strangers.cloned().collect();
                Following::to_the_former(record, &deployed, strangers, &self.rules.pace)
            }
            // Nobody has to follow it.
            _ if was_interrupted => return vec![Save::Deployment(Box::new(record), None)],
            _ => return Vec::new(),
        };
        if !was_interrupted {
            following.owing.clone_from(&following.record.owing);
        }
        if following.owing.is_empty() {
            let save = Save::Deployment(Box::new(following.record), None);
            return if was_interrupted { vec![save] } else { Vec::new() };
        }
        if was_interrupted {
            following.record.owing.clone_from(&following.owing);
        }
        let save = Save::Deployment(Box::new(following.record.clone()), None);
        self.following = Some(following);
        if was_interrupted { vec![save] } else { Vec::new() }
    }

    /// Whether that instance has yet to follow what was decided last.
    pub(in crate::controller::state) fn has_yet_to_follow(&self, name: &InstanceName) -> bool {
        self.following.as_ref().is_some_and(|following| following.owing.contains(name))
    }

    pub(super) fn follow(&mut self, mut following: Following) {
        // Who left before, and has yet to stand by, is not forgotten.
        following.owing.extend(self.following.take().into_iter().flat_map(|before| before.owing));
        self.following = Some(following).filter(|following| !following.owing.is_empty());
    }

    /// Notes how a deployment ended that instances have yet to follow.
    pub(super) fn note_end(&mut self, record: &Record) {
        if let Some(following) = self.following.as_mut().filter(|following| following.record.number == record.number) {
            following.record = record.clone();
        }
    }

    /// What became of nodes of an instance that follows when its deployment is over. That somebody has stopped one is no failure.
    pub(super) fn note_followed(&mut self, from: &InstanceName, outcomes: &[Outcome]) {
        let has_to = |following: &&mut Following| following.record.ended.is_some() && following.owing.contains(from);
        let Some(following) = self.following.as_mut().filter(has_to) else { return };
        let rests = |it: &Outcome| it.node.as_ref().is_some_and(|node| following.record.rests.contains(node));
        // What was to move here, and ended, is told of where it was before.
        let former = self.shelf.deployed().filter(|_| following.is_back);
        let its: Option<BTreeSet<NodeName>> = former.map(|former| former.names_on(from).collect());
        let is_its = |it: &Outcome| match (&its, &it.node) {
            (Some(its), Some(node)) => its.contains(node),
            _ => true,
        };
        let counts = |it: &&Outcome| if it.is_success() { is_its(it) } else { !rests(it) };
        let own = outcomes.iter().filter(counts);
        let own = own.map(|outcome| Outcome { instance: Some(from.clone()), ..outcome.clone() });
        let own: Vec<_> = own.map(|outcome| if following.is_back { not_as_before(outcome) } else { outcome }).collect();
        following.record.follow(&own);
    }

    /// An instance answered what it was asked for a decision: it has followed.
    pub(in crate::controller::state) fn followed(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if self.following.as_ref().is_some_and(|following| following.has_asked(from, reqid)) {
            self.has_followed(from, now, fx);
        }
    }

    /// An instance went back, or does so but for nodes that do not end: what was to move there is not started elsewhere until
    /// they have.
    pub(in crate::controller::state) fn went_back(
        &mut self,
        from: &InstanceName,
        failed: Option<&BTreeSet<NodeName>>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(following) = &mut self.following else { return };
        let moved = following.moved_to(from).filter(|node| failed.is_some_and(|failed| failed.contains(*node)));
        let stuck: BTreeSet<NodeName> = moved.cloned().collect();
        match stuck.is_empty() {
            true => {
                following.stuck.remove(from);
                self.has_followed(from, now, fx);
            }
            false => drop(following.stuck.insert(from.clone(), stuck)),
        }
    }

    /// An instance that is not needed stands by: it has followed, unless something does not end there.
    pub(in crate::controller::state) fn stood_by(
        &mut self,
        from: &InstanceName,
        outcome: &Outcome,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(following) = &mut self.following else { return };
        let moved: BTreeSet<NodeName> = following.moved_to(from).cloned().collect();
        // What does not end there runs on: it is told again when something has ended, or when it is back.
        if !outcome.is_success() && (!following.is_back || moved.is_empty()) {
            return following.has_said_who_waits(from);
        }
        if !following.is_back {
            self.note_followed(from, std::slice::from_ref(outcome));
        }
        self.went_back(from, Some(&moved).filter(|_| !outcome.is_success()), now, fx);
    }

    /// That node is gone from there.
    pub(in crate::controller::state) fn is_gone(
        &mut self,
        from: &InstanceName,
        node: &str,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let stuck = self.following.as_mut().and_then(|following| following.stuck.get_mut(from));
        let Some(stuck) = stuck else { return self.may_stand_by_now(from, now, fx) };
        if !stuck.remove(node) {
            return;
        }
        if stuck.is_empty() {
            self.following.iter_mut().for_each(|following| drop(following.stuck.remove(from)));
            self.has_followed(from, now, fx);
            self.are_all_back(now, fx);
        }
    }

    /// Something has ended on an instance that is not needed: if not all had when it was told to stand by, all may have now.
    fn may_stand_by_now(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let is_needed = self.roster.get(name).is_some_and(|seat| seat.needed.is_some());
        let has_failed = self.following.as_ref().is_some_and(|it| it.owing.contains(name) && it.said.contains(name));
        if has_failed && !is_needed && !self.is_to_stand_by(name) {
            self.stand_by(name, now, fx);
        }
    }

    pub(in crate::controller::state) fn has_followed(&mut self, from: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        self.let_nodes_back_from(from, now, fx);
        let Some(following) = &mut self.following else { return };
        // It has followed when its nodes are back that were to move away from it, and those that wait for their turn.
        let waits =
            self.shelf.deployed().filter(|former| following.is_back && former.has(from)).is_some_and(|former| {
                following.stuck.contains_key(from)
                    || following.waits_for_turns(from)
                    || former.names_on(from).any(|name| following.has_to_come_back(&name))
            });
        if waits || !following.owing.remove(from) {
            return;
        }
        if !following.owing.is_empty() {
            // What is known of those that are back is not to wait for one that never is.
            if following.record.ended.is_some() {
                following.record.owing.clone_from(&following.owing);
                fx.push(Effect::Save(vec![Save::Deployment(Box::new(following.record.clone()), None)], None));
            }
            return;
        }
        let Some(Following { mut record, .. }) = self.following.take() else { return };
        // A deployment in progress writes that itself when it is over.
        if record.ended.is_some() {
            (record.owing, record.up, record.moves, record.rests) = Default::default();
            let what = format!("deployment {} of {}: every instance has followed", record.number, record.configuration);
            self.tell_log(&self.rules.name, what, now.wall, fx);
            fx.push(Effect::Save(vec![Save::Deployment(Box::new(record), None)], None));
        }
    }

    /// Nodes that were to move there do not run there any more: they come back to where they were.
    fn let_nodes_back_from(&mut self, place: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let Some(following) = self.following.as_mut().filter(|following| following.is_back) else { return };
        // What does not end there runs there, whatever else the instance is through with.
        if !following.owing.contains(place) || following.stuck.contains_key(place) {
            return;
        }
        if !following.cleared.insert(place.clone()) {
            return;
        }
        let moved: BTreeSet<NodeName> = following.moved_to(place).cloned().collect();
        let (up, cleared) = (&moved & &following.record.up, following.cleared.clone());
        let Some(former) = self.shelf.deployed().cloned().filter(|_| !moved.is_empty()) else { return };
        // A deployment that is under way decides about them, too, and may have begun them elsewhere. If it comes to nothing
        // all are told.
        let is_theirs = |it: &Deployment| matches!(it.phase, Phase::Gathering | Phase::Telling | Phase::Returning);
        let may_start = self.deployment.as_ref().is_none_or(is_theirs);
        for Instance { name, .. } in &*former.instances {
            let had: BTreeSet<NodeName> = former.names_on(name).filter(|node| moved.contains(node)).collect();
            if !had.is_disjoint(&up) {
                if may_start && self.roster.is_ready(name) {
                    self.redeploy(name, now, fx);
                }
            } else if !had.is_empty() && name != place && cleared.contains(name) {
                // It has gone back, and may have waited for one that was stopped meanwhile.
                self.has_followed(name, now, fx);
            }
        }
    }

    /// An instance is ready: it is given what it is to run, as soon as that is known.
    pub(in crate::controller::state) fn take_up(&mut self, from: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        if self.is_early_no_more(from, now, fx) {
            return; // it was asked already, behind the welcome
        }
        let Some(deployment) = &self.deployment else { return self.redeploy(from, now, fx) };
        let (phase, inner, configuration) =
            (deployment.phase, deployment.inner.clone(), deployment.configuration.clone());
        let is_owing = self.owes(from, &inner);
        match phase {
            Phase::Gathering => self.go_on(now, fx),
            // It came back in the middle: what it was asked may have been lost with the link.
            Phase::Staging if is_owing => self.stage_again(from, inner, fx),
            Phase::Checking if is_owing => self.send_check(from, &configuration, inner, fx),
            Phase::Telling if is_owing => self.send_share(from, &configuration, inner, fx),
            Phase::Switching => self.tell_steps_again(from, fx),
            // What it runs it runs on, and nothing new is started there, until it is decided.
            Phase::Staging | Phase::Checking | Phase::Opening | Phase::Moving | Phase::Deciding => {}
            Phase::Telling | Phase::Returning => self.redeploy(from, now, fx),
        }
    }

    /// Gives an instance that is new here what is deployed; what it runs already keeps running.
    pub(super) fn redeploy(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployed) = self.shelf.deployed().filter(|deployed| deployed.has(name)).cloned() else {
            return;
        };
        let goes_back = |it: &&Following| it.is_back && it.owing.contains(name);
        let back = self.following.as_ref().filter(goes_back).map(|following| following.record.patience);
        let patience = self.patience(&deployed).max(back.unwrap_or_default());
        let inner = self.open(Parent::Redeploy, BTreeSet::from([name.clone()]), now.mono + patience);
        match back.is_some() {
            true => self.send_back(name, &deployed, inner, fx),
            false => self.send_share(name, &deployed, inner, fx),
        }
    }

    /// Has an instance go back to what was in force.
    pub(super) fn send_back(&mut self, to: &InstanceName, former: &Kept, reqid: RequestId, fx: &mut Vec<Effect>) {
        let touched = self.following.as_ref().map(|following| &following.record.up);
        let waits =
            |name: &NodeName| self.following.as_ref().is_some_and(|following| following.may_run_elsewhere(name));
        let is_up = |name: &NodeName| touched.is_some_and(|touched| touched.contains(name)) && !waits(name);
        let up = former.names_on(to).filter(is_up).collect();
        let at_once = self.following.as_ref().is_some_and(|following| following.record.at_once);
        self.has_to_say_who_waits(to);
        self.gives(to, &reqid);
        let configuration = self.share_of(former, to);
        self.send(to, agent::RestoreConfigurationRequest { reqid, configuration, up, at_once }, fx);
    }

    /// That instance is given a configuration by this request.
    pub(in crate::controller::state) fn gives(&mut self, to: &InstanceName, reqid: &RequestId) {
        if let Some(seat) = self.roster.get_mut(to) {
            seat.given = true;
        }
        if let Some(following) = self.following.as_mut().filter(|following| following.owing.contains(to)) {
            following.asked.insert(to.clone(), reqid.clone());
        }
        self.nodes.may_have(to);
    }

    /// How far the deployment in progress is; or, as long as instances have yet to follow it, the last.
    pub(in crate::controller::state) fn deployment_status(&self) -> Option<DeploymentStatus> {
        let of = |record: &Record, phase, owing: Vec<InstanceName>| DeploymentStatus {
            number: record.number,
            reqid: record.reqid.clone(),
            author: record.author.clone(),
            began: record.began,
            configuration: record.configuration.clone(),
            phase,
            verdict: record.verdict,
            switched: 0,
            to_switch: 0,
            under_way: Vec::new(),
            owing,
        };
        let Some(deployment) = &self.deployment else {
            let Following { record, owing, .. } = self.following.as_ref()?;
            return Some(of(record, DeploymentPhase::Following, owing.iter().cloned().collect()));
        };
        let owing = match deployment.phase {
            Phase::Gathering => {
                let leavers = self.missing_leavers(deployment).into_iter().filter_map(|leaver| leaver.instance);
                self.roster.missing(deployment.awaited()).into_keys().chain(leavers).collect()
            }
            Phase::Switching => deployment.steps.values().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(),
            Phase::Returning => self.following.iter().flat_map(|following| following.owing.clone()).collect(),
            _ => self.requests.get(&deployment.inner).map(|open| open.owes.clone()).unwrap_or_default(),
        };
        let back = self.following.as_ref().filter(|_| deployment.phase == Phase::Returning);
        let rollout = back.map_or(&deployment.rollout, |following| &following.rollout);
        let (switched, to_switch) = rollout.progress();
        let under_way = rollout.under_way().take(MOST_NAMED).cloned().collect();
        let status = of(&deployment.record, deployment.phase_shown(), owing.into_iter().collect());
        // What waits to be written is not decided.
        let verdict = if deployment.phase == Phase::Deciding { Verdict::Open } else { status.verdict };
        Some(DeploymentStatus { switched, to_switch, under_way, verdict, ..status })
    }
}

/// How a deployment is decided that a controller finds which was not there for its end; and why, in words.
fn decide_interrupted(record: &mut Record) -> String {
    const LOST: &str = "the controller ended in the middle of it";
    match (record.verdict, &record.former) {
        (Verdict::Open, Some(former)) => {
            record.verdict = Verdict::Old;
            format!("rolled back: configuration {former} is in force again: {LOST}, before it was decided")
        }
        (Verdict::Open, None) => {
            record.verdict = Verdict::Refused;
            format!("nothing was in force before, and nothing is: {LOST}, before it was decided")
        }
        (Verdict::New, _) => format!("{LOST}, when it was decided: every instance comes to it"),
        (Verdict::Old, _) => {
            let former = record.former.as_ref().map(|former| format!(": configuration {former} is in force again"));
            format!("rolled back{}: {LOST}, when it was going back", former.unwrap_or_default())
        }
        (Verdict::Refused, _) => format!("nothing was touched: {LOST}"),
    }
}

impl Deployment {
    fn phase_shown(&self) -> DeploymentPhase {
        match self.phase {
            Phase::Gathering => DeploymentPhase::Gathering,
            Phase::Staging => DeploymentPhase::Staging,
            Phase::Checking | Phase::Opening => DeploymentPhase::Checking,
            Phase::Moving => DeploymentPhase::Moving,
            Phase::Switching => DeploymentPhase::Switching,
            Phase::Deciding => DeploymentPhase::Deciding,
            Phase::Telling => DeploymentPhase::Committing,
            Phase::Returning => DeploymentPhase::Returning,
        }
    }
}

//! A deployment is decided, once, in the journal: and every instance is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leaving::may_run_twice;
use super::{Deployment, Following, Phase, deployed, with_number};
use crate::controller::kept::{Head, Kept};
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State, TIMED_OUT, Ticket, publish_own, sorted};
use crate::controller::store::{Save, Slot};
use crate::message::agent::{CommitConfigurationRequest, NotifyError};
use crate::message::client::News;
use crate::message::silence;
use crate::model::{ConfigurationId, InstanceName, NodeState, NodeStatus, Now, Outcome, RequestId, Timestamp, Verdict};
use crate::request::Answered;

impl State {
    /// Has it written how far it is; goes on in [`Self::journaled`].
    pub(super) fn write(&mut self, phase: Phase, mut saves: Vec<Save>, fx: &mut Vec<Effect>) {
        let Some(deployment) = &mut self.deployment else { return };
        self.last_write += 1;
        // Who finds it later has one of both configurations, and not what was in force before: it does not know of others
        // that may run something, whatever it comes to.
        let owing = &mut deployment.record.owing;
        owing.clone_from(&deployment.leaving);
        owing.extend(self.following.iter().flat_map(|before| &before.owing).cloned());
        let former = self.shelf.deployed();
        let is_new = |name: &&InstanceName| former.is_some_and(|former| !former.has(name));
        // Whom nobody waits for, and nobody reaches, is given nothing before it is decided.
        let is_told = |name: &&InstanceName| !deployment.without.contains(*name) || self.roster.link(name).is_some();
        let names = deployment.configuration.instances.iter().map(|instance| &instance.name);
        owing.extend(names.filter(is_new).filter(is_told).cloned());
        // What it deploys is written with its first word.
        let tried = (!std::mem::replace(&mut deployment.is_written, true)).then(|| deployment.configuration.clone());
        saves.push(Save::Deployment(Box::new(deployment.record.clone()), tried));
        deployment.phase = phase;
        fx.push(Effect::Journal(self.last_write, saves));
    }

    /// What was to be written under this number is durable, or cannot be kept, for this reason.
    pub(in crate::controller::state) fn journaled(
        &mut self,
        number: u64,
        written: Result<(), String>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(deployment) = self.deployment.as_mut().filter(|_| self.last_write == number) else { return };
        let phase = deployment.phase;
        match (phase, written) {
            (Phase::Opening, Ok(())) => self.end_what_moves(now, fx),
            (Phase::Deciding, Ok(())) => self.decided(now, fx),
            (Phase::Opening | Phase::Deciding, Err(error)) => {
                deployment.record.verdict = Verdict::Open;
                deployment.outcomes.push(Outcome::failed(format!("the configuration cannot be kept: {error}")));
                match phase == Phase::Deciding && deployment.is_touching() {
                    true => self.go_back(now, fx),
                    // Nothing was touched.
                    false => self.abandon(now, fx),
                }
            }
            _ => {} // nobody waits for it
        }
    }

    /// While others look at it: prepares for what comes when it is decided for the new configuration.
    pub(super) fn foresee(&mut self, now: Timestamp) {
        if let Some(Deployment { configuration, .. }) = &self.deployment {
            self.nodes.foresee(configuration, NodeState::Stopped, now);
        }
    }

    /// It is decided for the new configuration once that is written.
    pub(super) fn decide(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &mut self.deployment else { return };
        deployment.record.verdict = Verdict::New;
        let save = Save::Configuration(Slot::Deployed, deployment.configuration.clone());
        self.tell_progress("deciding", now, fx);
        self.write(Phase::Deciding, vec![save], fx);
    }

    /// The point of no return: whatever becomes of the controller or of a link from now on, every instance comes to this.
    fn decided(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(Deployment { configuration, record, stands, leaving, has_changed, .. }) = &self.deployment else {
            return;
        };
        let (configuration, record, stands, leaving) =
            (configuration.clone(), record.clone(), *stands, leaving.clone());
        if *has_changed {
            fx.push(Effect::Save(vec![Save::Deployment(Box::new(record.clone()), None)], None));
        }
        self.release(&configuration.instances, now, fx);
        self.tell_given_up(&configuration, now.wall, fx);
        self.follow(Following::to_the_new(record, &configuration, leaving));
        // Where it is the same as in another slot it is kept once.
        let configuration = self.shelf.put(Slot::Deployed, configuration).clone();
        self.forget_lost(now.wall, fx);
        publish_own(self.nodes.expect(&configuration, NodeState::Stopped, now.wall), fx);
        self.change(|deployment| deployment.configuration = configuration);
        match stands {
            true => self.begin_to_switch(now, fx),
            false => self.tell_shares(now, fx),
        }
    }

    /// The configuration comes into force everywhere: what was not switched one by one follows.
    pub(super) fn tell_shares(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let (configuration, checked) = (deployment.configuration.clone(), deployment.checked.clone());
        // Those who leave were told to stand by when it was decided. What they run may take as long as what they had says.
        let leavers = deployment.awaited_leavers().filter(|name| self.has_yet_to_follow(name));
        let leavers: BTreeSet<_> = leavers.cloned().collect();
        if configuration.instances.is_empty() && leavers.is_empty() {
            return self.complete(now, fx);
        }
        let deadline = now.mono + self.patience_of_deployment().max(deployment.record.patience);
        let is_lost = |name: &InstanceName| deployment.lost.contains(name) && self.roster.link(name).is_none();
        let is_awaited = |name: &&InstanceName| !deployment.without.contains(*name) && !is_lost(name);
        let owes: BTreeSet<_> =
            configuration.instances.iter().map(|it| &it.name).chain(&leavers).filter(is_awaited).cloned().collect();
        let nobody_is_awaited = owes.is_empty();
        let inner = self.open(Parent::Deploy, owes, deadline);
        for instance in &*configuration.instances {
            match &checked {
                Some(checked) if self.owes(&instance.name, &inner) => {
                    self.send_commit(&instance.name, &configuration.id, (inner.clone(), checked.clone()), fx);
                }
                _ => self.send_share(&instance.name, &configuration, inner.clone(), fx),
            }
        }
        self.enter(Phase::Telling, inner.clone());
        self.tell_progress("committing", now, fx);
        self.miss_whom_nobody_reaches(now, fx);
        if nobody_is_awaited {
            self.requests.close(&inner);
            self.complete(now, fx);
        }
    }

    /// It comes into force there, and is there since it was looked at.
    fn send_commit(
        &mut self,
        to: &InstanceName,
        configuration: &ConfigurationId,
        (reqid, checked): (RequestId, RequestId),
        fx: &mut Vec<Effect>,
    ) {
        self.gives(to, &reqid);
        let (configuration, rest) = (configuration.clone(), self.rests_of(to));
        self.send(to, CommitConfigurationRequest { reqid, configuration, checked, rest }, fx);
    }

    /// What is to come into force there is not there any more: it is sent once again.
    pub(in crate::controller::state) fn not_at_hand(
        &mut self,
        from: &InstanceName,
        reqid: RequestId,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        match &self.deployment {
            Some(Deployment { phase: Phase::Telling, inner, configuration, .. })
                if *inner == reqid && self.owes(from, &reqid) =>
            {
                self.send_share(from, &configuration.clone(), reqid, fx);
            }
            // Nobody waits for it any more, and it has to follow nevertheless.
            None if self.following.as_ref().is_some_and(|following| following.has_asked(from, &reqid)) => {
                self.redeploy(from, now, fx);
            }
            _ => {} // it was given something else since
        }
    }

    /// Says which nodes are started although they may still run where nobody can reach them.
    fn tell_given_up(&mut self, configuration: &Kept, now: Timestamp, fx: &mut Vec<Effect>) {
        let mut twice: BTreeMap<InstanceName, Vec<String>> = BTreeMap::new();
        let ended = |place: &InstanceName, node: &str| {
            self.deployment.as_ref().is_some_and(|deployment| deployment.has_ended(place, node))
        };
        let not_cleared = self.not_cleared();
        for node in configuration.heads() {
            let known = self.nodes.get(node.name).map(|NodeStatus { instance, .. }| instance);
            let others = not_cleared.get(node.name).filter(|place| Some(*place) != known);
            let is_given_up = |place: &&InstanceName| {
                place.as_str() != node.instance && self.roster.link(place).is_none() && !ended(place, node.name)
            };
            for former in known.into_iter().chain(others).filter(is_given_up) {
                let msg = format!(
                    "given up with its instance, which is out of reach and not waited for: it is started on `{}`, \
                     and may run twice until `{former}` comes back or is stopped",
                    node.instance
                );
                twice.entry(former.clone()).or_default().push(format!("`{}`", node.name));
                let (instance, node) = (former.clone(), Some(node.name()));
                let news = News::Error(NotifyError { seq: 0, time: now, instance, node, msg });
                fx.push(Effect::Publish { news, time: now, origin: None });
            }
        }
        let told = twice.into_iter().map(|(former, nodes)| {
            let (why, twice) = (self.roster.why_away(&former), may_run_twice(&nodes));
            Outcome::instance_failed(&former, format!("{why}; {twice}"))
        });
        let told: Vec<_> = told.collect();
        self.change(|deployment| deployment.outcomes.extend(told));
    }

    pub(in crate::controller::state) fn shares_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if self.following.as_ref().is_some_and(|following| following.has_asked(from, reqid)) {
            self.note_followed(from, &outcomes);
        }
        self.followed(from, reqid, now, fx);
        let answered = self.requests.answer(reqid, from, |_| {});
        let (is_deployment, is_complete) = match &answered {
            Answered::Late => return,
            Answered::Waiting(parent) => (**parent == Parent::Deploy, false),
            Answered::Complete(parent) => (*parent == Parent::Deploy, true),
        };
        if !is_deployment {
            return self.tell_what_is_not(from, "deployed", &outcomes, now, fx);
        }
        self.change(|deployment| deployment.note(outcomes));
        if is_complete {
            self.complete(now, fx);
        }
    }

    pub(super) fn tell_what_is_not(
        &self,
        of: &InstanceName,
        how: &str,
        outcomes: &[Outcome],
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        for outcome in outcomes.iter().filter(|outcome| !outcome.is_success()) {
            let error = outcome.error.as_deref().unwrap_or_default();
            let node = outcome.node.as_ref().map_or_else(String::new, |node| format!("node {node}: "));
            self.tell_error(of, format!("not as {how}: {node}{error}"), now.wall, fx);
        }
    }

    /// Every instance has answered.
    pub(super) fn complete(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(mut deployment) = self.deployment.take() else { return };
        // An instance that has nothing else to say says so; where it has, that is enough.
        let is_idle = |outcome: &Outcome| outcome.node.is_none() && outcome.is_success();
        if deployment.outcomes.iter().any(is_idle) {
            let together = deployment
                .outcomes
                .chunk_by(|one, next| (one.node.is_some(), &one.instance) == (next.node.is_some(), &next.instance));
            let named = together.filter(|these| these[0].node.is_some()).filter_map(|these| these[0].instance.clone());
            let named: BTreeSet<_> = named.collect();
            deployment
                .outcomes
                .retain(|it| !is_idle(it) || it.instance.as_ref().is_none_or(|name| !named.contains(name)));
        }
        let id = deployment.configuration.id.clone();
        self.forget_lost(now.wall, fx);
        let id = Some(id).filter(|_| deployment.lost.is_empty());
        self.end(deployment, Verdict::New, id, now, fx);
    }

    /// It is over: that is written, and whoever deploys is told when it is.
    pub(super) fn end(
        &mut self,
        deployment: Deployment,
        verdict: Verdict,
        id: Option<ConfigurationId>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Deployment { ticket, mut record, in_one_step, configuration, outcomes, is_written, .. } = deployment;
        self.nodes.foresee_nothing();
        let outcomes = sorted(outcomes);
        record.end(verdict, &of_those_named(outcomes.clone()), now.wall);
        let owing = self.following.as_ref().filter(|following| following.record.number == record.number);
        record.owing = owing.map(|following| following.owing.clone()).unwrap_or_default();
        if record.owing.is_empty() || verdict == Verdict::New {
            (record.up, record.moves) = Default::default();
        }
        if record.owing.is_empty() {
            record.rests.clear();
        }
        let what = format!("deployment {} of {}: {verdict}", record.number, record.configuration);
        self.tell_log(&self.rules.name, what, now.wall, fx);
        let answer = with_number(deployed(in_one_step, record.reqid.clone(), id, outcomes), record.number);
        self.note_end(&record);
        let saves = vec![Save::Deployment(Box::new(record), (!is_written).then_some(configuration))];
        match (ticket, verdict) {
            (Some(ticket), Verdict::New) => fx.push(Effect::Save(saves, Some((ticket, answer)))),
            // That nothing came of it is so, whether it can be written or not.
            (ticket, _) => {
                fx.push(Effect::Save(saves, None));
                fx.extend(ticket.map(|ticket| Effect::Answer(ticket, answer)));
            }
        }
    }

    /// Answers whoever deploys, with what is known by now. The deployment itself goes on.
    pub(in crate::controller::state) fn answer_deployer(&mut self, ticket: Ticket, fx: &mut Vec<Effect>) {
        let Some(deployment) = self.deployment.as_mut().filter(|deployment| deployment.ticket == Some(ticket)) else {
            return;
        };
        deployment.ticket = None;
        let Deployment { record, in_one_step, configuration, inner, phase, before, outcomes, .. } = &*deployment;
        let mut outcomes = outcomes.clone();
        let owing = self.requests.get(inner).map(|open| &open.owes).filter(|_| *phase == Phase::Telling);
        let settled: BTreeSet<_> = outcomes.iter().filter_map(|outcome| outcome.node.clone()).collect();
        let switching: BTreeSet<&str> = deployment.rollout.unsettled().collect();
        let is_open =
            |node: &Head<'_>| owing.is_some_and(|owing| owing.contains(node.instance)) || switching.contains(node.name);
        for node in configuration.heads().filter(is_open).filter(|node| !settled.contains(node.name)) {
            let status = self.nodes.get(node.name);
            let is_up = |status: &&NodeStatus| {
                status.state == NodeState::Running && before.get(node.name) != Some(&status.since)
            };
            let (instance, name) = (node.instance(), node.name());
            outcomes.push(match status.filter(is_up) {
                Some(_) => Outcome::node_done(&instance, &name),
                None => Outcome::node_failed(&instance, &name, TIMED_OUT.into(), None),
            });
        }
        outcomes.push(Outcome::failed(TIMED_OUT));
        // Once decided it is what is deployed, whatever becomes of the nodes that are not up yet.
        let is_decided = record.verdict == Verdict::New && *phase != Phase::Deciding;
        let decided = is_decided.then(|| configuration.id.clone());
        let answer = deployed(*in_one_step, record.reqid.clone(), decided, sorted(outcomes));
        fx.push(Effect::Answer(ticket, with_number(answer, record.number)));
    }

    /// The deployment was not completed in time.
    pub(in crate::controller::state) fn time_out(
        &mut self,
        inner: &RequestId,
        owing: &BTreeSet<InstanceName>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.step_is_late(inner, now, fx);
        let Some(deployment) = self.deployment.as_ref().filter(|deployment| deployment.inner == *inner) else { return };
        let phase = deployment.phase;
        if phase == Phase::Returning {
            self.finish_going_back(now, fx);
            return self.turn_back_on(now, fx);
        }
        let missing = self.roster.missing(deployment.awaited().cloned().collect::<Vec<_>>().iter());
        let causes = missing.iter().map(|(name, cause)| Outcome::instance_failed(name, cause.clone()));
        let leavers = if phase == Phase::Gathering { self.missing_leavers(deployment) } else { Vec::new() };
        let silent = owing.iter().filter(|name| !missing.contains_key(*name));
        let silent = silent.map(|name| Outcome::instance_failed(name, silence::SILENT));
        let told: Vec<_> = causes.chain(silent).chain(leavers).chain([Outcome::failed(TIMED_OUT)]).collect();
        self.change(|deployment| deployment.outcomes.extend(told));
        match phase {
            Phase::Gathering | Phase::Staging | Phase::Checking => self.abandon(now, fx),
            Phase::Moving => self.go_back(now, fx),
            Phase::Telling => {
                if let Some(deployment) = self.deployment.take() {
                    self.end(deployment, Verdict::New, None, now, fx);
                }
            }
            Phase::Opening | Phase::Switching | Phase::Deciding | Phase::Returning => {}
        }
    }

    /// Nothing was touched, and nothing will be, as its outcomes say.
    pub(super) fn abandon(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = self.deployment.take() else { return };
        self.end(deployment, Verdict::Refused, None, now, fx);
        // Back to the instances that are needed, and to agents that came back meanwhile.
        self.need_the_former(now, fx);
        let Some(deployed) = self.shelf.deployed().cloned() else { return };
        for instance in &*deployed.instances {
            if self.roster.is_ready(&instance.name) {
                self.redeploy(&instance.name, now, fx);
            }
        }
    }

    pub(super) fn need_the_former(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let instances = self.shelf.deployed().map(|deployed| Arc::clone(&deployed.instances)).unwrap_or_default();
        self.release(&instances, now, fx);
        self.admit(&instances, now, fx);
    }

    /// How long agents may take to go from what is deployed to what is to be, or back.
    pub(super) fn patience_of_deployment(&self) -> std::time::Duration {
        self.deployment.as_ref().map(|deployment| self.patience(&deployment.configuration)).unwrap_or_default()
    }
}

/// The same without the controller's own line that it took too long, where instances are named that it waited for.
fn of_those_named(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let is_missing = |it: &Outcome| !it.is_success() && it.node.is_none() && it.instance.is_some();
    if outcomes.iter().any(is_missing) {
        outcomes.retain(|it| *it != Outcome::failed(TIMED_OUT));
    }
    outcomes
}

impl Deployment {
    /// Whether anything may be otherwise than before by now.
    fn is_touching(&self) -> bool {
        !self.moving.is_empty() || self.rollout.has_begun()
    }

    /// Where anything may be otherwise.
    pub(super) fn touched_instances(&self) -> BTreeSet<InstanceName> {
        self.rollout.begun_on().chain(self.moving.keys()).cloned().collect()
    }
}

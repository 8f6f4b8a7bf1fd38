//! Nodes are switched: those whose turn has come are told, and each agent answers when its own are ready or will not be.

use std::collections::BTreeSet;

use super::{Deployment, Phase};
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State, TIMED_OUT, sorted};
use crate::controller::store::Save;
use crate::message::{agent, silence};
use crate::model::{InstanceName, NodeName, Now, Outcome, RequestId};
use crate::plan::Rollout;

impl State {
    pub(super) fn begin_to_switch(&mut self, now: Now, fx: &mut Vec<Effect>) {
        self.change(|deployment| deployment.phase = Phase::Switching);
        self.switch_on(now, fx);
    }

    /// Tells whoever's turn has come; goes on when nothing is left to be switched.
    fn switch_on(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &mut self.deployment else { return };
        if deployment.has_failed() && !deployment.stands {
            deployment.rollout.stop();
        }
        let begun = deployment.rollout.begin_more();
        let is_over = deployment.rollout.is_done();
        let deadline = now.mono + self.patience_of_deployment();
        let unreached: Vec<_> = begun.keys().filter(|name| self.roster.link(name).is_none()).cloned().collect();
        for (instance, nodes) in begun {
            self.change(|deployment| {
                let moves = nodes.iter().filter(|node| deployment.record.moves.get(*node) == Some(&instance));
                deployment.arrives.extend(moves.cloned());
            });
            let reqid = self.open(Parent::Switch, BTreeSet::from([instance.clone()]), deadline);
            self.change(|deployment| drop(deployment.steps.insert(reqid.clone(), (instance.clone(), nodes))));
            self.send_step(&reqid, fx);
        }
        for name in unreached {
            self.miss(&name, now, fx);
        }
        if let Some(deployment) = &self.deployment {
            let (done, all) = deployment.rollout.progress();
            let named = in_few_words(&deployment.rollout);
            if !named.is_empty() {
                self.tell_progress(&format!("{done} of {all} nodes switched, now {named}"), now, fx);
            }
        }
        if is_over {
            self.all_switched(now, fx);
        }
    }

    fn send_step(&mut self, reqid: &RequestId, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let Some((to, nodes)) = deployment.steps.get(reqid).cloned() else { return };
        let configuration = deployment.configuration.id.clone();
        let rest = deployment.record.rests_among(|| deployment.configuration.names_on(&to));
        // It has, or will have, what it said that it did not have.
        self.nodes.may_have_these(&nodes);
        self.send(&to, agent::SwitchNodesRequest { reqid: reqid.clone(), configuration, nodes, rest }, fx);
    }

    /// It came back in the middle: what it was told may have been lost with the link. It is told nothing else.
    pub(super) fn tell_steps_again(&mut self, to: &InstanceName, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let steps = deployment.steps.iter().filter(|(_, (instance, _))| instance == to);
        let steps: Vec<_> = steps.map(|(reqid, _)| reqid.clone()).collect();
        steps.iter().for_each(|reqid| self.send_step(reqid, fx));
    }

    pub(in crate::controller::state) fn step_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if self.following.as_ref().is_some_and(|following| following.steps.contains_key(reqid)) {
            return self.turn_answered(from, reqid, outcomes, now, fx);
        }
        self.requests.answer(reqid, from, |_| {});
        let Some(deployment) = &mut self.deployment else { return };
        // Of a step that nobody waits for any more nothing is heard.
        let Some((_, nodes)) = deployment.steps.remove(reqid) else { return };
        deployment.note(outcomes.into_iter().filter(|outcome| outcome.node.is_some() || !outcome.is_success()));
        deployment.rollout.settled(&nodes);
        self.write_so_far(fx);
        self.switch_on(now, fx);
    }

    /// Nobody answered a step in time.
    pub(super) fn step_is_late(&mut self, reqid: &RequestId, now: Now, fx: &mut Vec<Effect>) {
        let Some((instance, nodes)) = self.deployment.as_ref().and_then(|deployment| deployment.steps.get(reqid))
        else {
            return;
        };
        let cause = match self.roster.link(instance) {
            Some(_) => silence::SILENT.to_owned(),
            None => self.roster.why_away(instance),
        };
        let late = |node: &NodeName| Outcome::node_failed(instance, node, TIMED_OUT.into(), None);
        let outcomes = nodes.iter().map(late).chain([Outcome::instance_failed(instance, cause)]).collect();
        self.step_answered(&instance.clone(), reqid, outcomes, now, fx);
    }

    /// Whoever finds it after a crash knows what came of nodes by then: where it stands of all of them, else of those because of
    /// which all go back. Of many, a few may be written later.
    fn write_so_far(&mut self, fx: &mut Vec<Effect>) {
        const FEW: u64 = 64;
        let Some(deployment) = &mut self.deployment else { return };
        let count = deployment.results().count() as u64;
        let new = count.saturating_sub(deployment.record.results.len() as u64 + deployment.record.left_out);
        let is_worth_it = count <= FEW || new > count / 16 || deployment.rollout.is_done();
        if new > 0 && is_worth_it {
            deployment.keep_results();
            fx.push(Effect::Save(vec![Save::Deployment(Box::new(deployment.record.clone()), None)], None));
        }
    }

    fn all_switched(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        match (deployment.stands, deployment.has_failed()) {
            (true, _) => self.tell_shares(now, fx),
            (false, true) => self.go_back(now, fx),
            (false, false) => self.decide(now, fx),
        }
    }
}

/// The first of the nodes that are under way.
pub(super) fn in_few_words(rollout: &Rollout) -> String {
    let named: Vec<_> = rollout.under_way().take(5).map(NodeName::as_str).collect();
    let more = if rollout.under_way().count() > named.len() { ", ..." } else { "" };
    named.join(", ") + more
}

impl Deployment {
    /// What is known of it by now, whatever it comes to.
    fn results(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| self.stands || !outcome.is_success())
    }

    /// Its record has that.
    pub(super) fn keep_results(&mut self) {
        let results = sorted(self.results().cloned().collect());
        self.record.keep(&results);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.outcomes.iter().any(|outcome| !outcome.is_success())
    }
}

//! Whoever loses its link in the middle of a deployment is waited for: for as long as an answer usually may take, since the
//! link may be back in a moment, and no longer, however long the step may take that it was at.

use std::collections::BTreeSet;

use super::{Deployment, Phase, instances};
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State};
use crate::message::silence;
use crate::model::{InstanceName, Now, Outcome, RequestId};
use crate::request::{Answered, Open};

impl State {
    /// That instance is out of reach: whoever looks on is told so, and that nobody waits for ever.
    pub(in crate::controller::state) fn miss(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        if self.is_waited_for(name) {
            self.wait_for_absent(BTreeSet::from([name.clone()]), now, fx);
        }
    }

    /// The same for all of those who were asked something, and were out of reach before.
    pub(super) fn miss_whom_nobody_reaches(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let asked = self.requests.get(&deployment.inner).into_iter().flat_map(|open| &open.owes);
        let absent: BTreeSet<InstanceName> = asked.filter(|name| self.roster.link(name).is_none()).cloned().collect();
        self.wait_for_absent(absent, now, fx);
    }

    /// Waits for those for whom nobody waits yet.
    fn wait_for_absent(&mut self, mut absent: BTreeSet<InstanceName>, now: Now, fx: &mut Vec<Effect>) {
        let Some(number) = self.deployment.as_ref().map(|deployment| deployment.record.number) else { return };
        absent.retain(|name| self.waits_for(name, number).is_none());
        if absent.is_empty() {
            return;
        }
        let patience = self.rules.request_timeout;
        let who = match absent.first().filter(|_| absent.len() == 1) {
            Some(name) => format!("`{name}`, which is"),
            None => format!("{}, which are", instances(absent.len())),
        };
        self.tell_progress(&format!("waiting {patience:?} at most for {who} out of reach"), now, fx);
        for name in absent {
            self.open(Parent::Away(number), BTreeSet::from([name]), now.mono + patience);
        }
    }

    /// The request that ends the wait for that instance in that deployment.
    fn waits_for(&self, name: &InstanceName, number: u64) -> Option<RequestId> {
        let is_it =
            |reqid: &RequestId| self.requests.get(reqid).is_some_and(|open| open.parent == Parent::Away(number));
        self.requests.owed_by(name).into_iter().find(is_it)
    }

    /// Whether the deployment in progress waits for something that this instance was, or is about to be, asked.
    fn is_waited_for(&self, name: &InstanceName) -> bool {
        let Some(deployment) = &self.deployment else { return false };
        match deployment.phase {
            Phase::Staging | Phase::Checking | Phase::Moving | Phase::Telling => self.owes(name, &deployment.inner),
            Phase::Switching => deployment.steps.values().any(|(instance, _)| instance == name),
            // Who is not there has a deadline of its own, or is not waited for at all.
            Phase::Gathering | Phase::Opening | Phase::Deciding | Phase::Returning => false,
        }
    }

    /// It has a link again.
    pub(in crate::controller::state) fn is_missed_no_more(&mut self, name: &InstanceName) {
        let Some(deployment) = &mut self.deployment else { return };
        deployment.lost.remove(name);
        let number = deployment.record.number;
        if let Some(reqid) = self.waits_for(name, number) {
            self.requests.close(&reqid);
        }
    }

    /// Another run of its agent does not have at hand what the one before has looked at, and may see it otherwise: as long as
    /// nothing is touched it looks again, once it is welcome.
    pub(in crate::controller::state) fn has_to_look_again(&mut self, name: &InstanceName, now: Now) {
        let is_checking = |deployment: &&mut Deployment| {
            deployment.phase == Phase::Checking && deployment.awaited().any(|instance| instance.name == *name)
        };
        let Some(deployment) = self.deployment.as_mut().filter(is_checking) else { return };
        deployment.turns.retain(|turn| turn.instance != *name);
        deployment.outcomes.retain(|outcome| outcome.instance.as_ref() != Some(name));
        let (inner, configuration) = (deployment.inner.clone(), deployment.configuration.clone());
        match self.requests.get_mut(&inner) {
            Some(open) => drop(open.owes.insert(name.clone())),
            // All had looked, and one of them has yet to answer the welcome.
            None => {
                let deadline = now.mono + self.patience(&configuration);
                self.requests.open(inner, Open { parent: Parent::Check, owes: [name.clone()].into(), deadline });
            }
        }
    }

    /// Whoever loses its link before it has answered the welcome may be back as another run, which has not looked: what it
    /// has answered does not count yet. The same run answers as it did.
    pub(in crate::controller::state) fn loses_its_early_answer(&mut self, name: &InstanceName, now: Now) {
        if self.was_asked_early(name) {
            self.has_to_look_again(name, now);
        }
    }

    /// It was waited for long enough: the deployment goes on as if it had said that it cannot.
    pub(in crate::controller::state) fn stays_away(
        &mut self,
        name: &InstanceName,
        number: u64,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(deployment) = self.deployment.as_ref().filter(|deployment| deployment.record.number == number) else {
            return;
        };
        if !self.is_waited_for(name) || self.roster.link(name).is_some() {
            return;
        }
        let (phase, inner) = (deployment.phase, deployment.inner.clone());
        let why = Outcome::instance_failed(name, self.roster.why_away(name));
        match phase {
            Phase::Staging => self.files_answered(name, &inner, why, now, fx),
            Phase::Checking => self.check_answered(name, &inner, (vec![why], Vec::new()), now, fx),
            Phase::Moving => self.move_answered(name, &inner, vec![why], now, fx),
            Phase::Switching => self.steps_are_lost(name, why, now, fx),
            Phase::Telling => self.share_is_lost(name, &inner, why, now, fx),
            Phase::Gathering | Phase::Opening | Phase::Deciding | Phase::Returning => {}
        }
    }

    /// What it was told to switch it may have switched, or not: nobody hears of it.
    fn steps_are_lost(&mut self, name: &InstanceName, why: Outcome, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &mut self.deployment else { return };
        // Where it is to stand it is told all of it when it is back, and nobody waits for each of its nodes.
        deployment.rollout.leave_out(name);
        deployment.lost.insert(name.clone());
        let steps = deployment.steps.iter().filter(|(_, (instance, _))| instance == name);
        let steps: Vec<_> = steps.map(|(reqid, (_, nodes))| (reqid.clone(), nodes.clone())).collect();
        let mut why = Some(why);
        for (reqid, nodes) in steps {
            let lost = nodes.iter().map(|node| Outcome::node_failed(name, node, silence::LOST.into(), None));
            let outcomes = lost.chain(why.take()).collect();
            self.step_answered(name, &reqid, outcomes, now, fx);
        }
    }

    /// It has yet to follow what was decided.
    fn share_is_lost(&mut self, name: &InstanceName, inner: &RequestId, why: Outcome, now: Now, fx: &mut Vec<Effect>) {
        self.change(|deployment| {
            deployment.lost.insert(name.clone());
            deployment.outcomes.push(why);
        });
        if let Answered::Complete(_) = self.requests.answer(inner, name, |_| {}) {
            self.complete(now, fx);
        }
    }
}

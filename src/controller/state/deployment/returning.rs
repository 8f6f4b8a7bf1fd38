//! All go back to what was in force before: what serves nobody at once, and then what runs, in turns as it went forth.
//!
//! Each instance says which of its nodes wait for their turn. Nobody's turn comes before all who can be reached have said so:
//! by then what was down is up again, or will not be. A node that is not ready in time holds up nobody, nor does an instance
//! that is lost: it is asked again when it is back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Following, Phase, in_few_words};
use crate::controller::kept::{Head, Kept};
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State, TIMED_OUT, publish_own};
use crate::controller::store::Save;
use crate::message::agent::{CheckedChange, SwitchNodesRequest};
use crate::message::silence;
use crate::model::{InstanceName, NodeName, NodeState, Now, Outcome, Record, RequestId, Verdict};
use crate::plan::Turn;

impl State {
    /// It is decided for what was in force before. Whether that can be written does not matter: whoever finds it undecided
    /// decides so.
    pub(super) fn go_back(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let not_cleared = self.not_cleared();
        let Some(deployment) = &mut self.deployment else { return };
        deployment.record.verdict = Verdict::Old;
        // Whoever finds it after a crash knows why.
        deployment.keep_results();
        for reqid in std::mem::take(&mut deployment.steps).keys() {
            self.requests.close(reqid);
        }
        self.requests.close(&deployment.inner.clone());
        // What was not begun elsewhere cannot run there.
        let begun: BTreeSet<_> = deployment.rollout.begun_on().cloned().collect();
        deployment.record.moves.retain(|_, there| begun.contains(there));
        // What the deployment before had begun there may.
        for (node, there) in not_cleared {
            deployment.record.moves.entry(node).or_insert(there);
        }
        let (record, touched) = (deployment.record.clone(), deployment.touched_instances());
        // Whoever lost its link just now may be back in a moment, and some of its nodes may be down until then.
        let is_missed = |name: &InstanceName| {
            let was_given_up = deployment.lost.contains(name) || deployment.without.contains(name);
            !was_given_up && self.roster.link(name).is_none()
        };
        let former = self.shelf.deployed();
        let is_one_missed = former.is_some_and(|former| former.instances.iter().any(|it| is_missed(&it.name)));
        fx.push(Effect::Save(vec![Save::Deployment(Box::new(record.clone()), None)], None));
        self.tell_progress("going back", now, fx);
        let Some(former) = self.shelf.deployed().cloned() else {
            self.need_the_former(now, fx);
            return self.finish_going_back(now, fx);
        };
        // Those that are new have to follow, too: they stand by.
        let strangers = touched.into_iter().chain(record.moves.values().cloned());
        let strangers = strangers.filter(|name| !former.has(name)).collect();
        self.follow(Following::to_the_former(record, &former, strangers, &self.rules.pace));
        if is_one_missed {
            self.gather_to_go_back(now);
        }
        self.need_the_former(now, fx);
        // A way to go back and another one to start again what had moved.
        let deadline = now.mono + self.patience_of_deployment() * 2;
        let owes: BTreeSet<_> = former.instances.iter().map(|instance| instance.name.clone()).collect();
        let inner = self.open(Parent::Restore, owes.clone(), deadline);
        self.enter(Phase::Returning, inner.clone());
        for name in &owes {
            self.send_back(name, &former, inner.clone(), fx);
        }
        self.are_all_back(now, fx);
    }

    /// An instance has put back what served nobody, and says what waits for its turn.
    pub(in crate::controller::state) fn back_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        (outcomes, waiting): (Vec<Outcome>, Vec<CheckedChange>),
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if self.requests.get(reqid).is_some_and(|open| open.parent == Parent::Redeploy) {
            self.requests.answer(reqid, from, |_| {});
        }
        // Who does not do it at all, since it was asked again meanwhile, has not gone back: what was to move there may run.
        let has_refused = outcomes.iter().any(|outcome| !outcome.is_success() && outcome.node.is_none());
        let failed = outcomes.iter().filter(|outcome| !outcome.is_success());
        let failed: BTreeSet<_> = failed.filter_map(|outcome| outcome.node.clone()).collect();
        let is_asked = self.following.as_ref().is_some_and(|following| following.has_asked(from, reqid));
        if is_asked && !has_refused {
            self.note_followed(from, &outcomes);
        }
        self.is_not_as_before(from, outcomes, now, fx);
        if let Some(following) = self.following.as_mut().filter(|_| is_asked) {
            following.has_said_who_waits(from);
            match has_refused {
                true => following.refuses(from),
                false => {
                    self.have_a_turn(from, waiting);
                    self.went_back(from, Some(&failed), now, fx);
                }
            }
        }
        self.turn_back_on(now, fx);
        self.are_all_back(now, fx);
    }

    /// These nodes of an instance go back one after the other.
    fn have_a_turn(&mut self, of: &InstanceName, waiting: Vec<CheckedChange>) {
        let Some(former) = self.shelf.deployed() else { return };
        let its: BTreeSet<NodeName> = former.names_on(of).collect();
        let turn = |CheckedChange { node, role, runs, shares }| Turn { node, instance: of.clone(), role, runs, shares };
        let turns = waiting.into_iter().filter(|change| its.contains(&change.node)).map(turn);
        if let Some(following) = &mut self.following {
            following.rollout.add(turns);
        }
    }

    /// Tells those whose turn has come. Another deployment that is under way decides about them, too: then nobody's comes.
    pub(in crate::controller::state) fn turn_back_on(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(former) = self.shelf.deployed().filter(|_| self.have_all_said_who_waits()) else { return };
        let id = former.id.clone();
        let Some(following) = self.following.as_mut().filter(|following| following.is_back) else { return };
        let deployment = self.deployment.as_ref();
        if deployment.is_some_and(|deployment| deployment.record.number != following.record.number) {
            return;
        }
        let begun = following.rollout.begin_more();
        if begun.is_empty() {
            return;
        }
        // What is stopped has the definition that it was to have, also when that is not at hand any more.
        let patience = following.record.patience;
        for (instance, nodes) in begun {
            let reqid = self.open(Parent::Back, BTreeSet::from([instance.clone()]), now.mono + patience);
            let Some(following) = &mut self.following else { return };
            following.steps.insert(reqid.clone(), (instance.clone(), nodes.clone()));
            let its = || self.shelf.deployed().into_iter().flat_map(|former| former.names_on(&instance));
            let rest = following.record.rests_among(its);
            self.send(&instance, SwitchNodesRequest { reqid, configuration: id.clone(), nodes, rest }, fx);
        }
        // As long as it goes on, whoever deploys waits for it.
        if let Some(deployment) = &self.deployment {
            self.requests.set_deadline(&deployment.inner, now.mono + patience * 2);
        }
        self.tell_turns(now, fx);
    }

    fn tell_turns(&self, now: Now, fx: &mut Vec<Effect>) {
        let Some(Following { record, rollout, .. }) = &self.following else { return };
        let (done, all) = rollout.progress();
        let named = in_few_words(rollout);
        let (number, id) = (record.number, &record.configuration);
        let what = format!("deployment {number} of {id}: {done} of {all} nodes that ran gone back, now {named}");
        self.tell_log(&self.rules.name, what, now.wall, fx);
    }

    /// Whether every instance that has to go back has said which of its nodes wait for their turn, or will not say so soon.
    fn have_all_said_who_waits(&self) -> bool {
        let (Some(following), Some(former)) = (&self.following, self.shelf.deployed()) else { return false };
        let is_open = |reqid: &RequestId| self.requests.get(reqid).is_some();
        let is_gathering = following.gathering.as_ref().is_some_and(is_open);
        let is_asked =
            |name: &InstanceName| self.roster.link(name).is_some() && following.asked.get(name).is_some_and(is_open);
        let mut owing = following.owing.iter().filter(|name| former.has(name) && !following.said.contains(*name));
        owing.all(|name| !is_gathering && !is_asked(name))
    }

    /// Gives everybody some time to come back before the next has its turn: also where a controller has just started, it is
    /// not known what is down.
    pub(in crate::controller::state) fn gather_to_go_back(&mut self, now: Now) {
        let Some(following) = self.following.as_ref().filter(|following| following.is_back) else { return };
        // Whoever is lost again and again does not hold the others up for ever.
        let is_open = following.gathering.as_ref().is_some_and(|reqid| self.requests.get(reqid).is_some());
        if !is_open {
            let reqid = self.open(Parent::Regather, BTreeSet::new(), now.mono + self.rules.request_timeout);
            self.following.iter_mut().for_each(|following| following.gathering = Some(reqid.clone()));
        }
    }

    /// What became of nodes whose turn to go back had come.
    pub(super) fn turn_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.requests.answer(reqid, from, |_| {});
        let Some(following) = &mut self.following else { return };
        let Some((_, nodes)) = following.steps.remove(reqid) else { return };
        following.rollout.settled(&nodes);
        // Who does not do it at all has not gone back, and is asked again when it is back.
        let has_refused = outcomes.iter().any(|outcome| !outcome.is_success() && outcome.node.is_none());
        match has_refused {
            true => following.refuses(from),
            false => self.note_followed(from, &outcomes),
        }
        self.is_not_as_before(from, outcomes, now, fx);
        if !has_refused {
            self.has_followed(from, now, fx);
        }
        self.turn_back_on(now, fx);
        self.are_all_back(now, fx);
    }

    /// Others go on. Its answer counts whenever it comes.
    pub(in crate::controller::state) fn turn_is_late(&mut self, reqid: &RequestId, now: Now, fx: &mut Vec<Effect>) {
        let Some(following) = &mut self.following else { return };
        let Some((instance, nodes)) = following.steps.get(reqid).cloned() else { return };
        following.rollout.settled(&nodes);
        let late = |node: &NodeName| Outcome::node_failed(&instance, node, TIMED_OUT.into(), None);
        let silent = Outcome::instance_failed(&instance, silence::SILENT);
        self.is_not_as_before(&instance, nodes.iter().map(late).chain([silent]).collect(), now, fx);
        self.turn_back_on(now, fx);
    }

    /// The link to an instance is gone: it is asked again when it is back. The others wait for that for as long as an answer
    /// usually may take, since some of its nodes may be down.
    pub(in crate::controller::state) fn loses_its_turn(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        self.has_to_say_who_waits(name);
        if self.has_yet_to_follow(name) {
            self.gather_to_go_back(now);
        }
        self.turn_back_on(now, fx);
    }

    /// That instance is about to be asked, or cannot be: what it said before does not count any more.
    pub(super) fn has_to_say_who_waits(&mut self, name: &InstanceName) {
        let Some(following) = &mut self.following else { return };
        following.forget_what_was_said_by(name);
        following.steps.retain(|reqid, (instance, _)| {
            let is_lost = instance == name;
            if is_lost {
                self.requests.close(reqid);
            }
            !is_lost
        });
    }

    /// What did not come back is told, also to whoever deploys. It stops nobody else.
    fn is_not_as_before(&mut self, of: &InstanceName, mut outcomes: Vec<Outcome>, now: Now, fx: &mut Vec<Effect>) {
        if let Some(Following { record, .. }) = &self.following {
            outcomes.retain(|outcome| outcome.node.as_ref().is_none_or(|node| !record.rests.contains(node)));
        }
        self.tell_what_is_not(of, "before", &outcomes, now, fx);
        let Some(deployment) = self.deployment.as_mut().filter(|it| it.phase == Phase::Returning) else { return };
        let failed = outcomes.into_iter().filter(|outcome| !outcome.is_success());
        deployment.outcomes.extend(failed.map(not_as_before));
    }

    /// Ends it if everybody who can be reached has gone back, as far as that does not hang on others.
    pub(in crate::controller::state) fn are_all_back(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = self.deployment.as_ref().filter(|it| it.phase == Phase::Returning) else { return };
        let inner = deployment.inner.clone();
        let is_away = |name: &InstanceName| self.roster.link(name).is_none();
        let former = self.shelf.deployed();
        let waits_for_them = |following: &Following, name: &InstanceName| {
            former.is_some_and(|former| match former.has(name) {
                true => following.waits_only_for(name, former, is_away),
                false => following.cannot_stand_by(name),
            })
        };
        let mut owes = self.following.iter().flat_map(|it| it.owing.iter().map(move |name| (it, name)));
        if owes.all(|(following, name)| is_away(name) || waits_for_them(following, name)) {
            self.requests.close(&inner);
            self.finish_going_back(now, fx);
        }
    }

    pub(super) fn finish_going_back(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(mut deployment) = self.deployment.take() else { return };
        let owing = self.following.iter().flat_map(|following| &following.owing);
        let (away, slow) = owing.partition(|name| self.roster.link(name).is_none());
        let words = in_words(&deployment.record, away, slow);
        deployment.outcomes.push(Outcome::failed(words));
        if let Some(former) = self.shelf.deployed().cloned() {
            deployment.outcomes = where_they_were(std::mem::take(&mut deployment.outcomes), &former);
            // What was taken away meanwhile, and rests where it is again, nobody tells of.
            publish_own(self.nodes.expect(&former, NodeState::Stopped, now.wall), fx);
        }
        self.forget_lost(now.wall, fx);
        self.end(deployment, Verdict::Old, None, now, fx);
    }
}

/// The same outcome, which says of a failure that it was one to go back.
pub(super) fn not_as_before(outcome: Outcome) -> Outcome {
    let error = outcome.error.as_deref().map(|error| format!("{}: {error}", Record::NOT_BACK));
    Outcome { error, ..outcome }
}

/// The same where what moved, and has gone back, is named where it was before, once; what was nowhere is gone again.
fn where_they_were(outcomes: Vec<Outcome>, former: &Kept) -> Vec<Outcome> {
    let places: BTreeMap<&str, Head<'_>> = former.heads().map(|head| (head.name, head)).collect();
    let mut named = BTreeSet::new();
    let was = |outcome: Outcome| match &outcome.node {
        Some(node) if outcome.is_success() => {
            let head = places.get(node.as_str())?;
            named.insert(node.clone()).then(|| Outcome::node_done(&head.instance(), node))
        }
        _ => Some(outcome),
    };
    outcomes.into_iter().filter_map(was).collect()
}

/// What came of a deployment that was gone back from: who is away has yet to follow, and so has who is not through with it.
fn in_words(record: &Record, away: Vec<&InstanceName>, slow: Vec<&InstanceName>) -> String {
    let former = match &record.former {
        Some(former) => format!("configuration {former} is in force again"),
        None => "nothing was in force before".to_owned(),
    };
    let named = |names: &[&InstanceName]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let away = match &away[..] {
        [] => String::new(),
        [one] => format!("; `{one}` will follow when it can be reached"),
        all => format!("; {} will follow when they can be reached", named(all)),
    };
    let slow = match &slow[..] {
        [] => String::new(),
        [one] => format!("; `{one}` has yet to follow"),
        all => format!("; {} have yet to follow", named(all)),
    };
    format!("rolled back: {former}{away}{slow}")
}

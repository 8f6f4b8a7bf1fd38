//! One deployment: gathering, checking, moving, and what comes of it.
//!
//! Until its nodes are moved or switched nothing is touched, and before that it is written down that it began. It is decided
//! once, in the journal: for the new configuration when that is written, and else for the former. So whoever finds it
//! undecided after a crash goes back. Where it stands whatever fails, it is decided before anything is switched.
//!
//! `staging` gets their files to agents, `switching` has nodes switched, `deciding` decides and ends, `returning` goes back,
//! `following` is about instances that were not there, `absence` about those that are lost in the middle, `leaving` about
//! those that it does not have any more, and `orders` about what clients order meanwhile.

mod absence;
mod deciding;
mod following;
mod leaving;
mod orders;
mod returning;
mod staging;
mod switching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

pub(super) use self::following::Following;
pub(super) use self::leaving::may_run_twice;
use self::switching::in_few_words;
use super::{Effect, Parent, State, Ticket};
use crate::controller::kept::{Head, Kept};
use crate::controller::store::{Save, Slot};
use crate::message::agent::{self, CheckedChange};
use crate::message::client::{self, ClientResponse, Terms};
use crate::message::pending;
use crate::model::{
    ConfigurationId, Instance, InstanceName, NodeName, NodeState, NodeStatus, Now, OnFailure, Outcome, Record,
    RequestId, Timestamp, Verdict,
};
use crate::plan::{self, InstanceChange, Rollout, Turn};
use crate::request::Answered;

/// How many of the nodes that are being switched are named to whoever asks.
const MOST_NAMED: usize = 100;

/// A deployment in progress.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    /// Who waits for the answer, until it was answered.
    ticket: Option<Ticket>,
    pub record: Record,
    /// Whether it was asked for by `set_configuration`.
    in_one_step: bool,
    /// Whether it is decided for the new configuration before anything is switched, since it is to stand whatever fails, or
    /// since there is nothing to go back to.
    stands: bool,
    /// Instances that nobody waits for.
    without: BTreeSet<InstanceName>,
    /// Instances of what is in force that it does not have, and that may run something.
    leaving: BTreeSet<InstanceName>,
    configuration: Kept,
    /// The request to agents that is under way, or what is to be written.
    inner: RequestId,
    phase: Phase,
    /// The request by which agents have it at hand.
    checked: Option<RequestId>,
    /// Who was asked together with its welcome, and has not answered that.
    early: BTreeSet<InstanceName>,
    /// What agents said would be started; empty once it is planned when.
    turns: Vec<Turn>,
    /// What is ended where it was, to be started elsewhere.
    moving: BTreeMap<InstanceName, BTreeSet<NodeName>>,
    rollout: Rollout,
    /// What moves, and was begun to be started where it will be.
    arrives: BTreeSet<NodeName>,
    /// Who was told to switch which nodes, and has not answered.
    steps: BTreeMap<RequestId, (InstanceName, BTreeSet<NodeName>)>,
    /// Since when nodes that have to change were in the state that they had before.
    before: BTreeMap<NodeName, Timestamp>,
    outcomes: Vec<Outcome>,
    /// Instances that were lost in the middle, and not waited for any longer.
    lost: BTreeSet<InstanceName>,
    /// The journal has it.
    is_written: bool,
    /// Something was ordered while its decision was being written.
    has_changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    /// Agents fetch the files of their nodes.
    Staging,
    Checking,
    /// It is written that it begins.
    Opening,
    Moving,
    Switching,
    /// It is written that it is decided for the new configuration.
    Deciding,
    Telling,
    /// It is decided for the former configuration.
    Returning,
}

/// What is to be deployed, and for whom.
pub(super) struct Order {
    pub reqid: RequestId,
    /// Whether it was asked for by `set_configuration`.
    pub in_one_step: bool,
    pub terms: Terms,
    /// The deployment whose configuration it brings back.
    pub back_to: Option<u64>,
}

impl State {
    /// Why no deployment can begin now, if none can: in the words that clients know, and who deploys since when.
    pub(super) fn refusal(&self) -> Option<Vec<Outcome>> {
        let Record { number, reqid, author, began, .. } = &self.deployment.as_ref()?.record;
        let who =
            format!("deployment {number} is under way, by {author} since {began}: see `watchpost deploy --attach`");
        Some(vec![pending::refusal(reqid), Outcome::failed(who)])
    }

    /// Deploys what was staged.
    pub(super) fn deploy(&mut self, ticket: Ticket, order: Order, now: Now, fx: &mut Vec<Effect>) {
        match self.shelf.get(Slot::Ready).cloned() {
            Some(configuration) => self.begin(ticket, order, configuration, now, fx),
            None => {
                let none = || vec![Outcome::failed("no configuration available to deploy")];
                let refusal = self.refusal().unwrap_or_else(none);
                let Order { reqid, in_one_step, .. } = order;
                fx.push(Effect::Answer(ticket, deployed(in_one_step, reqid, None, refusal)));
            }
        }
    }

    /// Deploys what was found of an earlier deployment.
    pub(super) fn roll_back(
        &mut self,
        ticket: Ticket,
        request: client::RollbackRequest,
        found: Result<(u64, Kept), String>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let client::RollbackRequest { reqid, terms, .. } = request;
        match found {
            Ok((number, configuration)) => {
                let order = Order { reqid, in_one_step: false, terms, back_to: Some(number) };
                self.begin(ticket, order, configuration, now, fx);
            }
            Err(error) => fx.push(Effect::Answer(ticket, deployed(false, reqid, None, vec![Outcome::failed(error)]))),
        }
    }

    pub(super) fn begin(&mut self, ticket: Ticket, order: Order, configuration: Kept, now: Now, fx: &mut Vec<Effect>) {
        let Order { reqid, in_one_step, terms, back_to } = order;
        let Terms { author, on_failure, all_at_once, without, detach } = terms;
        let mut refusals = self.refusal().unwrap_or_else(|| self.strangers(&without, &configuration));
        refusals.extend(self.undialled(&configuration.instances, &without).map(Outcome::failed));
        if !refusals.is_empty() {
            return fx.push(Effect::Answer(ticket, deployed(in_one_step, reqid, None, refusals)));
        }
        self.last_number += 1;
        let former = self.shelf.deployed().map(|former| former.id.clone());
        let stands = former.is_none() || on_failure.unwrap_or(self.rules.on_failure) == OnFailure::Keep;
        // What has yet to go back from the deployment before may be as slow.
        let before = self.following.as_ref().filter(|following| following.is_back);
        let before = before.map(|following| following.record.patience).unwrap_or_default();
        let patience = self.patience(&configuration).max(before);
        let record = Record {
            number: self.last_number,
            reqid: reqid.clone(),
            author,
            configuration: configuration.id.clone(),
            former,
            back_to,
            began: now.wall,
            at_once: all_at_once,
            patience,
            ended: None,
            verdict: Verdict::Open,
            up: BTreeSet::new(),
            rests: BTreeSet::new(),
            moves: BTreeMap::new(),
            owing: BTreeSet::new(),
            results: Vec::new(),
            left_out: 0,
            left_out_of: BTreeSet::new(),
        };
        let leaving = self.leaving(&configuration);
        self.admit(&configuration.instances, now, fx);
        let inner = self.open(Parent::Gather, BTreeSet::new(), now.mono + self.rules.request_timeout);
        let rollout = Rollout::new([], Default::default(), &self.rules.pace);
        let (early, turns, moving, arrives, steps, before, outcomes, lost) = Default::default();
        self.deployment = Some(Deployment {
            ticket: Some(ticket).filter(|_| !detach),
            record,
            in_one_step,
            stands,
            without,
            leaving,
            configuration,
            inner,
            phase: Phase::Gathering,
            checked: None,
            early,
            turns,
            moving,
            rollout,
            arrives,
            steps,
            before,
            outcomes,
            lost,
            is_written: false,
            has_changed: false,
        });
        if detach {
            let answer = deployed(in_one_step, reqid, None, vec![]);
            fx.push(Effect::Answer(ticket, with_number(answer, self.last_number)));
        }
        self.tell_progress("gathering", now, fx);
        self.go_on(now, fx);
    }

    /// A line of the log about the deployment in progress.
    fn tell_progress(&self, what: &str, now: Now, fx: &mut Vec<Effect>) {
        if let Some(Deployment { record: Record { number, configuration, .. }, .. }) = &self.deployment {
            self.tell_log(&self.rules.name, format!("deployment {number} of {configuration}: {what}"), now.wall, fx);
        }
    }

    /// Where instances are that do not say so themselves: where their agents were seen, unless that was decided before.
    ///
    /// What agents have under an id never changes, so it can be deployed again.
    pub(super) fn hosts(&self, id: &ConfigurationId) -> BTreeMap<InstanceName, IpAddr> {
        match self.shelf.deployed().filter(|deployed| deployed.id == *id) {
            Some(Kept { instances, .. }) => {
                instances.iter().filter_map(|instance| Some((instance.name.clone(), instance.host?))).collect()
            }
            None => self.roster.seen_hosts(),
        }
    }

    /// Makes these instances needed ones. Those that are no longer needed are left alone for now.
    fn admit(&mut self, instances: &[Instance], now: Now, fx: &mut Vec<Effect>) {
        let have: Vec<Instance> = self.roster.needed().cloned().collect();
        for change in plan::diff::instances(&have, instances) {
            match change {
                InstanceChange::Kept(want) => {
                    self.roster.need(want);
                    if !self.roster.is_welcomed(&want.name) {
                        self.welcome(&want.name, now, fx); // unless it is not there
                    }
                }
                InstanceChange::Added(want) => {
                    self.roster.need(want);
                    self.dial(want, now.wall, fx);
                    self.welcome(&want.name, now, fx);
                }
                InstanceChange::Reconnected { have, want } => {
                    self.roster.need(want);
                    if let Some(seat) = self.roster.get_mut(&want.name) {
                        (seat.welcomed, seat.ready) = (false, false);
                    }
                    fx.push(Effect::HangUp(have.name.clone()));
                    fx.extend(self.roster.link(&want.name).map(|link| {
                        Effect::EndLink(link, "the configuration reaches this instance in another way now".into())
                    }));
                    self.dial(want, now.wall, fx);
                }
                InstanceChange::Removed(_) => {}
            }
        }
    }

    /// Takes the deployment as far as it goes now. Where everybody is there to be asked, nobody's answer to the welcome is
    /// waited for: what is asked comes behind that on each link.
    pub(super) fn go_on(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        if deployment.phase == Phase::Gathering && self.are_gathered(deployment) {
            self.requests.close(&deployment.inner.clone());
            self.have_files_fetched(now, fx);
        }
    }

    fn are_gathered(&self, deployment: &Deployment) -> bool {
        if !self.missing_leavers(deployment).is_empty() {
            return false;
        }
        match deployment.without.is_empty() {
            true => self.roster.are_welcomed(&deployment.configuration.instances),
            false => deployment.awaited().all(|instance| self.roster.is_welcomed(&instance.name)),
        }
    }

    /// Everybody who is awaited is asked something now: whoever has yet to answer the welcome is not to be asked again then.
    fn ask_early(&mut self) {
        let Some(deployment) = &mut self.deployment else { return };
        let awaited = deployment.configuration.instances.iter().filter(|it| !deployment.without.contains(&it.name));
        // Who has no link is asked when it is back.
        let is_early = |name: &&InstanceName| self.roster.link(name).is_some() && !self.roster.is_ready(name);
        let early = awaited.map(|instance| &instance.name).filter(is_early);
        deployment.early = early.cloned().collect();
    }

    /// Whether it was asked together with a welcome that it has not answered.
    pub(super) fn was_asked_early(&self, name: &InstanceName) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| deployment.early.contains(name))
    }

    /// It has answered the welcome, or its link is gone, and with it whatever it was asked there. Whether it was asked early.
    pub(super) fn is_early_no_more(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) -> bool {
        let was_early = self.deployment.as_mut().is_some_and(|deployment| deployment.early.remove(name));
        if was_early {
            self.conclude_check(now, fx);
        }
        was_early
    }

    /// An instance refuses to be part of it, or says nothing: whoever deploys need not wait for the others.
    pub(super) fn cannot_gather(&mut self, name: &InstanceName, why: &Outcome, now: Now, fx: &mut Vec<Effect>) {
        let is_meant = |deployment: &&mut Deployment| {
            let is_awaited = deployment.awaited().any(|instance| instance.name == *name);
            match deployment.phase {
                Phase::Gathering => is_awaited,
                Phase::Staging | Phase::Checking => is_awaited && deployment.early.contains(name),
                _ => false,
            }
        };
        let Some(deployment) = self.deployment.as_mut().filter(is_meant) else { return };
        deployment.outcomes.push(why.clone());
        self.requests.close(&deployment.inner.clone());
        self.abandon(now, fx);
    }

    // --- checking ---

    /// Every agent looks at what it would have to run, before any of them touches anything.
    fn have_it_checked(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let staged = &deployment.configuration;
        // From here on agents have it under its id, and so it stays as it is.
        let configuration = staged.with_hosts(&self.hosts(&staged.id));
        let owes: BTreeSet<_> = deployment.awaited().map(|instance| instance.name.clone()).collect();
        let deadline = now.mono + self.patience(&configuration);
        if owes.is_empty() {
            self.change(|deployment| deployment.configuration = configuration);
            return self.all_checked(now, fx);
        }
        let inner = self.open(Parent::Check, owes.clone(), deadline);
        self.ask_early();
        for name in &owes {
            self.send_check(name, &configuration, inner.clone(), fx);
        }
        // Nobody waits for the disk now. When it is decided somebody does.
        if let Some(deployment) = &mut self.deployment {
            fx.push(Effect::Save(vec![Save::Tried(deployment.record.number, configuration.clone())], None));
            deployment.configuration = configuration;
            deployment.checked = Some(inner.clone());
        }
        self.enter(Phase::Checking, inner);
        self.tell_progress(&format!("checking on {}", instances(owes.len())), now, fx);
        self.miss_whom_nobody_reaches(now, fx);
    }

    fn send_check(&mut self, to: &InstanceName, whole: &Kept, reqid: RequestId, fx: &mut Vec<Effect>) {
        let configuration = self.share_of(whole, to);
        self.send(to, agent::CheckConfigurationRequest { reqid, configuration }, fx);
    }

    pub(super) fn check_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        (outcomes, changes): (Vec<Outcome>, Vec<CheckedChange>),
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let is_complete = match self.requests.answer(reqid, from, |_| {}) {
            Answered::Late => return,
            Answered::Waiting(_) => false,
            Answered::Complete(_) => true,
        };
        if !is_complete {
            self.foresee(now.wall);
        }
        let Some(deployment) = &mut self.deployment else { return };
        deployment.outcomes.extend(outcomes.into_iter().filter(|outcome| !outcome.is_success()));
        deployment.turns.extend(changes.into_iter().map(|CheckedChange { node, role, runs, shares }| Turn {
            node,
            instance: from.clone(),
            role,
            runs,
            shares,
        }));
        let is_objected = !deployment.outcomes.is_empty();
        match is_complete {
            // Everything there is to object is said at once.
            true if is_objected => self.abandon(now, fx),
            true => self.conclude_check(now, fx),
            false => {}
        }
    }

    /// Goes on once everybody has looked at it, and has answered the welcome.
    fn conclude_check(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(Deployment { phase: Phase::Checking, early, inner, .. }) = &self.deployment else { return };
        if early.is_empty() && self.requests.get(inner).is_none() {
            self.all_checked(now, fx);
        }
    }

    /// Nobody objects: it is planned what is switched when, and written down that it begins, unless nothing is touched before
    /// it is decided.
    fn all_checked(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let held = self.held_where_nobody_waits();
        let Some(deployment) = &mut self.deployment else { return };
        if !held.is_empty() {
            deployment.outcomes.extend(held);
            return self.abandon(now, fx);
        }
        let Some(deployment) = &self.deployment else { return };
        let counts = deployment.configuration.ranks;
        // What moves is missed from when it is ended where it was.
        let (mut up, mut moves) = (self.up_before(deployment), self.moved_by(deployment));
        for (node, there) in self.not_cleared() {
            moves.entry(node).or_insert(there);
        }
        let rests = deployment.record.rests.clone();
        up.retain(|node| !rests.contains(node));
        let before = self.since_when(&deployment.configuration);
        let pace = self.rules.pace;
        self.change(|deployment| {
            deployment.turns.retain(|turn| !rests.contains(&turn.node));
            let rollout = Rollout::new(std::mem::take(&mut deployment.turns), counts, &pace);
            deployment.rollout = if deployment.record.at_once { rollout.all_at_once() } else { rollout };
            deployment.before = before;
            // What was started while others looked at it is among them.
            deployment.record.up.append(&mut up);
            deployment.record.moves = moves;
        });
        // What stands whatever fails is decided before anything is switched, and, unless a node that moves is ended first, in
        // the same line of the journal.
        let is_switched_first =
            self.deployment.as_ref().is_some_and(|deployment| !deployment.stands && !deployment.rollout.is_done());
        match is_switched_first || !self.movers().is_empty() {
            true => self.write(Phase::Opening, Vec::new(), fx),
            false => self.decide(now, fx),
        }
    }

    /// Of the nodes that it touches, those that are meant to run now; and what has yet to go back from the deployment
    /// before, whether that is up or not.
    fn up_before(&self, deployment: &Deployment) -> BTreeSet<NodeName> {
        let Some(former) = self.shelf.deployed() else { return BTreeSet::new() };
        let following = self.following.as_ref().filter(|following| following.is_back);
        let touches_nothing = deployment.turns.is_empty() && deployment.configuration.has_the_nodes_of(former);
        if touches_nothing && following.is_none() {
            return BTreeSet::new();
        }
        let stay: BTreeSet<(&str, &str)> =
            deployment.configuration.heads().map(|head| (head.name, head.instance)).collect();
        let switched: BTreeSet<&str> = deployment.turns.iter().map(|turn| turn.node.as_str()).collect();
        let goes_back = |head: &Head<'_>| {
            let has_yet_to = |it: &Following| it.record.up.contains(head.name) && it.owing.contains(head.instance);
            following.is_some_and(has_yet_to)
        };
        let is_touched = |head: &Head<'_>| switched.contains(head.name) || !stay.contains(&(head.name, head.instance));
        let is_up = |head: &Head<'_>| {
            let rests = |status: &NodeStatus| matches!(status.state, NodeState::Stopped | NodeState::Failed);
            self.nodes.get(head.name).is_some_and(|status| !rests(status))
        };
        let is_meant = |head: &Head<'_>| goes_back(head) || (is_touched(head) && is_up(head));
        former.heads().filter(is_meant).map(|head| head.name()).collect()
    }

    /// The nodes that are deployed on another instance, and where they will be.
    fn moved_by(&self, deployment: &Deployment) -> BTreeMap<NodeName, InstanceName> {
        let Some(former) = self.shelf.deployed() else { return BTreeMap::new() };
        if deployment.configuration.has_the_nodes_of(former) {
            return BTreeMap::new();
        }
        let places: BTreeMap<&str, &str> = former.heads().map(|head| (head.name, head.instance)).collect();
        let is_moved = |head: &Head<'_>| places.get(head.name).is_some_and(|former| *former != head.instance);
        let moved = deployment.configuration.heads().filter(is_moved);
        moved.map(|head| (head.name(), head.instance())).collect()
    }

    /// What the deployment before was to move, and where that may run until the instance has gone back.
    fn not_cleared(&self) -> BTreeMap<NodeName, InstanceName> {
        let Some(following) = &self.following else { return BTreeMap::new() };
        let moves = following.record.moves.iter().filter(|(node, _)| following.may_run_elsewhere(node));
        moves.map(|(node, there)| (node.clone(), there.clone())).collect()
    }

    /// Of that what would be started elsewhere although nobody waits for the instance, and so nobody ends it there first.
    fn held_where_nobody_waits(&self) -> Vec<Outcome> {
        let (Some(deployment), Some(following)) = (&self.deployment, &self.following) else { return Vec::new() };
        let number = following.record.number;
        let mut held = self.not_cleared();
        let is_given_up =
            |there: &InstanceName| deployment.without.contains(there) && self.roster.link(there).is_none();
        held.retain(|_, there| is_given_up(there) && !deployment.leaving.contains(there));
        let outcome = |head: Head<'_>| {
            let there = held.get(head.name).filter(|there| there.as_str() != head.instance)?;
            let why = format!(
                "it may still run there, and not be started on `{}`: `{there}` has yet to go back from deployment \
                 {number}. Wait for it, or deploy a configuration that does not have that instance",
                head.instance
            );
            Some(Outcome::node_failed(there, &head.name(), why, None))
        };
        match held.is_empty() {
            true => Vec::new(),
            false => deployment.configuration.heads().filter_map(outcome).collect(),
        }
    }

    /// What has to be known of nodes that change, to see later whether they have.
    fn since_when(&self, configuration: &Kept) -> BTreeMap<NodeName, Timestamp> {
        let since = |node: Head<'_>| self.nodes.get(node.name).map(|known| (known.node.clone(), known.since));
        match self.shelf.deployed() {
            _ if self.nodes.are_none() => BTreeMap::new(),
            Some(former) => configuration.changed_since(former).filter_map(since).collect(),
            None => configuration.heads().filter_map(since).collect(),
        }
    }

    // --- moving ---

    /// What runs where it will not, and who has it there.
    fn movers(&self) -> BTreeMap<InstanceName, BTreeSet<NodeName>> {
        let mut moving: BTreeMap<InstanceName, BTreeSet<NodeName>> = BTreeMap::new();
        let Some(deployment) = &self.deployment else { return moving };
        // Mostly both are sorted, and nobody has to be looked for.
        let mut in_order = self.nodes.iter().peekable();
        for node in deployment.configuration.heads() {
            while in_order.next_if(|known| known.node.as_str() < node.name).is_some() {}
            let next = in_order.peek().copied().filter(|known| known.node.as_str() == node.name);
            let known = next.or_else(|| self.nodes.get(node.name));
            // Where it certainly is not there is nothing to end.
            let present = known.filter(|_| !self.nodes.is_absent(node.name));
            let places = present.map(|known| &known.instance).into_iter().chain(self.nodes.elsewhere(node.name));
            let is_left = |place: &&InstanceName| {
                // An instance that is out of reach and not awaited was given up by whoever deploys. One that comes back while others
                // end their nodes is asked, too, before anything is started; and one that was lost since all were gathered
                // is waited for.
                place.as_str() != node.instance
                    && (self.roster.link(place).is_some()
                        || deployment.awaited().any(|instance| instance.name == **place)
                        || deployment.awaited_leavers().any(|name| name == *place))
                    && !deployment.has_ended(place, node.name)
            };
            for place in places.filter(is_left) {
                moving.entry(place.clone()).or_default().insert(node.name());
            }
        }
        moving
    }

    /// A node never runs on two instances: what moves is ended where it was before it is started where it will be.
    fn end_what_moves(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let moving = self.movers();
        let Some(deployment) = &self.deployment else { return };
        if moving.is_empty() {
            return match deployment.stands {
                true => self.decide(now, fx),
                false => self.begin_to_switch(now, fx),
            };
        }
        let deadline = now.mono + self.patience(&deployment.configuration);
        let inner = self.open(Parent::Move, moving.keys().cloned().collect(), deadline);
        for (instance, nodes) in &moving {
            self.send(instance, agent::StopRequest { reqid: inner.clone(), nodes: nodes.clone() }, fx);
        }
        self.enter(Phase::Moving, inner);
        self.change(|deployment| {
            for (instance, mut nodes) in moving {
                deployment.moving.entry(instance).or_default().append(&mut nodes);
            }
        });
        self.tell_progress("ending what moves to another instance", now, fx);
        self.miss_whom_nobody_reaches(now, fx);
    }

    /// It came back in the middle: what it was asked may have been lost with the link.
    pub(super) fn ask_again_what_moves(&self, from: &InstanceName, fx: &mut Vec<Effect>) {
        if let Some(Deployment { phase: Phase::Moving, moving, inner, .. }) = &self.deployment
            && let Some(nodes) = moving.get(from).filter(|_| self.owes(from, inner))
        {
            self.send(from, agent::StopRequest { reqid: inner.clone(), nodes: nodes.clone() }, fx);
        }
    }

    pub(super) fn move_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(deployment) = &mut self.deployment {
            deployment.outcomes.extend(outcomes.into_iter().filter(|outcome| !outcome.is_success()));
        }
        if let Answered::Complete(_) = self.requests.answer(reqid, from, |_| {}) {
            // What would not end must not be started a second time.
            let stuck = self.deployment.as_ref().is_some_and(|deployment| !deployment.outcomes.is_empty());
            match stuck {
                true => self.go_back(now, fx),
                false => self.end_what_moves(now, fx),
            }
        }
    }

    /// Sends away the instances that are none of these.
    fn release(&mut self, instances: &[Instance], now: Now, fx: &mut Vec<Effect>) {
        let is_gone = |have: &&Instance| instances.iter().all(|kept| kept.name != have.name);
        let gone: Vec<_> = self.roster.needed().filter(is_gone).map(|have| have.name.clone()).collect();
        for name in gone {
            match self.roster.link(&name).filter(|_| self.shelf.deployed().is_some()) {
                // The link stays until it has answered: it could not hear of it otherwise.
                Some(_) => self.stand_by(&name, now, fx),
                // It is dialled, and shown, until it is back and stands by.
                None if self.deployment.as_ref().is_some_and(|deployment| deployment.leaving.contains(&name)) => {
                    self.roster.see_off(&name);
                    continue;
                }
                None => fx.push(Effect::HangUp(name.clone())),
            }
            self.roster.dispense_with(&name);
        }
    }

    fn enter(&mut self, phase: Phase, inner: RequestId) {
        self.change(|deployment| (deployment.phase, deployment.inner) = (phase, inner));
    }

    fn change(&mut self, change: impl FnOnce(&mut Deployment)) {
        self.deployment.iter_mut().next().map(change);
    }

    /// The deployment that has ended that node where it is, or that starts it elsewhere or did so: it would run twice.
    pub(super) fn mover_of(&self, instance: &InstanceName, node: &NodeName) -> Option<u64> {
        let following = self.following.as_ref().filter(|following| following.may_run_elsewhere(node));
        if let Some(following) = following {
            return Some(following.record.number);
        }
        let undecided = |deployment: &&Deployment| !matches!(deployment.phase, Phase::Telling | Phase::Returning);
        let deployment = self.deployment.as_ref().filter(undecided)?;
        deployment.has_ended(instance, node.as_str()).then_some(deployment.record.number)
    }

    /// What is, or is about to be, deployed.
    pub(super) fn meant(&self) -> Option<&Kept> {
        let deploying = self.deployment.as_ref().map(|deployment| &deployment.configuration);
        deploying.or(self.shelf.deployed())
    }
}

impl Deployment {
    /// The instances that it waits for.
    fn awaited(&self) -> impl Iterator<Item = &Instance> {
        self.configuration.instances.iter().filter(|instance| !self.without.contains(&instance.name))
    }

    /// Whether that node has been, or is being, ended there.
    fn has_ended(&self, place: &InstanceName, node: &str) -> bool {
        self.moving.get(place).is_some_and(|nodes| nodes.contains(node))
    }
}

/// The answer to a deployment, in the shape that it was asked for.
fn deployed(
    in_one_step: bool,
    reqid: RequestId,
    configuration: Option<ConfigurationId>,
    outcomes: Vec<Outcome>,
) -> ClientResponse {
    match in_one_step {
        true => client::SetConfigurationResponse { reqid, configuration, outcomes, deployment: None }.into(),
        false => client::DeployResponse { reqid, configuration, outcomes, deployment: None }.into(),
    }
}

/// So many instances, in words.
fn instances(count: usize) -> String {
    if count == 1 { "1 instance".into() } else { format!("{count} instances") }
}

/// The order to dial an instance, if it is the controller that dials it.
pub(super) fn dial(instance: &Instance) -> Option<Effect> {
    let address = SocketAddr::new(instance.host?, instance.port?);
    Some(Effect::Dial(instance.name.clone(), address))
}

/// The same with the number of the deployment.
fn with_number(mut answer: ClientResponse, number: u64) -> ClientResponse {
    if let ClientResponse::DeployResponse(client::DeployResponse { deployment, .. })
    | ClientResponse::SetConfigurationResponse(client::SetConfigurationResponse { deployment, .. }) = &mut answer
    {
        *deployment = Some(number);
    }
    answer
}

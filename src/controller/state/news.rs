//! What agents tell: their news, in order and once, what they answer, and how everything is on a new link.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use super::open::Parent;
use super::{Effect, State, publish_own};
use crate::bridge::LinkId;
use crate::controller::roster::Arrival;
use crate::message::agent::*;
use crate::message::client::News;
use crate::message::frame::{Body, FrameError, Wire, decode_body};
use crate::message::frames::Frames;
use crate::model::{InstanceName, NodeName, Now, Outcome, Timestamp};
use crate::request::Answered;

/// Hardly any change is shorter, in bytes.
const SHORT: usize = 32;
/// Room for so many effects is made at once at the most.
const MOST_RESERVED: usize = 4096;

impl State {
    pub(super) fn mail(&mut self, link: LinkId, messages: Vec<ToController>, now: Now, fx: &mut Vec<Effect>) {
        // Nobody speaks before a hello, nor on a former link of an agent that has a newer one.
        let mut from = self.roster.speaker(link).cloned();
        let before = from.as_ref().and_then(|name| self.roster.news(name));
        fx.reserve(messages.len() + 1);
        // How far its news has come: ahead of the roster while one change comes behind the other, as mostly it does.
        let mut come = before;
        let mut broken = None;
        for message in messages {
            match (message, &from, &mut come) {
                (ToController::NotifyAgentHello(hello), _, _) => {
                    self.catch_up(from.as_ref(), come);
                    self.hello(link, &hello, now, fx);
                    from = self.roster.speaker(link).cloned();
                }
                (ToController::News(news), Some(from), come) => {
                    fx.reserve((news.bytes().len() / SHORT).min(MOST_RESERVED));
                    if let Err(error) = self.news(from, &news, come, now, fx) {
                        broken = Some(format!("the agent told what nobody can read: {error}"));
                        break;
                    }
                    continue;
                }
                (message, Some(from), _) => {
                    self.catch_up(Some(from), come);
                    self.heard(from, message, now, fx);
                }
                (_, None, _) => {}
            }
            come = from.as_ref().and_then(|name| self.roster.news(name));
        }
        self.catch_up(from.as_ref(), come);
        let Some(from) = from else { return };
        if self.nodes.has_overflowed() {
            let msg = "more nodes that no configuration has than are kept here: what it told of some of them is lost";
            self.tell_refusal(&from, msg, now.wall, fx);
        }
        let after = self.roster.news(&from);
        if let Some((epoch, seq)) = after.filter(|_| before.is_some() && before != after) {
            match self.rules.on_disk {
                true => fx.push(Effect::Keep { instance: from.clone(), epoch, seq }),
                false => drop(self.roster.kept(&from, epoch, seq)),
            }
            self.credit(&from, fx);
        }
        if let Some(reason) = broken {
            // Nothing more of this link is heard: what comes behind would tell of a gap that a new link does not have.
            fx.push(Effect::EndLink(link, reason.clone()));
            self.link_down(link, &reason, now, fx);
        }
    }

    /// Tells the roster how far news has come that left no number out.
    pub(super) fn catch_up(&mut self, from: Option<&InstanceName>, come: Option<(u64, u64)>) {
        if let (Some(from), Some((_, last))) = (from, come) {
            self.roster.arrived(from, last);
        }
    }

    /// Lets an agent send on, unless too much waits already.
    pub(super) fn credit(&mut self, name: &InstanceName, fx: &mut Vec<Effect>) {
        if !self.is_full {
            fx.extend(self.roster.credit(name).map(|(link, received)| Effect::Send(link, received.into())));
        }
    }

    pub(super) fn kept(&mut self, arrived: Vec<(InstanceName, u64, u64)>, fx: &mut Vec<Effect>) {
        // Of each instance the last word counts.
        let arrived: BTreeMap<_, _> = arrived.into_iter().map(|(name, epoch, seq)| (name, (epoch, seq))).collect();
        for (name, (epoch, seq)) in arrived {
            let told = self.roster.kept(&name, epoch, seq);
            fx.extend(told.map(|(link, received)| Effect::Send(link, received.into())));
        }
    }

    pub(super) fn full(&mut self, is_full: bool, fx: &mut Vec<Effect>) {
        self.is_full = is_full;
        self.roster.connected().iter().for_each(|name| self.credit(name, fx));
    }

    pub(super) fn log_failed(&self, why: &str, now: Timestamp, fx: &mut Vec<Effect>) {
        let msg = format!("the log cannot be written: {why}. News is told on, and agents keep theirs until it can");
        self.tell_error(&self.rules.name, msg, now, fx);
    }

    pub(super) fn log_works(&self, dropped: u64, now: Timestamp, fx: &mut Vec<Effect>) {
        let own = &self.rules.name;
        match dropped {
            0 => {
                self.tell_log(own, "the log is written again, and nothing that waited is missing in it".into(), now, fx)
            }
            _ => {
                let msg = format!(
                    "the log is written again, and {dropped} entries are missing in it: too much of the controller's own \
                     news waited. What agents told is all there"
                );
                self.tell_error(own, msg, now, fx);
            }
        }
    }

    /// Takes in news from the frames that it is in: of a change hardly anything is not known yet. An error ends it.
    fn news(
        &mut self,
        from: &InstanceName,
        news: &Frames,
        come: &mut Option<(u64, u64)>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) -> Result<(), FrameError> {
        for frame in news.iter() {
            if frame.kind == NotifyChange::KIND {
                let change: BorrowedChange<'_> = decode_body(frame.body, NotifyChange::NAME)?;
                let next = come.filter(|(_, last)| last.checked_add(1) == Some(change.seq));
                let origin = match next {
                    Some((epoch, _)) => Some((epoch, change.seq)),
                    None => {
                        NodeName::new(change.node)?; // before it counts as heard
                        self.catch_up(Some(from), *come);
                        self.arrived(from, change.seq, now.wall, fx)
                    }
                };
                if let Some(origin) = origin
                    && let Some(told) = self.nodes.seen(from, &change)?
                {
                    fx.push(Effect::Publish { news: News::Change(told), time: change.time, origin: Some(origin) });
                }
                *come = match next {
                    Some((epoch, _)) => Some((epoch, change.seq)),
                    None => self.roster.news(from),
                };
                if change.removed {
                    self.is_gone(from, change.node, now, fx);
                }
                continue;
            }
            self.catch_up(Some(from), *come);
            match ToController::decode(frame.kind, frame.body) {
                Ok(message) => self.heard(from, message, now, fx),
                Err(FrameError::UnknownKind { .. }) => {} // of a later release, which goes on without an answer
                Err(error) => return Err(error),
            }
            *come = self.roster.news(from);
        }
        Ok(())
    }

    fn heard(&mut self, from: &InstanceName, message: ToController, now: Now, fx: &mut Vec<Effect>) {
        use ToController as M;
        match message {
            M::NotifyAgentHello(_) | M::RenewCertificateRequest(_) | M::News(_) => {} // taken before
            M::NotifyChange(change) => {
                if let Some(origin) = self.arrived(from, change.seq, now.wall, fx) {
                    let (time, change) = (change.time, NotifyChange { instance: from.clone(), ..change });
                    if change.removed {
                        self.is_gone(from, change.node.clone().as_str(), now, fx);
                    }
                    if let Some(change) = self.nodes.told(change) {
                        fx.push(Effect::Publish { news: News::Change(change), time, origin: Some(origin) });
                    }
                }
            }
            M::NotifyError(error) => {
                if let Some(origin) = self.arrived(from, error.seq, now.wall, fx) {
                    let error = NotifyError { instance: from.clone(), ..error };
                    let time = error.time;
                    fx.push(Effect::Publish { news: News::Error(error), time, origin: Some(origin) });
                }
            }
            M::NotifyLog(log) => {
                if let Some(origin) = self.arrived(from, log.seq, now.wall, fx) {
                    let log = NotifyLog { instance: from.clone(), ..log };
                    let time = log.time;
                    fx.push(Effect::Publish { news: News::Log(log), time, origin: Some(origin) });
                }
            }
            M::NotifyStatus(NotifyStatus { node, pid, says, .. }) => self.nodes.says(from, &node, pid, says),
            M::NotifyNetStats(NotifyNetStats { node, pid, netstats, .. }) => {
                self.nodes.counts_packets(from, &node, pid, netstats);
            }
            M::NotifySnapshot(snapshot) => self.snapshot(from, snapshot, now, fx),
            M::AgentWelcomeResponse(AgentWelcomeResponse { reqid, outcome }) => {
                if let Answered::Complete(_) = self.requests.answer(&reqid, from, |_| {}) {
                    self.welcomed(from, &outcome, now, fx);
                }
            }
            M::AgentStandbyResponse(AgentStandbyResponse { reqid, outcome }) => {
                if let Answered::Complete(Parent::Standby) = self.requests.answer(&reqid, from, |_| {}) {
                    self.stood_by(from, &outcome, now, fx);
                    self.are_all_back(now, fx);
                    self.let_go(from, fx);
                    self.has_left(from, outcome, now, fx);
                }
            }
            M::StageBundlesResponse(StageBundlesResponse { reqid, outcome }) => {
                self.files_answered(from, &reqid, outcome, now, fx);
            }
            M::NotifyLayingOut(_) => self.is_fetching(from, now),
            M::ReadBlobsRequest(request) => {
                self.is_fetching(from, now);
                fx.extend(self.roster.link(from).map(|link| Effect::ReadBlobs(link, request)));
            }
            M::CheckConfigurationResponse(CheckConfigurationResponse { reqid, outcomes, changes }) => {
                self.check_answered(from, &reqid, (outcomes, changes), now, fx);
            }
            M::SwitchNodesResponse(SwitchNodesResponse { reqid, outcomes }) => {
                self.step_answered(from, &reqid, outcomes, now, fx);
            }
            M::RestoreConfigurationResponse(RestoreConfigurationResponse { reqid, outcomes, waiting }) => {
                self.back_answered(from, &reqid, (outcomes, waiting), now, fx);
            }
            M::SetConfigurationResponse(SetConfigurationResponse { reqid, outcomes }) => {
                self.shares_answered(from, &reqid, outcomes, now, fx);
            }
            M::NotAtHand(NotAtHand { reqid }) => self.not_at_hand(from, reqid, now, fx),
            M::GetNodesResponse(GetNodesResponse { reqid, pid, nodes }) => {
                let agent = self.roster.agent(from, pid);
                let note = |parent: &mut Parent| {
                    if let Parent::Nodes(_, _, all) = parent {
                        all.nodes.extend(nodes);
                        all.agents.push(agent);
                        all.outcomes.push(Outcome::instance_done(from));
                    }
                };
                if let Answered::Complete(parent) = self.requests.answer(&reqid, from, note) {
                    fx.extend(parent.answer(Vec::new()));
                }
            }
            M::StartResponse(StartResponse { reqid, outcomes })
            | M::RestartResponse(RestartResponse { reqid, outcomes }) => self.verb_answered(from, &reqid, outcomes, fx),
            M::StopResponse(StopResponse { reqid, outcomes }) => self.stop_answered(from, &reqid, outcomes, now, fx),
            M::NodeDispatchResponse(NodeDispatchResponse { reqid, answers }) => {
                self.dispatch_answered(from, &reqid, answers, fx);
            }
            M::GetCrashesResponse(GetCrashesResponse { reqid, crashes, dossier }) => {
                self.crashes_answered(from, &reqid, crashes, dossier, fx);
            }
            M::InspectConfigurationResponse(InspectConfigurationResponse { reqid, inspection }) => {
                self.inspected(from, &reqid, inspection, fx);
            }
            M::ReadOutputResponse(ReadOutputResponse { reqid, piece }) => self.output_read(from, &reqid, piece, fx),
            M::GetOutputResponse(GetOutputResponse { reqid, outcome }) => {
                if let Answered::Complete(parent) = self.requests.answer(&reqid, from, |_| {}) {
                    fx.extend(parent.answer(vec![outcome]));
                }
            }
        }
    }

    /// Whether a piece of news is new, and where it comes from if so. Numbers that were left out are told first.
    fn arrived(&mut self, from: &InstanceName, seq: u64, now: Timestamp, fx: &mut Vec<Effect>) -> Option<(u64, u64)> {
        match self.roster.arrived(from, seq) {
            Arrival::Known => None,
            Arrival::New { epoch, missed } => {
                if missed > 0 {
                    self.tell_missed(from, seq - missed, seq - 1, now, fx);
                }
                Some((epoch, seq))
            }
        }
    }

    fn tell_missed(&self, from: &InstanceName, first: u64, last: u64, now: Timestamp, fx: &mut Vec<Effect>) {
        let msg = format!("news {first} to {last} of this agent is lost: too much of it waited for the link");
        self.tell_error(from, msg, now, fx);
    }

    fn snapshot(&mut self, from: &InstanceName, snapshot: NotifySnapshot, now: Now, fx: &mut Vec<Effect>) {
        let NotifySnapshot { seq, nodes, configuration, .. } = snapshot;
        let before = self.roster.news(from).map_or(0, |(_, before)| before);
        let has_told = self.roster.get_mut(from).is_some_and(|seat| std::mem::replace(&mut seat.has_told, true));
        if has_told && seq < before {
            // What was first on a link may be behind what is known. A later one comes behind the news that it covers.
            let msg = "a snapshot is older than news that came before it: somebody says again what its agent said once";
            return self.tell_refusal(from, msg, now.wall, fx);
        }
        if let (Arrival::New { .. }, true) = (self.roster.arrived(from, seq), before > 0) {
            self.tell_missed(from, before + 1, seq, now.wall, fx);
        }
        self.ask_again_what_moves(from, fx);
        let has_work = configuration.is_some() || !nodes.is_empty();
        // What a deployment would give it, it has when that is decided. Mostly nobody asks.
        let meant = LazyCell::new(|| {
            self.shelf.deployed().iter().flat_map(|deployed| deployed.names_on(from)).collect::<BTreeSet<_>>()
        });
        publish_own(self.nodes.reconcile(from, nodes, |name| meant.contains(name), now.wall), fx);
        if self.roster.get(from).is_some_and(|seat| seat.given) {
            self.nodes.may_have(from); // it said so before that arrived
        }
        // It left the cluster while it was out of reach. A controller that knows of no cluster stops nobody.
        let is_needed = self.roster.get(from).is_some_and(|seat| seat.needed.is_some());
        if (has_work || self.has_yet_to_follow(from)) && !is_needed && self.shelf.deployed().is_some() {
            self.stand_by(from, now, fx);
        }
    }
}

//! What agents keep of nodes that died unasked.

use std::collections::BTreeSet;

use super::open::{Parent, sorted};
use super::{Effect, State, Ticket};
use crate::message::agent;
use crate::message::client::{ClientResponse, GetCrashesRequest, GetCrashesResponse, LinkState};
use crate::message::silence;
use crate::model::{CrashSummary, InstanceName, Now, Outcome, RequestId};

/// What has come together of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crashes {
    pub ticket: Ticket,
    reqid: RequestId,
    crashes: Vec<CrashSummary>,
    dossier: Option<String>,
    outcomes: Vec<Outcome>,
}

impl State {
    pub(super) fn get_crashes(&mut self, ticket: Ticket, request: GetCrashesRequest, now: Now, fx: &mut Vec<Effect>) {
        let GetCrashesRequest { reqid, node, id } = request;
        let connected = self.roster.connected();
        let is_missed = |name: &InstanceName| self.roster.link(name).is_none();
        let statuses = self.roster.statuses();
        let missed =
            statuses.iter().filter(|seen| seen.needed && seen.link == LinkState::Lost && is_missed(&seen.name));
        let lost = |name: &InstanceName| Outcome::instance_failed(name, silence::UNCONNECTED);
        let mut outcomes: Vec<_> = missed.map(|seen| lost(&seen.name)).collect();
        if connected.is_empty() {
            outcomes.push(Outcome::failed(silence::NOBODY));
        }
        let crashes = Crashes { ticket, reqid, crashes: Vec::new(), dossier: None, outcomes };
        if connected.is_empty() {
            return fx.push(Effect::Answer(ticket, crashes.answer(Vec::new())));
        }
        let deadline = now.mono + self.rules.request_timeout;
        let inner = self.open(Parent::Crashes(crashes), connected.clone(), deadline);
        for instance in &connected {
            let (reqid, node, id) = (inner.clone(), node.clone(), id.clone());
            self.send(instance, agent::GetCrashesRequest { reqid, node, id }, fx);
        }
    }

    pub(super) fn crashes_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        told: Result<Vec<CrashSummary>, String>,
        dossier: Option<String>,
        fx: &mut Vec<Effect>,
    ) {
        let note = |parent: &mut Parent| {
            let Parent::Crashes(all) = parent else { return };
            match told {
                // An agent speaks for its own instance alone.
                Ok(told) => {
                    all.crashes.extend(told.into_iter().map(|crash| CrashSummary { instance: from.clone(), ..crash }))
                }
                Err(error) => all.outcomes.push(Outcome::instance_failed(from, error)),
            }
            all.dossier = all.dossier.take().or(dossier);
        };
        self.note_answer(from, reqid, note, fx);
    }
}

impl Crashes {
    /// An instance will not answer.
    pub fn lose(&mut self, lost: Outcome) {
        self.outcomes.push(lost);
    }

    pub fn time_out(&mut self, owes: &BTreeSet<InstanceName>) {
        self.outcomes.extend(owes.iter().map(|name| Outcome::instance_failed(name, silence::SILENT)));
    }

    pub fn answer(mut self, more: Vec<Outcome>) -> ClientResponse {
        self.crashes.sort_by(|a, b| (a.time, &a.node, &a.id).cmp(&(b.time, &b.node, &b.id)));
        self.outcomes.extend(more);
        let (reqid, crashes, dossier, outcomes) = (self.reqid, self.crashes, self.dossier, sorted(self.outcomes));
        GetCrashesResponse { reqid, crashes, dossier, outcomes }.into()
    }
}

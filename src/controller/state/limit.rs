//! Answers for those who do not wait to the end: what is known when their time is up.

use std::collections::BTreeSet;
use std::time::Instant;

use super::open::Parent;
use super::{Effect, State, TIMED_OUT, Ticket};
use crate::message::silence;
use crate::model::{InstanceName, Outcome};

impl State {
    /// Whoever holds this ticket is answered by `deadline`.
    pub(super) fn limit(&mut self, ticket: Ticket, deadline: Instant) {
        let reqid = self.open(Parent::Limit(ticket), BTreeSet::new(), deadline);
        self.limits.insert(ticket, reqid);
    }

    /// Those who are answered wait no longer.
    pub(super) fn lift_limits(&mut self, effects: &[Effect]) {
        if self.limits.is_empty() {
            return;
        }
        for effect in effects {
            let (Effect::Answer(ticket, _) | Effect::Save(_, Some((ticket, _))) | Effect::Silence(ticket)) = effect
            else {
                continue;
            };
            if let Some(reqid) = self.limits.remove(ticket) {
                self.requests.close(&reqid);
            }
        }
    }

    pub(super) fn over_limit(&mut self, ticket: Ticket, fx: &mut Vec<Effect>) {
        self.limits.remove(&ticket);
        match self.requests.find(|parent| parent.ticket() == Some(ticket)) {
            Some(reqid) => {
                let open = self.requests.close(&reqid);
                fx.extend(open.and_then(|open| self.answer_late(open.parent, &open.owes)));
            }
            None => self.answer_deployer(ticket, fx),
        }
    }

    /// The answer to a client when these have not answered in time.
    pub(super) fn answer_late(&self, mut parent: Parent, owes: &BTreeSet<InstanceName>) -> Option<Effect> {
        match &mut parent {
            Parent::Verb(order) => owes.iter().for_each(|name| match self.roster.link(name) {
                Some(_) => order.time_out(name, &self.nodes),
                None => order.lose(name, &Outcome::instance_failed(name, silence::LOST)),
            }),
            Parent::Dispatch(inquiry) => {
                owes.iter().for_each(|name| match self.roster.link(name) {
                    Some(_) => inquiry.time_out(name),
                    None => inquiry.lose(name, &Outcome::instance_failed(name, silence::LOST)),
                });
                return parent.answer(Vec::new()); // each node says it for itself
            }
            Parent::Nodes(_, _, told) => {
                told.outcomes.extend(owes.iter().map(|name| Outcome::instance_failed(name, silence::SILENT)));
            }
            Parent::Crashes(crashes) => {
                crashes.time_out(owes);
                return parent.answer(Vec::new()); // each instance is named
            }
            Parent::Plan(planning) => {
                planning.time_out(owes);
                return parent.answer(Vec::new()); // as above
            }
            Parent::Read(reading) => {
                return Some(reading.late(owes.iter().all(|name| self.roster.link(name).is_some())));
            }
            Parent::Output(..) | Parent::TestTimeout(..) | Parent::Limit(_) => {}
            Parent::Hello(_) | Parent::Welcome | Parent::Standby | Parent::Move => {}
            Parent::Deploy | Parent::Redeploy | Parent::Gather | Parent::Away(_) => {}
            Parent::Stage | Parent::Check | Parent::Switch | Parent::Restore | Parent::Back | Parent::Regather => {}
        }
        parent.answer(vec![Outcome::failed(TIMED_OUT)])
    }
}

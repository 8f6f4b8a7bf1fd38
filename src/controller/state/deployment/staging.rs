//! Before anything is looked at, the files of nodes get to the agents that lack them: what is looked at may be in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Phase, instances};
use crate::bundle::BundleId;
use crate::controller::state::open::Parent;
use crate::controller::state::{Effect, State};
use crate::message::agent;
use crate::model::{InstanceName, Now, Outcome, RequestId};
use crate::request::Answered;

/// How long an agent may ask for nothing and say nothing: a transfer takes as long as it takes, unless it stands still.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How long all that may take together: whoever asks for a piece now and then holds up no other deployment for ever.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl State {
    /// Has every agent fetch what its nodes are to have, and goes on when all have it: at once, if there is nothing.
    pub(super) fn have_files_fetched(&mut self, now: Now, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let needs = |name: &InstanceName| Some((name.clone(), deployment.configuration.bundles_of(name)));
        let needs = deployment.awaited().filter_map(|instance| needs(&instance.name));
        let needs: BTreeMap<InstanceName, BTreeSet<BundleId>> =
            needs.filter(|(_, bundles)| !bundles.is_empty()).collect();
        if needs.is_empty() {
            return self.have_it_checked(now, fx);
        }
        let count = needs.len();
        let inner = self.open(Parent::Stage, needs.keys().cloned().collect(), now.mono + STANDSTILL);
        self.ask_early();
        for (name, bundles) in needs {
            self.send(&name, agent::StageBundlesRequest { reqid: inner.clone(), bundles }, fx);
        }
        self.enter(Phase::Staging, inner);
        self.tell_progress(&format!("getting files to {}", instances(count)), now, fx);
        self.miss_whom_nobody_reaches(now, fx);
    }

    /// It came back in the middle: what it was asked may have been lost with the link.
    pub(super) fn stage_again(&self, to: &InstanceName, reqid: RequestId, fx: &mut Vec<Effect>) {
        let Some(deployment) = &self.deployment else { return };
        let bundles = deployment.configuration.bundles_of(to);
        self.send(to, agent::StageBundlesRequest { reqid, bundles }, fx);
    }

    /// An agent asks for more, or lays out what it has: it has not come to a standstill. Also whoever plans waits for that, and whoever is told what is
    /// deployed may have lost what it had.
    pub(in crate::controller::state) fn is_fetching(&mut self, from: &InstanceName, now: Now) {
        let until = now.mono + STANDSTILL;
        for reqid in self.requests.owed_by(from) {
            let open = self.requests.get(&reqid).filter(|open| open.parent.may_need_files() && open.deadline < until);
            if open.is_none() {
                continue;
            }
            if !self.fetching.contains_key(&reqid) {
                let requests = &self.requests;
                self.fetching.retain(|reqid, _| requests.get(reqid).is_some());
                self.fetching.insert(reqid.clone(), now.mono);
            }
            if self.fetching.get(&reqid).is_some_and(|since| now.mono < *since + LONGEST) {
                self.requests.set_deadline(&reqid, until);
            }
        }
    }

    pub(in crate::controller::state) fn files_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcome: Outcome,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let is_complete = match self.requests.answer(reqid, from, |_| {}) {
            Answered::Late => return,
            Answered::Waiting(_) => false,
            Answered::Complete(_) => true,
        };
        let Some(deployment) = &mut self.deployment else { return };
        deployment.outcomes.extend(Some(outcome).filter(|outcome| !outcome.is_success()));
        let has_failed = !deployment.outcomes.is_empty();
        match is_complete {
            // Everybody's trouble is said at once.
            true if has_failed => self.abandon(now, fx),
            true => self.have_it_checked(now, fx),
            false => {}
        }
    }
}

impl Parent {
    /// Whether an agent may have to fetch files before it can answer.
    fn may_need_files(&self) -> bool {
        matches!(self, Self::Stage | Self::Check | Self::Plan(_) | Self::Deploy | Self::Redeploy | Self::Restore)
    }
}

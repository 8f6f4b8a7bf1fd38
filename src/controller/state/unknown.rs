//! What an agent does not know: a request of a kind that is newer than it. Whoever waits for the answer is told at once.

use super::open::{Parent, Verb};
use super::{Effect, State};
use crate::bridge::LinkId;
use crate::message::agent::{self, ToAgent};
use crate::message::frame::{Body, Wire, wire_name};
use crate::model::{Now, Outcome};

impl State {
    /// The peer on this link does not know messages of that kind.
    pub(super) fn not_known(&mut self, link: LinkId, kind: u16, now: Now, fx: &mut Vec<Effect>) {
        let (Some(from), Some(name)) = (self.roster.speaker(link).cloned(), ToAgent::name_of(kind)) else { return };
        let (theirs, ours) = (self.roster.version(&from).unwrap_or("of another release"), env!("CARGO_PKG_VERSION"));
        let error = format!(
            "its agent does not know `{}`: it runs watchpost {theirs}, and this controller {ours}; upgrade the older one",
            wire_name(name)
        );
        let outcome = Outcome::instance_failed(&from, error.clone());
        for reqid in self.requests.owed_by(&from) {
            match self.requests.get(&reqid).map(|open| &open.parent).filter(|parent| parent.is_asked_by(kind)) {
                None => {}
                Some(Parent::Welcome) => {
                    self.requests.close(&reqid);
                    self.welcomed(&from, &outcome, now, fx);
                }
                Some(Parent::Standby) => {
                    self.requests.close(&reqid);
                    self.tell_error(&from, error.clone(), now.wall, fx);
                    self.let_go(&from, fx);
                    self.has_left(&from, outcome.clone(), now, fx);
                }
                Some(Parent::Move) => self.move_answered(&from, &reqid, vec![outcome.clone()], now, fx),
                Some(Parent::Deploy | Parent::Redeploy) => {
                    self.shares_answered(&from, &reqid, vec![outcome.clone()], now, fx);
                }
                Some(Parent::Stage) => self.files_answered(&from, &reqid, outcome.clone(), now, fx),
                Some(Parent::Check) => {
                    self.check_answered(&from, &reqid, (vec![outcome.clone()], Vec::new()), now, fx);
                }
                Some(Parent::Switch | Parent::Back) => {
                    self.step_answered(&from, &reqid, vec![outcome.clone()], now, fx)
                }
                Some(Parent::Restore) => {
                    self.back_answered(&from, &reqid, (vec![outcome.clone()], Vec::new()), now, fx);
                    // It could not be told to leave what it runs.
                    self.went_back(&from, None, now, fx);
                    self.are_all_back(now, fx);
                }
                Some(Parent::Plan(_)) => self.cannot_inspect(&from, &reqid, error.clone(), fx),
                Some(_) => self.give_up(&from, &reqid, &outcome, fx),
            }
        }
    }
}

impl Parent {
    /// Whether agents are asked for it by messages of this kind.
    fn is_asked_by(&self, kind: u16) -> bool {
        let kinds: &[u16] = match self {
            Self::Welcome => &[agent::AgentWelcomeRequest::KIND],
            Self::Standby => &[agent::AgentStandbyRequest::KIND],
            Self::Move => &[agent::StopRequest::KIND],
            Self::Deploy => &[agent::SetConfigurationRequest::KIND, agent::CommitConfigurationRequest::KIND],
            Self::Stage => &[agent::StageBundlesRequest::KIND],
            Self::Check => &[agent::CheckConfigurationRequest::KIND],
            Self::Switch | Self::Back => &[agent::SwitchNodesRequest::KIND],
            Self::Restore => &[agent::RestoreConfigurationRequest::KIND],
            Self::Redeploy => &[agent::SetConfigurationRequest::KIND, agent::RestoreConfigurationRequest::KIND],
            Self::Nodes(..) => &[agent::GetNodesRequest::KIND],
            Self::Verb(order) => match order.verb {
                Verb::Start => &[agent::StartRequest::KIND],
                Verb::Stop => &[agent::StopRequest::KIND],
                Verb::Restart => &[agent::RestartRequest::KIND],
            },
            Self::Dispatch(_) => &[agent::NodeDispatchRequest::KIND],
            Self::Output(..) => &[agent::GetOutputRequest::KIND],
            Self::Crashes(_) => &[agent::GetCrashesRequest::KIND],
            Self::Plan(_) => &[agent::InspectConfigurationRequest::KIND],
            Self::Read(_) => &[agent::ReadOutputRequest::KIND],
            Self::Hello(_) | Self::Gather | Self::TestTimeout(..) | Self::Limit(_) | Self::Away(_) | Self::Regather => {
                &[]
            }
        };
        kinds.contains(&kind)
    }
}

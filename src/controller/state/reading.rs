//! Reading what nodes wrote, piece by piece, through their agents. Nothing is changed by it: so an agent that comes back is
//! simply asked again.

use std::collections::BTreeSet;

use super::open::Parent;
use super::{Effect, State, TIMED_OUT, Ticket};
use crate::message::agent::{self, ToAgent};
use crate::message::client::{ReadOutputRequest, ReadOutputResponse, Unread};
use crate::message::silence;
use crate::model::output::LONGEST_READ;
use crate::model::{InstanceName, Now, OutputPiece, RequestId};

/// A piece that a client waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub ticket: Ticket,
    pub request: ReadOutputRequest,
}

impl State {
    pub(super) fn read_output(&mut self, ticket: Ticket, request: ReadOutputRequest, now: Now, fx: &mut Vec<Effect>) {
        let wait = request.wait.min(LONGEST_READ);
        let reading = Reading { ticket, request: ReadOutputRequest { wait, ..request } };
        let Some(instance) = self.nodes.get(reading.request.node.as_str()).map(|status| status.instance.clone()) else {
            return fx.push(reading.answer(Err(Unread::UnknownNode)));
        };
        if self.roster.link(&instance).is_none() && !reading.follows() {
            return fx.push(reading.answer(Err(out_of_reach())));
        }
        let until = now.mono + self.rules.request_timeout + reading.request.wait;
        let inner = self.open(Parent::Read(reading.clone()), BTreeSet::from([instance.clone()]), until);
        // Where there is no link, it waits for one.
        self.send(&instance, reading.message(&inner), fx);
    }

    pub(super) fn output_read(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        piece: Result<OutputPiece, String>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(Parent::Read(reading)) = self.requests.get(reqid).map(|open| open.parent.clone()) else { return };
        if self.owes(from, reqid) {
            self.requests.close(reqid);
            fx.push(reading.answer(piece.map_err(Unread::Failed)));
        }
    }
}

impl Reading {
    /// Whether it is worth waiting for.
    pub fn follows(&self) -> bool {
        !self.request.wait.is_zero()
    }

    /// What the agent is asked.
    pub fn message(&self, reqid: &RequestId) -> ToAgent {
        let ReadOutputRequest { node, stream, from, most, wait, .. } = self.request.clone();
        agent::ReadOutputRequest { reqid: reqid.clone(), node, stream, from, most, wait }.into()
    }

    pub fn answer(&self, piece: Result<OutputPiece, Unread>) -> Effect {
        Effect::Answer(self.ticket, ReadOutputResponse { reqid: self.request.reqid.clone(), piece }.into())
    }

    /// The answer when time is up.
    pub fn late(&self, is_linked: bool) -> Effect {
        self.answer(Err(if is_linked { Unread::Failed(TIMED_OUT.into()) } else { out_of_reach() }))
    }
}

fn out_of_reach() -> Unread {
    Unread::OutOfReach(silence::UNCONNECTED.into())
}

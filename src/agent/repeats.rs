//! Answers to orders, kept for a while: an order that comes again after its answer is answered as at first.
//!
//! A controller asks again over a new link what it asked on a former one, under the same `reqid`. It does so soon, and keeps
//! few orders open: so the last answers are enough.

use std::collections::VecDeque;

use crate::message::agent::*;
use crate::message::frame::{Body, Wire};
use crate::message::frames::Frames;
use crate::model::{Outcome, RequestId};

/// How many answers are kept.
const MOST: usize = 64;
/// How many bytes they may take together.
const BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Kept {
    kind: u16,
    reqid: RequestId,
    /// The answer in its frame: there may be an outcome for each node, and hardly anybody asks again.
    answer: Frames,
}

impl Repeats {
    /// Keeps an answer, if it is one to an order: what is only asked is answered by how it is when it is asked.
    pub fn keep(&mut self, answer: &ToController) {
        let Some((kind, reqid)) = known_by(answer) else { return };
        let reqid = reqid.clone();
        let mut frame = encoded(answer);
        if frame.as_ref().is_none_or(|frame| frame.bytes().len() > BYTES) {
            // The outcomes count; whoever wants the last lines of a node can ask for them.
            let mut answer = answer.clone();
            outcomes(&mut answer).iter_mut().for_each(|outcome| outcome.output = None);
            frame = encoded(&answer);
        }
        // What is too long for a frame cannot be said either.
        let Some(answer) = frame else { return };
        self.bytes += answer.bytes().len();
        self.kept.push_back(Kept { kind, reqid, answer });
        // The last one is kept whatever its size: it is the likeliest to be asked for.
        while self.kept.len() > MOST || (self.bytes > BYTES && self.kept.len() > 1) {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.answer.bytes().len();
        }
    }

    /// The answer that such an order got, if it came before.
    pub fn answer_to(&self, order: &ToAgent) -> Option<ToController> {
        let (kind, reqid) = answered_by(order)?;
        let kept = self.kept.iter().rev().find(|kept| (kept.kind, &kept.reqid) == (kind, reqid))?;
        kept.answer.open().next()
    }
}

fn encoded(answer: &ToController) -> Option<Frames> {
    let mut bytes = Vec::new();
    answer.append_to(&mut bytes).ok()?;
    Some(Frames::from(&*bytes))
}

/// The kind and the id of the answer to this order, if it is an order.
fn answered_by(order: &ToAgent) -> Option<(u16, &RequestId)> {
    use ToAgent as Q;
    match order {
        Q::AgentStandbyRequest(asked) => Some((AgentStandbyResponse::KIND, &asked.reqid)),
        Q::SetConfigurationRequest(asked) => Some((SetConfigurationResponse::KIND, &asked.reqid)),
        // One that is not at hand comes whole under the same id.
        Q::CommitConfigurationRequest(asked) => Some((SetConfigurationResponse::KIND, &asked.reqid)),
        Q::CheckConfigurationRequest(asked) => Some((CheckConfigurationResponse::KIND, &asked.reqid)),
        Q::SwitchNodesRequest(asked) => Some((SwitchNodesResponse::KIND, &asked.reqid)),
        Q::RestoreConfigurationRequest(asked) => Some((RestoreConfigurationResponse::KIND, &asked.reqid)),
        Q::StartRequest(asked) => Some((StartResponse::KIND, &asked.reqid)),
        Q::StopRequest(asked) => Some((StopResponse::KIND, &asked.reqid)),
        Q::RestartRequest(asked) => Some((RestartResponse::KIND, &asked.reqid)),
        Q::NodeDispatchRequest(asked) => Some((NodeDispatchResponse::KIND, &asked.reqid)),
        _ => None,
    }
}

/// The kind of this answer, and the id of the order that it answers, if it answers an order.
fn known_by(answer: &ToController) -> Option<(u16, &RequestId)> {
    use ToController as A;
    match answer {
        A::AgentStandbyResponse(said) => Some((AgentStandbyResponse::KIND, &said.reqid)),
        A::SetConfigurationResponse(said) => Some((SetConfigurationResponse::KIND, &said.reqid)),
        A::CheckConfigurationResponse(said) => Some((CheckConfigurationResponse::KIND, &said.reqid)),
        A::SwitchNodesResponse(said) => Some((SwitchNodesResponse::KIND, &said.reqid)),
        A::RestoreConfigurationResponse(said) => Some((RestoreConfigurationResponse::KIND, &said.reqid)),
        A::StartResponse(said) => Some((StartResponse::KIND, &said.reqid)),
        A::StopResponse(said) => Some((StopResponse::KIND, &said.reqid)),
        A::RestartResponse(said) => Some((RestartResponse::KIND, &said.reqid)),
        A::NodeDispatchResponse(said) => Some((NodeDispatchResponse::KIND, &said.reqid)),
        _ => None,
    }
}

fn outcomes(answer: &mut ToController) -> &mut [Outcome] {
    use ToController as A;
    match answer {
        A::SetConfigurationResponse(SetConfigurationResponse { outcomes, .. })
        | A::CheckConfigurationResponse(CheckConfigurationResponse { outcomes, .. })
        | A::SwitchNodesResponse(SwitchNodesResponse { outcomes, .. })
        | A::RestoreConfigurationResponse(RestoreConfigurationResponse { outcomes, .. })
        | A::StartResponse(StartResponse { outcomes, .. })
        | A::StopResponse(StopResponse { outcomes, .. })
        | A::RestartResponse(RestartResponse { outcomes, .. }) => outcomes,
        A::AgentStandbyResponse(AgentStandbyResponse { outcome, .. }) => std::slice::from_mut(outcome),
        _ => &mut [],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{InstanceName, NodeName, Output};

    fn id(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn restart(reqid: &str) -> ToAgent {
        RestartRequest { reqid: id(reqid), nodes: BTreeSet::new() }.into()
    }

    /// An answer that comes with so many bytes of output.
    fn restarted(reqid: &str, bytes: usize) -> ToController {
        let (instance, node) = (InstanceName::new("i").unwrap(), NodeName::new("n").unwrap());
        let output = Output { stdout: "x".repeat(bytes), stderr: String::new() };
        let outcomes = vec![Outcome::node_failed(&instance, &node, "exited".into(), Some(output))];
        RestartResponse { reqid: id(reqid), outcomes }.into()
    }

    #[test]
    fn an_order_is_known_by_its_kind_and_its_id() {
        let mut repeats = Repeats::default();
        repeats.keep(&restarted("r", 5));
        assert_eq!(repeats.answer_to(&restart("r")), Some(restarted("r", 5)));
        assert_eq!(repeats.answer_to(&restart("other")), None);
        assert_eq!(repeats.answer_to(&StopRequest { reqid: id("r"), nodes: BTreeSet::new() }.into()), None);
        repeats.keep(&GetNodesResponse { reqid: id("g"), pid: None, nodes: vec![] }.into());
        assert_eq!(repeats.answer_to(&GetNodesRequest { reqid: id("g") }.into()), None, "it is asked how it is now");
    }

    #[test]
    fn answers_are_kept_up_to_so_many_and_so_much() {
        let mut repeats = Repeats::default();
        (0..1000).for_each(|number| repeats.keep(&restarted(&number.to_string(), 0)));
        assert_eq!(repeats.kept.len(), MOST);
        assert!(repeats.answer_to(&restart("999")).is_some() && repeats.answer_to(&restart("900")).is_none());
        (0..1000).for_each(|number| repeats.keep(&restarted(&number.to_string(), BYTES / 4)));
        assert!(repeats.bytes <= BYTES && repeats.kept.len() == 3, "{} bytes", repeats.bytes);
        repeats.keep(&restarted("huge", 2 * BYTES));
        assert!(repeats.bytes <= BYTES, "{} bytes", repeats.bytes);
        let Some(ToController::RestartResponse(huge)) = repeats.answer_to(&restart("huge")) else { panic!() };
        assert_eq!((huge.outcomes[0].error.as_deref(), &huge.outcomes[0].output), (Some("exited"), &None));
    }
}

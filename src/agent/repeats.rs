//! Answers to orders, kept for a while: an order that comes again after its answer is answered as at first.
//!
//! A controller asks again over a new link what it asked on a former one, under the same `reqid`. It does so soon, and keeps
//! few orders open: so the last answers are enough.

use std::collections::VecDeque;

use crate::message::agent::*;
use crate::model::{Outcome, RequestId};

/// How many answers are kept.
const MOST: usize = 64;
/// How many bytes they may take together.
const BYTES: usize = 256 << 10;
/// What an outcome takes, in bytes, besides its texts.
const OVERHEAD: usize = 128;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Kept {
    answer: ToController,
    bytes: usize,
}

impl Repeats {
    /// Keeps an answer, if it is one to an order: what is only asked is answered by how it is when it is asked.
    pub fn keep(&mut self, answer: &ToController) {
        if reqid_of(answer).is_none() {
            return;
        }
        let mut answer = answer.clone();
        if size(&answer) > BYTES {
            // The outcomes count; whoever wants the last lines of a node can ask for them.
            outcomes(&mut answer).iter_mut().for_each(|outcome| outcome.output = None);
        }
        let bytes = size(&answer);
        self.kept.push_back(Kept { answer, bytes });
        self.bytes += bytes;
        // The last one is kept whatever its size: it is the likeliest to be asked for.
        while self.kept.len() > MOST || (self.bytes > BYTES && self.kept.len() > 1) {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    /// The answer that such an order got, if it came before.
    pub fn answer_to(&self, order: &ToAgent) -> Option<&ToController> {
        let mut answers = self.kept.iter().rev().map(|kept| &kept.answer);
        answers.find(|answer| is_answer_to(answer, order))
    }
}

/// Whether that is the answer to this order.
fn is_answer_to(answer: &ToController, order: &ToAgent) -> bool {
    use {ToAgent as Q, ToController as A};
    match (order, answer) {
        (Q::AgentStandbyRequest(asked), A::AgentStandbyResponse(said)) => asked.reqid == said.reqid,
        (Q::SetConfigurationRequest(asked), A::SetConfigurationResponse(said)) => asked.reqid == said.reqid,
        (Q::StartRequest(asked), A::StartResponse(said)) => asked.reqid == said.reqid,
        (Q::StopRequest(asked), A::StopResponse(said)) => asked.reqid == said.reqid,
        (Q::RestartRequest(asked), A::RestartResponse(said)) => asked.reqid == said.reqid,
        (Q::NodeDispatchRequest(asked), A::NodeDispatchResponse(said)) => asked.reqid == said.reqid,
        _ => false,
    }
}

/// The id of the order that this answers, if it is an answer to an order.
fn reqid_of(answer: &ToController) -> Option<&RequestId> {
    use ToController as A;
    match answer {
        A::AgentStandbyResponse(AgentStandbyResponse { reqid, .. })
        | A::SetConfigurationResponse(SetConfigurationResponse { reqid, .. })
        | A::StartResponse(StartResponse { reqid, .. })
        | A::StopResponse(StopResponse { reqid, .. })
        | A::RestartResponse(RestartResponse { reqid, .. })
        | A::NodeDispatchResponse(NodeDispatchResponse { reqid, .. }) => Some(reqid),
        _ => None,
    }
}

fn outcomes(answer: &mut ToController) -> &mut [Outcome] {
    use ToController as A;
    match answer {
        A::SetConfigurationResponse(SetConfigurationResponse { outcomes, .. })
        | A::StartResponse(StartResponse { outcomes, .. })
        | A::StopResponse(StopResponse { outcomes, .. })
        | A::RestartResponse(RestartResponse { outcomes, .. }) => outcomes,
        A::AgentStandbyResponse(AgentStandbyResponse { outcome, .. }) => std::slice::from_mut(outcome),
        _ => &mut [],
    }
}

/// What it takes, in bytes, roughly.
fn size(answer: &ToController) -> usize {
    use ToController as A;
    let of = |outcome: &Outcome| {
        let output = outcome.output.as_ref().map_or(0, |output| output.stdout.len() + output.stderr.len());
        OVERHEAD + output + outcome.error.as_ref().map_or(0, String::len)
    };
    match answer {
        A::SetConfigurationResponse(SetConfigurationResponse { outcomes, .. })
        | A::StartResponse(StartResponse { outcomes, .. })
        | A::StopResponse(StopResponse { outcomes, .. })
        | A::RestartResponse(RestartResponse { outcomes, .. }) => outcomes.iter().map(of).sum(),
        A::AgentStandbyResponse(AgentStandbyResponse { outcome, .. }) => of(outcome),
        A::NodeDispatchResponse(NodeDispatchResponse { answers, .. }) => {
            let text = |answer: &NodeAnswer| answer.value.as_ref().map_or_else(String::len, String::len);
            answers.iter().map(|answer| OVERHEAD + text(answer)).sum()
        }
        _ => OVERHEAD,
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
        assert_eq!(repeats.answer_to(&restart("r")), Some(&restarted("r", 5)));
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

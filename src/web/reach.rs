//! Tells what failed from what could not be reached, by what the controller's messages promise and by the links.

use std::collections::BTreeSet;

use super::desk::Desk;
use crate::message::client::{GetStatusRequest, LinkState};
use crate::message::silence;
use crate::model::{InstanceName, Outcome};

/// Which agents can be reached.
#[derive(Debug, Default)]
pub struct Reach {
    lost: BTreeSet<InstanceName>,
    /// Not one can be.
    none: bool,
}

impl Reach {
    /// As things are after these outcomes; the controller is asked only if one of them is a failure.
    pub async fn after(outcomes: &[Outcome], desk: &Desk) -> Self {
        if outcomes.iter().all(Outcome::is_success) {
            return Self::default();
        }
        // Without an answer there is still what the outcomes say, and that came first.
        let Ok(status) = desk.ask(GetStatusRequest).await else { return Self::default() };
        let (up, down): (Vec<_>, Vec<_>) =
            status.instances.into_iter().partition(|instance| instance.link == LinkState::Up);
        Self { lost: down.into_iter().map(|instance| instance.name).collect(), none: up.is_empty() }
    }

    /// Whether an outcome is the failure to reach an agent.
    ///
    /// A complaint about an instance as a whole is one if it says that it could not be asked or did not answer, and not if its
    /// agent has something to object. One about a node is the node's own, unless its instance is out of reach. The controller's
    /// own is one if it says so, and there is nobody to ask.
    pub fn lacks(&self, outcome: &Outcome) -> bool {
        let is_silence = || outcome.error.as_deref().is_some_and(silence::is_meant_by);
        !outcome.is_success()
            && match (&outcome.instance, &outcome.node) {
                (Some(instance), None) => self.lost.contains(instance) || is_silence(),
                (Some(instance), Some(_)) => self.lost.contains(instance),
                (None, Some(_)) => false,
                (None, None) => self.none && is_silence(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;

    #[test]
    fn a_failure_to_reach_is_told_from_others() {
        let name = |name| InstanceName::new(name).unwrap();
        let (up, lost, node) = (name("up"), name("lost"), NodeName::new("w").unwrap());
        let failed = |instance| Outcome::node_failed(instance, &node, "no".into(), None);
        let reach = Reach { lost: [lost.clone()].into(), none: false };
        for (outcome, want) in [
            (Outcome::node_done(&lost, &node), false),
            (failed(&lost), true),
            (failed(&up), false),
            (Outcome::instance_failed(&up, "there is no room for the records of 3 nodes"), false),
            (Outcome::instance_failed(&up, silence::LOST), true),
            (Outcome::instance_failed(&up, "not connected since noon: reset"), true),
            (Outcome::instance_failed(&lost, "no"), true),
            (Outcome::instance_done(&lost), false),
            (Outcome::unknown_node(&node), false),
            (Outcome::failed("no"), false),
            (Outcome::failed(silence::TIMED_OUT), false),
        ] {
            assert_eq!(reach.lacks(&outcome), want, "{outcome:?}");
        }
        let nobody = Reach { none: true, ..reach };
        for silent in [silence::TIMED_OUT, silence::NOBODY] {
            assert!(nobody.lacks(&Outcome::failed(silent)));
        }
        assert!(!nobody.lacks(&Outcome::failed("this controller cannot dial `far`")), "nobody had to be asked");
        assert!(!nobody.lacks(&Outcome::unknown_node(&node)));
    }
}

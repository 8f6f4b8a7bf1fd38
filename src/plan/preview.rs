//! In which order a deployment would change nodes, as far as that is known before it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::order::RANKS;
use super::rollout::{Pace, Rollout, Turn};
use crate::model::{Action, InstanceName, Node, NodeName, Planned, PlannedPhase, PlannedStep};

/// The steps of a deployment that does this, one behind the other. `wanted` are the nodes as they would be, `counts` how many
/// there would be of each rank. Without a `pace` all are told at once, and each agent keeps the order of roles. Instances that
/// nobody waits for are told when it is decided.
///
/// As if all nodes of a step got ready at once: where one is ready earlier the next one does not wait for the others.
pub fn steps(
    nodes: &[Planned],
    wanted: impl IntoIterator<Item = Arc<Node>>,
    counts: [usize; RANKS],
    pace: Option<&Pace>,
    without: &BTreeSet<InstanceName>,
) -> Vec<PlannedStep> {
    let (mut moving, mut committing, mut turning) = (Vec::new(), Vec::new(), BTreeMap::new());
    for Planned { node, action, instance } in nodes {
        match action {
            Action::Keep => {}
            Action::Start { .. } | Action::Restart(_) if without.contains(instance) => committing.push(node.clone()),
            Action::Move { .. } if without.contains(instance) => {
                moving.push(node.clone());
                committing.push(node.clone());
            }
            Action::Move { .. } => {
                moving.push(node.clone());
                turning.insert(node, false);
            }
            Action::Start { was } => drop(turning.insert(node, was.is_some())),
            Action::Restart(_) => drop(turning.insert(node, true)),
            // One that rests as it is to be is wanted up by what comes into force, and by nothing before.
            Action::Revive { .. } | Action::Stop => committing.push(node.clone()),
        }
    }
    let turn = |node: Arc<Node>| {
        let runs = *turning.get(&node.name)?;
        let (name, instance, shares) = (node.name.clone(), node.instance.clone(), node.interface.clone());
        Some(Turn { node: name, instance, role: node.role, runs, shares })
    };
    // Most plans change little, and then nobody looks at what is kept.
    let wanted = wanted.into_iter().take(if turning.is_empty() { 0 } else { usize::MAX });
    let rollout = Rollout::new(wanted.filter_map(turn), counts, pace.unwrap_or(&Pace::default()));
    let mut rollout = if pace.is_some() { rollout } else { rollout.all_at_once() };
    let mut all = Vec::from_iter(step(PlannedPhase::Moving, moving));
    while !rollout.is_done() {
        let begun: Vec<NodeName> = rollout.begin_more().into_values().flatten().collect();
        rollout.settled(&begun);
        all.extend(step(PlannedPhase::Switching, begun));
    }
    all.extend(step(PlannedPhase::Committing, committing));
    all
}

fn step(phase: PlannedPhase, mut nodes: Vec<NodeName>) -> Option<PlannedStep> {
    nodes.sort();
    (!nodes.is_empty()).then_some(PlannedStep { phase, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Because, NodeState, Role};

    #[test]
    fn what_moves_ends_first_roles_follow_one_another_and_what_is_not_wanted_ends_last() {
        let instance = || InstanceName::new("a").unwrap();
        let planned =
            |name: &str, action: Action| Planned { instance: instance(), node: NodeName::new(name).unwrap(), action };
        let restart = || Action::Restart(Because::default());
        let mut all: Vec<Planned> = (1..=4).map(|at| planned(&format!("w{at}"), restart())).collect();
        all.extend([
            planned("kept", Action::Keep),
            planned("m", restart()),
            planned("mover", Action::Move { from: InstanceName::new("b").unwrap() }),
            planned("new", Action::Start { was: None }),
            planned("old", Action::Stop),
            planned("other", Action::Start { was: Some(NodeState::Failed) }),
            planned("rests", Action::Revive { was: NodeState::Stopped }),
        ]);
        let node = |planned: &Planned| {
            let role = match planned.node.as_str() {
                "m" => Role::Manager,
                "new" | "w1" | "w2" | "w3" | "w4" => Role::Worker,
                _ => Role::None,
            };
            Arc::new(Node::new(planned.node.clone(), instance(), role))
        };
        let wanted: Vec<_> = all.iter().filter(|planned| planned.action != Action::Stop).map(node).collect();
        let words = |step: PlannedStep| {
            let names: Vec<_> = step.nodes.iter().map(NodeName::as_str).collect();
            format!("{}: {}", step.phase, names.join(" "))
        };
        let steps_without = |nodes: &[Planned], pace: Option<&Pace>, without: BTreeSet<InstanceName>| -> Vec<String> {
            steps(nodes, wanted.clone(), [8; RANKS], pace, &without).into_iter().map(words).collect()
        };
        let steps = |nodes: &[Planned], pace: Option<&Pace>| steps_without(nodes, pace, BTreeSet::new());
        let usual = Some(&Pace::default());
        let want = [
            "moving: mover",
            "switching: m",
            "switching: new w1 w2",
            "switching: w3 w4",
            "switching: mover other",
            "committing: old rests",
        ];
        assert_eq!(steps(&all, usual), want);
        assert_eq!(steps(&[planned("kept", Action::Keep)], usual), [""; 0]);
        let at_once = ["moving: mover", "switching: m mover new other w1 w2 w3 w4", "committing: old rests"];
        assert_eq!(steps(&all, None), at_once);
        // Where nobody waits for it, its agent is told when it is decided.
        let of_it = [
            planned("mover", Action::Move { from: InstanceName::new("b").unwrap() }),
            planned("new", Action::Start { was: None }),
            planned("m", restart()),
        ];
        assert_eq!(
            steps_without(&of_it, usual, BTreeSet::from([instance()])),
            ["moving: mover", "committing: m mover new"]
        );
    }

    #[test]
    fn nodes_of_one_interface_follow_one_another() {
        let names = ["w1", "w2", "w3"].map(|name| NodeName::new(name).unwrap());
        let instance = InstanceName::new("a").unwrap();
        let wanted = names.clone().map(|name| {
            let node = Node::new(name, instance.clone(), Role::Worker);
            Arc::new(Node { interface: Some("eth0".into()), ..node })
        });
        let restart = |node| Planned { instance: instance.clone(), node, action: Action::Restart(Because::default()) };
        let steps = steps(&names.map(restart), wanted, [100; RANKS], Some(&Pace::default()), &BTreeSet::new());
        assert_eq!(steps.iter().map(|step| step.nodes.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }
}

//! What a deployment would do to each node: the difference that agents act by, in words for whoever asks before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diff::{self, NodeChange, SURROUNDINGS};
use super::zeek;
use crate::model::{Action, Because, Configuration, InstanceName, Node, NodeName, NodeState, Planned, Step};

/// What would become of each node of an instance that has the nodes `have` and is given `want`; sorted by name.
///
/// `down` says how a node is that has no process now, and is not about to get one.
pub fn of_instance<'a>(
    have: impl IntoIterator<Item = &'a Arc<Node>>,
    want: impl IntoIterator<Item = &'a Arc<Node>>,
    down: impl Fn(&NodeName) -> Option<NodeState>,
) -> Vec<Step> {
    let step = |change: NodeChange| Step { action: action(&change, down(change.name())), node: change.name().clone() };
    diff::nodes(have, want).into_iter().map(step).collect()
}

/// What a change comes to for a node that is `down`, if it is.
fn action(change: &NodeChange, down: Option<NodeState>) -> Action {
    match (change, down) {
        (NodeChange::Remove(_), _) => Action::Stop,
        (NodeChange::Start(_), _) => Action::Start { was: None },
        // Who has crashed waits for its next life, and goes on with that.
        (NodeChange::Keep(_), None | Some(NodeState::Crashed)) => Action::Keep,
        (NodeChange::Keep(_), Some(was)) => Action::Revive { was },
        (NodeChange::Replace { .. }, Some(was)) => Action::Start { was: Some(was) },
        (NodeChange::Replace { have, want, keys }, None) => Action::Restart(because(have, want, keys)),
    }
}

/// Why a node is started afresh that differs in these keys.
pub fn because(have: &Node, want: &Node, keys: &[&str]) -> Because {
    let own = keys.iter().filter(|key| **key != SURROUNDINGS).map(|key| (*key).to_owned()).collect();
    Because { keys: own, cluster: keys.contains(&SURROUNDINGS).then(|| zeek::why(have, want)) }
}

/// What would become of the nodes of an instance that cannot say so itself: by the share of the deployed configuration that
/// it has, if it has one, and the share that it would get.
pub fn foreseen(have: Option<Configuration>, mut want: Configuration) -> Vec<Step> {
    let mut have = have.unwrap_or_else(|| Configuration::empty(want.id.clone()));
    let is_placed = zeek::equip(&mut have).is_ok() & zeek::equip(&mut want).is_ok();
    if !is_placed {
        // Where nobody knows what they must know, that is no difference.
        have.nodes.iter_mut().chain(&mut want.nodes).for_each(forget_surroundings);
    }
    of_instance(&have.nodes, &want.nodes, |_| None)
}

/// Takes from a node what it knows of its cluster.
pub fn forget_surroundings(node: &mut Arc<Node>) {
    if node.zeek.as_ref().is_some_and(|zeek| zeek.knows.is_some())
        && let Some(zeek) = &mut Arc::make_mut(node).zeek
    {
        zeek.knows = None;
    }
}

/// Puts together what is to become of nodes on each instance, sorted by instance and node. One that stops in one place
/// and is new in another moves.
pub fn of_cluster(told: impl IntoIterator<Item = (InstanceName, Vec<Step>)>) -> Vec<Planned> {
    let planned = |(instance, steps): (InstanceName, Vec<Step>)| {
        steps.into_iter().map(move |Step { node, action }| Planned { instance: instance.clone(), node, action })
    };
    let mut all: Vec<Planned> = told.into_iter().flat_map(planned).collect();
    let ends = all.iter().filter(|planned| planned.action == Action::Stop);
    let mut ends: BTreeMap<NodeName, InstanceName> =
        ends.map(|planned| (planned.node.clone(), planned.instance.clone())).collect();
    let mut moved = BTreeMap::new();
    for planned in all.iter_mut().filter(|planned| planned.action == Action::Start { was: None }) {
        if let Some(from) = ends.remove(&planned.node) {
            moved.insert(planned.node.clone(), from.clone());
            planned.action = Action::Move { from };
        }
    }
    all.retain(|planned| planned.action != Action::Stop || moved.get(&planned.node) != Some(&planned.instance));
    all.sort_by(|a, b| (&a.instance, &a.node).cmp(&(&b.instance, &b.node)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConfigurationId, Instance, Role};

    /// Nodes as `name instance role`, with the instances they are on.
    fn cluster(nodes: &[&str]) -> Configuration {
        let mut cluster = Configuration::empty(ConfigurationId::new("c").unwrap());
        for line in nodes {
            let [name, instance, role] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let role = Role::ALL.into_iter().find(|known| known.as_str() == role).unwrap();
            let instance = InstanceName::new(instance).unwrap();
            if cluster.instance(&instance).is_none() {
                cluster.instances.push(Instance { name: instance.clone(), host: None, port: None });
            }
            cluster.nodes.push(Arc::new(Node::new(NodeName::new(name).unwrap(), instance, role)));
        }
        cluster
    }

    fn plan(have: &Configuration, want: &Configuration) -> Vec<String> {
        let mut names: Vec<_> = have.instances.iter().chain(&want.instances).map(|i| i.name.clone()).collect();
        names.sort();
        names.dedup();
        let told = names.into_iter().map(|name| {
            let steps = foreseen(Some(have.share_of(&name)), want.share_of(&name));
            (name, steps)
        });
        let words = |planned: Planned| {
            let what = match planned.action {
                Action::Keep => "keep".into(),
                Action::Start { was: None } => "start".into(),
                Action::Start { was: Some(was) } | Action::Revive { was } => format!("start {was}"),
                Action::Restart(because) => format!("restart because {because}"),
                Action::Move { from } => format!("move from {from}"),
                Action::Stop => "stop".into(),
            };
            format!("{} on {}: {what}", planned.node, planned.instance)
        };
        of_cluster(told).into_iter().map(words).collect()
    }

    #[test]
    fn each_node_has_one_line_and_one_that_goes_elsewhere_moves() {
        let have = cluster(&["m a manager", "w1 a worker", "w2 a worker", "w3 b worker"]);
        let mut want = cluster(&["m a manager", "w1 a worker", "w2 b worker", "w4 b worker"]);
        Arc::make_mut(&mut want.nodes[1]).scripts = vec!["x".into()];
        assert_eq!(
            plan(&have, &want),
            [
                "m on a: restart because w4 joined the cluster and w3 left the cluster",
                "w1 on a: restart because of its scripts",
                "w2 on b: move from a",
                "w3 on b: stop",
                "w4 on b: start",
            ]
        );
        assert!(plan(&want, &want).iter().all(|line| line.ends_with(": keep")));
    }

    #[test]
    fn what_has_no_process_is_started_whatever_else_changed() {
        let (have, mut want) = (cluster(&["w a none"]), cluster(&["w a none"]));
        let steps = |want: &Configuration| of_instance(&have.nodes, &want.nodes, |_| Some(NodeState::Failed));
        assert_eq!(steps(&want)[0].action, Action::Revive { was: NodeState::Failed });
        Arc::make_mut(&mut want.nodes[0]).port = Some(1);
        assert_eq!(steps(&want)[0].action, Action::Start { was: Some(NodeState::Failed) });
        assert_eq!(steps(&cluster(&[]))[0].action, Action::Stop);
    }

    #[test]
    fn who_rests_and_has_to_know_something_else_of_its_cluster_is_not_as_it_is_to_be() {
        let mut have = cluster(&["m a manager", "w1 a worker"]);
        let mut want = cluster(&["m a manager", "w1 a worker", "w2 a worker"]);
        assert!(zeek::equip(&mut have).is_ok() && zeek::equip(&mut want).is_ok());
        let steps = of_instance(&have.nodes, &want.nodes, |name| (name.as_str() != "w2").then_some(NodeState::Stopped));
        let actions: Vec<_> = steps.into_iter().map(|step| step.action).collect();
        let was = NodeState::Stopped;
        let want = [Action::Start { was: Some(was) }, Action::Revive { was }, Action::Start { was: None }];
        assert_eq!(actions, want, "the manager knows of every worker");
    }

    #[test]
    fn where_nobody_knows_the_addresses_that_is_no_difference() {
        let mut both = cluster(&["m a manager", "w b worker"]);
        both.instances[0].host = Some([10, 0, 0, 1].into());
        assert_eq!(plan(&both, &both), ["m on a: keep", "w on b: keep"]);
    }
}

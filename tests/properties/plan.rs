//! Plans: whatever the configuration, they are complete, and they leave alone what is not theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use watchpost::model::{Action, Configuration, Instance, InstanceName, Node, NodeState, Planned, ReadyBy, Role};
use watchpost::plan::diff::{instances, nodes};
use watchpost::plan::{InstanceChange, NodeChange, PortRules, Slowest, assign_ports, keep_ports, steps, validate};

use crate::any;

fn by_name(nodes: &[Arc<Node>]) -> BTreeMap<&str, &Node> {
    nodes.iter().map(|node| (node.name.as_str(), &**node)).collect()
}

/// Carries out a diff the way an agent does.
fn apply<'a>(have: &'a [Arc<Node>], changes: &[NodeChange<'a>]) -> BTreeMap<&'a str, &'a Node> {
    let mut nodes = by_name(have);
    for change in changes {
        match change {
            NodeChange::Keep(_) => {}
            NodeChange::Start(want) | NodeChange::Replace { want, .. } => {
                nodes.insert(want.name.as_str(), want);
            }
            NodeChange::Remove(have) => {
                nodes.remove(have.name.as_str());
            }
        }
    }
    nodes
}

/// Every port in use at each address, with how often.
fn uses(configuration: &Configuration) -> BTreeMap<(Option<std::net::IpAddr>, u16), usize> {
    let host = |name: &InstanceName| configuration.instance(name).and_then(|instance| instance.host);
    let agents = configuration.instances.iter().filter_map(|instance| Some((instance.host, instance.port?)));
    let nodes = configuration.nodes.iter();
    let ports = nodes.flat_map(|node| [node.port, node.metrics_port].map(|port| Some((host(&node.instance), port?))));
    let mut uses = BTreeMap::new();
    agents.chain(ports.flatten()).for_each(|place| *uses.entry(place).or_default() += 1);
    uses
}

/// What is left of it without nodes of a name that another has, or of an instance that there is not; nor Zeek, for which all
/// of a cluster must make sense.
fn once(mut configuration: Configuration) -> Configuration {
    let mut names = BTreeSet::new();
    configuration.instances.retain(|instance| names.insert(instance.name.clone()));
    let mut taken = BTreeSet::new();
    configuration.nodes.retain(|node| names.contains(&node.instance) && taken.insert(node.name.clone()));
    for node in configuration.nodes.iter_mut().map(Arc::make_mut).filter(|node| node.is_zeek()) {
        node.command = vec!["program".into()];
    }
    configuration
}

/// What a deployment would do, by what instances would say that have what `have` gives them.
fn plan(have: &Configuration, want: &Configuration) -> Vec<Planned> {
    let names: BTreeSet<&InstanceName> = have.instances.iter().chain(&want.instances).map(|i| &i.name).collect();
    let told = names.into_iter().map(|name| {
        let steps = steps::foreseen(Some(have.share_of(name)), want.share_of(name));
        (name.clone(), steps)
    });
    steps::of_cluster(told)
}

fn by_place(configuration: &Configuration) -> BTreeMap<(&InstanceName, &str), &Node> {
    configuration.nodes.iter().map(|node| ((&node.instance, node.name.as_str()), &**node)).collect()
}

/// Whether nobody would tell one from the other; the state that is wanted has no effect.
fn is_same(one: &Node, other: &Node) -> bool {
    let [one, other] = [one, other].map(|node| any::in_state(&Arc::new(node.clone()), NodeState::Running));
    nodes(&[one], &[other]).iter().all(|change| matches!(change, NodeChange::Keep(_)))
}

proptest! {
    #[test]
    fn applying_the_diff_leads_from_have_to_want(have in any::named(), want in any::named(), both in any::named()) {
        let join = |one: &Configuration| [&one.nodes[..], &both.nodes].concat();
        let (have, want) = (join(&have), join(&want));
        let changes = nodes(&have, &want);
        prop_assert_eq!(apply(&have, &changes), by_name(&want));

        let names: Vec<&str> = changes.iter().map(|change| change.name().as_str()).collect();
        let all: BTreeSet<&str> = have.iter().chain(&want).map(|node| node.name.as_str()).collect();
        prop_assert_eq!(names, all.into_iter().collect::<Vec<_>>());
        for change in &changes {
            if let NodeChange::Replace { have, want, keys } = change {
                prop_assert!(!keys.is_empty());
                prop_assert_ne!(have, want);
            }
        }
    }

    #[test]
    fn a_plan_that_is_carried_out_leads_from_have_to_want(
        have in any::named(),
        want in any::named(),
        both in any::named(),
    ) {
        // Instances that both have, and nodes that are the same, or somewhere else.
        let join = |one: &Configuration| Configuration {
            instances: [&one.instances[..], &both.instances].concat(),
            nodes: [&one.nodes[..], &both.nodes].concat(),
            ..one.clone()
        };
        let (have, want) = (once(join(&have)), once(join(&want)));
        let planned = plan(&have, &want);
        let mut now: BTreeMap<(&InstanceName, &str), &Node> = by_place(&have);
        let wanted = by_place(&want);
        let mut seen = BTreeSet::new();
        for planned in &planned {
            let place = (&planned.instance, planned.node.as_str());
            prop_assert!(seen.insert(place), "{planned:?} is said once");
            let (had, wants) = (now.get(&place).copied(), wanted.get(&place).copied());
            match &planned.action {
                Action::Keep => prop_assert!(had.is_some() && wants.is_some()),
                Action::Start { was } => {
                    prop_assert!(had.is_none() && was.is_none());
                    now.insert(place, wanted[&place]);
                }
                Action::Restart(because) => {
                    prop_assert!(had.is_some() && had != wants && !because.keys.is_empty() || because.cluster.is_some());
                    now.insert(place, wanted[&place]);
                }
                Action::Move { from } => {
                    prop_assert!(had.is_none() && from != &planned.instance);
                    prop_assert!(now.remove(&(from, planned.node.as_str())).is_some(), "{planned:?}");
                    now.insert(place, wanted[&place]);
                }
                Action::Revive { .. } => prop_assert!(false, "nobody rests here"),
                Action::Stop => prop_assert!(now.remove(&place).is_some() && wants.is_none()),
            }
        }
        prop_assert_eq!(now.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (place, node) in now {
            prop_assert!(is_same(node, wanted[&place]), "{place:?}");
        }
        let again = plan(&want, &want);
        prop_assert!(again.iter().all(|planned| planned.action == Action::Keep));
        prop_assert_eq!(again.len(), want.nodes.len());
    }

    #[test]
    fn nothing_changes_between_a_configuration_and_itself(subject in any::named()) {
        let again: Vec<Arc<Node>> = subject.nodes.iter().map(|node| any::in_state(node, NodeState::Stopped)).collect();
        prop_assert!(nodes(&subject.nodes, &again).iter().all(|change| matches!(change, NodeChange::Keep(_))));
        let changes = instances(&subject.instances, &subject.instances);
        prop_assert!(changes.iter().all(|change| matches!(change, InstanceChange::Kept(_))));
    }

    #[test]
    fn every_instance_changes_exactly_once(have in any::named(), want in any::named()) {
        let mut now: BTreeMap<&InstanceName, &Instance> = have.instances.iter().map(|i| (&i.name, i)).collect();
        for change in instances(&have.instances, &want.instances) {
            match change {
                InstanceChange::Added(want) => prop_assert!(now.insert(&want.name, want).is_none()),
                InstanceChange::Removed(have) => prop_assert!(now.remove(&have.name).is_some()),
                InstanceChange::Kept(want) | InstanceChange::Reconnected { want, .. } => {
                    prop_assert!(now.insert(&want.name, want).is_some());
                }
            }
        }
        prop_assert_eq!(now.into_values().collect::<Vec<_>>(), want.instances.iter().collect::<Vec<_>>());
    }

    #[test]
    fn ports_never_clash_and_a_given_one_never_moves(before in any::named(), first in 2190..2210u16) {
        let rules = PortRules { controller: Some(2150), first_port: Some(first), first_metrics_port: Some(first) };
        let mut before = before;
        if let Some(zeek) = &mut before.zeek {
            (zeek.port, zeek.metrics_port) = (None, None); // else they, and not the rules, say where ports begin
        }
        let mut after = before.clone();
        assign_ports(&mut after, &rules).unwrap();

        for (before, after) in before.nodes.iter().zip(&after.nodes) {
            prop_assert!(before.port.is_none() || before.port == after.port);
            prop_assert!(before.metrics_port.is_none() || before.metrics_port == after.metrics_port);
            let needs_port = matches!(after.role, Role::Manager | Role::Logger | Role::Proxy);
            prop_assert_eq!(after.port.is_some(), before.port.is_some() || needs_port);
            prop_assert_eq!(after.metrics_port.is_some(), before.metrics_port.is_some() || after.role != Role::None);
            let given = Node { port: before.port, metrics_port: before.metrics_port, ..Node::clone(after) };
            prop_assert_eq!(&**before, &given);
        }
        // What clashes now did so before, and just as often.
        let given = uses(&before);
        for (place, count) in uses(&after) {
            prop_assert!(count == 1 || given.get(&place) == Some(&count), "{place:?} is used {count} times");
            let is_new = !given.contains_key(&place);
            prop_assert!(!is_new || (place.1 != 2150 && place.1 >= first), "{place:?} should not be given out");
            let is_awaited = before.nodes.iter().any(|node| {
                node.ready.by == ReadyBy::Port(place.1)
                    && before.instance(&node.instance).and_then(|instance| instance.host) == place.0
            });
            prop_assert!(!is_new || !is_awaited, "{place:?} is where a node listens by itself");
        }
    }

    #[test]
    fn what_is_complete_is_left_as_it_is(mut subject in any::named()) {
        assign_ports(&mut subject, &PortRules::default()).unwrap();
        let mut again = subject.clone();
        assign_ports(&mut again, &PortRules::default()).unwrap();
        prop_assert_eq!(again, subject);
    }

    #[test]
    fn complaints_come_sorted_and_once_whatever_the_configuration(
        subject in any::configuration(),
        first_port in prop::option::of(any::<u16>()),
    ) {
        let complaints = validate(&subject, &PortRules { first_port, ..PortRules::default() });
        prop_assert!(complaints.is_sorted());
        prop_assert_eq!(complaints.iter().collect::<BTreeSet<_>>().len(), complaints.len());
    }

    #[test]
    fn a_port_that_was_given_out_stays_while_others_come_and_go(
        mut before in any::named(),
        gone in any::<prop::sample::Index>(),
    ) {
        assign_ports(&mut before, &PortRules::default()).unwrap();
        let mut after = before.clone();
        if !after.nodes.is_empty() {
            after.nodes.remove(gone.index(before.nodes.len()));
        }
        let left = after.clone();
        for node in after.nodes.iter_mut().map(Arc::make_mut) {
            (node.port, node.metrics_port) = (None, None);
        }
        keep_ports(&mut after, &before);
        assign_ports(&mut after, &PortRules::default()).unwrap();
        for (left, after) in left.nodes.iter().zip(&after.nodes) {
            prop_assert!(left.port.is_none() || left.port == after.port);
            prop_assert!(left.metrics_port.is_none() || left.metrics_port == after.metrics_port);
        }
    }

    #[test]
    fn nobody_is_given_less_time_than_a_single_node_may_take(subject in any::configuration()) {
        let patience = Slowest::of(&subject.nodes).patience();
        prop_assert!(subject.nodes.iter().all(|node| node.ready_within() + node.stop_grace < patience));
    }
}

//! What each Zeek node must know of its cluster, and so what has it started afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::numbers;
use super::template::{Indices, expand, variables};
use crate::model::{
    ArchiveRules, Backend, Configuration, InstanceName, LayoutEntry, Node, NodeName, Peer, Role, Surroundings, Zeek,
    ZeekHealth, ZeekNode, cluster_file,
};

/// Interfaces that begin so are read through AF_PACKET.
const AF_PACKET: &str = "af_packet::";
/// The option that keeps the packets of one interface together.
const FANOUT_ID: &str = "AF_Packet::fanout_id";

/// Why the nodes of an instance cannot be found by the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("nobody knows the address of instance '{0}': give it in [zeek], as `addresses = {0}=10.0.0.5`")]
    Unknown(InstanceName),
    #[error(
        "instance '{0}' is known as {1}, where nodes of other machines do not reach it: give its address in [zeek], as \
         `addresses = {0}=10.0.0.5`"
    )]
    Loopback(InstanceName, IpAddr),
}

/// Tells each Zeek node of a share what it must know; returns the whole layout, sorted by name.
///
/// A worker knows loggers, managers and proxies, and itself. All others know everybody: so a worker that comes or goes has
/// them started afresh, and no other worker.
pub fn equip(share: &mut Configuration) -> Result<Vec<LayoutEntry>, NoPlace> {
    let layout = layout(share)?;
    let zeek = share.zeek.as_deref().cloned().unwrap_or_default();
    let (logging, quiet) = (Arc::new(of_a_node(&zeek, true)), Arc::new(of_a_node(&zeek, false)));
    let keys = share.keys.as_ref().map(|keys| keys.server.public);
    let indices = Indices::of(share);
    // What is wrong with them was said before they came here.
    let variables = |node: &Arc<Node>| (node.name.clone(), variables(share, &indices, node).unwrap_or_default());
    let mut variables: BTreeMap<_, _> = share.nodes.iter().filter(|node| node.is_zeek()).map(variables).collect();
    let fanouts = fanouts(share, &zeek, &variables);
    for node in share.nodes.iter_mut().filter(|node| node.is_zeek()) {
        let concerns =
            |entry: &&LayoutEntry| node.role != Role::Worker || entry.role != Role::Worker || entry.name == node.name;
        let entries = match node.is_in_zeek_cluster() {
            true => layout.iter().filter(concerns).cloned().collect(),
            false => Vec::new(),
        };
        let settings = if node.role == Role::Worker || node.role == Role::Proxy { &quiet } else { &logging };
        let fanout = fanouts.get(&node.name).copied();
        let variables = variables.remove(&node.name).unwrap_or_default();
        let settings = Arc::clone(settings);
        let keys = keys.filter(|_| node.is_in_zeek_cluster());
        let knows = Some(Arc::new(Surroundings { settings, entries, fanout, keys, variables }));
        Arc::make_mut(node).zeek.get_or_insert_with(|| Box::new(ZeekNode::default())).knows = knows;
    }
    Ok(layout)
}

/// Every member of the cluster, with where it is found.
fn layout(share: &Configuration) -> Result<Vec<LayoutEntry>, NoPlace> {
    let members: BTreeMap<NodeName, Peer> = share.zeek_cluster().map(|peer| (peer.name.clone(), peer)).collect();
    let instances: BTreeSet<&InstanceName> = members.values().map(|peer| &peer.instance).collect();
    // Agents of whom nobody knows where they are live in the controller's own process, and so on one machine.
    let is_seen = |name: &&InstanceName| share.instance(name).is_some_and(|instance| instance.host.is_some());
    let is_placed = |name: &&InstanceName| share.zeek.as_ref().is_some_and(|zeek| zeek.addresses.contains_key(*name));
    let is_local = instances.len() == 1 || !instances.iter().any(|name| is_seen(name) || is_placed(name));
    let places: BTreeMap<&InstanceName, IpAddr> =
        instances.iter().map(|name| Ok((*name, place(share, name, is_local)?))).collect::<Result<_, _>>()?;
    let is_apart = |host: &IpAddr| !host.is_loopback();
    if let Some((name, host)) =
        places.iter().find(|(_, host)| !is_apart(host)).filter(|_| places.values().any(is_apart))
    {
        return Err(NoPlace::Loopback((*name).clone(), *host));
    }
    let entry = |peer: &Peer| LayoutEntry {
        name: peer.name.clone(),
        role: peer.role,
        host: places[&peer.instance],
        port: peer.port,
        metrics_port: peer.metrics_port,
    };
    Ok(members.values().map(entry).collect())
}

/// Where the nodes of an instance are found. A cluster on one machine talks on loopback, whatever else that is called.
fn place(share: &Configuration, name: &InstanceName, is_local: bool) -> Result<IpAddr, NoPlace> {
    let given = share.zeek.as_ref().and_then(|zeek| zeek.addresses.get(name)).copied();
    let alone = is_local.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let seen = share.instance(name).and_then(|instance| instance.host);
    given.or(alone).or(seen).ok_or_else(|| NoPlace::Unknown(name.clone()))
}

/// The settings as far as they concern a node: where its ports begin and addresses are is in its layout already.
fn of_a_node(zeek: &Zeek, writes_logs: bool) -> Zeek {
    Zeek {
        addresses: BTreeMap::new(),
        port: None,
        metrics_port: None,
        archive: ArchiveRules::default(),
        rotation_interval: zeek.rotation_interval.filter(|_| writes_logs),
        zeromq_ports: zeek.zeromq_ports.filter(|_| zeek.backend != Backend::Broker),
        zeromq_keys: if zeek.wants_keys() { zeek.zeromq_keys } else { Zeek::KEYS },
        // What its losses mean is its agent's to know.
        health: ZeekHealth { heartbeat: zeek.health.heartbeat, ..ZeekHealth::default() },
        ..zeek.clone()
    }
}

/// The numbers of the nodes that read an interface through AF_PACKET. Those of one interface share one, and two
/// interfaces never do: the kernel would mix up their packets.
fn fanouts(
    share: &Configuration,
    zeek: &Zeek,
    variables: &BTreeMap<NodeName, BTreeMap<String, String>>,
) -> BTreeMap<NodeName, u16> {
    let interface = |node: &Arc<Node>| {
        let value = |name: &str| variables.get(&node.name)?.get(name).cloned();
        let interface = node.interface.as_deref().and_then(|text| expand(text, value).ok());
        let interface = interface.filter(|interface| interface.starts_with(AF_PACKET));
        let is_given = node.options.contains_key(FANOUT_ID) || zeek.options.contains_key(FANOUT_ID);
        let key =
            |interface: String| format!("{:08x} {} {interface}", zeek.hash_seed.unwrap_or_default(), node.instance);
        interface.filter(|_| node.is_zeek() && !is_given).map(key)
    };
    let keys: BTreeMap<&NodeName, String> =
        share.nodes.iter().filter_map(|node| Some((&node.name, interface(node)?))).collect();
    let numbers = numbers(keys.values().map(String::as_str), u32::from(u16::MAX));
    // 0 would have the kernel choose.
    let fanout = |key: &String| numbers.get(key.as_str()).and_then(|number| u16::try_from(number + 1).ok());
    keys.iter().filter_map(|(name, key)| Some(((*name).clone(), fanout(key)?))).collect()
}

/// What a node knew that is otherwise now, in words that follow "because ".
pub fn why(have: &Node, want: &Node) -> String {
    let knows = |node: &Node| node.zeek.as_ref().and_then(|zeek| zeek.knows.clone());
    let (Some(have), Some(want)) = (knows(have), knows(want)) else { return "its cluster is another".into() };
    let by_name = |knows: &Surroundings| -> BTreeMap<NodeName, LayoutEntry> {
        knows.entries.iter().map(|entry| (entry.name.clone(), entry.clone())).collect()
    };
    let (before, after) = (by_name(&have), by_name(&want));
    let list = |names: Vec<&NodeName>, what: &str| match names.as_slice() {
        [] => None,
        [one] => Some(format!("{one} {what}")),
        [first, rest @ ..] => Some(format!("{first} and {} more {what}", rest.len())),
    };
    let joined = after.keys().filter(|name| !before.contains_key(*name)).collect();
    let left = before.keys().filter(|name| !after.contains_key(*name)).collect();
    let moved = after.iter().filter(|(name, entry)| before.get(*name).is_some_and(|old| old != *entry));
    let reasons = [
        list(joined, "joined the cluster"),
        list(left, "left the cluster"),
        list(moved.map(|(name, _)| name).collect(), "is found elsewhere in it"),
        settings(&have.settings, &want.settings),
        (have.keys != want.keys).then(|| "its keys for ZeroMQ are others".to_owned()),
        (have.variables != want.variables).then(|| "its place among the workers is another".to_owned()),
        (have.fanout != want.fanout).then(|| "its AF_PACKET fanout id is another".to_owned()),
    ];
    reasons.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// What all nodes share that is otherwise, by its keys.
fn settings(have: &Zeek, want: &Zeek) -> Option<String> {
    let keys: Vec<String> =
        cluster_file::differing_keys(have, want).into_iter().map(|key| format!("`{key}`")).collect();
    match keys.as_slice() {
        [] if have == want => None,
        // Of a release that knew others.
        [] => Some("[zeek] says otherwise".into()),
        [one] => Some(format!("{one} of [zeek] is another")),
        several => Some(format!("{} of [zeek] are others", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;
    use crate::plan::{NodeChange, diff};
    use crate::trust::CurveRoot;

    const THREE: [&str; 4] = ["l a logger", "m a manager", "p a proxy", "w1 a worker"];

    fn equipped(nodes: &[&str], change: impl FnOnce(&mut Configuration)) -> Configuration {
        let mut subject = cluster("1", nodes);
        change(&mut subject);
        equip(&mut subject).unwrap();
        subject
    }

    fn replaced(have: &Configuration, want: &Configuration) -> Vec<String> {
        let replaced = |change: &NodeChange| match change {
            NodeChange::Replace { have, want, .. } => Some(format!("{}: {}", want.name, why(have, want))),
            _ => None,
        };
        diff::nodes(&have.nodes, &want.nodes).iter().filter_map(replaced).collect()
    }

    #[test]
    fn a_worker_that_joins_has_all_but_workers_started_afresh() {
        let have = equipped(&THREE, |_| {});
        let want = equipped(&[&THREE[..], &["w2 a worker", "alone a none"]].concat(), |_| {});
        let because = "w2 joined the cluster";
        assert_eq!(replaced(&have, &want), ["l", "m", "p"].map(|name| format!("{name}: {because}")));
        assert_eq!(replaced(&want, &have), ["l", "m", "p"].map(|name| format!("{name}: w2 left the cluster")));
    }

    #[test]
    fn a_node_that_moves_has_those_started_afresh_that_know_it() {
        let have = equipped(&[&THREE[..], &["w2 a worker"]].concat(), |_| {});
        let want = |node: usize| {
            equipped(&[&THREE[..], &["w2 a worker"]].concat(), |subject| {
                Arc::make_mut(&mut subject.nodes[node]).metrics_port = Some(1);
            })
        };
        let names = |node| replaced(&have, &want(node)).iter().map(|line| line[..2].to_owned()).collect::<Vec<_>>();
        assert_eq!(names(2), ["l:", "m:", "p:", "w1", "w2"], "all know a proxy");
        assert_eq!(names(3), ["l:", "m:", "p:", "w1"], "no worker knows another");
    }

    #[test]
    fn where_ports_begin_concerns_nobody_and_rotation_only_those_who_write_logs() {
        let have = equipped(&THREE, |_| {});
        let with = |zeek: Zeek| equipped(&THREE, |subject| subject.zeek = Some(Box::new(zeek)));
        assert_eq!(replaced(&have, &with(Zeek { port: Some(1), metrics_port: Some(2), ..Zeek::default() })), [""; 0]);
        let rotation = with(Zeek { rotation_interval: Some(std::time::Duration::from_secs(60)), ..Zeek::default() });
        assert_eq!(
            replaced(&have, &rotation),
            ["l", "m"].map(|name| format!("{name}: `rotation_interval` of [zeek] is another"))
        );
        let second = Some(std::time::Duration::from_secs(1));
        let health = |health| with(Zeek { health, ..Zeek::default() });
        let losses =
            ZeekHealth { loss_above: Some(crate::model::Loss::ALL), loss_for: second, ..ZeekHealth::default() };
        assert_eq!(replaced(&have, &health(losses)), [""; 0], "what counts as too much is for their agent to know");
        assert_eq!(replaced(&have, &health(ZeekHealth { heartbeat: second, ..ZeekHealth::default() })).len(), 4);
    }

    #[test]
    fn other_keys_have_all_members_of_the_cluster_started_afresh() {
        let nodes = &[&THREE[..], &["alone a none"]].concat();
        let with =
            |number| equipped(nodes, |subject| subject.keys = Some(Box::new(CurveRoot::from([7; 32]).keys(number))));
        assert_eq!(replaced(&with(1), &with(1)), [""; 0]);
        let because = "its keys for ZeroMQ are others";
        assert_eq!(replaced(&with(1), &with(2)), ["l", "m", "p", "w1"].map(|name| format!("{name}: {because}")));
    }

    #[test]
    fn a_cluster_on_one_machine_is_on_loopback_and_one_on_several_must_be_found() {
        let host =
            |subject: &mut Configuration, at: usize, host: [u8; 4]| subject.instances[at].host = Some(host.into());
        let one = equipped(&THREE, |subject| host(subject, 0, [10, 0, 0, 1]));
        let hosts = |subject: &Configuration| {
            let knows = subject.nodes[0].zeek.as_ref().unwrap().knows.clone().unwrap();
            knows.entries.iter().map(|entry| entry.host.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(hosts(&one), ["127.0.0.1"; 4]);
        let mut two = cluster("1", &["m a manager", "w b worker"]);
        host(&mut two, 0, [10, 0, 0, 1]);
        assert_eq!(equip(&mut two).unwrap_err(), NoPlace::Unknown(InstanceName::new("b").unwrap()));
        host(&mut two, 1, [127, 0, 0, 1]);
        assert!(equip(&mut two).unwrap_err().to_string().contains("'b' is known as 127.0.0.1"));
        let address = (InstanceName::new("b").unwrap(), [10, 0, 0, 2].into());
        two.zeek.get_or_insert_default().addresses.extend([address]);
        equip(&mut two).unwrap();
        assert_eq!(hosts(&two), ["10.0.0.1", "10.0.0.2"]);
        host(&mut two, 0, [127, 0, 0, 1]);
        two.zeek = None;
        equip(&mut two).unwrap(); // both are on this machine
        two.instances.iter_mut().for_each(|instance| instance.host = None);
        equip(&mut two).unwrap();
        assert_eq!(hosts(&two), ["127.0.0.1"; 2], "a lab is on one machine");
    }

    #[test]
    fn workers_of_one_interface_share_a_number_and_no_others_do() {
        let subject = equipped(&["a i worker", "b i worker", "c i worker", "d i worker", "e i worker"], |subject| {
            let interfaces = ["af_packet::x", "af_packet::x", "af_packet::${host_worker_index}", "z", "af_packet::x"];
            for (node, interface) in subject.nodes.iter_mut().zip(interfaces) {
                Arc::make_mut(node).interface = Some(interface.into());
            }
            Arc::make_mut(&mut subject.nodes[4]).options.insert(FANOUT_ID.into(), "7".into());
        });
        let fanouts: Vec<_> =
            subject.nodes.iter().map(|node| node.zeek.as_ref().unwrap().knows.as_ref().unwrap().fanout).collect();
        assert!(fanouts[0].is_some() && fanouts[2].is_some());
        assert_eq!((fanouts[0], fanouts[3], fanouts[4]), (fanouts[1], None, None));
        assert_ne!(fanouts[0], fanouts[2]);
    }
}

//! Sections become instances and nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lines::{Entry, INSTANCES, Section};
use super::node::{Draft, OWN_KEYS, STAND_IN, role_of, without_probe};
use super::values::{address, one_of};
use super::{Complaints, zeek};
use crate::model::{Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, Role};

/// What the section of a role begins with, before the role.
pub(super) const ROLE: &str = "role ";

/// The configuration that the sections describe, as far as they can be understood.
pub(super) fn configuration(
    sections: &[Section],
    id: ConfigurationId,
    hostname: &str,
    complaints: &mut Complaints,
) -> Configuration {
    let declared = sections.iter().find(|section| section.name == INSTANCES);
    let shared = sections.iter().find(|section| zeek::is_settings(section));
    let zeek = shared.and_then(|section| zeek::settings(section, complaints));
    let (of_roles, of_nodes): (Vec<_>, Vec<_>) = sections
        .iter()
        .filter(|section| section.name != INSTANCES && !zeek::is_settings(section))
        .partition(|section| section.name.starts_with(ROLE));
    let roles: BTreeMap<Role, &Section> =
        of_roles.into_iter().filter_map(|section| Some((defaults(section, complaints)?, section))).collect();
    let mut drafts: Vec<(&Section, Draft)> =
        of_nodes.into_iter().filter_map(|section| Some((section, Draft::read(section, &roles, complaints)?))).collect();
    for (role, section) in &roles {
        let of_role = drafts.iter().filter(|(section, _)| role_of(section) == *role);
        let mut probes = of_role.map(|(_, draft)| draft.node.liveness.as_ref().is_some_and(|own| own.probe.is_some()));
        // Each node may have a probe of its own.
        let all_probe = probes.next().is_some_and(|first| first && probes.all(|probes| probes));
        if !all_probe && let Some(entry) = lone_key_of_probe(section) {
            complaints.add(section.complaint(None, without_probe(&entry.key)));
        }
    }
    if let Some(name) = default_instance(&drafts, declared, hostname, complaints) {
        drafts.iter_mut().for_each(|(_, draft)| draft.node.instance = name.clone());
    }
    // Without the stand-ins, which are nobody's.
    let named = drafts.into_iter().filter(|(section, draft)| draft.node.name.as_str() == section.name);
    let nodes: Vec<Arc<Node>> = named.map(|(_, draft)| Arc::new(draft.node)).collect();
    let instances = match declared {
        Some(section) => section.entries.iter().filter_map(|entry| instance(section, entry, complaints)).collect(),
        None => {
            let mut seen = BTreeSet::new();
            let names = nodes.iter().map(|node| &node.instance).filter(|&name| seen.insert(name));
            names.map(|name| Instance { name: name.clone(), host: None, port: None }).collect()
        }
    };
    Configuration { id, instances, nodes, zeek, peers: Vec::new(), keys: None }
}

/// The role whose nodes the section is about, once its keys were looked at.
fn defaults(section: &Section, complaints: &mut Complaints) -> Option<Role> {
    let name = section.name.strip_prefix(ROLE)?;
    let role = one_of(name, "role", Role::ALL, Role::as_str);
    let mut stand_in = Draft::stand_in(NodeName::new(STAND_IN).ok()?)?;
    for entry in &section.entries {
        if complaints.is_full() {
            break;
        }
        let taken = match OWN_KEYS.contains(&&*entry.key) {
            true => Err("is for one node alone: write it in the sections of nodes".into()),
            false => stand_in.take(&entry.key, entry.value.as_deref()),
        };
        // The complaint about a key also names what would be right, and that is true of roles as well.
        taken.unwrap_or_else(|what| complaints.add(section.complaint(Some(entry), what)));
    }
    role.map_err(|what| complaints.add(section.complaint(None, what))).ok()
}

/// What a section says of a probe that it does not have.
fn lone_key_of_probe<'a>(section: &'a Section<'a>) -> Option<&'a Entry<'a>> {
    let has = |key: &str| section.entries.iter().find(|entry| entry.key == key);
    let none = has("probe").is_none();
    ["probe_interval", "probe_timeout", "probe_failures"].into_iter().find_map(has).filter(|_| none)
}

/// The instance of nodes that name none, where the file leaves them to it: either all nodes name one, or none does.
fn default_instance(
    drafts: &[(&Section, Draft)],
    declared: Option<&Section>,
    hostname: &str,
    complaints: &mut Complaints,
) -> Option<InstanceName> {
    let (without, with): (Vec<_>, Vec<_>) = drafts.iter().partition(|(_, draft)| !draft.has_instance);
    let (first, _) = without.first()?;
    if !with.is_empty() {
        for (section, _) in without {
            let what = "names no instance, and other nodes do: add `instance = ...` to it";
            complaints.add(section.complaint(None, what));
        }
        return None;
    }
    if let Some(declared) = declared {
        let what = "no node says which instance it belongs to: remove this section, or add `instance = ...` to each";
        complaints.add(declared.complaint(None, what));
        return None;
    }
    match InstanceName::new(&format!("agent-{hostname}")) {
        Ok(name) => Some(name),
        Err(error) => {
            let what =
                format!("names no instance, and this machine has no name for one ({error}): add `instance = ...`");
            complaints.add(first.complaint(None, what));
            None
        }
    }
}

fn instance(section: &Section, entry: &Entry, complaints: &mut Complaints) -> Option<Instance> {
    let address = match entry.value.as_deref() {
        None | Some("") => Ok(None),
        Some(value) => address(value).map(Some),
    };
    let name = InstanceName::new(&entry.key).map_err(|error| error.to_string());
    match (name, address) {
        (Ok(name), Ok(address)) => {
            let (host, port) = address.unzip();
            Some(Instance { name, host, port })
        }
        (name, address) => {
            for what in [name.err(), address.err()].into_iter().flatten() {
                complaints.add(section.complaint(Some(entry), what));
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, read};
    use super::*;

    fn instances(text: &str) -> Vec<String> {
        let instances = read(text).unwrap().instances;
        instances.iter().map(|i| format!("{} {:?} {:?}", i.name, i.host, i.port)).collect()
    }

    #[test]
    fn instances_are_named_dialled_or_made_up() {
        assert_eq!(
            instances("[instances]\nOne\ntwo = 10.0.0.5:2151\nthree = [fd00::5]:1\nfour ="),
            ["One None None", "two Some(10.0.0.5) Some(2151)", "three Some(fd00::5) Some(1)", "four None None"]
        );
        let nodes = "[b]\nrole = none\ninstance = B\n[a]\nrole = none\ninstance = A\n[c]\nrole = none\ninstance = B";
        assert_eq!(instances(nodes), ["B None None", "A None None"]);
        assert_eq!(instances("[a]\nrole = worker\n[b]\ntype = WORKER"), ["agent-host None None"]);
        assert_eq!(instances(""), Vec::<String>::new());
    }

    #[test]
    fn addresses_that_nobody_can_dial_are_refused() {
        for value in ["host:1", "10.0.0.5", "0.0.0.0:1", "fd00::5:1", "[10.0.0.5]:1", ":1"] {
            let got = complaints(&format!("[instances]\na = {value}"));
            let want = format!("c.cfg:2: [instances] a: `{value}` is not the address of an agent: write IP:PORT");
            assert!(got.len() == 1 && got[0].starts_with(&want), "{got:?}");
        }
        for port in ["0", "99999", "", "x"] {
            assert_eq!(
                complaints(&format!("[instances]\na = 10.0.0.5:{port}")),
                [format!("c.cfg:2: [instances] a: `{port}` is not a port: write a number from 1 to 65535")]
            );
        }
        let got = complaints("[instances]\na b = 10.0.0.5:1");
        assert_eq!(
            got,
            ["c.cfg:2: [instances] a b: instance name `a b` may hold only letters, digits and . _ - @ : +"]
        );
    }

    #[test]
    fn either_all_or_no_nodes_name_their_instance() {
        assert_eq!(
            complaints("[a]\nrole = worker\n[b]\nrole = worker\ninstance = i"),
            ["c.cfg:1: [a]: names no instance, and other nodes do: add `instance = ...` to it"]
        );
        assert_eq!(
            complaints("[a]\nrole = worker\n[instances]\ni"),
            ["c.cfg:3: [instances]: no node says which instance it belongs to: remove this section, or add \
                 `instance = ...` to each"]
        );
        let error = super::super::parse("c.cfg", "[a]\nrole=none", ConfigurationId::new("").unwrap(), "my host");
        assert!(error.unwrap_err().to_string().contains("this machine has no name for one (instance name"));
    }

    #[test]
    fn what_is_said_of_a_role_holds_for_its_nodes_where_they_say_nothing_else() {
        let text = "[role worker]\nrestart_jitter = 50%%\nrestart_limit = 3\nmemory_max = 1G\nstop_grace = 5s\n\
                    [a]\nrole = worker\n[b]\nrole = worker\nrestart_limit = 7\nmemory_max = 2G\n[c]\nrole = manager\n\
                    [role none]\nnice = 3\n[d]\ncommand = true\n";
        let nodes = read(text).unwrap().nodes;
        let memory =
            |node: &Node| node.run_as.as_ref().and_then(|run_as| run_as.quotas.memory_max).map(|bytes| bytes.0);
        let seen: Vec<_> = nodes.iter().map(|node| (node.restart.jitter, node.restart.limit, memory(node))).collect();
        let usual = (10, 10, None);
        assert_eq!(seen, [(50, 3, Some(1 << 30)), (50, 7, Some(2 << 30)), usual, usual]);
        assert_eq!(nodes[0].stop_grace, Duration::from_secs(5));
        assert_eq!(nodes[3].run_as.as_ref().unwrap().nice, Some(3), "a program that names no role has none");
        let again = super::super::render(&read(text).unwrap());
        assert_eq!(read(&again).unwrap().nodes, nodes, "written back, each node says all of it itself");
    }

    #[test]
    fn what_cannot_be_said_of_a_role_is_refused_once_and_where_it_stands() {
        let text = "[role wroker]\n[role worker]\nport = 1\nrestart_limt = 3\nnice = 99\n[a]\nrole = worker\n[b]\nrole = worker\n";
        assert_eq!(
            complaints(text),
            [
                "c.cfg:1: [role wroker]: `wroker` is not a role: did you mean `worker`?",
                "c.cfg:3: [role worker] port: is for one node alone: write it in the sections of nodes",
                "c.cfg:4: [role worker] restart_limt: is not a key of a node: did you mean `restart_limit`?",
                "c.cfg:5: [role worker] nice: `99` is no niceness: write a number from -20 to 19",
            ]
        );
    }
}

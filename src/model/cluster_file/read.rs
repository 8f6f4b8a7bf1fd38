//! Sections become instances and nodes; this file knows every key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lines::{Entry, INSTANCES, Section};
use super::render::mode;
use super::{Complaints, words};
use crate::hint::{instead, shown};
use crate::model::output::{LEAST_OUTPUT, MOST_OUTPUT_FILES};
use crate::model::{
    Capability, Configuration, ConfigurationId, Instance, InstanceName, Limit, Node, NodeName, OutputWish, ReadyBy,
    Resource, RestartMode, Role, RunAs,
};

/// Every key of a node. `type` is another word for `role`; `state` is read by nobody.
pub(super) const KEYS: [&str; 35] = [
    "instance",
    "role",
    "type",
    "port",
    "scripts",
    "interface",
    "cpu_affinity",
    "env",
    "metrics_port",
    "state",
    "options",
    "command",
    "directory",
    "user",
    "groups",
    "umask",
    "nice",
    "limits",
    "capabilities",
    "no_new_privs",
    "env_file",
    "restart",
    "restart_delay",
    "restart_max_delay",
    "restart_stable",
    "restart_limit",
    "restart_window",
    "ready",
    "ready_within",
    "stop_grace",
    "output_max_bytes",
    "output_max_age",
    "output_keep_files",
    "output_keep_bytes",
    "output_compress",
];

/// The configuration that the sections describe, as far as they can be understood.
pub(super) fn configuration(
    sections: &[Section],
    id: ConfigurationId,
    hostname: &str,
    complaints: &mut Complaints,
) -> Configuration {
    let declared = sections.iter().find(|section| section.name == INSTANCES);
    let mut drafts: Vec<(&Section, Draft)> = sections
        .iter()
        .filter(|section| section.name != INSTANCES)
        .filter_map(|section| Some((section, Draft::read(section, complaints)?)))
        .collect();
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
    Configuration { id, instances, nodes }
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

/// `HOST:PORT`, parted at the last colon.
fn address(text: &str) -> Result<(IpAddr, u16), String> {
    let form = "write IP:PORT such as 10.0.0.5:2151 or [fd00::5]:2151, or nothing if its agent dials";
    let wrong = || format!("{} is not the address of an agent: {form}", shown(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    match host {
        Some(host) if !host.is_unspecified() => Ok((host, self::port(port)?)),
        _ => Err(wrong()),
    }
}

/// A node as its section tells it.
struct Draft {
    node: Node,
    /// Whether it says what it is for, understood or not.
    has_role: bool,
    /// Whether it says what it runs, understood or not.
    has_command: bool,
    /// Whether it says where it belongs, understood or not.
    has_instance: bool,
}

impl Draft {
    fn read(section: &Section, complaints: &mut Complaints) -> Option<Self> {
        // A stand-in lets the keys be checked all the same; a file with a complaint never becomes a configuration.
        const STAND_IN: &str = "_";
        let name = NodeName::new(section.name).or_else(|error| {
            complaints.add(section.complaint(None, error.to_string()));
            NodeName::new(STAND_IN)
        });
        let node = Node::new(name.ok()?, InstanceName::new(STAND_IN).ok()?, Role::None);
        let mut draft = Self { node, has_role: false, has_command: false, has_instance: false };
        for entry in &section.entries {
            if complaints.is_full() {
                break;
            }
            if let Err(what) = draft.take(&entry.key, entry.value.as_deref()) {
                complaints.add(section.complaint(Some(entry), what));
            }
        }
        // What is given in so many words, and is nothing, is nothing.
        draft.node.run_as.take_if(|run_as| **run_as == RunAs::default());
        draft.node.output.take_if(|output| **output == OutputWish::default());
        if !draft.has_role && !draft.has_command {
            let what =
                "has no role: add `role = worker` (or logger, manager, proxy), or the `command` of another program";
            complaints.add(section.complaint(None, what));
        }
        Some(draft)
    }

    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let node = &mut self.node;
        // zeek-client takes a known key without a value for one that is not there.
        let value = match value {
            Some(value) => value,
            None if KEYS.contains(&key) => return Ok(()),
            None => "",
        };
        match key {
            "instance" => {
                self.has_instance = true;
                node.instance = InstanceName::new(value).map_err(|error| error.to_string())?;
            }
            "role" | "type" if self.has_role => {
                return Err("`role` and `type` are two words for one key: remove one".into());
            }
            "role" | "type" => {
                self.has_role = true;
                node.role = one_of(value, "role", Role::ALL, Role::as_str)?;
            }
            "port" => node.port = Some(port(value)?),
            "metrics_port" => node.metrics_port = Some(port(value)?),
            "scripts" => {
                node.scripts = words(value)?;
                node.scripts.sort();
            }
            "interface" => node.interface = Some(value.to_owned()),
            "cpu_affinity" => node.cpu_affinity = Some(number(value)?),
            "env" => node.env = assignments(value)?,
            "options" => node.options = assignments(value)?,
            "command" => {
                // One without a word is as good as none.
                self.has_command = !value.trim().is_empty();
                node.command = words(value)?;
            }
            "directory" => node.directory = Some(value.to_owned()),
            "user" => node.user = Some(value.to_owned()),
            "groups" => run_as(node).groups = words(value)?,
            "umask" => run_as(node).umask = Some(umask(value)?),
            "nice" => run_as(node).nice = Some(nice(value)?),
            "limits" => run_as(node).limits = limits(value)?,
            "capabilities" => run_as(node).capabilities = capabilities(value)?,
            "no_new_privs" => run_as(node).no_new_privs = yes_or_no(value)?,
            "env_file" => run_as(node).env_file = Some(value.to_owned()),
            "restart" => {
                let modes = [RestartMode::Always, RestartMode::OnFailure, RestartMode::Never];
                node.restart.mode = one_of(value, "restart mode", modes, mode)?;
            }
            "restart_delay" => node.restart.delay = time(value)?,
            "restart_max_delay" => node.restart.max_delay = time(value)?,
            "restart_stable" => node.restart.stable = time(value)?,
            "restart_limit" => node.restart.limit = number(value)?,
            "restart_window" => node.restart.window = time(value)?,
            "ready" => node.ready.by = sign(value)?,
            "ready_within" => node.ready.within = time(value)?,
            "stop_grace" => node.stop_grace = time(value)?,
            "output_max_bytes" => output(node).max_bytes = Some(within(value, LEAST_OUTPUT, u64::MAX)?),
            "output_max_age" => output(node).max_age = Some(time(value)?),
            "output_keep_files" => output(node).keep_files = Some(within(value, 1, MOST_OUTPUT_FILES)?),
            "output_keep_bytes" => output(node).keep_bytes = Some(within(value, 0, u64::MAX)?),
            "output_compress" => output(node).compress = Some(yes_or_no(value)?),
            "state" => {}
            _ => return Err(format!("is not a key of a node: {}", instead(key, KEYS))),
        }
        Ok(())
    }
}

fn run_as(node: &mut Node) -> &mut RunAs {
    node.run_as.get_or_insert_default()
}

fn output(node: &mut Node) -> &mut OutputWish {
    node.output.get_or_insert_default()
}

fn within<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    let wrong = || format!("{} is not a number from {least} to {most}", shown(text));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
}

fn umask(text: &str) -> Result<u32, String> {
    let wrong = || format!("{} is no umask: write octal digits such as 027", shown(text));
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(wrong)
}

fn nice(text: &str) -> Result<i32, String> {
    let wrong = || format!("{} is no niceness: write a number from -20 to 19", shown(text));
    text.parse().ok().filter(|nice| (-20..=19).contains(nice)).ok_or_else(wrong)
}

fn limits(text: &str) -> Result<BTreeMap<Resource, Limit>, String> {
    let limit = |(name, value): (String, String)| {
        let resource = Resource::ALL.iter().find(|resource| resource.as_str() == name);
        let names = Resource::ALL.iter().map(|resource| resource.as_str());
        let wrong = || format!("{} is no resource: {}", shown(&name), instead(&name, names));
        let limit: Limit = value.parse().map_err(|error| format!("{} is no limit: {error}", shown(&value)))?;
        Ok((*resource.ok_or_else(wrong)?, limit))
    };
    assignments(text)?.into_iter().map(limit).collect()
}

fn capabilities(text: &str) -> Result<BTreeSet<Capability>, String> {
    let capability = |name: String| {
        let names = Capability::all().map(Capability::as_str);
        Capability::named(&name).ok_or_else(|| format!("{} is no capability: {}", shown(&name), instead(&name, names)))
    };
    words(text)?.into_iter().map(capability).collect()
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{} is neither: write yes or no", shown(text))),
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    words::split(text).map_err(|error| error.to_string())
}

fn assignments(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for word in words(text)? {
        let wrong = || format!("{} is not of the form NAME=VALUE", shown(&word));
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{} is set twice: remove one", shown(name)));
        }
    }
    Ok(pairs)
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{} is not a port: write a number from 1 to 65535", shown(text))),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{} is not a number from 0 to {}", shown(text), u32::MAX))
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{} is not a time ({error}): write one such as 500ms, 10s or 1m 30s", shown(text)))
}

fn sign(text: &str) -> Result<ReadyBy, String> {
    match text.split_once(char::is_whitespace) {
        Some(("settle", rest)) => time(rest.trim_start()).map(ReadyBy::Settle),
        Some(("port", rest)) => port(rest.trim_start()).map(ReadyBy::Port),
        _ => Err(format!("{} is no sign of readiness: write `settle 500ms` or `port 8080`", shown(text))),
    }
}

/// The value whose `name` the text is, in any case.
fn one_of<T: Copy, const N: usize>(
    text: &str,
    what: &str,
    values: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = values.into_iter().find(|&value| name(value).eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{} is not a {what}: {}", shown(text), instead(text, values.map(name))))
}

#[cfg(test)]
mod tests {
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
    fn a_node_has_a_role_or_a_command() {
        assert_eq!(read("[a]\ncommand = true").unwrap().nodes[0].role, Role::None);
        assert_eq!(read("[a]\ncommand = true\nrole = Worker").unwrap().nodes[0].role, Role::Worker);
        for text in ["[a]\nport = 1", "[a]\ncommand ="] {
            let got = complaints(text);
            assert!(got[0].starts_with("c.cfg:1: [a]: has no role: add `role = worker`"), "{text}: {got:?}");
        }
        let unread = ["c.cfg:2: [a] command: the quote ' is never closed"];
        assert_eq!(complaints("[a]\ncommand = 'true"), unread, "it has a command, if only it could be read");
        assert_eq!(
            complaints("[a]\nrole = worker\ntype = worker"),
            ["c.cfg:3: [a] type: `role` and `type` are two words for one key: remove one"]
        );
    }

    #[test]
    fn every_key_finds_its_field() {
        let text = "[a]\nINSTANCE = I\nrole = proxy\nport = 1\nmetrics_port = 2\nscripts = b 'a c'\ninterface = eth0\n\
                    cpu_affinity = 3\nenv = A=1 B='x=y z' C=\noptions = M::x=T\nstate = whatever\n\
                    command = sh -c 'a b'\n\
                    directory = /d\nuser = u\ngroups = g 'h i'\numask = 027\nnice = -5\n\
                    limits = nofile=10:20 core=unlimited\ncapabilities = CAP_NET_RAW net_admin\n\
                    no_new_privs = Yes\nenv_file = /e\nrestart = On-Failure\nrestart_delay = 1s\nrestart_max_delay = 2s\n\
                    restart_stable = 3s\nrestart_limit = 4\nrestart_window = 5s\nready = port 8080\n\
                    ready_within = 1m 30s\nstop_grace = 700ms\n";
        let got = read(text).unwrap().nodes;
        let text = |text: &str| text.to_owned();
        let mut want = Node::new(NodeName::new("a").unwrap(), InstanceName::new("I").unwrap(), Role::Proxy);
        (want.port, want.metrics_port, want.cpu_affinity) = (Some(1), Some(2), Some(3));
        (want.interface, want.directory, want.user) = (Some(text("eth0")), Some(text("/d")), Some(text("u")));
        want.scripts = vec![text("a c"), text("b")];
        want.env = [("A", "1"), ("B", "x=y z"), ("C", "")].map(|(name, value)| (text(name), text(value))).into();
        want.options = [(text("M::x"), text("T"))].into();
        want.command = vec![text("sh"), text("-c"), text("a b")];
        want.run_as = Some(Box::new(RunAs {
            groups: vec![text("g"), text("h i")],
            umask: Some(0o27),
            nice: Some(-5),
            limits: [
                (Resource::Nofile, Limit { soft: Some(10), hard: Some(20) }),
                (Resource::Core, Limit { soft: None, hard: None }),
            ]
            .into(),
            capabilities: ["net_admin", "net_raw"].map(|name| Capability::named(name).unwrap()).into(),
            no_new_privs: true,
            env_file: Some(text("/e")),
        }));
        want.restart = crate::model::RestartPolicy {
            mode: RestartMode::OnFailure,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(2),
            stable: Duration::from_secs(3),
            limit: 4,
            window: Duration::from_secs(5),
        };
        (want.ready.by, want.ready.within) = (ReadyBy::Port(8080), Duration::from_secs(90));
        want.stop_grace = Duration::from_millis(700);
        assert_eq!(got, [want.into()]);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_the_way_out() {
        for (line, want) in [
            ("cpu_affinity = -1", "`-1` is not a number from 0 to 4294967295"),
            ("stop_grace = 10", "write one such as 500ms, 10s or 1m 30s"),
            ("ready = soon", "write `settle 500ms` or `port 8080`"),
            ("ready = port 0", "write a number from 1 to 65535"),
            ("restart = alwys", "`alwys` is not a restart mode: did you mean `always`?"),
            ("env = A=1 A=2", "`A` is set twice: remove one"),
            ("env = =2", "`=2` is not of the form NAME=VALUE"),
            ("command = 'sh", "the quote ' is never closed"),
            ("umask = 0888", "write octal digits such as 027"),
            ("nice = 20", "write a number from -20 to 19"),
            ("limits = nofiles=1", "`nofiles` is no resource: did you mean `nofile`?"),
            ("limits = nofile=many", "`many` is no limit: write a number or `unlimited`"),
            ("capabilities = net_rw", "`net_rw` is no capability: did you mean `net_raw`?"),
            ("no_new_privs = maybe", "`maybe` is neither: write yes or no"),
            ("instance = a/b", "instance name `a/b` may hold only letters"),
            ("port 5000", "is not a key of a node: did you mean `port`?"),
            ("interface = %", "holds a single `%`: write `%%` for a percent sign"),
        ] {
            let got = complaints(&format!("[a]\nrole = none\n{line}"));
            assert!(got.len() == 1 && got[0].starts_with("c.cfg:3: [a] ") && got[0].contains(want), "{line}: {got:?}");
        }
    }

    #[test]
    fn a_known_key_without_a_value_counts_as_absent() {
        assert_eq!(read("[a]\nrole = none\nport\nenv").unwrap(), read("[a]\nrole = none").unwrap());
    }
}

//! Sections become instances and nodes; this file knows every key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::lines::{Entry, INSTANCES, Section};
use super::render::mode;
use super::{Complaints, words, zeek};
use crate::hint::{instead, shown};
use crate::model::output::{LEAST_OUTPUT, MOST_OUTPUT_FILES};
use crate::model::{
    Capability, Configuration, ConfigurationId, Instance, InstanceName, Limit, Liveness, Node, NodeName, OutputWish,
    Probe, ProbeBy, ReadyBy, Resource, RestartMode, Role, RunAs, ZeekNode,
};

/// Every key of a node. `type` is another word for `role`; `state` is read by nobody.
pub(super) const KEYS: [&str; 48] = [
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
    "args",
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
    "files",
    "bundle",
    "memory_max",
    "cpu_max",
    "pids_max",
    "restart",
    "restart_delay",
    "restart_factor",
    "restart_max_delay",
    "restart_jitter",
    "restart_stable",
    "restart_limit",
    "restart_window",
    "ready",
    "ready_within",
    "watchdog",
    "probe",
    "probe_interval",
    "probe_timeout",
    "probe_failures",
    "stop_grace",
    "output_max_bytes",
    "output_max_age",
    "output_keep_files",
    "output_keep_bytes",
    "output_compress",
];

/// What is of one node alone, and cannot be said of a role.
const OWN_KEYS: [&str; 6] = ["instance", "role", "type", "port", "metrics_port", "state"];

/// What the section of a role begins with, before the role.
const ROLE: &str = "role ";

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
    probe: DraftOfProbe,
}

/// What a section says of a probe, in whatever order.
#[derive(Default)]
struct DraftOfProbe {
    by: Option<ProbeBy>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    failures: Option<u32>,
}

impl DraftOfProbe {
    /// The probe, if there is one; or a key that is nothing without one.
    fn put_together(self) -> Result<Option<Probe>, &'static str> {
        let Self { by, interval, timeout, failures } = self;
        let Some(by) = by else {
            let lone = [
                ("probe_interval", interval.is_some()),
                ("probe_timeout", timeout.is_some()),
                ("probe_failures", failures.is_some()),
            ];
            let lone = lone.into_iter().find(|(_, is_given)| *is_given);
            return lone.map_or(Ok(None), |(key, _)| Err(key));
        };
        let probe = Probe::new(by);
        Ok(Some(Probe {
            interval: interval.unwrap_or(probe.interval),
            timeout: timeout.unwrap_or(probe.timeout),
            failures: failures.unwrap_or(probe.failures),
            ..probe
        }))
    }
}

fn without_probe(key: &str) -> String {
    format!("has {key}, and no probe: add one, such as `probe = tcp 8080`, or remove it")
}

/// A name that lets keys be checked where there is none; a file with a complaint never becomes a configuration.
const STAND_IN: &str = "_";

impl Draft {
    fn read(section: &Section, roles: &BTreeMap<Role, &Section>, complaints: &mut Complaints) -> Option<Self> {
        let name = NodeName::new(section.name).or_else(|error| {
            complaints.add(section.complaint(None, error.to_string()));
            NodeName::new(STAND_IN)
        });
        let mut draft = Self::stand_in(name.ok()?)?;
        for entry in roles.get(&role_of(section)).into_iter().flat_map(|role| &role.entries) {
            if !OWN_KEYS.contains(&&*entry.key) {
                // What is wrong with it was said where it stands.
                let _ = draft.take(&entry.key, entry.value.as_deref());
            }
        }
        // Its own files are not what was found of its role's.
        draft.node.files.take_if(|_| section.entries.iter().any(|entry| entry.key == "files"));
        for entry in &section.entries {
            if complaints.is_full() {
                break;
            }
            if let Err(what) = draft.take(&entry.key, entry.value.as_deref()) {
                complaints.add(section.complaint(Some(entry), what));
            }
        }
        match std::mem::take(&mut draft.probe).put_together() {
            Ok(None) => {}
            Ok(Some(probe)) => liveness(&mut draft.node).probe = Some(probe),
            Err(key) if section.entries.iter().any(|entry| entry.key == key) => {
                complaints.add(section.complaint(None, without_probe(key)));
            }
            Err(_) => {} // it stands in the section of its role
        }
        // What is given in so many words, and is nothing, is nothing.
        draft.node.run_as.take_if(|run_as| **run_as == RunAs::default());
        draft.node.output.take_if(|output| **output == OutputWish::default());
        draft.node.files.take_if(|files| files.paths.is_empty() && files.bundle.is_none());
        if draft.node.files.as_ref().is_some_and(|files| files.paths.is_empty()) {
            let entry = section.entries.iter().find(|entry| entry.key == "bundle");
            let what = "has a bundle, and no files that it was made of: add `files = ...`, or remove it";
            complaints.add(section.complaint(entry, what));
        }
        draft.node.zeek.take_if(|zeek| **zeek == ZeekNode::default());
        if !draft.has_role && !draft.has_command {
            let what =
                "has no role: add `role = worker` (or logger, manager, proxy), or the `command` of another program";
            complaints.add(section.complaint(None, what));
        }
        Some(draft)
    }

    fn stand_in(name: NodeName) -> Option<Self> {
        let node = Node::new(name, InstanceName::new(STAND_IN).ok()?, Role::None);
        Some(Self { node, has_role: false, has_command: false, has_instance: false, probe: DraftOfProbe::default() })
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
            "cpu_affinity" => node.cpu_affinity = Some(parsed(value, "list of CPUs")?),
            "env" => node.env = assignments(value)?,
            "options" => node.options = assignments(value)?,
            "args" => node.zeek.get_or_insert_default().args = words(value)?,
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
            "files" => node.files.get_or_insert_default().paths = words(value)?,
            "bundle" => node.files.get_or_insert_default().bundle = Some(parsed(value, "bundle")?),
            "memory_max" => run_as(node).quotas.memory_max = Some(parsed(value, "amount of memory")?),
            "cpu_max" => run_as(node).quotas.cpu_max = Some(parsed(value, "share of a CPU")?),
            "pids_max" => run_as(node).quotas.pids_max = Some(number(value)?.into()),
            "restart" => {
                let modes = [RestartMode::Always, RestartMode::OnFailure, RestartMode::Never];
                node.restart.mode = one_of(value, "restart mode", modes, mode)?;
            }
            "restart_delay" => node.restart.delay = time(value)?,
            "restart_factor" => node.restart.factor = parsed(value, "factor")?,
            "restart_jitter" => node.restart.jitter = percent(value)?,
            "restart_max_delay" => node.restart.max_delay = time(value)?,
            "restart_stable" => node.restart.stable = time(value)?,
            "restart_limit" => node.restart.limit = number(value)?,
            "restart_window" => node.restart.window = time(value)?,
            "ready" => node.ready.by = sign(value)?,
            "ready_within" => node.ready.within = Some(time(value)?),
            "watchdog" if value == "off" => liveness(node).watchdog = Some(Duration::ZERO),
            "watchdog" => liveness(node).watchdog = Some(time(value)?),
            "probe" => self.probe.by = Some(question(value)?),
            "probe_interval" => self.probe.interval = Some(time(value)?),
            "probe_timeout" => self.probe.timeout = Some(time(value)?),
            "probe_failures" => self.probe.failures = Some(number(value)?),
            "stop_grace" => node.stop_grace = time(value)?,
            "output_max_bytes" => output(node).max_bytes = Some(within(value, LEAST_OUTPUT, u64::MAX)?),
            "output_max_age" => output(node).max_age = Some(time(value)?),
            "output_keep_files" => output(node).keep_files = Some(within(value, 1, MOST_OUTPUT_FILES)?),
            "output_keep_bytes" => output(node).keep_bytes = Some(within(value, 0, u64::MAX)?),
            "output_compress" => output(node).compress = Some(yes_or_no(value)?),
            "state" => {}
            _ if node.name.as_str() == zeek::ZEEK && zeek::KEYS.contains(&key) => {
                let what = "is a key of the section that all Zeek nodes share, and this is a node";
                return Err(format!("{what}, since it says role, instance or command: give the node another name"));
            }
            _ => return Err(format!("is not a key of a node: {}", instead(key, KEYS))),
        }
        Ok(())
    }
}

/// What the section says it is for, as far as that can be understood.
fn role_of(section: &Section) -> Role {
    let said = section.entries.iter().find(|entry| matches!(&*entry.key, "role" | "type"));
    let said = said.and_then(|entry| entry.value.as_deref());
    said.and_then(|said| one_of(said, "role", Role::ALL, Role::as_str).ok()).unwrap_or(Role::None)
}

fn run_as(node: &mut Node) -> &mut RunAs {
    node.run_as.get_or_insert_default()
}

fn liveness(node: &mut Node) -> &mut Liveness {
    node.liveness.get_or_insert_default()
}

fn output(node: &mut Node) -> &mut OutputWish {
    node.output.get_or_insert_default()
}

fn within<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    let wrong = || format!("{} is not a number from {least} to {most}", shown(text));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
}

pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{} is no {what}: {error}", shown(text)))
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    number.filter(|number| *number <= 100).ok_or_else(|| format!("{} is not from 0% to 100%", shown(text)))
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

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{} is neither: write yes or no", shown(text))),
    }
}

pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    words::split(text).map_err(|error| error.to_string())
}

pub(super) fn assignments(text: &str) -> Result<BTreeMap<String, String>, String> {
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

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{} is not a port: write a number from 1 to 65535", shown(text))),
    }
}

pub(super) fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{} is not a number from 0 to {}", shown(text), u32::MAX))
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{} is not a time ({error}): write one such as 500ms, 10s or 1m 30s", shown(text)))
}

fn sign(text: &str) -> Result<ReadyBy, String> {
    match kind(text) {
        ("notify", "") => Ok(ReadyBy::Notify),
        ("zeek", "") => Ok(ReadyBy::Zeek),
        ("settle", rest) if !rest.is_empty() => time(rest).map(ReadyBy::Settle),
        ("tcp" | "port", rest) if !rest.is_empty() => Ok(match place(rest)? {
            Place::Port(port) => ReadyBy::Port(port),
            Place::Address(address) => ReadyBy::Tcp(address),
        }),
        _ => {
            let signs = "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`";
            Err(format!("{} is no sign of readiness: {signs}", shown(text)))
        }
    }
}

fn question(text: &str) -> Result<ProbeBy, String> {
    match kind(text) {
        ("tcp" | "port", rest) if !rest.is_empty() => Ok(match place(rest)? {
            Place::Port(port) => ProbeBy::Port(port),
            Place::Address(address) => ProbeBy::Tcp(address),
        }),
        ("exec", rest) if !rest.is_empty() => words(rest).map(ProbeBy::Exec),
        _ => Err(format!("{} is no probe: write `tcp 8080`, or `exec` and a command", shown(text))),
    }
}

/// The first word, and what is behind it and the space or colon that ends it.
fn kind(text: &str) -> (&str, &str) {
    let (kind, rest) = text.split_once(|c: char| c.is_whitespace() || c == ':').unwrap_or((text, ""));
    (kind, rest.trim_start())
}

enum Place {
    Port(u16),
    Address(SocketAddr),
}

/// A port of the machine itself, or one of an address.
fn place(text: &str) -> Result<Place, String> {
    if text.chars().all(|c| c.is_ascii_digit()) {
        return port(text).map(Place::Port);
    }
    let wrong = || format!("{} is no place to connect to: write a port, or IP:PORT such as [::1]:8080", shown(text));
    text.parse().map(Place::Address).map_err(|_| wrong())
}

/// The value whose `name` the text is, in any case.
pub(super) fn one_of<T: Copy, const N: usize>(
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
                    cpu_affinity = 0-1,3\nenv = A=1 B='x=y z' C=\noptions = M::x=T\nargs = -C 'a b'\nstate = whatever\n\
                    command = sh -c 'a b'\n\
                    directory = /d\nuser = u\ngroups = g 'h i'\numask = 027\nnice = -5\n\
                    limits = nofile=10:20 core=unlimited\ncapabilities = CAP_NET_RAW net_admin\n\
                    no_new_privs = Yes\nenv_file = /e\nmemory_max = 2G\ncpu_max = 150%%\npids_max = 64\n\
                    restart = On-Failure\nrestart_delay = 1s\nrestart_factor = 1.5\nrestart_jitter = 25%%\nrestart_max_delay = 2s\n\
                    restart_stable = 3s\nrestart_limit = 4\nrestart_window = 5s\nready = tcp 8080\n\
                    ready_within = 1m 30s\nprobe_failures = 2\nprobe = exec test -e '/a b'\nprobe_interval = 6s\n\
                    probe_timeout = 7s\nwatchdog = 8s\nstop_grace = 700ms\n";
        let got = read(text).unwrap().nodes;
        let text = |text: &str| text.to_owned();
        let mut want = Node::new(NodeName::new("a").unwrap(), InstanceName::new("I").unwrap(), Role::Proxy);
        (want.port, want.metrics_port) = (Some(1), Some(2));
        want.cpu_affinity = Some(crate::model::Cpus([0, 1, 3].into()));
        (want.interface, want.directory, want.user) = (Some(text("eth0")), Some(text("/d")), Some(text("u")));
        want.scripts = vec![text("a c"), text("b")];
        want.env = [("A", "1"), ("B", "x=y z"), ("C", "")].map(|(name, value)| (text(name), text(value))).into();
        want.options = [(text("M::x"), text("T"))].into();
        want.zeek = Some(Box::new(ZeekNode { args: vec![text("-C"), text("a b")], knows: None }));
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
            quotas: crate::model::Quotas {
                memory_max: Some(crate::model::Bytes(2 << 30)),
                cpu_max: Some(crate::model::CpuShare(150)),
                pids_max: Some(64),
            },
        }));
        want.restart = crate::model::RestartPolicy {
            mode: RestartMode::OnFailure,
            delay: Duration::from_secs(1),
            factor: "1.5".parse().unwrap(),
            max_delay: Duration::from_secs(2),
            jitter: 25,
            stable: Duration::from_secs(3),
            limit: 4,
            window: Duration::from_secs(5),
        };
        (want.ready.by, want.ready.within) = (ReadyBy::Port(8080), Some(Duration::from_secs(90)));
        let by = ProbeBy::Exec(["test", "-e", "/a b"].map(text).into());
        let probe = Probe { by, interval: Duration::from_secs(6), timeout: Duration::from_secs(7), failures: 2 };
        want.liveness = Some(Box::new(Liveness { watchdog: Some(Duration::from_secs(8)), probe: Some(probe) }));
        want.stop_grace = Duration::from_millis(700);
        assert_eq!(got, [want.into()]);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_the_way_out() {
        for (line, want) in [
            ("cpu_affinity = -1", "`-1` is no list of CPUs: write numbers and ranges such as 0-3,8"),
            ("cpu_affinity = 0-1024", "`0-1024` is no list of CPUs: CPU 1024 is beyond the last there can be, 1023"),
            ("memory_max = 2GB", "`2GB` is no amount of memory: write bytes, such as 2G, 512M or 1048576"),
            ("cpu_max = 2", "`2` is no share of a CPU: write hundredths of one CPU's time, such as 50% or 150%"),
            ("pids_max = many", "`many` is not a number from 0 to 4294967295"),
            ("restart_factor = 0.5", "`0.5` is no factor: write a number from 1 to 100"),
            ("restart_jitter = 101%%", "`101%` is not from 0% to 100%"),
            ("stop_grace = 10", "write one such as 500ms, 10s or 1m 30s"),
            ("ready = soon", "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`"),
            ("ready = tcp 0", "write a number from 1 to 65535"),
            ("ready = notify me", "write `zeek`, `notify`, `tcp 8080` or `settle 500ms`"),
            ("ready = tcp host:80", "`host:80` is no place to connect to: write a port, or IP:PORT"),
            ("probe = http://x", "`http://x` is no probe: write `tcp 8080`, or `exec` and a command"),
            ("probe = exec", "`exec` is no probe"),
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
    fn signs_and_probes_are_written_with_a_space_or_a_colon() {
        let got = |line: &str| {
            let configuration = read(&format!("[a]\nrole = none\n{line}")).unwrap();
            let node = &configuration.nodes[0];
            let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.clone());
            (node.ready.by.clone(), probe.map(|probe| probe.by))
        };
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        for line in ["ready = tcp 80", "ready = tcp:80", "ready = tcp: 80", "ready = port 80"] {
            assert_eq!(got(line).0, ReadyBy::Port(80), "{line}");
        }
        assert_eq!(got("ready = notify").0, ReadyBy::Notify);
        assert_eq!(got("ready = tcp [::1]:80").0, ReadyBy::Tcp(address));
        assert_eq!(got("probe = tcp:[::1]:80").1, Some(ProbeBy::Tcp(address)));
        assert_eq!(got("probe = tcp 80").1, Some(ProbeBy::Port(80)));
        assert_eq!(got("probe = exec: a 'b c'").1, Some(ProbeBy::Exec(vec!["a".into(), "b c".into()])));
    }

    #[test]
    fn what_belongs_to_a_probe_is_nothing_without_one() {
        assert_eq!(
            complaints("[a]\nrole = none\nprobe_timeout = 1s"),
            ["c.cfg:1: [a]: has probe_timeout, and no probe: add one, such as `probe = tcp 8080`, or remove it"]
        );
        // What a role says is complained of once, and where it stands, whoever is of the role.
        let role = "[role worker]\nprobe_interval = 9s\n";
        let want = "c.cfg:1: [role worker]: has probe_interval, and no probe: add one, such as `probe = tcp 8080`, or remove it";
        for nodes in ["[a]\nrole = manager", "[a]\nrole = worker\n[b]\nrole = worker"] {
            assert_eq!(complaints(&format!("{role}{nodes}")), [want], "{nodes}");
        }
        let own = read(&format!("{role}[a]\nrole = worker\nprobe = tcp 80")).unwrap();
        let probe = own.nodes[0].liveness.as_ref().and_then(|liveness| liveness.probe.clone()).unwrap();
        assert_eq!(probe.interval, Duration::from_secs(9), "it holds for a probe of the node's own");
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
    fn files_and_what_was_found_of_them_are_read_and_written_as_they_are() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let text = format!(
            "[role none]\nfiles = site 'a b'\nbundle = {id}\n[a]\ncommand = true\n[b]\ncommand = true\nfiles = list\n\
             [c]\ncommand = true\nfiles =\n[d]\ncommand = true\nbundle = {id}\nfiles = list\n"
        );
        let configuration = read(&text).unwrap();
        let files = |at: usize| {
            let files = configuration.nodes[at].files.as_ref();
            files.map(|files| (files.paths.join(","), files.bundle.map(|bundle| bundle.to_string())))
        };
        assert_eq!(files(0), Some(("site,a b".into(), Some(id.clone()))));
        assert_eq!(files(1), Some(("list".into(), None)), "what was found of others is not what it has");
        assert_eq!(files(2), None);
        assert_eq!(files(3), Some(("list".into(), Some(id.clone()))));
        let again = super::super::render(&configuration);
        assert_eq!(read(&again).unwrap().nodes, configuration.nodes);
        assert_eq!(
            complaints(&format!("[a]\ncommand = true\nbundle = {id}\n[b]\ncommand = true\nfiles = x\nbundle = x\n")),
            [
                "c.cfg:3: [a] bundle: has a bundle, and no files that it was made of: add `files = ...`, or remove it",
                "c.cfg:7: [b] bundle: `x` is no bundle: write `sha256:` and 64 hexadecimal digits, in lower case",
            ]
        );
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

    #[test]
    fn a_known_key_without_a_value_counts_as_absent() {
        assert_eq!(read("[a]\nrole = none\nport\nenv").unwrap(), read("[a]\nrole = none").unwrap());
    }
}

//! `zeek.conf`: one for a cluster on one machine, a HOST.zeek.conf for each of several.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::net::IpAddr;

use super::{Export, ExportError, ExportFile, checked, host};
use crate::import::{self, HostFile, Source};
use crate::model::cluster_file::join_words;
use crate::model::{ArchivePlace, ArchiveRules, Backend, Configuration, InstanceName, Node, Role, RunAs, Zeek};
use crate::plan::zeek::template::unescape;

/// What zeek-archiver has its logs in, below the prefix of an installation.
const LOGS: &str = "/var/logs/zeek";

/// Writes it.
pub fn write(configuration: &Configuration) -> Result<Export, ExportError> {
    let mut nodes: BTreeMap<&InstanceName, Vec<&Node>> =
        configuration.instances.iter().map(|instance| (&instance.name, Vec::new())).collect();
    for node in configuration.nodes.iter().filter(|node| node.is_zeek()) {
        nodes.entry(&node.instance).or_default().push(node);
    }
    let (default, is_one_of_many) = (Zeek::default(), nodes.len() > 1);
    let zeek = configuration.zeek.as_deref().unwrap_or(&default);
    let files: Vec<ExportFile> = nodes
        .iter()
        .map(|(instance, nodes)| {
            let host = host(instance.as_str());
            let name = if is_one_of_many { format!("{host}.zeek.conf") } else { "zeek.conf".to_owned() };
            let machine =
                Machine { host, is_one_of_many, nodes, zeek, address: zeek.addresses.get(*instance).copied() };
            ExportFile { name, text: machine.text() }
        })
        .collect();
    let hosts = nodes.keys().map(|instance| host(instance.as_str()));
    let read: Vec<HostFile> = files
        .iter()
        .zip(hosts.clone())
        .map(|(file, host)| HostFile {
            host: is_one_of_many.then(|| host.to_owned()),
            source: Source { name: file.name.clone(), bytes: file.text.clone().into() },
        })
        .collect();
    let hostname = hosts.into_iter().next().unwrap_or("localhost");
    let said = import::zeek_conf(&read, configuration.id.clone(), hostname);
    checked(configuration, files, said, "zeek.conf")
}

struct Machine<'a> {
    host: &'a str,
    is_one_of_many: bool,
    nodes: &'a [&'a Node],
    zeek: &'a Zeek,
    address: Option<IpAddr>,
}

/// The workers of a section, sorted by their number.
type Group<'a> = Vec<(usize, &'a Node)>;

impl Machine<'_> {
    fn text(&self) -> String {
        let prefix = self.prefix();
        let groups = self.groups(&prefix);
        let is_flat = groups.len() <= 1 && groups.keys().all(|section| section.is_none());
        let mut text = String::new();
        if !is_flat {
            line(&mut text, "[zeek]");
        }
        self.whole(&mut text, &prefix);
        let mut before = 0;
        for (section, workers) in &groups {
            if !is_flat {
                // A section has to have a name; the nodes of one that had none are called otherwise then.
                line(&mut text, format_args!("\n[interface {}]", section.as_deref().unwrap_or("workers")));
            }
            self.workers(&mut text, section.as_deref(), workers, before);
            before += workers.len();
        }
        text
    }

    /// What stands in front of the names of nodes, without its dash.
    fn prefix(&self) -> String {
        let prefix = |node: &&Node| {
            let word = match node.role {
                Role::Logger => "logger-",
                Role::Proxy => "proxy-",
                Role::Worker => "worker-",
                Role::Manager | Role::None => return None,
            };
            let at = node.name.as_str().find(word)?;
            Some(node.name.as_str()[..at].trim_end_matches('-').to_owned())
        };
        let usual = if self.is_one_of_many { self.host.to_owned() } else { String::new() };
        self.nodes.iter().find_map(prefix).unwrap_or(usual)
    }

    fn groups(&self, prefix: &str) -> BTreeMap<Option<String>, Group<'_>> {
        let before = if prefix.is_empty() { "worker-".to_owned() } else { format!("{prefix}-worker-") };
        let mut groups: BTreeMap<Option<String>, Group<'_>> = BTreeMap::new();
        for node in self.of(Role::Worker) {
            let rest = node.name.as_str().strip_prefix(&before).unwrap_or(node.name.as_str());
            let (section, number) = match rest.rsplit_once('-') {
                Some((section, number)) => (Some(section.to_owned()), number),
                None => (None, rest),
            };
            let number = number.parse().ok();
            let group = groups.entry(section.filter(|_| number.is_some())).or_default();
            let number = number.unwrap_or(group.len() + 1);
            group.push((number, node));
        }
        groups.values_mut().for_each(|group| group.sort_by_key(|(number, node)| (*number, &node.name)));
        groups
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().copied().filter(move |node| node.role == role)
    }

    /// The keys of all nodes, and of each kind but workers.
    fn whole(&self, text: &mut String, prefix: &str) {
        let (zeek, default) = (self.zeek, Zeek::default());
        let count = |role| self.of(role).count();
        number(text, "manager", count(Role::Manager));
        number(text, "loggers", count(Role::Logger));
        number(text, "proxies", count(Role::Proxy));
        if zeek.scripts != default.scripts || !zeek.args.is_empty() {
            key(text, "args", join_words(zeek.scripts.iter().chain(&zeek.args)));
        }
        variables(text, "env", &plain(&zeek.env));
        for (name, kind) in [("manager", Role::Manager), ("logger", Role::Logger), ("proxy", Role::Proxy)] {
            let Some(first) = self.of(kind).next() else { continue };
            of_a_kind(text, name, first);
            variables(text, &format!("{name}_env"), &plain(&first.env));
            if let Some(cpus) = &first.cpu_affinity {
                key(text, &format!("{name}_cpu_set"), cpus);
            }
        }
        if let Some(first) = self.nodes.first() {
            if let Some(user) = first.user.as_deref().filter(|user| *user != "zeek") {
                key(text, "user", user);
            }
            let delay = first.restart.delay;
            if delay != std::time::Duration::from_secs(1) && delay.subsec_nanos() == 0 {
                key(text, "restart_interval_sec", delay.as_secs());
            }
        }
        for (name, directories) in [("ext_path", &zeek.path), ("ext_zeek_path", &zeek.script_path)] {
            if !directories.is_empty() {
                key(text, name, directories.join(":"));
            }
        }
        match zeek.backend {
            Backend::Broker => key(text, "cluster_backend_args", "frameworks/cluster/backend/broker"),
            // By itself it has the hub on this machine alone.
            Backend::ZeroMq | Backend::Auto if self.is_one_of_many => {
                key(text, "cluster_backend_args", "misc/zeromq-multi-host-auto-setup");
            }
            Backend::ZeroMq | Backend::Auto => {}
        }
        let lowest = |port: fn(&Node) -> Option<u16>| self.nodes.iter().filter_map(|node| port(node)).min();
        if let Some(port) = zeek.port.or_else(|| lowest(|node| node.port)).filter(|port| *port != 27_760) {
            key(text, "port", port);
        }
        let metrics = zeek.metrics_port.or_else(|| lowest(|node| node.metrics_port));
        if let Some(port) = metrics.filter(|port| *port != 9991) {
            key(text, "metrics_port", port);
        }
        match self.address {
            Some(IpAddr::V4(address)) => key(text, "address", address),
            Some(IpAddr::V6(address)) => key(text, "address", format_args!("[{address}]")),
            None => {}
        }
        if prefix != if self.is_one_of_many { self.host } else { "" } {
            key(text, "cluster_node_prefix", prefix);
        }
        self.archive(text);
    }

    fn archive(&self, text: &mut String) {
        match &self.zeek.archive.place {
            ArchivePlace::Usual => {}
            ArchivePlace::Nowhere => key(text, "archiver", 0),
            ArchivePlace::At(path) => {
                if let Some(base) = path.strip_suffix(LOGS) {
                    key(text, "base_dir", base);
                }
            }
        }
        let (rules, default) = (&self.zeek.archive, ArchiveRules::default());
        let by_gzip = ["gzip".to_owned()];
        let command = if rules.compressor.is_empty() { &by_gzip[..] } else { &rules.compressor };
        if !rules.compress {
            key(text, "archiver_args", "--compress=");
        } else if (&rules.compressor, &rules.extension) != (&default.compressor, &default.extension) {
            let how = format!("--compress={},{}", rules.extension, join_words(command));
            key(text, "archiver_args", join_words(&[how]));
        }
    }

    /// The keys of the workers of a section, `before` which so many others of the machine stand.
    fn workers(&self, text: &mut String, section: Option<&str>, workers: &Group, before: usize) {
        let Some((_, first)) = workers.first() else { return };
        let worker_cpu = |node: &Node| node.cpu_affinity.as_ref().and_then(|cpus| cpus.0.first().copied());
        let values: Vec<BTreeMap<&str, String>> = workers
            .iter()
            .enumerate()
            .map(|(at, (_, node))| {
                let index = |number: usize| number.to_string();
                let mut values = BTreeMap::from([
                    ("worker_index", index(at + 1)),
                    ("worker_index0", index(at)),
                    ("host_worker_index", index(before + at + 1)),
                    ("host_worker_index0", index(before + at)),
                ]);
                values.extend(section.map(|section| ("interface_section_name", section.to_owned())));
                values.extend(worker_cpu(node).map(|cpu| ("worker_cpu", cpu.to_string())));
                values
            })
            .collect();
        let template = |value: fn(&Node, &str) -> Option<String>, name: &str| {
            let all: Vec<Option<String>> = workers.iter().map(|(_, node)| value(node, name)).collect();
            let first = all.first().cloned().flatten().unwrap_or_default();
            let all: Vec<String> = all.into_iter().map(Option::unwrap_or_default).collect();
            generalised(&first, &all, &values)
        };
        key(text, "interface", template(|node, _| node.interface.clone(), ""));
        key(text, "workers", workers.len());
        of_a_kind(text, "worker", first);
        let env = |name: &String| (name.clone(), template(|node, name| node.env.get(name).cloned(), name));
        variables(text, "worker_env", &first.env.keys().map(env).collect());
        if let Some(cpu) = worker_cpu(first) {
            // Entries count from the first worker of the machine on.
            let skipped = std::iter::repeat_n(cpu, before);
            let own = workers.iter().map(|(_, node)| worker_cpu(node).unwrap_or(cpu));
            let list: Vec<String> = skipped.chain(own).map(|cpu| cpu.to_string()).collect();
            key(text, "workers_cpu_list", list.join(","));
        }
    }
}

/// Arguments, niceness and memory of a kind, as its first node has them.
fn of_a_kind(text: &mut String, kind: &str, first: &Node) {
    if !first.zeek_args().is_empty() {
        key(text, &format!("{kind}_args"), join_words(first.zeek_args()));
    }
    let nothing = RunAs::default();
    let run_as = first.run_as.as_deref().unwrap_or(&nothing);
    if let Some(nice) = run_as.nice {
        key(text, &format!("{kind}_nice"), nice);
    }
    if let Some(bytes) = run_as.quotas.memory_max {
        key(text, &format!("{kind}_memory_max"), bytes);
    }
}

/// One text for all workers: the same for each, or with a variable where they differ; else that of the first.
fn generalised(first: &str, all: &[String], values: &[BTreeMap<&str, String>]) -> String {
    if all.iter().all(|one| one == first) {
        return escaped(first);
    }
    let Some(of_first) = values.first() else { return escaped(first) };
    for (name, value) in of_first.iter().filter(|(_, value)| !value.is_empty()) {
        for (at, _) in first.match_indices(value.as_str()) {
            let (before, behind) = (&first[..at], &first[at + value.len()..]);
            let fits = |(one, values): (&String, &BTreeMap<&str, String>)| {
                values.get(name).is_some_and(|value| *one == format!("{before}{value}{behind}"))
            };
            if all.iter().zip(values).all(fits) {
                return format!("{}${{{name}}}{}", escaped(before), escaped(behind));
            }
        }
    }
    escaped(first)
}

/// What would begin a variable stands for itself, unless it is one here, too.
fn escaped(text: &str) -> String {
    const KNOWN: [&str; 5] =
        ["worker_index}", "worker_index0}", "host_worker_index}", "host_worker_index0}", "worker_cpu}"];
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_known = KNOWN.iter().any(|known| part.starts_with(known)) && !whole.ends_with('\\');
        let begins = if is_known || whole.ends_with('\\') { "${" } else { "\\${" };
        whole.push_str(begins);
        whole.push_str(part);
    }
    whole
}

/// Of nodes of which Zeek fills no variables in.
fn plain(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.iter().map(|(name, value)| (name.clone(), unescape(value))).collect()
}

fn variables(text: &mut String, name: &str, pairs: &BTreeMap<String, String>) {
    if !pairs.is_empty() {
        line(text, format_args!("{name}="));
        pairs.iter().for_each(|(name, value)| line(text, format_args!("  {name}={value}")));
    }
}

fn number(text: &mut String, name: &str, count: usize) {
    if count > 0 {
        key(text, name, count);
    }
}

fn key(text: &mut String, name: &str, value: impl Display) {
    line(text, format_args!("{name}={value}"));
}

fn line(text: &mut String, line: impl Display) {
    let _ = writeln!(text, "{line}"); // writing to a String cannot fail
}

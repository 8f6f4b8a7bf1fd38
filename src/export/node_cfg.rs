//! zeekctl's `node.cfg`, `zeekctl.cfg` and `networks.cfg`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use super::{Export, ExportError, ExportFile, checked, host};
use crate::import::{self, Source, ZeekctlFiles};
use crate::model::cluster_file::join_words;
use crate::model::{ArchivePlace, Backend, Configuration, Encrypt, InstanceName, Limit, Node, Resource, Role, Zeek};
use crate::plan::zeek::template::unescape;

const AF_PACKET: &str = "af_packet::";
const OF_AF_PACKET: &str = "AF_Packet::";
/// What SaveTraces adds to the command line of workers.
const TRACES: [&str; 2] = ["-w", "trace.pcap"];
/// Options of Zeek that zeekctl has keys for.
const OPTIONS: [(&str, &str); 9] = [
    ("Notice::sendmail", "SendMail"),
    ("Notice::mail_subject_prefix", "MailSubjectPrefix"),
    ("Notice::reply_to", "MailReplyTo"),
    ("Notice::mail_dest", "MailTo"),
    ("Notice::mail_from", "MailFrom"),
    ("Notice::mail_dest_pretty_printed", "MailAlarmsTo"),
    ("Broker::table_store_db_directory", "BrokerDBDir"),
    ("FileExtract::prefix", "FileExtractDir"),
    ("Cluster::default_store_dir", "DefaultStoreDir"),
];

/// Writes them.
pub fn write(configuration: &Configuration) -> Result<Export, ExportError> {
    let default = Zeek::default();
    let zeek = configuration.zeek.as_deref().unwrap_or(&default);
    let nodes: Vec<&Node> = configuration.nodes.iter().map(|node| &**node).filter(|node| node.is_zeek()).collect();
    let mut instances: Vec<&InstanceName> = nodes.iter().map(|node| &node.instance).collect();
    instances.sort();
    instances.dedup();
    let machines = Machines { is_alone: instances.len() <= 1, zeek };
    let hostname = instances.first().map_or("localhost", |instance| host(instance.as_str()));
    let has_traces = saves_traces(&nodes);
    let files = [
        ("node.cfg", sections(&nodes, &machines, has_traces)),
        ("zeekctl.cfg", options(zeek, &nodes, has_traces)),
        ("networks.cfg", zeek.networks.iter().map(|network| format!("{network}\n")).collect()),
    ];
    let [of_nodes, of_options, of_networks] =
        files.clone().map(|(name, text)| Source { name: name.into(), bytes: text.into() });
    let read = ZeekctlFiles { nodes: of_nodes, options: Some(of_options), networks: Some(of_networks) };
    let said = import::zeekctl(&read, configuration.id.clone(), hostname);
    let files = files.into_iter().map(|(name, text)| ExportFile { name: name.into(), text }).collect();
    checked(configuration, files, said, "zeekctl")
}

struct Machines<'a> {
    is_alone: bool,
    zeek: &'a Zeek,
}

impl Machines<'_> {
    fn host(&self, instance: &InstanceName) -> String {
        let name = host(instance.as_str());
        match self.zeek.addresses.get(instance) {
            Some(address) if address.to_string() == name => name.to_owned(),
            None if self.is_alone => "localhost".to_owned(),
            _ => name.to_owned(),
        }
    }
}

fn saves_traces(nodes: &[&Node]) -> bool {
    let mut workers = nodes.iter().filter(|node| node.role == Role::Worker).peekable();
    workers.peek().is_some() && workers.all(|node| node.zeek_args().starts_with(&TRACES.map(str::to_owned)))
}

/// One section a node, or one for all processes that read an interface through AF_PACKET together.
fn sections(nodes: &[&Node], machines: &Machines, has_traces: bool) -> String {
    let mut text = String::new();
    let mut done = Vec::new();
    for node in nodes {
        if done.contains(&&node.name) {
            continue;
        }
        let family = family(node, nodes);
        let name = match family.first() {
            Some(_) => node.name.as_str().rsplit_once('-').map_or(node.name.as_str(), |(base, _)| base),
            None => node.name.as_str(),
        };
        section(&mut text, name, node, &family, machines, has_traces);
        done.extend(family.iter().map(|node| &node.name));
    }
    text
}

/// The processes NAME-1, NAME-2 … to which this one belongs, if they differ in name and processor alone; else none.
fn family<'a>(node: &Node, nodes: &[&'a Node]) -> Vec<&'a Node> {
    let of_af_packet = node.interface.as_deref().is_some_and(|interface| interface.starts_with(AF_PACKET));
    let Some((base, _)) = node.name.as_str().rsplit_once('-').filter(|_| node.role == Role::Worker && of_af_packet)
    else {
        return Vec::new();
    };
    let alike = |other: &Node| {
        let (name, cpu_affinity) = (node.name.clone(), node.cpu_affinity.clone());
        let (port, metrics_port) = (node.port, node.metrics_port);
        Node { name, cpu_affinity, port, metrics_port, ..other.clone() } == *node
    };
    let named = |number: usize| {
        let name = format!("{base}-{number}");
        nodes.iter().copied().find(|other| other.name.as_str() == name && alike(other))
    };
    let family: Vec<&Node> = (1..).map_while(named).collect();
    let is_whole = family.iter().any(|member| member.name == node.name)
        && family.iter().all(|member| member.cpu_affinity.is_some() == node.cpu_affinity.is_some());
    if is_whole { family } else { Vec::new() }
}

fn section(text: &mut String, name: &str, node: &Node, family: &[&Node], machines: &Machines, has_traces: bool) {
    line(text, format_args!("[{name}]"));
    let kind = match node.role {
        Role::None => "standalone",
        role => role.as_str(),
    };
    key(text, "type", kind);
    key(text, "host", machines.host(&node.instance));
    let bare = |interface: &str| match family {
        [] => interface.to_owned(),
        _ => interface.strip_prefix(AF_PACKET).unwrap_or(interface).to_owned(),
    };
    if let Some(interface) = &node.interface {
        key(text, "interface", escaped(&bare(interface)));
    }
    let cpu = |node: &Node| node.cpu_affinity.as_ref().and_then(|cpus| cpus.0.first().map(ToString::to_string));
    let cpus: Vec<String> = match family {
        [] => cpu(node).into_iter().collect(),
        family => family.iter().filter_map(|member| cpu(member)).collect(),
    };
    if !family.is_empty() {
        key(text, "lb_method", "af_packet");
        key(text, "lb_procs", family.len());
        for (option, value) in &node.options {
            if let Some(name) = option.strip_prefix(OF_AF_PACKET) {
                key(text, &format!("af_packet_{name}"), escaped(value));
            }
        }
    }
    if !cpus.is_empty() {
        key(text, "pin_cpus", cpus.join(","));
    }
    if let Some(list) = variables(&node.env) {
        key(text, "env_vars", escaped(&list));
    }
    let args = node.zeek_args();
    let args = if has_traces && node.role == Role::Worker { &args[TRACES.len()..] } else { args };
    if !args.is_empty() {
        key(text, "aux_scripts", escaped(&join_words(args)));
    }
    text.push('\n');
}

/// `A=1,B=2`; what holds a comma cannot be said. `None` for no variables.
fn variables(env: &BTreeMap<String, String>) -> Option<String> {
    let pairs = env.iter().filter(|(name, value)| !name.contains(',') && !value.contains(','));
    let list: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", unescape(value))).collect();
    (!list.is_empty()).then(|| list.join(","))
}

fn options(zeek: &Zeek, nodes: &[&Node], has_traces: bool) -> String {
    let (mut text, default) = (String::new(), Zeek::default());
    match zeek.backend {
        Backend::Auto => {}
        Backend::Broker => key(&mut text, "ClusterBackend", "Broker"),
        Backend::ZeroMq => key(&mut text, "ClusterBackend", "ZeroMQ"),
    }
    let lowest = |port: fn(&Node) -> Option<u16>| nodes.iter().filter_map(|node| port(node)).min();
    // As zeekctl has it, where the configuration is silent.
    key(&mut text, "ZeekPort", zeek.port.or_else(|| lowest(|node| node.port)).unwrap_or(27_760));
    key(&mut text, "MetricsPort", zeek.metrics_port.or_else(|| lowest(|node| node.metrics_port)).unwrap_or(9991));
    if let Some(address) = zeek.metrics_address {
        key(&mut text, "MetricsAddress", address);
    }
    if zeek.scripts != default.scripts {
        key(&mut text, "SitePolicyScripts", zeek.scripts.join(" "));
    }
    for (name, words, by) in [("Prefixes", &zeek.prefixes, ":"), ("SitePolicyPath", &zeek.script_path, ":")] {
        if name == "Prefixes" || !words.is_empty() {
            key(&mut text, name, words.join(by));
        }
    }
    if !zeek.args.is_empty() {
        key(&mut text, "ZeekArgs", join_words(&zeek.args));
    }
    if let Some(list) = variables(&zeek.env) {
        key(&mut text, "Env_Vars", list);
    }
    if let Some(interval) = zeek.rotation_interval {
        key(&mut text, "LogRotationInterval", interval.as_secs());
    }
    for (name, number) in [("PcapSnaplen", zeek.pcap_snaplen), ("PcapBufsize", zeek.pcap_bufsize)] {
        if let Some(number) = number {
            key(&mut text, name, number);
        }
    }
    match zeek.encrypt {
        Encrypt::Auto => {}
        Encrypt::Yes => key(&mut text, "cluster_backend_zeromq.use_curve_encryption", 1),
        Encrypt::No => key(&mut text, "cluster_backend_zeromq.use_curve_encryption", 0),
    }
    archive(&mut text, zeek);
    of_zeek(&mut text, zeek);
    if let Some(first) = nodes.first() {
        key(&mut text, "StopTimeout", first.stop_grace.as_secs());
        let limits = first.run_as.as_ref().map(|run_as| &run_as.limits);
        let bytes = limits.and_then(|limits| match limits.get(&Resource::Rss)? {
            Limit { soft: Some(soft), .. } => Some(soft / 1024),
            Limit { .. } => None,
        });
        if let Some(kilobytes) = bytes {
            key(&mut text, "MemLimit", kilobytes);
        }
    }
    if has_traces {
        key(&mut text, "SaveTraces", 1);
    }
    text
}

fn archive(text: &mut String, zeek: &Zeek) {
    let (rules, default) = (&zeek.archive, crate::model::ArchiveRules::default());
    if let ArchivePlace::At(path) = &rules.place {
        key(text, "LogDir", path);
    }
    if !rules.compress {
        key(text, "CompressLogs", 0);
    }
    if !rules.compressor.is_empty() {
        key(text, "CompressCmd", join_words(&rules.compressor));
    }
    if rules.extension != default.extension {
        key(text, "CompressExtension", &rules.extension);
    }
    if !rules.keep.is_empty() {
        key(text, "KeepLogs", rules.keep.join(" "));
    }
    if let Some(age) = rules.keep_age {
        key(text, "LogExpireInterval", expiry(age));
    }
    if rules.min_free != default.min_free {
        key(text, "MinDiskSpace", rules.min_free);
    }
}

fn expiry(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        days if days > 0 && days % (24 * 60) == 0 => format!("{} day", days / (24 * 60)),
        hours if hours > 0 && hours % 60 == 0 => format!("{} hr", hours / 60),
        minutes => format!("{minutes} min"),
    }
}

fn of_zeek(text: &mut String, zeek: &Zeek) {
    for (option, name) in OPTIONS {
        if let Some(value) = zeek.options.get(option) {
            key(text, name, value);
        }
    }
    if zeek.options.get("Site::private_address_space_is_local").is_some_and(|value| value == "F") {
        key(text, "PrivateAddressSpaceIsLocal", 0);
    }
    let seconds = zeek.options.get("Log::default_mail_alarms_interval").and_then(|value| value.strip_suffix("secs"));
    if let Some(seconds) = seconds {
        key(text, "MailAlarmsInterval", seconds);
    }
    if let Some(level) = zeek.options.get("LogAscii::gzip_level") {
        key(text, "CompressLogsInFlight", level);
    }
    let extension = zeek.options.get("LogAscii::gzip_file_extension");
    if let Some(extension) = extension.filter(|extension| **extension != zeek.archive.extension) {
        key(text, "CompressExtension", extension);
    }
}

/// A percent sign asks for the value of another key.
fn escaped(value: &str) -> String {
    value.replace('%', "%%")
}

fn key(text: &mut String, name: &str, value: impl Display) {
    line(text, format_args!("{name} = {value}"));
}

fn line(text: &mut String, line: impl Display) {
    let _ = writeln!(text, "{line}"); // writing to a String cannot fail
}

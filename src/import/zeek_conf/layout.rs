//! What one machine's file says becomes nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lines::{Entry, File, Interface, Keys};
use super::template::fill;
use crate::hint::shown;
use crate::import::Findings;
use crate::model::cluster_file::{Complaint, word_list};
use crate::model::{
    ArchivePlace, ArchiveRules, Backend, Bytes, Capability, Cpus, InstanceName, Node, NodeName, Role, Zeek,
};
use crate::plan::zeek::template::escape;

/// The most nodes of one kind: more are a slip of the finger.
const MOST: usize = 1024;
/// The most processors of one list.
const MOST_CPUS: usize = 8192;
/// The user of a file that names none.
const USER: &str = "zeek";

const ARCHIVER: &str = "logs are archived by each agent itself";

/// Keys that have no place in a configuration, and why.
const LEFT_OUT: [(&str, &str); 8] = [
    (
        "base_dir",
        "each agent finds the installation of Zeek on its machine, and of this only the place of logs is kept",
    ),
    ("path", "nodes have the PATH of their agent, and `ext_path` before it"),
    ("cluster_layout", "the layout is always made anew"),
    ("archiver_env", ARCHIVER),
    ("archiver_nice", ARCHIVER),
    ("archiver_memory_max", ARCHIVER),
    ("archiver_cpu_set", ARCHIVER),
    ("group", "a node has the groups of its user"),
];

/// One machine, and what it runs.
pub(super) struct Machine {
    pub(super) instance: InstanceName,
    pub(super) has_manager: bool,
    pub(super) nodes: Vec<Arc<Node>>,
    /// What its file says of all nodes.
    pub(super) zeek: Zeek,
    /// Where others find it.
    pub(super) address: Option<IpAddr>,
    /// Where the keys stand that say it.
    lines: BTreeMap<&'static str, usize>,
}

impl Machine {
    /// The machine called `name`; `None` if there is none by that name. `is_one_of_many` where others have files too.
    pub(super) fn read(file: &File, name: &str, is_one_of_many: bool, findings: &mut Findings) -> Option<Self> {
        let instance = match InstanceName::new(&format!("agent-{name}")) {
            Ok(instance) => instance,
            Err(error) => {
                findings.wrong(Complaint::at(1, error.to_string()));
                return None;
            }
        };
        let global = &mut Ask { section: None, line: 1, keys: &file.global, findings };
        for kind in ["manager", "logger", "proxy"] {
            for key in [format!("{kind}_nice"), format!("{kind}_memory_max")] {
                global.say_of_empty(&key, file.has_sections);
            }
        }
        for (key, why) in LEFT_OUT {
            global.remark(key, format!("is left out: {why}"));
        }
        let zeek = zeek(global);
        let address = global.first(["address", "cluster_address"], address);
        // By a slip in its own pattern, Zeek takes a 0 there and no other digit.
        let begins = |digit: char| ('1'..='9').contains(&digit);
        global.get("cluster_node_prefix", |text| match text.starts_with(begins) {
            true => Err(format!("{} begins with a digit, and Zeek refuses it: begin with a small letter", shown(text))),
            false => Ok(()),
        });
        let prefix = match global.keys.get("cluster_node_prefix").and_then(|entry| entry.values.first()) {
            Some(given) => given.clone(),
            None if is_one_of_many => name.to_owned(),
            None => String::new(),
        };
        let prefix = if prefix.is_empty() { prefix } else { prefix + "-" };
        let has_manager = global.get("manager", flag).unwrap_or(false);
        let maker = Maker { instance: &instance, prefix: &prefix, common: Common::read(global) };
        let mut nodes = Vec::new();
        if has_manager {
            nodes.extend(maker.node(global, "manager".into(), Role::Manager, "manager_"));
        }
        for (key, role, each) in [("loggers", Role::Logger, "logger"), ("proxies", Role::Proxy, "proxy")] {
            for index in 1..=global.get(key, count).unwrap_or(0) {
                nodes.extend(maker.node(global, format!("{prefix}{each}-{index}"), role, &format!("{each}_")));
            }
        }
        let mut workers = 0;
        for interface in &file.interfaces {
            let (section, line, keys) = (interface.name.as_deref(), interface.line, &interface.keys);
            let ask = &mut Ask { section, line, keys, findings };
            maker.workers(ask, interface, &mut workers, &mut nodes);
        }
        let said = ["args", "env", "ext_path", "ext_zeek_path", "cluster_backend_args", "port", "cluster_port"];
        let lines = said.into_iter().chain(["metrics_port"]);
        let lines = lines.filter_map(|key| Some((key, file.global.get(key)?.line))).collect();
        let nodes = nodes.into_iter().map(Arc::new).collect();
        Some(Self { instance, has_manager, nodes, zeek, address, lines })
    }

    /// What this machine's file says of all nodes, where it is not what `other`'s does: keys, and where they stand.
    pub(super) fn differences(&self, other: &Self) -> Vec<(&'static str, usize)> {
        let (mine, its) = (&self.zeek, &other.zeek);
        [
            (mine.scripts != its.scripts || mine.args != its.args, "args"),
            (mine.env != its.env, "env"),
            (mine.path != its.path, "ext_path"),
            (mine.script_path != its.script_path, "ext_zeek_path"),
            (mine.backend != its.backend, "cluster_backend_args"),
            (mine.port != its.port, "port"),
            (mine.port != its.port, "cluster_port"),
            (mine.metrics_port != its.metrics_port, "metrics_port"),
        ]
        .into_iter()
        .filter_map(|(differs, key)| Some((key, *self.lines.get(key).filter(|_| differs)?)))
        .collect()
    }
}

/// Reads keys, and complains of them.
struct Ask<'a, 'f> {
    /// The interface whose section it is, and where that begins.
    section: Option<&'a str>,
    line: usize,
    keys: &'a Keys,
    findings: &'f mut Findings,
}

impl Ask<'_, '_> {
    /// A complaint about a key, or about the section that does not have it.
    fn complaint(&self, key: &str, what: String) -> Complaint {
        let section = self.section.map(|name| format!("interface {name}"));
        match self.keys.get(key) {
            Some(entry) => Complaint { section, key: Some(key.to_owned()), ..Complaint::at(entry.line, what) },
            None => Complaint { section, ..Complaint::at(self.line, what) },
        }
    }

    /// Says something of a key, if it is there.
    fn remark(&mut self, key: &str, what: String) {
        if self.keys.contains_key(key) {
            let complaint = self.complaint(key, what);
            self.findings.remark(complaint);
        }
    }

    /// A number that is not there: an error to Zeek in a file with sections, and nothing in one without.
    fn say_of_empty(&mut self, key: &str, is_refused: bool) {
        let is_empty = |entry: &Entry| entry.values.iter().all(String::is_empty);
        match (self.keys.get(key).is_some_and(is_empty), is_refused) {
            (false, _) => {}
            (true, true) => self.wrong(key, "is empty: write a value, or remove the key".into()),
            (true, false) => self.remark(key, "is left out: it is empty".into()),
        }
    }

    fn wrong(&mut self, key: &str, what: String) {
        let complaint = self.complaint(key, what);
        self.findings.wrong(complaint);
    }

    /// What a key says; `None` if it is not there or empty, or was complained of.
    fn get<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.keys.get(key)?.values.first().filter(|value| !value.is_empty())?;
        match read(value) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(key, what);
                None
            }
        }
    }

    /// The first of two names for a key that is there.
    fn first<T>(&mut self, keys: [&str; 2], read: fn(&str) -> Result<T, String>) -> Option<T> {
        keys.into_iter().find_map(|key| self.get(key, read))
    }

    fn words(&mut self, key: &str) -> Option<Vec<String>> {
        let text = self.keys.get(key)?.values.join(" ");
        match word_list(&text) {
            Ok(words) => Some(words),
            Err(what) => {
                self.wrong(key, what);
                None
            }
        }
    }

    fn variables(&mut self, key: &str, filled: impl Fn(&str) -> Result<String, String>) -> BTreeMap<String, String> {
        let Some(Entry { values, .. }) = self.keys.get(key) else { return BTreeMap::new() };
        // Whatever is left of variables stands for itself.
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), escape(&filled(value)?))),
            _ => Err(format!("{} is not of the form NAME=VALUE", shown(text))),
        };
        let pairs = values.iter().filter(|value| !value.is_empty()).map(pair).collect::<Result<_, _>>();
        pairs.unwrap_or_else(|what| {
            self.wrong(key, what);
            BTreeMap::new()
        })
    }
}

/// What the file says of all nodes.
fn zeek(ask: &mut Ask) -> Zeek {
    let mut zeek = Zeek { port: Some(27_760), metrics_port: Some(9991), backend: Backend::ZeroMq, ..Zeek::default() };
    if let Some(mut words) = ask.words("args") {
        // What begins with a dash is no script, and may have another word behind it.
        let scripts = words.iter().position(|word| word.starts_with('-') || word.contains('=')).unwrap_or(words.len());
        zeek.args = words.split_off(scripts);
        zeek.scripts = words;
    }
    zeek.env = ask.variables("env", |value| Ok(value.to_owned()));
    let directories = |text: &str| Ok(text.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect());
    zeek.path = ask.get("ext_path", directories).unwrap_or_default();
    zeek.script_path = ask.get("ext_zeek_path", directories).unwrap_or_default();
    zeek.port = ask.first(["port", "cluster_port"], port).or(zeek.port);
    zeek.metrics_port =
        ask.get("metrics_port", |text| if text == "0" { Ok(0) } else { port(text) }).or(zeek.metrics_port);
    if let Some(words) = ask.words("cluster_backend_args") {
        match words.iter().find_map(|word| backend(word)) {
            Some(backend) => zeek.backend = backend,
            None => {
                ask.remark(
                    "cluster_backend_args",
                    "is left out: it names neither backend, so Zeek's own is taken".into(),
                );
                zeek.backend = Backend::Auto;
            }
        }
    }
    zeek.archive = archive(ask);
    zeek
}

/// What becomes of logs: zeek-archiver puts them below the prefix of the installation.
fn archive(ask: &mut Ask) -> ArchiveRules {
    let mut rules = ArchiveRules::default();
    if let Some(base) = ask.get("base_dir", |text| Ok(text.trim_end_matches('/').to_owned()))
        && base.starts_with('/')
    {
        rules.place = ArchivePlace::At(format!("{base}/var/logs/zeek"));
    }
    match ask.get("archiver", |text| Ok(text.to_owned())).as_deref() {
        Some("0") => rules.place = ArchivePlace::Nowhere,
        None | Some("1") => {}
        Some(_) => ask.remark("archiver", format!("is left out: {ARCHIVER}, or by `archive_command` for each log")),
    }
    let args = ask.words("archiver_args").unwrap_or_default();
    let mut rest = args.iter().map(String::as_str);
    let mut left_out = Vec::new();
    while let Some(word) = rest.next() {
        match word {
            "-c=" | "--compress=" => rules.compress = false,
            "-c" | "--compress" => match rest.next() {
                Some("") | None => rules.compress = false,
                Some(how) => left_out.extend((!compressed(how, &mut rules)).then_some(how)),
            },
            "-v" | "--verbose" => {}
            other => {
                let how = other.strip_prefix("-c=").or(other.strip_prefix("--compress="));
                if !how.is_some_and(|how| compressed(how, &mut rules)) {
                    left_out.push(other);
                }
            }
        }
    }
    if let Some(first) = left_out.first() {
        ask.remark("archiver_args", format!("{} is left out: {ARCHIVER}", shown(first)));
    }
    rules
}

/// Takes in an extension and a command, with a comma between them; says whether it is that.
fn compressed(how: &str, rules: &mut ArchiveRules) -> bool {
    let Some((extension, command)) = how.split_once(',') else { return false };
    let words = word_list(command).unwrap_or_default();
    if !ArchiveRules::is_extension(extension) || words.is_empty() {
        return false;
    }
    rules.extension = extension.to_owned();
    rules.compressor = if words == ["gzip"] { Vec::new() } else { words };
    true
}

fn backend(script: &str) -> Option<Backend> {
    let known = [
        ("backend/zeromq", Backend::ZeroMq),
        ("misc/zeromq-multi-host-auto-setup", Backend::ZeroMq),
        ("backend/broker", Backend::Broker),
    ];
    known.into_iter().find(|(name, _)| script.contains(name)).map(|(_, backend)| backend)
}

/// What holds for every node of a machine.
struct Common {
    user: String,
    /// Between two restarts, of which there may be any number.
    restart: Duration,
}

impl Common {
    fn read(ask: &mut Ask) -> Self {
        let seconds = |text: &str| match text.parse() {
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(_) => Err(format!("{} is no number of seconds, and Zeek takes it for 0: write one", shown(text))),
        };
        let user = ask.get("user", |text| Ok(text.to_owned())).unwrap_or_else(|| USER.to_owned());
        let restart = ask.get("restart_interval_sec", seconds).unwrap_or(Duration::from_secs(1));
        Self { user, restart }
    }
}

struct Maker<'a> {
    instance: &'a InstanceName,
    prefix: &'a str,
    common: Common,
}

impl Maker<'_> {
    /// A node, with what the keys that begin with `kind` say.
    fn node(&self, ask: &mut Ask, name: String, role: Role, kind: &str) -> Option<Node> {
        let name = match NodeName::new(&name) {
            Ok(name) => name,
            Err(error) => {
                ask.wrong("cluster_node_prefix", error.to_string());
                return None;
            }
        };
        let mut node = Node::new(name, self.instance.clone(), role);
        node.user = Some(self.common.user.clone());
        (node.restart.delay, node.restart.max_delay) = (self.common.restart, self.common.restart);
        if !self.common.restart.is_zero() {
            node.restart.limit = 0; // it is tried for ever
        }
        if let Some(args) = ask.words(&format!("{kind}args")).filter(|args| !args.is_empty()) {
            node.zeek.get_or_insert_default().args = args;
        }
        if let Some(nice) = ask.get(&format!("{kind}nice"), nice) {
            node.run_as.get_or_insert_default().nice = Some(nice);
        }
        if let Some(bytes) = ask.get(&format!("{kind}memory_max"), bytes) {
            node.run_as.get_or_insert_default().quotas.memory_max = Some(bytes);
        }
        if let Some(set) = ask.get(&format!("{kind}cpu_set"), cpus) {
            node.cpu_affinity = Some(Cpus(set.into_iter().collect()));
        }
        if role != Role::Worker {
            node.env = ask.variables(&format!("{kind}env"), |value| Ok(value.to_owned()));
        }
        Some(node)
    }

    fn workers(&self, ask: &mut Ask, interface: &Interface, host_wide: &mut usize, nodes: &mut Vec<Node>) {
        ask.say_of_empty("worker_nice", true);
        ask.say_of_empty("worker_memory_max", true);
        let Some(count) = ask.get("workers", count) else {
            let is_there =
                ask.keys.get("workers").is_some_and(|entry| entry.values.iter().any(|value| !value.is_empty()));
            return match is_there {
                true => {} // what is wrong with it was said
                false => ask.wrong("workers", "has no `workers`: say how many, or 0".into()),
            };
        };
        let Some(device) = ask.get("interface", |text| Ok(text.to_owned())) else {
            return match count {
                0 => {}
                _ => ask.wrong("interface", "has no `interface`, which workers read".into()),
            };
        };
        for key in ["worker_numa_policy", "workers_numa_policy"] {
            ask.remark(key, "is left out: this release does not choose where memory is".into());
        }
        let cpus = ask.get("workers_cpu_list", cpus).unwrap_or_default();
        for index in 1..=count {
            *host_wide += 1;
            let section = interface.name.as_deref().map(|name| format!("{name}-")).unwrap_or_default();
            let name = format!("{}worker-{section}{index}", self.prefix);
            let Some(mut node) = self.node(ask, name, Role::Worker, "worker_") else { return };
            let cpu = cpus.get((*host_wide - 1) % cpus.len().max(1)).copied();
            let mut values = BTreeMap::from([
                ("worker_index", index.to_string()),
                ("worker_index0", (index - 1).to_string()),
                ("host_worker_index", host_wide.to_string()),
                ("host_worker_index0", (*host_wide - 1).to_string()),
                ("interface_section_name", interface.name.clone().unwrap_or_default()),
            ]);
            values.extend(cpu.map(|cpu| ("worker_cpu", cpu.to_string())));
            node.env = ask.variables("worker_env", |value| fill(value, &values));
            match fill(&device, &values) {
                Ok(device) => node.interface = Some(escape(&device)),
                Err(what) => return ask.wrong("interface", what),
            }
            node.cpu_affinity = cpu.map(Cpus::one);
            node.run_as.get_or_insert_default().capabilities.extend(Capability::named("net_raw"));
            nodes.push(node);
        }
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{} is neither: write 1 or 0", shown(text))),
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= MOST);
    count.ok_or_else(|| format!("{} is no number from 0 to {MOST}", shown(text)))
}

fn nice(text: &str) -> Result<i32, String> {
    let nice = text.parse().ok().filter(|nice| (-20..=19).contains(nice));
    nice.ok_or_else(|| format!("{} is no number from -20 to 19", shown(text)))
}

/// Digits and one of K, M, G and T, or none.
fn bytes(text: &str) -> Result<Bytes, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.map(Bytes).ok_or_else(|| format!("{} is no amount of memory: write such as 512M or 8G", shown(text)))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port: &u16| port != 0);
    port.ok_or_else(|| format!("{} is not a port: write a number from 1 to 65535", shown(text)))
}

fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = inner.unwrap_or(text).parse::<IpAddr>().ok().filter(|address| inner.is_some() == address.is_ipv6());
    address.ok_or_else(|| format!("{} is no address: write one such as 10.0.0.5 or [fd00::5]", shown(text)))
}

/// `0,2,4-8:2`: processors, in the order in which workers get them.
fn cpus(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("{} is no list of processors: write such as 0,2,4-8:2", shown(text));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < 8192).ok_or_else(wrong);
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (range, stride) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, stride) = (number(first)?, number(last)?, number(stride)?);
        if last < first || stride == 0 {
            return Err(wrong());
        }
        cpus.extend((first..=last).step_by(stride as usize));
        if cpus.len() > MOST_CPUS {
            return Err(format!("names more than {MOST_CPUS} processors"));
        }
    }
    Ok(cpus)
}

//! The section of a node becomes that node; this file knows every key.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lines::Section;
use super::render::mode;
use super::values::{
    assignments, capabilities, limits, nice, number, one_of, parsed, percent, port, question, sign, time, umask,
    within, words, yes_or_no,
};
use super::{Complaints, zeek};
use crate::hint::instead;
use crate::model::output::{LEAST_OUTPUT, MOST_OUTPUT_FILES};
use crate::model::{
    InstanceName, Liveness, Node, NodeName, OutputWish, Probe, ProbeBy, RestartMode, Role, RunAs, ZeekNode,
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
pub(super) const OWN_KEYS: [&str; 6] = ["instance", "role", "type", "port", "metrics_port", "state"];

/// A node as its section tells it.
pub(super) struct Draft {
    pub node: Node,
    /// Whether it says what it is for, understood or not.
    has_role: bool,
    /// Whether it says what it runs, understood or not.
    has_command: bool,
    /// Whether it says where it belongs, understood or not.
    pub has_instance: bool,
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

pub(super) fn without_probe(key: &str) -> String {
    format!("has {key}, and no probe: add one, such as `probe = tcp 8080`, or remove it")
}

/// A name that lets keys be checked where there is none; a file with a complaint never becomes a configuration.
pub(super) const STAND_IN: &str = "_";

impl Draft {
    pub fn read(section: &Section, roles: &BTreeMap<Role, &Section>, complaints: &mut Complaints) -> Option<Self> {
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

    pub fn stand_in(name: NodeName) -> Option<Self> {
        let node = Node::new(name, InstanceName::new(STAND_IN).ok()?, Role::None);
        Some(Self { node, has_role: false, has_command: false, has_instance: false, probe: DraftOfProbe::default() })
    }

    pub fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
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
pub(super) fn role_of(section: &Section) -> Role {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, read};
    use super::*;
    use crate::model::{Capability, Limit, ReadyBy, Resource};

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
    fn a_known_key_without_a_value_counts_as_absent() {
        assert_eq!(read("[a]\nrole = none\nport\nenv").unwrap(), read("[a]\nrole = none").unwrap());
    }
}

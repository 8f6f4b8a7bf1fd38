//! `zeek.conf`, which Zeek's systemd generator reads: one file for this machine, or one for each of several.
//!
//! The rules are the generator's own, also where it is silent: what it skips without a word gets a remark here.

mod layout;
mod lines;
mod template;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Findings, Import, ImportError, Source};
use crate::model::cluster_file::Complaint;
use crate::model::{Configuration, ConfigurationId, Instance, InstanceName, Zeek};
use layout::Machine;
use lines::File;

/// One machine's file.
#[derive(Debug, Clone)]
pub struct HostFile {
    /// The machine, where there are several: the file is called HOST.zeek.conf then.
    pub host: Option<String>,
    pub source: Source,
}

/// Reads the files of all machines, on one called `hostname`, as the configuration `id`.
pub fn read(files: &[HostFile], id: ConfigurationId, hostname: &str) -> Result<Import, ImportError> {
    let mut read = Vec::new();
    for HostFile { host, source } in files {
        let mut found = Findings::of(&source.name);
        let file = File::read(&source.bytes, &mut found);
        let name = host.as_deref().unwrap_or(hostname);
        let machine = Machine::read(&file, name, host.is_some(), &mut found);
        read.push((machine, found));
    }
    agree(&mut read);
    let (machines, findings): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    let remarks = Findings::sum(findings)?;
    Ok(Import { configuration: configuration(id, machines.into_iter().flatten().collect()), remarks })
}

/// There is one manager; and what is said for a whole cluster can be said once here: says so where files differ.
fn agree(read: &mut [(Option<Machine>, Findings)]) {
    let has_manager = |machine: &Option<Machine>| machine.as_ref().is_some_and(|machine| machine.has_manager);
    if let Some((_, found)) = read.iter_mut().filter(|(machine, _)| has_manager(machine)).nth(1) {
        found.wrong(Complaint::at(1, "this is the second machine with a manager: keep one"));
    }
    let machines = || read.iter().map(|(machine, _)| machine).enumerate();
    let leader =
        machines().find(|(_, machine)| has_manager(machine)).or(machines().find(|(_, machine)| machine.is_some()));
    let Some(leader) = leader.map(|(at, _)| at) else { return };
    let differences: Vec<_> = read
        .iter()
        .map(|(machine, _)| match (machine, &read[leader].0) {
            (Some(machine), Some(leader)) => machine.differences(leader),
            _ => Vec::new(),
        })
        .collect();
    for ((_, found), differences) in read.iter_mut().zip(differences) {
        for (key, line) in differences {
            let what = "differs from the manager's machine, and holds for all of them here: that one's is taken";
            found.remark(Complaint { key: Some(key.into()), ..Complaint::at(line, what) });
        }
    }
}

fn configuration(id: ConfigurationId, machines: Vec<Machine>) -> Configuration {
    let leader = machines.iter().find(|machine| machine.has_manager).or(machines.first());
    let addresses: BTreeMap<InstanceName, IpAddr> =
        machines.iter().filter_map(|machine| Some((machine.instance.clone(), machine.address?))).collect();
    let zeek = Zeek { addresses, ..leader.map(|machine| machine.zeek.clone()).unwrap_or_default() };
    let instances =
        machines.iter().map(|machine| Instance { name: machine.instance.clone(), host: None, port: None }).collect();
    Configuration {
        instances,
        nodes: machines.into_iter().flat_map(|machine| machine.nodes).collect(),
        zeek: (zeek != Zeek::default()).then(|| Box::new(zeek)),
        ..Configuration::empty(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster_file::render;
    use crate::model::{ArchivePlace, ArchiveRules, Bytes, Node, Role};

    fn hosts(files: &[(&str, &str)]) -> Result<Import, ImportError> {
        let file = |(host, text): &(&str, &str)| {
            let name = if host.is_empty() { "zeek.conf".to_owned() } else { format!("{host}.zeek.conf") };
            let source = Source { name, bytes: (*text).into() };
            HostFile { host: Some((*host).to_owned()).filter(|host| !host.is_empty()), source }
        };
        read(&files.iter().map(file).collect::<Vec<_>>(), ConfigurationId::new("1").unwrap(), "here")
    }

    fn one(text: &str) -> Result<Import, ImportError> {
        hosts(&[("", text)])
    }

    fn complaints(text: &str) -> Vec<String> {
        one(text).unwrap_err().complaints.iter().map(ToString::to_string).collect()
    }

    fn remarks(text: &str) -> Vec<String> {
        one(text).unwrap().remarks.iter().map(ToString::to_string).collect()
    }

    fn names(import: &Import) -> Vec<&str> {
        import.configuration.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn a_flat_file_comes_over_whole() {
        let text = "# zeek.conf\nmanager=1\nloggers=1\nproxies=1\ninterface=eth0\nworkers=2\nworkers_cpu_list=3,5-9:2\n\
                    args=local Site::x=T\nenv=\n  TZ=UTC\n  A=b=c\nworker_env=ID=${worker_index0}\n  CPU=${worker_cpu}\n\
                    worker_args=-C\nworker_nice=-5\nport=5000\nmetrics_port=0\nrestart_interval_sec=3\n";
        let got = one(text).unwrap();
        let want = "\
            [instances]\nagent-here\n\n\
            [zeek]\nbackend = zeromq\nargs = Site::x=T\nenv = A=b=c TZ=UTC\nport = 5000\nmetrics_port = 0\n\n\
            [logger-1]\ninstance = agent-here\nrole = LOGGER\nuser = zeek\nrestart_delay = 3s\nrestart_max_delay = 3s\nrestart_limit = 0\n\n\
            [manager]\ninstance = agent-here\nrole = MANAGER\nuser = zeek\nrestart_delay = 3s\nrestart_max_delay = 3s\nrestart_limit = 0\n\n\
            [proxy-1]\ninstance = agent-here\nrole = PROXY\nuser = zeek\nrestart_delay = 3s\nrestart_max_delay = 3s\nrestart_limit = 0\n\n\
            [worker-1]\ninstance = agent-here\nrole = WORKER\ninterface = eth0\ncpu_affinity = 3\nenv = CPU=3 ID=0\n\
            args = -C\nuser = zeek\nnice = -5\ncapabilities = net_raw\nrestart_delay = 3s\nrestart_max_delay = 3s\nrestart_limit = 0\n\n\
            [worker-2]\ninstance = agent-here\nrole = WORKER\ninterface = eth0\ncpu_affinity = 5\nenv = CPU=5 ID=1\n\
            args = -C\nuser = zeek\nnice = -5\ncapabilities = net_raw\nrestart_delay = 3s\nrestart_max_delay = 3s\nrestart_limit = 0\n\n";
        assert_eq!(render(&got.configuration), want);
        assert_eq!(got.remarks, []);
    }

    #[test]
    fn interfaces_have_sections_and_processors_are_dealt_out_host_wide() {
        let text = "[zeek]\nmanager=1\nuser=bro\n[interface a]\ninterface=eth0\nworkers=2\nworkers_cpu_list=0,1,2\n\
                    [interface b-2]\ninterface=${interface_section_name}:${host_worker_index}\nworkers=2\n\
                    workers_cpu_list=0,1,2\n";
        let got = one(text).unwrap();
        assert_eq!(names(&got), ["manager", "worker-a-1", "worker-a-2", "worker-b-2-1", "worker-b-2-2"]);
        let workers =
            |name: fn(&Node) -> String| got.configuration.nodes[1..].iter().map(|n| name(n)).collect::<Vec<_>>();
        assert_eq!(workers(|node| node.cpu_affinity.as_ref().unwrap().to_string()), ["0", "1", "2", "0"]);
        assert_eq!(workers(|node| node.interface.clone().unwrap()), ["eth0", "eth0", "b-2:3", "b-2:4"]);
        assert!(got.configuration.nodes.iter().all(|node| node.user.as_deref() == Some("bro")));
    }

    #[test]
    fn what_becomes_of_logs_comes_over() {
        let rules = |text: &str| one(text).unwrap().configuration.zeek.unwrap().archive;
        let default = ArchiveRules::default();
        let below = ArchivePlace::At("/opt/zeek/var/logs/zeek".into());
        for (text, place, compress) in [
            ("archiver=1\n", ArchivePlace::Usual, true),
            ("archiver=0\nbase_dir=/opt/zeek\n", ArchivePlace::Nowhere, true),
            ("base_dir=/opt/zeek/\narchiver_args=-c ''\n", below, false),
            ("archiver_args=-v --compress=gz,gzip\n", ArchivePlace::Usual, true),
        ] {
            assert_eq!(rules(text), ArchiveRules { place, compress, ..default.clone() }, "{text}");
        }
        let xz = rules("archiver_args=-c 'xz,xz -T1'\n");
        assert_eq!((xz.compressor, xz.extension), (["xz", "-T1"].map(str::to_owned).into(), "xz".to_owned()));
        for text in ["archiver_args=-c xz\n", "archiver_args=--compress=a/b,xz\n", "archiver_args=--help\n"] {
            let got = remarks(text);
            let want = "is left out: logs are archived by each agent itself";
            assert!(got.len() == 1 && got[0].ends_with(want), "{text}: {got:?}");
        }
    }

    #[test]
    fn memory_and_processors_are_kept() {
        let text = "manager=1\nmanager_memory_max=2G\nmanager_cpu_set=0,2-4:2\nmanager_nice=3\ninterface=eth0\n\
                    workers=1\nworker_memory_max=512\nworker_numa_policy=local\n";
        let got = one(text).unwrap();
        let (manager, worker) = (&got.configuration.nodes[0], &got.configuration.nodes[1]);
        let memory = |node: &Node| node.run_as.as_ref().unwrap().quotas.memory_max;
        assert_eq!((memory(manager), memory(worker)), (Some(Bytes(2 << 30)), Some(Bytes(512))));
        assert_eq!(manager.cpu_affinity.as_ref().unwrap().to_string(), "0,2,4");
        assert_eq!(manager.run_as.as_ref().unwrap().nice, Some(3));
        assert_eq!(
            remarks(text),
            ["zeek.conf:8: worker_numa_policy: is left out: this release does not choose where memory is"]
        );
        let wrong = complaints("manager=1\nmanager_memory_max=2g\nmanager_cpu_set=x\n");
        assert!(wrong.len() == 2 && wrong[0].contains("`2g` is no amount of memory"), "{wrong:?}");
    }

    #[test]
    fn values_that_are_missing_are_told() {
        assert_eq!(
            remarks("manager=1\nmanager_nice=\nproxy_memory_max=\n"),
            [
                "zeek.conf:2: manager_nice: is left out: it is empty",
                "zeek.conf:3: proxy_memory_max: is left out: it is empty"
            ]
        );
        let text =
            "[zeek]\nmanager=1\nmanager_nice=\n[interface a]\ninterface=e\nworkers=1000000\nworker_memory_max=\n";
        assert_eq!(
            complaints(text),
            [
                "zeek.conf:3: manager_nice: is empty: write a value, or remove the key",
                "zeek.conf:6: [interface a] workers: `1000000` is no number from 0 to 1024",
                "zeek.conf:7: [interface a] worker_memory_max: is empty: write a value, or remove the key",
            ]
        );
        assert_eq!(
            remarks("manager=1\n[interface a]\ninterface=e\nworkers=1\n"),
            [
                "zeek.conf:1: manager: stands above the first section, where Zeek may not read it: it is taken for a key of [zeek]"
            ]
        );
    }

    #[test]
    fn several_machines_become_one_cluster() {
        let first = "manager=1\naddress=10.0.0.1\ncluster_backend_args=misc/zeromq-multi-host-auto-setup\n";
        let second = "interface=eth1\nworkers=1\naddress=[fd00::2]\nport=1\ncluster_node_prefix=\n";
        let third = "interface=eth1\nworkers=1\nproxies=1\n";
        let got = hosts(&[("m", first), ("s1", second), ("s2", third)]).unwrap();
        assert_eq!(names(&got), ["manager", "worker-1", "s2-proxy-1", "s2-worker-1"]);
        let instances: Vec<_> = got.configuration.instances.iter().map(|instance| instance.name.as_str()).collect();
        assert_eq!(instances, ["agent-m", "agent-s1", "agent-s2"]);
        assert_eq!(got.configuration.zeek.as_ref().unwrap().addresses.len(), 2);
        let remarks: Vec<_> = got.remarks.iter().map(ToString::to_string).collect();
        assert_eq!(
            remarks,
            [
                "s1.zeek.conf:4: port: differs from the manager's machine, and holds for all of them here: that one's is taken"
            ]
        );
        let two = hosts(&[("a", "manager=1\n"), ("b", "manager=1\n"), ("c", "loggers=1\n")]).unwrap_err();
        assert_eq!(two.to_string(), "b.zeek.conf:1: this is the second machine with a manager: keep one");
    }

    #[test]
    fn what_zeek_passes_over_in_silence_is_said() {
        let flat = "manager=1\nmanger=1\nbase_dir=/opt\nenv=A=1\n  # note\narchiver=/opt/x\n";
        let got = remarks(flat);
        let want = [
            "zeek.conf:2: manger: is not a key of this place: did you mean `manager`?",
            "zeek.conf:3: base_dir: is left out: each agent finds",
            "zeek.conf:5: env: has a comment that is indented",
            "zeek.conf:6: archiver: is left out: logs are archived by each agent itself, or by",
        ];
        assert_eq!(got.len(), want.len(), "{got:#?}");
        got.iter().zip(want).for_each(|(got, want)| assert!(got.starts_with(want), "{got}"));
        for odd in ["[interfaceeth0]\nworkers=1\n", "[interface]\n", "[interface A]\n"] {
            let got = remarks(odd);
            assert!(got.len() == 1 && got[0].contains("is no section that Zeek knows"), "{odd}: {got:?}");
        }
        let got = remarks("[zeeek]\nmanager=1\nanything goes\n");
        assert!(got.len() == 1 && got[0].starts_with("zeek.conf:1: [zeeek]: is no section that Zeek knows"), "{got:?}");
    }

    #[test]
    fn what_zeek_refuses_is_refused_all_at_once() {
        let text = "[zeek]\nmanager=yes\nmanager=1\nworkers=1\nmanger=1\nport=0\n  5\nManager=1\naddress=fd00::1\n\
                    restart_interval_sec=soon\n[interface a]\nworkers=1\nworkers_cpu_list=3-1\n[interface a]\n\
                    [interface b]\ninterface=${x}\nworkers=1\n[interface c]\n  x\n";
        assert_eq!(
            complaints(text),
            [
                "zeek.conf:2: manager: `yes` is neither: write 1 or 0",
                "zeek.conf:3: [zeek] manager: is given for the second time, after line 2: remove one",
                "zeek.conf:4: [zeek] workers: is not a key of this place: it belongs into [interface NAME]",
                "zeek.conf:5: [zeek] manger: is not a key of this place: did you mean `manager`?",
                "zeek.conf:6: port: `0` is not a port: write a number from 1 to 65535",
                "zeek.conf:7: [zeek] port: has one value alone, and an indented line is one more: indent it less",
                "zeek.conf:8: [zeek]: `Manager=1` is not of the form key=value, with the key in small letters",
                "zeek.conf:9: address: `fd00::1` is no address: write one such as 10.0.0.5 or [fd00::5]",
                "zeek.conf:10: restart_interval_sec: `soon` is no number of seconds, and Zeek takes it for 0: write one",
                "zeek.conf:11: [interface a]: has no `interface`, which workers read",
                "zeek.conf:14: [interface a]: begins for the second time: make it one section",
                "zeek.conf:16: [interface b] interface: `x` is no variable: known are host_worker_index, \
                 host_worker_index0, interface_section_name, worker_index, worker_index0",
                "zeek.conf:18: [interface c]: has no `workers`: say how many, or 0",
                "zeek.conf:19: [interface c]: `x` is indented, and there is no key above that it could go on with",
            ]
        );
    }

    #[test]
    fn a_machine_without_a_role_in_it_has_no_nodes() {
        let got = one("").unwrap();
        assert_eq!(got.configuration.nodes.len(), 0);
        assert!(got.configuration.nodes.iter().all(|node| node.role != Role::None));
    }
}

//! What an importer has read is written again so that it reads the same.

use proptest::prelude::*;

use super::*;
use crate::import::{self, HostFile, Source, ZeekctlFiles};
use crate::model::ConfigurationId;
use crate::model::cluster_file::{parse, render};

fn id() -> ConfigurationId {
    ConfigurationId::new("1").unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), bytes: text.into() }
}

fn zeekctl(files: [&str; 3]) -> Configuration {
    let [nodes, options, networks] = files;
    let files = ZeekctlFiles {
        nodes: source("node.cfg", nodes),
        options: Some(source("zeekctl.cfg", options)),
        networks: Some(source("networks.cfg", networks)),
    };
    import::zeekctl(&files, id(), "here").unwrap().configuration
}

fn zeek_confs(files: &[(&str, &str)]) -> Configuration {
    let file = |(host, text): &(&str, &str)| HostFile {
        host: Some((*host).to_owned()).filter(|host| !host.is_empty()),
        source: source("zeek.conf", text),
    };
    import::zeek_conf(&files.iter().map(file).collect::<Vec<_>>(), id(), "here").unwrap().configuration
}

/// Writes a configuration as the format has it and reads it again.
fn there_and_back(configuration: &Configuration, is_zeekctl: bool) -> (Configuration, Export) {
    let exported = if is_zeekctl { node_cfg(configuration) } else { zeek_conf(configuration) };
    let export = exported.unwrap_or_else(|error| panic!("{error}\n{}", render(configuration)));
    let texts: Vec<&str> = export.files.iter().map(|file| file.text.as_str()).collect();
    let read = match (is_zeekctl, texts.as_slice()) {
        (true, &[nodes, options, networks]) => zeekctl([nodes, options, networks]),
        (false, &[one]) => zeek_confs(&[("", one)]),
        (false, _) => {
            let hosts = export.files.iter().map(|file| file.name.strip_suffix(".zeek.conf").unwrap());
            zeek_confs(&hosts.zip(texts).collect::<Vec<_>>())
        }
        (true, _) => panic!("zeekctl has three files"),
    };
    (read, export)
}

fn check(configuration: &Configuration, is_zeekctl: bool) {
    let (read, export) = there_and_back(configuration, is_zeekctl);
    let texts: Vec<&str> = export.files.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(render(&read), render(configuration), "{}", texts.join("---\n"));
    assert_eq!(export.remarks, [""; 0]);
}

const TWO: &str = "[m]\ntype=manager\nhost=localhost\n[p]\ntype=proxy\nhost=localhost\n";

#[test]
fn the_files_of_zeekctl_come_back_as_they_were() {
    let nodes = "[manager]\ntype = manager\nhost=10.0.0.1\n[logger-1]\ntype=logger\nhost=10.0.0.1\n[proxy-1]\ntype=proxy\n\
                 host = [fd00::2]\n[worker-1]\ntype=worker\nhost=sensor.example\ninterface=eth0\nlb_method=af_packet\n\
                 lb_procs=3\npin_cpus=2,4\naf_packet_fanout_id=23\nenv_vars=A=1${x},B=100%%\naux_scripts=extra.zeek 'a b'\n\
                 [worker-2]\ntype=worker\nhost=sensor.example\ninterface=eth1\nlb_method=interfaces\nlb_procs=2\n\
                 lb_interfaces=a,b\n[w-3]\ntype=worker\nhost=10.0.0.1\ninterface=zc:e\nlb_method=pf_ring\nlb_procs=2\n";
    let options = "MailTo = soc@example.com\nzeekport = 47760\nLogRotationInterval=0\nEnv_Vars=TZ=UTC\n\
                   SitePolicyScripts = local.zeek site.zeek\nPrivateAddressSpaceIsLocal = 0\nClusterBackend=broker\n\
                   StopTimeout = 20\nMemLimit = 1024\nZeekArgs = -C X::y=\"a b\"\nSitePolicyPath = /a:/b\nSaveTraces=1\n\
                   MailAlarmsInterval=5\nCompressLogsInFlight=3\nMetricsPort=0\nLogDir=/srv/logs\nCompressLogs=0\n\
                   LogExpireInterval=90 min\nMinDiskSpace=5\nKeepLogs=conn.* a?\n\
                   CompressCmd=zstd -q -19\nCompressExtension=zst\nPrefixes=local:site\nPcapBufsize=64\n\
                   cluster_backend_zeromq.use_curve_encryption = True\n";
    check(&zeekctl([nodes, options, "10.0.0.0/8 office\nfd00::/8\n"]), true);
    check(&zeekctl([TWO, "", ""]), true);
    check(&zeekctl(["[zeek]\ntype=standalone\nhost=localhost\ninterface=eth0\n", "", ""]), true);
}

#[test]
fn zeek_confs_come_back_as_they_were() {
    let flat = "manager=1\nloggers=2\nproxies=1\ninterface=af_packet::eth0\nworkers=3\nworkers_cpu_list=3,5-9:2\n\
                args=local 'my site' Site::x=T\nenv=\n  TZ=UTC\n  A=b=c\nworker_env=\n  ID=${worker_index0}\n  CPU=${worker_cpu}\n\
                \n  N=w${worker_index}x\nworker_args=-C\nworker_nice=-5\nport=5000\nmetrics_port=0\nrestart_interval_sec=3\n\
                manager_memory_max=2G\nlogger_env=X=1${y}\nproxy_cpu_set=0,2\nuser=bro\next_path=/a:/b\n\
                cluster_backend_args=frameworks/cluster/backend/broker\nbase_dir=/opt/zeek\narchiver_args=-c 'xz,xz -T1'\n";
    let flat = flat.replace("\n\n", "\n");
    check(&zeek_confs(&[("", &flat)]), false);
    check(&zeek_confs(&[("", "manager=1\nargs=\narchiver=0\ncluster_node_prefix=x\nloggers=1\n")]), false);
    let sections = "[zeek]\nmanager=1\n[interface a]\ninterface=eth0\nworkers=2\nworkers_cpu_list=0,1,2\n[interface b-2]\n\
                    interface=${interface_section_name}:${host_worker_index}\nworkers=2\nworkers_cpu_list=0,1,2\n\
                    worker_memory_max=1G\nworker_env=\n  A=\\${B}\n";
    check(&zeek_confs(&[("", sections)]), false);
    let machines = [
        ("m", "manager=1\naddress=10.0.0.1\nloggers=1\n"),
        ("s1", "interface=eth1\nworkers=1\naddress=[fd00::2]\ncluster_node_prefix=\n"),
        ("s2", "interface=eth1\nworkers=1\nproxies=1\n"),
    ];
    let several = zeek_confs(&machines);
    check(&several, false);
    let files = zeek_conf(&several).unwrap().files;
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["m.zeek.conf", "s1.zeek.conf", "s2.zeek.conf"]);
    let reaches_others = "cluster_backend_args=misc/zeromq-multi-host-auto-setup\n";
    assert!(files.iter().all(|file| file.text.contains(reaches_others)), "{files:?}");
}

#[test]
fn what_a_format_cannot_say_is_named() {
    let text = "[instances]\nagent-a\n[zeek]\nhash_seed = 0000000a\narchive_keep_age = 1day\n\
                [manager]\nrole = manager\nuser = zeek\nrestart_limit = 0\nrestart_max_delay = 1s\nwatchdog = 5s\n\
                [other]\ncommand = sleep 5\n[logger-2]\nrole = logger\nuser = zeek\nrestart_limit = 0\nrestart_max_delay = 1s\n";
    let text =
        text.replace("[manager]", "[manager]\ninstance = agent-a").replace("[other]", "[other]\ninstance = agent-a");
    let text = text.replace("[logger-2]", "[logger-2]\ninstance = agent-a");
    let configuration = parse("c.cfg", text, id(), "a").unwrap();
    let remarks = zeek_conf(&configuration).unwrap().remarks;
    for want in [
        "[logger-1]: comes to it, as zeek.conf has it",
        "[logger-2]: is left out: zeek.conf has no place for it, or none by this name",
        "[manager] watchdog: is left out: zeek.conf has no word for it",
        "[other]: is left out: zeek.conf has no place for it, or none by this name",
        "[zeek] archive_keep_age: is left out: zeek.conf has no word for it",
        "[zeek] backend: comes to be `zeromq`",
        "[zeek] hash_seed: is left out: zeek.conf has no word for it",
    ] {
        assert!(remarks.iter().any(|remark| remark == want), "{want}: {remarks:#?}");
    }
    let error = node_cfg(&configuration).unwrap_err().to_string();
    assert_eq!(error, "node.cfg:1: there is no proxy: a cluster has at least one");
    let client = cluster_cfg(&configuration);
    assert!(client.files[0].text.contains("[manager]\ninstance = agent-a\nrole = MANAGER\n"), "{client:?}");
    assert!(
        client.remarks.contains(&"[manager] user: is left out: cluster.cfg has no word for it".to_owned()),
        "{client:?}"
    );
}

/// A worker of zeekctl's, as its section says it.
fn worker() -> impl Strategy<Value = String> {
    let how = prop_oneof![
        Just(String::new()),
        (1..4usize).prop_map(|count| format!("lb_method=af_packet\nlb_procs={count}\naf_packet_buffer_size=5*1024\n")),
        (1..4usize).prop_map(|count| format!("lb_method=custom\nlb_procs={count}\n")),
        (1..4usize).prop_map(|count| format!("lb_method=pf_ring\nlb_procs={count}\n")),
        (1..4usize).prop_map(|count| format!("lb_method=myricom\nlb_procs={count}\n")),
        Just("lb_method=interfaces\nlb_procs=2\nlb_interfaces=x,y\n".to_owned()),
    ];
    let more =
        prop::sample::select(vec!["", "pin_cpus=1,2\n", "pin_cpus=3\n", "env_vars=A=1,C=%%\n", "aux_scripts=x y\n"]);
    let host = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "sensor"]);
    (how, more, host).prop_map(|(how, more, host)| format!("type=worker\nhost={host}\ninterface=eth0\n{how}{more}"))
}

/// The workers of a zeek.conf, as a section says them.
fn interface() -> impl Strategy<Value = String> {
    let device = prop::sample::select(vec!["eth0", "af_packet::eth1", "e${worker_index}", "e${host_worker_index0}x"]);
    let more = prop::sample::select(vec![
        "",
        "workers_cpu_list=0-6:2\n",
        "worker_nice=3\nworker_memory_max=5M\n",
        "worker_env=\n  A=${worker_index0}\n  B=\n",
        "worker_args=-C x\n",
    ]);
    (device, 1..4usize, more).prop_map(|(device, count, more)| format!("interface={device}\nworkers={count}\n{more}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_zeekctl_can_say_is_said_again(
        workers in prop::collection::vec(worker(), 0..4),
        port in 1024..30_000u16,
        options in prop::sample::subsequence(
            vec!["MailTo = a@b", "ClusterBackend = ZeroMQ", "StopTimeout = 7", "LogExpireInterval = 3 day", "CompressLogs = 0",
                 "SaveTraces = 1", "MemLimit = 5000", "cluster_backend_zeromq.use_curve_encryption = 0", "Prefixes = a:b", "LogDir = /x", "PcapSnaplen = 99"], 0..10),
    ) {
        let two = TWO.replace("localhost", "10.0.0.1");
        let workers: String = workers.iter().enumerate().map(|(at, text)| format!("[w{at}]\n{text}")).collect();
        let options = format!("ZeekPort = {port}\n{}\n", options.join("\n"));
        check(&zeekctl([&(two + &workers), &options, "10.0.0.0/8\n"]), true);
    }

    #[test]
    fn whatever_zeek_conf_can_say_is_said_again(
        interfaces in prop::collection::btree_map("[a-d]", interface(), 0..4),
        (loggers, proxies) in (0..3usize, 0..3usize),
        keys in prop::sample::subsequence(
            vec!["port=5000", "metrics_port=0", "args=local x -C", "env=A=b", "user=bro", "archiver=0", "ext_zeek_path=/x",
                 "manager_nice=3", "restart_interval_sec=9", "address=10.0.0.9"], 0..10),
        second in prop::option::of(interface()),
    ) {
        let sections: String = interfaces.iter().map(|(name, text)| format!("[interface {name}]\n{text}")).collect();
        let global = format!("[zeek]\nmanager=1\nloggers={loggers}\nproxies={proxies}\n{}\n", keys.join("\n"));
        let first = global.clone() + &sections;
        match second {
            None => check(&zeek_confs(&[("", &first)]), false),
            Some(second) => {
                let shared: Vec<&str> = keys.iter().copied().filter(|key| !key.starts_with("manager") && !key.starts_with("address")).collect();
                let second = format!("{}\n{second}", shared.join("\n"));
                check(&zeek_confs(&[("here", &first), ("there", &second)]), false);
            }
        }
    }
}

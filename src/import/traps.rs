//! Traps: where Zeek's other tools do something else than whoever wrote the file may think, one row each, by file and key.
//! An import does what the tool does, says what it leaves out, or refuses what the tool refuses.

use super::*;
use crate::import::{self, HostFile, Source, ZeekctlFiles};
use crate::model::ConfigurationId;
use crate::model::cluster_file::{parse, render};

/// What is to come of a file.
enum Want {
    /// The cluster file has this.
    Has(&'static str),
    /// It has not.
    Lacks(&'static str),
    /// A remark says this.
    Remarks(&'static str),
    /// Nothing comes of it, and a complaint says this.
    Refuses(&'static str),
}

use Want::{Has, Lacks, Refuses, Remarks};

fn check(rows: &[(&str, String, Want)], import: impl Fn(&str) -> Result<Import, ImportError>) {
    for (trap, text, want) in rows {
        let got = import(text);
        let (cluster, remarks) = match &got {
            Ok(import) => (render(&import.configuration), import.remarks.iter().map(ToString::to_string).collect()),
            Err(_) => (String::new(), Vec::<String>::new()),
        };
        let is_met = match want {
            Has(part) => got.is_ok() && cluster.contains(part),
            Lacks(part) => got.is_ok() && !cluster.contains(part),
            Remarks(part) => remarks.iter().any(|remark| remark.contains(part)),
            Refuses(part) => got.as_ref().is_err_and(|error| error.to_string().contains(part)),
        };
        // What is left of variables of theirs is none of ours.
        let is_plain = |import: &Import| {
            let complaints = crate::plan::validate(&import.configuration, &crate::plan::PortRules::default());
            !complaints.iter().any(|complaint| complaint.contains("variable"))
        };
        let is_met = is_met && got.as_ref().map_or(true, is_plain);
        assert!(is_met, "{trap}:\n{text}\n---\n{cluster}\n{got:?}");
    }
}

fn id() -> ConfigurationId {
    ConfigurationId::new("1").unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), bytes: text.into() }
}

/// `node.cfg`, then `zeekctl.cfg` and `networks.cfg` behind lines of `---`.
fn zeekctl(text: &str) -> Result<Import, ImportError> {
    let mut files = text.split("---\n");
    let nodes = source("node.cfg", files.next().unwrap());
    let [options, networks] = ["zeekctl.cfg", "networks.cfg"].map(|name| files.next().map(|text| source(name, text)));
    import::zeekctl(&ZeekctlFiles { nodes, options, networks }, id(), "here")
}

/// A manager and a proxy, and more.
fn nodes(more: &str) -> String {
    format!("[m]\ntype=manager\nhost=localhost\n[p]\ntype=proxy\nhost=localhost\n{more}")
}

/// One more worker, with these keys.
fn worker(keys: &str) -> String {
    nodes(&format!("[w]\ntype=worker\nhost=localhost\ninterface=eth0\n{keys}"))
}

#[test]
fn every_trap_of_a_node_cfg_is_met() {
    let cluster = |manager: &str, worker: &str| {
        format!(
            "[m]\ntype=manager\nhost={manager}\n[p]\ntype=proxy\nhost={manager}\n[w]\ntype=worker\nhost={worker}\ninterface=e\n"
        )
    };
    let rows = [
        ("keys are read in small letters", worker("Env_Vars=A=1\n"), Has("env = A=1")),
        ("a dot in a key is an underscore", worker("env.vars=A=1\n"), Has("env = A=1")),
        ("there are no variables", worker("env_vars=A=${x}\n---\nEnv_Vars = B=${y}\n"), Has("${y}")),
        (
            "an unknown key is ignored with a warning",
            worker("intrface=e\n"),
            Remarks("[w] intrface: is no key of zeekctl"),
        ),
        ("a key of a plugin is kept in the report", worker("my_key=2\n"), Remarks("[w] my_key: ")),
        ("% asks for another key", worker("aux_scripts=%(interface)s.zeek 5%%\n"), Has("args = eth0.zeek 5%%")),
        ("% alone is an error", worker("aux_scripts=5%\n"), Refuses("write `%%` for a percent sign")),
        ("[DEFAULT] holds for all sections", nodes("[DEFAULT]\nenv_vars=D=1\n"), Has("env = D=1")),
        ("# and ; begin comments on lines of their own", worker("# a\n; b\nenv_vars=A=1;2\n"), Has("env = A=1;2")),
        (
            "a standalone node is alone",
            nodes("[s]\ntype=standalone\nhost=localhost\n"),
            Refuses("a standalone node is the only one"),
        ),
        ("there is a manager", "[p]\ntype=proxy\nhost=h\n".into(), Refuses("there is no manager")),
        ("there is one manager", nodes("[n]\ntype=manager\nhost=localhost\n"), Refuses("several managers")),
        ("there is a proxy", "[m]\ntype=manager\nhost=h\n".into(), Refuses("there is no proxy")),
        ("there need be no worker", nodes(""), Has("role = PROXY")),
        ("type is asked for", nodes("[x]\nhost=h\n"), Refuses("[x]: has no `type`")),
        ("host is asked for", nodes("[x]\ntype=logger\n"), Refuses("[x]: has no `host`")),
        (
            "the interface of a worker is asked for",
            nodes("[x]\ntype=worker\nhost=h\n"),
            Refuses("[x]: has no `interface`"),
        ),
        ("the zone of an address is cut off", cluster("[fd00::1%%eth0]", "h"), Has("agent-fd00::1=fd00::1")),
        (
            "a manager on loopback means all on loopback",
            cluster("127.0.0.1", "10.0.0.2"),
            Refuses("manager is on a loopback address"),
        ),
        (
            "af_packet comes before the interface",
            worker("lb_method=af_packet\nlb_procs=1\n"),
            Has("interface = af_packet::eth0"),
        ),
        (
            "af_packet that is there already is an error",
            nodes("[w]\ntype=worker\nhost=localhost\ninterface=af_packet::e\nlb_method=af_packet\nlb_procs=1\n"),
            Refuses("begins with af_packet:: already"),
        ),
        (
            "custom puts its options around the interface",
            worker(
                "lb_method=custom\nlb_procs=1\n---\nlb_custom.InterfacePrefix = x::\nlb_custom.InterfaceSuffix = @\n",
            ),
            Has("interface = x::eth0@"),
        ),
        ("lb_method needs lb_procs", worker("lb_method=custom\n"), Refuses("needs `lb_procs`")),
        ("lb_procs needs lb_method", worker("lb_procs=2\n"), Refuses("needs an `lb_method`")),
        (
            "lb_procs is of workers alone",
            nodes("[l]\ntype=logger\nhost=localhost\nlb_procs=2\nlb_method=custom\n"),
            Refuses("only workers can"),
        ),
        ("lb_procs names its nodes", worker("lb_method=custom\nlb_procs=2\n"), Has("[w-2]")),
        ("lb_procs leaves none of the name itself", worker("lb_method=custom\nlb_procs=2\n"), Lacks("[w]\n")),
        (
            "lb_interfaces are dealt out from the end",
            worker("lb_method=interfaces\nlb_procs=2\nlb_interfaces=a,b\n"),
            Has("[w-1]\ninstance = agent-here\nrole = WORKER\ninterface = b\n"),
        ),
        (
            "lb_interfaces are as many as lb_procs",
            worker("lb_method=interfaces\nlb_procs=2\nlb_interfaces=a\n"),
            Refuses("has 1 interfaces for 2 processes"),
        ),
        ("pin_cpus has no ranges", worker("pin_cpus=0-3\n"), Refuses("`0-3` is no processor")),
        (
            "pin_cpus begins anew when it is used up",
            worker("lb_method=custom\nlb_procs=3\npin_cpus=4,6\n"),
            Has("[w-3]\ninstance = agent-here\nrole = WORKER\ninterface = eth0\ncpu_affinity = 4\n"),
        ),
        (
            "without lb_procs only the first of pin_cpus counts",
            worker("pin_cpus=4,6\n"),
            Remarks("pin_cpus: is left out but for its first"),
        ),
        (
            "env_vars wins over Env_Vars",
            worker("env_vars=A=1\n---\nEnv_Vars = A=2,B=3\n"),
            Has("[zeek]\nenv = A=2 B=3\n"),
        ),
        ("env_vars has no commas in values", worker("env_vars=A=1,2\n"), Refuses("`2` is not of the form NAME=VALUE")),
        ("aux_scripts come last", worker("aux_scripts=a b\n---\nZeekArgs = -C\n"), Has("args = a b\n")),
        ("zone_id is told", worker("zone_id=eth0\n"), Remarks("zone_id: is left out: it is the zone")),
        ("zeekbase is idle", worker("zeekbase=/z\n"), Remarks("zeekbase: is left out: zeekctl itself")),
        ("ether is idle", worker("ether=1\n"), Remarks("ether: is left out: zeekctl itself")),
        ("count is overwritten", worker("count=1\n"), Remarks("count: is left out: zeekctl itself")),
        (
            "options of AF_PACKET become redefinitions",
            worker("lb_method=af_packet\nlb_procs=1\naf_packet_fanout_id=23\n"),
            Has("options = AF_Packet::fanout_id=23"),
        ),
        (
            "options of AF_PACKET are idle without lb_procs",
            worker("af_packet_fanout_id=23\n"),
            Remarks("af_packet_fanout_id: is left out"),
        ),
        (
            "options of AF_PACKET are idle elsewhere",
            worker("lb_method=custom\nlb_procs=1\naf_packet_fanout_id=23\n"),
            Remarks("af_packet_fanout_id: is left out"),
        ),
        (
            "names differ by more than case",
            nodes("[M]\ntype=logger\nhost=localhost\n"),
            Refuses("second node of the name `M`"),
        ),
        (
            "names differ after lb_procs, too",
            worker("lb_method=custom\nlb_procs=1\n[W-1]\ntype=logger\nhost=localhost\n"),
            Refuses("second node of the name `W-1`"),
        ),
        ("PF_RING has its variables", worker("lb_method=pf_ring\nlb_procs=1\n"), Has("PCAP_PF_RING_CLUSTER_ID=21")),
        (
            "PF_RING leaves variables that are given",
            worker("lb_method=pf_ring\nlb_procs=1\nenv_vars=PCAP_PF_RING_CLUSTER_ID=7\n"),
            Has("PCAP_PF_RING_CLUSTER_ID=7"),
        ),
        (
            "myricom has its variables",
            worker("lb_method=myricom\nlb_procs=3\n"),
            Has("SNF_FLAGS=0x101 SNF_NUM_RINGS=3"),
        ),
        (
            "myricom leaves variables that are given to all",
            worker("lb_method=myricom\nlb_procs=3\n---\nEnv_Vars = SNF_FLAGS=1\n"),
            Lacks("SNF_FLAGS=0x101"),
        ),
    ];
    check(&rows, zeekctl);
}

#[test]
fn every_trap_of_a_zeekctl_cfg_and_a_networks_cfg_is_met() {
    let with = |options: &str| nodes(&format!("---\n{options}"));
    let rows = [
        ("keys are read without case", with("zEEKpORT = 5000\n"), Has("port = 5000")),
        ("the last one wins", with("ZeekPort = 5000\nZeekPort = 6000\n"), Has("port = 6000")),
        ("# begins a comment at the start of a line alone", with("# no\nMailTo = a#b\n"), Has("Notice::mail_dest=a#b")),
        ("there are no sections", with("[x]\n"), Refuses("is not of the form KEY = VALUE")),
        ("an unknown key is ignored with a warning", with("MailTu = x\n"), Remarks("MailTu: is no key of zeekctl")),
        (
            "an unknown key with a dot is of a plugin",
            with("PluginX.key = 1\n"),
            Remarks("PluginX.key: belongs to a plugin"),
        ),
        ("a key has no other signs", with("Mail-To = x\n"), Refuses("Mail-To: is no name of a key")),
        ("a key begins with no digit", with("1x = y\n"), Refuses("1x: is no name of a key")),
        ("a value in quotes is an error", with("MailTo = \"x\"\n"), Refuses("is in quotes, which zeekctl refuses")),
        ("a flag is 1, true, 0 or false", with("CompressLogs = yes\n"), Refuses("`yes` is neither")),
        ("a flag may be false", with("CompressLogs = False\n"), Has("archive_compress = no")),
        ("${Option} stands for itself in a file", with("MailTo = ${MailFrom}\n"), Has("Notice::mail_dest=${MailFrom}")),
        ("${Option} is no directory", with("LogDir = ${ZeekBase}/logs\n"), Refuses("is no absolute directory")),
        ("BroPort is a hard error", with("BroPort = 1\n"), Refuses("is called ZeekPort by now")),
        ("BroArgs is a hard error", with("BroArgs = 1\n"), Refuses("is called ZeekArgs by now")),
        ("BroBase is a hard error", with("BroBase = 1\n"), Refuses("is called ZeekBase by now")),
        ("Bro is a hard error", with("Bro = 1\n"), Refuses("is called Zeek by now")),
        ("PluginBroDir is a hard error", with("PluginBroDir = 1\n"), Refuses("is called PluginZeekDir by now")),
        ("ClusterBackend is one of two", with("ClusterBackend = nats\n"), Refuses("write ZeroMQ or Broker")),
        (
            "SaveTraces is for workers",
            nodes("[w]\ntype=worker\nhost=localhost\ninterface=e\n---\nSaveTraces = 1\n"),
            Has("args = -w trace.pcap"),
        ),
        ("ports begin at 27760", with(""), Has("port = 27760")),
        ("metrics begin at 9991", with(""), Has("metrics_port = 9991")),
        ("MetricsPort 0 is none", with("MetricsPort = 0\n"), Has("metrics_port = 0")),
        ("logs rotate once an hour", with(""), Has("rotation_interval = 1h")),
        ("LogRotationInterval 0 is never", with("LogRotationInterval = 0\n"), Has("rotation_interval = 0s")),
        ("StopTimeout is a minute", with(""), Has("stop_grace = 1m")),
        ("a prefix of local is there unless it is not", with(""), Has("prefixes = local")),
        ("Prefixes are parted by colons", with("Prefixes = a:b\n"), Has("prefixes = a b")),
        ("SitePolicyPath is parted by colons", with("SitePolicyPath = /a:/b\n"), Has("zeekpath = /a /b")),
        ("SitePolicyScripts are parted by spaces", with("SitePolicyScripts = a  b\n"), Has("scripts = a b")),
        (
            "private networks are local unless they are not",
            with("PrivateAddressSpaceIsLocal = 0\n"),
            Has("Site::private_address_space_is_local=F"),
        ),
        ("CompressLogsInFlight is Zeek's own", with("CompressLogsInFlight = 3\n"), Has("LogAscii::gzip_level=3")),
        ("CompressLogsInFlight is a level", with("CompressLogsInFlight = 10\n"), Refuses("`10` is no level")),
        ("LogExpireInterval alone is days", with("LogExpireInterval = 7\n"), Has("archive_keep_age = 7days")),
        ("LogExpireInterval has units", with("LogExpireInterval = 90 mins\n"), Has("archive_keep_age = 1h 30m")),
        ("LogExpireInterval 0 is for ever", with("LogExpireInterval = 0\n"), Lacks("archive_keep_age")),
        ("LogExpireInterval has no other units", with("LogExpireInterval = 1 week\n"), Refuses("`1 week` is no time")),
        (
            "LogExpireInterval is not shorter than LogRotationInterval",
            with("LogExpireInterval = 30 min\n"),
            Refuses("zeekctl.cfg:1: LogExpireInterval: is shorter than LogRotationInterval"),
        ),
        ("KeepLogs are never too old", with("KeepLogs = conn.* *summary*\n"), Has("archive_keep = conn.* *summary*")),
        (
            "CompressCmd reads and writes",
            with("CompressCmd = xz -T1\nCompressExtension = xz\n"),
            Has("archive_compressor = xz -T1"),
        ),
        ("CompressCmd gzip is our own", with("CompressCmd = gzip\n"), Lacks("archive_compressor")),
        ("ZeekArgs are words", with("ZeekArgs = -C X::y=\"a b\"\n"), Has("args = -C \"X::y=a b\"")),
        ("MemLimit is in kilobytes", with("MemLimit = 1024\n"), Has("limits = as=1048576 data=1048576 rss=1048576")),
        ("MemLimit may be unlimited", with("MemLimit = unlimited\n"), Lacks("limits")),
        ("Env_Vars is a list with commas", with("Env_Vars = A=1,B=2\n"), Has("env = A=1 B=2")),
        (
            "MailAlarmsInterval is in seconds",
            with("MailAlarmsInterval = 5\n"),
            Has("Log::default_mail_alarms_interval=5secs"),
        ),
        ("MinDiskSpace is in percent", with("MinDiskSpace = 5\n"), Has("archive_min_free = 5")),
        (
            "PFRINGClusterID 0 is off",
            nodes(
                "[w]\ntype=worker\nhost=localhost\ninterface=e\nlb_procs=1\nlb_method=pf_ring\n---\nPFRINGClusterID = 0\n",
            ),
            Lacks("PCAP_PF_RING"),
        ),
        ("PFRINGClusterType is one of ten", with("PFRINGClusterType = 7-tuple\n"), Refuses("`7-tuple` is not known")),
        ("a time machine is told", with("TimeMachineHost = h\n"), Remarks("TimeMachineHost: is left out")),
        (
            "plugins in Python are told",
            with("SitePluginPath = /p\n"),
            Remarks("SitePluginPath: is left out: plugins of zeekctl"),
        ),
        ("WebSocket is told", with("UseWebSocket = 1\n"), Remarks("UseWebSocket: is left out")),
        ("an automatic key is told", with("SpoolDir = /s\n"), Remarks("SpoolDir: is left out")),
        ("an automatic key of Zeek's is kept", with("FileExtractDir = /x\n"), Has("FileExtract::prefix=/x")),
        ("an internal key is told", with("ClusterTopicSeparator = /\n"), Remarks("ClusterTopicSeparator: is left out")),
        (
            "use_curve_encryption has three values",
            with("cluster_backend_zeromq.use_curve_encryption = maybe\n"),
            Refuses("write auto, 1 or 0"),
        ),
        (
            "use_curve_encryption is carried",
            with("cluster_backend_zeromq.use_curve_encryption = False\n"),
            Has("encrypt = no"),
        ),
        ("curve_dir is told", with("cluster_backend_zeromq.curve_dir = /k\n"), Remarks("curve_dir: is left out")),
        (
            "a network has a tag behind white space",
            with("---\n10.0.0.0/8 The office\n"),
            Has("networks = 10.0.0.0/8\n"),
        ),
        (
            "# begins a comment at the start of a line of networks",
            with("---\n# 10.0.0.0/8\nfd00::/8\n"),
            Has("networks = fd00::/8\n"),
        ),
        ("a network has its bits", with("---\n10.0.0.0\n"), Refuses("networks.cfg:1: `10.0.0.0` is no network")),
    ];
    check(&rows, zeekctl);
}

fn zeek_conf(text: &str) -> Result<Import, ImportError> {
    let files: Vec<HostFile> = match text.contains("=== ") {
        false => vec![HostFile { host: None, source: source("zeek.conf", text) }],
        true => text.split("=== ").filter(|part| !part.is_empty()).map(host_file).collect(),
    };
    import::zeek_conf(&files, id(), "here")
}

/// The name of a machine in the first line, and its file behind it.
fn host_file(part: &str) -> HostFile {
    let (host, text) = part.split_once('\n').unwrap();
    HostFile { host: Some(host.to_owned()), source: source(&format!("{host}.zeek.conf"), text) }
}

#[test]
fn every_trap_of_a_zeek_conf_is_met() {
    let flat = |more: &str| format!("manager=1\ninterface=eth0\nworkers=2\n{more}");
    let ini = |more: &str| format!("[zeek]\nmanager=1\n{more}");
    let rows = [
        (
            "flat: an unknown key is ignored in silence",
            flat("manger=1\n"),
            Remarks("manger: is not a key of this place"),
        ),
        ("INI: an unknown key is an error", ini("manger=1\n"), Refuses("[zeek] manger: is not a key of this place")),
        (
            "INI: any other section is skipped in silence",
            "[zeeek]\nmanager=1\n".into(),
            Remarks("[zeeek]: is no section that Zeek knows"),
        ),
        (
            "INI: [interface NAME] has small letters",
            ini("[interface A]\n"),
            Remarks("[interface A]: is no section that Zeek knows"),
        ),
        ("INI: [zeek] may be missing", "[interface a]\ninterface=e\nworkers=1\n".into(), Has("[worker-a-1]")),
        (
            "the styles are not mixed",
            "manager=1\n[interface a]\ninterface=e\nworkers=1\n".into(),
            Remarks("manager: stands above the first section"),
        ),
        ("trailing blanks are cut", flat("user=bro  \t\n"), Has("user = bro\n")),
        ("# begins a comment in the first column alone", flat("# x\nargs=a#b\n"), Has("scripts = a#b")),
        (
            "an indented comment becomes a value",
            flat("env=A=1\n  # note\n"),
            Remarks("env: has a comment that is indented"),
        ),
        ("a key begins in the first column", " manager=1\n".into(), Refuses("is indented, and there is no key above")),
        ("a key begins with a small letter", flat("Manager=1\n"), Refuses("with the key in small letters")),
        ("a key is given once", flat("manager=1\n"), Refuses("manager: is given for the second time")),
        ("only env and args have several values", flat("port=1\n  2\n"), Refuses("port: has one value alone")),
        ("several values of args are one list", flat("args=a\n  b\n"), Has("scripts = a b")),
        ("manager is 0 or 1", "manager=yes\n".into(), Refuses("manager: `yes` is neither")),
        ("without loggers the manager logs", flat(""), Lacks("LOGGER")),
        ("args are `local` unless they are not", flat(""), Lacks("scripts =")),
        ("args of a type are kept", flat("manager_args=-C\n"), Has("args = -C")),
        (
            "flat: an empty number is nothing",
            flat("manager_nice=\n"),
            Remarks("manager_nice: is left out: it is empty"),
        ),
        ("INI: an empty number is an error", ini("manager_nice=\n"), Refuses("manager_nice: is empty")),
        ("INI: an empty amount is an error", ini("proxy_memory_max=\n"), Refuses("proxy_memory_max: is empty")),
        ("an empty number of workers' is an error", flat("worker_nice=\n"), Refuses("worker_nice: is empty")),
        (
            "an empty amount of workers' is an error",
            flat("worker_memory_max=\n"),
            Refuses("worker_memory_max: is empty"),
        ),
        ("nice ends at 19", flat("manager_nice=20\n"), Refuses("`20` is no number from -20 to 19")),
        ("amounts have large units", flat("manager_memory_max=2g\n"), Refuses("`2g` is no amount of memory")),
        ("cpu_set is a set", flat("manager_cpu_set=4,0-2\n"), Has("cpu_affinity = 0-2,4")),
        ("nodes run as zeek", flat(""), Has("user = zeek")),
        ("a group is told", flat("group=zeek\n"), Remarks("group: is left out")),
        (
            "restarts have one delay",
            flat("restart_interval_sec=3\n"),
            Has("restart_delay = 3s\nrestart_max_delay = 3s\n"),
        ),
        ("restarts are a second apart", flat(""), Has("restart_delay = 1s\nrestart_max_delay = 1s\n")),
        ("restarts are without a limit", flat(""), Has("restart_limit = 0")),
        ("a delay that is no number is 0 to Zeek", flat("restart_interval_sec=soon\n"), Refuses("Zeek takes it for 0")),
        ("path is told", flat("path=/bin\n"), Remarks("path: is left out: nodes have the PATH of their agent")),
        ("ext_path comes first", flat("ext_path=/a:/b\n"), Has("path = /a /b")),
        ("ext_zeek_path comes first", flat("ext_zeek_path=/a\n"), Has("zeekpath = /a")),
        ("the backend is ZeroMQ", flat(""), Has("backend = zeromq")),
        (
            "the backend is named by its script",
            flat("cluster_backend_args=frameworks/cluster/backend/broker\n"),
            Has("backend = broker"),
        ),
        (
            "a script for several machines is ZeroMQ, too",
            flat("cluster_backend_args=misc/zeromq-multi-host-auto-setup\n"),
            Has("backend = zeromq"),
        ),
        (
            "a script that is neither is told",
            flat("cluster_backend_args=x\n"),
            Remarks("cluster_backend_args: is left out"),
        ),
        ("port has another name", flat("cluster_port=5000\n"), Has("port = 5000")),
        ("address has another name", flat("cluster_address=10.0.0.9\n"), Has("addresses = agent-here=10.0.0.9")),
        ("an address of IPv6 has brackets", flat("address=fd00::1\n"), Refuses("`fd00::1` is no address")),
        ("an address of IPv6 is one", flat("address=[fd00::1]\n"), Has("addresses = agent-here=fd00::1")),
        ("metrics begin at 9991", flat(""), Has("metrics_port = 9991")),
        ("metrics_port 0 is none", flat("metrics_port=0\n"), Has("metrics_port = 0")),
        ("a prefix is in front of workers", flat("cluster_node_prefix=x\n"), Has("[x-worker-1]")),
        ("a prefix is never in front of the manager", flat("cluster_node_prefix=x\n"), Has("[manager]")),
        (
            "a prefix begins with no digit but 0",
            flat("cluster_node_prefix=1x\n"),
            Refuses("cluster_node_prefix: `1x` begins with a digit"),
        ),
        ("a prefix may begin with 0", flat("cluster_node_prefix=0x\n"), Has("[0x-worker-1]")),
        (
            "with several files the machine is the prefix",
            "=== a\nmanager=1\n=== b\ninterface=e\nworkers=1\n".into(),
            Has("[b-worker-1]"),
        ),
        (
            "an empty prefix is none",
            "=== a\nmanager=1\n=== b\ninterface=e\nworkers=1\ncluster_node_prefix=\n".into(),
            Has("[worker-1]"),
        ),
        (
            "two machines have one manager",
            "=== a\nmanager=1\n=== b\nmanager=1\n".into(),
            Refuses("b.zeek.conf:1: this is the second machine with a manager"),
        ),
        (
            "machines that differ are told",
            "=== a\nmanager=1\n=== b\nport=1\nloggers=1\n".into(),
            Remarks("b.zeek.conf:1: port: differs"),
        ),
        ("a layout of one's own is told", flat("cluster_layout=/l\n"), Remarks("cluster_layout: is left out")),
        ("archiver 0 is none", flat("archiver=0\n"), Has("archive = none")),
        ("another archiver is told", flat("archiver=/a\n"), Remarks("archiver: is left out")),
        ("logs are below the prefix", flat("base_dir=/opt/zeek\n"), Has("archive = /opt/zeek/var/logs/zeek")),
        ("archiver_args may have no compression", flat("archiver_args=-c ''\n"), Has("archive_compress = no")),
        ("archiver_nice is told", flat("archiver_nice=5\n"), Remarks("archiver_nice: is left out")),
        ("archiver_env is told", flat("archiver_env=A=1\n"), Remarks("archiver_env: is left out")),
        ("archiver_memory_max is told", flat("archiver_memory_max=5\n"), Remarks("archiver_memory_max: is left out")),
        ("archiver_cpu_set is told", flat("archiver_cpu_set=5\n"), Remarks("archiver_cpu_set: is left out")),
        ("workers need an interface", "workers=1\n".into(), Refuses("has no `interface`")),
        ("an interface needs workers", "interface=e\n".into(), Refuses("has no `workers`")),
        (
            "processors are dealt out in turn",
            flat("workers_cpu_list=3,5-9:2\n"),
            Has("interface = eth0\ncpu_affinity = 5\n"),
        ),
        (
            "processors go on with the next interface of the machine",
            ini(
                "[interface a]\ninterface=e\nworkers=1\nworkers_cpu_list=0,1\n[interface b]\ninterface=f\nworkers=1\nworkers_cpu_list=0,1\n",
            ),
            Has("interface = f\ncpu_affinity = 1\n"),
        ),
        (
            "a list of processors goes upwards",
            flat("workers_cpu_list=3-1\n"),
            Refuses("`3-1` is no list of processors"),
        ),
        ("a policy for memory is told", flat("worker_numa_policy=local\n"), Remarks("worker_numa_policy: is left out")),
        ("so it is by its old name", flat("workers_numa_policy=local\n"), Remarks("workers_numa_policy: is left out")),
        (
            "variables count from 1 and from 0",
            flat("worker_env=\n  A=${worker_index}${worker_index0}\n"),
            Has("env = A=21"),
        ),
        (
            "variables count over the machine, too",
            ini(
                "[interface a]\ninterface=e\nworkers=1\n[interface b]\ninterface=${host_worker_index}x${host_worker_index0}\nworkers=1\n",
            ),
            Has("interface = 2x1"),
        ),
        (
            "a variable is the section",
            ini("[interface a]\ninterface=${interface_section_name}\nworkers=1\n"),
            Has("interface = a\n"),
        ),
        (
            "worker_cpu is there with a list alone",
            flat("worker_env=A=${worker_cpu}\n"),
            Refuses("`worker_cpu` is no variable"),
        ),
        ("an unknown variable is an error", flat("worker_env=A=${x}\n"), Refuses("`x` is no variable")),
        (r"\${ is itself", flat("worker_env=\n  A=\\${x}\n"), Has("${x}")),
        ("there are variables for workers alone", flat("manager_env=A=${worker_index}\n"), Has("${worker_index}")),
        ("workers may capture", flat(""), Has("capabilities = net_raw")),
        (
            "names of workers have their section",
            ini("[interface a-b]\ninterface=e\nworkers=1\n"),
            Has("[worker-a-b-1]"),
        ),
    ];
    check(&rows, zeek_conf);
}

#[test]
fn every_trap_of_a_cluster_cfg_of_zeek_client_is_met() {
    let rows = [
        (
            "an instance alone dials in",
            "[instances]\na\n[w]\ninstance=a\nrole=worker\n".to_owned(),
            Has("[instances]\na\n"),
        ),
        (
            "an instance with a place is dialled",
            "[instances]\na = 10.0.0.1:2151\n[w]\ninstance=a\nrole=worker\n".into(),
            Has("a = 10.0.0.1:2151"),
        ),
        ("role is called type, too", "[w]\ntype = worker\n".into(), Has("role = WORKER")),
        ("roles are read without case", "[w]\nrole = Worker\n".into(), Has("role = WORKER")),
        ("without instances there is this machine", "[w]\nrole=worker\n".into(), Has("agent-here")),
        (
            "an instance that is not declared",
            "[instances]\na\n[w]\ninstance=b\nrole=worker\n".into(),
            Has("instance = b"),
        ),
        ("state is read and means nothing", "[w]\nrole=worker\nstate=PENDING\n".into(), Lacks("state")),
        (
            "scripts are parted by spaces and quoted",
            "[w]\nrole=worker\nscripts=a \"b c\"\n".into(),
            Has("scripts = a \"b c\""),
        ),
        (
            "env is parted by spaces and quoted",
            "[w]\nrole=worker\nenv=A=1 B=\"x y\"\n".into(),
            Has("env = A=1 B=\"x y\""),
        ),
        ("cpu_affinity is a number", "[w]\nrole=worker\ncpu_affinity=3\n".into(), Has("cpu_affinity = 3")),
        ("metrics_port is a port", "[w]\nrole=worker\nmetrics_port=70000\n".into(), Refuses("`70000` is not a port")),
        ("a key that nobody knows is refused", "[w]\nrole=worker\nprt=1\n".into(), Refuses("did you mean `port`?")),
    ];
    check(&rows, |text| {
        let name = "cluster.cfg";
        let complaint = |line: &str| import::Remark {
            file: name.into(),
            at: crate::model::cluster_file::Complaint::at(1, line.to_owned()),
        };
        match parse(name, text.as_bytes(), id(), "here") {
            Ok(configuration) => Ok(Import { configuration, remarks: Vec::new() }),
            Err(error) => Err(ImportError { complaints: error.to_string().lines().map(complaint).collect() }),
        }
    });
}

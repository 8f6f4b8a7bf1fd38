//! zeekctl's `node.cfg`, with its `zeekctl.cfg` and `networks.cfg`.
//!
//! The rules are zeekctl's own: which keys it knows, what it does with the ones it does not, how a worker with several
//! processes becomes several nodes, and what holds where a file says nothing.

mod balance;
mod networks;
mod nodes;
mod options;
mod python;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Findings, Import, ImportError, Source};
use crate::model::{Configuration, ConfigurationId, Instance, InstanceName, Zeek};
use nodes::{Cluster, Host};
use options::Options;

/// The files of an installation of zeekctl.
#[derive(Debug, Clone)]
pub struct Files {
    /// `node.cfg`.
    pub nodes: Source,
    /// `zeekctl.cfg`; without it everything is as zeekctl has it by default.
    pub options: Option<Source>,
    /// `networks.cfg`.
    pub networks: Option<Source>,
}

/// Reads them, on a machine called `hostname`, as the configuration `id`.
pub fn read(files: &Files, id: ConfigurationId, hostname: &str) -> Result<Import, ImportError> {
    let mut of_nodes = Findings::of(&files.nodes.name);
    let mut of_options = Findings::of(files.options.as_ref().map_or("zeekctl.cfg", |source| &source.name));
    let mut of_networks = Findings::of(files.networks.as_ref().map_or("networks.cfg", |source| &source.name));

    let options = Options::read(files.options.as_ref(), &mut of_options);
    let Cluster { nodes, instances } = nodes::read(&files.nodes, &options, hostname, &mut of_nodes);
    let networks = networks::read(files.networks.as_ref(), &mut of_networks);
    let remarks = Findings::sum([of_nodes, of_options, of_networks])?;

    let zeek = Zeek { networks, addresses: addresses(&instances), ..options.zeek() };
    let zeek = (zeek != Zeek::default()).then(|| Box::new(zeek));
    let instances = instances.into_values().map(|name| Instance { name, host: None, port: None }).collect();
    Ok(Import { configuration: Configuration { instances, nodes, zeek, ..Configuration::empty(id) }, remarks })
}

/// Where nodes find one another, as far as the file says it in numbers.
fn addresses(instances: &BTreeMap<Host, InstanceName>) -> BTreeMap<InstanceName, IpAddr> {
    let address = |(host, name): (&Host, &InstanceName)| match host {
        Host::Address(address) => Some((name.clone(), *address)),
        Host::Here | Host::Name(_) => None,
    };
    instances.iter().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster_file::render;
    use crate::model::{ArchivePlace, ArchiveRules};

    fn files(nodes: &str, options: &str, networks: &str) -> Files {
        let source = |name: &str, text: &str| Source { name: name.into(), bytes: text.into() };
        Files {
            nodes: source("node.cfg", nodes),
            options: Some(source("zeekctl.cfg", options)),
            networks: Some(source("networks.cfg", networks)),
        }
    }

    fn import(nodes: &str, options: &str, networks: &str) -> Result<Import, ImportError> {
        read(&files(nodes, options, networks), ConfigurationId::new("1").unwrap(), "here")
    }

    fn complaints(nodes: &str, options: &str, networks: &str) -> Vec<String> {
        import(nodes, options, networks).unwrap_err().complaints.iter().map(ToString::to_string).collect()
    }

    fn remarks(nodes: &str, options: &str) -> Vec<String> {
        import(nodes, options, "").unwrap().remarks.iter().map(ToString::to_string).collect()
    }

    const SMALL: &str = "[m]\ntype=manager\nhost=localhost\n[p]\ntype=proxy\nhost=localhost\n";

    #[test]
    fn a_cluster_of_several_machines_comes_over_whole() {
        let nodes = "[DEFAULT]\nhost = 10.0.0.1\n# a comment\n[manager]\ntype = manager\n[logger-1]\ntype=logger\n\
                     [proxy-1]\ntype=proxy\nhost = [fd00::2%%eth0]\n[worker-1]\ntype=worker\nhost=sensor.example\n\
                     interface=eth0\nlb_method=af_packet\nlb_procs=3\npin_cpus=2,4\naf_packet_fanout_id=23\n\
                     env_vars=A=%(host)s,B=100%%\naux_scripts=extra.zeek more\n";
        let options = "MailTo = soc@example.com\nzeekport = 47760\nLogRotationInterval=0\nEnv_Vars=TZ=UTC\n\
                       SitePolicyScripts = local.zeek site.zeek\nPrivateAddressSpaceIsLocal = 0\nClusterBackend=broker\n\
                       StopTimeout = 20\nMemLimit = 1024\nZeekArgs = -C X::y=\"a b\"\nSitePolicyPath = /a:/b\n";
        let got = import(nodes, options, "# local\n10.0.0.0/8 The office\n\nfd00::/8\n").unwrap();
        let want = "\
            [instances]\nagent-10.0.0.1\nagent-fd00::2 =\nagent-sensor.example\n\n\
            [zeek]\nbackend = broker\nscripts = local.zeek site.zeek\nargs = -C \"X::y=a b\"\n\
            options = Notice::mail_dest=soc@example.com Site::private_address_space_is_local=F\nenv = TZ=UTC\n\
            prefixes = local\nzeekpath = /a /b\nnetworks = 10.0.0.0/8 fd00::/8\nrotation_interval = 0s\nport = 47760\n\
            metrics_port = 9991\naddresses = agent-10.0.0.1=10.0.0.1 agent-fd00::2=fd00::2\n\n\
            [logger-1]\ninstance = agent-10.0.0.1\nrole = LOGGER\nlimits = as=1048576 data=1048576 rss=1048576\n\
            stop_grace = 20s\n\n";
        assert!(render(&got.configuration).starts_with(want), "{}", render(&got.configuration));
        let workers: Vec<_> =
            got.configuration.nodes.iter().filter(|node| node.name.as_str().contains("worker")).collect();
        assert_eq!(
            workers.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
            ["worker-1-1", "worker-1-2", "worker-1-3"]
        );
        assert_eq!(
            workers.iter().map(|node| node.cpu_affinity.as_ref().unwrap().to_string()).collect::<Vec<_>>(),
            ["2", "4", "2"]
        );
        let worker = workers[0];
        assert_eq!(worker.interface.as_deref(), Some("af_packet::eth0"));
        assert_eq!(worker.env, [("A", "sensor.example"), ("B", "100%")].map(|(a, b)| (a.into(), b.into())).into());
        assert_eq!(worker.options, [("AF_Packet::fanout_id".into(), "23".into())].into());
        assert_eq!(worker.zeek_args(), ["extra.zeek", "more"]);
        assert_eq!(got.remarks, []);
    }

    #[test]
    fn what_becomes_of_logs_comes_over() {
        let rules = |options: &str| import(SMALL, options, "").unwrap().configuration.zeek.unwrap().archive;
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let text = "LogDir = /srv/logs\nCompressLogs = 0\nLogExpireInterval = 30 days\nMinDiskSpace = 5\n\
                    KeepLogs = conn.*  *summary*\nCompressCmd = xz -T1\nCompressExtension = xz\n";
        let want = ArchiveRules {
            place: ArchivePlace::At("/srv/logs".into()),
            compress: false,
            compressor: ["xz", "-T1"].map(str::to_owned).into(),
            extension: "xz".into(),
            keep: ["conn.*", "*summary*"].map(str::to_owned).into(),
            keep_age: Some(30 * day),
            min_free: 5,
            ..ArchiveRules::default()
        };
        assert_eq!(rules(text), want);
        assert_eq!(rules(""), ArchiveRules::default());
        for (text, want) in [("0", None), ("7", Some(7 * day)), ("1 day", Some(day)), ("48hr", Some(2 * day))] {
            assert_eq!(rules(&format!("LogExpireInterval = {text}\n")).keep_age, want, "{text}");
        }
        assert_eq!(
            complaints(SMALL, "LogDir = logs\nLogExpireInterval = 3 weeks\nMinDiskSpace = 90\n", ""),
            [
                "zeekctl.cfg:1: LogDir: `logs` is no absolute directory: write it in full",
                "zeekctl.cfg:2: LogExpireInterval: `3 weeks` is no time: write such as 30, 30 days, 12 hrs or 90 mins",
                "zeekctl.cfg:3: MinDiskSpace: `90` is more than 40 percent, of which people would be told all the time",
            ]
        );
    }

    #[test]
    fn where_the_files_are_silent_it_is_as_zeekctl_has_it() {
        let got = import(SMALL, "", "").unwrap().configuration;
        assert_eq!(got.instances.len(), 1);
        assert_eq!(got.instances[0].name.as_str(), "agent-here");
        let zeek = got.zeek.unwrap();
        assert_eq!((zeek.port, zeek.metrics_port), (Some(27_760), Some(9991)));
        assert_eq!((zeek.prefixes, zeek.scripts), (vec!["local".to_owned()], vec!["local".to_owned()]));
        assert_eq!(zeek.rotation_interval, Some(std::time::Duration::from_secs(3600)));
        assert!(got.nodes.iter().all(|node| node.stop_grace == std::time::Duration::from_secs(60)));
    }

    #[test]
    fn a_standalone_node_is_one_without_a_role_and_not_called_zeek() {
        let nodes = "[zeek]\ntype=standalone\nhost=127.0.0.1\ninterface=eth0\n";
        let got = import(nodes, "", "").unwrap();
        let node = &got.configuration.nodes[0];
        assert_eq!((node.name.as_str(), node.role), ("zeek-node", crate::model::Role::None));
        assert_eq!(node.interface.as_deref(), Some("eth0"));
        assert_eq!(
            remarks(nodes, ""),
            ["node.cfg:1: [zeek]: is called zeek-node here: a section [zeek] is what all Zeek nodes share"]
        );
    }

    #[test]
    fn packets_are_shared_out_as_zeekctl_does_it() {
        let worker = |more: &str| {
            let nodes = format!("{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=eth0\nlb_procs=2\n{more}");
            let options =
                "PFRINGClusterType = 5-tuple\nlb_custom.InterfacePrefix = x::\nlb_custom.InterfaceSuffix = :y\n";
            let nodes = import(&nodes, options, "").unwrap().configuration.nodes;
            let line = |node: &std::sync::Arc<crate::model::Node>| {
                let env: Vec<String> = node.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {} {}", node.name, node.interface.as_deref().unwrap_or_default(), env.join(" "))
            };
            nodes[2..].iter().map(line).collect::<Vec<String>>()
        };
        assert_eq!(worker("lb_method=interfaces\nlb_interfaces=a, b"), ["w-1 b ", "w-2 a "]);
        assert_eq!(worker("lb_method=custom"), ["w-1 x::eth0:y ", "w-2 x::eth0:y "]);
        let snf = "SNF_FLAGS=0x101 SNF_NUM_RINGS=9";
        assert_eq!(
            worker("lb_method=myricom\nenv_vars=SNF_NUM_RINGS=9"),
            [format!("w-1 eth0 {snf}"), format!("w-2 eth0 {snf}")]
        );
        let ring =
            "PCAP_PF_RING_APPNAME=zeek-eth0 PCAP_PF_RING_CLUSTER_ID=21 PCAP_PF_RING_USE_CLUSTER_PER_FLOW_5_TUPLE=1";
        assert_eq!(worker("lb_method=pf_ring"), [format!("w-1 eth0 {ring}"), format!("w-2 eth0 {ring}")]);
        let got = {
            let nodes =
                format!("{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=zc:eth0\nlb_procs=2\nlb_method=pf_ring\n");
            let nodes = import(&nodes, "PFRINGClusterType=5-tuple\n", "").unwrap().configuration.nodes;
            nodes[2..].iter().map(|node| node.interface.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(got, ["zc:eth0@0", "zc:eth0@1"]);
    }

    #[test]
    fn every_key_that_is_left_out_is_named_with_the_reason() {
        let nodes = format!("{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=e\nether=1\nmy_plugin_key=2\n");
        let options = "# no\nCronCmd = x\nMailHostUpDown = 1\nPluginX.key = 1\nMailTu = x\n";
        let got = remarks(&nodes, options);
        let want = [
            "node.cfg:11: [w] ether: is left out: zeekctl itself makes nothing of it, or overwrites it",
            "node.cfg:12: [w] my_plugin_key: is no key of zeekctl, or one of a plugin: it is left out (the nearest are",
            "zeekctl.cfg:2: CronCmd: is left out: there is no cron: nodes are watched all the time",
            "zeekctl.cfg:3: MailHostUpDown: is left out: mail is not sent: follow `watchpost events`",
            "zeekctl.cfg:4: PluginX.key: belongs to a plugin of zeekctl: it is left out",
            "zeekctl.cfg:5: MailTu: is no key of zeekctl, which ignores it, and so it is left out: did you mean `mailto`?",
        ];
        assert_eq!(got.len(), want.len(), "{got:#?}");
        got.iter().zip(want).for_each(|(got, want)| assert!(got.starts_with(want), "{got}"));
    }

    #[test]
    fn keys_that_are_idle_where_they_stand_are_named() {
        let nodes = format!(
            "{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=af_packet::e\naf_packet_fanout_id=1\n\
             lb_interfaces=a,b\npin_cpus=1,2\n[v]\ntype=worker\nhost=localhost\ninterface=e\nlb_procs=1\n\
             lb_method=custom\naf_packet_buffer_size=5\nlb_interfaces=a\npin_cpus=1,2\n"
        );
        let of_af_packet = "is left out: zeekctl heeds it only where lb_procs shares out an interface of AF_PACKET";
        let of_interfaces = "is left out: zeekctl heeds it only where lb_method is interfaces";
        assert_eq!(
            remarks(&nodes, ""),
            [
                format!("node.cfg:11: [w] af_packet_fanout_id: {of_af_packet}"),
                format!("node.cfg:12: [w] lb_interfaces: {of_interfaces}"),
                "node.cfg:13: [w] pin_cpus: is left out but for its first processor: the node is one process, without \
                 lb_procs"
                    .to_owned(),
                format!("node.cfg:20: [v] af_packet_buffer_size: {of_af_packet}"),
                format!("node.cfg:21: [v] lb_interfaces: {of_interfaces}"),
            ]
        );
    }

    #[test]
    fn what_zeekctl_refuses_is_refused_all_at_once() {
        let nodes = "[m]\ntype=manger\n[w]\ntype=worker\nhost=h\nlb_procs=0\nlb_method=x\npin_cpus=0-3\n[a b]\ntype=proxy\nhost=h\n";
        let options =
            "BroPort = 1\nMailTo = \"x\"\nDebug = yes\nZeekPort = 70000\nLogRotationInterval = 1h\nnonsense\n";
        assert_eq!(
            complaints(nodes, options, "10.0.0.0\n"),
            [
                "node.cfg:1: [m]: has no `host`, which every such node needs",
                "node.cfg:2: [m] type: `manger` is no type: did you mean `manager`?",
                "node.cfg:3: [w]: has no `interface`, which every such node needs",
                "node.cfg:6: [w] lb_procs: `0` is no number from 1 to 1024",
                "node.cfg:7: [w] lb_method: `x` is no method: known are af_packet, pf_ring, myricom, custom, interfaces",
                "node.cfg:8: [w] pin_cpus: `0-3` is no processor: write numbers from 0 on with commas between them",
                "node.cfg:9: [a b]: node name `a b` may hold only letters, digits and . _ - @ : +",
                "zeekctl.cfg:1: BroPort: is called ZeekPort by now, and zeekctl refuses it",
                "zeekctl.cfg:2: MailTo: is in quotes, which zeekctl refuses: write it without",
                "zeekctl.cfg:3: Debug: `yes` is neither: write 1 or 0",
                "zeekctl.cfg:4: ZeekPort: `70000` is not a port: write a number from 1 to 65535",
                "zeekctl.cfg:5: LogRotationInterval: `1h` is no number from 0 on",
                "zeekctl.cfg:6: `nonsense` is not of the form KEY = VALUE",
                "networks.cfg:1: `10.0.0.0` is no network: write ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8",
            ]
        );
    }

    #[test]
    fn what_is_no_cluster_is_refused() {
        let worker = "[w]\ntype=worker\nhost=h\ninterface=e\n";
        for (nodes, want) in [
            ("", "there is no node"),
            (worker, "there is no manager"),
            ("[m]\ntype=manager\nhost=h\n", "there is no proxy"),
            (&format!("{SMALL}[n]\ntype=manager\nhost=localhost\n"), "there are several managers"),
            (&format!("{SMALL}[s]\ntype=standalone\nhost=localhost\n"), "a standalone node is the only one there is"),
            (&format!("{SMALL}{worker}"), "the manager is on a loopback address, and other nodes are not"),
            (&format!("{SMALL}[M]\ntype=proxy\nhost=localhost\n"), "makes a second node of the name `M`"),
            (
                &format!(
                    "{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=af_packet::e\nlb_procs=2\nlb_method=af_packet\n"
                ),
                "begins with af_packet:: already",
            ),
            (
                &format!("{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=e\nlb_procs=2\nlb_method=interfaces\n"),
                "has 0 interfaces for 2 processes: name one for each",
            ),
            (&format!("{SMALL}[w]\ntype=worker\nhost=localhost\ninterface=e\nlb_procs=2\n"), "needs an `lb_method`"),
        ] {
            let got = complaints(nodes, "", "");
            assert!(got.len() == 1 && got[0].contains(want), "{want}: {got:?}");
        }
    }
}

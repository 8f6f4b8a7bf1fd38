//! Configurations of all kinds: sound ones, and ones that only a hostile or confused client would send.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use watchpost::bundle::{BundleId, Digest};
use watchpost::model::{
    ArchivePlace, ArchiveRules, Backend, Bytes, Capability, Configuration, ConfigurationId, CpuShare, Cpus, Encrypt,
    Instance, InstanceName, Limit, Liveness, Loss, Network, Node, NodeFiles, NodeName, NodeState, OutputWish, Probe,
    ProbeBy, Quotas, Ready, ReadyBy, Resource, RestartMode, RestartPolicy, Role, RunAs, Zeek, ZeekHealth, ZeekNode,
};

pub fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}

/// A port out of few, so that clashes are common.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 2199..2203u16, 8999..9004u16, Just(2150), any::<u16>()]
}

fn host() -> impl Strategy<Value = Option<IpAddr>> {
    option::of(prop_oneof![
        (1..4u8).prop_map(|last| [10, 0, 0, last].into()),
        any::<[u8; 15]>().prop_map(|rest| {
            let mut address = [0xfd; 16];
            address[1..].copy_from_slice(&rest);
            address.into()
        })
    ])
}

/// Any time that a person would write.
fn time() -> impl Strategy<Value = Duration> {
    (0..400_000u64, prop_oneof![Just(0), Just(500_000_000), 0..1_000_000_000u32])
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-e]", "[A-Za-z0-9_][A-Za-z0-9._@:+-]{0,9}"]
}

/// Text without control characters or spaces around it.
fn plain() -> impl Strategy<Value = String> {
    "[\\PC&&\\S]([\\PC]{0,8}[\\PC&&\\S])?"
}

/// Text that programs can be handed.
fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/=%$#; '\"\\\\\n\t]{0,8}", "[^\0]{0,8}"]
}

fn assignments() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[^\0=-][^\0=]{0,5}", word(), 0..3)
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    let mode = prop::sample::select(vec![RestartMode::Always, RestartMode::OnFailure, RestartMode::Never]);
    let factor = (100..=10_000u32).prop_map(|hundredths| format!("{}.{:02}", hundredths / 100, hundredths % 100));
    (mode, (time(), factor, time(), 0..=100u8), time(), any::<u32>(), time()).prop_map(
        |(mode, (delay, factor, max_delay, jitter), stable, limit, window)| {
            let factor = factor.parse().unwrap();
            RestartPolicy { mode, delay, factor, max_delay, jitter, stable, limit, window }
        },
    )
}

fn ready() -> impl Strategy<Value = Ready> {
    let by = prop_oneof![
        time().prop_map(ReadyBy::Settle),
        (1..=u16::MAX).prop_map(ReadyBy::Port),
        place().prop_map(ReadyBy::Tcp),
        Just(ReadyBy::Notify),
        Just(ReadyBy::Zeek),
        Just(ReadyBy::Usual),
    ];
    (by, option::of(time())).prop_map(|(by, within)| Ready { by, within })
}

fn liveness() -> impl Strategy<Value = Liveness> {
    let by = prop_oneof![
        (1..=u16::MAX).prop_map(ProbeBy::Port),
        place().prop_map(ProbeBy::Tcp),
        ("[a-z]{1,4}", vec(word(), 0..3))
            .prop_map(|(program, words)| { ProbeBy::Exec([program].into_iter().chain(words).collect()) }),
    ];
    let probe = (by, time(), time(), 1..9u32);
    let probe = probe.prop_map(|(by, interval, timeout, failures)| Probe { by, interval, timeout, failures });
    (option::of(time()), option::of(probe)).prop_map(|(watchdog, probe)| Liveness { watchdog, probe })
}

fn place() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1..=u16::MAX).prop_map(SocketAddr::from)
}

fn run_as() -> impl Strategy<Value = RunAs> {
    let resource = prop::sample::select(Resource::ALL);
    let limit = (option::of(0..u64::MAX), option::of(0..u64::MAX)).prop_map(|(soft, hard)| Limit { soft, hard });
    let capability = prop::sample::select(Capability::all().collect::<Vec<_>>());
    (
        (vec("[^\0-\x1f]{1,8}", 0..3), option::of(0..0o1000u32), option::of(-20..20)),
        (btree_map(resource, limit, 0..3), btree_set(capability, 0..3)),
        (any::<bool>(), option::of(plain().prop_map(|text| format!("/{text}"))), quotas()),
    )
        .prop_map(|((groups, umask, nice), (limits, capabilities), (no_new_privs, env_file, quotas))| RunAs {
            groups,
            umask,
            nice,
            limits,
            capabilities,
            no_new_privs,
            env_file,
            quotas,
        })
}

fn output() -> impl Strategy<Value = OutputWish> {
    let sizes = (option::of(4096..u64::MAX), option::of(any::<u64>()));
    (sizes, option::of(time()), option::of(1..10_000u32), option::of(any::<bool>())).prop_map(
        |((max_bytes, keep_bytes), max_age, keep_files, compress)| OutputWish {
            max_bytes,
            max_age,
            keep_files,
            keep_bytes,
            compress,
        },
    )
}

fn quotas() -> impl Strategy<Value = Quotas> {
    let memory = option::of(any::<u64>().prop_map(Bytes));
    let cpu = option::of(any::<u32>().prop_map(CpuShare));
    (memory, cpu, option::of(0..=u64::from(u32::MAX))).prop_map(|(memory_max, cpu_max, pids_max)| Quotas {
        memory_max,
        cpu_max,
        pids_max,
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

prop_compose! {
    fn archive_of_any_kind()(
        place in prop_oneof![
            Just(ArchivePlace::Usual), Just(ArchivePlace::Nowhere),
            plain().prop_map(|text| ArchivePlace::At(format!("/{text}"))),
        ],
        (compress, min_free) in (any::<bool>(), 0..=40u8),
        (command, compressor) in (option::of((word(), word())), option::of((word(), word()))),
        (extension, keep) in ("[a-z0-9]{1,5}", vec(word(), 0..3)),
        keep_age in option::of((0..400_000_000u64).prop_map(Duration::from_secs)),
        keep_bytes in any::<Option<u64>>(),
    ) -> ArchiveRules {
        let words = |words: Option<(String, String)>| {
            let words = words.filter(|(program, _)| !program.is_empty());
            words.map(|(program, word)| vec![program, word]).unwrap_or_default()
        };
        let (command, compressor) = (words(command), words(compressor));
        ArchiveRules { place, compress, compressor, extension, command, keep, keep_age, keep_bytes, min_free }
    }
}

prop_compose! {
    fn zeek_of_any_kind()(
        (scripts, args, prefixes) in (vec("[^\0-][^\0]{0,8}", 0..3), vec(word(), 0..3), vec("[^\0-][^\0]{0,4}", 0..2)),
        (path, script_path) in (vec("/[^\0:]{0,8}", 0..2), vec("/[^\0:]{0,8}", 0..2)),
        (options, env) in (assignments(), assignments()),
        networks in vec((address(), 0..=32u8).prop_map(|(address, bits)| Network { address, bits }), 0..3),
        networks_file in option::of(plain().prop_map(|text| format!("/{text}"))),
        (backend, encrypt, zeromq_keys) in (
            prop::sample::select(Backend::ALL.to_vec()),
            prop::sample::select(vec![Encrypt::Auto, Encrypt::Yes, Encrypt::No]),
            1..9_u32,
        ),
        rotation_interval in option::of((0..400_000u64).prop_map(Duration::from_secs)),
        (port, metrics_port) in (option::of(1..=u16::MAX), option::of(port())),
        zeromq_ports in option::of([1..=u16::MAX, 1..=u16::MAX]),
        (hash_seed, metrics_address) in (any::<Option<u32>>(), option::of(address())),
        addresses in btree_map("[A-Z]", address(), 0..2),
        ((pcap_snaplen, pcap_bufsize), archive, (heartbeat, loss_above, loss_for)) in (
            (any::<Option<u32>>(), any::<Option<u32>>()),
            archive_of_any_kind(),
            (option::of(time()), option::of(0..=10_000u16), option::of(time())),
        ),
    ) -> Zeek {
        let health = ZeekHealth { heartbeat, loss_above: loss_above.map(Loss::new), loss_for };
        let addresses =
            addresses.iter().map(|(name, address)| (InstanceName::new(name).unwrap(), *address)).collect();
        Zeek {
            backend, encrypt, zeromq_keys, scripts, args, options, env, prefixes, path, script_path, networks, networks_file,
            rotation_interval, archive, metrics_address, port, metrics_port, zeromq_ports, hash_seed, addresses,
            pcap_snaplen, pcap_bufsize, health,
        }
    }
}

/// What Zeek nodes share, or nothing.
fn zeek() -> BoxedStrategy<Option<Box<Zeek>>> {
    let is_something = |zeek: &Zeek| *zeek != Zeek::default();
    option::of(zeek_of_any_kind()).prop_map(move |zeek| zeek.filter(is_something).map(Box::new)).boxed()
}

/// Files that were found, or were not looked for yet.
fn files() -> BoxedStrategy<Box<NodeFiles>> {
    let bundle = any::<[u8; 4]>().prop_map(|content| BundleId::new(Digest::of(&content)));
    let files = (vec("[^\0-][^\0]{0,8}", 1..3), option::of(bundle));
    files.prop_map(|(paths, bundle)| Box::new(NodeFiles { paths, bundle })).boxed()
}

prop_compose! {
    /// A node of any kind whose every text could be handed to a program.
    pub fn node(name: NodeName, instance: InstanceName)(
        (role, port, metrics_port) in (role(), option::of(port()), option::of(port())),
        (mut scripts, args, command) in (vec("[^\0-][^\0]{0,8}", 0..3), vec(word(), 0..2), vec(word(), 0..4)),
        (options, env) in (assignments(), assignments()),
        (interface, user) in (option::of(plain()), option::of(plain())),
        directory in option::of(plain().prop_map(|text| format!("/{text}"))),
        cpu_affinity in option::of(btree_set(0..1024u32, 1..5).prop_map(Cpus)),
        run_as in option::of(run_as()).boxed(),
        (restart, ready, stop_grace) in (option::of(restart()), option::of(ready()), time()).boxed(),
        liveness in option::of(liveness()).boxed(),
        (output, files) in (option::of(output()), option::of(files())).boxed(),
    ) -> Arc<Node> {
        scripts.sort();
        Arc::new(Node {
            role, port, metrics_port, scripts, command, options, env, interface, user, directory,
            cpu_affinity: cpu_affinity.clone(),
            zeek: (!args.is_empty()).then(|| Box::new(ZeekNode { args, knows: None })),
            run_as: run_as.clone().filter(|run_as| *run_as != RunAs::default()).map(Box::new),
            restart: restart.clone().unwrap_or_default(), ready: ready.clone().unwrap_or_default(), stop_grace,
            liveness: liveness.clone().filter(|liveness| *liveness != Liveness::default()).map(Box::new),
            files: files.clone(),
            output: output.clone().filter(|output| *output != OutputWish::default()).map(Box::new),
            ..Node::new(name.clone(), instance.clone(), role)
        })
    }
}

/// Instances and nodes under any names, with any number of reasons to complain.
pub fn configuration() -> impl Strategy<Value = Configuration> {
    let instance = (name(), host(), option::of(port())).prop_map(|(name, host, port)| Instance {
        name: InstanceName::new(&name).unwrap(),
        host,
        port,
    });
    let node = (name(), name())
        .prop_flat_map(|(name, instance)| node(NodeName::new(&name).unwrap(), InstanceName::new(&instance).unwrap()));
    (vec(instance, 0..4), vec(node, 0..6), zeek()).prop_map(|(instances, nodes, zeek)| Configuration {
        id: ConfigurationId::new("c").unwrap(),
        instances,
        nodes,
        zeek,
        peers: Vec::new(),
        keys: None,
    })
}

/// Instances and nodes under names of their own, each node on a declared instance; everything else as it comes.
pub fn named() -> impl Strategy<Value = Configuration> {
    let places = vec((host(), option::of(1..=u16::MAX)), 4);
    let instances = (btree_set("[A-Z][a-z:]{0,3}", 1..4), places).prop_map(|(names, places)| {
        let instance = |(name, (host, port)): (String, (Option<IpAddr>, _))| Instance {
            name: InstanceName::new(&name).unwrap(),
            host,
            port: host.and(port),
        };
        names.into_iter().zip(places).map(instance).collect::<Vec<_>>()
    });
    (instances, btree_set("[a-e][0-9]", 0..8)).prop_flat_map(|(instances, names)| {
        let owners: Vec<_> = instances.iter().map(|instance| instance.name.clone()).collect();
        let node = move |name: String| {
            let name = NodeName::new(&name).unwrap();
            prop::sample::select(owners.clone()).prop_flat_map(move |owner| node(name.clone(), owner))
        };
        let nodes: Vec<_> = names.into_iter().map(node).collect();
        (nodes, zeek()).prop_map(move |(nodes, zeek)| Configuration {
            id: ConfigurationId::new("c").unwrap(),
            instances: instances.clone(),
            nodes,
            zeek,
            peers: Vec::new(),
            keys: None,
        })
    })
}

/// The same node in another wanted state, which is no difference.
pub fn in_state(node: &Node, state: NodeState) -> Arc<Node> {
    Arc::new(Node { state, ..node.clone() })
}

//! From what is to what should be: exactly one change for each node and each instance, sorted by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Instance, InstanceName, Liveness, Node, NodeName, OutputWish, Probe, RunAs, ZeekNode};

/// The key under which a Zeek node differs whose cluster is another: see [`super::zeek`], which also says in what.
pub const SURROUNDINGS: &str = "surroundings";

/// What has to happen to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChange<'a> {
    /// Its definition is the same: its process stays.
    Keep(&'a Arc<Node>),
    /// It is new.
    Start(&'a Arc<Node>),
    /// Its definition differs in these keys, in the order in which cluster files list them; never empty.
    Replace { have: &'a Arc<Node>, want: &'a Arc<Node>, keys: Vec<&'static str> },
    /// It is no longer wanted.
    Remove(&'a Arc<Node>),
}

impl NodeChange<'_> {
    /// The node concerned.
    pub fn name(&self) -> &NodeName {
        match self {
            Self::Keep(node) | Self::Start(node) | Self::Remove(node) | Self::Replace { want: node, .. } => &node.name,
        }
    }
}

/// The changes that lead from the nodes of `have` to those of `want`, one per name, sorted by name.
pub fn nodes<'a>(
    have: impl IntoIterator<Item = &'a Arc<Node>>,
    want: impl IntoIterator<Item = &'a Arc<Node>>,
) -> Vec<NodeChange<'a>> {
    let named = |node: &'a Arc<Node>| (&node.name, node);
    pairs(have.into_iter().map(named).collect(), want.into_iter().map(named).collect())
        .map(|pair| match pair {
            Pair::Left(have) => NodeChange::Remove(have),
            Pair::Right(want) => NodeChange::Start(want),
            Pair::Both(have, want) => match differing_keys(have, want) {
                keys if keys.is_empty() => NodeChange::Keep(want),
                keys => NodeChange::Replace { have, want, keys },
            },
        })
        .collect()
}

/// The keys in which two definitions of a node differ. `state` has no effect, so it is not one of them.
fn differing_keys(have: &Node, want: &Node) -> Vec<&'static str> {
    let (nothing, bare) = (RunAs::default(), ZeekNode::default());
    // Taken apart in full, so that a new field of a node cannot be forgotten here.
    let Node {
        name: _,
        instance,
        role,
        state: _,
        port,
        metrics_port,
        scripts,
        options,
        interface,
        cpu_affinity,
        env,
        command,
        directory,
        user,
        run_as,
        files,
        zeek,
        restart,
        ready,
        liveness,
        stop_grace,
        output,
    } = have;
    let as_agent = OutputWish::default();
    let (output, want_output) = (output.as_deref(), want.output.as_deref());
    let (output, want_output) = (output.unwrap_or(&as_agent), want_output.unwrap_or(&as_agent));
    let (run_as, want_run_as) = (run_as.as_deref(), want.run_as.as_deref());
    let (run_as, want_run_as) = (run_as.unwrap_or(&nothing), want_run_as.unwrap_or(&nothing));
    let (zeek, want_zeek) = (zeek.as_deref().unwrap_or(&bare), want.zeek.as_deref().unwrap_or(&bare));
    let bundles = [files, &want.files].map(|files| files.as_deref().map(|files| files.bundle));
    let unwatched = Liveness::default();
    let liveness = [liveness, &want.liveness].map(|liveness| liveness.as_deref().unwrap_or(&unwatched));
    let probes = liveness.map(|liveness| liveness.probe.as_ref());
    let differs = |part: fn(&Probe) -> Duration| probes[0].map(part) != probes[1].map(part);
    [
        ("instance", *instance != want.instance),
        ("role", *role != want.role),
        ("port", *port != want.port),
        ("scripts", *scripts != want.scripts),
        ("interface", *interface != want.interface),
        ("cpu_affinity", *cpu_affinity != want.cpu_affinity),
        ("env", *env != want.env),
        ("metrics_port", *metrics_port != want.metrics_port),
        ("options", *options != want.options),
        ("args", zeek.args != want_zeek.args),
        ("command", *command != want.command),
        // Wherever they were found: what counts is what they are.
        ("files", bundles[0] != bundles[1]),
        ("directory", *directory != want.directory),
        ("user", *user != want.user),
        ("groups", run_as.groups != want_run_as.groups),
        ("umask", run_as.umask != want_run_as.umask),
        ("nice", run_as.nice != want_run_as.nice),
        ("limits", run_as.limits != want_run_as.limits),
        ("capabilities", run_as.capabilities != want_run_as.capabilities),
        ("no_new_privs", run_as.no_new_privs != want_run_as.no_new_privs),
        ("env_file", run_as.env_file != want_run_as.env_file),
        ("memory_max", run_as.quotas.memory_max != want_run_as.quotas.memory_max),
        ("cpu_max", run_as.quotas.cpu_max != want_run_as.quotas.cpu_max),
        ("pids_max", run_as.quotas.pids_max != want_run_as.quotas.pids_max),
        ("restart", restart.mode != want.restart.mode),
        ("restart_delay", restart.delay != want.restart.delay),
        ("restart_factor", restart.factor != want.restart.factor),
        ("restart_jitter", restart.jitter != want.restart.jitter),
        ("restart_max_delay", restart.max_delay != want.restart.max_delay),
        ("restart_stable", restart.stable != want.restart.stable),
        ("restart_limit", restart.limit != want.restart.limit),
        ("restart_window", restart.window != want.restart.window),
        ("ready", ready.by != want.ready.by),
        ("ready_within", ready.within != want.ready.within),
        ("watchdog", liveness[0].watchdog != liveness[1].watchdog),
        ("probe", probes[0].map(|probe| &probe.by) != probes[1].map(|probe| &probe.by)),
        ("probe_interval", differs(|probe| probe.interval)),
        ("probe_timeout", differs(|probe| probe.timeout)),
        ("probe_failures", probes[0].map(|probe| probe.failures) != probes[1].map(|probe| probe.failures)),
        ("stop_grace", *stop_grace != want.stop_grace),
        ("output_max_bytes", output.max_bytes != want_output.max_bytes),
        ("output_max_age", output.max_age != want_output.max_age),
        ("output_keep_files", output.keep_files != want_output.keep_files),
        ("output_keep_bytes", output.keep_bytes != want_output.keep_bytes),
        ("output_compress", output.compress != want_output.compress),
        (SURROUNDINGS, zeek.knows != want_zeek.knows),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// What has to happen to one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceChange<'a> {
    /// It is new: its agent is to be welcomed.
    Added(&'a Instance),
    /// It is no longer wanted: its agent is to stand by.
    Removed(&'a Instance),
    /// It is wanted still, over the same link.
    Kept(&'a Instance),
    /// It is wanted still, but its link has to be made anew: the controller dials another place, or none any more.
    Reconnected { have: &'a Instance, want: &'a Instance },
}

impl InstanceChange<'_> {
    /// The instance concerned.
    pub fn name(&self) -> &InstanceName {
        match self {
            Self::Added(instance)
            | Self::Removed(instance)
            | Self::Kept(instance)
            | Self::Reconnected { want: instance, .. } => &instance.name,
        }
    }
}

/// The changes that lead from the instances of `have` to those of `want`, one per name, sorted by name.
pub fn instances<'a>(have: &'a [Instance], want: &'a [Instance]) -> Vec<InstanceChange<'a>> {
    let by_name = |all: &'a [Instance]| all.iter().map(|instance| (&instance.name, instance)).collect();
    pairs(by_name(have), by_name(want))
        .map(|pair| match pair {
            Pair::Left(have) => InstanceChange::Removed(have),
            Pair::Right(want) => InstanceChange::Added(want),
            Pair::Both(have, want) if is_reached_as_before(have, want) => InstanceChange::Kept(want),
            Pair::Both(have, want) => InstanceChange::Reconnected { have, want },
        })
        .collect()
}

/// Whether the same link serves both. Where the agent dials, its address is only an observation.
fn is_reached_as_before(have: &Instance, want: &Instance) -> bool {
    have.port == want.port && (want.port.is_none() || want.host.is_none() || want.host == have.host)
}

/// What is on either side under one name.
enum Pair<T> {
    Left(T),
    Right(T),
    Both(T, T),
}

/// Every name of either side once, sorted.
fn pairs<'a, K: Ord, T: ?Sized>(
    have: BTreeMap<&'a K, &'a T>,
    want: BTreeMap<&'a K, &'a T>,
) -> impl Iterator<Item = Pair<&'a T>> {
    let names: BTreeSet<&K> = have.keys().chain(want.keys()).copied().collect();
    names.into_iter().filter_map(move |name| match (have.get(name), want.get(name)) {
        (Some(have), Some(want)) => Some(Pair::Both(*have, *want)),
        (Some(have), None) => Some(Pair::Left(*have)),
        (None, Some(want)) => Some(Pair::Right(*want)),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bundle::{BundleId, Digest};
    use crate::model::{NodeFiles, NodeState, RestartMode, Role};

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node::new(NodeName::new(name).unwrap(), InstanceName::new("one").unwrap(), Role::Worker))
    }

    fn instance(name: &str, host: Option<[u8; 4]>, port: Option<u16>) -> Instance {
        Instance { name: InstanceName::new(name).unwrap(), host: host.map(Into::into), port }
    }

    #[test]
    fn every_node_of_either_side_changes_exactly_once() {
        let (have, mut want) = ([node("a"), node("b"), node("c")], [node("d"), node("c"), node("b")]);
        let changed = Arc::make_mut(&mut want[2]);
        changed.stop_grace = Duration::ZERO;
        changed.restart.mode = RestartMode::Never;
        let changes = nodes(&have, &want);
        assert_eq!(
            changes,
            [
                NodeChange::Remove(&have[0]),
                NodeChange::Replace { have: &have[1], want: &want[2], keys: vec!["restart", "stop_grace"] },
                NodeChange::Keep(&want[1]),
                NodeChange::Start(&want[0]),
            ]
        );
        assert_eq!(changes.iter().map(|change| change.name().as_str()).collect::<String>(), "abcd");
    }

    #[test]
    fn a_wanted_state_is_no_difference() {
        let (have, mut want) = (node("a"), node("a"));
        Arc::make_mut(&mut want).state = NodeState::Stopped;
        assert_eq!(nodes(&[have], std::slice::from_ref(&want)), [NodeChange::Keep(&want)]);
    }

    #[test]
    fn files_differ_by_what_they_are_and_not_by_where_they_were_found() {
        let files = |paths: &[&str], content: &[u8]| {
            let (mut node, paths) = (node("a"), paths.iter().map(|path| (*path).to_owned()).collect());
            let bundle = Some(BundleId::new(Digest::of(content)));
            Arc::make_mut(&mut node).files = Some(Box::new(NodeFiles { paths, bundle }));
            node
        };
        let (have, elsewhere, others) = (files(&["site"], b"1"), files(&["/opt/site"], b"1"), files(&["site"], b"2"));
        assert_eq!(nodes([&have], [&elsewhere]), [NodeChange::Keep(&elsewhere)]);
        for (have, want) in [(&have, &others), (&node("a"), &have), (&have, &node("a"))] {
            assert_eq!(nodes([have], [want]), [NodeChange::Replace { have, want, keys: vec!["files"] }]);
        }
    }

    #[test]
    fn an_instance_is_reconnected_only_if_the_controller_dials_otherwise() {
        let (here, there) = (Some([10, 0, 0, 1]), Some([10, 0, 0, 2]));
        for (have, want, kept) in [
            ((None, None), (None, None), true),
            ((None, None), (here, None), true), // only seen, not dialled
            ((here, None), (there, None), true),
            ((here, Some(1)), (here, Some(1)), true),
            ((here, Some(1)), (there, Some(1)), false),
            ((here, Some(1)), (here, Some(2)), false),
            ((here, Some(1)), (here, None), false),
            ((here, None), (here, Some(1)), false),
        ] {
            let (have, want) = ([instance("i", have.0, have.1)], [instance("i", want.0, want.1)]);
            let change = instances(&have, &want).remove(0);
            assert_eq!(change == InstanceChange::Kept(&want[0]), kept, "{change:?}");
        }
    }

    #[test]
    fn instances_come_and_go() {
        let (have, want) = ([instance("b", None, None)], [instance("a", None, None)]);
        let changes = instances(&have, &want);
        assert_eq!(changes, [InstanceChange::Added(&want[0]), InstanceChange::Removed(&have[0])]);
        assert_eq!(changes[0].name().as_str(), "a");
    }
}

//! Configurations as the controller keeps them from one deployment to the next: encoded.
//!
//! Definitions take a fifth of the room so, and most of the time nobody looks at them. Slots that came of one another
//! share the bytes that are the same in both.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{Slot, Stored};
use crate::bundle::BundleId;
use crate::message::agent::Share;
use crate::message::frame::{self, FrameError};
use crate::model::{
    Configuration, ConfigurationId, CurveKeys, Instance, InstanceName, Node, NodeName, NodeState, Peer, Role,
};
use crate::plan::order::{RANKS, rank};
use crate::plan::{self, Slowest};

/// One configuration, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: ConfigurationId,
    pub instances: Arc<[Instance]>,
    /// Both of these, with which every share of it begins.
    front: Arc<[u8]>,
    /// What Zeek nodes share, encoded.
    zeek: Arc<[u8]>,
    /// All members of the Zeek cluster.
    peers: Arc<[Peer]>,
    /// Each node behind its length.
    nodes: Arc<[u8]>,
    /// Where in that the nodes of each instance begin: one that comes back is not looked for among all others.
    shares: Arc<BTreeMap<InstanceName, Box<[u32]>>>,
    /// The files of the nodes of each instance that has some.
    bundles: Arc<BTreeMap<InstanceName, BTreeSet<BundleId>>>,
    slowest: Slowest,
    /// How many of its nodes start when, in the order of roles.
    pub ranks: [usize; RANKS],
    /// The number of the keys that its Zeek nodes are to have, if they are to have any.
    pub keys: Option<u32>,
}

/// Which node, and where: what its encoding begins with, in the order of [`Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Head<'a> {
    pub name: &'a str,
    pub instance: &'a str,
    pub role: Role,
    pub state: NodeState,
    pub port: Option<u16>,
    pub metrics_port: Option<u16>,
}

const LENGTH: usize = size_of::<u32>();
/// Most nodes take no more, in bytes.
const USUAL: usize = 128;

impl Kept {
    /// Encodes `configuration`.
    pub fn new(configuration: &Configuration) -> Self {
        let Configuration { id, instances, nodes, zeek, peers: _, keys: _ } = configuration;
        let (mut bytes, mut shares) = (Vec::with_capacity(nodes.len() * USUAL), BTreeMap::<_, Vec<_>>::new());
        let (mut places, mut ranks) = (Vec::with_capacity(nodes.len()), [0; RANKS]);
        for node in nodes {
            ranks[rank(node.role)] += 1;
            let start = bytes.len();
            let at =
                u32::try_from(start).expect("a configuration came in frames, or in a request, of far less than 4 GiB");
            places.push(at);
            bytes.extend_from_slice(&[0; LENGTH]);
            // Writing to memory does not fail, and serde has a form for everything in a node.
            frame::encode_body(&mut bytes, &**node).expect("a node can be encoded");
            let length = u32::try_from(bytes.len() - start - LENGTH).expect("a node came in a frame of 16 MiB at most");
            bytes[start..start + LENGTH].copy_from_slice(&length.to_ne_bytes());
        }
        // Mostly the nodes of an instance stand together.
        let mut places = &places[..];
        for together in nodes.chunk_by(|one, next| one.instance == next.instance) {
            let (these, others) = places.split_at(together.len());
            shares.entry(together[0].instance.clone()).or_default().extend_from_slice(these);
            places = others;
        }
        let shares = shares.into_iter().map(|(name, places)| (name, places.into())).collect();
        let mut bundles = BTreeMap::<InstanceName, BTreeSet<BundleId>>::new();
        for node in nodes {
            if let Some(bundle) = node.files.as_ref().and_then(|files| files.bundle) {
                bundles.entry(node.instance.clone()).or_default().insert(bundle);
            }
        }
        let (id, instances, slowest) = (id.clone(), Arc::from(&**instances), Slowest::of(nodes));
        let (front, zeek, peers) = (encoded(&(&id, &instances)), encoded(zeek), configuration.zeek_cluster().collect());
        let (keys, shares, bundles) = (configuration.number_of_keys(), Arc::new(shares), Arc::new(bundles));
        Self { id, instances, front, zeek, peers, nodes: bytes.into(), shares, bundles, slowest, ranks, keys }
    }

    /// The configuration that was encoded by [`Kept::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        Ok(Self::new(&frame::decode_body(bytes, "Configuration")?))
    }

    /// The whole as a message has it.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_behind(&[])
    }

    /// The same behind these bytes.
    pub fn encode_behind(&self, before: &[u8]) -> Vec<u8> {
        self.encode_with(before, self.count(), self.nodes.len(), self.encoded(), &[], None)
    }

    /// The same with the addresses of instances that have none filled in.
    pub fn with_hosts(&self, seen: &BTreeMap<InstanceName, IpAddr>) -> Self {
        let mut instances = self.instances.to_vec();
        plan::resolve_hosts(&mut instances, seen);
        self.with_instances(instances)
    }

    /// The same nodes with other instances.
    pub fn with_instances(&self, instances: Vec<Instance>) -> Self {
        Self { front: encoded(&(&self.id, &instances)), instances: instances.into(), ..self.clone() }
    }

    /// How many nodes it has.
    pub fn count(&self) -> usize {
        self.shares.values().map(|places| places.len()).sum()
    }

    /// The nodes that are not the same in `former`, in the order they were written.
    pub fn changed_since<'a>(&'a self, former: &'a Self) -> impl Iterator<Item = Head<'a>> {
        let is_same = self.has_the_nodes_of(former);
        let known: BTreeMap<&str, &[u8]> = match is_same {
            true => BTreeMap::new(),
            false => former.encoded().map(|bytes| (head(bytes).name, bytes)).collect(),
        };
        let all = self.encoded().take(if is_same { 0 } else { usize::MAX }).map(|bytes| (head(bytes), bytes));
        all.filter(move |(head, bytes)| known.get(head.name) != Some(bytes)).map(|(head, _)| head)
    }

    /// How long agents may take to go from `other` to this, if there is another.
    pub fn patience(&self, other: Option<&Self>) -> Duration {
        other.map_or(self.slowest, |other| self.slowest.or(&other.slowest)).patience()
    }

    /// The configuration as it was.
    pub fn open(&self) -> Configuration {
        self.open_with(self.nodes().collect())
    }

    /// As much of it as says which ports its nodes were given: those that have none are left out.
    pub fn open_ports(&self) -> Configuration {
        let has_any = |bytes: &&[u8]| {
            let Head { port, metrics_port, .. } = head(bytes);
            port.is_some() || metrics_port.is_some()
        };
        self.open_with(self.encoded().filter(has_any).map(node).collect())
    }

    fn open_with(&self, nodes: Vec<Arc<Node>>) -> Configuration {
        let zeek = frame::decode_body(&self.zeek, "Zeek").expect("what was encoded here");
        let (id, instances) = (self.id.clone(), self.instances.to_vec());
        Configuration { id, instances, nodes, zeek, peers: Vec::new(), keys: None }
    }

    /// What the agent of `instance` needs to know of it: see [`Configuration::share_of`].
    pub fn share_of(&self, instance: &InstanceName) -> Share {
        self.share_with_keys(instance, None)
    }

    /// The same with keys, if it has nodes that are to have them.
    pub fn share_with_keys(&self, instance: &InstanceName, keys: Option<&CurveKeys>) -> Share {
        let count = self.shares.get(instance).map_or(0, |places| places.len());
        let size = self.encoded_on(instance).map(<[u8]>::len).sum();
        let (own, others): (Vec<&Peer>, Vec<&Peer>) = self.peers.iter().partition(|peer| peer.instance == *instance);
        let has_members = !own.is_empty();
        let others = if has_members { others } else { Vec::new() };
        let keys = keys.filter(|_| has_members);
        Share::encoded(self.encode_with(&[], count, size, self.encoded_on(instance), &others, keys))
    }

    /// With these nodes, `count` of them, which take `size` bytes or less, and with those peers and keys; behind `before`.
    fn encode_with<'a>(
        &self,
        before: &[u8],
        count: usize,
        size: usize,
        nodes: impl Iterator<Item = &'a [u8]>,
        peers: &[&Peer],
        keys: Option<&CurveKeys>,
    ) -> Vec<u8> {
        let (peers, keys) = (encoded(&peers), encoded(&keys));
        let around = before.len() + self.front.len() + 2 * LENGTH + self.zeek.len() + peers.len() + keys.len();
        let mut bytes = Vec::with_capacity(around + size);
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(&self.front);
        bytes.extend_from_slice(&encoded(&(count as u64)));
        nodes.for_each(|node| bytes.extend_from_slice(node));
        bytes.extend_from_slice(&self.zeek);
        bytes.extend_from_slice(&peers);
        bytes.extend_from_slice(&keys);
        bytes
    }

    /// Every node, in the order they were written.
    pub fn nodes(&self) -> impl Iterator<Item = Arc<Node>> {
        self.encoded().map(node)
    }

    /// Every node and its instance, in the order they were written.
    pub fn heads(&self) -> impl Iterator<Item = Head<'_>> {
        self.encoded().map(head)
    }

    /// The names of the nodes of `instance`.
    pub fn names_on(&self, instance: &InstanceName) -> impl Iterator<Item = NodeName> {
        self.encoded_on(instance).map(|bytes| head(bytes).name())
    }

    /// Whether its nodes are those of `other`, and all of them the same.
    pub fn has_the_nodes_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.nodes, &other.nodes) || self.nodes == other.nodes
    }

    /// Whether any node is to have files.
    pub fn has_files(&self) -> bool {
        !self.bundles.is_empty()
    }

    /// The files that the nodes of `instance` are to have.
    pub fn bundles_of(&self, instance: &InstanceName) -> BTreeSet<BundleId> {
        self.bundles.get(instance).cloned().unwrap_or_default()
    }

    /// Whether that instance is in it.
    pub fn has(&self, name: &InstanceName) -> bool {
        self.instances.iter().any(|instance| instance.name == *name)
    }

    /// Whether Zeek is to look at some of its nodes before they are launched.
    pub fn has_zeek(&self) -> bool {
        self.slowest.is_looked_at()
    }

    /// Keeps the nodes only once, if they are those of `other`.
    fn share_with(&mut self, other: &Self) {
        if self.has_the_nodes_of(other) {
            (self.nodes, self.shares) = (Arc::clone(&other.nodes), Arc::clone(&other.shares));
        }
    }

    fn encoded_on(&self, instance: &InstanceName) -> impl Iterator<Item = &[u8]> {
        let places = self.shares.get(instance).into_iter().flatten();
        places.filter_map(|at| Some(split_node(self.nodes.get(*at as usize..)?)?.0))
    }

    fn encoded(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.nodes;
        std::iter::from_fn(move || {
            let (bytes, behind) = split_node(rest)?;
            rest = behind;
            Some(bytes)
        })
    }
}

fn encoded(part: &impl Serialize) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail, and serde has a form for every part of a configuration.
    frame::encode_body(&mut bytes, part).expect("a part of a configuration can be encoded");
    bytes.into()
}

impl Hash for Kept {
    /// All the rest follows from these.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.front, &self.nodes, &self.zeek).hash(state);
    }
}

/// The first node of some that were encoded here, and the others; `None` if there is none.
fn split_node(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, behind) = bytes.split_first_chunk()?;
    Some(behind.split_at(u32::from_ne_bytes(*length) as usize))
}

impl Head<'_> {
    /// The node's name.
    pub fn name(&self) -> NodeName {
        NodeName::new(self.name).expect("a name that was encoded here")
    }

    /// The name of its instance.
    pub fn instance(&self) -> InstanceName {
        InstanceName::new(self.instance).expect("a name that was encoded here")
    }
}

fn node(bytes: &[u8]) -> Arc<Node> {
    Arc::new(frame::decode_body(bytes, "node").expect("a node that was encoded here"))
}

fn head(mut bytes: &[u8]) -> Head<'_> {
    frame::take_front(&mut bytes, "node").expect("a node that was encoded here")
}

/// The three configurations; `None` where there was none yet.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    staged: Option<Kept>,
    ready: Option<Kept>,
    deployed: Option<Kept>,
}

impl Shelf {
    /// The configuration in that slot.
    pub fn get(&self, slot: Slot) -> Option<&Kept> {
        match slot {
            Slot::Staged => self.staged.as_ref(),
            Slot::Ready => self.ready.as_ref(),
            Slot::Deployed => self.deployed.as_ref(),
        }
    }

    /// What is deployed.
    pub fn deployed(&self) -> Option<&Kept> {
        self.deployed.as_ref()
    }

    /// Puts one into its slot, and shows it there.
    pub fn put(&mut self, slot: Slot, mut kept: Kept) -> &Kept {
        for other in [&self.staged, &self.ready, &self.deployed].into_iter().flatten() {
            kept.share_with(other);
        }
        let place = match slot {
            Slot::Staged => &mut self.staged,
            Slot::Ready => &mut self.ready,
            Slot::Deployed => &mut self.deployed,
        };
        place.insert(kept)
    }
}

impl From<Stored> for Shelf {
    fn from(Stored { staged, ready, deployed, .. }: Stored) -> Self {
        let mut shelf = Self::default();
        for (slot, configuration) in [(Slot::Staged, staged), (Slot::Ready, ready), (Slot::Deployed, deployed)] {
            if let Some(configuration) = configuration {
                shelf.put(slot, configuration);
            }
        }
        shelf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Backend, Encrypt, Zeek};
    use crate::trust::CurveRoot;

    #[test]
    fn a_configuration_comes_out_as_it_was_put_in() {
        let whole = configuration("c1", 9000);
        let kept = Kept::new(&whole);
        assert_eq!(kept.open(), whole);
        let mut bytes = Vec::new();
        frame::encode_body(&mut bytes, &whole).unwrap();
        assert_eq!((kept.encode(), Kept::decode(&bytes).unwrap()), (bytes, kept.clone()), "as a message has it");
        for instance in ["a", "b", "c"].map(instance) {
            assert_eq!(kept.share_of(&instance).open(), whole.share_of(&instance));
            let names: Vec<_> = whole.share_of(&instance).nodes.iter().map(|node| node.name.clone()).collect();
            assert_eq!(kept.names_on(&instance).collect::<Vec<_>>(), names);
            assert_eq!(kept.has(&instance), whole.instance(&instance).is_some());
        }
    }

    #[test]
    fn keys_are_in_the_shares_of_those_who_need_them_and_nowhere_else() {
        let mut whole = configuration("c1", 9000);
        whole.keys = Some(Box::new(CurveRoot::from([1; 32]).keys(9)));
        let kept = Kept::new(&whole);
        assert_eq!(
            (kept.open().keys, kept.keys),
            (None, Some(Zeek::KEYS)),
            "what somebody else brings is none of ours"
        );
        let keys = CurveRoot::from([2; 32]).keys(1);
        let share = |name| kept.share_with_keys(&instance(name), Some(&keys)).open();
        assert_eq!(share("a").keys.as_deref(), Some(&keys));
        let shown = format!("{:?}", kept.share_with_keys(&instance("a"), Some(&keys)));
        assert!(shown.starts_with("a configuration in ") && !shown.contains(','), "{shown}");
        assert_eq!(share("b").keys, None, "it has no Zeek nodes");
        assert_eq!(kept.share_of(&instance("a")).open().keys, None);
        for (backend, encrypt) in [(Backend::Broker, Encrypt::Auto), (Backend::ZeroMq, Encrypt::No)] {
            whole.zeek = Some(Box::new(Zeek { backend, encrypt, ..Zeek::default() }));
            assert_eq!(Kept::new(&whole).keys, None);
        }
    }

    #[test]
    fn what_is_the_same_in_several_slots_is_kept_once() {
        let kept = |id, port| Some(Kept::new(&configuration(id, port)));
        let stored =
            Stored { staged: kept("c1", 1), ready: kept("c1", 2), deployed: kept("c0", 2), ..Stored::default() };
        let shelf = Shelf::from(stored.clone());
        let [staged, ready, deployed] = Slot::ALL.map(|slot| shelf.get(slot).unwrap());
        assert!(Arc::ptr_eq(&ready.nodes, &deployed.nodes) && !Arc::ptr_eq(&staged.nodes, &ready.nodes));
        assert_eq!(
            [staged, ready, deployed].map(|kept| Some(kept.clone())),
            [stored.staged, stored.ready, stored.deployed]
        );
    }

    #[test]
    fn what_changed_is_found_and_addresses_are_no_part_of_it() {
        let (old, new) = (Kept::new(&configuration("c0", 1)), Kept::new(&configuration("c1", 2)));
        let changed: Vec<_> = new.changed_since(&old).map(|head| (head.name, head.port)).collect();
        assert_eq!(changed, [("full", Some(2))]);
        let seen = BTreeMap::from([(instance("a"), [10, 0, 0, 1].into())]);
        let placed = new.with_hosts(&seen);
        assert_eq!(placed.changed_since(&new).count(), 0);
        let mut whole = configuration("c1", 2);
        whole.instances[0].host = Some([10, 0, 0, 1].into());
        assert_eq!((placed.count(), placed), (3, Kept::new(&whole)));
    }

    fn configuration(id: &str, port: u16) -> Configuration {
        let node = |name, of| Node::new(NodeName::new(name).unwrap(), instance(of), Role::Worker);
        let full = Node {
            port: Some(port),
            command: vec!["program".into(), "".into()],
            env: [("A".into(), "b".into())].into(),
            directory: Some("/d".into()),
            ..node("full", "b")
        };
        Configuration {
            id: ConfigurationId::new(id).unwrap(),
            instances: ["a", "b"].map(|name| Instance { name: instance(name), host: None, port: None }).into(),
            nodes: [node("w", "a"), full, node("v", "a")].map(Arc::new).into(),
            zeek: Some(Box::new(Zeek { port: Some(27760), ..Zeek::default() })),
            peers: Vec::new(),
            keys: None,
        }
    }

    fn instance(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }
}

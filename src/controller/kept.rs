//! Configurations as the controller keeps them from one deployment to the next: encoded.
//!
//! Definitions take a fifth of the room so, and most of the time nobody looks at them. Slots that came of one another
//! share the bytes that are the same in both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::store::{Slot, Stored};
use crate::message::frame;
use crate::model::{Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, Peer, Zeek};
use crate::plan::Slowest;

/// One configuration, its nodes encoded.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: ConfigurationId,
    pub instances: Vec<Instance>,
    zeek: Option<Box<Zeek>>,
    /// All members of the Zeek cluster.
    peers: Arc<[Peer]>,
    /// Each node behind its length.
    nodes: Arc<[u8]>,
    /// Where in that the nodes of each instance begin: one that comes back is not looked for among all others.
    shares: Arc<BTreeMap<InstanceName, Box<[u32]>>>,
    slowest: Slowest,
}

/// Which node, and where: what its encoding begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Head<'a> {
    pub name: &'a str,
    pub instance: &'a str,
}

const LENGTH: usize = size_of::<u32>();

impl Kept {
    /// Encodes `configuration`.
    pub fn new(configuration: &Configuration) -> Self {
        let Configuration { id, instances, nodes, zeek, peers: _ } = configuration;
        let (mut bytes, mut shares) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for node in nodes {
            let start = bytes.len();
            let at =
                u32::try_from(start).expect("a configuration came in frames, or in a request, of far less than 4 GiB");
            shares.entry(node.instance.clone()).or_default().push(at);
            bytes.extend_from_slice(&[0; LENGTH]);
            // Writing to memory does not fail, and serde has a form for everything in a node.
            frame::encode_body(&mut bytes, &**node).expect("a node can be encoded");
            let length = u32::try_from(bytes.len() - start - LENGTH).expect("a node came in a frame of 16 MiB at most");
            bytes[start..start + LENGTH].copy_from_slice(&length.to_ne_bytes());
        }
        let shares = shares.into_iter().map(|(name, places)| (name, places.into())).collect();
        let (id, instances, slowest) = (id.clone(), instances.clone(), Slowest::of(nodes));
        let (zeek, peers) = (zeek.clone(), configuration.zeek_cluster().collect());
        Self { id, instances, zeek, peers, nodes: bytes.into(), shares: Arc::new(shares), slowest }
    }

    /// How long agents may take to go from `other` to this, if there is another.
    pub fn patience(&self, other: Option<&Self>) -> Duration {
        other.map_or(self.slowest, |other| self.slowest.or(&other.slowest)).patience()
    }

    /// The configuration as it was.
    pub fn open(&self) -> Configuration {
        let nodes = self.nodes().collect();
        let (id, instances, zeek) = (self.id.clone(), self.instances.clone(), self.zeek.clone());
        Configuration { id, instances, nodes, zeek, peers: Vec::new() }
    }

    /// What the agent of `instance` needs to know of it: see [`Configuration::share_of`].
    pub fn share_of(&self, instance: &InstanceName) -> Configuration {
        let nodes: Vec<_> = self.encoded_on(instance).map(node).collect();
        let peers = match nodes.iter().any(|node| node.is_in_zeek_cluster()) {
            true => self.peers.iter().filter(|peer| peer.instance != *instance).cloned().collect(),
            false => Vec::new(),
        };
        let (id, instances, zeek) = (self.id.clone(), self.instances.clone(), self.zeek.clone());
        Configuration { id, instances, nodes, zeek, peers }
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

    /// Whether that instance is in it.
    pub fn has(&self, name: &InstanceName) -> bool {
        self.instances.iter().any(|instance| instance.name == *name)
    }

    /// Keeps the nodes only once, if they are those of `other`.
    fn share_with(&mut self, other: &Self) {
        if self.nodes == other.nodes {
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

    /// Puts one into its slot.
    pub fn put(&mut self, slot: Slot, mut kept: Kept) {
        for other in [&self.staged, &self.ready, &self.deployed].into_iter().flatten() {
            kept.share_with(other);
        }
        match slot {
            Slot::Staged => self.staged = Some(kept),
            Slot::Ready => self.ready = Some(kept),
            Slot::Deployed => self.deployed = Some(kept),
        }
    }
}

impl From<Stored> for Shelf {
    fn from(Stored { staged, ready, deployed }: Stored) -> Self {
        let mut shelf = Self::default();
        for (slot, configuration) in [(Slot::Staged, staged), (Slot::Ready, ready), (Slot::Deployed, deployed)] {
            if let Some(configuration) = configuration {
                shelf.put(slot, Kept::new(&configuration));
            }
        }
        shelf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    #[test]
    fn a_configuration_comes_out_as_it_was_put_in() {
        let whole = configuration("c1", 9000);
        let kept = Kept::new(&whole);
        assert_eq!(kept.open(), whole);
        for instance in ["a", "b", "c"].map(instance) {
            assert_eq!(kept.share_of(&instance), whole.share_of(&instance));
            let names: Vec<_> = whole.share_of(&instance).nodes.iter().map(|node| node.name.clone()).collect();
            assert_eq!(kept.names_on(&instance).collect::<Vec<_>>(), names);
            assert_eq!(kept.has(&instance), whole.instance(&instance).is_some());
        }
    }

    #[test]
    fn what_is_the_same_in_several_slots_is_kept_once() {
        let stored = Stored {
            staged: Some(configuration("c1", 1)),
            ready: Some(configuration("c1", 2)),
            deployed: Some(configuration("c0", 2)),
        };
        let shelf = Shelf::from(stored.clone());
        let [staged, ready, deployed] = Slot::ALL.map(|slot| shelf.get(slot).unwrap());
        assert!(Arc::ptr_eq(&ready.nodes, &deployed.nodes) && !Arc::ptr_eq(&staged.nodes, &ready.nodes));
        assert_eq!(
            [staged, ready, deployed].map(|kept| Some(kept.open())),
            [stored.staged, stored.ready, stored.deployed]
        );
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
        }
    }

    fn instance(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }
}

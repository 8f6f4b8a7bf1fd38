//! The files of nodes on one machine: what of them has come, what is laid out, and who waits for them. What is on disk
//! stays when the agent is killed; pieces that were under way on a link are lost with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watchpost::bundle::{BundleId, Digest};
use watchpost::message::agent::{BlobPart, BlobPiece, ReadBlobsRequest, ReadBlobsResponse};
use watchpost::model::{Configuration, Node, NodeFiles, NodeName, RequestId};

/// How many pieces a bundle has.
const PIECES: u64 = 3;

/// A tree: whose, and of what.
type Tree = (NodeName, BundleId);

/// Who waits.
#[derive(Debug, Clone)]
pub enum For {
    Staging(RequestId),
    Preparation(u64),
}

#[derive(Debug, Default)]
pub struct Files {
    /// How many pieces of each are on disk.
    come: BTreeMap<BundleId, u64>,
    trees: BTreeSet<Tree>,
    waiting: Vec<(For, BTreeSet<BundleId>, Vec<Tree>)>,
    asked: BTreeMap<RequestId, BundleId>,
    requests: u64,
    linked: bool,
}

/// The same configuration with files for every other node: the same ones for the same definition.
pub fn with_files(mut configuration: Configuration) -> Configuration {
    for node in configuration.nodes.iter_mut().filter(|node| node.name.as_str() < "d") {
        let content = format!("{:?} {:?}", node.stop_grace, node.restart.mode);
        let bundle = Some(BundleId::new(Digest::of(content.as_bytes())));
        Arc::make_mut(node).files = Some(Box::new(NodeFiles { paths: vec!["site".into()], bundle }));
    }
    configuration
}

/// What the controller says to an agent that lacks something.
pub fn lent(request: ReadBlobsRequest) -> ReadBlobsResponse {
    let ReadBlobsRequest { reqid, parts } = request;
    let piece = |BlobPart { at, .. }: BlobPart| {
        assert!(at < PIECES, "nobody asks for what is behind the end");
        Ok(BlobPiece { total: PIECES, bytes: vec![at as u8] })
    };
    ReadBlobsResponse { reqid, pieces: parts.into_iter().map(piece).collect() }
}

fn tree_of(node: &Arc<Node>) -> Option<Tree> {
    Some((node.name.clone(), node.files.as_ref()?.bundle?))
}

impl Files {
    /// Somebody waits for these bundles, and for the trees of these nodes. What is to be asked for, and who waits no more.
    pub fn have(&mut self, who: For, bundles: BTreeSet<BundleId>, nodes: &[Arc<Node>]) -> Vec<ReadBlobsRequest> {
        let trees: Vec<Tree> = nodes.iter().filter_map(tree_of).filter(|tree| !self.trees.contains(tree)).collect();
        let bundles = trees.iter().map(|(_, bundle)| *bundle).chain(bundles).collect();
        self.waiting.push((who, bundles, trees));
        self.ask()
    }

    /// Those who wait for nothing more: their trees are there now.
    pub fn take_done(&mut self) -> Vec<For> {
        let come = &self.come;
        let is_there = |bundle: &BundleId| come.get(bundle) == Some(&PIECES);
        let done: Vec<_> = self.waiting.extract_if(.., |(_, bundles, _)| bundles.iter().all(&is_there)).collect();
        done.into_iter()
            .map(|(who, _, trees)| {
                self.trees.extend(trees);
                who
            })
            .collect()
    }

    pub fn link_up(&mut self) -> Vec<ReadBlobsRequest> {
        self.asked.clear();
        self.linked = true;
        self.ask()
    }

    pub fn link_down(&mut self) {
        self.linked = false;
        self.asked.clear();
    }

    /// The agent is gone, with everything it had in memory.
    pub fn killed(&mut self) {
        self.link_down();
        self.waiting.clear();
    }

    pub fn pieces(&mut self, ReadBlobsResponse { reqid, pieces }: ReadBlobsResponse) -> Vec<ReadBlobsRequest> {
        let Some(bundle) = self.asked.remove(&reqid) else { return Vec::new() };
        let come = self.come.entry(bundle).or_default();
        for piece in pieces {
            assert_eq!(piece.unwrap().bytes, [*come as u8], "the next piece comes");
            *come += 1;
        }
        self.ask()
    }

    /// Everything but what these nodes have is let go of; bundles stay while somebody waits.
    pub fn keep(&mut self, nodes: &[Arc<Node>], gone: &BTreeSet<NodeName>) {
        let kept: BTreeSet<Tree> = nodes.iter().filter_map(tree_of).collect();
        let names: BTreeSet<&NodeName> = nodes.iter().map(|node| &node.name).collect();
        assert!(names.is_disjoint(&gone.iter().collect()), "nobody is gone whose files are kept");
        self.trees.retain(|tree| kept.contains(tree));
        if self.waiting.is_empty() {
            self.come.retain(|bundle, _| kept.iter().any(|(_, kept)| kept == bundle));
        }
    }

    /// Panics unless that node finds the files that it is to have.
    pub fn assert_there(&self, node: &Arc<Node>, when: &str) {
        if let Some(tree) = tree_of(node) {
            assert!(self.trees.contains(&tree), "the files of {} are there {when}", node.name);
        }
    }

    /// One piece of each bundle at a time.
    fn ask(&mut self) -> Vec<ReadBlobsRequest> {
        if !self.linked {
            return Vec::new();
        }
        let under_way: BTreeSet<BundleId> = self.asked.values().copied().collect();
        let wanted: BTreeSet<BundleId> = self.waiting.iter().flat_map(|(_, bundles, _)| bundles).copied().collect();
        let mut asks = Vec::new();
        for bundle in wanted.difference(&under_way) {
            let at = self.come.get(bundle).copied().unwrap_or_default();
            if at < PIECES {
                self.requests += 1;
                let reqid = RequestId::new(&format!("blob-{}", self.requests)).unwrap();
                self.asked.insert(reqid.clone(), *bundle);
                asks.push(ReadBlobsRequest { reqid, parts: vec![BlobPart { digest: bundle.digest(), at, most: 1 }] });
            }
        }
        asks
    }
}

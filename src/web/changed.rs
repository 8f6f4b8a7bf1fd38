//! Which files of nodes are not the same in two configurations.

use std::collections::BTreeMap;

use super::blobs;
use super::desk::Desk;
use super::problem::Problem;
use crate::bundle::{BundleId, Manifest};
use crate::model::Configuration;

/// The bundle of each node that has one.
pub(super) struct Bundles(BTreeMap<String, BundleId>);

impl Bundles {
    pub fn of(configuration: &Configuration) -> Self {
        let nodes = configuration.nodes.iter();
        Self(nodes.filter_map(|node| Some((node.name.to_string(), node.files.as_ref()?.bundle?))).collect())
    }
}

/// What leads from the files of nodes in one configuration to those in another.
pub(super) struct ChangedFiles<'a> {
    desk: &'a Desk,
    have: Bundles,
    want: Bundles,
    /// Many nodes have the same.
    known: BTreeMap<[Option<BundleId>; 2], Vec<String>>,
}

impl<'a> ChangedFiles<'a> {
    pub fn between(desk: &'a Desk, have: Bundles, want: Bundles) -> Self {
        Self { desk, have, want, known: BTreeMap::new() }
    }

    /// The files of that node that differ, each behind `+`, `-` or `~`; or why that is not known.
    pub async fn of(&mut self, node: &str) -> Result<&[String], Problem> {
        let both = [&self.have, &self.want].map(|bundles| bundles.0.get(node).copied());
        if !self.known.contains_key(&both) {
            let files = differing(self.desk, both).await?;
            self.known.insert(both, files);
        }
        Ok(self.known.get(&both).map_or(&[], Vec::as_slice))
    }
}

/// Which files are not the same in two bundles. One that is not here any more is no reason to tell nothing else.
async fn differing(desk: &Desk, [have, want]: [Option<BundleId>; 2]) -> Result<Vec<String>, Problem> {
    let blobs = blobs::open(desk).await?;
    let list = async |bundle: Option<BundleId>| match bundle {
        Some(bundle) => blobs.manifest(bundle).await,
        None => Ok(Manifest::default()),
    };
    Ok(match (list(have).await, list(want).await) {
        (Ok(have), Ok(want)) => want.changed_since(&have).iter().map(ToString::to_string).collect(),
        (Err(error), _) | (_, Err(error)) => vec![format!("? {error}")],
    })
}

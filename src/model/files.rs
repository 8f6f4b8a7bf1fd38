//! The files that a node gets from whoever deploys it.

use serde::{Deserialize, Serialize};

use crate::bundle::BundleId;

/// What a node is given of files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFiles {
    /// As its cluster file names them, on the machine of whoever deploys.
    pub paths: Vec<String>,
    /// What was found there; `None` until somebody has read it.
    pub bundle: Option<BundleId>,
}

//! What becomes of the logs that Zeek nodes have closed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most of a disk that may be asked to be free, in percent: people are told when twice as much is left.
pub const MOST_FREE: u8 = 40;

/// What becomes of the logs that Zeek nodes have closed, and how many of them are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRules {
    pub place: ArchivePlace,
    /// Whether logs are compressed (gzip).
    pub compress: bool,
    /// What is called for each log instead, with the log's path behind its own words; empty: nothing.
    pub command: Vec<String>,
    /// How old an archived log may become.
    pub keep_age: Option<Duration>,
    /// How many bytes archived logs may have together.
    pub keep_bytes: Option<u64>,
    /// How much of a disk is to stay free, in percent: people are told when it is less. At most [`MOST_FREE`]; 0: nobody is.
    pub min_free: u8,
}

/// Where logs go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchivePlace {
    /// `archive` in the agent's state directory.
    #[default]
    Usual,
    /// Nowhere: they stay in the queue of their node.
    Nowhere,
    /// A directory on each agent's machine, absolute.
    At(String),
}

impl Default for ArchiveRules {
    fn default() -> Self {
        Self {
            place: ArchivePlace::Usual,
            compress: true,
            command: Vec::new(),
            keep_age: None,
            keep_bytes: None,
            min_free: 10,
        }
    }
}

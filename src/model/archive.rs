//! What becomes of the logs that Zeek nodes have closed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most of a disk that may be asked to be free, in percent: people are told when twice as much is left.
pub const MOST_FREE: u8 = 40;

/// What becomes of the logs that Zeek nodes have closed, and how many of them are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRules {
    pub place: ArchivePlace,
    /// Whether logs are compressed.
    pub compress: bool,
    /// What compresses them, from its standard input to its output; empty: gzip, by the agent itself.
    pub compressor: Vec<String>,
    /// What the names of compressed logs end in, without its dot.
    pub extension: String,
    /// What is called for each log instead, with the log's path behind its own words; empty: nothing.
    pub command: Vec<String>,
    /// How old an archived log may become.
    pub keep_age: Option<Duration>,
    /// Archived logs of such names stay, and do not count.
    pub keep: Vec<String>,
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

impl ArchiveRules {
    /// Whether that can be what a name ends in: it leads nowhere else.
    pub fn is_extension(text: &str) -> bool {
        let allowed = |byte: u8| byte == b'.' || byte.is_ascii_alphanumeric();
        !text.is_empty() && text.len() <= 16 && !text.starts_with('.') && text.bytes().all(allowed)
    }
}

impl Default for ArchiveRules {
    fn default() -> Self {
        Self {
            place: ArchivePlace::Usual,
            compress: true,
            compressor: Vec::new(),
            extension: "gz".into(),
            command: Vec::new(),
            keep_age: None,
            keep: Vec::new(),
            keep_bytes: None,
            min_free: 10,
        }
    }
}

//! What a node writes: its two streams, places in them, and how much of them is kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The least that a file of output may hold before it is put aside, in bytes.
pub const LEAST_OUTPUT: u64 = 4096;
/// How many files of output may be kept of each stream.
pub const MOST_OUTPUT_FILES: u64 = 10_000;

/// How long a question for more of it may wait for an answer: whoever wants to wait longer asks again.
pub const LONGEST_READ: Duration = Duration::from_secs(600);

/// One of the two streams that a node writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

impl OutputStream {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its name, which is that of its file, too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OutputStream {
    type Err = NoStream;
    fn from_str(text: &str) -> Result<Self, NoStream> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == text).ok_or(NoStream)
    }
}

/// Why a text is no [`OutputStream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write stdout or stderr")]
pub struct NoStream;

/// A place in a stream: so many bytes from the beginning of what one file held when the node wrote it. Places count up,
/// also from one life to the next, and mean the same byte for as long as that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct OutputPlace {
    /// Which file, counted from 1.
    pub volume: u64,
    pub offset: u64,
}

impl fmt::Display for OutputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.volume, self.offset)
    }
}

impl FromStr for OutputPlace {
    type Err = NoPlace;
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (volume, offset) = text.split_once('-').ok_or(NoPlace)?;
        Ok(Self { volume: number(volume).ok_or(NoPlace)?, offset: number(offset).ok_or(NoPlace)? })
    }
}

/// Why a text is no [`OutputPlace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place in the output is two numbers such as 3-4711")]
pub struct NoPlace;

/// From where on a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputFrom {
    Place(OutputPlace),
    /// The beginning of the last lines, so many.
    Last(u32),
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputPiece {
    /// Where it begins.
    pub place: OutputPlace,
    pub bytes: Vec<u8>,
    /// Where the next one begins.
    pub next: OutputPlace,
    /// Nothing was written behind it so far.
    pub at_end: bool,
    /// What stood between the place that was asked for and this is not kept any more.
    pub skipped: bool,
}

/// How much of what a node writes is kept, and how. Of each stream the newest file that was put aside always stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRules {
    /// How much a file may hold before it is put aside, in bytes, about.
    pub max_bytes: u64,
    /// How old the oldest line in a file may become before it is put aside.
    pub max_age: Duration,
    /// How many files that were put aside are kept of each stream.
    pub keep_files: u32,
    /// How many bytes the files that were put aside may take on disk, of both streams together.
    pub keep_bytes: u64,
    /// Whether what is put aside is compressed.
    pub compress: bool,
}

impl Default for OutputRules {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
            keep_files: 20,
            keep_bytes: 256 << 20,
            compress: true,
        }
    }
}

/// The rules that one node has of its own; what is left out follows its agent's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputWish {
    pub max_bytes: Option<u64>,
    pub max_age: Option<Duration>,
    pub keep_files: Option<u32>,
    pub keep_bytes: Option<u64>,
    pub compress: Option<bool>,
}

impl OutputWish {
    /// The rules for the node of an agent with these.
    pub fn over(&self, rules: &OutputRules) -> OutputRules {
        OutputRules {
            max_bytes: self.max_bytes.unwrap_or(rules.max_bytes),
            max_age: self.max_age.unwrap_or(rules.max_age),
            keep_files: self.keep_files.unwrap_or(rules.keep_files),
            keep_bytes: self.keep_bytes.unwrap_or(rules.keep_bytes),
            compress: self.compress.unwrap_or(rules.compress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_as_it_was_and_anything_else_is_none() {
        let place = OutputPlace { volume: 3, offset: 4711 };
        assert_eq!((place.to_string().as_str(), place.to_string().parse()), ("3-4711", Ok(place)));
        for text in ["", "3", "3-", "-4", "+3-4", "3-4-5", "a-b", "99999999999999999999-1"] {
            assert_eq!(text.parse::<OutputPlace>(), Err(NoPlace), "{text}");
        }
    }

    #[test]
    fn what_a_node_does_not_say_follows_its_agent() {
        let rules = OutputRules::default();
        assert_eq!(OutputWish::default().over(&rules), rules);
        let wish = OutputWish { max_bytes: Some(9), compress: Some(false), ..OutputWish::default() };
        assert_eq!(wish.over(&rules), OutputRules { max_bytes: 9, compress: false, ..rules });
    }
}

//! The controller's log: every piece of news under a number of its own.
//!
//! The last entries are in memory ([`recent`]); all of them, as far as age and size allow, are on disk. There the log is
//! a row of segments, files that only grow. [`record`] knows their bytes and [`recall`] what they come to; [`volume`] is
//! the directory that holds them; [`opening`] takes up what is there; [`writer`] appends, begins new ones and drops old
//! ones; [`reader`] serves whoever is behind what memory holds; [`thread`] waits for the disk, so that no actor does, and
//! [`journal`] hands over to it.
//!
//! Numbers count on over restarts. So that a number never means two things, each has an epoch, which changes when the
//! controller did not end in order: who has seen more of an epoch than is kept of it resumes where that ends.

pub mod journal;
pub mod memory_volume;
pub mod opening;
pub mod reader;
pub mod recall;
pub mod recent;
pub mod record;
pub mod thread;
pub mod volume;
pub mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub use journal::Journal;
pub use opening::Opened;
pub use recall::Recalled;
pub use recent::Log;
pub use thread::LogThread;
pub use writer::Writer;

/// How much of the log is kept on disk. What exceeds it goes in whole segments; the present one always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A segment whose last entry is older than this is dropped.
    pub age: Duration,
    /// The oldest segments are dropped while all together are longer than this, in bytes.
    pub size: u64,
    /// A segment that has become this long is followed by another, in bytes.
    pub segment: u64,
}

impl Bounds {
    /// Bounds of that age and size, and segments that fit.
    pub fn new(age: Duration, size: u64) -> Self {
        Self { age, size, segment: (size / 4).clamp(4 << 10, 4 << 20) }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new(Duration::from_secs(30 * 24 * 60 * 60), 256 << 20)
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot make the directory of the log, {}", path.display())]
    Make { path: PathBuf, source: std::io::Error },
    #[error("cannot read the log in {place}")]
    Read { place: String, source: std::io::Error },
    #[error("cannot begin a log in {place}")]
    Begin { place: String, source: std::io::Error },
    /// Nothing was touched.
    #[error(
        "the log in {place} was written by a later release of watchpost (format {found}, and this one knows up to \
         {}): run that release, or move the directory away and begin another log",
        record::FORMAT
    )]
    FutureFormat { place: String, found: u32 },
}

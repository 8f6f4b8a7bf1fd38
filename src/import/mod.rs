//! Files of Zeek's other tools become a [`Configuration`], and what could not be carried over is said.
//!
//! Texts go in; a configuration and remarks come out. Whoever calls reads the files, and checks the configuration as a
//! whole: see [`crate::plan::validate()`].

mod findings;
#[cfg(test)]
mod traps;
mod zeek_conf;
mod zeekctl;

use findings::Findings;
pub use findings::{ImportError, Remark};
pub use zeek_conf::{HostFile, read as zeek_conf};
pub use zeekctl::{Files as ZeekctlFiles, read as zeekctl};

use crate::model::Configuration;

/// A file that was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// As remarks name it.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Without ports but those that were given; not yet checked as a whole.
    pub configuration: Configuration,
    /// What was not carried over, or not as it was, and why; by file and line.
    pub remarks: Vec<Remark>,
}

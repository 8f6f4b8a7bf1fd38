//! A [`Configuration`] becomes the files of Zeek's other tools again, and what they cannot say is named.
//!
//! What was written is read back by the importer of the same tool: whatever differs then from what was meant is a remark, so
//! nothing is lost in silence, and no file comes out that its tool would refuse.

mod cluster_cfg;
mod compare;
mod node_cfg;
mod zeek_conf;

use std::fmt;

pub use cluster_cfg::write as cluster_cfg;
pub use node_cfg::write as node_cfg;
pub use zeek_conf::write as zeek_conf;

use crate::import::{Import, ImportError};
use crate::model::Configuration;

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFile {
    pub name: String,
    pub text: String,
}

/// What came of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub files: Vec<ExportFile>,
    /// What the files do not say, or not as it is; sorted by section.
    pub remarks: Vec<String>,
}

/// Why there are no such files: every complaint of whoever would read them, one a line when shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ExportError {
    pub complaints: Vec<String>,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.complaints.join("\n"))
    }
}

/// What an instance is called by tools that name machines.
fn host(instance: &str) -> &str {
    instance.strip_prefix("agent-").unwrap_or(instance)
}

/// Looks what the files say that are to be written for a configuration.
fn checked(
    meant: &Configuration,
    files: Vec<ExportFile>,
    said: Result<Import, ImportError>,
    format: &str,
) -> Result<Export, ExportError> {
    match said {
        Ok(Import { configuration, .. }) => {
            Ok(Export { files, remarks: compare::differences(meant, &configuration, format) })
        }
        Err(error) => Err(ExportError { complaints: error.complaints.iter().map(ToString::to_string).collect() }),
    }
}

#[cfg(test)]
mod tests;

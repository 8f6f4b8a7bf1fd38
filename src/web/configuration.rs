//! Cluster files at the edge: the text of one becomes a configuration, and back.

use super::desk::random_hex;
use super::json::ConfigurationText;
use super::problem::Problem;
use crate::model::{Configuration, ConfigurationId};

/// Makes a configuration of a cluster file, under a new id; the problem lists every complaint.
///
/// `hostname` names the default instance of a file that declares none.
pub fn parse(body: &ConfigurationText, hostname: &str) -> Result<Configuration, Problem> {
    let id = ConfigurationId::new(&random_hex()?)?;
    read(&body.text, &body.file, hostname, id)
        .map_err(|complaints| Problem::Unreadable { file: body.file.clone(), complaints })
}

/// Reads a cluster file: one complaint per line that cannot stay as it is.
pub fn read(text: &str, file: &str, _hostname: &str, _id: ConfigurationId) -> Result<Configuration, Vec<String>> {
    let lines = text.lines().count();
    Err(vec![format!("{file}: this build cannot read cluster files ({lines} lines)")])
}

/// Writes a configuration as a cluster file.
pub fn write(_configuration: &Configuration) -> Result<String, Problem> {
    Err(Problem::Internal("this build cannot write cluster files".into()))
}

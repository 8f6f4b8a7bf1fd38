//! Cluster files at the edge: the text of one becomes a configuration, and back.

use super::desk::random_hex;
use super::json::ConfigurationText;
use super::problem::Problem;
use crate::model::{Configuration, ConfigurationId, cluster_file};
use crate::plan::{self, PortRules};

/// Makes a configuration of a cluster file, under a new id; the problem lists every complaint.
///
/// `hostname` names the default instance of a file that declares none.
pub fn parse(body: &ConfigurationText, hostname: &str) -> Result<Configuration, Problem> {
    let id = ConfigurationId::new(&random_hex()?)?;
    read(&body.text, &body.file, hostname, id)
        .map_err(|complaints| Problem::Unreadable { file: body.file.clone(), complaints })
}

/// Reads a cluster file and checks it as a whole; every complaint at once.
///
/// What only the whole shows, such as two nodes on one port, is complained of once the file can be read.
pub fn read(
    text: impl AsRef<[u8]>,
    file: &str,
    hostname: &str,
    id: ConfigurationId,
) -> Result<Configuration, Vec<String>> {
    let configuration = cluster_file::parse(file, text, id, hostname)
        .map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
    let complaints = plan::validate(&configuration, &PortRules { controller: None, ..PortRules::default() });
    match complaints.is_empty() {
        true => Ok(configuration),
        false => Err(complaints.into_iter().map(|complaint| format!("{file}: {complaint}")).collect()),
    }
}

/// Writes a configuration as a cluster file.
pub fn write(configuration: &Configuration) -> String {
    cluster_file::render(configuration)
}

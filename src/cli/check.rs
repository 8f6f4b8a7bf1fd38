//! `watchpost check`: what is wrong with a cluster file, without a controller.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::error::{CliError, Exit};
use super::files::Files;
use super::import::cluster_text;
use crate::model::{Configuration, ConfigurationId, cluster_file};
use crate::plan::PortRules;
use crate::settings::Machine;
use crate::web::configuration::{self, Checked};
use crate::web::desk::random_hex;
use crate::web::json::Problem;

/// The bytes of a cluster file: of one that is too long, enough to be told so.
pub(super) fn read_cluster_file(file: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(cluster_file::MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| CliError::File { path: file.into(), source })?;
    Ok(bytes)
}

/// Whether a cluster file is free of complaints and of nodes. Whoever is asked to deploy it says what else it is.
pub(super) fn has_no_nodes(text: &[u8], name: &str) -> Result<bool, CliError> {
    let read = cluster_file::read(name, text, ConfigurationId::new("check")?, Machine::this().hostname()).finish();
    Ok(read.is_ok_and(|configuration| configuration.nodes.is_empty()))
}

/// A cluster file's configuration with the files that were found; the error lists every complaint.
pub(super) fn usable(text: &[u8], name: &str, files: &Files, rules: &PortRules) -> Result<Configuration, CliError> {
    let id = random_hex().map_err(|problem| CliError::Internal(problem.to_string()))?;
    let (id, machine) = (ConfigurationId::new(&id)?, Machine::this());
    let Checked { configuration, complaints } =
        configuration::check_with(text, name, machine.hostname(), id, rules, files.found());
    match complaints.is_empty() {
        true => Ok(configuration),
        false => Err(CliError::Wrong(Problem { error: format!("`{name}` cannot be used"), details: complaints })),
    }
}

/// What `check --json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    instances: usize,
    nodes: usize,
    /// Each with its place, sorted by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    complaints: Vec<String>,
}

/// Reads a cluster file and prints what it describes; the error lists every complaint. As JSON these are the answer, too, which
/// nobody has to look for elsewhere.
pub fn run(file: &Path, json: bool) -> Result<Exit, CliError> {
    let name = file.display().to_string();
    let (report, exit) = match read(file, &name) {
        Ok(configuration) => {
            let (instances, nodes) = (configuration.instances.len(), configuration.nodes.len());
            (Report { ok: true, instances, nodes, complaints: Vec::new() }, Exit::Done)
        }
        Err(error) if json && error.exit() == Exit::Usage => {
            let complaints = match error.details() {
                [] => vec![error.to_string()],
                details => details.to_vec(),
            };
            (Report { ok: false, instances: 0, nodes: 0, complaints }, Exit::Usage)
        }
        Err(error) => return Err(error),
    };
    let Report { instances, nodes, .. } = report;
    match json {
        // Numbers, text and a truth value.
        true => writeln!(io::stdout(), "{}", serde_json::to_string(&report).expect("a report is always JSON"))?,
        false if nodes == 0 => {
            writeln!(io::stdout(), "{name} is fine, but has no nodes: to deploy it removes all there are")?
        }
        false => {
            let [nodes, instances] = [(nodes, "node"), (instances, "instance")].map(|(count, what)| match count {
                1 => format!("1 {what}"),
                _ => format!("{count} {what}s"),
            });
            writeln!(io::stdout(), "{name} is fine: {nodes} on {instances}")?;
        }
    }
    Ok(exit)
}

fn read(file: &Path, name: &str) -> Result<Configuration, CliError> {
    let text = cluster_text(file)?;
    // Where the controller listens is not known here.
    let rules = PortRules { controller: None, ..PortRules::default() };
    usable(&text, name, &Files::of(file, &text)?, &rules)
}

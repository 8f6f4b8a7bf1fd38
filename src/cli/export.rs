//! `watchpost export`: a cluster file, or what is deployed, becomes the files of Zeek's other tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Connection;
use super::error::{CliError, Exit};
use super::import::{cluster_text, tell};
use crate::export::{self, Export, ExportError};
use crate::model::{Configuration, ConfigurationId, cluster_file};
use crate::settings::Machine;
use crate::web::json::{self, Problem};

/// The arguments of `watchpost export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A cluster file, or a zeek.conf or node.cfg as `import` reads it [default: what is deployed]
    file: Option<PathBuf>,
    /// Whose files
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to write: a file, or a directory where there are several; no file may be there yet [default: standard output, for
    /// one file]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Of Zeek's systemd generator: one file, or one for each machine
    #[value(name = "zeek.conf")]
    ZeekConf,
    /// Of zeekctl, with zeekctl.cfg and networks.cfg
    #[value(name = "node.cfg")]
    NodeCfg,
    /// Of zeek-client
    #[value(name = "cluster.cfg")]
    ClusterCfg,
}

#[derive(Serialize)]
struct Report {
    /// The files, by name.
    files: BTreeMap<String, String>,
    /// What they do not say, or not as it is.
    remarks: Vec<String>,
}

/// Writes the files, and says what is not in them.
pub fn run(args: ExportArgs, json: bool) -> Result<Exit, CliError> {
    let (name, text) = match &args.file {
        Some(file) => (file.display().to_string(), cluster_text(file)?),
        None => {
            let (_, deployed) = args.connection.open()?.get::<json::Configuration>("/api/v1/configuration")?;
            ("what is deployed".to_owned(), deployed.configuration.into_bytes())
        }
    };
    let Export { files, remarks } =
        export(args.format, &read(&name, text)?).map_err(|ExportError { complaints }| {
            CliError::Wrong(Problem { error: format!("`{name}` cannot be exported so"), details: complaints })
        })?;
    match (&args.output, files.as_slice()) {
        (Some(directory), [_, _, ..]) => {
            fs::create_dir_all(directory).map_err(|source| CliError::Make { path: directory.clone(), source })?;
            files.iter().try_for_each(|file| write(&directory.join(&file.name), &file.text))?;
        }
        (Some(path), files) => files.iter().try_for_each(|file| write(path, &file.text))?,
        (None, [_, _, ..]) if !json => {
            let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
            return Err(CliError::SeveralFiles(names.join(", ")));
        }
        (None, files) if !json => files.iter().try_for_each(|file| write!(io::stdout(), "{}", file.text))?,
        (None, _) => {}
    }
    match json {
        true => {
            let files = files.into_iter().map(|file| (file.name, file.text)).collect();
            // Texts and lists of them.
            let report = serde_json::to_string(&Report { files, remarks }).expect("text is always JSON");
            writeln!(io::stdout(), "{report}")?;
        }
        false => tell(&remarks)?,
    }
    Ok(Exit::Done)
}

fn read(name: &str, text: Vec<u8>) -> Result<Configuration, CliError> {
    let read = cluster_file::parse(name, text, ConfigurationId::new("export")?, Machine::this().hostname());
    read.map_err(|error| {
        let details = error.to_string().lines().map(str::to_owned).collect();
        CliError::Wrong(Problem { error: format!("`{name}` cannot be exported"), details })
    })
}

fn export(format: Format, configuration: &Configuration) -> Result<Export, ExportError> {
    match format {
        Format::ZeekConf => export::zeek_conf(configuration),
        Format::NodeCfg => export::node_cfg(configuration),
        Format::ClusterCfg => Ok(export::cluster_cfg(configuration)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let made = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    made.map_err(|source| CliError::Make { path: path.to_owned(), source })
}

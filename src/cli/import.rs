//! `watchpost import`: files of Zeek's other tools become a cluster file; and how `deploy` and `lab` read them as they are.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::check::read_cluster_file;
use super::error::{CliError, Exit};
use crate::import::{self, HostFile, Import, Remark, Source, ZeekctlFiles};
use crate::model::cluster_file::Complaint;
use crate::model::{ConfigurationId, cluster_file};
use crate::plan::PortRules;
use crate::settings::Machine;
use crate::web::configuration;
use crate::web::json::Problem;

/// The arguments of `watchpost import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// zeek.conf, or the directory with a HOST.zeek.conf for each machine; zeekctl's node.cfg; a cluster.cfg of zeek-client
    path: PathBuf,
    /// What it is, if its name does not tell
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,
    /// Beside node.cfg [default: zeekctl.cfg in the same directory, if it is there]
    #[arg(long, value_name = "FILE")]
    options: Option<PathBuf>,
    /// Beside node.cfg [default: networks.cfg in the same directory, if it is there]
    #[arg(long, value_name = "FILE")]
    networks: Option<PathBuf>,
    /// Where to write the cluster file, which must not be there yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Of Zeek's systemd generator
    #[value(name = "zeek.conf")]
    ZeekConf,
    /// Of zeekctl
    #[value(name = "node.cfg")]
    NodeCfg,
    /// Of zeek-client, or ours
    #[value(name = "cluster.cfg")]
    ClusterCfg,
}

impl Kind {
    /// What the name says. Whatever is not another tool's is a cluster file.
    fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "node.cfg" => Self::NodeCfg,
            name if name.ends_with("zeek.conf") => Self::ZeekConf,
            _ if path.is_dir() => Self::ZeekConf,
            _ => Self::ClusterCfg,
        }
    }
}

#[derive(Serialize)]
struct Report {
    /// The cluster file.
    cluster: String,
    /// What was not carried over, and why.
    remarks: Vec<String>,
    /// What is to be mended before it can be deployed.
    complaints: Vec<String>,
}

/// Writes a cluster file, and says what is not in it.
pub fn run(args: &ImportArgs, json: bool) -> Result<Exit, CliError> {
    let kind = args.from.unwrap_or_else(|| Kind::of(&args.path));
    let beside = Beside { options: args.options.clone(), networks: args.networks.clone() };
    let Import { configuration, remarks } = read(kind, &args.path, beside)?;
    if configuration.nodes.is_empty() {
        let error = format!("`{}` cannot be imported", args.path.display());
        let details = vec![format!("{}:1: there is no node in it", args.path.display())];
        return Err(CliError::Wrong(Problem { error, details }));
    }
    let cluster = cluster_file::render(&configuration);
    let remarks: Vec<String> = remarks.iter().map(ToString::to_string).collect();
    let name = args.output.as_ref().map_or("the cluster file".into(), |path| path.display().to_string());
    let rules = PortRules { controller: None, ..PortRules::default() };
    let id = ConfigurationId::new("import")?;
    let complaints = configuration::read(&cluster, &name, Machine::this().hostname(), id, &rules).err();
    let complaints = complaints.unwrap_or_default();
    if let Some(path) = &args.output {
        let failed = |source| CliError::Make { path: path.clone(), source };
        let mut file = File::create_new(path).map_err(failed)?;
        file.write_all(cluster.as_bytes()).map_err(failed)?;
    }
    let is_usable = complaints.is_empty();
    match json {
        true => {
            let report = Report { cluster, remarks, complaints };
            // Texts and lists of them.
            writeln!(io::stdout(), "{}", serde_json::to_string(&report).expect("text is always JSON"))?;
        }
        false => {
            if args.output.is_none() {
                write!(io::stdout(), "{cluster}")?;
            }
            tell(&remarks)?;
            if !is_usable {
                let error = format!("{name} was written, and cannot be deployed as it is");
                return Err(CliError::Wrong(Problem { error, details: complaints }));
            }
        }
    }
    Ok(if is_usable { Exit::Done } else { Exit::Usage })
}

pub(super) fn tell(remarks: &[String]) -> Result<(), CliError> {
    for remark in remarks {
        writeln!(io::stderr(), "{remark}")?;
    }
    Ok(())
}

/// The text of a cluster file. One of another tool becomes one on the way, and what it loses is said on standard error.
pub(super) fn cluster_text(file: &Path) -> Result<Vec<u8>, CliError> {
    match Kind::of(file) {
        Kind::ClusterCfg => read_cluster_file(file),
        kind => {
            let Import { configuration, remarks } = read(kind, file, Beside::default())?;
            tell(&remarks.iter().map(ToString::to_string).collect::<Vec<_>>())?;
            Ok(cluster_file::render(&configuration).into_bytes())
        }
    }
}

/// Files that are read with a node.cfg, if not those in its directory.
#[derive(Default)]
struct Beside {
    options: Option<PathBuf>,
    networks: Option<PathBuf>,
}

fn read(kind: Kind, path: &Path, beside: Beside) -> Result<Import, CliError> {
    let id = ConfigurationId::new("import")?;
    let machine = Machine::this();
    let wrong = |details: Vec<String>| {
        CliError::Wrong(Problem { error: format!("`{}` cannot be imported", path.display()), details })
    };
    let imported = match kind {
        Kind::ClusterCfg => {
            let read =
                cluster_file::parse(&path.display().to_string(), read_cluster_file(path)?, id, machine.hostname());
            let lines = |error: cluster_file::ClusterFileError| error.to_string().lines().map(str::to_owned).collect();
            let configuration = read.map_err(|error| wrong(lines(error)))?;
            return Ok(Import { configuration, remarks: Vec::new() });
        }
        Kind::NodeCfg => {
            let other = |given: Option<PathBuf>, name: &str| match given {
                Some(path) => source(&path).map(Some),
                None => {
                    Some(path.with_file_name(name)).filter(|path| path.exists()).map(|path| source(&path)).transpose()
                }
            };
            let files = ZeekctlFiles {
                nodes: source(path)?,
                options: other(beside.options, "zeekctl.cfg")?,
                networks: other(beside.networks, "networks.cfg")?,
            };
            import::zeekctl(&files, id, machine.hostname())
        }
        Kind::ZeekConf => {
            let imported = import::zeek_conf(&host_files(path)?, id, machine.hostname());
            imported
                .map(|import| Import { remarks: overridden(path, &machine).chain(import.remarks).collect(), ..import })
        }
    };
    imported.map_err(|error| wrong(error.complaints.iter().map(ToString::to_string).collect()))
}

/// Says so where Zeek on this machine reads another file than this one.
fn overridden(path: &Path, machine: &Machine) -> impl Iterator<Item = Remark> + use<> {
    let other = path.with_file_name("cluster").join(format!("{}.zeek.conf", machine.hostname()));
    let what = format!(
        "Zeek on this machine reads {} and not this file: `import` can be given its directory",
        other.display()
    );
    let is_read = path.is_file() && other.exists();
    let remark = Remark { file: path.display().to_string(), at: Complaint::at(1, what) };
    is_read.then_some(remark).into_iter()
}

fn source(path: &Path) -> Result<Source, CliError> {
    Ok(Source { name: path.display().to_string(), bytes: read_cluster_file(path)? })
}

/// One zeek.conf, or those of all machines in a directory, by name.
fn host_files(path: &Path) -> Result<Vec<HostFile>, CliError> {
    if !path.is_dir() {
        return Ok(vec![HostFile { host: None, source: source(path)? }]);
    }
    let failed = |source| CliError::File { path: path.into(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(host) = name.strip_suffix(".zeek.conf").filter(|host| !host.is_empty()) {
            files.push(HostFile { host: Some(host.to_owned()), source: source(&file)? });
        }
    }
    files.sort_by(|a, b| a.host.cmp(&b.host));
    match files.is_empty() {
        false => Ok(files),
        true => Err(failed(io::Error::new(io::ErrorKind::NotFound, "there is no HOST.zeek.conf in it"))),
    }
}

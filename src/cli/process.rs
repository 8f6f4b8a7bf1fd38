//! `watchpost process`: what a cluster's scripts make of a capture, without a cluster. Zeek takes the place of this program, so
//! its output, its exit code and whatever signals it are its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::error::{CliError, Exit};
use super::files;
use super::import::cluster_text;
use crate::bundle::scan;
use crate::launch::zeek::{Finder, Rehearsal};
use crate::model::{Configuration, ConfigurationId, Node};
use crate::plan::PortRules;
use crate::settings::Machine;
use crate::web::configuration;
use crate::web::json::Problem;

/// The arguments of `watchpost process`.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// The capture, or `-` for standard input
    capture: PathBuf,
    /// Whose scripts and options: a cluster file, or a zeek.conf or node.cfg as `import` reads it [default: Zeek's own]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also the scripts, arguments, options and variables of this node
    #[arg(long, value_name = "NODE", requires = "config")]
    node: Option<String>,
    /// Where its logs go, a directory that is not there or empty [default: one named after the capture, here]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Zeek: the program, or the prefix of its installation [default: looked for as by agents]
    #[arg(long, value_name = "PATH", env = "WATCHPOST_AGENT_ZEEK")]
    zeek: Option<PathBuf>,
}

/// How many directories may be named after a capture.
const MOST: u32 = 1000;

/// Becomes Zeek; returns only if it cannot.
pub fn run(args: &ProcessArgs) -> Result<Exit, CliError> {
    let capture = capture(&args.capture)?;
    let configuration = args.config.as_deref().map(read).transpose()?;
    let node = node(configuration.as_ref(), args)?;
    let zeek = configuration.and_then(|configuration| configuration.zeek).unwrap_or_default();
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment: std::collections::BTreeMap<_, _> = environment.collect();
    let scratch = tempdir()?;
    let finder = Finder::new(
        args.zeek.clone().filter(|path| !path.as_os_str().is_empty()),
        environment.clone(),
        scratch.clone(),
    );
    let found = finder.find();
    let _ = fs::remove_dir_all(&scratch); // nothing of it is needed any more
    let found = found.map_err(|error| CliError::NoZeek(error.to_string()))?;
    let paths = paths(node.as_ref(), args)?;
    let home = home(args)?;
    let files = (!paths.is_empty()).then(|| lay_out(&paths, &home)).transpose()?;
    let rehearsal = Rehearsal { zeek: &zeek, node: node.as_ref(), files: files.as_deref(), capture: &capture };
    let path = environment.get("PATH").map(String::as_str);
    let call = rehearsal.prepare(&found, &home, path).map_err(CliError::NoZeek)?;
    let mut argv = call.argv.into_iter();
    // A call begins with its program.
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).envs(call.env).current_dir(&home).env_remove("CLUSTER_NODE");
    writeln!(io::stderr(), "Zeek {} reads {capture} in {}", found.version, home.display())?;
    let source = command.exec();
    Err(CliError::NoZeek(format!("cannot run {}: {source}", found.program)))
}

/// The capture as Zeek finds it from wherever it works.
fn capture(path: &Path) -> Result<String, CliError> {
    if path == Path::new("-") {
        return Ok("-".into());
    }
    let failed = |source| CliError::File { path: path.into(), source };
    let absolute = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => std::path::absolute(path),
    });
    let absolute = absolute.map_err(failed)?.into_os_string().into_string();
    absolute.map_err(|_: OsString| failed(io::Error::other("its path is not UTF-8")))
}

fn read(path: &Path) -> Result<Configuration, CliError> {
    let name = path.display().to_string();
    let rules = PortRules { controller: None, ..PortRules::default() };
    let id = ConfigurationId::new("process")?;
    configuration::read(cluster_text(path)?, &name, Machine::this().hostname(), id, &rules)
        .map_err(|details| CliError::Wrong(Problem { error: format!("`{name}` cannot be used"), details }))
}

fn node(configuration: Option<&Configuration>, args: &ProcessArgs) -> Result<Option<Node>, CliError> {
    let Some((name, configuration)) = args.node.as_deref().zip(configuration) else { return Ok(None) };
    let node = configuration.nodes.iter().find(|node| node.name.as_str() == name);
    let wrong = |what: &str| {
        let error = format!("node `{name}` {what}");
        CliError::Wrong(Problem { error, details: Vec::new() })
    };
    match node {
        None => Err(wrong("is not in the cluster file")),
        Some(node) if !node.is_zeek() => Err(wrong("is no node of Zeek: it has a `command`")),
        Some(node) => Ok(Some((**node).clone())),
    }
}

/// The files of a node, once it is known that they could travel. They are used where they are.
fn paths(node: Option<&Node>, args: &ProcessArgs) -> Result<Vec<PathBuf>, CliError> {
    let Some((node, config)) = node.zip(args.config.as_deref()) else { return Ok(Vec::new()) };
    let Some(own) = &node.files else { return Ok(Vec::new()) };
    let refused = |details| {
        let error = format!("the files of node `{}` cannot be used", node.name);
        CliError::Wrong(Problem { error, details })
    };
    if own.bundle.is_some() {
        let what = "they are named by `bundle`, and the controller has those: remove that line for what is here now";
        return Err(refused(vec![what.to_owned()]));
    }
    let base = files::base_of(config)?;
    scan(&base, &own.paths).map_err(refused)?;
    Ok(own.paths.iter().map(|path| base.join(path)).collect())
}

/// A directory in which each of these is found under its last name.
fn lay_out(paths: &[PathBuf], home: &Path) -> Result<String, CliError> {
    let tree = home.join(".watchpost/files");
    let failed = |source| CliError::Make { path: tree.clone(), source };
    fs::create_dir_all(&tree).map_err(failed)?;
    for path in paths {
        // What has none was refused before.
        let Some(name) = path.file_name() else { continue };
        symlink(path, tree.join(name)).map_err(failed)?;
    }
    Ok(tree.display().to_string())
}

/// A directory for what Zeek finds to say, made for it.
fn home(args: &ProcessArgs) -> Result<PathBuf, CliError> {
    let failed = |path: &Path, source| CliError::Make { path: path.into(), source };
    if let Some(into) = &args.into {
        fs::create_dir_all(into).map_err(|source| failed(into, source))?;
        let is_empty = fs::read_dir(into).map_err(|source| failed(into, source))?.next().is_none();
        let full = || failed(into, io::Error::other("there is something in it: name another, or empty it"));
        return if is_empty { std::path::absolute(into).map_err(|source| failed(into, source)) } else { Err(full()) };
    }
    let stem = args.capture.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "-").unwrap_or("capture");
    for number in 1..=MOST {
        let name = if number == 1 { format!("{stem}.zeek") } else { format!("{stem}.zeek-{number}") };
        let path = std::path::absolute(&name).map_err(|source| failed(Path::new(&name), source))?;
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(&path, source)),
        }
    }
    let taken = io::Error::other("so are all others up to 1000: name one by --into");
    Err(failed(Path::new(&format!("{stem}.zeek")), taken))
}

/// Where Zeek says its version.
fn tempdir() -> Result<PathBuf, CliError> {
    let number = getrandom::u64().map_err(|error| CliError::Internal(error.to_string()))?;
    let path = std::env::temp_dir().join(format!("watchpost-process-{number:016x}"));
    fs::create_dir(&path).map_err(|source| CliError::Make { path: path.clone(), source })?;
    Ok(path)
}

//! The verbs that stay: lab, controller, agent. Each reads its settings and calls into [`crate::run`].

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;

use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::check::usable;
use super::error::{CliError, Exit};
use super::files::Files;
use super::import::cluster_text;
use super::{AgentArgs, ControllerArgs, DaemonArgs, LabArgs, join, watch};
use crate::model::{Configuration, InstanceName, cluster_file};
use crate::plan::PortRules;
use crate::run::{self, Daemon, Ready, RunError};
use crate::settings::{Draft, Machine, OnExit, Settings, usual_state_dir};
use crate::supervisor::process::memory;

/// Everything in one process, for one machine.
pub fn lab(args: LabArgs, json: bool) -> Result<Exit, CliError> {
    let mut draft = draft(&args.daemon)?;
    args.clients.overrule(&mut draft);
    let rules = match draft.complaints.is_empty() {
        true => draft.settings.controller.port_rules(),
        false => PortRules { controller: None, ..PortRules::default() }, // whose they would be is not known
    };
    // Both are looked at, whatever is wrong with the other.
    let first = first_configuration(args.file.as_deref(), &rules);
    let (settings, (configuration, files)) = match (run::settle(draft, Daemon::Lab), first) {
        (Ok(settings), Ok(first)) => (settings, first),
        (Err(settings), Err(file)) => return Err(CliError::Several(vec![settings.into(), file])),
        (Err(settings), Ok(_)) => return Err(settings.into()),
        (Ok(_), Err(file)) => return Err(file),
    };
    // On a terminal the live view shows what happens; elsewhere, and for what it cannot show, there is the log.
    let live = !json && io::stdout().is_terminal() && settings.controller.http.is_some();
    start_log(if live { settings.log.min(LevelFilter::ERROR) } else { settings.log });
    let state_dir = settings.state_dir.clone();
    let mut view = None;
    let (closed, close) = tokio::sync::oneshot::channel();
    let ended = block_on(run::lab(settings, configuration, files.into_scans(), |ready| {
        announce("lab", ready, &state_dir, json);
        if live && let Some(url) = url(ready) {
            view = Some(show(url, ready.token.clone(), close));
        }
    }));
    let _ = closed.send(()); // the view may have ended by itself
    if let Some(view) = view {
        let _ = view.join(); // a panic there was printed there
        if ended.is_ok() {
            writeln!(io::stdout(), "every node is stopped")?;
        }
    }
    ended
}

/// The controller of a fleet.
pub fn controller(args: ControllerArgs, json: bool) -> Result<Exit, CliError> {
    let mut draft = draft(&args.daemon)?;
    draft.overrule("controller.name", "--name", args.name, |s, name| s.controller.name = name);
    draft.overrule("controller.listen", "--listen", args.listen, |s, address| s.controller.listen = Some(address));
    args.clients.overrule(&mut draft);
    let settings = run::settle(draft, Daemon::Controller)?;
    start_log(settings.log);
    let state_dir = settings.state_dir.clone();
    block_on(run::controller(settings, |ready| announce("controller", ready, &state_dir, json)))
}

/// The agent of one machine.
pub fn agent(args: AgentArgs, json: bool) -> Result<Exit, CliError> {
    let mut draft = agent_draft(&args.daemon)?;
    if let Some(token) = args.join.filter(|token| !token.is_empty()) {
        let settings = draft.finish()?;
        let joined = join::by_token(&token, &settings)?;
        anstream::eprintln!("{}", join::said_of(&joined, &settings));
        draft = agent_draft(&args.daemon)?; // with what it was told there
    }
    let name = args.name.map(|name| InstanceName::new(&name)).transpose()?;
    draft.overrule("agent.name", "--name", name, |s, name| s.agent.name = name);
    draft.overrule("agent.listen", "--listen", args.listen, |s, address| {
        s.agent.listen = Some(address);
        s.agent.controller = None; // who is told only to listen waits to be dialled
    });
    draft
        .overrule("agent.controller", "--connect", args.connect, |s, controller| s.agent.controller = Some(controller));
    if args.stop_nodes {
        draft.settings.agent.on_exit = OnExit::Stop;
    }
    let settings = run::settle(draft, Daemon::Agent)?;
    start_log(settings.log);
    let state_dir = settings.state_dir.clone();
    block_on(run::agent(settings, |ready| announce("agent", ready, &state_dir, json)))
}

/// The settings of an agent, which may have joined a cluster.
pub(super) fn agent_settings(args: &DaemonArgs) -> Result<Settings, CliError> {
    Ok(agent_draft(args)?.finish()?)
}

fn agent_draft(args: &DaemonArgs) -> Result<Draft, CliError> {
    let state_dir = state_dir(args)?;
    Ok(Draft::load_for_agent(args.config.as_deref(), state_dir.as_deref(), &Machine::this(), std::env::vars_os())?)
}

fn draft(args: &DaemonArgs) -> Result<Draft, CliError> {
    let state_dir = state_dir(args)?;
    Ok(Draft::load(args.config.as_deref(), state_dir.as_deref(), &Machine::this(), std::env::vars_os())?)
}

fn state_dir(args: &DaemonArgs) -> Result<Option<PathBuf>, CliError> {
    let absolute =
        |path: &PathBuf| std::path::absolute(path).map_err(|source| CliError::File { path: path.clone(), source });
    args.state_dir.as_ref().map(absolute).transpose()
}

/// The cluster file's configuration with the files that it names, or the built-in one.
fn first_configuration(file: Option<&Path>, rules: &PortRules) -> Result<(Configuration, Files), CliError> {
    let (name, text, files) = match file {
        Some(path) => {
            let text = cluster_text(path)?;
            let files = Files::of(path, &text)?;
            (path.display().to_string(), text, files)
        }
        None => ("the built-in example".to_owned(), cluster_file::LAB.into(), Files::default()),
    };
    Ok((usable(&text, &name, &files, rules)?, files))
}

fn block_on(daemon: impl Future<Output = Result<(), RunError>>) -> Result<Exit, CliError> {
    memory::is_own_program();
    actix_rt::System::new().block_on(daemon)?;
    Ok(Exit::Done)
}

/// What a daemon prints with `--json` once it can be reached. Without the token, whose file is in the state directory.
#[derive(Serialize)]
struct Announced<'a> {
    daemon: &'a str,
    version: &'a str,
    state_dir: String,
    /// By purpose, as in `addresses.json`.
    listening: &'a BTreeMap<String, SocketAddr>,
}

/// Says where it can be reached, and by which command.
fn announce(what: &str, ready: &Ready, state_dir: &Path, json: bool) {
    let mut out = io::stdout().lock();
    let mut say = |line: String| drop(writeln!(out, "{line}")); // whoever closed it does not want to know
    if json {
        let (version, state_dir) = (env!("CARGO_PKG_VERSION"), state_dir.display().to_string());
        let announced = Announced { daemon: what, version, state_dir, listening: &ready.addresses };
        // Text and addresses.
        say(serde_json::to_string(&announced).expect("where it listens is always JSON"));
        return drop(out.flush());
    }
    say(format!("watchpost {what} {}, state in {}", env!("CARGO_PKG_VERSION"), state_dir.display()));
    for (purpose, address) in &ready.addresses {
        say(format!("listening for {purpose} on {address}"));
    }
    if let Some(address) = ready.addresses.get("zeek-client") {
        say(format!("try: zeek-client --controller {address} get-nodes"));
    }
    if let Some(url) = url(ready) {
        say(format!("try: watchpost status --controller {url}{}", token_option(ready, state_dir)));
    }
    drop(out.flush());
}

fn token_option(ready: &Ready, state_dir: &Path) -> String {
    let file: PathBuf = state_dir.join("token");
    match ready.token {
        Some(_) if file != usual_state_dir().join("token") => format!(" --token-file {}", file.display()),
        _ => String::new(),
    }
}

fn url(ready: &Ready) -> Option<String> {
    let mut address = *ready.addresses.get("http")?;
    // Every address of this machine: also the one that leads nowhere else.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Some(format!("http://{address}"))
}

/// The live view, on a thread of its own, since it waits for its own answers.
fn show(url: String, token: Option<String>, close: tokio::sync::oneshot::Receiver<()>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let stop = async {
            let _ = close.await; // dropped or told, both mean stop
        };
        if let Err(error) = watch::run(&url, token, stop) {
            tracing::error!("the live view ended: {error}");
        }
    })
}

fn start_log(level: LevelFilter) {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // What libraries have to say is for those who work on them, unless something is wrong.
    let libraries = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(libraries).with_target("watchpost", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour).with_target(false);
    // Only an embedding program could have set another one, and then that is the one.
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
}

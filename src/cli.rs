//! The command line: one verb per thing to do, each in a file of its own.
//!
//! [`run`] turns arguments into an exit code or an error; it prints answers to standard output and remarks to standard
//! error, and leaves printing its error to the program. Exit codes are those of [`Exit`].

mod check;
mod client;
mod crashes;
mod daemon;
mod deploy;
mod doctor;
mod error;
mod events;
mod export;
mod files;
mod history;
mod import;
mod interrupt;
mod invite;
mod join;
mod logs;
mod look_on;
mod netstats;
mod orders;
mod pki;
mod plan;
mod print;
mod process;
mod screen;
mod secure;
mod seen;
mod status;
mod table;
mod token;
pub mod watch;
mod width;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use client::DEFAULT_CONTROLLER;
use client::{Client, TokenFile};
use deploy::{DeployArgs, RollbackArgs};
pub use error::{CliError, Exit};
use export::ExportArgs;
use history::HistoryVerb;
use import::ImportArgs;
use invite::InviteArgs;
use join::JoinArgs;
use pki::PkiVerb;
use plan::PlanArgs;
use process::ProcessArgs;
use screen::Screen;
use secure::Papers;
use token::TokenVerb;

use crate::model::Endpoint;
use crate::settings::Draft;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong arguments or file, 3 `status --check`: not as it \
should be, 4 part of the cluster is unreachable, or was before it was heard what came of an order, 5 not permitted, 124 timed out, 130 Ctrl-C.";

/// Runs clusters of long-lived processes, and tells the truth about them.
#[derive(Debug, Parser)]
#[command(name = "watchpost", arg_required_else_help = true, disable_version_flag = true, after_help = EXIT_CODES)]
struct Cli {
    /// Print the version; with --json also what it speaks
    #[arg(short = 'V', long)]
    version: bool,
    /// Print JSON: one object, or one per line for streams
    #[arg(long, global = true)]
    json: bool,
    /// Print without colour, also on a terminal
    #[arg(long, global = true)]
    no_color: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run everything on this machine in one process, and watch it
    #[command(visible_alias = "all-in-one")]
    Lab(LabArgs),
    /// Run the controller of a fleet
    Controller(ControllerArgs),
    /// Run the agent of this machine
    Agent(AgentArgs),
    /// Say what is wrong with a cluster file
    Check {
        /// The cluster file, or a zeek.conf or node.cfg as `import` reads it
        file: PathBuf,
    },
    /// Make a cluster file of files of zeekctl, of Zeek's systemd generator or of zeek-client
    Import(ImportArgs),
    /// Write the files of zeekctl, of Zeek's systemd generator or of zeek-client
    Export(ExportArgs),
    /// Run a cluster's scripts over a capture, in a directory of its own
    Process(ProcessArgs),
    /// Show what a deployment would do, and what stands in its way; touches nothing
    Plan(PlanArgs),
    /// Make a cluster file true
    Deploy(DeployArgs),
    /// Show what was deployed before, by whom, and what came of it
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    History {
        #[command(subcommand)]
        verb: Option<HistoryVerb>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what changes from what one deployment deployed to what another did
    Diff {
        /// By its number in `watchpost history`
        from: u64,
        to: u64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Deploy again what was in force before
    Rollback(RollbackArgs),
    /// Show every node and instance
    Status {
        /// Stay and show every change
        #[arg(long, conflicts_with = "check")]
        watch: bool,
        /// Exit with 3 if something that should run does not; nodes stopped on purpose do not count
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what happened
    Events {
        /// Stay for what is to come
        #[arg(short, long)]
        follow: bool,
        /// Begin behind this event; where the log began anew since, with all of the new one
        #[arg(long, value_name = "SEQ", conflicts_with = "last")]
        since: Option<String>,
        /// Begin with at most this many of the latest events
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        last: u64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Start nodes
    Start(NodesArgs),
    /// Stop nodes; they stay stopped until somebody starts them
    Stop(NodesArgs),
    /// Stop and start nodes; also revives what has failed
    Restart(NodesArgs),
    /// Print the last lines that a node wrote, also in former lives
    Logs {
        node: String,
        /// Stay for what is to come, through restarts and lost connections
        #[arg(short, long)]
        follow: bool,
        /// At most this many lines of each stream
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        lines: u32,
        /// Only its standard error
        #[arg(long, conflicts_with = "stdout")]
        stderr: bool,
        /// Only its standard output
        #[arg(long)]
        stdout: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show how many packets Zeek nodes received and lost
    Netstats(NodesArgs),
    /// Ask Zeek nodes for the value of a global identifier, and print it as JSON
    Print {
        /// Such as Site::local_nets
        id: String,
        #[command(flatten)]
        nodes: NodesArgs,
    },
    /// Show nodes that died unasked, oldest first
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Crashes {
        #[command(subcommand)]
        verb: Option<CrashVerb>,
        /// Only this node's
        node: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Invite a machine into the cluster: prints a token, and what to do with it
    Invite(InviteArgs),
    /// Join this machine to a cluster, by a token of `watchpost invite`
    Join(JoinArgs),
    /// Make the certificates that secure links between machines
    Pki {
        #[command(subcommand)]
        verb: PkiVerb,
    },
    /// Make, show and revoke tokens for clients of the HTTP API
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Say what of this machine is in the way of an agent and its nodes, and the way out; exits with 1 if something fails
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
enum CrashVerb {
    /// Show all that is known of one
    Show {
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

/// How to reach the controller.
#[derive(Debug, Args)]
struct Connection {
    /// The controller's HTTP address
    #[arg(long, value_name = "URL", env = "WATCHPOST_CONTROLLER", default_value = DEFAULT_CONTROLLER)]
    controller: String,
    /// The file that holds a token for the controller [default: `token` in the usual state directory, for a controller on
    /// this machine]
    #[arg(long, value_name = "FILE", env = "WATCHPOST_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The directory with a certificate that `watchpost pki issue client` made, to show where the address begins with https
    #[arg(long, value_name = "DIR", env = "WATCHPOST_CERTIFICATE")]
    certificate: Option<PathBuf>,
    /// Whose certificates to trust [default: the certificate's cluster, and the system's public authorities]
    #[arg(long, value_name = "FILE", env = "WATCHPOST_CA")]
    ca: Option<PathBuf>,
    /// How long to wait, such as 30s [default: 90s for questions, without end for orders]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

impl Connection {
    fn open(self) -> Result<Client, CliError> {
        let token = self
            .token_file
            .map_or_else(|| TokenFile::Usual(crate::settings::usual_state_dir().join("token")), TokenFile::Given);
        let papers = Papers { certificate: self.certificate, ca: self.ca };
        Client::new(&self.controller, token, &papers, self.timeout)
    }
}

#[derive(Debug, Args)]
struct NodesArgs {
    /// Every node if none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// What every daemon wants to know.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// The settings file
    #[arg(long, value_name = "FILE", env = "WATCHPOST_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where it keeps what must survive
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Where clients are served, for the daemons that serve any.
#[derive(Debug, Args)]
pub struct ClientPorts {
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// Where zeek-client is served
    #[arg(long, value_name = "ADDR:PORT")]
    pub websocket: Option<SocketAddr>,
}

impl ClientPorts {
    fn overrule(&self, draft: &mut Draft) {
        draft.overrule("controller.http", "--http", self.http, |s, address| s.controller.http = Some(address));
        draft.overrule("controller.websocket", "--websocket", self.websocket, |s, address| {
            s.controller.websocket = Some(address);
        });
    }
}

/// The arguments of `watchpost lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// The cluster file to begin with, or a zeek.conf or node.cfg as `import` reads it [default: a small example]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub clients: ClientPorts,
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// The arguments of `watchpost controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Its name in logs and greetings
    #[arg(long)]
    pub name: Option<String>,
    /// Where it listens for agents
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    pub clients: ClientPorts,
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// The arguments of `watchpost agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The name of the instance that it runs
    #[arg(long)]
    pub name: Option<String>,
    /// Where it listens for the controller
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// The controller that it dials
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<Endpoint>,
    /// Join the cluster by a token of `watchpost invite` first, unless that is done: `-` reads it from standard input
    #[arg(long, value_name = "TOKEN", env = "WATCHPOST_JOIN_TOKEN", hide_env_values = true)]
    pub join: Option<String>,
    /// Stop the nodes when it is asked to end, instead of leaving them to its next run
    #[arg(long)]
    pub stop_nodes: bool,
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// The arguments of `watchpost doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The unit that runs the agent under systemd
    #[arg(long, value_name = "UNIT", default_value = crate::doctor::service::USUAL_UNIT)]
    pub unit: String,
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Does what the arguments say.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<Exit, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = Cli::try_parse_from(&args).map_err(|error| as_typed(error, &args));
    let Cli { version, json, no_color, verb } = parsed?;
    let Some(verb) = verb.filter(|_| !version) else { return print_version(json) };
    if no_color {
        anstream::ColorChoice::Never.write_global();
    }
    let screen = Screen::of_stdout();
    match verb {
        Verb::Lab(args) => daemon::lab(args, json),
        Verb::Controller(args) => daemon::controller(args, json),
        Verb::Agent(args) => daemon::agent(args, json),
        Verb::Check { file } => check::run(&file, json),
        Verb::Import(args) => import::run(&args, json),
        Verb::Deploy(args) => deploy::deploy(args, json, screen),
        Verb::History { verb: Some(HistoryVerb::Show { number, connection }), .. } => {
            history::show(&connection.open()?, number, json, screen)
        }
        Verb::History { connection, .. } => history::list(&connection.open()?, json, screen),
        Verb::Diff { from, to, connection } => history::diff(&connection.open()?, from, to, json),
        Verb::Rollback(args) => deploy::rollback(args, json, screen),
        Verb::Export(args) => export::run(args, json),
        Verb::Process(args) => process::run(&args),
        Verb::Plan(args) => plan::run(args, json, screen),
        Verb::Status { watch: true, connection, .. } => {
            let view = if json { watch::View::Json } else { watch::View::Tables };
            watch::show(&connection.open()?, view, interrupt::interrupted()).map(|()| Exit::Done)
        }
        Verb::Status { check, connection, .. } => status::run(&connection.open()?, json, check, screen),
        Verb::Events { follow, since, last, connection } => {
            events::run(&connection.open()?, events::Choice { follow, since, last }, json, screen)
        }
        Verb::Start(args) => orders::nodes(&args.connection.open()?, "start", "started", args.nodes, json, screen),
        Verb::Stop(args) => orders::nodes(&args.connection.open()?, "stop", "stopped", args.nodes, json, screen),
        Verb::Restart(args) => {
            orders::nodes(&args.connection.open()?, "restart", "restarted", args.nodes, json, screen)
        }
        Verb::Logs { node, follow, lines, stderr, stdout, connection } => {
            let streams = match (stdout, stderr) {
                (true, _) => logs::Streams::Stdout,
                (_, true) => logs::Streams::Stderr,
                _ => logs::Streams::Both,
            };
            let choice = logs::Choice { lines, follow, streams };
            logs::run(&connection.open()?, &node, choice, json, screen)
        }
        Verb::Netstats(args) => netstats::run(&args.connection.open()?, &args.nodes, json, screen),
        Verb::Print { id, nodes } => print::run(&nodes.connection.open()?, id, nodes.nodes, json),
        Verb::Crashes { verb: Some(CrashVerb::Show { id, connection }), .. } => {
            crashes::show(&connection.open()?, &id, json, screen)
        }
        Verb::Crashes { node, connection, .. } => crashes::list(&connection.open()?, node.as_deref(), json, screen),
        Verb::Invite(args) => invite::run(args, json, screen),
        Verb::Join(args) => join::run(&args, json),
        Verb::Pki { verb } => pki::run(verb, json, screen),
        Verb::Token { verb } => token::run(verb, json, screen),
        Verb::Doctor(args) => doctor::run(&args, json, screen),
        Verb::Completions { shell } => print_completions(shell),
    }
}

/// What is wrong with the arguments, without those that the environment gave: a usage would show them as required.
fn as_typed(error: clap::Error, args: &[OsString]) -> clap::Error {
    if !error.use_stderr() {
        return error; // help names the variables, and is asked for
    }
    match without_environment(Cli::command()).try_get_matches_from(args) {
        Err(typed) if typed.kind() == error.kind() => typed,
        _ => error,
    }
}

fn without_environment(command: clap::Command) -> clap::Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let bare = command.mut_args(|arg| arg.env(Resettable::Reset));
    verbs.into_iter().fold(bare, |command, verb| command.mut_subcommand(verb, without_environment))
}

fn print_version(json: bool) -> Result<Exit, CliError> {
    let version = crate::web::json::Version::ours();
    match json {
        // Numbers, text and a list of text.
        true => writeln!(io::stdout(), "{}", serde_json::to_string(&version).expect("a version is always JSON"))?,
        false => writeln!(io::stdout(), "watchpost {}", version.version)?,
    }
    Ok(Exit::Done)
}

fn print_completions(shell: Shell) -> Result<Exit, CliError> {
    // By way of memory: the generator takes a closed pipe for a reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "watchpost", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }
}

//! `watchpost pki`: the cluster's authority and the certificates that it issues. Works on files, without a controller.

mod requests;
mod revoke;
mod show;
pub(super) mod shown;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use self::shown::{Shown, print};
use super::error::{CliError, Exit};
use super::screen::Screen;
use crate::model::{InstanceName, Timestamp};
use crate::run::RunError;
use crate::settings::usual_state_dir;
use crate::state_dir::StateDir;
use crate::trust::{Access, Authority, Part, TrustError};

/// The verbs of `watchpost pki`.
#[derive(Debug, Subcommand)]
pub enum PkiVerb {
    /// Make the authority of a cluster
    Init {
        /// The cluster that it vouches for
        #[arg(long, value_name = "NAME", env = "WATCHPOST_CLUSTER", default_value = "watchpost")]
        cluster: String,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "10years", value_parser = humantime::parse_duration)]
        lifetime: Duration,
        #[command(flatten)]
        place: Place,
    },
    /// Make a key and a certificate for a part of the cluster
    Issue {
        /// What it is for
        part: Issuable,
        /// The controller's name, the agent's instance, or what to call the client
        name: String,
        /// What a client may do: see everything, or change things as well
        #[arg(long, value_enum, default_value = "operate")]
        role: Role,
        /// An address or host name of a controller, for clients of its HTTP API that look at nothing else, such as browsers and
        /// curl; may be given several times
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// Where to put ca.pem, cert.pem and key.pem [default: NAME.trust here, or for a controller `trust` in the usual
        /// state directory]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "1year", value_parser = humantime::parse_duration)]
        lifetime: Duration,
        #[command(flatten)]
        place: Place,
    },
    /// Take back every certificate of a part of the cluster, its invitation, and a client's tokens; links of theirs end where
    /// the list gets to
    Revoke {
        /// What it is
        part: Issuable,
        /// Its name
        name: String,
        /// The certificates of the daemon that is to heed it [default: `trust` in the usual state directory, if it is that of
        /// a controller and PART is an agent or a client]
        #[arg(long, value_name = "DIR")]
        trust: Option<PathBuf>,
        /// The state directory of the controller whose tokens of a client's name end, too [default: the usual one]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Show the requests that wait to be signed, where the authority's key is not on the controller's machine
    Requests {
        /// The directory of requests [default: `requests` in the authority's]
        #[arg(long, value_name = "DIR")]
        requests: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Sign requests that wait, where the authority's key is: the certificates are put beside them
    Sign {
        /// The agents or controllers whose requests to sign
        #[arg(value_name = "NAME", required_unless_present = "all")]
        names: Vec<String>,
        /// Sign every request
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// The directory of requests [default: `requests` in the authority's]
        #[arg(long, value_name = "DIR")]
        requests: Option<PathBuf>,
        /// How long the certificates are to be good for
        #[arg(long, value_name = "DURATION", default_value = "1year", value_parser = humantime::parse_duration)]
        lifetime: Duration,
        #[command(flatten)]
        place: Place,
    },
    /// Show the authority and every certificate that it issued
    Show {
        #[command(flatten)]
        place: Place,
    },
}

/// Where the authority is.
#[derive(Debug, Args)]
pub struct Place {
    /// The authority's directory [default: `pki` in the usual state directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    /// The usual one is part of a state directory, and may be one that this release must not touch.
    pub(super) fn directory(self) -> Result<PathBuf, CliError> {
        if let Some(chosen) = self.dir {
            return Ok(chosen);
        }
        let state = usual_state_dir();
        StateDir::check_format(&state).map_err(RunError::from)?;
        Ok(state.join("pki"))
    }
}

/// Whom certificates are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Issuable {
    Controller,
    Agent,
    /// Somebody, or a program, that uses the HTTP API from anywhere
    Client,
}

impl Issuable {
    /// What a certificate of it may say.
    fn parts(self) -> &'static [Part] {
        match self {
            Self::Controller => &[Part::Controller],
            Self::Agent => &[Part::Agent],
            Self::Client => &[Part::Operator, Part::Observer],
        }
    }
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Observe,
    Operate,
}

impl From<Role> for Access {
    fn from(role: Role) -> Self {
        match role {
            Role::Observe => Self::Observe,
            Role::Operate => Self::Operate,
        }
    }
}

/// A certificate to make.
struct Order {
    part: Part,
    name: String,
    hosts: Vec<String>,
    lifetime: Duration,
    out: Option<PathBuf>,
}

/// Does what the arguments say.
pub fn run(verb: PkiVerb, json: bool, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        PkiVerb::Init { cluster, lifetime, place } => init(&cluster, lifetime, place.directory()?, json),
        PkiVerb::Issue { part, name, role, host: hosts, out, lifetime, place } => {
            let part = match part {
                Issuable::Controller => Part::Controller,
                Issuable::Agent => Part::Agent,
                Issuable::Client => Access::from(role).part(),
            };
            issue(Order { part, name, hosts, lifetime, out }, place.directory()?, json)
        }
        PkiVerb::Revoke { part, name, trust, state_dir, place } => {
            let state_dir = state_dir.unwrap_or_else(usual_state_dir);
            revoke::run(part, &InstanceName::new(&name)?, trust, &state_dir, &place.directory()?, json)
        }
        PkiVerb::Requests { requests, place } => requests::show(requests, &place.directory()?, json, screen),
        PkiVerb::Sign { names, all: _, requests, lifetime, place } => {
            requests::sign(&names, requests, lifetime, &place.directory()?, json)
        }
        PkiVerb::Show { place } => show::run(&place.directory()?, json, screen),
    }
}

fn init(cluster: &str, lifetime: Duration, directory: PathBuf, json: bool) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let authority = Authority::create(&directory, &InstanceName::new(cluster)?, now, lifetime)?;
    if json {
        return print(&Shown::of(authority.certificate(), now));
    }
    let mut out = io::stdout().lock();
    let until = authority.certificate().not_after;
    writeln!(out, "the authority of cluster {cluster} is in {}, good until {until}", directory.display())?;
    writeln!(out, "whoever has its ca.key can be any part of the cluster: keep it here, and a copy in a safe place")?;
    writeln!(
        out,
        "next: watchpost pki issue controller NAME, then start the controller and watchpost invite INSTANCE for each machine"
    )?;
    Ok(Exit::Done)
}

fn issue(order: Order, directory: PathBuf, json: bool) -> Result<Exit, CliError> {
    let Order { part, name, hosts, lifetime, out } = order;
    let (now, name) = (Timestamp::now(), InstanceName::new(&name)?);
    let authority = Authority::load(&directory)?;
    let place = out.unwrap_or_else(|| match part {
        Part::Controller => usual_state_dir().join("trust"),
        _ => PathBuf::from(format!("{name}.trust")),
    });
    let issued = authority.issue_for(part, &name, &hosts, now, lifetime)?;
    issued.write(&place)?;
    if json {
        return print(&Shown::of(&issued.certificate, now));
    }
    let (part, until) = (&issued.certificate.identity.part, issued.certificate.not_after);
    let mut out = io::stdout().lock();
    writeln!(out, "the certificate of {part} {name}, good until {until}, and its key are in {}", place.display())?;
    if *part == Part::Agent {
        writeln!(out, "next: move them to `trust` in the state directory of {name}'s agent, such as")?;
        writeln!(out, "  ssh {name} install -d -m 700 /var/lib/watchpost/trust")?;
        writeln!(out, "  scp -p {}/*.pem {name}:/var/lib/watchpost/trust/", place.display())?;
    }
    if Access::of(*part).is_some() {
        writeln!(out, "next: take that directory to where {name} works, and there say for instance")?;
        writeln!(out, "  watchpost status --controller https://CONTROLLER:2148 --certificate {}", place.display())?;
    }
    Ok(Exit::Done)
}

/// Says on standard error what was left out.
pub(super) fn remark(odd: &[TrustError]) {
    for error in odd {
        match std::error::Error::source(error) {
            Some(source) => anstream::eprintln!("left out: {error}: {source}"),
            None => anstream::eprintln!("left out: {error}"),
        }
    }
}

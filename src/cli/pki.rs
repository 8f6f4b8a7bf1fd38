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
use crate::settings::usual_state_dir;
use crate::trust::{Authority, Part, TrustError};

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
        /// The controller's name, or the agent's instance
        name: String,
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
    /// Take back every certificate of a part of the cluster, and its invitation; links of theirs end where the list gets to
    Revoke {
        /// What it is
        part: Issuable,
        /// Its name
        name: String,
        /// The certificates of the daemon that is to heed it [default: `trust` in the usual state directory, if it is that of
        /// a controller and PART is an agent]
        #[arg(long, value_name = "DIR")]
        trust: Option<PathBuf>,
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
    pub(super) fn directory(self) -> PathBuf {
        self.dir.unwrap_or_else(|| usual_state_dir().join("pki"))
    }
}

/// Whom certificates are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Issuable {
    Controller,
    Agent,
}

impl From<Issuable> for Part {
    fn from(part: Issuable) -> Self {
        match part {
            Issuable::Controller => Self::Controller,
            Issuable::Agent => Self::Agent,
        }
    }
}

/// Does what the arguments say.
pub fn run(verb: PkiVerb, json: bool, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        PkiVerb::Init { cluster, lifetime, place } => init(&cluster, lifetime, place.directory(), json),
        PkiVerb::Issue { part, name, out, lifetime, place } => {
            issue(part, &name, out, lifetime, place.directory(), json)
        }
        PkiVerb::Revoke { part, name, trust, place } => {
            revoke::run(part.into(), &InstanceName::new(&name)?, trust, &place.directory(), json)
        }
        PkiVerb::Requests { requests, place } => requests::show(requests, &place.directory(), json, screen),
        PkiVerb::Sign { names, all: _, requests, lifetime, place } => {
            requests::sign(&names, requests, lifetime, &place.directory(), json)
        }
        PkiVerb::Show { place } => show::run(&place.directory(), json, screen),
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

fn issue(
    part: Issuable,
    name: &str,
    out: Option<PathBuf>,
    lifetime: Duration,
    directory: PathBuf,
    json: bool,
) -> Result<Exit, CliError> {
    let (now, name) = (Timestamp::now(), InstanceName::new(name)?);
    let authority = Authority::load(&directory)?;
    let place = out.unwrap_or_else(|| match part {
        Issuable::Controller => usual_state_dir().join("trust"),
        Issuable::Agent => PathBuf::from(format!("{name}.trust")),
    });
    let issued = authority.issue(part.into(), &name, now, lifetime)?;
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

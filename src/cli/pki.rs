//! `watchpost pki`: the cluster's authority and the certificates that it issues. Works on files, without a controller.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::error::{CliError, Exit};
use super::screen::{Screen, state_style};
use super::table::{self, Cell, words};
use crate::model::{InstanceName, Timestamp};
use crate::run::RunError;
use crate::settings::usual_state_dir;
use crate::state_dir::StateDir;
use crate::trust::{Access, Authority, Certificate, Identity, Part, TrustError, TrustFiles, tokens};

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
    /// Take back every certificate of a part of the cluster, and a client's tokens; links of theirs end where the list gets to
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
    fn directory(self) -> Result<PathBuf, CliError> {
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

/// One certificate as it is printed.
#[derive(Serialize)]
struct Shown {
    cluster: String,
    part: String,
    name: String,
    /// `good`, `due` for renewal, `expired` or `revoked`.
    state: &'static str,
    not_before: String,
    not_after: String,
    serial: String,
}

impl Shown {
    fn of(certificate: &Certificate, now: Timestamp) -> Self {
        let identity = &certificate.identity;
        Self {
            cluster: identity.cluster.to_string(),
            part: identity.part.to_string(),
            name: identity.name.to_string(),
            state: match certificate.remaining(now) {
                None => "expired",
                Some(_) if certificate.is_due(now) => "due",
                Some(_) => "good",
            },
            not_before: certificate.not_before.to_string(),
            not_after: certificate.not_after.to_string(),
            serial: certificate.serial.clone(),
        }
    }
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
            revoke(part, &name, trust, &state_dir, place.directory()?, json)
        }
        PkiVerb::Show { place } => show(place.directory()?, json, screen),
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
        "next: watchpost pki issue controller NAME, then watchpost pki issue agent INSTANCE for each machine"
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

fn revoke(
    part: Issuable,
    name: &str,
    trust: Option<PathBuf>,
    state_dir: &Path,
    directory: PathBuf,
    json: bool,
) -> Result<Exit, CliError> {
    let (now, name) = (Timestamp::now(), InstanceName::new(name)?);
    let authority = Authority::load(&directory)?;
    // Tokens first: they end whether or not there is a certificate.
    let tokens = if part == Issuable::Client { tokens::end(state_dir, &name)? } else { 0 };
    let revoked = take_back(&authority, part, &name, now, tokens > 0)?;
    // An agent and a client are judged by the controller, a controller by every agent.
    let judge = if part == Issuable::Controller { Part::Agent } else { Part::Controller };
    let is_judge = |trust: &PathBuf| bearer(trust).is_some_and(|bearer| bearer.part == judge);
    let usual = || Some(state_dir.join("trust")).filter(is_judge);
    // Also if there was nothing new to take back: the list may not have got there the last time.
    let published = trust.or_else(usual).filter(|_| authority.revoked_list().exists());
    if let Some(trust) = &published {
        authority.publish_revoked(&TrustFiles::in_directory(trust))?;
    }
    if json {
        let shown = revoked.iter().map(|certificate| Shown { state: "revoked", ..Shown::of(certificate, now) });
        return shown.into_iter().try_for_each(|shown| print(&shown).map(drop)).map(|()| Exit::Done);
    }
    let mut out = io::stdout().lock();
    let part = part.to_possible_value().map(|part| part.get_name().to_owned()).unwrap_or_default();
    match tokens {
        0 => {}
        1 => writeln!(out, "the token of {part} {name} is revoked")?,
        several => writeln!(out, "{several} tokens of {part} {name} are revoked")?,
    }
    match revoked.len() {
        0 => writeln!(out, "{part} {name} has no certificate that counts")?,
        1 => writeln!(out, "the certificate of {part} {name} is revoked")?,
        several => writeln!(out, "{several} certificates of {part} {name} are revoked")?,
    }
    let heeds = published.as_deref().and_then(bearer).filter(|bearer| bearer.part == judge);
    if let (Some(trust), Some(Identity { part, name, .. })) = (&published, &heeds) {
        writeln!(out, "{part} {name} heeds it at once, by the list in {}", trust.display())?;
    }
    let list = authority.revoked_list();
    let list = list.display();
    match (judge, heeds) {
        (Part::Agent, None) => writeln!(out, "next: copy {list} to `trust` in the state directory of every agent")?,
        (Part::Agent, Some(_)) => {
            writeln!(out, "next: copy {list} to `trust` in the state directory of every other agent")?;
        }
        (_, None) => writeln!(
            out,
            "next: copy {list} to `trust` in the state directory of the controller, which then heeds it at once"
        )?,
        (_, Some(_)) => {}
    }
    Ok(Exit::Done)
}

/// Takes back the certificates of every part that it may be. That it has none is a slip, unless it had something else.
fn take_back(
    authority: &Authority,
    part: Issuable,
    name: &InstanceName,
    now: Timestamp,
    had_others: bool,
) -> Result<Vec<Certificate>, CliError> {
    let (mut revoked, mut never) = (Vec::new(), None);
    let mut found = had_others;
    for part in part.parts() {
        match authority.revoke(*part, name, now) {
            Ok(taken) => {
                found = true;
                revoked.extend(taken);
            }
            Err(error @ TrustError::NeverIssued { .. }) => never = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match never.filter(|_| !found) {
        Some(error) => Err(error.into()),
        None => Ok(revoked),
    }
}

/// Whose certificate is in this directory, if one is.
fn bearer(trust: &Path) -> Option<Identity> {
    TrustFiles::in_directory(trust).bearer().ok()
}

fn show(directory: PathBuf, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let authority = Authority::load(&directory)?;
    let all = std::iter::once(authority.certificate().clone()).chain(authority.issued()?);
    let shown = |certificate: Certificate| {
        let shown = Shown::of(&certificate, now);
        let state = if authority.has_revoked(&certificate)? { "revoked" } else { shown.state };
        Ok::<_, CliError>(Shown { state, ..shown })
    };
    let all: Vec<Shown> = all.map(shown).collect::<Result<_, _>>()?;
    if json {
        return all.iter().try_for_each(|shown| print(shown).map(drop)).map(|()| Exit::Done);
    }
    let columns = [words("PART"), words("NAME"), words("STATE"), words("UNTIL"), words("SERIAL").spare()];
    let rows: Vec<_> = all
        .iter()
        .map(|shown| {
            let state = Cell::styled(shown.state, state_style(shown.state));
            let until = shown.not_after.split('.').next().unwrap_or_default();
            vec![
                shown.part.as_str().into(),
                shown.name.as_str().into(),
                state,
                until.into(),
                shown.serial.as_str().into(),
            ]
        })
        .collect();
    let mut out = io::stdout().lock();
    for line in table::lines(&columns, &rows, screen) {
        writeln!(out, "{line}")?;
    }
    Ok(Exit::Done)
}

fn print(shown: &Shown) -> Result<Exit, CliError> {
    // Text only.
    writeln!(io::stdout(), "{}", serde_json::to_string(shown).expect("a certificate is always JSON"))?;
    Ok(Exit::Done)
}

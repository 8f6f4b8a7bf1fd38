//! `watchpost invite`: opens invitations, and shows those that are open. Works on files; a controller that runs heeds them.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::error::{CliError, Exit};
use super::pki::shown::print;
use super::pki::{Place, remark};
use super::screen::Screen;
use super::table::{self, words};
use crate::model::{Endpoint, InstanceName, Timestamp};
use crate::settings::{Machine, usual_state_dir};
use crate::state_dir::StateDir;
use crate::trust::{self, Invitation, Registry, Token, TrustFiles};

/// The arguments of `watchpost invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The instance whose agent is to join
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// How long the invitation is open
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    valid: Duration,
    /// Where the agent reaches the controller; may be given several times, to be tried in this order [default: where the
    /// controller of this machine listens]
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<Endpoint>,
    /// How long the certificate is to be good for
    #[arg(long, value_name = "DURATION", default_value = "1year", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// Show all invitations instead
    #[arg(long, conflicts_with_all = ["name", "address"])]
    list: bool,
    #[command(flatten)]
    place: Place,
}

/// What is printed about a new invitation. The token is as secret as what it carries.
#[derive(Serialize)]
struct Invited {
    name: String,
    token: String,
    until: String,
    command: String,
}

/// One invitation as it is listed.
#[derive(Serialize)]
struct Listed {
    name: String,
    /// `open`, `used` or `expired`.
    state: &'static str,
    until: String,
}

/// Does what the arguments say.
pub fn run(args: InviteArgs, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let InviteArgs { name, valid, address, lifetime, list, place } = args;
    let own = TrustFiles::in_directory(&usual_state_dir().join("trust"));
    let registry = Registry::open_beside(&place.directory()?, &own)?;
    match name.filter(|_| !list) {
        Some(name) => invite(&registry, &InstanceName::new(&name)?, valid, address, lifetime, json),
        None => show(&registry, json, screen),
    }
}

fn invite(
    registry: &Registry,
    name: &InstanceName,
    valid: Duration,
    given: Vec<Endpoint>,
    lifetime: Duration,
    json: bool,
) -> Result<Exit, CliError> {
    let addresses = if given.is_empty() { vec![own_address()?] } else { given };
    if addresses.len() > trust::MOST_ADDRESSES {
        return Err(CliError::Addresses { most: trust::MOST_ADDRESSES });
    }
    let now = Timestamp::now();
    let until = Timestamp(now.0.saturating_add(u64::try_from(valid.as_micros()).unwrap_or(u64::MAX)));
    let secret = trust::invite(registry, name, until, lifetime, now)?;
    let cluster = registry.certificate().identity.cluster.clone();
    let token = Token { cluster, name: name.clone(), authority: registry.fingerprint(), secret, addresses };
    let word = token.reveal();
    let command = format!("watchpost agent --join {word}");
    if json {
        return print(&Invited { name: name.to_string(), token: word, until: until.to_string(), command });
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{word}")?;
    let within = humantime::format_duration(valid);
    writeln!(
        out,
        "agent {name} may join by this token, once, within {within}; whoever else has it first can be {name}"
    )?;
    writeln!(out, "next: on the machine of {name}, as the user that is to run its agent:")?;
    writeln!(out, "  {command}")?;
    Ok(Exit::Done)
}

/// Where others find the controller that runs here, or ran here.
fn own_address() -> Result<Endpoint, CliError> {
    let known = StateDir::addresses_in(&usual_state_dir()).ok().and_then(|mut known| known.remove("agents"));
    let address = known.ok_or(CliError::NoAddress)?;
    match address.ip().is_unspecified() {
        false => Ok(address.into()),
        // It listens everywhere, and others know the machine by its name, if by anything.
        true => {
            let host = Machine::this().hostname().to_owned();
            format!("{host}:{}", address.port()).parse().map_err(|_| CliError::NoAddress)
        }
    }
}

fn show(registry: &Registry, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let (invitations, odd) = registry.invitations()?;
    remark(&odd);
    let now = Timestamp::now();
    let listed: Vec<_> = invitations.iter().map(|invitation| Listed::of(invitation, now)).collect();
    if json {
        return listed.iter().try_for_each(|listed| print(listed).map(drop)).map(|()| Exit::Done);
    }
    let row = |listed: &Listed| {
        let until = listed.until.split('.').next().unwrap_or_default();
        [listed.name.as_str(), listed.state, until].map(Into::into).into()
    };
    let columns = [words("NAME"), words("STATE"), words("UNTIL").spare()];
    let rows: Vec<Vec<_>> = listed.iter().map(row).collect();
    let mut out = io::stdout().lock();
    table::lines(&columns, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(Exit::Done)
}

impl Listed {
    fn of(invitation: &Invitation, now: Timestamp) -> Self {
        let state = match (&invitation.key, invitation.until() <= now) {
            (Some(_), _) => "used",
            (None, true) => "expired",
            (None, false) => "open",
        };
        Self { name: invitation.name.clone(), state, until: invitation.until().to_string() }
    }
}

//! `watchpost join`: the first certificate of this machine, by a token.

use std::io::{self, Read, Write};

use clap::Args;

use super::DaemonArgs;
use super::daemon::agent_settings;
use super::error::{CliError, Exit};
use super::pki::shown::{Shown, print};
use crate::model::Timestamp;
use crate::run::{Joined, join_cluster};
use crate::settings::Settings;
use crate::trust::{Home, Token};

/// No token, with what may be around it on standard input, is longer than this, in bytes.
const LONGEST_INPUT: u64 = 16 << 10;

/// The arguments of `watchpost join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The token that `watchpost invite` printed; `-` reads it from standard input
    #[arg(env = "WATCHPOST_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Does what the arguments say.
pub fn run(args: &JoinArgs, json: bool) -> Result<Exit, CliError> {
    let settings = agent_settings(&args.daemon)?;
    let joined = by_token(&args.token, &settings)?;
    let certificate = &joined.certificate;
    if json {
        return print(&Shown::of(certificate, Timestamp::now()));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", said_of(&joined, &settings))?;
    writeln!(out, "next: watchpost agent")?;
    Ok(Exit::Done)
}

/// One line about what came of it.
pub(super) fn said_of(joined: &Joined, settings: &Settings) -> String {
    let (identity, until) = (&joined.certificate.identity, joined.certificate.not_after);
    let (name, cluster, trust) = (&identity.name, &identity.cluster, settings.trust());
    match joined.already {
        true => format!("agent {name} has joined cluster {cluster} already: its certificate is in {}", trust.display()),
        false => format!(
            "agent {name} has joined cluster {cluster}: its certificate, good until {until}, is in {}",
            trust.display()
        ),
    }
}

/// Joins by the token that this word is, or that is on standard input.
pub(super) fn by_token(word: &str, settings: &Settings) -> Result<Joined, CliError> {
    let token: Token = match word {
        "-" => read_token()?.parse()?,
        word => word.parse()?,
    };
    let home = Home::at(settings.trust());
    let waits = |reason: &str| anstream::eprintln!("the request waits to be signed: {reason}");
    let runtime = actix_rt::Runtime::new().map_err(CliError::Runtime)?;
    Ok(runtime.block_on(join_cluster(&token, &home, waits))?)
}

fn read_token() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin().take(LONGEST_INPUT).read_to_string(&mut text).map_err(CliError::Input)?;
    Ok(text)
}

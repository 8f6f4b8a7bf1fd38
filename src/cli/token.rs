//! `watchpost token`: who may use the HTTP API without a certificate. Works on the controller's state directory; a
//! controller that runs heeds it at once.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::error::{CliError, Exit};
use super::pki::Role;
use super::screen::{Screen, state_style};
use super::table::{self, Cell, words};
use crate::model::{InstanceName, NameError, Timestamp};
use crate::settings::usual_state_dir;
use crate::trust::TrustError;
use crate::trust::tokens::{self, Token};

/// The verbs of `watchpost token`.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token, and print it this one time
    Create {
        /// Whose it is: what logs call its bearer
        name: String,
        /// What its bearer may do: see everything, or change things as well
        #[arg(long, value_enum, default_value = "observe")]
        role: Role,
        /// How long it is good for, or `never` for one that does not expire
        #[arg(long, value_name = "DURATION", default_value = "90days", value_parser = valid)]
        valid: Valid,
        /// Write it to this file, for its owner alone, in place of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        home: Home,
    },
    /// Show every token's name, role and end
    List {
        #[command(flatten)]
        home: Home,
    },
    /// End every token of a name at once
    Revoke {
        name: String,
        #[command(flatten)]
        home: Home,
    },
}

/// Where the controller keeps its state.
#[derive(Debug, Args)]
pub struct Home {
    /// The controller's state directory [default: the usual one]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Home {
    fn directory(self) -> PathBuf {
        self.state_dir.unwrap_or_else(usual_state_dir)
    }
}

/// How long a token is good for; `None` is without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid(Option<Duration>);

fn valid(text: &str) -> Result<Valid, String> {
    match text {
        "never" => Ok(Valid(None)),
        text => match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err("a token that is good for no time is good for nothing".into()),
            Ok(valid) => Ok(Valid(Some(valid))),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// One token as it is printed.
#[derive(Serialize)]
struct Shown {
    name: String,
    role: &'static str,
    /// `good` or `expired`.
    state: &'static str,
    created: String,
    /// Null for one that does not expire.
    expires: Option<String>,
    /// The token itself, when it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Shown {
    fn of(token: &Token, now: Timestamp) -> Self {
        Self {
            name: token.name.to_string(),
            role: token.access.as_str(),
            state: if token.has_expired(now) { "expired" } else { "good" },
            created: token.created.to_string(),
            expires: token.expires.map(|expires| expires.to_string()),
            token: None,
        }
    }
}

/// Does what the arguments say.
pub fn run(verb: TokenVerb, json: bool, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        TokenVerb::Create { name, role, valid, out, home } => {
            create(&name, role, valid, out.as_deref(), &home.directory(), json)
        }
        TokenVerb::List { home } => list(&home.directory(), json, screen),
        TokenVerb::Revoke { name, home } => revoke(&name, &home.directory(), json),
    }
}

fn create(
    name: &str,
    role: Role,
    Valid(valid): Valid,
    out: Option<&Path>,
    state_dir: &Path,
    json: bool,
) -> Result<Exit, CliError> {
    let (now, name) = (Timestamp::now(), bearer(name)?);
    // Before there is a token that nobody would ever see.
    let file = out.map(|path| fresh(path).map(|file| (path, file))).transpose()?;
    let (secret, token) = tokens::create(state_dir, &name, role.into(), valid, now).inspect_err(|_| {
        if let Some((path, _)) = &file {
            let _ = std::fs::remove_file(path); // made a moment ago, and empty
        }
    })?;
    let shown = Shown::of(&token, now);
    if let Some((path, mut file)) = file {
        let written = writeln!(file, "{secret}").and_then(|()| file.sync_all());
        written.map_err(|source| CliError::Make { path: path.into(), source })?;
        return match json {
            true => print(&shown),
            false => tell(&shown, &format!("it is in {}", path.display())),
        };
    }
    if json {
        return print(&Shown { token: Some(secret), ..shown });
    }
    writeln!(io::stdout(), "{secret}")?;
    tell(&shown, "it is not shown again")
}

/// A file for its owner alone, which must not be there yet: one that is may be open to others.
fn fresh(path: &Path) -> Result<std::fs::File, CliError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CliError::Taken(path.into()),
        _ => CliError::Make { path: path.into(), source },
    })
}

/// Whose token it is: what logs call its bearer.
fn bearer(name: &str) -> Result<InstanceName, NameError> {
    InstanceName::new(name).map_err(|error| NameError { what: "name of a token", ..error })
}

/// Remarks, apart from the token itself.
fn tell(shown: &Shown, what: &str) -> Result<Exit, CliError> {
    let until = shown.expires.as_deref().map_or("without end".into(), |expires| format!("until {expires}"));
    writeln!(io::stderr(), "the token of {} may {}, {until}; {what}", shown.name, shown.role)?;
    Ok(Exit::Done)
}

fn list(state_dir: &Path, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let all: Vec<_> = tokens::list(state_dir)?.iter().map(|token| Shown::of(token, now)).collect();
    if json {
        return all.iter().try_for_each(|shown| print(shown).map(drop)).map(|()| Exit::Done);
    }
    let columns = [words("NAME"), words("ROLE"), words("STATE"), words("UNTIL"), words("CREATED").spare()];
    let short = |time: &str| time.split('.').next().unwrap_or_default().to_owned();
    let row = |shown: &Shown| {
        let until = shown.expires.as_deref().map_or("never".into(), short);
        let state = Cell::styled(shown.state, state_style(shown.state));
        let created = short(&shown.created);
        vec![shown.name.as_str().into(), shown.role.into(), state, until.as_str().into(), created.as_str().into()]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let mut out = io::stdout().lock();
    table::lines(&columns, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(Exit::Done)
}

fn revoke(name: &str, state_dir: &Path, json: bool) -> Result<Exit, CliError> {
    let name = bearer(name)?;
    let ended = tokens::end(state_dir, &name)?;
    match ended {
        0 => return Err(TrustError::NoToken(name).into()),
        _ if json => writeln!(io::stdout(), "{{\"name\":\"{name}\",\"revoked\":{ended}}}")?,
        1 => writeln!(io::stdout(), "the token of {name} is revoked")?,
        several => writeln!(io::stdout(), "{several} tokens of {name} are revoked")?,
    }
    Ok(Exit::Done)
}

fn print(shown: &Shown) -> Result<Exit, CliError> {
    // Text only.
    writeln!(io::stdout(), "{}", serde_json::to_string(shown).expect("a token is always JSON"))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_some_time() {
        assert_eq!((valid("never"), valid("2h")), (Ok(Valid(None)), Ok(Valid(Some(Duration::from_secs(7200))))));
        assert!(valid("0s").is_err() && valid("soon").is_err());
    }

    #[test]
    fn a_file_for_a_token_that_could_not_be_made_does_not_stay() {
        let home = tempfile::tempdir().unwrap();
        let (out, nowhere) = (home.path().join("token"), home.path().join("nowhere"));
        let make = |state_dir: &Path| create("eve", Role::Observe, Valid(None), Some(&out), state_dir, true);
        assert!(make(&nowhere).is_err());
        assert!(!out.exists(), "or the next attempt would be refused for it");
        make(home.path()).unwrap();
        let made = std::fs::read_to_string(&out).unwrap();
        let why = make(home.path()).unwrap_err().to_string();
        assert!(why.starts_with(&format!("{} is there already", out.display())), "{why}");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), made);
        let why = bearer("/eve").unwrap_err().to_string();
        assert_eq!(why, "name of a token `/eve` must begin with a letter, a digit or `_`");
    }
}

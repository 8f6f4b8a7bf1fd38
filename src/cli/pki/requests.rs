//! `watchpost pki requests` and `sign`: for an authority whose key is not where the controller is.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::remark;
use super::shown::{Shown, print};
use crate::cli::error::{CliError, Exit};
use crate::cli::screen::Screen;
use crate::cli::table::{self, words};
use crate::model::Timestamp;
use crate::trust::{self, Authority, Waiting};

/// One request as it is printed.
#[derive(Serialize)]
struct ShownRequest {
    cluster: String,
    part: String,
    name: String,
    /// `waiting`, or `signed` and not picked up yet.
    state: &'static str,
    /// The beginning of the SHA-256 of its key, in hexadecimal digits.
    key: String,
}

impl ShownRequest {
    fn of(waiting: &Waiting) -> Self {
        let identity = &waiting.request.identity;
        Self {
            cluster: identity.cluster.to_string(),
            part: identity.part.to_string(),
            name: identity.name.to_string(),
            state: if waiting.is_signed() { "signed" } else { "waiting" },
            key: waiting.request.short_key_id(),
        }
    }
}

pub(super) fn show(requests: Option<PathBuf>, directory: &Path, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let (waiting, odd) = Waiting::in_directory(&requests.unwrap_or_else(|| trust::requests(directory)))?;
    remark(&odd);
    let shown: Vec<_> = waiting.iter().map(ShownRequest::of).collect();
    if json {
        return shown.iter().try_for_each(|shown| print(shown).map(drop)).map(|()| Exit::Done);
    }
    let row = |shown: &ShownRequest| {
        [shown.part.as_str(), shown.name.as_str(), shown.state, shown.key.as_str()].map(Into::into).into()
    };
    let columns = [words("PART"), words("NAME"), words("STATE"), words("KEY").spare()];
    let rows: Vec<Vec<_>> = shown.iter().map(row).collect();
    let mut out = io::stdout().lock();
    table::lines(&columns, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(Exit::Done)
}

/// Signs what is named, or everything if nothing is.
pub(super) fn sign(
    names: &[String],
    requests: Option<PathBuf>,
    lifetime: Duration,
    directory: &Path,
    json: bool,
) -> Result<Exit, CliError> {
    let (authority, now) = (Authority::load(directory)?, Timestamp::now());
    let requests = requests.unwrap_or_else(|| trust::requests(directory));
    let (waiting, odd) = Waiting::in_directory(&requests)?;
    remark(&odd);
    let mut unknown: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_meant = |waiting: &&Waiting| {
        let name = waiting.request.identity.name.as_str();
        unknown.remove(name); // a controller and an agent may share it
        names.is_empty() || names.iter().any(|named| named == name)
    };
    let meant: Vec<_> = waiting.iter().filter(is_meant).collect();
    if let Some(name) = unknown.first() {
        return Err(CliError::NoRequest { name: (*name).to_owned(), directory: requests });
    }
    for waiting in meant.into_iter().filter(|waiting| !waiting.is_signed()) {
        let certificate = waiting.sign(&authority, now, lifetime)?;
        let (identity, key) = (&certificate.identity, waiting.request.short_key_id());
        match json {
            true => drop(print(&Shown::of(&certificate, now))?),
            false => writeln!(
                io::stdout(),
                "signed: {} {}, good until {}, for the key {key}",
                identity.part,
                identity.name,
                certificate.not_after
            )?,
        }
    }
    Ok(Exit::Done)
}

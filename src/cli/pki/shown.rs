//! Certificates as they are printed.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::error::{CliError, Exit};
use crate::model::Timestamp;
use crate::trust::Certificate;

/// One certificate as it is printed.
#[derive(Serialize)]
pub(in crate::cli) struct Shown {
    pub cluster: String,
    pub part: String,
    pub name: String,
    /// `good`, `due` for renewal, `expired` or `revoked`.
    pub state: &'static str,
    pub not_before: String,
    pub not_after: String,
    pub serial: String,
}

impl Shown {
    pub fn of(certificate: &Certificate, now: Timestamp) -> Self {
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

/// One object on a line.
pub(in crate::cli) fn print(shown: &impl Serialize) -> Result<Exit, CliError> {
    // Numbers and text.
    writeln!(io::stdout(), "{}", serde_json::to_string(shown).expect("what is printed is always JSON"))?;
    Ok(Exit::Done)
}

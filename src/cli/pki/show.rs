//! `watchpost pki show`: who has a certificate.

use std::io::{self, Write};
use std::path::Path;

use super::remark;
use super::shown::{Shown, print};
use crate::cli::error::{CliError, Exit};
use crate::cli::screen::{Screen, state_style};
use crate::cli::table::{self, Cell, words};
use crate::model::Timestamp;
use crate::trust::{Certificate, Registry};

pub(super) fn run(directory: &Path, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let registry = Registry::open(directory)?;
    let issued = registry.issued()?;
    remark(&issued.odd);
    let all = std::iter::once(registry.certificate().clone()).chain(issued.certificates);
    let shown = |certificate: Certificate| {
        let shown = Shown::of(&certificate, now);
        let state = if registry.has_revoked(&certificate)? { "revoked" } else { shown.state };
        Ok::<_, CliError>(Shown { state, ..shown })
    };
    let all: Vec<Shown> = all.map(shown).collect::<Result<_, _>>()?;
    if json {
        return all.iter().try_for_each(|shown| print(shown).map(drop)).map(|()| Exit::Done);
    }
    let columns = [words("PART"), words("NAME"), words("STATE"), words("UNTIL"), words("SERIAL").spare()];
    let rows: Vec<_> = all.iter().map(row).collect();
    let mut out = io::stdout().lock();
    table::lines(&columns, &rows, screen).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(Exit::Done)
}

fn row(shown: &Shown) -> Vec<Cell> {
    let state = Cell::styled(shown.state, state_style(shown.state));
    let until = shown.not_after.split('.').next().unwrap_or_default();
    vec![shown.part.as_str().into(), shown.name.as_str().into(), state, until.into(), shown.serial.as_str().into()]
}

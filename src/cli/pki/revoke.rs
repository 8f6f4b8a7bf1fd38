//! `watchpost pki revoke`: takes back certificates, and lets those who judge by the list know.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::shown::{Shown, print};
use super::{Issuable, remark};
use crate::cli::error::{CliError, Exit};
use crate::model::{InstanceName, Timestamp};
use crate::trust::{Identity, Part, Registry, Revocation, TrustError, TrustFiles, tokens};

pub(super) fn run(
    part: Issuable,
    name: &InstanceName,
    trust: Option<PathBuf>,
    state_dir: &Path,
    directory: &Path,
    json: bool,
) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let registry = Registry::open(directory)?;
    // Tokens first: they end whether or not there is a certificate.
    let tokens = if part == Issuable::Client { tokens::end(state_dir, name)? } else { 0 };
    let revocation = take_back(&registry, part, name, now, tokens > 0)?;
    let judge = judge_of(part);
    let is_judge = |trust: &PathBuf| bearer(trust).is_some_and(|bearer| bearer.part == judge);
    let usual = || Some(state_dir.join("trust")).filter(is_judge);
    // Also if there was nothing new to take back: the list may not have got there the last time.
    let published = trust.or_else(usual).filter(|_| registry.revoked_list().exists());
    if let Some(trust) = &published {
        registry.publish_revoked(&TrustFiles::in_directory(trust))?;
    }
    remark(&revocation.odd);
    if json {
        let mut shown =
            revocation.certificates.iter().map(|certificate| Shown { state: "revoked", ..Shown::of(certificate, now) });
        return shown.try_for_each(|shown| print(&shown).map(drop)).map(|()| Exit::Done);
    }
    say_what_was_revoked(part, name, tokens, &revocation)?;
    if registry.revoked_list().exists() {
        say_what_comes_next(judge, published.as_deref(), &registry)?;
    }
    Ok(Exit::Done)
}

/// Takes back the certificates of every part that it may be. That it has none is a slip, unless it had something else.
fn take_back(
    registry: &Registry,
    part: Issuable,
    name: &InstanceName,
    now: Timestamp,
    had_others: bool,
) -> Result<Revocation, CliError> {
    let (mut all, mut never) = (Revocation::default(), None);
    let mut found = had_others;
    for part in part.parts() {
        match registry.revoke(*part, name, now) {
            Ok(taken) => {
                found = true;
                all.certificates.extend(taken.certificates);
                all.withdrawn |= taken.withdrawn;
                all.odd = taken.odd; // the same ledger each time
            }
            Err(error @ TrustError::NeverIssued { .. }) => never = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match never.filter(|_| !found) {
        Some(error) => Err(error.into()),
        None => Ok(all),
    }
}

/// An agent and a client are judged by the controller, a controller by every agent.
fn judge_of(part: Issuable) -> Part {
    if part == Issuable::Controller { Part::Agent } else { Part::Controller }
}

/// Whose certificate is in this directory, if one is.
fn bearer(trust: &Path) -> Option<Identity> {
    TrustFiles::in_directory(trust).bearer().ok()
}

fn say_what_was_revoked(
    part: Issuable,
    name: &InstanceName,
    tokens: usize,
    revocation: &Revocation,
) -> Result<(), CliError> {
    let part = part.to_possible_value().map(|part| part.get_name().to_owned()).unwrap_or_default();
    let mut out = io::stdout().lock();
    match tokens {
        0 => {}
        1 => writeln!(out, "the token of {part} {name} is revoked")?,
        several => writeln!(out, "{several} tokens of {part} {name} are revoked")?,
    }
    match revocation.certificates.len() {
        0 => writeln!(out, "{part} {name} has no certificate that counts")?,
        1 => writeln!(out, "the certificate of {part} {name} is revoked")?,
        several => writeln!(out, "{several} certificates of {part} {name} are revoked")?,
    }
    if revocation.withdrawn {
        writeln!(out, "nobody can join as {part} {name} any more by a token that was made for it")?;
    }
    Ok(())
}

fn say_what_comes_next(judge: Part, published: Option<&Path>, registry: &Registry) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let heeds = published.and_then(bearer).filter(|bearer| bearer.part == judge);
    if let (Some(trust), Some(Identity { part, name, .. })) = (published, &heeds) {
        writeln!(out, "{part} {name} heeds it at once, by the list in {}", trust.display())?;
    }
    let list = registry.revoked_list();
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
    Ok(())
}

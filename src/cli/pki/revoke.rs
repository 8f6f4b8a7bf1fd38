//! `watchpost pki revoke`: takes back certificates, and lets those who judge by the list know.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::remark;
use super::shown::{Shown, print};
use crate::cli::error::{CliError, Exit};
use crate::model::{InstanceName, Timestamp};
use crate::settings::usual_state_dir;
use crate::trust::{Identity, Part, Registry, Revocation, TrustFiles};

pub(super) fn run(
    part: Part,
    name: &InstanceName,
    trust: Option<PathBuf>,
    directory: &Path,
    json: bool,
) -> Result<Exit, CliError> {
    let now = Timestamp::now();
    let registry = Registry::open(directory)?;
    let revocation = registry.revoke(part, name, now)?;
    let judge = judge_of(part);
    let is_judge = |trust: &PathBuf| bearer(trust).is_some_and(|bearer| bearer.part == judge);
    let usual = || Some(usual_state_dir().join("trust")).filter(is_judge);
    // Also if there was nothing new to take back: the list may not have got there the last time.
    let published = trust.or_else(usual).filter(|_| registry.revoked_list().exists());
    if let Some(trust) = &published {
        registry.publish_revoked(&TrustFiles::in_directory(trust))?;
    }
    remark(&revocation.odd);
    if json {
        let shown =
            revocation.certificates.iter().map(|certificate| Shown { state: "revoked", ..Shown::of(certificate, now) });
        return shown.into_iter().try_for_each(|shown| print(&shown).map(drop)).map(|()| Exit::Done);
    }
    say_what_was_revoked(part, name, &revocation)?;
    if registry.revoked_list().exists() {
        say_what_comes_next(judge, published.as_deref(), &registry)?;
    }
    Ok(Exit::Done)
}

/// An agent is judged by its controller, a controller by every agent.
fn judge_of(part: Part) -> Part {
    if part == Part::Agent { Part::Controller } else { Part::Agent }
}

/// Whose certificate is in this directory, if one is.
fn bearer(trust: &Path) -> Option<Identity> {
    TrustFiles::in_directory(trust).bearer().ok()
}

fn say_what_was_revoked(part: Part, name: &InstanceName, revocation: &Revocation) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
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

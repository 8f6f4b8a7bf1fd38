//! How logs are compressed on their way into the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::courier::refusal;
use crate::model::{ArchiveRules, Exit};
use crate::supervisor::process::errand::{self, Errand};

/// How long a command may take for one log.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Runs the words behind it from one file into another: what they say on standard error is kept apart.
const REDIRECT: &str = r#"exec "$@" < "$WATCHPOST_FROM" > "$WATCHPOST_INTO""#;

/// How a log is compressed.
#[derive(Debug, Clone, Copy)]
pub enum Press<'a> {
    /// It is not.
    Nothing,
    /// By the agent itself.
    Gzip { extension: &'a str },
    /// From the standard input of a command to its output.
    Command {
        extension: &'a str,
        command: &'a [String],
        /// What it inherits.
        env: &'a BTreeMap<String, String>,
        /// Where what it says is kept until it has ended.
        home: &'a Path,
    },
}

impl<'a> Press<'a> {
    /// As the rules have it.
    pub fn of(rules: &'a ArchiveRules, env: &'a BTreeMap<String, String>, home: &'a Path) -> Self {
        let (extension, command) = (rules.extension.as_str(), rules.compressor.as_slice());
        match (rules.compress, command.is_empty()) {
            (false, _) => Self::Nothing,
            (true, true) => Self::Gzip { extension },
            (true, false) => Self::Command { extension, command, env, home },
        }
    }

    /// What names end in then.
    pub fn extension(&self) -> Option<&'a str> {
        match self {
            Self::Nothing => None,
            Self::Gzip { extension } | Self::Command { extension, .. } => Some(extension),
        }
    }

    /// Whether somebody else does it.
    pub fn is_command(&self) -> bool {
        matches!(self, Self::Command { .. })
    }

    /// Has the command make of a log what goes into that file, which is there; blocks until it has.
    pub(super) fn run(&self, log: &File, into: &Path) -> io::Result<()> {
        let Self::Command { command, env, home, .. } = self else { return Ok(()) };
        let into = into.to_str().ok_or_else(|| io::Error::other("the path of the archive is not UTF-8"))?;
        // The very file that was looked at, by whatever name it goes now.
        let from = format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd());
        let mut env = (*env).clone();
        env.extend([("WATCHPOST_FROM".to_owned(), from), ("WATCHPOST_INTO".to_owned(), into.to_owned())]);
        let words = ["/bin/sh", "-c", REDIRECT, "sh"].map(str::to_owned).into_iter();
        let errand = Errand {
            argv: words.chain(command.iter().cloned()).collect(),
            env,
            home: home.to_path_buf(),
            ..Errand::default()
        };
        let told = errand::run(errand, PATIENCE).map_err(|error| io::Error::other(error.to_string()))?;
        match told.exit {
            Exit::Status(0) => Ok(()),
            exit => Err(io::Error::other(refusal(command, exit, &told.output))),
        }
    }
}

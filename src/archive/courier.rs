//! The command of an archive: it takes logs one by one, as the user that their node runs as.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::QUEUE;
use super::name::Rotated;
use super::roll::Minded;
use crate::model::Exit;
use crate::supervisor::process::errand::{self, Errand};

/// How long it may take for one log.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much of what it says is repeated, in characters.
const MOST_SAID: usize = 500;

pub(super) struct Courier<'a> {
    pub command: &'a [String],
    /// What it inherits.
    pub env: &'a BTreeMap<String, String>,
    /// Where its output is kept until it has ended.
    pub home: &'a Path,
}

impl Courier<'_> {
    /// Has it take a log; blocks until it has, or has not.
    pub(super) fn hand_over(&self, minded: &Minded, file: &str, log: &Rotated) -> Result<(), String> {
        let path = minded.home.join(QUEUE).join(file);
        let path = path.to_str().ok_or("its path is not UTF-8")?;
        let told = [
            ("WATCHPOST_LOG_NAME", log.stem.clone()),
            ("WATCHPOST_LOG_OPENED", log.opened.to_string()),
            ("WATCHPOST_LOG_CLOSED", log.closed.to_string()),
            ("WATCHPOST_LOG_NODE", minded.name.to_string()),
        ];
        let mut env = self.env.clone();
        env.extend(told.map(|(name, value)| (name.to_owned(), value)));
        let errand = Errand {
            argv: self.command.iter().cloned().chain([path.to_owned()]).collect(),
            env,
            home: self.home.to_owned(),
            directory: Some(minded.home.clone()),
            user: minded.user.clone(),
            run_as: minded.run_as.clone(),
        };
        let told = errand::run(errand, PATIENCE).map_err(|error| error.to_string())?;
        match told.exit {
            Exit::Status(0) => Ok(()),
            exit => Err(refusal(self.command, exit, &told.output)),
        }
    }
}

/// How a command went, and what it said.
pub(super) fn refusal(command: &[String], exit: Exit, output: &str) -> String {
    let said: String = output.trim().chars().take(MOST_SAID).collect();
    let said = if said.is_empty() { said } else { format!(" and said: {said}") };
    format!("{} {exit}{said}", command.first().map_or("", String::as_str))
}

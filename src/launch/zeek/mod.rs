//! Zeek nodes: those without a `command`. The agent finds Zeek, and makes command line and layout as its version needs
//! them, without zeekctl and without Zeek's own Supervisor.
//!
//! [`installation`] finds Zeek; `script` renders, `rendered` keeps what was rendered; `command` calls; [`prepare`] has
//! all of it looked at before anything is stopped; `rehearsal` runs scripts over a capture. Nothing of the installation is written to.

mod command;
#[cfg(test)]
mod golden;
mod inspect;
pub mod installation;
pub mod prepare;
mod rehearsal;
mod rendered;
mod script;
mod version;

pub use command::Call;
pub use installation::{Finder, Installation};
pub use prepare::{Objection, Preparation};
pub use rehearsal::Rehearsal;
pub use rendered::Store;
pub use version::{NoBackend, Version};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::LaunchError;
use crate::model::{Node, NodeName};

/// What an agent has for its Zeek nodes.
#[derive(Debug)]
pub struct Launcher {
    finder: Finder,
    store: Store,
    /// Where files are rendered that only somebody asks about.
    asked_about: PathBuf,
}

impl Launcher {
    /// Looks for Zeek at `wanted`, or else in PATH and the usual places; keeps what it renders in `files`.
    pub fn new(wanted: Option<PathBuf>, environment: BTreeMap<String, String>, files: PathBuf) -> Self {
        let (finder, asked_about) = (Finder::new(wanted, environment, files.join("asked")), files.join("asked-about"));
        Self { finder, asked_about, store: Store::new(files) }
    }

    /// Has these nodes launched by the files that were rendered under this number, and all others as before.
    pub fn try_files(&self, number: u64, nodes: BTreeSet<NodeName>) {
        self.store.try_out(number, nodes);
    }

    /// Has all nodes launched by the files that were rendered under this number from now on; without one, by those from before
    /// something was tried out. [`Launcher::keep_files`] is to follow, on a thread that may wait for the disk.
    pub fn use_files(&self, number: Option<u64>) {
        self.store.choose(number);
    }

    /// Has nodes launched by the files that are in use also by the next run of the agent. Blocks.
    pub fn keep_files(&self) -> Result<(), String> {
        self.store.put_in_force().map_err(|error| error.to_string())
    }

    /// The command line and the variables of a node, whose files are in `tree`. Blocks, mostly when Zeek is asked for its version: once.
    pub fn call(
        &self,
        node: &Node,
        tree: Option<&str>,
        inherited: &BTreeMap<String, String>,
    ) -> Result<Call, LaunchError> {
        let zeek = self.finder.find().map_err(|error| LaunchError::Zeek(error.to_string()))?;
        let files =
            self.store.current(&node.name, zeek.version).map_err(|error| LaunchError::Zeek(error.to_string()))?;
        let path = inherited.get("PATH").map(String::as_str);
        let keys = files.keys().map_err(|error| LaunchError::Zeek(error.to_string()))?;
        let call = command::call(node, &zeek, &files, tree, keys.as_ref(), path);
        call.map_err(|error| LaunchError::Zeek(error.to_string()))
    }
}

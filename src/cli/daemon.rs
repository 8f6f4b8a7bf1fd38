//! The verbs that stay: lab, controller, agent. Each is a call into [`crate::run`].

use super::error::{CliError, Exit};
use super::{AgentArgs, ControllerArgs, LabArgs};

/// Everything in one process, for one machine.
pub fn lab(_args: LabArgs) -> Result<Exit, CliError> {
    not_in_this_build("lab")
}

/// The controller of a fleet.
pub fn controller(_args: ControllerArgs) -> Result<Exit, CliError> {
    not_in_this_build("controller")
}

/// The agent of one machine.
pub fn agent(_args: AgentArgs) -> Result<Exit, CliError> {
    not_in_this_build("agent")
}

fn not_in_this_build(what: &str) -> Result<Exit, CliError> {
    Err(CliError::Daemon(format!("this build has no {what}")))
}

//! Why a process could not be started, and whether trying again may help.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::model::Cpus;

/// Why a process could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("there is no command to run")]
    NoCommand,
    #[error("{what} contains a NUL byte")]
    Nul { what: String },
    #[error("`{name}` cannot name an environment variable: it is empty or contains `=`")]
    VariableName { name: String },
    #[error("user `{user}` does not exist")]
    UnknownUser { user: String },
    #[error("group `{group}` does not exist")]
    UnknownGroup { group: String },
    #[error("cannot make directory {}: {cause}", path.display())]
    MakeDirectory { path: PathBuf, cause: io::Error },
    #[error("cannot set its limit on {resource}: {cause}")]
    Limit { resource: &'static str, cause: io::Error },
    #[error("cannot have the capabilities it is to have: {cause}; only an agent that has them can give them")]
    Capabilities { cause: io::Error },
    #[error("cannot keep capability {number} for it: this release does not know that one, so upgrade this agent")]
    UnknownCapability { number: u8 },
    #[error("cannot look up user `{user}`: {cause}")]
    UserDatabase { user: String, cause: io::Error },
    #[error("cannot become user `{user}`: {cause}; only an agent that runs as root can")]
    User { user: String, cause: io::Error },
    #[error("cannot write the output to {}: {cause}", path.display())]
    Output { path: PathBuf, cause: io::Error },
    #[error("cannot write the output to {}: it is neither a file nor a device", path.display())]
    OutputKind { path: PathBuf },
    #[error(
        "cannot run on CPUs {cpus}: {missing} {} not among those that this machine lets us use{}",
        if missing.0.len() == 1 { "is" } else { "are" },
        online.as_ref().map_or(String::new(), |online| format!(", {online}"))
    )]
    Cpus { cpus: Cpus, missing: Cpus, online: Option<Cpus> },
    #[error("cannot change to directory {}: {cause}", path.display())]
    Directory { path: PathBuf, cause: io::Error },
    #[error("cannot run `{program}`: its interpreter `{interpreter}` does not exist")]
    Interpreter { program: String, interpreter: String },
    #[error("cannot run `{program}`: {cause}")]
    Exec { program: String, cause: io::Error },
    #[error("cannot start a process in the control group {}: {cause}", path.display())]
    Group { path: PathBuf, cause: io::Error },
    #[error("cannot {step}: {cause}")]
    Step { step: &'static str, cause: io::Error },
}

impl SpawnError {
    /// Whether trying again is futile until a person has changed something. A machine that is short of processes,
    /// memory, descriptors or disk may have some again.
    pub fn is_permanent(&self) -> bool {
        let cause = match self {
            Self::UserDatabase { cause, .. }
            | Self::User { cause, .. }
            | Self::Output { cause, .. }
            | Self::Directory { cause, .. }
            | Self::Exec { cause, .. }
            | Self::Group { cause, .. }
            | Self::MakeDirectory { cause, .. }
            | Self::Limit { cause, .. }
            | Self::Capabilities { cause }
            | Self::Step { cause, .. } => cause,
            Self::NoCommand
            | Self::Nul { .. }
            | Self::VariableName { .. }
            | Self::UnknownUser { .. }
            | Self::UnknownGroup { .. }
            | Self::UnknownCapability { .. }
            | Self::OutputKind { .. }
            | Self::Interpreter { .. }
            | Self::Cpus { .. } => return true,
        };
        !matches!(
            Errno::from_io_error(cause),
            Some(
                Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT | Errno::TXTBSY // somebody writes the program this very moment: an upgrade
            )
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_passes() {
        let shortage = |errno: Errno| SpawnError::Step { step: "start another process", cause: errno.into() };
        for errno in [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC] {
            assert!(!shortage(errno).is_permanent(), "{errno}");
        }
        assert!(shortage(Errno::PERM).is_permanent());
    }
}

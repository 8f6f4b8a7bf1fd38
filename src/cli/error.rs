//! What can go wrong for who types a command, and the exit code that says so to a script.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::model::NameError;
use crate::run::{JoinError, RunError};
use crate::settings::SettingsError;
use crate::trust::{TokenError, TrustError};
use crate::web::json::Problem;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong arguments, or a file that cannot be used.
    Usage = 2,
    /// `status --check`: something that should run does not.
    NotMet = 3,
    /// The answer was printed, and part of the cluster is missing from it; or nobody heard the answer to an order.
    Unreachable = 4,
    NotPermitted = 5,
    TimedOut = 124,
    /// Ctrl-C, as shells count it.
    Interrupted = 130,
}

impl Exit {
    /// What only `--detailed-exitcode` says, as Terraform does: something would change, and nothing is wrong.
    pub const CHANGES: Self = Self::Usage;
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do what it was for: what happened, where, and what to try next.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("`{0}` is not an address of a controller: give it as http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    #[error("`{url}` is not encrypted, so the certificate in {} cannot be shown there: give it as https://HOST:PORT", certificate.display())]
    PlainUrl { url: String, certificate: PathBuf },
    #[error("{0}")]
    NoZeek(String),
    #[error("there are several files ({0}): name a directory for them by --output DIR")]
    SeveralFiles(String),
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is there already: a token goes into a new file, which nobody else can have open; choose another by --out", .0.display())]
    Taken(PathBuf),
    #[error("cannot make {}: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "{} has no nodes, so to deploy it would remove every node there is\n  if that is meant, say so with --empty",
        .0.display()
    )]
    Empty(PathBuf),
    #[error("cannot read the token in {}: {source}\n  name the file with --token-file FILE or WATCHPOST_TOKEN_FILE; \
             the controller keeps it as `token` in its state directory", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error(
        "cannot reach the controller at {url}: {reason}\n  is it running there? a lab prints its address when it \
             starts; give it with --controller URL or WATCHPOST_CONTROLLER"
    )]
    NoController {
        url: String,
        reason: String,
        /// Whether it was there when it was asked, so that it may have heard.
        was_reached: bool,
    },
    /// An order was given, and nobody hears what came of it.
    #[error(
        "the controller at {url} was lost before it answered: {reason}\n  whether what was ordered is done is not known here: \
             see `watchpost status`"
    )]
    Lost { url: String, reason: String },
    #[error(
        "the controller at {url} was lost while {doing}, and not found again within {}: what came of it is not known \
             here\n  once it can be reached, `watchpost deploy --attach` shows whether it is still under way, and \
             `watchpost history` what came of it", humantime::format_duration(*looked_for)
    )]
    Fate { url: String, doing: String, looked_for: Duration },
    #[error(
        "the controller at {url} was lost while {doing}, and knows of no such deployment now that it is found again: nothing \
             was touched, so deploy again"
    )]
    NotBegun { url: String, doing: String },
    #[error("the controller at {url} did not answer within {}\n  what was ordered may still be carried out: see \
             `watchpost status`, or wait longer with --timeout", humantime::format_duration(*after))]
    TimedOut { url: String, after: Duration },
    #[error("the controller at {url} does not permit this: {}\n  {hint}", problem.error)]
    NotPermitted { url: String, problem: Problem, hint: String },
    #[error(
        "the controller at {url} does not accept this client: {reason}\n  its log says why; a new certificate is made by `watchpost pki issue client NAME`"
    )]
    Unwelcome { url: String, reason: String },
    #[error(
        "the controller at {url} cannot be trusted: {reason}\n  name the certificate of its authority with --ca FILE, such as \
             `trust/ca.pem` of its state directory"
    )]
    Untrusted { url: String, reason: String },
    /// The controller says that the request or the file is wrong.
    #[error("{}", .0.error)]
    Wrong(Problem),
    /// There is no such thing.
    #[error("{}", .0.error)]
    Absent(Problem),
    /// The controller could not do it.
    #[error("the controller at {url} answers {status}: {}", problem.error)]
    Refused { url: String, status: u16, problem: Problem },
    #[error("{url} does not answer like a controller: {reason}\n  is it the HTTP address of one (default port 2148)?")]
    Foreign { url: String, reason: String },
    #[error("no request of `{name}` waits in {}: `watchpost pki requests` lists all that do", directory.display())]
    NoRequest { name: String, directory: PathBuf },
    #[error(
        "nobody knows where the controller listens for agents: start it first, or say so by --address HOST:PORT, as the \
         new machine reaches it"
    )]
    NoAddress,
    #[error("a token carries at most {most} addresses")]
    Addresses { most: usize },
    #[error(transparent)]
    NoToken(#[from] TokenError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("cannot read the token from standard input: {0}")]
    Input(io::Error),
    #[error("cannot prepare to wait: {0}")]
    Runtime(io::Error),
    /// Whoever read the output has seen enough.
    #[error("the output was closed")]
    Closed,
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot use {} as a plan: {why}", path.display())]
    NoPlan { path: PathBuf, why: String },
    /// One that counts as failed, since another code would say that something changes.
    #[error(transparent)]
    Detailed(Box<CliError>),
    /// Several files are wrong, each by itself; never empty.
    #[error("{}", .0.iter().map(Self::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<CliError>),
    /// The system has no random numbers to give.
    #[error("{0}")]
    Internal(String),
}

impl CliError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(usage) if !usage.use_stderr() => Exit::Done,
            Self::Usage(_)
            | Self::Name(_)
            | Self::Url(_)
            | Self::PlainUrl { .. }
            | Self::Empty(_)
            | Self::SeveralFiles(_)
            | Self::File { .. }
            | Self::Taken(_)
            | Self::Make { .. }
            | Self::Token { .. }
            | Self::NoAddress
            | Self::Addresses { .. }
            | Self::NoToken(_)
            | Self::NoPlan { .. }
            | Self::Wrong(_) => Exit::Usage,
            Self::Closed => Exit::Done,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::NotPermitted { .. } | Self::Unwelcome { .. } => Exit::NotPermitted,
            Self::Lost { .. } | Self::Fate { .. } => Exit::Unreachable,
            Self::NoController { .. }
            | Self::NotBegun { .. }
            | Self::Absent(_)
            | Self::Refused { .. }
            | Self::Foreign { .. }
            | Self::Untrusted { .. }
            | Self::Trust(_)
            | Self::NoRequest { .. }
            | Self::Join(_)
            | Self::Input(_)
            | Self::Runtime(_)
            | Self::Output(_)
            | Self::NoZeek(_)
            | Self::Detailed(_)
            | Self::Internal(_) => Exit::Failed,
            Self::Settings(_) | Self::Run(RunError::Settings(_) | RunError::NotLoopback(_) | RunError::Refused(_)) => {
                Exit::Usage
            }
            // The first is as good as any.
            Self::Several(errors) => errors.first().map_or(Exit::Failed, Self::exit),
            Self::Run(_) => Exit::Failed,
        }
    }

    /// The same of an order that may have been heard: what came of it is open then.
    pub fn of_order(self) -> Self {
        match self {
            Self::NoController { url, reason, was_reached: true } => Self::Lost { url, reason },
            Self::Refused { url, status: 503, problem } => Self::Lost { url, reason: problem.error },
            other => other,
        }
    }

    /// Whether the controller may answer if it is asked again in a while.
    pub fn is_away(&self) -> bool {
        let is_away = matches!(self, Self::NoController { .. } | Self::Lost { .. } | Self::TimedOut { .. });
        is_away || matches!(self, Self::Refused { status: 503, .. })
    }

    /// Why it is away, in few words.
    pub fn reason(&self) -> String {
        match self {
            Self::NoController { reason, .. } | Self::Lost { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// One line per complaint, where there are several.
    pub fn details(&self) -> &[String] {
        match self {
            Self::Wrong(problem)
            | Self::Absent(problem)
            | Self::Refused { problem, .. }
            | Self::NotPermitted { problem, .. } => &problem.details,
            Self::Detailed(error) => error.details(),
            _ => &[],
        }
    }
}

impl From<io::Error> for CliError {
    /// For writing to standard output, the one place where the commands do so without saying more.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Output(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_at_a_start_has_failed_and_says_what_may_be_wrong() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let key = TrustError::Write { path: "/state/zeromq.key".into(), source: full() };
        let error = CliError::from(RunError::from(key));
        assert_eq!(error.exit(), Exit::Failed);
        assert_eq!(
            error.to_string(),
            "cannot write /state/zeromq.key: the disk may be full, read-only, or another user's"
        );
    }
}

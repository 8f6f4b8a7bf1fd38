//! Short errands: a program that is run to its end, for what it says. Whoever waits is blocked meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::spawn::{Program, spawn};
use super::sys::group;
use super::{Process, SpawnError, handle};
use crate::model::{Exit, RunAs};

/// How much of what it says is kept, in bytes: the beginning.
const MOST_OUTPUT: u64 = 64 << 10;
/// How long a program that was killed may take to be gone.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// What to run, and in what surroundings.
#[derive(Clone, Default)]
pub struct Errand {
    pub argv: Vec<String>,
    /// The complete environment.
    pub env: BTreeMap<String, String>,
    /// Where what it says is kept until it has ended; made if it is missing, and of no other errand meanwhile.
    pub home: PathBuf,
    /// Its working directory; `None` for its home.
    pub directory: Option<PathBuf>,
    pub user: Option<String>,
    pub run_as: RunAs,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub exit: Exit,
    /// What it wrote to both streams. What is not UTF-8 is replaced.
    pub output: String,
}

/// Why it is not known how it went.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("it did not end within {}", humantime::format_duration(*.0))]
    Overdue(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs it to its end, or kills it and all that is in its group when `patience` is over.
pub fn run(errand: Errand, patience: Duration) -> Result<Told, ErrandError> {
    let Errand { argv, env, home, directory, user, run_as } = errand;
    let output = home.join("output");
    fs::create_dir_all(&home)?;
    match fs::remove_file(&output) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let directory = directory.unwrap_or(home);
    let (stdout, stderr) = (output.clone(), output.clone());
    let (cpus, nofile, group) = (None, None, None);
    let process = spawn(&Program { argv, env, directory, stdout, stderr, user, cpus, nofile, run_as, group }, None)?;
    let in_time = wait(&process, patience)?;
    // Also what it left behind in its group.
    process.kill()?;
    if !in_time {
        wait(&process, LAST_PATIENCE)?;
    }
    let exit = process.end().exit;
    process.reap();
    let mut told = Vec::new();
    File::open(&output)?.take(MOST_OUTPUT).read_to_end(&mut told)?;
    fs::remove_file(&output)?;
    match in_time {
        true => Ok(Told { exit, output: String::from_utf8_lossy(&told).into_owned() }),
        false => Err(ErrandError::Overdue(patience)),
    }
}

/// A child that `std` started, held by more than its number, which is a stranger's once somebody reaped the child.
#[derive(Debug)]
pub struct Held(OwnedFd);

impl Held {
    /// To be called right after the start. Fails where it was reaped already.
    pub fn new(child: &Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // Only our own can be waited for.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(pidfd.as_fd()), look)?;
        Ok(Self(pidfd))
    }

    /// Kills it with the group that it leads, before Linux 6.9 it alone, and reaps it if nobody did.
    pub fn end(self) {
        if group::signal(&self.0, Signal::KILL) == Err(Errno::INVAL) {
            let _ = pidfd_send_signal(&self.0, Signal::KILL); // it has ended
        }
        handle::bury(self.0.as_fd());
    }
}

/// Whether the process ended before `patience` was over.
fn wait(process: &Process, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn shell(home: &tempfile::TempDir, script: &str, patience: Duration) -> Result<Told, ErrandError> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).into();
        run(Errand { argv, home: home.path().join("errand"), ..Errand::default() }, patience)
    }

    #[test]
    fn what_it_says_and_how_it_ends_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let long = Duration::from_secs(60);
        let told = shell(&home, "echo out; echo err >&2; exit 3", long).unwrap();
        assert_eq!(told, Told { exit: Exit::Status(3), output: "out\nerr\n".into() });
        let told = shell(&home, "kill -9 $$", long).unwrap();
        assert_eq!(told, Told { exit: Exit::Signal { number: 9, core_dumped: false }, output: String::new() });
        let much = shell(&home, "head -c 1000000 /dev/zero", long).unwrap();
        assert_eq!(much.output.len() as u64, MOST_OUTPUT);
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_what_it_started() {
        let home = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let error = shell(&home, "sleep 600 & sleep 600", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "it did not end within 50ms");
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_child_that_is_held_is_ended_and_one_that_somebody_reaped_is_not_waited_for() {
        use std::os::unix::process::CommandExt;
        let start = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut child = start();
        Held::new(&child).unwrap().end();
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(Errno::CHILD.raw_os_error()), "it is reaped");

        let mut child = start();
        let held = Held::new(&child).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        held.end();
        assert!(Held::new(&child).is_err(), "there is nobody to hold");
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        let home = tempfile::tempdir().unwrap();
        let errand = Errand { argv: vec!["/nowhere/x".into()], home: home.path().into(), ..Errand::default() };
        assert!(run(errand, Duration::from_secs(1)).unwrap_err().to_string().contains("/nowhere/x"));
    }
}

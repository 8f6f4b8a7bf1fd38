//! What the tests of this folder share: programs for `/bin/sh`, and waiting for something to become true.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Process, Program, spawn};
use crate::model::{Exit, RunAs};

/// Long enough for a loaded machine; only a test that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A shell script that writes into `stdout` and `stderr` of the directory it runs in.
pub fn script(directory: &Path, script: &str) -> Program {
    Program {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        directory: directory.to_owned(),
        stdout: directory.join("stdout"),
        stderr: directory.join("stderr"),
        user: None,
        cpus: None,
        nofile: None,
        run_as: RunAs::default(),
        group: None,
    }
}

/// Runs to the end and returns what it wrote to stdout.
pub fn output(program: &Program) -> String {
    let process = spawn(program, None).unwrap();
    let exit = finish(&process);
    let stdout = fs::read_to_string(&program.stdout).unwrap();
    assert_eq!(exit, Exit::Status(0), "{stdout}{}", fs::read_to_string(&program.stderr).unwrap());
    stdout
}

/// Waits for the end, and reaps.
pub fn finish(process: &Process) -> Exit {
    wait_until("the process ends", || has_ended(process));
    let exit = process.end().exit;
    process.reap();
    exit
}

pub fn has_ended(process: &Process) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&now)).unwrap() == 1
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the file holds a number and a line's end, and returns the number.
pub fn number_in(file: &Path) -> u32 {
    let text = || fs::read_to_string(file).unwrap_or_default();
    wait_until("a number is in the file", || text().ends_with('\n'));
    text().trim().parse().unwrap()
}

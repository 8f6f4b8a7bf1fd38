//! What every story needs: a scene of its own, daemons in it, a client to ask them, and a look at what really runs.
//!
//! A [`Scene`] is a temporary directory, a cluster name and an address of the loopback network that no other scene has.
//! So stories may run side by side, find exactly the processes that are theirs, and bind a port again after a restart.
//! When a scene ends, whatever still runs in it is killed, also if the story failed.

pub mod apart;
mod client;
mod daemon;
mod fleet;
pub mod processes;
mod reserved;
mod text;
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub mod zeek;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use client::{Answer, Client, changes, check_log, epochs, node, path, pids, states};
pub use daemon::Daemon;
pub use fleet::{Fleet, Lab};
pub use reserved::Reserved;
pub use text::{deaf, script, sleeper};

/// Long enough for a machine that is busy with something else. What works never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Tries until there is something, and returns it.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where a story takes place. Declare it before the daemons that live in it.
pub struct Scene {
    directory: TempDir,
    cluster: String,
    address: Ipv4Addr,
}

impl Scene {
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let (number, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), apart::number());
        let [.., high, low] = pid.to_be_bytes();
        Self {
            directory: tempfile::Builder::new().prefix("watchpost-story-").tempdir().unwrap(),
            cluster: format!("story-{pid}-{number}"),
            // Apart from 127.0.0.1, where others listen.
            address: Ipv4Addr::new(127, 1 + high % 254, low, number),
        }
    }

    /// Names the cluster of all daemons here.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Port 0 of this scene's own address.
    pub fn any_port(&self) -> String {
        format!("{}:0", self.address)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What stands in a file that nodes write; empty if none did.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The settings of every daemon here: lost links are found, and made again, sooner than usual.
    pub fn settings(&self) -> PathBuf {
        let cluster = &self.cluster;
        let link = "heartbeat = '1s'\nreconnect_min = '20ms'\nreconnect_max = '200ms'";
        self.write("settings.toml", &format!("cluster = '{cluster}'\n[link]\n{link}\n"))
    }

    /// The program, in an environment without settings.
    pub fn watchpost(&self, args: &[&str]) -> Command {
        let mut command = watchpost(self.directory.path());
        command.args(args);
        command
    }

    /// The same by way of another command, such as one that takes it to another network.
    #[allow(dead_code, reason = "only some of the programs that share this need it")]
    pub fn watchpost_through(&self, through: &[&str], args: &[&str]) -> Command {
        let through: Vec<_> = through.iter().map(|word| (*word).to_owned()).collect();
        let mut command = watchpost_through(&through, self.directory.path());
        command.args(args);
        command
    }

    /// The pids of everything that carries the marker of a node of this cluster.
    pub fn processes(&self) -> Vec<u32> {
        processes::marked(&format!("{}/", self.cluster))
    }

    /// The pids of everything that carries the marker of this node.
    pub fn processes_of(&self, node: &str) -> Vec<u32> {
        processes::marked(&format!("{}/{node}/", self.cluster))
    }

    /// Checks that no process of any node is left.
    pub fn check_that_nothing_runs(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "still there: {left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        processes::kill_all(|| {
            let mut left = self.processes();
            left.extend(processes::working_in(self.directory.path()));
            left
        });
        processes::forget_groups(&format!("{}.", self.cluster));
    }
}

/// The program, with `home` for its home and nothing of the environment that the tests run in but the way to programs.
fn watchpost(home: &Path) -> Command {
    watchpost_through(&[], home)
}

/// The same by way of another command.
fn watchpost_through(through: &[String], home: &Path) -> Command {
    let program = env!("CARGO_BIN_EXE_watchpost");
    let mut command = match through {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // Its usual port is one for the whole machine: who wants another says so.
    command.env("WATCHPOST_CONTROLLER_WEBSOCKET", "");
    // Nothing of a scene stays on the machine, not even if its daemons are killed.
    command.env("WATCHPOST_AGENT_RUN_DIR", home.join("run"));
    command.stdin(std::process::Stdio::null());
    command
}

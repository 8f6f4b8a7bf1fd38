//! The real daemons, as an operator starts them: `watchpost controller` and `watchpost agent`, one of each, joined by
//! the bridge on loopback.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::nursery::{Nursery, PATIENCE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchpost");

/// Dropping it removes all nodes and ends both.
pub struct Daemons {
    pub controller: Daemon,
    pub agent: Daemon,
    home: PathBuf,
    url: String,
}

/// One daemon.
pub struct Daemon {
    process: Child,
}

impl Daemons {
    /// Starts both and waits until they are linked. There are no nodes yet.
    pub fn start(nursery: &Nursery) -> Self {
        let home =
            tempfile::Builder::new().prefix("daemons").tempdir_in(nursery.directory()).expect("a directory").keep();
        let begin = |verb: &str, settings: &[(&str, &str)]| {
            let mut command = Command::new(PROGRAM);
            command.arg(verb).arg("--state-dir").arg(home.join(verb)).envs(settings.iter().copied());
            let command = command.env("WATCHPOST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
            Daemon { process: command.spawn().expect("the program just built") }
        };
        let controller = begin(
            "controller",
            &[
                ("WATCHPOST_CONTROLLER_LISTEN", "127.0.0.1:0"),
                ("WATCHPOST_CONTROLLER_HTTP", "127.0.0.1:0"),
                ("WATCHPOST_CONTROLLER_WEBSOCKET", ""),
            ],
        );
        let addresses = home.join("controller/addresses.json");
        let addresses = wait_for("addresses", || {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&addresses).ok()?).ok()
        });
        let address = |purpose: &str| addresses[purpose].as_str().expect("it listens").to_owned();
        let agent =
            begin("agent", &[("WATCHPOST_AGENT_NAME", "sensor"), ("WATCHPOST_AGENT_CONTROLLER", &address("agents"))]);
        let daemons = Self { controller, agent, home, url: format!("http://{}", address("http")) };
        daemons.deploy(nursery, 0);
        daemons
    }

    /// Makes it so many nodes, and waits until it is done.
    pub fn deploy(&self, nursery: &Nursery, count: usize) {
        let file = self.home.join("cluster.cfg");
        let mut text = String::from("[instances]\nsensor\n");
        for number in 0..count {
            let command = nursery.command(number).join(" ");
            let _ = write!(text, "[node-{number}]\ninstance = sensor\nrole = none\ncommand = {command}\n"); // a String
        }
        std::fs::write(&file, text).expect("a cluster file");
        self.run(&["deploy", "--empty", file.to_str().expect("a path that is text")]);
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .args(["--controller", &self.url])
            .arg("--token-file")
            .arg(self.home.join("controller/token"));
        let output = command.output().expect("the program just built");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // While a benchmark fails, children still go when their pipe does.
        if !std::thread::panicking() {
            self.run(&["stop"]);
        }
        for daemon in [&mut self.agent, &mut self.controller] {
            let _ = kill_process(Pid::from_child(&daemon.process), Signal::TERM);
            let _ = daemon.process.wait();
        }
    }
}

impl Daemon {
    /// Its share of memory, in bytes: what it shares with others counts by halves, thirds and so on.
    pub fn memory(&self) -> f64 {
        let rollup = std::fs::read_to_string(self.proc("smaps_rollup")).expect("a living daemon");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line of that name");
        let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kibibytes * 1024.0
    }

    /// How often any of its threads went to sleep by itself, and woke up again.
    pub fn sleeps(&self) -> u64 {
        let threads = std::fs::read_dir(self.proc("task")).expect("a living daemon");
        let of_thread = |path: &Path| {
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        };
        threads.filter_map(|thread| of_thread(&thread.ok()?.path())).sum()
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(self.proc("task")).expect("a living daemon").count()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

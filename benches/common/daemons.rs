//! The real daemons, as an operator starts them: `watchpost controller` and `watchpost agent`, one of each, joined by
//! the bridge on loopback.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::nursery::{Nursery, PATIENCE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchpost");

/// Dropping it removes all nodes and ends both.
pub struct Daemons {
    pub agent: Daemon,
    pub controller: Controller,
    /// The agent was asked to end, and with it its nodes.
    is_ending: bool,
}

/// `watchpost controller`, and how to command it.
pub struct Controller {
    pub daemon: Daemon,
    /// Where agents find it.
    pub agents: SocketAddr,
    home: PathBuf,
    url: String,
}

/// One daemon; dropping it ends it.
pub struct Daemon {
    process: Child,
}

impl Daemons {
    /// Starts both and waits until they are linked. There are no nodes yet.
    pub fn start(nursery: &Nursery) -> Self {
        let controller = Controller::start(nursery);
        let agents = controller.agents.to_string();
        let run_dir = controller.home.join("run").display().to_string();
        let settings = [
            ("AGENT_NAME", "sensor"),
            ("AGENT_CONTROLLER", &agents),
            ("AGENT_ON_EXIT", "stop"),
            ("AGENT_RUN_DIR", &run_dir),
        ];
        let agent = Daemon::start("agent", &controller.home, &settings);
        let daemons = Self { controller, agent, is_ending: false };
        daemons.deploy(nursery, 0);
        daemons
    }

    /// Makes it so many nodes, and waits until it is done.
    pub fn deploy(&self, nursery: &Nursery, count: usize) {
        self.controller.deploy(nursery, count);
    }

    /// Asks the agent to end, which stops its nodes first.
    pub fn end_agent(&mut self) {
        self.is_ending = true;
        let _ = kill_process(Pid::from_child(&self.agent.process), Signal::TERM); // it may have been asked before
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // While a benchmark fails, children still go when their pipe does.
        if !std::thread::panicking() && !self.is_ending {
            self.controller.run(&["stop"]);
        }
    }
}

impl Controller {
    /// Starts it and waits until it listens.
    pub fn start(nursery: &Nursery) -> Self {
        let home =
            tempfile::Builder::new().prefix("daemons").tempdir_in(nursery.directory()).expect("a directory").keep();
        let nowhere = "127.0.0.1:0";
        let settings = [("CONTROLLER_LISTEN", nowhere), ("CONTROLLER_HTTP", nowhere), ("CONTROLLER_WEBSOCKET", "")];
        let daemon = Daemon::start("controller", &home, &settings);
        let addresses = home.join("controller/addresses.json");
        let addresses = wait_for("addresses", || {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&addresses).ok()?).ok()
        });
        let address = |purpose: &str| addresses[purpose].as_str().expect("it listens");
        let agents = address("agents").parse().expect("an address");
        Self { daemon, agents, home, url: format!("http://{}", address("http")) }
    }

    /// Makes it so many nodes of instance `sensor`, and waits until it is done.
    pub fn deploy(&self, nursery: &Nursery, count: usize) {
        let file = self.home.join("cluster.cfg");
        let mut text = String::from("[instances]\nsensor\n");
        for number in 0..count {
            let command = nursery.command(number).join(" ");
            // Each lives for longer than that, and so is restarted as if it were the first time.
            let keys = "instance = sensor\nrole = none\nrestart_stable = 1ms";
            let _ = write!(text, "[node-{number}]\n{keys}\ncommand = {command}\n"); // a String
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

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

impl Daemon {
    fn start(verb: &str, home: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROGRAM);
        let named = settings.iter().map(|(key, value)| (format!("WATCHPOST_{key}"), value));
        command.arg(verb).arg("--state-dir").arg(home.join(verb)).envs(named);
        let command = command.env("WATCHPOST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: command.spawn().expect("the program just built") }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

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

/// Looks until there is something, which has to come in time.
pub fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

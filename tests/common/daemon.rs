//! One daemon: a lab, a controller or an agent in a process of its own.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use rustix::process::Signal;
use watchpost::state_dir::StateDir;

use super::{Client, Scene, eventually, processes};

/// A running daemon, killed when it is dropped. A story that fails prints its log.
pub struct Daemon {
    name: String,
    /// A command that runs the program, such as one that takes it to another network; may be empty.
    through: Vec<String>,
    args: Vec<String>,
    home: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts `watchpost ARGS` with a state directory called `name`, and waits until it says where it listens.
    pub fn start(scene: &Scene, name: &str, args: &[&str]) -> Self {
        Self::start_with(scene, name, args, "")
    }

    /// The same by way of another command, which becomes the program.
    pub fn start_through(through: &[&str], scene: &Scene, name: &str, args: &[&str]) -> Self {
        Self::start_as(through, scene, name, args, "")
    }

    /// The same with settings of its own beside those of the scene.
    #[allow(dead_code, reason = "only some of the programs that share this need it")]
    pub fn start_with(scene: &Scene, name: &str, args: &[&str], settings: &str) -> Self {
        Self::start_as(&[], scene, name, args, settings)
    }

    /// All of that.
    #[allow(dead_code, reason = "only some of the programs that share this need it")]
    pub fn start_all(through: &[&str], scene: &Scene, name: &str, args: &[&str], settings: &str) -> Self {
        Self::start_as(through, scene, name, args, settings)
    }

    fn start_as(through: &[&str], scene: &Scene, name: &str, args: &[&str], settings: &str) -> Self {
        let through: Vec<_> = through.iter().map(|word| (*word).to_owned()).collect();
        let all = std::fs::read_to_string(scene.settings()).unwrap() + settings;
        let file = scene.write(&format!("{name}.toml"), &all);
        let home = scene.path("");
        let args = args.iter().chain(&["--config", file.to_str().unwrap()]).map(|arg| (*arg).to_owned()).collect();
        let child = launch(&through, &home, name, &args);
        let mut daemon = Self { name: name.to_owned(), through, args, home, child };
        assert!(daemon.gets_ready(), "{name} ended instead of getting ready: {}", daemon.log());
        daemon
    }

    /// Starts it again, on the addresses that it had.
    pub fn start_again(&mut self) {
        assert!(self.starts_again(), "{} ended instead of getting ready: {}", self.name, self.log());
    }

    /// The same, and whether it got ready; else it has ended.
    pub fn starts_again(&mut self) -> bool {
        let flag = |purpose: &str| match purpose {
            "http" => "--http",
            "zeek-client" => "--websocket",
            _ => "--listen",
        };
        for (purpose, address) in self.addresses() {
            let at = self.args.iter().position(|arg| arg == flag(&purpose)).expect("it was told where to listen");
            self.args[at + 1] = address.to_string();
        }
        self.child = launch(&self.through, &self.home, &self.name, &self.args);
        self.gets_ready()
    }

    /// Waits until it is ready, or has ended.
    fn gets_ready(&mut self) -> bool {
        eventually(&format!("{} is ready", self.name), || {
            let has_ended = self.child.try_wait().unwrap().is_some();
            let out = std::fs::read_to_string(self.home.join(format!("{}.out", self.name))).unwrap_or_default();
            (has_ended || out.starts_with("watchpost ")).then_some(!has_ended)
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.join(&self.name)
    }

    /// Where it listens, by purpose.
    pub fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        StateDir::addresses_in(&self.state_dir()).unwrap()
    }

    /// Everything that it logged, in all of its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Waits until this node of it has written this line.
    pub fn wait_until_says(&self, node: &str, line: &str) {
        eventually(&format!("{node} says {line}"), || {
            let said = std::fs::read_to_string(self.home_of(node).join("stdout")).unwrap_or_default();
            said.lines().any(|said| said == line).then_some(())
        });
    }

    /// The directory of this node of it: a lab has one more for each instance.
    fn home_of(&self, node: &str) -> PathBuf {
        let nodes = self.state_dir().join("nodes");
        let instances = std::fs::read_dir(&nodes).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let mut homes = instances.map(|instance| instance.join(node));
        homes.find(|home| home.join("record").exists()).unwrap_or_else(|| nodes.join(node))
    }

    /// A client of it, for a lab or a controller.
    pub fn client(&self) -> Client {
        Client::new(&self.home, self.addresses()["http"], &self.state_dir())
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    pub fn is_alive(&self) -> bool {
        processes::is_alive(self.pid())
    }

    /// SIGKILL, as the machine's memory killer would do it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not there any more is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of {} ---\n{}", self.name, self.log());
        }
    }
}

fn launch(through: &[String], home: &Path, name: &str, args: &Vec<String>) -> Child {
    let mut command: Command = super::watchpost_through(through, home);
    command.args(args).env("WATCHPOST_LOG", "info").arg("--state-dir").arg(home.join(name));
    command.stdout(File::create(home.join(format!("{name}.out"))).unwrap());
    let log = OpenOptions::new().create(true).append(true).open(home.join(format!("{name}.log")));
    command.stderr(log.unwrap()).spawn().unwrap()
}

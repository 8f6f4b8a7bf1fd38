//! A network of a test's own: namespaces that are gone with it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::common::{Answer, Client, Daemon, Scene};

/// Says to the second run of the test that it is alone.
const ALONE: &str = "WATCHPOST_TEST_IS_ALONE";

/// Runs a test in a network and a mount namespace of its own: this program is run again in there, for that test.
///
/// Root just does that; anybody else becomes root of a user namespace, which the kernel has to allow.
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        run("mount", &["-t", "tmpfs", "none", "/run"]); // where `ip` keeps the names of namespaces
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--kill-child", "--fork", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").stdin(Stdio::null());
    let output = command.output().expect("`unshare` of util-linux is needed");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "in a network of its own:\n{said}");
}

/// A controller here, and agents elsewhere.
pub struct Site {
    pub controller: Daemon,
    pub agents: BTreeMap<&'static str, Daemon>,
    pub client: Client,
    pub scene: Scene,
}

impl Site {
    /// A controller that listens everywhere, and a machine with an agent of each of these names.
    pub fn start(names: &[&'static str]) -> Self {
        let scene = Scene::new();
        pki(&scene, &["init", "--cluster", scene.cluster()]);
        issue(&scene, "controller", "control", "controller");
        let args = ["controller", "--name", "control", "--listen", "0.0.0.0:0", "--http", "0.0.0.0:0"];
        let controller = Daemon::start(&scene, "controller", &args);
        let port = controller.addresses()["agents"].port();
        let mut site = Self { client: controller.client(), controller, agents: BTreeMap::new(), scene };
        for (at, name) in names.iter().enumerate() {
            lay_cable(name, at + 1);
            issue(&site.scene, "agent", name, name);
            let connect = format!("{}:{port}", address(at + 1, 1));
            let agent = ["agent", "--name", name, "--connect", &connect];
            let agent = Daemon::start_through(&["ip", "netns", "exec", name], &site.scene, name, &agent);
            site.agents.insert(name, agent);
        }
        site
    }

    /// Cuts the cable to that machine.
    pub fn cut(&self, name: &str) {
        run("ip", &["link", "set", &cable(name), "down"]);
    }

    pub fn mend(&self, name: &str) {
        run("ip", &["link", "set", &cable(name), "up"]);
    }

    /// Whatever that machine sends here is lost.
    pub fn deafen(&self, name: &str) {
        run("ip", &["-n", name, "route", "add", "blackhole", &format!("{}/32", self.here(name))]);
    }

    pub fn hear_again(&self, name: &str) {
        run("ip", &["-n", name, "route", "del", "blackhole", &format!("{}/32", self.here(name))]);
    }

    /// Gives that machine another address in the place of the one it has, and returns it.
    pub fn readdress(&self, name: &str) -> String {
        let number = self.number(name);
        let (old, new) = (address(number, 2), address(number, 3));
        run("ip", &["-n", name, "addr", "del", &format!("{old}/24"), "dev", "eth0"]);
        run("ip", &["-n", name, "addr", "add", &format!("{new}/24"), "dev", "eth0"]);
        new
    }

    /// Runs `watchpost ARGS` on that machine.
    pub fn run_on(&self, name: &str, args: &[&str]) -> Answer {
        Answer::of(self.scene.watchpost_through(&["ip", "netns", "exec", name], args).output().unwrap())
    }

    /// Where that machine reaches the HTTP API.
    pub fn api(&self, name: &str, scheme: &str) -> String {
        format!("{scheme}://{}:{}", self.here(name), self.controller.addresses()["http"].port())
    }

    fn here(&self, name: &str) -> String {
        address(self.number(name), 1)
    }

    fn number(&self, name: &str) -> usize {
        self.agents.keys().position(|known| *known == name).expect("a machine of this site") + 1
    }
}

/// A machine, and a network between it and this one.
fn lay_cable(name: &str, number: usize) {
    run("ip", &["netns", "add", name]);
    run("ip", &["-n", name, "link", "set", "lo", "up"]);
    run("ip", &["link", "add", &cable(name), "type", "veth", "peer", "name", "eth0", "netns", name]);
    run("ip", &["addr", "add", &format!("{}/24", address(number, 1)), "dev", &cable(name)]);
    run("ip", &["link", "set", &cable(name), "up"]);
    run("ip", &["-n", name, "addr", "add", &format!("{}/24", address(number, 2)), "dev", "eth0"]);
    run("ip", &["-n", name, "link", "set", "eth0", "up"]);
}

fn cable(name: &str) -> String {
    format!("to-{name}")
}

/// The address of that end (1 here, 2 there) of the network of that number.
fn address(network: usize, end: u8) -> String {
    format!("10.77.{network}.{end}")
}

fn issue(scene: &Scene, part: &str, name: &str, daemon: &str) {
    let trust = scene.path(daemon).join("trust");
    pki(scene, &["issue", part, name, "--out", trust.to_str().unwrap()]);
}

pub fn pki(scene: &Scene, args: &[&str]) {
    let directory = scene.path("pki");
    let output = scene.watchpost(&[&["pki"], args, &["--dir", directory.to_str().unwrap()]].concat()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed (tests/run installs it): {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

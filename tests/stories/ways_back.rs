//! From Zeek's other tools to watchpost and back, by the commands of docs/zeek.md, line by line.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::zeek::{Zeek, ports};
use crate::common::{Answer, Client, Daemon, Scene};

/// The shell blocks of docs/zeek.md with that word behind their language, line by line.
fn commands(of: &str) -> Vec<&'static str> {
    let document = include_str!("../../docs/zeek.md");
    let block = document.split(&format!("\n```sh {of}\n")).nth(1).expect("such a block");
    block.split("\n```").next().unwrap().lines().collect()
}

/// A machine with a lab of watchpost, another tool's files in `etc`, and that tool's own command, which only notes what it
/// is told.
struct Machine {
    daemon: Daemon,
    client: Client,
    zeek: Zeek,
    scene: Scene,
    /// The first of many free ports.
    first: u16,
}

impl Machine {
    /// With agents of these instances; `None` where Zeek is a real one, to which what stands in for a capture is none.
    fn new(version: &str, instances: &[&str], tool: &str) -> Option<Self> {
        let scene = Scene::new();
        let zeek = Zeek::of(&scene, version);
        if zeek.is_real() {
            return None;
        }
        let lab = scene.write("lab.cfg", &format!("[instances]\n{}\n", instances.join("\n")));
        let any = scene.any_port();
        let args = ["lab", lab.to_str().unwrap(), "--http", &any];
        let daemon = Daemon::start_with(&scene, "lab", &args, &zeek.settings());
        let client = daemon.client();
        client.wait("nothing to be deployed", |status| status.deploying.is_none() && status.configuration.is_some());
        std::fs::create_dir_all(scene.path("etc/zeek/cluster")).unwrap();
        std::fs::create_dir(scene.path("bin")).unwrap();
        scene.write("some.pcap", "not much");
        let text = format!("#!/bin/sh\necho \"$@\" >> {}\n", scene.path("asked").display());
        let command = scene.write(&format!("bin/{tool}"), &text);
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { daemon, client, zeek, scene, first: ports() })
    }

    fn run(&self, line: &str) -> Answer {
        let program = Path::new(env!("CARGO_BIN_EXE_watchpost")).parent().unwrap();
        let (scene, rest) = (&self.scene, std::env::var("PATH").unwrap());
        let line = line.replace("/opt/zeek/etc", &scene.path("etc").display().to_string());
        let mut shell = Command::new("sh");
        shell.args(["-euc", &line]).current_dir(scene.path("")).env_clear().env("HOME", scene.path(""));
        shell.env("PATH", format!("{}:{}:{rest}", scene.path("bin").display(), program.display()));
        shell.env("WATCHPOST_STATE_DIR", scene.path("lab")).env("WATCHPOST_AGENT_ZEEK", self.zeek.program());
        shell.env("WATCHPOST_CONTROLLER", format!("http://{}", self.daemon.addresses()["http"]));
        let answer = Answer::of(shell.output().unwrap());
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        answer
    }

    /// Follows both blocks: what is in `etc` comes over, runs as `nodes` nodes, and goes back to where it came from, which
    /// then says what it said.
    fn there_and_back(&self, blocks: [&str; 2], nodes: usize, source: &str) {
        let [there, back] = blocks.map(commands);
        assert_eq!(there.len() + back.len(), 10, "in ten commands");
        let said: Vec<Answer> = there.into_iter().map(|line| self.run(line)).collect();
        assert!(said[1].stdout.contains(&format!("is fine: {nodes} nodes on ")), "{said:?}");
        assert!(self.scene.path("some.zeek/conn.log").exists());
        self.client.wait_for_all("RUNNING");
        back.into_iter().for_each(|line| drop(self.run(line)));
        self.client.wait_for_all("STOPPED");
        let path = self.scene.path(source);
        let again = Answer::of(self.scene.watchpost(&["import", path.to_str().unwrap()]).output().unwrap());
        assert_eq!(again.stdout, self.scene.read("cluster.cfg"));
    }
}

fn hostname() -> String {
    watchpost::settings::Machine::this().hostname().to_owned()
}

#[test]
fn a_cluster_of_zeekctl_comes_to_watchpost_and_goes_back_by_following_the_document_line_by_line() {
    let Some(machine) = Machine::new("8.0.10", &[&format!("agent-{}", hostname())], "zeekctl") else { return };
    let nodes = "[manager]\ntype=manager\nhost=localhost\n[logger-1]\ntype=logger\nhost=localhost\n[proxy-1]\ntype=proxy\n\
                 host=localhost\n[worker-1]\ntype=worker\nhost=localhost\ninterface=lo\nenv_vars=A=1\n";
    machine.scene.write("etc/node.cfg", nodes);
    let (first, metrics) = (machine.first, machine.first + 100);
    let options = format!("ZeekPort = {first}\nMetricsPort = {metrics}\nMailTo = soc@example.com\n");
    machine.scene.write("etc/zeekctl.cfg", &options);
    machine.scene.write("etc/networks.cfg", "10.0.0.0/8 office\n");
    machine.there_and_back(["there", "back"], 4, "etc/node.cfg");
    assert_eq!(machine.scene.read("asked"), "stop\ndeploy\n");
    assert_ne!(machine.scene.read("etc/node.cfg"), nodes, "it is what was exported");
}

/// What a zeek.conf of these tests begins with: nodes run as whoever runs them, and find their ports free.
fn conf(machine: &Machine, more: &str) -> String {
    let (first, metrics) = (machine.first, machine.first + 100);
    format!("user=root\nport={first}\nmetrics_port={metrics}\n{more}")
}

/// Workers of a zeek.conf are given a capability, which only root has to give.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const SYSTEMD: &str = "stop zeek.slice\ndaemon-reload\nrestart zeek.target\n";

#[test]
fn a_zeek_conf_comes_to_watchpost_and_goes_back_by_following_the_document_line_by_line() {
    let here = format!("agent-{}", hostname());
    let Some(machine) = Machine::new("9.0.0", &[&here], "systemctl").filter(|_| is_root()) else { return };
    let more = "manager=1\nloggers=1\nproxies=1\ninterface=lo\nworkers=2\nworker_env=\n  ID=${worker_index}\n";
    let text = conf(&machine, more);
    machine.scene.write("etc/zeek/zeek.conf", &text);
    machine.there_and_back(["conf", "conf-back"], 5, "etc/zeek/zeek.conf");
    assert_eq!(machine.scene.read("asked"), SYSTEMD);
    assert_ne!(machine.scene.read("etc/zeek/zeek.conf"), text, "it is what was exported");
}

#[test]
fn a_lab_runs_a_zeek_conf_as_it_is_and_a_node_cfg_is_deployed_as_it_is() {
    let (scene, first) = (Scene::new(), ports());
    let zeek = Zeek::of(&scene, "9.0.0");
    if !is_root() {
        return;
    }
    let more = "manager=1\ninterface=lo\nworkers=2\n";
    let text = format!("user=root\nport={first}\nmetrics_port={}\n{more}", first + 100);
    let (conf, any) = (scene.write("zeek.conf", &text), scene.any_port());
    let args = ["lab", conf.to_str().unwrap(), "--http", &any];
    let daemon = Daemon::start_with(&scene, "lab", &args, &zeek.settings());
    let client = daemon.client();
    let names = |status: watchpost::web::json::Status| {
        status.nodes.into_iter().map(|node| node.name).collect::<Vec<_>>().join(" ")
    };
    client.wait("all run", |status| status.nodes.len() == 3 && status.nodes.iter().all(|node| node.state == "RUNNING"));
    let nodes = "[m]\ntype=manager\nhost=localhost\n[p]\ntype=proxy\nhost=localhost\n";
    scene.write("zeekctl.cfg", &format!("ZeekPort = {first}\nMetricsPort = {}\n", first + 100));
    client.deployed(&scene.write("node.cfg", nodes));
    assert_eq!(names(client.wait_for_all("RUNNING")), "m p");
}

#[test]
fn a_directory_of_zeek_confs_comes_to_watchpost_and_goes_back_by_following_the_document_line_by_line() {
    let instances = ["agent-main", "agent-sensor"];
    let Some(machine) = Machine::new("9.0.0", &instances, "systemctl").filter(|_| is_root()) else { return };
    let main = conf(&machine, "manager=1\nloggers=1\naddress=127.0.0.1\n");
    let sensor = conf(&machine, "interface=lo\nworkers=2\nproxies=1\naddress=127.0.0.1\n");
    machine.scene.write("etc/zeek/cluster/main.zeek.conf", &main);
    machine.scene.write("etc/zeek/cluster/sensor.zeek.conf", &sensor);
    machine.there_and_back(["hosts", "hosts-back"], 5, "etc/zeek/cluster");
    assert_eq!(machine.scene.read("asked"), SYSTEMD);
    assert_ne!(machine.scene.read("etc/zeek/cluster/main.zeek.conf"), main, "it is what was exported");
}

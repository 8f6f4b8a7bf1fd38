//! The client against whole clusters with real processes: a lab, and a fleet whose agents dial and are dialled.

use serde_json::{Value, json};

use crate::common::zeek::Zeek;
use crate::common::{Daemon, Scene, sleeper};
use crate::run::Client;

/// A controller with agents that were told the rest of their command line.
struct Fleet {
    agents: Vec<Daemon>,
    controller: Daemon,
    scene: Scene,
}

impl Fleet {
    fn start() -> Self {
        let scene = Scene::new();
        let any = scene.any_port();
        let args = ["controller", "--name", "boss", "--listen", &any, "--http", &any, "--websocket", &any];
        let controller = Daemon::start(&scene, "controller", &args);
        Self { agents: Vec::new(), controller, scene }
    }

    fn add(&mut self, name: &str, args: &[&str]) {
        let args = [&["agent", "--name", name], args].concat();
        self.agents.push(Daemon::start(&self.scene, name, &args));
    }

    fn dialled_at(&self, at: usize) -> std::net::SocketAddr {
        self.agents[at].addresses()["controller"]
    }

    fn controllers_address(&self) -> String {
        self.controller.addresses()["agents"].to_string()
    }

    fn client(&self) -> Client {
        Client::new(self.controller.addresses()["zeek-client"])
    }

    /// Deploys programs, which the client's own files cannot name.
    fn deploy(&self, text: &str) {
        self.controller.client().deployed(&self.scene.write("cluster.cfg", text));
    }
}

#[test]
fn a_fleet_with_agents_that_dial_and_are_dialled_is_run_by_the_client() {
    let mut fleet = Fleet::start();
    fleet.add("one", &["--connect", &fleet.controllers_address()]);
    let any = fleet.scene.any_port();
    fleet.add("two", &["--listen", &any]);
    let (client, two) = (fleet.client(), fleet.dialled_at(1));
    client.wait_for_instances(1);
    let instances = format!("[instances]\none\ntwo = {two}\n");
    let file =
        [instances, sleeper("w1", "instance = one\nrole = worker"), sleeper("w2", "instance = two\nrole = worker")];
    fleet.deploy(&file.concat());
    let host = two.ip().to_string();
    let loopback = "127.0.0.1"; // from where it dials
    client
        .run(&["get-instances"])
        .check(0, json!({"one": {"host": loopback}, "two": {"host": host, "port": two.port()}}));
    client.wait_until_running();
    let agent = json!({"cluster_role": null, "mgmt_role": "AGENT", "pid": "PID", "state": "RUNNING"});
    let node = |port: u16| json!({"cluster_role": "WORKER", "mgmt_role": null, "pid": "PID", "state": "RUNNING", "metrics_port": port});
    let mut dialled = agent.clone();
    dialled["port"] = two.port().into();
    let want = json!({"errors": [], "results": {"one": {"one": agent, "w1": node(9000)}, "two": {"two": dialled, "w2": node(9000)}}});
    client.run(&["get-nodes"]).check(0, want);

    let pids = |client: &Client| -> Value { serde_json::from_str(&client.run(&["get-nodes"]).stdout).unwrap() };
    let before = pids(&client);
    client.run(&["restart", "w1"]).check(0, json!({"errors": [], "results": {"w1": true}}));
    let after = pids(&client);
    let pid = |status: &Value, instance: &str, node: &str| status["results"][instance][node]["pid"].clone();
    assert_ne!(pid(&before, "one", "w1"), pid(&after, "one", "w1"));
    assert_eq!(pid(&before, "two", "w2"), pid(&after, "two", "w2"));

    // What the controller deployed last is deployed again under the same id, and nothing restarts.
    let ran = client.run(&["deploy"]);
    ran.check(0, json!({"errors": [], "results": {"id": "ID"}}));
    assert_eq!(pids(&client), after);

    let why = "runs a `command` of its own, which cannot be asked";
    let errors = json!([{"error": why, "source": "w1"}, {"error": why, "source": "w2"}]);
    client.run(&["get-id-value", "bits_per_uid"]).check(1, json!({"errors": errors, "results": {}}));
}

#[test]
fn an_agent_that_is_reached_in_another_way_is_so_after_one_deployment() {
    let mut fleet = Fleet::start();
    let any = fleet.scene.any_port();
    fleet.add("one", &["--connect", &fleet.controllers_address(), "--listen", &any]);
    let (client, address) = (fleet.client(), fleet.dialled_at(0));
    client.wait_for_instances(1);
    let worker = sleeper("w1", "instance = one\nrole = worker");
    fleet.deploy(&format!("[instances]\none\n{worker}"));
    client.wait_until_running();
    let pid = || fleet.scene.processes_of("w1");
    let before = pid();
    for dialled in [true, false, true] {
        let line = if dialled { format!("one = {address}") } else { "one".to_owned() };
        fleet.deploy(&format!("[instances]\n{line}\n{worker}"));
        let want = match dialled {
            true => json!({"one": {"host": address.ip().to_string(), "port": address.port()}}),
            false => json!({"one": {"host": "127.0.0.1"}}),
        };
        client.run(&["get-instances"]).check(0, want);
        assert_eq!(pid(), before, "its node goes on");
    }
}

#[test]
fn a_lab_lists_its_controller_beside_its_agents_and_shows_what_a_zeek_node_lacks() {
    let scene = Scene::new();
    let any = scene.any_port();
    let file = format!("[instances]\none\ntwo\n{}", sleeper("w1", "instance = one\nrole = worker"));
    let file = scene.write("lab.cfg", &file);
    let args = ["lab", file.to_str().unwrap(), "--http", &any, "--websocket", &any];
    let lab = Daemon::start_with(&scene, "lab", &args, "[agent]\nzeek = '/nowhere'\n");
    let client = Client::new(lab.addresses()["zeek-client"]);
    lab.client().wait_for_all("RUNNING");
    client.run(&["get-instances"]).check(0, json!({"one": {"host": "127.0.0.1"}, "two": {"host": "127.0.0.1"}}));
    let json = client.run(&["get-nodes"]).json();
    let one = json["results"]["one"].as_object().unwrap();
    let controller = one.iter().find(|(_, node)| node["mgmt_role"] == "CONTROLLER").unwrap();
    let want = json!({"cluster_role": null, "mgmt_role": "CONTROLLER", "pid": "PID", "state": "RUNNING"});
    assert_eq!((controller.0.starts_with("controller-"), controller.1), (true, &want));
    assert_eq!((one.len(), json["results"]["two"].as_object().unwrap().len()), (3, 1), "{json}");

    let zeek = "[instances]\none\n[manager]\ninstance = one\nrole = manager\n";
    let ran = client.run_with(&["deploy-config"], zeek);
    let cause = ran.json()["errors"][0].as_str().unwrap().to_owned();
    let want = "instance 'one': there is no Zeek in /nowhere: ";
    assert!(ran.code == 1 && cause.starts_with(want) && cause.contains("`command`"), "{ran:?}");
}

#[test]
fn the_client_is_told_what_zeek_nodes_themselves_have_for_an_identifier() {
    let scene = Scene::new();
    let zeek = Zeek::of(&scene, "8.0.10");
    let any = scene.any_port();
    let file = scene.write("lab.cfg", "[instances]\none\ntwo\n");
    let args = ["lab", file.to_str().unwrap(), "--http", &any, "--websocket", &any];
    let lab = Daemon::start_with(&scene, "lab", &args, &zeek.settings());
    let client = Client::new(lab.addresses()["zeek-client"]);
    client.wait_for_instances(2);
    // Nodes that stand alone take no port from anybody.
    let nodes = "[instances]\none\ntwo\n[w1]\ninstance = one\nrole = none\n[w2]\ninstance = two\nrole = none\n";
    lab.client().deployed(&scene.write("next.cfg", nodes));
    client.run(&["get-id-value", "bits_per_uid"]).check(0, json!({"errors": [], "results": {"w1": 96, "w2": 96}}));
    let unknown = json!([{"error": "unknown id", "source": "w1"}, {"error": "unknown id", "source": "w2"}]);
    client.run(&["get-id-value", "no_such_thing"]).check(1, json!({"errors": unknown, "results": {}}));
    let other = json!([{"error": "unknown cluster node", "source": "w3"}]);
    client.run(&["get-id-value", "bits_per_uid", "w2", "w3"]).check(1, json!({"errors": other, "results": {"w2": 96}}));
}

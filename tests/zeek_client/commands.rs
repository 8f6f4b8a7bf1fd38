//! Every command of the client, with one agent and with two, dialling and dialled: its exact JSON and its exit code.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::play::{Manners, Play};
use crate::run::Client;

const TWO: &str = "[instances]\nsensor-1\nsensor-2\n[manager]\ninstance = sensor-1\nrole = manager\n\
                   [worker-1]\ninstance = sensor-2\nrole = worker\ninterface = eth0\n";

fn valued() -> Manners {
    let values = [
        ("bits_per_uid", Ok("96")),
        ("table", Ok(r#"{"a": {"port": 80, "proto": "tcp"}}"#)),
        ("connection", Err("no ID value")),
    ];
    Manners { values: BTreeMap::from(values), ..Manners::default() }
}

fn two(dialled: [Option<u16>; 2]) -> Play {
    let manners = |dialled| Manners { dialled, ..valued() };
    Play::start(&[("sensor-1", manners(dialled[0])), ("sensor-2", manners(dialled[1]))])
}

#[test]
fn instances_are_listed_with_their_address_and_with_a_port_only_where_the_controller_dials() {
    let play = two([None, Some(2152)]);
    play.client()
        .run(&["get-instances"])
        .check(0, json!({"sensor-1": {"host": "127.0.0.1"}, "sensor-2": {"host": "127.0.0.1", "port": 2152}}));
    let play = Play::start(&[]);
    play.client().run(&["get-instances"]).check(0, json!({}));
}

#[test]
fn a_configuration_that_was_staged_is_deployed_under_its_id() {
    let play = two([None, None]);
    let client = play.client();
    let staged = client.run_with(&["stage-config"], TWO);
    staged.check(0, json!({"errors": [], "results": {"id": "ID"}}));
    let deployed = client.run(&["deploy"]);
    deployed.check(0, deployed_two());
    let id = |text: &str| serde_json::from_str::<Value>(text).unwrap()["results"]["id"].clone();
    assert_eq!(id(&staged.stdout), id(&deployed.stdout));
    client.run_with(&["deploy-config"], TWO).check(0, deployed_two());
}

fn deployed_two() -> Value {
    json!({"errors": [], "results": {"id": "ID", "nodes": {
        "manager": {"instance": "sensor-1", "success": true},
        "worker-1": {"instance": "sensor-2", "success": true},
    }}})
}

#[test]
fn nothing_is_deployed_before_something_was_staged() {
    let play = Play::start(&[]);
    play.client().run(&["deploy"]).check(1, json!({"errors": ["no configuration available to deploy"], "results": {}}));
}

#[test]
fn configurations_are_told_as_they_were_staged_and_as_they_were_deployed() {
    let play = two([None, None]);
    let client = play.client();
    for (which, error) in [("--staged", "no staged"), ("--deployed", "no deployed")] {
        let ran = client.run(&["get-config", which]);
        let words = format!("error: {error} configuration available\n");
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (1, "", words));
    }
    client.run_with(&["stage-config"], TWO);
    assert_eq!(client.run(&["get-config", "--deployed"]).code, 1, "it is only staged");
    client.run(&["get-config", "--as-json"]).check(0, configuration(None, [None, None], [None, None]));
    assert_eq!(client.run(&["deploy"]).code, 0);
    client.run(&["get-config", "--as-json", "--staged"]).check(0, configuration(None, [None, None], [None, None]));
    let deployed = configuration(Some("127.0.0.1"), [Some(2200), None], [Some(9000), Some(9001)]);
    client.run(&["get-config", "--as-json", "--deployed"]).check(0, deployed);
    let ini = client.run(&["get-config", "--deployed"]);
    let want = "[instances]\nsensor-1\nsensor-2\n\n[manager]\ninstance = sensor-1\nrole = MANAGER\nport = 2200\n\
                metrics_port = 9000\n\n[worker-1]\ninstance = sensor-2\nrole = WORKER\ninterface = eth0\n\
                metrics_port = 9001\n\n";
    assert_eq!((ini.code, ini.stdout.as_str()), (0, want));
    assert_eq!(client.run_with(&["deploy-config"], want).code, 0);
    assert_eq!(client.run(&["get-config", "--deployed"]).stdout, want, "what was printed is what was deployed");
}

fn configuration(host: Option<&str>, ports: [Option<u16>; 2], metrics: [Option<u16>; 2]) -> Value {
    let instance = |name: &str| match host {
        Some(host) => json!({"name": name, "host": host}),
        None => json!({"name": name}),
    };
    let node = |at: usize, name: &str, instance: &str, role: &str, interface: Option<&str>| {
        json!({"cpu_affinity": null, "env": {}, "instance": instance, "interface": interface,
               "metrics_port": metrics[at], "name": name, "options": null, "port": ports[at], "role": role,
               "scripts": null})
    };
    json!({"id": "ID", "instances": [instance("sensor-1"), instance("sensor-2")], "nodes": [
        node(0, "manager", "sensor-1", "MANAGER", None), node(1, "worker-1", "sensor-2", "WORKER", Some("eth0")),
    ]})
}

#[test]
fn every_key_of_a_node_comes_back() {
    let play = Play::start(&[("sensor-1", Manners::default())]);
    let client = play.client();
    let file = "[instances]\nsensor-1\n\n[worker]\ninstance = sensor-1\nrole = WORKER\nport = 3000\n\
                scripts = \"a file\" local.zeek\ninterface = lo\ncpu_affinity = 0\nenv = \"A=b c\" FOO=bar\n\
                metrics_port = 3001\n\n";
    client.run_with(&["deploy-config"], file).check(
        0,
        json!({"errors": [], "results": {"id": "ID", "nodes": {"worker": {"instance": "sensor-1", "success": true}}}}),
    );
    let ran = client.run(&["get-config", "--deployed"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    // The client quotes the same in another place.
    assert_eq!(ran.stdout, file.replace("\"A=b c\"", "A=\"b c\""));
}

#[test]
fn nodes_are_listed_with_the_agents_that_run_them() {
    let play = two([None, Some(2152)]);
    let client = play.client();
    let agent = json!({"cluster_role": null, "mgmt_role": "AGENT", "pid": "PID", "state": "RUNNING"});
    let mut dialled = agent.clone();
    dialled["port"] = 2152.into();
    client.run(&["get-nodes"]).check(
        0,
        json!({"errors": [], "results": {"sensor-1": {"sensor-1": agent}, "sensor-2": {"sensor-2": dialled}}}),
    );
    assert_eq!(
        client.run_with(&["deploy-config"], &TWO.replace("sensor-2\n[", "sensor-2 = 127.0.0.1:2152\n[")).code,
        0
    );
    let node = |role: &str| json!({"cluster_role": role, "mgmt_role": null, "pid": "PID", "state": "RUNNING", "metrics_port": 9000});
    let (mut manager, mut worker) = (node("MANAGER"), node("WORKER"));
    manager["port"] = 2200.into();
    worker["metrics_port"] = 9001.into();
    client.run(&["get-nodes"]).check(
        0,
        json!({"errors": [], "results": {
            "sensor-1": {"sensor-1": agent, "manager": manager}, "sensor-2": {"sensor-2": dialled, "worker-1": worker},
        }}),
    );
}

#[test]
fn nodes_cannot_be_listed_where_no_instance_is_connected() {
    let play = Play::start(&[]);
    let error = json!({"errors": [{"error": "no instances connected", "source": null}], "results": {}});
    play.client().run(&["get-nodes"]).check(1, error.clone());
    play.client().run(&["restart"]).check(1, error);
}

#[test]
fn the_value_of_an_identifier_comes_from_all_nodes_or_from_those_that_are_named() {
    let play = two([None, None]);
    let client = play.client();
    client
        .run(&["get-id-value", "bits_per_uid"])
        .check(1, json!({"errors": [{"error": "no cluster deployed", "source": null}], "results": {}}));
    assert_eq!(client.run_with(&["deploy-config"], TWO).code, 0);
    for (args, code, want) in [
        (&["bits_per_uid"][..], 0, json!({"errors": [], "results": {"manager": 96, "worker-1": 96}})),
        (&["bits_per_uid", "manager"], 0, json!({"errors": [], "results": {"manager": 96}})),
        (&["table", "manager"], 0, json!({"errors": [], "results": {"manager": {"a": {"port": 80, "proto": "tcp"}}}})),
        (&["connection", "manager"], 1, json!({"errors": [error("manager", "no ID value")], "results": {}})),
        (
            &["nothing"],
            1,
            json!({"errors": [error("manager", "unknown id"), error("worker-1", "unknown id")], "results": {}}),
        ),
        (
            &["bits_per_uid", "worker-1", "worker-2"],
            1,
            json!({"errors": [error("worker-2", "unknown cluster node")], "results": {"worker-1": 96}}),
        ),
        (
            &["bits_per_uid", "foo", "no name"],
            1,
            json!({"errors": [error("foo", "unknown cluster node"), error("no name", "unknown cluster node")],
                   "results": {}}),
        ),
        (&["bits_per_uid", "no name"], 1, json!({"errors": [error("no name", "unknown cluster node")], "results": {}})),
    ] {
        client.run(&[&["get-id-value"], args].concat()).check(code, want);
    }
}

#[test]
fn a_restart_says_of_each_node_whether_it_came_back() {
    let broken = Manners { broken: [("logger", ("", "no"))].into(), ..Manners::default() };
    let play = Play::start(&[("sensor-1", broken), ("sensor-2", Manners::default())]);
    let client = play.client();
    client
        .run(&["restart"])
        .check(1, json!({"errors": [{"error": "no active cluster deployment", "source": null}], "results": {}}));
    let file = format!("{TWO}[logger]\ninstance = sensor-1\nrole = logger\n");
    assert_eq!(client.run_with(&["deploy-config"], &file).code, 1);
    for (args, code, want) in [
        (&["worker-1"][..], 0, json!({"errors": [], "results": {"worker-1": true}})),
        (&["manager", "worker-1"], 0, json!({"errors": [], "results": {"manager": true, "worker-1": true}})),
        (&["foobar"], 1, json!({"errors": [error("foobar", "unknown cluster node")], "results": {}})),
        (
            &["manager", "foobar"],
            1,
            json!({"errors": [error("foobar", "unknown cluster node")], "results": {"manager": true}}),
        ),
        (
            &[],
            1,
            json!({"errors": [error("logger", "exited with status 1")],
                   "results": {"manager": true, "worker-1": true}}),
        ),
    ] {
        client.run(&[&["restart"], args].concat()).check(code, want);
    }
}

fn error(source: &str, error: &str) -> Value {
    json!({"error": error, "source": source})
}

#[test]
fn what_the_client_does_by_itself_needs_no_controller() {
    let nobody = Client::new("127.0.0.1:9".parse().unwrap());
    let ran = nobody.run(&["--version"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1.5.0\n"));
    let ran = nobody.run(&[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: please provide a command to execute.\n"));
    let ran = nobody.run(&["show-settings"]);
    assert!(ran.code == 0 && ran.stdout.contains("port = 9\n"), "{ran:?}");
    let ran = nobody.with("client.peering_attempts=1").run(&["get-instances"]);
    let words = "error: websocket connection to 127.0.0.1:9 timed out in connect()\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (1, "", words));
}

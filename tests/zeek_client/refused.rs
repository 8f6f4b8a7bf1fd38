//! What is refused: configurations with every complaint at once, and messages that make no sense.

use std::time::Duration;

use serde_json::json;
use watchpost::plan::PortRules;

use crate::play::{Manners, Play, Rules};
use crate::run::python;

/// What the client prints for a configuration that is refused, sorted as the client shows it.
#[track_caller]
fn complaints(play: &Play, file: &str, want: &[&str]) {
    for command in ["stage-config", "deploy-config"] {
        play.client().run_with(&[command], file).check(1, json!({"errors": want, "results": {}}));
    }
}

fn nodes(nodes: &[(&str, &str, &str)]) -> String {
    let node = |(name, instance, more): &(&str, &str, &str)| {
        format!("[{name}]\ninstance = {instance}\nrole = proxy\n{more}\n")
    };
    nodes.iter().map(node).collect()
}

#[test]
fn every_complaint_about_a_configuration_is_told_at_once_in_the_words_of_zeek() {
    let play = Play::start(&[("instance-1", Manners::default())]);
    let file = nodes(&[("manager", "instance-2", ""), ("worker", "instance-3", "")]);
    complaints(
        &play,
        &format!("[instances]\ninstance-1\n{file}"),
        &[
            "node 'manager' has undeclared instance name 'instance-2'",
            "node 'worker' has undeclared instance name 'instance-3'",
        ],
    );
    complaints(
        &play,
        &format!("[instances]\ninstance-1 = 127.0.0.1:3000\n{}", nodes(&[("manager", "instance-1", "port = 3000")])),
        &["node 'manager' port 3000/tcp conflicts with agent port on instance 'instance-1'"],
    );
    complaints(
        &play,
        &nodes(&[("manager", "instance-1", "port = 2150")]),
        &["node 'manager' port 2150/tcp conflicts with controller port"],
    );
    complaints(&play, &nodes(&[("instance-1", "instance-1", "")]), &["node and instance names collide: instance-1"]);
    let all = "port = 5000";
    complaints(
        &play,
        &nodes(&[
            ("a", "instance-1", all),
            ("b", "instance-1", all),
            ("c", "instance-1", all),
            ("d", "instance-2", all),
        ]),
        &["multiple nodes on instance 'instance-1' using port 5000/tcp"],
    );
    // What the framework would fail at later.
    complaints(
        &play,
        &nodes(&[
            ("a b", "instance-1", ""),
            ("c", "instance-1", "port = 2150"),
            ("d", "instance-1", "cpu_affinity = -1"),
        ]),
        &[
            "node 'c' port 2150/tcp conflicts with controller port",
            "node 'd' cpu_affinity is none of the CPUs that there can be",
            "node name `a b` may hold only letters, digits and . _ - @ : +",
        ],
    );
    assert_eq!(play.client().run(&["get-config"]).code, 1, "nothing of it was kept");
}

#[test]
fn nodes_without_ports_are_complained_of_where_none_are_given_out() {
    let ports = PortRules { first_port: None, ..PortRules::default() };
    let play = Play::start_by(Rules { ports, ..Rules::default() }, &[]);
    let lacking = "Broker port auto-assignment disabled but nodes logger-01, manager lack ports";
    complaints(&play, &nodes(&[("manager", "i", ""), ("logger-01", "i", ""), ("proxy", "i", "port = 1")]), &[lacking]);
}

/// Sends messages one by one, and prints what comes back to each.
const SEND: &str = r#"
import json, sys, websocket
ws = websocket.create_connection("ws://%s/v1/messages/json" % sys.argv[1], timeout=30)
ws.send('["zeek/management/controller"]')
assert json.loads(ws.recv())["type"] == "ack"
for line in sys.argv[2:]:
    ws.send(line)
    got = json.loads(ws.recv())
    print(got["code"] + ": " + got["context"] if got["type"] == "error" else got["data"][2]["data"][0]["data"])
"#;

fn value(kind: &str, data: serde_json::Value) -> serde_json::Value {
    json!({"@data-type": kind, "data": data})
}

fn event(topic: &str, name: &str, args: &[serde_json::Value]) -> String {
    let content = json!([value("string", name.into()), value("vector", args.into())]);
    let message = json!([value("count", 1.into()), value("count", 1.into()), value("vector", content)]);
    json!({"type": "data-message", "topic": topic, "@data-type": "vector", "data": message}).to_string()
}

#[test]
fn what_makes_no_sense_is_answered_with_brokers_error_and_the_next_request_with_what_it_asks() {
    let play = Play::start(&[]);
    let topic = "zeek/management/controller";
    let api = |name: &str| format!("Management::Controller::API::{name}");
    let reqid = || value("string", "r".into());
    let good = event(topic, &api("get_instances_request"), &[reqid()]);
    let set = |items: &[serde_json::Value]| value("set", items.into());
    let instance = |more: &[serde_json::Value]| {
        let fields = [value("string", "a".into()), value("address", "0.0.0.0".into())];
        value("vector", fields.iter().chain(more).cloned().collect())
    };
    let stage = |instances: serde_json::Value| {
        let fields = [value("string", "c".into()), instances, set(&[])];
        event(topic, &api("stage_configuration_request"), &[reqid(), value("vector", fields.into_iter().collect())])
    };
    let none = || value("none", json!({}));
    let bad = [
        event(topic, "no::such_event", &[reqid()]),
        event(topic, &api("get_instances_request"), &[]),
        event(topic, &api("get_instances_request"), &[reqid(), reqid()]),
        event(topic, &api("get_instances_request"), &[value("count", 1.into())]),
        event(topic, &api("restart_request"), &[reqid(), value("vector", json!([]))]),
        stage(set(&[instance(&[])])),
        stage(set(&[instance(&[none(), none()])])),
        stage(set(&[instance(&[value("count", 7.into())])])),
    ];
    let mut args = vec![play.address().to_string()];
    for bad in bad.iter() {
        args.extend([bad.clone(), good.clone()]);
    }
    args.push("{".into());
    args.push(stage(set(&[instance(&[none()])])));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = python(SEND, &args);
    let mut want = String::new();
    for _ in &bad {
        want.push_str("deserialization_failed: failed to create Zeek event\n");
        want.push_str("Management::Controller::API::get_instances_response\n");
    }
    want.push_str("deserialization_failed: failed to decode JSON object\n");
    want.push_str("Management::Controller::API::stage_configuration_response\n");
    assert_eq!(said, want);
}

#[test]
fn what_a_client_publishes_on_an_agents_topic_is_never_obeyed() {
    let play = Play::start(&[("sensor-1", Manners::default())]);
    let client = play.client();
    let file = nodes(&[("manager", "sensor-1", "")]);
    assert_eq!(client.run_with(&["deploy-config"], &file).code, 0);
    let before = client.run(&["get-nodes"]).stdout;
    let topic = "zeek/management/agent/sensor-1";
    let api = |name: &str| format!("Management::Agent::API::{name}");
    let reqid = || value("string", "r".into());
    let hello = [value("string", "rogue".into()), reqid(), value("boolean", true.into()), value("count", 1.into())];
    let controllers = "Management::Controller::API::restart_request";
    let good = event("zeek/management/controller", "Management::Controller::API::get_instances_request", &[reqid()]);
    let text = [
        play.address().to_string(),
        event(topic, &api("agent_standby_request"), &[reqid()]),
        event(topic, &api("notify_agent_hello"), &hello),
        event(topic, controllers, &[reqid(), value("set", json!([]))]),
        good,
    ];
    // The answer to the last one is the first thing that comes back.
    let text: Vec<&str> = text.iter().map(String::as_str).collect();
    let program = SEND.replace("    got = ", "    if line != sys.argv[-1]: continue\n    got = ");
    assert_eq!(python(&program, &text), "Management::Controller::API::get_instances_response\n");
    assert_eq!(client.run(&["get-nodes"]).stdout, before);
    assert_eq!(client.run(&["get-instances"]).json(), json!({"sensor-1": {"host": "127.0.0.1"}}));
}

#[test]
fn a_request_for_nothing_is_answered_by_nothing() {
    let play = Play::start(&[]);
    let request = |name: &str| {
        let name = format!("Management::Controller::API::{name}_request");
        event("zeek/management/controller", &name, &[value("string", "r".into())])
    };
    let program = SEND.replace("    got = ", "    if line != sys.argv[-1]: continue\n    got = ");
    let said = python(&program, &[&play.address().to_string(), &request("test_noop"), &request("get_instances")]);
    assert_eq!(said, "Management::Controller::API::get_instances_response\n");
}

#[test]
fn two_clients_may_choose_the_same_id_for_their_requests() {
    let rules = Rules { request_timeout: Duration::from_secs(3), ..Rules::default() };
    let play = Play::start_by(rules, &[]);
    let topic = "zeek/management/controller";
    let reqid = || value("string", "the same".into());
    let slow =
        event(topic, "Management::Controller::API::test_timeout_request", &[reqid(), value("boolean", true.into())]);
    let fast = event(topic, "Management::Controller::API::get_instances_request", &[reqid()]);
    let program = r#"
import json, sys, websocket
def connect():
    ws = websocket.create_connection("ws://%s/v1/messages/json" % sys.argv[1], timeout=30)
    ws.send('["zeek/management/controller"]')
    ws.recv()
    return ws
def name(ws):
    return json.loads(ws.recv())["data"][2]["data"][0]["data"].split("::")[-1]
one, two = connect(), connect()
one.send(sys.argv[2])
print(name(two))
two.send(sys.argv[3])
print(name(two), name(two))
"#;
    let said = python(program, &[&play.address().to_string(), &slow, &fast]);
    assert_eq!(said, "test_timeout_request\nget_instances_response test_timeout_response\n");
}

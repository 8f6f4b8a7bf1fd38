//! What a client hears without asking, and the requests of 2021.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use watchpost::message::agent::{NotifyChange, NotifyError, NotifyLog};
use watchpost::model::*;

use crate::common::{DEADLINE, eventually};
use crate::install::program;
use crate::play::{Manners, Play, Rules};
use crate::run::python;

const FILE: &str =
    "[instances]\nsensor-1\n[worker-1]\ninstance = sensor-1\nrole = worker\ninterface = eth0\nenv = A=b\n";

/// A program that runs until it is dropped, and what it prints.
struct Listener {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Listener {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    fn python(text: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program("python3"));
        Self::start(command.env_clear().env("PATH", "/usr/bin:/bin").args(["-u", "-c", text]).args(args))
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("one line more")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Prints everything on these topics, one line of topic, name and arguments each; `ready` first.
const LISTEN: &str = r#"
import json, sys, websocket
ws = websocket.create_connection("ws://%s/v1/messages/json" % sys.argv[1], timeout=60)
ws.send(json.dumps(sys.argv[2:]))
ws.recv()
print("ready")
def plain(value):
    kind, data = value["@data-type"], value["data"]
    if kind in ("vector", "set"): return [plain(item) for item in data]
    if kind == "table": return {plain(pair["key"]): plain(pair["value"]) for pair in data}
    return None if kind == "none" else data
while True:
    message = json.loads(ws.recv())
    name, args = plain({"@data-type": "vector", "data": message["data"]})[2][:2]
    print(json.dumps([message["topic"], name, args]))
"#;

fn listening(play: &Play, topics: &[&str]) -> Listener {
    let address = play.address().to_string();
    let listener = Listener::python(LISTEN, &[&[address.as_str()], topics].concat());
    assert_eq!(listener.next(), "ready");
    listener
}

fn change(seq: u64, old: NodeState, new: NodeState) -> NotifyChange {
    NotifyChange {
        seq,
        time: Timestamp(1_700_000_000_000_000),
        instance: InstanceName::new("sensor-1").unwrap(),
        node: NodeName::new("worker-1").unwrap(),
        role: Role::Worker,
        old,
        new,
        pid: Some(70),
        exit: None,
        attempt: 0,
        restarts: 0,
        reason: "told".into(),
        removed: false,
    }
}

fn deployed() -> Play {
    let play = Play::start(&[("sensor-1", Manners::default())]);
    assert_eq!(play.client().run_with(&["deploy-config"], FILE).code, 0);
    play
}

#[test]
fn changes_errors_and_log_lines_are_published_on_the_topic_of_their_agent_and_never_on_the_controllers() {
    let play = deployed();
    let (agents, controller) =
        (listening(&play, &["zeek/management/agent"]), listening(&play, &["zeek/management/controller"]));
    let instance = InstanceName::new("sensor-1").unwrap();
    let time = Timestamp(0);
    play.tell("sensor-1", change(1, NodeState::Stopped, NodeState::Pending));
    play.tell("sensor-1", change(2, NodeState::Pending, NodeState::Running));
    let node = NodeName::new("worker-1").ok();
    play.tell("sensor-1", NotifyError { seq: 3, time, instance: instance.clone(), node, msg: "no".into() });
    play.tell("sensor-1", NotifyLog { seq: 4, time, instance, node: None, msg: "so".into() });

    let topic = "zeek/management/agent/sensor-1";
    let event = |name: &str, args: Value| json!([topic, format!("Management::Agent::API::{name}"), args]);
    let node = |state: &str| {
        json!(["worker-1", "sensor-1", "Supervisor::WORKER", format!("Management::{state}"), null, null, null, "eth0",
               null, {"A": "b"}, "9000/tcp"])
    };
    for want in [
        event("notify_change", json!(["sensor-1", node("PENDING"), "Management::STOPPED", "Management::PENDING"])),
        event("notify_change", json!(["sensor-1", node("RUNNING"), "Management::PENDING", "Management::RUNNING"])),
        event("notify_error", json!(["sensor-1", "no", "worker-1"])),
        event("notify_log", json!(["sensor-1", "so", ""])),
    ] {
        assert_eq!(serde_json::from_str::<Value>(&agents.next()).unwrap(), want);
    }
    // Whatever came before the answer to a later request came on that topic, too.
    assert_eq!(play.client().run(&["get-instances"]).code, 0);
    let said = [controller.next(), controller.next()].map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let names = said.map(|event| event[1].as_str().unwrap().rsplit("::").next().unwrap().to_owned());
    assert_eq!(names, ["get_instances_request", "get_instances_response"]);
}

#[test]
fn the_monitor_of_the_client_sees_the_requests_and_answers_of_others() {
    let play = Play::start(&[]);
    let mut command = play.client().command(&["monitor"]);
    command.env("PYTHONUNBUFFERED", "1").stderr(Stdio::inherit());
    let monitor = Listener::start(&mut command);
    eventually("the monitor listens", || {
        play.client().run(&["get-instances"]);
        monitor.lines.try_recv().ok().filter(|line| line.contains("get_instances_re"))
    });
}

#[test]
fn the_program_of_the_documentation_prints_changes() {
    let play = deployed();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/zeek-client.md")).unwrap();
    let program = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(program.lines().count() <= 10, "{program}");
    let program = program.replace("127.0.0.1:2149", &play.address().to_string());
    let listener = Listener::python(&program, &[]);
    // It does not say when it listens: something to hear comes until it was heard.
    let mut seq = 0;
    let line = eventually("it prints a change", || {
        seq += 1;
        let states = [NodeState::Running, NodeState::Crashed];
        let (old, new) = (states[seq as usize % 2], states[(seq as usize + 1) % 2]);
        play.tell("sensor-1", change(seq, old, new));
        listener.lines.try_recv().ok()
    });
    let known = ["sensor-1 worker-1 RUNNING -> CRASHED", "sensor-1 worker-1 CRASHED -> RUNNING"];
    assert!(known.contains(&line.as_str()), "{line}");
}

#[test]
fn the_requests_of_2021_are_answered_on_their_own_topic_in_their_own_records() {
    let rules = Rules { request_timeout: Duration::from_secs(2), ..Rules::default() };
    let play = Play::start_by(rules, &[("sensor-1", Manners::default())]);
    let program = r#"
import json, sys, websocket
ws = websocket.create_connection("ws://%s/v1/messages/json" % sys.argv[1], timeout=60)
topic = "zeek/cluster-control/controller"
ws.send(json.dumps([topic]))
ws.recv()
def v(kind, data): return {"@data-type": kind, "data": data}
def plain(value):
    kind, data = value["@data-type"], value["data"]
    if kind in ("vector", "set"): return [plain(item) for item in data]
    return None if kind == "none" else data
def ask(name, *args):
    event = v("vector", [v("string", "ClusterController::API::" + name), v("vector", [v("string", "r"), *args])])
    message = v("vector", [v("count", 1), v("count", 1), event])
    ws.send(json.dumps({"type": "data-message", "topic": topic, **message}))
    message = json.loads(ws.recv())
    print(json.dumps([message["topic"], *plain(v("vector", message["data"]))[2]]))
none = v("none", {})
instance = v("vector", [v("string", "sensor-1"), v("address", "0.0.0.0"), none])
node = v("vector", [v("string", "w"), v("string", "sensor-1"), v("port", "5000/tcp"),
    v("enum-value", "Supervisor::WORKER"), v("enum-value", "ClusterController::Types::Running"), none, none, none, none,
    v("table", [])])
config = lambda nodes: v("vector", [v("string", "c"), v("set", [instance]), v("set", nodes)])
ask("get_instances_request")
ask("set_configuration_request", config([node]))
ask("get_instances_request")
other = json.loads(json.dumps(node))
other["data"][1]["data"] = "elsewhere"
ask("set_configuration_request", config([other]))
ask("test_timeout_request", v("boolean", True))
"#;
    let said = python(program, &[&play.address().to_string()]);
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let response = |name: &str, result: Value| {
        json!(["zeek/cluster-control/controller", format!("ClusterController::API::{name}_response"), ["r", result]])
    };
    let undeclared = "node 'w' has undeclared instance name 'elsewhere'";
    let want = [
        response("get_instances", json!(["r", "", true, [], "", null])),
        response("set_configuration", json!([["r", "sensor-1", true, null, "", null]])),
        response("get_instances", json!(["r", "", true, [["sensor-1", "127.0.0.1", null]], "", null])),
        response("set_configuration", json!([["r", "", false, null, undeclared, null]])),
        response("test_timeout", json!(["r", "", false, null, "request timed out", null])),
    ];
    assert_eq!(said, want);
}

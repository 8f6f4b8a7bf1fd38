//! The command itself: what it prints, where, and the exit code that it ends with.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use watchpost::message::client::LinkState;
use watchpost::model::{InstanceName, NodeName, NodeState, Outcome};

use crate::fake::{Fake, TOKEN, change, eventually, instance, log, node};

pub fn command(address: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    command.args(args).stdin(Stdio::null());
    // A home without a token, and nothing of the environment that the tests run in.
    command.env_clear().env("HOME", "/nonexistent").env("XDG_STATE_HOME", "/nonexistent");
    command.env("WATCHPOST_CONTROLLER", format!("http://{address}"));
    command
}

pub fn run(address: &str, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(address, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn started(address: &str, args: &[&str]) -> Child {
    command(address, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn status_ends_with_the_code_that_fits() {
    let fake = Fake::open();
    fake.script().instances.push(instance("agent-a", LinkState::Up));
    fake.script().nodes = vec![node("worker-1", NodeState::Running), node("worker-2", NodeState::Stopped)];
    let (code, stdout, stderr) = run(&fake.address, &["status", "--check"]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(stdout.starts_with("NODE      ROLE    INSTANCE  STATE     PID  RESTARTS"), "{stdout}");
    assert!(!stdout.contains(['\t', '\x1b']), "{stdout:?}");

    fake.script().nodes[0].state = NodeState::Crashed;
    assert_eq!(run(&fake.address, &["status"]).0, 0);
    assert_eq!(run(&fake.address, &["status", "--check"]).0, 3);

    fake.script().nodes[0].state = NodeState::Unknown;
    fake.script().instances[0].link = LinkState::Lost;
    let (code, stdout, _) = run(&fake.address, &["status", "--json"]);
    assert_eq!(code, 4);
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status["nodes"][0]["state"], "UNKNOWN");
}

#[test]
fn an_order_fails_if_one_node_failed() {
    let fake = Fake::open();
    let (agent, worker) = (InstanceName::new("agent-a").unwrap(), NodeName::new("worker-1").unwrap());
    fake.script().outcomes = vec![Outcome::node_done(&agent, &worker)];
    assert_eq!(run(&fake.address, &["restart", "worker-1"]), (0, "restarted: 1 node\n".into(), String::new()));
    assert_eq!(fake.script().orders, [r#"restart ["worker-1"]"#]);

    fake.script().outcomes = vec![Outcome::node_failed(&agent, &worker, "no such program".into(), None)];
    fake.script().instances.push(instance("agent-a", LinkState::Up));
    let (code, stdout, stderr) = run(&fake.address, &["start"]);
    let want = "failed worker-1 on agent-a: no such program\nnot started: see `watchpost status`\n";
    assert_eq!((code, &*stdout, &*stderr), (1, want, ""));
}

#[test]
fn an_order_that_only_failed_to_reach_somebody_says_so_in_its_exit_code() {
    let fake = Fake::open();
    let (a, b, worker) = ("agent-a", "agent-b", NodeName::new("worker-1").unwrap());
    let [on_a, on_b] = [a, b].map(|name| InstanceName::new(name).unwrap());
    fake.script().instances = vec![instance(a, LinkState::Lost), instance(b, LinkState::Up)];
    fake.script().outcomes = vec![
        Outcome::node_failed(&on_a, &worker, "its instance is not connected".into(), None),
        Outcome::instance_failed(&on_b, "did not answer in time"),
        Outcome::failed("request timed out"),
    ];
    for verb in ["start", "stop", "restart"] {
        let (code, stdout, _) = run(&fake.address, &[verb, "--json"]);
        let verdict: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let unreachable = |at: usize| verdict["outcomes"][at]["unreachable"].as_bool();
        assert_eq!((code, [0, 1, 2].map(unreachable)), (4, [Some(true), Some(true), None]), "{stdout}");
    }
    let mixed = Outcome::node_failed(&on_b, &worker, "no such program".into(), None);
    fake.script().outcomes.push(mixed);
    assert_eq!(run(&fake.address, &["start"]).0, 1);

    fake.script().instances = vec![instance(a, LinkState::Lost)];
    fake.script().outcomes = vec![Outcome::failed("no instances connected")];
    assert_eq!(run(&fake.address, &["start"]).0, 4);
}

#[test]
fn a_command_without_the_token_is_told_where_to_find_it() {
    let fake = Fake::guarded();
    let (code, stdout, stderr) = run(&fake.address, &["status"]);
    assert_eq!((code, &*stdout), (5, ""));
    assert!(stderr.contains("name the file with --token-file FILE"), "{stderr}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(run(&fake.address, &["status", "--token-file", path]).0, 0);
    std::fs::write(&file, "wrong\n").unwrap();
    let (code, _, stderr) = run(&fake.address, &["status", "--token-file", path]);
    assert_eq!(code, 5);
    assert!(!stderr.contains("wrong") && stderr.contains("is not that controller's"), "{stderr}");
    let (code, _, stderr) = run(&fake.address, &["status", "--token-file", "/nonexistent/token"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("cannot read the token in /nonexistent/token"), "{stderr}");
}

#[test]
fn a_controller_that_is_not_there_and_one_that_is_silent_are_told_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, stderr) = run(&nobody, &["status"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("cannot reach the controller") && stderr.contains("--controller URL"), "{stderr}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(&address, &["status", "--timeout", "200ms"]);
    assert_eq!(code, 124);
    assert!(stderr.contains("did not answer within 200ms"), "{stderr}");
}

#[test]
fn wrong_arguments_and_wrong_files_end_with_two() {
    let fake = Fake::open();
    for args in [
        &["frobnicate"][..],
        &["logs", "../x"],
        &["deploy", "/nonexistent"],
        &["events", "--since", "42"],
        &["events", "--since", ""],
    ] {
        let (code, stdout, stderr) = run(&fake.address, args);
        assert_eq!((code, &*stdout), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    for url in ["ftp://127.0.0.1:2148", "https://", "127.0.0.1:2148"] {
        let (code, _, stderr) = run("127.0.0.1:1", &["status", "--controller", url]);
        assert_eq!(code, 2, "{url}: {stderr}");
    }
}

#[test]
fn a_file_without_nodes_is_deployed_only_if_that_is_meant() {
    let fake = Fake::open();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty.cfg");
    fake.script().nodes = vec![node("worker-1", NodeState::Running), node("worker-2", NodeState::Running)];
    for text in ["", "# nothing\n", "[instances]\none\n"] {
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let (code, stdout, stderr) = run(&fake.address, &["deploy", file]);
        assert_eq!((code, &*stdout), (2, ""), "{text:?}");
        assert!(stderr.contains("has no nodes") && stderr.contains("--empty"), "{stderr}");
        let (code, stdout, _) = run(&fake.address, &["check", file]);
        assert!(code == 0 && stdout.contains("has no nodes"), "{stdout}");
        assert!(fake.script().orders.is_empty());
        let (code, stdout, _) = run(&fake.address, &["deploy", "--empty", file]);
        assert!(code == 0 && stdout.ends_with(": 2 nodes removed\n"), "{stdout}");
        assert_eq!(std::mem::take(&mut fake.script().orders), ["set_configuration"]);
    }
}

#[test]
fn events_are_lines_for_people_and_objects_for_programs() {
    let fake = Fake::open();
    fake.tell(change("worker-1", NodeState::Running, NodeState::Crashed));
    fake.tell(log("all is well"));
    let (code, stdout, _) = run(&fake.address, &["events"]);
    assert_eq!((code, stdout.lines().count()), (0, 2));
    assert!(stdout.contains("agent-a/worker-1          RUNNING → CRASHED  pid 4711"), "{stdout}");
    let (_, stdout, _) = run(&fake.address, &["events", "--json", "--since", "abc-1"]);
    let event: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(event["msg"], "all is well");
}

#[test]
fn following_ends_quietly_with_its_reader() {
    let fake = Fake::open();
    fake.tell(log("first"));
    let mut child = started(&fake.address, &["events", "--follow"]);
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("first"), "{line}");
    drop(reader);
    eventually("the command ends once nobody reads", || {
        fake.tell(log("more"));
        child.try_wait().unwrap().is_some()
    });
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), &*stderr), (Some(0), &b""[..]));
}

#[test]
fn watching_prints_each_change_and_ends_with_ctrl_c() {
    let fake = Fake::open();
    fake.script().nodes = vec![node("worker-1", NodeState::Running)];
    let mut child = started(&fake.address, &["status", "--watch", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("RUNNING"));
    fake.script().nodes[0].state = NodeState::Crashed;
    fake.tell(change("worker-1", NodeState::Running, NodeState::Crashed));
    assert!(lines.next().unwrap().unwrap().contains("CRASHED"));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_detaches_from_an_order_and_says_so() {
    // Takes the order and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = started(&silent.local_addr().unwrap().to_string(), &["stop", "worker-1"]);
    let (_order, _) = silent.accept().unwrap();
    interrupt(&child);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(String::from_utf8_lossy(&stderr).starts_with("detached: stop worker-1 goes on without you"));
}

#[test]
fn the_version_says_what_it_speaks() {
    let (code, stdout, _) = run("127.0.0.1:1", &["--version", "--json"]);
    let version: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &version["protocol"], &version["api_version"]), (0, &1.into(), &1.into()));
    let features: Vec<&str> =
        version["features"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    for word in ["bundles", "events", "history", "http", "lab", "metrics", "plan", "tls", "zeek-client"] {
        assert!(features.contains(&word), "{features:?} lack {word}");
    }
    // Whoever reads one of these words finds there what it means, and there is none that no build has.
    let table = include_str!("../../docs/http.md").split("| word | there is |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let explained: Vec<&str> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    assert_eq!(features, explained);
    let (code, stdout, _) = run("127.0.0.1:1", &["completions", "bash"]);
    assert!(code == 0 && stdout.contains("_watchpost"));
}

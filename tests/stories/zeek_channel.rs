//! What Zeek nodes say to their agent, and what they are asked: with a stand-in for Zeek, or with the real one that
//! `WATCHPOST_ZEEK` names.

use std::fmt::Write;
use std::path::PathBuf;

use rustix::process::Signal;
use watchpost::web::json::Event;

use super::crashes::{crashes, dossier};
use super::zeek::Stage;
use crate::common::zeek::{Zeek, ports};
use crate::common::{Daemon, Scene, changes, check_log, eventually, node, path, pids, processes};

/// What a real Zeek does by itself a stand-in does by its first line.
const COUNTS_ALOUD: &str = "# COUNTS ALOUD
global number = 0;
event count_aloud()
	{
	++number;
	Reporter::warning(fmt(\"number %d\", number));
	if ( number < 15 )
		schedule 50 msec { count_aloud() };
	}
event zeek_init()
	{
	event count_aloud();
	}
";

/// A cluster in ports of its own, of nodes as `name key=value;...`, with more lines for all Zeek nodes.
fn cluster(shared: &str, nodes: &[&str]) -> String {
    let first = ports();
    let mut text = format!(
        "[instances]\na\n[zeek]\nport = {first}\nmetrics_port = {}\nheartbeat = 100ms\n{shared}\n",
        first + 100
    );
    for line in nodes {
        let (name, keys) = line.split_once(' ').unwrap_or((line, ""));
        let role = name.split('-').next().unwrap();
        let interface = if role == "worker" { "interface = lo\n" } else { "" };
        let keys = keys.replace(';', "\n");
        writeln!(text, "[{name}]\ninstance = a\nrole = {role}\n{interface}{keys}").unwrap();
    }
    text
}

/// A controller, and a stage whose daemon is its agent alone.
fn apart() -> (Daemon, Stage) {
    let scene = Scene::new();
    let (zeek, any) = (Zeek::of(&scene, "8.0.10"), scene.any_port());
    let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
    let address = controller.addresses()["agents"].to_string();
    let args = ["agent", "--name", "a", "--connect", &address];
    let daemon = Daemon::start_with(&scene, "a", &args, &zeek.settings());
    let client = controller.client();
    (controller, Stage { daemon, client, zeek, scene })
}

/// Where that process tells its news.
fn news(pid: u32) -> PathBuf {
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    environment.split('\0').find_map(|pair| pair.strip_prefix("WATCHPOST_NEWS=")).unwrap().into()
}

/// Waits until that process has told this.
fn wait_until_told(pid: u32, what: &str) {
    let news = news(pid);
    eventually(&format!("{pid} has told of {what}"), || {
        let told = std::fs::read(&news).unwrap();
        String::from_utf8_lossy(&told).contains(what).then_some(())
    });
}

/// Has a stand-in say this.
fn say(pid: u32, lines: &str) {
    let file = format!("/proc/{pid}/cwd/say");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
}

/// What was told of that node, as errors or as lines of a log.
fn told(events: &[Event], kind: &str, node: &str) -> Vec<String> {
    let of_it = events.iter().filter(|event| event.kind == kind && event.node.as_deref() == Some(node));
    of_it.filter_map(|event| event.msg.clone()).collect()
}

fn wait_for_error(stage: &Stage, node: &str, what: &str) {
    eventually(&format!("an error of {node}: {what}"), || {
        told(&stage.client.events(), "error", node).iter().any(|msg| msg.contains(what)).then_some(())
    });
}

#[test]
fn a_zeek_node_runs_once_it_said_hello() {
    let stage = Stage::new("8.0.10");
    let status = stage.deployed(&cluster("", &["manager", "worker-1"]));
    for (name, pid) in pids(&status) {
        wait_until_told(pid, " hello {");
        let events = stage.client.events();
        assert_eq!(path(&changes(&events, &name)), "STOPPED PENDING RUNNING");
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let last = command.split('\0').rfind(|word| word.ends_with(".zeek")).unwrap();
        assert!(last.ends_with("watchpost-channel.zeek"), "{command:?}");
    }
    check_log(&stage.client.events());
    let directories = pids(&status).into_values().map(|pid| news(pid).parent().unwrap().to_owned()).collect::<Vec<_>>();
    stage.client.deployed(
        &stage.scene.write("next.cfg", "[instances]\na\n[web]\ninstance = a\nrole = none\ncommand = sleep 1000\n"),
    );
    eventually("nothing is left of their channels", || {
        directories.iter().all(|directory| !directory.exists()).then_some(())
    });
}

#[test]
fn a_node_that_never_says_hello_is_given_up_with_what_it_wrote() {
    let stage = Stage::new("8.0.10");
    if stage.zeek.is_real() {
        return; // a real one says it, or ends
    }
    let script = stage.scene.write("mute.zeek", "# NO HELLO\n");
    let shared = format!("scripts = {}", script.display());
    let text = cluster(&shared, &["manager ready_within=500ms;restart=never"]);
    let verdict = stage.client.deploy_and_keep(&stage.scene.write("next.cfg", &text));
    assert!(!verdict.ok, "{verdict:?}");
    let given_up = stage.client.wait_for("manager", "FAILED");
    assert!(given_up.reason.contains("not ready within 500ms: Zeek did not say hello"), "{given_up:?}");
    let output = stage.client.run(&["logs", "manager"]);
    assert!(output.stdout.contains("received termination signal"), "{output:?}");
}

#[test]
fn a_zeek_node_that_stands_still_is_told_of_and_started_again() {
    let stage = Stage::new("8.0.10");
    let status = stage.deployed(&cluster("", &["manager watchdog=1s;stop_grace=1s", "worker-1"]));
    let before = pids(&status);
    processes::signal(before["manager"], Signal::STOP);
    let back = stage.client.wait("it is there again", |status| {
        let node = node(status, "manager");
        node.state == "RUNNING" && node.restarts == 1
    });
    assert_eq!(pids(&back)["worker-1"], before["worker-1"]);
    let events = stage.client.events();
    let changes = changes(&events, "manager");
    assert_eq!(path(&changes), "STOPPED PENDING RUNNING CRASHED PENDING RUNNING");
    let reason = changes[2].reason.as_deref().unwrap_or_default();
    assert!(reason.starts_with("no heartbeat came for 1s"), "{reason}");
    let errors = told(&events, "error", "manager");
    assert!(errors.iter().any(|msg| msg.ends_with("is ended: no heartbeat came for 1s")), "{errors:?}");
    check_log(&events);
}

#[test]
fn nothing_that_a_node_says_is_lost_while_its_agent_is_away() {
    let (_controller, mut stage) = apart();
    let script = stage.scene.write("aloud.zeek", COUNTS_ALOUD);
    let shared = format!("scripts = local {}", script.display());
    let before = pids(&stage.deployed(&cluster(&shared, &["manager"])));
    stage.daemon.kill();
    wait_until_told(before["manager"], "number 15");
    stage.daemon.start_again();
    check_that_all_was_told(&stage, before["manager"]);
    // The channel goes on: heartbeats come, and questions are answered.
    let then = stage.client.status();
    let time =
        |status: &watchpost::web::json::Status| node(status, "manager").netstats.as_ref().map(|it| it.time.clone());
    stage.client.wait("heartbeats come", |status| time(status).is_some_and(|now| Some(now) > time(&then)));
    let answer = stage.client.run(&["print", "bits_per_uid", "manager"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "manager: 96\n"), "{answer:?}");
    // How much memory it had only it can tell, as this agent has not launched it.
    let said = node(&stage.client.status(), "manager").netstats.as_ref().map(|counted| counted.memory_bytes);
    processes::signal(before["manager"], Signal::KILL);
    let crash = eventually("its dossier is made", || crashes(&stage.client, &["manager"]).pop());
    let memory = dossier(&stage.client, &crash.id, |_| true).largest_resident_bytes;
    assert!(said.is_some() && memory >= said, "{memory:?}, and it had said {said:?}");
}

#[test]
fn a_node_whose_agent_stands_still_goes_on_and_nothing_is_held_against_it() {
    let (_controller, stage) = apart();
    let script = stage.scene.write("aloud.zeek", COUNTS_ALOUD);
    let shared = format!("scripts = local {}", script.display());
    let before = pids(&stage.deployed(&cluster(&shared, &["manager watchdog=500ms"])));
    stage.daemon.signal(Signal::STOP);
    wait_until_told(before["manager"], "number 15");
    // What the script says at the most in an hour: 50 reports at once, and one with each heartbeat of five seconds.
    const HOUR: usize = 50 + 3600 / 5;
    if !stage.zeek.is_real() {
        let hour: String = (1..=HOUR).map(|at| format!("error report {at} of an hour\n")).collect();
        say(before["manager"], &hour);
        wait_until_told(before["manager"], &format!("report {HOUR} of an hour"));
    }
    // As many heartbeats as it may miss, and more.
    let beats = || String::from_utf8_lossy(&std::fs::read(news(before["manager"])).unwrap()).matches(" beat {").count();
    let then = beats();
    eventually("it goes on for long", || (beats() > then + 10).then_some(()));
    stage.daemon.signal(Signal::CONT);
    check_that_all_was_told(&stage, before["manager"]);
    let is_of_the_hour = |msg: &String| msg.contains(" of an hour (");
    if !stage.zeek.is_real() {
        eventually("every report is told, or counted", || {
            let errors = told(&stage.client.events(), "error", "manager");
            let held = |msg: &String| msg.strip_prefix("held back ")?.split(' ').next()?.parse::<usize>().ok();
            let held: usize = errors.iter().filter_map(held).sum();
            (errors.iter().filter(|msg| is_of_the_hour(msg)).count() + held == HOUR).then_some(())
        });
    }
    let mut others = told(&stage.client.events(), "error", "manager");
    others.retain(|msg| !is_of_the_hour(msg) && !msg.starts_with("held back "));
    assert_eq!(others, [""; 0]);
}

/// Each of the numbers, and by the same process; what was told in the moment of a kill may be told twice.
fn check_that_all_was_told(stage: &Stage, pid: u32) {
    let number = |msg: &String| msg.strip_prefix("Zeek warns: number ")?.split(' ').next()?.parse::<u32>().ok();
    let numbers = eventually("all was told", || {
        let events = stage.client.events();
        let mut numbers: Vec<_> = told(&events, "log", "manager").iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (numbers.len() == 15).then_some(numbers)
    });
    assert_eq!(numbers, (1..=15).collect::<Vec<_>>());
    let events = stage.client.events();
    let wrong = told(&events, "error", "manager");
    assert!(!wrong.iter().any(|msg| msg.contains("its channel")), "{wrong:?}");
    assert_eq!(stage.client.wait_for("manager", "RUNNING").pid, Some(pid));
    check_log(&events);
}

#[test]
fn nodes_are_asked_for_a_value_and_each_that_has_none_says_why() {
    let stage = Stage::new("8.0.10");
    let web = "[web]\ninstance = a\nrole = none\ncommand = sleep 1000\n";
    stage.deployed(&(cluster("", &["manager", "worker-1", "worker-2"]) + web));
    let print = |args: &[&str]| stage.client.run(&[&["print"], args].concat());
    let two = print(&["Cluster::node", "manager", "worker-1"]);
    assert_eq!((two.code, two.stdout.as_str()), (0, "manager: \"manager\"\nworker-1: \"worker-1\"\n"), "{two:?}");
    let unknown = print(&["no_such_thing", "worker-1"]);
    assert_eq!((unknown.code, unknown.stderr.as_str()), (1, "worker-1 on a: unknown id\n"), "{unknown:?}");
    assert_eq!(print(&["no name", "worker-1"]).stderr, "worker-1 on a: unknown id\n");
    assert!(stage.client.order("stop", &["worker-2"]).ok);
    let all = print(&["bits_per_uid"]);
    assert_eq!((all.code, all.stdout.as_str()), (1, "manager: 96\nworker-1: 96\n"));
    assert!(all.stderr.contains("worker-2 on a: cluster node worker-2 not in running state"), "{all:?}");
    assert!(all.stderr.contains("web on a: runs a `command` of its own, which cannot be asked"), "{all:?}");
    assert_eq!(print(&["bits_per_uid", "nobody"]).stderr, "nobody: unknown cluster node\n");
    if !stage.zeek.is_real() {
        let long = print(&["a_long_one", "manager"]);
        assert_eq!(long.stdout, format!("manager: \"{}\"\n", "ü".repeat(100_000)), "in many pieces");
        let large = print(&["too_large", "manager", "worker-1"]);
        assert_eq!((large.code, large.stdout.as_str()), (1, "worker-1: 4\n"), "{large:?}");
        assert!(large.stderr.starts_with("manager on a: its value is JSON that cannot be read here: "), "{large:?}");
        assert_eq!(print(&["unset", "manager"]).stderr, "manager on a: no ID value\n");
        let (status, answer) =
            stage.client.http("POST", "/api/v1/nodes/print", r#"{"id":"bits_per_uid","nodes":["manager"]}"#);
        let want = r#"{"ok":true,"values":[{"node":"manager","instance":"a","value":96}],"outcomes":[]}"#;
        assert_eq!((status, answer.as_str()), (200, want));
    }
}

#[test]
fn a_node_that_does_not_answer_is_not_waited_for_without_end() {
    let stage = Stage::new("8.0.10");
    let status = stage.deployed(&cluster("", &["manager watchdog=off", "worker-1"]));
    let manager = pids(&status)["manager"];
    processes::signal(manager, Signal::STOP);
    let answer = stage.client.run(&["print", "bits_per_uid", "manager", "worker-1"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (1, "worker-1: 96\n"), "{answer:?}");
    assert_eq!(answer.stderr, "manager on a: request timed out\n");
    processes::signal(manager, Signal::CONT);
    assert_eq!(stage.client.run(&["print", "bits_per_uid", "manager"]).stdout, "manager: 96\n", "the next one counts");
}

#[test]
fn what_nodes_count_is_shown_and_too_much_loss_is_told() {
    let stage = Stage::new("8.0.10");
    let script = stage.scene.write("loses.zeek", "# LOSES PACKETS\n");
    let loses = format!("worker-1 scripts={}", script.display());
    stage.deployed(&cluster("loss_above = 5%%\nloss_for = 1s", &["manager", &loses]));
    let counted = |status: &watchpost::web::json::Status| node(status, "manager").netstats.clone();
    stage.client.wait("it counts", |status| counted(status).is_some_and(|it| it.interval_seconds > 0.0));
    assert!(stage.client.run(&["status"]).stdout.contains("  LOSS  "));
    assert!(stage.client.run(&["netstats"]).stdout.starts_with("NODE      INSTANCE  RECEIVED  DROPPED "));
    let (_, metrics) = stage.client.http("GET", "/metrics", "");
    assert!(
        metrics.contains("watchpost_node_packets_received_total{node=\"manager\",instance_name=\"a\"} "),
        "{metrics}"
    );
    let nobody = stage.client.run(&["netstats", "nobody"]);
    assert_eq!((nobody.code, nobody.stderr.as_str()), (1, "nobody: unknown cluster node\n"));
    if !stage.zeek.is_real() {
        wait_for_error(&stage, "worker-1", "loses packets: 10% lately, and more than 5% for 1s");
        let all = stage.client.run(&["netstats", "worker-1", "--json"]).stdout;
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        assert_eq!((&all["worker-1"]["loss"], &all["worker-1"]["interval_loss"]), (&0.1.into(), &0.1.into()), "{all}");
        assert_eq!(told(&stage.client.events(), "error", "manager"), [""; 0]);
    }
}

#[test]
fn rubbish_in_a_channel_is_told_once_and_harms_nobody() {
    let stage = Stage::new("8.0.10");
    if stage.zeek.is_real() {
        return; // it writes none
    }
    let before = pids(&stage.deployed(&cluster("", &["manager", "worker-1 watchdog=2s"])));
    let worker = before["worker-1"];
    say(worker, "raw rubbish\nraw 1 hello {}\nraw more rubbish\n");
    wait_for_error(&stage, "worker-1", "its channel has lines that nobody understands, which are passed over");
    say(worker, "flood 1500000\nraw \nerror it is still there\nhalf 17 err\n");
    wait_for_error(&stage, "worker-1", "its channel has a line of more than 64 KiB, which is passed over");
    wait_for_error(&stage, "worker-1", "Zeek reports an error: it is still there (site.zeek, line 7)");
    say(worker, "raw or {oops}\nerror and so it is now\n");
    wait_for_error(&stage, "worker-1", "Zeek reports an error: and so it is now");
    let flood: String = (0..200).map(|number| format!("error number {number}\n")).collect();
    say(worker, &flood);
    wait_for_error(&stage, "worker-1", "held back ");
    let events = stage.client.events();
    let errors = told(&events, "error", "worker-1");
    // A heartbeat that came into the midst of a line is lost with it.
    let mut wrong: Vec<_> = errors.iter().filter(|msg| msg.starts_with("its channel")).collect();
    wrong.sort_unstable();
    let before_that = wrong.len();
    wrong.dedup();
    assert!(wrong.len() == before_that && wrong.len() <= 3, "{errors:?}");
    let numbers = errors.iter().filter(|msg| msg.contains("number ")).count();
    let held: usize =
        errors.iter().find_map(|msg| msg.strip_prefix("held back ")?.split(' ').next()?.parse().ok()).unwrap();
    assert_eq!(numbers + held, 200, "{errors:?}");
    assert_eq!(pids(&stage.client.status()), before);
    assert_eq!(stage.client.run(&["print", "bits_per_uid"]).stdout, "manager: 96\nworker-1: 96\n");
}

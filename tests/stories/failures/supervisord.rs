//! Supervisor/supervisor, and superlance, which listens to it.

use rustix::process::Signal;
use serde_json::Value;

use super::moments;
use crate::common::{Lab, check_log, eventually, node, pids, processes, script, sleeper};

#[test]
fn supervisor_122_a_role_waits_until_the_one_before_it_is_ready_and_is_not_only_started_later() {
    let slow = sleeper("database", "role = logger").replace("settle 50ms", "settle 700ms");
    let lab = Lab::start(Some(&(slow + &sleeper("application", "role = worker"))));
    lab.client.wait_for_all("RUNNING");
    let events = lab.client.events();
    let (ready, launched) = (moments(&events, "database", "RUNNING"), moments(&events, "application", "PENDING"));
    assert!(ready.len() == 1 && launched.len() == 1 && ready[0] < launched[0], "{events:#?}");
}

#[test]
fn supervisor_487_nobody_is_given_up_while_a_database_is_away_and_its_delay_can_be_set() {
    let keys = "restart_limit = 0\nrestart_delay = 10ms\nrestart_factor = 1\nrestart_max_delay = 10ms";
    let lab = Lab::start(Some(&script("application", keys, "test -e ../../../../database && exec sleep 1000\nexit 1")));
    // More often than anybody else would try.
    lab.client.wait("it is tried again and again", |status| {
        status.nodes.iter().any(|node| node.name == "application" && node.restarts > 15)
    });
    lab.scene.write("database", "is back");
    lab.client.wait_for("application", "RUNNING");
    assert!(moments(&lab.client.events(), "application", "FAILED").is_empty());
}

#[test]
fn supervisor_1285_who_came_up_and_died_is_counted_like_one_who_never_did() {
    let keys = "restart_limit = 2\nrestart_delay = 10ms\nrestart_max_delay = 10ms";
    let lab = Lab::start(Some(&script("flaps", keys, "sleep 0.2\nexit 1")));
    let failed = lab.client.wait_for("flaps", "FAILED");
    assert!(failed.restarts == 2 && failed.reason.starts_with("given up after 2 restarts"), "{failed:?}");
    let events = lab.client.events();
    assert_eq!(moments(&events, "flaps", "RUNNING").len(), 3, "it was up each time: {events:#?}");
}

#[test]
fn supervisor_1101_a_stop_leaves_no_grandchild_behind() {
    let text = "sh -c \"sh -c \\\"echo grandchild; sleep 1000; true\\\"; true\" &\n\
                setsid sh -c \"echo stray; sleep 1000; true\" &\nwait";
    let lab = Lab::start(Some(&script("family", "", text)));
    ["grandchild", "stray"].iter().for_each(|line| lab.daemon.wait_until_says("family", line));
    assert!(lab.scene.processes_of("family").len() >= 4);
    assert!(lab.client.order("stop", &["family"]).ok);
    lab.scene.check_that_nothing_runs();
}

#[test]
fn supervisor_199_children_of_a_daemon_that_was_killed_are_known_to_the_next() {
    let mut lab = Lab::start(Some(&(sleeper("one", "") + &sleeper("two", ""))));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    lab.daemon.kill();
    lab.daemon.start_again();
    assert_eq!(pids(&lab.client.wait_for_all("RUNNING")), before);
    assert_eq!(lab.scene.processes().len(), 2, "none was started beside them");
    assert!(lab.client.order("stop", &[]).ok, "and they are its own to stop");
    lab.scene.check_that_nothing_runs();
}

#[test]
fn superlance_131_whoever_is_busy_while_far_more_than_ten_events_come_misses_none() {
    let names: Vec<_> = (0..12).map(|number| format!("n{number}")).collect();
    let text: String = names.iter().map(|name| sleeper(name, "restart_delay = 10ms")).collect();
    let lab = Lab::start(Some(&text));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    let last = lab.client.events().last().unwrap().seq.clone();
    before.values().for_each(|pid| processes::signal(*pid, Signal::KILL));
    lab.client.wait("all are back", |status| {
        let is_back = |name: &String| node(status, name).state == "RUNNING" && node(status, name).restarts == 1;
        names.iter().all(is_back)
    });
    // Nobody has read anything meanwhile.
    let answer = lab.client.run(&["events", "--json", "--since", &last]);
    let events: Vec<_> = answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    check_log(&events);
    for name in &names {
        for state in ["CRASHED", "PENDING", "RUNNING"] {
            assert_eq!(moments(&events, name, state).len(), 1, "{name} {state}: {events:#?}");
        }
    }
}

#[test]
fn supervisor_1274_whatever_is_asked_can_be_had_as_json() {
    let lab = Lab::start(Some(&(sleeper("one", "") + &script("dies", "restart = never", "echo said\nexit 3"))));
    lab.client.wait_for("dies", "FAILED");
    eventually("its dossier is there", || (!lab.client.run(&["crashes", "dies"]).stdout.is_empty()).then_some(()));
    for args in [
        &["status"][..],
        &["events"],
        &["crashes"],
        &["history"],
        &["history", "show", "1"],
        &["logs", "dies"],
        &["netstats"],
        &["stop", "one"],
        &["start", "one"],
        &["restart", "one"],
    ] {
        let answer = lab.client.run(&[args, &["--json"]].concat());
        let lines: Vec<&str> = answer.stdout.lines().collect();
        assert!(!lines.is_empty() || args == ["netstats"], "{args:?}: {answer:?}");
        for line in lines {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{args:?}: {error}: {line}"));
            assert!(value.is_object(), "{args:?}: {line}");
        }
    }
}

#[test]
fn supervisor_1223_what_was_stopped_on_purpose_is_no_failure_and_what_failed_is_one_only_if_asked() {
    let lab = Lab::start(Some(&(sleeper("one", "") + &script("dies", "restart = never", "exit 3"))));
    lab.client.wait_for("dies", "FAILED");
    assert_eq!(lab.client.run(&["status"]).code, 0, "the question was answered");
    assert_eq!(lab.client.run(&["status", "--check"]).code, 3, "not everything is as it should be");
    assert!(lab.client.order("stop", &["dies", "one"]).ok);
    assert_eq!(lab.client.run(&["status", "--check"]).code, 0, "it is as somebody wanted it");
}

#[test]
fn supervisor_1488_who_is_not_ready_yet_is_not_said_to_be_up() {
    let lab = Lab::start(Some(&sleeper("starting", "ready_within = 1h").replace("settle 50ms", "settle 30m")));
    lab.client.wait("it has a process", |status| pids(status).contains_key("starting"));
    assert_eq!(node(&lab.client.status(), "starting").state, "PENDING");
    assert_eq!(lab.client.run(&["status", "--check"]).code, 3);
}

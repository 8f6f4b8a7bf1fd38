//! Nodes that fail, hang, loop, or leave things behind: each is named, and nobody else notices.

use std::os::unix::fs::PermissionsExt;
use std::thread;

use rustix::process::Signal;
use watchpost::web::json::{Outcome, Verdict};

use crate::common::{
    Fleet, Lab, Reserved, Scene, changes, check_log, deaf, eventually, node, path, pids, processes, script, sleeper,
    states,
};

#[test]
fn a_node_that_cannot_run_is_answered_at_once_and_says_why() {
    let lab = Lab::start(Some(&sleeper("fine", "")));
    let before = lab.client.wait_for_all("RUNNING");
    let plain = lab.scene.write("plain", "#!/bin/sh\nexec sleep 1000\n");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    // Whoever waited for these to get ready would wait for half an hour.
    let patient = "restart = never\nready = settle 30m\nready_within = 40m";
    let missing = format!("[missing]\ncommand = /nonexistent/program\n{patient}\n");
    let locked = format!("[locked]\ncommand = {}\n{patient}\n", plain.display());
    let hasty = format!("[hasty]\ncommand = sh -c 'echo so far so good; echo no luck >&2; exit 3'\n{patient}\n");
    let file = lab.scene.write("next.cfg", &[sleeper("fine", ""), missing, locked, hasty].concat());
    let verdict = lab.client.deploy_and_keep(&file);
    assert!(!verdict.ok);
    for (name, why) in [
        ("missing", "No such file or directory (os error 2)"),
        ("locked", "Permission denied (os error 13)"),
        ("hasty", "exited with status 3: no luck"),
    ] {
        let error = outcome(&verdict, name).error.as_deref().unwrap();
        assert!(error.contains(why), "{error}");
        let node = lab.client.wait_for(name, "FAILED");
        assert!(node.pid.is_none() && node.reason.contains(why), "{node:?}");
    }
    let output = outcome(&verdict, "hasty").output.as_ref().unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), ("so far so good\n", "no luck\n"));
    assert_eq!(outcome(&verdict, "fine").error, None);
    let after = lab.client.status();
    assert_eq!(node(&after, "fine"), node(&before, "fine"));
    assert_eq!(lab.client.run(&["status", "--check"]).code, 3);
    check_log(&lab.client.events());
}

#[test]
fn every_one_of_many_nodes_that_fail_together_brings_its_last_lines() {
    let lab = Lab::start(Some(&sleeper("fine", "")));
    lab.client.wait_for_all("RUNNING");
    let hasty = |number: usize| {
        let command = format!("sh -c 'echo no luck for {number} >&2; exit 3'");
        format!("[hasty-{number}]\ncommand = {command}\nrestart = never\nready = settle 30m\nready_within = 40m\n")
    };
    let text: String = (0..60).map(hasty).collect();
    let verdict = lab.client.deploy_and_keep(&lab.scene.write("next.cfg", &(sleeper("fine", "") + &text)));
    for number in 0..60 {
        let output = outcome(&verdict, &format!("hasty-{number}")).output.as_ref().unwrap();
        assert_eq!(output.stderr, format!("no luck for {number}\n"));
    }
}

#[test]
fn a_node_that_keeps_dying_is_given_up_at_its_limit() {
    let keys = "restart_limit = 3\nrestart_delay = 10ms\nrestart_max_delay = 40ms";
    let looping = script("looping", keys, "echo dying >&2\nexit 1");
    let lab = Lab::start(Some(&(looping + &sleeper("fine", ""))));
    let failed = lab.client.wait_for("looping", "FAILED");
    assert!(failed.reason.starts_with("given up after 3 restarts within 10m"), "{failed:?}");
    assert!(failed.reason.contains("; last: exited with status 1: dying; its dossier: "), "{failed:?}");
    assert_eq!(failed.restarts, 3);
    let events = lab.client.events();
    check_log(&events);
    let tries = path(&changes(&events, "looping")).matches("PENDING").count();
    assert_eq!(tries, 4, "the first launch and three restarts");
    assert_eq!(lab.client.wait_for("fine", "RUNNING").restarts, 0);
}

#[test]
fn forty_slow_nodes_are_not_forty_failures() {
    let roles = ["logger", "manager", "proxy", "worker"];
    // Each in its time, and all of them in longer than any of them may take.
    let slow = |role: &str, number: usize| {
        let keys = format!("role = {role}\nready_within = 3s");
        sleeper(&format!("{role}-{number}"), &keys).replace("settle 50ms", "settle 1s")
    };
    let text: String = roles.iter().flat_map(|role| (0..10).map(|number| slow(role, number))).collect();
    let lab = Lab::start(Some(&sleeper("first", "")));
    lab.client.wait_for_all("RUNNING");
    let status = lab.deploy(&text);
    assert_eq!(status.nodes.iter().filter(|node| node.state == "RUNNING").count(), 40);
}

#[test]
fn a_node_is_ready_when_its_port_accepts_and_not_before() {
    let reserved = Reserved::new();
    let waiting = sleeper("waiting", "").replace("settle 50ms", &format!("port {}", reserved.port()));
    // Longer than any usual time to settle.
    let settling = sleeper("settling", "").replace("50ms", "1s");
    let lab = Lab::start(Some(&(waiting + &settling)));
    let status = lab.client.wait("the other one runs", |status| {
        status.nodes.iter().any(|node| node.name == "settling" && node.state == "RUNNING")
    });
    assert_eq!(node(&status, "waiting").state, "PENDING");
    assert!(processes::is_alive(pids(&status)["waiting"]));
    let _listener = reserved.listen();
    lab.client.wait_for("waiting", "RUNNING");
}

#[test]
fn a_node_that_is_not_ready_in_time_is_named_with_the_cause_and_tried_again() {
    let reserved = Reserved::new();
    let late = sleeper("late", "ready_within = 300ms\nrestart_limit = 0\nrestart_max_delay = 500ms")
        .replace("settle 50ms", &format!("port {}", reserved.port()));
    let lab = Lab::start(Some(&sleeper("fine", "")));
    lab.client.wait_for_all("RUNNING");
    let verdict = lab.client.deploy_and_keep(&lab.scene.write("next.cfg", &(sleeper("fine", "") + &late)));
    let error = outcome(&verdict, "late").error.as_deref().unwrap();
    let want = format!("not ready within 300ms: nothing accepts at 127.0.0.1:{}", reserved.port());
    assert!(error.starts_with(&want), "{error}");
    assert_eq!(outcome(&verdict, "fine").error, None);
    lab.client.wait("it is tried again", |status| node(status, "late").restarts > 0);
    let _listener = reserved.listen();
    lab.client.wait_for("late", "RUNNING");
}

#[test]
fn nodes_that_do_not_end_delay_nobody() {
    // Whoever waited for the grace of these would wait for ten minutes.
    let hung = |name: &str| deaf(name, "role = worker\nstop_grace = 10m");
    let nodes = |colour: &str| sleeper("logger", "role = logger") + &sleeper("fine", &format!("env = COLOUR={colour}"));
    let lab = Lab::start(Some(&(nodes("red") + &hung("deaf") + &hung("frozen"))));
    let first = pids(&lab.client.wait_for_all("RUNNING"));
    ["deaf", "frozen"].iter().for_each(|name| lab.daemon.wait_until_says(name, "deaf"));
    processes::signal(first["frozen"], Signal::STOP);
    let end_the_hung = || ["deaf", "frozen"].iter().for_each(|name| processes::signal(first[*name], Signal::KILL));

    assert!(lab.client.order("restart", &["logger", "fine"]).ok);
    assert!(lab.client.order("stop", &["logger", "fine"]).ok);
    assert!(lab.client.order("start", &["logger", "fine"]).ok);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| lab.client.order("stop", &[]));
        let status = lab.client.wait("all that can be stopped is", |status| {
            ["logger", "fine"].iter().all(|name| node(status, name).state == "STOPPED")
        });
        assert_eq!([pids(&status)["deaf"], pids(&status)["frozen"]], [first["deaf"], first["frozen"]]);
        assert!(!stopping.is_finished(), "not everything is stopped");
        assert!(lab.client.order("start", &["fine"]).ok, "orders meanwhile are obeyed");
        end_the_hung();
        let verdict = stopping.join().unwrap();
        assert_eq!(outcome(&verdict, "deaf").error, None, "{verdict:?}");
    });
    check_log(&lab.client.events());
}

#[test]
fn a_deployment_goes_past_a_node_that_does_not_end() {
    let nodes = |colour: &str| sleeper("fine", &format!("env = COLOUR={colour}"));
    let lab = Lab::start(Some(&(nodes("red") + &deaf("deaf", "role = worker\nstop_grace = 10m"))));
    let first = pids(&lab.client.wait_for_all("RUNNING"));
    lab.daemon.wait_until_says("deaf", "deaf");
    let file = lab.scene.write("next.cfg", &nodes("blue"));
    thread::scope(|scope| {
        let deploying = scope.spawn(|| lab.client.deploy(&file));
        lab.client.wait("the others have changed", |status| {
            let fine = node(status, "fine");
            fine.state == "RUNNING" && fine.pid != Some(first["fine"])
        });
        assert!(processes::is_alive(first["deaf"]) && !deploying.is_finished());
        let second = lab.client.deploy(&file);
        let refusal = second.outcomes[0].error.as_deref().unwrap();
        assert!(second.outcomes.len() == 1 && refusal.contains(" is under way, by "), "{second:?}");
        processes::signal(first["deaf"], Signal::KILL);
        let verdict = deploying.join().unwrap();
        assert!(verdict.ok, "{verdict:?}");
    });
    assert_eq!(states(&lab.client.status()), [("fine", "RUNNING")].into());
}

/// Starts a child that ignores SIGTERM, and one that does so in a session of its own; both say who they are.
const PARENT: &str = "(trap \"\" TERM; echo child; while :; do sleep 0.1; done) &\n\
    setsid sh -c \"trap \\\"\\\" TERM; echo stray; while :; do sleep 0.1; done\" &\n\
    wait";

#[test]
fn a_stopped_node_takes_its_whole_family_along() {
    let lab = Lab::start(Some(&(script("parent", "stop_grace = 500ms", PARENT) + &sleeper("fine", ""))));
    ["child", "stray"].iter().for_each(|line| lab.daemon.wait_until_says("parent", line));
    let fine = pids(&lab.client.wait_for_all("RUNNING"))["fine"];
    assert!(lab.scene.processes_of("parent").len() >= 3);
    assert!(lab.client.order("stop", &["parent"]).ok);
    assert_eq!(lab.scene.processes_of("parent").len(), 0);
    assert!(processes::is_alive(fine));

    let verdict = lab.client.order("start", &["parent"]);
    assert!(verdict.ok, "{verdict:?}");
    ["child", "stray"].iter().for_each(|line| lab.daemon.wait_until_says("parent", line));
    let before = lab.scene.processes_of("parent");
    processes::signal(pids(&lab.client.status())["parent"], Signal::KILL);
    eventually("what a crash left behind is gone, and the next life there", || {
        let now = lab.scene.processes_of("parent");
        (now.len() >= 3 && !before.iter().any(|pid| now.contains(pid))).then_some(())
    });
}

#[test]
fn the_family_of_a_node_is_known_to_the_next_agent_too() {
    let mut fleet = Fleet::start();
    let parent = script("parent", "instance = a\nstop_grace = 500ms", PARENT);
    fleet.client.deployed(&fleet.file(&["a"], &[parent]));
    ["child", "stray"].iter().for_each(|line| fleet.agents["a"].wait_until_says("parent", line));
    let before = fleet.scene.processes_of("parent").len();
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("parent", "UNKNOWN");
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for("parent", "RUNNING");
    assert!(fleet.scene.processes_of("parent").len() >= 3 && before >= 3);
    assert!(fleet.client.order("stop", &["parent"]).ok);
    assert_eq!(fleet.scene.processes_of("parent").len(), 0);
}

#[test]
fn a_node_sees_nothing_of_the_settings_of_its_agent() {
    let lab = Lab::start(Some(&sleeper("one", "role = worker\nenv = OWN=1")));
    let pid = lab.client.wait_for("one", "RUNNING").pid.unwrap();
    let environment = |pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let names = text.split_terminator('\0').map(|variable| variable.split('=').next().unwrap().to_owned());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(environment(lab.daemon.pid()).contains("WATCHPOST_LOG"));
    let want = ["CLUSTER_NODE", "HOME", "OWN", "PATH", "WATCHPOST_NODE", "WATCHPOST_PLACE"];
    assert_eq!(environment(pid), want.map(str::to_owned).into());
}

#[test]
fn a_file_of_variables_is_read_at_each_launch_and_what_the_definition_sets_wins_over_it() {
    let scene = Scene::new();
    let file = scene.write("variables", "# for the node\nBOTH=file\nFILED=first\n");
    let says =
        script("says", &format!("env_file = {}\nenv = BOTH=own", file.display()), "echo $BOTH $FILED\nexec sleep 1000");
    let lab = Lab::start_in(scene, Some(&says));
    lab.daemon.wait_until_says("says", "own first");
    lab.scene.write("variables", "BOTH=file\nFILED=second\n");
    assert!(lab.client.order("restart", &["says"]).ok);
    lab.daemon.wait_until_says("says", "own second");
}

fn outcome<'a>(verdict: &'a Verdict, node: &str) -> &'a Outcome {
    let mut outcomes = verdict.outcomes.iter();
    outcomes.find(|outcome| outcome.node.as_deref() == Some(node)).unwrap_or_else(|| panic!("{verdict:#?}"))
}

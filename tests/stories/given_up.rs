//! A node that was given up stays so, and one that keeps dying keeps its count, whoever restarts its agent.

use std::fs;

use rustix::process::Signal;

use crate::common::{Client, Fleet, changes, check_log, eventually, node, path, pids, processes, script, sleeper};
use crate::crashes::{crashes, dossier};

#[test]
fn a_node_that_was_given_up_is_not_tried_again_by_the_next_agent() {
    let mut fleet = Fleet::start();
    let keys = "instance = a\nrestart_limit = 2\nrestart_delay = 10ms\nrestart_max_delay = 20ms";
    let looping = script("looping", keys, "echo once >> ../../../launches\nexit 1");
    let nodes = [looping, sleeper("fine", "instance = a")];
    let file = fleet.file(&["a"], &nodes);
    fleet.client.deploy(&file);
    let failed = fleet.client.wait_for("looping", "FAILED");
    assert!(failed.reason.starts_with("given up after 2 restarts within 10m"), "{failed:?}");
    fleet.client.wait_for("fine", "RUNNING");
    let fine = pids(&fleet.client.status());
    let launches = |fleet: &Fleet| fleet.scene.read("launches").lines().count();
    assert_eq!(launches(&fleet), 3);
    for _ in 0..2 {
        fleet.agent_mut("a").kill();
        fleet.client.wait_for("fine", "UNKNOWN");
        fleet.agent_mut("a").start_again();
        fleet.client.wait_for("fine", "RUNNING");
        // An order to the same agent is answered behind everything that its return brought about.
        assert!(fleet.client.order("start", &["fine"]).ok);
        let after = fleet.client.status();
        assert_eq!(node(&after, "looping").state, "FAILED");
        assert!(node(&after, "looping").reason.starts_with("given up after 2 restarts"), "{after:?}");
        assert_eq!(pids(&after), fine);
        assert_eq!(launches(&fleet), 3);
    }
    let verdict = fleet.client.order("start", &["looping"]);
    assert!(!verdict.ok, "somebody asked, so it is tried again: {verdict:?}");
    fleet.client.wait_for("looping", "FAILED");
    assert_eq!(launches(&fleet), 6, "and counts anew");
    let events = fleet.client.events();
    check_log(&events);
    assert!(path(&changes(&events, "looping")).contains("FAILED UNKNOWN FAILED"), "{events:?}");
}

#[test]
fn who_waits_to_be_started_again_waits_on_and_is_given_up_at_its_limit_however_often_its_agent_is_killed() {
    let mut fleet = Fleet::start();
    let waits = |name: &str, keys: &str| {
        let keys = format!("instance = a\nrestart_jitter = 0%%\n{keys}");
        script(name, &keys, &format!("echo once >> ../../../{name}\necho broken >&2\nexit 3"))
    };
    // The first restart is immediate.
    let nodes = [
        waits("long", "restart_limit = 3\nrestart_delay = 1h\nrestart_max_delay = 1h"),
        waits("short", "restart_limit = 2\nrestart_delay = 4s"),
        sleeper("fine", "instance = a"),
    ];
    fleet.client.deploy(&fleet.file(&["a"], &nodes));
    let launches = |fleet: &Fleet, node: &str| fleet.scene.read(node).lines().count();
    fleet.client.wait("both have died twice", |status| {
        ["long", "short"].iter().all(|name| node(status, name).restarts == 2 && node(status, name).state == "CRASHED")
    });
    let filed = |client: &Client| Some(crashes(client, &["long"])).filter(|all| all.len() == 2);
    let before = eventually("both deaths are filed", || filed(&fleet.client));
    assert!(before.iter().all(|crash| crash.exit.status == Some(3)), "{before:?}");
    let newest = dossier(&fleet.client, &before[0].id, |_| true);
    for _ in 0..3 {
        fleet.agent_mut("a").kill();
        fleet.client.wait_for("fine", "UNKNOWN");
        fleet.agent_mut("a").start_again();
        fleet.client.wait_for("fine", "RUNNING");
        // An order to the same agent is answered behind everything that its return brought about.
        assert!(fleet.client.order("start", &["fine"]).ok);
        let long = node(&fleet.client.status(), "long").clone();
        assert_eq!((long.state.as_str(), long.pid), ("CRASHED", None));
        assert!(long.reason.starts_with("exited with status 3: broken"), "{long:?}");
        assert_eq!(launches(&fleet, "long"), 2);
    }
    let failed = fleet.client.wait_for("short", "FAILED");
    assert!(failed.reason.starts_with("given up after 2 restarts"), "{failed:?}");
    assert_eq!(launches(&fleet, "short"), 3, "its wait went on where it was, and then it was at its limit");

    let events = fleet.client.events();
    check_log(&events);
    let deaths = |name: &str| changes(&events, name).iter().filter(|change| change.exit.is_some()).count();
    assert_eq!((deaths("long"), deaths("short")), (2, 3), "each is told once: {events:#?}");
    let away = events.iter().find(|event| event.msg.as_deref().is_some_and(|msg| msg.contains("agent was away")));
    assert_eq!(away, None, "they died before their eyes");
    assert_eq!(filed(&fleet.client), Some(before.clone()));
    assert_eq!(dossier(&fleet.client, &before[0].id, |_| true), newest, "and nothing poorer took its place");
    assert!(!fleet.client.order("start", &["long"]).ok, "somebody asked, so it is tried at once");
    assert!(launches(&fleet, "long") > 2);
}

/// Whether the record of a node of `a` says that earlier crashes are forgotten.
fn is_noted_stable(fleet: &Fleet, node: &str) -> bool {
    let record = fleet.agents["a"].state_dir().join("nodes").join(node).join("record");
    fs::read_to_string(record).unwrap().lines().any(|line| line.starts_with("stable "))
}

#[test]
fn for_how_long_a_node_has_been_stable_is_known_to_the_agent_that_returns() {
    let mut fleet = Fleet::start();
    let keys = "instance = a\nrestart_stable = 2s\nrestart_delay = 1h\nrestart_max_delay = 1h";
    fleet.client.deployed(&fleet.file(&["a"], &[sleeper("stable", keys), sleeper("fine", "instance = a")]));
    let again = |fleet: &Fleet| {
        let former = fleet.client.wait_for("stable", "RUNNING").pid.unwrap();
        processes::signal(former, Signal::KILL);
        let back = fleet.client.wait("it is started again at once", |status| {
            let stable = node(status, "stable");
            stable.state == "RUNNING" && stable.pid != Some(former)
        });
        pids(&back)["stable"]
    };
    let second = again(&fleet);
    eventually("it is stable", || is_noted_stable(&fleet, "stable").then_some(()));
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("fine", "UNKNOWN");
    // For how long it ran is not known of who ended while nobody was there: only what was noted counts.
    processes::signal(second, Signal::KILL);
    eventually("it has ended", || (!processes::is_alive(second)).then_some(()));
    fleet.agent_mut("a").start_again();
    fleet.client.wait("it is started again at once", |status| {
        let stable = node(status, "stable");
        stable.state == "RUNNING" && stable.pid != Some(second)
    });
    let events = fleet.client.events();
    let crashed = changes(&events, "stable").into_iter().filter(|change| change.new.as_deref() == Some("CRASHED"));
    assert_eq!(crashed.map(|change| change.attempt).collect::<Vec<_>>(), [Some(1), Some(1)]);
    check_log(&events);
}

#[test]
fn restarts_are_counted_on_by_the_agent_that_returns() {
    let mut fleet = Fleet::start();
    // The first restart is immediate, and the second is half a minute off.
    let keys = "instance = a\nrestart_limit = 3\nrestart_delay = 30s\nrestart_jitter = 0%%\nready = settle 20ms";
    let dying =
        script("dying", "", "echo once >> ../../../launches\nexec sleep 1000").replace("ready = settle 50ms\n", keys);
    fleet.client.deployed(&fleet.file(&["a"], &[dying, sleeper("fine", "instance = a")]));
    let first = fleet.client.wait_for("dying", "RUNNING").pid.unwrap();
    processes::signal(first, Signal::KILL);
    let second = fleet.client.wait("it was started again at once", |status| {
        let dying = node(status, "dying");
        dying.state == "RUNNING" && dying.pid != Some(first)
    });
    let second = pids(&second)["dying"];
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("fine", "UNKNOWN");
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for("dying", "RUNNING");
    processes::signal(second, Signal::KILL);
    let crashed = fleet.client.wait_for("dying", "CRASHED");
    assert!(crashed.reason.contains("SIGKILL"), "{crashed:?}");
    let events = fleet.client.events();
    let last = changes(&events, "dying").last().cloned().cloned().unwrap();
    assert_eq!(last.attempt, Some(2), "the second in a row, which waits: {last:?}");
    assert_eq!(fleet.scene.read("launches").lines().count(), 2);
}

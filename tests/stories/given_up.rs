//! A node that was given up stays so, and one that keeps dying keeps its count, whoever restarts its agent.

use crate::common::{Fleet, changes, check_log, node, path, pids, script, sleeper};

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
    let fine = pids(
        &fleet.client.wait_for("fine", "RUNNING").pid.map_or_else(|| fleet.client.status(), |_| fleet.client.status()),
    );
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
fn restarts_are_counted_on_by_the_agent_that_returns() {
    let mut fleet = Fleet::start();
    // Its third restart is a minute off: the agent is killed meanwhile.
    let keys = "instance = a\nrestart_limit = 3\nrestart_delay = 30s\nrestart_jitter = 0%%\nready = settle 20ms";
    let dying =
        script("dying", "", "echo once >> ../../../launches\nexec sleep 1000").replace("ready = settle 50ms\n", keys);
    fleet.client.deployed(&fleet.file(&["a"], &[dying, sleeper("fine", "instance = a")]));
    let first = fleet.client.wait_for("dying", "RUNNING").pid.unwrap();
    crate::common::processes::signal(first, rustix::process::Signal::KILL);
    let second = fleet.client.wait("it was started again at once", |status| {
        let dying = node(status, "dying");
        dying.state == "RUNNING" && dying.pid != Some(first)
    });
    let second = pids(&second)["dying"];
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("fine", "UNKNOWN");
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for("dying", "RUNNING");
    crate::common::processes::signal(second, rustix::process::Signal::KILL);
    let crashed = fleet.client.wait_for("dying", "CRASHED");
    assert!(crashed.reason.contains("SIGKILL"), "{crashed:?}");
    let events = fleet.client.events();
    let last = changes(&events, "dying").last().cloned().cloned().unwrap();
    assert_eq!(last.attempt, Some(2), "the second in a row, which waits: {last:?}");
    assert_eq!(fleet.scene.read("launches").lines().count(), 2);
}

//! hashicorp/nomad. What became of strangers with a dead node's pid is tried in tests/chaos, where pids are few.

use rustix::process::Signal;

use crate::common::{Fleet, Lab, check_log, eventually, node, pids, processes, script, sleeper};

#[test]
fn nomad_5593_what_is_stopped_after_the_agent_was_killed_leaks_nothing() {
    let text = "setsid sh -c \"echo stray; while :; do sleep 0.1; done\" &\nwhile :; do sleep 0.1; done";
    let mut lab = Lab::start(Some(&script("raw", "stop_grace = 200ms", text)));
    lab.daemon.wait_until_says("raw", "stray");
    let before = lab.client.wait_for("raw", "RUNNING").pid;
    lab.daemon.kill();
    lab.daemon.start_again();
    assert_eq!(lab.client.wait_for("raw", "RUNNING").pid, before);
    lab.deploy(&sleeper("other", ""));
    assert!(lab.scene.processes_of("raw").is_empty(), "its job is gone, and so is all of it");
}

#[test]
fn nomad_9705_a_client_that_was_cut_off_and_restarted_loses_nobody_and_nobody_is_stuck() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.agents["b"].signal(Signal::STOP);
    fleet.client.wait_for("on-b", "UNKNOWN");
    // Dies while its agent neither hears nor is heard, and will not come back as it was.
    processes::signal(before["also-b"], Signal::KILL);
    fleet.agent_mut("b").kill();
    fleet.agent_mut("b").start_again();
    let after = fleet.client.wait("all of them run", |status| {
        status.nodes.iter().all(|node| node.state == "RUNNING") && pids(status)["also-b"] != before["also-b"]
    });
    assert_eq!((pids(&after)["on-b"], node(&after, "on-b").restarts), (before["on-b"], 0));
    assert_eq!(node(&after, "also-b").restarts, 1);
    assert!(fleet.client.order("restart", &["on-b", "also-b"]).ok, "both obey");
    for name in ["on-b", "also-b"] {
        let known: Vec<u32> = node(&fleet.client.status(), name).pid.into_iter().collect();
        eventually("each runs once", || (fleet.scene.processes_of(name) == known).then_some(()));
    }
    check_log(&fleet.client.events());
}

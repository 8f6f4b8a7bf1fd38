//! Unitech/pm2.

use rustix::process::Signal;

use crate::common::{Fleet, Lab, eventually, node, pids, processes, script, sleeper, states};

#[test]
fn pm2_2174_a_daemon_that_dies_takes_nobody_along() {
    let mut lab = Lab::start(Some(&sleeper("one", "")));
    let before = lab.client.wait_for("one", "RUNNING").pid.unwrap();
    let born = processes::started(before);
    // SIGHUP is not among them: whoever runs tests under nohup has it ignored, and so would the lab.
    for signal in [Signal::KILL, Signal::USR1, Signal::USR2] {
        lab.daemon.signal(signal);
        lab.daemon.ended();
        assert!(processes::is_alive(before), "{signal:?}");
        lab.daemon.start_again();
        assert_eq!(lab.client.wait_for("one", "RUNNING").pid, Some(before), "{signal:?}");
    }
    assert_eq!(processes::started(before), born);
}

#[test]
fn pm2_433_what_was_run_and_what_was_stopped_is_known_after_a_crash_of_every_daemon() {
    let mut fleet = Fleet::with_nodes();
    assert!(fleet.client.order("stop", &["also-b"]).ok);
    let before = fleet.client.status();
    ["a", "b", "c"].iter().for_each(|name| fleet.agent_mut(name).kill());
    fleet.controller.kill();
    fleet.controller.start_again();
    ["a", "b", "c"].iter().for_each(|name| fleet.agent_mut(name).start_again());
    let after = fleet.client.wait("all are back and have told how their nodes are", |status| {
        let is_known = |(_, state): (&str, &str)| state != "UNKNOWN";
        status.instances.iter().all(|it| it.link == "UP") && states(status).into_iter().all(is_known)
    });
    assert_eq!((pids(&after), states(&after)), (pids(&before), states(&before)));
    assert!(fleet.scene.processes_of("also-b").is_empty());
}

#[test]
fn pm2_952_a_restart_leaves_no_child_of_the_former_life() {
    let text = "(trap \"\" TERM INT HUP; echo child; while :; do sleep 0.1; done) &\nwait";
    let lab = Lab::start(Some(&script("parent", "stop_grace = 200ms", text)));
    lab.daemon.wait_until_says("parent", "child");
    let former = lab.scene.processes_of("parent");
    assert!(lab.client.order("restart", &["parent"]).ok);
    assert!(former.iter().all(|pid| !processes::is_alive(*pid)), "{former:?}");
    let leader = node(&lab.client.status(), "parent").pid.unwrap();
    eventually("the new life is there", || lab.scene.processes_of("parent").contains(&leader).then_some(()));
}

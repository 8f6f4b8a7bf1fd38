//! An instance that leaves the cluster file: what it runs is ended there before anybody says that the file is true, and if it
//! cannot be reached nobody takes that for granted.

use std::path::Path;

use crate::common::{Answer, Fleet, eventually, pids, processes, script, sleeper};

/// `a` and `b`, and two nodes on `b`.
fn two() -> Fleet {
    let fleet = Fleet::start();
    let nodes = [on("stays", "a"), on("moves", "b"), on("goes", "b")];
    fleet.client.deployed(&fleet.file(&["a", "b"], &nodes));
    fleet.client.wait_for_all("RUNNING");
    fleet
}

fn on(name: &str, instance: &str) -> String {
    sleeper(name, &format!("instance = {instance}"))
}

fn deploy(fleet: &Fleet, file: &Path, more: &[&str]) -> Answer {
    fleet.client.run(&[&["deploy", file.to_str().unwrap()], more].concat())
}

#[test]
fn what_an_instance_runs_that_leaves_out_of_reach_is_not_doubled_unless_it_is_given_up_by_name() {
    let mut fleet = two();
    let before = pids(&fleet.client.status());
    fleet.agent_mut("b").kill();
    fleet.client.wait_for("goes", "UNKNOWN");
    let file = fleet.file(&["a"], &[on("stays", "a"), on("moves", "a")]);
    let way_out = "wait for it, or give it up with `--without b`";
    let plan = fleet.client.run(&["plan", file.to_str().unwrap()]);
    assert!(plan.code != 0 && format!("{plan:?}").contains(way_out), "{plan:?}");
    let refused = deploy(&fleet, &file, &[]);
    assert!(refused.code == 4 && format!("{refused:?}").contains(way_out), "{refused:?}");
    assert_eq!(pids(&fleet.client.status())["stays"], before["stays"], "nothing was touched");
    assert!(before.values().all(|pid| processes::is_alive(*pid)));

    let given_up = deploy(&fleet, &file, &["--without", "b"]);
    let twice = "`moves` is started elsewhere, and may run twice until it is back or stopped";
    assert!(given_up.code == 4 && format!("{given_up:?}").contains(twice), "{given_up:?}");
    let status = fleet.client.run(&["status", "--check"]);
    assert!(status.code == 4 && status.stdout.contains("has yet to be followed by b"), "{status:?}");
    fleet.agent_mut("b").start_again();
    fleet.client.wait("b stands by", |status| status.deployment.is_none());
    for left in ["moves", "goes"] {
        assert!(!processes::is_alive(before[left]), "{left} has ended where it was");
    }
    let after = pids(&fleet.client.status());
    assert!(processes::is_alive(after["moves"]) && after["stays"] == before["stays"]);
    eventually("all is well", || (fleet.client.run(&["status", "--check"]).code == 0).then_some(()));
}

#[test]
fn a_deployment_is_answered_when_what_leaves_with_its_instance_has_ended() {
    let fleet = Fleet::start();
    let keys = "instance = b\nstop_grace = 20s";
    let slow = script("slow", keys, "trap \"sleep 2; exit\" TERM\necho ready\nwhile :; do sleep 0.1; done");
    fleet.client.deployed(&fleet.file(&["a", "b"], &[on("stays", "a"), slow]));
    fleet.agents["b"].wait_until_says("slow", "ready");
    let before = pids(&fleet.client.status());
    let verdict = fleet.client.deploy(&fleet.file(&["a"], &[on("stays", "a")]));
    assert!(verdict.ok && !processes::is_alive(before["slow"]), "{verdict:?}");
    assert!(verdict.outcomes.iter().any(|outcome| outcome.instance.as_deref() == Some("b")), "{verdict:?}");
    assert!(fleet.client.status().deployment.is_none());
}

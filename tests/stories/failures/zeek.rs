//! zeek/zeek, and others who run programs for a long time.

use std::fs;

use rustix::process::Signal;

use crate::common::{Answer, Fleet, Lab, check_log, eventually, node, pids, script, sleeper};
use crate::crashes::{crashes, dossier};

use super::moments;

#[test]
fn zeek_518_a_node_that_lives_is_never_said_to_have_crashed_and_has_no_duplicate() {
    let fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.agents["b"].signal(Signal::STOP);
    let unknown = fleet.client.wait_for("on-b", "UNKNOWN");
    assert_ne!(unknown.state, "CRASHED", "nobody guesses");
    // What zeekctl's cron would do now, somebody does by hand.
    fleet.client.run(&["start", "on-b"]);
    fleet.agents["b"].signal(Signal::CONT);
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&after), before);
    assert_eq!(fleet.scene.processes_of("on-b"), [before["on-b"]]);
    assert!(moments(&fleet.client.events(), "on-b", "CRASHED").is_empty());
}

#[test]
fn zeek_1904_what_a_node_complained_of_before_it_died_is_found() {
    let text = "echo \"fatal error in ./local.zeek, line 7: unknown identifier\" >&2\nexit 1";
    let lab = Lab::start(Some(&script("sensor", "restart = never", text)));
    let failed = lab.client.wait_for("sensor", "FAILED");
    let want = "fatal error in ./local.zeek, line 7: unknown identifier";
    assert!(failed.reason.contains(want), "in status: {failed:?}");
    assert!(lab.client.run(&["logs", "sensor", "--stderr"]).stdout.contains(want), "in its log");
    let crash = eventually("its dossier is made", || crashes(&lab.client, &["sensor"]).pop());
    assert!(dossier(&lab.client, &crash.id, |_| true).stderr.contains(want), "in its dossier");
}

#[test]
fn hermes_agent_64433_restarts_without_a_bound_are_refused_before_there_are_163000_of_them() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    let storm = script("storm", "restart_limit = 0\nrestart_delay = 0s", "exit 1");
    let file = lab.scene.write("storm.cfg", &storm).display().to_string();
    for answer in
        [Answer::of(lab.scene.watchpost(&["check", &file]).output().unwrap()), lab.client.run(&["deploy", &file])]
    {
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains("[storm] restart_"), "{answer:?}");
    }
    assert!(lab.scene.processes_of("storm").is_empty());
}

#[test]
fn etcd_15220_who_follows_a_log_never_goes_back_in_time_and_misses_nothing() {
    let mut fleet = Fleet::with_nodes();
    let file = fleet.scene.path("followed");
    let mut follower = fleet.client.command(&["events", "--follow", "--json", "--last", "100000"]);
    let mut follower = follower.stdout(fs::File::create(&file).unwrap()).spawn().unwrap();
    for verb in ["restart", "stop", "start"] {
        assert!(fleet.client.order(verb, &["on-a", "on-b"]).ok);
        fleet.controller.signal(Signal::TERM);
        fleet.controller.ended();
        fleet.controller.start_again();
        fleet.client.wait("all agents are back", |status| status.instances.iter().all(|it| it.link == "UP"));
    }
    let last = fleet.client.wait("all is told", |status| node(status, "on-b").state == "RUNNING").seq;
    let followed = eventually("whoever follows is where the log is", || {
        let text = fs::read_to_string(&file).unwrap();
        let whole = text.ends_with('\n') && text.contains(&format!("\"seq\":\"{last}\""));
        whole.then_some(text)
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
    let events: Vec<_> = followed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    check_log(&events);
    assert!(moments(&events, "on-a", "PENDING").len() >= 3, "{followed}");
}

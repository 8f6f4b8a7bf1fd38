//! systemd/systemd, and Erlang/OTP, whose supervisors share its failing.

use rustix::process::Signal;

use crate::common::{Answer, Lab, check_log, node, pids, processes, script, sleeper};

use super::moments;

#[test]
fn systemd_43813_a_stable_time_makes_the_next_restart_immediate_again() {
    // A second restart in a row would wait for half an hour.
    let lab =
        Lab::start(Some(&sleeper("steady", "restart_delay = 30m\nrestart_max_delay = 30m\nrestart_stable = 200ms")));
    for _ in 0..3 {
        let runs = lab.client.wait_for("steady", "RUNNING");
        // As it is asked again and again, this takes longer than it needs to be stable.
        let born = processes::started(runs.pid.unwrap());
        crate::common::eventually("it was stable", || (ticks_now() > born + 60).then_some(()));
        processes::signal(runs.pid.unwrap(), Signal::KILL);
        lab.client.wait("it runs again", |status| {
            let steady = node(status, "steady");
            steady.state == "RUNNING" && steady.pid != runs.pid
        });
    }
    check_log(&lab.client.events());
}

/// The time since the machine was started, in hundredths of a second.
fn ticks_now() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (seconds * 100.0) as u64
}

#[test]
fn systemd_generators_fail_without_a_word_and_here_a_file_that_is_wrong_is_refused_line_by_line() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    let before = lab.client.wait_for_all("RUNNING");
    let file = lab.scene.write("wrong.cfg", "[worker-1]\nrole = worker\ninterfce = eth0\nretention = 7days\n");
    let name = file.display().to_string();
    for answer in
        [Answer::of(lab.scene.watchpost(&["check", &name]).output().unwrap()), lab.client.run(&["deploy", &name])]
    {
        assert_eq!((answer.code, &*answer.stdout), (2, ""), "{answer:?}");
        assert!(answer.stderr.contains(&format!("{name}:3: [worker-1] interfce: ")), "{answer:?}");
        assert!(answer.stderr.contains(&format!("{name}:4: [worker-1] retention: ")), "{answer:?}");
    }
    assert_eq!(lab.client.status().nodes, before.nodes);
}

#[test]
fn otp_1287_a_child_that_dies_at_once_uses_up_its_own_limit_and_takes_nobody_down() {
    let keys = "restart_limit = 4\nrestart_delay = 60ms\nrestart_factor = 1\nrestart_jitter = 0%%";
    let lab = Lab::start(Some(&(script("dies", keys, "exit 1") + &sleeper("fine", ""))));
    let fine = lab.client.wait_for("fine", "RUNNING").pid;
    lab.client.wait_for("dies", "FAILED");
    let events = lab.client.events();
    let tries: Vec<_> =
        moments(&events, "dies", "PENDING").iter().map(|at| events[*at].time.clone().unwrap()).collect();
    assert_eq!(tries.len(), 5, "{events:#?}");
    let moment = |time: &String| humantime::parse_rfc3339(time).unwrap();
    let spread = moment(&tries[4]).duration_since(moment(&tries[1])).unwrap();
    assert!(spread >= std::time::Duration::from_millis(170), "all but the first restart waited: {tries:?}");
    assert_eq!(pids(&lab.client.status()).get("fine").copied(), fine);
}

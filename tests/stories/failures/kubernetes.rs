//! kubernetes/kubernetes.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Fleet, Lab, changes, check_log, eventually, node, pids, processes, script, sleeper};

use super::moments;

#[test]
fn kubernetes_57291_the_back_off_is_the_nodes_own_and_so_is_its_cap() {
    let quick = "restart_delay = 5ms\nrestart_factor = 1\nrestart_max_delay = 5ms\nrestart_limit = 0";
    let slow = "restart_delay = 1h\nrestart_max_delay = 1h\nrestart_limit = 0";
    let lab = Lab::start(Some(&(script("quick", quick, "exit 1") + &script("slow", slow, "exit 1"))));
    lab.client.wait("one of them is tried often", |status| {
        status.nodes.iter().any(|node| node.name == "quick" && node.restarts > 20)
    });
    lab.client.wait("the other one has died twice", |status| {
        node(status, "slow").state == "CRASHED" && node(status, "slow").restarts == 2
    });
    assert_eq!(moments(&lab.client.events(), "slow", "PENDING").len(), 2, "and waits");
}

#[test]
fn kubernetes_19302_a_restart_of_the_agent_restarts_nothing_and_pid_and_start_time_are_looked_at() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    let born: Vec<_> = before.values().map(|pid| processes::started(*pid)).collect();
    for name in ["a", "b", "c"] {
        fleet.agents[name].signal(Signal::TERM);
        fleet.agent_mut(name).ended();
        fleet.agent_mut(name).start_again();
    }
    let after = fleet.client.wait("all are back", |status| {
        status.instances.iter().all(|it| it.link == "UP") && status.nodes.iter().all(|node| node.state == "RUNNING")
    });
    assert_eq!(pids(&after), before);
    assert_eq!(before.values().map(|pid| processes::started(*pid)).collect::<Vec<_>>(), born);
    assert_eq!(fleet.scene.processes().len(), before.len());
}

#[test]
fn kubernetes_137146_what_crashed_around_a_restart_of_the_agent_is_started_again() {
    let keys = "restart_delay = 3s\nrestart_jitter = 0%%";
    let mut lab = Lab::start(Some(&(sleeper("before", keys) + &sleeper("meanwhile", ""))));
    let first = pids(&lab.client.wait_for_all("RUNNING"));
    // One waits for its turn to come back, since it dies the second time, and the other dies while nobody is there.
    processes::signal(first["before"], Signal::KILL);
    let second = lab.client.wait("it is there at once", |status| {
        let before = node(status, "before");
        before.state == "RUNNING" && before.pid != Some(first["before"])
    });
    let died = Instant::now();
    processes::signal(node(&second, "before").pid.unwrap(), Signal::KILL);
    lab.client.wait_for("before", "CRASHED");
    processes::signal(first["meanwhile"], Signal::STOP);
    lab.daemon.kill();
    processes::signal(first["meanwhile"], Signal::KILL);
    eventually("it is dead", || (!processes::is_alive(first["meanwhile"])).then_some(()));
    lab.daemon.start_again();
    let after = pids(&lab.client.wait_for_all("RUNNING"));
    assert!(after["before"] != node(&second, "before").pid.unwrap() && after["meanwhile"] != first["meanwhile"]);
    assert_eq!(lab.scene.processes().len(), 2);
    let events = lab.client.events();
    check_log(&events);
    let deaths = changes(&events, "before").into_iter().filter(|change| change.exit.is_some()).count();
    assert_eq!(deaths, 2, "nothing is told twice: {events:#?}");
    assert!(died.elapsed() >= Duration::from_secs(3), "it has waited for all of its time");
}

#[test]
fn kubernetes_104471_there_are_never_two_processes_of_a_node_however_often_it_is_ordered_about() {
    let lab =
        Lab::start(Some(&script("one", "stop_grace = 100ms\nrestart_delay = 10ms", "trap \"\" TERM\nsleep 1000")));
    lab.client.wait_for_all("RUNNING");
    std::thread::scope(|scope| {
        let orders = ["restart", "stop", "start"].map(|verb| {
            let client = lab.client.clone();
            scope.spawn(move || (0..3).for_each(|_| drop(client.run(&[verb, "one"]))))
        });
        while orders.iter().any(|order| !order.is_finished()) {
            // A leader of a life leads its session; whom it starts does not.
            let leaders: Vec<_> = lab.scene.processes_of("one").into_iter().filter(|pid| leads(*pid)).collect();
            let both = || leaders.iter().all(|pid| processes::is_alive(*pid));
            assert!(leaders.len() <= 1 || !both(), "{leaders:?}");
        }
    });
    assert!(lab.client.order("start", &["one"]).ok);
    let known = node(&lab.client.status(), "one").pid.unwrap();
    let leaders: Vec<_> = lab.scene.processes_of("one").into_iter().filter(|pid| leads(*pid)).collect();
    assert_eq!(leaders, [known]);
    assert_eq!(moments(&lab.client.events(), "one", "FAILED").len(), 0);
    check_log(&lab.client.events());
}

/// Whether the process leads a session.
fn leads(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)?.parse().ok());
    session == Some(pid)
}

//! F1bonacc1/process-compose: issues by number, and three that were mended without one by their commits.

use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use crate::common::{
    Lab, Reserved, Scene, changes, check_log, eventually, node, path, pids, processes, script, sleeper,
};

use super::moments;

#[test]
fn process_compose_403_a_probe_that_fails_starts_the_node_again_and_does_not_end_it_for_good() {
    let keys = "probe = exec test -e ../../../../well\nprobe_interval = 100ms\nprobe_failures = 2\nstop_grace = 1s";
    let lab = Lab::start(Some(&sleeper("probed", &format!("{keys}\nrestart_limit = 0\nrestart_delay = 20ms"))));
    lab.client.wait("it is started again", |status| {
        status.nodes.iter().any(|node| node.name == "probed" && node.restarts > 1)
    });
    lab.scene.write("well", "");
    let well = lab.client.wait_for("probed", "RUNNING").restarts;
    lab.client.wait_for("probed", "RUNNING");
    assert!(well > 1 && moments(&lab.client.events(), "probed", "FAILED").is_empty());
    check_log(&lab.client.events());
}

#[test]
fn process_compose_531_whether_it_is_ready_and_whether_it_lives_are_two_questions() {
    let scene = Scene::new();
    let address = TcpListener::bind(scene.any_port()).unwrap().local_addr().unwrap();
    let path = |name: &str| scene.path(name).display().to_string();
    let probe = |asked: &str| format!("exec sh -c \"echo asked >> {}; test ! -e {}\"", path(asked), path("sick"));
    let keys = |asked: &str| {
        let probe = probe(asked);
        format!("probe = {probe}\nprobe_interval = 100ms\nprobe_failures = 2\nready_within = 1h\nrestart_delay = 10ms")
    };
    let serves = sleeper("serves", &keys("serves")).replace("settle 50ms", &format!("tcp {address}"));
    let file = serves + &sleeper("settles", &keys("settles"));
    let lab = Lab::start_in(scene, Some(&file));
    let asked = |name: &str| lab.scene.read(name).lines().count();
    let asked_again = |name: &str| {
        let before = asked(name);
        eventually("it is asked again and again", || (asked(name) > before + 3).then_some(()));
    };
    // Whoever is not ready is not asked whether it lives.
    asked_again("settles");
    let starts = lab.client.wait("it has a process", |status| pids(status).contains_key("serves"));
    assert_eq!((&*node(&starts, "serves").state, asked("serves")), ("PENDING", 0));
    let listener = TcpListener::bind(address).unwrap();
    let ready = lab.client.wait_for("serves", "RUNNING");
    // Whoever was ready once is not asked again whether it is, and lives as long as the probe says so.
    drop(listener);
    asked_again("serves");
    let lives = lab.client.wait_for("serves", "RUNNING");
    assert_eq!((lives.pid, lives.restarts), (ready.pid, 0));
    // And whoever does not live is started again, and is not ready by that.
    lab.scene.write("sick", "");
    let again = lab.client.wait("it is started again", |status| {
        let serves = node(status, "serves");
        serves.state == "PENDING" && serves.pid.is_some_and(|pid| Some(pid) != ready.pid)
    });
    assert_eq!(node(&again, "serves").restarts, 1);
    let events = lab.client.events();
    let crash = moments(&events, "serves", "CRASHED");
    assert!(events[crash[0]].reason.as_ref().unwrap().starts_with("its probe failed 2 times in a row"), "{events:#?}");
    check_log(&events);
}

#[test]
fn process_compose_530_a_restart_while_another_is_waited_for_leaves_no_copy_that_nobody_knows() {
    let reserved = Reserved::new();
    let waits = sleeper("database", "role = logger\nready_within = 1m")
        .replace("settle 50ms", &format!("port {}", reserved.port()));
    let lab = Lab::start(Some(&sleeper("first", "")));
    lab.client.wait_for_all("RUNNING");
    let file = lab.scene.write("next.cfg", &(waits + &sleeper("application", "role = worker")));
    thread::scope(|scope| {
        let deploying = scope.spawn(|| lab.client.deploy(&file));
        lab.client.wait("the database has a process", |status| pids(status).contains_key("database"));
        // Nobody knows what comes of these while a deployment is under way; what counts is what is left.
        lab.client.run(&["stop", "application"]);
        lab.client.run(&["restart", "application"]);
        let _listener = reserved.listen();
        assert!(deploying.join().unwrap().ok);
    });
    let application = lab.client.status();
    let known: Vec<u32> = node(&application, "application").pid.into_iter().collect();
    assert_eq!(lab.scene.processes_of("application"), known);
    assert!(lab.client.order("stop", &[]).ok);
    lab.scene.check_that_nothing_runs();
}

#[test]
fn process_compose_673850d_a_restart_that_is_under_way_does_not_undo_a_stop() {
    let slow =
        script("slow", "stop_grace = 1m", "trap \"sleep 0.3; exit 0\" TERM\necho set\nwhile :; do sleep 0.05; done");
    let lab = Lab::start(Some(&slow));
    lab.client.wait_for_all("RUNNING");
    lab.daemon.wait_until_says("slow", "set");
    thread::scope(|scope| {
        let restarting = scope.spawn(|| lab.client.order("restart", &["slow"]));
        let before = lab.client.events().len();
        eventually("the restart is asked for", || {
            let log = lab.daemon.log();
            (log.contains("/api/v1/nodes/restart") || lab.client.events().len() > before).then_some(())
        });
        let stopped = lab.client.order("stop", &["slow"]);
        assert!(stopped.ok, "{stopped:?}");
        lab.scene.check_that_nothing_runs();
        restarting.join().unwrap();
    });
    assert_eq!(lab.client.wait_for("slow", "STOPPED").pid, None);
    lab.scene.check_that_nothing_runs();
}

#[test]
fn process_compose_0be8ab4_a_reader_of_logs_who_does_not_read_holds_up_nobody_else() {
    let text =
        "n=0; while :; do n=$((n + 1)); echo \"line $n of many that are long enough to fill whatever there is\"; done";
    let keys = "output_max_bytes = 1048576\noutput_keep_files = 2";
    let lab = Lab::start(Some(&(script("talks", keys, text) + &script("other", "", "echo here\nexec sleep 1000"))));
    lab.client.wait_for_all("RUNNING");
    let mut stuck = lab.client.command(&["logs", "-f", "talks"]).stdout(Stdio::piped()).spawn().unwrap();
    // Far more is written than any pipe or buffer on the way takes.
    let first = lab.client.run(&["logs", "talks", "--stdout", "-n", "1"]).stdout;
    let number = |line: &str| line.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
    eventually("it writes on", || {
        let last = lab.client.run(&["logs", "talks", "--stdout", "-n", "1"]).stdout;
        (number(&last) > number(&first) + 100_000).then_some(())
    });
    assert_eq!(lab.client.run(&["logs", "other", "--stdout"]).stdout, "here\n");
    assert!(lab.client.order("restart", &["other"]).ok);
    assert!(stuck.try_wait().unwrap().is_none(), "it still follows");
    stuck.kill().unwrap();
    stuck.wait().unwrap();
}

#[test]
fn process_compose_546_dependents_start_when_the_port_accepts_and_not_before() {
    let reserved = Reserved::new();
    let serves = sleeper("serves", "role = manager\nready_within = 1m")
        .replace("settle 50ms", &format!("tcp {}", reserved.port()));
    let lab = Lab::start(Some(&(serves + &sleeper("settles", "role = manager") + &sleeper("uses", "role = worker"))));
    let status = lab.client.wait("the other one runs", |status| {
        status.nodes.iter().any(|node| node.name == "settles" && node.state == "RUNNING")
    });
    assert_eq!((&*node(&status, "serves").state, &*node(&status, "uses").state), ("PENDING", "STOPPED"));
    let _listener = reserved.listen();
    lab.client.wait_for_all("RUNNING");
    assert_eq!(path(&changes(&lab.client.events(), "uses")), "STOPPED PENDING RUNNING");
}

#[test]
fn process_compose_49c6975_orphans_that_end_leave_no_zombie() {
    let orphans = "i=0; while [ $i -lt 40 ]; do ( true & ) ; i=$((i + 1)); done\necho done\nexec sleep 1000";
    let lab = Lab::start(Some(&script("orphans", "", orphans)));
    lab.daemon.wait_until_says("orphans", "done");
    eventually("nobody is left unreaped", || {
        let dead = |pid: &u32| !processes::is_alive(*pid);
        processes::children_of(lab.daemon.pid()).iter().all(|pid| !dead(pid)).then_some(())
    });
}

//! PID 1 of a container: signals, orphans of anybody, and an end in order.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use watchpost::web::json::Event;

use crate::common::{
    Daemon, Fleet, Scene, changes, check_log, deaf, eventually, node, path, pids, processes, script, sleeper,
};
use crate::crashes::crashes;

/// Makes what is run by it PID 1 of a pid namespace, which ends with the test.
fn container() -> Vec<&'static str> {
    let mut through = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    through.extend(["--pid", "--mount-proc", "--kill-child", "--fork", "--"]);
    through
}

/// The number that PID 1 has out here.
fn init_of(daemon: &Daemon) -> u32 {
    let children = processes::children_of(daemon.pid());
    assert_eq!(children.len(), 1, "unshare has one child");
    children[0]
}

#[test]
fn securityonion_4461_a_sigterm_to_pid_1_stops_its_nodes_in_order_within_the_grace_and_leaves_no_crash() {
    let mut fleet = Fleet::start();
    let connect = fleet.controller.addresses()["agents"].to_string();
    let settings = "[agent]\ninit_grace = '1s'\n";
    let agent = ["agent", "--name", "boxed", "--connect", &connect];
    fleet.agents.insert("boxed", Daemon::start_all(&container(), &fleet.scene, "boxed", &agent, settings));
    let ask = "trap \"kill -TERM 1\" USR1\necho ready\nwhile :; do sleep 0.1; done";
    let nodes = [
        sleeper("first", "instance = boxed\nrole = logger"),
        script("asks", "instance = boxed\nrole = manager", ask),
        deaf("deaf", "instance = boxed\nrole = worker\nstop_grace = 2m"),
    ];
    fleet.client.deployed(&fleet.file(&["boxed"], &nodes));
    fleet.client.wait_for_all("RUNNING");
    fleet.agents["boxed"].wait_until_says("asks", "ready");
    fleet.agents["boxed"].wait_until_says("deaf", "deaf");
    assert!(fleet.agents["boxed"].log().contains("nodes end with the agent"), "{}", fleet.agents["boxed"].log());

    let instances = fleet.client.status().instances;
    let boxed = instances.iter().find(|instance| instance.name == "boxed").unwrap();
    assert!(!boxed.abilities["outlive_agent"].able, "{boxed:?}");
    let table = fleet.client.run(&["status"]).stdout;
    assert!(table.contains("nodes end with the agent"), "{table}");

    let asked = Instant::now();
    let asks = fleet.scene.processes_of("asks").into_iter().min().unwrap();
    processes::signal(asks, Signal::USR1);
    assert_eq!(fleet.agent_mut("boxed").ended().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "as long as docker waits: {:?}", asked.elapsed());
    fleet.scene.check_that_nothing_runs();
    let events = fleet.client.events();
    check_log(&events);
    for name in ["first", "asks", "deaf"] {
        let told = path(&changes(&events, name));
        assert!(
            told.starts_with("STOPPED PENDING RUNNING STOPPED"),
            "{name} was told before the agent was gone: {told}"
        );
    }
    let stopped = |name: &str| {
        let is_stop = |event: &&Event| event.node.as_deref() == Some(name) && event.new.as_deref() == Some("STOPPED");
        events.iter().position(|event| is_stop(&event)).unwrap()
    };
    assert!(stopped("asks") < stopped("first"), "in the order of roles");

    fleet.agent_mut("boxed").start_again();
    fleet.client.wait_for_all("RUNNING");
    assert!(fleet.client.status().nodes.iter().all(|node| node.restarts == 0), "no crash was made of it");
    assert!(crashes(&fleet.client, &[]).is_empty(), "nor is one kept");
}

#[test]
fn a_storm_of_orphans_below_pid_1_leaves_no_zombie_and_takes_no_exit_status() {
    let scene = Scene::new();
    let storm = "i=0\nwhile [ $i -lt 500 ]; do ( (exit 3) & (exit 4) & ) ; i=$((i+1)); done\nexit 7";
    let again = "restart = always\nrestart_delay = 1ms\nrestart_max_delay = 1ms\nrestart_limit = 100000";
    let file = [script("storm", "restart = never", storm), script("ends", again, "exit 5"), sleeper("stays", "")];
    let file = scene.write("lab.cfg", &file.concat());
    let http = scene.any_port();
    let mut lab = Daemon::start_all(&container(), &scene, "lab", &["lab", "--http", &http, file.to_str().unwrap()], "");
    let client = lab.client();
    let init = init_of(&lab);
    let failed = client.wait_for("storm", "FAILED");
    assert!(failed.reason.contains("status 7"), "{failed:?}");
    client.wait("the other dies all the while", |status| node(status, "ends").restarts > 5);
    let stays = pids(&client.status())["stays"];
    client.order("stop", &["ends"]);
    eventually("no zombie is left", || {
        let children = processes::children_of(init);
        children.iter().all(|pid| processes::is_alive(*pid)).then_some(())
    });
    let events = client.events();
    check_log(&events);
    let ends = changes(&events, "ends");
    let statuses: Vec<_> = ends.iter().filter(|it| it.new.as_deref() == Some("CRASHED")).map(|it| &it.exit).collect();
    assert!(!statuses.is_empty() && statuses.iter().all(|exit| **exit == statuses[0].clone()), "{statuses:?}");
    assert!(format!("{:?}", statuses[0]).contains('5'), "{statuses:?}");
    assert_eq!(pids(&client.status())["stays"], stays);
    assert!(fs::read_to_string(format!("/proc/{init}/status")).unwrap().contains("\t1\n"), "it is PID 1 in there");

    processes::signal(init, Signal::INT);
    assert_eq!(lab.ended().code(), Some(0));
    scene.check_that_nothing_runs();
}

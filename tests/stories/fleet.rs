//! Many machines: links that come and go, daemons that die and return, and nodes that notice none of it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use watchpost::web::json::{ConfigurationText, Status};

use crate::common::{Fleet, changes, check_log, eventually, node, path, pids, processes, sleeper, states};

/// As the scene's settings have it.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a peer may be silent before its link is given up.
const SILENCE: Duration = Duration::from_secs(3);

#[test]
fn agents_that_dial_and_agents_that_are_dialled_make_one_cluster() {
    let fleet = Fleet::with_nodes();
    let status = fleet.client.status();
    let links: Vec<_> = status.instances.iter().map(|i| (&*i.name, &*i.link, i.needed, i.port.is_some())).collect();
    assert_eq!(links, [("a", "UP", true, false), ("b", "UP", true, false), ("c", "UP", true, true)]);

    let before = pids(&status);
    for name in ["on-a", "on-c"] {
        processes::signal(before[name], Signal::KILL);
        fleet.client.wait(&format!("{name} runs again"), |status| {
            let node = node(status, name);
            node.state == "RUNNING" && node.pid != Some(before[name])
        });
        let events = fleet.client.events();
        check_log(&events);
        assert_eq!(path(&changes(&events, name)), "STOPPED PENDING RUNNING CRASHED PENDING RUNNING");
    }
    let after = pids(&fleet.client.status());
    assert_eq!([after["on-b"], after["also-b"]], [before["on-b"], before["also-b"]]);
}

#[test]
fn nodes_outlive_their_controller_and_it_takes_them_up_again() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.controller.kill();
    // What happens meanwhile is dealt with meanwhile, and told later.
    processes::signal(before["on-b"], Signal::KILL);
    eventually("the agent brings its node back alone", || {
        let now = fleet.scene.processes_of("on-b");
        (!now.is_empty() && !now.contains(&before["on-b"])).then_some(())
    });
    assert!(["on-a", "also-b", "on-c"].iter().all(|name| processes::is_alive(before[*name])));

    fleet.controller.start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    check_log(&fleet.client.events());
    for name in ["on-a", "also-b", "on-c"] {
        assert_eq!((pids(&after)[name], node(&after, name).restarts), (before[name], 0), "{name}");
    }
    assert_eq!(fleet.scene.processes_of("on-b"), [pids(&after)["on-b"]]);
    assert_eq!(node(&after, "on-b").restarts, 1);
    assert!(fleet.client.order("restart", &["on-c"]).ok, "it is obeyed as before");
}

#[test]
fn an_agent_that_is_killed_finds_its_nodes_again() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    for agent in ["b", "c"] {
        fleet.agent_mut(agent).kill();
        only_its_nodes_become_unknown(&fleet, agent);
        assert_eq!(fleet.client.run(&["status"]).code, 4, "part of the cluster is out of reach");
        let verdict = fleet.client.order("stop", &[&format!("on-{agent}")]);
        assert_eq!(verdict.outcomes[0].error.as_deref(), Some("its instance is not connected"), "{verdict:?}");

        fleet.agent_mut(agent).start_again();
        let after = fleet.client.wait_for_all("RUNNING");
        assert_eq!(pids(&after), before);
        assert!(after.nodes.iter().all(|node| node.restarts == 0), "{after:?}");
        let events = fleet.client.events();
        check_log(&events);
        let path = path(&changes(&events, &format!("on-{agent}")));
        assert_eq!(path, "STOPPED PENDING RUNNING UNKNOWN RUNNING");
    }
    // What it took up, it minds.
    processes::signal(before["on-b"], Signal::KILL);
    fleet.client.wait("on-b runs again", |status| pids(status).get("on-b").is_some_and(|pid| *pid != before["on-b"]));
}

#[test]
fn an_agent_that_falls_silent_is_missed_and_its_nodes_with_it() {
    let fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    for agent in ["a", "c"] {
        let since = Instant::now();
        fleet.agents[agent].signal(Signal::STOP);
        only_its_nodes_become_unknown(&fleet, agent);
        let silence = since.elapsed();
        // Its last heartbeat may be as old as the time between two.
        assert!(silence > SILENCE - HEARTBEAT, "given up after {silence:?}");
        assert!(silence < SILENCE * 3, "missed only after {silence:?}");

        fleet.agents[agent].signal(Signal::CONT);
        assert_eq!(pids(&fleet.client.wait_for_all("RUNNING")), before);
    }
    check_log(&fleet.client.events());
}

#[test]
fn etcd_14370_what_was_staged_and_what_was_deployed_survive_the_controller() {
    let mut fleet = Fleet::with_nodes();
    let text = fs::read_to_string(fleet.file(&["a"], &[sleeper("staged", "instance = a")])).unwrap();
    let body =
        serde_json::to_string(&ConfigurationText { file: "staged.cfg".into(), text, upon: None, bundles: Vec::new() })
            .unwrap();
    assert_eq!(fleet.client.http("POST", "/api/v1/configuration", &body).0, 200);
    let both = |fleet: &Fleet| {
        ["true", "false"]
            .map(|deployed| fleet.client.http("GET", &format!("/api/v1/configuration?deployed={deployed}"), ""))
    };
    let before = both(&fleet);
    assert!(before[0].1.contains("also-b") && before[1].1.contains("staged"), "{before:?}");

    fleet.controller.kill();
    fleet.controller.start_again();
    assert_eq!(both(&fleet), before);
    fleet.client.wait_for_all("RUNNING");
    let (code, verdict) = fleet.client.http("POST", "/api/v1/deploy", "");
    assert_eq!(code, 200, "{verdict}");
    let names: Vec<_> = fleet.client.status().nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["staged"], "what was staged before can be deployed after: {verdict}");
}

/// Waits until the nodes of this agent are UNKNOWN, and checks that all others run.
fn only_its_nodes_become_unknown(fleet: &Fleet, agent: &str) {
    let is_unknown = |status: &Status| {
        let mut its_own = status.nodes.iter().filter(|node| node.instance == agent);
        its_own.all(|node| node.state == "UNKNOWN")
    };
    let status = fleet.client.wait("the nodes of the lost agent are unknown", is_unknown);
    let others = status.nodes.iter().filter(|node| node.instance != agent);
    assert!(others.clone().count() > 0 && others.clone().all(|node| node.state == "RUNNING"), "{status:#?}");
}

#[test]
fn who_died_together_is_told_before_anybody_is_started_again() {
    let fleet = Fleet::start();
    let nodes: Vec<_> = (0..40).map(|number| sleeper(&format!("node-{number}"), "instance = b")).collect();
    fleet.client.deployed(&fleet.file(&["b"], &nodes));
    let before = pids(&fleet.client.wait_for_all("RUNNING"));
    let told = fleet.client.events().len();
    // While their agent cannot look, so that it finds all of them dead.
    fleet.agents["b"].signal(Signal::STOP);
    before.values().for_each(|pid| processes::signal(*pid, Signal::KILL));
    eventually("all are dead", || before.values().all(|pid| !processes::is_alive(*pid)).then_some(()));
    fleet.agents["b"].signal(Signal::CONT);
    fleet.client.wait("all run again", |status| {
        let now = pids(status);
        states(status).values().all(|state| *state == "RUNNING") && before.iter().all(|(name, pid)| now[name] != *pid)
    });
    let events = fleet.client.events();
    check_log(&events);
    let places = |state: &'static str| {
        let changes = events[told..].iter().enumerate();
        changes.filter(move |(_, event)| event.new.as_deref() == Some(state)).map(|(place, _)| place)
    };
    assert_eq!(places("CRASHED").count(), before.len());
    assert!(places("CRASHED").max() < places("PENDING").min(), "{:#?}", &events[told..]);
}

//! What a daemon finds when it returns: nodes that ran on, that died, that were stopped, that nobody wants any more.

use std::net::TcpListener;

use rustix::process::Signal;
use watchpost::bridge::LinkRole;
use watchpost::message::agent::{GetNodesRequest, NewsReceived, NotifySnapshot, ToController};
use watchpost::model::{NodeName, NodeState, NodeStatus, RequestId, Role, Timestamp};
use watchpost::web::json::Verdict;

use crate::common::{
    Daemon, Fleet, Lab, changes, check_log, epochs, eventually, node, path, pids, processes, script, sleeper, states,
};
use crate::peer::{Peer, Said, greeting, hello};

#[test]
fn what_was_stopped_stays_stopped_when_its_agent_returns() {
    let mut fleet = Fleet::with_nodes();
    assert!(fleet.client.order("stop", &["also-b"]).ok);
    let before = fleet.client.status();
    fleet.agent_mut("b").kill();
    fleet.client.wait_for("on-b", "UNKNOWN");
    fleet.agent_mut("b").start_again();
    fleet.client.wait_for("on-b", "RUNNING");
    // An order to the same agent is answered behind everything that its return brought about.
    assert!(fleet.client.order("start", &["on-b"]).ok);
    assert_eq!(states(&fleet.client.status()), states(&before));
    assert_eq!(fleet.scene.processes_of("also-b").len(), 0);
    assert!(fleet.client.order("start", &["also-b"]).ok, "until somebody asks");
    check_log(&fleet.client.events());
}

#[test]
fn what_died_while_its_agent_was_away_is_started_again() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.agent_mut("b").kill();
    processes::signal(before["on-b"], Signal::KILL);
    eventually("it is gone", || (!processes::is_alive(before["on-b"])).then_some(()));
    fleet.client.wait_for("on-b", "UNKNOWN");
    fleet.agent_mut("b").start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_ne!(pids(&after)["on-b"], before["on-b"]);
    assert_eq!(pids(&after)["also-b"], before["also-b"]);
    assert_eq!(fleet.scene.processes_of("on-b"), [pids(&after)["on-b"]]);
    let events = fleet.client.events();
    check_log(&events);
    let told = changes(&events, "on-b");
    assert_eq!(path(&told), "STOPPED PENDING RUNNING UNKNOWN CRASHED PENDING RUNNING");
    let death = told.iter().find(|change| change.new.as_deref() == Some("CRASHED")).unwrap();
    assert_eq!(death.pid, Some(before["on-b"]));
}

#[test]
fn what_died_while_its_agent_was_away_is_judged_by_its_policy() {
    let mut fleet = Fleet::start();
    let nodes = [("never", "never"), ("always", "always"), ("failure", "on-failure")];
    let nodes = nodes.map(|(name, mode)| sleeper(name, &format!("instance = a\nrestart = {mode}")));
    fleet.client.deployed(&fleet.file(&["a"], &nodes));
    let before = pids(&fleet.client.wait_for_all("RUNNING"));
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("always", "UNKNOWN");
    before.values().for_each(|pid| processes::signal(*pid, Signal::KILL));
    before.values().for_each(|pid| eventually("it is gone", || (!processes::is_alive(*pid)).then_some(())));
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for("always", "RUNNING");
    fleet.client.wait_for("failure", "RUNNING");
    let given_up = fleet.client.wait_for("never", "FAILED");
    assert!(given_up.restarts == 0 && given_up.pid.is_none(), "{given_up:?}");
    check_log(&fleet.client.events());
}

#[test]
fn what_an_agent_could_not_say_before_it_was_killed_is_said_when_it_returns() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.controller.kill();
    // It dies and comes back while nobody hears of it, and then the only one who knows is killed.
    processes::signal(before["on-b"], Signal::KILL);
    let second = eventually("the agent brings its node back alone", || {
        let now = fleet.scene.processes_of("on-b");
        now.first().copied().filter(|pid| now.len() == 1 && *pid != before["on-b"])
    });
    fleet.agent_mut("b").kill();
    fleet.controller.start_again();
    for name in ["on-a", "on-c"] {
        fleet.client.wait_for(name, "RUNNING");
    }
    fleet.agent_mut("b").start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&after)["on-b"], second);
    let events = fleet.client.events();
    check_log(&events);
    let told = changes(&events, "on-b");
    // That it was RUNNING may not have been on the controller's disk yet, and then it is told again.
    let path = path(&told).replace("UNKNOWN RUNNING CRASHED", "UNKNOWN CRASHED");
    // Killed in the instant of the launch, it had not told of that yet: then the snapshot says what is so.
    assert!(path.contains("UNKNOWN CRASHED PENDING") || path.ends_with("UNKNOWN CRASHED RUNNING"), "{told:#?}");
    let death = told.iter().find(|change| change.new.as_deref() == Some("CRASHED")).unwrap();
    assert_eq!(death.pid, Some(before["on-b"]));
    assert!(death.reason.as_deref().is_some_and(|reason| reason.contains("SIGKILL")), "{death:?}");
}

#[test]
fn what_was_dropped_while_its_agent_was_away_is_ended_when_it_returns() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    fleet.agent_mut("b").kill();
    fleet.client.wait_for("on-b", "UNKNOWN");
    let kept = ["a", "c"].map(|name| sleeper(&format!("on-{name}"), &format!("instance = {name}")));
    let file = fleet.file(&["a", "c"], &kept);
    let _told_of_b: Verdict = fleet.client.ask(&["deploy", "--without", "b", file.to_str().unwrap()]);
    let status = fleet.client.status();
    assert_eq!(states(&status), [("on-a", "RUNNING"), ("on-c", "RUNNING")].into());
    assert!(processes::is_alive(before["on-b"]), "nobody can reach it");

    fleet.agent_mut("b").start_again();
    eventually("its nodes are gone", || {
        (fleet.scene.processes_of("on-b").is_empty() && fleet.scene.processes_of("also-b").is_empty()).then_some(())
    });
    let status = fleet.client.wait("the cluster has what it should", |status| status.nodes.len() == 2);
    let b = status.instances.iter().find(|instance| instance.name == "b").unwrap();
    assert_eq!((b.needed, &*b.link), (false, "UP"));
    check_log(&fleet.client.events());
}

#[test]
fn daemons_of_a_fleet_that_are_asked_to_end_leave_the_nodes_alone() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    for name in ["a", "b", "c"] {
        fleet.agents[name].signal(Signal::TERM);
        assert_eq!(fleet.agent_mut(name).ended().code(), Some(0));
    }
    fleet.controller.signal(Signal::INT);
    assert_eq!(fleet.controller.ended().code(), Some(0));
    assert!(before.values().all(|pid| processes::is_alive(*pid)));

    fleet.controller.start_again();
    assert!(fleet.client.status().nodes.iter().all(|node| node.state == "UNKNOWN"), "nobody has told anything yet");
    ["a", "b", "c"].iter().for_each(|name| fleet.agent_mut(name).start_again());
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&after), before);
    let events = fleet.client.events();
    check_log(&events);
    assert_eq!(path(&changes(&events, "on-a")), "STOPPED PENDING RUNNING UNKNOWN RUNNING");
    assert_eq!(epochs(&events).len(), 1, "a controller that ended in order goes on with its log");
}

#[test]
fn an_agent_that_is_to_stop_its_nodes_does_and_starts_them_when_it_returns() {
    let mut fleet = Fleet::start();
    let controller = fleet.controller.addresses()["agents"].to_string();
    let args = ["agent", "--name", "d", "--connect", &controller];
    fleet.agents.insert("d", Daemon::start_with(&fleet.scene, "d", &args, "[agent]\non_exit = 'stop'\n"));
    let nodes = ["one", "two", "three"].map(|name| sleeper(name, "instance = d\nrestart = never"));
    fleet.client.deployed(&fleet.file(&["d"], &nodes));
    let before = pids(&fleet.client.wait_for_all("RUNNING"));
    assert!(fleet.client.order("stop", &["three"]).ok);

    fleet.agents["d"].signal(Signal::TERM);
    assert_eq!(fleet.agent_mut("d").ended().code(), Some(0));
    fleet.scene.check_that_nothing_runs();
    let events = fleet.client.events();
    let told = changes(&events, "one");
    assert_eq!(path(&told), "STOPPED PENDING RUNNING STOPPED UNKNOWN", "it was told before the agent was gone");

    fleet.agent_mut("d").start_again();
    let after = ["one", "two"].map(|name| fleet.client.wait_for(name, "RUNNING").pid);
    assert!(after.iter().all(|pid| pid.is_some_and(|pid| before.values().all(|former| *former != pid))));
    assert!(fleet.client.order("start", &["one"]).ok, "behind everything that its return brought about");
    assert_eq!(node(&fleet.client.status(), "three").state, "STOPPED", "somebody asked for that");
    let events = fleet.client.events();
    check_log(&events);
    // It is linked before it has launched it, or after.
    let told = path(&changes(&events, "one")).replace("UNKNOWN STOPPED PENDING", "UNKNOWN PENDING");
    assert_eq!(told, "STOPPED PENDING RUNNING STOPPED UNKNOWN PENDING RUNNING", "its agent did not find it dead");
    assert!(fleet.client.status().nodes.iter().all(|node| node.restarts == 0), "nobody died");
}

#[test]
fn whoever_starts_an_agent_may_say_that_its_nodes_end_with_it_whatever_the_settings_say() {
    let mut fleet = Fleet::start();
    let controller = fleet.controller.addresses()["agents"].to_string();
    let args = ["agent", "--name", "d", "--connect", &controller, "--stop-nodes"];
    fleet.agents.insert("d", Daemon::start_with(&fleet.scene, "d", &args, "[agent]\non_exit = 'keep'\n"));
    let nodes = [sleeper("of-d", "instance = d"), sleeper("of-a", "instance = a")];
    let before = pids(&fleet.client.deployed(&fleet.file(&["a", "d"], &nodes)));
    for name in ["a", "d"] {
        fleet.agents[name].signal(Signal::TERM);
        assert_eq!(fleet.agent_mut(name).ended().code(), Some(0));
    }
    assert_eq!((processes::is_alive(before["of-d"]), processes::is_alive(before["of-a"])), (false, true));
    // Killed, it can stop nobody.
    fleet.agent_mut("d").start_again();
    let again = fleet.client.wait_for("of-d", "RUNNING").pid.unwrap();
    fleet.agent_mut("d").kill();
    assert!(processes::is_alive(again));
}

#[test]
fn a_lab_that_was_killed_takes_its_nodes_up_again() {
    let nodes = sleeper("one", "") + &sleeper("two", "");
    let mut lab = Lab::start(Some(&nodes));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    lab.daemon.kill();
    assert!(before.values().all(|pid| processes::is_alive(*pid)));
    lab.daemon.start_again();
    let after = lab.client.wait_for_all("RUNNING");
    assert_eq!(pids(&after), before);
    assert_eq!(node(&after, "one").restarts, 0);
    check_log(&lab.client.events());

    lab.daemon.signal(Signal::TERM);
    assert_eq!(lab.daemon.ended().code(), Some(0));
    lab.scene.check_that_nothing_runs();
    lab.daemon.start_again();
    lab.client.wait_for_all("RUNNING");
}

#[test]
fn what_a_dead_node_left_behind_is_ended_by_the_agent_that_returns() {
    let mut fleet = Fleet::start();
    let text = "setsid sh -c \"while :; do sleep 0.2; done\" &\nwhile :; do sleep 0.2; done";
    let family = script("family", "instance = a\nrole = none", text);
    let before = pids(&fleet.client.deployed(&fleet.file(&["a"], &[family])))["family"];
    eventually("both loops run", || (fleet.scene.processes_of("family").len() >= 2).then_some(()));
    fleet.agent_mut("a").kill();
    let orphans = |fleet: &Fleet| {
        let all = fleet.scene.processes_of("family");
        all.into_iter().filter(|pid| *pid != before && processes::is_alive(*pid)).collect::<Vec<_>>()
    };
    processes::signal(before, Signal::KILL);
    eventually("the leader is gone", || (!processes::is_alive(before)).then_some(()));
    let left = orphans(&fleet);
    assert!(!left.is_empty(), "the other loop lives on");

    fleet.agent_mut("a").start_again();
    fleet.client.wait("it runs again", |status| pids(status).get("family").is_some_and(|pid| *pid != before));
    let loops = left.iter().filter(|pid| processes::is_alive(**pid)).count();
    assert_eq!(loops, 0, "what the former life left is gone before the next one runs");
    assert!(fleet.client.order("stop", &["family"]).ok);
    eventually("nothing is left of it", || fleet.scene.processes_of("family").is_empty().then_some(()));
}

#[test]
fn who_hid_while_the_agent_was_away_ends_with_its_node_by_the_control_group() {
    let mut fleet = Fleet::start();
    let hidden = fleet.scene.path("hidden");
    // A child of a child that is gone, in a session of its own, that carries no mark.
    let program = format!("echo $$ > {}; exec /bin/sleep 1000", hidden.display());
    let program = fleet.scene.write("hide.sh", &program);
    let hide = format!("env -i setsid /bin/sh {}", program.display());
    let text = format!("trap \"( {hide} & )\" USR1\necho ready\nwhile :; do sleep 0.1; done");
    let file = fleet.file(&["a"], &[script("parent", "instance = a\nrole = none", &text)]);
    let before = pids(&fleet.client.deployed(&file))["parent"];
    fleet.agents["a"].wait_until_says("parent", "ready");
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("parent", "UNKNOWN");
    processes::signal(before, Signal::USR1);
    let hidden = eventually("it hides", || {
        let said = fleet.scene.read("hidden");
        said.ends_with('\n').then(|| said.trim().parse::<u32>().unwrap())
    });

    fleet.agent_mut("a").start_again();
    assert_eq!(fleet.client.wait_for("parent", "RUNNING").pid, Some(before));
    assert!(processes::is_alive(hidden));
    assert!(fleet.client.order("stop", &["parent"]).ok);
    if fleet.agents["a"].log().contains("nodes have no control groups") {
        assert!(processes::is_alive(hidden), "nobody could know it");
        processes::signal(hidden, Signal::KILL);
    }
    assert!(!processes::is_alive(hidden));
}

#[test]
fn an_agent_that_returns_under_another_name_minds_what_it_finds() {
    let mut fleet = Fleet::start();
    let before = pids(&fleet.client.deployed(&fleet.file(&["a"], &[sleeper("one", "instance = a")])));
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("one", "UNKNOWN");
    // The same state directory, as after a change of the host's name.
    let _renamed = fleet.agent("a", "z");
    let file = fleet.file(&["z"], &[sleeper("one", "instance = z")]);
    let _told_of_a: Verdict = fleet.client.ask(&["deploy", "--without", "a", file.to_str().unwrap()]);
    let status = fleet.client.wait_for_all("RUNNING");
    eventually("it runs once", || (fleet.scene.processes_of("one") == [pids(&status)["one"]]).then_some(()));
    assert_ne!(pids(&status)["one"], before["one"], "its definition names another instance");
    check_log(&fleet.client.events());
}

#[test]
fn a_controller_that_restarts_is_right_again_after_one_frame_of_each_agent() {
    let mut fleet = Fleet::with_nodes();
    let running = pids(&fleet.client.status());
    for name in ["a", "b", "c"] {
        fleet.agents[name].signal(Signal::TERM);
        fleet.agent_mut(name).ended();
    }
    fleet.controller.kill();
    fleet.controller.start_again();
    assert!(fleet.client.status().nodes.iter().all(|node| node.state == "UNKNOWN"), "nobody has told anything yet");

    // In the place of the agent of `b` somebody who says hello, and one frame.
    let mut agent = Peer::connect(fleet.controller.addresses()["agents"]);
    agent.greet(greeting(LinkRole::Agent, "b", fleet.scene.cluster()));
    let received = agent.hello("b");
    let status = |name: &str| NodeStatus {
        node: NodeName::new(name).unwrap(),
        instance: hello("b").instance,
        role: Role::None,
        state: NodeState::Running,
        pid: Some(running[name]),
        port: None,
        metrics_port: None,
        restarts: 7,
        since: Timestamp(1),
        reason: "ready".into(),
        says: "".into(),
        netstats: None,
    };
    let nodes = ["also-b", "on-b"].map(status).into();
    agent.say(NotifySnapshot { epoch: received.epoch, seq: received.seq, configuration: None, nodes });
    let after = fleet.client.wait("what it said is known", |status| node(status, "on-b").state == "RUNNING");
    for (name, state) in [("on-a", "UNKNOWN"), ("on-b", "RUNNING"), ("also-b", "RUNNING"), ("on-c", "UNKNOWN")] {
        assert_eq!(node(&after, name).state, state, "{name}");
    }
    assert_eq!((node(&after, "also-b").pid, node(&after, "also-b").restarts), (Some(running["also-b"]), 7));
}

#[test]
fn an_agent_that_has_nothing_new_to_tell_says_hello_and_one_frame_on_a_new_link() {
    let mut fleet = Fleet::with_nodes();
    let running = pids(&fleet.client.status());
    let address = fleet.controller.addresses()["agents"];
    fleet.agent_mut("a").signal(Signal::TERM); // so that only one of them dials
    fleet.agent_mut("a").ended();
    fleet.controller.kill();
    let socket = TcpListener::bind(address).unwrap();
    let greeted = || {
        let mut controller = Peer::accept(&socket);
        controller.greet(greeting(LinkRole::Controller, "control", fleet.scene.cluster()));
        match controller.next() {
            Said::ToController(ToController::NotifyAgentHello(hello)) => (controller, hello.epoch),
            other => panic!("{other:?} in place of a hello"),
        }
    };
    // What the controller may not have acknowledged comes first, and how far that went the snapshot says.
    let (mut controller, epoch) = greeted();
    controller.order(NewsReceived { epoch, seq: 0, kept: 0 });
    let seq = controller.hear(|said| match said {
        Said::ToController(ToController::NotifySnapshot(snapshot)) => Some(snapshot.seq),
        _ => None,
    });
    controller.order(NewsReceived { epoch, seq, kept: seq });
    drop(controller);

    let (mut controller, epoch) = greeted();
    controller.order(NewsReceived { epoch, seq, kept: seq });
    let Said::ToController(ToController::NotifySnapshot(snapshot)) = controller.next() else { panic!("no snapshot") };
    let told = snapshot.nodes.iter().map(|status| (status.node.to_string(), status.pid, status.state));
    let want = ["also-b", "on-b"].map(|name| (name.to_owned(), Some(running[name]), NodeState::Running));
    assert_eq!((snapshot.seq, told.collect::<Vec<_>>()), (seq, want.to_vec()));
    controller.order(GetNodesRequest { reqid: RequestId::new("nodes").unwrap() });
    let next = controller.next();
    assert!(matches!(next, Said::ToController(ToController::GetNodesResponse(_))), "{next:?} without being asked");
}

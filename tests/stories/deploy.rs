//! One configuration after another: what is the same stays, the rest changes in order.

use rustix::process::Signal;

use crate::common::{Fleet, Lab, Scene, changes, check_log, node, path, pids, processes, script, sleeper, states};

#[test]
fn a_deployment_touches_only_what_differs() {
    let nodes = |keys: &str, more: &str| sleeper("same", "") + &sleeper("changed", keys) + more;
    let lab = Lab::start(Some(&nodes("", &sleeper("dropped", ""))));
    let before = pids(&lab.client.wait_for_all("RUNNING"));

    let status = lab.deploy(&nodes("env = COLOUR=blue", &sleeper("added", "")));
    assert_eq!(states(&status), [("added", "RUNNING"), ("changed", "RUNNING"), ("same", "RUNNING")].into());
    let after = pids(&status);
    assert_eq!(after["same"], before["same"]);
    assert_ne!(after["changed"], before["changed"]);
    assert_eq!(lab.scene.processes_of("dropped").len(), 0);
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", after["changed"])).unwrap();
    assert!(environment.split('\0').any(|variable| variable == "COLOUR=blue"), "{environment:?}");

    let events = lab.client.events();
    check_log(&events);
    let dropped = changes(&events, "dropped");
    assert_eq!((path(&dropped), dropped.last().unwrap().removed), ("STOPPED PENDING RUNNING STOPPED".into(), true));
    assert_eq!(path(&changes(&events, "changed")), "STOPPED PENDING RUNNING STOPPED PENDING RUNNING");
    assert_eq!(path(&changes(&events, "same")), "STOPPED PENDING RUNNING");
}

#[test]
fn the_same_deployed_twice_changes_nothing() {
    let fleet = Fleet::with_nodes();
    let (file, before) = (fleet.scene.path("fleet.cfg"), fleet.client.status());
    let changes = |fleet: &Fleet| fleet.client.events().iter().filter(|event| event.kind == "change").count();
    let told = changes(&fleet);
    let after = fleet.client.deployed(&file);
    assert_eq!(after.nodes, before.nodes);
    assert_eq!(changes(&fleet), told);
    assert_ne!(after.configuration, before.configuration, "it is a configuration of its own all the same");
}

#[test]
fn an_instance_that_is_dropped_stands_by_and_can_come_back() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    let kept = ["a", "c"].map(|name| sleeper(&format!("on-{name}"), &format!("instance = {name}")));
    fleet.client.deployed(&fleet.file(&["a", "c"], &kept));
    let status = fleet.client.wait("the nodes of b are gone", |status| status.nodes.len() == 2);
    assert_eq!(pids(&status), before.clone().into_iter().filter(|(name, _)| kept_names(name)).collect());
    assert_eq!((fleet.scene.processes_of("on-b").len(), fleet.scene.processes_of("also-b").len()), (0, 0));
    let b = status.instances.iter().find(|instance| instance.name == "b").unwrap();
    assert_eq!((b.needed, &*b.link), (false, "UP"));

    // One instance more than there ever was, and the one that stood by.
    fleet.add("d");
    let back = ["b", "d"].map(|name| sleeper(&format!("new-{name}"), &format!("instance = {name}")));
    let status = fleet.client.deployed(&fleet.file(&["a", "b", "c", "d"], &[kept, back].concat()));
    assert_eq!(states(&status).keys().copied().collect::<Vec<_>>(), ["new-b", "new-d", "on-a", "on-c"]);
    assert!(status.nodes.iter().all(|node| node.state == "RUNNING"), "{status:#?}");
    assert_eq!(["on-a", "on-c"].map(|name| pids(&status)[name]), ["on-a", "on-c"].map(|name| before[name]));
    check_log(&fleet.client.events());
}

fn kept_names(name: &str) -> bool {
    ["on-a", "on-c"].contains(&name)
}

#[test]
fn a_node_that_moves_never_runs_twice() {
    let fleet = Fleet::start();
    // Whoever finds the other's directory runs beside it; giving it up takes a while.
    let [mine, twice] = ["mine", "twice"].map(|name| fleet.scene.path(name).display().to_string());
    let text = format!(
        "mkdir {mine} || echo twice >> {twice}\n\
         trap \"sleep 0.3; rmdir {mine}; exit 0\" TERM\n\
         echo set\n\
         while :; do sleep 0.05; done"
    );
    let instances = ["a", "b", "c"];
    let keeper = |name: &str| sleeper(&format!("keeper-{name}"), &format!("instance = {name}"));
    let cluster = |place: &str| {
        let mover = script("mover", &format!("instance = {place}"), &text);
        fleet.file(&instances, &[instances.map(keeper).concat(), mover])
    };
    let first = fleet.client.deployed(&cluster("a"));
    fleet.agents["a"].wait_until_says("mover", "set");
    for place in ["b", "c", "a"] {
        let status = fleet.client.deployed(&cluster(place));
        let mover = node(&status, "mover");
        assert_eq!((&*mover.instance, &*mover.state), (place, "RUNNING"));
        fleet.agents[place].wait_until_says("mover", "set");
        let stayed = instances.map(|name| pids(&status)[&format!("keeper-{name}")]);
        assert_eq!(stayed, instances.map(|name| pids(&first)[&format!("keeper-{name}")]));
    }
    assert_eq!(fleet.scene.read("twice"), "");
    check_log(&fleet.client.events());
}

#[test]
fn roles_start_in_order_and_stop_in_reverse() {
    let scene = Scene::new();
    let order = scene.path("order").display().to_string();
    let says = |name: &str, role: &str| {
        let text = format!("trap \"echo {role} >> {order}; exit 0\" TERM\necho set\nwhile :; do sleep 0.05; done");
        script(name, &format!("role = {role}"), &text)
    };
    // Named against the order, so that names alone would give another one.
    let nodes = [("a", "none"), ("b", "worker"), ("c", "worker"), ("d", "proxy"), ("e", "manager"), ("f", "logger")];
    let text = nodes.map(|(name, role)| says(name, role)).concat();
    let mut lab = Lab::start_in(scene, Some(&text));
    let stopped = "none\nworker\nworker\nproxy\nmanager\nlogger\n";
    for round in 1..=2 {
        let mut nodes = lab.client.wait_for_all("RUNNING").nodes;
        nodes.iter().for_each(|node| lab.daemon.wait_until_says(&node.name, "set"));
        nodes.sort_by_key(|node| processes::started(node.pid.unwrap()));
        let roles: Vec<_> = nodes.iter().map(|node| &*node.role).collect();
        assert_eq!(roles, ["logger", "manager", "proxy", "worker", "worker", "none"]);
        match round {
            1 => assert!(lab.client.order("restart", &[]).ok),
            _ => lab.daemon.signal(Signal::TERM),
        }
    }
    assert_eq!(lab.daemon.ended().code(), Some(0));
    assert_eq!(lab.scene.read("order"), stopped.repeat(2));
}

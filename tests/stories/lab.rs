//! One machine, one process: the first thing that anybody tries.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use rustix::process::Signal;
use watchpost::state_dir::StateDir;
use watchpost::web::history::Past;

use crate::common::{
    Client, Daemon, Lab, Scene, changes, check_log, deaf, eventually, node, path, pids, processes, script, sleeper,
};
use crate::terminal::Terminal;

#[test]
fn the_built_in_example_runs_and_a_node_that_is_killed_comes_back() {
    let lab = Lab::start(None);
    let before = lab.client.wait_for_all("RUNNING");
    let names: Vec<_> = before.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["logger", "manager", "proxy", "worker-1", "worker-2"]);
    let killed = pids(&before)["worker-1"];
    assert!(lab.scene.processes_of("worker-1").contains(&killed));

    processes::signal(killed, Signal::KILL);
    let after = lab.client.wait("worker-1 runs again", |status| {
        let worker = node(status, "worker-1");
        worker.state == "RUNNING" && worker.pid != Some(killed)
    });
    let events = lab.client.events();
    check_log(&events);
    let changes = changes(&events, "worker-1");
    assert_eq!(path(&changes), "STOPPED PENDING RUNNING CRASHED PENDING RUNNING");
    assert_eq!((changes[2].pid, changes[2].exit.as_ref().unwrap().signal), (Some(killed), Some(9)));
    let reborn = pids(&after)["worker-1"];
    assert_eq!((changes[3].pid, changes[4].pid), (Some(reborn), Some(reborn)));
    assert!(!processes::is_alive(killed) && lab.scene.processes_of("worker-1").contains(&reborn));

    let others = |status| {
        let mut pids = pids(status);
        pids.remove("worker-1");
        pids
    };
    assert_eq!(others(&after), others(&before), "nobody else was touched");
    assert_eq!((node(&after, "worker-1").restarts, node(&after, "worker-2").restarts), (1, 0));
    assert_eq!(lab.client.run(&["status", "--check"]).code, 0);

    // One descriptor hears of children that end; a thread that took the signal would do so in the middle of a launch.
    assert!(processes::blocked(lab.daemon.pid()).iter().all(|blocked| blocked >> 16 & 1 == 1), "SIGCHLD");
    assert_eq!(processes::blocked(reborn), [0], "nodes begin with no signal held back");
}

#[test]
fn a_lab_that_is_asked_to_end_leaves_no_process_behind() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut lab = Lab::start(Some(&family()));
        lab.daemon.wait_until_says("parent", "deaf");
        lab.daemon.signal(signal);
        assert_eq!(lab.daemon.ended().code(), Some(0), "{signal:?}: {}", lab.daemon.log());
        lab.scene.check_that_nothing_runs();
    }
}

#[test]
fn a_lab_that_was_started_with_signals_held_back_ends_when_it_is_asked_to() {
    let hold_back = "import os, signal, sys\n\
                     signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD])\n\
                     os.execv(sys.argv[1], sys.argv[1:])";
    let scene = Scene::new();
    let (file, http) = (scene.write("lab.cfg", &sleeper("alone", "")), scene.any_port());
    let lab = ["lab", file.to_str().unwrap(), "--http", &http];
    let mut lab = Daemon::start_through(&["python3", "-c", hold_back], &scene, "lab", &lab);
    let status = lab.client().wait_for_all("RUNNING");
    assert_eq!(processes::blocked(pids(&status)["alone"]), [0], "nodes begin with no signal held back");
    lab.signal(Signal::TERM);
    assert_eq!(lab.ended().code(), Some(0), "{}", lab.log());
    scene.check_that_nothing_runs();
}

/// A node alone, and one with children, one of which ignores SIGTERM.
fn family() -> String {
    sleeper("alone", "")
        + &script("parent", "", "(trap \"\" TERM; echo deaf; while :; do sleep 0.1; done) &\nexec sleep 1000")
}

#[test]
fn a_state_directory_that_is_taken_away_is_missed_once_and_at_once() {
    let mut lab = Lab::start(Some(&sleeper("alone", "")));
    lab.client.wait_for_all("RUNNING");
    let missed = || lab.daemon.log().matches("is gone: what is to survive").count();
    assert_eq!(missed(), 0);
    std::fs::remove_dir_all(lab.daemon.state_dir()).unwrap();
    eventually("the lab misses its state directory", || (missed() > 0).then_some(()));
    lab.daemon.signal(Signal::TERM);
    lab.daemon.ended();
    assert_eq!(lab.daemon.log().matches("is gone: what is to survive").count(), 1);
    lab.scene.check_that_nothing_runs();
}

#[test]
fn a_second_signal_hurries_a_node_that_takes_its_time() {
    let node = script(
        "slow",
        "stop_grace = 10m",
        "trap \"echo asked >> ../../../../asked\" TERM\necho set\nwhile :; do sleep 0.1; done",
    );
    let mut lab = Lab::start(Some(&node));
    lab.daemon.wait_until_says("slow", "set");
    lab.daemon.signal(Signal::TERM);
    eventually("the node is asked to end", || (lab.scene.read("asked") == "asked\n").then_some(()));
    assert!(lab.daemon.is_alive(), "the lab waits for its node");
    lab.daemon.signal(Signal::TERM);
    assert_eq!(lab.daemon.ended().code(), Some(0));
    lab.scene.check_that_nothing_runs();
}

#[test]
fn a_lab_on_a_terminal_shows_its_nodes_live_and_a_second_ctrl_c_hurries() {
    let scene = Scene::new();
    let slow = script(
        "slow",
        "stop_grace = 10m",
        "trap \"echo asked >> ../../../../asked\" TERM\necho yes > ../../../../set\nwhile :; do sleep 0.1; done",
    );
    let (file, settings) = (scene.write("lab.cfg", &(slow + &sleeper("quick", ""))), scene.settings());
    let words = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (file, settings, state) = (words(&file), words(&settings), words(&scene.path("lab")));
    let args = ["lab", &file, "--config", &settings, "--state-dir", &state, "--http", &scene.any_port()];
    let mut terminal = Terminal::run(&scene.watchpost(&args), 80);
    terminal.wait_for("2 RUNNING");
    // Not before the picture is whole: of what is still to be shown a terminal forgets the rest at Ctrl-C.
    terminal.wait_for_raw("\x1b[32mRUNNING");
    assert!(terminal.raw().contains("\x1b[H"), "it is drawn in place: {:?}", terminal.raw());
    eventually("the node has its trap", || (scene.read("set") == "yes\n").then_some(()));

    terminal.press_ctrl_c();
    eventually("the node is asked to end", || (scene.read("asked") == "asked\n").then_some(()));
    terminal.wait_for("1 STOPPED");
    assert!(!scene.processes_of("slow").is_empty(), "the lab waits for its node");
    terminal.press_ctrl_c();
    assert_eq!(terminal.ended(), 0, "{}", terminal.text());
    assert!(terminal.words().ends_with("every node is stopped"), "{}", terminal.text());
    assert_eq!(scene.read("asked"), "asked\n", "what is pressed there is not the nodes' to hear");
    scene.check_that_nothing_runs();
}

#[test]
fn a_second_lab_in_the_same_directory_is_refused_and_harms_nobody() {
    let lab = Lab::start(Some(&(sleeper("one", "") + &deaf("two", "stop_grace = 100ms"))));
    let before = lab.client.wait_for_all("RUNNING");
    let state_dir = lab.daemon.state_dir();
    let addresses = std::fs::read(state_dir.join("addresses.json")).unwrap();
    let http = lab.scene.any_port();
    let mut second = lab.scene.watchpost(&["lab", "--http", &http, "--state-dir"]);
    let refused = second.arg(&state_dir).output().unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("is in use by process {}", lab.daemon.pid())), "{stderr}");
    assert_eq!(lab.client.status().nodes, before.nodes);
    assert_eq!(std::fs::read(state_dir.join("addresses.json")).unwrap(), addresses);
}

#[test]
fn a_lab_keeps_its_token_from_others_and_says_where_it_listens() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    lab.client.wait_for("one", "RUNNING");
    let state_dir = lab.daemon.state_dir();
    let mode = |name: &str| std::fs::metadata(state_dir.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("token")), (0o711, 0o600));
    let http = lab.daemon.addresses()["http"];
    assert_ne!(http.port(), 0);
    let out = lab.scene.read("lab.out");
    assert!(out.contains(&format!("listening for http on {http}\n")), "{out}");
    let hint =
        format!("try: watchpost status --controller http://{http} --token-file {}", state_dir.join("token").display());
    assert!(out.contains(&hint), "{out}");

    let mut stranger = lab.scene.watchpost(&["status", "--controller", &format!("http://{http}")]);
    assert_eq!(stranger.output().unwrap().status.code(), Some(5), "nobody without the token is let in");
}

#[test]
fn a_daemon_says_where_it_listens_as_one_object_if_that_is_wanted() {
    let scene = Scene::new();
    let (any, settings) = (scene.any_port(), scene.settings());
    let file = scene.write("one.cfg", &sleeper("one", ""));
    for (args, purposes) in [
        (&["lab", file.to_str().unwrap(), "--http", &any][..], &["http"][..]),
        (&["controller", "--listen", &any, "--http", &any], &["agents", "http"]),
        (&["agent", "--listen", &any], &["controller"]),
    ] {
        let state_dir = scene.path(args[0]);
        let mut command = scene.watchpost(args);
        command.args(["--json", "--config", settings.to_str().unwrap(), "--state-dir", state_dir.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: serde_json::Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
        let listening = std::fs::read_to_string(state_dir.join("addresses.json")).unwrap();
        assert_eq!(said["listening"], serde_json::from_str::<serde_json::Value>(&listening).unwrap());
        assert_eq!(said["listening"].as_object().unwrap().keys().collect::<Vec<_>>(), purposes);
        assert_eq!((said["daemon"].as_str(), said["state_dir"].as_str()), (Some(args[0]), state_dir.to_str()));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(out.next().is_none(), "and nothing else");
    }
    scene.check_that_nothing_runs();
}

#[test]
fn whoever_deploys_while_a_lab_starts_comes_behind_its_own_file() {
    let scene = Scene::new();
    let other = scene.write("other.cfg", &sleeper("other", ""));
    let home = scene.path("");
    let racing = std::thread::spawn(move || {
        let state_dir = home.join("lab");
        let client = eventually("it listens", || {
            let http = *StateDir::addresses_in(&state_dir).ok()?.get("http")?;
            state_dir.join("token").exists().then(|| Client::new(&home, http, &state_dir))
        });
        client.run(&["deploy", other.to_str().unwrap()])
    });
    let lab = Lab::start_in(scene, Some(&sleeper("own", "")));
    let answer = racing.join().unwrap();
    let is_told = answer.stdout.contains("deployment 1 is under way") || answer.stdout.starts_with("deployed ");
    assert!(is_told, "{answer:?}");
    let first: Past = eventually("the lab has deployed its own", || {
        let past: Past = lab.client.ask(&["history", "show", "1"]);
        past.ended.is_some().then_some(past)
    });
    assert_eq!((&*first.verdict, first.results[0].node.as_deref()), ("deployed", Some("own")));
    assert!(lab.daemon.is_alive(), "{}", lab.daemon.log());
}

#[test]
fn two_labs_of_one_name_leave_each_others_nodes_alone() {
    let mut one = Lab::start(Some(&sleeper("twin", "")));
    let scene_of_both = one.scene.cluster().to_owned();
    let first = one.client.wait_for("twin", "RUNNING").pid.unwrap();
    let file = one.scene.write("second.cfg", &sleeper("twin", ""));
    let second = Daemon::start(&one.scene, "second", &["lab", file.to_str().unwrap(), "--http", &one.scene.any_port()]);
    let client = eventually("the second listens", || {
        second.state_dir().join("addresses.json").exists().then(|| second.client())
    });
    let other = client.wait_for("twin", "RUNNING").pid.unwrap();
    assert_eq!(one.scene.processes_of("twin").len(), 2, "both belong to {scene_of_both}");

    // What sweeps the most: an agent that took its node up again, and stops it.
    one.daemon.kill();
    one.daemon.start_again();
    let back = eventually("the first is back", || {
        one.daemon.state_dir().join("addresses.json").exists().then(|| one.daemon.client())
    });
    assert_eq!(back.wait_for("twin", "RUNNING").pid, Some(first));
    assert!(back.order("stop", &["twin"]).ok);
    assert!(!processes::is_alive(first));
    assert!(processes::is_alive(other), "the other lab's node is none of its business");
    assert_eq!(client.wait_for("twin", "RUNNING").pid, Some(other));
}

#[test]
fn a_lab_of_two_instances_keeps_their_records_apart_and_ends_both() {
    let instances = "[instances]\nx\ny\n";
    let on = |instance: &str| format!("{instances}{}", sleeper("mover", &format!("instance = {instance}")));
    let mut lab = Lab::start(Some(&on("x")));
    lab.client.wait_for("mover", "RUNNING");
    for instance in ["y", "x", "y"] {
        let status = lab.deploy(&on(instance));
        let pid = pids(&status)["mover"];
        assert_eq!(lab.scene.processes_of("mover"), [pid]);
        let records = |of: &str| lab.daemon.state_dir().join("nodes").join(of).join("mover").join("record").exists();
        let other = if instance == "x" { "y" } else { "x" };
        eventually("the record moved with it", || (records(instance) && !records(other)).then_some(()));
    }
    lab.daemon.signal(Signal::TERM);
    assert_eq!(lab.daemon.ended().code(), Some(0));
    lab.scene.check_that_nothing_runs();
}

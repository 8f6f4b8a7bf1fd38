//! How nodes say that they are ready and that they live, and what becomes of those that do not.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{
    Daemon, Fleet, Lab, Scene, changes, check_log, eventually, node, path, pids, processes, script, sleeper, states,
};

/// What a script of [`script`] runs to send a datagram, and to wait until a file of the scene is there.
const TOOLS: &str = "say() { systemd-notify \"$@\" || true; }\n\
                     until_there() { while [ ! -e ../../../../$1 ]; do sleep 0.02; done; }\n";

#[test]
fn a_node_is_ready_once_it_says_so_and_its_status_is_shown() {
    let text =
        "say --status=\"Warming up\"\nuntil_there go\nsay --ready --status=\"Processing 100% of it\"\nexec sleep 1000";
    let lab = Lab::start(Some(&speaker("talks", "", text)));
    let waits = lab
        .client
        .wait("it says something", |status| node_in(status, "talks").is_some_and(|node| node.says == "Warming up"));
    assert_eq!(node(&waits, "talks").state, "PENDING", "whatever it says but the one thing");
    lab.scene.write("go", "");
    let runs = lab.client.wait("it is ready, and says something else", |status| {
        let node = node(status, "talks");
        node.state == "RUNNING" && node.says == "Processing 100% of it"
    });
    assert_eq!(node(&runs, "talks").pid, node(&waits, "talks").pid);
    let shown = lab.client.run(&["status"]).stdout;
    assert!(shown.contains("ready; says: Processing 100% of it"), "{shown}");

    // What a process said of itself goes with it.
    std::fs::remove_file(lab.scene.path("go")).unwrap();
    processes::signal(node(&runs, "talks").pid.unwrap(), Signal::KILL);
    let again = lab.client.wait("it is there again", |status| {
        let node = node(status, "talks");
        node.restarts == 1 && node.state == "PENDING" && node.says != "Processing 100% of it"
    });
    assert_ne!(node(&again, "talks").pid, node(&runs, "talks").pid);
    check_log(&lab.client.events());
}

#[test]
fn a_node_that_never_gets_ready_is_given_up_and_the_reason_says_what_was_missed() {
    let keys = "ready_within = 300ms\nrestart_limit = 1\nrestart_delay = 10ms";
    let nobody_listens = Scene::new();
    let port = TcpListener::bind(nobody_listens.any_port()).unwrap().local_addr().unwrap();
    let file = sleeper("mute", keys).replace("settle 50ms", "notify")
        + &sleeper("closed", keys).replace("settle 50ms", &format!("tcp {port}"));
    let lab = Lab::start(Some(&file));
    for (name, want) in [
        ("mute", "not ready within 300ms: it did not say READY=1; killed by signal 15 (SIGTERM)".to_owned()),
        ("closed", format!("not ready within 300ms: nothing accepts at {port} ({port}: Connection refused")),
    ] {
        let given_up = lab.client.wait_for(name, "FAILED");
        assert!(given_up.reason.contains(&want), "{given_up:?}");
        assert!(lab.scene.processes_of(name).is_empty());
    }
    let events = lab.client.events();
    check_log(&events);
    let told = events.iter().filter(|event| event.kind == "error" && event.node.as_deref() == Some("mute"));
    let told: Vec<_> = told.filter_map(|event| event.msg.as_deref()).collect();
    assert!(told.len() == 2 && told[0].contains("is ended: not ready within 300ms"), "{told:?}");
    assert_eq!(path(&changes(&events, "mute")), "STOPPED PENDING CRASHED PENDING FAILED");
}

#[test]
fn a_stranger_who_writes_to_the_socket_of_a_node_is_told_of_once_and_not_believed() {
    let lab = Lab::start(Some(&sleeper("quiet", "ready_within = 1h").replace("settle 50ms", "notify")));
    let quiet =
        lab.client.wait("it has a process", |status| node_in(status, "quiet").is_some_and(|node| node.pid.is_some()));
    let socket = socket_of(node(&quiet, "quiet").pid.unwrap());
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    for _ in 0..300 {
        stranger.send_to(b"READY=1\nSTATUS=believe me", &socket).unwrap();
    }
    eventually("it is told of", || lab.daemon.log().contains("is none of its processes").then_some(()));
    // Behind everything that was sent: what the node itself says.
    let marker = variable(node(&quiet, "quiet").pid.unwrap(), "WATCHPOST_NODE").unwrap();
    // For root it speaks in the name of the process that started it, so that has to be the node's.
    let one_of_its_own = std::process::Command::new("sh")
        .args(["-c", "systemd-notify --status='I am quiet'; exit"])
        .envs([("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHPOST_NODE", &marker)])
        .status();
    assert!(one_of_its_own.unwrap().success());
    let status = lab.client.wait("it is heard", |status| node(status, "quiet").says == "I am quiet");
    assert_eq!(node(&status, "quiet").state, "PENDING");
    assert_eq!(lab.daemon.log().matches("is none of its processes").count(), 1);
}

#[test]
fn a_node_that_runs_as_another_user_is_heard_and_so_is_whoever_it_starts() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return; // nobody else can become another user
    }
    let scene = Scene::new();
    let passable = std::fs::Permissions::from_mode(0o711);
    let run = tempfile::Builder::new().prefix("watchpost-run-").permissions(passable).tempdir().unwrap();
    let run_dir = format!("WATCHPOST_AGENT_RUN_DIR={}", run.path().join("run").display());
    let node = speaker("other", "user = nobody", "say --ready --status=\"I am $(id -un)\"\nexec sleep 1000");
    let file = scene.write("lab.cfg", &node);
    let http = scene.any_port();
    let daemon =
        Daemon::start_through(&["env", &run_dir], &scene, "lab", &["lab", file.to_str().unwrap(), "--http", &http]);
    // It is the child of the node that speaks, in its own name: only root could speak in another's.
    let client = daemon.client();
    client.wait("it is heard", |status| {
        node_in(status, "other").is_some_and(|node| node.state == "RUNNING" && node.says == "I am nobody")
    });
}

#[test]
fn a_node_that_says_whatever_comes_to_mind_harms_nobody() {
    let babbler = in_rust("babbler", "", "the_program_of_a_node_that_babbles");
    let lab = Lab::start(Some(&(babbler + &sleeper("other", ""))));
    let status = lab.client.wait("it came to an end of it", |status| {
        node_in(status, "babbler").is_some_and(|node| node.state == "RUNNING" && node.says == "that was all")
    });
    assert_eq!((node(&status, "babbler").restarts, node(&status, "other").restarts), (0, 0));
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", lab.daemon.pid())).unwrap().count();
    assert!(descriptors < 200, "what was sent along was closed: {descriptors} are open");
    check_log(&lab.client.events());
}

/// What `babbler` runs: no test.
#[test]
#[ignore = "it is the program of a node"]
fn the_program_of_a_node_that_babbles() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return };
    let to = UnixDatagram::unbound().unwrap();
    to.connect(&socket).unwrap();
    let mut number = 0x9e37_79b9_u32;
    for length in (0..600).map(|at| at * 13 % 5000) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 24) as u8
            })
            .collect();
        to.send(&bytes).unwrap();
    }
    for text in ["", "\n\n", "=", "STATUS=\u{1b}[2J\u{7}", "READY=11", "MAINPID=1", "WATCHDOG_USEC=1", "FDSTORE=1"] {
        to.send(text.as_bytes()).unwrap();
    }
    to.send(b"READY=1").unwrap();
    for number in 0..500 {
        to.send(format!("STATUS={number}").as_bytes()).unwrap();
    }
    to.send(b"STATUS=that was all").unwrap();
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn what_a_node_says_after_its_agent_was_killed_is_heard_by_the_next_at_the_same_place() {
    let scene = Scene::new();
    let words = format!("WORDS={}", scene.path("words").display());
    let file = lively("talks", &format!("watchdog = 2s\nenv = UNTIL=/nowhere/at/all {words}"));
    let mut lab = Lab::start_in(scene, Some(&file));
    lab.scene.write("words", "first");
    let before =
        lab.client.wait("it speaks", |status| node_in(status, "talks").is_some_and(|node| node.says == "first"));
    let pid = node(&before, "talks").pid.unwrap();
    let socket = socket_of(pid);
    lab.daemon.kill();
    lab.scene.write("words", "second");
    // Longer than its watchdog allows: what was silent while nobody listened is not held against it.
    std::thread::sleep(Duration::from_millis(2500));
    lab.daemon.start_again();
    let client = lab.daemon.client();
    let after =
        client.wait("it is heard again", |status| node_in(status, "talks").is_some_and(|node| node.says == "second"));
    assert_eq!((node(&after, "talks").pid, node(&after, "talks").restarts), (Some(pid), 0));
    assert_eq!(socket_of(pid), socket);
    // And the next watchdog is missed.
    processes::signal(pid, Signal::STOP);
    client.wait("it is started again", |status| {
        node(status, "talks").pid.is_some_and(|now| now != pid) && node(status, "talks").restarts == 1
    });
}

#[test]
fn who_was_found_by_its_marker_is_heard_and_held_to_its_watchdog_once_it_is_known_what_it_is() {
    let scene = Scene::new();
    let words = format!("WORDS={}", scene.path("words").display());
    let file = lively("talks", &format!("watchdog = 1s\nenv = UNTIL=/nowhere/at/all {words}"));
    let mut lab = Lab::start_in(scene, Some(&file));
    lab.scene.write("words", "first");
    let says = |lab: &Lab, words: &str| {
        lab.client.wait("it speaks", |status| node_in(status, "talks").is_some_and(|node| node.says == words))
    };
    let pid = node(&says(&lab, "first"), "talks").pid.unwrap();
    lab.daemon.kill();
    let instances = std::fs::read_dir(lab.daemon.state_dir().join("nodes")).unwrap();
    let records = instances.map(|instance| instance.unwrap().path().join("talks/record")).filter(|it| it.exists());
    records.for_each(|record| std::fs::write(record, "garbage").unwrap());
    lab.scene.write("words", "second");
    lab.daemon.start_again();
    lab.client = lab.daemon.client();
    assert_eq!(node(&says(&lab, "second"), "talks").pid, Some(pid));
    processes::signal(pid, Signal::STOP);
    lab.client.wait("it is started again", |status| {
        node_in(status, "talks").is_some_and(|node| node.state == "RUNNING" && node.restarts == 1)
    });
    let told = lab.client.events();
    let is_told = |what: &str| told.iter().any(|event| event.msg.as_deref().is_some_and(|msg| msg.contains(what)));
    assert!(is_told("was found by its marker") && !is_told("cannot be heard"), "{told:#?}");
}

#[test]
fn process_compose_298_who_misses_its_watchdog_or_stands_still_is_ended_and_started_again() {
    let scene = Scene::new();
    let in_scene = |name: &str| {
        let until = scene.path(&format!("hang-{name}"));
        lively(name, &format!("watchdog = 2s\nstop_grace = 200ms\nenv = UNTIL={}", until.display()))
    };
    let file = in_scene("forgets") + &in_scene("stands") + &in_scene("goes-on");
    let lab = Lab::start_in(scene, Some(&file));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    lab.scene.write("hang-forgets", "");
    processes::signal(before["stands"], Signal::STOP);
    for name in ["forgets", "stands"] {
        let after = lab.client.wait(&format!("{name} is started again"), |status| {
            node(status, name).pid.is_some_and(|pid| pid != before[name])
        });
        assert!(!processes::is_alive(before[name]), "{after:?}");
    }
    std::fs::remove_file(lab.scene.path("hang-forgets")).unwrap();
    let events = lab.client.events();
    check_log(&events);
    for name in ["forgets", "stands"] {
        let crash = changes(&events, name).into_iter().find(|change| change.new.as_deref() == Some("CRASHED")).unwrap();
        let reason = crash.reason.clone().unwrap();
        assert!(reason.starts_with("it did not say WATCHDOG=1 for 2s; "), "{reason}");
        assert_eq!(crash.pid, Some(before[name]));
        let told = events.iter().find(|event| event.kind == "error" && event.node.as_deref() == Some(name)).unwrap();
        assert!(told.msg.as_ref().unwrap().contains("is ended: it did not say WATCHDOG=1 for 2s"), "{told:?}");
    }
    assert_eq!(pids(&lab.client.status())["goes-on"], before["goes-on"], "whoever gives its signs is left alone");
}

#[test]
fn a_node_whose_socket_is_gone_is_not_held_to_its_watchdog_and_that_is_told_once() {
    let file = ["talks", "stands"].map(|name| lively(name, "watchdog = 1s\nenv = UNTIL=/nowhere/at/all")).concat();
    let lab = Lab::start(Some(&file));
    let before = pids(&lab.client.wait_for_all("RUNNING"));
    std::fs::remove_file(socket_of(before["talks"])).unwrap();
    let told = || {
        let events = lab.client.events().into_iter();
        events.filter(|event| event.kind == "error" && event.node.as_deref() == Some("talks")).collect::<Vec<_>>()
    };
    lab.client.wait("it is missed", |_| !told().is_empty());
    // Another one that is silent for longer still is found out.
    processes::signal(before["stands"], Signal::STOP);
    let after = lab.client.wait("the other is started again", |status| {
        node(status, "stands").state == "RUNNING" && node(status, "stands").restarts == 1
    });
    assert_eq!((node(&after, "talks").pid, node(&after, "talks").restarts), (Some(before["talks"]), 0));
    let told = told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].msg.as_ref().unwrap().contains("it cannot be heard"), "{told:?}");
    // The next life has a socket again, and is held to its watchdog.
    assert!(lab.client.order("restart", &["talks"]).ok);
    let again = lab.client.wait("it has another life", |status| {
        node(status, "talks").state == "RUNNING" && node(status, "talks").pid != Some(before["talks"])
    });
    let again = node(&again, "talks").pid.unwrap();
    processes::signal(again, Signal::STOP);
    lab.client.wait("it is found out", |status| node(status, "talks").pid.is_some_and(|pid| pid != again));
}

#[test]
fn a_node_that_talks_to_where_its_agent_was_before_is_not_held_to_its_watchdog() {
    let scene = Scene::new();
    let run = tempfile::Builder::new().prefix("watchpost-run-").tempdir().unwrap();
    let place = |name: &str| scene.write("place", &run.path().join(name).display().to_string());
    let through = format!("WATCHPOST_AGENT_RUN_DIR=$(cat {}) exec \"$@\"", place("before").display());
    let file = scene.write("lab.cfg", &lively("talks", "watchdog = 1s\nenv = UNTIL=/nowhere/at/all"));
    let args = ["lab", file.to_str().unwrap(), "--http", &scene.any_port()];
    let mut daemon = Daemon::start_through(&["sh", "-c", &through, "sh"], &scene, "lab", &args);
    let pid = daemon.client().wait_for("talks", "RUNNING").pid.unwrap();
    assert!(socket_of(pid).starts_with(run.path().join("before")));
    daemon.kill();
    place("after");
    daemon.start_again();
    let client = daemon.client();
    client.wait("that it is not heard is told", |_| {
        let is_it = |msg: &String| msg.contains("it cannot be heard");
        client.events().iter().any(|event| event.kind == "error" && event.msg.as_ref().is_some_and(is_it))
    });
    let talks = client.wait_for("talks", "RUNNING");
    assert_eq!((talks.pid, talks.restarts), (Some(pid), 0));
    assert!(client.order("restart", &["talks"]).ok);
    let after = client.wait("it has another life", |status| {
        node(status, "talks").state == "RUNNING" && node(status, "talks").pid != Some(pid)
    });
    assert!(socket_of(node(&after, "talks").pid.unwrap()).starts_with(run.path().join("after")));
}

#[test]
fn an_agent_that_stood_still_for_longer_than_a_watchdog_holds_it_against_nobody() {
    let scene = Scene::new();
    scene.write("words", "before");
    let words = format!("WORDS={}", scene.path("words").display());
    let lab =
        Lab::start_in(scene, Some(&lively("talks", &format!("watchdog = 2s\nenv = UNTIL=/nowhere/at/all {words}"))));
    let says = |words: &'static str| {
        let is_heard = move |status: &_| node_in(status, "talks").is_some_and(|node| node.says == words);
        lab.client.wait("it is heard", is_heard)
    };
    let pid = node(&says("before"), "talks").pid;
    lab.daemon.signal(Signal::STOP);
    // The time is what this is about: longer than the watchdog allows.
    std::thread::sleep(Duration::from_millis(3000));
    lab.daemon.signal(Signal::CONT);
    // An order is answered behind whatever its return brought about.
    assert!(lab.client.order("start", &["talks"]).ok);
    // And what it says from now on is heard behind all that its agent had missed, and had to judge.
    lab.scene.write("words", "after");
    says("after");
    let talks = lab.client.wait_for("talks", "RUNNING");
    assert_eq!((talks.pid, talks.restarts), (pid, 0));
}

#[test]
fn a_node_that_ended_while_its_agent_stood_still_was_never_ready() {
    let text = format!("{TOOLS}until_there go; exit 3");
    let lab = Lab::start(Some(&script("dies", "restart = never", &text).replace("settle 50ms", "settle 4s")));
    let starts = |status: &_| node_in(status, "dies").is_some_and(|node| node.state == "PENDING" && node.pid.is_some());
    let pid = node(&lab.client.wait("it starts", starts), "dies").pid.unwrap();
    let began = Instant::now();
    lab.daemon.signal(Signal::STOP);
    lab.scene.write("go", "");
    eventually("it has ended", || (!processes::is_alive(pid)).then_some(()));
    // The time is what this is about: by then it would be ready.
    std::thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
    lab.daemon.signal(Signal::CONT);
    let dies = lab.client.wait_for("dies", "FAILED");
    assert!(dies.reason.starts_with("exited with status 3"), "{dies:?}");
    let told = path(&changes(&lab.client.events(), "dies"));
    assert!(!told.contains("RUNNING"), "{told}");
}

#[test]
fn a_node_is_asked_by_a_program_which_never_piles_up() {
    let keys =
        "probe_interval = 100ms\nprobe_timeout = 300ms\nprobe_failures = 2\nrestart_limit = 1\nrestart_delay = 10ms";
    let scene = Scene::new();
    let sick = scene.path("sick");
    let file = sleeper("asked", &format!("{keys}\nprobe = exec test ! -e {}", sick.display()))
        // The program that asks hangs, and what it started ignores SIGTERM and has left its session.
        + &sleeper("hung", &format!("{keys}\nprobe = exec sh -c \"setsid sh -c \\\"trap : TERM; sleep 1000\\\" & sleep 1000\""));
    let lab = Lab::start_in(scene, Some(&file));
    let asked = lab.client.wait_for("asked", "RUNNING");
    let hung = lab.client.wait_for("hung", "FAILED");
    let want = "its probe failed 2 times in a row; last: no answer within 300ms; killed by signal 15 (SIGTERM)";
    assert!(hung.reason.contains(want), "{hung:?}");
    eventually("nobody who asked is left", || lab.scene.processes_of("hung").is_empty().then_some(()));
    let now = lab.client.wait_for("asked", "RUNNING");
    assert_eq!((now.pid, now.restarts), (asked.pid, 0), "whoever answers is left alone");
    lab.scene.write("sick", "");
    let crashed = lab.client.wait_for("asked", "FAILED");
    let want = "its probe failed 2 times in a row; last: exited with status 1; killed by signal 15 (SIGTERM)";
    assert!(crashed.reason.contains(want), "{crashed:?}");
    check_log(&lab.client.events());
}

#[test]
fn a_node_is_ready_and_lives_as_long_as_its_port_accepts() {
    let scene = Scene::new();
    let reserved = TcpListener::bind(scene.any_port()).unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let keys = "ready_within = 1h\nprobe_interval = 100ms\nprobe_failures = 2\nstop_grace = 1s";
    let file = sleeper("serves", &format!("{keys}\nprobe = tcp {address}"));
    let lab = Lab::start_in(scene, Some(&file.replace("settle 50ms", &format!("tcp {address}"))));
    let waits =
        lab.client.wait("it has a process", |status| node_in(status, "serves").is_some_and(|node| node.pid.is_some()));
    assert_eq!(node(&waits, "serves").state, "PENDING");
    let listener = TcpListener::bind(address).unwrap();
    let runs = lab.client.wait_for("serves", "RUNNING");
    assert_eq!(runs.pid, node(&waits, "serves").pid);
    drop(listener);
    lab.client
        .wait("it is started again", |status| node(status, "serves").pid.is_some_and(|pid| Some(pid) != runs.pid));
    let events = lab.client.events();
    check_log(&events);
    let told = changes(&events, "serves");
    let crash = told.iter().find(|change| change.new.as_deref() == Some("CRASHED")).unwrap();
    let reason = crash.reason.clone().unwrap();
    let want = format!("its probe failed 2 times in a row; last: {address}: Connection refused");
    assert!(reason.starts_with(&want), "{reason}");
}

#[test]
fn who_was_not_ready_when_its_agent_was_killed_is_so_for_the_next_only_once_its_sign_has_come() {
    let mut fleet = Fleet::start();
    let listener = TcpListener::bind(fleet.scene.any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let (keys, go) = ("instance = a\nready_within = 1h", fleet.scene.write("go", ""));
    let nodes = [
        sleeper("serves", keys).replace("settle 50ms", &format!("tcp {address}")),
        waits_for("says", "instance = a", &go, "exec sleep 1000"),
        speaker("said", "instance = a", "say --ready\nexec sleep 1000"),
    ];
    fleet.client.deployed(&fleet.file(&["a"], &nodes));
    let first = pids(&fleet.client.wait_for_all("RUNNING"));
    drop(listener);
    std::fs::remove_file(&go).unwrap();
    let names = ["serves", "says"];
    names.iter().for_each(|name| processes::signal(first[*name], Signal::KILL));
    let before = fleet.client.wait("two wait for their sign", |status| {
        names.iter().all(|name| {
            let node = node(status, name);
            node.state == "PENDING" && node.pid.is_some_and(|pid| pid != first[*name])
        })
    });
    fleet.agent_mut("a").kill();
    fleet.client.wait_for("said", "UNKNOWN");
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for("said", "RUNNING");
    // Answered behind all that its return brought about.
    assert!(fleet.client.order("start", &["said"]).ok);
    let after = fleet.client.status();
    assert_eq!((pids(&after), states(&after)), (pids(&before), states(&before)));
    fleet.scene.write("go", "");
    let _listener = TcpListener::bind(address).unwrap();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&after), pids(&before));
    check_log(&fleet.client.events());
}

#[test]
fn who_may_have_said_that_it_is_ready_while_its_agent_was_away_is_left_alone_and_that_is_told() {
    let mut fleet = Fleet::start();
    let (go, said) = (fleet.scene.write("go", ""), fleet.scene.path("said"));
    let says = waits_for("says", "instance = a", &go, &format!("touch {}\nexec sleep 1000", said.display()));
    let says = says.replace("ready_within = 1m", "ready_within = 10s");
    fleet.client.deployed(&fleet.file(&["a"], &[says]));
    let first = fleet.client.wait_for("says", "RUNNING").pid.unwrap();
    let has_said = || said.exists().then_some(());
    eventually("it goes on", has_said);
    [&go, &said].into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
    processes::signal(first, Signal::KILL);
    let before = fleet.client.wait("it waits", |status| {
        let says = node(status, "says");
        says.state == "PENDING" && says.pid.is_some_and(|pid| pid != first)
    });
    fleet.agent_mut("a").kill();
    fleet.scene.write("go", "");
    eventually("it has said so, and nobody has heard", has_said);
    fleet.agent_mut("a").start_again();
    let told = eventually("its time is over", || {
        let is_it = |msg: &String| msg.contains("it may have said so while its agent was away");
        fleet.client.events().into_iter().find_map(|event| event.msg.filter(is_it))
    });
    assert!(told.starts_with("not ready within 10s: it did not say READY=1; "), "{told}");
    let after = fleet.client.status();
    assert_eq!((node(&after, "says").state.as_str(), pids(&after)), ("PENDING", pids(&before)));
}

#[test]
fn who_says_that_it_stops_and_does_not_end_is_ended() {
    let text = "say --ready\nuntil_there stop\nsay STOPPING=1\nexec sleep 1000";
    let lab = Lab::start(Some(&speaker("lingers", "stop_grace = 500ms\nrestart = never", text)));
    lab.client.wait_for("lingers", "RUNNING");
    lab.scene.write("stop", "");
    let given_up = lab.client.wait_for("lingers", "FAILED");
    let want = "it said STOPPING=1, and did not end within 500ms; killed by signal 15 (SIGTERM)";
    assert!(given_up.reason.starts_with(want), "{given_up:?}");
}

#[test]
fn a_daemon_speaks_to_its_own_service_manager_and_its_nodes_do_not() {
    let scene = Scene::new();
    let manager_at = scene.path("manager");
    let manager = UnixDatagram::bind(&manager_at).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let file = scene.write("lab.cfg", &sleeper("one", ""));
    let told = format!("NOTIFY_SOCKET={}", manager_at.display());
    let through = ["env", &told, "WATCHDOG_USEC=400000"];
    let http = scene.any_port();
    let mut daemon = Daemon::start_through(&through, &scene, "lab", &["lab", file.to_str().unwrap(), "--http", &http]);
    let hear = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    let one = daemon.client().wait_for("one", "RUNNING").pid.unwrap();
    assert_eq!(variable(one, "NOTIFY_SOCKET"), None);
    assert_eq!(variable(one, "WATCHDOG_USEC"), None);
    daemon.signal(Signal::TERM);
    while hear() != "STOPPING=1" {}
    assert!(daemon.ended().success());
}

/// What [`lively`] runs: no test.
#[test]
#[ignore = "it is the program of a node"]
fn the_program_of_a_node_that_gives_signs() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let (until, words) = (std::env::var_os("UNTIL").unwrap(), std::env::var_os("WORDS"));
    let within: u64 = std::env::var("WATCHDOG_USEC").unwrap().parse().unwrap();
    let to = UnixDatagram::unbound().unwrap();
    to.send_to(b"READY=1", &socket).unwrap();
    let mut said = String::new();
    while !std::fs::exists(&until).unwrap() {
        // Its agent may be away.
        let _ = to.send_to(b"WATCHDOG=1", &socket);
        let words = words.as_ref().and_then(|words| std::fs::read_to_string(words).ok()).unwrap_or_default();
        if words != said && to.send_to(format!("STATUS={words}").as_bytes(), &socket).is_ok() {
            said = words;
        }
        std::thread::sleep(Duration::from_micros(within / 20));
    }
    std::thread::sleep(Duration::from_secs(1000));
}

/// A node that is ready and says that it lives, until there is a file that `UNTIL` in its environment names; and what stands
/// in the file that `WORDS` names, if it does.
fn lively(name: &str, keys: &str) -> String {
    in_rust(name, keys, "the_program_of_a_node_that_gives_signs")
}

/// A node whose program is one of the tests of this file that are none.
fn in_rust(name: &str, keys: &str, program: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let command = format!("{} --ignored --exact --nocapture health::{program}", tests.display());
    format!("[{name}]\ncommand = {command}\nready = notify\nready_within = 1m\n{keys}\n")
}

/// A node that is a shell script with [`TOOLS`], and is ready when it says so.
fn speaker(name: &str, keys: &str, text: &str) -> String {
    let node = script(name, keys, &format!("{TOOLS}{text}"));
    node.replace("ready = settle 50ms", "ready = notify\nready_within = 1m")
}

/// One that is ready once this file is there, and then goes on like this.
fn waits_for(name: &str, keys: &str, file: &Path, then: &str) -> String {
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", file.display());
    speaker(name, keys, &format!("{wait}\nsay --ready\n{then}"))
}

fn node_in<'a>(status: &'a watchpost::web::json::Status, name: &str) -> Option<&'a watchpost::web::json::Node> {
    status.nodes.iter().find(|node| node.name == name)
}

/// Where that process is heard, by its own environment.
fn socket_of(pid: u32) -> PathBuf {
    variable(pid, "NOTIFY_SOCKET").expect("it was told where it is heard").into()
}

fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables: BTreeMap<String, String> = environment
        .split(|byte| *byte == 0)
        .filter_map(|variable| String::from_utf8_lossy(variable).split_once('=').map(|(n, v)| (n.into(), v.into())))
        .collect();
    variables.get(name).cloned()
}

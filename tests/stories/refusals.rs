//! What cannot be used is refused before anything is touched: what is wrong, where, and what to do about it.

use std::net::TcpListener;

use crate::common::{Answer, Daemon, Lab, Scene, sleeper};

#[test]
fn everything_that_is_wrong_with_the_settings_is_said_at_once() {
    let scene = Scene::new();
    let text = "clustr = 'x'\nlog = 5\n[link]\nheartbeat = 'soon'\n[agent]\nlisten = '10.0.0.1'\n";
    let file = scene.write("wrong.toml", text).display().to_string();
    for verb in ["lab", "controller", "agent"] {
        let answer = refused(&scene, &[verb, "--config", &file]);
        assert_eq!((answer.code, &*answer.stdout), (2, ""));
        for complaint in [
            format!("{file}:1: clustr: is not a setting: did you mean `cluster`?"),
            format!("{file}:2: log: `5` does not fit"),
            format!("{file}:4: link.heartbeat: `soon` does not fit: write a time"),
            format!("{file}:6: agent.listen: `10.0.0.1` does not fit: write IP:PORT"),
        ] {
            assert!(answer.stderr.contains(&complaint), "{complaint}\n{}", answer.stderr);
        }
        assert!(!scene.path("state").exists(), "nothing is touched");
    }
    let answer = refused(&scene, &["lab", "--config", "/nonexistent"]);
    assert!(answer.code == 2 && answer.stderr.contains("because: No such file or directory"), "{answer:?}");
}

#[test]
fn everything_that_is_wrong_with_a_cluster_file_is_said_at_once_and_nothing_is_touched() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    let before = lab.client.wait_for_all("RUNNING");
    let text = "[one]\nrole = none\ncomand = true\n[two]\nrole = wroker\n[three]\nrole = none\nport = 99999\n";
    let file = lab.scene.write("wrong.cfg", text);
    let name = file.display().to_string();
    let answers = [
        lab.scene.watchpost(&["check", &name]).output().map(Answer::of).unwrap(),
        refused(&lab.scene, &["lab", &name]),
        lab.client.run(&["deploy", &name]),
    ];
    for answer in answers {
        assert_eq!((answer.code, &*answer.stdout), (2, ""), "{answer:?}");
        for complaint in [
            format!("{name}:3: [one] comand: is not a key of a node: did you mean `command`?"),
            format!("{name}:5: [two] role: `wroker` is not a role: did you mean `worker`?"),
            format!("{name}:8: [three] port: `99999` is not a port"),
        ] {
            assert!(answer.stderr.contains(&complaint), "{complaint}\n{}", answer.stderr);
        }
    }
    assert!(!lab.scene.path("state").exists());
    let after = lab.client.status();
    assert_eq!((after.nodes, after.configuration, after.seq), (before.nodes, before.configuration, before.seq));

    let missing = lab.client.run(&["deploy", "/nonexistent"]);
    assert!(missing.code == 2 && missing.stderr.contains("No such file"), "{missing:?}");
}

#[test]
fn what_only_the_whole_of_a_cluster_file_shows_is_said_as_well() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    let before = lab.client.wait_for_all("RUNNING");
    let text = "[one]\nrole = none\nport = 5000\n[two]\nrole = none\nport = 5000\nready_within = 0s\n\
                [three]\nrole = none\ncomand = true\nport = 7000\n[four]\nrole = none\nport = 7000\n";
    let name = lab.scene.write("wrong.cfg", text).display().to_string();
    for answer in [
        lab.scene.watchpost(&["check", &name]).output().map(Answer::of).unwrap(),
        refused(&lab.scene, &["lab", &name]),
        lab.client.run(&["deploy", &name]),
    ] {
        assert_eq!((answer.code, &*answer.stdout), (2, ""), "{answer:?}");
        for complaint in [
            format!("{name}:6: [two] port: multiple nodes on instance"),
            format!("{name}:7: [two] ready_within: node 'two' cannot be ready in time"),
            format!("{name}:10: [three] comand: is not a key of a node: did you mean `command`?"),
            format!("{name}:14: [four] port: multiple nodes on instance"),
        ] {
            assert!(answer.stderr.contains(&complaint), "{complaint}\n{}", answer.stderr);
        }
    }
    assert_eq!(lab.client.status().nodes, before.nodes);
}

#[test]
fn a_script_reads_what_is_wrong_with_a_file_from_one_object() {
    let scene = Scene::new();
    let wrong = scene.write("wrong.cfg", "[one]\nrole = none\ncomand = true\n[two]\nrole = wroker\n");
    let fine = scene.write("fine.cfg", "[one]\nrole = none\ncommand = true\n");
    let of = |file: &std::path::Path| {
        let name = file.to_str().unwrap();
        let answer = Answer::of(scene.watchpost(&["check", name, "--json"]).output().unwrap());
        assert_eq!((answer.stdout.lines().count(), &*answer.stderr), (1, ""), "{answer:?}");
        (answer.code, serde_json::from_str::<serde_json::Value>(&answer.stdout).unwrap())
    };
    let name = wrong.display();
    let complaints = [
        format!("{name}:3: [one] comand: is not a key of a node: did you mean `command`?"),
        format!("{name}:5: [two] role: `wroker` is not a role: did you mean `worker`?"),
    ];
    assert_eq!(of(&wrong), (2, serde_json::json!({"ok": false, "instances": 0, "nodes": 0, "complaints": complaints})));
    assert_eq!(of(&fine), (0, serde_json::json!({"ok": true, "instances": 1, "nodes": 1})));
    let (code, absent) = of(&scene.path("absent.cfg"));
    assert!(code == 2 && absent["complaints"][0].as_str().unwrap().contains("absent.cfg: No such file"), "{absent}");
}

#[test]
fn a_cluster_file_that_only_this_controller_refuses_is_wrong_as_well() {
    let lab = Lab::start(Some(&sleeper("one", "")));
    let name = lab.scene.write("ports.cfg", "[m]\nrole = manager\nport = 2150\n").display().to_string();
    assert_eq!(lab.scene.watchpost(&["check", &name]).output().map(Answer::of).unwrap().code, 0);
    let answer = lab.client.run(&["deploy", &name]);
    assert_eq!(answer.code, 2, "{answer:?}");
    let want = format!("{name}:3: [m] port: node 'm' port 2150/tcp conflicts with controller port");
    assert!(answer.stderr.contains(&want), "{answer:?}");
}

#[test]
fn a_port_in_use_is_named_with_who_wants_it() {
    let scene = Scene::new();
    let taken = TcpListener::bind(scene.any_port()).unwrap();
    let (taken, free) = (taken.local_addr().unwrap().to_string(), scene.any_port());
    let _keep = TcpListener::bind(scene.any_port());
    for (args, who) in [
        (&["lab", "--http", &taken][..], "for clients"),
        (&["controller", "--listen", &free, "--http", &taken], "for clients"),
        (&["lab", "--http", &free, "--websocket", &taken], "for zeek-client"),
        (&["controller", "--http", &free, "--listen", &taken], "for agents"),
        (&["agent", "--listen", &taken], "for a controller"),
    ] {
        let answer = refused(&scene, args);
        let want = format!("error: cannot listen {who} on {taken}: Address already in use");
        assert!(answer.code == 1 && answer.stderr.starts_with(&want), "{answer:?}");
        assert_eq!(answer.stderr.lines().count(), 1, "{}", answer.stderr);
    }
}

/// Why links stay on this machine.
const UNSECURED: &str = "what is not secured by certificates stays on it";

#[test]
fn an_address_beyond_this_machine_is_refused_with_the_reason() {
    let scene = Scene::new();
    let free = scene.any_port();
    for (args, option, address, why) in [
        (&["lab", "--http", "0.0.0.0:0"][..], "--http", "0.0.0.0:0", "the HTTP API is served beyond it with TLS only"),
        (
            &["all-in-one", "--http", "0.0.0.0:0"],
            "--http",
            "0.0.0.0:0",
            "the HTTP API is served beyond it with TLS only",
        ),
        (&["lab", "--http", &free, "--websocket", "0.0.0.0:0"], "--websocket", "0.0.0.0:0", "whoever reaches it could"),
        (
            &["controller", "--listen", &free, "--http", "0.0.0.0:0"],
            "--http",
            "0.0.0.0:0",
            "the HTTP API is served beyond it with TLS only",
        ),
        (&["controller", "--http", &free, "--listen", "[::]:0"], "--listen", "[::]:0", UNSECURED),
        (&["agent", "--listen", "10.0.0.1:2151"], "--listen", "10.0.0.1:2151", UNSECURED),
        (&["agent", "--connect", "10.0.0.1:2150"], "--connect", "10.0.0.1:2150", UNSECURED),
    ] {
        let answer = refused(&scene, args);
        let want = format!("error: {option}: {address} is not on this machine, and {why}");
        assert!(answer.code == 2 && answer.stderr.starts_with(&want), "{args:?}: {answer:?}");
        assert!(!scene.path("state").exists(), "{args:?}: it has touched something");
    }
}

#[test]
fn a_controller_without_certificates_refuses_to_dial_beyond_this_machine_before_anything_is_staged() {
    let scene = Scene::new();
    let any = scene.any_port();
    let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
    let client = controller.client();
    let file = "[instances]\nfar = 192.0.2.1:23621\n[one]\ninstance = far\nrole = none\ncommand = sleep 99\n";
    let file = scene.write("far.cfg", file).display().to_string();
    let why = "this controller cannot dial `far` at 192.0.2.1:23621: without certificates links stay on this machine; make \
               them by `watchpost pki`, or admit by `insecure = true`";
    for (args, code) in [(&["plan", &file][..], 2), (&["deploy", &file], 1)] {
        let answer = client.run(args);
        assert!(answer.code == code, "{answer:?}");
        let said = format!("{}{}", answer.stdout, answer.stderr);
        assert!(said.contains(why), "{answer:?}");
    }
    let status = client.status();
    assert!(status.instances.is_empty() && status.nodes.is_empty(), "{status:?}");
    assert!(!controller.log().contains("192.0.2.1"), "nobody has dialled it: {}", controller.log());
}

#[test]
fn everything_that_is_wrong_with_settings_and_cluster_file_is_said_at_once_and_nothing_is_touched() {
    let scene = Scene::new();
    let settings = "clutser = 'a'\n[controller]\nlisten = '0.0.0.0:0'\nhttp = '0.0.0.0:0'\nwebsocket = '0.0.0.0:0'\n\
                    websocket_key = '/no/key.pem'\n";
    let settings = scene.write("wrong.toml", settings).display().to_string();
    let cluster = scene.write("wrong.cfg", "[one]\nrole = none\ncomand = true\n").display().to_string();
    let both = [
        format!("{settings}:1: clutser: is not a setting: did you mean `cluster`?"),
        format!("{settings}:4: controller.http: 0.0.0.0:0 is not on this machine"),
        format!("{settings}:6: controller.websocket_key: the key /no/key.pem is given without its certificate"),
    ];
    let listen = format!("{settings}:3: controller.listen: 0.0.0.0:0 is not on this machine");
    let comand = format!("{cluster}:3: [one] comand: is not a key of a node: did you mean `command`?");
    for (args, own) in
        [(&["lab", &cluster, "--config", &settings][..], comand), (&["controller", "--config", &settings], listen)]
    {
        let mut command = scene.watchpost(args);
        command.env_remove("WATCHPOST_CONTROLLER_WEBSOCKET");
        let answer = Answer::of(command.arg("--state-dir").arg(scene.path("state")).output().unwrap());
        for complaint in both.iter().chain([&own]) {
            assert!(answer.stderr.contains(complaint), "{complaint}\n{}", answer.stderr);
        }
        assert_eq!((answer.code, scene.path("state").exists()), (2, false), "{answer:?}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said_at_start() {
    let scene = Scene::new();
    let file = scene.write("file", "");
    let free = scene.any_port();
    for verb in [&["lab", "--http", &free][..], &["controller", "--listen", &free, "--http", &free], &["agent"]] {
        for (directory, want, why) in [
            (file.to_str().unwrap(), "cannot make the state directory", "because: File exists"),
            // Not even root can make a file there.
            ("/proc/self", "cannot write /proc/self/lock", "because: "),
        ] {
            let answer = Answer::of(scene.watchpost(&[verb, &["--state-dir", directory]].concat()).output().unwrap());
            assert_eq!((answer.code, &*answer.stdout), (1, ""), "{answer:?}");
            assert!(answer.stderr.contains(want) && answer.stderr.contains(why), "{answer:?}");
        }
        // A disk that takes not one byte.
        let full = "ulimit -f 0; trap '' XFSZ; exec \"$0\" \"$@\"";
        let program = env!("CARGO_BIN_EXE_watchpost");
        let state = scene.path("full");
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", full, program]).args(verb).arg("--state-dir").arg(&state);
        let answer = Answer::of(command.env_clear().env("HOME", scene.path("")).output().unwrap());
        assert_eq!((answer.code, &*answer.stdout), (1, ""), "{answer:?}");
        assert!(answer.stderr.contains(&format!("cannot write {}", state.display())), "{answer:?}");
        assert!(answer.stderr.contains("because: File too large"), "{answer:?}");
    }
}

/// Runs a daemon that is expected to end by itself.
fn refused(scene: &Scene, args: &[&str]) -> Answer {
    let state = scene.path("state");
    let mut command = scene.watchpost(args);
    Answer::of(command.arg("--state-dir").arg(state).output().unwrap())
}

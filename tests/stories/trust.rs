//! A fleet with certificates, made as an operator would make it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::common::{Answer, Daemon, Scene, eventually, node, pids, processes, sleeper};

/// A scene with an authority, and the certificates that were asked for where the daemons of that name find them.
pub struct Secured {
    pub scene: Scene,
}

impl Secured {
    pub fn with(parts: &[(&str, &str, &str)]) -> Self {
        let secured = Self { scene: Scene::new() };
        secured.pki(&["init", "--cluster", secured.scene.cluster()]);
        for (part, name, daemon) in parts {
            let trust = secured.scene.path(daemon).join("trust");
            secured.pki(&["issue", part, name, "--out", trust.to_str().unwrap()]);
        }
        secured
    }

    fn pki(&self, args: &[&str]) -> Answer {
        let directory = self.scene.path("pki");
        let place = ["--dir", directory.to_str().unwrap()];
        let answer = Answer::of(self.scene.watchpost(&[&["pki"], args, &place].concat()).output().unwrap());
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer
    }

    /// A controller that listens for agents on every address of this machine.
    pub fn controller(&self) -> Daemon {
        self.controller_with("")
    }

    /// The same with settings of its own.
    pub fn controller_with(&self, settings: &str) -> Daemon {
        let args = ["controller", "--name", "control", "--listen", "0.0.0.0:0", "--http", &self.scene.any_port()];
        Daemon::start_with(&self.scene, "controller", &args, settings)
    }

    pub fn agent(&self, directory: &str, instance: &str, controller: &Daemon) -> Daemon {
        let port = controller.addresses()["agents"].port();
        let address = format!("{}:{port}", self.scene.any_port().trim_end_matches(":0"));
        Daemon::start(&self.scene, directory, &["agent", "--name", instance, "--connect", &address])
    }
}

#[test]
fn with_certificates_a_fleet_may_listen_anywhere_and_lets_nobody_else_in() {
    let secured = Secured::with(&[("controller", "control", "controller"), ("agent", "a", "a"), ("agent", "b", "b")]);
    let controller = secured.controller();
    let client = controller.client();
    let _agents = [secured.agent("a", "a", &controller), secured.agent("b", "b", &controller)];
    let nodes = [sleeper("on-a", "instance = a"), sleeper("on-b", "instance = b")].concat();
    client.deployed(&secured.scene.write("fleet.cfg", &format!("[instances]\na\nb\n{nodes}")));
    let running = pids(&client.wait_for_all("RUNNING"));

    let bare = secured.agent("bare", "c", &controller);
    eventually("an agent without certificates is told so", || {
        bare.log().contains("the peer speaks TLS, and this end has no certificates").then_some(())
    });
    let trust = secured.scene.path("liar").join("trust");
    secured.pki(&["issue", "agent", "liar", "--out", trust.to_str().unwrap()]);
    let listing = secured.pki(&["show", "--json"]).stdout;
    let names: Vec<_> =
        listing.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone()).collect();
    assert_eq!(names, [secured.scene.cluster(), "control", "a", "b", "liar"]);
    eventually("the controller says who does not speak TLS", || {
        controller.log().contains("it does not speak TLS").then_some(())
    });
    assert_eq!(pids(&client.status()), running, "nobody else notices");
    let known: Vec<_> = client.status().instances.into_iter().map(|instance| instance.name).collect();
    assert_eq!(known, ["a", "b"]);
}

#[test]
fn an_agent_whose_certificate_is_revoked_is_out_at_once_and_stays_out() {
    let secured = Secured::with(&[("controller", "control", "controller"), ("agent", "a", "a"), ("agent", "b", "b")]);
    let mut controller = secured.controller();
    let client = controller.client();
    let _agents = [secured.agent("a", "a", &controller), secured.agent("b", "b", &controller)];
    let nodes = [sleeper("on-a", "instance = a"), sleeper("on-b", "instance = b")].concat();
    client.deployed(&secured.scene.write("fleet.cfg", &format!("[instances]\na\nb\n{nodes}")));
    let running = pids(&client.wait_for_all("RUNNING"));

    let trust = controller.state_dir().join("trust");
    let answer = secured.pki(&["revoke", "agent", "a", "--trust", trust.to_str().unwrap()]);
    assert!(answer.stdout.starts_with("the certificate of agent a is revoked"), "{answer:?}");
    assert!(answer.stdout.contains("controller control heeds it at once"), "{answer:?}");
    let lost = client.wait("a is out", |status| node(status, "on-a").state == "UNKNOWN");
    assert!(lost.instances[0].reason.contains("revoked"), "{:?}", lost.instances);
    assert_eq!(node(&lost, "on-b").pid, Some(running["on-b"]));
    assert!(processes::is_alive(running["on-a"]), "its nodes are none of the controller's to end");

    controller.kill();
    controller.start_again();
    eventually("a tries again and is refused", || {
        let log = controller.log();
        (log.matches("its certificate was revoked").count() >= 2).then_some(())
    });
    let back = client.wait("b is back", |status| node(status, "on-b").state == "RUNNING");
    assert_eq!(node(&back, "on-a").state, "UNKNOWN");
    let shown = secured.pki(&["show", "--json"]).stdout;
    let states: Vec<_> =
        shown.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].clone()).collect();
    assert_eq!(states, ["good", "good", "revoked", "good"]);
}

#[test]
fn an_agent_that_has_the_list_drops_a_controller_whose_certificate_is_revoked() {
    let secured = Secured::with(&[("controller", "control", "controller"), ("agent", "a", "a")]);
    let controller = secured.controller();
    let agent = secured.agent("a", "a", &controller);
    eventually("they are linked", || agent.log().contains("link up").then_some(()));

    let own = controller.state_dir().join("trust/revoked");
    let answer = secured.pki(&["revoke", "controller", "control"]);
    assert!(answer.stdout.starts_with("the certificate of controller control is revoked"), "{answer:?}");
    assert!(answer.stdout.contains("to `trust` in the state directory of every agent"), "{answer:?}");
    assert!(!answer.stdout.contains("heeds it at once") && !own.exists(), "no controller judges itself: {answer:?}");

    let trust = agent.state_dir().join("trust");
    let answer = secured.pki(&["revoke", "controller", "control", "--trust", trust.to_str().unwrap()]);
    assert!(answer.stdout.contains("agent a heeds it at once"), "{answer:?}");
    eventually("the agent drops its controller", || {
        agent.log().contains("the peer's certificate was revoked").then_some(())
    });
    eventually("the agent refuses it from then on", || {
        agent.log().contains("its certificate was revoked").then_some(())
    });
}

#[test]
fn a_daemon_does_not_start_with_certificates_that_are_not_its_own_or_not_safe() {
    let secured = Secured::with(&[("agent", "a", "a"), ("agent", "b", "b")]);
    let path = |daemon: &str, file: &str| secured.scene.path(daemon).join("trust").join(file);
    let refused = |daemon: &str, why: &str| {
        let (settings, home) = (secured.scene.settings(), secured.scene.path(daemon));
        let args = ["agent", "--name", "a", "--config", settings.to_str().unwrap(), "--state-dir"];
        let answer =
            Answer::of(secured.scene.watchpost(&[&args[..], &[home.to_str().unwrap()]].concat()).output().unwrap());
        assert_eq!((answer.code, &*answer.stdout), (2, ""), "{answer:?}");
        assert!(answer.stderr.contains(why), "{why}: {answer:?}");
        assert!(!answer.stderr.contains("PRIVATE"), "{answer:?}");
    };
    refused("b", "is the certificate of agent `b` in cluster");
    fs::set_permissions(path("a", "key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    refused("a", "can be read by others (mode 644)");
    fs::set_permissions(path("a", "key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let own = fs::read(path("a", "key.pem")).unwrap();
    fs::copy(path("b", "key.pem"), path("a", "key.pem")).unwrap();
    refused("a", "does not belong to the certificate");
    fs::write(path("a", "key.pem"), &own[..own.len() / 2]).unwrap();
    refused("a", "holds no private key in PEM form");
    fs::write(path("a", "key.pem"), own).unwrap();
    let other = Secured::with(&[("agent", "a", "a")]);
    fs::copy(other.scene.path("a").join("trust/ca.pem"), path("a", "ca.pem")).unwrap();
    refused("a", "was not issued by the authority of");
    fs::remove_file(path("a", "ca.pem")).unwrap();
    refused("a", "ca.pem");
}

#[test]
fn whatever_stands_where_certificates_should_be_is_not_taken_for_none() {
    let scene = Scene::new();
    let settings = scene.settings();
    let refused = |why: &str| {
        let args = ["agent", "--config", settings.to_str().unwrap(), "--state-dir"];
        let answer = Answer::of(scene.watchpost(&args).arg(scene.path("a")).output().unwrap());
        assert!(answer.code == 2 && answer.stderr.contains(why), "{why}: {answer:?}");
    };
    let trust = scene.path("a").join("trust");
    fs::create_dir_all(&trust).unwrap();
    refused("which should be one of the files that `watchpost pki` makes");
    fs::remove_dir(&trust).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &trust).unwrap();
    refused("No such file or directory");
    fs::remove_file(&trust).unwrap();
    fs::create_dir(&trust).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, trust.join("ca.pem"), rustix::fs::Mode::RUSR).unwrap();
    refused("it is no regular file");
}

#[test]
fn a_slip_at_the_keyboard_costs_no_key_and_revokes_nobody() {
    let secured = Secured::with(&[("controller", "control", "controller")]);
    let pki = secured.scene.path("pki");
    let trust = secured.scene.path("controller").join("trust");
    let run = |args: &[&str]| {
        Answer::of(secured.scene.watchpost(&[args, &["--dir", pki.to_str().unwrap()]].concat()).output().unwrap())
    };
    let key = fs::read(trust.join("key.pem")).unwrap();
    let other = run(&["pki", "issue", "controller", "backup", "--out", trust.to_str().unwrap()]);
    assert!(other.code == 1 && other.stderr.contains("is the key of somebody else"), "{other:?}");
    assert_eq!(fs::read(trust.join("key.pem")).unwrap(), key);
    let again = run(&["pki", "issue", "controller", "control", "--out", trust.to_str().unwrap()]);
    assert_eq!(again.code, 0, "its own is replaced: {again:?}");
    let typo = run(&["pki", "revoke", "agent", "contrl"]);
    assert!(typo.code == 1 && typo.stderr.contains("no certificate was ever issued to agent `contrl`"), "{typo:?}");
}

#[test]
fn an_authority_is_made_once_and_its_key_is_for_its_owner() {
    let secured = Secured::with(&[]);
    let directory = secured.scene.path("pki");
    let mode = fs::metadata(directory.join("ca.key")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    let before = fs::read(directory.join("ca.key")).unwrap();
    let args = ["pki", "init", "--dir", directory.to_str().unwrap()];
    let again = Answer::of(secured.scene.watchpost(&args).output().unwrap());
    assert!(again.code == 1 && again.stderr.contains("an authority is made once"), "{again:?}");
    assert_eq!(fs::read(directory.join("ca.key")).unwrap(), before);
    let args = ["pki", "issue", "agent", "a", "--dir", "/nonexistent"];
    let nowhere = Answer::of(secured.scene.watchpost(&args).output().unwrap());
    assert!(nowhere.stderr.contains("make one by `watchpost pki init`"), "{nowhere:?}");
}

#[test]
fn whoever_admits_it_may_do_without_certificates() {
    let scene = Scene::new();
    let args = ["controller", "--listen", "0.0.0.0:0", "--http", &scene.any_port()];
    let refused = Answer::of(scene.watchpost(&args).output().unwrap());
    assert!(refused.code == 2 && refused.stderr.contains("is not on this machine"), "{refused:?}");
    let admitting = ["env", "WATCHPOST_INSECURE=1"];
    let daemon = Daemon::start_through(&admitting, &scene, "insecure", &args);
    let port = daemon.addresses()["agents"].port();
    eventually("it warns of that port", || (warned_of(&daemon) == [port]).then_some(()));
}

#[test]
fn every_port_that_is_open_and_not_protected_is_named_in_the_log() {
    let secured = Secured::with(&[("controller", "control", "with")]);
    let (scene, admitting) = (&secured.scene, ["env", "WATCHPOST_INSECURE=1"]);
    let open = ["--http", "0.0.0.0:0", "--websocket", "0.0.0.0:0"];
    let controller = ["controller", "--name", "control", "--listen", "0.0.0.0:0"];
    for (directory, args, unprotected) in [
        ("without", &controller[..], &["agents", "http", "zeek-client"][..]),
        ("with", &controller, &["zeek-client"]),
        ("lab", &["lab"], &["http", "zeek-client"]),
    ] {
        let daemon = Daemon::start_through(&admitting, scene, directory, &[args, &open].concat());
        let mut ports: Vec<_> = unprotected.iter().map(|purpose| daemon.addresses()[*purpose].port()).collect();
        ports.sort_unstable();
        eventually(directory, || (warned_of(&daemon) == ports).then_some(()));
        let shown = daemon.client().status().insecure.into_iter().map(|open| open.port);
        assert_eq!(shown.collect::<Vec<_>>(), unprotected, "{directory}: in the status as well");
        let text = daemon.client().run(&["status"]).stdout;
        assert_eq!(text.matches("INSECURE: whoever reaches the port for").count(), unprotected.len(), "{text}");
    }
}

/// The ports that a daemon says are open and not protected, sorted.
fn warned_of(daemon: &Daemon) -> Vec<u16> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("INSECURE, as the settings want it"));
    let mut ports: Vec<_> =
        lines.map(|line| line.split("0.0.0.0:").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()).collect();
    ports.sort_unstable();
    ports
}

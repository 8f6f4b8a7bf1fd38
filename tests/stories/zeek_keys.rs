//! The keys by which Zeek nodes encrypt what they say to one another: who has which, and who sees none.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use watchpost::trust::CurveRoot;

use crate::common::zeek::{Zeek, ports};
use crate::common::{Client, Daemon, Scene, eventually, pids};
use crate::zeek::{Stage, cluster};

const NODES: [&str; 5] = ["manager a", "logger-1 b", "proxy-1 b", "worker-1 a", "worker-2 b"];
const CURVE: &str = "ZEEK_CLUSTER_BACKEND_ZEROMQ_CURVE_";

/// What a process was told of keys, by the last word of each variable.
fn keys(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let pairs = text.split('\0').filter_map(|pair| pair.strip_prefix(CURVE)?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Every secret that a manager knows.
fn secrets(keys: &BTreeMap<String, String>) -> Vec<String> {
    keys.iter().filter(|(name, _)| name.ends_with("SECRETKEY")).map(|(_, key)| key.clone()).collect()
}

/// Every file below that is not its owner's alone, and every one that holds one of these texts.
fn files_with(home: &Path, secrets: &[Vec<u8>]) -> BTreeMap<PathBuf, u32> {
    let (mut found, mut rest) = (BTreeMap::new(), vec![home.to_owned()]);
    while let Some(path) = rest.pop() {
        let Ok(about) = std::fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            rest.extend(std::fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
        } else if about.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if secrets.iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret)) {
                found.insert(path, about.permissions().mode() & 0o777);
            }
        }
    }
    found
}

/// A controller, and agents `a` and `b` with Zeek 8.2, which talk on loopback.
struct Fleet {
    controller: Daemon,
    agents: Vec<Daemon>,
    client: Client,
    scene: Scene,
}

impl Fleet {
    fn start() -> Self {
        let scene = Scene::new();
        let zeek = Zeek::of(&scene, "8.2.0");
        let any = scene.any_port();
        let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
        let address = controller.addresses()["agents"].to_string();
        let agent = |name| {
            Daemon::start_with(&scene, name, &["agent", "--name", name, "--connect", &address], &zeek.settings())
        };
        let agents = ["a", "b"].map(agent).into();
        Self { client: controller.client(), controller, agents, scene }
    }

    fn deploy(&self, text: &str) -> BTreeMap<String, u32> {
        self.client.deployed(&self.scene.write("next.cfg", text));
        pids(&self.client.wait_for_all("RUNNING"))
    }
}

#[test]
fn nodes_of_a_cluster_have_its_keys_and_nobody_else_sees_them() {
    let fleet = Fleet::start();
    let first = ports();
    let pids = fleet.deploy(&cluster(first, "backend = zeromq", &NODES));
    let all = keys(pids["manager"]);
    assert_eq!(all.len(), 4, "{:?}", all.keys());
    for (name, pid) in &pids {
        let mut want = all.clone();
        if name.starts_with("worker") || name.starts_with("proxy") {
            want.remove("SERVER_SECRETKEY");
        }
        assert_eq!(keys(*pid), want, "{name}");
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!command.contains("CURVE") && secrets(&all).iter().all(|secret| !command.contains(secret)));
    }
    let made = CurveRoot::kept_in(&fleet.controller.state_dir()).unwrap().keys(1);
    assert_eq!(all["SERVER_PUBLICKEY"], made.server.public.z85());

    // Whoever asks is told none of it.
    for args in [&["status", "--json"][..], &["events", "--json"], &["export", "--format", "cluster.cfg"]] {
        let answer = fleet.client.run(args);
        assert!(
            secrets(&all).iter().all(|key| !answer.stdout.contains(key) && !answer.stderr.contains(key)),
            "{args:?}"
        );
    }
    // On disk it is in files of their owner alone: in a form that is read, and in what a crash would leave of an environment.
    let forms = |key: &[u8; 32]| [key.to_vec(), serde_json::to_vec(key).unwrap()];
    let mut secret: Vec<Vec<u8>> = secrets(&all).into_iter().map(String::into_bytes).collect();
    secret.extend([&made.server.secret, &made.client.secret].into_iter().flat_map(|secret| forms(&secret.0)));
    let found = files_with(&fleet.scene.path(""), &secret);
    let names: BTreeSet<_> = found.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["keys.json"].into(), "{found:?}");
    assert!(found.values().all(|mode| *mode == 0o600), "{found:?}");
}

#[test]
fn keys_are_the_same_after_every_restart_until_others_are_asked_for_and_come_back_with_a_rollback() {
    let mut fleet = Fleet::start();
    let first = ports();
    let text = |keys: &str| cluster(first, &format!("backend = zeromq\n{keys}"), &NODES);
    let before = fleet.deploy(&text(""));
    let all = keys(before["manager"]);
    fleet.controller.kill();
    fleet.controller.start_again();
    for agent in &mut fleet.agents {
        agent.kill();
        agent.start_again();
    }
    fleet.client.wait_for_all("RUNNING");
    // Also who is launched before anybody is told anything anew.
    let again = fleet.client.run(&["restart", "worker-2"]);
    assert_eq!(again.code, 0, "{again:?}");
    let after = pids(&fleet.client.wait_for_all("RUNNING"));
    assert!(after.iter().all(|(name, pid)| (before[name] == *pid) == (name != "worker-2")), "{before:?} {after:?}");
    assert_eq!(keys(after["worker-2"]), keys(after["worker-1"]));
    assert_eq!(keys(after["worker-2"])["CLIENT_SECRETKEY"], all["CLIENT_SECRETKEY"]);

    let file = fleet.scene.write("next.cfg", &text("zeromq_keys = 2"));
    let plan = fleet.client.run(&["plan", file.to_str().unwrap()]);
    assert_eq!(plan.stdout.matches("its keys for ZeroMQ are others").count(), NODES.len(), "{plan:?}");
    let changed = fleet.deploy(&text("zeromq_keys = 2"));
    assert!(changed.iter().all(|(name, pid)| after[name] != *pid), "{after:?} {changed:?}");
    let others = keys(changed["manager"]);
    assert!(all.iter().all(|(name, key)| others[name] != *key));

    let back = fleet.client.run(&["rollback"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(keys(pids(&fleet.client.wait_for_all("RUNNING"))["manager"]), all);
}

#[test]
fn a_controller_that_has_lost_its_secret_says_so_and_the_next_deployment_has_new_keys() {
    let mut fleet = Fleet::start();
    let text = cluster(ports(), "backend = zeromq", &NODES);
    let before = fleet.deploy(&text);
    let all = keys(before["manager"]);
    fleet.controller.kill();
    std::fs::remove_file(fleet.controller.state_dir().join("zeromq.key")).unwrap();
    fleet.controller.start_again();
    eventually("both agents say so", || {
        let events = fleet.client.events();
        let errors = events.iter().filter(|event| event.kind == "error");
        let told =
            errors.filter(|event| event.msg.as_ref().is_some_and(|msg| msg.contains("in force with other contents")));
        let who: BTreeSet<_> = told.map(|event| event.instance.clone()).collect();
        (who.len() == 2).then_some(())
    });
    assert_eq!(pids(&fleet.client.wait_for_all("RUNNING")), before, "nodes go on with the keys that they have");
    let after = fleet.deploy(&text);
    assert!(after.iter().all(|(name, pid)| before[name] != *pid), "{before:?} {after:?}");
    let others = keys(after["manager"]);
    assert!(all.iter().all(|(name, key)| others[name] != *key));
    assert_eq!(keys(after["worker-2"])["CLIENT_SECRETKEY"], others["CLIENT_SECRETKEY"]);
}

#[test]
fn where_zeek_cannot_encrypt_nodes_have_no_keys_and_where_it_must_they_are_not_started() {
    let stage = Stage::with_stand_in("8.1.0");
    let first = ports();
    let one = ["manager a", "worker-1 a"];
    let status = stage.deployed(&cluster(first, "backend = zeromq", &one));
    assert!(pids(&status).values().all(|pid| keys(*pid).is_empty()));
    let verdict = stage.deploy(&cluster(first, "backend = zeromq\nencrypt = yes", &one));
    let error = verdict.outcomes.iter().find_map(|outcome| outcome.error.clone()).unwrap_or_default();
    assert!(error.starts_with("Zeek 8.1 cannot encrypt what nodes say by this backend: choose "), "{verdict:?}");
    assert_eq!(pids(&stage.client.status()), pids(&status), "nothing was touched");

    let stage = Stage::with_stand_in("8.2.0");
    let first = ports();
    let status = stage.deployed(&cluster(first, "encrypt = no", &one));
    assert!(pids(&status).values().all(|pid| keys(*pid).is_empty()));
    // Whoever brings keys of their own has those alone.
    let names = ["SERVER_PUBLICKEY", "SERVER_SECRETKEY", "CLIENT_PUBLICKEY", "CLIENT_SECRETKEY"];
    let own: Vec<String> = names.iter().map(|name| format!("{CURVE}{name}={}", "x".repeat(40))).collect();
    let status = stage.deployed(&cluster(first, &format!("env = {}", own.join(" ")), &one));
    assert!(pids(&status).values().all(|pid| keys(*pid).values().all(|key| *key == "x".repeat(40))));
    stage.deployed(&cluster(first, "", &one));
    assert!(pids(&stage.client.status()).values().all(|pid| keys(*pid).len() >= 3));
}

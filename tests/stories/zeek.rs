//! Zeek nodes: a stand-in for Zeek by default, and the real one that `WATCHPOST_ZEEK` names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use watchpost::web::json::{Status, Verdict};

use crate::common::zeek::{Zeek, ports};
use crate::common::{Answer, Client, Daemon, Reserved, Scene, changes, check_log, eventually, node, pids, processes};

/// A lab with Zeek.
pub struct Stage {
    pub daemon: Daemon,
    pub client: Client,
    pub zeek: Zeek,
    pub scene: Scene,
}

impl Stage {
    pub fn new(version: &str) -> Self {
        let scene = Scene::new();
        let zeek = Zeek::of(&scene, version);
        Self::with(scene, zeek)
    }

    /// Of this version, whatever else there is.
    pub fn with_stand_in(version: &str) -> Self {
        let scene = Scene::new();
        let zeek = Zeek::stand_in(&scene, version);
        Self::with(scene, zeek)
    }

    pub fn with(scene: Scene, zeek: Zeek) -> Self {
        let (any, file) = (scene.any_port(), scene.write("lab.cfg", "[instances]\na\nb\n"));
        let args = ["lab", file.to_str().unwrap(), "--http", &any];
        let daemon = Daemon::start_with(&scene, "lab", &args, &zeek.settings());
        let client = daemon.client();
        client.wait("nothing to be deployed", |status| status.deploying.is_none() && status.configuration.is_some());
        Self { client, daemon, zeek, scene }
    }

    pub fn deploy(&self, text: &str) -> Verdict {
        self.client.deploy(&self.scene.write("next.cfg", text))
    }

    pub fn deployed(&self, text: &str) -> Status {
        self.client.deployed(&self.scene.write("next.cfg", text));
        self.client.wait_for_all("RUNNING")
    }
}

/// A cluster in the ports from the first on, of nodes as `name instance`.
pub fn cluster(first: u16, more: &str, nodes: &[&str]) -> String {
    let metrics = first + 100;
    let mut text = format!("[instances]\na\nb\n[zeek]\nport = {first}\nmetrics_port = {metrics}\n{more}\n");
    for line in nodes {
        let (name, instance) = line.split_once(' ').unwrap();
        let role = name.split('-').next().unwrap();
        let interface = if role == "worker" { "interface = lo\n" } else { "" };
        writeln!(text, "[{name}]\ninstance = {instance}\nrole = {role}\n{interface}ready = settle 50ms").unwrap();
    }
    text
}

fn environment(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let pair = |variable: &str| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split('\0').filter_map(pair).collect()
}

const THREE: [&str; 3] = ["manager a", "logger a", "worker-1 a"];
const TWELVE: [&str; 12] = [
    "manager a",
    "logger-1 a",
    "logger-2 b",
    "proxy-1 a",
    "proxy-2 b",
    "worker-1 a",
    "worker-2 a",
    "worker-3 a",
    "worker-4 b",
    "worker-5 b",
    "worker-6 b",
    "worker-7 b",
];

#[test]
fn clusters_of_every_size_run_on_every_version_of_zeek() {
    for version in ["5.0.1", "7.0.0", "8.0.10", "9.0.0"] {
        let stage = Stage::new(version);
        let first = ports();
        for nodes in [&["manager a"][..], &THREE, &TWELVE] {
            let status = stage.deployed(&cluster(first, "", nodes));
            assert_eq!(status.nodes.len(), nodes.len());
            for (name, pid) in pids(&status) {
                let environment = environment(pid);
                assert_eq!(environment["CLUSTER_NODE"], name, "Zeek {version}");
                let layout = environment["ZEEKPATH"].split(':').next().unwrap();
                let layout = std::fs::read_to_string(format!("{layout}/cluster-layout.zeek")).unwrap();
                assert_eq!(layout.matches("$node_type").count(), nodes.len(), "{layout}");
            }
        }
        check_log(&stage.client.events());
    }
}

#[test]
fn both_backends_run_where_there_are_both() {
    let stage = Stage::new("8.2.0");
    let first = ports();
    for backend in ["broker", "zeromq"] {
        let status = stage.deployed(&cluster(first, &format!("backend = {backend}"), &THREE));
        let pid = pids(&status)["manager"];
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(command.contains(&format!("frameworks/cluster/backend/{backend}\0")), "{command}");
    }
}

#[test]
fn a_worker_that_joins_has_no_other_worker_started_afresh() {
    let stage = Stage::new("8.0.10");
    let first = ports();
    let before = pids(&stage.deployed(&cluster(first, "", &TWELVE)));
    let thirteen: Vec<&str> = TWELVE.into_iter().chain(["worker-8 a"]).collect();
    let after = pids(&stage.deployed(&cluster(first, "", &thirteen)));
    for (name, pid) in &before {
        assert_eq!(after[name] == *pid, name.starts_with("worker"), "{name}");
    }
    let events = stage.client.events();
    let why = "started afresh, because worker-8 joined the cluster";
    let told: Vec<_> = events.iter().filter(|event| event.msg.as_deref() == Some(why)).collect();
    assert_eq!(told.len(), 5, "the manager, two loggers and two proxies");

    // Whoever dies comes back into the same cluster, and nobody else is touched.
    processes::signal(after["worker-2"], Signal::KILL);
    let back = stage.client.wait("worker-2 is back", |status| {
        status.nodes.len() == 13
            && status.nodes.iter().all(|node| node.state == "RUNNING")
            && node(status, "worker-2").pid != Some(after["worker-2"])
    });
    for (name, pid) in pids(&back) {
        assert_eq!(pid == after[&name], name != "worker-2", "{name}");
    }
}

/// The files that were rendered for a node, by which it was launched.
fn files_of(pid: u32) -> String {
    environment(pid)["ZEEKPATH"].split(':').next().unwrap().to_owned()
}

#[test]
fn who_dies_while_others_are_switched_comes_back_as_it_was_until_it_is_decided() {
    let stage = Stage::new("8.0.10");
    let first = ports();
    let before = pids(&stage.deployed(&cluster(first, "", &TWELVE)));
    let (reserved, listening) = (Reserved::new(), "ready_within = 50s");
    let slow = format!(
        "[worker-8]\ninstance = a\nrole = worker\ninterface = lo\n{listening}\nready = port {}\n",
        reserved.port()
    );
    let file = stage.scene.write("next.cfg", &(cluster(first, "", &TWELVE) + &slow));
    let client = stage.client.clone();
    let deploying = std::thread::spawn(move || client.deploy(&file));
    let middle = stage.client.wait("the new worker alone is waited for", |status| {
        status.deployment.as_ref().is_some_and(|present| present.under_way == ["worker-8".to_owned()])
    });
    let killed = |of: u32| {
        let known = files_of(of);
        processes::signal(of, Signal::KILL);
        let back = stage.client.wait("worker-2 is back", |status| {
            let worker = node(status, "worker-2");
            worker.state == "RUNNING" && worker.pid != Some(of)
        });
        (known, files_of(pids(&back)["worker-2"]), pids(&back)["worker-2"])
    };
    let (was, is, again) = killed(before["worker-2"]);
    let manager = files_of(pids(&middle)["manager"]);
    assert_eq!(was, is, "nothing is decided");
    assert_ne!(manager, was, "which was switched");
    let _listener = reserved.listen();
    let verdict = deploying.join().unwrap();
    assert!(verdict.ok, "{verdict:?}");
    assert_eq!(killed(again).1, manager, "it is in force");
}

#[test]
fn of_workers_that_read_one_interface_one_is_missed_at_a_time() {
    let stage = Stage::new("8.0.10");
    let workers: Vec<String> =
        (1..=8).map(|at| format!("worker-{at} {}", if at % 2 == 0 { "a" } else { "b" })).collect();
    let nodes: Vec<&str> = THREE[..2].iter().copied().chain(workers.iter().map(String::as_str)).collect();
    let first = ports();
    stage.deployed(&cluster(first, "", &nodes));
    let before = stage.client.events().len();
    let next = cluster(first, "", &nodes).replace("interface = lo", "interface = lo\nenv = COLOUR=blue");
    stage.deployed(&next);
    let mut missed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut most, mut most_in_all) = (0, 0);
    let events = stage.client.events().split_off(before);
    for event in events.iter().filter(|event| event.kind == "change") {
        let (instance, name) = (event.instance.clone().unwrap(), event.node.clone().unwrap());
        let of_it = missed.entry(instance).or_default();
        of_it.retain(|other| *other != name);
        if event.new.as_deref() != Some("RUNNING") && name.starts_with("worker") {
            of_it.push(name);
        }
        most = most.max(of_it.len());
        most_in_all = most_in_all.max(missed.values().map(Vec::len).sum());
    }
    let told: Vec<_> = events.iter().map(|event| (&event.node, &event.new, &event.msg)).collect();
    assert_eq!(most, 1, "of those that read one interface of a machine: {told:#?}");
    assert!(most_in_all <= 2, "a quarter of the workers: {most_in_all}");
}

#[test]
fn a_script_with_an_error_stops_nothing_and_is_told_by_file_and_line() {
    let stage = Stage::new("8.0.10");
    let first = ports();
    let before = stage.deployed(&cluster(first, "", &THREE));
    let script = stage.scene.write("broken.zeek", "event zeek_init()\n\t{\n\tSYNTAX ERROR\n\t}\n");
    let broken = cluster(first, &format!("scripts = local {}", script.display()), &THREE);
    let verdict = stage.deploy(&broken);
    assert!(!verdict.ok);
    let errors: Vec<String> = verdict.outcomes.iter().filter_map(|outcome| outcome.error.clone()).collect();
    let want = format!("Zeek does not accept it: error in {}, line 3: ", script.display());
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.iter().all(|error| error.starts_with(&want)), "{errors:?}");
    assert_eq!(pids(&stage.client.status()), pids(&before));
    let paths: Vec<_> =
        THREE.iter().map(|line| changes(&stage.client.events(), line.split(' ').next().unwrap()).len()).collect();
    assert_eq!(paths, [2, 2, 2], "PENDING and RUNNING, and nothing since");

    std::fs::write(&script, "# mended\n").unwrap();
    stage.deployed(&broken);
}

#[test]
fn what_a_cluster_lacks_is_said_in_one_sentence_and_nothing_is_started() {
    let scene = Scene::new();
    let zeek = Zeek::stand_in(&scene, "4.2.0");
    let stage = Stage::with(scene, zeek);
    let first = ports();
    let errors = |text: &str| {
        let verdict = stage.deploy(text);
        verdict.outcomes.into_iter().filter_map(|outcome| outcome.error).collect::<Vec<_>>().join("\n")
    };
    let old = errors(&cluster(first, "", &THREE));
    assert!(old.contains("is Zeek 4.2, and 5.0 is the oldest") && old.lines().count() == 1, "{old}");

    // Another program in its place is asked anew, without a restart of anything.
    let replaced = Zeek::stand_in(&stage.scene, "7.0.0");
    std::fs::copy(replaced.program(), stage.zeek.program()).unwrap();
    let zeromq = errors(&cluster(first, "backend = zeromq", &THREE));
    assert!(zeromq.contains("Zeek 7.0 knows no ZeroMQ"), "{zeromq}");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let text = cluster(first, "", &["manager a"]) + &format!("port = {port}\n");
    let taken = errors(&text);
    assert_eq!(taken, format!("port {port}/tcp is taken by another program: choose another, or stop that one"));
    drop(other);
    let interface = errors(&cluster(first, "", &THREE).replace("interface = lo", "interface = nowhere0"));
    assert!(interface.starts_with("interface `nowhere0` is not there: this machine has "), "{interface}");
    let file = stage.scene.write("two.cfg", &cluster(first, "", &["manager-1 a", "manager-2 b"]));
    let two = stage.client.run(&["deploy", file.to_str().unwrap()]);
    assert!(two.stderr.contains("a Zeek cluster has one manager, and these are two"), "{two:?}");
    stage.scene.check_that_nothing_runs();
}

#[test]
fn a_node_that_fails_at_its_start_shows_what_zeek_said() {
    let stage = Stage::new("8.0.10");
    if stage.zeek.is_real() {
        return; // a real one fails of itself, or not at all
    }
    let script = stage.scene.write("fails.zeek", "# FAIL AT START\n");
    let first = ports();
    let text = cluster(first, &format!("scripts = {}", script.display()), &["manager a"]);
    let verdict = stage.client.deploy_and_keep(&stage.scene.write("next.cfg", &text));
    let output = verdict.outcomes.iter().find_map(|outcome| outcome.output.clone()).unwrap();
    assert!(output.stderr.contains("fatal error: asked to fail by a script"), "{verdict:?}");
    eventually("it is tried again", || (node(&stage.client.status(), "manager").restarts > 0).then_some(()));
}

/// Every file of an installation, and when it and its directory were written to.
fn contents(prefix: &Path) -> BTreeMap<PathBuf, (i64, i64, u64)> {
    let (mut found, mut rest) = (BTreeMap::new(), vec![prefix.to_owned()]);
    while let Some(path) = rest.pop() {
        let about = std::fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            rest.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (about.mtime(), about.mtime_nsec(), about.len()));
    }
    found
}

#[test]
fn nothing_of_an_installation_is_written_to_whatever_is_done_with_it() {
    let stage = Stage::new("8.2.0");
    let before = contents(&stage.zeek.prefix());
    let first = ports();
    for backend in ["broker", "zeromq"] {
        stage.deployed(&cluster(first, &format!("backend = {backend}\nrotation_interval = 1s"), &THREE));
    }
    let next = stage.scene.write("next.cfg", &cluster(first, "heartbeat = 1s", &THREE));
    assert_eq!(stage.client.run(&["plan", next.to_str().unwrap()]).code, 0);
    assert_eq!(stage.client.run(&["print", "bits_per_uid"]).code, 0);
    processes::signal(pids(&stage.client.status())["worker-1"], Signal::KILL);
    stage.client.wait("it is back", |status| {
        let worker = node(status, "worker-1");
        worker.state == "RUNNING" && worker.restarts == 1
    });
    assert!(stage.client.order("stop", &[]).ok);
    assert_eq!(contents(&stage.zeek.prefix()), before);
}

/// Every path below that others may read, or look into, as far as they can come there.
fn open_to_others(home: &Path) -> Vec<String> {
    let mut open = Vec::new();
    let mut rest = vec![home.to_owned()];
    while let Some(path) = rest.pop() {
        let found = std::fs::symlink_metadata(&path).unwrap();
        let mode = found.mode();
        if found.is_dir() && mode & 0o001 != 0 {
            rest.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if mode & 0o004 != 0 && !found.is_symlink() {
            open.push(path.strip_prefix(home).unwrap().display().to_string());
        }
    }
    open.sort();
    open
}

#[test]
fn a_zeek_node_of_another_user_reads_what_is_rendered_for_it_and_others_read_nothing_else() {
    let scene = Scene::new();
    // The stand-in has to be where that user finds it, and so has the scene.
    std::fs::set_permissions(scene.path(""), std::fs::Permissions::from_mode(0o711)).unwrap();
    let zeek = Zeek::copied(&scene, "8.0.10");
    let stage = Stage::with(scene, zeek);
    let first = ports();
    let text = cluster(first, "env = SECRET=s3cret\nrotation_interval = 1s", &["manager a", "worker-1 a"]);
    let text = text.replace("role = manager", "role = manager\nuser = nobody");
    if !rustix::process::geteuid().is_root() {
        let verdict = stage.deploy(&text);
        let errors: Vec<_> = verdict.outcomes.iter().filter_map(|outcome| outcome.error.clone()).collect();
        let refusal = "cannot become user `nobody`: Operation not permitted (os error 1)";
        assert!(errors.iter().any(|error| error.contains(refusal)), "{errors:?}");
        return;
    }
    let status = stage.deployed(&text);
    let pid = pids(&status)["manager"];
    let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_ne!(owner, 0);
    let state = stage.scene.path("lab");
    // Its logs come into the archive, which is the agent's own.
    eventually("a log is archived", || std::fs::read_dir(state.join("archive")).ok()?.next().map(drop));
    let open = open_to_others(&state);
    let is_rendered = |path: &String| {
        let rest = path.strip_prefix("nodes/a/.zeek-a").or(path.strip_prefix("nodes/b/.zeek-b"));
        rest.is_some_and(|rest| !rest.contains("cluster.json"))
    };
    let harmless = ["nodes/a/.sockets", "nodes/b/.sockets", "nodes/a/.in-force-a", "nodes/b/.in-force-b"];
    let rest: Vec<_> = open.iter().filter(|path| !is_rendered(path) && !harmless.contains(&path.as_str())).collect();
    assert_eq!(rest, Vec::<&String>::new(), "of {open:?}");
    for path in open.iter().filter(|path| is_rendered(path)).map(|path| state.join(path)).filter(|path| path.is_file())
    {
        assert!(!std::fs::read_to_string(&path).unwrap_or_default().contains("s3cret"), "{}", path.display());
    }
}

#[test]
fn a_capture_is_read_with_the_scripts_of_a_cluster_in_a_directory_of_its_own() {
    let scene = Scene::new();
    let zeek = Zeek::of(&scene, "8.1.0");
    let script = scene.write("fails.zeek", "# FAIL AT END\n");
    let capture = scene.write("some.pcap", "not much");
    let text =
        format!("[zeek]\nscripts = local\n[worker-1]\nrole = worker\ninterface = lo\nscripts = {}\n", script.display());
    let file = scene.write("cluster.cfg", &text);
    let process = |args: &[&str]| {
        let mut command = scene.watchpost(&["process", capture.to_str().unwrap()]);
        command.args(args).current_dir(scene.path("")).env("WATCHPOST_AGENT_ZEEK", zeek.program());
        Answer::of(command.output().unwrap())
    };
    if zeek.is_real() {
        return assert_ne!(process(&[]).code, 0, "it is no capture");
    }
    let alone = process(&[]);
    assert_eq!((alone.code, alone.stdout), (0, format!("read {}\n", capture.display())));
    assert!(scene.read("some.zeek/conn.log").ends_with("\n8 bytes\n"));
    let of_cluster = process(&["--config", file.to_str().unwrap()]);
    assert_eq!(of_cluster.code, 0, "{of_cluster:?}");
    assert!(scene.path("some.zeek-2/conn.log").exists());
    // The exit code is Zeek's.
    let of_node = process(&["--config", file.to_str().unwrap(), "--node", "worker-1", "--into", "there"]);
    assert_eq!(of_node.code, 3, "{of_node:?}");
    assert!(scene.path("there/conn.log").exists());
    // The files that would travel with it are used where they are.
    scene.write("site/ends.zeek", "# FAIL AT END\n");
    let node = "[w]\nrole = worker\ninterface = lo\nscripts = site/ends.zeek\nfiles = ";
    let site = scene.write("site.cfg", &format!("{node}site\n"));
    let with_files = process(&["--config", site.to_str().unwrap(), "--node", "w"]);
    assert_eq!(with_files.code, 3, "{with_files:?}");
    let gone = scene.write("gone.cfg", &format!("{node}gone\n"));
    for (args, code, want) in [
        (&["--config", gone.to_str().unwrap(), "--node", "w"][..], 2, "gone: it cannot be read: No such file"),
        (&["--into", "there"], 2, "there is something in it"),
        (&["--config", file.to_str().unwrap(), "--node", "w"], 2, "node `w` is not in the cluster file"),
        (&["--zeek", "/nowhere"], 1, "there is no Zeek in /nowhere"),
        (&["--config", "nowhere.cfg"], 2, "cannot read nowhere.cfg"),
    ] {
        let answer = process(args);
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(answer.stderr.contains(want), "{answer:?}");
    }
    std::fs::remove_file(&capture).unwrap();
    let gone = process(&[]);
    assert!(gone.code == 2 && gone.stderr.contains("cannot read"), "{gone:?}");
}

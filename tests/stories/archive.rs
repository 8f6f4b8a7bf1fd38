//! Logs of Zeek nodes: out of their queues into the archive, whatever dies, and the oldest let go.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::process::Signal;

use crate::common::zeek::{Zeek, ports};
use crate::common::{Client, Daemon, Scene, eventually, pids, processes};

/// An agent with Zeek, and its controller.
struct Stage {
    agent: Daemon,
    controller: Daemon,
    client: Client,
    zeek: Zeek,
    first: u16,
    scene: Scene,
}

impl Stage {
    fn new() -> Self {
        let scene = Scene::new();
        let zeek = Zeek::of(&scene, "8.0.10");
        let any = scene.any_port();
        let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
        let address = controller.addresses()["agents"].to_string();
        let args = ["agent", "--name", "a", "--connect", &address];
        let agent = Daemon::start_with(&scene, "a", &args, &zeek.settings());
        let client = controller.client();
        Self { agent, controller, client, zeek, first: ports(), scene }
    }

    /// Deploys a manager, which writes the logs where there is no logger, and these keys of `[zeek]`.
    fn deploy(&self, keys: &str) {
        self.deploy_with(keys, "[manager]\nrole = manager\ninstance = a\nready = settle 50ms\n");
    }

    fn deploy_with(&self, keys: &str, nodes: &str) {
        let (port, metrics_port) = (self.first, self.first + 100);
        // How full the disk of this machine is, is another story.
        let zeek = format!("[zeek]\nport = {port}\nmetrics_port = {metrics_port}\narchive_min_free = 0\n{keys}\n");
        let text = format!("[instances]\na\n{zeek}{nodes}");
        self.client.deployed(&self.scene.write("next.cfg", &text));
    }

    fn manager(&self) -> u32 {
        pids(&self.client.wait_for_all("RUNNING"))["manager"]
    }

    fn home(&self) -> PathBuf {
        self.agent.state_dir().join("nodes/manager")
    }

    fn queue(&self) -> Vec<String> {
        names(&self.home().join("log-queue"))
    }

    /// Every archived log, by its path in the archive.
    fn archived(&self) -> BTreeMap<String, String> {
        archived(&self.agent.state_dir().join("archive"))
    }

    fn wait_for_archived(&self, what: &str, is_so: impl Fn(&BTreeMap<String, String>) -> bool) {
        eventually(what, || {
            let found = self.archived();
            is_so(&found).then_some(())
        });
    }

    /// What the agent has told of logs, as `error` or `log`.
    fn told(&self, kind: &str) -> Vec<String> {
        let events = self.client.events();
        events.iter().filter(|event| event.kind == kind).filter_map(|event| event.msg.clone()).collect()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What stands in an archive: the texts of its logs.
fn archived(archive: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for day in names(archive) {
        for name in names(&archive.join(&day)).into_iter().filter(|name| !name.starts_with('.')) {
            let Ok(bytes) = std::fs::read(archive.join(&day).join(&name)) else { continue };
            let mut text = String::new();
            match name.ends_with(".gz") {
                true => drop(MultiGzDecoder::new(&*bytes).read_to_string(&mut text).unwrap()),
                false => text = String::from_utf8(bytes).unwrap(),
            }
            found.insert(format!("{day}/{name}"), text);
        }
    }
    found
}

/// Checks that of each process all lines are there, from the first on and each once; returns how many of each.
fn lines<'a>(texts: impl IntoIterator<Item = &'a String>) -> BTreeMap<u32, u64> {
    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for line in texts.into_iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
        let (pid, number) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        numbers.entry(pid.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    for (pid, numbers) in &mut numbers {
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(*numbers, expected, "lines of process {pid}");
    }
    numbers.into_iter().map(|(pid, numbers)| (pid, numbers.len() as u64)).collect()
}

#[test]
fn rotated_logs_go_into_the_archive_and_no_line_is_lost_or_doubled_by_a_crash() {
    let stage = Stage::new();
    stage.deploy("rotation_interval = 1s");
    let first = stage.manager();
    stage.wait_for_archived("two logs are archived", |found| found.len() >= 2);
    let found = stage.archived();
    let is_dated = |path: &String| {
        let (day, name) = path.split_once('/').unwrap();
        day.len() == 10 && name.contains(':') && name.ends_with(".log.gz")
    };
    assert!(found.keys().all(is_dated), "{found:?}");
    if stage.zeek.is_real() {
        return; // it says other things in its logs, and when it likes
    }
    processes::signal(first, Signal::KILL);
    let second = eventually("it is back", || Some(stage.manager()).filter(|pid| *pid != first));
    stage.wait_for_archived("the next life has logs there, too", |found| {
        found.values().any(|text| text.contains(&format!("{second} ")))
    });
    stage.client.order("stop", &["manager"]);
    eventually("the queue is empty", || stage.queue().is_empty().then_some(()));
    let archived = stage.archived();
    let lines = lines(archived.values());
    assert_eq!(lines.keys().copied().collect::<Vec<_>>(), {
        let mut both = [first, second];
        both.sort_unstable();
        both
    });
    assert_eq!(names(&stage.home()).iter().filter(|name| name.ends_with(".log")).count(), 0);
    assert_eq!(stage.told("error"), [""; 0]);
}

#[test]
fn what_is_rotated_while_the_agent_is_away_is_archived_when_it_returns() {
    let mut stage = Stage::new();
    stage.deploy("rotation_interval = 1s\narchive_compress = no");
    let pid = stage.manager();
    // Its controller is away, too: the agent knows by itself what is to become of logs.
    stage.controller.kill();
    stage.agent.kill();
    let before = stage.archived().len();
    eventually("it rotates on", || (stage.queue().len() >= 2).then_some(()));
    assert_eq!(stage.archived().len(), before);
    stage.agent.start_again();
    stage.wait_for_archived("they are archived", |found| found.len() >= before + 2);
    assert!(processes::is_alive(pid));
    if !stage.zeek.is_real() {
        lines(stage.archived().values());
    }
}

#[test]
fn logs_that_a_dead_node_left_are_archived_when_it_does_not_come_back() {
    let stage = Stage::new();
    if stage.zeek.is_real() {
        return; // its logs are its own
    }
    // Without rotation Zeek leaves its log open, and would begin the next one over it.
    stage.deploy_with(
        "rotation_interval = 0s\narchive_compress = no",
        "[manager]\nrole = manager\ninstance = a\nready = settle 50ms\nrestart = never\n",
    );
    let pid = stage.manager();
    eventually("it has written", || {
        std::fs::read_to_string(stage.home().join("conn.log")).unwrap().lines().nth(2).map(drop)
    });
    processes::signal(pid, Signal::KILL);
    stage.client.wait_for("manager", "FAILED");
    stage.wait_for_archived("what it left is archived", |found| found.len() == 1);
    let first = lines(stage.archived().values());
    assert!(first[&pid] > 0);

    // And what a life leaves is not written over by the next.
    stage.client.order("start", &["manager"]);
    let second = stage.manager();
    processes::signal(second, Signal::KILL);
    stage.client.wait_for("manager", "FAILED");
    stage.client.order("start", &["manager"]);
    let third = stage.manager();
    stage.wait_for_archived("both are there", |found| found.len() == 2);
    let found = lines(stage.archived().values());
    assert_eq!(found[&pid], first[&pid]);
    processes::signal(third, Signal::USR1);
    stage.wait_for_archived("what it rotates when it is asked to comes there, too", |found| found.len() == 3);
    lines(stage.archived().values());
}

#[test]
fn a_command_that_fails_is_told_once_and_tried_again_and_nothing_is_lost() {
    let stage = Stage::new();
    let (shipped, ship) = (stage.scene.path("shipped"), stage.scene.path("ship"));
    std::fs::create_dir(&shipped).unwrap();
    let text = "#!/bin/sh\n[ -e \"$1/open\" ] || { echo the harbour is closed >&2; exit 7; }\n\
                cp \"$2\" \"$1/$WATCHPOST_LOG_NAME.$WATCHPOST_LOG_OPENED.$WATCHPOST_LOG_NODE.$$\"\n";
    std::fs::write(&ship, text).unwrap();
    std::fs::set_permissions(&ship, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    stage.deploy(&format!("rotation_interval = 1s\narchive_command = {} {}", ship.display(), shipped.display()));
    stage.manager();
    let told = eventually("the failure is told", || Some(stage.told("error")).filter(|told| !told.is_empty()));
    let end = "exited with status 7 and said: the harbour is closed; nothing is lost, and it is tried again";
    assert!(told[0].starts_with("cannot archive ") && told[0].ends_with(end), "{told:?}");
    eventually("more wait", || (stage.queue().len() >= 2).then_some(()));
    assert_eq!(stage.told("error").len(), 1);
    std::fs::write(shipped.join("open"), "").unwrap();
    let over = "logs are archived again: none waits any more";
    eventually("the end of it is told", || stage.told("log").iter().any(|told| told == over).then_some(()));
    stage.client.order("stop", &["manager"]);
    eventually("the queue is empty", || stage.queue().is_empty().then_some(()));
    let shipped: BTreeMap<_, _> = names(&shipped)
        .into_iter()
        .filter(|name| name != "open")
        .map(|name| (name.clone(), std::fs::read_to_string(shipped.join(&name)).unwrap()))
        .collect();
    if !stage.zeek.is_real() {
        assert!(shipped.keys().all(|name| name.starts_with("conn.20") && name.contains(".manager.")), "{shipped:?}");
        lines(shipped.values());
    }
    assert_eq!(stage.archived().len(), 0, "nothing goes where the command has it");
}

#[test]
fn the_oldest_logs_are_let_go_and_nothing_else_is() {
    let stage = Stage::new();
    let archive = stage.scene.path("logs");
    let day = archive.join("2001-02-03");
    std::fs::create_dir_all(&day).unwrap();
    for name in ["conn.10:00:00-11:00:00.log.gz", "notes.txt"] {
        std::fs::write(day.join(name), "x").unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_200_000);
        std::fs::File::options().write(true).open(day.join(name)).unwrap().set_modified(old).unwrap();
    }
    let keys = format!("rotation_interval = 1s\narchive = {}\narchive_keep_age = 2s", archive.display());
    stage.deploy(&keys);
    eventually("the log of long ago is gone", || (names(&day) == ["notes.txt"]).then_some(()));
    let first =
        eventually("a log is archived", || archived(&archive).into_keys().find(|path| path.ends_with(".log.gz")));
    eventually("it is let go in its time", || (!archived(&archive).contains_key(&first)).then_some(()));
    assert_eq!(names(&day), ["notes.txt"]);
}

#[test]
fn what_goes_nowhere_stays_in_the_queue() {
    let stage = Stage::new();
    stage.deploy("rotation_interval = 1s\narchive = none");
    stage.manager();
    eventually("logs wait in the queue", || (stage.queue().len() >= 2).then_some(()));
    let waiting = stage.queue();
    stage.deploy("rotation_interval = 1s\narchive_compress = no");
    eventually("they are archived now", || {
        let left = stage.queue();
        waiting.iter().all(|name| !left.contains(name)).then_some(())
    });
    assert!(stage.archived().len() >= waiting.len());
}

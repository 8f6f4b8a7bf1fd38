//! Disks that fill up in the middle of a deployment: it goes back everywhere, is decided once, and says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;

use watchpost::state_dir::StateDir;
use watchpost::web::history::Deployed;

use crate::common::{Client, Daemon, Fleet, Reserved, Scene, eventually, node, pids, processes, sleeper, states};
use crate::phases::{ALL, all, cluster, colours, is_red_again, last, slow, staying};

/// A disk of its own at a directory of a daemon, of so many MiB.
struct Small {
    directory: PathBuf,
    mount: String,
}

impl Small {
    fn at(directory: PathBuf, size: u32) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let place = directory.display();
        let mount = format!("mount -t tmpfs -o size={size}m,mode=700 none {place} && exec \"$0\" \"$@\"");
        Self { directory, mount }
    }

    /// The command by which a daemon has it.
    fn through(&self) -> Vec<&str> {
        let mut through = vec!["unshare"];
        if !rustix::process::geteuid().is_root() {
            through.extend(["--user", "--map-root-user"]);
        }
        through.extend(["--mount", "sh", "-c", &self.mount]);
        through
    }

    /// The directory as that daemon sees it.
    fn seen_by(&self, daemon: &Daemon) -> PathBuf {
        Path::new("/proc").join(daemon.pid().to_string()).join("root").join(self.directory.strip_prefix("/").unwrap())
    }
}

/// Leaves no room where a daemon sees this directory.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        let piece = vec![b'x'; size];
        let error = std::iter::from_fn(|| file.write_all(&piece).err().map(Some).or(Some(None))).flatten().next();
        assert_eq!(error.unwrap().kind(), ErrorKind::StorageFull);
    }
    path
}

#[test]
fn where_an_agents_disk_fills_up_while_it_switches_all_go_back_and_it_is_named() {
    let mut fleet = Fleet::start();
    let disk = Small::at(fleet.scene.path("small/nodes"), 4);
    let connect = fleet.controller.addresses()["agents"].to_string();
    let agent = ["agent", "--name", "small", "--connect", &connect];
    let small = Daemon::start_through(&disk.through(), &fleet.scene, "small", &agent);
    let nodes = disk.seen_by(&small);
    fleet.agents.insert("small", small);
    let names = ["a", "b", "c", "small"];
    let file = |colour: &str, more: &str| {
        let nodes = names.map(|name| {
            sleeper(&format!("stays-{name}"), &format!("instance = {name}"))
                + &sleeper(&format!("moves-on-{name}"), &format!("instance = {name}\nenv = COLOUR={colour}"))
        });
        fleet.file(&names, &[nodes.concat(), more.to_owned()])
    };
    fleet.client.deployed(&file("red", ""));
    let before = fleet.client.wait_for_all("RUNNING");

    // One that is switched before all others waits until there is no room any more for those that are new.
    let reserved = Reserved::new();
    let more = slow(&reserved) + "role = manager\n" + &sleeper("new", "instance = small\nrole = worker");
    let next = file("blue", &more);
    let client = fleet.client.clone();
    let deploying = thread::spawn(move || client.run(&["deploy", "--json", next.to_str().unwrap()]));
    fleet.client.wait("the slow one is being switched", |status| states(status).contains_key("slow"));
    let filler = fill(&nodes);
    let _listener = reserved.listen();
    let answer = deploying.join().unwrap();
    let deployed: Deployed = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(answer.code, 1, "{answer:?}");
    let of_new = deployed.verdict.outcomes.iter().find(|outcome| outcome.node.as_deref() == Some("new")).unwrap();
    assert!(of_new.error.as_deref().unwrap().contains("No space left on device"), "{answer:?}");
    let said = deployed.verdict.outcomes.last().unwrap().error.clone().unwrap();
    assert_eq!(said, format!("rolled back: configuration {} is in force again", before.configuration.clone().unwrap()));
    fs::remove_file(filler).unwrap();
    let after = fleet.client.wait("all is as it was", |status| {
        pids(status).len() == 8
            && status.nodes.iter().all(|node| node.state == "RUNNING")
            && status.deployment.is_none()
    });
    let red: BTreeMap<_, _> = names.map(|name| (format!("moves-on-{name}"), "red".to_owned())).into();
    assert_eq!((colours(&after), staying(&after)), (red, staying(&before)));
    assert_eq!(last(&fleet).verdict, "rolled-back");
}

/// A fleet whose controller has a small disk, on which everything is red.
fn with_small_controller() -> (Fleet, PathBuf) {
    let scene = Scene::new();
    let disk = Small::at(scene.path("controller"), 12);
    let any = scene.any_port();
    let args = ["controller", "--listen", &any, "--http", &any];
    let controller = Daemon::start_through(&disk.through(), &scene, "controller", &args);
    let home = disk.seen_by(&controller);
    let addresses = StateDir::addresses_in(&home).unwrap();
    let client = Client::new(&scene.path(""), addresses["http"], &home);
    let mut fleet = Fleet { controller, agents: BTreeMap::new(), client, scene };
    for name in ALL {
        let connect = addresses["agents"].to_string();
        let agent = Daemon::start(&fleet.scene, name, &["agent", "--name", name, "--connect", &connect]);
        fleet.agents.insert(name, agent);
    }
    fleet.client.deployed(&cluster(&fleet, "red", ""));
    assert_eq!(colours(&fleet.client.wait_for_all("RUNNING")), all("red"));
    (fleet, home)
}

/// Nodes that need more room in a journal than may be left in it.
fn large() -> String {
    let noise = |at: usize| -> String {
        (0..90_000).map(|place: usize| char::from(b'a' + (place * place * at % 23) as u8)).collect()
    };
    (1..4)
        .map(|at| sleeper(&format!("large-{at}"), &format!("instance = a\nrole = none\nenv = NOISE={}", noise(at))))
        .collect()
}

#[test]
fn where_the_controller_cannot_write_that_it_begins_nothing_is_touched() {
    let (fleet, home) = with_small_controller();
    let before = fleet.client.status();
    let file = cluster(&fleet, "blue", &large());
    let filler = fill(&home);
    let verdict = fleet.client.deploy(&file);
    let said = verdict.outcomes.iter().find_map(|outcome| outcome.error.clone()).unwrap_or_default();
    assert!(!verdict.ok && said.starts_with("the configuration cannot be kept: "), "{verdict:?}");
    let after = fleet.client.status();
    assert_eq!((pids(&after), &after.configuration), (pids(&before), &before.configuration));
    fs::remove_file(filler).unwrap();
    eventually("there is room for it again", || fleet.client.deploy(&file).ok.then_some(()));
    assert_eq!(staying(&fleet.client.wait_for_all("RUNNING")), staying(&before));
}

#[test]
fn where_the_controller_cannot_write_what_it_decides_all_go_back_and_it_says_so() {
    let (fleet, home) = with_small_controller();
    let before = fleet.client.status();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &(slow(&reserved) + &large()));
    let client = fleet.client.clone();
    let deploying = thread::spawn(move || client.deploy(&file));
    fleet.client.wait("all but the slow one are switched", |status| {
        status
            .deployment
            .as_ref()
            .is_some_and(|present| present.under_way == ["slow".to_owned()] && present.switched == 6)
    });
    let switched = pids(&fleet.client.status());
    let filler = fill(&home);
    let _listener = reserved.listen();
    let verdict = deploying.join().unwrap();
    let errors: Vec<_> = verdict.outcomes.iter().filter_map(|outcome| outcome.error.clone()).collect();
    assert!(
        !verdict.ok && errors.iter().any(|error| error.starts_with("the configuration cannot be kept: ")),
        "{errors:?}"
    );
    let said = format!("rolled back: configuration {} is in force again", before.configuration.clone().unwrap());
    assert_eq!(errors.last(), Some(&said));
    assert!(!processes::is_alive(switched["moves-on-a"]), "what was switched is not left as it was");
    fs::remove_file(filler).unwrap();
    is_red_again(&fleet, &before);
    assert_eq!(node(&fleet.client.status(), "stays-a").state, "RUNNING");
    let next = cluster(&fleet, "blue", "");
    eventually("it can be deployed", || fleet.client.deploy(&next).ok.then_some(()));
}

//! Files that travel with a configuration, from the controller to the nodes of every instance.

use std::fs;
use std::path::PathBuf;

use crate::common::{Answer, Fleet, eventually, node, pids, script};
use crate::zeek::Stage;

/// A node that says what is in its list, and again whenever it is told to.
const READER: &str = "cat \"$WATCHPOST_FILES/site/list\"; cat ${files}/site/list; while :; do sleep 60; done";

/// A fleet whose three nodes read a list that lies beside the cluster file, and one that reads nothing.
struct Place {
    fleet: Fleet,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let fleet = Fleet::start();
        let reads = |name: &str, of: &str| script(name, &format!("instance = {of}\nfiles = site"), READER);
        let file = fleet.file(
            &["a", "b", "c"],
            &[
                reads("on-a", "a"),
                reads("on-b", "b"),
                reads("on-c", "c"),
                script("alone", "instance = b", "while :; do sleep 60; done"),
            ],
        );
        let place = Self { fleet, file };
        place.write("first");
        place
    }

    fn write(&self, line: &str) {
        self.fleet.scene.write("site/list", &format!("{line}\n"));
    }

    fn deploy(&self) -> Answer {
        self.fleet.client.run(&["deploy", self.file.to_str().unwrap()])
    }

    fn home(&self, agent: &str, node: &str) -> PathBuf {
        self.fleet.agents[agent].state_dir().join("nodes").join(node)
    }

    /// The trees of a node's files.
    fn trees(&self, agent: &str, node: &str) -> Vec<PathBuf> {
        let mut trees: Vec<_> =
            fs::read_dir(self.home(agent, node)).unwrap().map(|entry| entry.unwrap().path()).collect();
        trees.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("files-"));
        trees.sort();
        trees
    }

    fn blobs(&self, agent: &str) -> PathBuf {
        self.fleet.agents[agent].state_dir().join("nodes").join(format!(".bundles-{agent}"))
    }
}

#[test]
fn every_node_finds_its_files_and_another_list_restarts_those_that_have_it_and_no_other() {
    let place = Place::new();
    let deployed = place.deploy();
    assert_eq!(deployed.code, 0, "{deployed:?}");
    for (agent, name) in [("a", "on-a"), ("b", "on-b"), ("c", "on-c")] {
        place.fleet.agents[agent].wait_until_says(name, "first");
        assert_eq!(fs::read_to_string(place.trees(agent, name)[0].join("site/list")).unwrap(), "first\n");
    }
    let before = pids(&place.fleet.client.status());
    place.write("second");
    let planned = place.fleet.client.run(&["plan", place.file.to_str().unwrap()]);
    assert!(planned.stdout.contains("files"), "{planned:?}");
    assert_eq!(pids(&place.fleet.client.status()), before, "whoever only asks touches nothing");
    assert_eq!(place.deploy().code, 0);
    place.fleet.agents["a"].wait_until_says("on-a", "second");
    let after = pids(&place.fleet.client.status());
    assert_eq!(before["alone"], after["alone"]);
    for name in ["on-a", "on-b", "on-c"] {
        assert_ne!(before[name], after[name], "{name}");
    }
    // What can be gone back to is there; what was before that goes.
    assert_eq!(place.trees("a", "on-a").len(), 2);
    place.write("third");
    assert_eq!(place.deploy().code, 0);
    let left =
        || place.trees("a", "on-a").iter().map(|tree| fs::read_to_string(tree.join("site/list")).unwrap()).collect();
    eventually("the first list to go", || {
        let mut left: Vec<String> = left();
        left.sort();
        (left == ["second\n", "third\n"]).then_some(())
    });
    // It is fetched again.
    let back = place.fleet.client.run(&["rollback", "1"]);
    assert_eq!(back.code, 0, "{back:?}");
    place.fleet.agents["c"].wait_until_says("on-c", "first");
}

#[test]
fn a_deployment_that_goes_back_leaves_every_node_the_files_that_it_had() {
    let place = Place::new();
    assert_eq!(place.deploy().code, 0);
    let before = pids(&place.fleet.client.status());
    let old = place.trees("a", "on-a");
    place.write("second");
    let text = fs::read_to_string(&place.file).unwrap();
    let failing = text.replace("[alone]", "[fails]\ninstance = c\ncommand = /bin/false\nfiles = site\n\n[alone]");
    let file = place.fleet.scene.write("failing.cfg", &failing);
    let answer = place.fleet.client.run(&["deploy", file.to_str().unwrap()]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("rolled back"), "{answer:?}");
    place.fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&place.fleet.client.status())["alone"], before["alone"]);
    assert!(old.iter().all(|tree| fs::read_to_string(tree.join("site/list")).unwrap() == "first\n"));
    let reason = node(&place.fleet.client.status(), "on-a").state.clone();
    assert_eq!(reason, "RUNNING");
}

#[test]
fn what_an_agent_has_lost_it_gets_again_and_what_was_damaged_is_not_believed() {
    let mut place = Place::new();
    assert_eq!(place.deploy().code, 0);
    let before = pids(&place.fleet.client.status());
    let agent = place.fleet.agent_mut("a");
    agent.kill();
    let (tree, blobs) = (place.trees("a", "on-a").remove(0), place.blobs("a"));
    fs::remove_dir_all(&tree).unwrap();
    for blob in fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "rubbish").unwrap();
    }
    place.fleet.agent_mut("a").start_again();
    eventually("its files to be there again", || {
        (fs::read_to_string(tree.join("site/list")).ok()? == "first\n").then_some(())
    });
    place.fleet.client.wait_for_all("RUNNING");
    assert_eq!(pids(&place.fleet.client.status()), before, "no node noticed");
    let verdict = place.fleet.client.order("restart", &["on-a"]);
    assert!(verdict.ok, "{verdict:?}");
}

#[test]
fn one_agent_without_room_for_the_files_ends_the_deployment_everywhere() {
    let place = Place::new();
    assert_eq!(place.deploy().code, 0);
    let before = pids(&place.fleet.client.status());
    // There is something in the way of one agent's files.
    let blobs = place.blobs("b");
    fs::remove_dir_all(&blobs).unwrap();
    fs::write(&blobs, "").unwrap();
    place.write("second");
    let answer = place.deploy();
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains("failed b: cannot get the files of sha256:"), "{answer:?}");
    assert!(answer.stdout.contains("Not a directory"), "{answer:?}");
    assert_eq!(pids(&place.fleet.client.status()), before, "nothing was touched anywhere");
    let history = place.fleet.client.run(&["history"]);
    assert!(history.stdout.contains("refused"), "{history:?}");
    fs::remove_file(&blobs).unwrap();
    fs::create_dir(&blobs).unwrap();
    assert_eq!(place.deploy().code, 0);
}

#[test]
fn a_zeek_node_is_looked_at_and_launched_with_the_scripts_that_travel_with_it() {
    let stage = Stage::with_stand_in("7.0.0");
    let text = "[instances]\na\nb\n[z]\ninstance = a\nrole = none\nfiles = site\nscripts = site/mine.zeek\n\
                env = WHERE=${files}/site\n";
    stage.scene.write("site/mine.zeek", "event zeek_init() { }\nSYNTAX ERROR\n");
    let file = stage.scene.write("next.cfg", text);
    let deploy = || stage.client.run(&["deploy", file.to_str().unwrap()]);
    let refused = deploy();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("site/mine.zeek, line 2: syntax error"), "{refused:?}");
    stage.scene.write("site/mine.zeek", "event zeek_init() { }\n");
    let deployed = deploy();
    assert_eq!(deployed.code, 0, "{deployed:?}");
    stage.client.wait_for_all("RUNNING");
    let pid = pids(&stage.client.status())["z"];
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let variable = |name: &str| {
        let found = environment.split('\0').find_map(|variable| variable.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name} in {environment:?}")).to_owned()
    };
    let tree = variable("WATCHPOST_FILES");
    assert_eq!(variable("WHERE"), format!("{tree}/site"));
    assert_eq!(variable("ZEEKPATH").split(':').nth(1), Some(&*tree), "behind what is rendered, before all else");
}

//! What nodes write: kept whole through rotation, whoever is killed, and shown to whoever follows.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};

use crate::common::{Daemon, Fleet, Lab, Scene, eventually, script};

/// Counts for as long as it lives, and goes on counting in its next life: each line a number.
const COUNTER: &str = "n=0; [ -f count ] && read n < count\n\
    trap \"end=1\" TERM\n\
    while [ -z \"$end\" ]; do n=$((n + 1)); echo $n; echo $n > count; [ $((n % 500)) = 0 ] && sleep 0.02; done";
/// Small files, and none of them dropped.
const SMALL: &str = "output_max_bytes = 8192\noutput_keep_files = 10000\nstop_grace = 20s";

/// The numbers of these lines are 1, 2, 3 and so on, each once.
fn check_that_it_counts(text: &str) -> usize {
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        assert_eq!(line.parse(), Ok(count), "line {count} is {line:?}");
    }
    count
}

/// What is put aside of a node's stdout, and what is not, by other means than ours; `None` if a file goes meanwhile.
fn by_hand(directory: &std::path::Path) -> Option<String> {
    let mut names: Vec<_> = fs::read_dir(directory.join("past")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("stdout."));
    names.sort();
    let mut text = Vec::new();
    for path in names {
        match path.extension().is_some_and(|ending| ending == "gz") {
            true => drop(flate2::read::GzDecoder::new(File::open(path).ok()?).read_to_end(&mut text).unwrap()),
            false => text.extend(fs::read(path).ok()?),
        }
    }
    text.extend(fs::read(directory.join("stdout")).unwrap_or_default());
    Some(String::from_utf8(text).unwrap().replace('\0', ""))
}

fn put_aside(directory: &std::path::Path) -> usize {
    fs::read_dir(directory.join("past")).map_or(0, Iterator::count)
}

#[test]
fn a_node_that_numbers_its_lines_loses_none_while_its_agent_is_killed_and_its_output_rotated() {
    let mut fleet = Fleet::start();
    let node = script("counter", &format!("instance = a\n{SMALL}"), COUNTER);
    fleet.client.deployed(&fleet.file(&["a"], &[node]));
    let directory = fleet.agents["a"].state_dir().join("nodes/counter");
    let pid = fleet.client.wait_for("counter", "RUNNING").pid;
    for round in 0..4 {
        let before = put_aside(&directory);
        eventually("its output is put aside", || (put_aside(&directory) > before + 1).then_some(()));
        fleet.agent_mut("a").kill();
        let length = || fs::metadata(directory.join("stdout")).unwrap().len();
        let at = length();
        eventually("it writes on alone", || (length() > at + 20_000 * round).then_some(()));
        fleet.agent_mut("a").start_again();
    }
    assert_eq!(fleet.client.wait_for("counter", "RUNNING").pid, pid, "it is the same process");
    assert!(fleet.client.order("stop", &["counter"]).ok);
    let logs = fleet.client.run(&["logs", "counter", "--stdout", "-n", "1000000"]);
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    let count = check_that_it_counts(&logs.stdout);
    // A file that is being packed is there twice for a moment.
    eventually("what is on disk is what was shown", || (by_hand(&directory)? == logs.stdout).then_some(()));
    let last: usize = fs::read_to_string(directory.join("count")).unwrap().trim().parse().unwrap();
    assert_eq!(count, last, "all that it counted is there");
    let short = fleet.client.run(&["logs", "counter", "--stdout", "-n", "3000"]).stdout;
    assert_eq!(short.lines().next(), Some(&*(count - 2999).to_string()), "across the files that were put aside");
}

/// Somebody who follows a node's stdout into a file.
struct Follower {
    child: Child,
    file: std::path::PathBuf,
}

impl Follower {
    fn start(fleet: &Fleet, controller: &Daemon, node: &str) -> Self {
        let file = fleet.scene.path("followed");
        let url = format!("http://{}", controller.addresses()["http"]);
        let mut command =
            fleet.scene.watchpost(&["logs", "-f", node, "--stdout", "-n", "1000000", "--controller", &url]);
        command.arg("--token-file").arg(controller.state_dir().join("token"));
        let child = command.stdout(File::create(&file).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, file }
    }

    fn wait_for(&self, number: usize) -> String {
        let wanted = format!("\n{number}\n");
        eventually(&format!("{number} is followed"), || {
            let text = fs::read_to_string(&self.file).unwrap();
            text.contains(&wanted).then_some(text)
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_follows_a_node_misses_nothing_through_rotation_restarts_and_lost_links() {
    let mut fleet = Fleet::start();
    let node = script("counter", &format!("instance = b\n{SMALL}"), COUNTER);
    fleet.client.deployed(&fleet.file(&["b"], &[node]));
    let directory = fleet.agents["b"].state_dir().join("nodes/counter");
    let follower = Follower::start(&fleet, &fleet.controller, "counter");
    // The file is empty while it is written.
    let counted =
        || eventually("it counts", || fs::read_to_string(directory.join("count")).ok()?.trim().parse::<usize>().ok());
    let goes_on = |what: &str| {
        let from = counted();
        eventually(what, || (counted() > from + 2000).then_some(()));
    };
    goes_on("it counts");
    follower.wait_for(counted());
    assert!(fleet.client.order("restart", &["counter"]).ok);
    goes_on("it counts in its next life");
    follower.wait_for(counted());
    fleet.agent_mut("b").kill();
    goes_on("it counts alone");
    fleet.agent_mut("b").start_again();
    follower.wait_for(counted());
    fleet.controller.kill();
    goes_on("it counts without a controller");
    fleet.controller.start_again();
    fleet.client.wait_for("counter", "RUNNING");
    assert!(put_aside(&directory) > 2, "its output was put aside meanwhile");
    assert!(fleet.client.order("stop", &["counter"]).ok);
    let last =
        eventually("it has ended", || Some(counted()).filter(|_| fleet.scene.processes_of("counter").is_empty()));
    let text = follower.wait_for(last);
    assert_eq!(check_that_it_counts(&text), last);
}

#[test]
fn whoever_follows_a_silent_node_of_a_lab_hears_its_next_line() {
    let text = "mkfifo gate\necho ready\nread line < gate\necho $line\nexec sleep 1000";
    let scene = Scene::new();
    let keys = format!("directory = {}", scene.path("").display());
    let lab = Lab::start_in(scene, Some(&script("slow", &keys, text)));
    lab.client.wait_for("slow", "RUNNING");
    let file = lab.scene.path("followed");
    let url = format!("http://{}", lab.daemon.addresses()["http"]);
    let mut command = lab.scene.watchpost(&["logs", "slow", "-f", "--json", "--controller", &url]);
    command.arg("--token-file").arg(lab.daemon.state_dir().join("token"));
    let child = command.stdout(File::create(&file).unwrap()).spawn().unwrap();
    let follower = Follower { child, file };
    let said = |what: &str| {
        eventually(what, || fs::read_to_string(&follower.file).unwrap().contains(what).then_some(()));
    };
    said(r#""text":"ready\n""#);
    fs::write(lab.scene.path("gate"), "go on\n").unwrap();
    said(r#""text":"go on\n""#);
}

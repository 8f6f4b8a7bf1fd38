//! The files of nodes on three agents: how they get there, what nodes find, and what is left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use watchpost::bundle::Digest;
use watchpost::web::json::{Status, Verdict};

use crate::common::{Daemon, Fleet, eventually, node, pids, processes, script, sleeper};
use crate::zeek::Stage;

/// Says what is in its list, and runs on.
const READS: &str = "cat \"$WATCHPOST_FILES/list\"\nexec sleep 1000";

/// A node that reads a list.
fn reader(name: &str, instance: &str) -> String {
    script(name, &format!("instance = {instance}\nfiles = list"), READS)
}

/// A fleet on which nodes of `a` and `b` have read the list `one`, and one of `c` has none.
fn with_readers() -> (Fleet, PathBuf) {
    let fleet = Fleet::start();
    fleet.scene.write("list", "one\n");
    let nodes = [reader("on-a", "a"), reader("on-b", "b"), sleeper("on-c", "instance = c")];
    let file = fleet.file(&["a", "b", "c"], &nodes);
    fleet.client.deployed(&file);
    fleet.client.wait_for_all("RUNNING");
    says(&fleet, "one");
    (fleet, file)
}

fn says(fleet: &Fleet, what: &str) {
    fleet.agents["a"].wait_until_says("on-a", what);
    fleet.agents["b"].wait_until_says("on-b", what);
}

/// What stands in the list that the process of this node finds.
fn list_of(status: &Status, name: &str) -> String {
    fs::read_to_string(files_of(status, name).join("list")).unwrap()
}

/// Where the process of this node finds its files.
fn files_of(status: &Status, name: &str) -> PathBuf {
    let environment = fs::read_to_string(format!("/proc/{}/environ", pids(status)[name])).unwrap();
    let files = environment.split('\0').find_map(|variable| variable.strip_prefix("WATCHPOST_FILES="));
    files.expect("it has files").into()
}

/// Where an agent keeps what it fetched.
fn objects(agent: &Daemon, instance: &str) -> PathBuf {
    agent.state_dir().join("nodes").join(format!(".bundles-{instance}"))
}

fn object(agent: &Daemon, instance: &str, content: &[u8]) -> PathBuf {
    objects(agent, instance).join(Digest::of(content).to_string())
}

fn trees(agent: &Daemon, node: &str) -> BTreeSet<String> {
    let home = agent.state_dir().join("nodes").join(node);
    let names = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("files-")).collect()
}

#[test]
fn three_agents_get_what_their_nodes_find_with_modes_and_times_and_without_set_id_bits() {
    let fleet = Fleet::start();
    fleet.scene.write("list", "one\n");
    let program = fleet.scene.write("site/bin/hello", "#!/bin/sh\necho hello from $1\n");
    fs::set_permissions(&program, Permissions::from_mode(0o6750)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let list = File::options().write(true).open(fleet.scene.path("list")).unwrap();
    list.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
    let says = format!("\"${{files}}/site/bin/hello\" \"$WHERE\"\n{READS}");
    let nodes = ["a", "b", "c"].map(|name| {
        let keys = format!("instance = {name}\nfiles = site list\nenv = WHERE=${{files}}/site");
        script(&format!("on-{name}"), &keys, &says)
    });
    fleet.client.deployed(&fleet.file(&["a", "b", "c"], &nodes));
    let status = fleet.client.wait_for_all("RUNNING");
    for name in ["a", "b", "c"] {
        let (agent, on) = (&fleet.agents[name], format!("on-{name}"));
        let tree = files_of(&status, &on);
        assert_eq!(tree.parent().unwrap(), agent.state_dir().join("nodes").join(&on), "in the node's own directory");
        agent.wait_until_says(&on, &format!("hello from {}", tree.join("site").display()));
        agent.wait_until_says(&on, "one");
        let (list, hello) = (tree.join("list").metadata().unwrap(), tree.join("site/bin/hello").metadata().unwrap());
        assert_eq!(list.modified().unwrap(), long_ago);
        assert_eq!((list.mode() & 0o7777, hello.mode() & 0o7777), (0o644, 0o750));
        let kept: Vec<_> = fs::read_dir(objects(agent, name)).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(kept.len(), 3, "two files, and the list of them");
        for file in kept {
            assert_eq!(file.metadata().unwrap().mode() & 0o333, 0, "nobody runs or writes what is kept");
        }
    }
}

#[test]
fn a_changed_list_restarts_the_nodes_that_have_it_and_what_runs_keeps_its_files() {
    let (fleet, file) = with_readers();
    let before = fleet.client.status();
    let old = files_of(&before, "on-a");
    fleet.scene.write("list", "two\n");
    let planned = fleet.client.run(&["plan", file.to_str().unwrap()]);
    assert!(planned.stdout.contains("files (~ list)"), "{planned:?}");
    assert_eq!(pids(&fleet.client.status()), pids(&before), "a plan touches nothing");
    assert_eq!(list_of(&before, "on-a"), "one\n");
    let after = fleet.client.deployed(&file);
    says(&fleet, "two");
    let (was, is) = (pids(&before), pids(&after));
    assert!(was["on-a"] != is["on-a"] && was["on-b"] != is["on-b"] && was["on-c"] == is["on-c"], "{was:?} {is:?}");
    assert_eq!((list_of(&after, "on-a"), list_of(&after, "on-b")), ("two\n".into(), "two\n".into()));
    assert_eq!(fs::read_to_string(old.join("list")).unwrap(), "one\n", "what was begun with it never changes");
}

#[test]
fn a_deployment_that_goes_back_leaves_everybody_with_the_files_of_before() {
    let (fleet, _) = with_readers();
    let before = fleet.client.status();
    fleet.scene.write("list", "two\n");
    let broken = script("broken", "instance = c\nready_within = 300ms\nrestart_limit = 0\nrole = none", "exit 3");
    let nodes = [reader("on-a", "a"), reader("on-b", "b"), sleeper("on-c", "instance = c"), broken];
    let verdict = fleet.client.deploy(&fleet.file(&["a", "b", "c"], &nodes));
    assert!(!verdict.ok, "{verdict:?}");
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!((list_of(&after, "on-a"), list_of(&after, "on-b")), ("one\n".into(), "one\n".into()));
    assert_eq!(pids(&before)["on-c"], pids(&after)["on-c"]);
}

#[test]
fn what_is_needed_no_more_goes_and_a_rollback_fetches_it_again() {
    let (fleet, file) = with_readers();
    let agent = &fleet.agents["a"];
    for (content, kept) in [("two\n", 2), ("three\n", 2)] {
        fleet.scene.write("list", content);
        fleet.client.deployed(&file);
        eventually("the files of the one before and of this one are there", || {
            (trees(agent, "on-a").len() == kept).then_some(())
        });
    }
    eventually("what nobody needs is gone", || (!object(agent, "a", b"one\n").exists()).then_some(()));
    assert!(object(agent, "a", b"two\n").exists() && object(agent, "a", b"three\n").exists());
    let verdict: Verdict = fleet.client.ask(&["rollback", "1"]);
    assert!(verdict.ok, "{verdict:?}");
    let status = fleet.client.wait_for_all("RUNNING");
    assert_eq!((list_of(&status, "on-a"), list_of(&status, "on-b")), ("one\n".into(), "one\n".into()));

    // Two deployments later nothing is left of files that no node has.
    let bare = ["a", "b", "c"].map(|name| sleeper(&format!("on-{name}"), &format!("instance = {name}")));
    let agent = &fleet.agents["a"];
    fleet.client.deployed(&fleet.file(&["a", "b", "c"], &bare));
    fleet.client.deployed(&fleet.file(&["a", "b", "c"], &[bare.concat(), sleeper("more", "instance = a")]));
    eventually("all files are gone", || {
        let left = fs::read_dir(objects(agent, "a")).unwrap().count() + trees(agent, "on-a").len();
        (left == 0).then_some(())
    });
}

#[test]
fn what_was_damaged_on_an_agents_disk_is_found_and_fetched_again() {
    let (fleet, _) = with_readers();
    let kept = object(&fleet.agents["a"], "a", b"one\n");
    fs::set_permissions(&kept, Permissions::from_mode(0o600)).unwrap();
    fs::write(&kept, "0ne\n").unwrap();
    let nodes = [reader("on-a", "a"), reader("also-a", "a"), reader("on-b", "b"), sleeper("on-c", "instance = c")];
    fleet.client.deployed(&fleet.file(&["a", "b", "c"], &nodes));
    let status = fleet.client.wait_for_all("RUNNING");
    assert_eq!(list_of(&status, "also-a"), "one\n");
    assert_eq!(fs::read_to_string(kept).unwrap(), "one\n");
}

#[test]
fn an_agent_that_says_it_has_what_it_has_not_is_found_out_by_the_hash_and_gets_it() {
    let (fleet, file) = with_readers();
    // By its name and its length it is there.
    let claimed = object(&fleet.agents["a"], "a", b"two\n");
    fs::write(&claimed, "tw0\n").unwrap();
    fleet.scene.write("list", "two\n");
    fleet.client.deployed(&file);
    says(&fleet, "two");
    let status = fleet.client.wait_for_all("RUNNING");
    assert_eq!(list_of(&status, "on-a"), "two\n");
    assert_eq!(fs::read_to_string(claimed).unwrap(), "two\n");
}

#[test]
fn a_node_whose_files_are_gone_says_so_and_the_next_deployment_brings_them_back() {
    let (mut fleet, file) = with_readers();
    let status = fleet.client.status();
    let (tree, pid) = (files_of(&status, "on-a"), pids(&status)["on-a"]);
    fleet.agent_mut("a").kill();
    fs::remove_dir_all(objects(&fleet.agents["a"], "a")).unwrap();
    fs::remove_dir_all(&tree).unwrap();
    processes::signal(pid, rustix::process::Signal::KILL);
    fleet.agent_mut("a").start_again();
    let status = fleet.client.wait("it is given up, or has its files again", |status| {
        let on_a = node(status, "on-a");
        on_a.state == "FAILED" || (on_a.state == "RUNNING" && on_a.pid != Some(pid))
    });
    if node(&status, "on-a").state == "FAILED" {
        let reason = &node(&status, "on-a").reason;
        assert!(reason.contains("its files are not in ") && reason.contains("deploy again"), "{reason}");
        fleet.client.deployed(&file);
    }
    let status = fleet.client.wait_for_all("RUNNING");
    assert_eq!(list_of(&status, "on-a"), "one\n");
}

/// What nobody can guess, of that length.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_transfer_goes_on_where_it_was() {
    let mut fleet = Fleet::start();
    let content = noise(48 << 20);
    fs::write(fleet.scene.path("list"), &content).unwrap();
    let proxy = Proxy::start(fleet.controller.addresses()["agents"].to_string());
    fleet.agents.insert("far", {
        let agent = ["agent", "--name", "far", "--connect", &proxy.address];
        Daemon::start(&fleet.scene, "far", &agent)
    });
    let nodes = [sleeper("on-far", "instance = far\nfiles = list"), sleeper("on-a", "instance = a\nfiles = list")];
    let file = fleet.file(&["far", "a"], &nodes);
    let mut deploy = fleet.client.command(&["deploy", file.to_str().unwrap()]);
    let deploys = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let kept = object(&fleet.agents["far"], "far", &content);
    let part = PathBuf::from(format!("{}.part", kept.display()));
    eventually("some of it has come", || (length(&part) > 8 << 20).then_some(()));
    fleet.agent_mut("far").kill();
    let came = length(&part);
    assert!(came < content.len() as u64, "it was in the middle");
    let status = fleet.client.status().deployment.expect("it goes on");
    assert_eq!(status.phase, "staging");
    fleet.agent_mut("far").start_again();
    let ended = deploys.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(fs::read(kept).unwrap() == content);
    let carried = proxy.carried.load(Ordering::Relaxed);
    let all = content.len() as u64;
    assert!(carried < all + (8 << 20), "{came} of {all} bytes had come, and {carried} went in all");
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Carries bytes between an agent and the controller, at a pace, and counts those for the agent.
struct Proxy {
    address: String,
    carried: Arc<AtomicU64>,
}

impl Proxy {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, carried) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&carried);
        thread::spawn(move || {
            for agent in listener.incoming() {
                let (Ok(agent), Ok(controller)) = (agent, TcpStream::connect(&to)) else { return };
                let back = (agent.try_clone().unwrap(), controller.try_clone().unwrap());
                let count = Arc::clone(&count);
                thread::spawn(move || carry(back.0, back.1, &AtomicU64::new(0), Duration::ZERO));
                thread::spawn(move || carry(controller, agent, &count, Duration::from_millis(4)));
            }
        });
        Self { address, carried }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64, pace: Duration) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
        thread::sleep(pace);
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_disk_that_is_full_on_one_agent_ends_the_deployment_and_nothing_is_touched_anywhere() {
    let mut fleet = Fleet::start();
    fleet.scene.write("list", "one\n");
    let disk = fleet.scene.path("small/nodes");
    fs::create_dir_all(&disk).unwrap();
    let connect = fleet.controller.addresses()["agents"].to_string();
    let mut through = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        through.extend(["--user", "--map-root-user"]);
    }
    through.extend(["--mount", "--kill-child", "--fork", "--", "sh", "-c"]);
    through.extend(["mount -t tmpfs -o size=4m,mode=755 none \"$0\" && exec \"$@\"", disk.to_str().unwrap()]);
    let agent = ["agent", "--name", "small", "--connect", &connect];
    fleet.agents.insert("small", Daemon::start_through(&through, &fleet.scene, "small", &agent));
    let nodes = [reader("on-a", "a"), reader("on-b", "b"), reader("on-small", "small")];
    let file = fleet.file(&["a", "b", "small"], &nodes);
    fleet.client.deployed(&file);
    let before = fleet.client.wait_for_all("RUNNING");

    fs::write(fleet.scene.path("list"), noise(8 << 20)).unwrap();
    let answer = fleet.client.run(&["deploy", file.to_str().unwrap()]);
    assert_ne!(answer.code, 0, "{answer:?}");
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert!(said.contains("small") && said.contains("there is no room for the 8388608 bytes"), "{said}");
    let after = fleet.client.status();
    assert_eq!(pids(&after), pids(&before));
    let lists: BTreeMap<_, _> = ["on-a", "on-b"].map(|name| (name, list_of(&after, name))).into();
    assert_eq!(lists, [("on-a", "one\n".to_owned()), ("on-b", "one\n".to_owned())].into());
}

#[test]
fn an_agent_that_returns_without_its_files_gets_them_again_and_no_node_notices() {
    let (mut fleet, _) = with_readers();
    let before = pids(&fleet.client.status());
    let tree = files_of(&fleet.client.status(), "on-a");
    fleet.agent_mut("a").kill();
    fs::remove_dir_all(&tree).unwrap();
    for blob in fs::read_dir(objects(&fleet.agents["a"], "a")).unwrap() {
        let path = blob.unwrap().path();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "rubbish").unwrap();
    }
    fleet.agent_mut("a").start_again();
    eventually("its files to be there again", || {
        (fs::read_to_string(tree.join("list")).ok()? == "one\n").then_some(())
    });
    assert_eq!(pids(&fleet.client.wait_for_all("RUNNING")), before);
    let verdict = fleet.client.order("restart", &["on-a"]);
    assert!(verdict.ok, "{verdict:?}");
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

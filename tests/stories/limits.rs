//! What a node is given and denied, where the machine cannot give it: it fails with one sentence, and nobody else notices.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use watchpost::web::json::{Ability, Verdict};

use crate::common::{Daemon, Fleet, Lab, check_log, eventually, node, processes, script, sleeper};
use crate::crashes::{crashes, dossier};

/// What is able, and why not.
fn ability(lab: &Lab, name: &str) -> Ability {
    let status = lab.client.status();
    status.instances[0].abilities.get(name).cloned().unwrap_or_else(|| panic!("{status:#?}"))
}

fn error<'a>(verdict: &'a Verdict, node: &str) -> Option<&'a str> {
    verdict.outcomes.iter().find(|outcome| outcome.node.as_deref() == Some(node)).unwrap().error.as_deref()
}

#[test]
fn a_limit_that_cannot_be_had_is_refused_by_name_before_the_launch_and_others_are_untouched() {
    let lab = Lab::start(Some(&sleeper("fine", "")));
    let before = lab.client.wait_for_all("RUNNING");
    let limits = [
        ("memory", "memory_max", "64M", "67108864"),
        ("cpu", "cpu_max", "150%", "150000 100000"),
        ("pids", "pids_max", "64", "64"),
    ];
    let limited = |(name, key, value, _): (&str, &str, &str, &str)| {
        script(name, &format!("{key} = {}\nrestart = never", value.replace('%', "%%")), "touch ../ran\nexec sleep 1000")
    };
    let text = sleeper("fine", "") + &limits.map(limited).concat();
    let verdict = lab.client.deploy_and_keep(&lab.scene.write("next.cfg", &text));
    for (name, key, value, for_the_kernel) in limits {
        let Ability { able, detail } = ability(&lab, key);
        if able {
            assert_eq!(error(&verdict, name), None, "{verdict:#?}");
            assert_eq!(of_group(&lab, name, &key.replace('_', ".")).trim(), for_the_kernel, "{key}");
            continue;
        }
        let failed = lab.client.wait_for(name, "FAILED");
        let reason = match ability(&lab, "cgroup_kill") {
            Ability { able: true, .. } => format!("cannot limit it by {key} = {value}: {detail}"),
            Ability { able: false, detail } => {
                format!("cannot limit it by {key} = {value}: it has no control group, since {detail}")
            }
        };
        assert_eq!((failed.reason.as_str(), error(&verdict, name)), (reason.as_str(), Some(reason.as_str())));
        assert_eq!((failed.pid, failed.restarts), (None, 0), "nothing was launched");
        assert!(lab.scene.processes_of(name).is_empty());
    }
    assert_eq!(node(&lab.client.status(), "fine"), node(&before, "fine"));
    check_log(&lab.client.events());
}

/// What a file of the control group of a node says.
fn of_group(lab: &Lab, node: &str, file: &str) -> String {
    let path = Path::new(&ability(lab, "cgroup_kill").detail).join(format!("node-{node}")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_node_that_multiplies_comes_to_its_limit_and_no_further() {
    // A shell that cannot fork ends, and the one above it is the node.
    let multiplies = "(while :; do sleep 1000 & done)\nexec sleep 1000";
    let lab = Lab::start(Some(&sleeper("fine", "")));
    if !ability(&lab, "pids_max").able {
        return; // then it is refused: see above
    }
    lab.deploy(&script("many", "pids_max = 8", multiplies));
    lab.client.wait_for("many", "RUNNING");
    eventually("the kernel refuses it another", || {
        let refused = of_group(&lab, "many", "pids.events");
        refused.lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0")).then_some(())
    });
    let living = of_group(&lab, "many", "cgroup.procs").lines().count();
    assert!((2..=8).contains(&living), "{living}");
    assert!(lab.client.order("stop", &["many"]).ok);
    assert!(lab.scene.processes_of("many").is_empty(), "all of them end");
}

#[test]
fn a_capability_that_the_agent_has_not_cannot_be_given_to_a_node() {
    if !rustix::process::geteuid().is_root() {
        return; // whoever is not root cannot even become another user
    }
    let mut fleet = Fleet::start();
    let controller = fleet.controller.addresses()["agents"].to_string();
    let args = ["agent", "--name", "d", "--connect", &controller];
    let without = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"];
    fleet.agents.insert("d", Daemon::start_through(&without, &fleet.scene, "d", &args));
    let of = |name: &str, keys: &str| sleeper(name, &format!("instance = d\nuser = nobody\nrestart = never\n{keys}"));
    let sections = [of("raw", "capabilities = net_raw"), of("bind", "capabilities = net_bind_service")];
    let verdict = fleet.client.deploy_and_keep(&fleet.file(&["d"], &sections));
    let failed = fleet.client.wait_for("raw", "FAILED");
    assert!(failed.reason.starts_with("cannot have the capabilities it is to have: "), "{failed:?}");
    assert!(failed.reason.ends_with("only an agent that has them can give them"), "{failed:?}");
    assert_eq!(error(&verdict, "raw"), Some(failed.reason.as_str()));
    fleet.client.wait_for("bind", "RUNNING");
}

/// A control group of the older kind in which memory runs out soon; removed with this.
struct Narrow(std::path::PathBuf);

impl Narrow {
    /// `None` where this machine has no such tree, or lets nobody write to it.
    fn new(lab: &Lab) -> Option<Self> {
        let group = std::path::Path::new("/sys/fs/cgroup/memory").join(lab.scene.cluster());
        std::fs::create_dir(&group).ok()?;
        let narrow = Self(group);
        std::fs::write(narrow.0.join("memory.limit_in_bytes"), "16777216").ok()?;
        Some(narrow)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0); // whoever is in it is being killed
    }
}

#[test]
fn zeek_411_a_node_that_the_kernel_killed_for_want_of_memory_is_told_apart_from_one_that_somebody_killed() {
    let lab = Lab::start(Some(&sleeper("killed", "restart = never")));
    let killed = lab.client.wait_for("killed", "RUNNING").pid.unwrap();
    let narrow = Narrow::new(&lab);
    let eat = "exec tail /dev/zero";
    let (keys, script_text) = match &narrow {
        Some(Narrow(group)) => ("restart = never", format!("echo $$ > {}/cgroup.procs\n{eat}", group.display())),
        None if ability(&lab, "memory_max").able => ("restart = never\nmemory_max = 16M", eat.to_owned()),
        None => return, // here it cannot run out of memory alone
    };
    let hungry = script("hungry", keys, &script_text);
    lab.client.deploy_and_keep(&lab.scene.write("next.cfg", &(sleeper("killed", "restart = never") + &hungry)));
    let failed = lab.client.wait_for("hungry", "FAILED");
    processes::signal(killed, Signal::KILL);
    let by_hand = lab.client.wait_for("killed", "FAILED");
    assert!(by_hand.reason.starts_with("killed by signal 9 (SIGKILL); its dossier: "), "{by_hand:?}");
    // Who may read the kernel's log is told by whom it was; who may not hears of a signal.
    let may_read = std::fs::File::open("/dev/kmsg").is_ok() && {
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
        namespace.to_str() == Some("pid:[4026531836]")
    };
    let is_known = may_read || narrow.is_none();
    let want = if is_known { "killed by the kernel: out of memory" } else { "killed by signal 9 (SIGKILL)" };
    assert!(failed.reason.starts_with(&format!("{want}; its dossier: ")), "{failed:?}");
    let events = lab.client.events();
    let exits: Vec<_> = events.iter().filter_map(|event| event.exit.clone()).collect();
    assert_eq!(exits.iter().filter(|exit| exit.out_of_memory).count(), usize::from(is_known), "{exits:?}");
    if may_read {
        let crash = eventually("it is listed", || crashes(&lab.client, &["hungry"]).pop());
        let said = dossier(&lab.client, &crash.id, |_| true).out_of_memory.unwrap_or_default();
        assert!(said.contains(&format!("out of memory: Killed process {}", crash.pid)), "{said}");
    }
    assert!(exits.iter().all(|exit| exit.signal == Some(9)), "{exits:?}");
}

#[test]
fn status_shows_whether_nodes_can_be_killed_and_limited_by_groups() {
    let lab = Lab::start(Some(&sleeper("fine", "")));
    let status = lab.client.wait_for_all("RUNNING");
    let abilities = &status.instances[0].abilities;
    let names: Vec<_> = abilities.keys().map(String::as_str).collect();
    assert_eq!(names, ["cgroup_kill", "cpu_max", "memory_max", "outlive_agent", "pids_max"]);
    assert!(abilities["outlive_agent"].able);
    assert!(abilities.values().all(|ability| ability.able || !ability.detail.is_empty()), "{abilities:?}");
    let kill = &abilities["cgroup_kill"];
    let pid = node(&status, "fine").pid.unwrap();
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(kill.able, group.contains("/watchpost/"), "{kill:?}: {group}");
    let table = lab.client.run(&["status"]).stdout;
    let how = if kill.able { "cgroup" } else { "signals" };
    let row = table.lines().last().unwrap();
    assert!(table.contains("KILLS BY  LIMITS") && row.contains(how), "{table}");
}

#[test]
fn every_node_that_cannot_be_run_as_it_is_to_says_so_in_a_sentence_and_others_are_untouched() {
    let fleet = Fleet::start();
    let fine = sleeper("fine", "instance = a");
    let before = fleet.client.deployed(&fleet.file(&["a"], std::slice::from_ref(&fine)));
    let orphan = fleet.scene.write("orphan", "#!/no/such/interpreter\n");
    std::fs::set_permissions(&orphan, PermissionsExt::from_mode(0o755)).unwrap();
    let plain = fleet.scene.write("plain", "#!/bin/sh\n");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let online = online.trim();
    let is_root = rustix::process::geteuid().is_root();
    let of = |name: &str, keys: &str| sleeper(name, &format!("instance = a\nrestart = never\n{keys}"));
    let running = |name: &str, command: &std::path::Path| of(name, "").replace("sleep 1000", command.to_str().unwrap());
    let mut cases = vec![
        (of("user", "user = no-such-user"), "user", "user `no-such-user` does not exist".to_owned()),
        (of("directory", "directory = /proc/x"), "directory", "cannot make directory /proc/x: No such file".into()),
        (
            of("cpus", "cpu_affinity = 0,1000-1001"),
            "cpus",
            format!(
                "cannot run on CPUs 0,1000-1001: 1000-1001 are not among those that this machine lets us use, {online}"
            ),
        ),
        (
            running("interpreter", &orphan),
            "interpreter",
            format!("cannot run `{}`: its interpreter `/no/such/interpreter` does not exist", orphan.display()),
        ),
        (running("plain", &plain), "plain", format!("cannot run `{}`: Permission denied", plain.display())),
    ];
    // Root has every capability that this kernel knows, unless the test runs where some were taken from it.
    if !is_root {
        let rights = of("rights", "user = root\ncapabilities = net_raw");
        cases.push((rights, "rights", "cannot become user `root`".into()));
    }
    let sections: Vec<_> = cases.iter().map(|(section, ..)| section.clone()).chain([fine]).collect();
    let verdict = fleet.client.deploy_and_keep(&fleet.file(&["a"], &sections));
    for (_, name, want) in &cases {
        let failed = fleet.client.wait_for(name, "FAILED");
        assert!(failed.reason.starts_with(want) && !failed.reason.contains('\n'), "{name}: {failed:?}");
        assert_eq!(error(&verdict, name), Some(failed.reason.as_str()));
    }
    let after = fleet.client.status();
    assert_eq!(node(&after, "fine"), node(&before, "fine"));
    assert!(fleet.agents["a"].is_alive());
}

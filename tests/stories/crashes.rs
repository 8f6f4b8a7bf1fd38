//! Nodes that die unasked, and what is kept of them.

use rustix::process::Signal;
use watchpost::supervisor::crash::dossier::Dossier;
use watchpost::web::json::{Crash, Crashes};

use crate::common::{Client, Fleet, Lab, eventually, pids, processes, script, sleeper};

/// The deaths that are listed.
pub fn crashes(client: &Client, args: &[&str]) -> Vec<Crash> {
    let answer = client.run(&[&["crashes", "--json"], args].concat());
    let crashes: Crashes = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    crashes.crashes
}

/// Waits until there is one like this.
pub fn dossier(client: &Client, id: &str, is_done: impl Fn(&Dossier) -> bool) -> Dossier {
    eventually("the dossier is whole", || {
        let answer = client.run(&["crashes", "show", id, "--json"]);
        let dossier = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        Some(dossier).filter(|dossier| is_done(dossier))
    })
}

#[test]
fn zeek_1720_a_node_that_dies_by_a_fault_leaves_a_dossier_that_says_how() {
    let text = "ulimit -c unlimited 2>/dev/null\necho said\necho complained >&2\nsleep 0.2\nkill -SEGV $$";
    let keys = "restart = never\nenv = PASSWORD=s3cret\nlimits = nofile=100";
    let lab = Lab::start(Some(&script("faulty", keys, text)));
    let failed = lab.client.wait_for("faulty", "FAILED");
    let crash = eventually("it is listed", || crashes(&lab.client, &["faulty"]).pop());
    let named = format!("; its dossier: `watchpost crashes show {}`", crash.id);
    assert!(failed.reason.ends_with(&named), "{failed:?} names {}", crash.id);
    assert_eq!((crash.node.as_str(), crash.state.as_str(), crash.exit.signal), ("faulty", "FAILED", Some(11)));
    let found = dossier(&lab.client, &crash.id, |dossier| {
        let core = dossier.core.as_ref().is_some_and(|core| core.found.is_some());
        !core || dossier.backtrace.is_some() || dossier.no_backtrace.is_some()
    });
    assert_eq!((found.format, found.stdout.as_str(), found.stderr.as_str()), (1, "said\n", "complained\n"));
    assert_eq!((found.pid, found.unwatched, found.command[0].as_str()), (crash.pid, false, "/bin/sh"));
    assert!(found.uptime_milliseconds.is_some_and(|uptime| (100..60_000).contains(&uptime)), "{found:?}");
    assert!(found.largest_resident_bytes.is_some_and(|bytes| (1 << 16..1 << 30).contains(&bytes)), "{found:?}");
    assert!(found.environment.contains(&"PASSWORD".to_owned()) && found.limits["nofile"] == "100", "{found:?}");
    assert!(found.definition.contains("[faulty]"), "{found:?}");
    let shown = lab.client.run(&["crashes", "show", &crash.id]);
    assert!(shown.code == 0 && shown.stdout.contains("killed by signal 11 (SIGSEGV)"), "{shown:?}");
    assert!(!format!("{found:?}{shown:?}").contains("s3cret"), "values stay secret");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if found.exit.core_dumped && !pattern.starts_with('|') {
        let core = found.core.unwrap();
        assert!(core.found.as_ref().is_some_and(|core| core.is_file()), "{core:?}");
        let backtrace = found.backtrace.unwrap_or_else(|| panic!("{:?} (tests/run installs gdb)", found.no_backtrace));
        assert!(backtrace.contains("#0 "), "{backtrace}");
    }
    let missing = lab.client.run(&["crashes", "show", "faulty.1"]);
    assert!(missing.code == 1 && missing.stderr.contains("no agent has a dossier `faulty.1`"), "{missing:?}");
    assert!(lab.client.order("stop", &["faulty"]).ok);
    assert_eq!(crashes(&lab.client, &[]).len(), 1, "what was asked for is no crash");
}

#[test]
fn each_death_has_its_dossier_and_who_cannot_be_asked_is_named() {
    let mut fleet = Fleet::with_nodes();
    let before = pids(&fleet.client.status());
    processes::signal(before["on-b"], Signal::KILL);
    let crash = eventually("its dossier is made", || crashes(&fleet.client, &[]).pop());
    assert_eq!((crash.node.as_str(), crash.instance.as_str(), crash.pid), ("on-b", "b", before["on-b"]));
    let none = fleet.client.run(&["crashes", "on-a"]);
    assert!(none.code == 0 && none.stdout.is_empty() && none.stderr.is_empty(), "{none:?}");
    let nobody = fleet.client.run(&["crashes", "on-d"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("there is no node `on-d`"), "{nobody:?}");

    // One that dies while nobody is there.
    fleet.agent_mut("a").kill();
    processes::signal(before["on-a"], Signal::TERM);
    eventually("it is gone", || (!processes::is_alive(before["on-a"])).then_some(()));
    fleet.agent_mut("a").start_again();
    let unwatched = eventually("the agent that returns makes one", || crashes(&fleet.client, &["on-a"]).pop());
    assert_eq!(unwatched.pid, before["on-a"]);
    assert!(dossier(&fleet.client, &unwatched.id, |_| true).unwatched);

    fleet.agent_mut("b").kill();
    fleet.client.wait_for("on-b", "UNKNOWN");
    let answer = fleet.client.run(&["crashes"]);
    assert!(answer.code == 4 && answer.stderr.contains("b: its instance is not connected"), "{answer:?}");
    assert!(answer.stdout.contains(&unwatched.id), "what the others have is shown: {answer:?}");
    assert_eq!(fleet.client.run(&["crashes", "show", &crash.id]).code, 4);
    fleet.agent_mut("b").start_again();
    let back = eventually("it is back", || crashes(&fleet.client, &["on-b"]).pop());
    assert_eq!(back, crash, "dossiers outlive the agent");
}

#[test]
fn the_dossier_of_a_life_shows_what_that_life_wrote_though_the_next_one_writes_already() {
    let text = "n=0; [ -f count ] && read n < count\nn=$((n + 1)); echo $n > count\necho life $n\n\
                [ $n -ge 4 ] && exec sleep 1000\nexit $n";
    let lab = Lab::start(Some(&(script("again", "restart_delay = 10ms", text) + &sleeper("other", ""))));
    lab.client.wait_for("again", "RUNNING");
    let all = eventually("three are there", || Some(crashes(&lab.client, &["again"])).filter(|all| all.len() == 3));
    for (crash, number) in all.iter().zip(1..) {
        assert_eq!(crash.exit.status, Some(number));
        assert_eq!(dossier(&lab.client, &crash.id, |_| true).stdout, format!("life {number}\n"));
    }
}

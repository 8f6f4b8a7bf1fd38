//! What becomes of nodes whose records are damaged or gone, while their agent was killed: they are found by what they carry
//! in their environment, and nothing is doubled.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::common::{Fleet, changes, check_log, eventually, node, path, pids, processes, sleeper};
use crate::crashes::{crashes, dossier};

/// A fleet whose agent `a` runs these nodes and was killed, and where the record of each is.
fn orphaned(names: &[&str]) -> (Fleet, PathBuf) {
    let mut fleet = Fleet::start();
    let nodes: Vec<_> = names.iter().map(|name| sleeper(name, "instance = a\nrole = worker")).collect();
    let file = fleet.file(&["a"], &nodes);
    fleet.client.deployed(&file);
    fleet.client.wait_for_all("RUNNING");
    fleet.agent_mut("a").kill();
    let nodes = fleet.agents["a"].state_dir().join("nodes");
    (fleet, nodes)
}

#[test]
fn a_record_that_is_damaged_in_any_way_is_set_aside_and_its_node_found_and_not_doubled() {
    let names: Vec<String> = (0..11).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut fleet, nodes) = orphaned(&names);
    let before: Vec<Vec<u32>> = names.iter().map(|name| fleet.scene.processes_of(name)).collect();
    assert!(before.iter().all(|pids| pids.len() == 1), "{before:?}");
    let record = |name: &str| nodes.join(name).join("record");
    let whole = |name: &str| fs::read(record(name)).unwrap();
    let first_line = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let garbled = |name: &str, at: fn(usize, usize) -> usize| {
        let mut bytes = whole(name);
        let (first, length) = (first_line(&bytes), bytes.len());
        bytes[at(first, length)] ^= 1;
        bytes
    };
    let cut = |name: &str, at: fn(usize, usize) -> usize| {
        let bytes = whole(name);
        bytes[..at(first_line(&bytes), bytes.len())].to_vec()
    };
    let damages: [Option<Vec<u8>>; 11] = [
        None,                                      // deleted
        Some(Vec::new()),                          // empty
        Some(cut("n2", |first, _| first / 2)),     // within the definition
        Some(cut("n3", |first, _| first)),         // before its end
        Some(cut("n4", |first, _| first + 1)),     // behind it: whole, but for the process
        Some(cut("n5", |_, length| length - 3)),   // within the line of the process
        Some(garbled("n6", |first, _| first / 2)), // a byte of the definition
        Some(garbled("n7", |first, _| first + 5)), // a digit of the pid
        Some(vec![0; 4096]),                       // what a file system leaves of what it lost
        Some(b"{\"format\":9}\n".to_vec()),        // what a later release may write
        Some(Vec::new()),                          // empty, and older than this boot, as the clock has it
    ];
    let process = |record: &[u8]| {
        let text = String::from_utf8_lossy(record).into_owned();
        text.lines().rfind(|line| line.starts_with("pid ")).map(str::to_owned)
    };
    let newborn = process(&whole("n4"));
    assert!(newborn.is_some());
    for (name, damage) in names.iter().zip(&damages) {
        match damage {
            None => fs::remove_file(record(name)).unwrap(),
            Some(bytes) => fs::write(record(name), bytes).unwrap(),
        }
    }
    let older = fs::File::options().write(true).open(record("n10")).unwrap();
    older.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    let check = |fleet: &mut Fleet| {
        fleet.agent_mut("a").start_again();
        fleet.client.wait_for_all("RUNNING");
        assert!(fleet.client.order("start", &names).ok, "behind everything that its return brought about");
        let after = fleet.client.status();
        for (name, before) in names.iter().zip(&before) {
            assert_eq!(fleet.scene.processes_of(name), *before, "{name} is the same process, and the only one");
            assert_eq!(node(&after, name).pid, Some(before[0]), "{name}: {:?}", node(&after, name));
            assert_eq!(node(&after, name).role, "worker", "as the configuration says");
        }
    };
    check(&mut fleet);
    assert_eq!(process(&whole("n4")), newborn, "it is known by all that it wrote of itself");
    let told: String =
        fleet.client.events().iter().filter_map(|event| event.msg.clone()).collect::<Vec<_>>().join("\n");
    for name in ["n1", "n2", "n3", "n6", "n7", "n8", "n9"] {
        assert!(nodes.join(name).join("record.damaged").exists(), "{name}");
        let what = if name == "n9" { "of another release (its format is 9)" } else { "damaged" };
        let what = format!("/{name}/record is {what}");
        let said = told.lines().any(|line| line.contains(&what) && line.contains("by its marker"));
        assert!(said, "{name} is told of: {told}");
    }
    assert!(told.contains("/n0/record is missing; process "), "{told}");
    assert!(told.contains("/n10/record is empty; process "), "{told}");
    // The next agent knows them by records that are whole again.
    fleet.agent_mut("a").kill();
    check(&mut fleet);
    assert!(fleet.client.order("stop", &names).ok);
    assert!(names.iter().all(|name| fleet.scene.processes_of(name).is_empty()));
    check_log(&fleet.client.events());
}

#[test]
fn a_node_whose_record_was_lost_and_that_nobody_wants_any_more_is_ended() {
    let (mut fleet, nodes) = orphaned(&["lost", "fine"]);
    fs::write(nodes.join("lost/record"), "garbage").unwrap();
    let [lost, fine] = ["lost", "fine"].map(|name| fleet.scene.processes_of(name));
    fleet.agent_mut("a").start_again();
    fleet.client.wait_for_all("RUNNING");
    assert_eq!(fleet.scene.processes_of("lost"), lost);
    let without = fleet.file(&["a"], &[sleeper("fine", "instance = a\nrole = worker")]);
    fleet.client.deployed(&without);
    assert!(fleet.scene.processes_of("lost").is_empty());
    assert_eq!(fleet.scene.processes_of("fine"), fine);
}

#[test]
fn a_damaged_record_of_a_node_that_died_has_it_started_once() {
    let (mut fleet, nodes) = orphaned(&["dead", "fine"]);
    let dead = fleet.scene.processes_of("dead")[0];
    processes::signal(dead, Signal::KILL);
    eventually("it is gone", || fleet.scene.processes_of("dead").is_empty().then_some(()));
    fs::write(nodes.join("dead/record"), "garbage").unwrap();
    fleet.agent_mut("a").start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_ne!(pids(&after)["dead"], dead);
    assert_eq!(fleet.scene.processes_of("dead"), [pids(&after)["dead"]]);
}

#[test]
fn a_node_that_was_found_by_its_marker_and_dies_is_started_once_its_controller_says_what_it_is() {
    let (mut fleet, nodes) = orphaned(&["lost"]);
    let lost = fleet.scene.processes_of("lost")[0];
    fleet.controller.kill();
    fs::write(nodes.join("lost/record"), "garbage").unwrap();
    fleet.agent_mut("a").start_again();
    eventually("its agent logs that it was found", || {
        fleet.agents["a"].log().contains("was found by its marker and is minded on").then_some(())
    });
    let dossiers = || fs::read_dir(nodes.join(".crashes-a")).into_iter().flatten().count();
    assert_eq!(dossiers(), 0);
    processes::signal(lost, Signal::KILL);
    eventually("its agent has seen it die", || (dossiers() > 0).then_some(()));
    assert_eq!(fleet.scene.processes_of("lost"), [0; 0]);
    fleet.controller.start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(fleet.scene.processes_of("lost"), [pids(&after)["lost"]]);
    assert_eq!(node(&after, "lost").role, "worker");
    let events = fleet.client.events();
    check_log(&events);
    let told = changes(&events, "lost");
    let death = told.iter().find(|change| change.pid == Some(lost) && change.new.as_deref() == Some("CRASHED"));
    let reason = death.and_then(|change| change.reason.as_deref()).unwrap_or_else(|| panic!("{told:#?}"));
    assert!(reason.contains("SIGKILL") && reason.contains("a configuration has to say what it is"), "{reason}");
    assert!(!path(&told).contains("FAILED"), "{told:#?}");
    let crash = crashes(&fleet.client, &["lost"]).pop().unwrap();
    let command = dossier(&fleet.client, &crash.id, |_| true).command;
    assert_eq!((crash.pid, command), (lost, vec!["sleep".to_owned(), "1000".to_owned()]), "it was no Zeek meanwhile");
}

#[test]
fn the_death_of_a_node_that_nobody_knew_what_it_is_is_told_once_whatever_becomes_of_the_news() {
    let (mut fleet, nodes) = orphaned(&["lost"]);
    let lost = fleet.scene.processes_of("lost")[0];
    fleet.controller.kill();
    let record = nodes.join("lost/record");
    fs::write(&record, "garbage").unwrap();
    fleet.agent_mut("a").start_again();
    eventually("its agent logs that it was found", || {
        fleet.agents["a"].log().contains("was found by its marker and is minded on").then_some(())
    });
    processes::signal(lost, Signal::KILL);
    let is_noted = || fs::read_to_string(&record).unwrap().contains("\ncrashed ");
    eventually("that it was told is in its record", || is_noted().then_some(()));
    fleet.agent_mut("a").kill();
    fs::remove_file(nodes.join(".news-a")).unwrap();
    fleet.agent_mut("a").start_again();
    fleet.controller.start_again();
    let after = fleet.client.wait_for_all("RUNNING");
    assert_eq!(fleet.scene.processes_of("lost"), [pids(&after)["lost"]]);
    let events = fleet.client.events();
    let away = events.iter().find(|event| event.msg.as_deref().is_some_and(|msg| msg.contains("agent was away")));
    assert_eq!(away, None, "it was told when it died");
    let told = changes(&events, "lost");
    let died = told.iter().filter(|change| change.new.as_deref() == Some("CRASHED") && change.old != change.new);
    let reasons: Vec<_> = died.map(|change| change.reason.clone().unwrap_or_default()).collect();
    assert!(reasons.len() == 1 && reasons[0].contains("SIGKILL"), "{told:#?}");
}

//! The log on disk: whoever follows it resumes over any end of the controller, without a gap and without a repeat.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use watchpost::message::client::Cursor;
use watchpost::web::json::Event;

use crate::common::{Client, Fleet, Lab, changes, check_log, epochs, eventually, path, pids, processes};

#[test]
fn events_are_resumed_across_an_orderly_restart_without_a_gap_or_a_repeat() {
    let mut fleet = Fleet::with_nodes();
    let before = fleet.client.events();
    let ready: Vec<_> = before.iter().filter(|event| event.kind == "agents_ready").collect();
    assert!(ready.len() == 1 && ready[0].instances == ["a", "b", "c"], "{before:#?}");
    let shown = fleet.client.run(&["events"]).stdout;
    let line = shown.lines().find(|line| line.contains("AGENTS READY")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(&ready[0].seq) && line.trim_end().ends_with(" a b c"), "{line}");
    fleet.controller.signal(Signal::TERM);
    assert_eq!(fleet.controller.ended().code(), Some(0));
    fleet.controller.start_again();
    fleet.client.wait_for_all("RUNNING");
    let behind = since(&fleet.client, &before.last().unwrap().seq);
    assert!(behind.iter().all(|event| event.kind != "gap"), "{behind:#?}");
    let all: Vec<_> = before.into_iter().chain(behind).collect();
    check_log(&all);
    assert_eq!(epochs(&all).len(), 1);
    assert_eq!(path(&changes(&all, "on-a")), "STOPPED PENDING RUNNING UNKNOWN RUNNING");
}

#[test]
fn etcd_17247_whoever_follows_a_controller_that_is_killed_again_and_again_hears_each_death_once() {
    let mut fleet = Fleet::with_nodes();
    let mut deaths: BTreeSet<(String, u32)> = BTreeSet::new();
    let mut heard = Vec::new();
    for round in 0..4 {
        follow(&fleet.client, &mut heard);
        let victims = pids(&fleet.client.status());
        // In every second round the controller hears of it before it is killed, or is about to.
        let (first, second) = if round % 2 == 0 { ("on-a", "also-b") } else { ("on-b", "on-c") };
        kill(&fleet, first, victims[first], &mut deaths);
        fleet.controller.kill();
        kill(&fleet, second, victims[second], &mut deaths);
        fleet.controller.start_again();
        let after = fleet.client.wait("all is as it was", |status| {
            let now = pids(status);
            status.nodes.iter().all(|node| node.state == "RUNNING")
                && [first, second].iter().all(|name| now.get(*name) != victims.get(*name))
        });
        for (name, pid) in pids(&after) {
            assert_eq!(fleet.scene.processes_of(&name), [pid], "{name} is what the kernel says");
        }
    }
    follow(&fleet.client, &mut heard);
    check_log(&heard);
    assert_eq!(heard.iter().map(|event| &event.seq).collect::<Vec<_>>(), seqs(&fleet.client.events()));
    let died = heard.iter().filter(|event| event.new.as_deref() == Some("CRASHED"));
    let told: Vec<_> = died.map(|event| (event.node.clone().unwrap(), event.pid.unwrap())).collect();
    assert_eq!(told.len(), deaths.len(), "{told:?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), deaths, "as whoever killed them knows it");
    assert_agents_agree(&heard);
}

#[test]
fn a_log_that_is_removed_while_the_controller_runs_is_kept_again_and_what_went_with_it_is_told() {
    let mut fleet = Fleet::with_nodes();
    let mut heard = Vec::new();
    follow(&fleet.client, &mut heard);
    std::fs::remove_dir_all(fleet.controller.state_dir().join("log")).unwrap();
    let victim = pids(&fleet.client.status())["on-a"];
    processes::signal(victim, Signal::KILL);
    let told = |client: &Client, words: &str| {
        eventually(words, || {
            let is_told = |event: &Event| event.msg.as_deref().is_some_and(|msg| msg.contains(words));
            client.events().iter().any(is_told).then_some(())
        });
    };
    for words in ["somebody removed or moved it", "of the log are gone", "the log is written again"] {
        told(&fleet.client, words);
    }
    fleet.client.wait_for_all("RUNNING");
    fleet.controller.signal(Signal::TERM);
    assert_eq!(fleet.controller.ended().code(), Some(0));
    fleet.controller.start_again();
    fleet.client.wait_for_all("RUNNING");

    let kept = fleet.client.events();
    let whole: Vec<_> = heard.iter().chain(&since(&fleet.client, &heard.last().unwrap().seq)).cloned().collect();
    check_log(&whole);
    assert_eq!(epochs(&whole).len(), 1, "it is the same log");
    assert_agents_agree(&whole);
    assert_eq!(path(&changes(&whole, "on-a")), "STOPPED PENDING RUNNING CRASHED PENDING RUNNING UNKNOWN RUNNING");
    let first = kept.first().unwrap();
    assert!(first.kind == "gap" || first.seq != heard[0].seq, "what was removed is not there: {first:?}");
}

#[test]
fn a_lab_keeps_its_log_as_a_fleet_does() {
    let mut lab = Lab::start(None);
    lab.client.wait_for_all("RUNNING");
    let mut heard = Vec::new();
    follow(&lab.client, &mut heard);
    lab.daemon.kill();
    lab.daemon.start_again();
    lab.client.wait_for_all("RUNNING");
    follow(&lab.client, &mut heard);
    check_log(&heard);
    assert_eq!(epochs(&heard).len(), 2);
}

/// Kills the process of a node, and waits until its agent has brought it back.
fn kill(fleet: &Fleet, name: &str, pid: u32, deaths: &mut BTreeSet<(String, u32)>) {
    processes::signal(pid, Signal::KILL);
    eventually(&format!("{name} is back"), || match fleet.scene.processes_of(name)[..] {
        [now] if now != pid => Some(()),
        _ => None,
    });
    deaths.insert((name.to_owned(), pid));
}

/// What comes behind that event.
fn since(client: &Client, seq: &str) -> Vec<Event> {
    let answer = client.run(&["events", "--json", "--since", seq]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Goes on from where whoever listens was, and takes back what the controller says that it does not keep.
fn follow(client: &Client, heard: &mut Vec<Event>) {
    let more = match heard.last() {
        None => client.events(),
        Some(last) => since(client, &last.seq),
    };
    for event in more {
        if event.kind == "gap" {
            let first: Cursor = event.first.as_deref().unwrap().parse().unwrap();
            heard.retain(|event| event.seq.parse::<Cursor>().unwrap().number < first.number);
        } else {
            heard.push(event);
        }
    }
}

fn seqs(events: &[Event]) -> Vec<&String> {
    events.iter().map(|event| &event.seq).collect()
}

/// Each agent's own numbers are there without a gap and in order.
fn assert_agents_agree(events: &[Event]) {
    let mut last: BTreeMap<(&Option<String>, u64), u64> = BTreeMap::new();
    for event in events.iter().filter(|event| event.origin.is_some()) {
        let origin: Cursor = event.origin.as_deref().unwrap().parse().unwrap();
        let before = last.insert((&event.instance, origin.epoch), origin.number).unwrap_or(0);
        assert_eq!(origin.number, before + 1, "{event:?}");
    }
}

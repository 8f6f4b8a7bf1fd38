//! A deployment that comes to nothing takes down no more at a time on its way back than on its way forth; and what somebody
//! tells nodes meanwhile holds.

use std::collections::BTreeSet;

use watchpost::web::history::Deployed;
use watchpost::web::json::Status;

use crate::common::{Fleet, Reserved, node, script, sleeper};
use crate::phases::{ALL, all, cluster, colours, last, red, slow, staying};

/// Six workers of that colour, and a node that is switched behind them.
fn workers(colour: &str, behind: &str) -> Vec<String> {
    let keys = |at: usize| format!("instance = {}\nrole = worker\nenv = COLOUR={colour}", ALL[at % 3]);
    let workers = (0..6).map(|at| sleeper(&format!("w{at}"), &keys(at)));
    workers.chain([behind.to_owned()]).collect()
}

#[test]
fn a_deployment_that_goes_back_takes_down_one_worker_after_the_other_as_when_it_went_forth() {
    let fleet = Fleet::start();
    fleet.client.deployed(&fleet.file(&ALL, &workers("red", "")));
    fleet.client.wait_for_all("RUNNING");
    let before = fleet.client.events().len();
    let broken = script("broken", "instance = c\nready_within = 300ms\nrestart_limit = 0", "exit 3");
    let verdict = fleet.client.deploy(&fleet.file(&ALL, &workers("blue", &broken)));
    assert!(verdict.outcomes.last().unwrap().error.as_deref().unwrap().starts_with("rolled back"), "{verdict:?}");
    fleet.client.wait_for_all("RUNNING");
    let (mut missed, mut launched) = (BTreeSet::new(), Vec::new());
    for event in fleet.client.events()[before..].iter().filter(|event| event.kind == "change") {
        let name = event.node.clone().unwrap();
        if !name.starts_with('w') {
            continue;
        }
        match event.new.as_deref() {
            Some("RUNNING") => {
                missed.remove(&name);
                launched.push(name);
            }
            _ => _ = missed.insert(name),
        }
        assert!(missed.len() <= 1, "{missed:?} are down together");
    }
    launched.sort();
    let twice: Vec<_> = (0..6).flat_map(|at| [format!("w{at}"), format!("w{at}")]).collect();
    assert_eq!((launched, missed.len()), (twice, 0), "each went forth and back");
    assert_eq!(last(&fleet).verdict, "rolled-back");
}

/// Where `stays-a` and `moves-on-b` are stopped while all are blue and one is not ready yet, and the agent of both is
/// started again.
fn stopped_in_the_middle(fleet: &mut Fleet, reserved: &Reserved) {
    let file = cluster(fleet, "blue", &slow(reserved));
    let begun: Deployed = fleet.client.ask(&["deploy", "--detach", file.to_str().unwrap()]);
    assert!(begun.verdict.ok, "{begun:?}");
    fleet.client.wait("the slow one is being switched", |status| {
        colours(status) == all("blue")
            && status.deployment.as_ref().is_some_and(|it| it.under_way.contains(&"slow".into()))
    });
    let stopped = fleet.client.run(&["stop", "stays-a", "moves-on-b"]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    fleet.agent_mut("b").kill();
    fleet.agent_mut("b").start_again();
    fleet.client.wait("its agent has taken up what runs", |status| node(status, "stays-b").state == "RUNNING");
}

/// Waits until all is over: both rest, and whatever else moves on is of that colour.
fn rest_among(fleet: &Fleet, colour: &str, before: &Status) {
    let is_over = |status: &Status| {
        let (rest, others): (Vec<_>, Vec<_>) =
            status.nodes.iter().partition(|node| ["stays-a", "moves-on-b"].contains(&&*node.name));
        status.deployment.is_none()
            && rest.iter().all(|node| node.state == "STOPPED")
            && others.iter().all(|node| node.state == "RUNNING")
    };
    let after = fleet.client.wait("what was stopped rests, and nothing else", is_over);
    let mut want = all(colour);
    want.remove("moves-on-b");
    assert_eq!(colours(&after), want);
    let (before, after) = (staying(before), staying(&after));
    assert_eq!((after.len(), after.iter().all(|(name, pid)| before[name] == *pid)), (2, true));
}

#[test]
fn who_is_stopped_in_the_middle_of_a_deployment_stays_down_when_it_is_done() {
    let (mut fleet, before) = red();
    let reserved = Reserved::new();
    stopped_in_the_middle(&mut fleet, &reserved);
    let _listener = reserved.listen();
    fleet.client.wait("it is over", |status| status.deploying.is_none());
    rest_among(&fleet, "blue", &before);
    let past = last(&fleet);
    assert!(past.verdict == "deployed" && past.results.iter().all(|it| it.error.is_none()), "{past:?}");
    assert_eq!(fleet.client.run(&["start"]).code, 0);
    fleet.client.wait_for_all("RUNNING");
}

#[test]
fn who_is_stopped_in_the_middle_of_a_deployment_stays_down_when_all_go_back() {
    let (mut fleet, before) = red();
    stopped_in_the_middle(&mut fleet, &Reserved::new());
    fleet.controller.kill();
    fleet.controller.start_again();
    rest_among(&fleet, "red", &before);
    assert_eq!(last(&fleet).verdict, "rolled-back");
}

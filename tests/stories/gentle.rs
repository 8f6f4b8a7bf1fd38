//! A deployment that comes to nothing takes down no more at a time on its way back than on its way forth; and what somebody
//! tells nodes meanwhile holds.

use std::collections::BTreeSet;

use crate::common::{Fleet, script, sleeper};
use crate::phases::{ALL, last};

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

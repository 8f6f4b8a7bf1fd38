//! A deployment on three agents, phase by phase, and whoever fails or is lost in each: what ran before goes on running.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;

use watchpost::web::history::{Deployed, Difference, History, Past};
use watchpost::web::json::{Status, Verdict};

use crate::common::{Daemon, Fleet, Reserved, check_log, eventually, node, pids, processes, script, sleeper, states};

pub const ALL: [&str; 3] = ["a", "b", "c"];

/// Of each instance a node that stays, and one that is of this colour.
pub fn cluster(fleet: &Fleet, colour: &str, more: &str) -> PathBuf {
    let nodes = ALL.map(|name| {
        sleeper(&format!("stays-{name}"), &format!("instance = {name}"))
            + &sleeper(&format!("moves-on-{name}"), &format!("instance = {name}\nenv = COLOUR={colour}"))
    });
    fleet.file(&ALL, &[nodes.concat(), more.to_owned()])
}

/// A node of `c` that is never ready.
pub fn broken() -> String {
    script("broken", "instance = c\nready_within = 300ms\nrestart_limit = 0", "echo oh no >&2; exit 3")
}

/// A node of `c` that is ready when somebody listens there.
pub fn slow(reserved: &Reserved) -> String {
    sleeper("slow", "instance = c\nready_within = 50s").replace("settle 50ms", &format!("port {}", reserved.port()))
}

pub fn colours(status: &Status) -> BTreeMap<String, String> {
    let of = |pid: u32| {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let colour = environment.split('\0').find_map(|variable| variable.strip_prefix("COLOUR=").map(str::to_owned));
        colour.unwrap_or_default()
    };
    let moving = pids(status).into_iter().filter(|(name, _)| name.starts_with("moves-on-"));
    moving.map(|(name, pid)| (name, of(pid))).collect()
}

pub fn all(colour: &str) -> BTreeMap<String, String> {
    ALL.iter().map(|name| (format!("moves-on-{name}"), colour.to_owned())).collect()
}

/// The nodes that never change, and their processes.
pub fn staying(status: &Status) -> BTreeMap<String, u32> {
    pids(status).into_iter().filter(|(name, _)| name.starts_with("stays-")).collect()
}

/// Three agents on which everything is red.
pub fn red() -> (Fleet, Status) {
    let fleet = Fleet::start();
    fleet.client.deployed(&cluster(&fleet, "red", ""));
    let status = fleet.client.wait_for_all("RUNNING");
    assert_eq!(colours(&status), all("red"));
    (fleet, status)
}

/// Waits until everything is red again, and everybody has followed.
pub fn is_red_again(fleet: &Fleet, before: &Status) {
    let after = fleet.client.wait("all is as it was", |status| {
        status.deployment.is_none()
            && status.deploying.is_none()
            && status.nodes.len() == before.nodes.len()
            && status.nodes.iter().all(|node| node.state == "RUNNING")
            && colours(status) == all("red")
    });
    assert_eq!(after.configuration, before.configuration);
    assert_eq!(staying(&after), staying(before), "what did not change was not touched");
    check_log(&fleet.client.events());
}

pub fn last(fleet: &Fleet) -> Past {
    let history: History = fleet.client.ask(&["history"]);
    let number = history.deployments.last().unwrap().number.to_string();
    fleet.client.ask(&["history", "show", &number])
}

#[test]
fn a_deployment_for_which_one_agent_has_no_room_touches_nothing_on_any() {
    let mut fleet = Fleet::start();
    // No file of its own may become longer than this: as if its disk had little room left.
    let limit = "ulimit -f 100; trap \"\" XFSZ; exec \"$0\" \"$@\"";
    let controller = fleet.controller.addresses()["agents"].to_string();
    let args = ["agent", "--name", "d", "--connect", &controller];
    let full = Daemon::start_through(&["/bin/sh", "-c", limit], &fleet.scene, "d", &args);
    fleet.agents.insert("d", full);
    let nodes = |instances: &[&str]| -> Vec<String> {
        instances.iter().map(|name| sleeper(&format!("on-{name}"), &format!("instance = {name}"))).collect()
    };
    fleet.client.deployed(&fleet.file(&ALL, &nodes(&ALL)));
    let before = fleet.client.wait_for_all("RUNNING");
    let everywhere = ["a", "b", "c", "d"];
    let changed: Vec<_> = nodes(&everywhere).into_iter().map(|node| node + "env = COLOUR=blue\n").collect();
    let answer = fleet.client.run(&["deploy", "--json", fleet.file(&everywhere, &changed).to_str().unwrap()]);
    assert_eq!(answer.code, 1, "its agent was reached, and objects: {answer:?}");
    let verdict: Verdict = serde_json::from_str(&answer.stdout).unwrap();
    let errors: Vec<_> =
        verdict.outcomes.iter().filter_map(|it| Some((it.instance.clone()?, it.error.clone()?))).collect();
    let [(instance, error)] = &errors[..] else { panic!("{verdict:?}") };
    assert!(instance == "d" && error.contains("there is no room for the records of 1 nodes"), "{error}");
    let after = fleet.client.status();
    assert_eq!((pids(&after), after.configuration), (pids(&before), before.configuration));
    assert_eq!(last(&fleet).verdict, "refused");
}

#[test]
fn where_a_node_does_not_become_ready_all_instances_go_back_and_the_answer_says_so() {
    let (fleet, before) = red();
    let verdict = fleet.client.deploy(&cluster(&fleet, "blue", &broken()));
    assert!(!verdict.ok && verdict.configuration.is_none(), "{verdict:?}");
    let failed = verdict.outcomes.iter().find(|outcome| outcome.node.as_deref() == Some("broken")).unwrap();
    assert!(failed.output.as_ref().unwrap().stderr.contains("oh no"), "{failed:?}");
    let said = verdict.outcomes.last().unwrap().error.clone().unwrap();
    assert_eq!(said, format!("rolled back: configuration {} is in force again", before.configuration.clone().unwrap()));
    is_red_again(&fleet, &before);
    let past = last(&fleet);
    assert_eq!((&*past.verdict, &*past.who), ("rolled-back", "this machine's token"));
    assert!(past.seconds.unwrap() > 0.0 && past.from.is_some(), "{past:?}");
    assert!(past.results.iter().any(|told| told.node.as_deref() == Some("broken") && told.error.is_some()));
    let text = fleet.client.run(&["history", "show", &past.number.to_string()]).stdout;
    assert!(text.contains("outcome       rolled-back") && text.contains("failed broken on c"), "{text}");
}

#[test]
fn where_it_is_to_stand_what_failed_is_named_and_the_rest_is_as_deployed() {
    let (fleet, before) = red();
    let verdict = fleet.client.deploy_and_keep(&cluster(&fleet, "blue", &broken()));
    assert!(!verdict.ok && verdict.configuration.is_some(), "{verdict:?}");
    let after = fleet.client.wait("the other nodes are blue", |status| colours(status) == all("blue"));
    assert_ne!(after.configuration, before.configuration);
    assert_eq!(staying(&after), staying(&before));
    assert_eq!(last(&fleet).verdict, "deployed");
}

#[test]
fn a_controller_that_is_killed_in_the_middle_has_all_go_back_when_it_returns() {
    let (mut fleet, before) = red();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &slow(&reserved));
    let begun: Deployed = fleet.client.ask(&["deploy", "--detach", file.to_str().unwrap()]);
    assert!(begun.verdict.ok && begun.deployment.is_some(), "{begun:?}");
    fleet.client.wait("something is blue", |status| colours(status).values().any(|colour| colour == "blue"));
    let status = fleet.client.status();
    let present = status.deployment.unwrap();
    assert_eq!((&*present.phase, &*present.verdict, present.to_switch), ("switching", "open", 4));
    fleet.controller.kill();
    fleet.controller.start_again();
    is_red_again(&fleet, &before);
    assert_eq!(last(&fleet).verdict, "rolled-back");
}

#[test]
fn an_agent_that_is_killed_in_the_middle_keeps_what_it_runs_and_goes_back_with_the_others() {
    let (mut fleet, before) = red();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &slow(&reserved));
    let client = fleet.client.clone();
    let deploying = thread::spawn(move || client.deploy(&file));
    let is_blue = |status: &Status| {
        colours(status).get("moves-on-a").is_some_and(|colour| colour == "blue") && states(status).contains_key("slow")
    };
    let middle = fleet.client.wait("a is blue, and c is at it", is_blue);
    fleet.agent_mut("c").kill();
    assert!(processes::is_alive(pids(&middle)["stays-c"]));
    fleet.agent_mut("c").start_again();
    let verdict: Verdict = deploying.join().unwrap();
    assert!(verdict.outcomes.last().unwrap().error.as_deref().unwrap().starts_with("rolled back"), "{verdict:?}");
    is_red_again(&fleet, &before);
}

#[test]
fn an_agent_that_stays_away_is_named_until_it_follows_and_can_be_given_up_by_name() {
    let (mut fleet, before) = red();
    fleet.agent_mut("b").kill();
    fleet.client.wait_for("stays-b", "UNKNOWN");
    let file = cluster(&fleet, "blue", "");
    let verdict: Deployed = fleet.client.ask(&["deploy", "--without", "b", file.to_str().unwrap()]);
    assert!(verdict.verdict.ok, "{verdict:?}");
    let status = fleet.client.status();
    let present = status.deployment.clone().unwrap();
    assert_eq!(
        (&*present.phase, &*present.verdict, &present.owing[..]),
        ("following", "deployed", &["b".to_owned()][..])
    );
    let text = fleet.client.run(&["status"]).stdout;
    assert!(text.contains("is decided (deployed), and has yet to be followed by b"), "{text}");
    fleet.agent_mut("b").start_again();
    let after = fleet.client.wait("b has followed", |status| status.deployment.is_none());
    let after = if colours(&after) == all("blue") { after } else { fleet.client.wait_for_all("RUNNING") };
    assert_eq!(colours(&after), all("blue"));
    assert_eq!(staying(&after), staying(&before));
}

#[test]
fn of_four_nodes_one_is_missed_at_a_time_and_with_all_at_once_none_waits() {
    let fleet = Fleet::start();
    let four = |colour: &str| -> Vec<String> {
        let keys = |at: usize| format!("instance = {}\nrole = worker\nenv = COLOUR={colour}", ALL[at % 3]);
        (0..4).map(|at| sleeper(&format!("w{at}"), &keys(at))).collect()
    };
    fleet.client.deployed(&fleet.file(&ALL, &four("red")));
    let before = fleet.client.events().len();
    fleet.client.deployed(&fleet.file(&ALL, &four("blue")));
    let events = fleet.client.events();
    let mut missed = std::collections::BTreeSet::new();
    let mut most = 0;
    for event in events[before..].iter().filter(|event| event.kind == "change") {
        match event.new.as_deref() {
            Some("RUNNING") => drop(missed.remove(event.node.as_ref().unwrap())),
            _ => drop(missed.insert(event.node.clone().unwrap())),
        }
        most = most.max(missed.len());
    }
    assert_eq!((most, missed.len()), (1, 0));
    let file = fleet.file(&ALL, &four("green"));
    let verdict: Deployed = fleet.client.ask(&["deploy", "--all-at-once", file.to_str().unwrap()]);
    assert!(verdict.verdict.ok, "{verdict:?}");
    assert_eq!(fleet.client.status().nodes.len(), 4);
}

#[test]
fn the_history_says_who_deployed_what_and_brings_back_what_was_before() {
    let (fleet, before) = red();
    fleet.client.deployed(&cluster(&fleet, "blue", ""));
    let history: History = fleet.client.ask(&["history"]);
    let [first, second] = &history.deployments[..] else { panic!("{history:?}") };
    assert_eq!(
        (&*first.verdict, &*second.verdict, second.former.as_ref()),
        ("deployed", "deployed", Some(&first.configuration))
    );
    let difference: Difference = fleet.client.ask(&["diff", "1", "2"]);
    let changed: Vec<_> = difference.nodes.iter().map(|node| (&*node.node, &*node.how, &node.keys[..])).collect();
    let env = ["env".to_owned()];
    assert_eq!(changed, ["moves-on-a", "moves-on-b", "moves-on-c"].map(|name| (name, "changed", &env[..])));
    let text = fleet.client.run(&["history"]).stdout;
    assert!(text.lines().count() == 3 && text.contains("this machine's token from 127."), "{text}");

    let back: Deployed = fleet.client.ask(&["rollback"]);
    assert!(back.verdict.ok, "{back:?}");
    is_red_again(&fleet, &before);
    assert_eq!((last(&fleet).back_to, back.deployment), (Some(1), Some(3)));
    let again: Deployed = fleet.client.ask(&["rollback", "2"]);
    assert!(again.verdict.ok, "{again:?}");
    assert_eq!(colours(&fleet.client.status()), all("blue"));
    let unknown: Deployed = fleet.client.ask(&["rollback", "77"]);
    assert!(unknown.verdict.outcomes[0].error.as_deref().unwrap().starts_with("there is no deployment 77"));
    assert_eq!(fleet.client.run(&["history", "show", "77"]).code, 1);
}

#[test]
fn the_second_of_two_is_told_who_deploys_and_can_look_on() {
    let (fleet, _) = red();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &slow(&reserved));
    let begun: Deployed = fleet.client.ask(&["deploy", "--detach", file.to_str().unwrap()]);
    let number = begun.deployment.unwrap();
    let refused = fleet.client.deploy(&file);
    let told: Vec<_> = refused.outcomes.iter().filter_map(|outcome| outcome.error.as_deref()).collect();
    let who = format!("deployment {number} is under way, by this machine's token from 127.");
    assert!(told.len() == 1 && told[0].starts_with(&who), "{told:?}");
    let client = fleet.client.clone();
    let looking = thread::spawn(move || client.run(&["deploy", "--attach"]));
    eventually("the slow one is being switched", || {
        let present = fleet.client.status().deployment?;
        present.under_way.contains(&"slow".to_owned()).then_some(())
    });
    let _listener = reserved.listen();
    let looked = looking.join().unwrap();
    assert!(looked.stderr.contains(&format!("deployment {number} of ")), "{looked:?}");
    assert!(looked.stdout.contains("outcome       "), "{looked:?}");
    assert_eq!(fleet.client.run(&["deploy", "--attach"]).code, 0);
    let status = fleet.client.status();
    assert_eq!(node(&status, "stays-a").state, "RUNNING");
}

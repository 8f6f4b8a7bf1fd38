mod absent;
mod away;
mod dialling;
mod leaving;
mod limits;
mod log;
mod orders;
mod phases;
mod planning;
mod returning;
mod twice;
mod versions;

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::bridge::Features;
use crate::model::{Abilities, Instance, Node, NodeName, NodeState, NodeStatus, Role};

#[test]
fn get_nodes_says_of_every_agent_whether_it_answered() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.ask("nodes", |reqid| client::GetNodesRequest { reqid }.into());
    let inner = cluster.take_sent("a", |message| match message {
        ToAgent::GetNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    cluster.lose("a");
    cluster.say("b", GetNodesResponse { reqid: inner, pid: None, nodes: vec![] });
    assert_eq!(cluster.answer("nodes"), ["a: the link was lost before it answered", "b: done"]);
}

#[test]
fn what_was_asked_on_a_link_that_a_newer_one_replaced_is_given_up() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.ask("restart", |reqid| client::RestartRequest { reqid, nodes: BTreeSet::new() }.into());
    cluster.answers_itself = false;
    let former = cluster.links["a"];
    cluster.connect("a");
    assert_eq!(cluster.ended, [former]);
    let lost = "the link was lost before it answered";
    assert_eq!(cluster.answer("restart"), [format!("n1: {lost}"), format!("a: {lost}")]);

    cluster.connect("a"); // before it answered the welcome
    cluster.published.clear();
    cluster.answers_itself = true;
    cluster.connect("a");
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.errors(), [] as [&str; 0], "nothing is missed that was asked on former links");
}

#[test]
fn an_agent_is_told_what_to_run_after_hello_welcome_and_ready_and_not_before() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.connect("a");
    assert_eq!(cluster.take_all_sent(), ["a: received"], "without a deployment nobody is told anything");
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    assert_eq!(cluster.take_all_sent(), ["a: welcome"]);
    cluster.connect("b");
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: welcome"]);
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), [] as [&str; 0], "b is not ready");
    assert_eq!(cluster.ready(), None);
    cluster.reply("b");
    assert_eq!(cluster.ready(), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(cluster.take_all_sent(), ["a: commit c1", "b: commit c1"]);
    cluster.reply("a");
    assert!(cluster.answers.is_empty(), "it is complete with the last answer");
    cluster.reply("b");
    assert_eq!(cluster.answer("deploy"), ["a: done", "b: done"]);
}

#[test]
fn an_agent_looks_at_what_is_to_come_behind_its_welcome_and_is_asked_once_on_each_link() {
    let mut cluster = Cluster::new(Stored::default());
    (cluster.answers_itself, cluster.checks) = (false, true);
    ["a", "b"].iter().for_each(|name| cluster.connect(name));
    cluster.take_all_sent();
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    assert_eq!(cluster.take_all_sent(), ["a: welcome", "b: welcome", "a: check c1", "b: check c1"]);
    cluster.lose("a");
    cluster.connect("a");
    assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome"]);
    ["b", "a"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.take_all_sent(), ["a: check c1"], "b has looked");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: commit c1", "b: commit c1"]);
}

#[test]
fn whoever_never_answers_the_welcome_ends_a_deployment_also_if_it_has_looked() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.answers_itself = false;
    ["a", "b"].iter().for_each(|name| cluster.connect(name));
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    cluster.reply("a");
    assert!(cluster.answers.is_empty(), "b has looked, and has not said that it is ready");
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.answer("deploy"), ["b: did not answer the welcome"]);
    assert_eq!((cluster.saved.deployed.as_ref(), cluster.needed()), (None, vec![]));
}

#[test]
fn who_has_refused_the_welcome_is_asked_again_by_the_next_deployment_and_holds_up_none() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.answers_itself = false;
    let refuse = |cluster: &mut Cluster| {
        let reqid = cluster.take_sent("a", |message| match message {
            ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => Some(reqid),
            _ => None,
        });
        let outcome = Outcome::instance_failed(&instance("a"), "not today");
        cluster.say("a", AgentWelcomeResponse { reqid, outcome });
    };
    cluster.lose("a");
    cluster.connect("a");
    refuse(&mut cluster);
    for next in ["c2", "c3"] {
        cluster.deploy(next, configuration(next, &[("a", "n1")]));
        refuse(&mut cluster);
        assert_eq!(cluster.answer(next)[0], "a: not today");
        refuse(&mut cluster); // that it is welcome to what is in force
    }
}

#[test]
fn an_agent_of_another_version_is_refused_with_a_reason() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.connect_as("b", NotifyAgentHello { api_version: 2, ..hello("b") });
    assert_eq!(cluster.take_all_sent(), ["b: refused"]);
    assert_eq!(cluster.ended, [cluster.links["b"]]);
    let News::Error(error) = cluster.published.last().unwrap() else { panic!("{:?}", cluster.published) };
    assert!(error.msg.contains("speaks version 2"), "{}", error.msg);
    assert_eq!(cluster.state.roster.connected().len(), 1);
}

#[test]
fn the_second_of_two_agents_of_one_name_is_refused_and_the_first_goes_on() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let first = cluster.links["a"];
    cluster.connect_as("a", NotifyAgentHello { epoch: 8, ..hello("a") });
    assert_eq!(cluster.take_all_sent(), ["a: refused"]);
    assert_eq!(cluster.ended, [cluster.links["a"]]);
    cluster.lose("a");
    assert_eq!(cluster.state.roster.link(&instance("a")), Some(first));
    assert_eq!(cluster.state_of("n1"), NodeState::Running, "the end of a refused link is no loss");
}

#[test]
fn an_agent_speaks_for_the_instance_that_its_link_was_greeted_by_and_no_other() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    for (greeted, said) in [("x", "a"), ("x", "y")] {
        cluster.published.clear();
        cluster.connect_as(greeted, hello(said));
        assert_eq!(cluster.take_all_sent(), ["x: refused"]);
        assert_eq!(cluster.ended.pop(), Some(cluster.links["x"]));
        let error = format!("{said}: refused: its link was greeted by `x`, which cannot speak for `{said}`");
        assert_eq!(cluster.errors(), [error]);
    }
    // Nor does it become somebody else later.
    cluster.say("a", hello("b"));
    assert_eq!(cluster.take_all_sent(), ["a: refused"]);
    assert_eq!(cluster.state.roster.connected(), [instance("a")].into());
}

#[test]
fn a_link_on_which_nobody_says_hello_is_ended() {
    let mut cluster = Cluster::new(Stored::default());
    let silent = cluster.greet("a", None);
    cluster.connect("b");
    cluster.pass(Duration::from_secs(9));
    assert_eq!(cluster.ended, []);
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.ended, [silent]);
}

#[test]
fn an_agent_that_is_refused_again_and_again_is_told_of_once() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let first = cluster.links["a"];
    cluster.published.clear();
    for epoch in 8..12 {
        cluster.connect_as("a", NotifyAgentHello { epoch, ..hello("a") });
        cluster.lose("a");
    }
    assert_eq!(cluster.errors().len(), 1, "{:?}", cluster.errors());
    cluster.connect_as("a", NotifyAgentHello { api_version: 2, ..hello("a") });
    assert_eq!(cluster.errors().len(), 2, "the cause is another");

    cluster.links.insert("a".into(), first);
    cluster.lose("a");
    cluster.connect("a");
    cluster.published.clear();
    cluster.connect_as("a", NotifyAgentHello { api_version: 2, ..hello("a") });
    assert_eq!(cluster.errors().len(), 1, "much has happened since");
    (0..10_000).for_each(|n| {
        let name = format!("x{n}");
        cluster.connect_as(&name, NotifyAgentHello { api_version: 2, ..hello(&name) });
    });
    assert!(cluster.state.refusals.len() <= REFUSALS);
}

#[test]
fn a_deployment_that_cannot_gather_its_instances_names_them_and_changes_nothing() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.deploy("deploy", configuration("c2", &[("a", "n1"), ("c", "n2")]));
    cluster.deploy("another", configuration("c3", &[("a", "n1")]));
    assert_eq!(cluster.answer("another"), ["all: earlier deployment deploy still pending", UNDER_WAY]);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.answer("deploy"), ["c: never connected", "all: request timed out"]);
    let written: Vec<_> = cluster.saved.last.iter().flat_map(|last| last.results.iter().map(told)).collect();
    assert_eq!(written, ["c: never connected"], "the controller is not to blame for it");
    assert!(!cluster.take_all_sent().contains(&"b: standby".to_owned()), "b is part of what is deployed still");
    assert_eq!(cluster.saved.deployed.as_ref().unwrap().id.as_str(), "c1");
    assert_eq!(cluster.needed(), ["a", "b"], "nobody waits for c any more");
    assert_eq!(cluster.dials, ["hang up c"]);
    // And what it has come to be is no hindrance to the next one.
    cluster.deploy("next", configuration("c4", &[("a", "n1")]));
    assert_eq!(cluster.answer("next"), ["a: done", "b: done"]);
    assert!(cluster.take_all_sent().contains(&"b: standby".to_owned()));
}

#[test]
fn a_deployment_that_cannot_gather_its_instances_reaches_the_others_as_before() {
    let at = |name: &str, port| Instance { name: instance(name), host: Some([127, 0, 0, 1].into()), port: Some(port) };
    let mut cluster = Cluster::new(Stored::default());
    let mut first = configuration("c1", &[("a", "n1"), ("b", "n2")]);
    first.instances[1] = at("b", 1);
    cluster.deploy("first", first.clone());
    ["a", "b"].iter().for_each(|name| cluster.connect(name));
    assert_eq!((cluster.answer("first").len(), std::mem::take(&mut cluster.dials)), (2, vec!["dial b:1".to_owned()]));
    let mut next = configuration("c2", &[("a", "n1"), ("b", "n2"), ("c", "n3"), ("d", "n4")]);
    (next.instances[1], next.instances[2]) = (at("b", 2), at("c", 3));
    cluster.deploy("next", next);
    assert_eq!(std::mem::take(&mut cluster.dials), ["hang up b", "dial b:2", "dial c:3"]);
    assert_eq!(cluster.ended, [cluster.links["b"]]);
    cluster.lose("b");
    cluster.connect("c");
    cluster.take_all_sent();
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.answer("next")[1], "d: never connected");
    assert_eq!(cluster.dials, ["hang up d", "hang up b", "dial b:1", "hang up c"]);
    assert_eq!(cluster.take_all_sent(), ["c: standby", "a: configuration c1"]);
    assert_eq!(cluster.needed(), ["a", "b"]);
    cluster.connect("b");
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: welcome", "b: configuration c1"]);
}

#[test]
fn an_agent_that_waits_for_a_first_deployment_is_left_alone_when_that_fails() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.connect("a");
    cluster.say("a", snapshot_of(&[("a", "n1")]));
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    cluster.take_all_sent();
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.answer("deploy"), ["b: never connected", "all: request timed out"]);
    assert_eq!(cluster.take_all_sent(), [] as [&str; 0], "what it runs may be all there is");
    assert_eq!(cluster.needed(), [] as [&str; 0]);
}

#[test]
fn a_controller_that_cannot_dial_says_so_before_anything_is_staged() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.state.rules.dials = Reach::Nowhere;
    let mut dialled = configuration("c1", &[("a", "n1"), ("b", "n2")]);
    dialled.instances[1] =
        Instance { host: Some([127, 0, 0, 1].into()), port: Some(1), ..dialled.instances[1].clone() };
    cluster.deploy("deploy", dialled);
    let error = "this controller cannot dial `b`: name instances without an address, as a lab does";
    assert_eq!(cluster.answer("deploy"), [format!("all: {error}")]);
    assert_eq!((cluster.saved.staged, cluster.dials), (None, vec![]));
}

#[test]
fn an_instance_that_is_dialled_stands_by_before_its_link_is_ended() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n1")]));
    assert_eq!(cluster.take_all_sent(), ["b: standby", "a: commit c2"]);
    assert_eq!(cluster.dials, [] as [&str; 0]);
    cluster.reply("b");
    assert_eq!(cluster.dials, ["hang up b"]);
}

#[test]
fn an_instance_that_was_to_stand_by_is_told_again_on_a_newer_link() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n1")]));
    cluster.take_all_sent();
    cluster.connect("b");
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: standby"]);
    cluster.reply("b");
    assert_eq!(cluster.dials, ["hang up b"]);
}

#[test]
fn what_is_deployed_can_be_deployed_again_wherever_its_agents_are_by_then() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.connect_at("a", [10, 0, 0, 1]);
    (cluster.answers_itself, cluster.checks) = (false, true);
    cluster.deploy("first", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    // It is seen only after its configuration was staged.
    cluster.connect_at("b", [10, 0, 0, 2]);
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    let first = cluster.take_shares();
    let hosts: Vec<_> = first[0].instances.iter().map(|instance| instance.host.unwrap().to_string()).collect();
    assert_eq!((hosts, first.len()), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], 2));
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.take_shares(), [] as [Configuration; 0], "they have it from the check");
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.answer("first"), ["a: done", "b: done"]);
    let saved = cluster.saved.deployed.as_ref().map(|saved| &saved.instances);
    assert_eq!(
        saved,
        Some(&first[0].instances[..].into()),
        "a controller that is started again tells them nothing else"
    );

    cluster.lose("b");
    cluster.connect_at("b", [10, 0, 0, 3]);
    cluster.reply("b");
    assert_eq!(cluster.take_shares(), [first[1].clone()], "an agent refuses other contents of an id");
    cluster.reply("b");
    cluster.ask("again", |reqid| client::DeployRequest { reqid, terms: client::Terms::default() }.into());
    assert_eq!(cluster.take_shares(), first);
}

#[test]
fn a_node_that_moves_is_down_before_it_is_started_elsewhere() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n2"), ("b", "n1")]));
    assert_eq!(cluster.take_all_sent(), ["a: stop n1", "b: stop n2"]);
    cluster.ask("start", |reqid| client::StartRequest { reqid, nodes: BTreeSet::new() }.into());
    let moving = "it is moving to another instance: deployment 2 is still pending";
    assert_eq!(cluster.answer("start"), [format!("n1: {moving}"), format!("n2: {moving}")]);

    cluster.reply("a");
    // The order to stop, or its answer, was lost: it is asked again, and nothing is started meanwhile.
    cluster.lose("b");
    cluster.connect("b");
    let snapshot = NotifySnapshot { epoch: 7, seq: 9, configuration: None, nodes: vec![] };
    cluster.say("b", snapshot);
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: welcome", "b: stop n2"]);
    assert_eq!(cluster.saved.deployed.as_ref().unwrap().id.as_str(), "c1");
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["a: commit c2", "b: commit c2"]);
    assert_eq!(cluster.saved.deployed.as_ref().unwrap().id.as_str(), "c2", "it is decided before anybody is told");
}

#[test]
fn nomad_2185_a_node_leaves_an_instance_that_is_out_of_reach_only_if_that_is_given_up_by_name() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.lose("b");
    cluster.published.clear();
    cluster.deploy("kept", configuration("c2", &[("a", "n1"), ("a", "n2"), ("b", "n3")]));
    cluster.pass(Duration::from_secs(30));
    let cause = "not connected since 1970-01-01T00:00:00.000000Z: cut";
    assert_eq!(cluster.answer("kept"), [format!("b: {cause}"), "all: request timed out".to_owned()]);
    assert_eq!(cluster.errors(), [] as [&str; 0]);

    cluster.deploy_without("given up", configuration("c3", &[("a", "n1"), ("a", "n2")]), &["b"]);
    let twice = "b: not connected since 1970-01-01T00:00:00.000000Z: cut; `n2` is started elsewhere, and may run twice until \
                 it is back or stopped";
    assert_eq!(cluster.answer("given up"), ["a: done", twice]);
    let [error] = &cluster.errors()[..] else { panic!("{:?}", cluster.errors()) };
    assert!(error.starts_with("n2 of b: given up with its instance, which is out of reach"), "{error}");

    // Whatever the former instance tells is not what the node is now.
    cluster.say("a", snapshot_of(&[("a", "n1"), ("a", "n2")]));
    let before = cluster.state.nodes.get("n2").cloned();
    cluster.take_all_sent();
    cluster.connect("b");
    cluster.say("b", snapshot_of(&[("b", "n2")]));
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: standby"]);
    cluster.say("b", removal("b", "n2"));
    assert_eq!(cluster.state.nodes.get("n2").cloned(), before);
}

#[test]
fn an_instance_that_comes_back_while_others_end_their_nodes_ends_its_own_first() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2"), ("c", "n3")]);
    cluster.lose("c");
    cluster.answers_itself = false;
    cluster.published.clear();
    cluster.deploy_without("deploy", configuration("c2", &[("a", "n2"), ("a", "n3"), ("b", "n1")]), &["c"]);
    assert_eq!(cluster.take_all_sent(), ["a: stop n1", "b: stop n2"]);
    cluster.connect("c");
    cluster.say("c", snapshot_of(&[("c", "n3")]));
    cluster.reply("a");
    cluster.take_all_sent();
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["c: stop n3"]);
    // It is not needed any more, and asked again all the same.
    cluster.lose("c");
    cluster.connect("c");
    cluster.say("c", snapshot_of(&[("c", "n3")]));
    assert_eq!(cluster.take_all_sent(), ["c: received", "c: welcome", "c: stop n3"]);
    cluster.reply("c");
    assert_eq!(cluster.take_all_sent(), ["c: standby", "a: commit c2", "b: commit c2"]);
    assert!(cluster.errors().iter().all(|error| !error.contains("given up")), "{:?}", cluster.errors());
}

#[test]
fn a_node_that_rested_where_it_could_not_be_moved_from_rests_on() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("a", "n2"), ("b", "n3")]);
    cluster.say("a", change("a", "n1", NodeState::Stopped));
    cluster.take_all_sent();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("b", "n1"), ("b", "n2"), ("a", "n3")]));
    assert_eq!(cluster.take_all_sent(), ["a: stop n1 n2", "b: stop n3"]);
    cluster.pass(Duration::from_secs(300));
    let back = ["a: back to c1 with n2", "b: back to c1 with n3"];
    assert_eq!(cluster.take_all_sent(), back);
}

#[test]
fn a_node_that_will_not_end_is_not_moved_and_the_answer_says_no_more_than_that() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n1"), ("b", "n3"), ("a", "n2")]));
    let inner = cluster.take_sent("b", |message| match message {
        ToAgent::StopRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcomes = vec![Outcome::node_failed(&instance("b"), &node("n2"), "it does not end".into(), None)];
    cluster.say("b", StopResponse { reqid: inner, outcomes });
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    let back = "all: rolled back: configuration c1 is in force again";
    assert_eq!(cluster.answer("deploy"), ["n2: it does not end", back]);
    assert_eq!(cluster.saved.deployed.as_ref().unwrap().id.as_str(), "c1");
}

#[test]
fn nodes_that_could_not_be_moved_are_started_where_they_were() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n2"), ("b", "n1")]));
    cluster.reply("a");
    cluster.take_all_sent();
    cluster.pass(Duration::from_secs(300));
    let answer = cluster.answer("deploy");
    assert_eq!(answer[..2], ["b: did not answer in time", "all: request timed out"]);
    assert!(answer[2].starts_with("all: rolled back: configuration c1 is in force again; `a`, `b` have yet to follow"));
    let back = ["a: back to c1 with n1", "b: back to c1 with n2"];
    assert_eq!(cluster.take_all_sent(), back);
}

#[test]
fn what_was_decided_reaches_an_instance_that_comes_back_too_late_for_the_answer() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n1"), ("b", "n2"), ("b", "n3")]));
    cluster.reply("a");
    // It answered, and came back without a memory: it is told again.
    cluster.lose("a");
    cluster.take_all_sent();
    cluster.connect_as("a", NotifyAgentHello { epoch: 8, ..hello("a") });
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome", "a: configuration c2"]);
    // It never answered, and comes back when nobody waits any more.
    cluster.lose("b");
    cluster.pass(Duration::from_secs(300));
    let lost = ["b: not connected since 1970-01-01T00:00:00.000000Z: cut"];
    assert_eq!(cluster.answer("deploy")[1..], lost);
    cluster.take_all_sent();
    cluster.answers_itself = true;
    cluster.connect("b");
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: welcome", "b: configuration c2"]);
}

#[test]
fn an_instance_that_left_while_it_was_away_stands_by_when_it_returns() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.lose("b");
    cluster.deploy_without("deploy", configuration("c2", &[("a", "n1")]), &["b"]);
    assert_eq!(cluster.answer("deploy"), ["a: done"]);
    assert_eq!(cluster.known(), ["n1"], "nobody will tell of n2 again");
    cluster.take_all_sent();
    cluster.connect("b");
    cluster.say("b", snapshot_of(&[("b", "n2")]));
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: standby"]);
}

#[test]
fn nodes_are_unknown_while_their_agent_is_out_of_reach_and_come_back_with_it() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.lose("a");
    assert_eq!((cluster.state_of("n1"), cluster.state_of("n2")), (NodeState::Unknown, NodeState::Running));
    cluster.ask("stop", |reqid| client::StopRequest { reqid, nodes: BTreeSet::from([node("n1")]) }.into());
    assert_eq!(cluster.answer("stop"), ["n1: its instance is not connected"]);
    cluster.connect("a");
    cluster.say("a", snapshot_of(&[("a", "n1")]));
    assert_eq!(cluster.state_of("n1"), NodeState::Running);
    let changes: Vec<_> = cluster.changes_of("n1");
    let [.., lost, back] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(*lost, (NodeState::Running, NodeState::Unknown));
    assert_eq!(*back, (NodeState::Unknown, NodeState::Running));
}

#[test]
fn news_counts_once_and_what_is_missing_is_told() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let log = |seq| NotifyLog { seq, time: Timestamp(0), instance: instance("a"), node: None, msg: seq.to_string() };
    cluster.published.clear();
    for seq in [21, 22, 22, 21, 25] {
        cluster.say("a", log(seq));
    }
    let words = |news: &News| match news {
        News::Log(log) => log.msg.clone(),
        News::Error(error) => error.msg.chars().take(18).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(cluster.published.iter().map(words).collect::<Vec<_>>(), ["21", "22", "news 23 to 24 of t", "25"]);
}

#[test]
fn the_last_number_there_is_may_come_from_anybody() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.published.clear();
    cluster.say("a", NotifyChange { seq: u64::MAX, ..change("a", "n1", NodeState::Crashed) });
    cluster.say("b", NotifySnapshot { seq: u64::MAX, ..snapshot_of(&[("b", "n2")]) });
    let lost =
        |from, last| format!("{from}: news 21 to {last} of this agent is lost: too much of it waited for the link");
    assert_eq!(cluster.errors(), [lost("a", u64::MAX - 1), lost("b", u64::MAX)]);
    let old =
        "a: refused: a snapshot is older than news that came before it: somebody says again what its agent said once";
    cluster.published.clear();
    (0..2).for_each(|_| cluster.say("a", snapshot_of(&[("a", "n1")])));
    assert_eq!((cluster.errors(), cluster.state_of("n1")), (vec![old.to_owned()], NodeState::Crashed));
    cluster.lose("a");
    cluster.connect("a");
    cluster.say("a", snapshot_of(&[("a", "n1")]));
    assert_eq!(cluster.state_of("n1"), NodeState::Running, "what is first on a link counts");
}

#[test]
fn a_request_without_end_is_answered_by_the_table_of_requests() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.ask("kept", |reqid| client::TestTimeoutRequest { reqid, with_state: true }.into());
    cluster.ask("lost", |reqid| client::TestTimeoutRequest { reqid, with_state: false }.into());
    cluster.pass(Duration::from_secs(9));
    assert!(cluster.answers.is_empty());
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.answer("kept"), ["all: request timed out"]);
    assert!(cluster.answers.is_empty());
}

/// What the second of two deployments is told of the first.
const UNDER_WAY: &str = "all: deployment 2 is under way, by anybody since 1970-01-01T00:00:00.000000Z: see `watchpost \
                         deploy --attach`";

/// A controller whose agents are this test.
struct Cluster {
    state: State,
    now: Now,
    links: BTreeMap<String, LinkId>,
    /// Whose each link is, or was.
    names: BTreeMap<LinkId, String>,
    sent: Vec<(LinkId, ToAgent)>,
    /// What agents were told and did not reply to.
    told: Vec<(LinkId, ToAgent)>,
    ended: Vec<LinkId>,
    /// Pieces of files that agents asked for.
    reads: Vec<(LinkId, ReadBlobsRequest)>,
    dials: Vec<String>,
    saved: Stored,
    published: Vec<News>,
    /// Whose news is to be kept up to where.
    to_keep: Vec<(InstanceName, u64, u64)>,
    tickets: BTreeMap<Ticket, String>,
    answers: BTreeMap<String, ClientResponse>,
    answers_itself: bool,
    /// Whether agents have to be told to answer, too, where they only look at something. Else they object to nothing.
    checks: bool,
    /// What agents say that a configuration would change of what runs: instances and nodes.
    would_change: Vec<(String, String)>,
    /// Whether what is to be kept can be.
    disk: Result<(), String>,
    /// Where the disk is slow: what is to be written, under which number.
    slow: Option<Vec<(u64, Vec<Save>)>>,
    /// What agents can do.
    features: Features,
}

/// An outcome, in words.
fn told(outcome: &Outcome) -> String {
    let node = outcome.node.as_ref().map(|node| node.to_string());
    let who = node.or(outcome.instance.as_ref().map(|instance| instance.to_string())).unwrap_or("all".into());
    format!("{who}: {}", outcome.error.as_deref().unwrap_or("done"))
}

impl Cluster {
    fn new(stored: Stored) -> Self {
        Self::with_log(stored, false, Recalled::default())
    }

    fn with_log(stored: Stored, on_disk: bool, recalled: Recalled) -> Self {
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let rules = Rules {
            name: instance("controller"),
            ports: PortRules::default(),
            dials: Reach::Anywhere,
            request_timeout: Duration::from_secs(10),
            epoch: 1,
            pace: crate::plan::Pace::default(),
            on_failure: crate::model::OnFailure::default(),
            on_disk,
            keys: crate::trust::CurveRoot::from([7; 32]),
        };
        let (state, first) = State::new(rules, stored.clone(), recalled, now);
        let mut cluster = Self {
            state,
            now,
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            sent: Vec::new(),
            told: Vec::new(),
            ended: Vec::new(),
            reads: Vec::new(),
            dials: Vec::new(),
            saved: stored,
            published: Vec::new(),
            to_keep: Vec::new(),
            tickets: BTreeMap::new(),
            answers: BTreeMap::new(),
            answers_itself: true,
            checks: false,
            would_change: Vec::new(),
            disk: Ok(()),
            slow: None,
            features: Features::NONE,
        };
        cluster.perform(first);
        cluster
    }

    /// With agents that are connected and run these nodes, given as instance and node.
    fn deployed(nodes: &[(&str, &str)]) -> Self {
        let mut cluster = Self::new(Stored::default());
        for (instance, _) in nodes {
            cluster.connect(instance);
        }
        cluster.deploy("first", configuration("c1", nodes));
        assert!(cluster.answer("first").iter().all(|outcome| outcome.ends_with("done")));
        for instance in nodes.iter().map(|(instance, _)| *instance).collect::<BTreeSet<_>>() {
            let own: Vec<_> = nodes.iter().copied().filter(|(of, _)| *of == instance).collect();
            cluster.say(instance, snapshot_of(&own));
        }
        cluster.sent.clear();
        cluster
    }

    fn connect(&mut self, name: &str) {
        self.connect_as(name, hello(name));
    }

    fn connect_as(&mut self, name: &str, hello: NotifyAgentHello) {
        let link = self.greet(name, None);
        self.step(Event::Mail(link, vec![hello.into()]));
    }

    fn connect_at(&mut self, name: &str, host: [u8; 4]) {
        let link = self.greet(name, Some(host.into()));
        self.step(Event::Mail(link, vec![hello(name).into()]));
    }

    /// A link stands, and nobody has said anything on it.
    fn greet(&mut self, name: &str, host: Option<IpAddr>) -> LinkId {
        let link = LinkId(self.names.len() as u64);
        self.names.insert(link, name.into());
        self.links.insert(name.into(), link);
        let peer = Peer { name: name.into(), host, dialled: None, features: self.features, certificate: None };
        self.step(Event::LinkUp(link, peer));
        link
    }

    fn lose(&mut self, name: &str) {
        let link = self.links.remove(name).unwrap();
        self.step(Event::LinkDown(link, "cut".into()));
    }

    fn say(&mut self, name: &str, message: impl Into<ToController>) {
        self.step(Event::Mail(self.links[name], vec![message.into()]));
    }

    fn ask(&mut self, name: &str, request: impl FnOnce(RequestId) -> ClientRequest) {
        let ticket = Ticket(self.tickets.len() as u64);
        self.tickets.insert(ticket, name.into());
        self.step(Event::Ask(ticket, request(id(name))));
    }

    fn deploy(&mut self, name: &str, configuration: Configuration) {
        self.ask(name, |reqid| {
            client::SetConfigurationRequest { reqid, configuration, upon: None, terms: client::Terms::default() }.into()
        });
    }

    /// The same without waiting for these instances.
    fn deploy_without(&mut self, name: &str, configuration: Configuration, without: &[&str]) {
        let without = without.iter().map(|name| instance(name)).collect();
        let terms = client::Terms { without, ..client::Terms::default() };
        self.ask(name, |reqid| client::SetConfigurationRequest { reqid, configuration, upon: None, terms }.into());
    }

    /// That agent does everything it was told so far.
    fn reply(&mut self, name: &str) {
        let link = self.links[name];
        let told = self.told.iter().filter(|(of, _)| *of == link);
        let replies: Vec<_> = told.filter_map(|(_, told)| reply(name, told)).collect();
        self.told.retain(|(of, _)| *of != link);
        self.step(Event::Mail(link, replies));
    }

    fn step(&mut self, event: Event) {
        let effects = self.state.step(event, self.now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let (mut replies, mut at_once) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Send(link, ToAgent::CheckConfigurationRequest(request)) if !self.checks => {
                    let of = &self.names[&link];
                    let changes = self.would_change.iter().filter(|(instance, _)| instance == of);
                    let change = |(_, name): &(String, String)| CheckedChange {
                        node: node(name),
                        role: Role::None,
                        runs: true,
                        shares: None,
                    };
                    let outcomes = vec![Outcome::instance_done(&instance(of))];
                    let changes = changes.map(change).collect();
                    let reply = CheckConfigurationResponse { reqid: request.reqid, outcomes, changes };
                    at_once.push(Event::Mail(link, vec![reply.into()]));
                }
                Effect::Send(link, message) => {
                    replies.extend(reply(&self.names[&link], &message).map(|reply| (link, reply)));
                    self.told.push((link, message.clone()));
                    self.sent.push((link, message));
                }
                Effect::EndLink(link, _) => self.ended.push(link),
                Effect::Dial(name, address) => self.dials.push(format!("dial {name}:{}", address.port())),
                Effect::HangUp(name) => self.dials.push(format!("hang up {name}")),
                Effect::ReadBlobs(link, request) => self.reads.push((link, request)),
                Effect::Save(saves, then) => {
                    saves.into_iter().for_each(|save| self.saved.apply(save));
                    self.answered(then);
                }
                Effect::Journal(number, saves) if self.slow.is_some() => {
                    self.slow.iter_mut().for_each(|slow| slow.push((number, saves.clone())));
                }
                Effect::Journal(number, saves) => {
                    let written = self.disk.clone();
                    if written.is_ok() {
                        saves.into_iter().for_each(|save| self.saved.apply(save));
                    }
                    at_once.push(Event::Journaled(number, written));
                }
                Effect::Answer(ticket, response) => self.answered(Some((ticket, response))),
                Effect::Silence(_) => {}
                Effect::Publish { news, .. } => self.published.push(news),
                Effect::Keep { instance, epoch, seq } => self.to_keep.push((instance, epoch, seq)),
            }
        }
        at_once.into_iter().for_each(|event| self.step(event));
        if self.answers_itself {
            self.told.clear();
            replies.into_iter().for_each(|(link, reply)| self.step(Event::Mail(link, vec![reply])));
        }
    }

    fn answered(&mut self, answer: Option<(Ticket, ClientResponse)>) {
        if let Some((ticket, response)) = answer {
            let name = self.tickets.remove(&ticket).expect("a request is answered once");
            self.answers.insert(name, response);
        }
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now.mono = at;
            self.step(Event::Tick);
        }
        self.now.mono = end;
    }

    /// The outcomes of that request's answer, in words.
    fn answer(&mut self, name: &str) -> Vec<String> {
        let outcomes = match self.answers.remove(name).unwrap_or_else(|| panic!("{name} is not answered")) {
            ClientResponse::SetConfigurationResponse(answer) => answer.outcomes,
            ClientResponse::DeployResponse(answer) => answer.outcomes,
            ClientResponse::GetNodesResponse(answer) => answer.outcomes,
            ClientResponse::StartResponse(answer) => answer.outcomes,
            ClientResponse::StopResponse(answer) => answer.outcomes,
            ClientResponse::RestartResponse(answer) => answer.outcomes,
            ClientResponse::GetIdValueResponse(answer) => answer.outcomes,
            ClientResponse::TestTimeoutResponse(answer) => vec![answer.outcome],
            other => panic!("{other:?}"),
        };
        outcomes.iter().map(told).collect()
    }

    /// Everything that was sent since this was asked last, in words.
    fn take_all_sent(&mut self) -> Vec<String> {
        let names = self.names.clone();
        let nodes = |nodes: &BTreeSet<NodeName>| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        let resting = |rest: &BTreeSet<NodeName>| match rest.is_empty() {
            true => String::new(),
            false => format!(" but for {}", nodes(rest)),
        };
        let words = |(link, message): (LinkId, ToAgent)| {
            let what = match message {
                ToAgent::AgentWelcomeRequest(_) => "welcome".to_owned(),
                ToAgent::AgentStandbyRequest(_) => "standby".to_owned(),
                ToAgent::SetConfigurationRequest(request) => {
                    format!("configuration {}{}", request.configuration.open().id, resting(&request.rest))
                }
                ToAgent::StageBundlesRequest(request) => format!("stage {} bundles", request.bundles.len()),
                ToAgent::CheckConfigurationRequest(request) => {
                    format!("check {}", request.configuration.open().id)
                }
                ToAgent::CommitConfigurationRequest(request) => {
                    format!("commit {}{}", request.configuration, resting(&request.rest))
                }
                ToAgent::SwitchNodesRequest(request) => {
                    format!("switch {}{}", nodes(&request.nodes), resting(&request.rest))
                }
                ToAgent::RestoreConfigurationRequest(request) => {
                    let how = if request.at_once { "back at once" } else { "back" };
                    format!("{how} to {} with {}", request.configuration.open().id, nodes(&request.up))
                }
                ToAgent::StopRequest(request) => format!("stop {}", nodes(&request.nodes)),
                ToAgent::StartRequest(request) => format!("start {}", nodes(&request.nodes)),
                ToAgent::NewsReceived(_) => "received".to_owned(),
                ToAgent::AgentRefused(_) => "refused".to_owned(),
                other => panic!("{other:?}"),
            };
            format!("{}: {what}", names[&link])
        };
        std::mem::take(&mut self.sent).into_iter().map(words).collect()
    }

    /// The shares that were sent since anything sent was asked for last.
    fn take_shares(&mut self) -> Vec<Configuration> {
        let share = |(_, message)| match message {
            ToAgent::SetConfigurationRequest(request) => Some(request.configuration.open()),
            ToAgent::CheckConfigurationRequest(request) => Some(request.configuration.open()),
            _ => None,
        };
        std::mem::take(&mut self.sent).into_iter().filter_map(share).collect()
    }

    /// The instances that the last news of that kind names as ready.
    fn ready(&self) -> Option<Vec<String>> {
        self.published.iter().rev().find_map(|news| match news {
            News::AgentsReady(ready) => Some(ready.instances.iter().map(InstanceName::to_string).collect()),
            _ => None,
        })
    }

    /// What was told to have gone wrong.
    fn errors(&self) -> Vec<String> {
        let words = |news: &News| match news {
            News::Error(NotifyError { node: Some(node), instance, msg, .. }) => {
                Some(format!("{node} of {instance}: {msg}"))
            }
            News::Error(NotifyError { instance, msg, .. }) => Some(format!("{instance}: {msg}")),
            _ => None,
        };
        self.published.iter().filter_map(words).collect()
    }

    fn changes_of(&self, name: &str) -> Vec<(NodeState, NodeState)> {
        let change = |news: &News| match news {
            News::Change(change) if change.node.as_str() == name => Some((change.old, change.new)),
            _ => None,
        };
        self.published.iter().filter_map(change).collect()
    }

    fn state_of(&self, name: &str) -> NodeState {
        self.state.nodes.get(name).unwrap().state
    }

    fn known(&self) -> Vec<&str> {
        self.state.nodes.iter().map(|status| status.node.as_str()).collect()
    }

    fn needed(&self) -> Vec<&str> {
        self.state.roster.needed().map(|instance| instance.name.as_str()).collect()
    }

    fn take_sent<T>(&mut self, to: &str, find: impl Fn(ToAgent) -> Option<T>) -> T {
        let link = self.links[to];
        let at = self.sent.iter().position(|(of, message)| *of == link && find(message.clone()).is_some());
        let (_, message) = self.sent.remove(at.unwrap_or_else(|| panic!("not sent to {to}: {:?}", self.sent)));
        find(message).unwrap()
    }
}

/// What an agent says at once that does as it is told.
fn reply(name: &str, message: &ToAgent) -> Option<ToController> {
    let done = |reqid: &RequestId| (reqid.clone(), Outcome::instance_done(&instance("i")));
    Some(match message {
        ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => {
            let (reqid, outcome) = done(reqid);
            AgentWelcomeResponse { reqid, outcome }.into()
        }
        ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => {
            let (reqid, outcome) = done(reqid);
            AgentStandbyResponse { reqid, outcome }.into()
        }
        ToAgent::StageBundlesRequest(StageBundlesRequest { reqid, .. }) => {
            let (reqid, outcome) = done(reqid);
            StageBundlesResponse { reqid, outcome }.into()
        }
        ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, configuration, .. }) => {
            // It speaks for the instance that its first node names.
            let of =
                configuration.clone().open().nodes.first().map_or_else(|| instance("i"), |node| node.instance.clone());
            let outcomes = vec![Outcome::instance_done(&of)];
            SetConfigurationResponse { reqid: reqid.clone(), outcomes }.into()
        }
        ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, .. }) => {
            let (reqid, outcome) = done(reqid);
            CheckConfigurationResponse { reqid, outcomes: vec![outcome], changes: Vec::new() }.into()
        }
        ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. }) => {
            SetConfigurationResponse { reqid: reqid.clone(), outcomes: vec![Outcome::instance_done(&instance(name))] }
                .into()
        }
        ToAgent::SwitchNodesRequest(SwitchNodesRequest { reqid, nodes, .. }) => {
            let outcomes = nodes.iter().map(|node| Outcome::node_done(&instance("i"), node)).collect();
            SwitchNodesResponse { reqid: reqid.clone(), outcomes }.into()
        }
        ToAgent::RestoreConfigurationRequest(RestoreConfigurationRequest { reqid, up, .. }) => {
            let (reqid, outcome) = done(reqid);
            let outcomes = up.iter().map(|node| Outcome::node_done(&instance("i"), node)).chain([outcome]).collect();
            RestoreConfigurationResponse { reqid, outcomes, waiting: vec![] }.into()
        }
        ToAgent::StopRequest(StopRequest { reqid, nodes }) => {
            let outcomes = nodes.iter().map(|node| Outcome::node_done(&instance("i"), node)).collect();
            StopResponse { reqid: reqid.clone(), outcomes }.into()
        }
        _ => return None,
    })
}

/// What the agent of a RUNNING node says; all are of one instance.
fn snapshot_of(nodes: &[(&str, &str)]) -> NotifySnapshot {
    let status = |(of, name): &(&str, &str)| NodeStatus {
        node: node(name),
        instance: instance(of),
        role: Role::None,
        state: NodeState::Running,
        pid: Some(70),
        port: None,
        metrics_port: None,
        restarts: 0,
        since: Timestamp(0),
        reason: "ready".into(),
        says: "".into(),
        netstats: None,
    };
    NotifySnapshot { epoch: 7, seq: 20, configuration: None, nodes: nodes.iter().map(status).collect() }
}

/// News behind that of [`snapshot_of`].
fn change(of: &str, name: &str, new: NodeState) -> NotifyChange {
    NotifyChange {
        seq: 21,
        time: Timestamp(0),
        instance: instance(of),
        node: node(name),
        role: Role::None,
        old: NodeState::Running,
        new,
        pid: None,
        exit: None,
        attempt: 0,
        restarts: 0,
        reason: "told".into(),
        removed: false,
    }
}

fn removal(of: &str, name: &str) -> NotifyChange {
    NotifyChange { removed: true, ..change(of, name, NodeState::Stopped) }
}

fn hello(name: &str) -> NotifyAgentHello {
    NotifyAgentHello {
        instance: instance(name),
        host: None,
        api_version: API_VERSION,
        version: "0.1.0".into(),
        epoch: 7,
        run: 1,
        place: 0,
        abilities: Abilities::untried(),
    }
}

fn configuration(id: &str, nodes: &[(&str, &str)]) -> Configuration {
    let mut configuration = Configuration::empty(ConfigurationId::new(id).unwrap());
    let names: BTreeSet<_> = nodes.iter().map(|(of, _)| *of).collect();
    configuration.instances =
        names.into_iter().map(|name| Instance { name: instance(name), host: None, port: None }).collect();
    let defined = |(of, name): &(&str, &str)| Node {
        command: vec!["program".into()],
        ..Node::new(node(name), instance(of), Role::None)
    };
    configuration.nodes = nodes.iter().map(defined).map(Arc::new).collect();
    configuration
}

fn instance(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn node(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

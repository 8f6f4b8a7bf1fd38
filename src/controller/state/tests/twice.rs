//! What may still run on one instance is not started on another, whatever comes between.

use super::returning::going_back_where_one_does_not_end;
use super::*;
use crate::model::Verdict;

/// `n1` was to move from `b` to `a`, which is new, and all went back; `a` was lost before it stood by.
fn gone_back_but_for_a() -> Cluster {
    let mut cluster = moving_to_a();
    cluster.turn("a", "n1", None);
    cluster.turn("a", "n3", Some("not ready"));
    cluster.put_back("b", &[]);
    cluster.lose("a");
    cluster.answer("deploy");
    assert_eq!(cluster.has_yet_to_reach(), ["a", "b"]);
    cluster.told.clear();
    cluster.sent.clear();
    cluster
}

/// `n1` has ended on `b`, and `a` is told to switch it.
fn moving_to_a() -> Cluster {
    let mut cluster = Cluster::deployed(&[("b", "n1"), ("b", "n2")]);
    ["a", "c"].iter().for_each(|name| cluster.connect(name));
    cluster.would_change = [("a", "n1"), ("a", "n3"), ("c", "n1")].map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n1"), ("a", "n3"), ("b", "n2")]));
    cluster.reply("a");
    cluster.say("b", change("b", "n1", NodeState::Stopped));
    cluster.reply("b");
    cluster
}

/// What was sent that may start anything.
fn starts(cluster: &mut Cluster) -> Vec<String> {
    let all = cluster.take_all_sent().into_iter();
    all.filter(|told| ["back", "switch", "configuration"].iter().any(|word| told.contains(word))).collect()
}

#[test]
fn what_may_come_back_is_not_started_while_another_deployment_moves_it() {
    let mut cluster = gone_back_but_for_a();
    cluster.deploy("next", configuration("c3", &[("b", "n2"), ("c", "n1")]));
    cluster.reply("c");
    cluster.reply("b");
    assert_eq!(starts(&mut cluster), ["c: switch n1"]);
    // Nothing holds n1 back any more but that it is being started elsewhere.
    cluster.connect("a");
    cluster.say("a", snapshot_of(&[]));
    cluster.told.retain(|(_, told)| matches!(told, ToAgent::AgentStandbyRequest(_)));
    cluster.reply("a");
    assert_eq!(starts(&mut cluster), [""; 0]);
    // It comes back with all others when that comes to nothing.
    let reqid = cluster.state.requests.owed_by(&instance("c"))[0].clone();
    let outcomes = vec![Outcome::node_failed(&instance("c"), &node("n1"), "not ready".into(), None)];
    cluster.say("c", SwitchNodesResponse { reqid, outcomes });
    assert_eq!(starts(&mut cluster), ["b: back to c1 with "], "it may run on c");
    cluster.reply("c");
    assert_eq!(starts(&mut cluster), ["b: back to c1 with n1"]);
}

#[test]
fn what_does_not_end_on_an_instance_is_started_nowhere_else_when_that_is_through_with_other_nodes() {
    let (mut cluster, reqid, outcomes) = going_back_where_one_does_not_end();
    let waiting = vec![CheckedChange { node: node("n2"), role: Role::None, runs: true, shares: None }];
    cluster.say("b", RestoreConfigurationResponse { reqid, outcomes, waiting });
    cluster.turn("b", "n2", None);
    assert_eq!(starts(&mut cluster), [""; 0], "n1 runs on b");
    cluster.say("b", removal("b", "n1"));
    assert_eq!(starts(&mut cluster), ["a: back to c1 with n1"]);
}

#[test]
fn a_deployment_that_is_refused_makes_no_controller_forget_who_has_yet_to_go_back() {
    let mut cluster = gone_back_but_for_a();
    cluster.deploy("refused", configuration("c3", &[("b", "n2"), ("nobody", "n1")]));
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Refused);
    let mut restarted = Cluster::new(cluster.saved.clone());
    restarted.answers_itself = false;
    assert_eq!(restarted.has_yet_to_reach(), ["a", "b"]);
    restarted.connect("b");
    restarted.reply("b");
    assert_eq!(starts(&mut restarted), ["b: back to c1 with "], "n1 may run on a");
    restarted.deploy("next", configuration("c4", &[("b", "n2")]));
    assert!(restarted.state.last_number > cluster.state.last_number);
}

#[test]
fn what_a_new_instance_was_begun_to_run_is_known_to_the_next_controller_until_it_has_ended() {
    let mut cluster = Cluster::deployed(&[("b", "n1")]);
    cluster.connect("a");
    cluster.would_change = vec![("a".into(), "n2".into())];
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n2"), ("b", "n1")]));
    cluster.reply("a");
    assert!(starts(&mut cluster).contains(&"a: switch n2".to_owned()));
    let mut restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.has_yet_to_reach(), ["a", "b"]);
    restarted.connect("b");
    restarted.answers_itself = false;
    restarted.connect("a");
    restarted.say("a", snapshot_of(&[("a", "n2")]));
    let reqid = restarted.take_sent("a", |message| match message {
        ToAgent::AgentStandbyRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcome = Outcome::node_failed(&instance("a"), &node("n2"), "it does not end".into(), None);
    restarted.say("a", AgentStandbyResponse { reqid, outcome });
    assert_eq!(restarted.has_yet_to_reach(), ["a"]);
    restarted.told.clear();
    restarted.sent.clear();
    restarted.say("a", removal("a", "n2"));
    assert!(restarted.take_all_sent().contains(&"a: standby".to_owned()), "it may do so now");
    restarted.reply("a");
    assert_eq!(restarted.has_yet_to_reach(), [""; 0]);
}

#[test]
fn whoever_left_and_was_lost_is_missed_on_when_a_deployment_that_brings_it_back_comes_to_nothing() {
    let mut cluster = Cluster::deployed(&[("b", "n1"), ("d", "n2")]);
    cluster.lose("d");
    cluster.deploy_without("deploy", configuration("c2", &[("b", "n1")]), &["d"]);
    cluster.connect("d");
    cluster.would_change = vec![("d".into(), "n3".into())];
    cluster.answers_itself = false;
    cluster.deploy("next", configuration("c3", &[("b", "n1"), ("d", "n3")]));
    cluster.reply("d");
    assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Open);
    let restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.has_yet_to_reach(), ["b", "d"]);
}

#[test]
fn what_is_about_to_be_started_where_it_was_to_move_is_ended_there_before_it_is_started_elsewhere() {
    let cluster = moving_to_a();
    let mut restarted = Cluster::new(cluster.saved.clone());
    restarted.answers_itself = false;
    restarted.deploy("next", configuration("c3", &[("a", "n4"), ("b", "n1"), ("b", "n2")]));
    ["a", "b"].iter().for_each(|name| restarted.connect(name));
    let mut snapshot = snapshot_of(&[("a", "n1")]);
    snapshot.nodes[0].state = NodeState::Stopped;
    restarted.say("a", snapshot);
    ["a", "b"].iter().for_each(|name| restarted.reply(name));
    assert_eq!(restarted.take_all_sent().last().unwrap(), "a: stop n1");
}

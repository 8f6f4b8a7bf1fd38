//! What an agent does not have when it comes back, though it is known to the controller, or meant to be there.

use super::*;

#[test]
fn what_only_an_abandoned_deployment_would_have_brought_back_is_gone_with_it() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("decided", configuration("c2", &[("a", "n1"), ("b", "n3")]));
    cluster.lose("b");
    cluster.pass(Duration::from_secs(300));

    cluster.deploy("abandoned", configuration("c3", &[("a", "n1"), ("b", "n2"), ("c", "n4")]));
    cluster.connect("b");
    cluster.say("b", snapshot_of(&[("b", "n3")]));
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.answer("abandoned").last().unwrap(), "all: request timed out");
    assert_eq!(cluster.known(), ["n1", "n3"], "b has ended n2, and nobody gives it back");
    assert_eq!(cluster.changes_of("n2").last(), Some(&(NodeState::Unknown, NodeState::Stopped)));
}

#[test]
fn what_an_agent_was_never_given_is_gone_with_its_configuration() {
    let mut cluster = back_without_n3();
    cluster.deploy("next", configuration("c3", &[("a", "n1"), ("b", "n2")]));
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["a: commit c3", "b: commit c3"]);
    assert_eq!(cluster.known(), ["n1", "n2"], "nobody will tell of n3");
}

#[test]
fn what_an_agent_was_never_given_moves_without_being_ended_there() {
    let mut cluster = back_without_n3();
    cluster.deploy("next", configuration("c3", &[("a", "n1"), ("b", "n2"), ("a", "n3")]));
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["a: commit c3", "b: commit c3"]);
}

#[test]
fn what_an_agent_was_given_since_is_ended_there_before_it_moves() {
    let mut cluster = back_without_n3();
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["b: configuration c2"]);
    // Said before that arrived.
    cluster.say("b", snapshot_of(&[("b", "n2")]));
    cluster.deploy("next", configuration("c3", &[("a", "n1"), ("b", "n2"), ("a", "n3")]));
    assert_eq!(cluster.take_all_sent(), ["b: stop n3"]);
}

/// `b` was given n3 on a link that was lost, and has come back without it. It has not answered the welcome yet.
fn back_without_n3() -> Cluster {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("decided", configuration("c2", &[("a", "n1"), ("b", "n2"), ("b", "n3")]));
    cluster.reply("a");
    cluster.lose("b");
    cluster.pass(Duration::from_secs(300));
    cluster.take_all_sent();
    cluster.connect("b");
    cluster.say("b", snapshot_of(&[("b", "n2")]));
    assert_eq!(cluster.take_all_sent(), ["b: received", "b: welcome"]);
    assert_eq!(cluster.state_of("n3"), NodeState::Stopped, "it is deployed, and not there yet");
    cluster
}

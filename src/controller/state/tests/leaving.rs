//! Instances that the next configuration does not have: what they run is ended there, or whoever deploys gives it up by name.

use super::*;
use crate::message::client::DeploymentPhase;
use crate::model::Verdict;

const NODES: [(&str, &str); 2] = [("a", "n1"), ("d", "n2")];
const WITHOUT_D: [(&str, &str); 1] = [("a", "n1")];

impl Cluster {
    pub(super) fn has_yet_to_reach(&self) -> Vec<String> {
        let status = self.state.deployment_status();
        let following = status.filter(|status| status.phase == DeploymentPhase::Following);
        following.into_iter().flat_map(|status| status.owing).map(|name| name.to_string()).collect()
    }
}

#[test]
fn who_leaves_and_cannot_be_reached_is_waited_for_and_nothing_is_touched_without_it() {
    for nodes in [&WITHOUT_D[..], &[("a", "n1"), ("a", "n2")]] {
        let mut cluster = Cluster::deployed(&NODES);
        cluster.lose("d");
        cluster.take_all_sent();
        cluster.deploy("deploy", configuration("c2", nodes));
        cluster.pass(Duration::from_secs(9));
        assert_eq!(cluster.take_all_sent(), [""; 0]);
        cluster.pass(Duration::from_secs(2));
        let why = "d: not connected since 1970-01-01T00:00:00.000000Z: cut. It is to leave, and what it runs would run on: \
                   wait for it, or give it up with `--without d`";
        assert_eq!(cluster.answer("deploy"), [why, "all: request timed out"]);
        assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Refused);
        assert_eq!(cluster.saved.deployed.as_ref().unwrap().id.as_str(), "c1");
        assert_eq!(cluster.needed(), ["a", "d"]);
    }
}

#[test]
fn who_leaves_and_comes_back_in_time_ends_what_moves_before_that_is_started_elsewhere() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.lose("d");
    cluster.answers_itself = false;
    cluster.take_all_sent();
    cluster.deploy("deploy", configuration("c2", &[("a", "n1"), ("a", "n2")]));
    cluster.connect("d");
    assert_eq!(cluster.take_all_sent(), ["d: received", "d: welcome", "d: stop n2"]);
    cluster.reply("d");
    assert_eq!(cluster.take_all_sent(), ["d: standby", "a: commit c2"]);
}

#[test]
fn who_leaves_is_waited_for_until_what_it_runs_has_ended() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &WITHOUT_D));
    assert_eq!(cluster.take_all_sent(), ["d: standby", "a: commit c2"]);
    cluster.reply("a");
    assert!(!cluster.answers.contains_key("deploy"), "n2 has yet to end");
    cluster.reply("d");
    assert_eq!(cluster.answer("deploy"), ["a: done", "d: done"]);
    assert_eq!(cluster.has_yet_to_reach(), [""; 0]);
    assert_eq!(cluster.dials, ["hang up d"]);
}

#[test]
fn who_is_lost_while_it_leaves_is_named_and_has_yet_to_stand_by() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &WITHOUT_D));
    cluster.reply("a");
    cluster.lose("d");
    cluster.pass(Duration::from_secs(11));
    assert_eq!(cluster.answer("deploy"), ["a: done", "d: not connected since 1970-01-01T00:00:00.000000Z: cut"]);
    assert_eq!(cluster.has_yet_to_reach(), ["d"]);
    assert_eq!(cluster.dials, [""; 0], "it is dialled on");
    cluster.take_all_sent();
    cluster.connect("d");
    cluster.say("d", snapshot_of(&[]));
    assert_eq!(cluster.take_all_sent(), ["d: received", "d: standby"]);
    cluster.reply("d");
    assert!(cluster.saved.last.as_ref().unwrap().results.iter().all(Outcome::is_success), "so says the history");
    assert_eq!((cluster.has_yet_to_reach().len(), &cluster.dials[..]), (0, &["hang up d".to_owned()][..]));
}

#[test]
fn who_was_given_up_by_name_is_missed_until_it_stands_by_whatever_is_deployed_and_started_again_meanwhile() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.lose("d");
    cluster.deploy_without("deploy", configuration("c2", &WITHOUT_D), &["d"]);
    assert_eq!(cluster.answer("deploy"), ["a: done"]);
    assert_eq!(cluster.has_yet_to_reach(), ["d"]);
    cluster.deploy("next", configuration("c3", &[("a", "n1"), ("a", "n3")]));
    assert_eq!(cluster.answer("next"), ["a: done"]);
    assert_eq!(cluster.has_yet_to_reach(), ["d"]);
    let mut restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.has_yet_to_reach(), ["d"]);
    ["a", "d"].iter().for_each(|name| restarted.connect(name));
    restarted.take_all_sent();
    restarted.say("d", snapshot_of(&[("d", "n2")]));
    assert!(restarted.take_all_sent().contains(&"d: standby".to_owned()));
    assert_eq!(restarted.has_yet_to_reach(), [""; 0]);
    assert!(restarted.saved.last.as_ref().unwrap().owing.is_empty());
}

#[test]
fn a_controller_that_is_lost_once_it_is_decided_knows_who_has_yet_to_stand_by() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &WITHOUT_D));
    let mut restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.has_yet_to_reach(), ["a", "d"]);
    restarted.connect("d");
    restarted.say("d", snapshot_of(&[]));
    assert_eq!(restarted.has_yet_to_reach(), ["a"]);
}

#[test]
fn who_stands_by_with_something_that_does_not_end_has_yet_to_follow() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &WITHOUT_D));
    cluster.reply("a");
    let reqid = cluster.take_sent("d", |message| match message {
        ToAgent::AgentStandbyRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcome = Outcome::node_failed(&instance("d"), &node("n2"), "it does not end".into(), None);
    cluster.say("d", AgentStandbyResponse { reqid, outcome });
    assert_eq!(cluster.answer("deploy"), ["n2: it does not end", "a: done"]);
    assert_eq!(cluster.has_yet_to_reach(), ["d"]);
}

#[test]
fn what_was_to_move_to_a_new_instance_comes_back_when_that_has_stood_by_also_by_the_next_controller() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("a", "n3")]);
    cluster.connect("b");
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n3"), ("b", "n1")]));
    cluster.reply("b");
    assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Open);
    let mut restarted = Cluster::new(cluster.saved.clone());
    restarted.answers_itself = false;
    restarted.connect("a");
    restarted.reply("a");
    let told = restarted.take_all_sent();
    assert_eq!(told.last().unwrap(), "a: back to c1 with ", "n1 may run on b: {told:?}");
    restarted.reply("a");
    assert_eq!(restarted.has_yet_to_reach(), ["a", "b"]);
    restarted.connect("b");
    restarted.say("b", snapshot_of(&[("b", "n1")]));
    restarted.reply("b");
    let told = restarted.take_all_sent();
    assert_eq!(told.last().unwrap(), "a: back to c1 with n1", "{told:?}");
}

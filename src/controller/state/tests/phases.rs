//! A deployment phase by phase: what is told when, and what is decided.

use super::*;
use crate::bundle::{BundleId, Digest};
use crate::message::client::{DeploymentPhase, Terms};
use crate::model::{NodeFiles, OnFailure, Record, Verdict};

/// Three instances with a node each, of which a deployment would change these.
fn deployed(changed: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2"), ("c", "n3")]);
    cluster.would_change = changed.iter().map(|(of, name)| (of.to_string(), name.to_string())).collect();
    cluster.answers_itself = false;
    cluster.published.clear();
    cluster.take_all_sent();
    cluster
}

const ALL: [(&str, &str); 3] = [("a", "n1"), ("b", "n2"), ("c", "n3")];

fn next() -> Configuration {
    configuration("c2", &ALL)
}

fn with(terms: Terms) -> impl FnOnce(RequestId) -> ClientRequest {
    move |reqid| client::SetConfigurationRequest { reqid, configuration: next(), upon: None, terms }.into()
}

impl Cluster {
    fn verdict(&self) -> (Verdict, String) {
        let last = self.saved.last.as_ref().unwrap();
        (last.verdict, self.saved.deployed.as_ref().unwrap().id.to_string())
    }

    /// What the journal has of the last one.
    fn results(&self) -> Vec<String> {
        self.saved.last.as_ref().unwrap().results.iter().map(told).collect()
    }

    /// Of the step that was sent to this instance last, that node does not become ready.
    fn fail(&mut self, of: &str, name: &str) {
        let reqid = self.take_sent(of, |message| match message {
            ToAgent::SwitchNodesRequest(request) => Some(request.reqid),
            _ => None,
        });
        let outcomes = vec![Outcome::node_failed(&instance(of), &node(name), "not ready".into(), None)];
        self.say(of, SwitchNodesResponse { reqid, outcomes });
    }

    fn phase(&self) -> Option<(DeploymentPhase, Verdict, Vec<String>)> {
        let status = self.state.status(Cursor { epoch: 0, number: 0 }).deployment?;
        Some((status.phase, status.verdict, status.owing.iter().map(InstanceName::to_string).collect()))
    }
}

#[test]
fn what_stands_whatever_fails_is_decided_by_one_line_of_the_journal_and_nobody_is_told_before() {
    let mut cluster = deployed(&ALL);
    cluster.slow = Some(Vec::new());
    cluster.ask("deploy", with(Terms { on_failure: Some(OnFailure::Keep), ..Terms::default() }));
    let written = cluster.slow.clone().unwrap();
    assert_eq!(written.len(), 1, "one way to the disk and back: {written:?}");
    assert_eq!(cluster.take_all_sent(), [""; 0]);
    assert_eq!(cluster.verdict().1, "c1", "whoever is killed now has not begun");
    cluster.keeps(Ok(()));
    assert_eq!(cluster.verdict(), (Verdict::New, "c2".to_owned()));
    assert_eq!(cluster.take_all_sent(), ["a: switch n1"]);
}

#[test]
fn nothing_is_touched_anywhere_until_every_agent_has_looked_and_nobody_objects() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", next());
    assert_eq!(cluster.take_all_sent(), ["a: check c2", "b: check c2", "c: check c2"]);
    assert_eq!(cluster.phase().unwrap().0, DeploymentPhase::Checking);
    cluster.reply("a");
    cluster.reply("c");
    assert_eq!(cluster.take_all_sent(), [""; 0], "b has not answered");
    let (_, ToAgent::CheckConfigurationRequest(asked)) = cluster.told.pop().unwrap() else { panic!() };
    let outcomes = vec![Outcome::node_failed(&instance("b"), &node("n2"), "no such program".into(), None)];
    cluster.say("b", CheckConfigurationResponse { reqid: asked.reqid, outcomes, changes: vec![] });
    assert_eq!(cluster.answer("deploy"), ["n2: no such program"]);
    assert_eq!(cluster.verdict(), (Verdict::Refused, "c1".into()));
    let told = cluster.take_all_sent();
    assert_eq!(told, ["a: configuration c1", "b: configuration c1", "c: configuration c1"], "which changes nothing");
}

/// The next one, with files for the nodes on these instances.
fn with_files(of: &[&str]) -> Configuration {
    let mut configuration = next();
    for node in configuration.nodes.iter_mut().filter(|node| of.contains(&node.instance.as_str())) {
        let bundle = Some(BundleId::new(Digest::of(node.instance.as_str().as_bytes())));
        Arc::make_mut(node).files = Some(Box::new(NodeFiles { paths: vec!["site".into()], bundle }));
    }
    configuration
}

fn lacks(reqid: &str) -> ReadBlobsRequest {
    let reqid = RequestId::new(reqid).unwrap();
    ReadBlobsRequest { reqid, parts: vec![BlobPart { digest: Digest::of(b"content"), at: 0, most: 9 }] }
}

#[test]
fn nobody_looks_at_anything_before_all_have_the_files_of_their_nodes() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", with_files(&["a", "c"]));
    assert_eq!(cluster.take_all_sent(), ["a: stage 1 bundles", "c: stage 1 bundles"]);
    assert_eq!(cluster.phase().unwrap().0, DeploymentPhase::Staging);
    cluster.say("a", lacks("blob-1"));
    assert_eq!(cluster.reads.pop().map(|(_, request)| request), Some(lacks("blob-1")));
    cluster.reply("a");
    cluster.lose("c");
    cluster.connect("c");
    cluster.reply("c");
    assert!(cluster.take_all_sent().contains(&"c: stage 1 bundles".to_owned()), "it is asked again");
    cluster.reply("c");
    assert_eq!(cluster.take_all_sent(), ["a: check c2", "b: check c2", "c: check c2"]);
}

#[test]
fn who_was_away_when_all_were_asked_is_asked_when_it_is_back() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", with_files(&["c"]));
    assert_eq!(cluster.take_all_sent(), ["c: stage 1 bundles"]);
    cluster.lose("a");
    cluster.reply("c");
    assert_eq!(cluster.take_all_sent(), ["b: check c2", "c: check c2"]);
    cluster.connect("a");
    cluster.reply("a");
    assert!(cluster.take_all_sent().contains(&"a: check c2".to_owned()), "it was asked nothing behind its welcome");
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    assert_ne!(cluster.phase().unwrap().0, DeploymentPhase::Checking, "all have looked");
}

#[test]
fn who_cannot_get_the_files_ends_it_and_nothing_was_touched() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", with_files(&["a", "c"]));
    let (_, ToAgent::StageBundlesRequest(asked)) = cluster.told.pop().unwrap() else { panic!() };
    let outcome = Outcome::instance_failed(&instance("c"), "no room");
    cluster.say("c", StageBundlesResponse { reqid: asked.reqid, outcome });
    assert!(!cluster.answers.contains_key("deploy"), "a may have something to say, too");
    cluster.reply("a");
    assert_eq!(cluster.answer("deploy"), ["c: no room"]);
    assert_eq!(cluster.verdict(), (Verdict::Refused, "c1".into()));
}

#[test]
fn files_may_take_as_long_as_they_take_unless_they_come_to_a_standstill() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", with_files(&["a"]));
    for number in 0..20 {
        cluster.pass(Duration::from_secs(25));
        cluster.say("a", lacks(&format!("blob-{number}")));
    }
    assert_eq!(cluster.phase().unwrap().0, DeploymentPhase::Staging);
    cluster.say("b", lacks("blob-1")); // whose files nobody waits for
    cluster.pass(Duration::from_secs(31));
    assert_eq!(cluster.answer("deploy"), ["a: did not answer in time", "all: request timed out"]);
    assert_eq!(cluster.verdict().0, Verdict::Refused);
}

#[test]
fn who_asks_for_a_file_now_and_then_does_not_hold_a_deployment_up_for_ever() {
    let mut cluster = deployed(&ALL);
    cluster.checks = true;
    cluster.deploy("deploy", with_files(&["a"]));
    for number in 0..160 {
        cluster.pass(Duration::from_secs(25));
        cluster.say("a", lacks(&format!("blob-{number}")));
    }
    assert_eq!(cluster.answer("deploy"), ["a: did not answer in time", "all: request timed out"]);
}

#[test]
fn it_is_written_that_it_begins_and_how_it_is_decided_before_anybody_is_told() {
    let mut cluster = deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.deploy("deploy", next());
    assert_eq!(cluster.take_all_sent(), ["a: switch n1"], "of one role a quarter is missed at a time");
    assert_eq!(cluster.verdict(), (Verdict::Open, "c1".into()));
    assert_eq!(cluster.phase().unwrap(), (DeploymentPhase::Switching, Verdict::Open, vec!["a".into()]));
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["b: switch n2"]);
    cluster.reply("b");
    assert_eq!(cluster.verdict(), (Verdict::New, "c2".into()));
    assert_eq!(cluster.take_all_sent(), ["a: commit c2", "b: commit c2", "c: commit c2"]);
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.answer("deploy")[..2], ["n1: done", "n2: done"]);
    assert_eq!(cluster.phase(), None);
    assert!(cluster.saved.last.as_ref().unwrap().ended.is_some());
}

#[test]
fn where_a_node_does_not_become_ready_every_instance_goes_back() {
    let mut cluster = deployed(&ALL);
    cluster.ask("deploy", with(Terms { all_at_once: true, ..Terms::default() }));
    cluster.reply("a");
    cluster.fail("b", "n2");
    assert!(!cluster.answers.contains_key("deploy"), "c is still at it");
    cluster.take_all_sent();
    cluster.reply("c");
    assert_eq!(cluster.verdict(), (Verdict::Old, "c1".into()));
    assert_eq!(
        cluster.take_all_sent(),
        ["a: back at once to c1 with n1", "b: back at once to c1 with n2", "c: back at once to c1 with n3"]
    );
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    let words = "all: rolled back: configuration c1 is in force again";
    assert_eq!(cluster.answer("deploy"), ["n1: done", "n2: not ready", "n3: done", words]);
    assert_eq!((cluster.phase(), cluster.verdict().0), (None, Verdict::Old));
}

#[test]
fn who_refuses_to_go_back_since_it_was_asked_again_has_not_gone_back() {
    let mut cluster = deployed(&ALL);
    cluster.ask("deploy", with(Terms { all_at_once: true, ..Terms::default() }));
    cluster.reply("a");
    cluster.reply("c");
    cluster.fail("b", "n2");
    ["b", "c"].iter().for_each(|name| cluster.reply(name));
    let first = cluster.take_sent("a", |message| match message {
        ToAgent::RestoreConfigurationRequest(request) => Some(request.reqid),
        _ => None,
    });
    cluster.lose("a");
    cluster.connect("a");
    cluster.reply("a");
    assert!(
        cluster.take_all_sent().contains(&"a: back at once to c1 with n1".to_owned()),
        "it may not have heard of it"
    );
    let outcomes = vec![Outcome::instance_failed(&instance("a"), "what was in force before is in force again")];
    cluster.say("a", RestoreConfigurationResponse { reqid: first, outcomes, waiting: vec![] });
    assert!(cluster.state.has_yet_to_follow(&instance("a")), "what it runs of the new one it still runs");
    cluster.reply("a");
    assert!(!cluster.state.has_yet_to_follow(&instance("a")));
}

#[test]
fn what_rested_before_rests_when_all_goes_back() {
    let mut cluster = deployed(&ALL);
    cluster.say("b", change("b", "n2", NodeState::Stopped));
    cluster.take_all_sent();
    cluster.ask("deploy", with(Terms { all_at_once: true, ..Terms::default() }));
    cluster.reply("a");
    cluster.fail("c", "n3");
    cluster.take_all_sent();
    cluster.reply("b");
    assert_eq!(
        cluster.take_all_sent(),
        ["a: back at once to c1 with n1", "b: back at once to c1 with ", "c: back at once to c1 with n3"]
    );
}

#[test]
fn where_it_is_to_stand_it_is_decided_first_and_failures_are_named() {
    let mut cluster = deployed(&ALL);
    cluster.ask("deploy", with(Terms { on_failure: Some(OnFailure::Keep), ..Terms::default() }));
    assert_eq!(cluster.verdict(), (Verdict::New, "c2".into()));
    cluster.fail("a", "n1");
    cluster.reply("b");
    cluster.reply("c");
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.answer("deploy")[..3], ["n1: not ready", "n2: done", "n3: done"]);
    assert_eq!(cluster.verdict(), (Verdict::New, "c2".into()));
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_touched() {
    let mut cluster = deployed(&ALL);
    cluster.disk = Err("the disk is full".into());
    cluster.deploy("deploy", next());
    assert_eq!(cluster.answer("deploy"), ["all: the configuration cannot be kept: the disk is full"]);
    let told = cluster.take_all_sent();
    assert!(told.iter().all(|told| told.ends_with("configuration c1")), "{told:?}");
}

#[test]
fn a_decision_that_cannot_be_written_is_none() {
    let mut cluster = deployed(&[("a", "n1")]);
    cluster.deploy("deploy", next());
    cluster.disk = Err("the disk is full".into());
    cluster.reply("a");
    assert!(cluster.take_all_sent().contains(&"a: back to c1 with n1".to_owned()));
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    let answer = cluster.answer("deploy");
    assert_eq!(answer[1], "all: the configuration cannot be kept: the disk is full");
    assert!(answer[2].starts_with("all: rolled back"), "{answer:?}");
}

#[test]
fn an_instance_that_is_cut_off_is_told_nothing_new_until_it_is_decided_and_then_follows() {
    let mut cluster = deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.deploy("deploy", next());
    cluster.take_all_sent();
    cluster.lose("c");
    cluster.connect("c");
    cluster.reply("c");
    assert_eq!(cluster.take_all_sent(), ["c: received", "c: welcome"]);
    cluster.lose("a");
    while cluster.sent.is_empty() {
        cluster.pass(Duration::from_secs(1));
    }
    let told = cluster.take_all_sent();
    assert_eq!(told, ["b: back to c1 with n2", "c: back to c1 with "], "a did not answer in time");
    cluster.reply("b");
    cluster.reply("c");
    let answer = cluster.answer("deploy");
    let last = "all: rolled back: configuration c1 is in force again; `a` will follow when it can be reached";
    assert_eq!((answer.len(), answer.last().map(String::as_str)), (3, Some(last)));
    assert_eq!(cluster.phase(), Some((DeploymentPhase::Following, Verdict::Old, vec!["a".into()])));
    assert_eq!(cluster.saved.last.as_ref().unwrap().owing, [instance("a")].into());
    cluster.connect("a");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome", "a: back to c1 with n1"]);
    cluster.reply("a");
    assert_eq!((cluster.phase(), cluster.saved.last.as_ref().unwrap().owing.len()), (None, 0));
}

#[test]
fn a_controller_that_finds_a_deployment_undecided_has_all_go_back() {
    let mut cluster = deployed(&ALL);
    cluster.deploy("deploy", next());
    let mut restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.verdict(), (Verdict::Old, "c1".into()), "that is written first");
    let all = ["a", "b", "c"].map(String::from).to_vec();
    assert_eq!(restarted.phase(), Some((DeploymentPhase::Following, Verdict::Old, all)));
    restarted.connect("a");
    assert_eq!(restarted.take_all_sent(), ["a: received", "a: welcome", "a: back to c1 with n1"]);
    let why = "all: rolled back: configuration c1 is in force again: the controller ended in the middle of it, before it was \
               decided";
    assert_eq!(restarted.results(), [why, "n1: done"], "what becomes of one is known before the others are back");
    assert_eq!(restarted.saved.last.as_ref().unwrap().owing, ["b", "c"].map(instance).into());
    ["b", "c"].iter().for_each(|name| restarted.connect(name));
    assert_eq!(restarted.phase(), None);
    assert_eq!(restarted.results(), [why, "n1: done", "n2: done", "n3: done"]);
    restarted.lose("a");
    restarted.take_all_sent();
    restarted.connect("a");
    assert_eq!(restarted.take_all_sent(), ["a: received", "a: welcome", "a: configuration c1"], "it went back already");
}

#[test]
fn a_controller_that_finds_a_deployment_decided_has_all_follow() {
    let mut cluster = deployed(&[("a", "n1")]);
    cluster.deploy("deploy", next());
    cluster.reply("a");
    let mut restarted = Cluster::new(cluster.saved.clone());
    assert_eq!(restarted.phase().map(|(_, verdict, owing)| (verdict, owing.len())), Some((Verdict::New, 3)));
    restarted.connect("b");
    assert_eq!(restarted.take_all_sent(), ["b: received", "b: welcome", "b: configuration c2"]);
    ["a", "c"].iter().for_each(|name| restarted.connect(name));
    assert_eq!((restarted.phase(), restarted.verdict()), (None, (Verdict::New, "c2".into())));
    let why = "all: the controller ended in the middle of it, when it was decided: every instance comes to it";
    assert_eq!(restarted.results(), [why], "that an instance follows is no result");
    restarted.deploy("next", configuration("c3", &ALL));
    assert_eq!(restarted.saved.last.as_ref().unwrap().number, cluster.saved.last.as_ref().unwrap().number + 1);
}

#[test]
fn a_first_deployment_that_a_controller_finds_undecided_is_written_to_have_come_to_nothing() {
    let mut cluster = deployed(&ALL);
    cluster.deploy("deploy", next());
    let begun = cluster.saved.last.clone().map(|record| Record { former: None, ..record });
    assert_eq!(begun.as_ref().map(|record| record.verdict), Some(Verdict::Open));
    let restarted = Cluster::new(Stored { last: begun.clone(), standing: begun, ..Stored::default() });
    assert_eq!(restarted.saved.last.as_ref().unwrap().verdict, Verdict::Refused);
    let why = "all: nothing was in force before, and nothing is: the controller ended in the middle of it, before it was \
               decided";
    assert_eq!(restarted.results(), [why]);
}

#[test]
fn an_instance_that_never_returns_can_be_given_up_by_name() {
    let mut cluster = deployed(&[("a", "n1")]);
    cluster.lose("c");
    cluster.ask("wrong", with(Terms { without: [instance("x")].into(), ..Terms::default() }));
    assert_eq!(cluster.answer("wrong"), ["all: `x` is no instance of the configuration"]);
    cluster.ask("deploy", with(Terms { without: [instance("c")].into(), ..Terms::default() }));
    cluster.reply("a");
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.answer("deploy")[0], "n1: done");
    assert_eq!(cluster.phase(), Some((DeploymentPhase::Following, Verdict::New, vec!["c".into()])));
    cluster.take_all_sent();
    cluster.answers_itself = true;
    cluster.connect("c");
    assert_eq!(cluster.take_all_sent(), ["c: received", "c: welcome", "c: configuration c2"]);
    assert_eq!(cluster.phase(), None);
}

#[test]
fn the_second_of_two_is_told_who_deploys_since_when() {
    let mut cluster = deployed(&ALL);
    let author = crate::model::Author { who: "token `ops`".into(), from: Some([10, 0, 0, 9].into()) };
    cluster.ask("first", with(Terms { author, detach: true, ..Terms::default() }));
    let answer = cluster.answers.remove("first").unwrap();
    let ClientResponse::SetConfigurationResponse(answer) = answer else { panic!() };
    assert_eq!((answer.deployment, answer.configuration), (Some(2), None), "whoever detaches waits for nothing");
    cluster.deploy("second", next());
    let [pending, who] = &cluster.answer("second")[..] else { panic!() };
    assert_eq!(pending, "all: earlier deployment first still pending");
    let want = "all: deployment 2 is under way, by token `ops` from 10.0.0.9 since 1970-01-01T";
    assert!(who.starts_with(want), "{who}");
}

#[test]
fn what_is_not_at_hand_any_more_comes_whole_under_the_same_request() {
    let mut cluster = deployed(&[("a", "n1")]);
    cluster.deploy("deploy", next());
    cluster.reply("a");
    let commit = |message| match message {
        ToAgent::CommitConfigurationRequest(request) => Some(request),
        _ => None,
    };
    let [a, b] = ["a", "b"].map(|name| cluster.take_sent(name, commit).reqid);
    cluster.take_all_sent();
    cluster.say("a", NotAtHand { reqid: a.clone() });
    assert_eq!(cluster.take_all_sent(), ["a: configuration c2"]);
    cluster.say("a", NotAtHand { reqid: RequestId::new("other").unwrap() });
    assert_eq!(cluster.take_all_sent(), [] as [&str; 0], "of that it asked nothing");
    ["a", "c"].iter().for_each(|name| cluster.reply(name));
    cluster.say("a", NotAtHand { reqid: a });
    assert_eq!(cluster.take_all_sent(), [] as [&str; 0], "it has answered");
    cluster.pass(Duration::from_secs(600));
    assert!(cluster.answer("deploy").contains(&"b: did not answer in time".to_owned()));
    cluster.say("b", NotAtHand { reqid: b });
    assert_eq!(cluster.take_all_sent(), ["b: configuration c2"], "nobody waits for it, and it follows all the same");
    cluster.reply("b");
    assert_eq!(cluster.phase(), None);
}

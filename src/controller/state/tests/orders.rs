//! What clients order while a deployment is under way: it holds, whatever becomes of the deployment.

use super::*;
use crate::message::client::Terms;
use crate::model::{OnFailure, Verdict};

const NODES: [(&str, &str); 5] = [("a", "n1"), ("a", "n2"), ("b", "n3"), ("c", "n4"), ("c", "same")];

/// n1 is being switched, n2 to n4 wait for that, and one stays the same.
fn switching() -> Cluster {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.would_change = NODES[..4].iter().map(|(of, name)| ((*of).into(), (*name).into())).collect();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &NODES));
    assert_eq!(cluster.take_all_sent(), ["a: switch n1"]);
    cluster
}

impl Cluster {
    fn stop(&mut self, name: &str) {
        self.ask("stop", |reqid| client::StopRequest { reqid, nodes: [node(name)].into() }.into());
    }

    /// The instance of that node does as it was told last.
    fn obeys(&mut self, of: &str) {
        self.reply(of);
    }

    /// That node, which is being switched, was stopped meanwhile.
    fn is_stopped_in_its_turn(&mut self, of: &str, name: &str) {
        let reqid = self.take_sent(of, |message| match message {
            ToAgent::SwitchNodesRequest(request) => Some(request.reqid),
            _ => None,
        });
        let why = "somebody asked meanwhile for it to stop";
        let outcomes = vec![Outcome::node_failed(&instance(of), &node(name), why.into(), None)];
        self.told.retain(|(_, told)| !matches!(told, ToAgent::SwitchNodesRequest(_)));
        self.say(of, SwitchNodesResponse { reqid, outcomes });
    }
}

#[test]
fn who_is_stopped_before_its_turn_has_none_and_rests_when_it_is_decided() {
    let mut cluster = switching();
    ["n2", "same"].iter().for_each(|name| cluster.stop(name));
    assert_eq!(cluster.take_all_sent(), ["a: stop n2", "c: stop same"]);
    assert_eq!(cluster.saved.last.as_ref().unwrap().rests, [node("n2"), node("same")].into(), "it is written");
    cluster.obeys("a");
    cluster.obeys("c");
    assert_eq!(cluster.answer("stop"), ["same: done"]);
    assert_eq!(cluster.take_all_sent(), ["b: switch n3"]);
    cluster.obeys("b");
    cluster.obeys("c");
    assert_eq!(
        cluster.take_all_sent(),
        ["c: switch n4 but for same", "a: commit c2 but for n2", "b: commit c2", "c: commit c2 but for same"]
    );
    // Another run of the agent has forgotten it.
    let reqid = cluster.told.iter().find_map(|(_, told)| match told {
        ToAgent::CommitConfigurationRequest(request) => Some(request.reqid.clone()),
        _ => None,
    });
    cluster.say("a", NotAtHand { reqid: reqid.unwrap() });
    assert_eq!(cluster.take_all_sent(), ["a: configuration c2 but for n2"]);
    ["a", "b", "c"].iter().for_each(|name| cluster.reply(name));
    let answer = cluster.answer("deploy");
    assert!(answer.iter().all(|outcome| outcome.ends_with("done")), "{answer:?}");
    let last = cluster.saved.last.as_ref().unwrap();
    assert_eq!((last.verdict, last.rests.len()), (Verdict::New, 0));
}

#[test]
fn who_is_stopped_in_its_turn_does_not_fail_the_deployment() {
    let mut cluster = switching();
    cluster.stop("n1");
    cluster.take_sent("a", |message| matches!(message, ToAgent::StopRequest(_)).then_some(()));
    let mut cluster = switching_with_stop(cluster);
    assert_eq!(cluster.take_all_sent(), ["a: switch n2 but for n1"]);
    ["a", "b", "c"].iter().for_each(|name| cluster.obeys(name));
    assert_eq!(cluster.take_all_sent()[2..], ["a: commit c2 but for n1", "b: commit c2", "c: commit c2"]);
}

fn switching_with_stop(mut cluster: Cluster) -> Cluster {
    let mut sent = std::mem::take(&mut cluster.told);
    let is_switch = |(_, told): &(LinkId, ToAgent)| matches!(told, ToAgent::SwitchNodesRequest(_));
    sent.retain(|told| is_switch(told));
    cluster.sent = sent;
    cluster.is_stopped_in_its_turn("a", "n1");
    cluster
}

#[test]
fn who_is_stopped_stays_down_when_all_go_back_and_who_is_started_is_not_stopped() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.say("c", change("c", "n4", NodeState::Stopped));
    cluster.would_change = NODES[..4].iter().map(|(of, name)| ((*of).into(), (*name).into())).collect();
    cluster.answers_itself = false;
    let terms = Terms { all_at_once: true, ..Terms::default() };
    let request = |reqid| {
        client::SetConfigurationRequest { reqid, configuration: configuration("c2", &NODES), upon: None, terms }.into()
    };
    cluster.ask("deploy", request);
    cluster.stop("n3");
    cluster.ask("start", |reqid| client::StartRequest { reqid, nodes: [node("n4")].into() }.into());
    cluster.sent.clear();
    cluster.obeys("b");
    cluster.obeys("c");
    let reqid = cluster.told.iter().find_map(|(_, told)| match told {
        ToAgent::SwitchNodesRequest(request) => Some(request.reqid.clone()),
        _ => None,
    });
    cluster.told.clear();
    let outcomes = vec![Outcome::node_failed(&instance("a"), &node("n1"), "not ready".into(), None)];
    cluster.say("a", SwitchNodesResponse { reqid: reqid.unwrap(), outcomes });
    let back = ["a: back at once to c1 with n1 n2", "b: back at once to c1 with ", "c: back at once to c1 with n4"];
    assert_eq!(cluster.take_all_sent(), back);
    // Also when it is stopped while all go back, and a controller that is started again has not forgotten it.
    cluster.stop("n1");
    cluster.sent.clear();
    let mut next = Cluster::new(cluster.saved.clone());
    next.answers_itself = false;
    next.connect("a");
    next.reply("a");
    assert!(next.take_all_sent().contains(&"a: back at once to c1 with n2".to_owned()));
}

#[test]
fn who_follows_later_leaves_down_what_was_stopped_meanwhile() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.would_change = vec![("b".into(), "n3".into())];
    cluster.answers_itself = false;
    let terms = Terms { on_failure: Some(OnFailure::Keep), ..Terms::default() };
    let request = |reqid| {
        client::SetConfigurationRequest { reqid, configuration: configuration("c2", &NODES), upon: None, terms }.into()
    };
    cluster.ask("deploy", request);
    cluster.stop("n4");
    cluster.stop("n1");
    cluster.ask("start", |reqid| client::StartRequest { reqid, nodes: [node("n1")].into() }.into());
    cluster.lose("c");
    cluster.pass(Duration::from_secs(11));
    cluster.reply("b");
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    cluster.pass(Duration::from_secs(11));
    cluster.answer("deploy");
    assert_eq!(cluster.saved.last.as_ref().unwrap().owing, [instance("c")].into());
    let mut next = Cluster::new(cluster.saved.clone());
    next.connect("c");
    assert_eq!(next.take_all_sent(), ["c: received", "c: welcome", "c: configuration c2 but for n4"]);
    assert!(next.saved.last.as_ref().unwrap().rests.is_empty(), "everybody has followed");
}

/// n1 was ended on a, and n1 or n2 is being switched on b.
fn moving() -> Cluster {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2"), ("b", "n3")]);
    cluster.would_change = ["n1", "n2"].map(|name| ("b".into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n4"), ("b", "n1"), ("b", "n2"), ("b", "n3")]));
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: stop n1", "b: switch n1"]);
    cluster
}

#[test]
fn a_node_that_moved_is_stopped_where_it_is_started_and_rests_whatever_becomes_of_the_deployment() {
    let mut cluster = moving();
    cluster.stop("n1");
    assert_eq!(cluster.take_all_sent(), ["b: stop n1"], "on a it is down");
    cluster.reply("b");
    assert_eq!(cluster.answer("stop"), ["n1: done"]);
    assert_eq!(cluster.take_all_sent(), ["b: switch n2 but for n1"]);
    cluster.stop("n1");
    assert_eq!(cluster.take_all_sent(), ["b: stop n1"], "also when its turn is over");
    cluster.obeys("b");
    assert_eq!(cluster.take_all_sent(), ["a: commit c2", "b: commit c2 but for n1"]);

    let mut cluster = moving();
    cluster.obeys("b");
    cluster.stop("n1");
    let reqid = cluster.take_sent("b", |message| match message {
        ToAgent::SwitchNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcomes = vec![Outcome::node_failed(&instance("b"), &node("n2"), "not ready".into(), None)];
    cluster.say("b", SwitchNodesResponse { reqid, outcomes });
    assert_eq!(cluster.take_all_sent()[1..], ["a: back to c1 with ", "b: back to c1 with n2"]);
}

#[test]
fn that_a_node_that_moved_is_down_where_it_was_does_not_say_that_it_was_stopped() {
    let mut cluster = moving();
    cluster.say("a", change("a", "n1", NodeState::Stopped));
    cluster.ask("start", |reqid| client::StartRequest { reqid, nodes: [node("n1")].into() }.into());
    assert_eq!(cluster.answer("start"), ["n1: it is moving to another instance: deployment 2 is still pending"]);
    cluster.stop("n1");
    cluster.pass(Duration::from_secs(3600));
    assert_eq!(cluster.answer("stop")[0], "n1: request timed out");
}

#[test]
fn who_is_started_before_all_have_looked_runs_when_all_go_back() {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.say("c", change("c", "n4", NodeState::Stopped));
    cluster.lose("b");
    cluster.would_change = [("a", "n1"), ("c", "n4")].map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &NODES));
    cluster.ask("start", |reqid| client::StartRequest { reqid, nodes: [node("n4")].into() }.into());
    cluster.connect("b");
    cluster.reply("b");
    let reqid = cluster.take_sent("a", |message| match message {
        ToAgent::SwitchNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    cluster.sent.clear();
    let outcomes = vec![Outcome::node_failed(&instance("a"), &node("n1"), "not ready".into(), None)];
    cluster.say("a", SwitchNodesResponse { reqid, outcomes });
    assert!(cluster.take_all_sent().contains(&"c: back to c1 with n4".to_owned()));
}

/// All is switched but n2, which was stopped, and n4, which rests; and the disk is slow to keep that it is decided.
fn deciding() -> Cluster {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.say("c", change("c", "n4", NodeState::Stopped));
    cluster.would_change = [("a", "n1"), ("a", "n2")].map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &NODES));
    cluster.stop("n2");
    cluster.slow = Some(Vec::new());
    cluster.obeys("a");
    cluster.sent.clear();
    cluster
}

impl Cluster {
    /// The disk has kept what it was given, or cannot.
    pub(super) fn keeps(&mut self, kept: Result<(), String>) {
        for (number, saves) in self.slow.take().expect("the disk is slow") {
            if kept.is_ok() {
                saves.into_iter().for_each(|save| self.saved.apply(save));
            }
            self.step(Event::Journaled(number, kept.clone()));
        }
    }

    fn start(&mut self, name: &str) {
        self.ask("start", |reqid| client::StartRequest { reqid, nodes: [node(name)].into() }.into());
    }
}

#[test]
fn what_is_ordered_while_it_is_being_written_that_it_is_decided_is_not_lost() {
    let mut cluster = deciding();
    ["n2", "n4"].iter().for_each(|name| cluster.start(name));
    cluster.keeps(Ok(()));
    let last = cluster.saved.last.as_ref().unwrap();
    assert_eq!((last.verdict, last.rests.len()), (Verdict::New, 0), "a controller that is started again knows");
    assert!(cluster.take_all_sent().contains(&"a: commit c2".to_owned()));

    let mut cluster = deciding();
    cluster.start("n4");
    cluster.sent.clear();
    cluster.keeps(Err("the disk is full".into()));
    let back = ["a: back to c1 with n1", "b: back to c1 with ", "c: back to c1 with n4"];
    assert_eq!(cluster.take_all_sent(), back, "it was started when nothing was decided");
}

//! Who loses its link in the middle of a deployment: it is waited for, and not as long as its step may take.

use super::*;
use crate::message::client::Terms;
use crate::model::{OnFailure, Verdict};

const NODES: [(&str, &str); 4] = [("a", "n1"), ("a", "n2"), ("b", "n3"), ("c", "n4")];

/// Three instances, of which two are about to switch nodes that may take very long.
fn switching(on_failure: OnFailure) -> Cluster {
    let mut cluster = Cluster::deployed(&NODES);
    cluster.would_change = [("a", "n1"), ("a", "n2"), ("b", "n3")].map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.published.clear();
    cluster.take_all_sent();
    let mut next = configuration("c2", &NODES);
    next.nodes.iter_mut().for_each(|node| Arc::make_mut(node).stop_grace = Duration::from_secs(900));
    let terms = Terms { on_failure: Some(on_failure), ..Terms::default() };
    cluster.ask("deploy", |reqid| {
        client::SetConfigurationRequest { reqid, configuration: next, upon: None, terms }.into()
    });
    cluster
}

impl Cluster {
    fn said(&self) -> Vec<String> {
        let msg = |news: &News| match news {
            News::Log(log) => Some(log.msg.clone()),
            _ => None,
        };
        self.published.iter().filter_map(msg).collect()
    }
}

#[test]
fn who_stays_away_longer_than_an_answer_takes_is_not_waited_for_as_long_as_its_step_may_take() {
    let mut cluster = switching(OnFailure::Back);
    assert_eq!(cluster.take_all_sent(), ["a: switch n1"]);
    cluster.lose("a");
    let waits = "deployment 2 of c2: waiting 10s at most for `a`, which is out of reach";
    assert!(cluster.said().contains(&waits.to_owned()), "it is known at once: {:?}", cluster.said());
    cluster.pass(Duration::from_secs(9));
    assert_eq!(cluster.take_all_sent(), [""; 0]);
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.take_all_sent(), ["b: back to c1 with n3", "c: back to c1 with "]);
    cluster.reply("b");
    cluster.reply("c");
    let answer = cluster.answer("deploy");
    assert!(answer.contains(&"n1: the link was lost before it answered".to_owned()), "{answer:?}");
    assert!(
        answer.iter().any(|line| line.starts_with("a: not connected since") && line.ends_with(": cut")),
        "{answer:?}"
    );
    assert!(answer.last().unwrap().ends_with("`a` will follow when it can be reached"), "{answer:?}");
}

#[test]
fn who_comes_back_in_time_goes_on_at_once_with_all_the_time_that_its_step_has() {
    let mut cluster = switching(OnFailure::Back);
    cluster.take_all_sent();
    for _ in 0..3 {
        cluster.lose("a");
        cluster.pass(Duration::from_secs(9));
        cluster.connect("a");
        cluster.reply("a");
        assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome", "a: switch n1"]);
        cluster.pass(Duration::from_secs(60));
    }
    assert_eq!(cluster.take_all_sent(), [""; 0], "nothing has ended");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: switch n2"]);
}

#[test]
fn what_is_lost_while_all_look_is_named_and_nothing_was_touched() {
    let mut cluster = Cluster::deployed(&NODES);
    (cluster.answers_itself, cluster.checks) = (false, true);
    cluster.deploy("deploy", configuration("c2", &NODES));
    cluster.lose("b");
    cluster.reply("a");
    cluster.reply("c");
    cluster.pass(Duration::from_secs(11));
    let answer = cluster.answer("deploy");
    assert!(answer.len() == 1 && answer[0].starts_with("b: not connected since"), "{answer:?}");
    assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Refused);
}

#[test]
fn an_agent_that_was_started_again_while_all_look_looks_again() {
    let mut cluster = Cluster::deployed(&NODES);
    (cluster.answers_itself, cluster.checks) = (false, true);
    cluster.take_all_sent();
    cluster.deploy("deploy", configuration("c2", &NODES));
    assert_eq!(cluster.take_all_sent(), ["a: check c2", "b: check c2", "c: check c2"]);
    cluster.reply("a");
    for (run, looks_again) in [(hello("a").run, false), (77, true)] {
        cluster.lose("a");
        cluster.connect_as("a", NotifyAgentHello { run, ..hello("a") });
        cluster.reply("a");
        let told = cluster.take_all_sent();
        assert_eq!(told.contains(&"a: check c2".to_owned()), looks_again, "{told:?}");
    }
    ["b", "c"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.take_all_sent(), [""; 0], "a has yet to answer");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: commit c2", "b: commit c2", "c: commit c2"]);
}

#[test]
fn who_was_started_again_when_all_had_looked_and_one_is_not_welcome_yet_looks_again() {
    let mut cluster = Cluster::new(Stored::default());
    (cluster.answers_itself, cluster.checks) = (false, true);
    ["a", "b"].iter().for_each(|name| cluster.connect(name));
    cluster.take_all_sent();
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    let b = cluster.links["b"];
    let is_welcome = |(of, told): &mut (LinkId, ToAgent)| *of == b && matches!(told, ToAgent::AgentWelcomeRequest(_));
    let late: Vec<_> = cluster.told.extract_if(.., is_welcome).collect();
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    assert_eq!(cluster.take_all_sent(), ["a: welcome", "b: welcome", "a: check c1", "b: check c1"]);
    cluster.lose("a");
    cluster.connect_as("a", NotifyAgentHello { run: 77, ..hello("a") });
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome", "a: check c1"]);
    cluster.told.extend(late);
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), [""; 0], "a has yet to look");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: commit c1", "b: commit c1"]);
}

#[test]
fn who_is_the_last_to_answer_the_welcome_and_is_started_again_looks_again() {
    let mut cluster = Cluster::new(Stored::default());
    (cluster.answers_itself, cluster.checks) = (false, true);
    cluster.connect("a");
    cluster.connect_as("b", NotifyAgentHello { place: 5, ..hello("b") });
    cluster.take_all_sent();
    cluster.deploy("deploy", configuration("c1", &[("a", "n1"), ("b", "n2")]));
    let b = cluster.links["b"];
    cluster.told.retain(|(of, told)| *of != b || !matches!(told, ToAgent::AgentWelcomeRequest(_)));
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    cluster.take_all_sent();
    // Its new link comes before the end of the former is known, or behind it.
    for (run, is_lost) in [(77, false), (78, true)] {
        if is_lost {
            cluster.lose("b");
            assert_eq!(cluster.take_all_sent(), [""; 0], "all have looked, and b may have forgotten it");
        }
        cluster.connect_as("b", NotifyAgentHello { run, place: 5, ..hello("b") });
        let told = cluster.take_all_sent();
        assert_eq!(told, ["b: received", "b: welcome"], "run {run}");
        cluster.reply("b");
        assert_eq!(cluster.take_all_sent(), ["b: check c1"]);
    }
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["a: commit c1", "b: commit c1"]);
}

#[test]
fn where_it_is_to_stand_nobody_waits_for_each_node_of_who_is_lost_and_it_follows() {
    let mut cluster = switching(OnFailure::Keep);
    cluster.take_all_sent();
    cluster.lose("a");
    cluster.pass(Duration::from_secs(11));
    assert_eq!(cluster.take_all_sent(), ["b: switch n3"], "n2 has no turn of its own any more");
    cluster.reply("b");
    assert_eq!(cluster.take_all_sent(), ["b: commit c2", "c: commit c2"]);
    cluster.reply("b");
    cluster.reply("c");
    let answer = cluster.answer("deploy");
    assert!(answer.contains(&"n1: the link was lost before it answered".to_owned()), "{answer:?}");
    let last = cluster.saved.last.clone().unwrap();
    assert_eq!((last.verdict, last.owing), (Verdict::New, [instance("a")].into()));
    cluster.connect("a");
    cluster.reply("a");
    assert_eq!(cluster.take_all_sent(), ["a: received", "a: welcome", "a: configuration c2"]);
    cluster.reply("a");
    assert_eq!(cluster.saved.last.as_ref().unwrap().owing, [].into());
}

//! Going back: what serves has its turn, as when it went forth.

use super::*;
use crate::message::client::{DeploymentPhase, Terms};
use crate::model::Verdict;

/// Three instances with workers, of which one at a time may be down.
const WORKERS: [(&str, &str); 4] = [("a", "n1"), ("a", "n2"), ("b", "n3"), ("c", "n4")];

/// Where nobody is ready any more from `failing` on, and all begin to go back.
fn going_back(failing: &str) -> Cluster {
    let mut cluster = Cluster::deployed(&WORKERS);
    cluster.would_change = WORKERS.map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.ask("deploy", |reqid| {
        let terms = Terms::default();
        client::SetConfigurationRequest { reqid, configuration: configuration("c2", &WORKERS), upon: None, terms }
            .into()
    });
    for (of, name) in WORKERS {
        if name == failing {
            cluster.turn(of, name, Some("not ready"));
            break;
        }
        cluster.turn(of, name, None);
    }
    cluster
}

impl Cluster {
    /// That node was told to switch, forth or back, and comes to that.
    fn turn(&mut self, of: &str, name: &str, error: Option<&str>) {
        let reqid = self.take_sent(of, |message| match message {
            ToAgent::SwitchNodesRequest(request) if request.nodes.contains(name) => Some(request.reqid),
            _ => None,
        });
        self.told.clear();
        let outcome = match error {
            None => Outcome::node_done(&instance(of), &node(name)),
            Some(error) => Outcome::node_failed(&instance(of), &node(name), error.into(), None),
        };
        self.say(of, SwitchNodesResponse { reqid, outcomes: vec![outcome] });
    }

    /// What it was told before comes to that, whoever waits for it by now.
    fn late(&mut self, of: &str, name: &str) {
        let reqid = self.told.iter().find_map(|(_, told)| match told {
            ToAgent::SwitchNodesRequest(request) if request.nodes.contains(name) => Some(request.reqid.clone()),
            _ => None,
        });
        let outcomes = vec![Outcome::node_done(&instance(of), &node(name))];
        self.say(of, SwitchNodesResponse { reqid: reqid.unwrap(), outcomes });
    }

    /// What the journal has of it.
    fn written(&self) -> Vec<String> {
        self.saved.last.iter().flat_map(|last| last.results.iter().map(told)).collect()
    }

    /// That instance has put back what served nobody, and these wait.
    fn put_back(&mut self, of: &str, waiting: &[&str]) {
        let reqid = self.take_sent(of, |message| match message {
            ToAgent::RestoreConfigurationRequest(request) => Some(request.reqid),
            _ => None,
        });
        let change = |name: &&str| CheckedChange { node: node(name), role: Role::None, runs: true, shares: None };
        let (outcomes, waiting) = (vec![Outcome::instance_done(&instance(of))], waiting.iter().map(change).collect());
        self.say(of, RestoreConfigurationResponse { reqid, outcomes, waiting });
    }
}

const BACK: &str = "all: rolled back: configuration c1 is in force again";

#[test]
fn what_runs_goes_back_one_after_the_other_once_all_have_said_what_waits() {
    let mut cluster = going_back("n3");
    cluster.put_back("a", &["n1", "n2"]);
    cluster.put_back("b", &[]);
    cluster.sent.retain(|(_, message)| !matches!(message, ToAgent::RestoreConfigurationRequest(_)));
    assert_eq!(cluster.take_all_sent(), [""; 0], "c has not said what it has put back");
    assert_eq!(cluster.phase_of_back(), (DeploymentPhase::Returning, vec!["a".into(), "c".into()]));
    let mut cluster = going_back("n3");
    cluster.put_back("b", &[]);
    cluster.put_back("c", &[]);
    cluster.put_back("a", &["n1", "n2"]);
    cluster.turn("a", "n1", None);
    assert!(!cluster.answers.contains_key("deploy"));
    cluster.turn("a", "n2", None);
    let answer = cluster.answer("deploy");
    assert_eq!(answer, ["n1: done", "n2: done", "n3: not ready", BACK]);
    assert!(cluster.saved.last.as_ref().is_some_and(|last| last.ended.is_some() && last.owing.is_empty()));
}

impl Cluster {
    fn phase_of_back(&self) -> (DeploymentPhase, Vec<String>) {
        let status = self.state.status(Cursor { epoch: 0, number: 0 }).deployment.unwrap();
        (status.phase, status.owing.iter().map(InstanceName::to_string).collect())
    }
}

#[test]
fn a_node_that_does_not_come_back_holds_up_nobody_and_is_named() {
    let mut cluster = going_back("n4");
    cluster.put_back("a", &["n1", "n2"]);
    cluster.put_back("b", &["n3"]);
    cluster.put_back("c", &[]);
    cluster.turn("a", "n1", Some("exited with status 1"));
    // Silence counts as a failure when its time is over.
    cluster.pass(Duration::from_secs(3600));
    let late = cluster.take_all_sent();
    assert_eq!(late, ["a: switch n2", "b: switch n3"]);
    let answer = cluster.answer("deploy");
    assert!(answer.contains(&"n1: not as before: exited with status 1".to_owned()), "{answer:?}");
    assert!(answer.contains(&"n2: not as before: request timed out".to_owned()), "{answer:?}");
    assert!(answer.last().unwrap().ends_with("will follow when they can be reached"), "{answer:?}");
    // Who is back after that is not said to be away for ever, and all that failed is known.
    cluster.late("a", "n2");
    cluster.late("b", "n3");
    let written = cluster.written();
    let want = ["n1: not as before: exited with status 1", "n4: not ready"];
    assert_eq!(
        (&written[..2], written.iter().any(|told| told.contains("timed out"))),
        (&want.map(String::from)[..], false)
    );
    assert!(["n2: done", "n3: done"].iter().all(|told| written.contains(&(*told).to_owned())), "{written:?}");
}

#[test]
fn who_is_lost_while_it_goes_back_holds_nobody_up_for_long_and_has_its_turns_when_it_is_back() {
    let mut cluster = going_back("n4");
    cluster.put_back("a", &["n1", "n2"]);
    ["b", "c"].iter().zip([&["n3"][..], &[]]).for_each(|(of, waiting)| cluster.put_back(of, waiting));
    assert_eq!(cluster.take_all_sent(), ["a: switch n1"]);
    cluster.lose("a");
    cluster.pass(Duration::from_secs(9));
    assert_eq!(cluster.take_all_sent(), [""; 0], "n1 may be down");
    cluster.pass(Duration::from_secs(2));
    cluster.turn("b", "n3", None);
    let answer = cluster.answer("deploy");
    assert!(answer.last().unwrap().ends_with("`a` will follow when it can be reached"), "{answer:?}");
    cluster.told.clear();
    cluster.connect("a");
    cluster.reply("a");
    cluster.put_back("a", &["n1", "n2"]);
    cluster.turn("a", "n1", None);
    assert!(cluster.state.has_yet_to_follow(&instance("a")));
    cluster.turn("a", "n2", None);
    assert!(!cluster.state.has_yet_to_follow(&instance("a")));
}

#[test]
fn that_somebody_stops_a_node_while_it_goes_back_later_is_written_as_no_failure() {
    let mut cluster = going_back("n4");
    cluster.lose("a");
    cluster.put_back("b", &["n3"]);
    cluster.put_back("c", &[]);
    cluster.pass(Duration::from_secs(11));
    cluster.turn("b", "n3", None);
    cluster.answer("deploy");
    cluster.connect("a");
    cluster.reply("a");
    cluster.put_back("a", &["n1", "n2"]);
    cluster.ask("stop", |reqid| client::StopRequest { reqid, nodes: [node("n1")].into() }.into());
    cluster.turn("a", "n1", Some("somebody asked meanwhile for it to stop"));
    cluster.turn("a", "n2", Some("never ready"));
    assert!(!cluster.state.has_yet_to_follow(&instance("a")));
    let written = cluster.written();
    assert_eq!(written[..2], ["n2: not as before: never ready", "n4: not ready"]);
    assert!(!written.iter().any(|told| told.contains("meanwhile")), "{written:?}");
}

#[test]
fn a_controller_that_was_killed_while_all_went_back_goes_on_once_all_had_time_to_come_back() {
    let mut cluster = going_back("n4");
    cluster.put_back("b", &["n3"]);
    let mut next = Cluster::new(cluster.saved.clone());
    next.answers_itself = false;
    for (name, waiting) in [("a", &["n1", "n2"][..]), ("b", &["n3"])] {
        next.connect(name);
        next.reply(name);
        next.told.clear();
        next.put_back(name, waiting);
    }
    let switched = |next: &mut Cluster| {
        let all = next.take_all_sent().into_iter();
        all.filter(|told| told.contains("switch")).collect::<Vec<_>>()
    };
    assert_eq!(switched(&mut next), [""; 0], "c may be about to come back");
    next.pass(Duration::from_secs(11));
    assert_eq!(switched(&mut next), ["a: switch n1"]);
    assert_eq!(next.saved.last.as_ref().unwrap().verdict, Verdict::Old);
}

#[test]
fn what_is_to_go_back_waits_while_another_deployment_decides_about_it() {
    let mut cluster = going_back("n4");
    let mut next = Cluster::new(std::mem::take(&mut cluster.saved));
    (next.answers_itself, next.checks) = (false, true);
    for (name, waiting) in [("a", &["n1", "n2"][..]), ("b", &["n3"]), ("c", &[])] {
        next.connect(name);
        next.reply(name);
        next.told.clear();
        next.put_back(name, waiting);
    }
    assert_eq!(next.take_sent("a", |told| matches!(told, ToAgent::SwitchNodesRequest(_)).then_some(())), ());
    next.deploy("another", configuration("c3", &WORKERS));
    let (link, turn) = next.told.remove(0);
    let answered = reply("a", &turn).unwrap();
    next.sent.clear();
    next.step(Event::Mail(link, vec![answered]));
    assert_eq!(next.take_all_sent(), [""; 0], "n2 is not told");
    let asked = next.told.iter().position(|(_, told)| matches!(told, ToAgent::CheckConfigurationRequest(_))).unwrap();
    let (link, ToAgent::CheckConfigurationRequest(asked)) = next.told.remove(asked) else { panic!() };
    let of = next.names[&link].clone();
    let outcomes = vec![Outcome::instance_failed(&instance(&of), "no room")];
    next.say(&of, CheckConfigurationResponse { reqid: asked.reqid, outcomes, changes: vec![] });
    ["a", "b", "c"].iter().filter(|name| **name != of).for_each(|name| next.reply(name));
    assert_eq!(next.answer("another"), [format!("{of}: no room")]);
    let told = next.take_all_sent();
    assert!(
        told.contains(&"a: back to c1 with n1 n2".to_owned()),
        "and it goes on where nothing comes of that: {told:?}"
    );
}

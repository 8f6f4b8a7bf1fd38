//! Going back: what serves has its turn, as when it went forth.

use super::*;
use crate::message::client::{DeploymentPhase, Terms};
use crate::model::{OnFailure, Verdict};

/// Three instances with workers, of which one at a time may be down.
const WORKERS: [(&str, &str); 4] = [("a", "n1"), ("a", "n2"), ("b", "n3"), ("c", "n4")];

/// Where nobody is ready any more from `failing` on, and all begin to go back.
fn going_back(failing: &str) -> Cluster {
    let mut cluster = deploying(Terms::default());
    for (of, name) in WORKERS {
        if name == failing {
            cluster.turn(of, name, Some("not ready"));
            break;
        }
        cluster.turn(of, name, None);
    }
    cluster
}

/// All are to be switched, one at a time.
fn deploying(terms: Terms) -> Cluster {
    let mut cluster = Cluster::deployed(&WORKERS);
    cluster.would_change = WORKERS.map(|(of, name)| (of.into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.ask("deploy", |reqid| {
        client::SetConfigurationRequest { reqid, configuration: configuration("c2", &WORKERS), upon: None, terms }
            .into()
    });
    cluster
}

impl Cluster {
    /// That node was told to switch, forth or back, and comes to that.
    pub(super) fn turn(&mut self, of: &str, name: &str, error: Option<&str>) {
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
    pub(super) fn put_back(&mut self, of: &str, waiting: &[&str]) {
        self.puts_back(of, &[], waiting);
    }

    /// The same of one that says of these that they are done.
    pub(super) fn puts_back(&mut self, of: &str, done: &[&str], waiting: &[&str]) {
        let reqid = self.take_sent(of, |message| match message {
            ToAgent::RestoreConfigurationRequest(request) => Some(request.reqid),
            _ => None,
        });
        let change = |name: &&str| CheckedChange { node: node(name), role: Role::None, runs: true, shares: None };
        let outcomes = done.iter().map(|name| Outcome::node_done(&instance(of), &node(name)));
        let outcomes = outcomes.chain([Outcome::instance_done(&instance(of))]).collect();
        let waiting = waiting.iter().map(change).collect();
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
    assert!(answer.last().unwrap().ends_with("`a`, `b` have yet to follow"), "{answer:?}");
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
fn who_was_lost_just_before_all_go_back_has_time_to_come_back_before_anybody_has_a_turn() {
    for is_back in [false, true] {
        let mut cluster = deploying(Terms::default());
        WORKERS[..3].iter().for_each(|(of, name)| cluster.turn(of, name, None));
        cluster.lose("a");
        cluster.turn("c", "n4", Some("not ready"));
        cluster.put_back("b", &["n3"]);
        cluster.put_back("c", &[]);
        cluster.pass(Duration::from_secs(9));
        let told = cluster.take_all_sent();
        assert!(!told.iter().any(|told| told.contains("switch")), "n1 and n2 may be down: {told:?}");
        cluster.told.clear();
        match is_back {
            true => {
                cluster.connect("a");
                cluster.reply("a");
                cluster.put_back("a", &["n1", "n2"]);
            }
            false => cluster.pass(Duration::from_secs(2)),
        }
        cluster.turn("b", "n3", None);
    }
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
fn why_all_go_back_is_known_to_whoever_finds_it_after_a_crash_and_so_is_who_is_as_before() {
    let mut cluster = going_back("n4");
    cluster.put_back("b", &["n3"]);
    let mut next = Cluster::new(cluster.saved.clone());
    next.answers_itself = false;
    let why = format!("{BACK}: the controller ended in the middle of it, when it was going back");
    assert_eq!(next.written(), ["n4: not ready", &*why]);
    for (name, waiting) in [("a", &["n1", "n2"][..]), ("b", &["n3"]), ("c", &[])] {
        next.connect(name);
        next.reply(name);
        next.told.clear();
        next.puts_back(name, if name == "c" { &["n4"] } else { &[] }, waiting);
    }
    for (of, name) in &WORKERS[..3] {
        next.turn(of, name, None);
    }
    assert!(["a", "b", "c"].iter().all(|name| !next.state.has_yet_to_follow(&instance(name))));
    assert_eq!(next.written(), ["n4: not ready", &*why, "n1: done", "n2: done", "n3: done", "n4: done"]);
}

#[test]
fn what_came_of_nodes_of_a_deployment_that_stands_is_known_to_whoever_finds_it_after_a_crash() {
    let mut cluster = deploying(Terms { on_failure: Some(OnFailure::Keep), ..Terms::default() });
    cluster.turn("a", "n1", None);
    cluster.turn("a", "n2", Some("not ready"));
    let mut next = Cluster::new(cluster.saved.clone());
    let why = "all: the controller ended in the middle of it, when it was decided: every instance comes to it";
    assert_eq!(next.written(), ["n2: not ready", why, "n1: done"]);
    WORKERS.iter().map(|(of, _)| *of).collect::<BTreeSet<_>>().into_iter().for_each(|name| next.connect(name));
    assert_eq!(next.written(), ["n2: not ready", why, "n1: done"], "nor is it forgotten when all have followed");
}

/// What the journal has of nodes that did what they were to do, and where.
fn places(cluster: &Cluster) -> Vec<String> {
    let results = cluster.saved.last.iter().flat_map(|last| &last.results).filter(|outcome| outcome.is_success());
    let place = |it: &Outcome| Some(format!("{} on {}", it.node.as_ref()?, it.instance.as_ref()?));
    results.map(|outcome| place(outcome).unwrap_or_else(|| told(outcome))).collect()
}

#[test]
fn what_moved_and_went_back_is_named_where_it_was_before_and_once() {
    let moved = || {
        let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
        cluster.would_change = ["n1", "n2", "n9"].map(|name| ("b".into(), name.into())).into();
        cluster.answers_itself = false;
        cluster.deploy("deploy", configuration("c2", &[("a", "n4"), ("b", "n1"), ("b", "n2"), ("b", "n9")]));
        cluster.say("a", change("a", "n1", NodeState::Stopped));
        cluster.reply("a");
        cluster.turn("b", "n1", None);
        cluster.turn("b", "n2", Some("not ready"));
        cluster
    };
    let mut cluster = moved();
    cluster.put_back("a", &[]);
    cluster.puts_back("b", &["n1", "n2"], &[]);
    cluster.puts_back("a", &["n1"], &[]);
    assert_eq!(cluster.answer("deploy"), ["n1: done", "n2: not ready", BACK]);
    assert_eq!(places(&cluster), ["n1 on a"]);
    let mut cluster = moved();
    cluster.put_back("a", &[]);
    cluster.lose("b");
    cluster.pass(Duration::from_secs(3600));
    cluster.answer("deploy");
    assert_eq!(places(&cluster), ["n1 on a"]);
    cluster.told.clear();
    cluster.connect("b");
    cluster.reply("b");
    cluster.puts_back("b", &["n1", "n2"], &[]);
    cluster.puts_back("a", &["n1"], &[]);
    assert!(cluster.saved.last.as_ref().is_some_and(|last| last.owing.is_empty()));
    assert_eq!(places(&cluster), ["n1 on a", "n2 on b"]);
}

#[test]
fn who_goes_back_has_as_long_to_end_as_it_would_have_had_also_where_the_deployment_is_over() {
    let mut cluster = Cluster::deployed(&WORKERS);
    cluster.would_change = WORKERS[..2].iter().map(|(of, name)| ((*of).into(), (*name).into())).collect();
    cluster.answers_itself = false;
    let mut slow = configuration("c2", &WORKERS);
    slow.nodes.iter_mut().for_each(|node| Arc::make_mut(node).stop_grace = Duration::from_secs(3600));
    cluster.deploy("deploy", slow);
    cluster.turn("a", "n1", None);
    let mut next = Cluster::new(cluster.saved.clone());
    next.answers_itself = false;
    for (name, waiting) in [("a", &["n1", "n2"][..]), ("b", &[]), ("c", &[])] {
        next.connect(name);
        next.reply(name);
        next.told.clear();
        next.put_back(name, waiting);
    }
    next.sent.retain(|(_, sent)| matches!(sent, ToAgent::SwitchNodesRequest(_)));
    next.pass(Duration::from_secs(3500));
    next.turn("a", "n1", None);
    assert_eq!(next.errors(), [""; 0], "n1 was not late");
    next.turn("a", "n2", None);
    assert!(!next.state.has_yet_to_follow(&instance("a")));
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

impl Cluster {
    /// What was sent that has anything done.
    fn take_orders(&mut self) -> Vec<String> {
        let sent = self.take_all_sent().into_iter();
        sent.filter(|sent| ["received", "welcome"].iter().all(|word| !sent.ends_with(word))).collect()
    }
}

/// n1 was begun to be moved from a to b, which was lost then: it is to go back, and nobody knows whether it runs there.
fn out_of_reach_with_n1() -> Cluster {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.would_change = vec![("b".into(), "n1".into())];
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n3"), ("b", "n1"), ("b", "n2")]));
    cluster.say("a", change("a", "n1", NodeState::Stopped));
    cluster.reply("a");
    assert_eq!(cluster.take_orders(), ["a: stop n1", "b: switch n1"]);
    cluster.lose("b");
    cluster.pass(Duration::from_secs(11));
    assert_eq!(cluster.take_orders(), ["a: back to c1 with "]);
    cluster.reply("a");
    // At once: a has gone back but for n1, for which it waits as long as b is away.
    let last = cluster.answer("deploy").pop().unwrap();
    assert!(last.ends_with("; `b` will follow when it can be reached; `a` has yet to follow"), "{last}");
    cluster.would_change.clear();
    cluster
}

#[test]
fn what_has_yet_to_go_back_is_not_forgotten_by_a_deployment_that_comes_to_nothing_and_runs_once() {
    let mut cluster = out_of_reach_with_n1();
    cluster.connect("b");
    cluster.say("b", snapshot_of(&[("b", "n1"), ("b", "n2")]));
    cluster.reply("b");
    cluster.take_orders();
    cluster.deploy("another", configuration("c3", &[("a", "n1"), ("b", "n2"), ("b", "n4")]));
    assert_eq!(cluster.take_orders(), ["b: stop n1"], "before anything else");
    cluster.lose("b");
    cluster.pass(Duration::from_secs(11));
    assert_eq!(cluster.take_orders(), ["a: back to c1 with "], "n1 may run on b");
    cluster.reply("a");
    cluster.pass(Duration::from_secs(3600));
    // Nor does a controller forget it that is started again.
    let mut next = Cluster::new(cluster.saved.clone());
    next.answers_itself = false;
    for name in ["a", "b"] {
        next.connect(name);
        next.reply(name);
    }
    assert_eq!(next.take_orders(), ["a: back to c1 with ", "b: back to c1 with "]);
    next.reply("b");
    assert_eq!(next.take_orders(), ["a: back to c1 with n1"]);
}

#[test]
fn nobody_who_is_not_waited_for_lets_a_node_run_twice_that_it_has_yet_to_give_back() {
    let mut cluster = out_of_reach_with_n1();
    let nodes = [("a", "n1"), ("b", "n2"), ("b", "n4")];
    cluster.ask("without", |reqid| {
        let terms = Terms { without: [instance("b")].into(), ..Terms::default() };
        let configuration = configuration("c3", &nodes);
        client::SetConfigurationRequest { reqid, configuration, upon: None, terms }.into()
    });
    let why = "n1: it may still run there, and not be started on `a`: `b` has yet to go back from deployment 2. Wait for \
               it, or deploy a configuration that does not have that instance";
    assert_eq!(cluster.answer("without"), [why]);
    assert_eq!(cluster.saved.last.as_ref().unwrap().verdict, Verdict::Refused);
    cluster.published.clear();
    cluster.deploy_without("given up", configuration("c4", &[("a", "n1")]), &["b"]);
    let errors = cluster.errors();
    assert!(errors.iter().any(|error| error.starts_with("n1 of b: given up with its instance")), "{errors:?}");
}

/// n1 has moved from `a` to `b`, where n3 failed, so that all go back; and n1 does not end there. What `b` is asked by, and
/// what it has to say of that.
pub(super) fn going_back_where_one_does_not_end() -> (Cluster, RequestId, Vec<Outcome>) {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2"), ("b", "n3")]);
    cluster.would_change = ["n1", "n2", "n3"].map(|name| ("b".into(), name.into())).into();
    cluster.answers_itself = false;
    cluster.deploy("deploy", configuration("c2", &[("a", "n4"), ("b", "n1"), ("b", "n2"), ("b", "n3")]));
    cluster.say("a", change("a", "n1", NodeState::Stopped));
    cluster.reply("a");
    ["n1", "n2"].iter().for_each(|name| cluster.turn("b", name, None));
    cluster.turn("b", "n3", Some("not ready"));
    cluster.put_back("a", &[]);
    let reqid = cluster.take_sent("b", |message| match message {
        ToAgent::RestoreConfigurationRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcomes = vec![Outcome::node_failed(&instance("b"), &node("n1"), "it does not end".into(), None)];
    (cluster, reqid, outcomes)
}

#[test]
fn who_refuses_its_turn_has_not_gone_back_whatever_else_ends_there_and_is_not_counted() {
    let (mut cluster, reqid, outcomes) = going_back_where_one_does_not_end();
    let change = |name| CheckedChange { node: node(name), role: Role::None, runs: true, shares: None };
    let waiting = vec![change("n2"), change("n3")];
    cluster.say("b", RestoreConfigurationResponse { reqid, outcomes, waiting });
    let reqid = cluster.take_sent("b", |message| match message {
        ToAgent::SwitchNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcomes = vec![Outcome::instance_failed(&instance("b"), "its agent is stopping all nodes")];
    cluster.say("b", SwitchNodesResponse { reqid, outcomes });
    let status = cluster.state.status(Cursor { epoch: 0, number: 0 }).deployment.unwrap();
    assert_eq!((status.switched, status.to_switch), (1, 1), "n3 has no turn any more");
    cluster.sent.clear();
    cluster.say("b", removal("b", "n1"));
    assert!(cluster.state.has_yet_to_follow(&instance("b")), "n2 is not as before");
    assert_eq!(cluster.take_orders(), ["a: back to c1 with n1"], "which runs nowhere else");
}

#[test]
fn nobody_waits_until_a_node_runs_nowhere_else_that_is_to_rest() {
    for stops_late in [false, true] {
        let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
        cluster.would_change = ["n1", "n2"].map(|name| ("b".into(), name.into())).into();
        if !stops_late {
            cluster.say("a", change("a", "n1", NodeState::Stopped));
        }
        cluster.answers_itself = false;
        cluster.deploy("deploy", configuration("c2", &[("a", "n3"), ("b", "n1"), ("b", "n2")]));
        cluster.reply("a");
        cluster.turn("b", "n1", None);
        cluster.turn("b", "n2", Some("not ready"));
        cluster.put_back("a", &[]);
        if stops_late {
            cluster.ask("stop", |reqid| client::StopRequest { reqid, nodes: [node("n1")].into() }.into());
        }
        cluster.put_back("b", &[]);
        assert_eq!(cluster.answer("deploy").last().unwrap(), BACK, "{stops_late}");
        assert!(cluster.saved.last.as_ref().unwrap().owing.is_empty());
    }
}

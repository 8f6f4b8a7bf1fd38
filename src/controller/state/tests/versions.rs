//! Agents of other releases, and agents that come back to what they were asked.

use super::*;
use crate::message::frame::Body;

#[test]
fn whoever_waits_for_what_an_agent_does_not_know_is_told_at_once() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    let unknown = |of: &str, name: &str| {
        let ours = env!("CARGO_PKG_VERSION");
        format!(
            "{of}: its agent does not know `{name}`: it runs watchpost 0.1.0, and this controller {ours}; upgrade the \
             older one"
        )
    };
    cluster.ask("restart", |reqid| client::RestartRequest { reqid, nodes: BTreeSet::from([node("n1")]) }.into());
    cluster.not_known("a", agent::StopRequest::KIND);
    assert!(cluster.answers.is_empty(), "that is not what it was asked");
    cluster.not_known("a", agent::RestartRequest::KIND);
    assert_eq!(cluster.answer("restart"), [unknown("n1", "restart_request"), unknown("a", "restart_request")]);

    cluster.ask("nodes", |reqid| client::GetNodesRequest { reqid }.into());
    let inner = cluster.take_sent("b", |message| match message {
        ToAgent::GetNodesRequest(request) => Some(request.reqid),
        _ => None,
    });
    cluster.say("b", GetNodesResponse { reqid: inner, pid: None, nodes: vec![] });
    cluster.not_known("a", agent::GetNodesRequest::KIND);
    assert_eq!(cluster.answer("nodes"), [unknown("a", "get_nodes_request"), "b: done".into()]);

    let request = |reqid| client::GetIdValueRequest { reqid, id: "x".into(), nodes: BTreeSet::from([node("n1")]) };
    cluster.ask("value", |reqid| request(reqid).into());
    cluster.not_known("a", NodeDispatchRequest::KIND);
    assert_eq!(cluster.answer("value"), [unknown("n1", "node_dispatch_request")]);
    cluster.not_known("a", 0x7777);
    assert_eq!(cluster.state.roster.connected().len(), 2, "it is no reason to part");
}

#[test]
fn a_deployment_to_an_agent_that_does_not_know_what_it_takes_is_over_at_once() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    cluster.deploy("share", configuration("c2", &[("a", "n1"), ("b", "n3")]));
    cluster.reply("a");
    cluster.not_known("b", agent::CommitConfigurationRequest::KIND);
    let [done, unknown] = &cluster.answer("share")[..] else { panic!() };
    assert_eq!(done, "a: done");
    assert!(unknown.starts_with("b: its agent does not know `commit_configuration_request`"), "{unknown}");

    cluster.connect("c");
    cluster.deploy("welcome", configuration("c3", &[("a", "n1"), ("c", "n3")]));
    cluster.not_known("c", AgentWelcomeRequest::KIND);
    let [unknown] = &cluster.answer("welcome")[..] else { panic!() };
    assert!(unknown.starts_with("c: its agent does not know `agent_welcome_request`"), "{unknown}");
    assert_eq!(cluster.needed(), ["a", "b"], "and everything is as it was");

    cluster.deploy("move", configuration("c4", &[("a", "n3"), ("b", "n1")]));
    cluster.not_known("a", agent::StopRequest::KIND);
    cluster.reply("b");
    ["a", "b"].iter().for_each(|name| cluster.reply(name));
    let [unknown, _] = &cluster.answer("move")[..] else { panic!() };
    assert!(unknown.starts_with("a: its agent does not know `stop_request`"), "{unknown}");
}

#[test]
fn what_a_link_lost_is_asked_again_of_the_same_run_of_the_agent_and_of_no_other() {
    let restart = |reqid| client::RestartRequest { reqid, nodes: BTreeSet::from([node("n1")]) }.into();
    let lost = ["n1: the link was lost before it answered", "a: the link was lost before it answered"];
    let repeating = || {
        let mut cluster = Cluster::new(Stored::default());
        cluster.features = Features::REPEATS;
        cluster.connect("a");
        cluster.deploy("first", configuration("c1", &[("a", "n1")]));
        cluster.answers.clear();
        cluster.ask("restart", restart);
        let inner = cluster.take_restart();
        (cluster, inner)
    };
    // Cut, or replaced by a newer link: it is the same request either way.
    for is_cut in [true, false] {
        let (mut cluster, inner) = repeating();
        if is_cut {
            cluster.lose("a");
            cluster.pass(Duration::from_secs(4));
        }
        cluster.connect("a");
        assert_eq!(cluster.take_restart(), inner);
        cluster.pass(Duration::from_secs(4));
        assert!(cluster.answers.is_empty(), "it has its time");
        let outcomes = vec![Outcome::node_done(&instance("a"), &node("n1"))];
        cluster.say("a", agent::RestartResponse { reqid: inner, outcomes });
        assert_eq!(cluster.answer("restart"), ["n1: done"]);
    }
    // Another run cannot know whether the first has done it.
    let (mut cluster, _) = repeating();
    cluster.lose("a");
    cluster.connect_as("a", NotifyAgentHello { run: 2, ..hello("a") });
    assert_eq!(cluster.answer("restart"), lost);
    // Nobody waits for ever.
    let (mut cluster, _) = repeating();
    cluster.lose("a");
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.answer("restart")[..2], lost);
}

#[test]
fn a_copy_of_an_agent_is_refused_and_the_agent_itself_comes_back_at_once() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let first = cluster.links["a"];
    // The same numbering of its news, as a copied state directory has it, in another process.
    for place in [0, 9] {
        cluster.connect_as("a", NotifyAgentHello { run: 2, place, ..hello("a") });
        assert_eq!(cluster.take_all_sent(), ["a: refused"]);
        assert_eq!(cluster.state.roster.link(&instance("a")), Some(first));
    }
    let [error] = &cluster.errors()[..] else { panic!("{:?}", cluster.errors()) };
    assert!(error.contains("instance `a` is taken by an agent in this process since 1970"), "{error}");
    assert!(
        error.contains(&format!("(link {}): give this one another name, and a state directory", first.0)),
        "{error}"
    );
    // Its address has changed, and nobody has told the controller that the former link hangs.
    cluster.ended.clear();
    cluster.connect_at("a", [10, 0, 0, 9]);
    assert_eq!(cluster.ended, [first]);
    assert_eq!(cluster.state.roster.link(&instance("a")), Some(cluster.links["a"]));
    assert_eq!(cluster.state_of("n1"), NodeState::Running);
}

#[test]
fn an_agent_that_has_locked_what_the_first_had_locked_comes_after_it() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.connect_as("a", NotifyAgentHello { place: 5, ..hello("a") });
    let former = cluster.links["a"];
    cluster.ended.clear();
    cluster.connect_as("a", NotifyAgentHello { run: 2, place: 5, ..hello("a") });
    assert_eq!(cluster.ended, [former]);
    cluster.connect_as("a", NotifyAgentHello { run: 3, place: 5, epoch: 8, ..hello("a") });
    assert_eq!(
        cluster.ended.last(),
        Some(&cluster.links["a"]),
        "who numbers its news anew has to prove more than that"
    );
}

impl Cluster {
    pub(super) fn not_known(&mut self, name: &str, kind: u16) {
        self.step(Event::NotKnown(self.links[name], kind));
    }

    fn take_restart(&mut self) -> RequestId {
        self.take_sent("a", |message| match message {
            ToAgent::RestartRequest(request) => Some(request.reqid),
            _ => None,
        })
    }
}

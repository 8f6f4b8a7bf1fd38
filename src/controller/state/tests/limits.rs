//! What is answered to whom when time is up.

use super::*;

#[test]
fn a_value_is_asked_of_the_nodes_that_were_named_and_each_that_has_none_is_named() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("a", "n2"), ("b", "n3")]);
    cluster.ask("value", |reqid| asking(reqid, &["n1", "n2", "n3", "n4"]).into());
    let inner = cluster.take_question("a");
    let answers = vec![answer("n2", Err("unknown id")), answer("n1", Ok("96")), answer("n3", Ok("not its own"))];
    cluster.say("a", NodeDispatchResponse { reqid: inner, answers });
    cluster.lose("b");
    let ClientResponse::GetIdValueResponse(got) = &cluster.answers["value"] else { panic!() };
    let values: Vec<_> = got.values.iter().map(|got| (got.node.as_str(), got.value.as_str())).collect();
    assert_eq!(values, [("n1", "96")]);
    let lost = "n3: the link was lost before it answered";
    assert_eq!(cluster.answer("value"), ["n2: unknown id", lost, "n4: unknown cluster node"]);

    cluster.ask("lost", |reqid| asking(reqid, &["n3"]).into());
    assert_eq!(cluster.answer("lost"), ["n3: its instance is not connected"]);
}

#[test]
fn a_value_cannot_be_asked_of_a_cluster_that_is_not_there() {
    let mut cluster = Cluster::new(Stored::default());
    cluster.ask("none", |reqid| asking(reqid, &[]).into());
    assert_eq!(cluster.answer("none"), ["all: no cluster deployed"]);
    cluster.connect("a");
    cluster.deploy("empty", configuration("c1", &[]));
    assert_eq!(cluster.answer("empty"), [] as [&str; 0]);
    cluster.ask("empty", |reqid| asking(reqid, &["n1"]).into());
    assert_eq!(cluster.answer("empty"), ["all: no cluster deployed"]);
    cluster.ask("restart", |reqid| client::RestartRequest { reqid, nodes: BTreeSet::new() }.into());
    assert_eq!(cluster.answer("restart"), [] as [&str; 0], "there is nothing to restart, and nothing to wait for");
}

#[test]
fn an_identifier_that_is_too_long_is_refused_before_anybody_is_asked() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.take_all_sent();
    let of =
        |bytes: usize| move |reqid| client::GetIdValueRequest { id: "x".repeat(bytes), ..asking(reqid, &[]) }.into();
    cluster.ask("long", of(1025));
    assert_eq!(cluster.answer("long"), ["all: name of global identifier is longer than 1024 bytes"]);
    assert_eq!(cluster.take_all_sent(), [] as [&str; 0]);
    cluster.ask("longest", of(1024));
    cluster.take_question("a");
    cluster.take_question("b");
}

#[test]
fn whatever_is_ordered_the_names_that_no_node_has_are_told() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    cluster.ask("value", |reqid| asking(reqid, &["n0", "n2"]).into());
    let nodes = BTreeSet::from(["n0", "n2"].map(node));
    cluster.ask("restart", |reqid| client::RestartRequest { reqid, nodes }.into());
    for request in ["value", "restart"] {
        assert_eq!(cluster.answer(request), ["n0: unknown cluster node", "n2: unknown cluster node"]);
    }
}

#[test]
fn whoever_waits_no_longer_gets_the_values_of_the_nodes_that_answered() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.ask_within("value", Duration::from_secs(3), |reqid| asking(reqid, &[]).into());
    let inner = cluster.take_question("a");
    cluster.say("a", NodeDispatchResponse { reqid: inner, answers: vec![answer("n1", Ok("96"))] });
    cluster.pass(Duration::from_millis(2_999));
    assert!(!cluster.answers.contains_key("value"));
    cluster.pass(Duration::from_millis(1));
    let ClientResponse::GetIdValueResponse(got) = &cluster.answers["value"] else { panic!() };
    assert_eq!(got.values.len(), 1);
    assert_eq!(cluster.answer("value"), ["n2: request timed out"]);
    cluster.pass(Duration::from_secs(60)); // nobody is answered twice
}

#[test]
fn whoever_waits_no_longer_for_a_restart_hears_which_nodes_are_up_again_and_which_did_not_answer() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("a", "n2"), ("b", "n3")]);
    cluster.answers_itself = false;
    let restart = |reqid| client::RestartRequest { reqid, nodes: BTreeSet::new() }.into();
    cluster.ask_within("restart", Duration::from_secs(3), restart);
    let inner = cluster.take_sent("b", |message| match message {
        ToAgent::RestartRequest(request) => Some(request.reqid),
        _ => None,
    });
    let outcomes = vec![Outcome::node_done(&instance("b"), &node("n3"))];
    cluster.say("b", RestartResponse { reqid: inner, outcomes });
    cluster.say("a", NotifyChange { time: Timestamp(5), ..change("a", "n1", NodeState::Running) });
    cluster.pass(Duration::from_secs(3));
    let want = ["n1: done", "n2: request timed out", "n3: done", "a: did not answer in time", "all: request timed out"];
    assert_eq!(cluster.answer("restart"), want);
}

#[test]
fn a_deployment_goes_on_when_its_client_waits_no_longer() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.answers_itself = false;
    let next = configuration("c2", &[("a", "n1"), ("a", "n3"), ("b", "n2")]);
    let deploy = |reqid| {
        client::SetConfigurationRequest { reqid, configuration: next, upon: None, terms: client::Terms::default() }
            .into()
    };
    cluster.ask_within("deploy", Duration::from_secs(1), deploy);
    cluster.reply("b");
    cluster.pass(Duration::from_secs(1));
    let ClientResponse::SetConfigurationResponse(got) = &cluster.answers["deploy"] else { panic!() };
    assert_eq!(got.configuration.as_ref().map(ConfigurationId::as_str), Some("c2"), "it is decided");
    let want = ["n1: done", "n3: request timed out", "b: done", "all: request timed out"];
    assert_eq!(cluster.answer("deploy"), want);

    cluster.deploy("second", configuration("c3", &[("a", "n1")]));
    assert_eq!(cluster.answer("second"), ["all: earlier deployment deploy still pending", UNDER_WAY]);
    cluster.reply("a");
    cluster.deploy("third", configuration("c3", &[("a", "n1")]));
    assert!(!cluster.answers.contains_key("third"), "the first one is complete, and this one is under way");
}

#[test]
fn an_answer_in_time_lifts_the_limit() {
    let mut cluster = Cluster::deployed(&[("a", "n1")]);
    let within = Duration::from_secs(3);
    cluster.ask_within("value", within, |reqid| asking(reqid, &[]).into());
    let inner = cluster.take_question("a");
    cluster.say("a", NodeDispatchResponse { reqid: inner, answers: vec![answer("n1", Ok("96"))] });
    assert_eq!(cluster.answer("value"), [] as [&str; 0]);
    assert!(cluster.state.limits.is_empty());
}

fn asking(reqid: RequestId, nodes: &[&str]) -> client::GetIdValueRequest {
    client::GetIdValueRequest { reqid, id: "bits_per_uid".into(), nodes: nodes.iter().map(|name| node(name)).collect() }
}

fn answer(name: &str, value: Result<&str, &str>) -> NodeAnswer {
    NodeAnswer { node: node(name), value: value.map(str::to_owned).map_err(str::to_owned) }
}

impl Cluster {
    fn ask_within(&mut self, name: &str, within: Duration, request: impl FnOnce(RequestId) -> ClientRequest) {
        self.ask(name, request);
        let ticket = *self.tickets.iter().find(|(_, of)| *of == name).expect("not answered yet").0;
        self.step(Event::Limit(ticket, within));
    }

    fn take_question(&mut self, name: &str) -> RequestId {
        self.take_sent(name, |message| match message {
            ToAgent::NodeDispatchRequest(request) => Some(request.reqid),
            _ => None,
        })
    }
}

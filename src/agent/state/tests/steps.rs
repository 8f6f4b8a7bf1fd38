//! A deployment as an agent sees it: looked at, switched node by node, and in force or gone back from.

use super::*;
use crate::model::Zeek;

const NODES: [(&str, Role); 3] = [("logger", Role::Logger), ("manager", Role::Manager), ("worker", Role::Worker)];

/// The same nodes, where these stop more slowly: so each of them is another.
fn changed(configuration_id: &str, names: &[&str]) -> Configuration {
    let mut changed = commands(configuration_id);
    for node in changed.nodes.iter_mut().filter(|node| names.contains(&node.name.as_str())) {
        Arc::make_mut(node).stop_grace = Duration::from_secs(77);
    }
    changed
}

fn commands(configuration_id: &str) -> Configuration {
    let mut configuration = configuration(configuration_id, &NODES);
    configuration.nodes.iter_mut().for_each(|node| Arc::make_mut(node).command = vec!["program".into()]);
    configuration
}

/// With the nodes of `commands`, all of them RUNNING.
fn running() -> Agent {
    let mut agent = Agent::new();
    agent.order(SetConfigurationRequest { reqid: id("first"), configuration: commands("c1").into(), rest: [].into() });
    agent.obey_all();
    agent.taken = agent.told.len();
    agent.mail.clear();
    agent
}

impl Agent {
    /// What it objects, and what it would start or change.
    fn check(&mut self, reqid: &str, configuration: Configuration) -> Vec<String> {
        self.order(CheckConfigurationRequest { reqid: id(reqid), configuration: configuration.into() });
        self.checked()
    }

    fn checked(&mut self) -> Vec<String> {
        let Some(ToController::CheckConfigurationResponse(answer)) = self.mail.pop() else { panic!("{:?}", self.mail) };
        let objections = answer.outcomes.iter().filter_map(|outcome| outcome.error.clone());
        let words = |change: CheckedChange| format!("{}{}", change.node, if change.runs { "" } else { " is new" });
        objections.chain(answer.changes.into_iter().map(words)).collect()
    }

    fn commit(&mut self, reqid: &str, configuration: &str, checked: &str) {
        let configuration = ConfigurationId::new(configuration).unwrap();
        self.order(CommitConfigurationRequest {
            reqid: id(reqid),
            configuration,
            checked: id(checked),
            rest: [].into(),
        });
    }

    fn switch(&mut self, reqid: &str, configuration: &str, nodes: &[&str]) {
        let nodes = nodes.iter().map(|name| node_name(name)).collect();
        let configuration = ConfigurationId::new(configuration).unwrap();
        self.order(SwitchNodesRequest { reqid: id(reqid), configuration, nodes, rest: [].into() });
        self.obey_all();
    }

    fn back(&mut self, reqid: &str, configuration: Configuration, up: &[&str]) {
        let up = up.iter().map(|name| node_name(name)).collect();
        let configuration = configuration.into();
        self.order(RestoreConfigurationRequest { reqid: id(reqid), configuration, up, at_once: true });
        self.obey_all();
    }
}

#[test]
fn what_is_looked_at_touches_nothing_and_says_what_it_would_change() {
    let mut agent = running();
    let mut next = changed("c2", &["worker"]);
    next.nodes.remove(0);
    let new = Node {
        command: vec!["program".into()],
        ..Node::new(node_name("new"), next.nodes[0].instance.clone(), Role::Proxy)
    };
    next.nodes.push(new.into());
    assert_eq!(agent.check("check", next.clone()), ["new is new", "worker"]);
    assert_eq!((agent.take_told(), agent.state.statuses().len()), (vec![], 3));
    agent.order(SetConfigurationRequest { reqid: id("again"), configuration: commands("c1").into(), rest: [].into() });
    assert_eq!(agent.answers(), [("again".into(), vec!["instance: done".into()])], "c1 is in force");
    // An objection, such as to a full disk, is the whole answer.
    agent.holds = true;
    agent.order(CheckConfigurationRequest { reqid: id("full"), configuration: changed("c3", &["worker"]).into() });
    let (number, preparation) = agent.preparations.pop().unwrap();
    assert_eq!((preparation.launches, preparation.renders), (1, false));
    agent.step(Event::Prepared(number, vec![Objection::of_all("there is no room")]));
    assert_eq!(agent.checked(), ["there is no room"]);
    agent.switch("step", "c3", &["worker"]);
    let refusal = "instance: it does not have configuration c3 at hand any more: was its agent started again?";
    assert_eq!(agent.answers(), [("step".into(), vec![refusal.into()])]);
    assert_eq!(agent.take_told(), [""; 0]);
}

#[test]
fn nodes_are_switched_as_they_are_named_and_the_rest_follows_when_it_comes_into_force() {
    let mut agent = running();
    let mut next = changed("c2", &["manager", "worker"]);
    next.nodes.remove(0);
    agent.check("check", next.clone());
    agent.switch("one", "c2", &["worker"]);
    assert_eq!(agent.take_told(), ["stop worker", "redefine worker", "start worker"]);
    assert_eq!(agent.answers(), [("one".into(), vec!["worker: done".into()])]);
    agent.switch("one", "c2", &["worker"]);
    assert_eq!(agent.answers(), [("one".into(), vec!["worker: done".into()])], "asked again it is answered again");
    agent.commit("commit", "c2", "check");
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop manager", "redefine manager", "stop logger", "start manager"]);
    assert_eq!(agent.answers(), [("commit".into(), vec!["manager: done".into()])], "of the worker it has told");
    agent.order(SetConfigurationRequest { reqid: id("again"), configuration: next.into(), rest: [].into() });
    assert_eq!((agent.take_told(), agent.answered()), (vec![], vec!["again".to_owned()]));
}

#[test]
fn nothing_comes_into_force_but_what_was_looked_at_by_that_request_under_that_id() {
    let mut agent = running();
    agent.check("first", changed("c2", &["manager"]));
    agent.check("second", changed("c2", &["worker"]));
    for (configuration, checked) in [("c2", "first"), ("c3", "second"), ("c1", "second")] {
        agent.commit("wrong", configuration, checked);
        assert_eq!(agent.mail.pop(), Some(NotAtHand { reqid: id("wrong") }.into()), "{configuration} by {checked}");
        assert_eq!(agent.take_told(), [] as [&str; 0]);
    }
    agent.commit("commit", "c2", "second");
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop worker", "redefine worker", "start worker"]);
    let done = || [("commit".to_owned(), ["logger: done", "manager: done", "worker: done"].map(String::from).to_vec())];
    assert_eq!(agent.answers(), done());
    agent.commit("commit", "c2", "second");
    assert_eq!(agent.answers(), done(), "asked again it is answered again");
    agent.commit("late", "c2", "second");
    assert_eq!(agent.mail.pop(), Some(NotAtHand { reqid: id("late") }.into()));
    // It is said once that it is not at hand, and then it comes whole.
    agent.order(SetConfigurationRequest {
        reqid: id("late"),
        configuration: changed("c2", &["worker"]).into(),
        rest: [].into(),
    });
    assert_eq!((agent.take_told(), agent.answers()), (vec![], vec![("late".into(), vec!["instance: done".into()])]));
    // What is in force already is looked at again, and nothing is done.
    agent.check("same", changed("c2", &["worker"]));
    agent.commit("nothing", "c2", "same");
    assert_eq!((agent.take_told(), agent.answers()), (vec![], vec![("nothing".into(), vec!["instance: done".into()])]));
}

#[test]
fn a_node_that_was_switched_and_failed_is_not_started_again_when_it_comes_into_force() {
    let mut agent = running();
    agent.check("check", changed("c2", &["worker"]));
    let configuration = ConfigurationId::new("c2").unwrap();
    agent.order(SwitchNodesRequest {
        reqid: id("one"),
        configuration,
        nodes: [node_name("worker")].into(),
        rest: [].into(),
    });
    let Some((_, NodeOrder::Stop { ticket, .. })) = agent.told.last().cloned() else { panic!() };
    agent.report(&node_name("worker"), NodeState::Stopped, Some(ticket));
    agent.report(&node_name("worker"), NodeState::Pending, None);
    agent.report(&node_name("worker"), NodeState::Failed, None);
    agent.take_told();
    assert!(agent.answers()[0].1[0].starts_with("worker: "));
    agent.commit("commit", "c2", "check");
    let others: Vec<String> = ["logger: done", "manager: done"].map(String::from).to_vec();
    assert_eq!((agent.take_told(), agent.answers()), (vec![], vec![("commit".into(), others)]));
}

#[test]
fn going_back_undoes_what_was_switched_and_leaves_the_rest_alone() {
    let mut agent = running();
    agent.order(StopRequest { reqid: id("stop"), nodes: [node_name("logger"), node_name("manager")].into() });
    agent.obey_all();
    let mut next = changed("c2", &["manager", "worker"]);
    next.nodes.remove(0);
    agent.check("check", next);
    agent.switch("one", "c2", &["manager", "worker"]);
    agent.take_told();
    agent.answers();
    agent.back("back", commands("c1"), &["worker"]);
    let told = agent.take_told();
    assert_eq!(
        told,
        ["stop worker", "redefine worker", "stop manager", "start worker", "redefine manager"],
        "{told:?}"
    );
    assert_eq!(agent.answers(), [("back".into(), vec!["worker: done".into()])]);
    let states: Vec<_> = agent.state.statuses().iter().map(|status| status.state).collect();
    assert_eq!(states, [NodeState::Stopped, NodeState::Stopped, NodeState::Running], "what rested rests");
    agent.order(SetConfigurationRequest { reqid: id("again"), configuration: commands("c1").into(), rest: [].into() });
    assert_eq!((agent.take_told(), agent.answered()), (vec![], vec!["again".to_owned()]), "it is in force");
}

#[test]
fn who_is_stopped_while_it_is_deployed_stays_down_when_that_comes_into_force_also_after_a_restart() {
    let rest: BTreeSet<NodeName> = ["manager", "worker"].map(node_name).into();
    let mut agent = running();
    agent.check("check", changed("c2", &["worker"]));
    agent.order(StopRequest { reqid: id("stop"), nodes: rest.clone() });
    agent.obey_all();
    agent.take_told();
    agent.answers();
    let configuration = ConfigurationId::new("c2").unwrap();
    let checked = id("check");
    agent.order(CommitConfigurationRequest { reqid: id("commit"), configuration, checked, rest: rest.clone() });
    agent.obey_all();
    let told = agent.take_told();
    assert!(told.contains(&"redefine worker".to_owned()) && !told.iter().any(|it| it.starts_with("start")), "{told:?}");
    assert_eq!(agent.answers(), [("commit".into(), vec!["logger: done".into()])]);

    // The next run of the agent finds them down, and does not know since when.
    let mut agent = Agent::new();
    let found = |node: &Arc<Node>| {
        let runs = !rest.contains(&node.name);
        let node = Arc::clone(node);
        let (state, pid) = if runs { (NodeState::Running, Some(70)) } else { (NodeState::Stopped, None) };
        FoundNode { node, state, pid, reason: Text::default(), wanted: runs, guessed: false }
    };
    agent.step(Event::Found(commands("c1").nodes.iter().map(found).collect()));
    agent.obey_all();
    agent.take_told();
    let configuration = changed("c2", &["worker"]).into();
    agent.order(SetConfigurationRequest { reqid: id("share"), configuration, rest: rest.clone() });
    agent.obey_all();
    let told = agent.take_told();
    assert!(told.contains(&"redefine worker".to_owned()) && !told.iter().any(|it| it.starts_with("start")), "{told:?}");
    assert_eq!(agent.answers(), [("share".into(), vec!["logger: done".into()])]);

    // Nor does the run behind that, which is told what was in force: its records have what nodes ran as last.
    let mut agent = Agent::new();
    agent.step(Event::WasInForce(ConfigurationId::new("c2").unwrap()));
    agent.step(Event::Found(commands("c1").nodes.iter().map(found).collect()));
    agent.obey_all();
    agent.take_told();
    let configuration = changed("c2", &["worker"]).into();
    agent.order(SetConfigurationRequest { reqid: id("told"), configuration, rest: [].into() });
    agent.obey_all();
    let told = agent.take_told();
    assert!(told.contains(&"redefine worker".to_owned()) && !told.iter().any(|it| it.starts_with("start")), "{told:?}");
}

/// Says who waits for its turn, and answers by its outcomes.
fn back_in_turns(agent: &mut Agent, reqid: &str, up: &[&str]) -> (Vec<String>, Vec<String>) {
    let up = up.iter().map(|name| node_name(name)).collect();
    let configuration = commands("c1").into();
    agent.order(RestoreConfigurationRequest { reqid: id(reqid), configuration, up, at_once: false });
    agent.obey_all();
    let Some(ToController::RestoreConfigurationResponse(answer)) = agent.mail.pop() else { panic!("{:?}", agent.mail) };
    let waiting = answer.waiting.iter().map(|change| change.node.to_string()).collect();
    let outcomes = answer.outcomes.iter().filter_map(|outcome| outcome.node.as_ref()).map(NodeName::to_string);
    (waiting, outcomes.collect())
}

/// All three run what is new, but for the logger, which failed.
fn switched_in_vain() -> Agent {
    let mut agent = running();
    agent.check("check", changed("c2", &["logger", "manager", "worker"]));
    agent.switch("one", "c2", &["logger", "manager", "worker"]);
    agent.report(&node_name("logger"), NodeState::Failed, None);
    agent.take_told();
    agent.mail.clear();
    agent
}

#[test]
fn what_serves_goes_on_until_its_turn_comes_to_go_back_and_what_does_not_goes_back_at_once() {
    let mut agent = switched_in_vain();
    let (waiting, back) = back_in_turns(&mut agent, "back", &["logger", "manager", "worker"]);
    assert_eq!((waiting, back), (vec!["manager".into(), "worker".into()], vec!["logger".into()]));
    assert_eq!(agent.take_told(), ["stop logger", "redefine logger", "start logger"]);
    agent.switch("turn", "c1", &["worker"]);
    assert_eq!(agent.take_told(), ["stop worker", "redefine worker", "start worker"]);
    assert_eq!(agent.answers(), [("turn".into(), vec!["worker: done".into()])]);
    // Asked again, such as over a new link, it says who still waits.
    let (waiting, back) = back_in_turns(&mut agent, "again", &["logger", "manager", "worker"]);
    assert_eq!((waiting, back), (vec!["manager".into()], vec!["logger".into(), "worker".into()]));
    agent.switch("last", "c1", &["manager"]);
    assert_eq!(agent.take_told(), ["stop manager", "redefine manager", "start manager"]);
    agent.answers();
    agent.order(SetConfigurationRequest { reqid: id("set"), configuration: commands("c1").into(), rest: [].into() });
    assert_eq!((agent.take_told(), agent.answered()), (vec![], vec!["set".to_owned()]), "it is in force");
}

#[test]
fn who_is_stopped_while_it_waits_to_go_back_is_as_before_and_stays_down() {
    let mut agent = switched_in_vain();
    back_in_turns(&mut agent, "back", &["logger", "manager", "worker"]);
    agent.order(StopRequest { reqid: id("stop"), nodes: [node_name("worker")].into() });
    agent.obey_all();
    agent.take_told();
    agent.answers();
    agent.switch("turn", "c1", &["manager", "worker"]);
    let told = agent.take_told();
    assert!(told.contains(&"redefine worker".to_owned()) && !told.contains(&"start worker".to_owned()), "{told:?}");
    assert_eq!(agent.answers(), [("turn".into(), vec!["manager: done".into()])]);
    agent.order(StartRequest { reqid: id("start"), nodes: [node_name("worker")].into() });
    agent.obey_all();
    let (waiting, _) = back_in_turns(&mut agent, "again", &["logger", "manager", "worker"]);
    assert_eq!(waiting, [""; 0], "it runs what it ran before");
}

/// The logger and the manager run, and are about to have the port of each other.
fn changing_ports() -> Agent {
    let with_ports = |configuration_id: &str, ports: [u16; 2]| {
        let mut configuration = commands(configuration_id);
        let nodes = configuration.nodes.iter_mut().zip(ports);
        nodes.for_each(|(node, port)| Arc::make_mut(node).port = Some(port));
        configuration
    };
    let mut agent = Agent::new();
    let first = with_ports("c1", [1, 2]).into();
    agent.order(SetConfigurationRequest { reqid: id("first"), configuration: first, rest: [].into() });
    agent.obey_all();
    agent.take_told();
    agent.mail.clear();
    assert_eq!(agent.check("check", with_ports("c2", [2, 1])), ["logger", "manager"]);
    agent
}

#[test]
fn who_was_stopped_makes_room_and_is_not_started_by_the_turn_of_who_has_its_port() {
    let mut agent = changing_ports();
    let rest: BTreeSet<NodeName> = [node_name("manager")].into();
    agent.order(StopRequest { reqid: id("stop"), nodes: rest.clone() });
    agent.obey_all();
    assert_eq!((agent.take_told(), agent.answers().len()), (vec!["stop manager".to_owned()], 1));
    let (configuration, nodes) = (ConfigurationId::new("c2").unwrap(), [node_name("logger")].into());
    agent.order(SwitchNodesRequest { reqid: id("one"), configuration, nodes, rest: rest.clone() });
    agent.obey_all();
    let told = agent.take_told();
    assert!(told.contains(&"redefine manager".to_owned()) && !told.contains(&"start manager".to_owned()), "{told:?}");
    assert_eq!(agent.answers(), [("one".into(), vec!["logger: done".into()])]);
    let (configuration, checked) = (ConfigurationId::new("c2").unwrap(), id("check"));
    agent.order(CommitConfigurationRequest { reqid: id("commit"), configuration, checked, rest });
    agent.obey_all();
    assert_eq!((agent.take_told(), agent.answered()), (vec![], vec!["commit".to_owned()]));
}

#[test]
fn a_node_whose_port_is_wanted_makes_room_for_it_in_the_same_step() {
    let mut agent = changing_ports();
    agent.switch("one", "c2", &["logger"]);
    let told = ["stop manager", "stop logger", "redefine logger", "redefine manager"];
    assert_eq!(agent.take_told().iter().filter(|told| !told.starts_with("start")).count(), told.len());
    assert_eq!(agent.answers(), [("one".into(), vec!["logger: done".into()])]);
    agent.switch("two", "c2", &["manager"]);
    assert_eq!((agent.take_told(), agent.answers().len()), (vec![], 1), "it has been switched by then");
}

#[test]
fn nodes_of_zeek_are_switched_one_by_one_whatever_ports_their_hub_has() {
    let cluster = |configuration_id: &str, stop_grace| {
        let mut configuration = configuration(configuration_id, &NODES);
        configuration.zeek = Some(Box::new(Zeek { zeromq_ports: Some([70, 71]), ..Zeek::default() }));
        configuration.nodes.iter_mut().for_each(|node| Arc::make_mut(node).stop_grace = stop_grace);
        configuration
    };
    let mut agent = Agent::new();
    let first = cluster("c1", Duration::from_secs(7));
    agent.order(SetConfigurationRequest { reqid: id("first"), configuration: first.into(), rest: [].into() });
    agent.obey_all();
    agent.take_told();
    agent.mail.clear();
    let next = cluster("c2", Duration::from_secs(8));
    agent.order(CheckConfigurationRequest { reqid: id("check"), configuration: next.into() });
    assert_eq!(agent.checked(), ["logger", "manager", "worker"]);
    for (step, name) in [("one", "logger"), ("two", "manager"), ("three", "worker")] {
        agent.switch(step, "c2", &[name]);
        let told = agent.take_told();
        assert!(told.iter().all(|told| told.ends_with(name)), "all know the ports, and one listens there: {told:?}");
        assert_eq!(agent.answers(), [(step.to_owned(), vec![format!("{name}: done")])]);
    }
}

#[test]
fn files_are_tried_for_those_that_are_switched_alone_and_the_former_ones_used_again_when_all_goes_back() {
    let mut agent = Agent::new();
    agent.order(SetConfigurationRequest {
        reqid: id("first"),
        configuration: configuration("c1", &NODES).into(),
        rest: [].into(),
    });
    agent.obey_all();
    agent.preparations.clear();
    agent.mail.clear();
    assert_eq!(std::mem::take(&mut agent.files), [Some(1)]);
    let next = configuration("c2", &[NODES.as_slice(), &[("new", Role::Worker)]].concat());
    agent.order(CheckConfigurationRequest { reqid: id("check"), configuration: next.into() });
    assert_eq!(agent.checked(), ["logger", "manager", "new is new"], "both know of every worker");
    agent.switch("one", "c2", &["manager"]);
    agent.switch("two", "c2", &["new"]);
    let tried: Vec<_> = agent.tried.iter().map(|(number, nodes)| (*number, nodes.len())).collect();
    assert_eq!((tried, agent.files.len()), (vec![(2, 1), (2, 2)], 0), "the logger would be launched as it was");
    agent.back("back", configuration("c1", &NODES), &["manager"]);
    assert_eq!(agent.files, [Some(1)], "without rendering them again");
}

#[test]
fn a_node_on_its_way_out_has_a_place_again_in_what_is_gone_back_to_and_rests_there() {
    let mut agent = running();
    let mut smaller = commands("c2");
    smaller.nodes.retain(|node| node.name.as_str() != "worker");
    agent.check("check", smaller);
    agent.commit("commit", "c2", "check");
    // Its process has yet to end when all go back; and it is not among those that were up.
    agent.back("back", commands("c1"), &["logger", "manager"]);
    let nodes: Vec<_> = agent.state.statuses().into_iter().map(|it| (it.node.to_string(), it.state)).collect();
    let want = [("logger", NodeState::Running), ("manager", NodeState::Running), ("worker", NodeState::Stopped)];
    assert_eq!(nodes, want.map(|(name, state)| (name.to_owned(), state)));
}

//! A node of which only the process was found, since its record was lost.

use super::*;

const NODE: [(&str, Role); 1] = [("node", Role::Worker)];
const WHY: &str = "node: its record was lost: deploy a configuration that says what it is";

/// With such a node, which runs.
fn guessing() -> Agent {
    let mut agent = Agent::new();
    let node = Node::new(node_name("node"), InstanceName::new("i").unwrap(), Role::None);
    let node = Arc::new(Node { command: vec!["found".into()], ..node });
    let found = FoundNode {
        node,
        state: NodeState::Running,
        pid: Some(70),
        reason: Text::default(),
        wanted: true,
        guessed: true,
    };
    agent.step(Event::Found(vec![found]));
    agent
}

fn deploy(agent: &mut Agent) {
    let configuration = configuration("c1", &NODE).into();
    agent.order(SetConfigurationRequest { reqid: id("deploy"), configuration, rest: [].into() });
}

#[test]
fn a_node_whose_record_was_lost_is_not_started_before_a_configuration_says_what_it_is() {
    let mut agent = guessing();
    let answer = |reqid: &str| [(reqid.to_owned(), vec![WHY.to_owned()])];
    agent.order(RestartRequest { reqid: id("restart"), nodes: BTreeSet::new() });
    assert_eq!(agent.answers(), answer("restart"));
    assert_eq!(agent.take_told(), [""; 0], "it would only be stopped by that");
    agent.report(&node_name("node"), NodeState::Crashed, None);
    agent.order(StartRequest { reqid: id("start"), nodes: BTreeSet::new() });
    assert_eq!(agent.answers(), answer("start"));
    assert_eq!(agent.take_told(), [""; 0]);
    deploy(&mut agent);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["redefine node"], "its supervisor decides what its end means");
    assert_eq!(agent.answers(), [("deploy".to_owned(), vec!["instance: done".to_owned()])]);
}

#[test]
fn what_a_node_is_becomes_known_also_while_it_is_being_stopped() {
    let mut agent = guessing();
    agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::new() });
    deploy(&mut agent);
    assert!(!agent.state.is_guessed(&node_name("node")));
    assert_eq!(agent.take_told(), ["stop node", "redefine node", "stop node"], "and then that it is for now");
    agent.obey_all();
    assert_eq!(agent.take_told(), ["start node"], "as was asked last");
    assert_eq!(agent.state.statuses()[0].role, Role::Worker);
    agent.order(StopRequest { reqid: id("again"), nodes: BTreeSet::new() });
    assert_eq!(agent.take_told(), ["stop node"], "its role is in the order as it is now");
    agent.obey_all();
    assert!(agent.answered().contains(&"again".to_owned()));
}

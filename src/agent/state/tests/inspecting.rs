//! What would become of nodes is what becomes of them, and to ask for it does nothing.

use super::*;
use crate::model::{Action, Inspection};

/// How a node is before somebody asks.
const STATES: [NodeState; 4] = [NodeState::Running, NodeState::Stopped, NodeState::Failed, NodeState::Crashed];

#[test]
fn what_is_foreseen_is_what_a_deployment_then_does() {
    let absent_or_in = |state| [None, Some((1, state)), Some((2, state))];
    let before: Vec<_> = STATES.into_iter().flat_map(absent_or_in).collect();
    for before in before {
        for after in [None, Some(1), Some(2)] {
            let mut agent = Agent::new();
            let first = [Some(("beside", 1)), before.map(|(port, _)| ("node", port))];
            deploy(&mut agent, "c1", first);
            if let Some((_, state)) = before {
                bring_to(&mut agent, state);
            }
            agent.take_told();
            let wanted = [Some(("beside", 1)), after.map(|port| ("node", port))];
            let (count, held) = (agent.told.len(), agent.state.statuses());
            let steps = inspect(&mut agent, wanted).steps;
            assert_eq!((agent.told.len(), agent.state.statuses()), (count, held), "to ask does nothing");
            let action = |name: &str| steps.iter().find(|step| step.node.as_str() == name).map(|step| &step.action);
            assert_eq!(action("beside"), Some(&Action::Keep));

            deploy(&mut agent, "c2", wanted);
            let told: Vec<_> = agent.take_told().into_iter().filter(|told| !told.ends_with("beside")).collect();
            let (ends, starts) = (told.contains(&"stop node".into()), told.contains(&"start node".into()));
            let was = |is: NodeState| before.is_some_and(|(_, state)| state == is);
            let (ran, waited) = (was(NodeState::Running), was(NodeState::Crashed));
            let fits = match action("node") {
                None => told.is_empty() && before.is_none() && after.is_none(),
                Some(Action::Keep) => (ran || waited) && !ends && !starts,
                Some(Action::Start { was: None }) => before.is_none() && starts,
                Some(Action::Revive { was }) => Some(*was) == before.map(|(_, state)| state) && !ran && starts,
                Some(Action::Start { was }) => *was == before.map(|(_, state)| state) && !ran && starts,
                Some(Action::Restart(because)) => ran && ends && starts && because.keys == ["port"],
                Some(Action::Stop) => ends && !starts,
                Some(Action::Move { .. }) => false, // an agent does not know of others
            };
            assert!(fits, "{before:?} → {after:?}: {:?} was foreseen, and {told:?} was done", action("node"));
        }
    }
}

#[test]
fn a_node_whose_record_was_lost_is_kept_as_whatever_is_wanted_of_it() {
    let mut agent = Agent::new();
    let node = nodes([Some(("node", 1))]).remove(0);
    let (state, reason) = (NodeState::Running, Text::default());
    let found = FoundNode { node, state, pid: Some(70), reason, wanted: true, guessed: true };
    agent.step(Event::Found(vec![found]));
    assert_eq!(inspect(&mut agent, [Some(("node", 2))]).steps[0].action, Action::Keep);
}

#[test]
fn so_many_questions_are_looked_at_side_by_side_and_no_more() {
    let mut agent = Agent::new();
    agent.holds = true;
    for number in 0..6 {
        ask(&mut agent, &format!("plan-{number}"), [Some(("node", 1))]);
        ask(&mut agent, &format!("plan-{number}"), [Some(("node", 1))]);
    }
    let answers = inspections(&mut agent);
    let refused = Err("it looks at 4 other plans already: ask again in a while".to_owned());
    assert_eq!(answers.len(), 4, "each of the two that are too many, as often as it was asked: {answers:?}");
    assert!(answers.iter().all(|(_, answer)| *answer == refused));
    let objection = Objection { node: Some(node_name("node")), what: "no".into(), output: None };
    for number in 1..=4 {
        agent.step(Event::Inspected(number, vec![objection.clone()]));
        agent.step(Event::Inspected(number, vec![objection.clone()]));
    }
    let answers = inspections(&mut agent);
    assert_eq!(
        answers.iter().map(|(reqid, _)| reqid.as_str()).collect::<Vec<_>>(),
        ["plan-0", "plan-1", "plan-2", "plan-3"]
    );
    let complaint = Outcome::node_failed(&agent.state.instance, &node_name("node"), "no".into(), None);
    assert!(answers.iter().all(|(_, answer)| answer.as_ref().unwrap().complaints == std::slice::from_ref(&complaint)));
    ask(&mut agent, "later", [Some(("node", 1))]);
    assert_eq!(inspections(&mut agent), [], "there is room again");
}

#[test]
fn a_limit_that_cannot_be_had_and_an_address_that_nobody_knows_are_complained_of() {
    let mut agent = Agent::new();
    let mut wanted = configuration("c1", &[("manager", Role::Manager)]);
    let quotas = crate::model::Quotas { pids_max: Some(5), ..Default::default() };
    let node = Arc::make_mut(&mut wanted.nodes[0]);
    node.run_as = Some(Box::new(crate::model::RunAs { quotas, ..Default::default() }));
    let other = InstanceName::new("j").unwrap();
    wanted.instances.push(Instance { name: other.clone(), host: Some([10, 0, 0, 2].into()), port: None });
    let (name, role) = (node_name("worker"), Role::Worker);
    wanted.peers.push(Peer { name, instance: other, role, port: None, metrics_port: None });
    agent.order(InspectConfigurationRequest { reqid: id("plan"), configuration: wanted.into() });
    let inspection = inspections(&mut agent).remove(0).1.unwrap();
    let complaints: Vec<_> = inspection.complaints.iter().map(|outcome| outcome.error.clone().unwrap()).collect();
    assert_eq!(complaints[0], "it cannot have pids_max = 5: it was not tried");
    assert!(complaints[1].starts_with("nobody knows the address of instance 'i'"), "{complaints:?}");
    assert_eq!(inspection.steps[0].action, Action::Start { was: None });
}

fn nodes<const N: usize>(wanted: [Option<(&str, u16)>; N]) -> Vec<Arc<Node>> {
    let node = |(name, port): (&str, u16)| {
        let command = vec!["program".into()];
        let node = Node::new(node_name(name), InstanceName::new("i").unwrap(), Role::None);
        Arc::new(Node { command, port: Some(port), ..node })
    };
    wanted.into_iter().flatten().map(node).collect()
}

fn with<const N: usize>(id: &str, wanted: [Option<(&str, u16)>; N]) -> Configuration {
    Configuration { nodes: nodes(wanted), ..configuration(id, &[]) }
}

fn deploy(agent: &mut Agent, id_of_it: &str, wanted: [Option<(&str, u16)>; 2]) {
    agent.order(SetConfigurationRequest {
        reqid: id(id_of_it),
        configuration: with(id_of_it, wanted).into(),
        rest: [].into(),
    });
    agent.obey_all();
    agent.mail.clear();
}

fn bring_to(agent: &mut Agent, state: NodeState) {
    match state {
        NodeState::Stopped => {
            agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::from([node_name("node")]) });
            agent.obey_all();
        }
        NodeState::Failed | NodeState::Crashed => {
            agent.step(Event::Report(NodeReport::found(node_name("node"), state, None)));
        }
        _ => {}
    }
    agent.mail.clear();
}

fn ask<const N: usize>(agent: &mut Agent, reqid: &str, wanted: [Option<(&str, u16)>; N]) {
    agent.order(InspectConfigurationRequest { reqid: id(reqid), configuration: with("plan", wanted).into() });
}

fn inspect<const N: usize>(agent: &mut Agent, wanted: [Option<(&str, u16)>; N]) -> Inspection {
    ask(agent, "plan", wanted);
    inspections(agent).remove(0).1.unwrap()
}

/// The answers since this was asked last.
fn inspections(agent: &mut Agent) -> Vec<(String, Result<Inspection, String>)> {
    let all = std::mem::take(&mut agent.mail).into_iter().filter_map(|message| match message {
        ToController::InspectConfigurationResponse(InspectConfigurationResponse { reqid, inspection }) => {
            Some((reqid.to_string(), inspection))
        }
        _ => None,
    });
    all.collect()
}

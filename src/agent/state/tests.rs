use std::collections::BTreeSet;
use std::time::Duration;

use super::super::outbox::Bounds;
use super::*;
use crate::model::{ConfigurationId, Instance, RequestId, Role};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_start_does_not_cancel_a_restart_that_waits_for_its_turn() {
    let mut agent = Agent::running(&[("manager", Role::Manager), ("worker", Role::Worker)]);
    agent.order(RestartRequest { reqid: id("restart"), nodes: BTreeSet::new() });
    assert_eq!(agent.take_told(), ["stop worker"], "the manager's turn comes when the worker is down");
    agent.order(StartRequest { reqid: id("start"), nodes: BTreeSet::from([node_name("manager")]) });
    assert_eq!(agent.answered(), [] as [&str; 0], "neither is done before the manager was down and up");
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop manager", "start manager", "start worker"]);
    assert_eq!(agent.answered(), ["start", "restart"]);
}

#[test]
fn orders_about_a_node_that_nothing_ends_are_answered_at_once() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    agent.order(StopRequest { reqid: id("first"), nodes: BTreeSet::new() });
    agent.pass(60 * SECOND);
    let stuck = "worker: did not end, not even by SIGKILL (pid 70)".to_owned();
    assert_eq!(agent.answers(), [("first".to_owned(), vec![stuck.clone()])]);
    agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::new() });
    agent.order(RestartRequest { reqid: id("restart"), nodes: BTreeSet::new() });
    agent.order(StartRequest { reqid: id("start"), nodes: BTreeSet::new() });
    let answers = ["stop", "restart", "start"].map(|reqid| (reqid.to_owned(), vec![stuck.clone()]));
    assert_eq!(agent.answers(), answers);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop worker", "start worker"], "once it is gone, it does what was asked last");
}

#[test]
fn a_stop_waits_for_a_node_that_is_leaving_already() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    agent.order(AgentStandbyRequest { reqid: id("standby") });
    agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::from([node_name("worker")]) });
    assert_eq!(agent.answered(), [] as [&str; 0], "it still runs, and may not be started elsewhere");
    agent.obey_all();
    assert_eq!(agent.answered(), ["standby", "stop"]);
    assert_eq!(agent.state.statuses(), []);
}

#[test]
fn nothing_is_started_while_everything_is_being_stopped() {
    let nodes = [("worker", Role::Worker)];
    let mut agent = Agent::running(&nodes);
    agent.step(Event::StopAll { for_now: false });
    agent.order(StartRequest { reqid: id("start"), nodes: BTreeSet::new() });
    agent.order(RestartRequest { reqid: id("restart"), nodes: BTreeSet::new() });
    agent.order(SetConfigurationRequest { reqid: id("deploy"), configuration: configuration("c2", &nodes).into() });
    let refused = vec!["instance: its agent is stopping all nodes".to_owned()];
    let answers = ["start", "restart", "deploy"].map(|reqid| (reqid.to_owned(), refused.clone()));
    assert_eq!(agent.answers(), answers);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop worker"]);
    assert!(agent.all_stopped);
}

#[test]
fn a_hurry_goes_also_for_nodes_whose_turn_to_stop_comes_later() {
    let mut agent = Agent::running(&[("manager", Role::Manager), ("worker", Role::Worker)]);
    agent.step(Event::StopAll { for_now: false });
    agent.step(Event::Hurry);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop worker", "hurry worker", "stop manager", "hurry manager"]);
}

#[test]
fn what_is_found_at_start_keeps_the_order_of_roles() {
    let mut agent = Agent::new();
    let nodes = configuration("c1", &[("a-worker", Role::Worker), ("b-manager", Role::Manager)]).nodes;
    let found = nodes.into_iter().map(|node| FoundNode {
        node,
        pid: None,
        died: None,
        wanted: true,
        guessed: false,
        given_up: None,
    });
    agent.step(Event::Found(found.collect()));
    assert_eq!(agent.take_told(), ["start b-manager"]);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["start a-worker"]);
}

#[test]
fn a_configuration_asked_for_again_is_answered_when_it_is_done() {
    let mut agent = Agent::new();
    let request = SetConfigurationRequest {
        reqid: id("deploy"),
        configuration: configuration("c1", &[("worker", Role::Worker)]).into(),
    };
    agent.order(request.clone());
    agent.step(Event::LinkDown);
    agent.link();
    agent.order(request.clone());
    assert_eq!(agent.answered(), [] as [&str; 0], "the worker is not up yet");
    agent.obey_all();
    assert_eq!(agent.answers(), [("deploy".to_owned(), vec!["worker: done".to_owned()])]);
    agent.order(request.clone());
    assert_eq!(agent.answers(), [("deploy".to_owned(), vec!["worker: done".to_owned()])], "as at first");
    agent.order(SetConfigurationRequest { reqid: id("again"), ..request });
    assert_eq!(agent.answers(), [("again".to_owned(), vec!["instance: done".to_owned()])], "it is in force");
}

#[test]
fn a_restart_that_comes_again_over_a_new_link_restarts_once() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    let restart = || RestartRequest { reqid: id("restart"), nodes: BTreeSet::new() };
    let done = || [("restart".to_owned(), vec!["worker: done".to_owned()])];
    agent.order(restart());
    agent.step(Event::LinkDown);
    agent.link();
    agent.order(restart());
    assert_eq!(agent.answered(), [] as [&str; 0], "it joins the one that is under way");
    agent.obey_all();
    assert_eq!(agent.answers(), done(), "and there is one answer");
    // Its answer may be lost with the link, or there may be none when it is done.
    for restart_again in [false, true] {
        agent.step(Event::LinkDown);
        if restart_again {
            agent.step(Event::LinkUp);
            agent.order(RestartRequest { reqid: id("other"), nodes: BTreeSet::new() });
            agent.step(Event::LinkDown);
            agent.obey_all();
        }
        agent.link();
        agent.order(restart());
        assert_eq!(agent.answers(), done());
    }
    agent.order(RestartRequest { reqid: id("other"), nodes: BTreeSet::new() });
    assert_eq!(agent.answered(), ["other"]);
    assert_eq!(
        agent.take_told(),
        ["stop worker", "start worker", "stop worker", "start worker"],
        "two orders, no more"
    );
}

#[test]
fn whatever_is_ordered_twice_under_one_id_is_done_once() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    let stop: ToAgent = StopRequest { reqid: id("stop"), nodes: BTreeSet::new() }.into();
    let start: ToAgent = StartRequest { reqid: id("start"), nodes: BTreeSet::new() }.into();
    for order in [stop.clone(), start, stop] {
        agent.order(order);
        agent.obey_all();
    }
    assert_eq!(agent.answered(), ["stop", "start", "stop"]);
    assert_eq!(agent.take_told(), ["stop worker", "start worker"], "the late stop is the first one, come again");
    let standby: ToAgent = AgentStandbyRequest { reqid: id("standby") }.into();
    for order in [standby.clone(), standby] {
        agent.order(order);
        agent.obey_all();
    }
    assert_eq!((agent.answered(), agent.take_told()), (vec!["standby".to_owned(); 2], vec!["stop worker".to_owned()]));
}

#[test]
fn a_controller_that_does_not_know_the_hello_is_told_of_at_once() {
    let mut agent = Agent::new();
    let effects = agent.state.step(Event::NotKnown(NotifyAgentHello::KIND), agent.now);
    let [Effect::Refused(reason)] = &effects[..] else { panic!("{effects:?}") };
    assert!(reason.starts_with("it does not know `notify_agent_hello`"), "{reason}");
    assert_eq!(agent.state.step(Event::NotKnown(NotifyLog::KIND), agent.now), []);
}

#[test]
fn a_node_that_cannot_be_asked_says_so_itself_and_the_others_are_not_in_its_way() {
    let mut agent = Agent::running(&[("manager", Role::Manager), ("worker", Role::Worker)]);
    agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::from([node_name("worker")]) });
    agent.obey_all();
    agent.mail.clear();
    let down = "worker: cluster node worker not in running state";
    let unasked = "manager: this release cannot ask a Zeek node";
    for (number, (action, nodes, want)) in (0..).zip([
        (&["get_id_value", "x"][..], &[][..], &[unasked, down][..]),
        (&["get_id_value", "x"], &["worker", "elsewhere"], &[down]),
        (&["get_id_value"], &["manager"], &["manager: get_id_value expects name of global identifier"]),
        (&["sing"], &["manager"], &["manager: dispatch sing unknown"]),
        (&[], &["manager"], &["manager: no dispatch arguments provided"]),
    ]) {
        let action = action.iter().map(|&word| word.to_owned()).collect();
        let nodes = nodes.iter().map(|name| node_name(name)).collect();
        agent.order(NodeDispatchRequest { reqid: id(&format!("ask-{number}")), action, nodes });
        let Some(ToController::NodeDispatchResponse(got)) = agent.mail.pop() else { panic!("{:?}", agent.mail) };
        let got: Vec<_> =
            got.answers.iter().map(|it| format!("{}: {}", it.node, it.value.clone().unwrap_err())).collect();
        assert_eq!(got, want);
    }
}

/// An agent whose supervisors are this test.
struct Agent {
    state: State,
    now: Now,
    told: Vec<(NodeName, NodeOrder)>,
    /// How much of `told` was obeyed, and how much was taken.
    obeyed: usize,
    taken: usize,
    names: BTreeMap<WardId, NodeName>,
    mail: Vec<ToController>,
    all_stopped: bool,
}

impl Agent {
    fn new() -> Self {
        let instance = InstanceName::new("i").unwrap();
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let mut agent = Self {
            state: State::new(instance, 1, Outbox::new(Bounds::default())),
            now,
            told: Vec::new(),
            obeyed: 0,
            taken: 0,
            names: BTreeMap::new(),
            mail: Vec::new(),
            all_stopped: false,
        };
        agent.link();
        agent
    }

    /// To a controller that has heard nothing of this agent.
    fn link(&mut self) {
        self.step(Event::LinkUp);
        self.order(NewsReceived { epoch: 0, seq: 0, kept: 0 });
    }

    /// With these nodes, all RUNNING.
    fn running(nodes: &[(&str, Role)]) -> Self {
        let mut agent = Self::new();
        agent.order(SetConfigurationRequest { reqid: id("first"), configuration: configuration("c1", nodes).into() });
        agent.obey_all();
        assert_eq!(agent.answered(), ["first"]);
        agent.taken = agent.told.len();
        agent
    }

    fn order(&mut self, order: impl Into<ToAgent>) {
        self.step(Event::Order(order.into()));
    }

    fn step(&mut self, event: Event) {
        for effect in self.state.step(event, self.now) {
            match effect {
                Effect::Supervise(ward, node) => drop(self.names.insert(ward, node.name.clone())),
                Effect::Tell(ward, order) => self.told.push((self.names[&ward].clone(), order)),
                Effect::AllStopped => self.all_stopped = true,
                Effect::EndLink(why) => panic!("{why}"),
                Effect::Enter(..)
                | Effect::Dismiss(..)
                | Effect::ReadOutput(_)
                | Effect::ReadPiece(_)
                | Effect::ReadCrashes(_)
                | Effect::Refused(_)
                | Effect::Remember(_) => {}
            }
        }
        while let Some(mail) = self.state.outgoing() {
            self.mail.extend(mail);
        }
    }

    /// Supervisors do what they were told, until nothing more is told.
    fn obey_all(&mut self) {
        while let Some((name, order)) = self.told.get(self.obeyed).cloned() {
            self.obeyed += 1;
            match order {
                NodeOrder::Start => {
                    self.report(&name, NodeState::Pending, None);
                    self.report(&name, NodeState::Running, None);
                }
                NodeOrder::Stop { ticket, .. } => self.report(&name, NodeState::Stopped, Some(ticket)),
                NodeOrder::Hurry | NodeOrder::Redefine(_) => {}
            }
        }
    }

    fn report(&mut self, node: &NodeName, new: NodeState, ticket: Option<u64>) {
        let pid = (new != NodeState::Stopped).then_some(70);
        self.step(Event::Report(NodeReport { ticket, ..NodeReport::found(node.clone(), new, pid) }));
    }

    /// Time passes, alarm by alarm.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.state.next_alarm().filter(|at| *at <= end) {
            self.now.mono = at;
            self.step(Event::Tick);
        }
        self.now.mono = end;
    }

    /// What supervisors were told since this was asked last.
    fn take_told(&mut self) -> Vec<String> {
        let told = self.told[self.taken..].iter().map(|(node, order)| match order {
            NodeOrder::Start => format!("start {node}"),
            NodeOrder::Stop { .. } => format!("stop {node}"),
            NodeOrder::Hurry => format!("hurry {node}"),
            NodeOrder::Redefine(_) => format!("redefine {node}"),
        });
        let told = told.collect();
        self.taken = self.told.len();
        told
    }

    /// The orders that were answered since this was asked last.
    fn answered(&mut self) -> Vec<String> {
        self.answers().into_iter().map(|(reqid, _)| reqid).collect()
    }

    /// The same, with what was said of each node, or of the instance.
    fn answers(&mut self) -> Vec<(String, Vec<String>)> {
        let words = |outcome: &Outcome| {
            let who = outcome.node.as_ref().map_or("instance".to_owned(), NodeName::to_string);
            format!("{who}: {}", outcome.error.as_deref().unwrap_or("done"))
        };
        let all = std::mem::take(&mut self.mail).into_iter().filter_map(|message| match message {
            ToController::SetConfigurationResponse(answer) => Some((answer.reqid, answer.outcomes)),
            ToController::StartResponse(answer) => Some((answer.reqid, answer.outcomes)),
            ToController::StopResponse(answer) => Some((answer.reqid, answer.outcomes)),
            ToController::RestartResponse(answer) => Some((answer.reqid, answer.outcomes)),
            ToController::AgentStandbyResponse(answer) => Some((answer.reqid, vec![answer.outcome])),
            _ => None,
        });
        all.map(|(reqid, outcomes)| (reqid.to_string(), outcomes.iter().map(words).collect())).collect()
    }
}

fn configuration(id: &str, nodes: &[(&str, Role)]) -> Configuration {
    let instance = InstanceName::new("i").unwrap();
    let mut configuration = Configuration::empty(ConfigurationId::new(id).unwrap());
    configuration.instances = vec![Instance { name: instance.clone(), host: None, port: None }];
    configuration.nodes =
        nodes.iter().map(|(name, role)| Arc::new(Node::new(node_name(name), instance.clone(), *role))).collect();
    configuration
}

fn node_name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

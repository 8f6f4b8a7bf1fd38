mod guessed;
mod steps;

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::outbox::Bounds;
use super::*;
use crate::model::{ConfigurationId, Instance, Packets, RequestId, Role};

mod inspecting;

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
    let told = ["stop worker", "stop worker", "start worker"];
    assert_eq!(
        agent.take_told(),
        told,
        "its supervisor knows that it is for now; once gone, it does what was asked last"
    );
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
    agent.order(SetConfigurationRequest {
        reqid: id("deploy"),
        configuration: configuration("c2", &nodes).into(),
        rest: [].into(),
    });
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
        state: NodeState::Stopped,
        pid: None,
        reason: Text::default(),
        wanted: true,
        guessed: false,
    });
    agent.step(Event::Found(found.collect()));
    assert_eq!(agent.take_told(), ["start b-manager"]);
    agent.obey_all();
    assert_eq!(agent.take_told(), ["start a-worker"]);
}

#[test]
fn who_waits_for_its_next_life_when_its_agent_returns_goes_on_waiting_whatever_is_told_again() {
    let wished = || {
        let mut wished = configuration("c1", &[("worker", Role::Worker), ("other", Role::Worker)]);
        wished.nodes.iter_mut().for_each(|node| Arc::make_mut(node).command = vec!["program".into()]);
        wished
    };
    let set = |reqid: &str, as_id: &str| {
        let configuration = Configuration { id: ConfigurationId::new(as_id).unwrap(), ..wished() }.into();
        SetConfigurationRequest { reqid: id(reqid), configuration, rest: [].into() }
    };
    let mut agent = Agent::new();
    agent.step(Event::WasInForce(wished().id));
    let found = wished().nodes.into_iter().map(|node| {
        let (state, pid) = match node.name.as_str() {
            "worker" => (NodeState::Crashed, None),
            _ => (NodeState::Pending, Some(70)),
        };
        FoundNode { node, state, pid, reason: "exited with status 3".into(), wanted: true, guessed: false }
    });
    agent.step(Event::Found(found.collect()));
    assert_eq!(agent.take_told(), ["start other"], "that others wait until it is ready");
    let state = |agent: &Agent, name: &str| {
        let statuses = agent.state.statuses();
        statuses.into_iter().find(|status| status.node.as_str() == name).unwrap()
    };
    let worker = state(&agent, "worker");
    assert_eq!((worker.state, worker.reason.as_str()), (NodeState::Crashed, "exited with status 3"));
    assert_eq!((state(&agent, "other").state, state(&agent, "other").pid), (NodeState::Pending, Some(70)));
    agent.order(set("again", "c1"));
    assert_eq!(agent.take_told(), [""; 0]);
    agent.order(set("next", "c2"));
    assert_eq!(agent.take_told(), [""; 0], "it is as it was in that");
    // It panics: its successor waits for it, and is told nothing.
    let revived = Event::Revived { node: worker.node, state: NodeState::Crashed, pid: None };
    agent.step(revived);
    assert_eq!(agent.take_told(), [""; 0]);
    agent.order(StartRequest { reqid: id("start"), nodes: [NodeName::new("worker").unwrap()].into() });
    assert_eq!(agent.take_told(), ["start worker"], "somebody asked");
}

#[test]
fn a_configuration_asked_for_again_is_answered_when_it_is_done() {
    let mut agent = Agent::new();
    let request = SetConfigurationRequest {
        reqid: id("deploy"),
        configuration: configuration("c1", &[("worker", Role::Worker)]).into(),
        rest: [].into(),
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
    for (number, (action, nodes, want)) in (0..).zip([
        (&["get_id_value", "x"][..], &["worker", "elsewhere"][..], &[down][..]),
        (&["get_id_value", "no name"], &["worker", "manager"], &["manager: unknown id", "worker: unknown id"]),
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

#[test]
fn nothing_is_stopped_for_a_configuration_that_is_objected_to() {
    let mut agent = Agent::running(&[("manager", Role::Manager), ("worker", Role::Worker)]);
    agent.holds = true;
    let mut wanted =
        configuration("c2", &[("manager", Role::Manager), ("worker", Role::Worker), ("new", Role::Worker)]);
    wanted.zeek.get_or_insert_default().metrics_port = Some(0);
    agent.order(SetConfigurationRequest { reqid: id("second"), configuration: wanted.clone().into(), rest: [].into() });
    let (number, preparation) = agent.preparations.pop().unwrap();
    let looked_at: Vec<_> = preparation.nodes.iter().map(|node| node.name.to_string()).collect();
    assert_eq!(looked_at, ["manager", "new"], "the worker that stays is not looked at");
    assert_eq!(preparation.layout.len(), 3);
    // Asked again, over a new link say: one answer is enough.
    agent.order(SetConfigurationRequest { reqid: id("second"), configuration: wanted.clone().into(), rest: [].into() });
    assert!(agent.preparations.is_empty());
    let what = "line 3: syntax error".to_owned();
    let objection = Objection { node: Some(node_name("new")), what, output: None };
    agent.step(Event::Prepared(number, vec![objection]));
    assert_eq!(agent.answers(), [("second".into(), vec!["new: line 3: syntax error".into()])]);
    assert_eq!(agent.take_told(), [""; 0]);
    assert_eq!(agent.state.statuses().len(), 2, "what is in force stays so");
    // A late finding about it says nothing about the next one.
    wanted.id = ConfigurationId::new("c3").unwrap();
    agent.order(SetConfigurationRequest { reqid: id("third"), configuration: wanted.into(), rest: [].into() });
    agent.step(Event::Prepared(number, Vec::new()));
    assert_eq!(agent.take_told(), [""; 0]);
    agent.step(Event::Prepared(number + 1, Vec::new()));
    agent.obey_all();
    assert_eq!(agent.take_told(), ["stop manager", "redefine manager", "start manager", "start new"]);
    assert_eq!(agent.answered(), ["third"]);
}

#[test]
fn what_is_looked_at_is_given_up_for_what_comes_later() {
    let nodes = [("manager", Role::Manager)];
    let ask = |agent: &mut Agent, reqid: &str, configuration_id: &str| {
        let configuration = configuration(configuration_id, &nodes).into();
        agent.order(SetConfigurationRequest { reqid: id(reqid), configuration, rest: [].into() });
    };
    let mut agent = Agent::new();
    agent.holds = true;
    ask(&mut agent, "first", "c1");
    ask(&mut agent, "second", "c2");
    let newer = "instance: a newer configuration came before it was looked at";
    assert_eq!(agent.answers(), [("first".into(), vec![newer.into()])]);
    agent.order(AgentStandbyRequest { reqid: id("standby") });
    let unneeded = "instance: the instance is not needed any more";
    assert_eq!(
        agent.answers(),
        [("second".into(), vec![unneeded.into()]), ("standby".into(), vec!["instance: done".into()])]
    );
    ask(&mut agent, "third", "c3");
    agent.step(Event::StopAll { for_now: false });
    assert_eq!(agent.answers(), [("third".into(), vec!["instance: its agent is stopping all nodes".into()])]);
    agent.step(Event::Prepared(3, Vec::new()));
    assert_eq!(agent.take_told(), [""; 0]);
}

#[test]
fn what_runs_goes_on_although_there_is_something_to_object() {
    let nodes = [("manager", Role::Manager)];
    let mut agent = Agent::running(&nodes);
    agent.holds = true;
    agent.order(SetConfigurationRequest {
        reqid: id("again"),
        configuration: configuration("c2", &nodes).into(),
        rest: [].into(),
    });
    agent.step(Event::Prepared(2, vec![Objection::of_all("there is no Zeek any more")]));
    let kinds = agent.mail.iter().flat_map(|mail| match mail {
        ToController::News(news) => news.iter().map(|frame| frame.kind).collect(),
        _ => Vec::new(),
    });
    assert_eq!(kinds.filter(|kind| *kind == NotifyError::KIND).count(), 1);
    assert_eq!(agent.answers(), [("again".into(), vec!["manager: done".into()])]);
    assert_eq!(agent.take_told(), [""; 0]);
}

#[test]
fn nodes_that_nobody_could_find_are_refused() {
    let mut agent = Agent::new();
    let mut wanted = configuration("c1", &[("manager", Role::Manager)]);
    let other = InstanceName::new("j").unwrap();
    wanted.instances.push(Instance { name: other.clone(), host: Some([10, 0, 0, 2].into()), port: None });
    let (name, role) = (node_name("worker"), Role::Worker);
    wanted.peers.push(Peer { name, instance: other, role, port: None, metrics_port: None });
    agent.order(SetConfigurationRequest { reqid: id("first"), configuration: wanted.into(), rest: [].into() });
    let answers = agent.answers();
    assert!(answers[0].1[0].starts_with("instance: nobody knows the address of instance 'i'"), "{answers:?}");
}

/// An agent whose supervisors are this test.
#[test]
fn the_last_status_of_a_process_is_told_and_goes_with_it() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    let told = |agent: &mut Agent| -> Vec<String> {
        let mail = std::mem::take(&mut agent.mail).into_iter();
        mail.filter_map(|message| match message {
            ToController::NotifyStatus(NotifyStatus { node, pid, says, .. }) => Some(format!("{node} {pid} {says}")),
            _ => None,
        })
        .collect()
    };
    let says = |words: &str| Event::Says(node_name("worker"), words.into());
    let last = agent.state.outbox().last();
    agent.step(says("busy"));
    assert_eq!(told(&mut agent), ["worker 70 busy"]);
    assert_eq!(agent.state.outbox().last(), last, "it is no news that anybody keeps");
    agent.step(Event::Says(node_name("nobody"), "busy".into()));
    agent.step(Event::LinkDown);
    agent.step(says("busier"));
    assert_eq!((told(&mut agent), agent.state.statuses()[0].says.as_str()), (vec![], "busier"));
    agent.report(&node_name("worker"), NodeState::Crashed, None);
    assert_eq!(agent.state.statuses()[0].says.as_str(), "");
    agent.step(says("late"));
    assert_eq!(agent.state.statuses()[0].says.as_str(), "", "it has no process that could say it");
}

#[test]
fn what_a_zeek_node_counts_is_told_and_goes_with_its_process() {
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    let counted = |dropped| NetStats {
        time: Timestamp(9),
        total: Packets { received: 1000, dropped },
        lately: Packets { received: 10, dropped },
        over: Duration::from_secs(60),
        link: 0,
        bytes: 0,
        memory: 0,
        events: 0,
    };
    let counts = |dropped| Event::Counts(node_name("worker"), Box::new(counted(dropped)));
    agent.mail.clear();
    let last = agent.state.outbox().last();
    agent.step(counts(10));
    let told = std::mem::take(&mut agent.mail);
    let want: ToController = NotifyNetStats {
        instance: agent.state.instance().clone(),
        node: node_name("worker"),
        pid: 70,
        netstats: counted(10),
    }
    .into();
    assert!(told.contains(&want), "{told:?}");
    assert_eq!(agent.state.outbox().last(), last + 1, "that it loses half of them is news");
    agent.step(Event::LinkDown);
    agent.step(counts(11));
    assert_eq!((agent.mail.len(), agent.state.statuses()[0].netstats.as_deref()), (0, Some(&counted(11))));
    agent.report(&node_name("worker"), NodeState::Crashed, None);
    agent.step(counts(12));
    assert_eq!(agent.state.statuses()[0].netstats, None, "it has no process that could count");
}

#[test]
fn what_a_zeek_node_leaves_open_of_its_logs_is_moved_only_while_it_is_down() {
    // Its configuration says no command.
    let mut agent = Agent::running(&[("worker", Role::Worker)]);
    let (node, now) = (node_name("worker"), agent.now);
    let mut report = |new, pid| agent.state.step(Event::Report(NodeReport::found(node.clone(), new, pid)), now);
    let minds = |is_up| vec![Effect::MindLogs { node: node_name("worker"), is_up }];
    assert_eq!(report(NodeState::Crashed, Some(70)), minds(false));
    assert_eq!(report(NodeState::Pending, None), [], "nothing writes yet");
    assert_eq!(report(NodeState::Pending, Some(71)), minds(true));
    assert_eq!(report(NodeState::Failed, None), minds(false));
}

#[test]
fn zeek_nodes_that_run_are_asked_and_all_answers_go_back_together() {
    let mut agent = Agent::running(&[("manager", Role::Manager), ("worker", Role::Worker)]);
    agent.order(StopRequest { reqid: id("stop"), nodes: BTreeSet::from([node_name("worker")]) });
    agent.obey_all();
    agent.mail.clear();
    let action = ["get_id_value", "Site::local_nets"].map(str::to_owned).into();
    agent.order(NodeDispatchRequest { reqid: id("ask"), action, nodes: BTreeSet::new() });
    let inquiry = agent.inquiries.pop().unwrap();
    assert_eq!((inquiry.question.as_str(), inquiry.asked.len()), ("get_id_value Site::local_nets", 1));
    assert_eq!(agent.mail, []);
    let answer = |name: &str, value: Result<&str, &str>| NodeAnswer {
        node: node_name(name),
        value: value.map(str::to_owned).map_err(str::to_owned),
    };
    let down = answer("worker", Err("cluster node worker not in running state"));
    assert_eq!(inquiry.known, std::slice::from_ref(&down));
    agent.state.answer_inquiry(inquiry.reqid, vec![down.clone(), answer("manager", Ok("[]"))]);
    agent.step(Event::Tick);
    let answers = vec![answer("manager", Ok("[]")), down];
    assert_eq!(agent.mail, [NodeDispatchResponse { reqid: id("ask"), answers }.into()]);
}

struct Agent {
    state: State,
    inquiries: Vec<Inquiry>,
    now: Now,
    told: Vec<(NodeName, NodeOrder)>,
    /// How much of `told` was obeyed, and how much was taken.
    obeyed: usize,
    taken: usize,
    names: BTreeMap<WardId, NodeName>,
    mail: Vec<ToController>,
    all_stopped: bool,
    /// What is to be looked at: at once and without an objection, unless it is held.
    preparations: Vec<(u64, Preparation)>,
    holds: bool,
    /// By which files nodes are to be launched, each time that was said.
    files: Vec<Option<u64>>,
    /// By which files which nodes are launched before it is decided.
    tried: Vec<(u64, BTreeSet<NodeName>)>,
}

impl Agent {
    fn new() -> Self {
        let instance = InstanceName::new("i").unwrap();
        let now = Now { mono: Instant::now(), wall: Timestamp(0) };
        let mut agent = Self {
            inquiries: Vec::new(),
            state: State::new(instance, 1, Outbox::new(Bounds::default())),
            now,
            told: Vec::new(),
            obeyed: 0,
            taken: 0,
            names: BTreeMap::new(),
            mail: Vec::new(),
            all_stopped: false,
            preparations: Vec::new(),
            holds: false,
            files: Vec::new(),
            tried: Vec::new(),
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
        agent.order(SetConfigurationRequest {
            reqid: id("first"),
            configuration: configuration("c1", nodes).into(),
            rest: [].into(),
        });
        agent.obey_all();
        assert_eq!(agent.answered(), ["first"]);
        agent.taken = agent.told.len();
        agent.preparations.clear();
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
                Effect::Prepare(number, preparation) => {
                    self.preparations.push((number, *preparation));
                    if !self.holds {
                        self.step(Event::Prepared(number, Vec::new()));
                    }
                }
                Effect::Inspect(number, _) if !self.holds => self.step(Event::Inspected(number, Vec::new())),
                Effect::Inspect(..) => {}
                Effect::EndLink(why) => panic!("{why}"),
                Effect::Inquire(inquiry) => self.inquiries.push(inquiry),
                Effect::Define(..)
                | Effect::Dismiss(..)
                | Effect::ReadOutput(_)
                | Effect::ReadPiece(_)
                | Effect::ReadCrashes(_)
                | Effect::Refused(_)
                | Effect::MindLogs { .. }
                | Effect::Stage(_)
                | Effect::KeepFiles { .. }
                | Effect::Archive(_)
                | Effect::Remember(_) => {}
                Effect::TryFiles(number, nodes) => self.tried.push((number, nodes)),
                Effect::UseFiles(number) => self.files.push(number),
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
            ToController::SwitchNodesResponse(answer) => Some((answer.reqid, answer.outcomes)),
            ToController::RestoreConfigurationResponse(answer) => Some((answer.reqid, answer.outcomes)),
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

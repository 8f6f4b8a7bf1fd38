//! What becomes of the path when one of its actors panics.

use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{AgentOptions, ControllerOptions, join, start_agent, start_controller};
use crate::agent::{Agent, AgentEvent, StopAllNodes};
use crate::controller::{Controller, ControllerGone};
use crate::message::client::{News, NewsBatch, RestartRequest, SetConfigurationRequest, Subscribe, Terms};
use crate::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Liveness, Node, NodeName, NodeState, Probe, ProbeBy,
    RequestId, Role,
};

/// Makes the actor that gets it panic.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

/// Makes the supervisor of this node panic.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PanicOf(pub NodeName);

/// Longer than anything here takes on a slow machine.
const LONG: Duration = Duration::from_secs(30);

/// A controller and an agent, one node that sleeps, and everything they tell.
struct Path {
    controller: Addr<Controller>,
    agent: Addr<Agent>,
    told: mpsc::UnboundedReceiver<Told>,
    _state: tempfile::TempDir,
}

#[derive(Debug, PartialEq)]
enum Told {
    Change(NodeState, Option<u32>),
    Error(String),
    AgentGone,
    ControllerGone,
}

struct Ear(mpsc::UnboundedSender<Told>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Ear {
    type Result = ();
    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        for entry in batch.entries {
            let told = match &entry.news {
                News::Change(change) => Told::Change(change.new, change.pid),
                News::Error(error) => Told::Error(error.msg.clone()),
                _ => continue,
            };
            self.0.send(told).unwrap();
        }
    }
}

impl Handler<AgentEvent> for Ear {
    type Result = ();
    fn handle(&mut self, event: AgentEvent, _: &mut Context<Self>) {
        if event == AgentEvent::Gone {
            self.0.send(Told::AgentGone).unwrap();
        }
    }
}

impl Handler<ControllerGone> for Ear {
    type Result = ();
    fn handle(&mut self, _: ControllerGone, _: &mut Context<Self>) {
        self.0.send(Told::ControllerGone).unwrap();
    }
}

impl Path {
    async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    async fn open_with(change: impl FnOnce(&mut Node)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let ear = Ear(tell).start();
        let here = InstanceName::new("here").unwrap();
        let mut options = ControllerOptions::new(InstanceName::new("controller").unwrap(), state.path());
        options.host = Some(ear.clone().recipient());
        let controller = start_controller(options).unwrap();
        let mut options = AgentOptions::new(here.clone(), state.path().join("nodes"));
        options.host = Some(ear.clone().recipient());
        let agent = start_agent(options).unwrap();
        join(&controller, &agent, &here);
        controller.send(Subscribe { since: None, to: ear.recipient() }).await.unwrap().unwrap();

        let mut node = Node::new(sleeper(), here.clone(), Role::None);
        node.command = vec!["/bin/sh".into(), "-c".into(), "exec sleep 1000".into()];
        change(&mut node);
        let instances = vec![Instance { name: here, host: None, port: None }];
        let id = ConfigurationId::new("one").unwrap();
        let configuration = Configuration { instances, nodes: vec![node.into()], ..Configuration::empty(id) };
        let reqid = RequestId::new("set").unwrap();
        let answer = controller
            .send(SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() })
            .await
            .unwrap()
            .unwrap();
        assert!(answer.outcomes.iter().all(crate::model::Outcome::is_success), "{answer:?}");
        Self { controller, agent, told, _state: state }
    }

    async fn hear(&mut self, what: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = timeout(LONG, self.told.recv()).await.expect("told in time").expect("an ear");
            if what(&told) {
                return told;
            }
        }
    }

    async fn running(&mut self) -> u32 {
        match self.hear(|told| matches!(told, Told::Change(NodeState::Running, _))).await {
            Told::Change(_, Some(pid)) => pid,
            other => panic!("{other:?}"),
        }
    }
}

fn sleeper() -> NodeName {
    NodeName::new("sleeper").unwrap()
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[actix_rt::test]
async fn wavelength_1123_a_supervisor_that_panics_is_replaced_and_its_process_minded_on() {
    let mut path = Path::open().await;
    let pid = path.running().await;
    path.agent.send(PanicOf(sleeper())).await.unwrap();
    path.hear(|told| matches!(told, Told::Error(msg) if msg.contains("its supervisor panicked"))).await;
    assert!(exists(pid), "the process is the same");

    // The new supervisor hears of its end as the old one would have.
    let number = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    path.hear(|told| *told == Told::Change(NodeState::Crashed, Some(pid))).await;
    let next = path.running().await;
    assert_ne!(next, pid);
    path.agent.send(StopAllNodes).await.unwrap();
    assert!(!exists(next));
}

#[actix_rt::test]
async fn a_supervisor_that_panics_while_its_node_waits_for_its_next_life_is_followed_by_one_that_waits_for_the_rest() {
    let delay = Duration::from_secs(1);
    let mut path = Path::open_with(|node| (node.restart.delay, node.restart.jitter) = (delay, 0)).await;
    let mut died = Instant::now();
    for _ in 0..2 {
        let pid = path.running().await;
        died = Instant::now();
        let number = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
        path.hear(|told| *told == Told::Change(NodeState::Crashed, Some(pid))).await;
    }
    path.agent.send(PanicOf(sleeper())).await.unwrap();
    path.hear(|told| matches!(told, Told::Error(msg) if msg.contains("its supervisor panicked"))).await;
    let next = path.hear(|told| matches!(told, Told::Change(..))).await;
    assert!(matches!(next, Told::Change(NodeState::Pending, Some(_))), "and nothing else is told of it: {next:?}");
    assert!(died.elapsed() >= delay, "the first restart alone is immediate, whoever minds it");
    path.agent.send(StopAllNodes).await.unwrap();
}

#[actix_rt::test]
async fn whoever_a_supervisor_that_panicked_had_asked_does_not_answer_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let asked = home.path().join("asked");
    // The first one hangs, and all others find that the node is well.
    let script = format!("echo >> {0}; test $(wc -l < {0}) -gt 1 || exec sleep 1000", asked.display());
    let probe = Probe {
        by: ProbeBy::Exec(vec!["/bin/sh".into(), "-c".into(), script]),
        interval: Duration::from_millis(100),
        timeout: LONG,
        failures: 1,
    };
    let liveness = Liveness { watchdog: None, probe: Some(probe) };
    let mut path = Path::open_with(|node| node.liveness = Some(Box::new(liveness))).await;
    let pid = path.running().await;
    let is_asked = async |times: usize| {
        let many = async || {
            while std::fs::read(&asked).map_or(0, |lines| lines.len()) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, many()).await.expect("asked in time");
    };
    is_asked(1).await;
    path.agent.send(PanicOf(sleeper())).await.unwrap();
    path.hear(|told| matches!(told, Told::Error(msg) if msg.contains("its supervisor panicked"))).await;
    is_asked(4).await;
    while let Ok(told) = path.told.try_recv() {
        assert!(!matches!(told, Told::Change(NodeState::Crashed | NodeState::Failed, _)), "{told:?}");
    }
    assert!(exists(pid), "the process is the same");
    path.agent.send(StopAllNodes).await.unwrap();
}

#[actix_rt::test]
async fn an_agent_that_panics_tells_its_host_and_leaves_its_nodes_alone() {
    let mut path = Path::open().await;
    let pid = path.running().await;
    path.agent.do_send(Panic);
    path.hear(|told| *told == Told::AgentGone).await;
    assert!(exists(pid));
    let number = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
}

#[actix_rt::test]
async fn a_controller_that_panics_tells_its_host_and_the_agent_goes_on() {
    let mut path = Path::open().await;
    let pid = path.running().await;
    path.controller.do_send(Panic);
    path.hear(|told| *told == Told::ControllerGone).await;
    assert!(exists(pid));
    path.agent.send(StopAllNodes).await.unwrap();
    assert!(!exists(pid));
}

#[actix_rt::test]
async fn a_client_that_asks_twice_is_answered_twice_and_obeyed_once() {
    let mut path = Path::open().await;
    let first = path.running().await;
    let restart = |reqid| RestartRequest { reqid: RequestId::new(reqid).unwrap(), nodes: [sleeper()].into() };
    let both = futures_util::future::join(path.controller.send(restart("r")), path.controller.send(restart("r"))).await;
    let (one, other) = (both.0.unwrap().unwrap(), both.1.unwrap().unwrap());
    assert!(one == other && one.outcomes.iter().all(crate::model::Outcome::is_success), "{one:?}, {other:?}");
    let second = path.running().await;
    assert_ne!(first, second);
    assert_eq!(path.controller.send(restart("r")).await.unwrap().unwrap(), one, "and so is who asks later");
    assert!(exists(second));
    // Another request is another restart, and the next thing that happens.
    path.controller.send(restart("s")).await.unwrap().unwrap();
    path.hear(|told| *told == Told::Change(NodeState::Stopped, Some(second))).await;
    path.running().await;
    path.agent.send(StopAllNodes).await.unwrap();
}

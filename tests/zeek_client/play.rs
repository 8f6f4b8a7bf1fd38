//! A controller in this process, with agents that do as the test says: what no real node of today can do, or not in time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use tempfile::TempDir;
use tokio::sync::oneshot;
use watchpost::bridge::{EndLink, Features, LinkDown, LinkId, LinkUp, Mail, Peer};
use watchpost::controller::Controller;
use watchpost::message::agent::*;
use watchpost::model::*;
use watchpost::plan::PortRules;
use watchpost::run::{ControllerOptions, start_controller};
use watchpost::web::management::{self, ManagementSettings, Port};

use crate::run::Client;

/// What an agent does.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// Where the controller has dialled it; `None`: it has dialled the controller.
    pub dialled: Option<u16>,
    /// What it says nothing to.
    pub deaf_to: BTreeSet<&'static str>,
    /// It switches new nodes when their turn comes, and not all of them when the configuration comes into force.
    pub one_by_one: bool,
    /// Nodes that do not come up, and what they wrote.
    pub broken: BTreeMap<&'static str, (&'static str, &'static str)>,
    /// The values of identifiers, and why others have none.
    pub values: BTreeMap<&'static str, Result<&'static str, &'static str>>,
}

/// The controller while it plays.
pub struct Play {
    address: SocketAddr,
    agents: BTreeMap<String, Addr<Agent>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    _directory: TempDir,
}

/// How the controller plays.
#[derive(Debug, Clone)]
pub struct Rules {
    pub answer_within: Duration,
    pub request_timeout: Duration,
    pub ports: PortRules,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(19),
            request_timeout: Duration::from_secs(10),
            ports: PortRules::default(),
        }
    }
}

impl Play {
    /// A controller with these agents.
    pub fn start(agents: &[(&str, Manners)]) -> Self {
        Self::start_by(Rules::default(), agents)
    }

    pub fn start_by(rules: Rules, agents: &[(&str, Manners)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_owned();
        let agents: Vec<_> = agents.iter().map(|(name, manners)| ((*name).to_owned(), manners.clone())).collect();
        let (started, start) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let name = InstanceName::new("controller").unwrap();
                let controller = start_controller(ControllerOptions {
                    ports: rules.ports,
                    request_timeout: rules.request_timeout,
                    dialler: Some(Dials.start().recipient()),
                    ..ControllerOptions::new(name, home)
                });
                let controller = controller.unwrap();
                let management = ManagementSettings {
                    name: "controller".into(),
                    answer_within: rules.answer_within,
                    ports: rules.ports,
                };
                let port = Port { management, own_hostname: "here".into(), hosts: Vec::new(), tls: None };
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let server = management::serve(listener, controller.clone(), port).unwrap();
                let agents = agents.into_iter().map(|(name, manners)| {
                    let agent = Agent::start_for(&controller, &name, manners);
                    (name, agent)
                });
                started.send((server.address(), agents.collect())).unwrap();
                let _ = stopped.await;
                server.join().unwrap();
            });
        });
        let (address, agents) = start.recv().unwrap();
        let play = Self { address, agents, stop: Some(stop), thread: Some(thread), _directory: directory };
        play.client().wait_for_instances(play.agents.len());
        play
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// This agent tells something.
    pub fn tell(&self, agent: &str, news: impl Into<ToController>) {
        self.agents[agent].do_send(Tell(news.into()));
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

/// Whoever is to be dialled is there already.
struct Dials;

impl Actor for Dials {
    type Context = Context<Self>;
}

impl Handler<watchpost::controller::DialInstance> for Dials {
    type Result = ();
    fn handle(&mut self, _: watchpost::controller::DialInstance, _: &mut Context<Self>) {}
}

struct Agent {
    name: InstanceName,
    manners: Manners,
    controller: Addr<Controller>,
    link: LinkId,
    nodes: BTreeMap<NodeName, NodeStatus>,
    checked: Option<Share>,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Tell(ToController);

impl Agent {
    fn start_for(controller: &Addr<Controller>, name: &str, manners: Manners) -> Addr<Self> {
        static LINKS: AtomicU64 = AtomicU64::new(1);
        let (link, name) = (LinkId(LINKS.fetch_add(1, Ordering::Relaxed)), InstanceName::new(name).unwrap());
        let host = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let features = Features::NONE;
        let peer = Peer { name: name.to_string(), host, dialled: manners.dialled, features, certificate: None };
        let hello = NotifyAgentHello {
            instance: name.clone(),
            host: None,
            api_version: API_VERSION,
            version: "0.1.0".into(),
            epoch: link.0,
            run: link.0,
            place: 0,
            abilities: watchpost::model::Abilities::untried(),
        };
        let (nodes, checked) = (BTreeMap::new(), None);
        let agent = Self { name, manners, controller: controller.clone(), link, nodes, checked }.start();
        let (out, end) = (agent.clone().recipient(), agent.clone().recipient());
        controller.do_send(LinkUp { link, peer, out, end });
        controller.do_send(Mail { link, messages: vec![hello.into()] });
        agent
    }

    fn say(&self, message: impl Into<ToController>) {
        self.controller.do_send(Mail { link: self.link, messages: vec![message.into()] });
    }

    fn is_deaf_to(&self, what: &str) -> bool {
        self.manners.deaf_to.contains(what)
    }

    fn configure(&mut self, SetConfigurationRequest { reqid, configuration, .. }: SetConfigurationRequest) {
        let configuration = configuration.open();
        let status = |node: &Node| NodeStatus {
            node: node.name.clone(),
            instance: self.name.clone(),
            role: node.role,
            state: NodeState::Running,
            pid: Some(70),
            port: node.port,
            metrics_port: node.metrics_port,
            restarts: 0,
            since: Timestamp(0),
            reason: "ready".into(),
            says: "".into(),
            netstats: None,
        };
        self.nodes = configuration.nodes.iter().map(|node| (node.name.clone(), status(node))).collect();
        let mut outcomes: Vec<_> = self.nodes.keys().map(|node| self.outcome(node)).collect();
        if outcomes.is_empty() {
            outcomes.push(Outcome::instance_done(&self.name));
        }
        self.say(SetConfigurationResponse { reqid, outcomes });
    }

    fn outcome(&self, node: &NodeName) -> Outcome {
        match self.manners.broken.get(node.as_str()) {
            None => Outcome::node_done(&self.name, node),
            Some((stdout, stderr)) => {
                let output = Output { stdout: (*stdout).into(), stderr: (*stderr).into() };
                Outcome::node_failed(&self.name, node, "exited with status 1".into(), Some(output))
            }
        }
    }

    fn named(&self, nodes: &BTreeSet<NodeName>) -> Vec<NodeName> {
        self.nodes.keys().filter(|node| nodes.is_empty() || nodes.contains(*node)).cloned().collect()
    }

    fn dispatch(&self, NodeDispatchRequest { reqid, action, nodes }: NodeDispatchRequest) {
        let value = self.manners.values.get(action[1].as_str()).copied().unwrap_or(Err("unknown id"));
        let value = value.map(str::to_owned).map_err(str::to_owned);
        let answer = |node| NodeAnswer { node, value: value.clone() };
        let answers = self.named(&nodes).into_iter().map(answer).collect();
        self.say(NodeDispatchResponse { reqid, answers });
    }
}

impl Actor for Agent {
    type Context = Context<Self>;
}

impl Handler<Mail<ToAgent>> for Agent {
    type Result = ();

    fn handle(&mut self, mail: Mail<ToAgent>, _: &mut Context<Self>) {
        for message in mail.messages {
            let done = Outcome::instance_done(&self.name);
            match message {
                ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => {
                    self.say(AgentWelcomeResponse { reqid, outcome: done });
                }
                ToAgent::AgentStandbyRequest(AgentStandbyRequest { reqid }) => {
                    self.nodes.clear();
                    self.say(AgentStandbyResponse { reqid, outcome: done });
                }
                ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, configuration }) => {
                    // Whatever else it changes it changes when all of it comes into force.
                    let new = configuration
                        .clone()
                        .open()
                        .nodes
                        .into_iter()
                        .filter(|node| self.manners.one_by_one && !self.nodes.contains_key(&node.name));
                    let changes = new.map(|node| CheckedChange {
                        node: node.name.clone(),
                        role: node.role,
                        runs: false,
                        shares: None,
                    });
                    let changes = changes.collect();
                    self.checked = Some(configuration);
                    self.say(CheckConfigurationResponse { reqid, outcomes: vec![done], changes });
                }
                ToAgent::SwitchNodesRequest(SwitchNodesRequest { reqid, nodes, .. }) => {
                    let outcomes = nodes.iter().map(|node| self.outcome(node)).collect();
                    self.say(SwitchNodesResponse { reqid, outcomes });
                }
                ToAgent::RestoreConfigurationRequest(RestoreConfigurationRequest { reqid, .. }) => {
                    self.say(RestoreConfigurationResponse { reqid, outcomes: vec![done], waiting: Vec::new() });
                }
                ToAgent::CommitConfigurationRequest(CommitConfigurationRequest { reqid, .. })
                    if !self.is_deaf_to("deploy") =>
                {
                    if let Some(configuration) = self.checked.take() {
                        self.configure(SetConfigurationRequest { reqid, configuration, rest: [].into() });
                    }
                }
                ToAgent::SetConfigurationRequest(request) if !self.is_deaf_to("deploy") => self.configure(request),
                ToAgent::GetNodesRequest(GetNodesRequest { reqid }) if !self.is_deaf_to("get_nodes") => {
                    let nodes = self.nodes.values().cloned().collect();
                    self.say(GetNodesResponse { reqid, pid: Some(7), nodes });
                }
                ToAgent::RestartRequest(RestartRequest { reqid, nodes }) if !self.is_deaf_to("restart") => {
                    let outcomes = self.named(&nodes).iter().map(|node| self.outcome(node)).collect();
                    self.say(RestartResponse { reqid, outcomes });
                }
                ToAgent::NodeDispatchRequest(request) if !self.is_deaf_to("dispatch") => self.dispatch(request),
                _ => {}
            }
        }
    }
}

impl Handler<EndLink> for Agent {
    type Result = ();
    fn handle(&mut self, EndLink { reason, .. }: EndLink, _: &mut Context<Self>) {
        self.controller.do_send(LinkDown { link: self.link, reason });
    }
}

impl Handler<Tell> for Agent {
    type Result = ();
    fn handle(&mut self, Tell(message): Tell, _: &mut Context<Self>) {
        self.say(message);
    }
}

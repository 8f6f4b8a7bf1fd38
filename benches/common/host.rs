//! Many agents on one machine, in one process, which is this program started again, and their controller and an observer on
//! a thread of their own: what is deployed to them goes over a link for each.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::oneshot;
use watchpost::agent::StopAllNodes;
use watchpost::bridge::{LinkRole, LinkSettings};
use watchpost::controller::Controller;
use watchpost::message::client::{Entry, GetInstancesRequest, NewsBatch, SetConfigurationRequest, Subscribe, Terms};
use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, Ready, ReadyBy, RequestId, Role,
};
use watchpost::run::{AgentBridge, AgentOptions, ControllerBridge, ControllerOptions, start_agent, start_controller};
use watchpost::supervisor::process::tree;

use super::cluster::name;
use super::figures::now;
use super::nursery::{Nursery, PATIENCE};

/// The argument by which this program is all of the agents.
const AGENTS: &str = "--be-many-agents";

/// Dropping it stops every node and ends all actors.
pub struct Host {
    controller: Addr<Controller>,
    news: Receiver<Arc<Entry>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    agents: Child,
    count: usize,
    asked: usize,
}

impl Host {
    /// Starts so many agents, and waits until all of them are linked. There are no nodes yet.
    pub fn start(nursery: &Nursery, agents: usize) -> Self {
        let home = tempfile::Builder::new().prefix("host").tempdir_in(nursery.directory()).expect("a directory").keep();
        let ((tell, news), (started, start)) = (mpsc::channel(), mpsc::channel());
        let (end, ended) = oneshot::channel();
        let nodes = home.join("nodes");
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let options = ControllerOptions::new(name("control", InstanceName::new), &home);
                let controller = start_controller(options).expect("a controller");
                let observer = Observer { tell }.start().recipient();
                let subscribed = controller.send(Subscribe { since: None, to: observer }).await;
                subscribed.expect("a live controller").expect("an answer");
                let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
                let address = socket.local_addr().expect("an address");
                let link = LinkSettings::new(LinkRole::Controller, "control", "bench");
                let _listener = ControllerBridge::accept(socket, link, &controller).expect("a listener");
                started.send((controller, address)).expect("a caller");
                let _ = ended.await;
            });
        });
        let (controller, address) = start.recv_timeout(PATIENCE).expect("the controller starts");
        let agents_alone = spawn_agents(address, &nodes, agents);
        let mut host = Self {
            controller,
            news,
            end: Some(end),
            thread: Some(thread),
            agents: agents_alone,
            count: agents,
            asked: 0,
        };
        while host.connected() < agents {
            // An agent that comes says so in the log.
            host.news.recv_timeout(PATIENCE).expect("agents come");
        }
        host
    }

    fn connected(&mut self) -> usize {
        let request = GetInstancesRequest { reqid: name(&self.next_id(), RequestId::new) };
        ask(&self.controller, request).expect("an answer").instances.len()
    }

    /// Deploys so many nodes, the same number to each agent, and waits for the answer. When it was asked for and when it
    /// was answered, by the monotonic clock, in nanoseconds.
    pub fn deploy(&mut self, nursery: &Nursery, nodes: usize) -> (u64, u64) {
        let configuration = configuration(&self.next_id(), nursery, self.count, nodes);
        let reqid = name(&self.next_id(), RequestId::new);
        let request = SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() };
        let began = now();
        let answer = ask(&self.controller, request).expect("an answer");
        let ended = now();
        let failed: Vec<_> = answer.outcomes.iter().filter(|outcome| !outcome.is_success()).collect();
        assert!(failed.is_empty() && answer.configuration.is_some(), "{failed:?}");
        (began, ended)
    }

    /// What the observer has heard since it was asked last, up to the first entry that `is_last`.
    pub fn heard(&self, is_last: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|entry: &Arc<Entry>| is_last(entry)) {
            heard.push(self.news.recv_timeout(PATIENCE).expect("it is told"));
        }
        heard
    }

    fn next_id(&mut self) -> String {
        self.asked += 1;
        format!("ask-{}", self.asked)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.agents.stdin.take()); // which it takes for the order to stop all nodes and end
        let _ = self.agents.wait();
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Becomes all of the agents, if this process was started to be them.
pub fn be_many_agents_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(AGENTS) {
        return;
    }
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic!("no {what}"));
    let (address, nodes, count) = (next("address"), next("directory"), next("number of agents"));
    let address: SocketAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a number");
    tree::become_subreaper().expect("a word to the kernel");
    actix::System::new().block_on(async move {
        let mut agents = Vec::new();
        for number in 0..count {
            let (own, home) = (instance(number), Path::new(&nodes).join(number.to_string()));
            // Where the rest is: else sockets would be made on whatever disk /run is on, if it is on one.
            let run_dir = Some(home.join("run"));
            let options = AgentOptions { run_dir, ..AgentOptions::new(own.clone(), home.join("nodes")) };
            let agent = start_agent(options).expect("an agent");
            let link = LinkSettings::new(LinkRole::Agent, own.as_str(), "bench");
            let bridge = AgentBridge::open(&agent, &link, None, Some(address.into())).expect("a dialler");
            agents.push((agent, bridge));
        }
        let (gone, is_gone) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = gone.send(());
        });
        let _ = is_gone.await;
        for (agent, _) in &agents {
            agent.send(StopAllNodes).await.expect("a live agent");
        }
    });
    std::process::exit(0);
}

fn spawn_agents(address: SocketAddr, nodes: &Path, count: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let command = command.arg(AGENTS).arg(address.to_string()).arg(nodes).arg(count.to_string());
    command.stdin(Stdio::piped()).spawn().expect("this program again")
}

fn instance(number: usize) -> InstanceName {
    name(&format!("sensor-{number:02}"), InstanceName::new)
}

/// Nodes of one role that are ready at once and do nothing, as many on each instance.
fn configuration(id: &str, nursery: &Nursery, agents: usize, nodes: usize) -> Configuration {
    let node = |number: usize| {
        let mut node = Node::new(name(&format!("node-{number}"), NodeName::new), instance(number % agents), Role::None);
        node.command = nursery.command(number);
        node.restart.stable = Duration::from_millis(1);
        node.ready = Ready { by: ReadyBy::Settle(Duration::ZERO), within: Some(PATIENCE) };
        node.stop_grace = PATIENCE;
        Arc::new(node)
    };
    Configuration {
        id: name(id, ConfigurationId::new),
        instances: (0..agents).map(|of| Instance { name: instance(of), host: None, port: None }).collect(),
        nodes: (0..nodes).map(node).collect(),
        zeek: None,
        peers: Vec::new(),
        keys: None,
    }
}

fn ask<M>(controller: &Addr<Controller>, request: M) -> M::Result
where
    M: Message + Send + 'static,
    M::Result: Send,
    Controller: Handler<M>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(controller.send(request)).expect("a live controller")
}

struct Observer {
    tell: Sender<Arc<Entry>>,
}

impl Actor for Observer {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Observer {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        for entry in batch.entries {
            let _ = self.tell.send(entry); // nobody looks any more
        }
    }
}

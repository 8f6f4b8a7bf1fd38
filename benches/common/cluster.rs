//! A controller, an agent and an observer on a thread of their own: the agent beside the controller, or behind a
//! bridge in another process, which is this program started again.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::oneshot;
use watchpost::agent::{Agent, StopAllNodes};
use watchpost::bridge::{LinkRole, LinkSettings};
use watchpost::controller::Controller;
use watchpost::message::agent::NotifyChange;
use watchpost::message::client::{News, NewsBatch, SetConfigurationRequest, StopRequest, Subscribe};
use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, NodeState, Ready, ReadyBy, RequestId, Role,
};
use watchpost::run::{
    AgentBridge, AgentOptions, ControllerBridge, ControllerOptions, join, start_agent, start_controller,
};
use watchpost::supervisor::process::tree;

use super::figures::now;
use super::nursery::{Nursery, PATIENCE};

/// The argument by which this program is an agent.
const AGENT: &str = "--be-an-agent";
const INSTANCE: &str = "sensor";

/// Where the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the controller's arbiter.
    Beside,
    /// In another process, over TCP.
    Remote,
    /// The same, and what the allocator keeps for each thread to have again at once does not count as in use.
    Weighed,
}

/// A change, as an observer of the controller saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When, by the monotonic clock, in nanoseconds.
    pub at: u64,
    pub change: NotifyChange,
}

/// Dropping it stops every node and ends both actors.
pub struct Cluster {
    controller: Addr<Controller>,
    seen: Receiver<Seen>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    remote: Option<Child>,
    /// Where a remote agent dials, and where its nodes are.
    way: Option<(SocketAddr, PathBuf)>,
    place: Place,
    asked: usize,
}

impl Cluster {
    /// Starts both and waits until they are linked. There are no nodes yet.
    pub fn start(nursery: &Nursery, place: Place) -> Self {
        let home =
            tempfile::Builder::new().prefix("cluster").tempdir_in(nursery.directory()).expect("a directory").keep();
        let (news, seen) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let (started, start) = mpsc::channel();
        let place_of_nodes = home.clone();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let options = ControllerOptions::new(name("control", InstanceName::new), &home);
                let controller = start_controller(options).expect("a controller");
                let observer = Observer { news }.start().recipient();
                let subscribed = controller.send(Subscribe { since: None, to: observer }).await;
                subscribed.expect("a live controller").expect("an answer");
                match place {
                    Place::Beside => {
                        let agent = begin_agent(&home.join("nodes"));
                        join(&controller, &agent, &name(INSTANCE, InstanceName::new));
                        started.send((controller, None)).expect("a caller");
                        let _ = ended.await;
                        agent.send(StopAllNodes).await.expect("a live agent");
                    }
                    Place::Remote | Place::Weighed => {
                        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
                        let address = socket.local_addr().expect("an address");
                        let link = LinkSettings::new(LinkRole::Controller, "control", "bench");
                        let _listener = ControllerBridge::accept(socket, link, &controller).expect("a listener");
                        started.send((controller, Some(address))).expect("a caller");
                        let _ = ended.await;
                    }
                }
            });
        });
        let (controller, address) = start.recv_timeout(PATIENCE).expect("the controller starts");
        let way = address.map(|address| (address, place_of_nodes.join("nodes")));
        let remote = way.as_ref().map(|(address, nodes)| spawn_agent(*address, nodes, place));
        Self { controller, seen, end: Some(end), thread: Some(thread), remote, way, place, asked: 0 }
    }

    /// The process of the remote agent.
    pub fn agent(&self) -> u32 {
        self.remote.as_ref().expect("a remote agent").id()
    }

    /// Bytes of the remote agent's heap that are in use.
    pub fn heap_of_agent(&mut self) -> usize {
        let agent = self.remote.as_mut().expect("a remote agent");
        let (question, answer) = (agent.stdin.as_mut().expect("a pipe"), agent.stdout.as_mut().expect("a pipe"));
        writeln!(question, "?").expect("it listens");
        let mut line = String::new();
        BufReader::new(answer).read_line(&mut line).expect("it answers");
        line.trim_end().parse().expect("a number")
    }

    /// Where the remote agent's nodes have a directory each.
    pub fn nodes(&self) -> &Path {
        &self.way.as_ref().expect("a remote agent").1
    }

    /// SIGKILL for the remote agent: its nodes run on.
    pub fn kill_agent(&mut self) {
        let agent = self.remote.as_mut().expect("a remote agent");
        agent.kill().expect("a child of ours");
        agent.wait().expect("a child of ours");
    }

    /// Starts the remote agent again; when it was started.
    pub fn start_agent_again(&mut self) -> u64 {
        let (address, nodes) = self.way.as_ref().expect("a remote agent");
        let began = now();
        self.remote = Some(spawn_agent(*address, nodes, self.place));
        began
    }

    /// Deploys `count` nodes, numbered from `first`, and waits for the answer. `began` hears when it was asked for.
    pub fn deploy(&mut self, nursery: &Nursery, first: usize, count: usize) -> u64 {
        let configuration = configuration(&self.next_id(), nursery, first, count);
        let request = SetConfigurationRequest {
            reqid: name(&self.next_id(), RequestId::new),
            configuration,
            upon: None,
            terms: watchpost::message::client::Terms::default(),
        };
        let began = now();
        let answer = ask(&self.controller, request).expect("an answer");
        let failed: Vec<_> = answer.outcomes.iter().filter(|outcome| !outcome.is_success()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        began
    }

    /// Stops all nodes; how long it took until the answer, in nanoseconds.
    pub fn stop_all(&mut self) -> u64 {
        let request = StopRequest { reqid: name(&self.next_id(), RequestId::new), nodes: BTreeSet::new() };
        let began = now();
        let answer = ask(&self.controller, request).expect("an answer");
        let took = now() - began;
        assert!(answer.outcomes.iter().all(|outcome| outcome.is_success()), "{:?}", answer.outcomes);
        took
    }

    /// The next change that the observer saw.
    pub fn change(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a change is seen")
    }

    /// Waits for `count` changes to `state`, and returns them.
    pub fn changes_to(&self, state: NodeState, count: usize) -> Vec<Seen> {
        std::iter::repeat_with(|| self.change()).filter(|seen| seen.change.new == state).take(count).collect()
    }

    fn next_id(&mut self) -> String {
        self.asked += 1;
        format!("ask-{}", self.asked)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut remote) = self.remote.take() {
            drop(remote.stdin.take()); // which it takes for the order to stop its nodes and end
            let _ = remote.wait();
        }
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Becomes an agent, if this process was started to be one.
pub fn be_an_agent_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(AGENT) {
        return;
    }
    let (address, nodes) = (arguments.next().expect("an address"), arguments.next().expect("a directory"));
    let address: SocketAddr = address.parse().expect("an address");
    actix::System::new().block_on(async move {
        let agent = begin_agent(Path::new(&nodes));
        let link = LinkSettings::new(LinkRole::Agent, INSTANCE, "bench");
        let _bridge = AgentBridge::open(&agent, &link, None, Some(address.into())).expect("a dialler");
        let (gone, is_gone) = oneshot::channel();
        std::thread::spawn(move || {
            for asked in std::io::stdin().lines() {
                let _ = asked.and_then(|_| writeln!(std::io::stdout(), "{}", heap_in_use())); // whoever asks reads it
            }
            let _ = gone.send(());
        });
        let _ = is_gone.await;
        agent.send(StopAllNodes).await.expect("a live agent");
    });
    std::process::exit(0);
}

#[cfg(not(target_env = "gnu"))]
fn heap_in_use() -> usize {
    0 // no other C library tells
}

/// Bytes that this process has from the allocator and has not given back to it.
#[cfg(target_env = "gnu")]
fn heap_in_use() -> usize {
    // SAFETY: it takes no pointer, and locks each heap while it looks.
    unsafe { libc::mallinfo2() }.uordblks
}

fn begin_agent(nodes: &Path) -> Addr<Agent> {
    // As daemons do: otherwise what a node leaves behind is looked for among all processes of the machine.
    tree::become_subreaper().expect("a word to the kernel");
    // Where the rest is: else sockets would be made on whatever disk /run is on, if it is on one.
    let run_dir = Some(nodes.with_file_name("run"));
    start_agent(AgentOptions { run_dir, ..AgentOptions::new(name(INSTANCE, InstanceName::new), nodes) })
        .expect("an agent")
}

fn spawn_agent(address: SocketAddr, nodes: &Path, place: Place) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    if place == Place::Weighed {
        command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
    }
    command
        .arg(AGENT)
        .arg(address.to_string())
        .arg(nodes)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again")
}

/// Nodes of one role that are ready at once, are restarted at once and for ever, and do nothing.
pub fn configuration(id: &str, nursery: &Nursery, first: usize, count: usize) -> Configuration {
    let instance = name(INSTANCE, InstanceName::new);
    let node = |number: usize| {
        let mut node = Node::new(name(&format!("node-{number}"), NodeName::new), instance.clone(), Role::None);
        node.command = nursery.command(number);
        // Each lives for longer than this, and so is restarted as if it were the first time.
        node.restart.stable = Duration::from_millis(1);
        node.ready = Ready { by: ReadyBy::Settle(Duration::ZERO), within: Some(PATIENCE) };
        node.stop_grace = PATIENCE;
        Arc::new(node)
    };
    Configuration {
        id: name(id, ConfigurationId::new),
        instances: vec![Instance { name: instance.clone(), host: None, port: None }],
        nodes: (first..first + count).map(node).collect(),
        zeek: None,
        peers: Vec::new(),
        keys: None,
    }
}

/// Names in here are valid.
pub fn name<T, E: std::fmt::Debug>(text: &str, make: impl FnOnce(&str) -> Result<T, E>) -> T {
    make(text).expect("a valid name")
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
    news: Sender<Seen>,
}

impl Actor for Observer {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Observer {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        let at = now();
        for entry in batch.entries {
            if let News::Change(change) = &entry.news {
                let _ = self.news.send(Seen { at, change: change.clone() }); // nobody looks any more
            }
        }
    }
}

//! A crowd of agents in one thread that speak the real protocol, with next to nothing behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use watchpost::bridge::greeting::{Control, FIRST_MAIL_KIND, Greeting, Heartbeat, MAGIC};
use watchpost::bridge::{LinkRole, LinkSettings};
use watchpost::message::agent::*;
use watchpost::message::frame::{self, MAX_FRAME, Wire};
use watchpost::model::{
    Configuration, InstanceName, Node, NodeName, NodeState, NodeStatus, Outcome, RequestId, Role, Timestamp,
};
use watchpost::trust::Trust;

use super::cluster::name;
use super::keys::CLUSTER;

/// What the agents do besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Answer,
    /// Tell so many changes of their nodes each.
    Tell(usize),
    Leave,
}

/// What an agent has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It has said hello.
    Here,
    /// It has answered its share of a configuration; so many bytes it has said by then.
    Share(usize),
}

/// The agents of one fleet, and how they are told what to do.
pub struct Load {
    pub stage: watch::Sender<Stage>,
    pub done: mpsc::UnboundedReceiver<Done>,
    thread: JoinHandle<()>,
}

/// How agents come.
#[derive(Clone)]
pub struct Manners {
    pub agents: usize,
    /// Nodes of each that it says it runs.
    pub running: usize,
    /// The certificates of each; none over plain TCP.
    pub trust: Vec<Arc<Trust>>,
    /// They say so many bytes at once and nothing else, for a peer that only reads.
    pub mute: Option<usize>,
}

impl Load {
    pub fn start(address: SocketAddr, manners: Manners) -> Self {
        let (stage, stages) = watch::channel(Stage::Answer);
        let (did, done) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let tasks = tokio::task::LocalSet::new();
            runtime.block_on(tasks.run_until(async {
                let start = |number| {
                    let (manners, stages, did) = (manners.clone(), stages.clone(), did.clone());
                    tokio::task::spawn_local(async move { come(number, address, manners, stages, did).await })
                };
                let all: Vec<_> = (0..manners.agents).map(start).collect();
                for agent in all {
                    agent.await.expect("an agent ends well");
                }
            }));
        });
        Self { stage, done, thread }
    }

    /// Waits until all have done this much. What the agents have said by then, in bytes.
    pub async fn wait(&mut self, agents: usize, what: impl Fn(Done) -> bool) -> usize {
        let (mut count, mut bytes) = (0, 0);
        while count < agents {
            let done = self.done.recv().await.expect("live agents");
            if let Done::Share(said) = done {
                bytes += said;
            }
            count += usize::from(what(done));
        }
        bytes
    }

    /// Ends the links, and waits for it.
    pub fn end(self) {
        let _ = self.stage.send(Stage::Leave); // those that have gone are gone
        self.thread.join().expect("the agents end well");
    }
}

pub fn instance(number: usize) -> InstanceName {
    name(&format!("sensor-{number:03}"), InstanceName::new)
}

pub fn node(number: usize, of: usize) -> NodeName {
    name(&format!("worker-{of:03}-{number:03}"), NodeName::new)
}

async fn come(
    number: usize,
    address: SocketAddr,
    manners: Manners,
    stages: watch::Receiver<Stage>,
    did: mpsc::UnboundedSender<Done>,
) {
    let stream = TcpStream::connect(address).await.expect("a listener");
    stream.set_nodelay(true).expect("a socket");
    match manners.trust.get(number) {
        None => talk(number, stream, manners, stages, did).await,
        Some(trust) => {
            let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
            let connector = TlsConnector::from(Arc::clone(&trust.credentials().connect));
            let stream = connector.connect(nobody, stream).await.expect("a handshake");
            talk(number, stream, manners, stages, did).await;
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    number: usize,
    mut stream: S,
    manners: Manners,
    mut stages: watch::Receiver<Stage>,
    did: mpsc::UnboundedSender<Done>,
) {
    if let Some(bytes) = manners.mute {
        stream.write_all(&vec![7; bytes]).await.and(stream.flush().await).expect("a reader");
        let _ = stages.wait_for(|stage| *stage == Stage::Leave).await;
        return;
    }
    let mut agent = Agent {
        number,
        running: manners.running,
        seq: 0,
        out: MAGIC.to_vec(),
        said: 0,
        checked: None,
        has: Vec::new(),
        did,
    };
    agent.greet();
    let (mut unread, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    let (mut magic, mut is_here) = (MAGIC.len(), false);
    loop {
        agent.said += agent.out.len();
        if stream.write_all(&agent.out).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        agent.out.clear();
        if !std::mem::replace(&mut is_here, true) {
            let _ = agent.did.send(Done::Here); // nobody counts any more
        }
        tokio::select! {
            read = stream.read(&mut chunk) => match read {
                Ok(count) if count > 0 => unread.extend_from_slice(&chunk[..count]),
                _ => return,
            },
            changed = stages.changed() => match *stages.borrow_and_update() {
                Stage::Tell(count) if changed.is_ok() => {
                    for turn in 0..count {
                        agent.change(turn);
                        if agent.out.len() > 16 << 10 {
                            stream.write_all(&agent.out).await.expect("a reader");
                            agent.out.clear();
                        }
                    }
                }
                Stage::Answer if changed.is_ok() => {}
                _ => return,
            },
        }
        let skipped = magic.min(unread.len());
        magic -= skipped;
        let mut used = skipped;
        while let Some(frame) = frame::split(&unread[used..], MAX_FRAME).expect("a frame") {
            used += frame.size;
            if frame.kind >= FIRST_MAIL_KIND {
                agent.obey(ToAgent::decode(frame.kind, frame.body).expect("a message"));
            } else if let Ok(Control::Heartbeat(_)) = Control::decode(frame.kind, frame.body) {
                Control::from(Heartbeat {}).append_to(&mut agent.out).expect("it can be encoded");
            }
        }
        unread.drain(..used);
    }
}

struct Agent {
    number: usize,
    running: usize,
    seq: u64,
    out: Vec<u8>,
    said: usize,
    /// What it looked at last, and by which request.
    checked: Option<(RequestId, Configuration)>,
    /// What it was given last.
    has: Vec<Arc<Node>>,
    did: mpsc::UnboundedSender<Done>,
}

impl Agent {
    fn say(&mut self, message: impl Into<ToController>) {
        message.into().append_to(&mut self.out).expect("it can be encoded");
    }

    fn greet(&mut self) {
        let own = LinkSettings::new(LinkRole::Agent, instance(self.number).as_str(), CLUSTER);
        Control::from(Greeting::of(&own)).append_to(&mut self.out).expect("it can be encoded");
        let run = self.number as u64;
        self.say(NotifyAgentHello {
            instance: instance(self.number),
            host: None,
            api_version: API_VERSION,
            version: "0.1.0".into(),
            epoch: 1,
            run,
            place: 0,
            abilities: watchpost::model::Abilities::untried(),
        });
    }

    fn obey(&mut self, order: ToAgent) {
        match order {
            ToAgent::NewsReceived(NewsReceived { seq, .. }) if self.seq == 0 => {
                self.seq = seq.max(1);
                let nodes = (0..self.running).map(|number| self.status(number)).collect();
                self.say(NotifySnapshot { epoch: 1, seq: self.seq, configuration: None, nodes });
            }
            ToAgent::AgentWelcomeRequest(AgentWelcomeRequest { reqid }) => {
                let outcome = Outcome::instance_done(&instance(self.number));
                self.say(AgentWelcomeResponse { reqid, outcome });
            }
            ToAgent::CheckConfigurationRequest(CheckConfigurationRequest { reqid, configuration }) => {
                self.checked = Some((reqid.clone(), configuration.open()));
                // Whatever it changes it changes when all of it comes into force.
                self.say(CheckConfigurationResponse { reqid, outcomes: Vec::new(), changes: Vec::new() });
            }
            ToAgent::CommitConfigurationRequest(CommitConfigurationRequest {
                reqid, configuration, checked, ..
            }) => {
                let is_meant =
                    |(by, staged): &mut (RequestId, Configuration)| *by == checked && staged.id == configuration;
                match self.checked.take_if(is_meant) {
                    Some((_, staged)) => self.adopt(reqid, &staged),
                    None => self.say(NotAtHand { reqid }),
                }
            }
            ToAgent::SetConfigurationRequest(SetConfigurationRequest { reqid, configuration, .. }) => {
                self.adopt(reqid, &configuration.open());
            }
            _ => {}
        }
    }

    fn adopt(&mut self, reqid: RequestId, configuration: &Configuration) {
        let mut outcomes = Vec::new();
        if self.has == configuration.nodes {
            outcomes.push(Outcome::instance_done(&instance(self.number)));
        } else if self.running == 0 {
            for (turn, node) in configuration.nodes.iter().enumerate() {
                self.change(turn);
                outcomes.push(Outcome::node_done(&node.instance, &node.name));
            }
        }
        self.has.clone_from(&configuration.nodes);
        self.say(SetConfigurationResponse { reqid, outcomes });
        let _ = self.did.send(Done::Share(self.said + self.out.len())); // nobody counts any more
    }

    fn change(&mut self, turn: usize) {
        self.seq += 1;
        let change = NotifyChange {
            seq: self.seq,
            time: Timestamp(1_795_000_000_000_000 + self.seq),
            instance: instance(self.number),
            node: node(turn % 50, self.number),
            role: Role::None,
            old: NodeState::Stopped,
            new: if self.seq.is_multiple_of(2) { NodeState::Running } else { NodeState::Crashed },
            pid: Some(100_000 + turn as u32),
            exit: None,
            attempt: 1,
            restarts: 1,
            reason: "killed by signal 9 (SIGKILL)".into(),
            removed: false,
        };
        self.say(change);
    }

    fn status(&self, number: usize) -> NodeStatus {
        NodeStatus {
            node: node(number, self.number),
            instance: instance(self.number),
            role: Role::None,
            state: NodeState::Running,
            pid: Some(100_000 + number as u32),
            port: None,
            metrics_port: None,
            restarts: 0,
            since: Timestamp(1_795_000_000_000_000),
            reason: "ready".into(),
            says: "".into(),
            netstats: None,
        }
    }
}

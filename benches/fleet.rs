//! What a controller of 200 agents needs: when all of them return at once, when all of them have much to tell, and for a
//! deployment. The agents follow a script in a thread of their own; the controller has its actors, its store and its log.
//!
//! The floors do what has to be done about the same bytes and nothing else: shake hands and read them; read, decode and
//! keep the latest of each node; deal nodes out and decode what is said of them.
//!
//! `-- plot` also draws how a deployment grows into docs/deploy-growth.svg.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use common::cluster::name;
use common::crowd::{Done, Load, Manners, Stage, instance, node};
use common::figures::{Sample, line, now, options};
use common::keys::{CLUSTER, Keys};
use common::nursery::scratch;
use common::plot::{Curve, Plot};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use watchpost::bridge::greeting::{Control, FIRST_MAIL_KIND, Greeting, MAGIC};
use watchpost::bridge::{LinkRole, LinkSettings, Listener};
use watchpost::controller::Controller;
use watchpost::message::agent::{self, NewsReceived, NotifyChange, ToAgent, ToController};
use watchpost::message::client::{GetStatusRequest, NewsBatch, SetConfigurationRequest, Subscribe};
use watchpost::message::frame::{self, MAX_FRAME, Wire};
use watchpost::model::{Configuration, ConfigurationId, Instance, InstanceName, Node, NodeState, RequestId, Role};
use watchpost::run::{ControllerBridge, ControllerOptions, LogOptions, start_controller};
use watchpost::trust::Trust;

const AGENTS: usize = 200;
/// Nodes of each agent that returns.
const NODES: usize = 100;
/// Nodes of each agent that is deployed to, and tells of them.
const DEALT: usize = 50;
/// Changes, all together.
const CHANGES: usize = 100_000;
const ROUNDS: usize = 5;
/// How many agents are deployed to where it is drawn how that grows: 100 to 10,000 nodes.
const GROWTH: [usize; 5] = [2, 6, 20, 60, 200];

const RETURN_GOAL: f64 = 2.0;
const STORM_GOAL: f64 = 1.5;
const DEPLOY_GOAL: f64 = 2.0;

fn main() {
    let Some(options) = options() else { return };
    let keys = Keys::make((0..AGENTS).map(instance));
    let home = scratch();
    let bytes = deploy_for_returns(home.path(), &keys);
    let [mut cpu, mut wall, mut floor_cpu, mut floor_wall] = [(); 4].map(|()| Sample::default());
    let [mut dealt, mut deployed, mut again, mut received, mut told] = [(); 5].map(|()| Sample::default());
    for _ in 0..ROUNDS * options.factor {
        let (processor, elapsed) = accept_and_read(&keys, bytes);
        floor_cpu.add(processor);
        floor_wall.add(elapsed);
        let (processor, elapsed) = all_return(home.path(), &keys);
        cpu.add(processor);
        wall.add(elapsed);
        let (deal, receive) = bare_receiver(AGENTS, CHANGES);
        dealt.add(deal);
        received.add(receive);
        let (deploy, repeat, tell) = controller_hears(AGENTS, CHANGES);
        deployed.add(deploy);
        again.add(repeat);
        told.add(tell);
    }
    println!(
        "{AGENTS} agents with {NODES} nodes each return at once, over TLS 1.3, milliseconds: median (least to most)"
    );
    line("handshakes, and the same bytes: processor time", &floor_cpu, None);
    line("a controller: processor time", &cpu, Some((&cpu.over(&floor_cpu), Some(RETURN_GOAL))));
    line("handshakes, and the same bytes: until read", &floor_wall, None);
    line("a controller: until every state is true", &wall, Some((&wall.over(&floor_wall), None)));
    println!("{} nodes dealt to {AGENTS} agents, milliseconds", AGENTS * DEALT);
    line("dealt and acknowledged, no more", &dealt, None);
    line("deployed", &deployed, Some((&deployed.over(&dealt), Some(DEPLOY_GOAL))));
    line("deployed again, and nothing changes", &again, Some((&again.over(&dealt), None)));
    println!("{CHANGES} changes over {AGENTS} links, milliseconds");
    line("decoded, and the latest of each kept", &received, None);
    line("deduplicated, applied, logged, at an observer", &told, Some((&told.over(&received), Some(STORM_GOAL))));
    if std::env::args().any(|argument| argument == "plot") {
        draw(ROUNDS * options.factor);
    }
}

fn draw(rounds: usize) {
    let mut curves = [("dealt, no more", vec![]), ("deployed", vec![]), ("no change", vec![])];
    println!("{DEALT} nodes dealt to each of some agents, milliseconds");
    for agents in GROWTH {
        let [mut dealt, mut deployed, mut again] = [(); 3].map(|()| Sample::default());
        for _ in 0..rounds {
            dealt.add(bare_receiver(agents, 0).0);
            let (deploy, repeat, _) = controller_hears(agents, 0);
            deployed.add(deploy);
            again.add(repeat);
        }
        println!("{} nodes", agents * DEALT);
        line("dealt and acknowledged, no more", &dealt, None);
        line("deployed", &deployed, Some((&deployed.over(&dealt), None)));
        line("deployed again, and nothing changes", &again, Some((&again.over(&dealt), None)));
        for ((_, curve), sample) in curves.iter_mut().zip([&dealt, &deployed, &again]) {
            curve.push(((agents * DEALT) as f64, sample.median()));
        }
    }
    let plot = Plot {
        title: "Deploying, by the number of nodes (50 on each instance)",
        x: "nodes",
        y: "milliseconds",
        curves: curves.into_iter().map(|(name, points)| Curve { name, points }).collect(),
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy-growth.svg");
    std::fs::write(path, plot.svg()).expect("docs can be written to");
    println!("drawn: {path}");
}

/// Milliseconds since it was made: of time, and of this thread on a processor.
struct Clock {
    began: u64,
    thread: f64,
}

impl Clock {
    fn start() -> Self {
        Self { began: now(), thread: on_processor() }
    }

    fn wall(&self) -> f64 {
        (now() - self.began) as f64 / 1e6
    }

    fn both(&self) -> (f64, f64) {
        (on_processor() - self.thread, self.wall())
    }
}

fn on_processor() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn port() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    // The floors have room for all of them as well.
    rustix::net::listen(&socket, 4096).expect("a port");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

fn configuration(agents: usize, nodes: usize) -> Configuration {
    let node = |of: usize, number: usize| {
        let node = Node::new(node(number, of), instance(of), Role::None);
        Arc::new(Node { command: vec!["/opt/app/worker".into(), "--interface".into(), "eth0".into()], ..node })
    };
    Configuration {
        id: name("fleet", ConfigurationId::new),
        instances: (0..agents).map(|of| Instance { name: instance(of), host: None, port: None }).collect(),
        nodes: (0..agents).flat_map(|of| (0..nodes).map(move |number| node(of, number))).collect(),
        zeek: None,
        peers: Vec::new(),
        keys: None,
    }
}

fn control(trust: Option<&Arc<Trust>>) -> LinkSettings {
    LinkSettings { trust: trust.map(Arc::clone), ..LinkSettings::new(LinkRole::Controller, "control", CLUSTER) }
}

fn controller(home: &Path, trust: Option<&Arc<Trust>>) -> (Addr<Controller>, Listener, SocketAddr) {
    let options = ControllerOptions::new(name("control", InstanceName::new), home);
    let controller = start_controller(ControllerOptions { log: LogOptions::Memory { entries: CHANGES }, ..options })
        .expect("a controller");
    let (socket, address) = port();
    let listener = ControllerBridge::accept(socket, control(trust), &controller).expect("a listener");
    (controller, listener, address)
}

fn manners(agents: usize, running: usize, keys: Option<&Keys>, mute: Option<usize>) -> Manners {
    let trust = keys.map_or_else(Vec::new, |keys| keys.agents.clone());
    Manners { agents, running, trust, mute }
}

async fn deploy(controller: &Addr<Controller>, configuration: Configuration) {
    let request = SetConfigurationRequest {
        reqid: name("deploy", RequestId::new),
        configuration,
        upon: None,
        terms: watchpost::message::client::Terms::default(),
    };
    let answer = controller.send(request).await.expect("a live controller").expect("an answer");
    assert!(answer.configuration.is_some(), "{:?}", answer.outcomes.first());
}

// --- all agents return ---

/// Leaves a deployment in `home`, for controllers to find, and says how many bytes an agent says that returns to it.
fn deploy_for_returns(home: &Path, keys: &Keys) -> usize {
    actix::System::new().block_on(async {
        let (controller, _listener, address) = controller(home, Some(&keys.control));
        let load = Load::start(address, manners(AGENTS, 0, Some(keys), None));
        deploy(&controller, configuration(AGENTS, NODES)).await;
        load.end();
    });
    all_return_and_say(home, keys).2
}

fn all_return(home: &Path, keys: &Keys) -> (f64, f64) {
    let (processor, elapsed, _) = all_return_and_say(home, keys);
    (processor, elapsed)
}

/// The processor time of the thread with the controller's actors and its links, the time, and what an agent says.
fn all_return_and_say(home: &Path, keys: &Keys) -> (f64, f64, usize) {
    actix::System::new().block_on(async {
        let (controller, _listener, address) = controller(home, Some(&keys.control));
        // It has read what was deployed, and waits.
        controller.send(GetStatusRequest).await.expect("a live controller").expect("an answer");
        let clock = Clock::start();
        let mut load = Load::start(address, manners(AGENTS, NODES, Some(keys), None));
        // A share comes when a snapshot has arrived and its welcome is answered.
        let said = load.wait(AGENTS, |done| matches!(done, Done::Share(_))).await;
        let (processor, elapsed) = clock.both();
        let status = controller.send(GetStatusRequest).await.expect("a live controller").expect("an answer");
        assert!(
            status.nodes.iter().all(|node| node.state == NodeState::Running) && status.nodes.len() == AGENTS * NODES
        );
        load.end();
        (processor, elapsed, said / AGENTS)
    })
}

/// The same bytes through as many handshakes, by one thread that does nothing with them.
fn accept_and_read(keys: &Keys, bytes: usize) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (socket, address) = port();
        socket.set_nonblocking(true).expect("a socket");
        let socket = tokio::net::TcpListener::from_std(socket).expect("a socket");
        let acceptor = TlsAcceptor::from(Arc::clone(&keys.control.credentials().accept));
        let clock = Clock::start();
        let load = Load::start(address, manners(AGENTS, 0, Some(keys), Some(bytes)));
        let mut reading = Vec::new();
        for _ in 0..AGENTS {
            let (stream, _) = socket.accept().await.expect("an agent");
            let acceptor = acceptor.clone();
            reading.push(tokio::task::spawn_local(async move {
                let mut stream = acceptor.accept(stream).await.expect("a handshake");
                let (mut chunk, mut left) = (vec![0; 16 << 10], bytes);
                while left > 0 {
                    left -= stream.read(&mut chunk).await.expect("bytes").min(left);
                }
                stream
            }));
        }
        let mut open = Vec::new();
        for reading in reading {
            open.push(reading.await.expect("all of it"));
        }
        let measured = clock.both();
        load.end();
        measured
    })
}

// --- a deployment, and much to tell ---

/// How long a deployment, another one that changes nothing, and the changes take, in milliseconds.
fn controller_hears(agents: usize, changes: usize) -> (f64, f64, f64) {
    let home = scratch();
    actix::System::new().block_on(async {
        let (controller, _listener, address) = controller(home.path(), None);
        let mut load = Load::start(address, manners(agents, 0, None, None));
        load.wait(agents, |done| done == Done::Here).await;
        while controller.send(GetStatusRequest).await.expect("it lives").expect("an answer").instances.len() < agents {
            tokio::task::yield_now().await;
        }
        let first = configuration(agents, DEALT);
        let clock = Clock::start();
        deploy(&controller, first).await;
        let deployed = clock.wall();
        let same = Configuration { id: name("same", ConfigurationId::new), ..configuration(agents, DEALT) };
        let clock = Clock::start();
        deploy(&controller, same).await;
        let again = clock.wall();
        if changes == 0 {
            load.end();
            return (deployed, again, 0.0);
        }
        let (done, is_done) = oneshot::channel();
        let sink = Sink { left: changes, done: Some(done) }.start().recipient();
        controller.send(Subscribe { since: None, to: sink }).await.expect("a live controller").expect("an answer");
        let clock = Clock::start();
        load.stage.send(Stage::Tell(changes / agents)).expect("agents");
        is_done.await.expect("all arrive");
        let told = clock.wall();
        load.end();
        (deployed, again, told)
    })
}

/// Counts changes.
struct Sink {
    left: usize,
    done: Option<oneshot::Sender<()>>,
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Sink {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        assert_eq!(batch.gap, None, "the log holds them all");
        self.left = self.left.saturating_sub(batch.entries.len());
        if let Some(done) = self.done.take_if(|_| self.left == 0) {
            let _ = done.send(()); // awaited by the round
        }
    }
}

/// The same agents at a peer that deals their nodes out, and keeps the latest of what is said of each.
fn bare_receiver(agents: usize, changes: usize) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (socket, address) = port();
        socket.set_nonblocking(true).expect("a socket");
        let socket = tokio::net::TcpListener::from_std(socket).expect("a socket");
        let mut load = Load::start(address, manners(agents, 0, None, None));
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..agents {
            let (stream, _) = socket.accept().await.expect("an agent");
            stream.set_nodelay(true).expect("a socket");
            let (reader, mut writer) = stream.into_split();
            let mut hello = MAGIC.to_vec();
            Control::from(Greeting::of(&control(None))).append_to(&mut hello).expect("it can be encoded");
            ToAgent::from(NewsReceived { epoch: 1, seq: 0, kept: 0 }).append_to(&mut hello).expect("it can be encoded");
            writer.write_all(&hello).await.expect("an agent");
            readers.push(reader);
            writers.push(writer);
        }
        let table: Rc<RefCell<HashMap<String, NotifyChange>>> = Rc::default();
        let (shares, told) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for mut reader in readers {
            let (table, shares, told) = (Rc::clone(&table), Rc::clone(&shares), Rc::clone(&told));
            tokio::task::spawn_local(async move {
                let (mut unread, mut chunk, mut magic) = (Vec::new(), vec![0; 64 << 10], MAGIC.len());
                while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                    unread.extend_from_slice(&chunk[..count]);
                    let mut used = magic.min(unread.len());
                    magic -= used;
                    while let Some(frame) = frame::split(&unread[used..], MAX_FRAME).expect("a frame") {
                        used += frame.size;
                        if frame.kind < FIRST_MAIL_KIND {
                            continue;
                        }
                        match ToController::decode(frame.kind, frame.body).expect("a message") {
                            ToController::NotifyChange(change) => {
                                told.set(told.get() + 1);
                                table.borrow_mut().insert(change.node.to_string(), change);
                            }
                            ToController::SetConfigurationResponse(_) => shares.set(shares.get() + 1),
                            _ => {}
                        }
                    }
                    unread.drain(..used);
                }
            });
        }
        load.wait(agents, |done| done == Done::Here).await;
        let whole = configuration(agents, DEALT);
        let clock = Clock::start();
        let mut own: BTreeMap<InstanceName, Configuration> = BTreeMap::new();
        for instance in &whole.instances {
            let (id, instances) = (whole.id.clone(), whole.instances.clone());
            own.insert(
                instance.name.clone(),
                Configuration {
                    id,
                    instances,
                    nodes: Vec::with_capacity(DEALT),
                    zeek: None,
                    peers: Vec::new(),
                    keys: None,
                },
            );
        }
        for node in &whole.nodes {
            own.get_mut(&node.instance).expect("its instance").nodes.push(Arc::clone(node));
        }
        for ((_, configuration), writer) in own.into_iter().zip(&mut writers) {
            let mut share = Vec::new();
            let reqid = name("share", RequestId::new);
            let request =
                agent::SetConfigurationRequest { reqid, configuration: configuration.into(), rest: [].into() };
            ToAgent::from(request).append_to(&mut share).expect("it can be encoded");
            writer.write_all(&share).await.expect("an agent");
        }
        while shares.get() < agents {
            tokio::task::yield_now().await;
        }
        let dealt = clock.wall();
        told.set(0);
        let clock = Clock::start();
        load.stage.send(Stage::Tell(changes / agents)).expect("agents");
        while told.get() < changes {
            tokio::task::yield_now().await;
        }
        let received = clock.wall();
        load.end();
        (dealt, received)
    })
}

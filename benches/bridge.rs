//! How many `notify_change` a second come from an agent's actor, over the bridge, to an observer of the controller.
//!
//! The limit is the same messages encoded and decoded in place over TCP: no actors, no bookkeeping, one thread at each
//! end. That moves with what a message is made of; so the one that the goal was set by is measured, too, whose messages are
//! as long and made of plain texts. Another one does, as plainly, what the promises ask for: the sender keeps each message until it has gone out
//! and writes it to a file first, with a checksum; the receiver looks up the node, numbers the message and logs it. In
//! between stands the bridge by itself: mail from one actor to another. The agent is measured with the window
//! that it has by default, and with one that never closes. The bridge with certificates is held against the bridge
//! without, and against TLS by itself: the limit's bytes through rustls on a blocking socket.
//! What the log costs is seen by keeping it in memory, in files like all others here, and on a disk.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, Arbiter, AsyncContext, Context, Handler, Recipient};
use common::cluster::name;
use common::ends::{owner, port};
use common::figures::{Sample, line, now, options};
use common::keys::{CLUSTER, Keys};
use common::nursery::scratch;
use common::plain::PlainChange;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use watchpost::agent::Agent;
use watchpost::agent::outbox::Bounds;
use watchpost::bridge::{LinkDown, LinkId, LinkRole, LinkSettings, LinkUp, Mail, NotKnown, dial, listen};
use watchpost::controller::log;
use watchpost::message::agent::{NotifyChange, ToAgent, ToController};
use watchpost::message::client::{NewsBatch, SetConfigurationRequest, Subscribe};
use watchpost::message::frame::{self, MAX_FRAME, Wire};
use watchpost::message::node::NodeReport;
use watchpost::model::{
    Configuration, ConfigurationId, Exit, Instance, InstanceName, Node, NodeName, NodeState, ReadyBy, RequestId,
    RestartMode, Role, Timestamp,
};
use watchpost::run::{
    AgentBridge, AgentOptions, ControllerBridge, ControllerOptions, LogOptions, start_agent, start_controller,
};
use watchpost::supervisor::FromSupervisor;

const GOAL: f64 = 0.65;
const MESSAGES: usize = 300_000;
const ROUNDS: usize = 7;
/// How many nodes the changes are about.
const NODES: usize = 100;
/// How much is written or mailed at a time.
const BYTES: usize = 64 << 10;
const BATCH: usize = 512;
/// How many different messages the limit sends.
const SAMPLES: u64 = 1000;

fn main() {
    let Some(options) = options() else { return };
    let keys = Keys::make([instance()]);
    let [mut limit, mut plain, mut books, mut bridge, mut bounded, mut unbounded] = [(); 6].map(|()| Sample::default());
    let [mut kept, mut synced] = [(); 2].map(|()| Sample::default());
    let [mut sealed_limit, mut sealed] = [(); 2].map(|()| Sample::default());
    let unbounded_window = Bounds { window: usize::MAX, kept: usize::MAX };
    for _ in 0..ROUNDS * options.factor {
        limit.add(in_place());
        plain.add(plain_in_place());
        books.add(in_place_with_books());
        bridge.add(by_bridge(None));
        sealed_limit.add(in_place_over_tls(&keys));
        sealed.add(by_bridge(Some(&keys)));
        let window = Bounds { kept: usize::MAX, ..Bounds::default() };
        bounded.add(by_agent(window, &Log::InMemory));
        kept.add(by_agent(window, &Log::InFiles));
        synced.add(by_agent(window, &Log::OnDisk));
        unbounded.add(by_agent(unbounded_window, &Log::InMemory));
    }
    println!("{MESSAGES} changes, thousands a second: median (least to most)");
    line("the limit: encoded and decoded in place", &limit, None);
    line("the same of messages made of plain texts", &plain, Some((&plain.over(&limit), None)));
    line("the limit, with the books that are asked for", &books, Some((&books.over(&limit), None)));
    line("bridge alone, actor to actor", &bridge, Some((&bridge.over(&limit), None)));
    line("in place over TLS 1.3", &sealed_limit, Some((&sealed_limit.over(&limit), None)));
    line("bridge over TLS 1.3, of the bridge without", &sealed, Some((&sealed.over(&bridge), Some(GOAL))));
    line("the same, of TLS in place", &sealed, Some((&sealed.over(&sealed_limit), None)));
    line("agent to observer", &bounded, Some((&bounded.over(&limit), Some(GOAL))));
    line("the same, of plain texts in place", "", Some((&bounded.over(&plain), Some(GOAL))));
    line("the same, of in place with books", "", Some((&bounded.over(&books), None)));
    line("agent to observer, window never closed", &unbounded, Some((&unbounded.over(&limit), None)));
    line("what the window leaves of that", bounded.over(&unbounded), None);
    line("agent to observer, log in files, of log in memory", &kept, Some((&kept.over(&bounded), None)));
    line("agent to observer, log on a disk, of log in memory", &synced, Some((&synced.over(&bounded), None)));
}

/// Thousands a second.
fn rate(nanoseconds: u64) -> f64 {
    MESSAGES as f64 * 1e6 / nanoseconds as f64
}

fn change(seq: u64) -> NotifyChange {
    let number = seq as usize % NODES;
    NotifyChange {
        seq,
        time: Timestamp(1_795_000_000_000_000 + seq),
        instance: instance(),
        node: node(number),
        role: Role::None,
        old: NodeState::Running,
        new: NodeState::Crashed,
        pid: Some(100_000 + number as u32),
        exit: Some(Exit::Signal { number: 9, core_dumped: false }),
        attempt: 1,
        restarts: 1,
        reason: "killed by signal 9 (SIGKILL)".into(),
        removed: false,
    }
}

fn instance() -> InstanceName {
    name("sensor-1.example", InstanceName::new)
}

fn node(number: usize) -> NodeName {
    name(&format!("worker-{number:05}"), NodeName::new)
}

// --- the limit ---

fn in_place() -> f64 {
    let (near, far) = connection();
    in_place_over(near, far, Plain, Plain)
}

/// The same, with the books that the promises ask for.
fn in_place_with_books() -> f64 {
    let home = scratch();
    let (near, far) = connection();
    let file = File::create(home.path().join("spool")).expect("a file");
    in_place_over(near, far, Spooled { file, bytes: Vec::new(), kept: VecDeque::new() }, Logged::default())
}

fn in_place_over_tls(keys: &Keys) -> f64 {
    let (near, far) = connection();
    let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let connect = keys.agents[0].credentials().connect.clone();
    let near = StreamOwned::new(ClientConnection::new(connect, nobody).expect("a client"), near);
    let accept = keys.control.credentials().accept.clone();
    let far = StreamOwned::new(ServerConnection::new(accept).expect("a server"), far);
    in_place_over(near, far, Plain, Plain)
}

fn connection() -> (TcpStream, TcpStream) {
    let (listener, address) = port();
    let near = TcpStream::connect(address).expect("a connection");
    let (far, _) = listener.accept().expect("its other end");
    (near, far)
}

/// What a sender does beside sending.
trait Sending: Send + 'static {
    fn encoded(&mut self, _: &ToController, _frame: &[u8]) {}
    fn before_writing(&mut self) {}
}

/// What a receiver does beside receiving.
trait Receiving {
    fn received(&mut self, _: NotifyChange) {}
}

struct Plain;
impl Sending for Plain {}
impl Receiving for Plain {}

/// Keeps as many messages as may be under way, and writes all to a file before they go out.
struct Spooled {
    file: File,
    bytes: Vec<u8>,
    kept: VecDeque<ToController>,
}

impl Sending for Spooled {
    fn encoded(&mut self, message: &ToController, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.bytes.extend_from_slice(&crc32fast::hash(frame).to_be_bytes());
        self.kept.push_back(message.clone());
        if self.kept.len() > 4 * BATCH {
            self.kept.pop_front();
        }
    }

    fn before_writing(&mut self) {
        self.file.write_all(&self.bytes).expect("room for news");
        self.bytes.clear();
    }
}

/// Knows the last change of each node, and logs every one under a number of its own.
#[derive(Default)]
struct Logged {
    last: BTreeMap<NodeName, NotifyChange>,
    log: VecDeque<Arc<(u64, NotifyChange)>>,
}

impl Receiving for Logged {
    fn received(&mut self, mut change: NotifyChange) {
        if let Some(last) = self.last.get_mut(&change.node) {
            change.old = last.new;
            last.clone_from(&change);
        } else {
            self.last.insert(change.node.clone(), change.clone());
        }
        self.log.push_back(Arc::new((self.log.len() as u64, change)));
    }
}

fn in_place_over(
    near: impl Write + Send + 'static,
    far: impl Read,
    mut sending: impl Sending,
    mut receiving: impl Receiving,
) -> f64 {
    let samples: Vec<ToController> = (0..SAMPLES).map(|seq| change(seq).into()).collect();
    let fill = move |number: usize, out: &mut Vec<u8>| {
        let (sample, start) = (&samples[number % samples.len()], out.len());
        sample.append_to(out).expect("it can be encoded");
        sending.encoded(sample, &out[start..]);
        let writes = out.len() >= BYTES || number + 1 == MESSAGES;
        if writes {
            sending.before_writing();
        }
        writes
    };
    pump(near, far, fill, |bytes| {
        let frame = frame::split(bytes, MAX_FRAME).expect("a frame")?;
        let message = ToController::decode(frame.kind, frame.body).expect("a message");
        let ToController::NotifyChange(change) = message else { unreachable!("only changes are sent") };
        let checked = change.attempt;
        receiving.received(change);
        Some((frame.size, checked))
    })
}

/// The limit that the goal was set by: a message as long as a change, of plain texts.
fn plain_in_place() -> f64 {
    let samples: Vec<PlainChange> = (0..SAMPLES).map(PlainChange::sample).collect();
    let fill = move |number: usize, out: &mut Vec<u8>| {
        samples[number % samples.len()].append_to(out);
        out.len() >= BYTES || number + 1 == MESSAGES
    };
    let (near, far) = connection();
    pump(near, far, fill, |bytes| {
        let (change, size) = PlainChange::take(bytes)?;
        Some((size, change.node.restarts))
    })
}

/// One thread writes what `fill` makes of all messages, whenever that says so; another has them taken from the buffer that
/// it reads into. Each counts as 1.
fn pump(
    mut near: impl Write + Send + 'static,
    mut far: impl Read,
    mut fill: impl FnMut(usize, &mut Vec<u8>) -> bool + Send + 'static,
    mut take: impl FnMut(&[u8]) -> Option<(usize, u32)>,
) -> f64 {
    let began = now();
    let writer = std::thread::spawn(move || {
        let mut out = Vec::with_capacity(2 * BYTES);
        for number in 0..MESSAGES {
            if fill(number, &mut out) {
                near.write_all(&out).and_then(|()| near.flush()).expect("a reader");
                out.clear();
            }
        }
        near
    });
    let (mut buffer, mut filled, mut count, mut checked) = (vec![0; 4 * BYTES], 0, 0, 0);
    while count < MESSAGES {
        let length = far.read(&mut buffer[filled..]).expect("a writer");
        assert_ne!(length, 0, "all messages arrive");
        filled += length;
        let mut used = 0;
        while let Some((size, counts)) = take(&buffer[used..filled]) {
            checked += u64::from(counts);
            used += size;
            count += 1;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    assert_eq!(checked, MESSAGES as u64);
    let took = now() - began;
    drop(writer.join().expect("the writer ends well"));
    rate(took)
}

// --- the bridge alone ---

fn by_bridge(keys: Option<&Keys>) -> f64 {
    let control = LinkSettings { trust: keys.map(|keys| Arc::clone(&keys.control)), ..link(LinkRole::Controller) };
    let sensor_trust = keys.map(|keys| Arc::clone(&keys.agents[0]));
    actix::System::new().block_on(async {
        let (begun, begin) = mpsc::channel();
        let (done, is_done) = oneshot::channel();
        let (_listener, address) = {
            let (socket, address) = port();
            let sink = Sink { left: MESSAGES, done: Some(done) }.start();
            (listen::<ToController, ToAgent>(socket, control, owner(&sink)).expect("a listener"), address)
        };
        let arbiter = Arbiter::new();
        arbiter.spawn(async move {
            let source = Source { left: MESSAGES, begun }.start();
            let sensor = LinkSettings { trust: sensor_trust, ..link(LinkRole::Agent) };
            let _dialer = dial::<ToAgent, ToController>(address, None, sensor, owner(&source));
            std::future::pending().await
        });
        let ended = is_done.await.expect("all arrive");
        arbiter.stop();
        rate(ended - begin.recv().expect("it began"))
    })
}

fn link(role: LinkRole) -> LinkSettings {
    let own = if role == LinkRole::Agent { instance().to_string() } else { "control".into() };
    LinkSettings::new(role, own, CLUSTER)
}

/// Sends all it has as soon as there is a link, a batch at a time, as fast as the link takes them.
struct Source {
    left: usize,
    begun: Sender<u64>,
}

impl Source {
    fn send(&mut self, link: LinkId, out: Recipient<Mail<ToController>>, ctx: &mut Context<Self>) {
        let count = BATCH.min(self.left);
        if count > 0 {
            self.left -= count;
            let messages = (0..count as u64).map(|seq| change(seq).into()).collect();
            let sent = wrap_future::<_, Self>(out.send(Mail { link, messages }));
            ctx.spawn(sent.map(move |_, me, ctx| me.send(link, out, ctx)));
        }
    }
}

impl Actor for Source {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToController>> for Source {
    type Result = ();

    fn handle(&mut self, LinkUp { link, out, .. }: LinkUp<ToController>, ctx: &mut Context<Self>) {
        let _ = self.begun.send(now()); // heard at the end
        self.send(link, out, ctx);
    }
}

/// Counts what arrives.
struct Sink {
    left: usize,
    done: Option<oneshot::Sender<u64>>,
}

impl Sink {
    fn count(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        if let Some(done) = self.done.take_if(|_| self.left == 0) {
            let _ = done.send(now()); // heard at the end
        }
    }
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<Mail<ToController>> for Sink {
    type Result = ();

    fn handle(&mut self, mail: Mail<ToController>, _: &mut Context<Self>) {
        let messages = mail.messages.iter().map(|message| match message {
            ToController::News(news) => news.open::<ToController>().count(),
            _ => 1,
        });
        self.count(messages.sum());
    }
}

impl Handler<LinkUp<ToAgent>> for Sink {
    type Result = ();
    fn handle(&mut self, _: LinkUp<ToAgent>, _: &mut Context<Self>) {}
}

impl Handler<NotKnown> for Sink {
    type Result = ();
    fn handle(&mut self, _: NotKnown, _: &mut Context<Self>) {}
}

impl Handler<NotKnown> for Source {
    type Result = ();
    fn handle(&mut self, _: NotKnown, _: &mut Context<Self>) {}
}

impl Handler<LinkDown> for Sink {
    type Result = ();
    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {}
}

impl Handler<Mail<ToAgent>> for Source {
    type Result = ();
    fn handle(&mut self, _: Mail<ToAgent>, _: &mut Context<Self>) {}
}

impl Handler<LinkDown> for Source {
    type Result = ();
    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {}
}

// --- from agent to observer ---

/// Where the controller keeps its log.
enum Log {
    InMemory,
    /// Where the other files are, which may be no disk.
    InFiles,
    /// Beside what cargo builds.
    OnDisk,
}

fn by_agent(bounds: Bounds, log: &Log) -> f64 {
    let home = scratch();
    let disk = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let log = match log {
        Log::InMemory => LogOptions::Memory { entries: MESSAGES },
        Log::InFiles => LogOptions::Disk { directory: home.path().join("log"), bounds: log::Bounds::default() },
        Log::OnDisk => LogOptions::Disk { directory: disk.path().join("log"), bounds: log::Bounds::default() },
    };
    actix::System::new().block_on(async {
        let options = ControllerOptions::new(name("control", InstanceName::new), home.path());
        let controller = start_controller(ControllerOptions { log, ..options }).expect("a controller");
        let (socket, address) = port();
        let _listener = ControllerBridge::accept(socket, link(LinkRole::Controller), &controller).expect("a listener");
        let nodes = home.path().join("nodes");
        let (arbiter, (agent, is_agent)) = (Arbiter::new(), oneshot::channel());
        arbiter.spawn(async move {
            let options = AgentOptions { bounds, ..AgentOptions::new(instance(), nodes) };
            let started = start_agent(options).expect("an agent");
            let _bridge =
                AgentBridge::open(&started, &link(LinkRole::Agent), None, Some(address.into())).expect("a dialler");
            let _ = agent.send(started); // awaited below
            std::future::pending().await
        });
        let agent: Addr<Agent> = is_agent.await.expect("an agent");
        // The nodes end as soon as they run, and from then on the agent only keeps their books.
        let (reqid, configuration) = (name("deploy", RequestId::new), short_lived());
        let deployed = controller
            .send(SetConfigurationRequest {
                reqid,
                configuration,
                upon: None,
                terms: watchpost::message::client::Terms::default(),
            })
            .await;
        let deployed = deployed.expect("a live controller").expect("an answer");
        assert!(deployed.configuration.is_some(), "{:?}", deployed.outcomes);
        let (done, is_done) = oneshot::channel();
        let sink = Sink { left: MESSAGES, done: Some(done) }.start().recipient();
        let subscribed = controller.send(Subscribe { since: None, to: sink }).await;
        subscribed.expect("a live controller").expect("an answer");
        let began = now();
        arbiter.spawn(report_all(agent));
        let ended = is_done.await.expect("all arrive");
        arbiter.stop();
        rate(ended - began)
    })
}

fn short_lived() -> Configuration {
    let node = |number| {
        let mut node = Node::new(node(number), instance(), Role::None);
        node.command = vec!["/bin/true".into()];
        node.ready.by = ReadyBy::Settle(Duration::ZERO);
        node.restart.mode = RestartMode::Never;
        node.into()
    };
    Configuration {
        id: name("books", ConfigurationId::new),
        instances: vec![Instance { name: instance(), host: None, port: None }],
        nodes: (0..NODES).map(node).collect(),
        zeek: None,
        peers: Vec::new(),
        keys: None,
    }
}

impl Handler<NewsBatch> for Sink {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        assert_eq!(batch.gap, None, "the log holds them all");
        self.count(batch.entries.len());
    }
}

/// Reports to the agent as its supervisors do, a batch whenever its turn comes.
async fn report_all(agent: Addr<Agent>) {
    // As a supervisor holds its node's name, and the limit its samples.
    let samples: Vec<_> = (0..NODES as u64).map(change).collect();
    for seq in 0..MESSAGES {
        let NotifyChange { node, reason, new, pid, exit, attempt, restarts, .. } = &samples[seq % NODES];
        let (node, reason, new, pid, exit) = (node.clone(), reason.clone(), *new, *pid, *exit);
        let (attempt, restarts) = (*attempt, *restarts);
        let report = NodeReport { node, new, pid, exit, attempt, restarts, reason, output: None, ticket: None };
        agent.do_send(FromSupervisor::Report(report));
        if seq % BATCH == 0 {
            yield_now().await;
        }
    }
}

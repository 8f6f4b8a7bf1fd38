//! How fast files of nodes get from a controller to an agent, over TLS: through the actors of both, from the disk of one to
//! the disk of the other, each byte hashed on its way.
//!
//! The limit is the same number of bytes through rustls on a blocking socket, out of memory and into nothing. Beside it stands
//! what is left of that where the bytes come from a file and go into one, hashed by a thread of its own: all that nobody who
//! keeps files can do without. What is measured is the phase of the deployment that fetches: by the controller's own log, from
//! its first word to that of the next.

mod common;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler};
use common::cluster::name;
use common::ends::port;
use common::figures::{Sample, line, now, options};
use common::keys::{CLUSTER, Keys};
use common::nursery::{PATIENCE, scratch};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use watchpost::agent::Agent;
use watchpost::bridge::{LinkRole, LinkSettings};
use watchpost::bundle::{Digester, Scan, scan};
use watchpost::controller::files::GetBlobs;
use watchpost::message::client::{News, NewsBatch, SetConfigurationRequest, Subscribe, Terms};
use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeFiles, NodeName, ReadyBy, RequestId, RestartMode,
    Role,
};
use watchpost::run::{AgentBridge, AgentOptions, ControllerBridge, ControllerOptions, start_agent, start_controller};

const GOAL: f64 = 0.7;
const ROUNDS: usize = 5;
/// How much is written at a time.
const PIECE: usize = 64 << 10;
const MIB: u64 = 1 << 20;

/// How many files there are, and how long each is.
const SHAPES: [(usize, u64); 3] = [(1, 128 * MIB), (32, 4 * MIB), (2000, 16 << 10)];

fn main() {
    let Some(options) = options() else { return };
    let keys = Keys::make([instance()]);
    println!("MiB a second: median (least to most)");
    for (count, length) in SHAPES {
        let home = scratch();
        let found = write(home.path(), count, length);
        let [mut limit, mut kept, mut fetched] = [(); 3].map(|()| Sample::default());
        let size = found.manifest.size();
        let [from, to] = ["from", "to"].map(|name| home.path().join(name));
        fs::write(&from, vec![7; size as usize]).expect("room for a file");
        for _ in 0..ROUNDS * options.factor {
            limit.add(over_tls(&keys, size, Memory, |_| {}));
            kept.add(kept_over_tls(&keys, size, &from, &to));
            fetched.add(by_agent(&keys, &found));
        }
        line(&format!("{count} files of {} KiB: bare TLS 1.3", length >> 10), &limit, None);
        line("from a file, through SHA-256, into a file", &kept, Some((&kept.over(&limit), None)));
        line("the same, from controller to agent", &fetched, Some((&fetched.over(&limit), Some(GOAL))));
    }
}

/// MiB a second.
fn rate(bytes: u64, nanoseconds: u64) -> f64 {
    bytes as f64 / MIB as f64 * 1e9 / nanoseconds as f64
}

fn instance() -> InstanceName {
    name("sensor-1.example", InstanceName::new)
}

/// Files of which no two pieces are the same.
fn write(home: &Path, count: usize, length: u64) -> Scan {
    let directory = home.join("files");
    fs::create_dir(&directory).expect("a directory");
    for number in 0..count {
        let words = (0..length / 8).map(|at| (number as u64) << 40 | at);
        let content: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        fs::write(directory.join(format!("list-{number}")), content).expect("room for files");
    }
    scan(home, &["files".to_owned()]).expect("files that can travel")
}

// --- the limit ---

/// Whatever is in memory already.
struct Memory;

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(into.len())
    }
}

fn over_tls(keys: &Keys, bytes: u64, mut from: impl Read + Send + 'static, mut to: impl FnMut(&[u8])) -> f64 {
    let (listener, address) = port();
    let near = TcpStream::connect(address).expect("a connection");
    let (far, _) = listener.accept().expect("its other end");
    let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let connect = keys.agents[0].credentials().connect.clone();
    let mut near = StreamOwned::new(ClientConnection::new(connect, nobody).expect("a client"), near);
    let accept = keys.control.credentials().accept.clone();
    let mut far = StreamOwned::new(ServerConnection::new(accept).expect("a server"), far);
    // The agent's end is the one that dials.
    let writer = std::thread::spawn(move || {
        far.read_exact(&mut [0]).expect("a reader that is there");
        let mut piece = vec![7; PIECE];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(PIECE as u64) as usize;
            from.read_exact(&mut piece[..length]).expect("as many bytes");
            far.write_all(&piece[..length]).expect("a reader");
            left -= length as u64;
        }
        far.flush().expect("a reader");
        far
    });
    near.write_all(&[0]).and_then(|()| near.flush()).expect("a writer");
    let (began, mut buffer, mut come) = (now(), vec![0; PIECE], 0);
    while come < bytes {
        let length = near.read(&mut buffer).expect("a writer");
        assert_ne!(length, 0, "all bytes arrive");
        to(&buffer[..length]);
        come += length as u64;
    }
    to(&[]);
    let took = now() - began;
    drop(writer.join().expect("the writer ends well"));
    rate(bytes, took)
}

fn kept_over_tls(keys: &Keys, bytes: u64, from: &Path, to: &Path) -> f64 {
    let (hand, handed) = sync_channel::<Vec<u8>>(64);
    let (from, mut to) = (File::open(from).expect("the file"), File::create(to).expect("room for a file"));
    let mut keeper = Some(std::thread::spawn(move || {
        let mut digester = Digester::new();
        for piece in handed {
            digester.update(&piece);
            to.write_all(&piece).expect("room for a file");
        }
        digester.finish()
    }));
    let mut hand = Some(hand);
    over_tls(keys, bytes, from, move |piece| match (piece.is_empty(), &hand) {
        (false, Some(hand)) => hand.send(piece.to_vec()).expect("somebody who keeps it"),
        _ => {
            hand = None;
            black_box(keeper.take().map(|keeper| keeper.join().expect("the keeper ends well")));
        }
    })
}

// --- from controller to agent ---

fn by_agent(keys: &Keys, found: &Scan) -> f64 {
    let home = scratch();
    let control = LinkSettings { trust: Some(Arc::clone(&keys.control)), ..link(LinkRole::Controller) };
    let sensor = LinkSettings { trust: Some(Arc::clone(&keys.agents[0])), ..link(LinkRole::Agent) };
    actix::System::new().block_on(async {
        let options = ControllerOptions::new(name("control", InstanceName::new), home.path());
        let controller = start_controller(options).expect("a controller");
        let blobs = controller.send(GetBlobs).await.expect("a live controller").expect("an answer").expect("files");
        let scan = found.clone();
        blobs.apart(move |blobs| blobs.take(&scan)).await.expect("room for files");
        let (socket, address) = port();
        let _listener = ControllerBridge::accept(socket, control, &controller).expect("a listener");
        let nodes = home.path().join("nodes");
        let (arbiter, (agent, is_agent)) = (Arbiter::new(), oneshot::channel());
        arbiter.spawn(async move {
            let started = start_agent(AgentOptions::new(instance(), nodes)).expect("an agent");
            let _bridge = AgentBridge::open(&started, &sensor, None, Some(address.into())).expect("a dialler");
            let _ = agent.send(started); // awaited below
            std::future::pending().await
        });
        let _agent: Addr<Agent> = is_agent.await.expect("an agent");
        let (tell, mut told) = unbounded_channel();
        let to = Ear(tell).start().recipient();
        controller.send(Subscribe { since: None, to }).await.expect("a live controller").expect("an answer");
        let (reqid, configuration) = (name("deploy", RequestId::new), with(found));
        let request = SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() };
        let deployed = controller.send(request).await.expect("a live controller").expect("an answer");
        assert!(deployed.configuration.is_some(), "{:?}", deployed.outcomes);
        let (began, ended) = (said(&mut told, "getting files to").await, said(&mut told, "checking on").await);
        arbiter.stop();
        rate(found.manifest.size(), (ended - began).as_nanos() as u64)
    })
}

fn link(role: LinkRole) -> LinkSettings {
    let own = if role == LinkRole::Agent { instance().to_string() } else { "control".into() };
    LinkSettings::new(role, own, CLUSTER)
}

/// A node that finds these files, and ends as soon as it runs.
fn with(found: &Scan) -> Configuration {
    let mut node = Node::new(name("reads", NodeName::new), instance(), Role::None);
    node.command = vec!["/bin/true".into()];
    node.ready.by = ReadyBy::Settle(Duration::ZERO);
    node.restart.mode = RestartMode::Never;
    node.files = Some(Box::new(NodeFiles { paths: vec!["files".into()], bundle: Some(found.manifest.id()) }));
    Configuration {
        instances: vec![Instance { name: instance(), host: None, port: None }],
        nodes: vec![node.into()],
        ..Configuration::empty(name("files", ConfigurationId::new))
    }
}

/// When the controller said a line with these words.
async fn said(told: &mut UnboundedReceiver<(Duration, String)>, words: &str) -> Duration {
    loop {
        let said = tokio::time::timeout(PATIENCE, told.recv()).await.expect("it says so in time");
        let (at, msg) = said.expect("it says so");
        if msg.contains(words) {
            return at;
        }
    }
}

/// Hears what the controller says of itself, and when it said that.
struct Ear(UnboundedSender<(Duration, String)>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<NewsBatch> for Ear {
    type Result = ();

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
        for entry in batch.entries {
            if let News::Log(log) = &entry.news {
                // Whoever listened may have heard enough.
                let _ = self.0.send((Duration::from_micros(entry.time.0), log.msg.clone()));
            }
        }
    }
}

//! What one link costs: a question to an agent's actor and its answer, and the memory of a link that has nothing to say.
//!
//! A question goes from an actor, over the bridge, to an agent's actor, and its answer comes back the same way. The floor is
//! one byte there and one byte back, between two threads that block on their sockets. On a virtual machine such a trip has
//! two speeds, as the peer wakes on a processor that runs or on one that has to be woken; so the best round counts.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Arbiter, Context, Handler, Recipient};
use common::cluster::name;
use common::ends::{owner, port};
use common::figures::{Sample, line, now, options};
use common::keys::{CLUSTER, Keys};
use common::nursery::scratch;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use tokio::sync::{mpsc, oneshot};
use watchpost::bridge::{LinkDown, LinkId, LinkRole, LinkSettings, LinkUp, Mail, NotKnown, dial, listen};
use watchpost::message::agent::{GetNodesRequest, NewsReceived, ToAgent, ToController};
use watchpost::model::{InstanceName, RequestId};
use watchpost::run::{AgentBridge, AgentOptions, start_agent};

const ROUNDS: usize = 8;
/// Questions in a round.
const TRIPS: usize = 4000;
/// Links that are idle.
const LINKS: usize = 400;
const PLAIN_GOAL: f64 = 1.5;
const TLS_GOAL: f64 = 1.7;
const PLAIN_BYTES: f64 = 4096.0;
const TLS_BYTES: f64 = 16_384.0;

fn main() {
    let Some(options) = options() else { return };
    let keys = Keys::make([instance()]);
    let [mut echo, mut asked, mut sealed_echo, mut sealed_asked] = [(); 4].map(|()| Trips::default());
    for _ in 0..ROUNDS * options.factor {
        echo.add(&echoes(None));
        asked.add(&questions(None));
        sealed_echo.add(&echoes(Some(&keys)));
        sealed_asked.add(&questions(Some(&keys)));
    }
    println!("{TRIPS} round trips a round, microseconds: median of the rounds (least to most)");
    for (what, trips, floor, goal) in
        [("plain", &asked, &echo, PLAIN_GOAL), ("TLS 1.3", &sealed_asked, &sealed_echo, TLS_GOAL)]
    {
        line(&format!("{what}: one byte and back, p50"), &floor.p50, None);
        line(&format!("{what}: a question to an agent, p50"), &trips.p50, Some((&trips.p50.over(&floor.p50), None)));
        let best = trips.p50.quantile(0.0) / floor.p50.quantile(0.0);
        line("  the best round of each", "", Some((&[best].into_iter().collect(), Some(goal))));
        line(&format!("{what}: one byte and back, p99"), &floor.p99, None);
        line(&format!("{what}: a question to an agent, p99"), &trips.p99, Some((&trips.p99.over(&floor.p99), None)));
    }
    println!("one idle link of {LINKS}, bytes of the heap at the listening end, after a heartbeat");
    for (what, keys, goal) in [("plain", None, PLAIN_BYTES), ("TLS 1.3", Some(&keys), TLS_BYTES)] {
        let bytes: Sample = (0..3).map(|_| idle(keys)).collect();
        line(what, &bytes, Some((&bytes.scaled(1.0 / goal), Some(1.0))));
    }
}

fn instance() -> InstanceName {
    name("sensor-1.example", InstanceName::new)
}

/// Round trips in microseconds, round by round.
#[derive(Default)]
struct Trips {
    p50: Sample,
    p99: Sample,
}

impl Trips {
    fn add(&mut self, round: &Sample) {
        self.p50.add(round.median());
        self.p99.add(round.quantile(0.99));
    }
}

fn micros(began: u64) -> f64 {
    (now() - began) as f64 / 1000.0
}

// --- the floor ---

fn echoes(keys: Option<&Keys>) -> Sample {
    let (listener, address) = port();
    let near = TcpStream::connect(address).expect("a connection");
    let (far, _) = listener.accept().expect("its other end");
    [&near, &far].into_iter().for_each(|stream| stream.set_nodelay(true).expect("a socket"));
    match keys {
        None => echo(near, far),
        Some(keys) => {
            let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
            let connect = keys.agents[0].credentials().connect.clone();
            let near = StreamOwned::new(ClientConnection::new(connect, nobody).expect("a client"), near);
            let accept = keys.control.credentials().accept.clone();
            echo(near, StreamOwned::new(ServerConnection::new(accept).expect("a server"), far))
        }
    }
}

fn echo(mut near: impl Read + Write + Send + 'static, mut far: impl Read + Write) -> Sample {
    let asking = std::thread::spawn(move || {
        let mut byte = [7];
        let mut trip = |_| {
            let began = now();
            near.write_all(&byte)
                .and_then(|()| near.flush())
                .and_then(|()| near.read_exact(&mut byte))
                .expect("an echo");
            micros(began)
        };
        let _warming: f64 = (0..TRIPS / 10).map(&mut trip).sum();
        (0..TRIPS).map(trip).collect()
    });
    let mut byte = [0];
    for _ in 0..TRIPS + TRIPS / 10 {
        far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).and_then(|()| far.flush()).expect("a peer");
    }
    asking.join().expect("the asking ends well")
}

// --- questions to an agent's actor ---

fn questions(keys: Option<&Keys>) -> Sample {
    let home = scratch();
    let (control, sensor) = both_ends(keys);
    actix::System::new().block_on(async {
        let (done, is_done) = oneshot::channel();
        let asker =
            Asker { link: None, began: 0, left: TRIPS + TRIPS / 10, trips: Sample::default(), done: Some(done) };
        let asker = asker.start();
        let (socket, address) = port();
        let _listener = listen::<ToController, ToAgent>(socket, control, owner(&asker)).expect("a listener");
        let (arbiter, nodes) = (Arbiter::new(), home.path().join("nodes"));
        arbiter.spawn(async move {
            let agent = start_agent(AgentOptions::new(instance(), nodes)).expect("an agent");
            let _bridge = AgentBridge::open(&agent, &sensor, None, Some(address.into())).expect("a dialler");
            std::future::pending().await
        });
        let trips = is_done.await.expect("all are answered");
        arbiter.stop();
        trips
    })
}

fn both_ends(keys: Option<&Keys>) -> (LinkSettings, LinkSettings) {
    let link = |role, own: &str, trust| LinkSettings { trust, ..LinkSettings::new(role, own, CLUSTER) };
    let control = link(LinkRole::Controller, "control", keys.map(|keys| Arc::clone(&keys.control)));
    let sensor = link(LinkRole::Agent, instance().as_str(), keys.map(|keys| Arc::clone(&keys.agents[0])));
    (control, sensor)
}

/// Asks as soon as the last answer has come.
struct Asker {
    link: Option<(LinkId, Recipient<Mail<ToAgent>>)>,
    began: u64,
    left: usize,
    trips: Sample,
    done: Option<oneshot::Sender<Sample>>,
}

impl Asker {
    fn say(&self, message: impl Into<ToAgent>) {
        if let Some((link, out)) = &self.link {
            out.do_send(Mail { link: *link, messages: vec![message.into()] });
        }
    }

    fn ask(&mut self) {
        self.began = now();
        self.say(GetNodesRequest { reqid: name("nodes", RequestId::new) });
    }
}

impl Actor for Asker {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToAgent>> for Asker {
    type Result = ();

    fn handle(&mut self, LinkUp { link, out, .. }: LinkUp<ToAgent>, _: &mut Context<Self>) {
        self.link = Some((link, out));
        self.say(NewsReceived { epoch: 0, seq: 0, kept: 0 });
        self.ask();
    }
}

impl Handler<Mail<ToController>> for Asker {
    type Result = ();

    fn handle(&mut self, mail: Mail<ToController>, _: &mut Context<Self>) {
        if !mail.messages.iter().any(|message| matches!(message, ToController::GetNodesResponse(_))) {
            return;
        }
        if self.left < TRIPS {
            self.trips.add(micros(self.began));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.ask();
            }
            None => {
                if let Some(done) = self.done.take() {
                    let _ = done.send(std::mem::take(&mut self.trips)); // awaited by the round
                }
            }
        }
    }
}

impl Handler<NotKnown> for Asker {
    type Result = ();
    fn handle(&mut self, _: NotKnown, _: &mut Context<Self>) {}
}

impl Handler<LinkDown> for Asker {
    type Result = ();
    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {}
}

// --- the memory of an idle link ---

/// Short, so that a link has soon given back what it does not need.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Bytes of a link at the listening end.
fn idle(keys: Option<&Keys>) -> f64 {
    let (control, sensor) = both_ends(keys);
    let (control, sensor) =
        (LinkSettings { heartbeat: HEARTBEAT, ..control }, LinkSettings { heartbeat: HEARTBEAT, ..sensor });
    actix::System::new().block_on(async {
        let (up, mut is_up) = mpsc::unbounded_channel();
        let counter = Counter(up).start();
        let (socket, address) = port();
        let _listener = listen::<ToController, ToAgent>(socket, control, owner(&counter)).expect("a listener");
        let before = LIVE.get();
        let arbiter = Arbiter::new();
        arbiter.spawn(async move {
            let ear = Ear.start();
            let dial = |_| dial::<ToAgent, ToController>(address, None, sensor.clone(), owner(&ear));
            let _diallers: Vec<_> = (0..LINKS).map(dial).collect();
            std::future::pending().await
        });
        for _ in 0..LINKS {
            is_up.recv().await.expect("all links stand");
        }
        tokio::time::sleep(HEARTBEAT * 3).await;
        let grown = LIVE.get() - before;
        arbiter.stop();
        grown as f64 / LINKS as f64
    })
}

/// Counts links, and does nothing else.
struct Counter(mpsc::UnboundedSender<()>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToAgent>> for Counter {
    type Result = ();
    fn handle(&mut self, _: LinkUp<ToAgent>, _: &mut Context<Self>) {
        let _ = self.0.send(()); // heard at the end
    }
}

impl Handler<Mail<ToController>> for Counter {
    type Result = ();
    fn handle(&mut self, _: Mail<ToController>, _: &mut Context<Self>) {}
}

impl Handler<NotKnown> for Counter {
    type Result = ();
    fn handle(&mut self, _: NotKnown, _: &mut Context<Self>) {}
}

impl Handler<LinkDown> for Counter {
    type Result = ();
    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {}
}

/// The other ends.
struct Ear;

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToController>> for Ear {
    type Result = ();
    fn handle(&mut self, _: LinkUp<ToController>, _: &mut Context<Self>) {}
}

impl Handler<Mail<ToAgent>> for Ear {
    type Result = ();
    fn handle(&mut self, _: Mail<ToAgent>, _: &mut Context<Self>) {}
}

impl Handler<NotKnown> for Ear {
    type Result = ();
    fn handle(&mut self, _: NotKnown, _: &mut Context<Self>) {}
}

impl Handler<LinkDown> for Ear {
    type Result = ();
    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {}
}

thread_local! {
    /// What this thread has allocated and not given back, in bytes.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no cell any more, and nothing is measured in it.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

/// The system's allocator, watched.
struct Watched;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

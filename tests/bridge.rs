//! Two ends of a link over loopback, and what hostile, broken and slow peers do to it: nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use watchpost::bridge::greeting::{Control, Greeting, Heartbeat, MAGIC, NotUnderstood};
use watchpost::bridge::*;
use watchpost::message::agent::{AgentRefused, NewsReceived, NotifyLog, ToAgent, ToController};
use watchpost::message::frame::{FrameError, MAX_FRAME, Wire, append, split};
use watchpost::model::{InstanceName, Timestamp};

#[actix_rt::test]
async fn messages_go_both_ways_in_order() {
    let mut controller = Ear::<ToController, ToAgent>::open();
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (socket, addr) = socket();
    let _listener = listen(socket, control(), controller.owner()).unwrap();
    let _dialer = dial(addr, Some("control".into()), sensor(), agent.owner());

    let (below, above) = (controller.up().await, agent.up().await);
    assert_eq!(below.peer, Peer { name: "sensor-1".into(), host: Some(addr.ip()), dialled: None });
    assert_eq!(above.peer, Peer { name: "control".into(), host: Some(addr.ip()), dialled: Some(addr.port()) });
    for seq in (1..=5000).step_by(5) {
        below.out.do_send(Mail { link: below.link, messages: (seq..seq + 5).map(news).collect() });
        above.out.do_send(Mail { link: above.link, messages: (seq..seq + 5).map(|seq| log(seq, "")).collect() });
    }
    assert_eq!(agent.messages(5000).await, (1..=5000).map(news).collect::<Vec<_>>());
    assert_eq!(controller.messages(5000).await, (1..=5000).map(|seq| log(seq, "")).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn what_was_queued_before_an_ordered_end_still_arrives() {
    let (mut controller, mut agent, _alive) = pair(control(), sensor()).await;
    let below = controller.up().await;
    agent.up().await;
    let refused = ToAgent::from(AgentRefused { reason: "x".repeat(8 << 20) });
    below.out.do_send(Mail { link: below.link, messages: vec![refused.clone()] });
    below.end.do_send(EndLink { link: below.link, reason: "you were refused".into() });
    assert_eq!(agent.messages(1).await, [refused]);
    assert_eq!(agent.down().await, "the peer closed the connection");
    assert_eq!(controller.down().await, "you were refused");
}

#[actix_rt::test]
async fn the_wish_to_end_an_older_link_leaves_this_one_alone() {
    let (mut controller, mut agent, _alive) = pair(control(), sensor()).await;
    let below = controller.up().await;
    agent.up().await;
    below.end.do_send(EndLink { link: LinkId(0), reason: "late".into() });
    below.out.do_send(Mail { link: below.link, messages: vec![news(1)] });
    assert_eq!(agent.messages(1).await, [news(1)]);
}

#[actix_rt::test]
async fn a_stranger_is_refused_after_four_bytes() {
    let mut end = Listening::with(control());
    let mut stranger = Raw::connect(end.addr).await;
    stranger.0.write_all(b"GET ").await.unwrap();
    assert!(stranger.refused().await.contains("does not speak this protocol"));
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn a_peer_from_the_future_is_welcome() {
    let mut end = Listening::with(control());
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting { protocol: 999, ..Greeting::of(&sensor()) }).await;
    assert_eq!(end.ear.up().await.peer.name, "sensor-1");
}

#[actix_rt::test]
async fn a_frame_over_the_cap_ends_the_link_before_its_bytes_come() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    peer.0.write_all(&(MAX_FRAME as u32).to_be_bytes()).await.unwrap();
    let reason = format!("a frame of {} bytes is over the limit of {MAX_FRAME}", MAX_FRAME + 4);
    assert_eq!(peer.refused().await, reason);
    drop(peer);
    assert_eq!(end.ear.down().await, reason);
}

#[actix_rt::test]
async fn a_truncated_frame_is_told_from_an_orderly_goodbye() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    let bytes = framed(&log(1, "cut"));
    peer.0.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    drop(peer);
    assert_eq!(end.ear.down().await, "the peer closed the connection in the middle of a frame");
}

#[actix_rt::test]
async fn silence_after_connecting_is_not_waited_for_longer_than_the_greeting_may_take() {
    let mut end = Listening::with(LinkSettings { greeting_within: Duration::from_millis(50), ..control() });
    let mut silent = Raw::connect(end.addr).await;
    within(silent.0.read_to_end(&mut Vec::new())).await.unwrap();
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn garbage_after_the_greeting_ends_the_link_behind_what_was_said_before() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    peer.0.write_all(&[framed(&log(1, "")), vec![0; 64]].concat()).await.unwrap();
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
    let reason = peer.refused().await;
    assert_eq!(reason, "a frame of 4 bytes is too short for its own header");
    drop(peer);
    assert_eq!(end.ear.down().await, reason);
}

#[actix_rt::test]
async fn an_unknown_kind_is_answered_and_the_link_stays() {
    let (mut end, mut peer, _up) = greeted(control()).await;
    let mut bytes = Vec::new();
    append(&mut bytes, 0x0abc, "Future", &"something new").unwrap();
    bytes.extend(framed(&log(1, "")));
    peer.0.write_all(&bytes).await.unwrap();
    assert_eq!(peer.frame().await, Control::from(NotUnderstood { kind: 0x0abc }));
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
}

#[actix_rt::test]
async fn a_peer_that_greets_and_then_says_nothing_is_lost_after_three_intervals() {
    let heartbeat = Duration::from_millis(60);
    let (mut end, mut peer, _up) = greeted(LinkSettings { heartbeat, ..control() }).await;
    let greeted_at = Instant::now();
    assert_eq!(end.ear.down().await, "nothing was heard from the peer for 180ms");
    assert!(greeted_at.elapsed() >= 2 * heartbeat, "{:?}", greeted_at.elapsed());
    assert_eq!(peer.frame().await, Control::from(Heartbeat {}), "it was told that this end lives");
}

#[actix_rt::test]
async fn two_quiet_ends_keep_their_link_by_heartbeats() {
    let heartbeat = Duration::from_millis(60);
    let (mut controller, mut agent, _alive) =
        pair(LinkSettings { heartbeat, ..control() }, LinkSettings { heartbeat, ..sensor() }).await;
    let below = controller.up().await;
    agent.up().await;
    // A third link, whose peer never beats, shows when the time of two silences is over.
    let (mut clock, _silent, _up) = greeted(LinkSettings { heartbeat: 2 * heartbeat, ..control() }).await;
    clock.ear.down().await;
    below.out.do_send(Mail { link: below.link, messages: vec![news(1)] });
    assert_eq!(agent.messages(1).await, [news(1)]);
    controller.hears_nothing();
}

#[actix_rt::test]
async fn an_idle_link_wakes_no_more_often_than_heartbeats_explain() {
    let mut ear = Ear::<ToController, ToAgent>::open();
    let (near, far) = tokio::io::duplex(4096);
    let polls = Rc::new(AtomicUsize::new(0));
    let stream = Box::new(Counting { stream: near, polls: Rc::clone(&polls) });
    let settings = LinkSettings { heartbeat: Duration::from_millis(20), ..control() };
    Bridge::carry(connection(stream), Rc::new(settings), ear.owner());
    let mut peer = Raw(far);
    peer.greet(Greeting::of(&sensor())).await;
    ear.up().await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(peer.frame().await, Control::from(Heartbeat {}));
        peer.0.write_all(&framed(&Control::from(Heartbeat {}))).await.unwrap();
    }
    // Of each interval: one wake-up to beat, one to hear, which reads twice: the heartbeat, and that there is no more.
    let polled = polls.load(Ordering::Relaxed) - before;
    assert!(polled <= 10 * 3 + 3, "{polled} reads in ten intervals");
}

#[actix_rt::test]
async fn a_peer_that_does_not_read_loses_its_link_and_harms_no_other() {
    let (cap, batch) = (4 << 20, 100 << 10);
    let (mut end, _deaf, deaf) = greeted(LinkSettings { unsent_cap: cap, ..control() }).await;
    let mut other = Raw::connect(end.addr).await;
    other.greet(Greeting { name: "sensor-2".into(), ..Greeting::of(&sensor()) }).await;
    let alive = end.ear.up().await;

    let flood = ToAgent::from(AgentRefused { reason: "x".repeat(batch) });
    let reason = loop {
        deaf.out.do_send(Mail { link: deaf.link, messages: vec![flood.clone()] });
        tokio::task::yield_now().await;
        if let Ok(heard) = end.ear.heard.try_recv() {
            let Heard::Down(down) = heard else { panic!("only the end is left to hear") };
            assert_eq!(down.link, deaf.link);
            break down.reason;
        }
    };
    let unsent = reason.strip_prefix("the peer does not read: ").and_then(|rest| rest.split(' ').next());
    let unsent: usize = unsent.unwrap_or_else(|| panic!("{reason}")).parse().unwrap();
    assert!((cap..=cap + 2 * batch).contains(&unsent), "{reason}");

    alive.out.do_send(Mail { link: alive.link, messages: vec![news(1)] });
    let (kind, body) = other.any_frame().await;
    assert_eq!(ToAgent::decode(kind, &body).unwrap(), news(1));
}

#[actix_rt::test]
async fn an_owner_that_awaits_its_mail_is_held_to_the_pace_of_the_peer() {
    let (_end, mut peer, up) = greeted(control()).await;
    let flood = ToAgent::from(AgentRefused { reason: "x".repeat(MAX_FRAME / 2) });
    let mail = || Mail { link: up.link, messages: vec![flood.clone()] };
    let mut results = Box::pin(futures_util::future::join_all([mail(), mail()].map(|mail| up.out.send(mail))));
    let early = futures_util::future::select(&mut results, Box::pin(peer.0.readable())).await;
    assert!(matches!(early, futures_util::future::Either::Right(_)), "the peer has read nothing yet");
    drop(early);
    let drained = async {
        for _ in 0..2 {
            peer.any_frame().await;
        }
    };
    let (results, ()) = within(futures_util::future::join(results, drained)).await;
    assert!(results.into_iter().all(|result| result.is_ok()));
}

#[actix_rt::test]
async fn a_refused_greeting_is_seen_by_both() {
    let mut end = Listening::with(control());
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (ended, refusal) = oneshot::channel();
    let stream = Box::new(TcpStream::connect(end.addr).await.unwrap());
    let expect = Some("other-control".to_owned());
    let connection = Connection { expect, ended: Some(ended), ..connection(stream) };
    Bridge::carry(connection, Rc::new(sensor()), agent.owner());

    let Ended { stood, reason } = within(refusal).await.unwrap();
    assert!(reason.contains("`control` answered where `other-control` was expected"), "{reason}");
    assert_eq!(stood, None);
    agent.hears_nothing();
    end.ear.up().await; // it found nothing wrong with the agent
    let told = end.ear.down().await;
    assert!(told.starts_with("the peer refuses this end") && told.contains("`other-control`"), "{told}");
}

#[actix_rt::test]
async fn two_controllers_and_two_clusters_do_not_mix() {
    let mut end = Listening::with(control());
    for (greeting, words) in [
        (Greeting::of(&control()), "both ends are a controller"),
        (Greeting { cluster: "other".into(), ..Greeting::of(&sensor()) }, "cluster `other`"),
        (Greeting { protocol: 0, ..Greeting::of(&sensor()) }, "protocol version 0"),
    ] {
        let mut peer = Raw::connect(end.addr).await;
        peer.greet(greeting).await;
        let reason = peer.refused().await;
        assert!(reason.contains(words), "{reason}");
    }
    end.ear.hears_nothing();
}

#[actix_rt::test]
async fn connections_that_never_greet_make_room_for_new_ones() {
    let mut end = Listening::with(LinkSettings { ungreeted: 2, ..control() });
    let mut oldest = Raw::connect(end.addr).await;
    within(oldest.0.read_exact(&mut [0; 4])).await.unwrap();
    let _second = Raw::connect(end.addr).await;
    let mut third = Raw::connect(end.addr).await;
    within(oldest.0.read_to_end(&mut Vec::new())).await.unwrap();
    third.greet(Greeting::of(&sensor())).await;
    assert_eq!(end.ear.up().await.peer.name, "sensor-1");
}

#[actix_rt::test]
async fn a_dialler_comes_back_when_the_listener_does() {
    let mut agent = Ear::<ToAgent, ToController>::open();
    let (first, addr) = socket();
    let settings =
        LinkSettings { backoff_min: Duration::from_millis(5), backoff_max: Duration::from_millis(40), ..sensor() };
    let dialer = dial(addr, None, settings, agent.owner());
    let mut ids = Vec::new();
    let mut socket = Some(first);
    for _ in 0..2 {
        let mut controller = Ear::<ToController, ToAgent>::open();
        let socket = socket.take().unwrap_or_else(|| std::net::TcpListener::bind(addr).unwrap());
        let listener = listen(socket, control(), controller.owner()).unwrap();
        let below = controller.up().await;
        ids.push(agent.up().await.link);
        listener.stop();
        // The port is free when nobody can connect to it any more.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        below.end.do_send(EndLink { link: below.link, reason: "the controller restarts".into() });
        controller.down().await;
        assert_eq!(agent.down().await, "the peer closed the connection");
    }
    assert_ne!(ids[0], ids[1], "each life of a link has a number of its own");
    dialer.stop();
}

#[actix_rt::test]
async fn a_stopped_dialler_ends_its_link_in_order() {
    let mut end = Listening::with(control());
    let mut agent = Ear::<ToAgent, ToController>::open();
    let dialer = dial(end.addr, None, sensor(), agent.owner());
    let above = agent.up().await;
    end.ear.up().await;
    within(above.out.send(Mail { link: above.link, messages: vec![log(1, "")] })).await.unwrap();
    dialer.stop();
    assert_eq!(agent.down().await, "this end no longer dials");
    assert_eq!(end.ear.messages(1).await, [log(1, "")]);
    end.ear.down().await;
}

#[actix_rt::test]
async fn a_slow_owner_stops_the_reading_and_loses_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    // So short that the pause is longer than three heartbeats: an owner at work does not make its peer look dead.
    let heartbeat = Duration::from_millis(20);
    let mut end = Listening::over(Ear::behind(Arc::clone(&gate)), LinkSettings { heartbeat, ..control() });
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    end.ear.up().await;

    let text = "x".repeat(1000);
    let total = 40_000;
    let bytes: Vec<u8> = (1..=total).flat_map(|seq| framed(&log(seq, &text))).collect();
    let (mut from, mut to) = tokio::io::split(peer.0);
    let written = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    actix_rt::spawn(async move {
        let mut at = 0;
        while at < bytes.len() {
            at += to.write(&bytes[at..]).await.unwrap();
            progress.store(at, Ordering::Relaxed);
        }
    });
    // Ten heartbeats of the slow end go by; the writer stands still well before its forty megabytes are gone.
    let mut beats = Vec::new();
    while beats.len() < 80 {
        assert_ne!(within(from.read_buf(&mut beats)).await.unwrap(), 0, "the link ended");
    }
    let stuck_at = written.load(Ordering::Relaxed);
    assert!(stuck_at < 30 << 20, "{stuck_at} bytes were taken from a link whose owner takes none");
    end.ear.hears_at_most_one_batch();

    gate.add_permits(Semaphore::MAX_PERMITS);
    let want: Vec<_> = (1..=total).map(|seq| log(seq, &text)).collect();
    assert!(end.ear.messages(want.len()).await == want, "all of it came, in order");
}

#[actix_rt::test]
async fn a_link_ends_when_its_owner_is_gone() {
    let mut end = Listening::with(control());
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    end.ear.up().await;
    end.ear.addr.do_send(Stop);
    peer.0.write_all(&framed(&log(1, ""))).await.unwrap();
    within(peer.0.read_to_end(&mut Vec::new())).await.unwrap();
}

#[actix_rt::test]
async fn a_panic_in_the_bridge_actor_still_tells_that_the_link_is_down() {
    let mut ear = Ear::<ToController, Explosive>::open();
    let (socket, addr) = socket();
    let _listener = listen(socket, control(), ear.owner()).unwrap();
    let mut peer = Raw::connect(addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    let up = ear.up().await;
    up.out.do_send(Mail { link: up.link, messages: vec![Explosive] });
    assert!(ear.down().await.contains("panic"));
    within(peer.0.read_to_end(&mut Vec::new())).await.unwrap();
    ear.hears_nothing();
}

/// A message that cannot be encoded without a panic.
struct Explosive;

impl Wire for Explosive {
    fn append_to(&self, _: &mut Vec<u8>) -> Result<(), FrameError> {
        panic!("an explosive message");
    }
    fn decode(kind: u16, _: &[u8]) -> Result<Self, FrameError> {
        Err(FrameError::UnknownKind { kind })
    }
    fn name(&self) -> &'static str {
        "explosive"
    }
}

/// What an owner hears.
enum Heard<In: Wire, Out: Wire> {
    Up(LinkUp<Out>),
    Mail(Mail<In>),
    Down(LinkDown),
}

/// An owner that repeats what it hears to a test; its mail waits at a gate, if it has one.
struct Repeat<In: Wire, Out: Wire> {
    to: mpsc::UnboundedSender<Heard<In, Out>>,
    gate: Option<Arc<Semaphore>>,
}

impl<In: Wire, Out: Wire> Actor for Repeat<In, Out> {
    type Context = Context<Self>;
}

impl<In: Wire, Out: Wire> Handler<LinkUp<Out>> for Repeat<In, Out> {
    type Result = ();
    fn handle(&mut self, up: LinkUp<Out>, _: &mut Context<Self>) {
        let _ = self.to.send(Heard::Up(up));
    }
}

impl<In: Wire, Out: Wire> Handler<Mail<In>> for Repeat<In, Out> {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, mail: Mail<In>, _: &mut Context<Self>) -> ResponseFuture<()> {
        let _ = self.to.send(Heard::Mail(mail));
        let gate = self.gate.clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
        })
    }
}

impl<In: Wire, Out: Wire> Handler<LinkDown> for Repeat<In, Out> {
    type Result = ();
    fn handle(&mut self, down: LinkDown, _: &mut Context<Self>) {
        let _ = self.to.send(Heard::Down(down));
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Stop;

impl<In: Wire, Out: Wire> Handler<Stop> for Repeat<In, Out> {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        actix::ActorContext::stop(ctx);
    }
}

/// The test's end of an owner.
struct Ear<In: Wire, Out: Wire> {
    heard: mpsc::UnboundedReceiver<Heard<In, Out>>,
    addr: actix::Addr<Repeat<In, Out>>,
}

impl<In: Wire, Out: Wire> Ear<In, Out> {
    fn open() -> Self {
        Self::new(None)
    }

    fn behind(gate: Arc<Semaphore>) -> Self {
        Self::new(Some(gate))
    }

    fn new(gate: Option<Arc<Semaphore>>) -> Self {
        let (to, heard) = mpsc::unbounded_channel();
        Self { heard, addr: Repeat { to, gate }.start() }
    }

    fn owner(&self) -> Owner<In, Out> {
        let addr = &self.addr;
        Owner { up: addr.clone().recipient(), mail: addr.clone().recipient(), down: addr.clone().recipient() }
    }

    async fn up(&mut self) -> LinkUp<Out> {
        match within(self.heard.recv()).await {
            Some(Heard::Up(up)) => up,
            Some(Heard::Mail(_)) => panic!("mail instead of a link"),
            Some(Heard::Down(down)) => panic!("{down:?} instead of a link"),
            None => panic!("the owner is gone"),
        }
    }

    async fn messages(&mut self, count: usize) -> Vec<In> {
        let mut messages = Vec::new();
        while messages.len() < count {
            match within(self.heard.recv()).await {
                Some(Heard::Mail(mail)) => messages.extend(mail.messages),
                Some(Heard::Down(down)) => panic!("{down:?} after {} messages", messages.len()),
                Some(Heard::Up(_)) | None => panic!("no mail after {} messages", messages.len()),
            }
        }
        messages
    }

    async fn down(&mut self) -> String {
        match within(self.heard.recv()).await {
            Some(Heard::Down(down)) => down.reason,
            Some(Heard::Up(_) | Heard::Mail(_)) | None => panic!("anything but the end"),
        }
    }

    fn hears_nothing(&mut self) {
        assert!(self.heard.try_recv().is_err(), "the owner heard something");
    }

    fn hears_at_most_one_batch(&mut self) {
        assert!(self.heard.len() <= 1, "{} batches at once", self.heard.len());
    }
}

/// A controller's listener with its owner.
struct Listening {
    ear: Ear<ToController, ToAgent>,
    addr: SocketAddr,
    _listener: Listener,
}

impl Listening {
    fn with(settings: LinkSettings) -> Self {
        Self::over(Ear::open(), settings)
    }

    fn over(ear: Ear<ToController, ToAgent>, settings: LinkSettings) -> Self {
        let (socket, addr) = socket();
        let _listener = listen(socket, settings, ear.owner()).unwrap();
        Self { ear, addr, _listener }
    }
}

/// A peer made by hand.
struct Raw<S>(S);

impl Raw<TcpStream> {
    async fn connect(addr: SocketAddr) -> Self {
        Self(within(TcpStream::connect(addr)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Sends a greeting and reads that of the other end.
    async fn greet(&mut self, greeting: Greeting) {
        self.0.write_all(&[MAGIC.to_vec(), framed(&Control::from(greeting))].concat()).await.unwrap();
        let mut magic = [0; 4];
        within(self.0.read_exact(&mut magic)).await.unwrap();
        assert_eq!(magic, MAGIC);
        assert!(matches!(self.frame().await, Control::Greeting(_)));
    }

    async fn any_frame(&mut self) -> (u16, Vec<u8>) {
        let mut bytes = vec![0; 4];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes.resize(4 + u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize, 0);
        within(self.0.read_exact(&mut bytes[4..])).await.unwrap();
        let frame = split(&bytes, MAX_FRAME).unwrap().unwrap();
        (frame.kind, frame.body.to_vec())
    }

    async fn frame(&mut self) -> Control {
        let (kind, body) = self.any_frame().await;
        Control::decode(kind, &body).unwrap()
    }

    /// Reads to the end; the last frame must be a refusal, whose reason comes back.
    async fn refused(&mut self) -> String {
        let mut bytes = Vec::new();
        within(self.0.read_to_end(&mut bytes)).await.unwrap();
        let mut rest = bytes.strip_prefix(&MAGIC).unwrap_or(&bytes);
        let mut last = None;
        while let Some(frame) = split(rest, MAX_FRAME).unwrap() {
            last = Some(Control::decode(frame.kind, frame.body).unwrap());
            rest = &rest[frame.size..];
        }
        let Some(Control::Refused(refused)) = last else { panic!("{last:?} instead of a refusal") };
        refused.reason
    }
}

/// A stream that counts how often it is read from.
struct Counting<S> {
    stream: S,
    polls: Rc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Task<'_>, room: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(task, room)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

fn control() -> LinkSettings {
    LinkSettings::new(LinkRole::Controller, "control", "lab")
}

fn sensor() -> LinkSettings {
    LinkSettings::new(LinkRole::Agent, "sensor-1", "lab")
}

fn socket() -> (std::net::TcpListener, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn connection(stream: Box<dyn Stream>) -> Connection {
    Connection { stream, host: [127, 0, 0, 1].into(), dialled: None, expect: None, ended: None }
}

/// A listening controller and a dialling agent; the handles keep them going.
async fn pair(
    control: LinkSettings,
    sensor: LinkSettings,
) -> (Ear<ToController, ToAgent>, Ear<ToAgent, ToController>, (Listener, Dialer)) {
    let (controller, agent) = (Ear::open(), Ear::open());
    let (socket, addr) = socket();
    let listener = listen(socket, control, controller.owner()).unwrap();
    let dialer = dial(addr, None, sensor, agent.owner());
    (controller, agent, (listener, dialer))
}

/// A listener with one peer made by hand that has greeted.
async fn greeted(settings: LinkSettings) -> (Listening, Raw<TcpStream>, LinkUp<ToAgent>) {
    let mut end = Listening::with(settings);
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    let up = end.ear.up().await;
    (end, peer, up)
}

fn framed(message: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.append_to(&mut bytes).unwrap();
    bytes
}

fn news(seq: u64) -> ToAgent {
    NewsReceived { epoch: 1, seq }.into()
}

fn log(seq: u64, msg: &str) -> ToController {
    let instance = InstanceName::new("sensor-1").unwrap();
    NotifyLog { seq, time: Timestamp(0), instance, node: None, msg: msg.into() }.into()
}

//! The ends of a link that the stories are made of: owners that repeat what they hear, peers made by hand.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use watchpost::bridge::greeting::{Control, Greeting, MAGIC};
use watchpost::bridge::*;
use watchpost::message::agent::{NewsReceived, NotifyLog, ToAgent, ToController};
use watchpost::message::frame::{FrameError, MAX_FRAME, Wire, split};
use watchpost::model::{InstanceName, Timestamp};

/// A message that cannot be encoded without a panic.
pub struct Explosive;

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
    fn name_of(_: u16) -> Option<&'static str> {
        None
    }
}

/// What an owner hears.
pub enum Heard<In: Wire, Out: Wire> {
    Up(LinkUp<Out>),
    Mail(Mail<In>),
    NotKnown(u16),
    Down(LinkDown),
}

/// An owner that repeats what it hears to a test; its mail waits at a gate, if it has one.
pub struct Repeat<In: Wire, Out: Wire> {
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

impl<In: Wire, Out: Wire> Handler<NotKnown> for Repeat<In, Out> {
    type Result = ();
    fn handle(&mut self, not_known: NotKnown, _: &mut Context<Self>) {
        let _ = self.to.send(Heard::NotKnown(not_known.kind));
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
pub struct Stop;

impl<In: Wire, Out: Wire> Handler<Stop> for Repeat<In, Out> {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        actix::ActorContext::stop(ctx);
    }
}

/// The test's end of an owner.
pub struct Ear<In: Wire, Out: Wire> {
    pub heard: mpsc::UnboundedReceiver<Heard<In, Out>>,
    pub addr: actix::Addr<Repeat<In, Out>>,
}

impl<In: Wire, Out: Wire> Ear<In, Out> {
    pub fn open() -> Self {
        Self::new(None)
    }

    pub fn behind(gate: Arc<Semaphore>) -> Self {
        Self::new(Some(gate))
    }

    pub fn new(gate: Option<Arc<Semaphore>>) -> Self {
        let (to, heard) = mpsc::unbounded_channel();
        Self { heard, addr: Repeat { to, gate }.start() }
    }

    pub fn owner(&self) -> Owner<In, Out> {
        let addr = &self.addr;
        Owner {
            up: addr.clone().recipient(),
            mail: addr.clone().recipient(),
            not_known: addr.clone().recipient(),
            down: addr.clone().recipient(),
        }
    }

    pub async fn up(&mut self) -> LinkUp<Out> {
        match within(self.heard.recv()).await {
            Some(Heard::Up(up)) => up,
            Some(Heard::Mail(_) | Heard::NotKnown(_)) => panic!("mail instead of a link"),
            Some(Heard::Down(down)) => panic!("{down:?} instead of a link"),
            None => panic!("the owner is gone"),
        }
    }

    pub async fn messages(&mut self, count: usize) -> Vec<In> {
        let mut messages = Vec::new();
        while messages.len() < count {
            match within(self.heard.recv()).await {
                Some(Heard::Mail(mail)) => messages.extend(mail.messages),
                Some(Heard::Down(down)) => panic!("{down:?} after {} messages", messages.len()),
                Some(Heard::Up(_) | Heard::NotKnown(_)) | None => panic!("no mail after {} messages", messages.len()),
            }
        }
        messages
    }

    pub async fn down(&mut self) -> String {
        match within(self.heard.recv()).await {
            Some(Heard::Down(down)) => down.reason,
            Some(Heard::Up(_) | Heard::Mail(_) | Heard::NotKnown(_)) | None => panic!("anything but the end"),
        }
    }

    pub async fn not_known(&mut self) -> u16 {
        match within(self.heard.recv()).await {
            Some(Heard::NotKnown(kind)) => kind,
            _ => panic!("anything but a kind that the peer does not know"),
        }
    }

    pub fn hears_nothing(&mut self) {
        assert!(self.heard.try_recv().is_err(), "the owner heard something");
    }

    pub fn hears_at_most_one_batch(&mut self) {
        assert!(self.heard.len() <= 1, "{} batches at once", self.heard.len());
    }
}

/// A controller's listener with its owner.
pub struct Listening {
    pub ear: Ear<ToController, ToAgent>,
    pub addr: SocketAddr,
    _listener: Listener,
}

impl Listening {
    pub fn with(settings: LinkSettings) -> Self {
        Self::over(Ear::open(), settings)
    }

    pub fn over(ear: Ear<ToController, ToAgent>, settings: LinkSettings) -> Self {
        let (socket, addr) = socket();
        let _listener = listen(socket, settings, ear.owner()).unwrap();
        Self { ear, addr, _listener }
    }
}

/// A peer made by hand.
pub struct Raw<S>(pub S);

impl Raw<TcpStream> {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self(within(TcpStream::connect(addr)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Sends a greeting and reads that of the other end.
    pub async fn greet(&mut self, greeting: Greeting) {
        self.0.write_all(&[MAGIC.to_vec(), framed(&Control::from(greeting))].concat()).await.unwrap();
        let mut magic = [0; 4];
        within(self.0.read_exact(&mut magic)).await.unwrap();
        assert_eq!(magic, MAGIC);
        assert!(matches!(self.frame().await, Control::Greeting(_)));
    }

    pub async fn any_frame(&mut self) -> (u16, Vec<u8>) {
        let mut bytes = vec![0; 4];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes.resize(4 + u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize, 0);
        within(self.0.read_exact(&mut bytes[4..])).await.unwrap();
        let frame = split(&bytes, MAX_FRAME).unwrap().unwrap();
        (frame.kind, frame.body.to_vec())
    }

    pub async fn frame(&mut self) -> Control {
        let (kind, body) = self.any_frame().await;
        Control::decode(kind, &body).unwrap()
    }

    /// Reads to the end; the last frame must be a refusal, whose reason comes back.
    pub async fn refused(&mut self) -> String {
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
pub struct Counting<S> {
    pub stream: S,
    pub polls: Rc<AtomicUsize>,
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

/// A stream that greets, then has the same frame to say whenever it is asked, and takes whatever it is told.
pub struct Babbling {
    greeting: Vec<u8>,
    frame: Vec<u8>,
    told: Rc<RefCell<Vec<u8>>>,
}

impl Babbling {
    pub fn new(greeting: Greeting, frame: impl Into<Control>) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let told = Rc::default();
        let greeting = [MAGIC.to_vec(), framed(&Control::from(greeting))].concat();
        (Self { greeting, frame: framed(&frame.into()), told: Rc::clone(&told) }, told)
    }
}

impl AsyncRead for Babbling {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Task<'_>, room: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let greeting = std::mem::take(&mut self.greeting);
        room.put_slice(if greeting.is_empty() { &self.frame } else { &greeting });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Babbling {
    fn poll_write(self: Pin<&mut Self>, _: &mut Task<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.told.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

pub fn control() -> LinkSettings {
    LinkSettings::new(LinkRole::Controller, "control", "lab")
}

pub fn sensor() -> LinkSettings {
    LinkSettings::new(LinkRole::Agent, "sensor-1", "lab")
}

pub fn socket() -> (std::net::TcpListener, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

pub fn connection(stream: Box<dyn Stream>) -> Connection {
    let certified = Certified::Nobody;
    Connection { stream, certified, host: [127, 0, 0, 1].into(), dialled: None, expect: None, ended: None }
}

/// A listening controller and a dialling agent; the handles keep them going.
pub async fn pair(
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
pub async fn greeted(settings: LinkSettings) -> (Listening, Raw<TcpStream>, LinkUp<ToAgent>) {
    let mut end = Listening::with(settings);
    let mut peer = Raw::connect(end.addr).await;
    peer.greet(Greeting::of(&sensor())).await;
    let up = end.ear.up().await;
    (end, peer, up)
}

pub fn framed(message: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.append_to(&mut bytes).unwrap();
    bytes
}

pub fn news(seq: u64) -> ToAgent {
    NewsReceived { epoch: 1, seq, kept: seq }.into()
}

pub fn log(seq: u64, msg: &str) -> ToController {
    let instance = InstanceName::new("sensor-1").unwrap();
    NotifyLog { seq, time: Timestamp(0), instance, node: None, msg: msg.into() }.into()
}

//! One connection: bytes ⇄ mail. Written to by its owner, whom it tells that the link stands, what arrives, and that
//! the link is gone.
//!
//! Everything happens in the actor's own task, in turns: first its mailbox is emptied into one buffer, then one
//! [`Turn`] reads, looks at the clock, and writes that buffer. So mail that came together leaves together, an idle link
//! wakes only for heartbeats, and nothing that belongs to the link can outlive it.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Instant;

use actix::dev::{MessageResponse, OneshotSender, RecipientRequest};
use actix::{Actor, ActorContext, ActorFuture, Addr, AsyncContext, Context, Handler, Message};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tracing::{error, info, warn};

use super::error::LinkError;
use super::greeting::{Admitted, Control, Greeting, Heartbeat, MAGIC, NotUnderstood, Refused};
use super::guard::{Ended, LinkGuard};
use super::inbox::Inbox;
use super::intake::{Arrived, Intake, Kind};
use super::listener::Ticket;
use super::outbox::Outbox;
use super::secure::{self, Certified};
use super::state::{Effect, Event, State, Timing, step};
use super::{EndLink, Features, LinkId, LinkSettings, LinkUp, Mail, NotKnown, Owner, Peer};
use crate::message::frame::{Wire, wire_name};
use crate::stream::Stream;
use crate::trust::{Held, complaint};

/// Above this many unsent bytes an owner that awaits its mail's result waits for it.
const WINDOW: usize = 1 << 20;
/// After this many reads the clock and the writing have their turn, however much the peer sends.
const READS_IN_A_TURN: usize = 16;

/// A connection that was just made.
pub struct Connection {
    pub stream: Box<dyn Stream>,
    /// Whom the peer's certificate names.
    pub certified: Certified,
    /// The peer's address.
    pub host: IpAddr,
    /// The port that this side dialled, if it did.
    pub dialled: Option<u16>,
    /// The name that the peer must have.
    pub expect: Option<String>,
    /// Hears how the link ended, also if it never came up.
    pub ended: Option<oneshot::Sender<Ended>>,
}

impl Connection {
    /// One that a peer made, secured as the settings want it.
    pub fn accepted(stream: TcpStream, peer: SocketAddr, settings: &LinkSettings) -> Self {
        let (stream, certified) = secure::accepted(stream, settings);
        Self { stream, certified, host: peer.ip(), dialled: None, expect: None, ended: None }
    }

    /// One that this end made to `peer`, secured as the settings want it.
    pub fn dialled(stream: TcpStream, peer: SocketAddr, settings: &LinkSettings) -> Self {
        let (stream, certified) = secure::dialled(stream, settings);
        Self { stream, certified, host: peer.ip(), dialled: Some(peer.port()), expect: None, ended: None }
    }
}

/// One link. It ends with its connection, not with the addresses of it that are held.
///
/// The owner sends its mail as [`Mail`]: the result comes at once while little is unsent, and else when the peer has
/// taken enough, so whoever awaits it is held to the peer's pace. Whoever does not may queue up to the cap in the
/// settings, beyond which the link ends.
pub struct Bridge<In: Wire, Out: Wire> {
    settings: Rc<LinkSettings>,
    timing: Timing,
    owner: Owner<In, Out>,
    state: State,
    stream: Box<dyn Stream>,
    peer: Peer,
    inbox: Inbox,
    intake: Intake<In>,
    /// Mail that the owner works on; nothing is read before it is done.
    handed: Option<Pin<Box<RecipientRequest<Mail<In>>>>>,
    /// What came behind that mail and ends the link when it is done.
    broken: Option<LinkError>,
    outbox: Outbox,
    /// Nothing can be written any more, or everything was.
    mute: bool,
    /// Results of mail that are kept back until less is unsent.
    waiting: Rc<RefCell<Vec<OneshotSender<()>>>>,
    timer: Pin<Box<Sleep>>,
    ticket: Option<Ticket>,
    certified: Certified,
    /// Kept while the link stands because of a certificate.
    held: Option<Held>,
    guard: LinkGuard,
}

impl<In: Wire, Out: Wire> Bridge<In, Out> {
    /// Starts a link over this connection, on the arbiter of the caller.
    pub fn carry(connection: Connection, settings: Rc<LinkSettings>, owner: Owner<In, Out>) -> Addr<Self> {
        Self::new(connection, settings, owner).start()
    }

    pub(super) fn new(connection: Connection, settings: Rc<LinkSettings>, owner: Owner<In, Out>) -> Self {
        let Connection { stream, certified, host, dialled, expect, ended } = connection;
        let timing = Timing::new(settings.heartbeat, settings.greeting_within);
        let timing = if dialled.is_some() { timing.of_dialler() } else { timing };
        let now = Instant::now();
        let state = State::connected(now, &timing);
        Self {
            guard: LinkGuard::new(host, owner.down.clone(), ended),
            intake: Intake::new(Rc::clone(&settings), expect, certified.clone()),
            certified,
            held: None,
            timer: Box::pin(tokio::time::sleep_until(state.due(&timing).unwrap_or(now).into())),
            state,
            // The rest becomes known with the greeting.
            peer: Peer { name: String::new(), host: Some(host), dialled, features: Features::NONE, certificate: None },
            settings,
            timing,
            owner,
            stream,
            inbox: Inbox::default(),
            handed: None,
            broken: None,
            outbox: Outbox::default(),
            mute: false,
            waiting: Rc::default(),
            ticket: None,
        }
    }

    pub(super) fn link(&self) -> LinkId {
        self.guard.link
    }

    /// Keeps this until the peer has greeted.
    pub(super) fn hold(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// The one door through which state changes.
    fn drive(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let (next, effect) = step(self.state, event, now, &self.timing);
        self.state = next;
        match effect {
            None => {}
            Some(Effect::TellUp) => {
                self.ticket = None;
                self.guard.is_up(now);
                let me = ctx.address();
                self.hold_on_to_the_certificate(&me);
                let (out, end) = (me.clone().recipient(), me.recipient());
                // The owner keeps it, and this end needs it no more.
                let certificate = self.certified.certificate().cloned().map(Arc::new);
                let peer = Peer { certificate, ..self.peer.clone() };
                self.owner.up.do_send(LinkUp { link: self.link(), peer, out, end });
            }
            Some(Effect::Beat) => {
                if let Some(due) = self.state.due(&self.timing) {
                    // Anew, and not reset: a timer that was moved to later still wakes the runtime when it was due.
                    self.timer.set(tokio::time::sleep_until(due.into()));
                }
                self.beat();
            }
            Some(Effect::Close(overdue)) => {
                if let Some(overdue) = overdue {
                    self.guard.because(overdue.into());
                }
                ctx.stop();
            }
        }
    }

    /// The link stands for as long as the peer's certificate counts.
    fn hold_on_to_the_certificate(&mut self, me: &Addr<Self>) {
        let link = self.link();
        let (Some(trust), Some(certificate)) = (&self.settings.trust, self.certified.certificate()) else { return };
        let end = me.clone().recipient::<EndLink>();
        let revoked = move |reason: &str| end.do_send(EndLink { link, reason: reason.into() });
        self.held = trust.hold(certificate, revoked.clone());
        if self.held.is_none() {
            revoked("the peer's certificate was revoked");
        }
    }

    /// Says that this end is here, and gives back the memory that a link so quiet does not need.
    fn beat(&mut self) {
        self.inbox.release();
        if self.outbox.len() == 0 {
            self.outbox.release();
            self.say(Heartbeat {});
        } // else something is on its way that says the same
    }

    fn say(&mut self, frame: impl Into<Control>) {
        let frame = frame.into();
        if let Err(error) = frame.append_to(self.outbox.buffer()) {
            // Only a greeting can be too long, if the settings are; the peer will say that it got none.
            error!(link = self.link().0, "cannot say {}: {error}", frame.name());
        }
    }

    /// Ends the link for this reason, at once or after a last word.
    fn fail(&mut self, reason: LinkError, ctx: &mut Context<Self>) {
        let mistake = reason.is_the_peers_mistake().then(|| reason.to_string());
        self.guard.because(reason);
        match (mistake, self.state) {
            (Some(reason), State::Greeting { .. } | State::Up { .. }) => {
                self.say(Refused { reason });
                self.drive(Event::Refuse, ctx);
            }
            (Some(_), State::Ending { .. } | State::Down) => {} // its last word is on its way already
            (None, _) => self.drive(Event::Lost, ctx),
        }
    }

    /// Reads until nothing is there, the owner has enough to do, or others should have their turn.
    fn read(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) {
        for _ in 0..READS_IN_A_TURN {
            if self.state == State::Down {
                return;
            }
            if let Some(handed) = &mut self.handed {
                let Poll::Ready(handled) = handed.as_mut().poll(task) else { return };
                self.handed = None;
                match (handled, self.broken.take()) {
                    (Err(_), _) => self.fail(LinkError::OwnerGone, ctx),
                    (Ok(()), Some(error)) => self.fail(error, ctx),
                    (Ok(()), None) => self.drive(Event::Handled, ctx),
                }
                continue;
            }
            let ending = matches!(self.state, State::Ending { .. });
            let Self { intake, inbox, stream, .. } = self;
            let read = inbox.poll_read(&mut **stream, task, |bytes| match ending {
                true => (bytes.len(), None),
                false => {
                    let (used, arrived) = intake.take(bytes);
                    (used, Some(arrived))
                }
            });
            match read {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(Some(arrived)))) => self.take(arrived, ctx),
                Poll::Ready(Ok(Some(None))) => {}
                Poll::Ready(Ok(None)) if self.inbox.is_empty() => self.fail(LinkError::Closed, ctx),
                Poll::Ready(Ok(None)) => self.fail(LinkError::Truncated, ctx),
                Poll::Ready(Err(error)) => self.fail(unreadable(error), ctx),
            }
        }
        task.waker().wake_by_ref();
    }

    fn take(&mut self, arrived: Arrived<In>, ctx: &mut Context<Self>) {
        let link = self.link();
        if let Some(Admitted { name, protocol, features }) = arrived.admitted {
            info!(link = link.0, host = self.peer.host.map(tracing::field::display), %name, protocol, "link up");
            (self.peer.name, self.peer.features) = (name, features);
            self.drive(Event::Greeted, ctx);
        }
        self.drive(Event::Heard, ctx);
        for Kind { kind, is_news } in arrived.disowned {
            if is_news {
                let name = Out::name_of(kind).map_or_else(|| "no message of ours".into(), wire_name);
                warn!(
                    link = link.0,
                    peer = self.peer.name,
                    "the peer does not know frames of kind {kind:#06x} ({name})"
                );
            }
            self.owner.not_known.do_send(NotKnown { link, kind });
        }
        for Kind { kind, is_news } in arrived.unknown {
            if is_news {
                warn!(
                    link = link.0,
                    peer = self.peer.name,
                    "frames of kind {kind:#06x} are not known here and skipped"
                );
            }
            self.say(NotUnderstood { kind });
        }
        let (unsent, cap) = (self.outbox.len(), self.settings.unsent_cap);
        if unsent > cap {
            return self.fail(LinkError::NotReading { unsent, cap }, ctx);
        }
        if !arrived.messages.is_empty() {
            let mail = Mail { link, messages: arrived.messages };
            self.handed = Some(Box::pin(self.owner.mail.send(mail)));
            self.broken = arrived.broken;
            self.drive(Event::Handed, ctx);
        } else if let Some(error) = arrived.broken {
            self.fail(error, ctx);
        }
    }

    /// Tells the state when its time has come, and sets the clock for the next time.
    ///
    /// A deadline that only moves further away is left to ring early once: that is cheaper than to set the clock at
    /// every message.
    fn watch_the_clock(&mut self, ctx: &mut Context<Self>, task: &mut Task<'_>) {
        while let Some(due) = self.state.due(&self.timing) {
            if due < self.timer.deadline().into_std() {
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(task).is_pending() {
                return;
            }
            self.drive(Event::Due, ctx);
            if let Some(due) = self.state.due(&self.timing) {
                self.timer.as_mut().reset(due.into());
            }
        }
    }

    /// Writes what waits.
    fn write(&mut self, task: &mut Task<'_>) {
        if self.mute || self.state == State::Down {
            return;
        }
        match self.outbox.poll_write(&mut *self.stream, task) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if matches!(self.state, State::Ending { .. }) => {
                // Whether the peer hears of the end this way or when the connection closes makes no difference.
                self.mute = Pin::new(&mut self.stream).poll_shutdown(task).is_ready();
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                // What the peer said before it went may still be unread, so reading finds the end, in the next turn.
                self.guard.because(unwritable(error));
                task.waker().wake_by_ref();
                self.mute = true;
                self.outbox.release();
            }
        }
        if self.outbox.len() < WINDOW {
            self.release_waiting();
        }
    }

    fn release_waiting(&mut self) {
        for result in self.waiting.borrow_mut().drain(..) {
            // Whoever no longer waits for the result needs none.
            let _ = result.send(());
        }
    }
}

fn unwritable(error: io::Error) -> LinkError {
    match secure::joins(&error) {
        true => LinkError::Joins,
        false => complaint(&error).map_or(LinkError::Write(error), LinkError::Tls),
    }
}

fn unreadable(error: io::Error) -> LinkError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return LinkError::Closed; // by a peer that had no time to take its leave, as TLS wants it to
    }
    if secure::joins(&error) {
        return LinkError::Joins;
    }
    complaint(&error).map_or(LinkError::Read(error), LinkError::Tls)
}

impl<In: Wire, Out: Wire> Actor for Bridge<In, Out> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.outbox.buffer().extend_from_slice(&MAGIC);
        self.say(Greeting::of(&self.settings));
        ctx.spawn(Turn);
    }
}

/// What a link does whenever it wakes up; it ends with the link.
struct Turn;

impl<In: Wire, Out: Wire> ActorFuture<Bridge<In, Out>> for Turn {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        me: &mut Bridge<In, Out>,
        ctx: &mut Context<Bridge<In, Out>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        me.read(ctx, task);
        me.watch_the_clock(ctx, task);
        me.write(task);
        match me.state {
            State::Down => Poll::Ready(()),
            State::Greeting { .. } | State::Up { .. } | State::Ending { .. } => Poll::Pending,
        }
    }
}

/// Mail for the peer. What cannot be encoded is logged and left out; the rest goes on.
///
/// The turn that writes it comes when the mailbox is empty, in the same wake-up: actix polls what an actor spawned
/// behind its mailbox.
impl<In: Wire, Out: Wire> Handler<Mail<Out>> for Bridge<In, Out> {
    type Result = Accepted;

    fn handle(&mut self, mail: Mail<Out>, ctx: &mut Context<Self>) -> Accepted {
        if self.mute || !matches!(self.state, State::Up { .. }) {
            return Accepted::Now; // LinkDown is on its way and says what became of it
        }
        for message in &mail.messages {
            if let Err(error) = message.append_to(self.outbox.buffer()) {
                error!(link = self.link().0, peer = self.peer.name, "a {} is not sent: {error}", message.name());
            }
        }
        self.drive(Event::Sent, ctx);
        match (self.outbox.len(), self.settings.unsent_cap) {
            (unsent, cap) if unsent > cap => {
                self.fail(LinkError::NotReading { unsent, cap }, ctx);
                Accepted::Now
            }
            (unsent, _) if unsent > WINDOW => Accepted::Later(Rc::clone(&self.waiting)),
            _ => Accepted::Now,
        }
    }
}

/// The result of mail: the permission to send more.
pub enum Accepted {
    Now,
    /// When the peer has taken enough; until then it waits here.
    Later(Rc<RefCell<Vec<OneshotSender<()>>>>),
}

impl<A: Actor, M: Message<Result = ()>> MessageResponse<A, M> for Accepted {
    fn handle(self, _: &mut A::Context, result: Option<OneshotSender<()>>) {
        match (self, result) {
            (_, None) => {}
            // Whoever no longer waits for the result needs none.
            (Self::Now, Some(result)) => drop(result.send(())),
            (Self::Later(waiting), Some(result)) => waiting.borrow_mut().push(result),
        }
    }
}

/// Ends the link in order: what was queued before still reaches a peer that reads.
impl<In: Wire, Out: Wire> Handler<EndLink> for Bridge<In, Out> {
    type Result = ();

    fn handle(&mut self, end: EndLink, ctx: &mut Context<Self>) {
        if end.link == self.link() {
            self.guard.because(LinkError::Asked(end.reason));
            self.drive(Event::End, ctx);
        }
    }
}

//! One client's connection, from the upgrade to its end.

use std::fmt::Display;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::{Error, FromRequest, HttpRequest, HttpResponse, dev, web};
use actix_ws::CloseCode;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::frame::{Code, ErrorMessage, Publication, Refused, topics_from_json};
use super::hub::{Client, Hub};
use super::incoming::{Broken, Heard, Incoming, Watch};
use super::outgoing::{Frame, Outgoing, Queue};
use super::server::{Door, PATH};
use crate::web::guard::Refusal;
use crate::web::serve::Closing;

/// What a message holds that needed a permit because it is long.
type LongPermit = Option<OwnedSemaphorePermit>;

/// Messages above this are read on another thread, so that nobody waits for them.
const LONG_WORK: usize = 256 * 1024;

/// Answers a request, whatever it is: a WebSocket client hears of its mistakes over the WebSocket.
pub(super) async fn open(
    door: web::Data<Door>,
    closing: web::Data<Closing>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Error> {
    if let Err(refusal) = door.names.admit(request.headers()) {
        door.warn_of_refused(Unwelcome::Refused(discriminant(&refusal)), &request, &refusal);
        return Ok(HttpResponse::Forbidden().body(refusal.to_string()));
    }
    let (watch, passage) = Watch::new(payload.into_inner(), door.large.clone(), door.patience.long_within);
    let mut watched: dev::Payload = dev::Payload::Stream { payload: Box::pin(watch) };
    let payload = web::Payload::from_request(&request, &mut watched).await?;
    let (response, _, stream) = match actix_ws::handle(&request, payload) {
        Ok(upgraded) => upgraded,
        Err(error) => return Ok(HttpResponse::BadRequest().body(error.to_string())),
    };
    let queue = match mistake(&request) {
        Some(mistake) => {
            door.warn_of_refused(Unwelcome::Mistaken(mistake.code), &request, &mistake.context);
            parting(&mistake)
        }
        None => {
            let client = door.hub.join(request.peer_addr());
            let queue = client.queue.clone();
            let session = Session {
                ping_at: Instant::now() + door.patience.ping_after,
                door: door.into_inner(),
                closing: closing.get_ref().clone(),
                client,
                incoming: Incoming::new(stream, passage),
                phase: Phase::Greeting,
                complained: false,
            };
            actix_web::rt::spawn(session.run());
            queue
        }
    };
    Ok(response.map_body(|_, tie| Outgoing::new(queue, tie).boxed()))
}

/// Why a client is not even let in, as far as it matters for how often that is logged.
#[derive(PartialEq)]
pub(super) enum Unwelcome {
    Refused(Discriminant<Refusal>),
    Mistaken(Code),
}

impl Door {
    fn warn_of_refused(&self, kind: Unwelcome, request: &HttpRequest, why: &dyn Display) {
        let Some(unsaid) = self.refused.say(kind, Instant::now()) else { return };
        let at = request.peer_addr().map_or_else(String::new, |peer| format!(" at {peer}"));
        match unsaid {
            0 => tracing::warn!("refused a WebSocket client{at}: {why}"),
            _ => tracing::warn!("refused a WebSocket client{at}, and {unsaid} like it before: {why}"),
        }
    }
}

/// What is wrong with a request that can be upgraded.
fn mistake(request: &HttpRequest) -> Option<ErrorMessage> {
    if request.path() != PATH {
        return Some(ErrorMessage::new(Code::InvalidUri, format!("Invalid URI - use {PATH}")));
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_.=:*@".contains(byte);
    let name = request.headers().get("x-application-name")?;
    let wrong = !name.as_bytes().iter().all(allowed);
    wrong.then(|| ErrorMessage::new(Code::InvalidApplicationName, "Invalid X-Application-Name"))
}

/// An error message and the end.
fn parting(mistake: &ErrorMessage) -> Arc<Queue> {
    let queue = Arc::new(Queue::default());
    // An empty queue takes any frame.
    let _ = queue.push(&told(mistake));
    queue.finish(Frame::close(CloseCode::Policy, &mistake.context));
    queue
}

fn told(error: &ErrorMessage) -> Frame {
    Frame::text(|out| out.extend_from_slice(&error.to_json()))
}

struct Session {
    door: Arc<Door>,
    closing: Closing,
    client: Arc<Client>,
    incoming: Incoming,
    phase: Phase,
    /// When the next ping is due.
    ping_at: Instant,
    /// One mistake was logged; more of the same tell nobody anything.
    complained: bool,
}

enum Phase {
    /// The list of topics is to come.
    Greeting,
    Talking,
    /// The first message was no list of topics, and nothing further counts.
    Deaf,
}

/// How a connection ended.
enum End {
    /// The client left, or asked for it.
    Left(Option<Frame>),
    /// Somebody here ended it, and has said so.
    PutOut,
    Broken(Broken),
    /// The server ends.
    Terminating,
}

impl Session {
    async fn run(mut self) {
        let end = self.converse().await;
        let name = self.client.name();
        match end {
            End::Left(last) => {
                tracing::debug!("{name} left");
                match last {
                    Some(last) => self.client.queue.finish(last),
                    None => self.client.queue.cut(),
                }
            }
            End::PutOut => {}
            End::Terminating => self.client.queue.finish(Frame::close(CloseCode::Away, "Terminating")),
            End::Broken(broken) => {
                tracing::warn!("disconnected {name}: {broken}");
                self.client.queue.finish(Frame::close(broken.close_code(), broken.close_reason()));
            }
        }
        self.hub().leave(&self.client);
    }

    async fn converse(&mut self) -> End {
        let (client, mut closing) = (self.client.clone(), self.closing.clone());
        let long_begun = self.incoming.long_begun();
        loop {
            let late_at = self.incoming.late_at();
            let due = late_at.map_or(self.ping_at, |late| late.min(self.ping_at));
            tokio::select! {
                () = client.gone.notified() => return End::PutOut,
                // An error means that the server is gone.
                _ = closing.wait_for(|closing| *closing) => return End::Terminating,
                heard = self.incoming.next() => {
                    self.hub().heard(&client);
                    self.ping_at = Instant::now() + self.door.patience.ping_after;
                    match heard {
                        Err(broken) => return End::Broken(broken),
                        Ok(None) => return End::Left(None),
                        Ok(Some(Heard::Close(reason))) => return End::Left(Some(Frame::closed(reason))),
                        Ok(Some(Heard::Ping(content))) => self.hub().send(&client, &Frame::pong(&content)),
                        Ok(Some(Heard::Pong)) => {}
                        Ok(Some(Heard::Message(message))) => {
                            let permit = self.incoming.take_permit();
                            self.take(message, permit).await;
                            // Whoever sends much gets it no sooner than the others get their turn.
                            tokio::task::yield_now().await;
                        }
                    }
                }
                // It may be late before anything else is due.
                () = long_begun.notified() => {}
                () = tokio::time::sleep_until(due.into()) => {
                    let now = Instant::now();
                    if late_at.is_some_and(|late| late <= now) {
                        return End::Broken(Broken::TooSlow);
                    }
                    self.ping(now);
                }
            }
        }
    }

    fn hub(&self) -> &Hub {
        &self.door.hub
    }

    /// Sends a ping, unless the client waits for an answer: a ping would make it wait for longer.
    fn ping(&mut self, now: Instant) {
        if self.ping_at <= now {
            self.ping_at = now + self.door.patience.ping_after;
            if !self.client.is_waiting() {
                self.hub().send(&self.client, &Frame::ping());
            }
        }
    }

    async fn take(&mut self, message: Bytes, permit: LongPermit) {
        match self.phase {
            Phase::Greeting => match topics_from_json(&message) {
                Ok(topics) => {
                    self.hub().subscribe(&self.client, topics);
                    self.phase = Phase::Talking;
                }
                Err(refused) => {
                    self.refuse(&refused);
                    self.phase = Phase::Deaf;
                }
            },
            Phase::Talking => match read(message).await {
                Ok(publication) => self.publish(publication, permit).await,
                Err(refused) => self.refuse(&refused),
            },
            Phase::Deaf => {}
        }
    }

    /// Lets everybody hear an event, and puts it to the host, which holds it until it has answered.
    async fn publish(&mut self, publication: Publication, permit: LongPermit) {
        if let Err(error) = self.door.host.admit(&publication) {
            return self.complain(&error, &error.context);
        }
        self.hub().relay(&publication, &self.client);
        let waiting = tokio::select! {
            waiting = self.client.waiting.clone().acquire_owned() => waiting,
            () = self.client.gone.notified() => {
                // For whoever asks next.
                self.client.gone.notify_one();
                return;
            }
            _ = self.closing.wait_for(|closing| *closing) => return,
        };
        let (answers, hub) = (self.door.host.answer(publication), self.hub().clone());
        // Not part of this session: what was asked for goes on when the client is gone.
        actix_web::rt::spawn(async move {
            answers.await.iter().for_each(|answer| hub.publish(answer));
            drop((permit, waiting));
        });
    }

    fn refuse(&mut self, refused: &Refused) {
        self.complain(&refused.told, &refused.why);
    }

    /// Tells the client that it made a mistake, and whoever looks after this end what it was.
    fn complain(&mut self, error: &ErrorMessage, why: &str) {
        let name = self.client.name();
        match std::mem::replace(&mut self.complained, true) {
            false => tracing::warn!("refused a message of {name}: {why}"),
            true => tracing::debug!("refused a message of {name}: {why}"),
        }
        self.hub().send(&self.client, &told(error));
    }
}

/// Reads a message, where it disturbs nobody.
async fn read(message: Bytes) -> Result<Publication, Refused> {
    if message.len() < LONG_WORK {
        return Publication::from_json(&message);
    }
    let read = web::block(move || Publication::from_json(&message)).await;
    read.unwrap_or_else(|_| Err(Refused::unread()))
}

//! Who is connected, and who hears what.
//!
//! A topic goes to every client that asked for something it begins with, byte by byte. Nobody waits here for anybody:
//! a client with too much unread is put out, and the others do not notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use actix_ws::CloseCode;
use tokio::sync::{Notify, Semaphore};

use super::frame::Publication;
use super::outgoing::{Frame, Full, Queue};

/// How many clients may be connected. One more, and the one that was silent for the longest has to go: idle clients
/// keep nobody out.
pub const MOST_CLIENTS: usize = 700;
/// How many events of one client may wait for the host's answer. Further ones are not read meanwhile.
pub const MOST_WAITING: usize = 32;

/// The clients of one endpoint; cheap to copy, for any thread.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    endpoint: String,
    since: Instant,
    next: AtomicU64,
    clients: Mutex<Clients>,
}

type Clients = BTreeMap<u64, Arc<Client>>;

/// One client.
pub(super) struct Client {
    number: u64,
    peer: Option<SocketAddr>,
    /// What it asked for, once that was acknowledged.
    topics: OnceLock<Vec<String>>,
    pub queue: Arc<Queue>,
    /// Somebody else ended the connection.
    pub gone: Notify,
    /// One permit for each event that may wait for an answer.
    pub waiting: Arc<Semaphore>,
    /// When it last said something, in milliseconds of the hub's time.
    heard: AtomicU64,
}

impl Client {
    fn wants(&self, topic: &str) -> bool {
        self.topics.get().is_some_and(|topics| topics.iter().any(|wanted| topic.starts_with(wanted.as_str())))
    }

    /// Whether the host still owes it an answer.
    pub fn is_waiting(&self) -> bool {
        self.waiting.available_permits() < MOST_WAITING
    }

    /// Who it is, for the log.
    pub fn name(&self) -> String {
        let peer = self.peer.map_or_else(|| "somewhere".into(), |peer| peer.to_string());
        format!("WebSocket client {} at {peer}", self.number)
    }

    fn end(&self, last: Frame) {
        self.queue.finish(last);
        self.gone.notify_one();
    }
}

impl Hub {
    /// A hub without clients. `endpoint` names it in what clients are told, and should be its own.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self(Arc::new(Shared {
            endpoint: endpoint.into(),
            since: Instant::now(),
            next: AtomicU64::new(0),
            clients: Mutex::default(),
        }))
    }

    /// Sends an event to all clients that asked for its topic. Does not wait for them.
    pub fn publish(&self, publication: &Publication) {
        self.route(publication, None);
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.lock().len()
    }

    /// Takes in a client.
    pub(super) fn join(&self, peer: Option<SocketAddr>) -> Arc<Client> {
        let client = Arc::new(Client {
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
            peer,
            topics: OnceLock::new(),
            queue: Arc::default(),
            gone: Notify::new(),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            heard: AtomicU64::new(self.now()),
        });
        let mut clients = self.lock();
        let silent = (clients.len() >= MOST_CLIENTS).then(|| longest_silent(&mut clients)).flatten();
        clients.insert(client.number, client.clone());
        drop(clients);
        if let Some(silent) = silent {
            tracing::warn!("sent away {}, silent for the longest: there are {MOST_CLIENTS} others", silent.name());
            silent.end(Frame::close(CloseCode::Again, "too many clients"));
        }
        client
    }

    /// Acknowledges a client's topics: from now on it hears of them.
    pub(super) fn subscribe(&self, client: &Client, topics: Vec<String>) {
        let endpoint = format!("{}-websocket-{}", self.0.endpoint, client.number);
        let acknowledgement = super::frame::acknowledgement(&endpoint, env!("CARGO_PKG_VERSION"));
        self.send(client, &Frame::text(|out| out.extend_from_slice(&acknowledgement)));
        // An error means that it had topics already, and they stay.
        let _ = client.topics.set(topics);
    }

    /// Sends an event of `sender` to all others that asked for its topic.
    pub(super) fn relay(&self, publication: &Publication, sender: &Client) {
        self.route(publication, Some(sender.number));
    }

    /// Sends something to one client, which is put out if it has too much unread.
    pub(super) fn send(&self, client: &Client, frame: &Frame) {
        if let Err(Full { frames, bytes }) = client.queue.push(frame) {
            // Before the session gets to know and does it itself: this is told once.
            let first = self.leave(client);
            client.queue.cut();
            client.gone.notify_one();
            if first {
                tracing::warn!(
                    "disconnected {}, which does not read: {frames} messages wait, {bytes} bytes",
                    client.name()
                );
            }
        }
    }

    /// Remembers that the client said something.
    pub(super) fn heard(&self, client: &Client) {
        client.heard.store(self.now(), Ordering::Relaxed);
    }

    /// Forgets a client. False if it was forgotten before.
    pub(super) fn leave(&self, client: &Client) -> bool {
        self.lock().remove(&client.number).is_some()
    }

    fn route(&self, publication: &Publication, sender: Option<u64>) {
        let hears = |client: &&Arc<Client>| Some(client.number) != sender && client.wants(&publication.topic);
        let readers: Vec<_> = self.lock().values().filter(hears).cloned().collect();
        if !readers.is_empty() {
            let frame = Frame::text(|out| publication.write(out));
            readers.iter().for_each(|client| self.send(client, &frame));
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Nothing panics in the middle of a change.
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out the client that was silent for the longest; one that waits for an answer only if all do.
fn longest_silent(clients: &mut Clients) -> Option<Arc<Client>> {
    let silence = |client: &&Arc<Client>| (client.is_waiting(), client.heard.load(Ordering::Relaxed));
    let silent = clients.values().min_by_key(silence)?.number;
    clients.remove(&silent)
}

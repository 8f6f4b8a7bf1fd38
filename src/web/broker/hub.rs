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
use super::outgoing::{Frame, Full, Held, Queue};

/// How many clients may be connected. One more, and the one that was silent for the longest has to go: idle clients
/// keep nobody out.
pub const MOST_CLIENTS: usize = 700;
/// How many events of one client may wait for the host's answer. Further ones are not read meanwhile.
pub const MOST_WAITING: usize = 32;
/// The most bytes that may wait for all clients together. What several wait for counts once. Above it, whoever has the
/// most unread has to go.
pub const MOST_HELD: usize = 256 * 1024 * 1024;

/// The clients of one endpoint; cheap to copy, for any thread.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    endpoint: String,
    since: Instant,
    next: AtomicU64,
    clients: Mutex<Clients>,
    /// What waits for all of them.
    held: Held,
    most_held: usize,
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
        Self::holding(endpoint, MOST_HELD)
    }

    fn holding(endpoint: impl Into<String>, most_held: usize) -> Self {
        Self(Arc::new(Shared {
            endpoint: endpoint.into(),
            since: Instant::now(),
            next: AtomicU64::new(0),
            clients: Mutex::default(),
            held: Held::default(),
            most_held,
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
        self.push(client, &frame.clone().counted(&self.0.held));
        self.relieve();
    }

    fn push(&self, client: &Client, frame: &Frame) {
        if let Err(Full { frames, bytes }) = client.queue.push(frame) {
            self.put_out(client, format_args!("{frames} messages wait, {bytes} bytes"));
        }
    }

    /// Puts out whoever has the most unread, until no more waits for all together than may.
    fn relieve(&self) {
        while self.0.held.bytes() > self.0.most_held {
            let unread = |client: &Arc<Client>| (client.queue.bytes(), client.clone());
            let most = self.lock().values().map(unread).max_by_key(|(bytes, _)| *bytes);
            // What a queue does not have its connection is writing.
            let Some((bytes, client)) = most.filter(|(bytes, _)| *bytes > 0) else { return };
            let most = self.0.most_held;
            self.put_out(
                &client,
                format_args!("{bytes} bytes wait, the most of all, and above {most} for all together"),
            );
        }
    }

    /// Ends the connection of a client that does not read, and throws away what waits for it.
    fn put_out(&self, client: &Client, why: std::fmt::Arguments<'_>) {
        // Before the session gets to know and does it itself: this is told once.
        let first = self.leave(client);
        client.queue.cut();
        client.gone.notify_one();
        if first {
            tracing::warn!("disconnected {}, which does not read: {why}", client.name());
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
            let frame = Frame::text(|out| publication.write(out)).counted(&self.0.held);
            readers.iter().for_each(|client| self.push(client, &frame));
            drop(frame);
            self.relieve();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::broker::{Event, Value};

    fn change(topic: &str, bytes: usize) -> Publication {
        Publication::new(topic, Event::new("Test::change", vec![Value::String("x".repeat(bytes))]))
    }

    /// Clients of a hub that may hold 100,000 bytes; each hears one topic of its own, and what is said to all.
    fn scene(topics: &[&str]) -> (Hub, Vec<Arc<Client>>) {
        let hub = Hub::holding("test", 100_000);
        let client = |topic: &&str| {
            let client = hub.join(None);
            hub.subscribe(&client, vec![(*topic).into(), "all".into()]);
            client
        };
        let clients = topics.iter().map(client).collect();
        (hub, clients)
    }

    #[test]
    fn when_too_much_waits_for_all_together_whoever_has_the_most_unread_is_put_out() {
        let (hub, clients) = scene(&["a", "b", "c"]);
        for (topic, bytes) in [("a", 30_000), ("b", 40_000), ("c", 20_000)] {
            hub.publish(&change(topic, bytes));
        }
        assert_eq!(hub.clients(), 3, "that much may wait");
        hub.publish(&change("a", 9_000));
        assert_eq!(hub.clients(), 2);
        let unread: Vec<_> = clients.iter().map(|client| client.queue.bytes() / 1_000).collect();
        assert_eq!(unread, [39, 0, 20], "those with less miss nothing");
        assert!(hub.0.held.bytes() < 100_000);

        hub.publish(&change("c", 200_000));
        assert_eq!(hub.clients(), 1, "one message alone may be too much");
        assert_eq!(clients[0].queue.bytes() / 1_000, 39);
    }

    #[test]
    fn what_many_wait_for_is_held_once_and_puts_nobody_out() {
        let (hub, clients) = scene(&["a"; 50]);
        hub.publish(&change("all", 50_000));
        assert_eq!((hub.clients(), hub.0.held.bytes() / 50_000), (50, 1));
        clients.iter().for_each(|client| client.queue.cut());
        assert_eq!(hub.0.held.bytes(), 0);
    }
}

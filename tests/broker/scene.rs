//! An endpoint with a host that answers a little.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use watchpost::web::broker::{Answers, Door, ErrorMessage, Event, Host, Hub, Patience, Publication, Value, serve};

use watchpost::web::WebServer;

use crate::client::{Client, DEADLINE};
use crate::log;

/// The topic that everybody here speaks on.
pub const TOPIC: &str = "zeek/management/controller";

pub struct Scene {
    server: WebServer,
    pub hub: Hub,
    heard: Arc<Mutex<Vec<Publication>>>,
}

/// Answers `Test::ask` with its arguments, `Test::hang` never, and knows no other.
struct TestHost {
    heard: Arc<Mutex<Vec<Publication>>>,
}

impl Host for TestHost {
    fn admit(&self, publication: &Publication) -> Result<(), ErrorMessage> {
        let known = ["Test::ask", "Test::hang", "Test::silence"].contains(&publication.event.name.as_str());
        if known { Ok(()) } else { Err(ErrorMessage::no_event()) }
    }

    fn answer(&self, publication: Publication) -> Answers {
        self.heard.lock().unwrap().push(publication.clone());
        Box::pin(async move {
            match publication.event.name.as_str() {
                "Test::ask" => vec![answer(publication)],
                "Test::hang" => std::future::pending().await,
                _ => vec![],
            }
        })
    }
}

fn answer(publication: Publication) -> Publication {
    Publication::new(publication.topic, Event::new("Test::answer", publication.event.args))
}

impl Scene {
    pub fn new() -> Self {
        Self::with_patience(Patience::default())
    }

    pub fn with_patience(patience: Patience) -> Self {
        log::begin();
        let (hub, heard) = (Hub::new("test"), Arc::<Mutex<Vec<_>>>::default());
        let host = Arc::new(TestHost { heard: heard.clone() });
        let door = Door::new(hub.clone(), host, "sensor-1", &["watch.example".into()]).with_patience(patience);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        Self { server: serve(listener, door, None).unwrap(), hub, heard }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A client that hears what is said here.
    pub fn client(&self) -> Client {
        Client::hearing(self.address(), &[TOPIC])
    }

    pub fn stop(self) {
        self.server.join().unwrap();
    }

    /// What the host has heard by now.
    pub fn heard(&self) -> Vec<Publication> {
        self.heard.lock().unwrap().clone()
    }

    /// Checks that a client who comes now gets its answer.
    pub fn check_that_it_answers(&self) {
        let mut client = self.client();
        client.publish(&ask(4711));
        assert_eq!(client.event(), answer(ask(4711)));
    }
}

/// A question that is answered.
pub fn ask(number: u64) -> Publication {
    event("Test::ask", number)
}

/// The answer to it.
pub fn answered(number: u64) -> Publication {
    answer(ask(number))
}

/// An event that may or may not be known.
pub fn event(name: &str, number: u64) -> Publication {
    Publication::new(TOPIC, Event::new(name, vec![Value::Count(number)]))
}

/// Waits for something that happens in another thread.
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !probe() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

//! A peer on the bridge that follows a script: what a release that does not exist yet, or a stranger, says.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde::Serialize;
use watchpost::bridge::greeting::{Control, Greeting, MAGIC};
use watchpost::bridge::{Features, LinkRole};
use watchpost::message::agent::{API_VERSION, NewsReceived, NotifyAgentHello, ToAgent, ToController};
use watchpost::message::frame::{self, MAX_FRAME, OLDEST, PROTOCOL, Wire};
use watchpost::model::InstanceName;

use crate::common::{DEADLINE, eventually};

/// One end of a link, whose other end is a daemon.
pub struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// What a daemon says.
#[derive(Debug, PartialEq)]
pub enum Said {
    Control(Control),
    ToAgent(ToAgent),
    ToController(ToController),
}

impl Peer {
    pub fn connect(door: SocketAddr) -> Self {
        Self::over(TcpStream::connect(door).unwrap())
    }

    pub fn accept(socket: &TcpListener) -> Self {
        socket.set_nonblocking(true).unwrap();
        let (stream, _) = eventually("somebody connects", || socket.accept().ok());
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Greets, and takes the greeting of the other end.
    pub fn greet(&mut self, greeting: Greeting) -> Greeting {
        self.send(&[MAGIC.to_vec(), framed(&Control::from(greeting))].concat());
        self.fill(MAGIC.len());
        assert_eq!(self.unread.drain(..MAGIC.len()).collect::<Vec<_>>(), MAGIC);
        match self.next() {
            Said::Control(Control::Greeting(greeting)) => greeting,
            other => panic!("{other:?} instead of a greeting"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn say(&mut self, message: impl Into<ToController>) {
        self.send(&framed(&message.into()));
    }

    pub fn order(&mut self, message: impl Into<ToAgent>) {
        self.send(&framed(&message.into()));
    }

    /// A frame of a kind that there is not, with something in it.
    pub fn say_unknown(&mut self, kind: u16) {
        self.send(&unknown(kind, &("from the future", vec![kind; 3])));
    }

    /// The next thing that is said, but for heartbeats.
    pub fn next(&mut self) -> Said {
        loop {
            self.fill(4);
            let length = u32::from_be_bytes(self.unread[..4].try_into().unwrap()) as usize;
            self.fill(4 + length);
            let frame = frame::split(&self.unread, MAX_FRAME).unwrap().unwrap();
            let (kind, size) = (frame.kind, frame.size);
            let control = Control::decode(kind, frame.body).map(Said::Control);
            let said = control.or_else(|_| ToAgent::decode(kind, frame.body).map(Said::ToAgent));
            let said = said.or_else(|_| ToController::decode(kind, frame.body).map(Said::ToController)).unwrap();
            self.unread.drain(..size);
            if !matches!(said, Said::Control(Control::Heartbeat(_))) {
                return said;
            }
        }
    }

    /// The next thing of this sort; what comes before it is skipped.
    pub fn hear<T>(&mut self, pick: impl Fn(Said) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }

    /// The kind that the other end says it does not know, next of all such.
    pub fn hear_unknown(&mut self) -> u16 {
        self.hear(|said| match said {
            Said::Control(Control::NotUnderstood(not)) => Some(not.kind),
            _ => None,
        })
    }

    /// Says hello as an agent that greeted, and waits for the answer.
    pub fn hello(&mut self, name: &str) -> NewsReceived {
        self.say(hello(name));
        self.hear(|said| match said {
            Said::ToAgent(ToAgent::NewsReceived(received)) => Some(received),
            Said::ToAgent(ToAgent::AgentRefused(refused)) => panic!("{refused:?}"),
            _ => None,
        })
    }

    /// Waits for the end of the connection. What is said before that is thrown away.
    pub fn ended(mut self) {
        if let Err(error) = self.stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }

    fn fill(&mut self, length: usize) {
        let mut chunk = [0; 4096];
        while self.unread.len() < length {
            let count = self.stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the link ended with {:?}", String::from_utf8_lossy(&self.unread));
            self.unread.extend_from_slice(&chunk[..count]);
        }
    }
}

/// How an agent or a controller of the next release greets.
pub fn greeting_of_next(role: LinkRole, name: &str, cluster: &str) -> Greeting {
    let (protocol, features) = (PROTOCOL + 1, Features(u64::MAX));
    Greeting { protocol, oldest: PROTOCOL, role, name: name.into(), cluster: cluster.into(), features }
}

/// How one of this release greets.
pub fn greeting(role: LinkRole, name: &str, cluster: &str) -> Greeting {
    let greeting = greeting_of_next(role, name, cluster);
    Greeting { protocol: PROTOCOL, oldest: OLDEST, features: Features::of(role), ..greeting }
}

pub fn hello(name: &str) -> NotifyAgentHello {
    NotifyAgentHello {
        instance: InstanceName::new(name).unwrap(),
        host: None,
        api_version: API_VERSION,
        version: "0.0.9".into(),
        epoch: 5,
        run: 5,
        place: 0,
        abilities: watchpost::model::Abilities::untried(),
    }
}

pub fn framed(message: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.append_to(&mut bytes).unwrap();
    bytes
}

fn unknown(kind: u16, body: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, kind, "Future", body).unwrap();
    bytes
}

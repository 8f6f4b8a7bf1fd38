//! A WebSocket client that does as it is told, also what no client should do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value as Json, json};
use watchpost::web::broker::{PATH, Publication};

/// Long enough for a machine that is busy with something else. What works never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Client {
    pub stream: TcpStream,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Text(String),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// The connection ended.
    Gone,
}

impl Client {
    /// A bare connection.
    pub fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// A connection that was upgraded.
    pub fn upgraded(address: SocketAddr) -> Self {
        let (client, answer) = Self::asking(address, PATH, &[]);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
        client
    }

    /// A connection that hears of these topics.
    pub fn hearing(address: SocketAddr, topics: &[&str]) -> Self {
        let mut client = Self::upgraded(address);
        client.say(&json!(topics).to_string());
        assert_eq!(client.json()["type"], "ack");
        client
    }

    /// Asks for an upgrade, with these headers in addition, and returns the head of the answer.
    pub fn asking(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Self, String) {
        let mut client = Self::dial(address);
        let own = [("Host", address.to_string())];
        let given = |name: &str| headers.iter().any(|(other, _)| *other == name);
        let mut head = format!("GET {path} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        own.iter().filter(|(name, _)| !given(name)).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        client.write(format!("{head}\r\n").as_bytes());
        let answer = client.head();
        (client, answer)
    }

    /// Reads up to the empty line that ends a head.
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(self.stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Where the server sees it.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a text.
    pub fn say(&mut self, text: &str) {
        self.write(&frame(0x81, text.as_bytes()));
    }

    pub fn publish(&mut self, publication: &Publication) {
        self.write(&frame(0x81, &publication.to_json()));
    }

    /// The next frame.
    pub fn next(&mut self) -> Got {
        match self.try_next() {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing came within {DEADLINE:?}"),
            Err(_) => Got::Gone,
        }
    }

    /// Whatever comes before the end of the connection.
    pub fn rest(&mut self) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            match self.next() {
                Got::Gone => return all,
                got => all.push(got),
            }
        }
    }

    pub fn text(&mut self) -> String {
        match self.next() {
            Got::Text(text) => text,
            other => panic!("a text was to come, not {other:?}"),
        }
    }

    pub fn json(&mut self) -> Json {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The next event.
    pub fn event(&mut self) -> Publication {
        let text = self.text();
        Publication::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The context of the error that is to come.
    pub fn error(&mut self) -> (String, String) {
        let error = self.json();
        assert_eq!(error["type"], "error", "{error}");
        (error["code"].as_str().unwrap().into(), error["context"].as_str().unwrap().into())
    }

    /// The code and the reason of the close that is to come, and that nothing follows.
    pub fn closed(&mut self) -> (u16, String) {
        let Got::Close(Some(code), reason) = self.next() else { panic!("it was to be closed") };
        assert_eq!(self.rest(), []);
        (code, reason)
    }

    fn try_next(&mut self) -> io::Result<Got> {
        let [first, second] = self.bytes()?;
        assert_eq!(second & 0x80, 0, "a server has no mask");
        let length = match second {
            126 => u16::from_be_bytes(self.bytes()?).into(),
            127 => u64::from_be_bytes(self.bytes()?),
            short => short.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok(match first {
            0x81 => Got::Text(text(&payload)),
            0x89 => Got::Ping,
            0x8a => Got::Pong(payload),
            0x88 => match payload.split_first_chunk() {
                Some((code, reason)) => Got::Close(Some(u16::from_be_bytes(*code)), text(reason)),
                None => Got::Close(None, String::new()),
            },
            other => panic!("{other:#x} begins no frame of a server"),
        })
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A frame as a client sends it. The first byte says what it is.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 0, 200, 31];
    let mut frame = head(first, payload.len() as u64);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The head of a frame up to the mask.
pub fn head(first: u8, length: u64) -> Vec<u8> {
    let wide = length.to_be_bytes();
    match length {
        0..=125 => vec![first, 0x80 | wide[7]],
        126..=0xffff => [&[first, 0x80 | 126][..], &wide[6..]].concat(),
        _ => [&[first, 0x80 | 127][..], &wide].concat(),
    }
}

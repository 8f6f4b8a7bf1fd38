//! A client that sends exactly the bytes it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends one request of these lines (the first is the request line) and reads the answer to its end.
pub fn exchange(address: &str, lines: &[&str], body: &str) -> Response {
    let mut stream = send(address, &[lines, &["connection: close"]].concat(), body);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_ascii_lowercase(), body: body.into() }
}

pub fn get(address: &str, path: &str, headers: &[&str]) -> Response {
    exchange(address, &[&[&*format!("GET {path} HTTP/1.1"), "host: localhost"], headers].concat(), "")
}

pub fn post(address: &str, path: &str, body: &str) -> Response {
    let first = format!("POST {path} HTTP/1.1");
    exchange(address, &[&first, "host: localhost", "content-type: application/json"], body)
}

fn send(address: &str, lines: &[&str], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = format!("content-length: {}", body.len());
    let lines = if body.is_empty() { lines.to_vec() } else { [lines, &[&*length]].concat() };
    stream.write_all(format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes()).unwrap();
    stream
}

/// A stream of events, read line by line and free of the chunks that HTTP cuts it into.
pub struct Events(BufReader<TcpStream>);

impl Events {
    pub fn open(address: &str, path: &str, headers: &[&str]) -> Self {
        let first = format!("GET {path} HTTP/1.1");
        Self(BufReader::new(send(address, &[&[&*first, "host: localhost"], headers].concat(), "")))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("the stream says something in time");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The `id` and `data` of the next event; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<(String, String)> {
        let mut id = None;
        loop {
            let line = self.line()?;
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((id.expect("every event has an id"), data.to_owned()));
            } else if line == "0" {
                return None;
            }
        }
    }
}

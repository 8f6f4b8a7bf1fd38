//! The server under the APIs, with applications of the tests' own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse};
use futures_util::stream;
use watchpost::web::WebServer;
use watchpost::web::serve::{Application, Closing, Limits, serve};
use watchpost::web::tls::Tls;

use crate::fake::eventually;

const HOUR: Duration = Duration::from_secs(3600);

/// Answers `/` at once, `/peer` with the client's address, `/last` when the server ends, `/stream` until it ends, and `/never` never.
pub fn server(limits: Limits, tls: Option<Tls>) -> WebServer {
    probed(limits, tls, Arc::default())
}

/// Besides its maker the probe is held by the server, by its application while there is one, and by every `/last`.
fn probed(limits: Limits, tls: Option<Tls>, probe: Arc<()>) -> WebServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    serve("test", listener, limits, tls, move |closing: &Closing| {
        let app = App::new()
            .app_data(Data::new(closing.clone()))
            .app_data(Data::new(probe.clone()))
            .route("/", web::get().to(async || "hello"))
            .route("/peer", web::get().to(async |request: HttpRequest| request.peer_addr().unwrap().to_string()))
            .route("/last", web::get().to(last))
            .route("/stream", web::get().to(until_the_end))
            .route("/never", web::get().to(async || std::future::pending::<&str>().await));
        Application::new(app)
    })
    .unwrap()
}

async fn end_of(closing: &Closing) {
    let _ = closing.clone().wait_for(|closing| *closing).await;
}

async fn last(closing: Data<Closing>, probe: Data<Arc<()>>) -> &'static str {
    let _held = probe.get_ref().clone();
    end_of(&closing).await;
    "last words"
}

async fn until_the_end(closing: Data<Closing>) -> HttpResponse {
    let parts = stream::unfold(true, move |first| {
        let closing = closing.clone();
        async move {
            if !first {
                end_of(&closing).await;
                return None;
            }
            Some((Ok::<_, std::io::Error>("part".into()), false))
        }
    });
    HttpResponse::Ok().streaming(parts)
}

pub fn connect(server: &WebServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends a request and leaves the connection open.
pub fn ask(stream: &mut impl Write, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
}

/// Reads until what was read ends like this.
fn until(stream: &mut impl Read, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) {
        let read = stream.read(&mut byte).expect("it says so in time");
        assert!(read > 0, "it ended with {:?} and not with {end:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it ends in time");
    text
}

/// Waits for the end of the server in a thread, so that one that never ends fails the test instead of stopping it.
fn joined(server: WebServer) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(server.join()));
    told.recv_timeout(Duration::from_secs(20)).expect("the server ends").unwrap();
}

#[test]
fn the_application_exists_only_while_somebody_is_connected() {
    let probe = Arc::new(());
    let server = probed(Limits::default(), None, probe.clone());
    let ours_and_the_servers = 2;
    for _ in 0..2 {
        assert_eq!(Arc::strong_count(&probe), ours_and_the_servers);
        let (mut first, mut second) = (connect(&server), connect(&server));
        ask(&mut first, "/");
        until(&mut first, "hello");
        ask(&mut second, "/");
        until(&mut second, "hello");
        assert!(Arc::strong_count(&probe) > ours_and_the_servers);
        drop(first);
        ask(&mut second, "/");
        until(&mut second, "hello");
        assert!(Arc::strong_count(&probe) > ours_and_the_servers);
        drop(second);
        eventually("the application is gone", || Arc::strong_count(&probe) == ours_and_the_servers);
    }
}

#[test]
fn the_application_knows_the_address_of_its_client() {
    let server = server(Limits::default(), None);
    let mut stream = connect(&server);
    ask(&mut stream, "/peer");
    let address = stream.local_addr().unwrap().to_string();
    until(&mut stream, &format!("\r\n\r\n{address}"));
}

#[test]
fn whoever_sends_no_head_is_cut_off() {
    let server = server(Limits { head_within: Duration::from_millis(200), ..Limits::default() }, None);
    let mut silent = connect(&server);
    let mut slow = connect(&server);
    slow.write_all(b"GET / HTTP/1.1\r\nhost: local").unwrap();
    assert!(rest(&mut silent).starts_with("HTTP/1.1 408"));
    assert!(rest(&mut slow).starts_with("HTTP/1.1 408"));
}

#[test]
fn more_clients_than_may_be_wait_until_one_has_left() {
    let server = server(Limits { connections: 2, ..Limits::default() }, None);
    let (mut first, mut second, mut third) = (connect(&server), connect(&server), connect(&server));
    for stream in [&mut first, &mut second] {
        ask(stream, "/never");
    }
    ask(&mut third, "/");
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "nobody answers the third");
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(first);
    until(&mut third, "hello");
}

#[test]
fn a_server_that_ends_closes_its_streams_and_gives_its_last_answers() {
    let probe = Arc::new(());
    let limits = Limits { last_answers: HOUR, head_within: HOUR, ..Limits::default() };
    let server = probed(limits, None, probe.clone());
    let address = server.address();
    let (mut stream, mut last, mut idle) = (connect(&server), connect(&server), connect(&server));
    ask(&mut idle, "/");
    until(&mut idle, "hello");
    ask(&mut stream, "/stream");
    until(&mut stream, "part\r\n");
    let before = Arc::strong_count(&probe);
    ask(&mut last, "/last");
    eventually("the last answer is under way", || Arc::strong_count(&probe) > before);
    joined(server);
    assert_eq!(rest(&mut stream), "0\r\n\r\n");
    assert!(rest(&mut last).ends_with("last words"));
    assert_eq!(rest(&mut idle), "");
    TcpListener::bind(address).expect("the port is free again");
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = server(Limits { last_answers: Duration::from_millis(200), ..Limits::default() }, None);
    let mut stream = connect(&server);
    ask(&mut stream, "/never");
    joined(server);
    assert!(stream.read(&mut [0]).map_or(true, |read| read == 0), "it is cut off");
}

#[test]
fn a_handle_that_is_dropped_ends_its_server() {
    let server = server(Limits::default(), None);
    let mut stream = connect(&server);
    ask(&mut stream, "/stream");
    until(&mut stream, "part\r\n");
    drop(server);
    assert_eq!(rest(&mut stream), "0\r\n\r\n");
}

//! Broker's WebSocket against a bare actix-ws: a question and its answer, and changes that go out to many clients.
//!
//! The floor is actix-ws with nothing around it, in the same process, on a thread of its own like the endpoint. It sends
//! a text back as it came; or it sends one text as often as it is told to, to each of as many clients, which is the least
//! that a fan-out does. The clients are bare sockets: for a question a blocking one, for the fan-out a hundred on one
//! thread.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::Message;
use common::figures::{Sample, line, now, options};
use tokio::io::AsyncReadExt;
use watchpost::model::InstanceName;
use watchpost::plan::PortRules;
use watchpost::run::{AgentOptions, ControllerOptions, join, start_agent, start_controller};
use watchpost::web::WebServer;
use watchpost::web::broker::{
    Answers, Door, ErrorMessage, Event, Host, Hub, MAX_MESSAGE, PATH, Publication, Value, serve,
};
use watchpost::web::management::{self, ManagementSettings, Port};

const MOST_LATENCY: f64 = 1.5;
const LEAST_FAN_OUT: f64 = 0.6;
const ROUNDS: usize = 10;
/// Questions of one round.
const QUESTIONS: usize = 1_000;
/// Who listens to the changes, how many changes a round has, and how many are out at a time.
const CLIENTS: usize = 100;
const CHANGES: usize = 1_000;
const BURST: usize = 200;

const CONTROLLER: &str = "zeek/management/controller";
const AGENT: &str = "zeek/management/agent/agent-box";

fn main() {
    let Some(options) = options() else { return };
    let (hub, server) = endpoint();
    let floor = bare();
    let controller = controller();
    let [mut echoed, mut answered, mut asked, mut floor_sent, mut sent] = [(); 5].map(|()| Sample::default());

    let question = question();
    let mut echo = Client::upgraded(floor);
    let mut asking = Client::hearing(server.address(), CONTROLLER);
    let mut asking_controller = Client::hearing(controller, CONTROLLER);
    for _ in 0..ROUNDS * options.factor {
        echoed.add(round_trips(&mut echo, &question));
        answered.add(round_trips(&mut asking, &question));
        asked.add(round_trips(&mut asking_controller, &question));
    }

    let change = change();
    let readers = Readers::new((0..CLIENTS).map(|_| Client::hearing(server.address(), AGENT)).collect());
    let mut bare_clients: Vec<_> = (0..CLIENTS).map(|_| Client::upgraded(floor)).collect();
    let text = String::from_utf8(change.to_json()).expect("a message is text");
    for client in &mut bare_clients {
        client.say(KEEP);
        client.say(&text);
    }
    let mut writers: Vec<_> = bare_clients.iter().map(Client::copy).collect();
    let bare_readers = Readers::new(bare_clients);
    for _ in 0..ROUNDS * options.factor {
        let burst = BURST.to_string();
        floor_sent.add(fan_out(&bare_readers, text.len(), || writers.iter_mut().for_each(|client| client.say(&burst))));
        sent.add(fan_out(&readers, text.len(), || (0..BURST).for_each(|_| hub.publish(&change))));
    }

    println!("a question of {} bytes, microseconds at p50 of {QUESTIONS}: median (least to most)", question.len());
    line("the floor: sent back by a bare actix-ws", &echoed, None);
    line("heard, put to a host and answered", &answered, Some((&answered.over(&echoed), Some(MOST_LATENCY))));
    line("the same by a controller with one agent", &asked, Some((&asked.over(&echoed), Some(MOST_LATENCY))));
    println!("changes of {} bytes to {CLIENTS} clients, thousands of messages a second", text.len());
    line("the floor: sent by a bare actix-ws", &floor_sent, None);
    line("published", &sent, Some((&sent.over(&floor_sent), Some(LEAST_FAN_OUT))));
}

/// The median of many round trips, in microseconds.
fn round_trips(client: &mut Client, question: &str) -> f64 {
    let trip = |_| {
        let begin = now();
        client.say(question);
        client.frame();
        (now() - begin) as f64 / 1e3
    };
    (0..QUESTIONS).map(trip).collect::<Sample>().median()
}

/// Thousands of messages a second that come to the readers, of bursts that `send` sends to each.
fn fan_out(readers: &Readers, length: usize, mut send: impl FnMut()) -> f64 {
    // A head of four bytes: the texts here are between 126 and 65,535 bytes long.
    let bytes = (length + 4) * BURST * CLIENTS;
    let begin = now();
    for _ in 0..CHANGES / BURST {
        send();
        readers.wait_for(bytes);
    }
    (CHANGES * CLIENTS) as f64 * 1e6 / (now() - begin) as f64
}

fn question() -> String {
    let event = Event::new("Management::Controller::API::get_instances_request", vec!["6f0a2c1e".into()]);
    String::from_utf8(Publication::new(CONTROLLER, event).to_json()).expect("a message is text")
}

fn change() -> Publication {
    let args = vec![
        "agent-box".into(),
        "worker-17".into(),
        Value::enumerated("Management::RUNNING"),
        Value::enumerated("Management::CRASHED"),
        "killed by signal 9 (SIGKILL)".into(),
    ];
    Publication::new(AGENT, Event::new("Management::Agent::API::notify_change", args))
}

/// Answers at once, with one instance.
struct Trivial;

impl Host for Trivial {
    fn admit(&self, _: &Publication) -> Result<(), ErrorMessage> {
        Ok(())
    }

    fn answer(&self, publication: Publication) -> Answers {
        Box::pin(async move {
            let Publication { topic, event: Event { mut args, .. } } = publication;
            let instance = Value::Vector(vec!["agent-box".into(), Value::None, Value::None]);
            let id = args.pop().unwrap_or_default();
            let result =
                vec![id.clone(), true.into(), Value::None, Value::vector([instance]), Value::None, Value::None];
            let name = "Management::Controller::API::get_instances_response";
            vec![Publication::new(topic, Event::new(name, vec![id, Value::Vector(result)]))]
        })
    }
}

fn endpoint() -> (Hub, WebServer) {
    let hub = Hub::new("bench");
    let door = Door::new(hub.clone(), Arc::new(Trivial), "", &[]);
    let server =
        serve(TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports"), door, None).expect("it can be served");
    (hub, server)
}

/// A controller with an agent beside it, and its port for clients, on threads of their own.
fn controller() -> SocketAddr {
    let (started, start) = mpsc::channel();
    thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let home = tempfile::tempdir().expect("a directory");
            let name = |text| InstanceName::new(text).expect("a name");
            let controller = start_controller(ControllerOptions::new(name("controller"), home.path()));
            let controller = controller.expect("it can start");
            let agent = start_agent(AgentOptions::new(name("agent-box"), home.path().join("nodes")));
            join(&controller, &agent.expect("it can start"), &name("agent-box"));
            let ports = PortRules::default();
            let management = ManagementSettings { name: "bench".into(), answer_within: Duration::from_secs(19), ports };
            let port = Port { management, own_hostname: String::new(), hosts: Vec::new(), tls: None };
            let socket = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
            let server = management::serve(socket, controller, port).expect("it can be served");
            started.send(server.address()).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    start.recv().expect("it starts")
}

/// What tells the floor to keep the next text, and to send it as often as a number then says.
const KEEP: &str = "keep";

/// A server of nothing but actix-ws.
fn bare() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(|| {
        actix_rt::System::new().block_on(async move {
            let app = || App::new().default_service(web::to(bare_session));
            let server = HttpServer::new(app).workers(1).disable_signals().tcp_nodelay(true);
            server.listen(listener).expect("it can be served").run().await
        })
    });
    address
}

async fn bare_session(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let (response, mut session, stream) = actix_ws::handle(&request, payload)?;
    let mut stream = stream.max_frame_size(MAX_MESSAGE);
    actix_web::rt::spawn(async move {
        let (mut keep, mut kept) = (false, None);
        while let Some(Ok(Message::Text(text))) = stream.recv().await {
            if std::mem::take(&mut keep) {
                kept = Some(text);
            } else if text == KEEP {
                keep = true;
            } else if let (Some(kept), Ok(times)) = (&kept, text.parse()) {
                for _ in 0..times {
                    // An error means that the client is gone.
                    let _ = session.text(kept.clone()).await;
                }
            } else {
                let _ = session.text(text).await;
            }
        }
    });
    Ok(response)
}

struct Client(TcpStream);

impl Client {
    fn upgraded(address: SocketAddr) -> Self {
        let mut client = Self(TcpStream::connect(address).expect("it listens"));
        client.0.set_nodelay(true).expect("a socket takes this");
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        client.write(format!("GET {PATH} HTTP/1.1\r\nHost: {address}\r\n{upgrade}\r\n{key}\r\n\r\n").as_bytes());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.bytes::<1>()[0]);
        }
        client
    }

    fn hearing(address: SocketAddr, topic: &str) -> Self {
        let mut client = Self::upgraded(address);
        client.say(&format!("[\"{topic}\"]"));
        client.frame();
        client
    }

    fn copy(&self) -> Self {
        Self(self.0.try_clone().expect("there are not that many"))
    }

    fn say(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.write(&frame);
    }

    /// Reads one frame.
    fn frame(&mut self) -> Vec<u8> {
        let [_, length] = self.bytes();
        let length = if length == 126 { u16::from_be_bytes(self.bytes()).into() } else { usize::from(length) };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("the server sends whole frames");
        payload
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("the server sends whole frames");
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }
}

/// Many clients that are read on one thread.
struct Readers {
    left: Arc<AtomicUsize>,
    done: mpsc::Receiver<()>,
}

impl Readers {
    fn new(clients: Vec<Client>) -> Self {
        let left = Arc::new(AtomicUsize::new(0));
        let (all, done) = mpsc::channel();
        let counter = left.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread has one");
            runtime.block_on(async move {
                let readers =
                    clients.into_iter().map(|client| tokio::spawn(count(client, counter.clone(), all.clone())));
                futures_util::future::join_all(readers).await
            })
        });
        Self { left, done }
    }

    /// Waits until so many bytes more have come than before.
    fn wait_for(&self, bytes: usize) {
        let before = self.left.fetch_add(bytes, Ordering::AcqRel);
        if before.wrapping_add(bytes) != 0 {
            self.done.recv().expect("the readers live on");
        }
    }
}

/// Takes what comes off what is left, and tells when that is nothing. It may be less than nothing in between.
async fn count(client: Client, left: Arc<AtomicUsize>, done: mpsc::Sender<()>) {
    client.0.set_nonblocking(true).expect("a socket takes this");
    let mut stream = tokio::net::TcpStream::from_std(client.0).expect("the runtime takes sockets");
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => panic!("a reader was disconnected"),
            Ok(read) => {
                if left.fetch_sub(read, Ordering::AcqRel) == read {
                    // An error means that nobody waits any more.
                    let _ = done.send(());
                }
            }
        }
    }
}

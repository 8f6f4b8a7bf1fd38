//! A peer that opens a thousand connections: what it may cost is bounded, it is told of in a few lines, and whoever has
//! business here gets in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{ClientConnection, StreamOwned};
use watchpost::trust::Visit;

use crate::common::{DEADLINE, Daemon, Scene, eventually, processes};
use crate::trust::Secured;

const MANY: usize = 1000;
/// What a thousand of them may cost, in KiB.
const GROWTH: u64 = 24 << 10;
/// What is open for a while for other reasons.
const OTHERS: usize = 16;

/// Who is left of a crowd in front of a port.
struct Crowd {
    open: Vec<TcpStream>,
    began: Instant,
}

impl Crowd {
    /// Every second of them has said something, of which nothing can be made yet.
    fn gather(door: SocketAddr, word: &[u8]) -> Self {
        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
        let began = Instant::now();
        let join = |number: usize| {
            let mut stream = TcpStream::connect(door).unwrap();
            if number.is_multiple_of(2) {
                let _ = stream.write_all(word); // it may have been sent away
            }
            stream
        };
        Self { open: (0..MANY).map(join).collect(), began }
    }

    /// How many have not been sent away.
    fn left(&self) -> usize {
        self.open.iter().filter(|stream| !is_over(stream)).count()
    }
}

/// Whether the other end has closed it; what it said before that is thrown away.
fn is_over(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(1..) => {}
            Ok(0) => return true,
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// A daemon and what it cost before anybody came.
struct Cost<'a> {
    daemon: &'a Daemon,
    descriptors: usize,
    memory: u64,
}

impl<'a> Cost<'a> {
    fn of(daemon: &'a Daemon) -> Self {
        let pid = daemon.pid();
        Self { daemon, descriptors: processes::descriptors(pid), memory: processes::resident(pid) }
    }

    /// Checks that no more than so many strangers are kept.
    fn is_bounded(&self, strangers: usize) {
        let (descriptors, memory) = (processes::descriptors(self.daemon.pid()), processes::resident(self.daemon.pid()));
        // Some that have to go are on their way.
        let most = self.descriptors + strangers + strangers / 4 + OTHERS;
        assert!(descriptors <= most, "{descriptors} descriptors, and {} before", self.descriptors);
        let grown = memory.saturating_sub(self.memory);
        assert!(grown < GROWTH, "they cost {grown} KiB");
    }

    fn is_over(&self) {
        eventually("nothing of them is left", || {
            (processes::descriptors(self.daemon.pid()) <= self.descriptors + OTHERS).then_some(())
        });
    }
}

/// Checks that a daemon said this at least once, and no more often than about once a second.
fn said_seldom(daemon: &Daemon, words: &str, since: Instant) {
    eventually(words, || daemon.log().contains(words).then_some(()));
    let (said, seconds) = (daemon.log().matches(words).count(), since.elapsed().as_secs() as usize);
    assert!(said <= seconds + 2, "{words}: {said} times in {seconds} seconds");
}

#[test]
fn a_thousand_connections_to_the_port_for_agents_are_bounded_and_keep_no_agent_out() {
    /// How many may be without a greeting.
    const PLACES: usize = 256;
    let secured = Secured::with(&[("controller", "control", "controller"), ("agent", "a", "a"), ("agent", "b", "b")]);
    let controller = secured.controller();
    let client = controller.client();
    let agent = secured.agent("a", "a", &controller);
    let linked = |name: &str| {
        client.wait("it is linked", |status| {
            status.instances.iter().any(|instance| instance.name == name && instance.link == "UP")
        })
    };
    linked("a");
    let cost = Cost::of(&controller);
    let door = SocketAddr::from(([127, 0, 0, 1], controller.addresses()["agents"].port()));
    let crowd = Crowd::gather(door, &[22, 3, 1]);
    cost.is_bounded(PLACES);
    let late = secured.agent("b", "b", &controller);
    linked("b");
    assert!(!agent.log().contains("link down"), "{}", agent.log());
    cost.is_bounded(PLACES);
    said_seldom(&controller, "too many connections are without a greeting, and this was the oldest", crowd.began);
    drop(crowd);
    cost.is_over();
    drop(late);
}

#[test]
fn a_thousand_connections_to_the_encrypted_api_are_bounded_and_keep_nobody_out() {
    /// How many may shake hands at once.
    const PLACES: usize = 64;
    let secured = Secured::with(&[("controller", "control", "controller"), ("agent", "a", "a")]);
    let controller = secured.controller_with("[controller]\nhttp_tls = true\n");
    let api = controller.addresses()["http"];
    let cost = Cost::of(&controller);
    let crowd = Crowd::gather(api, &[22, 3, 1]);
    cost.is_bounded(2 * PLACES);
    eventually("all but a few are sent away", || (crowd.left() <= PLACES).then_some(()));
    // Others shake hands, and say nothing after that.
    let authority = controller.state_dir().join("trust/ca.pem");
    let config = Arc::new(Visit::default().with_authority(&authority).unwrap().config().unwrap());
    let shake = || {
        let connection = ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(api).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        StreamOwned::new(connection, stream)
    };
    let mut silent: Vec<_> = (0..MANY / 10)
        .map(|_| {
            let mut stream = shake();
            stream.flush().unwrap();
            stream
        })
        .collect();
    cost.is_bounded(2 * PLACES + silent.len());
    let mut asking = shake();
    asking.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let agent = secured.agent("a", "a", &controller);
    eventually("an agent gets in meanwhile", || agent.log().contains("link up").then_some(()));
    let mut last = silent.pop().unwrap();
    let _ = last.read_to_end(&mut Vec::new()); // cut off in its time, in whatever way
    drop((crowd, silent));
    cost.is_over();
}

#[test]
fn a_thousand_clients_that_say_nothing_leave_the_controller_descriptors_for_agents() {
    let scene = Scene::new();
    let any = scene.any_port();
    // As a shell, or a service manager, starts programs: with few descriptors, and leave to have more.
    let few = ["sh", "-c", "ulimit -S -n 512; exec \"$0\" \"$@\""];
    let controller =
        Daemon::start_through(&few, &scene, "controller", &["controller", "--listen", &any, "--http", &any]);
    let cost = Cost::of(&controller);
    let crowd = Crowd::gather(controller.addresses()["http"], b"GET / HT");
    let connect = controller.addresses()["agents"].to_string();
    let agent = Daemon::start(&scene, "a", &["agent", "--name", "a", "--connect", &connect]);
    eventually("an agent gets in beside them", || agent.log().contains("link up").then_some(()));
    cost.is_bounded(MANY);
    eventually("whoever says nothing is cut off", || (crowd.left() == 0).then_some(()));
    assert!(!controller.log().contains("cannot accept"), "{}", controller.log());
    let status = controller.client().status();
    assert_eq!(status.instances.len(), 1);
    cost.is_over();
}

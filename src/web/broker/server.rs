//! Where the endpoint listens, and who may come in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpServer};
use rustix::net::sockopt;
use tokio::sync::Semaphore;

use super::host::Host;
use super::hub::{Hub, MOST_CLIENTS};
use super::incoming::MOST_LARGE;
use super::session;
use crate::web::guard::{Names, Refusal, only, shorten};

/// The only path there is.
pub const PATH: &str = "/v1/messages/json";

/// How many connections there may be: the clients, those who are not in yet, and those who are not gone yet.
const MOST_CONNECTIONS: usize = MOST_CLIENTS + 100;
/// How long a client may take to ask for the upgrade.
const UPGRADE_WITHIN: Duration = Duration::from_secs(5);
/// How long the last frames may take once the server ends, in seconds.
const LAST_FRAMES: u64 = 1;

/// When the system asks a silent peer whether it is still there, how often again, and how many times.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
/// How long the system tries to get something to a peer that takes nothing.
const UNREAD_WITHIN: Duration = Duration::from_secs(120);

/// What every connection needs.
pub struct Door {
    pub(super) hub: Hub,
    pub(super) host: Arc<dyn Host>,
    pub(super) names: OwnNames,
    /// One permit for each long message that may be under way.
    pub(super) large: Arc<Semaphore>,
}

impl Door {
    /// `own_hostname` and `hosts` are what clients may call this machine besides its addresses and `localhost`.
    pub fn new(hub: Hub, host: Arc<dyn Host>, own_hostname: &str, hosts: &[String]) -> Self {
        let names = OwnNames(Names::new(own_hostname, hosts));
        Self { hub, host, names, large: Arc::new(Semaphore::new(MOST_LARGE)) }
    }

    /// Puts the endpoint into an application: it answers whatever nothing else in there does.
    pub fn configure(self: &Arc<Self>) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let door = Data::from(self.clone());
        move |config| {
            config.app_data(door).default_service(web::to(session::open));
        }
    }
}

/// The rule for browsers.
pub(super) struct OwnNames(Names);

impl OwnNames {
    /// A page of this very address may come in, as may whoever is no page. The client sends an `Origin` like a page's.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = only(headers, header::HOST).ok_or(Refusal::NoHost)?;
        if !self.0.is_own(host) {
            return Err(Refusal::Host(shorten(host)));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN).unwrap_or("several origins");
            let own = |scheme| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}"));
            if !own("http") && !own("https") {
                return Err(Refusal::Origin(shorten(origin)));
            }
        }
        Ok(())
    }
}

/// The endpoint while it is served. Dropping it ends the server without waiting for it.
pub struct BrokerServer {
    address: SocketAddr,
    hub: Hub,
    server: ServerHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl BrokerServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: its clients are told that it terminates. Does not wait.
    pub fn stop(&self) {
        self.hub.close();
        // The order is given by the call; what it returns only waits for the end.
        drop(self.server.stop(true));
    }

    /// Ends the server and waits until it is gone. Blocks, so it is not for actors.
    pub fn join(mut self) -> io::Result<()> {
        self.stop();
        self.thread.take().map_or(Ok(()), end_of)
    }
}

impl Drop for BrokerServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves the endpoint on `listener`, on a thread of its own, until the handle is stopped.
pub fn serve(listener: TcpListener, door: Door) -> io::Result<BrokerServer> {
    let address = listener.local_addr()?;
    let hub = door.hub.clone();
    find_dead_peers(&listener)?;
    let (started, start) = mpsc::sync_channel(1);
    let thread = Builder::new().name("broker".into()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            let server = server(listener, Arc::new(door))?;
            // An error means that nobody waits for the server any more.
            started.send(server.handle()).map_err(io::Error::other)?;
            server.await
        })
    })?;
    match start.recv() {
        Ok(server) => Ok(BrokerServer { address, hub, server, thread: Some(thread) }),
        Err(_) => Err(end_of(thread).err().unwrap_or_else(|| io::Error::other("it ended at once"))),
    }
}

fn server(listener: TcpListener, door: Arc<Door>) -> io::Result<Server> {
    let server = HttpServer::new(move || App::new().configure(door.configure()))
        .workers(1)
        .max_connections(MOST_CONNECTIONS)
        .client_request_timeout(UPGRADE_WITHIN)
        .h1_allow_half_closed(false)
        .shutdown_timeout(LAST_FRAMES)
        .disable_signals()
        .tcp_nodelay(true)
        .listen(listener)?;
    Ok(server.run())
}

/// Lets the system find peers that vanished without a word: a ping of ours would make zeek-client wait for longer.
/// What is set here every accepted socket has, too.
pub(crate) fn find_dead_peers(listener: &TcpListener) -> io::Result<()> {
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(listener, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(listener, PROBES)?;
    // In milliseconds. It also ends connections that were given up here and whose peer still reads nothing.
    sockopt::set_tcp_user_timeout(listener, u32::try_from(UNREAD_WITHIN.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that serves Broker's clients panicked")))
}

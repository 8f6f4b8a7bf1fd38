//! The edge for people and programs: HTTP ⇄ [`crate::message::client`].
//!
//! [`serve`] answers on a thread of its own, so that no client, however busy, takes time from the controller.
//! [`guard`] stands in front of every route, [`routes`] turns requests into messages, [`events`] streams the log,
//! [`json`] is what people see, and [`problem`] what they see when it went wrong.

pub mod broker;
pub mod configuration;
pub mod desk;
pub mod events;
pub mod feed;
pub mod guard;
pub mod json;
pub mod problem;
pub mod reach;
pub mod routes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use tokio::sync::watch;

pub use desk::Desk;

use crate::plan::PortRules;

/// How many clients may be connected at once, readers of events included.
const MOST_CONNECTIONS: usize = 1024;
/// How long a client may take to send the head of its request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long answers under way may take once the server ends, in seconds.
const LAST_ANSWERS: u64 = 1;

/// Who may use the API. Not `Debug`: it holds the token.
#[derive(Clone)]
pub struct WebSettings {
    /// Whether requests need no token.
    pub open: bool,
    /// Names besides addresses, `localhost` and `own_hostname` that clients may call this machine by.
    pub hosts: Vec<String>,
    /// What clients must know, unless `open`. If it is empty, nobody gets in.
    pub token: String,
    /// This machine's name; also the name of the default instance in cluster files that declare none.
    pub own_hostname: String,
    /// The controller's own, so that what it would refuse is refused with file, line and key.
    pub ports: PortRules,
}

/// How cluster files are read here.
pub(crate) struct Reader {
    /// Names the default instance of a file that declares none.
    hostname: String,
    ports: PortRules,
}

/// The API while it is served. Dropping it ends the server without waiting for it.
pub struct WebServer {
    address: SocketAddr,
    server: ServerHandle,
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl WebServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: no new clients, streams are closed, answers under way get a second. Does not wait.
    pub fn stop(&self) {
        self.closing.send_replace(true);
        // The order is given by the call; what it returns only waits for the end.
        drop(self.server.stop(true));
    }

    /// Ends the server and waits until it is gone. Blocks, so it is not for actors.
    pub fn join(mut self) -> io::Result<()> {
        self.stop();
        self.thread.take().map_or(Ok(()), end_of)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves the API on `listener`, on a thread of its own, until the handle is stopped.
pub fn serve(listener: TcpListener, desk: Desk, settings: WebSettings) -> io::Result<WebServer> {
    let address = listener.local_addr()?;
    let (closing, closed) = watch::channel(false);
    let (started, start) = mpsc::sync_channel(1);
    let thread = Builder::new().name("web".into()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            let server = server(listener, desk, settings, closed)?;
            // An error means that nobody waits for the server any more.
            started.send(server.handle()).map_err(io::Error::other)?;
            server.await
        })
    })?;
    match start.recv() {
        Ok(server) => Ok(WebServer { address, server, closing, thread: Some(thread) }),
        Err(_) => Err(end_of(thread).err().unwrap_or_else(|| io::Error::other("it ended at once"))),
    }
}

fn server(listener: TcpListener, desk: Desk, settings: WebSettings, closed: events::Closing) -> io::Result<Server> {
    let guard = Data::new(guard::Guard::new(&settings));
    let reader = Data::new(Reader { hostname: settings.own_hostname, ports: settings.ports });
    let (desk, feed, closed) = (Data::new(desk), Data::new(feed::Feed::default()), Data::new(closed));
    let app = move || {
        App::new()
            .app_data(guard.clone())
            .app_data(reader.clone())
            .app_data(desk.clone())
            .app_data(feed.clone())
            .app_data(closed.clone())
            .configure(routes::configure)
            .wrap(from_fn(guard::stand))
            .wrap(DefaultHeaders::new().add(("x-content-type-options", "nosniff")).add(("cache-control", "no-store")))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(MOST_CONNECTIONS)
        .client_request_timeout(HEAD_WITHIN)
        .h1_allow_half_closed(false)
        .shutdown_timeout(LAST_ANSWERS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that serves HTTP panicked")))
}

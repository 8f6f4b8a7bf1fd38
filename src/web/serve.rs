//! The server under every API: it accepts clients and answers them with an actix-web application, on a thread of its own.
//!
//! It is what `actix_web::HttpServer` is, for one listener and one thread, and rests when nobody is there: the service
//! of actix-http renews its `date` header twice a second for as long as it exists, so here it exists only while somebody
//! is connected. What the application answers is the caller's; [`super::tls`] has what comes before on an encrypted
//! port.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, RequestHead, Response};
use actix_service::boxed::{self, BoxServiceFactory};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Extensions, Service, ServiceFactory};
use actix_web::http::Uri;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::tls::{Handshakes, Tls};
use super::visitor::{Client, Visitor};
use crate::accept::{accept_forever, let_many_wait};
use crate::seldom::Seldom;

/// A body from that length on is long, in bytes.
const LONG: usize = 16 << 10;

/// Tells whoever answers for long, such as streams, that the server is about to end.
pub type Closing = watch::Receiver<bool>;

/// How much a server gives to its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many clients may be connected at once; the others wait in the backlog.
    pub connections: usize,
    /// How long a client may take to send the head of its first request.
    pub head_within: Duration,
    /// How long answers under way may take once the server ends.
    pub last_answers: Duration,
    /// After how much silence the kernel begins to ask whether a client's machine is still there; `None` never asks.
    pub probe_after: Option<Duration>,
    /// How many TLS handshakes may be under way at once. One more, and the one that has taken longest is given up.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head_within: Duration::from_secs(5),
            last_answers: Duration::from_secs(1),
            probe_after: Some(Duration::from_secs(60)),
            handshakes: 64,
            handshake_within: Duration::from_secs(5),
        }
    }
}

/// An API while it is served. Dropping it ends the server without waiting for it.
pub struct WebServer {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl WebServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: no new clients, streams are closed, answers under way get a moment. Does not wait.
    pub fn stop(&self) {
        self.closing.send_replace(true);
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

/// An application of actix-web, of whatever type.
pub struct Application(BoxServiceFactory<AppConfig, Request, Response<BoxBody>, Response<BoxBody>, ()>);

impl Application {
    pub fn new<I, S, B>(app: I) -> Self
    where
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<actix_web::Error>,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>>,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let app = apply_fn_factory(app, |mut request: Request, app: &S::Service| {
            take_apart(request.head_mut());
            app.call(request)
        });
        let app = app
            .map(|response: S::Response| response.into().map_into_boxed_body())
            .map_err(|error: S::Error| error.into().error_response().into())
            .map_init_err(|error| warn!("an API cannot be served: {error:?}"));
        Self(boxed::factory(app))
    }
}

/// Has a head keep nothing of a long body. Heads go into a pool, with an address and headers that are parts of what was read
/// together with them, and with which all of that would stay.
fn take_apart(head: &mut RequestHead) {
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let is_long = length.map_or_else(|| head.headers.contains_key(TRANSFER_ENCODING), |length| length >= LONG);
    if !is_long {
        return;
    }
    if let Ok(own) = Uri::try_from(head.uri.to_string()) {
        head.uri = own;
    }
    let mut own = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in &head.headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            own.append(name.clone(), value);
        }
    }
    head.headers = own;
}

/// Serves on `listener`, on a thread of this name, until the handle is stopped.
///
/// `app` makes the application: anew whenever a client comes and no other is connected, so what has to last is made
/// outside of it, and handed in as [`actix_web::web::Data`]. A stream of the application ends when [`Closing`] says so.
/// Who is at the other end of a connection, it finds as a [`Visitor`] in the data of the connection.
pub fn serve(
    name: &str,
    listener: TcpListener,
    limits: Limits,
    tls: Option<Tls>,
    app: impl Fn(&Closing) -> Application + Send + 'static,
) -> io::Result<WebServer> {
    let address = listener.local_addr()?;
    let_many_wait(&listener)?;
    listener.set_nonblocking(true)?;
    let (closing, closed) = watch::channel(false);
    let (started, start) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name.into()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            // An error means that nobody waits for the server any more.
            started.send(()).map_err(io::Error::other)?;
            let head_within = limits.head_within;
            let signal = closed.clone();
            let make = move || http(app(&signal), address, head_within, signal.clone());
            attend(listener, limits, tls, make, closed).await;
            Ok(())
        })
    })?;
    match start.recv() {
        Ok(()) => Ok(WebServer { address, closing, thread: Some(thread) }),
        Err(_) => Err(end_of(thread).err().unwrap_or_else(|| io::Error::other("it ended at once"))),
    }
}

fn end_of(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that serves HTTP panicked")))
}

/// What turns a client's bytes into requests of an application.
type Http = BoxServiceFactory<(), (Client, Option<SocketAddr>), (), DispatchError, ()>;

/// The application as a service of actix-http.
fn http(Application(app): Application, address: SocketAddr, head_within: Duration, closing: Closing) -> Http {
    let http = HttpService::build()
        .client_request_timeout(head_within)
        .client_disconnect_timeout(Duration::from_secs(1))
        .h1_allow_half_closed(false)
        .local_addr(address)
        .on_connect_ext(|client: &Client, data: &mut Extensions| {
            data.insert(client.visitor.clone());
        })
        // Who only keeps a connection at hand need not be waited for. Hidden from the documentation, but what
        // actix-web itself uses.
        .graceful_shutdown_signal(move || closed(closing.clone()));
    boxed::factory(http.h1(map_config(app, |()| AppConfig::default())))
}

/// Waits until the server is to end. A handle that is gone ends it as well.
async fn closed(mut closing: Closing) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Accepts clients until the server is to end, and waits a moment for those that are being answered.
async fn attend(
    listener: tokio::net::TcpListener,
    limits: Limits,
    tls: Option<Tls>,
    make: impl Fn() -> Http + 'static,
    closing: Closing,
) {
    // More would be more than a semaphore can count.
    let most = limits.connections.clamp(1, 1 << 20) as u32;
    let places = Arc::new(Semaphore::new(most as usize));
    let handshakes = tls.map(|tls| Rc::new(Handshakes::new(tls, &limits)));
    let service = Rc::new(WhileNeeded::new(make));
    let full = Seldom::default();
    let accept = async || {
        let place = place(&places, &full).await?;
        let (stream, peer) = listener.accept().await?;
        Ok((place, stream, peer))
    };
    let accepting = accept_forever("clients", accept, |(place, stream, peer)| {
        tune(&stream, limits.probe_after);
        let (handshakes, service) = (handshakes.clone(), Rc::clone(&service));
        actix_rt::spawn(async move {
            let _place = place;
            let visitor = Visitor::of(&stream, peer);
            match handshakes {
                None => service.call(Client { stream: Box::new(stream), visitor }).await,
                Some(handshakes) => {
                    let Some((client, ended)) = handshakes.shake(stream, visitor).await else { return };
                    tokio::select! {
                        () = service.call(client) => {}
                        // Whatever is under way for it.
                        reason = ended => info!("the connection of {peer} is cut off: {reason}"),
                    }
                }
            }
        });
    });
    tokio::select! {
        () = closed(closing) => {}
        () = accepting => {}
    }
    drop(listener);
    // Who is not done by then is cut off: the tasks end with this thread.
    let _ = timeout(limits.last_answers, places.acquire_many(most)).await;
}

/// Waits until one more client may come.
async fn place(places: &Arc<Semaphore>, full: &Seldom) -> io::Result<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    if full.say(Instant::now()).is_some() {
        warn!("as many clients are connected as may be: others wait until one leaves");
    }
    Arc::clone(places).acquire_owned().await.map_err(io::Error::other)
}

/// Answers are sent at once, and a machine that vanished is found out. It fails only for a connection that is gone,
/// which its service finds out by itself.
fn tune(stream: &TcpStream, probe_after: Option<Duration>) {
    let _ = stream.set_nodelay(true);
    if let Some(idle) = probe_after {
        let _ = rustix::net::sockopt::set_tcp_keepidle(stream, idle);
        let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    }
}

/// An application that is served.
type Served = <Http as ServiceFactory<(Client, Option<SocketAddr>)>>::Service;

/// A service that exists from the first client to the last.
struct WhileNeeded<M> {
    make: M,
    made: RefCell<Weak<Served>>,
}

impl<M: Fn() -> Http> WhileNeeded<M> {
    fn new(make: M) -> Self {
        Self { make, made: RefCell::default() }
    }

    /// Serves one client to its end. How it ends is the client's affair.
    async fn call(&self, client: Client) {
        // What could not be made was logged by actix-http.
        let Some(service) = self.get().await else { return };
        if std::future::poll_fn(|task| service.poll_ready(task)).await.is_ok() {
            let peer = Some(client.visitor.peer);
            let _ = service.call((client, peer)).await;
        }
    }

    async fn get(&self) -> Option<Rc<Served>> {
        let made = self.made.borrow().upgrade();
        if made.is_some() {
            return made;
        }
        let made = Rc::new((self.make)().new_service(()).await.ok()?);
        self.made.replace(Rc::downgrade(&made));
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{ACCEPT, HOST};
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_head_that_came_with_a_long_body_keeps_nothing_of_it() {
        for (name, value, is_kept) in [
            (CONTENT_LENGTH, "100", true),
            (CONTENT_LENGTH, "1000000", false),
            (TRANSFER_ENCODING, "chunked", false),
            (ACCEPT, "*/*", true),
        ] {
            let read = Bytes::from(format!("/path?query control.example {}", "x".repeat(100)));
            let mut head = RequestHead::default();
            head.uri = Uri::from_maybe_shared(read.slice(..11)).unwrap();
            head.headers.append(HOST, HeaderValue::from_maybe_shared(read.slice(12..27)).unwrap());
            head.headers.append(name, HeaderValue::from_static(value));
            take_apart(&mut head);
            assert_eq!((head.uri.path(), head.uri.query()), ("/path", Some("query")));
            assert_eq!(head.headers.get(HOST).unwrap(), "control.example");
            assert_eq!(read.is_unique(), !is_kept, "{value}");
        }
    }
}

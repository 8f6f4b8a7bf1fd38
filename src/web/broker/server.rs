//! Where the endpoint listens, and who may come in.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Data};
use rustix::net::sockopt;
use tokio::sync::Semaphore;

use super::host::Host;
use super::hub::{Hub, MOST_CLIENTS};
use super::incoming::MOST_LARGE;
use super::session::{self, Unwelcome};
use crate::seldom::SeldomEach;
use crate::web::guard::{Names, Refusal, only, shorten};
use crate::web::serve::{self, Application, Limits, WebServer};
use crate::web::tls::Tls;

/// The only path there is.
pub const PATH: &str = "/v1/messages/json";

/// How many connections there may be: the clients, those who are not in yet, and those who are not gone yet.
const MOST_CONNECTIONS: usize = MOST_CLIENTS + 100;
/// How often the system asks a silent peer whether it is still there, once it has begun to, and how many times.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
/// How long the system tries to get something to a peer that takes nothing.
const UNREAD_WITHIN: Duration = Duration::from_secs(120);

/// What every connection needs.
pub struct Door {
    pub(super) hub: Hub,
    pub(super) host: Arc<dyn Host>,
    pub(super) names: OwnNames,
    /// One permit for each long message that may be under way or waiting for its answer.
    pub(super) large: Arc<Semaphore>,
    pub(super) patience: Patience,
    /// Those who were not let in.
    pub(super) refused: SeldomEach<Unwelcome>,
}

/// How long the endpoint waits for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a client may be silent before it is sent a ping, unless it waits for an answer. By default 45 s: much
    /// longer than the 20 s after which the unmodified zeek-client gives up, since every frame makes it wait anew.
    pub ping_after: Duration,
    /// How long a long message may take to arrive; by default 60 s.
    pub long_within: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ping_after: Duration::from_secs(45), long_within: Duration::from_secs(60) }
    }
}

impl Door {
    /// `own_hostname` and `hosts` are what clients may call this machine besides its addresses and `localhost`.
    pub fn new(hub: Hub, host: Arc<dyn Host>, own_hostname: &str, hosts: &[String]) -> Self {
        let names = OwnNames(Names::new(own_hostname, hosts));
        let large = Arc::new(Semaphore::new(MOST_LARGE));
        Self { hub, host, names, large, patience: Patience::default(), refused: SeldomEach::new() }
    }

    /// The same with other patience.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
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

/// Serves the endpoint on `listener`, on a thread of its own, until the handle is stopped. Its clients are then told.
pub fn serve(listener: TcpListener, door: Door, tls: Option<Tls>) -> io::Result<WebServer> {
    find_dead_peers(&listener)?;
    let door = Data::new(door);
    let limits = Limits { connections: MOST_CONNECTIONS, ..Limits::default() };
    serve::serve("broker", listener, limits, tls, move |closing| {
        let (closing, attendance) = (Data::new(closing.clone()), Data::new(door.host.attend()));
        let app = App::new().app_data(door.clone()).app_data(closing).app_data(attendance);
        Application::new(app.default_service(web::to(session::open)))
    })
}

/// Lets the system find peers that vanished without a word: a ping of ours would make zeek-client wait for longer.
/// What is set here every accepted socket has, too.
fn find_dead_peers(listener: &TcpListener) -> io::Result<()> {
    sockopt::set_tcp_keepintvl(listener, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(listener, PROBES)?;
    // In milliseconds. It also ends connections that were given up here and whose peer still reads nothing.
    sockopt::set_tcp_user_timeout(listener, u32::try_from(UNREAD_WITHIN.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

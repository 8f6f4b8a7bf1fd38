//! The edge for people and programs: HTTP ⇄ [`crate::message::client`].
//!
//! [`serve()`] answers on a thread of its own, so that no client, however busy, takes time from the controller;
//! [`serve::serve`] is the server under it, which any other API can stand on as well, encrypted or not ([`tls`]).
//! [`guard`] stands in front of every route, [`routes`] turns requests into messages, [`events`] streams the log,
//! [`json`] is what people see, and [`problem`] what they see when it went wrong.

pub mod blobs;
pub mod broker;
mod changed;
pub mod configuration;
mod deployments;
pub mod desk;
pub mod events;
pub mod facts;
pub mod feed;
pub mod guard;
pub mod history;
pub mod json;
pub mod management;
pub mod metrics;
mod output;
pub mod pass;
pub mod plan;
pub mod problem;
pub mod reach;
pub mod routes;
pub mod serve;
mod shown;
pub mod tls;
pub mod visitor;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use actix_web::App;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::Data;

pub use desk::Desk;
pub use facts::Facts;
pub use serve::WebServer;

use crate::plan::PortRules;
use crate::trust::tokens::Tokens;
use serve::{Application, Closing, Limits};
use tls::Tls;

/// Who may use the API. Not `Debug`: it holds the token.
#[derive(Clone)]
pub struct WebSettings {
    /// Whether requests from this machine need no token.
    pub open: bool,
    /// Whether the settings admit what has no protection: then `open` holds for everybody.
    pub insecure: bool,
    /// Names besides addresses, `localhost` and `own_hostname` that clients may call this machine by.
    pub hosts: Vec<String>,
    /// What clients on this machine must know, unless `open`. If it is empty, it lets nobody in.
    pub token: String,
    /// What lets in clients from anywhere.
    pub tokens: Arc<Tokens>,
    /// This machine's name; also the name of the default instance in cluster files that declare none.
    pub own_hostname: String,
    /// The controller's own, so that what it would refuse is refused with file, line and key.
    pub ports: PortRules,
    /// How this process is reached.
    pub facts: Facts,
    /// Encrypts it.
    pub tls: Option<Tls>,
}

/// How cluster files are read here.
pub(crate) struct Reader {
    /// Names the default instance of a file that declares none.
    hostname: String,
    ports: PortRules,
}

/// Serves the API on `listener`, on a thread of its own, until the handle is stopped.
pub fn serve(listener: TcpListener, desk: Desk, settings: WebSettings) -> io::Result<WebServer> {
    let guard = Data::new(guard::Guard::new(&settings));
    let reader = Data::new(Reader { hostname: settings.own_hostname, ports: settings.ports });
    let (desk, feed, facts) = (Data::new(desk), Data::new(feed::Feed::default()), Data::new(settings.facts));
    serve::serve("web", listener, Limits::default(), settings.tls, move |closing: &Closing| {
        let app = App::new()
            .app_data(guard.clone())
            .app_data(reader.clone())
            .app_data(desk.clone())
            .app_data(feed.clone())
            .app_data(facts.clone())
            .app_data(Data::new(closing.clone()))
            .configure(routes::configure)
            .wrap(from_fn(guard::stand))
            .wrap(DefaultHeaders::new().add(("x-content-type-options", "nosniff")).add(("cache-control", "no-store")));
        Application::new(app)
    })
}

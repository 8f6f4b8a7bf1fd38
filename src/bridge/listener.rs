//! Accepts peers, one [`Bridge`] each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use actix::{Actor, Recipient};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::actor::{Bridge, Connection};
use super::{EndLink, LinkId, LinkSettings, Owner};
use crate::accept::{accept_forever, let_many_wait};
use crate::message::frame::Wire;

/// Accepts peers until it is stopped or dropped. Links that stand outlive it; those not greeted yet do not.
#[must_use = "a listener stops when it is dropped"]
pub struct Listener {
    _stop: oneshot::Sender<()>,
}

impl Listener {
    /// Closes the socket, and every connection that has not been greeted.
    pub fn stop(self) {}
}

/// Makes a link of every connection to this socket. Runs on the arbiter of the caller.
pub fn listen<In: Wire, Out: Wire>(
    socket: std::net::TcpListener,
    settings: LinkSettings,
    owner: Owner<In, Out>,
) -> io::Result<Listener> {
    let_many_wait(&socket)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let lobby = Lobby::new(settings.ungreeted);
    let settings = Rc::new(settings);
    actix_rt::spawn(async move {
        let accepting = accept_forever(
            "peers",
            async || socket.accept().await,
            |(stream, peer)| lobby.admit(stream, peer, Rc::clone(&settings), owner.clone()),
        );
        // Told or dropped, both mean stop.
        futures_util::future::select(std::pin::pin!(accepting), stopped).await;
        lobby.clear();
    });
    Ok(Listener { _stop: stop })
}

/// Where connections are until they have greeted. Full, it drops the one that has taken longest.
#[derive(Clone)]
struct Lobby {
    waiting: Rc<RefCell<BTreeMap<LinkId, Recipient<EndLink>>>>,
    places: usize,
}

impl Lobby {
    fn new(places: usize) -> Self {
        Self { waiting: Rc::default(), places: places.max(1) }
    }

    fn admit<In: Wire, Out: Wire>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        settings: Rc<LinkSettings>,
        owner: Owner<In, Out>,
    ) {
        // It fails only for a connection that is gone, which the link finds out by itself.
        let _ = stream.set_nodelay(true);
        let connection = Connection::accepted(stream, peer, &settings);
        let mut bridge = Bridge::new(connection, settings, owner);
        let link = bridge.link();
        bridge.hold(Ticket { lobby: self.clone(), link });
        let end = bridge.start().recipient();
        let mut waiting = self.waiting.borrow_mut();
        while waiting.len() >= self.places {
            let Some((link, oldest)) = waiting.pop_first() else { break };
            let reason = "too many connections are without a greeting, and this was the oldest";
            oldest.do_send(EndLink { link, reason: reason.into() });
        }
        waiting.insert(link, end);
    }

    fn clear(&self) {
        for (link, end) in self.waiting.take() {
            end.do_send(EndLink { link, reason: "this end no longer listens".into() });
        }
    }
}

/// A place in the lobby, free again when this is dropped.
pub(super) struct Ticket {
    lobby: Lobby,
    link: LinkId,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Taken out first: what is dropped with it may look at the lobby again.
        let place = self.lobby.waiting.borrow_mut().remove(&self.link);
        drop(place);
    }
}

//! Accepts peers, one [`Bridge`] each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Recipient};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::actor::{Bridge, Connection};
use super::{EndLink, LinkId, LinkSettings, Owner};
use crate::message::frame::Wire;

/// How long to wait when accepting fails for want of descriptors or memory: the backlog keeps what comes meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

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
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let lobby = Lobby::new(settings.ungreeted);
    let settings = Rc::new(settings);
    actix_rt::spawn(async move {
        let accepting = accept_forever(
            async || socket.accept().await,
            |(stream, peer)| lobby.admit(stream, peer, Rc::clone(&settings), owner.clone()),
        );
        // Told or dropped, both mean stop.
        futures_util::future::select(std::pin::pin!(accepting), stopped).await;
        lobby.clear();
    });
    Ok(Listener { _stop: stop })
}

/// Hands over everything that `accept` brings. A failure neither ends it nor makes it spin, and is logged once per run
/// of failures.
async fn accept_forever<T>(mut accept: impl AsyncFnMut() -> io::Result<T>, mut take: impl FnMut(T)) {
    let mut failing = false;
    loop {
        match accept().await {
            Ok(accepted) => {
                if std::mem::take(&mut failing) {
                    info!("peers are accepted again");
                }
                take(accepted);
            }
            // The peer was gone before it was accepted: its affair.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("cannot accept peers, trying on: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_want_of_descriptors_neither_ends_the_accepting_nor_makes_it_spin() {
        const EMFILE: i32 = 24;
        let began = std::time::Instant::now();
        let mut answers = vec![Ok(7), Err(EMFILE), Err(EMFILE)];
        let (done, taken) = oneshot::channel();
        let mut done = Some(done);
        let accept = async || match answers.pop() {
            Some(answer) => answer.map_err(io::Error::from_raw_os_error),
            None => std::future::pending().await,
        };
        let take = |accepted| done.take().unwrap().send(accepted).unwrap();
        let accepting = std::pin::pin!(accept_forever(accept, take));
        let futures_util::future::Either::Right((taken, _)) = futures_util::future::select(accepting, taken).await
        else {
            panic!("accepting ended")
        };
        assert_eq!(taken, Ok(7));
        assert!(began.elapsed() >= 2 * PAUSE);
    }
}

//! Keeps one link to one address: dials, and dials again whenever it is lost.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::future::{Either, select};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::actor::{Bridge, Connection};
use super::backoff::Backoff;
use super::connect::connect_to;
use super::{EndLink, Ended, LinkSettings, Owner};
use crate::message::frame::Wire;
use crate::model::Endpoint;

/// Dials until it is stopped or dropped.
#[must_use = "a dialler stops when it is dropped"]
pub struct Dialer {
    _stop: oneshot::Sender<()>,
}

impl Dialer {
    /// Dials no more, and ends the link that stands in order.
    pub fn stop(self) {}
}

/// Keeps a link to `addr`, whose peer must have the name `expect` if there is one. Runs on the arbiter of the caller.
pub fn dial<In: Wire, Out: Wire>(
    addr: impl Into<Endpoint>,
    expect: Option<String>,
    settings: LinkSettings,
    owner: Owner<In, Out>,
) -> Dialer {
    dial_unless(watch::channel(false).1, addr, expect, settings, owner)
}

/// The same, but it rests while `reached` says that the peer has come by another way: two links of one peer would end
/// each other for ever.
pub fn dial_unless<In: Wire, Out: Wire>(
    reached: watch::Receiver<bool>,
    addr: impl Into<Endpoint>,
    expect: Option<String>,
    settings: LinkSettings,
    owner: Owner<In, Out>,
) -> Dialer {
    let (stop, stopped) = oneshot::channel();
    actix_rt::spawn(keep_dialling(reached, addr.into(), expect, Rc::new(settings), owner, stopped));
    Dialer { _stop: stop }
}

async fn keep_dialling<In: Wire, Out: Wire>(
    mut reached: watch::Receiver<bool>,
    addr: Endpoint,
    expect: Option<String>,
    settings: Rc<LinkSettings>,
    owner: Owner<In, Out>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
    // Why the last attempt failed: the same again is not worth a line.
    let mut failing: Option<String> = None;
    info!(%addr, "dialling");
    loop {
        let unreached = async {
            // Whoever told of it is gone with every other way.
            let _ = reached.wait_for(|reached| !*reached).await;
        };
        if or_stop(unreached, &mut stopped).await.is_none() {
            return;
        }
        let ended = match or_stop(connect(&addr, &settings), &mut stopped).await {
            None => return,
            Some(Err(error)) => Ended { stood: None, reason: error.to_string() },
            Some(Ok((stream, peer))) => {
                match carry(stream, peer, expect.clone(), &settings, owner.clone(), &mut stopped).await {
                    None => return,
                    Some(ended) => ended,
                }
            }
        };
        match ended.stood {
            Some(_) => failing = None, // the link itself has said that it was up, and is down
            None if failing.as_ref() == Some(&ended.reason) => {}
            None => {
                warn!(%addr, "no link, trying on: {}", ended.reason);
                failing = Some(ended.reason);
            }
        }
        // Without chance the longest pause is the safe one.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let pause = tokio::time::sleep(backoff.pause(ended.stood.unwrap_or_default(), random));
        if or_stop(pause, &mut stopped).await.is_none() {
            return;
        }
    }
}

/// Connects to the first address of that host that answers, if links may be made to it.
async fn connect(endpoint: &Endpoint, settings: &LinkSettings) -> io::Result<(TcpStream, SocketAddr)> {
    let within = settings.greeting_within;
    let permitted = |address| settings.permit(address).map(drop).map_err(io::Error::other);
    let connecting = tokio::time::timeout(within, connect_to(endpoint, permitted));
    let (stream, peer) = connecting.await.map_err(|_| {
        let words = format!("nothing answered within {}", humantime::format_duration(within));
        io::Error::new(io::ErrorKind::TimedOut, words)
    })??;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// Runs one link to its end; `None` if that was because of a stop.
async fn carry<In: Wire, Out: Wire>(
    stream: TcpStream,
    addr: SocketAddr,
    expect: Option<String>,
    settings: &Rc<LinkSettings>,
    owner: Owner<In, Out>,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<Ended> {
    let (ended, mut end) = oneshot::channel();
    let connection = Connection { expect, ended: Some(ended), ..Connection::dialled(stream, addr, settings) };
    let bridge = Bridge::new(connection, Rc::clone(settings), owner);
    let link = bridge.link();
    let bridge = actix::Actor::start(bridge);
    let Some(ended) = or_stop(&mut end, stopped).await else {
        bridge.do_send(EndLink { link, reason: "this end no longer dials".into() });
        return None;
    };
    // The guard speaks before it goes, so that the other case does not occur.
    Some(ended.unwrap_or_else(|gone| Ended { stood: None, reason: gone.to_string() }))
}

/// What this comes to; `None` if a stop comes first.
async fn or_stop<T>(future: impl Future<Output = T>, stopped: &mut oneshot::Receiver<()>) -> Option<T> {
    match select(std::pin::pin!(future), stopped).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

//! Accepting connections for as long as a listener lives, whatever goes wrong meanwhile.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tracing::{info, warn};

/// How long to wait when accepting fails for want of descriptors or memory: the backlog keeps what comes meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections may wait to be accepted, as far as the kernel lets that many (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Lets as many connections wait as all agents of a large fleet make at once. Of those that find no room, each is tried again
/// after a second, by its kernel: std's listeners have room for 128.
pub(crate) fn let_many_wait(socket: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

/// Hands over everything that `accept` brings. A failure neither ends it nor makes it spin, and is logged once per run
/// of failures.
pub(crate) async fn accept_forever<T>(
    whom: &str,
    mut accept: impl AsyncFnMut() -> io::Result<T>,
    mut take: impl FnMut(T),
) {
    let mut failing = false;
    loop {
        match accept().await {
            Ok(accepted) => {
                if std::mem::take(&mut failing) {
                    info!("{whom} are accepted again");
                }
                take(accepted);
                // Whoever has to make room for it goes before the next one comes.
                tokio::task::yield_now().await;
            }
            // Gone before it was accepted: its affair.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("cannot accept {whom}, trying on: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

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
        let accepting = std::pin::pin!(accept_forever("peers", accept, take));
        let futures_util::future::Either::Right((taken, _)) = futures_util::future::select(accepting, taken).await
        else {
            panic!("accepting ended")
        };
        assert_eq!(taken, Ok(7));
        assert!(began.elapsed() >= 2 * PAUSE);
    }
}

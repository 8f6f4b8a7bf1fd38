//! Processes that lost their parent and were given to this one: when they end, somebody has to reap them.
//!
//! Only daemons take such processes on. The signal is a hint and nothing else: it says when to look, and every
//! process is reaped by its own number.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::supervisor::process::tree;

/// Takes strays on, and reaps them in the present event loop for as long as it runs.
pub fn take_on() -> io::Result<()> {
    tree::become_subreaper()?;
    let mut ended = signal(SignalKind::child())?;
    actix::spawn(async move {
        while ended.recv().await.is_some() {
            if let Err(error) = tree::reap_strays(|_| false) {
                tracing::warn!("cannot look for ended strays: {error}");
            }
        }
    });
    Ok(())
}

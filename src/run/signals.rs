//! What the person at the keyboard, or the service manager, asks of a daemon.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::process::heed_signals;

/// SIGINT and SIGTERM, from the moment it is made.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on. Ahead of all threads, since they may be held back by whoever started this program.
    pub fn listen() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        heed_signals(&[interrupt.as_raw_value(), terminate.as_raw_value()])?;
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// Resolves when the daemon is asked to end; again when it is asked again.
    pub async fn asked_to_end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

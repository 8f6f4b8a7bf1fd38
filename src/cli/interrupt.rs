//! Ctrl-C while something blocks.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::error::CliError;

/// A runtime for a command: it waits for signals and times, while what blocks has a thread of its own.
pub fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

/// Completes when the user presses Ctrl-C or the command is asked to end.
///
/// From the first call on these signals no longer end the process by themselves.
pub async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // An error means that the signal cannot be caught, and then it ends the process as usual.
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending::<()>().await },
        () = terminated => {}
    }
}

/// Does blocking `work`; `None` if `stop` came first. The work is then abandoned, not undone.
pub fn unless<T: Send + 'static>(
    stop: impl Future<Output = ()>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, CliError> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        tokio::select! {
            // First, so that signals are caught before there is anything to interrupt.
            biased;
            () = stop => None,
            result = async { tokio::task::spawn_blocking(work).await } => Some(result),
        }
    });
    // Waits for nothing: the process is about to end, and the abandoned thread with it.
    runtime.shutdown_background();
    match result.transpose() {
        Ok(result) => Ok(result),
        // Nobody cancels it, so the only way not to return is a panic.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

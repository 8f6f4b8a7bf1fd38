//! Processes that lost their parent and were given to this one: when they end, somebody has to reap them.
//!
//! Only daemons take such processes on; PID 1 is given them in any case. That some child ended is a hint and nothing else:
//! it says when to look, and every process is reaped through its own pidfd.

use std::io;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::supervisor::process::{EndedChildren, tree};

/// How long after a child ended it is looked for strays. Mostly it was a node, and what follows from that comes first; and
/// where many end, one look serves them all.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// When to look again where births came without a pause.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Takes strays on, and reaps them for as long as the present event loop runs. To be called ahead of all threads.
pub fn take_on() -> io::Result<()> {
    let mut ended = EndedChildren::listen()?;
    tree::become_subreaper()?;
    actix::spawn(async move {
        loop {
            if let Err(error) = ended.next().await {
                tracing::warn!("cannot hear of strays that end, so they stay zombies: {error}");
                return;
            }
            sleep(LOOK_AFTER).await;
            while !is_reaped().await {
                sleep(AGAIN_AFTER).await;
            }
        }
    });
    Ok(())
}

/// Reaps those that have ended; `false` if that has to wait.
async fn is_reaped() -> bool {
    // Mostly a node ended, and there are none.
    let reaped = match tree::has_strays() {
        Ok(false) => return true,
        Ok(true) => spawn_blocking(|| tree::reap_strays(|_| false)).await.map_err(io::Error::other),
        Err(error) => Err(error),
    };
    match reaped.and_then(|reaped| reaped) {
        Ok(reaped) => reaped.is_some(),
        Err(error) => {
            tracing::warn!("cannot look for ended strays: {error}");
            true
        }
    }
}

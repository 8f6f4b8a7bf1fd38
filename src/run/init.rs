//! PID 1 of a container: what the kernel asks of the first process of a pid namespace, and what it does to the others when
//! that ends.

use std::time::Duration;

use actix::Addr;
use tokio::time::sleep;

use crate::agent::{Agent, HurryUp};

/// Whether this process is the first of its pid namespace: then the kernel ends every node with it.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// Says in the log what that means, where it is so.
pub fn say_what_it_means() {
    if is_init() {
        tracing::info!(
            "this is PID 1 of a container: nodes end with the agent, which stops them in order when it is asked to end"
        );
    }
}

/// Resolves never; after `grace` it has these agents wait for no node any more, since whoever asked PID 1 to end kills
/// it, and with it everybody, before long.
pub async fn hurry_after(grace: Duration, agents: &[Addr<Agent>]) {
    if is_init() {
        sleep(grace).await;
        tracing::warn!("nodes that did not end within {} are killed", humantime::format_duration(grace));
        agents.iter().for_each(|agent| agent.do_send(HurryUp));
    }
    std::future::pending().await
}

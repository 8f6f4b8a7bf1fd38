//! Failures of other tools that their users reported, each under its number: the same is done here, and comes out right.
//! docs/survival.md has the table.

mod circus;
mod kubernetes;
mod nomad;
mod pm2;
mod process_compose;
mod supervisord;
mod systemd;
mod zeek;

use watchpost::web::json::Event;

/// Where in the log this node got into this state, each time.
fn moments(events: &[Event], node: &str, state: &str) -> Vec<usize> {
    let is_it = |event: &Event| event.node.as_deref() == Some(node) && event.new.as_deref() == Some(state);
    (0..events.len()).filter(|at| is_it(&events[*at])).collect()
}

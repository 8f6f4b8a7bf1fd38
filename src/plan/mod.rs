//! Decisions about configurations: pure functions from what is to what should be.

pub mod diff;
pub mod order;
pub mod ports;
pub mod preview;
pub mod rollout;
pub mod steps;
pub mod validate;
pub mod zeek;

pub use diff::{InstanceChange, NodeChange};
pub use order::Slowest;
pub use ports::{PortRules, PortsExhausted, assign_ports, keep_ports, resolve_hosts};
pub use rollout::{Pace, Portion, Rollout, Turn};
pub use validate::{About, examine, examine_alone, examine_as, validate};

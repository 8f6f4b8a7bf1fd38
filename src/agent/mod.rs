//! The agent: runs the nodes of its instance, and tells the controller.
//!
//! [`state`] decides, with [`order`] for who may move, [`jobs`] for who waits for it and [`repeats`] for who asks again;
//! [`outbox`] keeps news until
//! it has arrived, and [`spool`] keeps it on disk; [`porter`] gets the files of nodes; `returns` finds what an earlier
//! agent left; [`actor`] carries.

pub mod actor;
pub mod jobs;
pub mod order;
pub mod outbox;
pub mod porter;
pub mod repeats;
mod returns;
pub mod spool;
pub mod state;
mod turn;

pub use actor::{Agent, AgentEvent, AgentSetup, HurryUp, RenewCertificate, StopAllNodes, StopAllNodesForNow};

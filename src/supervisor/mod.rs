//! One supervisor per node: it decides when the process lives, and minds that it does.
//!
//! [`state`] decides, with [`history`] for how soon and [`liveness`] for whether a process does its work, [`actor`] carries,
//! [`said`] understands what nodes say, [`channel`] what Zeek says, [`workshop`] knows what runs and hears of exits, [`hands`] are the threads for what
//! blocks, [`process`] knows Unix, [`output`] knows the node's output files, [`crash`] looks into deaths, [`register`] what
//! runs, on disk.

pub mod actor;
mod bell;
pub mod channel;
pub mod crash;
pub mod hands;
pub mod history;
mod idle_groups;
pub mod liveness;
pub mod output;
mod peaks;
pub mod process;
pub mod register;
pub mod said;
pub mod state;
pub mod workshop;

pub use actor::Supervisor;

use std::sync::Arc;
use std::time::Instant;

use actix::Message;

use crate::message::node::NodeReport;
use crate::model::{Life, NetStats, Node, NodeName, Text};
use history::Past;
use process::Remains;
use workshop::WardId;

/// What a supervisor tells its agent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum FromSupervisor {
    Report(NodeReport),
    /// Launch this, once everything that was reported before has been told.
    Launch(LaunchOrder),
    /// Keep on disk that a node waits for its next life, once it is known there that this was told.
    Waits(Wait),
    /// Something a person may have to mend, in words.
    Trouble(NodeName, String),
    /// Something worth a line in a log.
    Remark(NodeName, String),
    /// What the node counts now.
    Counts(NodeName, Box<NetStats>),
    /// What the node says of itself now; empty if that is nothing.
    Says(NodeName, Text),
    /// The supervisor of this ward is gone: dismissed, or by a panic.
    Gone(WardId, NodeName),
}

/// A wait for the next life that a supervisor decided on.
#[derive(Debug)]
pub struct Wait {
    pub ward: WardId,
    pub node: NodeName,
    /// The life that is over.
    pub life: Life,
    /// What the record is to say of its crashes.
    pub past: Past,
    pub until: Instant,
}

/// A launch that a supervisor decided on.
#[derive(Debug)]
pub struct LaunchOrder {
    pub ward: WardId,
    pub node: Arc<Node>,
    pub life: Life,
    /// What the record is to say of earlier crashes.
    pub past: Past,
    /// The process before, if it is not buried yet: that comes first.
    pub remains: Option<Remains>,
}

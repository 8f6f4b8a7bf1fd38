//! Why a daemon or an embedded actor cannot start, or had to end.

use std::io;
use std::net::SocketAddr;

use crate::controller::blobs::BlobError;
use crate::controller::log::LogError;
use crate::controller::store::StoreError;
use crate::message::client::Unanswered;
use crate::model::NameError;
use crate::settings::{NotLoopback, SettingsError};
use crate::state_dir::StateDirError;
use crate::trust::TrustError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    NotLoopback(#[from] NotLoopback),
    #[error("cannot listen {what} on {address}: {source}; choose another address, or port 0 for any free one")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("the configuration was refused:\n  {}", .0.join("\n  "))]
    Refused(Vec<String>),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("the {0} failed; what it said is in the log, and the nodes that run go on without it")]
    Failed(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

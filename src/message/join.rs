//! A new host ⇄ controller, before it has a certificate: one question and its answer, over a connection of its own.
//!
//! It is never a link: the connection says in its first message that it is for this alone, and is closed behind the
//! answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::frame::wire_enum;
use crate::trust::SECRET;

wire_enum! {
    /// What a new host says.
    pub enum FromJoiner {
        0x0301 => JoinRequest,
    }
}

wire_enum! {
    /// What it is answered.
    pub enum ToJoiner {
        0x0311 => JoinAccepted,
        0x0312 => JoinRefused,
        0x0313 => JoinWaiting,
    }
}

/// New host → controller: I was invited, and this is the key that my certificate is to be for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    pub cluster: String,
    /// The instance whose agent it wants to be.
    pub name: String,
    /// The secret of the token.
    pub secret: [u8; SECRET],
    /// A request for a certificate (PKCS #10, DER).
    pub request: Vec<u8>,
}

impl fmt::Debug for JoinRequest {
    /// Without the secret, which is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, name, .. } = self;
        f.debug_struct("JoinRequest").field("cluster", cluster).field("name", name).finish_non_exhaustive()
    }
}

/// Controller → new host: the certificate (DER). That of the authority was shown when hands were shaken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAccepted {
    pub certificate: Vec<u8>,
}

/// Controller → new host: no, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    pub reason: String,
}

/// Controller → new host: you may, once somebody has signed your request. [`JoinAccepted`] follows if that is soon;
/// else ask again, with the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinWaiting {
    /// What somebody has to do.
    pub reason: String,
}

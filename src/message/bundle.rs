//! Controller ⇄ agent: the files of nodes. An agent is told which bundles it is to have, and asks for what it lacks of them,
//! piece by piece: so it goes at its own pace, and on where it was when a link was lost.

use std::collections::BTreeSet;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::bundle::{BundleId, Digest};
use crate::model::{Outcome, RequestId};

/// Controller → agent: have these bundles at hand. Nothing that runs is touched.
///
/// Answered by [`StageBundlesResponse`] once all of them are there, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageBundlesRequest {
    pub reqid: RequestId,
    pub bundles: BTreeSet<BundleId>,
}

/// Agent → controller: one outcome for the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageBundlesResponse {
    pub reqid: RequestId,
    pub outcome: Outcome,
}

/// Agent → controller: a piece of that content, from this byte on. Manifests are asked for in the same way.
///
/// Answered by [`ReadBlobResponse`]. So many may be under way on a link, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlobRequest {
    pub reqid: RequestId,
    pub digest: Digest,
    pub at: u64,
    /// How many bytes at most.
    pub most: u32,
}

/// Controller → agent: the piece, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlobResponse {
    pub reqid: RequestId,
    pub piece: Result<BlobPiece, String>,
}

/// A piece of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPiece {
    /// How long the whole is, in bytes.
    pub total: u64,
    /// As many as were asked for, unless it ends before.
    #[serde(serialize_with = "as_bytes", deserialize_with = "from_bytes")]
    pub bytes: Vec<u8>,
}

/// In one piece, and not byte by byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn from_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_bytes(Bytes)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

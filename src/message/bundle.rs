//! Controller ⇄ agent: the files of nodes. An agent is told which bundles it is to have, and asks for what it lacks of them,
//! part by part: so it goes at its own pace, and on where it was when a link was lost.

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

/// Agent → controller: these parts of contents. Manifests are asked for in the same way, and many short files at once.
///
/// Answered by [`ReadBlobsResponse`]. So many may be under way on a link, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlobsRequest {
    pub reqid: RequestId,
    pub parts: Vec<BlobPart>,
}

/// Which part of which content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPart {
    pub digest: Digest,
    /// From this byte on.
    pub at: u64,
    /// How many bytes at most.
    pub most: u32,
}

/// Controller → agent: the parts in the order in which they were asked for, each or why there is none. Those at the end that
/// are more than one answer may hold are left out: whoever needs them asks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlobsResponse {
    pub reqid: RequestId,
    pub pieces: Vec<Result<BlobPiece, String>>,
}

/// Agent → controller, now and then: the files of nodes are being laid out. Nothing is asked for meanwhile, and nothing stands
/// still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyLayingOut {}

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

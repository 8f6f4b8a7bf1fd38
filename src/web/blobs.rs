//! Files on their way to the controller: what of them it lacks, and their bytes.

use std::time::Duration;

use actix_web::web::{Bytes, Data, Json, Path, Payload, Query};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::desk::Desk;
use super::problem::Problem;
use super::routes::Answer;
use crate::bundle::Digest;
use crate::controller::blobs::{Blobs, Incoming, Missing, Wanted};
use crate::controller::files::GetBlobs;

/// So much is written at once, in bytes.
const PIECE: usize = 256 << 10;
/// How long the next bytes may take.
const STALL: Duration = Duration::from_secs(60);

/// `POST /api/v1/blobs/missing`: what somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Have {
    pub blobs: Vec<Blob>,
}

/// A piece of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Its SHA-256, in 64 hexadecimal digits.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// The answer: what of it is to be sent, each once, in the order of the question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lack {
    pub missing: Vec<Rest>,
}

/// The rest of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    pub digest: String,
    pub size: u64,
    /// From this byte on.
    pub offset: u64,
}

/// `PUT /api/v1/blobs/{digest}`: how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Came {
    /// All of it is here, and is what it is called.
    pub whole: bool,
    /// How many bytes are here.
    pub bytes: u64,
}

/// Which part of a blob follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The length of the whole, in bytes.
    size: u64,
    /// Where in it the body belongs; by default at its beginning.
    offset: Option<u64>,
}

pub(super) async fn missing(desk: Data<Desk>, body: Json<Have>) -> Answer<Lack> {
    let wanted = |Blob { digest, size }: Blob| Ok(Wanted { digest: named(&digest)?, size });
    let wanted = body.into_inner().blobs.into_iter().map(wanted).collect::<Result<Vec<_>, Problem>>()?;
    let missing = open(&desk).await?.apart(move |blobs| blobs.missing(&wanted)).await?;
    let rest = |Missing { digest, size, offset }| Rest { digest: digest.to_string(), size, offset };
    Ok(Json(Lack { missing: missing.into_iter().map(rest).collect() }))
}

/// Takes bytes as they come. Where they end early, what came stays, and whoever comes back goes on behind it.
pub(super) async fn put(desk: Data<Desk>, digest: Path<String>, part: Query<Part>, mut body: Payload) -> Answer<Came> {
    let (digest, Part { size, offset }) = (named(&digest)?, part.into_inner());
    let blobs = open(&desk).await?;
    let mut incoming: Option<Incoming> = None;
    loop {
        let (bytes, end) = next(&mut body).await;
        let is_whole = matches!(end, Some(Ok(())));
        // What is short is taken in one go.
        let taken = move |blobs: &Blobs| {
            let incoming = incoming.map_or_else(|| blobs.receive(digest, size, offset.unwrap_or_default()), Ok)?;
            let incoming = incoming.with(&bytes)?;
            let bytes = incoming.at();
            match is_whole {
                true => Ok((None, Came { whole: incoming.finish()?, bytes })),
                false => Ok((Some(incoming), Came { whole: false, bytes })),
            }
        };
        let (rest, came) = blobs.apart(taken).await?;
        match end {
            Some(Ok(())) => return Ok(Json(came)),
            Some(Err(why)) => return Err(Problem::Malformed(why)),
            None => incoming = rest,
        }
    }
}

/// Bytes of a body, and whether it is at its end, or was cut off, and why.
async fn next(body: &mut Payload) -> (Bytes, Option<Result<(), String>>) {
    let mut waiting = BytesMut::new();
    while waiting.len() < PIECE {
        let end = match timeout(STALL, body.next()).await {
            Ok(Some(Ok(bytes))) => {
                waiting.extend_from_slice(&bytes);
                continue;
            }
            Ok(None) => Ok(()),
            Ok(Some(Err(error))) => Err(format!("the body was cut off: {error}")),
            Err(_) => Err(format!("nothing came for {} seconds", STALL.as_secs())),
        };
        return (waiting.freeze(), Some(end));
    }
    (waiting.freeze(), None)
}

fn named(digest: &str) -> Result<Digest, Problem> {
    digest
        .parse()
        .map_err(|error| Problem::Malformed(format!("`{}` is no digest: {error}", super::guard::shorten(digest))))
}

/// Where files are kept.
pub(super) async fn open(desk: &Desk) -> Result<Blobs, Problem> {
    desk.ask(GetBlobs).await?.ok_or_else(|| Problem::Absent("this controller keeps no files".into()))
}

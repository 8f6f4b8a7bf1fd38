//! How a new host joins: it asks the controller that a token names for its first certificate, and puts it in its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::task::spawn_blocking;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bridge::connect_to;
use crate::bridge::greeting::printable;
use crate::message::frame::{FrameError, MAX_FIRST, Wire, split};
use crate::message::join::{FromJoiner, JoinAccepted, JoinRefused, JoinRequest, JoinWaiting, ToJoiner};
use crate::model::{Endpoint, Timestamp};
use crate::trust::{Certificate, Home, Token, TrustError, Whereabouts, complaint, joining};

/// How long it may take to make a connection, hands included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take once it is said that somebody has to sign; the controller itself gives up before.
const SIGNED_WITHIN: Duration = Duration::from_secs(11 * 60);

/// Why a host did not join. Nothing here tells the secret.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot join by way of {address}: {why}")]
    NoAnswer { address: Endpoint, why: String },
    #[error("the controller refuses: {}", printable(.0))]
    Refused(String),
    #[error("the request waits to be signed: {}\n  then run the same command again, here and with the same token", printable(.0))]
    NotSigned(String),
    #[error("joining broke off: {0}")]
    Panicked(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub certificate: Certificate,
    /// Whether it was there before, and nobody had to be asked.
    pub already: bool,
}

/// Joins by this token, unless that is done. `waits` hears why it takes long, if it does.
pub async fn join_cluster(token: &Token, home: &Home, mut waits: impl FnMut(&str)) -> Result<Joined, JoinError> {
    let identity = token.identity();
    let (asked, at) = (identity.clone(), home.clone());
    let there = on_the_disk(move || {
        let there = at.certificate(&asked, Timestamp::now());
        at.check_that_it_is_free_for(&asked).map(|()| there)
    });
    if let Some(certificate) = there.await? {
        return Ok(Joined { certificate, already: true });
    }
    let (asked, at) = (identity.clone(), home.clone());
    let request = on_the_disk(move || at.request(&asked)).await?;
    let (mut stream, address) = connect(token).await?;
    let failed = |why: String| JoinError::NoAnswer { address: address.clone(), why };
    let ca = authority_behind(&stream).ok_or_else(|| failed("it did not show its authority".into()))?;
    let question = JoinRequest {
        cluster: token.cluster.to_string(),
        name: token.name.to_string(),
        secret: token.secret.0,
        request: request.der().to_owned(),
    };
    let certificate = ask(&mut stream, question, &mut waits).await.map_err(|error| match error {
        Unanswered::Broken(why) => failed(why),
        Unanswered::Refused(reason) => JoinError::Refused(reason),
        Unanswered::NotSigned(reason) => JoinError::NotSigned(reason),
    })?;
    let (whereabouts, at) = (Whereabouts { identity, controller: address.clone() }, home.clone());
    let settled = on_the_disk(move || at.settle(&ca, &CertificateDer::from(certificate), &whereabouts));
    Ok(Joined { certificate: settled.await?, already: false })
}

/// Nobody else waits for the disk.
async fn on_the_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrustError> + Send + 'static,
) -> Result<T, JoinError> {
    let done = spawn_blocking(work).await.map_err(|error| JoinError::Panicked(error.to_string()))?;
    Ok(done?)
}

/// Connects to the first address of the token at which its authority is known.
async fn connect(token: &Token) -> Result<(TlsStream<TcpStream>, Endpoint), JoinError> {
    let config = Arc::new(joining(&token.cluster, token.authority)?);
    let mut failed = Err(JoinError::Panicked("the token names no address".into()));
    for address in &token.addresses {
        let why = match timeout(CONNECT_WITHIN, shake(address, Arc::clone(&config))).await {
            Ok(Ok(stream)) => return Ok((stream, address.clone())),
            Ok(Err(error)) => complaint(&error).unwrap_or_else(|| error.to_string()),
            Err(_) => format!("nothing answered within {}", humantime::format_duration(CONNECT_WITHIN)),
        };
        failed = Err(JoinError::NoAnswer { address: address.clone(), why });
    }
    failed
}

/// Nothing has been sent that anybody else may not see when this is done.
async fn shake(address: &Endpoint, config: Arc<rustls::ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let (stream, _) = connect_to(address, |_| Ok(())).await?;
    stream.set_nodelay(true)?;
    // Never sent, and not looked at: the certificate is judged by the token.
    let nobody = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    TlsConnector::from(config).connect(nobody, stream).await
}

/// The authority's certificate: the verifier has found it among those that were shown, behind the controller's own.
fn authority_behind(stream: &TlsStream<TcpStream>) -> Option<CertificateDer<'static>> {
    let shown = stream.get_ref().1.peer_certificates()?;
    shown.get(1).map(|ca| ca.clone().into_owned())
}

enum Unanswered {
    Broken(String),
    Refused(String),
    NotSigned(String),
}

async fn ask(
    stream: &mut TlsStream<TcpStream>,
    question: JoinRequest,
    waits: &mut impl FnMut(&str),
) -> Result<Vec<u8>, Unanswered> {
    let broken = |error: &dyn std::fmt::Display| Unanswered::Broken(error.to_string());
    let mut bytes = Vec::new();
    FromJoiner::from(question).append_to(&mut bytes).map_err(|error| broken(&error))?;
    let sent = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| broken(&error))?;
    let (mut buffer, mut waiting) = (Vec::new(), None);
    loop {
        let patience = if waiting.is_some() { SIGNED_WITHIN } else { ANSWER_WITHIN };
        let answer = match timeout(patience, answer(stream, &mut buffer)).await {
            Ok(Ok(answer)) => answer,
            ended => {
                let why = match ended {
                    Ok(Err(error)) => broken(&error),
                    _ => broken(&"it did not answer in time"),
                };
                return Err(waiting.map_or(why, Unanswered::NotSigned));
            }
        };
        match answer {
            ToJoiner::JoinAccepted(JoinAccepted { certificate }) => return Ok(certificate),
            ToJoiner::JoinRefused(JoinRefused { reason }) => return Err(Unanswered::Refused(reason)),
            ToJoiner::JoinWaiting(JoinWaiting { reason }) => {
                waits(&printable(&reason));
                waiting = Some(reason);
            }
        }
    }
}

/// The next frame; what came behind it stays in the buffer.
async fn answer(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> io::Result<ToJoiner> {
    let damaged = |error: FrameError| io::Error::other(error.to_string());
    loop {
        if let Some(frame) = split(buffer, MAX_FIRST).map_err(damaged)? {
            let (answer, size) = (ToJoiner::decode(frame.kind, frame.body).map_err(damaged)?, frame.size);
            buffer.drain(..size);
            return Ok(answer);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed without an answer"));
        }
    }
}

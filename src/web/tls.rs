//! Encryption in front of an API: certificates from PEM files, and handshakes that are bounded in time and number.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::serve::Limits;
use super::shown::Shown;
use super::visitor::{Client, Visitor};
use crate::model::Timestamp;
use crate::seldom::SeldomEach;
use crate::trust::{Certificate, Held, Trust, TrustError, complaint};

/// The files, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those that lead to its issuer.
    pub certificate: PathBuf,
    /// The private key of the first.
    pub key: PathBuf,
    /// Who issues clients' certificates. If given, clients without one are refused.
    pub client_ca: Option<PathBuf>,
}

/// Why an API cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate {} is given without its key: name the key's file too", .0.display())]
    OnlyCertificate(PathBuf),
    #[error("the key {} is given without its certificate: name the certificate's file too", .0.display())]
    OnlyKey(PathBuf),
    #[error("{} is to judge clients' certificates, but the server has none: name the files of its certificate and key", .0.display())]
    OnlyClientCa(PathBuf),
    #[error("cannot read the {what} {}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} can be read by others (mode {mode:o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} holds no {what} in PEM form", path.display())]
    Nothing { what: &'static str, path: PathBuf },
    #[error("{} is not a file in PEM form", path.display())]
    NotPem { path: PathBuf, source: pem::Error },
    #[error("the key {} does not fit the certificate {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate {} cannot be used", path.display())]
    Certificate { path: PathBuf, source: rustls::Error },
    #[error("the key {} cannot be used", path.display())]
    Key { path: PathBuf, source: rustls::Error },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{} holds nothing that could judge clients' certificates", path.display())]
    ClientCa { path: PathBuf, source: VerifierBuilderError },
}

impl TlsFiles {
    /// The files as settings have them: none at all is an API that is not encrypted, and half of them is a mistake.
    pub fn of(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        match (certificate, key, client_ca) {
            (Some(certificate), Some(key), client_ca) => Ok(Some(Self { certificate, key, client_ca })),
            (Some(certificate), None, _) => Err(TlsError::OnlyCertificate(certificate)),
            (None, Some(key), _) => Err(TlsError::OnlyKey(key)),
            (None, None, Some(client_ca)) => Err(TlsError::OnlyClientCa(client_ca)),
            (None, None, None) => Ok(None),
        }
    }

    /// Everything that shows in one of the files alone, where several may be wrong.
    pub fn complaints(&self) -> Vec<TlsError> {
        let client_ca = self.client_ca.as_ref().and_then(|path| certificates("certificate", path).err());
        let own = [certificates("certificate", &self.certificate).err(), private_key(&self.key).err()];
        own.into_iter().chain([client_ca]).flatten().collect()
    }
}

impl TlsError {
    /// The file that is to blame, if it is a single one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::OnlyCertificate(path)
            | Self::OnlyKey(path)
            | Self::OnlyClientCa(path)
            | Self::Read { path, .. }
            | Self::Exposed { path, .. }
            | Self::Nothing { path, .. }
            | Self::NotPem { path, .. }
            | Self::Mismatch { key: path, .. }
            | Self::Certificate { path, .. }
            | Self::Key { path, .. }
            | Self::ClientCa { path, .. } => Some(path),
            Self::Trust(_) => None,
        }
    }
}

/// What an API needs to be encrypted.
#[derive(Clone)]
pub struct Tls(Kind);

#[derive(Clone)]
enum Kind {
    /// By files that were read once; nobody may do without.
    Files(Arc<ServerConfig>),
    /// By certificates that may change, of a cluster or for a host name; whoever is on this machine may do without.
    Shown(Arc<Shown>),
}

impl Tls {
    /// With the certificate of the process itself, or with that in the files in its place. TLS 1.3 is spoken, and clients
    /// may show a certificate of the cluster. Connections from this very machine need not be encrypted.
    pub fn of_api(trust: Option<Arc<Trust>>, files: Option<&TlsFiles>) -> Result<Option<Self>, TlsError> {
        Ok(Shown::open(trust, files)?.map(|shown| Self(Kind::Shown(Arc::new(shown)))))
    }

    /// How to shake hands with whoever comes now.
    fn config(&self) -> Arc<ServerConfig> {
        match &self.0 {
            Kind::Files(config) => Arc::clone(config),
            Kind::Shown(shown) => shown.config(),
        }
    }

    fn trust(&self) -> Option<&Arc<Trust>> {
        match &self.0 {
            Kind::Files(_) => None,
            Kind::Shown(shown) => shown.trust(),
        }
    }

    fn may_do_without(&self, visitor: &Visitor) -> bool {
        matches!(self.0, Kind::Shown(_)) && visitor.is_local
    }

    /// Reads the files. TLS 1.3 and 1.2 are spoken.
    pub fn from_files(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = certificates("certificate", &files.certificate)?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        provider
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|source| TlsError::Key { path: files.key.clone(), source })?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Certificate { path: files.certificate.clone(), source })?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let wrong = |source| TlsError::ClientCa { path: path.clone(), source };
                let mut roots = RootCertStore::empty();
                for certificate in certificates("certificate", path)? {
                    roots.add(certificate).map_err(|source| TlsError::Certificate { path: path.clone(), source })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().map_err(wrong)?)
            }
        };
        let config = config.with_single_cert(chain, key).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            source => TlsError::Certificate { path: files.certificate.clone(), source },
        })?;
        Ok(Self(Kind::Files(Arc::new(config))))
    }
}

/// What is in a file, and who may read it.
fn read(what: &'static str, path: &Path) -> Result<(Vec<u8>, u32), TlsError> {
    let read = || {
        let (mut file, mut text) = (File::open(path)?, Vec::new());
        file.read_to_end(&mut text)?;
        Ok((text, file.metadata()?.mode()))
    };
    read().map_err(|source| TlsError::Read { what, path: path.into(), source })
}

/// The private key in a file that only its owner may read.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (text, mode) = read("key", path)?;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| no_pem("private key", path, error))
}

pub(super) fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (text, _) = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::Nothing { what, path: path.into() }),
        found => found.map_err(|error| no_pem(what, path, error)),
    }
}

fn no_pem(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::NoItemsFound => TlsError::Nothing { what, path: path.into() },
        source => TlsError::NotPem { path: path.into(), source },
    }
}

/// The first byte of everything that speaks TLS.
const HANDSHAKE: u8 = 22;
/// What whoever does not encrypt is told, if it speaks HTTP.
const IN_WORDS: &str = "{\"error\":\"this port speaks TLS: begin the address with https:// in place of http://\"}";
/// As much is read of what it sends before the connection is closed, in bytes, and for as long.
const UNREAD: u64 = 64 << 10;
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The handshakes of one server.
pub(super) struct Handshakes {
    tls: Tls,
    most: usize,
    within: Duration,
    /// Those under way, oldest first. One that is taken out is given up.
    under_way: RefCell<BTreeMap<u64, oneshot::Sender<Infallible>>>,
    begun: Cell<u64>,
    refused: SeldomEach<String>,
}

/// What is known of a connection once it may be used: whether there was a handshake, and what it stands on.
enum Shaken {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Handshakes {
    pub fn new(tls: Tls, limits: &Limits) -> Self {
        let (most, within) = (limits.handshakes.max(1), limits.handshake_within);
        let (under_way, refused) = (RefCell::default(), SeldomEach::new());
        Self { tls, most, within, under_way, begun: Cell::new(0), refused }
    }

    /// The connection once it may be used, and what resolves, with the reason, when it may no more. `None` if it came to
    /// nothing, and then it is in the log.
    pub async fn shake(&self, stream: TcpStream, visitor: Visitor) -> Option<(Client, impl Future<Output = String>)> {
        let (number, given_up) = self.enter();
        let shaken = tokio::select! {
            shaken = timeout(self.within, self.begin(stream, &visitor)) => shaken.unwrap_or_else(|_| {
                Err(format!("it did not finish within {}", humantime::format_duration(self.within)))
            }),
            _ = given_up => Err("too many others began one, and this was the oldest".into()),
        };
        self.under_way.borrow_mut().remove(&number);
        let peer = visitor.peer;
        match shaken.and_then(|shaken| self.admit(shaken, visitor)) {
            Ok(admitted) => Some(admitted),
            Err(reason) => {
                match self.refused.say(reason.clone(), Instant::now()) {
                    None => {}
                    Some(0) => warn!("TLS handshake with {peer} refused: {reason}"),
                    Some(unsaid) => warn!("TLS handshake with {peer} refused, and {unsaid} before it: {reason}"),
                }
                None
            }
        }
    }

    async fn begin(&self, mut stream: TcpStream, visitor: &Visitor) -> Result<Shaken, String> {
        let mut first = [0];
        match stream.peek(&mut first).await.map_err(|error| reason(&error))? {
            0 => Err("it hung up".into()),
            _ if first == [HANDSHAKE] => {
                match TlsAcceptor::from(self.tls.config()).accept(stream).into_fallible().await {
                    Ok(stream) => Ok(Shaken::Encrypted(Box::new(stream))),
                    Err((error, stream)) => {
                        // It was told why, which is lost if we close on what it has sent meanwhile.
                        let _ = timeout(LAST_WORDS, hear_out(stream)).await;
                        Err(reason(&error))
                    }
                }
            }
            _ if self.tls.may_do_without(visitor) => Ok(Shaken::Plain(stream)),
            _ => {
                if first[0].is_ascii_uppercase() {
                    // For the sake of whoever sits there; that it fails is no news.
                    let _ = timeout(LAST_WORDS, tell_in_words(&mut stream)).await;
                }
                Err("it does not speak TLS".into())
            }
        }
    }

    fn admit(
        &self,
        shaken: Shaken,
        visitor: Visitor,
    ) -> Result<(Client, impl Future<Output = String> + use<>), String> {
        let (client, held) = match shaken {
            Shaken::Plain(stream) => (Client { stream: Box::new(stream), visitor }, None),
            Shaken::Encrypted(stream) => {
                let (certificate, held) = self.tls.trust().map_or(Ok(None), |trust| hold(trust, &stream))?.unzip();
                let visitor = Visitor { is_encrypted: true, certificate, ..visitor };
                (Client { stream, visitor }, held)
            }
        };
        let until = client.visitor.certificate.as_ref().map(|certificate| certificate.not_after);
        Ok((client, end_of(held, until)))
    }

    fn enter(&self) -> (u64, oneshot::Receiver<Infallible>) {
        let number = self.begun.get();
        self.begun.set(number + 1);
        let (giving_up, given_up) = oneshot::channel();
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() >= self.most {
            under_way.pop_first();
        }
        under_way.insert(number, giving_up);
        (number, given_up)
    }
}

/// Answers a request that came without TLS, and takes the rest of it, since to close on it could take the answer back.
async fn tell_in_words(stream: &mut TcpStream) -> io::Result<()> {
    let length = IN_WORDS.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + IN_WORDS).as_bytes()).await?;
    hear_out(stream).await
}

async fn hear_out(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(UNREAD), &mut tokio::io::sink()).await.map(drop)
}

/// A connection that stands on a certificate, and tells when that is taken back.
type Standing = (Held, Arc<Notify>);

/// The certificate that a client showed, if it showed one.
fn hold(trust: &Trust, stream: &TlsStream<TcpStream>) -> Result<Option<(Certificate, Standing)>, String> {
    let Some(shown) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) else { return Ok(None) };
    let certificate = Certificate::read(shown).map_err(|why| format!("its certificate {why}"))?;
    let revoked = Arc::new(Notify::new());
    let tell = Arc::clone(&revoked);
    let held = trust.hold(&certificate, move |_| tell.notify_one());
    let held = held.ok_or_else(|| "its certificate was revoked".to_owned())?;
    Ok(Some((certificate, (held, revoked))))
}

/// Resolves when a connection has nothing to stand on any more, with the reason.
async fn end_of(standing: Option<Standing>, until: Option<Timestamp>) -> String {
    let (Some((_held, revoked)), Some(until)) = (standing, until) else { return std::future::pending().await };
    let left = Duration::from_micros(until.0.saturating_sub(Timestamp::now().0));
    tokio::select! {
        () = revoked.notified() => "its certificate was revoked".into(),
        () = sleep(left) => "its certificate has expired".into(),
    }
}

/// Why a handshake failed, in the words of whoever reads the log of a server.
fn reason(error: &io::Error) -> String {
    match complaint(error) {
        Some(complaint) => complaint,
        None if error.kind() == io::ErrorKind::UnexpectedEof => "it hung up".into(),
        None => error.to_string(),
    }
}

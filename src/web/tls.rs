//! Encryption in front of an API: certificates from PEM files, and handshakes that are bounded in time and number.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::serve::Limits;
use crate::seldom::Seldom;

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
}

/// What an API needs to be encrypted.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
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
        Ok(Self(Arc::new(config).into()))
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
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (text, mode) = read("key", path)?;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| no_pem("private key", path, error))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
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

/// The handshakes of one server.
pub(super) struct Handshakes {
    tls: Tls,
    most: usize,
    within: Duration,
    /// Those under way, oldest first. One that is taken out is given up.
    under_way: RefCell<BTreeMap<u64, oneshot::Sender<Infallible>>>,
    begun: Cell<u64>,
    seldom: Seldom,
}

impl Handshakes {
    pub fn new(tls: Tls, limits: &Limits) -> Self {
        let (most, within) = (limits.handshakes.max(1), limits.handshake_within);
        Self { tls, most, within, under_way: RefCell::default(), begun: Cell::new(0), seldom: Seldom::default() }
    }

    /// The connection once it is encrypted. `None` if it came to nothing, and then it is in the log.
    pub async fn shake(&self, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let (number, given_up) = self.enter();
        let shaken = tokio::select! {
            shaken = timeout(self.within, self.tls.0.accept(stream)) => match shaken {
                Ok(shaken) => shaken.map_err(|error| reason(&error)),
                Err(_) => Err(format!("it did not finish within {}", humantime::format_duration(self.within))),
            },
            _ = given_up => Err("too many others began one, and this was the oldest".into()),
        };
        self.under_way.borrow_mut().remove(&number);
        if let Err(reason) = &shaken
            && let Some(unsaid) = self.seldom.say(Instant::now())
        {
            match unsaid {
                0 => warn!("TLS handshake with {peer} refused: {reason}"),
                _ => warn!("TLS handshake with {peer} refused, and {unsaid} before it: {reason}"),
            }
        }
        shaken.ok()
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

/// Why a handshake failed, in the words of whoever reads the log of a server.
fn reason(error: &io::Error) -> String {
    use rustls::Error as E;
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<E>());
    match cause {
        Some(E::InvalidMessage(_)) => "it does not speak TLS".into(),
        Some(E::NoCertificatesPresented) => "it has no certificate".into(),
        Some(E::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate was issued by somebody else".into()
        }
        Some(E::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "its certificate has expired".into()
        }
        Some(E::AlertReceived(AlertDescription::UnknownCA)) => {
            "it does not know who issued the server's certificate".into()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "it hung up".into(),
        _ => error.to_string(),
    }
}

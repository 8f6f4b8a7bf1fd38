//! The certificate that clients of the HTTP API are shown: the process's own, or one for a host name that public
//! authorities vouch for. Both may be replaced on disk while the process runs.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::tls::{TlsError, TlsFiles, certificates, private_key};
use crate::trust::{Credentials, Stamp, Trust, for_strangers};

/// See the module.
pub struct Shown {
    trust: Option<Arc<Trust>>,
    public: Option<TlsFiles>,
    current: Mutex<Current>,
}

/// What was read last, and what was made of it.
struct Current {
    credentials: Option<Arc<Credentials>>,
    stamps: Option<[Option<Stamp>; 2]>,
    public: Option<Arc<CertifiedKey>>,
    config: Arc<ServerConfig>,
}

impl Shown {
    /// `None` where there is neither a certificate of the process nor one of files.
    pub fn open(trust: Option<Arc<Trust>>, files: Option<&TlsFiles>) -> Result<Option<Self>, TlsError> {
        let stamps = files.map(stamps);
        let public = files.map(read).transpose()?;
        let credentials = trust.as_ref().map(|trust| trust.credentials());
        let config = match (&credentials, &public) {
            (Some(credentials), public) => credentials.for_clients(public.clone())?,
            (None, Some(public)) => for_strangers(Arc::clone(public))?,
            (None, None) => return Ok(None),
        };
        let current = Mutex::new(Current { credentials, stamps, public, config: Arc::new(config) });
        Ok(Some(Self { trust, public: files.cloned(), current }))
    }

    /// Whose clients show certificates.
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }

    /// What holds for a connection that begins now. Of files that cannot be used the log hears once, and what was read
    /// before goes on to count.
    pub fn config(&self) -> Arc<ServerConfig> {
        let credentials = self.trust.as_ref().map(|trust| trust.credentials());
        let stamps = self.public.as_ref().map(stamps);
        // What is in there is whole, whoever panicked.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (&credentials, &current.credentials) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            _ => true,
        };
        if is_same && stamps == current.stamps {
            return Arc::clone(&current.config);
        }
        if stamps != current.stamps {
            current.stamps = stamps;
            match self.public.as_ref().map(read).transpose() {
                Ok(public) => {
                    info!("the certificate of the HTTP API was read again");
                    current.public = public;
                }
                Err(error) => warn!(
                    "the certificate of the HTTP API was changed and cannot be used, the former goes on to count: {error}"
                ),
            }
        }
        let made = match (&credentials, &current.public) {
            (Some(credentials), public) => credentials.for_clients(public.clone()),
            (None, Some(public)) => for_strangers(Arc::clone(public)),
            (None, None) => return Arc::clone(&current.config),
        };
        current.credentials = credentials;
        match made {
            Ok(config) => current.config = Arc::new(config),
            Err(error) => warn!("the HTTP API goes on with its former certificate: {error}"),
        }
        Arc::clone(&current.config)
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|path| Stamp::of(path))
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates("certificate", &files.certificate)?;
    let key = private_key(&files.key)?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    Ok(Arc::new(certified.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        source => TlsError::Certificate { path: files.certificate.clone(), source },
    })?))
}

//! One process's own certificate, and what TLS makes of it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, version};
use tracing::{info, warn};

use super::files::Stamp;
use super::peers::Peers;
use super::{Certificate, Identity, Part, TrustError, TrustFiles, files};
use crate::model::{InstanceName, Timestamp};

/// What a process shows its peers, and by what it judges them; read from disk again whenever the files change.
pub struct Trust {
    ours: Identity,
    files: TrustFiles,
    current: Mutex<Current>,
}

struct Current {
    stamp: Stamp,
    credentials: Arc<Credentials>,
}

/// One state of the files.
pub struct Credentials {
    pub certificate: Certificate,
    /// For connections that are accepted.
    pub accept: Arc<ServerConfig>,
    /// For connections that this end makes.
    pub connect: Arc<ClientConfig>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads the files, whose certificate must be for `part` `name` of `cluster`.
    pub fn open(
        files: TrustFiles,
        cluster: InstanceName,
        part: Part,
        name: InstanceName,
        now: Timestamp,
    ) -> Result<Self, TrustError> {
        let ours = Identity { cluster, part, name };
        let stamp = files.stamp();
        let credentials = Arc::new(Credentials::read(&files, &ours)?);
        let certificate = &credentials.certificate;
        if certificate.remaining(now).is_none() {
            return Err(TrustError::Expired { path: files.certificate, at: certificate.not_after });
        }
        warn_if_due(certificate, now);
        Ok(Self { ours, files, current: Mutex::new(Current { stamp, credentials }) })
    }

    /// What holds for a link that begins now. Files that were replaced count from here on; of files that cannot be used
    /// the log hears once, and what was read before goes on to count.
    pub fn credentials(&self) -> Arc<Credentials> {
        // What is in there is whole, whoever panicked.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.stamp {
            current.stamp = stamp;
            match Credentials::read(&self.files, &self.ours) {
                Ok(fresh) => {
                    info!(until = %fresh.certificate.not_after, "the certificate was replaced");
                    warn_if_due(&fresh.certificate, Timestamp::now());
                    current.credentials = Arc::new(fresh);
                }
                Err(error) => warn!("the certificate was replaced and cannot be used, the former one goes on: {error}"),
            }
        }
        Arc::clone(&current.credentials)
    }
}

fn warn_if_due(certificate: &Certificate, now: Timestamp) {
    if certificate.is_due(now) {
        warn!("the certificate of this process expires at {}: issue a new one in time", certificate.not_after);
    }
}

impl Credentials {
    fn read(files: &TrustFiles, ours: &Identity) -> Result<Self, TrustError> {
        let (ca, _) = files::read_certificate(&files.ca)?;
        let (der, certificate) = files::read_certificate(&files.certificate)?;
        let (key, _) = files::read_key(&files.key)?;
        if certificate.identity != *ours {
            return Err(TrustError::NotOurs {
                path: files.certificate.clone(),
                found: certificate.identity,
                part: ours.part,
                name: ours.name.clone(),
                cluster: ours.cluster.clone(),
            });
        }
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(vec![der.clone()], key, &provider);
        let certified = certified
            .map_err(|_| TrustError::KeyMismatch { key: files.key.clone(), certificate: files.certificate.clone() })?;
        let other = if ours.part == Part::Controller { Part::Agent } else { Part::Controller };
        let peers = Arc::new(Peers::new(&ca, ours.cluster.clone(), other, Arc::clone(&provider))?);
        // As of its first moment: whether it is still good is another question.
        let first = UnixTime::since_unix_epoch(std::time::Duration::from_micros(certificate.not_before.0));
        peers
            .vouch(&der, first)
            .map_err(|_| TrustError::OtherAuthority { certificate: files.certificate.clone(), ca: files.ca.clone() })?;
        let certified = Arc::new(certified);
        Ok(Self {
            certificate,
            accept: Arc::new(accepting(&provider, &peers, &certified)?),
            connect: Arc::new(connecting(&provider, &peers, &certified)?),
        })
    }
}

fn accepting(
    provider: &Arc<CryptoProvider>,
    peers: &Arc<Peers>,
    certified: &Arc<CertifiedKey>,
) -> Result<ServerConfig, TrustError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::clone(peers) as _);
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(certified))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn connecting(
    provider: &Arc<CryptoProvider>,
    peers: &Arc<Peers>,
    certified: &Arc<CertifiedKey>,
) -> Result<ClientConfig, TrustError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // to judge by the cluster's own rule, which looks at everything but a host name
        .with_custom_certificate_verifier(Arc::clone(peers) as _);
    let mut config =
        builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(certified))));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

//! One process's own certificate, and what TLS makes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, version};
use tracing::{info, warn};

use super::files::Stamp;
use super::peers::Peers;
use super::revoked::InForce;
use super::{Certificate, Identity, Part, TrustError, TrustFiles, files, replace};
use crate::model::{InstanceName, Timestamp};

/// What a client that only wants to join names in its first message (ALPN), and no link does.
pub const JOIN_PROTOCOL: &[u8] = b"watchpost-join/1";

/// What a process shows its peers, and by what it judges them; read from disk again whenever the files change.
pub struct Trust {
    ours: Identity,
    files: TrustFiles,
    current: Mutex<Current>,
    /// Apart from the rest: what was taken back counts whatever is wrong with that.
    revoked: Arc<InForce>,
    /// Who bears on a certificate right now.
    live: Arc<Mutex<Live>>,
    /// A link stands whose certificate may be the next to expire.
    fresh: tokio::sync::Notify,
}

/// The links that stand, and how to end each.
#[derive(Default)]
struct Live {
    next: u64,
    links: BTreeMap<u64, (Certificate, Ender)>,
}

/// Ends a link for the reason that it is told.
type Ender = Box<dyn Fn(&str) + Send>;

/// A link that stands because of a certificate; dropped when it ends.
pub struct Held {
    live: Arc<Mutex<Live>>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.live).links.remove(&self.number);
    }
}

struct Current {
    stamps: [Option<Stamp>; 3],
    credentials: Arc<Credentials>,
}

/// One state of the files.
pub struct Credentials {
    pub certificate: Certificate,
    /// For connections that are accepted.
    pub accept: Arc<ServerConfig>,
    /// For those of them that only want to join: nobody has to show a certificate, and sees the authority's.
    pub welcome: Arc<ServerConfig>,
    /// For connections that this end makes.
    pub connect: Arc<ClientConfig>,
    /// Who judges clients of the HTTP API.
    pub(super) visitors: Arc<Peers>,
    pub(super) certified: Arc<CertifiedKey>,
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
        // What a crash cut short.
        replace::finish(&files)?;
        let revoked = Arc::new(InForce::open(&files.revoked)?);
        let stamps = files.stamps();
        let credentials = Arc::new(Credentials::read(&files, &ours, &revoked)?);
        let certificate = &credentials.certificate;
        if certificate.remaining(now).is_none() {
            return Err(TrustError::Expired { path: files.certificate, at: certificate.not_after });
        }
        warn_if_due(certificate, now);
        let current = Mutex::new(Current { stamps, credentials });
        Ok(Self { ours, files, current, revoked, live: Arc::default(), fresh: tokio::sync::Notify::new() })
    }

    /// What holds for a link that begins now. Files that were replaced count from here on; of files that cannot be used
    /// the log hears once, and what was read before goes on to count.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.revoked.refresh();
        let mut current = lock(&self.current);
        let stamps = self.files.stamps();
        if stamps != current.stamps {
            current.stamps = stamps;
            match Credentials::read(&self.files, &self.ours, &self.revoked) {
                Ok(fresh) => {
                    info!(until = %fresh.certificate.not_after, "certificates were read again");
                    warn_if_due(&fresh.certificate, Timestamp::now());
                    current.credentials = Arc::new(fresh);
                }
                Err(error) => warn!(
                    "certificates were changed and cannot be used, what was read before goes on to count: {error}"
                ),
            }
        }
        Arc::clone(&current.credentials)
    }

    /// A link stands because of a peer's certificate. Once that is taken back, `end` is told why; `None` if it is already.
    pub fn hold(&self, certificate: &Certificate, end: impl Fn(&str) + Send + 'static) -> Option<Held> {
        let mut live = lock(&self.live);
        live.next += 1;
        let number = live.next;
        live.links.insert(number, (certificate.clone(), Box::new(end)));
        drop(live);
        self.fresh.notify_one();
        let held = Held { live: Arc::clone(&self.live), number };
        // Looked at behind the entry, so that none is taken back in between.
        self.revoked.refresh();
        (!self.revoked.holds(certificate)).then_some(held)
    }

    /// Ends the links whose certificates have expired, and tells when the next one does.
    pub(super) fn end_expired(&self, now: Timestamp) -> Option<Timestamp> {
        let live = lock(&self.live);
        let mut next = None;
        for (certificate, end) in live.links.values() {
            match certificate.remaining(now) {
                None => end("the peer's certificate, by which this link began, has expired"),
                Some(_) => next = Some(next.unwrap_or(certificate.not_after).min(certificate.not_after)),
            }
        }
        next
    }

    /// Resolves when a link stands that did not before.
    pub(super) async fn fresh_link(&self) {
        self.fresh.notified().await;
    }

    /// Takes a certificate, and the key that waited for it, in the place of the present ones.
    pub(super) fn take(&self, der: &CertificateDer<'_>) -> Result<Certificate, TrustError> {
        {
            // Nobody reads while one is there without the other.
            let _current = lock(&self.current);
            replace::put(&self.files, der)?;
        }
        Ok(self.credentials().certificate.clone())
    }

    /// Reads what changed, and ends the links of certificates that were taken back.
    pub fn recheck(&self) {
        self.credentials();
        for (certificate, end) in lock(&self.live).links.values() {
            if self.revoked.holds(certificate) {
                end("the peer's certificate was revoked");
            }
        }
    }

    /// Says so if the certificate that counts now should be renewed.
    pub(super) fn warn_if_due(&self, now: Timestamp) {
        warn_if_due(&self.credentials().certificate, now);
    }

    /// The files, for whoever waits for them to change.
    pub(super) fn files(&self) -> &TrustFiles {
        &self.files
    }

    /// Whose certificate it is.
    pub fn identity(&self) -> &Identity {
        &self.ours
    }

    /// Whether this certificate is known to be taken back.
    pub(super) fn has_revoked(&self, certificate: &Certificate) -> bool {
        self.revoked.refresh();
        self.revoked.holds(certificate)
    }

    /// Whether our authority issued this certificate, and it counted then.
    pub(super) fn vouches_for(&self, der: &CertificateDer<'_>, then: UnixTime) -> bool {
        let provider = Arc::new(ring::default_provider());
        files::read_certificate(&self.files.ca).is_ok_and(|(ca, _)| {
            let revoked = Arc::new(InForce::none());
            Peers::new(&ca, self.ours.cluster.clone(), &[Part::Agent], revoked, provider)
                .is_ok_and(|peers| peers.vouch(der, then).is_ok())
        })
    }
}

/// What is in there is whole, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn warn_if_due(certificate: &Certificate, now: Timestamp) {
    if certificate.is_due(now) {
        warn!(
            "the certificate of this process expires at {}: it is renewed by itself, or else issue a new one in time",
            certificate.not_after
        );
    }
}

impl Credentials {
    fn read(files: &TrustFiles, ours: &Identity, revoked: &Arc<InForce>) -> Result<Self, TrustError> {
        let (ca, _) = files::read_certificate(&files.ca)?;
        let (der, certificate) = files::read_certificate(&files.certificate)?;
        let (key, _) = files::read_key(&files.key)?;
        if certificate.identity != *ours {
            return Err(TrustError::NotOurs {
                path: files.certificate.clone(),
                found: Box::new(certificate.identity),
                ours: Box::new(ours.clone()),
            });
        }
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(vec![der.clone()], key, &provider);
        let certified = certified
            .map_err(|_| TrustError::KeyMismatch { key: files.key.clone(), certificate: files.certificate.clone() })?;
        let peers = |parts| Peers::new(&ca, ours.cluster.clone(), parts, Arc::clone(revoked), Arc::clone(&provider));
        let visitors = Arc::new(peers(&[Part::Operator, Part::Observer])?.or_nobody());
        let peers = Arc::new(peers(if ours.part == Part::Controller { &[Part::Agent] } else { &[Part::Controller] })?);
        // As of its first moment: whether it is still good is another question.
        let first = UnixTime::since_unix_epoch(std::time::Duration::from_micros(certificate.not_before.0));
        peers
            .vouch(&der, first)
            .map_err(|_| TrustError::OtherAuthority { certificate: files.certificate.clone(), ca: files.ca.clone() })?;
        let certified = Arc::new(certified);
        Ok(Self {
            certificate,
            accept: Arc::new(accepting(&provider, &peers, &certified)?),
            welcome: Arc::new(welcoming(&provider, &ca, &der, &certified)?),
            connect: Arc::new(connecting(&provider, &peers, &certified)?),
            visitors,
            certified,
        })
    }
}

pub(super) fn accepting(
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

fn welcoming(
    provider: &Arc<CryptoProvider>,
    ca: &CertificateDer<'static>,
    own: &CertificateDer<'static>,
    certified: &Arc<CertifiedKey>,
) -> Result<ServerConfig, TrustError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth();
    let chain = CertifiedKey::new(vec![own.clone(), ca.clone()], Arc::clone(&certified.key));
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(chain)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
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

//! The HTTP API's side of trust: what a controller shows its clients, and what a client makes of a controller.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig, version};

use super::credentials::accepting;
use super::peers::Peers;
use super::revoked::InForce;
use super::signatures::signatures_by_provider;
use super::{Certificate, Credentials, Part, TrustError, TrustFiles, files};

impl Credentials {
    /// For clients of the HTTP API: they are shown this process's certificate, or `shown` in its place, and may show one
    /// of the cluster's for an operator or an observer.
    pub fn for_clients(&self, shown: Option<Arc<CertifiedKey>>) -> Result<ServerConfig, TrustError> {
        let shown = shown.unwrap_or_else(|| Arc::clone(&self.certified));
        accepting(&Arc::new(ring::default_provider()), &self.visitors, &shown)
    }
}

/// The same where there is no cluster whose certificates clients could show.
pub fn for_strangers(shown: Arc<CertifiedKey>) -> Result<ServerConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth());
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a client of a controller's HTTP API goes by.
pub struct Visit {
    ours: Option<Arc<CertifiedKey>>,
    cluster: Option<Arc<Peers>>,
    roots: RootCertStore,
}

impl Default for Visit {
    /// Shows nothing and trusts nobody.
    fn default() -> Self {
        Self { ours: None, cluster: None, roots: RootCertStore::empty() }
    }
}

impl Visit {
    /// Shows the certificate that `watchpost pki issue client` put into this directory, and trusts the controller of its
    /// cluster.
    pub fn with_certificate(self, directory: &Path) -> Result<Self, TrustError> {
        let paths = TrustFiles::in_directory(directory);
        let provider = Arc::new(ring::default_provider());
        let (der, certificate) = files::read_certificate(&paths.certificate)?;
        let (key, _) = files::read_key(&paths.key)?;
        if ![Part::Operator, Part::Observer].contains(&certificate.identity.part) {
            return Err(TrustError::NoClient { path: paths.certificate, found: certificate.identity });
        }
        let mismatch = |_| TrustError::KeyMismatch { key: paths.key.clone(), certificate: paths.certificate.clone() };
        let certified = CertifiedKey::from_der(vec![der], key, &provider).map_err(mismatch)?;
        Ok(Self { ours: Some(Arc::new(certified)), ..self.with_authority(&paths.ca)? })
    }

    /// Trusts whom the certificates in this file vouch for: the controller of the cluster if it is a cluster's authority,
    /// whatever address it has, and a server of the right host name if it is any other.
    pub fn with_authority(self, path: &Path) -> Result<Self, TrustError> {
        match files::read_certificate(path) {
            Ok((der, certificate)) if certificate.identity.part == Part::Authority => {
                let revoked = Arc::new(InForce::open(&path.with_file_name("revoked"))?);
                let provider = Arc::new(ring::default_provider());
                let peers = Peers::new(&der, certificate.identity.cluster, &[Part::Controller], revoked, provider)?;
                Ok(Self { cluster: Some(Arc::new(peers)), ..self })
            }
            _ => self.with_roots(path),
        }
    }

    /// Trusts servers of the right host name for whom one of the certificates in this file vouches.
    pub fn with_roots(mut self, path: &Path) -> Result<Self, TrustError> {
        let found = files::read_certificates(path)?;
        let (added, _) = self.roots.add_parsable_certificates(found);
        match added {
            0 => Err(TrustError::NotPem { path: path.to_owned(), what: "certificate of an authority" }),
            _ => Ok(self),
        }
    }

    /// What TLS needs to know of it.
    pub fn config(self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let roots = match self.roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), Arc::clone(&provider))
                    .build()
                    // It complains of a want of roots only, and there are some.
                    .map_err(|error| Error::General(error.to_string()))?,
            ),
        };
        let verifier = Arc::new(Hosts { cluster: self.cluster, roots, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous() // to judge a controller by the cluster's own rule, which looks at everything but a host name
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.ours {
            Some(ours) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(ours))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Judges servers: one with a certificate of a cluster by that cluster's rule, any other by its host name.
#[derive(Debug)]
struct Hosts {
    cluster: Option<Arc<Peers>>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Hosts {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge: &dyn ServerCertVerifier = match (&self.cluster, &self.roots) {
            (Some(cluster), None) => &**cluster,
            (Some(cluster), Some(_)) if Certificate::read(end_entity).is_ok() => &**cluster,
            (_, Some(roots)) => &**roots,
            (None, None) => return Err(CertificateError::UnknownIssuer.into()),
        };
        judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    signatures_by_provider!();
}

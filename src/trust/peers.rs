//! What a certificate that a peer shows must be: issued by the cluster's authority, for the right part of the cluster.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};

use super::revoked::InForce;
use super::signatures::signatures_by_provider;
use super::{Certificate, Part, TrustError};
use crate::model::InstanceName;

/// Judges the peers of one process: of a controller its agents, or its clients, of an agent and a client its controller.
#[derive(Debug)]
pub(super) struct Peers {
    cluster: InstanceName,
    /// One of these they have to be.
    parts: &'static [Part],
    /// Whether one that accepts connections turns away who shows no certificate at all.
    mandatory: bool,
    roots: Arc<RootCertStore>,
    revoked: Arc<InForce>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

/// A certificate that the authority did issue, and that is no good here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Misplaced {
    #[error("it {0}")]
    NoIdentity(String),
    #[error("it is for {got}, and {want} of cluster `{cluster}` was expected")]
    Other { got: String, want: String, cluster: InstanceName },
}

impl Peers {
    /// Accepts these parts of the cluster whose authority has the certificate `ca`, and nobody without a certificate.
    pub fn new(
        ca: &CertificateDer<'_>,
        cluster: InstanceName,
        parts: &'static [Part],
        revoked: Arc<InForce>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            // It complains of a want of roots only, and there is one.
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { cluster, parts, mandatory: true, roots, revoked, clients, provider })
    }

    /// The same, but who shows no certificate gets as far as to prove in another way who it is.
    pub fn or_nobody(self) -> Self {
        Self { mandatory: false, ..self }
    }

    /// Whether the authority vouches for the certificate now, whoever it is for.
    pub fn vouch(&self, der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(der)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, &[], now, algorithms)
    }

    /// Whether it counts and is for the right part of the cluster; names are compared later, with what the peer says of itself.
    fn fits(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        let misplaced = match Certificate::read(der) {
            Ok(certificate) if self.revoked.holds(&certificate) => return Err(CertificateError::Revoked.into()),
            Ok(Certificate { identity, .. })
                if self.parts.contains(&identity.part) && identity.cluster == self.cluster =>
            {
                return Ok(());
            }
            Ok(Certificate { identity, .. }) => {
                let got = format!("{} `{}` of cluster `{}`", identity.part, identity.name, identity.cluster);
                let want: Vec<_> = self.parts.iter().map(Part::to_string).collect();
                Misplaced::Other { got, want: want.join(" or "), cluster: self.cluster.clone() }
            }
            Err(why) => Misplaced::NoIdentity(why),
        };
        Err(CertificateError::Other(OtherError(Arc::new(misplaced))).into())
    }
}

impl ServerCertVerifier for Peers {
    /// The name is not looked at: who dials knows an address, and hears in the greeting who answered.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.vouch(end_entity, now)?;
        self.fits(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}

impl ClientCertVerifier for Peers {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.fits(end_entity)?;
        Ok(verified)
    }

    signatures_by_provider!();
}

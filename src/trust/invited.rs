//! How a new host knows the controller before it has anything but a token: by the authority that the token names.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, OtherError, version};

use super::credentials::JOIN_PROTOCOL;
use super::digest::{DIGEST, same, sha256};
use super::peers::Peers;
use super::revoked::InForce;
use super::signatures::signatures_by_provider;
use super::{Part, TrustError};
use crate::model::InstanceName;

/// Believes in the controller of one cluster, whose authority has this digest.
struct Invited {
    cluster: InstanceName,
    authority: [u8; DIGEST],
    provider: Arc<CryptoProvider>,
}

/// Somebody else answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not vouched for by the authority that the token names: whoever it is, it was told nothing")]
pub struct NotTheAuthority;

/// How a connection is secured that asks to join, by a token of this authority and cluster.
pub fn joining(cluster: &InstanceName, authority: [u8; DIGEST]) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let invited = Invited { cluster: cluster.clone(), authority, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // to judge by the token, which knows no host name
        .with_custom_certificate_verifier(Arc::new(invited))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    Ok(config)
}

impl fmt::Debug for Invited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invited").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Invited {
    /// The judge of the authority that the token names, if it is among those that were shown.
    fn peers(&self, shown: &[CertificateDer<'_>]) -> Result<Peers, Error> {
        let other = || Error::from(CertificateError::Other(OtherError(Arc::new(NotTheAuthority))));
        let ca = shown.iter().find(|shown| same(&sha256(shown), &self.authority)).ok_or_else(other)?;
        let (revoked, provider) = (Arc::new(InForce::none()), Arc::clone(&self.provider));
        Peers::new(ca, self.cluster.clone(), &[Part::Controller], revoked, provider)
            .map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Invited {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.peers(intermediates)?.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    signatures_by_provider!();
}

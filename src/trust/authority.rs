//! The cluster's authority: one key that vouches for who is who.

use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, DnsName};

use super::certificate::head_start;
use super::registry::Registry;
use super::{Certificate, Identity, Part, Request, TrustError, TrustFiles, files};
use crate::model::{InstanceName, Timestamp};

/// Makes certificates, and remembers them in its [`Registry`]. Not `Debug`: it holds the key.
pub struct Authority {
    registry: Registry,
    issuer: Issuer<'static, KeyPair>,
}

impl Deref for Authority {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

/// A certificate that was just made, with its key. Not `Debug` either.
pub struct Issued {
    pub certificate: Certificate,
    pub(super) certificate_pem: String,
    key_pem: String,
    ca: PathBuf,
    /// What the authority remembers it by.
    entry: PathBuf,
}

impl Authority {
    /// Makes the authority of a cluster and keeps it in `directory`, which must not have one.
    pub fn create(
        directory: &Path,
        cluster: &InstanceName,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Self, TrustError> {
        let (certificate_path, key_path) = paths(directory);
        for path in [&certificate_path, &key_path] {
            if path.exists() {
                return Err(TrustError::Exists { path: path.clone() });
            }
        }
        let identity = Identity { cluster: cluster.clone(), part: Part::Authority, name: cluster.clone() };
        let mut params = params(&identity, now, lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        files::make_directory(directory)?;
        // The key first: a certificate without it would look like an authority that cannot issue.
        files::write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        files::write(&certificate_path, certificate.pem().as_bytes(), 0o644)?;
        Self::load(directory)
    }

    /// The authority that is kept in `directory`, with its key.
    pub fn load(directory: &Path) -> Result<Self, TrustError> {
        let registry = Registry::open(directory)?;
        let (certificate, path) = paths(directory);
        let (_, text) = files::read_key(&path)?;
        // What the decoder says is left out: it might quote the key.
        let not_ours = |_| TrustError::NotPem { path: path.clone(), what: "private key of a kind used here" };
        let key = KeyPair::from_pem(&text).map_err(not_ours)?;
        if !Certificate::has_key(registry.ca(), key.public_key_raw()) {
            return Err(TrustError::KeyMismatch { key: path, certificate });
        }
        let issuer = Issuer::from_ca_cert_der(registry.ca(), key)?;
        Ok(Self { registry, issuer })
    }

    /// Vouches for somebody: makes a key and the certificate that belongs to it.
    pub fn issue(
        &self,
        part: Part,
        name: &InstanceName,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, TrustError> {
        self.issue_for(part, name, &[], now, lifetime)
    }

    /// The same, and the certificate also names these addresses and host names: for programs that look at nothing else.
    pub fn issue_for(
        &self,
        part: Part,
        name: &InstanceName,
        hosts: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, TrustError> {
        let identity = Identity { cluster: self.certificate().identity.cluster.clone(), part, name: name.clone() };
        let key = KeyPair::generate()?;
        let (der, certificate, entry) = self.vouch_for(&identity, &key, hosts, now, lifetime)?;
        let (ca, _) = paths(self.directory());
        let certificate_pem = files::pem("CERTIFICATE", &der);
        Ok(Issued { certificate, certificate_pem, key_pem: key.serialize_pem(), ca, entry })
    }

    /// Vouches for whoever has the key of this request, which somebody has found to be in order. Host names that the last
    /// certificate of a controller had are in the next one, too.
    pub(super) fn grant(
        &self,
        request: &Request,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(CertificateDer<'static>, Certificate), TrustError> {
        let hosts = self.registry.hosts(&request.identity)?;
        let (der, certificate, _) = self.vouch_for(&request.identity, request.public(), &hosts, now, lifetime)?;
        Ok((der, certificate))
    }

    fn vouch_for(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        hosts: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(CertificateDer<'static>, Certificate, PathBuf), TrustError> {
        // Nobody is vouched for longer than the authority itself is.
        let own = self.certificate();
        let expired = || TrustError::AuthorityExpired { directory: self.directory().to_owned(), at: own.not_after };
        let lifetime = lifetime.min(own.remaining(now).ok_or_else(expired)?);
        let mut params = params(identity, now, lifetime)?;
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Either end may dial, so everybody is a server and a client.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let made = params.signed_by(key, &self.issuer)?;
        // Nobody gets a certificate that the authority does not remember.
        let (certificate, entry) = self.registry.record(made.der())?;
        Ok((made.into(), certificate, entry))
    }
}

impl Issued {
    /// Puts it, with its key and the authority's certificate, where a daemon looks for them. The certificate comes last,
    /// so a daemon that reads in between still has a whole pair or says that the two do not belong together. If it cannot
    /// be put there, nobody has its key, and the authority forgets it again.
    pub fn write(&self, directory: &Path) -> Result<TrustFiles, TrustError> {
        let paths = TrustFiles::in_directory(directory);
        let written = self.put(directory, &paths);
        if written.is_err() {
            // That it could not be written is the error to tell; an entry too many harms nobody.
            let _ = std::fs::remove_file(&self.entry);
        }
        written.map(|()| paths)
    }

    fn put(&self, directory: &Path, paths: &TrustFiles) -> Result<(), TrustError> {
        files::make_directory(directory)?;
        self.check_that_nobody_else_lives_in(paths)?;
        files::copy(&self.ca, &paths.ca)?;
        files::write(&paths.key, self.key_pem.as_bytes(), 0o600)?;
        files::write(&paths.certificate, self.certificate_pem.as_bytes(), 0o644)
    }

    /// Refuses to write over a key unless it is one of the same bearer: it could not be had again.
    fn check_that_nobody_else_lives_in(&self, paths: &TrustFiles) -> Result<(), TrustError> {
        if !paths.key.exists() {
            return Ok(());
        }
        match files::read_certificate(&paths.certificate) {
            Ok((_, there)) if there.identity == self.certificate.identity => Ok(()),
            _ => Err(TrustError::Occupied { path: paths.key.clone() }),
        }
    }
}

/// The authority's certificate and its key.
pub(super) fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.pem"), directory.join("ca.key"))
}

fn host_name(host: &str) -> Result<SanType, TrustError> {
    let wrong = || TrustError::Host(host.chars().take(100).collect());
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => {
            DnsName::try_from(host).map_err(|_| wrong())?;
            Ok(SanType::DnsName(host.try_into()?))
        }
    }
}

fn params(identity: &Identity, now: Timestamp, lifetime: Duration) -> Result<CertificateParams, TrustError> {
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    let at = |since_epoch: Duration| epoch.checked_add(since_epoch.try_into().ok()?);
    let now = Duration::from_micros(now.0);
    params.not_before = at(now.saturating_sub(head_start(lifetime))).ok_or(TrustError::TooFar)?;
    params.not_after = now.checked_add(lifetime).and_then(at).ok_or(TrustError::TooFar)?;
    // One bit less than the bytes hold, and never zero: a serial number is positive.
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(TrustError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, format!("watchpost cluster {}", identity.cluster));
    params.distinguished_name.push(DnType::CommonName, format!("{} {}", identity.part, identity.name));
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn named(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    #[test]
    fn a_time_that_no_certificate_can_name_is_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pki");
        for lifetime in [9000 * YEAR, Duration::MAX] {
            let refused = Authority::create(&place, &named("lab"), Timestamp::now(), lifetime).err().unwrap();
            assert!(matches!(refused, TrustError::TooFar), "{refused}");
        }
        assert!(!place.exists());
        let authority = Authority::create(&place, &named("lab"), Timestamp::now(), 7000 * YEAR).unwrap();
        let issued = authority.issue(Part::Agent, &named("a"), Timestamp::now(), Duration::MAX).unwrap();
        assert_eq!(issued.certificate.not_after, authority.certificate().not_after);
    }

    #[test]
    fn an_authority_that_expired_vouches_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let then = Timestamp(Timestamp::now().0 - 2 * YEAR.as_micros() as u64);
        let authority = Authority::create(directory.path(), &named("lab"), then, YEAR).unwrap();
        authority.issue(Part::Agent, &named("a"), then, YEAR).unwrap();
        let refused = authority.issue(Part::Agent, &named("a"), Timestamp::now(), YEAR).err().unwrap();
        assert!(matches!(refused, TrustError::AuthorityExpired { .. }), "{refused}");
        assert_eq!(authority.issued().unwrap().certificates.len(), 1);
    }

    #[test]
    fn what_could_not_be_handed_over_was_never_issued() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), &named("lab"), Timestamp::now(), YEAR).unwrap();
        let in_the_way = directory.path().join("file");
        std::fs::write(&in_the_way, "").unwrap();
        let issued = authority.issue(Part::Agent, &named("a"), Timestamp::now(), YEAR).unwrap();
        assert!(issued.write(&in_the_way).is_err());
        assert_eq!(authority.issued().unwrap().certificates, []);
    }
}

//! The cluster's authority: one key that vouches for who is who.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::revoked::Revoked;
use super::{Certificate, Identity, Part, TrustError, TrustFiles, files};
use crate::model::{InstanceName, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::DnsName;

/// Clocks of two machines may differ by this much.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Makes certificates. Not `Debug`: it holds the key.
pub struct Authority {
    directory: PathBuf,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was just made, with its key. Not `Debug` either.
pub struct Issued {
    pub certificate: Certificate,
    certificate_pem: String,
    key_pem: String,
    ca: PathBuf,
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

    /// The authority that is kept in `directory`.
    pub fn load(directory: &Path) -> Result<Self, TrustError> {
        let (certificate, key) = paths(directory);
        match certificate.exists() {
            true => Self::read(directory, &certificate, &key),
            false => Err(TrustError::NoAuthority { directory: directory.to_owned() }),
        }
    }

    fn read(directory: &Path, certificate_path: &Path, key_path: &Path) -> Result<Self, TrustError> {
        let (der, certificate) = files::read_certificate(certificate_path)?;
        let damaged = |why| TrustError::Damaged { path: certificate_path.to_owned(), why };
        if certificate.identity.part != Part::Authority {
            return Err(damaged(format!("it is the certificate of {} and no authority", certificate.identity)));
        }
        let (_, text) = files::read_key(key_path)?;
        // What the decoder says is left out: it might quote the key.
        let not_ours = |_| TrustError::NotPem { path: key_path.to_owned(), what: "private key of a kind used here" };
        let key = KeyPair::from_pem(&text).map_err(not_ours)?;
        if !Certificate::has_key(&der, key.public_key_raw()) {
            let (key, certificate) = (key_path.to_owned(), certificate_path.to_owned());
            return Err(TrustError::KeyMismatch { key, certificate });
        }
        Ok(Self { directory: directory.to_owned(), certificate, issuer: Issuer::from_ca_cert_der(&der, key)? })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
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
        let identity = Identity { cluster: self.certificate.identity.cluster.clone(), part, name: name.clone() };
        // Nobody is vouched for longer than the authority itself is.
        let expired =
            || TrustError::AuthorityExpired { directory: self.directory.clone(), at: self.certificate.not_after };
        let lifetime = lifetime.min(self.certificate.remaining(now).ok_or_else(expired)?);
        let mut params = params(&identity, now, lifetime)?;
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Either end may dial, so everybody is a server and a client.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let made = params.signed_by(&key, &self.issuer)?;
        let (ca, _) = paths(&self.directory);
        let ledger = self.ledger();
        let damaged = |why| TrustError::Damaged { path: ledger.clone(), why };
        let certificate = Certificate::read(made.der()).map_err(|why| damaged(format!("what was made {why}")))?;
        // Nobody gets a certificate that the authority does not remember.
        files::make_directory(&ledger)?;
        let entry = ledger.join(format!("{part}-{name}-{}.pem", certificate.serial));
        files::write(&entry, made.pem().as_bytes(), 0o644)?;
        Ok(Issued { certificate, certificate_pem: made.pem(), key_pem: key.serialize_pem(), ca })
    }

    /// Every certificate that it issued, sorted by part, name and age.
    pub fn issued(&self) -> Result<Vec<Certificate>, TrustError> {
        let ledger = self.ledger();
        let failed = |source| TrustError::Read { path: ledger.clone(), source };
        let entries = match std::fs::read_dir(&ledger) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut issued = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                issued.push(files::read_certificate(&path)?.1);
            }
        }
        let key = |certificate: &Certificate| {
            let Identity { part, name, .. } = &certificate.identity;
            (*part, name.clone(), certificate.not_before)
        };
        issued.sort_by_key(key);
        Ok(issued)
    }

    /// Takes back every certificate that it issued to `part` `name` and that has not expired; returns those that counted
    /// until now.
    pub fn revoke(&self, part: Part, name: &InstanceName, now: Timestamp) -> Result<Vec<Certificate>, TrustError> {
        let _alone = files::lock(&self.directory)?;
        let list = self.revoked_list();
        let revoked = Revoked::read(&list)?;
        let mut counting = self.issued()?;
        counting.retain(|Certificate { identity, .. }| identity.part == part && identity.name == *name);
        if counting.is_empty() {
            return Err(TrustError::NeverIssued { part, name: name.clone() });
        }
        counting.retain(|certificate| certificate.remaining(now).is_some() && !revoked.holds(certificate));
        Revoked::add(&list, &counting)?;
        Ok(counting)
    }

    /// Whether it took this certificate back.
    pub fn has_revoked(&self, certificate: &Certificate) -> Result<bool, TrustError> {
        Ok(Revoked::read(&self.revoked_list())?.holds(certificate))
    }

    /// Lets the process whose files these are heed all that was taken back.
    pub fn publish_revoked(&self, files: &TrustFiles) -> Result<(), TrustError> {
        files::copy(&self.revoked_list(), &files.revoked)
    }

    /// What it took back.
    pub fn revoked_list(&self) -> PathBuf {
        self.directory.join("revoked")
    }

    /// Where it keeps a copy of each certificate that it issued.
    fn ledger(&self) -> PathBuf {
        self.directory.join("issued")
    }
}

impl Issued {
    /// Puts it, with its key and the authority's certificate, where a daemon looks for them. The certificate comes last,
    /// so a daemon that reads in between still has a whole pair or says that the two do not belong together.
    pub fn write(&self, directory: &Path) -> Result<TrustFiles, TrustError> {
        files::make_directory(directory)?;
        let paths = TrustFiles::in_directory(directory);
        self.check_that_nobody_else_lives_in(&paths)?;
        files::copy(&self.ca, &paths.ca)?;
        files::write(&paths.key, self.key_pem.as_bytes(), 0o600)?;
        files::write(&paths.certificate, self.certificate_pem.as_bytes(), 0o644)?;
        Ok(paths)
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
fn paths(directory: &Path) -> (PathBuf, PathBuf) {
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
    params.not_before = at(now.saturating_sub(SKEW)).ok_or(TrustError::TooFar)?;
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
        assert_eq!(authority.issued().unwrap().len(), 1);
    }
}

//! What an authority remembers, and all that can be done without its key: who has a certificate, and whose was taken back.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::authority::paths;
use super::digest::{DIGEST, sha256};
use super::revoked::Revoked;
use super::{Certificate, Identity, Part, Request, TrustError, TrustFiles, files};
use crate::model::{InstanceName, Timestamp};

/// The directory of an authority. Its key may be in there, or somewhere safer.
pub struct Registry {
    directory: PathBuf,
    ca: CertificateDer<'static>,
    certificate: Certificate,
}

/// What stands in the ledger.
#[derive(Debug)]
pub struct Ledger {
    /// Sorted by part, name and age.
    pub certificates: Vec<Certificate>,
    /// What is there and is no certificate of ours.
    pub odd: Vec<TrustError>,
}

/// What [`Registry::revoke`] came to.
#[derive(Debug, Default)]
pub struct Revocation {
    /// The certificates that counted until now.
    pub certificates: Vec<Certificate>,
    /// Whether there was an invitation, or a request that waited, which is withdrawn.
    pub withdrawn: bool,
    /// What is in the ledger and is no certificate of ours.
    pub odd: Vec<TrustError>,
}

impl Registry {
    /// The registry in `directory`, which has at least the authority's certificate.
    pub fn open(directory: &Path) -> Result<Self, TrustError> {
        let (path, _) = paths(directory);
        if !path.exists() {
            return Err(TrustError::NoAuthority { directory: directory.to_owned() });
        }
        let (ca, certificate) = files::read_certificate(&path)?;
        if certificate.identity.part != Part::Authority {
            let why = format!("it is the certificate of {} and no authority", certificate.identity);
            return Err(TrustError::Damaged { path, why });
        }
        Ok(Self { directory: directory.to_owned(), ca, certificate })
    }

    /// The same; where there is none, a new one for the authority that issued these certificates. Its key is elsewhere.
    pub fn open_beside(directory: &Path, trust: &TrustFiles) -> Result<Self, TrustError> {
        let (path, _) = paths(directory);
        if !path.exists() && trust.ca.exists() {
            files::make_directory(directory)?;
            files::copy(&trust.ca, &path)?;
        }
        Self::open(directory)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The same as it was made.
    pub(super) fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// Tells this authority from every other.
    pub fn fingerprint(&self) -> [u8; DIGEST] {
        sha256(&self.ca)
    }

    /// Whether the key is here, too.
    pub fn has_key(&self) -> bool {
        let (_, key) = paths(&self.directory);
        key.symlink_metadata().is_ok()
    }

    /// Every certificate that was issued, as far as it is known here.
    pub fn issued(&self) -> Result<Ledger, TrustError> {
        let mut found = Ledger { certificates: Vec::new(), odd: Vec::new() };
        for path in files::list(&self.ledger(), "pem")? {
            match files::read_certificate(&path) {
                Ok((_, certificate)) => found.certificates.push(certificate),
                Err(error) => found.odd.push(error),
            }
        }
        let key = |certificate: &Certificate| {
            let Identity { part, name, .. } = &certificate.identity;
            (*part, name.clone(), certificate.not_before)
        };
        found.certificates.sort_by_key(key);
        Ok(found)
    }

    /// The certificate that was issued for the key of this request already, if it is not yet due.
    pub(super) fn granted(
        &self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Option<CertificateDer<'static>>, TrustError> {
        let Identity { part, name, .. } = &request.identity;
        let own = format!("{part}-{name}-");
        let is_of_that_name =
            |path: &PathBuf| path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&own));
        let revoked = Revoked::read(&self.revoked_list())?;
        for path in files::list(&self.ledger(), "pem")?.into_iter().filter(is_of_that_name) {
            let Ok((der, certificate)) = files::read_certificate(&path) else { continue };
            let is_it = certificate.identity == request.identity && Certificate::has_key(&der, request.public_key());
            if is_it && !certificate.is_due(now) && !revoked.holds(&certificate) {
                return Ok(Some(der));
            }
        }
        Ok(None)
    }

    /// The addresses and host names that the last certificate of a controller had; nobody else is looked for by them.
    pub(super) fn hosts(&self, identity: &Identity) -> Result<Vec<String>, TrustError> {
        if identity.part != Part::Controller {
            return Ok(Vec::new());
        }
        let revoked = Revoked::read(&self.revoked_list())?;
        let counts = |certificate: &Certificate| certificate.identity == *identity && !revoked.holds(certificate);
        let last = self.issued()?.certificates.into_iter().rev().find(counts);
        Ok(last.map(|certificate| certificate.hosts).unwrap_or_default())
    }

    /// Remembers a certificate, and says by which file.
    pub(super) fn record(&self, der: &CertificateDer<'_>) -> Result<(Certificate, PathBuf), TrustError> {
        let ledger = self.ledger();
        let damaged = |why| TrustError::Damaged { path: ledger.clone(), why: format!("what was made {why}") };
        let certificate = Certificate::read(der).map_err(damaged)?;
        files::make_directory(&ledger)?;
        let Identity { part, name, .. } = &certificate.identity;
        let entry = ledger.join(format!("{part}-{name}-{}.pem", certificate.serial));
        files::write(&entry, files::pem("CERTIFICATE", der).as_bytes(), 0o644)?;
        Ok((certificate, entry))
    }

    /// Takes back every certificate that was issued to `part` `name` and that has not expired, and whatever that part was
    /// invited to or asked for.
    pub fn revoke(&self, part: Part, name: &InstanceName, now: Timestamp) -> Result<Revocation, TrustError> {
        let _alone = files::lock(&self.directory)?;
        let list = self.revoked_list();
        let revoked = Revoked::read(&list)?;
        // Before the certificates: nobody gets another one meanwhile.
        let was_invited = part == Part::Agent && self.withdraw_invitation(name)?;
        let withdrawn = self.withdraw_request(part, name)? || was_invited;
        let Ledger { mut certificates, odd } = self.issued()?;
        certificates.retain(|Certificate { identity, .. }| identity.part == part && identity.name == *name);
        if certificates.is_empty() && !withdrawn {
            return Err(TrustError::NeverIssued { part, name: name.clone() });
        }
        certificates.retain(|certificate| certificate.remaining(now).is_some() && !revoked.holds(certificate));
        if !certificates.is_empty() {
            Revoked::add(&list, &certificates)?;
        }
        Ok(Revocation { certificates, withdrawn, odd })
    }

    /// Whether this certificate was taken back.
    pub fn has_revoked(&self, certificate: &Certificate) -> Result<bool, TrustError> {
        Ok(Revoked::read(&self.revoked_list())?.holds(certificate))
    }

    /// Lets the process whose files these are heed all that was taken back.
    pub fn publish_revoked(&self, files: &TrustFiles) -> Result<(), TrustError> {
        Revoked::publish(&self.revoked_list(), &files.revoked)
    }

    /// What was taken back.
    pub fn revoked_list(&self) -> PathBuf {
        self.directory.join("revoked")
    }

    /// Where a copy of each certificate is kept that was issued.
    fn ledger(&self) -> PathBuf {
        self.directory.join("issued")
    }
}

/// Whether removing a file found one.
pub(super) fn remove(path: &Path) -> Result<bool, TrustError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(TrustError::Write { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Authority;
    use super::*;

    #[test]
    fn an_odd_file_in_the_ledger_hides_no_certificate_and_keeps_nobody_from_revoking() {
        let directory = tempfile::tempdir().unwrap();
        let named = |text| InstanceName::new(text).unwrap();
        let (now, day) = (Timestamp::now(), Duration::from_secs(86_400));
        let authority = Authority::create(directory.path(), &named("lab"), now, day).unwrap();
        authority.issue(Part::Agent, &named("a"), now, day).unwrap();
        std::fs::write(authority.ledger().join("agent-a-00.pem"), "half a certif").unwrap();
        std::fs::create_dir(authority.ledger().join("old.pem")).unwrap();
        let Ledger { certificates, odd } = authority.issued().unwrap();
        assert_eq!((certificates.len(), odd.len()), (1, 2));
        let revocation = authority.revoke(Part::Agent, &named("a"), now).unwrap();
        assert_eq!(revocation.certificates, certificates);
        assert!(authority.has_revoked(&certificates[0]).unwrap());
    }
}

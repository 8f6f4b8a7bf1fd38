//! A new certificate takes the place of the old one, together with its key: both or none, whatever happens in between.
//!
//! The key waits in a file of its own from before it was asked for. Once the certificate lies beside it, under a name of
//! its own, the rest is two renames, which whoever finds them undone does again.

use std::fs;
use std::io;
use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::{Certificate, TrustError, TrustFiles, files, request};

/// Puts a certificate for the key that waits into the place of the present one.
pub(super) fn put(files: &TrustFiles, der: &CertificateDer<'_>) -> Result<(), TrustError> {
    let path = &files.next_certificate;
    let key = request::key_in(&files.next_key)?;
    if !Certificate::has_key(der, key.public_key_raw()) {
        return Err(TrustError::KeyMismatch { key: files.next_key.clone(), certificate: path.clone() });
    }
    files::write(path, files::pem("CERTIFICATE", der).as_bytes(), 0o644)?;
    finish(files)
}

/// Does what is left of that, if anything is.
pub(super) fn finish(files: &TrustFiles) -> Result<(), TrustError> {
    if files.next_certificate.symlink_metadata().is_err() {
        return Ok(());
    }
    rename(&files.next_key, &files.key)?;
    rename(&files.next_certificate, &files.certificate)
}

/// One that was done already is as good.
fn rename(from: &Path, to: &Path) -> Result<(), TrustError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TrustError::Write { path: to.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Authority, Identity, Part, Request, Trust};
    use super::*;
    use crate::model::{InstanceName, Timestamp};

    #[test]
    fn a_certificate_and_its_key_are_replaced_together_wherever_it_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let named = |text| InstanceName::new(text).unwrap();
        let (now, year) = (Timestamp::now(), Duration::from_secs(365 * 86_400));
        let authority = Authority::create(&directory.path().join("pki"), &named("lab"), now, year).unwrap();
        for steps in 0..=3 {
            let home = directory.path().join(format!("trust-{steps}"));
            let paths = authority.issue(Part::Agent, &named("a"), now, year).unwrap().write(&home).unwrap();
            let open = || Trust::open(paths.clone(), named("lab"), Part::Agent, named("a"), now).unwrap();
            let before = open().credentials().certificate.clone();
            let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
            let request = Request::make(&identity, &request::key_in(&paths.next_key).unwrap()).unwrap();
            let (der, fresh) = authority.grant(&request, now, year).unwrap();
            // As far as it came.
            if steps > 0 {
                files::write(&paths.next_certificate, files::pem("CERTIFICATE", &der).as_bytes(), 0o644).unwrap();
            }
            if steps > 1 {
                rename(&paths.next_key, &paths.key).unwrap();
            }
            if steps > 2 {
                rename(&paths.next_certificate, &paths.certificate).unwrap();
            }
            let want = if steps == 0 { before } else { fresh };
            assert_eq!(open().credentials().certificate, want, "after {steps} steps");
            assert_eq!(paths.next_key.exists(), steps == 0);
        }
    }
}

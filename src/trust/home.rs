//! The place of a new host's certificate, from before it has one: a key that waits, and then everything at once.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::{Certificate, Identity, Request, TrustError, TrustFiles, files, replace, request};
use crate::model::{Endpoint, Timestamp};

/// The directory in which the certificates of this process are, or will be.
#[derive(Debug, Clone)]
pub struct Home {
    trust: PathBuf,
}

/// What an agent that has joined knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    pub identity: Identity,
    pub controller: Endpoint,
}

impl Whereabouts {
    /// The file beside the certificates that says so, in the form of a settings file.
    pub fn file(trust: &Path) -> PathBuf {
        trust.join("agent.toml")
    }

    /// As settings. Names and addresses hold nothing that quotes have to be kept from.
    fn text(&self) -> String {
        let Self { identity: Identity { cluster, name, .. }, controller } = self;
        format!(
            "# Written by `watchpost join`. `watchpost agent` begins with this; its settings file and variables win.\n\
             cluster = \"{cluster}\"\n\n[agent]\nname = \"{name}\"\ncontroller = \"{controller}\"\n"
        )
    }
}

impl Home {
    /// The home in the directory `trust`, which need not exist.
    pub fn at(trust: PathBuf) -> Self {
        Self { trust }
    }

    /// Where the certificates are.
    pub fn trust(&self) -> &Path {
        &self.trust
    }

    /// The certificate that is there, if there is one that is good for this identity.
    pub fn certificate(&self, identity: &Identity, now: Timestamp) -> Option<Certificate> {
        let paths = TrustFiles::in_directory(&self.trust);
        replace::finish(&paths).ok()?;
        let (_, certificate) = files::read_certificate(&paths.certificate).ok()?;
        let is_good = certificate.identity == *identity && certificate.remaining(now).is_some();
        (is_good && files::read_key(&paths.key).is_ok()).then_some(certificate)
    }

    /// Refuses a home in which somebody else lives.
    pub fn check_that_it_is_free_for(&self, identity: &Identity) -> Result<(), TrustError> {
        let paths = TrustFiles::in_directory(&self.trust);
        if !paths.key.exists() {
            return Ok(());
        }
        match files::read_certificate(&paths.certificate) {
            Ok((_, there)) if there.identity == *identity => Ok(()),
            _ => Err(TrustError::Occupied { path: paths.key }),
        }
    }

    /// Asks for a certificate. The key is made at the first time, and stays the same until [`Self::settle`].
    pub fn request(&self, identity: &Identity) -> Result<Request, TrustError> {
        let waiting = self.waiting();
        files::make_directory(&waiting)?;
        Request::make(identity, &request::key_in(&TrustFiles::in_directory(&waiting).key)?)
    }

    /// Puts everything in its place: at once where there was nothing before, and else so that it counts as a whole or not
    /// at all.
    pub fn settle(
        &self,
        ca: &CertificateDer<'_>,
        der: &CertificateDer<'_>,
        whereabouts: &Whereabouts,
    ) -> Result<Certificate, TrustError> {
        let waiting = self.waiting();
        let prepared = TrustFiles::in_directory(&waiting);
        let damaged = |why| TrustError::Damaged { path: prepared.certificate.clone(), why: format!("it {why}") };
        let certificate = Certificate::read(der).map_err(damaged)?;
        let key = request::key_in(&prepared.key)?;
        if certificate.identity != whereabouts.identity || !Certificate::has_key(der, key.public_key_raw()) {
            return Err(TrustError::KeyMismatch { key: prepared.key, certificate: prepared.certificate });
        }
        files::write(&prepared.ca, files::pem("CERTIFICATE", ca).as_bytes(), 0o644)?;
        files::write(&prepared.certificate, files::pem("CERTIFICATE", der).as_bytes(), 0o644)?;
        files::write(&Whereabouts::file(&waiting), whereabouts.text().as_bytes(), 0o644)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TrustError::Write { path, source }
        };
        // Over a directory that is empty as well.
        if fs::rename(&waiting, &self.trust).is_ok() {
            return Ok(certificate);
        }
        let paths = TrustFiles::in_directory(&self.trust);
        files::copy(&prepared.ca, &paths.ca)?;
        files::copy(&Whereabouts::file(&waiting), &Whereabouts::file(&self.trust))?;
        fs::rename(&prepared.key, &paths.next_key).map_err(failed(&paths.next_key))?;
        replace::put(&paths, der)?;
        fs::remove_dir_all(&waiting).map_err(failed(&waiting))?;
        Ok(certificate)
    }

    /// Beside it, so that a host that never got in has nothing that looks like certificates.
    fn waiting(&self) -> PathBuf {
        let mut path = self.trust.as_os_str().to_owned();
        path.push(".joining");
        path.into()
    }
}

//! A wish for a certificate, signed by the key that it is to be for. The key itself never leaves its machine.

use std::path::Path;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKey,
    PublicKeyData, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;

use super::digest::{sha256, sha256_hex};
use super::{Identity, Part, TrustError, files};

/// The longest request, in bytes.
pub const LONGEST_REQUEST: usize = 2 << 10;

/// A request that is what it should be: its signature is that of its key. Whether it may be granted is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    der: Vec<u8>,
    pub identity: Identity,
    public: PublicKey,
}

impl Request {
    /// Asks for a certificate of this identity for this key.
    pub(super) fn make(identity: &Identity, key: &KeyPair) -> Result<Self, TrustError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        let made = params.serialize_request(key)?;
        Self::read(made.der()).map_err(|_| rcgen::Error::CouldNotParseCertificationRequest.into())
    }

    /// Takes it apart; the error says what is wrong, in words that follow "it".
    pub fn read(der: &[u8]) -> Result<Self, String> {
        if der.len() > LONGEST_REQUEST {
            return Err(format!("is longer than {LONGEST_REQUEST} bytes"));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|_| "is no request for a certificate, or not signed by its own key".to_owned())?;
        if *parsed.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err("is for a key of another kind than those of watchpost".into());
        }
        match &parsed.params.subject_alt_names[..] {
            [SanType::URI(uri)] => {
                let identity: Identity =
                    uri.as_str().parse().map_err(|_| "does not say for which part of a cluster".to_owned())?;
                if identity.part == Part::Authority {
                    return Err("asks to be the authority itself".into());
                }
                Ok(Self { der: der.to_owned(), identity, public: parsed.public_key })
            }
            _ => Err("does not say for which part of a cluster".into()),
        }
    }

    /// As it travels.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key that it is for, in its raw form.
    pub(super) fn public_key(&self) -> &[u8] {
        self.public.der_bytes()
    }

    /// The same for whoever signs.
    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Tells its key from every other, in hexadecimal digits.
    pub fn key_id(&self) -> String {
        sha256_hex(self.public_key())
    }

    /// The beginning of that, for people to compare.
    pub fn short_key_id(&self) -> String {
        super::digest::hex(&sha256(self.public_key())[..8])
    }

    /// The request in a file, in PEM form.
    pub(super) fn load(path: &Path) -> Result<Self, TrustError> {
        let (text, _) = files::read(path, 2 * LONGEST_REQUEST as u64)?;
        let not_pem = |_| TrustError::NotPem { path: path.to_owned(), what: "request for a certificate" };
        let der = CertificateSigningRequestDer::from_pem_slice(&text).map_err(not_pem)?;
        Self::read(&der).map_err(|why| TrustError::Damaged { path: path.to_owned(), why: format!("it {why}") })
    }

    /// In PEM form.
    pub(super) fn pem(&self) -> String {
        files::pem("CERTIFICATE REQUEST", &self.der)
    }
}

/// The key in this file, or a new one that is now there: whoever asks again asks for the same.
pub(super) fn key_in(path: &Path) -> Result<KeyPair, TrustError> {
    if path.symlink_metadata().is_ok()
        && let Ok((_, text)) = files::read_key(path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate()?;
    files::write(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceName;

    fn request() -> Request {
        let named = |text| InstanceName::new(text).unwrap();
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
        Request::make(&identity, &KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_request_reads_back_and_no_change_makes_it_ask_for_something_else() {
        let request = request();
        assert_eq!(Request::read(request.der()), Ok(request.clone()));
        for at in 0..request.der().len() {
            let mut changed = request.der().to_owned();
            changed[at] ^= 1;
            // Beside the signature there are bits that say nothing.
            if let Ok(changed) = Request::read(&changed) {
                assert_eq!(
                    (changed.identity, changed.public),
                    (request.identity.clone(), request.public.clone()),
                    "at {at}"
                );
            }
            assert!(Request::read(&request.der()[..at]).is_err(), "cut at {at}");
        }
        assert!(Request::read(&[0x30; LONGEST_REQUEST + 1]).unwrap_err().contains("is longer"));
    }

    #[test]
    fn a_key_stays_the_same_until_somebody_takes_it_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("next-key.pem");
        let first = key_in(&path).unwrap();
        assert_eq!(key_in(&path).unwrap().public_key_raw(), first.public_key_raw());
        std::fs::write(&path, "half a key").unwrap();
        let second = key_in(&path).unwrap();
        assert_ne!(second.public_key_raw(), first.public_key_raw());
        assert!(files::read_key(&path).is_ok(), "for its owner alone");
    }
}

//! Where parts of the cluster apply for certificates: decides who gets one. Works on files, and waits for the disk.
//!
//! Where the authority's key is, whoever may have a certificate gets it at once. Where it is not, the request is kept in
//! `requests`, until somebody has signed it where the key is and has put the certificate beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::registry::remove;
use super::{Authority, Certificate, Identity, Invitation, Part, Registry, Request, Secret, Trust, TrustError, files};
use crate::model::{InstanceName, Timestamp};

/// How many requests may wait to be signed.
const MOST_REQUESTS: usize = 1024;

/// See the module.
pub struct Office {
    directory: PathBuf,
    trust: Arc<Trust>,
}

/// What comes of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Here it is.
    Granted(CertificateDer<'static>),
    /// It may have one, and has to wait until somebody has signed its request.
    Waiting,
}

/// Why nobody gets anything, in words for both ends. Whoever cannot prove that he was invited learns nothing else.
#[derive(Debug, thiserror::Error)]
pub enum Denial {
    #[error("this token is of cluster `{theirs}`, and this is the controller of cluster `{ours}`")]
    OtherCluster { theirs: String, ours: InstanceName },
    #[error(
        "this token is not known here: it was withdrawn, or a later one of `{0}` took its place, or it was made up"
    )]
    Unknown(InstanceName),
    #[error("this token expired at {at}: make a new one by `watchpost invite {name}`")]
    Expired { name: InstanceName, at: Timestamp },
    #[error(
        "this token was used already, with another key: if that was not you, run `watchpost pki revoke agent {0}`; for a \
         new one, `watchpost invite {0}`"
    )]
    Used(InstanceName),
    #[error("the request cannot be used: it {0}")]
    BadRequest(String),
    #[error("the request is for {asked}, and whoever asks is {asker}")]
    NotItsOwn { asked: Identity, asker: Identity },
    #[error("the certificate of whoever asks was revoked")]
    Revoked,
    #[error("{MOST_REQUESTS} requests wait to be signed already: sign them by `watchpost pki sign --all`")]
    Full,
    #[error("the controller cannot decide on certificates at the moment: its log says why")]
    Panicked,
    /// Our own trouble, whose details are for the log here.
    #[error("the controller cannot issue certificates at the moment: its log says why")]
    Trouble(#[source] TrustError),
}

impl From<TrustError> for Denial {
    fn from(error: TrustError) -> Self {
        Self::Trouble(error)
    }
}

impl Denial {
    /// Whether somebody may be guessing.
    pub fn is_a_guess(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::OtherCluster { .. })
    }
}

impl Office {
    /// An office that keeps its registry in `directory`, for the controller with these certificates.
    pub fn new(directory: PathBuf, trust: Arc<Trust>) -> Self {
        Self { directory, trust }
    }

    /// Where requests wait to be signed.
    pub fn requests(&self) -> PathBuf {
        requests(&self.directory)
    }

    /// Somebody without a certificate says that it was invited.
    ///
    /// The invitation is bound to the key of the request before anything is issued: if the answer is lost, the same key
    /// may ask again until the invitation expires, and no other.
    pub fn join(
        &self,
        cluster: &str,
        name: &InstanceName,
        secret: &Secret,
        request: &[u8],
        now: Timestamp,
    ) -> Result<Decision, Denial> {
        let ours = &self.trust.identity().cluster;
        if cluster != ours.as_str() {
            return Err(Denial::OtherCluster { theirs: crate::hint::shown(cluster), ours: ours.clone() });
        }
        let registry = self.registry()?;
        let _alone = files::lock(&self.directory)?;
        let proved = registry.invitation(name)?.filter(|invitation| invitation.is_proved_by(secret));
        let mut invitation = proved.ok_or_else(|| Denial::Unknown(name.clone()))?;
        if invitation.until() <= now {
            return Err(Denial::Expired { name: name.clone(), at: invitation.until() });
        }
        let request = Request::read(request).map_err(Denial::BadRequest)?;
        let asker = Identity { cluster: ours.clone(), part: Part::Agent, name: name.clone() };
        if request.identity != asker {
            return Err(Denial::NotItsOwn { asked: request.identity, asker });
        }
        match &invitation.key {
            Some(key) if *key != request.key_id() => return Err(Denial::Used(name.clone())),
            Some(_) => {}
            None => {
                invitation.key = Some(request.key_id());
                registry.keep_invitation(&invitation)?;
            }
        }
        self.grant_or_keep(&registry, &request, invitation.lifetime(), now)
    }

    /// The bearer of this certificate, who has just proved to be that, wants the next one.
    pub fn renew(&self, bearer: &Certificate, request: &[u8], now: Timestamp) -> Result<Decision, Denial> {
        let request = Request::read(request).map_err(Denial::BadRequest)?;
        if request.identity != bearer.identity {
            return Err(Denial::NotItsOwn { asked: request.identity, asker: bearer.identity.clone() });
        }
        let registry = self.registry()?;
        let _alone = files::lock(&self.directory)?;
        if registry.has_revoked(bearer)? || self.trust.has_revoked(bearer) {
            return Err(Denial::Revoked);
        }
        self.grant_or_keep(&registry, &request, bearer.lifetime(), now)
    }

    fn registry(&self) -> Result<Registry, TrustError> {
        let registry = Registry::open_beside(&self.directory, self.trust.files())?;
        let ours = &self.trust.identity().cluster;
        let is_ours = registry.certificate().identity.cluster == *ours
            && files::read_certificate(&self.trust.files().ca).is_ok_and(|(ca, _)| ca == *registry.ca());
        if is_ours {
            return Ok(registry);
        }
        let (directory, found) = (self.directory.clone(), registry.certificate().identity.cluster.clone());
        Err(TrustError::NotOurAuthority { directory, found, cluster: ours.clone() })
    }

    /// The caller holds the lock.
    fn grant_or_keep(
        &self,
        registry: &Registry,
        request: &Request,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Decision, Denial> {
        if let Some(granted) = registry.granted(request, now)? {
            return Ok(Decision::Granted(granted));
        }
        if registry.has_key() {
            let (granted, certificate) = Authority::load(&self.directory)?.grant(request, now, lifetime)?;
            registry.withdraw_request(certificate.identity.part, &certificate.identity.name)?;
            return Ok(Decision::Granted(granted));
        }
        if let Some(signed) = self.signed(registry, request)? {
            registry.record(&signed)?;
            registry.withdraw_request(request.identity.part, &request.identity.name)?;
            return Ok(Decision::Granted(signed));
        }
        registry.keep_request(request)?;
        Ok(Decision::Waiting)
    }

    /// The certificate that somebody has put beside this request, if it is one of our authority and for this key.
    fn signed(&self, registry: &Registry, request: &Request) -> Result<Option<CertificateDer<'static>>, TrustError> {
        let path = registry.request_file(&request.identity, "pem");
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let (der, certificate) = match files::read_certificate(&path) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!("what should be a signed certificate is none: {error}");
                return Ok(None);
            }
        };
        let is_it = certificate.identity == request.identity && Certificate::has_key(&der, request.public_key());
        let first = UnixTime::since_unix_epoch(Duration::from_micros(certificate.not_before.0));
        if is_it && !registry.has_revoked(&certificate)? && self.trust.vouches_for(&der, first) {
            return Ok(Some(der));
        }
        tracing::warn!("{} is not for the request beside it, or not of our authority", path.display());
        Ok(None)
    }
}

/// Where requests wait to be signed, in an authority's directory.
pub fn requests(directory: &Path) -> PathBuf {
    directory.join("requests")
}

impl Registry {
    /// Keeps a request until it is signed, in the place of any former one of that part.
    fn keep_request(&self, request: &Request) -> Result<(), Denial> {
        let (directory, path) = (requests(self.directory()), self.request_file(&request.identity, "csr"));
        if Request::load(&path).is_ok_and(|kept| kept == *request) {
            return Ok(());
        }
        files::make_directory(&directory)?;
        if path.symlink_metadata().is_err() && files::list(&directory, "csr")?.len() >= MOST_REQUESTS {
            return Err(Denial::Full);
        }
        Ok(files::write(&path, request.pem().as_bytes(), 0o644)?)
    }

    /// Whether a request of that part waited, which does so no more.
    pub(super) fn withdraw_request(&self, part: Part, name: &InstanceName) -> Result<bool, TrustError> {
        let identity = Identity { cluster: self.certificate().identity.cluster.clone(), part, name: name.clone() };
        let waited = remove(&self.request_file(&identity, "csr"))?;
        remove(&self.request_file(&identity, "pem"))?;
        Ok(waited)
    }

    fn request_file(&self, identity: &Identity, ending: &str) -> PathBuf {
        requests(self.directory()).join(format!("{}-{}.{ending}", identity.part, identity.name))
    }
}

/// A request that waits, or waited, to be signed.
pub struct Waiting {
    path: PathBuf,
    pub request: Request,
}

impl Waiting {
    /// Those in this directory, sorted by part and name; and what cannot be read.
    pub fn in_directory(directory: &Path) -> Result<(Vec<Self>, Vec<TrustError>), TrustError> {
        let (mut all, mut odd) = (Vec::new(), Vec::new());
        for path in files::list(directory, "csr")? {
            match Request::load(&path) {
                Ok(request) => all.push(Self { path, request }),
                Err(error) => odd.push(error),
            }
        }
        Ok((all, odd))
    }

    /// Whether the certificate for it is beside it already.
    pub fn is_signed(&self) -> bool {
        let signed = files::read_certificate(&self.path.with_extension("pem"));
        signed.is_ok_and(|(der, _)| Certificate::has_key(&der, self.request.public_key()))
    }

    /// Signs it, and puts the certificate beside it.
    pub fn sign(&self, authority: &Authority, now: Timestamp, lifetime: Duration) -> Result<Certificate, TrustError> {
        let (ours, theirs) = (&authority.certificate().identity.cluster, &self.request.identity.cluster);
        if ours != theirs {
            let why = format!("it is a request of cluster `{theirs}`, and this is the authority of `{ours}`");
            return Err(TrustError::Damaged { path: self.path.clone(), why });
        }
        let _alone = files::lock(authority.directory())?;
        let (der, certificate) = authority.grant(&self.request, now, lifetime)?;
        let text = files::pem("CERTIFICATE", &der);
        files::write(&self.path.with_extension("pem"), text.as_bytes(), 0o644)?;
        Ok(certificate)
    }
}

/// Opens an invitation for an agent, and tells the secret that proves it.
pub fn invite(
    registry: &Registry,
    name: &InstanceName,
    until: Timestamp,
    lifetime: Duration,
    now: Timestamp,
) -> Result<Secret, TrustError> {
    let secret = Secret::random()?;
    registry.invite(&Invitation::new(name, &secret, until, lifetime), now)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::super::{TrustFiles, invite};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Place {
        directory: tempfile::TempDir,
        office: Office,
        now: Timestamp,
    }

    fn named(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    fn request(name: &str, key: &KeyPair) -> Vec<u8> {
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named(name) };
        Request::make(&identity, key).unwrap().der().to_owned()
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    impl Place {
        /// A controller of the cluster `lab`, whose authority is in `pki`.
        fn with(pki: &str) -> Self {
            let (directory, now) = (tempfile::tempdir().unwrap(), Timestamp::now());
            let authority = Authority::create(&directory.path().join(pki), &named("lab"), now, 24 * HOUR).unwrap();
            let files = authority.issue(Part::Controller, &named("control"), now, HOUR).unwrap();
            let files: TrustFiles = files.write(&directory.path().join("trust")).unwrap();
            let trust = Trust::open(files, named("lab"), Part::Controller, named("control"), now).unwrap();
            let office = Office::new(directory.path().join("pki"), Arc::new(trust));
            Self { directory, office, now }
        }

        fn invite(&self, name: &str) -> Secret {
            let until = Timestamp(self.now.0 + HOUR.as_micros() as u64);
            invite(&self.office.registry().unwrap(), &named(name), until, HOUR, self.now).unwrap()
        }

        fn join(&self, name: &str, secret: &Secret, key: &KeyPair) -> Result<Decision, Denial> {
            self.office.join("lab", &named(name), secret, &request(name, key), self.now)
        }
    }

    fn granted(decision: Result<Decision, Denial>) -> CertificateDer<'static> {
        match decision.unwrap() {
            Decision::Granted(certificate) => certificate,
            Decision::Waiting => panic!("it was kept to be signed"),
        }
    }

    #[test]
    fn an_invitation_is_for_one_key_which_may_ask_again() {
        let place = Place::with("pki");
        let (secret, own) = (place.invite("a"), key());
        let first = granted(place.join("a", &secret, &own));
        assert_eq!(
            granted(place.join("a", &secret, &own)),
            first,
            "the answer was lost, and there is no second certificate"
        );
        assert!(matches!(place.join("a", &secret, &key()), Err(Denial::Used(_))));
        let certificate = Certificate::read(&first).unwrap();
        assert!(Certificate::has_key(&first, own.public_key_raw()));
        assert!(certificate.remaining(place.now).unwrap() <= HOUR);
        let later = Timestamp(place.now.0 + 2 * HOUR.as_micros() as u64);
        let late = place.office.join("lab", &named("a"), &secret, &request("a", &own), later);
        assert!(matches!(late, Err(Denial::Expired { .. })));
    }

    #[test]
    fn whoever_was_not_invited_or_asks_for_somebody_else_gets_nothing() {
        let place = Place::with("pki");
        let secret = place.invite("a");
        assert!(matches!(place.join("b", &secret, &key()), Err(Denial::Unknown(_))));
        assert!(matches!(place.join("a", &Secret::random().unwrap(), &key()), Err(Denial::Unknown(_))));
        let join = |cluster, request: &[u8]| place.office.join(cluster, &named("a"), &secret, request, place.now);
        assert!(matches!(join("prod", &request("a", &key())), Err(Denial::OtherCluster { .. })));
        assert!(matches!(join("lab", &request("b", &key())), Err(Denial::NotItsOwn { .. })));
        assert!(matches!(join("lab", b"nonsense"), Err(Denial::BadRequest(_))));
        granted(place.join("a", &secret, &key())); // none of that has spent it
        let registry = place.office.registry().unwrap();
        assert!(registry.revoke(Part::Agent, &named("a"), place.now).unwrap().withdrawn);
        assert!(matches!(place.join("a", &secret, &key()), Err(Denial::Unknown(_))));
    }

    #[test]
    fn a_certificate_is_renewed_for_its_bearer_alone_and_not_once_it_was_revoked() {
        let place = Place::with("pki");
        let bearer = Certificate::read(&granted(place.join("a", &place.invite("a"), &key()))).unwrap();
        let renew = |name| place.office.renew(&bearer, &request(name, &key()), place.now);
        assert!(matches!(renew("b"), Err(Denial::NotItsOwn { .. })));
        let next = Certificate::read(&granted(renew("a"))).unwrap();
        assert_eq!(next.identity, bearer.identity);
        assert!(next.serial != bearer.serial && next.lifetime().abs_diff(bearer.lifetime()) < Duration::from_secs(2));
        let revoked = place.office.registry().unwrap().revoke(Part::Agent, &named("a"), place.now).unwrap();
        assert_eq!(revoked.certificates.len(), 2);
        assert!(matches!(renew("a"), Err(Denial::Revoked)));
    }

    #[test]
    fn the_host_names_of_a_controller_are_in_its_next_certificate_too() {
        let place = Place::with("pki");
        let authority = Authority::load(&place.directory.path().join("pki")).unwrap();
        let hosts = ["control.example", "192.0.2.10", "2001:db8::1"].map(str::to_owned);
        let later = Timestamp(place.now.0 + 1_000_000);
        let issued = authority.issue_for(Part::Controller, &named("control"), &hosts, later, HOUR).unwrap();
        let own = key();
        let request = Request::make(&issued.certificate.identity, &own).unwrap();
        let next = granted(place.office.renew(&issued.certificate, request.der(), later));
        assert_eq!(Certificate::read(&next).unwrap().hosts, hosts);
    }

    #[test]
    fn a_request_waits_where_the_key_is_elsewhere_and_only_what_belongs_to_it_is_picked_up() {
        let place = Place::with("safe");
        let (secret, own) = (place.invite("a"), key());
        assert_eq!(place.join("a", &secret, &own).unwrap(), Decision::Waiting);
        let authority = Authority::load(&place.directory.path().join("safe")).unwrap();
        let (waiting, odd) = Waiting::in_directory(&place.office.requests()).unwrap();
        assert!(waiting.len() == 1 && odd.is_empty() && !waiting[0].is_signed());

        let beside = place.office.requests().join("agent-a.pem");
        let strangers = authority.issue(Part::Agent, &named("a"), place.now, HOUR).unwrap();
        for text in ["no certificate", &*strangers.certificate_pem] {
            std::fs::write(&beside, text).unwrap();
            assert_eq!(place.join("a", &secret, &own).unwrap(), Decision::Waiting, "{text}");
        }
        let signed = waiting[0].sign(&authority, place.now, HOUR).unwrap();
        assert!(Waiting::in_directory(&place.office.requests()).unwrap().0[0].is_signed());
        assert_eq!(Certificate::read(&granted(place.join("a", &secret, &own))).unwrap(), signed);
        assert!(Waiting::in_directory(&place.office.requests()).unwrap().0.is_empty());
        granted(place.join("a", &secret, &own));
    }

    #[test]
    fn only_so_many_requests_wait() {
        let place = Place::with("safe");
        let own = key();
        let registry = place.office.registry().unwrap();
        std::fs::create_dir(place.office.requests()).unwrap();
        for number in 0..MOST_REQUESTS {
            std::fs::write(place.office.requests().join(format!("agent-n{number}.csr")), "").unwrap();
        }
        let identity = |name| Identity { cluster: named("lab"), part: Part::Agent, name: named(name) };
        let keep = |name| registry.keep_request(&Request::make(&identity(name), &own).unwrap());
        assert!(matches!(keep("a"), Err(Denial::Full)));
        keep("n7").unwrap(); // in the place of its former one
    }
}

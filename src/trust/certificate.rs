//! What stands in a certificate, as far as it matters here.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Identity;
use crate::model::Timestamp;

/// Clocks of two machines may differ by this much.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// How long before it is made a certificate begins to count, for the sake of clocks that differ: an hour, and less for
/// one that is good for less than ten.
pub(super) fn head_start(lifetime: Duration) -> Duration {
    SKEW.min(lifetime / 10)
}

/// A certificate taken apart. Whether anybody vouches for it is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub identity: Identity,
    /// Addresses and host names that it is good for as well, for programs that look at nothing else.
    pub hosts: Vec<String>,
    /// In hexadecimal digits; no two certificates of an authority have the same.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Certificate {
    /// Takes it apart; the error says what is missing, in words that follow "it".
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| "is no X.509 certificate".to_owned())?;
        if !rest.is_empty() {
            return Err("goes on behind its end".into());
        }
        let names = parsed.subject_alternative_name().map_err(|_| "names its bearer in several ways".to_owned())?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let hosts = names.iter().filter_map(host).collect();
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.parse().ok(),
            _ => None,
        });
        let [identity] = <[Identity; 1]>::try_from(uris.collect::<Vec<_>>())
            .map_err(|_| "names no part of a watchpost cluster: it was not made by `watchpost pki`".to_owned())?;
        let at = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            Timestamp(u64::try_from(Duration::from_secs(seconds).as_micros()).unwrap_or(u64::MAX))
        };
        let validity = parsed.validity();
        let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { identity, hosts, serial, not_before: at(validity.not_before), not_after: at(validity.not_after) })
    }

    /// Whether it was made for this public key, as both have it in their raw form.
    pub(super) fn has_key(der: &CertificateDer<'_>, public: &[u8]) -> bool {
        X509Certificate::from_der(der).is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *public)
    }

    /// How long it was to be good for when it was made.
    pub fn lifetime(&self) -> Duration {
        let whole = Duration::from_micros(self.not_after.0.saturating_sub(self.not_before.0));
        let short = whole * 10 / 11;
        if short / 10 > SKEW { whole.saturating_sub(SKEW) } else { short }
    }

    /// When it becomes due, so that it should be renewed.
    pub fn due_at(&self) -> Timestamp {
        Timestamp(self.not_after.0.saturating_sub(self.not_after.0.saturating_sub(self.not_before.0) / 3))
    }

    /// How long it is still good for, if it is.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        self.not_after.0.checked_sub(now.0).map(Duration::from_micros)
    }

    /// Whether so little of its time is left, a third, that it should be renewed.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now > self.due_at()
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::IPAddress(&[a, b, c, d]) => Some(IpAddr::from([a, b, c, d]).to_string()),
        GeneralName::IPAddress(bytes) => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;
    use crate::model::InstanceName;

    #[test]
    fn a_certificate_is_due_in_the_last_third_of_its_time() {
        let named = |text| InstanceName::new(text).unwrap();
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
        let certificate = Certificate {
            identity,
            hosts: Vec::new(),
            serial: "01".into(),
            not_before: Timestamp(1000),
            not_after: Timestamp(4000),
        };
        assert!(!certificate.is_due(Timestamp(2999)) && certificate.is_due(Timestamp(3001)));
        assert!(certificate.is_due(Timestamp(5000)), "expired");
        assert_eq!(certificate.remaining(Timestamp(3999)), Some(Duration::from_micros(1)));
        assert_eq!(certificate.remaining(Timestamp(4001)), None);
    }

    #[test]
    fn its_lifetime_is_what_it_was_made_for_however_short() {
        let named = |text| InstanceName::new(text).unwrap();
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
        for lifetime in [10, 3600, 9 * 3600, 11 * 3600, 365 * 86_400].map(Duration::from_secs) {
            let now = Duration::from_secs(1_700_000_000);
            let at = |time: Duration| Timestamp(time.as_micros() as u64);
            let (not_before, not_after) = (at(now - head_start(lifetime)), at(now + lifetime));
            let certificate = Certificate {
                identity: identity.clone(),
                hosts: Vec::new(),
                serial: "01".into(),
                not_before,
                not_after,
            };
            let error = certificate.lifetime().abs_diff(lifetime);
            assert!(error < Duration::from_millis(1), "{lifetime:?}: {:?}", certificate.lifetime());
            assert!(!certificate.is_due(at(now)), "{lifetime:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_said_to_be_none() {
        for bytes in [&b""[..], b"\x30\x03\x02\x01\x01", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]] {
            let der = CertificateDer::from(bytes);
            assert_eq!(Certificate::read(&der), Err("is no X.509 certificate".into()));
        }
    }
}

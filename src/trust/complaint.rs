//! What TLS found wrong with a peer or its bytes, in words for whoever has to mend it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::NotTheAuthority;

/// The words for an error of a TLS stream, about "it", the peer; `None` if it was something else than TLS.
pub fn complaint(error: &io::Error) -> Option<String> {
    use AlertDescription as A;
    use CertificateError as C;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "its certificate is of another authority than ours".into()
        }
        Error::InvalidCertificate(C::Revoked) => "its certificate was revoked".into(),
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "its certificate has expired".into(),
        Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: compare the clocks".into()
        }
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "its certificate is for other host names than the one that was asked for".into()
        }
        Error::InvalidCertificate(C::Other(other)) if other.0.is::<NotTheAuthority>() => NotTheAuthority.to_string(),
        Error::InvalidCertificate(C::Other(other)) => format!("its certificate does not fit: {other}"),
        Error::AlertReceived(alert) if is_about_us(*alert) => {
            format!("it does not accept our certificate ({alert:?})")
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(A::ProtocolVersion | A::HandshakeFailure) => {
            format!("it speaks another TLS than this end ({error})")
        }
        error => error.to_string(),
    })
}

/// Whether the peer said that our certificate, or the want of one, is what it does not accept.
pub fn refuses_us(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(error, Some(Error::AlertReceived(alert)) if is_about_us(*alert))
}

fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::UnknownCA
            | A::BadCertificate
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::CertificateRequired
            | A::CertificateRevoked
            | A::DecryptError
            | A::AccessDenied
    )
}

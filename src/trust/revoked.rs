//! Certificates that were taken back: a list of serial numbers, one a line, each with a remark for people.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Certificate, TrustError, files};

/// The list, by serial number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revoked(BTreeSet<String>);

impl Revoked {
    /// Reads the list; none is as good as an empty one. A line that is no part of a list makes all of it suspect: half a
    /// list would let in whom the other half keeps out.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let text = match files::read(path) {
            Ok((bytes, _)) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let serial = |(number, line): (usize, &str)| {
            let serial =
                line.split_whitespace().next().filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let why = || format!("line {number} does not begin with a serial number; take the list of the authority");
            serial.map(str::to_ascii_lowercase).ok_or_else(|| TrustError::Damaged { path: path.to_owned(), why: why() })
        };
        lines.map(serial).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the certificate is on it.
    pub fn holds(&self, certificate: &Certificate) -> bool {
        self.0.contains(&certificate.serial)
    }

    /// Adds certificates to the list in a file.
    pub fn add(path: &Path, certificates: &[Certificate]) -> Result<(), TrustError> {
        let known = Self::read(path)?;
        let mut text = match files::read(path) {
            Ok((bytes, _)) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => {
                "# Certificates that were taken back. Links of theirs end as soon as this list is in `trust`.\n".into()
            }
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        for certificate in certificates.iter().filter(|certificate| !known.holds(certificate)) {
            let identity = &certificate.identity;
            text += &format!("{} {} {}\n", certificate.serial, identity.part, identity.name);
        }
        files::write(path, text.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Part};
    use super::*;
    use crate::model::{InstanceName, Timestamp};

    fn certificate(serial: &str) -> Certificate {
        let named = |text| InstanceName::new(text).unwrap();
        let identity = Identity { cluster: named("lab"), part: Part::Agent, name: named("a") };
        Certificate { identity, serial: serial.into(), not_before: Timestamp(0), not_after: Timestamp(1) }
    }

    #[test]
    fn what_was_added_is_held_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        assert_eq!(Revoked::read(&path).unwrap(), Revoked::default());
        let (first, second) = (certificate("0a"), certificate("0b"));
        Revoked::add(&path, std::slice::from_ref(&first)).unwrap();
        Revoked::add(&path, &[first.clone(), second.clone()]).unwrap();
        let revoked = Revoked::read(&path).unwrap();
        assert!(revoked.holds(&first) && revoked.holds(&second) && !revoked.holds(&certificate("0c")));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3, "each stands there once");
    }

    #[test]
    fn a_line_that_is_no_serial_number_makes_the_list_useless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        std::fs::write(&path, "# a remark\n\n0A agent a\nagent b\n").unwrap();
        let error = Revoked::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 4 does not begin with a serial number"), "{error}");
    }
}

//! Certificates that were taken back: a list of serial numbers, one a line, each with a remark for people. The last line
//! says how many there are and has a CRC-32 of all lines before it: a list that was cut off anywhere is known as such.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::{error, info};

use super::files::{LONGEST_LIST, Stamp};
use super::{Certificate, TrustError, files};

const HEADER: &str = "# Certificates that were taken back. Links of theirs end as soon as this list is in `trust`.\n";

/// The list, by serial number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revoked(BTreeSet<String>);

impl Revoked {
    /// Reads the list; none is as good as an empty one.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        text(path)?.map_or_else(|| Ok(Self::default()), |text| Self::parse(path, &text))
    }

    /// A line that is no part of a list makes all of it suspect: half a list would let in whom the other half keeps out.
    fn parse(path: &Path, text: &str) -> Result<Self, TrustError> {
        let body = Self::body(text).ok_or_else(|| {
            let why = "it breaks off, or was changed by hand; take the list of the authority".into();
            TrustError::Damaged { path: path.to_owned(), why }
        })?;
        let lines = body.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let serial = |(number, line): (usize, &str)| {
            let serial =
                line.split_whitespace().next().filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let why = || format!("line {number} does not begin with a serial number; take the list of the authority");
            serial.map(str::to_ascii_lowercase).ok_or_else(|| TrustError::Damaged { path: path.to_owned(), why: why() })
        };
        lines.map(serial).collect::<Result<_, _>>().map(Self)
    }

    /// The lines before the last one, if that fits to them.
    fn body(text: &str) -> Option<&str> {
        let last = text.strip_suffix('\n')?.rfind('\n').map_or(0, |end| end + 1);
        let (body, end) = text.split_at(last);
        (end == closing(body)).then_some(body)
    }

    /// Whether the certificate is on it.
    pub fn holds(&self, certificate: &Certificate) -> bool {
        self.0.contains(&certificate.serial)
    }

    /// Adds certificates to the list in a file.
    pub fn add(path: &Path, certificates: &[Certificate]) -> Result<(), TrustError> {
        let (known, mut body) = match text(path)? {
            Some(text) => (Self::parse(path, &text)?, Self::body(&text).unwrap_or_default().to_owned()),
            None => (Self::default(), HEADER.to_owned()),
        };
        for certificate in certificates.iter().filter(|certificate| !known.holds(certificate)) {
            let identity = &certificate.identity;
            body += &format!("{} {} {}\n", certificate.serial, identity.part, identity.name);
        }
        Self::write(path, &body)
    }

    /// Puts what is on the list `from` on the list `to`. What else is there stays: it may be of another directory of the
    /// same authority. A list that is damaged is written anew.
    pub fn publish(from: &Path, to: &Path) -> Result<(), TrustError> {
        let ours = files::read(from, LONGEST_LIST)?.0;
        let ours = String::from_utf8_lossy(&ours).into_owned();
        let known = Self::parse(from, &ours)?;
        let mut body = Self::body(&ours).unwrap_or_default().to_owned();
        let theirs = text(to).ok().flatten().unwrap_or_default();
        let is_new = |line: &&str| {
            let serial = line.split_whitespace().next().filter(|word| !word.starts_with('#'));
            serial.is_some_and(|serial| !known.0.contains(&serial.to_ascii_lowercase()))
        };
        for line in Self::body(&theirs).unwrap_or_default().lines().filter(is_new) {
            body += line;
            body.push('\n');
        }
        Self::write(to, &body)
    }

    fn write(path: &Path, body: &str) -> Result<(), TrustError> {
        files::write(path, format!("{body}{}", closing(body)).as_bytes(), 0o644)
    }
}

/// The last line of a list that consists of these lines.
fn closing(body: &str) -> String {
    let count = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    format!("# end of the list: {count} certificates, {:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// The text of a list, if there is one.
fn text(path: &Path) -> Result<Option<String>, TrustError> {
    match files::read(path, LONGEST_LIST) {
        Ok((bytes, _)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The list that a process heeds, whatever becomes of its other files: read again whenever it changes. Nobody is let in
/// again because it was lost, so the last one that could be read stays in force.
#[derive(Debug)]
pub(super) struct InForce {
    path: PathBuf,
    current: Mutex<(Option<Stamp>, Revoked)>,
}

impl InForce {
    /// No list, which never becomes one.
    pub fn none() -> Self {
        Self { path: PathBuf::new(), current: Mutex::default() }
    }

    /// The list in this file, which need not exist.
    pub fn open(path: &Path) -> Result<Self, TrustError> {
        let stamp = Stamp::of(path);
        Ok(Self { path: path.to_owned(), current: Mutex::new((stamp, Revoked::read(path)?)) })
    }

    /// Reads it again if it changed. Of a list that is lost or damaged the log hears once.
    pub fn refresh(&self) {
        let mut current = self.lock();
        let stamp = Stamp::of(&self.path);
        if stamp == current.0 {
            return;
        }
        current.0 = stamp;
        let path = self.path.display();
        match text(&self.path).and_then(|text| text.map(|text| Revoked::parse(&self.path, &text)).transpose()) {
            Ok(Some(fresh)) => {
                info!(certificates = fresh.0.len(), "the list of certificates that were taken back was read again");
                current.1 = fresh;
            }
            Ok(None) => error!("{path} is gone; what it took back stays so: put the authority's list there again"),
            Err(error) => error!("what {path} took back before stays so, and nothing else: {error}"),
        }
    }

    /// Whether the certificate is on it, as it was last read.
    pub fn holds(&self, certificate: &Certificate) -> bool {
        self.lock().1.holds(certificate)
    }

    /// What is in there is whole, whoever panicked.
    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<Stamp>, Revoked)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
        Certificate {
            identity,
            hosts: Vec::new(),
            serial: serial.into(),
            not_before: Timestamp(0),
            not_after: Timestamp(1),
        }
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
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4, "each stands there once");
    }

    #[test]
    fn a_list_that_breaks_off_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        Revoked::add(&path, &[certificate("0a"), certificate("0b")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Revoked::read(&path).unwrap_err().to_string();
            assert!(error.contains("it breaks off"), "{length}: {error}");
        }
    }

    #[test]
    fn a_list_that_is_published_takes_nobody_off_the_one_that_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        let [a, b, c] = ["0a", "0b", "0c"].map(certificate);
        Revoked::add(&from, &[a.clone(), b.clone()]).unwrap();
        Revoked::add(&to, &[b.clone(), c.clone()]).unwrap();
        Revoked::publish(&from, &to).unwrap();
        Revoked::publish(&from, &to).unwrap();
        let there = Revoked::read(&to).unwrap();
        assert!([&a, &b, &c].iter().all(|certificate| there.holds(certificate)), "{there:?}");
        assert_eq!(std::fs::read_to_string(&to).unwrap().lines().count(), 5, "each stands there once");
        std::fs::write(&to, "half a list").unwrap();
        Revoked::publish(&from, &to).unwrap();
        assert_eq!(Revoked::read(&to).unwrap(), Revoked::read(&from).unwrap());
    }

    #[test]
    fn a_line_that_is_no_serial_number_makes_the_list_useless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let body = "# a remark\n\n0A agent a\nagent b\n";
        std::fs::write(&path, format!("{body}{}", closing(body))).unwrap();
        let error = Revoked::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 4 does not begin with a serial number"), "{error}");
    }

    #[test]
    fn a_list_of_any_length_is_heeded_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let many: Vec<_> = (0..5000).map(|number| certificate(&format!("{number:032x}"))).collect();
        Revoked::add(&path, &many).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 64 << 10);
        Revoked::add(&path, &[certificate("0a")]).unwrap();
        let revoked = Revoked::read(&path).unwrap();
        assert!(many.iter().all(|certificate| revoked.holds(certificate)) && revoked.holds(&certificate("0a")));

        let too_long = "# a remark\n".repeat(LONGEST_LIST as usize / 11 + 1);
        std::fs::write(&path, too_long).unwrap();
        let error = Revoked::read(&path).unwrap_err().to_string();
        assert!(error.contains("revoked is longer than 16777216 bytes"), "{error}");
        assert!(Revoked::add(&path, &many).is_err(), "what cannot be read is not overwritten");
    }

    #[test]
    fn a_list_that_is_lost_or_damaged_lets_nobody_in_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let list = InForce::open(&path).unwrap();
        let (first, second) = (certificate("0a"), certificate("0b"));
        assert!(!list.holds(&first), "there was no list");
        Revoked::add(&path, std::slice::from_ref(&first)).unwrap();
        list.refresh();
        assert!(list.holds(&first) && !list.holds(&second));
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole.replace("0a agent", "0b agent")).unwrap();
        list.refresh();
        assert!(list.holds(&first) && !list.holds(&second), "damaged");
        std::fs::remove_file(&path).unwrap();
        list.refresh();
        assert!(list.holds(&first), "lost");
        Revoked::add(&path, std::slice::from_ref(&second)).unwrap();
        list.refresh();
        assert!(list.holds(&second) && !list.holds(&first), "a whole list counts again, whatever it says");
    }
}

//! Certificates and keys on disk, in PEM form.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Certificate, Identity, TrustError};

/// No certificate or key of ours is longer than this, in bytes.
const LONGEST: u64 = 64 << 10;
/// Nor is a list of what was taken back: some three hundred thousand certificates.
pub(super) const LONGEST_LIST: u64 = 16 << 20;

/// The files that one end of a link needs, and the list that it heeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// This end's own.
    pub certificate: PathBuf,
    /// The key to it, which nobody else may read.
    pub key: PathBuf,
    /// The certificates that count no more; there need not be any.
    pub revoked: PathBuf,
    /// The key of the certificate that was asked for and has not come yet, if one was.
    pub next_key: PathBuf,
    /// That certificate, while it and its key take the places of the former ones.
    pub next_certificate: PathBuf,
}

impl TrustFiles {
    /// Under their usual names in a directory.
    pub fn in_directory(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self {
            ca: file("ca.pem"),
            certificate: file("cert.pem"),
            key: file("key.pem"),
            revoked: file("revoked"),
            next_key: file("next-key.pem"),
            next_certificate: file("next-cert.pem"),
        }
    }

    /// Whose certificate it is.
    pub fn bearer(&self) -> Result<Identity, TrustError> {
        Ok(read_certificate(&self.certificate)?.1.identity)
    }

    /// Tells one state of the certificates and the key from another.
    pub(super) fn stamps(&self) -> [Option<Stamp>; 3] {
        [&self.ca, &self.certificate, &self.key].map(|path| Stamp::of(path))
    }
}

/// Tells one state of a file from another, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` where there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { inode: found.ino(), size: found.size(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// The first certificate in a file, taken apart as well, since only one of ours is of any use.
pub(super) fn read_certificate(path: &Path) -> Result<(CertificateDer<'static>, Certificate), TrustError> {
    let (text, _) = read(path, LONGEST)?;
    let der = CertificateDer::from_pem_slice(&text).map_err(not_pem(path, "certificate"))?;
    let certificate = Certificate::read(&der)
        .map_err(|why| TrustError::Damaged { path: path.to_owned(), why: format!("it {why}") })?;
    Ok((der, certificate))
}

/// Every certificate in a file, whoever made them.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let (text, _) = read(path, LONGEST_LIST)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.map_err(not_pem(path, "certificate"))
}

/// The private key in a file that only its owner may read, as DER and as the text that it was.
pub(super) fn read_key(path: &Path) -> Result<(PrivateKeyDer<'static>, String), TrustError> {
    let (text, mode) = read(path, LONGEST)?;
    if mode & 0o077 != 0 {
        return Err(TrustError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(not_pem(path, "private key"))?;
    let text = String::from_utf8(text);
    Ok((key, text.map_err(|_| TrustError::NotPem { path: path.to_owned(), what: "private key" })?))
}

/// What the decoder says is left out: it might quote a key.
fn not_pem(path: &Path, what: &'static str) -> impl FnOnce(pem::Error) -> TrustError {
    let path = path.to_owned();
    move |_| TrustError::NotPem { path, what }
}

/// The content of a file, and its mode. One that is longer than `longest` is none of ours, and no part of it is used.
pub(super) fn read(path: &Path, longest: u64) -> Result<(Vec<u8>, u32), TrustError> {
    let read = || -> io::Result<_> {
        // Looked at first: to open what others have to fill, such as a FIFO, waits for them.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut bytes = Vec::new();
        file.take(longest + 1).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    let (bytes, mode) = read().map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
    match bytes.len() as u64 > longest {
        true => Err(TrustError::TooLong { path: path.to_owned(), longest }),
        false => Ok((bytes, mode)),
    }
}

/// The files of a directory with this ending, sorted by name; none if there is no directory.
pub(super) fn list(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, TrustError> {
    let failed = |source| TrustError::Read { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.sort();
    Ok(paths)
}

/// These bytes in PEM form, under this label.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let mut block = [0; 4];
            block[1..1 + three.len()].copy_from_slice(three);
            let block = u32::from_be_bytes(block);
            let digit = |at: usize| match at <= three.len() {
                true => char::from(DIGITS[(block >> (18 - 6 * at) & 63) as usize]),
                false => '=',
            };
            text.extend((0..4).map(digit));
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Puts a copy of a file that anybody may read in the place of one that may be there.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), TrustError> {
    let (bytes, _) = read(from, LONGEST_LIST)?;
    write(to, &bytes, 0o644)
}

/// Makes a directory for its owner alone, unless it is there.
pub(super) fn make_directory(path: &Path) -> Result<(), TrustError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| TrustError::Write { path: path.to_owned(), source })
}

/// Waits until nobody else changes what the authority in this directory keeps; nobody does until the file is dropped.
pub(super) fn lock(directory: &Path) -> Result<File, TrustError> {
    lock_as(&directory.join("lock"))
}

/// The same by a file of any name.
pub(super) fn lock_as(path: &Path) -> Result<File, TrustError> {
    let open = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path);
    let locked = open.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| TrustError::Write { path: path.to_owned(), source })
}

/// Writes a whole file or none, with this mode from the beginning, in the place of one that may be there.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TrustError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let write = || -> io::Result<()> {
        // One that a crash left has whatever mode it has.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| TrustError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_in_their_ending_alone_are_not_written_over_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name| directory.path().join(name);
        fs::write(file("ca.new"), "somebody's").unwrap();
        fs::write(file("ca.key.new"), "left by a crash").unwrap();
        write(&file("ca.pem"), b"certificate", 0o644).unwrap();
        write(&file("ca.key"), b"key", 0o600).unwrap();
        for (name, content) in [("ca.pem", "certificate"), ("ca.key", "key"), ("ca.new", "somebody's")] {
            assert_eq!(fs::read_to_string(file(name)).unwrap(), content);
        }
        assert!(!file("ca.key.new").exists());
    }

    #[test]
    fn bytes_come_back_from_their_pem_form() {
        for length in [0, 1, 2, 3, 47, 48, 49, 500] {
            let der: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let text = pem("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_used_in_part() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        fs::write(&path, "x".repeat(100)).unwrap();
        assert_eq!(read(&path, 100).unwrap().0.len(), 100);
        let error = read(&path, 99).unwrap_err();
        assert!(matches!(error, TrustError::TooLong { longest: 99, .. }), "{error}");
    }
}

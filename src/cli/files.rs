//! Files that a cluster file names: read where the command runs, and sent as far as the controller lacks them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{Client, Method};
use super::error::CliError;
use super::orders::body;
use super::screen::Screen;
use crate::bundle::{BundleId, Digest, FoundFile, Scan, scan};
use crate::model::{ConfigurationId, cluster_file};
use crate::settings::Machine;
use crate::web::blobs::{Blob, Came, Have, Lack, Rest};
use crate::web::configuration::Found;
use crate::web::json::FoundFiles;

/// How often a transfer that is cut off goes on, as long as more has come each time.
const CUTS: u32 = 5;
/// How often a terminal is told how far it is.
const PACE: Duration = Duration::from_millis(100);

/// What the files of a cluster file were found to be.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<Vec<String>, Result<Scan, Vec<String>>>);

impl Files {
    /// Reads what this cluster file names and does not say the bundle of. Relative paths are taken from its directory.
    pub fn of(file: &Path, text: &[u8]) -> Result<Self, CliError> {
        Self::from(&base_of(file)?, &file.display().to_string(), text)
    }

    /// The same where relative paths are taken from `base`, whatever the cluster file is called.
    pub fn from(base: &Path, name: &str, text: &[u8]) -> Result<Self, CliError> {
        let reading = cluster_file::read(name, text, ConfigurationId::new("files")?, Machine::this().hostname());
        let judged = reading.to_judge().configuration;
        let files = judged.nodes.iter().filter_map(|node| node.files.as_ref());
        let open: BTreeSet<Vec<String>> =
            files.filter(|files| files.bundle.is_none()).map(|files| files.paths.clone()).collect();
        Ok(Self(open.into_iter().map(|paths| (paths.clone(), scan(base, &paths))).collect()))
    }

    /// For whoever reads the cluster file here.
    pub fn found(&self) -> Found {
        let found = |scan: &Result<Scan, Vec<String>>| match scan {
            Ok(scan) => Ok(scan.manifest.id()),
            Err(wrong) => Err(wrong.clone()),
        };
        self.0.iter().map(|(paths, scan)| (paths.clone(), found(scan))).collect()
    }

    /// For whoever reads it elsewhere.
    pub fn told(&self) -> Vec<FoundFiles> {
        let told = |(paths, found)| {
            let (bundle, wrong) = match found {
                Ok(bundle) => (Some(BundleId::to_string(&bundle)), Vec::new()),
                Err(wrong) => (None, wrong),
            };
            FoundFiles { paths, bundle, wrong }
        };
        self.found().into_iter().map(told).collect()
    }

    /// Those that are still what they were found to be then.
    pub fn unchanged_since(mut self, then: &[FoundFiles]) -> Self {
        self.0.retain(|paths, scan| {
            let bundle = scan.as_ref().ok().map(|scan| scan.manifest.id().to_string());
            bundle.is_some() && then.iter().any(|then| then.paths == *paths && then.bundle == bundle)
        });
        self
    }

    /// Whether something is wrong with any of them.
    pub fn are_wrong(&self) -> bool {
        self.0.values().any(Result::is_err)
    }

    /// Those that could be read.
    pub fn scans(&self) -> impl Iterator<Item = &Scan> {
        self.0.values().filter_map(|scan| scan.as_ref().ok())
    }

    /// The same for whoever keeps them.
    pub fn into_scans(self) -> Vec<Scan> {
        self.0.into_values().filter_map(Result::ok).collect()
    }

    /// Sends what the controller lacks, and says how much that is.
    pub fn send(&self, client: &Client, json: bool, screen: Screen) -> Result<(), CliError> {
        let sources = Sources::of(self.scans());
        if sources.0.is_empty() {
            return Ok(());
        }
        let mut missing = sources.missing(client)?;
        if missing.is_empty() {
            return Ok(());
        }
        let mut progress = Progress::begin(&missing, sources.0.len(), screen.is_terminal() && !json);
        if !json {
            writeln!(io::stderr(), "{}", progress.sum())?;
        }
        let (mut cuts, mut left) = (0, u64::MAX);
        while !missing.is_empty() {
            match missing.iter().try_for_each(|rest| sources.send(client, rest, &mut progress)) {
                Ok(()) => break,
                // Whether it was cut off or is sent by somebody else, the controller says what is left of it.
                Err(error) if is_cut(&error) && cuts < CUTS => cuts += 1,
                Err(error) => return Err(error),
            }
            missing = sources.missing(client)?;
            let now = missing.iter().map(|rest| rest.size.saturating_sub(rest.offset)).sum();
            if now < left {
                cuts = 0;
            }
            left = now;
        }
        Ok(progress.end()?)
    }
}

/// The directory from which a cluster file's relative paths are taken.
pub fn base_of(file: &Path) -> Result<PathBuf, CliError> {
    let base = file.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(base).map_err(|source| CliError::File { path: file.into(), source })
}

/// Whether the same may go well if it is tried again.
fn is_cut(error: &CliError) -> bool {
    matches!(error, CliError::NoController { .. } | CliError::Refused { status: 409, .. })
}

/// Where the bytes of each blob are.
struct Sources<'a>(BTreeMap<Digest, Source<'a>>);

enum Source<'a> {
    File(&'a FoundFile),
    Manifest(Vec<u8>),
}

impl<'a> Sources<'a> {
    fn of(scans: impl Iterator<Item = &'a Scan>) -> Self {
        let mut sources = BTreeMap::new();
        for scan in scans {
            sources.extend(scan.sources.iter().map(|(digest, found)| (*digest, Source::File(found))));
            sources.insert(scan.manifest.id().digest(), Source::Manifest(scan.manifest.encode()));
        }
        Self(sources)
    }

    fn missing(&self, client: &Client) -> Result<Vec<Rest>, CliError> {
        let blob = |(digest, source): (&Digest, &Source)| Blob { digest: digest.to_string(), size: source.size() };
        let have = Have { blobs: self.0.iter().map(blob).collect() };
        let (_, lack) = client.order::<Lack>(Method::Post, "/api/v1/blobs/missing", &body(&have))?;
        Ok(lack.missing)
    }

    fn send(&self, client: &Client, rest: &Rest, progress: &mut Progress) -> Result<(), CliError> {
        let Rest { digest, size, offset } = rest;
        let Some(source) = digest.parse::<Digest>().ok().and_then(|digest| self.0.get(&digest)) else {
            let reason = format!("it asks for `{digest}`, which it was not offered");
            return Err(CliError::Foreign { url: client.url().to_owned(), reason });
        };
        let mut bytes = source.open(*offset)?;
        let path = format!("/api/v1/blobs/{digest}?size={size}&offset={offset}");
        let mut counted = Counted { from: &mut *bytes, progress };
        let came: Came = client.send(&path, &mut counted, size.saturating_sub(*offset))?;
        progress.one_more();
        match came.whole {
            true => Ok(()),
            false => {
                let reason = format!("it says that {} of {size} bytes came", came.bytes);
                Err(CliError::NoController { url: client.url().to_owned(), reason, was_reached: true })
            }
        }
    }
}

impl Source<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::File(found) => found.size,
            Self::Manifest(bytes) => bytes.len() as u64,
        }
    }

    fn open(&self, offset: u64) -> Result<Box<dyn Read + '_>, CliError> {
        match self {
            Self::File(found) => {
                let opened = found.open().and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
                Ok(Box::new(opened.map_err(|source| CliError::File { path: found.path.clone(), source })?))
            }
            Self::Manifest(bytes) => {
                let mut cursor = Cursor::new(bytes);
                cursor.set_position(offset);
                Ok(Box::new(cursor))
            }
        }
    }
}

/// How far a transfer is, for somebody who looks on.
struct Progress {
    files: usize,
    of: usize,
    bytes: u64,
    sent_files: usize,
    sent: u64,
    shown: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    fn begin(missing: &[Rest], of: usize, is_shown: bool) -> Self {
        let bytes = missing.iter().map(|rest| rest.size.saturating_sub(rest.offset)).sum();
        Self { files: missing.len(), of, bytes, sent_files: 0, sent: 0, shown: None, is_shown }
    }

    /// What is sent, such as `sending 3 of 120 files, 41 KiB`. The list of files is one of them.
    fn sum(&self) -> String {
        format!("sending {} of {} files, {}", self.files, self.of, amount(self.bytes))
    }

    fn more(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.is_shown && self.shown.is_none_or(|shown| shown.elapsed() >= PACE) {
            self.shown = Some(Instant::now());
            // A terminal that is gone needs no progress.
            let _ = write!(io::stderr(), "\r  {} files, {} sent\x1b[K", self.sent_files, amount(self.sent));
        }
    }

    fn one_more(&mut self) {
        self.sent_files += 1;
    }

    fn end(&self) -> io::Result<()> {
        match self.shown {
            Some(_) => write!(io::stderr(), "\r\x1b[K"),
            None => Ok(()),
        }
    }
}

/// A number of bytes as people read it.
fn amount(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(0x10_0000)),
    }
}

/// Tells how much was read.
struct Counted<'a, 'b> {
    from: &'a mut (dyn Read + 'b),
    progress: &'a mut Progress,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(piece)?;
        self.progress.more(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_told_in_numbers_that_can_be_read() {
        let rest = |size, offset| Rest { digest: String::new(), size, offset };
        let progress = Progress::begin(&[rest(40 << 10, 0), rest(2048, 1024)], 120, false);
        assert_eq!(progress.sum(), "sending 2 of 120 files, 41 KiB");
        assert_eq!((amount(1023), amount(3 << 19)), ("1023 B".into(), "1.5 MiB".into()));
    }

    #[test]
    fn relative_paths_are_taken_from_the_directory_of_the_file_and_what_has_a_bundle_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("list"), "1\n").unwrap();
        let file = directory.path().join("c.cfg");
        let bundle = format!("sha256:{}", "0".repeat(64));
        let text = format!(
            "[role none]\nfiles = list\n[a]\ncommand = true\n[b]\ncommand = true\n[c]\ncommand = true\nfiles = gone\n\
             [d]\ncommand = true\nfiles = elsewhere\nbundle = {bundle}\n"
        );
        let files = Files::of(&file, text.as_bytes()).unwrap();
        let told = files.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].paths == ["gone"] && told[0].wrong[0].ends_with("No such file or directory (os error 2)"));
        assert!(told[1].paths == ["list"] && told[1].bundle.is_some());
        assert!(files.are_wrong());
    }
}

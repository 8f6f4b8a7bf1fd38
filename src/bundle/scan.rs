//! Reads files and directories from this machine's disk, to make a bundle of them.
//!
//! What is read is what was named: no link is followed, and whatever is neither a file nor a directory is refused. Every
//! complaint comes with the path that it is about, and all of them come at once.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::{
    BundlePath, Digest, Digester, Entry, Kind, LARGEST_BUNDLE, LONGEST_FILE, MOST_ENTRIES, Manifest, ManifestError,
};

/// After so many complaints no more are looked for: what is wrong throughout is something else than files for a node.
const MOST_COMPLAINTS: usize = 50;
/// How much is read at once, in bytes.
const PIECE: usize = 128 << 10;

/// Files as they were found: what to send, and where it is.
#[derive(Debug, Clone)]
pub struct Scan {
    pub manifest: Manifest,
    /// Where each content is; one of them where several files are the same.
    pub sources: BTreeMap<Digest, FoundFile>,
}

/// A file that was read, and is to be read again as it was then.
#[derive(Debug, Clone)]
pub struct FoundFile {
    pub path: PathBuf,
    pub size: u64,
    stamp: Stamp,
}

impl FoundFile {
    /// Opens it, unless it was changed meanwhile.
    pub fn open(&self) -> io::Result<File> {
        let file = File::from(openat(CWD, &self.path, FLAGS, Mode::empty())?);
        match Stamp::of(&fstat(&file)?) == self.stamp {
            true => Ok(file),
            false => Err(io::Error::other(CHANGED)),
        }
    }
}

const CHANGED: &str = "it was changed while it was read: try again when nobody writes to it";

/// A FIFO in place of what was just looked at is not waited for.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What is not the same any more once somebody has written to a file, or put another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Stamp {
    // These types are not the same on every machine.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Self {
        Self {
            place: (stat.st_dev as u64, stat.st_ino as u64),
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }
}

/// Reads what these paths name, each to stand under its last name. Relative ones are taken from `base`, where the cluster file
/// is: they do not lead out of it, and that whole directory is nobody's.
///
/// The complaints are in the order in which they were found; each begins with a path.
pub fn scan(base: &Path, paths: &[String]) -> Result<Scan, Vec<String>> {
    let home = statat(CWD, base, AtFlags::empty()).ok().map(|stat| Stamp::of(&stat).place);
    let mut scanner = Scanner { home, ..Scanner::default() };
    let mut tops: BTreeMap<String, &String> = BTreeMap::new();
    for path in paths {
        if let Some(what) = leads_out(base, Path::new(path)) {
            scanner.complain(Path::new(path), what);
            continue;
        }
        let whole = base.join(path);
        // Without a last name, such as of `..`, there is nothing to call it by. A slash behind it would follow a link.
        let named = whole.file_name().zip(whole.parent()).map(|(name, parent)| (name.to_owned(), parent.join(name)));
        let Some((name, whole)) = named else {
            scanner.complain(Path::new(path), "it has no last name that it could be found by: write the path in full");
            continue;
        };
        let Some(inner) = scanner.path_of(&whole, None, &name) else { continue };
        match tops.insert(inner.to_string(), path) {
            Some(other) => {
                let what = format!("it would be found as `{inner}`, and so would {other}: rename one of them");
                scanner.complain(Path::new(path), what);
            }
            None => scanner.look(CWD, whole.as_os_str(), &whole, inner),
        }
    }
    scanner.finish()
}

/// Why a relative path may lead to what is not in `base`, if it may.
fn leads_out(base: &Path, path: &Path) -> Option<String> {
    const IF_MEANT: &str = "write the path in full if that is meant";
    let mut depth = 0usize;
    let mut at = base.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::RootDir | Component::Prefix(_) => return None,
            Component::CurDir => continue,
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Some(format!("it leads out of the directory of the cluster file: {IF_MEANT}")),
            },
            Component::Normal(_) => depth += 1,
        }
        at.push(part);
        // What the last one is, is looked at with what it holds.
        let is_link = || statat(CWD, &at, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_link(&stat));
        if parts.peek().is_some() && is_link() {
            let link = at.strip_prefix(base).unwrap_or(&at).display();
            return Some(format!("`{link}` on the way to it is a link, which may lead anywhere: {IF_MEANT}"));
        }
    }
    None
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

#[derive(Default)]
struct Scanner {
    /// The directory of the cluster file.
    home: Option<(u64, u64)>,
    entries: Vec<Entry>,
    sources: BTreeMap<Digest, FoundFile>,
    /// How many bytes are in all files that were found.
    size: u64,
    complaints: Vec<String>,
    /// Looking on would find nothing that is worth more words.
    is_over: bool,
}

impl Scanner {
    fn complain(&mut self, path: &Path, what: impl std::fmt::Display) {
        if self.is_over {
            return;
        }
        // What is no text is shown as far as it is one, and nothing in it moves a cursor.
        let path: String = path.to_string_lossy().chars().flat_map(shown).collect();
        self.complaints.push(format!("{path}: {what}"));
        if self.complaints.len() == MOST_COMPLAINTS {
            self.complaints.push(format!("there may be more: no more than {MOST_COMPLAINTS} are told at once"));
            self.is_over = true;
        }
    }

    /// What is called so in that directory of the bundle.
    fn path_of(&mut self, at: &Path, parent: Option<&BundlePath>, name: &OsStr) -> Option<BundlePath> {
        let Some(name) = name.to_str() else {
            self.complain(at, "its name is not UTF-8: rename it");
            return None;
        };
        let path = parent.map_or_else(|| name.parse(), |parent| parent.join(name));
        path.map_err(|error| self.complain(at, error)).ok()
    }

    /// Takes in what `name` in `directory` is, with all that is in it.
    fn look(&mut self, directory: impl std::os::fd::AsFd, name: &OsStr, at: &Path, path: BundlePath) {
        if self.is_over {
            return;
        }
        if self.entries.len() == MOST_ENTRIES {
            self.complain(at, format!("a bundle has at most {MOST_ENTRIES} files and directories, and there are more"));
            self.is_over = true;
            return;
        }
        let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return self.complain(at, format!("it cannot be read: {}", io::Error::from(error))),
        };
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(directory, name, at, path),
            FileType::Directory => return self.directory(directory, name, at, path),
            FileType::Symlink => {
                "it is a link, which may lead to something else on every machine: put a copy in its place"
            }
            FileType::Fifo => "it is a FIFO, and only files and directories travel",
            FileType::Socket => "it is a socket, and only files and directories travel",
            _ => "it is a device, and only files and directories travel",
        };
        self.complain(at, what);
    }

    fn directory(&mut self, directory: impl std::os::fd::AsFd, name: &OsStr, at: &Path, path: BundlePath) {
        let listed = openat(&directory, name, FLAGS | OFlags::DIRECTORY, Mode::empty())
            .and_then(|fd| Ok((fstat(&fd)?, names_in(&fd)?, fd)));
        let (stat, names, fd) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.complain(at, format!("it cannot be read: {}", io::Error::from(error))),
        };
        if self.home == Some(Stamp::of(&stat).place) {
            let what = "it is the directory of the cluster file, which would travel along: name what nodes need of it";
            return self.complain(at, what);
        }
        self.entries.push(entry(path.clone(), &stat, Kind::Directory));
        for name in names {
            let at = at.join(&name);
            if let Some(path) = self.path_of(&at, Some(&path), &name) {
                self.look(&fd, &name, &at, path);
            }
        }
    }

    fn file(&mut self, directory: impl std::os::fd::AsFd, name: &OsStr, at: &Path, path: BundlePath) {
        let opened = openat(&directory, name, FLAGS, Mode::empty()).map(File::from);
        let opened = opened.and_then(|file| Ok((fstat(&file)?, file)));
        let (stat, mut file) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.complain(at, format!("it cannot be read: {}", io::Error::from(error))),
        };
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        if size > LONGEST_FILE {
            let what = format!("it has {size} bytes, and a file of a bundle has at most {LONGEST_FILE}");
            return self.complain(at, what);
        }
        let was_too_much = self.size > LARGEST_BUNDLE;
        self.size = self.size.saturating_add(size);
        if self.size > LARGEST_BUNDLE {
            if !was_too_much {
                let what = format!("with it there are more than {LARGEST_BUNDLE} bytes, the most that a bundle has");
                self.complain(at, what);
            }
            return;
        }
        let again = |file: &File| fstat(file).map_err(io::Error::from);
        match digest(&mut file, &stat, again) {
            Ok(digest) => {
                self.entries.push(entry(path, &stat, Kind::File { size, digest }));
                let found = FoundFile { path: at.to_owned(), size, stamp: Stamp::of(&stat) };
                self.sources.entry(digest).or_insert(found);
            }
            Err(error) => self.complain(at, error),
        }
    }

    fn finish(self) -> Result<Scan, Vec<String>> {
        if !self.complaints.is_empty() {
            return Err(self.complaints);
        }
        let manifest = Manifest::new(self.entries).map_err(|error: ManifestError| vec![error.to_string()])?;
        Ok(Scan { manifest, sources: self.sources })
    }
}

fn shown(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let plain = escaped.is_none().then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

/// The names in a directory, sorted.
fn names_in(directory: &OwnedFd) -> rustix::io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

// The type of a mode is not the same on every machine.
#[allow(clippy::unnecessary_cast)]
fn entry(path: BundlePath, stat: &Stat, kind: Kind) -> Entry {
    Entry { path, mode: (stat.st_mode & 0o777) as u16, modified: stat.st_mtime as i64, kind }
}

/// The digest of what is in a file, unless it is not the same any more once it was read.
fn digest<R: Read>(
    file: &mut R,
    before: &Stat,
    again: impl FnOnce(&R) -> io::Result<Stat>,
) -> Result<Digest, io::Error> {
    let stamp = Stamp::of(before);
    let (mut digester, mut read, mut piece) = (Digester::new(), 0_i64, vec![0; PIECE]);
    // More than there was is a change, and no reason to read without end.
    while read <= stamp.size {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                digester.update(&piece[..length]);
                read = read.saturating_add(length as i64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io::Error::other(format!("it cannot be read: {error}"))),
        }
    }
    match read == stamp.size && Stamp::of(&again(file)?) == stamp {
        true => Ok(digester.finish()),
        false => Err(io::Error::other(CHANGED)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn place() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn complaints(base: &Path, paths: &[&str]) -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        let complaints = scan(base, &paths).unwrap_err();
        let prefix = format!("{}/", base.display());
        complaints.into_iter().map(|complaint| complaint.replace(&prefix, "")).collect()
    }

    #[test]
    fn what_was_named_is_found_under_its_last_name_with_modes_and_times() {
        let place = place();
        let base = place.path();
        fs::create_dir_all(base.join("etc/site/packages")).unwrap();
        fs::write(base.join("etc/site/local.zeek"), "@load x\n").unwrap();
        fs::write(base.join("etc/site/packages/same"), "1 2\n").unwrap();
        fs::write(base.join("intel.dat"), "1 2\n").unwrap();
        fs::set_permissions(base.join("intel.dat"), Permissions::from_mode(0o6750)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567);
        File::options().append(true).open(base.join("intel.dat")).unwrap().set_modified(long_ago).unwrap();
        let absolute = base.join("intel.dat").display().to_string();
        let Scan { manifest, sources } = scan(base, &["etc/site/".into(), absolute]).unwrap();
        let all: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(all, ["intel.dat", "site", "site/local.zeek", "site/packages", "site/packages/same"]);
        let first = &manifest.entries()[0];
        assert_eq!((first.mode, first.modified), (0o750, 1_234_567), "no bit that gives another's rights");
        assert_eq!(first.kind, Kind::File { size: 4, digest: Digest::of(b"1 2\n") });
        assert_eq!(sources.len(), 2, "what is the same is there once");
        let mut text = String::new();
        sources[&Digest::of(b"@load x\n")].open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "@load x\n");
    }

    #[test]
    fn whatever_cannot_travel_is_named_all_of_it_at_once() {
        let place = place();
        let base = place.path();
        fs::create_dir_all(base.join("site/deep")).unwrap();
        symlink("/etc/passwd", base.join("site/deep/link")).unwrap();
        symlink("site", base.join("way")).unwrap();
        rustix::fs::mkfifoat(CWD, base.join("site/fifo"), Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(base.join("site/socket")).unwrap();
        let name = std::ffi::OsString::from_vec(b"no\xfftext".to_vec());
        fs::write(base.join("site").join(name), "").unwrap();
        fs::write(base.join("site/new\nline"), "").unwrap();
        let got =
            complaints(base, &["site", "way/", "nowhere", "/dev/null", "..", "site/../../x", "way/deep", "/", "."]);
        let want = [
            "site/deep/link: it is a link",
            "site/fifo: it is a FIFO",
            "site/new\\nline: a path in a bundle has no control characters",
            "site/no\u{fffd}text: its name is not UTF-8",
            "site/socket: it is a socket",
            "way: it is a link",
            "nowhere: it cannot be read: No such file or directory",
            "/dev/null: it is a device",
            "..: it leads out of the directory of the cluster file: write the path in full if that is meant",
            "site/../../x: it leads out of the directory of the cluster file",
            "way/deep: `way` on the way to it is a link, which may lead anywhere",
            "/: it has no last name",
            &format!("{}: it is the directory of the cluster file", base.display()),
        ];
        assert_eq!(got.len(), want.len(), "{got:#?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.starts_with(want), "{got} is not {want}");
        }
    }

    #[test]
    fn two_of_one_name_would_be_in_each_others_place() {
        let place = place();
        let base = place.path();
        fs::create_dir_all(base.join("a/site")).unwrap();
        fs::create_dir_all(base.join("b/site")).unwrap();
        let got = complaints(base, &["a/site", "b/site"]);
        assert_eq!(got, ["b/site: it would be found as `site`, and so would a/site: rename one of them"]);
    }

    #[test]
    fn what_is_too_long_or_too_much_is_refused_before_it_is_read() {
        let place = place();
        let base = place.path();
        fs::create_dir(base.join("site")).unwrap();
        File::create(base.join("site/gigabyte")).unwrap().set_len(1 << 30).unwrap();
        let began = std::time::Instant::now();
        let got = complaints(base, &["site"]);
        assert_eq!(got, ["site/gigabyte: it has 1073741824 bytes, and a file of a bundle has at most 268435456"]);
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
        fs::create_dir(base.join("many")).unwrap();
        (0..MOST_ENTRIES).for_each(|number| fs::write(base.join(format!("many/{number}")), "").unwrap());
        let got = complaints(base, &["many"]);
        assert!(got.len() == 1 && got[0].contains("a bundle has at most 10000 files and directories"), "{got:?}");
    }

    #[test]
    fn a_file_that_is_changed_while_it_is_read_is_refused_and_so_is_one_that_was_changed_since() {
        struct Written<'a>(File, &'a Path, bool);
        impl Read for Written<'_> {
            fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
                if !std::mem::replace(&mut self.2, true) {
                    fs::write(self.1, "other").unwrap();
                }
                self.0.read(piece)
            }
        }
        let place = place();
        let path = place.path().join("list");
        fs::write(&path, "some longer text").unwrap();
        let again = |written: &Written| Ok(fstat(&written.0)?);
        let read = |is_quiet| {
            let mut written = Written(File::open(&path).unwrap(), &path, is_quiet);
            let before = fstat(&written.0).unwrap();
            digest(&mut written, &before, again)
        };
        assert_eq!(read(true).unwrap(), Digest::of(b"some longer text"));
        assert!(read(false).unwrap_err().to_string().starts_with("it was changed while it was read"));

        let found = scan(place.path(), &["list".into()]).unwrap();
        let found = found.sources.values().next().unwrap();
        found.open().unwrap();
        fs::write(&path, "longer").unwrap();
        assert!(found.open().unwrap_err().to_string().starts_with("it was changed"));
    }

    #[test]
    fn a_tree_without_end_ends_in_a_complaint() {
        let place = place();
        let deep: PathBuf = std::iter::repeat_n("d", 40).collect();
        fs::create_dir_all(place.path().join(deep)).unwrap();
        let got = complaints(place.path(), &["d"]);
        assert!(got.len() == 1 && got[0].ends_with("a path in a bundle goes at most 32 names deep"), "{got:?}");
    }
}

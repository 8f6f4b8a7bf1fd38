//! What is in a bundle: paths, modes, times and digests, in one order and one encoding.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    BundleId, DEEPEST_PATH, Digest, LARGEST_BUNDLE, LONGEST_FILE, LONGEST_MANIFEST, LONGEST_NAME, LONGEST_PATH,
    MOST_ENTRIES,
};
use crate::message::frame::{FrameError, decode_body, encode_body};

/// What a manifest begins with: whoever has another one does not misread it.
const FORMAT: u8 = 1;
/// All that is kept of a mode: no bit that gives whoever runs a file another's rights, and none that is the agent's to set.
const MODE: u16 = 0o777;

/// See the module. What there is is well-formed, wherever it came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Sorted by path, each path once, and each directory that a path goes through before what is in it.
    entries: Vec<Entry>,
}

/// A file or a directory of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: BundlePath,
    /// Who may read, write and run it: nine bits.
    pub mode: u16,
    /// When it was changed last, in seconds since 1970.
    pub modified: i64,
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Directory,
    File {
        /// In bytes.
        size: u64,
        digest: Digest,
    },
}

/// Why something is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it has {0} files and directories, and a bundle at most {MOST_ENTRIES}")]
    TooMany(usize),
    #[error("{path} has {size} bytes, and a file of a bundle at most {LONGEST_FILE}")]
    TooLong { path: BundlePath, size: u64 },
    #[error("its files have {0} bytes, and those of a bundle at most {LARGEST_BUNDLE}")]
    TooLarge(u64),
    #[error("its list of files has {0} bytes, and that of a bundle at most {LONGEST_MANIFEST}")]
    TooWordy(usize),
    #[error("{0} is in it twice")]
    Twice(BundlePath),
    #[error("{path} is in it, and {parent}, which it is in, is no directory of it")]
    Orphan { path: BundlePath, parent: String },
    #[error("the mode {mode:o} of {path} has bits that no bundle may set")]
    Mode { path: BundlePath, mode: u16 },
    #[error("its list of files is not written as this release writes it")]
    Form,
    #[error("its list of files cannot be read: {0}")]
    Unreadable(#[from] FrameError),
}

impl Manifest {
    /// Of these entries, in any order.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() > MOST_ENTRIES {
            return Err(ManifestError::TooMany(entries.len()));
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let manifest = Self { entries };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let mut directories = BTreeSet::new();
        let mut last: Option<&BundlePath> = None;
        let mut all: u64 = 0;
        for Entry { path, mode, kind, .. } in &self.entries {
            if last == Some(path) {
                return Err(ManifestError::Twice(path.clone()));
            }
            if mode & !MODE != 0 {
                return Err(ManifestError::Mode { path: path.clone(), mode: *mode });
            }
            if let Some(parent) = path.parent().filter(|parent| !directories.contains(parent)) {
                return Err(ManifestError::Orphan { path: path.clone(), parent: parent.into() });
            }
            match *kind {
                Kind::Directory => drop(directories.insert(path.as_str())),
                Kind::File { size, .. } if size > LONGEST_FILE => {
                    return Err(ManifestError::TooLong { path: path.clone(), size });
                }
                // Neither so many nor so long that it could overflow.
                Kind::File { size, .. } => all += size,
            }
            last = Some(path);
        }
        if all > LARGEST_BUNDLE {
            return Err(ManifestError::TooLarge(all));
        }
        match self.encode().len() {
            length if length > LONGEST_MANIFEST => Err(ManifestError::TooWordy(length)),
            _ => Ok(()),
        }
    }

    /// The same bytes for the same manifest, and for no other.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        encode_body(&mut bytes, &self.entries).expect("memory takes whatever is written to it");
        bytes
    }

    /// Reads one that anybody may have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > LONGEST_MANIFEST {
            return Err(ManifestError::TooWordy(bytes.len()));
        }
        let Some((&FORMAT, body)) = bytes.split_first() else { return Err(ManifestError::Form) };
        let Listed(entries) = decode_body(body, "manifest")?;
        let manifest = Self::new(entries)?;
        // Whatever reads the same and is written otherwise would be the same bundle under another name.
        if manifest.encode() == bytes { Ok(manifest) } else { Err(ManifestError::Form) }
    }

    /// What it is called everywhere.
    pub fn id(&self) -> BundleId {
        BundleId::new(Digest::of(&self.encode()))
    }

    /// Sorted by path: every directory comes before what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Its files, with their sizes in bytes and their digests, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&Entry, u64, Digest)> {
        self.entries.iter().filter_map(|entry| match entry.kind {
            Kind::File { size, digest } => Some((entry, size, digest)),
            Kind::Directory => None,
        })
    }

    /// How many bytes are in its files.
    pub fn size(&self) -> u64 {
        self.files().map(|(_, size, _)| size).sum()
    }
}

/// Entries as they are read: no more of them are held than a bundle may have, whatever is claimed.
struct Listed(Vec<Entry>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Lister)
    }
}

struct Lister;

impl<'de> Visitor<'de> for Lister {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files and directories")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Listed, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = all.next_element()? {
            if entries.len() == MOST_ENTRIES {
                return Err(de::Error::custom(format!("it has more than {MOST_ENTRIES} files and directories")));
            }
            entries.push(entry);
        }
        Ok(Listed(entries))
    }
}

/// A path within a bundle: relative, with `/` between names, and leading nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BundlePath(String);

impl BundlePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that it is in, unless that is the bundle itself.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// What is called so in this directory.
    pub fn join(&self, name: &str) -> Result<Self, NoPath> {
        format!("{}/{name}", self.0).parse()
    }
}

/// As a tree is walked: a directory, all that is in it, and then what follows it.
impl Ord for BundlePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for BundlePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for BundlePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for BundlePath {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for BundlePath {
    type Error = NoPath;

    fn try_from(text: String) -> Result<Self, NoPath> {
        if text.len() > LONGEST_PATH {
            return Err(NoPath::TooLong);
        }
        if text.split('/').count() > DEEPEST_PATH {
            return Err(NoPath::TooDeep);
        }
        for name in text.split('/') {
            match name {
                "" | "." | ".." => return Err(NoPath::Escapes),
                name if name.len() > LONGEST_NAME => return Err(NoPath::TooLong),
                name if name.chars().any(char::is_control) => return Err(NoPath::Unprintable),
                _ => {}
            }
        }
        Ok(Self(text))
    }
}

impl From<BundlePath> for String {
    fn from(BundlePath(text): BundlePath) -> Self {
        text
    }
}

/// Why a text is no [`BundlePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    #[error("a path in a bundle has at most {LONGEST_PATH} bytes, and each name in it {LONGEST_NAME}")]
    TooLong,
    #[error("a path in a bundle goes at most {DEEPEST_PATH} names deep")]
    TooDeep,
    #[error("a path in a bundle is relative, and neither empty nor has it empty names, `.` or `..` in it")]
    Escapes,
    #[error("a path in a bundle has no control characters")]
    Unprintable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> BundlePath {
        text.parse().unwrap()
    }

    fn directory(at: &str) -> Entry {
        Entry { path: path(at), mode: 0o755, modified: 1_700_000_000, kind: Kind::Directory }
    }

    fn file(at: &str, content: &str) -> Entry {
        let kind = Kind::File { size: content.len() as u64, digest: Digest::of(content.as_bytes()) };
        Entry { path: path(at), mode: 0o644, modified: -1, kind }
    }

    #[test]
    fn the_order_in_which_it_was_found_is_not_in_it() {
        let entries =
            [directory("site"), file("site/local.zeek", "@load x"), file("site-list", ""), directory("site/a")];
        let manifest = Manifest::new(entries.to_vec()).unwrap();
        let turned = Manifest::new(entries.into_iter().rev().collect()).unwrap();
        assert_eq!((manifest.id(), manifest.encode()), (turned.id(), turned.encode()));
        let paths: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["site", "site/a", "site/local.zeek", "site-list"]);
        assert_eq!((manifest.size(), manifest.files().count()), (7, 2));
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }

    #[test]
    fn whatever_differs_has_another_name() {
        let one = |entry: Entry| Manifest::new(vec![entry]).unwrap().id();
        let ids = BTreeSet::from([
            one(file("a", "1")),
            one(file("a", "2")),
            one(file("b", "1")),
            one(Entry { mode: 0o755, ..file("a", "1") }),
            one(Entry { modified: 0, ..file("a", "1") }),
            one(directory("a")),
        ]);
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        for wrong in ["", "/", "/etc/passwd", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a/.."] {
            assert_eq!(wrong.parse::<BundlePath>(), Err(NoPath::Escapes), "{wrong}");
        }
        for wrong in ["a\0b", "a\nb", "\u{7f}", "a/\u{9b}2J"] {
            assert_eq!(wrong.parse::<BundlePath>(), Err(NoPath::Unprintable), "{wrong:?}");
        }
        assert_eq!("x".repeat(256).parse::<BundlePath>(), Err(NoPath::TooLong));
        assert_eq!(["x"; 600].join("/").parse::<BundlePath>(), Err(NoPath::TooLong));
        assert_eq!(["x"; 33].join("/").parse::<BundlePath>(), Err(NoPath::TooDeep));
        for right in ["a", "...", "..a", "a b/ü", ".hidden/x"] {
            assert_eq!(right.parse::<BundlePath>().map(String::from).as_deref(), Ok(right));
        }
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_said_with_its_path() {
        let wrong = |entries: &[Entry]| Manifest::new(entries.to_vec()).unwrap_err().to_string();
        assert_eq!(wrong(&[file("a", "1"), file("a", "2")]), "a is in it twice");
        assert_eq!(wrong(&[file("a/b", "")]), "a/b is in it, and a, which it is in, is no directory of it");
        assert_eq!(
            wrong(&[file("a", ""), file("a/b", "")]),
            "a/b is in it, and a, which it is in, is no directory of it"
        );
        let set_id = Entry { mode: 0o4755, ..file("a", "") };
        assert_eq!(wrong(&[set_id]), "the mode 4755 of a has bits that no bundle may set");
        let long = |at: &str, size| Entry { kind: Kind::File { size, digest: Digest::of(b"") }, ..file(at, "") };
        assert!(
            wrong(&[long("a", LONGEST_FILE + 1)]).starts_with("a has 268435457 bytes, and a file of a bundle at most")
        );
        let large = [long("a", LONGEST_FILE), long("b", LONGEST_FILE), long("c", 1)];
        assert!(wrong(&large).starts_with("its files have 536870913 bytes"));
        assert!(Manifest::new(large[..2].to_vec()).is_ok());
        let many: Vec<_> = (0..=MOST_ENTRIES).map(|number| directory(&number.to_string())).collect();
        assert!(wrong(&many).starts_with("it has 10001 files and directories"));
        let base = "d".repeat(LONGEST_NAME);
        let children = (0..9_000).map(|number| directory(&format!("{base}/{number:0>255}")));
        let wordy: Vec<_> = std::iter::once(directory(&base)).chain(children).collect();
        assert!(wrong(&wordy).starts_with("its list of files has 4"));
        assert!(Manifest::new(wordy[..5_000].to_vec()).is_ok());
    }

    #[test]
    fn what_is_written_in_another_way_is_no_manifest() {
        let manifest = Manifest::new(vec![directory("a"), file("a/b", "1"), file("c", "2")]).unwrap();
        let bytes = manifest.encode();
        assert!(matches!(Manifest::decode(&[]), Err(ManifestError::Form)));
        assert!(matches!(Manifest::decode(&[&[2], &bytes[1..]].concat()), Err(ManifestError::Form)));
        assert!(matches!(Manifest::decode(&[&bytes[..], &[0]].concat()), Err(ManifestError::Unreadable(_))));
        let mut turned = vec![FORMAT];
        encode_body(&mut turned, &manifest.entries.iter().rev().collect::<Vec<_>>()).unwrap();
        assert!(matches!(Manifest::decode(&turned), Err(ManifestError::Form)), "in another order");
        let mut escaping = vec![FORMAT];
        encode_body(&mut escaping, &vec![("../a", 0o644_u16, 0_i64, Kind::Directory)]).unwrap();
        let error = Manifest::decode(&escaping).unwrap_err().to_string();
        assert!(error.contains("a path in a bundle is relative"), "{error}");
        let mut many = vec![FORMAT];
        encode_body(&mut many, &vec![directory("a"); MOST_ENTRIES + 1]).unwrap();
        let error = Manifest::decode(&many).unwrap_err().to_string();
        assert!(error.ends_with("it has more than 10000 files and directories"), "{error}");
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "cut off at {length}");
        }
    }

    proptest! {
        #[test]
        fn whatever_bytes_there_are_a_manifest_is_refused_or_says_them_again(bytes: Vec<u8>) {
            let bytes = [&[FORMAT][..], &bytes].concat();
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}

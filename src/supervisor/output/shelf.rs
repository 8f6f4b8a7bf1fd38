//! The files of one stream that were put aside, and what follows from their names.
//!
//! They are in `past` in the node's directory, and each is named by what it holds: `stdout.000003.000000000001048576-
//! 000000000002097152` is what stood from byte 1048576 up to byte 2097152 of the third file that was called `stdout`. With
//! `.end` it is the last of that file, so that what is called `stdout` now is the fourth; with `.gz` it is compressed. So a
//! rename is all it takes to say how far that file is put aside, and no other record can contradict it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::model::{OutputPlace, OutputStream};

/// The directory of what was put aside, in the node's.
pub(super) const PAST: &str = "past";

/// One file that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub volume: u64,
    pub start: u64,
    pub end: u64,
    /// Whether it is the last of its volume.
    pub ends: bool,
    pub packed: bool,
}

impl Kept {
    pub fn name(&self, stream: OutputStream) -> String {
        let Self { volume, start, end, ends, packed } = self;
        let (ends, packed) = (if *ends { ".end" } else { "" }, if *packed { ".gz" } else { "" });
        format!("{stream}.{volume:06}.{start:018}-{end:018}{ends}{packed}")
    }

    pub fn path(&self, directory: &Path, stream: OutputStream) -> PathBuf {
        directory.join(PAST).join(self.name(stream))
    }

    /// The same by its name; `None` for any other file.
    fn of(name: &OsStr, stream: OutputStream) -> Option<Self> {
        let rest = name.to_str()?.strip_prefix(stream.as_str())?.strip_prefix('.')?;
        let (rest, packed) = rest.strip_suffix(".gz").map_or((rest, false), |rest| (rest, true));
        let (rest, ends) = rest.strip_suffix(".end").map_or((rest, false), |rest| (rest, true));
        let (volume, range) = rest.split_once('.')?;
        let (start, end) = range.split_once('-')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let kept = Self { volume: number(volume)?, start: number(start)?, end: number(end)?, ends, packed };
        // A name that we would not give is not one of ours.
        (kept.start <= kept.end && kept.volume > 0 && kept.name(stream).as_str() == name.to_str()?).then_some(kept)
    }

    /// The first place that it does not hold.
    pub fn until(&self) -> OutputPlace {
        OutputPlace { volume: self.volume, offset: self.end }
    }
}

/// A file that was put aside, with what the file system says of it.
#[derive(Debug, Clone)]
pub(super) struct Weighed {
    pub kept: Kept,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    pub modified: SystemTime,
}

/// Everything that was put aside of one stream, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    pub kept: Vec<Weighed>,
}

impl Shelf {
    /// Whether anything was ever put aside in this node's directory.
    pub fn is_there(directory: &Path) -> bool {
        fs::symlink_metadata(directory.join(PAST)).is_ok()
    }

    /// Reads what is there. A directory that is missing holds nothing.
    pub fn read(directory: &Path, stream: OutputStream) -> io::Result<Self> {
        let [stdout, stderr] = Self::read_both(directory)?;
        Ok(match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        })
    }

    /// The same of both streams, in the order of [`OutputStream::ALL`].
    pub fn read_both(directory: &Path) -> io::Result<[Self; 2]> {
        let mut shelves = [Self::default(), Self::default()];
        let entries = match fs::read_dir(directory.join(PAST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(shelves),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let named = |stream| Some((stream, Kept::of(&name, stream)?));
            let Some((stream, named)) = OutputStream::ALL.into_iter().find_map(named) else { continue };
            match entry.metadata() {
                Ok(found) if found.is_file() => shelves[stream as usize].kept.push(weigh(named, &found)?),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // somebody else has removed it
                Err(error) => return Err(error),
            }
        }
        // Where a file is there as it was and compressed, too, the compressed one is whole, and comes last.
        for shelf in &mut shelves {
            shelf.kept.sort_by_key(|Weighed { kept, .. }| (kept.volume, kept.start, kept.packed, kept.end));
        }
        Ok(shelves)
    }

    /// The files that hold what was put aside, each part once.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        let twice = |at: usize| self.kept.get(at + 1).is_some_and(|next| self.kept[at].is_as(next));
        self.kept.iter().enumerate().filter(move |(at, _)| !twice(*at)).map(|(_, weighed)| &weighed.kept)
    }

    /// Files that are there compressed as well.
    pub fn superseded(&self) -> impl Iterator<Item = &Kept> {
        self.kept.windows(2).filter(|pair| pair[0].is_as(&pair[1])).map(|pair| &pair[0].kept)
    }

    /// The first place in the stream's own file that is not put aside.
    pub fn next(&self) -> OutputPlace {
        match self.kept.last().map(|last| &last.kept) {
            None => OutputPlace { volume: 1, offset: 0 },
            Some(last) if last.ends => OutputPlace { volume: last.volume + 1, offset: 0 },
            Some(last) => last.until(),
        }
    }

    /// When something was put aside last.
    pub fn modified(&self) -> Option<SystemTime> {
        self.kept.last().map(|last| last.modified)
    }
}

impl Weighed {
    /// Whether both hold the same part of the stream.
    fn is_as(&self, other: &Self) -> bool {
        let of = |weighed: &Self| (weighed.kept.volume, weighed.kept.start, weighed.kept.ends);
        of(self) == of(other) && !self.kept.packed && other.kept.packed
    }
}

fn weigh(kept: Kept, found: &Metadata) -> io::Result<Weighed> {
    Ok(Weighed { kept, bytes: found.blocks() * 512, modified: found.modified()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(volume: u64, start: u64, end: u64, ends: bool, packed: bool) -> Kept {
        Kept { volume, start, end, ends, packed }
    }

    #[test]
    fn a_name_says_what_a_file_holds_and_strange_names_are_nobodys() {
        for file in
            [kept(3, 1 << 20, 2 << 20, false, true), kept(1, 0, 0, true, false), kept(1 << 40, 5, 6, true, true)]
        {
            let name = file.name(OutputStream::Stderr);
            assert_eq!(Kept::of(OsStr::new(&name), OutputStream::Stderr), Some(file));
            assert_eq!(Kept::of(OsStr::new(&name), OutputStream::Stdout), None);
        }
        let good = kept(1, 5, 9, false, false).name(OutputStream::Stdout);
        for name in [
            "stdout",
            "stdout.1",
            &good.replace("000001", "1"),
            &good.replace("000001", "000000"),
            &format!("{good}.gz.gz"),
            &format!("{good}.gz.end"),
            &good.replace('5', "99").replace("0099", "099"),
            "stdout.000001.-5-000000000000000009",
        ] {
            assert_eq!(Kept::of(OsStr::new(name), OutputStream::Stdout), None, "{name}");
        }
    }

    #[test]
    fn the_next_place_follows_from_the_newest_file() {
        let home = tempfile::tempdir().unwrap();
        let shelf = || Shelf::read(home.path(), OutputStream::Stdout).unwrap();
        assert_eq!(shelf().next(), OutputPlace { volume: 1, offset: 0 });
        fs::create_dir(home.path().join(PAST)).unwrap();
        let put = |file: Kept| fs::write(file.path(home.path(), OutputStream::Stdout), "x").unwrap();
        put(kept(1, 0, 10, false, true));
        assert_eq!(shelf().next(), OutputPlace { volume: 1, offset: 10 });
        put(kept(1, 10, 20, true, false));
        put(kept(1, 10, 20, true, true));
        assert_eq!(shelf().next(), OutputPlace { volume: 2, offset: 0 });
        let parts: Vec<_> = shelf().parts().cloned().collect();
        assert_eq!(
            parts,
            [kept(1, 0, 10, false, true), kept(1, 10, 20, true, true)],
            "what is there twice counts once"
        );
        assert_eq!(shelf().superseded().cloned().collect::<Vec<_>>(), [kept(1, 10, 20, true, false)]);
    }
}

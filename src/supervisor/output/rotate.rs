//! Puts aside what a stream's file holds, in an order that may end between any two steps: no line is lost, none doubled.
//!
//! Within a life the head of the file is copied to a file of its own, that file gets the name that says what it holds, and
//! then the head is freed by a hole. Up to the rename nothing has happened; from the rename on the head is put aside,
//! whether the hole is there or not. A life that is over has its file renamed as a whole.
//!
//! Whoever calls holds the node's lock where it says so: only then the file, the shelf and the holes agree.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::plain;
use super::shelf::{Kept, PAST, Shelf};
use crate::model::{OutputPlace, OutputRules, OutputStream};

/// A piece may be so large, in bytes, whatever the rules say, where this many pieces wait.
const LARGE: u64 = 16 << 20;
const BEHIND: u64 = 16;
/// How much is copied at once, in bytes.
const BLOCK: usize = 64 << 10;

/// What is shorter takes a few blocks either way, and a node that dies again and again is not to keep the disk busy; in
/// bytes.
const WORTH_PACKING: u64 = 32 << 10;

/// One node's lock: held for as long as its files are looked at or moved, never while much is copied.
#[derive(Debug, Default)]
pub struct Lock(Mutex<()>);

impl Lock {
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        // It guards files, and those are right after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a rotation has come. Tests end it at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Begun,
    Copied,
    Named,
    Freed,
    Emptied,
}

/// What rotation asks of the file system, and of whoever watches it.
pub(super) trait Disk {
    /// Frees the file up to there, and leaves its length; `false` if this file system cannot.
    fn free(&self, file: &File, up_to: u64) -> io::Result<bool>;

    fn reached(&self, _: Step) -> io::Result<()> {
        Ok(())
    }
}

/// The file system itself.
pub(super) struct ThisDisk;

impl Disk for ThisDisk {
    fn free(&self, file: &File, up_to: u64) -> io::Result<bool> {
        if up_to == 0 {
            return Ok(true);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, 0, up_to) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What came of putting aside a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carved {
    /// There was no whole line to put aside.
    Nothing,
    /// A piece was put aside, and there may be more.
    Piece,
}

/// Makes room for a new life: what the last one wrote and is not put aside yet becomes the last of its volume. A file
/// that is empty or missing stays as it is. `next` is what the shelf says; returns the volume that comes now. Call it with
/// the lock held.
pub(super) fn close(directory: &Path, stream: OutputStream, next: OutputPlace) -> io::Result<u64> {
    let file = directory.join(stream.as_str());
    let found = match fs::symlink_metadata(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(next.volume),
        found => found?,
    };
    if !found.is_file() {
        make_past(directory)?;
        fs::rename(&file, directory.join(PAST).join(format!("{stream}.strange")))?;
        return Ok(next.volume);
    }
    let next = within(directory, stream, next, found.len())?;
    if found.len() == 0 {
        return Ok(next.volume);
    }
    make_past(directory)?;
    let last = Kept { volume: next.volume, start: next.offset, end: found.len(), ends: true, packed: false };
    fs::rename(&file, last.path(directory, stream))?;
    Ok(next.volume + 1)
}

/// Where the part of the file begins that is not put aside, where the file is so long. Call it with the lock held.
pub(super) fn next_within(directory: &Path, stream: OutputStream, length: u64) -> io::Result<OutputPlace> {
    within(directory, stream, Shelf::read(directory, stream)?.next(), length)
}

/// The same where the shelf says what is next. A file that is shorter than what was put aside of it was cut by somebody
/// else, and what it holds is a new volume.
fn within(directory: &Path, stream: OutputStream, next: OutputPlace, length: u64) -> io::Result<OutputPlace> {
    if length >= next.offset {
        return Ok(next);
    }
    let mark = Kept { volume: next.volume, start: next.offset, end: next.offset, ends: true, packed: false };
    File::create_new(mark.path(directory, stream))?;
    Ok(OutputPlace { volume: next.volume + 1, offset: 0 })
}

/// Frees what was put aside of the file before, where a crash came between the two. Call it with the lock held.
pub(super) fn free_again(directory: &Path, stream: OutputStream, disk: &impl Disk) -> io::Result<()> {
    let Some(file) = plain::open_to_free(&directory.join(stream.as_str()))? else { return Ok(()) };
    let next = next_within(directory, stream, file.metadata()?.len())?;
    disk.free(&file, next.offset).map(drop)
}

/// Puts aside the whole lines that the file holds: so many bytes of them as the rules say, and more where more has come
/// together.
pub(super) fn carve(
    directory: &Path,
    stream: OutputStream,
    rules: &OutputRules,
    lock: &Lock,
    disk: &impl Disk,
) -> io::Result<Carved> {
    let path = directory.join(stream.as_str());
    let held = lock.hold();
    let Some(file) = plain::open_to_free(&path)? else { return Ok(Carved::Nothing) };
    let length = file.metadata()?.len();
    let from = next_within(directory, stream, length)?;
    drop(held);
    // Who writes faster than it is put aside gets few large pieces, and not ever more small ones.
    let waits = length.saturating_sub(from.offset);
    let is_behind = waits / BEHIND >= rules.max_bytes;
    let most = if is_behind { waits.min(LARGE).max(rules.max_bytes) } else { rules.max_bytes };
    let Some(end) = end_of_lines(&file, from.offset, length, most)? else { return Ok(Carved::Nothing) };
    disk.reached(Step::Begun)?;
    make_past(directory)?;
    let fresh = copy(&file, from.offset..end, directory, stream, rules.compress)?;
    disk.reached(Step::Copied)?;

    let _held = lock.hold();
    let is_same =
        fs::symlink_metadata(&path).is_ok_and(|found| file.metadata().is_ok_and(|ours| is_one(&found, &ours)));
    if !is_same || Shelf::read(directory, stream)?.next() != from {
        // A new life has begun meanwhile, and all of the file was put aside for it.
        fs::remove_file(fresh)?;
        return Ok(Carved::Piece);
    }
    let piece = Kept { volume: from.volume, start: from.offset, end, ends: false, packed: rules.compress };
    fs::rename(fresh, piece.path(directory, stream))?;
    disk.reached(Step::Named)?;
    if disk.free(&file, end)? {
        disk.reached(Step::Freed)?;
        return Ok(Carved::Piece);
    }
    let rest = file.metadata()?.len().saturating_sub(end);
    match rest > rules.max_bytes {
        true => Ok(Carved::Piece), // it is emptied once all of it is put aside
        false => empty(&file, piece, directory, stream, disk).map(|()| Carved::Piece),
    }
}

/// Empties a file that cannot be freed in part: what came behind the last piece is put aside, too, and then it is cut.
/// What is written between the last look and the cut is lost.
fn empty(file: &File, mut last: Kept, directory: &Path, stream: OutputStream, disk: &impl Disk) -> io::Result<()> {
    loop {
        let length = file.metadata()?.len();
        if length <= last.end {
            break;
        }
        let fresh = copy(file, last.end..length, directory, stream, false)?;
        last = Kept { volume: last.volume, start: last.end, end: length, ends: false, packed: false };
        fs::rename(fresh, last.path(directory, stream))?;
    }
    file.set_len(0)?;
    disk.reached(Step::Emptied)?;
    let end = Kept { ends: true, ..last.clone() };
    fs::rename(last.path(directory, stream), end.path(directory, stream))
}

/// Compresses what was put aside as it was, and removes what is there twice.
pub(super) fn pack(directory: &Path, stream: OutputStream) -> io::Result<()> {
    let shelf = Shelf::read(directory, stream)?;
    shelf.superseded().try_for_each(|twice| remove(&twice.path(directory, stream)))?;
    for kept in shelf.parts().filter(|kept| !kept.packed && kept.end - kept.start >= WORTH_PACKING) {
        let path = kept.path(directory, stream);
        let Some(file) = plain::open(&path)? else { continue };
        let length = file.metadata()?.len();
        let base = base_of(kept, length);
        let fresh = copy(&file, kept.start - base..length, directory, stream, true)?;
        let packed = Kept { end: base + length, packed: true, ..kept.clone() };
        fs::rename(fresh, packed.path(directory, stream))?;
        remove(&path)?;
    }
    Ok(())
}

/// The place in the stream at which an uncompressed file of this length begins: the file of a life that is over still is
/// as long as all that was written to it, with a hole where it was put aside before.
pub(super) fn base_of(kept: &Kept, length: u64) -> u64 {
    if kept.ends && length >= kept.end { 0 } else { kept.start }
}

/// Removes the oldest files beyond what the rules keep. The newest of each stream stays: its name says how far it is.
pub(super) fn prune(directory: &Path, rules: &OutputRules) -> io::Result<()> {
    let mut may_go = Vec::new();
    let mut bytes = 0;
    for stream in OutputStream::ALL {
        let shelf = Shelf::read(directory, stream)?;
        bytes += shelf.kept.iter().map(|weighed| weighed.bytes).sum::<u64>();
        let older = shelf.kept.len().saturating_sub(1);
        let is_too_many = shelf.kept.len().saturating_sub(rules.keep_files.max(1) as usize);
        for (at, weighed) in shelf.kept.into_iter().enumerate().take(older) {
            let is_empty = weighed.kept.start == weighed.kept.end;
            if at < is_too_many || is_empty {
                remove(&weighed.kept.path(directory, stream))?;
                bytes -= weighed.bytes;
            } else {
                may_go.push((weighed.modified, stream, weighed));
            }
        }
    }
    may_go.sort_by_key(|(modified, stream, weighed)| (*modified, *stream, weighed.kept.until()));
    for (_, stream, weighed) in may_go {
        if bytes <= rules.keep_bytes {
            break;
        }
        remove(&weighed.kept.path(directory, stream))?;
        bytes -= weighed.bytes;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make_past(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(directory.join(PAST)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn is_one(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Where the last whole line ends that begins within so many bytes; a line that is longer than that is cut.
fn end_of_lines(file: &File, from: u64, length: u64, most: u64) -> io::Result<Option<u64>> {
    let limit = length.min(from.saturating_add(most));
    let mut block = [0; BLOCK];
    let mut end = limit;
    while end > from {
        let start = end.saturating_sub(BLOCK as u64).max(from);
        let part = &mut block[..(end - start) as usize]; // at most BLOCK
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(start + at as u64 + 1));
        }
        end = start;
    }
    Ok((length - from >= most && most > 0).then_some(limit))
}

/// Copies a part of a file into a new one, which is on disk when this returns.
fn copy(
    file: &File,
    part: std::ops::Range<u64>,
    directory: &Path,
    stream: OutputStream,
    compress: bool,
) -> io::Result<PathBuf> {
    let path = directory.join(PAST).join(format!(".new-{stream}"));
    // A leftover of a crash, or whatever else stands there.
    remove(&path)?;
    let fresh = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path)?;
    let fresh = match compress {
        false => {
            let mut out = BufWriter::new(fresh);
            copy_part(file, part, &mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?
        }
        true => {
            let mut out = GzEncoder::new(BufWriter::new(fresh), Compression::default());
            copy_part(file, part, &mut out)?;
            out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?
        }
    };
    // What it was copied from is freed next, and the machine may go down after that.
    fresh.sync_data()?;
    Ok(path)
}

fn copy_part(file: &File, part: std::ops::Range<u64>, out: &mut impl Write) -> io::Result<()> {
    let mut block = [0; BLOCK];
    let mut at = part.start;
    while at < part.end {
        let most = block.len().min(usize::try_from(part.end - at).unwrap_or(usize::MAX));
        match file.read_at(&mut block[..most], at)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut while it was copied")),
            read => {
                out.write_all(&block[..read])?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

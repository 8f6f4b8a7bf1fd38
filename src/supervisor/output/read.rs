//! Reads a stream from a place on, through everything that was put aside and into the file that is written now.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::plain;
use super::rotate::{Lock, base_of, next_within};
use super::shelf::{Kept, Shelf};
use crate::model::{OutputPiece as Piece, OutputPlace, OutputStream};

/// How much is looked through at once, in bytes.
const BLOCK: usize = 64 << 10;
/// How many lines are counted back at most.
const MOST_LINES: usize = 1_000_000;
/// How often a file is looked for again that was moved meanwhile.
const TRIES: usize = 8;

/// A part of the stream that is in one file.
enum Part {
    Kept(Kept),
    /// The file that is written now, from there on.
    Present(File, OutputPlace, u64),
}

impl Part {
    fn start(&self) -> OutputPlace {
        match self {
            Self::Kept(kept) => OutputPlace { volume: kept.volume, offset: kept.start },
            Self::Present(_, start, _) => *start,
        }
    }

    fn end(&self) -> OutputPlace {
        match self {
            Self::Kept(kept) => kept.until(),
            Self::Present(_, start, end) => OutputPlace { offset: *end, ..*start },
        }
    }

    fn is_packed(&self) -> bool {
        matches!(self, Self::Kept(kept) if kept.packed)
    }
}

/// A compressed file that was read up to a place, for whoever goes on from there.
pub struct Opened {
    kept: Kept,
    at: u64,
    /// What was read already and given back.
    back: Vec<u8>,
    decoder: MultiGzDecoder<io::BufReader<File>>,
}

impl Opened {
    /// Whether it goes on at that place.
    pub fn is_at(&self, place: OutputPlace) -> bool {
        place == OutputPlace { volume: self.kept.volume, offset: self.at }
    }

    /// Takes back the last bytes that came of it.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.at -= bytes.len() as u64;
        self.back.splice(..0, bytes.iter().copied());
    }
}

/// Reads at most so many bytes from `place` on; what is not kept any more is skipped. Fewer come where a file ends.
pub fn read(
    directory: &Path,
    stream: OutputStream,
    place: OutputPlace,
    most: usize,
    lock: &Lock,
    opened: &mut Option<Opened>,
) -> io::Result<Piece> {
    for _ in 0..TRIES {
        if let Some(piece) = read_once(directory, stream, place, most, lock, opened)? {
            return Ok(piece);
        }
    }
    Err(io::Error::other("its files move faster than they can be read: ask again"))
}

/// `None` if what was to be read has been moved meanwhile.
fn read_once(
    directory: &Path,
    stream: OutputStream,
    place: OutputPlace,
    most: usize,
    lock: &Lock,
    opened: &mut Option<Opened>,
) -> io::Result<Option<Piece>> {
    let held = lock.hold();
    let (parts, end) = parts(directory, stream)?;
    // A place beyond all that there is belongs to other files than these.
    let (place, is_strange) = if place > end { (OutputPlace::default(), true) } else { (place, false) };
    let Some(at) = parts.iter().position(|part| part.end() > place) else {
        let next = if place == OutputPlace::default() { end } else { place };
        return Ok(Some(Piece { place: next, next, at_end: true, skipped: is_strange, bytes: Vec::new() }));
    };
    let part = &parts[at];
    let start = part.start().max(place);
    let is_first = place == OutputPlace::default();
    // One volume goes on where the one before it ends.
    let follows = match at.checked_sub(1) {
        Some(before) => parts[before].end() <= place,
        None => start.offset == 0 && start.volume == place.volume + 1,
    };
    let skipped = is_strange || !(is_first || start == place || follows);
    let left = part.end().offset - start.offset;
    let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
    let bytes = match part {
        // While the lock is held nothing of it is freed.
        Part::Present(file, ..) => read_file(file, start.offset, most)?,
        Part::Kept(kept) => {
            let (kept, is_last) = (kept.clone(), at + 1 == parts.len());
            drop(held);
            let Some(bytes) = read_kept(directory, stream, &kept, start.offset, most, opened)? else { return Ok(None) };
            let next = OutputPlace { offset: start.offset + bytes.len() as u64, ..start };
            let at_end = is_last && next == kept.until();
            return Ok(Some(Piece { place: start, next, bytes, at_end, skipped }));
        }
    };
    let next = OutputPlace { offset: start.offset + bytes.len() as u64, ..start };
    Ok(Some(Piece { place: start, next, at_end: next == part.end(), bytes, skipped }))
}

/// Everything there is, oldest first, and where it ends. Call it with the lock held.
fn parts(directory: &Path, stream: OutputStream) -> io::Result<(Vec<Part>, OutputPlace)> {
    let present = match plain::open(&directory.join(stream.as_str()))? {
        None => None,
        Some(file) => {
            let length = file.metadata()?.len();
            Some(Part::Present(file, next_within(directory, stream, length)?, length))
        }
    };
    let shelf = Shelf::read(directory, stream)?;
    let mut parts: Vec<_> = shelf.parts().filter(|kept| kept.end > kept.start).cloned().map(Part::Kept).collect();
    let end = present.as_ref().map_or(shelf.next(), Part::end);
    parts.extend(present.filter(|part| part.end() > part.start()));
    Ok((parts, end))
}

fn read_file(file: &File, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match file.read_at(&mut bytes[filled..], from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    match filled {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was")),
        _ => Ok(bytes),
    }
}

/// `None` if it is not there any more.
fn read_kept(
    directory: &Path,
    stream: OutputStream,
    kept: &Kept,
    from: u64,
    most: usize,
    opened: &mut Option<Opened>,
) -> io::Result<Option<Vec<u8>>> {
    if let Some(mut open) = opened.take_if(|open| open.kept == *kept && open.at == from) {
        let back = std::mem::take(&mut open.back);
        return unpack(&mut back.as_slice().chain(&mut open.decoder), most).map(|bytes| {
            open.back = back.get(bytes.len()..).unwrap_or_default().to_vec();
            open.at += bytes.len() as u64;
            *opened = Some(open);
            Some(bytes)
        });
    }
    let Some(file) = plain::open(&kept.path(directory, stream))? else { return Ok(None) };
    if !kept.packed {
        let base = base_of(kept, file.metadata()?.len());
        return read_file(&file, from - base, most).map(Some);
    }
    let mut decoder = MultiGzDecoder::new(io::BufReader::new(file));
    let ahead = from - kept.start;
    let passed = io::copy(&mut decoder.by_ref().take(ahead), &mut io::sink())?;
    if passed < ahead {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is cut off", kept.name(stream))));
    }
    let bytes = unpack(&mut decoder, most)?;
    *opened = Some(Opened { kept: kept.clone(), at: from + bytes.len() as u64, back: Vec::new(), decoder });
    Ok(Some(bytes))
}

fn unpack(decoder: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(most as u64).read_to_end(&mut bytes)?;
    match bytes.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a compressed file is cut off")),
        false => Ok(bytes),
    }
}

/// Whether anything was written behind that place.
pub fn has_more(directory: &Path, stream: OutputStream, place: OutputPlace, lock: &Lock) -> io::Result<bool> {
    let _held = lock.hold();
    Ok(parts(directory, stream)?.0.iter().any(|part| part.end() > place))
}

/// Which parts of a stream count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    All,
    /// What was written to one file.
    Volume(u64),
}

/// Where the last so many lines of the stream begin. At most `most` bytes are looked through.
pub fn place_of_last(
    directory: &Path,
    stream: OutputStream,
    lines: usize,
    most: u64,
    scope: Scope,
    lock: &Lock,
) -> io::Result<OutputPlace> {
    let (parts, end) = {
        let _held = lock.hold();
        let (parts, end) = parts(directory, stream)?;
        let counts = |part: &Part| matches!(scope, Scope::All) || scope == Scope::Volume(part.start().volume);
        let spans = parts.iter().filter(|part| counts(part)).map(|part| (part.start(), part.end(), part.is_packed()));
        (spans.collect::<Vec<_>>(), end)
    };
    let Some(&(_, last, _)) = parts.last() else { return Ok(end) };
    let (mut wanted, mut left, mut place) = (lines.min(MOST_LINES), most, last);
    if lines == 0 {
        return Ok(last);
    }
    for (start, end, is_packed) in parts.into_iter().rev() {
        let span = (end.offset - start.offset).min(left);
        let mut window = if is_packed { span } else { span.min(BLOCK as u64) };
        let ends = loop {
            let from = OutputPlace { offset: end.offset - window, ..start };
            let ends = last_line_ends(directory, stream, from, window, wanted + 1, lock)?;
            if ends.len() > wanted || window == span {
                break ends;
            }
            window = window.saturating_mul(16).min(span);
        };
        // The end of the last line is not the end of a line before it.
        if end == last && ends.back() == Some(&(end.offset - 1)) {
            wanted += 1;
        }
        if ends.len() >= wanted {
            return Ok(OutputPlace { offset: ends[ends.len() - wanted] + 1, ..start });
        }
        wanted -= ends.len();
        (place, left) = (OutputPlace { offset: end.offset - span, ..start }, left - span);
        if left == 0 {
            break;
        }
    }
    Ok(place)
}

/// The places of the last line ends, so many at most, in a part of one file.
fn last_line_ends(
    directory: &Path,
    stream: OutputStream,
    from: OutputPlace,
    span: u64,
    most: usize,
    lock: &Lock,
) -> io::Result<VecDeque<u64>> {
    let (mut ends, mut opened, mut at) = (VecDeque::new(), None, from);
    while at.offset < from.offset + span {
        let block = BLOCK.min(usize::try_from(from.offset + span - at.offset).unwrap_or(BLOCK));
        let piece = read(directory, stream, at, block, lock, &mut opened)?;
        if piece.bytes.is_empty() || piece.place != at {
            break; // it is not kept any more
        }
        for (index, _) in piece.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if ends.len() == most {
                ends.pop_front();
            }
            ends.push_back(piece.place.offset + index as u64);
        }
        at = piece.next;
    }
    Ok(ends)
}

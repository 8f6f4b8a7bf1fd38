//! Readers that come again and again for the next piece of a stream.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::keeper::Keeper;
use super::read::{Opened, Scope, place_of_last, read};
use crate::message::agent::ReadOutputRequest;
use crate::model::{NodeName, OutputFrom, OutputPiece, OutputPlace, OutputStream};

/// The most that one piece holds, in bytes, and the least that it may.
const MOST: usize = 128 << 10;
const LEAST: usize = 1 << 10;
/// How many compressed files are kept open for whoever reads on.
const OPEN: usize = 8;

/// What came of a look at a stream.
#[derive(Debug)]
pub enum Read {
    Piece(OutputPiece),
    /// There is nothing that is whole: more may come behind this place.
    Waits {
        piece: OutputPiece,
        behind: OutputPlace,
    },
}

impl Read {
    pub fn into_piece(self) -> OutputPiece {
        match self {
            Self::Piece(piece) | Self::Waits { piece, .. } => piece,
        }
    }
}

/// Compressed files that somebody is in the middle of.
#[derive(Default)]
pub struct Readings(Mutex<Vec<(NodeName, OutputStream, Opened)>>);

impl Readings {
    /// Reads what was asked for. Of what may go on, only whole lines if `only_whole`.
    pub fn read(
        &self,
        keeper: &Keeper,
        directory: &Path,
        request: &ReadOutputRequest,
        only_whole: bool,
    ) -> io::Result<Read> {
        let (node, stream, lock) = (&request.node, request.stream, keeper.lock(&request.node));
        let place = match request.from {
            OutputFrom::Place(place) => place,
            OutputFrom::Last(lines) => place_of_last(directory, stream, lines as usize, u64::MAX, Scope::All, &lock)?,
        };
        let most = usize::try_from(request.most).unwrap_or(MOST).clamp(LEAST, MOST);
        let mut opened = self.take(node, stream, place);
        let piece = read(directory, stream, place, most, &lock, &mut opened)?;
        let (bytes, next) = (piece.bytes.clone(), piece.next);
        let read = whole_lines(piece, most, only_whole);
        if let Some(mut opened) = opened.filter(|opened| opened.is_at(next)) {
            if let Read::Piece(piece) = &read {
                opened.give_back(&bytes[piece.bytes.len()..]);
            }
            self.keep(node, stream, opened);
        }
        Ok(read)
    }

    fn take(&self, node: &NodeName, stream: OutputStream, place: OutputPlace) -> Option<Opened> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(of, which, opened)| of == node && *which == stream && opened.is_at(place))?;
        Some(open.remove(at).2)
    }

    fn keep(&self, node: &NodeName, stream: OutputStream, opened: Opened) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == OPEN {
            open.remove(0);
        }
        open.push((node.clone(), stream, opened));
    }
}

/// Cuts a piece behind its last whole line, where more may follow; a line that is longer than a piece is cut.
fn whole_lines(mut piece: OutputPiece, most: usize, only_whole: bool) -> Read {
    if piece.at_end && !only_whole {
        return Read::Piece(piece);
    }
    match piece.bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => {
            let rest = piece.bytes.len() - last - 1;
            piece.bytes.truncate(last + 1);
            piece.next.offset -= rest as u64;
            piece.at_end &= rest == 0;
            Read::Piece(piece)
        }
        None if piece.at_end && piece.bytes.len() < most => {
            let behind = piece.next;
            piece.bytes.clear();
            piece.next = piece.place;
            Read::Waits { piece, behind }
        }
        None => {
            // Not in the middle of a character, if it is text.
            let is_inside = |byte: &u8| byte & 0xc0 == 0x80;
            let tail = piece.bytes.iter().rev().take_while(|byte| is_inside(byte)).count();
            let is_cut = tail < 4 && piece.bytes.len() > tail + 1 && piece.bytes[piece.bytes.len() - tail - 1] >= 0xc0;
            if is_cut && piece.bytes.len() == most {
                piece.bytes.truncate(most - tail - 1);
                piece.next.offset -= tail as u64 + 1;
                piece.at_end = false;
            }
            Read::Piece(piece)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &str, at_end: bool) -> OutputPiece {
        let (place, next) =
            (OutputPlace { volume: 1, offset: 10 }, OutputPlace { volume: 1, offset: 10 + bytes.len() as u64 });
        OutputPiece { place, bytes: bytes.into(), next, at_end, skipped: false }
    }

    #[test]
    fn pieces_end_with_lines_where_more_may_follow() {
        for (bytes, at_end, only_whole, want, next) in [
            ("a\nb", false, false, Some("a\n"), 12),
            ("a\nb", true, false, Some("a\nb"), 13),
            ("a\nb", true, true, Some("a\n"), 12),
            ("a\n", true, true, Some("a\n"), 12),
            ("ab", true, true, None, 12),
            ("ab", true, false, Some("ab"), 12),
            ("ab", false, true, Some("ab"), 12), // the end of a life
            ("", true, true, None, 10),
            ("12345678", true, true, Some("12345678"), 18),
            ("1234567ä", false, true, Some("1234567ä"), 19),
        ] {
            match whole_lines(piece(bytes, at_end), 8, only_whole) {
                Read::Piece(piece) => {
                    assert_eq!(
                        (Some(&*String::from_utf8(piece.bytes).unwrap()), piece.next.offset),
                        (want, next),
                        "{bytes}"
                    );
                }
                Read::Waits { behind, piece } => {
                    assert_eq!((want, behind.offset, piece.next), (None, next, piece.place), "{bytes}");
                }
            }
        }
        let Read::Piece(cut) = whole_lines(piece("123456ä", false), 8, true) else { panic!() };
        assert_eq!((cut.bytes.as_slice(), cut.next.offset), (&b"123456"[..], 16), "a character is not cut");
    }
}

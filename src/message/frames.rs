//! Messages that stay encoded: whole frames, one behind the other.

use std::fmt;

use super::frame::{Frame, MAX_FRAME, Wire, split};

/// Some frames in a row. Their bodies may be anything.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Adds bytes that are whole frames.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The frames, in order, up to what is no whole one.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let frame = split(rest, MAX_FRAME).ok()??;
            rest = &rest[frame.size..];
            Some(frame)
        })
    }

    /// What they say, as far as it is understood here.
    pub fn open<T: Wire>(&self) -> impl Iterator<Item = T> {
        self.iter().filter_map(|frame| T::decode(frame.kind, frame.body).ok())
    }

    /// All of them, as they cross a link.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of `bytes` those of the frames that they begin with and that are of the same kind as the first, which is known.
pub fn of_one_kind<'a>(first: &Frame<'_>, bytes: &'a [u8]) -> &'a [u8] {
    let mut length = first.size;
    while let Ok(Some(next)) = split(&bytes[length..], MAX_FRAME)
        && next.kind == first.kind
    {
        length += next.size;
    }
    &bytes[..length]
}

/// The bytes of each frame in `bytes`, up to what is no whole one.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        let (piece, rest) = bytes.split_at_checked(length.checked_add(4)?)?;
        bytes = rest;
        Some(piece)
    })
}

/// From bytes that hold whole frames.
impl From<&[u8]> for Frames {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// From bytes each of which hold whole frames.
impl<'a> FromIterator<&'a [u8]> for Frames {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(pieces: I) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|piece| all.push(piece));
        all
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.iter().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::frame::append;

    #[test]
    fn what_is_of_one_kind_goes_together_up_to_another_or_to_what_is_not_whole() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for kind in [0x0212, 0x0212, 0x0213, 0x0212] {
            append(&mut bytes, kind, "Any", &"a text").unwrap();
            ends.push(bytes.len());
        }
        let together = |bytes: &[u8]| of_one_kind(&split(bytes, MAX_FRAME).unwrap().unwrap(), bytes).len();
        assert_eq!(together(&bytes), ends[1]);
        assert_eq!(together(&bytes[..ends[1] - 1]), ends[0], "the second is not whole");
        assert_eq!(together(&bytes[ends[1]..]), ends[2] - ends[1]);
        assert_eq!(together(&bytes[ends[2]..]), ends[3] - ends[2], "and there is no other");
        let kinds: Vec<_> = Frames::from(&bytes[..ends[3] - 1]).iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [0x0212, 0x0212, 0x0213]);
    }
}

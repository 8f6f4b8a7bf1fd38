//! Messages that stay encoded: whole frames, one behind the other.

use std::fmt;

use super::frame::{Frame, MAX_FRAME, Wire, split};

/// Some frames in a row. Their bodies may be anything.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// The frame that `bytes` begin with. There is room for all of them: often the rest is as much of the same.
    pub fn begin(frame: &Frame<'_>, bytes: &[u8]) -> Self {
        let mut all = Vec::with_capacity(bytes.len());
        all.extend_from_slice(&bytes[..frame.size]);
        Self(all)
    }

    /// Adds bytes that are whole frames.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        pieces(&self.0).filter_map(|piece| split(piece, MAX_FRAME).ok().flatten())
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

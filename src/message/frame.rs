//! Bytes ⇄ messages: the only file that knows the codec.
//!
//! A frame is `length (u32) kind (u16) flags (u16) body`, integers big-endian; `length` counts everything behind
//! itself. The kind stands outside the body, so that a kind from the future is skipped by its length. The body is
//! serde through bincode, which knows no optional fields: a released body never changes, a new one is a new kind.
//!
//! bincode is unmaintained (RUSTSEC-2025-0141) and pinned to 2.0.1. It stays because hostile bytes cannot hurt it
//! here: every decode has a limit that follows the frame's own size, which was checked before anything was read; a body
//! must be used up exactly; no type on the wire has elements of size zero; and replacing it means rewriting
//! [`encode_body`], [`decode_body`] and [`take_front`].

use bincode::config;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use serde::de::Deserialize;
use serde::ser::Serialize;

use crate::model::NameError;

/// The version of the frames: what they mean, and which kinds there are. Each side speaks the lower one of both greetings.
pub const PROTOCOL: u16 = 1;
/// The lowest version that is still spoken here.
pub const OLDEST: u16 = 1;
/// Bytes before a body: length, kind, flags.
pub const HEADER: usize = 8;
/// The longest frame of a peer that is known, in bytes, header included.
pub const MAX_FRAME: usize = 16 << 20;
/// The longest frame of a peer that has greeted and said nothing else yet, in bytes, header included.
pub const MAX_FIRST: usize = 64 << 10;
/// The longest frame of a peer that has yet to say who it is, in bytes, header included.
pub const MAX_GREETING: usize = 4 << 10;

/// Why bytes are not a message. Fatal for the link, except [`FrameError::UnknownKind`].
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a frame of {length} bytes is too short for its own header")]
    TooShort { length: usize },
    #[error("the body of a `{name}` frame is damaged: {}", in_words(source))]
    Damaged { name: &'static str, source: DecodeError },
    #[error("a `{name}` frame has {extra} bytes too many")]
    Trailing { name: &'static str, extra: usize },
    #[error("a `{name}` message cannot be encoded: {source}")]
    Unencodable { name: &'static str, source: EncodeError },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("frames of kind {kind:#06x} are not understood here")]
    UnknownKind { kind: u16 },
}

/// What is wrong with a body, for a log; the codec itself has only the names of its own types.
fn in_words(error: &DecodeError) -> String {
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends too early".into(),
        DecodeError::LimitExceeded => "it claims to hold more than its frame does".into(),
        DecodeError::Utf8 { .. } => "a text in it is not UTF-8".into(),
        DecodeError::InvalidBooleanValue(byte) => format!("{byte} is neither true nor false"),
        DecodeError::OtherString(what) => what.clone(),
        other => format!("{other:?}"),
    }
}

/// One frame in a buffer; its body still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u16,
    /// Reserved: sent as 0, ignored on arrival.
    pub flags: u16,
    pub body: &'a [u8],
    /// How many bytes of the buffer the frame takes up.
    pub size: usize,
}

/// Looks for a whole frame at the beginning of `buffer`.
///
/// `None` means "not yet". An error means that the peer is broken: its length was refused before it was believed.
pub fn split(buffer: &[u8], limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit - 4 {
        return Err(FrameError::TooLong { length: length.saturating_add(4), limit });
    }
    if length < HEADER - 4 {
        return Err(FrameError::TooShort { length: length + 4 });
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    Ok(Some(Frame {
        kind: u16::from_be_bytes([frame[0], frame[1]]),
        flags: u16::from_be_bytes([frame[2], frame[3]]),
        body: &frame[4..],
        size: 4 + length,
    }))
}

/// Appends one frame to `out`. On an error `out` is as it was.
pub fn append<T: Serialize>(out: &mut Vec<u8>, kind: u16, name: &'static str, body: &T) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    let written = encode_body(out, body).map_err(|source| FrameError::Unencodable { name, source });
    let size = out.len() - start;
    let fits = match size > MAX_FRAME {
        true => Err(FrameError::TooLong { length: size, limit: MAX_FRAME }),
        false => Ok(()),
    };
    if let Err(error) = written.and(fits) {
        out.truncate(start);
        return Err(error);
    }
    // At most MAX_FRAME, so it fits.
    out[start..start + 4].copy_from_slice(&((size - 4) as u32).to_be_bytes());
    Ok(())
}

/// Appends a body to `out`.
pub fn encode_body<T: Serialize>(out: &mut Vec<u8>, body: &T) -> Result<(), EncodeError> {
    bincode::serde::encode_into_writer(body, Memory(out), config::standard())
}

/// Memory that grows. The codec's own way to it goes through `std::io`, which costs a third more.
struct Memory<'a>(&'a mut Vec<u8>);

impl Writer for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Decodes a whole body; `name` is for the error.
pub fn decode_body<'de, T: Deserialize<'de>>(body: &'de [u8], name: &'static str) -> Result<T, FrameError> {
    // A claimed length may allocate up to the limit before the bytes are missed, so the limit follows the size. It
    // is eight times that size because the codec counts an integer of one byte as the eight that it stands for.
    let decoded = match body.len() {
        ..0x400 => bincode::serde::borrow_decode_from_slice(body, config::standard().with_limit::<{ 8 * 0x400 }>()),
        0x400..0x1_0000 => {
            bincode::serde::borrow_decode_from_slice(body, config::standard().with_limit::<{ 8 * 0x1_0000 }>())
        }
        0x1_0000..0x10_0000 => {
            bincode::serde::borrow_decode_from_slice(body, config::standard().with_limit::<{ 8 * 0x10_0000 }>())
        }
        _ => bincode::serde::borrow_decode_from_slice(body, config::standard().with_limit::<{ 8 * MAX_FRAME }>()),
    };
    let (value, used) = decoded.map_err(|source| FrameError::Damaged { name, source })?;
    match body.len() - used {
        0 => Ok(value),
        extra => Err(FrameError::Trailing { name, extra }),
    }
}

/// A message that can be the body of a frame.
pub trait Body: Serialize {
    /// Its number on the wire.
    const KIND: u16;
    /// For errors.
    const NAME: &'static str;
}

/// Decodes what `bytes` of our own begin with, and leaves the rest of them.
pub fn take_front<'de, T: Deserialize<'de>>(bytes: &mut &'de [u8], name: &'static str) -> Result<T, FrameError> {
    let decoded = bincode::serde::borrow_decode_from_slice(bytes, config::standard());
    let (value, used) = decoded.map_err(|source| FrameError::Damaged { name, source })?;
    *bytes = &bytes[used..];
    Ok(value)
}

/// A set of messages that crosses a link in one direction, each kind with a number of its own.
pub trait Wire: Sized + Send + 'static {
    /// Appends this message to `out` as one frame.
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), FrameError>;
    /// Reads a message back. [`FrameError::UnknownKind`] may be skipped; every other error may not.
    fn decode(kind: u16, body: &[u8]) -> Result<Self, FrameError>;
    /// Adds the messages that `bytes` begin with to `messages` in the frames that they came in, if whoever gets them reads
    /// them there; `first` is the first of these frames. How many bytes they take up; 0 if this one has to be decoded.
    fn gather(_first: &Frame<'_>, _bytes: &[u8], _messages: &mut Vec<Self>) -> usize {
        0
    }
    /// The message's name, such as `NotifyChange`.
    fn name(&self) -> &'static str;
    /// The name of the message of that kind; `None` if there is none.
    fn name_of(kind: u16) -> Option<&'static str>;
}

/// A message's name as the wire has it: `NotifyChange` is `notify_change`.
pub fn wire_name(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// Declares an enum of messages, their kinds on the wire, and the way there and back. What stands behind a `+` is not a
/// message but many of them, encoded already.
macro_rules! wire_enum {
    ($(#[$doc:meta])* pub enum $enum:ident {
        $($kind:literal => $message:ident),* $(,)?
        $(+ $(#[$frames_doc:meta])* $frames:ident of $gathered:ident)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $enum {
            $($message($message),)*
            $($(#[$frames_doc])* $frames($crate::message::frames::Frames))?
        }

        $(impl From<$message> for $enum {
            fn from(message: $message) -> Self {
                Self::$message(message)
            }
        })*

        $(impl $crate::message::frame::Body for $message {
            const KIND: u16 = $kind;
            const NAME: &'static str = stringify!($message);
        })*

        impl $crate::message::frame::Wire for $enum {
            fn append_to(&self, out: &mut Vec<u8>) -> Result<(), $crate::message::frame::FrameError> {
                match self {
                    $(Self::$message(body) => {
                        use $crate::message::frame::Body;
                        $crate::message::frame::append(out, $message::KIND, $message::NAME, body)
                    })*
                    $(Self::$frames(frames) => {
                        out.extend_from_slice(frames.bytes());
                        Ok(())
                    })?
                }
            }

            fn decode(kind: u16, body: &[u8]) -> Result<Self, $crate::message::frame::FrameError> {
                match kind {
                    $($kind => {
                        $crate::message::frame::decode_body(body, stringify!($message)).map(Self::$message)
                    })*
                    _ => Err($crate::message::frame::FrameError::UnknownKind { kind }),
                }
            }

            $(fn gather(first: &$crate::message::frame::Frame<'_>, bytes: &[u8], messages: &mut Vec<Self>) -> usize {
                use $crate::message::frame::Body;
                if first.kind != $gathered::KIND {
                    return 0;
                }
                let gathered = $crate::message::frames::of_one_kind(first, bytes);
                match messages.last_mut() {
                    Some(Self::$frames(frames)) => frames.push(gathered),
                    _ => messages.push(Self::$frames(gathered.into())),
                }
                gathered.len()
            })?

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$message(_) => stringify!($message),)*
                    $(Self::$frames(_) => stringify!($frames))?
                }
            }

            fn name_of(kind: u16) -> Option<&'static str> {
                match kind {
                    $($kind => Some(stringify!($message)),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use wire_enum;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::{AgentRefused, NewsReceived, ToAgent};

    fn framed(message: impl Into<ToAgent>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.into().append_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_frame_in_pieces_is_not_yet_a_frame() {
        let bytes = framed(NewsReceived { epoch: 7, seq: 300, kept: 300 });
        for cut in 0..bytes.len() {
            assert!(matches!(split(&bytes[..cut], MAX_FRAME), Ok(None)), "{cut}");
        }
        let frame = split(&bytes, MAX_FRAME).unwrap().unwrap();
        assert_eq!(frame.size, bytes.len());
        assert_eq!(
            ToAgent::decode(frame.kind, frame.body).unwrap(),
            NewsReceived { epoch: 7, seq: 300, kept: 300 }.into()
        );
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_arrive() {
        let claim = u32::MAX.to_be_bytes();
        assert!(matches!(split(&claim, MAX_FRAME), Err(FrameError::TooLong { .. })));
        assert!(matches!(split(&[0, 0, 0, 3, 0, 0, 0], MAX_FRAME), Err(FrameError::TooShort { length: 7 })));
    }

    #[test]
    fn a_string_that_claims_more_than_its_frame_is_refused() {
        // 0xfd announces an eight-byte length: a string of 2^60 bytes.
        let body = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
        assert!(matches!(ToAgent::decode(0x010a, &body), Err(FrameError::Damaged { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said_in_words() {
        let text = |kind, body: &[u8]| ToAgent::decode(kind, body).unwrap_err().to_string();
        for (kind, body, want) in [
            (0x010a, &[5, b'a'][..], "it ends too early"),
            (0x010a, &[0xfb, 0xff, 0xff], "it claims to hold more than its frame does"),
            (0x010a, &[1, 0xff], "a text in it is not UTF-8"),
            (0x0108, &[0, 3, b'a', b'/', b'b', 0], "node name `a/b` may hold only letters, digits and . _ - @ : +"),
            (0x0108, &[0, 3, b'a'], "it ends too early"),
        ] {
            let text = text(kind, body);
            assert!(text.ends_with(&format!("frame is damaged: {want}")), "{text}");
        }
    }

    #[test]
    fn bytes_behind_a_body_are_refused() {
        let mut bytes = framed(AgentRefused { reason: "no".into() });
        bytes.push(0);
        let error = ToAgent::decode(0x010a, &bytes[HEADER..]).unwrap_err();
        assert!(matches!(error, FrameError::Trailing { extra: 1, .. }), "{error}");
    }

    #[test]
    fn an_unknown_kind_is_told_from_damage() {
        assert!(matches!(ToAgent::decode(0x7777, &[1, 2, 3]), Err(FrameError::UnknownKind { kind: 0x7777 })));
    }

    #[test]
    fn a_message_that_cannot_fit_leaves_the_buffer_as_it_was() {
        let mut out = vec![1, 2, 3];
        let huge = ToAgent::from(AgentRefused { reason: "x".repeat(MAX_FRAME) });
        assert!(matches!(huge.append_to(&mut out), Err(FrameError::TooLong { .. })));
        assert_eq!(out, [1, 2, 3]);
    }
}

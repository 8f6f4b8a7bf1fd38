//! What comes from one client: bytes become whole messages, and no more of them are held than is allowed.
//!
//! The reader of frames waits until it has all of a frame before it looks how long it is. So a [`Watch`] stands before
//! it, which sees every head as it passes and ends what would be too long. A message above [`SMALL`] also needs one of
//! the few permits that all clients share, and has to be complete in time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::dev;
use actix_web::error::PayloadError;
use actix_ws::{CloseCode, CloseReason, Item, Message, MessageStream, ProtocolError};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::json::MAX_TEXT;

/// The longest message, in bytes, in however many frames.
pub const MAX_MESSAGE: usize = MAX_TEXT;
/// The longest message that needs no permit.
pub const SMALL: usize = 64 * 1024;
/// How many larger messages may be under way or waiting for their answers, of all clients together.
pub const MOST_LARGE: usize = 8;

/// Why a client cannot be listened to any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("too many long messages at a time")]
    TooMany,
    #[error("a long message took too long to arrive")]
    TooSlow,
    #[error("a text is not UTF-8")]
    NoText,
    #[error("not as WebSocket has it: {0}")]
    Protocol(String),
}

impl Broken {
    /// How the connection is closed.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::TooLong => CloseCode::Size,
            Self::TooMany => CloseCode::Again,
            Self::TooSlow => CloseCode::Policy,
            Self::NoText => CloseCode::Invalid,
            Self::Protocol(_) => CloseCode::Protocol,
        }
    }

    /// What the client is told.
    pub fn close_reason(&self) -> &'static str {
        match self {
            Self::TooLong => "message too long",
            Self::TooMany => "too many long messages, try again",
            Self::TooSlow => "message took too long",
            Self::NoText => "text is not UTF-8",
            Self::Protocol(_) => "not as RFC 6455 has it",
        }
    }
}

/// What a client sent.
pub(super) enum Heard {
    Message(Bytes),
    Ping(Bytes),
    Pong,
    Close(Option<CloseReason>),
}

/// The messages of one client.
pub(super) struct Incoming {
    stream: MessageStream,
    passage: Rc<RefCell<Passage>>,
    /// The beginning of a message in several frames, and whether it is a text.
    begun: Option<(BytesMut, bool)>,
}

impl Incoming {
    /// Reads what `stream` makes of the payload that the watch of `passage` let through.
    pub fn new(stream: MessageStream, passage: Rc<RefCell<Passage>>) -> Self {
        // The watch has the last word about lengths.
        Self { stream: stream.max_frame_size(MAX_MESSAGE), passage, begun: None }
    }

    /// The next message; `None` if the client is gone. May be given up and called again.
    pub async fn next(&mut self) -> Result<Option<Heard>, Broken> {
        loop {
            let message = match self.stream.recv().await {
                None => return Ok(None),
                Some(Ok(message)) => message,
                // If the client is only gone, what it said before is still to come.
                Some(Err(error)) => match self.broken(error) {
                    Some(broken) => return Err(broken),
                    None => continue,
                },
            };
            return Ok(Some(match message {
                Message::Text(text) => Heard::Message(text.into_bytes()),
                Message::Binary(bytes) => Heard::Message(bytes),
                Message::Ping(content) => Heard::Ping(content),
                Message::Pong(_) => Heard::Pong,
                Message::Close(reason) => Heard::Close(reason),
                Message::Continuation(piece) => match self.add(piece)? {
                    Some(message) => Heard::Message(message),
                    None => continue,
                },
                Message::Nop => continue,
            }));
        }
    }

    /// To be called once for each message: its permit, if it needed one. To be held for as long as anything of the
    /// message is.
    pub fn take_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.passage.borrow_mut().permits.pop_front().flatten()
    }

    /// Tells that a long message has begun.
    pub fn long_begun(&self) -> Rc<Notify> {
        self.passage.borrow().long_begun.clone()
    }

    /// When a long message under way is late.
    pub fn late_at(&self) -> Option<Instant> {
        self.passage.borrow().late_at
    }

    fn add(&mut self, piece: Item) -> Result<Option<Bytes>, Broken> {
        // The reader of frames has seen to it that a message begins before it goes on.
        let (bytes, last) = match piece {
            Item::FirstText(bytes) => (begin(&mut self.begun, bytes, true), false),
            Item::FirstBinary(bytes) => (begin(&mut self.begun, bytes, false), false),
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        if let Some((begun, _)) = &mut self.begun {
            begun.extend_from_slice(&bytes);
        }
        match self.begun.take_if(|_| last) {
            Some((message, true)) if std::str::from_utf8(&message).is_err() => Err(Broken::NoText),
            message => Ok(message.map(|(message, _)| message.freeze())),
        }
    }

    /// What an error means: `None` if the connection is gone, which the stream ends with anyway.
    fn broken(&self, error: ProtocolError) -> Option<Broken> {
        if let Some(broken) = self.passage.borrow_mut().broken.take() {
            return Some(broken);
        }
        match error {
            ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                let no_text = error.get_ref().is_some_and(|cause| cause.is::<std::str::Utf8Error>());
                Some(if no_text { Broken::NoText } else { Broken::Protocol(error.to_string()) })
            }
            ProtocolError::Io(_) => None,
            ProtocolError::Overflow => Some(Broken::TooLong),
            error => Some(Broken::Protocol(error.to_string())),
        }
    }
}

fn begin(begun: &mut Option<(BytesMut, bool)>, bytes: Bytes, text: bool) -> Bytes {
    *begun = Some((BytesMut::new(), text));
    bytes
}

/// What the watch lets the session know.
#[derive(Default)]
pub(super) struct Passage {
    /// One for each message that has begun to pass and was not taken yet; something if it needed a permit.
    permits: VecDeque<Option<OwnedSemaphorePermit>>,
    /// When the long message that passes now is late.
    late_at: Option<Instant>,
    /// Tells that this was set.
    long_begun: Rc<Notify>,
    /// Why nothing passes any more.
    broken: Option<Broken>,
}

/// Sees every byte before the reader of frames, and lets it through unchanged.
pub(super) struct Watch {
    payload: dev::Payload,
    heads: Heads,
    rules: Rules,
    passage: Rc<RefCell<Passage>>,
}

/// What long messages are subject to.
struct Rules {
    /// One permit for each that may be under way.
    large: Arc<Semaphore>,
    /// How long each may take to arrive.
    within: Duration,
}

impl Watch {
    /// `large` has one permit for each long message that may be under way, `within` is how long it may take to arrive.
    pub fn new(payload: dev::Payload, large: Arc<Semaphore>, within: Duration) -> (Self, Rc<RefCell<Passage>>) {
        let passage = Rc::<RefCell<Passage>>::default();
        (Self { payload, heads: Heads::default(), rules: Rules { large, within }, passage: passage.clone() }, passage)
    }
}

impl Stream for Watch {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        if watch.passage.borrow().broken.is_some() {
            return Poll::Ready(None);
        }
        let item = Pin::new(&mut watch.payload).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &item {
            let passage = &mut *watch.passage.borrow_mut();
            if let Err(broken) = watch.heads.pass(bytes, passage, &watch.rules) {
                passage.broken = Some(broken);
                return Poll::Ready(Some(Err(PayloadError::Overflow)));
            }
        }
        item
    }
}

/// Follows the heads of frames through the bytes.
#[derive(Default)]
struct Heads {
    /// What has come of the head that comes now.
    head: Vec<u8>,
    /// How much is still to come of the frame whose head has passed.
    rest: u64,
    /// Whether that frame ends a message.
    last: bool,
    /// The length of the message under way, as far as its heads have said.
    message: u64,
}

impl Heads {
    fn pass(&mut self, mut bytes: &[u8], passage: &mut Passage, rules: &Rules) -> Result<(), Broken> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let here = self.rest.min(bytes.len() as u64);
                // No more than there are bytes.
                bytes = &bytes[here as usize..];
                self.rest -= here;
            } else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                if self.head.len() < length_of_head(&self.head) {
                    continue;
                }
                self.frame(passage, rules)?;
                self.head.clear();
            }
            if self.rest == 0 && self.last {
                self.last = false;
                passage.late_at = None;
            }
        }
        Ok(())
    }

    /// Takes note of the frame whose head is complete.
    fn frame(&mut self, passage: &mut Passage, rules: &Rules) -> Result<(), Broken> {
        let (whole, kind) = (self.head[0] & 0x80 != 0, self.head[0] & 0x0f);
        self.rest = payload_of(&self.head);
        if kind >= 8 {
            return match self.rest {
                0..=125 => Ok(()),
                _ => Err(Broken::Protocol("a frame that is not data is longer than 125 bytes".into())),
            };
        }
        if kind != 0 {
            self.message = 0;
            passage.permits.push_back(None);
        }
        self.message = self.message.saturating_add(self.rest);
        self.last = whole;
        if self.message > MAX_MESSAGE as u64 {
            return Err(Broken::TooLong);
        }
        if let Some(permit @ None) = passage.permits.back_mut()
            && self.message > SMALL as u64
        {
            *permit = Some(rules.large.clone().try_acquire_owned().map_err(|_| Broken::TooMany)?);
            passage.late_at = Some(Instant::now() + rules.within);
            passage.long_begun.notify_one();
        }
        Ok(())
    }
}

/// How long a head is that begins so: with the mask, which every frame of a client has.
fn length_of_head(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let wide = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    // A frame without a mask is refused by the reader of frames before anything else of it.
    2 + wide + if second & 0x80 != 0 { 4 } else { 0 }
}

fn payload_of(head: &[u8]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match head[1] & 0x7f {
        126 => number(&head[2..4]),
        127 => number(&head[2..10]),
        short => short.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a mask of zeros, or only its beginning.
    fn frame(first: u8, length: u64, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..=125 => bytes.push(0x80 | length as u8),
            126..=0xffff => bytes.extend([&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat()),
            _ => bytes.extend([&[0x80 | 127][..], &length.to_be_bytes()].concat()),
        }
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + payload, b'x');
        bytes
    }

    struct Scene {
        heads: Heads,
        passage: Passage,
        rules: Rules,
    }

    impl Scene {
        fn new() -> Self {
            let rules = Rules { large: Arc::new(Semaphore::new(1)), within: Duration::from_secs(60) };
            Self { heads: Heads::default(), passage: Passage::default(), rules }
        }

        /// All at once, and byte by byte.
        fn pass(&mut self, bytes: &[u8]) -> Result<(), Broken> {
            self.heads.pass(bytes, &mut self.passage, &self.rules)
        }
    }

    const MAX: u64 = MAX_MESSAGE as u64;

    #[test]
    fn a_frame_is_refused_by_its_head_alone() {
        for length in [MAX + 1, 100_000_000, u64::MAX] {
            assert_eq!(Scene::new().pass(&frame(0x81, length, 0)), Err(Broken::TooLong), "{length}");
        }
        assert_eq!(Scene::new().pass(&frame(0x81, MAX, 0)), Ok(()));
        assert!(matches!(Scene::new().pass(&frame(0x89, 126, 0)), Err(Broken::Protocol(_))));
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let bytes = [frame(0x81, 5, 5), frame(0x89, 3, 3), frame(0x82, 300, 300), frame(0x81, MAX + 1, 0)].concat();
        for size in [1, 2, 3, 7, 100, bytes.len()] {
            let mut scene = Scene::new();
            let (whole, rest) = bytes.split_at(bytes.len() - 1);
            whole.chunks(size).for_each(|chunk| scene.pass(chunk).unwrap());
            assert_eq!(scene.pass(rest), Err(Broken::TooLong), "{size}");
            assert_eq!(scene.passage.permits.len(), 3, "one for each message: a ping is none");
        }
    }

    #[test]
    fn the_pieces_of_a_message_count_together() {
        let mut scene = Scene::new();
        scene.pass(&frame(0x01, 10_000_000, 10_000_000)).unwrap();
        scene.pass(&frame(0x89, 0, 0)).unwrap();
        assert_eq!(scene.pass(&frame(0x00, 10_000_000, 0)), Err(Broken::TooLong));
        let mut scene = Scene::new();
        scene.pass(&frame(0x81, 10_000_000, 10_000_000)).unwrap();
        scene.passage.permits.clear();
        assert_eq!(scene.pass(&frame(0x81, 10_000_000, 0)), Ok(()));
    }

    #[test]
    fn a_long_message_holds_a_permit_until_it_was_dealt_with() {
        let mut scene = Scene::new();
        scene.pass(&frame(0x81, SMALL as u64, SMALL)).unwrap();
        assert_eq!((scene.rules.large.available_permits(), scene.passage.late_at), (1, None));
        scene.pass(&frame(0x01, 60_000, 60_000)).unwrap();
        scene.pass(&frame(0x80, 60_000, 59_999)).unwrap();
        assert_eq!(scene.rules.large.available_permits(), 0);
        assert!(scene.passage.late_at.is_some());
        scene.pass(b"x").unwrap();
        assert_eq!(scene.passage.late_at, None, "it is complete");
        assert_eq!(scene.pass(&frame(0x81, 70_000, 0)), Err(Broken::TooMany));

        scene.passage.permits.pop_front();
        assert_eq!(scene.rules.large.available_permits(), 0, "that was the short one's turn");
        scene.passage.permits.pop_front();
        assert_eq!(scene.rules.large.available_permits(), 1);
    }
}

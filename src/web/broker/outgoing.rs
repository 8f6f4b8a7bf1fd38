//! What waits to be written to one client.
//!
//! The connection takes the frames itself, one when it has room for one, so what waits here is all that waits, but for
//! what the system and one buffer hold. A frame is made once and shared by all its readers: a server's frames have no
//! mask, so they are the same for everybody.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_ws::{CloseCode, CloseReason};
use bytes::Bytes;

/// The most frames that wait for one client.
pub const MOST_FRAMES: usize = 1024;
/// The most bytes that wait for one client, if it is more than one frame.
pub const MOST_BYTES: usize = 16 * 1024 * 1024;

/// How much memory the frames hold that wait for anybody, in bytes. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Held {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes that count for as long as anybody has them, and once however many do.
struct Counted {
    bytes: Bytes,
    held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Room in front of a payload for the longest head.
const HEAD: usize = 10;
/// The longest payload of a frame that is not data.
const MOST_CONTROL: usize = 125;

/// A whole frame, as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Frame(Bytes);

impl Frame {
    /// A text, by whoever writes it.
    pub fn text(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::new(TEXT, write)
    }

    pub fn ping() -> Self {
        Self::new(PING, |out| out.extend_from_slice(b"alive?"))
    }

    /// The answer to a ping of this content.
    pub fn pong(content: &[u8]) -> Self {
        Self::new(PONG, |out| out.extend_from_slice(&content[..content.len().min(MOST_CONTROL)]))
    }

    /// The last frame of a connection. `reason` is short.
    pub fn close(code: CloseCode, reason: &str) -> Self {
        debug_assert!(reason.len() + 2 <= MOST_CONTROL);
        Self::new(CLOSE, |out| {
            out.extend_from_slice(&u16::from(code).to_be_bytes());
            out.extend_from_slice(reason.as_bytes());
        })
    }

    /// The answer to a client that closes.
    pub fn closed(reason: Option<CloseReason>) -> Self {
        match reason {
            Some(reason) => Self::close(reason.code, ""),
            None => Self::new(CLOSE, |_| ()),
        }
    }

    /// The same, counted in `held` while it waits for anybody.
    pub fn counted(self, held: &Held) -> Self {
        held.0.fetch_add(self.0.len(), Ordering::Relaxed);
        Self(Bytes::from_owner(Counted { bytes: self.0, held: held.clone() }))
    }

    fn new(kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        const WHOLE: u8 = 0x80;
        let mut out = vec![0; HEAD];
        write(&mut out);
        let length = out.len() - HEAD;
        let wide = (length as u64).to_be_bytes();
        let head: &[u8] = match length {
            0..=125 => &[WHOLE | kind, wide[7]],
            126..=0xffff => &[WHOLE | kind, 126, wide[6], wide[7]],
            _ => &[&[WHOLE | kind, 127][..], &wide].concat(),
        };
        let begin = HEAD - head.len();
        out[begin..HEAD].copy_from_slice(head);
        Self(Bytes::from(out).slice(begin..))
    }
}

/// The frames that wait for one client. Nothing here blocks.
#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing more comes after what waits.
    ended: bool,
    /// The connection, while it has nothing to write.
    reader: Option<Waker>,
}

/// The client does not read as fast as it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    pub frames: usize,
    pub bytes: usize,
}

impl Queue {
    /// Adds a frame. A single one is never too large.
    pub fn push(&self, frame: &Frame) -> Result<(), Full> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Ok(());
        }
        let bytes = waiting.bytes + frame.0.len();
        if waiting.frames.len() >= MOST_FRAMES || (bytes > MOST_BYTES && !waiting.frames.is_empty()) {
            return Err(Full { frames: waiting.frames.len(), bytes: waiting.bytes });
        }
        waiting.frames.push_back(frame.0.clone());
        waiting.bytes = bytes;
        wake(waiting);
        Ok(())
    }

    /// Ends the connection after what waits and this last frame.
    pub fn finish(&self, last: Frame) {
        let mut waiting = self.lock();
        if !waiting.ended {
            waiting.frames.push_back(last.0);
        }
        waiting.ended = true;
        wake(waiting);
    }

    /// Ends the connection and forgets what waits.
    pub fn cut(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { ended: true, reader: waiting.reader.take(), ..Waiting::default() };
        wake(waiting);
    }

    /// How much waits, in bytes.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut waiting = self.lock();
        match waiting.frames.pop_front() {
            Some(frame) => {
                waiting.bytes = waiting.bytes.saturating_sub(frame.len());
                Poll::Ready(Some(frame))
            }
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing here panics in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader, out of the lock.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let reader = waiting.reader.take();
    drop(waiting);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// The queue as the body of the response that never ends.
pub(super) struct Outgoing {
    queue: Arc<Queue>,
    /// Only to be dropped with the connection.
    _tie: BoxBody,
}

impl Outgoing {
    /// `tie` is the body that was meant to be: dropping it tells whoever reads that the connection is gone.
    pub fn new(queue: Arc<Queue>, tie: BoxBody) -> Self {
        Self { queue, _tie: tie }
    }
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.queue.poll(context).map(|frame| frame.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Frame {
        Frame::text(|out| out.resize(out.len() + length, b'x'))
    }

    fn next(queue: &Queue) -> Poll<Option<Bytes>> {
        queue.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_head_says_how_long_its_frame_is() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 0xff, 0xff]),
            (0x10000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text(length).0;
            assert_eq!((&frame[..head.len()], frame.len()), (head, head.len() + length));
        }
        assert_eq!(Frame::close(CloseCode::Away, "Terminating").0, [&[0x88, 13, 3, 233][..], b"Terminating"].concat());
        assert_eq!(Frame::closed(None).0, [0x88, 0][..]);
        assert_eq!(Frame::pong(&[7; 300]).0.len(), 2 + MOST_CONTROL);
    }

    #[test]
    fn a_queue_is_full_by_number_and_by_bytes() {
        let queue = Queue::default();
        for _ in 0..MOST_FRAMES {
            queue.push(&text(0)).unwrap();
        }
        assert_eq!(queue.push(&text(0)), Err(Full { frames: MOST_FRAMES, bytes: 2 * MOST_FRAMES }));

        let queue = Queue::default();
        queue.push(&text(2 * MOST_BYTES)).unwrap();
        assert!(queue.push(&text(1)).is_err());
        assert!(matches!(next(&queue), Poll::Ready(Some(_))));
        queue.push(&text(1)).unwrap();
    }

    #[test]
    fn a_frame_counts_once_however_many_it_waits_for_and_until_the_last_has_it() {
        let (held, queues) = (Held::default(), [Queue::default(), Queue::default(), Queue::default()]);
        let frame = text(100).counted(&held);
        let length = frame.0.len();
        queues.iter().for_each(|queue| queue.push(&frame).unwrap());
        drop(frame);
        assert_eq!(held.bytes(), length);
        let [first, second, third] = queues;
        assert!(matches!(next(&first), Poll::Ready(Some(_))));
        second.cut();
        assert_eq!(held.bytes(), length);
        drop(third);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn a_queue_that_ended_gives_what_waits_and_takes_no_more() {
        let queue = Queue::default();
        assert!(next(&queue).is_pending());
        queue.push(&text(1)).unwrap();
        queue.finish(Frame::closed(None));
        queue.push(&text(2)).unwrap();
        queue.finish(text(3));
        assert_eq!(next(&queue), Poll::Ready(Some(text(1).0)));
        assert_eq!(next(&queue), Poll::Ready(Some(Frame::closed(None).0)));
        assert_eq!(next(&queue), Poll::Ready(None));

        let queue = Queue::default();
        queue.push(&text(1)).unwrap();
        queue.cut();
        assert_eq!(next(&queue), Poll::Ready(None));
    }
}

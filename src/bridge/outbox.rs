//! Bytes out: messages are encoded into one buffer while the other is being written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Stream;

/// What waits for a peer.
#[derive(Default)]
pub(super) struct Outbox {
    unsent: Vec<u8>,
    writing: Vec<u8>,
    /// How much of `writing` is written.
    written: usize,
    /// Whether something was written that the stream may still hold back.
    unflushed: bool,
}

impl Outbox {
    /// Where to append frames.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.unsent.len() + self.writing.len() - self.written
    }

    /// Throws away what waits, and the memory for it.
    pub fn release(&mut self) {
        *self = Self::default();
    }

    /// Writes all that waits, as few writes as it takes; ready when nothing is left.
    pub fn poll_write(&mut self, stream: &mut dyn Stream, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                std::mem::swap(&mut self.writing, &mut self.unsent);
            }
            if self.writing.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(stream).poll_flush(task))?;
                    self.unflushed = false;
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut *stream).poll_write(task, &self.writing[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
    }
}

//! Bytes in: reads into a buffer that all links of a thread share, so that an idle link holds none.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncReadExt, ReadBuf};

use super::Stream;

/// The most that one read brings: some hundred small messages, which then make one batch. With more, what the batch and
/// its effects take is more than the allocator gives out and takes back without a look at everything that was freed.
const CHUNK: usize = 32 << 10;

thread_local! {
    static CHUNK_OF_THREAD: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// What has arrived of a frame that is not whole yet.
#[derive(Default)]
pub(super) struct Inbox {
    rest: Vec<u8>,
}

impl Inbox {
    /// Whether the last read ended in the middle of something.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Gives memory back that only a busy link needs.
    pub fn release(&mut self) {
        self.rest.shrink_to_fit();
    }

    /// Reads once, and hands everything that was not used up so far to `take`, which says how much it used up now.
    ///
    /// `None` is the end of the stream. Memory grows with the bytes that came, never with what they claim.
    pub fn poll_read<R>(
        &mut self,
        stream: &mut dyn Stream,
        task: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> (usize, R),
    ) -> Poll<io::Result<Option<R>>> {
        if self.rest.len() > CHUNK / 2 {
            return self.poll_read_on(stream, task, take);
        }
        CHUNK_OF_THREAD.with_borrow_mut(|chunk| {
            // A short rest moves to the front of the chunk, so that what follows it lands behind it.
            let front = self.rest.len();
            let mut room = ReadBuf::new(&mut chunk[front..]);
            ready!(Pin::new(stream).poll_read(task, &mut room))?;
            let came = room.filled().len();
            if came == 0 {
                return Poll::Ready(Ok(None));
            }
            chunk[..front].copy_from_slice(&self.rest);
            let whole = &chunk[..front + came];
            let (used, result) = take(whole);
            self.rest.clear();
            self.rest.extend_from_slice(&whole[used..]);
            Poll::Ready(Ok(Some(result)))
        })
    }

    /// A long rest belongs to a large frame, and is where the new bytes go.
    fn poll_read_on<R>(
        &mut self,
        stream: &mut dyn Stream,
        task: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> (usize, R),
    ) -> Poll<io::Result<Option<R>>> {
        self.rest.reserve(CHUNK);
        let mut room = (&mut self.rest).limit(CHUNK);
        if ready!(pin!(stream.read_buf(&mut room)).poll(task))? == 0 {
            return Poll::Ready(Ok(None));
        }
        let (used, result) = take(&self.rest);
        self.rest.drain(..used);
        if self.rest.is_empty() {
            self.release();
        }
        Poll::Ready(Ok(Some(result)))
    }
}

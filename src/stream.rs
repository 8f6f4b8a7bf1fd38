//! What carries the bytes of a connection, encrypted or not.

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that a link or a client can be served over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Stream for T {}

//! Who is at the other end of a connection, and the connection itself.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::stream::Stream;
use crate::trust::Certificate;

/// What a connection says of a client by itself. An application finds it as the data of the connection.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub peer: SocketAddr,
    /// On this very machine: from loopback, or from the address that it came to.
    pub is_local: bool,
    pub is_encrypted: bool,
    /// One of the cluster's for an operator or an observer, which counted when the connection was made.
    pub certificate: Option<Certificate>,
}

impl Visitor {
    /// Whoever has just connected, and has said nothing yet.
    pub fn of(stream: &TcpStream, peer: SocketAddr) -> Self {
        let from = peer.ip().to_canonical();
        let came_to = stream.local_addr().map(|to| to.ip().to_canonical());
        let is_local = from.is_loopback() || came_to.is_ok_and(|to| to == from);
        Self { peer, is_local, is_encrypted: false, certificate: None }
    }
}

/// A connection whose client can speak HTTP now.
pub(super) struct Client {
    pub stream: Box<dyn Stream>,
    pub visitor: Visitor,
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, into)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

//! A port of 127.0.0.1 where nobody listens until the story says so.

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};

/// A port that is taken, and refuses connections.
pub struct Reserved {
    runtime: Runtime,
    socket: TcpSocket,
}

impl Reserved {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { runtime, socket }
    }

    pub fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Has the kernel accept connections for as long as both are kept.
    pub fn listen(self) -> (TcpListener, Runtime) {
        let Self { runtime, socket } = self;
        let entered = runtime.enter();
        let listener = socket.listen(16).unwrap();
        drop(entered);
        (listener, runtime)
    }
}

//! A way to a port that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// See the module. It ends with the test's process.
pub struct Cable {
    /// Where to connect to.
    pub end: String,
    links: Arc<Mutex<Vec<TcpStream>>>,
    is_severed: Arc<AtomicBool>,
}

impl Cable {
    pub fn lay(near: &str, far: SocketAddr) -> Self {
        let socket = TcpListener::bind(near).unwrap();
        let end = socket.local_addr().unwrap().to_string();
        let cable = Self { end, links: Arc::default(), is_severed: Arc::default() };
        let (all, is_severed) = (Arc::clone(&cable.links), Arc::clone(&cable.is_severed));
        thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let Ok(onward) = TcpStream::connect(far) else { continue };
                let twin = |stream: &TcpStream| stream.try_clone().unwrap();
                let mut all = all.lock().unwrap();
                // Whoever severs it either finds these, or was seen here.
                if is_severed.load(Ordering::Relaxed) {
                    continue;
                }
                all.extend([twin(&stream), twin(&onward)]);
                for (from, to) in [(twin(&stream), twin(&onward)), (onward, stream)] {
                    thread::spawn(move || carry(from, to));
                }
            }
        });
        cable
    }

    /// Ends all connections over it. It is there again at once.
    pub fn cut(&self) {
        let links = std::mem::take(&mut *self.links.lock().unwrap());
        links.iter().for_each(|link| drop(link.shutdown(Shutdown::Both)));
    }

    /// The same, and nobody gets through until it is mended.
    pub fn sever(&self) {
        self.is_severed.store(true, Ordering::Relaxed);
        self.cut();
    }

    pub fn mend(&self) {
        self.is_severed.store(false, Ordering::Relaxed);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 4096];
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

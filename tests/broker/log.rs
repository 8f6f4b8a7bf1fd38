//! What the endpoint logs of whom.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on. May be called again.
pub fn begin() {
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false).with_writer(|| Lines);
    // An error means that another scene has begun before.
    let _ = tracing::subscriber::set_global_default(subscriber.finish());
}

/// The lines about a client at this address.
pub fn about(client: SocketAddr) -> Vec<String> {
    let text = String::from_utf8(LINES.lock().unwrap().clone()).unwrap();
    let marks = [format!("at {client}:"), format!("at {client},")];
    text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
}

//! What the daemon tells the service manager that started it, as `sd_notify` does. Nodes are never told of that.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if there is one that wants to know.
pub(super) struct Service {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear of us.
    watchdog: Option<Duration>,
}

impl Service {
    /// Finds it by what it has put into our environment.
    pub fn find() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            let failed =
                |error: &io::Error| tracing::warn!("cannot speak to the service manager at NOTIFY_SOCKET: {error}");
            connect(&address).inspect_err(failed).ok()
        });
        let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
        let watchdog = micros.filter(|micros| for_us && *micros > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// Everything listens. From now on it hears of us as often as it wants, as long as our event loop goes round.
    pub fn is_ready(&self) {
        self.say("READY=1");
        let socket = self.socket.as_ref().and_then(|socket| socket.try_clone().ok());
        if let (Some(socket), Some(within)) = (socket, self.watchdog) {
            actix_rt::spawn(async move {
                loop {
                    tokio::time::sleep(within / 2).await;
                    let _ = socket.send(b"WATCHDOG=1"); // it may be on its way back, and asks again
                }
            });
        }
    }

    /// We are about to end.
    pub fn is_stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            tracing::warn!("cannot tell the service manager how we are: {error}");
        }
    }
}

/// A path, or a name in the abstract name space behind an `@`. Never waits for whoever is there.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_is_found_at_a_path_or_at_an_abstract_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("manager");
        let name = format!("@watchpost-test-{}", std::process::id());
        let abstract_one = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (address, manager) in [
            (path.as_os_str(), UnixDatagram::bind(&path).unwrap()),
            (OsStr::new(&name), UnixDatagram::bind_addr(&abstract_one).unwrap()),
        ] {
            let service = Service { socket: Some(connect(address).unwrap()), watchdog: None };
            service.is_stopping();
            let mut buffer = [0; 64];
            assert_eq!(manager.recv(&mut buffer).unwrap(), "STOPPING=1".len());
        }
        assert!(connect(OsStr::new("/nowhere/at/all")).is_err());
    }
}

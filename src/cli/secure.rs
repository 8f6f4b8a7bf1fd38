//! TLS under the client's HTTP, by the rule of [`Visit`].

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::trust::{TrustError, Visit};

/// Where systems keep the certificates of public authorities: the first that is there counts.
const PUBLIC: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a client finds what it shows, and by what it judges a controller.
#[derive(Debug, Clone, Default)]
pub struct Papers {
    /// A directory that `watchpost pki issue client` wrote.
    pub certificate: Option<PathBuf>,
    /// Whom to trust; if nobody says, the cluster of the certificate, and public authorities.
    pub ca: Option<PathBuf>,
}

impl Papers {
    /// What TLS needs to know. `here` is the certificate of the authority of this machine's own controller, if that is
    /// whom the client wants.
    pub fn read(&self, here: Option<&Path>) -> Result<ClientConfig, TrustError> {
        let mut visit = Visit::default();
        if let Some(directory) = &self.certificate {
            visit = visit.with_certificate(directory)?;
        }
        match &self.ca {
            Some(path) => visit = visit.with_authority(path)?,
            None => {
                if let Some(path) = here.filter(|path| self.certificate.is_none() && path.exists()) {
                    visit = visit.with_authority(path)?;
                }
                if let Some(path) = PUBLIC.iter().map(Path::new).find(|path| path.exists()) {
                    visit = visit.with_roots(path)?;
                }
            }
        }
        visit.config()
    }
}

/// Encrypts connections to addresses that begin with `https`.
pub struct Encrypt(pub Arc<ClientConfig>);

impl fmt::Debug for Encrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypt")
    }
}

impl<In: Transport> Connector<In> for Encrypt {
    type Out = Either<In, Encrypted>;

    fn connect(&self, details: &ConnectionDetails<'_>, below: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(below) = below else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(below)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::BadUri("it has no host name".into()))?;
        let broken = |error| Error::Io(io::Error::other(error));
        let mut session = ClientConnection::new(Arc::clone(&self.0), name).map_err(broken)?;
        let below: Box<dyn Transport> = Box::new(below);
        let mut below = TransportAdapter::new(below, Arc::clone(&details.current_time));
        below.set_timeout(details.timeout);
        while session.is_handshaking() {
            session.complete_io(&mut below)?;
        }
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { stream: StreamOwned::new(session, below), buffers })))
    }
}

/// An encrypted connection.
pub struct Encrypted {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let written = self.stream.write_all(&self.buffers.output()[..amount]).and_then(|()| self.stream.flush());
        // Why a server that refuses us does so comes as the last thing that it says, and explains why it does not listen.
        written.map_err(|error| match self.stream.read(&mut []) {
            Err(said) if said.get_ref().is_some() => said.into(),
            _ => error.into(),
        })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

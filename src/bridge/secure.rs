//! TLS under a link, where this end has certificates: a stream that shakes hands when it is first read or written.
//!
//! So a handshake is a part of the greeting, with its deadline and its place in the lobby, and a link is up only when
//! the peer's greeting has come through the finished handshake. That matters to whoever dials: in TLS 1.3 it has finished
//! before the other end has seen its certificate.

use std::cell::OnceCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::Error;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{Accept, Connect, LazyConfigAcceptor, StartHandshake, TlsConnector, TlsStream};

use super::greeting::{Greeting, LinkRole, Refusal};
use super::{Desk, LinkSettings, Stream};
use crate::trust::{Certificate, Credentials, Identity, JOIN_PROTOCOL, Part};

/// Whom the peer's certificate names.
#[derive(Debug, Clone, Default)]
pub enum Certified {
    /// No certificates are used on this link.
    #[default]
    Nobody,
    /// Known once hands are shaken, and so before anything is read.
    By(Rc<OnceCell<Certificate>>),
}

impl Certified {
    /// The certificate, once it is known.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Nobody => None,
            Self::By(certificate) => certificate.get(),
        }
    }

    /// Whether the certificate, if one was asked for, is for whom the greeting speaks.
    pub(super) fn vouches_for(&self, greeting: &Greeting) -> Result<(), Refusal> {
        let Self::By(certificate) = self else { return Ok(()) };
        let is_same = |identity: &Identity| {
            let part = match greeting.role {
                LinkRole::Controller => Part::Controller,
                LinkRole::Agent => Part::Agent,
            };
            identity.part == part
                && identity.name.as_str() == greeting.name
                && identity.cluster.as_str() == greeting.cluster
        };
        match certificate.get().map(|certificate| &certificate.identity) {
            Some(identity) if is_same(identity) => Ok(()),
            identity => Err(Refusal::NotVouchedFor {
                certified: identity.map_or_else(|| "nobody".into(), ToString::to_string),
                role: greeting.role,
                name: greeting.name.clone(),
                cluster: greeting.cluster.clone(),
            }),
        }
    }
}

/// What a peer's connection is read and written through.
pub(super) fn accepted(stream: TcpStream, settings: &LinkSettings) -> (Box<dyn Stream>, Certified) {
    let desk = settings.desk.clone();
    secure(stream, settings, |stream, with| {
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), stream);
        State::Greeted(greeted, Arc::clone(with), desk)
    })
}

/// What a connection of our own is read and written through.
pub(super) fn dialled(stream: TcpStream, settings: &LinkSettings) -> (Box<dyn Stream>, Certified) {
    secure(stream, settings, |stream, with| {
        // Never sent, and not looked at: the certificate is judged by the cluster's own rule.
        let nobody = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        State::Connecting(TlsConnector::from(Arc::clone(&with.connect)).connect(nobody, stream))
    })
}

fn secure(
    stream: TcpStream,
    settings: &LinkSettings,
    shake: impl FnOnce(TcpStream, &Arc<Credentials>) -> State,
) -> (Box<dyn Stream>, Certified) {
    let Some(trust) = &settings.trust else { return (Box::new(stream), Certified::Nobody) };
    let certificate = Rc::new(OnceCell::new());
    let state = Box::new(shake(stream, &trust.credentials()));
    (Box::new(Secure { state, certificate: Rc::clone(&certificate) }), Certified::By(certificate))
}

struct Secure {
    state: Box<State>,
    certificate: Rc<OnceCell<Certificate>>,
}

enum State {
    /// Its first message tells what it wants.
    Greeted(LazyConfigAcceptor<TcpStream>, Arc<Credentials>, Option<Arc<Desk>>),
    Accepting(Accept<TcpStream>),
    Connecting(Connect<TcpStream>),
    Up(TlsStream<TcpStream>),
    Broken,
}

impl Secure {
    /// The stream behind the handshake, once that is done.
    fn poll_up(&mut self, task: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let State::Greeted(greeted, with, desk) = &mut *self.state {
            let next = ready!(Pin::new(greeted).poll(task)).and_then(|start| sort(start, with, desk.as_ref()));
            match next {
                Ok(next) => *self.state = next,
                Err(error) => {
                    *self.state = State::Broken;
                    return Poll::Ready(Err(error));
                }
            }
        }
        let shaken = match &mut *self.state {
            State::Accepting(accept) => ready!(Pin::new(accept).poll(task)).map(TlsStream::from),
            State::Connecting(connect) => ready!(Pin::new(connect).poll(task)).map(TlsStream::from),
            State::Up(_) | State::Greeted(..) | State::Broken => return Poll::Ready(self.up()),
        };
        match shaken.and_then(|stream| Ok((certificate_behind(&stream)?, stream))) {
            Ok((certificate, stream)) => {
                let _ = self.certificate.set(certificate); // hands are shaken once
                *self.state = State::Up(stream);
                Poll::Ready(self.up())
            }
            Err(error) => {
                *self.state = State::Broken;
                Poll::Ready(Err(error))
            }
        }
    }

    fn up(&mut self) -> io::Result<Pin<&mut TlsStream<TcpStream>>> {
        match &mut *self.state {
            State::Up(stream) => Ok(Pin::new(stream)),
            State::Greeted(..) | State::Accepting(_) | State::Connecting(_) | State::Broken => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }
}

/// Tells one that wants to join from one that wants a link: the first goes to the desk, and is never seen here again.
fn sort(start: StartHandshake<TcpStream>, with: &Credentials, desk: Option<&Arc<Desk>>) -> io::Result<State> {
    let joins = start.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == JOIN_PROTOCOL));
    match (joins, desk) {
        (false, _) => Ok(State::Accepting(start.into_stream(Arc::clone(&with.accept)))),
        (true, Some(desk)) => {
            desk.take(start.into_stream(Arc::clone(&with.welcome)));
            Err(io::Error::other(Joins))
        }
        (true, None) => Err(io::Error::other("it wants to join, and this is no controller that anybody can join")),
    }
}

/// The connection goes on, and is no link.
#[derive(Debug, thiserror::Error)]
#[error("the peer wants to join")]
struct Joins;

/// Whether that is why there is no link.
pub(super) fn joins(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Joins>())
}

fn certificate_behind(stream: &TlsStream<TcpStream>) -> io::Result<Certificate> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    // The verifier has let it pass, so it is there and readable; but who a peer is must not hang on another's care.
    let shown = shown.ok_or_else(|| io::Error::other(Error::NoCertificatesPresented))?;
    Certificate::read(shown).map_err(|why| io::Error::other(format!("its certificate {why}")))
}

impl AsyncRead for Secure {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_up(task))?.poll_read(task, into)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_up(task))?.poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_up(task))?.poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_up(task))?.poll_shutdown(task)
    }
}

//! The controller as a command sees it: blocking HTTP, and JSON in the shapes of [`crate::web::json`].

use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use ureq::http::{Response, Uri, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body, SendBody};

use super::error::CliError;
use super::secure::{Encrypt, Papers};
use crate::settings::usual_state_dir;
use crate::trust::{complaint, refuses_us};
use crate::web::desk::ASKED_AROUND;
use crate::web::events::KEEP_ALIVE;
use crate::web::json::{Event, Problem};

/// Where a controller listens unless it was told otherwise.
pub const DEFAULT_CONTROLLER: &str = "http://127.0.0.1:2148";
/// How long a question may take unless `--timeout` says otherwise: longer than the controller's edge gives itself. An
/// order takes as long as it takes.
const QUESTION: Duration = ASKED_AROUND.saturating_add(Duration::from_secs(15));
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// After how long a stream is given up on which nothing comes.
const SILENCE: Duration = Duration::from_secs(3 * KEEP_ALIVE.as_secs());
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// Where the token comes from.
#[derive(Debug, Clone)]
pub enum TokenFile {
    /// The user named it: it must be there.
    Given(PathBuf),
    /// The usual place: it may be missing, since the controller may ask for none. What is there is told to this machine
    /// alone, since a name or address that was mistyped is somebody else's.
    Usual(PathBuf),
}

/// A controller to ask. Not `Debug`: it holds the token.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
    /// What to do if the token, or its absence, is refused.
    hint: String,
    timeout: Option<Duration>,
}

impl Client {
    /// A client of the controller at `url`. Connects to nothing yet.
    pub fn new(url: &str, token: TokenFile, papers: &Papers, timeout: Option<Duration>) -> Result<Self, CliError> {
        let is_encrypted = url.starts_with("https://");
        if let Some(certificate) = papers.certificate.as_ref().filter(|_| !is_encrypted) {
            return Err(CliError::PlainUrl { url: url.into(), certificate: certificate.clone() });
        }
        let agent = match is_encrypted {
            true => {
                let here = is_this_machine(url).then(|| usual_state_dir().join("trust/ca.pem"));
                agent(Some(papers.read(here.as_deref())?))
            }
            false => agent(None),
        };
        let client = match (&token, &papers.certificate) {
            (TokenFile::Usual(_), Some(directory)) => {
                let hint = format!("the certificate in {} is not one that it accepts", directory.display());
                Self { hint, ..Self::with_token(url, None)? }
            }
            _ => Self::with_token_in(url, token)?,
        };
        Ok(Self { agent, timeout, ..client })
    }

    fn with_token_in(url: &str, token: TokenFile) -> Result<Self, CliError> {
        let (path, given) = match token {
            TokenFile::Given(path) => (path, true),
            TokenFile::Usual(path) => (path, false),
        };
        if !given && !is_this_machine(url) {
            let place = path.display();
            let hint = format!(
                "the token in {place} is for controllers on this machine: show this one a certificate with --certificate \
                 DIR, or name the file of a token for it with --token-file FILE"
            );
            return Ok(Self { hint, ..Self::with_token(url, None)? });
        }
        let (token, hint) = match read_token(&path) {
            Ok(token) => {
                (Some(token), format!("the token in {} is not that controller's, or counts no more", path.display()))
            }
            Err(error) if !given && error.kind() == io::ErrorKind::NotFound => {
                let place = path.display();
                (None, format!("there is no token in {place}: name the file with --token-file FILE"))
            }
            Err(source) => return Err(CliError::Token { path, source }),
        };
        Ok(Self { hint, ..Self::with_token(url, token)? })
    }

    /// A client that knows the token itself.
    pub fn with_token(url: &str, token: Option<String>) -> Result<Self, CliError> {
        let url = url.trim_end_matches('/').to_owned();
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if rest.is_none_or(str::is_empty) {
            return Err(CliError::Url(url));
        }
        let hint = "the token is not that controller's".into();
        Ok(Self { agent: agent(None), url, token, hint, timeout: None })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// That the controller is away which was there before.
    pub fn lost(&self, reason: impl ToString) -> CliError {
        lost(&self.url, reason)
    }

    /// Asks; the answer is both as it came and understood.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(String, T), CliError> {
        let timeout = Some(self.timeout.unwrap_or(QUESTION));
        let request = self.agent.get(self.at(path)).config().timeout_global(timeout).build();
        let request = request.header(header::AUTHORIZATION, self.authorization());
        self.read(self.checked(request.call())?)
    }

    /// Gives an order and waits for its verdict.
    pub fn order<T: DeserializeOwned>(&self, method: Method, path: &str, body: &str) -> Result<(String, T), CliError> {
        let request = match method {
            Method::Post => self.agent.post(self.at(path)),
            Method::Put => self.agent.put(self.at(path)),
        };
        let request = request.config().timeout_global(self.timeout).build();
        let request = request.header(header::AUTHORIZATION, self.authorization());
        self.read(self.checked(request.header(header::CONTENT_TYPE, "application/json").send(body))?)
    }

    /// Sends bytes of that number, and waits for what is said of them.
    pub fn send<T: DeserializeOwned>(&self, path: &str, bytes: &mut dyn io::Read, length: u64) -> Result<T, CliError> {
        let request = self.agent.put(self.at(path)).config().timeout_global(self.timeout).build();
        let request = request.header(header::AUTHORIZATION, self.authorization());
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        let request = request.header(header::CONTENT_LENGTH, length);
        let answer = request.send(SendBody::from_reader(&mut io::Read::take(bytes, length)));
        Ok(self.read(self.checked(answer)?)?.1)
    }

    /// Opens a stream of events; a silence of three keep-alives ends it with an error.
    pub fn events(&self, query: &str) -> Result<Events, CliError> {
        self.stream(&format!("/api/v1/events?{query}"))
    }

    /// Opens a stream of objects; a silence of three keep-alives ends it with an error.
    pub fn stream<T>(&self, path: &str) -> Result<Stream<T>, CliError> {
        let request = self.agent.get(self.at(path)).config().timeout_per_read(Some(SILENCE)).build();
        let request = request.header(header::AUTHORIZATION, self.authorization());
        let response = self.checked(request.header(header::ACCEPT, "application/x-ndjson").call())?;
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Stream { url: self.url.clone(), lines: BufReader::new(Box::new(reader)), of: PhantomData })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Without a token the header is sent all the same: a controller that wants one answers 401, any other ignores it.
    fn authorization(&self) -> String {
        format!("Bearer {}", self.token.as_deref().unwrap_or_default())
    }

    /// Sorts answers that are none by what the user can do about them.
    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, CliError> {
        let mut response = answer.map_err(|error| self.failure(error))?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let url = self.url.clone();
        let text = response.body_mut().with_config().limit(LONGEST).read_to_string().unwrap_or_default();
        let Ok(problem) = serde_json::from_str::<Problem>(&text) else {
            return Err(CliError::Foreign { url, reason: format!("status {status} without an explanation") });
        };
        Err(match status {
            401 => CliError::NotPermitted { url, problem, hint: self.hint.clone() },
            403 => {
                let hint = "its settings say by which `hosts` it may be called, a certificate or a token what its bearer may do";
                CliError::NotPermitted { url, problem, hint: hint.into() }
            }
            400 | 422 => CliError::Wrong(problem),
            404 => CliError::Absent(problem),
            504 => CliError::TimedOut { url, after: self.timeout.unwrap_or(QUESTION) },
            _ => CliError::Refused { url, status, problem },
        })
    }

    fn read<T: DeserializeOwned>(&self, mut response: Response<Body>) -> Result<(String, T), CliError> {
        let text = response.body_mut().with_config().limit(LONGEST).read_to_string();
        let text = text.map_err(|error| self.failure(error))?;
        match serde_json::from_str(&text) {
            Ok(answer) => Ok((text, answer)),
            Err(error) => Err(CliError::Foreign { url: self.url.clone(), reason: error.to_string() }),
        }
    }

    fn failure(&self, error: ureq::Error) -> CliError {
        let url = self.url.clone();
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                CliError::NoController { url, reason: "nobody answers there".into(), was_reached: false }
            }
            ureq::Error::Timeout(_) => CliError::TimedOut { url, after: self.timeout.unwrap_or(QUESTION) },
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => CliError::Url(url),
            ureq::Error::Protocol(error) => CliError::Foreign { url, reason: error.to_string() },
            ureq::Error::Io(error) if refuses_us(&error) => {
                CliError::Unwelcome { url, reason: complaint(&error).unwrap_or_default() }
            }
            ureq::Error::Io(error) => match complaint(&error) {
                Some(reason) => CliError::Untrusted { url, reason },
                None => {
                    let was_reached = !never_got_there(error.kind());
                    CliError::NoController { url, reason: error.to_string(), was_reached }
                }
            },
            other => CliError::NoController { url, reason: other.to_string(), was_reached: false },
        }
    }
}

/// What speaks HTTP for a client, through TLS where that is needed.
fn agent(tls: Option<ClientConfig>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // A controller is asked directly or through a tunnel, never through a proxy.
        .proxy(None)
        .timeout_connect(Some(CONNECT))
        .build();
    match tls {
        None => config.into(),
        Some(tls) => {
            let connector = TcpConnector::default().chain(Encrypt(Arc::new(tls)));
            Agent::with_parts(config, connector, DefaultResolver::default())
        }
    }
}

/// Whether there was no connection that anything could have been said on.
fn never_got_there(error: io::ErrorKind) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(error, AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied)
}

/// How an order is sent.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Post,
    Put,
}

/// Events as they come.
pub type Events = Stream<Event>;

/// Objects as they come, each both as its line and understood.
pub struct Stream<T> {
    url: String,
    lines: BufReader<Box<dyn io::Read + Send>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    /// That the controller is away which it came from.
    pub fn lost(&self, reason: impl ToString) -> CliError {
        lost(&self.url, reason)
    }
}

fn lost(url: &str, reason: impl ToString) -> CliError {
    CliError::NoController { url: url.to_owned(), reason: reason.to_string(), was_reached: true }
}

impl<T: DeserializeOwned> Iterator for Stream<T> {
    type Item = Result<(String, T), CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Err(error) if is_silence(&error) => {
                    let silence = humantime::format_duration(SILENCE);
                    return Some(Err(self.lost(format!("nothing was heard of it for {silence}"))));
                }
                Err(error) => return Some(Err(self.lost(error))),
                Ok(_) => {}
            }
            let line = line.trim_end();
            if !line.is_empty() {
                let event = serde_json::from_str(line);
                let url = self.url.clone();
                let event = event.map_err(|error| CliError::Foreign { url, reason: error.to_string() });
                return Some(event.map(|event| (line.to_owned(), event)));
            }
        }
    }
}

/// Whether a stream ends since nothing came on it.
fn is_silence(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
    matches!(cause, Some(ureq::Error::Timeout(_)))
}

/// Whether whoever listens at `url` is on this machine. What cannot be read as a URL is nowhere.
fn is_this_machine(url: &str) -> bool {
    let url = url.parse::<Uri>();
    let host = url.as_ref().ok().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

fn read_token(path: &Path) -> io::Result<String> {
    let token = std::fs::read_to_string(path)?.trim().to_owned();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_on_which_nothing_comes_is_told_from_one_that_is_cut() {
        let silent = io::Error::other(ureq::Error::Timeout(ureq::Timeout::PerCall));
        assert!(is_silence(&silent) && !is_silence(&io::ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn only_addresses_of_this_machine_are_on_this_machine() {
        for url in ["http://127.0.0.1:2148", "http://127.9.9.9", "http://[::1]:2148/", "http://LocalHost:1"] {
            assert!(is_this_machine(url), "{url}");
        }
        for url in [
            "http://10.0.0.1:2148",
            "http://0.0.0.0:2148",
            "http://localhost.example",
            "http://127.0.0.1@evil.example:2148",
            "http://127.0.0.1.evil.example",
            "http://[::]:1",
            "http://",
        ] {
            assert!(!is_this_machine(url), "{url}");
        }
    }

    #[test]
    fn the_token_in_the_usual_place_is_told_to_nobody_beyond_this_machine() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "s3cret\n").unwrap();
        let papers = Papers::default();
        let token =
            |url, token: fn(PathBuf) -> TokenFile| Client::new(url, token(file.path().into()), &papers, None).unwrap();
        assert_eq!(token("http://127.0.0.1:1", TokenFile::Usual).token.as_deref(), Some("s3cret"));
        assert_eq!(token("http://10.0.0.1:1", TokenFile::Given).token.as_deref(), Some("s3cret"));
        let beyond = token("http://10.0.0.1:1", TokenFile::Usual);
        assert_eq!(beyond.token, None);
        assert!(beyond.hint.ends_with("with --token-file FILE"), "{}", beyond.hint);
    }
}

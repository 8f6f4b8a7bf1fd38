//! Where those are answered that want to join: one question, one answer, and the connection is closed. None of them is
//! ever a link, and what each may cost is bounded.

use std::collections::BTreeMap;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::greeting::printable;
use crate::message::frame::{MAX_GREETING, Wire, split};
use crate::message::join::{FromJoiner, JoinAccepted, JoinRefused, JoinRequest, JoinWaiting, ToJoiner};
use crate::model::InstanceName;
use crate::seldom::SeldomEach;
use crate::trust::{Application, Denial, Registrar, Secret, complaint};

/// How many may be without a question at a time; beyond that the one is dropped that has taken longest.
const PLACES: usize = 64;
/// How many may wait for somebody to sign their requests. Others are told to ask again later.
const WAITING: usize = 64;
/// How long each of those waits, before it is told to ask again.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A guess is answered no sooner than this.
const AFTER_A_GUESS: Duration = Duration::from_secs(1);
/// How long an answer may take to be taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// See the module.
pub struct Desk {
    registrar: Arc<Registrar>,
    question_within: Duration,
    places: Mutex<Places>,
    waiting: AtomicUsize,
    /// Strangers can be turned away as often as they like.
    turned_away: SeldomEach<Kind>,
}

/// Who has not asked yet, by number; dropped, it ends.
#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// What makes reasons the same to whoever reads of them.
#[derive(PartialEq)]
enum Kind {
    NoQuestion(Discriminant<NoQuestion>),
    NoName,
    Denied(Discriminant<Denial>),
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk(..)")
    }
}

/// Why there was no question to answer.
#[derive(Debug, thiserror::Error)]
enum NoQuestion {
    #[error("{}", complaint(.0).unwrap_or_else(|| .0.to_string()))]
    Connection(#[from] io::Error),
    #[error("what it said is no request to join: {0}")]
    Nonsense(String),
    #[error("it did not ask within {}", humantime::format_duration(*.0))]
    Late(Duration),
    #[error("too many wanted to join without asking, and this was the oldest")]
    Crowded,
}

impl Desk {
    /// A desk whose answers come from this registrar, for those that ask within that time.
    pub fn new(registrar: Arc<Registrar>, question_within: Duration) -> Self {
        Self {
            registrar,
            question_within,
            places: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turned_away: SeldomEach::new(),
        }
    }

    /// Answers whoever is at the other end, once hands are shaken.
    pub(super) fn take(self: &Arc<Self>, shaking: Accept<TcpStream>) {
        let host = shaking.get_ref().and_then(|stream| stream.peer_addr().ok());
        let (number, crowded) = self.admit();
        let desk = Arc::clone(self);
        actix_rt::spawn(async move {
            let asked = tokio::select! {
                asked = timeout(desk.question_within, question(shaking)) => {
                    asked.unwrap_or(Err(NoQuestion::Late(desk.question_within)))
                }
                _ = crowded => Err(NoQuestion::Crowded),
            };
            lock(&desk.places).taken.remove(&number);
            match asked {
                Ok((stream, request)) => desk.answer(stream, request, host).await,
                Err(why) => desk.say_turned_away(host, Kind::NoQuestion(discriminant(&why)), &why.to_string()),
            }
        });
    }

    /// A place, at the cost of whoever has had his for the longest time if there is none.
    fn admit(&self) -> (u64, oneshot::Receiver<()>) {
        let (crowding, crowded) = oneshot::channel();
        let mut places = lock(&self.places);
        while places.taken.len() >= PLACES {
            let _ = places.taken.pop_first(); // whoever had it hears of it
        }
        places.next += 1;
        let number = places.next;
        places.taken.insert(number, crowding);
        (number, crowded)
    }

    async fn answer(&self, mut stream: TlsStream<TcpStream>, request: JoinRequest, host: Option<SocketAddr>) {
        let JoinRequest { cluster, name, secret, request } = request;
        let answer: ToJoiner = match InstanceName::new(&name) {
            Err(error) => {
                self.say_turned_away(host, Kind::NoName, &error.to_string());
                JoinRefused { reason: error.to_string() }.into()
            }
            Ok(name) => {
                let application = Application { cluster, name: name.clone(), secret: Secret(secret), request };
                match self.decide(&mut stream, application, host).await {
                    Some(answer) => answer,
                    None => return,
                }
            }
        };
        let _ = timeout(ANSWER_WITHIN, tell(&mut stream, answer)).await; // gone, it asks again
    }

    /// The last answer; `None` if there is nobody left to hear it.
    async fn decide(
        &self,
        stream: &mut TlsStream<TcpStream>,
        application: Application,
        host: Option<SocketAddr>,
    ) -> Option<ToJoiner> {
        let name = application.name.clone();
        let has_place = self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING;
        let _waits = Waits(&self.waiting);
        let waits = async || {
            info!(host = host.map(tracing::field::display), "agent {name} wants to join: `watchpost pki sign {name}`");
            let reason = format!("somebody has to run `watchpost pki sign {name}` where the authority's key is");
            let _ = timeout(ANSWER_WITHIN, tell(stream, JoinWaiting { reason }.into())).await;
        };
        let patience = if has_place { PATIENCE } else { ANSWER_WITHIN };
        let decided = timeout(patience, self.registrar.join(application, waits)).await;
        match decided {
            Ok(Ok(certificate)) => {
                info!(host = host.map(tracing::field::display), "agent {name} has joined");
                Some(JoinAccepted { certificate: certificate.to_vec() }.into())
            }
            Ok(Err(denial)) => {
                let kind = Kind::Denied(discriminant(&denial));
                self.say_turned_away(host, kind, &format!("as agent {name}: {denial}"));
                if denial.is_a_guess() {
                    sleep(AFTER_A_GUESS).await;
                }
                Some(JoinRefused { reason: denial.to_string() }.into())
            }
            Err(_) => None, // it was told to wait, and asks again
        }
    }

    fn say_turned_away(&self, host: Option<SocketAddr>, kind: Kind, why: &str) {
        let (host, why) = (host.map(|host| host.ip()).map(tracing::field::display), printable(why));
        match self.turned_away.say(kind, Instant::now()) {
            Some(0) => warn!(host, "cannot let it join: {why}"),
            Some(unsaid) => warn!(host, "cannot let it join, nor {unsaid} before it: {why}"),
            None => {}
        }
    }
}

/// Counted while it waits.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is in there is whole, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one thing that it has to say, which is short.
async fn question(shaking: Accept<TcpStream>) -> Result<(TlsStream<TcpStream>, JoinRequest), NoQuestion> {
    let nonsense = |error: &dyn std::fmt::Display| NoQuestion::Nonsense(error.to_string());
    let mut stream = shaking.await?;
    let mut bytes = Vec::with_capacity(MAX_GREETING);
    loop {
        if let Some(frame) = split(&bytes, MAX_GREETING).map_err(|error| nonsense(&error))? {
            let FromJoiner::JoinRequest(request) =
                FromJoiner::decode(frame.kind, frame.body).map_err(|error| nonsense(&error))?;
            return Ok((stream, request));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(nonsense(&"the connection was closed"));
        }
    }
}

async fn tell(stream: &mut TlsStream<TcpStream>, answer: ToJoiner) -> io::Result<()> {
    let mut bytes = Vec::new();
    answer.append_to(&mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

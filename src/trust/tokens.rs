//! Bearer tokens of the HTTP API, for clients that have no certificate: a file in the controller's state directory that
//! the command line writes and the running controller heeds.
//!
//! Of a token the file has its hash alone. A plain SHA-256 is enough: a token is 256 random bits, which nobody finds by
//! trying, however quick a try is. The slow hashes that passwords need would only let strangers keep the controller busy.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info};

use super::files::{self, Stamp};
use super::{Access, TrustError};
use crate::model::{InstanceName, Timestamp};
use crate::notice::heed;

/// The first line of the file, with the number of its format.
const HEAD: &str = "watchpost-tokens 1";
/// What every token begins with, so that a program that looks for secrets in the wrong place knows one.
const PREFIX: &str = "wpt_";
/// Random bytes of a token.
const BYTES: usize = 32;
/// The longest file, in bytes: some five thousand tokens.
const LONGEST: u64 = 1 << 20;

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub name: InstanceName,
    pub access: Access,
    pub created: Timestamp,
    /// `None` for one that does not expire.
    pub expires: Option<Timestamp>,
    hash: String,
}

impl Token {
    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn line(&self) -> String {
        let expires = self.expires.map_or("never".into(), |expires| expires.to_string());
        format!("{} {} {} {expires} {}\n", self.hash, self.access, self.created, self.name)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (hash, access, created, expires, name) = (next()?, next()?, next()?, next()?, next()?);
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let expires = match expires {
            "never" => None,
            at => Some(moment(at)?),
        };
        let token = Self {
            name: InstanceName::new(name).ok()?,
            access: Access::from_word(access)?,
            created: moment(created)?,
            expires,
            hash: hash.to_owned(),
        };
        (is_hash && words.next().is_none()).then_some(token)
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(u64::try_from(since.as_micros()).ok()?))
}

/// In hexadecimal digits.
fn hash(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that depends on the lengths alone, so that a guess learns nothing from how long it took.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

/// Makes a token for `name`, good for `valid` or without end; returns it, which is the only time that anybody sees it.
pub fn create(
    state_dir: &Path,
    name: &InstanceName,
    access: Access,
    valid: Option<Duration>,
    now: Timestamp,
) -> Result<(String, Token), TrustError> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(TrustError::Random)?;
    let secret = random.iter().fold(PREFIX.to_owned(), |secret, byte| secret + &format!("{byte:02x}"));
    let after = |valid: Duration| u64::try_from(valid.as_micros()).ok().and_then(|valid| now.0.checked_add(valid));
    let expires = valid.map(|valid| after(valid).map(Timestamp).ok_or(TrustError::TooFar)).transpose()?;
    let token = Token { name: name.clone(), access, created: now, expires, hash: hash(&secret) };
    change(state_dir, |tokens| {
        tokens.retain(|token| !token.has_expired(now));
        tokens.push(token.clone());
    })?;
    Ok((secret, token))
}

/// Every token that is kept, oldest first.
pub fn list(state_dir: &Path) -> Result<Vec<Token>, TrustError> {
    Ok(read(&path(state_dir))?.unwrap_or_default())
}

/// Ends every token of `name` at once; returns how many there were.
pub fn end(state_dir: &Path, name: &InstanceName) -> Result<usize, TrustError> {
    // Where there are none, nothing is locked or written.
    if !list(state_dir)?.iter().any(|token| token.name == *name) {
        return Ok(0);
    }
    let mut ended = 0;
    change(state_dir, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        ended = before - tokens.len();
    })?;
    Ok(ended)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("tokens")
}

/// The tokens in a file, if it is there. What is no list of tokens is refused as a whole.
fn read(path: &Path) -> Result<Option<Vec<Token>>, TrustError> {
    let (bytes, mode) = match files::read(path, LONGEST) {
        Err(TrustError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(TrustError::Read { path, source }) => return Err(TrustError::ReadTokens { path, source }),
        Err(TrustError::TooLong { path, longest }) => {
            let why = format!(
                "it is longer than {longest} bytes; move it away, and make new tokens by `watchpost token create`"
            );
            return Err(TrustError::Damaged { path, why });
        }
        found => found?,
    };
    if mode & 0o077 != 0 {
        return Err(TrustError::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let damaged = |why: String| TrustError::Damaged { path: path.to_owned(), why };
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text".into()))?;
    let mut lines = text.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
    if lines.next().flatten() != Some(HEAD) {
        let why =
            format!("it does not begin with `{HEAD}`; move it away, and make new tokens by `watchpost token create`");
        return Err(damaged(why));
    }
    // The line itself is not repeated: who knows what it is.
    let wrong = |at| damaged(format!("line {} is no token; take it out", at + 2));
    let tokens = lines.enumerate().map(|(at, line)| line.and_then(Token::read).ok_or_else(|| wrong(at)));
    tokens.collect::<Result<_, _>>().map(Some)
}

/// Changes the list, which nobody else does meanwhile.
fn change(state_dir: &Path, change: impl FnOnce(&mut Vec<Token>)) -> Result<(), TrustError> {
    let found =
        std::fs::metadata(state_dir).map_err(|source| TrustError::NoStateDir { path: state_dir.into(), source })?;
    let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        // A file of ours there would be closed to the controller, which could then let nobody in.
        return Err(TrustError::Foreign { path: state_dir.into(), owner, us });
    }
    let _alone = files::lock_as(&state_dir.join("tokens.lock"))?;
    let path = path(state_dir);
    let mut tokens = read(&path)?.unwrap_or_default();
    change(&mut tokens);
    let text = tokens.iter().fold(format!("{HEAD}\n"), |text, token| text + &token.line());
    match text.len() as u64 > LONGEST {
        true => Err(TrustError::TooManyTokens { path, longest: LONGEST }),
        false => files::write(&path, text.as_bytes(), 0o600),
    }
}

/// The tokens that a running controller accepts. Nobody is let in by a file that cannot be read.
pub struct Tokens {
    state_dir: PathBuf,
    current: Mutex<(Option<Stamp>, Vec<Token>)>,
    /// Tells whoever stands on a token to look whether it still counts.
    changed: watch::Sender<()>,
}

impl Tokens {
    /// Those in a state directory, which need not be there.
    pub fn open(state_dir: &Path) -> Self {
        let tokens =
            Self { state_dir: state_dir.to_owned(), current: Mutex::default(), changed: watch::Sender::new(()) };
        tokens.refresh();
        tokens
    }

    /// The token that a client gave, if it counts now.
    pub fn find(&self, given: &str, now: Timestamp) -> Option<Token> {
        self.refresh();
        let given = hash(given);
        // All of them are looked at, whichever it is.
        let current = self.lock();
        let found = current
            .1
            .iter()
            .fold(None, |found, token| if same(token.hash.as_bytes(), given.as_bytes()) { Some(token) } else { found });
        found.filter(|token| !token.has_expired(now)).cloned()
    }

    /// Resolves when the token counts no more: as soon as that is so if [`Self::watch`] is polled.
    pub async fn ended(&self, token: &Token) {
        let mut changed = self.changed.subscribe();
        loop {
            let now = Timestamp::now();
            if token.has_expired(now) || !self.lock().1.contains(token) {
                return;
            }
            let left = token.expires.map(|expires| Duration::from_micros(expires.0.saturating_sub(now.0)));
            let expired = async {
                match left {
                    Some(left) => sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changed.changed() => {} // the sender is ours
                () = expired => {}
            }
        }
    }

    /// Heeds what changes in the state directory at once, for as long as the future is polled.
    pub async fn watch(self: Arc<Self>) {
        heed(|| self.state_dir.clone(), || self.refresh()).await;
    }

    /// Reads the file again if it changed. Of one that cannot be used the log hears once.
    fn refresh(&self) {
        let path = path(&self.state_dir);
        let mut current = self.lock();
        let stamp = Stamp::of(&path);
        if stamp == current.0 {
            return;
        }
        let tokens = read(&path).map(Option::unwrap_or_default);
        match &tokens {
            Ok(tokens) => info!(tokens = tokens.len(), "the list of tokens was read"),
            Err(error) => error!("nobody gets in by a token: {error}"),
        }
        *current = (stamp, tokens.unwrap_or_default());
        drop(current);
        self.changed.send_replace(());
    }

    /// What is in there is whole, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, (Option<Stamp>, Vec<Token>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tokio::time::timeout;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn named(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    #[test]
    fn a_token_is_kept_as_its_hash_alone_and_for_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let (secret, made) = create(home.path(), &named("alice"), Access::Operate, Some(DAY), now).unwrap();
        assert_eq!(secret.len(), PREFIX.len() + 64);
        let text = fs::read_to_string(path(home.path())).unwrap();
        assert!(!text.contains(&secret[PREFIX.len()..]) && text.contains(&hash(&secret)), "{text}");
        assert_eq!(fs::metadata(path(home.path())).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(list(home.path()).unwrap(), std::slice::from_ref(&made));
        let tokens = Tokens::open(home.path());
        assert_eq!(tokens.find(&secret, now), Some(made));
        assert_eq!(tokens.find(&hash(&secret), now), None, "the hash is no token");
        assert_eq!(tokens.find("", now), None);
        assert_eq!(tokens.find(&secret, Timestamp(now.0 + DAY.as_micros() as u64)), None, "expired");
        let (second, _) = create(home.path(), &named("alice"), Access::Operate, None, now).unwrap();
        assert_ne!(second, secret);
    }

    #[test]
    fn what_ends_by_name_leaves_the_others() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let make = |name| create(home.path(), &named(name), Access::Observe, None, now).unwrap().0;
        let (alice, bob, again) = (make("alice"), make("bob"), make("alice"));
        let tokens = Tokens::open(home.path());
        assert_eq!(end(home.path(), &named("alice")).unwrap(), 2);
        assert_eq!(end(home.path(), &named("alice")).unwrap(), 0);
        assert_eq!([&alice, &again].map(|token| tokens.find(token, now)), [None, None]);
        assert!(tokens.find(&bob, now).is_some());
    }

    #[test]
    fn a_list_that_cannot_be_read_lets_nobody_in_and_is_not_written_over() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let (secret, _) = create(home.path(), &named("alice"), Access::Operate, None, now).unwrap();
        let path = path(home.path());
        let whole = fs::read(&path).unwrap();
        let tokens = Tokens::open(home.path());
        for length in (1..whole.len()).filter(|length| *length != HEAD.len() + 1) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(list(home.path()), Err(TrustError::Damaged { .. })), "{length}");
            assert!(create(home.path(), &named("bob"), Access::Operate, None, now).is_err());
            assert_eq!(tokens.find(&secret, now), None, "{length}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(tokens.find(&secret, now).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(list(home.path()), Err(TrustError::Exposed { .. })));
        fs::remove_file(&path).unwrap();
        assert_eq!(tokens.find(&secret, now), None, "lost");
    }

    #[test]
    fn what_has_expired_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        create(home.path(), &named("old"), Access::Observe, Some(DAY), now).unwrap();
        let later = Timestamp(now.0 + 2 * DAY.as_micros() as u64);
        create(home.path(), &named("new"), Access::Observe, Some(DAY), later).unwrap();
        assert_eq!(list(home.path()).unwrap().into_iter().map(|token| token.name).collect::<Vec<_>>(), [named("new")]);
        let forever = create(home.path(), &named("new"), Access::Observe, Some(Duration::MAX), now);
        assert!(matches!(forever, Err(TrustError::TooFar)));
    }

    #[actix_rt::test]
    async fn whoever_stands_on_a_token_hears_of_its_end() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let make = |name, valid| create(home.path(), &named(name), Access::Observe, valid, now).unwrap().1;
        let (revoked, brief) = (make("alice", None), make("bob", Some(Duration::from_millis(300))));
        let tokens = Arc::new(Tokens::open(home.path()));
        let watching = actix_rt::spawn(Arc::clone(&tokens).watch());
        let soon = Duration::from_secs(20);
        timeout(soon, tokens.ended(&brief)).await.expect("its time is over");
        let hears = async { tokio::join!(tokens.ended(&revoked), async { end(home.path(), &named("alice")) }) };
        timeout(soon, hears).await.expect("it was revoked").1.unwrap();
        watching.abort();
    }

    #[test]
    fn lengths_and_bytes_are_compared() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}

//! The directory in which a controller or an agent keeps what must survive it: taken by one process at a time.
//!
//! Everything in it is reached through the process that holds the lock, but for the two files that the command line
//! reads: the token, and the addresses under which the daemons are found.

mod format;
mod lock;
mod loss;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use lock::Holder;

use crate::supervisor::process::identity;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// No small file of ours is longer than this, in bytes.
const SMALL_FILE: u64 = 1 << 20;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("cannot make the state directory {}: choose another one by `state_dir`", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "{} belongs to user {owner}, and this process is user {us}: whoever owns it decides what runs; take it over by \
         `chown`, or choose another one by `state_dir`",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32, us: u32 },
    #[error(
        "{} can be written by others (mode {mode:o}), who could then decide what runs: run `chmod go-w {}`, or choose \
         another one by `state_dir`",
        path.display(), path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
    #[error(
        "the state directory {} is in use by {by}, or choose another one by `state_dir`",
        path.display()
    )]
    Taken { path: PathBuf, by: Holder },
    #[error(
        "the state directory {} is in format {format}, of watchpost {release}, and watchpost {} knows formats up to {}: \
         run that release, or choose another directory by `state_dir`; nothing in it was touched",
        path.display(), env!("CARGO_PKG_VERSION"), format::FORMAT
    )]
    Newer { path: PathBuf, format: u32, release: String },
    #[error(
        "{} does not say which format the state directory has, such as `1 watchpost 0.1.0`: it is damaged, or of something \
         else; put right what wrote it, or choose another directory by `state_dir`",
        path.display()
    )]
    NoFormat { path: PathBuf },
    #[error("cannot write {}: the disk may be full, read-only, or another user's", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} can be read by others (mode {mode:o}): remove it for a new one, or run `chmod 600` if nobody \
         has seen it",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is damaged ({why}): remove it, and a new one is made at the next start", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the system has no random bytes to give: {0}")]
    Random(getrandom::Error),
}

impl StateDirError {
    /// Whether there is no room left, and nothing else is wrong.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let (Self::Write { source, .. } | Self::Create { source, .. }) = self else { return false };
        matches!(source.kind(), StorageFull | QuotaExceeded)
    }
}

/// A state directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Open, and therefore locked.
    lock: File,
}

impl StateDir {
    /// Makes the directory if it is not there (for its owner alone), locks it, and proves that it can be written.
    ///
    /// A directory that another process holds, that anybody else may write, or that a later release has written, is refused
    /// before anything in it is touched; what an earlier one has written is carried over.
    pub fn take(path: &Path) -> Result<Self, StateDirError> {
        let (taken, format) = Self::lock(path)?;
        taken.prove(format)?;
        Ok(taken)
    }

    /// The same for an agent, which has nodes to mind also where the disk is full: one in whose directory nodes were run
    /// before gets it all the same, and what could not be written.
    pub fn take_though_full(path: &Path) -> Result<(Self, Option<StateDirError>), StateDirError> {
        let (taken, format) = Self::lock(path)?;
        match taken.prove(format) {
            Ok(()) => Ok((taken, None)),
            Err(full) if full.is_full() && format == format::FORMAT && taken.has_had_nodes() => Ok((taken, Some(full))),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory, locks it, and says in which format it is.
    fn lock(path: &Path) -> Result<(Self, u32), StateDirError> {
        // Nodes are started elsewhere, so what they are handed must not depend on where we are.
        let path =
            std::path::absolute(path).map_err(|source| StateDirError::Create { path: path.to_owned(), source })?;
        make_private(&path)?;
        let lock = lock::lock(&path)?;
        let format = format::check(&path)?;
        Ok((Self { path, lock }, format))
    }

    /// Proves that it can be written, and brings it to the format of this release.
    fn prove(&self, format: u32) -> Result<(), StateDirError> {
        let pid = format!("{}\n", std::process::id());
        // Over what is there, so that it takes no room.
        let write = self.lock.write_all_at(pid.as_bytes(), 0).and_then(|()| self.lock.set_len(pid.len() as u64));
        write.map_err(write_error(&self.path.join(LOCK)))?;
        make_private(&self.nodes())?;
        self.write_atomically("probe", b"can this be written?\n", 0o600)?;
        fs::remove_file(self.path.join("probe")).map_err(write_error(&self.path.join("probe")))?;
        format::carry_over(self, format)
    }

    fn has_had_nodes(&self) -> bool {
        fs::read_dir(self.nodes()).is_ok_and(|mut nodes| nodes.next().is_some())
    }

    /// Lets the nodes of an agent through, which may run as other users, to what was rendered for them and to their own
    /// directories: whoever knows a name may go there, and nobody sees which names there are.
    pub fn let_nodes_through(&self) -> Result<(), StateDirError> {
        [self.path.clone(), self.nodes()].iter().try_for_each(|path| {
            let mode = fs::metadata(path).map_err(write_error(path))?.mode() & 0o7777;
            match mode & 0o111 {
                0o111 => Ok(()),
                _ => fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o011)).map_err(write_error(path)),
            }
        })
    }

    /// Refuses a directory that a later release has written, for whoever does not take it. Touches nothing.
    pub fn check_format(path: &Path) -> Result<(), StateDirError> {
        format::check(path).map(drop)
    }

    /// A number for what is locked here: of two processes that say the same, one is gone. A copy of the directory has
    /// another one, and so has every boot of the machine. 0 if the system does not tell.
    pub fn place(&self) -> u64 {
        let (Ok(boot), Ok(lock)) = (identity::boot_id(), self.lock.metadata()) else { return 0 };
        let mut hasher = DefaultHasher::new();
        (boot, lock.dev(), lock.ino()).hash(&mut hasher);
        hasher.finish()
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the nodes have their directories, absolute.
    pub fn nodes(&self) -> PathBuf {
        self.path.join("nodes")
    }

    /// Puts `bytes` into the file `name` as a whole: a reader, or a crash at any point, meets the old or the new.
    pub fn write_atomically(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateDirError> {
        let path = self.path.join(name);
        replace(&path, bytes, mode).map_err(write_error(&path))
    }

    /// Keeps the addresses under which the daemons of this process are found, for [`Self::addresses_in`].
    pub fn write_addresses(&self, addresses: &BTreeMap<String, SocketAddr>) -> Result<(), StateDirError> {
        let mut json = serde_json::to_string_pretty(addresses)
            .map_err(|error| write_error(&self.path.join(ADDRESSES))(error.into()))?;
        json.push('\n');
        self.write_atomically(ADDRESSES, json.as_bytes(), 0o600)
    }

    /// The addresses kept in a state directory, which another process may hold; empty if none were kept.
    pub fn addresses_in(path: &Path) -> Result<BTreeMap<String, SocketAddr>, StateDirError> {
        let path = path.join(ADDRESSES);
        let Some((text, _)) = read_small(&path)? else { return Ok(BTreeMap::new()) };
        serde_json::from_str(&text).map_err(|error| StateDirError::Damaged { path, why: error.to_string() })
    }

    /// The token that lets a client in, in 64 hexadecimal digits; made at the first call.
    pub fn token(&self) -> Result<String, StateDirError> {
        if let Some(token) = Self::token_in(&self.path)? {
            return Ok(token);
        }
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(StateDirError::Random)?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write_atomically(TOKEN, format!("{token}\n").as_bytes(), 0o600)?;
        Ok(token)
    }

    /// The token kept in a state directory, which another process may hold; `None` if none was made yet.
    pub fn token_in(path: &Path) -> Result<Option<String>, StateDirError> {
        let path = path.join(TOKEN);
        let Some((text, mode)) = read_small(&path)? else { return Ok(None) };
        if mode & 0o077 != 0 {
            return Err(StateDirError::Exposed { path, mode: mode & 0o7777 });
        }
        let token = text.trim_end();
        if token.len() != 2 * TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StateDirError::Damaged { path, why: "it is not 64 hexadecimal digits".into() });
        }
        Ok(Some(token.to_owned()))
    }
}

const LOCK: &str = "lock";
const ADDRESSES: &str = "addresses.json";
const TOKEN: &str = "token";

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    |source| StateDirError::Write { path, source }
}

/// Makes the directory for its owner alone; one that is there must be ours, and nobody else's to write.
fn make_private(path: &Path) -> Result<(), StateDirError> {
    let create = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let found = create.and_then(|()| fs::metadata(path));
    let found = found.map_err(|source| StateDirError::Create { path: path.to_owned(), source })?;
    let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(StateDirError::Foreign { path: path.to_owned(), owner, us });
    }
    match found.mode() & 0o7777 {
        mode if mode & 0o022 != 0 => Err(StateDirError::Writable { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

/// The content of a small file and its mode; `None` if it is not there.
fn read_small(path: &Path) -> Result<Option<(String, u32)>, StateDirError> {
    let read = || -> io::Result<_> {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut text = String::new();
        file.take(SMALL_FILE).read_to_string(&mut text)?;
        Ok((text, mode))
    };
    match read() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateDirError::Read { path: path.to_owned(), source }),
    }
}

/// Writes a file beside `path`, and when its bytes are on the disk, puts it in its place.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0); // two threads may replace one file at once
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{number}.tmp"));
    let aside = PathBuf::from(aside);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?; // a left-over may have had another, and there is umask
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&aside); // best effort: the error that matters is on its way
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: impl AsRef<Path>) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let taken = StateDir::take(&path).unwrap();
        assert_eq!((mode(&path), mode(taken.nodes())), (0o700, 0o700));
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["format", "lock", "nodes"]);
    }

    #[test]
    fn nodes_are_let_through_and_see_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let taken = StateDir::take(&parent.path().join("a")).unwrap();
        taken.let_nodes_through().unwrap();
        assert_eq!((mode(taken.path()), mode(taken.nodes())), (0o711, 0o711));
        fs::set_permissions(taken.path(), fs::Permissions::from_mode(0o750)).unwrap();
        taken.let_nodes_through().unwrap();
        assert_eq!(mode(taken.path()), 0o751);
    }

    #[test]
    fn the_second_taker_is_told_who_was_first_and_touches_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDir::take(directory.path()).unwrap();
        fs::remove_dir(first.nodes()).unwrap();
        let error = StateDir::take(directory.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        assert!(!first.nodes().exists());
        drop(first);
        StateDir::take(directory.path()).unwrap();
    }

    #[test]
    fn a_place_is_the_same_for_whoever_comes_next_and_another_in_a_copy() {
        let parent = tempfile::tempdir().unwrap();
        let (path, copy) = (parent.path().join("a"), parent.path().join("b"));
        let first = StateDir::take(&path).unwrap();
        let place = first.place();
        fs::create_dir(&copy).unwrap();
        fs::copy(path.join(LOCK), copy.join(LOCK)).unwrap();
        assert_ne!(StateDir::take(&copy).unwrap().place(), place);
        drop(first);
        assert_eq!(StateDir::take(&path).unwrap().place(), place);
        assert_ne!(place, 0);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_with_the_way_out_and_untouched() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o720, 0o702, 0o1777] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = StateDir::take(directory.path()).unwrap_err().to_string();
            let path = directory.path().display();
            let out = format!("(mode {mode:o}), who could then decide what runs: run `chmod go-w {path}`");
            assert!(error.contains(&out), "{error}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let nodes = StateDir::take(directory.path()).unwrap().nodes();
        fs::set_permissions(nodes, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateDir::take(directory.path()), Err(StateDirError::Writable { .. })));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_with_the_way_out_and_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let us = rustix::process::geteuid().as_raw();
        // Root can give one away; to anybody else the root of all files is another's.
        let path = match std::os::unix::fs::chown(directory.path(), Some(us + 1), None) {
            Ok(()) => directory.path(),
            Err(_) => Path::new("/"),
        };
        let error = StateDir::take(path).unwrap_err();
        assert!(matches!(error, StateDirError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(&format!("and this process is user {us}: whoever owns it")), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let error = StateDir::take(&path).unwrap_err();
        assert!(matches!(error, StateDirError::Create { .. }), "{error}");
        assert!(error.to_string().contains("choose another one by `state_dir`"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused_at_once() {
        // Not even root can make a file there.
        let error = StateDir::take(Path::new("/proc/self")).unwrap_err();
        assert!(matches!(error, StateDirError::Write { .. }), "{error}");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        let path = directory.path().join("file");
        taken.write_atomically("file", b"a long first version", 0o644).unwrap();
        assert_eq!(mode(&path), 0o644);
        taken.write_atomically("file", b"second", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"second".to_vec(), 0o600));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 4, "{left:?}");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        let error = taken.write_atomically("nodes", b"a directory is in the way", 0o600).unwrap_err();
        assert!(matches!(error, StateDirError::Write { .. }), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn addresses_read_back_while_the_directory_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        assert_eq!(StateDir::addresses_in(directory.path()).unwrap(), BTreeMap::new());
        let addresses = BTreeMap::from([("http".to_owned(), SocketAddr::from(([127, 0, 0, 1], 2148)))]);
        taken.write_addresses(&addresses).unwrap();
        assert_eq!(StateDir::addresses_in(directory.path()).unwrap(), addresses);
        taken.write_atomically(ADDRESSES, b"{", 0o600).unwrap();
        assert!(matches!(StateDir::addresses_in(directory.path()), Err(StateDirError::Damaged { .. })));
    }

    #[test]
    fn a_token_is_made_once_and_for_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        assert_eq!(StateDir::token_in(directory.path()).unwrap(), None);
        let token = taken.token().unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(taken.token().unwrap(), token);
        assert_eq!(mode(directory.path().join(TOKEN)), 0o600);
        assert_ne!(StateDir::take(&directory.path().join("other")).unwrap().token().unwrap(), token);
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let taken = StateDir::take(directory.path()).unwrap();
        taken.write_atomically(TOKEN, "ab".repeat(32).as_bytes(), 0o640).unwrap();
        let error = taken.token().unwrap_err();
        assert!(error.to_string().contains("can be read by others (mode 640)"), "{error}");
        taken.write_atomically(TOKEN, b"", 0o600).unwrap();
        assert!(matches!(taken.token(), Err(StateDirError::Damaged { .. })));
    }
}

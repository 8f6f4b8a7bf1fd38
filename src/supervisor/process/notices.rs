//! The sockets on which nodes say how they are, each node on its own; no thread, task or timer for any of them.
//!
//! The protocol is that of `sd_notify`: datagrams, whose sender the kernel vouches for. One who sends descriptors along,
//! as `systemd-notify` does to learn that it was heard, has them closed when its datagram is read.

use std::fs::{self, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys::{datagram, user};
use crate::model::Life;

/// How many sockets one system call tells of.
const BATCH: usize = 64;
/// Longer datagrams do not count, in bytes.
const LONGEST: usize = 4096;
/// How many are read of one socket before others have their turn.
const AT_ONCE: usize = 64;

/// The socket of one node, bound at a path that its processes find in their environment.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Whose it is, as it was asked for.
    user: Option<String>,
    /// The file that it was bound to, by device and inode.
    file: (u64, u64),
    listening: Mutex<Listening>,
}

#[derive(Debug, Default)]
struct Listening {
    /// Whom it is for at present: nobody reads what is said to a later one.
    life: Option<Life>,
    /// A stranger was told of in this life.
    has_warned: bool,
}

/// What was read of a socket at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The first stranger of this life, if it spoke now: the pid, if we can name it.
    pub stranger: Option<Option<u32>>,
    /// How many datagrams were none of the node's, or too long.
    pub ignored: usize,
}

impl NotifySocket {
    /// Makes the socket at this path, in place of one that is there. Who runs as `user` may write to it; without one
    /// whoever we are, and if that is root anybody may, since root's processes become others. Whom it is heard from is
    /// decided by sender.
    pub fn bind(path: &Path, user: Option<&str>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // Before anybody can write to it: the kernel notes senders from here on.
        sockopt::set_socket_passcred(&socket, true)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let is_root = rustix::process::geteuid().is_root();
        let mode = if user.is_none() && is_root { 0o666 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        // One that is unknown, or ours, is told at the launch.
        let owner = user.filter(|_| is_root).and_then(|user| std::ffi::CString::new(user).ok());
        if let Some(owner) = owner.and_then(|owner| user::look_up(&owner).ok().flatten()) {
            lchown(path, Some(owner.uid), Some(owner.gid))?;
        }
        let file = fs::symlink_metadata(path)?;
        let file = (file.dev(), file.ino());
        Ok(Self { socket, path: path.to_owned(), user: user.map(str::to_owned), file, listening: Mutex::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still to be found at its path, by whoever runs as that user.
    pub fn is_in_place(&self, user: Option<&str>) -> bool {
        self.user.as_deref() == user
            && fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file)
    }

    /// From now on it is for this life. What an earlier one said and nobody read is gone.
    pub fn begin(&self, life: Life) {
        let mut listening = self.listening();
        // Those before it are dead by now, so there is an end of what they said; strangers do not hold this up.
        for _ in 0..AT_ONCE {
            if datagram::receive(&self.socket, &mut [0; 1]).is_err() {
                break;
            }
        }
        *listening = Listening { life: Some(life), has_warned: false };
    }

    /// Goes on with a life that another run of the agent began.
    pub fn resume(&self, life: Life) {
        self.listening().life = Some(life);
    }

    /// Hands what was said by those of whom `is_ours` says so to `hear`, in order. Nothing is read unless the socket is
    /// for this life. Each sender is looked at before the next datagram is read.
    pub fn read(&self, life: Life, is_ours: impl Fn(u32) -> bool, mut hear: impl FnMut(&[u8])) -> Heard {
        let mut heard = Heard::default();
        let mut listening = self.listening();
        if listening.life != Some(life) {
            return heard;
        }
        let mut buffer = [0; LONGEST];
        // Most of what a socket holds was sent by one process.
        let mut last_one = None;
        for _ in 0..AT_ONCE {
            let said = match datagram::receive(&self.socket, &mut buffer) {
                Ok(said) => said,
                Err(Errno::INTR) => continue,
                Err(_) => break, // nothing is left; it has no other failures
            };
            let counts = match (said.sender, last_one) {
                (Some(sender), Some((last, counts))) if sender == last => counts,
                (Some(sender), _) => is_ours(sender),
                (None, _) => false,
            };
            last_one = said.sender.map(|sender| (sender, counts));
            match counts && !said.is_cut {
                true => hear(&buffer[..said.length]),
                false => heard.ignored += 1,
            }
            if !counts && !std::mem::replace(&mut listening.has_warned, true) {
                heard.stranger = Some(said.sender);
            }
        }
        heard
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets on which somebody waits to be heard, each under a key of the caller's.
///
/// They sit in an epoll instance of their own, which the runtime sees as a single descriptor.
#[derive(Debug)]
pub struct Notices {
    epoll: AsyncFd<OwnedFd>,
}

impl Notices {
    /// Makes one that waits for nobody. Must be called within a tokio runtime whose I/O driver is enabled.
    pub fn new() -> io::Result<Self> {
        #[allow(deprecated, reason = "it is unsound for descriptors that change under it; an OwnedFd never does")]
        let epoll = AsyncFd::with_interest(epoll::create(CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        Ok(Self { epoll })
    }

    /// Has [`next`](Self::next) tell once that something can be read; also what is there already.
    pub fn await_one(&self, key: u64, socket: &NotifySocket) -> io::Result<()> {
        let (data, once) = (EventData::new_u64(key), EventFlags::IN | EventFlags::ONESHOT);
        match epoll::modify(self.epoll.get_ref(), &socket.socket, data, once) {
            Err(Errno::NOENT) => Ok(epoll::add(self.epoll.get_ref(), &socket.socket, data, once)?),
            modified => Ok(modified?),
        }
    }

    /// Never tells of it again. To be called before it is closed: a child of ours between clone and exec may hold a copy,
    /// and with it the entry.
    pub fn let_go(&self, socket: &NotifySocket) {
        let _ = epoll::delete(self.epoll.get_ref(), socket.socket.as_fd()); // it may never have been in it
    }

    /// Waits until there is something to read, and returns the keys of those sockets. Dropping the future loses nothing.
    pub async fn next(&self) -> io::Result<Vec<u64>> {
        loop {
            let mut ready = self.epoll.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BATCH];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let events = match epoll::wait(self.epoll.get_ref(), &mut buffer, Some(&now)) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if !events.is_empty() {
                return Ok(events.iter().map(|event| event.data.u64()).collect());
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    const L: Life = Life(7);

    fn socket(home: &tempfile::TempDir) -> NotifySocket {
        let socket = NotifySocket::bind(&home.path().join("socket"), None).unwrap();
        socket.begin(L);
        socket
    }

    fn read(socket: &NotifySocket, is_ours: impl Fn(u32) -> bool) -> (Vec<String>, Heard) {
        let mut said = Vec::new();
        let heard = socket.read(L, is_ours, |words| said.push(String::from_utf8_lossy(words).into_owned()));
        (said, heard)
    }

    #[test]
    fn a_datagram_is_heard_from_those_who_count_and_no_stranger_is_told_twice() {
        let home = tempfile::tempdir().unwrap();
        let socket = socket(&home);
        let sender = UnixDatagram::unbound().unwrap();
        for words in ["READY=1", "STATUS=a"] {
            sender.send_to(words.as_bytes(), socket.path()).unwrap();
        }
        let ours = std::process::id();
        let said = ["READY=1", "STATUS=a"].map(String::from).to_vec();
        assert_eq!(read(&socket, |pid| pid == ours), (said, Heard::default()));
        for told in [Some(Some(ours)), None] {
            sender.send_to(b"READY=1", socket.path()).unwrap();
            assert_eq!(read(&socket, |_| false), (vec![], Heard { stranger: told, ignored: 1 }));
        }
    }

    #[test]
    fn what_was_said_to_an_earlier_life_is_gone_and_what_is_for_a_later_one_stays() {
        let home = tempfile::tempdir().unwrap();
        let socket = socket(&home);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=old", socket.path()).unwrap();
        socket.begin(L.next());
        sender.send_to(b"STATUS=new", socket.path()).unwrap();
        assert_eq!(read(&socket, |_| true), (vec![], Heard::default()), "whoever reads for the earlier life");
        let mut said = 0;
        socket.read(L.next(), |_| true, |words| said += usize::from(words == b"STATUS=new"));
        assert_eq!(said, 1);
    }

    #[test]
    fn a_datagram_that_is_too_long_does_not_count_and_an_empty_one_harms_nobody() {
        let home = tempfile::tempdir().unwrap();
        let socket = socket(&home);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(&[b'x'; LONGEST + 1], socket.path()).unwrap();
        sender.send_to(b"", socket.path()).unwrap();
        sender.send_to(b"READY=1", socket.path()).unwrap();
        let (said, heard) = read(&socket, |_| true);
        assert_eq!((said, heard), (vec![String::new(), "READY=1".into()], Heard { stranger: None, ignored: 1 }));
    }

    #[test]
    fn descriptors_that_are_sent_along_are_closed_when_the_datagram_is_read() {
        let home = tempfile::tempdir().unwrap();
        let socket = socket(&home);
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(socket.path()).unwrap();
        let (waits, is_told) = std::io::pipe().unwrap();
        let descriptors = [is_told.as_fd(); 200];
        let mut space = vec![MaybeUninit::uninit(); 2048];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(&sender, &[IoSlice::new(b"BARRIER=1")], &mut along, SendFlags::empty()).unwrap();
        drop(is_told);
        let (said, heard) = read(&socket, |_| true);
        assert_eq!((said, heard), (vec!["BARRIER=1".to_owned()], Heard::default()));
        // End of file: nobody has the other end any more, and we least of all.
        assert_eq!(std::io::Read::read(&mut { waits }, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_socket_is_made_again_at_its_path_and_misses_that_it_was_removed() {
        let home = tempfile::tempdir().unwrap();
        let one = socket(&home);
        assert!(one.is_in_place(None) && !one.is_in_place(Some("daemon")));
        let other = socket(&home);
        assert!(other.is_in_place(None) && !one.is_in_place(None));
        fs::remove_file(other.path()).unwrap();
        assert!(!other.is_in_place(None));
    }

    #[test]
    fn who_may_write_to_a_socket_is_who_its_node_runs_as() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let mode_and_owner = |user| {
            NotifySocket::bind(&path, user).unwrap();
            let file = fs::symlink_metadata(&path).unwrap();
            (file.mode() & 0o777, file.uid())
        };
        let us = rustix::process::geteuid();
        match us.is_root() {
            true => {
                assert_eq!(mode_and_owner(None), (0o666, 0));
                assert_eq!(mode_and_owner(Some("daemon")), (0o600, 1));
                assert_eq!(mode_and_owner(Some("nobody at all")), (0o600, 0));
            }
            false => assert_eq!(mode_and_owner(None), (0o600, us.as_raw())),
        }
    }

    #[tokio::test]
    async fn a_socket_is_told_of_once_each_time_that_somebody_waits() {
        let home = tempfile::tempdir().unwrap();
        let (notices, socket) = (Notices::new().unwrap(), socket(&home));
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"a", socket.path()).unwrap();
        let soon = Duration::from_millis(20);
        for _ in 0..2 {
            notices.await_one(5, &socket).unwrap();
            assert_eq!(notices.next().await.unwrap(), [5], "what is there already is told, too");
            assert!(tokio::time::timeout(soon, notices.next()).await.is_err(), "and once only");
        }
        read(&socket, |_| true);
        notices.await_one(5, &socket).unwrap();
        assert!(tokio::time::timeout(soon, notices.next()).await.is_err(), "nothing is there");
        sender.send_to(b"a", socket.path()).unwrap();
        assert_eq!(notices.next().await.unwrap(), [5]);
        notices.await_one(5, &socket).unwrap();
        notices.let_go(&socket);
        assert!(tokio::time::timeout(soon, notices.next()).await.is_err());
    }
}

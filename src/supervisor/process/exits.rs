//! Tells when any of many processes ends, and how: no thread, task or timer for each, and no SIGCHLD.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::handle::Process;
use super::sys::usage::End;
use crate::model::Exit;

/// How many ends one system call fetches.
const BATCH: usize = 256;

/// The processes whose end somebody waits for, each under a key of the caller's.
///
/// Their pidfds sit in an epoll instance of their own, which the runtime sees as a single descriptor. May be shared:
/// [`watch`](Self::watch) from any thread, while one task awaits [`next`](Self::next).
#[derive(Debug)]
pub struct Exits {
    epoll: AsyncFd<OwnedFd>,
    watched: Mutex<BTreeMap<u64, Arc<Process>>>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The key under which it was watched.
    pub key: u64,
    pub exit: Exit,
    /// The most memory that it had at once, in bytes; `None` if it was not our child.
    pub largest_resident: Option<u64>,
    pub remains: Remains,
}

/// A process that has ended and was not buried: if it is our child it is a zombie, and its group may live.
///
/// Dropping it sends SIGKILL to what is left of the group and reaps it. That takes longer than to learn of the end, so
/// whoever has news to tell does that first. Nothing may be started in its place before the group was ended.
#[derive(Debug)]
pub struct Remains {
    process: Arc<Process>,
    is_group_ended: bool,
}

impl Remains {
    fn of(process: Arc<Process>) -> Self {
        Self { process, is_group_ended: false }
    }

    /// Its number, which is nobody else's yet if it was our child.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends what is left of the group, and leaves the zombie for later: to reap it takes longer.
    pub fn end_group(&mut self) {
        if std::mem::replace(&mut self.is_group_ended, true) {
            return;
        }
        // The zombie still holds the number of its group, so whoever is left in it can be reached.
        if let Err(error) = self.process.signal_group(Signal::KILL) {
            tracing::warn!(pid = self.pid(), %error, "cannot end what is left of the process group");
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.end_group();
        self.process.reap();
    }
}

impl Exits {
    /// Makes one that watches nothing. Must be called within a tokio runtime whose I/O driver is enabled.
    pub fn new() -> io::Result<Self> {
        #[allow(deprecated, reason = "it is unsound for descriptors that change under it; an OwnedFd never does")]
        let epoll = AsyncFd::with_interest(epoll::create(CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        Ok(Self { epoll, watched: Mutex::default() })
    }

    /// Watches a process until its end has been told; also one that is over already.
    ///
    /// A key that is in use is refused with `AlreadyExists`.
    pub fn watch(&self, key: u64, process: Arc<Process>) -> io::Result<()> {
        let mut watched = self.watched();
        if watched.contains_key(&key) {
            let why = format!("the key {key} already stands for process {}", watched[&key].pid());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        // Told once, and then as good as taken out. That matters when the descriptor is closed: a child of ours between
        // clone and exec may hold a copy of it, and with it the entry, which would else be ready for ever.
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(self.epoll.get_ref(), &process, EventData::new_u64(key), once)?;
        watched.insert(key, process);
        Ok(())
    }

    /// Waits until at least one process has ended, and returns all that have, in the order in which the kernel says so.
    /// They are no longer watched.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&self) -> io::Result<Vec<Ended>> {
        loop {
            let mut ready = self.epoll.readable().await?;
            let ended = self.drain()?;
            if !ended.is_empty() {
                // Whether there is more is seen at the next call: these can be told meanwhile.
                return Ok(ended);
            }
            // Only the readiness that was seen before is cleared: an end since then has made the descriptor ready anew.
            ready.clear_ready();
        }
    }

    /// Whether a process has ended that [`next`](Self::next) has not returned.
    pub fn are_there(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where it cannot be asked, `next` says why.
        poll(&mut [PollFd::new(self.epoll.get_ref(), PollFlags::IN)], Some(&now)) == Ok(1)
    }

    fn drain(&self) -> io::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        loop {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let events = match epoll::wait(self.epoll.get_ref(), &mut buffer, Some(&now)) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(errno) if ended.is_empty() => return Err(errno.into()),
                Err(_) => return Ok(ended),
            };
            let mut watched = self.watched();
            ended.extend(events.iter().filter_map(|event| {
                let key = event.data.u64();
                let process = watched.remove(&key)?;
                let End { exit, largest_resident } = process.end();
                Some(Ended { key, exit, largest_resident, remains: Remains::of(process) })
            }));
            if events.len() < BATCH {
                return Ok(ended);
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Process>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::{PATIENCE, number_in, script, wait_until};
    use super::super::{identity, spawn};
    use super::*;

    #[tokio::test]
    async fn a_status_and_a_signal_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        for (life, text, want) in [
            (1, "exit 0", Exit::Status(0)),
            (2, "exit 255", Exit::Status(255)),
            (3, "kill -15 $$", Exit::Signal { number: 15, core_dumped: false }),
            (4, "kill -PIPE $$", Exit::Signal { number: 13, core_dumped: false }),
        ] {
            exits.watch(life, start(home.path(), text)).unwrap();
            assert_eq!(next(&exits).await, [(life, want)], "{text}");
        }
    }

    #[tokio::test]
    async fn two_hundred_ends_at_once_are_all_told() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let nodes: Vec<_> = (0..200).map(|_| start(home.path(), "exec sleep 1000")).collect();
        for (key, node) in (0..).zip(&nodes) {
            exits.watch(key, node.clone()).unwrap();
        }
        assert!(!exits.are_there());
        nodes.iter().for_each(|node| node.kill().unwrap());
        wait_until("one is there", || exits.are_there());
        let mut told = BTreeSet::new();
        while told.len() < nodes.len() {
            for (key, exit) in next(&exits).await {
                assert_eq!(exit, Exit::Signal { number: 9, core_dumped: false });
                assert!(told.insert(key), "{key} ended twice");
            }
        }
        assert_eq!(told, (0..200).collect());
        assert!(!exits.are_there(), "each is told once");
    }

    #[tokio::test]
    async fn two_hundred_ends_one_by_one_are_all_told() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let nodes: Vec<_> = (0..200).map(|_| start(home.path(), "exec sleep 1000")).collect();
        for (key, node) in (0..).zip(&nodes) {
            exits.watch(key, node.clone()).unwrap();
        }
        for (key, node) in (0..).zip(&nodes) {
            node.kill().unwrap();
            assert_eq!(next(&exits).await, [(key, Exit::Signal { number: 9, core_dumped: false })]);
        }
    }

    #[tokio::test]
    async fn ends_while_others_are_told_are_not_missed() {
        let home = tempfile::tempdir().unwrap();
        let exits = Arc::new(Exits::new().unwrap());
        let (watcher, directory) = (exits.clone(), home.path().to_owned());
        let starter = std::thread::spawn(move || {
            for key in 0..100 {
                watcher.watch(key, start(&directory, "exit 7")).unwrap();
            }
        });
        let mut told = BTreeSet::new();
        while told.len() < 100 {
            told.extend(next(&exits).await.into_iter().map(|(key, exit)| {
                assert_eq!(exit, Exit::Status(7));
                key
            }));
        }
        starter.join().unwrap();
    }

    #[tokio::test]
    async fn what_ended_before_it_was_watched_is_told() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let node = start(home.path(), "exit 3");
        wait_until("it ends", || super::super::testing::has_ended(&node));
        exits.watch(1, node).unwrap();
        assert_eq!(next(&exits).await, [(1, Exit::Status(3))]);
    }

    #[tokio::test]
    async fn who_has_ended_stays_a_zombie_until_its_remains_are_let_go() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let node = start(home.path(), "sleep 1000 & echo $! > stray; exit 1");
        exits.watch(1, node.clone()).unwrap();
        let ended = tokio::time::timeout(PATIENCE, exits.next()).await.unwrap().unwrap().remove(0);
        let stray = number_in(&home.path().join("stray"));
        let lives = |pid| super::super::stat::Stat::of(pid).unwrap().is_some_and(|stat| !stat.is_dead());
        assert_eq!((ended.key, ended.exit), (1, Exit::Status(1)));
        assert!(super::super::stat::Stat::of(node.pid()).unwrap().is_some_and(|stat| stat.is_dead()));
        assert!(lives(stray));
        let told_again = tokio::time::timeout(std::time::Duration::ZERO, exits.next()).await;
        assert!(told_again.is_err(), "an end is told once, also while its zombie is there");
        drop(ended);
        assert!(super::super::stat::Stat::of(node.pid()).unwrap().is_none());
        wait_until("the rest of the group is gone", || !lives(stray));
    }

    #[tokio::test]
    async fn the_group_goes_with_its_leader() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let text = "trap '' TERM; sleep 1000 & echo $! > stray; exit 1";
        exits.watch(1, start(home.path(), text)).unwrap();
        assert_eq!(next(&exits).await, [(1, Exit::Status(1))]);
        let stray = number_in(&home.path().join("stray"));
        wait_until("the rest of the group is gone", || {
            super::super::stat::Stat::of(stray).unwrap().is_none_or(|stat| stat.is_dead())
        });
    }

    #[tokio::test]
    async fn the_end_of_another_ones_child_is_told_while_it_is_a_zombie() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        // What the shell becomes does not wait for the shell's children.
        let parent = start(
            home.path(),
            "(trap 'exit 0' TERM; echo 1 > ready; while :; do sleep 0.01; done) & \
            echo $! > child; (exec sleep 1000) & echo $! > other; exec sleep 1000",
        );
        number_in(&home.path().join("ready"));
        for (key, name, signal, want) in [
            (1, "child", Signal::TERM, Exit::Status(0)),
            (2, "other", Signal::KILL, Exit::Signal { number: 9, core_dumped: false }),
        ] {
            let adopted = adopt(&home.path().join(name));
            exits.watch(key, adopted.clone()).unwrap();
            adopted.signal(signal).unwrap();
            assert_eq!(next(&exits).await, [(key, want)]);
        }
        exits.watch(3, parent.clone()).unwrap();
        parent.kill().unwrap();
        assert_eq!(next(&exits).await, [(3, Exit::Signal { number: 9, core_dumped: false })]);
    }

    #[tokio::test]
    async fn the_end_of_another_ones_child_that_was_reaped_is_told_by_a_kernel_that_can() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let parent = start(home.path(), "sleep 1000 & echo $! > child; wait; exit 0");
        let adopted = adopt(&home.path().join("child"));
        adopted.signal(Signal::TERM).unwrap();
        exits.watch(1, parent).unwrap();
        assert_eq!(next(&exits).await, [(1, Exit::Status(0))]);
        exits.watch(2, adopted).unwrap();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
        let can = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
        let want = if can { Exit::Signal { number: 15, core_dumped: false } } else { Exit::Unknown };
        assert_eq!(next(&exits).await, [(2, want)]);
    }

    #[tokio::test]
    async fn a_key_stands_for_one_process() {
        let home = tempfile::tempdir().unwrap();
        let exits = Exits::new().unwrap();
        let [one, other] = [(); 2].map(|()| start(home.path(), "exec sleep 1000"));
        exits.watch(1, one.clone()).unwrap();
        assert_eq!(exits.watch(1, other.clone()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        exits.watch(2, other.clone()).unwrap();
        one.kill().unwrap();
        assert_eq!(next(&exits).await.len(), 1);
        exits.watch(1, start(home.path(), "exit 0")).unwrap();
        assert_eq!(next(&exits).await, [(1, Exit::Status(0))]);
        other.kill().unwrap();
        assert_eq!(next(&exits).await.len(), 1);
    }

    async fn next(exits: &Exits) -> Vec<(u64, Exit)> {
        let ended = tokio::time::timeout(PATIENCE, exits.next()).await.expect("an end is told").unwrap();
        ended.into_iter().map(|ended| (ended.key, ended.exit)).collect()
    }

    fn adopt(pid_file: &std::path::Path) -> Arc<Process> {
        let pid = number_in(pid_file);
        let start_time = identity::start_time(pid).unwrap().unwrap();
        Arc::new(Process::adopt(identity::Identity::new(pid, start_time)).unwrap().unwrap())
    }

    fn start(directory: &std::path::Path, text: &str) -> Arc<Process> {
        Arc::new(spawn(&script(directory, text), None).unwrap())
    }
}

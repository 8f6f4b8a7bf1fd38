//! The floor: the least that a supervisor has the kernel do, in one thread and without anything around it.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::nursery::command_of;

/// What is done around a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Nothing: `posix_spawn` and a pidfd, output to `/dev/null`.
    Bare,
    /// As a supervisor must: a directory, two output files, a record of the process, a session of its own.
    Full,
    /// The same, and a control group is made for each, as each node has one, where the machine lets us.
    Grouped,
}

/// Children that are started, watched and ended by bare system calls. Dropping it ends them all.
pub struct Floor {
    epoll: OwnedFd,
    home: PathBuf,
    care: Care,
    groups: Option<Groups>,
    commands: Vec<[CString; 3]>,
    running: Vec<Option<(Pid, OwnedFd)>>,
    is_over: Cell<bool>,
}

/// What the event is called that is no child's.
const OVER: u64 = u64::MAX;

impl Floor {
    /// Children of the nursery at `nursery`, numbered from `first`; none is started yet.
    pub fn new(nursery: &Path, first: usize, count: usize, care: Care) -> Self {
        let home = tempfile::Builder::new().prefix("floor").tempdir_in(nursery).expect("a directory").keep();
        let command = |number| c_strings(command_of(nursery, first + number));
        Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).expect("an epoll set"),
            home,
            care,
            groups: if care == Care::Grouped { Groups::make() } else { None },
            commands: (0..count).map(command).collect(),
            running: (0..count).map(|_| None).collect(),
            is_over: Cell::new(false),
        }
    }

    pub fn start_all(&mut self) {
        (0..self.commands.len()).for_each(|number| self.start(number));
    }

    pub fn start(&mut self, number: usize) {
        let home = self.home.join(number.to_string());
        let pid = match self.care {
            Care::Bare => {
                let null = || OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
                self.spawn(number, &null(), &null())
            }
            Care::Full | Care::Grouped => {
                let made = fs::create_dir(&home);
                assert!(made.is_ok() || home.is_dir(), "cannot make {}", home.display());
                let open = |name| OpenOptions::new().append(true).create(true).mode(0o640).open(home.join(name));
                let [stdout, stderr] = ["stdout", "stderr"].map(|name| open(name).expect("an output file"));
                let mut record = File::create(home.join("record")).expect("a record");
                self.groups.iter().for_each(|groups| groups.add(number));
                let pid = self.spawn(number, &stdout, &stderr);
                writeln!(record, "pid {}", pid.as_raw_nonzero()).expect("a record");
                pid
            }
        };
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd of our child");
        epoll::add(&self.epoll, &pidfd, EventData::new_u64(number as u64), EventFlags::IN).expect("a watched pidfd");
        self.running[number] = Some((pid, pidfd));
    }

    pub fn pid(&self, number: usize) -> Option<Pid> {
        self.running[number].as_ref().map(|(pid, _)| *pid)
    }

    /// It is [over](Self::is_over) once nobody holds the other end of this pipe any more.
    pub fn lasts_as_long_as(&self, pipe: &impl AsFd) {
        let once = EventFlags::HUP | EventFlags::ONESHOT;
        epoll::add(&self.epoll, pipe, EventData::new_u64(OVER), once).expect("a watched pipe");
    }

    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Asks the kernel how a child ended, which stays to be [buried](Self::bury).
    pub fn ask_how_it_ended(&self, number: usize) {
        let Some((_, pidfd)) = &self.running[number] else { return };
        let keep = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), keep).expect("our child");
        assert!(status.is_some_and(|status| status.terminating_signal().is_some()), "it was killed");
    }

    /// Waits until somebody has ended or all is over, and says who has; each is to be [buried](Self::bury).
    pub fn ended(&self) -> Vec<usize> {
        let mut events = [const { MaybeUninit::uninit() }; 256];
        let (events, _) = loop {
            match epoll::wait(&self.epoll, &mut events, None) {
                Err(rustix::io::Errno::INTR) => {}
                events => break events.expect("an epoll set can be waited for"),
            }
        };
        let numbers: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        if numbers.contains(&OVER) {
            self.is_over.set(true);
        }
        numbers.into_iter().filter(|number| *number != OVER).map(|number| number as usize).collect()
    }

    /// SIGTERM to all, and waits until the last is gone.
    pub fn stop_all(&mut self) {
        let running = self.running.iter().flatten();
        let signalled = running.map(|(_, pidfd)| rustix::process::pidfd_send_signal(pidfd, Signal::TERM));
        let mut left = signalled.count();
        while left > 0 {
            let ended = self.ended();
            ended.iter().for_each(|number| self.bury(*number));
            left -= ended.len();
        }
    }

    pub fn bury(&mut self, number: usize) {
        let Some((_, pidfd)) = self.running[number].take() else { return };
        // Before it is closed: a child that is just being started may hold a copy.
        epoll::delete(&self.epoll, &pidfd).expect("a watched pidfd");
        let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    }

    fn spawn(&self, number: usize, stdout: &File, stderr: &File) -> Pid {
        let argv = &self.commands[number];
        let pointers = [argv[0].as_ptr(), argv[1].as_ptr(), argv[2].as_ptr(), ptr::null()];
        let mut pid = 0;
        // SAFETY: attributes and actions are initialised before use and destroyed after; every pointer outlives the
        // call; an empty signal set and an empty environment are what they are said to be.
        let code = unsafe {
            let (mut attributes, mut actions) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            libc::posix_spawnattr_init(attributes.as_mut_ptr());
            libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            let flags = libc::POSIX_SPAWN_SETSID | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short;
            libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags);
            libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), none.as_ptr());
            for (file, target) in [(stdout, 1), (stderr, 2)] {
                libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), file.as_raw_fd(), target);
            }
            let environment = [ptr::null_mut()];
            let code = libc::posix_spawn(
                &mut pid,
                pointers[0],
                actions.as_ptr(),
                attributes.as_ptr(),
                pointers.as_ptr().cast(),
                environment.as_ptr(),
            );
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            libc::posix_spawnattr_destroy(attributes.as_mut_ptr());
            code
        };
        assert_eq!(code, 0, "cannot spawn: {}", std::io::Error::from_raw_os_error(code));
        Pid::from_raw(pid).expect("a pid")
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for (_, pidfd) in self.running.iter().flatten() {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        while self.running.iter().any(Option::is_some) {
            self.ended().into_iter().for_each(|number| self.bury(number));
        }
    }
}

/// Groups that nobody is put into, which a supervisor has to make all the same.
struct Groups(PathBuf);

impl Groups {
    /// `None` where there are none to be had.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mut trees = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let tree = trees.find(|mount| mount.get(2) == Some(&"cgroup2"))?;
        let home = Path::new(tree[1]).join(format!("watchpost-floor-{}", std::process::id()));
        fs::create_dir(&home).ok().map(|()| Self(home))
    }

    fn add(&self, number: usize) {
        fs::create_dir(self.0.join(format!("node-{number}"))).expect("a group");
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let groups = fs::read_dir(&self.0).into_iter().flatten().flatten();
        groups.for_each(|group| drop(fs::remove_dir(group.path()))); // the kernel's own files stay as long as it does
        let _ = fs::remove_dir(&self.0);
    }
}

fn c_strings(command: Vec<String>) -> [CString; 3] {
    let strings: Vec<_> = command.into_iter().map(|text| CString::new(text).expect("no zero byte")).collect();
    strings.try_into().expect("a program and two arguments")
}

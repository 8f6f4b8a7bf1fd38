//! Where children are told from each other: the program they are, and the pipe on which they say that they run.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use tempfile::TempDir;

/// The source of the program, which needs nothing but the standard library.
const SOURCE: &str = include_str!("child.rs");

/// Longer than anything here takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One child began to run.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The number that it was given.
    pub number: u64,
    pub pid: u32,
    /// When, by the monotonic clock, in nanoseconds.
    pub at: u64,
}

pub struct Nursery {
    home: TempDir,
    pipe: File,
}

impl Nursery {
    pub fn new() -> Self {
        let home = scratch();
        compile(home.path());
        let path = pipe_of(home.path());
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        // Without waiting for a writer; and one that reads and writes would never let children see the end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(&path, flags, Mode::empty()).expect("the pipe just made").into();
        Self { home, pipe }
    }

    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The command line of the child of that number.
    pub fn command(&self, number: usize) -> Vec<String> {
        command_of(self.home.path(), number)
    }

    /// Where children say that they run.
    pub fn pipe(&self) -> PathBuf {
        pipe_of(self.home.path())
    }

    /// Waits until `count` children have begun to run; in the order in which they said so.
    pub fn births(&mut self, count: usize) -> Vec<Stamp> {
        let deadline = Instant::now() + PATIENCE;
        let mut stamps = Vec::with_capacity(count);
        while stamps.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} children run", stamps.len());
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            // A signal or a hang-up only makes the next look come early.
            let _ = poll(&mut [PollFd::new(&self.pipe.as_fd(), PollFlags::IN)], Some(&second));
            self.read(&mut stamps);
        }
        stamps
    }

    fn read(&mut self, stamps: &mut Vec<Stamp>) {
        let mut bytes = [0; 16 * 256]; // stamps come whole, so they never straddle two reads
        while let Ok(length @ 1..) = self.pipe.read(&mut bytes) {
            stamps.extend(bytes[..length].chunks_exact(16).map(|stamp| {
                let word = |at: usize| u32::from_ne_bytes(stamp[at..at + 4].try_into().expect("a quarter of 16 bytes"));
                let at = u64::from_ne_bytes(stamp[8..].try_into().expect("half of 16 bytes"));
                Stamp { number: word(0).into(), pid: word(4), at }
            }));
        }
    }
}

/// The command line of the child of that number in the nursery at `home`.
pub fn command_of(home: &Path, number: usize) -> Vec<String> {
    let text = |path: PathBuf| path.to_str().expect("temporary directories are text").to_owned();
    vec![text(home.join("child")), text(pipe_of(home)), number.to_string()]
}

fn pipe_of(home: &Path) -> PathBuf {
    home.join("pipe")
}

/// In memory, where there is such a place and the environment does not name another: what a disk takes to make a file
/// says nothing about a supervisor, and hides what does.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = match std::env::var_os("TMPDIR") {
        Some(place) => place.into(),
        None if memory.is_dir() => memory.into(),
        None => std::env::temp_dir(),
    };
    tempfile::tempdir_in(place).expect("a temporary directory")
}

fn compile(home: &Path) {
    let source: PathBuf = home.join("child.rs");
    std::fs::write(&source, SOURCE).expect("room for the child's source");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = |extra: &[&str]| {
        let mut command = Command::new(&rustc);
        command.current_dir(home).args(["-O", "--edition=2024", "-Cpanic=abort", "-Cstrip=symbols"]);
        command.args(extra).args(["-o", "child"]).arg(&source).status().expect("rustc can be run").success()
    };
    // A static C library is not installed everywhere.
    assert!(built(&["-Ctarget-feature=+crt-static"]) || built(&[]), "rustc cannot build the child");
}

//! The floor of keeping processes alive: a thread that learns of an exit from a pidfd, tells, and starts the next.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::figures::now;
use super::floor::{Care, Floor};
use super::nursery::{Nursery, PATIENCE};

/// What crosses TCP for each exit: as long as a change in watchpost's frames, about.
const FRAME: usize = 120;

/// Where whoever is told of exits sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nobody but the thread itself: the exit counts as told when the wait for it returns.
    Itself,
    /// Another thread at the other end of a TCP connection.
    OverTcp,
}

enum Word {
    /// An exit was known at this moment, by the monotonic clock, in nanoseconds.
    Ended { at: u64 },
    /// A child has this pid from now on.
    Started { number: usize, pid: Pid },
}

/// A thread that keeps some children alive until it is dropped.
pub struct Keeper {
    words: Receiver<Word>,
    pids: BTreeMap<usize, Pid>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts children numbered from `first`, and waits until all have a pid.
    pub fn start(nursery: &Nursery, first: usize, count: usize, told: Told) -> Self {
        let floor = Floor::new(nursery, first, count, Care::Full);
        let (sender, words) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let is_ending = Arc::clone(&ending);
        let thread = std::thread::spawn(move || keep(floor, count, told, &sender, &is_ending));
        let mut keeper = Self { words, pids: BTreeMap::new(), ending, thread: Some(thread) };
        while keeper.pids.len() < count {
            keeper.next();
        }
        keeper
    }

    /// Kills a child; the moment before.
    pub fn kill(&self, number: usize) -> u64 {
        let began = now();
        kill_process(self.pids[&number], Signal::KILL).expect("our child lives");
        began
    }

    /// Kills a child, and waits until that was told and there is another; the moment of the kill and of the telling.
    pub fn crash(&mut self, number: usize) -> (u64, u64) {
        let former = self.pids[&number];
        let began = self.kill(number);
        let mut told = None;
        loop {
            told = told.or(self.next());
            if let Some(told) = told.filter(|_| self.pids[&number] != former) {
                return (began, told);
            }
        }
    }

    /// Waits until everybody was told to have ended; when the last one was.
    pub fn all_told(&mut self) -> u64 {
        let count = self.pids.len();
        let ends = std::iter::repeat_with(|| self.next()).flatten().take(count);
        ends.max().unwrap_or_default()
    }

    /// When an exit was told, if that is what comes next.
    fn next(&mut self) -> Option<u64> {
        match self.words.recv_timeout(PATIENCE).expect("the keeper goes on") {
            Word::Ended { at } => Some(at),
            Word::Started { number, pid } => {
                self.pids.insert(number, pid);
                None
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        // It looks up when somebody ends, and may just have been about to start that one anew.
        while !thread.is_finished() {
            while let Ok(word) = self.words.try_recv() {
                if let Word::Started { number, pid } = word {
                    self.pids.insert(number, pid);
                }
            }
            let _ = self.pids.values().next().map(|pid| kill_process(*pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = thread.join(); // if it panicked, it said so
    }
}

fn keep(mut floor: Floor, count: usize, told: Told, words: &Sender<Word>, is_ending: &AtomicBool) {
    let mut tell = teller(told, words.clone());
    let start = |floor: &mut Floor, number| {
        floor.start(number);
        let pid = floor.pid(number).expect("just started");
        let _ = words.send(Word::Started { number, pid }); // nobody listens at the end
    };
    (0..count).for_each(|number| start(&mut floor, number));
    while !is_ending.load(Ordering::Relaxed) {
        let ended = floor.ended();
        tell(ended.len());
        ended.iter().for_each(|number| floor.bury(*number));
        ended.iter().for_each(|number| start(&mut floor, *number));
    }
}

/// What a keeper does about so many exits that it just learned of.
fn teller(told: Told, words: Sender<Word>) -> Box<dyn FnMut(usize) + Send> {
    let say = move |count| {
        let at = now();
        for _ in 0..count {
            let _ = words.send(Word::Ended { at }); // nobody listens at the end
        }
    };
    match told {
        Told::Itself => Box::new(say),
        Told::OverTcp => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let address = listener.local_addr().expect("its address");
            let mut near = TcpStream::connect(address).expect("a connection");
            near.set_nodelay(true).expect("a socket option");
            let (mut far, _) = listener.accept().expect("its other end");
            std::thread::spawn(move || {
                let mut frame = [0; FRAME];
                while far.read_exact(&mut frame).is_ok() {
                    say(1);
                }
            });
            Box::new(move |count| near.write_all(&[0; FRAME].repeat(count)).expect("a reader"))
        }
    }
}

//! The floor of keeping processes alive: a thread that learns of an exit from a pidfd, tells, and starts the next.

use std::collections::BTreeMap;
use std::io::{PipeWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::figures::now;
use super::floor::{Care, Floor};
use super::nursery::{Nursery, PATIENCE};

/// The argument by which this program is a keeper.
const KEEPER: &str = "--be-a-keeper";

/// What crosses TCP for each word: as long as a change in watchpost's frames, about.
const FRAME: usize = 120;

/// Where whoever is told of exits sits, and what is known of an exit when it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nobody but the thread itself: the exit counts as told once it has fetched how the child ended.
    Itself,
    /// The same, as soon as the wait returns: nothing is known but that it ended.
    ItselfBarely,
    /// Another process at the other end of a TCP connection, of how the child ended.
    Process,
    /// Another thread at the other end of a TCP connection: that the child ended.
    ThreadBarely,
}

impl Told {
    fn asks_how_it_ended(self) -> bool {
        matches!(self, Self::Itself | Self::Process)
    }
}

#[derive(Debug, Clone, Copy)]
enum Word {
    /// A child ended.
    Ended,
    /// A child has this pid from now on.
    Started { number: u32, pid: Pid },
}

/// Keeps some children alive until it is dropped.
pub struct Keeper {
    /// What is told, each with the moment at which it was: by the monotonic clock, in nanoseconds.
    words: Receiver<(u64, Word)>,
    pids: BTreeMap<usize, Pid>,
    worker: Worker,
}

/// Ends, and its children with it, when its pipe is closed.
enum Worker {
    Thread(Option<PipeWriter>, Option<JoinHandle<()>>),
    /// This program, started again; the pipe is what it reads.
    Process(Child),
}

/// Tells some words in one piece.
type Teller = Box<dyn FnMut(&[Word]) + Send>;

impl Keeper {
    /// Starts children numbered from `first`, and waits until all have a pid.
    pub fn start(nursery: &Nursery, first: usize, count: usize, told: Told) -> Self {
        let (sender, words) = mpsc::channel();
        let worker = match told {
            Told::Itself | Told::ItselfBarely => Worker::begin(nursery, first, count, told, teller(sender)),
            Told::ThreadBarely => Worker::begin(nursery, first, count, told, teller_over_tcp(listen(sender))),
            Told::Process => Worker::Process(start_process(nursery, first, count, listen(sender))),
        };
        let mut keeper = Self { words, pids: BTreeMap::new(), worker };
        while keeper.pids.len() < count {
            keeper.next();
        }
        keeper
    }

    /// The process that keeps them.
    pub fn id(&self) -> u32 {
        match &self.worker {
            Worker::Thread(..) => std::process::id(),
            Worker::Process(process) => process.id(),
        }
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
            (at, Word::Ended) => Some(at),
            (_, Word::Started { number, pid }) => {
                self.pids.insert(number as usize, pid);
                None
            }
        }
    }
}

impl Worker {
    fn begin(nursery: &Nursery, first: usize, count: usize, told: Told, tell: Teller) -> Self {
        let floor = Floor::new(nursery.directory(), first, count, Care::Full);
        let (pipe, end) = std::io::pipe().expect("a pipe");
        let work = move || {
            floor.lasts_as_long_as(&pipe);
            keep(floor, count, told, tell);
        };
        Self::Thread(Some(end), Some(std::thread::spawn(work)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        match &mut self.worker {
            Worker::Thread(end, thread) => {
                drop(end.take());
                thread.take().map(JoinHandle::join); // if it panicked, it said so
            }
            Worker::Process(process) => {
                drop(process.stdin.take());
                let _ = process.wait();
            }
        }
    }
}

/// Becomes a keeper, if this process was started to be one.
pub fn be_a_keeper_if_asked() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [keeper, address, nursery, first, count] = &arguments[..] else { return };
    if keeper != KEEPER {
        return;
    }
    let number = |text: &String| text.parse().expect("a number");
    let (first, count) = (number(first), number(count));
    let floor = Floor::new(Path::new(nursery), first, count, Care::Full);
    floor.lasts_as_long_as(&std::io::stdin());
    keep(floor, count, Told::Process, teller_over_tcp(address.parse().expect("an address")));
    std::process::exit(0);
}

fn start_process(nursery: &Nursery, first: usize, count: usize, address: SocketAddr) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(KEEPER).arg(address.to_string()).arg(nursery.directory());
    command.args([first, count].map(|number| number.to_string()));
    command.stdin(Stdio::piped()).spawn().expect("this program again")
}

fn keep(mut floor: Floor, count: usize, told: Told, mut tell: Teller) {
    let start = |floor: &mut Floor, tell: &mut Teller, number: usize| {
        floor.start(number);
        let pid = floor.pid(number).expect("just started");
        tell(&[Word::Started { number: number as u32, pid }]);
    };
    (0..count).for_each(|number| start(&mut floor, &mut tell, number));
    loop {
        let ended = floor.ended();
        if floor.is_over() {
            return;
        }
        if told.asks_how_it_ended() {
            ended.iter().for_each(|number| floor.ask_how_it_ended(*number));
        }
        tell(&vec![Word::Ended; ended.len()]);
        ended.iter().for_each(|number| floor.bury(*number));
        ended.iter().for_each(|number| start(&mut floor, &mut tell, *number));
    }
}

/// Whoever keeps the children hears it itself.
fn teller(words: Sender<(u64, Word)>) -> Teller {
    Box::new(move |said| {
        let at = now();
        for word in said {
            let _ = words.send((at, *word)); // nobody listens at the end
        }
    })
}

/// Whoever keeps the children writes to this address.
fn teller_over_tcp(address: SocketAddr) -> Teller {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_nodelay(true).expect("a socket option");
    Box::new(move |said| {
        let frames: Vec<u8> = said.iter().flat_map(|word| word.frame()).collect();
        let _ = stream.write_all(&frames); // nobody listens at the end
    })
}

/// The address at which a thread hears what is told.
fn listen(words: Sender<(u64, Word)>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut frame = [0; FRAME];
        while stream.read_exact(&mut frame).is_ok() {
            let at = now();
            let _ = words.send((at, Word::of(&frame))); // nobody listens at the end
        }
    });
    address
}

impl Word {
    /// A pid of zero says that a child ended.
    fn frame(self) -> [u8; FRAME] {
        let (number, pid) = match self {
            Self::Ended => (0, 0),
            Self::Started { number, pid } => (number, pid.as_raw_nonzero().get()),
        };
        let mut frame = [0; FRAME];
        frame[..4].copy_from_slice(&number.to_ne_bytes());
        frame[4..8].copy_from_slice(&pid.to_ne_bytes());
        frame
    }

    fn of(frame: &[u8; FRAME]) -> Self {
        let number = |at: usize| frame[at..at + 4].try_into().expect("four bytes");
        match Pid::from_raw(i32::from_ne_bytes(number(4))) {
            None => Self::Ended,
            Some(pid) => Self::Started { number: u32::from_ne_bytes(number(0)), pid },
        }
    }
}

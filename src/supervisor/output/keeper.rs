//! The thread that puts aside what nodes write, and tells whoever waits that there is something to read.
//!
//! A node that is silent costs it nothing: the kernel says when the next byte comes, once, and says no more. From then on
//! the file is looked at when it will be full if it grows on as it did, until it is found not to have grown. A watch
//! that stayed would wake the thread for every line; a timer alone would wake it for those that are silent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::pace::{LATEST, SOONEST, next_look};
use super::rotate::{Carved, Lock, ThisDisk, carve, free_again, pack, prune};
use super::shelf::Shelf;
use super::{plain, read};
use crate::model::{Node, NodeName, OutputPlace, OutputRules, OutputStream};
use crate::supervisor::bell::Bell;

/// Below everything that somebody waits for: launches above all.
const NICE: i32 = 10;
/// How long a new life may go without being minded: who begins first comes first, and what it writes by then is seen then.
const WHILE: Duration = Duration::from_millis(500);
/// How many pieces are put aside of one file before the next file is looked at.
const PIECES_A_LOOK: usize = 4;
/// How many may wait for more of a node's output.
const MOST_WAITERS: usize = 256;

/// Cheap to clone; the thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

struct Shared {
    /// Holds a directory per node.
    nodes: PathBuf,
    rules: OutputRules,
    locks: Mutex<HashMap<NodeName, Arc<Lock>>>,
    orders: Mutex<Vec<Order>>,
    bell: Bell,
}

enum Order {
    /// By these rules, if it has some of its own.
    Mind(NodeName, Option<Box<OutputRules>>),
    Forget(NodeName),
    Await(Waiter),
    End,
}

impl Order {
    fn may_wait(&self) -> bool {
        matches!(self, Self::Mind(..))
    }
}

/// Somebody who has read up to a place.
struct Waiter {
    node: NodeName,
    stream: OutputStream,
    place: OutputPlace,
    until: Instant,
    tell: Box<dyn FnOnce() + Send>,
}

/// Ends the thread when the last handle is gone.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.order(Order::End);
    }
}

impl Keeper {
    /// Starts the thread, for nodes that have their directories in `nodes` and no rules of their own but these.
    pub fn hire(nodes: PathBuf, rules: OutputRules) -> io::Result<Self> {
        let bell = Bell::new()?;
        let shared = Shared { nodes, rules, locks: Mutex::default(), orders: Mutex::default(), bell };
        let shared = Arc::new(shared);
        let clerk = Clerk {
            shared: Arc::clone(&shared),
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            minded: BTreeMap::new(),
            watches: BTreeMap::new(),
            agenda: BTreeSet::new(),
            waiters: Vec::new(),
            minds_from: None,
        };
        thread::Builder::new().name("keeper".into()).spawn(move || clerk.work())?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// The lock of that node's output.
    pub fn lock(&self, node: &NodeName) -> Arc<Lock> {
        self.shared.lock(node)
    }

    /// Puts aside what this node writes, from now on. Its files are there, or new ones are since the last time.
    pub fn mind(&self, node: &Node) {
        let rules = node.output.as_ref().map(|own| Box::new(own.over(&self.shared.rules)));
        self.shared.order(Order::Mind(node.name.clone(), rules));
    }

    /// Lets go of a node.
    pub fn forget(&self, node: &NodeName) {
        self.shared.order(Order::Forget(node.clone()));
    }

    /// Calls `tell` once there is something behind `place`, or when the time is up; drops it if too many wait.
    pub fn when_there_is_more(
        &self,
        node: NodeName,
        stream: OutputStream,
        place: OutputPlace,
        within: Duration,
        tell: impl FnOnce() + Send + 'static,
    ) {
        let until = Instant::now() + within;
        self.shared.order(Order::Await(Waiter { node, stream, place, until, tell: Box::new(tell) }));
    }
}

impl Shared {
    fn lock(&self, node: &NodeName) -> Arc<Lock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(node.clone()).or_default())
    }

    fn order(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever takes the first takes what came after it.
        let rings = orders.is_empty() || !order.may_wait();
        orders.push(order);
        drop(orders);
        if rings {
            self.bell.ring();
        }
    }

    /// What is to be done now. Orders that may wait do so until that time, where nothing came that may not.
    fn take(&self, until: &mut Option<Instant>, now: Instant) -> Vec<Order> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if !orders.is_empty() && orders.iter().all(Order::may_wait) && *until.get_or_insert(now + WHILE) > now {
            return Vec::new();
        }
        *until = None;
        std::mem::take(&mut *orders)
    }
}

/// The thread's own.
struct Clerk {
    shared: Arc<Shared>,
    inotify: OwnedFd,
    /// Boxed: the room that a tree keeps for more is about as much as it holds.
    minded: BTreeMap<NodeName, Box<Minded>>,
    /// Whose file it is that the kernel watches.
    watches: BTreeMap<i32, (NodeName, OutputStream)>,
    agenda: BTreeSet<(Instant, NodeName, OutputStream)>,
    waiters: Vec<Waiter>,
    /// When lives are minded that have begun.
    minds_from: Option<Instant>,
}

struct Minded {
    /// Its own, if it has some.
    rules: Option<Box<OutputRules>>,
    since: Instant,
    sights: [Sight; 2],
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Sight {
    watch: Option<i32>,
    /// What was seen of it; `None` as long as it is empty and nothing is to be done about it.
    seen: Option<Box<LastSeen>>,
}

/// What was seen of a file last.
#[derive(Debug, Clone, Copy)]
struct LastSeen {
    length: u64,
    at: Instant,
    /// When it is looked at next.
    due: Option<Instant>,
    /// Since when its oldest line stands there, about; `None` if there is none.
    oldest: Option<SystemTime>,
    /// What is wrong with it was said.
    troubled: bool,
}

impl LastSeen {
    fn new(at: Instant) -> Self {
        Self { length: 0, at, due: None, oldest: None, troubled: false }
    }
}

impl Minded {
    fn seen(&mut self, stream: OutputStream) -> &mut LastSeen {
        let since = self.since;
        self.sights[stream as usize].seen.get_or_insert_with(|| Box::new(LastSeen::new(since)))
    }
}

impl Clerk {
    fn work(mut self) {
        // Where it may not be, it competes with the others.
        let _ = rustix::process::setpriority_process(None, NICE);
        loop {
            self.sleep();
            self.survive("hearing who wrote", Self::hear);
            if !self.waiters.is_empty() {
                self.minds_from = Some(Instant::now()); // somebody may wait for the new life to say something
            }
            for order in self.shared.take(&mut self.minds_from, Instant::now()) {
                match order {
                    Order::Mind(node, rules) => {
                        let named = node.clone();
                        if !self.survive("minding a node", |clerk| clerk.mind(node, rules)) {
                            OutputStream::ALL.into_iter().for_each(|stream| self.look_within(&named, stream, LATEST));
                        }
                    }
                    Order::Forget(node) => {
                        self.survive("letting go of a node", |clerk| clerk.forget(&node));
                    }
                    Order::Await(waiter) => {
                        self.survive("a wait for more", |clerk| clerk.await_more(waiter));
                    }
                    Order::End => return,
                }
            }
            let now = Instant::now();
            while let Some((at, node, stream)) = self.agenda.first().cloned()
                && at <= now
            {
                // Taken off ahead: one that panics must not come up again at once.
                self.agenda.remove(&(at, node.clone(), stream));
                if !self.survive("looking at a file", |clerk| clerk.look(&node, stream)) {
                    self.look_within(&node, stream, LATEST);
                }
            }
            let (over, waiters) = std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.until <= now);
            self.waiters = waiters;
            self.tell_all(over);
        }
    }

    /// Does one thing, and whether it came to its end: where it panics, the others are minded all the same.
    fn survive(&mut self, what: &str, work: impl FnOnce(&mut Self)) -> bool {
        let ended = catch_unwind(AssertUnwindSafe(|| work(self))).is_ok();
        if !ended {
            tracing::error!("the keeper of output goes on, though this panicked: {what}");
        }
        ended
    }

    fn sleep(&self) {
        let looks = self.agenda.first().map(|(at, ..)| *at);
        let next = looks.into_iter().chain(self.waiters.iter().map(|waiter| waiter.until)).chain(self.minds_from).min();
        self.shared.bell.wait(&self.inotify, next);
    }

    /// Hears which files were written to.
    fn hear(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut written = Vec::new();
        let mut overflowed = false;
        {
            let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = events.next() {
                overflowed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                // A watch that speaks once is gone then; the kernel says that, too.
                written.extend(self.watches.remove(&event.wd()));
            }
        }
        if overflowed {
            written.extend(std::mem::take(&mut self.watches).into_values());
        }
        for (node, stream) in written {
            if let Some(minded) = self.minded.get_mut(&node) {
                minded.sights[stream as usize].watch = None;
                self.look_within(&node, stream, SOONEST);
            }
            self.tell(&node, stream);
        }
    }

    /// Tells whoever waits for more of this.
    fn tell(&mut self, node: &NodeName, stream: OutputStream) {
        let waits = |waiter: &Waiter| waiter.node == *node && waiter.stream == stream;
        let (those, others) = std::mem::take(&mut self.waiters).into_iter().partition(waits);
        self.waiters = others;
        self.tell_all(those);
    }

    fn tell_all(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            self.survive("telling who waited for more", |_| (waiter.tell)());
        }
    }

    fn mind(&mut self, node: NodeName, rules: Option<Box<OutputRules>>) {
        self.drop_agenda(&node);
        // Those of the life before are for files that this one may go on with.
        let watches =
            self.minded.get(&node).map_or([None; 2], |former| former.sights.each_ref().map(|sight| sight.watch));
        let sights = watches.map(|watch| Sight { watch, seen: None });
        self.minded.insert(node.clone(), Box::new(Minded { rules, since: Instant::now(), sights }));
        let directory = self.directory(&node);
        let has_past = Shelf::is_there(&directory);
        for stream in OutputStream::ALL {
            if has_past {
                let lock = self.shared.lock(&node);
                let _held = lock.hold();
                let freed = free_again(&directory, stream, &ThisDisk);
                self.note(&node, stream, freed);
            }
            // Before it is looked at: most say nothing at first, and then there is nothing to look for.
            let is_watched = self.watch(&node, stream);
            if has_past || !is_watched || self.length(&node, stream).is_some_and(|length| length > 0) {
                self.look(&node, stream);
            }
            let waits = self.waiters.iter().any(|waiter| waiter.node == node && waiter.stream == stream);
            if waits {
                let (those, others) = std::mem::take(&mut self.waiters)
                    .into_iter()
                    .partition(|waiter| waiter.node == node && waiter.stream == stream);
                self.waiters = others;
                let those: Vec<Waiter> = those;
                for waiter in those {
                    self.survive("a wait for more", |clerk| clerk.await_more(waiter));
                }
            }
        }
        if has_past {
            let tidied = self.tidy(&node);
            self.note(&node, OutputStream::Stdout, tidied);
        }
    }

    fn forget(&mut self, node: &NodeName) {
        self.drop_watches(node);
        self.drop_agenda(node);
        self.minded.remove(node);
        // Whoever waits hears of it when the time is up. A lock that somebody has stays the one lock of that name.
        let mut locks = self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.get(node).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(node);
        }
    }

    fn drop_watches(&mut self, node: &NodeName) {
        let Some(minded) = self.minded.get_mut(node) else { return };
        for watch in minded.sights.iter_mut().filter_map(|sight| sight.watch.take()) {
            self.watches.remove(&watch);
            let _ = inotify::remove_watch(&self.inotify, watch); // the file may be gone, and the watch with it
        }
    }

    fn drop_agenda(&mut self, node: &NodeName) {
        let Some(minded) = self.minded.get_mut(node) else { return };
        for (stream, sight) in OutputStream::ALL.into_iter().zip(&mut minded.sights) {
            if let Some(due) = sight.seen.as_mut().and_then(|seen| seen.due.take()) {
                self.agenda.remove(&(due, node.clone(), stream));
            }
        }
    }

    fn await_more(&mut self, waiter: Waiter) {
        let Waiter { node, stream, place, .. } = &waiter;
        let (node, stream, place) = (node.clone(), *stream, *place);
        let (lock, directory) = (self.shared.lock(&node), self.directory(&node));
        let has_more = || read::has_more(&directory, stream, place, &lock).unwrap_or(true); // the reader says what is wrong
        if has_more() {
            return (waiter.tell)();
        }
        if self.waiters.len() >= MOST_WAITERS {
            return;
        }
        self.waiters.push(waiter);
        self.watch(&node, stream);
        // It may have come before the watch.
        if has_more() {
            self.tell(&node, stream);
        }
    }

    /// Asks the kernel to say when the file is written to next. Whether it will.
    fn watch(&mut self, node: &NodeName, stream: OutputStream) -> bool {
        let path = self.directory(node).join(stream.as_str());
        let once = WatchFlags::MODIFY | WatchFlags::ONESHOT | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, &path, once) {
            Ok(watch) => {
                self.watches.insert(watch, (node.clone(), stream));
                let sight = self.minded.get_mut(node).map(|minded| &mut minded.sights[stream as usize]);
                let former = sight.and_then(|sight| sight.watch.replace(watch)).filter(|former| *former != watch);
                if let Some(former) = former {
                    self.watches.remove(&former);
                    let _ = inotify::remove_watch(&self.inotify, former); // it may have gone with its file
                }
                true
            }
            // It is looked at again when there is a new life.
            Err(Errno::NOENT) => true,
            Err(error) => {
                tracing::debug!(%node, "nobody notices when {stream} is written to: {error}");
                false
            }
        }
    }

    fn look_within(&mut self, node: &NodeName, stream: OutputStream, time: Duration) {
        let Some(minded) = self.minded.get_mut(node) else { return };
        let seen = minded.seen(stream);
        let at = Instant::now() + time;
        if let Some(due) = seen.due {
            if due <= at {
                return;
            }
            self.agenda.remove(&(due, node.clone(), stream));
        }
        seen.due = Some(at);
        self.agenda.insert((at, node.clone(), stream));
    }

    /// Looks at a file, puts aside what is too much or too old, and decides when to look again.
    fn look(&mut self, node: &NodeName, stream: OutputStream) {
        let Some(minded) = self.minded.get_mut(node) else { return };
        let seen = minded.seen(stream);
        if let Some(due) = seen.due.take() {
            self.agenda.remove(&(due, node.clone(), stream));
        }
        let (before, rules) = (*seen, minded.rules.as_deref().unwrap_or(&self.shared.rules).clone());
        let outcome = self.put_aside(node, stream, &rules, &before);
        let now = Instant::now();
        let (length, held, oldest) = match &outcome {
            Ok(Seen { length, held, oldest }) => (*length, *held, *oldest),
            Err(_) => (before.length, 0, before.oldest),
        };
        let failed = outcome.is_err();
        self.note(node, stream, outcome.map(drop));
        let Some(minded) = self.minded.get_mut(node) else { return };
        let seen = minded.seen(stream);
        let room = rules.max_bytes.saturating_sub(held);
        let pace = next_look(length.saturating_sub(before.length), now - before.at, room);
        (seen.length, seen.at, seen.oldest) = (length, now, oldest);
        let age = oldest.and_then(|oldest| (oldest + rules.max_age).duration_since(SystemTime::now()).ok());
        let mut next = pace;
        if failed {
            next = Some(LATEST);
        } else if pace.is_none() {
            let is_watched = minded.sights[stream as usize].watch.is_some() || self.watch(node, stream);
            // It may have grown before the watch.
            let grew = self.length(node, stream).is_some_and(|found| found != length);
            next = if grew { Some(SOONEST) } else { (!is_watched).then_some(LATEST) };
        }
        if let Some(next) = next.into_iter().chain(age).min() {
            self.look_within(node, stream, next.max(SOONEST));
        }
    }

    fn put_aside(
        &self,
        node: &NodeName,
        stream: OutputStream,
        rules: &OutputRules,
        before: &LastSeen,
    ) -> io::Result<Seen> {
        let (lock, directory) = (self.shared.lock(node), self.directory(node));
        let mut seen = seen(&directory, stream, &lock, before.oldest)?;
        let is_old =
            |seen: &Seen| seen.oldest.is_some_and(|oldest| oldest.elapsed().is_ok_and(|age| age >= rules.max_age));
        let mut did = false;
        // Not as long as it takes: somebody may write faster than this, and the others have their turn.
        for _ in 0..PIECES_A_LOOK {
            if seen.held < rules.max_bytes && (did || !is_old(&seen)) {
                break;
            }
            if carve(&directory, stream, rules, &lock, &ThisDisk)? == Carved::Nothing {
                break;
            }
            did = true;
            seen = self::seen(&directory, stream, &lock, Some(SystemTime::now()))?;
        }
        if did {
            self.tidy(node)?;
        }
        Ok(seen)
    }

    /// Compresses what is worth it, and removes what is too much.
    fn tidy(&self, node: &NodeName) -> io::Result<()> {
        let Some(minded) = self.minded.get(node) else { return Ok(()) };
        let directory = self.directory(node);
        let rules = minded.rules.as_deref().unwrap_or(&self.shared.rules);
        if rules.compress {
            OutputStream::ALL.into_iter().try_for_each(|stream| pack(&directory, stream))?;
        }
        prune(&directory, rules)
    }

    /// Says once what is wrong, until it is right again.
    fn note(&mut self, node: &NodeName, stream: OutputStream, result: io::Result<()>) {
        let Some(minded) = self.minded.get_mut(node) else { return };
        match result {
            Ok(()) => minded.sights[stream as usize].seen.iter_mut().for_each(|seen| seen.troubled = false),
            Err(error) if !std::mem::replace(&mut minded.seen(stream).troubled, true) => {
                tracing::warn!(%node, "cannot put aside what it wrote to {stream}: {error}; it is tried again");
            }
            Err(_) => {}
        }
    }

    fn length(&self, node: &NodeName, stream: OutputStream) -> Option<u64> {
        std::fs::symlink_metadata(self.directory(node).join(stream.as_str())).ok().map(|found| found.len())
    }

    fn directory(&self, node: &NodeName) -> PathBuf {
        self.shared.nodes.join(node.as_str())
    }
}

/// What there is of a file.
struct Seen {
    length: u64,
    /// How much of it is not put aside.
    held: u64,
    oldest: Option<SystemTime>,
}

fn seen(directory: &Path, stream: OutputStream, lock: &Lock, oldest: Option<SystemTime>) -> io::Result<Seen> {
    let _held = lock.hold();
    let Some(file) = plain::open(&directory.join(stream.as_str()))? else {
        return Ok(Seen { length: 0, held: 0, oldest: None });
    };
    let found = file.metadata()?;
    let length = found.len();
    let shelf = Shelf::read(directory, stream)?;
    let next = super::rotate::next_within(directory, stream, length)?;
    let held = length - next.offset;
    if held == 0 {
        return Ok(Seen { length, held, oldest: None });
    }
    // What was found there has stood since the file was made, or since all before it was put aside.
    let stood = || {
        let made = found.created().ok();
        if next.offset > 0 { shelf.modified() } else { made }
    };
    Ok(Seen { length, held, oldest: oldest.or_else(stood).or(Some(SystemTime::now())) })
}

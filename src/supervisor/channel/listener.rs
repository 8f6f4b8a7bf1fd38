//! The thread that reads what Zeek nodes say, and writes down what they are asked. It begins with the first Zeek node.
//!
//! The kernel says when there is something to read; what comes within a moment is read in one go, unless somebody is still
//! to say its first word. How far a file was read is
//! noted a second later, when whoever was told has it on disk: after a kill what came in that second is told again, and
//! nothing is lost. What was noted is freed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::decode::Heard;
use super::files::Place;
use super::life::{Channel, Question};
use crate::model::{Life, NodeName};
use crate::supervisor::bell::Bell;
use crate::supervisor::workshop::WardId;

/// What comes within this time is read in one go. Orders do not wait for it, nor does the first word of a life, for which
/// whoever is started next waits.
const PAUSE: Duration = Duration::from_millis(20);
/// How much is read at once, and of one node before others have their turn; in bytes.
const PIECE: usize = 64 << 10;
const TURN: u64 = 16 * PIECE as u64;
/// The stack of the thread, in bytes.
const STACK: usize = 256 << 10;

/// What the thread tells.
#[derive(Debug)]
pub enum News {
    /// What a life said. `all` answers [`Channels::listen`]: nothing is left that was said before.
    Heard { ward: WardId, life: Life, heard: Box<Heard>, all: bool },
    /// Also answers [`Channels::listen`]: it cannot be heard.
    Unheard { ward: WardId, life: Life },
}

/// Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub struct Channels(Arc<Desk>);

struct Desk {
    tell: Arc<dyn Fn(News) + Send + Sync>,
    /// Once there is a thread.
    thread: Mutex<Option<Arc<Shared>>>,
}

struct Shared {
    orders: Mutex<Vec<Order>>,
    bell: Bell,
}

enum Order {
    Hear { ward: WardId, name: NodeName, place: Place, life: Life },
    Over { ward: WardId, life: Life },
    Listen { ward: WardId, life: Life },
    Ask { ward: WardId, life: Life, question: Question },
    Forget { ward: WardId, place: Place },
    End,
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(shared) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            shared.order(Order::End);
        }
    }
}

impl Shared {
    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.bell.ring();
    }
}

impl Channels {
    /// Tells by this function, from the thread that it begins once there is a Zeek node.
    pub fn new(tell: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Desk { tell: Arc::new(tell), thread: Mutex::default() }))
    }

    /// Hears this life from now on, and what earlier ones said that nobody read.
    pub fn hear(&self, ward: WardId, name: NodeName, place: Place, life: Life) -> io::Result<()> {
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match &*thread {
            Some(shared) => shared,
            None => thread.insert(Clerk::hire(Arc::clone(&self.0.tell))?),
        };
        shared.order(Order::Hear { ward, name, place, life });
        Ok(())
    }

    /// This life ended: reads the last of what it said.
    pub fn over(&self, ward: WardId, life: Life) {
        self.order(Order::Over { ward, life });
    }

    /// Reads all that this life has said; answered by [`News::Heard`] or [`News::Unheard`].
    pub fn listen(&self, ward: WardId, life: Life) {
        if !self.order(Order::Listen { ward, life }) {
            (self.0.tell)(News::Unheard { ward, life });
        }
    }

    /// Asks this life; the answer is told in any case.
    pub fn ask(&self, ward: WardId, life: Life, question: Question) {
        let has_thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        match has_thread {
            true => drop(self.order(Order::Ask { ward, life, question })),
            false => (question.tell)(Err(NO_CHANNEL.into())),
        }
    }

    /// The node is gone for good.
    pub fn forget(&self, ward: WardId, place: Place) {
        self.order(Order::Forget { ward, place });
    }

    /// Whether there is somebody to do it.
    fn order(&self, order: Order) -> bool {
        match &*self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(shared) => {
                shared.order(order);
                true
            }
            None => false,
        }
    }
}

const NO_CHANNEL: &str = "it has no channel to be asked by: restart it";
/// The thread's own.
struct Clerk {
    shared: Arc<Shared>,
    tell: Arc<dyn Fn(News) + Send + Sync>,
    inotify: OwnedFd,
    channels: BTreeMap<WardId, Channel>,
    /// Whose news it is that the kernel watches.
    watches: BTreeMap<i32, WardId>,
    /// Who has written since its news were read.
    unread: BTreeSet<WardId>,
    buffer: Vec<u8>,
}

impl Clerk {
    fn hire(tell: Arc<dyn Fn(News) + Send + Sync>) -> io::Result<Arc<Shared>> {
        let bell = Bell::new()?;
        let shared = Arc::new(Shared { orders: Mutex::default(), bell });
        let clerk = Self {
            shared: Arc::clone(&shared),
            tell,
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            channels: BTreeMap::new(),
            watches: BTreeMap::new(),
            unread: BTreeSet::new(),
            buffer: vec![0; PIECE],
        };
        thread::Builder::new().name("channels".into()).stack_size(STACK).spawn(move || clerk.work())?;
        Ok(shared)
    }

    fn work(mut self) {
        loop {
            self.sleep();
            self.hear();
            let orders = std::mem::take(&mut *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
            for order in orders {
                if matches!(order, Order::End) {
                    return self.note_all();
                }
                self.survive("an order", |clerk| clerk.obey(order));
            }
            let unread = std::mem::take(&mut self.unread);
            let is_any = !unread.is_empty();
            for ward in unread {
                self.survive("reading what a node says", |clerk| clerk.read(ward));
            }
            self.survive("noting what was read", Self::be_on_time);
            if is_any && self.channels.values().all(Channel::has_spoken) {
                self.shared.bell.rest(PAUSE);
            }
        }
    }

    /// Does one thing; where it panics, the other nodes are heard all the same.
    fn survive(&mut self, what: &str, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!("the channels of Zeek nodes go on, though this panicked: {what}");
        }
    }

    fn sleep(&self) {
        let next = self.channels.values().filter_map(Channel::due).min();
        let next = if self.unread.is_empty() { next } else { Some(Instant::now()) };
        self.shared.bell.wait(&self.inotify, next);
    }

    /// Hears who wrote.
    fn hear(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.unread.extend(self.channels.keys());
            } else if let Some(ward) = self.watches.get(&event.wd()) {
                self.unread.insert(*ward);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Hear { ward, name, place, life } => self.begin(ward, name, place, life),
            Order::Over { ward, life } => {
                if self.channels.get(&ward).is_some_and(|channel| channel.life == life) {
                    self.end(ward);
                }
            }
            Order::Listen { ward, life } => match self.channels.get_mut(&ward).filter(|channel| channel.life == life) {
                Some(channel) => {
                    let mut heard = Heard::default();
                    let is_read = channel.read_on(&mut self.buffer, None, &mut heard).is_some();
                    self.pass_on(ward, heard, is_read);
                    if !is_read {
                        (self.tell)(News::Unheard { ward, life });
                    }
                }
                None => (self.tell)(News::Unheard { ward, life }),
            },
            Order::Ask { ward, life, question } => {
                match self.channels.get_mut(&ward).filter(|channel| channel.life == life) {
                    Some(channel) => channel.ask(question),
                    None => (question.tell)(Err(NO_CHANNEL.into())),
                }
            }
            Order::Forget { ward, place } => {
                self.end(ward);
                place.clear();
            }
            Order::End => {}
        }
    }

    fn begin(&mut self, ward: WardId, name: NodeName, place: Place, life: Life) {
        if self.channels.get(&ward).is_some_and(|channel| channel.life == life) {
            return;
        }
        self.end(ward);
        for earlier in place.lives().unwrap_or_default().into_iter().filter(|earlier| *earlier != life) {
            // Of one that nobody heard to its end.
            self.open(ward, &name, &place, earlier);
            self.end(ward);
            place.remove(earlier);
        }
        self.open(ward, &name, &place, life);
        let Some(channel) = self.channels.get_mut(&ward) else { return };
        match inotify::add_watch(&self.inotify, place.news(life), WatchFlags::MODIFY | WatchFlags::DONT_FOLLOW) {
            Ok(watch) => {
                channel.watch = Some(watch);
                self.watches.insert(watch, ward);
            }
            Err(error) => tracing::error!(node = %name, "nobody notices when it says something: {error}"),
        }
        self.unread.insert(ward); // what it said before
    }

    fn open(&mut self, ward: WardId, name: &NodeName, place: &Place, life: Life) {
        match Channel::open(name, place, life) {
            Ok(Some(channel)) => drop(self.channels.insert(ward, channel)),
            Ok(None) => {} // launched by a release that made none, or for nothing
            Err(error) => tracing::warn!(node = %name, "cannot hear what it says: {error}"),
        }
    }

    /// Reads the last of what a life said, and lets go of it.
    fn end(&mut self, ward: WardId) {
        let Some(channel) = self.channels.remove(&ward) else { return };
        let (life, watch) = (channel.life, channel.watch);
        let heard = Box::new(channel.finish(&mut self.buffer));
        if let Some(watch) = watch {
            self.watches.remove(&watch);
            let _ = inotify::remove_watch(&self.inotify, watch); // the file may be gone, and the watch with it
        }
        if !heard.is_nothing() {
            (self.tell)(News::Heard { ward, life, heard, all: false });
        }
    }

    fn read(&mut self, ward: WardId) {
        let Some(channel) = self.channels.get_mut(&ward) else { return };
        let mut heard = Heard::default();
        let is_all = channel.read_on(&mut self.buffer, Some(TURN), &mut heard) != Some(false);
        self.pass_on(ward, heard, false);
        if !is_all {
            self.unread.insert(ward); // after the others
        }
    }

    fn pass_on(&mut self, ward: WardId, mut heard: Heard, all: bool) {
        let Some(channel) = self.channels.get_mut(&ward) else { return };
        channel.answer(&mut heard);
        if all || !heard.is_nothing() {
            (self.tell)(News::Heard { ward, life: channel.life, heard: Box::new(heard), all });
        }
    }

    /// Gives up questions whose time is over, and notes what was read.
    fn be_on_time(&mut self) {
        let now = Instant::now();
        for channel in self.channels.values_mut() {
            channel.be_on_time(now);
        }
    }

    fn note_all(&mut self) {
        self.channels.values_mut().for_each(Channel::note);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::supervisor::channel::life::{Answer, ENDED};

    const LONG: Duration = Duration::from_secs(30);
    const L: Life = Life(7);

    /// A node that writes by hand, and the channels of an agent.
    struct Scene {
        home: tempfile::TempDir,
        channels: Channels,
        news: Receiver<News>,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            Place::of(home.path()).lay(L, None).unwrap();
            let (channels, news) = begin(home.path(), L);
            Self { home, channels, news }
        }

        fn place(&self) -> Place {
            Place::of(self.home.path())
        }

        fn write(&self, life: Life, text: &str) {
            let mut file = OpenOptions::new().append(true).open(self.place().news(life)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// What is told of that life, up to a report of this text.
        fn told_up_to(&self, life: Life, last: &str) -> Vec<String> {
            let mut told = Vec::new();
            while told.last().is_none_or(|text| text != last) {
                match self.news.recv_timeout(LONG).unwrap() {
                    News::Heard { life: of, heard, .. } if of == life => {
                        told.extend(heard.wrong.into_iter().chain(heard.reports.into_iter().map(|report| report.text)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            told
        }

        fn ask(&self, text: &str, until: Instant) -> Receiver<Answer> {
            let (told, answer) = channel();
            let tell = Box::new(move |answer| told.send(answer).unwrap());
            self.channels.ask(ward(), L, Question { text: text.into(), until, late: "late".into(), tell });
            answer
        }
    }

    fn ward() -> WardId {
        WardId::new(1)
    }

    fn begin(home: &Path, life: Life) -> (Channels, Receiver<News>) {
        let (tell, news) = channel();
        let channels = Channels::new(move |news| drop(tell.send(news))); // the test may be over
        channels.hear(ward(), NodeName::new("w").unwrap(), Place::of(home), life).unwrap();
        (channels, news)
    }

    fn warning(number: u32, text: &str) -> String {
        format!("{number} warning {{\"message\":\"{text}\",\"location\":\"\"}}\n")
    }

    #[test]
    fn what_was_said_while_nobody_listened_is_read_by_the_next_one_and_what_was_noted_is_not_read_again() {
        let mut scene = Scene::new();
        scene.write(L, &(warning(1, "one") + &warning(2, "two") + "3 warn"));
        assert_eq!(scene.told_up_to(L, "two"), ["one", "two"]);
        // It is noted at the end at the latest, and not the half of a line.
        let (channels, news) = (std::mem::replace(&mut scene.channels, Channels::new(|_| ())), scene.place());
        drop(channels);
        let up_to = (warning(1, "one") + &warning(2, "two")).len() as u64;
        let until = Instant::now() + LONG;
        while news.open(L).unwrap().unwrap().1 != up_to {
            assert!(Instant::now() < until, "it is never noted");
            thread::sleep(Duration::from_millis(5));
        }
        scene.write(L, &warning(3, "three").replacen("3 warn", "", 1));
        (scene.channels, scene.news) = begin(scene.home.path(), L);
        assert_eq!(scene.told_up_to(L, "three"), ["three"]);
        scene.write(L, &warning(4, "four"));
        assert_eq!(scene.told_up_to(L, "four"), ["four"]);
    }

    #[test]
    fn the_last_words_of_a_life_are_told_before_the_first_of_the_next_and_its_files_are_gone() {
        let scene = Scene::new();
        scene.write(L, &warning(1, "first"));
        assert_eq!(scene.told_up_to(L, "first"), ["first"]);
        let next = L.next();
        scene.place().lay(next, None).unwrap();
        scene.write(next, &warning(1, "hello"));
        scene.write(L, &warning(2, "last"));
        scene.channels.hear(ward(), NodeName::new("w").unwrap(), scene.place(), next).unwrap();
        assert_eq!(scene.told_up_to(L, "last"), ["last"]);
        assert_eq!(scene.told_up_to(next, "hello"), ["hello"]);
        assert_eq!(scene.place().lives().unwrap(), [next]);
        scene.channels.forget(ward(), scene.place());
        let until = Instant::now() + LONG;
        while std::fs::read_dir(scene.home.path()).unwrap().count() > 0 {
            assert!(Instant::now() < until, "its files stay");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn whoever_listens_hears_all_that_was_said_before_or_that_nobody_can_be_heard() {
        let scene = Scene::new();
        scene.write(L, &warning(1, "before"));
        scene.channels.listen(ward(), L);
        let mut told = Vec::new();
        loop {
            let News::Heard { heard, all, .. } = scene.news.recv_timeout(LONG).unwrap() else { panic!("unheard") };
            told.extend(heard.reports);
            if all {
                break;
            }
        }
        assert_eq!(told.len(), 1);
        scene.channels.listen(ward(), L.next());
        assert!(matches!(scene.news.recv_timeout(LONG).unwrap(), News::Unheard { .. }));
        let (tell, news) = channel();
        let none = Channels::new(move |news| tell.send(news).unwrap());
        none.listen(ward(), L);
        assert!(matches!(news.recv_timeout(LONG).unwrap(), News::Unheard { .. }), "also without a thread");
    }

    #[test]
    fn a_question_has_one_answer_or_is_late_or_the_node_is_gone() {
        let scene = Scene::new();
        let soon = Instant::now() + LONG;
        let answer = scene.ask("get_id_value x", soon);
        let asked = || {
            let until = Instant::now() + LONG;
            loop {
                let text = std::fs::read_to_string(scene.place().questions(L)).unwrap();
                if text.ends_with('\n') {
                    return text;
                }
                assert!(Instant::now() < until, "nothing is asked");
                thread::sleep(Duration::from_millis(5));
            }
        };
        assert_eq!(asked(), "1 get_id_value x\n");
        scene.write(L, "1 part 1 [1,\n2 part 1 2]\n3 answer 1\n4 answer 1\n");
        assert_eq!(answer.recv_timeout(LONG).unwrap(), Ok("[1,2]".into()));
        assert_eq!(scene.ask("late", Instant::now()).recv_timeout(LONG).unwrap(), Err("late".into()));
        let gone = scene.ask("gone", soon);
        scene.channels.over(ward(), L);
        assert_eq!(gone.recv_timeout(LONG).unwrap(), Err(ENDED.into()));
        assert_eq!(scene.ask("nobody", soon).recv_timeout(LONG).unwrap(), Err(NO_CHANNEL.into()));
        assert!(asked().lines().last().unwrap().ends_with(" gone"), "the number of each is its own: {}", asked());
    }

    #[test]
    fn a_file_of_any_length_is_read_in_bounded_time() {
        let scene = Scene::new();
        scene.write(L, &warning(1, "first"));
        assert_eq!(scene.told_up_to(L, "first"), ["first"]);
        let file = OpenOptions::new().append(true).open(scene.place().news(L)).unwrap();
        file.set_len(1 << 40).unwrap();
        scene.write(L, &("\n".to_owned() + &warning(2, "last")));
        let told = scene.told_up_to(L, "last");
        let want = ["its channel has more than 64 MiB that nobody read, of which the oldest is passed over"];
        assert_eq!(told[..1], want, "{told:?}");
    }

    #[test]
    fn one_who_writes_without_end_does_not_keep_others_from_being_heard() {
        let scene = Scene::new();
        let place = Place::of(&scene.home.path().join("other"));
        std::fs::create_dir(scene.home.path().join("other")).unwrap();
        place.lay(L, None).unwrap();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flood = {
            let (path, done) = (scene.place().news(L), Arc::clone(&done));
            thread::spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    file.write_all(&[b'x'; 1 << 16]).unwrap();
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let other = WardId::new(2);
        scene.channels.hear(other, NodeName::new("o").unwrap(), place.clone(), L).unwrap();
        let mut file = OpenOptions::new().append(true).open(place.news(L)).unwrap();
        file.write_all(warning(1, "heard").as_bytes()).unwrap();
        loop {
            match scene.news.recv_timeout(LONG).unwrap() {
                News::Heard { ward, heard, .. } if ward == other => break assert_eq!(heard.reports.len(), 1),
                News::Heard { heard, .. } => assert!(heard.reports.is_empty() && heard.wrong.len() <= 1),
                unheard => panic!("{unheard:?}"),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        flood.join().unwrap();
    }
}

//! The thread that empties the queues.
//!
//! The kernel says when a log comes into a queue; nothing is looked at otherwise but disks, by the pace at which they fill, and
//! the archive itself when its oldest log becomes too old. What fails is told once and tried again, ever more seldom, and its
//! log stays where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::QUEUE;
use super::courier::Courier;
use super::disks::Disks;
use super::handle::{News, Shared, Want};
use super::name::Rotated;
use super::pace::Trouble;
use super::press::Press;
use super::queue::{Queue, rescue};
use super::retention::{Plan, plan};
use super::roll::{self, Minded, Order};
use super::shelf::Shelf;
use crate::model::{ArchivePlace, ArchiveRules, InstanceName, NodeName};

/// Below everything that somebody waits for.
const NICE: i32 = 10;
/// How many logs of a node are put away before the others have their turn.
const LOGS_A_TURN: usize = 16;
/// So many logs may fail before the rest of the queue waits, too.
const FAILURES_A_TURN: usize = 4;
/// How many logs are let go before the queues have their turn.
const GONE_A_TURN: usize = 500;
/// No sooner than this the archive is looked through again.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// No later than this it is looked whether a log has become too old: clocks are set.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a queue is looked at that the kernel cannot watch.
const UNHEARD: Duration = Duration::from_secs(60);

/// The thread's own.
pub(super) struct Clerk {
    shared: Arc<Shared>,
    /// Opened for the first queue: the kernel gives a user few of them.
    inotify: Option<OwnedFd>,
    /// Whose queue it is that the kernel watches.
    watches: BTreeMap<i32, NodeName>,
    /// Whose queue it cannot watch.
    unheard: BTreeSet<NodeName>,
    whose: String,
    /// Where the command of an archive has its output.
    errands: PathBuf,
    nodes: PathBuf,
    usual: PathBuf,
    environment: BTreeMap<String, String>,
    /// Where rules and nodes are kept for the next run.
    kept: PathBuf,
    rules: ArchiveRules,
    minded: BTreeMap<NodeName, Minded>,
    /// When each node's queue is looked at next.
    due: BTreeMap<NodeName, Instant>,
    /// Logs that could not be put away, by node and name.
    failed: BTreeMap<(NodeName, String), Failed>,
    /// Files in queues of which it was said that nobody knows what they are.
    strange: BTreeSet<(NodeName, String)>,
    /// Whether it was said that logs cannot be put away.
    in_trouble: bool,
    retention: Trouble,
    /// When the archive is looked through.
    look_through: Option<Instant>,
    looked_through: Option<Instant>,
    disks: Disks,
    tell: Option<Box<dyn Fn(News) + Send>>,
    untold: Vec<News>,
}

#[derive(Debug, Default)]
struct Failed {
    trouble: Trouble,
    due: Option<Instant>,
}

impl Clerk {
    /// A thread that has not begun.
    pub(super) fn new(
        shared: Arc<Shared>,
        nodes: PathBuf,
        instance: InstanceName,
        usual: PathBuf,
        environment: BTreeMap<String, String>,
    ) -> Self {
        Self {
            shared,
            inotify: None,
            watches: BTreeMap::new(),
            unheard: BTreeSet::new(),
            whose: instance.to_string(),
            errands: nodes.join(format!(".archiving-{instance}")),
            kept: nodes.join(format!(".archive-{instance}")),
            nodes,
            usual,
            environment,
            rules: ArchiveRules::default(),
            minded: BTreeMap::new(),
            due: BTreeMap::new(),
            failed: BTreeMap::new(),
            strange: BTreeSet::new(),
            in_trouble: false,
            retention: Trouble::default(),
            look_through: None,
            looked_through: None,
            disks: Disks::default(),
            tell: None,
            untold: Vec::new(),
        }
    }

    /// Takes up what an earlier run of the agent has left.
    pub(super) fn go_on(&mut self) {
        match roll::read(&self.kept) {
            Ok(Some((rules, minded))) => {
                (self.rules, self.minded) = (rules, minded);
                self.begin();
            }
            Ok(None) => {}
            Err(error) => self.say(None, true, format!("cannot read {}: {error}", self.kept.display())),
        }
    }

    /// Works until the last handle is gone.
    pub(super) fn work(mut self) {
        // Where it may not be, it competes with the others.
        let _ = rustix::process::setpriority_process(None, NICE);
        loop {
            self.sleep();
            self.survive("hearing of logs", Self::hear);
            let wants = std::mem::take(&mut *self.shared.wants.lock().unwrap_or_else(PoisonError::into_inner));
            for want in wants {
                match want {
                    Want::End => return,
                    Want::Tell(tell) => {
                        std::mem::take(&mut self.untold).into_iter().for_each(&tell);
                        self.tell = Some(tell);
                    }
                    Want::Order(order) => self.survive("taking an order", |clerk| clerk.obey(order)),
                    Want::Look(node) => {
                        self.due.insert(node, Instant::now());
                    }
                }
            }
            let now = Instant::now();
            let due: Vec<NodeName> =
                self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
            for name in due {
                // Taken off ahead: one that panics must not come up again at once.
                self.due.remove(&name);
                self.survive("emptying a queue", |clerk| clerk.look(&name));
            }
            if self.look_through.is_some_and(|at| at <= now) {
                self.look_through = None;
                self.survive("letting go of logs", Self::retain);
            }
            self.survive("looking at disks", |clerk| {
                for (is_error, msg) in clerk.disks.look(clerk.rules.min_free) {
                    clerk.say(None, is_error, msg);
                }
            });
        }
    }

    /// Does one thing; where it panics, the others are done all the same.
    fn survive(&mut self, what: &str, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!("the archive goes on, though this panicked: {what}");
        }
    }

    fn sleep(&self) {
        let next = self.due.values().copied().chain(self.look_through).chain(self.disks.due()).min();
        let wait = next.map(|next| next.saturating_duration_since(Instant::now()));
        // Rounded up, or it would wake a moment too early, again and again.
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from((wait.subsec_nanos() + 1).min(999_999_999)),
        });
        let heard = self.inotify.iter().chain([&self.shared.wake]);
        let mut ready: Vec<PollFd> = heard.map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let _ = poll(&mut ready, wait.as_ref()); // interrupted: it looks around and sleeps again
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    /// Hears into which queues something came.
    fn hear(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut names = BTreeSet::new();
        let mut overflowed = false;
        {
            let mut events = inotify::Reader::new(inotify, &mut buffer);
            while let Ok(event) = events.next() {
                overflowed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                match event.events().contains(ReadFlags::IGNORED) {
                    true => names.extend(self.watches.remove(&event.wd())), // the queue itself is gone
                    false => names.extend(self.watches.get(&event.wd()).cloned()),
                }
            }
        }
        if overflowed {
            names.extend(self.watches.values().cloned());
        }
        let now = Instant::now();
        self.due.extend(names.into_iter().map(|name| (name, now)));
    }

    fn obey(&mut self, Order { rules, nodes }: Order) {
        if rules != self.rules {
            // What failed may not fail any more.
            self.failed.values_mut().for_each(|failed| failed.due = None);
            self.disks = Disks::default();
        }
        self.rules = rules;
        // Who left is minded until it has nothing more; who has nothing is forgotten.
        self.minded.retain(|_, minded| minded.home.join(QUEUE).exists());
        self.minded.extend(nodes.into_iter().map(|node| (node.name.clone(), node)));
        if let Err(error) = roll::write(&self.kept, &self.rules, &self.minded) {
            self.say(None, true, format!("cannot write {}: {error}", self.kept.display()));
        }
        self.begin();
    }

    /// Has everything looked at.
    fn begin(&mut self) {
        let now = Instant::now();
        self.due.extend(self.minded.keys().map(|name| (name.clone(), now)));
        if let Some(shelf) = self.shelf()
            && let Err(error) = shelf.tidy()
        {
            self.say(None, true, format!("cannot look through {}: {error}", shelf.home().display()));
        }
        self.look_through = Some(now);
        let places: Vec<PathBuf> = match self.minded.is_empty() || self.rules.min_free == 0 {
            true => Vec::new(),
            false => [self.nodes.clone()].into_iter().chain(self.shelf().map(|shelf| shelf.home().into())).collect(),
        };
        self.disks.watch(places);
    }

    /// Where logs go; `None` if they go nowhere, or somebody else takes them.
    fn shelf(&self) -> Option<Shelf> {
        let home = match &self.rules.place {
            _ if !self.rules.command.is_empty() => return None,
            ArchivePlace::Nowhere => return None,
            ArchivePlace::Usual => self.usual.clone(),
            ArchivePlace::At(path) => path.into(),
        };
        Some(Shelf::new(home, &self.whose, self.rules.place == ArchivePlace::Usual))
    }

    /// Moves away what the last life of a node has left, and puts away what is in its queue.
    fn look(&mut self, name: &NodeName) {
        let Some(minded) = self.minded.get(name).cloned() else { return };
        let left = {
            let up = self.shared.up();
            // Who runs writes to its logs, and moves them itself.
            if up.contains(name) { Ok(0) } else { rescue(&minded.home, minded.is_own) }
        };
        if let Err(error) = left {
            let what = format!("cannot take up the logs that it has left in {}: {error}", minded.home.display());
            self.say(Some(name), true, what);
        }
        let queue = if minded.writes { Queue::make(&minded.home) } else { Queue::open(&minded.home) };
        match queue {
            Ok(None) => {}
            Ok(Some(queue)) => {
                // Watched before it is listed, so that nothing comes unheard in between.
                self.watch(&minded);
                if let Err(error) = self.empty(&minded, &queue) {
                    self.fails(&minded, "", format!("cannot look into its queue of logs: {error}"));
                }
            }
            Err(error) => self.fails(&minded, "", format!("cannot open its queue of logs: {error}")),
        }
    }

    /// Has the kernel say when something comes into a queue. Where it cannot, the queue is looked at now and then.
    fn watch(&mut self, minded: &Minded) {
        if self.watches.values().any(|name| *name == minded.name) {
            return;
        }
        match self.add_watch(&minded.home.join(QUEUE)) {
            Ok(watch) => {
                self.watches.insert(watch, minded.name.clone());
                self.unheard.remove(&minded.name);
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {} // it is gone again
            Err(error) => {
                if self.unheard.insert(minded.name.clone()) {
                    let what = format!(
                        "nobody hears when it closes a log: {error}; its queue is looked at every minute instead (see \
                         fs.inotify.max_user_instances and max_user_watches)"
                    );
                    self.say(Some(&minded.name), true, what);
                }
                self.look_within(&minded.name, UNHEARD);
            }
        }
    }

    fn add_watch(&mut self, queue: &Path) -> Result<i32, Errno> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?),
        };
        let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR;
        inotify::add_watch(&*inotify, queue, flags)
    }

    /// Puts away what is in a queue.
    fn empty(&mut self, minded: &Minded, queue: &Queue) -> io::Result<()> {
        if self.rules.place == ArchivePlace::Nowhere && self.rules.command.is_empty() {
            return Ok(());
        }
        let found = queue.list()?;
        self.speak_of_others(minded, &found.others);
        let here = |key: &(NodeName, String)| key.0 == minded.name;
        self.failed
            .retain(|key, _| !here(key) || key.1.is_empty() || found.logs.iter().any(|(name, _)| *name == key.1));
        self.works(&minded.name, "");
        let (now, mut done, mut failures, mut rest) = (Instant::now(), 0, 0, false);
        for (file, log) in &found.logs {
            let key = (minded.name.clone(), file.clone());
            if self.failed.get(&key).and_then(|failed| failed.due).is_some_and(|due| due > now) {
                continue;
            }
            if done + failures >= LOGS_A_TURN || failures >= FAILURES_A_TURN {
                rest = true;
                break;
            }
            match self.put_away(minded, queue, file, log) {
                Ok(()) => {
                    done += 1;
                    self.works(&minded.name, file);
                }
                Err(why) => {
                    failures += 1;
                    self.fails(minded, file, format!("cannot archive {file}: {why}"));
                }
            }
        }
        if done > 0 {
            self.look_through_soon();
        }
        if rest {
            let wait = if failures >= FAILURES_A_TURN { Duration::from_secs(1) } else { Duration::ZERO };
            self.look_within(&minded.name, wait);
        }
        Ok(())
    }

    /// Puts one log away; on its error it is where it was.
    fn put_away(&self, minded: &Minded, queue: &Queue, file: &str, log: &Rotated) -> Result<(), String> {
        if let Some(shelf) = self.shelf() {
            let Some(open) = queue.file(file).map_err(|error| error.to_string())? else { return Ok(()) };
            let logger = minded.is_named.then_some(minded.name.as_str());
            let press = Press::of(&self.rules, &self.environment, &self.errands);
            shelf.put(&open, log, logger, &press).map_err(|error| error.to_string())?;
        } else {
            let courier = Courier { command: &self.rules.command, env: &self.environment, home: &self.errands };
            courier.hand_over(minded, file, log)?;
        }
        queue.remove(file).map_err(|error| error.to_string())
    }

    fn works(&mut self, node: &NodeName, file: &str) {
        if self.failed.remove(&(node.clone(), file.to_owned())).is_some() && self.failed.is_empty() && self.in_trouble {
            self.in_trouble = false;
            self.say(None, false, "logs are archived again: none waits any more".into());
        }
    }

    /// Says once that something cannot be done, and has it tried again.
    fn fails(&mut self, minded: &Minded, file: &str, what: String) {
        let failed = self.failed.entry((minded.name.clone(), file.to_owned())).or_default();
        let (wait, _) = failed.trouble.failed();
        failed.due = Some(Instant::now() + wait);
        if !std::mem::replace(&mut self.in_trouble, true) {
            let what = format!("{what}; nothing is lost, and it is tried again");
            self.say(Some(&minded.name), true, what);
        } else {
            tracing::debug!(node = %minded.name, "{what}");
        }
        self.look_within(&minded.name, wait);
    }

    /// Says of each file once that nobody knows what it is.
    fn speak_of_others(&mut self, minded: &Minded, others: &[String]) {
        self.strange.retain(|(node, name)| *node != minded.name || others.contains(name));
        let fresh: Vec<&String> =
            others.iter().filter(|name| self.strange.insert((minded.name.clone(), (*name).clone()))).collect();
        if let Some(first) = fresh.first() {
            let more = if fresh.len() > 1 { format!(" and {} more", fresh.len() - 1) } else { String::new() };
            let what = format!(
                "{first:?}{more} in its queue of logs stays there: the name does not say when it was opened and closed, \
                 as in conn__2026-01-31-10-00-00__2026-01-31-11-00-00__.log"
            );
            self.say(Some(&minded.name), true, what);
        }
    }

    fn look_within(&mut self, node: &NodeName, wait: Duration) {
        let at = Instant::now() + wait;
        let due = self.due.entry(node.clone()).or_insert(at);
        *due = at.min(*due);
    }

    fn look_through_soon(&mut self) {
        let now = Instant::now();
        let at = self.looked_through.map_or(now, |last| now.max(last + BETWEEN_LOOKS));
        self.look_through = Some(self.look_through.map_or(at, |known| known.min(at)));
    }

    /// Lets go of what is too old or too much.
    fn retain(&mut self) {
        let has_rules = self.rules.keep_age.is_some() || self.rules.keep_bytes.is_some();
        let Some(shelf) = self.shelf().filter(|_| has_rules) else { return };
        self.looked_through = Some(Instant::now());
        let now = SystemTime::now();
        let done = shelf.list().and_then(|found| {
            let plan = plan(found, &self.rules, now, GONE_A_TURN);
            plan.remove.iter().try_for_each(|kept| shelf.remove(kept)).map(|()| plan)
        });
        let wait = match done {
            Ok(Plan { more: true, .. }) => Some(Duration::ZERO),
            Ok(Plan { next, .. }) => {
                self.retention.worked();
                next.map(|next| next.duration_since(now).unwrap_or_default().clamp(BETWEEN_LOOKS, A_DAY))
            }
            Err(error) => {
                let (wait, is_news) = self.retention.failed();
                if is_news {
                    let what = format!("cannot let go of old logs in {}: {error}", shelf.home().display());
                    self.say(None, true, what);
                }
                Some(wait)
            }
        };
        if let Some(wait) = wait {
            let at = Instant::now() + wait;
            self.look_through = Some(self.look_through.map_or(at, |known| known.min(at)));
        }
    }

    fn say(&mut self, node: Option<&NodeName>, is_error: bool, msg: String) {
        let news = News { node: node.cloned(), msg, is_error };
        match &self.tell {
            Some(tell) => tell(news),
            None => self.untold.push(news),
        }
    }
}

//! Threads for what blocks: jobs about one node one after the other, those about different nodes side by side.
//!
//! A few threads do all the work. Where every one of them hangs, on a dead network disk say, another is added, so that
//! one node's trouble is not everybody's; it stays for a while, since what hung once may hang again. A machine on which
//! others want the processors looks the same for a moment.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::model::NodeName;

/// Threads at the start. Two launch faster than one when many nodes die at once; more only wait for the kernel.
pub const FIRST: usize = 2;
/// Threads at the most, however many hang.
const MOST: usize = 32;
/// For so long a thread that was added has nothing to do before it goes.
const LINGERS: Duration = Duration::from_secs(10);
/// A thread's stack, in bytes: a launch needs a fraction of it.
const STACK: usize = 256 << 10;

/// For how many jobs there is room when there are none.
const ROOM: usize = 64;

/// What a job is about. Jobs with the same subject are done one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The life of this node.
    Node(NodeName),
    /// What this node wrote: readable also while its launch hangs.
    Output(NodeName),
    /// How this node is: heard and asked also while its launch hangs, or somebody reads what it wrote.
    Health(NodeName),
    /// What is filed of nodes that died.
    Crashes,
    /// What concerns the agent itself.
    Agent,
    /// The groups of nodes that are down.
    Groups,
    /// What is to come into force.
    Preparation,
    /// What somebody asks about that may come into force some day.
    Inspection,
}

/// What a thread is given to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Jobs that a free thread may begin, the first one first.
type Line = VecDeque<(Subject, Job)>;

/// Cheap to clone; the threads end when the last clone is gone.
#[derive(Clone)]
pub struct Hands {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    lingers: Duration,
}

#[derive(Default)]
struct Queue {
    ready: Line,
    /// What a thread works on or `ready` holds, with what is to be done after.
    busy: HashMap<Subject, VecDeque<Job>>,
    idle: usize,
    threads: usize,
    /// How many jobs were finished, to tell slow from stuck.
    finished: u64,
    /// What to do once nothing is left to do.
    at_rest: Vec<Job>,
    /// This is being done, and nothing is begun before it is.
    rests: bool,
    closed: bool,
}

/// Closes the queue when the last pair of hands is gone.
struct Alive(Arc<Shared>);

impl Hands {
    /// Starts the threads.
    pub fn hire() -> io::Result<Self> {
        Self::hire_for(LINGERS)
    }

    fn hire_for(lingers: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), lingers });
        for _ in 0..FIRST {
            shared.add_thread()?;
        }
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// Does `job`, after everything that was given about that subject before. Says whether work waits for a free thread.
    pub fn give(&self, subject: Subject, job: Job) -> bool {
        self.queue(subject, job, VecDeque::push_back)
    }

    /// Does the same, before what was given about other subjects: a short job that somebody waits for.
    pub fn give_first(&self, subject: Subject, job: Job) -> bool {
        self.queue(subject, job, VecDeque::push_front)
    }

    fn queue(&self, subject: Subject, job: Job, push: fn(&mut Line, (Subject, Job))) -> bool {
        let mut queue = self.shared.lock();
        let is_ready = match queue.busy.get_mut(&subject) {
            Some(later) => {
                later.push_back(job);
                false
            }
            None => {
                queue.busy.insert(subject.clone(), VecDeque::new());
                push(&mut queue.ready, (subject, job));
                true
            }
        };
        let waits = queue.waits();
        // Whoever is at work looks for more by itself.
        let wakes = is_ready && queue.idle > 0;
        drop(queue); // or whoever wakes up would have to wait for it
        if wakes {
            self.shared.work.notify_one();
        }
        waits
    }

    /// Does `job` as soon as nothing else is left to do. What is given meanwhile waits for its end.
    pub fn give_at_rest(&self, job: Job) {
        self.shared.lock().at_rest.push(job);
        self.shared.work.notify_one();
    }

    /// Whether work waits for a free thread, and how much was finished so far.
    pub fn backlog(&self) -> Option<u64> {
        let queue = self.shared.lock();
        queue.waits().then_some(queue.finished)
    }

    /// Adds a thread: called where a backlog saw nothing finished for a while.
    pub fn add_one(&self) {
        if self.shared.lock().threads < MOST
            && let Err(error) = self.shared.add_thread()
        {
            tracing::error!("every thread that launches nodes hangs, and another cannot be had: {error}");
        }
    }
}

impl Queue {
    /// Whether work waits for a free thread. One that was just woken still counts as idle, and takes one job.
    fn waits(&self) -> bool {
        self.ready.len() > self.idle
    }

    fn is_to_rest(&self) -> bool {
        self.busy.is_empty() && !self.at_rest.is_empty() && !self.rests
    }

    fn next(&mut self) -> Option<(Subject, Job)> {
        if self.rests { None } else { self.ready.pop_front() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so nothing was left half done by a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        self.lock().threads += 1; // before it begins: it is to know whether it was added
        let shared = Arc::clone(self);
        let begun = thread::Builder::new().name("hands".into()).stack_size(STACK).spawn(move || shared.work());
        begun.map(drop).inspect_err(|_| self.lock().threads -= 1)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if queue.is_to_rest() {
                queue.rests = true;
                drop(queue);
                self.rest();
                queue = self.lock();
                continue;
            }
            let Some((subject, job)) = queue.next() else {
                if queue.closed {
                    return;
                }
                let has_waited;
                (queue, has_waited) = self.wait(queue);
                if has_waited && queue.threads > FIRST && queue.ready.is_empty() {
                    queue.threads -= 1;
                    return;
                }
                continue;
            };
            drop(queue);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job about {subject:?} panicked");
            }
            queue = self.lock();
            queue.finished += 1;
            match queue.busy.get_mut(&subject).and_then(VecDeque::pop_front) {
                Some(next) => queue.ready.push_back((subject, next)),
                None => drop(queue.busy.remove(&subject)),
            }
            if queue.busy.is_empty() {
                queue.ready.shrink_to(ROOM);
                queue.busy.shrink_to(ROOM);
            }
        }
    }

    /// Waits for work; whether that took too long for a thread that was added.
    fn wait<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> (MutexGuard<'a, Queue>, bool) {
        queue.idle += 1;
        let (mut queue, has_waited) = if queue.threads > FIRST {
            let (queue, waited) = self.work.wait_timeout(queue, self.lingers).unwrap_or_else(PoisonError::into_inner);
            (queue, waited.timed_out())
        } else {
            (self.work.wait(queue).unwrap_or_else(PoisonError::into_inner), false)
        };
        queue.idle -= 1;
        (queue, has_waited)
    }

    fn rest(&self) {
        let jobs = std::mem::take(&mut self.lock().at_rest);
        jobs.into_iter().for_each(|job| {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job for when all others were done panicked");
            }
        });
        self.lock().rests = false;
        self.work.notify_all();
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn node(name: &str) -> Subject {
        Subject::Node(NodeName::new(name).unwrap())
    }

    #[test]
    fn jobs_of_one_node_are_done_in_order_and_those_of_others_beside_it() {
        let hands = Hands::hire().unwrap();
        let (done, dones) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        hands.give(node("a"), Box::new(move || gate.recv().unwrap()));
        for (name, number) in [("a", 1), ("a", 2), ("b", 3)] {
            let done = done.clone();
            hands.give(node(name), Box::new(move || done.send(number).unwrap()));
        }
        assert_eq!(dones.recv_timeout(LONG), Ok(3), "a's first job hangs, and b does not care");
        open.send(()).unwrap();
        assert_eq!([dones.recv_timeout(LONG), dones.recv_timeout(LONG)], [Ok(1), Ok(2)]);
    }

    #[test]
    fn a_job_that_somebody_waits_for_is_not_kept_waiting_by_those_of_other_nodes() {
        let hands = Hands::hire().unwrap();
        let (done, dones) = mpsc::channel();
        let gates = [(); FIRST].map(|()| mpsc::channel::<()>());
        let (opens, gates): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
        for (number, gate) in gates.into_iter().enumerate() {
            hands.give(node(&format!("hangs-{number}")), Box::new(move || gate.recv().unwrap()));
        }
        for name in ["a", "b"] {
            let done = done.clone();
            hands.give(node(name), Box::new(move || done.send(name).unwrap()));
        }
        hands.give_first(node("c"), Box::new(move || done.send("c").unwrap()));
        opens[0].send(()).unwrap();
        let order = [(); 3].map(|()| dones.recv_timeout(LONG).unwrap());
        assert_eq!(order, ["c", "a", "b"]);
        opens[1..].iter().for_each(|open| open.send(()).unwrap());
    }

    #[test]
    fn where_every_thread_hangs_another_does_the_work() {
        let hands = Hands::hire().unwrap();
        let mut gates = Vec::new();
        let (begun, begins) = mpsc::channel();
        for number in 0..FIRST {
            let (open, gate) = mpsc::channel::<()>();
            let begun = begun.clone();
            hands.give(
                node(&format!("hangs-{number}")),
                Box::new(move || {
                    begun.send(()).unwrap();
                    gate.recv().unwrap();
                }),
            );
            gates.push(open);
        }
        (0..FIRST).for_each(|_| begins.recv_timeout(LONG).unwrap());
        assert_eq!(hands.backlog(), None);
        let (done, dones) = mpsc::channel();
        hands.give(node("waits"), Box::new(move || done.send(()).unwrap()));
        assert_eq!(hands.backlog(), Some(0));
        hands.add_one();
        dones.recv_timeout(LONG).unwrap();
        gates.into_iter().for_each(|gate| gate.send(()).unwrap());
    }

    #[test]
    fn a_thread_that_was_added_goes_once_it_has_long_had_nothing_to_do() {
        let hands = Hands::hire_for(Duration::from_millis(1)).unwrap();
        (0..3).for_each(|_| hands.add_one());
        let deadline = std::time::Instant::now() + LONG;
        while hands.shared.lock().threads > FIRST {
            assert!(std::time::Instant::now() < deadline, "they stay");
            thread::yield_now();
        }
        let (done, dones) = mpsc::channel();
        hands.give(node("a"), Box::new(move || done.send(()).unwrap()));
        dones.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn a_job_that_panics_ends_neither_its_thread_nor_its_nodes_later_jobs() {
        let hands = Hands::hire().unwrap();
        let (done, dones) = mpsc::channel();
        for _ in 0..2 * FIRST {
            hands.give(node("a"), Box::new(|| panic!("a test wants this job to panic")));
        }
        hands.give(node("a"), Box::new(move || done.send(()).unwrap()));
        dones.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn rest_comes_after_the_last_job() {
        let hands = Hands::hire().unwrap();
        let (done, dones) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (last, rest) = (done.clone(), done);
        hands.give(node("a"), Box::new(move || gate.recv().unwrap()));
        hands.give(node("a"), Box::new(move || last.send("job").unwrap()));
        hands.give_at_rest(Box::new(move || rest.send("rest").unwrap()));
        open.send(()).unwrap();
        assert_eq!([dones.recv_timeout(LONG), dones.recv_timeout(LONG)], [Ok("job"), Ok("rest")]);
    }

    #[test]
    fn what_is_given_while_all_rests_is_begun_after_that() {
        let hands = Hands::hire().unwrap();
        let (done, dones) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (rest, later) = (done.clone(), done);
        hands.give_at_rest(Box::new(move || {
            begun.send(()).unwrap();
            gate.recv().unwrap();
            rest.send("rest").unwrap();
        }));
        begins.recv_timeout(LONG).unwrap();
        hands.give(node("a"), Box::new(move || later.send("job").unwrap()));
        // A thread that is free takes what it may within this time, and the order tells.
        assert_eq!(dones.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout));
        open.send(()).unwrap();
        assert_eq!([dones.recv_timeout(LONG), dones.recv_timeout(LONG)], [Ok("rest"), Ok("job")]);
    }
}

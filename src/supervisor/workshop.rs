//! The hands of all supervisors of one agent: whatever blocks is done on threads of its own, and exits are heard.
//!
//! What blocks goes to [`super::hands`]. Exits come from the kernel through one epoll set in the agent's own event loop: all
//! that are there are read before the first is told. What is known of a process is written down here before its
//! supervisor hears of it, so a supervisor that panics takes nothing with it: the next one is told the facts.

mod benches;
mod launching;
mod questions;
mod reading;
mod speech;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Addr, Message};
use tokio::sync::{mpsc as channel, oneshot};

pub use self::launching::Origin;
use self::launching::{Born, Leader, Lives};
use self::questions::{Question, has_askers};
pub use self::reading::Filed;
use self::speech::speaks;
use super::Supervisor;
use super::Wait;
use super::channel::{Channels, Heard, News, Place};
use super::crash::{Coroner, Death};
use super::hands::{Hands, Subject};
use super::history::Past;
use super::idle_groups::IdleGroups;
use super::output::{Keeper, Readings};
use super::peaks::Peaks;
use super::process::groups::{Groups, NoGroups};
use super::process::looks::Looks;
use super::process::notices::{Notices, NotifySocket};
use super::process::oom::{Autopsy, KernelLog};
use super::process::run_dir::RunDir;
use super::process::{Exits, Process, Remains, clock, tree};
use super::register::{Register, RegisterError};
use super::said::Said;
use super::state::LaunchFailure;
use crate::archive::Archive;
use crate::launch::zeek::{Objection, Preparation};
use crate::launch::{Site, Survey};
use crate::message::node::NodeOrder;
use crate::model::{Exit, Life, Node, NodeName, Output, Timestamp};

/// A backlog that sees nothing finished for this long wants another thread.
const STUCK_AFTER: Duration = Duration::from_millis(100);
/// From the stop of a node to the removal of its group, and of those of others that were stopped meanwhile.
const BEFORE_GROUPS: Duration = Duration::from_millis(500);
/// How many groups are removed in one go.
const GROUPS: usize = 32;

/// Who looks after what nodes leave: each has a thread of its own.
pub struct Clerks {
    pub keeper: Keeper,
    pub coroner: Coroner,
    pub archive: Archive,
}

/// A node's place in the workshop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WardId(u64);

/// What the workshop tells the supervisor of a ward.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Word {
    /// A process came of the launch.
    Launched {
        life: Life,
        pid: u32,
    },
    LaunchFailed {
        life: Life,
        failure: LaunchFailure,
    },
    /// Whoever hears of it tells it first, and then has what is left of the process buried.
    Died {
        life: Life,
        exit: Exit,
        remains: Remains,
        untold: Untold,
    },
    /// What a life left behind is gone, or cannot be ended for this reason; and what was noted in the same go.
    Swept {
        life: Life,
        trouble: Option<String>,
        noted: Option<Down>,
    },
    /// It said something that nobody read yet.
    Speaks {
        life: Life,
    },
    /// What it said. `all` answers [`Workshop::listen`]: nothing is left that was said before.
    Said {
        life: Life,
        said: Said,
        all: bool,
    },
    /// What a Zeek node said by its channel. `all` answers [`Workshop::listen`], too.
    Heard {
        life: Life,
        heard: Box<Heard>,
        all: bool,
    },
    /// Also answers [`Workshop::listen`]: it may have said what it likes, and nobody can hear it.
    Unheard {
        life: Life,
    },
    /// The program that asked it how it is has ended; what is left of it is to be cleared away.
    Asked {
        life: Life,
        round: u64,
        exit: Exit,
        remains: Remains,
    },
    /// What came of a question: `Err` says why it is no answer.
    Probed {
        life: Life,
        round: u64,
        answer: Result<(), String>,
    },
    /// It is on disk that the node is down.
    Noted,
    /// The last lines that a life wrote; `None` if there are none.
    LastWords {
        life: Life,
        output: Option<Output>,
    },
}

/// How long a node that was stopped is to stay so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Until somebody asks.
    Stopped,
    /// Until the next run of the agent.
    Rested,
}

/// Kept by the word of a death until its supervisor has told the agent.
#[derive(Debug, Clone, Default)]
pub struct Untold(Arc<()>);

/// What is known of a ward's present life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Nothing runs; this was the last life.
    Down(Life),
    /// Nothing runs, and nothing is to run until a person asks: this was the last life.
    GivenUp(Life),
    /// A launch is out.
    Launching(Life),
    Alive(Life, u32),
    /// It ran, and ended while nobody minded it: its supervisor is yet to decide what comes of that.
    Died {
        life: Life,
        pid: u32,
        exit: Exit,
        /// The agent before this one told it, and lived to do no more.
        told: bool,
    },
    /// Nothing runs, and the next life is due then.
    Crashed(Life, Instant),
}

struct Ward {
    name: NodeName,
    /// `None` until its first supervisor is there.
    minder: Option<Addr<Supervisor>>,
    fact: Fact,
    /// Set while alive.
    process: Option<Arc<Process>>,
    /// Whether the process, as long as there is one, is known to be ready.
    is_ready: bool,
    /// Whose leftovers the next launch ends first.
    leader: Option<Leader>,
    /// Where it is heard.
    socket: Option<Arc<NotifySocket>>,
    question: Option<Box<Question>>,
    /// Its crashes, if there were any, as of when that was noted: what the next supervisor of it counts on from.
    past: Option<Box<(Past, Instant)>>,
    /// The last end that was heard of.
    end: Option<Box<End>>,
}

impl Ward {
    fn note_past(&mut self, past: Past) {
        self.past = (past != Past::default()).then(|| Box::new((past, Instant::now())));
    }
}

/// The end of a life, as far as a dossier is about it.
#[derive(Debug, Clone)]
struct End {
    life: Life,
    pid: u32,
    /// In clock ticks since boot; `None` if nobody was there.
    start_time: Option<u64>,
    exit: Exit,
    time: Timestamp,
    heard: Instant,
    largest_resident: Option<u64>,
    /// What the kernel said, if it killed it for want of memory.
    kernel: Option<Arc<str>>,
}

/// The end of a process that is found to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateDeath {
    pub pid: u32,
    pub exit: Exit,
    /// The agent before this one heard of it in time to tell it.
    pub told: bool,
}

/// What the threads send back.
enum Done {
    Launched(WardId, Life, Result<Born, LaunchFailure>),
    /// A socket for a life that runs already.
    Bound(WardId, Life, NotifySocket),
    Heard {
        ward: WardId,
        life: Life,
        said: Said,
        all: bool,
    },
    /// Who asks the question of that number, or why nobody does.
    Asking(WardId, u64, Result<Process, String>),
    Tell(WardId, Word),
    News(News),
}

/// See the module. Lives in the agent's thread.
pub struct Workshop {
    hands: Hands,
    tools: Arc<Tools>,
    done: channel::UnboundedSender<Done>,
    benches: Rc<Benches>,
}

struct Benches {
    exits: Exits,
    notices: Notices,
    autopsy: RefCell<Autopsy>,
    /// Copied to every word of a death that is under way.
    untold: Untold,
    /// Boxed: numbers come in order, and leave every node of the tree half empty.
    wards: RefCell<BTreeMap<WardId, Box<Ward>>>,
    /// Of whom the coroner is to hear.
    deaths: RefCell<Vec<Death>>,
    /// How many questions there were.
    questions: Cell<u64>,
    /// Whether somebody looks after the backlog.
    watched: Cell<bool>,
    /// Whether the groups of those that are down by then are to be removed.
    removes_groups: Cell<bool>,
}

impl Workshop {
    /// Opens the workshop: starts its threads, and the tasks that hear of exits and of work done in this event loop.
    pub fn open(
        site: Arc<Site>,
        register: Register,
        groups: Result<Groups, NoGroups>,
        run_dir: Result<RunDir, String>,
        mut kernel_log: KernelLog,
        Clerks { keeper, coroner, archive }: Clerks,
    ) -> io::Result<Self> {
        kernel_log.skip();
        let (done, dones) = channel::unbounded_channel();
        let groups = Arc::new(groups);
        let news = done.clone();
        let tools = Arc::new(Tools {
            channels: Channels::new(move |heard| drop(news.send(Done::News(heard)))), // nobody listens while the agent ends
            site,
            register,
            groups: Arc::clone(&groups),
            run_dir,
            keeper,
            readings: Readings::default(),
            coroner,
            archive,
            volumes: Mutex::default(),
            strays_come_here: tree::is_subreaper()?,
            looks: Looks::default(),
            idle_groups: IdleGroups::default(),
            peaks: Peaks::default(),
        });
        let benches = Rc::new(Benches {
            exits: Exits::new()?,
            notices: Notices::new()?,
            autopsy: RefCell::new(Autopsy::new(kernel_log, groups)),
            untold: Untold::default(),
            wards: RefCell::default(),
            deaths: RefCell::default(),
            questions: Cell::new(0),
            watched: Cell::new(false),
            removes_groups: Cell::new(false),
        });
        let hands = Hands::hire()?;
        actix::spawn(Rc::clone(&benches).hear_exits());
        actix::spawn(Rc::clone(&benches).hear_hands(hands.clone(), dones));
        actix::spawn(Rc::clone(&benches).hear_notices());
        Ok(Self { hands, tools, done, benches })
    }

    /// Takes a node in whose last life was `life`.
    pub fn admit(&self, ward: WardId, name: NodeName, life: Life) {
        let (fact, minder, process, leader, socket, question) = (Fact::Down(life), None, None, None, None, None);
        let (is_ready, past, end) = (false, None, None);
        let fresh = Ward { name, minder, fact, process, is_ready, leader, past, socket, question, end };
        self.benches.wards.borrow_mut().insert(ward, Box::new(fresh));
    }

    /// Takes in a node that an earlier run of the agent launched, with its process if that still runs. What that life
    /// left behind is ended before the next one.
    pub fn adopt(
        &self,
        ward: WardId,
        node: &Arc<Node>,
        life: Life,
        (pid, origin): (Option<u32>, Origin),
        process: Option<Process>,
    ) -> io::Result<()> {
        self.admit(ward, node.name.clone(), life);
        self.tools.keeper.mind(node);
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.leader = Some(Leader { life, pid, origin });
        }
        let Some(process) = process else {
            self.hear_channel(ward, node, life);
            return Ok(());
        };
        let leader = process.pid();
        self.benches.alive(ward, life, process, None, origin)?;
        self.hear(ward, node, life, leader);
        Ok(())
    }

    /// Hears a process that another run of the agent launched.
    fn hear(&self, ward: WardId, node: &Arc<Node>, life: Life, leader: u32) {
        self.hear_channel(ward, node, life);
        if speaks(node) || has_askers(node) {
            self.hear_again(ward, Arc::clone(node), life, leader);
        }
    }

    /// Notes the crashes that an earlier run of the agent saw.
    pub fn recall(&self, ward: WardId, past: Past) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.note_past(past);
        }
    }

    /// The crashes of that ward's node so far.
    pub fn past(&self, ward: WardId) -> Past {
        let wards = self.benches.wards.borrow();
        let noted = wards.get(&ward).and_then(|ward| ward.past.as_ref());
        noted.map_or_else(Past::default, |noted| noted.0.clone().aged(noted.1.elapsed()))
    }

    /// Takes in that the process which was found running is ready.
    pub fn found_ready(&self, ward: WardId) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.is_ready = true;
        }
    }

    /// Whether its process, if it has one, is known to be ready.
    pub fn is_ready(&self, ward: WardId) -> bool {
        self.benches.wards.borrow().get(&ward).is_some_and(|ward| ward.is_ready)
    }

    /// Whether an earlier run of the agent launched its process.
    pub fn was_adopted(&self, ward: WardId) -> bool {
        let wards = self.benches.wards.borrow();
        wards.get(&ward).and_then(|ward| ward.leader).is_some_and(|leader| leader.origin != Origin::Ours)
    }

    /// How long ago its process began; nothing where there is none.
    pub fn age(&self, ward: WardId) -> Duration {
        let process = self.benches.process(ward);
        process.map_or(Duration::ZERO, |process| clock::age(process.start_time()))
    }

    /// Takes in that the next life of a node is due then, since that is decided; `false` if it was known.
    pub fn wait(&self, ward: WardId, life: Life, past: Past, until: Instant) -> bool {
        let mut wards = self.benches.wards.borrow_mut();
        let Some(ward) = wards.get_mut(&ward).filter(|ward| ward.fact == Fact::Down(life)) else { return false };
        ward.note_past(past);
        ward.fact = Fact::Crashed(life, until);
        true
    }

    /// Keeps on disk that a node waits, for the next run of the agent.
    pub fn note_wait(&self, Wait { node, life, past, until, .. }: Wait, reason: String) {
        self.note(None, node, move |tools, node| {
            let left = until.saturating_duration_since(Instant::now());
            tools.register.crashed(node, life, past, left, &reason)
        });
    }

    /// Takes in that the process of this life is ready, and keeps it on disk if it `has_to_say_so`: it does that once.
    pub fn note_ready(&self, ward: WardId, has_to_say_so: bool, node: NodeName, life: Life) {
        self.found_ready(ward);
        if has_to_say_so {
            self.note(None, node, move |tools, node| tools.register.ready(node, life));
        }
    }

    /// Takes in that a node has been up for so long in this life that its crashes before are forgotten.
    pub fn note_stable(&self, ward: WardId, node: NodeName, life: Life) {
        self.recall(ward, Past::default());
        self.note(None, node, move |tools, node| tools.register.stable(node, life));
    }

    /// Takes in a node that an earlier run of the agent launched, and whose process ended since; or before, if that
    /// is `told` already.
    pub fn note_death(&self, ward: WardId, name: NodeName, life: Life, death: LateDeath, origin: Origin) {
        let LateDeath { pid, exit, told } = death;
        self.admit(ward, name, life);
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.leader = Some(Leader { life, pid: Some(pid), origin });
            ward.fact = Fact::Died { life, pid, exit, told };
            let (time, heard) = (Timestamp::now(), Instant::now());
            let end = End { life, pid, start_time: None, exit, time, heard, largest_resident: None, kernel: None };
            ward.end = Some(Box::new(end));
        }
    }

    /// The supervisor has decided what comes of a death that was noted.
    pub fn forget_death(&self, ward: WardId) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward)
            && let Fact::Died { life, .. } = ward.fact
        {
            ward.fact = Fact::Down(life);
        }
    }

    /// Gives the ward its supervisor, or the next one.
    pub fn assign(&self, ward: WardId, minder: Addr<Supervisor>) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.minder = Some(minder);
        }
    }

    /// Brings an order to the supervisor of that ward, if it has one.
    pub fn order(&self, ward: WardId, order: NodeOrder) {
        if let Some(minder) = self.benches.wards.borrow().get(&ward).and_then(|ward| ward.minder.as_ref()) {
            minder.do_send(order);
        }
    }

    /// Whether that ward has a supervisor that is alive.
    pub fn is_minded(&self, ward: WardId) -> bool {
        let wards = self.benches.wards.borrow();
        wards.get(&ward).and_then(|ward| ward.minder.as_ref()).is_some_and(Addr::connected)
    }

    /// Has the supervisor of that node panic.
    #[cfg(test)]
    pub fn have_panic(&self, node: &NodeName) {
        let wards = self.benches.wards.borrow();
        let minder = wards.values().find(|ward| ward.name == *node).and_then(|ward| ward.minder.as_ref());
        minder.expect("a node of that name").do_send(crate::run::testing::Panic);
    }

    /// What is known of that ward; nothing ever ran in one that was not admitted.
    pub fn fact(&self, ward: WardId) -> Fact {
        self.benches.wards.borrow().get(&ward).map_or(Fact::Down(Life::default()), |ward| ward.fact.clone())
    }

    /// Lets a ward go and forgets its record. Its process, if any, is no longer minded.
    pub fn dismiss(&self, ward: WardId, node: NodeName) {
        let gone = self.benches.wards.borrow_mut().remove(&ward);
        if let Some(gone) = gone {
            gone.socket.iter().for_each(|socket| self.benches.notices.let_go(socket));
            gone.question.iter().for_each(|question| question.end());
        }
        self.tools.keeper.forget(&node);
        self.tools.channels.forget(ward, Place::of(&self.tools.register.directory(&node)));
        let tools = Arc::clone(&self.tools);
        let forget = move |name: &NodeName| {
            if let Err(error) = tools.register.forget(name) {
                tracing::warn!(node = %name, "{error}");
            }
            if let Ok(groups) = &*tools.groups {
                tools.idle_groups.add(name.clone());
                tools.idle_groups.remove(groups, name);
            }
            if let Ok(run_dir) = &tools.run_dir {
                run_dir.forget(name);
            }
            tools.volumes.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            tools.peaks.forget(name);
        };
        self.give(Subject::Node(node.clone()), move || forget(&node));
    }

    /// Whether the kernel has reported an end that no supervisor has told the agent.
    pub fn has_untold_ends(&self) -> bool {
        Arc::strong_count(&self.benches.untold.0) > 1 || self.benches.exits.are_there()
    }

    /// Takes in that the node was given up in an earlier run of the agent.
    pub fn give_up(&self, ward: WardId) {
        self.benches.settle(ward, Fact::GivenUp);
    }

    /// Takes in that it is noted that nothing runs.
    pub fn is_down(&self, ward: WardId) {
        self.benches.settle(ward, Fact::Down);
        self.remove_groups_later();
    }

    /// Notes that this life is over and the node is to stay down; answered by [`Word::Noted`] if that `matters`.
    pub fn note_down(&self, ward: WardId, matters: bool, node: NodeName, life: Life, down: Down) {
        self.is_down(ward);
        self.note(matters.then_some(ward), node, move |tools, node| {
            tools.note_down(node, life, down);
            Ok(())
        });
    }

    /// Notes that this life was the last until somebody asks, for this reason; answered by [`Word::Noted`] if that
    /// `matters`.
    pub fn note_failed(&self, ward: WardId, matters: bool, node: NodeName, life: Life, reason: String) {
        self.benches.settle(ward, Fact::GivenUp);
        self.remove_groups_later();
        self.note(matters.then_some(ward), node, move |tools, node| tools.register.given_up(node, life, &reason));
    }

    /// Takes in what the node of a process is that was found by its marker: its record is written anew, and it is heard as
    /// its definition says.
    pub fn define(&self, ward: WardId, node: Arc<Node>) {
        self.tools.keeper.mind(&node);
        let known =
            self.benches.wards.borrow().get(&ward).and_then(|ward| Some((ward.fact.clone(), ward.process.clone()?)));
        let Some((Fact::Alive(life, pid), process)) = known else { return };
        self.hear(ward, &node, life, pid);
        let past = self.past(ward);
        self.note(None, node.name.clone(), move |tools, _| {
            tools.register.enter(&node, life, process.identity(), past, false)
        });
    }

    fn note(
        &self,
        answer: Option<WardId>,
        node: NodeName,
        note: impl FnOnce(&Tools, &NodeName) -> Result<(), RegisterError> + Send + 'static,
    ) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        self.give(Subject::Node(node.clone()), move || {
            if let Err(error) = note(&tools, &node) {
                tracing::warn!(%node, "{error}");
            }
            // What could not be written is in the log; nobody listens while the agent ends.
            answer.into_iter().for_each(|ward| drop(done.send(Done::Tell(ward, Word::Noted))));
        });
    }

    /// Asks the ward's process group to end.
    pub fn terminate(&self, ward: WardId) -> io::Result<()> {
        self.benches.process(ward).map_or(Ok(()), |process| process.stop())
    }

    /// Ends the ward's process group.
    pub fn kill(&self, ward: WardId) -> io::Result<()> {
        self.benches.process(ward).map_or(Ok(()), |process| process.kill())
    }

    /// Looks at what is to come into force, and hands on what there is to object. Blocks nobody's launch.
    pub fn prepare(&self, preparation: Preparation, then: impl FnOnce(Vec<Objection>) + Send + 'static) {
        let tools = Arc::clone(&self.tools);
        self.give(Subject::Preparation, move || then(tools.site.zeek.prepare(&tools.site, preparation)));
    }

    /// Has these Zeek nodes alone launched by the files that were rendered under this number, and only by this run.
    pub fn try_files(&self, number: u64, nodes: BTreeSet<NodeName>) {
        self.tools.site.zeek.try_files(number, nodes);
    }

    /// Has Zeek nodes launched by the files that were rendered under this number, from now on and by the next run of the
    /// agent, too. Without one nothing comes of what was tried.
    pub fn use_files(&self, number: Option<u64>) {
        let tools = Arc::clone(&self.tools);
        tools.site.zeek.use_files(number);
        if number.is_none() {
            return; // what the next run would launch by is as it was
        }
        self.give(Subject::Preparation, move || {
            if let Err(error) = tools.site.zeek.keep_files() {
                tracing::warn!("the next run of this agent may launch Zeek by older files: {error}");
            }
        });
    }

    /// Only looks, for whoever asks what would become of it. Blocks no launch, and no configuration that comes meanwhile.
    pub fn inspect(&self, survey: Survey, then: impl FnOnce(Vec<Objection>) + Send + 'static) {
        let tools = Arc::clone(&self.tools);
        self.give(Subject::Inspection, move || then(tools.site.inspect(survey)));
    }

    /// Does any other thing that blocks.
    pub fn run(&self, about: Subject, work: impl FnOnce(&Register) + Send + 'static) {
        let tools = Arc::clone(&self.tools);
        self.give(about, move || work(&tools.register));
    }

    /// Clears away what only running nodes need, and does this, as soon as all work that was given is done. What is given
    /// meanwhile is begun after that: whoever is launched then loses nothing.
    pub fn at_rest(&self, then: impl FnOnce() + Send + 'static) {
        let tools = Arc::clone(&self.tools);
        self.hands.give_at_rest(Box::new(move || {
            if let Ok(groups) = &*tools.groups {
                groups.clear();
            }
            if let Ok(run_dir) = &tools.run_dir {
                run_dir.clear();
            }
            then();
        }));
    }

    /// Has the groups of nodes that are down removed after a while, some at a time.
    fn remove_groups_later(&self) {
        if self.tools.groups.is_ok() && !self.benches.removes_groups.replace(true) {
            actix::spawn(remove_groups(self.hands.clone(), Arc::clone(&self.tools), Rc::clone(&self.benches)));
        }
    }

    fn give(&self, about: Subject, job: impl FnOnce() + Send + 'static) {
        let waits = self.hands.give(about, Box::new(job));
        self.look_after_backlog(waits);
    }

    fn look_after_backlog(&self, there_is_one: bool) {
        if there_is_one && !self.benches.watched.replace(true) {
            actix::spawn(look_after(self.hands.clone(), Rc::clone(&self.benches)));
        }
    }
}

/// Adds a thread whenever a backlog saw nothing finished for a while; ends with the backlog.
async fn look_after(hands: Hands, benches: Rc<Benches>) {
    let mut before = None;
    while let Some(finished) = hands.backlog() {
        if before.replace(finished) == Some(finished) {
            hands.add_one();
        }
        tokio::time::sleep(STUCK_AFTER).await;
    }
    benches.watched.set(false);
}

async fn remove_groups(hands: Hands, tools: Arc<Tools>, benches: Rc<Benches>) {
    tokio::time::sleep(BEFORE_GROUPS).await;
    benches.removes_groups.set(false);
    loop {
        let (done, more) = oneshot::channel();
        let tools = Arc::clone(&tools);
        let remove = move || {
            let removed = tools.groups.as_ref().as_ref().map(|groups| tools.idle_groups.remove_some(groups, GROUPS));
            let _ = done.send(removed.unwrap_or(false)); // nobody waits while the agent ends
        };
        hands.give(Subject::Groups, Box::new(remove));
        if more.await != Ok(true) {
            return;
        }
    }
}

fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| "it panicked: see the log".to_owned())
}

impl WardId {
    /// The number is the caller's to choose, once per node.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What launching takes.
struct Tools {
    site: Arc<Site>,
    register: Register,
    /// Or why nodes cannot have one.
    groups: Arc<Result<Groups, NoGroups>>,
    /// Where nodes' sockets are, or why they have none.
    run_dir: Result<RunDir, String>,
    keeper: Keeper,
    readings: Readings,
    coroner: Coroner,
    archive: Archive,
    /// What Zeek nodes say.
    channels: Channels,
    /// Which files the last lives of each node write to.
    volumes: Mutex<HashMap<NodeName, Lives>>,
    /// Whether processes that lose their parent are given to us.
    strays_come_here: bool,
    /// For whom to look everywhere.
    looks: Looks,
    idle_groups: IdleGroups,
    peaks: Peaks,
}

impl Tools {}

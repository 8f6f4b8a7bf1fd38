//! The hands of all supervisors of one agent: whatever blocks is done on threads of its own, and exits are heard.
//!
//! What blocks goes to [`super::hands`]. Exits come from the kernel through one epoll set in the agent's own event loop: all
//! that are there are read before the first is told. What is known of a process is written down here before its
//! supervisor hears of it, so a supervisor that panics takes nothing with it: the next one is told the facts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix::{Addr, Message};
use tokio::sync::{mpsc as channel, oneshot};
use tokio::task::yield_now;

use super::channel::listener::Question as Asked;
use super::channel::{Channels, Heard, News, Place};
use super::crash::dossier::Given;
use super::crash::{Coroner, Death, Witness};
use super::hands::{Hands, Subject};
use super::history::Past;
use super::idle_groups::IdleGroups;
use super::output::{self, Keeper, Lock, Read, Readings, read::Scope};
use super::process::groups::{GroupError, Groups, NoGroups, refuse};
use super::process::looks::{Looks, Waiting};
use super::process::notices::{Notices, NotifySocket};
use super::process::oom::{Autopsy, KernelLog};
use super::process::run_dir::RunDir;
use super::process::{self, Ended, Exits, Process, Program, Remains, tree, tree::SweepError};
use super::register::{Register, RegisterError};
use super::said::Said;
use super::state::LaunchFailure;
use super::{LaunchOrder, Supervisor};
use crate::archive::Archive;
use crate::launch::zeek::{Objection, Preparation};
use crate::launch::{Site, Survey};
use crate::message::agent::{GetCrashesRequest, ReadOutputRequest};
use crate::model::output::LONGEST_READ;
use crate::model::{
    CrashSummary, Exit, Life, Node, NodeName, NodeState, Output, OutputPiece, OutputStream, ProbeBy, ReadyBy, Text,
    Timestamp, ZeekHealth,
};

/// A backlog that sees nothing finished for this long wants another thread.
const STUCK_AFTER: Duration = Duration::from_millis(100);
/// From one look at what a node says to the next.
const LISTENING_PAUSE: Duration = Duration::from_millis(20);
/// Set in the keys of programs that ask nodes how they are, beside their pid and the number of the ward.
const ASKER: u64 = 1 << 63;
/// Where the pid of one that asks begins in its key, behind the number of the ward.
const ASKER_PID: u32 = 40;
/// From the stop of a node to the removal of its group, and of those of others that were stopped meanwhile.
const BEFORE_GROUPS: Duration = Duration::from_millis(500);
/// How many groups are removed in one go.
const GROUPS: usize = 32;
/// In so many turns of the event loop the news of a death has left.
const TELLING: u8 = 8;
/// How many lines of a stream travel with a failure.
const LAST_LINES: usize = 100;
/// Of how many lives of a node it is known which files they wrote to: more than die before the first is looked into.
const LIVES: usize = 16;
/// How many deaths one list names.
const MOST_CRASHES: usize = 1000;

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

/// The first process of a life, which leads its session and process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leader {
    life: Life,
    /// `None` where it is not known that there was one.
    pid: Option<u32>,
    /// Launched by this run of the agent. What an earlier run launched may have lost children to another parent.
    ours: bool,
}

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
    Died(Life, u32, Exit),
}

struct Ward {
    name: NodeName,
    /// `None` until its first supervisor is there.
    minder: Option<Addr<Supervisor>>,
    fact: Fact,
    /// Set while alive.
    process: Option<Arc<Process>>,
    /// Whose leftovers the next launch ends first.
    leader: Option<Leader>,
    /// Where it is heard.
    socket: Option<Arc<NotifySocket>>,
    question: Option<Box<Question>>,
    /// Its crashes, as of when that was noted: what the next supervisor of it counts on from.
    past: (Past, Instant),
    /// The last end that was heard of.
    end: Option<Box<End>>,
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

/// A program that asks a node how it is.
struct Question {
    /// Nobody else's: rounds begin anew with each supervisor.
    number: u64,
    life: Life,
    round: u64,
    /// Once it is there.
    asker: Option<Arc<Process>>,
    /// Nobody waits for it.
    given_up: bool,
}

/// A process that came of a launch, and where it is heard.
type Born = (Process, Option<Arc<NotifySocket>>);

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

/// Cheap to clone; all clones are one workshop. Lives in the agent's thread.
#[derive(Clone)]
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
        actix::spawn(Rc::clone(&benches).hear_exits());
        actix::spawn(Rc::clone(&benches).hear_hands(dones));
        actix::spawn(Rc::clone(&benches).hear_notices());
        Ok(Self { hands: Hands::hire()?, tools, done, benches })
    }

    /// Takes a node in whose last life was `life`.
    pub fn admit(&self, ward: WardId, name: NodeName, life: Life) {
        let past = (Past::default(), Instant::now());
        let (fact, minder, process, leader, socket, question) = (Fact::Down(life), None, None, None, None, None);
        let fresh = Ward { name, minder, fact, process, leader, past, socket, question, end: None };
        self.benches.wards.borrow_mut().insert(ward, Box::new(fresh));
    }

    /// Takes in a node that an earlier run of the agent launched, with its process if that still runs. What that life
    /// left behind is ended before the next one.
    pub fn adopt(
        &self,
        ward: WardId,
        node: &Arc<Node>,
        life: Life,
        pid: Option<u32>,
        process: Option<Process>,
    ) -> io::Result<()> {
        self.admit(ward, node.name.clone(), life);
        self.tools.keeper.mind(node);
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.leader = Some(Leader { life, pid, ours: false });
        }
        self.hear_channel(ward, node, life);
        let Some(process) = process else { return Ok(()) };
        let leader = process.pid();
        self.benches.alive(ward, life, process, None, false)?;
        if speaks(node) || has_askers(node) {
            self.hear_again(ward, Arc::clone(node), life, leader);
        }
        Ok(())
    }

    /// Hears what a Zeek node says, and has said in a life that an earlier run of the agent launched.
    pub fn hear_channel(&self, ward: WardId, node: &Node, life: Life) {
        if node.is_zeek()
            && let Err(error) = self.tools.hear_channel(ward, node, life)
        {
            tracing::error!(node = %node.name, "{error}");
        }
    }

    /// Binds the socket of a life that runs already, and ends whoever asked it how it is when an earlier run ended.
    fn hear_again(&self, ward: WardId, node: Arc<Node>, life: Life, leader: u32) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let about = Subject::Node(node.name.clone());
        let waiting = tools.looks.wait();
        let work = move || {
            match speaks(&node).then(|| tools.bind_again(&node, leader)) {
                Some(Ok(socket)) => {
                    socket.resume(life);
                    let _ = done.send(Done::Bound(ward, life, socket)); // nobody listens while the agent ends
                }
                Some(Err(error)) => tracing::warn!(node = %node.name, "it is not heard: {error}"),
                None => {}
            }
            if has_askers(&node)
                && let Err(error) = tools.sweep_askers(&node, 0, false, &waiting)
            {
                tracing::warn!(node = %node.name, "{error}");
            }
        };
        let waits = self.hands.give_first(about, Box::new(work));
        self.look_after_backlog(waits);
    }

    /// Notes the crashes that an earlier run of the agent saw.
    pub fn recall(&self, ward: WardId, past: Past) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.past = (past, Instant::now());
        }
    }

    /// The crashes of that ward's node so far.
    pub fn past(&self, ward: WardId) -> Past {
        let wards = self.benches.wards.borrow();
        wards.get(&ward).map_or_else(Past::default, |ward| ward.past.0.clone().aged(ward.past.1.elapsed()))
    }

    /// Takes in a node that an earlier run of the agent launched, and whose process ended since.
    pub fn note_death(&self, ward: WardId, name: NodeName, life: Life, pid: u32, exit: Exit) {
        self.admit(ward, name, life);
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward) {
            ward.leader = Some(Leader { life, pid: Some(pid), ours: false });
            ward.fact = Fact::Died(life, pid, exit);
            let (time, heard) = (Timestamp::now(), Instant::now());
            let end = End { life, pid, start_time: None, exit, time, heard, largest_resident: None, kernel: None };
            ward.end = Some(Box::new(end));
        }
    }

    /// The supervisor has decided what comes of a death that was noted.
    pub fn forget_death(&self, ward: WardId) {
        if let Some(ward) = self.benches.wards.borrow_mut().get_mut(&ward)
            && let Fact::Died(life, ..) = ward.fact
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
        };
        self.give(Subject::Node(node.clone()), move || forget(&node));
    }

    /// Whether the kernel has reported an end that no supervisor has told the agent.
    pub fn has_untold_ends(&self) -> bool {
        Arc::strong_count(&self.benches.untold.0) > 1 || self.benches.exits.are_there()
    }

    /// Ends what the life before left behind, then launches; answered by [`Word::Launched`] or [`Word::LaunchFailed`].
    pub fn launch(&self, LaunchOrder { ward, node, life, past, remains }: LaunchOrder) {
        let (before, socket) = {
            let mut wards = self.benches.wards.borrow_mut();
            let Some(ward) = wards.get_mut(&ward) else { return };
            ward.fact = Fact::Launching(life);
            ward.past = (past.clone(), Instant::now());
            // It stays until a sweep succeeds or the next one is born: one that fails is to be done again.
            (ward.leader, ward.socket.clone())
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let before = before.map(|leader| (leader, tools.looks.wait()));
        let mut remains = remains;
        self.give(Subject::Node(node.name.clone()), move || {
            remains.iter_mut().for_each(Remains::end_group);
            let result = unless_it_panics(|| tools.launch(&node, life, past, before, socket))
                .unwrap_or_else(|reason| Err(LaunchFailure { reason, permanent: true }));
            let is_there = result.is_ok();
            let _ = done.send(Done::Launched(ward, life, result)); // nobody listens while the agent ends
            drop(remains);
            // What it says is told behind that it is there.
            if is_there
                && node.is_zeek()
                && let Err(error) = tools.hear_channel(ward, &node, life)
            {
                tracing::error!(node = %node.name, "{error}");
            }
        });
    }

    /// Ends what the lives up to this one left behind, and then notes that it is `down`, if it is; answered by
    /// [`Word::Swept`]. Where many are stopped, that is half the jobs.
    pub fn sweep(&self, ward: WardId, node: Arc<Node>, life: Life, remains: Option<Remains>, down: Option<Down>) {
        let leader = self.benches.wards.borrow().get(&ward).and_then(|ward| ward.leader);
        let Some(leader) = leader.filter(|leader| leader.life <= life) else {
            let swept = Word::Swept { life, trouble: None, noted: None };
            return self.benches.tell(ward, swept); // no process came of it
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waiting = tools.looks.wait();
        self.give(Subject::Node(node.name.clone()), move || {
            drop(remains);
            let sweep = || tools.sweep(&node, leader, &waiting).map_err(|error| error.to_string());
            let trouble = unless_it_panics(sweep).and_then(|swept| swept).err();
            if tools.groups.is_ok() && trouble.is_none() {
                tools.idle_groups.add(node.name.clone());
            }
            if let Some(down) = down {
                tools.note_down(&node.name, life, down);
            }
            let swept = Word::Swept { life, trouble, noted: down };
            let _ = done.send(Done::Tell(ward, swept)); // nobody listens while the agent ends
        });
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

    /// Writes the record of a process that was found by its marker anew, now that its definition is known.
    pub fn enter(&self, ward: WardId, node: Arc<Node>) {
        let known =
            self.benches.wards.borrow().get(&ward).and_then(|ward| Some((ward.fact.clone(), ward.process.clone()?)));
        let Some((Fact::Alive(life, pid), process)) = known else { return };
        let past = self.past(ward);
        self.note(None, node.name.clone(), move |tools, _| {
            tools.register.enter(&node, life, (pid, process.start_time()), past, false)
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

    /// Reads what the node wrote last; answered by [`Word::LastWords`]. What is left of it is buried before, so that
    /// nobody writes any more.
    pub fn last_words(&self, ward: WardId, node: NodeName, life: Life, remains: Remains) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let about = Subject::Node(node.clone()); // the next launch, whatever asks for it, waits until they are read
        let waits = self.hands.give_first(
            about,
            Box::new(move || {
                drop(remains);
                let output = last_words(&tools.register.directory(&node), &tools.keeper.lock(&node));
                let _ = done.send(Done::Tell(ward, Word::LastWords { life, output })); // as above
            }),
        );
        self.look_after_backlog(waits);
    }

    /// Reads the last lines that a node wrote.
    pub fn last_lines(&self, node: NodeName, lines: usize, tell: impl FnOnce(io::Result<Output>) + Send + 'static) {
        let keeper = self.tools.keeper.clone();
        self.run(Subject::Output(node.clone()), move |register| {
            let (directory, lock) = (register.directory(&node), keeper.lock(&node));
            tell(output::last_lines(&directory, lines, |_| Scope::All, &lock));
        });
    }

    /// Reads a piece of what a node wrote; where there is nothing yet, once there is, or its time is up.
    pub fn read_piece(&self, request: ReadOutputRequest, tell: impl FnOnce(io::Result<OutputPiece>) + Send + 'static) {
        let (hands, tools) = (self.hands.clone(), Arc::clone(&self.tools));
        let about = Subject::Output(request.node.clone());
        self.give(about.clone(), move || {
            let ReadOutputRequest { node, stream, wait, .. } = request.clone();
            let read = tools.readings.read(&tools.keeper, &tools.register.directory(&node), &request, !wait.is_zero());
            let place = match read {
                Ok(Read::Waits { behind, .. }) => behind,
                Ok(Read::Piece(piece)) => return tell(Ok(piece)),
                Err(error) => return tell(Err(error)),
            };
            let keeper = tools.keeper.clone();
            keeper.when_there_is_more(node.clone(), stream, place, wait.min(LONGEST_READ), move || {
                let last = move || {
                    let directory = tools.register.directory(&node);
                    let read = tools.readings.read(&tools.keeper, &directory, &request, false);
                    tell(read.map(Read::into_piece));
                };
                hands.give(about, Box::new(last));
            });
        });
    }

    /// What the dossier of the ward's last end will be called, if one is to be made.
    pub fn dossier(&self, ward: WardId) -> Option<String> {
        let wards = self.benches.wards.borrow();
        let ward = wards.get(&ward)?;
        ward.end.as_ref().and_then(|end| self.tools.coroner.name(&ward.name, end.life))
    }

    /// Has a dossier made of the ward's last end, which nobody asked for, once everybody was told of it: to wake the
    /// thread that makes it would hold that up.
    pub fn examine(&self, ward: WardId, node: &Arc<Node>, state: NodeState, reason: Text) {
        let end = self.benches.wards.borrow_mut().get_mut(&ward).and_then(|ward| ward.end.take());
        let Some(end) = end else { return };
        let End { life, pid, start_time, exit, time, heard, largest_resident, kernel } = *end;
        let node = Arc::clone(node);
        let death = Death { node, life, pid, start_time, exit, time, heard, largest_resident, kernel, state, reason };
        let mut deaths = self.benches.deaths.borrow_mut();
        deaths.push(death);
        if deaths.len() == 1 {
            actix::spawn(Rc::clone(&self.benches).report_deaths(Arc::clone(&self.tools)));
        }
    }

    /// Reads what is filed of nodes that died: one dossier, or a list of them, of one node or all.
    pub fn read_crashes(&self, request: GetCrashesRequest, tell: impl FnOnce(io::Result<Filed>) + Send + 'static) {
        let morgue = self.tools.coroner.morgue().clone();
        self.run(Subject::Crashes, move |_| {
            let read = match request.id {
                Some(id) => morgue.text(&id).map(|dossier| Filed { crashes: Vec::new(), dossier }),
                None => {
                    let crashes = morgue.list(request.node.as_ref(), MOST_CRASHES);
                    crashes.map(|crashes| Filed { crashes, dossier: None })
                }
            };
            tell(read);
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

    /// Has Zeek nodes launched by the files that were rendered under this number, from now on and by the next run of the
    /// agent, too.
    pub fn use_files(&self, number: u64) {
        let tools = Arc::clone(&self.tools);
        tools.site.zeek.use_files(number);
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

    /// Has [`Word::Speaks`] told again, should it have got lost.
    pub fn await_words(&self, ward: WardId) {
        self.benches.await_words(ward);
    }

    /// Reads what the node has said; answered by [`Word::Said`]. With `all` also if that is nothing; or by [`Word::Unheard`]
    /// if that may be so because it cannot be heard.
    pub fn listen(&self, ward: WardId, node: Arc<Node>, life: Life, all: bool) {
        if all && node.speaks_by_channel() {
            return self.tools.channels.listen(ward, life);
        }
        let found = match self.benches.wards.borrow().get(&ward).map(Box::as_ref) {
            Some(Ward { fact: Fact::Alive(of, leader), socket: Some(socket), .. }) if *of == life => {
                Some((*leader, Arc::clone(socket)))
            }
            _ => None,
        };
        let Some((leader, socket)) = found else {
            if all {
                self.benches.tell(ward, Word::Unheard { life });
            }
            return;
        };
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waits = self.hands.give_first(
            Subject::Health(node.name.clone()),
            Box::new(move || {
                let listened = unless_it_panics(|| {
                    let said = tools.listen(&node, life, leader, &socket);
                    let can_be_heard = said.lives || socket.is_in_place(node.user.as_deref());
                    (said, can_be_heard)
                });
                // Also after a panic somebody waits for what was heard.
                let (said, can_be_heard) = listened.unwrap_or_default();
                let is_unheard = all && !can_be_heard;
                let heard = Done::Heard { ward, life, said, all: all && can_be_heard };
                let unheard = is_unheard.then_some(Done::Tell(ward, Word::Unheard { life }));
                // Nobody listens while the agent ends.
                [heard].into_iter().chain(unheard).for_each(|told| drop(done.send(told)));
            }),
        );
        self.look_after_backlog(waits);
    }

    /// This life of a Zeek node is over: the last that it said is told.
    pub fn channel_is_over(&self, ward: WardId, life: Life) {
        self.tools.channels.over(ward, life);
    }

    /// Asks the present life of a Zeek node by its channel; the answer is told in any case, and in time.
    pub fn inquire(&self, ward: WardId, question: Asked) {
        match self.fact(ward) {
            Fact::Alive(life, _) => self.tools.channels.ask(ward, life, question),
            _ => (question.tell)(Err("it does not run".into())),
        }
    }

    /// Has a program ask the node how it is; answered by [`Word::Asked`], or by [`Word::Probed`] if nothing came of it.
    pub fn ask(&self, ward: WardId, node: Arc<Node>, life: Life, round: u64, command: Vec<String>) {
        let (number, has_former) = self.benches.open_question(ward, life, round);
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        self.give(Subject::Health(node.name.clone()), move || {
            let ask = || {
                if has_former {
                    // Now, since later what it started could not be told from what this one starts.
                    tools.sweep_askers(&node, 0, true, &tools.looks.wait()).map_err(|error| error.to_string())?;
                }
                tools.ask(&node, life, &command)
            };
            let asked = unless_it_panics(ask).and_then(|asked| asked);
            let _ = done.send(Done::Asking(ward, number, asked)); // as above
        });
    }

    /// Ends the program that asks this question: nobody waits for it.
    pub fn give_up_question(&self, ward: WardId, round: u64) {
        if let Some(question) = self.benches.wards.borrow_mut().get_mut(&ward).and_then(|ward| ward.question.as_mut())
            && question.round == round
        {
            question.given_up = true;
            question.end();
        }
    }

    /// Clears away what is left of a program that has asked; answered by [`Word::Probed`].
    pub fn clear_question(
        &self,
        ward: WardId,
        node: Arc<Node>,
        (life, round): (Life, u64),
        exit: Exit,
        remains: Remains,
    ) {
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        let waiting = tools.looks.wait();
        self.give(Subject::Health(node.name.clone()), move || {
            let leader = remains.pid();
            drop(remains);
            let sweep = || tools.sweep_askers(&node, leader, true, &waiting).map_err(|error| error.to_string());
            if let Err(error) = unless_it_panics(sweep).and_then(|swept| swept) {
                tracing::warn!(node = %node.name, "{error}");
            }
            let answer = match exit {
                Exit::Status(0) => Ok(()),
                exit => Err(exit.to_string()),
            };
            let _ = done.send(Done::Tell(ward, Word::Probed { life, round, answer })); // as above
        });
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

/// Under which one that asks is watched: until it is buried nobody else has its pid, so the next one has another.
fn asker_key(id: WardId, asker: &Process) -> u64 {
    ASKER | u64::from(asker.pid()) << ASKER_PID | id.0
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

impl Benches {
    async fn hear_exits(self: Rc<Self>) {
        // It fails only while the event loop itself ends.
        while let Ok(dead) = self.exits.next().await {
            dead.into_iter().for_each(|ended| self.died(ended));
            yield_now().await; // what was told now goes out before anybody looks for more
        }
    }

    /// Reports deaths to the coroner when the news of them is on its way.
    async fn report_deaths(self: Rc<Self>, tools: Arc<Tools>) {
        for _ in 0..TELLING {
            yield_now().await;
        }
        for death in self.deaths.take() {
            tools.coroner.examine(death, || Bystander(Arc::downgrade(&tools)));
        }
    }

    async fn hear_notices(self: Rc<Self>) {
        // It fails only while the event loop itself ends.
        while let Ok(wards) = self.notices.next().await {
            for id in wards.into_iter().map(WardId) {
                let fact = self.wards.borrow().get(&id).map(|ward| ward.fact.clone());
                // Whoever is being born is listened to once it is known who that is.
                if let Some(Fact::Alive(life, _)) = fact {
                    self.tell(id, Word::Speaks { life });
                }
            }
            yield_now().await;
        }
    }

    /// Has somebody told as soon as the node says something.
    fn await_words(&self, id: WardId) {
        let wards = self.wards.borrow();
        if let Some(Ward { fact: Fact::Alive(..), socket: Some(socket), .. }) = wards.get(&id).map(Box::as_ref)
            && let Err(error) = self.notices.await_one(id.0, socket)
        {
            tracing::warn!("cannot listen at {}: {error}", socket.path().display());
        }
    }

    /// The same after a pause, so that whoever talks without end is not listened to without end.
    fn await_words_later(self: &Rc<Self>, id: WardId) {
        let benches = Rc::clone(self);
        actix::spawn(async move {
            tokio::time::sleep(LISTENING_PAUSE).await;
            benches.await_words(id);
        });
    }

    async fn hear_hands(self: Rc<Self>, mut dones: channel::UnboundedReceiver<Done>) {
        while let Some(done) = dones.recv().await {
            match done {
                Done::Tell(ward, word) => {
                    if let Word::Swept { life, trouble: None, .. } = word {
                        self.is_swept(ward, life);
                    }
                    self.tell(ward, word);
                }
                Done::News(News::Heard { ward, life, heard, all }) => {
                    self.tell(ward, Word::Heard { life, heard, all });
                }
                Done::News(News::Unheard { ward, life }) => self.tell(ward, Word::Unheard { life }),
                Done::Bound(id, life, socket) => self.bound(id, life, socket),
                Done::Heard { ward, life, said, all } => {
                    self.await_words_later(ward);
                    if all || !said.is_nothing() {
                        self.tell(ward, Word::Said { life, said, all });
                    }
                }
                Done::Asking(ward, number, asked) => self.asking(ward, number, asked),
                Done::Launched(ward, life, Ok(born)) => self.launched(ward, life, born),
                Done::Launched(ward, life, Err(failure)) => {
                    self.note(ward, Fact::Down(life));
                    self.tell(ward, Word::LaunchFailed { life, failure });
                }
            }
        }
    }

    fn bound(&self, id: WardId, life: Life, socket: NotifySocket) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id)
            && matches!(ward.fact, Fact::Alive(of, _) if of == life)
        {
            ward.socket = Some(Arc::new(socket));
        }
        self.await_words(id);
    }

    /// Opens a question; returns its number, and whether there is one that a supervisor which panicked left open.
    fn open_question(&self, id: WardId, life: Life, round: u64) -> (u64, bool) {
        let number = self.questions.get() + 1;
        self.questions.set(number);
        let mut wards = self.wards.borrow_mut();
        let former = wards.get_mut(&id).and_then(|ward| {
            ward.question.replace(Box::new(Question { number, life, round, asker: None, given_up: false }))
        });
        former.iter().for_each(|question| question.end()); // nobody waits for it
        (number, former.is_some())
    }

    fn asking(&self, id: WardId, number: u64, asked: Result<Process, String>) {
        // Watched in any case: one whose question is gone, with its ward or for another, is to be buried, too.
        let asked = asked.and_then(|process| {
            let process = Arc::new(process);
            match self.exits.watch(asker_key(id, &process), Arc::clone(&process)) {
                Ok(()) => Ok(process),
                Err(error) => {
                    let _ = process.kill(); // nobody would hear of its end
                    Err(format!("cannot watch the program that asks: {error}"))
                }
            }
        });
        let is_it = |question: &Question| question.number == number;
        let mut wards = self.wards.borrow_mut();
        let ward = wards.get_mut(&id);
        match asked {
            Ok(process) => match ward.and_then(|ward| ward.question.as_mut()).filter(|question| is_it(question)) {
                Some(question) => {
                    question.asker = Some(process);
                    if question.given_up {
                        question.end();
                    }
                }
                None => drop(process.kill()),
            },
            Err(why) => {
                let question = ward.and_then(|ward| ward.question.take_if(|question| is_it(question)));
                drop(wards);
                if let Some(Question { life, round, .. }) = question.map(|question| *question) {
                    self.tell(id, Word::Probed { life, round, answer: Err(why) });
                }
            }
        }
    }

    fn asker_ended(&self, id: WardId, exit: Exit, remains: Remains) {
        let is_its =
            |question: &mut Box<Question>| question.asker.as_ref().is_some_and(|asker| asker.pid() == remains.pid());
        let question = self.wards.borrow_mut().get_mut(&id).and_then(|ward| ward.question.take_if(is_its));
        // The end of one that asked another question answers none: it is only buried.
        if let Some(Question { life, round, .. }) = question.map(|question| *question) {
            self.tell(id, Word::Asked { life, round, exit, remains });
        }
    }

    fn launched(&self, ward: WardId, life: Life, (process, socket): Born) {
        let pid = process.pid();
        if !self.wards.borrow().contains_key(&ward) {
            // Nobody minds it: a ward is let go only when nothing is being born in it, so this is for safety.
            tracing::error!("process {pid} was launched for a ward that was let go");
            return drop(process.kill());
        }
        match self.alive(ward, life, process, socket, true) {
            Ok(()) => {
                self.tell(ward, Word::Launched { life, pid });
                self.await_words(ward);
            }
            Err(error) => {
                // Only a lack of memory or descriptors; the process was ended, since nobody would hear of its exit.
                let failure =
                    LaunchFailure { reason: format!("cannot watch process {pid}: {error}"), permanent: false };
                self.note(ward, Fact::Down(life));
                self.tell(ward, Word::LaunchFailed { life, failure });
            }
        }
    }

    fn alive(
        &self,
        id: WardId,
        life: Life,
        process: Process,
        socket: Option<Arc<NotifySocket>>,
        ours: bool,
    ) -> io::Result<()> {
        let process = Arc::new(process);
        let pid = process.pid();
        if let Err(error) = self.exits.watch(id.0, Arc::clone(&process)) {
            if ours {
                process.kill()?;
            }
            return Err(error);
        }
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.fact = Fact::Alive(life, pid);
            ward.process = Some(process);
            ward.leader = Some(Leader { life, pid: Some(pid), ours });
            let is_same =
                |former: &Arc<NotifySocket>| socket.as_ref().is_some_and(|socket| Arc::ptr_eq(former, socket));
            if let Some(former) = std::mem::replace(&mut ward.socket, socket.clone()).filter(|former| !is_same(former))
            {
                self.notices.let_go(&former);
            }
        }
        Ok(())
    }

    fn died(&self, Ended { key, exit, largest_resident, remains }: Ended) {
        if key & ASKER != 0 {
            return self.asker_ended(WardId(key & ((1 << ASKER_PID) - 1)), exit, remains);
        }
        let id = WardId(key);
        let (life, exit) = {
            let mut wards = self.wards.borrow_mut();
            let Some(ward) = wards.get_mut(&id) else { return };
            let Fact::Alive(life, pid) = ward.fact else { return };
            ward.fact = Fact::Down(life);
            let start_time = ward.process.take().map_or(0, |process| process.start_time());
            let exit = self.autopsy.borrow_mut().examine(exit, pid, start_time, &ward.name);
            let is_for_memory = exit == Exit::OutOfMemory;
            let kernel = is_for_memory.then(|| self.autopsy.borrow().said_of(pid, start_time)).flatten();
            let (time, heard) = (Timestamp::now(), Instant::now());
            let start_time = Some(start_time);
            ward.end = Some(Box::new(End { life, pid, start_time, exit, time, heard, largest_resident, kernel }));
            (life, exit)
        };
        self.tell(id, Word::Died { life, exit, remains, untold: self.untold.clone() });
    }

    /// Nothing is left of the lives up to this one: there is nobody to look for any more.
    fn is_swept(&self, id: WardId, life: Life) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.leader.take_if(|leader| leader.life <= life);
        }
    }

    fn note(&self, id: WardId, fact: Fact) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id) {
            ward.fact = fact;
        }
    }

    /// Says what it means that nothing runs.
    fn settle(&self, id: WardId, what: fn(Life) -> Fact) {
        if let Some(ward) = self.wards.borrow_mut().get_mut(&id)
            && let Fact::Down(life) | Fact::GivenUp(life) = ward.fact
        {
            ward.fact = what(life);
        }
    }

    fn tell(&self, id: WardId, word: Word) {
        if let Some(minder) = self.wards.borrow().get(&id).and_then(|ward| ward.minder.as_ref()) {
            minder.do_send(word);
        }
    }

    fn process(&self, id: WardId) -> Option<Arc<Process>> {
        self.wards.borrow().get(&id).and_then(|ward| ward.process.clone())
    }
}

impl Question {
    fn end(&self) {
        if let Some(asker) = &self.asker
            && let Err(error) = asker.kill()
        {
            tracing::warn!("cannot end process {}, which asks a node how it is: {error}", asker.pid());
        }
    }
}

/// What is filed of deaths.
#[derive(Debug, Default)]
pub struct Filed {
    /// Newest first.
    pub crashes: Vec<CrashSummary>,
    pub dossier: Option<String>,
}

/// Tells the coroner what the workshop knows, for as long as there is one.
struct Bystander(Weak<Tools>);

impl Witness for Bystander {
    fn given(&self, node: &Node, life: Life) -> Given {
        let program = self.0.upgrade().and_then(|tools| tools.site.program(node, life).ok());
        program.map_or_else(Given::default, |program| Given {
            command: program.argv,
            directory: program.directory,
            environment: program.env.into_keys().collect(),
        })
    }

    fn last_output(&self, node: &Node, life: Life) -> Output {
        let Some(tools) = self.0.upgrade() else { return Output::default() };
        let (directory, lock) = (tools.site.directory(node), tools.keeper.lock(&node.name));
        let known = tools.volumes.lock().unwrap_or_else(PoisonError::into_inner).get(&node.name).cloned();
        let scope = |stream: OutputStream| match known.as_ref().and_then(|lives| volume_of(lives, life, stream)) {
            Some(volume) => Scope::Volume(volume),
            None => output::present_life(&directory, &lock)(stream),
        };
        let read = output::last_lines(&directory, LAST_LINES, scope, &lock);
        read.inspect_err(|error| tracing::warn!("cannot read the output in {}: {error}", directory.display()))
            .unwrap_or_default()
    }
}

/// Makes a node's directory; whether there was none. A node that works below it as another user passes through; nobody
/// else has to. Where it should be there already it is looked at first, since that holds up nobody else.
fn make_home(directory: &Path, node: &Node, should_be_there: bool) -> io::Result<bool> {
    let mode = if node.user.is_some() && node.directory.is_none() { 0o711 } else { 0o700 };
    let found = match should_be_there.then(|| std::fs::metadata(directory)) {
        Some(Ok(found)) => found,
        _ => {
            let mut maker = DirBuilder::new();
            match maker.mode(mode).create(directory) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => return maker.recursive(true).create(directory).map(|()| true),
            }
            std::fs::metadata(directory)?
        }
    };
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o777 != mode {
        std::fs::set_permissions(directory, Permissions::from_mode(mode))?;
    }
    Ok(false)
}

/// The last lives of a node, and which file each of its streams was in each.
type Lives = Vec<(Life, [u64; 2])>;

/// Which file of that stream was a life's. One that was found running had the file before that of the next life.
fn volume_of(lives: &[(Life, [u64; 2])], life: Life, stream: OutputStream) -> Option<u64> {
    let own = lives.iter().find(|(of, _)| *of == life).map(|(_, volumes)| volumes[stream as usize]);
    own.or_else(|| lives.iter().find(|(of, _)| *of > life).map(|(_, volumes)| (volumes[stream as usize] - 1).max(1)))
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
}

impl Tools {
    /// Everything from the order to the process, in the order that makes it safe to die between any two steps.
    fn launch(
        &self,
        node: &Node,
        life: Life,
        past: Past,
        before: Option<(Leader, Waiting)>,
        socket: Option<Arc<NotifySocket>>,
    ) -> Result<Born, LaunchFailure> {
        let permanent = |reason: String| LaunchFailure { reason, permanent: true };
        let passing = |reason: String| LaunchFailure { reason, permanent: false };
        if let Some((leader, waiting)) = before {
            self.sweep(node, leader, &waiting)
                .map_err(|error| passing(format!("cannot end the life before: {error}")))?;
        }
        let directory = self.site.directory(node);
        let has_lived = self.volumes.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node.name);
        make_home(&directory, node, has_lived)
            .and_then(|is_new| match is_new {
                true => Ok(output::FIRST_LIFE),
                false => output::begin_life(&directory, &self.keeper.lock(&node.name)),
            })
            .map(|volumes| self.note_volumes(&node.name, life, volumes))
            .map_err(|error| passing(format!("cannot prepare {}: {error}", directory.display())))?;
        // Before all that can fail, so that what comes of it is noted with its life.
        let record = self
            .register
            .intend(node, life, past)
            .map_err(|error| LaunchFailure { permanent: error.is_permanent(), reason: error.to_string() })?;
        let mut program = self.site.program(node, life).map_err(|error| permanent(error.to_string()))?;
        program.group = self
            .group(node)
            .map_err(|error| LaunchFailure { permanent: error.is_permanent(), reason: error.to_string() })?;
        let socket = self.socket(node, life, socket).map_err(passing)?;
        if let Some(socket) = &socket {
            tell_of(socket, node, &mut program);
        }
        if node.is_zeek() {
            self.archive.before_life(&node.name, &program.directory, node.directory.is_none()).map_err(|error| {
                passing(format!("cannot take up the logs that it has left in {}: {error}", program.directory.display()))
            })?;
            self.lay_channel(node, life, &mut program).map_err(passing)?;
        }
        let process = process::spawn(&program, Some(std::os::fd::AsFd::as_fd(&record)))
            .map_err(|error| LaunchFailure { permanent: error.is_permanent(), reason: error.to_string() })?;
        self.keeper.mind(node);
        Ok((process, socket))
    }

    /// Makes the files by which a Zeek node speaks, and tells it where they are.
    fn lay_channel(&self, node: &Node, life: Life, program: &mut Program) -> Result<(), String> {
        let place = Place::of(&self.site.directory(node));
        place.lay(life, node.user.as_deref()).map_err(|error| {
            format!("cannot make the files of its channel in {}: {error}", program.directory.display())
        })?;
        let heartbeat = node.zeek.as_ref().and_then(|zeek| zeek.knows.as_ref());
        let heartbeat = heartbeat.map_or(ZeekHealth::HEARTBEAT, |knows| knows.settings.health.heartbeat());
        for (name, value) in [
            ("WATCHPOST_NEWS", place.news(life).display().to_string()),
            ("WATCHPOST_QUESTIONS", place.questions(life).display().to_string()),
            ("WATCHPOST_HEARTBEAT", heartbeat.as_secs_f64().to_string()),
        ] {
            program.env.insert(name.into(), value);
        }
        Ok(())
    }

    fn hear_channel(&self, ward: WardId, node: &Node, life: Life) -> Result<(), String> {
        let place = Place::of(&self.site.directory(node));
        let heard = self.channels.hear(ward, node.name.clone(), place, life);
        heard.map_err(|error| format!("nobody can hear what Zeek nodes say: {error}"))
    }

    fn note_volumes(&self, node: &NodeName, life: Life, volumes: [u64; 2]) {
        let mut known = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = known.entry(node.clone()).or_default();
        if lives.len() >= LIVES {
            lives.remove(0);
        }
        lives.push((life, volumes));
    }

    /// The socket of this life, which is heard from now on; `None` where its definition does not have it speak.
    fn socket(
        &self,
        node: &Node,
        life: Life,
        former: Option<Arc<NotifySocket>>,
    ) -> Result<Option<Arc<NotifySocket>>, String> {
        if !speaks(node) {
            return Ok(None);
        }
        let socket = match former.filter(|former| former.is_in_place(node.user.as_deref())) {
            Some(former) => former,
            None => Arc::new(self.bind(node)?),
        };
        socket.begin(life);
        Ok(Some(socket))
    }

    fn bind(&self, node: &Node) -> Result<NotifySocket, String> {
        let run_dir = self.run_dir.as_ref().map_err(|why| format!("cannot give it a socket to talk to: {why}"))?;
        let path = run_dir.path(&node.name);
        let user = node.user.as_deref();
        let bound = NotifySocket::bind(&path, user).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                run_dir.restore().map_err(io::Error::other).and_then(|()| NotifySocket::bind(&path, user))
            }
            _ => Err(error),
        });
        bound.map_err(|error| format!("cannot give it the socket {} to talk to: {error}", path.display()))
    }

    /// The socket of a life that another run of the agent launched, if it talks to where that is now.
    fn bind_again(&self, node: &Node, leader: u32) -> Result<NotifySocket, String> {
        let socket = self.bind(node)?;
        match process::variable(leader, "NOTIFY_SOCKET").filter(|told| Path::new(told) != socket.path()) {
            Some(told) => {
                Err(format!("it talks to {}, and would be heard at {}", told.display(), socket.path().display()))
            }
            None => Ok(socket),
        }
    }

    fn listen(&self, node: &Node, life: Life, leader: u32, socket: &NotifySocket) -> Said {
        let marker = self.site.marker(node, life);
        let is_ours = |pid| {
            let in_group = || self.groups.as_ref().as_ref().is_ok_and(|groups| groups.has(&node.name, pid));
            pid == leader || in_group() || process::belongs(pid, &marker, leader)
        };
        let mut said = Said::default();
        let heard = socket.read(life, is_ours, |datagram| said.hear(datagram));
        if let Some(stranger) = heard.stranger {
            let who =
                stranger.map_or_else(|| "a process outside our pid namespace".into(), |pid| format!("process {pid}"));
            tracing::warn!(node = %node.name, "{who} is none of its processes, or was gone before it was heard: ignored");
        }
        if said.misunderstood {
            let why = "the process that was launched is the node, and it keeps its descriptors itself";
            tracing::debug!(node = %node.name, "ignored what it said beside its state: {why}");
        }
        said
    }

    /// Starts the program that asks the node how it is.
    fn ask(&self, node: &Node, life: Life, command: &[String]) -> Result<Process, String> {
        let mut program = self.site.asker(node, life, command).map_err(|error| error.to_string())?;
        let group = self.groups.as_ref().as_ref().ok().map(|groups| groups.of_askers(&node.name)).transpose();
        program.group = group.map_err(|error| format!("cannot make a control group: {error}"))?;
        process::spawn(&program, None).map_err(|error| error.to_string())
    }

    /// Ends all that a program which asked the node left behind; `leader` is 0 where it is not known.
    fn sweep_askers(&self, node: &Node, leader: u32, ours: bool, waiting: &Waiting) -> Result<(), SweepError> {
        let marker = self.site.askers_marker(node);
        match &*self.groups {
            // Who left the group cannot be told from others by anything else.
            Ok(groups) => groups.end_askers(&node.name).map(drop),
            Err(_) if ours && self.strays_come_here => tree::sweep(&marker, leader, waiting).map(drop),
            Err(_) => tree::sweep_all(&marker, leader, waiting).map(drop),
        }
    }

    /// The group that the node is born into, with its limits; `None` where it needs none and can have none.
    fn group(&self, node: &Node) -> Result<Option<PathBuf>, GroupError> {
        let quotas = node.run_as.as_ref().map(|run_as| run_as.quotas).unwrap_or_default();
        match &*self.groups {
            Ok(groups) => {
                self.idle_groups.remove(groups, &node.name);
                groups.of(&node.name, &quotas).map(Some)
            }
            Err(why) => refuse(&quotas, why).map_or(Ok(None), Err),
        }
    }

    /// What cannot be written is in the log: the node is down all the same.
    fn note_down(&self, node: &NodeName, life: Life, down: Down) {
        let noted = match down {
            Down::Stopped => self.register.stopped(node, life),
            Down::Rested => self.register.rested(node, life),
        };
        if let Err(error) = noted {
            tracing::warn!(%node, "{error}");
        }
    }

    /// By the group, where there is one; and then whoever left it.
    fn sweep(&self, node: &Node, leader: Leader, waiting: &Waiting) -> Result<usize, SweepError> {
        if !leader.ours && has_askers(node) {
            self.sweep_askers(node, 0, false, waiting)?;
        }
        let killed = self.groups.as_ref().as_ref().map_or(Ok(0), |groups| groups.end(&node.name))?;
        // A leader leads its session, too; where no leader is known, only the marker tells.
        let (marker, session) = (self.site.marker(node, leader.life), leader.pid.unwrap_or(0));
        let strays = match leader.ours && self.strays_come_here {
            true => tree::sweep(&marker, session, waiting)?,
            false => tree::sweep_all(&marker, session, waiting)?,
        };
        Ok(killed + strays)
    }
}

/// Whether it is to say how it is.
fn speaks(node: &Node) -> bool {
    node.ready.by == ReadyBy::Notify || (node.watchdog().is_some() && !node.speaks_by_channel())
}

/// Whether programs ask it how it is, as it is defined now: one that was asked before may have lost its probe since.
fn has_askers(node: &Node) -> bool {
    let probe = node.liveness.as_ref().and_then(|liveness| liveness.probe.as_ref());
    probe.is_some_and(|probe| matches!(probe.by, ProbeBy::Exec(_)))
}

/// Tells the program where it is heard, and how often it is to be; unless its definition says otherwise.
fn tell_of(socket: &NotifySocket, node: &Node, program: &mut Program) {
    let mut tell = |name: &str, value: String| {
        program.env.entry(name.into()).or_insert(value);
    };
    tell("NOTIFY_SOCKET", socket.path().display().to_string());
    if let Some(watchdog) = node.watchdog().filter(|_| !node.speaks_by_channel()) {
        tell("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
}

/// What the node wrote last, if it wrote anything.
fn last_words(directory: &Path, lock: &Lock) -> Option<Output> {
    let output = output::last_lines(directory, LAST_LINES, output::present_life(directory, lock), lock)
        .inspect_err(|error| tracing::warn!("cannot read the output in {}: {error}", directory.display()))
        .ok()?;
    (output != Output::default()).then_some(output)
}

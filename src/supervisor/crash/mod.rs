//! What is found out about nodes that died unasked, after everybody was told and the next life was ordered.
//!
//! [`Coroner`] is a thread of its own, below everything else in priority: nothing that somebody waits for waits for it.
//! [`dossier`] is what it writes, [`morgue`] keeps it, [`core_file`] looks for core files, [`backtrace`] asks a debugger.

pub mod backtrace;
pub mod core_file;
mod core_pid;
pub mod dossier;
pub mod morgue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use self::core_file::{CoreReport, Crashed, Places};
use self::dossier::{Dossier, Given};
use self::morgue::Morgue;
use crate::model::{Exit, InstanceName, Life, Node, NodeName, NodeState, Output, Text, Timestamp};

/// Below everything that somebody waits for.
const NICE: i32 = 19;
/// A thread's stack, in bytes.
const STACK: usize = 256 << 10;
/// Those who died are looked into when nobody has died for this long: the next lives have begun by then. Where ever more
/// die the first waits no longer than [`LATEST`].
const PAUSE: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(1);
/// Whether dossiers are too many is looked at after so many were filed at the least, and a quarter of those that are there:
/// each look is at all of them.
const AT_ONCE: usize = 64;
/// And once nobody has died for this long.
const QUIET: Duration = Duration::from_secs(1);
/// How many deaths may wait; more at once are told to be left out.
const MOST: usize = 4096;
/// How long a debugger may take.
const DEBUGGING: Duration = Duration::from_secs(20);
/// How often, and after which pause, a core file is looked for that somebody else is to write.
const LOOKS: (u32, Duration) = (6, Duration::from_millis(500));
/// The debugger that is asked.
const DEBUGGER: &str = "gdb";

/// A death that nobody asked for.
#[derive(Debug, Clone)]
pub struct Death {
    pub node: Arc<Node>,
    pub life: Life,
    pub pid: u32,
    /// In clock ticks since boot; `None` if it ended unwatched.
    pub start_time: Option<u64>,
    pub exit: Exit,
    pub time: Timestamp,
    pub heard: Instant,
    pub largest_resident: Option<u64>,
    /// What the kernel said, if it killed it for want of memory.
    pub kernel: Option<Arc<str>>,
    pub state: NodeState,
    pub reason: Text,
}

/// What the thread asks of the agent that it belongs to.
pub trait Witness: Send + 'static {
    /// What that life was given.
    fn given(&self, node: &Node, life: Life) -> Given;
    /// What it wrote last.
    fn last_output(&self, node: &Node, life: Life) -> Output;
    /// The most memory that its control group had by the end of that life, in bytes.
    fn memory_peak(&self, node: &Node, life: Life) -> Option<u64>;
}

/// Cheap to clone. The thread begins with the first death, and ends when the last clone is gone.
#[derive(Clone)]
pub struct Coroner {
    instance: InstanceName,
    morgue: Morgue,
    deaths: Arc<OnceLock<Option<SyncSender<Death>>>>,
}

impl Coroner {
    pub fn new(instance: InstanceName, morgue: Morgue) -> Self {
        Self { instance, morgue, deaths: Arc::default() }
    }

    /// Where the dossiers are.
    pub fn morgue(&self) -> &Morgue {
        &self.morgue
    }

    /// What the dossier of this life will be called, if any are kept.
    pub fn name(&self, node: &NodeName, life: Life) -> Option<String> {
        (self.morgue.rules().keep > 0).then(|| dossier::id_of(node, life))
    }

    /// Has a dossier made, some time soon.
    pub fn examine<W: Witness>(&self, death: Death, witness: impl FnOnce() -> W) {
        if self.morgue.rules().keep == 0 {
            return;
        }
        // Why there is none was said when it was to begin.
        let Some(deaths) = self.deaths.get_or_init(|| self.begin(witness())) else { return };
        match deaths.try_send(death) {
            Err(TrySendError::Full(Death { node, pid, .. })) => {
                tracing::warn!(node = %node.name, "too many died at once: no dossier is made of process {pid}");
            }
            Err(TrySendError::Disconnected(Death { node, pid, .. })) => {
                tracing::error!(node = %node.name, "the coroner is gone: no dossier is made of process {pid}");
            }
            Ok(()) => {}
        }
    }

    fn begin<W: Witness>(&self, witness: W) -> Option<SyncSender<Death>> {
        let (deaths, heard) = mpsc::sync_channel::<Death>(MOST);
        let (instance, morgue) = (self.instance.clone(), self.morgue.clone());
        let work = move || {
            // Where it may not be, it competes with the others.
            let _ = rustix::process::setpriority_process(None, NICE);
            let (mut filed, mut kept) = (0, 0);
            while let Ok(first) = heard.recv() {
                let mut next = Ok(first);
                while let Ok(first) = next {
                    for death in gather(first, &heard) {
                        look_into(&instance, &morgue, &witness, &death);
                        filed += 1;
                        if filed >= AT_ONCE.max(kept / 4) {
                            (filed, kept) = (0, prune(&morgue));
                        }
                    }
                    next = heard.recv_timeout(QUIET);
                }
                (filed, kept) = (0, prune(&morgue));
            }
        };
        let begun = thread::Builder::new().name("coroner".into()).stack_size(STACK).spawn(work);
        let begun = begun.inspect_err(|error| tracing::warn!("no dossiers are made of nodes that die: {error}"));
        begun.ok().map(|_| deaths)
    }
}

/// Removes what is too much; how many dossiers there were.
fn prune(morgue: &Morgue) -> usize {
    morgue.prune().unwrap_or_else(|error| {
        tracing::warn!("cannot remove old dossiers: {error}");
        0
    })
}

/// Waits until it is time to look into the first death; that, and the others of which it was told by then.
fn gather(first: Death, others: &Receiver<Death>) -> Vec<Death> {
    let latest = first.heard + LATEST;
    let mut deaths = vec![first];
    loop {
        let quiet = deaths.last().map_or(latest, |last| last.heard + PAUSE);
        // Asleep: nobody who tells of a death has to wake anybody.
        thread::sleep(quiet.min(latest).saturating_duration_since(Instant::now()));
        let before = deaths.len();
        deaths.extend(others.try_iter().take(MOST - before.min(MOST)));
        if deaths.len() == before || latest <= Instant::now() {
            return deaths;
        }
    }
}

/// Makes the dossier of one who died; should that panic, the others have theirs all the same.
fn look_into(instance: &InstanceName, morgue: &Morgue, witness: &impl Witness, death: &Death) {
    let examined = AssertUnwindSafe(|| examine(instance, morgue, witness, death));
    if catch_unwind(examined).is_err() {
        tracing::error!(node = %death.node.name, "making the dossier of process {} panicked", death.pid);
    }
}

/// Makes the dossier, files it, and files it again with whatever takes longer.
fn examine(instance: &InstanceName, morgue: &Morgue, witness: &impl Witness, death: &Death) {
    let Death { node, life, pid, exit, time, .. } = death;
    // Whoever saw it die knows more: what was filed by an earlier run of the agent stays.
    if death.start_time.is_none() && morgue.has(&dossier::id_of(&node.name, *life)) {
        return;
    }
    let mut dossier = Dossier::new(instance, node, *life, *pid, *exit, *time)
        .with_output(witness.last_output(node, *life))
        .with_given(witness.given(node, *life));
    dossier.state = death.state.to_string();
    dossier.reason = death.reason.to_string();
    dossier.unwatched = death.start_time.is_none();
    dossier.uptime_milliseconds = death.start_time.and_then(|start| uptime(start, death.heard));
    dossier.largest_resident_bytes = death.largest_resident;
    dossier.group_peak_bytes = witness.memory_peak(node, *life);
    let said = death.kernel.as_deref().map(str::to_owned);
    dossier.out_of_memory = (*exit == Exit::OutOfMemory).then(|| said.unwrap_or_else(|| exit.to_string()));
    let places = Places::default();
    let look = |dossier: &Dossier| match exit {
        Exit::Signal { number, core_dumped: true } => Some(look(&places, dossier, *number, *time)),
        _ => None,
    };
    dossier.core = look(&dossier);
    file(morgue, &dossier);
    // Whoever is handed core files may still be writing.
    let (looks, pause) = LOOKS;
    let is_to_come = |core: &Option<CoreReport>| {
        core.as_ref().is_some_and(|core| core.found.is_none() && core.by != "kernel" && !core.looked.is_empty())
    };
    for _ in 0..looks {
        if !is_to_come(&dossier.core) {
            break;
        }
        thread::sleep(pause);
        dossier.core = look(&dossier);
    }
    let core = dossier.core.as_ref().and_then(|core| Some((core.found.clone()?, core.by == "kernel")));
    let (backtrace, none) = match core {
        Some((path, true)) if morgue.rules().backtrace => {
            match backtrace::of(DEBUGGER, program(&dossier).as_deref(), &path, DEBUGGING) {
                Ok(_) if core_pid::whose(&path).is_some_and(|whose| whose != dossier.pid) => {
                    (None, Some("another process has written over the core file meanwhile".to_owned()))
                }
                Ok(backtrace) => (Some(backtrace), None),
                Err(why) => (None, Some(why)),
            }
        }
        Some((_, false)) => (None, Some("the core file is not the kernel's own: ask who keeps it".to_owned())),
        Some(_) => (None, Some("backtraces are turned off: see `crash_backtrace`".to_owned())),
        None => return,
    };
    (dossier.backtrace, dossier.no_backtrace) = (backtrace, none);
    file(morgue, &dossier);
}

fn file(morgue: &Morgue, dossier: &Dossier) {
    if let Err(error) = morgue.file(dossier) {
        tracing::warn!(node = %dossier.node, "cannot file the dossier {}: {error}", dossier.id);
    }
}

fn look(places: &Places, dossier: &Dossier, signal: i32, time: Timestamp) -> CoreReport {
    let boot = crate::supervisor::process::identity::boot_id().unwrap_or_default();
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy().into_owned();
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(time.0);
    let (pid, directory) = (dossier.pid, dossier.directory.as_path());
    core_file::look(places, &Crashed { pid, signal, directory, at, hostname: &hostname, boot: &boot })
}

/// The program that was launched, where its path says which.
fn program(dossier: &Dossier) -> Option<PathBuf> {
    let first = Path::new(dossier.command.first()?);
    match first.components().count() {
        0 => None,
        1 => None, // it was found along a path that is the node's own
        _ => Some(dossier.directory.join(first)),
    }
}

/// How long a process ran that began at that tick since boot, until the moment that its end was heard.
fn uptime(start_time: u64, heard: Instant) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = text.split(' ').next()?.parse().ok()?;
    let began = start_time as f64 / rustix::param::clock_ticks_per_second() as f64;
    let ran = now - heard.elapsed().as_secs_f64() - began;
    Some((ran.max(0.0) * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CrashRules, Role};

    /// Knows nothing, and panics if it is asked about this node.
    struct Shy(&'static str);

    impl Witness for Shy {
        fn given(&self, node: &Node, _: Life) -> Given {
            assert_ne!(node.name.as_str(), self.0, "as it was meant to");
            Given::default()
        }

        fn last_output(&self, _: &Node, _: Life) -> Output {
            Output::default()
        }

        fn memory_peak(&self, _: &Node, _: Life) -> Option<u64> {
            None
        }
    }

    fn death(name: &str) -> Death {
        let node = Node::new(NodeName::new(name).unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
        Death {
            node: Arc::new(node),
            life: Life::default(),
            pid: 1,
            start_time: None,
            exit: Exit::Status(1),
            time: Timestamp(0),
            heard: Instant::now(),
            largest_resident: None,
            kernel: None,
            state: NodeState::Pending,
            reason: Text::default(),
        }
    }

    #[test]
    fn what_was_seen_to_die_keeps_its_dossier_whoever_finds_it_dead_later() {
        let home = tempfile::tempdir().unwrap();
        let (morgue, i) = (Morgue::new(home.path().into(), CrashRules::default()), InstanceName::new("i").unwrap());
        let late = death("a");
        let seen = Death { start_time: Some(1), exit: Exit::Status(3), ..late.clone() };
        let filed = |death: &Death| {
            examine(&i, &morgue, &Shy("b"), death);
            morgue.list(None, 9).unwrap()
        };
        let poor = filed(&late);
        let rich = filed(&seen);
        assert_ne!(poor, rich, "whoever saw it knows more");
        assert_eq!(filed(&late), rich);
    }

    #[test]
    fn a_death_whose_dossier_panics_does_not_keep_the_next_from_having_one() {
        let home = tempfile::tempdir().unwrap();
        let morgue = Morgue::new(home.path().join("crashes"), CrashRules::default());
        let coroner = Coroner::new(InstanceName::new("i").unwrap(), morgue.clone());
        for name in ["a", "b"] {
            coroner.examine(death(name), || Shy("a"));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let filed = || {
            std::fs::read_dir(home.path().join("crashes")).is_ok_and(|mut all| {
                all.any(|one| one.is_ok_and(|one| one.file_name().to_string_lossy().starts_with("b.")))
            })
        };
        while !filed() {
            assert!(Instant::now() < deadline, "no dossier is made of the second");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

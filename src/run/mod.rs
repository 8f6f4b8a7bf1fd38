//! Starts and joins the actors of each mode; embedders begin here.
//!
//! [`start_controller`] and [`start_agent`] put one actor each into the present actix system, and [`join`] links two
//! that live in the same process; [`ControllerBridge`] and [`AgentBridge`] are the two ends of a TCP link. [`lab`],
//! [`controller`] and [`agent`] are the daemons: they own a state directory, listen, print where, and obey signals.

mod bridge;
mod daemon;
mod doors;
mod error;
mod init;
mod join;
mod lab;
mod service;
mod signals;
mod stray;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Addr, Context, Handler, Recipient};

use crate::agent::outbox;
use crate::agent::{Agent, AgentEvent, AgentSetup};
use crate::bridge::{EndLink, Features, LinkId, LinkRole, LinkUp, Peer};
use crate::controller::blobs::Blobs;
use crate::controller::log::volume::Directory;
use crate::controller::log::{Bounds, LogThread, Opened, Writer};
use crate::controller::state::{Reach, Rules};
use crate::controller::store::{RedbStore, Store, StoreThread};
use crate::controller::{Controller, ControllerGone, ControllerSetup, DialInstance, LogSetup};
use crate::launch::{Site, ZeekOptions};
use crate::model::{CrashRules, InstanceName, OnFailure, OutputRules, Timestamp};
use crate::plan::{Pace, PortRules};
use crate::settings::ControllerSettings;
#[cfg(doc)]
use crate::state_dir::StateDir;
use crate::supervisor::process::groups::{Groups, Place};
use crate::supervisor::process::identity;
use crate::supervisor::process::run_dir::RunDir;
use crate::trust::{CurveRoot, Registrar};

pub use bridge::{AgentBridge, ControllerBridge};
pub use daemon::{Ready, agent, controller};
pub use doors::{Daemon, settle};
pub use error::RunError;
pub use join::{JoinError, Joined, join_cluster};
pub use lab::lab;

/// What an embedded controller needs.
pub struct ControllerOptions {
    pub name: InstanceName,
    /// Where `controller.redb` and `zeromq.key` are kept; it must exist.
    pub directory: PathBuf,
    pub ports: PortRules,
    /// How long a client waits for a plain answer.
    pub request_timeout: std::time::Duration,
    /// How many nodes of each role a deployment has down at a time, and what becomes of one that fails.
    pub pace: Pace,
    pub on_failure: OnFailure,
    /// Where the log of all news is kept.
    pub log: LogOptions,
    /// Dials instances that wait to be dialled, such as [`ControllerBridge`] does.
    pub dialler: Option<Recipient<DialInstance>>,
    /// Whether that may dial beyond this machine: links have certificates, or somebody has admitted what it means that they
    /// have none.
    pub dials_beyond: bool,
    /// Hears that the controller is gone.
    pub host: Option<Recipient<ControllerGone>>,
    /// Decides who gets a certificate; `None`: nobody does.
    pub registrar: Option<Arc<Registrar>>,
}

/// Where a controller keeps its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOptions {
    /// In memory: the last entries, so many. A controller that is started again begins another.
    Memory { entries: usize },
    /// In this directory, which is made if its parent exists: the log goes on whenever a controller is started again.
    Disk { directory: PathBuf, bounds: Bounds },
}

impl ControllerOptions {
    /// The given name and directory, and the default of everything else. The log is kept in `log` in that directory.
    pub fn new(name: InstanceName, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let log = LogOptions::Disk { directory: directory.join("log"), bounds: Bounds::default() };
        Self {
            name,
            directory,
            ports: PortRules::default(),
            request_timeout: std::time::Duration::from_secs(10),
            pace: Pace::default(),
            on_failure: OnFailure::default(),
            log,
            dialler: None,
            dials_beyond: false,
            host: None,
            registrar: None,
        }
    }

    fn of(settings: &ControllerSettings, directory: &Path) -> Result<Self, RunError> {
        let name = InstanceName::new(&settings.name)?;
        let (ports, request_timeout) = (settings.port_rules(), settings.request_timeout);
        let bounds = Bounds::new(settings.log_max_age, settings.log_max_bytes);
        let log = LogOptions::Disk { directory: directory.join("log"), bounds };
        let (pace, on_failure) = (settings.max_unavailable, settings.on_failure);
        Ok(Self { ports, request_timeout, pace, on_failure, log, ..Self::new(name, directory) })
    }
}

/// Starts a controller in the present actix system. It takes up what it had deployed before.
pub fn start_controller(options: ControllerOptions) -> Result<Addr<Controller>, RunError> {
    let ControllerOptions { name, directory, ports, request_timeout, pace, on_failure, log, host, registrar, .. } =
        options;
    let (dialler, dials_beyond) = (options.dialler, options.dials_beyond);
    let store = RedbStore::open(&directory)?;
    let stored = store.load()?;
    let store = StoreThread::start(store)?;
    let (epoch, on_disk) = (new_epoch()?, matches!(log, LogOptions::Disk { .. }));
    let keys = CurveRoot::kept_in(&directory)?;
    let dials = match &dialler {
        None => Reach::Nowhere,
        Some(_) if dials_beyond => Reach::Anywhere,
        Some(_) => Reach::Here,
    };
    let rules = Rules { name, ports, dials, request_timeout, epoch, pace, on_failure, on_disk, keys };
    let log = open_log(log, epoch)?;
    let blobs = Some(Blobs::open(&directory.join("blobs"))?);
    Ok(Controller::launch(ControllerSetup { rules, stored, store, log, dialler, host, registrar, blobs }))
}

/// Opens the log; `epoch` names what is told from now on, unless an epoch of the log goes on.
fn open_log(options: LogOptions, epoch: u64) -> Result<LogSetup, RunError> {
    Ok(match options {
        LogOptions::Memory { entries } => LogSetup::Memory { epoch, entries },
        LogOptions::Disk { directory, bounds } => {
            let opened = Writer::open(Directory::open(&directory)?, bounds, epoch, Timestamp::now())?;
            let Opened { writer, pending, epochs, last, recalled } = opened;
            let (thread, told) = LogThread::start(writer, pending)?;
            LogSetup::Disk { thread, told, epochs, last, recalled }
        }
    })
}

/// What an embedded agent needs.
pub struct AgentOptions {
    pub instance: InstanceName,
    /// Marks the processes of this cluster.
    pub cluster: String,
    /// Holds a directory per node; it is made if it does not exist.
    pub nodes: PathBuf,
    /// Where the logs of Zeek nodes go unless a configuration says otherwise; it is made once there are any.
    pub logs: PathBuf,
    /// The descriptor limit (soft, hard) that nodes get; `None` for that of this process.
    pub descriptors: Option<(u64, u64)>,
    /// Where nodes have control groups.
    pub groups: Place,
    /// Zeek's program, or the prefix of its installation; `None`: it is looked for in PATH and the usual places.
    pub zeek: Option<PathBuf>,
    /// Where the sockets are on which nodes say how they are; `None`: where such things usually are.
    pub run_dir: Option<PathBuf>,
    /// How much of its nodes' output is kept.
    pub output: OutputRules,
    /// How much is kept of nodes that died unasked.
    pub crashes: CrashRules,
    pub bounds: outbox::Bounds,
    /// Names what this process has locked, so that no other agent can have it: see [`StateDir::place`]. 0 if nothing is.
    pub place: u64,
    /// Hears what the host has to know.
    pub host: Option<Recipient<AgentEvent>>,
}

impl AgentOptions {
    /// The given instance and directory, and the default of everything else.
    pub fn new(instance: InstanceName, nodes: impl Into<PathBuf>) -> Self {
        let (cluster, bounds) = ("watchpost".into(), outbox::Bounds::default());
        let (nodes, groups): (PathBuf, _) = (nodes.into(), Place::default());
        Self {
            instance,
            cluster,
            logs: nodes.join(".logs"),
            nodes,
            descriptors: None,
            groups,
            run_dir: None,
            zeek: None,
            output: OutputRules::default(),
            crashes: CrashRules::default(),
            bounds,
            place: 0,
            host: None,
        }
    }
}

/// Starts an agent in the present actix system. It takes up the nodes that an earlier one left running.
pub fn start_agent(options: AgentOptions) -> Result<Addr<Agent>, RunError> {
    start_agent_among(options).map(|(agent, _)| agent)
}

/// The same; with it comes whether its nodes have control groups outside of that of this process.
fn start_agent_among(options: AgentOptions) -> Result<(Addr<Agent>, bool), RunError> {
    let AgentOptions {
        instance,
        cluster,
        nodes,
        logs,
        descriptors,
        groups,
        run_dir,
        zeek,
        output,
        crashes,
        bounds,
        place,
        host,
    } = options;
    // Nodes may run as other users.
    DirBuilder::new().recursive(true).mode(0o711).create(&nodes)?;
    let (nodes, logs) = (std::path::absolute(nodes)?, std::path::absolute(logs)?);
    // A variable that is not text cannot be named in a node's definition either: it stays here.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    // What let this machine in is no node's business.
    let environment = environment.filter(|(name, _)| name != "WATCHPOST_JOIN_TOKEN");
    let groups = Groups::open(&groups, &cluster, &nodes);
    match &groups {
        Ok(groups) => groups.lacking().values().for_each(|why| tracing::debug!("nodes cannot be limited: {why}")),
        Err(why) => {
            tracing::info!("nodes have no control groups, so their processes are known by session and marker: {why}")
        }
    }
    let apart = groups.as_ref().is_ok_and(Groups::is_outside_ours);
    let run_dir = run_dir.map(std::path::absolute).transpose()?;
    let run_dir = RunDir::open(run_dir.as_deref(), &nodes).map_err(|why| why.to_string());
    if let Err(why) = &run_dir {
        tracing::warn!("nodes cannot say how they are, and those that are to do not start: {why}");
    }
    let directory = identity::place(&nodes)?;
    let site = Site::new(cluster, nodes, directory, environment, descriptors, ZeekOptions::new(&instance, zeek));
    let run = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let epoch = new_epoch()?;
    let setup = AgentSetup { instance, epoch, run, place, site, logs, groups, run_dir, output, crashes, bounds, host };
    Ok((Agent::launch(setup)?, apart))
}

/// Links a controller and an agent that live in the same process: each holds the other's mailbox, and cannot tell it
/// from a bridge.
pub fn join(controller: &Addr<Controller>, agent: &Addr<Agent>, instance: &InstanceName) {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63); // apart from the numbers of bridges
    let link = LinkId(NEXT.fetch_add(1, Ordering::Relaxed));
    let neighbour = Neighbour.start();
    let peer = |name: &str, role| {
        let features = Features::of(role);
        Peer { name: name.into(), host: None, dialled: None, features, certificate: None }
    };
    let end = || neighbour.clone().recipient();
    let (below, above) = (peer(instance.as_str(), LinkRole::Agent), peer("controller", LinkRole::Controller));
    controller.do_send(LinkUp { link, peer: below, out: agent.clone().recipient(), end: end() });
    agent.do_send(LinkUp { link, peer: above, out: controller.clone().recipient(), end: end() });
}

/// Stands where a link inside one process would be ended: there is nothing to end, and the reason is logged.
struct Neighbour;

impl Actor for Neighbour {
    type Context = Context<Self>;
}

impl Handler<EndLink> for Neighbour {
    type Result = ();

    fn handle(&mut self, EndLink { reason, .. }: EndLink, _: &mut Context<Self>) {
        tracing::warn!("the controller and its neighbour want to part: {reason}");
    }
}

/// A number that no earlier run had, by chance.
fn new_epoch() -> io::Result<u64> {
    // Half of the numbers, so that they are short to read where they are printed.
    getrandom::u32().map(u64::from).map_err(|error| io::Error::other(error.to_string()))
}

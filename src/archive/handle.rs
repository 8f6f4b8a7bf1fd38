//! The handle by which an agent has the archive work.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::clerk::Clerk;
use super::queue::rescue;
use super::roll::Order;
use crate::model::{InstanceName, NodeName};

/// What an archive needs to open.
pub struct Opening {
    /// Holds a directory per node, and what is kept for the next run.
    pub nodes: PathBuf,
    pub instance: InstanceName,
    /// Where logs go unless the configuration says otherwise.
    pub usual: PathBuf,
    /// What the command of an archive inherits.
    pub environment: BTreeMap<String, String>,
    /// Who runs already.
    pub up: BTreeSet<NodeName>,
}

/// Something that people are to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub node: Option<NodeName>,
    pub msg: String,
    /// Whether it is to be mended.
    pub is_error: bool,
}

/// Cheap to clone; the thread ends when the last clone is gone.
#[derive(Clone)]
pub struct Archive {
    shared: Arc<Shared>,
    _alive: Arc<Alive>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

/// What handles and the thread share.
pub(super) struct Shared {
    /// Whose logs are being written. Held while logs that a life has left are moved away, so that no next life begins
    /// meanwhile.
    pub(super) up: Mutex<BTreeSet<NodeName>>,
    pub(super) wants: Mutex<Vec<Want>>,
    pub(super) wake: OwnedFd,
}

/// What is asked of the thread.
pub(super) enum Want {
    Order(Order),
    /// Something may have happened to this node's directory.
    Look(NodeName),
    Tell(Box<dyn Fn(News) + Send>),
    End,
}

/// Ends the thread when the last handle is gone.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.want(Want::End);
    }
}

impl Archive {
    /// Starts the thread, which goes on where an earlier run of the agent ended.
    pub fn open(opening: Opening) -> io::Result<Self> {
        let Opening { nodes, instance, usual, environment, up } = opening;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { up: Mutex::new(up), wants: Mutex::default(), wake });
        let mut clerk = Clerk::new(Arc::clone(&shared), nodes, instance, usual, environment);
        thread::Builder::new().name("archive".into()).spawn(move || {
            clerk.go_on();
            clerk.work();
        })?;
        Ok(Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared })
    }

    /// Has news told so, also what there was before.
    pub fn tell(&self, tell: impl Fn(News) + Send + 'static) {
        self.shared.want(Want::Tell(Box::new(tell)));
    }

    /// A configuration is in force that says this. Nodes that are not in it are minded as long as they have logs.
    pub fn order(&self, order: Order) {
        self.shared.want(Want::Order(order));
    }

    /// Moves the logs into the queue that the last life of a node has left in its working directory: the next one, which
    /// may begin once this returns, would write over them.
    pub fn before_life(&self, node: &NodeName, home: &Path, is_own: bool) -> io::Result<()> {
        let mut up = self.shared.up();
        if rescue(home, is_own)? > 0 {
            self.shared.want(Want::Look(node.clone()));
        }
        up.insert(node.clone());
        Ok(())
    }

    /// The node has a process, and a working directory therefore.
    pub fn is_up(&self, node: &NodeName) {
        self.shared.want(Want::Look(node.clone()));
    }

    /// The node has no process any more.
    pub fn is_down(&self, node: &NodeName) {
        self.shared.up().remove(node);
        self.shared.want(Want::Look(node.clone()));
    }
}

impl Shared {
    pub(super) fn up(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, want: Want) {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).push(want);
        // One that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

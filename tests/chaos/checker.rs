//! Looks at /proc all the time: never two living processes of one node, and every life that was seen is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use crate::common::processes;

/// A life of a node that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub node: String,
    pub life: String,
    pub pid: u32,
    pub started: u64,
}

pub struct Checker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    looks: AtomicU64,
    seen: Mutex<BTreeSet<Seen>>,
    wrong: Mutex<Vec<String>>,
}

impl Checker {
    /// Looks from now on for what carries the marker of this cluster.
    pub fn start(cluster: &str) -> Self {
        Self::start_at(cluster, Duration::from_millis(3))
    }

    /// The same with so long between two looks.
    pub fn start_at(cluster: &str, pace: Duration) -> Self {
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            seen: Mutex::default(),
            wrong: Mutex::default(),
        });
        let (own, prefix) = (Arc::clone(&shared), format!("WATCHPOST_NODE={cluster}/"));
        let thread = spawn(move || {
            while !own.ends.load(Ordering::Relaxed) {
                own.look(&prefix);
                own.looks.fetch_add(1, Ordering::Relaxed);
                sleep(pace);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Every life that was seen so far. Panics if anything wrong was.
    pub fn seen(&self) -> BTreeSet<Seen> {
        assert_eq!(*self.shared.wrong.lock().unwrap(), [] as [String; 0]);
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn look(&self, prefix: &str) {
        let mut lives: BTreeMap<String, Seen> = BTreeMap::new();
        for seen in living(prefix) {
            if let Some(other) = lives.get(&seen.node).filter(|other| other.life != seen.life) {
                // Both at once only if the first lives after the second was seen alive.
                let both = processes::is_alive(other.pid) && processes::born(other.pid) == Some(other.started);
                if both {
                    self.wrong.lock().unwrap().push(format!("two lives at once: {other:?} and {seen:?}"));
                }
            }
            lives.insert(seen.node.clone(), seen);
        }
        self.seen.lock().unwrap().extend(lives.into_values());
    }
}

/// The living processes whose marker begins like this, as each is seen.
pub fn living(prefix: &str) -> impl Iterator<Item = Seen> {
    processes::all().filter_map(move |pid| {
        let started = processes::born(pid)?;
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let marked = environment.split(|byte| *byte == 0).find(|variable| variable.starts_with(prefix.as_bytes()))?;
        let marker = std::str::from_utf8(&marked[prefix.len()..]).ok()?;
        let (node, life) = marker.split_once('/')?;
        let seen = Seen { node: node.to_owned(), life: life.to_owned(), pid, started };
        (processes::is_alive(pid) && processes::born(pid) == Some(started)).then_some(seen)
    })
}

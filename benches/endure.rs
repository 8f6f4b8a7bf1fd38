//! Ten thousand times the given factor a node is killed and comes back: nothing is lost or out of order, no zombie stays,
//! and the agent takes no more descriptors and hardly more memory than before.
//!
//! `cargo bench --bench endure -- 10` is the hundred thousand of docs/performance.md.
//!
//! The GNU C library keeps a few pieces of each size for each thread, and counts them as in use: they fill up over tens of
//! thousands of lives. Here it keeps none, so that what is in use is what somebody holds.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use common::cluster::{Cluster, Place, be_an_agent_if_asked};
use common::figures::{Sample, options};
use common::nursery::Nursery;
use rustix::process::{Pid, Signal, kill_process};
use watchpost::model::{Exit, NodeName, NodeState};

const NODES: usize = 500;
const STORMS: usize = 20;
const FIFTHS: usize = 5;
/// What may be added to what the agent had in use after a fifth, in percent.
const GROWTH: f64 = 2.0;
/// So long after a storm there is rest: memory was given back, and the threads that it added are gone.
const REST: Duration = Duration::from_secs(15);

fn main() {
    be_an_agent_if_asked();
    let Some(options) = options() else { return };
    let mut nursery = Nursery::new();
    let mut cluster = Cluster::start(&nursery, Place::Weighed);
    cluster.deploy(&nursery, 0, NODES);
    nursery.births(NODES);
    let mut watch = Watch::default();
    watch.until_all_run(&cluster, NODES);
    let storms = STORMS * options.factor;
    let (mut own, mut all, mut at_rest) = (Vec::new(), Vec::new(), Vec::new());
    for storm in 0..storms {
        own.push(memory(cluster.agent(), OWN));
        all.push(memory(cluster.agent(), ALL));
        for pid in watch.pids.values() {
            let pid = Pid::from_raw(i32::try_from(*pid).expect("a pid")).expect("a pid");
            kill_process(pid, Signal::KILL).expect("it runs");
        }
        watch.running = 0;
        watch.until_all_run(&cluster, NODES);
        nursery.births(NODES);
        if (storm + 1) % (storms / FIFTHS) == 0 {
            std::thread::sleep(REST);
            at_rest.push(Taken::by(&mut cluster));
        }
    }
    let (Some(early), Some(late)) = (at_rest.first(), at_rest.last()) else { panic!("there was rest") };
    println!("{} lives ended and came back; {} changes, each once and in order", storms * NODES, watch.changes);
    println!("  zombies: {}, descriptors: {} then {}", late.zombies, early.descriptors, late.descriptors);
    println!("  of its heap in use at rest after each fifth, KiB, and more than after the first, goal {GROWTH} %");
    show(at_rest.iter().map(|taken| taken.heap).collect());
    // What is free, and what of it goes back to the system, is the allocator's business; pages of the program are the kernel's.
    println!("  memory of its own at rest after each fifth, KiB");
    show(at_rest.iter().map(|taken| taken.own).collect());
    println!("  the same at once after a storm, the median of each tenth");
    show(own.chunks(storms / 10).map(|tenth| tenth.iter().copied().collect::<Sample>().median()).collect());
    println!("  the same with its share of what is shared");
    show(all.chunks(storms / 10).map(|tenth| tenth.iter().copied().collect::<Sample>().median()).collect());
    assert_eq!((late.zombies, late.descriptors), (0, early.descriptors));
}

fn show(each: Vec<f64>) {
    let growth = |figure: &f64| 100.0 * (figure / each[0] - 1.0);
    let figures = each.iter().map(|figure| format!("{figure:.0} ({:+.1} %)", growth(figure)));
    println!("    {}", figures.collect::<Vec<_>>().join(", "));
}

/// What the observer was told.
#[derive(Default)]
struct Watch {
    pids: BTreeMap<NodeName, u32>,
    state: BTreeMap<NodeName, NodeState>,
    running: usize,
    changes: u64,
    last: u64,
}

impl Watch {
    /// Reads changes until so many came to RUNNING; panics where one is missing, doubled or out of order.
    fn until_all_run(&mut self, cluster: &Cluster, count: usize) {
        while self.running < count {
            let change = cluster.change().change;
            assert!(self.last == 0 || change.seq == self.last + 1, "{} follows {}", change.seq, self.last);
            (self.last, self.changes) = (change.seq, self.changes + 1);
            let former = self.state.insert(change.node.clone(), change.new).unwrap_or(NodeState::Stopped);
            assert_eq!(change.old, former, "{}", change.node);
            match change.new {
                NodeState::Crashed => {
                    let killed = Some(Exit::Signal { number: 9, core_dumped: false });
                    assert_eq!((change.pid, change.exit), (self.pids.get(&change.node).copied(), killed));
                }
                NodeState::Pending => drop(self.pids.insert(change.node, change.pid.expect("a pid"))),
                NodeState::Running => self.running += 1,
                other => panic!("{} is {other:?}", change.node),
            }
        }
    }
}

/// What the agent takes of the machine.
struct Taken {
    zombies: usize,
    descriptors: usize,
    /// In KiB.
    heap: f64,
    own: f64,
}

const OWN: &str = "Pss_Anon:";
/// With its share of what is shared, such as the program.
const ALL: &str = "Pss:";

/// That line of what a process takes, in KiB.
fn memory(pid: u32, what: &str) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process of ours");
    let memory = rollup.lines().find_map(|line| line.strip_prefix(what)).expect("its memory");
    memory.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Taken {
    fn by(cluster: &mut Cluster) -> Self {
        let (pid, heap) = (cluster.agent(), cluster.heap_of_agent() as f64 / 1024.0);
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").count();
        let is_zombie = |stat: &String| {
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.starts_with('Z') && rest.split(' ').nth(1) == Some(&pid.to_string())
        };
        let all = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let stats = all.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let zombies = stats.filter(is_zombie).count();
        Self { zombies, descriptors, heap, own: memory(pid, OWN) }
    }
}

//! Ten thousand times the given factor a node is killed and comes back: nothing is lost or out of order, no zombie stays,
//! and the agent takes no more descriptors and hardly more memory than before.
//!
//! `cargo bench --bench endure -- 10` is the hundred thousand of docs/performance.md.

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
/// What may be added to what the agent had after two tenths, in percent.
const GROWTH: f64 = 2.0;
/// So long after a storm there is rest: memory was given back, and the threads that it added are gone.
const REST: Duration = Duration::from_secs(15);

fn main() {
    be_an_agent_if_asked();
    let Some(options) = options() else { return };
    let mut nursery = Nursery::new();
    let mut cluster = Cluster::start(&nursery, Place::Remote);
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
        if [storms / 5, storms].contains(&(storm + 1)) {
            std::thread::sleep(REST);
            at_rest.push(Taken::by(cluster.agent()));
        }
    }
    let [early, late] = &at_rest[..] else { panic!("rest came twice") };
    println!("{} lives ended and came back; {} changes, each once and in order", storms * NODES, watch.changes);
    println!("  zombies: {}, descriptors: {} then {}", late.zombies, early.descriptors, late.descriptors);
    println!("  memory, KiB, at rest after a fifth and in the end");
    for (what, early, late, goal) in
        [("of its own", early.own, late.own, Some(GROWTH)), ("of all", early.all, late.all, None)]
    {
        let goal = goal.map_or(String::new(), |goal| format!(", goal {goal} %"));
        println!("    {what}: {early} and {late}, {:+.2} %{goal}", 100.0 * (late / early - 1.0));
    }
    println!("  the same at once after a storm, the median of each tenth");
    // How many pages of the program are there is the kernel's business, and with whom they are shared.
    for (what, each) in [("of its own", own), ("of all", all)] {
        let tenths = each.chunks(storms / 10).map(|tenth| tenth.iter().copied().collect::<Sample>().median());
        println!("    {what}: {}", tenths.map(|median| format!("{median:.0}")).collect::<Vec<_>>().join(" "));
    }
    assert_eq!((late.zombies, late.descriptors), (0, early.descriptors));
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

/// What a process takes of the machine.
struct Taken {
    zombies: usize,
    descriptors: usize,
    /// In KiB.
    own: f64,
    all: f64,
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
    fn by(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").count();
        let is_zombie = |stat: &String| {
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.starts_with('Z') && rest.split(' ').nth(1) == Some(&pid.to_string())
        };
        let all = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let stats = all.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let zombies = stats.filter(is_zombie).count();
        Self { zombies, descriptors, own: memory(pid, OWN), all: memory(pid, ALL) }
    }
}

//! Memory of the real daemons: alone, and for each further node.
//!
//! PSS, so that the pages of the program that both daemons map count once. First both with real nodes, at once after a
//! deployment and when they have come to rest, which is what stays. Then the controller alone, with an agent that only
//! says that its nodes run: so there can be many, and what a node takes stands out from what the process does.

mod common;

use std::time::Duration;

use common::daemons::{Controller, Daemons};
use common::figures::{Sample, line, options};
use common::nursery::Nursery;
use common::stand_in::StandIn;

const COUNTS: [usize; 3] = [0, 100, 1000];
const TRACKED: [usize; 3] = [1000, 5000, 20_000];
const ROUNDS: usize = 3;
/// By then links have let go of their buffers, and daemons of what they do not need any more.
const REST: Duration = Duration::from_secs(8);

/// Bytes.
const AGENT_GOAL: f64 = 4.0 * 1024.0 * 1024.0;
const AGENT_NODE_GOAL: f64 = 2.5 * 1024.0;
const CONTROLLER_NODE_GOAL: f64 = 512.0;

/// Of one daemon: at once and at rest, with each number of nodes.
type Memory = [[Sample; 3]; 2];

fn main() {
    let Some(options) = options() else { return };
    let [mut agent, mut controller, mut alone] = [(); 3].map(|()| Memory::default());
    for _ in 0..ROUNDS * options.factor {
        both(&mut agent, &mut controller);
        by_itself(&mut alone);
    }
    print("agent", COUNTS, &agent);
    for (count, memory) in COUNTS.into_iter().zip(&agent[1]) {
        let goal = AGENT_GOAL + AGENT_NODE_GOAL * count as f64;
        line(&format!("{count} nodes, of what they may take"), "", Some((&memory.scaled(1.0 / goal), Some(1.0))));
    }
    print("controller", COUNTS, &controller);
    of_the_goal(slope(COUNTS, 1, 2, &controller[1]));
    print("controller, nodes that are only said to run", TRACKED, &alone);
    for (from, to) in [(0, 1), (1, 2)] {
        println!("  from {} to {} nodes", TRACKED[from], TRACKED[to]);
        of_the_goal(slope(TRACKED, from, to, &alone[1]));
    }
}

fn both(agent: &mut Memory, controller: &mut Memory) {
    let mut nursery = Nursery::new();
    let daemons = Daemons::start(&nursery);
    let mut before = 0;
    for (at, count) in COUNTS.into_iter().enumerate() {
        daemons.deploy(&nursery, count);
        nursery.births(count - before); // what is the same in both stays
        before = count;
        for moment in 0..2 {
            agent[moment][at].add(daemons.agent.memory());
            controller[moment][at].add(daemons.controller.daemon.memory());
            std::thread::sleep(if moment == 0 { REST } else { Duration::ZERO });
        }
    }
}

fn by_itself(memory: &mut Memory) {
    let nursery = Nursery::new();
    let controller = Controller::start(&nursery);
    let _agent = StandIn::start(controller.agents);
    for (at, count) in TRACKED.into_iter().enumerate() {
        controller.deploy(&nursery, count);
        memory[0][at].add(controller.daemon.memory());
        std::thread::sleep(REST);
        memory[1][at].add(controller.daemon.memory());
    }
}

fn print(what: &str, counts: [usize; 3], memory: &Memory) {
    println!("{what}: median (least to most)");
    for (moment, memory) in ["at once", "at rest"].into_iter().zip(memory) {
        for (count, memory) in counts.into_iter().zip(memory) {
            line(&format!("with {count} nodes, {moment}, MiB"), memory.scaled(1.0 / f64::from(1 << 20)), None);
        }
        line(&format!("each further node, {moment}, bytes"), slope(counts, 1, 2, memory), None);
    }
}

fn of_the_goal(slope: Sample) {
    let each = slope.scaled(1.0 / CONTROLLER_NODE_GOAL);
    line("a node at rest, bytes, of what it may take", slope, Some((&each, Some(1.0))));
}

/// From one count to another, in bytes a node.
fn slope(counts: [usize; 3], from: usize, to: usize, memory: &[Sample; 3]) -> Sample {
    memory[to].minus(&memory[from]).scaled(1.0 / (counts[to] - counts[from]) as f64)
}

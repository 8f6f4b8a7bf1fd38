//! Memory of the real daemons: alone, and for each further node.
//!
//! PSS, so that the pages of the program that both daemons map count once.

mod common;

use common::daemons::Daemons;
use common::figures::{Sample, line, options};
use common::nursery::Nursery;

const COUNTS: [usize; 3] = [0, 100, 1000];
const ROUNDS: usize = 3;

/// Bytes.
const AGENT_GOAL: f64 = 4.0 * 1024.0 * 1024.0;
const AGENT_NODE_GOAL: f64 = 2.5 * 1024.0;
const CONTROLLER_NODE_GOAL: f64 = 512.0;

fn main() {
    let Some(options) = options() else { return };
    let [mut agent, mut controller] = [(); 2].map(|()| COUNTS.map(|_| Sample::default()));
    for _ in 0..ROUNDS * options.factor {
        let mut nursery = Nursery::new();
        let daemons = Daemons::start(&nursery);
        let mut before = 0;
        for (at, count) in COUNTS.into_iter().enumerate() {
            daemons.deploy(&nursery, count);
            nursery.births(count - before); // what is the same in both stays
            before = count;
            agent[at].add(daemons.agent.memory());
            controller[at].add(daemons.controller.memory());
        }
    }
    print("agent", &agent);
    for (count, memory) in COUNTS.into_iter().zip(&agent) {
        let goal = AGENT_GOAL + AGENT_NODE_GOAL * count as f64;
        line(&format!("{count} nodes, of what they may take"), "", Some((&memory.scaled(1.0 / goal), Some(1.0))));
    }
    print("controller", &controller);
    let each = slope(&controller).scaled(1.0 / CONTROLLER_NODE_GOAL);
    line("a node, of what it may take", "", Some((&each, Some(1.0))));
}

fn print(what: &str, memory: &[Sample; 3]) {
    println!("{what}: median (least to most)");
    for (count, memory) in COUNTS.into_iter().zip(memory) {
        line(&format!("with {count} nodes, MiB"), memory.scaled(1.0 / f64::from(1 << 20)), None);
    }
    line("each further node, bytes", slope(memory), None);
}

/// From the second count to the third, in bytes a node.
fn slope([_, few, many]: &[Sample; 3]) -> Sample {
    many.minus(few).scaled(1.0 / (COUNTS[2] - COUNTS[1]) as f64)
}

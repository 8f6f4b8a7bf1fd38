//! Memory of the real daemons: alone, and for each further node.
//!
//! PSS, so that the pages of the program that both daemons map count once.

mod common;

use common::daemons::Daemons;
use common::figures::{Sample, line, options};
use common::nursery::Nursery;

const COUNTS: [usize; 3] = [0, 100, 1000];
const ROUNDS: usize = 3;

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
    print("agent", &agent, 4.0, 2560.0);
    print("controller", &controller, f64::NAN, 512.0);
}

fn print(what: &str, memory: &[Sample; 3], base: f64, slope: f64) {
    println!("{what}: median (least to most)");
    for (count, memory) in COUNTS.into_iter().zip(memory) {
        line(&format!("with {count} nodes, MiB"), memory.scaled(1.0 / f64::from(1 << 20)), None);
    }
    let [_, few, many] = memory;
    let each = many.minus(few).scaled(1.0 / (COUNTS[2] - COUNTS[1]) as f64);
    line("each further node, bytes", &each, Some((&each.scaled(1.0 / slope), Some(1.0))));
    if base.is_finite() {
        let ratio = memory[0].scaled(1.0 / base / f64::from(1 << 20));
        line(&format!("without nodes, of {base} MiB"), "", Some((&ratio, Some(1.0))));
    }
}

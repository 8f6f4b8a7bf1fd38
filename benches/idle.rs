//! How often idle daemons wake up, with heartbeats on: voluntary context switches of all threads, per minute.
//!
//! A heartbeat wakes the side that hears it once, and the side that says it twice: the runtime's timer wheel rounds a
//! longer time down first, and then waits for the rest. That both can be done in one wake-up is not counted in.

mod common;

use std::time::Duration;

use common::daemons::Daemons;
use common::figures::options;
use common::nursery::Nursery;

const NODES: usize = 100;
/// Everything that starting brought about is over by then.
const SETTLE: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(30);
/// The default of the setting.
const HEARTBEAT: Duration = Duration::from_secs(2);

fn main() {
    let Some(options) = options() else { return };
    let mut nursery = Nursery::new();
    let daemons = Daemons::start(&nursery);
    daemons.deploy(&nursery, NODES);
    nursery.births(NODES);
    std::thread::sleep(SETTLE);
    let both = [("agent", &daemons.agent), ("controller", &daemons.controller.daemon)];
    let before = both.map(|(_, daemon)| daemon.sleeps());
    let time = MEASURE * options.factor as u32;
    std::thread::sleep(time);
    let minutes = time.as_secs_f64() / 60.0;
    let explained = 3.0 * 60.0 / HEARTBEAT.as_secs_f64();
    println!("idle with {NODES} nodes, over {} s: wake-ups a minute", time.as_secs());
    for ((what, daemon), before) in both.into_iter().zip(before) {
        let rate = (daemon.sleeps() - before) as f64 / minutes;
        let ratio = rate / explained;
        println!(
            "  {what:<12} {rate:>8.1} in {} threads   {ratio:.2} of what heartbeats explain, goal 1",
            daemon.threads()
        );
    }
}

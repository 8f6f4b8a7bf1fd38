//! Starting and stopping N nodes of one role.
//!
//! Started: from the request at the controller to the last child's own stamp, taken first thing after exec. Stopped:
//! from the request to the answer, which comes when all are gone. The floor has the kernel do the same: a directory,
//! two output files, a record and a session per child. Beside it there are the same with a control group for each, as
//! nodes have one where the machine lets us, and `posix_spawn` alone.

mod common;

use common::cluster::{Cluster, Place, be_an_agent_if_asked};
use common::figures::{Sample, line, now, options};
use common::floor::{Care, Floor};
use common::nursery::Nursery;

const START_GOAL: f64 = 1.25;
const STOP_GOAL: f64 = 1.5;

#[derive(Default)]
struct Figures {
    started: Sample,
    stopped: Sample,
}

fn main() {
    be_an_agent_if_asked();
    let Some(options) = options() else { return };
    let mut nursery = Nursery::new();
    println!("a child alone: {:.2} ms from before posix_spawn to its stamp", alone(&mut nursery));
    for (count, times) in [(10, 15), (100, 9), (1000, 5)] {
        let [mut bare, mut floor, mut grouped, mut watchpost] = [(); 4].map(|()| Figures::default());
        for _ in 0..times * options.factor {
            measure_floor(&mut nursery, count, Care::Bare, &mut bare);
            measure_floor(&mut nursery, count, Care::Full, &mut floor);
            measure_floor(&mut nursery, count, Care::Grouped, &mut grouped);
            measure_watchpost(&mut nursery, count, &mut watchpost);
        }
        println!("{count} nodes, ms: median (least to most)");
        line("start: posix_spawn alone", &bare.started, Some((&bare.started.over(&floor.started), None)));
        line("start: floor", &floor.started, None);
        line("start: floor with groups", &grouped.started, Some((&grouped.started.over(&floor.started), None)));
        let ratio = watchpost.started.over(&floor.started);
        line("start: watchpost", &watchpost.started, Some((&ratio, Some(START_GOAL))));
        let ratio = watchpost.started.over(&grouped.started);
        line("start: watchpost, of the floor with groups", &watchpost.started, Some((&ratio, None)));
        line("stop: floor", &floor.stopped, None);
        let ratio = watchpost.stopped.over(&floor.stopped);
        line("stop: watchpost", &watchpost.stopped, Some((&ratio, Some(STOP_GOAL))));
    }
}

/// The median of many, in milliseconds.
fn alone(nursery: &mut Nursery) -> f64 {
    let one = |nursery: &mut Nursery| {
        let mut floor = Floor::new(nursery.directory(), 0, 1, Care::Bare);
        let began = now();
        floor.start(0);
        milliseconds(nursery.births(1)[0].at - began)
    };
    (0..50).map(|_| one(nursery)).collect::<Sample>().median()
}

fn measure_floor(nursery: &mut Nursery, count: usize, care: Care, figures: &mut Figures) {
    let mut floor = Floor::new(nursery.directory(), 0, count, care);
    let began = now();
    floor.start_all();
    figures.started.add(milliseconds(last_birth(nursery, count) - began));
    let began = now();
    floor.stop_all();
    figures.stopped.add(milliseconds(now() - began));
}

fn measure_watchpost(nursery: &mut Nursery, count: usize, figures: &mut Figures) {
    let mut cluster = Cluster::start(nursery, Place::Beside);
    let began = cluster.deploy(nursery, 0, count);
    figures.started.add(milliseconds(last_birth(nursery, count) - began));
    figures.stopped.add(milliseconds(cluster.stop_all()));
}

fn last_birth(nursery: &mut Nursery, count: usize) -> u64 {
    nursery.births(count).iter().map(|stamp| stamp.at).max().unwrap_or_default()
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

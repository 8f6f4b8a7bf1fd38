//! From SIGKILL of a node to its `notify_change` at an observer of the controller, and to the next process.
//!
//! One at a time, of a hundred and of a thousand: beside the controller against a bare wait on a pidfd, and behind a
//! bridge, with the agent in another process, against the same wait and one frame over TCP. Then a thousand at once: until
//! all are told, against the time in which the floor stops as many, and until all are back, against two threads that do
//! nothing else.

mod common;

use common::cluster::{Cluster, Place, be_an_agent_if_asked};
use common::figures::{Sample, line, now, options};
use common::floor::{Care, Floor};
use common::keeper::{Keeper, Told};
use common::nursery::Nursery;
use rustix::process::{Pid, Signal, kill_process};
use watchpost::model::NodeState;

const P50_GOAL: f64 = 1.2;
const P99_GOAL: f64 = 1.5;
const ALL_TOLD_GOAL: f64 = 2.5;
const ALL_BACK_GOAL: f64 = 1.15;

/// One at a time: so many nodes, and in how many rounds of so many kills.
const ALONE: [(usize, usize); 2] = [(100, 10), (1000, 3)];
const KILLS: usize = 200;

/// All at once.
const MANY: usize = 1000;
const STORMS: usize = 5;

fn main() {
    be_an_agent_if_asked();
    let Some(options) = options() else { return };
    for (nodes, rounds) in ALONE {
        one_at_a_time("in one process", nodes, Place::Beside, Told::Itself, rounds * options.factor);
        one_at_a_time("over the bridge", nodes, Place::Remote, Told::OverTcp, rounds * options.factor);
    }
    for place in [Place::Beside, Place::Remote] {
        all_at_once(place, STORMS * options.factor);
    }
}

/// Microseconds from the kill, of all rounds.
#[derive(Default)]
struct Latencies {
    told: Vec<Sample>,
    back: Vec<Sample>,
}

fn one_at_a_time(what: &str, nodes: usize, place: Place, told: Told, rounds: usize) {
    let mut nursery = Nursery::new();
    let mut keeper = Keeper::start(&nursery, nodes, nodes, told);
    nursery.births(nodes);
    let mut cluster = Cluster::start(&nursery, place);
    cluster.deploy(&nursery, 0, nodes);
    nursery.births(nodes);
    let running = cluster.changes_to(NodeState::Running, nodes);
    let mut pids: Vec<_> = running.iter().map(|seen| (seen.change.node.clone(), pid_of(seen.change.pid))).collect();

    let [mut floor, mut watchpost] = [(); 2].map(|()| Latencies::default());
    for _ in 0..rounds {
        let [mut floor_told, mut floor_back, mut told, mut back] = [(); 4].map(|()| Sample::default());
        for kill in 0..KILLS {
            pause();
            let (began, at) = keeper.crash(kill % nodes);
            floor_told.add(microseconds(at - began));
            floor_back.add(microseconds(nursery.births(1)[0].at - began));
            pause();
            let (node, pid) = &mut pids[kill % nodes];
            let began = now();
            kill_process(*pid, Signal::KILL).expect("our node lives");
            let crash = cluster.changes_to(NodeState::Crashed, 1).remove(0);
            assert_eq!(crash.change.node, *node);
            told.add(microseconds(crash.at - began));
            back.add(microseconds(nursery.births(1)[0].at - began));
            *pid = pid_of(cluster.changes_to(NodeState::Running, 1)[0].change.pid);
        }
        floor.told.push(floor_told);
        floor.back.push(floor_back);
        watchpost.told.push(told);
        watchpost.back.push(back);
    }
    println!("one of {nodes} nodes killed, {what}, {} times, us: median round (least to most)", rounds * KILLS);
    for (quantile, label, goal) in [(0.5, "p50", P50_GOAL), (0.99, "p99", P99_GOAL)] {
        let of = |rounds: &[Sample]| rounds.iter().map(|round| round.quantile(quantile)).collect::<Sample>();
        for (event, floor, watchpost) in
            [("told", &floor.told, &watchpost.told), ("the next process runs", &floor.back, &watchpost.back)]
        {
            let (floor, watchpost) = (of(floor), of(watchpost));
            line(&format!("{event}, {label}: floor"), &floor, None);
            line(&format!("{event}, {label}: watchpost"), &watchpost, Some((&watchpost.over(&floor), Some(goal))));
        }
    }
}

/// Milliseconds.
#[derive(Default)]
struct Storms {
    told: Sample,
    back: Sample,
}

fn all_at_once(place: Place, storms: usize) {
    let mut nursery = Nursery::new();
    let [mut floor, mut watchpost] = [(); 2].map(|()| Storms::default());
    let [mut stopped, mut early, mut killed] = [(); 3].map(|()| Sample::default());
    for _ in 0..storms {
        let mut plain = Floor::new(&nursery, 0, MANY, Care::Full);
        plain.start_all();
        nursery.births(MANY);
        let began = now();
        plain.stop_all();
        stopped.add(milliseconds(now() - began));
        drop(plain);

        let halves = [0, MANY / 2].map(|first| Keeper::start(&nursery, first, MANY / 2, Told::OverTcp));
        nursery.births(MANY);
        let began = now();
        for number in 0..MANY / 2 {
            halves.iter().for_each(|half| _ = half.kill(number));
        }
        floor.back.add(milliseconds(last(nursery.births(MANY).iter().map(|stamp| stamp.at)) - began));
        let told = halves.into_iter().map(|mut half| half.all_told());
        floor.told.add(milliseconds(last(told) - began));

        let mut cluster = Cluster::start(&nursery, place);
        cluster.deploy(&nursery, 0, MANY);
        nursery.births(MANY);
        let running = cluster.changes_to(NodeState::Running, MANY);
        let pids: Vec<_> = running.iter().map(|seen| pid_of(seen.change.pid)).collect();
        let began = now();
        pids.iter().for_each(|pid| kill_process(*pid, Signal::KILL).expect("our node lives"));
        killed.add(milliseconds(now() - began));
        let births = nursery.births(MANY);
        let told = last(cluster.changes_to(NodeState::Crashed, MANY).iter().map(|seen| seen.at));
        watchpost.told.add(milliseconds(told - began));
        watchpost.back.add(milliseconds(last(births.iter().map(|stamp| stamp.at)) - began));
        early.add(births.iter().filter(|stamp| stamp.at < told).count() as f64);
    }
    println!("{MANY} nodes killed at once, {place:?}, {storms} times, ms: median (least to most)");
    line("to kill them", &killed, None);
    line("the floor stops as many", &stopped, None);
    line("all told: floor, two threads", &floor.told, Some((&floor.told.over(&stopped), None)));
    line("all told: watchpost", &watchpost.told, Some((&watchpost.told.over(&stopped), Some(ALL_TOLD_GOAL))));
    line("all back: floor, two threads", &floor.back, None);
    line("all back: watchpost", &watchpost.back, Some((&watchpost.back.over(&floor.back), Some(ALL_BACK_GOAL))));
    line("started before all were told, of 1000", &early, None);
}

/// Lets everything come to rest between two kills, so that each is measured by itself.
fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(500));
}

fn pid_of(pid: Option<u32>) -> Pid {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    pid.expect("what runs has a pid")
}

fn last(times: impl Iterator<Item = u64>) -> u64 {
    times.max().unwrap_or_default()
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

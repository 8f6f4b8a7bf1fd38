//! From SIGKILL of a node to its `notify_change` at an observer of the controller, and to the next process.
//!
//! One at a time, of a hundred and of a thousand: beside the controller against a bare wait on a pidfd, and behind a
//! bridge, with the agent in another process, against the same wait in another process and one frame over TCP. A change
//! says how its process ended, so the floor asks the kernel for that, too; beside it stands a floor that knows only that
//! it ended. Then a thousand at once: until all are told, against the time in which the floor stops as many, and until
//! all are back, against two threads that do nothing else.

mod common;

use common::cluster::{Cluster, Place, be_an_agent_if_asked};
use common::figures::{Sample, line, now, options};
use common::floor::{Care, Floor};
use common::keeper::{Keeper, Told, be_a_keeper_if_asked};
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
    be_a_keeper_if_asked();
    let Some(options) = options() else { return };
    for (nodes, rounds) in ALONE {
        let rounds = rounds * options.factor;
        one_at_a_time("in one process", nodes, Place::Beside, [Told::Itself, Told::ItselfBarely], rounds);
        one_at_a_time("over the bridge", nodes, Place::Remote, [Told::Process, Told::ThreadBarely], rounds);
    }
    for place in [Place::Beside, Place::Remote] {
        all_at_once(place, STORMS * options.factor);
    }
}

/// Microseconds from the kill, of one round.
#[derive(Default)]
struct Latencies {
    told: Sample,
    back: Sample,
}

impl Latencies {
    fn add(&mut self, began: u64, told: u64, back: u64) {
        self.told.add(microseconds(told - began));
        self.back.add(microseconds(back - began));
    }
}

/// Which of them is meant.
type LatencyOf = fn(&Latencies) -> &Sample;

/// The first of the two floors does the same work; the other knows only that somebody ended.
fn one_at_a_time(what: &str, nodes: usize, place: Place, told: [Told; 2], rounds: usize) {
    let mut nursery = Nursery::new();
    let mut keepers = told.map(|told| {
        let keeper = Keeper::start(&nursery, nodes, nodes, told);
        nursery.births(nodes);
        keeper
    });
    let mut cluster = Cluster::start(&nursery, place);
    cluster.deploy(&nursery, 0, nodes);
    nursery.births(nodes);
    let running = cluster.changes_to(NodeState::Running, nodes);
    let mut pids: Vec<_> = running.iter().map(|seen| (seen.change.node.clone(), pid_of(seen.change.pid))).collect();

    let mut round = || {
        let mut round = <[Latencies; 3]>::default();
        for kill in 0..KILLS {
            for (keeper, floor) in keepers.iter_mut().zip(&mut round) {
                pause();
                let (began, told) = keeper.crash(kill % nodes);
                floor.add(began, told, nursery.births(1)[0].at);
            }
            pause();
            let (node, pid) = &mut pids[kill % nodes];
            let began = now();
            kill_process(*pid, Signal::KILL).expect("our node lives");
            let crash = cluster.changes_to(NodeState::Crashed, 1).remove(0);
            assert_eq!(crash.change.node, *node);
            round[2].add(began, crash.at, nursery.births(1)[0].at);
            *pid = pid_of(cluster.changes_to(NodeState::Running, 1)[0].change.pid);
        }
        round
    };
    let all: Vec<_> = (0..rounds).map(|_| round()).collect();
    println!("one of {nodes} nodes killed, {what}, {} times, us: median round (least to most)", rounds * KILLS);
    let events: [(_, LatencyOf); 2] = [("told", |round| &round.told), ("the next process runs", |round| &round.back)];
    for (quantile, label, goal) in [(0.5, "p50", P50_GOAL), (0.99, "p99", P99_GOAL)] {
        for (event, of) in events {
            let [floor, barely, watchpost] =
                [0, 1, 2].map(|who| all.iter().map(|round| of(&round[who]).quantile(quantile)).collect::<Sample>());
            line(
                &format!("{event}, {label}: floor that knows only of the end"),
                &barely,
                Some((&barely.over(&floor), None)),
            );
            line(&format!("{event}, {label}: floor"), &floor, None);
            line(&format!("{event}, {label}: watchpost"), &watchpost, Some((&watchpost.over(&floor), Some(goal))));
            let ratio = watchpost.over(&barely);
            let of_barely = format!("{event}, {label}: watchpost, of the floor that knows only of the end");
            line(&of_barely, &watchpost, Some((&ratio, Some(goal))));
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
        let mut plain = Floor::new(nursery.directory(), 0, MANY, Care::Full);
        plain.start_all();
        nursery.births(MANY);
        let began = now();
        plain.stop_all();
        stopped.add(milliseconds(now() - began));
        drop(plain);

        let halves = [0, MANY / 2].map(|first| Keeper::start(&nursery, first, MANY / 2, Told::ThreadBarely));
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

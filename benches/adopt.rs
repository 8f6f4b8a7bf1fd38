//! An agent that comes back to N nodes that run: from the start of its process until the controller has heard of all of
//! them, against reading as many small files and as many entries of /proc. Then it stops them, which it did not launch:
//! against the floor, which stops as many children of its own.

mod common;

use std::fs;
use std::path::Path;

use common::cluster::{Cluster, Place, be_an_agent_if_asked};
use common::figures::{Sample, line, now, options};
use common::floor::{Care, Floor};
use common::nursery::Nursery;
use watchpost::model::NodeState;

const GOAL: f64 = 2.0;
const STOP_GOAL: f64 = 1.5;
const TIMES: usize = 7;
const STOPS: usize = 3;

fn main() {
    be_an_agent_if_asked();
    let Some(options) = options() else { return };
    for count in [10, 100, 1000] {
        let mut nursery = Nursery::new();
        let mut cluster = Cluster::start(&nursery, Place::Remote);
        cluster.deploy(&nursery, 0, count);
        nursery.births(count);
        let running = cluster.changes_to(NodeState::Running, count);
        let pids: Vec<u32> = running.iter().filter_map(|seen| seen.change.pid).collect();
        let [mut floor, mut adopted] = [(); 2].map(|()| Sample::default());
        for _ in 0..TIMES * options.factor {
            floor.add(milliseconds(read_all(cluster.nodes(), &pids)));
            cluster.kill_agent();
            cluster.changes_to(NodeState::Unknown, count);
            let began = cluster.start_agent_again();
            let back = cluster.changes_to(NodeState::Running, count);
            assert!(back.iter().all(|seen| seen.change.pid.is_none_or(|pid| pids.contains(&pid))), "none was started");
            let last = back.iter().map(|seen| seen.at).max().unwrap_or_default();
            adopted.add(milliseconds(last - began));
        }
        println!("{count} nodes, ms: median (least to most)");
        line("reading records and /proc", &floor, None);
        // The start of a process and of its link is in it, which the few nodes show.
        line("agent started, all told", &adopted, Some((&adopted.over(&floor), Some(GOAL))));
        drop(cluster);
        let [mut floor, mut stopped] = [(); 2].map(|()| Sample::default());
        for _ in 0..STOPS * options.factor {
            floor.add(milliseconds(stop_floor(count)));
            stopped.add(milliseconds(stop_adopted(count)));
        }
        line("stop: floor, of its own", &floor, None);
        line("stop: watchpost, of those adopted", &stopped, Some((&stopped.over(&floor), Some(STOP_GOAL))));
    }
}

fn stop_floor(count: usize) -> u64 {
    let mut nursery = Nursery::new();
    let mut floor = Floor::new(nursery.directory(), 0, count, Care::Full);
    floor.start_all();
    nursery.births(count);
    let began = now();
    floor.stop_all();
    now() - began
}

fn stop_adopted(count: usize) -> u64 {
    let mut nursery = Nursery::new();
    let mut cluster = Cluster::start(&nursery, Place::Remote);
    cluster.deploy(&nursery, 0, count);
    nursery.births(count);
    cluster.changes_to(NodeState::Running, count);
    cluster.kill_agent();
    cluster.changes_to(NodeState::Unknown, count);
    cluster.start_agent_again();
    cluster.changes_to(NodeState::Running, count);
    cluster.stop_all()
}

/// Every record, and of every process what tells it from others.
fn read_all(nodes: &Path, pids: &[u32]) -> u64 {
    let began = now();
    let mut bytes = 0;
    for entry in fs::read_dir(nodes).expect("the nodes' directory") {
        let record = entry.expect("an entry").path().join("record");
        bytes += fs::read(record).map_or(0, |record| record.len());
    }
    for pid in pids {
        bytes += fs::read(format!("/proc/{pid}/stat")).map_or(0, |stat| stat.len());
    }
    let took = now() - began;
    assert!(bytes > pids.len() * 100, "{bytes} bytes were read");
    took
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

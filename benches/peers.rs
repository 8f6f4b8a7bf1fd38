//! Watchpost beside the supervisors that others use, and a floor that is nothing but the loop, in turns, with the same children:
//! from SIGKILL of a child to the next one, all killed at once until all are back, memory for each child, and all stopped by
//! a signal to the supervisor.
//!
//! `benches/peers/run` installs them. Arguments are names, of which one or more are chosen, and counts of children. It takes
//! minutes, and says whose turn it is.

mod common;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use common::figures::{Sample, now, options};
use common::keeper::be_a_keeper_if_asked;
use common::nursery::{Nursery, Stamp};
use common::peers::{Peer, Running};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// One at a time: so many kills in each round.
const KILLS: usize = 20;
const ROUNDS: usize = 2;
/// The first is for the memory alone: what each further child takes is measured from it on.
const COUNTS: [usize; 3] = [10, 100, 1000];
/// Longer than runit and supervisord want a child to have lived before they start it again without a pause.
const REST: Duration = Duration::from_millis(1500);

fn main() {
    be_a_keeper_if_asked();
    if options().is_none() {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |peer: &Peer| arguments.iter().any(|argument| argument == peer.name());
    let others: Vec<Peer> = Peer::OTHERS.into_iter().filter(chosen).collect();
    let others = if others.is_empty() { Peer::OTHERS.to_vec() } else { others };
    let counts: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let counts = if counts.is_empty() { COUNTS.to_vec() } else { counts };
    let peers: Vec<Peer> = [Peer::Watchpost].into_iter().chain(others).collect();

    let mut memory = BTreeMap::<Peer, Vec<(usize, f64)>>::new();
    for count in counts {
        let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
        for round in 0..ROUNDS {
            for (peer, figures) in peers.iter().zip(&mut figures) {
                let is_for_memory = count == COUNTS[0];
                if round == 0 || !is_for_memory {
                    // Two of them wait for a second before each restart: a round takes half a minute.
                    eprintln!("{count} children, round {} of {ROUNDS}: {}", round + 1, peer.name());
                    measure(*peer, peer.at_most(count), is_for_memory, figures);
                }
            }
        }
        for (peer, figures) in peers.iter().zip(&figures) {
            memory.entry(*peer).or_default().push((peer.at_most(count), figures.memory.median()));
        }
        show(count, &peers, &figures);
    }
    show_memory(&memory);
}

/// Milliseconds, and KiB.
#[derive(Default)]
struct Figures {
    back: Sample,
    all_back: Sample,
    stopped: Sample,
    memory: Sample,
}

fn measure(peer: Peer, count: usize, is_for_memory: bool, figures: &mut Figures) {
    let mut nursery = Nursery::new();
    let mut running = Running::start(peer, &nursery, count);
    let mut children: BTreeMap<u64, Stamp> = births(&mut nursery, count);
    std::thread::sleep(REST);
    figures.memory.add(memory_of(running.roots(), &children));
    if is_for_memory {
        return end(running, &children);
    }
    let mut back = Sample::default();
    for number in 0..KILLS.min(count) as u64 {
        std::thread::sleep(Duration::from_millis(20));
        let began = now();
        kill(&children[&number]);
        let [next] = nursery.births(1)[..] else { panic!("one was killed") };
        assert_eq!(next.number, number);
        back.add(milliseconds(next.at - began));
        children.insert(number, next);
    }
    figures.back.add(back.median());
    std::thread::sleep(REST);
    let began = now();
    children.values().for_each(kill);
    children = births(&mut nursery, count);
    let last = children.values().map(|stamp| stamp.at).max().unwrap_or_default();
    figures.all_back.add(milliseconds(last - began));
    std::thread::sleep(REST);
    if peer.stops_its_children() {
        let living: Vec<OwnedFd> = children.values().map(pidfd).collect();
        let began = now();
        running.ask_to_stop();
        living.iter().for_each(wait_for_the_end);
        figures.stopped.add(milliseconds(now() - began));
    }
    end(running, &children);
}

/// The supervisor goes first, or it would start them again.
fn end(running: Running, children: &BTreeMap<u64, Stamp>) {
    drop(running);
    for child in children.values() {
        let _ = kill_process(pid(child), Signal::KILL); // most supervisors took them with them
    }
}

fn births(nursery: &mut Nursery, count: usize) -> BTreeMap<u64, Stamp> {
    let children: BTreeMap<_, _> = nursery.births(count).into_iter().map(|stamp| (stamp.number, stamp)).collect();
    assert_eq!(children.len(), count, "each was started once");
    children
}

fn kill(child: &Stamp) {
    kill_process(pid(child), Signal::KILL).expect("it lives");
}

fn pid(child: &Stamp) -> Pid {
    Pid::from_raw(child.pid.cast_signed()).expect("a pid")
}

fn pidfd(child: &Stamp) -> OwnedFd {
    pidfd_open(pid(child), PidfdFlags::empty()).expect("it lives")
}

fn wait_for_the_end(pidfd: &OwnedFd) {
    while poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).is_err() {}
}

/// PSS of these processes and of all below them but the children, in KiB.
fn memory_of(roots: Vec<u32>, children: &BTreeMap<u64, Stamp>) -> f64 {
    let mut below = BTreeMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent_of(&entry.path())?))) {
            below.entry(parent).or_default().push(pid);
        }
    }
    let is_child = |pid: &u32| children.values().any(|child| child.pid == *pid);
    let (mut waiting, mut total) = (roots, 0.0);
    while let Some(pid) = waiting.pop() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
        total += kibibytes.unwrap_or_default(); // a zombie has none
        waiting.extend(below.remove(&pid).unwrap_or_default().iter().filter(|pid| !is_child(pid)));
    }
    total
}

fn parent_of(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A table of medians, and beside each what it is of watchpost's.
fn show(count: usize, peers: &[Peer], figures: &[Figures]) {
    println!("\n{count} children, ms (of watchpost's): medians of {ROUNDS} rounds");
    row("", ["next one", "all back", "all stopped", "memory, KiB"]);
    for (peer, own) in peers.iter().zip(figures) {
        let cell = |of: fn(&Figures) -> &Sample| {
            let (figure, ours) = (of(own).median(), of(&figures[0]).median());
            if figure.is_nan() { "-".to_owned() } else { format!("{figure:.2} ({:.2})", figure / ours) }
        };
        row(peer.name(), [cell(|f| &f.back), cell(|f| &f.all_back), cell(|f| &f.stopped), cell(|f| &f.memory)]);
    }
}

fn show_memory(memory: &BTreeMap<Peer, Vec<(usize, f64)>>) {
    for (peer, figures) in memory {
        if let [(few, least), .., (many, most)] = figures[..] {
            let each = (most - least) / (many - few) as f64;
            println!("{}: {each:.2} KiB for each child, from {few} to {many}", peer.name());
        }
    }
}

fn row(name: &str, cells: [impl Display; 4]) {
    let [back, all_back, stopped, memory] = cells.map(|cell| cell.to_string());
    println!("  {name:<12} {back:>22} {all_back:>22} {stopped:>22} {memory:>26}");
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

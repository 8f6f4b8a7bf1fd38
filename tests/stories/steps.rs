//! An agent that is killed at each single step of what it does to a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use watchpost::web::json::Verdict;

use crate::common::{Daemon, Fleet, changes, check_log, eventually, node, pids, processes, sleeper};

/// One step of so many is tried in a run, beginning with one by chance: `WATCHPOST_EVERY_STEP=1` tries them all.
const OF: u64 = 9;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/kill_at_step.py");

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_restart_finds_one_process_or_starts_one() {
    let mut all = Steps::new();
    let (every, first) = which();
    let mut step = first;
    while let Some((what, order)) = all.kill_at(&step.to_string(), "restart") {
        let left = all.living();
        assert!(left.len() <= 1, "at step {step}, {what}: {left:?}");
        all.fleet.agent_mut("a").start_again();
        all.settles(&format!("killed at step {step}, {what}"), &left);
        // Whoever asked hears of it, once the agent is back.
        order.join().expect("an answer");
        step += every;
    }
    assert!(step > 20, "a restart has more steps than {step}");
    all.is_told_of();
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_stop_has_its_node_run_or_rest_afterwards_and_says_which() {
    let mut all = Steps::new();
    let (every, first) = which();
    let mut step = first;
    while let Some((what, order)) = all.kill_at(&step.to_string(), "stop") {
        all.fleet.agent_mut("a").start_again();
        let when = format!("killed at step {step}, {what}");
        // A stop that was cut off may be answered as one that failed, but not as one that was done if it was not.
        let answer = order.join().expect("an answer");
        let is_as_said = |state: &str, living: &[u32]| match state {
            "STOPPED" => living.is_empty(),
            "RUNNING" => !answer.ok && living.len() == 1,
            _ => false,
        };
        eventually(&format!("it runs or rests, and status says which: {when}"), || {
            let (living, status) = (all.living(), all.fleet.client.status());
            assert!(living.len() <= 1, "{when}: {living:?}");
            let is_up = status.instances.iter().any(|it| it.name == "a" && it.link == "UP");
            (is_up && is_as_said(&node(&status, "one").state, &living)).then_some(())
        });
        assert!(all.fleet.client.order("start", &["one"]).ok, "{when}");
        step += every;
    }
    all.fleet.scene.check_that_nothing_runs();
    assert!(step > 10, "a stop has more steps than {step}");
    all.is_told_of();
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_its_return_is_followed_by_one_that_finds_all_as_it_was() {
    let mut all = Steps::new();
    let two =
        [sleeper("one", "instance = a"), sleeper("dies", "instance = a\nrestart_limit = 0\nrestart_max_delay = 500ms")];
    all.fleet.client.deployed(&all.fleet.file(&["a"], &two));
    let one = pids(&all.fleet.client.wait_for_all("RUNNING"))["one"];
    let (every, first) = which();
    // To start takes far more steps than to restart a node.
    let (every, mut step) = (if every > 1 { every * 6 } else { every }, first * 6 - 5);
    loop {
        // One lives on and one dies while it is away.
        let dies = pids(&all.fleet.client.wait_for_all("RUNNING"))["dies"];
        all.fleet.agent_mut("a").kill();
        processes::signal(dies, Signal::KILL);
        all.fleet.scene.write("kill-at", &step.to_string());
        all.fleet.agent_mut("a").starts_again();
        let got_through = fs::remove_file(&all.at).is_ok();
        if !got_through {
            all.fleet.agent_mut("a").ended();
            all.fleet.agent_mut("a").start_again();
        }
        let what = fs::read_to_string(&all.step).unwrap_or_default();
        let when = format!("killed at step {step}, {what}");
        all.fleet.client.wait(&format!("both run: {when}"), |status| {
            let is_up = status.instances.iter().any(|it| it.name == "a" && it.link == "UP");
            let runs = |name: &str| {
                let known = pids(status).get(name).copied();
                let processes = all.fleet.scene.processes_of(name);
                (node(status, name).state == "RUNNING" && known.is_some_and(|pid| processes == [pid])).then_some(known)
            };
            is_up && runs("one") == Some(Some(one)) && runs("dies").is_some_and(|pid| pid != Some(dies))
        });
        if got_through {
            break;
        }
        step += every;
    }
    assert!(step > 100, "a start has more steps than {step}");
    let events = all.fleet.client.events();
    check_log(&events);
    assert!(changes(&events, "one").iter().all(|event| event.new.as_deref() != Some("CRASHED")), "{events:#?}");
}

#[test]
fn who_was_about_to_be_born_when_its_agent_was_killed_and_takes_its_time_runs_beside_nobody() {
    // A control group would end it: here nobody can know it but by its record, and by what it holds.
    let mut all = Steps::with("[agent]\ncgroup = 'none'\n");
    let (every, first) = which();
    let (every, mut step) = (every.div_ceil(3), first.div_ceil(3));
    while let Some((what, order)) = all.kill_at(&format!("{step} held"), "restart") {
        let when = format!("killed at step {step}, {what}");
        let newborn: u32 = what.rsplit_once(": ").unwrap().1.parse().unwrap();
        if !all.fleet.agent_mut("a").starts_again() {
            // It still has what its agent had locked, and nobody comes after that before it goes on.
            assert!(all.fleet.agents["a"].log().contains("is in use by process"), "{when}");
            processes::signal(newborn, Signal::CONT);
            eventually("the next agent starts", || all.fleet.agent_mut("a").starts_again().then_some(()));
        }
        let has_known = |all: &mut Steps| {
            let status = all.fleet.client.status();
            let is_up = status.instances.iter().any(|it| it.name == "a" && it.link == "UP");
            pids(&status).get("one").copied().filter(|_| is_up && node(&status, "one").state == "RUNNING")
        };
        eventually(&format!("the next agent has its node run: {when}"), || has_known(&mut all));
        // Only now it goes on, where the next agent had not to wait for it.
        if processes::is_alive(newborn) {
            processes::signal(newborn, Signal::CONT);
        }
        eventually(&format!("it is the node, or gone: {when}"), || {
            let living = all.living();
            assert!(living.len() <= 1, "{when}: {living:?}");
            let is_settled = has_known(&mut all).is_some_and(|known| living == [known]);
            let is_over = !processes::is_alive(newborn) || living == [newborn];
            (is_settled && is_over).then_some(())
        });
        order.join().expect("an answer");
        step += every;
    }
    assert!(step > 10, "a birth has more steps than {step}");
    check_log(&all.fleet.client.events());
}

/// How far it is from one step to the next, and which one is the first.
fn which() -> (u64, u64) {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_nanos()));
    let every = std::env::var("WATCHPOST_EVERY_STEP").map_or(OF, |every| every.parse().expect("a number"));
    (every, 1 + moment % every)
}

/// A fleet whose agent dies when it is told to.
struct Steps {
    fleet: Fleet,
    at: PathBuf,
    step: PathBuf,
    seen: BTreeSet<u32>,
}

impl Steps {
    fn new() -> Self {
        Self::with("")
    }

    /// The same with settings of its own.
    fn with(settings: &str) -> Self {
        let mut fleet = Fleet::start();
        let (at, step) = (fleet.scene.path("kill-at"), fleet.scene.path("killed-at"));
        let connect = fleet.controller.addresses()["agents"].to_string();
        fleet.agents.remove("a");
        let through = ["python3", PROGRAM, at.to_str().unwrap(), step.to_str().unwrap()];
        let args = ["agent", "--name", "a", "--connect", &connect];
        fleet.agents.insert("a", Daemon::start_all(&through, &fleet.scene, "a", &args, settings));
        fleet.client.deployed(&fleet.file(&["a"], &[sleeper("one", "instance = a")]));
        Self { fleet, at, step, seen: BTreeSet::new() }
    }

    /// Gives the order, and says what the agent was about to do when it was killed; `None` if it got through.
    fn kill_at(&mut self, step: &str, verb: &'static str) -> Option<(String, JoinHandle<Verdict>)> {
        let _ = fs::remove_file(&self.step);
        self.fleet.scene.write("kill-at.new", step);
        fs::rename(self.fleet.scene.path("kill-at.new"), &self.at).unwrap();
        let client = self.fleet.client.clone();
        let order = thread::spawn(move || client.order(verb, &["one"]));
        eventually("the agent is killed or gets through", || (self.step.exists() || order.is_finished()).then_some(()));
        if fs::remove_file(&self.at).is_ok() {
            let verdict = order.join().expect("an answer");
            assert!(verdict.ok, "{verdict:?}");
            return None;
        }
        self.fleet.agent_mut("a").ended();
        Some((fs::read_to_string(&self.step).unwrap(), order))
    }

    /// The processes of the node that live, each for certain at the same time as all others.
    fn living(&mut self) -> Vec<u32> {
        let found: Vec<_> =
            self.fleet.scene.processes_of("one").into_iter().map(|pid| (pid, processes::born(pid))).collect();
        let still = |(pid, born): &&(u32, Option<u64>)| processes::is_alive(*pid) && processes::born(*pid) == *born;
        let living: Vec<_> = found.iter().filter(still).map(|(pid, _)| *pid).collect();
        self.seen.extend(&living);
        living
    }

    /// Waits until the node runs: whoever lived goes on, unless it was ended by the restart.
    fn settles(&mut self, when: &str, left: &[u32]) {
        let runs = eventually(&format!("one process, and status says which: {when}"), || {
            let living = self.living();
            assert!(living.len() <= 1, "{when}: {living:?}");
            let status = self.fleet.client.status();
            let is_up = node(&status, "one").state == "RUNNING"
                && status.instances.iter().any(|it| it.name == "a" && it.link == "UP");
            living.first().copied().filter(|pid| is_up && pids(&status).get("one") == Some(pid))
        });
        for before in left.iter().filter(|pid| processes::is_alive(**pid)) {
            assert_eq!(*before, runs, "{when}");
        }
    }

    /// Every life that was seen is in the log, which is in order.
    fn is_told_of(&self) {
        let events = self.fleet.client.events();
        check_log(&events);
        let told: BTreeSet<_> = changes(&events, "one").iter().filter_map(|event| event.pid).collect();
        assert!(self.seen.is_subset(&told), "{:?} was seen, {told:?} was told of", self.seen);
    }
}

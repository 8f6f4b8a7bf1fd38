//! A controller and two agents to whom all of it happens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use watchpost::web::json::Status;

use crate::chance::Chance;
use crate::checker::{Checker, Seen, living};
use crate::common::{Client, Daemon, Scene, changes, check_log, eventually, pids, processes, script, sleeper};
use crate::numbers::{self, Bystander};

const AGENTS: [&str; 2] = ["a", "b"];
const NODES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// So many things are done to the fleet in a round.
const BLOWS: u64 = 6;
/// How long a node that was killed may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// How long status may take to agree with /proc once everything has come to rest.
const AGREES_WITHIN: Duration = Duration::from_secs(1);

pub struct Chaos {
    checker: Checker,
    bystanders: Vec<Bystander>,
    controller: Daemon,
    agents: BTreeMap<&'static str, Daemon>,
    client: Client,
    scene: Scene,
    chance: Chance,
    rounds: u64,
    done: BTreeMap<&'static str, u64>,
}

impl Chaos {
    pub fn start(chance: Chance) -> Self {
        let few = numbers::leave_few();
        let scene = Scene::new();
        let any = scene.any_port();
        let controller = Daemon::start(&scene, "controller", &["controller", "--listen", &any, "--http", &any]);
        let connect = controller.addresses()["agents"].to_string();
        let agent = |name| Daemon::start(&scene, name, &["agent", "--name", name, "--connect", &connect]);
        let agents = AGENTS.map(|name| (name, agent(name))).into();
        let (client, checker) = (controller.client(), Checker::start(scene.cluster()));
        let done = BTreeMap::from([("few numbers", u64::from(few))]);
        let bystanders = Vec::new();
        Self { checker, bystanders, controller, agents, client, scene, chance, rounds: 0, done }
    }

    /// Blows at random moments while somebody deploys and gives orders; then everything comes to rest, and is checked.
    pub fn round(&mut self) {
        self.rounds += 1;
        let orders = self.orders();
        for _ in 0..BLOWS {
            self.pause(0..120);
            self.blow();
        }
        self.pick_up();
        orders.join().expect("whoever gives orders gets answers");
        self.comes_to_rest();
    }

    pub fn figures(&self) -> String {
        let (seen, looks) = (self.checker.seen().len(), self.checker.looks());
        format!("{seen} lives seen in {looks} looks at /proc, {:?}", self.done)
    }

    /// Stops everything: nothing is left.
    pub fn end(mut self) {
        let stopped = self.client.order("stop", &[]);
        assert!(stopped.ok, "{stopped:?}");
        self.scene.check_that_nothing_runs();
        self.check_events();
        self.bystanders.iter().for_each(Bystander::is_unhurt);
        self.bystanders.clear();
    }

    // --- what is done ---

    /// Deploys and orders, by somebody who does not mind if they fail.
    fn orders(&mut self) -> JoinHandle<()> {
        let (client, first, second) = (self.client.clone(), self.file("first"), self.file("second"));
        let (verb, node) = (*self.chance.pick(&["restart", "stop", "start"]), *self.chance.pick(&NODES));
        let wait = self.chance.millis(0..150);
        spawn(move || {
            client.run(&["deploy", first.to_str().unwrap()]);
            sleep(wait);
            client.run(&[verb, node]);
            client.run(&["deploy", second.to_str().unwrap()]);
            client.run(&["restart", node]);
        })
    }

    fn blow(&mut self) {
        let agent = *self.chance.pick(&AGENTS);
        match self.chance.below(12) {
            0..=2 => self.kill_agent(agent),
            3 => self.kill_controller(),
            4 => self.ask_agent_to_end(agent),
            5 => self.ask_controller_to_end(),
            6 => self.hold(self.agents[agent].pid(), "agent held"),
            7 => self.hold(self.controller.pid(), "controller held"),
            8 => self.kill_a_node(),
            9 => self.hold_a_node(),
            10 => self.kill_an_agent_whose_node_waits(),
            _ => self.churn(),
        }
    }

    /// A node may die while its agent is away, and its number be given to somebody else.
    fn kill_agent(&mut self, name: &'static str) {
        *self.done.entry("agent killed").or_default() += 1;
        let agent = self.agents.get_mut(name).expect("one of ours");
        agent.kill();
        if self.chance.percent(70)
            && let Some(victim) = self.victim()
        {
            let _ = kill_process(number(victim.pid), Signal::KILL);
            eventually("it is dead", || (!processes::is_alive(victim.pid)).then_some(()));
            *self.done.entry("node killed while its agent was away").or_default() += 1;
            if self.chance.percent(60) {
                self.reap();
                if let Some(bystander) = Bystander::take(victim.pid, &self.scene.path("")) {
                    *self.done.entry("number given away").or_default() += 1;
                    self.bystanders.push(bystander);
                }
            }
        }
        self.pause(0..150);
        self.agents.get_mut(name).expect("one of ours").start_again();
    }

    fn ask_agent_to_end(&mut self, name: &'static str) {
        *self.done.entry("agent restarted").or_default() += 1;
        let agent = self.agents.get_mut(name).expect("one of ours");
        agent.signal(Signal::TERM);
        agent.ended();
        agent.start_again();
    }

    fn kill_controller(&mut self) {
        *self.done.entry("controller killed").or_default() += 1;
        self.controller.kill();
        self.pause(0..150);
        self.controller.start_again();
    }

    fn ask_controller_to_end(&mut self) {
        *self.done.entry("controller restarted").or_default() += 1;
        self.controller.signal(Signal::TERM);
        self.controller.ended();
        self.controller.start_again();
    }

    fn kill_a_node(&mut self) {
        if let Some(victim) = self.victim() {
            *self.done.entry("node killed").or_default() += 1;
            let _ = kill_process(number(victim.pid), Signal::KILL);
        }
    }

    /// A node dies again as soon as it is back, so that it has to wait; and its agent at some moment of that.
    fn kill_an_agent_whose_node_waits(&mut self) {
        let Some(Seen { node, pid, life, .. }) = self.victim() else { return };
        let Some(at) = NODES.iter().position(|name| *name == node) else { return };
        let _ = kill_process(number(pid), Signal::KILL);
        let deadline = Instant::now() + BACK_WITHIN;
        while Instant::now() < deadline {
            // Somebody may have it stopped meanwhile.
            if let Some(next) = living(&self.prefix()).find(|it| it.node == node && it.life != life) {
                let _ = kill_process(number(next.pid), Signal::KILL);
                break;
            }
            sleep(Duration::from_millis(2));
        }
        *self.done.entry("node killed twice and then its agent").or_default() += 1;
        self.pause(0..20);
        let agent = AGENTS[at % 2];
        self.agents.get_mut(agent).expect("one of ours").kill();
        self.pause(0..150);
        self.agents.get_mut(agent).expect("one of ours").start_again();
    }

    fn hold_a_node(&mut self) {
        if let Some(victim) = self.victim() {
            self.hold(victim.pid, "node held");
        }
    }

    /// SIGSTOP, and SIGCONT a while later.
    fn hold(&mut self, pid: u32, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
        let _ = kill_process(number(pid), Signal::STOP);
        self.pause(10..300);
        let _ = kill_process(number(pid), Signal::CONT);
    }

    fn churn(&mut self) {
        *self.done.entry("churn").or_default() += 1;
        numbers::churn(self.chance.below(300) as usize);
    }

    /// A node's process that lives now.
    fn victim(&mut self) -> Option<Seen> {
        let all: Vec<_> = living(&self.prefix()).collect();
        (!all.is_empty()).then(|| self.chance.pick(&all).clone())
    }

    fn pause(&mut self, millis: std::ops::Range<u64>) {
        sleep(self.chance.millis(millis));
    }

    /// Whoever does not run is started.
    fn pick_up(&mut self) {
        self.reap();
        numbers::churn(40);
    }

    fn reap(&self) {
        let bystanders = self.bystanders.iter().map(Bystander::pid);
        let daemons = self.agents.values().chain([&self.controller]).map(Daemon::pid);
        numbers::reap_orphans(&bystanders.chain(daemons).collect::<Vec<_>>());
    }

    /// Some of the nodes, some of which are others than before under the same name.
    fn file(&mut self, name: &str) -> PathBuf {
        let mut sections = String::new();
        for (at, node) in NODES.iter().enumerate() {
            if self.chance.percent(20) {
                continue;
            }
            let keys = format!("instance = {}\nstop_grace = 500ms\nrestart_limit = 0", AGENTS[at % 2]);
            sections += &match self.chance.below(3) {
                0 => script(node, &keys, "trap \"\" HUP\nexec sleep 1000"),
                1 => sleeper(node, &format!("{keys}\nenv = VERSION=2")),
                _ => sleeper(node, &keys),
            };
        }
        self.scene.write(&format!("{name}-{}.cfg", self.rounds), &format!("[instances]\na\nb\n\n{sections}"))
    }

    // --- what is checked ---

    fn comes_to_rest(&mut self) {
        let file = self.file("last");
        let count = std::fs::read_to_string(&file).unwrap().matches("command =").count();
        let client = self.client.clone();
        let is_up = |status: &Status| status.deploying.is_none() && status.instances.iter().all(|it| it.link == "UP");
        client.wait("every agent is back", is_up);
        // As it is, whatever became of the orders; some nodes may still be on their way.
        self.status_agrees_with_proc();
        // What is found by its own agent may still be on its way up or down.
        let verdict = client.deploy(&file);
        assert!(verdict.ok, "{verdict:?}");
        let all: Vec<&str> = NODES.into_iter().collect();
        let named: Vec<&str> = all.into_iter().filter(|node| is_in(&file, node)).collect();
        if !named.is_empty() {
            let started = client.order("start", &named);
            assert!(started.ok, "{started:?}");
        }
        client.wait("every node runs", |status| {
            status.nodes.len() == count && status.nodes.iter().all(|node| node.state == "RUNNING")
        });
        self.status_agrees_with_proc();
        self.check_events();
        self.bystanders.iter().for_each(Bystander::is_unhurt);
        self.bystanders.clear();
        self.reap();
    }

    /// Each node that is said to run does, by that number, and nothing else of any node does.
    fn status_agrees_with_proc(&self) {
        let deadline = Instant::now() + AGREES_WITHIN;
        loop {
            let said: BTreeMap<String, u32> = pids(&self.client.status());
            let is: BTreeMap<String, u32> = living(&self.prefix()).map(|seen| (seen.node, seen.pid)).collect();
            let count = living(&self.prefix()).count();
            if said == is && count == is.len() {
                return;
            }
            assert!(Instant::now() < deadline, "status says {said:?}, /proc says {is:?} ({count} processes)");
        }
    }

    /// Nothing is lost: every life that was seen is in the log, which is in order.
    fn check_events(&self) {
        let events = self.client.events();
        check_log(&events);
        for seen in self.checker.seen() {
            let is_told = events.iter().any(|event| {
                event.kind == "change" && event.node.as_deref() == Some(&*seen.node) && event.pid == Some(seen.pid)
            });
            let told = || changes(&events, &seen.node).iter().map(|event| format!("{event:?}\n")).collect::<String>();
            assert!(is_told, "{seen:?} was never told of:\n{}", told());
        }
    }

    fn prefix(&self) -> String {
        format!("WATCHPOST_NODE={}/", self.scene.cluster())
    }
}

fn is_in(file: &std::path::Path, node: &str) -> bool {
    std::fs::read_to_string(file).unwrap().contains(&format!("[{node}]"))
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

//! One machine under orders by chance: whatever its processes do, every order is answered, and the answers are true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use watchpost::agent::outbox::Bounds;
use watchpost::agent::state::Event;
use watchpost::message::agent::*;
use watchpost::model::{NodeName, NodeState, RequestId};

use crate::chance::{Chance, Clock, with_seeds};
use crate::machine::Machine;
use crate::world::{configuration, node_names};

/// Longer than any order may take: three orders of four ranks, and processes that outlive SIGKILL by fifteen seconds.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn every_order_is_answered_once_and_the_news_is_chained_whatever_processes_do() {
    with_seeds(1, 600, |seed| {
        let mut lone = Lone::new(seed);
        for _ in 0..lone.chance.below(25) {
            lone.do_something();
            let passes = lone.chance.millis(0..3000);
            lone.pass(passes);
        }
        lone.machine.calm_down();
        lone.pass(LONG);
        assert_eq!(lone.unanswered(), BTreeSet::new(), "nothing waits for ever");
        lone.machine.assert_truthful();
    });
}

#[test]
fn a_standby_leaves_nothing_whatever_was_under_way() {
    with_seeds(2000, 150, |seed| {
        let mut lone = Lone::new(seed);
        for _ in 0..lone.chance.below(8) {
            lone.do_something();
            let passes = lone.chance.millis(0..500);
            lone.pass(passes);
        }
        lone.ask(|reqid| AgentStandbyRequest { reqid }.into());
        lone.pass(LONG);
        assert_eq!(lone.unanswered(), BTreeSet::new());
        assert_eq!(lone.machine.statuses(), []);
        assert_eq!(lone.machine.running(), BTreeMap::new());
        assert!(lone.last.values().all(|state| *state == NodeState::Stopped), "{:?}", lone.last);
    });
}

#[test]
fn stopping_everything_ends_whatever_is_ordered_meanwhile() {
    with_seeds(3000, 150, |seed| {
        let mut lone = Lone::new(seed);
        for _ in 0..lone.chance.below(8) {
            lone.do_something();
            let passes = lone.chance.millis(0..500);
            lone.pass(passes);
        }
        lone.machine.agent_step(Event::StopAll { for_now: false }, lone.clock.now);
        for _ in 0..lone.chance.below(4) {
            if lone.machine.all_stopped {
                break;
            }
            lone.do_something();
            let passes = lone.chance.millis(0..200);
            lone.pass(passes);
        }
        for _ in 0..LONG.as_secs() {
            if lone.machine.all_stopped {
                break;
            }
            lone.pass(Duration::from_secs(1));
        }
        assert!(lone.machine.all_stopped);
        // What outlived SIGKILL is gone in the end, and nothing else came up.
        lone.pass(LONG);
        assert_eq!(lone.machine.running(), BTreeMap::new());
        assert_eq!(lone.unanswered(), BTreeSet::new());
    });
}

#[test]
fn nodes_that_stay_the_same_keep_their_process_through_every_deployment() {
    with_seeds(4000, 100, |seed| {
        let mut lone = Lone::new(seed);
        lone.machine.calm_down();
        let mut former = configuration(&mut lone.chance, 0, &["a"]);
        lone.deploy(former.clone());
        lone.pass(LONG);
        for id in 1..6 {
            let before: BTreeMap<_, _> =
                lone.machine.running().into_iter().map(|(name, pid)| (name.clone(), pid)).collect();
            let next = configuration(&mut lone.chance, id, &["a"]);
            lone.deploy(next.clone());
            lone.pass(LONG);
            let after = lone.machine.running();
            assert_eq!(after.len(), next.nodes.len());
            for node in next.nodes.iter().filter(|node| former.nodes.contains(node)) {
                assert_eq!(before.get(&node.name), after.get(&node.name), "{} did not change", node.name);
            }
            former = next;
        }
    });
}

/// A machine whose controller is this test.
struct Lone {
    machine: Machine,
    chance: Chance,
    clock: Clock,
    asked: BTreeMap<RequestId, usize>,
    last: BTreeMap<NodeName, NodeState>,
    heard: u64,
    configurations: u64,
}

impl Lone {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let machine = Machine::new("a", chance.fork(), Bounds::default());
        let (clock, last) = (Clock::new(), BTreeMap::new());
        let mut lone = Self { machine, chance, clock, asked: BTreeMap::new(), last, heard: 0, configurations: 0 };
        lone.machine.agent_step(Event::LinkUp, lone.clock.now);
        lone.listen();
        lone
    }

    fn do_something(&mut self) {
        let nodes = self.some_nodes();
        match self.chance.below(12) {
            0..=3 => {
                self.configurations += 1;
                let next = configuration(&mut self.chance, self.configurations, &["a"]);
                self.deploy(next);
            }
            4 | 5 => self.ask(|reqid| StopRequest { reqid, nodes }.into()),
            6 | 7 => self.ask(|reqid| StartRequest { reqid, nodes }.into()),
            8 | 9 => self.ask(|reqid| RestartRequest { reqid, nodes }.into()),
            10 => self.ask(|reqid| AgentStandbyRequest { reqid }.into()),
            _ => self.machine.panic_a_supervisor(self.clock.now),
        }
        self.listen();
    }

    fn some_nodes(&mut self) -> BTreeSet<NodeName> {
        let all = node_names();
        (0..self.chance.below(4)).map(|_| self.chance.pick(&all).clone()).collect()
    }

    fn deploy(&mut self, configuration: watchpost::model::Configuration) {
        self.ask(|reqid| {
            SetConfigurationRequest { reqid, configuration: configuration.into(), rest: [].into() }.into()
        });
    }

    fn ask(&mut self, order: impl FnOnce(RequestId) -> ToAgent) {
        let reqid = RequestId::new(&format!("r{}", self.asked.len())).unwrap();
        self.asked.insert(reqid.clone(), 0);
        self.machine.obey(order(reqid), self.clock.now);
        self.listen();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.clock.now.mono + time;
        while let Some(at) = self.machine.next_due().filter(|at| *at <= end) {
            self.clock.advance_to(at);
            self.machine.happen(self.clock.now);
            self.listen();
        }
        self.clock.advance_to(end);
    }

    fn listen(&mut self) {
        let mail = self.machine.take_mail();
        self.hear(mail);
        let epoch = 1;
        self.machine.obey(NewsReceived { epoch, seq: self.heard, kept: self.heard }.into(), self.clock.now);
    }

    fn hear(&mut self, messages: Vec<ToController>) {
        for message in messages {
            match message {
                ToController::News(news) => self.hear(news.open().collect()),
                ToController::NotifyAgentHello(hello) => {
                    let received = NewsReceived { epoch: hello.epoch, seq: 0, kept: 0 };
                    self.machine.obey(received.into(), self.clock.now);
                    self.listen();
                }
                ToController::NotifyChange(change) => {
                    self.count(change.seq);
                    let former = self.last.insert(change.node.clone(), change.new).unwrap_or(NodeState::Stopped);
                    assert_eq!(change.old, former, "{} is chained", change.node);
                    assert!(
                        change.old != change.new
                            || change.pid.is_some()
                            || change.removed
                            || change.new == NodeState::Failed
                            || change.new == NodeState::Crashed,
                        "{change:?}"
                    );
                }
                ToController::NotifyError(error) => self.count(error.seq),
                ToController::NotifyLog(log) => self.count(log.seq),
                ToController::NotifySnapshot(_) => {}
                ToController::AgentStandbyResponse(answer) => self.answered(&answer.reqid),
                ToController::SetConfigurationResponse(answer) => self.answered(&answer.reqid),
                ToController::StartResponse(answer) => self.answered(&answer.reqid),
                ToController::StopResponse(answer) => self.answered(&answer.reqid),
                ToController::RestartResponse(answer) => self.answered(&answer.reqid),
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    fn count(&mut self, seq: u64) {
        self.heard += 1;
        assert_eq!(seq, self.heard, "news is numbered without gaps");
    }

    fn answered(&mut self, reqid: &RequestId) {
        let times = self.asked.get_mut(reqid).expect("an order of ours");
        *times += 1;
        assert_eq!(*times, 1, "{reqid} is answered once");
    }

    fn unanswered(&self) -> BTreeSet<&RequestId> {
        self.asked.iter().filter(|(_, times)| **times == 0).map(|(reqid, _)| reqid).collect()
    }
}

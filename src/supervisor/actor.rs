//! The supervisor of one node: takes orders from the agent and words from the workshop, and tells the agent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, SpawnHandle};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::history::Past;
use super::process::Remains;
use super::state::{Effect, Event, Report, State, Terms};
use super::workshop::{Fact, WardId, Word, Workshop};
use super::{FromSupervisor, LaunchOrder};
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::{Exit, Life, Node, NodeState, Output, ReadyBy, Text};

/// How long the last lines of a node may delay the news of its death, on a disk that hangs. They are read before any
/// launch that waits, so a busy agent alone does not delay them.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);
/// The pauses between two tries to reach a node's port: doubling from the first to the last.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Minds one node. Dropping it, also by a panic, tells the agent that the node has no supervisor.
pub struct Supervisor {
    ward: WardId,
    node: Arc<Node>,
    state: State,
    /// What was decided before it began.
    first: Vec<Effect>,
    /// The process that just ended, until somebody buries it.
    remains: Option<Remains>,
    /// The end of a life whose last lines are being fetched.
    dying: Option<(Life, Exit)>,
    probe: Option<SpawnHandle>,
    /// The last order to stop that was not answered yet.
    ticket: Option<u64>,
    /// It is to be started by the next run of the agent, though somebody had it stopped.
    stopped_for_now: bool,
    workshop: Workshop,
    agent: Rc<Recipient<FromSupervisor>>,
}

impl Supervisor {
    /// Minds `node` as the workshop knows it: whatever runs already is taken up, not started again. If its process ended
    /// while nobody minded it, what is to be told of that comes back.
    pub fn start(
        ward: WardId,
        node: Arc<Node>,
        workshop: Workshop,
        agent: Rc<Recipient<FromSupervisor>>,
    ) -> (Addr<Self>, Option<NodeReport>) {
        let fact = workshop.fact(ward);
        let (state, mut first) = taken_up(&fact, &node, &workshop.past(ward));
        if let Fact::Died(life, ..) = fact {
            workshop.forget_death(ward);
            if state.told() == NodeState::Stopped {
                workshop.note_stopped(ward, node.name.clone(), life);
            }
        }
        let report = take_report(&mut first);
        if let Some((state, reason)) = report.as_ref().and_then(unasked) {
            workshop.examine(ward, &node, state, reason);
        }
        let report = report.map(|report| told_of(&node, report, None));
        if let Some(NodeReport { new: NodeState::Failed, reason, .. }) = &report {
            workshop.note_failed(ward, node.name.clone(), state.life(), reason.to_string());
        }
        let place = workshop.clone();
        let address = Actor::start(Self {
            ward,
            node,
            state,
            first,
            remains: None,
            dying: None,
            probe: None,
            ticket: None,
            stopped_for_now: false,
            workshop,
            agent,
        });
        place.assign(ward, address.clone());
        (address, report)
    }

    /// The one door through which state changes.
    fn drive(&mut self, event: Event, ctx: &mut Context<Self>) {
        for effect in self.state.step(event, Instant::now(), &terms(&self.node)) {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Launch(life) => {
                let (ward, node, remains) = (self.ward, Arc::clone(&self.node), self.remains.take());
                let past = self.state.past(Instant::now());
                self.tell(FromSupervisor::Launch(LaunchOrder { ward, node, life, past, remains }));
            }
            Effect::Terminate(_) => self.complain("ask to end", self.workshop.terminate(self.ward)),
            Effect::Kill(_) => self.complain("kill", self.workshop.kill(self.ward)),
            Effect::Sweep(life) => {
                self.workshop.sweep(self.ward, Arc::clone(&self.node), life, self.remains.take());
            }
            Effect::AwaitReady(life) => self.await_ready(life, ctx),
            Effect::After(Duration::ZERO, event) => self.drive(event, ctx),
            Effect::After(delay, event) => {
                ctx.run_later(delay, move |me, ctx| me.drive(event, ctx));
            }
            Effect::Report(report) => self.report(report, ctx),
        }
    }

    fn report(&mut self, report: Report, ctx: &mut Context<Self>) {
        if let Some(probe) = self.probe.take().filter(|_| report.new != NodeState::Pending) {
            ctx.cancel_future(probe);
        }
        if report.new == NodeState::Stopped {
            let (node, life) = (self.node.name.clone(), self.state.life());
            match self.stopped_for_now {
                true => self.workshop.note_rested(self.ward, node, life),
                false => self.workshop.note_stopped(self.ward, node, life),
            }
        }
        if report.new == NodeState::Failed {
            self.workshop.note_failed(self.ward, self.node.name.clone(), self.state.life(), report.reason.to_string());
        }
        let ticket = self.ticket.take_if(|_| report.new == NodeState::Stopped);
        let death = unasked(&report);
        self.tell(FromSupervisor::Report(told_of(&self.node, report, ticket)));
        if let Some((state, reason)) = death {
            self.workshop.examine(self.ward, &self.node, state, reason);
        }
    }

    fn await_ready(&mut self, life: Life, ctx: &mut Context<Self>) {
        let ready = Event::Ready(life);
        let handle = match self.node.ready.by {
            ReadyBy::Settle(time) => ctx.run_later(time, move |me, ctx| me.drive(ready, ctx)),
            ReadyBy::Port(port) => {
                let accepted = wrap_future::<_, Self>(accepting(port));
                ctx.spawn(accepted.map(move |(), me, ctx| me.drive(ready, ctx)))
            }
        };
        if let Some(former) = self.probe.replace(handle) {
            ctx.cancel_future(former);
        }
    }

    /// The process of the present life ended: its last lines are worth a moment's wait, unless it was simply killed.
    fn died(&mut self, life: Life, exit: Exit, remains: Remains, ctx: &mut Context<Self>) {
        let speaks = !matches!(exit, Exit::Signal { core_dumped: false, number: 1 | 2 | 9 | 15 });
        if !speaks || self.state.is_ending() {
            // What comes next begins with the burial. Where nothing does, it is at hand.
            self.remains = Some(remains);
            self.drive(Event::Exited(life, exit, None), ctx);
            return drop(self.remains.take());
        }
        self.dying = Some((life, exit));
        self.workshop.last_words(self.ward, self.node.name.clone(), life, remains);
        ctx.run_later(LAST_WORDS_WITHIN, move |me, ctx| me.last_words(life, None, ctx));
    }

    fn last_words(&mut self, life: Life, output: Option<Output>, ctx: &mut Context<Self>) {
        if let Some((_, exit)) = self.dying.take_if(|(dying, _)| *dying == life) {
            self.drive(Event::Exited(life, exit, output), ctx);
        }
    }

    fn complain(&self, what: &str, result: std::io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(node = %self.node.name, "cannot {what} process {:?}: {error}", self.state.pid());
        }
    }

    fn tell(&self, news: FromSupervisor) {
        self.agent.do_send(news);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        for effect in std::mem::take(&mut self.first) {
            self.perform(effect, ctx);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.tell(FromSupervisor::Gone(self.ward, self.node.name.clone()));
    }
}

impl Handler<NodeOrder> for Supervisor {
    type Result = ();

    fn handle(&mut self, order: NodeOrder, ctx: &mut Context<Self>) {
        let event = match order {
            NodeOrder::Start => {
                self.stopped_for_now = false;
                Event::Start
            }
            NodeOrder::Stop { ticket, for_now } => {
                (self.ticket, self.stopped_for_now) = (Some(ticket), for_now);
                Event::Stop
            }
            NodeOrder::Hurry => Event::Hurry,
            NodeOrder::Redefine(node) => {
                self.node = node;
                return;
            }
        };
        self.drive(event, ctx);
    }
}

impl Handler<Word> for Supervisor {
    type Result = ();

    fn handle(&mut self, word: Word, ctx: &mut Context<Self>) {
        match word {
            Word::Launched { life, pid } => self.drive(Event::Launched(life, pid), ctx),
            Word::LaunchFailed { life, failure } => self.drive(Event::LaunchFailed(life, failure), ctx),
            Word::Died { life, exit, remains, untold } => {
                self.died(life, exit, remains, ctx);
                drop(untold);
            }
            Word::LastWords { life, output } => self.last_words(life, output, ctx),
            Word::Swept { life, trouble } => {
                if let Some(trouble) = trouble {
                    self.tell(FromSupervisor::Trouble(self.node.name.clone(), trouble));
                }
                self.drive(Event::Swept(life), ctx);
            }
        }
    }
}

/// The state that a death led to, and why, if it was one that nobody asked for and that is not as it should be.
fn unasked(report: &Report) -> Option<(NodeState, Text)> {
    let is_death = report.exit.is_some() && matches!(report.new, NodeState::Crashed | NodeState::Failed);
    is_death.then(|| (report.new, report.reason.clone()))
}

fn terms(node: &Node) -> Terms {
    Terms { restart: node.restart.clone(), grace: node.stop_grace }
}

fn told_of(node: &Node, report: Report, ticket: Option<u64>) -> NodeReport {
    let Report { new, pid, exit, attempt, restarts, reason, output, .. } = report;
    NodeReport { node: node.name.clone(), new, pid, exit, attempt, restarts, reason, output, ticket }
}

/// The state of a node as it is found, and what follows from that at once.
fn taken_up(fact: &Fact, node: &Node, past: &Past) -> (State, Vec<Effect>) {
    let now = Instant::now();
    // Without chance waits are spread less, and that is all.
    let chance = getrandom::u64().unwrap_or_default();
    let with_past = |state: State| state.with_past(past, chance, now);
    match *fact {
        Fact::Down(life) => (with_past(State::stopped(life)), Vec::new()),
        Fact::GivenUp(life) => (with_past(State::given_up(life)), Vec::new()),
        Fact::Launching(life) => (with_past(State::launching(life)), Vec::new()),
        Fact::Alive(life, pid) => (with_past(State::adopted(life, pid, now)), Vec::new()),
        Fact::Died(life, pid, exit) => {
            let mut state = with_past(State::adopted(life, pid, now));
            let effects = state.step(Event::Exited(life, exit, None), now, &terms(node));
            (state, effects)
        }
    }
}

/// Takes the report out of what is to be done, if there is one.
fn take_report(effects: &mut Vec<Effect>) -> Option<Report> {
    let at = effects.iter().position(|effect| matches!(effect, Effect::Report(_)))?;
    match effects.remove(at) {
        Effect::Report(report) => Some(report),
        _ => None,
    }
}

/// Resolves when a connection to this port of the machine itself is accepted.
async fn accepting(port: u16) {
    let (mut pause, longest) = PROBE_PAUSE;
    while !matches!(timeout(longest, TcpStream::connect(("127.0.0.1", port))).await, Ok(Ok(_))) {
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
impl Handler<crate::run::testing::Panic> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: crate::run::testing::Panic, _: &mut Context<Self>) {
        panic!("a test wants this actor to panic");
    }
}

//! The supervisor of one node: takes orders from the agent and words from the workshop, and tells the agent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, SpawnHandle};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::channel::counts::Counts;
use super::channel::restraint::Restraint;
use super::channel::{Heard, Report as Reported};
use super::liveness::{self, Vigil};
use super::process::Remains;
use super::said::Said;
use super::state::{Effect, Event, Report, State, Terms};
use super::workshop::{Down, Fact, WardId, Word, Workshop};
use super::{FromSupervisor, LaunchOrder, Wait};
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::{Exit, Life, Node, NodeState, Output, Probe, ProbeBy, ReadyBy, Text, Timestamp};

/// How long the last lines of a node may delay the news of its death, on a disk that hangs. They are read before any
/// launch that waits, so a busy agent alone does not delay them.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);
/// From one status of a node to the next that is told: of more the last one is.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// The pauses between two tries to reach a node's port: doubling from the first to the last.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How long it takes at most until it is told how much was held back of what a Zeek node reports.
const HELD_PAUSE: Duration = Duration::from_secs(10);

/// Why a try to connect failed.
type Refusal = Rc<RefCell<Option<String>>>;

/// Minds one node. Dropping it, also by a panic, tells the agent that the node has no supervisor.
pub struct Supervisor {
    ward: WardId,
    node: Arc<Node>,
    /// What the node is is not known: it is neither launched nor watched by that definition.
    guessed: bool,
    state: State,
    /// What was decided before it began.
    first: Vec<Effect>,
    /// The process that just ended, until somebody buries it.
    remains: Option<Remains>,
    /// The end of a life whose last lines are being fetched.
    dying: Option<(Life, Exit)>,
    /// Waits for the sign that it is ready, or, once it is, until its earlier crashes are forgotten.
    sign: Option<SpawnHandle>,
    /// Why the last try to connect failed while it was awaited.
    refusal: Option<Refusal>,
    /// Watches it while it is up.
    vigil: Option<Vigil>,
    /// Of a node that has said how it is.
    saying: Option<Box<Saying>>,
    /// Of a Zeek node that has said something.
    hearing: Option<Box<Hearing>>,
    /// The last order to stop that was not answered yet.
    ticket: Option<u64>,
    /// It is to be started by the next run of the agent, though somebody had it stopped.
    stopped_for_now: bool,
    /// What is on disk already of the last life that was swept.
    noted: Option<(Life, Down)>,
    /// That it is STOPPED or FAILED, to be told once it is on disk.
    unnoted: VecDeque<NodeReport>,
    workshop: Rc<Workshop>,
    agent: Rc<Recipient<FromSupervisor>>,
}

/// How a node says that it is.
#[derive(Default)]
struct Saying {
    /// When that was told last.
    told_at: Option<Instant>,
    /// To be told once the pause is over.
    untold: Option<Text>,
}

/// What is remembered of what a Zeek node said by its channel.
struct Hearing {
    life: Life,
    counts: Counts,
    /// The most memory that it had, in bytes, as it said last.
    memory: Option<u64>,
    restraint: Restraint,
    /// Somebody comes back to tell what was held back.
    comes_back: bool,
}

impl Supervisor {
    /// Minds `node` as the workshop knows it: whatever runs already is taken up, not started again. If its process ended
    /// while nobody minded it, what is to be told of that comes back. Where the definition is `guessed`, only what runs is
    /// minded until the true one comes.
    pub fn start(
        ward: WardId,
        node: Arc<Node>,
        guessed: bool,
        workshop: Rc<Workshop>,
        agent: Rc<Recipient<FromSupervisor>>,
    ) -> Option<NodeReport> {
        let fact = workshop.fact(ward);
        let (state, mut first) = taken_up(&fact, &terms(&node, guessed), ward, &workshop);
        if let Fact::Died { life, .. } = fact {
            workshop.forget_death(ward);
            if state.told() == NodeState::Stopped {
                workshop.note_down(ward, false, node.name.clone(), life, Down::Stopped);
            }
        }
        // What was told before this agent began is not told again.
        let was_told = matches!(fact, Fact::Died { told: true, .. });
        if state.is_undecided() && !was_told {
            agent.do_send(FromSupervisor::Waits(undecided(ward, &node, &state)));
        }
        let is_told = |report: &Report| was_told && report.new == NodeState::Crashed;
        let report = take_report(&mut first).map(|mut report| {
            if let Some((state, reason)) = unasked(&report) {
                name_dossier(&mut report, workshop.dossier(ward));
                workshop.examine(ward, &node, state, reason, None);
            }
            report
        });
        let report = report.filter(|report| !is_told(report)).map(|report| told_of(&node, report, None));
        if let Some(NodeReport { new: NodeState::Failed, reason, .. }) = &report {
            workshop.note_failed(ward, false, node.name.clone(), state.life(), reason.to_string());
        }
        let place = Rc::clone(&workshop);
        let address = Actor::start(Self {
            ward,
            node,
            guessed,
            state,
            first,
            remains: None,
            dying: None,
            sign: None,
            refusal: None,
            vigil: None,
            saying: None,
            hearing: None,
            ticket: None,
            stopped_for_now: false,
            noted: None,
            unnoted: VecDeque::new(),
            workshop,
            agent,
        });
        place.assign(ward, address);
        report
    }

    /// The one door through which state changes.
    fn drive(&mut self, event: Event, ctx: &mut Context<Self>) {
        for effect in self.state.step(event, Instant::now(), &terms(&self.node, self.guessed)) {
            self.perform(effect, ctx);
        }
        self.keep_vigil(ctx);
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
                let down = self.state.is_last_sweep().then(|| self.down());
                self.workshop.sweep(self.ward, Arc::clone(&self.node), life, self.remains.take(), down);
            }
            Effect::AwaitReady(life) => self.await_ready(life, Duration::ZERO, ctx),
            Effect::After(Duration::ZERO, event) => self.drive(event, ctx),
            Effect::After(delay, event) => {
                if let Event::RetryDue(life) = event {
                    self.wait(life, delay);
                }
                ctx.run_later(delay, move |me, ctx| me.drive(event, ctx));
            }
            Effect::Report(report) => self.report(report, ctx),
            Effect::Complain(what) => self.tell(FromSupervisor::Trouble(self.node.name.clone(), what)),
        }
    }

    fn report(&mut self, mut report: Report, ctx: &mut Context<Self>) {
        if report.new != NodeState::Pending
            && let Some(sign) = self.sign.take()
        {
            ctx.cancel_future(sign);
        }
        if report.new != NodeState::Running
            && let Some(saying) = &mut self.saying
        {
            saying.untold = None; // it was said by a life that is over, or has to be said anew
        }
        let death = unasked(&report);
        if death.is_some() {
            name_dossier(&mut report, self.workshop.dossier(self.ward));
        }
        let (node, life) = (self.node.name.clone(), self.state.life());
        match report.new {
            NodeState::Stopped if self.noted.take() == Some((life, self.down())) && self.unnoted.is_empty() => {
                self.workshop.is_down(self.ward);
                let ticket = self.ticket.take();
                return self.tell(FromSupervisor::Report(told_of(&self.node, report, ticket)));
            }
            NodeState::Stopped => self.workshop.note_down(self.ward, true, node, life, self.down()),
            NodeState::Failed => self.workshop.note_failed(self.ward, true, node, life, report.reason.to_string()),
            // Nothing of these is reported while a note is being written: what comes next waits behind it in the workshop.
            _ => {
                if report.new == NodeState::Running {
                    let has_to_say_so = self.node.ready_by().missed().is_some();
                    self.workshop.note_ready(self.ward, has_to_say_so, node, life);
                    self.await_stable(life, ctx);
                }
                self.tell(FromSupervisor::Report(told_of(&self.node, report, None)));
                if self.state.is_undecided() {
                    self.tell(FromSupervisor::Waits(undecided(self.ward, &self.node, &self.state)));
                }
                return self.examine(death);
            }
        }
        // Whoever hears of it relies on it, also should this agent be killed in the next moment.
        let ticket = self.ticket.take_if(|_| report.new == NodeState::Stopped);
        self.unnoted.push_back(told_of(&self.node, report, ticket));
        self.examine(death);
    }

    /// Has it looked into why it died, if nobody asked it to.
    fn examine(&self, death: Option<(NodeState, Text)>) {
        if let Some((state, reason)) = death {
            let its_own = self.hearing.as_ref().filter(|hearing| hearing.life == self.state.life());
            let memory = its_own.and_then(|hearing| hearing.memory);
            self.workshop.examine(self.ward, &self.node, state, reason, memory);
        }
    }

    /// Whoever minds it next, here or in the next run of the agent, has it wait no longer and no less.
    fn wait(&self, life: Life, delay: Duration) {
        let now = Instant::now();
        let (ward, past, until) = (self.ward, self.state.past(now), now + delay);
        if self.workshop.wait(ward, life, past.clone(), until) {
            self.tell(FromSupervisor::Waits(Wait { ward, node: self.node.name.clone(), life, past, until }));
        }
    }

    /// Has it known, also to the next run of the agent, when its crashes are forgotten.
    fn await_stable(&mut self, life: Life, ctx: &mut Context<Self>) {
        if let Some(left) = self.state.stable_in(Instant::now(), &terms(&self.node, self.guessed)) {
            self.sign = Some(ctx.run_later(left, move |me, _| me.is_stable(life)));
        }
    }

    fn is_stable(&self, life: Life) {
        let left =
            (self.state.life() == life).then(|| self.state.stable_in(Instant::now(), &terms(&self.node, self.guessed)));
        if left.flatten() == Some(Duration::ZERO) {
            self.workshop.note_stable(self.ward, self.node.name.clone(), life);
        }
    }

    fn down(&self) -> Down {
        if self.stopped_for_now { Down::Rested } else { Down::Stopped }
    }

    /// Waits for the sign that it is ready, of a process that began so long ago.
    fn await_ready(&mut self, life: Life, age: Duration, ctx: &mut Context<Self>) {
        let (vigil, effects) = Vigil::unready(life, &self.node, Instant::now());
        self.vigil = Some(vigil);
        effects.into_iter().for_each(|effect| self.watch_on(life, effect, ctx));
        let handle = match (self.node.ready_by(), self.node.ready.by.address()) {
            (ReadyBy::Settle(time), _) => {
                Some(ctx.run_later(time.saturating_sub(age), move |me, ctx| me.looks_ready(life, ctx)))
            }
            (_, Some(address)) => {
                let refusal = self.refusal.insert(Refusal::default());
                let accepted = wrap_future::<_, Self>(accepting(address, Rc::clone(refusal)));
                Some(ctx.spawn(accepted.map(move |(), me, ctx| me.looks_ready(life, ctx))))
            }
            _ => None, // it says so
        };
        if let Some(former) = std::mem::replace(&mut self.sign, handle) {
            ctx.cancel_future(former);
        }
    }

    /// It is ready, unless it has ended: where this process was held up, both come at once.
    fn looks_ready(&mut self, life: Life, ctx: &mut Context<Self>) {
        if self.dying.as_ref().is_some_and(|(dying, _)| *dying == life) {
            return; // its last words are still being read
        }
        if self.workshop.has_untold_ends() {
            self.sign = Some(ctx.run_later(Duration::ZERO, move |me, ctx| me.looks_ready(life, ctx)));
            return;
        }
        self.drive(Event::Ready(life), ctx);
    }

    // --- signs of life ---

    /// Begins to watch a process that is ready, and ends with it.
    fn keep_vigil(&mut self, ctx: &mut Context<Self>) {
        if !self.state.is_up() {
            let question = self.vigil.take().and_then(|vigil| vigil.open_question());
            if let Some(round) = question {
                self.workshop.give_up_question(self.ward, round);
            }
            return;
        }
        let life = self.state.life();
        let is_watched = self.vigil.as_ref().is_some_and(|vigil| vigil.is_of_ready(life));
        if self.state.told() == NodeState::Running && !is_watched && !self.guessed {
            let (vigil, effects) = Vigil::running(life, &self.node, Instant::now());
            self.vigil = Some(vigil);
            effects.into_iter().for_each(|effect| self.watch_on(life, effect, ctx));
        }
    }

    fn watch(&mut self, life: Life, event: liveness::Event, ctx: &mut Context<Self>) {
        let grace = self.node.stop_grace;
        let Some(vigil) = self.vigil.as_mut().filter(|vigil| vigil.life() == life) else { return };
        for effect in vigil.step(event, Instant::now(), grace) {
            self.watch_on(life, effect, ctx);
        }
    }

    fn watch_on(&mut self, life: Life, effect: liveness::Effect, ctx: &mut Context<Self>) {
        use liveness::Effect as E;
        match effect {
            E::After(delay, event) => {
                ctx.run_later(delay, move |me, ctx| me.watch(life, event, ctx));
            }
            E::Listen => self.workshop.listen(self.ward, Arc::clone(&self.node), life, true),
            E::Ask(round) => self.ask(life, round, ctx),
            E::Unheard => {
                let what = if self.node.speaks_by_channel() { "channel" } else { "socket" };
                let what = format!(
                    "it cannot be heard, so its watchdog is not heeded until it is started again: its {what} is gone"
                );
                self.tell(FromSupervisor::Trouble(self.node.name.clone(), what));
            }
            E::GiveUp(round) => self.workshop.give_up_question(self.ward, round),
            E::Unready if self.may_have_said_so() => {
                let what = "it may have said so while its agent was away, so it is not ended: it stays PENDING until it \
                            says READY=1 or is started again";
                let what = format!("{}; {what}", self.unready());
                self.tell(FromSupervisor::Trouble(self.node.name.clone(), what));
            }
            E::Unready => self.drive(Event::Hangs(life, self.unready().into()), ctx),
            E::Hung(why) => self.drive(Event::Hangs(life, why.into()), ctx),
        }
    }

    /// Whether its sign may have been given while nobody was there who could hear it: what was said to a socket then is lost.
    fn may_have_said_so(&self) -> bool {
        self.node.ready.by == ReadyBy::Notify && self.workshop.was_adopted(self.ward)
    }

    /// Why it is not ready, in words.
    fn unready(&self) -> String {
        let within = humantime::format_duration(self.node.ready_within());
        let missed = self.node.ready_by().missed().unwrap_or_default();
        match self.refusal.as_ref().and_then(|refusal| refusal.take()) {
            Some(refusal) => format!("not ready within {within}: {missed} ({refusal})"),
            None => format!("not ready within {within}: {missed}"),
        }
    }

    fn ask(&mut self, life: Life, round: u64, ctx: &mut Context<Self>) {
        let probe = self.node.liveness.as_ref().and_then(|liveness| liveness.probe.as_ref());
        let Some(Probe { by, timeout, .. }) = probe else { return };
        match (by, by.address()) {
            (ProbeBy::Exec(command), _) => {
                self.workshop.ask(self.ward, Arc::clone(&self.node), life, round, command.clone());
            }
            (_, Some(address)) => {
                let answered = wrap_future::<_, Self>(accepts(address, *timeout));
                ctx.spawn(answered.map(move |answer, me, ctx| {
                    me.watch(life, liveness::Event::Probed(round, answer), ctx);
                }));
            }
            (_, None) => {}
        }
    }

    fn hear(&mut self, life: Life, said: Said, all: bool, ctx: &mut Context<Self>) {
        use liveness::Event as E;
        if life != self.state.life() || !self.state.is_up() {
            return;
        }
        let Said { ready, lives, hangs, stopping, status, extend, misunderstood: _ } = said;
        if let Some(status) = status {
            self.say(status, ctx);
        }
        if ready && self.node.ready.by == ReadyBy::Notify {
            self.drive(Event::Ready(life), ctx);
        }
        let signs = [
            extend.map(E::Extend),
            lives.then_some(E::Lives),
            stopping.then_some(E::Stopping),
            hangs.then_some(E::Hangs),
            all.then_some(E::Listened),
        ];
        signs.into_iter().flatten().for_each(|sign| self.watch(life, sign, ctx));
    }

    /// Takes in what a Zeek node said by its channel, also in a life that is over by now.
    fn hear_zeek(&mut self, life: Life, heard: Heard, all: bool, ctx: &mut Context<Self>) {
        use liveness::Event as E;
        let now = Instant::now();
        let Heard { hello, beat, reports, held, answers: _, wrong } = heard;
        let name = self.node.name.clone();
        let hearing = self.hearing.get_or_insert_with(|| {
            let (counts, restraint) = (Counts::default(), Restraint::new(now));
            Box::new(Hearing { life, counts, memory: None, restraint, comes_back: false })
        });
        if std::mem::replace(&mut hearing.life, life) != life {
            (hearing.counts, hearing.memory) = (Counts::default(), None);
        }
        hearing.memory = beat.as_ref().map(|beat| beat.memory).or(hearing.memory);
        hearing.restraint.hold(held);
        let told: Vec<_> =
            reports.into_iter().filter(|report| hearing.restraint.admits(report.is_error, now)).collect();
        let is_due = hearing.restraint.has_held() && !std::mem::replace(&mut hearing.comes_back, true);
        let is_present = life == self.state.life() && self.state.is_up();
        let counts = beat.filter(|_| is_present).and_then(|beat| hearing.counts.hear(&beat, now, Timestamp::now()));
        if is_due {
            ctx.run_later(HELD_PAUSE, |me, _| me.tell_held());
        }
        for what in wrong {
            self.tell(FromSupervisor::Trouble(name.clone(), what));
        }
        for Reported { is_error, text } in told {
            self.tell(match is_error {
                true => FromSupervisor::Trouble(name.clone(), format!("Zeek reports an error: {text}")),
                false => FromSupervisor::Remark(name.clone(), format!("Zeek warns: {text}")),
            });
        }
        if let Some(counts) = counts {
            self.tell(FromSupervisor::Counts(name, Box::new(counts)));
        }
        // Nobody's heart beats before its hello, which an earlier run of the agent may have heard last.
        if is_present && (hello.is_some() || beat.is_some()) && self.node.ready_by() == ReadyBy::Zeek {
            self.drive(Event::Ready(life), ctx);
        }
        let signs = [(hello.is_some() || beat.is_some()).then_some(E::Lives), all.then_some(E::Listened)];
        signs.into_iter().flatten().for_each(|sign| self.watch(life, sign, ctx));
    }

    /// Tells how much was held back of what a Zeek node reports.
    fn tell_held(&mut self) {
        let Some(hearing) = &mut self.hearing else { return };
        hearing.comes_back = false;
        let held = hearing.restraint.take_held();
        let (name, what) = (self.node.name.clone(), held.to_string());
        self.tell(match held.errors > 0 {
            true => FromSupervisor::Trouble(name, what),
            false => FromSupervisor::Remark(name, what),
        });
    }

    /// Tells what it says of itself: at once, or the last of it when the pause is over.
    fn say(&mut self, status: Text, ctx: &mut Context<Self>) {
        let saying = self.saying.get_or_insert_default();
        if saying.untold.replace(status).is_some() {
            return; // somebody comes back for it already
        }
        let since = saying.told_at.map_or(STATUS_PAUSE, |told_at| told_at.elapsed());
        match STATUS_PAUSE.saturating_sub(since) {
            Duration::ZERO => self.say_now(),
            left => drop(ctx.run_later(left, |me, _| me.say_now())),
        }
    }

    fn say_now(&mut self) {
        if let Some(saying) = &mut self.saying
            && let Some(status) = saying.untold.take()
        {
            saying.told_at = Some(Instant::now());
            self.tell(FromSupervisor::Says(self.node.name.clone(), status));
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
            match effect {
                Effect::AwaitReady(life) => self.await_ready(life, self.workshop.age(self.ward), ctx),
                effect => self.perform(effect, ctx),
            }
        }
        self.await_stable(self.state.life(), ctx);
        self.keep_vigil(ctx);
        self.workshop.await_words(self.ward); // what the supervisor before this one did not hear of any more
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
                if !std::mem::take(&mut self.guessed) {
                    return;
                }
                Event::Defined
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
                if self.node.is_zeek() {
                    self.workshop.channel_is_over(self.ward, life);
                }
                self.died(life, exit, remains, ctx);
                drop(untold);
            }
            Word::Speaks { life } => self.workshop.listen(self.ward, Arc::clone(&self.node), life, false),
            Word::Said { life, said, all } => self.hear(life, said, all, ctx),
            Word::Heard { life, heard, all } => self.hear_zeek(life, *heard, all, ctx),
            Word::Unheard { life } => self.watch(life, liveness::Event::Unheard, ctx),
            Word::Asked { life, round, exit, remains } => {
                self.workshop.clear_question(self.ward, Arc::clone(&self.node), (life, round), exit, remains);
            }
            Word::Probed { life, round, answer } => self.watch(life, liveness::Event::Probed(round, answer), ctx),
            Word::Noted => {
                if let Some(report) = self.unnoted.pop_front() {
                    self.tell(FromSupervisor::Report(report));
                }
            }
            Word::LastWords { life, output } => self.last_words(life, output, ctx),
            Word::Swept { life, trouble, noted } => {
                self.noted = noted.map(|down| (life, down));
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

/// Has the next run of the agent know that this end was told, though nobody knows yet what comes of it.
fn undecided(ward: WardId, node: &Node, state: &State) -> Wait {
    let now = Instant::now();
    Wait { ward, node: node.name.clone(), life: state.life(), past: state.past(now), until: now }
}

/// Says how to see what is found out about a death.
fn name_dossier(report: &mut Report, name: Option<String>) {
    if let Some(name) = name {
        // Put together by hand: on the way of the news, what formats is more than all else.
        report.reason = [&*report.reason, "; its dossier: `watchpost crashes show ", &name, "`"].concat().into();
    }
}

fn terms(node: &Node, guessed: bool) -> Terms {
    Terms { known: !guessed, restart: node.restart.clone(), grace: node.stop_grace }
}

fn told_of(node: &Node, report: Report, ticket: Option<u64>) -> NodeReport {
    let Report { new, pid, exit, attempt, restarts, reason, output, .. } = report;
    let (node, output) = (node.name.clone(), output.map(Box::new));
    NodeReport { node, new, pid, exit, attempt, restarts, reason, output, ticket }
}

/// The state of a node as it is found, and what follows from that at once.
fn taken_up(fact: &Fact, terms: &Terms, ward: WardId, workshop: &Workshop) -> (State, Vec<Effect>) {
    let (now, past) = (Instant::now(), &workshop.past(ward));
    // Without chance waits are spread less, and that is all.
    let chance = getrandom::u64().unwrap_or_default();
    let with_past = |state: State| state.with_past(past, chance, now);
    match *fact {
        Fact::Down(life) => (with_past(State::stopped(life)), Vec::new()),
        Fact::GivenUp(life) => (with_past(State::given_up(life)), Vec::new()),
        Fact::Launching(life) => (with_past(State::launching(life)), Vec::new()),
        Fact::Crashed(life, until) => {
            let left = until.saturating_duration_since(now);
            // Where it does not wait any more, the launch sweeps first.
            let sweep = (!left.is_zero()).then_some(Effect::Sweep(life));
            let retry = Effect::After(left, Event::RetryDue(life));
            (with_past(State::crashed(life)), sweep.into_iter().chain([retry]).collect())
        }
        Fact::Alive(life, pid) if workshop.is_ready(ward) => {
            // It has been up for as long as anybody knows.
            let since = now.checked_sub(workshop.age(ward)).unwrap_or(now);
            (with_past(State::adopted(life, pid, since)), Vec::new())
        }
        Fact::Alive(life, pid) => (with_past(State::pending(life, pid)), vec![Effect::AwaitReady(life)]),
        Fact::Died { life, pid, exit, .. } => {
            let state = match workshop.is_ready(ward) {
                true => State::adopted(life, pid, now), // nobody knows for how long it ran
                false => State::pending(life, pid),
            };
            let mut state = with_past(state);
            let effects = state.step(Event::Exited(life, exit, None), now, terms);
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

/// Resolves when a connection to this address is accepted, and keeps why the last one was not.
///
/// No kernel tells that somebody listens, so there is nothing better than to try: more and more slowly, and only until the
/// node is ready, or late.
async fn accepting(address: SocketAddr, refusal: Refusal) {
    let (mut pause, longest) = PROBE_PAUSE;
    while let Err(why) = accepts(address, longest).await {
        refusal.replace(Some(why));
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Whether a connection to this address is accepted in time; `Err` says why not.
async fn accepts(address: SocketAddr, within: Duration) -> Result<(), String> {
    match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no answer within {}", humantime::format_duration(within))),
    }
}

#[cfg(test)]
impl Handler<crate::run::testing::Panic> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: crate::run::testing::Panic, _: &mut Context<Self>) {
        panic!("a test wants this actor to panic");
    }
}

#[cfg(test)]
mod tests {
    use actix::dev::ContextFut;

    use super::*;

    /// What a task of the runtime (tokio 1.54) takes beside its future, and in which steps it grows, in bytes.
    const TASK: usize = 104;
    const STEP: usize = 128;

    #[test]
    fn a_supervisor_with_all_that_it_needs_to_run_takes_six_steps_of_memory() {
        assert!(size_of::<ContextFut<Supervisor, Context<Supervisor>>>() + TASK <= 6 * STEP);
    }
}

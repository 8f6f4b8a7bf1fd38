//! The agent's actor: the controller's orders in, supervisors minded, news out.
//!
//! News goes out before anything is launched: reports and launches that arrive together are held until the mailbox
//! is empty, then the news is mailed in one piece, and only then do the hands get to work. If somebody else has died
//! by then, that is told first, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture,
};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::outbox::{Bounds, Outbox};
use super::porter::{Porter, Said};
use super::returns::{Adoptable, retrieve, take_up};
use super::spool::Spool;
use super::state::{Effect, Event, Inquiry, State};
use super::turn::pass_on;
use crate::alarm::Alarm;
use crate::archive::{Archive, News, Opening};
use crate::bridge::{EndLink, Farewell, LinkDown, LinkId, LinkUp, Mail, NotKnown};
use crate::bundle::BundleId;
use crate::bundle::tree::Place;
use crate::launch::zeek::{Objection, Preparation};
use crate::launch::{Site, Survey};
use crate::message::agent::{
    GetCrashesRequest, GetOutputRequest, NodeAnswer, ReadOutputRequest, RenewCertificateRequest,
    RenewCertificateResponse, StageBundlesRequest, ToAgent, ToController,
};
use crate::message::frame::Body;
use crate::model::{
    CrashRules, InstanceName, Life, Node, NodeName, NodeState, Now, Output, OutputRules, RequestId, Timestamp,
};
use crate::rest::Rest;
use crate::supervisor::channel::Question;
use crate::supervisor::crash::Coroner;
use crate::supervisor::crash::morgue::Morgue;
use crate::supervisor::hands::{FIRST as LAUNCHING, Subject};
use crate::supervisor::output::Keeper;
use crate::supervisor::process::groups::{Groups, NoGroups, abilities};
use crate::supervisor::process::oom::KernelLog;
use crate::supervisor::process::{limits, reserve_berths};
use crate::supervisor::process::run_dir::RunDir;
use crate::supervisor::register::Register;
use crate::supervisor::workshop::{Clerks, Fact, WardId, Workshop};
use crate::supervisor::{FromSupervisor, LaunchOrder, Supervisor};

/// How long nodes have to answer: less than the controller waits for their agent.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// So often the turn is passed on until a link has written what was mailed to it, and until an observer beside it has heard.
const WRITING: u8 = 2;
/// For how many turns launches are held at most because ever more is to be told: some milliseconds.
const HOLD: u8 = 50;

/// What an agent needs to start.
pub struct AgentSetup {
    pub instance: InstanceName,
    /// Names the numbering of its news if it has to begin anew; never the same twice.
    pub epoch: u64,
    /// Drawn by chance for this run.
    pub run: u64,
    /// Names what this process has locked; 0 if nothing.
    pub place: u64,
    pub site: Site,
    /// Where the logs of Zeek nodes go unless a configuration says otherwise.
    pub logs: PathBuf,
    /// Has a control group for each node; or why they cannot have one.
    pub groups: Result<Groups, NoGroups>,
    /// Has a socket for each node; `Err` says why they cannot have one.
    pub run_dir: Result<RunDir, String>,
    /// How much of its nodes' output is kept.
    pub output: OutputRules,
    /// How much is kept of nodes that died unasked.
    pub crashes: CrashRules,
    pub bounds: Bounds,
    /// Hears what the process that hosts the agent has to know.
    pub host: Option<Recipient<AgentEvent>>,
}

/// What the agent tells the process that hosts it.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum AgentEvent {
    /// The controller will have nothing to do with it, for this reason.
    Refused(String),
    /// The actor is gone: stopped, or by a panic. Its nodes live on, and nobody minds them.
    Gone,
}

/// Host → agent: stop every node, in order. The result comes when the last one is gone, or nothing more can be done.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopAllNodes;

/// Host → agent: the same, and the next agent with the same nodes starts those that this stops.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopAllNodesForNow;

/// Host → agent: wait for no node's grace any more; SIGKILL what is being stopped.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct HurryUp;

/// Host → agent: bring this request for the next certificate of this process to the controller. The result is the
/// certificate, or why there is none; of several requests the last gets one.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<u8>, String>")]
pub struct RenewCertificate {
    /// A request for a certificate (PKCS #10, DER).
    pub request: Vec<u8>,
}

/// See the module. Dropping it, also by a panic, tells the host.
pub struct Agent {
    state: State,
    spool: Spool,
    workshop: Rc<Workshop>,
    site: Arc<Site>,
    archive: Archive,
    porter: Porter,
    /// What was found on disk and waits for its ward.
    adoptable: BTreeMap<NodeName, Adoptable>,
    found: Vec<Event>,
    link: Option<Link>,
    /// Why the controller refused it when it last said anything: the same again, at each try, is not worth a line.
    refused: Option<String>,
    alarm: Alarm,
    rest: Rest,
    /// Read once for all the mail that is handled before the next flush.
    now: Option<Now>,
    flushing: bool,
    launches: Vec<LaunchOrder>,
    /// Launches whose news was mailed, and for how many turns the first of them has been held.
    held: Vec<LaunchOrder>,
    turns: u8,
    /// How often the turn is still to be passed on until the link has written what was mailed.
    unwritten: u8,
    /// Set once the actor runs.
    port: Option<Rc<Recipient<FromSupervisor>>>,
    waiting_for_rest: Vec<oneshot::Sender<()>>,
    /// Who waits for the link to end.
    parting: Vec<oneshot::Sender<()>>,
    host: Option<Recipient<AgentEvent>>,
    /// Who waits for a certificate.
    renewal: Option<Renewal>,
    /// How many requests for one there were.
    renewals: u64,
}

struct Renewal {
    reqid: RequestId,
    waiting: oneshot::Sender<Result<Vec<u8>, String>>,
}

struct Link {
    id: LinkId,
    out: Recipient<Mail<ToController>>,
    end: Recipient<EndLink>,
}

impl Agent {
    /// Reads what an earlier agent left running, takes it up, and starts. Call it in an actix system.
    pub fn launch(setup: AgentSetup) -> io::Result<Addr<Self>> {
        let AgentSetup { instance, epoch, run, place, site, logs, groups, run_dir, output, crashes, bounds, host } =
            setup;
        reserve_berths(LAUNCHING)?; // ahead of all descriptors that nodes need
        let places = groups.as_ref().ok().map(|groups| groups.home().to_owned());
        let mut register = Register::new(site.nodes.clone(), places)?;
        let mut entries = register.read().map_err(io::Error::other)?;
        limits::make_room(entries.records.len()); // ahead of all threads
        let keeper = Keeper::hire(site.nodes.clone(), output)?;
        let morgue = Morgue::new(site.nodes.join(format!(".crashes-{instance}")), crashes);
        let coroner = Coroner::new(instance.clone(), morgue);
        let mut found: Vec<_> = entries.refused.iter().map(|error| Event::Trouble(None, error.to_string())).collect();
        found.extend(retrieve(&mut entries, &instance, &site, &register)?);
        let mut kernel_log = KernelLog::open();
        match register.configuration(&instance) {
            Ok(id) => found.extend(id.map(Event::WasInForce)),
            Err(error) => found.push(Event::Trouble(None, error.to_string())),
        }
        // Also what ran here under another instance's name: it is to be minded, whatever this agent is called now.
        let (adoptable, told) = take_up(entries.records, &groups, &mut kernel_log)?;
        found.extend(told);
        let runs = |(name, found): (&NodeName, &Adoptable)| found.process.as_ref().map(|_| name.clone());
        let archive = Archive::open(Opening {
            nodes: site.nodes.clone(),
            instance: instance.clone(),
            usual: logs,
            environment: site.environment.clone(),
            up: adoptable.iter().filter_map(runs).collect(),
        })?;
        let site = Arc::new(site);
        let news = site.nodes.join(format!(".news-{instance}"));
        let porter = Porter::hire(site.nodes.join(format!(".bundles-{instance}")))?;
        let (spool, restored) = Spool::open(news, register.boot(), epoch).map_err(io::Error::other)?;
        let outbox = Outbox::restore(bounds, restored.last, &restored.news);
        let agent = Self {
            state: State::new(instance, restored.epoch, outbox)
                .run_by(std::process::id(), run, place)
                .able_to(abilities(&groups)),
            spool,
            workshop: Rc::new(Workshop::open(
                Arc::clone(&site),
                register,
                groups,
                run_dir,
                kernel_log,
                Clerks { keeper, coroner, archive: archive.clone() },
            )?),
            site,
            archive,
            porter,
            adoptable,
            found,
            link: None,
            refused: None,
            alarm: Alarm::default(),
            rest: Rest::default(),
            now: None,
            flushing: false,
            launches: Vec::new(),
            held: Vec::new(),
            turns: 0,
            unwritten: 0,
            port: None,
            waiting_for_rest: Vec::new(),
            parting: Vec::new(),
            host,
            renewal: None,
            renewals: 0,
        };
        Ok(Actor::start(agent))
    }

    /// The one door through which state changes.
    fn drive(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now = *self.now.get_or_insert_with(Now::read);
        for effect in self.state.step(event, now) {
            self.perform(effect, ctx);
        }
        self.set_alarm(ctx);
        self.flush_soon(ctx);
        self.rest.later(1, ctx, |me| &mut me.rest);
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Supervise(ward, node) => self.supervise(ward, node, ctx),
            Effect::Tell(ward, order) => self.workshop.order(ward, order),
            Effect::Dismiss(ward, name) => self.workshop.dismiss(ward, name),
            Effect::Enter(ward, node) => self.workshop.enter(ward, node),
            Effect::Remember(id) => {
                let instance = self.state.instance().clone();
                self.workshop.run(Subject::Agent, move |register| {
                    if let Err(error) = register.remember(&instance, &id) {
                        tracing::warn!("{error}");
                    }
                });
            }
            Effect::Archive(wish) => self.archive.order(wish.order(|node| self.site.working_directory(node))),
            Effect::MindLogs { node, is_up: true } => self.archive.is_up(&node),
            Effect::MindLogs { node, is_up: false } => self.archive.is_down(&node),
            Effect::Prepare(number, preparation) => self.prepare(number, *preparation, ctx),
            Effect::TryFiles(number, nodes) => self.workshop.try_files(number, nodes),
            Effect::UseFiles(number) => self.workshop.use_files(number),
            Effect::Inspect(number, survey) => self.inspect(number, *survey, ctx),
            Effect::ReadOutput(request) => self.read_output(request, ctx),
            Effect::ReadPiece(request) => self.read_piece(request, ctx),
            Effect::ReadCrashes(request) => self.read_crashes(request, ctx),
            Effect::Inquire(inquiry) => self.inquire(inquiry, ctx),
            Effect::Stage(request) => self.stage(request, ctx),
            Effect::KeepFiles { nodes, gone } => self.keep_files(&nodes, &gone),
            Effect::Refused(reason) => {
                if self.refused.as_ref() != Some(&reason) {
                    tracing::error!("the controller refused this agent: {reason}");
                    self.refused = Some(reason.clone());
                }
                self.tell_host(AgentEvent::Refused(reason));
            }
            Effect::EndLink(reason) => {
                if let Some(link) = &self.link {
                    link.end.do_send(EndLink { link: link.id, reason });
                }
            }
            Effect::AllStopped => {
                let waiting = std::mem::take(&mut self.waiting_for_rest);
                // What is known of the nodes is on disk, too, before the host may end.
                self.workshop.at_rest(move || {
                    for waiter in waiting {
                        let _ = waiter.send(()); // whoever asked may have gone
                    }
                });
            }
        }
    }

    fn stop_all(&mut self, for_now: bool, ctx: &mut Context<Self>) -> ResponseFuture<()> {
        let (done, rest) = oneshot::channel();
        self.waiting_for_rest.push(done);
        self.drive(Event::StopAll { for_now }, ctx);
        Box::pin(async {
            let _ = rest.await; // an agent that is gone stops nothing more either
        })
    }

    fn supervise(&mut self, ward: WardId, node: Arc<Node>, ctx: &mut Context<Self>) {
        match self.adoptable.remove(&node.name) {
            None => self.workshop.admit(ward, node.name.clone(), first_life()),
            Some(Adoptable { life, leader, origin, process, died, past, given_up }) => {
                let taken = match died {
                    Some(death) => {
                        self.workshop.note_death(ward, node.name.clone(), life, death, origin);
                        self.workshop.hear_channel(ward, &node, life);
                        Ok(())
                    }
                    None => self.workshop.adopt(ward, &node, life, (leader, origin), process),
                };
                self.workshop.recall(ward, past);
                if given_up {
                    self.workshop.give_up(ward);
                }
                if let Err(error) = taken {
                    // Whoever cannot hear of its end cannot mind it; the next run of the agent may.
                    tracing::error!(node = %node.name, "cannot watch the process that was found running: {error}");
                    ctx.stop();
                }
            }
        }
        self.start_supervisor(ward, node, ctx);
    }

    fn start_supervisor(&mut self, ward: WardId, node: Arc<Node>, ctx: &mut Context<Self>) {
        let port = self.port.get_or_insert_with(|| Rc::new(ctx.address().recipient()));
        if let Some(report) = Supervisor::start(ward, node, Rc::clone(&self.workshop), Rc::clone(port)) {
            self.drive(Event::Report(report), ctx); // in the same turn: nobody is told that it runs
        }
    }

    /// A supervisor is gone. If nobody sent it away, it panicked, and the next one takes up what it left.
    fn replace(&mut self, ward: WardId, name: &NodeName, ctx: &mut Context<Self>) {
        let Some(node) = self.state.node_in(ward, name).cloned() else { return };
        if self.workshop.is_minded(ward) {
            return;
        }
        let (state, pid) = match self.workshop.fact(ward) {
            Fact::Alive(_, pid) => (NodeState::Running, Some(pid)),
            Fact::Launching(_) => (NodeState::Pending, None),
            Fact::Down(_) => (NodeState::Stopped, None),
            Fact::GivenUp(_) => (NodeState::Failed, None),
            Fact::Died(_, pid, _) => (NodeState::Running, Some(pid)),
        };
        let name = node.name.clone();
        self.start_supervisor(ward, node, ctx);
        self.drive(Event::Revived { node: name, state, pid }, ctx);
    }

    /// Zeek takes seconds to look at its scripts, so that is done elsewhere.
    fn prepare(&mut self, number: u64, preparation: Preparation, ctx: &mut Context<Self>) {
        let places = self.places_of(&preparation.with_files);
        self.having(BTreeSet::new(), places, ctx, move |had, me, ctx| {
            if !me.state.looks_at(number) {
                return; // something newer came meanwhile
            }
            if let Err(why) = had {
                return me.drive(Event::Prepared(number, vec![Objection::of_all(why)]), ctx);
            }
            let (done, prepared) = oneshot::channel();
            me.workshop.prepare(preparation, move |objections| {
                let _ = done.send(objections); // the agent may have ended
            });
            ctx.spawn(wrap_future::<_, Self>(prepared).map(move |objections, me, ctx| {
                let panicked = || vec![Objection::of_all("it could not be looked at: see the agent's log")];
                me.drive(Event::Prepared(number, objections.unwrap_or_else(|_| panicked())), ctx);
            }));
        });
    }

    /// The same for whoever only asks.
    fn inspect(&mut self, number: u64, survey: Survey, ctx: &mut Context<Self>) {
        let places = self.places_of(&survey.nodes);
        self.having(BTreeSet::new(), places, ctx, move |had, me, ctx| {
            if let Err(why) = had {
                return me.drive(Event::Inspected(number, vec![Objection::of_all(why)]), ctx);
            }
            let (done, inspected) = oneshot::channel();
            me.workshop.inspect(survey, move |objections| {
                let _ = done.send(objections); // the agent may have ended
            });
            ctx.spawn(wrap_future::<_, Self>(inspected).map(move |objections, me, ctx| {
                let panicked = || vec![Objection::of_all("it could not be looked at: see the agent's log")];
                me.drive(Event::Inspected(number, objections.unwrap_or_else(|_| panicked())), ctx);
            }));
        });
    }

    fn stage(&mut self, StageBundlesRequest { reqid, bundles }: StageBundlesRequest, ctx: &mut Context<Self>) {
        self.having(bundles, Vec::new(), ctx, move |had, me, ctx| {
            me.state.answer_staged(reqid, had);
            me.flush_soon(ctx);
        });
    }

    /// Goes on once these bundles are there, and laid out where they are wanted: at once, if there are none.
    fn having(
        &mut self,
        bundles: BTreeSet<BundleId>,
        places: Vec<Place>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(Result<(), String>, &mut Self, &mut Context<Self>) + 'static,
    ) {
        if bundles.is_empty() && places.is_empty() {
            return then(Ok(()), self, ctx);
        }
        let (done, had) = oneshot::channel();
        self.porter.have(bundles, places, move |had| {
            let _ = done.send(had); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(had).map(move |had, me, ctx| {
            let panicked = || Err("its files could not be fetched: see the agent's log".into());
            then(had.unwrap_or_else(|_| panicked()), me, ctx);
        }));
    }

    /// Where nodes are to find their files, of those that have some.
    fn places_of(&self, nodes: &[Arc<Node>]) -> Vec<Place> {
        nodes.iter().filter_map(|node| self.site.files_of(node)).collect()
    }

    fn keep_files(&self, nodes: &[Arc<Node>], gone: &BTreeSet<NodeName>) {
        let gone = gone.iter().map(|name| (self.site.nodes.join(name.as_str()), Vec::new()));
        let mut trees: BTreeMap<PathBuf, Vec<String>> = gone.collect();
        let mut bundles = BTreeSet::new();
        for place in self.places_of(nodes) {
            bundles.insert(place.bundle);
            trees.entry(place.home.clone()).or_default().push(place.name());
        }
        self.porter.keep(trees, bundles);
    }

    fn read_output(&mut self, request: GetOutputRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let (node, lines) = (request.node.clone(), request.lines as usize);
        self.workshop.last_lines(node, lines, move |read| {
            let _ = done.send(read); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let read = match read {
                Ok(Ok(output)) => Ok(output),
                Ok(Err(error)) => Err(format!("cannot read its output: {error}")),
                Err(_) => Err("its output was not read: the agent is stopping".into()),
            };
            me.answer_output(&request, read, ctx);
        }));
    }

    fn read_piece(&mut self, request: ReadOutputRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let reqid = request.reqid.clone();
        self.workshop.read_piece(request, move |piece| {
            let _ = done.send(piece); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let piece = match read {
                Ok(Ok(piece)) => Ok(piece),
                Ok(Err(error)) => Err(format!("cannot read its output: {error}")),
                Err(_) => Err("its output was not read: too many wait for it, or the agent is stopping".into()),
            };
            me.state.answer_piece(reqid, piece);
            me.flush_soon(ctx);
        }));
    }

    fn read_crashes(&mut self, request: GetCrashesRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let reqid = request.reqid.clone();
        self.workshop.read_crashes(request, move |filed| {
            let _ = done.send(filed); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let (crashes, dossier) = match read {
                Ok(Ok(filed)) => (Ok(filed.crashes), filed.dossier),
                Ok(Err(error)) => (Err(format!("cannot read what is filed of nodes that died: {error}")), None),
                Err(_) => (Err("its agent is stopping".into()), None),
            };
            me.state.answer_crashes(reqid, crashes, dossier);
            me.flush_soon(ctx);
        }));
    }

    /// Asks all of them at once: the slowest, or the end of our patience, makes the time that it takes.
    fn inquire(&mut self, Inquiry { reqid, question, asked, known }: Inquiry, ctx: &mut Context<Self>) {
        let until = Instant::now() + ANSWER_WITHIN;
        let answers: Vec<_> = asked
            .into_iter()
            .map(|(ward, node)| {
                let (done, answer) = oneshot::channel();
                let tell = Box::new(move |answer| {
                    let _ = done.send(answer); // the agent may have ended
                });
                let late = "request timed out".to_owned();
                self.workshop.inquire(ward, Question { text: question.clone(), until, late, tell });
                async move {
                    let value = answer.await.unwrap_or_else(|_| Err("its agent is stopping".into()));
                    NodeAnswer { node, value }
                }
            })
            .collect();
        ctx.spawn(wrap_future::<_, Self>(join_all(answers)).map(move |said, me, ctx| {
            me.state.answer_inquiry(reqid, known.into_iter().chain(said).collect());
            me.flush_soon(ctx);
        }));
    }

    fn answer_output(&mut self, request: &GetOutputRequest, read: Result<Output, String>, ctx: &mut Context<Self>) {
        self.state.answer_output(request, read);
        self.flush_soon(ctx);
    }

    /// Gives a certificate to whoever waits for it.
    fn hand_over(&mut self, RenewCertificateResponse { reqid, certificate }: RenewCertificateResponse) {
        if let Some(renewal) = self.renewal.take_if(|renewal| renewal.reqid == reqid) {
            let _ = renewal.waiting.send(certificate); // whoever asked may have lost patience
        }
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        self.alarm.set(self.state.next_alarm(), ctx, |me: &mut Self, ctx| {
            me.alarm.rang();
            me.drive(Event::Tick, ctx);
        });
    }

    /// Flushes once the mail that is already there has been handled.
    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.flushing, true) {
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        let now = self.now.take().map_or_else(Instant::now, |now| now.mono);
        self.flushing = false;
        self.spool.keep(self.state.outbox(), now);
        let mut told = false;
        // All of it is in the bridge's mailbox before the bridge gets to work, and so leaves in one piece.
        while let Some(messages) = self.state.outgoing() {
            told = true;
            if let Some(link) = &self.link {
                link.out.do_send(Mail { link: link.id, messages });
            }
        }
        let nothing_held = self.held.is_empty();
        if told || nothing_held {
            self.unwritten = if told { WRITING } else { 0 };
        }
        self.held.extend(std::mem::take(&mut self.launches));
        if nothing_held && !self.held.is_empty() {
            self.turns = 0;
            self.hand_out(ctx);
        }
    }

    /// Lets the hands launch once everything is told and written that there is to tell. The link writes when it is
    /// polled next: it may, before threads start to compete for the processor. Who waits for that alone passes the turn on
    /// to those that are in line; whether somebody else has died is seen only when the event loop comes round.
    fn hand_out(&mut self, ctx: &mut Context<Self>) {
        let is_told = self.unwritten == 0 && !self.flushing && !self.workshop.has_untold_ends();
        if is_told || self.turns == HOLD {
            return std::mem::take(&mut self.held).into_iter().for_each(|launch| self.workshop.launch(launch));
        }
        let is_written = self.unwritten == 0;
        (self.turns, self.unwritten) = (self.turns + 1, self.unwritten.saturating_sub(1));
        let turn = async move { if is_written { yield_now().await } else { pass_on().await } };
        ctx.spawn(wrap_future::<_, Self>(turn).map(|(), me, ctx| me.hand_out(ctx)));
    }

    fn tell_host(&self, event: AgentEvent) {
        if let Some(host) = &self.host {
            host.do_send(event);
        }
    }
}

/// The first life of a node here. Processes are known by cluster, node and life, also to the agents of other state
/// directories and after a record is gone: so the lives of each begin somewhere of their own.
fn first_life() -> Life {
    // Without chance the moment has to do.
    Life(getrandom::u32().map_or_else(|_| Timestamp::now().0, u64::from))
}

impl Actor for Agent {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let port = ctx.address().recipient();
        self.archive.tell(move |news| port.do_send(OfLogs(news)));
        let port = ctx.address().recipient();
        self.porter.tell(move |said| port.do_send(Carried(said)));
        for event in std::mem::take(&mut self.found) {
            self.drive(event, ctx);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tell_host(AgentEvent::Gone);
    }
}

/// Mail what there is to say, then let the hands launch.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for Agent {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Context<Self>) {
        self.flush(ctx);
    }
}

impl Handler<Farewell> for Agent {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Farewell, _: &mut Context<Self>) -> Self::Result {
        let (parting, parted) = oneshot::channel();
        if let Some(Link { id, end, .. }) = &self.link {
            self.parting.push(parting);
            end.do_send(EndLink { link: *id, reason: "the agent is stopping".into() });
        }
        Box::pin(async { drop(parted.await) })
    }
}

impl Handler<LinkUp<ToController>> for Agent {
    type Result = ();

    fn handle(&mut self, LinkUp { link, out, end, .. }: LinkUp<ToController>, ctx: &mut Context<Self>) {
        let link = Link { id: link, out, end };
        if let Some(Link { id, end, .. }) = self.link.replace(link) {
            end.do_send(EndLink { link: id, reason: "a newer link to the controller took its place".into() });
        }
        self.drive(Event::LinkUp, ctx);
        self.porter.link_up();
    }
}

impl Handler<LinkDown> for Agent {
    type Result = ();

    fn handle(&mut self, LinkDown { link, .. }: LinkDown, ctx: &mut Context<Self>) {
        if self.link.take_if(|present| present.id == link).is_some() {
            self.drive(Event::LinkDown, ctx);
            self.porter.link_down();
            self.renewal = None; // whoever waits hears of it, and asks again
            self.parting.clear(); // the wait of each ends with its sender
        }
    }
}

impl Handler<NotKnown> for Agent {
    type Result = ();

    fn handle(&mut self, NotKnown { link, kind }: NotKnown, ctx: &mut Context<Self>) {
        if self.link.as_ref().is_none_or(|present| present.id != link) {
            return;
        }
        match self.renewal.take_if(|_| kind == RenewCertificateRequest::KIND) {
            Some(renewal) => drop(renewal.waiting.send(Err("the controller is of a release that renews none".into()))),
            None => self.drive(Event::NotKnown(kind), ctx),
        }
    }
}

impl Handler<Mail<ToAgent>> for Agent {
    type Result = ();

    fn handle(&mut self, Mail { link, messages }: Mail<ToAgent>, ctx: &mut Context<Self>) {
        if self.link.as_ref().is_some_and(|present| present.id == link) {
            for message in messages {
                match message {
                    ToAgent::RenewCertificateResponse(response) => self.hand_over(response),
                    ToAgent::ReadBlobsResponse(response) => self.porter.pieces(response),
                    message => {
                        if !matches!(message, ToAgent::AgentRefused(_)) {
                            self.refused = None;
                        }
                        self.drive(Event::Order(message), ctx);
                    }
                }
            }
        }
    }
}

impl Handler<RenewCertificate> for Agent {
    type Result = ResponseFuture<Result<Vec<u8>, String>>;

    fn handle(&mut self, RenewCertificate { request }: RenewCertificate, _: &mut Context<Self>) -> Self::Result {
        let (waiting, told) = oneshot::channel();
        self.renewals += 1;
        match (&self.link, RequestId::new(&format!("renew-{}", self.renewals))) {
            (Some(link), Ok(reqid)) => {
                let messages = vec![RenewCertificateRequest { reqid: reqid.clone(), request }.into()];
                link.out.do_send(Mail { link: link.id, messages });
                self.renewal = Some(Renewal { reqid, waiting });
            }
            (None, _) => drop(waiting.send(Err("there is no link to the controller".into()))),
            (_, Err(error)) => drop(waiting.send(Err(error.to_string()))),
        }
        Box::pin(async { told.await.unwrap_or_else(|_| Err("the link to the controller ended".into())) })
    }
}

impl Handler<FromSupervisor> for Agent {
    type Result = ();

    fn handle(&mut self, news: FromSupervisor, ctx: &mut Context<Self>) {
        match news {
            FromSupervisor::Report(report) => {
                self.drive(Event::Report(report), ctx);
            }
            FromSupervisor::Launch(order) => {
                self.launches.push(order);
                self.flush_soon(ctx);
            }
            FromSupervisor::Says(node, says) => self.drive(Event::Says(node, says), ctx),
            FromSupervisor::Counts(node, counts) => self.drive(Event::Counts(node, counts), ctx),
            FromSupervisor::Remark(node, msg) => self.drive(Event::Remark(Some(node), msg), ctx),
            FromSupervisor::Trouble(node, msg) => self.drive(Event::Trouble(Some(node), msg), ctx),
            FromSupervisor::Gone(ward, node) => self.replace(ward, &node, ctx),
        }
    }
}

/// What the porter says.
#[derive(Message)]
#[rtype(result = "()")]
struct Carried(Said);

impl Handler<Carried> for Agent {
    type Result = ();

    fn handle(&mut self, Carried(said): Carried, ctx: &mut Context<Self>) {
        match said {
            Said::Lacks(request) => self.state.ask(request),
            Said::LaysOut => self.state.lays_out(),
        }
        self.flush_soon(ctx);
    }
}

/// What the archive tells.
#[derive(Message)]
#[rtype(result = "()")]
struct OfLogs(News);

impl Handler<OfLogs> for Agent {
    type Result = ();

    fn handle(&mut self, OfLogs(News { node, msg, is_error }): OfLogs, ctx: &mut Context<Self>) {
        let event = if is_error { Event::Trouble(node, msg) } else { Event::Remark(node, msg) };
        self.drive(event, ctx);
    }
}

impl Handler<StopAllNodes> for Agent {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAllNodes, ctx: &mut Context<Self>) -> Self::Result {
        self.stop_all(false, ctx)
    }
}

impl Handler<StopAllNodesForNow> for Agent {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAllNodesForNow, ctx: &mut Context<Self>) -> Self::Result {
        self.stop_all(true, ctx)
    }
}

impl Handler<HurryUp> for Agent {
    type Result = ();

    fn handle(&mut self, _: HurryUp, ctx: &mut Context<Self>) {
        self.drive(Event::Hurry, ctx);
    }
}

#[cfg(test)]
impl Handler<crate::run::testing::PanicOf> for Agent {
    type Result = ();

    fn handle(&mut self, crate::run::testing::PanicOf(node): crate::run::testing::PanicOf, _: &mut Context<Self>) {
        self.workshop.have_panic(&node);
    }
}

#[cfg(test)]
impl Handler<crate::run::testing::Panic> for Agent {
    type Result = ();

    fn handle(&mut self, _: crate::run::testing::Panic, _: &mut Context<Self>) {
        panic!("a test wants this actor to panic");
    }
}

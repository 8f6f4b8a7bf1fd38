//! The agent's actor: the controller's orders in, supervisors minded, news out.
//!
//! `link` is about the controller at the other end, `wards` about supervisors, `files` about what nodes find on the disk,
//! `reading` answers what is asked about them, and `telling` sees to it that news goes out before anything is launched.

mod files;
mod link;
mod reading;
mod telling;
mod wards;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture};
use tokio::sync::oneshot;

use self::files::Carried;
use super::outbox::{Bounds, Outbox};
use super::porter::Porter;
use super::returns::{Adoptable, retrieve, take_up};
use super::spool::Spool;
use super::state::{Effect, Event, State};
use crate::alarm::Alarm;
use crate::archive::{Archive, News, Opening};
use crate::bridge::{EndLink, LinkId, Mail};
use crate::launch::Site;
use crate::message::agent::ToController;
use crate::model::{CrashRules, InstanceName, NodeName, Now, OutputRules, RequestId};
use crate::rest::Rest;
use crate::supervisor::crash::Coroner;
use crate::supervisor::crash::morgue::Morgue;
use crate::supervisor::hands::{FIRST as LAUNCHING, Subject};
use crate::supervisor::output::Keeper;
use crate::supervisor::process::groups::{Groups, NoGroups, abilities};
use crate::supervisor::process::oom::KernelLog;
use crate::supervisor::process::run_dir::RunDir;
use crate::supervisor::process::{limits, reserve_berths};
use crate::supervisor::register::{Register, RegisterError};
use crate::supervisor::workshop::{Clerks, Workshop};
use crate::supervisor::{FromSupervisor, LaunchOrder, Wait};

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
    /// To be kept on disk once it is told that they crashed.
    waits: Vec<Wait>,
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
        let register = Register::new(site.nodes.clone(), places)?;
        let mut entries = register.read().map_err(io::Error::other)?;
        limits::make_room(entries.records.len() + entries.lost.len()); // ahead of all threads
        let keeper = Keeper::hire(site.nodes.clone(), output)?;
        let morgue = Morgue::new(site.nodes.join(format!(".crashes-{instance}")), crashes);
        let coroner = Coroner::new(instance.clone(), morgue);
        let refused = |error: &RegisterError| {
            tracing::warn!("{error}");
            Event::Trouble(None, error.to_string())
        };
        let mut found: Vec<_> = entries.refused.iter().map(refused).collect();
        found.extend(retrieve(&mut entries, &instance, &site, &register)?);
        let mut kernel_log = KernelLog::open();
        match register.configuration(&instance) {
            Ok(id) => found.extend(id.map(Event::WasInForce)),
            Err(error) => found.push(Event::Trouble(None, error.to_string())),
        }
        let news = site.nodes.join(format!(".news-{instance}"));
        let (spool, restored) = Spool::open(news, register.boot(), epoch).map_err(io::Error::other)?;
        // Also what ran here under another instance's name: it is to be minded, whatever this agent is called now.
        let (adoptable, told) = take_up(entries.records, &restored.deaths, &groups, &mut kernel_log)?;
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
        let porter = Porter::hire(site.nodes.join(format!(".bundles-{instance}")))?;
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
            waits: Vec::new(),
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
            Effect::Define(ward, node) => self.workshop.define(ward, node),
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

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        self.alarm.set(self.state.next_alarm(), ctx, |me: &mut Self, ctx| {
            me.alarm.rang();
            me.drive(Event::Tick, ctx);
        });
    }

    fn tell_host(&self, event: AgentEvent) {
        if let Some(host) = &self.host {
            host.do_send(event);
        }
    }
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
            FromSupervisor::Waits(wait) => {
                self.waits.push(wait);
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

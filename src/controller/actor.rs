//! The controller's actor: clients' requests and agents' mail in, answers and news out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient,
    ResponseFuture, SpawnHandle, StreamHandler,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

use super::blobs::Blobs;
use super::lending::Lending;
use super::log::recent::{Resumed, Room};
use super::log::thread::Report;
use super::log::{Journal, Log, LogThread, Recalled};
use super::observers::{Next, ObserverId, Observers};
use super::repeats::{AGE, Repeated, Repeats};
use super::state::{Effect, Event, Rules, State, Ticket};
use super::store::{Save, StoreError, StoreThread, Stored};
use crate::alarm::Alarm;
use crate::bridge::{EndLink, Farewell, LinkDown, LinkId, LinkUp, Mail, NotKnown};
use crate::message::agent::{RenewCertificateRequest, RenewCertificateResponse, ToAgent, ToController};
use crate::message::client::*;
use crate::model::{InstanceName, Now, Outcome};
use crate::rest::Rest;
use crate::trust::{Certificate, Registrar};

/// After so long news has mostly reached those who listen, and an agent beside us has its nodes launched.
const TELLING: Duration = Duration::from_millis(1);
/// How long an entry of the log is likely to be asked for.
const NEW_FOR: Duration = Duration::from_secs(1);

/// What a controller needs to start.
pub struct ControllerSetup {
    pub rules: Rules,
    /// What the store held at the start.
    pub stored: Stored,
    pub store: StoreThread,
    pub log: LogSetup,
    /// Dials instances that wait to be dialled; `None` where there is no bridge.
    pub dialler: Option<Recipient<DialInstance>>,
    /// Hears that the controller is gone, stopped or by a panic.
    pub host: Option<Recipient<ControllerGone>>,
    /// Decides who gets a certificate; `None`: nobody does.
    pub registrar: Option<Arc<Registrar>>,
    /// Where files of nodes are kept; `None`: none are.
    pub blobs: Option<Blobs>,
}

/// Where the log is kept.
pub enum LogSetup {
    /// In memory: it begins under this epoch, and the last entries are kept, so many.
    Memory { epoch: u64, entries: usize },
    /// On disk, as it was opened there.
    Disk {
        thread: LogThread,
        told: UnboundedReceiver<Report>,
        /// Each epoch with its first number, the present one last.
        epochs: Vec<(u64, u64)>,
        /// The number of the last entry.
        last: u64,
        recalled: Recalled,
    },
}

/// Controller → its host: keep dialling that instance at this address; at none, stop.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DialInstance {
    pub instance: InstanceName,
    pub address: Option<SocketAddr>,
}

/// Controller → its host: the actor is gone. Agents and nodes go on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ControllerGone;

/// See the module. Dropping it, also by a panic, tells the host.
pub struct Controller {
    state: State,
    /// What the state asked for when it was made.
    first: Vec<Effect>,
    store: StoreThread,
    log: Log,
    /// `None` if the log is in memory alone.
    journal: Option<Journal>,
    /// What the threads of the log tell, until the actor runs.
    told: Option<UnboundedReceiver<Report>>,
    /// As the state was told last.
    is_full: bool,
    /// What came together for the log is handed over soon.
    hands_over: bool,
    /// The log will be packed soon.
    packing: bool,
    rest: Rest,
    observers: Observers,
    /// Who is connected, for whoever looks on, and as of which revision of the roster.
    connected: (watch::Sender<Arc<[InstanceStatus]>>, u64),
    links: BTreeMap<LinkId, Link>,
    /// More than one if it was asked again.
    waiting: BTreeMap<Ticket, Vec<oneshot::Sender<ClientResponse>>>,
    repeats: Repeats,
    /// Answers that were repeated will be forgotten some time.
    forgetting: bool,
    next_ticket: u64,
    alarm: Alarm,
    /// Who waits for the last link to end.
    parting: Vec<oneshot::Sender<()>>,
    dialler: Option<Recipient<DialInstance>>,
    host: Option<Recipient<ControllerGone>>,
    registrar: Option<Arc<Registrar>>,
    pub(super) blobs: Option<Blobs>,
    pub(super) lending: Lending,
    /// When blobs that nobody names were looked for last.
    pub(super) collected: Option<Instant>,
}

struct Link {
    out: Recipient<Mail<ToAgent>>,
    end: Recipient<EndLink>,
    /// What the agent showed when the link began.
    certificate: Option<Arc<Certificate>>,
    /// The request for its next one that is being decided; another takes its place.
    renewal: Option<SpawnHandle>,
}

impl Controller {
    /// Starts in the present actix system.
    pub fn launch(setup: ControllerSetup) -> Addr<Self> {
        let ControllerSetup { rules, stored, store, log, dialler, host, registrar, blobs } = setup;
        let (log, journal, told, recalled) = match log {
            LogSetup::Memory { epoch, entries } => {
                (Log::new(vec![(epoch, 1)], 0, Room::alone(entries)), None, None, Recalled::default())
            }
            LogSetup::Disk { thread, told, epochs, last, recalled } => {
                let journal = Journal::new(thread, last);
                (Log::new(epochs, last, Room::BESIDE_DISK), Some(journal), Some(told), recalled)
            }
        };
        let (state, first) = State::new(rules, stored, recalled, Now::read());
        Actor::start(Self {
            state,
            first,
            store,
            log,
            journal,
            told,
            is_full: false,
            packing: false,
            hands_over: false,
            rest: Rest::default(),
            observers: Observers::default(),
            connected: (watch::Sender::new(Arc::default()), 0),
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            repeats: Repeats::default(),
            forgetting: false,
            next_ticket: 0,
            alarm: Alarm::default(),
            parting: Vec::new(),
            dialler,
            host,
            registrar,
            blobs,
            lending: Lending::default(),
            collected: None,
        })
    }

    pub(super) fn store(&self) -> &StoreThread {
        &self.store
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Somebody waits for an answer under this ticket.
    pub(super) fn wait(&mut self) -> (Ticket, oneshot::Receiver<ClientResponse>) {
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, vec![answer]);
        (ticket, answered)
    }

    /// The one door through which state changes.
    pub(super) fn drive(&mut self, event: Event, ctx: &mut Context<Self>) {
        let effects = self.state.step(event, Now::read());
        self.perform(effects, ctx);
    }

    fn perform(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        self.rest.later(effects.len(), ctx, |me| &mut me.rest);
        let mut mail: BTreeMap<LinkId, Vec<ToAgent>> = BTreeMap::new();
        let mut ends = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(link, message) => mail.entry(link).or_default().push(message),
                Effect::EndLink(link, reason) => ends.push(EndLink { link, reason }),
                Effect::Dial(instance, address) => self.dial(instance, Some(address)),
                Effect::HangUp(instance) => self.dial(instance, None),
                Effect::Save(changes, then) => self.save(changes, then, ctx),
                Effect::Journal(number, changes) => self.journal(number, changes, ctx),
                Effect::Answer(ticket, response) => self.answer(ticket, response, ctx),
                Effect::ReadBlobs(link, request) => self.lend(link, request, ctx),
                Effect::Silence(ticket) => drop(self.waiting.remove(&ticket)),
                Effect::Publish { news, time, origin } => {
                    let entry = self.log.append(news, time, origin);
                    self.journal.iter_mut().for_each(|journal| journal.add(entry));
                }
                Effect::Keep { instance, epoch, seq } => {
                    if let Some(journal) = &mut self.journal {
                        journal.arrived(instance, epoch, seq);
                    }
                }
            }
        }
        self.show_connected();
        // Whoever listens comes before whoever is only to be thanked: what is mailed first is handled first.
        self.publish(ctx);
        for (link, messages) in mail {
            if let Some(peer) = self.links.get(&link) {
                peer.out.do_send(Mail { link, messages });
            }
        }
        for end in ends {
            if let Some(peer) = self.links.get(&end.link) {
                peer.end.do_send(end);
            }
        }
        self.set_alarm(ctx);
        self.pack_later(ctx);
        self.hand_over_soon(ctx);
    }

    /// Hands what is to be kept to its thread once those who listen had their turn: to wake a thread takes longer than to
    /// tell them. Until then this one sleeps, and leaves the processor to them.
    fn hand_over_soon(&mut self, ctx: &mut Context<Self>) {
        if self.journal.as_ref().is_some_and(Journal::has_gathered) && !std::mem::replace(&mut self.hands_over, true) {
            ctx.run_later(TELLING, |me, ctx| {
                me.hands_over = false;
                me.journal.iter_mut().for_each(Journal::hand_over);
                me.mind_how_much_waits(ctx);
            });
        }
    }

    /// Says something on a link, if that is still there.
    pub(super) fn say(&self, link: LinkId, message: impl Into<ToAgent>) {
        if let Some(peer) = self.links.get(&link) {
            peer.out.do_send(Mail { link, messages: vec![message.into()] });
        }
    }

    /// Agents wait while too much waits for the disk.
    fn mind_how_much_waits(&mut self, ctx: &mut Context<Self>) {
        let is_full = self.journal.as_ref().is_some_and(Journal::is_full);
        if std::mem::replace(&mut self.is_full, is_full) != is_full {
            self.drive(Event::Full(is_full), ctx);
        }
    }

    fn hear_of_the_log(&mut self, report: Report, ctx: &mut Context<Self>) {
        self.journal.iter_mut().for_each(|journal| journal.heard(&report));
        match report {
            Report::Kept { last, arrived, .. } => {
                self.log.is_durable(last);
                if !arrived.is_empty() {
                    self.drive(Event::Kept(arrived), ctx);
                }
                self.mind_how_much_waits(ctx);
            }
            Report::Dropped { last, .. } => {
                // What waits before it goes from memory, too: all of it together would be too much.
                self.log.is_durable(last);
                self.mind_how_much_waits(ctx);
            }
            Report::Failed(why) => {
                tracing::error!("the log cannot be written: {why}");
                self.drive(Event::LogFailed(why), ctx);
            }
            Report::Works { dropped } => {
                tracing::info!(dropped, "the log is written again");
                self.drive(Event::LogWorks { dropped }, ctx);
            }
            Report::Gone { first, last } => {
                tracing::error!("entries {first} to {last} of the log are gone: somebody removed or moved their files");
                self.drive(Event::LogGone(first, last), ctx);
            }
        }
    }

    /// Where nobody looks on, nothing is made up for it.
    fn show_connected(&mut self) {
        let (shown, revision) = &mut self.connected;
        let now = self.state.roster_revision();
        if *revision != now && shown.receiver_count() > 0 {
            *revision = now;
            shown.send_replace(self.state.connected().into());
        }
    }

    fn dial(&self, instance: InstanceName, address: Option<SocketAddr>) {
        match &self.dialler {
            Some(dialler) => dialler.do_send(DialInstance { instance, address }),
            None if address.is_none() => {} // nobody dialled it
            None => tracing::warn!(%instance, "this controller has no bridge to dial instances with"),
        }
    }

    /// Has the log packed when what is new now is old. A burst costs nothing while it lasts.
    fn pack_later(&mut self, ctx: &mut Context<Self>) {
        if self.log.can_pack() && !std::mem::replace(&mut self.packing, true) {
            ctx.run_later(NEW_FOR, |me, _| {
                me.packing = false;
                me.log.pack();
            });
        }
    }

    /// Makes changes durable, then answers. What could not be kept is a failure, whatever the answer was to be.
    ///
    /// A deployment brings much news at once: it is packed once whoever waits has been answered, and before the store gives
    /// back what is free.
    fn save(&mut self, changes: Vec<Save>, then: Option<(Ticket, ClientResponse)>, ctx: &mut Context<Self>) {
        let saved = self.store.save(changes);
        ctx.spawn(wrap_future::<_, Self>(saved).map(move |saved, me, ctx| {
            let error = saved.unwrap_or(Err(StoreError::Stopped)).err();
            if let Some(error) = &error {
                tracing::error!("cannot keep a configuration: {error}");
            }
            if let Some((ticket, response)) = then {
                let answer = match error {
                    None => response,
                    Some(error) => unkept(response, &error),
                };
                me.answer(ticket, answer, ctx);
            }
            me.log.pack();
        }));
    }

    /// Makes changes durable, and tells the state.
    fn journal(&mut self, number: u64, changes: Vec<Save>, ctx: &mut Context<Self>) {
        let saved = self.store.save(changes);
        ctx.spawn(wrap_future::<_, Self>(saved).map(move |saved, me, ctx| {
            let saved = saved.unwrap_or(Err(StoreError::Stopped)).map_err(|error| {
                tracing::error!("cannot keep a deployment: {error}");
                error.to_string()
            });
            me.drive(Event::Journaled(number, saved), ctx);
            me.log.pack();
        }));
    }

    /// Forgets answers when nobody asks for them again any more.
    fn forget_later(&mut self, ctx: &mut Context<Self>) {
        if !self.repeats.is_empty() && !std::mem::replace(&mut self.forgetting, true) {
            ctx.run_later(AGE, |me, ctx| {
                me.forgetting = false;
                me.repeats.forget(Instant::now());
                me.forget_later(ctx);
            });
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, mut response: ClientResponse, ctx: &mut Context<Self>) {
        self.repeats.answered(ticket, &mut response, Instant::now());
        self.forget_later(ctx);
        let mut waiting = self.waiting.remove(&ticket).unwrap_or_default();
        let last = waiting.pop();
        for waiting in waiting {
            let _ = waiting.send(response.clone()); // whoever asked may have gone
        }
        if let Some(last) = last {
            let _ = last.send(response); // as above
        }
        self.repeats.let_go();
    }

    /// Sends what is new to every observer that is ready for it.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        for (id, next) in self.observers.next(&self.log) {
            self.serve(id, next, ctx);
        }
    }

    fn serve(&mut self, id: ObserverId, next: Next, ctx: &mut Context<Self>) {
        match next {
            Next::Batch(to, batch) => {
                let handled = wrap_future::<_, Self>(to.send(batch)).map(move |handled, me, ctx| {
                    me.observers.handled(id, handled.is_ok());
                    me.publish(ctx);
                });
                ctx.spawn(handled);
            }
            Next::Read(since) => {
                let Some(journal) = &self.journal else { return };
                let read = wrap_future::<_, Self>(journal.read(since)).map(move |read, me, ctx| {
                    match me.observers.was_read(id, read.ok(), &me.log) {
                        Some(next) => me.serve(id, next, ctx),
                        None => me.observers.handled(id, true),
                    }
                });
                ctx.spawn(read);
            }
        }
    }

    /// Has it decided whether an agent gets its next certificate. None of the cluster's state depends on that.
    fn renew(&mut self, link: LinkId, request: RenewCertificateRequest, ctx: &mut Context<Self>) {
        let RenewCertificateRequest { reqid, request } = request;
        let bearer = self.links.get(&link).and_then(|peer| peer.certificate.clone());
        let registrar = self.registrar.clone();
        let decided = async move {
            match (bearer, registrar) {
                (Some(bearer), Some(registrar)) => registrar.renew(Certificate::clone(&bearer), request).await,
                _ => Err("this link has no certificates".to_owned()),
            }
        };
        let answered = wrap_future::<_, Self>(decided).map(move |certificate, me, _| {
            if let Some(peer) = me.links.get(&link) {
                let answer = RenewCertificateResponse { reqid, certificate };
                peer.out.do_send(Mail { link, messages: vec![answer.into()] });
            }
        });
        let renewal = ctx.spawn(answered);
        if let Some(former) = self.links.get_mut(&link).and_then(|peer| peer.renewal.replace(renewal)) {
            ctx.cancel_future(former);
        }
    }

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        self.alarm.set(self.state.next_deadline(), ctx, |me: &mut Self, ctx| {
            me.alarm.rang();
            me.drive(Event::Tick, ctx);
        });
    }

    fn ask<T>(
        &mut self,
        request: ClientRequest,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<T, Unanswered>>
    where
        T: TryFrom<ClientResponse, Error = Unanswered> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match self.repeats.ask(&request, self.state.ready(), ticket, Instant::now()) {
            Repeated::Done(response) | Repeated::Refused(response) => drop(answer.send(response)),
            Repeated::Runs(first) => {
                ticket = first;
                self.waiting.entry(first).or_default().push(answer);
                self.limit(ticket, within, ctx);
            }
            Repeated::No => {
                self.waiting.insert(ticket, vec![answer]);
                self.put(ticket, request, within, ctx);
            }
        }
        Box::pin(async { answered.await.map_err(|_| Unanswered)?.try_into() })
    }

    /// Puts a request to the state.
    pub(super) fn put_now(
        &mut self,
        ticket: Ticket,
        request: ClientRequest,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        // What it was told by from others is encoded already.
        let event = match (request, self.repeats.configuration(ticket)) {
            (ClientRequest::SetConfigurationRequest(request), Some(encoded)) => {
                Event::Set(ticket, Box::new(request), encoded.clone())
            }
            (request, _) => Event::Ask(ticket, request),
        };
        self.drive(event, ctx);
        self.limit(ticket, within, ctx);
    }

    /// Whoever waits under this ticket is answered within that time.
    fn limit(&mut self, ticket: Ticket, within: Option<Duration>, ctx: &mut Context<Self>) {
        if let Some(within) = within.filter(|_| self.waiting.contains_key(&ticket)) {
            self.drive(Event::Limit(ticket, within), ctx);
        }
    }
}

/// What a deployment or a staging comes to that could not be kept on disk.
fn unkept(mut response: ClientResponse, error: &StoreError) -> ClientResponse {
    use ClientResponse as R;
    if let R::StageConfigurationResponse(StageConfigurationResponse { configuration, outcomes, .. })
    | R::DeployResponse(DeployResponse { configuration, outcomes, .. })
    | R::SetConfigurationResponse(SetConfigurationResponse { configuration, outcomes, .. }) = &mut response
    {
        *configuration = None;
        outcomes.push(Outcome::failed(format!("the configuration cannot be kept: {error}")));
    }
    response
}

impl Actor for Controller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(mut told) = self.told.take() {
            let reports = futures_util::stream::poll_fn(move |cx| told.poll_recv(cx));
            ctx.add_stream(reports);
        }
        let first = std::mem::take(&mut self.first);
        self.perform(first, ctx);
        self.collect_blobs(ctx);
    }
}

impl StreamHandler<Report> for Controller {
    fn handle(&mut self, report: Report, ctx: &mut Context<Self>) {
        self.hear_of_the_log(report, ctx);
    }

    /// Only a panic ends the thread before the controller, and then nothing would ever be kept again.
    fn finished(&mut self, ctx: &mut Context<Self>) {
        tracing::error!("the thread that writes the log is gone, and the controller ends with it");
        ctx.stop();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(host) = &self.host {
            host.do_send(ControllerGone);
        }
    }
}

macro_rules! answer_by_state {
    ($($request:ident),* $(,)?) => {
        $(impl Handler<$request> for Controller {
            type Result = ResponseFuture<<$request as Message>::Result>;

            fn handle(&mut self, request: $request, ctx: &mut Context<Self>) -> Self::Result {
                self.ask(request.into(), None, ctx)
            }
        }

        impl Handler<Within<$request>> for Controller {
            type Result = ResponseFuture<<$request as Message>::Result>;

            fn handle(&mut self, asked: Within<$request>, ctx: &mut Context<Self>) -> Self::Result {
                self.ask(asked.request.into(), Some(asked.within), ctx)
            }
        })*
    };
}

answer_by_state!(
    GetInstancesRequest,
    StageConfigurationRequest,
    DeployRequest,
    SetConfigurationRequest,
    GetConfigurationRequest,
    GetDeployedRequest,
    GetNodesRequest,
    StartRequest,
    StopRequest,
    RestartRequest,
    GetIdValueRequest,
    GetOutputRequest,
    ReadOutputRequest,
    GetCrashesRequest,
    PlanRequest,
    TestTimeoutRequest,
);

impl Handler<GetStatusRequest> for Controller {
    type Result = Result<GetStatusResponse, Unanswered>;

    fn handle(&mut self, _: GetStatusRequest, _: &mut Context<Self>) -> Self::Result {
        Ok(self.state.status(self.log.cursor()))
    }
}

impl Handler<WatchConnected> for Controller {
    type Result = MessageResult<WatchConnected>;

    fn handle(&mut self, _: WatchConnected, _: &mut Context<Self>) -> Self::Result {
        let mut looks_on = self.connected.0.subscribe();
        self.show_connected();
        looks_on.mark_unchanged();
        MessageResult(looks_on)
    }
}

impl Handler<Subscribe> for Controller {
    type Result = Result<Subscribed, Unanswered>;

    /// The snapshot and the first news behind it are decided in one turn, so nothing falls between them.
    fn handle(&mut self, Subscribe { since, to }: Subscribe, ctx: &mut Context<Self>) -> Self::Result {
        let resumed = since.map_or(Resumed::Unknown, |since| self.log.resume(since));
        let cursor = match (resumed, since) {
            (Resumed::There, Some(since)) => since,
            (Resumed::Back(end), _) => end,
            _ => self.log.cursor(),
        };
        let snapshot = (resumed == Resumed::Unknown).then(|| self.state.status(cursor));
        self.observers.join(cursor.number, to);
        self.publish(ctx);
        Ok(Subscribed { cursor, snapshot })
    }
}

impl Handler<Farewell> for Controller {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Farewell, _: &mut Context<Self>) -> Self::Result {
        let (parting, parted) = oneshot::channel();
        if !self.links.is_empty() {
            self.parting.push(parting);
        }
        for (link, peer) in &self.links {
            peer.end.do_send(EndLink { link: *link, reason: "the controller is stopping".into() });
        }
        Box::pin(async { drop(parted.await) })
    }
}

impl Handler<LinkUp<ToAgent>> for Controller {
    type Result = ();

    fn handle(&mut self, LinkUp { link, peer, out, end }: LinkUp<ToAgent>, ctx: &mut Context<Self>) {
        self.links.insert(link, Link { out, end, certificate: peer.certificate.clone(), renewal: None });
        self.drive(Event::LinkUp(link, peer), ctx);
    }
}

impl Handler<LinkDown> for Controller {
    type Result = ();

    fn handle(&mut self, LinkDown { link, reason }: LinkDown, ctx: &mut Context<Self>) {
        if let Some(renewal) = self.links.remove(&link).and_then(|gone| gone.renewal) {
            ctx.cancel_future(renewal);
        }
        self.lending.forget(link);
        self.drive(Event::LinkDown(link, reason), ctx);
        if self.links.is_empty() {
            self.parting.clear(); // the wait of each ends with its sender
        }
    }
}

impl Handler<NotKnown> for Controller {
    type Result = ();

    fn handle(&mut self, NotKnown { link, kind }: NotKnown, ctx: &mut Context<Self>) {
        if self.links.contains_key(&link) {
            self.drive(Event::NotKnown(link, kind), ctx);
        }
    }
}

impl Handler<Mail<ToController>> for Controller {
    type Result = ();

    fn handle(&mut self, Mail { link, mut messages }: Mail<ToController>, ctx: &mut Context<Self>) {
        if !self.links.contains_key(&link) {
            return;
        }
        let is_renewal = |message: &mut ToController| matches!(message, ToController::RenewCertificateRequest(_));
        for message in messages.extract_if(.., is_renewal).collect::<Vec<_>>() {
            if let ToController::RenewCertificateRequest(request) = message {
                self.renew(link, request, ctx);
            }
        }
        self.drive(Event::Mail(link, messages), ctx);
    }
}

#[cfg(test)]
impl Handler<crate::run::testing::Panic> for Controller {
    type Result = ();

    fn handle(&mut self, _: crate::run::testing::Panic, _: &mut Context<Self>) {
        panic!("a test wants this actor to panic");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::bridge::{Features, Peer};
    use crate::controller::log::memory_volume::{Failure, MemoryVolume};
    use crate::controller::log::{Bounds, Opened, Writer};
    use crate::controller::store::MemoryStore;
    use crate::message::agent::{API_VERSION, NotifyAgentHello, NotifyError, NotifyLog};
    use crate::model::{RequestId, Timestamp};
    use crate::plan::PortRules;

    #[actix_rt::test]
    async fn an_observer_joins_where_it_was_also_if_the_log_no_longer_reaches_there() {
        let controller = controller(4);
        let up = LinkUp { link: LINK, peer: peer(), out: Silent.start().recipient(), end: Silent.start().recipient() };
        controller.send(up).await.unwrap();
        let said = std::iter::once(hello().into()).chain((1..=10).map(|seq| log(seq).into()));
        controller.send(Mail { link: LINK, messages: said.collect() }).await.unwrap();
        let end = controller.send(GetStatusRequest).await.unwrap().unwrap().cursor;
        assert!(end.number > 10);

        let join = async |since| {
            let (tell, told) = mpsc::unbounded_channel();
            let to = Ear(tell).start().recipient();
            (controller.send(Subscribe { since: Some(since), to }).await.unwrap().unwrap(), told)
        };
        let place = |number| Cursor { number, ..end };
        let (subscribed, mut told) = join(place(2)).await;
        assert_eq!(subscribed, Subscribed { cursor: place(2), snapshot: None });
        let batch = tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap().unwrap();
        assert_eq!(batch.gap, Some(Gap { first: place(3), last: place(end.number - 4) }));
        let numbers: Vec<_> = batch.entries.iter().map(|entry| entry.cursor).collect();
        assert_eq!(numbers, [3, 2, 1, 0].map(|back| place(end.number - back)));

        for elsewhere in [place(end.number + 1), place(u64::MAX), Cursor { epoch: end.epoch + 1, number: 2 }] {
            let (subscribed, _) = join(elsewhere).await;
            assert_eq!((subscribed.cursor, subscribed.snapshot.is_some()), (end, true), "{elsewhere:?}");
        }
    }

    #[actix_rt::test]
    async fn an_observer_that_is_behind_what_memory_holds_is_served_from_disk_and_a_disk_that_fails_is_told_to_all() {
        const MANY: u64 = 20_000;
        let volume = MemoryVolume::default();
        let controller = controller_on(&volume);
        let up = LinkUp { link: LINK, peer: peer(), out: Silent.start().recipient(), end: Silent.start().recipient() };
        controller.send(up).await.unwrap();
        controller.send(Mail { link: LINK, messages: vec![hello().into()] }).await.unwrap();
        for first in (1..=MANY).step_by(250) {
            let messages = (first..first + 250).map(|seq| log(seq).into()).collect();
            controller.send(Mail { link: LINK, messages }).await.unwrap();
        }
        let end = controller.send(GetStatusRequest).await.unwrap().unwrap().cursor;
        let (tell, mut told) = mpsc::unbounded_channel();
        let since = Some(Cursor { number: 0, ..end });
        controller.send(Subscribe { since, to: Ear(tell).start().recipient() }).await.unwrap().unwrap();
        let mut last = 0;
        let mut next = async || {
            let batch = tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap().unwrap();
            assert_eq!(batch.gap, None);
            for entry in &batch.entries {
                assert_eq!(entry.cursor.number, last + 1);
                last += 1;
            }
            (last, batch)
        };
        while next().await.0 < end.number {}

        volume.fail(Some(Failure::Full(7)));
        controller.send(Mail { link: LINK, messages: vec![log(MANY + 1).into()] }).await.unwrap();
        let is_told = |batch: &NewsBatch, words: &str| {
            batch.entries.iter().any(|entry| match &entry.news {
                News::Error(NotifyError { msg, .. }) | News::Log(NotifyLog { msg, .. }) => msg.contains(words),
                _ => false,
            })
        };
        while !is_told(&next().await.1, "the log cannot be written") {}
        volume.fail(None);
        while !is_told(&next().await.1, "the log is written again") {}
    }

    #[actix_rt::test]
    async fn whoever_looks_on_sees_who_is_connected_as_it_changes() {
        let controller = controller(4);
        let mut connected = controller.send(WatchConnected).await.unwrap();
        assert!(connected.borrow_and_update().is_empty());
        let up = LinkUp { link: LINK, peer: peer(), out: Silent.start().recipient(), end: Silent.start().recipient() };
        controller.send(up).await.unwrap();
        controller.send(Mail { link: LINK, messages: vec![hello().into()] }).await.unwrap();
        let asked = controller.send(GetInstancesRequest { reqid: RequestId::new("r").unwrap() }).await;
        assert_eq!(*connected.borrow_and_update().to_vec(), asked.unwrap().unwrap().instances);
        assert_eq!(connected.borrow().len(), 1);
        controller.send(Mail { link: LINK, messages: vec![log(1).into()] }).await.unwrap();
        assert!(!connected.has_changed().unwrap(), "news of nodes is none of the roster's");
        controller.send(LinkDown { link: LINK, reason: "cut".into() }).await.unwrap();
        assert!(connected.borrow_and_update().is_empty());
        controller.do_send(crate::run::testing::Panic);
        tokio::time::timeout(Duration::from_secs(30), connected.changed()).await.unwrap().unwrap_err();
    }

    const LINK: LinkId = LinkId(1);

    fn controller(entries: usize) -> Addr<Controller> {
        launched(false, LogSetup::Memory { epoch: 7, entries })
    }

    fn launched(on_disk: bool, log: LogSetup) -> Addr<Controller> {
        let rules = Rules {
            name: InstanceName::new("controller").unwrap(),
            ports: PortRules::default(),
            dials: crate::controller::state::Reach::Nowhere,
            request_timeout: Duration::from_secs(30),
            epoch: 7,
            pace: crate::plan::Pace::default(),
            on_failure: crate::model::OnFailure::default(),
            on_disk,
            keys: crate::trust::CurveRoot::from([7; 32]),
        };
        let store = StoreThread::start(MemoryStore::default()).unwrap();
        let stored = Stored::default();
        let (dialler, host, registrar, blobs) = Default::default();
        Controller::launch(ControllerSetup { rules, stored, store, log, dialler, host, registrar, blobs })
    }

    /// With a log that is there.
    fn controller_on(volume: &MemoryVolume) -> Addr<Controller> {
        let opened = Writer::open(volume.clone(), Bounds::default(), 7, Timestamp::now()).unwrap();
        let Opened { writer, pending, epochs, last, recalled } = opened;
        let (thread, told) = LogThread::start(writer, pending).unwrap();
        launched(true, LogSetup::Disk { thread, told, epochs, last, recalled })
    }

    fn peer() -> Peer {
        Peer { name: "a".into(), host: None, dialled: None, features: Features::NONE, certificate: None }
    }

    fn hello() -> NotifyAgentHello {
        let instance = InstanceName::new("a").unwrap();
        let (host, api_version, version) = (None, API_VERSION, "0.1.0".into());
        NotifyAgentHello {
            instance,
            host,
            api_version,
            version,
            epoch: 7,
            run: 1,
            place: 0,
            abilities: crate::model::Abilities::untried(),
        }
    }

    fn log(seq: u64) -> NotifyLog {
        NotifyLog { seq, time: Timestamp(0), instance: hello().instance, node: None, msg: seq.to_string() }
    }

    /// The agent's end of the link.
    struct Silent;

    impl Actor for Silent {
        type Context = Context<Self>;
    }

    impl Handler<Mail<ToAgent>> for Silent {
        type Result = ();
        fn handle(&mut self, _: Mail<ToAgent>, _: &mut Context<Self>) {}
    }

    impl Handler<EndLink> for Silent {
        type Result = ();
        fn handle(&mut self, _: EndLink, _: &mut Context<Self>) {}
    }

    struct Ear(mpsc::UnboundedSender<NewsBatch>);

    impl Actor for Ear {
        type Context = Context<Self>;
    }

    impl Handler<NewsBatch> for Ear {
        type Result = ();
        fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) {
            let _ = self.0.send(batch); // the test may have heard enough
        }
    }
}

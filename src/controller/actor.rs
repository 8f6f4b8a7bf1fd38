//! The controller's actor: clients' requests and agents' mail in, answers and news out.

mod answers;
mod keeping;
mod links;
mod news;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Context, Message, Recipient};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

use self::links::Link;
use super::blobs::Blobs;
use super::lending::Lending;
use super::log::recent::Room;
use super::log::thread::Report;
use super::log::{Journal, Log, LogThread, Recalled};
use super::observers::Observers;
use super::repeats::Repeats;
use super::state::{Effect, Event, Rules, State, Ticket};
use super::store::{StoreThread, Stored};
use crate::alarm::Alarm;
use crate::bridge::{EndLink, LinkId, Mail};
use crate::message::agent::ToAgent;
use crate::message::client::{ClientResponse, InstanceStatus};
use crate::model::{InstanceName, Now};
use crate::rest::Rest;
use crate::trust::Registrar;

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

    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        self.alarm.set(self.state.next_deadline(), ctx, |me: &mut Self, ctx| {
            me.alarm.rang();
            me.drive(Event::Tick, ctx);
        });
    }
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

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(host) = &self.host {
            host.do_send(ControllerGone);
        }
    }
}

#[cfg(test)]
impl actix::Handler<crate::run::testing::Panic> for Controller {
    type Result = ();

    fn handle(&mut self, _: crate::run::testing::Panic, _: &mut Context<Self>) {
        panic!("a test wants this actor to panic");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::Handler;
    use tokio::sync::mpsc;

    use super::*;
    use crate::bridge::{Features, LinkDown, LinkUp, Peer};
    use crate::controller::log::memory_volume::{Failure, MemoryVolume};
    use crate::controller::log::{Bounds, Opened, Writer};
    use crate::controller::store::MemoryStore;
    use crate::message::agent::{API_VERSION, NotifyAgentHello, NotifyError, NotifyLog};
    use crate::message::client::*;
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

//! News from agents to a log on disk to an observer, while everything in between fails: links that delay, repeat, break
//! and stay broken, agents that are killed with what they had not written, controllers that are killed in the middle of
//! a write, disks that are full. When the faults stop, the observer has exactly what the agents said.
//!
//! The controller's decisions, its log and the agents' outboxes are the real ones; who decides when what happens is
//! chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use watchpost::agent::outbox::{Bounds, Item, Outbox};
use watchpost::bridge::{Features, LinkId, LinkRole, Peer};
use watchpost::controller::kept::Kept;
use watchpost::controller::log::journal::Gathering;
use watchpost::controller::log::memory_volume::{Failure, MemoryVolume};
use watchpost::controller::log::reader::Reader;
use watchpost::controller::log::recent::{Behind, Log, Resumed, Room};
use watchpost::controller::log::writer::{Batch, Writer};
use watchpost::controller::log::{self, Opened, record};
use watchpost::controller::state::{Effect, Event, Reach, Rules, State};
use watchpost::controller::store::Stored;
use watchpost::message::agent::*;
use watchpost::message::client::{Cursor, Entry, News};
use watchpost::model::*;
use watchpost::plan::PortRules;

use crate::chance::{Chance, Clock, with_seeds};

const AGENTS: [&str; 3] = ["a", "b", "c"];
const NODES: usize = 2;
/// How much may wait for the disk before agents have to wait, in bytes.
const FULL: usize = 1500;

#[test]
fn whatever_fails_the_observer_has_what_the_agents_said_in_order_and_once() {
    with_seeds(1, 2000, |seed| {
        let mut world = World::new(seed);
        let steps = 50 + world.chance.below(400);
        for _ in 0..steps {
            world.suffer();
        }
        world.recover();
        world.check();
    });
}

#[test]
fn a_controller_that_is_killed_at_any_step_loses_nothing() {
    with_seeds(10_000, 25, |seed| {
        for step in 0..60 {
            let mut world = World::new(seed);
            for at in 0..60 {
                match at == step {
                    true => world.kill_controller(),
                    false => world.suffer(),
                }
            }
            world.recover();
            world.check();
        }
    });
}

struct World {
    chance: Chance,
    clock: Clock,
    disk: MemoryVolume,
    bounds: log::Bounds,
    stored: Stored,
    controller: Option<Controller>,
    agents: Vec<Agent>,
    links: BTreeMap<LinkId, Link>,
    observer: Observer,
    count: u64,
}

struct Controller {
    state: State,
    log: Log,
    gathering: Gathering,
    writer: Writer<MemoryVolume>,
    reader: Reader<MemoryVolume>,
    waiting: VecDeque<Batch>,
    is_full: bool,
}

struct Agent {
    name: InstanceName,
    outbox: Outbox,
    /// On disk: what of the outbox survives the agent.
    spool: Outbox,
    /// Everything that it said, by number; what was lost before it was written was never said.
    said: BTreeMap<u64, Item>,
    nodes: Vec<NodeState>,
    link: Option<LinkId>,
    hello: Option<NotifyAgentHello>,
}

/// A connection; what is under way is lost with it.
#[derive(Default)]
struct Link {
    agent: usize,
    to_controller: VecDeque<Vec<ToController>>,
    to_agent: VecDeque<ToAgent>,
    is_cut: bool,
    /// Who does not know yet that it is gone.
    controller_hears: bool,
    agent_hears: bool,
}

#[derive(Default)]
struct Observer {
    seen: Vec<Arc<Entry>>,
    /// Where the controller believes it to be, while it listens.
    sent: Option<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let agents: Vec<_> = AGENTS.iter().map(|name| Agent::new(name)).collect();
        let mut stored = Stored::default();
        if chance.percent(70) {
            let mut deployed = Configuration::empty(ConfigurationId::new("c").unwrap());
            for agent in &agents {
                deployed.instances.push(Instance { name: agent.name.clone(), host: None, port: None });
                let nodes = (0..NODES).map(|node| Node::new(agent.node(node), agent.name.clone(), Role::Worker).into());
                deployed.nodes.extend(nodes);
            }
            stored.deployed = Some(Kept::new(&deployed));
        }
        let segment = 300 + chance.below(3000);
        let mut world = Self {
            chance,
            clock: Clock::new(),
            disk: MemoryVolume::default(),
            bounds: log::Bounds { segment, ..log::Bounds::default() },
            stored,
            controller: None,
            agents,
            links: BTreeMap::new(),
            observer: Observer::default(),
            count: 0,
        };
        world.start_controller();
        world
    }

    /// Something happens: most of the time what should, and sometimes what should not.
    fn suffer(&mut self) {
        let passes = self.chance.millis(0..200);
        self.clock.advance_to(self.clock.now.mono + passes);
        self.tick();
        let agent = self.chance.below(AGENTS.len() as u64) as usize;
        match self.chance.below(100) {
            0..22 => self.speak(agent),
            22..42 => self.deliver_some(),
            42..52 => self.write(),
            52..64 => self.observe(),
            64..74 => self.connect(agent),
            74..80 => self.hear_of_ends(70),
            80..84 => self.cut_some(),
            84..86 => self.kill_agent(agent),
            86..89 => self.kill_controller(),
            89 => self.stop_controller(),
            90..97 => self.start_controller(),
            97 => self.observer.sent = None,
            _ => {
                let failure = match self.chance.below(4) {
                    0 => Some(Failure::Full(self.chance.below(200) as usize)),
                    1 => Some(Failure::Unsure),
                    _ => None,
                };
                self.disk.fail(failure);
            }
        }
    }

    /// The faults stop, and everything comes to an end.
    fn recover(&mut self) {
        self.disk.fail(None);
        self.start_controller();
        let mut quiet = 0;
        while quiet < 4 {
            let before = self.progress();
            self.hear_of_ends(100);
            (0..AGENTS.len()).for_each(|agent| {
                self.flush(agent);
                self.connect(agent);
            });
            while self.deliver(None) {}
            self.write();
            self.observe();
            quiet = if self.progress() == before { quiet + 1 } else { 0 };
        }
    }

    fn progress(&self) -> (u64, usize, usize, usize) {
        let (last, waiting) = self
            .controller
            .as_ref()
            .map_or((0, 0), |controller| (controller.log.cursor().number, controller.waiting.len()));
        let unkept = self.agents.iter().map(|agent| agent.outbox.kept().iter().count()).sum();
        (last, waiting, unkept, self.observer.seen.len())
    }

    // --- what must hold ---

    fn check(&self) {
        let seen = &self.observer.seen;
        let numbers: Vec<_> = seen.iter().map(|entry| entry.cursor.number).collect();
        assert_eq!(numbers, (1..=self.progress().0).collect::<Vec<_>>(), "every entry, in order and once");
        for agent in &self.agents {
            let told: Vec<_> = seen.iter().filter_map(|entry| agent.told_in(entry)).collect();
            let said: Vec<_> = agent.said.iter().map(|(seq, item)| (*seq, text_of_item(item))).collect();
            assert_eq!(told, said, "what {} said is what was told", agent.name);
            assert_eq!(agent.outbox.kept().iter().count(), 0, "{} may forget all of it", agent.name);
        }
        let mut states = BTreeMap::new();
        for entry in seen {
            if let News::Change(change) = &entry.news {
                let former = states.insert(change.node.clone(), change.new).unwrap_or(NodeState::Stopped);
                assert_eq!(change.old, former, "a change begins where the last one ended: {change:?}");
            }
        }
        for agent in &self.agents {
            for (node, state) in agent.nodes.iter().enumerate() {
                let told = states.get(&agent.node(node)).copied().unwrap_or(NodeState::Stopped);
                assert_eq!(told, *state, "{} is what its agent says", agent.node(node));
            }
        }
        self.check_that_the_disk_has_it();
    }

    /// Who starts from the disk alone finds the same.
    fn check_that_the_disk_has_it(&self) {
        let opened = Writer::open(self.disk.clone(), self.bounds, u64::MAX, Timestamp::now()).unwrap();
        let mut reader = Reader::new(self.disk.clone(), opened.writer.index().clone());
        let (mut at, mut found) = (0, Vec::new());
        loop {
            let batch = reader.read(at);
            assert_eq!(batch.gap, None);
            let Some(last) = batch.entries.last() else { break };
            at = last.cursor.number;
            found.extend(batch.entries);
        }
        assert_eq!(found, self.observer.seen);
    }

    // --- the controller ---

    fn start_controller(&mut self) {
        if self.controller.is_some() {
            return;
        }
        self.count += 1;
        let rules = Rules {
            name: InstanceName::new("controller").unwrap(),
            ports: PortRules::default(),
            dials: Reach::Anywhere,
            request_timeout: Duration::from_secs(10),
            pace: watchpost::plan::Pace::default(),
            on_failure: watchpost::model::OnFailure::Back,
            epoch: self.count,
            on_disk: true,
            keys: watchpost::trust::CurveRoot::from([7; 32]),
        };
        // A log that was never begun needs a disk that works.
        let Ok(opened) = Writer::open(self.disk.clone(), self.bounds, self.count, Timestamp::now()) else { return };
        let Opened { writer, pending, epochs, last, recalled } = opened;
        let reader = Reader::new(self.disk.clone(), writer.index().clone());
        let (state, first) = State::new(rules, self.stored.clone(), recalled, self.clock.now);
        let log = Log::new(epochs, last, Room { lasting: 4, at_most: 16, is_kept: true });
        let (gathering, waiting) = (Gathering::new(last), pending.into());
        self.controller = Some(Controller { state, log, gathering, writer, reader, waiting, is_full: false });
        self.perform(first);
    }

    /// It ends at once, and of what it was writing any part may be on the disk.
    fn kill_controller(&mut self) {
        let Some(controller) = self.controller.take() else { return };
        let mut bytes = Vec::new();
        let durable = controller.writer.index().lock().durable;
        for batch in &controller.waiting {
            record::append(&mut bytes, batch.first, durable, &batch.items);
        }
        // A writer that was refused goes on in a new segment, which is made whole or not at all.
        if !bytes.is_empty() && controller.writer.is_sound() && self.chance.percent(60) {
            // Not always in order either: a part in the middle may be what is missing.
            if self.chance.percent(30) {
                let at = self.chance.below(bytes.len() as u64) as usize;
                bytes[at] ^= 0x55;
            }
            let cut = self.chance.below(bytes.len() as u64 + 1) as usize;
            self.disk.tear(&bytes[..cut]);
        }
        self.end_of_controller();
    }

    fn stop_controller(&mut self) {
        while self.controller.as_ref().is_some_and(|controller| !controller.waiting.is_empty()) {
            let before = self.controller.as_ref().map(|controller| controller.waiting.len());
            self.write();
            if self.controller.as_ref().map(|controller| controller.waiting.len()) == before {
                break;
            }
        }
        let Some(mut controller) = self.controller.take() else { return };
        if controller.waiting.is_empty() {
            let _ = controller.writer.close(); // then it looks as if it had been killed
        }
        self.end_of_controller();
    }

    fn end_of_controller(&mut self) {
        self.observer.sent = None;
        for link in self.links.values_mut() {
            (link.is_cut, link.controller_hears) = (true, false);
        }
    }

    fn tick(&mut self) {
        let due = self.controller.as_ref().and_then(|controller| controller.state.next_deadline());
        if due.is_some_and(|due| due <= self.clock.now.mono) {
            self.drive(Event::Tick);
        }
    }

    fn drive(&mut self, event: Event) {
        let Some(controller) = &mut self.controller else { return };
        let effects = controller.state.step(event, self.clock.now);
        self.perform(effects);
    }

    /// As the actor does.
    fn perform(&mut self, effects: Vec<Effect>) {
        let Some(controller) = &mut self.controller else { return };
        for effect in effects {
            match effect {
                Effect::Send(link, message) => {
                    if let Some(link) = self.links.get_mut(&link).filter(|link| !link.is_cut) {
                        link.to_agent.push_back(message);
                    }
                }
                Effect::EndLink(link, _) => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.is_cut = true;
                    }
                }
                Effect::Publish { news, time, origin } => {
                    controller.gathering.add(controller.log.append(news, time, origin));
                }
                Effect::Keep { instance, epoch, seq } => controller.gathering.arrived(instance, epoch, seq),
                Effect::Dial(..) | Effect::HangUp(_) => {}
                Effect::Save(..)
                | Effect::Journal(..)
                | Effect::Answer(..)
                | Effect::Silence(_)
                | Effect::ReadBlobs(..) => {
                    panic!("nobody asked")
                }
            }
        }
        controller.waiting.extend(controller.gathering.take());
        if self.chance.percent(20) {
            controller.log.pack();
        }
        self.mind_how_much_waits();
    }

    fn mind_how_much_waits(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        let is_full = controller.waiting.iter().map(|batch| batch.items.len()).sum::<usize>() > FULL;
        if std::mem::replace(&mut controller.is_full, is_full) != is_full {
            self.drive(Event::Full(is_full));
        }
    }

    /// The disk writes a group of what waits, or fails to.
    fn write(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        let count = 1 + self.chance.below(1 + controller.waiting.len() as u64) as usize;
        let group: Vec<_> = controller.waiting.iter().take(count).cloned().collect();
        if group.is_empty() || controller.writer.write(&group).is_err() {
            return;
        }
        controller.waiting.drain(..group.len());
        controller.log.is_durable(group[group.len() - 1].last);
        self.drive(Event::Kept(group.into_iter().flat_map(|batch| batch.arrived).collect()));
        self.mind_how_much_waits();
    }

    // --- the observer ---

    fn observe(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        if self.observer.sent.is_none() {
            self.observer.sent = Some(self.observer.join(&controller.log));
        }
        while let Some(sent) = self.observer.sent {
            let batch = match controller.log.behind(sent) {
                Behind::Nothing => return,
                Behind::Batch(batch) => batch,
                Behind::OnDisk => controller.reader.read(sent),
            };
            assert_eq!(batch.gap, None, "nothing is dropped here");
            let last = batch.entries.last().expect("something is there").cursor.number;
            self.observer.seen.extend(batch.entries);
            self.observer.sent = Some(last);
            if self.chance.percent(30) {
                return;
            }
        }
    }

    // --- links ---

    fn connect(&mut self, at: usize) {
        if self.controller.is_none() || self.agents[at].link.is_some() {
            return;
        }
        self.count += 1;
        let link = LinkId(self.count);
        self.links.insert(link, Link { agent: at, controller_hears: true, agent_hears: true, ..Link::default() });
        self.drive(Event::LinkUp(
            link,
            Peer {
                name: AGENTS[at].into(),
                host: None,
                dialled: None,
                features: Features::of(LinkRole::Agent),
                certificate: None,
            },
        ));
        self.agents[at].link_up(link);
        self.flush(at);
    }

    fn cut_some(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        if !links.is_empty() {
            let link = *self.chance.pick(&links);
            self.cut(link);
        }
    }

    fn cut(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_cut = true;
        }
    }

    /// Either end of a link that is gone hears of it, in its own time.
    fn hear_of_ends(&mut self, percent: u64) {
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id).filter(|link| link.is_cut) else { continue };
            let at = link.agent;
            let agent = hears(&mut link.agent_hears, self.chance.percent(percent));
            let controller = hears(&mut link.controller_hears, self.chance.percent(percent));
            if !link.agent_hears && !link.controller_hears {
                self.links.remove(&id);
            }
            if agent && self.agents[at].link == Some(id) {
                self.agents[at].link = None;
                self.agents[at].outbox.link_down();
            }
            if controller {
                self.drive(Event::LinkDown(id, "cut".into()));
            }
        }
    }

    fn deliver_some(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        if !links.is_empty() {
            let link = *self.chance.pick(&links);
            self.deliver(Some(link));
        }
    }

    /// One frame each way arrives on that link, or on each; whether any did. Some arrive twice.
    fn deliver(&mut self, only: Option<LinkId>) -> bool {
        let mut any = false;
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_cut && only.is_none_or(|only| only == id))
            else {
                continue;
            };
            let at = link.agent;
            let (up, down) = (link.to_controller.pop_front(), link.to_agent.pop_front());
            any |= up.is_some() || down.is_some();
            if let Some(messages) = up {
                let is_hello = matches!(messages.first(), Some(ToController::NotifyAgentHello(_)));
                if !is_hello && only.is_some() && self.chance.percent(10) {
                    self.drive(Event::Mail(id, messages.clone()));
                }
                self.drive(Event::Mail(id, messages));
            }
            if let Some(message) = down.filter(|_| self.agents[at].link == Some(id)) {
                let twice = only.is_some() && self.chance.percent(10);
                (0..1 + usize::from(twice)).for_each(|_| self.agents[at].obey(&message));
                self.flush(at);
            }
        }
        any
    }

    // --- agents ---

    fn speak(&mut self, at: usize) {
        for _ in 0..1 + self.chance.below(4) {
            let node = self.chance.below(NODES as u64) as usize;
            let states = [NodeState::Pending, NodeState::Running, NodeState::Crashed, NodeState::Stopped];
            let (new, text) = (*self.chance.pick(&states), self.chance.below(1000).to_string());
            match self.chance.percent(80) {
                true => self.agents[at].change(node, new, &text),
                false => self.agents[at].remark(&text),
            }
        }
        // Sometimes it is killed before it has written what it was about to say.
        if !self.chance.percent(10) {
            self.flush(at);
        }
    }

    /// What it has to say goes to its disk, and then out.
    fn flush(&mut self, at: usize) {
        let mail = self.agents[at].flush();
        let link = self.agents[at].link.and_then(|link| self.links.get_mut(&link));
        if let Some(link) = link.filter(|link| !link.is_cut) {
            link.to_controller.extend(mail);
        }
    }

    fn kill_agent(&mut self, at: usize) {
        if let Some(link) = self.agents[at].link {
            self.cut(link);
            if let Some(link) = self.links.get_mut(&link) {
                link.agent_hears = false;
            }
        }
        self.agents[at].restart();
    }
}

impl Agent {
    fn new(name: &str) -> Self {
        let (outbox, name) = (Outbox::new(bounds()), InstanceName::new(name).unwrap());
        let nodes = vec![NodeState::Stopped; NODES];
        Self { name, spool: outbox.clone(), outbox, said: BTreeMap::new(), nodes, link: None, hello: None }
    }

    fn node(&self, node: usize) -> NodeName {
        NodeName::new(&format!("{}-{node}", self.name)).unwrap()
    }

    fn link_up(&mut self, link: LinkId) {
        self.link = Some(link);
        self.outbox.link_up();
        let (instance, version) = (self.name.clone(), "0.1.0".into());
        let (host, api_version) = (None, API_VERSION);
        self.hello = Some(NotifyAgentHello {
            instance,
            host,
            api_version,
            version,
            epoch: 5,
            run: 1,
            place: 0,
            abilities: watchpost::model::Abilities::untried(),
        });
    }

    fn change(&mut self, node: usize, new: NodeState, reason: &str) {
        let old = std::mem::replace(&mut self.nodes[node], new);
        self.outbox.push(Item::Change(NotifyChange {
            seq: 0,
            time: Timestamp(0),
            instance: self.name.clone(),
            node: self.node(node),
            role: Role::Worker,
            old,
            new,
            pid: None,
            exit: None,
            attempt: 0,
            restarts: 0,
            reason: reason.into(),
            removed: false,
        }));
    }

    fn remark(&mut self, msg: &str) {
        let (instance, msg) = (self.name.clone(), msg.into());
        self.outbox.push(Item::Log(NotifyLog { seq: 0, time: Timestamp(0), instance, node: None, msg }));
    }

    fn flush(&mut self) -> Vec<Vec<ToController>> {
        let first = self.outbox.base() + 1;
        let kept = self.outbox.kept();
        self.said.extend((first..).zip(kept.iter().filter_map(|frame| Item::read(frame.kind, frame.body))));
        self.spool = self.outbox.clone();
        if self.link.is_none() {
            return Vec::new();
        }
        let mut mail: Vec<Vec<ToController>> = self.hello.take().into_iter().map(|hello| vec![hello.into()]).collect();
        loop {
            let batch = self.outbox.next_batch();
            let mut messages = match batch.news.is_empty() {
                true => Vec::new(),
                false => vec![ToController::News(batch.news)],
            };
            if let Some(seq) = batch.snapshot {
                messages.push(NotifySnapshot { epoch: 5, seq, configuration: None, nodes: self.statuses() }.into());
            }
            if messages.is_empty() {
                return mail;
            }
            mail.push(messages);
        }
    }

    fn statuses(&self) -> Vec<NodeStatus> {
        let status = |(node, state): (usize, &NodeState)| NodeStatus {
            node: self.node(node),
            instance: self.name.clone(),
            role: Role::Worker,
            state: *state,
            pid: None,
            port: None,
            metrics_port: None,
            restarts: 0,
            since: Timestamp(0),
            reason: String::new().into(),
            says: "".into(),
            netstats: None,
        };
        self.nodes.iter().enumerate().map(status).collect()
    }

    fn obey(&mut self, message: &ToAgent) {
        if let ToAgent::NewsReceived(NewsReceived { epoch: 5, seq, kept }) = message {
            assert!(self.outbox.received(*seq, *kept), "{seq} was told");
        }
    }

    /// What it had in memory alone is gone, also what it knew of its nodes: it looks, and finds them as it last said.
    fn restart(&mut self) {
        self.link = None;
        self.outbox = Outbox::restore(bounds(), self.spool.last(), &self.spool.kept());
        for node in 0..NODES {
            let name = self.node(node);
            let last = self.said.values().rev().find_map(|item| match item {
                Item::Change(change) if change.node == name => Some(change.new),
                _ => None,
            });
            self.nodes[node] = last.unwrap_or(NodeState::Stopped);
        }
    }

    /// The number and the text of an entry, if it is this agent's own.
    fn told_in(&self, entry: &Entry) -> Option<(u64, String)> {
        let (instance, text) = match &entry.news {
            News::Change(change) => (&change.instance, format!("{} {} {}", change.node, change.new, change.reason)),
            News::Log(log) => (&log.instance, log.msg.clone()),
            News::Error(error) => (&error.instance, error.msg.clone()),
            News::AgentsReady(_) => return None,
        };
        let (_, seq) = entry.origin.filter(|_| *instance == self.name)?;
        Some((seq, text))
    }
}

impl Observer {
    /// Where it goes on: it takes back what the controller does not know.
    fn join(&mut self, log: &Log) -> u64 {
        let Some(since) = self.seen.last().map(|last| last.cursor) else { return 0 };
        let kept = match log.resume(since) {
            Resumed::There => since.number,
            Resumed::Back(Cursor { number, .. }) => number,
            // Not one entry of that epoch was kept, nor that it began.
            Resumed::Unknown => 0,
        };
        self.seen.retain(|entry| entry.cursor.number <= kept);
        kept
    }
}

/// Whether somebody who is to hear of something does so now.
fn hears(is_to: &mut bool, now: bool) -> bool {
    let does = *is_to && now;
    *is_to &= !now;
    does
}

fn text_of_item(item: &Item) -> String {
    match item {
        Item::Change(change) => format!("{} {} {}", change.node, change.new, change.reason),
        Item::Log(log) => log.msg.clone(),
        Item::Error(error) => error.msg.clone(),
    }
}

/// A small window, and room for everything: nothing is lost to an outbox that overflows.
fn bounds() -> Bounds {
    Bounds { window: 1 << 10, kept: 1 << 30 }
}

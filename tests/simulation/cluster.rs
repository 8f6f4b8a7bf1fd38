//! A whole cluster under faults by chance: links that delay, break and come back half-open, agents and controllers
//! that are killed, clocks that are set, clients that want something new. Then the faults stop, and all must be well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use watchpost::agent::outbox::Bounds;
use watchpost::agent::state as agent;
use watchpost::bridge::{Features, LinkId, LinkRole, Peer};
use watchpost::controller::kept::Kept;
use watchpost::controller::log::Recalled;
use watchpost::controller::state::{Effect, Event, Reach, Rules, State, Ticket};
use watchpost::controller::store::{Save, Stored};
use watchpost::message::agent::{ToAgent, ToController};
use watchpost::message::client::*;
use watchpost::model::{Configuration, InstanceName, NodeName, NodeState, OnFailure, Outcome, RequestId, Verdict};
use watchpost::plan::{Pace, PortRules};

use crate::chance::{Chance, Clock, with_seeds};
use crate::files;
use crate::gentle::Watched;
use crate::machine::Machine;
use crate::world::{configuration, node_names};

pub const INSTANCES: [&str; 3] = ["a", "b", "c"];
/// Longer than any request may take, with every deadline behind each other.
pub const LONG: Duration = Duration::from_secs(600);

#[test]
fn chronos_326_once_faults_stop_the_cluster_is_what_was_deployed_and_everybody_knows_it() {
    with_seeds(1, 300, |seed| faults_then_calm(Cluster::new(seed)));
}

#[test]
fn instances_come_and_go_and_leave_nothing_behind() {
    with_seeds(8000, 300, |seed| faults_then_calm(Cluster { all_stay: false, ..Cluster::new(seed) }));
}

fn faults_then_calm(mut cluster: Cluster) {
    for _ in 0..cluster.chance.below(30) {
        cluster.suffer();
        let passes = cluster.chance.millis(0..4000);
        cluster.pass(passes);
    }
    cluster.calm_down();
    cluster.pass(LONG);
    assert_eq!(cluster.open, BTreeMap::new(), "nothing waits for ever");
    cluster.assert_known();
    cluster.assert_the_next_deployment_works();
}

#[test]
fn nodes_keep_their_process_whatever_happens_to_links_agents_and_controllers() {
    with_seeds(5000, 150, |seed| {
        let mut cluster = Cluster::new(seed);
        cluster.calm_down();
        cluster.pass(Duration::from_secs(20));
        let deployed = cluster.new_configuration();
        assert!(cluster.deploy(deployed.clone()).configuration.is_some());
        cluster.pass(LONG);
        let before = cluster.running();
        assert_eq!(before.len(), deployed.nodes.len());
        for _ in 0..cluster.chance.below(20) {
            cluster.lose_something();
            let passes = cluster.chance.millis(0..8000);
            cluster.pass(passes);
            assert_eq!(cluster.running(), before);
        }
        cluster.pass(LONG);
        assert_eq!(cluster.running(), before);
        cluster.assert_in_force(&deployed);
        cluster.assert_known();
    });
}

#[test]
fn a_wall_clock_set_an_hour_forth_and_back_starts_stops_and_expires_nothing() {
    /// What runs, and how much was answered.
    type Seen = (BTreeMap<NodeName, (usize, u32)>, usize);

    /// What is so after each step of a history of crashes, orders and losses.
    fn history(seed: u64, sets_the_clock: bool) -> Vec<Seen> {
        let mut cluster = Cluster::new(seed);
        let deployed = cluster.new_configuration();
        cluster.deploy(deployed);
        let mut seen = Vec::new();
        for step in 0..60 {
            match step % 3 {
                0 => {
                    let nodes = cluster.some_nodes();
                    cluster.ask(|reqid| RestartRequest { reqid, nodes }.into());
                }
                1 => {
                    let machine = cluster.chance.below(3) as usize;
                    cluster.machines[machine].kill_a_process(cluster.clock.now);
                }
                _ => {
                    let links: Vec<_> = cluster.links.keys().copied().collect();
                    if !links.is_empty() {
                        let link = *cluster.chance.pick(&links);
                        cluster.cut(link);
                    }
                }
            }
            if sets_the_clock {
                cluster.clock.set_wall(step % 2 == 0);
            }
            let passes = cluster.chance.millis(0..4000);
            cluster.pass(passes);
            seen.push((cluster.running(), cluster.answers.len()));
        }
        seen
    }
    with_seeds(9000, 60, |seed| assert_eq!(history(seed, true), history(seed, false)));
}

/// A controller and three machines.
pub struct Cluster {
    /// Whether every configuration has all instances.
    all_stay: bool,
    pub chance: Chance,
    clock: Clock,
    controller: Option<Controller>,
    /// Which one it is.
    run: u64,
    pub stored: Stored,
    /// What is on its way to the disk, and by which number it is known.
    unwritten: VecDeque<(u64, Vec<Save>)>,
    pub machines: Vec<Machine>,
    links: BTreeMap<LinkId, Link>,
    /// The link that each agent believes in.
    linked: BTreeMap<usize, LinkId>,
    due: BTreeMap<(Instant, u64), Due>,
    count: u64,
    configurations: u64,
    /// Requests that nobody answered yet, by ticket.
    open: BTreeMap<Ticket, String>,
    tickets: u64,
    answers: Vec<(Ticket, ClientResponse)>,
    /// How much has happened since this was set.
    pub steps: u64,
    /// Who is lost when so much has happened.
    pub loss: Option<(u64, Party)>,
    /// Which node a client stops when so much has happened.
    pub stop: Option<(u64, NodeName)>,
    stopped: Option<Ticket>,
    /// What must hold at every step.
    pub watched: Option<Watched>,
    /// Who may run what others run, until it is reached again.
    missed: BTreeSet<InstanceName>,
}

/// Whoever may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Controller,
    Agent(usize),
    Link(usize),
}

struct Controller {
    state: State,
    /// What was told of each node last, by this controller.
    told: BTreeMap<NodeName, NodeState>,
    /// The number of what was published last of each agent's news, by its numbering.
    heard: BTreeMap<(InstanceName, u64), u64>,
    alive_links: BTreeSet<LinkId>,
}

/// A connection; what is under way on it is lost with it.
struct Link {
    machine: usize,
    to_agent: VecDeque<(Instant, Vec<ToAgent>)>,
    to_controller: VecDeque<(Instant, Vec<ToController>)>,
}

#[derive(Debug)]
enum Due {
    Dial(usize),
    ControllerHearsEnd(LinkId),
    AgentHearsEnd(LinkId),
    StartAgent(usize),
    StartController,
    /// The disk has what the controller of this number wrote under that one.
    Written(u64, u64),
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        // Small enough that a long loss of a link makes an outbox overflow now and then.
        let bounds = Bounds { window: 2 << 10, kept: 8 << 10 };
        let machines = INSTANCES.iter().map(|name| Machine::new(name, chance.fork(), bounds)).collect();
        let mut cluster = Self {
            all_stay: true,
            chance,
            clock: Clock::new(),
            controller: None,
            run: 0,
            stored: Stored::default(),
            unwritten: VecDeque::new(),
            machines,
            links: BTreeMap::new(),
            linked: BTreeMap::new(),
            due: BTreeMap::new(),
            count: 0,
            configurations: 0,
            open: BTreeMap::new(),
            tickets: 0,
            answers: Vec::new(),
            steps: 0,
            loss: None,
            stop: None,
            stopped: None,
            watched: None,
            missed: BTreeSet::new(),
        };
        cluster.start_controller();
        (0..INSTANCES.len()).for_each(|machine| cluster.soon(0..2000, Due::Dial(machine)));
        cluster
    }

    // --- what befalls it ---

    fn suffer(&mut self) {
        match self.chance.below(10) {
            0..=2 => self.lose_something(),
            3..=5 => {
                let configuration = self.new_configuration();
                self.ask(|reqid| {
                    SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() }.into()
                });
            }
            6 | 7 => {
                let nodes = self.some_nodes();
                match self.chance.below(3) {
                    0 => self.ask(|reqid| StartRequest { reqid, nodes }.into()),
                    1 => self.ask(|reqid| StopRequest { reqid, nodes }.into()),
                    _ => self.ask(|reqid| RestartRequest { reqid, nodes }.into()),
                };
            }
            8 => {
                let node = self.chance.pick(&node_names()).clone();
                match self.chance.below(3) {
                    0 => self.ask(|reqid| GetNodesRequest { reqid }.into()),
                    1 => self.ask(|reqid| GetOutputRequest { reqid, node, lines: 3 }.into()),
                    _ => self.ask(|reqid| TestTimeoutRequest { reqid, with_state: true }.into()),
                };
            }
            _ => {
                let machine = self.chance.below(3) as usize;
                self.machines[machine].panic_a_supervisor(self.clock.now);
                self.forward(machine);
            }
        }
    }

    fn lose_something(&mut self) {
        match self.chance.below(8) {
            0..=3 => {
                let links: Vec<_> = self.links.keys().copied().collect();
                if !links.is_empty() {
                    let link = *self.chance.pick(&links);
                    self.cut(link);
                }
            }
            4 | 5 => {
                let machine = self.chance.below(3) as usize;
                self.lose(Party::Agent(machine));
            }
            6 => self.lose(Party::Controller),
            _ => {
                let forth = self.chance.percent(50);
                self.clock.set_wall(forth);
            }
        }
    }

    /// That party is gone, and comes back some time.
    pub fn lose(&mut self, party: Party) {
        match party {
            Party::Controller => {
                if self.controller.take().is_some() {
                    self.open.clear(); // whoever asked it hears that it is gone
                    self.links.keys().copied().collect::<Vec<_>>().into_iter().for_each(|link| self.cut(link));
                    self.soon(0..10_000, Due::StartController);
                }
            }
            Party::Agent(machine) => {
                if self.machines[machine].agent_is_up() {
                    self.machines[machine].kill_agent();
                    self.forget_link_of(machine);
                    self.soon(0..10_000, Due::StartAgent(machine));
                }
            }
            Party::Link(machine) => {
                if let Some(link) = self.linked.get(&machine).copied() {
                    self.cut(link);
                }
            }
        }
    }

    pub fn calm_down(&mut self) {
        self.machines.iter_mut().for_each(Machine::calm_down);
    }

    fn some_nodes(&mut self) -> BTreeSet<NodeName> {
        let all = node_names();
        (0..self.chance.below(4)).map(|_| self.chance.pick(&all).clone()).collect()
    }

    pub fn new_configuration(&mut self) -> Configuration {
        self.configurations += 1;
        let mut instances = INSTANCES.to_vec();
        if !self.all_stay {
            instances.retain(|_| self.chance.percent(60));
        }
        configuration(&mut self.chance, self.configurations, &instances)
    }

    // --- clients ---

    pub fn ask(&mut self, request: impl FnOnce(RequestId) -> ClientRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let request = request(RequestId::new(&format!("r{}", self.tickets)).unwrap());
        if self.controller.is_some() {
            self.open.insert(ticket, format!("{request:?}"));
            self.drive(Event::Ask(ticket, request));
        }
        ticket
    }

    /// Deploys, and waits for the answer.
    pub fn deploy(&mut self, configuration: Configuration) -> SetConfigurationResponse {
        let ticket = self
            .ask(|reqid| SetConfigurationRequest { reqid, configuration, upon: None, terms: Terms::default() }.into());
        self.pass(LONG);
        let at = self.answers.iter().position(|(of, _)| *of == ticket).expect("it is answered");
        match self.answers.remove(at).1 {
            ClientResponse::SetConfigurationResponse(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Deploys, and does not wait.
    pub fn begin_to_deploy(&mut self, configuration: Configuration, on_failure: OnFailure) {
        let terms = Terms { on_failure: Some(on_failure), ..Terms::default() };
        self.ask(|reqid| SetConfigurationRequest { reqid, configuration, upon: None, terms }.into());
    }

    /// Whether what was to be stopped is, as whoever asked was told.
    pub fn is_stopped(&self) -> bool {
        let is_it = |(of, _): &&(Ticket, ClientResponse)| Some(*of) == self.stopped;
        match self.answers.iter().find(is_it) {
            Some((_, ClientResponse::StopResponse(answer))) => answer.outcomes.iter().all(Outcome::is_success),
            _ => false,
        }
    }

    /// Waits until no deployment is under way. How much has happened by then.
    pub fn pass_until_deployed(&mut self) -> u64 {
        let is_deploying = |me: &Self| {
            let cursor = Cursor { epoch: 0, number: 0 };
            me.controller.as_ref().is_some_and(|controller| controller.state.status(cursor).deploying.is_some())
        };
        for _ in 0..LONG.as_millis() / 10 {
            if !is_deploying(self) {
                break;
            }
            self.pass(Duration::from_millis(10));
        }
        self.steps
    }

    // --- the controller ---

    fn start_controller(&mut self) {
        self.count += 1;
        self.run = self.count;
        self.unwritten.clear();
        let rules = Rules {
            name: InstanceName::new("controller").unwrap(),
            ports: PortRules::default(),
            dials: Reach::Anywhere,
            request_timeout: Duration::from_secs(10),
            epoch: self.count,
            pace: Pace::default(),
            on_failure: OnFailure::Back,
            on_disk: false,
            keys: watchpost::trust::CurveRoot::from([7; 32]),
        };
        let (state, first) = State::new(rules, self.stored.clone(), Recalled::default(), self.clock.now);
        let (told, heard, alive_links) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        self.controller = Some(Controller { state, told, heard, alive_links });
        self.perform(first);
    }

    fn drive(&mut self, event: Event) {
        let Some(controller) = &mut self.controller else { return };
        let effects = controller.state.step(event, self.clock.now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut mail: BTreeMap<LinkId, Vec<ToAgent>> = BTreeMap::new();
        let mut ends = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(link, message) => mail.entry(link).or_default().push(message),
                Effect::EndLink(link, _) => ends.push(link),
                Effect::Dial(..) | Effect::HangUp(_) => {}
                Effect::Save(saves, then) => {
                    // In order, though whoever waits for what came before may hear of it later.
                    self.unwritten.push_back((0, saves));
                    self.write_up_to(0);
                    self.answered(then);
                }
                Effect::Journal(number, saves) => {
                    self.unwritten.push_back((number, saves));
                    // A controller that is lost meanwhile may have written it, or not.
                    if self.chance.percent(50) {
                        self.write_up_to(number);
                    }
                    let run = self.run;
                    self.soon(0..30, Due::Written(run, number));
                }
                Effect::Answer(ticket, response) => self.answered(Some((ticket, response))),
                Effect::Silence(ticket) => drop(self.open.remove(&ticket)),
                Effect::Publish { news, origin, .. } => self.published(news, origin),
                Effect::ReadBlobs(link, request) => mail.entry(link).or_default().push(files::lent(request).into()),
                Effect::Keep { .. } => panic!("this log is in memory alone"),
            }
        }
        for (link, messages) in mail {
            let now = self.clock.now.mono;
            if let Some(Link { to_agent, .. }) = self.links.get_mut(&link) {
                let at = arrival(to_agent.back().map(|(at, _)| *at), now, &mut self.chance);
                to_agent.push_back((at, messages));
            }
        }
        ends.into_iter().for_each(|link| self.cut(link));
    }

    /// What came before that number is on disk, and so is that.
    fn write_up_to(&mut self, number: u64) {
        let end = self.unwritten.iter().position(|(of, _)| *of == number).map_or(0, |at| at + 1);
        self.unwritten.drain(..end).flat_map(|(_, saves)| saves).for_each(|save| self.stored.apply(save));
    }

    fn answered(&mut self, answer: Option<(Ticket, ClientResponse)>) {
        if let Some((ticket, response)) = answer {
            assert!(self.open.remove(&ticket).is_some(), "answered once: {response:?}");
            self.answers.push((ticket, response));
        }
    }

    /// An agent's news comes in its own order and once, as long as its numbering goes on.
    fn assert_in_order(&mut self, news: &News, origin: Option<(u64, u64)>) {
        let (Some(controller), Some((epoch, seq))) = (&mut self.controller, origin) else { return };
        let instance = match news {
            News::Change(change) => &change.instance,
            News::Error(error) => &error.instance,
            News::Log(log) => &log.instance,
            News::AgentsReady(_) => panic!("no agent says that: {news:?}"),
        };
        let before = controller.heard.insert((instance.clone(), epoch), seq);
        assert!(before < Some(seq), "news {seq} of {instance} comes behind {before:?}");
    }

    fn published(&mut self, news: News, origin: Option<(u64, u64)>) {
        self.assert_in_order(&news, origin);
        let (Some(controller), News::Change(change)) = (&mut self.controller, news) else { return };
        let former = controller.told.insert(change.node.clone(), change.new);
        let former = former.unwrap_or(NodeState::Stopped);
        assert_eq!(change.old, former, "a change begins where the last one ended: {change:?}");
    }

    // --- links ---

    fn dial(&mut self, machine: usize) {
        if self.controller.is_none() || !self.machines[machine].agent_is_up() || self.linked.contains_key(&machine) {
            if self.machines[machine].agent_is_up() && !self.linked.contains_key(&machine) {
                self.soon(500..2000, Due::Dial(machine));
            }
            return;
        }
        self.count += 1;
        let link = LinkId(self.count);
        self.links.insert(link, Link { machine, to_agent: VecDeque::new(), to_controller: VecDeque::new() });
        self.linked.insert(machine, link);
        if let Some(controller) = &mut self.controller {
            controller.alive_links.insert(link);
        }
        let features = Features::of(LinkRole::Agent);
        let peer = Peer { name: INSTANCES[machine].into(), host: None, dialled: None, features, certificate: None };
        self.drive(Event::LinkUp(link, peer));
        self.machines[machine].agent_step(agent::Event::LinkUp, self.clock.now);
        self.forward(machine);
    }

    /// The connection is gone, with all that is under way; either end hears of it in its own time.
    fn cut(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.soon(0..5000, Due::ControllerHearsEnd(link));
            self.soon(0..5000, Due::AgentHearsEnd(link));
        }
    }

    /// The agent is gone: its end of the link closes at once.
    fn forget_link_of(&mut self, machine: usize) {
        if let Some(link) = self.linked.remove(&machine) {
            self.links.remove(&link);
            self.soon(0..5000, Due::ControllerHearsEnd(link));
        }
    }

    /// Sends what the agent has to say; without a link that stands it says nothing that counts.
    fn forward(&mut self, machine: usize) {
        let mail = self.machines[machine].take_mail();
        let Some(link) = self.linked.get(&machine) else { return };
        if let (Some(link), false) = (self.links.get_mut(link), mail.is_empty()) {
            let at = arrival(link.to_controller.back().map(|(at, _)| *at), self.clock.now.mono, &mut self.chance);
            link.to_controller.push_back((at, mail));
        }
    }

    // --- time ---

    fn soon(&mut self, within: std::ops::Range<u64>, due: Due) {
        self.count += 1;
        let at = self.clock.now.mono + self.chance.millis(within);
        self.due.insert((at, self.count), due);
    }

    fn next_due(&self) -> Option<Instant> {
        let own = self.due.keys().next().map(|(at, _)| *at);
        let machines = self.machines.iter().filter_map(Machine::next_due);
        let deadline = self.controller.as_ref().and_then(|controller| controller.state.next_deadline());
        let frames = self
            .links
            .values()
            .flat_map(|link| [link.to_agent.front().map(|(at, _)| *at), link.to_controller.front().map(|(at, _)| *at)]);
        own.into_iter().chain(machines).chain(deadline).chain(frames.flatten()).min()
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.clock.now.mono + time;
        while let Some(at) = self.next_due().filter(|at| *at <= end) {
            self.clock.advance_to(at);
            self.happen();
            self.assert_nothing_runs_twice();
            if let Some(watched) = &self.watched {
                let statuses = self.machines.iter().flat_map(Machine::statuses);
                let states = statuses.map(|status| (status.node, (status.instance, status.state)));
                watched.assert_held(&states.collect());
            }
        }
        self.clock.advance_to(end);
    }

    /// Everything that is due now.
    fn happen(&mut self) {
        let now = self.clock.now;
        self.steps += 1;
        if let Some((_, party)) = self.loss.take_if(|(at, _)| *at == self.steps) {
            self.lose(party);
        }
        if let Some((_, node)) = self.stop.take_if(|(at, _)| *at == self.steps) {
            let ticket = self.ask(|reqid| StopRequest { reqid, nodes: [node].into() }.into());
            self.stopped = Some(ticket);
        }
        if let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now.mono) {
            let due = entry.remove();
            self.befall(due);
        }
        for machine in 0..self.machines.len() {
            while self.machines[machine].happen(now) {}
            self.forward(machine);
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(Link { machine, to_agent, to_controller }) = self.links.get_mut(&link) else { continue };
            let machine = *machine;
            let for_agent = arrived(to_agent, now.mono);
            let for_controller = arrived(to_controller, now.mono);
            for message in for_agent.into_iter().flatten() {
                self.machines[machine].obey(message, now);
            }
            self.forward(machine);
            if let Some(messages) = for_controller {
                self.drive(Event::Mail(link, messages));
            }
        }
        if self.controller.as_ref().and_then(|c| c.state.next_deadline()).is_some_and(|at| at <= now.mono) {
            self.drive(Event::Tick);
        }
    }

    fn befall(&mut self, due: Due) {
        match due {
            Due::Dial(machine) => self.dial(machine),
            Due::ControllerHearsEnd(link) => {
                let knows = self.controller.as_mut().is_some_and(|controller| controller.alive_links.remove(&link));
                if knows {
                    self.drive(Event::LinkDown(link, "cut".into()));
                }
            }
            Due::AgentHearsEnd(link) => {
                let machine = self.linked.iter().find(|(_, of)| **of == link).map(|(machine, _)| *machine);
                if let Some(machine) = machine {
                    self.linked.remove(&machine);
                    self.machines[machine].agent_step(agent::Event::LinkDown, self.clock.now);
                    self.soon(0..2000, Due::Dial(machine));
                }
            }
            Due::StartAgent(machine) => {
                self.machines[machine].start_agent(self.clock.now);
                self.soon(0..2000, Due::Dial(machine));
            }
            Due::StartController => self.start_controller(),
            Due::Written(run, number) => {
                if run == self.run && self.controller.is_some() {
                    self.write_up_to(number);
                    self.drive(Event::Journaled(number, Ok(())));
                }
            }
        }
    }

    // --- what must hold ---

    fn assert_the_next_deployment_works(&mut self) {
        let next = self.new_configuration();
        let answer = self.deploy(next.clone());
        assert_eq!(answer.configuration, Some(next.id.clone()), "{answer:?}");
        assert!(answer.outcomes.iter().all(|outcome| outcome.is_success()), "{answer:?}");
        self.pass(LONG);
        self.assert_in_force(&next);
        self.assert_known();
    }

    pub fn running(&self) -> BTreeMap<NodeName, (usize, u32)> {
        let all = self.machines.iter().enumerate();
        all.flat_map(|(at, machine)| machine.running().into_iter().map(move |(name, pid)| (name.clone(), (at, pid))))
            .collect()
    }

    /// Whoever left and was lost before it stood by runs on what it runs, also what a later deployment brings back, until it
    /// has followed one: it is known to have yet to be reached. What is under way is no excuse for those that it brings in.
    fn assert_nothing_runs_twice(&mut self) {
        let has = |kept: &Option<Kept>, name: &InstanceName| kept.as_ref().is_some_and(|kept| kept.has(name));
        let Stored { deployed, ready, standing, .. } = &self.stored;
        let is_open = standing.as_ref().is_some_and(|standing| standing.verdict == Verdict::Open);
        let owing = standing.as_ref().map(|standing| standing.owing.clone()).unwrap_or_default();
        self.missed.retain(|name| owing.contains(name));
        let is_asked = |name: &InstanceName| has(deployed, name) || is_open && has(ready, name);
        self.missed.extend(owing.into_iter().filter(|name| !is_asked(name)));
        let mut places = BTreeMap::new();
        for machine in self.machines.iter().filter(|machine| !self.missed.contains(&machine.name)) {
            for node in machine.running().into_keys() {
                let other = places.insert(node, &machine.name);
                assert_eq!(other, None, "{node} runs on {} as well", machine.name);
            }
        }
    }

    /// Panics unless the controller knows what is so, and its log says the same.
    pub fn assert_known(&self) {
        self.machines.iter().for_each(Machine::assert_truthful);
        let controller = self.controller.as_ref().expect("it is back");
        let status = controller.state.status(Cursor { epoch: 0, number: 0 });
        let known: BTreeMap<_, _> =
            status.nodes.into_iter().map(|status| (status.node, (status.instance, status.state, status.pid))).collect();
        let statuses = self.machines.iter().flat_map(Machine::statuses);
        let said: BTreeMap<_, _> =
            statuses.map(|status| (status.node, (status.instance, status.state, status.pid))).collect();
        assert_eq!(known, said, "the controller knows what agents say");
        for (node, state) in &controller.told {
            let known = known.get(node).map_or(NodeState::Stopped, |(_, state, _)| *state);
            assert_eq!(*state, known, "who followed the log knows the same of {node}");
        }
        assert!(status.instances.iter().all(|instance| instance.link == LinkState::Up));
    }

    pub fn assert_in_force(&self, configuration: &Configuration) {
        self.assert_in_force_beside(configuration, &BTreeSet::new());
    }

    /// The same where these may run or not.
    pub fn assert_in_force_beside(&self, configuration: &Configuration, failing: &BTreeSet<NodeName>) {
        let wanted: BTreeMap<_, _> =
            configuration.nodes.iter().map(|node| (node.name.clone(), node.instance.as_str())).collect();
        let wanted: BTreeMap<_, _> = wanted.into_iter().filter(|(name, _)| !failing.contains(name)).collect();
        let running: BTreeMap<_, _> =
            self.running().into_iter().map(|(name, (machine, _))| (name, INSTANCES[machine])).collect();
        let running: BTreeMap<_, _> = running.into_iter().filter(|(name, _)| !failing.contains(name)).collect();
        assert_eq!(running, wanted, "what is deployed runs, and nothing else");
    }
}

/// When a frame that is sent now arrives, behind the last one.
fn arrival(last: Option<Instant>, now: Instant, chance: &mut Chance) -> Instant {
    let slow = chance.percent(5);
    let at = now + chance.millis(if slow { 0..3000 } else { 1..50 });
    last.map_or(at, |last| last.max(at))
}

/// The first frame, if it has arrived.
fn arrived<T>(frames: &mut VecDeque<(Instant, T)>, now: Instant) -> Option<T> {
    let (at, _) = frames.front()?;
    if *at > now { None } else { frames.pop_front().map(|(_, frame)| frame) }
}

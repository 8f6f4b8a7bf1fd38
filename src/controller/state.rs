//! What the controller decides: who belongs to the cluster, what is deployed, who is asked and who is answered.
//!
//! An agent's way is hello → welcome → ready → configuration. A deployment gathers all the instances that it needs, has each
//! of them look at it, and has its nodes switched in order. If they are all ready it is decided: its configuration is the
//! deployed one, and every instance is told its share. Else every instance goes back. One that cannot be reached gets what
//! was decided when it comes back. Telling it again changes nothing where it is in force already.
//!
//! `deployment` decides all that, `open` what becomes of whatever was asked, and `news` what is made of what agents tell;
//! here is who comes and goes.

mod crashes;
mod deployment;
mod dialling;
mod dispatch;
mod limit;
mod news;
mod open;
mod planning;
mod reading;
mod unknown;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::deployment::{Deployment, Following, Order};
use self::open::{Parent, Verb, sorted};
use super::kept::{Kept, Shelf};
use super::log::Recalled;
use super::nodes::Nodes;
use super::roster::{Hello, Roster};
use super::store::{Save, Slot, Stored};
use crate::bridge::{LinkId, Peer};
use crate::message::agent::{self, *};
use crate::message::client::{self, ClientRequest, ClientResponse, Cursor, News, NotifyAgentsReady, RollbackRequest};
use crate::model::{
    Configuration, ConfigurationId, CurveKeys, InstanceName, NodeStatus, Now, OnFailure, Outcome, RequestId, Timestamp,
};
use crate::plan::{self, Pace, PortRules, PortsExhausted, Slowest};
use crate::request::Requests;
use crate::trust::CurveRoot;

/// The error of everything that was not answered in time.
pub use crate::message::silence::TIMED_OUT;
pub use dialling::Reach;

/// How many refusals are remembered, so that they are told once: those who are refused may go by any name.
const REFUSALS: usize = 256;

/// The rules the controller decides by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The controller's own name, under which it tells news of its own.
    pub name: InstanceName,
    pub ports: PortRules,
    /// Which instances that wait to be dialled can be.
    pub dials: Reach,
    /// How long a client waits for a plain answer, and a deployment for its instances to appear.
    pub request_timeout: Duration,
    /// Names this run of the controller in the ids of its requests to agents.
    pub epoch: u64,
    /// How many nodes of each role a deployment has down at a time, and what becomes of one that fails.
    pub pace: Pace,
    pub on_failure: OnFailure,
    /// Whether news is kept on disk, so that agents keep theirs until it is. Else whatever has arrived counts as kept.
    pub on_disk: bool,
    /// What the keys of Zeek nodes follow from.
    pub keys: CurveRoot,
}

/// Ties the answer to a client's request to whoever waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    rules: Rules,
    shelf: Shelf,
    roster: Roster,
    nodes: Nodes,
    requests: Requests<Parent>,
    /// Requests whose deadlines moved on while files were fetched for them, and since when.
    fetching: BTreeMap<RequestId, Instant>,
    deployment: Option<Deployment>,
    /// What was decided last, until every instance has followed.
    following: Option<Following>,
    /// The number of the last deployment, and of what was to be written of one last.
    last_number: u64,
    last_write: u64,
    /// Who waits no longer than until one of `requests`, which stands for that moment, expires.
    limits: BTreeMap<Ticket, RequestId>,
    /// Why agents that gave this name were refused last, since anything else happened to it.
    refusals: BTreeMap<InstanceName, String>,
    next_request: u64,
    /// So much news waits for the disk that agents are to send no more.
    is_full: bool,
    /// The keys that were told last, by their number: all of an instance's neighbours get the same.
    keys: Option<(u32, CurveKeys)>,
    /// What was asked for last, which is kept encoded by now. To let go of it takes a while: that is for when everybody has
    /// been told, and nobody has answered.
    spent: Option<Configuration>,
}

/// What happens to a controller.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Ask(Ticket, ClientRequest),
    /// The same for a configuration that is encoded already.
    Set(Ticket, Box<client::SetConfigurationRequest>, Kept),
    /// Whoever waits for this answer waits no longer than this from now on.
    Limit(Ticket, Duration),
    LinkUp(LinkId, Peer),
    LinkDown(LinkId, String),
    /// The peer does not know messages of that kind.
    NotKnown(LinkId, u16),
    Mail(LinkId, Vec<ToController>),
    /// So far the news of these instances is kept: epoch and number.
    Kept(Vec<(InstanceName, u64, u64)>),
    /// So much news waits for the disk that no more should come; or not any more.
    Full(bool),
    /// What [`Effect::Journal`] asked for under this number is durable, or cannot be kept, for this reason.
    Journaled(u64, Result<(), String>),
    /// Bring back what an earlier deployment deployed: which one, and that, as it was found; or why it was not.
    Rollback(Ticket, RollbackRequest, Result<(u64, Kept), String>),
    /// The log cannot be written, for this reason.
    LogFailed(String),
    /// The log is written again. So many entries of this controller's own are missing in it.
    LogWorks {
        dropped: u64,
    },
    /// Somebody removed these entries of the log, first and last.
    LogGone(u64, u64),
    /// The time of [`State::next_deadline`] has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Send(LinkId, ToAgent),
    EndLink(LinkId, String),
    /// Keep dialling that instance.
    Dial(InstanceName, SocketAddr),
    /// Stop dialling it, and end the link if there is one.
    HangUp(InstanceName),
    /// Make this durable, then answer, if anybody is to be answered.
    Save(Vec<Save>, Option<(Ticket, ClientResponse)>),
    /// Make this durable, and say so by [`Event::Journaled`] with the same number.
    Journal(u64, Vec<Save>),
    Answer(Ticket, ClientResponse),
    /// Read those parts of what nodes are to have, and say it on this link.
    ReadBlobs(LinkId, ReadBlobsRequest),
    /// There will be no answer.
    Silence(Ticket),
    /// Log it and tell observers; `origin` is the agent's epoch and number.
    Publish {
        news: News,
        time: Timestamp,
        origin: Option<(u64, u64)>,
    },
    /// Everything that is published by now holds the news of this instance up to there: say so by [`Event::Kept`] when it
    /// is kept.
    Keep {
        instance: InstanceName,
        epoch: u64,
        seq: u64,
    },
}

impl State {
    /// A controller that finds `stored` and `recalled` at its start, and what it has to do first.
    pub fn new(rules: Rules, stored: Stored, recalled: Recalled, now: Now) -> (Self, Vec<Effect>) {
        let mut state = Self {
            rules,
            shelf: stored.clone().into(),
            roster: Roster::default(),
            nodes: Nodes::default(),
            requests: Requests::default(),
            fetching: BTreeMap::new(),
            deployment: None,
            following: None,
            last_number: 0,
            last_write: 0,
            limits: BTreeMap::new(),
            refusals: BTreeMap::new(),
            next_request: 0,
            is_full: false,
            keys: None,
            spent: None,
        };
        let mut fx = Vec::new();
        let undecided = state.take_up_last(&stored, now.wall);
        state.gather_to_go_back(now);
        fx.extend((!undecided.is_empty()).then_some(Effect::Save(undecided, None)));
        let Recalled { nodes, arrived, notes } = recalled;
        state.roster.recall(arrived);
        for note in notes {
            state.tell_log(&state.rules.name, note, now.wall, &mut fx);
        }
        publish_own(state.nodes.begin(nodes, state.shelf.deployed(), now.wall), &mut fx);
        let instances = state.shelf.deployed().map(|deployed| Arc::clone(&deployed.instances)).unwrap_or_default();
        for instance in &*instances {
            state.roster.need(instance);
            state.dial(instance, now.wall, &mut fx);
        }
        if let Some(deployed) = state.shelf.deployed() {
            // What else is known of has left, unless an instance that stays was still to end it.
            let stay: BTreeSet<_> = instances.iter().map(|instance| &instance.name).collect();
            let names = LazyCell::new(|| deployed.heads().map(|head| head.name).collect::<BTreeSet<_>>());
            let is_meant =
                |status: &NodeStatus| stay.contains(&status.instance) || names.contains(status.node.as_str());
            publish_own(state.nodes.forget_lost(is_meant, now.wall), &mut fx);
        }
        (state, fx)
    }

    /// Decides.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut fx = Vec::new();
        let spent = self.spent.take();
        match event {
            Event::Ask(ticket, request) => self.ask(ticket, request, now, &mut fx),
            Event::Set(ticket, request, encoded) => self.set(ticket, *request, encoded, now, &mut fx),
            Event::Limit(ticket, within) => self.limit(ticket, now.mono + within),
            Event::LinkUp(link, peer) => {
                self.roster.link_up(link, peer);
                self.open(Parent::Hello(link), BTreeSet::new(), now.mono + self.rules.request_timeout);
            }
            Event::LinkDown(link, reason) => self.link_down(link, &reason, now, &mut fx),
            Event::NotKnown(link, kind) => self.not_known(link, kind, now, &mut fx),
            Event::Mail(link, messages) => self.mail(link, messages, now, &mut fx),
            Event::Kept(arrived) => self.kept(arrived, &mut fx),
            Event::Full(is_full) => self.full(is_full, &mut fx),
            Event::Journaled(number, written) => self.journaled(number, written, now, &mut fx),
            Event::Rollback(ticket, request, found) => self.roll_back(ticket, request, found, now, &mut fx),
            Event::LogFailed(why) => self.log_failed(&why, now.wall, &mut fx),
            Event::LogWorks { dropped } => self.log_works(dropped, now.wall, &mut fx),
            Event::LogGone(first, last) => {
                let msg = format!(
                    "entries {first} to {last} of the log are gone: somebody removed or moved their files. What comes is \
                     kept again"
                );
                self.tell_error(&self.rules.name, msg, now.wall, &mut fx);
            }
            Event::Tick => {
                while let Some((reqid, open)) = self.requests.expire(now.mono) {
                    self.expired(reqid, open, now, &mut fx);
                }
            }
        }
        self.lift_limits(&fx);
        drop(spent);
        fx
    }

    /// When [`Event::Tick`] is due, if at all.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.requests.next_deadline()
    }

    /// Everything as of `cursor`.
    pub fn status(&self, cursor: Cursor) -> client::GetStatusResponse {
        client::GetStatusResponse {
            cursor,
            instances: self.roster.statuses(),
            nodes: self.nodes.iter().cloned().collect(),
            configuration: self.shelf.deployed().map(|deployed| deployed.id.clone()),
            deploying: self.deployment.as_ref().map(|deployment| deployment.record.reqid.clone()),
            deployment: self.deployment_status().map(Box::new),
        }
    }

    /// What the next deployment would deploy.
    pub fn ready(&self) -> Option<&Kept> {
        self.shelf.get(Slot::Ready)
    }

    /// The connected agents, sorted by name.
    pub fn connected(&self) -> Vec<client::InstanceStatus> {
        let mut instances = self.roster.statuses();
        instances.retain(|instance| instance.link == client::LinkState::Up);
        instances
    }

    /// Another number than before wherever [`State::connected`] may tell something else.
    pub fn roster_revision(&self) -> u64 {
        self.roster.revision()
    }

    // --- what clients ask ---

    fn ask(&mut self, ticket: Ticket, request: ClientRequest, now: Now, fx: &mut Vec<Effect>) {
        use ClientRequest as R;
        match request {
            R::GetInstancesRequest(client::GetInstancesRequest { reqid }) => {
                let instances = self.connected();
                fx.push(Effect::Answer(ticket, client::GetInstancesResponse { reqid, instances }.into()));
            }
            R::StageConfigurationRequest(client::StageConfigurationRequest { reqid, configuration }) => {
                let encoded = Kept::new(&configuration);
                let staged = self.stage(configuration, encoded, &BTreeSet::new());
                self.spent = None; // nobody waits for anything but the disk
                let answer = match staged {
                    Ok((saves, id)) => {
                        let outcomes = Vec::new();
                        let answer =
                            client::StageConfigurationResponse { reqid, configuration: Some(id), outcomes }.into();
                        Effect::Save(saves, Some((ticket, answer)))
                    }
                    Err(outcomes) => {
                        let configuration = None;
                        let answer = client::StageConfigurationResponse { reqid, configuration, outcomes };
                        Effect::Answer(ticket, answer.into())
                    }
                };
                fx.push(answer);
            }
            R::DeployRequest(client::DeployRequest { reqid, terms }) => {
                self.deploy(ticket, Order { reqid, in_one_step: false, terms, back_to: None }, now, fx);
            }
            R::SetConfigurationRequest(request) => {
                let encoded = Kept::new(&request.configuration);
                self.set(ticket, request, encoded, now, fx);
            }
            R::GetConfigurationRequest(client::GetConfigurationRequest { reqid, deployed }) => {
                let (slot, name) = match deployed {
                    true => (Slot::Deployed, "deployed"),
                    false => (Slot::Staged, "staged"),
                };
                let configuration = self.shelf.get(slot).map(Kept::open);
                let configuration = configuration.ok_or_else(|| format!("no {name} configuration available"));
                fx.push(Effect::Answer(ticket, client::GetConfigurationResponse { reqid, configuration }.into()));
            }
            R::GetDeployedRequest(client::GetDeployedRequest) => {
                let configuration = self.shelf.deployed().map(|deployed| deployed.id.clone());
                fx.push(Effect::Answer(ticket, client::GetDeployedResponse { configuration }.into()));
            }
            // Answered by the actor, which knows the log; asked of the state alone there is no entry yet.
            R::GetStatusRequest(client::GetStatusRequest) => {
                fx.push(Effect::Answer(ticket, self.status(Cursor { epoch: 0, number: 0 }).into()));
            }
            R::GetNodesRequest(client::GetNodesRequest { reqid }) => self.get_nodes(ticket, reqid, now, fx),
            R::StartRequest(client::StartRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Start, nodes, now, fx);
            }
            R::StopRequest(client::StopRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Stop, nodes, now, fx);
            }
            R::RestartRequest(client::RestartRequest { reqid, nodes }) => {
                self.verb(ticket, reqid, Verb::Restart, nodes, now, fx);
            }
            R::GetIdValueRequest(request) => self.get_id_value(ticket, request, now, fx),
            R::GetOutputRequest(request) => self.get_output(ticket, request, now, fx),
            R::GetCrashesRequest(request) => self.get_crashes(ticket, request, now, fx),
            R::PlanRequest(request) => self.plan(ticket, request, now, fx),
            R::ReadOutputRequest(request) => self.read_output(ticket, request, now, fx),
            R::TestTimeoutRequest(client::TestTimeoutRequest { with_state: false, .. }) => {
                fx.push(Effect::Silence(ticket));
            }
            R::TestTimeoutRequest(client::TestTimeoutRequest { reqid, .. }) => {
                let deadline = now.mono + self.rules.request_timeout;
                self.open(Parent::TestTimeout(ticket, reqid), BTreeSet::new(), deadline);
            }
        }
    }

    /// Stages a configuration, which `encoded` is, and deploys it.
    fn set(
        &mut self,
        ticket: Ticket,
        request: client::SetConfigurationRequest,
        encoded: Kept,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let refusal = self.refusal().or_else(|| self.is_overtaken(&request).map(|refusal| vec![refusal]));
        let client::SetConfigurationRequest { reqid, configuration, upon: _, terms } = request;
        match refusal.map_or_else(|| self.stage(configuration, encoded, &terms.without), Err) {
            Ok((saves, _)) => {
                fx.push(Effect::Save(saves, None));
                self.deploy(ticket, Order { reqid, in_one_step: true, terms, back_to: None }, now, fx);
            }
            Err(outcomes) => {
                let answer =
                    client::SetConfigurationResponse { reqid, configuration: None, outcomes, deployment: None };
                fx.push(Effect::Answer(ticket, answer.into()));
            }
        }
    }

    /// What is wrong with a configuration itself, sorted.
    pub fn complaints(&self, configuration: &Configuration) -> Vec<String> {
        plan::validate(configuration, &self.rules.ports)
    }

    /// Checks a configuration, which `encoded` is, and makes it the next to deploy; every complaint is an outcome, sorted by
    /// text.
    fn stage(
        &mut self,
        staged: Configuration,
        encoded: Kept,
        without: &BTreeSet<InstanceName>,
    ) -> Result<(Vec<Save>, ConfigurationId), Vec<Outcome>> {
        let complaints = plan::validate(&staged, &self.rules.ports);
        if !complaints.is_empty() {
            return Err(complaints.into_iter().map(Outcome::failed).collect());
        }
        if let Some(error) = self.undialled(&staged.instances, without) {
            return Err(vec![Outcome::failed(error)]);
        }
        let ready = self.made_ready(&staged).map_err(|error| vec![Outcome::failed(error.to_string())])?;
        // Where no ports were given out, nodes are the same, and encoded once.
        let is_same = staged.zeek == ready.zeek
            && staged.nodes.iter().zip(&ready.nodes).all(|(staged, ready)| Arc::ptr_eq(staged, ready));
        let id = staged.id.clone();
        let ready = if is_same { encoded.with_instances(ready.instances) } else { Kept::new(&ready) };
        self.spent = Some(staged);
        let mut save = |slot, configuration| Save::Configuration(slot, self.shelf.put(slot, configuration).clone());
        Ok((vec![save(Slot::Staged, encoded), save(Slot::Ready, ready)], id))
    }

    /// A configuration as it would be deployed: with the addresses, ports and whatever else it leaves open.
    fn made_ready(&self, configuration: &Configuration) -> Result<Configuration, PortsExhausted> {
        let mut ready = configuration.clone();
        let hosts = self.hosts(&ready.id);
        plan::resolve_hosts(&mut ready.instances, &hosts);
        if let Some(deployed) = self.shelf.deployed() {
            plan::keep_ports(&mut ready, &deployed.open_ports());
        }
        plan::zeek::complete(&mut ready);
        plan::assign_ports(&mut ready, &self.rules.ports)?;
        Ok(ready)
    }

    // --- what agents say ---

    fn hello(&mut self, link: LinkId, hello: &NotifyAgentHello, now: Now, fx: &mut Vec<Effect>) {
        let accepted = match hello.api_version {
            API_VERSION => self.roster.hello(link, hello, now.wall),
            other => Hello::Refused(format!(
                "agent `{}` speaks version {other} of the agent API, this controller speaks {API_VERSION}: \
                 run the same release of watchpost on both",
                hello.instance
            )),
        };
        let (former, same_run) = match accepted {
            Hello::Accepted { former, same_run } => (former, same_run),
            Hello::Refused(reason) => {
                self.tell_refusal(&hello.instance, &reason, now.wall, fx);
                fx.push(Effect::Send(link, AgentRefused { reason: reason.clone() }.into()));
                return fx.push(Effect::EndLink(link, reason));
            }
        };
        self.refusals.remove(&hello.instance);
        let was_to_stand_by = self.is_to_stand_by(&hello.instance);
        if let Some(former) = former {
            fx.push(Effect::EndLink(former, "the agent has a newer link".into()));
            self.give_up_on(&hello.instance, now, fx);
        }
        self.credit(&hello.instance, fx);
        self.is_missed_no_more(&hello.instance);
        if !same_run {
            self.has_to_look_again(&hello.instance, now);
        }
        self.ask_again(&hello.instance, same_run, fx);
        if was_to_stand_by {
            self.stand_by(&hello.instance, now, fx);
        }
        self.tell_log(&hello.instance, format!("connected, running watchpost {}", hello.version), now.wall, fx);
        self.welcome(&hello.instance, now, fx);
    }

    /// An agent that is refused tries on and on: each cause is told once.
    fn tell_refusal(&mut self, name: &InstanceName, reason: &str, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.refusals.get(name).is_some_and(|known| known == reason) {
            return;
        }
        if self.refusals.len() >= REFUSALS {
            self.refusals.clear();
        }
        self.refusals.insert(name.clone(), reason.to_owned());
        self.tell_error(name, format!("refused: {reason}"), now, fx);
    }

    fn welcome(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        let is_waiting = |seat: &&super::roster::Seat| seat.needed.is_some() && !seat.ready && seat.link.is_some();
        if self.roster.get(name).filter(is_waiting).is_some() {
            let deadline = now.mono + self.rules.request_timeout;
            let reqid = self.open(Parent::Welcome, BTreeSet::from([name.clone()]), deadline);
            self.send(name, AgentWelcomeRequest { reqid }, fx);
            self.roster.get_mut(name).iter_mut().for_each(|seat| seat.welcomed = true);
            // Whoever waits for the last one need not wait for its answer.
            self.go_on(now, fx);
        }
    }

    fn stand_by(&mut self, name: &InstanceName, now: Now, fx: &mut Vec<Effect>) {
        if self.roster.link(name).is_some() {
            let patience =
                self.shelf.deployed().map_or_else(|| Slowest::default().patience(), |has| has.patience(None));
            let deadline = now.mono + patience;
            let reqid = self.open(Parent::Standby, BTreeSet::from([name.clone()]), deadline);
            self.send(name, AgentStandbyRequest { reqid }, fx);
        }
    }

    fn is_to_stand_by(&self, name: &InstanceName) -> bool {
        let owed = self.requests.owed_by(name);
        owed.iter().any(|reqid| self.requests.get(reqid).is_some_and(|open| open.parent == Parent::Standby))
    }

    /// The instance has stood by, or will not say so: nobody dials it any more.
    fn let_go(&self, name: &InstanceName, fx: &mut Vec<Effect>) {
        if self.roster.get(name).is_none_or(|seat| seat.needed.is_none()) && !self.has_yet_to_follow(name) {
            fx.push(Effect::HangUp(name.clone()));
        }
    }

    fn welcomed(&mut self, from: &InstanceName, outcome: &Outcome, now: Now, fx: &mut Vec<Effect>) {
        if let Some(error) = &outcome.error {
            // It is asked again for the next deployment.
            self.roster.get_mut(from).iter_mut().for_each(|seat| seat.welcomed = false);
            self.tell_error(from, format!("refused the welcome: {error}"), now.wall, fx);
            return self.cannot_gather(from, outcome, now, fx);
        }
        match self.roster.get_mut(from) {
            Some(seat) if seat.needed.is_some() => seat.ready = true,
            // No longer wanted since it was asked.
            _ => return self.stand_by(from, now, fx),
        }
        let meant = self.meant().map_or(&[][..], |meant| &meant.instances);
        if self.roster.are_ready(meant) {
            let instances = meant.iter().map(|instance| instance.name.clone()).collect();
            let news = News::AgentsReady(NotifyAgentsReady { instances });
            fx.push(Effect::Publish { news, time: now.wall, origin: None });
        }
        self.take_up(from, now, fx);
    }

    fn stop_answered(
        &mut self,
        from: &InstanceName,
        reqid: &RequestId,
        outcomes: Vec<Outcome>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        match self.requests.get(reqid).is_some_and(|open| open.parent == Parent::Move) {
            true => self.move_answered(from, reqid, outcomes, now, fx),
            false => self.verb_answered(from, reqid, outcomes, fx),
        }
    }

    fn link_down(&mut self, link: LinkId, reason: &str, now: Now, fx: &mut Vec<Effect>) {
        let Some(name) = self.roster.link_down(link, reason, now.wall) else { return };
        self.refusals.remove(&name);
        self.tell_error(&name, format!("out of reach: {reason}"), now.wall, fx);
        publish_own(self.nodes.lose(&name, &format!("its agent is out of reach: {reason}"), now.wall), fx);
        self.give_up_on(&name, now, fx);
        self.miss(&name, now, fx);
        self.are_all_back(now, fx);
        if self.roster.get(&name).is_some_and(|seat| seat.needed.is_none()) {
            if !self.has_yet_to_follow(&name) {
                self.roster.dispense_with(&name);
                fx.push(Effect::HangUp(name));
            }
            // It was on its way out, and nobody will tell the rest.
            self.forget_lost(now.wall, fx);
        }
    }

    // --- helpers ---

    /// How long agents may take to go from what is deployed to `configuration`.
    fn patience(&self, configuration: &Kept) -> Duration {
        configuration.patience(self.shelf.deployed())
    }

    fn send(&self, to: &InstanceName, message: impl Into<ToAgent>, fx: &mut Vec<Effect>) {
        fx.extend(self.roster.link(to).map(|link| Effect::Send(link, message.into())));
    }

    fn send_share(&mut self, to: &InstanceName, whole: &Kept, reqid: RequestId, fx: &mut Vec<Effect>) {
        self.gives(to, &reqid);
        let (configuration, rest) = (self.share_of(whole, to), self.rests_of(to));
        self.send(to, agent::SetConfigurationRequest { reqid, configuration, rest }, fx);
    }

    /// What the agent of an instance needs to know of a configuration, with the keys of its Zeek nodes.
    fn share_of(&mut self, whole: &Kept, to: &InstanceName) -> Share {
        let Some(number) = whole.keys else { return whole.share_of(to) };
        let known = self.keys.take_if(|(known, _)| *known == number);
        let (_, keys) = self.keys.insert(known.unwrap_or_else(|| (number, self.rules.keys.keys(number))));
        whole.share_with_keys(to, Some(keys))
    }

    /// Forgets nodes that are not deployed, and that nobody will tell of. A controller that means nothing forgets nothing.
    fn forget_lost(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let Some(deployed) = self.shelf.deployed() else { return };
        // Mostly nobody is lost, and nobody asks.
        let meant = LazyCell::new(|| deployed.heads().map(|head| head.name).collect::<BTreeSet<_>>());
        publish_own(self.nodes.forget_lost(|status| meant.contains(status.node.as_str()), now), fx);
    }

    fn tell_error(&self, instance: &InstanceName, msg: String, time: Timestamp, fx: &mut Vec<Effect>) {
        let news = News::Error(NotifyError { seq: 0, time, instance: instance.clone(), node: None, msg });
        fx.push(Effect::Publish { news, time, origin: None });
    }

    fn tell_log(&self, instance: &InstanceName, msg: String, time: Timestamp, fx: &mut Vec<Effect>) {
        let news = News::Log(NotifyLog { seq: 0, time, instance: instance.clone(), node: None, msg });
        fx.push(Effect::Publish { news, time, origin: None });
    }
}

fn publish_own(changes: Vec<NotifyChange>, fx: &mut Vec<Effect>) {
    fx.extend(changes.into_iter().map(|change| {
        let time = change.time;
        Effect::Publish { news: News::Change(change), time, origin: None }
    }));
}

#[cfg(test)]
mod tests;

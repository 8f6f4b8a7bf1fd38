//! Who is needed, who is connected, and who is ready: the instances as the controller sees them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::bridge::{Features, LinkId, Peer};
use crate::message::agent::{NewsReceived, NotifyAgentHello};
use crate::message::client::{AgentStatus, CertificateTerm, InstanceStatus, LinkState};
use crate::message::silence;
use crate::model::{Abilities, Instance, InstanceName, Timestamp};

/// Of how many instances without a seat it is remembered how far their news has come: strangers go by any name.
const GONE: usize = 4096;

/// Every instance that is needed or connected.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    seats: BTreeMap<InstanceName, Seat>,
    /// Links that stand, and who spoke on them once they said hello.
    links: BTreeMap<LinkId, Caller>,
    /// How far the news of each agent has come: also when its seat is gone, since it may come again.
    news: BTreeMap<InstanceName, Received>,
    /// Whose seats are gone while their news is remembered, the last of them at the end.
    gone: VecDeque<InstanceName>,
    /// Since when they are away, and why.
    left: BTreeMap<InstanceName, (Timestamp, String)>,
    /// Counts what changed [`Roster::statuses`].
    revision: u64,
    /// Where in a list of instances the first was found last that was not ready.
    missed: Cell<usize>,
}

/// One instance.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// As configured, if the cluster being managed needs it.
    pub needed: Option<Instance>,
    /// The link its agent said hello on.
    pub link: Option<LinkId>,
    /// It was sent a welcome on this link.
    pub welcomed: bool,
    /// It answered the welcome on this link.
    pub ready: bool,
    /// It was sent a configuration on this link.
    pub given: bool,
    /// It has said on this link what it runs.
    pub has_told: bool,
    host: Option<IpAddr>,
    dialled: Option<u16>,
    version: Option<String>,
    /// The run of the agent that said hello last, what it has locked, and what it can do.
    run: Option<u64>,
    place: u64,
    features: Features,
    /// When `link` became what it is; `None` if there never was one.
    pub since: Option<Timestamp>,
    reason: String,
    /// Of the certificate that its agent showed last.
    certificate: Option<CertificateTerm>,
    abilities: Option<Abilities>,
}

/// How far an agent's news has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Received {
    epoch: u64,
    /// The last number that arrived; 0 if none has.
    seq: u64,
    /// Whether any has: what an earlier controller has seen is not missing.
    any: bool,
    /// The last number that is kept: what came behind it the agent has to keep.
    kept: u64,
    /// The last number that the agent was told of on its present link as one that has arrived.
    told: Option<u64>,
}

#[derive(Debug, Clone)]
struct Caller {
    peer: Peer,
    instance: Option<InstanceName>,
}

/// What a hello means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// It is welcome to talk. A link it had before is to be ended. If it is `same_run`, it remembers what it was asked there.
    Accepted { former: Option<LinkId>, same_run: bool },
    /// It is somebody else, or another agent sits there already; in words.
    Refused(String),
}

impl Roster {
    /// A link stands; who is at the other end is not known yet.
    pub fn link_up(&mut self, link: LinkId, peer: Peer) {
        self.links.insert(link, Caller { peer, instance: None });
    }

    /// A link is gone; whose it was, if it was anybody's.
    pub fn link_down(&mut self, link: LinkId, reason: &str, now: Timestamp) -> Option<InstanceName> {
        let name = self.links.remove(&link)?.instance?;
        let seat = self.seats.get_mut(&name).filter(|seat| seat.link == Some(link))?;
        (seat.link, seat.since) = (None, Some(now));
        (seat.welcomed, seat.ready) = (false, false);
        reason.clone_into(&mut seat.reason);
        self.revision += 1;
        Some(name)
    }

    /// An agent said who it is.
    pub fn hello(&mut self, link: LinkId, hello: &NotifyAgentHello, now: Timestamp) -> Hello {
        let Some(caller) = self.links.get_mut(&link) else {
            return Hello::Refused("its link is gone".into());
        };
        if caller.peer.name != hello.instance.as_str() {
            let (greeted, said) = (&caller.peer.name, &hello.instance);
            return Hello::Refused(format!("its link was greeted by `{greeted}`, which cannot speak for `{said}`"));
        }
        let seat = self.seats.entry(hello.instance.clone()).or_default();
        let received = self.news.get(&hello.instance).copied();
        let same_numbering = received.is_some_and(|news| news.epoch == hello.epoch);
        let same_run = same_numbering && seat.run == Some(hello.run);
        // A second process is told from the first by its run, also with a copy of the first one's state. One that has locked
        // what the first had locked comes after it.
        let is_next = same_numbering && hello.place != 0 && seat.place == hello.place;
        if let Some(first) = seat.link.filter(|first| *first != link && !same_run && !is_next) {
            let place = seat.host.map_or_else(|| "in this process".to_owned(), |host| format!("at {host}"));
            let since = seat.since.unwrap_or_default();
            return Hello::Refused(format!(
                "instance `{}` is taken by an agent {place} since {since} (link {}): give this one another name, and a state \
                 directory of its own",
                hello.instance, first.0
            ));
        }
        // A second hello on a link makes no new one of it.
        seat.has_told &= seat.link == Some(link);
        let former = seat.link.replace(link).filter(|former| *former != link);
        caller.instance = Some(hello.instance.clone());
        (seat.host, seat.dialled) = (caller.peer.host, caller.peer.dialled);
        (seat.run, seat.place, seat.features) = (Some(hello.run), hello.place, caller.peer.features);
        (seat.version, seat.since) = (Some(hello.version.clone()), Some(now));
        (seat.welcomed, seat.ready) = (false, false);
        seat.certificate = caller
            .peer
            .certificate
            .as_ref()
            .map(|shown| CertificateTerm { until: shown.not_after, due_at: shown.due_at() });
        seat.abilities = Some(hello.abilities.clone());
        seat.given = false;
        seat.reason.clear();
        self.left.remove(&hello.instance);
        self.revision += 1;
        let fresh = Received { epoch: hello.epoch, seq: 0, any: false, kept: 0, told: None };
        let news = received.filter(|_| same_numbering).unwrap_or(fresh);
        self.news.insert(hello.instance.clone(), Received { told: None, ..news });
        Hello::Accepted { former, same_run }
    }

    /// Whether nobody has said hello on this link, which stands.
    pub fn is_silent(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|caller| caller.instance.is_none())
    }

    /// Another number than before wherever [`Roster::statuses`] may tell something else.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whose link it is, once it said hello and as long as it is the instance's present one.
    pub fn speaker(&self, link: LinkId) -> Option<&InstanceName> {
        let name = self.links.get(&link)?.instance.as_ref()?;
        self.seats.get(name).filter(|seat| seat.link == Some(link)).map(|_| name)
    }

    /// The instance of that name.
    pub fn get(&self, name: &InstanceName) -> Option<&Seat> {
        self.seats.get(name)
    }

    /// The instance of that name.
    pub fn get_mut(&mut self, name: &InstanceName) -> Option<&mut Seat> {
        self.seats.get_mut(name)
    }

    /// The link to that instance, if it is connected.
    pub fn link(&self, name: &InstanceName) -> Option<LinkId> {
        self.seats.get(name).and_then(|seat| seat.link)
    }

    /// The release that its agent runs, as last heard.
    pub fn version(&self, name: &InstanceName) -> Option<&str> {
        self.seats.get(name).and_then(|seat| seat.version.as_deref())
    }

    /// Whether its agent, as last heard, is known to do all of this.
    pub fn can(&self, name: &InstanceName, features: Features) -> bool {
        self.seats.get(name).is_some_and(|seat| seat.features.has(features))
    }

    /// The cluster needs this instance.
    pub fn need(&mut self, instance: &Instance) {
        self.seats.entry(instance.name.clone()).or_default().needed = Some(instance.clone());
        self.revision += 1;
    }

    /// Nobody dials it, for this reason: that is why it has no link, if it has none.
    pub fn is_not_dialled(&mut self, name: &InstanceName, why: &str) {
        if let Some(seat) = self.seats.get_mut(name).filter(|seat| seat.link.is_none()) {
            why.clone_into(&mut seat.reason);
            self.revision += 1;
        }
    }

    /// The cluster does not need it any more.
    pub fn dispense_with(&mut self, name: &InstanceName) {
        self.see_off(name);
        if self.seats.get(name).is_some_and(|seat| seat.link.is_none()) {
            if let Some(Seat { since: Some(since), reason, .. }) = self.seats.remove(name) {
                self.left.insert(name.clone(), (since, reason));
            }
            self.forget_in_time(name);
        }
    }

    /// The same of one that has yet to stand by: it is shown until then.
    pub fn see_off(&mut self, name: &InstanceName) {
        self.revision += 1;
        if let Some(seat) = self.seats.get_mut(name) {
            (seat.needed, seat.welcomed, seat.ready) = (None, false, false);
        }
    }

    /// Forgets how far the news of those has come that have been gone for the longest, now that this one is, too.
    fn forget_in_time(&mut self, name: &InstanceName) {
        self.gone.retain(|gone| gone != name);
        if self.news.contains_key(name) || self.left.contains_key(name) {
            self.gone.push_back(name.clone());
        }
        if self.gone.len() > GONE
            && let Some(oldest) = self.gone.pop_front()
            && !self.seats.contains_key(&oldest)
        {
            self.news.remove(&oldest);
            self.left.remove(&oldest);
        }
    }

    /// The instances that the cluster needs, as configured, sorted by name.
    pub fn needed(&self) -> impl Iterator<Item = &Instance> {
        self.seats.values().filter_map(|seat| seat.needed.as_ref())
    }

    /// The names of all connected instances.
    pub fn connected(&self) -> BTreeSet<InstanceName> {
        self.seats.iter().filter(|(_, seat)| seat.link.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether that instance was sent a welcome, and is there to answer it unless it did.
    pub fn is_welcomed(&self, name: &InstanceName) -> bool {
        self.seats.get(name).is_some_and(|seat| seat.welcomed)
    }

    /// Whether that instance answered the welcome.
    pub fn is_ready(&self, name: &InstanceName) -> bool {
        self.seats.get(name).is_some_and(|seat| seat.ready)
    }

    /// Whether each of these did.
    pub fn are_ready(&self, instances: &[Instance]) -> bool {
        self.none_is_missed(instances, |name| !self.is_ready(name))
    }

    /// Whether each of these was sent a welcome.
    pub fn are_welcomed(&self, instances: &[Instance]) -> bool {
        self.none_is_missed(instances, |name| !self.is_welcomed(name))
    }

    fn none_is_missed(&self, instances: &[Instance], is_missed: impl Fn(&InstanceName) -> bool) -> bool {
        // Asked at every answer of many, it begins with the one that was missed last: else all who have answered are
        // looked for again each time.
        let (before, from) = instances.split_at(self.missed.get().min(instances.len()));
        let is_missed = |instance: &Instance| is_missed(&instance.name);
        let missed = from.iter().position(is_missed).map(|at| before.len() + at);
        let missed = missed.or_else(|| before.iter().position(is_missed));
        self.missed.set(missed.unwrap_or_default());
        missed.is_none()
    }

    /// Those of these instances that did not answer the welcome, with what is known of the cause.
    pub fn missing<'a>(&self, instances: impl IntoIterator<Item = &'a Instance>) -> BTreeMap<InstanceName, String> {
        let missing = instances.into_iter().filter(|instance| !self.is_ready(&instance.name));
        missing.map(|instance| (instance.name.clone(), self.why_away(&instance.name))).collect()
    }

    /// Why that instance is not ready, as far as it is known.
    pub fn why_away(&self, name: &InstanceName) -> String {
        match self.seats.get(name) {
            Some(Seat { link: Some(_), .. }) => silence::UNWELCOMED.to_owned(),
            Some(Seat { since: Some(since), reason, .. }) => away(*since, reason),
            _ => match self.left.get(name) {
                Some((since, reason)) => away(*since, reason),
                // The controller before this one has seen it.
                None if self.news.contains_key(name) => silence::UNCONNECTED.to_owned(),
                None => silence::NEVER.to_owned(),
            },
        }
    }

    /// Where agents were seen, for instances whose configuration does not say.
    pub fn seen_hosts(&self) -> BTreeMap<InstanceName, IpAddr> {
        self.seats.iter().filter_map(|(name, seat)| Some((name.clone(), seat.host?))).collect()
    }

    /// Notes the arrival of news number `seq`; what of it is new.
    pub fn arrived(&mut self, name: &InstanceName, seq: u64) -> Arrival {
        let Some(news) = self.news.get_mut(name) else {
            return Arrival::Known;
        };
        if seq <= news.seq {
            return Arrival::Known;
        }
        let missed = if news.any { seq - news.seq - 1 } else { 0 };
        (news.seq, news.any) = (seq, true);
        Arrival::New { epoch: news.epoch, missed }
    }

    /// How far the news of each instance had come by the end of the controller before this one: epoch and number.
    pub fn recall(&mut self, arrived: BTreeMap<InstanceName, (u64, u64)>) {
        for (name, (epoch, seq)) in arrived {
            self.gone.push_back(name.clone());
            self.news.insert(name, Received { epoch, seq, any: true, kept: seq, told: None });
        }
    }

    /// Tells the agent of that instance, if it is connected, how far its news has come: it may send as much again.
    pub fn credit(&mut self, name: &InstanceName) -> Option<(LinkId, NewsReceived)> {
        let link = self.link(name)?;
        let news = self.news.get_mut(name)?;
        news.told = Some(news.seq);
        Some((link, NewsReceived { epoch: news.epoch, seq: news.seq, kept: news.kept }))
    }

    /// Notes how far the news of an instance is kept. Its agent is to be told, if anything was said on its link before.
    pub fn kept(&mut self, name: &InstanceName, epoch: u64, seq: u64) -> Option<(LinkId, NewsReceived)> {
        let link = self.link(name);
        let news = self.news.get_mut(name).filter(|news| news.epoch == epoch && news.kept < seq)?;
        news.kept = seq;
        Some((link?, NewsReceived { epoch, seq: news.told?, kept: seq }))
    }

    /// The epoch and the number of what arrived of that instance's news last.
    pub fn news(&self, name: &InstanceName) -> Option<(u64, u64)> {
        self.news.get(name).map(|news| (news.epoch, news.seq))
    }

    /// The agent of that instance, which runs as this process.
    pub fn agent(&self, name: &InstanceName, pid: Option<u32>) -> AgentStatus {
        let seat = self.seats.get(name);
        AgentStatus {
            instance: name.clone(),
            pid,
            port: seat.and_then(|seat| seat.dialled),
            beside: seat.is_some_and(|seat| seat.link.is_some() && seat.host.is_none()),
        }
    }

    /// Every instance as people see it, sorted by name.
    pub fn statuses(&self) -> Vec<InstanceStatus> {
        self.seats.iter().map(|(name, seat)| seat.status(name)).collect()
    }
}

/// What the number of a piece of news says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It came before.
    Known,
    /// It is new, and `missed` numbers before it never came and never will.
    New { epoch: u64, missed: u64 },
}

impl Seat {
    fn status(&self, name: &InstanceName) -> InstanceStatus {
        let configured = self.needed.as_ref();
        InstanceStatus {
            name: name.clone(),
            host: self.host.or_else(|| configured.and_then(|instance| instance.host)),
            port: self.dialled.or_else(|| configured.and_then(|instance| instance.port)),
            needed: configured.is_some(),
            link: if self.link.is_some() { LinkState::Up } else { LinkState::Lost },
            since: self.since,
            version: self.version.clone(),
            reason: self.reason.clone(),
            certificate: self.certificate,
            abilities: self.abilities.clone(),
        }
    }
}

fn away(since: Timestamp, reason: &str) -> String {
    match reason {
        "" => format!("{} {since}", silence::AWAY),
        _ => format!("{} {since}: {reason}", silence::AWAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::API_VERSION;

    const NOW: Timestamp = Timestamp(0);

    impl Roster {
        /// An agent comes, tells its first news, and leaves. How far its news had come when it came.
        fn visit(&mut self, name: &str) -> u64 {
            let link = LinkId(1);
            let name = InstanceName::new(name).unwrap();
            let (version, epoch) = ("0.1.0".into(), 7);
            let features = Features::REPEATS;
            self.link_up(link, Peer { name: name.to_string(), host: None, dialled: None, features, certificate: None });
            let (instance, host, api_version) = (name.clone(), None, API_VERSION);
            let hello = NotifyAgentHello {
                instance,
                host,
                api_version,
                version,
                epoch,
                run: 1,
                place: 0,
                abilities: Abilities::untried(),
            };
            let Hello::Accepted { .. } = self.hello(link, &hello, NOW) else { panic!("{name} is refused") };
            let seen = self.news(&name).unwrap().1;
            self.arrived(&name, 1);
            assert_eq!(self.link_down(link, "cut", NOW), Some(name.clone()));
            if self.get(&name).is_some_and(|seat| seat.needed.is_none()) {
                self.dispense_with(&name);
            }
            seen
        }
    }

    #[test]
    fn strangers_of_any_name_leave_no_more_than_so_much_behind() {
        let mut roster = Roster::default();
        let needed = Instance { name: InstanceName::new("needed").unwrap(), host: None, port: None };
        roster.visit("needed");
        roster.need(&needed);
        let visit = |roster: &mut Roster, number| roster.visit(&format!("stranger-{number}"));
        for number in 0..GONE {
            visit(&mut roster, number);
        }
        assert_eq!(visit(&mut roster, 0), 1, "it is remembered, and was here last");
        let why = |roster: &Roster, name: &str| roster.why_away(&InstanceName::new(name).unwrap());
        assert_eq!(why(&roster, "stranger-0"), format!("not connected since {NOW}: cut"));
        for number in GONE..2 * GONE - 1 {
            visit(&mut roster, number);
        }
        assert_eq!((roster.news.len(), roster.gone.len(), roster.seats.len()), (GONE + 1, GONE, 1));
        assert_eq!((roster.left.len(), why(&roster, "stranger-1")), (GONE + 1, "never connected".to_owned()));
        assert_eq!(visit(&mut roster, 0), 1, "others were gone for longer");
        assert_eq!(visit(&mut roster, 1), 0, "like this one");
        assert_eq!(roster.visit("needed"), 1, "who has a seat is never forgotten");
    }
}

//! Which nodes of a deployment are switched when: role after role over all instances, and of those that run already only so
//! many at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use super::order::{RANKS, rank};
use crate::model::{InstanceName, NodeName, Role};

/// How many nodes of a role may be down at a time because of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    Nodes(u32),
    /// Of all nodes of that role, rounded down; one at least.
    Percent(u8),
}

impl Portion {
    /// So many of `all`: one at least, or nothing would ever be switched.
    pub fn of(self, all: usize) -> usize {
        let portion = match self {
            Self::Nodes(nodes) => nodes as usize,
            Self::Percent(percent) => all * usize::from(percent) / 100,
        };
        portion.max(1)
    }
}

/// What is no portion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a number of nodes from 1 on, or a share of them from 1% to 100%")]
pub struct NoPortion;

impl FromStr for Portion {
    type Err = NoPortion;

    fn from_str(text: &str) -> Result<Self, NoPortion> {
        let portion = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(Self::Percent),
            None => text.parse().ok().filter(|nodes| *nodes > 0).map(Self::Nodes),
        };
        portion.ok_or(NoPortion)
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// How many nodes of each role may be down at a time, in the order of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace(pub [Portion; RANKS]);

impl Default for Pace {
    /// Of what there is mostly one, one; of what there are many, a quarter.
    fn default() -> Self {
        let one = Portion::Nodes(1);
        let quarter = Portion::Percent(25);
        Self([one, one, one, quarter, quarter])
    }
}

impl Pace {
    /// The portion of that role.
    pub fn of_mut(&mut self, role: Role) -> &mut Portion {
        &mut self.0[rank(role)]
    }
}

/// A node that is to be switched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    pub node: NodeName,
    pub instance: InstanceName,
    pub role: Role,
    /// It is there already, and is missed while it is switched.
    pub runs: bool,
    /// What it shares with other nodes of its instance: of those one at a time is missed.
    pub shares: Option<String>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    waiting: [VecDeque<Turn>; RANKS],
    under_way: BTreeMap<NodeName, Turn>,
    most: [usize; RANKS],
    at_once: bool,
    all: usize,
    done: usize,
    begun_on: BTreeSet<InstanceName>,
}

impl Rollout {
    /// Of these nodes, where there are `counts` nodes of each rank in all.
    pub fn new(turns: impl IntoIterator<Item = Turn>, counts: [usize; RANKS], pace: &Pace) -> Self {
        let most = std::array::from_fn(|at| pace.0[at].of(counts[at]));
        let (waiting, under_way, begun_on) = Default::default();
        let mut rollout = Self { waiting, under_way, most, at_once: false, all: 0, done: 0, begun_on };
        rollout.add(turns);
        rollout
    }

    /// These have a turn, too.
    pub fn add(&mut self, turns: impl IntoIterator<Item = Turn>) {
        let turns: BTreeSet<Turn> = turns.into_iter().collect();
        self.all += turns.len();
        turns.into_iter().for_each(|turn| self.waiting[rank(turn.role)].push_back(turn));
    }

    /// The same with all of them told at once: each agent keeps the order of roles among its own nodes.
    pub fn all_at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    /// The nodes whose turn has come, by instance; they are under way from now on.
    pub fn begin_more(&mut self) -> BTreeMap<InstanceName, BTreeSet<NodeName>> {
        let mut begun: BTreeMap<InstanceName, BTreeSet<NodeName>> = BTreeMap::new();
        for at in 0..RANKS {
            let (begins, waits): (Vec<_>, VecDeque<_>) = {
                let mut missed = self.under_way.values().filter(|turn| turn.runs && rank(turn.role) == at).count();
                let mut shared: BTreeSet<(InstanceName, String)> =
                    self.under_way.values().filter(|turn| turn.runs).filter_map(Turn::share).collect();
                let mut may_begin = |turn: &Turn| {
                    if self.at_once || !turn.runs {
                        return true;
                    }
                    let is_free = turn.share().is_none_or(|share| !shared.contains(&share));
                    let may = is_free && missed < self.most[at];
                    if may {
                        missed += 1;
                        shared.extend(turn.share());
                    }
                    may
                };
                let (begins, waits): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.waiting[at]).into_iter().partition(&mut may_begin);
                (begins, waits.into())
            };
            self.waiting[at] = waits;
            for turn in begins {
                begun.entry(turn.instance.clone()).or_default().insert(turn.node.clone());
                self.begun_on.insert(turn.instance.clone());
                self.under_way.insert(turn.node.clone(), turn);
            }
            let is_held_up = !self.waiting[at].is_empty() || self.under_way.values().any(|turn| rank(turn.role) == at);
            if is_held_up && !self.at_once {
                break;
            }
        }
        begun
    }

    /// These have come to what they are to be, or will not.
    pub fn settled<'a>(&mut self, nodes: impl IntoIterator<Item = &'a NodeName>) {
        for node in nodes {
            self.done += usize::from(self.under_way.remove(node).is_some());
        }
    }

    /// Nothing more is begun on that instance.
    pub fn leave_out(&mut self, instance: &InstanceName) {
        let before = self.open();
        self.waiting.iter_mut().for_each(|waiting| waiting.retain(|turn| turn.instance != *instance));
        self.all -= before - self.open();
    }

    /// These have no turn any more, unless it has come.
    pub fn pass_over(&mut self, nodes: &BTreeSet<NodeName>) {
        let before = self.open();
        self.waiting.iter_mut().for_each(|waiting| waiting.retain(|turn| !nodes.contains(&turn.node)));
        self.all -= before - self.open();
    }

    /// Nothing is begun on that instance, and of what is under way there nothing will be heard.
    pub fn forget(&mut self, instance: &InstanceName) {
        self.leave_out(instance);
        let before = self.open();
        self.under_way.retain(|_, turn| turn.instance != *instance);
        self.all -= before - self.open();
    }

    /// Whether nodes of that instance are under way, or wait.
    pub fn has(&self, instance: &InstanceName) -> bool {
        self.under_way.values().chain(self.waiting.iter().flatten()).any(|turn| turn.instance == *instance)
    }

    fn open(&self) -> usize {
        self.under_way.len() + self.waiting.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Nothing more is begun.
    pub fn stop(&mut self) {
        self.waiting.iter_mut().for_each(VecDeque::clear);
    }

    /// Whether nothing is under way, and nothing waits.
    pub fn is_done(&self) -> bool {
        self.under_way.is_empty() && self.waiting.iter().all(VecDeque::is_empty)
    }

    /// Whether anything was begun.
    pub fn has_begun(&self) -> bool {
        !self.begun_on.is_empty()
    }

    /// The instances on which anything was begun, sorted by name.
    pub fn begun_on(&self) -> impl Iterator<Item = &InstanceName> {
        self.begun_on.iter()
    }

    /// The nodes that are being switched, or wait for it.
    pub fn unsettled(&self) -> impl Iterator<Item = &str> {
        let waiting = self.waiting.iter().flatten().map(|turn| turn.node.as_str());
        self.under_way.keys().map(NodeName::as_str).chain(waiting)
    }

    /// The nodes that are being switched, sorted by name.
    pub fn under_way(&self) -> impl Iterator<Item = &NodeName> {
        self.under_way.keys()
    }

    /// How many are switched, of how many.
    pub fn progress(&self) -> (usize, usize) {
        (self.done, self.all)
    }
}

impl Turn {
    fn share(&self) -> Option<(InstanceName, String)> {
        Some((self.instance.clone(), self.shares.clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(name: &str, instance: &str, role: Role, runs: bool) -> Turn {
        let instance = InstanceName::new(instance).unwrap();
        Turn { node: NodeName::new(name).unwrap(), instance, role, runs, shares: None }
    }

    /// What begins now, and all of it comes to its end.
    fn settle(rollout: &mut Rollout) -> String {
        let begun: Vec<_> = rollout.begin_more().into_values().flatten().collect();
        rollout.settled(&begun);
        begun.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ")
    }

    fn counts(all: usize) -> [usize; RANKS] {
        [all; RANKS]
    }

    #[test]
    fn roles_follow_one_another_over_all_instances() {
        let turns = [
            turn("w", "a", Role::Worker, false),
            turn("l", "b", Role::Logger, false),
            turn("m", "a", Role::Manager, true),
            turn("p", "c", Role::Proxy, false),
            turn("x", "a", Role::None, true),
            turn("l2", "a", Role::Logger, false),
        ];
        let mut rollout = Rollout::new(turns, counts(1), &Pace::default());
        let first = rollout.begin_more();
        assert_eq!(first.len(), 2);
        assert_eq!(rollout.begin_more().len(), 0, "a manager waits for every logger");
        rollout.settled([&NodeName::new("l").unwrap()]);
        assert_eq!((rollout.begin_more().len(), rollout.progress()), (0, (1, 6)));
        rollout.settled([&NodeName::new("l2").unwrap()]);
        assert_eq!([0; 5].map(|_| settle(&mut rollout)), ["m", "p", "w", "x", ""]);
        assert!(rollout.is_done());
    }

    #[test]
    fn of_what_runs_only_so_many_are_missed_and_what_is_new_waits_for_nobody() {
        let mut turns: Vec<_> = (0..8).map(|at| turn(&format!("w{at}"), "a", Role::Worker, true)).collect();
        turns.push(turn("new", "a", Role::Worker, false));
        let mut rollout = Rollout::new(turns.clone(), counts(8), &Pace::default());
        assert_eq!(settle(&mut rollout), "new w0 w1", "a quarter of eight");
        let begun: Vec<_> = rollout.begin_more().into_values().flatten().collect();
        assert_eq!(begun.len(), 2);
        rollout.settled(&begun[..1]);
        assert_eq!(rollout.begin_more().into_values().flatten().count(), 1, "one more for each that is ready");
        rollout.stop();
        assert!(!rollout.is_done());
        rollout.settled(&turns.iter().map(|turn| turn.node.clone()).collect::<Vec<_>>());
        assert!(rollout.is_done());

        let mut at_once = Rollout::new(turns, counts(8), &Pace::default()).all_at_once();
        assert_eq!(at_once.begin_more().into_values().flatten().count(), 9);
    }

    #[test]
    fn of_those_that_share_something_on_one_instance_one_is_missed_at_a_time() {
        let shares = |name, instance| Turn { shares: Some("eth0".into()), ..turn(name, instance, Role::Worker, true) };
        let turns = [shares("w1", "a"), shares("w2", "a"), shares("w3", "b"), turn("w4", "a", Role::Worker, true)];
        let mut rollout = Rollout::new(turns, counts(100), &Pace::default());
        assert_eq!(settle(&mut rollout), "w1 w4 w3");
        assert_eq!(settle(&mut rollout), "w2");
        assert!(rollout.is_done());
    }

    #[test]
    fn what_comes_later_has_its_turn_too_and_of_who_is_lost_nothing_is_heard() {
        let turns = [turn("w1", "a", Role::Worker, true), turn("w2", "a", Role::Worker, true)];
        let mut rollout = Rollout::new(turns, counts(4), &Pace::default());
        assert_eq!(rollout.begin_more().len(), 1);
        rollout.add([turn("l", "b", Role::Logger, true), turn("w3", "b", Role::Worker, true)]);
        assert_eq!((settle(&mut rollout), rollout.progress()), ("l".into(), (1, 4)));
        assert_eq!(settle(&mut rollout), "", "w1 is still missed");
        let [a, b] = ["a", "b"].map(|name| InstanceName::new(name).unwrap());
        rollout.forget(&a);
        assert!(!rollout.has(&a) && rollout.has(&b));
        assert_eq!((settle(&mut rollout), rollout.progress(), rollout.is_done()), ("w3".into(), (2, 2), true));
    }

    #[test]
    fn a_portion_is_a_number_or_a_share_and_one_at_least() {
        let of = |text: &str, all| text.parse::<Portion>().map(|portion| portion.of(all));
        assert_eq!([of("3", 100), of("25%", 10), of("25%", 3), of("100%", 7)].map(Result::unwrap), [3, 2, 1, 7]);
        for wrong in ["", "0", "0%", "101%", "-1", "x", "%", "1.5"] {
            assert_eq!(wrong.parse::<Portion>(), Err(NoPortion), "{wrong}");
        }
        assert_eq!(["3", "25%"].map(|text| text.parse::<Portion>().unwrap().to_string()), ["3", "25%"]);
    }
}

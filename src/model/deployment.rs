//! Deployments: who deploys, how, and what is written of it: when, what, how it was decided, and what came of it.
//!
//! A [`Record`] is written before anything is touched, when it is decided, and when it is over. One that is found undecided when a
//! controller starts came to nothing: what was in force before is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigurationId, InstanceName, NodeName, Outcome, RequestId, Timestamp};

/// How many results are kept of one; what failed comes first.
const MOST_RESULTS: usize = 1000;

/// Who deploys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// By the name of a certificate or a token, in words such as `token \`ops\``.
    pub who: String,
    /// The address that it came from.
    pub from: Option<IpAddr>,
}

impl Default for Author {
    fn default() -> Self {
        Self { who: "anybody".into(), from: None }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) => write!(f, "{} from {from}", self.who),
            None => f.write_str(&self.who),
        }
    }
}

/// What becomes of a deployment of which a node does not become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// All instances go back to what was in force before.
    #[default]
    Back,
    /// It stands, and what failed is named.
    Keep,
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 1.
    pub number: u64,
    pub reqid: RequestId,
    pub author: Author,
    /// What it was to put in force.
    pub configuration: ConfigurationId,
    /// What was in force when it began.
    pub former: Option<ConfigurationId>,
    /// The deployment whose configuration it was to bring back.
    pub back_to: Option<u64>,
    pub began: Timestamp,
    /// Whether all nodes are told at once, forth and back.
    pub at_once: bool,
    /// How long an agent may take to go from what was in force to this, or back.
    pub patience: Duration,
    /// When whoever deployed was told what came of it, by the wall clock.
    pub ended: Option<Timestamp>,
    pub verdict: Verdict,
    /// Of the nodes that it touches, those that are to run where it comes to nothing. Empty once it is over.
    pub up: BTreeSet<NodeName>,
    /// Nodes that somebody has stopped since it began: it starts none of them. Empty once it is over.
    pub rests: BTreeSet<NodeName>,
    /// Nodes that it starts on another instance than before, and on which.
    pub moves: BTreeMap<NodeName, InstanceName>,
    /// The instances that had yet to follow when this was written.
    pub owing: BTreeSet<InstanceName>,
    /// What became of its nodes, and what was objected; sorted as in its answer, without anybody's output.
    pub results: Vec<Outcome>,
    /// How many more results there were.
    pub left_out: u64,
    /// Whose they were, as long as the controller runs that ended it: who follows may be among them.
    #[serde(skip)]
    pub left_out_of: BTreeSet<Place>,
}

/// Whom a result is about.
type Place = (Option<InstanceName>, Option<NodeName>);

fn place(outcome: &Outcome) -> Place {
    (outcome.instance.clone(), outcome.node.clone())
}

/// How a deployment was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Not yet.
    Open,
    /// Its configuration is in force.
    New,
    /// What was in force before is in force again.
    Old,
    /// Nothing was touched.
    Refused,
}

impl Verdict {
    /// In one word, as it is printed and sent everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::New => "deployed",
            Self::Old => "rolled-back",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Record {
    /// What is said of a node that did not come back, before the reason.
    pub const NOT_BACK: &str = "not as before";

    /// It is over, with these results.
    pub fn end(&mut self, verdict: Verdict, outcomes: &[Outcome], now: Timestamp) {
        (self.verdict, self.ended) = (verdict, Some(now));
        self.keep(outcomes);
    }

    /// These are its results by now. That an instance merely did what it was asked is none.
    pub fn keep(&mut self, outcomes: &[Outcome]) {
        let results = outcomes.iter().filter(|outcome| outcome.node.is_some() || !outcome.is_success());
        let (failed, fine): (Vec<_>, Vec<_>) = results.partition(|outcome| !outcome.is_success());
        let count = failed.len() + fine.len();
        let bare = |outcome: &Outcome| Outcome { output: None, ..outcome.clone() };
        let mut all = failed.into_iter().chain(fine);
        self.results = all.by_ref().take(MOST_RESULTS).map(bare).collect();
        self.left_out = (count - self.results.len()) as u64;
        self.left_out_of = all.map(place).collect();
    }

    /// What became of the nodes of an instance that followed when it was over. Of one that was gone back from, what failed
    /// before that stays: it says why, also beside that the node is as before. That a node was not as before is so until it is heard of again.
    pub fn follow(&mut self, outcomes: &[Outcome]) {
        let fresh: BTreeSet<_> = outcomes.iter().map(place).collect();
        let speaks: BTreeSet<_> = outcomes.iter().map(|outcome| (outcome.instance.clone(), None)).collect();
        let is_back = self.verdict != Verdict::New;
        let is_why = |known: &Outcome| is_back && !known.is_success() && !Self::is_not_back(known);
        let is_silent_no_more = |known: &Outcome| Self::is_not_back(known) && speaks.contains(&place(known));
        let mut all: Vec<Outcome> = std::mem::take(&mut self.results);
        all.retain(|known| is_why(known) || !(fresh.contains(&place(known)) || is_silent_no_more(known)));
        all.extend_from_slice(outcomes);
        all.sort_by_key(|outcome| (outcome.node.is_none(), outcome.node.clone(), outcome.instance.clone()));
        let mut left_out_of = std::mem::take(&mut self.left_out_of);
        let before = left_out_of.len();
        left_out_of.retain(|place| !fresh.contains(place));
        // Who was left out and is heard of now counts once.
        let left_out = self.left_out.saturating_sub((before - left_out_of.len()) as u64);
        self.end(self.verdict, &all, self.ended.unwrap_or(self.began));
        self.left_out += left_out;
        self.left_out_of.append(&mut left_out_of);
    }

    fn is_not_back(outcome: &Outcome) -> bool {
        outcome.error.as_ref().is_some_and(|error| error.starts_with(Self::NOT_BACK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(verdict: Verdict) -> Record {
        let id = || ConfigurationId::new("c2").unwrap();
        Record {
            number: 1,
            reqid: RequestId::new("r").unwrap(),
            author: Author::default(),
            configuration: id(),
            former: Some(id()),
            back_to: None,
            began: Timestamp(1),
            at_once: false,
            patience: Duration::ZERO,
            ended: Some(Timestamp(2)),
            verdict,
            up: BTreeSet::new(),
            rests: BTreeSet::new(),
            moves: BTreeMap::new(),
            owing: BTreeSet::new(),
            results: Vec::new(),
            left_out: 0,
            left_out_of: BTreeSet::new(),
        }
    }

    #[test]
    fn what_becomes_of_those_who_follow_stands_beside_why_it_was_decided_so() {
        let (a, w1, w2) = (InstanceName::new("a").unwrap(), NodeName::new("w1").unwrap(), NodeName::new("w2").unwrap());
        let failed = |node, error: &str| Outcome::node_failed(&a, node, error.into(), None);
        let told = |record: &Record| -> Vec<String> {
            let who = |outcome: &Outcome| outcome.node.as_ref().map_or("all".into(), NodeName::to_string);
            let one = |it: &Outcome| format!("{}: {}", who(it), it.error.as_deref().unwrap_or("done"));
            record.results.iter().map(one).collect()
        };
        for (verdict, want) in [
            (Verdict::New, &["w2: never ready", "all: why", "w1: done"][..]),
            (Verdict::Old, &["w1: lost", "w2: never ready", "all: why", "w1: done"]),
        ] {
            let mut record = record(verdict);
            record.end(verdict, &[failed(&w1, "lost"), Outcome::failed("why")], Timestamp(7));
            record.follow(&[Outcome::node_done(&a, &w1), failed(&w2, "never ready")]);
            assert_eq!(told(&record), want);
            assert_eq!(record.ended, Some(Timestamp(7)));
        }
    }

    #[test]
    fn that_a_node_is_not_as_before_is_kept_beside_why_until_it_is() {
        let (a, b) = (InstanceName::new("a").unwrap(), InstanceName::new("b").unwrap());
        let [w1, w2, w3] = ["w1", "w2", "w3"].map(|name| NodeName::new(name).unwrap());
        let not_back = |node, why: &str| Outcome::node_failed(&a, node, format!("{}: {why}", Record::NOT_BACK), None);
        let silent = |of| Outcome::instance_failed(of, format!("{}: silent", Record::NOT_BACK));
        let why = Outcome::node_failed(&a, &w1, "not ready".into(), None);
        let mut record = record(Verdict::Old);
        let late = [not_back(&w1, "timed out"), not_back(&w2, "timed out"), not_back(&w3, "timed out")];
        let mut all: Vec<_> = [why.clone()].into_iter().chain(late).chain([silent(&a), silent(&b)]).collect();
        record.end(Verdict::Old, &all, Timestamp(7));
        record.follow(&[not_back(&w1, "never ready"), Outcome::node_done(&a, &w2)]);
        all = vec![why.clone(), not_back(&w1, "never ready"), not_back(&w3, "timed out"), silent(&b)];
        assert_eq!(record.results, [&all[..], &[Outcome::node_done(&a, &w2)]].concat());
        record.follow(&[Outcome::node_done(&a, &w1), Outcome::instance_done(&b)]);
        all = vec![why, not_back(&w3, "timed out"), Outcome::node_done(&a, &w1), Outcome::node_done(&a, &w2)];
        assert_eq!(record.results, all, "it failed, and is as before; and b is silent no more");
    }

    #[test]
    fn of_very_many_results_those_that_failed_are_kept_and_the_others_counted() {
        let a = InstanceName::new("a").unwrap();
        let nodes: Vec<_> = (0..1200).map(|at| NodeName::new(&format!("w{at}")).unwrap()).collect();
        let mut record = record(Verdict::New);
        for half in nodes.chunks(600) {
            let mut outcomes: Vec<_> = half.iter().map(|node| Outcome::node_done(&a, node)).collect();
            outcomes[599] = Outcome::node_failed(&a, &half[599], "no".into(), None);
            record.follow(&outcomes);
        }
        let failed = record.results.iter().take_while(|outcome| !outcome.is_success()).count();
        assert_eq!((failed, record.results.len(), record.left_out), (2, MOST_RESULTS, 200));
        // Whoever is heard of again is counted once, also if it had been left out; and somebody new is one more.
        let again: Vec<_> = nodes.iter().map(|node| Outcome::node_done(&a, node)).collect();
        let another = Outcome::node_done(&a, &NodeName::new("another").unwrap());
        for some in [&again[900..], &again[..], &[another]] {
            record.follow(some);
        }
        assert_eq!((record.results.len(), record.left_out), (MOST_RESULTS, 201));
    }
}

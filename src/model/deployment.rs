//! Deployments: who deploys, how, and what is written of it: when, what, how it was decided, and what came of it.
//!
//! A [`Record`] is written before anything is touched, when it is decided, and when it is over. One that is found undecided when a
//! controller starts came to nothing: what was in force before is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

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
    /// When whoever deployed was told what came of it, by the wall clock.
    pub ended: Option<Timestamp>,
    pub verdict: Verdict,
    /// Of the nodes that it touches, those that are to run where it comes to nothing. Empty once it is over.
    pub up: BTreeSet<NodeName>,
    /// Nodes that it starts on another instance than before, and on which.
    pub moves: BTreeMap<NodeName, InstanceName>,
    /// The instances that had yet to follow when this was written.
    pub owing: BTreeSet<InstanceName>,
    /// What became of its nodes, and what was objected; sorted as in its answer, without anybody's output.
    pub results: Vec<Outcome>,
    /// How many more results there were.
    pub left_out: u64,
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
    /// It is over, with these results.
    pub fn end(&mut self, verdict: Verdict, outcomes: &[Outcome], now: Timestamp) {
        (self.verdict, self.ended) = (verdict, Some(now));
        let (failed, fine): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| !outcome.is_success());
        let bare = |outcome: &Outcome| Outcome { output: None, ..outcome.clone() };
        self.results = failed.into_iter().chain(fine).take(MOST_RESULTS).map(bare).collect();
        self.left_out = (outcomes.len() - self.results.len()) as u64;
    }
}

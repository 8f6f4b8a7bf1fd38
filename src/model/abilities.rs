//! What the agent of a machine can do for its nodes there, as it found out by trying.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Quota;

/// See the module. The two are apart: a tree without controllers still kills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// The group of all groups of its nodes, by which the whole of each is killed; or why they have none.
    pub killing: Result<String, String>,
    /// The limits that its nodes cannot have, each with why.
    pub lacking: BTreeMap<Quota, String>,
}

impl Abilities {
    /// Those of an agent that has not tried.
    pub fn untried() -> Self {
        let why = "it was not tried".to_owned();
        Self { killing: Err(why.clone()), lacking: Quota::ALL.into_iter().map(|quota| (quota, why.clone())).collect() }
    }
}

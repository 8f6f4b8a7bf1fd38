//! The most memory that nodes had by the end of each life, for whoever looks into a death later: by then the next life has added
//! to the count, or has a control group of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::process::groups::Groups;
use crate::model::{Life, NodeName, Quota};

/// Of how many lives of a node it is kept: more than end before the first is looked into.
const LIVES: usize = 16;

/// The last lives of a node, and what was counted by the end of each.
type Lives = Vec<(Life, Option<u64>)>;

/// Of each node.
#[derive(Debug, Default)]
pub struct Peaks(Mutex<HashMap<NodeName, Lives>>);

impl Peaks {
    /// Keeps what is counted now that this life is over: before its group is ended, and before the next one begins.
    pub fn keep(&self, groups: &Groups, node: &NodeName, life: Life) {
        if groups.lacking().contains_key(&Quota::Memory) {
            return;
        }
        let peak = groups.memory_peak(node);
        let mut kept = self.kept();
        let lives = kept.entry(node.clone()).or_insert_with(|| Vec::with_capacity(1)); // most have one
        // What is to be ended once more was counted when it was to be ended first.
        if lives.iter().any(|(of, _)| *of == life) {
            return;
        }
        if lives.len() >= LIVES {
            lives.remove(0);
        }
        lives.push((life, peak));
    }

    /// The most that the node had by the end of this life, in bytes; `None` if nobody counted.
    pub fn of(&self, groups: &Groups, node: &NodeName, life: Life) -> Option<u64> {
        // In this order: as long as nothing is kept of this life, the next one has not begun.
        let now = groups.memory_peak(node);
        let kept = self.kept();
        let life = kept.get(node).and_then(|lives| lives.iter().find(|(of, _)| *of == life));
        life.map_or(now, |(_, peak)| *peak)
    }

    pub fn forget(&self, node: &NodeName) {
        self.kept().remove(node);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<NodeName, Lives>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Quotas;

    #[test]
    fn what_a_life_had_is_not_taken_from_the_group_of_the_next() {
        let made_up = tempfile::tempdir().unwrap();
        let groups = Groups::made_up(made_up.path());
        let (peaks, node) = (Peaks::default(), NodeName::new("a").unwrap());
        let counts = |count: u64| {
            let group = groups.of(&node, &Quotas::default()).unwrap();
            fs::write(group.join("memory.peak"), format!("{count}\n")).unwrap();
        };
        let of = |life| peaks.of(&groups, &node, Life(life));
        counts(100);
        assert_eq!(of(1), Some(100), "nobody has ended it yet");
        peaks.keep(&groups, &node, Life(1));
        // It has left a child behind, with which its group goes.
        fs::remove_dir_all(groups.of(&node, &Quotas::default()).unwrap()).unwrap();
        peaks.keep(&groups, &node, Life(1));
        assert_eq!(of(1), Some(100));
        counts(7);
        assert_eq!((of(1), of(2)), (Some(100), Some(7)));
        fs::remove_dir_all(groups.of(&node, &Quotas::default()).unwrap()).unwrap();
        peaks.keep(&groups, &node, Life(2));
        counts(9);
        assert_eq!((of(2), of(3)), (None, Some(9)), "where nobody counted nothing is made up");
        for life in 3..3 + LIVES as u64 {
            peaks.keep(&groups, &node, Life(life));
        }
        assert_eq!(peaks.kept()[&node].len(), LIVES);
        peaks.forget(&node);
        assert!(peaks.kept().is_empty());
    }
}

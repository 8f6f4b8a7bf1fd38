//! The control groups of nodes that are down: removed when nobody waits for anything any more.
//!
//! To remove a group takes the kernel longer than to end all that was in it. So whoever stops a thousand nodes is told
//! first. A node that is started meanwhile has a new group: the next life may have other limits.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::process::groups::Groups;
use crate::model::NodeName;

/// Whose groups are to be removed, once all of them were ended.
#[derive(Debug, Default)]
pub struct IdleGroups(Mutex<BTreeSet<NodeName>>);

impl IdleGroups {
    /// Nobody is left in the group of this node.
    pub fn add(&self, node: NodeName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// Removes the group of this node now, if it is one of these.
    pub fn remove(&self, groups: &Groups, node: &NodeName) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.remove(node) {
            groups.forget(node);
        }
    }

    /// Removes so many at the most; whether there are more.
    pub fn remove_some(&self, groups: &Groups, most: usize) -> bool {
        for _ in 0..most {
            // Held until it is gone: a life that begins meanwhile must not take the old one for its own.
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(node) = idle.pop_first() else { return false };
            groups.forget(&node);
        }
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::groups::Place;
    use super::*;
    use crate::model::Quotas;

    #[test]
    fn groups_are_removed_some_at_a_time_and_that_of_a_node_that_is_started_first() {
        let home = tempfile::tempdir().unwrap();
        // Where the machine lets us have none there is none to remove.
        let Ok(groups) = Groups::open(&Place::Anywhere, "idle", home.path()) else { return };
        let names: Vec<_> = ["a", "b", "c"].map(|name| NodeName::new(name).unwrap()).into();
        let paths: Vec<_> = names.iter().map(|name| groups.of(name, &Quotas::default()).unwrap()).collect();
        let idle = IdleGroups::default();
        let are_there = || paths.iter().map(|path| path.exists()).collect::<Vec<_>>();
        idle.remove(&groups, &names[0]);
        assert_eq!(are_there(), [true; 3], "it is in use");
        names.iter().for_each(|name| idle.add(name.clone()));
        idle.remove(&groups, &names[1]);
        assert_eq!(are_there(), [true, false, true]);
        assert!(idle.remove_some(&groups, 1));
        assert_eq!(are_there(), [false, false, true]);
        assert!(!idle.remove_some(&groups, 5));
        assert_eq!(are_there(), [false; 3]);
        groups.clear();
    }
}

//! The controller's copy of what agents told of their nodes.
//!
//! Whatever a change said of the state before it, it is published with the state that was published last: so the
//! `old` of a change of a node is the `new` of the change before it, also across lost links and restarts. A node that
//! is not known was STOPPED: that is how each one leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::kept::{Head, Kept};
use super::log::recall::Told;
use crate::message::agent::{BorrowedChange, NotifyChange};
use crate::model::{InstanceName, NameError, NetStats, NodeName, NodeState, NodeStatus, Role, Text, Timestamp};

/// How many nodes agents may tell of that no configuration here has: on a link without certificates a stranger may tell of
/// as many as it likes. Many enough for those of a cluster whose controller has lost its store.
const STRANGE: usize = 20_000;

/// Every node that is known, by name.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    known: BTreeMap<NodeName, NodeStatus>,
    /// How many of those each instance has: whoever has told of as many need not be looked through for others.
    counts: BTreeMap<InstanceName, usize>,
    /// What instances told of nodes that another one has: they may have it again one day.
    elsewhere: BTreeMap<(NodeName, InstanceName), NodeStatus>,
    /// Nodes that are down because their agents do not have them, and were not given them since they said so: nobody
    /// will tell of these.
    absent: BTreeSet<NodeName>,
    /// How many nodes the last configuration has.
    expected: usize,
    /// The nodes of the next one, prepared for when nothing was known of any.
    foreseen: Option<Foreseen>,
    /// Since when more was told than is kept.
    overflowed: bool,
}

/// The nodes of a configuration, none of which is known.
#[derive(Debug, Clone)]
struct Foreseen {
    of: Kept,
    state: NodeState,
    nodes: BTreeMap<NodeName, NodeStatus>,
}

impl Nodes {
    /// Every node, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &NodeStatus> {
        self.known.values()
    }

    /// Whether nothing is known of any node.
    pub fn are_none(&self) -> bool {
        self.known.is_empty() && self.elsewhere.is_empty()
    }

    /// The node of that name.
    pub fn get(&self, name: &str) -> Option<&NodeStatus> {
        self.known.get(name)
    }

    /// The other instances that have that node. One that is down there may be about to be started.
    pub fn elsewhere(&self, name: &str) -> impl Iterator<Item = &InstanceName> {
        self.elsewhere.values().filter(move |told| told.node.as_str() == name).map(|told| &told.instance)
    }

    /// Whether that node is certainly not where it is known to be.
    pub fn is_absent(&self, name: &str) -> bool {
        self.absent.contains(name)
    }

    /// Whatever `instance` said that it does not have it may have from now on.
    pub fn may_have(&mut self, instance: &InstanceName) {
        self.absent.retain(|name| self.known.get(name).is_some_and(|status| status.instance != *instance));
    }

    /// The same of these nodes alone.
    pub fn may_have_these(&mut self, nodes: &BTreeSet<NodeName>) {
        self.absent.retain(|name| !nodes.contains(name));
    }

    /// Prepares to take in this one. That takes a while, and nothing depends on it.
    pub fn foresee(&mut self, configuration: &Kept, state: NodeState, now: Timestamp) {
        let is_new = || self.foreseen.as_ref().is_none_or(|it| (&it.of, it.state) != (configuration, state));
        if self.are_none() && is_new() {
            let nodes = configuration.heads().map(|head| {
                let (name, instance) = (head.name(), head.instance());
                (name.clone(), unheard(name, instance, &head, state, now))
            });
            self.foreseen = Some(Foreseen { of: configuration.clone(), state, nodes: nodes.collect() });
        }
    }

    /// Nothing comes of what was foreseen.
    pub fn foresee_nothing(&mut self) {
        self.foreseen = None;
    }

    /// Takes in the nodes of a configuration: those that are new here are in `state` until somebody tells otherwise.
    ///
    /// Those that were on another instance are down there, or were given up on with it. Returns how those are
    /// published that are not, where they will be, what they were known as.
    pub fn expect(&mut self, configuration: &Kept, state: NodeState, now: Timestamp) -> Vec<NotifyChange> {
        let mut there = Vec::new();
        self.expected = configuration.count();
        let is_foreseen = |foreseen: &Foreseen| (&foreseen.of, foreseen.state) == (configuration, state);
        let foreseen = self.foreseen.take().filter(is_foreseen);
        if let Some(foreseen) = foreseen.filter(|_| self.are_none()) {
            self.known = foreseen.nodes;
            self.count_together();
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut new = Vec::with_capacity(self.expected.saturating_sub(self.known.len()));
        for head in configuration.heads() {
            let Some(status) = self.known.get_mut(head.name) else {
                let (name, instance) = (head.name(), head.instance());
                if !self.elsewhere.is_empty() {
                    // It may have left where it was while it was on its way up here.
                    there.extend(self.elsewhere.remove(&(name.clone(), instance.clone())));
                }
                new.push((name.clone(), unheard(name, instance, &head, state, now)));
                continue;
            };
            (status.port, status.metrics_port) = (head.port, head.metrics_port);
            if status.instance.as_str() != head.instance {
                let (name, instance) = (status.node.clone(), head.instance());
                let former = std::mem::replace(&mut status.instance, instance.clone());
                self.has_one_less(&former);
                *self.counts.entry(instance.clone()).or_default() += 1;
                self.absent.remove(&name);
                let there = self.elsewhere.remove(&(name.clone(), instance.clone()));
                let there = there.unwrap_or_else(|| unheard(name, instance, &head, state, now));
                changes.extend(self.correct(there, "moved", now));
            }
        }
        for together in new.chunk_by(|(_, one), (_, next)| one.instance == next.instance) {
            let (_, first) = &together[0];
            *self.counts.entry(first.instance.clone()).or_default() += together.len();
        }
        if !new.is_empty() {
            // Whatever grew in order is half empty. Made anew, it is full.
            self.known = std::mem::take(&mut self.known).into_iter().chain(new).collect();
        }
        changes.extend(there.into_iter().filter_map(|there| self.correct(there, "moved", now)));
        changes
    }

    /// Begins with what the log knows and what is deployed: nothing of it is certain until an agent tells. Returns how
    /// that is published, node by node.
    pub fn begin(
        &mut self,
        recalled: BTreeMap<NodeName, Told>,
        deployed: Option<&Kept>,
        now: Timestamp,
    ) -> Vec<NotifyChange> {
        for (name, told) in recalled {
            let Told { instance, role, state, restarts } = told;
            let status = NodeStatus { restarts, ..first_known(name.clone(), instance, role, state, now) };
            self.known.insert(name, status);
        }
        for head in deployed.into_iter().flat_map(Kept::heads) {
            let name = head.name();
            let unheard = || unheard(name.clone(), head.instance(), &head, NodeState::Stopped, now);
            let status = self.known.entry(name.clone()).or_insert_with(unheard);
            // Who had it before is not asked any more.
            status.instance = head.instance();
            (status.port, status.metrics_port) = (head.port, head.metrics_port);
        }
        self.count_together();
        let uncertain = self.known.values().filter(|status| status.state != NodeState::Unknown);
        let changes: Vec<_> = uncertain
            .map(|status| {
                own_change(status, NodeState::Unknown, "the controller started, and waits for its agent", now)
            })
            .collect();
        changes.into_iter().filter_map(|change| self.told(change)).collect()
    }

    /// Takes in what an agent told, and returns the change as it is published.
    ///
    /// `None` if another instance has the node now: what is told of it is not what the node is.
    pub fn told(&mut self, change: NotifyChange) -> Option<NotifyChange> {
        let is_full = self.is_full();
        let status = match self.known.get_mut(&change.node) {
            Some(status) => status,
            None if is_full => {
                self.overflowed = true;
                return None;
            }
            None => {
                // Whoever had it before has let go of it: from here on it is here.
                self.elsewhere.remove(&(change.node.clone(), change.instance.clone()));
                *self.counts.entry(change.instance.clone()).or_default() += 1;
                self.known.entry(change.node.clone()).or_insert_with(|| first_heard(&change))
            }
        };
        if status.instance != change.instance {
            let there = (change.node.clone(), change.instance.clone());
            match change.removed {
                true => drop(self.elsewhere.remove(&there)),
                false if is_full && !self.elsewhere.contains_key(&there) => self.overflowed = true,
                false => drop(self.elsewhere.insert(there, as_told(&change))),
            }
            return None;
        }
        let told = note(status, &(&change).into());
        if change.removed || !matches!(change.new, NodeState::Stopped | NodeState::Unknown) {
            self.absent.remove(&change.node); // whoever has it tells of it
        }
        if change.removed {
            self.known.remove(&change.node);
            self.has_one_less(&change.instance);
        }
        Some(told)
    }

    /// The same for a change that `from` tells and that nobody else keeps. Fails if a name in it is none.
    pub fn seen(
        &mut self,
        from: &InstanceName,
        change: &BorrowedChange<'_>,
    ) -> Result<Option<NotifyChange>, NameError> {
        match self.known.get_mut(change.node) {
            Some(status) if status.instance == *from && !change.removed => {
                if !self.absent.is_empty() && change.new != NodeState::Stopped {
                    self.absent.remove(change.node); // whoever has it tells of it
                }
                Ok(Some(note(status, change)))
            }
            _ => Ok(self.told(NotifyChange { instance: from.clone(), ..change.keep()? })),
        }
    }

    /// Counts all nodes, where none was counted before.
    fn count_together(&mut self) {
        let mut last: Option<(&InstanceName, usize)> = None;
        // Mostly the nodes of an instance have names that stand together.
        for status in self.known.values() {
            match &mut last {
                Some((instance, count)) if *instance == &status.instance => *count += 1,
                _ => {
                    if let Some((instance, count)) = last.replace((&status.instance, 1)) {
                        *self.counts.entry(instance.clone()).or_default() += count;
                    }
                }
            }
        }
        if let Some((instance, count)) = last {
            *self.counts.entry(instance.clone()).or_default() += count;
        }
    }

    fn has_one_less(&mut self, instance: &InstanceName) {
        if let Some(count) = self.counts.get_mut(instance) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(instance);
            }
        }
    }

    /// Takes in what the process `pid` of a node says of itself. It counts as long as that is its process.
    pub fn says(&mut self, instance: &InstanceName, node: &NodeName, pid: u32, says: Text) {
        if let Some(known) = self.known.get_mut(node)
            && (&known.instance, known.pid) == (instance, Some(pid))
        {
            known.says = says;
        }
    }

    /// The same of what it counts.
    pub fn counts_packets(&mut self, instance: &InstanceName, node: &NodeName, pid: u32, counted: NetStats) {
        if let Some(known) = self.known.get_mut(node)
            && (&known.instance, known.pid) == (instance, Some(pid))
        {
            known.netstats = Some(Box::new(counted));
        }
    }

    /// The agent of `instance` is out of reach: what is known of its nodes may be true no more.
    pub fn lose(&mut self, instance: &InstanceName, reason: &str, now: Timestamp) -> Vec<NotifyChange> {
        self.elsewhere.retain(|(_, there), _| there != instance);
        self.may_have(instance);
        let of_it = self.known.values().filter(|status| status.instance == *instance);
        let lost = of_it.filter(|status| status.state != NodeState::Unknown);
        let changes: Vec<_> = lost.map(|status| own_change(status, NodeState::Unknown, reason, now)).collect();
        changes.into_iter().filter_map(|change| self.told(change)).collect()
    }

    /// Corrects the copy by what an agent says it runs; returns what its news did not explain.
    ///
    /// A node that it should have, because `is_meant` says so, and does not have is STOPPED; any other is gone.
    pub fn reconcile(
        &mut self,
        instance: &InstanceName,
        snapshot: Vec<NodeStatus>,
        is_meant: impl Fn(&NodeName) -> bool,
        now: Timestamp,
    ) -> Vec<NotifyChange> {
        self.may_have(instance);
        self.elsewhere.retain(|(_, there), _| there != instance);
        let had = self.counts.get(instance).copied().unwrap_or_default();
        let names: Vec<_> = snapshot.iter().map(|status| status.node.clone()).collect();
        let (mut found, mut corrected) = (0, Vec::new());
        for told in snapshot {
            let told = NodeStatus { instance: instance.clone(), ..told };
            let is_known = match self.known.get_mut(&told.node) {
                Some(known) if known.instance == *instance => {
                    found += 1;
                    corrected.extend(correct(known, told, "reconciled", now));
                    continue;
                }
                known => known.is_some(),
            };
            match is_known {
                true if self.is_full() => self.overflowed = true,
                true => drop(self.elsewhere.insert((told.node.clone(), instance.clone()), told)),
                false => corrected.extend(self.correct(told, "reconciled", now)),
            }
        }
        // Each once, and as many as there were: then none is missing, and nobody has to look through all nodes.
        let mut changes = match found == had && names.is_sorted_by(|a, b| a < b) {
            true => Vec::new(),
            false => self.missing(instance, &names.into_iter().collect(), is_meant, now),
        };
        changes.append(&mut corrected);
        changes
    }

    /// What becomes of the nodes of an instance that its snapshot does not have.
    fn missing(
        &mut self,
        instance: &InstanceName,
        told: &BTreeSet<NodeName>,
        is_meant: impl Fn(&NodeName) -> bool,
        now: Timestamp,
    ) -> Vec<NotifyChange> {
        let of_it = self.known.values().filter(|status| status.instance == *instance);
        let absent = of_it.filter(|status| !told.contains(&status.node));
        self.absent.extend(absent.clone().map(|status| &status.node).filter(|name| is_meant(name)).cloned());
        let missing = absent.filter(|status| {
            // Known to be down is what its agent says, too, by not having it.
            status.state != NodeState::Stopped || !is_meant(&status.node)
        });
        let change = |status: &NodeStatus| NotifyChange {
            removed: !is_meant(&status.node),
            ..own_change(status, NodeState::Stopped, "reconciled: its agent does not have it", now)
        };
        let missing: Vec<_> = missing.map(change).collect();
        missing.into_iter().filter_map(|change| self.told(change)).collect()
    }

    /// Whether there is no room for nodes that no configuration has.
    fn is_full(&self) -> bool {
        self.known.len() + self.elsewhere.len() >= self.expected + STRANGE
    }

    /// Whether anything was told since this was asked last that there was no room for.
    pub fn has_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Makes the copy what is told; the change that explains it, if it was anything else, begins with `why`.
    fn correct(&mut self, told: NodeStatus, why: &str, now: Timestamp) -> Option<NotifyChange> {
        let is_known = |known: &&mut NodeStatus| known.instance == told.instance;
        if let Some(known) = self.known.get_mut(&told.node).filter(is_known) {
            return correct(known, told, why, now);
        }
        let change = self.told(explain(&told, why, now));
        if let Some(known) = self.known.get_mut(&told.node) {
            take_over(known, told);
        }
        change
    }

    /// Forgets what is UNKNOWN, or was never given to its agent, and no longer meant to be: nobody will tell of it again.
    pub fn forget_lost(&mut self, is_meant: impl Fn(&NodeStatus) -> bool, now: Timestamp) -> Vec<NotifyChange> {
        let is_lost = |status: &&NodeStatus| status.state == NodeState::Unknown || self.absent.contains(&status.node);
        let lost = self.known.values().filter(is_lost).filter(|status| !is_meant(status));
        let lost: Vec<_> = lost
            .map(|status| {
                let reason = match status.state {
                    NodeState::Unknown => "removed from the configuration while out of reach",
                    _ => "removed from the configuration before its agent had it",
                };
                NotifyChange { removed: true, ..own_change(status, NodeState::Stopped, reason, now) }
            })
            .collect();
        lost.into_iter().filter_map(|change| self.told(change)).collect()
    }
}

/// Makes a change the status of its node, and what is published of it. Of its texts those that are known are the same
/// ones rather than equal ones: the log keeps many changes of one node.
fn note(status: &mut NodeStatus, change: &BorrowedChange<'_>) -> NotifyChange {
    let BorrowedChange { seq, time, role, new, pid, exit, attempt, restarts, removed, .. } = *change;
    if status.reason != *change.reason {
        status.reason = change.reason.into();
    }
    let old = std::mem::replace(&mut status.state, new);
    status.role = role;
    status.enter(pid.filter(|_| matches!(new, NodeState::Pending | NodeState::Running)));
    (status.restarts, status.since) = (restarts, time);
    let (instance, node, reason) = (status.instance.clone(), status.node.clone(), status.reason.clone());
    NotifyChange { seq, time, instance, node, role, old, new, pid, exit, attempt, restarts, reason, removed }
}

/// Makes what is known of a node what its instance tells; the change that explains it, if it was anything else.
fn correct(known: &mut NodeStatus, told: NodeStatus, why: &str, now: Timestamp) -> Option<NotifyChange> {
    let is_explained = known.state == told.state && known.pid == told.pid;
    let change = (!is_explained).then(|| {
        // The same name rather than an equal one: the log keeps many changes of one node.
        NotifyChange { node: known.node.clone(), old: known.state, ..explain(&told, why, now) }
    });
    if change.is_some() {
        (known.state, known.role) = (told.state, told.role);
        known.pid = told.pid.filter(|_| matches!(told.state, NodeState::Pending | NodeState::Running));
    }
    take_over(known, told);
    change
}

/// The change to what is told.
fn explain(told: &NodeStatus, why: &str, now: Timestamp) -> NotifyChange {
    let reason = match told.reason.is_empty() {
        true => why.into(),
        false => Text::from(format!("{why}: {}", told.reason)),
    };
    NotifyChange { pid: told.pid, ..own_change(told, told.state, &reason, now) }
}

/// What no change tells.
fn take_over(known: &mut NodeStatus, told: NodeStatus) {
    (known.port, known.metrics_port) = (told.port, told.metrics_port);
    (known.restarts, known.since) = (told.restarts, told.since);
    (known.reason, known.says, known.netstats) = (told.reason, told.says, told.netstats);
}

fn unheard(name: NodeName, instance: InstanceName, head: &Head<'_>, state: NodeState, now: Timestamp) -> NodeStatus {
    let Head { role, port, metrics_port, .. } = *head;
    NodeStatus { port, metrics_port, ..first_known(name, instance, role, state, now) }
}

fn first_known(node: NodeName, instance: InstanceName, role: Role, state: NodeState, since: Timestamp) -> NodeStatus {
    let reason = match state {
        NodeState::Unknown => "its agent has not told of it yet".into(),
        _ => NodeStatus::NOT_STARTED.into(),
    };
    let (pid, port, metrics_port, restarts) = (None, None, None, 0);
    let (says, netstats) = (Text::default(), None);
    NodeStatus { node, instance, role, state, pid, port, metrics_port, restarts, since, reason, says, netstats }
}

/// Whoever is new here, or was removed before, comes from STOPPED, whatever its agent saw while nobody listened.
fn first_heard(change: &NotifyChange) -> NodeStatus {
    NodeStatus { state: NodeState::Stopped, pid: None, ..as_told(change) }
}

fn as_told(change: &NotifyChange) -> NodeStatus {
    NodeStatus {
        node: change.node.clone(),
        instance: change.instance.clone(),
        role: change.role,
        state: change.new,
        pid: change.pid.filter(|_| matches!(change.new, NodeState::Pending | NodeState::Running)),
        port: None,
        metrics_port: None,
        restarts: change.restarts,
        since: change.time,
        reason: change.reason.clone(),
        says: Text::default(),
        netstats: None,
    }
}

/// A change that the controller itself tells; it has no number of an agent's.
fn own_change(status: &NodeStatus, new: NodeState, reason: impl Into<Text>, time: Timestamp) -> NotifyChange {
    NotifyChange {
        seq: 0,
        time,
        instance: status.instance.clone(),
        node: status.node.clone(),
        role: status.role,
        old: status.state,
        new,
        pid: None,
        exit: None,
        attempt: 0,
        restarts: status.restarts,
        reason: reason.into(),
        removed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Configuration, ConfigurationId, Node};

    #[test]
    fn a_change_begins_where_the_last_one_ended_whatever_it_says() {
        let mut nodes = Nodes::default();
        let old = |change: Option<NotifyChange>| change.unwrap().old;
        assert_eq!(old(nodes.told(change("a", NodeState::Crashed, NodeState::Running))), NodeState::Stopped);
        assert_eq!(old(nodes.told(change("a", NodeState::Pending, NodeState::Failed))), NodeState::Running);
        let removal = NotifyChange { removed: true, ..change("a", NodeState::Failed, NodeState::Stopped) };
        nodes.told(removal).unwrap();
        assert_eq!(old(nodes.told(change("a", NodeState::Running, NodeState::Pending))), NodeState::Stopped);
    }

    #[test]
    fn what_a_process_says_of_itself_counts_as_long_as_it_is_the_nodes() {
        let mut nodes = Nodes::default();
        let running = |pid| NotifyChange { pid: Some(pid), ..change("a", NodeState::Pending, NodeState::Running) };
        let name = running(70).node;
        let says = |nodes: &Nodes| nodes.get("worker").unwrap().says.to_string();
        nodes.told(running(70)).unwrap();
        nodes.says(&instance("a"), &name, 70, "busy".into());
        for (from, pid) in [("a", 71), ("b", 70)] {
            nodes.says(&instance(from), &name, pid, "idle".into());
        }
        assert_eq!(says(&nodes), "busy", "neither another process nor another instance speaks for it");
        nodes.told(running(70)).unwrap();
        assert_eq!(says(&nodes), "busy");
        let snapshot = NodeStatus { says: "busier".into(), ..nodes.get("worker").unwrap().clone() };
        assert_eq!(nodes.reconcile(&instance("a"), vec![snapshot], |_| true, Timestamp(0)), []);
        assert_eq!(says(&nodes), "busier");
        nodes.told(running(72)).unwrap();
        assert_eq!(says(&nodes), "", "another process says what is so of itself");
        nodes.says(&instance("a"), &name, 72, "busy".into());
        nodes.lose(&instance("a"), "cut", Timestamp(0));
        assert_eq!(says(&nodes), "", "nobody knows what is so");
    }

    #[test]
    fn what_is_told_of_a_node_that_moved_away_no_longer_counts() {
        let mut nodes = Nodes::default();
        nodes.told(change("a", NodeState::Stopped, NodeState::Running)).unwrap();
        assert_eq!(nodes.lose(&instance("a"), "cut", Timestamp(0)).len(), 1);

        let given_up = nodes.expect(&configuration("b"), NodeState::Stopped, Timestamp(0));
        assert_eq!(
            given_up.iter().map(|change| (change.old, change.new)).collect::<Vec<_>>(),
            [(NodeState::Unknown, NodeState::Stopped)]
        );
        assert_eq!(nodes.told(change("a", NodeState::Running, NodeState::Crashed)), None);
        let removal = NotifyChange { removed: true, ..change("a", NodeState::Crashed, NodeState::Stopped) };
        assert_eq!(nodes.told(removal), None);
        let late = NodeStatus { state: NodeState::Running, ..nodes.get("worker").unwrap().clone() };
        let snapshot = vec![NodeStatus { instance: instance("a"), ..late }];
        assert_eq!(nodes.reconcile(&instance("a"), snapshot, |_| false, Timestamp(0)), []);
        let status = nodes.get("worker").unwrap();
        assert_eq!((&status.instance, status.state), (&instance("b"), NodeState::Stopped));
        assert_eq!(nodes.elsewhere("worker").collect::<Vec<_>>(), [&instance("a")]);

        let back = nodes.expect(&configuration("a"), NodeState::Stopped, Timestamp(0));
        assert_eq!(
            back.iter().map(|change| (change.old, change.new)).collect::<Vec<_>>(),
            [(NodeState::Stopped, NodeState::Running)]
        );
        assert_eq!(nodes.elsewhere("worker").count(), 0);
        assert_eq!(nodes.counts, nodes.counted());
    }

    #[test]
    fn a_snapshot_corrects_what_the_news_did_not_explain_and_nothing_else() {
        let mut nodes = Nodes::default();
        nodes.told(change("a", NodeState::Stopped, NodeState::Running)).unwrap();
        let as_told = nodes.get("worker").unwrap().clone();
        let is_meant = |_: &NodeName| true;
        assert_eq!(nodes.reconcile(&instance("a"), vec![as_told.clone()], is_meant, Timestamp(0)), []);

        nodes.lose(&instance("a"), "cut", Timestamp(0));
        let back = nodes.reconcile(&instance("a"), vec![as_told], is_meant, Timestamp(0));
        assert_eq!(
            back.iter().map(|change| (change.old, change.new, change.pid)).collect::<Vec<_>>(),
            [(NodeState::Unknown, NodeState::Running, Some(70))]
        );
        let gone = nodes.reconcile(&instance("a"), vec![], |_| false, Timestamp(0));
        assert_eq!(
            gone.iter().map(|change| (change.new, change.removed)).collect::<Vec<_>>(),
            [(NodeState::Stopped, true)]
        );
        assert_eq!(nodes.iter().count(), 0);
    }

    #[test]
    fn what_was_foreseen_is_as_if_it_had_not_been_and_counts_only_if_nothing_came_between() {
        let (ours, others) = (configuration("a"), configuration("b"));
        let expecting = |foreseen: &Kept, between: Option<NotifyChange>| {
            let mut nodes = Nodes::default();
            nodes.foresee(foreseen, NodeState::Stopped, Timestamp(0));
            between.into_iter().for_each(|change| drop(nodes.told(change)));
            let changes = nodes.expect(&ours, NodeState::Stopped, Timestamp(0));
            assert_eq!(nodes.counts, nodes.counted());
            (nodes.iter().cloned().collect::<Vec<_>>(), changes)
        };
        let mut plain = Nodes::default();
        let unforeseen = (plain.expect(&ours, NodeState::Stopped, Timestamp(0)), plain.iter().cloned().collect());
        for foreseen in [&ours, &others] {
            let (nodes, changes) = expecting(foreseen, None);
            assert_eq!((changes, nodes), unforeseen);
        }
        let (nodes, _) = expecting(&ours, Some(change("a", NodeState::Stopped, NodeState::Running)));
        assert_eq!(nodes[0].state, NodeState::Running, "it was told meanwhile");
    }

    #[test]
    fn what_a_snapshot_leaves_out_is_missed_however_it_is_sorted_and_whatever_else_it_says() {
        let named = |name: &str| NodeName::new(name).unwrap();
        let told = |name: &str, of: &str| NotifyChange {
            node: named(name),
            ..change(of, NodeState::Stopped, NodeState::Running)
        };
        let status = |name: &str| as_told(&told(name, "i"));
        for (snapshot, missing) in [
            (&["a", "b", "c"][..], &[][..]),
            (&["a", "c"], &["b"]),
            (&["a", "b", "a"], &["c"]),
            (&["a", "a", "a"], &["b", "c"]),
            (&["a", "b", "new"], &["c"]),
            (&["c", "b", "a"], &[]),
            (&["a", "b", "other"], &["c"]),
            (&[], &["a", "b", "c"]),
        ] {
            let mut nodes = Nodes::default();
            for (name, of) in [("a", "i"), ("b", "i"), ("c", "i"), ("other", "j"), ("gone", "i")] {
                nodes.told(told(name, of)).unwrap();
            }
            nodes.told(NotifyChange { removed: true, ..told("gone", "i") }).unwrap();
            let said = snapshot.iter().map(|name| status(name)).collect();
            let changes = nodes.reconcile(&instance("i"), said, |_| false, Timestamp(0));
            let removed = changes.iter().filter(|change| change.removed).map(|change| change.node.as_str());
            assert_eq!(removed.collect::<Vec<_>>(), missing, "{snapshot:?}");
            assert_eq!(nodes.counts, nodes.counted(), "{snapshot:?}");
        }
    }

    #[test]
    fn a_stranger_that_tells_of_ever_new_nodes_is_kept_no_more_than_so_many() {
        let mut nodes = Nodes::default();
        nodes.expect(&configuration("a"), NodeState::Stopped, Timestamp(0));
        let invented = |number: usize| NotifyChange {
            node: NodeName::new(&format!("invented-{number}")).unwrap(),
            ..change("x", NodeState::Stopped, NodeState::Running)
        };
        let kept = (0..2 * STRANGE).filter(|number| nodes.told(invented(*number)).is_some()).count();
        assert_eq!((kept, nodes.iter().count()), (STRANGE, STRANGE + 1));
        assert!(nodes.has_overflowed() && !nodes.has_overflowed(), "which is told once");
        let status = |number| NodeStatus { node: invented(number).node, ..as_told(&invented(0)) };
        let snapshot = (STRANGE..3 * STRANGE).map(status).collect();
        assert_eq!(nodes.reconcile(&instance("y"), snapshot, |_| false, Timestamp(0)), [], "nor in a snapshot");
        assert!(nodes.has_overflowed());
        for other in 0..100 {
            let of = |number| NotifyChange { instance: instance(&format!("x{other}")), ..invented(number) };
            assert!((0..1000).all(|number| nodes.told(of(number)).is_none()), "nor for other instances");
        }
        assert_eq!(nodes.elsewhere.len(), 0);
        // What is configured is told of as ever, and what goes makes room.
        assert!(nodes.told(change("a", NodeState::Stopped, NodeState::Running)).is_some());
        nodes.told(NotifyChange { removed: true, ..invented(1) }).unwrap();
        assert!(nodes.told(invented(STRANGE)).is_some());
    }

    impl Nodes {
        /// What `counts` should be.
        fn counted(&self) -> BTreeMap<InstanceName, usize> {
            self.known.values().fold(BTreeMap::new(), |mut counts, status| {
                *counts.entry(status.instance.clone()).or_default() += 1;
                counts
            })
        }
    }

    fn change(of: &str, old: NodeState, new: NodeState) -> NotifyChange {
        let status = first_known(node(), instance(of), Role::Worker, old, Timestamp(0));
        NotifyChange { pid: Some(70), ..own_change(&status, new, "told", Timestamp(0)) }
    }

    fn configuration(of: &str) -> Kept {
        let mut configuration = Configuration::empty(ConfigurationId::new("c").unwrap());
        configuration.nodes = vec![Node::new(node(), instance(of), Role::Worker).into()];
        Kept::new(&configuration)
    }

    fn node() -> NodeName {
        NodeName::new("worker").unwrap()
    }

    fn instance(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }
}

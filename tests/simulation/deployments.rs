//! Deployments, with files, of which any party is lost at every single step: whatever it is and
//! whenever, in the end all instances are in one configuration, the journal says which, and what did not change was not
//! touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watchpost::model::{Configuration, NodeName, OnFailure, Verdict};

use crate::chance::with_seeds;
use crate::cluster::{Cluster, INSTANCES, LONG, Party};
use crate::files::with_files;
use crate::machine::FAILS;

/// What runs where, and as which process.
type Running = BTreeMap<NodeName, (usize, u32)>;

#[test]
fn whoever_is_lost_at_whichever_step_of_a_deployment_all_end_in_one_configuration() {
    with_seeds(11_000, 3, |seed| lose_everybody_at_every_step(seed, OnFailure::Back));
}

#[test]
fn whoever_is_lost_while_a_deployment_is_to_stand_all_end_in_one_configuration() {
    with_seeds(12_000, 2, |seed| lose_everybody_at_every_step(seed, OnFailure::Keep));
}

#[test]
fn nodes_with_files_find_them_whenever_they_are_launched_and_as_long_as_they_run() {
    with_seeds(13_000, 6, |seed| {
        let mut whole = Deploying::begin_with(seed, OnFailure::Back, with_files);
        whole.finish();
        whole.check("nobody lost");
    });
}

fn lose_everybody_at_every_step(seed: u64, on_failure: OnFailure) {
    let mut whole = Deploying::begin(seed, on_failure);
    whole.cluster.steps = 0;
    whole.finish();
    let steps = whole.steps_until_over;
    if on_failure == OnFailure::Keep {
        assert_eq!(whole.check("nobody lost"), Verdict::New, "it stands whatever fails");
    }
    let parties =
        [Party::Controller].into_iter().chain((0..INSTANCES.len()).flat_map(|at| [Party::Agent(at), Party::Link(at)]));
    for party in parties {
        for step in 1..=steps {
            let mut lossy = Deploying::begin(seed, on_failure);
            lossy.cluster.steps = 0;
            lossy.cluster.loss = Some((step, party));
            let what = format!("{party:?} lost at step {step} of {steps}");
            lossy.what.clone_from(&what);
            lossy.finish();
            lossy.check(&what);
        }
    }
}

/// A cluster in which something runs, and something else is being deployed.
struct Deploying {
    cluster: Cluster,
    before: Running,
    former: Configuration,
    next: Configuration,
    on_failure: OnFailure,
    steps_until_over: u64,
    /// What befalls it.
    what: String,
}

impl Drop for Deploying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was with {}", self.what);
        }
    }
}

impl Deploying {
    /// Every other one brings a node that does not become ready.
    fn begin(seed: u64, on_failure: OnFailure) -> Self {
        Self::begin_with(seed, on_failure, with_files)
    }

    /// The same with configurations that were dressed up.
    fn begin_with(seed: u64, on_failure: OnFailure, dressed: fn(Configuration) -> Configuration) -> Self {
        let mut cluster = Cluster::new(seed);
        cluster.calm_down();
        let former = dressed(cluster.new_configuration());
        assert!(cluster.deploy(former.clone()).configuration.is_some());
        let before = cluster.running();
        let mut next = dressed(cluster.new_configuration());
        if seed.is_multiple_of(2) {
            let changed = next.nodes.iter_mut().find(|node| !former.nodes.contains(node));
            if let Some(node) = changed {
                Arc::make_mut(node).env.insert(FAILS.into(), "1".into());
            }
        }
        let what = "nothing lost".into();
        Self { cluster, before, former, next, on_failure, steps_until_over: 0, what }
    }

    /// Deploys, whatever befalls it, and waits until all is quiet.
    fn finish(&mut self) {
        self.cluster.begin_to_deploy(self.next.clone(), self.on_failure);
        self.steps_until_over = self.cluster.pass_until_deployed();
        self.cluster.pass(LONG);
    }

    /// What it was decided for, if all is well.
    fn check(&self, what: &str) -> Verdict {
        let deployed = self.cluster.stored.deployed.as_ref().expect("something is deployed").open();
        let last = self.cluster.stored.last.as_ref().expect("the journal knows of a deployment");
        // One that was lost before it touched anything may never have been written down.
        let is_new = last.configuration == self.next.id && last.verdict == Verdict::New;
        assert_ne!(last.verdict, Verdict::Open, "{what}: it is decided");
        assert_eq!(deployed.id, if is_new { &self.next } else { &self.former }.id, "{what}: the journal agrees");
        assert!(last.owing.is_empty() && last.up.is_empty(), "{what}: everybody has followed: {last:?}");
        for machine in &self.cluster.machines {
            assert_eq!(machine.in_force(), Some(&deployed.id), "{what}: on {}", machine.name);
        }
        // Where it is to stand, what does not get ready is tried again and again.
        let failing = deployed.nodes.iter().filter(|node| node.env.contains_key(FAILS));
        let failing: BTreeSet<_> = failing.map(|node| node.name.clone()).collect();
        self.cluster.assert_in_force_beside(&deployed, &failing);
        self.cluster.assert_known();
        let after = self.cluster.running();
        for node in self.next.nodes.iter().filter(|node| self.former.nodes.contains(node)) {
            assert_eq!(after.get(&node.name), self.before.get(&node.name), "{what}: {} did not change", node.name);
        }
        last.verdict
    }
}

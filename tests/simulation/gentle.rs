//! Deployments of which a node does not become ready, and of which any party is lost: forth or back, never more nodes of a
//! role are down through the deployment than may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use watchpost::model::{
    Configuration, ConfigurationId, Instance, InstanceName, Node, NodeName, NodeState, OnFailure, Ready, ReadyBy, Role,
    Verdict,
};

use crate::chance::with_seeds;
use crate::cluster::{Cluster, INSTANCES, LONG, Party};
use crate::machine::FAILS;

/// Of eight workers a quarter may be down.
const WORKERS: usize = 8;
const MOST: usize = 2;
/// Those that read the same interface of an instance, by their numbers.
const SHARED: [usize; 2] = [3, 6];
/// The one that moves to another instance, where one does.
const MOVER: usize = 1;

#[test]
fn never_more_of_a_role_are_down_through_a_deployment_than_may_be_forth_or_back() {
    with_seeds(14_000, 4, |seed| {
        let steps = run(seed, None, None);
        let parties = [Party::Controller]
            .into_iter()
            .chain((0..INSTANCES.len()).flat_map(|at| [Party::Agent(at), Party::Link(at)]));
        for (at, party) in parties.enumerate() {
            // Each party at other steps, and each seed.
            let first = 1 + (seed + at as u64) % 12;
            (first..=steps).step_by(24).for_each(|step| _ = run(seed, Some((step, party)), None));
        }
    });
}

#[test]
fn who_is_stopped_in_the_middle_of_a_deployment_stays_down_whoever_is_lost_and_whatever_becomes_of_it() {
    with_seeds(15_000, 4, |seed| {
        let steps = run(seed, None, None);
        let parties = [Party::Controller, Party::Agent(0), Party::Link(0)];
        for at in (1 + seed % 9..=steps).step_by(27) {
            // Of the node that is stopped, the agent and the link may be lost before, or behind it.
            run(seed, None, Some((at, seed as usize % WORKERS)));
            for (number, party) in (0..).zip(parties) {
                run(seed, Some(((at + 40 * number) % steps + 1, party)), Some((at, 3 * (seed as usize % 3))));
            }
        }
    });
}

#[test]
fn who_is_stopped_while_it_moves_to_another_instance_stays_down_whoever_is_lost_wherever_it_is_by_then() {
    with_seeds(16_000, 4, |seed| {
        let steps = run_with(seed, None, None, true);
        // Where it was, and where it will be.
        let places = [MOVER, 2].into_iter().flat_map(|at| [Party::Agent(at), Party::Link(at)]);
        let parties: Vec<_> = places.chain([Party::Controller]).collect();
        for (number, at) in (1 + seed % 5..=steps).step_by(9).enumerate() {
            run_with(seed, None, Some((at, MOVER)), true);
            let party = parties[number % parties.len()];
            run_with(seed, Some(((at + 17 * number as u64) % steps + 1, party)), Some((at, MOVER)), true);
        }
    });
}

fn run(seed: u64, loss: Option<(u64, Party)>, stop: Option<(u64, usize)>) -> u64 {
    run_with(seed, loss, stop, false)
}

/// Deploys, where one worker fails or none, and one moves or none, while that party is lost at that step, and somebody stops
/// that worker at that one. How many steps it took.
fn run_with(seed: u64, loss: Option<(u64, Party)>, stop: Option<(u64, usize)>, moves: bool) -> u64 {
    let mut cluster = Cluster::new(seed);
    cluster.calm_down();
    let former = workers("former", Duration::from_secs(4));
    assert!(cluster.deploy(former.clone()).configuration.is_some());
    let mut next = workers("next", Duration::from_secs(1));
    let fails = (!seed.is_multiple_of(4)).then(|| cluster.chance.below(WORKERS as u64) as usize);
    if let Some(at) = fails {
        Arc::make_mut(&mut next.nodes[at]).env.insert(FAILS.into(), "1".into());
    }
    if moves {
        Arc::make_mut(&mut next.nodes[MOVER]).instance = InstanceName::new(INSTANCES[2]).unwrap();
    }
    (cluster.steps, cluster.loss) = (0, loss);
    let stopped = stop.map(|(at, worker)| (at, former.nodes[worker].name.clone()));
    // What moves is not counted among those that are down, nor is what is stopped.
    let uncounted = moves.then_some(MOVER).or(stop.map(|(_, worker)| worker));
    let uncounted = uncounted.map(|worker| former.nodes[worker].name.clone());
    cluster.stop.clone_from(&stopped);
    let lost = loss.and_then(|(_, party)| match party {
        // What was on its way up when its agent was killed goes on when that is back.
        Party::Agent(at) => Some(InstanceName::new(INSTANCES[at]).unwrap()),
        Party::Controller | Party::Link(_) => None,
    });
    let what = format!("seed {seed}, {fails:?} fails, {loss:?} is lost, {stop:?} is stopped");
    let shared = former.nodes.iter().filter(|node| node.interface.is_some()).map(|node| node.name.clone()).collect();
    cluster.watched = Some(Watched { lost, uncounted, shared, what });
    let stopped = stopped.map(|(_, name)| name);
    cluster.begin_to_deploy(next.clone(), OnFailure::Back);
    let steps = cluster.pass_until_deployed();
    cluster.pass(LONG);
    let last = cluster.stored.last.clone().expect("the journal knows of a deployment");
    let is_new = last.verdict == Verdict::New && last.configuration == next.id;
    let deployed = cluster.stored.deployed.as_ref().expect("something is deployed").open();
    assert_eq!(deployed.id, if is_new { &next } else { &former }.id, "{:?}", cluster.watched);
    if loss.is_none() && stop.is_none() {
        assert_eq!(last.verdict == Verdict::Old, fails.is_some(), "{:?}", cluster.watched);
    }
    assert!(last.owing.is_empty(), "everybody has followed: {last:?}, {:?}", cluster.watched);
    // Whoever was not told that it is down may find it up.
    let stopped: BTreeSet<_> = stopped.into_iter().collect();
    cluster.assert_in_force_beside(&deployed, &stopped);
    let running = cluster.running();
    assert!(
        !cluster.is_stopped() || stopped.iter().all(|name| !running.contains_key(name)),
        "it was stopped, and runs: {:?}",
        cluster.watched
    );
    cluster.assert_known();
    for machine in &cluster.machines {
        machine.assert_runs(&deployed.share_of(&machine.name));
    }
    steps
}

fn workers(id: &str, stop_grace: Duration) -> Configuration {
    let mut configuration = Configuration::empty(ConfigurationId::new(id).unwrap());
    let instance = |name: &str| InstanceName::new(name).unwrap();
    configuration.instances =
        INSTANCES.iter().map(|name| Instance { name: instance(name), host: None, port: None }).collect();
    for at in 0..WORKERS {
        let name = NodeName::new(&format!("worker-{at}")).unwrap();
        let mut node = Node::new(name, instance(INSTANCES[at % INSTANCES.len()]), Role::Worker);
        node.command = vec!["program".into()];
        node.ready = Ready { by: ReadyBy::Settle(Duration::from_millis(100)), within: Some(Duration::from_secs(5)) };
        node.restart.limit = 4;
        node.stop_grace = stop_grace;
        node.interface = SHARED.contains(&at).then(|| "eth0".into());
        configuration.nodes.push(node.into());
    }
    configuration
}

/// What must hold at every step.
#[derive(Debug)]
pub struct Watched {
    /// Whose agent is lost: what is down there is down through that.
    lost: Option<InstanceName>,
    /// Whom somebody stops, or what moves.
    uncounted: Option<NodeName>,
    /// Of these one at a time is down.
    shared: Vec<NodeName>,
    what: String,
}

impl Watched {
    pub fn assert_held(&self, states: &BTreeMap<NodeName, (InstanceName, NodeState)>) {
        let is_down = |name: &NodeName| {
            let is_down = |(of, state): &(InstanceName, NodeState)| {
                *state != NodeState::Running && Some(of) != self.lost.as_ref()
            };
            Some(name) != self.uncounted.as_ref() && states.get(name).is_some_and(is_down)
        };
        let down: Vec<_> = states.keys().filter(|name| is_down(name)).collect();
        assert!(down.len() <= MOST, "{down:?} are down at once: {}", self.what);
        let shared = self.shared.iter().filter(|name| is_down(name)).count();
        assert!(shared <= 1, "all who read one interface are down: {}", self.what);
    }
}

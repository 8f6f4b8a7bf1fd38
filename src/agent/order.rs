//! The order of roles: who may start or stop now, and until when somebody may hold up others.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::model::{NodeName, Role};
use crate::plan::order::{RANKS, rank};

/// How far a node is with what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Where it should be, or given up on.
    Idle,
    /// To be stopped, when its turn comes; `then` it is started again.
    StopQueued { then: bool },
    /// Told to stop; `holds` up others until it is overdue.
    Stopping { then: bool, holds: bool },
    /// To be started, when its turn comes.
    StartQueued,
    /// Told to start, and not ready yet.
    Starting,
}

/// Counts, per role, the nodes that others have to wait for.
#[derive(Debug, Clone, Default)]
pub struct Order {
    rising: [usize; RANKS],
    falling: [usize; RANKS],
    queued: usize,
    alarms: BTreeSet<(Instant, NodeName)>,
}

/// Where one node stands in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub step: Step,
    /// When the step is overdue.
    alarm: Option<Instant>,
}

impl Place {
    /// A node that nobody waits for.
    pub fn idle() -> Self {
        Self { step: Step::Idle, alarm: None }
    }

    /// When the step is overdue, if ever.
    pub fn alarm(&self) -> Option<Instant> {
        self.alarm
    }
}

impl Order {
    /// Moves a node on to `step`, which is overdue at `alarm`.
    pub fn set(&mut self, name: &NodeName, role: Role, place: &mut Place, step: Step, alarm: Option<Instant>) {
        let rank = rank(role);
        let (before, after) = (weight(place.step), weight(step));
        self.rising[rank] = self.rising[rank] + after.rising - before.rising;
        self.falling[rank] = self.falling[rank] + after.falling - before.falling;
        self.queued = self.queued + after.queued - before.queued;
        if let Some(at) = place.alarm {
            self.alarms.remove(&(at, name.clone()));
        }
        if let Some(at) = alarm {
            self.alarms.insert((at, name.clone()));
        }
        *place = Place { step, alarm };
    }

    /// Whether everything that starts before this role is up, or given up on.
    pub fn may_start(&self, role: Role) -> bool {
        self.rising[..rank(role)].iter().all(|count| *count == 0)
    }

    /// Whether everything that stops before this role is down, or overdue.
    pub fn may_stop(&self, role: Role) -> bool {
        self.falling[rank(role) + 1..].iter().all(|count| *count == 0)
    }

    /// Whether any node waits for its turn.
    pub fn anybody_queues(&self) -> bool {
        self.queued > 0
    }

    /// When the first step is overdue, and whose.
    pub fn first_alarm(&self) -> Option<(Instant, &NodeName)> {
        self.alarms.first().map(|(at, name)| (*at, name))
    }
}

#[derive(Clone, Copy)]
struct Weight {
    rising: usize,
    falling: usize,
    queued: usize,
}

fn weight(step: Step) -> Weight {
    let (rising, falling) = match step {
        Step::Idle | Step::Stopping { holds: false, .. } => (false, false),
        Step::StartQueued | Step::Starting => (true, false),
        // What is to come up again holds up what starts after it as well as what stops after it.
        Step::StopQueued { then } | Step::Stopping { then, holds: true } => (then, true),
    };
    let queued = matches!(step, Step::StartQueued | Step::StopQueued { .. });
    Weight { rising: rising.into(), falling: falling.into(), queued: queued.into() }
}

//! Supervisors: one for each node, started, and replaced where one panicked.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{ActorContext, AsyncContext, Context};

use super::Agent;
use crate::agent::returns::Adoptable;
use crate::agent::state::Event;
use crate::model::{Life, Node, NodeName, NodeState, Timestamp};
use crate::supervisor::Supervisor;
use crate::supervisor::workshop::{Fact, WardId};

impl Agent {
    pub(super) fn supervise(&mut self, ward: WardId, node: Arc<Node>, ctx: &mut Context<Self>) {
        match self.adoptable.remove(&node.name) {
            None => self.workshop.admit(ward, node.name.clone(), first_life()),
            Some(Adoptable { life, leader, origin, process, died, ready, past, waits, given_up }) => {
                let taken = match died {
                    Some(death) => {
                        self.workshop.note_death(ward, node.name.clone(), life, death, origin);
                        self.workshop.hear_channel(ward, &node, life);
                        Ok(())
                    }
                    None => self.workshop.adopt(ward, &node, life, (leader, origin), process),
                };
                if ready {
                    self.workshop.found_ready(ward);
                }
                self.workshop.recall(ward, past.clone());
                if let Some((left, reason)) = waits {
                    self.workshop.wait(ward, life, past, Instant::now() + left);
                    if let Some(pid) = leader {
                        self.workshop.examine_late(&node, life, pid, reason);
                    }
                }
                if given_up {
                    self.workshop.give_up(ward);
                }
                if let Err(error) = taken {
                    // Whoever cannot hear of its end cannot mind it; the next run of the agent may.
                    tracing::error!(node = %node.name, "cannot watch the process that was found running: {error}");
                    ctx.stop();
                }
            }
        }
        self.start_supervisor(ward, node, ctx);
    }

    pub(super) fn start_supervisor(&mut self, ward: WardId, node: Arc<Node>, ctx: &mut Context<Self>) {
        let port = self.port.get_or_insert_with(|| Rc::new(ctx.address().recipient()));
        let guessed = self.state.is_guessed(&node.name);
        if let Some(report) = Supervisor::start(ward, node, guessed, Rc::clone(&self.workshop), Rc::clone(port)) {
            self.drive(Event::Report(report), ctx); // in the same turn: nobody is told that it runs
        }
    }

    /// A supervisor is gone. If nobody sent it away, it panicked, and the next one takes up what it left.
    pub(super) fn replace(&mut self, ward: WardId, name: &NodeName, ctx: &mut Context<Self>) {
        let Some(node) = self.state.node_in(ward, name).cloned() else { return };
        if self.workshop.is_minded(ward) {
            return;
        }
        let (state, pid) = match self.workshop.fact(ward) {
            Fact::Alive(_, pid) if !self.workshop.is_ready(ward) => (NodeState::Pending, Some(pid)),
            Fact::Alive(_, pid) => (NodeState::Running, Some(pid)),
            Fact::Crashed(..) => (NodeState::Crashed, None),
            Fact::Launching(_) => (NodeState::Pending, None),
            Fact::Down(_) => (NodeState::Stopped, None),
            Fact::GivenUp(_) => (NodeState::Failed, None),
            Fact::Died { pid, .. } if !self.workshop.is_ready(ward) => (NodeState::Pending, Some(pid)),
            Fact::Died { pid, .. } => (NodeState::Running, Some(pid)),
        };
        let name = node.name.clone();
        self.start_supervisor(ward, node, ctx);
        self.drive(Event::Revived { node: name, state, pid }, ctx);
    }
}

/// The first life of a node here. Processes are known by cluster, node and life, also to the agents of other state
/// directories and after a record is gone: so the lives of each begin somewhere of their own.
fn first_life() -> Life {
    // Without chance the moment has to do.
    Life(getrandom::u32().map_or_else(|_| Timestamp::now().0, u64::from))
}

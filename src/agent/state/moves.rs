//! How nodes come to what is wished of them: up, down, or down and up again, each step when its turn has come.

use std::sync::Arc;
use std::time::Instant;

use super::{Effect, Entry, FoundNode, Goal, State};
use crate::agent::jobs::Wish;
use crate::agent::order::{Place, Step};
use crate::message::node::{NodeOrder, NodeReport};
use crate::model::{Node, NodeName, NodeState, NodeStatus, Now, Text, Timestamp};
use crate::plan::order::{KILL_MARGIN, STOP_PATIENCE};
use crate::supervisor::workshop::WardId;

/// Why a node is not started of which only that it ran is known.
const UNDEFINED: &str = "its record was lost: deploy a configuration that says what it is";

impl State {
    pub(super) fn take_in(
        &mut self,
        node: Arc<Node>,
        state: NodeState,
        pid: Option<u32>,
        since: Timestamp,
        fx: &mut Vec<Effect>,
    ) {
        let (name, ward) = (node.name.clone(), WardId::new(self.next_ward));
        self.next_ward += 1;
        let status = NodeStatus {
            node: name.clone(),
            instance: self.instance.clone(),
            role: node.role,
            state,
            pid,
            port: node.port,
            metrics_port: node.metrics_port,
            restarts: 0,
            since,
            reason: Text::default(),
            says: Text::default(),
            netstats: None,
        };
        fx.push(Effect::Supervise(ward, Arc::clone(&node)));
        let place = Place::idle();
        let goal = Goal::Run;
        let entry = Entry {
            node,
            ward,
            status,
            goal,
            place,
            guessed: false,
            next: None,
            output: None,
            ticket: 0,
            told_for_now: false,
            start_unheard: false,
            loss: None,
        };
        self.nodes.insert(name, Box::new(entry));
    }

    pub(super) fn found(&mut self, found: FoundNode, wall: Timestamp, fx: &mut Vec<Effect>) {
        let FoundNode { node, state, pid, reason, wanted, guessed } = found;
        let name = node.name.clone();
        self.note_files([&node]);
        self.take_in(node, state, pid, wall, fx);
        if let Some(entry) = self.nodes.get_mut(&name) {
            entry.guessed = guessed;
            entry.status.reason = reason;
        }
        match (state, wanted) {
            // Until a person asks, or its wait is over.
            (NodeState::Failed | NodeState::Crashed, _) => {}
            (_, true) => self.want_up(&name, fx),
            (_, false) => self.want_down(&name, Goal::Rest, fx),
        }
    }

    /// A node whose record was lost has the definition that is wanted of it: nobody knows of another, and to start it
    /// afresh for that would be to lose it.
    pub(super) fn define(&mut self, want: &Arc<Node>, wall: Timestamp, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get_mut(&want.name).filter(|entry| entry.guessed) else { return };
        entry.guessed = false;
        let (step, overdue) = (entry.place.step, entry.place.alarm());
        // Out of the order while its role may change.
        self.order.set(&want.name, entry.node.role, &mut entry.place, Step::Idle, None);
        entry.status.role = want.role;
        (entry.status.port, entry.status.metrics_port) = (want.port, want.metrics_port);
        entry.node = Arc::clone(want);
        self.order.set(&want.name, entry.node.role, &mut entry.place, step, overdue);
        fx.push(Effect::Tell(entry.ward, NodeOrder::Redefine(Arc::clone(want))));
        fx.push(Effect::Define(entry.ward, Arc::clone(want)));
        // Whoever has a copy learns its role by this.
        let report = NodeReport::defined(want.name.clone(), entry.status.state, entry.status.pid);
        self.outbox.push_change(entry.change(report, false, wall));
    }

    pub(super) fn want_up(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.goal = Goal::Run;
        let runs = entry.status.state == NodeState::Running;
        match entry.place.step {
            // It comes up again by itself, and whoever asked for it to go down first waits for that.
            Step::StopQueued { then: true } => {}
            Step::Idle | Step::StopQueued { then: false } if runs => self.settle_up(name, Ok(())),
            Step::Idle | Step::StopQueued { then: false } => self.set_step(name, Step::StartQueued),
            Step::Stopping { .. } => self.redirect(name, true, fx),
            Step::StartQueued | Step::Starting => {}
        }
        self.jobs.settle(name, Wish::Down, Err("somebody asked meanwhile for it to run"), None);
    }

    /// Down and up again, whatever it is now.
    pub(super) fn want_afresh(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        if entry.guessed {
            return self.jobs.settle(name, Wish::Up, Err(UNDEFINED), None); // it would be down, and stay so
        }
        entry.goal = Goal::Run;
        match entry.place.step {
            Step::Stopping { .. } => self.redirect(name, true, fx),
            _ => self.set_step(name, Step::StopQueued { then: true }),
        }
        self.jobs.settle(name, Wish::Down, Err("somebody asked meanwhile for it to run"), None);
    }

    pub(super) fn want_down(&mut self, name: &NodeName, goal: Goal, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        (entry.goal, entry.next) = (goal, None);
        self.jobs.settle(name, Wish::Up, Err("somebody asked meanwhile for it to stop"), None);
        // Also where it is STOPPED: a launch may be out, and only its supervisor knows.
        match entry.place.step {
            Step::Stopping { .. } => self.redirect(name, false, fx),
            _ => self.set_step(name, Step::StopQueued { then: false }),
        }
    }

    /// Down, and in the configuration if it is in it now.
    pub(super) fn want_to_rest(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        self.want_down(name, if self.leaves(name) { Goal::Leave } else { Goal::Rest }, fx);
    }

    /// The same, until the next run of the agent; what somebody wanted down before stays so.
    pub(super) fn want_to_pause(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        let goal = self.nodes.get(name).map(|entry| entry.goal);
        self.want_down(name, goal.filter(|goal| *goal != Goal::Run).unwrap_or(Goal::Pause), fx);
    }

    /// What is to become of a node on its way down changes; the time that it has does not.
    pub(super) fn redirect(&mut self, name: &NodeName, then: bool, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get(name) else { return };
        let (holds, alarm) = (matches!(entry.place.step, Step::Stopping { holds: true, .. }), entry.place.alarm());
        let is_told = entry.told_for_now == entry.is_down_for_now();
        self.set_step_until(name, Step::Stopping { then, holds }, alarm);
        if !is_told {
            self.tell_to_stop(name, fx); // or the record would say what was wished before
        }
        if alarm.is_none() {
            // Its time was up before: whoever asks now is told at once, and not left waiting for its end.
            self.settle_stuck(name);
        }
    }

    /// Whoever waits for a node that does not end waits in vain.
    pub(super) fn settle_stuck(&mut self, name: &NodeName) -> String {
        let pid = self.nodes.get(name).and_then(|entry| entry.status.pid);
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let error = format!("did not end, not even by SIGKILL{pid}");
        self.jobs.settle(name, Wish::Down, Err(&error), None);
        self.jobs.settle(name, Wish::Up, Err(&error), None);
        error
    }

    /// The node is down and is to run: under its new definition, if it has one.
    pub(super) fn rise_again(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        // Out of the order while its role may change.
        self.set_step(name, Step::Idle);
        self.redefine(name, fx);
        self.set_step(name, Step::StartQueued);
    }

    /// Nothing runs: its new definition takes effect, if it has one.
    fn redefine(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        let Some(entry) = self.nodes.get_mut(name) else { return };
        if let Some(node) = entry.next.take() {
            entry.status.role = node.role;
            (entry.status.port, entry.status.metrics_port) = (node.port, node.metrics_port);
            entry.node = Arc::clone(&node);
            fx.push(Effect::Tell(entry.ward, NodeOrder::Redefine(node)));
        }
    }

    /// The node is down and is to stay so; `removal` is what is told of it if it leaves.
    pub(super) fn rest(&mut self, removal: NodeReport, wall: Timestamp, fx: &mut Vec<Effect>) {
        let name = &removal.node.clone();
        self.set_step(name, Step::Idle);
        if self.nodes.get(name).is_some_and(|entry| entry.goal == Goal::Leave)
            && let Some(mut entry) = self.nodes.remove(name)
        {
            self.outbox.push_change(entry.change(removal, true, wall));
            fx.push(Effect::Dismiss(entry.ward, name.clone()));
        }
        self.redefine(name, fx);
        self.jobs.settle(name, Wish::Down, Ok(()), None);
    }

    pub(super) fn settle_up(&mut self, name: &NodeName, result: Result<(), &str>) {
        self.set_step(name, Step::Idle);
        let output = self.nodes.get(name).and_then(|entry| entry.output.as_deref());
        self.jobs.settle(name, Wish::Up, result, output);
    }

    pub(super) fn set_step(&mut self, name: &NodeName, step: Step) {
        self.set_step_until(name, step, None);
    }

    pub(super) fn set_step_until(&mut self, name: &NodeName, step: Step, alarm: Option<Instant>) {
        if let Some(entry) = self.nodes.get_mut(name) {
            self.order.set(name, entry.node.role, &mut entry.place, step, alarm);
        }
    }

    /// Begins every step whose turn has come.
    pub(super) fn advance(&mut self, now: Now, fx: &mut Vec<Effect>) {
        if !self.order.anybody_queues() {
            return;
        }
        let is_queued = |entry: &Entry| matches!(entry.place.step, Step::StopQueued { .. } | Step::StartQueued);
        let queued: Vec<_> =
            self.nodes.iter().filter(|(_, entry)| is_queued(entry)).map(|(name, _)| name.clone()).collect();
        for name in queued {
            let entry = &self.nodes[&name];
            let role = entry.node.role;
            match entry.place.step {
                Step::StartQueued if entry.guessed => self.settle_up(&name, Err(UNDEFINED)),
                Step::StopQueued { then } if self.order.may_stop(role) => {
                    let patience = now.mono + STOP_PATIENCE.min(entry.node.stop_grace);
                    self.tell_to_stop(&name, fx);
                    self.set_step_until(&name, Step::Stopping { then, holds: true }, Some(patience));
                }
                Step::StartQueued if self.order.may_start(role) && !self.waits_for_a_port(entry) => {
                    let overdue = now.mono + entry.node.ready_within();
                    self.tell_to_start(&name, fx);
                    self.set_step_until(&name, Step::Starting, Some(overdue));
                }
                _ => {}
            }
        }
    }

    pub(super) fn tell_to_start(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.start_unheard = true;
            fx.push(Effect::Tell(entry.ward, NodeOrder::Start));
        }
    }

    pub(super) fn tell_to_stop(&mut self, name: &NodeName, fx: &mut Vec<Effect>) {
        self.next_ticket += 1;
        if let Some(entry) = self.nodes.get_mut(name) {
            let for_now = entry.is_down_for_now();
            (entry.ticket, entry.told_for_now) = (self.next_ticket, for_now);
            fx.push(Effect::Tell(entry.ward, NodeOrder::Stop { ticket: entry.ticket, for_now }));
            fx.extend(self.hurried.then(|| entry.hurry()));
        }
    }

    /// Whether a node on its way down still has a port that this one will listen on.
    pub(super) fn waits_for_a_port(&self, entry: &Entry) -> bool {
        let ports = |node: &Node| [node.port, node.metrics_port].into_iter().flatten();
        let has = |node: &Node, port| ports(node).any(|other| other == port);
        let is_falling =
            |other: &&Entry| matches!(other.place.step, Step::StopQueued { .. } | Step::Stopping { holds: true, .. });
        ports(&entry.node)
            .any(|port| self.nodes.values().map(Box::as_ref).filter(is_falling).any(|other| has(&other.node, port)))
    }

    pub(super) fn tick(&mut self, now: Now) {
        while let Some((_, name)) = self.order.first_alarm().filter(|(at, _)| *at <= now.mono) {
            let name = name.clone();
            let Some(entry) = self.nodes.get(&name) else { return };
            match entry.place.step {
                Step::Starting => {
                    let within = humantime::format_duration(entry.node.ready_within());
                    let why = entry.node.ready_by().missed().map_or_else(String::new, |missed| format!(": {missed}"));
                    self.settle_up(&name, Err(&format!("not ready within {within}{why}")));
                }
                Step::Stopping { then, holds: true } => {
                    // It holds up nobody any more; it is still to end, by SIGKILL after its grace.
                    let left = entry.node.stop_grace.saturating_sub(STOP_PATIENCE) + KILL_MARGIN;
                    self.set_step_until(&name, Step::Stopping { then, holds: false }, Some(now.mono + left));
                }
                step @ Step::Stopping { holds: false, .. } => {
                    self.set_step(&name, step);
                    let error = self.settle_stuck(&name);
                    self.notify_error(Some(name), error, now.wall);
                }
                step @ (Step::Idle | Step::StopQueued { .. } | Step::StartQueued) => self.set_step(&name, step),
            }
        }
    }
}

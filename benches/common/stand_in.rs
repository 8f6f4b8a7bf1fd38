//! A stand-in for an agent: what it decides is real, its nodes are only said to run, and there are no processes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use actix::{Actor, Context, Handler};
use tokio::sync::oneshot;
use watchpost::agent::outbox::{Bounds, Outbox};
use watchpost::agent::state::{Effect, Event, State};
use watchpost::bridge::{LinkDown, LinkRole, LinkSettings, LinkUp, Mail, NotKnown, Owner, dial};
use watchpost::message::agent::{ToAgent, ToController};
use watchpost::message::node::{NodeOrder, NodeReport};
use watchpost::model::{InstanceName, NodeName, NodeState, Now};
use watchpost::supervisor::workshop::WardId;

use super::cluster::name;

/// An agent of instance `sensor` on a thread of its own, until it is dropped.
pub struct StandIn {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Dials that controller, of a cluster of the usual name.
    pub fn start(controller: SocketAddr) -> Self {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let instance = name("sensor", InstanceName::new);
                let settings = LinkSettings::new(LinkRole::Agent, instance.to_string(), "watchpost");
                let state = State::new(instance, 1, Outbox::new(Bounds::default()));
                let agent = Agent { state, nodes: BTreeMap::new(), link: None }.start();
                let owner = Owner {
                    up: agent.clone().recipient(),
                    mail: agent.clone().recipient(),
                    not_known: agent.clone().recipient(),
                    down: agent.recipient(),
                };
                let _dialer = dial::<ToAgent, ToController>(controller, None, settings, owner);
                let _ = ended.await; // by the order or by the loss of whoever gives it
            });
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Agent {
    state: State,
    nodes: BTreeMap<WardId, NodeName>,
    link: Option<LinkUp<ToController>>,
}

impl Agent {
    fn drive(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.state.step(event, Now::read()) {
                match effect {
                    Effect::Supervise(ward, node) => drop(self.nodes.insert(ward, node.name.clone())),
                    Effect::Dismiss(ward, _) => drop(self.nodes.remove(&ward)),
                    Effect::Prepare(number, _) => events.push(Event::Prepared(number, Vec::new())),
                    // The last one is taken first.
                    Effect::Tell(ward, NodeOrder::Start) => {
                        let report = |new, reason| Event::Report(self.report(ward, new, reason, None));
                        events.extend([report(NodeState::Running, "ready"), report(NodeState::Pending, "launched")]);
                    }
                    Effect::Tell(ward, NodeOrder::Stop { ticket, .. }) => {
                        events.push(Event::Report(self.report(ward, NodeState::Stopped, "on request", Some(ticket))));
                    }
                    _ => {}
                }
            }
        }
        while let Some(messages) = self.state.outgoing() {
            if let Some(LinkUp { link, out, .. }) = &self.link {
                out.do_send(Mail { link: *link, messages });
            }
        }
    }

    fn report(&self, ward: WardId, new: NodeState, reason: &str, ticket: Option<u64>) -> NodeReport {
        let (node, reason) = (self.nodes[&ward].clone(), reason.into());
        NodeReport { node, new, pid: Some(70_000), exit: None, attempt: 0, restarts: 0, reason, output: None, ticket }
    }
}

impl Actor for Agent {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToController>> for Agent {
    type Result = ();

    fn handle(&mut self, up: LinkUp<ToController>, _: &mut Context<Self>) {
        self.link = Some(up);
        self.drive(Event::LinkUp);
    }
}

impl Handler<Mail<ToAgent>> for Agent {
    type Result = ();

    fn handle(&mut self, mail: Mail<ToAgent>, _: &mut Context<Self>) {
        mail.messages.into_iter().for_each(|message| self.drive(Event::Order(message)));
    }
}

impl Handler<NotKnown> for Agent {
    type Result = ();

    fn handle(&mut self, NotKnown { kind, .. }: NotKnown, _: &mut Context<Self>) {
        self.drive(Event::NotKnown(kind));
    }
}

impl Handler<LinkDown> for Agent {
    type Result = ();

    fn handle(&mut self, _: LinkDown, _: &mut Context<Self>) {
        self.link = None;
        self.drive(Event::LinkDown);
    }
}

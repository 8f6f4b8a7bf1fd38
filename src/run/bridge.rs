//! The two ends of a TCP link, each with its listener and its diallers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use tokio::sync::watch;

use super::RunError;
use crate::agent::Agent;
use crate::bridge::{
    Dialer, LinkDown, LinkId, LinkRole, LinkSettings, LinkUp, Listener, Mail, NotKnown, Owner, dial, dial_unless,
    listen,
};
use crate::controller::{Controller, DialInstance};
use crate::message::agent::{ToAgent, ToController};
use crate::model::{Endpoint, InstanceName};
use crate::settings;
use crate::trust::Trust;

/// The controller's end: dials the instances that it is told to.
///
/// Made before the controller, which needs it to dial, and given the controller's address after.
pub struct ControllerBridge {
    settings: LinkSettings,
    controller: Option<Addr<Controller>>,
    dialled: BTreeMap<InstanceName, Dialer>,
    /// What came before the controller's address.
    early: Vec<DialInstance>,
}

impl ControllerBridge {
    /// A bridge for a controller that is still to come.
    pub fn new(settings: LinkSettings) -> Self {
        Self { settings, controller: None, dialled: BTreeMap::new(), early: Vec::new() }
    }

    /// Accepts agents on `socket`, for as long as the listener is kept.
    pub fn accept(
        socket: TcpListener,
        settings: LinkSettings,
        controller: &Addr<Controller>,
    ) -> Result<Listener, RunError> {
        let address = settings.permit(socket.local_addr()?)?;
        warn_if_open("the port for agents", address, settings.trust.is_some());
        Ok(listen(socket, settings, owner_of(controller))?)
    }

    fn dial(&mut self, DialInstance { instance, address }: DialInstance) {
        // The former dialler ends its link before the next one makes a new link.
        drop(self.dialled.remove(&instance));
        let (Some(controller), Some(address)) = (&self.controller, address) else { return };
        match self.settings.permit(address) {
            Ok(address) => {
                warn_if_open("the link to an agent", address, self.settings.trust.is_some());
                let expect = Some(instance.to_string());
                let dialer = dial(address, expect, self.settings.clone(), owner_of(controller));
                self.dialled.insert(instance, dialer);
            }
            Err(error) => tracing::error!(%instance, "not dialled: {error}"),
        }
    }
}

/// The address of the controller that a [`ControllerBridge`] works for.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct WorkFor(pub Addr<Controller>);

impl Actor for ControllerBridge {
    type Context = Context<Self>;
}

impl Handler<WorkFor> for ControllerBridge {
    type Result = ();

    fn handle(&mut self, WorkFor(controller): WorkFor, _: &mut Context<Self>) {
        self.controller = Some(controller);
        std::mem::take(&mut self.early).into_iter().for_each(|order| self.dial(order));
    }
}

impl Handler<DialInstance> for ControllerBridge {
    type Result = ();

    fn handle(&mut self, order: DialInstance, _: &mut Context<Self>) {
        match self.controller {
            Some(_) => self.dial(order),
            None => self.early.push(order),
        }
    }
}

/// The agent's end: a listener, a dialler, or both. Dropping it ends the link.
pub struct AgentBridge {
    _listener: Option<Listener>,
    _dialer: Option<Dialer>,
}

impl AgentBridge {
    /// Waits on `socket` and dials `controller`, whichever there is.
    pub fn open(
        agent: &Addr<Agent>,
        settings: &LinkSettings,
        socket: Option<TcpListener>,
        controller: Option<Endpoint>,
    ) -> Result<Self, RunError> {
        let owner = || Owner {
            up: agent.clone().recipient(),
            mail: agent.clone().recipient(),
            not_known: agent.clone().recipient(),
            down: agent.clone().recipient(),
        };
        if let Some(socket) = &socket {
            let address = settings.permit(socket.local_addr()?)?;
            warn_if_open("the port for a controller", address, settings.trust.is_some());
        }
        // What a name stands for is looked at whenever it is dialled.
        if let Some(address) = controller.as_ref().and_then(Endpoint::address) {
            warn_if_open("the link to the controller", settings.permit(address)?, settings.trust.is_some());
        }
        // Where both are to be done, whoever has come need not be dialled as well.
        let (reached, is_reached) = watch::channel(false);
        let reception = Reception { agent: agent.clone(), reached, links: BTreeSet::new() }.start();
        let visitors = Owner {
            up: reception.clone().recipient(),
            mail: reception.clone().recipient(),
            not_known: reception.clone().recipient(),
            down: reception.recipient(),
        };
        let _listener = socket.map(|socket| listen(socket, settings.clone(), visitors)).transpose()?;
        let dial =
            |controller| dial_unless::<ToAgent, ToController>(is_reached, controller, None, settings.clone(), owner());
        let _dialer = controller.map(dial);
        Ok(Self { _listener, _dialer })
    }
}

/// Knows whether a controller has come by itself. All that it hears goes on to the agent.
struct Reception {
    agent: Addr<Agent>,
    reached: watch::Sender<bool>,
    links: BTreeSet<LinkId>,
}

impl Actor for Reception {
    type Context = Context<Self>;
}

impl Handler<LinkUp<ToController>> for Reception {
    type Result = ();

    fn handle(&mut self, up: LinkUp<ToController>, _: &mut Context<Self>) {
        self.links.insert(up.link);
        self.reached.send_replace(true);
        self.agent.do_send(up);
    }
}

impl Handler<Mail<ToAgent>> for Reception {
    type Result = ResponseFuture<()>;

    /// Done when the agent has done it: nothing more is read from the link until then.
    fn handle(&mut self, mail: Mail<ToAgent>, _: &mut Context<Self>) -> ResponseFuture<()> {
        let handled = self.agent.send(mail);
        Box::pin(async {
            let _ = handled.await; // an agent that is gone says so itself
        })
    }
}

impl Handler<NotKnown> for Reception {
    type Result = ();

    fn handle(&mut self, not_known: NotKnown, _: &mut Context<Self>) {
        self.agent.do_send(not_known);
    }
}

impl Handler<LinkDown> for Reception {
    type Result = ();

    fn handle(&mut self, down: LinkDown, _: &mut Context<Self>) {
        self.links.remove(&down.link);
        self.reached.send_replace(!self.links.is_empty());
        self.agent.do_send(down);
    }
}

fn owner_of(controller: &Addr<Controller>) -> Owner<ToController, ToAgent> {
    Owner {
        up: controller.clone().recipient(),
        mail: controller.clone().recipient(),
        not_known: controller.clone().recipient(),
        down: controller.clone().recipient(),
    }
}

/// Says what the settings have admitted, where it comes to that: something beyond this machine, and nobody has to prove
/// there who he is.
pub(super) fn warn_if_open(what: &str, address: SocketAddr, is_protected: bool) {
    if !is_protected && settings::loopback_only(address).is_err() {
        tracing::warn!(
            "INSECURE, as the settings want it: {what}, {address}, has no protection, and whoever is or listens between \
             here and there may command the cluster, or be a part of it"
        );
    }
}

/// How one end of every link of this process behaves: with the certificates, if it has any; without, links stay on this
/// machine, unless the settings admit what that means.
pub(super) fn link_settings(
    role: LinkRole,
    name: &str,
    settings: &settings::Settings,
    trust: Option<Arc<Trust>>,
) -> LinkSettings {
    let settings::LinkSettings { heartbeat, greeting_within, reconnect_min, reconnect_max, .. } = settings.link;
    LinkSettings {
        trust,
        insecure: settings.insecure,
        heartbeat,
        greeting_within,
        backoff_min: reconnect_min,
        backoff_max: reconnect_max,
        ..LinkSettings::new(role, name, settings.cluster.clone())
    }
}

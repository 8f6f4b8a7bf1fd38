//! The port for zeek-client: where the framework's clients come in, and news goes out.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture};

use super::news::Teller;
use super::{Management, ManagementSettings};
use crate::controller::Controller;
use crate::message::client::{GetConfigurationRequest, GetDeployedRequest, NewsBatch, Subscribe};
use crate::model::{Configuration, ConfigurationId, RequestId};
use crate::web::broker::{self, Door, Hub};
use crate::web::serve::WebServer;
use crate::web::tls::Tls;

/// What the port needs besides a controller.
#[derive(Clone)]
pub struct Port {
    pub management: ManagementSettings,
    /// What clients may call this machine besides its addresses and `localhost`.
    pub own_hostname: String,
    pub hosts: Vec<String>,
    /// Encrypts it.
    pub tls: Option<Tls>,
}

/// Serves the framework's clients on `listener`, on a thread of its own, until the handle is stopped.
pub fn serve(listener: TcpListener, controller: Addr<Controller>, port: Port) -> io::Result<WebServer> {
    let Port { management, own_hostname, hosts, tls } = port;
    let hub = Hub::new(management.name.clone());
    let host = Arc::new(Management::new(controller, hub.clone(), management));
    broker::serve(listener, Door::new(hub, host, &own_hostname, &hosts), tls)
}

/// Publishes what the controller's log tells, for as long as somebody is there who might want to know.
pub(super) struct Herald {
    controller: Addr<Controller>,
    hub: Hub,
    name: String,
    teller: Teller,
}

impl Herald {
    fn publish(&self, batch: &NewsBatch) {
        if let Some(gap) = &batch.gap {
            self.hub.publish(&Teller::tell_gap(&self.name, gap));
        }
        for event in batch.entries.iter().filter_map(|entry| self.teller.tell(entry)) {
            self.hub.publish(&event);
        }
    }
}

impl Actor for Herald {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // A controller that is gone has no news.
        self.controller.do_send(Subscribe { since: None, to: ctx.address().recipient() });
    }
}

impl Handler<NewsBatch> for Herald {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) -> Self::Result {
        if !batch.entries.iter().any(|entry| self.teller.needs_to_learn(entry)) {
            self.publish(&batch);
            return Box::pin(actix::fut::ready(()));
        }
        let deployed = deployed(self.controller.clone(), self.teller.knows().cloned());
        Box::pin(wrap_future::<_, Self>(deployed).map(move |deployed, me, _| {
            if let Some(deployed) = deployed {
                me.teller.learn(deployed);
            }
            me.publish(&batch);
        }))
    }
}

/// What is deployed, if it is another than that.
async fn deployed(controller: Addr<Controller>, known: Option<ConfigurationId>) -> Option<Configuration> {
    let id = controller.send(GetDeployedRequest).await.ok()?.ok()?.configuration;
    if id == known {
        return None;
    }
    // A short printable text.
    let reqid = RequestId::new("news").expect("a valid id");
    let answer = controller.send(GetConfigurationRequest { reqid, deployed: true }).await.ok()?.ok()?;
    answer.configuration.ok()
}

/// Somebody is there. Dropped with the last client, it ends the herald.
pub(super) struct Presence(Addr<Herald>);

impl Presence {
    /// Begins to tell what happens from now on.
    pub fn begin(controller: Addr<Controller>, hub: Hub, name: String) -> Self {
        Self(Herald { controller, hub, name, teller: Teller::default() }.start())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.do_send(Leave);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Herald {
    type Result = ();

    fn handle(&mut self, Leave: Leave, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

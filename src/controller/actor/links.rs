//! The links to agents: who is there, what they say, what they are told.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle};
use tokio::sync::oneshot;

use super::{Controller, DialInstance};
use crate::bridge::{EndLink, Farewell, LinkDown, LinkId, LinkUp, Mail, NotKnown};
use crate::controller::state::Event;
use crate::message::agent::{RenewCertificateRequest, RenewCertificateResponse, ToAgent, ToController};
use crate::model::InstanceName;
use crate::trust::Certificate;

pub(super) struct Link {
    pub(super) out: Recipient<Mail<ToAgent>>,
    pub(super) end: Recipient<EndLink>,
    /// What the agent showed when the link began.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// The request for its next one that is being decided; another takes its place.
    pub(super) renewal: Option<SpawnHandle>,
}

impl Controller {
    /// Says something on a link, if that is still there.
    pub(in crate::controller) fn say(&self, link: LinkId, message: impl Into<ToAgent>) {
        if let Some(peer) = self.links.get(&link) {
            peer.out.do_send(Mail { link, messages: vec![message.into()] });
        }
    }

    pub(super) fn dial(&self, instance: InstanceName, address: Option<SocketAddr>) {
        match &self.dialler {
            Some(dialler) => dialler.do_send(DialInstance { instance, address }),
            None if address.is_none() => {} // nobody dialled it
            None => tracing::warn!(%instance, "this controller has no bridge to dial instances with"),
        }
    }

    /// Has it decided whether an agent gets its next certificate. None of the cluster's state depends on that.
    fn renew(&mut self, link: LinkId, request: RenewCertificateRequest, ctx: &mut Context<Self>) {
        let RenewCertificateRequest { reqid, request } = request;
        let bearer = self.links.get(&link).and_then(|peer| peer.certificate.clone());
        let registrar = self.registrar.clone();
        let decided = async move {
            match (bearer, registrar) {
                (Some(bearer), Some(registrar)) => registrar.renew(Certificate::clone(&bearer), request).await,
                _ => Err("this link has no certificates".to_owned()),
            }
        };
        let answered = wrap_future::<_, Self>(decided).map(move |certificate, me, _| {
            if let Some(peer) = me.links.get(&link) {
                let answer = RenewCertificateResponse { reqid, certificate };
                peer.out.do_send(Mail { link, messages: vec![answer.into()] });
            }
        });
        let renewal = ctx.spawn(answered);
        if let Some(former) = self.links.get_mut(&link).and_then(|peer| peer.renewal.replace(renewal)) {
            ctx.cancel_future(former);
        }
    }
}

impl Handler<Farewell> for Controller {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Farewell, _: &mut Context<Self>) -> Self::Result {
        let (parting, parted) = oneshot::channel();
        if !self.links.is_empty() {
            self.parting.push(parting);
        }
        for (link, peer) in &self.links {
            peer.end.do_send(EndLink { link: *link, reason: "the controller is stopping".into() });
        }
        Box::pin(async { drop(parted.await) })
    }
}

impl Handler<LinkUp<ToAgent>> for Controller {
    type Result = ();

    fn handle(&mut self, LinkUp { link, peer, out, end }: LinkUp<ToAgent>, ctx: &mut Context<Self>) {
        self.links.insert(link, Link { out, end, certificate: peer.certificate.clone(), renewal: None });
        self.drive(Event::LinkUp(link, peer), ctx);
    }
}

impl Handler<LinkDown> for Controller {
    type Result = ();

    fn handle(&mut self, LinkDown { link, reason }: LinkDown, ctx: &mut Context<Self>) {
        if let Some(renewal) = self.links.remove(&link).and_then(|gone| gone.renewal) {
            ctx.cancel_future(renewal);
        }
        self.lending.forget(link);
        self.drive(Event::LinkDown(link, reason), ctx);
        if self.links.is_empty() {
            self.parting.clear(); // the wait of each ends with its sender
        }
    }
}

impl Handler<NotKnown> for Controller {
    type Result = ();

    fn handle(&mut self, NotKnown { link, kind }: NotKnown, ctx: &mut Context<Self>) {
        if self.links.contains_key(&link) {
            self.drive(Event::NotKnown(link, kind), ctx);
        }
    }
}

impl Handler<Mail<ToController>> for Controller {
    type Result = ();

    fn handle(&mut self, Mail { link, mut messages }: Mail<ToController>, ctx: &mut Context<Self>) {
        if !self.links.contains_key(&link) {
            return;
        }
        let is_renewal = |message: &mut ToController| matches!(message, ToController::RenewCertificateRequest(_));
        for message in messages.extract_if(.., is_renewal).collect::<Vec<_>>() {
            if let ToController::RenewCertificateRequest(request) = message {
                self.renew(link, request, ctx);
            }
        }
        self.drive(Event::Mail(link, messages), ctx);
    }
}

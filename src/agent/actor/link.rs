//! The link to the controller: who is there, what comes, and certificates that are renewed over it.

use actix::{Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::{Agent, Link, RenewCertificate, Renewal};
use crate::agent::state::Event;
use crate::bridge::{EndLink, Farewell, LinkDown, LinkUp, Mail, NotKnown};
use crate::message::agent::{RenewCertificateRequest, RenewCertificateResponse, ToAgent, ToController};
use crate::message::frame::Body;
use crate::model::RequestId;

impl Agent {
    /// Gives a certificate to whoever waits for it.
    fn hand_over(&mut self, RenewCertificateResponse { reqid, certificate }: RenewCertificateResponse) {
        if let Some(renewal) = self.renewal.take_if(|renewal| renewal.reqid == reqid) {
            let _ = renewal.waiting.send(certificate); // whoever asked may have lost patience
        }
    }
}

impl Handler<Farewell> for Agent {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Farewell, _: &mut Context<Self>) -> Self::Result {
        let (parting, parted) = oneshot::channel();
        if let Some(Link { id, end, .. }) = &self.link {
            self.parting.push(parting);
            end.do_send(EndLink { link: *id, reason: "the agent is stopping".into() });
        }
        Box::pin(async { drop(parted.await) })
    }
}

impl Handler<LinkUp<ToController>> for Agent {
    type Result = ();

    fn handle(&mut self, LinkUp { link, out, end, .. }: LinkUp<ToController>, ctx: &mut Context<Self>) {
        let link = Link { id: link, out, end };
        if let Some(Link { id, end, .. }) = self.link.replace(link) {
            end.do_send(EndLink { link: id, reason: "a newer link to the controller took its place".into() });
        }
        self.drive(Event::LinkUp, ctx);
        self.porter.link_up();
    }
}

impl Handler<LinkDown> for Agent {
    type Result = ();

    fn handle(&mut self, LinkDown { link, .. }: LinkDown, ctx: &mut Context<Self>) {
        if self.link.take_if(|present| present.id == link).is_some() {
            self.drive(Event::LinkDown, ctx);
            self.porter.link_down();
            self.renewal = None; // whoever waits hears of it, and asks again
            self.parting.clear(); // the wait of each ends with its sender
        }
    }
}

impl Handler<NotKnown> for Agent {
    type Result = ();

    fn handle(&mut self, NotKnown { link, kind }: NotKnown, ctx: &mut Context<Self>) {
        if self.link.as_ref().is_none_or(|present| present.id != link) {
            return;
        }
        match self.renewal.take_if(|_| kind == RenewCertificateRequest::KIND) {
            Some(renewal) => drop(renewal.waiting.send(Err("the controller is of a release that renews none".into()))),
            None => self.drive(Event::NotKnown(kind), ctx),
        }
    }
}

impl Handler<Mail<ToAgent>> for Agent {
    type Result = ();

    fn handle(&mut self, Mail { link, messages }: Mail<ToAgent>, ctx: &mut Context<Self>) {
        if self.link.as_ref().is_some_and(|present| present.id == link) {
            for message in messages {
                match message {
                    ToAgent::RenewCertificateResponse(response) => self.hand_over(response),
                    ToAgent::ReadBlobsResponse(response) => self.porter.pieces(response),
                    message => {
                        if !matches!(message, ToAgent::AgentRefused(_)) {
                            self.refused = None;
                        }
                        self.drive(Event::Order(message), ctx);
                    }
                }
            }
        }
    }
}

impl Handler<RenewCertificate> for Agent {
    type Result = ResponseFuture<Result<Vec<u8>, String>>;

    fn handle(&mut self, RenewCertificate { request }: RenewCertificate, _: &mut Context<Self>) -> Self::Result {
        let (waiting, told) = oneshot::channel();
        self.renewals += 1;
        match (&self.link, RequestId::new(&format!("renew-{}", self.renewals))) {
            (Some(link), Ok(reqid)) => {
                let messages = vec![RenewCertificateRequest { reqid: reqid.clone(), request }.into()];
                link.out.do_send(Mail { link: link.id, messages });
                self.renewal = Some(Renewal { reqid, waiting });
            }
            (None, _) => drop(waiting.send(Err("there is no link to the controller".into()))),
            (_, Err(error)) => drop(waiting.send(Err(error.to_string()))),
        }
        Box::pin(async { told.await.unwrap_or_else(|_| Err("the link to the controller ended".into())) })
    }
}

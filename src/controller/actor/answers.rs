//! Whoever asks is answered once: by the state, by what was answered before, or because the time is over.

use std::time::{Duration, Instant};

use actix::{AsyncContext, Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::Controller;
use crate::controller::repeats::{AGE, Repeated};
use crate::controller::state::{Event, Ticket};
use crate::message::client::*;

impl Controller {
    /// Somebody waits for an answer under this ticket.
    pub(in crate::controller) fn wait(&mut self) -> (Ticket, oneshot::Receiver<ClientResponse>) {
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, vec![answer]);
        (ticket, answered)
    }

    /// Forgets answers when nobody asks for them again any more.
    fn forget_later(&mut self, ctx: &mut Context<Self>) {
        if !self.repeats.is_empty() && !std::mem::replace(&mut self.forgetting, true) {
            ctx.run_later(AGE, |me, ctx| {
                me.forgetting = false;
                me.repeats.forget(Instant::now());
                me.forget_later(ctx);
            });
        }
    }

    pub(in crate::controller) fn answer(
        &mut self,
        ticket: Ticket,
        mut response: ClientResponse,
        ctx: &mut Context<Self>,
    ) {
        self.repeats.answered(ticket, &mut response, Instant::now());
        self.forget_later(ctx);
        let mut waiting = self.waiting.remove(&ticket).unwrap_or_default();
        let last = waiting.pop();
        for waiting in waiting {
            let _ = waiting.send(response.clone()); // whoever asked may have gone
        }
        if let Some(last) = last {
            let _ = last.send(response); // as above
        }
        self.repeats.let_go();
    }

    fn ask<T>(
        &mut self,
        request: ClientRequest,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<T, Unanswered>>
    where
        T: TryFrom<ClientResponse, Error = Unanswered> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match self.repeats.ask(&request, self.state.ready(), ticket, Instant::now()) {
            Repeated::Done(response) | Repeated::Refused(response) => drop(answer.send(response)),
            Repeated::Runs(first) => {
                ticket = first;
                self.waiting.entry(first).or_default().push(answer);
                self.limit(ticket, within, ctx);
            }
            Repeated::No => {
                self.waiting.insert(ticket, vec![answer]);
                self.put(ticket, request, within, ctx);
            }
        }
        Box::pin(async { answered.await.map_err(|_| Unanswered)?.try_into() })
    }

    /// Puts a request to the state.
    pub(in crate::controller) fn put_now(
        &mut self,
        ticket: Ticket,
        request: ClientRequest,
        within: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        // What it was told by from others is encoded already.
        let event = match (request, self.repeats.configuration(ticket)) {
            (ClientRequest::SetConfigurationRequest(request), Some(encoded)) => {
                Event::Set(ticket, Box::new(request), encoded.clone())
            }
            (request, _) => Event::Ask(ticket, request),
        };
        self.drive(event, ctx);
        self.limit(ticket, within, ctx);
    }

    /// Whoever waits under this ticket is answered within that time.
    fn limit(&mut self, ticket: Ticket, within: Option<Duration>, ctx: &mut Context<Self>) {
        if let Some(within) = within.filter(|_| self.waiting.contains_key(&ticket)) {
            self.drive(Event::Limit(ticket, within), ctx);
        }
    }
}

macro_rules! answer_by_state {
    ($($request:ident),* $(,)?) => {
        $(impl Handler<$request> for Controller {
            type Result = ResponseFuture<<$request as Message>::Result>;

            fn handle(&mut self, request: $request, ctx: &mut Context<Self>) -> Self::Result {
                self.ask(request.into(), None, ctx)
            }
        }

        impl Handler<Within<$request>> for Controller {
            type Result = ResponseFuture<<$request as Message>::Result>;

            fn handle(&mut self, asked: Within<$request>, ctx: &mut Context<Self>) -> Self::Result {
                self.ask(asked.request.into(), Some(asked.within), ctx)
            }
        })*
    };
}

answer_by_state!(
    GetInstancesRequest,
    StageConfigurationRequest,
    DeployRequest,
    SetConfigurationRequest,
    GetConfigurationRequest,
    GetDeployedRequest,
    GetNodesRequest,
    StartRequest,
    StopRequest,
    RestartRequest,
    GetIdValueRequest,
    GetOutputRequest,
    ReadOutputRequest,
    GetCrashesRequest,
    PlanRequest,
    TestTimeoutRequest,
);

impl Handler<GetStatusRequest> for Controller {
    type Result = Result<GetStatusResponse, Unanswered>;

    fn handle(&mut self, _: GetStatusRequest, _: &mut Context<Self>) -> Self::Result {
        Ok(self.state.status(self.log.cursor()))
    }
}

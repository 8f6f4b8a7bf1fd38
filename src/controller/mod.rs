//! The controller: knows what should be, hears what is, and tells whoever listens.

pub mod store;

use actix::{Actor, Context, Handler, ResponseFuture};

use crate::message::client::*;

/// The controller's actor.
pub struct Controller {}

impl Actor for Controller {
    type Context = Context<Self>;
}

impl Controller {
    fn ask<T: TryFrom<ClientResponse, Error = Unanswered> + 'static>(
        &mut self,
        _request: ClientRequest,
    ) -> ResponseFuture<Result<T, Unanswered>> {
        Box::pin(async { Err(Unanswered) })
    }
}

macro_rules! answer {
    ($($request:ident),*) => {
        $(impl Handler<$request> for Controller {
            type Result = ResponseFuture<<$request as actix::Message>::Result>;
            fn handle(&mut self, request: $request, _: &mut Context<Self>) -> Self::Result {
                self.ask(request.into())
            }
        })*
    };
}

answer!(
    GetInstancesRequest,
    StageConfigurationRequest,
    DeployRequest,
    SetConfigurationRequest,
    GetConfigurationRequest,
    GetStatusRequest,
    GetNodesRequest,
    StartRequest,
    StopRequest,
    RestartRequest,
    GetOutputRequest,
    TestTimeoutRequest
);

impl Handler<Subscribe> for Controller {
    type Result = Result<Subscribed, Unanswered>;
    fn handle(&mut self, _: Subscribe, _: &mut Context<Self>) -> Self::Result {
        Err(Unanswered)
    }
}

//! What must survive is durable before anybody is answered.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context};

use super::Controller;
use crate::controller::state::{Event, Ticket};
use crate::controller::store::{Save, StoreError};
use crate::message::client::*;
use crate::model::Outcome;

impl Controller {
    /// Makes changes durable, then answers. What could not be kept is a failure, whatever the answer was to be.
    ///
    /// A deployment brings much news at once: it is packed once whoever waits has been answered, and before the store gives
    /// back what is free.
    pub(super) fn save(&mut self, changes: Vec<Save>, then: Option<(Ticket, ClientResponse)>, ctx: &mut Context<Self>) {
        let saved = self.store.save(changes);
        ctx.spawn(wrap_future::<_, Self>(saved).map(move |saved, me, ctx| {
            let error = saved.unwrap_or(Err(StoreError::Stopped)).err();
            if let Some(error) = &error {
                tracing::error!("cannot keep a configuration: {error}");
            }
            if let Some((ticket, response)) = then {
                let answer = match error {
                    None => response,
                    Some(error) => unkept(response, &error),
                };
                me.answer(ticket, answer, ctx);
            }
            me.log.pack();
        }));
    }

    /// Makes changes durable, and tells the state.
    pub(super) fn journal(&mut self, number: u64, changes: Vec<Save>, ctx: &mut Context<Self>) {
        let saved = self.store.save(changes);
        ctx.spawn(wrap_future::<_, Self>(saved).map(move |saved, me, ctx| {
            let saved = saved.unwrap_or(Err(StoreError::Stopped)).map_err(|error| {
                tracing::error!("cannot keep a deployment: {error}");
                error.to_string()
            });
            me.drive(Event::Journaled(number, saved), ctx);
            me.log.pack();
        }));
    }
}

/// What a deployment or a staging comes to that could not be kept on disk.
fn unkept(mut response: ClientResponse, error: &StoreError) -> ClientResponse {
    use ClientResponse as R;
    if let R::StageConfigurationResponse(StageConfigurationResponse { configuration, outcomes, .. })
    | R::DeployResponse(DeployResponse { configuration, outcomes, .. })
    | R::SetConfigurationResponse(SetConfigurationResponse { configuration, outcomes, .. }) = &mut response
    {
        *configuration = None;
        outcomes.push(Outcome::failed(format!("the configuration cannot be kept: {error}")));
    }
    response
}

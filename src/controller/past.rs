//! What the journal knows of deployments: looked up on the store's own thread, since there may be much of it.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::actor::Controller;
use super::kept::Kept;
use super::state::Event;
use super::store::{Store, StoreError};
use crate::message::client::*;
use crate::model::{Record, Verdict};

/// What came of looking something up.
type Found<T> = Result<Result<T, StoreError>, oneshot::error::RecvError>;

/// What was found, or why it was not, in words.
fn found<T>(found: Found<T>) -> Result<T, String> {
    found.unwrap_or(Err(StoreError::Stopped)).map_err(|error| error.to_string())
}

impl Handler<GetHistoryRequest> for Controller {
    type Result = ResponseFuture<Result<GetHistoryResponse, Unanswered>>;

    fn handle(&mut self, _: GetHistoryRequest, _: &mut Context<Self>) -> Self::Result {
        let read = self.store().read(|store| store.history());
        Box::pin(async { Ok(GetHistoryResponse { deployments: found(read.await) }) })
    }
}

impl Handler<GetTriedRequest> for Controller {
    type Result = ResponseFuture<Result<GetTriedResponse, Unanswered>>;

    fn handle(&mut self, GetTriedRequest { number }: GetTriedRequest, _: &mut Context<Self>) -> Self::Result {
        let read = self.store().read(move |store| Ok(store.tried(number)?.as_ref().map(Kept::open)));
        Box::pin(async { Ok(GetTriedResponse { configuration: found(read.await) }) })
    }
}

impl Handler<RollbackRequest> for Controller {
    type Result = ResponseFuture<Result<DeployResponse, Unanswered>>;

    fn handle(&mut self, request: RollbackRequest, ctx: &mut Context<Self>) -> Self::Result {
        let (ticket, answered) = self.wait();
        let to = request.to;
        let read = self.store().read(move |store| look_back(store, to));
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let (number, kept) = match found(read).and_then(|found| found) {
                Ok(found) => found,
                Err(error) => return me.drive(Event::Rollback(ticket, request, Err(error)), ctx),
            };
            let looked = me.look_again(kept.clone());
            ctx.spawn(wrap_future::<_, Self>(looked).map(move |complaints, me, ctx| {
                let found = if complaints.is_empty() { Ok((number, kept)) } else { Err(complaints.join("; ")) };
                me.drive(Event::Rollback(ticket, request, found), ctx);
            }));
        }));
        Box::pin(async { answered.await.map_err(|_| Unanswered)?.try_into() })
    }
}

/// The deployment to go back to, and what it deployed; or why there is none.
fn look_back(store: &dyn Store, to: Option<u64>) -> Result<Result<(u64, Kept), String>, StoreError> {
    let history = store.history()?;
    let number = match to {
        Some(number) if history.iter().any(|record| record.number == number) => number,
        Some(number) => return Ok(Err(format!("there is no deployment {number}: see `watchpost history`"))),
        None => match one_before(&history) {
            Some(number) => number,
            None => return Ok(Err("nothing else was in force before, as far as it is remembered".into())),
        },
    };
    let gone = || format!("what deployment {number} deployed is not kept any more: deploy its file again");
    Ok(store.tried(number)?.map(|kept| (number, kept)).ok_or_else(gone))
}

/// The last deployment that put something else in force than what is in force now.
fn one_before(history: &[Record]) -> Option<u64> {
    let mut decided = history.iter().rev().filter(|record| record.verdict == Verdict::New);
    let present = decided.next()?;
    decided.find(|record| record.configuration != present.configuration).map(|record| record.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::store::{MemoryStore, Save};
    use crate::model::{Author, Configuration, ConfigurationId, RequestId, Timestamp};

    fn deployment(number: u64, id: &str, verdict: Verdict) -> Save {
        let configuration = ConfigurationId::new(id).unwrap();
        let record = Record {
            number,
            reqid: RequestId::new("r").unwrap(),
            author: Author::default(),
            configuration: configuration.clone(),
            former: None,
            back_to: None,
            began: Timestamp(0),
            ended: None,
            verdict,
            up: Default::default(),
            at_once: false,
            patience: Default::default(),
            rests: Default::default(),
            moves: Default::default(),
            owing: Default::default(),
            results: Vec::new(),
            left_out: 0,
            left_out_of: Default::default(),
        };
        Save::Deployment(Box::new(record), Some(Kept::new(&Configuration::empty(configuration))))
    }

    #[test]
    fn without_a_number_it_is_the_last_that_was_in_force_and_is_another() {
        use Verdict::{New, Old, Refused};
        let mut store = MemoryStore::default();
        let back =
            |store: &MemoryStore, to| look_back(store, to).unwrap().map(|(number, kept)| (number, kept.id.to_string()));
        assert!(back(&store, None).unwrap_err().starts_with("nothing else was in force before"));
        let all = [(1, "a", New), (2, "b", New), (3, "c", Old), (4, "d", Refused), (5, "b", New)];
        store.save(&all.map(|(number, id, verdict)| deployment(number, id, verdict))).unwrap();
        assert_eq!(back(&store, None), Ok((1, "a".into())));
        assert_eq!(back(&store, Some(3)), Ok((3, "c".into())), "whoever names it means it");
        assert_eq!(back(&store, Some(9)), Err("there is no deployment 9: see `watchpost history`".into()));
        (6..40).for_each(|number| store.save(&[deployment(number, "e", New)]).unwrap());
        assert!(back(&store, None).unwrap_err().starts_with("what deployment 5 deployed is not kept any more"));
    }
}

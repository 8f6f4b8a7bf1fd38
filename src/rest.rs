//! Memory is given back when an actor that had much to do has come to rest.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context};

use crate::supervisor::process::memory;

/// So many pieces of work leave behind what is worth looking for.
const MUCH: usize = 256;
/// Rest is when less than that was done for so long: by then links have let go of their buffers, too.
const QUIET: Duration = Duration::from_secs(3);

/// Gives back what only the start of a daemon needed, some seconds after it.
pub async fn after_start() {
    tokio::time::sleep(QUIET).await;
    memory::give_back_aside();
}

/// Counts what an actor does.
#[derive(Default)]
pub struct Rest {
    /// Pieces of work since the last rest.
    pieces: usize,
    /// Somebody looks whether it has come to an end.
    watched: bool,
}

impl Rest {
    /// So much was done. `of` finds this again in its actor.
    pub fn later<A>(&mut self, pieces: usize, ctx: &mut Context<A>, of: fn(&mut A) -> &mut Self)
    where
        A: Actor<Context = Context<A>>,
    {
        self.pieces += pieces;
        if self.pieces >= MUCH && !std::mem::replace(&mut self.watched, true) {
            watch(self.pieces, ctx, of);
        }
    }

    /// Whether there is rest now, if `before` pieces were done at the last look.
    fn has_come(&mut self, before: usize) -> bool {
        let rests = self.pieces - before < MUCH;
        if rests {
            *self = Self::default();
        }
        rests
    }
}

fn watch<A>(before: usize, ctx: &mut Context<A>, of: fn(&mut A) -> &mut Rest)
where
    A: Actor<Context = Context<A>>,
{
    ctx.run_later(QUIET, move |me, ctx| {
        let rest = of(me);
        match rest.has_come(before) {
            true => memory::give_back_aside(),
            false => watch(rest.pieces, ctx, of),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_rest_while_much_is_done_and_a_little_does_not_disturb_it() {
        let mut rest = Rest { pieces: 3 * MUCH, watched: true };
        assert!(!rest.has_come(2 * MUCH));
        rest.pieces += MUCH - 1;
        assert!(rest.has_come(3 * MUCH));
        assert_eq!((rest.pieces, rest.watched), (0, false), "and the next burst counts from there");
    }

    #[actix_rt::test]
    async fn only_much_work_is_looked_after() {
        let worker = Worker::default().start();
        assert!(!worker.send(Work(MUCH - 1)).await.unwrap());
        assert!(worker.send(Work(1)).await.unwrap());
    }

    #[derive(Default)]
    struct Worker(Rest);

    impl Actor for Worker {
        type Context = Context<Self>;
    }

    #[derive(actix::Message)]
    #[rtype(result = "bool")]
    struct Work(usize);

    impl actix::Handler<Work> for Worker {
        type Result = bool;

        fn handle(&mut self, Work(pieces): Work, ctx: &mut Context<Self>) -> bool {
            self.0.later(pieces, ctx, |me| &mut me.0);
            self.0.watched
        }
    }
}

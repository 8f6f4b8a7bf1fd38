//! The one timer of an actor whose state has many deadlines: it rings at the first of them.

use std::time::Instant;

use actix::{Actor, AsyncContext, Context, SpawnHandle};

/// Set to a moment, or not set.
#[derive(Default)]
pub struct Alarm {
    set: Option<(Instant, SpawnHandle)>,
}

impl Alarm {
    /// Rings at `next`, and no longer at whatever it was set to before. `ring` begins with [`Alarm::rang`].
    pub fn set<A>(&mut self, next: Option<Instant>, ctx: &mut Context<A>, ring: fn(&mut A, &mut Context<A>))
    where
        A: Actor<Context = Context<A>>,
    {
        if self.set.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        if let Some((_, handle)) = self.set.take() {
            ctx.cancel_future(handle);
        }
        self.set = next.map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            (at, ctx.run_later(wait, ring))
        });
    }

    /// It has rung, and is not set any more.
    pub fn rang(&mut self) {
        self.set = None;
    }
}

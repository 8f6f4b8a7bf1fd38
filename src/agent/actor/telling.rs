//! What is told before anything is launched.
//!
//! Reports and launches that arrive together are held until the mailbox is empty; then the news is mailed in one piece,
//! and only then do the hands get to work. If somebody else has died by then, that is told first, too.

use std::time::Instant;

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message};
use tokio::task::yield_now;

use super::Agent;
use crate::agent::turn::pass_on;
use crate::bridge::Mail;

/// So often the turn is passed on until a link has written what was mailed to it, and until an observer beside it has heard.
const WRITING: u8 = 2;
/// For how many turns launches are held at most because ever more is to be told: some milliseconds.
const HOLD: u8 = 50;

/// Mail what there is to say, then let the hands launch.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for Agent {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Context<Self>) {
        self.flush(ctx);
    }
}

impl Agent {
    /// Flushes once the mail that is already there has been handled.
    pub(super) fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.flushing, true) {
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        let now = self.now.take().map_or_else(Instant::now, |now| now.mono);
        self.flushing = false;
        self.spool.keep(self.state.outbox(), now);
        let mut told = false;
        // All of it is in the bridge's mailbox before the bridge gets to work, and so leaves in one piece.
        while let Some(messages) = self.state.outgoing() {
            told = true;
            if let Some(link) = &self.link {
                link.out.do_send(Mail { link: link.id, messages });
            }
        }
        let nothing_held = self.held.is_empty();
        // Only what the next run of the agent knows to be told.
        for wait in std::mem::take(&mut self.waits) {
            let reason = self.state.reason(&wait.node);
            self.workshop.note_wait(wait, reason.to_string());
        }
        if told || nothing_held {
            self.unwritten = if told { WRITING } else { 0 };
        }
        self.held.extend(std::mem::take(&mut self.launches));
        if nothing_held && !self.held.is_empty() {
            self.turns = 0;
            self.hand_out(ctx);
        }
    }

    /// Lets the hands launch once everything is told and written that there is to tell. The link writes when it is
    /// polled next: it may, before threads start to compete for the processor. Who waits for that alone passes the turn on
    /// to those that are in line; whether somebody else has died is seen only when the event loop comes round.
    fn hand_out(&mut self, ctx: &mut Context<Self>) {
        let is_told = self.unwritten == 0 && !self.flushing && !self.workshop.has_untold_ends();
        if is_told || self.turns == HOLD {
            return std::mem::take(&mut self.held).into_iter().for_each(|launch| self.workshop.launch(launch));
        }
        let is_written = self.unwritten == 0;
        (self.turns, self.unwritten) = (self.turns + 1, self.unwritten.saturating_sub(1));
        let turn = async move { if is_written { yield_now().await } else { pass_on().await } };
        ctx.spawn(wrap_future::<_, Self>(turn).map(|(), me, ctx| me.hand_out(ctx)));
    }
}

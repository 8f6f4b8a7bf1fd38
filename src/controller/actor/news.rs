//! What happened goes to the log, and from there to whoever listens.

use std::time::Duration;

use actix::fut::wrap_future;
use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, StreamHandler};

use super::Controller;
use crate::controller::log::Journal;
use crate::controller::log::recent::Resumed;
use crate::controller::log::thread::Report;
use crate::controller::observers::{Next, ObserverId};
use crate::controller::state::Event;
use crate::message::client::*;

/// After so long news has mostly reached those who listen, and an agent beside us has its nodes launched.
const TELLING: Duration = Duration::from_millis(1);
/// How long an entry of the log is likely to be asked for.
const NEW_FOR: Duration = Duration::from_secs(1);

impl Controller {
    /// Hands what is to be kept to its thread once those who listen had their turn: to wake a thread takes longer than to
    /// tell them. Until then this one sleeps, and leaves the processor to them.
    pub(super) fn hand_over_soon(&mut self, ctx: &mut Context<Self>) {
        if self.journal.as_ref().is_some_and(Journal::has_gathered) && !std::mem::replace(&mut self.hands_over, true) {
            ctx.run_later(TELLING, |me, ctx| {
                me.hands_over = false;
                me.journal.iter_mut().for_each(Journal::hand_over);
                me.mind_how_much_waits(ctx);
            });
        }
    }

    /// Agents wait while too much waits for the disk.
    fn mind_how_much_waits(&mut self, ctx: &mut Context<Self>) {
        let is_full = self.journal.as_ref().is_some_and(Journal::is_full);
        if std::mem::replace(&mut self.is_full, is_full) != is_full {
            self.drive(Event::Full(is_full), ctx);
        }
    }

    fn hear_of_the_log(&mut self, report: Report, ctx: &mut Context<Self>) {
        self.journal.iter_mut().for_each(|journal| journal.heard(&report));
        match report {
            Report::Kept { last, arrived, .. } => {
                self.log.is_durable(last);
                if !arrived.is_empty() {
                    self.drive(Event::Kept(arrived), ctx);
                }
                self.mind_how_much_waits(ctx);
            }
            Report::Dropped { last, .. } => {
                // What waits before it goes from memory, too: all of it together would be too much.
                self.log.is_durable(last);
                self.mind_how_much_waits(ctx);
            }
            Report::Failed(why) => {
                tracing::error!("the log cannot be written: {why}");
                self.drive(Event::LogFailed(why), ctx);
            }
            Report::Works { dropped } => {
                tracing::info!(dropped, "the log is written again");
                self.drive(Event::LogWorks { dropped }, ctx);
            }
            Report::Gone { first, last } => {
                tracing::error!("entries {first} to {last} of the log are gone: somebody removed or moved their files");
                self.drive(Event::LogGone(first, last), ctx);
            }
        }
    }

    /// Where nobody looks on, nothing is made up for it.
    pub(super) fn show_connected(&mut self) {
        let (shown, revision) = &mut self.connected;
        let now = self.state.roster_revision();
        if *revision != now && shown.receiver_count() > 0 {
            *revision = now;
            shown.send_replace(self.state.connected().into());
        }
    }

    /// Has the log packed when what is new now is old. A burst costs nothing while it lasts.
    pub(super) fn pack_later(&mut self, ctx: &mut Context<Self>) {
        if self.log.can_pack() && !std::mem::replace(&mut self.packing, true) {
            ctx.run_later(NEW_FOR, |me, _| {
                me.packing = false;
                me.log.pack();
            });
        }
    }

    /// Sends what is new to every observer that is ready for it.
    pub(super) fn publish(&mut self, ctx: &mut Context<Self>) {
        for (id, next) in self.observers.next(&self.log) {
            self.serve(id, next, ctx);
        }
    }

    fn serve(&mut self, id: ObserverId, next: Next, ctx: &mut Context<Self>) {
        match next {
            Next::Batch(to, batch) => {
                let handled = wrap_future::<_, Self>(to.send(batch)).map(move |handled, me, ctx| {
                    me.observers.handled(id, handled.is_ok());
                    me.publish(ctx);
                });
                ctx.spawn(handled);
            }
            Next::Read(since) => {
                let Some(journal) = &self.journal else { return };
                let read = wrap_future::<_, Self>(journal.read(since)).map(move |read, me, ctx| {
                    match me.observers.was_read(id, read.ok(), &me.log) {
                        Some(next) => me.serve(id, next, ctx),
                        None => me.observers.handled(id, true),
                    }
                });
                ctx.spawn(read);
            }
        }
    }
}

impl StreamHandler<Report> for Controller {
    fn handle(&mut self, report: Report, ctx: &mut Context<Self>) {
        self.hear_of_the_log(report, ctx);
    }

    /// Only a panic ends the thread before the controller, and then nothing would ever be kept again.
    fn finished(&mut self, ctx: &mut Context<Self>) {
        tracing::error!("the thread that writes the log is gone, and the controller ends with it");
        ctx.stop();
    }
}

impl Handler<WatchConnected> for Controller {
    type Result = MessageResult<WatchConnected>;

    fn handle(&mut self, _: WatchConnected, _: &mut Context<Self>) -> Self::Result {
        let mut looks_on = self.connected.0.subscribe();
        self.show_connected();
        looks_on.mark_unchanged();
        MessageResult(looks_on)
    }
}

impl Handler<Subscribe> for Controller {
    type Result = Result<Subscribed, Unanswered>;

    /// The snapshot and the first news behind it are decided in one turn, so nothing falls between them.
    fn handle(&mut self, Subscribe { since, to }: Subscribe, ctx: &mut Context<Self>) -> Self::Result {
        let resumed = since.map_or(Resumed::Unknown, |since| self.log.resume(since));
        let cursor = match (resumed, since) {
            (Resumed::There, Some(since)) => since,
            (Resumed::Back(end), _) => end,
            _ => self.log.cursor(),
        };
        let snapshot = (resumed == Resumed::Unknown).then(|| self.state.status(cursor));
        self.observers.join(cursor.number, to);
        self.publish(ctx);
        Ok(Subscribed { cursor, snapshot })
    }
}

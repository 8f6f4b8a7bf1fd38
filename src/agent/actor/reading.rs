//! What is asked about nodes, and answered by threads that read or by the nodes themselves.

use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AsyncContext, Context};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::Agent;
use crate::agent::state::Inquiry;
use crate::message::agent::{GetCrashesRequest, GetOutputRequest, NodeAnswer, ReadOutputRequest};
use crate::model::Output;
use crate::supervisor::channel::Question;

/// How long nodes have to answer: less than the controller waits for their agent.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Agent {
    pub(super) fn read_output(&mut self, request: GetOutputRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let (node, lines) = (request.node.clone(), request.lines as usize);
        self.workshop.last_lines(node, lines, move |read| {
            let _ = done.send(read); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let read = match read {
                Ok(Ok(output)) => Ok(output),
                Ok(Err(error)) => Err(format!("cannot read its output: {error}")),
                Err(_) => Err("its output was not read: the agent is stopping".into()),
            };
            me.answer_output(&request, read, ctx);
        }));
    }

    pub(super) fn read_piece(&mut self, request: ReadOutputRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let reqid = request.reqid.clone();
        self.workshop.read_piece(request, move |piece| {
            let _ = done.send(piece); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let piece = match read {
                Ok(Ok(piece)) => Ok(piece),
                Ok(Err(error)) => Err(format!("cannot read its output: {error}")),
                Err(_) => Err("its output was not read: too many wait for it, or the agent is stopping".into()),
            };
            me.state.answer_piece(reqid, piece);
            me.flush_soon(ctx);
        }));
    }

    pub(super) fn read_crashes(&mut self, request: GetCrashesRequest, ctx: &mut Context<Self>) {
        let (done, read) = oneshot::channel();
        let reqid = request.reqid.clone();
        self.workshop.read_crashes(request, move |filed| {
            let _ = done.send(filed); // the agent may have ended
        });
        ctx.spawn(wrap_future::<_, Self>(read).map(move |read, me, ctx| {
            let (crashes, dossier) = match read {
                Ok(Ok(filed)) => (Ok(filed.crashes), filed.dossier),
                Ok(Err(error)) => (Err(format!("cannot read what is filed of nodes that died: {error}")), None),
                Err(_) => (Err("its agent is stopping".into()), None),
            };
            me.state.answer_crashes(reqid, crashes, dossier);
            me.flush_soon(ctx);
        }));
    }

    /// Asks all of them at once: the slowest, or the end of our patience, makes the time that it takes.
    pub(super) fn inquire(&mut self, Inquiry { reqid, question, asked, known }: Inquiry, ctx: &mut Context<Self>) {
        let until = Instant::now() + ANSWER_WITHIN;
        let answers: Vec<_> = asked
            .into_iter()
            .map(|(ward, node)| {
                let (done, answer) = oneshot::channel();
                let tell = Box::new(move |answer| {
                    let _ = done.send(answer); // the agent may have ended
                });
                let late = "request timed out".to_owned();
                self.workshop.inquire(ward, Question { text: question.clone(), until, late, tell });
                async move {
                    let value = answer.await.unwrap_or_else(|_| Err("its agent is stopping".into()));
                    NodeAnswer { node, value }
                }
            })
            .collect();
        ctx.spawn(wrap_future::<_, Self>(join_all(answers)).map(move |said, me, ctx| {
            me.state.answer_inquiry(reqid, known.into_iter().chain(said).collect());
            me.flush_soon(ctx);
        }));
    }

    pub(super) fn answer_output(
        &mut self,
        request: &GetOutputRequest,
        read: Result<Output, String>,
        ctx: &mut Context<Self>,
    ) {
        self.state.answer_output(request, read);
        self.flush_soon(ctx);
    }
}

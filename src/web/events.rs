//! `GET /api/v1/events`: the controller's log as a stream that can be resumed.
//!
//! Each stream is an observer of its own. A batch counts as handled once the client's connection has room for it, and
//! only then the controller sends the next: a slow client holds back itself alone, and costs two batches of memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::info;

use super::desk::Desk;
use super::facts::Facts;
use super::feed::{Feed, Form, Text};
use super::json::Event;
use super::pass::Pass;
use super::problem::Problem;
use super::serve::Closing;
use crate::message::client::{Cursor, GetStatusRequest, NewsBatch, Subscribe, Subscribed};

/// How long a stream may be silent before a line that means nothing shows that it still stands.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a reader may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The `seq` of the last event already seen. `Last-Event-ID` wins: a browser that reconnects sends both.
    since: Option<String>,
    /// Instead of `since`: the latest events, at most this many.
    last: Option<u64>,
    /// Stay for what is to come (the default), or end with the event that is the latest now.
    follow: Option<bool>,
    /// Whether to begin with how everything is where `since` was not given or is no longer kept; true by default.
    snapshot: Option<bool>,
}

/// Starts a stream of events.
pub async fn events(
    desk: web::Data<Desk>,
    facts: web::Data<Facts>,
    pass: web::ReqData<Pass>,
    feed: web::Data<Feed>,
    closing: web::Data<Closing>,
    request: HttpRequest,
    wish: web::Query<Wish>,
) -> Result<HttpResponse, Problem> {
    let form = form_of(&request);
    let mut since = since_of(&request, &wish)?;
    let follow = wish.follow.unwrap_or(true);
    let with_snapshot = wish.snapshot.unwrap_or(true);
    let mut end = None;
    if !follow || (since.is_none() && wish.last.is_some()) {
        let now = desk.ask(GetStatusRequest).await?.cursor;
        end = (!follow).then_some(now);
        since = since.or(wish.last.map(|last| Cursor { number: now.number.saturating_sub(last), ..now }));
    }

    let (mut batches, Subscribed { mut cursor, snapshot }) = subscribe(&desk, since).await?;
    let first = match (snapshot, since) {
        (Some(snapshot), _) if with_snapshot => Some(Event::snapshot(facts.status(snapshot))),
        (Some(_), Some(since)) if since.epoch == cursor.epoch => Some(Event::beyond(since, cursor)),
        // A place in another log: all of this one follows.
        (Some(_), Some(since)) => {
            let beginning = Cursor { number: 0, ..cursor };
            (batches, Subscribed { cursor, .. }) = subscribe(&desk, Some(beginning)).await?;
            Some(Event::anew(since, cursor))
        }
        (None, Some(since)) if since != cursor => Some(Event::back(since, cursor)),
        _ => None,
    };
    let closing = closing.get_ref().clone();
    let pass = pass.into_inner();
    let ended = Box::pin(async move {
        pass.ended().await;
        info!("a stream of {} ends: it counts no more", pass.who);
    });
    let mut stream = Stream { feed, form, ready: VecDeque::new(), batches, end, closing, ended, done: false };
    first.iter().for_each(|first| stream.tell(first));
    stream.reach(cursor);

    let body = futures_util::stream::unfold(stream, |mut stream| async {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    Ok(HttpResponse::Ok().content_type(form.content_type()).streaming(body))
}

/// Listens from there on, or from now on.
async fn subscribe(desk: &Desk, since: Option<Cursor>) -> Result<(mpsc::Receiver<NewsBatch>, Subscribed), Problem> {
    let (out, batches) = mpsc::channel(1);
    let to = Reader { out }.start().recipient();
    Ok((batches, desk.ask(Subscribe { since, to }).await?))
}

pub(super) fn form_of(request: &HttpRequest) -> Form {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/x-ndjson") { Form::Ndjson } else { Form::Sse }
}

fn since_of(request: &HttpRequest, wish: &Wish) -> Result<Option<Cursor>, Problem> {
    let resumed = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    // A browser that has seen nothing yet may say so by an empty header.
    let text = resumed.filter(|text| !text.is_empty()).or(wish.since.as_deref());
    Ok(text.map(str::parse).transpose()?)
}

/// The observer behind one stream: news comes in as batches and waits until the client has room.
struct Reader {
    out: mpsc::Sender<NewsBatch>,
}

impl Actor for Reader {
    type Context = Context<Self>;

    /// Ends the observer with its stream, so that the controller forgets a client that is gone.
    fn started(&mut self, ctx: &mut Context<Self>) {
        let out = self.out.clone();
        ctx.spawn(async move { out.closed().await }.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<NewsBatch> for Reader {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, batch: NewsBatch, _: &mut Context<Self>) -> Self::Result {
        let out = self.out.clone();
        Box::pin(async move {
            // An error means that the client is gone, and then this actor is about to end.
            let _ = out.send(batch).await;
        })
    }
}

/// The body of the answer, made as the connection asks for it.
struct Stream {
    feed: web::Data<Feed>,
    form: Form,
    ready: VecDeque<Bytes>,
    batches: mpsc::Receiver<NewsBatch>,
    /// The last event of a stream that does not follow.
    end: Option<Cursor>,
    closing: Closing,
    /// Whoever asked for it may do so no more.
    ended: Pin<Box<dyn Future<Output = ()>>>,
    done: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.done {
                return None;
            }
            let batch = tokio::select! {
                batch = self.batches.recv() => batch?,
                _ = self.closing.wait_for(|closing| *closing) => return None,
                () = &mut self.ended => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(self.form.keep_alive()),
            };
            self.take(batch);
        }
    }

    fn take(&mut self, batch: NewsBatch) {
        if let Some(gap) = &batch.gap {
            self.tell(&Event::gap(gap));
            self.reach(gap.last);
        }
        for entry in &batch.entries {
            if self.done {
                return;
            }
            self.ready.push_back(self.feed.text(entry).in_form(self.form));
            self.reach(entry.cursor);
        }
    }

    /// Says something to this reader alone.
    fn tell(&mut self, event: &Event) {
        self.ready.push_back(Text::of(event).in_form(self.form));
    }

    /// Notes how far the stream has come. Numbers count on from one epoch to the next.
    fn reach(&mut self, cursor: Cursor) {
        self.done |= self.end.is_some_and(|end| cursor.number >= end.number);
    }
}

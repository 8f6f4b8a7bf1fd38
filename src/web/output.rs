//! `GET /api/v1/nodes/{name}/output/stream`: what a node wrote, and writes, as a stream that can be resumed.
//!
//! The next piece is asked for once the client's connection has room for the last: a slow client holds back itself alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::desk::{Desk, new_reqid};
use super::events::{KEEP_ALIVE, form_of};
use super::feed::Form;
use super::json::OutputText;
use super::pass::Pass;
use super::problem::Problem;
use super::serve::Closing;
use crate::message::client::{ReadOutputRequest, Unread};
use crate::model::{NodeName, OutputFrom, OutputPiece, OutputPlace, OutputStream};

/// How many lines of each stream come first, unless told otherwise.
const LINES: u32 = 100;
/// How many bytes are asked for at once; as JSON a control character is six.
const PIECE: u32 = 64 << 10;
/// How long an agent waits for more before it says that there is none.
const WAIT: Duration = Duration::from_secs(10);
/// After an agent that cannot be reached, or cannot read, before the next question.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reader may ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// `stdout` or `stderr` alone.
    stream: Option<String>,
    /// How many of the last lines of each come first.
    lines: Option<u32>,
    /// Instead: go on behind this, which is the `since` of the last piece. `Last-Event-ID` wins.
    since: Option<String>,
    /// Stay for what is to come; false by default.
    follow: Option<bool>,
}

/// How far a reader has come in both streams: `PLACE,PLACE`, where a place that is not known yet is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Since([Option<OutputPlace>; 2]);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stdout, stderr] = self.0.map(|place| place.map(|place| place.to_string()).unwrap_or_default());
        write!(f, "{stdout},{stderr}")
    }
}

impl FromStr for Since {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::Malformed(format!("`{}` is no place in the output of a node", text.escape_default()));
        let place = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| wrong()),
        };
        let (stdout, stderr) = text.split_once(',').ok_or_else(wrong)?;
        Ok(Self([place(stdout)?, place(stderr)?]))
    }
}

/// Starts a stream of output.
pub async fn stream(
    desk: web::Data<Desk>,
    pass: web::ReqData<Pass>,
    closing: web::Data<Closing>,
    request: HttpRequest,
    name: web::Path<String>,
    wish: web::Query<Wish>,
) -> Result<HttpResponse, Problem> {
    let node = NodeName::new(&name)?;
    let only = wish.stream.as_deref().map(OutputStream::from_str).transpose();
    let only = only.map_err(|error| Problem::Malformed(format!("`stream` does not fit: {error}")))?;
    let resumed = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let since = resumed.filter(|text| !text.is_empty()).or(wish.since.as_deref());
    let since: Since = since.map(str::parse).transpose()?.unwrap_or_default();
    let (follow, form) = (wish.follow.unwrap_or(false), form_of(&request));
    let lines = wish.lines.unwrap_or(LINES);
    let mut readers = VecDeque::new();
    for stream in OutputStream::ALL.into_iter().filter(|stream| only.is_none_or(|only| only == *stream)) {
        let from = since.0[stream as usize].map_or(OutputFrom::Last(lines), OutputFrom::Place);
        let mut reader = Reader { desk: desk.clone(), node: node.clone(), stream, from, follow, until: None };
        // What is wrong is said by the answer's code, and not in the stream.
        let first = reader.ask(reader.from, Duration::ZERO).await?;
        let first = match first {
            Ok(piece) => {
                if !follow && !piece.at_end {
                    reader.until = reader.end_now().await?;
                }
                Some(reader.take(piece))
            }
            Err(Unread::OutOfReach(_)) if follow && since != Since::default() => None,
            Err(error) => return Err(Problem::Absent(format!("cannot show the output of `{node}`: {error}"))),
        };
        readers.push_back((reader, first));
    }
    let (out, pieces) = mpsc::channel(1);
    match follow {
        true => readers.into_iter().for_each(|reader| drop(actix_web::rt::spawn(pump([reader].into(), out.clone())))),
        false => drop(actix_web::rt::spawn(pump(readers, out))),
    }
    let pass = pass.into_inner();
    let stream = Stream {
        node,
        form,
        since,
        pieces,
        closing: closing.get_ref().clone(),
        ended: Box::pin(async move { pass.ended().await }),
    };
    let body = futures_util::stream::unfold(stream, |mut stream| async {
        let bytes = stream.next().await?;
        Some((Ok::<_, Infallible>(bytes), stream))
    });
    Ok(HttpResponse::Ok().content_type(form.content_type()).streaming(body))
}

/// A piece of a stream, as it travels to the connection.
struct Read {
    stream: OutputStream,
    piece: OutputPiece,
}

/// One stream of a node, from a place on.
struct Reader {
    desk: web::Data<Desk>,
    node: NodeName,
    stream: OutputStream,
    from: OutputFrom,
    follow: bool,
    /// Where it ended when it was asked for, if it is not followed and that is not at hand yet: a node that writes faster than
    /// it can be read would have no end else.
    until: Option<OutputPlace>,
}

impl Reader {
    async fn ask(&self, from: OutputFrom, wait: Duration) -> Result<Result<OutputPiece, Unread>, Problem> {
        let (reqid, node, stream) = (new_reqid()?, self.node.clone(), self.stream);
        Ok(self.desk.ask(ReadOutputRequest { reqid, node, stream, from, most: PIECE, wait }).await?.piece)
    }

    async fn end_now(&self) -> Result<Option<OutputPlace>, Problem> {
        let end = self.ask(OutputFrom::Last(0), Duration::ZERO).await?;
        Ok(end.ok().map(|piece| piece.place))
    }

    /// Whether nothing is wanted behind that piece.
    fn ends_with(&self, piece: &OutputPiece) -> bool {
        !self.follow && (piece.at_end || self.until.is_some_and(|until| piece.next >= until))
    }

    fn take(&mut self, piece: OutputPiece) -> Read {
        self.from = OutputFrom::Place(piece.next);
        Read { stream: self.stream, piece }
    }

    /// The next piece; `None` where there is nobody left to ask.
    async fn next(&mut self) -> Option<Read> {
        loop {
            let wait = if self.follow { WAIT } else { Duration::ZERO };
            match self.ask(self.from, wait).await {
                Ok(Ok(piece)) if piece.bytes.is_empty() && self.follow => drop(self.take(piece)),
                Ok(Ok(piece)) => return Some(self.take(piece)),
                // It may come back: under the same name, or on another instance.
                Ok(Err(_)) | Err(Problem::Late) if self.follow => tokio::time::sleep(PAUSE).await,
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// Reads one stream after the other, until nobody takes it any more; one that is not followed ends where it ends now.
async fn pump(readers: VecDeque<(Reader, Option<Read>)>, out: mpsc::Sender<Read>) {
    for (mut reader, first) in readers {
        let mut next = first;
        loop {
            let read = match next.take() {
                Some(read) => read,
                None => tokio::select! {
                    read = reader.next() => match read {
                        Some(read) => read,
                        None => break,
                    },
                    () = out.closed() => return,
                },
            };
            let is_last = reader.ends_with(&read.piece);
            if out.send(read).await.is_err() {
                return;
            }
            if is_last {
                break;
            }
        }
    }
}

/// The body of the answer, made as the connection asks for it.
struct Stream {
    node: NodeName,
    form: Form,
    since: Since,
    pieces: mpsc::Receiver<Read>,
    closing: Closing,
    /// Whoever asked for it may do so no more.
    ended: Pin<Box<dyn Future<Output = ()>>>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let read = tokio::select! {
                read = self.pieces.recv() => read?,
                _ = self.closing.wait_for(|closing| *closing) => return None,
                () = &mut self.ended => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(self.form.keep_alive()),
            };
            let Read { stream, piece } = read;
            self.since.0[stream as usize] = Some(piece.next);
            if piece.bytes.is_empty() && !piece.skipped {
                continue;
            }
            let text = OutputText {
                since: self.since.to_string(),
                node: self.node.to_string(),
                stream: stream.to_string(),
                text: String::from_utf8_lossy(&piece.bytes).into_owned(),
                skipped: piece.skipped,
            };
            return Some(self.form.of(&text.since, &text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_both_streams_reads_back_as_it_was() {
        let place = |volume, offset| Some(OutputPlace { volume, offset });
        for (since, text) in [
            (Since([place(3, 4), place(1, 0)]), "3-4,1-0"),
            (Since([None, place(1, 9)]), ",1-9"),
            (Since::default(), ","),
        ] {
            assert_eq!((since.to_string().as_str(), text.parse::<Since>().unwrap()), (text, since));
        }
        assert!("3-4".parse::<Since>().is_err() && "3-4,x".parse::<Since>().is_err());
    }
}

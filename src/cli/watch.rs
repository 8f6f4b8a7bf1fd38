//! The live view: `watchpost status --watch`, and what a lab shows on a terminal.
//!
//! The stream of events says when to look, the status says what is there: so the screen never shows a conclusion of
//! its own, and a change is there one round trip after it happened. Nothing is polled.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, SystemTime};

use anstyle::Style;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::client::Client;
use super::error::CliError;
use super::screen::{Screen, plain, state_style, tame};
use super::{events, interrupt, status};
use crate::web::json::{Event, Status};

/// How long to gather events before looking again: a crash of everything is a few looks, not thousands.
const GATHER: Duration = Duration::from_millis(100);
/// How often the ages on the screen move on.
const TICK: Duration = Duration::from_secs(1);
/// Between two attempts to reach the controller.
const RETRY: Duration = Duration::from_secs(1);
/// How many of the latest events are shown below the tables.
const EVENTS: usize = 8;

/// In which form the view is printed.
#[derive(Debug, Clone, Copy)]
pub enum View {
    /// Tables: drawn in place on a terminal, one after the other anywhere else.
    Tables,
    /// One line of JSON per look.
    Json,
}

/// Shows the cluster of the controller at `url` until `stop`, drawn in place. Blocks, so it is not for actors.
pub fn run(url: &str, token: Option<String>, stop: impl Future<Output = ()>) -> Result<(), CliError> {
    show(&Client::with_token(url, token)?, View::Tables, stop)
}

/// As [`run`], with a client and a form of one's own. A refusal ends it, a lost connection does not.
pub fn show(client: &Client, view: View, stop: impl Future<Output = ()>) -> Result<(), CliError> {
    let (tell, news) = mpsc::channel(64);
    let scout = client.clone();
    // Ends with its next word once nobody listens, at the latest with the process.
    thread::spawn(move || scout_for(&scout, &tell));
    let runtime = interrupt::runtime()?;
    let result = runtime.block_on(follow(client, view, news, stop));
    runtime.shutdown_background();
    if is_drawn(view) {
        // The cursor comes back below the picture.
        writeln!(io::stdout(), "\x1b[?25h")?;
    }
    result
}

fn is_drawn(view: View) -> bool {
    matches!(view, View::Tables) && Screen::of_stdout().is_terminal()
}

/// What the thread that reads events has to say.
enum Word {
    Connected,
    Event(Box<Event>),
    Lost(String),
    Refused(CliError),
}

/// Reads events and reconnects, until it is refused or nobody listens.
fn scout_for(client: &Client, tell: &mpsc::Sender<Word>) {
    let mut query = format!("last={EVENTS}&snapshot=false");
    loop {
        let word = match read(client, &mut query, tell) {
            Ok(()) => Word::Lost("it ended the stream".into()),
            Err(CliError::NoController { reason, .. }) => Word::Lost(reason),
            Err(CliError::TimedOut { .. }) => Word::Lost("no answer in time".into()),
            Err(error) => Word::Refused(error),
        };
        let last = matches!(word, Word::Refused(_));
        if tell.blocking_send(word).is_err() || last {
            return;
        }
        thread::sleep(RETRY);
    }
}

fn read(client: &Client, query: &mut String, tell: &mpsc::Sender<Word>) -> Result<(), CliError> {
    let events = client.events(query)?;
    // A channel that is closed shows at the end of the stream, which nobody waits for.
    let _ = tell.blocking_send(Word::Connected);
    for event in events {
        let (_, event) = event?;
        *query = format!("since={}&snapshot=false", event.seq);
        if tell.blocking_send(Word::Event(Box::new(event))).is_err() {
            break;
        }
    }
    Ok(())
}

async fn follow(
    client: &Client,
    view: View,
    mut news: mpsc::Receiver<Word>,
    stop: impl Future<Output = ()>,
) -> Result<(), CliError> {
    let mut picture = Picture { url: client.url().to_owned(), ..Picture::default() };
    let mut look_at: Option<Instant> = None;
    let mut look: Option<Look> = None;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            word = news.recv() => match word {
                Some(Word::Connected) => {
                    picture.lost = None;
                    look_at = Some(Instant::now());
                }
                Some(Word::Event(event)) => {
                    picture.note(*event);
                    look_at = look_at.or_else(|| Some(Instant::now() + GATHER));
                }
                Some(Word::Lost(reason)) => {
                    if picture.lost.is_none() && !is_drawn(view) {
                        writeln!(io::stderr(), "watchpost: no contact with {}: {reason}", client.url())?;
                    }
                    picture.lose(reason);
                }
                Some(Word::Refused(error)) => return Err(error),
                // The reader always says why it ends, and then this ends first.
                None => return Ok(()),
            },
            () = at(look_at), if look.is_none() => {
                look_at = None;
                let client = client.clone();
                look = Some(tokio::task::spawn_blocking(move || client.get("/api/v1/status")));
            }
            result = done(&mut look) => {
                look = None;
                match result {
                    Ok((text, status)) => {
                        picture.status = Some(status);
                        show_change(&mut picture, &text, view)?;
                    }
                    // The stream has broken too, or will; it says when to look again.
                    Err(CliError::NoController { .. } | CliError::TimedOut { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            _ = tick.tick() => if is_drawn(view) { draw(&mut picture)? },
        }
    }
}

type Look = JoinHandle<Result<(String, Status), CliError>>;

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn done(look: &mut Option<Look>) -> Result<(String, Status), CliError> {
    match look {
        // Nobody cancels it, so the only way not to return is a panic.
        Some(look) => look.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        None => std::future::pending().await,
    }
}

fn show_change(picture: &mut Picture, text: &str, view: View) -> Result<(), CliError> {
    match view {
        View::Json => writeln!(io::stdout(), "{}", text.trim_end())?,
        View::Tables if is_drawn(view) => draw(picture)?,
        View::Tables => {
            let lines = picture.status.as_ref().map(|status| status::lines(status, SystemTime::now(), Screen::pipe()));
            writeln!(io::stdout(), "{}\n", lines.unwrap_or_default().join("\n"))?;
        }
    }
    Ok(())
}

/// Draws over what was drawn before: home, each line to its end, then whatever is left below.
fn draw(picture: &mut Picture) -> Result<(), CliError> {
    let screen = Screen::of_stdout();
    let begin = if picture.drawn { "\x1b[H" } else { "\x1b[?25l\x1b[2J\x1b[H" };
    picture.drawn = true;
    let lines = picture.lines(SystemTime::now(), screen).join("\x1b[K\r\n");
    let mut out = io::stdout().lock();
    write!(out, "{begin}{lines}\x1b[K\x1b[J")?;
    Ok(out.flush()?)
}

/// What there is to see.
#[derive(Default)]
struct Picture {
    url: String,
    status: Option<Status>,
    recent: VecDeque<Event>,
    /// Since when the controller is out of reach, and why.
    lost: Option<(SystemTime, String)>,
    drawn: bool,
}

impl Picture {
    fn note(&mut self, event: Event) {
        self.recent.push_back(event);
        if self.recent.len() > EVENTS {
            self.recent.pop_front();
        }
    }

    fn lose(&mut self, reason: String) {
        let since = self.lost.take().map_or_else(SystemTime::now, |(since, _)| since);
        self.lost = Some((since, reason));
    }

    /// The whole picture, cut to the screen: the tables first, and as many events as there is room for.
    fn lines(&self, now: SystemTime, screen: Screen) -> Vec<String> {
        let height = screen.height.unwrap_or(usize::MAX);
        let mut lines = vec![self.title(now, screen)];
        lines.extend(self.status.iter().flat_map(|status| status::lines(status, now, screen)));
        if lines.len() > height {
            let hidden = lines.len() - (height - 1);
            lines.truncate(height - 1);
            lines
                .push(screen.line([plain(format!(
                    "… {hidden} more lines: make the window higher, or use `watchpost status`"
                ))]));
        }
        let room = (height - lines.len()).saturating_sub(2).min(self.recent.len());
        if room > 0 {
            lines.extend([String::new(), screen.line([("LATEST EVENTS (UTC)".into(), Style::new().bold())])]);
            let latest = self.recent.iter().skip(self.recent.len() - room);
            lines.extend(latest.map(|event| events::line(event, screen)));
        }
        lines
    }

    fn title(&self, now: SystemTime, screen: Screen) -> String {
        let name = ("watchpost  ".into(), Style::new().bold());
        match &self.lost {
            None => screen.line([name, plain(&self.url), ("   Ctrl-C ends".into(), Style::new().dimmed())]),
            Some((since, reason)) => {
                let gone = now.duration_since(*since).unwrap_or_default().as_secs();
                let text = format!("NO CONTACT for {gone}s ({}); below is what was last known", tame(reason));
                screen.line([name, (text, state_style("FAILED")), plain(format!(" · {}", self.url))])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(nodes: usize) -> Picture {
        let node = |at| crate::web::json::Node {
            name: format!("worker-{at}"),
            instance: "agent-a".into(),
            role: "worker".into(),
            state: "RUNNING".into(),
            pid: Some(1),
            restarts: 0,
            since: "2023-11-14T22:13:20Z".into(),
            reason: "x".repeat(200),
            says: String::new(),
            netstats: None,
            port: None,
            metrics_port: None,
        };
        let status = Status { nodes: (0..nodes).map(node).collect(), ..Status::default() };
        let mut picture = Picture { url: "http://127.0.0.1:2148".into(), status: Some(status), ..Picture::default() };
        (0..20)
            .for_each(|_| picture.note(Event { kind: "log".into(), msg: Some("y".repeat(200)), ..Event::default() }));
        picture
    }

    #[test]
    fn the_picture_fits_any_window() {
        for nodes in [0, 3, 50] {
            for (width, height) in [(20, 5), (80, 12), (120, 30)] {
                let screen = Screen { width: Some(width), height: Some(height), colour: false };
                let lines = picture(nodes).lines(SystemTime::now(), screen);
                assert!(lines.len() <= height, "{nodes} nodes in {height} lines");
                let table = lines.iter().filter(|line| line.chars().count() > width);
                assert_eq!(table.count(), 0, "{nodes} nodes in {width} columns: {lines:#?}");
            }
        }
    }

    #[test]
    fn a_lost_controller_is_said_above_what_was_last_known() {
        let mut picture = picture(1);
        picture.lose("connection refused".into());
        let screen = Screen { width: Some(200), height: None, colour: false };
        let title = picture.title(SystemTime::now(), screen);
        assert!(title.contains("NO CONTACT for 0s (connection refused)"), "{title}");
    }
}

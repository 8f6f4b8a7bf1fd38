//! `watchpost logs`: what a node wrote, and writes.

use std::io::{self, Write};

use super::client::Client;
use super::error::{CliError, Exit};
use super::events::{RETRY, encode};
use super::screen::{Screen, tame};
use crate::model::NodeName;
use crate::web::json::OutputText;

/// Which of a node's streams to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    Both,
    Stdout,
    Stderr,
}

/// What to print of a node's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// How many of the last lines of each stream.
    pub lines: u32,
    /// Stay for what is to come.
    pub follow: bool,
    pub streams: Streams,
}

/// Prints the last lines of a node: into a pipe as they were written, on a terminal without what would steer it. With
/// `follow` until nobody reads them any more, going on where a lost connection left off.
pub fn run(client: &Client, node: &str, choice: Choice, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let node = NodeName::new(node)?;
    let mut printer = Printer { choice, json, screen, heading: None, whole: true };
    let mut since = None;
    let mut pieces = client.stream::<OutputText>(&path(&node, choice, since.as_deref()))?;
    loop {
        let mut ended = None;
        for piece in pieces {
            match piece {
                Ok((line, piece)) => {
                    printer.print(&line, &piece)?;
                    since = Some(piece.since);
                }
                Err(error) => ended = Some(error),
            }
        }
        let reason = match ended {
            None if !choice.follow => return Ok(Exit::Done),
            None => "the controller ended the stream".to_owned(),
            Some(CliError::NoController { reason, .. }) if choice.follow => reason,
            Some(error) => return Err(error),
        };
        writeln!(io::stderr(), "watchpost: {reason}; waiting for the controller at {}", client.url())?;
        pieces = loop {
            std::thread::sleep(RETRY);
            match client.stream(&path(&node, choice, since.as_deref())) {
                Err(CliError::NoController { .. } | CliError::TimedOut { .. }) => {}
                // A controller that just began does not know its nodes before their agents are back.
                Err(CliError::Absent(_)) if since.is_some() => {}
                other => break other?,
            }
        };
    }
}

fn path(node: &NodeName, choice: Choice, since: Option<&str>) -> String {
    let Choice { lines, follow, streams } = choice;
    let stream = match streams {
        Streams::Both => "",
        Streams::Stdout => "&stream=stdout",
        Streams::Stderr => "&stream=stderr",
    };
    let since = since.map(|since| format!("&since={}", encode(since))).unwrap_or_default();
    format!("/api/v1/nodes/{node}/output/stream?lines={lines}&follow={follow}{stream}{since}")
}

struct Printer {
    choice: Choice,
    json: bool,
    screen: Screen,
    /// Under which stream's name the next line would stand.
    heading: Option<String>,
    /// The last line was.
    whole: bool,
}

impl Printer {
    fn print(&mut self, line: &str, piece: &OutputText) -> Result<(), CliError> {
        let text = if self.json { format!("{line}\n") } else { self.render(piece) };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    fn render(&mut self, piece: &OutputText) -> String {
        let mut out = String::new();
        if self.choice.streams == Streams::Both && self.heading.as_deref() != Some(&piece.stream) {
            let end = if self.whole { "" } else { "\n" };
            out += &format!("{end}==> {} <==\n", tame(&piece.stream));
            self.heading = Some(piece.stream.clone());
        }
        if piece.skipped {
            out += "[what stood here is not kept any more]\n";
        }
        match self.screen.is_terminal() {
            true => {
                for line in piece.text.split_inclusive('\n') {
                    let end = if line.ends_with('\n') { "\n" } else { "" };
                    out += &(tame(line.trim_end_matches(['\n', '\r'])) + end);
                }
            }
            false => out += &piece.text,
        }
        self.whole = out.ends_with('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(streams: Streams, screen: Screen) -> Printer {
        let choice = Choice { lines: 1, follow: true, streams };
        Printer { choice, json: false, screen, heading: None, whole: true }
    }

    fn piece(stream: &str, text: &str) -> OutputText {
        OutputText { stream: stream.into(), text: text.into(), ..OutputText::default() }
    }

    #[test]
    fn each_stream_stands_under_its_name_unless_only_one_was_asked_for() {
        let mut both = printer(Streams::Both, Screen::pipe());
        assert_eq!(both.render(&piece("stdout", "one\n\x1b[2J\n")), "==> stdout <==\none\n\x1b[2J\n");
        assert_eq!(both.render(&piece("stdout", "two")), "two");
        assert_eq!(both.render(&piece("stderr", "three\n")), "\n==> stderr <==\nthree\n");
        assert_eq!(printer(Streams::Stderr, Screen::pipe()).render(&piece("stderr", "two\n")), "two\n");
        let terminal = Screen { width: Some(80), height: None, colour: false };
        assert_eq!(printer(Streams::Stdout, terminal).render(&piece("stdout", "one\n\x1b[2J\n")), "one\n [2J\n");
    }
}

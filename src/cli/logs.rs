//! `watchpost logs`: the last lines that a node wrote.

use std::io::{self, Write};

use super::client::Client;
use super::error::{CliError, Exit};
use super::screen::{Screen, tame};
use crate::model::NodeName;
use crate::web::json::Output;

/// Which of a node's streams to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    Both,
    Stdout,
    Stderr,
}

/// Prints the last lines of a node: into a pipe as they were written, on a terminal without what would steer it.
pub fn run(
    client: &Client,
    node: &str,
    lines: u32,
    streams: Streams,
    json: bool,
    screen: Screen,
) -> Result<Exit, CliError> {
    let node = NodeName::new(node)?;
    let (text, output) = client.get::<Output>(&format!("/api/v1/nodes/{node}/output?lines={lines}"))?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", text.trim_end())?;
    } else {
        out.write_all(render(&output, streams, screen).as_bytes())?;
    }
    Ok(Exit::Done)
}

fn render(output: &Output, streams: Streams, screen: Screen) -> String {
    let shown = |text: &str| match screen.is_terminal() {
        true => text.lines().map(|line| tame(line) + "\n").collect(),
        false => text.to_owned(),
    };
    match streams {
        Streams::Stdout => shown(&output.stdout),
        Streams::Stderr => shown(&output.stderr),
        Streams::Both => {
            let parts = [("stdout", &output.stdout), ("stderr", &output.stderr)];
            let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
            let end = |text: &str| if text.ends_with('\n') { "" } else { "\n" };
            parts.map(|(name, text)| format!("==> {name} <==\n{}{}", shown(text), end(text))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_stands_under_its_name_unless_only_one_was_asked_for() {
        let output = Output { stdout: "one\n\x1b[2J".into(), stderr: "two\n".into() };
        let both = "==> stdout <==\none\n\x1b[2J\n==> stderr <==\ntwo\n";
        assert_eq!(render(&output, Streams::Both, Screen::pipe()), both);
        assert_eq!(render(&output, Streams::Stderr, Screen::pipe()), "two\n");
        let terminal = Screen { width: Some(80), height: None, colour: false };
        assert_eq!(render(&output, Streams::Stdout, terminal), "one\n [2J\n");
    }
}

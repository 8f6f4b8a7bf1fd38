//! `watchpost events`: one line per event.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anstyle::Style;

use super::client::{Client, Events};
use super::error::{CliError, Exit};
use super::screen::{Screen, plain, state_style, tame};
use crate::web::json::Event;

/// Between two attempts to reach a controller that was there before.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// From this many columns on a line shows everything.
const ROOMY: usize = 100;
/// The width of the column that says who.
const WHO: usize = 24;

/// Which events to show.
#[derive(Debug, Clone)]
pub struct Choice {
    pub follow: bool,
    pub since: Option<String>,
    /// Where `since` is not given: how many of the latest.
    pub last: u64,
}

/// Prints events; with `follow` until nobody reads them any more, resuming where a lost connection left off.
pub fn run(client: &Client, mut choice: Choice, json: bool, screen: Screen) -> Result<Exit, CliError> {
    let mut events = client.events(&query(&choice))?;
    loop {
        let reason = match show(events, &mut choice, json, screen) {
            Ok(()) if !choice.follow => return Ok(Exit::Done),
            Ok(()) => "the controller ended the stream".to_owned(),
            Err(CliError::NoController { reason, .. }) if choice.follow => reason,
            Err(error) => return Err(error),
        };
        writeln!(io::stderr(), "watchpost: {reason}; waiting for the controller at {}", client.url())?;
        events = again(client, &query(&choice))?;
    }
}

/// Connects anew as soon as the controller can be reached. Its refusals are final.
fn again(client: &Client, query: &str) -> Result<Events, CliError> {
    loop {
        thread::sleep(RETRY);
        match client.events(query) {
            Err(CliError::NoController { .. } | CliError::TimedOut { .. }) => {}
            other => return other,
        }
    }
}

fn show(events: Events, choice: &mut Choice, json: bool, screen: Screen) -> Result<(), CliError> {
    for event in events {
        let (text, event) = event?;
        let mut out = io::stdout().lock();
        writeln!(out, "{}", if json { text } else { line(&event, screen) })?;
        choice.since = Some(event.seq);
    }
    Ok(())
}

fn query(choice: &Choice) -> String {
    let from = match &choice.since {
        Some(since) => format!("since={}", encode(since)),
        None => format!("last={}", choice.last),
    };
    format!("{from}&follow={}&snapshot=false", choice.follow)
}

/// Makes what a user typed safe for the query of an address.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte.is_ascii_alphanumeric() || byte == b'-' {
            true => out.push(char::from(byte)),
            false => out += &format!("%{byte:02X}"),
        }
        out
    })
}

/// One event as one line: time, seq, who, what, pid, why. On a narrow terminal why matters more than seq, instance and
/// pid.
pub fn line(event: &Event, screen: Screen) -> String {
    let time = event.time.as_deref().unwrap_or("-");
    // People at a terminal know the day and need no microseconds; the hour is UTC and says so.
    let time = match time.split_once('T').filter(|_| screen.is_terminal()) {
        Some((_, hour)) => format!("{:.12}Z", hour.trim_end_matches('Z')),
        None => time.to_owned(),
    };
    let narrow = screen.width.is_some_and(|width| width < ROOMY);
    let who = match (&event.instance, &event.node) {
        (Some(_), Some(node)) if narrow => node.clone(),
        (Some(instance), Some(node)) => format!("{instance}/{node}"),
        (Some(instance), None) => instance.clone(),
        _ => "-".into(),
    };
    let mut who = tame(&who);
    if screen.is_terminal() && who.chars().count() > WHO {
        who = who.chars().take(WHO - 1).chain(['…']).collect();
    }
    let seq = if narrow { String::new() } else { format!("{:<14}  ", event.seq) };
    let head = format!("{time}  {seq}{who:<WHO$}  ");
    let (what, style) = what(event);
    let gap = " ".repeat(19_usize.saturating_sub(what.chars().count()).max(1));
    let pid = event.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
    let why = tame(&why(event));
    let tail = if event.kind == "change" && !narrow { format!("{pid:<11}  {why}") } else { why };
    screen.line([plain(head), (what, style), plain(gap + &tail)])
}

fn what(event: &Event) -> (String, Style) {
    match (&event.old, &event.new) {
        (Some(old), Some(new)) if old == new => (new.clone(), state_style(new)),
        (Some(old), Some(new)) => (format!("{old} → {new}"), state_style(new)),
        _ if event.kind == "error" => ("ERROR".into(), state_style("FAILED")),
        _ if event.kind == "gap" => ("GAP".into(), state_style("UNKNOWN")),
        _ => (event.kind.to_uppercase().replace('_', " "), Style::new()),
    }
}

fn why(event: &Event) -> String {
    if event.kind == "agents_ready" {
        return event.instances.join(" ");
    }
    let reason = event.reason.clone().or_else(|| event.exit.as_ref().map(|exit| exit.text.clone()));
    let mut why = event.msg.clone().or(reason).unwrap_or_default();
    const REMOVED: &str = "removed from the configuration";
    if event.removed && !why.starts_with(REMOVED) {
        why = format!("{why} ({REMOVED})").trim_start().to_owned();
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Event {
        Event {
            seq: "5f3a9c01-42".into(),
            time: Some("2023-11-14T22:13:20.000004Z".into()),
            kind: "change".into(),
            instance: Some("agent-a".into()),
            node: Some("worker-1".into()),
            old: Some("RUNNING".into()),
            new: Some("CRASHED".into()),
            pid: Some(4711),
            reason: Some("killed by signal 9 (SIGKILL)".into()),
            ..Event::default()
        }
    }

    #[test]
    fn a_change_is_one_aligned_line() {
        let want = "2023-11-14T22:13:20.000004Z  5f3a9c01-42     agent-a/worker-1          \
                    RUNNING → CRASHED  pid 4711     killed by signal 9 (SIGKILL)";
        assert_eq!(line(&change(), Screen::pipe()), want);
    }

    #[test]
    fn a_node_that_is_removed_at_rest_is_said_so_once() {
        let at_rest = || Some("STOPPED".to_owned());
        for (reason, want) in [
            (Some("removed from the configuration"), "removed from the configuration"),
            (Some("exited with status 0"), "exited with status 0 (removed from the configuration)"),
            (None, "(removed from the configuration)"),
        ] {
            let reason = reason.map(String::from);
            let event = Event { old: at_rest(), new: at_rest(), removed: true, pid: None, reason, ..change() };
            let line = line(&event, Screen::pipe());
            let told: Vec<_> = line.split("worker-1").nth(1).unwrap().split_whitespace().collect();
            assert_eq!(told.join(" "), format!("STOPPED {want}"));
        }
    }

    #[test]
    fn a_narrow_terminal_shows_why_and_long_names_keep_the_columns() {
        let mut event = change();
        event.node = Some("a-worker-with-a-rather-long-name".into());
        let at = |width| line(&event, Screen { width: Some(width), height: None, colour: false });
        assert_eq!(at(80), "22:13:20.000Z  a-worker-with-a-rather-…  RUNNING → CRASHED  killed by signal 9 …");
        let wide = "22:13:20.000Z  5f3a9c01-42     agent-a/a-worker-with-a…  RUNNING → CRASHED  pid 4711     killed";
        assert!(at(120).starts_with(wide), "{}", at(120));
    }

    #[test]
    fn a_line_fits_its_terminal() {
        for width in 20..140 {
            let screen = Screen { width: Some(width), height: None, colour: false };
            let line = line(&change(), screen);
            assert!(line.starts_with("22:13:20.000Z  ") && line.chars().count() <= width, "{width}: {line}");
        }
    }

    #[test]
    fn what_a_machine_says_cannot_steer_the_terminal() {
        let event =
            Event { kind: "log".into(), seq: "1-1".into(), msg: Some("a\x1b[2J\nb".into()), ..Event::default() };
        assert!(line(&event, Screen::pipe()).ends_with("LOG                a [2J b"));
    }

    #[test]
    fn a_place_that_was_typed_cannot_change_the_request() {
        let choice = Choice { follow: false, since: Some("a-1&last=9 x".into()), last: 50 };
        assert_eq!(query(&choice), "since=a-1%26last%3D9%20x&follow=false&snapshot=false");
    }
}

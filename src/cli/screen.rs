//! What standard output can show: how wide it is, and whether colour makes sense there.

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use super::width;

/// The width of a terminal that does not tell its own, in columns.
const USUAL_WIDTH: u16 = 80;

/// Where a table goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// In columns; `None` where lines may be as long as they like, such as in a pipe.
    pub width: Option<usize>,
    /// In lines; `None` where there is no end to them.
    pub height: Option<usize>,
    pub colour: bool,
}

impl Screen {
    /// What standard output is right now. `--no-color`, `NO_COLOR`, `TERM=dumb` and their kin are honoured.
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::pipe();
        }
        let (columns, rows) = rustix::termios::tcgetwinsize(&stdout).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        Self::terminal(columns, rows, AutoStream::choice(&stdout) != ColorChoice::Never)
    }

    /// The same of standard error, where progress is shown.
    pub fn of_stderr() -> Self {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return Self::pipe();
        }
        let (columns, rows) = rustix::termios::tcgetwinsize(&stderr).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        Self::terminal(columns, rows, AutoStream::choice(&stderr) != ColorChoice::Never)
    }

    /// A terminal of this size; zero is one that does not tell, and which is a terminal all the same.
    fn terminal(columns: u16, rows: u16, colour: bool) -> Self {
        let columns = if columns == 0 { USUAL_WIDTH } else { columns.max(20) };
        let height = (rows > 0).then_some(usize::from(rows.max(5)));
        Self { width: Some(columns.into()), height, colour }
    }

    /// No width, no colour.
    pub fn pipe() -> Self {
        Self { width: None, height: None, colour: false }
    }

    pub fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    /// One line of these pieces, without trailing spaces and cut to the width with an ellipsis.
    pub fn line(self, pieces: impl IntoIterator<Item = Piece>) -> String {
        let mut pieces: Vec<Piece> = pieces.into_iter().collect();
        while let Some((text, _)) = pieces.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            pieces.pop();
        }
        let length: usize = pieces.iter().map(|(text, _)| width::of(text)).sum();
        let cut = self.width.filter(|width| length > *width);
        let mut room = cut.map_or(usize::MAX, |width| width.saturating_sub(1));
        let mut line = String::new();
        for (text, style) in pieces {
            let shown = width::cut(&text, room);
            // What stands behind something that had no room is not shown either.
            room = if shown.len() < text.len() { 0 } else { room - width::of(shown) };
            match self.colour && style != Style::new() && !shown.is_empty() {
                true => line += &format!("{style}{shown}{style:#}"),
                false => line += shown,
            }
        }
        if cut.is_some() { line + "…" } else { line }
    }

    /// A text behind a word that stands out, on as many lines as it takes, each of them so far from the edge. What is longer
    /// than a line stays in one piece: it may be a path that somebody is to copy.
    pub fn paragraph(self, indent: usize, (word, style): Piece, text: &str) -> Vec<String> {
        let (whole, width) = (Self { width: None, ..self }, self.width.unwrap_or(usize::MAX));
        let edge = " ".repeat(indent);
        let mut lines = vec![format!("{edge}{word}")];
        for next in text.split(' ') {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + next.chars().count() <= width => *line += &format!(" {next}"),
                _ => lines.push(format!("{edge}  {next}")),
            }
        }
        let rest = lines[0].split_off(edge.len() + word.len());
        lines[0] = whole.line([plain(edge), (word, style), plain(rest)]);
        lines
    }

    /// A sentence that nothing is to be cut off from, on as many lines as it takes.
    pub fn sentence(self, text: &str, style: Style) -> Vec<String> {
        let columns = self.width.unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split(' ') {
            if !line.is_empty() && width::of(&line) + 1 + width::of(word) > columns {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
        lines.into_iter().map(|line| self.line([(line, style)])).collect()
    }
}

/// A part of a line, and how it looks.
pub type Piece = (String, Style);

/// A part of a line that looks like any text.
pub fn plain(text: impl Into<String>) -> Piece {
    (text.into(), Style::new())
}

/// The colour of a state. Never the only sign: the word stands there too.
pub fn state_style(state: &str) -> Style {
    match state {
        "RUNNING" | "UP" | "good" => AnsiColor::Green.on_default(),
        "PENDING" | "due" => AnsiColor::Yellow.on_default(),
        "CRASHED" | "LOST" | "expired" | "revoked" => AnsiColor::Red.on_default(),
        "FAILED" => AnsiColor::Red.on_default().bold(),
        "UNKNOWN" => AnsiColor::Magenta.on_default(),
        "STOPPED" => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// Whether a character is not seen, and changes how those around it are: the direction of writing, above all.
fn turns(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// One line of text that a terminal shows as it is: what processes and machines wrote may hold anything.
pub fn tame(text: &str) -> String {
    text.chars().filter(|c| !turns(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long ago a moment in RFC 3339 was, in its two largest units, such as `2h13m`.
pub fn age(since: &str, now: SystemTime) -> String {
    let Ok(since) = humantime::parse_rfc3339(since) else { return "-".into() };
    // A clock ahead of ours is no reason to show an age below zero.
    let seconds = now.duration_since(since).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        let start = humantime::parse_rfc3339("2023-11-14T22:13:20.000000Z").unwrap();
        for (seconds, want) in [(0, "0s"), (59, "59s"), (61, "1m01s"), (8000, "2h13m"), (200_000, "2d07h")] {
            assert_eq!(age("2023-11-14T22:13:20.000000Z", start + Duration::from_secs(seconds)), want);
        }
        assert_eq!(age("2023-11-14T22:13:20.000000Z", start - Duration::from_secs(5)), "0s");
        assert_eq!(age("yesterday", start), "-");
    }

    #[test]
    fn a_terminal_that_does_not_tell_its_size_is_no_pipe() {
        let silent = Screen::terminal(0, 0, false);
        assert!(silent.is_terminal());
        assert_eq!((silent.width, silent.height), (Some(80), None));
        assert_eq!(Screen::terminal(132, 50, true), Screen { width: Some(132), height: Some(50), colour: true });
        assert_eq!(Screen::terminal(1, 1, true), Screen { width: Some(20), height: Some(5), colour: true });
    }

    #[test]
    fn what_a_process_wrote_cannot_steer_the_terminal() {
        assert_eq!(tame("a\x1b[2Jb\nc\u{9b}d"), "a [2Jb c d");
    }

    #[test]
    fn a_line_is_cut_only_where_it_is_too_long() {
        let red = AnsiColor::Red.on_default();
        let line = |width, colour| {
            let screen = Screen { width, height: None, colour };
            screen.line([plain("äb"), ("cdef".into(), red), plain("  ")])
        };
        assert_eq!(line(None, false), "äbcdef");
        assert_eq!(line(Some(6), false), "äbcdef");
        assert_eq!(line(Some(5), false), "äbcd…");
        assert_eq!(line(Some(2), true), "ä…");
        assert_eq!(line(Some(5), true), format!("äb{red}cd{red:#}…"));
    }

    #[test]
    fn a_reason_is_broken_between_words_and_nothing_of_it_is_lost() {
        let screen = Screen { width: Some(30), height: None, colour: false };
        let path = "/a/path/that/is/longer/than/any/line/of/it";
        let text = format!("w on a: cannot run `{path}`: no such file");
        let failed = || ("failed".to_owned(), Style::new());
        let want = ["failed w on a: cannot run".to_owned(), format!("  `{path}`:"), "  no such file".to_owned()];
        assert_eq!(screen.paragraph(0, failed(), &text), want);
        assert_eq!(screen.paragraph(2, failed(), "w: no"), ["  failed w: no"]);
        assert_eq!(Screen::pipe().paragraph(0, failed(), &text), [format!("failed {text}")]);
    }

    #[test]
    fn a_sentence_goes_on_in_the_next_line() {
        let sentence = |width| {
            let screen = Screen { width, height: None, colour: false };
            screen.sentence("whoever reaches it may", Style::new())
        };
        assert_eq!(sentence(None), ["whoever reaches it may"]);
        assert_eq!(sentence(Some(22)), ["whoever reaches it may"]);
        assert_eq!(sentence(Some(21)), ["whoever reaches it", "may"]);
        assert_eq!(sentence(Some(8)), ["whoever", "reaches", "it may"]);
        assert_eq!(sentence(Some(5)), ["whoe…", "reac…", "it", "may"]);
    }
}

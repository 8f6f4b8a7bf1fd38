//! What a Zeek node wrote into its news, line by line. Nothing in it is believed that is not as the script writes it.
//!
//! A line is `NUMBER KIND REST`: numbers count from 1 without gaps, so that lines which got lost are noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::supervisor::said::is_invisible;

/// The longest line, in bytes.
pub const LONGEST_LINE: usize = 64 << 10;
/// The longest answer, in bytes.
const LONGEST_ANSWER: usize = 2 << 20;
/// Longer texts of reports are cut, in bytes.
const LONGEST_TEXT: usize = 1000;
/// So many reports are kept of what is read at one time; of more there is the number.
const MOST_REPORTS: usize = 200;
/// What the script says that it keeps to.
const CONTRACT: u64 = 1;

/// Reads the news of one life.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
    /// The line is too long: all up to its end is passed over.
    passing: bool,
    /// The number that the next line has; `None` until there was one.
    next: Option<u64>,
    /// The questions whose answers are awaited, and what there is of these.
    open: BTreeMap<u64, Vec<u8>>,
    /// What it was found to do wrong, which is told once.
    told: BTreeSet<Wrong>,
}

/// What was read at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// The version of Zeek.
    pub hello: Option<String>,
    /// The last one.
    pub beat: Option<Beat>,
    /// In order.
    pub reports: Vec<Report>,
    /// How many more there were that the node held back itself.
    pub held: Held,
    /// By the numbers of the questions.
    pub answers: Vec<(u64, Result<String, String>)>,
    /// What is wrong with the channel, in words.
    pub wrong: Vec<String>,
}

impl Heard {
    /// Whether there is nothing to tell.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a node counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Beat {
    pub received: u64,
    pub dropped: u64,
    pub link: u64,
    pub bytes: u64,
    /// In bytes.
    pub memory: u64,
    /// Events in its queue.
    pub waiting: u64,
}

/// Reports that were not told one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Held {
    #[serde(rename = "held_errors")]
    pub errors: u64,
    #[serde(rename = "held_warnings")]
    pub warnings: u64,
}

/// What Zeek itself reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub is_error: bool,
    /// The message, and where it belongs to if that is known; one line.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Unreadable,
    TooLong,
    Gap,
    Half,
    Shorter,
    Skipped,
    Contract,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "has lines that nobody understands, which are passed over",
            Self::TooLong => "has a line of more than 64 KiB, which is passed over",
            Self::Gap => "lacks lines that the node has written",
            Self::Half => "ends within a line",
            Self::Shorter => "was cut off by somebody, and what was lost is not known",
            Self::Skipped => "has more than 64 MiB that nobody read, of which the oldest is passed over",
            Self::Contract => "is of a script that this release does not know: restart the node",
        })
    }
}

#[derive(Deserialize)]
struct Hello {
    contract: u64,
    version: String,
}

#[derive(Deserialize)]
struct Reported {
    message: String,
    #[serde(default)]
    location: String,
}

impl Decoder {
    /// Takes in the bytes that come next.
    pub fn take(&mut self, mut bytes: &[u8], heard: &mut Heard) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = bytes.split_at(end);
            bytes = &behind[1..];
            self.add(line, heard);
            let rest = std::mem::take(&mut self.rest);
            if !std::mem::take(&mut self.passing) {
                self.line(&rest, heard);
            }
        }
        self.add(bytes, heard);
    }

    /// How many of the bytes that were taken in belong to a line whose end is not there yet, and is worth waiting for.
    pub fn pending(&self) -> usize {
        self.rest.len()
    }

    /// Nothing comes any more.
    pub fn finish(&mut self, heard: &mut Heard) {
        if !std::mem::take(&mut self.rest).is_empty() {
            self.wrong(Wrong::Half, heard);
        }
    }

    /// The file is shorter than what was read of it.
    pub fn cut_off(&mut self, heard: &mut Heard) {
        (self.rest, self.passing, self.next) = (Vec::new(), false, None);
        self.wrong(Wrong::Shorter, heard);
    }

    /// Part of it is passed over, and the next bytes are from the midst of a line.
    pub fn skipped(&mut self, heard: &mut Heard) {
        (self.rest, self.passing, self.next) = (Vec::new(), true, None);
        self.wrong(Wrong::Skipped, heard);
    }

    /// From now on an answer to this question counts.
    pub fn await_answer(&mut self, number: u64) {
        self.open.insert(number, Vec::new());
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self, number: u64) {
        self.open.remove(&number);
    }

    fn add(&mut self, bytes: &[u8], heard: &mut Heard) {
        if self.passing {
            return;
        }
        if self.rest.len() + bytes.len() > LONGEST_LINE {
            (self.rest, self.passing) = (Vec::new(), true);
            return self.wrong(Wrong::TooLong, heard);
        }
        self.rest.extend_from_slice(bytes);
    }

    fn line(&mut self, line: &[u8], heard: &mut Heard) {
        if self.understand(line, heard).is_none() {
            self.wrong(Wrong::Unreadable, heard);
        }
    }

    fn understand(&mut self, line: &[u8], heard: &mut Heard) -> Option<()> {
        let (number, rest) = word(line);
        let (kind, rest) = word(rest);
        let number: u64 = text(number)?.parse().ok().filter(|number| *number > 0)?;
        match kind {
            b"hello" => {
                let Hello { contract, version } = json(rest)?;
                if contract != CONTRACT {
                    self.wrong(Wrong::Contract, heard);
                }
                heard.hello = Some(clean(&version));
            }
            b"beat" => {
                let (beat, held): (Beat, Held) = (json(rest)?, json(rest)?);
                heard.beat = Some(beat);
                heard.held.errors = heard.held.errors.saturating_add(held.errors);
                heard.held.warnings = heard.held.warnings.saturating_add(held.warnings);
            }
            b"error" | b"warning" => {
                let Reported { message, location } = json(rest)?;
                let text = if location.is_empty() { message } else { format!("{message} ({location})") };
                let is_error = kind == b"error";
                match heard.reports.len() < MOST_REPORTS {
                    true => heard.reports.push(Report { is_error, text: clean(&text) }),
                    false if is_error => heard.held.errors += 1,
                    false => heard.held.warnings += 1,
                }
            }
            b"part" => {
                let (question, piece) = numbered(rest)?;
                // Also what was asked by an earlier run of the agent comes here.
                if let Some(parts) = self.open.get_mut(&question) {
                    if parts.len() + piece.len() > LONGEST_ANSWER {
                        self.open.remove(&question);
                        heard.answers.push((question, Err("its value is too long".into())));
                    } else {
                        parts.extend_from_slice(piece);
                    }
                }
            }
            b"answer" => {
                let (question, _) = numbered(rest)?;
                if let Some(parts) = self.open.remove(&question) {
                    heard.answers.push((question, value(parts)));
                }
            }
            b"failure" => {
                let (question, why) = numbered(rest)?;
                let why: String = json(why)?;
                if self.open.remove(&question).is_some() {
                    heard.answers.push((question, Err(clean(&why))));
                }
            }
            // Of a script that tells more than this release knows, or its last word.
            kind if !kind.is_empty() && kind.iter().all(u8::is_ascii_lowercase) => {}
            _ => return None,
        }
        let expected = self.next.replace(number.wrapping_add(1));
        if expected.is_some_and(|expected| expected != number) {
            self.wrong(Wrong::Gap, heard);
        }
        Some(())
    }

    fn wrong(&mut self, wrong: Wrong, heard: &mut Heard) {
        if self.told.insert(wrong) {
            heard.wrong.push(format!("its channel {wrong}"));
        }
    }
}

/// An answer that came in pieces: JSON, or it is none.
fn value(parts: Vec<u8>) -> Result<String, String> {
    let unreadable = || "its answer is no JSON".to_owned();
    let text = String::from_utf8(parts).map_err(|_| unreadable())?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(unreadable()),
    }
}

fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(end) => (&line[..end], &line[end + 1..]),
        None => (line, b""),
    }
}

fn numbered(rest: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = word(rest);
    Some((text(number)?.parse().ok()?, rest))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// One line that steers no terminal, cut where it gets long.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }) {
        if clean.len() + c.len_utf8() > LONGEST_TEXT {
            clean.push('…');
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(decoder: &mut Decoder, text: &str) -> Heard {
        let mut heard = Heard::default();
        decoder.take(text.as_bytes(), &mut heard);
        heard
    }

    const BEAT: &str = r#"{"received":10,"dropped":2,"link":12,"bytes":999,"memory":4096,"waiting":1,"held_errors":3,"held_warnings":4}"#;

    #[test]
    fn what_the_script_says_is_understood_however_it_is_split() {
        let text = format!(
            "1 hello {{\"contract\":1,\"version\":\"8.0.10\",\"pid\":7}}\n2 beat {BEAT}\n\
             3 error {{\"message\":\"no such \\u001b[1m index\",\"location\":\"a.zeek, line 3\"}}\n\
             4 warning {{\"message\":\"slow\",\"location\":\"\"}}\n5 end {{}}\n"
        );
        let whole = read(&mut Decoder::default(), &text);
        assert_eq!(whole.hello.as_deref(), Some("8.0.10"));
        assert_eq!(whole.beat, Some(Beat { received: 10, dropped: 2, link: 12, bytes: 999, memory: 4096, waiting: 1 }));
        assert_eq!(whole.held, Held { errors: 3, warnings: 4 });
        let report = |is_error, text: &str| Report { is_error, text: text.into() };
        let want = [report(true, "no such  [1m index (a.zeek, line 3)"), report(false, "slow")];
        assert_eq!((whole.reports.as_slice(), whole.wrong.len()), (want.as_slice(), 0));
        for size in 1..40 {
            let (mut decoder, mut heard) = (Decoder::default(), Heard::default());
            text.as_bytes().chunks(size).for_each(|piece| decoder.take(piece, &mut heard));
            assert_eq!((&heard, decoder.pending()), (&whole, 0), "in pieces of {size}");
        }
    }

    #[test]
    fn a_long_answer_comes_in_pieces_between_other_lines() {
        let mut decoder = Decoder::default();
        decoder.await_answer(40);
        let long = format!("\"{}\"", "ü".repeat(50_000));
        let mut bytes = Vec::new();
        for (number, piece) in long.as_bytes().chunks(3999).enumerate() {
            let number = 2 * number + 1;
            bytes.extend(format!("{number} part 40 ").bytes());
            bytes.extend(piece);
            bytes.extend(format!("\n{} part 39 stale\n", number + 1).bytes());
        }
        let mut heard = Heard::default();
        decoder.take(&bytes, &mut heard);
        assert_eq!(heard.answers, []);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        decoder.take(format!("{} answer 39\n{} answer 40\n", lines + 1, lines + 2).as_bytes(), &mut heard);
        assert_eq!((heard.answers, heard.wrong), (vec![(40, Ok(long))], vec![]));
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_and_one_that_nobody_awaits_is_nothing() {
        let mut decoder = Decoder::default();
        (1..=4).for_each(|number| decoder.await_answer(number));
        decoder.forget(4);
        let heard =
            read(&mut decoder, "1 failure 1 \"unknown id\"\n2 part 2 {oops\n3 answer 2\n4 part 4 1\n5 answer 4\n");
        let error = |number, why: &str| (number, Err(why.to_owned()));
        assert_eq!(heard.answers, [error(1, "unknown id"), error(2, "its answer is no JSON")]);
        let piece = "x".repeat(60_000);
        let text: String = (6..60).map(|number| format!("{number} part 3 {piece}\n")).collect();
        let heard = read(&mut decoder, &text);
        assert_eq!((heard.answers, heard.wrong), (vec![error(3, "its value is too long")], vec![]));
    }

    #[test]
    fn rubbish_is_told_once_and_what_comes_behind_it_counts() {
        let mut decoder = Decoder::default();
        let heard = read(&mut decoder, "rubbish\n\n1 beat {}\n0 end {}\n-1 end {}\nx end {}\n1 BEAT {}\n");
        assert_eq!(heard.wrong, ["its channel has lines that nobody understands, which are passed over"]);
        let heard = read(&mut decoder, &format!("rubbish\n1 beat {BEAT}\n"));
        assert_eq!((heard.wrong.len(), heard.beat.is_some()), (0, true));
        let heard = read(&mut decoder, "3 end {}\n9 end {}\n");
        assert_eq!(heard.wrong, ["its channel lacks lines that the node has written"]);
        assert_eq!(read(&mut decoder, "10 later {\"of\":1}\n"), Heard::default(), "of a script that says more");
    }

    #[test]
    fn a_megabyte_without_a_line_end_takes_no_memory_and_ends_at_its_line_end() {
        let (mut decoder, mut heard) = (Decoder::default(), Heard::default());
        for _ in 0..64 {
            decoder.take(&[b'x'; 16 << 10], &mut heard);
            assert!(decoder.rest.capacity() <= 2 * LONGEST_LINE);
        }
        assert_eq!(heard.wrong, ["its channel has a line of more than 64 KiB, which is passed over"]);
        let heard = read(&mut decoder, &format!("more\n1 beat {BEAT}\n2 end"));
        assert_eq!((heard.wrong.len(), heard.beat.is_some(), decoder.pending()), (0, true, 5));
        let mut heard = Heard::default();
        decoder.finish(&mut heard);
        assert_eq!(heard.wrong, ["its channel ends within a line"]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_within_bounds(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..200),
                    "[0-9]{1,3} (hello|beat|error|part|answer|failure|end) .{0,40}\n".prop_map(String::into_bytes),
                ],
                0..30,
            ),
        ) {
            let (mut decoder, mut heard) = (Decoder::default(), Heard::default());
            (0..5).for_each(|number| decoder.await_answer(number));
            pieces.iter().for_each(|piece| decoder.take(piece, &mut heard));
            decoder.finish(&mut heard);
            prop_assert!(decoder.pending() == 0 && heard.wrong.len() <= 7);
            prop_assert!(heard.reports.iter().all(|report| !report.text.contains(char::is_control)));
        }
    }
}

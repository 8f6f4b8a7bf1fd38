//! The lines of a record: how they are written, and what they say, whatever became of the file in between.
//!
//! Each ends in ` #` and the CRC-32 of what stands before. What came before the last intent is over. A line without its
//! newline was cut off and does not count; one whose checksum is wrong means that the file is damaged, and nothing in it
//! is believed.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Found;
use crate::model::{Life, Node};
use crate::supervisor::history::Past;
use crate::supervisor::process::identity::Identity;

/// The format of an intent; another number is a record of another release and is refused.
pub(super) const FORMAT: u32 = 4;
/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 500;

/// The line that begins a life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent<'a> {
    pub format: u32,
    pub boot: Cow<'a, str>,
    pub pid_namespace: u64,
    pub life: Life,
    /// The definition is not known: it stands for a process that was found by its marker.
    pub guessed: bool,
    pub past: Past,
    /// The time of what is past, in milliseconds since boot.
    pub at: u64,
    /// Where the control groups are of which it is born into one; `None` if it has none.
    pub groups: Option<Cow<'a, Path>>,
    pub node: Cow<'a, Node>,
}

/// What the lines of a record say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub intent: Intent<'static>,
    pub found: Found,
    /// Why it was given up, if it was.
    pub reason: Option<String>,
    /// Set if it waits to be started again.
    pub crash: Option<Crash>,
    /// The number of the process that led it, if there was one.
    pub leader: Option<u32>,
    /// Its process gave the sign that it is ready.
    pub ready: bool,
    /// It has been up for so long that earlier crashes are forgotten.
    pub stable: bool,
}

/// The end of a life that was told, and after which the next one waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Crash {
    /// As in an [`Intent`], with this end counted.
    pub past: Past,
    pub at: u64,
    /// When the next life is due, in milliseconds since boot.
    pub due: u64,
    pub reason: String,
}

/// Why lines are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("{0}")]
    Foreign(String),
    #[error("{0}")]
    Damaged(&'static str),
    /// Nothing of it is left, or nothing that says whose it was.
    #[error("it is empty")]
    Empty,
}

/// Only enough to tell whose record it is.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// A line with its checksum and its end.
pub(super) fn sealed(text: &str) -> Vec<u8> {
    let mut line = text.as_bytes().to_vec();
    let sum = crc32fast::hash(&line);
    // Writing to memory does not fail.
    let _ = writeln!(line, " #{sum:08x}");
    line
}

/// The process that came of an intent.
pub(super) fn launched(life: Life, process: Identity) -> String {
    let Identity { pid, start_time, number } = process;
    let number = number.map_or_else(String::new, |number| format!(" {number}"));
    format!("pid {life} {pid} {start_time}{number}")
}

/// That it is ready.
pub(super) fn ready(life: Life) -> String {
    format!("ready {life}")
}

/// That earlier crashes are forgotten.
pub(super) fn stable(life: Life) -> String {
    format!("stable {life}")
}

/// The end of a life that waits for the next.
pub(super) fn crashed(life: Life, crash: &Crash) -> serde_json::Result<String> {
    Ok(format!("crashed {life} {}", serde_json::to_string(crash)?))
}

/// The end of a life that is not to be started again, without line ends in its reason.
pub(super) fn given_up(life: Life, reason: &str) -> String {
    format!("failed {life} {}", shortened(reason))
}

/// A reason as it is kept.
pub(super) fn shortened(reason: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    reason.chars().map(printable).take(LONGEST_REASON).collect()
}

/// Takes a record apart.
pub(super) fn read(bytes: &[u8]) -> Result<Said, Flaw> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let lines: Vec<&[u8]> = lines.collect();
    let last = lines.iter().rposition(|line| line.starts_with(b"{"));
    // A file system may have lost its beginning, and the next life was added behind that.
    if last.is_none() && (bytes.is_empty() || bytes.starts_with(b"\0")) {
        return Err(Flaw::Empty);
    }
    let (first, lines) = lines[last.unwrap_or(0)..].split_first().ok_or(Flaw::Damaged("its first line is cut off"))?;
    let Some(first) = unsealed(first) else {
        // Whoever writes another format may seal it in another way.
        return Err(match serde_json::from_slice::<AnyFormat>(first) {
            Ok(AnyFormat { format }) => Flaw::Foreign(format!("its format is {format}")),
            Err(_) => Flaw::Damaged("the checksum of its last intent is wrong"),
        });
    };
    let intent = serde_json::from_str::<Intent<'static>>(first).map_err(|error| foreign(first, &error))?;
    if intent.format != FORMAT {
        return Err(Flaw::Foreign(format!("its format is {}", intent.format)));
    }
    let (mut found, mut reason, mut crash, mut leader, mut ready) = (Found::Intended, None, None, None, false);
    // And the life that was over for good.
    let (mut stable, mut over) = (false, None);
    for line in lines {
        let line = unsealed(line).ok_or(Flaw::Damaged("the checksum of one of its lines is wrong"))?;
        let mut words = line.splitn(3, ' ');
        let (kind, life, rest) = (words.next(), words.next().and_then(|life| life.parse::<u64>().ok()), words.next());
        found = match (kind, life, rest) {
            (Some("pid"), Some(life), Some(process)) if life == intent.life.0 => match identity(process) {
                Some(process) => {
                    leader = Some(process.pid);
                    Found::Launched(process)
                }
                None => return Err(Flaw::Foreign("its process has no numbers".into())),
            },
            // Another life may be spoken of late, behind the intent of the next.
            (Some("pid"), Some(_), Some(_)) => found,
            (Some("ready"), Some(life), None) => {
                ready |= life == intent.life.0;
                found
            }
            (Some("stable"), Some(life), None) => {
                stable |= life == intent.life.0;
                found
            }
            // A launch may fail before it is intended. And it may be stopped before this is written.
            (Some("crashed"), Some(life), Some(what))
                if life >= intent.life.0 && over.is_none_or(|over| over < life) =>
            {
                crash = Some(serde_json::from_str(what).map_err(|error| Flaw::Foreign(error.to_string()))?);
                Found::Crashed
            }
            (Some("crashed"), Some(_), Some(_)) => found,
            (Some("stopped"), Some(life), None) if life >= intent.life.0 => {
                over = Some(life);
                Found::Stopped
            }
            (Some("rested"), Some(life), None) if life >= intent.life.0 && found != Found::Stopped => {
                over = Some(life);
                Found::Rested
            }
            (Some("stopped" | "rested"), Some(_), None) => found,
            // So here.
            (Some("failed"), Some(life), why) if life >= intent.life.0 => {
                (reason, over) = (Some(why.unwrap_or_default().to_owned()), Some(life));
                Found::GivenUp
            }
            (Some("failed"), Some(_), _) => found,
            _ => return Err(Flaw::Foreign("it has a line of an unknown kind".into())),
        };
    }
    let reason = reason.filter(|_| found == Found::GivenUp);
    let crash = crash.filter(|_| found == Found::Crashed);
    Ok(Said { intent, found, reason, crash, leader, ready, stable })
}

/// A line that is none of ours.
fn foreign(line: &str, error: &serde_json::Error) -> Flaw {
    Flaw::Foreign(match serde_json::from_str(line) {
        Ok(AnyFormat { format }) if format != FORMAT => format!("its format is {format}"),
        _ => error.to_string(),
    })
}

/// A process whose pidfd has no number has two alone.
fn identity(process: &str) -> Option<Identity> {
    let mut numbers = process.splitn(3, ' ');
    let (pid, start_time) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    let number = numbers.next().map(|number| number.parse().ok()).map_or(Some(None), |number| number.map(Some))?;
    Some(Identity { pid, start_time, number })
}

/// The text of a line whose checksum is right.
fn unsealed(line: &[u8]) -> Option<&str> {
    let (text, sum) = line.split_at_checked(line.len().checked_sub(10)?)?;
    let sum = std::str::from_utf8(sum.strip_prefix(b" #")?).ok()?;
    let sum = u32::from_str_radix(sum, 16).ok().filter(|_| !sum.starts_with('+'))?;
    (crc32fast::hash(text) == sum).then(|| std::str::from_utf8(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceName, NodeName, Role};

    fn intent(life: u64) -> Vec<u8> {
        let node = Node::new(NodeName::new("a").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
        let (life, boot, node, past) = (Life(life), "b".into(), Cow::Owned(node), Past { attempt: 3, ago: vec![5] });
        let intent =
            Intent { format: FORMAT, boot, pid_namespace: 1, life, guessed: false, past, at: 9, groups: None, node };
        sealed(&serde_json::to_string(&intent).unwrap())
    }

    fn record() -> Vec<u8> {
        let mut bytes = intent(7);
        bytes.extend(sealed(&launched(Life(7), PROCESS)));
        bytes
    }

    const PROCESS: Identity = Identity { pid: 42, start_time: 1000, number: Some(77) };

    #[test]
    fn whatever_byte_is_changed_or_cut_off_nothing_false_is_believed() {
        let whole = record();
        let said = read(&whole).unwrap();
        assert_eq!(said.found, Found::Launched(PROCESS));
        for at in 0..whole.len() {
            for change in [1u8, 0x20, 0x80] {
                let mut garbled = whole.clone();
                garbled[at] ^= change;
                match read(&garbled) {
                    // The end of the last line is gone, or that of the first: what is left of it counts, or nothing.
                    Ok(got) => assert!(
                        got == said || got.found == Found::Intended && got.intent == said.intent,
                        "byte {at}: {got:?}"
                    ),
                    Err(flaw) => assert!(matches!(flaw, Flaw::Damaged(_)), "byte {at}: {flaw:?}"),
                }
            }
            match read(&whole[..at]) {
                Ok(got) => assert_eq!((got.intent, got.found), (said.intent.clone(), Found::Intended), "{at} bytes"),
                Err(flaw) => assert!(matches!(flaw, Flaw::Damaged(_) | Flaw::Empty), "{at} bytes: {flaw:?}"),
            }
        }
    }

    #[test]
    fn the_last_intent_counts_and_one_that_is_cut_off_changes_nothing() {
        let mut bytes = record();
        let former = read(&bytes).unwrap();
        let next = intent(8);
        for cut in 0..next.len() {
            assert_eq!(read(&[&bytes[..], &next[..cut]].concat()), Ok(former.clone()), "{cut}");
        }
        bytes.extend(next);
        for late in [launched(Life(7), Identity::new(43, 1001)), "stopped 7".into()] {
            bytes.extend(sealed(&late));
            let said = read(&bytes).unwrap();
            assert_eq!((said.intent.life, said.found), (Life(8), Found::Intended), "{late} is of the life before");
        }
        bytes.extend(sealed(&launched(Life(8), Identity::new(44, 1002))));
        assert_eq!(read(&bytes).unwrap().found, Found::Launched(Identity::new(44, 1002)));
    }

    #[test]
    fn damage_counts_from_the_last_intent_on() {
        let whole = [record(), intent(8), sealed(&launched(Life(8), Identity::new(44, 1002)))].concat();
        let (said, begin) = (read(&whole).unwrap(), record().len());
        for at in 0..whole.len() {
            let mut garbled = whole.clone();
            garbled[at] ^= 1;
            match read(&garbled) {
                Ok(got) if at < begin - 1 => assert_eq!(got, said, "byte {at}"),
                // The newline before it is gone, or that at the end.
                Ok(got) => assert!(at == whole.len() - 1 && got.found == Found::Intended, "byte {at}: {got:?}"),
                Err(flaw) => assert!(at >= begin - 1 && matches!(flaw, Flaw::Damaged(_)), "byte {at}: {flaw:?}"),
            }
        }
    }

    #[test]
    fn what_another_release_wrote_is_told_from_what_is_damaged() {
        for text in ["{\"format\":1,\"node\":{}}\n".to_owned().into_bytes(), sealed("{\"format\":9}")] {
            assert!(matches!(read(&text), Err(Flaw::Foreign(_))), "{:?}", read(&text));
        }
        for later in ["paused 7", "pid 7 42", "pid 7 42 x", "pid 7 42 1000 x", "pid 7 42 1000 77 1"] {
            let record = [record(), sealed(later)].concat();
            assert!(matches!(read(&record), Err(Flaw::Foreign(_))), "{later}");
        }
    }

    #[test]
    fn a_record_whose_beginning_was_lost_counts_from_the_next_intent_on() {
        let lost = [&[0; 4096][..], &sealed("stopped 6")].concat();
        for nothing in [&b""[..], b"\0\0\0\0", &lost] {
            assert_eq!(read(nothing), Err(Flaw::Empty));
        }
        assert_eq!(read(&[lost, record()].concat()), read(&record()));
    }

    #[test]
    fn a_life_that_ended_and_waits_says_until_when_and_what_comes_later_counts() {
        let crash = Crash { past: Past { attempt: 2, ago: vec![9, 0] }, at: 50, due: 90, reason: "x\ny".into() };
        let line = |life| sealed(&crashed(Life(life), &crash).unwrap());
        let mut bytes = [record(), sealed(&ready(Life(7)))].concat();
        assert!(read(&bytes).unwrap().ready && !read(&bytes).unwrap().stable);
        bytes.extend([sealed(&stable(Life(6))), sealed(&stable(Life(7)))].concat());
        assert!(read(&bytes).unwrap().stable);
        bytes.extend(line(6));
        assert!(matches!(read(&bytes).unwrap().found, Found::Launched { .. }), "an earlier life");
        for waits in [line(7), line(8)] {
            let said = read(&[&bytes[..], &waits].concat()).unwrap();
            assert_eq!((said.found, said.crash.as_ref(), said.leader), (Found::Crashed, Some(&crash), Some(42)));
            for (end, found) in [("stopped 7", Found::Stopped), ("failed 7 why", Found::GivenUp)] {
                let said = read(&[&bytes[..], &waits, &sealed(end)].concat()).unwrap();
                assert_eq!((said.found, said.crash), (found, None), "{end}");
                let late = [&bytes[..], &sealed(end), &line(7)].concat();
                assert_eq!(read(&late).unwrap().found, found, "it was {end} before that was written");
            }
            let said = read(&[&bytes[..], &waits, &sealed("stopped 8")].concat()).unwrap();
            assert_eq!(said.found, Found::Stopped, "of a life whose launch was never intended");
        }
        let next = read(&[&bytes[..], &line(7), &intent(8)].concat()).unwrap();
        assert_eq!((next.found, next.crash, next.leader), (Found::Intended, None, None));
        assert!(!next.ready && !next.stable);
    }

    #[test]
    fn a_node_that_was_given_up_says_why() {
        let mut bytes = record();
        bytes.extend(sealed(&given_up(Life(6), "an earlier life")));
        assert!(matches!(read(&bytes).unwrap().found, Found::Launched { .. }));
        bytes.extend(sealed(&given_up(Life(7), "given up after 3 restarts within 1m; last: x\ny")));
        let said = read(&bytes).unwrap();
        assert_eq!(said.found, Found::GivenUp);
        assert_eq!(said.reason.unwrap(), "given up after 3 restarts within 1m; last: x y");
        bytes.extend(sealed("stopped 7"));
        let said = read(&bytes).unwrap();
        assert_eq!((said.found, said.reason), (Found::Stopped, None), "whoever asked is heeded");
        let long = given_up(Life(7), &"ä".repeat(5000));
        assert_eq!(long.chars().count(), LONGEST_REASON + "failed 7 ".len());
    }
}

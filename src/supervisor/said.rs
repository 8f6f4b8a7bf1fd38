//! What nodes say of themselves, in the words of `sd_notify`.

use std::time::Duration;

use crate::model::Text;

/// How much of a status is kept, in bytes.
const LONGEST: usize = 240;
/// The most time that a node gets by asking once: whoever needs longer still lives, and asks again.
const LONGEST_EXTENSION: Duration = Duration::from_secs(3600);

/// What a node said since it was listened to before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// `READY=1`.
    pub ready: bool,
    /// `WATCHDOG=1`.
    pub lives: bool,
    /// `WATCHDOG=trigger`: it knows that it hangs.
    pub hangs: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `STATUS=`, the last one; one that is empty takes back what was said before.
    pub status: Option<Text>,
    /// `EXTEND_TIMEOUT_USEC=`, the last one; an hour at most.
    pub extend: Option<Duration>,
    /// Said what is not for it to say here, such as `MAINPID=`.
    pub misunderstood: bool,
}

impl Said {
    /// Takes in a datagram: lines of the form `NAME=value`. What is not known says nothing, and lines that make no sense
    /// take nothing away from others.
    pub fn hear(&mut self, datagram: &[u8]) {
        for line in datagram.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            match (&line[..at], &line[at + 1..]) {
                (b"READY", b"1") => self.ready = true,
                (b"WATCHDOG", b"1") => self.lives = true,
                (b"WATCHDOG", b"trigger") => self.hangs = true,
                (b"STOPPING", b"1") => self.stopping = true,
                (b"STATUS", status) => self.status = Some(clean(status)),
                (b"EXTEND_TIMEOUT_USEC", time) => self.extend = micros(time).or(self.extend),
                (b"MAINPID" | b"MAINPIDFDID" | b"MAINPIDFD" | b"FDSTORE", _) => self.misunderstood = true,
                _ => {}
            }
        }
    }

    /// Whether nothing was said that means anything here.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A text that can be shown anywhere: of one line, without control characters, and not too long.
fn clean(status: &[u8]) -> Text {
    // What is far too long need not be looked at to its end.
    let status = String::from_utf8_lossy(&status[..status.len().min(2 * LONGEST)]);
    let status: String = status.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect();
    let status = status.trim();
    let mut end = status.len().min(LONGEST);
    while !status.is_char_boundary(end) {
        end -= 1;
    }
    match end < status.len() {
        true => format!("{}…", status[..end].trim_end()).into(),
        false => status.into(),
    }
}

/// Control characters, and those that turn the direction of what stands behind them.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn micros(digits: &[u8]) -> Option<Duration> {
    let asked = std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_micros)?;
    Some(asked.min(LONGEST_EXTENSION))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(datagrams: &[&str]) -> Said {
        let mut said = Said::default();
        datagrams.iter().for_each(|datagram| said.hear(datagram.as_bytes()));
        said
    }

    #[test]
    fn each_word_means_what_it_means_to_systemd() {
        let nothing = Said::default;
        for (datagram, want) in [
            ("READY=1", Said { ready: true, ..nothing() }),
            ("WATCHDOG=1\n", Said { lives: true, ..nothing() }),
            ("WATCHDOG=trigger", Said { hangs: true, ..nothing() }),
            ("STOPPING=1", Said { stopping: true, ..nothing() }),
            ("STATUS=a=b", Said { status: Some("a=b".into()), ..nothing() }),
            ("READY=1\nSTATUS=up\nX=y", Said { ready: true, status: Some("up".into()), ..nothing() }),
            ("EXTEND_TIMEOUT_USEC=1500000", Said { extend: Some(Duration::from_millis(1500)), ..nothing() }),
            ("EXTEND_TIMEOUT_USEC=3600000001", Said { extend: Some(LONGEST_EXTENSION), ..nothing() }),
            ("EXTEND_TIMEOUT_USEC=18446744073709551615", Said { extend: Some(LONGEST_EXTENSION), ..nothing() }),
            ("MAINPID=1", Said { misunderstood: true, ..nothing() }),
            ("RELOADING=1\nMONOTONIC_USEC=5\nBARRIER=1", nothing()),
            ("READY=0\nREADY=11\nready=1\nREADY\n=1\n\n==\nEXTEND_TIMEOUT_USEC=-1", nothing()),
        ] {
            assert_eq!(heard(&[datagram]), want, "{datagram:?}");
        }
    }

    #[test]
    fn of_several_the_last_status_counts() {
        let said = heard(&["STATUS=one\nREADY=1", "STATUS=two", "WATCHDOG=1"]);
        assert_eq!((said.status, said.ready, said.lives), (Some("two".into()), true, true));
        assert_eq!(heard(&["STATUS=one", "STATUS="]).status, Some("".into()), "and may be taken back");
    }

    #[test]
    fn a_status_is_one_line_that_no_terminal_obeys() {
        let status = |text: &[u8]| {
            let mut said = Said::default();
            said.hear(&[b"STATUS=", text].concat());
            said.status.unwrap().to_string()
        };
        assert_eq!(status(b" \x1b[31mred\x07\t "), "[31mred");
        assert_eq!(status(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(status("a\u{202e}b".as_bytes()), "a b");
        let long = status("ü".repeat(4000).as_bytes());
        assert!(long.len() <= LONGEST + 3 && long.ends_with("ü…"), "{long}");
    }

    proptest! {
        #[test]
        fn whatever_bytes_are_said_the_status_stays_short_and_clean(
            datagrams in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..600), ".{0,300}".prop_map(|text| {
                    format!("STATUS={text}").into_bytes()
                })],
                0..6,
            ),
        ) {
            let mut said = Said::default();
            datagrams.iter().for_each(|datagram| said.hear(datagram));
            if let Some(status) = said.status {
                prop_assert!(status.as_str().len() <= LONGEST + 3 && !status.as_str().contains(is_invisible));
            }
        }
    }
}

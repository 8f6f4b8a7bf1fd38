//! Bytes → what they mean on a link, without a socket: first the magic, then the greeting, then mail.
//!
//! What a peer may make this end keep grows with what is known of it: only one that has said something sensible may
//! send long frames.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;

use super::LinkSettings;
use super::error::LinkError;
use super::greeting::{Admitted, Control, FIRST_MAIL_KIND, MAGIC};
use super::secure::Certified;
use crate::message::frame::{self, FrameError, MAX_FIRST, MAX_FRAME, MAX_GREETING, Wire};

/// How many kinds a peer may send that are not understood here. One release knows a few kinds that another does not;
/// more than that is noise.
const MAX_UNKNOWN: usize = 64;

/// The first byte of the first record of whoever speaks TLS; the second is the 3 of all its versions.
const TLS_ALERT: u8 = 21;
const TLS_HANDSHAKE: u8 = 22;

/// What was read from a peer so far, as far as it decides how the next bytes are read.
pub(super) struct Intake<In> {
    stage: Stage,
    settings: Rc<LinkSettings>,
    expect: Option<String>,
    certified: Certified,
    /// Kinds that came and were skipped.
    unknown: BTreeSet<u16>,
    /// Kinds of ours that the peer said it skipped.
    disowned: BTreeSet<u16>,
    messages: PhantomData<fn() -> In>,
}

enum Stage {
    Magic,
    Greeting,
    /// Greeted; the first message is still to come.
    First,
    Open,
}

/// What some bytes meant.
pub(super) struct Arrived<In> {
    /// Set once per link: the peer was accepted.
    pub admitted: Option<Admitted>,
    /// In order.
    pub messages: Vec<In>,
    /// Kinds to answer with "not understood"; each once.
    pub unknown: Vec<Kind>,
    /// Kinds that the peer says it does not understand; each once.
    pub disowned: Vec<Kind>,
    /// What came behind all that and ends the link.
    pub broken: Option<LinkError>,
}

/// A kind of frames that one of the ends does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub kind: u16,
    /// Whether this is the first that is heard of it on this link.
    pub is_news: bool,
}

impl<In: Wire> Intake<In> {
    /// An intake that accepts the peers that `settings` do, of the name `expect` if there is one, and that their
    /// certificate names if one was asked for.
    pub fn new(settings: Rc<LinkSettings>, expect: Option<String>, certified: Certified) -> Self {
        let (unknown, disowned) = (BTreeSet::new(), BTreeSet::new());
        Self { stage: Stage::Magic, settings, expect, certified, unknown, disowned, messages: PhantomData }
    }

    /// Reads everything that is whole at the beginning of `bytes`; also says how much that was.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, Arrived<In>) {
        let mut arrived =
            Arrived { admitted: None, messages: Vec::new(), unknown: Vec::new(), disowned: Vec::new(), broken: None };
        let mut used = 0;
        loop {
            match self.take_one(&bytes[used..], &mut arrived) {
                Ok(0) => return (used, arrived),
                Ok(size) => used += size,
                Err(error) => {
                    arrived.broken = Some(error);
                    return (used, arrived);
                }
            }
        }
    }

    /// Reads one thing, or all that is read elsewhere, and says how many bytes it was; 0 if it is not whole yet.
    fn take_one(&mut self, bytes: &[u8], arrived: &mut Arrived<In>) -> Result<usize, LinkError> {
        if let Stage::Magic = self.stage {
            let Some(first) = bytes.first_chunk::<4>() else { return Ok(0) };
            if *first != MAGIC {
                return Err(match first {
                    [TLS_ALERT | TLS_HANDSHAKE, 3, ..] => LinkError::SpeaksTls,
                    _ => LinkError::NotWatchpost(*first),
                });
            }
            self.stage = Stage::Greeting;
            return Ok(MAGIC.len());
        }
        let limit = match self.stage {
            Stage::Magic | Stage::Greeting => MAX_GREETING,
            Stage::First => MAX_FIRST,
            Stage::Open => MAX_FRAME,
        };
        let Some(frame) = frame::split(bytes, limit)? else { return Ok(0) };
        if frame.kind < FIRST_MAIL_KIND {
            self.control(&frame, arrived)?;
        } else if let Stage::Open = self.stage
            && let gathered @ 1.. = In::gather(&frame, bytes, &mut arrived.messages)
        {
            return Ok(gathered); // read by whoever gets it
        } else if let Stage::First | Stage::Open = self.stage {
            if arrived.messages.capacity() == 0 {
                // Most batches hold one kind of message, so the first frame tells how many fit into these bytes.
                arrived.messages.reserve((bytes.len() / frame.size).clamp(1, 4096));
            }
            match In::decode(frame.kind, frame.body) {
                Ok(message) => {
                    arrived.messages.push(message);
                    self.stage = Stage::Open;
                }
                Err(FrameError::UnknownKind { kind }) => self.skip(kind, arrived)?,
                Err(error) => return Err(error.into()),
            }
        } else {
            return Err(LinkError::NotAGreeting(frame.kind));
        }
        Ok(frame.size)
    }

    fn control(&mut self, frame: &frame::Frame<'_>, arrived: &mut Arrived<In>) -> Result<(), LinkError> {
        if frame.size > MAX_GREETING {
            return Err(FrameError::TooLong { length: frame.size, limit: MAX_GREETING }.into());
        }
        match (Control::decode(frame.kind, frame.body), &self.stage) {
            (Ok(Control::Refused(refused)), _) => Err(LinkError::RefusedByPeer(refused.reason)),
            (Ok(Control::Greeting(greeting)), Stage::Greeting) => {
                self.certified.vouches_for(&greeting)?;
                arrived.admitted = Some(greeting.admit(&self.settings, self.expect.as_deref())?);
                self.stage = Stage::First;
                Ok(())
            }
            (Ok(Control::Heartbeat(_) | Control::NotUnderstood(_)), Stage::Greeting)
            | (Err(FrameError::UnknownKind { .. }), Stage::Greeting) => Err(LinkError::NotAGreeting(frame.kind)),
            (Ok(Control::Greeting(_)), _) => Err(LinkError::GreetedTwice),
            (Ok(Control::Heartbeat(_)), _) => Ok(()),
            (Ok(Control::NotUnderstood(skipped)), _) => {
                // It was sent no more kinds than that.
                if self.disowned.len() < MAX_UNKNOWN || self.disowned.contains(&skipped.kind) {
                    note(skipped.kind, &mut self.disowned, &mut arrived.disowned);
                }
                Ok(())
            }
            (Err(FrameError::UnknownKind { kind }), _) => self.skip(kind, arrived),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn skip(&mut self, kind: u16, arrived: &mut Arrived<In>) -> Result<(), LinkError> {
        note(kind, &mut self.unknown, &mut arrived.unknown);
        match self.unknown.len() {
            count if count > MAX_UNKNOWN => Err(LinkError::Babble(count)),
            _ => Ok(()),
        }
    }
}

/// Notes a kind once for what has arrived, and whether it is a new one.
fn note(kind: u16, known: &mut BTreeSet<u16>, arrived: &mut Vec<Kind>) {
    let is_news = known.insert(kind);
    if is_news || arrived.iter().all(|other| other.kind != kind) {
        arrived.push(Kind { kind, is_news });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bridge::LinkRole;
    use crate::bridge::greeting::{Greeting, Heartbeat, NotUnderstood};
    use crate::message::agent::{AgentWelcomeResponse, NewsReceived, ToAgent, ToController};

    fn intake() -> Intake<ToAgent> {
        Intake::new(Rc::new(LinkSettings::new(LinkRole::Agent, "sensor-1", "lab")), None, Certified::Nobody)
    }

    type Append<'a> = &'a dyn Fn(&mut Vec<u8>);

    fn greeted(frames: &[Append<'_>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let greeting = Greeting::of(&LinkSettings::new(LinkRole::Controller, "control", "lab"));
        Control::from(greeting).append_to(&mut bytes).unwrap();
        frames.iter().for_each(|append| append(&mut bytes));
        bytes
    }

    fn news(seq: u64) -> impl Fn(&mut Vec<u8>) {
        move |out| ToAgent::from(NewsReceived { epoch: 1, seq, kept: seq }).append_to(out).unwrap()
    }

    fn kind(kind: u16) -> impl Fn(&mut Vec<u8>) {
        move |out| frame::append(out, kind, "Future", &"something new").unwrap()
    }

    fn broken(bytes: &[u8]) -> String {
        intake().take(bytes).1.broken.expect("these bytes are wrong").to_string()
    }

    #[test]
    fn four_wrong_bytes_are_enough_to_know_a_stranger() {
        assert!(broken(b"GET / HTTP/1.1").contains("does not speak this protocol"));
        let (used, arrived) = intake().take(b"WPS");
        assert!(used == 0 && arrived.broken.is_none(), "three right ones are not yet a mistake");
    }

    #[test]
    fn mail_before_the_greeting_is_refused() {
        let mut bytes = MAGIC.to_vec();
        news(1)(&mut bytes);
        assert!(broken(&bytes).contains("0x0109 instead of a greeting"));
    }

    #[test]
    fn a_long_greeting_is_refused_by_its_length() {
        let bytes = [&MAGIC[..], &(MAX_GREETING as u32).to_be_bytes()].concat();
        assert!(broken(&bytes).contains("over the limit of 4096"));
    }

    #[test]
    fn a_peer_that_has_said_nothing_yet_begins_with_something_short() {
        let claim = |length: usize| move |out: &mut Vec<u8>| out.extend((length as u32).to_be_bytes());
        let (long, longest) = (claim(MAX_FIRST), claim(MAX_FRAME - 4));
        for early in [greeted(&[&long]), greeted(&[&kind(0x0777), &long])] {
            assert!(broken(&early).contains("over the limit of 65536"));
        }
        let (_, arrived) = intake().take(&greeted(&[&news(1), &longest]));
        assert!(arrived.broken.is_none());
    }

    #[test]
    fn what_was_said_before_a_mistake_still_counts() {
        let (_, arrived) = intake().take(&greeted(&[&news(1), &news(2), &|out| out.extend([0; 8])]));
        assert_eq!(arrived.messages.len(), 2);
        assert!(arrived.broken.is_some());
    }

    #[test]
    fn a_kind_from_the_future_is_skipped_and_answered_whenever_it_comes() {
        let mut intake = intake();
        let (_, arrived) = intake.take(&greeted(&[&kind(0x0777), &news(1), &kind(0x0777), &kind(0x0042)]));
        let first = |kind| Kind { kind, is_news: true };
        assert_eq!((arrived.unknown, arrived.messages.len()), (vec![first(0x0777), first(0x0042)], 1));
        assert!(arrived.broken.is_none());
        let mut again = Vec::new();
        kind(0x0777)(&mut again);
        let (_, arrived) = intake.take(&again);
        assert_eq!(arrived.unknown, [Kind { kind: 0x0777, is_news: false }]);
    }

    #[test]
    fn a_peer_that_sends_ever_new_kinds_is_refused() {
        let mut bytes = greeted(&[]);
        (0..1000).for_each(|number| kind(0x4000 + number)(&mut bytes));
        assert!(broken(&bytes).contains("65 different kinds"));
    }

    #[test]
    fn the_frames_of_the_link_are_no_mail() {
        let control = |frame: Control| move |out: &mut Vec<u8>| frame.append_to(out).unwrap();
        let disowned = control(NotUnderstood { kind: 0x0203 }.into());
        let (_, arrived) = intake().take(&greeted(&[&control(Heartbeat {}.into()), &disowned, &disowned]));
        assert_eq!((arrived.disowned, arrived.messages.len()), (vec![Kind { kind: 0x0203, is_news: true }], 0));
        assert!(broken(&greeted(&[&greeted_again])).contains("greeted twice"));
    }

    #[test]
    fn changes_stay_in_their_frames_behind_the_first_word_and_in_their_place() {
        let mut bytes = MAGIC.to_vec();
        let greeting = Greeting::of(&LinkSettings::new(LinkRole::Agent, "sensor-1", "lab"));
        Control::from(greeting).append_to(&mut bytes).unwrap();
        let damaged = [0, 0, 0, 5, 0x02, 0x12, 0, 0, 0xff];
        let early = [&bytes[..], &damaged].concat();
        assert!(intake_of(&early).broken.is_some(), "nobody begins with what cannot be read");
        let welcomed = |reqid: &str| {
            let mut bytes = Vec::new();
            let outcome = crate::model::Outcome::failed("no");
            let reqid = crate::model::RequestId::new(reqid).unwrap();
            ToController::from(AgentWelcomeResponse { reqid, outcome }).append_to(&mut bytes).unwrap();
            bytes
        };
        let all = [&bytes[..], &welcomed("1"), &damaged, &damaged, &welcomed("2"), &damaged].concat();
        let arrived = intake_of(&all);
        assert!(arrived.broken.is_none() && arrived.messages.len() == 4);
        let [_, ToController::News(first), ToController::AgentWelcomeResponse(_), ToController::News(second)] =
            &arrived.messages[..]
        else {
            panic!("{:?}", arrived.messages)
        };
        assert_eq!((first.bytes(), second.bytes()), (&[damaged, damaged].concat()[..], &damaged[..]));
    }

    fn intake_of(bytes: &[u8]) -> Arrived<ToController> {
        let settings = Rc::new(LinkSettings::new(LinkRole::Controller, "control", "lab"));
        Intake::new(settings, None, Certified::Nobody).take(bytes).1
    }

    fn greeted_again(out: &mut Vec<u8>) {
        out.extend(&greeted(&[])[MAGIC.len()..]);
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_it_means_the_same(cuts in prop::collection::vec(1..64_usize, 1..40)) {
            let bytes = greeted(&[&news(1), &kind(0x0777), &news(2), &news(3)]);
            let (mut intake, mut rest, mut messages) = (intake(), Vec::new(), Vec::new());
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                rest.extend_from_slice(&bytes[at..end]);
                at = end;
                let (used, arrived) = intake.take(&rest);
                prop_assert!(arrived.broken.is_none());
                messages.extend(arrived.messages);
                rest.drain(..used);
                if at == bytes.len() { break; }
            }
            let want: Vec<_> = (1..=3).map(|seq| ToAgent::from(NewsReceived { epoch: 1, seq, kept: seq })).collect();
            prop_assert_eq!((messages, rest.len()), (want, 0));
        }

        #[test]
        fn no_bytes_make_it_panic(behind in prop::collection::vec(any::<u8>(), 0..600), greet in any::<bool>()) {
            let bytes = if greet { [greeted(&[&news(1)]), behind].concat() } else { behind };
            let (used, arrived) = intake().take(&bytes);
            prop_assert!(used <= bytes.len());
            prop_assert!(arrived.messages.len() <= bytes.len() / frame::HEADER);
        }
    }
}

//! Whatever a node writes into its channel is read within bounds, in whatever pieces it comes, and what is told of it can be
//! shown to anybody.
//!
//! The first byte says how long the pieces are. With a toolchain that is not nightly:
//!
//! ```text
//! cargo install cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -s none channel -- -max_total_time=60 -max_len=200000 -dict=fuzz/channel.dict
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::supervisor::channel::Heard;
use watchpost::supervisor::channel::decode::{Decoder, LONGEST_LINE};

/// How many questions are open.
const QUESTIONS: u64 = 3;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first() else { return };
    let (whole, rest) = hear(&mut std::iter::once(bytes));
    let (in_pieces, same_rest) = hear(&mut bytes.chunks(1 + usize::from(*length)));
    assert_eq!((&whole, rest), (&in_pieces, same_rest), "it does not matter how it came");

    assert!(rest <= LONGEST_LINE);
    assert!(whole.reports.len() <= 200 && whole.wrong.len() <= 7);
    assert!(whole.answers.len() as u64 <= QUESTIONS);
    let failures = whole.answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    let texts = whole.reports.iter().map(|report| &report.text).chain(&whole.hello).chain(failures).chain(&whole.wrong);
    for text in texts {
        assert!(text.len() <= 1100 && !text.contains(char::is_control), "{text:?}");
    }
});

/// What is heard of it, and how much of it is no line yet.
fn hear<'a>(pieces: &mut dyn Iterator<Item = &'a [u8]>) -> (Heard, usize) {
    let (mut decoder, mut heard) = (Decoder::default(), Heard::default());
    (1..=QUESTIONS).for_each(|number| decoder.await_answer(number));
    pieces.for_each(|piece| decoder.take(piece, &mut heard));
    let rest = decoder.pending();
    decoder.finish(&mut heard);
    (heard, rest)
}

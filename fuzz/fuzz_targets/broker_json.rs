//! Whatever a client sends is a value or an error, and what was read survives being written and read again.
//!
//! With the samples of the tests to begin from, and a toolchain that is not nightly:
//!
//! ```text
//! cargo install cargo-fuzz
//! mkdir -p fuzz/corpus/broker_json && split -l 1 -a 4 <(cat tests/golden/broker/*.jsonl) fuzz/corpus/broker_json/
//! RUSTC_BOOTSTRAP=1 cargo fuzz run broker_json -- -max_total_time=60
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::web::broker::frame::topics_from_json;
use watchpost::web::broker::{Publication, Value};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = Value::from_json(bytes) {
        let text = value.to_json();
        assert_eq!(Value::from_json(text.as_bytes()).expect("what was written can be read"), value);
    }
    if let Ok(publication) = Publication::from_json(bytes) {
        let text = publication.to_json();
        assert_eq!(Publication::from_json(&text).expect("what was written can be read"), publication);
    }
    if let Ok(topics) = topics_from_json(bytes) {
        assert!(topics.is_sorted());
    }
});

//! Whatever a file in a queue of logs is called leads to one place in the archive, or to none: never out of it, and never to
//! what is no log there.
//!
//! With a toolchain that is not nightly:
//!
//! ```text
//! cargo install cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -s none log_names -- -max_total_time=60 -dict=fuzz/log_names.dict
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::archive::name::{Moment, Rotated, is_archived, is_day, left_open};

fuzz_target!(|name: &str| {
    if let Some(moment) = Moment::read(name) {
        assert_eq!(moment.to_string(), name);
    }
    if let Some((stem, extension)) = left_open(name) {
        assert_eq!(format!("{stem}{extension}"), name);
        assert!(!stem.contains('/') && !stem.starts_with('.'));
    }
    let _ = (is_archived(name), is_day(name));
    let Some(log) = Rotated::read(name) else { return };
    if log.logger.is_none() {
        assert_eq!(Rotated::read(&log.queued()).as_ref(), Some(&log), "{}", log.queued());
    }
    for (logger, compress, copy) in [(None, Some("gz"), 1), (Some("logger-1"), None, 2)] {
        let place = log.destination(logger, compress, copy);
        assert!(is_day(&place.day), "{place:?}");
        assert!(is_archived(&place.file) && !place.file.contains('/') && !place.file.contains(char::is_control), "{place:?}");
        assert!(!(place.pack && log.is_packed()));
    }
});

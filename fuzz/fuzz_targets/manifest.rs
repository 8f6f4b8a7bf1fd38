//! Whatever bytes call themselves the list of a bundle's files: they are refused, or are the one way to write that list, and
//! nothing in it leads out of the bundle.
//!
//! With a toolchain that is not nightly:
//!
//! ```text
//! cargo install cargo-fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -s none manifest -- -max_total_time=60
//! ```
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use watchpost::bundle::{Kind, LARGEST_BUNDLE, LONGEST_FILE, MOST_ENTRIES, Manifest};

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how the rest is written.
    let bytes = [&[1], bytes].concat();
    let Ok(manifest) = Manifest::decode(&bytes) else { return };
    assert_eq!(manifest.encode(), bytes);
    assert!(manifest.entries().len() <= MOST_ENTRIES && manifest.size() <= LARGEST_BUNDLE);
    let mut directories = BTreeSet::new();
    for entry in manifest.entries() {
        let path = entry.path.as_str();
        assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
        assert!(!path.contains(char::is_control) && entry.mode & !0o777 == 0);
        assert!(entry.path.parent().is_none_or(|parent| directories.contains(parent)), "{path}");
        match entry.kind {
            Kind::Directory => drop(directories.insert(path)),
            Kind::File { size, .. } => assert!(size <= LONGEST_FILE),
        }
    }
    assert_eq!(Manifest::new(manifest.entries().to_vec()).map(|again| again.id()).ok(), Some(manifest.id()));
});

//! The keys of `[zeek]` that say what becomes of logs that were rotated.

use humantime::format_duration;

use super::render::list;
use super::values::{parsed, time, words, yes_or_no};
use super::words::join;
use crate::hint::shown;
use crate::model::archive::MOST_FREE;
use crate::model::{ArchivePlace, ArchiveRules, Bytes};

pub(super) const KEYS: [&str; 9] = [
    "archive",
    "archive_compress",
    "archive_compressor",
    "archive_extension",
    "archive_command",
    "archive_keep",
    "archive_keep_age",
    "archive_keep_bytes",
    "archive_min_free",
];

/// What stands for no archive at all.
const NONE: &str = "none";

/// Takes one of these keys.
pub(super) fn take(rules: &mut ArchiveRules, key: &str, value: &str) -> Result<(), String> {
    match key {
        "archive" => {
            rules.place = match value {
                NONE => ArchivePlace::Nowhere,
                path if path.starts_with('/') => ArchivePlace::At(path.to_owned()),
                _ => {
                    return Err(format!("{} is no absolute directory: write such as /srv/logs, or none", shown(value)));
                }
            }
        }
        "archive_compress" => rules.compress = yes_or_no(value)?,
        "archive_compressor" => rules.compressor = words(value)?,
        "archive_extension" => rules.extension = extension(value)?,
        "archive_keep" => rules.keep = words(value)?,
        "archive_command" => rules.command = words(value)?,
        "archive_keep_age" => rules.keep_age = Some(time(value)?),
        "archive_keep_bytes" => rules.keep_bytes = Some(parsed::<Bytes>(value, "amount")?.0),
        _ => rules.min_free = min_free(value)?,
    }
    Ok(())
}

fn extension(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('.').unwrap_or(text);
    match ArchiveRules::is_extension(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{} is no extension: write letters and digits such as zst", shown(text))),
    }
}

fn min_free(text: &str) -> Result<u8, String> {
    // Without the sign, which would have to be written twice.
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|number| *number <= MOST_FREE);
    number.ok_or_else(|| format!("{} is not a number of percent from 0 to {MOST_FREE}", shown(text)))
}

/// The keys that are not at their default.
pub(super) fn entries(rules: &ArchiveRules) -> [(&'static str, Option<String>); 9] {
    let default = ArchiveRules::default();
    let place = match &rules.place {
        ArchivePlace::Usual => None,
        ArchivePlace::Nowhere => Some(NONE.to_owned()),
        ArchivePlace::At(path) => Some(path.clone()),
    };
    [
        ("archive", place),
        ("archive_compress", (rules.compress != default.compress).then(|| yes(rules.compress).to_owned())),
        ("archive_compressor", list(join(&rules.compressor))),
        ("archive_extension", (rules.extension != default.extension).then(|| rules.extension.clone())),
        ("archive_command", list(join(&rules.command))),
        ("archive_keep", list(join(&rules.keep))),
        ("archive_keep_age", rules.keep_age.map(|age| format_duration(age).to_string())),
        ("archive_keep_bytes", rules.keep_bytes.map(|bytes| Bytes(bytes).to_string())),
        ("archive_min_free", (rules.min_free != default.min_free).then(|| rules.min_free.to_string())),
    ]
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

//! Which archived logs are let go: those that are too old, and the oldest of those that are too much.

use std::time::{Duration, SystemTime};

use super::name::{is_archived, is_day};
use super::pattern;
use crate::model::ArchiveRules;

/// A file in a directory of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub day: String,
    pub file: String,
    pub modified: SystemTime,
    pub bytes: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Oldest first.
    pub remove: Vec<Kept>,
    /// When the next one becomes too old.
    pub next: Option<SystemTime>,
    /// Whether there is more to remove than was asked for.
    pub more: bool,
}

/// Decides what of `found` goes, at most `most` files at once. Whatever is no archived log stays, and does not count; so do
/// logs of names that are to be kept.
pub fn plan(found: impl IntoIterator<Item = Kept>, rules: &ArchiveRules, now: SystemTime, most: usize) -> Plan {
    let stays = |kept: &Kept| rules.keep.iter().any(|pattern| pattern::matches(pattern, &kept.file));
    let is_log = |kept: &Kept| is_day(&kept.day) && is_archived(&kept.file) && !stays(kept);
    let mut kept: Vec<Kept> = found.into_iter().filter(is_log).collect();
    kept.sort_by(|a, b| (a.modified, &a.day, &a.file).cmp(&(b.modified, &b.day, &b.file)));
    let mut bytes = kept.iter().fold(0_u64, |sum, kept| sum.saturating_add(kept.bytes));
    let is_too_old = |kept: &Kept, age: Duration| now.duration_since(kept.modified).is_ok_and(|old| old >= age);
    let goes = kept.iter().take_while(|kept| {
        let is_old = rules.keep_age.is_some_and(|age| is_too_old(kept, age));
        let goes = is_old || rules.keep_bytes.is_some_and(|most| bytes > most);
        if goes {
            bytes = bytes.saturating_sub(kept.bytes);
        }
        goes
    });
    let goes = goes.count();
    let next = kept.get(goes).zip(rules.keep_age).and_then(|(oldest, age)| oldest.modified.checked_add(age));
    kept.truncate(goes.min(most));
    Plan { remove: kept, next, more: goes > most }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn log(hour: u8, seconds: u64, bytes: u64) -> Kept {
        let file = format!("conn.{hour:02}:00:00-{hour:02}:30:00.log.gz");
        Kept { day: "2026-01-31".into(), file, modified: at(seconds), bytes }
    }

    fn rules(keep_age: Option<u64>, keep_bytes: Option<u64>) -> ArchiveRules {
        ArchiveRules { keep_age: keep_age.map(Duration::from_secs), keep_bytes, ..ArchiveRules::default() }
    }

    fn hours(plan: &Plan) -> Vec<&str> {
        plan.remove.iter().map(|kept| &kept.file[5..7]).collect()
    }

    #[test]
    fn nothing_goes_unless_the_rules_say_so() {
        assert_eq!(plan([log(1, 0, 1 << 40)], &rules(None, None), at(1 << 40), 10), Plan::default());
    }

    #[test]
    fn the_old_and_the_oldest_of_too_much_go() {
        let found = || [log(3, 300, 10), log(1, 100, 10), log(2, 200, 10)];
        let by_age = plan(found(), &rules(Some(1000), None), at(1200), 10);
        assert_eq!((hours(&by_age), by_age.next), (vec!["01", "02"], Some(at(1300))));
        let by_bytes = plan(found(), &rules(None, Some(20)), at(0), 10);
        assert_eq!((hours(&by_bytes), by_bytes.next), (vec!["01"], None));
        let both = plan(found(), &rules(Some(1000), Some(5)), at(1100), 10);
        assert_eq!((hours(&both), both.next), (vec!["01", "02", "03"], None));
        let few = plan(found(), &rules(None, Some(0)), at(0), 2);
        assert_eq!((hours(&few), few.more), (vec!["01", "02"], true));
    }

    #[test]
    fn logs_of_names_that_are_to_be_kept_stay_and_do_not_count() {
        let found = || [log(1, 100, 10), log(2, 200, 10), log(3, 300, 10)];
        let keep = vec!["conn.01:*".to_owned(), "dns.*".to_owned()];
        let by_age = plan(found(), &ArchiveRules { keep: keep.clone(), ..rules(Some(10), None) }, at(1200), 10);
        assert_eq!(hours(&by_age), ["02", "03"]);
        let by_bytes = plan(found(), &ArchiveRules { keep, ..rules(None, Some(10)) }, at(0), 10);
        assert_eq!(hours(&by_bytes), ["02"]);
    }

    fn any_file() -> impl Strategy<Value = Kept> {
        let names = prop::sample::select(vec![
            ("2026-01-31", "conn.10:00:00-11:00:00.log.gz"),
            ("2026-02-01", "dns.10:00:00-11:00:00-logger-1.log"),
            ("2026-02-01", ".tmp.dns.10:00:00-11:00:00.log"),
            ("2026-02-01", "notes.txt"),
            ("stats", "conn.10:00:00-11:00:00.log.gz"),
        ]);
        (names, 0_u64..1000, 0_u64..100).prop_map(|((day, file), modified, bytes)| Kept {
            day: day.into(),
            file: file.into(),
            modified: at(modified),
            bytes,
        })
    }

    proptest! {
        #[test]
        fn only_archived_logs_go_the_oldest_first_no_more_than_asked_and_no_more_than_needed(
            found in prop::collection::vec(any_file(), 0..40),
            keep_age in prop::option::of(0_u64..1500),
            keep_bytes in prop::option::of(0_u64..2000),
            now in 0_u64..2000,
            most in 1_usize..40,
        ) {
            let rules = rules(keep_age, keep_bytes);
            let Plan { remove, more, .. } = plan(found.clone(), &rules, at(now), most);
            let is_log = |kept: &Kept| is_day(&kept.day) && is_archived(&kept.file);
            prop_assert!(remove.len() <= most);
            prop_assert!(remove.iter().all(|kept| is_log(kept) && found.contains(kept)));
            prop_assert!(remove.windows(2).all(|pair| pair[0].modified <= pair[1].modified));
            let mut left: Vec<Kept> = found.iter().filter(|kept| is_log(kept)).cloned().collect();
            for gone in &remove {
                let at = left.iter().position(|kept| kept == gone).unwrap();
                left.remove(at);
            }
            if let Some(last) = remove.last() {
                prop_assert!(left.iter().all(|kept| kept.modified >= last.modified), "none that is older stays");
                let sum = |kept: &[Kept]| kept.iter().map(|kept| kept.bytes).sum::<u64>();
                let was_old = keep_age.is_some_and(|age| at(now).duration_since(last.modified).is_ok_and(|old| old.as_secs() >= age));
                let was_much = keep_bytes.is_some_and(|most| sum(&left) + last.bytes > most);
                prop_assert!(was_old || was_much, "the last one had to go");
            }
            if !more {
                let again = plan(left, &rules, at(now), most);
                prop_assert!(again.remove.is_empty());
            }
        }
    }
}

//! The disks that are watched, each once, however many directories are on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::guard::{Crossing, Guard, Level, Room, next_look};
use super::shelf::{disk, room};

/// When a disk is looked at again that does not say how full it is.
const MUTE: Duration = Duration::from_secs(60);

/// Disks by a directory on each.
#[derive(Debug, Default)]
pub(super) struct Disks(BTreeMap<PathBuf, Disk>);

#[derive(Debug, Default)]
struct Disk {
    guard: Guard,
    seen: Option<(Room, Instant)>,
    due: Option<Instant>,
}

impl Disks {
    /// Watches the disks of these directories from now on, and no others.
    pub(super) fn watch(&mut self, places: impl IntoIterator<Item = PathBuf>) {
        let mut known = BTreeSet::new();
        let places: BTreeSet<PathBuf> = places.into_iter().filter(|place| known.insert(disk(place))).collect();
        self.0.retain(|place, _| places.contains(place));
        let now = Instant::now();
        places.into_iter().for_each(|place| self.0.entry(place).or_default().due = Some(now));
    }

    /// When one is to be looked at next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|disk| disk.due).min()
    }

    /// Looks at those whose time has come, and returns what there is to say; `true` is an error.
    pub(super) fn look(&mut self, min_free: u8) -> Vec<(bool, String)> {
        let now = Instant::now();
        let mut said = Vec::new();
        for (place, disk) in self.0.iter_mut().filter(|(_, disk)| disk.due.is_some_and(|due| due <= now)) {
            match room(place) {
                Ok(room) => {
                    let before = disk.seen.map(|(before, at)| (before, now - at));
                    disk.due = Some(now + next_look(before, room, min_free));
                    disk.seen = Some((room, now));
                    said.extend(disk.guard.look(room, min_free).map(|crossing| words(crossing, room, place)));
                }
                Err(error) => {
                    tracing::debug!("cannot tell how full the disk of {} is: {error}", place.display());
                    disk.due = Some(now + MUTE);
                }
            }
        }
        said
    }
}

/// What is said of a disk, and whether it is an error.
fn words(Crossing { from, to, percent }: Crossing, room: Room, place: &Path) -> (bool, String) {
    let place = place.display();
    match (from, to) {
        (_, Level::Scarce) => {
            (true, format!("the disk of {place} is almost full: {room}, and {percent}% are to stay free"))
        }
        (Level::Roomy, Level::Low) => {
            (false, format!("the disk of {place} fills: {room}, which is less than {percent}%"))
        }
        (_, Level::Low | Level::Roomy) => {
            (false, format!("the disk of {place} has room again: {room}, which is more than {percent}%"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_disk_names_it_and_only_what_is_scarce_is_an_error() {
        let room = Room { total: 100 << 30, free: 15 << 30 };
        let said = |from, to| words(Crossing { from, to, percent: 20 }, room, Path::new("/srv"));
        let free = "15% of it is free, 15.0 GiB of 100.0 GiB";
        use Level::{Low, Roomy, Scarce};
        for (from, to, want) in [
            (Roomy, Low, (false, format!("the disk of /srv fills: {free}, which is less than 20%"))),
            (Low, Scarce, (true, format!("the disk of /srv is almost full: {free}, and 20% are to stay free"))),
            (Scarce, Low, (false, format!("the disk of /srv has room again: {free}, which is more than 20%"))),
            (Low, Roomy, (false, format!("the disk of /srv has room again: {free}, which is more than 20%"))),
        ] {
            assert_eq!(said(from, to), want);
        }
    }

    #[test]
    fn a_disk_is_watched_once_however_many_directories_are_on_it() {
        let home = tempfile::tempdir().unwrap();
        let mut disks = Disks::default();
        assert_eq!(disks.due(), None);
        disks.watch([home.path().join("not/yet"), home.path().to_owned()]);
        assert_eq!(disks.0.len(), 1);
        assert!(disks.due().is_some_and(|due| due <= Instant::now()));
        disks.look(0);
        assert!(disks.due().is_some_and(|due| due > Instant::now()), "it is looked at again later");
        disks.watch([]);
        assert_eq!(disks.due(), None);
    }
}

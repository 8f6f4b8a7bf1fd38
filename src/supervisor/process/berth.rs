//! Low descriptors in which lies what a child is given, taken before others come to have the low numbers.
//!
//! A child shares our descriptors until it cuts itself loose with those below a number that we tell it. What it is given
//! lies below that, and of the descriptors that we hold for each of a thousand nodes none is copied for it and none
//! closed again, which would be a part of each start.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno};

/// Berths that nobody uses.
static FREE: Mutex<Free> = Mutex::new(Free { places: Vec::new(), kept: 0 });

struct Free {
    places: Vec<Places>,
    /// So many are kept for the next child; others that many children at once needed are given back.
    kept: usize,
}

/// What lies where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Stdout,
    Stderr,
    Record,
}

/// For one child at a time. Dropping it leaves it free for the next, with nothing in it.
#[derive(Debug)]
pub(super) struct Berth(Option<Places>);

/// All of them are above the standard ones. Where nothing lies `/dev/null` does.
#[derive(Debug)]
struct Places {
    null: OwnedFd,
    places: [OwnedFd; 3],
}

/// Sees to it that so many children more can be started at once, as long as low numbers are free.
pub fn reserve(count: usize) -> io::Result<()> {
    free().kept += count;
    let berths: Vec<_> = (0..count).map(|_| Berth::take()).collect::<Result<_, _>>()?;
    drop(berths);
    Ok(())
}

impl Berth {
    /// One that is free.
    pub fn take() -> Result<Self, Errno> {
        let free = free().places.pop();
        free.map_or_else(Places::new, Ok).map(|places| Self(Some(places)))
    }

    /// Puts a file there.
    pub fn put(&mut self, place: Place, file: impl AsFd) -> Result<(), Errno> {
        self.0.as_mut().map_or(Ok(()), |places| places.put(place, file.as_fd()))
    }

    /// What lies there.
    pub fn at(&self, place: Place) -> BorrowedFd<'_> {
        self.places().places[place as usize].as_fd()
    }

    /// A device from which nothing can be read.
    pub fn null(&self) -> BorrowedFd<'_> {
        self.places().null.as_fd()
    }

    /// The first number that is above all of these.
    pub fn beyond(&self) -> u32 {
        let Places { null, places } = self.places();
        let highest = places.iter().map(AsRawFd::as_raw_fd).fold(null.as_raw_fd(), i32::max);
        highest.unsigned_abs() + 1
    }

    fn places(&self) -> &Places {
        self.0.as_ref().expect("they are there until it is dropped")
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let cleared = self.0.take().and_then(|mut places| places.clear().is_ok().then_some(places));
        let given_back = cleared.and_then(|places| free().put(places));
        drop(given_back); // which closes them, while nobody waits for that
    }
}

impl Free {
    /// What is not kept is handed back.
    fn put(&mut self, places: Places) -> Option<Places> {
        if self.places.len() >= self.kept {
            return Some(places);
        }
        self.places.push(places);
        None
    }
}

fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    fn new() -> Result<Self, Errno> {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let again = || rustix::io::fcntl_dupfd_cloexec(&null, 3);
        let places = [again()?, again()?, again()?];
        Ok(Self { null: again()?, places })
    }

    fn put(&mut self, place: Place, file: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::io::dup3(file, &mut self.places[place as usize], DupFlags::CLOEXEC)
    }

    fn clear(&mut self) -> Result<(), Errno> {
        let null = self.null.as_fd();
        self.places.iter_mut().try_for_each(|place| rustix::io::dup3(null, place, DupFlags::CLOEXEC))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_was_put_into_a_berth_is_gone_when_it_is_free_again() {
        let home = tempfile::tempdir().unwrap();
        let mut berth = Berth::take().unwrap();
        let path = home.path().join("file");
        berth.put(Place::Record, File::create(&path).unwrap()).unwrap();
        let number = berth.at(Place::Record).as_raw_fd();
        let lies_there = || std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
        assert_eq!(lies_there().as_ref(), Some(&path));
        assert!(number > 2 && berth.beyond() > number.unsigned_abs());
        drop(berth);
        assert_ne!(lies_there().as_ref(), Some(&path));
    }

    #[test]
    fn a_crowd_of_children_leaves_no_more_berths_than_are_kept() {
        let mut free = Free { places: Vec::new(), kept: 2 };
        let given_back: Vec<_> = (0..5).map(|_| free.put(Places::new().unwrap()).is_some()).collect();
        assert_eq!((given_back, free.places.len()), (vec![false, false, true, true, true], 2));
    }
}

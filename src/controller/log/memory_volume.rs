//! A volume in memory, for tests and simulations: it fails when it is told to, and forgets what a crash would lose.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::volume::{Held, Volume};
use crate::model::Timestamp;

/// See the module; clones are the same volume.
#[derive(Debug, Clone, Default)]
pub struct MemoryVolume(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    segments: BTreeMap<u64, Segment>,
    aside: Vec<u64>,
    failing: Option<Failure>,
    writes: usize,
}

#[derive(Debug, Clone, Default)]
struct Segment {
    bytes: Vec<u8>,
    written: Timestamp,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing can be written, and so many bytes of the first attempt are.
    Full(usize),
    /// All is written, and nobody knows whether it is durable.
    Unsure,
}

impl MemoryVolume {
    /// From now on writes fail like this, or work.
    pub fn fail(&self, failure: Option<Failure>) {
        self.inner().failing = failure;
    }

    /// How often anything was made durable.
    pub fn writes(&self) -> usize {
        self.inner().writes
    }

    /// The bytes of every segment.
    pub fn segments(&self) -> BTreeMap<u64, Vec<u8>> {
        self.inner().segments.iter().map(|(number, segment)| (*number, segment.bytes.clone())).collect()
    }

    /// Segments that were moved out of the way.
    pub fn aside(&self) -> Vec<u64> {
        self.inner().aside.clone()
    }

    /// Puts these bytes where a segment was, or makes it.
    pub fn put(&self, segment: u64, bytes: Vec<u8>) {
        self.inner().segments.insert(segment, Segment { bytes, written: Timestamp::now() });
    }

    /// What a crash in the middle of appending leaves of it: this much of `bytes` behind the last segment.
    pub fn tear(&self, bytes: &[u8]) {
        if let Some(mut last) = self.inner().segments.last_entry() {
            last.get_mut().bytes.extend_from_slice(bytes);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A test that failed elsewhere has said so.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, segment: u64, bytes: &[u8], anew: bool) -> io::Result<()> {
        let failing = self.failing;
        let written = match &mut self.failing {
            Some(Failure::Full(some)) => &bytes[..std::mem::take(some).min(bytes.len())],
            _ => bytes,
        };
        let is_made = failing.is_none() || !anew;
        if is_made {
            let held = self.segments.entry(segment).or_default();
            if anew {
                held.bytes.clear();
            }
            held.bytes.extend_from_slice(written);
            held.written = Timestamp::now();
        }
        match failing {
            None => {
                self.writes += 1;
                Ok(())
            }
            Some(Failure::Full(_)) => Err(io::ErrorKind::StorageFull.into()),
            Some(Failure::Unsure) => Err(io::Error::other("input/output error")),
        }
    }
}

impl Volume for MemoryVolume {
    fn list(&self) -> io::Result<Vec<Held>> {
        let held = |(segment, held): (&u64, &Segment)| Held {
            segment: *segment,
            length: held.bytes.len() as u64,
            written: held.written,
        };
        Ok(self.inner().segments.iter().map(held).collect())
    }

    fn read(&self, segment: u64, from: u64, most: u64) -> io::Result<Vec<u8>> {
        let inner = self.inner();
        let bytes = &inner.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?.bytes;
        Ok(bytes.iter().skip(from as usize).take(most as usize).copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner().write(segment, bytes, true)
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner().write(segment, bytes, false)
    }

    fn cut(&mut self, segment: u64, length: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.failing.is_some() {
            return Err(io::Error::other("input/output error"));
        }
        inner.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?.bytes.truncate(length as usize);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.inner().segments.remove(&segment);
        Ok(())
    }

    fn set_aside(&mut self, segment: u64) -> io::Result<()> {
        let mut inner = self.inner();
        inner.segments.remove(&segment);
        inner.aside.push(segment);
        Ok(())
    }

    fn for_reading(&self) -> Self {
        self.clone()
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

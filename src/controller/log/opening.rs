//! Takes up a log that is there, or begins one: what a controller does before it writes anything.

use std::collections::BTreeMap;
use std::io;

use super::recall::{self, Checkpoint, Reading};
use super::record::{self, Borrowed, HEAD, Head};
use super::volume::Volume;
use super::writer::{Batch, Extent, Writer, beginning};
use super::{Bounds, LogError, Recalled};
use crate::message::client::Cursor;
use crate::model::Timestamp;

/// A log that was opened.
#[derive(Debug)]
pub struct Opened<V> {
    pub writer: Writer<V>,
    /// What could not be written yet and has to come first.
    pub pending: Vec<Batch>,
    /// Each epoch with its first number, in order; the last is the present one.
    pub epochs: Vec<(u64, u64)>,
    /// The number of the last entry.
    pub last: u64,
    pub recalled: Recalled,
}

impl<V: Volume> Writer<V> {
    /// Takes up the log in `volume`, or begins one. `fresh` names its epoch unless the last one goes on.
    pub fn open(mut volume: V, bounds: Bounds, fresh: u64, now: Timestamp) -> Result<Opened<V>, LogError> {
        let place = volume.name();
        let fail = |source| LogError::Read { place: place.clone(), source };
        let held = volume.list().map_err(fail)?;
        for held in &held {
            let head = volume.read(held.segment, 0, HEAD as u64).map_err(fail)?;
            if let Head::Later(found) = record::look_at(&head) {
                return Err(LogError::FutureFormat { place, found });
            }
        }
        let extents = held.iter().map(|held| (held.segment, Extent { length: held.length, written: held.written }));
        let extents: BTreeMap<_, _> = extents.collect();
        match recall_all(&volume, &extents).map_err(fail)? {
            Some(reading) => Ok(Self::go_on(volume, bounds, extents, reading, fresh)),
            None => {
                let mut notes = Vec::new();
                for held in &held {
                    volume.set_aside(held.segment).map_err(fail)?;
                    notes.push(format!(
                        "the log in {place} is damaged beyond reading from entry {} on: that part was set aside, and a \
                         new log begins",
                        held.segment
                    ));
                }
                Self::begin(volume, bounds, fresh, notes, now)
            }
        }
    }

    fn begin(
        mut volume: V,
        bounds: Bounds,
        epoch: u64,
        notes: Vec<String>,
        now: Timestamp,
    ) -> Result<Opened<V>, LogError> {
        let place = volume.name();
        let checkpoint = Checkpoint { epochs: vec![(epoch, 1)], ..Checkpoint::default() };
        let bytes = beginning(&checkpoint);
        volume.create(1, &bytes).map_err(|source| LogError::Begin { place, source })?;
        let extent = Extent { length: bytes.len() as u64, written: now };
        let writer = Self::new(volume, bounds, [(1, extent)].into(), &checkpoint, false);
        let recalled = Recalled { notes, ..Recalled::default() };
        Ok(Opened { writer, pending: Vec::new(), epochs: checkpoint.epochs, last: 0, recalled })
    }

    fn go_on(
        mut volume: V,
        bounds: Bounds,
        mut extents: BTreeMap<u64, Extent>,
        reading: Reading,
        fresh: u64,
    ) -> Opened<V> {
        let Reading { mut checkpoint, closed, used, lost, damaged } = reading;
        let (place, last) = (volume.name(), checkpoint.last);
        let mut notes = notes_of_damage(&place, &lost, damaged);
        let is_suspect = !cut_off_tail(&mut volume, &mut extents, used as u64) || damaged;
        let mut writer = Self::new(volume, bounds, extents, &checkpoint, is_suspect);
        let says = |word: Borrowed<'_>| {
            let mut items = Vec::new();
            word.append_to(&mut items);
            Batch { first: last + 1, last, items, arrived: Vec::new() }
        };
        // That the log goes on has to be on the disk before anybody is told of what comes: or else a crash from here
        // on would look like the end in order that came before.
        let goes_on = closed && writer.write(&[says(Borrowed::Reopened)]).is_ok();
        let mut pending = Vec::new();
        if !goes_on {
            if !closed {
                let former = checkpoint.epochs.last().map_or(0, |(epoch, _)| *epoch);
                let kept = Cursor { epoch: former, number: last };
                notes.insert(0, format!(
                    "the controller before this one did not end in order: its log is kept up to {kept}, and whatever came \
                     behind that is told again by whoever told it"
                ));
            }
            checkpoint.begin(fresh);
            let begins = says(Borrowed::Began(fresh));
            // What cannot be written now goes first when it can be.
            if writer.write(std::slice::from_ref(&begins)).is_err() {
                pending.push(begins);
            }
        }
        writer.index().lock().epochs.clone_from(&checkpoint.epochs);
        let Checkpoint { last, epochs, arrived, nodes } = checkpoint;
        let arrived = arrived.into_iter().map(|(name, arrived)| (name, (arrived.epoch, arrived.seq))).collect();
        Opened { writer, pending, epochs, last, recalled: Recalled { nodes, arrived, notes } }
    }
}

/// What observers have to know of what was damaged. Numbers that are missing without damage were dropped before they could
/// be written, and told then.
fn notes_of_damage(place: &str, lost: &[(u64, u64)], damaged: bool) -> Vec<String> {
    match (damaged, lost) {
        (false, _) => Vec::new(),
        (true, []) => vec![format!("the log in {place} is damaged, and no entry of it is lost")],
        (true, lost) => {
            let note = |(first, last): &(u64, u64)| {
                format!("the log in {place} is damaged: its entries {first} to {last} are lost")
            };
            lost.iter().map(note).collect()
        }
    }
}

/// Cuts off what is in the last segment behind what counts of it. False if that is still there.
fn cut_off_tail<V: Volume>(volume: &mut V, extents: &mut BTreeMap<u64, Extent>, used: u64) -> bool {
    let Some((present, extent)) = extents.iter_mut().next_back().filter(|(_, extent)| extent.length > used) else {
        return true;
    };
    let (torn, place) = (extent.length - used, volume.name());
    tracing::info!("the last {torn} bytes of the log in {place} were never promised to anybody");
    extent.length = used;
    volume.cut(*present, used).is_ok()
}

/// What all segments come to. The last one says it, unless its beginning is damaged; `None` if none of them does.
pub(super) fn recall_all<V: Volume>(volume: &V, segments: &BTreeMap<u64, Extent>) -> io::Result<Option<Reading>> {
    let end_of = |segment: u64| segments.range(segment + 1..).next().map_or(u64::MAX, |(next, _)| *next);
    for (&segment, extent) in segments.iter().rev() {
        let bytes = volume.read(segment, 0, extent.length)?;
        let Some(mut reading) = recall::read(&bytes, None, end_of(segment)) else { continue };
        for (&later, extent) in segments.range(segment + 1..) {
            let bytes = volume.read(later, 0, extent.length)?;
            let Some(mut next) = recall::read(&bytes, Some(reading.checkpoint), end_of(later)) else { return Ok(None) };
            next.lost.splice(..0, reading.lost);
            next.damaged = true;
            reading = next;
        }
        return Ok(Some(reading));
    }
    Ok(None)
}

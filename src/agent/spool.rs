//! News on disk until it is acknowledged: what the agent had to say outlives it.
//!
//! One file that only grows: a line that says whose it is, then groups of what was written together. A group is its length,
//! the news in the frames in which it crosses the bridge, in between and in the same form up to where it was acknowledged,
//! and a checksum. News is written before it is sent. It is not synced: it must survive the agent, not the machine, and
//! belongs to one boot. What was acknowledged stays in the file until there is much more of it than of the rest; then the
//! file is made anew from what the outbox still has. That also mends a file that a full disk broke.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::outbox::{Item, Outbox};
use crate::message::agent::NewsReceived;
use crate::message::frame::{self, Body, MAX_FRAME};
use crate::message::frames::{self, Frames};
use crate::model::NodeName;

/// The format of the file; another number is the file of another release, and is refused.
const FORMAT: u32 = 2;
/// A file is not made anew as long as it is no longer than this, in bytes.
const SMALL: u64 = 1 << 20;
/// A longer one is made anew when it holds this many times what is still waiting.
const WASTE: u64 = 4;
/// The room that is kept for what is written next, in bytes.
const ROOM: usize = 16 << 10;
/// How long not to try again what failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes of the length before a group, and of the checksum behind it.
const LENGTH: usize = 4;
const CHECKSUM: usize = 4;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    boot: String,
    /// Names the numbering: whoever has seen one epoch's numbers knows what they mean until the epoch changes.
    epoch: u64,
    /// The number before that of the first piece of news behind this line.
    base: u64,
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("cannot read the news in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} was written by another release of watchpost (format {format}, and this one knows {FORMAT}): run that release, \
         or remove the file and with it the news that has not arrived",
        path.display()
    )]
    Foreign { path: PathBuf, format: u32 },
}

/// What an earlier run of the agent left.
#[derive(Debug)]
pub struct Restored {
    /// Goes on if the file was whole and of this boot, and else is the one that was offered.
    pub epoch: u64,
    /// The number of the last piece of news that was made.
    pub last: u64,
    /// What was not acknowledged, as far as the file tells, in order, ending with `last`.
    pub news: Frames,
    /// Which process of a node was told last to have ended, as far as the file tells, by node; of no node of which
    /// another process was told of since.
    pub deaths: BTreeMap<NodeName, u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    boot: String,
    epoch: u64,
    /// `None` if there is no file that could be appended to.
    file: Option<File>,
    /// Of the file, in bytes.
    length: u64,
    /// The number of the last piece of news in the file.
    written: u64,
    /// The number up to which all is acknowledged, as the file has it.
    acknowledged: u64,
    buffer: Vec<u8>,
    /// When writing failed last, of which the log has heard.
    failed: Option<Instant>,
}

impl Spool {
    /// Reads the file at `path`. If there is none of this boot, the numbering begins anew, under the epoch `fresh`.
    ///
    /// A file that breaks off, as a crash leaves it, counts up to there.
    pub fn open(path: PathBuf, boot: &str, fresh: u64) -> Result<(Self, Restored), SpoolError> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(SpoolError::Read { path, source }),
        };
        let mut spool = Self {
            path,
            boot: boot.to_owned(),
            epoch: fresh,
            file: None,
            length: 0,
            written: 0,
            acknowledged: 0,
            buffer: Vec::new(),
            failed: None,
        };
        let Some((head, frames)) = spool.head(&bytes)? else {
            let (last, news, deaths) = (0, Frames::default(), BTreeMap::new());
            return Ok((spool, Restored { epoch: fresh, last, news, deaths }));
        };
        let Found { news, last, used, deaths } = Found::read(frames, head.base);
        if used < frames.len() {
            // Made anew below, since nothing can be appended behind that.
            let (path, lost) = (spool.path.display(), frames.len() - used);
            info!("the last {lost} bytes of {path} are no whole piece of news and do not count");
        } else {
            spool.file = OpenOptions::new().append(true).open(&spool.path).ok();
            spool.length = bytes.len() as u64;
        }
        (spool.epoch, spool.written, spool.acknowledged) = (head.epoch, last, last - news.len() as u64);
        let restored = Restored { epoch: head.epoch, last, news: news.into_iter().collect(), deaths };
        Ok((spool, restored))
    }

    /// The first line and what stands behind it, if the file is one of this boot.
    fn head<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Head, &'a [u8])>, SpoolError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Some(end) = bytes.iter().take(4096).position(|byte| *byte == b'\n') else { return Ok(None) };
        let (line, frames) = (&bytes[..end], &bytes[end + 1..]);
        match serde_json::from_slice::<Format>(line) {
            Ok(Format { format: FORMAT }) => {}
            Ok(Format { format }) => return Err(SpoolError::Foreign { path: self.path.clone(), format }),
            Err(_) => {
                warn!("{} is damaged: news that had not arrived is lost", self.path.display());
                return Ok(None);
            }
        }
        let head = serde_json::from_slice::<Head>(line);
        if head.is_err() {
            warn!("{} is damaged: news that had not arrived is lost", self.path.display());
        }
        Ok(head.ok().filter(|head| head.boot == self.boot).map(|head| (head, frames)))
    }

    /// Brings the file up to what the outbox has. Called before news is sent, so that none is known only elsewhere.
    ///
    /// What cannot be written is sent all the same; the log hears of it once, and it is tried again after a while. It is
    /// done here and now, by whoever says the news: a hand for it would be one more wake-up before each word, and all of
    /// it goes no further than the kernel's memory.
    pub fn keep(&mut self, outbox: &Outbox, now: Instant) {
        let is_kept = (outbox.last(), outbox.base()) == (self.written, self.acknowledged);
        if is_kept && (self.file.is_some() || outbox.last() == 0) {
            return;
        }
        if self.failed.is_some_and(|at| now.saturating_duration_since(at) < AGAIN) {
            return;
        }
        let is_wasteful = self.length > SMALL && self.length / WASTE > outbox.bytes() as u64;
        let kept = match &mut self.file {
            Some(file) if !is_wasteful && outbox.base() <= self.written => {
                self.buffer.clear();
                append_group(&mut self.buffer, outbox.kept_behind(self.written), |out| {
                    let base = outbox.base();
                    if base > self.acknowledged {
                        let kept = NewsReceived { epoch: self.epoch, seq: base, kept: base };
                        // A few numbers, so it fits.
                        let _ = frame::append(out, NewsReceived::KIND, NewsReceived::NAME, &kept);
                    }
                });
                file.write_all(&self.buffer).map(|()| self.length += self.buffer.len() as u64)
            }
            _ => self.make_anew(outbox),
        };
        if self.buffer.len() < ROOM {
            self.buffer.shrink_to(ROOM); // else there is likely to be as much again
        }
        match kept {
            Ok(()) => {
                (self.written, self.acknowledged) = (outbox.last(), outbox.base());
                if self.failed.take().is_some() {
                    info!("news is kept in {} again", self.path.display());
                }
            }
            Err(error) => {
                self.file = None; // whatever of it was written is no place to append to
                if self.failed.replace(now).is_none() {
                    let path = self.path.display();
                    warn!("news cannot be kept in {path}, and would be lost with this process: {error}");
                }
            }
        }
    }

    fn make_anew(&mut self, outbox: &Outbox) -> io::Result<()> {
        let head = Head { format: FORMAT, boot: self.boot.clone(), epoch: self.epoch, base: outbox.base() };
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &head)?;
        self.buffer.push(b'\n');
        append_group(&mut self.buffer, outbox.kept_behind(outbox.base()), |_| {});
        let fresh = fresh(&self.path);
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        let written = file.write_all(&self.buffer).and_then(|()| fs::rename(&fresh, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh); // on a full disk half a file is in the way
        }
        written?;
        (self.file, self.length) = (Some(file), self.buffer.len() as u64);
        Ok(())
    }
}

fn fresh(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Appends a group: these pieces, and what `end` adds to them.
fn append_group<'a>(out: &mut Vec<u8>, pieces: impl Iterator<Item = &'a [u8]>, end: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    pieces.for_each(|piece| out.extend_from_slice(piece));
    end(out);
    // An outbox keeps far less than would not fit.
    let length = (out.len() - start - LENGTH) as u32;
    out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32fast::hash(&out[start..]).to_be_bytes();
    out.extend_from_slice(&checksum);
}

/// What a file holds behind its first line.
struct Found<'a> {
    /// What was not acknowledged, each piece in its frame, in order and without gaps.
    news: VecDeque<&'a [u8]>,
    /// The number of the last piece, acknowledged or not.
    last: u64,
    /// How many bytes of it are whole.
    used: usize,
    /// See [`Restored`].
    deaths: BTreeMap<NodeName, u32>,
}

impl<'a> Found<'a> {
    fn read(bytes: &'a [u8], base: u64) -> Self {
        let mut found = Self { news: VecDeque::new(), last: base, used: 0, deaths: BTreeMap::new() };
        while found.read_group(&bytes[found.used..]).is_some() {}
        found
    }

    fn read_group(&mut self, bytes: &'a [u8]) -> Option<()> {
        let length = u32::from_be_bytes(*bytes.first_chunk::<LENGTH>()?) as usize;
        let (group, rest) = bytes.split_at_checked(LENGTH + length)?;
        if crc32fast::hash(group).to_be_bytes() != *rest.first_chunk::<CHECKSUM>()? {
            return None;
        }
        for piece in frames::pieces(&group[LENGTH..]) {
            self.read_one(piece)?;
        }
        self.used += group.len() + CHECKSUM;
        Some(())
    }

    fn read_one(&mut self, piece: &'a [u8]) -> Option<()> {
        let frame = frame::split(piece, MAX_FRAME).ok()??;
        if frame.kind == NewsReceived::KIND {
            let NewsReceived { kept, .. } = frame::decode_body(frame.body, NewsReceived::NAME).ok()?;
            let base = self.last - self.news.len() as u64;
            let count = usize::try_from(kept.checked_sub(base)?).ok().filter(|count| *count <= self.news.len())?;
            self.news.drain(..count);
        } else {
            let number = self.last + 1;
            let item = Item::read(frame.kind, frame.body).filter(|item| item.number() == number)?;
            if let Item::Change(change) = item {
                match (change.pid, change.exit) {
                    (Some(pid), Some(_)) => drop(self.deaths.insert(change.node, pid)),
                    (Some(_), None) => drop(self.deaths.remove(&change.node)),
                    (None, _) => {}
                }
            }
            self.news.push_back(piece);
            self.last = number;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::outbox::Bounds;
    use super::*;
    use crate::message::agent::{NotifyChange, NotifyLog};
    use crate::model::{Exit, InstanceName, NodeState, Role, Text, Timestamp};

    const BOOT: &str = "5bc6b0c9-0000-4000-8000-000000000000";

    #[test]
    fn what_was_not_acknowledged_is_there_again_under_the_same_numbers() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, restored) = open(&directory, 7);
        assert_eq!((restored.epoch, restored.last, restored.news.iter().count()), (7, 0, 0));
        for text in ["a", "b", "c"] {
            outbox.push(log(text));
            spool.keep(&outbox, Instant::now());
        }
        let (_, restored) = open(&directory, 8);
        assert_eq!((restored.epoch, restored.last), (7, 3), "the numbering goes on");
        let mut again = Outbox::restore(Bounds::default(), restored.last, &restored.news);
        assert!(again.kept() == outbox.kept());
        again.push(log("d"));
        outbox.push(log("d"));
        assert!(again.kept() == outbox.kept());
    }

    #[test]
    fn whose_end_was_told_is_known_also_once_that_was_acknowledged() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        let mut tell = |outbox: &mut Outbox, node: &str, pid, exit| {
            outbox.push(Item::Change(change(node, pid, exit)));
            spool.keep(outbox, Instant::now());
        };
        for node in ["a", "b", "c"] {
            tell(&mut outbox, node, Some(70), None);
        }
        tell(&mut outbox, "a", Some(70), Some(Exit::Status(1)));
        tell(&mut outbox, "b", Some(70), Some(Exit::Status(1)));
        tell(&mut outbox, "b", Some(70), None);
        outbox.received(6, 6);
        tell(&mut outbox, "a", None, None);
        let (_, restored) = open(&directory, 8);
        assert_eq!(restored.news.iter().count(), 1);
        let a = NodeName::new("a").unwrap();
        assert_eq!(restored.deaths, [(a, 70)].into(), "the number of b is that of another process by now");
    }

    #[test]
    fn what_was_acknowledged_is_not_said_again() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        ["a", "b", "c"].into_iter().for_each(|text| outbox.push(log(text)));
        spool.keep(&outbox, Instant::now());
        outbox.received(2, 2);
        spool.keep(&outbox, Instant::now());
        let (mut spool, restored) = open(&directory, 8);
        assert_eq!((restored.last, restored.news.iter().count()), (3, 1));
        outbox.received(3, 3);
        outbox.push(log("d"));
        spool.keep(&outbox, Instant::now());
        let (_, restored) = open(&directory, 9);
        assert_eq!((restored.epoch, restored.last), (7, 4));
        assert!(outbox.kept() == restored.news);
    }

    #[test]
    fn a_file_that_is_cut_off_at_any_byte_counts_up_to_there_and_goes_on() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        let mut ends = Vec::new();
        for text in ["a", "bb", "ccc"] {
            outbox.push(log(text));
            spool.keep(&outbox, Instant::now());
            ends.push(fs::metadata(path(&directory)).unwrap().len() as usize);
        }
        let whole = fs::read(path(&directory)).unwrap();
        let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in 0..=whole.len() {
            fs::write(path(&directory), &whole[..cut]).unwrap();
            let (mut spool, restored) = open(&directory, 8);
            let want = ends.iter().filter(|end| **end <= cut).count();
            let epoch = if cut < head { 8 } else { 7 };
            assert_eq!((restored.epoch, restored.news.iter().count()), (epoch, want), "cut at {cut}");
            let mut outbox = Outbox::restore(Bounds::default(), restored.last, &restored.news);
            outbox.push(log("next"));
            spool.keep(&outbox, Instant::now());
            let (_, restored) = open(&directory, 9);
            assert_eq!((restored.epoch, restored.last), (epoch, want as u64 + 1), "cut at {cut}, and gone on");
        }
    }

    #[test]
    fn a_byte_that_is_damaged_hides_what_stands_behind_it_and_is_never_believed() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        ["a", "bb", "ccc"].into_iter().for_each(|text| outbox.push(log(text)));
        spool.keep(&outbox, Instant::now());
        let whole = fs::read(path(&directory)).unwrap();
        let told = outbox.kept();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            fs::write(path(&directory), &damaged).unwrap();
            match Spool::open(path(&directory), BOOT, 8) {
                Ok((_, restored)) => assert!(told.bytes().starts_with(restored.news.bytes()), "byte {at}"),
                Err(error) => assert!(matches!(error, SpoolError::Foreign { .. }), "byte {at}: {error}"),
            }
        }
    }

    #[test]
    fn another_boot_begins_anew_and_another_release_is_left_alone() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        outbox.push(log("a"));
        spool.keep(&outbox, Instant::now());
        let (_, restored) = Spool::open(path(&directory), "another", 8).unwrap();
        assert_eq!((restored.epoch, restored.last), (8, 0));
        let newer = "{\"format\":3,\"anything\":true}\nwhatever";
        fs::write(path(&directory), newer).unwrap();
        let error = Spool::open(path(&directory), BOOT, 8).unwrap_err().to_string();
        assert!(error.contains("was written by another release"), "{error}");
        assert_eq!(fs::read_to_string(path(&directory)).unwrap(), newer);
    }

    #[test]
    fn a_file_of_what_has_arrived_is_made_anew() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        let text = "x".repeat(1000);
        for number in 1..=3000 {
            outbox.push(log(&text));
            spool.keep(&outbox, Instant::now());
            outbox.received(number - 1, number - 1);
        }
        let length = fs::metadata(path(&directory)).unwrap().len();
        assert!(length <= SMALL + 4096, "{length} bytes for one piece of news");
        let (_, restored) = open(&directory, 8);
        assert_eq!((restored.epoch, restored.last), (7, 3000));
    }

    #[test]
    fn a_piece_of_news_that_is_too_long_hides_nothing_behind_it() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let (mut spool, _) = open(&directory, 7);
        outbox.push(log(&"x".repeat(MAX_FRAME)));
        outbox.push(log("b"));
        spool.keep(&outbox, Instant::now());
        let (_, restored) = open(&directory, 8);
        assert_eq!(restored.last, 2);
        assert_eq!(restored.news, outbox.kept());
    }

    #[test]
    fn an_outbox_that_overflowed_is_kept_as_it_is() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds { window: 1 << 10, kept: 50 }));
        let (mut spool, _) = open(&directory, 7);
        for text in ["a", "b", "c", "d", "e"] {
            outbox.push(log(text));
        }
        spool.keep(&outbox, Instant::now());
        let (_, restored) = open(&directory, 8);
        assert_eq!(restored.last, 5);
        assert!(outbox.kept() == restored.news && restored.news.iter().count() < 5);
    }

    #[test]
    fn what_cannot_be_written_is_kept_as_soon_as_it_can() {
        let (directory, mut outbox) = (TempDir::new().unwrap(), Outbox::new(Bounds::default()));
        let nowhere = directory.path().join("later").join("news");
        let (mut spool, _) = Spool::open(nowhere.clone(), BOOT, 7).unwrap();
        outbox.push(log("a"));
        let now = Instant::now();
        spool.keep(&outbox, now);
        fs::create_dir(nowhere.parent().unwrap()).unwrap();
        spool.keep(&outbox, now + AGAIN / 2);
        assert!(!nowhere.exists(), "not at every word");
        spool.keep(&outbox, now + AGAIN);
        let (_, restored) = Spool::open(nowhere, BOOT, 8).unwrap();
        assert_eq!((restored.epoch, restored.last), (7, 1));
    }

    fn path(directory: &TempDir) -> PathBuf {
        directory.path().join("news")
    }

    fn open(directory: &TempDir, fresh: u64) -> (Spool, Restored) {
        Spool::open(path(directory), BOOT, fresh).unwrap()
    }

    fn change(node: &str, pid: Option<u32>, exit: Option<Exit>) -> NotifyChange {
        NotifyChange {
            seq: 0,
            time: Timestamp(0),
            instance: InstanceName::new("i").unwrap(),
            node: NodeName::new(node).unwrap(),
            role: Role::Worker,
            old: NodeState::Running,
            new: NodeState::Crashed,
            pid,
            exit,
            attempt: 0,
            restarts: 0,
            reason: Text::default(),
            removed: false,
        }
    }

    fn log(msg: &str) -> Item {
        let instance = InstanceName::new("i").unwrap();
        Item::Log(NotifyLog { seq: 0, time: Timestamp(0), instance, node: None, msg: msg.into() })
    }
}

//! The channel of one life of a node: what it says is read and noted, and what it is asked is written down.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::decode::{Decoder, Heard};
use super::files::{Place, free};
use crate::model::{Life, NodeName};

/// How long after it was read it is noted how far that is.
const NOTED_AFTER: Duration = Duration::from_secs(1);
/// So much may wait to be read, in bytes: what a node says in weeks as a rule. Of more the oldest is passed over.
const MOST_WAITING: u64 = 64 << 20;
/// How many questions to one node may be open.
const MOST_QUESTIONS: usize = 64;
pub(super) const ENDED: &str = "it ended before it answered";

/// What came of a question: a value as JSON, or why there is none.
pub type Answer = Result<String, String>;

/// What a node is asked.
pub struct Question {
    /// A verb, and what belongs to it: one line.
    pub text: String,
    pub until: Instant,
    /// Why there is no answer, should none come by then.
    pub late: String,
    pub tell: Box<dyn FnOnce(Answer) + Send>,
}

/// The channel of a life.
pub struct Channel {
    name: NodeName,
    place: Place,
    pub life: Life,
    news: File,
    /// Under which the kernel tells that it wrote.
    pub watch: Option<i32>,
    decoder: Decoder,
    /// Up to where it was read, noted, and freed.
    read: u64,
    noted: u64,
    freed: u64,
    note_due: Option<Instant>,
    questions: Option<File>,
    /// The last one that was answered: it has read all before that.
    answered: u64,
    asked: BTreeMap<u64, Question>,
    /// What is wrong with its files was said.
    troubled: bool,
}

impl Channel {
    /// What this life says from where it was read; `None` if it has no files.
    pub fn open(name: &NodeName, place: &Place, life: Life) -> io::Result<Option<Self>> {
        let Some((news, read)) = place.open(life)? else { return Ok(None) };
        Ok(Some(Self {
            name: name.clone(),
            place: place.clone(),
            life,
            news,
            watch: None,
            decoder: Decoder::default(),
            read,
            noted: read,
            freed: 0,
            note_due: None,
            questions: None,
            answered: 0,
            asked: BTreeMap::new(),
            troubled: false,
        }))
    }

    /// Reads the last of what was said. Who is still waiting for an answer hears that there will be none.
    ///
    /// The files go with the next life, or with the node: until then whoever was told has it on disk.
    pub fn finish(mut self, buffer: &mut [u8]) -> Heard {
        let mut heard = Heard::default();
        self.read_on(buffer, None, &mut heard);
        self.decoder.finish(&mut heard);
        self.answer(&mut heard);
        for question in std::mem::take(&mut self.asked).into_values() {
            (question.tell)(Err(ENDED.into()));
        }
        self.note();
        heard
    }

    /// When there is something to do, though nobody says anything.
    pub fn due(&self) -> Option<Instant> {
        self.asked.values().map(|question| question.until).chain(self.note_due).min()
    }

    /// Reads what there is by now, or about so much of it, and says whether that is all; `None` if it cannot be read.
    pub fn read_on(&mut self, buffer: &mut [u8], most: Option<u64>, heard: &mut Heard) -> Option<bool> {
        match self.try_to_read(buffer, most, heard) {
            Ok(is_all) => {
                self.troubled = false;
                Some(is_all)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.troubled, true) {
                    tracing::warn!(node = %self.name, "cannot read what it says: {error}");
                }
                None
            }
        }
    }

    fn try_to_read(&mut self, buffer: &mut [u8], most: Option<u64>, heard: &mut Heard) -> io::Result<bool> {
        let length = self.news.metadata()?.len();
        if length < self.read {
            (self.read, self.noted, self.freed) = (0, 0, 0);
            self.decoder.cut_off(heard);
        }
        if length - self.read > MOST_WAITING {
            self.read = length - MOST_WAITING;
            self.decoder.skipped(heard);
        }
        let begin = self.read;
        // What is written meanwhile has its own turn: somebody may write faster than this.
        let end = most.map_or(length, |most| length.min(begin + most));
        while self.read < end {
            match self.news.read_at(buffer, self.read) {
                Ok(0) => break,
                Ok(count) => {
                    self.decoder.take(&buffer[..count], heard);
                    self.read += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.read != begin && self.note_due.is_none() {
            self.note_due = Some(Instant::now() + NOTED_AFTER);
        }
        Ok(self.read >= length)
    }

    /// Whether anything was ever heard of this life.
    pub fn has_spoken(&self) -> bool {
        self.read > 0
    }

    /// Notes up to which line it was read, and frees that.
    pub fn note(&mut self) {
        self.note_due = None;
        let up_to = self.read - self.decoder.pending() as u64;
        if up_to == self.noted {
            return;
        }
        match self.place.note(self.life, up_to).and_then(|()| free(&self.news, self.freed, up_to)) {
            Ok(freed) => (self.noted, self.freed) = (up_to, freed),
            Err(error) => tracing::debug!(node = %self.name, "cannot note how far its channel was read: {error}"),
        }
    }

    pub fn ask(&mut self, question: Question) {
        if self.asked.len() >= MOST_QUESTIONS {
            return (question.tell)(Err("it has too many questions to answer: ask later".into()));
        }
        match self.write(&question.text) {
            Ok(number) => {
                self.decoder.await_answer(number);
                self.asked.insert(number, question);
            }
            Err(error) => (question.tell)(Err(format!("it cannot be asked: {error}"))),
        }
    }

    /// Writes the question down. Its number is where it begins, and so no other one's, also after a restart of the agent.
    fn write(&mut self, text: &str) -> io::Result<u64> {
        let file = match &mut self.questions {
            Some(file) => file,
            None => self.questions.insert(self.place.open_questions(self.life)?),
        };
        let number = file.metadata()?.len() + 1;
        file.write_all(format!("{number} {text}\n").as_bytes())?;
        free(file, 0, self.answered)?;
        Ok(number)
    }

    /// Hands the answers to whoever awaits them.
    pub fn answer(&mut self, heard: &mut Heard) {
        for (number, answer) in std::mem::take(&mut heard.answers) {
            self.answered = self.answered.max(number);
            if let Some(question) = self.asked.remove(&number) {
                (question.tell)(answer);
            }
        }
    }

    /// Gives up questions whose time is over, and notes what was read if that is due.
    pub fn be_on_time(&mut self, now: Instant) {
        self.give_up(now);
        if self.note_due.is_some_and(|due| due <= now) {
            self.note();
        }
    }

    fn give_up(&mut self, now: Instant) {
        let late: Vec<u64> =
            self.asked.iter().filter(|(_, question)| question.until <= now).map(|(number, _)| *number).collect();
        for number in late {
            self.decoder.forget(number);
            if let Some(question) = self.asked.remove(&number) {
                (question.tell)(Err(question.late));
            }
        }
    }
}

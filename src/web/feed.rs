//! The text of each event, made once for all who read it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use super::json::Event;
use crate::message::client::{Cursor, Entry};

/// How many texts are kept: readers that follow live are never further apart than this.
const KEPT: usize = 1024;
/// A longer text is made anew for each reader, in bytes; so the whole cache stays below 16 MiB.
const LONGEST: usize = 16 << 10;

/// In which form a reader takes its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events: `id`, `data`, an empty line.
    Sse,
    /// One JSON object per line.
    Ndjson,
}

impl Form {
    /// What keeps a silent stream alive; readers skip it.
    pub fn keep_alive(self) -> Bytes {
        match self {
            Self::Sse => Bytes::from_static(b": still here\n\n"),
            Self::Ndjson => Bytes::from_static(b"\n"),
        }
    }

    /// One object in this form, under an id by which a stream is resumed.
    pub fn of(self, id: &str, object: &impl Serialize) -> Bytes {
        // Writing to memory does not fail, and what is told here has no map whose keys are not text.
        let json = serde_json::to_string(object).expect("what is told is always JSON");
        match self {
            Self::Sse => format!("id: {id}\ndata: {json}\n\n").into(),
            Self::Ndjson => format!("{json}\n").into(),
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// One event in both forms at once: the line of the second is a part of the first.
#[derive(Debug, Clone)]
pub struct Text {
    sse: Bytes,
    json_at: usize,
}

impl Text {
    pub fn of(event: &Event) -> Self {
        let head = format!("id: {}\ndata: ", event.seq);
        let json_at = head.len();
        let mut sse = head.into_bytes();
        let mut serializer = serde_json::Serializer::new(&mut sse);
        // Writing to memory does not fail, and an event has no map whose keys are not text.
        event.serialize(&mut serializer).expect("an event is always JSON");
        sse.extend_from_slice(b"\n\n");
        Self { sse: sse.into(), json_at }
    }

    pub fn in_form(&self, form: Form) -> Bytes {
        match form {
            Form::Sse => self.sse.clone(),
            Form::Ndjson => self.sse.slice(self.json_at..self.sse.len() - 1),
        }
    }
}

/// The texts of the latest entries, shared by all readers.
#[derive(Default)]
pub struct Feed(Mutex<BTreeMap<Cursor, Text>>);

impl Feed {
    /// The text of `entry`. A cursor names one entry for good, so it is the key.
    pub fn text(&self, entry: &Entry) -> Text {
        // A poisoned map still holds whole texts only.
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.get(&entry.cursor) {
            return text.clone();
        }
        let text = Text::of(&Event::from(entry));
        if text.sse.len() <= LONGEST {
            texts.insert(entry.cursor, text.clone());
            if texts.len() > KEPT {
                // The oldest: a straggler that reads history pushes out nothing that the others need.
                texts.pop_first();
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::agent::NotifyLog;
    use crate::message::client::News;
    use crate::model::{InstanceName, Timestamp};

    fn entry(number: u64) -> Entry {
        let instance = InstanceName::new("agent-a").unwrap();
        let news = News::Log(NotifyLog { seq: number, time: Timestamp(0), instance, node: None, msg: "a\nb".into() });
        Entry { cursor: Cursor { epoch: 10, number }, time: Timestamp(0), origin: None, news }
    }

    #[test]
    fn one_text_serves_both_forms() {
        let text = Feed::default().text(&entry(7));
        let json =
            r#"{"seq":"a-7","time":"1970-01-01T00:00:00.000000Z","kind":"log","instance":"agent-a","msg":"a\nb"}"#;
        assert_eq!(text.in_form(Form::Ndjson), format!("{json}\n"));
        assert_eq!(text.in_form(Form::Sse), format!("id: a-7\ndata: {json}\n\n"));
    }

    #[test]
    fn every_reader_gets_the_same_bytes_and_the_cache_stays_bounded() {
        let feed = Feed::default();
        let first = feed.text(&entry(1)).sse;
        assert_eq!(first.as_ptr(), feed.text(&entry(1)).sse.as_ptr(), "made twice");
        for number in 2..=KEPT as u64 + 10 {
            feed.text(&entry(number));
        }
        assert_eq!(feed.0.lock().unwrap().len(), KEPT);
        assert_eq!(feed.text(&entry(1)).sse, first);
    }
}

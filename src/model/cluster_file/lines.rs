//! Lines become sections of keys and values, by the rules of Python's `configparser`, which zeek-client uses.
//!
//! A comment is a whole line that begins with `#` or `;`. A line indented deeper than its key continues the value.
//! `%` is written `%%`, since a lone one would ask zeek-client to insert another key's value. Files of tools that do
//! insert it, and that have defaults for all sections, are read in a [`Dialect`] of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Complaint, Complaints, MOST_SHOWN};
use crate::hint::shown;

/// Where files that are otherwise alike differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Cluster files: a lone `%` and `[DEFAULT]` are refused, and keys of `[instances]` are names.
    Cluster,
    /// What Python's `configparser` reads: `%` is left to whoever reads the values, and `[DEFAULT]` is a section.
    Python,
}

/// The section of what holds for all others.
pub(crate) const DEFAULT: &str = "DEFAULT";

/// The section that holds instances instead of a node.
pub(super) const INSTANCES: &str = "instances";

/// A section, which no other has the name of.
pub(crate) struct Section<'a> {
    pub name: &'a str,
    /// Where it begins, counted from 1.
    pub line: usize,
    /// In the order they were written, no key twice.
    pub entries: Vec<Entry<'a>>,
}

impl Section<'_> {
    /// A complaint about `entry`, or about the section as a whole.
    pub fn complaint(&self, entry: Option<&Entry>, what: impl Into<String>) -> Complaint {
        Complaint {
            line: entry.map_or(self.line, |entry| entry.line),
            section: Some(self.name.chars().take(MOST_SHOWN).collect::<String>().escape_debug().to_string()),
            key: entry.map(|entry| entry.key.chars().take(MOST_SHOWN).collect::<String>().escape_debug().to_string()),
            what: what.into(),
        }
    }
}

/// A key, and the value behind it.
pub(crate) struct Entry<'a> {
    /// In lower case, but for names of instances.
    pub key: Cow<'a, str>,
    /// Where the key stands, counted from 1.
    pub line: usize,
    /// Without spaces around it, lines joined by `\n`; `None` where no `=` follows the key.
    pub value: Option<Cow<'a, str>>,
}

/// The sections of `text`, in order; what cannot be one is complained of and left out.
pub(crate) fn sections<'a>(text: &'a str, dialect: Dialect, complaints: &mut Complaints) -> Vec<Section<'a>> {
    let (sections, begun) = (Vec::new(), BTreeMap::new());
    let mut reader = Reader { dialect, complaints, sections, begun, place: Place::Nowhere };
    for (index, line) in text.lines().enumerate() {
        if reader.complaints.is_full() {
            break;
        }
        reader.line(index + 1, line);
    }
    reader.sections
}

struct Reader<'a, 'c> {
    dialect: Dialect,
    complaints: &'c mut Complaints,
    sections: Vec<Section<'a>>,
    /// Where each section began.
    begun: BTreeMap<&'a str, usize>,
    place: Place<'a>,
}

/// Where the next line belongs.
enum Place<'a> {
    /// Before the first section.
    Nowhere,
    /// In the last of the sections. Its keys stand in these lines, and an indented line continues `open`.
    Section { keys: BTreeMap<Cow<'a, str>, usize>, open: Option<Open> },
    /// In what was complained of already.
    Skipped,
}

/// A key whose value may go on in the next line.
struct Open {
    /// How far the key is indented, in bytes.
    indent: usize,
    /// Whether it is the last entry of the section; if not, it was complained of already.
    kept: bool,
}

impl<'a> Reader<'a, '_> {
    fn line(&mut self, number: usize, line: &'a str) {
        let text = line.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return;
        }
        let indent = line.len() - line.trim_start().len();
        match &self.place {
            Place::Section { open: Some(Open { indent: key, kept }), .. } if indent > *key => {
                if *kept {
                    self.continuation(number, text);
                }
            }
            _ if text.starts_with('[') => self.header(number, text),
            Place::Section { .. } => self.entry(number, indent, text),
            Place::Nowhere => {
                let what = "stands before the first section: begin one with a line such as [worker-1]";
                self.complaints.add(Complaint::at(number, format!("{} {what}", shown(text))));
            }
            Place::Skipped => {}
        }
    }

    fn header(&mut self, number: usize, text: &'a str) {
        self.place = Place::Skipped;
        let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
            let what = format!("{} begins a section but does not end in `]`", shown(text));
            return self.complaints.add(Complaint::at(number, what));
        };
        let section = Section { name, line: number, entries: Vec::new() };
        if name == DEFAULT && self.dialect == Dialect::Cluster {
            let what = "defaults for all sections are not supported: repeat the keys in each node";
            return self.complaints.add(section.complaint(None, what));
        }
        if let Some(first) = self.begun.get(name) {
            let what = format!("begins for the second time, after line {first}: make it one section");
            return self.complaints.add(section.complaint(None, what));
        }
        self.begun.insert(name, number);
        self.sections.push(section);
        self.place = Place::Section { keys: BTreeMap::new(), open: None };
    }

    fn entry(&mut self, number: usize, indent: usize, text: &'a str) {
        let (Some(section), Place::Section { keys, open }) = (self.sections.last_mut(), &mut self.place) else {
            return;
        };
        let (key, value) = split(text, section.name == INSTANCES && self.dialect == Dialect::Cluster);
        let mut entry = Entry { key, line: number, value: None };
        match value.map(|value| self.dialect.unescape(value)) {
            Some(Ok(value)) => entry.value = Some(value),
            Some(Err(what)) => self.complaints.add(section.complaint(Some(&entry), what)),
            None => {}
        }
        let first = keys.get(&entry.key).copied();
        *open = Some(Open { indent, kept: first.is_none() });
        if let Some(first) = first {
            let what = format!("is given for the second time, after line {first}: remove one");
            return self.complaints.add(section.complaint(Some(&entry), what));
        }
        keys.insert(entry.key.clone(), number);
        section.entries.push(entry);
    }

    fn continuation(&mut self, number: usize, text: &'a str) {
        let Some(section) = self.sections.last_mut() else { return };
        let Some(mut entry) = section.entries.pop() else { return };
        match (&mut entry.value, self.dialect.unescape(text)) {
            (Some(value), Ok(text)) => {
                value.to_mut().push('\n');
                value.to_mut().push_str(&text);
            }
            (_, Err(what)) => self.complaints.add(Complaint { line: number, ..section.complaint(Some(&entry), what) }),
            (None, Ok(_)) => {
                let what = "is indented, so it continues the line above, which has no value: indent it less";
                let what = format!("{} {what}", shown(text));
                self.complaints.add(Complaint { line: number, ..section.complaint(Some(&entry), what) });
            }
        }
        section.entries.push(entry);
    }
}

/// Parts a line into key and value, at the first `=` or `:`.
///
/// Names of instances keep their case and may hold a `:`; there a `:` counts only if there is no `=`.
fn split(text: &str, is_instance: bool) -> (Cow<'_, str>, Option<&str>) {
    let equals = || text.split_once('=');
    let parted = if is_instance { equals().or_else(|| text.split_once(':')) } else { text.split_once(['=', ':']) };
    let (key, value) = parted.map_or((text, None), |(key, value)| (key.trim_end(), Some(value.trim_start())));
    match is_instance {
        true => (Cow::Borrowed(key), value),
        false => (Cow::Owned(key.to_lowercase()), value),
    }
}

impl Dialect {
    fn unescape(self, text: &str) -> Result<Cow<'_, str>, &'static str> {
        match self {
            Self::Cluster => unescape(text),
            Self::Python => Ok(Cow::Borrowed(text)),
        }
    }
}

/// Turns every `%%` into `%`.
fn unescape(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(c);
        if c == '%' && chars.next() != Some('%') {
            return Err("holds a single `%`: write `%%` for a percent sign");
        }
    }
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each section on a line, and the lines of complaints.
    fn read(text: &str) -> (Vec<String>, Vec<usize>) {
        let mut complaints = Complaints::default();
        let line = |section: &Section| {
            let entry = |entry: &Entry| match &entry.value {
                Some(value) => format!(" {}={value:?}", entry.key),
                None => format!(" {}", entry.key),
            };
            section.name.to_owned() + &section.entries.iter().map(entry).collect::<String>()
        };
        let sections = sections(text, Dialect::Cluster, &mut complaints).iter().map(line).collect();
        (sections, complaints.kept.iter().map(|complaint| complaint.line).collect())
    }

    #[test]
    fn keys_values_comments_and_continuations_are_told_apart() {
        let text = "# c\n[a]\n  ; c\nRole: worker\nport=1=2\nlist =\n  one\n\n  # c\n  two %%\nbare\n[b c]\n";
        assert_eq!(
            read(text),
            (vec![r#"a role="worker" port="1=2" list="\none\ntwo %" bare"#.into(), "b c".into()], vec![])
        );
    }

    #[test]
    fn names_of_instances_keep_their_case_and_colons() {
        let text = "[instances]\nOne\na:1 = [::1]:5\nb: 1.2.3.4:5\nc:2 =\n";
        assert_eq!(read(text).0, [r#"instances One a:1="[::1]:5" b="1.2.3.4:5" c:2="""#]);
    }

    #[test]
    fn what_is_complained_of_does_not_spill_into_its_neighbours() {
        let text = "[a]\nx = 1\nx = 2\n  more\ny\n  more\n[a]\nz = 1\n[b\nz = 1\n[DEFAULT]\nz = 1\n[c]\nz = %\n  %\n";
        assert_eq!(read(text), (vec![r#"a x="1" y"#.into(), "c z".into()], vec![3, 6, 7, 9, 11, 14, 15]));
    }
}

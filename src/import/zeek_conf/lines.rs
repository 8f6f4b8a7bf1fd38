//! The lines of a `zeek.conf`: keys and values, flat or in sections.

use std::collections::BTreeMap;

use crate::hint::{instead, shown};
use crate::import::Findings;
use crate::model::cluster_file::{Complaint, readable};

/// A key, where it stands, and its values: one, unless the key may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) values: Vec<String>,
}

/// Keys and what they say.
pub(super) type Keys = BTreeMap<String, Entry>;

/// An interface that workers read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Of its section; `None` in a file without sections.
    pub(super) name: Option<String>,
    pub(super) line: usize,
    pub(super) keys: Keys,
}

/// A file, as it is written.
#[derive(Debug, Default)]
pub(super) struct File {
    /// What is not about the workers of an interface; in a file without sections, everything.
    pub(super) global: Keys,
    /// In a file without sections, one: what `global` says of it.
    pub(super) interfaces: Vec<Interface>,
    pub(super) has_sections: bool,
}

pub(super) const GLOBAL: [&str; 41] = [
    "manager",
    "loggers",
    "proxies",
    "args",
    "manager_args",
    "logger_args",
    "proxy_args",
    "env",
    "manager_env",
    "logger_env",
    "proxy_env",
    "manager_nice",
    "logger_nice",
    "proxy_nice",
    "manager_memory_max",
    "logger_memory_max",
    "proxy_memory_max",
    "manager_cpu_set",
    "logger_cpu_set",
    "proxy_cpu_set",
    "user",
    "group",
    "restart_interval_sec",
    "base_dir",
    "path",
    "ext_path",
    "ext_zeek_path",
    "cluster_backend_args",
    "port",
    "cluster_port",
    "address",
    "cluster_address",
    "metrics_port",
    "cluster_node_prefix",
    "cluster_layout",
    "archiver",
    "archiver_args",
    "archiver_env",
    "archiver_nice",
    "archiver_memory_max",
    "archiver_cpu_set",
];
pub(super) const OF_WORKERS: [&str; 9] = [
    "interface",
    "workers",
    "worker_args",
    "worker_env",
    "worker_nice",
    "worker_memory_max",
    "workers_cpu_list",
    "worker_numa_policy",
    "workers_numa_policy",
];

impl File {
    pub(super) fn read(bytes: &[u8], findings: &mut Findings) -> Self {
        match readable(bytes) {
            Ok(text) => Reader::new(text, findings).read(text),
            Err(complaint) => {
                findings.wrong(complaint);
                Self::default()
            }
        }
    }
}

/// Where the next line belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Global,
    Interface,
    /// A section that the generator skips.
    Skipped,
}

struct Reader<'f> {
    findings: &'f mut Findings,
    file: File,
    has_sections: bool,
    place: Place,
    /// The section, for complaints.
    section: Option<String>,
    /// The key that the next line may go on with.
    open: Option<String>,
}

impl<'f> Reader<'f> {
    fn new(text: &str, findings: &'f mut Findings) -> Self {
        let has_sections = text.lines().any(|line| section(line.trim_end()).is_some());
        let (place, section, open) = (Place::Global, None, None);
        Self { findings, file: File::default(), has_sections, place, section, open }
    }

    fn read(mut self, text: &str) -> File {
        for (index, line) in text.lines().enumerate() {
            self.line(index + 1, line.trim_end());
        }
        self.file.has_sections = self.has_sections;
        if !self.has_sections {
            let keys = self.file.global.iter().filter(|(key, _)| OF_WORKERS.contains(&key.as_str()));
            let keys: Keys = keys.map(|(key, entry)| (key.clone(), entry.clone())).collect();
            if !keys.is_empty() {
                self.file.interfaces.push(Interface { name: None, line: 1, keys });
            }
        }
        self.file
    }

    fn complaint(&self, line: usize, key: Option<&str>, what: impl Into<String>) -> Complaint {
        let short = |text: &str| text.chars().take(64).collect::<String>().escape_debug().to_string();
        Complaint { section: self.section.as_deref().map(short), key: key.map(short), ..Complaint::at(line, what) }
    }

    fn line(&mut self, number: usize, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        if let Some(name) = section(line) {
            return self.header(number, name);
        }
        if line.starts_with([' ', '\t']) {
            return self.continuation(number, line.trim());
        }
        self.open = None;
        if self.place == Place::Skipped {
            return;
        }
        let begins_a_key = |c: char| c == '_' || c.is_ascii_digit() || c.is_ascii_lowercase();
        match line.split_once('=').filter(|_| line.starts_with(begins_a_key)) {
            Some((key, value)) => self.entry(number, key.trim_end(), value.trim()),
            None => {
                let what = format!("{} is not of the form key=value, with the key in small letters", shown(line));
                let complaint = self.complaint(number, None, what);
                self.findings.wrong(complaint);
            }
        }
    }

    fn header(&mut self, number: usize, name: &str) {
        self.section = Some(name.to_owned());
        self.open = None;
        let interface = name.strip_prefix("interface").filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim);
        let allowed = |c: char| c == '-' || c == '_' || c.is_ascii_digit() || c.is_ascii_lowercase();
        self.place = match interface {
            _ if name == "zeek" => Place::Global,
            Some(interface) if !interface.is_empty() && interface.chars().all(allowed) => {
                if self.file.interfaces.iter().any(|known| known.name.as_deref() == Some(interface)) {
                    let complaint = self.complaint(number, None, "begins for the second time: make it one section");
                    self.findings.wrong(complaint);
                    Place::Skipped
                } else {
                    let name = Some(interface.to_owned());
                    self.file.interfaces.push(Interface { name, line: number, keys: Keys::new() });
                    Place::Interface
                }
            }
            _ => {
                let what = "is no section that Zeek knows: all that stands in it is left out, as Zeek does without a word; \
                            it knows [zeek] and [interface NAME] with a name of small letters, digits, - and _";
                let complaint = self.complaint(number, None, what);
                self.findings.remark(complaint);
                Place::Skipped
            }
        };
    }

    fn entry(&mut self, number: usize, key: &str, value: &str) {
        let (known, others): (&[&str], &[&str]) = match (&self.place, self.has_sections) {
            (Place::Interface, _) => (&OF_WORKERS, &GLOBAL),
            (_, true) => (&GLOBAL, &OF_WORKERS),
            (_, false) => (&GLOBAL, &[]),
        };
        let flat = !self.has_sections;
        let is_known = known.contains(&key) || (flat && OF_WORKERS.contains(&key));
        if !is_known {
            let way_out = match others.contains(&key) {
                true if self.place == Place::Interface => "it belongs into [zeek]".to_owned(),
                true => "it belongs into [interface NAME]".to_owned(),
                false => instead(key, GLOBAL.into_iter().chain(OF_WORKERS)),
            };
            let complaint = self.complaint(number, Some(key), format!("is not a key of this place: {way_out}"));
            return match flat {
                true => self.findings.remark(complaint), // as Zeek: nothing comes of it
                false => self.findings.wrong(complaint),
            };
        }
        if self.has_sections && self.section.is_none() {
            let what = "stands above the first section, where Zeek may not read it: it is taken for a key of [zeek]";
            let complaint = self.complaint(number, Some(key), what);
            self.findings.remark(complaint);
        }
        let entry = Entry { line: number, values: vec![value.to_owned()] };
        let Some(keys) = self.keys() else { return };
        match keys.get(key).map(|first| first.line) {
            Some(first) => {
                let what = format!("is given for the second time, after line {first}: remove one");
                let complaint = self.complaint(number, Some(key), what);
                self.findings.wrong(complaint);
            }
            None => {
                keys.insert(key.to_owned(), entry);
                self.open = Some(key.to_owned());
            }
        }
    }

    /// An indented line is one more value of the key above.
    fn continuation(&mut self, number: usize, text: &str) {
        let Some(key) = self.open.clone() else {
            if self.place != Place::Skipped {
                let what = format!("{} is indented, and there is no key above that it could go on with", shown(text));
                let complaint = self.complaint(number, None, what);
                self.findings.wrong(complaint);
            }
            return;
        };
        if !(key.ends_with("env") || key.ends_with("args")) {
            let what = "has one value alone, and an indented line is one more: indent it less";
            let complaint = self.complaint(number, Some(&key), what);
            return self.findings.wrong(complaint);
        }
        if text.starts_with('#') {
            let what = "has a comment that is indented, which Zeek takes for one more value: here it is left out";
            let complaint = self.complaint(number, Some(&key), what);
            return self.findings.remark(complaint);
        }
        if let Some(entry) = self.keys().and_then(|keys| keys.get_mut(&key)) {
            entry.values.push(text.to_owned());
        }
    }

    fn keys(&mut self) -> Option<&mut Keys> {
        match self.place {
            Place::Global => Some(&mut self.file.global),
            Place::Interface => self.file.interfaces.last_mut().map(|interface| &mut interface.keys),
            Place::Skipped => None,
        }
    }
}

/// The name between the brackets of a section's first line.
fn section(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

//! `zeekctl.cfg`: a key a line, without sections; every key that zeekctl knows, and what becomes of it here.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hint::{instead, shown};
use crate::import::{Findings, Source};
use crate::model::archive::MOST_FREE;
use crate::model::cluster_file::{Complaint, readable, word_list};
use crate::model::{ArchivePlace, ArchiveRules, Backend, Encrypt, Limit, Node, Resource, Role, RunAs, Zeek};

/// How zeekctl reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    Number,
    Text,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It has its place in a configuration: see [`Options::zeek`] and [`Options::apply`].
    Place,
    /// It is an option of Zeek, by this name.
    Option(&'static str),
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// zeekctl itself refuses it by now; the name that it has instead.
    Renamed(&'static str),
}

use Kind::{Flag, Number, Text};
use Use::{Nothing, Option as ZeekOption, Place, Renamed};

const ARCHIVER: &str = "logs are archived by each agent: see `archive_command` for another way";
const CRON: &str = "there is no cron: nodes are watched all the time";
const FOLDER: &str = "where it keeps its files is a setting of each agent (`state_dir`)";
const INSTALLATION: &str = "each agent finds the installation of Zeek on its machine";
const MAIL: &str = "mail is not sent: follow `watchpost events`";
const REMOTE: &str = "no commands are run on other machines: agents are told what to do";
const SOCKET: &str = "the manager is asked through its agent and needs no WebSocket";
const STATUS: &str = "`status` always knows, and shows times as they are";

const CURVE: &str = "cluster_backend_zeromq.use_curve_encryption";

/// Every key of zeekctl, in small letters.
const KEYS: &[(&str, Kind, Use)] = &[
    ("debug", Flag, Nothing("how much is logged is a setting of each daemon (`log`)")),
    ("havenfs", Flag, Nothing("nothing is copied between machines")),
    ("clusterbackend", Text, Place),
    ("savetraces", Flag, Place),
    ("stoptimeout", Number, Place),
    ("commtimeout", Number, Nothing(REMOTE)),
    ("controltopic", Text, Nothing(SOCKET)),
    ("commandtimeout", Number, Nothing(REMOTE)),
    ("zeekport", Number, Place),
    ("broport", Number, Renamed("ZeekPort")),
    ("metricsaddress", Text, Place),
    ("metricsport", Number, Place),
    ("logrotationinterval", Number, Place),
    ("logdir", Text, Place),
    ("makearchivename", Text, Nothing("archived logs have the names that zeekctl gives by default")),
    ("compresslogs", Flag, Place),
    ("compresslogsinflight", Number, Place),
    ("compresscmd", Text, Place),
    ("compressextension", Text, Place),
    ("privateaddressspaceislocal", Flag, Place),
    ("sendmail", Text, ZeekOption("Notice::sendmail")),
    ("mailsubjectprefix", Text, ZeekOption("Notice::mail_subject_prefix")),
    ("mailreplyto", Text, ZeekOption("Notice::reply_to")),
    ("mailto", Text, ZeekOption("Notice::mail_dest")),
    ("mailfrom", Text, ZeekOption("Notice::mail_from")),
    ("mailalarmsto", Text, ZeekOption("Notice::mail_dest_pretty_printed")),
    ("mailalarmsinterval", Number, Place),
    ("mailconnectionsummary", Flag, Nothing(MAIL)),
    ("mailhostupdown", Flag, Nothing(MAIL)),
    ("mailarchivelogfail", Flag, Nothing(MAIL)),
    ("mailreceivingpackets", Flag, Nothing(MAIL)),
    ("mindiskspace", Number, Place),
    ("statslogenable", Flag, Nothing("samples are taken by Prometheus, from /metrics")),
    ("statslogexpireinterval", Number, Nothing("samples are taken by Prometheus, from /metrics")),
    ("crashexpireinterval", Number, Nothing("how much is kept of crashes is a setting of each agent")),
    ("logexpireinterval", Text, Place),
    ("keeplogs", Text, Place),
    ("zeekargs", Text, Place),
    ("broargs", Text, Renamed("ZeekArgs")),
    ("memlimit", Text, Place),
    ("env_vars", Text, Place),
    ("timefmt", Text, Nothing(STATUS)),
    ("prefixes", Text, Place),
    ("sitepolicyscripts", Text, Place),
    ("statuscmdshowall", Flag, Nothing(STATUS)),
    ("stopwait", Flag, Nothing(ARCHIVER)),
    ("croncmd", Text, Nothing(CRON)),
    ("pfringclusterid", Number, Place),
    ("pfringclustertype", Text, Place),
    ("pfringfirstappinstance", Number, Place),
    ("timemachinehost", Text, Nothing("there is no time machine in a cluster: Zeek 7.1 has dropped it")),
    ("timemachineport", Text, Nothing("there is no time machine in a cluster: Zeek 7.1 has dropped it")),
    ("usewebsocket", Flag, Nothing(SOCKET)),
    ("websockethost", Text, Nothing(SOCKET)),
    ("websocketport", Number, Nothing(SOCKET)),
    ("websocketurl", Text, Nothing(SOCKET)),
    ("websockettimeout", Number, Nothing(SOCKET)),
    ("sitepolicypath", Text, Place),
    ("sitepluginpath", Text, Nothing("plugins of zeekctl are written in Python for it alone")),
    ("pcapsnaplen", Number, Place),
    ("pcapbufsize", Number, Place),
    ("zeekbase", Text, Nothing(INSTALLATION)),
    ("brobase", Text, Renamed("ZeekBase")),
    ("version", Text, Nothing(INSTALLATION)),
    ("standalone", Flag, Nothing("node.cfg says whether there is one node alone")),
    ("os", Text, Nothing(INSTALLATION)),
    ("time", Text, Nothing(INSTALLATION)),
    ("logexpireminutes", Number, Nothing("zeekctl works it out of LogExpireInterval")),
    ("bindir", Text, Nothing(INSTALLATION)),
    ("zeek", Text, Nothing(INSTALLATION)),
    ("bro", Text, Renamed("Zeek")),
    ("scriptsdir", Text, Nothing(INSTALLATION)),
    ("postprocdir", Text, Nothing(INSTALLATION)),
    ("helperdir", Text, Nothing(INSTALLATION)),
    ("cfgdir", Text, Nothing(FOLDER)),
    ("spooldir", Text, Nothing(FOLDER)),
    ("brokerdbdir", Text, ZeekOption("Broker::table_store_db_directory")),
    ("fileextractdir", Text, ZeekOption("FileExtract::prefix")),
    ("policydir", Text, Nothing(INSTALLATION)),
    ("staticdir", Text, Nothing(INSTALLATION)),
    ("libdir", Text, Nothing(INSTALLATION)),
    ("libdir64", Text, Nothing(INSTALLATION)),
    ("libdirinternal", Text, Nothing(INSTALLATION)),
    ("tmpdir", Text, Nothing(FOLDER)),
    ("tmpexecdir", Text, Nothing(FOLDER)),
    ("statsdir", Text, Nothing(FOLDER)),
    ("plugindir", Text, Nothing(INSTALLATION)),
    ("pluginzeekdir", Text, Nothing(INSTALLATION)),
    ("pluginbrodir", Text, Renamed("PluginZeekDir")),
    ("tracesummary", Text, Nothing(MAIL)),
    ("capstatspath", Text, Nothing(CRON)),
    ("nodecfg", Text, Nothing("the files to read are named to `import`")),
    ("localnetscfg", Text, Nothing("the files to read are named to `import`")),
    ("statefile", Text, Nothing(FOLDER)),
    ("lockfile", Text, Nothing(FOLDER)),
    ("debuglog", Text, Nothing(FOLDER)),
    ("statslog", Text, Nothing(FOLDER)),
    ("defaultstoredir", Text, ZeekOption("Cluster::default_store_dir")),
    ("policydirsiteinstall", Text, Nothing(FOLDER)),
    ("policydirsiteinstallauto", Text, Nothing(FOLDER)),
    ("zeekctlconfigdir", Text, Nothing(FOLDER)),
    ("clustertopicseparator", Text, Nothing(SOCKET)),
    ("lb_custom.interfaceprefix", Text, Place),
    ("lb_custom.interfacesuffix", Text, Place),
    (CURVE, Text, Place),
    ("cluster_backend_zeromq.curve_dir", Text, Nothing(FOLDER)),
    ("cluster_backend_zeromq.disable_unencrypted_warning", Flag, Nothing("there is no such warning")),
];

/// What `zeekctl.cfg` says, as far as it could be understood.
#[derive(Debug, Default)]
pub(super) struct Options {
    given: BTreeMap<&'static str, String>,
    /// Where each of them stands.
    lines: BTreeMap<&'static str, usize>,
    env: BTreeMap<String, String>,
    args: Vec<String>,
}

impl Options {
    pub(super) fn read(source: Option<&Source>, findings: &mut Findings) -> Self {
        let mut options = Self::default();
        let Some(source) = source else { return options };
        let text = match readable(&source.bytes) {
            Ok(text) => text,
            Err(complaint) => {
                findings.wrong(complaint);
                return options;
            }
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                options.line(index + 1, line, findings);
            }
        }
        options.whole(findings);
        options
    }

    fn line(&mut self, number: usize, text: &str, findings: &mut Findings) {
        let Some((written, value)) = text.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            let what = format!("{} is not of the form KEY = VALUE", shown(text));
            return findings.wrong(Complaint::at(number, what));
        };
        let complaint = |what: String| {
            let key: String = written.chars().take(64).collect::<String>().escape_debug().collect();
            Complaint { key: Some(key), ..Complaint::at(number, what) }
        };
        let key = written.to_lowercase();
        let allowed = |c: char| c == '_' || c == '.' || c.is_ascii_lowercase() || c.is_ascii_digit();
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(allowed) {
            let what = "is no name of a key: zeekctl takes letters, digits, _ and . alone, and no digit in front";
            return findings.wrong(complaint(what.into()));
        }
        let Some(&(key, kind, used)) = KEYS.iter().find(|(known, ..)| *known == key) else {
            let what = match key.contains('.') {
                true => "belongs to a plugin of zeekctl: it is left out".to_owned(),
                false => format!(
                    "is no key of zeekctl, which ignores it, and so it is left out: {}",
                    instead(&key, KEYS.iter().map(|(key, ..)| *key))
                ),
            };
            return findings.remark(complaint(what));
        };
        if let Some(why) = wrong_value(kind, value) {
            return findings.wrong(complaint(why));
        }
        match used {
            Renamed(name) => findings.wrong(complaint(format!("is called {name} by now, and zeekctl refuses it"))),
            Nothing(why) => findings.remark(complaint(format!("is left out: {why}"))),
            Place | ZeekOption(_) => match self.take(key, value) {
                Ok(()) => {
                    // The last one counts.
                    self.given.insert(key, value.to_owned());
                    self.lines.insert(key, number);
                }
                Err(what) => findings.wrong(complaint(what)),
            },
        }
    }

    /// What zeekctl asks of several keys together.
    fn whole(&self, findings: &mut Findings) {
        const KEY: &str = "logexpireinterval";
        let (age, rotation) = (self.keep_age(), Duration::from_secs(self.number("logrotationinterval", 3600).into()));
        if let Some(line) = self.lines.get(KEY).filter(|_| age.is_some_and(|age| age < rotation)) {
            let what = "is shorter than LogRotationInterval, with which zeekctl does not start: make it longer";
            findings.wrong(Complaint { key: Some("LogExpireInterval".into()), ..Complaint::at(*line, what) });
        }
    }

    /// What compresses logs; empty for gzip, which needs nobody.
    fn compressor(&self) -> Vec<String> {
        let words = self.get("compresscmd").and_then(|text| word_list(text).ok()).unwrap_or_default();
        match words.as_slice() {
            [gzip] if gzip == "gzip" || gzip.ends_with("/gzip") => Vec::new(),
            _ => words,
        }
    }

    fn keep_age(&self) -> Option<Duration> {
        self.get("logexpireinterval").and_then(|text| expiry(text).ok()).flatten()
    }

    /// Looks whether a value that has its place can be put there.
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "clusterbackend" => backend(value).map(drop),
            "zeekport" => port(value).map(drop),
            "metricsport" if value == "0" => Ok(()),
            "metricsport" => port(value).map(drop),
            "metricsaddress" if !value.is_empty() => match value.parse::<std::net::IpAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{} is no address: write one such as 127.0.0.1", shown(value))),
            },
            "memlimit" => mem_limit(value).map(drop),
            "env_vars" => super::nodes::variables(value).map(|env| self.env = env),
            "zeekargs" => word_list(value).map(|args| self.args = args),
            CURVE => encrypt(value).map(drop),
            "compresscmd" => word_list(value).map(drop),
            "compressextension" if !ArchiveRules::is_extension(value) => {
                Err(format!("{} is no extension: write letters and digits such as gz", shown(value)))
            }
            "compresslogsinflight" if !matches!(value.parse(), Ok(0..=9u32)) => {
                Err(format!("{} is no level: write a number from 0 to 9", shown(value)))
            }
            "logdir" if !value.starts_with('/') => {
                Err(format!("{} is no absolute directory: write it in full", shown(value)))
            }
            "logexpireinterval" => expiry(value).map(drop),
            "mindiskspace" if !matches!(value.parse(), Ok(0..=MOST_FREE)) => Err(format!(
                "{} is more than {MOST_FREE} percent, of which people would be told all the time",
                shown(value)
            )),
            "pfringclustertype" => super::balance::flow(value).map(drop),
            "sitepolicypath" => match value.split(':').all(|path| path.is_empty() || path.starts_with('/')) {
                true => Ok(()),
                false => Err("has a directory that is not absolute: write it in full".into()),
            },
            _ => Ok(()),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(String::as_str)
    }

    pub(super) fn text(&self, key: &str, default: &'static str) -> &str {
        self.get(key).unwrap_or(default)
    }

    pub(super) fn number(&self, key: &str, default: u32) -> u32 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// Whether every node has this variable.
    pub(super) fn sets(&self, variable: &str) -> bool {
        self.env.contains_key(variable)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |value| matches!(&*value.to_lowercase(), "1" | "true"))
    }

    /// What all nodes share; where the file is silent, as zeekctl has it.
    pub(super) fn zeek(&self) -> Zeek {
        let words = |text: &str, by: &[char]| {
            text.split(by).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<String>>()
        };
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        for (key, _, used) in KEYS {
            if let (ZeekOption(name), Some(value)) = (used, self.get(key)) {
                options.insert((*name).to_owned(), value.to_owned());
            }
        }
        if !self.flag("privateaddressspaceislocal", true) {
            options.insert("Site::private_address_space_is_local".into(), "F".into());
        }
        if let Some(interval) = self.get("mailalarmsinterval") {
            options.insert("Log::default_mail_alarms_interval".into(), format!("{interval}secs"));
        }
        if let level @ 1.. = self.number("compresslogsinflight", 0) {
            options.insert("LogAscii::gzip_level".into(), level.to_string());
            options.insert("LogAscii::gzip_file_extension".into(), self.text("compressextension", "gz").to_owned());
        }
        let default = Zeek::default();
        Zeek {
            backend: self.get("clusterbackend").map_or(default.backend, |text| backend(text).unwrap_or_default()),
            scripts: self.get("sitepolicyscripts").map_or(default.scripts, |text| words(text, &[' ', '\t'])),
            args: self.args.clone(),
            options,
            env: self.env.clone(),
            prefixes: words(self.text("prefixes", "local"), &[':']),
            script_path: words(self.text("sitepolicypath", ""), &[':']),
            archive: self.archive(),
            encrypt: self.get(CURVE).map_or(default.encrypt, |text| encrypt(text).unwrap_or_default()),
            rotation_interval: Some(Duration::from_secs(self.number("logrotationinterval", 3600).into())),
            metrics_address: self.get("metricsaddress").and_then(|text| text.parse().ok()),
            port: Some(self.get("zeekport").and_then(|text| text.parse().ok()).unwrap_or(27_760)),
            metrics_port: Some(self.get("metricsport").and_then(|text| text.parse().ok()).unwrap_or(9991)),
            pcap_snaplen: self.get("pcapsnaplen").and_then(|text| text.parse().ok()),
            pcap_bufsize: self.get("pcapbufsize").and_then(|text| text.parse().ok()),
            ..Zeek::default()
        }
    }

    fn archive(&self) -> ArchiveRules {
        let default = ArchiveRules::default();
        ArchiveRules {
            place: self.get("logdir").map_or(default.place, |path| ArchivePlace::At(path.to_owned())),
            compress: self.flag("compresslogs", true),
            compressor: self.compressor(),
            extension: self.text("compressextension", "gz").to_owned(),
            keep: self.text("keeplogs", "").split_whitespace().map(str::to_owned).collect(),
            keep_age: self.keep_age(),
            min_free: self.get("mindiskspace").and_then(|text| text.parse().ok()).unwrap_or(default.min_free),
            ..ArchiveRules::default()
        }
    }

    /// Gives a node what zeekctl gives to each.
    pub(super) fn apply(&self, node: &mut Node) {
        node.stop_grace = Duration::from_secs(self.number("stoptimeout", 60).into());
        if node.role == Role::Worker && self.flag("savetraces", false) {
            let args = &mut node.zeek.get_or_insert_default().args;
            args.splice(0..0, ["-w", "trace.pcap"].map(str::to_owned));
        }
        if let Some(bytes) = self.get("memlimit").and_then(|text| mem_limit(text).ok()).flatten() {
            let limit = Limit { soft: Some(bytes), hard: Some(bytes) };
            let limits = [Resource::Rss, Resource::Data, Resource::As].map(|resource| (resource, limit));
            node.run_as = Some(Box::new(RunAs { limits: limits.into(), ..RunAs::default() }));
        }
    }
}

/// Why zeekctl would not take a value.
fn wrong_value(kind: Kind, value: &str) -> Option<String> {
    let quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    if quoted('"') || quoted('\'') {
        return Some("is in quotes, which zeekctl refuses: write it without".into());
    }
    match kind {
        Flag if !["0", "1", "true", "false"].contains(&&*value.to_lowercase()) => {
            Some(format!("{} is neither: write 1 or 0", shown(value)))
        }
        Number if value.parse::<u32>().is_err() => Some(format!("{} is no number from 0 on", shown(value))),
        _ => None,
    }
}

/// `N`, in days, or `N` and one of day, hr and min; `None` for 0, by which nothing expires.
fn expiry(text: &str) -> Result<Option<Duration>, String> {
    const UNITS: [(&str, u64); 3] = [("day", 24 * 60 * 60), ("hr", 60 * 60), ("min", 60)];
    let wrong = || format!("{} is no time: write such as 30, 30 days, 12 hrs or 90 mins", shown(text));
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let seconds = match unit.strip_suffix('s').unwrap_or(&unit) {
        "" if unit.is_empty() => Some(UNITS[0].1),
        one => UNITS.iter().find(|(name, _)| *name == one).map(|(_, seconds)| *seconds),
    };
    let seconds = seconds.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit)).ok_or_else(wrong)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn encrypt(text: &str) -> Result<Encrypt, String> {
    match &*text.to_lowercase() {
        "auto" => Ok(Encrypt::Auto),
        "1" | "true" => Ok(Encrypt::Yes),
        "0" | "false" => Ok(Encrypt::No),
        _ => Err(format!("{} is neither: write auto, 1 or 0", shown(text))),
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    let known = [Backend::ZeroMq, Backend::Broker];
    let found = known.into_iter().find(|backend| backend.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{} is no backend: write ZeroMQ or Broker", shown(text)))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port: &u16| port != 0);
    port.ok_or_else(|| format!("{} is not a port: write a number from 1 to 65535", shown(text)))
}

/// In bytes; `None` for no limit.
fn mem_limit(text: &str) -> Result<Option<u64>, String> {
    match text {
        "unlimited" => Ok(None),
        kilobytes => match kilobytes.parse::<u64>().ok().and_then(|kilobytes| kilobytes.checked_mul(1024)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(format!("{} is no limit: write kilobytes or `unlimited`", shown(text))),
        },
    }
}

//! The settings file: TOML whose every key is known, or complained of with its line.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{KEYS, Key, SECTIONS};
use super::value::Value;
use super::{Complaint, Draft};
use crate::hint::{instead, shown};

/// Reads the file `name`, whose content is `text`.
pub(super) fn apply(draft: &mut Draft, name: &str, text: &str) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count();
    for error in &errors {
        let place = format!("{name}:{}", line(error.span().map_or(0, |span| span.start)));
        draft.complaints.push(Complaint::new(place, error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return draft.is_broken(); // what is left of a broken table means something else
    }
    let mut found: Vec<_> = entries(table.get_ref());
    found.sort_by_key(|entry| entry.key.span().start);
    for entry in found {
        let place = format!("{name}:{}: {}", line(entry.key.span().start), entry.path());
        entry.apply(draft, place);
    }
}

/// A key, its value, and the section that both stand in.
struct Entry<'a> {
    section: &'static str,
    key: &'a Spanned<DeString<'a>>,
    value: &'a DeValue<'a>,
}

/// Every key of the file, those of known sections instead of the sections.
fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for (key, value) in table {
        match (SECTIONS.into_iter().find(|section| section == key.get_ref()), value.get_ref()) {
            (Some(section), DeValue::Table(inner)) => {
                entries.extend(inner.iter().map(|(key, value)| Entry { section, key, value: value.get_ref() }));
            }
            (_, value) => entries.push(Entry { section: "", key, value }),
        }
    }
    entries
}

impl Entry<'_> {
    fn path(&self) -> String {
        let key: String = self.key.get_ref().chars().take(64).collect::<String>().escape_debug().to_string();
        if self.section.is_empty() { key } else { format!("{}.{key}", self.section) }
    }

    fn apply(&self, draft: &mut Draft, place: String) {
        let name = self.key.get_ref().as_ref();
        match KEYS.iter().find(|key| key.section == self.section && key.name == name) {
            Some(key) => draft.take(key, &Value::Toml(self.value), place),
            None => draft.complaints.push(Complaint::new(place, self.unknown(name))),
        }
    }

    fn unknown(&self, name: &str) -> String {
        if self.section.is_empty() && SECTIONS.contains(&name) {
            return format!("is a section: begin it with a line [{name}]");
        }
        if let Some(key) = KEYS.iter().find(|key| key.name == name) {
            return match key.section {
                "" => format!("belongs to the top of the file, before the first section: move {} there", shown(name)),
                section => format!("belongs to [{section}]: move it there"),
            };
        }
        let is_near = |key: &&Key| key.section == self.section;
        let known = KEYS.iter().filter(is_near).map(|key| key.name);
        let sections = SECTIONS.into_iter().filter(|_| self.section.is_empty());
        format!("is not a setting: {}", instead(name, known.chain(sections)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assemble, complaints};

    #[test]
    fn every_wrong_key_and_value_is_named_at_once() {
        let text = "clutser = 'a'\nlog = 'loud'\nlink = 3\nopen = true\n[controller]\nhttp = '0.0.0.0'\n\
                    listen = 2150\nrequest_timeout = 10\nopen = 'yes'\nstart_port = 70000\nhosts = ['a', 3]\n\
                    cluster = 'x'\n[agents]\nname = 'a'\n[agent]\nname = 'a/b'\n";
        assert_eq!(
            complaints(text, &[]),
            [
                "w.toml:1: clutser: is not a setting: did you mean `cluster`?",
                "w.toml:2: log: `loud` is not a level: known are off, error, warn, info, debug, trace",
                "w.toml:3: link: is a section: begin it with a line [link]",
                "w.toml:4: open: belongs to [controller]: move it there",
                "w.toml:6: controller.http: `0.0.0.0` does not fit: write IP:PORT in quotes, such as \
                 \"127.0.0.1:2150\" or \"[::1]:2150\", or \"\" for none",
                "w.toml:7: controller.listen: `2150` does not fit: write IP:PORT in quotes, such as \
                 \"127.0.0.1:2150\" or \"[::1]:2150\", or \"\" for none",
                "w.toml:8: controller.request_timeout: `10` does not fit: write a time in quotes from 1ms to 1m, \
                 such as \"500ms\" or \"10s\"",
                "w.toml:9: controller.open: `yes` does not fit: write true or false",
                "w.toml:10: controller.start_port: `70000` does not fit: write a whole number from 1 to 65535",
                "w.toml:11: controller.hosts: a list does not fit: write a list of names",
                "w.toml:12: controller.cluster: belongs to the top of the file, before the first section: move \
                 `cluster` there",
                "w.toml:13: agents: is not a setting: did you mean `agent`?",
                "w.toml:16: agent.name: `a/b` may hold only letters, digits and . _ - @ : +",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_named_by_line() {
        let got = complaints("cluster = 'a'\ncluster = 'b'\nlog = \n", &[]);
        assert!(got.len() == 2 && got[0].starts_with("w.toml:2: ") && got[1].starts_with("w.toml:3: "), "{got:?}");
    }

    #[test]
    fn values_reach_their_fields() {
        let text = "cluster = 'c'\nlog = 'debug'\n[controller]\nlisten = ''\nhttp = '[::1]:0'\nhosts = ['a', 'b']\n\
                    log_max_bytes = 0x1_0000\n[agent]\nname = 'me'\ncontroller = ''\nlisten = '127.0.0.1:2151'\n[link]\n\
                    heartbeat = '500ms'\nwindow_bytes = 0x1000\n";
        let settings = assemble(text, &[]).unwrap();
        assert_eq!((settings.cluster.as_str(), settings.log.to_string().as_str()), ("c", "debug"));
        assert_eq!((settings.controller.listen, settings.controller.http), (None, "[::1]:0".parse().ok()));
        assert_eq!((settings.controller.hosts.join(","), settings.controller.log_max_bytes), ("a,b".into(), 65_536));
        assert_eq!((settings.agent.name.as_str(), settings.agent.controller), ("me", None));
        assert_eq!(settings.agent.listen, "127.0.0.1:2151".parse().ok());
        assert_eq!((settings.link.heartbeat.as_millis(), settings.link.window_bytes), (500, 4096));
    }

    #[test]
    fn waits_that_contradict_each_other_are_refused() {
        let got = complaints("[link]\nreconnect_min = '20s'", &[]);
        assert_eq!(got, ["w.toml:2: link.reconnect_min: is longer than link.reconnect_max: swap the two"]);
        let got = complaints("", &[("WATCHPOST_LINK_RECONNECT_MAX", "1ms")]);
        let want =
            "WATCHPOST_LINK_RECONNECT_MAX: is shorter than link.reconnect_min: choose another, or set that as well";
        assert_eq!(got, [want]);
        let got = complaints("[link]\nreconnect_min = 'x'\nreconnect_max = '1ms'", &[]);
        assert!(got.len() == 1 && got[0].starts_with("w.toml:2: link.reconnect_min: `x` does not fit"), "{got:?}");
    }
}

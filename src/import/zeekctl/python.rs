//! Values as Python's `configparser` hands them out: with defaults for all sections, and with the values of other keys in
//! them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::hint::shown;
use crate::model::cluster_file::lines::Section;

/// How deep values may ask for one another, as in Python.
const DEPTH: usize = 10;
/// How often a value may ask, itself or through others: a few lines could ask without end.
const ASKS: usize = 1000;

/// The longest value, in bytes, once others are in it.
const LONGEST: usize = 64 << 10;

/// The keys of a section and, where it does not have them, of `[DEFAULT]`, each with its line and its text. A dot in a key is
/// an underscore to zeekctl.
pub(super) struct Values<'a> {
    raw: BTreeMap<Cow<'a, str>, (usize, &'a str)>,
}

impl<'a> Values<'a> {
    pub(super) fn of(section: &'a Section<'a>, defaults: Option<&'a Section<'a>>) -> Self {
        let pairs = |section: &'a Section<'a>| {
            section.entries.iter().map(|entry| {
                let key = match entry.key.contains('.') {
                    true => Cow::Owned(entry.key.replace('.', "_")),
                    false => Cow::Borrowed(&*entry.key),
                };
                (key, (entry.line, entry.value.as_deref().unwrap_or_default()))
            })
        };
        Self { raw: defaults.into_iter().flat_map(pairs).chain(pairs(section)).collect() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.raw.keys().map(|key| &**key)
    }

    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.raw.get(key).map(|(line, _)| *line)
    }

    /// The value of `key`, if it is there and not empty.
    pub(super) fn get(&self, key: &str) -> Result<Option<String>, String> {
        let Some((_, text)) = self.raw.get(key) else { return Ok(None) };
        self.insert(text, DEPTH, &mut 0).map(|value| Some(value).filter(|value| !value.is_empty()))
    }

    /// Puts in what `%(KEY)s` stands for, and `%` for `%%`.
    fn insert(&self, text: &str, depth: usize, asked: &mut usize) -> Result<String, String> {
        let mut value = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            value.push_str(before);
            rest = match behind.strip_prefix('%') {
                Some(behind) => {
                    value.push('%');
                    behind
                }
                None => {
                    let reference = behind.strip_prefix('(').and_then(|behind| behind.split_once(")s"));
                    let (key, behind) = reference.ok_or("holds a single `%`: write `%%` for a percent sign")?;
                    let key = key.to_lowercase();
                    let (_, other) = self.raw.get(&*key).ok_or_else(|| format!("{} is no key here", shown(&key)))?;
                    let deeper = depth.checked_sub(1).ok_or("asks for others more than 10 deep")?;
                    *asked += 1;
                    if *asked > ASKS {
                        return Err(format!("asks for the values of other keys more than {ASKS} times"));
                    }
                    value.push_str(&self.insert(other, deeper, asked)?);
                    behind
                }
            };
            if value.len() > LONGEST {
                return Err(format!("is longer than {LONGEST} bytes once the values of other keys are in it"));
            }
        }
        value.push_str(rest);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster_file::Complaints;
    use crate::model::cluster_file::lines::{DEFAULT, Dialect, sections};

    fn value(text: &str, key: &str) -> Result<Option<String>, String> {
        let sections = sections(text, Dialect::Python, &mut Complaints::default());
        let defaults = sections.iter().find(|section| section.name == DEFAULT);
        let section = sections.iter().find(|section| section.name == "s").unwrap();
        Values::of(section, defaults).get(key)
    }

    #[test]
    fn values_of_other_keys_are_put_in() {
        let text = "[DEFAULT]\nhost = h%%%(n)s\nn = 1\nleft =\n[s]\nN = 2\na = x%(HOST)sy\n";
        assert_eq!(value(text, "a").unwrap().as_deref(), Some("xh%2y"));
        assert_eq!(value(text, "host").unwrap().as_deref(), Some("h%2"));
        assert_eq!(value(text, "left").unwrap(), None);
        assert_eq!(value(text, "none").unwrap(), None);
    }

    #[test]
    fn values_that_never_end_are_refused() {
        let many = |n: usize| format!("k{n} = {}\n", format!("%(k{})s", n + 1).repeat(50));
        let broad: String = (0..9).map(many).collect::<String>() + "k9 =\n";
        for (text, want) in [
            ("a = 5%", "write `%%` for a percent sign"),
            ("a = %(b", "write `%%` for a percent sign"),
            ("a = %(b)s", "`b` is no key here"),
            ("a = %(a)s", "asks for others more than 10 deep"),
            (&format!("{broad}a = %(k0)s"), "more than 1000 times"),
            (&format!("b = {}\na = {}", "x".repeat(1000), "%(b)s".repeat(100)), "longer than 65536 bytes"),
        ] {
            let error = value(&format!("[s]\n{text}\n"), "a").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}

//! Settings as far as they could be read: what is wrong with them so far, and where each of them stands.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use super::keys::Key;
use super::value::Value;
use super::{Complaint, Complaints, Machine, Settings, SettingsError, environment, file, read};
use crate::trust::Whereabouts;

/// See the module. Arguments may still overrule it, and only then does it show as a whole what else is wrong.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What was understood, and defaults for the rest.
    pub settings: Settings,
    /// Where each of them was given.
    pub places: Places,
    /// What is wrong so far, in the order in which it was read.
    pub complaints: Vec<Complaint>,
}

/// Where each of the settings was given, so that complaints can say so.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// By its key with its section: file, line and key, a variable, or an option.
    given: BTreeMap<String, String>,
    /// Keys whose values did not fit, so that nobody knows what was meant.
    doubted: BTreeSet<String>,
    /// Whether a file could not be read as a table, so that it may have said anything.
    broken: bool,
}

impl Places {
    /// Where this key was given, or else the key itself.
    pub fn of(&self, key: &str) -> String {
        self.given.get(key).cloned().unwrap_or_else(|| key.to_owned())
    }

    /// Whether all of these keys are as somebody wanted them.
    pub fn are_clear(&self, keys: &[&str]) -> bool {
        !self.broken && keys.iter().all(|&key| !self.doubted.contains(key))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }
}

impl Draft {
    /// Reads as [`Settings::load`] does, and goes on for as long as there may be more to complain of.
    pub fn load(
        config: Option<&Path>,
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        Self::load_above(None, config, state_dir, machine, environment)
    }

    /// The same as [`Settings::load_for_agent`] does.
    pub fn load_for_agent(
        config: Option<&Path>,
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let draft = Self::load(config, state_dir, machine, environment.iter().cloned())?;
        if !draft.places.are_clear(&["state_dir", "link.trust"]) {
            return Ok(draft); // where that would be is not known
        }
        let joined = Whereabouts::file(&draft.settings.trust());
        match joined.is_file() {
            true => Self::load_above(Some(&joined), config, state_dir, machine, environment),
            false => Ok(draft),
        }
    }

    fn load_above(
        joined: Option<&Path>,
        config: Option<&Path>,
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let mut files = Vec::new();
        for path in joined.into_iter().chain(config) {
            files.push((path.display().to_string(), read(path)?));
        }
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Ok(Self::gather(&files, state_dir, machine, environment))
    }

    /// Of several files the later one wins.
    pub(super) fn gather(
        files: &[(&str, &str)],
        state_dir: Option<&Path>,
        machine: &Machine,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut complaints = Vec::new();
        let variables = environment::collect(environment, &mut complaints);
        let settings = Settings::defaults(machine, environment::state_dir(machine.root, &variables));
        let mut draft = Self { settings, places: Places::default(), complaints };
        files.iter().for_each(|(name, text)| file::apply(&mut draft, name, text));
        environment::apply(&mut draft, &variables);
        draft.settings.agent.dial_unless_it_listens();
        if let Some(chosen) = state_dir {
            draft.settings.state_dir = chosen.to_owned();
            draft.is_given("state_dir".to_owned(), "--state-dir".to_owned());
        }
        draft.look_at_the_whole();
        draft
    }

    /// What is wrong with it for whichever daemon it is.
    fn look_at_the_whole(&mut self) {
        if self.settings.state_dir.as_os_str().is_empty() {
            let what = "there is no HOME to put it under: set it here, or by WATCHPOST_STATE_DIR";
            self.complaints.push(Complaint::new("state_dir", what));
            self.doubt("state_dir".to_owned());
        }
        let [least, most] = ["link.reconnect_min", "link.reconnect_max"];
        let link = &self.settings.link;
        if link.reconnect_min > link.reconnect_max && self.places.are_clear(&[least, most]) {
            // Where only one of them was given, it is that one.
            let (key, what) = match self.places.has(least) {
                true => (least, "is longer than link.reconnect_max: swap the two"),
                false => (most, "is shorter than link.reconnect_min: choose another, or set that as well"),
            };
            self.complaints.push(Complaint::new(self.places.of(key), what));
        }
    }

    /// The settings, if there is nothing to complain of.
    pub fn finish(self) -> Result<Settings, SettingsError> {
        match self.complaints.is_empty() {
            true => Ok(self.settings),
            false => Err(SettingsError::Wrong(Complaints(self.complaints))),
        }
    }

    /// Has an argument overrule a setting, if it was given: `option` is what it is called.
    pub fn overrule<T>(&mut self, key: &str, option: &str, given: Option<T>, set: impl FnOnce(&mut Settings, T)) {
        self.overrule_if_it_fits(key, option, given, |settings, value| {
            set(settings, value);
            Ok(())
        });
    }

    /// Does the same with an argument that may not fit, which then is a complaint like any other.
    pub fn overrule_if_it_fits<T>(
        &mut self,
        key: &str,
        option: &str,
        given: Option<T>,
        set: impl FnOnce(&mut Settings, T) -> Result<(), String>,
    ) {
        if let Some(value) = given {
            let fits = set(&mut self.settings, value);
            self.is_set(key.to_owned(), option.to_owned(), fits);
        }
    }

    /// Sets a key to what was given in this place.
    pub(super) fn take(&mut self, key: &Key, value: &Value, place: String) {
        let fits = (key.set)(&mut self.settings, value);
        self.is_set(key.path(), place, fits);
    }

    fn is_set(&mut self, key: String, place: String, fits: Result<(), String>) {
        match fits {
            Ok(()) => self.is_given(key, place),
            Err(what) => {
                self.doubt(key);
                self.complaints.push(Complaint::new(place, what));
            }
        }
    }

    pub(super) fn is_given(&mut self, key: String, place: String) {
        self.places.doubted.remove(&key);
        self.places.given.insert(key, place);
    }

    pub(super) fn doubt(&mut self, key: String) {
        self.places.doubted.insert(key);
    }

    /// Of a file that is no table nothing is known.
    pub(super) fn is_broken(&mut self) {
        self.places.broken = true;
    }
}

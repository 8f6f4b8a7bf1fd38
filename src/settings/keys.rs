//! Every key there is: where it stands, and what it sets. The names of variables are made from it.

use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::value::Value;
use super::{LONGEST_REQUEST, OnExit, Settings};
use crate::hint::{instead, shown};
use crate::model::Role;
use crate::model::output::{LEAST_OUTPUT, MOST_OUTPUT_FILES};
use crate::supervisor::process::groups::Place;

/// One key of the settings.
pub(super) struct Key {
    /// Empty for a key at the top of the file.
    pub section: &'static str,
    pub name: &'static str,
    /// Reads the value into its field; the error says what would fit.
    pub set: fn(&mut Settings, &Value) -> Result<(), String>,
}

impl Key {
    /// The key with its section, as complaints name it.
    pub fn path(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("WATCHPOST_{}", self.path().replace('.', "_").to_uppercase())
    }
}

/// The longest that anything is kept: ten years, as the reader of times counts them.
const LONGEST_AGE: Duration = Duration::from_secs(10 * 31_557_600);

/// The sections of the file, in its order.
pub(super) const SECTIONS: [&str; 3] = ["controller", "agent", "link"];

macro_rules! keys {
    ($($section:literal $name:literal: |$settings:ident, $value:ident| $set:expr;)*) => {
        /// Every key, in the order of the shipped file.
        pub(super) const KEYS: &[Key] = &[$(Key {
            section: $section,
            name: $name,
            set: |$settings, $value| {
                $set;
                Ok(())
            },
        }),*];
    };
}

keys! {
    "" "cluster": |s, v| s.cluster = v.name()?.ok_or_else(|| v.wrong("a name"))?.to_string();
    "" "state_dir": |s, v| if !v.text()?.is_empty() { s.state_dir = v.text()?.into() };
    "" "log": |s, v| s.log = level(v.text()?)?;
    "" "insecure": |s, v| s.insecure = v.boolean()?;
    "controller" "name": |s, v| if let Some(name) = v.name()? { s.controller.name = name.to_string() };
    "controller" "listen": |s, v| s.controller.listen = v.address()?;
    "controller" "http": |s, v| s.controller.http = v.address()?;
    "controller" "http_tls": |s, v| s.controller.http_tls = v.boolean()?;
    "controller" "http_certificate": |s, v| s.controller.http_certificate = v.path()?;
    "controller" "http_key": |s, v| s.controller.http_key = v.path()?;
    "controller" "open": |s, v| s.controller.open = v.boolean()?;
    "controller" "hosts": |s, v| s.controller.hosts = v.list()?;
    "controller" "websocket": |s, v| s.controller.websocket = v.address()?;
    "controller" "websocket_answer_within": |s, v| s.controller.websocket_answer_within = v.time_up_to(LONGEST_REQUEST)?;
    "controller" "websocket_certificate": |s, v| s.controller.websocket_certificate = v.path()?;
    "controller" "websocket_key": |s, v| s.controller.websocket_key = v.path()?;
    "controller" "websocket_client_ca": |s, v| s.controller.websocket_client_ca = v.path()?;
    "controller" "request_timeout": |s, v| s.controller.request_timeout = v.time_up_to(LONGEST_REQUEST)?;
    "controller" "on_failure": |s, v| s.controller.on_failure = v.on_failure()?;
    "controller" "max_unavailable_logger": |s, v| *s.controller.max_unavailable.of_mut(Role::Logger) = v.portion()?;
    "controller" "max_unavailable_manager": |s, v| *s.controller.max_unavailable.of_mut(Role::Manager) = v.portion()?;
    "controller" "max_unavailable_proxy": |s, v| *s.controller.max_unavailable.of_mut(Role::Proxy) = v.portion()?;
    "controller" "max_unavailable_worker": |s, v| *s.controller.max_unavailable.of_mut(Role::Worker) = v.portion()?;
    "controller" "max_unavailable_none": |s, v| *s.controller.max_unavailable.of_mut(Role::None) = v.portion()?;
    "controller" "auto_assign_ports": |s, v| s.controller.auto_assign_ports = v.boolean()?;
    "controller" "start_port": |s, v| s.controller.start_port = v.port()?;
    "controller" "auto_assign_metrics_ports": |s, v| s.controller.auto_assign_metrics_ports = v.boolean()?;
    "controller" "metrics_start_port": |s, v| s.controller.metrics_start_port = v.port()?;
    "controller" "log_max_age": |s, v| s.controller.log_max_age = v.time_up_to(LONGEST_AGE)?;
    "controller" "log_max_bytes": |s, v| s.controller.log_max_bytes = v.number(65_536..=1 << 40)?;
    "agent" "name": |s, v| if let Some(name) = v.name()? { s.agent.name = name };
    "agent" "controller": |s, v| s.agent.controller = v.endpoint()?;
    "agent" "listen": |s, v| s.agent.listen = v.address()?;
    "agent" "cgroup": |s, v| s.agent.cgroup = place(v.text()?)?;
    "agent" "zeek": |s, v| s.agent.zeek = v.path()?;
    "agent" "run_dir": |s, v| s.agent.run_dir = v.path()?;
    "agent" "on_exit": |s, v| s.agent.on_exit = on_exit(v.text()?)?;
    "agent" "init_grace": |s, v| s.agent.init_grace = v.time()?;
    "agent" "output_max_bytes": |s, v| s.agent.output.max_bytes = v.number(LEAST_OUTPUT..=1 << 40)?;
    "agent" "output_max_age": |s, v| s.agent.output.max_age = v.time_up_to(LONGEST_AGE)?;
    "agent" "output_keep_files": |s, v| s.agent.output.keep_files = v.number(1..=MOST_OUTPUT_FILES)?;
    "agent" "output_keep_bytes": |s, v| s.agent.output.keep_bytes = v.number(0..=1 << 50)?;
    "agent" "output_compress": |s, v| s.agent.output.compress = v.boolean()?;
    "agent" "crash_keep": |s, v| s.agent.crashes.keep = v.number(0..=10_000)?;
    "agent" "crash_keep_bytes": |s, v| s.agent.crashes.keep_bytes = v.number(65_536..=1 << 40)?;
    "agent" "crash_backtrace": |s, v| s.agent.crashes.backtrace = v.boolean()?;
    "link" "heartbeat": |s, v| s.link.heartbeat = v.time()?;
    "link" "greeting_within": |s, v| s.link.greeting_within = v.time()?;
    "link" "reconnect_min": |s, v| s.link.reconnect_min = v.time()?;
    "link" "reconnect_max": |s, v| s.link.reconnect_max = v.time()?;
    "link" "window_bytes": |s, v| s.link.window_bytes = v.number(4096..=1 << 30)?;
    "link" "trust": |s, v| s.link.trust = v.text()?.into();
    "link" "authority": |s, v| s.link.authority = v.text()?.into();
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "" => Ok(Place::Anywhere),
        "none" => Ok(Place::Nowhere),
        path if path.starts_with('/') && !path.split('/').any(|part| part == "..") => Ok(Place::In(path.into())),
        _ => Err(format!(
            "{} does not fit: write a control group such as \"/watchpost.slice\", or \"none\"",
            shown(text)
        )),
    }
}

fn on_exit(text: &str) -> Result<OnExit, String> {
    match text {
        "keep" => Ok(OnExit::Keep),
        "stop" => Ok(OnExit::Stop),
        _ => Err(format!("{} does not fit: {}", shown(text), instead(text, ["keep", "stop"]))),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = || format!("{} is not a level: {}", shown(text), instead(text, levels));
    // The filter itself would read numbers, too, and nobody could tell which way they count.
    levels.contains(&text).then(|| text.parse().ok()).flatten().ok_or_else(wrong)
}

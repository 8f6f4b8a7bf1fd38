//! Where a daemon listens and dials, and what protects it there: judged as a whole, before anything is touched.

use std::error::Error;
use std::iter::successors;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::RunError;
use crate::model::{Endpoint, InstanceName, Timestamp};
use crate::settings::{
    Complaint, Complaints, ControllerSettings, Draft, Places, Settings, SettingsError, encrypted, guarded,
    loopback_only,
};
use crate::state_dir::{StateDir, StateDirError};
use crate::trust::{Part, Trust, TrustFiles};
use crate::web::tls::{Tls, TlsError, TlsFiles};

/// The daemon that settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// All in one process, without links.
    Lab,
    /// The controller of a fleet.
    Controller,
    /// The agent of one machine.
    Agent,
}

/// What a daemon needs to listen and to dial.
pub(super) struct Doors {
    /// The certificates of this process.
    pub trust: Option<Arc<Trust>>,
    /// What the HTTP API speaks TLS with.
    pub http: Option<Tls>,
    pub websocket: Websocket,
}

/// What protects the port for zeek-client.
#[derive(Default)]
pub(super) struct Websocket {
    /// What it speaks TLS with; none where it speaks none.
    pub tls: Option<Tls>,
    /// Whether clients have to show a certificate.
    pub has_client_ca: bool,
}

/// What is wrong with settings that a daemon is about to be started with, all at once: with what was read, and with what
/// only shows in the whole of it and in the files that it names. Whoever starts the daemon need not ask first.
pub fn settle(draft: Draft, daemon: Daemon) -> Result<Settings, RunError> {
    let Draft { settings, places, mut complaints } = draft;
    let (_, own, unusable) = look(&settings, daemon, &places);
    complaints.extend(own);
    none_of(complaints, unusable, &places).map(|()| settings)
}

impl Doors {
    /// What these settings come to; the error has every complaint. Nothing is touched.
    pub fn open(settings: &Settings, daemon: Daemon) -> Result<Self, RunError> {
        let places = Places::default();
        let (doors, complaints, unusable) = look(settings, daemon, &places);
        none_of(complaints, unusable, &places).map(|()| doors)
    }
}

/// That the state directory cannot be used is said as it is by who takes it, unless there is more to complain of.
fn none_of(mut complaints: Vec<Complaint>, unusable: Option<StateDirError>, places: &Places) -> Result<(), RunError> {
    match (unusable, complaints.is_empty()) {
        (None, true) => return Ok(()),
        (Some(error), true) => return Err(error.into()),
        (Some(error), false) => complaints.push(Complaint::new(places.of("state_dir"), in_full(&error))),
        (None, false) => {}
    }
    Err(SettingsError::Wrong(Complaints(complaints)).into())
}

fn look(settings: &Settings, daemon: Daemon, places: &Places) -> (Doors, Vec<Complaint>, Option<StateDirError>) {
    let has_state_dir = !settings.state_dir.as_os_str().is_empty();
    let unusable = has_state_dir.then(|| StateDir::check_format(&settings.state_dir).err()).flatten();
    let mut look = Look { settings, places, complaints: Vec::new() };
    // What is in one that this release does not know is not read.
    let trust = if unusable.is_some() { Err(Unknown) } else { look.trust(daemon) };
    let mut doors = Doors { trust: trust.clone().unwrap_or_default(), http: None, websocket: Websocket::default() };
    match daemon {
        Daemon::Agent => look.agent(&trust),
        Daemon::Controller => look.links("controller.listen", settings.controller.listen, &trust),
        Daemon::Lab => {}
    }
    if daemon != Daemon::Agent {
        doors.http = look.http(trust);
        doors.websocket = look.websocket();
    }
    (doors, look.complaints, unusable)
}

/// What is known of certificates: of some that cannot be used it is not known what they would have protected.
type Found<T> = Result<Option<T>, Unknown>;

#[derive(Debug, Clone, Copy)]
struct Unknown;

struct Look<'a> {
    settings: &'a Settings,
    places: &'a Places,
    complaints: Vec<Complaint>,
}

impl Look<'_> {
    fn complain(&mut self, key: &str, error: &dyn Error) -> Unknown {
        self.complaints.push(Complaint::new(self.places.of(key), in_full(error)));
        Unknown
    }

    /// The certificates of this process. None are needed at the usual place, but any that are there must be whole.
    fn trust(&mut self, daemon: Daemon) -> Found<Arc<Trust>> {
        let Settings { cluster, controller, agent, link, .. } = self.settings;
        // A lab has no links, but its API may be served beyond this machine.
        if daemon == Daemon::Lab && !wants_tls(self.settings) {
            return Ok(None);
        }
        let (part, name_key, name) = match daemon {
            Daemon::Agent => (Part::Agent, "agent.name", agent.name.as_str()),
            Daemon::Controller | Daemon::Lab => (Part::Controller, "controller.name", controller.name.as_str()),
        };
        if !self.places.are_clear(&["state_dir", "link.trust"]) {
            return Err(Unknown);
        }
        let directory = self.settings.trust();
        // Also one that is empty, or no directory at all, was meant to hold certificates.
        if link.trust.as_os_str().is_empty() && directory.symlink_metadata().is_err() {
            return Ok(None);
        }
        if !self.places.are_clear(&["cluster", name_key]) {
            return Err(Unknown); // for whom they are to be is not known
        }
        let cluster = InstanceName::new(cluster).map_err(|error| self.complain("cluster", &error))?;
        let name = InstanceName::new(name).map_err(|error| self.complain(name_key, &error))?;
        let files = TrustFiles::in_directory(&directory);
        let trust = Trust::open(files, cluster, part, name, Timestamp::now());
        trust.map(|trust| Some(Arc::new(trust))).map_err(|error| self.complain("link.trust", &error))
    }

    /// A place of links: anywhere with certificates, and else on this machine.
    fn links(&mut self, key: &str, address: Option<SocketAddr>, trust: &Found<Arc<Trust>>) {
        let is_open = matches!(trust, Ok(None)) && !self.settings.insecure && self.places.are_clear(&[key, "insecure"]);
        if is_open && let Some(Err(error)) = address.map(loopback_only) {
            self.complain(key, &error);
        }
    }

    fn agent(&mut self, trust: &Found<Arc<Trust>>) {
        let agent = &self.settings.agent;
        if agent.controller.is_none() && agent.listen.is_none() {
            let what = "the agent neither dials a controller nor listens for one: set this, or `listen` in [agent]";
            self.complaints.push(Complaint::new(self.places.of("agent.controller"), what));
        }
        self.links("agent.listen", agent.listen, trust);
        // What a name stands for is looked at whenever it is dialled.
        self.links("agent.controller", agent.controller.as_ref().and_then(Endpoint::address), trust);
    }

    /// What the HTTP API speaks TLS with; none where it speaks none.
    fn http(&mut self, trust: Found<Arc<Trust>>) -> Option<Tls> {
        let ControllerSettings { http, http_tls, http_certificate, http_key, .. } = self.settings.controller.clone();
        let files = self.files("controller.http", http_certificate, http_key, None);
        let address = http?;
        let wants_tls = wants_tls(self.settings);
        let (files, trust) = (files.ok()?, trust.ok()?);
        let tls = match wants_tls {
            true => match Tls::of_api(trust, files.as_ref()) {
                Ok(tls) => tls,
                Err(error) => {
                    self.complain_of_file("controller.http", files.as_ref(), &error);
                    return None;
                }
            },
            false => None,
        };
        if http_tls && tls.is_none() {
            self.complain("controller.http_tls", &NoCertificates);
        }
        if self.places.are_clear(&["controller.http", "insecure"])
            && let Err(error) = encrypted(address, tls.is_some(), self.settings.insecure)
        {
            self.complain("controller.http", &error);
        }
        tls
    }

    fn websocket(&mut self) -> Websocket {
        let ControllerSettings { websocket, websocket_certificate, websocket_key, websocket_client_ca, .. } =
            self.settings.controller.clone();
        let files = self.files("controller.websocket", websocket_certificate, websocket_key, websocket_client_ca);
        let (Some(address), Ok(files)) = (websocket, files) else { return Websocket::default() };
        let has_client_ca = files.as_ref().is_some_and(|files| files.client_ca.is_some());
        if self.places.are_clear(&["controller.websocket", "insecure"])
            && let Err(error) = guarded(address, has_client_ca, self.settings.insecure)
        {
            self.complain("controller.websocket", &error);
        }
        let tls = match files.as_ref().map(Tls::from_files).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                self.complain_of_file("controller.websocket", files.as_ref(), &error);
                None
            }
        };
        Websocket { tls, has_client_ca }
    }

    /// The files of a port, if all that it takes are named and each of them can be read.
    fn files(
        &mut self,
        port: &str,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Found<TlsFiles> {
        let keys = ["certificate", "key", "client_ca"].map(|which| format!("{port}_{which}"));
        if !self.places.are_clear(&keys.each_ref().map(String::as_str)) {
            return Err(Unknown);
        }
        let [certificate_key, key_key, client_ca_key] = &keys;
        let files = TlsFiles::of(certificate, key, client_ca).map_err(|error| {
            let place = match &error {
                TlsError::OnlyKey(_) => key_key,
                TlsError::OnlyClientCa(_) => client_ca_key,
                _ => certificate_key,
            };
            self.complain(place, &error)
        })?;
        let wrong: Vec<_> = files.iter().flat_map(TlsFiles::complaints).collect();
        wrong.iter().for_each(|error| self.complain_of_file(port, files.as_ref(), error));
        if wrong.is_empty() { Ok(files) } else { Err(Unknown) }
    }

    /// Complains of a file where it is named.
    fn complain_of_file(&mut self, port: &str, files: Option<&TlsFiles>, error: &TlsError) {
        let is = |path: Option<&PathBuf>| path.is_some() && error.path() == path.map(PathBuf::as_path);
        let which = match files {
            Some(files) if is(Some(&files.key)) => "key",
            Some(files) if is(files.client_ca.as_ref()) => "client_ca",
            _ => "certificate",
        };
        self.complain(&format!("{port}_{which}"), error);
    }
}

/// Whether the API is to speak TLS, if there is anything to speak it with.
fn wants_tls(settings: &Settings) -> bool {
    let ControllerSettings { http, http_tls, http_certificate, .. } = &settings.controller;
    *http_tls || http_certificate.is_some() || http.is_some_and(|address| loopback_only(address).is_err())
}

/// `http_tls` without anything to speak it with.
#[derive(Debug, thiserror::Error)]
#[error("needs certificates: make them by `watchpost pki`, or name http_certificate and http_key")]
struct NoCertificates;

/// An error and its causes, each said once.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::settings::Machine;

    /// What is complained of where this file is read, line by line, by its name alone.
    fn complaints(directory: &Path, text: &str, daemon: Daemon) -> Vec<String> {
        let file = directory.join("w.toml");
        fs::write(&file, text).unwrap();
        let state = directory.join("state");
        let draft = Draft::load(Some(&file), Some(&state), &Machine::new("host", true), []).unwrap();
        let said = settle(draft, daemon).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(!state.exists());
        said.lines().map(|line| line.replace(&format!("{}/", directory.display()), "")).collect()
    }

    fn begin_as(got: &[String], want: &[&str]) {
        let are_so = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.starts_with(want));
        assert!(are_so, "{got:#?}");
    }

    #[test]
    fn every_port_and_every_file_that_protects_one_is_complained_of_at_once_where_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let text = "log = 'loud'\n[controller]\nlisten = '0.0.0.0:0'\nhttp = '0.0.0.0:0'\nwebsocket = '0.0.0.0:0'\n\
                    [agent]\nlisten = '0.0.0.0:0'\ncontroller = '192.0.2.1:1'\n";
        let http = "w.toml:4: controller.http: 0.0.0.0:0 is not on this machine, and the HTTP API is served beyond it with TLS";
        let websocket =
            "w.toml:5: controller.websocket: 0.0.0.0:0 is not on this machine, and whoever reaches it could";
        let listen = "w.toml:3: controller.listen: 0.0.0.0:0 is not on this machine, and what is not secured";
        let level = "w.toml:1: log: `loud` is not a level";
        begin_as(&complaints(directory.path(), text, Daemon::Controller), &[level, listen, http, websocket]);
        begin_as(&complaints(directory.path(), text, Daemon::Lab), &[level, http, websocket]);
        let [listens, dials] =
            ["w.toml:7: agent.listen: 0.0.0.0:0 is not on", "w.toml:8: agent.controller: 192.0.2.1:1 is not on"];
        begin_as(&complaints(directory.path(), text, Daemon::Agent), &[level, listens, dials]);
        assert_eq!(complaints(directory.path(), &format!("insecure = true\n{}", &text[13..]), Daemon::Lab), [""; 0]);

        let text = "[controller]\nhttp_certificate = 'c.pem'\nwebsocket_key = 'k.pem'\n";
        begin_as(
            &complaints(directory.path(), text, Daemon::Controller),
            &[
                "w.toml:2: controller.http_certificate: the certificate c.pem is given without its key",
                "w.toml:3: controller.websocket_key: the key k.pem is given without its certificate",
            ],
        );
        let text = "[controller]\nhttp_tls = true\nwebsocket_certificate = '/no/c.pem'\nwebsocket_key = '/no/k.pem'\n\
                    websocket_client_ca = '/no/ca.pem'\nwebsocket = '0.0.0.0:0'";
        begin_as(
            &complaints(directory.path(), text, Daemon::Controller),
            &[
                "w.toml:2: controller.http_tls: needs certificates",
                "w.toml:3: controller.websocket_certificate: cannot read the certificate /no/c.pem: No such file",
                "w.toml:4: controller.websocket_key: cannot read the key /no/k.pem: No such file",
                "w.toml:5: controller.websocket_client_ca: cannot read the certificate /no/ca.pem: No such file",
            ],
        );
    }

    #[test]
    fn what_was_not_understood_makes_no_port_look_open() {
        let directory = tempfile::tempdir().unwrap();
        for (text, place) in [
            ("insecure = 'yes'\n[controller]\nlisten = '0.0.0.0:0'\nhttp = '0.0.0.0:0'", "w.toml:1: insecure: "),
            ("[controller]\nlisten = '0.0.0.0:0'\n[link]\ntrust = 3", "w.toml:4: link.trust: "),
            (
                "[controller]\nlisten = '0.0.0.0:0'\n[link]\ntrust = 'missing'",
                "w.toml:4: link.trust: cannot read missing/",
            ),
            ("[controller]\nhttp = '0.0.0.0:0'\nhttp_key = 3", "w.toml:3: controller.http_key: "),
            ("[controller]\nlisten = '0.0.0.0:0'\n[", "w.toml:3: "),
        ] {
            begin_as(&complaints(directory.path(), text, Daemon::Controller), &[place]);
        }
        // Certificates that are not there belong to nobody.
        for (text, place) in [
            ("[controller]\nlisten = '0.0.0.0:0'\nname = 'a b'", "w.toml:3: controller.name: "),
            ("[controller]\nlisten = '0.0.0.0:0'\n[agent]\nname = 'a b'", "w.toml:4: agent.name: "),
        ] {
            let listen = "w.toml:2: controller.listen: 0.0.0.0:0 is not on";
            begin_as(&complaints(directory.path(), text, Daemon::Controller), &[place, listen]);
        }
        let trust = directory.path().join("certificates");
        fs::create_dir(&trust).unwrap();
        let text = format!("[controller]\nlisten = '0.0.0.0:0'\nname = 'a b'\n[link]\ntrust = '{}'", trust.display());
        begin_as(&complaints(directory.path(), &text, Daemon::Controller), &["w.toml:3: controller.name: "]);
    }

    #[test]
    fn a_state_directory_that_cannot_be_used_hides_no_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let (file, state) = (directory.path().join("w.toml"), directory.path().join("state"));
        fs::create_dir(&state).unwrap();
        fs::write(state.join("format"), "?").unwrap();
        let said = |text: &str| {
            fs::write(&file, text).unwrap();
            let draft = Draft::load(Some(&file), Some(&state), &Machine::new("host", true), []).unwrap();
            settle(draft, Daemon::Controller).unwrap_err()
        };
        assert!(matches!(said(""), RunError::StateDir(StateDirError::NoFormat { .. })));
        let said = said("clutser = 'a'\n[controller]\nwebsocket = '0.0.0.0:0'").to_string();
        let lines: Vec<_> =
            said.lines().map(|line| line.replace(&format!("{}/", directory.path().display()), "")).collect();
        begin_as(
            &lines,
            &[
                "w.toml:1: clutser: is not a setting",
                "w.toml:3: controller.websocket: 0.0.0.0:0 is not on",
                "--state-dir: state/format does not say which format",
            ],
        );
    }

    #[test]
    fn an_option_and_a_variable_are_named_as_they_were_given() {
        let variables = [("ZEEK_CONTROLLER_WEBSOCKET_ADDR".into(), "0.0.0.0".into()), ("HOME".into(), "/h".into())];
        let mut draft = Draft::load(None, Some(Path::new("/none")), &Machine::new("host", true), variables).unwrap();
        let address: SocketAddr = "0.0.0.0:7".parse().unwrap();
        draft
            .overrule("controller.listen", "--listen", Some(address), |s, address| s.controller.listen = Some(address));
        let said = settle(draft, Daemon::Controller).unwrap_err().to_string();
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        begin_as(&lines, &["--listen: 0.0.0.0:7 is not on", "ZEEK_CONTROLLER_WEBSOCKET_ADDR: 0.0.0.0:2149 is not on"]);
    }
}

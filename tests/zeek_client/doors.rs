//! Who gets in: plain and encrypted, with and without certificates, on this machine and beyond.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::common::{Daemon, Scene};
use crate::run::{Client, text};

/// Certificates in files: a CA, one of the server for its address, one of a client, and one of a client from elsewhere.
struct Papers {
    directory: PathBuf,
}

impl Papers {
    fn issue(directory: &Path, host: &str) -> Self {
        let papers = Self { directory: directory.to_owned() };
        let (ca, elsewhere) = (authority("the cluster"), authority("somebody else"));
        papers.write("ca", &ca.1, None);
        papers.write_issued("server", host, &ca.0);
        papers.write_issued("client", "client", &ca.0);
        papers.write_issued("stranger", "client", &elsewhere.0);
        papers
    }

    fn path(&self, name: &str) -> String {
        text(&self.directory.join(name)).to_owned()
    }

    fn write(&self, name: &str, certificate: &str, key: Option<&KeyPair>) {
        std::fs::write(self.path(&format!("{name}.pem")), certificate).unwrap();
        if let Some(key) = key {
            let path = self.path(&format!("{name}.key"));
            std::fs::write(&path, key.serialize_pem()).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn write_issued(&self, name: &str, subject: &str, issuer: &Issuer<'_, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
        self.write(name, &params.signed_by(&key, issuer).unwrap().pem(), Some(&key));
    }

    fn client(&self, address: SocketAddr, name: Option<&str>) -> Client {
        let client = Client::new(address).with("ssl.enable=yes").with("client.peering_attempts=2");
        match name {
            None => client,
            Some(name) => client
                .with(format!("ssl.certificate={}", self.path(&format!("{name}.pem"))))
                .with(format!("ssl.keyfile={}", self.path(&format!("{name}.key"))))
                .with(format!("ssl.cafile={}", self.path("ca.pem"))),
        }
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

/// A controller with these settings; it and where it serves zeek-client.
fn controller(scene: &Scene, settings: &str) -> (Daemon, SocketAddr) {
    let any = scene.any_port();
    let daemon = Daemon::start_with(
        scene,
        "controller",
        &["controller", "--listen", &any, "--http", &any, "--websocket", &any],
        settings,
    );
    let address = daemon.addresses()["zeek-client"];
    (daemon, address)
}

fn files(papers: &Papers, with_client_ca: bool) -> String {
    let line = |key: &str, name: &str| format!("websocket_{key} = '{}'\n", papers.path(name));
    let ca = if with_client_ca { line("client_ca", "ca.pem") } else { String::new() };
    format!("[controller]\n{}{}{ca}", line("certificate", "server.pem"), line("key", "server.key"))
}

#[test]
fn the_client_gets_in_over_tls_with_and_without_a_certificate() {
    let scene = Scene::new();
    let papers = Papers::issue(&scene.path(""), scene.any_port().strip_suffix(":0").unwrap());
    let (_controller, address) = controller(&scene, &files(&papers, false));
    for name in [None, Some("client")] {
        papers.client(address, name).run(&["get-instances"]).check(0, json!({}));
    }
    let plain = Client::new(address).with("client.peering_attempts=2").run(&["get-instances"]);
    assert_eq!((plain.code, plain.stdout.as_str()), (1, ""), "{plain:?}");
}

#[test]
fn where_a_client_ca_is_set_only_its_certificates_get_in() {
    let scene = Scene::new();
    let papers = Papers::issue(&scene.path(""), scene.any_port().strip_suffix(":0").unwrap());
    let (controller, address) = controller(&scene, &files(&papers, true));
    papers.client(address, Some("client")).run(&["get-instances"]).check(0, json!({}));
    for name in [None, Some("stranger")] {
        let refused = papers.client(address, name).run(&["get-instances"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
        assert!(refused.stderr.starts_with("error: "), "{refused:?}");
    }
    papers.client(address, Some("client")).run(&["get-instances"]).check(0, json!({}));
    assert!(controller.log().contains("TLS handshake with"), "{}", controller.log());
}

#[test]
fn a_port_that_others_could_reach_is_refused_at_start_unless_they_need_certificates_or_the_settings_admit_it() {
    let scene = Scene::new();
    let papers = Papers::issue(&scene.path(""), "127.0.0.1");
    let any = scene.any_port();
    let start = |websocket: &str, settings: &str, insecure: bool| {
        let file = scene.write("doors.toml", settings);
        let args = ["controller", "--listen", &any, "--http", &any, "--websocket", websocket];
        let mut command = scene.watchpost(&args);
        command.arg("--state-dir").arg(scene.path("refused")).arg("--config").arg(file);
        if insecure {
            command.env("WATCHPOST_INSECURE", "1");
        }
        command
    };
    for (websocket, settings, want) in [
        (
            "0.0.0.0:0",
            String::new(),
            "0.0.0.0:0 is not on this machine, and whoever reaches it could command the cluster",
        ),
        ("0.0.0.0:0", files(&papers, false), "0.0.0.0:0 is not on this machine, and whoever"),
        (
            "127.0.0.1:0",
            format!("[controller]\nwebsocket_key = '{}'", papers.path("server.key")),
            "without its certificate",
        ),
        (
            "127.0.0.1:0",
            format!("[controller]\nwebsocket_certificate = '{}'", papers.path("server.pem")),
            "without its key",
        ),
    ] {
        let output = start(websocket, &settings, false).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(want), "{said}");
        assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    }
    for (settings, insecure) in
        [(String::new(), true), ("insecure = true".into(), false), (files(&papers, true), false)]
    {
        starts(&mut start("0.0.0.0:0", &settings, insecure));
    }
}

/// Whether it gets as far as to say where it listens; then it is ended.
fn starts(command: &mut Command) {
    use std::io::{BufRead, BufReader};
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.any(|line| line.is_ok_and(|line| line.starts_with("listening for zeek-client on 0.0.0.0:")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found, "{command:?}");
}

#[test]
fn the_variables_of_zeek_say_where_its_client_is_served() {
    let scene = Scene::new();
    let any = scene.any_port();
    let mut command = scene.watchpost(&["controller", "--listen", &any, "--http", &any]);
    command.arg("--state-dir").arg(scene.path("zeek")).env_remove("WATCHPOST_CONTROLLER_WEBSOCKET");
    command.env("ZEEK_CONTROLLER_WEBSOCKET_ADDR", any.strip_suffix(":0").unwrap());
    command.env("ZEEK_CONTROLLER_WEBSOCKET_PORT", "2149/tcp").stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let client = Client::new(format!("{}:2149", any.strip_suffix(":0").unwrap()).parse().unwrap());
    let ran = client.run(&["get-instances"]);
    child.kill().unwrap();
    child.wait().unwrap();
    ran.check(0, json!({}));
}

//! Who gets in by a certificate or a token, what each may do, and what becomes of those who may no more.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use tempfile::TempDir;
use watchpost::message::client::LinkState;
use watchpost::model::{InstanceName, NetStats, NodeState, Packets, Timestamp};
use watchpost::trust::tokens::{self, Tokens};
use watchpost::trust::{Access, Authority, Part, Trust, TrustFiles, Visit};
use watchpost::web::tls::Tls;
use watchpost::web::{Facts, WebSettings};

use crate::api::documented;
use crate::cli::{command, run};
use crate::fake::{Fake, TOKEN, eventually, instance, log, node};
use crate::http::{Events, Response, exchange, get};

const DAY: Duration = Duration::from_secs(86_400);

fn named(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

/// A cluster with an authority, and a controller that serves its API over TLS.
struct Realm {
    directory: TempDir,
    authority: Authority,
    trust: Arc<Trust>,
    tokens: Arc<Tokens>,
}

impl Realm {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |name| directory.path().join(name);
        let now = Timestamp::now();
        let authority = Authority::create(&place("pki"), &named("lab"), now, 365 * DAY).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = authority.issue_for(Part::Controller, &named("control"), &hosts, now, 30 * DAY).unwrap();
        let files = issued.write(&place("trust")).unwrap();
        let trust = Arc::new(Trust::open(files, named("lab"), Part::Controller, named("control"), now).unwrap());
        let tokens = Arc::new(Tokens::open(directory.path()));
        let (heeded, kept) = (Arc::clone(&trust), Arc::clone(&tokens));
        thread::spawn(|| actix_rt::System::new().block_on(async { tokio::join!(heeded.watch(), kept.watch()) }));
        Self { directory, authority, trust, tokens }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fake(&self) -> Fake {
        let change = |settings: &mut WebSettings| {
            settings.tls = Tls::of_api(Some(Arc::clone(&self.trust)), None).unwrap();
            settings.tokens = Arc::clone(&self.tokens);
            settings.facts = Facts::new(Some(Arc::clone(&self.trust)));
        };
        Fake::with(change)
    }

    fn certificate(&self, part: Part, name: &str) -> PathBuf {
        self.certificate_of(part, name, Timestamp::now(), 30 * DAY)
    }

    fn certificate_of(&self, part: Part, name: &str, now: Timestamp, lifetime: Duration) -> PathBuf {
        let place = self.path(&format!("{part}-{name}"));
        self.authority.issue(part, &named(name), now, lifetime).unwrap().write(&place).unwrap();
        place
    }

    fn token(&self, name: &str, access: Access, valid: Option<Duration>) -> String {
        tokens::create(self.directory.path(), &named(name), access, valid, Timestamp::now()).unwrap().0
    }

    fn revoke(&self, part: Part, name: &str) {
        self.authority.revoke(part, &named(name), Timestamp::now()).unwrap();
        self.authority.publish_revoked(&TrustFiles::in_directory(&self.path("trust"))).unwrap();
    }

    /// Trusts the controller, and shows nothing.
    fn stranger(&self) -> ClientConfig {
        Visit::default().with_authority(&self.path("trust/ca.pem")).unwrap().config().unwrap()
    }
}

fn shows(directory: &Path) -> ClientConfig {
    Visit::default().with_certificate(directory).unwrap().config().unwrap()
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: &str, config: ClientConfig) -> Secure {
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    StreamOwned::new(client, stream)
}

/// What a client with these papers is answered.
fn ask(address: &str, config: ClientConfig, route: &str, headers: &[&str]) -> std::io::Result<Response> {
    let mut stream = connect(address, config);
    let first = format!("{route} HTTP/1.1");
    let lines = [&[&*first, "host: control.example", "connection: close"], headers].concat();
    stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Response { status, head: head.to_ascii_lowercase(), body: body.into() })
}

const STATUS: &str = "GET /api/v1/status";

#[test]
fn every_route_has_a_role_and_whoever_has_less_is_refused() {
    let realm = Realm::new();
    let fake = realm.fake();
    let [observer, operator] = [("eve", Access::Observe), ("olga", Access::Operate)]
        .map(|(name, access)| format!("authorization: Bearer {}", realm.token(name, access, None)));
    let mut operating = 0;
    for (route, role) in documented() {
        let (method, path) = route.split_once(' ').unwrap();
        // Files travel as they are.
        let kind = if path.contains("DIGEST") { "application/octet-stream" } else { "application/json" };
        let kind = &*format!("content-type: {kind}");
        let path = path.replace("NAME", "worker-1");
        let query = if path.ends_with("events") { "?follow=false" } else { "" };
        let status = |headers: &[&str]| {
            let head = [&*format!("{method} {path}{query} HTTP/1.1"), "host: localhost"];
            exchange(&fake.address, &[&head, headers].concat(), "").status
        };
        let is_let_in = |status: u16| ![401, 403, 415].contains(&status);
        assert_eq!(status(&[kind]) == 401, role != "none", "{route} without a token");
        match &*role {
            "none" => assert_eq!(status(&[]), 200, "{route}"),
            "observe" => assert!(is_let_in(status(&[kind, &observer])), "{route} for an observer"),
            "operate" => {
                operating += 1;
                assert_eq!(status(&[kind, &observer]), 403, "{route} for an observer");
            }
            other => panic!("{route} has the role `{other}`"),
        }
        assert!(is_let_in(status(&[kind, &operator])), "{route} for an operator");
        assert!(is_let_in(status(&[kind, &format!("authorization: Bearer {TOKEN}")])), "{route} on this machine");
    }
    assert!(operating >= 6, "{operating}");
}

#[test]
fn a_certificate_says_who_asks_and_what_it_may_do() {
    let realm = Realm::new();
    let fake = realm.fake();
    let operator = realm.certificate(Part::Operator, "olga");
    let observer = realm.certificate(Part::Observer, "eve");
    let json = ["content-type: application/json", "content-length: 0"];
    assert_eq!(ask(&fake.address, shows(&operator), STATUS, &[]).unwrap().status, 200);
    assert_eq!(ask(&fake.address, shows(&operator), "POST /api/v1/deploy", &json).unwrap().status, 200);
    assert_eq!(std::mem::take(&mut fake.script().orders), ["deploy"]);

    assert_eq!(ask(&fake.address, shows(&observer), STATUS, &[]).unwrap().status, 200);
    let token = format!("authorization: Bearer {}", realm.token("olga", Access::Operate, None));
    let refused =
        ask(&fake.address, shows(&observer), "POST /api/v1/deploy", &[&json[..], &[&token]].concat()).unwrap();
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("certificate `eve` may observe and not operate"), "{}", refused.body);
    assert!(fake.script().orders.is_empty());

    let nobody = ask(&fake.address, realm.stranger(), STATUS, &[]).unwrap();
    assert!(nobody.status == 401 && nobody.body.contains("a certificate or a token is needed"), "{}", nobody.body);
    assert_eq!(ask(&fake.address, realm.stranger(), STATUS, &[&token]).unwrap().status, 200);
    assert_eq!(get(&fake.address, "/api/v1/status", &[]).status, 401, "plain, from this machine");
}

#[test]
fn a_certificate_that_does_not_count_gets_nobody_in_and_harms_nobody() {
    let (realm, strangers) = (Realm::new(), Realm::new());
    let fake = realm.fake();
    let good = realm.certificate(Part::Operator, "olga");
    let long_ago = Timestamp(Timestamp::now().0 - 10 * DAY.as_micros() as u64);
    let expired = realm.certificate_of(Part::Operator, "late", long_ago, DAY);
    let revoked = realm.certificate(Part::Operator, "mallory");
    realm.revoke(Part::Operator, "mallory");
    let foreign = strangers.certificate(Part::Operator, "olga");
    std::fs::copy(realm.path("trust/ca.pem"), foreign.join("ca.pem")).unwrap();
    for (what, papers) in [("expired", expired), ("revoked", revoked), ("foreign", foreign)] {
        let error = ask(&fake.address, shows(&papers), STATUS, &[]).map(|answer| answer.status).unwrap_err();
        assert!(error.to_string().contains("AlertReceived") || error.to_string().contains("alert"), "{what}: {error}");
        assert_eq!(ask(&fake.address, shows(&good), STATUS, &[]).unwrap().status, 200, "behind {what}");
    }
    // Parts of the cluster that are no clients: what they have is as good as theirs, and for something else.
    for part in [Part::Agent, Part::Controller] {
        let other = realm.certificate(part, "other");
        assert!(Visit::default().with_certificate(&other).is_err(), "{part}");
        for name in ["cert.pem", "key.pem"] {
            std::fs::copy(good.join(name), other.join(name)).unwrap();
        }
    }
}

#[test]
fn an_older_tls_is_refused() {
    let realm = Realm::new();
    let fake = realm.fake();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let error = ask(&fake.address, config, STATUS, &[]).map(|answer| answer.status).unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert_eq!(ask(&fake.address, realm.stranger(), "GET /healthz", &[]).unwrap().status, 200);
}

#[test]
fn a_thousand_connections_that_go_silent_are_held_in_bounds_and_keep_nobody_out() {
    const MANY: usize = 1000;
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limits.maximum, ..limits },
    )
    .unwrap();
    let realm = Realm::new();
    let fake = realm.fake();
    let silent: Vec<_> = (0..MANY)
        .map(|number| {
            let mut stream = TcpStream::connect(&fake.address).unwrap();
            if number % 2 == 0 {
                stream.write_all(&[22, 3, 1]).unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(ask(&fake.address, realm.stranger(), "GET /healthz", &[]).unwrap().status, 200);
    let is_closed = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    // As many as may shake hands at once, by default.
    eventually("the others are given up", || silent.iter().filter(|stream| !is_closed(stream)).count() <= 64);
}

#[test]
fn a_token_that_does_not_count_is_refused_in_words_that_do_not_repeat_it() {
    let realm = Realm::new();
    let fake = realm.fake();
    let brief = realm.token("brief", Access::Operate, Some(Duration::from_millis(1)));
    let revoked = realm.token("gone", Access::Operate, None);
    tokens::end(realm.directory.path(), &named("gone")).unwrap();
    let headers = [format!("authorization: Bearer {brief}")];
    let status = || get(&fake.address, "/api/v1/status", &[&headers[0]]).status;
    eventually("the first one counts no more", || status() == 401);
    for (what, token) in [("expired", &brief), ("revoked", &revoked)] {
        let answer = get(&fake.address, "/api/v1/status", &[&format!("authorization: Bearer {token}")]);
        assert_eq!(answer.status, 401, "{what}");
        assert!(!answer.body.contains(token.as_str()), "{}", answer.body);
    }
    let good = realm.token("good", Access::Operate, None);
    let header = format!("authorization: Bearer {good}");
    for path in [format!("/api/v1/status?token={good}"), format!("/api/v1/events?last=1&access_token={good}")] {
        for headers in [&[][..], &[&*header]] {
            let answer = get(&fake.address, &path, headers);
            assert_eq!(answer.status, 400, "{path}");
            assert!(answer.body.contains("a token in an address") && !answer.body.contains(&good), "{}", answer.body);
        }
    }
    assert_eq!(get(&fake.address, "/api/v1/status", &[&header]).status, 200);
}

#[test]
fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let realm = Realm::new();
    let fake = realm.fake();
    let brief = realm.token("brief", Access::Observe, Some(Duration::from_secs(2)));
    let [revoked, spared] = ["eve", "olga"].map(|name| realm.token(name, Access::Observe, None));
    let open = |token: &str| {
        Events::open(&fake.address, "/api/v1/events?snapshot=false", &[&format!("authorization: Bearer {token}")])
    };
    let (mut brief, mut ended, mut stays) = (open(&brief), open(&revoked), open(&spared));
    eventually("all of them listen", || fake.script().taken.len() == 3);
    tokens::end(realm.directory.path(), &named("eve")).unwrap();
    assert_eq!(ended.next(), None, "revoked");
    assert_eq!(brief.next(), None, "expired");
    fake.tell(log("still here"));
    assert!(stays.next().unwrap().1.contains("still here"));
}

#[test]
fn a_connection_ends_at_once_with_the_certificate_that_it_was_made_with() {
    let realm = Realm::new();
    let fake = realm.fake();
    let (revoked, spared) = (realm.certificate(Part::Observer, "eve"), realm.certificate(Part::Observer, "olga"));
    let brief = realm.certificate_of(Part::Observer, "brief", Timestamp::now(), Duration::from_secs(3));
    let open = |papers: &Path| {
        let mut stream = connect(&fake.address, shows(papers));
        let head =
            "GET /api/v1/events?snapshot=false HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = String::new();
        let mut stream = BufReader::new(stream);
        stream.read_line(&mut first).unwrap();
        assert!(first.contains("200"), "{first}");
        stream
    };
    let (ended, expired, mut stays) = (open(&revoked), open(&brief), open(&spared));
    eventually("all of them listen", || fake.script().taken.len() == 3);
    realm.revoke(Part::Observer, "eve");
    for (what, mut stream) in [("revoked", ended), ("expired", expired)] {
        let mut text = String::new();
        let cut = stream.read_to_string(&mut text);
        let is_cut = cut.is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof);
        assert!(is_cut || !text.ends_with("0\r\n\r\n"), "{what}: {text}");
    }
    assert!(ask(&fake.address, shows(&revoked), STATUS, &[]).is_err(), "nor does it make another");
    fake.tell(log("still here"));
    let mut line = String::new();
    while !line.contains("still here") {
        line.clear();
        assert!(stays.read_line(&mut line).unwrap() > 0);
    }
}

#[test]
fn the_command_shows_its_certificate_and_knows_its_controller_by_the_cluster() {
    let (realm, strangers) = (Realm::new(), Realm::new());
    let fake = realm.fake();
    fake.script().nodes = vec![node("worker-1", NodeState::Running)];
    let url = format!("https://{}", fake.address);
    let [operator, observer] =
        [(Part::Operator, "olga"), (Part::Observer, "eve")].map(|(part, name)| realm.certificate(part, name));
    let with = |papers: &Path, args: &[&str]| {
        run(&fake.address, &[args, &["--controller", &url, "--certificate", papers.to_str().unwrap()]].concat())
    };
    let (code, stdout, stderr) = with(&operator, &["status"]);
    assert!(code == 0 && stdout.contains("worker-1"), "{stderr}");
    assert_eq!(with(&operator, &["stop", "worker-1"]).0, 0);
    assert_eq!(with(&observer, &["status"]).0, 0);
    let (code, _, stderr) = with(&observer, &["stop", "worker-1"]);
    assert!(code == 5 && stderr.contains("certificate `eve` may observe and not operate"), "{stderr}");
    assert_eq!(std::mem::take(&mut fake.script().orders), [r#"stop ["worker-1"]"#]);

    let foreign = strangers.certificate(Part::Operator, "olga");
    let (code, _, stderr) = with(&foreign, &["status"]);
    assert!(code == 1 && stderr.contains("cannot be trusted: its certificate is of another authority"), "{stderr}");
    std::fs::copy(realm.path("trust/ca.pem"), foreign.join("ca.pem")).unwrap();
    let (code, _, stderr) = with(&foreign, &["status"]);
    assert!(
        code == 5 && stderr.contains("does not accept this client: it does not accept our certificate"),
        "{stderr}"
    );
    let plain = format!("http://{}", fake.address);
    let args = ["status", "--controller", &plain, "--certificate", operator.to_str().unwrap()];
    let (code, _, stderr) = run(&fake.address, &args);
    assert!(code == 2 && stderr.contains("give it as https://"), "{stderr}");
}

#[test]
fn the_command_sends_a_token_only_to_a_controller_that_it_trusts() {
    let realm = Realm::new();
    let fake = realm.fake();
    let url = format!("https://{}", fake.address);
    let file = realm.path("olga.token");
    std::fs::write(&file, realm.token("olga", Access::Operate, None)).unwrap();
    let with = |more: &[&str]| {
        let args = ["status", "--controller", &url, "--token-file", file.to_str().unwrap()];
        run(&fake.address, &[&args, more].concat())
    };
    let (code, _, stderr) = with(&[]);
    assert!(code == 1 && stderr.contains("--ca FILE"), "{stderr}");
    let (code, _, stderr) = with(&["--ca", realm.path("trust/ca.pem").to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = with(&["--ca", "/nonexistent/ca.pem"]);
    assert!(code == 1 && stderr.contains("/nonexistent/ca.pem"), "{stderr}");
}

#[test]
fn a_command_on_the_controllers_own_machine_needs_nothing_over_tls_either() {
    let realm = Realm::new();
    let fake = realm.fake();
    std::fs::write(realm.path("token"), TOKEN).unwrap();
    let url = format!("https://{}", fake.address);
    let mut command = command(&fake.address, &["status", "--controller", &url]);
    let output = command.env("WATCHPOST_STATE_DIR", realm.directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn following_over_tls_ends_when_its_certificate_is_revoked() {
    let realm = Realm::new();
    let fake = realm.fake();
    fake.tell(log("first"));
    let papers = realm.certificate(Part::Observer, "eve");
    let url = format!("https://{}", fake.address);
    let args = ["events", "--follow", "--controller", &url, "--certificate", papers.to_str().unwrap()];
    let mut child = command(&fake.address, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("first"));
    fake.tell(log("second"));
    assert!(lines.next().unwrap().unwrap().contains("second"));
    realm.revoke(Part::Observer, "eve");
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("does not accept our certificate (CertificateRevoked)"), "{stderr}");
}

#[test]
fn a_certificate_for_a_host_name_is_shown_in_place_of_the_controllers_own_and_read_again() {
    let (realm, public) = (Realm::new(), Realm::new());
    let files = |name: &str| public.path(name);
    let shown = watchpost::web::tls::TlsFiles {
        certificate: files("trust/cert.pem"),
        key: files("trust/key.pem"),
        client_ca: None,
    };
    let fake = Fake::with(|settings| {
        settings.tls = Tls::of_api(Some(Arc::clone(&realm.trust)), Some(&shown)).unwrap();
    });
    let trusting = |name: &str| Visit::default().with_roots(&files(name)).unwrap();
    let health = |visit: Visit| ask(&fake.address, visit.config().unwrap(), "GET /healthz", &[]);
    assert_eq!(health(trusting("trust/ca.pem")).unwrap().status, 200);
    assert!(health(Visit::default().with_authority(&realm.path("trust/ca.pem")).unwrap()).is_err());
    let olga = realm.certificate(Part::Operator, "olga");
    std::fs::copy(olga.join("ca.pem"), realm.path("ours.pem")).unwrap();
    let both = Visit::default().with_certificate(&olga).unwrap().with_roots(&files("trust/ca.pem")).unwrap();
    let answer = ask(&fake.address, both.config().unwrap(), STATUS, &[]);
    assert!(answer.is_err(), "a certificate of a cluster is judged by that cluster's rule");

    // What cannot be used is not taken up.
    let (good, key) = (std::fs::read(&shown.certificate).unwrap(), std::fs::read(&shown.key).unwrap());
    std::fs::write(&shown.certificate, "no certificate").unwrap();
    assert_eq!(health(trusting("trust/ca.pem")).unwrap().status, 200);
    let elsewhere = public.authority.issue_for(
        Part::Controller,
        &named("control"),
        &["elsewhere.example".to_owned()],
        Timestamp::now(),
        DAY,
    );
    elsewhere.unwrap().write(&public.path("other")).unwrap();
    for (from, to) in [("other/key.pem", &shown.key), ("other/cert.pem", &shown.certificate)] {
        std::fs::write(to, std::fs::read(files(from)).unwrap()).unwrap();
    }
    let error = health(trusting("trust/ca.pem")).map(|answer| answer.status).unwrap_err();
    assert!(
        error.to_string().contains("NotValidForName") || error.to_string().contains("not valid for name"),
        "{error}"
    );
    std::fs::write(&shown.key, key).unwrap();
    std::fs::write(&shown.certificate, good).unwrap();
    assert_eq!(health(trusting("trust/ca.pem")).unwrap().status, 200);
}

#[test]
fn metrics_are_what_the_documentation_says_and_what_prometheus_reads() {
    let realm = Realm::new();
    let facts = Facts::new(Some(Arc::clone(&realm.trust)));
    facts.is_open("agents", "0.0.0.0:2150".parse().unwrap());
    let fake = Fake::with(|settings| {
        settings.facts = facts;
        settings.open = true;
    });
    fake.script().nodes = vec![node("worker-1", NodeState::Running), node("worker-2", NodeState::Crashed)];
    let [total, lately] = [(1000, 20), (10, 2)].map(|(received, dropped)| Packets { received, dropped });
    let (time, over) = (Timestamp::now(), Duration::from_secs(5));
    let counted = NetStats { time, total, lately, over, link: 1020, bytes: 64_000, memory: 1 << 20, events: 3 };
    fake.script().nodes[0].netstats = Some(Box::new(counted));
    fake.script().instances.push(instance("agent-a", LinkState::Up));
    fake.tell(log("one"));
    let answer = get(&fake.address, "/metrics", &[]);
    assert!(answer.status == 200 && answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let (families, samples) = parse(&answer.body);
    let documented = include_str!("../../docs/http.md").lines().filter_map(|line| {
        let name = line.strip_prefix("| `watchpost_")?.split(['`', '{']).next()?;
        Some((format!("watchpost_{name}"), line.split('|').nth(2)?.trim().to_owned()))
    });
    assert_eq!(families.into_iter().collect::<BTreeSet<_>>(), documented.collect());
    for sample in [
        r#"watchpost_nodes{state="CRASHED"} 1"#,
        r#"watchpost_nodes{state="UNKNOWN"} 0"#,
        r#"watchpost_node_up{node="worker-2",instance_name="agent-a",role="worker"} 0"#,
        r#"watchpost_node_restarts_total{node="worker-1",instance_name="agent-a"} 2"#,
        r#"watchpost_node_packets_dropped_total{node="worker-1",instance_name="agent-a"} 20"#,
        r#"watchpost_instance_up{instance_name="agent-a",needed="yes"} 1"#,
        r#"watchpost_log_entries_total{epoch="abc"} 1"#,
        r#"watchpost_insecure_port{port="agents",address="0.0.0.0:2150"} 1"#,
    ] {
        assert!(samples.contains(sample), "{sample} is not in {}", answer.body);
    }
    let status: serde_json::Value = serde_json::from_str(&get(&fake.address, "/api/v1/status", &[]).body).unwrap();
    assert_eq!(status["insecure"][0], serde_json::json!({"port": "agents", "address": "0.0.0.0:2150"}));
    assert_eq!(status["certificate"]["due"], false);
    let (code, stdout, _) = run(&fake.address, &["status"]);
    assert!(code == 0 && stdout.starts_with("INSECURE: whoever reaches the port for agents, 0.0.0.0:2150"), "{stdout}");
}

/// The families, each with its type, and the samples of a page; panics at what Prometheus would not read.
fn parse(page: &str) -> (Vec<(String, String)>, BTreeSet<String>) {
    assert!(page.ends_with('\n'));
    let (mut families, mut samples) = (Vec::<(String, String)>::new(), BTreeSet::new());
    let mut helped = None;
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && families.iter().all(|(family, _)| family != name), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(helped.take().as_deref(), Some(name), "{line}");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            families.push((name.to_owned(), kind.to_owned()));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert_eq!(families.last().map(|(family, _)| &**family), Some(name), "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap();
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(!value.trim_end_matches('"').contains('"'), "{line}");
            }
            assert!(samples.insert(line.to_owned()), "{line} stands there twice");
        }
    }
    (families, samples)
}

//! Encrypted ports: who gets in, who does not, and that the latter harms nobody.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use tempfile::TempDir;
use watchpost::web::WebServer;
use watchpost::web::serve::Limits;
use watchpost::web::tls::{Tls, TlsError, TlsFiles};

use crate::fake::eventually;
use crate::serve::{ask, connect, server};

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// Issues certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM form.
#[derive(Clone)]
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self) -> Identity {
        self.issue_with(|_| {})
    }

    fn issue_expired(&self) -> Identity {
        self.issue_with(|params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    fn issue_with(&self, change: impl Fn(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// Files of a test, in a directory of its own.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn of(&self, identity: &Identity, client_ca: Option<&Authority>) -> TlsFiles {
        TlsFiles {
            certificate: self.write("certificate.pem", &identity.certificate),
            key: self.write("key.pem", &identity.key),
            client_ca: client_ca.map(|ca| self.write("ca.pem", &ca.pem)),
        }
    }
}

fn encrypted(ours: &Authority, client_ca: Option<&Authority>) -> WebServer {
    with_limits(ours, client_ca, Limits::default())
}

fn with_limits(ours: &Authority, client_ca: Option<&Authority>, limits: Limits) -> WebServer {
    let files = Files::new();
    server(limits, Some(Tls::from_files(&files.of(&ours.issue(), client_ca)).unwrap()))
}

/// What a client gets that trusts this authority, and shows this certificate if it has one.
fn get(
    server: &WebServer,
    trusts: &Authority,
    shows: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<String> {
    get_over(connect(server), trusts, shows, versions)
}

fn get_over(
    connection: TcpStream,
    trusts: &Authority,
    shows: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        None => config.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, connection);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Who got in before still does.
fn assert_serves(server: &WebServer, trusts: &Authority, shows: Option<&Identity>) {
    assert!(get(server, trusts, shows, BOTH).unwrap().ends_with("hello"));
}

#[test]
fn both_versions_of_tls_are_spoken() {
    let ours = Authority::new();
    let server = encrypted(&ours, None);
    for version in BOTH {
        assert!(get(&server, &ours, None, &[version]).unwrap().ends_with("hello"), "{version:?}");
    }
}

#[test]
fn a_client_that_does_not_trust_the_server_harms_nobody() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = encrypted(&ours, None);
    let error = get(&server, &other, None, BOTH).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_serves(&server, &ours, None);
}

#[test]
fn clients_must_show_a_certificate_of_the_right_authority_that_has_not_expired() {
    let (ours, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let server = encrypted(&ours, Some(&clients));
    let good = clients.issue();
    for version in BOTH {
        for (what, shows) in [
            ("none", None),
            ("that of another authority", Some(other.issue())),
            ("that of the server's authority", Some(ours.issue())),
            ("an expired one", Some(clients.issue_expired())),
        ] {
            let answer = get(&server, &ours, shows.as_ref(), &[version]);
            assert!(answer.is_err(), "{what}, {version:?}: {answer:?}");
        }
        assert!(get(&server, &ours, Some(&good), &[version]).unwrap().ends_with("hello"), "{version:?}");
    }
}

#[test]
fn whoever_does_not_encrypt_is_told_so_in_words() {
    let ours = Authority::new();
    let server = encrypted(&ours, None);
    let mut plain = connect(&server);
    ask(&mut plain, "/");
    let answer = ends(plain);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("begin the address with https://"), "{answer}");
    let mut garbage = connect(&server);
    garbage.write_all(b"\x00\x01garbage").unwrap();
    assert_eq!(ends(garbage), "");
    assert_serves(&server, &ours, None);
}

/// What a client does with its connection.
type Attempt<'a> = Box<dyn Fn(TcpStream) + 'a>;

/// What this process logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refused_handshake_is_logged_in_one_sentence_that_says_whose_and_why() {
    // It may be set only once in a process, and no other test does.
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init();
    let (ours, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let with_tls = |connection, trusts, shows| drop(get_over(connection, trusts, shows, BOTH).unwrap_err());
    let (late, strange) = (&clients.issue_expired(), &other.issue());
    let attempts: [(&str, Attempt); 6] = [
        ("it does not speak TLS", Box::new(|mut connection| ask(&mut connection, "/"))),
        ("it hung up", Box::new(drop)),
        ("it shows no certificate", Box::new(|connection| with_tls(connection, &ours, None))),
        ("its certificate has expired", Box::new(|connection| with_tls(connection, &ours, Some(late)))),
        (
            "its certificate is of another authority than ours",
            Box::new(|connection| with_tls(connection, &ours, Some(strange))),
        ),
        ("it does not accept our certificate (UnknownCA)", Box::new(|connection| with_tls(connection, &other, None))),
    ];
    let server = encrypted(&ours, Some(&clients));
    for (reason, attempt) in attempts {
        // One for all: what it has said of one reason hides no other.
        let connection = connect(&server);
        let want = format!("TLS handshake with {} refused: {reason}\n", connection.local_addr().unwrap());
        attempt(connection);
        eventually(&want, || String::from_utf8_lossy(&LOG.lock().unwrap()).contains(&want));
    }
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let ours = Authority::new();
    let limits = Limits { handshake_within: Duration::from_millis(200), ..Limits::default() };
    let server = with_limits(&ours, None, limits);
    let silent = connect(&server);
    let mut slow = connect(&server);
    slow.write_all(&[22, 3, 1]).unwrap();
    assert_eq!((ends(silent), ends(slow)), Default::default());
}

#[test]
fn of_too_many_handshakes_the_oldest_is_given_up_and_newcomers_get_in() {
    let ours = Authority::new();
    let hour = Duration::from_secs(3600);
    let server = with_limits(&ours, None, Limits { handshakes: 1, handshake_within: hour, ..Limits::default() });
    let silent: Vec<TcpStream> = (0..10).map(|_| connect(&server)).collect();
    assert_serves(&server, &ours, None);
    silent.into_iter().for_each(|silent| assert_eq!(ends(silent), ""));
}

/// What comes until the other side hangs up, however it does so.
fn ends(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it does not hang up: {error}"),
        _ => String::from_utf8_lossy(&bytes).into(),
    }
}

#[test]
fn half_of_the_files_is_an_error_that_names_what_is_missing() {
    let path = |name: &str| Some(PathBuf::from(name));
    let error = |certificate, key, ca| TlsFiles::of(certificate, key, ca).unwrap_err().to_string();
    assert_eq!(
        error(path("c.pem"), None, None),
        "the certificate c.pem is given without its key: name the key's file too"
    );
    assert_eq!(
        error(None, path("k.pem"), None),
        "the key k.pem is given without its certificate: name the certificate's file too"
    );
    assert!(error(None, None, path("ca.pem")).starts_with("ca.pem is to judge"));
    assert_eq!(TlsFiles::of(None, None, None).unwrap(), None);
    assert!(TlsFiles::of(path("c.pem"), path("k.pem"), None).unwrap().is_some());
}

#[test]
fn files_that_do_not_serve_are_named() {
    let (ours, files) = (Authority::new(), Files::new());
    let good = files.of(&ours.issue(), Some(&ours));
    let (absent, empty) = (files.0.path().join("absent.pem"), files.write("empty.pem", ""));
    let torn = files.write("torn.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let hollow = files.write("hollow.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let foreign = files.write("foreign.pem", &ours.issue().key);
    let broken = files.write("broken.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let complaint = |files: TlsFiles| match Tls::from_files(&files) {
        Ok(_) => panic!("{files:?} are taken"),
        Err(error) => error,
    };
    let certificate = |path: &PathBuf| complaint(TlsFiles { certificate: path.clone(), ..good.clone() });
    let key = |path: &PathBuf| complaint(TlsFiles { key: path.clone(), ..good.clone() });
    let client_ca = |path: &PathBuf| complaint(TlsFiles { client_ca: Some(path.clone()), ..good.clone() });

    for error in [certificate(&absent), key(&absent), client_ca(&absent)] {
        assert!(matches!(&error, TlsError::Read { path, .. } if *path == absent), "{error:?}");
        assert!(error.to_string().contains("absent.pem"), "{error}");
    }
    for error in [certificate(&empty), key(&empty), client_ca(&empty), certificate(&good.key), key(&good.certificate)] {
        assert!(matches!(error, TlsError::Nothing { .. }), "{error:?}");
    }
    assert!(matches!(certificate(&torn), TlsError::NotPem { path, .. } if path == torn));
    assert!(matches!(certificate(&hollow), TlsError::Certificate { path, .. } if path == hollow));
    assert!(matches!(client_ca(&hollow), TlsError::Certificate { path, .. } if path == hollow));
    assert!(matches!(key(&broken), TlsError::Key { path, .. } if path == broken));
    assert!(matches!(key(&foreign), TlsError::Mismatch { key, .. } if key == foreign));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_mends_it() {
    let files = Files::new();
    let good = files.of(&Authority::new().issue(), None);
    let with_mode = |mode| {
        std::fs::set_permissions(&good.key, Permissions::from_mode(mode)).unwrap();
        Tls::from_files(&good).map(drop)
    };
    for mode in [0o640, 0o604, 0o620, 0o644, 0o601] {
        let error = with_mode(mode).unwrap_err();
        assert!(matches!(&error, TlsError::Exposed { path, mode: told } if *path == good.key && *told == mode));
        let path = good.key.display();
        assert_eq!(error.to_string(), format!("{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`"));
    }
    for mode in [0o600, 0o400] {
        with_mode(mode).unwrap();
    }
}

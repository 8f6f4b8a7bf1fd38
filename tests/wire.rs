//! What the bytes on the wire are, for ever: every message has a golden file in `tests/golden/v<PROTOCOL>/`.
//!
//! A golden file is one frame in hexadecimal: the header on the first line, the body in lines of sixteen bytes with
//! their text beside them. Those of the present version must read back as the samples below and be what the samples encode
//! to; those of every version must be decoded. A folder's `manifest` names its files and their checksums. To write the
//! files of new messages and the manifest, as long as the version is not released:
//!
//! ```text
//! WATCHPOST_WRITE_GOLDEN=1 cargo test --test wire every_message
//! ```
//!
//! A release freezes its version: it raises [`RELEASED`] to `PROTOCOL`, and from then on the folder is never written again.
//! Whoever adds a message after that raises `PROTOCOL` in `src/message/frame.rs`, and writes the files into the next
//! folder; a message that would change becomes a new kind instead, and the old one is still decoded.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use watchpost::bridge::LinkRole;
use watchpost::bridge::greeting::*;
use watchpost::bundle::{BundleId, Digest};
use watchpost::message::agent::*;
use watchpost::message::frame::{FrameError, HEADER, MAX_FRAME, PROTOCOL, Wire, split, wire_name};
use watchpost::message::join::*;
use watchpost::model::curve::{KeyPair, PublicKey, SecretKey};
use watchpost::model::*;
use watchpost::trust::SECRET;

/// The last version of the frames that was released; 0 before the first release.
const RELEASED: u16 = 0;

#[test]
fn every_message_is_what_its_golden_file_says() {
    let mut seen = BTreeSet::new();
    compare(to_agent(), &mut seen);
    compare(to_controller(), &mut seen);
    compare(control(), &mut seen);
    compare(from_joiner(), &mut seen);
    compare(to_joiner(), &mut seen);
    let present = golden(PROTOCOL);
    if writes() {
        std::fs::write(present.join(MANIFEST), manifest(&present)).unwrap();
    }
    let files: BTreeSet<_> = golden_files(&present).into_keys().collect();
    let seen: BTreeSet<_> = seen.iter().map(|name| format!("{name}.hex")).collect();
    assert_eq!(files, seen, "one golden file for each sample, and none besides");
}

#[test]
fn the_files_of_a_version_neither_change_nor_go() {
    for version in 1..=PROTOCOL {
        assert_eq!(complaints(&golden(version)), [] as [&str; 0], "version {version}: see the top of this test");
    }
}

#[test]
fn a_golden_file_that_changes_or_goes_or_comes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    ["0001-a.hex", "0002-b.hex", "0003-c.hex"].iter().for_each(|name| std::fs::write(path(name), name).unwrap());
    assert_eq!(complaints(folder.path()), ["there is no manifest"]);
    std::fs::write(path(MANIFEST), manifest(folder.path())).unwrap();
    assert_eq!(complaints(folder.path()), [] as [&str; 0]);
    std::fs::write(path("0001-a.hex"), "0001-A.hex").unwrap();
    std::fs::remove_file(path("0002-b.hex")).unwrap();
    std::fs::write(path("0004-d.hex"), "").unwrap();
    assert_eq!(complaints(folder.path()), ["0001-a.hex changed", "0002-b.hex is gone", "0004-d.hex is new"]);
}

#[test]
fn what_any_version_said_is_still_understood() {
    for version in 1..=PROTOCOL {
        let files = golden_files(&golden(version));
        assert!(files.len() > 25, "version {version} has its messages");
        for (name, text) in files {
            let bytes = bytes_of(&text);
            let frame = split(&bytes, MAX_FRAME).unwrap().unwrap_or_else(|| panic!("{name} is not whole"));
            let understood = ToAgent::decode(frame.kind, frame.body).is_ok()
                || ToController::decode(frame.kind, frame.body).is_ok()
                || Control::decode(frame.kind, frame.body).is_ok()
                || FromJoiner::decode(frame.kind, frame.body).is_ok()
                || ToJoiner::decode(frame.kind, frame.body).is_ok();
            assert!(understood, "version {version} says {name}, and that is not understood any more");
        }
    }
}

const MANIFEST: &str = "manifest";

/// What is wrong with a folder, by its manifest.
fn complaints(folder: &Path) -> Vec<String> {
    let Ok(manifest) = std::fs::read_to_string(folder.join(MANIFEST)) else {
        return vec!["there is no manifest".into()];
    };
    let meant: BTreeMap<&str, &str> =
        manifest.lines().map(|line| line.split_once("  ").map(|(sum, name)| (name, sum)).unwrap()).collect();
    let found: BTreeMap<String, String> =
        golden_files(folder).into_iter().map(|(name, text)| (name, checksum(&text))).collect();
    let names: BTreeSet<&str> = meant.keys().copied().chain(found.keys().map(String::as_str)).collect();
    let complaint = |name: &&str| match (meant.get(name), found.get(*name)) {
        (Some(meant), Some(found)) if meant == found => None,
        (Some(_), Some(_)) => Some(format!("{name} changed")),
        (Some(_), None) => Some(format!("{name} is gone")),
        (None, _) => Some(format!("{name} is new")),
    };
    names.iter().filter_map(complaint).collect()
}

fn manifest(folder: &Path) -> String {
    golden_files(folder).into_iter().map(|(name, text)| format!("{}  {name}\n", checksum(&text))).collect()
}

/// The golden files of a folder and what is in them, sorted by name.
fn golden_files(folder: &Path) -> BTreeMap<String, String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|ending| ending == "hex"));
    files.map(|path| (name_of(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// CRC-32, as `crc32` and `gzip` have it, in hexadecimal.
fn checksum(text: &str) -> String {
    let crc = text.bytes().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    format!("{:08x}", !crc)
}

/// Whether the files of the present version are to be written.
fn writes() -> bool {
    let asked = std::env::var_os("WATCHPOST_WRITE_GOLDEN").is_some();
    assert!(!asked || PROTOCOL > RELEASED, "version {PROTOCOL} is released: see the top of this test");
    asked
}

#[test]
fn every_kind_that_can_be_decoded_has_a_sample() {
    let samples = kinds(&to_agent()).into_iter().chain(kinds(&to_controller())).chain(kinds(&control()));
    let samples = samples.chain(kinds(&from_joiner())).chain(kinds(&to_joiner()));
    let known = |error: Option<FrameError>| !matches!(error, Some(FrameError::UnknownKind { .. }));
    let understood = (0..=u16::MAX).filter(|&kind| {
        known(ToAgent::decode(kind, &[]).err())
            || known(ToController::decode(kind, &[]).err())
            || known(Control::decode(kind, &[]).err())
            || known(FromJoiner::decode(kind, &[]).err())
            || known(ToJoiner::decode(kind, &[]).err())
    });
    assert_eq!(samples.collect::<BTreeSet<_>>(), understood.collect());
}

#[test]
fn the_kinds_of_the_link_and_of_its_mail_do_not_meet() {
    assert!(kinds(&control()).iter().all(|&kind| kind < FIRST_MAIL_KIND));
    let (down, up) = (kinds(&to_agent()), kinds(&to_controller()));
    assert!(down.iter().chain(&up).all(|&kind| kind >= FIRST_MAIL_KIND));
    assert!(down.is_disjoint(&up), "a message that went the wrong way is known as such");
    let joins: BTreeSet<_> = kinds(&from_joiner()).union(&kinds(&to_joiner())).copied().collect();
    assert!(joins.is_disjoint(&down) && joins.is_disjoint(&up), "and one on the wrong kind of connection");
}

#[test]
fn a_frame_with_one_byte_less_or_more_is_refused() {
    fn check<T: Wire>(samples: Vec<T>) {
        for sample in samples {
            let body = &framed(&sample)[HEADER..];
            let kind = kind_of(&sample);
            assert!(T::decode(kind, &[body, &[0]].concat()).is_err(), "{} and a byte", sample.name());
            if let Some((_, shorter)) = body.split_last() {
                assert!(T::decode(kind, shorter).is_err(), "{} but for a byte", sample.name());
            }
        }
    }
    check(to_agent());
    check(to_controller());
    check(control());
    check(from_joiner());
    check(to_joiner());
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        cuts in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let samples = to_controller();
        let want: Vec<_> = picks.iter().map(|pick| pick.get(&samples).clone()).collect();
        let bytes: Vec<u8> = want.iter().flat_map(framed).collect();
        let (mut got, mut buffer, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
            while let Some(frame) = split(&buffer, MAX_FRAME).unwrap() {
                got.push(ToController::decode(frame.kind, frame.body).unwrap());
                let size = frame.size;
                buffer.drain(..size);
            }
            if rest.is_empty() { break; }
        }
        prop_assert_eq!((got, buffer.len()), (want, 0));
    }

    #[test]
    fn any_bytes_decode_to_a_message_or_to_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        kind in 0x0001..0x0320_u16,
    ) {
        let _ = split(&bytes, MAX_FRAME);
        decodes_within_bounds(kind, &bytes);
    }

    #[test]
    fn a_damaged_message_decodes_to_a_message_or_to_an_error(
        pick in any::<prop::sample::Index>(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let messages: Vec<_> = to_agent().iter().map(framed)
            .chain(to_controller().iter().map(framed))
            .chain(control().iter().map(framed))
            .chain(from_joiner().iter().map(framed))
            .chain(to_joiner().iter().map(framed))
            .collect();
        let mut bytes = pick.get(&messages).clone();
        for (place, value) in hits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(Some(frame)) = split(&bytes, MAX_FRAME) {
            decodes_within_bounds(frame.kind, frame.body);
        }
    }
}

/// Decodes it each way. Nothing makes it allocate more than serde's caution for a list (1 MiB) or the codec's limit
/// for a text, whatever length the bytes claim; and what comes of it encodes to no more than those bytes.
fn decodes_within_bounds(kind: u16, body: &[u8]) {
    fn check<T: Wire>(decode: impl FnOnce() -> Option<T>, body: &[u8]) {
        LARGEST.set(0);
        let decoded = decode();
        let largest = LARGEST.get();
        assert!(largest <= 1 << 20, "{} bytes made it allocate {largest}", body.len());
        if let Some(message) = decoded {
            let again = framed(&message).len() - HEADER;
            assert!(again <= body.len(), "{} bytes became {again} in a {}", body.len(), message.name());
        }
    }
    check(|| ToAgent::decode(kind, body).ok(), body);
    check(|| ToController::decode(kind, body).ok(), body);
    check(|| Control::decode(kind, body).ok(), body);
    check(|| FromJoiner::decode(kind, body).ok(), body);
    check(|| ToJoiner::decode(kind, body).ok(), body);
}

thread_local! {
    /// The largest single allocation of this thread since it was last set to 0.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, watched.
struct Watched;

// SAFETY: both calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no cell any more, and no test either.
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

#[test]
fn a_length_that_is_a_lie_allocates_next_to_nothing() {
    // Each is a list or a text that claims 2^40 elements: of outcomes, of nodes, of characters.
    let claim = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0];
    for (kind, before) in
        [(0x0203, &[0][..]), (0x0215, &[0, 0, 0, 0]), (0x0105, &[0]), (0x010a, &[]), (0x0001, &[1, 1])]
    {
        let body = [before, &claim].concat();
        decodes_within_bounds(kind, &body);
        assert!(ToAgent::decode(kind, &body).is_err() && ToController::decode(kind, &body).is_err());
    }
}

fn compare<T: Wire + Clone + PartialEq + std::fmt::Debug>(samples: Vec<T>, seen: &mut BTreeSet<String>) {
    for sample in samples {
        let name = format!("{:04x}-{}", kind_of(&sample), wire_name(sample.name()));
        let path = golden(PROTOCOL).join(format!("{name}.hex"));
        let text = readable(&framed(&sample));
        if writes() {
            std::fs::write(&path, &text).unwrap();
        }
        let file = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{name} has no golden file ({error}); see the top of this test"));
        assert_eq!(file, text, "{name} is not encoded as it was; a change needs a new kind");
        let bytes = bytes_of(&file);
        let frame = split(&bytes, MAX_FRAME).unwrap().expect("a golden file holds a whole frame");
        assert_eq!(T::decode(frame.kind, frame.body).unwrap(), sample, "{name}");
        assert_eq!(frame.size, bytes.len(), "{name} holds one frame");
        assert!(seen.insert(name), "one sample for each kind");
    }
}

fn framed<T: Wire>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.append_to(&mut bytes).unwrap();
    bytes
}

fn kind_of<T: Wire>(message: &T) -> u16 {
    let bytes = framed(message);
    u16::from_be_bytes([bytes[4], bytes[5]])
}

fn kinds<T: Wire>(messages: &[T]) -> BTreeSet<u16> {
    messages.iter().map(kind_of).collect()
}

fn golden(version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn readable(bytes: &[u8]) -> String {
    let (header, body) = bytes.split_at(HEADER);
    let mut text = String::new();
    for line in std::iter::once(header).chain(body.chunks(16)) {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let beside: String = line.iter().map(|&b| if b.is_ascii_graphic() { b as char } else { '.' }).collect();
        writeln!(text, "{:<47}  {beside}", hex.join(" ")).unwrap();
    }
    text
}

fn bytes_of(text: &str) -> Vec<u8> {
    let hex = text.lines().flat_map(|line| line[..47].split_whitespace());
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

// The samples. Between them they hold every variant, and every optional thing both there and left out.

fn control() -> Vec<Control> {
    vec![
        Greeting {
            protocol: 1,
            oldest: 1,
            role: LinkRole::Agent,
            name: "sensor-1".into(),
            cluster: "lab".into(),
            features: Features(0x8001),
        }
        .into(),
        Refused { reason: "cluster `lab` was greeted by cluster `prod`".into() }.into(),
        Heartbeat {}.into(),
        NotUnderstood { kind: 0x0215 }.into(),
    ]
}

fn to_agent() -> Vec<ToAgent> {
    vec![
        AgentWelcomeRequest { reqid: reqid() }.into(),
        AgentStandbyRequest { reqid: reqid() }.into(),
        SetConfigurationRequest {
            reqid: reqid(),
            configuration: configuration().into(),
            rest: [node("worker-2")].into(),
        }
        .into(),
        GetNodesRequest { reqid: reqid() }.into(),
        StartRequest { reqid: reqid(), nodes: BTreeSet::new() }.into(),
        StopRequest { reqid: reqid(), nodes: [node("worker-1"), node("worker-2")].into() }.into(),
        RestartRequest { reqid: reqid(), nodes: [node("logger")].into() }.into(),
        GetOutputRequest { reqid: reqid(), node: node("worker-1"), lines: 100 }.into(),
        GetCrashesRequest { reqid: reqid(), node: Some(node("worker-1")), id: Some("worker-1.7".into()) }.into(),
        InspectConfigurationRequest { reqid: reqid(), configuration: configuration().into() }.into(),
        ReadOutputRequest {
            reqid: reqid(),
            node: node("worker-1"),
            stream: OutputStream::Stderr,
            from: OutputFrom::Place(OutputPlace { volume: 3, offset: 4711 }),
            most: 65_536,
            wait: Duration::from_secs(10),
        }
        .into(),
        NewsReceived { epoch: 0x1122_3344_5566_7788, seq: 70_000, kept: 70_000 }.into(),
        AgentRefused { reason: "another agent has this name".into() }.into(),
        NodeDispatchRequest {
            reqid: reqid(),
            action: vec!["get_id_value".into(), "bits_per_uid".into()],
            nodes: [node("worker-1")].into(),
        }
        .into(),
        RenewCertificateResponse { reqid: reqid(), certificate: Ok(vec![0x30, 0x82]) }.into(),
        CheckConfigurationRequest { reqid: reqid(), configuration: configuration().into() }.into(),
        SwitchNodesRequest {
            reqid: reqid(),
            configuration: ConfigurationId::new("c7").unwrap(),
            nodes: [node("worker-1"), node("worker-2")].into(),
            rest: [node("worker-3")].into(),
        }
        .into(),
        RestoreConfigurationRequest {
            reqid: reqid(),
            configuration: configuration().into(),
            up: [node("worker-1")].into(),
            at_once: true,
        }
        .into(),
        CommitConfigurationRequest {
            reqid: reqid(),
            configuration: ConfigurationId::new("c7").unwrap(),
            checked: RequestId::new("c1-7").unwrap(),
            rest: [node("worker-2")].into(),
        }
        .into(),
        StageBundlesRequest { reqid: reqid(), bundles: [BundleId::new(Digest::of(b"a manifest"))].into() }.into(),
        ReadBlobsResponse {
            reqid: reqid(),
            pieces: vec![Ok(BlobPiece { total: 9, bytes: b"content".to_vec() }), Err("it is not here".into())],
        }
        .into(),
    ]
}

fn to_controller() -> Vec<ToController> {
    vec![
        AgentWelcomeResponse { reqid: reqid(), outcome: Outcome::instance_done(&instance()) }.into(),
        AgentStandbyResponse { reqid: reqid(), outcome: Outcome::instance_failed(&instance(), "busy") }.into(),
        SetConfigurationResponse { reqid: reqid(), outcomes: outcomes() }.into(),
        CheckConfigurationResponse {
            reqid: reqid(),
            outcomes: outcomes(),
            changes: vec![CheckedChange {
                node: node("worker-1"),
                role: Role::Worker,
                runs: true,
                shares: Some("af_packet::eth0".into()),
            }],
        }
        .into(),
        SwitchNodesResponse { reqid: reqid(), outcomes: outcomes() }.into(),
        RestoreConfigurationResponse {
            reqid: reqid(),
            outcomes: Vec::new(),
            waiting: vec![CheckedChange {
                node: node("worker-1"),
                role: Role::Worker,
                runs: true,
                shares: Some("eth0".into()),
            }],
        }
        .into(),
        NotAtHand { reqid: reqid() }.into(),
        StageBundlesResponse { reqid: reqid(), outcome: Outcome::instance_done(&instance()) }.into(),
        NotifyLayingOut {}.into(),
        ReadBlobsRequest {
            reqid: reqid(),
            parts: vec![BlobPart { digest: Digest::of(b"content"), at: 2, most: 256 << 10 }],
        }
        .into(),
        GetNodesResponse { reqid: reqid(), pid: Some(77), nodes: statuses() }.into(),
        StartResponse { reqid: reqid(), outcomes: outcomes() }.into(),
        StopResponse { reqid: reqid(), outcomes: Vec::new() }.into(),
        RestartResponse { reqid: reqid(), outcomes: vec![Outcome::failed("no")] }.into(),
        GetCrashesResponse {
            reqid: reqid(),
            crashes: Ok(vec![CrashSummary {
                id: "worker-1.7".into(),
                instance: instance(),
                node: node("worker-1"),
                time: Timestamp(1_700_000_000_000_000),
                pid: 4711,
                exit: Exit::Signal { number: 11, core_dumped: true },
                state: NodeState::Crashed,
                reason: "killed by signal 11 (SIGSEGV), core dumped".into(),
                core: true,
                backtrace: false,
            }]),
            dossier: Some("{}".into()),
        }
        .into(),
        InspectConfigurationResponse { reqid: reqid(), inspection: Ok(inspection()) }.into(),
        ReadOutputResponse {
            reqid: reqid(),
            piece: Ok(OutputPiece {
                place: OutputPlace { volume: 3, offset: 4711 },
                bytes: b"packets dropped\n".to_vec(),
                next: OutputPlace { volume: 3, offset: 4727 },
                at_end: true,
                skipped: false,
            }),
        }
        .into(),
        GetOutputResponse {
            reqid: reqid(),
            outcome: Outcome { output: Some(output()), ..Outcome::node_done(&instance(), &node("worker-1")) },
        }
        .into(),
        NodeDispatchResponse {
            reqid: reqid(),
            answers: vec![
                NodeAnswer { node: node("worker-1"), value: Ok("96".into()) },
                NodeAnswer { node: node("worker-2"), value: Err("unknown id".into()) },
            ],
        }
        .into(),
        RenewCertificateRequest { reqid: reqid(), request: vec![0x30, 0x81, 0x80] }.into(),
        NotifyAgentHello {
            instance: instance(),
            host: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            api_version: 1,
            version: "0.1.0".into(),
            epoch: 3,
            run: 0x0102_0304_0506_0708,
            place: 9,
            abilities: Abilities {
                killing: Ok("/sys/fs/cgroup/watchpost/c.1-2".into()),
                lacking: [(Quota::Cpu, "no cpu controller".into())].into(),
                outliving: Err("PID 1".into()),
            },
        }
        .into(),
        NotifyChange {
            seq: 300,
            time: time(),
            instance: instance(),
            node: node("worker-1"),
            role: Role::Worker,
            old: NodeState::Running,
            new: NodeState::Crashed,
            pid: Some(4711),
            exit: Some(Exit::Signal { number: 11, core_dumped: true }),
            attempt: 1,
            restarts: 2,
            reason: "killed by signal 11 (SIGSEGV), core dumped".into(),
            removed: false,
        }
        .into(),
        NotifyError { seq: 301, time: time(), instance: instance(), node: None, msg: "the disk is full".into() }.into(),
        NotifyStatus { instance: instance(), node: node("logger"), pid: 100, says: "Processing ü".into() }.into(),
        NotifyNetStats { instance: instance(), node: node("worker-1"), pid: 100, netstats: netstats() }.into(),
        NotifyLog { seq: 302, time: time(), instance: instance(), node: Some(node("logger")), msg: "ü".into() }.into(),
        NotifySnapshot {
            epoch: 3,
            seq: 302,
            configuration: Some(ConfigurationId::new("c-1").unwrap()),
            nodes: statuses(),
        }
        .into(),
    ]
}

fn from_joiner() -> Vec<FromJoiner> {
    let (cluster, name) = ("site".into(), "sensor-1".into());
    vec![JoinRequest { cluster, name, secret: [0xa5; SECRET], request: vec![0x30, 0x81, 0x80] }.into()]
}

fn to_joiner() -> Vec<ToJoiner> {
    vec![
        JoinAccepted { certificate: vec![0x30, 0x82] }.into(),
        JoinRefused { reason: "this token is not known here".into() }.into(),
        JoinWaiting { reason: "somebody has to sign".into() }.into(),
    ]
}

fn reqid() -> RequestId {
    RequestId::new("r-1").unwrap()
}

fn instance() -> InstanceName {
    InstanceName::new("sensor-1").unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn time() -> Timestamp {
    Timestamp(1_700_000_000_123_456)
}

fn output() -> Output {
    Output { stdout: "listening\n".into(), stderr: "error\n".into() }
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::node_done(&instance(), &node("logger")),
        Outcome::node_failed(&instance(), &node("worker-1"), "exited with status 1".into(), Some(output())),
    ]
}

fn inspection() -> Inspection {
    let because = Because { keys: vec!["port".into()], cluster: Some("worker-2 joined the cluster".into()) };
    let actions = [
        Action::Keep,
        Action::Start { was: None },
        Action::Start { was: Some(NodeState::Failed) },
        Action::Restart(because),
        Action::Move { from: instance() },
        Action::Stop,
        Action::Revive { was: NodeState::Stopped },
    ];
    let step = |(number, action)| Step { node: node(&format!("worker-{number}")), action };
    Inspection { steps: actions.into_iter().enumerate().map(step).collect(), complaints: outcomes() }
}

fn netstats() -> NetStats {
    NetStats {
        time: time(),
        total: Packets { received: 1_000_000, dropped: 2500 },
        lately: Packets { received: 100, dropped: 10 },
        over: Duration::from_millis(5001),
        link: 1_002_500,
        bytes: 64_000_000,
        memory: 200 << 20,
        events: 3,
    }
}

fn statuses() -> Vec<NodeStatus> {
    let status = |name, role, state, pid| NodeStatus {
        node: node(name),
        instance: instance(),
        role,
        state,
        pid,
        port: pid.map(|_| 47_760),
        metrics_port: None,
        restarts: 7,
        since: time(),
        reason: "".into(),
        says: "Waiting for packets".into(),
        netstats: (role == Role::Manager).then(|| Box::new(netstats())),
    };
    vec![
        status("agent", Role::None, NodeState::Unknown, None),
        status("logger", Role::Logger, NodeState::Running, Some(100)),
        status("manager", Role::Manager, NodeState::Pending, Some(70_000)),
        status("proxy", Role::Proxy, NodeState::Stopped, None),
        status("worker-1", Role::Worker, NodeState::Failed, None),
        status("worker-2", Role::Worker, NodeState::Crashed, None),
    ]
}

fn zeek() -> Zeek {
    Zeek {
        backend: Backend::ZeroMq,
        scripts: vec!["local".into(), "site/more".into()],
        args: vec!["-C".into()],
        options: [("Site::name".into(), "here".into())].into(),
        env: [("A".into(), "b".into())].into(),
        prefixes: vec!["local".into()],
        path: vec!["/opt/bin".into()],
        script_path: vec!["/opt/scripts".into()],
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        networks_file: Some("/etc/networks.cfg".into()),
        rotation_interval: Some(Duration::from_secs(3600)),
        archive: ArchiveRules {
            compressor: vec!["xz".into()],
            extension: "xz".into(),
            keep: vec!["conn.*".into()],
            place: ArchivePlace::At("/srv/logs".into()),
            compress: true,
            command: vec!["ship".into()],
            keep_age: Some(Duration::from_secs(86_400)),
            keep_bytes: Some(1 << 40),
            min_free: 10,
        },
        metrics_address: Some([0, 0, 0, 0].into()),
        port: Some(27_760),
        metrics_port: Some(9991),
        zeromq_ports: Some([5555, 5556]),
        encrypt: Encrypt::Yes,
        zeromq_keys: 2,
        hash_seed: Some(0xc0_ffee),
        addresses: [(instance(), [10, 0, 0, 7].into())].into(),
        pcap_snaplen: Some(9216),
        health: ZeekHealth {
            heartbeat: Some(Duration::from_secs(2)),
            loss_above: Some(Loss::new(50)),
            loss_for: Some(Duration::from_secs(180)),
        },
        pcap_bufsize: Some(128),
    }
}

/// What an agent found out, and keeps in its register.
fn zeek_node() -> ZeekNode {
    let entry = LayoutEntry {
        name: node("logger"),
        role: Role::Logger,
        host: [10, 0, 0, 7].into(),
        port: Some(47_761),
        metrics_port: None,
    };
    let variables = [("worker_index".into(), "1".into())].into();
    let knows = Surroundings {
        settings: Arc::new(zeek()),
        entries: vec![entry],
        fanout: Some(23),
        keys: Some(PublicKey([1; 32])),
        variables,
    };
    ZeekNode { args: vec!["site/tuning".into()], knows: Some(Arc::new(knows)) }
}

fn pair(byte: u8) -> KeyPair {
    KeyPair { public: PublicKey([byte; 32]), secret: SecretKey([byte + 1; 32]) }
}

fn configuration() -> Configuration {
    let full = Node {
        port: Some(47_760),
        metrics_port: Some(9991),
        scripts: vec!["local.zeek".into(), "policy/tuning".into()],
        options: [("Log::default_rotation_interval".into(), "1hr".into())].into(),
        interface: Some("eth0".into()),
        cpu_affinity: Some("0-1,3".parse().unwrap()),
        env: BTreeMap::from([("TZ".into(), "UTC".into())]),
        command: vec!["zeek".into(), "-i".into(), "eth0".into()],
        directory: Some("/var/spool/zeek".into()),
        user: Some("zeek".into()),
        run_as: Some(Box::new(RunAs {
            groups: vec!["pcap".into()],
            umask: Some(0o27),
            nice: Some(-5),
            limits: [(Resource::Nofile, Limit { soft: Some(4096), hard: None })].into(),
            capabilities: [Capability::named("net_raw").unwrap()].into(),
            no_new_privs: true,
            env_file: Some("/etc/zeek.env".into()),
            quotas: Quotas { memory_max: Some(Bytes(2 << 30)), cpu_max: Some(CpuShare(150)), pids_max: Some(64) },
        })),
        zeek: Some(Box::new(zeek_node())),
        restart: RestartPolicy { mode: RestartMode::OnFailure, ..RestartPolicy::default() },
        ready: Ready { by: ReadyBy::Port(47_760), within: Some(Duration::from_millis(2500)) },
        liveness: Some(Box::new(Liveness {
            watchdog: Some(Duration::from_secs(30)),
            probe: Some(Probe::new(ProbeBy::Exec(vec!["/opt/check".into()]))),
        })),
        output: Some(Box::new(OutputWish { max_bytes: Some(1 << 20), compress: Some(false), ..OutputWish::default() })),
        ..Node::new(node("worker-1"), instance(), Role::Worker)
    };
    let once = RestartPolicy { mode: RestartMode::Never, ..RestartPolicy::default() };
    let bare = Node { restart: once, ..Node::new(node("helper"), instance(), Role::None) };
    Configuration {
        id: ConfigurationId::new("c-1").unwrap(),
        instances: vec![
            Instance { name: instance(), host: Some(IpAddr::from([10, 0, 0, 7])), port: Some(2151) },
            Instance { name: InstanceName::new("sensor-2").unwrap(), host: None, port: None },
        ],
        nodes: [full, bare, Node::new(node("logger"), instance(), Role::Logger)].map(Arc::new).into(),
        zeek: Some(Box::new(zeek())),
        peers: vec![Peer {
            name: node("worker-2"),
            instance: InstanceName::new("sensor-2").unwrap(),
            role: Role::Worker,
            port: None,
            metrics_port: Some(9000),
        }],
        keys: Some(Box::new(CurveKeys { server: pair(1), client: pair(3) })),
    }
}

//! What Broker's values and messages are as text: a file in `tests/golden/broker/` for each type and message.
//!
//! Each line of a file is one sample. It must be what the sample is written as, and read back as the sample. To write
//! the files anew:
//!
//! ```text
//! WATCHPOST_WRITE_GOLDEN=1 cargo test --test broker golden
//! ```

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use watchpost::web::broker::data::{Kind, Port, Protocol, Real, Subnet, Timespan, Timestamp};
use watchpost::web::broker::frame::{acknowledgement, topics_from_json};
use watchpost::web::broker::{Code, ErrorMessage, Event, Publication, Value};

#[test]
fn every_type_is_what_its_golden_file_says() {
    for kind in Kind::ALL {
        let samples = samples(kind);
        assert!(samples.iter().all(|sample| sample.kind() == kind));
        compare(kind.name(), &samples, Value::to_json, |text| Value::from_json(text.as_bytes()).unwrap());
    }
}

#[test]
fn every_message_is_what_its_golden_file_says() {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    compare(
        "data-message",
        &publications(),
        |sample| text(sample.to_json()),
        |line| Publication::from_json(line.as_bytes()).unwrap(),
    );
    compare(
        "ack",
        &["8.0.10"],
        |version| text(acknowledgement("a-websocket-0", version)),
        |line| {
            let ack: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&ack["type"], &ack["endpoint"]), (&"ack".into(), &"a-websocket-0".into()));
            "8.0.10"
        },
    );
    compare(
        "error",
        &errors(),
        |error| text(error.to_json()),
        |line| {
            let error: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(error["type"], "error");
            errors().into_iter().find(|known| known.context == error["context"]).unwrap()
        },
    );
}

#[test]
fn there_is_no_golden_file_without_a_sample() {
    let names = Kind::ALL.iter().map(|kind| kind.name()).chain(["data-message", "ack", "error"]);
    let files = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<_> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(files, names.map(str::to_owned).collect());
}

/// What the unmodified zeek-client writes: sorted keys, and blanks between.
#[test]
fn a_request_of_zeek_client_is_understood() {
    let request = r#"{"@data-type": "vector", "data": [{"@data-type": "count", "data": 1},
        {"@data-type": "count", "data": 1}, {"@data-type": "vector", "data": [
        {"@data-type": "string", "data": "Management::Controller::API::get_id_value_request"},
        {"@data-type": "vector", "data": [{"@data-type": "string", "data": "6f0a2c1e"},
        {"@data-type": "string", "data": "bits_per_uid"}, {"@data-type": "set", "data": [
        {"@data-type": "string", "data": "w1"}, {"@data-type": "string", "data": "manager"}]}]}]}],
        "topic": "zeek/management/controller", "type": "data-message"}"#;
    let args = vec!["6f0a2c1e".into(), "bits_per_uid".into(), Value::set(["manager", "w1"])];
    let event = Event::new("Management::Controller::API::get_id_value_request", args);
    let wanted = Publication::new("zeek/management/controller", event);
    assert_eq!(Publication::from_json(request.as_bytes()).unwrap(), wanted);
    assert_eq!(topics_from_json(br#"["zeek/management/controller"]"#).unwrap(), ["zeek/management/controller"]);
}

fn samples(kind: Kind) -> Vec<Value> {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let pair = || vec![Value::Count(1), Value::string("x")];
    match kind {
        Kind::None => vec![Value::None],
        Kind::Boolean => vec![true.into(), false.into()],
        Kind::Count => vec![0_u64.into(), 42_u64.into(), u64::MAX.into()],
        Kind::Integer => vec![0_i64.into(), (-7_i64).into(), i64::MIN.into(), i64::MAX.into()],
        Kind::Real => [0.0, 1.0, 1.5, -0.25, 1e-7, 1e21, 0.1].map(|real| Real::new(real).unwrap().into()).into(),
        Kind::String => ["", "a\"b\n\u{e9}", "\u{0}\u{b}\u{1f}\u{7f}\\/\t", "\u{1f980}"].map(Value::string).into(),
        Kind::Address => ["192.0.2.1", "2001:db8::1", "::"].map(|text| address(text).into()).into(),
        Kind::Subnet => [("10.0.0.0", 8), ("0.0.0.0", 0), ("2001:db8::", 32), ("::1", 128)]
            .map(|(text, length)| Subnet::new(address(text), length).unwrap().into())
            .into(),
        Kind::Port => [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Unknown]
            .map(|protocol| Port { number: 2200, protocol }.into())
            .into(),
        Kind::Timestamp => [0, 1_767_323_045_678, -1, 253_402_300_799_999]
            .map(|millis| Timestamp::from_millis(millis).unwrap().into())
            .into(),
        Kind::Timespan => [0, 1, 1_000, 1_000_000, 1_500_000_000, 90_000_000_000].map(|ns| Timespan(ns).into()).into(),
        Kind::Enum => vec![Value::enumerated("Supervisor::WORKER")],
        Kind::Set => vec![
            Value::set(["b", "a", "b"]),
            Value::Set(Default::default()),
            Value::set([Value::Vector(pair()), Value::None, 7_u64.into(), (-7_i64).into()]),
        ],
        Kind::Table => vec![
            Value::table([("b", Value::None), ("a", "v".into())]),
            Value::Table(Default::default()),
            Value::table([(Value::Vector(pair()), Value::table([(1_u64, true)]))]),
        ],
        Kind::Vector => vec![
            Value::Vector(pair()),
            Value::Vector(vec![]),
            Value::vector([Value::None, Value::Vector(vec![]), Value::Set(Default::default())]),
        ],
    }
}

fn publications() -> Vec<Publication> {
    let controller = |name: &str, args| {
        Publication::new("zeek/management/controller", Event::new(format!("Management::Controller::API::{name}"), args))
    };
    let id = || Value::string("6f0a2c1e-0000-11f1-8000-0242ac110002");
    let result = |success: bool, instance: Option<&str>, data: Value, error: Option<&str>, node: Option<&str>| {
        Value::Vector(vec![id(), success.into(), instance.into(), data, error.into(), node.into()])
    };
    let instance = Value::Vector(vec!["agent-box".into(), IpAddr::from(Ipv4Addr::UNSPECIFIED).into(), Value::None]);
    let node = Value::Vector(vec![
        "w1".into(),
        "agent-box".into(),
        Value::enumerated("Supervisor::WORKER"),
        Value::enumerated("Management::RUNNING"),
        Value::None,
        Value::None,
        Value::None,
        "eth0".into(),
        Value::None,
        Value::table([("FOO", "bar")]),
        Value::None,
    ]);
    let configuration = Value::Vector(vec!["b1c7d7a2".into(), Value::set([instance]), Value::set([node])]);
    let status = Value::Vector(vec![
        "w1".into(),
        Value::enumerated("Management::RUNNING"),
        Value::enumerated("Management::NONE"),
        Value::enumerated("Supervisor::WORKER"),
        4711_i64.into(),
        Value::None,
        Port::tcp(9002).into(),
    ]);
    let outputs = Value::vector(["", "fatal error: boom"]);
    let mut with_metadata = controller("test_noop_request", vec![]);
    let moment = Timestamp::from_millis(1_767_323_045_678).unwrap();
    with_metadata.event.metadata = vec![(1, moment.into()), (200, Value::None)];
    vec![
        controller("stage_configuration_request", vec![id(), configuration]),
        controller(
            "stage_configuration_response",
            vec![id(), Value::vector([result(false, None, Value::None, Some("multiple nodes named 'w1'"), None)])],
        ),
        controller("get_nodes_request", vec![id()]),
        controller(
            "get_nodes_response",
            vec![id(), Value::vector([result(true, Some("agent-box"), Value::vector([status]), None, None)])],
        ),
        controller(
            "deploy_response",
            vec![
                id(),
                Value::vector([
                    result(false, Some("agent-box"), Value::None, Some("request timed out"), None),
                    result(false, Some("agent-box"), outputs, None, Some("w1")),
                ]),
            ],
        ),
        with_metadata,
    ]
}

fn errors() -> Vec<ErrorMessage> {
    vec![
        ErrorMessage::unreadable(),
        ErrorMessage::no_event(),
        ErrorMessage::new(Code::BrokerError, "Could not process remote event on topic 'a\"b'"),
        ErrorMessage::new(Code::InvalidUri, "Invalid URI - use /v1/messages/json"),
        ErrorMessage::new(Code::InvalidApplicationName, "Invalid X-Application-Name"),
    ]
}

fn compare<T: PartialEq + Debug>(name: &str, samples: &[T], write: impl Fn(&T) -> String, read: impl Fn(&str) -> T) {
    let path = golden().join(format!("{name}.jsonl"));
    let text: String = samples.iter().map(|sample| write(sample) + "\n").collect();
    if std::env::var_os("WATCHPOST_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let file = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{name} has no golden file ({error}); see the top of this test"));
    assert_eq!(file, text, "{name} is not written as it was");
    let back: Vec<_> = file.lines().map(read).collect();
    assert_eq!(back, samples, "{name}");
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broker")
}

//! Any value survives the way through JSON, and any bytes are a value or an error.

use std::net::IpAddr;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use watchpost::web::broker::data::{Port, Protocol, Real, Subnet, Timespan, Timestamp};
use watchpost::web::broker::frame::topics_from_json;
use watchpost::web::broker::{Event, Publication, Value};

proptest! {
    #[test]
    fn any_value_survives_the_round_trip(value in value()) {
        let text = value.to_json();
        prop_assert_eq!(&Value::from_json(text.as_bytes()).unwrap(), &value);
        let strict: serde_json::Value = serde_json::from_str(&text).unwrap();
        let turned = backwards(&strict);
        prop_assert_eq!(Value::from_json(turned.as_bytes()).unwrap(), value, "{}", turned);
    }

    #[test]
    fn any_event_survives_the_round_trip(
        topic in any::<String>(), name in any::<String>(), args in vec(value(), 0..4),
        metadata in vec((any::<u64>(), value()), 0..3),
    ) {
        let sent = Publication::new(topic, Event { name, args, metadata });
        prop_assert_eq!(Publication::from_json(&sent.to_json()).unwrap(), sent);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        decode(&bytes);
    }

    #[test]
    fn a_value_with_some_bytes_changed_is_a_value_or_an_error(
        value in value(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let mut text = value.to_json().into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        decode(&text);
        decode(&text[..cut.index(text.len())]);
    }

    #[test]
    fn any_json_is_a_value_or_an_error(pieces in vec(prop::sample::select(PIECES), 0..60)) {
        decode(pieces.concat().as_bytes());
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"@data-type\":",
    "\"data\":",
    "\"key\":",
    "\"value\":",
    "\"topic\":",
    "\"vector\"",
    "\"set\"",
    "\"table\"",
    "\"none\"",
    "\"count\"",
    "\"real\"",
    "\"port\"",
    "1",
    "-1",
    "1.5",
    "1e999",
    "true",
    "null",
    "\"1/tcp\"",
    "{\"@data-type\":\"none\",\"data\":{}}",
    "{\"@data-type\":\"vector\",\"data\":[",
];

#[test]
fn numbers_have_to_be_what_their_type_says() {
    for (text, wanted) in [
        (r#"{"@data-type":"count","data":18446744073709551615}"#, Some(Value::Count(u64::MAX))),
        (r#"{"@data-type":"count","data":18446744073709551616}"#, None),
        (r#"{"@data-type":"count","data":-1}"#, None),
        (r#"{"@data-type":"count","data":1.0}"#, None),
        (r#"{"@data-type":"count","data":"1"}"#, None),
        (r#"{"@data-type":"integer","data":-9223372036854775808}"#, Some(Value::Integer(i64::MIN))),
        (r#"{"@data-type":"integer","data":9223372036854775808}"#, None),
        (r#"{"@data-type":"integer","data":1e3}"#, None),
        (r#"{"@data-type":"real","data":1}"#, None),
        (r#"{"@data-type":"real","data":1.0}"#, Real::new(1.0).map(Value::Real)),
        (r#"{"@data-type":"real","data":1e3}"#, Real::new(1000.0).map(Value::Real)),
        (r#"{"@data-type":"real","data":1e999}"#, None),
        (r#"{"@data-type":"real","data":NaN}"#, None),
        (r#"{"@data-type":"boolean","data":1}"#, None),
    ] {
        assert_eq!(Value::from_json(text.as_bytes()).ok(), wanted, "{text}");
    }
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    for (text, why) in [
        (r#"{"data":1}"#, "missing field `@data-type` at line 1 column 10"),
        (r#"{"@data-type":"count"}"#, "missing field `data` at line 1 column 22"),
        (r#"{"@data-type":"cuont","data":1}"#, "there is no type `cuont` at line 1 column 21"),
        (r#"{"@data-type":"count","data":-1}"#, "a count cannot be a negative number at line 1 column 32"),
        (r#"{"@data-type":"port","data":"80"}"#, "`80` is not a port such as 9002/tcp at line 1 column 33"),
        (
            r#"{"@data-type":"set","data":[1]}"#,
            "invalid type: integer `1`, expected an object with `@data-type` and `data`",
        ),
        (r#"{"data":1,"data":1}"#, "duplicate field `data`"),
        (r#"{"@data-type":"table","data":[{"key":{"@data-type":"none","data":{}}}]}"#, "missing field `value`"),
        (r#"{"@data-type":"vector","data":["#, "EOF while parsing"),
    ] {
        let error = Value::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(why), "{text}: {error}");
    }
}

#[test]
fn none_holds_whatever_it_likes_and_other_keys_mean_nothing() {
    for text in [
        r#"{"@data-type":"none","data":{}}"#,
        r#"{"@data-type":"none","data":null}"#,
        r#"{"@data-type":"none","data":[1,{"a":"b"}]}"#,
        r#"{"data":{"a":[1]},"@data-type":"none","more":{"@data-type":7}}"#,
    ] {
        assert_eq!(Value::from_json(text.as_bytes()).unwrap(), Value::None, "{text}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_a_fair_depth_is_not() {
    let nested = |levels: usize, begin: &str, end: &str| {
        format!("{}{}{}", begin.repeat(levels), r#"{"@data-type":"none","data":{}}"#, end.repeat(levels))
    };
    for (begin, end) in [
        (r#"{"@data-type":"vector","data":["#, "]}"),
        (r#"{"data":["#, r#"],"@data-type":"vector"}"#),
        (r#"{"@data-type":"set","data":["#, "]}"),
    ] {
        assert!(Value::from_json(nested(50, begin, end).as_bytes()).is_ok());
        let error = Value::from_json(nested(50_000, begin, end).as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("recursion limit exceeded"), "{error}");
    }
    for text in ["[", "{\"a\":", "{\"@data-type\":\"none\",\"data\":[", "{\"data\":["].map(|text| text.repeat(200_000))
    {
        decode(text.as_bytes());
    }
}

#[test]
fn a_text_over_the_limit_is_not_looked_at() {
    let long = vec![b' '; watchpost::web::broker::MAX_MESSAGE + 1];
    assert!(Value::from_json(&long).unwrap_err().to_string().contains("more than"));
}

/// Either a value that survives the round trip, or an error. What is read as one is what would be written.
fn decode(bytes: &[u8]) {
    if let Ok(value) = Value::from_json(bytes) {
        assert_eq!(Value::from_json(value.to_json().as_bytes()).unwrap(), value);
    }
    // These must only come to an end.
    let _ = (Publication::from_json(bytes), topics_from_json(bytes));
}

/// The same JSON with the keys of every object the other way round.
fn backwards(json: &serde_json::Value) -> String {
    match json {
        serde_json::Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().rev().map(|(key, value)| format!("{key:?}:{}", backwards(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        serde_json::Value::Array(items) => format!("[{}]", items.iter().map(backwards).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Vector),
            btree_set(inner.clone(), 0..6).prop_map(Value::Set),
            btree_map(inner.clone(), inner, 0..4).prop_map(Value::Table),
        ]
    })
}

fn leaf() -> impl Strategy<Value = Value> {
    let protocol = prop::sample::select(vec![Protocol::Unknown, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
    prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |real| Real::new(real).map(Value::from)),
        any::<String>().prop_map(Value::from),
        "[A-Z][a-z]{0,5}::[A-Z]{1,5}".prop_map(Value::Enum),
        any::<IpAddr>().prop_map(Value::from),
        (any::<IpAddr>(), 0..=128u8)
            .prop_filter_map("short enough", |(address, length)| Subnet::new(address, length).map(Value::from)),
        (any::<u16>(), protocol).prop_map(|(number, protocol)| Port { number, protocol }.into()),
        any::<i64>().prop_map(|ns| Timespan(ns).into()),
        (-62_167_219_200_000..253_402_300_800_000i64)
            .prop_filter_map("in range", |millis| Timestamp::from_millis(millis).map(Value::from)),
    ]
}

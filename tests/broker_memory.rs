//! What hostile clients cost in memory, measured in a process where nothing else happens.

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "only a part is needed here")]
mod client;
#[path = "broker/log.rs"]
#[allow(dead_code, reason = "only a part is needed here")]
mod log;
#[path = "broker/scene.rs"]
#[allow(dead_code, reason = "only a part is needed here")]
mod scene;

use std::io::Write;

use client::{Got, frame, head};
use scene::Scene;

#[test]
fn a_message_of_a_hundred_megabytes_costs_the_server_nothing() {
    let scene = Scene::new();
    let mut client = scene.client();
    let before = memory();
    client.write(&head(0x81, 100_000_000));
    // It may be cut off in the middle.
    let piece = vec![0; 1_000_000];
    (0..100).take_while(|_| client.stream.write_all(&piece).is_ok()).count();
    let got = client.next();
    assert!(matches!(&got, Got::Close(Some(1009), _) | Got::Gone), "{got:?}");

    // In pieces, each of which is allowed.
    let mut client = scene.client();
    client.write(&frame(0x01, &piece));
    (0..99).take_while(|_| client.stream.write_all(&frame(0x00, &piece)).is_ok()).count();
    let got = client.next();
    assert!(matches!(&got, Got::Close(Some(1009), _) | Got::Gone), "{got:?}");
    assert!(memory() < before + 80_000_000, "{} was {before}", memory());
    scene.check_that_it_answers();
}

/// What this process holds, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

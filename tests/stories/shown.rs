//! What an operator must not overlook: how `status` shows it on a terminal, and that `/metrics` has it as well.

use std::fs;
use std::time::Duration;

use watchpost::model::{InstanceName, Timestamp};
use watchpost::trust::{Authority, Part};

use crate::common::{Daemon, Scene, eventually};
use crate::terminal::Terminal;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn what_is_insecure_is_shown_in_red_on_a_terminal_and_in_words_everywhere() {
    const RED: &str = "\x1b[31m";
    let words = "INSECURE: whoever reaches the port for agents, 0.0.0.0:";
    let scene = Scene::new();
    let admitting = ["env", "WATCHPOST_INSECURE=1"];
    let args = ["controller", "--listen", "0.0.0.0:0", "--http", &scene.any_port()];
    let daemon = Daemon::start_through(&admitting, &scene, "controller", &args);
    let status = |colour: &[(&str, &str)]| {
        let mut command = daemon.client().command(&["status"]);
        command.envs(colour.iter().copied());
        let mut terminal = Terminal::run(&command, 80);
        assert_eq!(terminal.ended(), 0);
        terminal.raw()
    };
    let shown = status(&[]);
    let alert = shown.lines().next().unwrap();
    assert!(alert.contains(&format!("{RED}{words}")), "{shown:?}");
    let plain = status(&[("NO_COLOR", "1")]);
    assert!(plain.starts_with(words) && !plain.contains(RED), "{plain:?}");
    let piped = daemon.client().run(&["status"]).stdout;
    assert!(piped.starts_with(words), "{piped:?}");
}

#[test]
fn certificates_that_will_soon_expire_are_in_status_and_in_metrics() {
    let (scene, now) = (Scene::new(), Timestamp::now());
    let named = |name: &str| InstanceName::new(name).unwrap();
    let before = |age: Duration| Timestamp(now.0 - age.as_micros() as u64);
    // The key is nowhere that a daemon finds it, so nothing is renewed before somebody signs it.
    let (lifetime, old) = (30 * DAY, before(25 * DAY));
    let authority = Authority::create(&scene.path("safe"), &named(scene.cluster()), old, 365 * DAY).unwrap();
    for (part, name, since) in [(Part::Controller, "control", old), (Part::Agent, "a", old), (Part::Agent, "b", now)] {
        fs::create_dir(scene.path(name)).unwrap();
        let trust = scene.path(name).join("trust");
        authority.issue(part, &named(name), since, lifetime).unwrap().write(&trust).unwrap();
    }
    let any = scene.any_port();
    let args = ["controller", "--name", "control", "--listen", &any, "--http", &any];
    let controller = Daemon::start(&scene, "control", &args);
    let address = controller.addresses()["agents"].to_string();
    let agent = |name: &str| Daemon::start(&scene, name, &["agent", "--name", name, "--connect", &address]);
    let _agents = ["a", "b"].map(agent);
    let client = controller.client();
    let status = client.wait("both agents are there", |status| status.instances.len() == 2);
    let due = |name: &str| {
        let of = status.instances.iter().find(|instance| instance.name == name);
        of.and_then(|instance| instance.certificate.as_ref()).unwrap().due
    };
    assert_eq!((status.certificate.as_ref().unwrap().due, due("a"), due("b")), (true, true, false));
    let text = client.run(&["status"]).stdout;
    let day = &status.certificate.as_ref().unwrap().expires[..10];
    for words in ["the controller's certificate", "the certificate of agent a"] {
        assert!(text.contains(&format!("{words} expires at {day}T")), "{text}");
    }
    assert!(!text.contains("the certificate of agent b"), "{text}");

    let (code, page) = client.http("GET", "/metrics", "");
    assert_eq!(code, 200, "{page}");
    let value = |sample: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(sample)).unwrap_or_else(|| panic!("{page}"));
        line.trim().parse::<u64>().unwrap()
    };
    let agents = "watchpost_agent_certificate_expiry_timestamp_seconds";
    let left = |value: u64| value - now.0 / 1_000_000;
    let days = |days: u32| u64::from(days) * DAY.as_secs() - 60..=u64::from(days) * DAY.as_secs();
    assert!(days(5).contains(&left(value("watchpost_certificate_expiry_timestamp_seconds "))), "{page}");
    assert!(days(5).contains(&left(value(&format!("{agents}{{instance_name=\"a\"}} ")))), "{page}");
    assert!(days(30).contains(&left(value(&format!("{agents}{{instance_name=\"b\"}} ")))), "{page}");
    eventually("the controller says that somebody has to sign", || {
        controller.log().contains("sign it by `watchpost pki sign`").then_some(())
    });
}

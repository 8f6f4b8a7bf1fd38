//! A deployment as somebody at a terminal sees it: what moves, and that Ctrl-C leaves it to itself.

use watchpost::web::json::Status;

use crate::common::{Fleet, Reserved};
use crate::phases::{all, cluster, colours, red, slow};
use crate::terminal::Terminal;

/// Waits until the deployment in progress switches a node that waits for somebody.
fn switches_slow(fleet: &Fleet) -> Status {
    fleet.client.wait("the slow one is being switched", |status| {
        status.deployment.as_ref().is_some_and(|present| present.under_way.contains(&"slow".to_owned()))
    })
}

#[test]
fn on_a_terminal_phases_and_nodes_are_seen_as_they_move() {
    let (fleet, _) = red();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &slow(&reserved));
    let mut terminal = Terminal::run(&fleet.client.command(&["deploy", file.to_str().unwrap()]), 80);
    terminal.wait_for(": gathering");
    terminal.wait_for("checking on 3 instances");
    terminal.wait_for("PENDING slow on c");
    let listener = reserved.listen();
    terminal.wait_for("RUNNING slow on c");
    terminal.wait_for("RUNNING moves-on-b on b");
    terminal.wait_for("committing");
    assert_eq!(terminal.ended(), 0, "{}", terminal.text());
    drop(listener);
    let text = terminal.text();
    assert!(text.lines().next().unwrap().starts_with("deploying "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("deployed configuration ")), "{text}");
    assert!(terminal.raw().contains("\x1b[32mRUNNING"), "{:?}", terminal.raw());
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn ctrl_c_leaves_a_deployment_to_itself_and_whoever_attaches_sees_its_end() {
    let (fleet, _) = red();
    let reserved = Reserved::new();
    let file = cluster(&fleet, "blue", &slow(&reserved));
    let mut terminal = Terminal::run(&fleet.client.command(&["deploy", file.to_str().unwrap()]), 80);
    terminal.wait_for("PENDING slow on c");
    terminal.press_ctrl_c();
    assert_eq!(terminal.ended(), 130, "{}", terminal.text());
    let said = "goes on without you; `watchpost deploy --attach` shows it, `watchpost history` what came of it";
    assert!(
        terminal.words().contains("detached: deploying ") && terminal.words().ends_with(said),
        "{}",
        terminal.text()
    );
    let number = switches_slow(&fleet).deployment.unwrap().number;

    let attach = fleet.client.command(&["deploy", "--attach"]);
    let mut looks_on = Terminal::run(&attach, 80);
    looks_on.wait_for(&format!("deployment {number} of "));
    looks_on.press_ctrl_c();
    assert_eq!(looks_on.ended(), 130);
    assert!(looks_on.words().contains(&format!("detached: deployment {number} goes on without you")));

    let mut looks_on = Terminal::run(&attach, 80);
    looks_on.wait_for(": switching");
    let _listener = reserved.listen();
    looks_on.wait_for("RUNNING slow on c");
    assert_eq!(looks_on.ended(), 0, "{}", looks_on.text());
    assert!(looks_on.words().contains("outcome deployed"), "{}", looks_on.text());
    assert_eq!(colours(&fleet.client.wait_for_all("RUNNING")), all("blue"));
}

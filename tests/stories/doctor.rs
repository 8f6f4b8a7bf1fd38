//! `watchpost doctor`: each check with its verdict, and an exit code for scripts.

use serde_json::Value;

use crate::common::Scene;

#[test]
fn the_doctor_looks_at_everything_and_says_how_it_went() {
    let scene = Scene::new();
    let state = scene.path("state");
    let args = ["doctor", "--state-dir", state.to_str().unwrap(), "--unit", "no-such-unit.service"];
    let plain = scene.watchpost(&args).output().unwrap();
    assert_eq!(plain.status.code(), Some(0), "{}", String::from_utf8_lossy(&plain.stderr));
    let text = String::from_utf8(plain.stdout).unwrap();
    assert!(text.contains("ok    service         systemd has no unit for an agent here\n"), "{text}");
    assert!(text.contains("ok    pidfd"), "{text}");

    let json = scene.watchpost(&args).arg("--json").output().unwrap();
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        let is_fine = check["verdict"] == "ok";
        assert_eq!(check.get("advice").is_none(), is_fine, "a way out of what is not fine: {check}");
        assert!(text.contains(check["text"].as_str().unwrap()), "{check}");
    }
    let names: Vec<_> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert!(["cgroup-kill", "cgroup-memory", "disk", "yama"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!state.exists(), "nothing was made");
}

#[test]
fn what_fails_is_an_exit_code_of_1() {
    let scene = Scene::new();
    // Nobody can write there, not even root.
    let done = scene.watchpost(&["doctor", "--state-dir", "/proc/1/watchpost", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let failed = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "fail");
    let failed: Vec<_> = failed.map(|check| check["check"].as_str().unwrap()).collect();
    assert!(failed.contains(&"state-dir") && report["ok"] == false, "{report}");
    assert_eq!(done.status.code(), Some(1));
}

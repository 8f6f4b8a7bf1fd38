//! A test in namespaces of its own, which are gone with it.

use std::process::{Command, Stdio};

/// Says to the second run of the test that it is apart, and the number of the first.
const APART: &str = "WATCHPOST_TEST_IS_APART";

/// Runs a test as the init of a pid namespace of its own, with a network of its own: this program is run again in there,
/// for that test. Its processes have numbers of their own, and nobody but the test reaps its orphans.
///
/// Root just does that; anybody else becomes root of a user namespace, which the kernel has to allow.
#[allow(dead_code, reason = "only some of the programs that share this need it")]
pub fn as_init(test: &str, body: impl FnOnce()) {
    if std::env::var_os(APART).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("`ip` is needed (tests/run installs it)").success());
        return body();
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--mount-proc", "--kill-child", "--fork", "--"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    command.env(APART, std::process::id().to_string()).stdin(Stdio::null());
    let output = command.output().expect("`unshare` of util-linux is needed");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "in a pid namespace of its own:\n{said}");
    eprintln!("{said}");
}

/// A number that no other test has meanwhile, also in another pid namespace.
pub fn number() -> u32 {
    let first = std::env::var(APART).ok().map(|number| number.parse().expect("a pid"));
    first.unwrap_or_else(std::process::id)
}

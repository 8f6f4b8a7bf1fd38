//! Sections of cluster files.

/// A node that does nothing for longer than any story takes, and ends when it is asked to.
pub fn sleeper(name: &str, keys: &str) -> String {
    format!("[{name}]\ncommand = sleep 1000\nready = settle 50ms\n{keys}\n")
}

/// A node that is a shell script.
pub fn script(name: &str, keys: &str, script: &str) -> String {
    assert!(!script.contains('\''), "the script is quoted: {script}");
    let script = script.replace('%', "%%").replace('\n', "\n    ");
    format!("[{name}]\ncommand = /bin/sh -c '\n    {script}'\nready = settle 50ms\n{keys}\n")
}

/// A node that ignores SIGTERM, as soon as it has said `deaf`.
pub fn deaf(name: &str, keys: &str) -> String {
    script(name, keys, "trap \"\" TERM\necho deaf\nwhile :; do sleep 0.1; done")
}

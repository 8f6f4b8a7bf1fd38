//! Asks a debugger where a process was when it died: bounded in time and in what it may say.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::supervisor::process::errand::Held;
use crate::supervisor::process::let_sigchld_through;

/// How much of it is kept, in bytes.
const MOST: usize = 64 << 10;

/// Where every thread was, by this core file; or why nobody can say. `program` is what was launched.
///
/// A core file and what it names may be made by whoever wanted to be looked at: so where we are root, the debugger runs as
/// whoever owns the file, and it reads nothing but what it is told to.
pub fn of(debugger: &str, program: Option<&Path>, core: &Path, within: Duration) -> Result<String, String> {
    let owner = fs::metadata(core).map_err(|error| format!("cannot read the core file: {error}"))?;
    let mut command = Command::new(debugger);
    command.args(["-batch", "-nx", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"]);
    command.args(["-ex", "set width 0", "-ex", "thread apply all backtrace 64"]);
    match program.filter(|program| is_program(program)) {
        Some(program) => command.arg(program).arg(core),
        None => command.arg(format!("--core={}", core.display())),
    };
    command.current_dir("/").env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let mut child = let_sigchld_through(&mut command).spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no {debugger}: install it for backtraces"),
        _ => format!("cannot start {debugger}: {error}"),
    })?;
    // Strays are reaped elsewhere, and where the kernel does not list children it may be taken for one.
    let held = Held::new(&child);
    let said = child.stdout.take().map(|out| read_for(out, within)).unwrap_or_default();
    // It is in a group of its own, and may have started others. Where it is not held it was gone at once, or ends when
    // nobody reads what it says.
    held.into_iter().for_each(Held::end);
    match said {
        Said { text, in_time: true } if text.trim().is_empty() => Err(format!("{debugger} said nothing")),
        Said { text, in_time: true } => Ok(text),
        Said { in_time: false, .. } => Err(format!("{debugger} took longer than {within:?}")),
    }
}

/// Whether this is a program, and not a script that another one runs.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[derive(Default)]
struct Said {
    text: String,
    in_time: bool,
}

fn read_for(mut out: impl Read + AsFd, within: Duration) -> Said {
    let until = Instant::now() + within;
    let (mut bytes, mut block) = (Vec::new(), [0; 8192]);
    let in_time = loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&left)) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break false,
        }
        match out.read(&mut block) {
            Ok(0) | Err(_) => break true,
            Ok(read) => bytes.extend(&block[..read]),
        }
        if bytes.len() >= MOST {
            bytes.truncate(MOST);
            break true;
        }
    };
    Said { text: String::from_utf8_lossy(&bytes).into_owned(), in_time }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn debugger(home: &Path, script: &str) -> String {
        let path = home.join("debugger");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_debugger_that_talks_too_long_or_too_much_is_ended() {
        let home = tempfile::tempdir().unwrap();
        let core = home.path().join("core");
        fs::write(&core, "").unwrap();
        let ask = |script: &str, within| of(&debugger(home.path(), script), None, &core, within);
        let long = Duration::from_secs(20);
        assert_eq!(ask("echo here", long), Ok("here\n".into()));
        assert!(ask("exit 1", long).unwrap_err().ends_with("said nothing"));
        assert_eq!(ask("while :; do echo more and more; done", long).unwrap().len(), MOST);
        let begun = Instant::now();
        assert!(ask("echo begun; exec sleep 1000", Duration::from_millis(50)).unwrap_err().contains("took longer"));
        assert!(begun.elapsed() < Duration::from_secs(15));
        let none = of("/nowhere/gdb", None, &core, long).unwrap_err();
        assert_eq!(none, "there is no /nowhere/gdb: install it for backtraces");
    }
}

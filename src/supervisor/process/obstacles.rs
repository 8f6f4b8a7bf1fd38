//! What would keep a program from starting, as far as that can be seen without starting it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::error::SpawnError;
use super::rights;
use super::spawn::{Program, arguments, candidates, environment, missing_interpreter};
use crate::model::Cpus;

/// Every refusal of [`super::spawn`] that can be told beforehand; in the same words, and nothing is made or changed.
pub fn obstacles(program: &Program) -> Vec<SpawnError> {
    let user = program.user.as_deref().map(|name| rights::find_user(name, &program.run_as)).transpose();
    let (user, unknown) = match user {
        Ok(user) => (user, None),
        Err(error) => (None, Some(error)),
    };
    let ours = rustix::process::geteuid();
    let denied = user.as_ref().filter(|user| !ours.is_root() && user.user.uid != ours.as_raw()).map(|_| {
        let user = program.user.clone().unwrap_or_default();
        SpawnError::User { user, cause: Errno::PERM.into() }
    });
    let capabilities = rights::capabilities(&program.run_as).err();
    let others = [arguments(program).err(), environment(program, user.as_ref()).err(), capabilities];
    let places = [beyond_this_machine(program), no_directory(program), not_found(program)];
    unknown.into_iter().chain(denied).chain(others.into_iter().chain(places).flatten()).collect()
}

fn beyond_this_machine(program: &Program) -> Option<SpawnError> {
    let cpus = program.cpus.as_ref()?;
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim().parse::<Cpus>().ok()?;
    (!cpus.0.is_subset(&online.0)).then(|| rights::beyond(cpus))
}

/// A working directory that is something else. One that is missing is made when it is needed.
fn no_directory(program: &Program) -> Option<SpawnError> {
    let path = &program.directory;
    let cause = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => Errno::NOTDIR.into(),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => error,
        Err(_) => return None, // it is missing, or not ours to look at
    };
    Some(SpawnError::Directory { path: path.clone(), cause })
}

/// A program that is nowhere, or no program. What is not ours to look at may be there.
fn not_found(program: &Program) -> Option<SpawnError> {
    let candidates = match candidates(program) {
        Ok(candidates) => candidates,
        Err(error) => return Some(error),
    };
    let mut worst = io::Error::from(Errno::NOENT);
    for candidate in candidates {
        let path: PathBuf = program.directory.join(OsStr::from_bytes(candidate.to_bytes()));
        match fs::metadata(&path) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                let name = program.argv.first().cloned().unwrap_or_default();
                let interpreter = missing_interpreter(program, Errno::NOENT)?;
                return Some(SpawnError::Interpreter { program: name, interpreter });
            }
            Ok(_) => worst = Errno::ACCESS.into(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(_) => {}
        }
    }
    Some(SpawnError::Exec { program: program.argv.first().cloned().unwrap_or_default(), cause: worst })
}

#[cfg(test)]
mod tests {
    use super::super::spawn;
    use super::super::testing::{finish, script};
    use super::*;
    use crate::model::{Exit, RunAs};

    #[test]
    fn what_would_be_refused_is_said_in_the_same_words() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str, mode| {
            let path = home.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let usual = script(home.path(), ":");
        let with = |argv: &str| Program { argv: vec![argv.into()], ..usual.clone() };
        let as_user = |user: &str, run_as| Program { user: Some(user.into()), run_as, ..usual.clone() };
        let groups = RunAs { groups: vec!["no-such-group".into()], ..RunAs::default() };
        let mut online: Cpus = "0".parse().unwrap();
        online.0.insert(1000);
        for program in [
            with("/nowhere/program"),
            with("no-such-program"),
            with(&path("plain", "#!/bin/sh\n", 0o644)),
            with(&path("foreign", "#!/nowhere/interpreter\n", 0o755)),
            with(""),
            as_user("no-such-user", RunAs::default()),
            as_user("root", groups),
            Program { cpus: Some(online), ..usual.clone() },
            Program { directory: path("file", "", 0o644).into(), ..usual.clone() },
            Program { env: [("A=B".to_owned(), String::new())].into(), ..usual.clone() },
        ] {
            let refused = spawn(&program, None).expect_err("it cannot be started").to_string();
            let seen: Vec<String> = obstacles(&program).iter().map(ToString::to_string).collect();
            assert_eq!(seen, [refused]);
        }
    }

    #[test]
    fn what_can_be_started_has_no_obstacle() {
        let home = tempfile::tempdir().unwrap();
        let program = script(home.path(), "exit 0");
        assert!(obstacles(&program).is_empty());
        let in_path = Program { argv: vec!["true".into()], directory: home.path().join("new"), ..program };
        assert!(obstacles(&in_path).is_empty() && !in_path.directory.exists());
        assert_eq!(finish(&spawn(&in_path, None).unwrap()), Exit::Status(0));
    }
}

//! What every node's process is given: its command line is the node's own, or was made for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use super::{FILES, LaunchError, MARKER, PLACE, Site};
use crate::model::{Life, Node, Role};
use crate::supervisor::process::Program;

/// The longest file of an environment that is read, in bytes.
const LONGEST_FILE: u64 = 64 << 10;

/// What tells a program who it runs as.
const WHO: [&str; 3] = ["HOME", "USER", "LOGNAME"];

/// The program of a node with a `command`.
pub(super) fn program(site: &Site, node: &Node, life: Life) -> Result<Program, LaunchError> {
    let mut env = inherited(site, node)?;
    if node.role != Role::None {
        env.insert("CLUSTER_NODE".into(), node.name.to_string());
    }
    env.extend(node.env.iter().map(|(name, value)| (name.clone(), site.here(node, value))));
    Ok(with(site, node, life, node.command.iter().map(|word| site.here(node, word)).collect(), env))
}

/// What a node inherits: of its agent's environment, and by its file.
pub(super) fn inherited(site: &Site, node: &Node) -> Result<BTreeMap<String, String>, LaunchError> {
    let mut env = site.environment.clone();
    if node.user.is_some() {
        env.retain(|name, _| !WHO.contains(&name.as_str())); // these are the agent's
    }
    if let Some(file) = node.run_as.as_ref().and_then(|run_as| run_as.env_file.as_deref()) {
        env.extend(assignments(file)?);
    }
    Ok(env)
}

/// The program that one life of a node is, by its command line and environment.
pub(super) fn with(
    site: &Site,
    node: &Node,
    life: Life,
    argv: Vec<String>,
    mut env: BTreeMap<String, String>,
) -> Program {
    env.insert(MARKER.into(), site.marker(node, life));
    env.insert(PLACE.into(), site.place.clone());
    env.extend(site.tree_of(node).map(|tree| (FILES.to_owned(), tree)));
    let home = site.directory(node);
    Program {
        argv,
        env,
        directory: site.working_directory(node),
        stdout: home.join("stdout"),
        stderr: home.join("stderr"),
        user: node.user.clone(),
        cpus: node.cpu_affinity.clone(),
        nofile: site.descriptors,
        run_as: node.run_as.as_deref().cloned().unwrap_or_default(),
        group: None,
    }
}

/// The `NAME=value` lines of a file. Empty ones and those that begin with `#` say nothing; values are taken as they are.
fn assignments(path: &str) -> Result<BTreeMap<String, String>, LaunchError> {
    let failed = |cause: io::Error| LaunchError::EnvFile { path: path.to_owned(), cause: cause.to_string() };
    let mut text = String::new();
    let read = open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text));
    read.map_err(failed)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(failed(io::Error::other(format!("it is longer than {LONGEST_FILE} bytes"))));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let pair = |(at, line): (usize, &str)| match line.split_once('=') {
        Some((name, value)) if !name.is_empty() && !line.contains('\0') => Ok((name.to_owned(), value.to_owned())),
        // Not the line itself: it may hold a secret.
        _ => Err(failed(io::Error::other(format!("line {} is not of the form NAME=value", at + 1)))),
    };
    lines.map(pair).collect()
}

/// Opens a file, and refuses a pipe that somebody may have put in its place, which would make us wait.
pub(super) fn open(path: &str) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FileType, Mode};

    use super::*;

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("env");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            assignments(path.to_str().unwrap())
        };
        let got = read("# a comment\n\nA=1\nB=x = \"y\"\nC=\n").unwrap();
        assert_eq!(got, [("A", "1"), ("B", "x = \"y\""), ("C", "")].map(|(n, v)| (n.into(), v.into())).into());
        for (text, want) in [("A=1\nsecret\n", "line 2 is not"), ("=1\n", "line 1 is not"), ("A=\0\n", "line 1 is not")]
        {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(want) && !error.contains("secret"), "{error}");
        }
        assert!(read(&"x".repeat(70_000)).unwrap_err().to_string().contains("longer than 65536 bytes"));
        let pipe = home.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for no_file in [&*pipe, home.path()] {
            let error = assignments(no_file.to_str().unwrap()).unwrap_err().to_string();
            assert!(error.ends_with("it is no regular file"), "{error}");
        }
        let error = assignments("/nowhere/env").unwrap_err().to_string();
        assert_eq!(error, "cannot read the variables in /nowhere/env: No such file or directory (os error 2)");
    }
}

//! A terminal, and somebody at it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::DEADLINE;

/// A command that has a terminal for its own, and what it has shown there.
pub struct Terminal {
    ours: File,
    child: Child,
    coming: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    /// Runs the command on a terminal that is so many columns wide.
    pub fn run(command: &Command, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let noctty = OpenptFlags::NOCTTY.bits() as i32;
        let theirs = || OpenOptions::new().read(true).write(true).custom_flags(noctty).open(&path).unwrap();
        // In a session of its own, in which this is its terminal: or Ctrl-C would be a character like any other.
        let mut session = Command::new("setsid");
        session.args(["--wait", "--ctty"]).arg(command.get_program()).args(command.get_args()).env_clear();
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        let child = session.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().unwrap();
        drop(session); // and with it this process's copies of that end
        let ours = File::from(ours);
        let (mut from, (comes, coming)) = (ours.try_clone().unwrap(), channel());
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                match from.read(&mut chunk) {
                    Ok(count @ 1..) if comes.send(chunk[..count].to_vec()).is_ok() => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The other end is closed, or nobody looks any more.
                    _ => break,
                }
            }
        });
        Self { ours, child, coming, shown: Vec::new() }
    }

    /// What it has shown so far, without colours and the like.
    pub fn text(&self) -> String {
        let (mut text, mut is_code) = (String::new(), false);
        for letter in String::from_utf8_lossy(&self.shown).chars() {
            match letter {
                '\x1b' => is_code = true,
                letter if is_code => is_code = !letter.is_ascii_alphabetic(),
                '\r' => {}
                letter => text.push(letter),
            }
        }
        text
    }

    /// The same as one line, whatever was broken where.
    pub fn words(&self) -> String {
        self.text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The same with whatever makes it look so.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits until it shows this.
    pub fn wait_for(&mut self, words: &str) {
        self.wait(words, |shown| shown.words().contains(words));
    }

    /// The same of what makes it look so.
    pub fn wait_for_raw(&mut self, bytes: &str) {
        self.wait(bytes, |shown| shown.raw().contains(bytes));
    }

    fn wait(&mut self, what: &str, is_shown: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_shown(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.coming.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => panic!("it does not show `{what}`: {:?}", self.raw()),
            }
        }
    }

    pub fn press_ctrl_c(&mut self) {
        self.ours.write_all(b"\x03").unwrap();
    }

    /// Waits for the end of the command; its exit code.
    pub fn ended(&mut self) -> i32 {
        let deadline = Instant::now() + DEADLINE;
        while let Ok(bytes) = self.coming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.shown.extend(bytes);
        }
        assert!(Instant::now() < deadline, "it does not end: {}", self.text());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Who waits for the command ends with its terminal; not there any more is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

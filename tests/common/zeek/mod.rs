//! Zeek for stories: a stand-in of any version, or the real one that `WATCHPOST_ZEEK` names.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::Scene;

/// An installation of Zeek.
pub struct Zeek {
    prefix: PathBuf,
    /// What stands in for it; `None` if it is real.
    site: Option<PathBuf>,
}

impl Zeek {
    /// The real one if there is one, else a stand-in of this version, in the scene.
    pub fn of(scene: &Scene, version: &str) -> Self {
        match std::env::var_os("WATCHPOST_ZEEK") {
            Some(prefix) => Self { prefix: prefix.into(), site: None },
            None => Self::stand_in(scene, version),
        }
    }

    /// A stand-in that is wholly in the scene, for whoever cannot look into the directories of this build.
    pub fn copied(scene: &Scene, version: &str) -> Self {
        let program = stand_in();
        let copy = scene.path("zeek-stand-in");
        std::fs::copy(&program, &copy).unwrap();
        Self::standing_in(scene, version, &copy)
    }

    /// A stand-in whatever else there is, for what no installation here can be.
    pub fn stand_in(scene: &Scene, version: &str) -> Self {
        Self::standing_in(scene, version, &stand_in())
    }

    fn standing_in(scene: &Scene, version: &str, program: &Path) -> Self {
        let prefix = scene.path(&format!("zeek-{version}"));
        let site = prefix.join("share/zeek/site");
        std::fs::create_dir_all(&site).unwrap();
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        std::fs::write(site.join("local.zeek"), "# nothing yet\n").unwrap();
        let text = format!(
            "#!/bin/sh\nZEEK_STAND_IN_VERSION={version}\nexport ZEEK_STAND_IN_VERSION\nexec {} \"$@\"\n",
            program.display()
        );
        let zeek = prefix.join("bin/zeek");
        std::fs::write(&zeek, text).unwrap();
        std::fs::set_permissions(&zeek, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { prefix, site: Some(site) }
    }

    /// The program itself.
    pub fn program(&self) -> PathBuf {
        self.prefix.join("bin/zeek")
    }

    /// What it was installed below.
    pub fn prefix(&self) -> PathBuf {
        self.prefix.clone()
    }

    /// The settings of an agent that runs it.
    pub fn settings(&self) -> String {
        format!("[agent]\nzeek = '{}'\n", self.prefix.display())
    }

    /// Whether it is no stand-in.
    pub fn is_real(&self) -> bool {
        self.site.is_none()
    }
}

fn stand_in() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_watchpost")).with_file_name("examples").join("zeek-stand-in");
    assert!(program.exists(), "build it first: cargo build --example zeek-stand-in (a plain `cargo test` does)");
    program
}

/// The first of many ports on which nobody listens, and nobody will: below those that the kernel gives out. No other test
/// gets them, in whatever process: who has them holds the port behind them to its end.
pub fn ports() -> u16 {
    static HELD: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    const MANY: u16 = 149;
    let is_free = |port| TcpListener::bind(("127.0.0.1", port));
    let blocks = (0..120).map(|number| 12_000 + (std::process::id() % 120 + number) as u16 % 120 * (MANY + 1));
    let found = blocks.into_iter().find_map(|first| {
        let held = is_free(first + MANY).ok()?;
        (first..first + MANY).all(|port| is_free(port).is_ok()).then_some((first, held))
    });
    let (first, held) = found.expect("as many ports in a row that nobody has");
    HELD.lock().unwrap().push(held);
    first
}

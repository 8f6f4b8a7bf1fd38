//! What Zeek would object to, for whoever only asks: the files are rendered aside, and removed.

use std::fs;
use std::io;
use std::net::SocketAddr;

use super::prepare::{Look, networks};
use super::rendered::{Cluster, Generation, Store};
use super::{Launcher, Objection};
use crate::launch::{Site, Survey};

impl Launcher {
    /// Looks at the nodes, which are all Zeek's. Nothing comes into force, and no port is bound: `is_taken` knows. Two are not
    /// to be made side by side. Blocks for as long as Zeek takes to parse, which may be seconds.
    pub fn inspect(&self, site: &Site, survey: Survey, is_taken: &dyn Fn(SocketAddr) -> bool) -> Vec<Objection> {
        let Survey { zeek, layout, nodes, ours, host: _ } = survey;
        let store = Store::new(self.asked_about.clone());
        let rendered =
            networks(&zeek).and_then(|networks| self.render_aside(&store, &Cluster::new(&zeek, networks, layout)));
        let generation = match rendered {
            Ok(generation) => generation,
            Err(what) => return vec![Objection::of_all(what)],
        };
        let found = self.finder.find().map_err(Objection::of_all).and_then(|zeek| {
            let files = generation.files(zeek.version).map_err(Objection::of_all)?;
            Ok((zeek, files))
        });
        let objections = match found {
            Ok((zeek, files)) => {
                let look = Look { ours: &ours, is_taken, store: &store, only_asks: true };
                self.look_at(site, &nodes, look, &zeek, &files)
            }
            Err(objection) => vec![objection],
        };
        drop(generation);
        if let Err(error) = fs::remove_dir_all(&self.asked_about) {
            tracing::warn!("cannot remove {}: {error}", self.asked_about.display());
        }
        objections
    }

    /// What a run that was killed left there goes first.
    fn render_aside(&self, store: &Store, cluster: &Cluster) -> Result<Generation, String> {
        match fs::remove_dir_all(&self.asked_about) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", self.asked_about.display()))
            }
            // Nothing is launched by it, so it needs no keys.
            _ => store.begin(cluster, None).map_err(|error| error.to_string()),
        }
    }
}

//! What an agent lacks of the files of its nodes: asked for piece by piece, several at a time, until all of it is there.
//!
//! What has come stays when the link is lost, and when the agent ends. Nothing is believed before its digest was seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::bundle::tree::{self, Place, TreeError};
use crate::bundle::{BundleId, Digest, Incoming, LONGEST_MANIFEST, Store, StoreError};
use crate::message::agent::{BlobPiece, ReadBlobRequest, ReadBlobResponse};
use crate::model::RequestId;

/// How many pieces are asked for at a time: enough to have the link busy while others are written.
pub const WINDOW: usize = 8;
/// How long a piece is, in bytes.
pub const PIECE: u32 = 256 << 10;
/// How many different things may be waited for at a time.
const MOST_ORDERS: usize = 16;
/// How often a tree is begun anew because what it is made of was damaged.
const MOST_DAMAGE: u8 = 3;

/// Who is to hear that everything is there, or why it is not.
pub type Then = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What somebody waits for.
struct Order {
    /// What is to be laid out once everything is there.
    places: Vec<Place>,
    bundles: BTreeSet<BundleId>,
    /// Bundles of which it is not known yet what is in them.
    unread: BTreeSet<BundleId>,
    /// Contents that have yet to come.
    lacking: BTreeSet<Digest>,
    damage: u8,
    /// All who wait for just that.
    then: Vec<Then>,
}

/// A blob of which something was asked for.
struct Coming {
    /// Since its size is known.
    incoming: Option<Incoming>,
    /// How long it is; of a manifest that is known once something of it has come.
    size: Option<u64>,
    /// Where the next piece begins that was not asked for.
    next: u64,
    /// Whether something of it was here.
    resumed: bool,
    /// Pieces that came before others that belong before them.
    early: BTreeMap<u64, Vec<u8>>,
}

/// See the module.
pub struct Fetcher {
    store: Store,
    orders: Vec<Order>,
    /// Blobs that nothing was asked of yet, with their sizes, unless these are not known.
    waiting: VecDeque<(Digest, Option<u64>)>,
    coming: BTreeMap<Digest, Coming>,
    /// What was asked for, and has not come.
    asked: BTreeMap<RequestId, (Digest, u64)>,
    next_request: u64,
    linked: bool,
    /// What is needed from here on; all else goes once nobody waits any more.
    needed: Option<BTreeSet<BundleId>>,
}

impl Fetcher {
    pub fn new(store: Store) -> Self {
        let (orders, waiting, coming, asked) = Default::default();
        Self { store, orders, waiting, coming, asked, next_request: 0, linked: false, needed: None }
    }

    /// Gets these bundles, has them laid out where they are wanted, and tells `then`. What is laid out is not fetched again.
    pub fn have(&mut self, bundles: BTreeSet<BundleId>, places: Vec<Place>, then: Then) -> Vec<ReadBlobRequest> {
        let places: Vec<Place> = places.into_iter().filter(|place| !place.tree().is_dir()).collect();
        let bundles: BTreeSet<BundleId> = places.iter().map(|place| place.bundle).chain(bundles).collect();
        let is_same = |order: &&mut Order| (&order.places, &order.bundles) == (&places, &bundles);
        // Whoever asks again over a new link waits with the first.
        if let Some(same) = self.orders.iter_mut().find(is_same) {
            same.then.push(then);
            return Vec::new();
        }
        if self.orders.len() >= MOST_ORDERS {
            then(Err(format!("{MOST_ORDERS} others wait for files already: try again in a while")));
            return Vec::new();
        }
        let unread = bundles.clone();
        self.orders.push(Order { places, bundles, unread, lacking: BTreeSet::new(), damage: 0, then: vec![then] });
        self.go_on()
    }

    /// There is a new link: what was under way on a former one is asked for again.
    pub fn link_up(&mut self) -> Vec<ReadBlobRequest> {
        self.link_down();
        self.linked = true;
        self.go_on()
    }

    pub fn link_down(&mut self) {
        self.linked = false;
        self.asked.clear();
        let coming = std::mem::take(&mut self.coming);
        coming.into_iter().for_each(|(digest, Coming { size, .. })| self.waiting.push_front((digest, size)));
    }

    /// A piece has come, or will not.
    pub fn piece(&mut self, ReadBlobResponse { reqid, piece }: ReadBlobResponse) -> Vec<ReadBlobRequest> {
        let Some((digest, at)) = self.asked.remove(&reqid) else { return Vec::new() };
        if let Err(why) = piece.and_then(|piece| self.take(digest, at, piece)) {
            self.give_up(digest, &why);
        }
        self.go_on()
    }

    /// Lets go of what is in none of these bundles, as soon as nobody waits for files.
    pub fn retain(&mut self, bundles: BTreeSet<BundleId>) {
        self.needed = Some(bundles);
        self.let_go();
    }

    fn let_go(&mut self) {
        let Some(bundles) = self.needed.take_if(|_| self.orders.is_empty()) else { return };
        let mut keep: BTreeSet<Digest> = bundles.iter().map(|id| id.digest()).collect();
        for id in bundles {
            // One that is not here has nothing here to keep.
            if let Ok(manifest) = self.store.manifest(id) {
                keep.extend(manifest.files().map(|(_, _, digest)| digest));
            }
        }
        if let Err(error) = self.store.retain(&keep, std::time::Duration::ZERO) {
            tracing::warn!("{error}");
        }
    }

    fn take(&mut self, digest: Digest, at: u64, BlobPiece { total, bytes }: BlobPiece) -> Result<(), String> {
        let Some(coming) = self.coming.get_mut(&digest) else { return Ok(()) };
        match coming.size {
            Some(size) if size != total => {
                return Err(format!("the controller has {total} bytes of {digest}, and it has {size}"));
            }
            None if total > LONGEST_MANIFEST as u64 => {
                return Err(format!("{digest} has {total} bytes, and no list of files has as many"));
            }
            _ => coming.size = Some(total),
        }
        if bytes.len() as u64 != total.saturating_sub(at).min(PIECE.into()) {
            return Err(format!("of the {total} bytes of {digest} the controller sent {} from {at} on", bytes.len()));
        }
        if coming.incoming.is_none() {
            let begun = self.store.begin(digest, total).map_err(|error| error.to_string())?;
            if begun.at() < at {
                coming.next = begun.at(); // what was here is no beginning of it, and is gone
            }
            coming.incoming = Some(begun);
        }
        let Some(incoming) = &mut coming.incoming else { return Ok(()) };
        coming.early.insert(at, bytes);
        while let Some(bytes) = coming.early.remove(&incoming.at()) {
            incoming.write(&bytes).map_err(|error| error.to_string())?;
            if bytes.is_empty() {
                break;
            }
        }
        if incoming.is_whole()
            && let Some(Coming { incoming: Some(incoming), size, resumed, .. }) = self.coming.remove(&digest)
        {
            match incoming.finish() {
                Ok(()) => self.has_come(digest),
                // What was here of it was damaged, and is gone.
                Err(StoreError::Wrong { .. }) if resumed => self.waiting.push_front((digest, size)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn has_come(&mut self, digest: Digest) {
        for order in &mut self.orders {
            order.lacking.remove(&digest);
        }
    }

    /// Whoever waits for it waits in vain.
    fn give_up(&mut self, digest: Digest, why: &str) {
        self.coming.remove(&digest);
        self.waiting.retain(|(waiting, _)| *waiting != digest);
        let needs = |order: &mut Order| {
            order.lacking.contains(&digest) || order.unread.iter().any(|bundle| bundle.digest() == digest)
        };
        for Order { then, bundles, .. } in self.orders.extract_if(.., needs) {
            let bundles: Vec<String> = bundles.iter().map(BundleId::to_string).collect();
            let why = format!("cannot get the files of {}: {why}", bundles.join(", "));
            then.into_iter().for_each(|then| then(Err(why.clone())));
        }
    }

    /// Sees what is there and what is lacking, and asks for as much as may be under way.
    fn go_on(&mut self) -> Vec<ReadBlobRequest> {
        loop {
            self.read_manifests();
            if !self.lay_out() {
                break;
            }
        }
        self.let_go();
        self.ask()
    }

    /// What is in bundles whose manifests are there is wanted, as far as it is not there.
    fn read_manifests(&mut self) {
        if self.orders.iter().all(|order| order.unread.is_empty()) {
            return;
        }
        let mut known: BTreeSet<Digest> = self.waiting.iter().map(|(digest, _)| *digest).collect();
        known.extend(self.coming.keys());
        let mut failed = Vec::new();
        for order in &mut self.orders {
            let mut want = |digest, size| {
                if known.insert(digest) {
                    self.waiting.push_back((digest, size));
                }
            };
            for id in std::mem::take(&mut order.unread) {
                match self.store.manifest(id) {
                    Ok(manifest) => {
                        for (_, size, digest) in manifest.files().filter(|(_, _, digest)| !self.store.has(*digest)) {
                            order.lacking.insert(digest);
                            want(digest, Some(size));
                        }
                    }
                    // What was damaged is not there any more.
                    Err(StoreError::Absent(_) | StoreError::Wrong { .. }) => {
                        order.unread.insert(id);
                        want(id.digest(), None);
                    }
                    Err(error) => {
                        order.unread.insert(id);
                        failed.push((id.digest(), error.to_string()));
                    }
                }
            }
        }
        failed.iter().for_each(|(digest, why)| self.give_up(*digest, why));
    }

    /// Lays out what is complete. True if something of it was damaged, and is lacking again.
    fn lay_out(&mut self) -> bool {
        let is_complete = |order: &mut Order| order.unread.is_empty() && order.lacking.is_empty();
        let mut lacks_again = false;
        for mut order in self.orders.extract_if(.., is_complete).collect::<Vec<_>>() {
            let made = order
                .places
                .iter()
                .try_for_each(|place| tree::make(&self.store, place).map_err(|error| (place.bundle, error)));
            match made {
                Ok(()) => order.then.into_iter().for_each(|then| then(Ok(()))),
                Err((_, TreeError::Store(StoreError::Wrong { .. } | StoreError::Absent(_))))
                    if order.damage < MOST_DAMAGE =>
                {
                    order.damage += 1;
                    self.throw_away_what_is_damaged(&order.bundles);
                    order.unread.clone_from(&order.bundles);
                    self.orders.push(order);
                    lacks_again = true;
                }
                Err((bundle, error)) => {
                    let why = format!("cannot lay out the files of {bundle}: {error}");
                    order.then.into_iter().for_each(|then| then(Err(why.clone())));
                }
            }
        }
        lacks_again
    }

    /// Where one content was damaged others may be, as after a power cut: all of them come again at once.
    fn throw_away_what_is_damaged(&self, bundles: &BTreeSet<BundleId>) {
        let manifests = bundles.iter().filter_map(|bundle| self.store.manifest(*bundle).ok());
        for manifest in manifests {
            // Looking through it is what throws it away.
            manifest.files().for_each(|(_, _, digest)| drop(self.store.copy(digest, std::io::sink())));
        }
    }

    fn ask(&mut self) -> Vec<ReadBlobRequest> {
        let mut asks = Vec::new();
        while self.linked && self.asked.len() < WINDOW {
            let Some((digest, at)) = self.next_piece() else { break };
            self.next_request += 1;
            // Six letters and twenty digits at most.
            let reqid = RequestId::new(&format!("blob-{}", self.next_request)).expect("a short printable id");
            self.asked.insert(reqid.clone(), (digest, at));
            asks.push(ReadBlobRequest { reqid, digest, at, most: PIECE });
        }
        asks
    }

    /// What is asked for next: more of what is coming, or the beginning of something else.
    fn next_piece(&mut self) -> Option<(Digest, u64)> {
        let more = self.coming.iter_mut().find(|(_, coming)| coming.size.is_some_and(|size| coming.next < size));
        if let Some((digest, coming)) = more {
            let at = coming.next;
            coming.next += u64::from(PIECE);
            return Some((*digest, at));
        }
        loop {
            let (digest, size) = self.waiting.pop_front()?;
            let is_wanted = self.orders.iter().any(|order| {
                order.lacking.contains(&digest) || order.unread.iter().any(|bundle| bundle.digest() == digest)
            });
            if is_wanted {
                let at = self.store.come(digest);
                // More than it can be is not the beginning of it.
                let at = if size.is_some_and(|size| at > size) { 0 } else { at };
                let next = at + u64::from(PIECE);
                let coming = Coming { incoming: None, size, next, resumed: at > 0, early: BTreeMap::new() };
                self.coming.insert(digest, coming);
                return Some((digest, at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{self, Receiver};

    use proptest::prelude::*;

    use super::*;
    use crate::bundle::{Entry, Kind, Manifest};

    /// A controller that has everything, an agent that has nothing, and what is under way between them.
    struct Scene {
        home: tempfile::TempDir,
        theirs: Store,
        fetcher: Fetcher,
        asked: Vec<ReadBlobRequest>,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let theirs = Store::open(home.path().join("theirs")).unwrap();
            let fetcher = Fetcher::new(Store::open(home.path().join("ours")).unwrap());
            let mut scene = Self { home, theirs, fetcher, asked: Vec::new() };
            scene.asked = scene.fetcher.link_up();
            scene
        }

        fn bundle(&self, files: &[(&str, &[u8])]) -> BundleId {
            let entry = |(path, content): &(&str, &[u8])| {
                let digest = self.theirs.put(content).unwrap();
                let kind = Kind::File { size: content.len() as u64, digest };
                Entry { path: path.parse().unwrap(), mode: 0o644, modified: 0, kind }
            };
            let manifest = Manifest::new(files.iter().map(entry).collect()).unwrap();
            self.theirs.put(&manifest.encode()).unwrap();
            manifest.id()
        }

        fn place(&self, node: &str, bundle: BundleId) -> Place {
            Place { home: self.home.path().join(node), bundle, reader: None }
        }

        fn have(&mut self, places: &[Place]) -> Receiver<Result<(), String>> {
            let (told, hears) = mpsc::channel();
            let then = Box::new(move |had| told.send(had).unwrap());
            let asks = self.fetcher.have(BTreeSet::new(), places.to_vec(), then);
            self.asked.extend(asks);
            hears
        }

        fn answer(&mut self, at: usize) {
            let ReadBlobRequest { reqid, digest, at, most } = self.asked.remove(at);
            let read = self.theirs.read(digest, at, most as usize);
            let piece = read.map(|(total, bytes)| BlobPiece { total, bytes }).map_err(|error| error.to_string());
            let asks = self.fetcher.piece(ReadBlobResponse { reqid, piece });
            self.asked.extend(asks);
            assert!(self.asked.len() <= WINDOW);
        }

        /// Answers all that is asked, and counts it.
        fn answer_all(&mut self) -> usize {
            let mut count = 0;
            while !self.asked.is_empty() {
                self.answer(0);
                count += 1;
            }
            count
        }
    }

    #[test]
    fn what_is_lacking_is_fetched_and_laid_out_and_nothing_is_fetched_twice() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..3 * PIECE + 5).map(|byte| byte as u8).collect();
        let id = scene.bundle(&[("long", &long), ("short", b"x"), ("again", b"x"), ("empty", b"")]);
        let places = [scene.place("a", id), scene.place("b", id)];
        let had = scene.have(&places);
        assert_eq!(scene.answer_all(), 1 + 4 + 1 + 1, "the manifest, and each content once");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        for place in &places {
            assert!(fs::read(place.tree().join("long")).unwrap() == long);
            assert_eq!(fs::read(place.tree().join("again")).unwrap(), b"x");
            assert_eq!(fs::read(place.tree().join("empty")).unwrap(), b"");
        }
        let other = scene.bundle(&[("long", &long), ("short", b"y")]);
        let place = scene.place("a", other);
        let had = scene.have(&[place]);
        assert_eq!(scene.answer_all(), 2, "the manifest, and what differs");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        let had = scene.have(&places);
        assert_eq!((had.try_recv().unwrap(), scene.asked.len()), (Ok(()), 0));
    }

    #[test]
    fn what_was_under_way_on_a_link_that_is_lost_is_gone_on_with_on_the_next() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..20 * PIECE).map(|byte| (byte / 7) as u8).collect();
        let id = scene.bundle(&[("long", &long)]);
        let place = scene.place("a", id);
        let had = scene.have(std::slice::from_ref(&place));
        (0..9).for_each(|_| scene.answer(0));
        assert_eq!(scene.asked.len(), WINDOW);
        scene.fetcher.link_down();
        let late = std::mem::take(&mut scene.asked);
        scene.asked = scene.fetcher.link_up();
        for ReadBlobRequest { reqid, .. } in late {
            let piece = Err("nobody waits for it any more".into());
            assert!(scene.fetcher.piece(ReadBlobResponse { reqid, piece }).is_empty());
        }
        assert_eq!(scene.answer_all(), 20 - 8, "what had come is not asked for again");
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        assert!(fs::read(place.tree().join("long")).unwrap() == long);
    }

    #[test]
    fn another_run_of_the_agent_goes_on_where_the_first_was_killed() {
        let mut scene = Scene::new();
        let long: Vec<u8> = (0..6 * PIECE).map(|byte| (byte / 3) as u8).collect();
        let id = scene.bundle(&[("long", &long)]);
        let place = scene.place("a", id);
        let _had = scene.have(std::slice::from_ref(&place));
        (0..4).for_each(|_| scene.answer(0));
        scene.fetcher = Fetcher::new(Store::open(scene.home.path().join("ours")).unwrap());
        scene.asked = scene.fetcher.link_up();
        let had = scene.have(std::slice::from_ref(&place));
        assert_eq!(scene.answer_all(), 3);
        assert_eq!(had.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn what_is_damaged_here_is_fetched_again_and_what_is_damaged_there_is_refused() {
        let mut scene = Scene::new();
        let id = scene.bundle(&[("f", b"content")]);
        let blob = |whose: &str| scene.home.path().join(whose).join(Digest::of(b"content").to_string());
        let (ours, theirs) = (blob("ours"), blob("theirs"));
        let place = |scene: &Scene, node: &str| vec![scene.place(node, id)];
        let had = scene.have(&place(&scene, "a"));
        scene.answer_all();
        assert_eq!(had.try_recv().unwrap(), Ok(()));
        fs::remove_file(&ours).unwrap();
        fs::write(&ours, "contemn").unwrap();
        let had = scene.have(&place(&scene, "b"));
        assert_eq!((scene.answer_all(), had.try_recv().unwrap()), (1, Ok(())));
        for path in [&ours, &theirs] {
            fs::remove_file(path).unwrap();
        }
        fs::write(&theirs, "contemn").unwrap();
        let had = scene.have(&place(&scene, "c"));
        scene.answer_all();
        let error = had.try_recv().unwrap().unwrap_err();
        assert!(error.contains("is something else: its digest is"), "{error}");
        fs::remove_file(&theirs).unwrap();
        let had = scene.have(&place(&scene, "c"));
        scene.answer_all();
        let error = had.try_recv().unwrap().unwrap_err();
        assert!(error.ends_with("is not here") && error.contains(&id.to_string()), "{error}");
    }

    #[test]
    fn however_much_is_damaged_all_of_it_is_fetched_again() {
        let mut scene = Scene::new();
        let contents: Vec<[u8; 1]> = (0..20).map(|number| [number]).collect();
        let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(String::as_str).zip(contents.iter().map(|it| &it[..])).collect();
        let id = scene.bundle(&files);
        let place = scene.place("a", id);
        let _had = scene.have(&[place]);
        scene.answer_all();
        for content in &contents {
            let path = scene.home.path().join("ours").join(Digest::of(content).to_string());
            fs::remove_file(&path).unwrap();
            fs::write(path, "").unwrap();
        }
        let place = scene.place("b", id);
        let had = scene.have(&[place]);
        assert_eq!((scene.answer_all(), had.try_recv().unwrap()), (20, Ok(())));
    }

    #[test]
    fn what_was_left_of_a_transfer_and_is_no_beginning_of_it_is_begun_anew() {
        let mut scene = Scene::new();
        let id = scene.bundle(&[("f", b"content")]);
        let ours = |digest: Digest| scene.home.path().join("ours").join(format!("{digest}.part"));
        fs::write(ours(id.digest()), vec![0; 9_000]).unwrap();
        fs::write(ours(Digest::of(b"content")), b"cont!").unwrap();
        let place = scene.place("a", id);
        let had = scene.have(&[place]);
        scene.answer_all();
        assert_eq!(had.try_recv().unwrap(), Ok(()));
    }

    #[test]
    fn a_controller_that_sends_what_it_was_not_asked_for_is_not_believed() {
        let content = vec![7; PIECE as usize + 9];
        let digest = Digest::of(&content);
        for (total, length) in [(PIECE as u64 + 8, PIECE as usize), (PIECE as u64 + 9, 5), (PIECE as u64 + 9, 0)] {
            let mut scene = Scene::new();
            let id = scene.bundle(&[("f", &content)]);
            let place = scene.place("a", id);
            let had = scene.have(&[place]);
            scene.answer(0);
            let ReadBlobRequest { reqid, .. } = scene.asked.remove(0);
            let piece = Ok(BlobPiece { total, bytes: vec![7; length] });
            scene.fetcher.piece(ReadBlobResponse { reqid, piece });
            let error = had.try_recv().unwrap().unwrap_err();
            assert!(error.contains(&digest.to_string()), "{error}");
            assert!(scene.fetcher.orders.is_empty() && scene.fetcher.coming.is_empty());
        }
    }

    #[test]
    fn who_comes_behind_too_many_is_told_and_who_asks_for_the_same_waits_with_the_first() {
        let mut scene = Scene::new();
        let ids: Vec<_> = (0..=MOST_ORDERS).map(|number| scene.bundle(&[("f", &[number as u8])])).collect();
        let places: Vec<_> = ids.into_iter().map(|id| scene.place("a", id)).collect();
        let first = [places[0].clone()];
        let waits: Vec<_> = places.into_iter().map(|place| scene.have(&[place])).collect();
        assert!(waits[MOST_ORDERS].try_recv().unwrap().is_err());
        let again = scene.have(&first);
        scene.answer_all();
        assert!(waits[..MOST_ORDERS].iter().chain([&again]).all(|wait| wait.try_recv() == Ok(Ok(()))));
    }

    #[test]
    fn what_no_bundle_has_goes_unless_somebody_waits() {
        let mut scene = Scene::new();
        let [old, new] = [b"old", b"new"].map(|content| scene.bundle(&[("f", content)]));
        for id in [old, new] {
            let place = scene.place("a", id);
            let _had = scene.have(&[place]);
            scene.answer_all();
        }
        let waits = scene.bundle(&[("f", b"more")]);
        let place = scene.place("a", waits);
        let _had = scene.have(&[place]);
        scene.fetcher.retain([new, waits].into());
        let has = |scene: &Scene, content: &[u8]| scene.fetcher.store.has(Digest::of(content));
        assert!(has(&scene, b"old"), "somebody waits");
        scene.answer_all();
        assert_eq!([b"old".as_slice(), b"new", b"more"].map(|content| has(&scene, content)), [false, true, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// In whatever order pieces come, and however often the link is lost.
        #[test]
        fn all_of_it_comes_whatever_becomes_of_links(choices in prop::collection::vec(0_u8..20, 0..80)) {
            let mut scene = Scene::new();
            let content = |number: u8, size: u32| (0..size).map(|byte| byte as u8 ^ number).collect::<Vec<u8>>();
            let contents = [content(1, 3 * PIECE), content(2, PIECE + 1), content(3, 0), content(4, 100)];
            let files: Vec<(String, &[u8])> =
                contents.iter().enumerate().map(|(at, content)| (format!("f{at}"), &content[..])).collect();
            let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (&name[..], *content)).collect();
            let place = scene.place("a", scene.bundle(&files));
            let had = scene.have(std::slice::from_ref(&place));
            for choice in choices {
                match choice {
                    0 => {
                        scene.fetcher.link_down();
                        scene.asked = scene.fetcher.link_up();
                    }
                    at if !scene.asked.is_empty() => scene.answer(usize::from(at) % scene.asked.len()),
                    _ => {}
                }
            }
            scene.answer_all();
            prop_assert_eq!(had.try_recv(), Ok(Ok(())));
            for (name, content) in files {
                prop_assert!(fs::read(place.tree().join(name)).unwrap() == content);
            }
        }
    }
}

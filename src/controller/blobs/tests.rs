use std::fs::{self, FileTimes};
use std::time::{Duration, SystemTime};

use super::*;
use crate::bundle::{Entry, Kind, scan};

struct Place {
    directory: tempfile::TempDir,
    blobs: Blobs,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("site")).unwrap();
        fs::write(directory.path().join("site/a"), "first").unwrap();
        fs::write(directory.path().join("site/b"), "second").unwrap();
        let blobs = Blobs::open(&directory.path().join("blobs")).unwrap();
        Self { directory, blobs }
    }

    fn scan(&self) -> Scan {
        scan(self.directory.path(), &["site".into()]).unwrap()
    }

    fn path(&self, content: &str) -> PathBuf {
        self.blobs.path(Digest::of(content.as_bytes()))
    }
}

fn wanted(content: &[u8]) -> Wanted {
    Wanted { digest: Digest::of(content), size: content.len() as u64 }
}

fn send(blobs: &Blobs, content: &[u8]) -> Result<bool, BlobError> {
    let Wanted { digest, size } = wanted(content);
    blobs.receive(digest, size, 0)?.with(content)?.finish()
}

#[test]
fn what_was_taken_is_not_asked_for_again_and_can_be_read_in_parts() {
    let place = Place::new();
    let scan = place.scan();
    let id = scan.manifest.id();
    assert!(
        matches!(place.blobs.vouch(&BTreeSet::from([id]))[&id], BlobError::Absent(digest) if digest == id.digest())
    );
    place.blobs.take(&scan).unwrap();
    assert!(place.blobs.vouch(&BTreeSet::from([id])).is_empty());
    assert_eq!(place.blobs.missing(&[wanted(b"first"), wanted(b"third")]).unwrap().len(), 1);
    assert_eq!(place.blobs.list(id).unwrap(), scan.manifest);
    let piece = |offset, most| place.blobs.read(Digest::of(b"second"), offset, most).unwrap();
    assert_eq!((piece(0, 3), piece(3, 100)), ((6, b"sec".to_vec()), (6, b"ond".to_vec())));
    assert_eq!(piece(7, 100), (6, Vec::new()));
    let absent = place.blobs.read(Digest::of(b"third"), 0, 1).unwrap_err();
    assert!(matches!(absent, BlobError::Absent(_)));
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.path("first")), mode(&place.directory.path().join("blobs"))), (0o600, 0o700));
}

#[test]
fn what_was_cut_off_goes_on_where_it_ended_also_for_another_run() {
    let place = Place::new();
    let content = b"a longer text than the others";
    let Wanted { digest, size } = wanted(content);
    drop(place.blobs.receive(digest, size, 0).unwrap().with(&content[..10]).unwrap());
    let later = Blobs::open(&place.directory.path().join("blobs")).unwrap();
    assert_eq!(later.missing(&[wanted(content)]).unwrap(), [Missing { digest, size, offset: 10 }]);
    let elsewhere = later.receive(digest, size, 4).err().unwrap();
    assert_eq!(elsewhere.to_string(), "it goes on at byte 10, and not at 4");
    let incoming = later.receive(digest, size, 10).unwrap();
    assert!(incoming.with(&content[10..]).unwrap().finish().unwrap());
    assert_eq!(later.missing(&[wanted(content)]).unwrap(), []);
}

#[test]
fn what_is_not_what_it_is_called_is_thrown_away() {
    let place = Place::new();
    let Wanted { digest, size } = wanted(b"first");
    let error = place.blobs.receive(digest, size, 0).unwrap().with(b"worst").unwrap().finish().unwrap_err();
    assert!(matches!(error, BlobError::Other(_)), "{error}");
    assert_eq!(place.blobs.missing(&[wanted(b"first")]).unwrap(), [Missing { digest, size, offset: 0 }]);
    let error = place.blobs.receive(digest, size, 0).unwrap().with(b"first and more").err().unwrap();
    assert_eq!(error.to_string(), "more bytes came than its 5");
    let error = place.blobs.receive(digest, LONGEST_FILE + 1, 0).err().unwrap();
    assert!(matches!(error, BlobError::TooLong(_)), "{error}");
    assert!(
        !place.blobs.receive(digest, size, 0).unwrap().with(b"fi").unwrap().finish().unwrap(),
        "it is not whole yet"
    );
}

#[test]
fn of_two_who_send_the_same_the_later_one_goes_on() {
    let place = Place::new();
    let Wanted { digest, size } = wanted(b"first");
    let early = place.blobs.receive(digest, size, 0).unwrap().with(b"fi").unwrap();
    let late = place.blobs.receive(digest, size, early.at()).unwrap();
    assert!(matches!(early.with(b"rst").err().unwrap(), BlobError::Overtaken));
    assert!(late.with(b"rst").unwrap().finish().unwrap());
}

#[test]
fn damage_on_disk_is_found_also_by_another_run_and_the_file_comes_again() {
    let place = Place::new();
    let scan = place.scan();
    let id = scan.manifest.id();
    place.blobs.take(&scan).unwrap();
    fs::write(place.path("second"), "secund").unwrap();
    let later = Blobs::open(&place.directory.path().join("blobs")).unwrap();
    for blobs in [&place.blobs, &later] {
        fs::write(place.path("first"), "fürst").unwrap();
        assert!(matches!(blobs.vouch(&BTreeSet::from([id]))[&id], BlobError::Absent(_)));
        assert!(!place.path("first").exists());
        assert_eq!(blobs.missing(&[wanted(b"first")]).unwrap().len(), 1);
        blobs.take(&scan).unwrap();
        assert!(blobs.vouch(&BTreeSet::from([id])).is_empty());
    }
    fs::write(place.blobs.path(id.digest()), "no list").unwrap();
    assert!(matches!(later.list(id), Err(BlobError::Damaged(_))));
}

#[test]
fn a_bundle_that_is_no_well_formed_one_is_refused_whatever_its_name() {
    let place = Place::new();
    send(&place.blobs, b"anything").unwrap();
    let id = BundleId::new(Digest::of(b"anything"));
    let error = place.blobs.vouch(&BTreeSet::from([id])).remove(&id).unwrap();
    assert!(error.to_string().starts_with(&format!("the list of files of {id} cannot be used: ")), "{error}");
    // Somebody calls a file longer than it is.
    let kind = Kind::File { size: 9, digest: Digest::of(b"anything") };
    let entry = Entry { path: "a".parse().unwrap(), mode: 0o644, modified: 0, kind };
    let manifest = Manifest::new(vec![entry]).unwrap();
    send(&place.blobs, &manifest.encode()).unwrap();
    let wrong = place.blobs.vouch(&BTreeSet::from([manifest.id()]));
    assert!(matches!(wrong[&manifest.id()], BlobError::Absent(_)));
}

#[test]
fn what_nobody_names_goes_after_a_day_and_what_is_named_stays() {
    let place = Place::new();
    let scan = place.scan();
    place.blobs.take(&scan).unwrap();
    send(&place.blobs, b"old").unwrap();
    send(&place.blobs, b"new").unwrap();
    let Wanted { digest, size } = wanted(b"begun");
    drop(place.blobs.receive(digest, size, 0).unwrap().with(b"be").unwrap());
    let now = SystemTime::now() + STAYS + Duration::from_secs(60);
    let file = fs::File::options().write(true).open(place.path("new")).unwrap();
    file.set_times(FileTimes::new().set_accessed(now - Duration::from_secs(9))).unwrap();
    let named = BTreeSet::from([scan.manifest.id()]);
    assert_eq!(place.blobs.collect(&named, SystemTime::now()).unwrap(), 0, "it may be named soon");
    let later = Blobs::open(&place.directory.path().join("blobs")).unwrap();
    assert_eq!(later.collect(&named, now).unwrap(), 2);
    assert!(later.vouch(&named).is_empty());
    assert!(place.path("new").exists() && !place.path("old").exists());
    assert_eq!(later.missing(&[wanted(b"begun")]).unwrap()[0].offset, 0);
    assert_eq!(later.collect(&BTreeSet::new(), now + STAYS).unwrap(), 4);
}

#[test]
fn without_room_nothing_is_begun() {
    let place = Place::new();
    let free = crate::bundle::disk::free(place.directory.path()).unwrap();
    assert!(place.blobs.spare(1).is_ok());
    let error = place.blobs.spare(free).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("there is no room for {free} bytes of files on the controller's disk")),
        "{error}"
    );
}

#[test]
fn who_called_a_blob_longer_than_it_is_does_not_go_on_once_somebody_knows_better() {
    let place = Place::new();
    let Wanted { digest, size } = wanted(b"content");
    let wrong = place.blobs.receive(digest, size + 9, 0).unwrap().with(b"content and").unwrap();
    let missing = place.blobs.missing(&[wanted(b"content")]).unwrap();
    assert_eq!(missing, [Missing { digest, size, offset: 0 }]);
    assert!(matches!(wrong.with(b"more"), Err(BlobError::Overtaken)));
    assert!(send(&place.blobs, b"content").unwrap());
}

#[test]
fn whoever_needs_to_be_sure_waits_for_whoever_has_the_disk_make_sure() {
    let place = Place::new();
    let id = place.scan().manifest.id();
    place.blobs.take(&place.scan()).unwrap();
    let makes_sure = place.blobs.0.makes_sure.lock().unwrap();
    let (vouched, is_vouched) = std::sync::mpsc::channel();
    let blobs = place.blobs.clone();
    let vouches = std::thread::spawn(move || vouched.send(blobs.vouch(&BTreeSet::from([id])).len()).unwrap());
    assert!(is_vouched.recv_timeout(Duration::from_millis(50)).is_err(), "it is not sure yet");
    drop(makes_sure);
    assert_eq!(is_vouched.recv(), Ok(0));
    vouches.join().unwrap();
}

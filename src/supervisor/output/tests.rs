use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::read::{Scope, place_of_last, read};
use super::rotate::{Carved, Disk, Lock, Step, ThisDisk, carve, close, free_again, pack, prune};
use super::shelf::{PAST, Shelf};
use super::*;
use crate::model::{InstanceName, Node, NodeName, OutputPiece as Piece, OutputPlace, OutputRules, OutputWish, Role};

const STREAM: OutputStream = OutputStream::Stdout;

/// A node that numbers its lines.
struct Writer {
    home: tempfile::TempDir,
    lock: Lock,
    file: RefCell<Option<File>>,
    lines: RefCell<u64>,
}

impl Writer {
    fn new() -> Self {
        let (home, lock) = (tempfile::tempdir().unwrap(), Lock::default());
        Self { home, lock, file: RefCell::default(), lines: RefCell::default() }
    }

    /// Writes so many more lines, to the file that it opened when its life began.
    fn write(&self, lines: u64) {
        let open = || OpenOptions::new().append(true).create(true).open(self.home.path().join("stdout")).unwrap();
        let mut file = self.file.borrow_mut();
        let file = file.get_or_insert_with(open);
        for _ in 0..lines {
            *self.lines.borrow_mut() += 1;
            file.write_all(format!("line {}\n", self.lines.borrow()).as_bytes()).unwrap();
        }
    }

    fn begin_life(&self) {
        *self.file.borrow_mut() = None;
        begin_life(self.home.path(), &self.lock).unwrap();
    }

    fn carve(&self, rules: &OutputRules, disk: &impl Disk) -> io::Result<Carved> {
        carve(self.home.path(), STREAM, rules, &self.lock, disk)
    }

    fn read_from(&self, place: OutputPlace, most: usize) -> (String, OutputPlace) {
        let (mut place, mut opened, mut text) = (place, None, Vec::new());
        loop {
            let piece = read(self.home.path(), STREAM, place, most, &self.lock, &mut opened).unwrap();
            assert!(!piece.skipped, "{piece:?}");
            text.extend(piece.bytes);
            place = piece.next;
            if piece.at_end {
                return (String::from_utf8(text).unwrap(), place);
            }
        }
    }

    fn check_that_all_is_there(&self, context: &str) {
        let want: String = (1..=*self.lines.borrow()).map(|line| format!("line {line}\n")).collect();
        assert_eq!(self.read_from(OutputPlace::default(), 100).0, want, "{context}");
        assert_eq!(self.read_from(OutputPlace::default(), 1 << 20).0, want, "{context}");
    }
}

/// A file system that may not know holes, under an agent that is killed at a step.
struct Failing {
    at: Option<Step>,
    knows_holes: bool,
}

impl Disk for Failing {
    fn free(&self, file: &File, up_to: u64) -> io::Result<bool> {
        if self.knows_holes { ThisDisk.free(file, up_to) } else { Ok(false) }
    }

    fn reached(&self, step: Step) -> io::Result<()> {
        if self.at == Some(step) { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

fn rules(max_bytes: u64, compress: bool) -> OutputRules {
    OutputRules { max_bytes, compress, keep_files: 1000, ..OutputRules::default() }
}

#[test]
fn at_whatever_step_a_rotation_ends_no_line_is_lost_and_none_doubled() {
    let steps =
        [None, Some(Step::Begun), Some(Step::Copied), Some(Step::Named), Some(Step::Freed), Some(Step::Emptied)];
    for (at, knows_holes, compress, new_life) in steps.into_iter().flat_map(|at| {
        [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .flat_map(move |(holes, compress)| [true, false].map(|new_life| (at, holes, compress, new_life)))
    }) {
        let context = format!("{at:?}, holes {knows_holes}, compressed {compress}, new life {new_life}");
        let writer = Writer::new();
        let (rules, disk) = (rules(150, compress), Failing { at, knows_holes });
        let whole = Failing { at: None, knows_holes };
        writer.begin_life();
        for round in 0..3 {
            writer.write(20);
            let killed = loop {
                match writer.carve(&rules, &disk) {
                    Ok(Carved::Piece) => {}
                    Ok(Carved::Nothing) => break false,
                    Err(error) => break error.to_string() == "killed",
                }
            };
            assert!(at.is_none() || killed || !knows_holes || at == Some(Step::Emptied), "{context}");
            writer.check_that_all_is_there(&context);
            writer.write(3);
            writer.check_that_all_is_there(&context);
            // The next agent.
            free_again(writer.home.path(), STREAM, &whole).unwrap();
            while writer.carve(&rules, &whole).unwrap() == Carved::Piece {}
            if new_life && round % 2 == 0 {
                writer.begin_life();
            }
            pack(writer.home.path(), STREAM).unwrap();
            writer.check_that_all_is_there(&context);
        }
    }
}

#[test]
fn what_is_put_aside_takes_no_room_in_its_old_place() {
    let writer = Writer::new();
    writer.write(100_000);
    let blocks = || fs::metadata(writer.home.path().join("stdout")).unwrap().blocks();
    let (before, length) = (blocks(), fs::metadata(writer.home.path().join("stdout")).unwrap().len());
    while writer.carve(&rules(64 << 10, true), &ThisDisk).unwrap() == Carved::Piece {}
    assert!(blocks() * 4 < before, "{} of {before}", blocks());
    assert_eq!(fs::metadata(writer.home.path().join("stdout")).unwrap().len(), length);
    writer.check_that_all_is_there("freed");
    assert_eq!(last_lines(writer.home.path(), 3, |_| Scope::All, &writer.lock).unwrap().stdout, {
        let last = [99_998, 99_999, 100_000].map(|line| format!("line {line}\n"));
        last.concat()
    });
}

#[test]
fn a_life_that_ends_while_its_output_is_copied_is_put_aside_once() {
    struct Overtaken<'a>(&'a Writer);
    impl Disk for Overtaken<'_> {
        fn free(&self, _: &File, _: u64) -> io::Result<bool> {
            panic!("nothing is to be freed")
        }
        fn reached(&self, step: Step) -> io::Result<()> {
            if step == Step::Copied {
                self.0.begin_life();
                self.0.write(5);
            }
            Ok(())
        }
    }
    let writer = Writer::new();
    writer.write(100);
    assert_eq!(writer.carve(&rules(500, true), &Overtaken(&writer)).unwrap(), Carved::Piece);
    writer.check_that_all_is_there("overtaken");
    assert!(!writer.home.path().join(PAST).join(".new-stdout").exists());
}

#[test]
fn whoever_follows_gets_every_line_once_through_rotations_and_lives() {
    let writer = Writer::new();
    let (mut place, mut text) = (OutputPlace::default(), String::new());
    for round in 0..40 {
        writer.write(7);
        if round % 3 == 0 {
            writer.carve(&rules(60, round % 2 == 0), &ThisDisk).unwrap();
        }
        if round % 5 == 4 {
            writer.begin_life();
        }
        if round % 2 == 1 {
            let (more, next) = writer.read_from(place, 50);
            text += &more;
            place = next;
        }
    }
    text += &writer.read_from(place, 50).0;
    let want: String = (1..=280).map(|line| format!("line {line}\n")).collect();
    assert_eq!(text, want);
}

#[test]
fn the_last_lines_are_found_across_everything_that_is_kept() {
    let writer = Writer::new();
    for _ in 0..4 {
        writer.write(40);
        writer.carve(&rules(200, true), &ThisDisk).unwrap();
        writer.begin_life();
    }
    writer.write(5);
    for lines in [0, 1, 4, 5, 6, 30, 41, 100, 165, 1000] {
        let place = place_of_last(writer.home.path(), STREAM, lines, u64::MAX, Scope::All, &writer.lock).unwrap();
        let first = 165_u64.saturating_sub(lines as u64) + 1;
        let want: String = (first..=165).map(|line| format!("line {line}\n")).collect();
        assert_eq!(writer.read_from(place, 1 << 16).0, want, "{lines}");
    }
    let of_life = place_of_last(writer.home.path(), STREAM, 100, u64::MAX, Scope::Volume(3), &writer.lock).unwrap();
    assert!(writer.read_from(of_life, 1 << 16).0.starts_with("line 81\n"));
}

#[test]
fn what_is_not_kept_any_more_is_said_to_be_skipped() {
    let writer = Writer::new();
    writer.write(100);
    let (_, early) =
        ((), read(writer.home.path(), STREAM, OutputPlace::default(), 10, &writer.lock, &mut None).unwrap().next);
    while writer.carve(&rules(100, false), &ThisDisk).unwrap() == Carved::Piece {}
    prune(writer.home.path(), &OutputRules { keep_files: 2, ..rules(100, false) }).unwrap();
    assert_eq!(Shelf::read(writer.home.path(), STREAM).unwrap().kept.len(), 2);
    let piece = read(writer.home.path(), STREAM, early, 1000, &writer.lock, &mut None).unwrap();
    assert!(piece.skipped && piece.place > early && piece.bytes.starts_with(b"line "), "{piece:?}");
    let beyond = OutputPlace { volume: 9, offset: 1 };
    let Piece { skipped, place, .. } = read(writer.home.path(), STREAM, beyond, 10, &writer.lock, &mut None).unwrap();
    assert!(skipped && place < beyond, "it speaks of other files than these");
}

#[test]
fn the_oldest_go_first_and_the_newest_stays() {
    let writer = Writer::new();
    writer.write(200);
    while writer.carve(&rules(300, false), &ThisDisk).unwrap() == Carved::Piece {}
    let newest = Shelf::read(writer.home.path(), STREAM).unwrap().kept.last().unwrap().kept.clone();
    prune(writer.home.path(), &OutputRules { keep_bytes: 0, ..rules(300, false) }).unwrap();
    let left: Vec<_> =
        Shelf::read(writer.home.path(), STREAM).unwrap().kept.into_iter().map(|left| left.kept).collect();
    assert_eq!(left, [newest]);
    writer.write(1);
    assert!(writer.read_from(left[0].until(), 1000).0.ends_with("line 201\n"), "places still count on");
}

#[test]
fn a_file_that_somebody_else_cut_begins_anew() {
    let writer = Writer::new();
    writer.write(50);
    while writer.carve(&rules(100, true), &ThisDisk).unwrap() == Carved::Piece {}
    let (before, place) = writer.read_from(OutputPlace::default(), 1 << 16);
    OpenOptions::new().write(true).open(writer.home.path().join("stdout")).unwrap().set_len(0).unwrap();
    writer.write(2);
    let (after, _) = writer.read_from(OutputPlace::default(), 1 << 16);
    assert_eq!(after, before.clone() + "line 51\nline 52\n");
    assert_eq!(writer.read_from(place, 1 << 16).0, "line 51\nline 52\n");
}

#[test]
fn a_line_longer_than_a_file_may_be_is_parted_and_one_that_is_not_whole_waits() {
    let writer = Writer::new();
    let path = writer.home.path().join("stdout");
    fs::write(&path, "x".repeat(99)).unwrap();
    assert_eq!(writer.carve(&rules(100, false), &ThisDisk).unwrap(), Carved::Nothing);
    fs::write(&path, "x".repeat(250)).unwrap();
    assert_eq!(writer.carve(&rules(100, false), &ThisDisk).unwrap(), Carved::Piece);
    assert_eq!(writer.read_from(OutputPlace::default(), 1000).0, "x".repeat(250));
}

#[test]
fn strange_files_among_those_put_aside_harm_nobody() {
    let writer = Writer::new();
    writer.write(10);
    close(writer.home.path(), STREAM, Shelf::read(writer.home.path(), STREAM).unwrap().next()).unwrap();
    let past = writer.home.path().join(PAST);
    for name in ["stdout.txt", "stdout.000009.x-y", ".new-stdout"] {
        fs::write(past.join(name), "strange").unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", past.join("stdout.000001.000000000000000200-000000000000000300"))
        .unwrap();
    *writer.file.borrow_mut() = None;
    writer.write(10);
    while writer.carve(&rules(50, true), &ThisDisk).unwrap() == Carved::Piece {}
    writer.check_that_all_is_there("strange");
}

#[test]
fn the_keeper_puts_aside_what_is_too_much_and_tells_whoever_waits() {
    let home = tempfile::tempdir().unwrap();
    let keeper = Keeper::hire(home.path().into(), OutputRules::default()).unwrap();
    let mut node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
    node.output = Some(Box::new(OutputWish { max_bytes: Some(64 << 10), ..OutputWish::default() }));
    let directory = home.path().join("n");
    fs::create_dir(&directory).unwrap();
    let mut file = OpenOptions::new().append(true).create(true).open(directory.join("stdout")).unwrap();
    keeper.mind(&node);
    let (tell, told) = std::sync::mpsc::channel();
    let wait = |place, within| {
        let tell = tell.clone();
        keeper.when_there_is_more(node.name.clone(), STREAM, place, within, move || tell.send(()).unwrap());
    };
    wait(OutputPlace::default(), Duration::from_secs(30));
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "there is nothing yet");
    file.write_all(b"first\n").unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    wait(OutputPlace::default(), Duration::from_secs(30));
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    wait(OutputPlace { volume: 1, offset: 6 }, Duration::from_millis(10));
    told.recv_timeout(Duration::from_secs(20)).unwrap();

    file.write_all("one line of many\n".repeat(20_000).as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let lock = keeper.lock(&node.name);
    let held = || file.metadata().unwrap().len() - Shelf::read(&directory, STREAM).unwrap().next().offset;
    while held() >= 64 << 10 {
        assert!(Instant::now() < deadline, "it is not put aside");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Shelf::read(&directory, STREAM).unwrap().parts().all(|part| part.packed));
    let place = place_of_last(&directory, STREAM, 20_001, u64::MAX, Scope::All, &lock).unwrap();
    let first = read(&directory, STREAM, place, 6, &lock, &mut None).unwrap();
    assert_eq!((first.bytes.as_slice(), first.place.offset), (&b"first\n"[..], 0));
}

#[test]
fn a_panic_of_one_who_waits_costs_the_others_nothing() {
    let home = tempfile::tempdir().unwrap();
    let keeper = Keeper::hire(home.path().into(), OutputRules::default()).unwrap();
    let node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
    let directory = home.path().join("n");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("stdout"), "first\n").unwrap();
    keeper.mind(&node);
    let (tell, told) = std::sync::mpsc::channel();
    let end = OutputPlace { volume: 1, offset: 6 };
    // Once at the order, and once when the time is up.
    for (place, within) in [(OutputPlace::default(), Duration::from_secs(60)), (end, Duration::from_millis(1))] {
        let (panics, tells) = (tell.clone(), tell.clone());
        let panicking = move || {
            panics.send("panics").unwrap();
            panic!("as it was meant to");
        };
        keeper.when_there_is_more(node.name.clone(), STREAM, place, within, panicking);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("panics"));
        let telling = move || tells.send("tells").unwrap();
        keeper.when_there_is_more(node.name.clone(), STREAM, place, within, telling);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("tells"));
    }
}

#[test]
fn what_was_written_while_nobody_minded_it_is_put_aside_when_somebody_does() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), Role::Worker);
    let directory = home.path().join("n");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("stdout"), "a line\n".repeat(10_000)).unwrap();
    let stale = std::time::SystemTime::now() - Duration::from_secs(90_000);
    fs::create_dir(directory.join(PAST)).unwrap();
    let rules = OutputRules { max_bytes: 20_000, max_age: Duration::from_secs(86_400), ..OutputRules::default() };
    let keeper = Keeper::hire(home.path().into(), rules).unwrap();
    keeper.mind(&node);
    let deadline = Instant::now() + Duration::from_secs(30);
    let next = || Shelf::read(&directory, STREAM).unwrap().next().offset;
    while next() < 50_001 {
        assert!(Instant::now() < deadline, "it is put aside by size");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The rest is as old as what was put aside last.
    for weighed in Shelf::read(&directory, STREAM).unwrap().kept {
        File::options().append(true).open(weighed.kept.path(&directory, STREAM)).unwrap().set_modified(stale).unwrap();
    }
    keeper.mind(&node);
    while next() < 70_000 {
        assert!(Instant::now() < deadline, "it is put aside by age");
        std::thread::sleep(Duration::from_millis(5));
    }
}

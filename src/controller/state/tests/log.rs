//! What the log on disk means for agents, and for a controller that is started again.

use super::*;
use crate::controller::log::recall::Told;
use crate::message::frame::{Body, Wire};
use crate::message::frames::Frames;

#[test]
fn what_has_arrived_is_said_at_once_and_that_it_is_kept_when_it_is() {
    let mut cluster = on_disk(Stored::default(), Recalled::default());
    cluster.connect("a");
    assert_eq!(cluster.received("a"), [(0, 0)]);
    cluster.say("a", log(1));
    cluster.say("a", log(2));
    assert_eq!(cluster.received("a"), [(1, 0), (2, 0)]);
    let kept = std::mem::take(&mut cluster.to_keep);
    assert_eq!(kept, [(instance("a"), 7, 1), (instance("a"), 7, 2)]);
    cluster.say("a", log(3));
    cluster.step(Event::Kept(kept));
    assert_eq!(cluster.received("a"), [(3, 0), (3, 2)], "of several words the last one");
    cluster.connect("a");
    assert_eq!(cluster.received("a"), [(3, 2)], "a new link is told both");
}

#[test]
fn what_is_kept_of_an_earlier_numbering_says_nothing_of_the_present_one() {
    let mut cluster = on_disk(Stored::default(), Recalled::default());
    cluster.connect("a");
    cluster.say("a", log(9));
    cluster.lose("a");
    cluster.connect_as("a", NotifyAgentHello { epoch: 8, ..hello("a") });
    cluster.take_all_sent();
    cluster.step(Event::Kept(vec![(instance("a"), 7, 9)]));
    assert_eq!(cluster.received("a"), []);
}

#[test]
fn agents_wait_while_too_much_waits_for_the_disk() {
    let mut cluster = on_disk(Stored::default(), Recalled::default());
    cluster.connect("a");
    cluster.say("a", log(1));
    cluster.take_all_sent();
    cluster.step(Event::Full(true));
    cluster.say("a", log(2));
    cluster.connect("b");
    assert_eq!((cluster.received("a"), cluster.received("b")), (vec![], vec![]));
    cluster.step(Event::Kept(vec![(instance("a"), 7, 1)]));
    assert_eq!(cluster.received("a"), [(1, 1)], "what is kept is said, and lets nothing more come");
    cluster.step(Event::Full(false));
    assert_eq!((cluster.received("a"), cluster.received("b")), (vec![(2, 1)], vec![(0, 0)]));
}

#[test]
fn a_log_that_cannot_be_written_is_told_and_that_it_can_again() {
    let mut cluster = on_disk(Stored::default(), Recalled::default());
    cluster.step(Event::LogFailed("no space left on device".into()));
    assert!(cluster.errors()[0].contains("no space left on device"), "{:?}", cluster.errors());
    cluster.step(Event::LogWorks { dropped: 0 });
    let Some(News::Log(again)) = cluster.published.last() else { panic!("{:?}", cluster.published) };
    assert!(again.msg.contains("nothing that waited is missing"), "{}", again.msg);
    cluster.step(Event::LogWorks { dropped: 3 });
    assert!(cluster.errors()[1].contains("3 entries are missing"), "{:?}", cluster.errors());
    cluster.step(Event::LogGone(4, 9));
    assert!(cluster.errors()[2].contains("entries 4 to 9 of the log are gone"), "{:?}", cluster.errors());
}

#[test]
fn a_controller_that_starts_tells_what_became_uncertain_and_goes_on_where_the_log_ends() {
    let stored = Cluster::deployed(&[("a", "n1"), ("a", "n2"), ("b", "n3")]).saved;
    let told = |of, state| Told { instance: instance(of), role: Role::None, state, restarts: 3 };
    let recalled = Recalled {
        nodes: [
            (node("n1"), told("a", NodeState::Running)),
            (node("n2"), told("a", NodeState::Unknown)),
            (node("gone"), told("c", NodeState::Crashed)),
            (node("going"), told("a", NodeState::Running)),
        ]
        .into(),
        arrived: [(instance("a"), (7, 20))].into(),
        notes: vec!["what came behind 5-9 is told again".into()],
    };
    let mut cluster = on_disk(stored, recalled);
    let News::Log(first) = &cluster.published[0] else { panic!("{:?}", cluster.published) };
    assert_eq!((first.instance.as_str(), &*first.msg), ("controller", "what came behind 5-9 is told again"));
    let unknown = NodeState::Unknown;
    assert_eq!(cluster.changes_of("n1"), [(NodeState::Running, unknown)]);
    assert_eq!(cluster.changes_of("n2"), [], "it was uncertain before");
    assert_eq!(cluster.changes_of("n3"), [(NodeState::Stopped, unknown)], "nobody heard of it yet");
    assert_eq!(cluster.changes_of("gone"), [(NodeState::Crashed, unknown), (unknown, NodeState::Stopped)]);
    assert_eq!(cluster.changes_of("going"), [(NodeState::Running, unknown)], "its agent is to end it");
    assert_eq!(cluster.known(), ["going", "n1", "n2", "n3"]);

    cluster.published.clear();
    cluster.connect("a");
    assert_eq!(cluster.received("a"), [(20, 20)], "what the log has need not come again");
    for seq in [19, 20, 21] {
        cluster.say("a", NotifyChange { seq, ..change("a", "n1", NodeState::Crashed) });
    }
    assert_eq!(cluster.changes_of("n1"), [(unknown, NodeState::Crashed)]);
    cluster.say("a", log(24));
    assert_eq!(
        cluster.errors().last().unwrap(),
        "a: news 22 to 23 of this agent is lost: too much of it waited for the link"
    );
}

fn on_disk(stored: Stored, recalled: Recalled) -> Cluster {
    Cluster::with_log(stored, true, recalled)
}

fn log(seq: u64) -> NotifyLog {
    NotifyLog { seq, time: Timestamp(0), instance: instance("a"), node: None, msg: seq.to_string() }
}

impl Cluster {
    /// How far that agent was told that its news has arrived and is kept, since it was last asked.
    fn received(&mut self, name: &str) -> Vec<(u64, u64)> {
        let link = self.links[name];
        let mut received = Vec::new();
        self.sent.retain(|(to, message)| match message {
            ToAgent::NewsReceived(NewsReceived { seq, kept, .. }) if *to == link => {
                received.push((*seq, *kept));
                false
            }
            _ => true,
        });
        received
    }
}

#[test]
fn news_is_read_from_its_frames_up_to_what_nobody_can_read_and_that_ends_the_link() {
    let mut cluster = Cluster::deployed(&[("a", "n1"), ("b", "n2")]);
    cluster.published.clear();
    let mut bytes = Vec::new();
    let first = change("a", "n1", NodeState::Crashed);
    let second = NotifyChange { seq: 22, node: node("stranger"), ..change("a", "n1", NodeState::Running) };
    for change in [&first, &first, &second] {
        ToController::from(change.clone()).append_to(&mut bytes).unwrap();
    }
    crate::message::frame::append(&mut bytes, 0x7777, "Future", &1_u8).unwrap();
    let whole = Frames::from(&*bytes);
    // A name that is none, and a body that breaks off.
    let mut other = BorrowedChange { seq: 23, node: "no/name", ..(&second).into() };
    crate::message::frame::append(&mut bytes, NotifyChange::KIND, NotifyChange::NAME, &other).unwrap();
    (other.seq, other.node) = (24, "later");
    crate::message::frame::append(&mut bytes, NotifyChange::KIND, NotifyChange::NAME, &other).unwrap();

    cluster.say("a", ToController::News(whole));
    assert_eq!(cluster.changes_of("n1"), [(NodeState::Running, NodeState::Crashed)], "once");
    assert_eq!(cluster.changes_of("stranger"), [(NodeState::Stopped, NodeState::Running)]);
    assert_eq!(cluster.ended, [], "of a later release may be what it likes");
    cluster.say("a", ToController::News(Frames::from(&*bytes)));
    assert_eq!(cluster.ended, [cluster.links["a"]]);
    assert_eq!(cluster.changes_of("later"), []);

    let broken = Frames::from(&[0, 0, 0, 5, 0x02, 0x12, 0, 0, 0xff][..]);
    cluster.say("b", ToController::News(broken));
    assert_eq!(cluster.ended.last(), Some(&cluster.links["b"]));
}

//! Signs of life: whoever gives them is left alone however late they are heard, and whoever gives none is found out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use watchpost::model::{InstanceName, Life, Liveness, Node, NodeName, Probe, ProbeBy, Ready, ReadyBy, Role};
use watchpost::supervisor::liveness::{Effect, Event, Vigil};

const LIFE: Life = Life(1);
const GRACE: Duration = Duration::from_secs(2);
/// How long a world is looked at, in milliseconds.
const SPAN: u64 = 120_000;
/// How long its agent stands still at most. Nodes give signs for as much longer.
const LONGEST_PAUSE: u64 = 20_000;

/// What a node does, in milliseconds since it is ready.
#[derive(Debug, Clone)]
struct Manners {
    /// When it says that it lives.
    signs: Vec<u64>,
    /// How long each answer to a question takes, and whether it is a good one; again and again.
    answers: Vec<(u64, bool)>,
    /// How long after it is given up the program that asks is gone.
    goes_within: u64,
}

/// A vigil, a clock, and what is to come. Where the agent stands still, everything waits; what the node says stays unread.
struct World {
    vigil: Vigil,
    noon: Instant,
    now: u64,
    due: BTreeMap<(u64, u64), Event>,
    count: u64,
    /// Signs that were given and not read.
    unread: u64,
    manners: Manners,
    /// Which answer is next.
    asked: usize,
    /// The question that somebody is asking at present, and the event that will answer.
    open: Option<(u64, (u64, u64))>,
    /// The last question that nobody waits for.
    given_up: Option<u64>,
    /// In a row, as they were told to the vigil in time.
    hung: Option<(u64, String)>,
}

impl World {
    fn new(node: &Node, manners: Manners) -> Self {
        let noon = Instant::now();
        let (vigil, effects) = Vigil::running(LIFE, node, noon);
        let due = BTreeMap::new();
        let (open, given_up, hung) = (None, None, None);
        let mut world = Self { vigil, noon, now: 0, due, count: 0, unread: 0, manners, asked: 0, open, given_up, hung };
        effects.into_iter().for_each(|effect| world.perform(effect));
        world
    }

    fn at(&mut self, when: u64, event: Event) -> (u64, u64) {
        self.count += 1;
        self.due.insert((when, self.count), event);
        (when, self.count)
    }

    fn step(&mut self, event: Event) {
        if let Event::Probed(round, _) = event
            && self.open.is_some_and(|(open, _)| open == round)
        {
            self.open = None;
        }
        let now = self.noon + Duration::from_millis(self.now);
        for effect in self.vigil.step(event, now, GRACE) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::After(delay, event) => {
                assert!(!delay.is_zero(), "it never goes round and round: {event:?}");
                self.at(self.now + u64::try_from(delay.as_millis()).unwrap(), event);
            }
            Effect::Listen => {
                self.read();
                self.step(Event::Listened);
            }
            Effect::Ask(round) => {
                assert_eq!(self.open, None, "never two at once");
                let (takes, is_good) = self.manners.answers[self.asked % self.manners.answers.len()];
                self.asked += 1;
                let answer = if is_good { Ok(()) } else { Err("no".to_owned()) };
                let at = self.at(self.now + takes, Event::Probed(round, answer));
                self.open = Some((round, at));
            }
            Effect::GiveUp(round) => {
                self.given_up = Some(round);
                if let Some((open, at)) = self.open.filter(|(open, _)| *open == round) {
                    let when = at.0.min(self.now + self.manners.goes_within);
                    self.due.remove(&at);
                    let at = self.at(when, Event::Probed(open, Err("killed".into())));
                    self.open = Some((open, at));
                }
            }
            Effect::Unheard => panic!("it can be heard"),
            Effect::Unready => panic!("it was ready"),
            Effect::Hung(why) => {
                assert_eq!(self.hung, None, "it hangs once");
                let forgotten = self.open.filter(|(open, _)| self.given_up != Some(*open));
                assert_eq!(forgotten, None, "whoever asks is not left behind");
                self.hung = Some((self.now, why));
            }
        }
    }

    fn read(&mut self) {
        if std::mem::take(&mut self.unread) > 0 {
            self.step(Event::Lives);
        }
    }

    /// Lets time go by. In each of `pauses` (from, to) the agent stands still.
    fn run(&mut self, pauses: &[(u64, u64)]) {
        let signs = self.manners.signs.clone();
        let mut signs = signs.into_iter().peekable();
        while self.hung.is_none() {
            let timer = self.due.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(signs.peek().copied()).min().filter(|next| *next < SPAN) else {
                return;
            };
            // Whatever falls into a pause is seen at its end: first the timers, as bad luck has it.
            let pause = pauses.iter().find(|(from, to)| (*from..*to).contains(&next));
            self.now = self.now.max(pause.map_or(next, |(_, to)| *to));
            while signs.next_if(|sign| *sign <= self.now).is_some() {
                self.unread += 1;
            }
            let rings = self.due.first_entry().filter(|due| due.key().0 <= self.now).map(|due| due.remove());
            match rings {
                Some(event) => self.step(event),
                None => self.read(),
            }
        }
    }
}

fn node(watchdog: Option<u64>, probe: Option<(u64, u64, u32)>) -> Node {
    let mut node = Node::new(NodeName::new("n").unwrap(), InstanceName::new("i").unwrap(), Role::None);
    let millis = Duration::from_millis;
    let probe = probe.map(|(interval, timeout, failures)| Probe {
        by: ProbeBy::Port(80),
        interval: millis(interval),
        timeout: millis(timeout),
        failures,
    });
    node.command = vec!["sleep".into()];
    node.liveness = Some(Box::new(Liveness { watchdog: watchdog.map(millis), probe }));
    node
}

/// Moments in order, from one to the next at least and at most so many milliseconds.
fn moments(from: u64, to: u64) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(from..=to, ((SPAN + LONGEST_PAUSE) / from) as usize).prop_map(|gaps| {
        let mut moment = 0;
        gaps.into_iter()
            .map(|gap| {
                moment += gap;
                moment
            })
            .take_while(|moment| *moment < SPAN + LONGEST_PAUSE)
            .collect()
    })
}

fn pauses() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..SPAN, 1..LONGEST_PAUSE), 0..4)
        .prop_map(|pauses| pauses.into_iter().map(|(from, length)| (from, from + length)).collect())
}

fn quiet(signs: Vec<u64>) -> Manners {
    Manners { signs, answers: vec![(1, true)], goes_within: 1 }
}

proptest! {
    #[test]
    fn who_gives_its_signs_is_left_alone_however_long_its_agent_stands_still(
        signs in moments(200, 999),
        pauses in pauses(),
    ) {
        let mut world = World::new(&node(Some(1000), None), quiet(signs));
        world.run(&pauses);
        prop_assert_eq!(world.hung, None);
    }

    #[test]
    fn who_falls_silent_is_found_out_within_two_periods(
        signs in moments(200, 999),
        last in 0..SPAN / 2,
    ) {
        let signs: Vec<_> = signs.into_iter().filter(|sign| *sign <= last).collect();
        let silent_since = signs.last().copied().unwrap_or(0);
        let mut world = World::new(&node(Some(1000), None), quiet(signs));
        world.run(&[]);
        let (at, why) = world.hung.expect("it fell silent");
        // Its last sign may have been read only when the next was missed.
        prop_assert!((silent_since + 1000..=silent_since + 2000).contains(&at), "{at}, silent since {silent_since}");
        prop_assert_eq!(why, "it did not say WATCHDOG=1 for 1s");
    }

    #[test]
    fn so_many_failures_in_a_row_and_no_fewer_tell_that_it_hangs(
        (interval, timeout, failures) in (100..5000_u64, 100..3000_u64, 1..4_u32),
        answers in prop::collection::vec((0..6000_u64, any::<bool>()), 1..12),
        goes_within in 0..50_u64,
    ) {
        // Whether an answer counts that comes at the very moment is nobody's promise.
        prop_assume!(answers.iter().all(|(takes, _)| *takes != timeout));
        let manners = Manners { signs: vec![], answers: answers.clone(), goes_within };
        let mut world = World::new(&node(None, Some((interval, timeout, failures))), manners);
        world.run(&[]);
        // Told by the rule alone: each question is good, bad or late, one after the other.
        let mut row = 0;
        let asked = answers.iter().cycle().take(world.asked);
        let mut hangs = false;
        for (takes, is_good) in asked {
            row = if *is_good && *takes < timeout { 0 } else { row + 1 };
            hangs |= row == failures;
        }
        let is_open = world.open.is_some();
        prop_assert!(world.hung.is_some() == hangs || is_open, "{:?} after {} questions", world.hung, world.asked);
    }

    #[test]
    fn whatever_ends_a_vigil_gives_up_the_question_that_is_open(
        signs in moments(200, 999),
        last in 0..SPAN / 2,
        (interval, timeout, failures) in (100..2000_u64, 100..3000_u64, 1..4_u32),
        answers in prop::collection::vec((0..6000_u64, any::<bool>()), 1..12),
        goes_within in 0..5000_u64,
    ) {
        let signs = signs.into_iter().filter(|sign| *sign <= last).collect();
        let manners = Manners { signs, answers, goes_within };
        let mut world = World::new(&node(Some(1000), Some((interval, timeout, failures))), manners);
        world.run(&[]); // the world minds that nobody is left behind
        prop_assert!(world.hung.is_some(), "it fell silent");
        prop_assert_eq!(world.vigil.open_question(), None);
    }

    #[test]
    fn who_is_not_ready_in_the_time_that_it_asked_for_is_late_and_nobody_before(
        extensions in prop::collection::vec((0..10_000_u64, 0..10_000_u64), 0..6),
    ) {
        let within = Duration::from_secs(5);
        let mut node = node(None, None);
        node.ready = Ready { by: ReadyBy::Notify, within: Some(within) };
        let noon = Instant::now();
        let (mut vigil, effects) = Vigil::unready(LIFE, &node, noon);
        prop_assert_eq!(effects, vec![Effect::After(within, Event::ReadyDue)]);
        let mut extensions = extensions;
        extensions.sort_unstable();
        let (mut until, mut due) = (5000_u64, 5000_u64);
        let mut extensions = extensions.into_iter().peekable();
        loop {
            while let Some((at, time)) = extensions.next_if(|(at, _)| *at < due) {
                vigil.step(Event::Extend(Duration::from_millis(time)), noon + Duration::from_millis(at), GRACE);
                until = until.max(at + time);
            }
            match &vigil.step(Event::ReadyDue, noon + Duration::from_millis(due), GRACE)[..] {
                [Effect::Listen] => {
                    let now = noon + Duration::from_millis(due);
                    prop_assert_eq!(vigil.step(Event::Listened, now, GRACE), vec![Effect::Unready]);
                    break;
                }
                [Effect::After(left, Event::ReadyDue)] => due += u64::try_from(left.as_millis()).unwrap(),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
        prop_assert_eq!(due, until);
    }
}

//! Looks at every process of the machine, of which each serves all who wait for one.
//!
//! What may be anywhere has to be looked for everywhere, and a thousand nodes that end together would have everybody looked
//! at a thousand times. So a look also serves whoever was waiting for one when it began. The same goes for a look at those
//! who were given to us, as long as that is nobody.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::family::{given_to_us, marker, numbers_in};
use super::stat::Stat;
use crate::side_by_side::side_by_side;

/// More are never asked for: a sweep that finds nothing takes two, one after the other.
const KEPT: usize = 2;

/// By pid, who was seen, and the marker of each that has one.
type Crowd = BTreeMap<u32, (Stat, Option<Box<[u8]>>)>;

/// Where looks are shared. None is kept while nobody waits for one.
#[derive(Debug, Default)]
pub struct Looks(Mutex<Weak<Shared>>);

/// Somebody waits for looks that begin after this was made, and so after what he waited for before.
#[derive(Debug, Clone)]
pub struct Waiting {
    since: Instant,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The last looks, each begun after the one before was over.
    looks: Mutex<VecDeque<Arc<Look>>>,
    /// When it was seen last that nobody was given to us.
    alone: Mutex<Option<Instant>>,
}

/// Everybody who lived, but us.
#[derive(Debug)]
pub(super) struct Look {
    began: Instant,
    ended: Instant,
    /// By what the nearest among them and their ancestors is marked with: their pids and start times.
    by_marker: BTreeMap<Box<[u8]>, Vec<(u32, u64)>>,
    /// By the sessions of those that have no mark, from them up to the first that has one.
    by_session: BTreeMap<u32, Vec<(u32, u64)>>,
}

impl Looks {
    /// Begins to wait.
    pub fn wait(&self) -> Waiting {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = last.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *last = Arc::downgrade(&fresh);
            fresh
        });
        Waiting { since: Instant::now(), shared }
    }
}

impl Waiting {
    /// Since when.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// A look that began after `since`: one that another made, or a new one.
    pub(super) fn look(&self, since: Instant) -> io::Result<Arc<Look>> {
        // Nobody begins one before the last is over, and whoever waits for that is served by it or by the next.
        let mut looks = self.shared.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.iter().find(|look| look.began >= since) {
            return Ok(Arc::clone(look));
        }
        let look = Arc::new(Look::at_everybody()?);
        if looks.len() == KEPT {
            looks.pop_front();
        }
        looks.push_back(Arc::clone(&look));
        Ok(look)
    }

    /// Who was given to us, dead or alive; nobody also if there was nobody at a moment since this wait began, as somebody
    /// else has seen who waits. `NotFound` where the kernel does not list children.
    pub(super) fn given_to_us(&self) -> io::Result<Vec<u32>> {
        let mut alone = self.shared.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if alone.is_some_and(|alone| alone >= self.since) {
            return Ok(Vec::new());
        }
        let looks_at = Instant::now();
        let given = given_to_us()?;
        if given.is_empty() {
            *alone = Some(looks_at);
        }
        Ok(given)
    }
}

impl Look {
    fn at_everybody() -> io::Result<Self> {
        let began = Instant::now();
        let mut pids = numbers_in("/proc")?;
        pids.retain(|pid| *pid != std::process::id());
        let seen = side_by_side(&pids, |pid| {
            let seen = |stat: Stat| (stat, if stat.has_memory { marker(*pid) } else { None });
            Stat::of(*pid).map(|stat| stat.map(seen))
        });
        let mut crowd = Crowd::new();
        for (pid, seen) in pids.into_iter().zip(seen) {
            crowd.extend(seen?.map(|seen| (pid, seen)));
        }
        Ok(Self::of_crowd(&crowd, began))
    }

    fn of_crowd(crowd: &Crowd, began: Instant) -> Self {
        let (mut by_marker, mut by_session) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (pid, (stat, _)) in crowd.iter().filter(|(_, (stat, _))| !stat.is_dead()) {
            let who = (*pid, stat.start_time);
            let mut next = *pid;
            // Parents were read at different moments, so a circle is thinkable.
            for _ in 0..crowd.len() {
                match crowd.get(&next) {
                    None => break,
                    Some((_, Some(marker))) => {
                        by_marker.entry(marker.clone()).or_default().push(who);
                        break;
                    }
                    Some((stat, None)) => {
                        let session = by_session.entry(stat.session).or_default();
                        if session.last() != Some(&who) {
                            session.push(who);
                        }
                        next = stat.parent;
                    }
                }
            }
        }
        Self { began, ended: Instant::now(), by_marker, by_session }
    }

    /// When it was over.
    pub fn ended(&self) -> Instant {
        self.ended
    }

    /// Whether anybody in that session has no mark, so that it matters whose session that is.
    pub fn asks_whose_is(&self, session: u32) -> bool {
        self.by_session.contains_key(&session)
    }

    /// Who belonged to the node with this marker, and with this session, if that names one: pids and start times, sorted
    /// by pid.
    pub fn of_the_node(&self, marker: &str, session: Option<u32>) -> Vec<(u32, u64)> {
        let marked = self.by_marker.get(marker.as_bytes()).into_iter().flatten();
        let in_session = session.and_then(|session| self.by_session.get(&session)).into_iter().flatten();
        let all: BTreeMap<u32, u64> = marked.chain(in_session).copied().collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nobody_was_given_to_us_is_seen_once_for_all_who_wait_by_then() {
        let looks = Looks::default();
        let [first, second] = [looks.wait(), looks.wait()];
        *first.shared.alone.lock().unwrap() = Some(first.since.max(second.since));
        assert!(first.given_to_us().unwrap().is_empty());
        assert!(second.given_to_us().unwrap().is_empty());
        let third = looks.wait();
        let given = third.given_to_us().unwrap();
        let alone = third.shared.alone.lock().unwrap().unwrap();
        assert_eq!(alone >= third.since, given.is_empty(), "who began to wait later looks, and says what it saw");
    }

    #[test]
    fn a_look_knows_whose_each_is_by_mark_then_session_then_parent() {
        let look = look(&[
            // pid, parent, session, marker
            (10, 1, 10, Some("ours")),
            (11, 10, 11, None),
            (12, 11, 12, None),
            (13, 12, 12, Some("other")),
            (14, 13, 14, None),
            (15, 1, 7, None),
            (16, 15, 16, None),
            (17, 1, 7, Some("other")),
            (18, 1, 18, None),
            (19, 20, 19, None),
            (20, 19, 20, None),
        ]);
        let pids = |found: Vec<(u32, u64)>| found.into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
        assert_eq!(pids(look.of_the_node("ours", Some(7))), [10, 11, 12, 15, 16]);
        assert_eq!(pids(look.of_the_node("ours", None)), [10, 11, 12]);
        assert_eq!(pids(look.of_the_node("other", Some(99))), [13, 14, 17]);
        assert_eq!(pids(look.of_the_node("nobody", Some(19))), [19, 20], "a circle ends");
        assert_eq!(look.of_the_node("nobody", None), []);
    }

    #[test]
    fn the_dead_belong_to_nobody_any_more() {
        let mut crowd = crowd(&[(10, 1, 7, Some("ours")), (11, 10, 7, None)]);
        crowd.get_mut(&10).unwrap().0.state = b'Z';
        let look = Look::of_crowd(&crowd, Instant::now());
        assert_eq!(look.of_the_node("ours", Some(7)), [(11, 1100)]);
    }

    #[test]
    fn a_look_serves_all_who_waited_when_it_began_and_nobody_else() {
        let looks = Looks::default();
        let [early, late] = [(); 2].map(|()| looks.wait());
        let first = early.look(early.since()).unwrap();
        assert!(Arc::ptr_eq(&first, &late.look(late.since()).unwrap()));
        let second = early.look(first.ended()).unwrap();
        assert!(second.began >= first.ended && Arc::ptr_eq(&second, &late.look(first.ended()).unwrap()));
        let after = looks.wait();
        let third = after.look(after.since()).unwrap();
        assert!(third.began >= after.since() && !Arc::ptr_eq(&third, &second));
        assert!(Arc::ptr_eq(&late.look(late.since()).unwrap(), &second), "the first is not kept any more");
    }

    #[test]
    fn no_look_is_kept_while_nobody_waits() {
        let looks = Looks::default();
        let waiting = looks.wait();
        let look = Arc::downgrade(&waiting.look(waiting.since()).unwrap());
        assert!(look.upgrade().is_some());
        drop(waiting);
        assert!(look.upgrade().is_none());
    }

    #[test]
    fn everybody_is_seen_but_us() {
        let everybody = Look::at_everybody().unwrap();
        let seen = |pid: u32| {
            let all = everybody.by_marker.values().chain(everybody.by_session.values()).flatten();
            all.into_iter().any(|(seen, _)| *seen == pid)
        };
        assert!(seen(std::os::unix::process::parent_id()) && !seen(std::process::id()));
    }

    fn look(members: &[(u32, u32, u32, Option<&str>)]) -> Look {
        Look::of_crowd(&crowd(members), Instant::now())
    }

    fn crowd(members: &[(u32, u32, u32, Option<&str>)]) -> Crowd {
        let member = |&(pid, parent, session, marker): &(u32, u32, u32, Option<&str>)| {
            let start_time = u64::from(pid) * 100;
            let (has_memory, is_half_made) = (true, false);
            let stat = Stat { state: b'S', parent, session, start_time, has_memory, is_half_made, wait_status: 0 };
            (pid, (stat, marker.map(|marker| marker.as_bytes().into())))
        };
        members.iter().map(member).collect()
    }
}

//! Open requests: parent, who still owes an answer, deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::model::{InstanceName, RequestId};

/// Requests that wait for instances; `P` is what they were asked for.
#[derive(Debug, Clone)]
pub struct Requests<P> {
    open: BTreeMap<RequestId, Open<P>>,
    deadlines: BTreeSet<(Instant, RequestId)>,
}

/// One request that is not answered in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open<P> {
    /// What it was asked for, and what has come together so far.
    pub parent: P,
    /// Who still owes an answer; empty for a request that only waits for its deadline.
    pub owes: BTreeSet<InstanceName>,
    /// When waiting ends.
    pub deadline: Instant,
}

/// What an answer means for its request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered<'a, P> {
    /// Nobody waits for it: the request is over, or this instance has answered before.
    Late,
    /// Others still owe theirs.
    Waiting(&'a mut P),
    /// It was the last one.
    Complete(P),
}

impl<P> Default for Requests<P> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), deadlines: BTreeSet::new() }
    }
}

impl<P> Requests<P> {
    /// Opens a request. A `reqid` that is open already is replaced, and what it waited for is returned.
    pub fn open(&mut self, reqid: RequestId, open: Open<P>) -> Option<Open<P>> {
        let replaced = self.close(&reqid);
        self.deadlines.insert((open.deadline, reqid.clone()));
        self.open.insert(reqid, open);
        replaced
    }

    /// The request, if it is open.
    pub fn get(&self, reqid: &RequestId) -> Option<&Open<P>> {
        self.open.get(reqid)
    }

    /// The request, if it is open.
    pub fn get_mut(&mut self, reqid: &RequestId) -> Option<&mut Open<P>> {
        self.open.get_mut(reqid)
    }

    /// The first request whose parent is such a one.
    pub fn find(&self, is_meant: impl Fn(&P) -> bool) -> Option<RequestId> {
        self.open.iter().find(|(_, open)| is_meant(&open.parent)).map(|(reqid, _)| reqid.clone())
    }

    /// How many of the requests have such a parent.
    pub fn count(&self, is_meant: impl Fn(&P) -> bool) -> usize {
        self.open.values().filter(|open| is_meant(&open.parent)).count()
    }

    /// `from` has answered; `note` keeps what it said.
    pub fn answer(&mut self, reqid: &RequestId, from: &InstanceName, note: impl FnOnce(&mut P)) -> Answered<'_, P> {
        let Some(open) = self.open.get_mut(reqid).filter(|open| open.owes.contains(from)) else {
            return Answered::Late;
        };
        open.owes.remove(from);
        note(&mut open.parent);
        if open.owes.is_empty() {
            return self.close(reqid).map_or(Answered::Late, |open| Answered::Complete(open.parent));
        }
        self.open.get_mut(reqid).map_or(Answered::Late, |open| Answered::Waiting(&mut open.parent))
    }

    /// Waits for it until then instead.
    pub fn set_deadline(&mut self, reqid: &RequestId, deadline: Instant) {
        if let Some(open) = self.open.get_mut(reqid) {
            self.deadlines.remove(&(open.deadline, reqid.clone()));
            open.deadline = deadline;
            self.deadlines.insert((deadline, reqid.clone()));
        }
    }

    /// Ends a request, whoever still owes.
    pub fn close(&mut self, reqid: &RequestId) -> Option<Open<P>> {
        let open = self.open.remove(reqid)?;
        self.deadlines.remove(&(open.deadline, reqid.clone()));
        Some(open)
    }

    /// Ends and returns one request whose deadline has passed, the oldest first.
    pub fn expire(&mut self, now: Instant) -> Option<(RequestId, Open<P>)> {
        let (_, reqid) = self.deadlines.first().filter(|(at, _)| *at <= now)?.clone();
        self.close(&reqid).map(|open| (reqid, open))
    }

    /// When the next request expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The open requests to which `instance` owes an answer, sorted by id.
    pub fn owed_by(&self, instance: &InstanceName) -> Vec<RequestId> {
        self.open.iter().filter(|(_, open)| open.owes.contains(instance)).map(|(reqid, _)| reqid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::new(text).unwrap()
    }

    fn instance(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    fn open(owes: &[&str], deadline: Instant) -> Open<Vec<&'static str>> {
        Open { parent: vec![], owes: owes.iter().map(|name| instance(name)).collect(), deadline }
    }

    #[test]
    fn a_request_is_complete_with_the_last_answer_and_deaf_after_it() {
        let mut requests = Requests::default();
        requests.open(id("r"), open(&["a", "b"], Instant::now()));
        assert!(matches!(requests.answer(&id("r"), &instance("a"), |got| got.push("a")), Answered::Waiting(_)));
        assert_eq!(requests.answer(&id("r"), &instance("a"), |got| got.push("twice")), Answered::Late);
        assert_eq!(requests.answer(&id("r"), &instance("x"), |got| got.push("x")), Answered::Late);
        assert_eq!(requests.answer(&id("r"), &instance("b"), |got| got.push("b")), Answered::Complete(vec!["a", "b"]));
        assert_eq!(requests.answer(&id("r"), &instance("b"), |got| got.push("late")), Answered::Late);
        assert_eq!(requests.next_deadline(), None);
    }

    #[test]
    fn requests_expire_in_the_order_of_their_deadlines_and_not_before() {
        let now = Instant::now();
        let mut requests = Requests::default();
        requests.open(id("late"), open(&["a"], now + Duration::from_secs(2)));
        requests.open(id("soon"), open(&["a"], now + Duration::from_secs(1)));
        assert_eq!(requests.owed_by(&instance("a")), [id("late"), id("soon")]);
        assert_eq!(requests.expire(now), None);
        let expired = |requests: &mut Requests<_>| requests.expire(now + Duration::from_secs(3)).map(|(id, _)| id);
        assert_eq!(expired(&mut requests), Some(id("soon")));
        assert_eq!(expired(&mut requests), Some(id("late")));
        assert_eq!(expired(&mut requests), None);
    }

    #[test]
    fn a_request_opened_twice_is_one_request() {
        let now = Instant::now();
        let mut requests = Requests::default();
        assert_eq!(requests.open(id("r"), open(&["a"], now)), None);
        assert_eq!(requests.open(id("r"), open(&["b"], now)), Some(open(&["a"], now)));
        assert!(requests.expire(now).is_some());
        assert_eq!(requests.expire(now), None);
    }
}

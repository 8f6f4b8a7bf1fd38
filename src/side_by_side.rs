//! Two threads for what takes the kernel long and is much.

use std::panic::resume_unwind;
use std::thread::{self, Builder};

/// For fewer than these a thread is not worth its start.
const MANY: usize = 64;

/// Does `work` for each of `items`, whose results come back in their order: by two threads where there are many, each of
/// which has one half. A panic of either is one of the caller's.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let all_of = |items: &[T]| items.iter().map(&work).collect::<Vec<R>>();
    if items.len() < MANY {
        return all_of(items);
    }
    let (first, second) = items.split_at(items.len() / 2);
    thread::scope(|scope| {
        let other = Builder::new().name("beside".into()).spawn_scoped(scope, || all_of(second));
        let mut results = all_of(first);
        results.extend(match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => all_of(second), // where no thread can be had it takes longer
        });
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_however_many_there_are() {
        for count in [0, 1, MANY - 1, MANY, MANY + 1, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = (0..count).map(|item| item * 2).collect();
            assert_eq!(side_by_side(&items, |item| item * 2), doubled);
        }
    }

    #[test]
    fn many_are_done_by_two() {
        let by = side_by_side(&[(); MANY], |()| thread::current().id());
        assert!(by[..MANY / 2].iter().all(|thread| *thread == thread::current().id()));
        assert!(by[MANY / 2..].iter().all(|thread| *thread == by[MANY - 1] && *thread != by[0]));
    }

    #[test]
    fn a_panic_is_not_lost() {
        let panics = |at| {
            let items: Vec<usize> = (0..MANY).collect();
            thread::spawn(move || side_by_side(&items, |item| assert_ne!(*item, at))).join().is_err()
        };
        assert!(panics(0) && panics(MANY - 1) && !panics(MANY));
    }
}

//! Who goes first in the line of tasks of one thread.

use std::future::poll_fn;
use std::task::Poll;

/// Lets all go first that are in line by now. Much cheaper than a turn of the event loop, which asks the kernel for news.
pub async fn pass_on() {
    let mut has_passed = false;
    poll_fn(|task| match std::mem::replace(&mut has_passed, true) {
        true => Poll::Ready(()),
        false => {
            task.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[actix_rt::test]
    async fn whoever_passes_the_turn_on_comes_behind_those_in_line_and_those_whom_they_wake() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let note = |who: &'static str| {
            let order = Rc::clone(&order);
            async move { order.borrow_mut().push(who) }
        };
        let (first, second, third) = (note("passes once"), note("passes twice"), note("is woken"));
        let once = actix::spawn(async move {
            pass_on().await;
            first.await;
        });
        let twice = actix::spawn(async move {
            pass_on().await;
            pass_on().await;
            second.await;
        });
        let in_line = actix::spawn(note("is in line"));
        let wakes = actix::spawn(async move { actix::spawn(third).await });
        for task in [once, twice, in_line] {
            task.await.unwrap();
        }
        wakes.await.unwrap().unwrap();
        assert_eq!(*order.borrow(), ["is in line", "passes once", "is woken", "passes twice"]);
    }
}

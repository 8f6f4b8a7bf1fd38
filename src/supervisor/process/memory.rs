//! Memory of this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// More than giving memory back takes, in bytes.
const STACK: usize = 64 << 10;

/// Whether the program that runs here is watchpost's own.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// Says that the program that runs here is watchpost's own, of which it knows what is needed at rest.
pub(crate) fn is_own_program() {
    IS_OURS.store(true, Ordering::Relaxed);
}

/// Has the threads of this process, but for those that run already, share one heap.
///
/// They wait for each other a little, but what is free is free for all of them, and all of it can be given back: the
/// GNU C library never gives back the end of a heap of a thread's own.
pub fn share_one_heap() {
    super::sys::heap::share();
}

/// Gives memory back that the allocator keeps for more of the same; may take a millisecond for every 10 MiB.
///
/// For whoever has just let go of a lot and does not need as much again soon. Other allocators than that of the GNU C
/// library decide by themselves.
pub fn give_back() {
    super::sys::heap::trim();
}

/// Gives back what is not needed at rest, beside the caller, in a thread that ends with it: that memory, and what of the
/// program was needed for what is over. The little that is needed again comes from the kernel's own memory.
pub fn give_back_aside() {
    let work = || {
        give_back();
        if IS_OURS.load(Ordering::Relaxed) {
            super::sys::program::put_away();
        }
    };
    // Where there is no thread to be had, the next one who has let go of a lot may have more luck.
    let _ = thread::Builder::new().name("give-back".into()).stack_size(STACK).spawn(work);
}

//! The allocator's spare memory.

/// Has threads that start from now on share the heap of the first.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that the allocator looks at when a thread first asks it for something.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives the system what the allocator holds and nobody uses, down to single pages.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks each heap for as long as it looks through it.
    unsafe {
        libc::malloc_trim(0);
    }
}

//! An allocator under which a thread can be given a bound of memory, for work that may ask for any amount, such as a model's chat template.
//!
//! A Rust program cannot be told that there is no memory: most of its code takes a failed allocation for the end of the process. So a thread that
//! asks for more than its allowance is held where it asks, for ever, with what it has. Whoever gave it the work waits with a limit of time, and
//! counts those that never came back: each costs a thread and its allowance at most.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::time::Duration;

/// What a thread without an allowance has left.
const ANY: usize = usize::MAX;

thread_local! {
    /// Bytes that this thread may still allocate. Without a destructor and initialised in place, so that it can be used while memory is allocated.
    static LEFT: Cell<usize> = const { Cell::new(ANY) };
}

/// Passes allocations on, and holds a thread that asks for more than it was allowed.
pub struct Allowing<A>(pub A);

/// Does some work with which this thread allocates at most so many bytes at a time. Where it would be more, this never returns: call it in a
/// thread of its own. Without [`Allowing`] as the global allocator there is no limit.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = LEFT.replace(bytes.min(ANY - 1));
    let done = work();
    LEFT.set(before);
    done
}

fn take(bytes: usize) {
    let left = LEFT.get();
    if left == ANY {
        return;
    }
    match left.checked_sub(bytes) {
        Some(left) => LEFT.set(left),
        None => loop {
            std::thread::sleep(Duration::from_secs(3_600));
        },
    }
}

fn give(bytes: usize) {
    let left = LEFT.get();
    if left != ANY {
        LEFT.set(left.saturating_add(bytes).min(ANY - 1));
    }
}

// SAFETY: every call goes to an allocator that keeps the contract, with what came; memory is neither touched nor kept here, and nothing here
// allocates or unwinds. `realloc` is the trait's own, which allocates, copies and frees.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allowing<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's layout, which the caller vouches for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the caller's block, which came from the same allocator.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::mpsc;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allowing<System> = Allowing(System);

    const MIB: usize = 1 << 20;

    /// What a thread of its own comes back with in a second.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, done) = mpsc::channel();
        std::thread::spawn(move || sender.send(within(8 * MIB, work)));
        done.recv_timeout(Duration::from_secs(1)).ok()
    }

    #[test]
    fn what_is_within_the_allowance_comes_back_however_often() {
        let again = || (0..1_000).map(|_| vec![1u8; 4 * MIB].len()).sum::<usize>();
        assert_eq!(apart(again), Some(4_000 * MIB), "what is freed can be had again");
        assert_eq!(apart(|| String::from_utf8(vec![b'a'; 7 * MIB]).map(|text| text.len())), Some(Ok(7 * MIB)));
    }

    #[test]
    fn what_is_beyond_is_held_and_others_go_on() {
        assert_eq!(apart(|| vec![1u8; 9 * MIB].len()), None, "at once");
        assert_eq!(apart(|| vec![0u8; 9 * MIB].len()), None, "zeroed");
        let bit_by_bit = || {
            let mut all = Vec::new();
            while all.len() < 100 {
                all.push(vec![1u8; MIB]);
            }
            all.len()
        };
        assert_eq!(apart(bit_by_bit), None, "bit by bit");
        let doubling = || {
            let mut text = "x".to_owned();
            for _ in 0..40 {
                text = format!("{text}{text}");
            }
            text.len()
        };
        assert_eq!(apart(doubling), None, "by doubling");
        assert_eq!(vec![1u8; 100 * MIB].len(), 100 * MIB, "this thread has no limit");
    }
}

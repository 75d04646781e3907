//! Which worker a thread is.
//!
//! Each worker thread says once what its index is; what is kept per worker (idle connections, leases) is found by it.
//! A thread that is no worker shares the place of the first.

use std::cell::Cell;

thread_local! {
    static WORKER: Cell<(usize, usize)> = const { Cell::new((0, 1)) };
}

/// The calling thread is worker `index` of `count`.
pub fn enter(index: usize, count: usize) {
    WORKER.set((index, count.max(1)));
}

/// The calling worker's index; 0 for other threads.
pub fn index() -> usize {
    WORKER.get().0
}

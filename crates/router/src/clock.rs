//! The time of the event under way.
//!
//! A request passes a dozen layers that want to know the time, and between two waits it is the same for all of them: a
//! few microseconds of work apart, where statistics count milliseconds. So a worker reads its clock when something has
//! happened (a message came, a wait is over) with [`event`], and everything that follows from it asks [`now`]. Whenever
//! the worker's runtime has slept, the time is [forgotten](forget), so that even a place that does not report its event
//! gets a time no older than the worker's last waking up. Threads that never [entered](enter) read the clock every time.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

#[derive(Clone, Copy)]
enum Last {
    /// Not a worker: every question reads the clock.
    Never,
    Forgotten,
    At(Instant),
}

thread_local! {
    static LAST: Cell<Last> = const { Cell::new(Last::Never) };
}

/// This thread calls [`forget`] whenever it has slept; from now on it remembers the time in between.
pub fn enter() {
    LAST.set(Last::Forgotten);
}

/// The thread has slept: what it remembers is of the past.
pub fn forget() {
    if !matches!(LAST.get(), Last::Never) {
        LAST.set(Last::Forgotten);
    }
}

/// Something has happened: reads the clock.
pub fn event() -> Instant {
    let now = Instant::now();
    if !matches!(LAST.get(), Last::Never) {
        LAST.set(Last::At(now));
    }
    now
}

/// When the event under way happened.
#[inline]
pub fn now() -> Instant {
    match LAST.get() {
        Last::At(at) => at,
        Last::Forgotten | Last::Never => event(),
    }
}

/// How long before the event under way `began` was.
#[inline]
pub fn since(began: Instant) -> Duration {
    now().saturating_duration_since(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reads_the_clock_once_an_event_and_others_always() {
        let pause = || std::thread::sleep(Duration::from_millis(1));
        let first = now();
        pause();
        assert!(now() > first, "no worker");
        let worker = std::thread::spawn(move || {
            enter();
            let first = now();
            pause();
            assert_eq!(now(), first);
            let second = event();
            assert!(second > first);
            assert_eq!(now(), second);
            assert_eq!(since(first), second - first);
            pause();
            forget();
            assert!(now() > second);
        });
        worker.join().unwrap();
    }
}

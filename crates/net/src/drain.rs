//! The orderly end of a set of tasks.
//!
//! Whoever owns the tasks keeps the [`DrainTrigger`]; each task holds a clone of the [`Drain`], stops taking new work when
//! it starts, and drops the clone when it is done. The trigger waits for the last clone, or for its deadline. Both halves
//! work across runtimes. A trigger dropped unused starts the drain with a deadline that has passed: its owner is gone.

use std::convert::Infallible;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A trigger and the drain it starts.
pub fn drain() -> (DrainTrigger, Drain) {
    let (deadline, started) = watch::channel(None);
    let (alive, gone) = mpsc::channel(1);
    (DrainTrigger { deadline, gone }, Drain { started, _alive: alive })
}

/// Starts a drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    deadline: watch::Sender<Option<Instant>>,
    gone: mpsc::Receiver<Infallible>,
}

impl DrainTrigger {
    /// Tells every holder of the [`Drain`] to finish, and waits until all are gone (true) or the deadline passes (false).
    pub async fn drain(mut self, deadline: Instant) -> bool {
        self.deadline.send_replace(Some(deadline));
        let ended = tokio::time::timeout_at(deadline, self.gone.recv()).await.is_ok();
        ended || self.gone.is_closed()
    }
}

/// Held by what must end before the drain does.
#[derive(Clone, Debug)]
pub struct Drain {
    started: watch::Receiver<Option<Instant>>,
    _alive: mpsc::Sender<Infallible>,
}

impl Drain {
    /// Completes when the drain has started: take no new work, finish what there is, drop this.
    pub async fn started(&self) {
        // An error means that the trigger is gone, and nobody is left to work for.
        let _ = self.started.clone().wait_for(Option::is_some).await;
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        // This receiver has never looked: a change is news to it for ever. Asked for each request, this takes no lock.
        self.started.has_changed().unwrap_or(true)
    }

    /// When the trigger stops waiting; `None` before the drain starts, and when it was never going to wait.
    pub fn deadline(&self) -> Option<Instant> {
        *self.started.borrow()
    }

    /// Completes when the drain has started and its deadline has passed: drop what is left.
    pub async fn overdue(&self) {
        self.started().await;
        if let Some(deadline) = self.deadline() {
            tokio::time::sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_last_holder() {
        let (trigger, drain) = drain();
        let other = drain.clone();
        assert!(!drain.is_started());
        let begun = Instant::now();
        let holder = tokio::spawn(async move {
            other.started().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(other);
        });
        drop(drain);
        assert!(trigger.drain(begun + Duration::from_secs(10)).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        holder.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_gives_up_at_its_deadline() {
        let (trigger, drain) = drain();
        let begun = Instant::now();
        let overdue = tokio::spawn({
            let drain = drain.clone();
            async move { drain.overdue().await }
        });
        assert!(!trigger.drain(begun + Duration::from_secs(10)).await);
        assert!(drain.is_started());
        overdue.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_starts_the_drain_at_once() {
        let (trigger, drain) = drain();
        drop(trigger);
        drain.started().await;
        drain.overdue().await;
        assert!(drain.is_started());
    }
}

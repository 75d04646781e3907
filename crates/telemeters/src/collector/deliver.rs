//! Batch after batch out of an outbox, and what becomes of those that are not taken.
//!
//! A batch that was not taken comes again after a pause, which grows; meanwhile the outbox fills, and counts what it has no
//! room for. A batch that a collector refuses because of a part of it is sent in halves until the part is found: what
//! Zipkin does over one bad span. A batch of which nobody knows whether it was taken is given up, for no span may come
//! twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use l5d_net::Drain;
use l5d_telemetry::trace::Trace;
use l5d_telemetry::{Counter, Scope};
use tokio::time::{Instant, sleep};

use super::Outbox;
use super::http::Answer;
use super::link::Failure;

/// How long the first trace waits for company.
const HOLD: Duration = Duration::from_millis(100);
/// The first pause after a failure, doubled with each that follows.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest that a collector may ask for.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(30);
/// How many requests the search for a bad part may take: enough for two of them in a full batch.
const SEARCH: usize = 40;

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It was taken.
    Taken,
    /// It was not taken and may come again; the collector may say when.
    Later(Option<Duration>),
    /// It was not taken, because of a part of it.
    Refused,
    /// Nobody knows.
    Lost,
}

impl Sent {
    /// What an answer over HTTP means, and why it is not a good one. What is worth another try is as OTLP has it; a batch
    /// that is at fault is told by 400, and 413 by its size.
    pub(crate) fn of(answer: Result<Answer, Failure>) -> (Self, Option<String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return (failure.sent(), Some(failure.to_string())),
        };
        let why = || Some(format!("it answers {} {}", answer.status, answer.text).trim_end().to_owned());
        match answer.status {
            200..300 => (Self::Taken, None),
            429 | 502 | 503 | 504 => (Self::Later(answer.retry_after), why()),
            400 | 413 => (Self::Refused, why()),
            _ => (Self::Lost, why()),
        }
    }
}

/// Speaks a collector's protocol.
pub(crate) trait Carrier {
    /// Sends the spans of these traces within this time.
    fn send(&mut self, batch: &[Arc<Trace>], limit: Duration) -> impl Future<Output = Sent> + Send;
}

/// What became of all traces.
#[derive(Clone)]
pub(crate) struct Counts {
    /// How many were taken.
    traces: Counter,
    /// How often a batch was sent again.
    retries: Counter,
    /// What there was no room for.
    pub(crate) overflow: Counter,
    refused: Counter,
    lost: Counter,
    unsent: Counter,
    /// Spans with ids of zero, which no collector takes.
    pub(crate) invalid: Counter,
}

impl Counts {
    pub(crate) fn new(scope: &Scope) -> Self {
        let dropped = scope.scope("dropped");
        Self {
            traces: scope.counter("traces"),
            retries: scope.counter("retries"),
            overflow: dropped.counter("overflow"),
            refused: dropped.counter("refused"),
            lost: dropped.counter("lost"),
            unsent: dropped.counter("unsent"),
            invalid: dropped.counter("invalid_spans"),
        }
    }
}

/// Delivers until the drain has started and the outbox is empty, or the time is over. `limit` is for one request.
pub(crate) async fn deliver(
    outbox: &Outbox,
    carrier: &mut impl Carrier,
    counts: &Counts,
    limit: Duration,
    drain: &Drain,
) {
    while !drain.is_started() {
        tokio::select! {
            biased;
            () = drain.started() => {}
            () = async { outbox.filled().await; sleep(HOLD).await } => {}
        }
        loop {
            let batch = outbox.batch();
            if batch.is_empty() {
                break;
            }
            send(batch, carrier, counts, limit, drain).await;
        }
    }
}

async fn send(batch: Vec<Arc<Trace>>, carrier: &mut impl Carrier, counts: &Counts, limit: Duration, drain: &Drain) {
    let mut parts = VecDeque::from([&batch[..]]);
    let (mut requests, mut pause) = (0, PAUSE);
    while let Some(part) = parts.pop_front() {
        let size = part.len() as u64;
        let left = drain.deadline().map_or(limit, |end| limit.min(end.saturating_duration_since(Instant::now())));
        match carrier.send(part, left).await {
            Sent::Taken => {
                counts.traces.add(size);
                pause = PAUSE;
            }
            Sent::Refused => {
                requests += 1;
                if part.len() == 1 || requests >= SEARCH {
                    counts.refused.add(size);
                } else {
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.push_front(other);
                    parts.push_front(one);
                }
            }
            Sent::Lost => counts.lost.add(size),
            Sent::Later(_) if drain.is_started() => counts.unsent.add(size),
            Sent::Later(asked_for) => {
                counts.retries.incr();
                parts.push_front(part);
                let wait = asked_for.map_or(pause, |asked_for| asked_for.clamp(pause, LONGEST_ASKED_FOR));
                pause = (pause * 2).min(LONGEST_PAUSE);
                tokio::select! {
                    biased;
                    () = drain.started() => {}
                    () = sleep(wait) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::trace;
    use l5d_net::drain;
    use l5d_telemetry::MetricsTree;
    use std::sync::Mutex;

    /// When it came, and the traces in it.
    type Batch = (Duration, Vec<u64>);

    /// Answers as it is told, and notes what it was sent and when.
    struct Fake<F> {
        answer: F,
        got: Arc<Mutex<Vec<Batch>>>,
        begun: Instant,
    }

    impl<F: FnMut(&[u64]) -> Sent + Send> Carrier for Fake<F> {
        async fn send(&mut self, batch: &[Arc<Trace>], _: Duration) -> Sent {
            let ids: Vec<u64> = batch.iter().map(|trace| trace.id.trace).collect();
            let sent = (self.answer)(&ids);
            self.got.lock().unwrap().push((self.begun.elapsed(), ids));
            sent
        }
    }

    struct Delivered {
        got: Vec<Batch>,
        tree: MetricsTree,
    }

    impl Delivered {
        fn count(&self, names: &[&str]) -> u64 {
            let (last, scopes) = names.split_last().unwrap();
            let scope = scopes.iter().fold(self.tree.scope("x"), |scope, name| scope.scope(name));
            scope.counter(last).value()
        }
    }

    /// Puts these traces in at once, lets time pass, ends.
    async fn delivered(
        ids: std::ops::RangeInclusive<u64>,
        time: Duration,
        answer: impl FnMut(&[u64]) -> Sent + Send + 'static,
    ) -> Delivered {
        let tree = MetricsTree::new();
        let counts = Counts::new(&tree.scope("x"));
        let outbox = Arc::new(Outbox::new(1_000_000, counts.overflow.clone()));
        let got = Arc::default();
        let mut fake = Fake { answer, got: Arc::clone(&got), begun: Instant::now() };
        for n in ids {
            outbox.put(&Arc::new(trace(n, 200)));
        }
        let (trigger, end) = drain();
        let task =
            tokio::spawn(async move { deliver(&outbox, &mut fake, &counts, Duration::from_secs(1), &end).await });
        sleep(time).await;
        trigger.drain(Instant::now() + Duration::from_secs(1)).await;
        task.await.unwrap();
        let got = got.lock().unwrap().clone();
        Delivered { got, tree }
    }

    #[tokio::test(start_paused = true)]
    async fn batches_go_after_a_short_hold_and_the_rest_at_the_end() {
        let delivered = delivered(1..=300, Duration::from_millis(99), |_| Sent::Taken).await;
        assert_eq!(delivered.got.iter().map(|(_, ids)| ids.len()).sum::<usize>(), 300);
        assert!(delivered.got.iter().all(|(at, _)| *at == Duration::from_millis(99)), "the end does not wait");
        assert_eq!(delivered.count(&["traces"]), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_trace_does_not_take_the_others_along() {
        let delivered = delivered(1..=100, Duration::from_secs(1), |ids| match ids.contains(&37) {
            true => Sent::Refused,
            false => Sent::Taken,
        })
        .await;
        assert_eq!((delivered.count(&["traces"]), delivered.count(&["dropped", "refused"])), (99, 1));
        assert!(delivered.got.len() < 20, "{}", delivered.got.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_refuses_everything_is_not_flooded() {
        let delivered = delivered(1..=100, Duration::from_secs(1), |_| Sent::Refused).await;
        assert_eq!(delivered.count(&["dropped", "refused"]), 100);
        assert!(delivered.got.len() <= SEARCH * 2, "{}", delivered.got.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_taken_comes_again_with_growing_pauses() {
        let mut answers = 0;
        let delivered = delivered(1..=2, Duration::from_secs(60), move |_| {
            answers += 1;
            match answers {
                4 => Sent::Later(Some(Duration::from_secs(10))),
                ..8 => Sent::Later(None),
                _ => Sent::Taken,
            }
        })
        .await;
        let at: Vec<u128> = delivered.got.iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(at, [100, 200, 400, 800, 10_800, 12_400, 15_600, 20_600]);
        assert_eq!((delivered.count(&["traces"]), delivered.count(&["retries"])), (2, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_tries_once_more_and_counts_what_is_left() {
        let delivered = delivered(1..=3, Duration::from_secs(7), |_| Sent::Later(None)).await;
        assert_eq!((delivered.count(&["traces"]), delivered.count(&["dropped", "unsent"])), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_taken_is_not_sent_twice() {
        let delivered = delivered(1..=3, Duration::from_secs(7), |_| Sent::Lost).await;
        assert_eq!((delivered.got.len(), delivered.count(&["dropped", "lost"])), (1, 3));
    }
}

//! Traces on their way out, as many as there is room for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use l5d_telemetry::Counter;
use l5d_telemetry::trace::Trace;
use tokio::sync::Notify;

/// Room for so many records, some 10 MB: seconds of all requests of a busy process, hours of sampled ones.
pub(crate) const ROOM: usize = 100_000;
/// What is sent at once: below what any collector refuses for its size.
const BATCH_RECORDS: usize = 4000;
const BATCH_TRACES: usize = 200;

/// Filled by the threads of requests, emptied by one task.
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    room: usize,
    dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    traces: VecDeque<Arc<Trace>>,
    records: usize,
}

impl Outbox {
    /// With room for so many records; each trace beyond is counted.
    pub(crate) fn new(room: usize, dropped: Counter) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), room, dropped }
    }

    /// Takes a trace along if there is room.
    pub(crate) fn put(&self, trace: &Arc<Trace>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.records + trace.records.len() > self.room {
            drop(waiting);
            self.dropped.incr();
            return;
        }
        waiting.records += trace.records.len();
        waiting.traces.push_back(Arc::clone(trace));
        let first = waiting.traces.len() == 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
    }

    /// Completes when something may have been put in since the last call.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The oldest traces, as many as are sent at once; none when there are none.
    pub(crate) fn batch(&self) -> Vec<Arc<Trace>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut records) = (Vec::new(), 0);
        while let Some(trace) = waiting.traces.front() {
            records += trace.records.len();
            if !batch.is_empty() && (records > BATCH_RECORDS || batch.len() == BATCH_TRACES) {
                break;
            }
            waiting.records -= trace.records.len();
            batch.extend(waiting.traces.pop_front());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::trace;
    use l5d_telemetry::MetricsTree;

    #[tokio::test]
    async fn what_does_not_fit_is_counted() {
        let tree = MetricsTree::new();
        let dropped = tree.scope("x").counter("dropped");
        let size = trace(1, 200).records.len();
        let outbox = Outbox::new(size * 3, dropped.clone());
        for n in 1..=5 {
            outbox.put(&Arc::new(trace(n, 200)));
        }
        outbox.filled().await;
        assert_eq!(dropped.value(), 2);
        assert_eq!(outbox.batch().iter().map(|trace| trace.id.trace).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(outbox.batch().is_empty());
        outbox.put(&Arc::new(trace(6, 200)));
        outbox.filled().await;
        assert_eq!(outbox.batch().len(), 1, "there is room again");
    }

    #[test]
    fn batches_are_bounded_and_never_empty() {
        let tree = MetricsTree::new();
        let outbox = Outbox::new(ROOM, tree.scope("x").counter("dropped"));
        let mut long = trace(1, 200);
        let records = long.records.clone();
        while long.records.len() <= BATCH_RECORDS {
            long.records.extend(records.clone());
        }
        outbox.put(&Arc::new(long));
        for n in 2..=500 {
            outbox.put(&Arc::new(trace(n, 200)));
        }
        let mut sizes = Vec::new();
        loop {
            let batch = outbox.batch();
            if batch.is_empty() {
                break;
            }
            sizes.push(batch.len());
        }
        assert_eq!(sizes[0], 1);
        assert_eq!(sizes.iter().sum::<usize>(), 500);
        assert!(sizes.iter().all(|&size| size * records.len() <= BATCH_RECORDS || size == 1), "{sizes:?}");
    }
}

//! The talk with a Scribe collector: `Log` calls over framed Thrift, one at a time.

use std::sync::Arc;
use std::time::Duration;

use l5d_telemetry::format::zipkin::{Reply, is_acceptable, message, push_log, reply};
use l5d_telemetry::trace::Trace;

use crate::collector::{Carrier, Counts, Link, Parsed, Sent, Teller};

/// Sends spans by Scribe.
pub(super) struct Scribe {
    link: Link,
    sequence: i32,
    counts: Counts,
    teller: Teller,
}

impl Scribe {
    pub(super) fn new(link: Link, counts: &Counts) -> Self {
        let teller = Teller::new("zipkin", link.shown());
        Self { link, sequence: 0, counts: counts.clone(), teller }
    }
}

impl Carrier for Scribe {
    async fn send(&mut self, batch: &[Arc<Trace>], limit: Duration) -> Sent {
        let mut messages = Vec::with_capacity(batch.len() * 2);
        let mut invalid = 0;
        for trace in batch {
            for span in &trace.spans() {
                if is_acceptable(span) { messages.push(message(span)) } else { invalid += 1 }
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut call = Vec::with_capacity(messages.iter().map(Vec::len).sum::<usize>() + 32 * messages.len());
        push_log(&mut call, sequence, messages.iter().map(Vec::as_slice));
        let answer = self.link.exchange(&call, limit, |bytes, _| match reply(bytes, sequence) {
            Ok(None) => Parsed::More,
            Ok(Some(reply)) => {
                let failure = (reply == Reply::Exception).then_some("org.apache.thrift.TApplicationException");
                Parsed::Done { answer: reply, failure, keep: true }
            }
            Err(bad) => Parsed::Bad(bad.to_string()),
        });
        let (sent, why) = match answer.await {
            Ok(Reply::Ok) => (Sent::Taken, None),
            Ok(Reply::TryLater) => (Sent::Later(None), Some("it asks for another try later".to_owned())),
            Ok(Reply::Exception) => (Sent::Refused, Some("it refuses a span".to_owned())),
            Err(failure) => (failure.sent(), Some(failure.to_string())),
        };
        if !matches!(sent, Sent::Later(_) | Sent::Refused) {
            self.counts.invalid.add(invalid);
        }
        self.teller.tell(why);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collector, Reaction, names, telemeter, trace, wait_until};
    use l5d_net::{DrainTrigger, drain};
    use l5d_telemetry::MetricsTree;
    use l5d_telemetry::trace::Tracer;
    use tokio::time::Instant;

    struct Running {
        tree: MetricsTree,
        tracer: Arc<dyn Tracer>,
        trigger: DrainTrigger,
        task: tokio::task::JoinHandle<()>,
    }

    impl Running {
        fn new(port: u16) -> Self {
            let tree = MetricsTree::new();
            let zipkin =
                telemeter(&format!("kind: io.l5d.zipkin\nhost: 127.0.0.1\nport: {port}\nsampleRate: 1.0"), &tree);
            let (trigger, end) = drain();
            Self { tree, tracer: zipkin.tracer().unwrap(), trigger, task: tokio::spawn(zipkin.run(end)) }
        }

        fn record(&self, ids: std::ops::RangeInclusive<u64>) {
            for n in ids {
                self.tracer.record(&Arc::new(trace(n, 200)));
            }
        }

        fn count(&self, name: &str) -> u64 {
            let (scopes, last) = name.rsplit_once('/').unwrap();
            scopes.split('/').fold(self.tree.root(), |scope, name| scope.scope(name)).counter(last).value()
        }

        async fn end(self) {
            self.trigger.drain(Instant::now() + Duration::from_secs(5)).await;
            self.task.await.unwrap();
        }
    }

    /// The frame's sequence, which is behind the name.
    fn answer(frame: &[u8], kind: u8, result: &[u8]) -> Vec<u8> {
        let body = [&[0x80, 1, 0, kind, 0, 0, 0, 3][..], b"Log", &frame[11..15], result].concat();
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    }

    fn ok(frame: &[u8]) -> Reaction {
        Reaction::Say(answer(frame, 2, &[8, 0, 0, 0, 0, 0, 0, 0]))
    }

    #[tokio::test]
    async fn spans_reach_the_collector_and_the_client_is_counted() {
        let collector = Collector::start(ok).await;
        let running = Running::new(collector.port());
        running.record(1..=50);
        wait_until(|| running.count("zipkin/traces") == 50).await;
        assert_eq!(running.count("clnt/zipkin-tracer/success"), running.count("clnt/zipkin-tracer/requests"));
        assert_eq!(running.count("clnt/zipkin-tracer/connects"), 1);
        let sent: usize = collector.frames().iter().map(|frame| frame.len() + 4).sum();
        assert_eq!(running.count("clnt/zipkin-tracer/sent_bytes"), sent as u64);
        let tree = running.tree.clone();
        running.end().await;
        assert_eq!(tree.scope("clnt").scope("zipkin-tracer").counter("closes").value(), 1);
    }

    #[tokio::test]
    async fn a_collector_that_closes_between_calls_is_connected_to_again() {
        let collector = Collector::start(|frame| match ok(frame) {
            Reaction::Say(bytes) => Reaction::SayAndClose(bytes),
            other => other,
        })
        .await;
        let running = Running::new(collector.port());
        for n in 1..=3 {
            running.record(n..=n);
            wait_until(|| running.count("zipkin/traces") == n).await;
        }
        assert_eq!(running.count("clnt/zipkin-tracer/connects"), 3);
        assert_eq!(running.count("clnt/zipkin-tracer/success"), 3);
        running.end().await;
    }

    #[tokio::test]
    async fn a_collector_that_comes_late_misses_nothing() {
        let port = Collector::free_port();
        let running = Running::new(port);
        running.record(1..=20);
        wait_until(|| running.count("zipkin/retries") >= 2).await;
        assert!(running.count("clnt/zipkin-tracer/service_creation/failures") >= 2);
        let _collector = Collector::at(port, ok).await;
        wait_until(|| running.count("zipkin/traces") == 20).await;
        running.end().await;
    }

    #[tokio::test]
    async fn one_bad_trace_is_found_and_left_out() {
        // As Zipkin does over ids of zero: an exception, and nothing of the call is stored.
        let collector = Collector::start(|frame| {
            let bad = trace(13, 200);
            let bad = message(&bad.spans()[0]);
            match frame.windows(bad.len()).any(|window| window == bad) {
                true => Reaction::Say(answer(frame, 3, &[8, 0, 2, 0, 0, 0, 6, 0])),
                false => ok(frame),
            }
        })
        .await;
        let running = Running::new(collector.port());
        running.record(1..=40);
        wait_until(|| running.count("zipkin/traces") == 39).await;
        assert_eq!(running.count("zipkin/dropped/refused"), 1);
        running.end().await;
    }

    #[tokio::test]
    async fn spans_that_no_collector_takes_are_not_sent() {
        let collector = Collector::start(ok).await;
        let running = Running::new(collector.port());
        let mut zero = trace(7, 200);
        for record in &mut zero.records {
            record.span.trace = 0;
        }
        running.tracer.record(&Arc::new(zero));
        running.record(1..=1);
        wait_until(|| running.count("zipkin/traces") == 2).await;
        assert_eq!(running.count("zipkin/dropped/invalid_spans"), 2);
        running.end().await;
    }

    #[tokio::test]
    async fn try_later_is_tried_later() {
        let mut calls = 0;
        let collector = Collector::start(move |frame| {
            calls += 1;
            if calls < 3 { Reaction::Say(answer(frame, 2, &[8, 0, 0, 0, 0, 0, 1, 0])) } else { ok(frame) }
        })
        .await;
        let running = Running::new(collector.port());
        running.record(1..=5);
        wait_until(|| running.count("zipkin/traces") == 5).await;
        assert_eq!(running.count("zipkin/retries"), 2);
        running.end().await;
    }

    #[tokio::test]
    async fn a_hostile_collector_costs_counted_drops() {
        type Hostile = fn(&[u8]) -> Reaction;
        let hostile: [Hostile; 6] = [
            |_| Reaction::Close,
            |_| Reaction::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            |_| Reaction::Say(vec![0xff; 100_000]),
            |_| Reaction::Say(vec![0, 0, 0, 0]),
            |frame| Reaction::SayAndClose(answer(frame, 2, &[8, 0, 0, 0, 0, 0, 0, 0])[..9].to_vec()),
            |frame| Reaction::Say([answer(frame, 2, &[8, 0, 0, 0, 0, 0, 0, 0]), vec![1; 3]].concat()),
        ];
        for (i, reaction) in hostile.into_iter().enumerate() {
            let collector = Collector::start(reaction).await;
            let running = Running::new(collector.port());
            running.record(1..=5);
            wait_until(|| running.count("zipkin/dropped/lost") == 5).await;
            assert_eq!(running.count("zipkin/traces"), 0, "{i}");
            assert!(running.count("clnt/zipkin-tracer/failures") >= 1, "{i}");
            running.end().await;
        }
    }

    #[tokio::test]
    async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
        let collector = Collector::start(|_| Reaction::Nothing).await;
        let running = Running::new(collector.port());
        let size = trace(1, 200).records.len();
        let fit = crate::collector::ROOM / size;
        running.record(1..=1);
        wait_until(|| !collector.frames().is_empty()).await;
        let begun = std::time::Instant::now();
        running.record(2..=fit as u64 + 1001);
        let per_trace = begun.elapsed() / (fit as u32 + 1000);
        assert_eq!(running.count("zipkin/dropped/overflow"), 1000);
        assert!(per_trace < Duration::from_millis(1), "{per_trace:?}");
        let begun = std::time::Instant::now();
        running.trigger.drain(Instant::now() + Duration::from_millis(300)).await;
        running.task.abort();
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(names(&running.tree, "zipkin/").contains(&"dropped/lost".to_owned()));
    }
}

//! Metrics, told once an interval, and once more at the end.
//!
//! A request that a collector is too busy for is tried again within the interval; one that failed for good is part of what
//! the next one tells, whichever temporality is asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use l5d_net::Drain;
use l5d_telemetry::format::otlp::{Metrics, Options, Request};
use l5d_telemetry::{Counter, MetricsTree};
use tokio::time::{Instant, sleep, sleep_until};

use super::Sender;
use super::settings::Settings;
use crate::collector::Sent;

/// The first pause before another try, doubled with each that follows.
const PAUSE: Duration = Duration::from_millis(500);

/// Tells a tree's metrics.
pub(super) struct Push {
    metrics: Metrics,
    sender: Sender,
    interval: Duration,
    timeout: Duration,
    requests: Counter,
    points: Counter,
    retries: Counter,
    failures: Counter,
    left_out: Counter,
}

impl Push {
    pub(super) fn new(tree: &MetricsTree, settings: &Settings, sender: Sender) -> Self {
        let options = Options {
            resource: settings.resource.clone(),
            temporality: settings.temporality,
            histograms: settings.histograms,
        };
        let scope = tree.scope("otlp").scope("metrics");
        Self {
            metrics: Metrics::new(tree, options, now_ns()),
            sender,
            interval: settings.interval,
            timeout: settings.metrics.timeout,
            requests: scope.counter("requests"),
            points: scope.counter("points"),
            retries: scope.counter("retries"),
            failures: scope.counter("failures"),
            left_out: scope.counter("left_out"),
        }
    }

    /// Until the drain has started; what came since then is told once more.
    pub(super) async fn run(&mut self, drain: &Drain) {
        let mut next = Instant::now() + self.interval;
        loop {
            tokio::select! {
                biased;
                () = drain.started() => break,
                () = sleep_until(next) => {}
            }
            // From now, not from when it was due: after a pause there is one, not a burst of them.
            next = Instant::now() + self.interval;
            self.tell(next, drain).await;
        }
        let end = drain.deadline().unwrap_or_else(Instant::now);
        self.tell(end, drain).await;
    }

    async fn tell(&mut self, until: Instant, drain: &Drain) {
        for request in self.metrics.collect(now_ns()) {
            if self.send(&request, until, drain).await {
                self.requests.incr();
                self.points.add(request.points as u64);
                self.metrics.taken(&request);
            } else {
                self.failures.incr();
            }
        }
    }

    /// Whether it was taken.
    async fn send(&mut self, request: &Request, until: Instant, drain: &Drain) -> bool {
        let mut pause = PAUSE;
        loop {
            let end = drain.deadline().unwrap_or_else(|| Instant::now() + self.timeout);
            let limit = self.timeout.min(end.saturating_duration_since(Instant::now()));
            let (sent, left_out) = self.sender.send(&request.body, limit).await;
            self.left_out.add(left_out);
            let wait = match sent {
                Sent::Taken => return true,
                Sent::Refused | Sent::Lost => return false,
                Sent::Later(asked_for) => asked_for.unwrap_or(pause).max(pause),
            };
            pause *= 2;
            if drain.is_started() || Instant::now() + wait >= until {
                return false;
            }
            self.retries.incr();
            tokio::select! {
                biased;
                () = drain.started() => {}
                () = sleep(wait) => {}
            }
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::built;
    use super::*;
    use crate::testing::{Collector, Reaction, wait_until};
    use l5d_net::drain;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_delta_that_failed_comes_with_the_next() {
        let statuses = ["500 x", "404 x", "200 OK", "200 OK"].map(str::to_owned);
        let left = Arc::new(Mutex::new(statuses.into_iter()));
        let tree = MetricsTree::new();
        let counter = tree.scope("rt").scope("http").scope("server").scope("s").counter("requests");
        counter.add(5);
        let more = counter.clone();
        let collector = Collector::start_http(move |_| {
            more.add(1);
            let status = left.lock().unwrap().next().unwrap_or_else(|| "200 OK".to_owned());
            Reaction::Say(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
        })
        .await;
        let yaml =
            format!("endpoint: http://127.0.0.1:{}\ninterval: 20\ntemporality: delta\ntraces: false", collector.port());
        let otlp = built(&yaml, &tree, &[]).unwrap();
        assert!(otlp.tracer().is_none());
        let (trigger, end) = drain();
        let task = tokio::spawn(otlp.run(end));
        wait_until(|| collector.frames().len() >= 4).await;
        trigger.drain(Instant::now() + Duration::from_secs(5)).await;
        task.await.unwrap();
        let told: Vec<u64> = collector.frames().iter().map(|request| value(request, b"l5d_server_requests")).collect();
        assert_eq!(told[..4], [5, 6, 7, 1]);
        assert_eq!(told.iter().skip(2).sum::<u64>(), counter.value() - 1, "all of it was told, but the last answer's");
        let scope = tree.scope("otlp").scope("metrics");
        assert_eq!(scope.counter("failures").value(), 2);
    }

    /// The `as_int` of the only value of that name: behind the tags of its start, its time and itself.
    fn value(request: &[u8], name: &[u8]) -> u64 {
        let at = request.windows(name.len()).position(|window| window == name).unwrap();
        let point =
            request[at..].windows(27).find(|bytes| (bytes[0], bytes[9], bytes[18]) == (0x11, 0x19, 0x31)).unwrap();
        u64::from_le_bytes(point[19..].try_into().unwrap())
    }
}

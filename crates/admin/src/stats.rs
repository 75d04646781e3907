//! What the admin server measures of itself: `srv/adminhttp/…`, the names of a Linkerd 1 server.
//!
//! Left out, because nothing here can know them: `rejected_invalid_header_names` and `…_values` (hyper refuses such requests
//! without saying which).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use l5d_net::TcpInfo;
use l5d_telemetry::{Counter, GaugeGuard, Level, MetricsTree, Scope, Spread, Stat};

/// The handles, made once per server. Two servers over one tree share the counters, their gauges add up.
pub(crate) struct Stats {
    scope: Scope,
    pub(crate) requests: Counter,
    pub(crate) success: Counter,
    pub(crate) failures: Counter,
    pub(crate) request_latency_ms: Stat,
    pub(crate) handletime_us: Stat,
    pub(crate) pending: Level,
    pub(crate) request_payload_bytes: Stat,
    pub(crate) response_payload_bytes: Stat,
    pub(crate) request_stream: StreamStats,
    pub(crate) response_stream: StreamStats,
    pub(crate) connects: Counter,
    pub(crate) closes: Counter,
    pub(crate) connections: Level,
    pub(crate) tls_connections: Level,
    pub(crate) connection_duration: Stat,
    pub(crate) connection_requests: Stat,
    pub(crate) connection_received_bytes: Stat,
    pub(crate) connection_sent_bytes: Stat,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) socket_writable_ms: Counter,
    pub(crate) socket_unwritable_ms: Counter,
    pub(crate) read_timeout: Counter,
    pub(crate) write_timeout: Counter,
    tcp_retransmits: Counter,
    tcp_send_window_size: Stat,
    threads: Threads,
    /// Names that Linkerd 1 has and that can't move here: the admin server knows no dtabs, deadlines and refusals.
    _still: (Vec<Counter>, Vec<Stat>),
}

/// `http/stream/{request,response}/…`: bodies whose length was not told beforehand.
pub(crate) struct StreamStats {
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) pending: Level,
    pub(crate) duration_ms: Stat,
    pub(crate) chunk_payload_bytes: Stat,
}

impl Stats {
    pub(crate) fn new(tree: &MetricsTree) -> Self {
        let scope = tree.scope("srv").scope("adminhttp");
        let counter = |name| scope.counter(name);
        let stat = |name| scope.stat(name);
        let deadline = scope.scope("admission_control").scope("deadline");
        let still = (
            vec![
                counter("nacks"),
                counter("nonretryable_nacks"),
                deadline.counter("exceeded"),
                deadline.counter("rejected"),
            ],
            vec![
                stat("transit_latency_ms"),
                scope.scope("dtab").stat("size"),
                deadline.stat("expired_ms"),
                deadline.stat("remaining_ms"),
            ],
        );
        Self {
            requests: counter("requests"),
            success: counter("success"),
            failures: counter("failures"),
            request_latency_ms: stat("request_latency_ms"),
            handletime_us: stat("handletime_us"),
            pending: scope.level("pending"),
            request_payload_bytes: stat("request_payload_bytes"),
            response_payload_bytes: stat("response_payload_bytes"),
            request_stream: StreamStats::new(&scope, "request"),
            response_stream: StreamStats::new(&scope, "response"),
            connects: counter("connects"),
            closes: counter("closes"),
            connections: scope.level("connections"),
            tls_connections: scope.scope("tls").level("connections"),
            connection_duration: stat("connection_duration"),
            connection_requests: stat("connection_requests"),
            connection_received_bytes: stat("connection_received_bytes"),
            connection_sent_bytes: stat("connection_sent_bytes"),
            received_bytes: counter("received_bytes"),
            sent_bytes: counter("sent_bytes"),
            socket_writable_ms: counter("socket_writable_ms"),
            socket_unwritable_ms: counter("socket_unwritable_ms"),
            read_timeout: counter("read_timeout"),
            write_timeout: counter("write_timeout"),
            tcp_retransmits: counter("tcp_retransmits"),
            tcp_send_window_size: stat("tcp_send_window_size"),
            threads: Threads::new(&scope),
            _still: still,
            scope,
        }
    }

    /// A request was answered with this status.
    pub(crate) fn answered(&self, failed: bool) {
        self.requests.incr();
        if failed {
            self.failures.incr();
            self.scope
                .scope("failures")
                .counter("com.twitter.finagle.service.ResponseClassificationSyntheticException")
                .incr();
        } else {
            self.success.incr();
        }
        self.threads.count();
    }

    /// What the kernel knows of a connection.
    pub(crate) fn sample(&self, info: TcpInfo) {
        self.tcp_retransmits.add(info.retransmits.into());
        self.tcp_send_window_size.add(info.send_window);
    }

    /// A connection ended with this exception, by its Java name.
    pub(crate) fn exception(&self, class: &str) {
        self.scope.scope("exn").counter(class).incr();
    }

    /// A TLS handshake ended after so long. The stats appear with the first one.
    pub(crate) fn handshake(&self, ok: bool, ms: u64) {
        let name = if ok { "handshake_latency_ms" } else { "failed_handshake_latency_ms" };
        self.scope.scope("tls").stat(name).add(ms);
    }

    /// Tasks that wait for the runtime: read by a gauge that lives as long as the guard.
    pub(crate) fn pending_io_events(&self, runtime: tokio::runtime::Handle) -> GaugeGuard {
        self.scope.gauge("pending_io_events", move || runtime.metrics().global_queue_depth() as f64)
    }

    /// A minute has passed.
    pub(crate) fn minute(&self) {
        self.threads.minute();
    }
}

impl StreamStats {
    fn new(scope: &Scope, direction: &str) -> Self {
        let stream = scope.scope("http").scope("stream").scope(direction);
        Self {
            opened: stream.counter("opened"),
            closed: stream.counter("closed"),
            pending: stream.level("pending"),
            duration_ms: stream.stat("duration_ms"),
            chunk_payload_bytes: scope.scope("stream").scope(direction).stat("chunk_payload_bytes"),
        }
    }
}

/// `thread_usage/requests/…`: how evenly requests fall on threads, computed anew each minute.
struct Threads {
    per_thread: Scope,
    /// By thread name: its counter, and its requests in the current minute.
    counts: Mutex<HashMap<String, (Counter, u64)>>,
    last: Arc<Mutex<Spread>>,
    _gauges: [GaugeGuard; 3],
}

impl Threads {
    fn new(scope: &Scope) -> Self {
        let scope = scope.scope("thread_usage").scope("requests");
        let last = Arc::new(Mutex::new(Spread::default()));
        let told = Arc::clone(&last);
        let gauges = Spread::gauges(&scope, move || *told.lock().unwrap_or_else(PoisonError::into_inner));
        Self { per_thread: scope.scope("per_thread"), counts: Mutex::default(), last, _gauges: gauges }
    }

    fn count(&self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.contains_key(name) {
            counts.insert(name.to_owned(), (self.per_thread.counter(name), 0));
        }
        if let Some((counter, minute)) = counts.get_mut(name) {
            counter.incr();
            *minute += 1;
        }
    }

    fn minute(&self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let minutes: Vec<f64> = counts.values_mut().map(|(_, minute)| std::mem::take(minute) as f64).collect();
        drop(counts);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Spread::of(&minutes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_tells_how_evenly_threads_were_used() {
        let tree = MetricsTree::new();
        let threads = Threads::new(&tree.scope("a"));
        let shown = || {
            let Spread { mean, stddev, relative_stddev } = *threads.last.lock().unwrap();
            [mean, stddev, relative_stddev]
        };
        let threads = &threads;
        std::thread::scope(|scope| {
            for (name, requests) in [("one", 1), ("two", 3)] {
                let count = move || (0..requests).for_each(|_| threads.count());
                std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, count).unwrap();
            }
        });
        assert_eq!(shown(), [0.0; 3], "nothing before the minute ends");
        threads.minute();
        assert_eq!(shown(), [2.0, 1.0, 0.5]);
        threads.minute();
        assert_eq!(shown(), [0.0; 3], "each minute is a new one");
    }
}

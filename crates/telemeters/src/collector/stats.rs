//! What a client of a collector counts: the metrics that a client of Linkerd's had (metrics-catalog §1.11).

use std::time::Duration;

use l5d_telemetry::{Counter, GaugeGuard, Level, Scope, Stat};

/// The metrics of one client; all of them exist at once, but for what counts failures by name.
pub(crate) struct LinkStats {
    scope: Scope,
    pub(crate) requests: Counter,
    pub(crate) success: Counter,
    failures: Counter,
    pub(crate) pending: Level,
    pub(crate) request_latency_ms: Stat,
    pub(crate) connects: Counter,
    pub(crate) closes: Counter,
    pub(crate) connections: Level,
    pub(crate) connect_latency_ms: Stat,
    pub(crate) failed_connect_latency_ms: Stat,
    pub(crate) cancelled_connects: Counter,
    pub(crate) acquisition_ms: Stat,
    pub(crate) preparation_ms: Stat,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) connection_duration: Stat,
    pub(crate) connection_sent_bytes: Stat,
    pub(crate) connection_received_bytes: Stat,
    pub(crate) connection_requests: Stat,
    pub(crate) writable_ms: Counter,
    pub(crate) unwritable_ms: Counter,
    pub(crate) pool_cached: Level,
    /// There is one connection, and nobody waits for it: these stay as they are.
    _still: (Level, Level, Counter, Counter, Stat),
    _available: GaugeGuard,
}

impl LinkStats {
    /// Under `scope`, `clnt/<label>`.
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            requests: scope.counter("requests"),
            success: scope.counter("success"),
            failures: scope.counter("failures"),
            pending: scope.level("pending"),
            request_latency_ms: scope.stat("request_latency_ms"),
            connects: scope.counter("connects"),
            closes: scope.counter("closes"),
            connections: scope.level("connections"),
            connect_latency_ms: scope.stat("connect_latency_ms"),
            failed_connect_latency_ms: scope.stat("failed_connect_latency_ms"),
            cancelled_connects: scope.counter("cancelled_connects"),
            acquisition_ms: scope.scope("service_creation").stat("service_acquisition_latency_ms"),
            preparation_ms: scope.stat("codec_connection_preparation_latency_ms"),
            sent_bytes: scope.counter("sent_bytes"),
            received_bytes: scope.counter("received_bytes"),
            connection_duration: scope.stat("connection_duration"),
            connection_sent_bytes: scope.stat("connection_sent_bytes"),
            connection_received_bytes: scope.stat("connection_received_bytes"),
            connection_requests: scope.stat("connection_requests"),
            writable_ms: scope.counter("socket_writable_ms"),
            unwritable_ms: scope.counter("socket_unwritable_ms"),
            pool_cached: scope.level("pool_cached"),
            _still: (
                scope.level("pool_size"),
                scope.level("pool_waiters"),
                scope.counter("pool_num_waited"),
                scope.counter("pool_num_too_many_waiters"),
                scope.scope("dtab").stat("size"),
            ),
            // Neither failure accrual nor fail-fast: Finagle's client is always available.
            _available: scope.gauge("available", || 1.0),
        }
    }

    /// A request that got no good answer.
    pub(crate) fn failed(&self, class: &'static str) {
        self.failures.incr();
        self.scope.scope("failures").counter(class).incr();
    }

    /// A connection could not be made.
    pub(crate) fn not_connected(&self, class: &'static str) {
        let creation = self.scope.scope("service_creation");
        creation.counter("failures").incr();
        creation.scope("failures").counter(class).incr();
        self.scope.scope("exn").counter(class).incr();
    }

    /// A connection broke.
    pub(crate) fn broke(&self, class: &'static str) {
        self.scope.scope("exn").counter(class).incr();
    }
}

/// Whole milliseconds, cut off as Finagle does.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

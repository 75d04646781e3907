//! What an HTTP server or client counts beyond the requests themselves: status classes, payload and stream sizes,
//! connections and bytes (metrics-catalog §1.2, §1.4). Each struct is the set of one scope, made when the stack is
//! built; status codes get their counters when they first occur.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use l5d_net::{Sampled, TcpSampler};
use l5d_router::stats::{Breakdown, millis};
use l5d_telemetry::{Counter, Level, Scope, Stat};
use tokio::net::TcpStream;

/// `status/*` and `time/*`: one count and one time per response (`StatusCodeStatsFilter`).
#[derive(Debug)]
pub(crate) struct StatusStats {
    scope: Scope,
    codes: [OnceLock<Box<[OnceLock<Counter>; 100]>>; 10],
    classes: [Counter; 5],
    times_ms: [Stat; 5],
    error: Counter,
    error_ms: Stat,
}

impl StatusStats {
    pub(crate) fn new(scope: &Scope) -> Self {
        let (status, time) = (scope.scope("status"), scope.scope("time"));
        const CLASSES: [&str; 5] = ["1XX", "2XX", "3XX", "4XX", "5XX"];
        Self {
            codes: Default::default(),
            classes: CLASSES.map(|c| status.counter(c)),
            times_ms: CLASSES.map(|c| time.stat(c)),
            error: status.counter("error"),
            error_ms: time.stat("error"),
            scope: status,
        }
    }

    /// A response of this status took `elapsed`. Codes beyond 599 have a counter but no class, as in Linkerd.
    pub(crate) fn response(&self, status: StatusCode, elapsed: Duration) {
        let ms = millis(elapsed);
        // Nearly all are: that way has nothing to compute.
        let ok = || self.codes[2].get()?[0].get();
        if let (StatusCode::OK, Some(ok)) = (status, ok()) {
            ok.incr();
            self.classes[1].incr();
            self.times_ms[1].add(ms);
        } else {
            self.response_of_any(status, ms);
        }
    }

    #[inline(never)]
    fn response_of_any(&self, status: StatusCode, ms: u64) {
        let code = status.as_u16();
        let hundred = usize::from(code / 100).min(9);
        let block = self.codes[hundred].get_or_init(|| Box::new([const { OnceLock::new() }; 100]));
        block[usize::from(code % 100)].get_or_init(|| self.scope.counter(status.as_str())).incr();
        if let (Some(count), Some(time)) = (self.classes.get(hundred - 1), self.times_ms.get(hundred - 1)) {
            count.incr();
            time.add(ms);
        }
    }

    /// The attempt ended without a response.
    pub(crate) fn error(&self, elapsed: Duration) {
        self.error.incr();
        self.error_ms.add(millis(elapsed));
    }
}

/// One direction's streamed messages: `http/stream/<side>/*` and `stream/<side>/chunk_payload_bytes`
/// (`StreamingStatsFilter`, `PayloadSizeFilter`).
#[derive(Debug)]
pub(crate) struct StreamStats {
    opened: Counter,
    closed: Counter,
    pending: Level,
    duration_ms: Stat,
    chunk_bytes: Stat,
    failures: Breakdown,
}

impl StreamStats {
    fn new(scope: &Scope, side: &str) -> Arc<Self> {
        let http = scope.scope("http").scope("stream").scope(side);
        Arc::new(Self {
            opened: http.counter("opened"),
            closed: http.counter("closed"),
            pending: http.level("pending"),
            duration_ms: http.stat("duration_ms"),
            chunk_bytes: scope.scope("stream").scope(side).stat("chunk_payload_bytes"),
            failures: Breakdown::new(&http),
        })
    }

    /// A streamed message begins.
    pub(crate) fn open(self: &Arc<Self>) -> OpenStream {
        self.opened.incr();
        self.pending.incr();
        OpenStream { stats: Arc::clone(self), since: Instant::now() }
    }
}

/// A streamed message under way; closed when dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    stats: Arc<StreamStats>,
    since: Instant,
}

impl OpenStream {
    /// A chunk passed.
    pub(crate) fn chunk(&self, bytes: usize) {
        self.stats.chunk_bytes.add(bytes as u64);
    }

    /// The stream broke off.
    pub(crate) fn failed(&self) {
        self.stats.failures.count_with_total("failures", l5d_router::error::Kind::ChannelClosed.chain());
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.stats.closed.incr();
        self.stats.pending.decr();
        self.stats.duration_ms.add(millis(self.since.elapsed()));
    }
}

/// Sizes of messages, whole and streamed, of one scope.
#[derive(Debug)]
pub(crate) struct MessageStats {
    pub(crate) request_bytes: Stat,
    pub(crate) response_bytes: Stat,
    pub(crate) request_stream: Arc<StreamStats>,
    pub(crate) response_stream: Arc<StreamStats>,
}

impl MessageStats {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            request_bytes: scope.stat("request_payload_bytes"),
            response_bytes: scope.stat("response_payload_bytes"),
            request_stream: StreamStats::new(scope, "request"),
            response_stream: StreamStats::new(scope, "response"),
        }
    }
}

/// Connections of one scope: Finagle's `SharedChannelStats` and what hangs on each connection.
#[derive(Debug)]
pub(crate) struct ConnectionStats {
    connects: Counter,
    closes: Counter,
    connections: Level,
    tls_connections: Level,
    received_bytes: Counter,
    sent_bytes: Counter,
    duration_ms: Stat,
    connection_received_bytes: Stat,
    connection_sent_bytes: Stat,
    connection_requests: Stat,
    writable_ms: Counter,
    unwritable_ms: Counter,
    pub(crate) read_timeout: Counter,
    pub(crate) write_timeout: Counter,
    // Held so that they exist: nothing in this runtime queues tasks by connection.
    _pending_io_events: Level,
    tcp_retransmits: Counter,
    tcp_send_window_size: Stat,
    sampler: Arc<TcpSampler>,
    exceptions: Breakdown,
    scope: Scope,
}

impl ConnectionStats {
    /// The counts of a scope; `sampler` feeds those that only the kernel knows.
    pub(crate) fn new(scope: &Scope, sampler: &Arc<TcpSampler>) -> Arc<Self> {
        Arc::new(Self {
            connects: scope.counter("connects"),
            closes: scope.counter("closes"),
            connections: scope.level("connections"),
            tls_connections: scope.scope("tls").level("connections"),
            received_bytes: scope.counter("received_bytes"),
            sent_bytes: scope.counter("sent_bytes"),
            duration_ms: scope.stat("connection_duration"),
            connection_received_bytes: scope.stat("connection_received_bytes"),
            connection_sent_bytes: scope.stat("connection_sent_bytes"),
            connection_requests: scope.stat("connection_requests"),
            writable_ms: scope.counter("socket_writable_ms"),
            unwritable_ms: scope.counter("socket_unwritable_ms"),
            read_timeout: scope.counter("read_timeout"),
            write_timeout: scope.counter("write_timeout"),
            _pending_io_events: scope.level("pending_io_events"),
            tcp_retransmits: scope.counter("tcp_retransmits"),
            tcp_send_window_size: scope.stat("tcp_send_window_size"),
            sampler: Arc::clone(sampler),
            exceptions: Breakdown::new(scope),
            scope: scope.clone(),
        })
    }

    /// Counts what the kernel knows of a connection, while the result lives.
    pub(crate) fn sample(&self, tcp: &TcpStream) -> Sampled {
        let (retransmits, window) = (self.tcp_retransmits.clone(), self.tcp_send_window_size.clone());
        self.sampler.watch(tcp, move |info| {
            retransmits.add(info.retransmits.into());
            window.add(info.send_window);
        })
    }

    /// A connection is established.
    pub(crate) fn open(self: &Arc<Self>, tls: bool, sampled: Sampled) -> Arc<OpenConnection> {
        self.connects.incr();
        self.connections.incr();
        if tls {
            self.tls_connections.incr();
        }
        Arc::new(OpenConnection {
            stats: Arc::clone(self),
            since: Instant::now(),
            tls,
            _sampled: sampled,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        })
    }

    /// A connection could not be established: Netty closes the channel that failed, and counts it.
    pub(crate) fn failed_connect(&self) {
        self.closes.incr();
    }

    /// A connection that was made and could not be used, for want of a TLS handshake: opened, and over at once. Its
    /// close is counted by [`ConnectionStats::failed_connect`].
    pub(crate) fn failed_handshake(self: &Arc<Self>, sampled: Sampled) {
        self.exception(&["io.netty.handler.codec.DecoderException"]);
        drop(self.open(false, sampled));
    }

    /// An exception reached the connection: `exn/<class>`.
    pub(crate) fn exception(&self, class: &'static [&'static str]) {
        self.exceptions.count("exn", class, &[], None);
    }

    /// A TLS handshake took `elapsed`.
    pub(crate) fn handshake(&self, ok: bool, elapsed: Duration) {
        let tls = self.scope.scope("tls");
        let (good, bad) = (tls.stat("handshake_latency_ms"), tls.stat("failed_handshake_latency_ms"));
        if ok { good } else { bad }.add(millis(elapsed));
    }
}

/// One open connection; its statistics are added when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    stats: Arc<ConnectionStats>,
    since: Instant,
    tls: bool,
    _sampled: Sampled,
    // Written by the connection's own task only, read at its end: plain loads and stores suffice.
    received: AtomicU64,
    sent: AtomicU64,
    messages: AtomicU64,
}

impl OpenConnection {
    pub(crate) fn received(&self, bytes: usize) {
        self.stats.received_bytes.add(bytes as u64);
        self.received.store(self.received.load(Relaxed) + bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.stats.sent_bytes.add(bytes as u64);
        self.sent.store(self.sent.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// A message, or a chunk of one, came in.
    pub(crate) fn message(&self) {
        self.messages.store(self.messages.load(Relaxed) + 1, Relaxed);
    }

    /// How many bytes have been written.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// This side closes the connection.
    pub(crate) fn closing(&self) {
        self.stats.closes.incr();
    }

    /// The time that writing waited for the peer.
    pub(crate) fn blocked_for(&self, d: Duration) {
        self.stats.unwritable_ms.add(millis(d));
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let s = &self.stats;
        s.connections.decr();
        if self.tls {
            s.tls_connections.decr();
        }
        let age = millis(self.since.elapsed());
        s.duration_ms.add(age);
        s.writable_ms.add(age);
        s.connection_received_bytes.add(self.received.load(Relaxed));
        s.connection_sent_bytes.add(self.sent.load(Relaxed));
        s.connection_requests.add(self.messages.load(Relaxed));
    }
}

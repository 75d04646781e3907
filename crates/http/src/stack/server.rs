//! The server stack: what every request to one server goes through before it is named (http-behaviour §1, metrics-catalog
//! §1.2).
//!
//! From the outside in, as [`ServerStack::call`] runs it:
//!
//! 1. status and time classes: outermost, so that every answer counts there, whoever made it;
//! 2. the context is read and its headers removed, or stripped (`clearContext`): first, so that nothing below sees what
//!    is not trusted; a dtab that cannot be parsed ends here;
//! 3. errors from below become responses;
//! 4. `Forwarded`, the timestamp header, the call depth;
//! 5. the server's span;
//! 6. streams and payloads are counted;
//! 7. nacks: a refusal for overload becomes the answer that another proxy understands;
//! 8. request counts, which therefore do not see what the call depth refuses (as in Linkerd);
//! 9. the concurrency limit; the deadline that came along is counted; the server's own time-out;
//! 10. the router: identify, then the path stack.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, StatusCode, Version};
use l5d_router::{
    clock,
    error::{Error, Kind},
    stats::{InFlight, Outcome, RequestStats},
    worker,
};
use l5d_telemetry::{Counter, GaugeGuard, Level, Scope, Spread, Stat};
use tokio::time::Instant;

use crate::{
    body::{Body, CollectError, Incoming, collect},
    codec::{
        RequestHead, Response,
        headers::{Present, text},
        parse::{Length, has_token},
    },
    ctx::Ctx,
    duration::show_duration,
    filters::{
        client_cert::ClientCertificate,
        compression::Compression,
        deadline::{self, Deadlines},
        forwarded::Forwarded,
    },
    headers::{self, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING},
    identifiers::describe,
    respond::{self, ErrorLimits},
    router::HttpRouter,
    spans,
    stats::{ConnectionStats, MessageStats, StatusStats},
};

/// What a configured server is told to do with requests.
#[derive(Debug)]
pub(crate) struct ServerRules {
    pub(crate) max_concurrent_requests: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) clear_context: bool,
    pub(crate) forwarded: Option<Forwarded>,
    pub(crate) timestamp_header: Option<HeaderName>,
    pub(crate) max_call_depth: usize,
    pub(crate) compression: Compression,
    pub(crate) error_limits: ErrorLimits,
}

/// One server's stack, shared by its connections.
pub(crate) struct ServerStack {
    pub(crate) label: Arc<str>,
    router: Arc<HttpRouter>,
    rules: ServerRules,
    pub(crate) connections: Arc<ConnectionStats>,
    pub(crate) scope: Scope,
    status: StatusStats,
    messages: MessageStats,
    requests: RequestStats,
    handletime_us: Stat,
    transit_latency_ms: Stat,
    dtab_size: Stat,
    nacks: Counter,
    _nonretryable_nacks: Counter,
    concurrency: Option<Concurrency>,
    threads: ThreadUsage,
    stream_failures: l5d_router::stats::Breakdown,
}

struct Concurrency {
    limit: usize,
    now: Arc<AtomicUsize>,
    _request_concurrency: GaugeGuard,
    _request_queue_size: Level,
}

/// `thread_usage/requests/*`: how evenly the workers are used.
struct ThreadUsage {
    per_thread: Vec<Counter>,
    _gauges: [GaugeGuard; 3],
}

impl ThreadUsage {
    fn new(scope: &Scope, workers: usize) -> Self {
        let requests = scope.scope("thread_usage").scope("requests");
        let threads = requests.scope("per_thread");
        let per_thread: Vec<_> = (0..workers).map(|i| threads.counter(&format!("worker-{i}"))).collect();
        let minute = Mutex::new(Minute::new(&per_thread, Instant::now()));
        let told = move || minute.lock().unwrap_or_else(PoisonError::into_inner).told(Instant::now());
        Self { _gauges: Spread::gauges(&requests, told), per_thread }
    }
}

/// The workers' requests of one minute after the other, as Finagle's `ThreadUsage` tells of them: a minute's numbers stand
/// until the next one has gone by, which is noticed by whoever asks.
struct Minute {
    per_thread: Vec<Counter>,
    began: Instant,
    /// The counts at its beginning.
    from: Vec<u64>,
    /// What it came to in the minute before.
    told: Spread,
}

impl Minute {
    fn new(per_thread: &[Counter], now: Instant) -> Self {
        let from = per_thread.iter().map(Counter::value).collect();
        Self { per_thread: per_thread.to_vec(), began: now, from, told: Spread::default() }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn told(&mut self, now: Instant) -> Spread {
        let passed = now.saturating_duration_since(self.began);
        if passed >= MINUTE {
            let counts: Vec<u64> = self.per_thread.iter().map(Counter::value).collect();
            // Where nobody asked for longer, it is a minute's share of that time.
            let share = MINUTE.as_secs_f64() / passed.as_secs_f64();
            let requests = counts.iter().zip(&self.from).map(|(now, from)| (now - from) as f64 * share);
            self.told = Spread::of(&requests.collect::<Vec<_>>());
            (self.began, self.from) = (now, counts);
        }
        self.told
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// What a connection knows about itself.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) local: SocketAddr,
    /// What it showed in the TLS handshake.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// The random label of this connection in `Forwarded`.
    pub(crate) connection_label: Arc<str>,
    /// What became of the deadlines that came with its requests.
    pub(crate) deadlines: Arc<Deadlines>,
}

impl ServerStack {
    pub(crate) fn new(
        label: Arc<str>,
        scope: Scope,
        router: Arc<HttpRouter>,
        rules: ServerRules,
        workers: usize,
    ) -> Arc<Self> {
        let concurrency = rules.max_concurrent_requests.map(|limit| {
            let now = Arc::new(AtomicUsize::new(0));
            let shown = Arc::clone(&now);
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            Concurrency {
                limit,
                now,
                _request_concurrency: scope.gauge("request_concurrency", move || shown.load(Relaxed) as f64),
                _request_queue_size: scope.level("request_queue_size"),
            }
        });
        Arc::new(Self {
            label,
            connections: ConnectionStats::new(&scope, router.sampler()),
            router,
            rules,
            status: StatusStats::new(&scope),
            messages: MessageStats::new(&scope),
            requests: RequestStats::new(&scope),
            handletime_us: scope.stat("handletime_us"),
            transit_latency_ms: scope.stat("transit_latency_ms"),
            dtab_size: scope.scope("dtab").stat("size"),
            nacks: scope.counter("nacks"),
            _nonretryable_nacks: scope.counter("nonretryable_nacks"),
            concurrency,
            threads: ThreadUsage::new(&scope, workers),
            stream_failures: l5d_router::stats::Breakdown::new(&scope.scope("dispatch").scope("stream")),
            scope,
        })
    }

    /// Answers a request. The future may be dropped at any await: the requester went away, and is counted.
    pub(crate) async fn call(
        self: &Arc<Self>,
        peer: &Peer,
        mut head: RequestHead,
        length: Length,
        incoming: Option<Incoming>,
    ) -> Response {
        if let Some(status) = wire_error(&head) {
            return respond::wire(status);
        }
        let present = head.headers.present();
        let body = match self.body(length, incoming).await {
            Ok(body) => body,
            Err(status) => return respond::wire(status),
        };
        let began = clock::event();
        let arrived = Arrived { stack: self, began, answered: false };
        let method = head.method.clone();
        let closes = head.version == Version::HTTP_10
            && !head.headers.get(CONNECTION).is_some_and(|v| has_token(v, "keep-alive"));
        let accepts = present.has(Present::ACCEPT_ENCODING).then(|| self.rules.compression.accepted(&head)).flatten();
        let mut response = self.answer(peer, &mut head, present, body, began).await;
        if self.rules.clear_context {
            clear(&mut response);
        }
        let status = response.status;
        if method == http::Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            response.headers.remove(TRANSFER_ENCODING);
            if status == StatusCode::NO_CONTENT {
                response.headers.remove(CONTENT_LENGTH);
            }
        } else {
            self.rules.compression.apply(accepts, &method, &mut response);
        }
        if closes {
            response.headers.set(CONNECTION, "close");
        }
        arrived.answer(&response);
        if response.body.is_stream() {
            let stack = Arc::clone(self);
            let body = &mut response.body;
            body.watch(self.messages.response_stream.open());
            body.on_failure(move || {
                stack.stream_failures.count_with_total("failures", Kind::ChannelClosed.chain());
            });
        } else if let Some(bytes) = response.closed_stream {
            self.messages.response_stream.open().chunk(bytes);
        } else if let Some(bytes) = response.body.as_full() {
            self.messages.response_bytes.add(bytes.len() as u64);
        }
        response
    }

    /// The request's body: held whole when it is short and of known length, streamed otherwise.
    async fn body(&self, length: Length, incoming: Option<Incoming>) -> Result<Body, StatusCode> {
        let Some(mut incoming) = incoming else { return Ok(Body::empty()) };
        let limits = self.router.message_limits();
        if limits.streaming && !matches!(length, Length::Known(n) if n <= limits.buffer_bytes) {
            return Ok(Body::stream(incoming));
        }
        match collect(&mut incoming, i32::MAX as u64).await {
            Ok(bytes) => Ok(Body::full(bytes)),
            Err(CollectError::TooLong) => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(CollectError::Broken(_)) => Err(StatusCode::BAD_REQUEST),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        head: &mut RequestHead,
        present: Present,
        mut body: Body,
        began: Instant,
    ) -> Response {
        let limits = self.rules.error_limits;
        let ctx =
            if self.rules.clear_context { Ok(Ctx::cleared(&mut head.headers)) } else { Ctx::take(&mut head.headers) };
        let mut ctx = match ctx {
            Ok(ctx) => ctx,
            Err(e) => {
                // Linkerd counts this nowhere; here every request that got an answer is counted.
                let e = Error::new(Kind::BadDtab, e.to_string());
                self.requests.begin().finish(Outcome::Error(&e), clock::since(began));
                return respond::error(&e, limits);
            }
        };
        // `Expect: 100-continue` has been answered by the time the request is forwarded; any other is passed on.
        if present.has(Present::EXPECT)
            && head.headers.get(EXPECT).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
        {
            head.headers.remove(EXPECT);
        }
        if let Some(forwarded) = &self.rules.forwarded {
            forwarded.add(head, peer, &self.router);
        }
        if let Some(name) = &self.rules.timestamp_header {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            head.headers.add(name.as_str(), now.to_string());
        }
        if present.has(Present::VIA) && headers::via_depth(&head.headers) > self.rules.max_call_depth {
            let text = format!(
                "Maximum number of calls ({}) has been exceeded. Please check for proxy loops.",
                self.rules.max_call_depth
            );
            return respond::error(&Error::new(Kind::CallDepth, text), limits);
        }
        self.router.propagator().read(&mut head.headers, &mut ctx, !self.rules.clear_context);
        ctx.client_certificate.clone_from(&peer.certificate);
        ctx.recording = self.router.tracing().begin(&mut ctx.trace);
        spans::server_receives(&ctx, &self.label, self.router.shared_label(), peer, head, &body);
        let (recording, trace) = (ctx.recording.clone(), ctx.trace);
        match body.as_full() {
            Some(bytes) => self.messages.request_bytes.add(bytes.len() as u64),
            None => body.watch(self.messages.request_stream.open()),
        }
        if let Some(deadline) = ctx.deadline {
            self.transit_latency_ms.add(deadline::transit_ms(deadline));
        }
        if !ctx.local_dtab.is_empty() {
            self.dtab_size.add(ctx.local_dtab.len() as u64);
        }
        if let Some(counter) = self.threads.per_thread.get(worker::index()) {
            counter.incr();
        }
        self.handletime_us.add(u64::try_from((clock::event() - began).as_micros()).unwrap_or(u64::MAX));

        let mut in_flight = self.requests.begin();
        if recording.is_on() {
            in_flight = in_flight.traced(u128::from(trace.trace_high.unwrap_or(0)) << 64 | u128::from(trace.trace));
        }
        let counting = Counting { in_flight: Some(in_flight), began };
        let result = self.limited(peer, head, ctx, body).await;
        let mut response = match result {
            Ok(response) => {
                counting.finish(if succeeded(&response) { Outcome::Success } else { Outcome::FailedResponse });
                response
            }
            Err(e) => {
                counting.finish(Outcome::Error(&e));
                if e.kind == Kind::Rejected {
                    self.nacks.incr();
                    respond::nack()
                } else {
                    respond::error(&e, limits)
                }
            }
        };
        spans::server_sends(recording, &trace, &mut response);
        response
    }

    async fn limited(&self, peer: &Peer, head: &mut RequestHead, mut ctx: Ctx, body: Body) -> Result<Response, Error> {
        let _permit = match &self.concurrency {
            None => None,
            Some(c) => Some(Permit::take(c).ok_or_else(|| Error::new(Kind::Rejected, ""))?),
        };
        // Above the time-out, whose own deadline is none that came with the request.
        peer.deadlines.pass(ctx.deadline, clock::now());
        // Boxed, so that the futures above, which are moved into one another, are small.
        let Some(limit) = self.rules.timeout else { return Box::pin(self.route(peer, head, ctx, body)).await };
        let (recording, trace) = (ctx.recording.clone(), ctx.trace);
        let gave_up = Arc::new(AtomicBool::new(false));
        ctx.server_gave_up = Some(Arc::clone(&gave_up));
        ctx.limit(limit);
        let mut routed = Box::pin(self.route(peer, head, ctx, body));
        tokio::time::timeout(limit, &mut routed).await.unwrap_or_else(|_| {
            clock::event();
            gave_up.store(true, Relaxed);
            drop(routed);
            spans::server_timed_out(&recording, &trace);
            let text = format!(
                "exceeded {} to {} while waiting for a response for an individual request, excluding retries. \
                 Remote Info: Not Available",
                show_duration(limit),
                self.label
            );
            Err(Error::new(Kind::IndividualTimeout, text).from_source(&self.label))
        })
    }

    async fn route(&self, peer: &Peer, head: &mut RequestHead, ctx: Ctx, body: Body) -> Result<Response, Error> {
        absolute_form(head);
        let name = self.router.identify(head).map_err(|reason| {
            spans::unidentified(&ctx);
            let text = format!("Unknown destination: {} / {reason}", describe(head, peer.addr));
            Error::new(Kind::Unidentified, text)
        })?;
        spans::identified(&ctx, self.router.label(), &name, self.router.shown_dtab());
        if !head.headers.contains(HOST) && head.version == Version::HTTP_11 {
            head.headers.add(HOST, "");
        }
        Ok(self.router.call(name, ctx, head, body, peer.addr).await)
    }
}

/// What is refused before anything counts it (§2.1, §2.3).
fn wire_error(head: &RequestHead) -> Option<StatusCode> {
    if head.headers.all(HOST).nth(1).is_some() {
        return Some(StatusCode::BAD_REQUEST);
    }
    (head.method == http::Method::CONNECT).then_some(StatusCode::METHOD_NOT_ALLOWED)
}

/// `GET http://host/p` means `Host: host` and `/p`; what follows is named and forwarded by that (§2.3).
fn absolute_form(head: &mut RequestHead) {
    let Some((authority, target)) = head.target.authority() else { return };
    head.headers.set(HOST, authority);
    head.target = target;
}

/// Whether a response counts as a success: by the verdict of the stack below or behind, else by its status.
fn succeeded(response: &Response) -> bool {
    let class = response.headers.get(headers::SUCCESS_CLASS).and_then(|v| match v {
        b"1.0" => Some(1.0), // as this proxy writes it
        _ => text(v)?.parse::<f64>().ok(),
    });
    match class {
        Some(class) => class > 0.0,
        None => !response.status.is_server_error(),
    }
}

/// What leaves a server with `clearContext`: no `l5d-*` header, and no body that tells of the inside (§6.4).
fn clear(response: &mut Response) {
    if response.headers.contains(headers::ERR) {
        response.body = Body::empty();
        response.headers.set(CONTENT_LENGTH, "0");
    }
    response.headers.remove_prefixed("l5d-");
}

/// A request that has arrived and not been answered yet. Dropped without an answer it counts as Linkerd counts a
/// requester that went away: 502.
struct Arrived<'a> {
    stack: &'a ServerStack,
    began: Instant,
    answered: bool,
}

impl Arrived<'_> {
    fn answer(mut self, response: &Response) {
        self.answered = true;
        self.stack.status.response(response.status, clock::since(self.began));
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.stack.status.response(StatusCode::BAD_GATEWAY, clock::since(self.began));
        }
    }
}

/// The request counts of one request; dropped unfinished it counts as a failed response that nobody reads.
struct Counting<'a> {
    in_flight: Option<InFlight<'a>>,
    began: Instant,
}

impl Counting<'_> {
    fn finish(mut self, outcome: Outcome<'_>) {
        if let Some(f) = self.in_flight.take() {
            f.finish(outcome, clock::since(self.began));
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if let Some(f) = self.in_flight.take() {
            f.abandon_response(clock::since(self.began));
        }
    }
}

/// A place among the concurrent requests.
struct Permit<'a>(&'a AtomicUsize);

impl<'a> Permit<'a> {
    fn take(c: &'a Concurrency) -> Option<Self> {
        if c.now.fetch_add(1, Relaxed) >= c.limit {
            c.now.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(&c.now))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_tells_how_evenly_workers_were_used() {
        let tree = l5d_telemetry::MetricsTree::new();
        let counters = ["a", "b"].map(|name| tree.scope("threads").counter(name));
        let begun = Instant::now();
        let mut minute = Minute::new(&counters, begun);
        let mut told = |at| {
            let Spread { mean, stddev, relative_stddev } = minute.told(at);
            [mean, stddev, relative_stddev]
        };
        counters[0].add(1);
        counters[1].add(3);
        assert_eq!(told(begun + MINUTE / 2), [0.0; 3], "nothing before it ends");
        assert_eq!(told(begun + MINUTE), [2.0, 1.0, 0.5]);
        counters[0].add(4);
        assert_eq!(told(begun + MINUTE * 3 / 2), [2.0, 1.0, 0.5], "until the next one has ended");
        // Asked after two minutes: two requests in each.
        assert_eq!(told(begun + 3 * MINUTE), [1.0, 1.0, 1.0]);
        assert_eq!(told(begun + 4 * MINUTE), [0.0; 3]);
    }
}

//! The admin server: accepts, reads requests, finds their page, sends its answer.
//!
//! It lives on the runtime of whoever calls [`AdminServer::serve`], meant to be a thread of its own: workers never wait for
//! it. Nothing a client does can hold up another one or grow without bound: requests, connections and waiting times have
//! [`Limits`], pages are sent with back-pressure (see `body.rs`), and when the last place is taken the connection that has
//! been silent for longest gives way to a new one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use l5d_net::{
    Drain, ServerTls, ServerTlsConfig, SocketOptions, SocketTimeout, Stream, TcpSampler, TimedStream, TlsError, bind,
};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::Scrapes;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};

use crate::body::{SentBody, gzipped};
use crate::encoding::{accepts_gzip, is_text};
use crate::index::nowhere;
use crate::pages::Pages;
use crate::response::Body;
use crate::stats::Stats;
use crate::wire::{CountedStream, Passed};
use crate::{Handler, Request, Response, Security};

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// `ip` and `port`.
    pub addr: SocketAddr,
    /// `socketOptions`.
    pub socket_options: SocketOptions,
    /// `tls`.
    pub tls: Option<ServerTlsConfig>,
    /// `security`; without it everything is served.
    pub security: Option<Security>,
    /// What a client may take. Not configurable.
    pub limits: Limits,
}

impl AdminConfig {
    /// Plain HTTP on this address, everything else by default.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, socket_options: SocketOptions::default(), tls: None, security: None, limits: Limits::default() }
    }
}

/// What a client may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. One more takes the place of the one that has been silent for longest.
    pub connections: usize,
    /// Bytes of the request line and headers, and of an answer that may wait in memory beside its last piece.
    pub buffer: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// From the readiness for a request to the end of its headers; so an idle connection is closed, too.
    pub headers: Duration,
    /// From the headers to the end of the body.
    pub body_time: Duration,
    /// Without any byte of an answer being taken.
    pub write: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            buffer: 16 * 1024,
            body: 1024 * 1024,
            // More than the minute between two scrapes of a slow scraper, whose connection is worth keeping.
            headers: Duration::from_secs(120),
            body_time: Duration::from_secs(30),
            write: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Why the admin server can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not ours.
    #[error("admin server cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS settings can't work.
    #[error("admin server: {0}")]
    Tls(#[from] TlsError),
}

/// A server that listens. Connections wait in the backlog until [`serve`](Self::serve) runs.
pub struct AdminServer {
    listener: TcpListener,
    addr: SocketAddr,
    config: AdminConfig,
    tls: Option<ServerTls>,
    stats: Stats,
    tree: MetricsTree,
}

impl AdminServer {
    /// Listens. The server's own metrics go under `srv/adminhttp` of `tree`, what its pages of metrics cost under
    /// `telemetry/faces`.
    pub fn bind(config: AdminConfig, tree: &MetricsTree) -> Result<Self, BindError> {
        let tls = config.tls.clone().map(ServerTls::new).transpose()?;
        let failed = |source| BindError::Listen { addr: config.addr, source };
        let listener = bind(config.addr, &config.socket_options).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr, tls, stats: Stats::new(tree), tree: tree.clone(), config })
    }

    /// Where it listens: with port 0 in the configuration, the port that was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until the drain starts, then finishes what was begun, until the drain's deadline. Dropping the future ends all
    /// connections at once. An error only if the runtime can't take the listener.
    pub async fn serve(self, handlers: Vec<Handler>, drain: Drain) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let stats = Arc::new(self.stats);
        let _queue = stats.pending_io_events(tokio::runtime::Handle::current());
        let mut socket_options = self.config.socket_options;
        let write = socket_options.write_timeout.map_or(self.config.limits.write, |w| w.min(self.config.limits.write));
        socket_options.write_timeout = Some(write);
        let faces = handlers.iter().filter_map(|handler| handler.face);
        let faces = faces.map(|face| (face, Scrapes::new(&self.tree, face))).collect();
        let server = Arc::new(Server {
            faces,
            pages: Pages::new(handlers),
            security: self.config.security,
            limits: self.config.limits,
            socket_options,
            tls: self.tls,
            stats,
            sampler: TcpSampler::start(&tokio::runtime::Handle::current()),
            connections: Connections::default(),
        });

        let mut tasks = JoinSet::new();
        let mut minute = tokio::time::interval(Duration::from_secs(60));
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        {
            let mut started = pin!(drain.started());
            loop {
                tokio::select! {
                    () = &mut started => break,
                    accepted = listener.accept() => match accepted {
                        Ok((tcp, _)) => {
                            failing = false;
                            tasks.spawn(Arc::clone(&server).connection(tcp, drain.clone()));
                        }
                        Err(error) => {
                            // Once per bout: without file descriptors it fails again and again.
                            if !std::mem::replace(&mut failing, true) {
                                warn!(%error, "admin server cannot accept connections");
                            }
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    },
                    Some(_) = tasks.join_next() => {}
                    _ = minute.tick() => server.stats.minute(),
                }
            }
        }
        drop(listener);
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => {}
            () = drain.overdue() => tasks.shutdown().await,
        }
        Ok(())
    }
}

/// What all connections share.
struct Server {
    pages: Pages,
    /// What the pages of each face cost.
    faces: HashMap<&'static str, Scrapes>,
    security: Option<Security>,
    limits: Limits,
    socket_options: SocketOptions,
    tls: Option<ServerTls>,
    stats: Arc<Stats>,
    sampler: TcpSampler,
    connections: Connections,
}

impl Server {
    async fn connection(self: Arc<Self>, tcp: TcpStream, drain: Drain) {
        let stats = Arc::clone(&self.stats);
        let place = self.connections.enter(self.limits.connections);
        let passed = Arc::new(Passed::default());
        let begun = Instant::now();
        stats.connects.incr();
        let _open = Up::new(&stats, |stats| &stats.connections);
        let sampled = Arc::clone(&stats);
        let _sampled = self.sampler.watch(&tcp, move |info| sampled.sample(info));
        let ended = self.converse(tcp, drain, &place, &passed).await;
        match ended {
            Ended::ByPeer => {}
            Ended::Here => stats.closes.incr(),
            Ended::Failed(error) => {
                debug!(%error, "admin connection ended");
                if let Some(timeout) = SocketTimeout::of(&error) {
                    stats.closes.incr();
                    let (counter, class) = match timeout {
                        SocketTimeout::Read => (&stats.read_timeout, "com.twitter.finagle.ReadTimedOutException"),
                        SocketTimeout::Write => (&stats.write_timeout, "com.twitter.finagle.WriteTimedOutException"),
                    };
                    counter.incr();
                    stats.exception(class);
                } else {
                    stats.exception("java.io.IOException");
                }
            }
            Ended::BadHandshake => stats.exception("io.netty.handler.codec.DecoderException"),
        }
        stats.connection_duration.add(begun.elapsed().as_millis() as u64);
        stats.connection_requests.add(place.requests.load(Ordering::Relaxed));
        stats.connection_received_bytes.add(passed.received());
        stats.connection_sent_bytes.add(passed.sent());
    }

    async fn converse(self: &Arc<Self>, tcp: TcpStream, drain: Drain, place: &Place, passed: &Arc<Passed>) -> Ended {
        // A socket that refuses options is about to fail anyway.
        let _ = self.socket_options.apply(&tcp);
        let stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => {
                let begun = Instant::now();
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(self.limits.handshake, tls.accept(tcp)) => shaken,
                    () = place.evicted.notified() => return Ended::Here,
                    () = drain.started() => return Ended::Here,
                };
                self.stats.handshake(matches!(shaken, Ok(Ok(_))), begun.elapsed().as_millis() as u64);
                match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        debug!(%error, "admin connection without a TLS handshake");
                        return Ended::BadHandshake;
                    }
                    Err(_) => return Ended::Here,
                }
            }
        };
        let _tls = stream.is_tls().then(|| Up::new(&self.stats, |stats| &stats.tls_connections));
        let stream = TimedStream::new(stream, &self.socket_options);
        let stream = CountedStream::new(stream, Arc::clone(&self.stats), Arc::clone(passed));
        let service = service_fn(|request| {
            let (busy, drain) = (place.busy(), &drain);
            async move {
                let mut response = self.answer(request, busy).await;
                // hyper says so by itself once it is told of the drain, but this task may not have woken to it yet.
                if drain.is_started() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_buf_size(self.limits.buffer)
            // `printf 'GET …' | nc` closes its side first and still wants the answer.
            .half_close(true)
            // As Linkerd 1 wrote them; scripts look for `Content-Type`.
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = place.evicted.notified() => return Ended::Here,
            () = drain.started() => {
                if place.requests.load(Ordering::Relaxed) == 0 {
                    return Ended::Here;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = place.evicted.notified() => return Ended::Here,
                }
            }
        };
        if let Some(timeout) = passed.timed_out() {
            return Ended::Failed(io::Error::new(io::ErrorKind::TimedOut, timeout));
        }
        match ended {
            Ok(()) if passed.ended_by_peer() => Ended::ByPeer,
            Ok(()) => Ended::Here,
            Err(error) => match io_cause(&error) {
                Some(cause) => Ended::Failed(cause),
                // A peer that left in the middle, or a request that hyper has refused or timed out.
                None if passed.ended_by_peer() => Ended::ByPeer,
                None => Ended::Here,
            },
        }
    }

    async fn answer(&self, request: http::Request<Incoming>, busy: Busy) -> http::Response<SentBody> {
        let begun = Instant::now();
        let pending = Up::new(&self.stats, |stats| &stats.pending);
        let gzip = accepts_gzip(request.headers());
        let mut metrics = None;
        let mut response = self.respond(request, &mut metrics).await;
        if let Some(content_type) = metrics {
            response.complete_as_metrics(content_type);
        }
        self.stats.request_latency_ms.add(begun.elapsed().as_millis() as u64);
        self.stats.answered(response.status.is_server_error());
        drop(pending);
        self.sent(response, gzip, metrics.is_some(), busy)
    }

    /// `metrics` is set to the type of the page that was asked for, if it is one of metrics.
    async fn respond(&self, request: http::Request<Incoming>, metrics: &mut Option<&'static str>) -> Response {
        let (head, body) = request.into_parts();
        let mut request = Request {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body: Bytes::new(),
        };
        let path = request.path();
        if self.security.as_ref().is_some_and(|security| !security.allows(&path)) {
            return Response::not_found();
        }
        let Some(handler) = self.pages.find(&path) else { return nowhere(&path, request.wants_html()) };
        *metrics = handler.metrics;
        request.body = match tokio::time::timeout(self.limits.body_time, self.read(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(status)) => return Response::empty(status),
            Err(_) => return Response::empty(StatusCode::REQUEST_TIMEOUT),
        };
        let begun = Instant::now();
        let response = (handler.serve)(request);
        self.stats.handletime_us.add(begun.elapsed().as_micros() as u64);
        let mut response = response.await;
        if let Some(scrapes) = handler.face.and_then(|face| self.faces.get(face)) {
            response.body = match response.body {
                Body::Page(page) => Body::Page(scrapes.measured(page, begun.elapsed())),
                full => full,
            };
        }
        response
    }

    /// The whole body, or the status that its sender deserves.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, StatusCode> {
        let stats = &self.stats;
        let length = body.size_hint().exact();
        if length.is_some_and(|length| length > self.limits.body as u64) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut stream = length.is_none().then(|| RequestStream::open(stats));
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
            if whole.len() + data.len() > self.limits.body {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            if stream.is_some() {
                stats.request_stream.chunk_payload_bytes.add(data.len() as u64);
            }
            whole.extend_from_slice(&data);
        }
        if stream.take().is_none() {
            stats.request_payload_bytes.add(whole.len() as u64);
        }
        Ok(whole.freeze())
    }

    /// An answer as it goes out: compressed if that is wanted and worth it.
    fn sent(&self, response: Response, gzip: bool, metrics: bool, busy: Busy) -> http::Response<SentBody> {
        /// Below that the headers of a gzip body eat up what it gains.
        const WORTH_COMPRESSING: usize = 1024;
        let (mut status, mut headers) = (http::Response::new(()), response.headers);
        *status.status_mut() = response.status;
        let text = headers.get(CONTENT_TYPE).is_some_and(|value| is_text(value.as_bytes()));
        let compressible = text && !headers.contains_key(CONTENT_ENCODING);
        let (body, compressed) = match response.body {
            Body::Full(bytes) => {
                let worth = if metrics { 1 } else { WORTH_COMPRESSING };
                let gzip = gzip && compressible && bytes.len() >= worth;
                let bytes = if gzip { gzipped(&bytes) } else { bytes };
                (SentBody::full(bytes, busy), gzip)
            }
            Body::Page(page) => {
                let gzip = gzip && compressible;
                (SentBody::page(page, gzip, &self.stats, busy), gzip)
            }
        };
        if compressible {
            headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(length) = body.size_hint().exact() {
            self.stats.response_payload_bytes.add(length);
        }
        let mut response = status.map(|()| body);
        *response.headers_mut() = headers;
        response
    }
}

/// How a connection ended.
enum Ended {
    /// The peer closed it.
    ByPeer,
    /// It was closed on this side.
    Here,
    /// The socket failed.
    Failed(io::Error),
    /// TLS failed.
    BadHandshake,
}

/// The socket error behind what hyper reports.
fn io_cause(error: &hyper::Error) -> Option<io::Error> {
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    Some(match SocketTimeout::of(cause) {
        Some(timeout) => io::Error::new(cause.kind(), timeout),
        None => io::Error::new(cause.kind(), cause.to_string()),
    })
}

/// The connections there are, so that a new one can take the place of an old one.
#[derive(Default)]
struct Connections {
    next: AtomicU64,
    open: Arc<Mutex<HashMap<u64, Arc<Shown>>>>,
}

/// What others may know of a connection.
struct Shown {
    evicted: Notify,
    /// Requests that were begun.
    requests: AtomicU64,
    /// Answers that are under way.
    busy: AtomicUsize,
    /// When the last answer began or ended.
    active: Mutex<Instant>,
}

/// A connection's place among the others, given back when dropped.
struct Place {
    id: u64,
    shown: Arc<Shown>,
    open: Arc<Mutex<HashMap<u64, Arc<Shown>>>>,
}

impl Connections {
    fn enter(&self, limit: usize) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= limit {
            // Idle ones first; of those, or if there are none, the one that has been as it is for longest.
            let oldest = open.iter().min_by_key(|(_, shown)| (shown.busy.load(Ordering::Relaxed) > 0, shown.since()));
            if let Some((&oldest, shown)) = oldest {
                shown.evicted.notify_one();
                open.remove(&oldest);
            }
        }
        let shown = Arc::new(Shown {
            evicted: Notify::new(),
            requests: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            active: Mutex::new(Instant::now()),
        });
        open.insert(id, Arc::clone(&shown));
        Place { id, shown, open: Arc::clone(&self.open) }
    }
}

impl Shown {
    fn since(&self) -> Instant {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Place {
    /// A request has come; its answer is under way until this is dropped.
    fn busy(&self) -> Busy {
        self.shown.requests.fetch_add(1, Ordering::Relaxed);
        self.shown.busy.fetch_add(1, Ordering::Relaxed);
        self.shown.touch();
        Busy(Arc::clone(&self.shown))
    }
}

impl std::ops::Deref for Place {
    type Target = Shown;

    fn deref(&self) -> &Shown {
        &self.shown
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// An answer that is under way.
struct Busy(Arc<Shown>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

/// One more of what a level counts, until dropped.
struct Up {
    stats: Arc<Stats>,
    level: fn(&Stats) -> &l5d_telemetry::Level,
}

impl Up {
    fn new(stats: &Arc<Stats>, level: fn(&Stats) -> &l5d_telemetry::Level) -> Self {
        level(stats).incr();
        Self { stats: Arc::clone(stats), level }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        (self.level)(&self.stats).decr();
    }
}

/// A request body of unknown length that is being read.
struct RequestStream(Arc<Stats>, Instant);

impl RequestStream {
    fn open(stats: &Arc<Stats>) -> Self {
        stats.request_stream.opened.incr();
        stats.request_stream.pending.incr();
        Self(Arc::clone(stats), Instant::now())
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        let stats = &self.0.request_stream;
        stats.closed.incr();
        stats.pending.decr();
        stats.duration_ms.add(self.1.elapsed().as_millis() as u64);
    }
}

//! A server: connections accepted by every worker from one socket, each served by hyper on the worker that took it.
//!
//! [`HttpServer::serve`] runs once per worker and ends when the drain does: it stops accepting, lets requests in flight
//! finish (their responses say `Connection: close`) and drops what is left at the deadline.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use l5d_net::{Drain, ServerTls, SocketOptions, Stream};
use l5d_telemetry::{Counter, Scope};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{
    filters::{
        client_cert::ClientCertificate,
        deadline::{DeadlineStats, Deadlines},
    },
    io::CountedIo,
    stack::server::{Peer, ServerStack},
};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and how much, is read of what follows a request that was refused unread.
const LINGER: Duration = Duration::from_secs(1);
const MOST_DRAINED: usize = 1 << 20;

/// The first byte of a TLS handshake's record.
const TLS_HANDSHAKE: u8 = 22;

/// How a server treats its connections.
#[derive(Debug, Default)]
pub(crate) struct ConnectionRules {
    pub(crate) socket_options: SocketOptions,
    pub(crate) idle_time: Option<Duration>,
    pub(crate) life_time: Option<Duration>,
    pub(crate) max_head_bytes: usize,
}

/// One configured server of a router.
pub struct HttpServer {
    addr: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    rules: ConnectionRules,
    stack: Arc<ServerStack>,
    connection_counters: std::sync::OnceLock<ConnectionCounters>,
}

/// What exists from the first connection on.
struct ConnectionCounters {
    deadlines: Arc<DeadlineStats>,
    invalid_names: Counter,
    invalid_values: Counter,
    idle: Option<Counter>,
    lifetime: Option<Counter>,
}

impl ConnectionCounters {
    fn new(scope: &Scope, rules: &ConnectionRules) -> Self {
        let session = rules.idle_time.is_some() || rules.life_time.is_some();
        Self {
            deadlines: DeadlineStats::new(scope),
            invalid_names: scope.counter("rejected_invalid_header_names"),
            invalid_values: scope.counter("rejected_invalid_header_values"),
            idle: session.then(|| scope.counter("idle")),
            lifetime: session.then(|| scope.counter("lifetime")),
        }
    }
}

impl HttpServer {
    pub(crate) fn new(
        addr: SocketAddr,
        tls: Option<Arc<ServerTls>>,
        rules: ConnectionRules,
        stack: Arc<ServerStack>,
    ) -> Arc<Self> {
        Arc::new(Self { addr, tls, rules, stack, connection_counters: std::sync::OnceLock::new() })
    }

    /// The configured address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its label in metrics: `<ip>/<port>` as configured.
    pub fn label(&self) -> &str {
        &self.stack.label
    }

    /// The options its socket is bound with.
    pub fn socket_options(&self) -> &SocketOptions {
        &self.rules.socket_options
    }

    /// Serves connections of `listener` on the calling runtime until `drain` has ended.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, drain: Drain) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = drain.started() => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let _ = self.rules.socket_options.apply(&tcp); // a peer that is gone again is no reason to stop
                        connections.spawn(Arc::clone(&self).connection(tcp, peer, drain.clone()));
                    }
                    Err(error) => {
                        // Out of file descriptors, or a peer that went away: neither ends a server.
                        tracing::warn!(server = %self.stack.label, %error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        tokio::select! {
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = drain.overdue() => connections.abort_all(),
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, drain: Drain) {
        let counters = self.connection_counters.get_or_init(|| ConnectionCounters::new(&self.stack.scope, &self.rules));
        let local = tcp.local_addr().unwrap_or(self.addr);
        let stats = &self.stack.connections;
        let stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => {
                let began = Instant::now();
                let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
                    // Whoever does not begin a handshake is not told of it in TLS: the connection just ends.
                    let mut first = [0];
                    if tcp.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
                        swallow(&tcp);
                        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "this is not TLS"));
                    }
                    tls.accept(tcp).await
                })
                .await;
                let ok = matches!(accepted, Ok(Ok(_)));
                stats.handshake(ok, began.elapsed());
                match accepted {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        tracing::debug!(server = %self.stack.label, %peer, %error, "TLS handshake failed");
                        return stats.exception(&["io.netty.handler.codec.DecoderException"]);
                    }
                    Err(_) => return stats.exception(&["io.netty.handler.codec.DecoderException"]),
                }
            }
        };
        let certificate = stream.peer_certificate().map(|c| Arc::new(ClientCertificate::new(c)));
        let sampled = stats.sample(stream.tcp());
        let io = CountedIo::of_server(stream, sampled, stats, &self.rules.socket_options);
        let counts = io.open_connection();
        let peer = Peer {
            addr: peer,
            local,
            certificate,
            connection_label: crate::filters::forwarded::random_label(),
            deadlines: Deadlines::new(&counters.deadlines),
            received: io.received(),
        };
        let limit = self.rules.idle_time.into_iter().chain(self.rules.life_time).min();
        let activity = Activity { in_flight: AtomicUsize::new(0), ended_ms: AtomicU64::new(0), born: Instant::now() };
        let service = service_fn(|request| {
            let (stack, peer) = (&self.stack, &peer);
            let busy = limit.map(|_| activity.begin());
            counts.message();
            // Boxed, so that an idle connection does not hold the room that a request needs.
            Box::pin(async move {
                let response = stack.call(peer, request).await;
                drop(busy);
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = http1::Builder::new()
            .preserve_header_case(true)
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(self.rules.max_head_bytes.max(8192) + 32 * 1024)
            .serve_connection(TokioIo::new(io), service);
        let mut draining = false;
        let mut closing = false;
        let result = loop {
            tokio::select! {
                result = &mut connection => break result,
                () = drain.started(), if !draining => {
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = wait(limit), if !closing => {
                    if let Some(counter) = self.over(&activity, counters) {
                        counter.incr();
                        closing = true;
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                }
            }
        };
        let refused = match result {
            // Boxed, so that neither its buffer nor what it reads from is one more part of every connection.
            Err(e) if e.is_parse() => {
                tracing::debug!(server = %self.stack.label, peer = %peer.addr, error = %e, "malformed request");
                Some(Box::pin(drain_refused(malformed(connection.into_parts(), counters))))
            }
            _ => None,
        };
        if let Some(refused) = refused {
            refused.await;
        }
    }

    /// Whether an idle connection's time is over, and what counts it.
    fn over<'a>(&self, activity: &Activity, counters: &'a ConnectionCounters) -> Option<&'a Counter> {
        if activity.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let age = activity.born.elapsed();
        let idle = age.saturating_sub(Duration::from_millis(activity.ended_ms.load(Relaxed)));
        if self.rules.idle_time.is_some_and(|limit| idle >= limit) {
            counters.idle.as_ref()
        } else if self.rules.life_time.is_some_and(|limit| age >= limit) {
            counters.lifetime.as_ref()
        } else {
            None
        }
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HttpServer").field(&self.addr).finish()
    }
}

/// What is wrong with the headers of a head that hyper could not read.
#[derive(Debug, PartialEq, Eq)]
enum Malformed {
    Name,
    Value,
}

impl Malformed {
    /// The first mistake of a header's line; `None` if there is none: then the request line is wrong, or too long.
    fn of(head: &[u8]) -> Option<Self> {
        let lines = head.split(|&byte| byte == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { return Some(Self::Name) };
            if HeaderName::from_bytes(&line[..colon]).is_err() {
                return Some(Self::Name);
            }
            if HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).is_err() {
                return Some(Self::Value);
            }
        }
        None
    }
}

/// Counts what was wrong with a head; returns the connection that it came on.
fn malformed<S>(parts: http1::Parts<TokioIo<CountedIo>, S>, counters: &ConnectionCounters) -> CountedIo {
    match Malformed::of(&parts.read_buf) {
        Some(Malformed::Name) => counters.invalid_names.incr(),
        Some(Malformed::Value) => counters.invalid_values.incr(),
        None => {}
    }
    parts.io.into_inner()
}

/// Takes what a peer goes on sending for a moment: closing the socket before would reset it, and the answer, which has been
/// sent, might never be read.
async fn drain_refused(mut io: CountedIo) {
    let mut sink = [0; 4096];
    let taken = async {
        let mut left = MOST_DRAINED;
        while left > 0 && io.read(&mut sink).await.is_ok_and(|n| n > 0) {
            left = left.saturating_sub(sink.len());
        }
    };
    let _ = tokio::time::timeout(LINGER, taken).await; // whoever has not read by then will not
}

/// Takes what a peer has sent off the socket, so that closing it ends the connection instead of resetting it.
fn swallow(tcp: &TcpStream) {
    let mut sink = [0; 4096];
    for _ in 0..16 {
        if !tcp.try_read(&mut sink).is_ok_and(|n| n > 0) {
            return;
        }
    }
}

/// A tenth of the limit, or for ever without one.
async fn wait(limit: Option<Duration>) {
    match limit {
        None => std::future::pending().await,
        Some(limit) => {
            tokio::time::sleep((limit / 10).clamp(Duration::from_millis(5), Duration::from_secs(1))).await;
        }
    }
}

/// When a connection was last busy; looked after only where its time is limited.
struct Activity {
    in_flight: AtomicUsize,
    /// When the last request ended, in milliseconds after the birth.
    ended_ms: AtomicU64,
    born: Instant,
}

impl Activity {
    fn begin(&self) -> Busy<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        Busy(self)
    }
}

struct Busy<'a>(&'a Activity);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        self.0.ended_ms.store(l5d_router::stats::millis(self.0.born.elapsed()), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mistake_of_a_head_is_found() {
        for (lines, expected) in [
            ("Good: x\r\n", None),
            ("Bad Name: x\r\nX: \0\r\n", Some(Malformed::Name)),
            ("X: \0\r\nBad Name: x\r\n", Some(Malformed::Value)),
            ("Spaced : x\r\n", Some(Malformed::Name)),
            ("NoColon\r\n", Some(Malformed::Name)),
            ("X: a\r\n folded\r\n", Some(Malformed::Name)),
        ] {
            assert_eq!(Malformed::of(format!("GET / HTTP/1.1\r\n{lines}\r\nNo: \0").as_bytes()), expected, "{lines:?}");
        }
    }
}

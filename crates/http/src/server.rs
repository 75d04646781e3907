//! A server: connections accepted by every worker from one socket, each served by a task on the worker that took it.
//!
//! [`HttpServer::serve`] runs once per worker and ends when the drain does: it stops accepting, lets requests in flight
//! finish (their responses say `Connection: close`) and drops what is left at the deadline.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use l5d_net::{Drain, ServerTls, SocketOptions, Stream};
use l5d_telemetry::{Counter, Scope};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{
    body::Incoming,
    codec::{
        headers::Present,
        output::Sending,
        parse::{HeadLimits, Length},
        server::{Asked, NoRequest, OwnWire},
    },
    filters::{
        client_cert::ClientCertificate,
        deadline::{DeadlineStats, Deadlines},
    },
    headers::CONNECTION,
    io::CountedIo,
    respond,
    stack::server::{Peer, ServerStack},
    stats::OpenConnection,
};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and how much, is read of what follows when this side has ended a connection.
const LINGER: Duration = Duration::from_secs(1);
const MOST_DRAINED: usize = 1 << 20;

/// The first byte of a TLS handshake's record.
const TLS_HANDSHAKE: u8 = 22;

/// How a server treats its connections.
#[derive(Debug)]
pub(crate) struct ConnectionRules {
    pub(crate) socket_options: SocketOptions,
    pub(crate) idle_time: Option<Duration>,
    pub(crate) life_time: Option<Duration>,
    /// How long the head of a request may be.
    pub(crate) heads: HeadLimits,
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
                // Boxed, so that the room of a handshake is no part of every connection.
                let accepted = tokio::time::timeout(
                    HANDSHAKE_TIMEOUT,
                    Box::pin(async {
                        // Whoever does not begin a handshake is not told of it in TLS: the connection just ends.
                        let mut first = [0];
                        if tcp.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
                            swallow(&tcp);
                            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "this is not TLS"));
                        }
                        tls.accept(tcp).await
                    }),
                )
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
        let io = CountedIo::new(stream, sampled, stats, &self.rules.socket_options);
        let counts = io.open_connection();
        let peer = Peer {
            addr: peer,
            local,
            certificate,
            connection_label: crate::filters::forwarded::random_label(),
            deadlines: Deadlines::new(&counters.deadlines),
        };
        let mut wire = OwnWire::new(io);
        let end = self.requests(&mut wire, &peer, &counts, counters, &drain).await;
        if end != End::Gone {
            // Boxed, so that it is no part of every connection.
            Box::pin(close(&mut wire, end == End::Refused)).await;
        }
    }

    /// Answers the requests of a connection, one after the other.
    async fn requests(
        &self,
        wire: &mut OwnWire,
        peer: &Peer,
        counts: &OpenConnection,
        counters: &ConnectionCounters,
        drain: &Drain,
    ) -> End {
        let limit = self.rules.idle_time.into_iter().chain(self.rules.life_time).min();
        let born = Instant::now();
        let mut idle_since = born;
        let mut started = pin!(drain.started());
        let mut draining = false;
        loop {
            let next = loop {
                tokio::select! {
                    biased;
                    next = poll_fn(|cx| wire.with(|w| w.poll_head(cx, self.rules.heads))) => break next,
                    () = &mut started, if !draining => {
                        draining = true;
                        if !wire.with(|w| w.has_input()) {
                            return End::Closing;
                        }
                    }
                    () = wait(limit) => if let Some(counter) = self.over(idle_since, born, counters) {
                        counter.incr();
                        return End::Closing;
                    }
                }
            };
            let (head, framing) = match next {
                Ok(request) => request,
                Err(NoRequest::Closed) => return End::Gone,
                Err(NoRequest::Refused(status, bytes)) => {
                    tracing::debug!(server = %self.stack.label, peer = %peer.addr, %status, "malformed request");
                    count_malformed(status, &bytes, counters);
                    let (head, _) = respond::wire(status).encode(&Asked::NOTHING);
                    return if say(wire, head).await { End::Refused } else { End::Gone };
                }
            };
            counts.message();
            if framing.expects_continue
                && framing.length != Length::NONE
                && !say(wire, b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()).await
            {
                return End::Gone;
            }
            let asked = Asked { is_head: head.method == Method::HEAD, is_old: head.version == Version::HTTP_10 };
            let body = (framing.length != Length::NONE).then(|| Incoming::Request(wire.lend()));
            // Boxed, so that an idle connection does not hold the room that a request needs.
            let mut answer = Box::pin(self.stack.call(peer, head, framing.length, body));
            let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => wire.with(|w| w.poll_gone(cx)).map(|()| None),
            });
            let Some(mut response) = answered.await else { return End::Gone };
            drop(answer);
            // What concerned the connection to the endpoint is gone: the layers above want this one closed.
            let closes = response.headers.present().has(Present::CONNECTION) && response.headers.contains(CONNECTION);
            let stays = framing.keep_alive && !closes && !draining && !drain.is_started();
            if !stays && !closes {
                response.headers.add(CONNECTION, "close");
            }
            let (head, length) = response.encode(&asked);
            let mut sending = match length {
                None => Sending::bodiless(head),
                Some(length) => Sending::new(head, response.body, length),
            };
            let sent = poll_fn(|cx| match sending.poll(cx, |output, cx| wire.with(|w| w.poll_flush(output, cx))) {
                Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
                Poll::Pending => wire.with(|w| w.poll_gone(cx)).map(|()| false),
            });
            if !sent.await {
                return End::Gone;
            }
            drop(sending);
            if !stays || length == Some(Length::UntilClose) {
                return End::Closing;
            }
            if !poll_fn(|cx| wire.with(|w| w.poll_body_over(cx))).await {
                return End::Closing;
            }
            wire.recall();
            if limit.is_some() {
                idle_since = Instant::now();
            }
        }
    }

    /// Whether an idle connection's time is over, and what counts it.
    fn over<'a>(&self, idle_since: Instant, born: Instant, counters: &'a ConnectionCounters) -> Option<&'a Counter> {
        if self.rules.idle_time.is_some_and(|limit| idle_since.elapsed() >= limit) {
            counters.idle.as_ref()
        } else if self.rules.life_time.is_some_and(|limit| born.elapsed() >= limit) {
            counters.lifetime.as_ref()
        } else {
            None
        }
    }
}

/// How the requests of a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// This side has sent all it has to.
    Closing,
    /// The same, to a request that was not read to its end.
    Refused,
    /// The other side has gone, or what was under way broke off.
    Gone,
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HttpServer").field(&self.addr).finish()
    }
}

/// What is wrong with the headers of a head that could not be read.
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

/// Counts what was wrong with a head.
fn count_malformed(status: StatusCode, head: &[u8], counters: &ConnectionCounters) {
    match (status == StatusCode::BAD_REQUEST).then(|| Malformed::of(head)).flatten() {
        Some(Malformed::Name) => counters.invalid_names.incr(),
        Some(Malformed::Value) => counters.invalid_values.incr(),
        None => {}
    }
}

/// Writes a head that nothing follows; whether that could be done.
async fn say(wire: &mut OwnWire, head: Vec<u8>) -> bool {
    let mut sending = Sending::bodiless(head);
    poll_fn(|cx| sending.poll(cx, |output, cx| wire.with(|w| w.poll_flush(output, cx)))).await.is_ok()
}

/// Ends a connection from this side. Where more may come of a request, that is taken for a moment: closing the socket before
/// would reset it, and the answer, which has been sent, might never be read.
async fn close(wire: &mut OwnWire, is_refused: bool) {
    let mut left = MOST_DRAINED;
    let lingers = is_refused || wire.with(|w| w.is_unread());
    let closed = async {
        if poll_fn(|cx| wire.with(|w| w.poll_shutdown(cx))).await.is_ok() && lingers {
            poll_fn(|cx| wire.with(|w| w.poll_discard(cx, &mut left))).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, closed).await; // whoever has not read by then will not
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

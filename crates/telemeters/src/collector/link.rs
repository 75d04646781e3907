//! A connection to a collector: one request at a time, made when it is needed, kept while the collector keeps it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use l5d_admin::BoxFuture;
use l5d_net::{ClientTls, SocketOptions, Stream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::stats::millis;
use super::{LinkStats, Sent};

/// How long making a connection may take, its name's lookup included.
const CONNECT: Duration = Duration::from_secs(1);
/// A longer answer is none.
const LONGEST: usize = 32 * 1024;

/// What the bytes of an answer are so far.
#[derive(Debug)]
pub(crate) enum Parsed<T> {
    /// The beginning of one.
    More,
    /// All of it.
    Done {
        /// What it says.
        answer: T,
        /// What Finagle would call it, unless it is a good one.
        failure: Option<&'static str>,
        /// Whether the connection can be used again.
        keep: bool,
    },
    /// None.
    Bad(String),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection: nothing was sent.
    Connect(io::Error),
    /// It took too long.
    Timeout,
    /// The connection broke.
    Broken(io::Error),
    /// It was no answer.
    Bad(String),
}

impl Failure {
    /// What it means for what was sent.
    pub(crate) fn sent(&self) -> Sent {
        match self {
            Self::Connect(_) => Sent::Later(None),
            Self::Timeout | Self::Broken(_) | Self::Bad(_) => Sent::Lost,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Bad(what) => write!(f, "what came is no answer: {what}"),
        }
    }
}

/// The way to one collector.
pub(crate) struct Link {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    stats: Arc<LinkStats>,
    open: Option<Open>,
    /// A lookup that was not finished when its time was over: there is never more than one.
    lookup: Option<BoxFuture<'static, io::Result<Vec<SocketAddr>>>>,
}

struct Open {
    stream: Stream,
    stats: Arc<LinkStats>,
    born: Instant,
    sent: u64,
    received: u64,
    requests: u64,
}

impl Link {
    pub(crate) fn new(host: String, port: u16, tls: Option<ClientTls>, stats: Arc<LinkStats>) -> Self {
        Self { host, port, tls, stats, open: None, lookup: None }
    }

    /// As a log shows it.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Sends a request and reads its answer, which `parse` is shown whenever more of it has come; with an end that is told
    /// by the connection's, it is shown all of it and `true`.
    ///
    /// May be dropped; then the connection is closed.
    pub(crate) async fn exchange<T>(
        &mut self,
        request: &[u8],
        limit: Duration,
        mut parse: impl FnMut(&[u8], bool) -> Parsed<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + limit;
        // A connection that the collector has closed in the meantime says so at the first write or read.
        let mut may_be_closed = self.open.is_some();
        loop {
            let open = match self.open.take() {
                Some(open) => open,
                None => self.connect(end).await?,
            };
            let began = Instant::now();
            self.stats.pending.incr();
            let pending = Pending(&self.stats);
            let result = tokio::time::timeout_at(end, converse(open, request, &mut parse)).await;
            let result = result.unwrap_or(Err((Failure::Timeout, 0)));
            drop(pending);
            match result {
                Err((Failure::Broken(_), 0)) if may_be_closed => {
                    may_be_closed = false;
                    continue;
                }
                Ok((open, answer, failure)) => {
                    self.open = open;
                    self.count(began.elapsed(), failure);
                    return Ok(answer);
                }
                Err((failure, _)) => {
                    let class = match failure {
                        Failure::Timeout => "com.twitter.finagle.IndividualRequestTimeoutException",
                        Failure::Bad(_) => "org.apache.thrift.protocol.TProtocolException",
                        Failure::Connect(_) | Failure::Broken(_) => {
                            self.stats.broke("com.twitter.finagle.ChannelClosedException");
                            "com.twitter.finagle.ChannelClosedException"
                        }
                    };
                    self.count(began.elapsed(), Some(class));
                    return Err(failure);
                }
            }
        }
    }

    fn count(&self, took: Duration, failure: Option<&'static str>) {
        self.stats.requests.incr();
        self.stats.request_latency_ms.add(millis(took));
        match failure {
            None => self.stats.success.incr(),
            Some(class) => self.stats.failed(class),
        }
    }

    async fn connect(&mut self, end: Instant) -> Result<Open, Failure> {
        let began = Instant::now();
        let mut connecting = Connecting(Some(Arc::clone(&self.stats)));
        let limit = CONNECT.min(end.saturating_duration_since(began));
        let slow = || io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {} ms", limit.as_millis()));
        let result = timeout(limit, self.establish()).await.unwrap_or_else(|_| Err(slow()));
        connecting.0 = None;
        self.stats.acquisition_ms.add(millis(began.elapsed()));
        match result {
            Ok(stream) => {
                self.stats.connect_latency_ms.add(millis(began.elapsed()));
                self.stats.preparation_ms.add(0);
                self.stats.connects.incr();
                self.stats.connections.incr();
                self.stats.pool_cached.incr();
                let stats = Arc::clone(&self.stats);
                Ok(Open { stream, stats, born: Instant::now(), sent: 0, received: 0, requests: 0 })
            }
            Err(error) => {
                self.stats.failed_connect_latency_ms.add(millis(began.elapsed()));
                self.stats.not_connected("com.twitter.finagle.ConnectionFailedException");
                Err(Failure::Connect(error))
            }
        }
    }

    async fn establish(&mut self) -> io::Result<Stream> {
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, self.port).into()],
            Err(_) => {
                let name = (self.host.clone(), self.port);
                let lookup = self
                    .lookup
                    .get_or_insert_with(|| Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) }));
                let found = lookup.await;
                self.lookup = None;
                found?
            }
        };
        let mut last = io::Error::other("the name has no addresses");
        for address in addresses {
            match connect(address, &SocketOptions::default(), CONNECT).await {
                Ok(tcp) => {
                    return match &self.tls {
                        None => Ok(Stream::Tcp(tcp)),
                        Some(tls) => tls.connect(tcp).await,
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The connection if it can be used again, the answer, and what is wrong with it.
type Conversed<T> = (Option<Open>, T, Option<&'static str>);

/// One request and its answer; with a failure comes how much of an answer there was.
async fn converse<T>(
    mut open: Open,
    request: &[u8],
    parse: &mut impl FnMut(&[u8], bool) -> Parsed<T>,
) -> Result<Conversed<T>, (Failure, usize)> {
    let broken = |received: usize| move |error| (Failure::Broken(error), received);
    open.requests += 1;
    let began = Instant::now();
    open.stream.write_all(request).await.map_err(broken(0))?;
    open.stream.flush().await.map_err(broken(0))?;
    open.stats.unwritable_ms.add(millis(began.elapsed()));
    open.sent += request.len() as u64;
    open.stats.sent_bytes.add(request.len() as u64);
    let mut answer = Vec::new();
    loop {
        let before = answer.len();
        let n = open.stream.read_buf(&mut answer).await.map_err(broken(before))?;
        open.received += n as u64;
        open.stats.received_bytes.add(n as u64);
        if n == 0 && answer.is_empty() {
            let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the collector closed it");
            return Err((Failure::Broken(closed), 0));
        }
        match parse(&answer, n == 0) {
            Parsed::Done { answer, failure, keep } => return Ok(((keep && n > 0).then_some(open), answer, failure)),
            Parsed::Bad(what) => return Err((Failure::Bad(what), answer.len())),
            Parsed::More if n == 0 => {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the collector closed it within its answer");
                return Err((Failure::Broken(closed), before));
            }
            Parsed::More if answer.len() >= LONGEST => {
                return Err((Failure::Bad(format!("more than {LONGEST} bytes")), answer.len()));
            }
            Parsed::More => {}
        }
    }
}

/// A request that is under way.
struct Pending<'a>(&'a LinkStats);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.decr();
    }
}

/// A connection that is being made; dropped, it was given up.
struct Connecting(Option<Arc<LinkStats>>);

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(stats) = &self.0 {
            stats.cancelled_connects.incr();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.closes.incr();
        stats.connections.decr();
        stats.pool_cached.decr();
        let lived = millis(self.born.elapsed());
        stats.connection_duration.add(lived);
        stats.writable_ms.add(lived);
        stats.connection_sent_bytes.add(self.sent);
        stats.connection_received_bytes.add(self.received);
        stats.connection_requests.add(self.requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_telemetry::MetricsTree;

    fn link(host: &str, port: u16) -> (MetricsTree, Link) {
        let tree = MetricsTree::new();
        let link = Link::new(host.to_owned(), port, None, Arc::new(LinkStats::new(&tree.scope("c"))));
        (tree, link)
    }

    /// Any answer is the whole answer.
    fn any(answer: &[u8], _: bool) -> Parsed<()> {
        if answer.is_empty() { Parsed::More } else { Parsed::Done { answer: (), failure: None, keep: true } }
    }

    #[tokio::test]
    async fn a_connect_that_is_given_up_is_counted() {
        // A name, so that it is looked up first, on another thread.
        let (tree, mut link) = link("localhost", 1);
        tokio::select! {
            biased;
            _ = link.exchange(b"x", Duration::from_secs(60), any) => panic!("names are not looked up at once"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(tree.scope("c").counter("cancelled_connects").value(), 1);
    }

    #[tokio::test]
    async fn a_collector_that_reads_late_makes_the_socket_unwritable() {
        // More than any socket holds.
        const MUCH: usize = 64 << 20;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let collector = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 20];
            let mut left = MUCH;
            while left > 0 {
                left -= stream.read(&mut buffer).unwrap();
            }
            stream.write_all(b"ok").unwrap();
        });
        let (tree, mut link) = link("127.0.0.1", port);
        link.exchange(&vec![b'x'; MUCH], Duration::from_secs(60), any).await.unwrap();
        collector.join().unwrap();
        assert!(tree.scope("c").counter("socket_unwritable_ms").value() > 0);
        assert_eq!(tree.scope("c").counter("sent_bytes").value(), MUCH as u64);
    }
}

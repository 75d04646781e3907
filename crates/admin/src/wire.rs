//! Counting what passes over a connection, above TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use l5d_net::SocketTimeout;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::stats::Stats;

/// What passed over one connection. Written by its task, read when it ends.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    received: AtomicU64,
    sent: AtomicU64,
    ended_by_peer: AtomicBool,
    timed_out: OnceLock<SocketTimeout>,
}

impl Passed {
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed its side.
    pub(crate) fn ended_by_peer(&self) -> bool {
        self.ended_by_peer.load(Ordering::Relaxed)
    }

    /// The socket option whose time was over; hyper does not tell of it while the connection is idle.
    pub(crate) fn timed_out(&self) -> Option<SocketTimeout> {
        self.timed_out.get().copied()
    }

    fn failed(&self, error: &io::Error) {
        if let Some(timeout) = SocketTimeout::of(error) {
            let _ = self.timed_out.set(timeout); // the first one ended it
        }
    }
}

/// A stream that counts.
pub(crate) struct CountedStream<S> {
    stream: S,
    stats: Arc<Stats>,
    passed: Arc<Passed>,
    /// Whether the last write was taken, and since when it is so.
    writable: bool,
    since: Instant,
}

impl<S> CountedStream<S> {
    pub(crate) fn new(stream: S, stats: Arc<Stats>, passed: Arc<Passed>) -> Self {
        Self { stream, stats, passed, writable: true, since: Instant::now() }
    }

    fn written(&mut self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.flip(false),
            Poll::Ready(Ok(n)) => {
                self.flip(true);
                let n = *n as u64;
                self.passed.sent.fetch_add(n, Ordering::Relaxed);
                self.stats.sent_bytes.add(n);
            }
            Poll::Ready(Err(error)) => self.passed.failed(error),
        }
    }

    fn flip(&mut self, writable: bool) {
        if writable != self.writable {
            let now = Instant::now();
            let spent = now.duration_since(self.since).as_millis() as u64;
            if self.writable {
                self.stats.socket_writable_ms.add(spent);
            } else {
                self.stats.socket_unwritable_ms.add(spent);
            }
            (self.writable, self.since) = (writable, now);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled {
            this.passed.failed(error);
        }
        if matches!(polled, Poll::Ready(Ok(()))) {
            let n = (buf.filled().len() - before) as u64;
            if n == 0 && buf.remaining() > 0 {
                this.passed.ended_by_peer.store(true, Ordering::Relaxed);
            }
            this.passed.received.fetch_add(n, Ordering::Relaxed);
            this.stats.received_bytes.add(n);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

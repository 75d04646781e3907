//! A connection that counts what passes and knows who closed it.
//!
//! Finagle counts a close when *this* side begins it (`ChannelStatsHandler`): so the end of input is remembered, and a
//! shutdown or drop without it is ours.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use l5d_net::{Sampled, SocketOptions, SocketTimeout, Stream, TimedStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stats::{ConnectionStats, OpenConnection};

/// A counted connection; what the codec reads from and writes to.
#[derive(Debug)]
pub(crate) struct CountedIo {
    stream: TimedStream<Stream>,
    open: Arc<OpenConnection>,
    stats: Arc<ConnectionStats>,
    peer_closed: bool,
    close_counted: bool,
    blocked_since: Option<Instant>,
}

/// What Netty's epoll transport throws when a peer resets a connection that is read from.
const RESET: &[&str] = &["io.netty.channel.unix.Errors$NativeIoException"];

impl CountedIo {
    pub(crate) fn new(stream: Stream, sampled: Sampled, stats: &Arc<ConnectionStats>, options: &SocketOptions) -> Self {
        Self {
            open: stats.open(stream.is_tls(), sampled),
            stream: TimedStream::new(stream, options),
            stats: Arc::clone(stats),
            peer_closed: false,
            close_counted: false,
            blocked_since: None,
        }
    }

    /// The counts of this connection, for whoever counts its messages.
    pub(crate) fn open_connection(&self) -> Arc<OpenConnection> {
        Arc::clone(&self.open)
    }

    /// How many bytes have been written to it.
    pub(crate) fn sent(&self) -> u64 {
        self.open.sent_bytes()
    }

    /// As [`Stream::is_quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.stream.get_ref().is_quiet()
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.stream.get_ref().is_tls()
    }

    fn count_close(&mut self) {
        if !self.peer_closed && !self.close_counted {
            self.close_counted = true;
            self.open.closing();
        }
    }

    fn failed(&mut self, e: io::Error) -> io::Error {
        match SocketTimeout::of(&e) {
            Some(SocketTimeout::Read) => self.stats.read_timeout.incr(),
            Some(SocketTimeout::Write) => self.stats.write_timeout.incr(),
            None => self.peer_closed = true,
        }
        e
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(n)) => {
                if let Some(since) = self.blocked_since.take() {
                    self.open.blocked_for(since.elapsed());
                }
                self.open.sent(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(self.failed(e))),
            Poll::Pending => {
                self.blocked_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }
}

impl AsyncRead for CountedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let n = buf.filled().len() - before;
                if n == 0 {
                    self.peer_closed = true;
                } else {
                    self.open.received(n);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => {
                if e.kind() == io::ErrorKind::ConnectionReset {
                    self.stats.exception(RESET);
                }
                Poll::Ready(Err(self.failed(e)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for CountedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.count_close();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for CountedIo {
    fn drop(&mut self) {
        self.count_close();
    }
}

//! One connection, with or without TLS, and the time-outs that close it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsStream;

use crate::SocketOptions;

/// A connection. Reading and writing are the same on both kinds.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are on the wire.
    Tcp(TcpStream),
    /// A finished TLS handshake, of either side.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Whether nothing has come that was not read, as far as is known without asking the system; false if it is not known,
    /// as with TLS. Unlike a read it keeps whoever waits to read.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.try_read(&mut []).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Self::Tls(_) => false,
        }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The certificate that the peer showed, if it showed one.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(tls) => tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// The protocol that ALPN settled on, if it did.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Which time-out closed a connection: the source of an [`io::Error`] of kind `TimedOut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketTimeout {
    /// Nothing came for `readTimeoutMs`.
    #[error("nothing was read within the read time-out")]
    Read,
    /// Nothing was taken for `writeTimeoutMs`.
    #[error("nothing could be written within the write time-out")]
    Write,
}

impl SocketTimeout {
    /// The time-out behind an error, if one is.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// A stream whose reads and writes fail when they make no progress for too long.
///
/// A clock runs only while a read (or write) waits, and starts anew with each: a peer that is slow but moving is not cut off,
/// and nobody is blamed for the time in which nothing was asked of it.
#[derive(Debug)]
pub struct TimedStream<S> {
    stream: S,
    read: Timer,
    write: Timer,
}

impl<S> TimedStream<S> {
    /// `stream` with the time-outs of `options`.
    pub fn new(stream: S, options: &SocketOptions) -> Self {
        Self { stream, read: Timer::new(options.read_timeout), write: Timer::new(options.write_timeout) }
    }

    /// The stream beneath.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.read.check(cx, polled, SocketTimeout::Read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.write.check(cx, polled, SocketTimeout::Write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.write.check(cx, polled, SocketTimeout::Write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.write.check(cx, polled, SocketTimeout::Write)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.write.check(cx, polled, SocketTimeout::Write)
    }
}

/// The clock of one direction. The timer is made at the first wait and then only moved.
#[derive(Debug)]
struct Timer {
    limit: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Timer {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, sleep: None, running: false }
    }

    fn check<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        timeout: SocketTimeout,
    ) -> Poll<io::Result<T>> {
        let Some(limit) = self.limit else { return polled };
        if polled.is_ready() {
            self.running = false;
            return polled;
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.running {
            sleep.as_mut().reset(Instant::now() + limit);
            self.running = true;
        }
        match sleep.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, timeout))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn timed<S>(stream: S) -> TimedStream<S> {
        let limit = Some(Duration::from_secs(5));
        TimedStream::new(
            stream,
            &SocketOptions { read_timeout: limit, write_timeout: limit, ..SocketOptions::default() },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_fails_the_read_after_the_time_out() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = timed(near);
        let begun = Instant::now();
        far.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(near.read_u8().await.unwrap(), b'x', "idle time in which nothing is read does not count");
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(SocketTimeout::of(&error), Some(SocketTimeout::Read));
        assert_eq!(begun.elapsed().as_secs(), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_fails_the_write_and_one_that_reads_a_little_does_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = timed(near);
        let reader = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_u8().await.unwrap();
            }
            std::future::pending::<()>().await;
            drop(far);
        });
        near.write_all(&[0; 26]).await.unwrap();
        let error = near.write_u8(0).await.unwrap_err();
        assert_eq!(SocketTimeout::of(&error), Some(SocketTimeout::Write));
        reader.abort();
    }
}

//! A connection that counts what passes and knows who closed it.
//!
//! Finagle counts a close when *this* side begins it (`ChannelStatsHandler`): so the end of input is remembered, and a
//! shutdown or drop without it is ours.
//!
//! On a server's side it keeps what came last ([`Received`]), for what hyper's heads do not tell, and gives the answers that
//! hyper makes by itself, to a head that it cannot read, the form that Linkerd's have ([`Refusal`]).

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use l5d_net::{Sampled, SocketOptions, SocketTimeout, Stream, TimedStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stats::{ConnectionStats, OpenConnection};

/// Up to so many bytes are written from one buffer.
const GATHERED: usize = 1024;

/// A counted connection; what hyper reads from and writes to.
#[derive(Debug)]
pub(crate) struct CountedIo {
    stream: TimedStream<Stream>,
    open: Arc<OpenConnection>,
    stats: Arc<ConnectionStats>,
    peer_closed: bool,
    close_counted: bool,
    blocked_since: Option<Instant>,
    head: Option<Head>,
}

/// What is known of the head that is being received, on a server's side.
#[derive(Debug, Default)]
struct Head {
    /// How many requests had come when bytes were last received.
    after: u64,
    /// Whether the end of a line has come since.
    has_line: bool,
    /// Whether the stream was asked for more after the request had come.
    is_old: bool,
    received: Arc<Received>,
}

/// The last bytes that came on a connection, as they were.
///
/// hyper takes two equal lines `Content-Length` for one before anybody sees them; here they can be counted. Written by the
/// stream, read by the requests of the same connection, which are on its thread: the lock is never waited for.
#[derive(Debug, Default)]
pub(crate) struct Received(Mutex<Vec<u8>>);

impl Received {
    /// More than a head may have, unless the configuration allows for longer ones: then this looks at the end of them.
    const MOST: usize = 16 * 1024;

    fn add(&self, bytes: &[u8], more_of_the_same: bool) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !more_of_the_same || kept.len() + bytes.len() > Self::MOST {
            kept.clear();
        }
        kept.extend_from_slice(&bytes[..bytes.len().min(Self::MOST)]);
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    /// Whether the head that begins with this line says more than once how long its body is. `false` where the head is not
    /// there as a whole.
    pub(crate) fn has_two_lengths(&self, method: &[u8], target: &[u8]) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = |line: &[u8]| {
            let rest = line.strip_prefix(method).and_then(|rest| rest.strip_prefix(b" "));
            rest.and_then(|rest| rest.strip_prefix(target)).is_some_and(|rest| rest.starts_with(b" HTTP/1."))
        };
        let mut lines = kept.split(|&byte| byte == b'\n').skip_while(|line| !begins(line));
        let head = lines.by_ref().take_while(|line| !line.trim_ascii().is_empty());
        let lengths =
            head.filter(|line| line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)));
        lengths.count() > 1
    }
}

const LENGTH: &[u8] = b"content-length:";

impl CountedIo {
    pub(crate) fn new(stream: Stream, sampled: Sampled, stats: &Arc<ConnectionStats>, options: &SocketOptions) -> Self {
        Self {
            open: stats.open(stream.is_tls(), sampled),
            stream: TimedStream::new(stream, options),
            stats: Arc::clone(stats),
            peer_closed: false,
            close_counted: false,
            blocked_since: None,
            head: None,
        }
    }

    /// A connection that was accepted.
    pub(crate) fn of_server(
        stream: Stream,
        sampled: Sampled,
        stats: &Arc<ConnectionStats>,
        options: &SocketOptions,
    ) -> Self {
        let mut this = Self::new(stream, sampled, stats, options);
        this.head = Some(Head::default());
        this
    }

    /// What came last, on a server's side.
    pub(crate) fn received(&self) -> Arc<Received> {
        self.head.as_ref().map(|head| Arc::clone(&head.received)).unwrap_or_default()
    }

    /// Writes what Linkerd answers in the place of what hyper does, if that is what these bytes are.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        let head = self.head.as_ref().filter(|_| is_short(bytes))?;
        let refusal = REFUSALS.iter().find(|refusal| refusal.by_hyper == bytes)?;
        let answer = if refusal.is_too_long && !head.has_line { LINE_TOO_LONG } else { refusal.by_linkerd };
        let written = Pin::new(&mut self.stream).poll_write(cx, answer);
        // The connection ends with it: what of it does not fit into the socket would not be read either.
        let written = written.map_ok(|n| if n == 0 { 0 } else { bytes.len() });
        Some(self.wrote(written))
    }

    /// The counts of this connection, for whoever counts its messages.
    pub(crate) fn open_connection(&self) -> Arc<OpenConnection> {
        Arc::clone(&self.open)
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
                    let after = self.open.messages();
                    if let Some(head) = &mut self.head {
                        let same = head.after == after;
                        head.has_line &= same;
                        head.after = after;
                        head.is_old = false;
                        let bytes = &buf.filled()[before..];
                        head.has_line = head.has_line || bytes.contains(&b'\n');
                        head.received.add(bytes, same);
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(self.failed(e))),
            Poll::Pending => {
                let messages = self.open.messages();
                if let Some(head) = &mut self.head
                    && head.after != messages
                {
                    // The first time the request may not have looked yet. The second time it has, and what is kept is of
                    // requests that have gone on: an idle connection keeps nothing.
                    if std::mem::replace(&mut head.is_old, true) {
                        *head = Head { after: messages, received: Arc::clone(&head.received), ..Head::default() };
                        head.received.forget();
                    }
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for CountedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.poll_refuse(cx, buf) {
            return refused;
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = bufs
            && let Some(refused) = self.poll_refuse(cx, one)
        {
            return refused;
        }
        // A head and a short body are quicker sent from one place: the kernel's way with one buffer is shorter.
        let length: usize = bufs.iter().map(|b| b.len()).sum();
        let result = match bufs {
            [one] => Pin::new(&mut self.stream).poll_write(cx, one),
            _ if length <= GATHERED => {
                let mut place = [0; GATHERED];
                let mut at = 0;
                for b in bufs {
                    place[at..at + b.len()].copy_from_slice(b);
                    at += b.len();
                }
                Pin::new(&mut self.stream).poll_write(cx, &place[..at])
            }
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
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

/// An answer that hyper makes without asking anybody, and what Linkerd answers there (http-behaviour §2.1).
struct Refusal {
    by_hyper: &'static [u8],
    by_linkerd: &'static [u8],
    /// Whether a line is too long, or all of them together: hyper does not tell.
    is_too_long: bool,
}

macro_rules! refusal {
    ($status:literal) => {
        Refusal {
            by_hyper: concat!("HTTP/1.1 ", $status, "\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes(),
            by_linkerd: concat!("HTTP/1.0 ", $status, "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes(),
            is_too_long: false,
        }
    };
}

const REFUSALS: [Refusal; 3] = [
    refusal!("400 Bad Request"),
    refusal!("414 URI Too Long"),
    Refusal { is_too_long: true, ..refusal!("431 Request Header Fields Too Large") },
];

/// The line of the request is longer than any buffer.
const LINE_TOO_LONG: &[u8] = refusal!("414 URI Too Long").by_linkerd;

/// Whether it is worth a closer look: nearly nothing else is as short as a refusal.
fn is_short(bytes: &[u8]) -> bool {
    const LONGEST: usize = REFUSALS[2].by_hyper.len();
    bytes.len() <= LONGEST && bytes.starts_with(b"HTTP/1.1 4")
}

impl Drop for CountedIo {
    fn drop(&mut self) {
        self.count_close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_the_right_head() {
        let twice = |bytes: &str| {
            let received = Received::default();
            received.add(bytes.as_bytes(), false);
            received.has_two_lengths(b"POST", b"/a")
        };
        let two = "Content-Length: 2\r\ncontent-length: 2\r\n\r\nab";
        assert!(twice(&format!("POST /a HTTP/1.1\r\nHost: x\r\n{two}")));
        assert!(twice(&format!("POST /b HTTP/1.1\r\n\r\nPOST /a HTTP/1.1\r\n{two}")), "the second of two");
        assert!(!twice(&format!("POST /b HTTP/1.1\r\n{two}")));
        assert!(!twice("POST /a HTTP/1.1\r\nContent-Length: 2\r\nX-Content-Length: 2\r\n\r\n"));
        assert!(
            !twice(&format!("POST /a HTTP/1.1\r\nContent-Length: 38\r\n\r\n{two}")),
            "a body may say what it likes"
        );
    }

    #[test]
    fn what_came_in_pieces_is_put_together() {
        let received = Received::default();
        received.add(b"of another request", false);
        for (at, piece) in
            ["POST /a HTTP/1.1\r\nConte", "nt-Length: 2\r\nContent-", "Length: 2\r\n\r\n"].iter().enumerate()
        {
            received.add(piece.as_bytes(), at > 0);
        }
        assert!(received.has_two_lengths(b"POST", b"/a"));
        received.add(&vec![b'x'; 100_000], true);
        assert!(!received.has_two_lengths(b"POST", b"/a"), "no more is kept than a head");
    }
}

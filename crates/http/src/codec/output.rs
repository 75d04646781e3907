//! What waits to be written to a connection: a head, and the body behind it, piece by piece.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::parse::Length;
use crate::{body::Body, io::CountedIo};

/// Pieces up to this length are gathered with what stands before them: one buffer is written quicker than two.
const GATHERED: usize = 4096;

/// Bytes under way to a peer.
#[derive(Debug, Default)]
pub(crate) struct Output {
    small: Vec<u8>,
    at: usize,
    data: Bytes,
    tail: &'static [u8],
}

impl Output {
    /// Begins with these bytes.
    pub(crate) fn of(head: Vec<u8>) -> Self {
        Self { small: head, ..Self::default() }
    }

    fn is_flushed(&self) -> bool {
        self.at == self.small.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether another piece may be added: nothing long waits.
    fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.small.len() - self.at <= GATHERED
    }

    /// Adds the last chunk.
    fn end_chunks(&mut self) {
        if self.tail.is_empty() {
            self.small.extend_from_slice(b"0\r\n\r\n");
        } else {
            self.tail = b"\r\n0\r\n\r\n";
        }
    }

    /// Adds a piece of a body. Only what is short may still be waiting.
    fn add(&mut self, data: Bytes, chunked: bool) {
        if self.at == self.small.len() {
            self.small.clear();
            self.at = 0;
        }
        if chunked {
            write!(self.small, "{:x}\r\n", data.len()).expect("writing to memory does not fail");
        }
        let tail: &[u8] = if chunked { b"\r\n" } else { b"" };
        if data.len() <= GATHERED {
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
    }

    /// Writes what there is.
    pub(crate) fn poll_flush(&mut self, io: &mut CountedIo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let mut io = Pin::new(&mut *io);
            let small = &self.small[self.at..];
            let n = if self.data.is_empty() && self.tail.is_empty() {
                ready!(io.as_mut().poll_write(cx, small))?
            } else {
                let parts = [IoSlice::new(small), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(io.as_mut().poll_write_vectored(cx, if small.is_empty() { &parts[1..] } else { &parts }))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, n: usize) {
        let of_small = n.min(self.small.len() - self.at);
        self.at += of_small;
        let of_data = (n - of_small).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[n - of_small - of_data..];
    }
}

/// Why a message could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The connection does not take it.
    Io(io::Error),
    /// The body came to a bad end where it came from.
    Body,
}

/// A message under way to a peer: what is written, and the body that is asked for more.
#[derive(Debug)]
pub(crate) struct Sending {
    output: Output,
    body: Option<Body>,
    chunked: bool,
}

impl Sending {
    /// A head, and the body that follows it in this framing.
    pub(crate) fn new(mut head: Vec<u8>, body: Body, length: Length) -> Self {
        let chunked = length == Length::Chunked;
        if chunked || body.is_stream() {
            return Self { output: Output::of(head), body: Some(body), chunked };
        }
        // Held whole, it need not be asked for piece by piece.
        let data = match body.as_full() {
            Some(bytes) if bytes.len() <= GATHERED => {
                head.extend_from_slice(bytes);
                Bytes::new()
            }
            other => other.cloned().unwrap_or_default(),
        };
        Self { output: Output { data, ..Output::of(head) }, body: None, chunked }
    }

    /// A message without a body, whatever its head says.
    pub(crate) fn bodiless(head: Vec<u8>) -> Self {
        Self { output: Output::of(head), body: None, chunked: false }
    }

    /// Writes as much as `flush` gets rid of and the body gives. What the body itself depends on goes on even where this has
    /// to wait. `flush` is never called while the body is asked: both may need the same connection.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut flush: impl FnMut(&mut Output, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), WriteError>> {
        loop {
            let mut waits = false;
            // A first piece that is there goes with the head.
            if self.output.has_room()
                && let Some(body) = &mut self.body
            {
                let next = match body.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        self.output.add(data, self.chunked);
                        body.is_ended()
                    }
                    Poll::Ready(Some(Err(_))) => {
                        self.body = None;
                        return Poll::Ready(Err(WriteError::Body));
                    }
                    Poll::Ready(None) => true,
                    Poll::Pending => {
                        waits = true;
                        false
                    }
                };
                if next {
                    self.body = None;
                    if self.chunked {
                        self.output.end_chunks();
                    }
                }
            }
            match flush(&mut self.output, cx) {
                Poll::Ready(Ok(())) if self.body.is_none() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if waits => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(WriteError::Io(e))),
                Poll::Pending => {
                    if let Some(body) = &mut self.body {
                        body.poll_upload(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

//! A server's end of a connection: heads of requests come out of it, and their streamed bodies.
//!
//! One task serves a connection, and what it does while a request is under way may need the socket, too: a streamed request's
//! body is read by whoever forwards it. So both hold the [`Wire`], which is locked for the moment of a read or a write.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use tokio::io::AsyncWrite;

use super::{
    framing::Decoder,
    headers::push_length,
    input::{Input, NoHead},
    message::{RequestHead, Response},
    output::Output,
    parse::{self, Framing, HeadLimits, Length},
};
use crate::{
    headers::{CONNECTION, CONTENT_LENGTH},
    io::CountedIo,
    respond,
};

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Wire {
    input: Input,
    /// What is left of the body of the request under way.
    body: Decoder,
    /// Whether somebody has the body, to read it.
    is_lent: bool,
    /// Who waits for the end of the body.
    waiter: Option<Waker>,
}

/// A wire, shared by the connection's task and the body of its request.
type SharedWire = Arc<Mutex<Wire>>;

/// A wire as its connection's task has it: alone, but while somebody reads the body of a request. So requests without one
/// need no lock.
#[derive(Debug)]
pub(crate) struct OwnWire(Owned);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly always it is the large one")]
enum Owned {
    Alone(Wire),
    Shared(SharedWire),
    /// On its way from one to the other.
    Moving,
}

impl OwnWire {
    pub(crate) fn new(io: CountedIo) -> Self {
        Self(Owned::Alone(Wire::new(io)))
    }

    /// Does something with it.
    #[inline]
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut Wire) -> R) -> R {
        match &mut self.0 {
            Owned::Alone(wire) => f(wire),
            Owned::Shared(wire) => f(&mut lock(wire)),
            Owned::Moving => unreachable!("it moves within `lend` and `recall`"),
        }
    }

    /// The body of the request whose head came last.
    pub(crate) fn lend(&mut self) -> RequestBody {
        let shared = match std::mem::replace(&mut self.0, Owned::Moving) {
            Owned::Alone(wire) => Arc::new(Mutex::new(wire)),
            Owned::Shared(wire) => wire,
            Owned::Moving => unreachable!("it moves within `lend` and `recall`"),
        };
        lock(&shared).is_lent = true;
        self.0 = Owned::Shared(Arc::clone(&shared));
        RequestBody { wire: shared, is_done: false }
    }

    /// Takes it back, if the body that was lent is gone.
    pub(crate) fn recall(&mut self) {
        if matches!(self.0, Owned::Alone(_)) {
            return;
        }
        if let Owned::Shared(wire) = std::mem::replace(&mut self.0, Owned::Moving) {
            self.0 = match Arc::try_unwrap(wire) {
                Ok(wire) => Owned::Alone(wire.into_inner().unwrap_or_else(PoisonError::into_inner)),
                Err(wire) => Owned::Shared(wire),
            };
        }
    }
}

/// What came instead of a request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The end of the connection, well or not.
    Closed,
    /// What can't be taken for a request; the status tells why, and these are the bytes.
    Refused(StatusCode, BytesMut),
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    fn new(io: CountedIo) -> Self {
        Self { input: Input::new(io), body: Decoder::Length(0), is_lent: false, waiter: None }
    }

    /// Whether a request has begun to come.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether there is more of a request than has been read.
    pub(crate) fn is_unread(&self) -> bool {
        self.has_input() || !self.body.is_done()
    }

    /// The next request's head.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
    ) -> Poll<Result<(RequestHead, Framing), NoRequest>> {
        let head = self.input.poll_head(cx, |bytes, tried| {
            // A head ends with the end of a line: without a new one there is nothing but its length to look at.
            if tried > 0 && !bytes[tried..].contains(&b'\n') {
                return parse::incomplete(bytes, limits).map(|()| None);
            }
            let parsed = parse::request(bytes, limits)?;
            Ok(parsed.map(|(head, framing, used)| ((head, framing), used)))
        });
        Poll::Ready(match ready!(head) {
            Ok((head, framing)) => {
                self.body = Decoder::new(framing.length);
                self.is_lent = false;
                Ok((head, framing))
            }
            Err(NoHead::Closed(_)) => Err(NoRequest::Closed),
            Err(NoHead::Bad(status)) => Err(NoRequest::Refused(status, self.input.take())),
        })
    }

    /// Ready when the peer has gone, while nothing but the next request can come from it.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // One request ahead is enough to have; and what has come of a body is its reader's.
        if !self.body.is_done() || !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.input.poll_ahead(cx)) {
            Ok(length) if length > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Ready when the body of the request has been read, or nobody is going to; whether it has been.
    pub(crate) fn poll_body_over(&mut self, cx: &Context<'_>) -> Poll<bool> {
        if !self.body.is_done() {
            if self.is_lent {
                self.waiter = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // What has come of it already is passed over.
            self.input.skip(&mut self.body);
        }
        Poll::Ready(self.body.is_done())
    }

    pub(crate) fn poll_flush(&mut self, output: &mut Output, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        output.poll_flush(&mut self.input.io, cx)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input.io).poll_shutdown(cx)
    }

    /// Takes what comes and forgets it, `left` bytes at most. Ready at the end of the connection, too.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        self.input.poll_discard(cx, left)
    }
}

/// The body of a request, read from its connection when it is asked for.
#[derive(Debug)]
pub(crate) struct RequestBody {
    wire: SharedWire,
    is_done: bool,
}

impl RequestBody {
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut wire = lock(&self.wire);
        let Wire { input, body, .. } = &mut *wire;
        let polled = input.poll_data(body, cx);
        self.is_done = body.is_done();
        if self.is_done
            && let Some(waiter) = wire.waiter.take()
        {
            waiter.wake();
        }
        polled
    }

    /// Whether the last of it has been given out.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut wire = lock(&self.wire);
        wire.is_lent = false;
        if let Some(waiter) = wire.waiter.take() {
            waiter.wake();
        }
    }
}

/// What of a request its response depends on.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    /// HTTP/1.0.
    pub(crate) is_old: bool,
}

impl Asked {
    /// Where there was no request that could be read.
    pub(crate) const NOTHING: Self = Self { is_head: false, is_old: true };
}

impl Response {
    /// Its head on the wire, and how its body is framed; `None` where there is none, whatever the head says (§13.3).
    pub(crate) fn encode(&self, asked: &Asked) -> (Vec<u8>, Option<Length>) {
        let body = self.body.as_full();
        let room = self.headers.wire_len() + body.map_or(0, |bytes| bytes.len().min(1024)) + 96;
        let mut head = Vec::with_capacity(room);
        head.extend_from_slice(if self.version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        head.extend_from_slice(self.status.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(respond::reason(self.status).as_bytes());
        head.extend_from_slice(b"\r\n");
        self.headers.encode(&mut head);
        let bodiless = asked.is_head
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut length = (!bodiless).then_some(Length::NONE);
        if !bodiless && !self.headers.contains(CONTENT_LENGTH) {
            if let Some(bytes) = body {
                push_length(&mut head, bytes.len());
            } else if asked.is_old || self.version == Version::HTTP_10 {
                length = Some(Length::UntilClose);
            } else {
                length = Some(Length::Chunked);
                head.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
        }
        let until_close = length == Some(Length::UntilClose);
        if (until_close || self.version == Version::HTTP_10) && !self.headers.contains(CONNECTION) {
            // Whoever has said nothing of it would expect the opposite.
            let says: &[u8] = if until_close { b"connection: close\r\n" } else { b"connection: keep-alive\r\n" };
            head.extend_from_slice(says);
        }
        head.extend_from_slice(b"\r\n");
        (head, length)
    }
}

//! Bodies on their way through the proxy.
//!
//! A short body of known length is held whole ([`Body::full`]): it can be sent again, and its length is known to the
//! statistics. Everything else is relayed piece by piece ([`Body::stream`]) with the back-pressure of the slower side:
//! a piece is asked for, and read from its connection, only when the other side has room. A streamed body carries what must
//! end with it: the open streams of the statistics, the request's own bookkeeping.

use std::{
    any::Any,
    fmt, io,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};

use crate::{
    client::ResponseBody, codec::server::RequestBody, filters::compression::Encoder, spans::OpenSpan, stats::OpenStream,
};

/// A request's or response's body.
///
/// Small, since messages are moved often on their way: what only a streamed body has is elsewhere.
pub struct Body {
    kind: Kind,
    attached: Option<Box<Attached>>,
}

/// What ends with a streamed body, or happens to it.
#[derive(Default)]
struct Attached {
    watchers: Vec<OpenStream>,
    on_failure: Option<Box<dyn FnOnce() + Send + Sync>>,
    encoder: Option<Encoder>,
    kept: Option<Box<dyn Any + Send + Sync>>,
    span: Option<OpenSpan>,
}

enum Kind {
    Full(Bytes),
    Stream(Incoming),
    Ended,
}

/// A body that comes in.
pub(crate) enum Incoming {
    /// Of a request, from the connection that it came on.
    Request(RequestBody),
    /// Of a response; when it has ended, the connection goes back to its pool.
    Response(Box<ResponseBody>),
}

impl Incoming {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Self::Request(body) => body.poll_data(cx),
            Self::Response(body) => body.poll_data(cx),
        }
    }

    /// Whether the last of it has been given out.
    fn is_done(&self) -> bool {
        match self {
            Self::Request(body) => body.is_done(),
            Self::Response(body) => body.is_done(),
        }
    }

    /// Its exchange is over.
    pub(crate) fn finish(self) {
        match self {
            Self::Request(_) => {}
            Self::Response(body) => body.finish(),
        }
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is here already.
    pub fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(bytes), attached: None }
    }

    /// A body that is relayed as it comes.
    pub(crate) fn stream(incoming: Incoming) -> Self {
        Self { kind: Kind::Stream(incoming), attached: None }
    }

    /// The whole body, if it is held whole.
    pub(crate) fn as_full(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes),
            Kind::Stream(_) | Kind::Ended => None,
        }
    }

    /// Whether it is relayed piece by piece.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Counts the pieces of a streamed body, and its end.
    pub(crate) fn watch(&mut self, stream: OpenStream) {
        self.attached().watchers.push(stream);
    }

    /// Keeps something alive until the body has ended.
    pub(crate) fn keep(&mut self, what: impl Any + Send + Sync) {
        self.attached().kept = Some(Box::new(what));
    }

    /// Ends the server's span when the body has ended.
    pub(crate) fn record_end(&mut self, span: OpenSpan) {
        self.attached().span = Some(span);
    }

    /// Runs when a streamed body breaks off.
    pub(crate) fn on_failure(&mut self, f: impl FnOnce() + Send + Sync + 'static) {
        let attached = self.attached();
        let earlier = attached.on_failure.take();
        attached.on_failure = Some(Box::new(move || {
            if let Some(earlier) = earlier {
                earlier();
            }
            f();
        }));
    }

    /// Compresses a streamed body on its way out.
    pub(crate) fn encode(&mut self, encoder: Encoder) {
        self.attached().encoder = Some(encoder);
    }

    fn end(&mut self) {
        let kind = std::mem::replace(&mut self.kind, Kind::Ended);
        if let Some(mut attached) = self.attached.take() {
            attached.watchers.clear();
            attached.on_failure = None;
            attached.kept = None;
            if let Some(span) = attached.span.take() {
                span.end(true);
            }
        }
        if let Kind::Stream(incoming) = kind {
            incoming.finish();
        }
    }

    fn fail(&mut self) {
        self.kind = Kind::Ended;
        let Some(mut attached) = self.attached.take() else { return };
        for w in &attached.watchers {
            w.failed();
        }
        attached.watchers.clear();
        if let Some(span) = attached.span.take() {
            span.end(false);
        }
        if let Some(f) = attached.on_failure.take() {
            f();
        }
    }

    fn attached(&mut self) -> &mut Attached {
        self.attached.get_or_insert_default()
    }

    /// The next piece, never an empty one.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let incoming = match &mut self.kind {
                Kind::Full(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.end();
                    return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
                }
                Kind::Ended => return Poll::Ready(None),
                Kind::Stream(incoming) => incoming,
            };
            let data = match ready!(incoming.poll_data(cx)) {
                None => {
                    let tail = self.attached.as_mut().and_then(|a| a.encoder.take()).map(Encoder::finish);
                    self.end();
                    return Poll::Ready(tail.filter(|t| !t.is_empty()).map(Ok));
                }
                Some(Err(e)) => {
                    self.fail();
                    return Poll::Ready(Some(Err(e)));
                }
                Some(Ok(data)) => data,
            };
            let is_done = incoming.is_done();
            let data = match &mut self.attached {
                None => data,
                Some(attached) => {
                    for w in &attached.watchers {
                        w.chunk(data.len());
                    }
                    match &mut attached.encoder {
                        None => data,
                        Some(encoder) => encoder.encode(&data),
                    }
                }
            };
            if data.is_empty() {
                continue;
            }
            // The last piece ends the body: whoever waits for its connection need not wait for a poll that may never come.
            if is_done && self.attached.as_ref().is_none_or(|a| a.encoder.is_none()) {
                self.end();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }

    /// Whether the last piece has been given out.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.kind, Kind::Ended)
    }

    /// Goes on with the request whose response this is, while nobody can take more of the response.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Kind::Stream(Incoming::Response(body)) = &mut self.kind {
            body.poll_upload(cx);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Full(bytes) => format!("full, {} bytes", bytes.len()),
            Kind::Stream(_) => "stream".to_owned(),
            Kind::Ended => "ended".to_owned(),
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A body that is never asked to its end (HEAD, a response without body) has ended well if nothing is left.
        match &self.kind {
            Kind::Stream(incoming) if !incoming.is_done() => self.fail(),
            _ => self.end(),
        }
    }
}

/// Reads a whole body, at most `limit` bytes of it.
///
/// # Errors
/// When the peer breaks off, or the body is longer.
pub(crate) async fn collect(incoming: &mut Incoming, limit: u64) -> Result<Bytes, CollectError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length: u64 = 0;
    while !incoming.is_done() {
        let Some(data) = std::future::poll_fn(|cx| incoming.poll_data(cx)).await else { break };
        let data = data.map_err(CollectError::Broken)?;
        length += data.len() as u64;
        if length > limit {
            return Err(CollectError::TooLong);
        }
        match &first {
            None => first = Some(data),
            Some(head) => {
                if rest.is_empty() {
                    rest.extend_from_slice(head);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// Why a whole body could not be had.
#[derive(Debug)]
pub(crate) enum CollectError {
    /// The peer closed, or sent nonsense.
    Broken(io::Error),
    /// It is longer than it may be.
    TooLong,
}

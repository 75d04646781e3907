//! Bodies on their way through the proxy.
//!
//! A short body of known length is held whole ([`Body::full`]): it can be sent again, and its length is known to the
//! statistics. Everything else is relayed frame by frame ([`Body::stream`]) with the back-pressure of the slower side:
//! a frame is asked for only when the other side has room. A streamed body carries what must end with it: the open
//! streams of the statistics, the session it comes from, the request's own bookkeeping.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{client::Session, filters::compression::Encoder, spans::OpenSpan, stats::OpenStream};

/// What a body error is, for hyper: it only ends the exchange.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

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
    session: Option<Session>,
    on_failure: Option<Box<dyn FnOnce() + Send + Sync>>,
    encoder: Option<Encoder>,
    kept: Option<Box<dyn Any + Send + Sync>>,
    span: Option<OpenSpan>,
}

enum Kind {
    Full(Option<Bytes>),
    Stream(Incoming),
    /// Nothing, without saying so: a 304's length is that of what is not sent.
    Unsaid,
    Ended,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is here already.
    pub fn full(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { kind: Kind::Full(bytes), attached: None }
    }

    /// No body, for a response whose `Content-Length` tells of another's: hyper takes the header as it is.
    pub(crate) fn unsaid() -> Self {
        Self { kind: Kind::Unsaid, attached: None }
    }

    /// A body that is relayed as it comes.
    pub(crate) fn stream(incoming: Incoming) -> Self {
        Self { kind: Kind::Stream(incoming), attached: None }
    }

    /// The whole body, if it is held whole.
    pub(crate) fn as_full(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes.clone().unwrap_or_default()),
            Kind::Stream(_) | Kind::Unsaid | Kind::Ended => None,
        }
    }

    /// Whether it is relayed frame by frame.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Counts the frames of a streamed body, and its end.
    pub(crate) fn watch(&mut self, stream: OpenStream) {
        self.attached().watchers.push(stream);
    }

    /// Gives the session back when the body has ended well; closes it if the body is dropped before.
    pub(crate) fn hold(&mut self, session: Session) {
        self.attached().session = Some(session);
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
        self.kind = Kind::Ended;
        let Some(mut attached) = self.attached.take() else { return };
        attached.watchers.clear();
        attached.on_failure = None;
        attached.kept = None;
        if let Some(span) = attached.span.take() {
            span.end(true);
        }
        if let Some(session) = attached.session.take() {
            session.release();
        }
    }

    fn fail(&mut self) {
        self.kind = Kind::Ended;
        let Some(mut attached) = self.attached.take() else { return };
        for w in &attached.watchers {
            w.failed();
        }
        attached.watchers.clear();
        attached.session = None;
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

    fn is_encoded(&self) -> bool {
        self.attached.as_ref().is_some_and(|a| a.encoder.is_some())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Full(b) => format!("full, {} bytes", b.as_ref().map_or(0, Bytes::len)),
            Kind::Stream(_) => "stream".to_owned(),
            Kind::Unsaid => "unsaid".to_owned(),
            Kind::Ended => "ended".to_owned(),
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let incoming = match &mut this.kind {
                Kind::Full(bytes) => {
                    let bytes = bytes.take();
                    this.end();
                    return Poll::Ready(bytes.map(|b| Ok(Frame::data(b))));
                }
                Kind::Unsaid | Kind::Ended => return Poll::Ready(None),
                Kind::Stream(incoming) => incoming,
            };
            match ready!(Pin::new(incoming).poll_frame(cx)) {
                None => {
                    let tail = this.attached.as_mut().and_then(|a| a.encoder.take()).map(Encoder::finish);
                    this.end();
                    return Poll::Ready(tail.filter(|t| !t.is_empty()).map(|t| Ok(Frame::data(t))));
                }
                Some(Err(e)) => {
                    this.fail();
                    return Poll::Ready(Some(Err(e.into())));
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue }; // trailers end with their hop
                    let data = match &mut this.attached {
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
                    // The last frame of a known length ends the body: whoever waits for the session need not wait for
                    // a poll that may never come.
                    if !this.is_encoded() && matches!(&this.kind, Kind::Stream(i) if i.is_end_stream()) {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Stream(incoming) => !self.is_encoded() && incoming.is_end_stream(),
            Kind::Unsaid => false,
            Kind::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Stream(incoming) if !self.is_encoded() => incoming.size_hint(),
            Kind::Stream(_) | Kind::Unsaid => SizeHint::default(),
            Kind::Ended => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A body that is never polled to its end (HEAD, a response without body) has ended well if nothing is left.
        match &self.kind {
            Kind::Stream(incoming) if !incoming.is_end_stream() => self.fail(),
            _ => self.end(),
        }
    }
}

/// Reads a whole body, at most `limit` bytes of it.
///
/// # Errors
/// When the peer breaks off, or the body is longer.
pub(crate) async fn collect(mut incoming: Incoming, limit: u64) -> Result<Bytes, CollectError> {
    use http_body_util::BodyExt;
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length: u64 = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
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
    Broken(hyper::Error),
    /// It is longer than it may be.
    TooLong,
}
